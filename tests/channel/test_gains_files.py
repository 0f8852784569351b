"""One way into every radio market for measured gains: ``channel="trace", gains=`` a file or the array it holds."""

from __future__ import annotations

import numpy as np
import pytest

from marketenvs import InvalidParameter, make
from marketenvs.channel import read_gains

MARKETS = {
    "CoalitionTrading-v0": ({"users": 1.0}, 3),
    "SpectrumBertrand-v0": ({"preset": "radio"}, 4),
    "TwoTierBidding-v0": ({"preset": "two_tier"}, None),
    "FederatedSlicing-v0": ({"n_slices": 2, "n_devices": 3}, 6),
}


def _users(name, options, users):
    if users is not None:
        return users
    return int(np.sum(make(name, **options).params.users))


def _numbers(market):
    state = market.reset(3, batch=2)
    seen = []
    for _ in range(2):
        decisions = {}
        here = state
        for stage in market.stages:
            low, high = (np.asarray(b) for b in market.bounds(here, stage.name))
            shape = (2, market.roles[stage.role], stage.codec.width)
            middle = np.broadcast_to((low + high) / 2, shape)
            here = market.commit(here, stage.name, middle)
            decisions[stage.name] = np.asarray(here.decisions[stage.name])
        state, outcome = market.step(state, decisions)
        seen += [np.asarray(v, dtype=float).ravel() for v in outcome.payoffs.values()]
    return np.concatenate(seen)


@pytest.mark.parametrize("name", MARKETS)
def test_a_file_and_its_array_give_the_same_market(name, tmp_path):
    options, users = MARKETS[name]
    users = _users(name, options, users)
    rng = np.random.default_rng(4)
    gains = 10.0 ** rng.uniform(-11.5, -9.0, size=(users, 5, 3))
    np.savez(tmp_path / "gains.npz", gain=gains)
    rows = ["user,prb,slot,gain"]
    rows += [f"{u},{p},{s},{float(gains[u, p, s])!r}" for u in range(users) for p in range(5) for s in range(3)]
    (tmp_path / "gains.csv").write_text("\n".join(rows) + "\n")
    more = {k: v for k, v in options.items() if k != "preset"}
    preset = options.get("preset")
    if name == "SpectrumBertrand-v0":
        more["distance"] = 150.0
    want = _numbers(make(name, preset=preset, channel="trace", gains=gains, **more))
    for file in ("gains.npz", "gains.csv"):
        got = _numbers(make(name, preset=preset, channel="trace", gains=str(tmp_path / file), **more))
        np.testing.assert_allclose(got, want, rtol=1e-12)
    louder = _numbers(make(name, preset=preset, channel="trace", gains=100 * gains, **more))
    assert not np.allclose(louder, want)  # the gains are what the market runs on
    with pytest.raises(InvalidParameter, match="no trace file"):
        make(name, preset=preset, channel="trace", gains=str(tmp_path / "missing.npz"), **more)


def test_what_is_no_gain_is_refused():
    with pytest.raises(InvalidParameter, match="shape"):
        read_gains(np.zeros((3, 2)))
    with pytest.raises(InvalidParameter, match="finite"):
        read_gains(np.full((1, 1, 1), np.nan))
    with pytest.raises(InvalidParameter, match=">= 0"):
        read_gains(np.full((1, 1, 1), -1.0))
    with pytest.raises(InvalidParameter, match="file"):
        read_gains({"gain": 1})
