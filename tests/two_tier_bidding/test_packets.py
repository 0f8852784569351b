"""Packet traffic against the closed form and against a plain loop; measured channels; both through conformance."""

import numpy as np
import pytest

import marketenvs
from marketenvs import channel
from marketenvs.errors import InvalidParameter
from marketenvs.markets.two_tier_bidding import packets, slices
from marketenvs.testing import check_market

from .reference import MULTIPLIER, SLA, USERS, ring_snr

ID = "TwoTierBidding-v0"
BIDS = np.full((1, 4, 1), 1000.0)  # 13, 13, 12, 12 blocks


def make(**params):
    return marketenvs.make(ID, **{"preset": "two_tier", "bid_levels": None, "traffic": "packet", **params})


def long_run(split, rounds, batch=6):
    """Satisfaction and activity of operator 0 over many rounds with the same split, (3,) each."""
    market = make(subframes=200, horizon=1000)
    state, ratio, active = market.reset(1, batch), [], []
    for _ in range(rounds):
        band = 0.2 * np.array([split, (3, 7, 3), (2, 6, 4), (5, 4, 3)], float)[None, :, :, None]
        played = packets.simulate(
            market.params,
            market.backend,
            state.theta,
            market.network(state).user_snr,
            np.broadcast_to(band, (batch, 4, 3, 1)),
            state.history.queues,
            state.nature,
        )
        state, outcome = market.step(state, {"bidding": BIDS, "slicing": [[split[:2], (3, 7), (2, 6), (5, 4)]]})
        ratio.append([outcome.metrics[f"ssr_{s}"][:, 0] for s in ("volte", "embb", "urllc")])
        active.append(played.active[:, 0, :, 0])
    return np.mean(ratio[3:], axis=(0, 2)), np.mean(active[3:], axis=(0, 1))


def closed_form(activity):
    return slices.slice_tables(ring_snr(), USERS, np.asarray(activity), SLA, MULTIPLIER, 0.2, 13).ssr[0, 0]


@pytest.mark.parametrize(
    ("embb", "spec", "rounds"),
    [(4, 0.826, 8), *(pytest.param(n, v, 25, marks=pytest.mark.slow) for n, v in ((6, 0.962), (8, 0.997)))],
)
def test_embb_agrees_with_the_closed_form(embb, spec, rounds):
    """Spec 4.9 gives 0.826/0.962/0.997 from another simulation (activity 0.075; 0.084 here, from mean gaps of 5.9 ms)."""
    ratio, active = long_run((1, embb, 12 - embb), rounds)
    assert active[0] == pytest.approx(0.0062, abs=0.0015)
    assert active[1] == pytest.approx(0.5 / 5.94, rel=0.02)
    assert ratio[1] == pytest.approx(closed_form((0.0062, active[1], 0.25))[1, embb], abs=0.012)
    assert ratio[1] == pytest.approx(spec, abs=0.035)
    assert ratio[0] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.slow
def test_urllc_is_loaded_at_one_block():
    """Spec 4.9: activity 0.86, satisfaction 0.66 where the closed form with activity 0.25 says 0.9996."""
    ratio, active = long_run((2, 10, 1), 40, batch=20)
    assert active[2] == pytest.approx(0.86, abs=0.04)
    assert ratio[2] == pytest.approx(0.66, abs=0.09)


def plain_round(market, state, band, m, s):
    """One slice of market 0 by plain loops, on the same draws: valid and ended packets."""
    queues, p = state.history.queues, market.params
    users = int(USERS[m, s])
    waiting, left, gap = (np.array(q[0, m, s, :users]) for q in (queues.waiting, queues.left, queues.gap))
    rate, served = np.zeros(users), np.zeros(users)
    snr, valid, ended = market.network(state).user_snr[0, m, s], 0, 0
    for k in range(p.subframes):
        draw = {name: state.nature[name][0, m, s, :, k] for name in ("gaps", "sizes", "fast_fading")}
        for j in range(users):
            size = (320.0, min(2000.0, 320.0 * (1 - draw["sizes"][j]) ** (-1 / 1.2)), 2.4e6)[s]
            gap[j] -= 0.5
            if gap[j] <= 0:
                u = draw["gaps"][j]
                gap[j] += (160.0 * u, min(12.5, 2.5 * (1 - u) ** (-1 / 1.2)), -180.0 * np.log(1 - u))[s]
                if waiting[j] == 0:
                    left[j] = size
                ended += waiting[j] >= p.queue_length
                waiting[j] = min(waiting[j] + 1, p.queue_length)
        busy = [j for j in range(users) if waiting[j] > 0]
        for j in busy:
            share = band / len(busy)
            speed = MULTIPLIER * share * np.log2(1 + draw["fast_fading"][j] * snr[j] / share)
            left[j] -= 500 * speed
            rate[j] += speed
            served[j] += 1
            if left[j] <= 0:
                valid += rate[j] / served[j] > SLA[s]
                ended += 1
                waiting[j] -= 1
                left[j] = (320.0, min(2000.0, 320.0 * (1 - draw["sizes"][j]) ** (-1 / 1.2)), 2.4e6)[s]
                rate[j] = served[j] = 0
    return valid, ended, waiting


@pytest.mark.parametrize(("m", "s"), [(0, 1), (2, 2), (1, 0)])
def test_a_round_by_plain_loops(m, s):
    market = make(subframes=400, queue_length=1 if s == 1 else 2)
    state = market.reset(4, 1)
    split = np.array([(2, 4, 7), (1, 9, 3), (4, 7, 1), (3, 6, 3)])
    new, outcome = market.step(state, {"bidding": BIDS, "slicing": split[None, :, :2]})
    valid, ended, waiting = plain_round(market, state, 0.2 * split[m, s], m, s)
    assert ended > 0
    got = outcome.metrics[f"ssr_{('volte', 'embb', 'urllc')[s]}"][0, m]
    assert got == pytest.approx(valid / ended, abs=1e-12)
    np.testing.assert_array_equal(new.history.queues.waiting[0, m, s, : USERS[m, s]], waiting)


def test_queues_carry_over_and_are_seen():
    market = make(subframes=200)
    assert market.information == "clairvoyant"
    state = market.reset(0, 2)
    starved = {"bidding": BIDS, "slicing": np.broadcast_to([(2, 11), (2, 10), (2, 10), (2, 10)], (1, 4, 2))}
    for _ in range(12):
        state, outcome = market.step(state, starved)
    filled = state.history.queues.waiting
    assert (filled[:, :, 2][:, 0, :7].mean(-1) > 3).all()  # no block for URLLC: its queues of 5 fill
    assert filled.max() == 5
    assert (outcome.metrics["ssr_urllc"][:, 0] == 0).all()
    assert (outcome.metrics["delivered_urllc"][:, 0] == 0).all()
    seen = market.observe(market.commit(state, "bidding", np.broadcast_to(BIDS, (2, 4, 1))), "slicing")
    assert seen.shape == (2, 4, 14)
    np.testing.assert_allclose(seen[0, 0, 13], filled[0, 0, 2].sum() / (7 * 5))


def test_the_benchmark_of_a_round_is_the_best_split_and_never_certified():
    market = make(subframes=40, n_operators=2, users=((2, 3, 2), (1, 2, 1)), blocks=8, bandwidth=1.0, bid_levels=3)
    state = market.reset(3, 1)
    bids = np.array([[[500.0], [300.0]]])
    answer = market.respond(state, {"bidding": bids})
    assert not answer.certified.any()
    assert answer.kind == "estimate"
    base = market.payoff(state, {"bidding": bids, "slicing": answer.actions["slicing"]})["slicer"][0]
    mask = market.action_mask(market.commit(state, "bidding", bids), "slicing")[0]
    for m in range(2):
        for pair in market.stage("slicing").codec.table[mask[m]]:
            trial = np.array(answer.actions["slicing"])
            trial[0, m] = pair
            paid = market.payoff(state, {"bidding": bids, "slicing": trial})["slicer"][0, m]
            assert paid <= base[m] + 1e-12
    equilibrium = market.equilibrium(state)
    assert not equilibrium.certified.any()
    assert np.isinf(market.nash_conv(state, equilibrium.strategy).upper).all()


SMALL = {
    "n_operators": 4,
    "users": ((5, 1, 2), (1, 3, 0), (2, 2, 3), (0, 1, 5)),
    "blocks": 6,
    "bandwidth": 1.0,
    "bid_levels": 2,
    "horizon": 3,
}
GAINS = 10.0 ** np.random.default_rng(5).uniform(-9.0, -6.0, (25, 3, 4))


@pytest.mark.parametrize(
    "options",
    [{"subframes": 6}, {"traffic": "activity", "channel": "trace", "gains": GAINS}],
    ids=["packet", "trace"],
)
def test_conformance(options):
    market = make(**SMALL, **options)
    assert check_market(market, backends=("array_api_strict",))


# -- measured channels ------------------------------------------------------------------------------------------------


def test_a_trace_takes_the_place_of_the_model(tmp_path):
    """Gains of the default rings, written to a file and read back, give reference case R1; other slots give other markets."""
    inside = np.arange(USERS.max()) < USERS[..., None]
    snr = ring_snr()[0][inside]  # users in the order operator, service, user
    gain = snr * 1e6 / 10 ** ((46 + 174) / 10)
    trace = np.stack([gain, 0.1 * gain], axis=-1)[:, None, :] * np.array([0.5, 1.5])[None, :, None]
    np.savez(tmp_path / "cell.npz", gain=trace)
    market = marketenvs.make(ID, channel="trace", gains=channel.load_trace(tmp_path / "cell.npz"))
    state = market.reset(0, 2)
    equilibrium = market.equilibrium(state)
    assert equilibrium.certified.all()
    want = (656.7863147034, 652.1193532018, 660.8552882529, 604.7029930993)
    np.testing.assert_allclose(equilibrium.actions["bidding"][1, :, 0], want, atol=1e-9)
    state, _ = market.step(state, {"bidding": equilibrium.actions["bidding"]})
    weaker = market.equilibrium(state)
    assert weaker.certified.all()
    np.testing.assert_allclose(market.network(state).snr, 0.1 * snr_sums(snr, inside), rtol=1e-12)
    assert weaker.values["bidder"].sum() < equilibrium.values["bidder"].sum()
    state, _ = market.step(state, {"bidding": weaker.actions["bidding"]})
    np.testing.assert_allclose(market.network(state).snr, snr_sums(snr, inside), rtol=1e-12)  # the trace starts again


def snr_sums(snr, inside):
    full = np.zeros(inside.shape)
    full[inside] = snr
    return np.broadcast_to(full.sum((1, 2)), (2, 4))


def test_slices_of_a_trace_are_exact():
    market = marketenvs.make(ID, preset="two_tier", channel="trace", gains=GAINS, **SMALL)
    state = market.reset(0, 2)
    equilibrium = market.equilibrium(state)
    assert market.nash_conv(state, equilibrium.strategy).gains["slicer"].max() <= 1e-12
    rate = market.network(state).rate[0, 0, 1, 3]  # one eMBB user with half the band
    snr = GAINS[5, :, 0].mean() * 10**22 / 1e6
    assert rate == pytest.approx(MULTIPLIER * 0.5 * np.log2(1 + snr / 0.5), rel=1e-12)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"channel": "trace"}, "needs gains"),
        ({"gains": GAINS}, "channel is not 'trace'"),
        ({"channel": "trace", "gains": GAINS}, r"\(97 users, PRBs, rounds\)"),
        ({"channel": "trace", "gains": -np.ones((97, 1, 1))}, ">= 0"),
        ({"channel": "trace", "gains": np.full((97, 1, 1), np.nan)}, "finite"),
        ({"channel": "trace", "gains": "x"}, "no trace file"),
        ({"channel": "trace", "gains": np.ones((97, 1, 1)), "positions": "random"}, "positions"),
        ({"channel": "trace", "gains": np.ones((97, 1, 1)), "fading": "sampled"}, "fading"),
        ({"traffic": "packet"}, "lower tier"),
        ({"traffic": "packet", "preset": "two_tier", "ssr_noise": "binomial"}, "counts packets"),
    ],
)
def test_contradictory_options(params, message):
    with pytest.raises(InvalidParameter, match=message):
        marketenvs.make(ID, **params)
