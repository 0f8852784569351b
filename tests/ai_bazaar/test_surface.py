"""Every reference case of the specification through the public surface alone: make, reset, equilibrium, respond, nash_conv."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import marketenvs

CASES = json.loads((Path(__file__).parent / "refs.json").read_text())


def make(case, **changes):
    """A market whose parameters are named by the paper's symbols."""
    market = marketenvs.make("AIBazaar-v0")
    symbols = market.symbols
    return marketenvs.make(
        "AIBazaar-v0", **{symbols[k]: v for k, v in case["params"].items() if k in symbols}, **changes
    )


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "stackelberg"], ids=lambda c: c["name"])
def test_stackelberg(case):
    market = make(case)
    state = market.reset(seed=0, batch=2)
    eq = market.equilibrium(state)
    assert eq.certified.all()
    assert eq.actions["provider"][1, 0, 0] == pytest.approx(case["p_star"], rel=2e-10)
    assert eq.values["provider"][0, 0] == pytest.approx(case["U_cpp"], rel=1e-10)
    assert eq.actions["consumer"][0, :, 0] == pytest.approx(case["F"], rel=2e-9)
    assert eq.values["consumer"][0] == pytest.approx(case["U"], rel=2e-9, abs=1e-6)
    gap = market.nash_conv(state, eq.actions)
    assert gap.kind == "exact"
    assert gap.upper.max() <= 1e-8 * max(1.0, abs(case["U_cpp"]))
    assert market.payoff(state, eq.actions)["consumer"][1] == pytest.approx(case["U"], rel=2e-9, abs=1e-6)


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "follower_ne"], ids=lambda c: c["name"])
def test_follower_game_at_a_posted_price(case):
    market = make(case)
    state = market.reset(seed=0)
    answer = market.respond(state, {"provider": case["p"]})
    assert answer.certified.all()
    assert answer.on_path["consumer"][0, :, 0] == pytest.approx(case["F"], rel=2e-9, abs=1e-6)
    assert answer.values["consumer"][0] == pytest.approx(case["U"], rel=2e-9, abs=1e-6)
    assert answer.values["provider"][0, 0] == pytest.approx(case["U_cpp"], rel=1e-9)
    best = market.best_response(state, "consumer", {"provider": case["p"], "consumer": answer.on_path["consumer"]})
    assert best.gains.max() <= 1e-8 * max(1.0, np.abs(case["U"]).max())


def test_r10_regrets_of_a_given_profile():
    market = marketenvs.make("AIBazaar-v0", preset="calibrated")
    gap = market.nash_conv(market.reset(seed=0), {"provider": 16.0, "consumer": 50.0})
    assert gap.gains["consumer"][0] == pytest.approx([664.638170123, *[225.939639426] * 9], rel=1e-10)
    assert gap.gains["consumer"].sum() == pytest.approx(2698.09492496, rel=1e-10)
    assert gap.gains["provider"][0, 0] == pytest.approx(3485.72891501, rel=1e-10)


@pytest.mark.parametrize("preset", ["calibrated", "grid"])
def test_r11_uniform_mixtures_are_integrated_exactly(preset):
    market = marketenvs.make("AIBazaar-v0", preset=preset)
    state = market.reset(seed=0, batch=2)
    mixture = marketenvs.Samples(np.linspace(10, 100, 10)[:, None, None, None])
    pay = market.payoff(state, {"provider": 15.0, "consumer": mixture})
    assert pay["provider"][:, 0] == pytest.approx([5500, 5500], rel=1e-12)
    assert pay["consumer"][1] == pytest.approx([2765.23670273, *[1319.68517085] * 9], rel=1e-10)
    best = market.best_response(state, "consumer", {"provider": 15.0, "consumer": mixture})
    if preset == "grid":
        assert best.kind == "exact"
        assert best.gains[0] == pytest.approx([1312.2434492, *[822.557008102] * 9], rel=1e-10)
    else:
        assert best.kind == "estimate"
        assert best.gains[0].mean() == pytest.approx(871.5, rel=0.2)


def test_repeating_atoms_changes_nothing():
    market = marketenvs.make("AIBazaar-v0", preset="grid")
    state = market.reset(seed=0)
    levels = np.linspace(10, 100, 10)
    once, often = (marketenvs.Samples(v[:, None, None, None]) for v in (levels, np.repeat(levels, 13)))
    few, many = (market.nash_conv(state, {"provider": 15.0, "consumer": s}).lower for s in (once, often))
    assert few == pytest.approx(many, rel=1e-9)


def test_mixtures_are_clipped_and_checked_like_points():
    market = marketenvs.make("AIBazaar-v0")
    state = market.reset(seed=0)
    far, dear = marketenvs.Samples(np.full((2, 1, 1, 1), 5000.0)), marketenvs.Samples(np.full((2, 1, 1, 1), 99.0))
    assert market.payoff(state, {"provider": 15.0, "consumer": far})["provider"][0, 0] == pytest.approx(10_000)
    assert market.payoff(state, {"provider": dear, "consumer": 50.0})["provider"][0, 0] == pytest.approx(7_500)
    with pytest.raises(marketenvs.InvalidAction, match="'purchase' must have values of shape"):
        market.payoff(state, {"provider": 15.0, "consumer": marketenvs.Samples(np.ones((2, 1, 3, 1)))})


def test_observe_before_the_price_is_posted_shows_the_last_one():
    market = marketenvs.make("AIBazaar-v0", preset="calibrated", n_consumers=10)
    state = market.reset(seed=0, batch=8)
    obs = market.observe(state, "purchase")
    assert obs.shape == (8, 10, 7)
    assert obs[:, 0, 0] == pytest.approx((state.history.price[:, 0] - 10) / 10)
    state, _ = market.step(state, {"provider": 13.0, "consumer": 40.0})
    assert market.observe(state, "consumer")[:, :, 0] == pytest.approx(np.full((8, 10), 0.3))
    assert np.array_equal(market.observe(state, "provider"), market.observe(state, "pricing"))
    with pytest.raises(marketenvs.UnknownName, match="did you mean 'purchase'"):
        market.observe(state, "purchse")


def test_decisions_in_every_documented_form():
    market = marketenvs.make("AIBazaar-v0")
    state = market.reset(seed=0, batch=3)
    amounts = np.linspace(20, 80, 10)
    forms = [amounts, list(amounts), amounts[None], amounts[None, :, None], np.tile(amounts[:, None], (3, 1, 1))]
    pays = [market.payoff(state, {"provider": 14.0, "consumer": f})["consumer"] for f in forms]
    for pay in pays[1:]:
        assert np.array_equal(pay, pays[0])
    eq = market.equilibrium(state)
    _, outcome = market.step(state, eq.strategy)
    assert outcome.payoffs["provider"] == pytest.approx(eq.values["provider"])
    optimum = market.social_optimum(state)
    assert market.outcome(state, optimum.decisions).metrics["welfare"] == pytest.approx(optimum.value)


@pytest.mark.parametrize("prefix", [{}, {"consumer": 5.0}, {"provider": 15.0, "consumer": 5.0}])
def test_respond_takes_the_first_stages_only(prefix):
    market = marketenvs.make("AIBazaar-v0")
    with pytest.raises(marketenvs.InvalidAction, match="takes the decisions of"):
        market.respond(market.reset(seed=0), prefix)


@pytest.mark.parametrize("preset", ["calibrated", "grid"])
def test_an_equilibrium_can_be_pickled_and_still_answers(preset):
    import pickle

    market = marketenvs.make("AIBazaar-v0", preset=preset)
    state = market.reset(seed=0)
    eq = pickle.loads(pickle.dumps(market.equilibrium(state)))
    _, outcome = market.step(state, eq.strategy)
    assert outcome.payoffs["provider"] == pytest.approx(eq.values["provider"])
