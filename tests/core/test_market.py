"""The contract's boundary, on AI-Bazaar: decisions, seeds, batches, copies. What holds for all markets is in tests/conformance."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import marketenvs
from marketenvs import (
    InvalidAction,
    InvalidParameter,
    MarketEnvsError,
    MarketSpec,
    NotOffered,
    Pure,
    Samples,
    UnknownName,
)

few = settings(max_examples=40, deadline=None, derandomize=True)
MARKET = marketenvs.make("AIBazaar-v0", n_consumers=3)
STATE = MARKET.reset(0, batch=2)
PROFILE = {"pricing": np.full((2, 1, 1), 15.0), "purchase": np.full((2, 3, 1), 40.0)}


@few
@given(
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    stage=st.sampled_from(["pricing", "purchase"]),
    market=st.integers(0, 1),
    agent=st.integers(0, 2),
)
def test_decisions_that_are_not_finite(value, stage, market, agent):
    decisions = PROFILE[stage].copy()
    agent %= decisions.shape[1]
    decisions[market, agent, 0] = value
    role = MARKET.stage(stage).role
    with pytest.raises(InvalidAction, match=f"{role}_{agent} at stage '{stage}' in market {market}"):
        MARKET.step(STATE, {**PROFILE, stage: decisions})


@few
@given(shape=st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple))
def test_shapes_are_accepted_or_refused(shape):
    """Accepted: (B, n, 1), (1, n, 1), (B, n), (1, n), (n,); a scalar too. Nothing else is guessed at."""
    good = shape in [(2, 3, 1), (1, 3, 1), (2, 3), (1, 3), (3,)]
    profile = {"pricing": 15.0, "purchase": np.full(shape, 40.0)}
    if good:
        MARKET.step(STATE, profile)
    else:
        with pytest.raises(InvalidAction, match=re.escape("(2, 3, 1)") + ".*" + re.escape(str(shape))):
            MARKET.step(STATE, profile)


def test_ways_to_write_a_profile():
    want = MARKET.payoff(STATE, PROFILE)
    for profile in (
        {"provider": 15, "consumer": 40.0},
        {"provider": [[15.0], [15.0]], "consumer": [[40, 40, 40]]},
        {"pricing": np.float32(15), "purchase": np.full((2, 3), 40)},
        {"provider": Pure(PROFILE["pricing"]), "consumer": 40.0},
        {"provider": 15, "consumer": Samples(PROFILE["purchase"][None])},
    ):
        got = MARKET.payoff(STATE, profile)
        assert np.allclose(got["consumer"], want["consumer"], rtol=1e-12)


@pytest.mark.parametrize(
    ("profile", "error", "message"),
    [
        ({"pricing": 15.0}, InvalidAction, r"lacks stage\(s\) purchase"),
        ({**PROFILE, "provider": 15.0}, InvalidAction, "'pricing' is given twice"),
        ({"pricin": 15.0, "purchase": 40.0}, UnknownName, "no stage or role 'pricin'.*did you mean 'pricing'"),
        ({**PROFILE, "judge": 15.0}, UnknownName, "no stage or role 'judge'"),
        ({**PROFILE, "purchase": "all"}, InvalidAction, "purchase.*'all'"),
        ({**PROFILE, "purchase": None}, InvalidAction, "purchase"),
        ({**PROFILE, "purchase": [[1, 2], [3]]}, InvalidAction, "purchase"),
        ({**PROFILE, "purchase": PROFILE["purchase"] * 1j}, InvalidAction, "purchase"),
        ([15.0, 40.0], InvalidAction, "a profile maps stages or roles to decisions, got list"),
        (None, InvalidAction, "NoneType"),
    ],
)
@pytest.mark.parametrize("call", ["step", "payoff", "outcome", "nash_conv"])
def test_bad_profiles(call, profile, error, message):
    with pytest.raises(error, match=message):
        getattr(MARKET, call)(STATE, profile)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, r"seeds must lie in \[0, 2\*\*64\)"),
        ({"seed": 1 << 64}, "seeds must lie in"),
        ({"seed": 1.5}, "seed must be"),
        ({"seed": None}, "seed must be"),
        ({"seed": True}, "seed must be"),
        ({"seed": "one"}, "seed"),
        ({"seed": [1.5, 2]}, "seed"),
        ({"seed": []}, "seed is an empty sequence"),
        ({"seed": [1, 2], "batch": 3}, "2 seeds were given for a batch of 3"),
        ({"batch": 0}, "batch must be an integer of at least 1, got 0"),
        ({"batch": -3}, "batch must be an integer of at least 1"),
        ({"batch": 2.5}, "batch"),
        ({"batch": "many"}, "batch"),
        ({"first": -1, "batch": 2}, "first"),
        ({"split": "valid"}, "split must be 'train' or 'test', got 'valid'"),
    ],
    ids=str,
)
def test_bad_resets(arguments, message):
    with pytest.raises(InvalidParameter, match=message):
        MARKET.reset(**arguments)


@few
@given(seeds=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4), split=st.sampled_from(["train", "test"]))
def test_any_seeds(seeds, split):
    state = MARKET.reset(seeds, split=split)
    assert state.seed.shape == (len(seeds), 2)
    for i, seed in enumerate(seeds):
        assert np.array_equal(MARKET.reset(seed, split=split).history.purchases[0], state.history.purchases[i])
    assert len(np.unique(state.seed, axis=0)) == len(set(seeds))


def test_take_repeats_and_reorders():
    market = marketenvs.make("AIBazaar-v0", preset="drawn")
    state = market.reset(1, batch=5)
    part = market.take(state, [4, 0, 4])
    assert np.array_equal(part.theta.payment_weight, state.theta.payment_weight[[4, 0, 4]])
    assert np.array_equal(part.history.price, state.history.price[[4, 0, 4]])
    fixed = MARKET.take(STATE, [1, 1, 0])
    assert fixed.theta.unit_cost.shape[0] in (1, 3)
    assert fixed.round.shape == (3,)


def test_a_market_that_another_process_unpickles_keeps_its_id():
    """The id must travel with the object: a worker process has never called make()."""
    packed = pickle.dumps(MARKET)
    code = "import pickle, sys; m = pickle.loads(sys.stdin.buffer.read()); print(m.id, m.roles['consumer'])"
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True)
    assert done.stdout.split() == [b"AIBazaar-v0", b"3"]


def test_importing_marketenvs_is_light():
    heavy = ["torch", "jax", "ray", "stable_baselines3", "matplotlib", "pandas", "statsmodels"]
    code = f"import sys, marketenvs; marketenvs.make('AIBazaar-v0').reset(0); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("id", ["Fish", "Fish-v", "Fish-vx", "-v0", "Fish-v0-beta"])
def test_ids_must_be_versioned(id):
    with pytest.raises(InvalidParameter, match=r"must end in a version"):
        marketenvs.register(MarketSpec(id, "nowhere:Fish", ("seller",), "Fish", "None."))


def test_taken_ids():
    with pytest.raises(InvalidParameter, match=r"'AIBazaar-v0' is taken by marketenvs\.markets\.ai_bazaar"):
        marketenvs.register(MarketSpec("AIBazaar-v0", "nowhere:Fish", ("seller",), "Fish", "None."))


def test_solvers_that_a_market_lacks_say_so():
    from tests.conformance.samples import Toll

    class Bare(Toll):
        respond, solve = marketenvs.Market.respond, marketenvs.Market.solve
        best_reply, optimum = marketenvs.Market.best_reply, marketenvs.Market.optimum

    market = Bare()
    with pytest.raises(NotOffered, match="solver for its later stages"):
        market.respond(market.reset(0), {"toll": 1.0})
    with pytest.raises(NotOffered, match="social-optimum"):
        market.social_optimum(market.reset(0))
    with pytest.raises(MarketEnvsError, match="no stage or role 'tol'"):
        market.best_response(market.reset(0), "tol", {"toll": 1.0, "trip": 1.0})


def test_search_finds_an_equilibrium_but_never_certifies_it():
    """A one-stage market with a known equilibrium (drivers drive taste - toll), searched for without an oracle."""
    from tests.conformance.samples import CalmToll

    class Bare(CalmToll):
        solve, best_reply = marketenvs.Market.solve, marketenvs.Market.best_reply
        respond = marketenvs.Market.respond

    market = Bare()
    state = market.reset(0, batch=2)
    found = market.equilibrium(state)
    assert found.kind == "estimate"
    assert not found.certified.any()
    conv = market.nash_conv(state, found.strategy)
    assert np.all(np.isinf(conv.upper))
    wanted = np.clip(state.theta.taste - found.actions["toll"][:, :, 0], 0, 5)
    assert found.actions["trip"][:, :, 0] == pytest.approx(wanted, abs=1e-2)
