"""What the score promises: 1 for the equilibrium, 0 for uniform play, free of units, maps judged off the path, mixtures as mixtures."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

import marketenvs
from marketenvs import InvalidAction, MarketEnvsError, Pure, Samples, UnknownName, evaluate, role_track, scoring
from marketenvs.policy import Constant, EquilibriumPolicy, Myopic, Policy, Uniform
from marketenvs.task import Definition, Plan, build_task

from . import games
from .conftest import CROWD, PLAN


class Shifted(EquilibriumPolicy):
    """The equilibrium moved by a share of the stage's range."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def strategy(self, stage, obs, mask, state, draws):
        played = super().strategy(stage, obs, mask, state, draws).draw(np.zeros(obs.shape[:2]))
        low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage.name))
        return Pure(np.clip(played + self.shift * (high - low), low, high))

    def act_at(self, stage, obs, mask, state):
        return self.strategy(stage, obs, mask, state, 1).decisions


class OnPathPoint(EquilibriumPolicy):
    """F*(p*) whatever the price: the followers' equilibrium decisions as a constant of each market."""

    def strategy(self, stage, obs, mask, state, draws):
        return Pure(self._solve(state._replace(decisions={})).actions[stage.name])

    def act_at(self, stage, obs, mask, state):
        return self.strategy(stage, obs, mask, state, 1).decisions


def _all(market_or_roles, policy):
    return {role: policy() for role in market_or_roles}


ROLES = ("provider", "consumer")


@pytest.mark.parametrize("name", ["drawn_task", "grid_task"])
def test_equilibrium_scores_one(name, request):
    found = evaluate(request.getfixturevalue(name), _all(ROLES, EquilibriumPolicy))
    assert found.scores == pytest.approx({"provider": 1, "consumer": 1}, abs=1e-9)
    assert f"{found.score:.3f}" == "1.000"
    assert found.digits >= 9
    assert found.nash_conv == pytest.approx((0, 0), abs=1e-6)
    assert found.kind == "exact"


@pytest.mark.parametrize("name", ["drawn_task", "grid_task"])
def test_random_scores_zero_within_its_own_noise(name, request):
    """Anchors average a few evaluations of uniform play; other evaluations lie around them within their noise."""
    task = request.getfixturevalue(name)
    runs = [evaluate(task, _all(ROLES, Uniform), seed=seed).scores for seed in range(10)]
    for role in ROLES:
        scores = np.array([r[role] for r in runs])
        assert abs(scores.mean()) < 4 * scores.std(ddof=1) * math.sqrt(1 / scoring.ANCHOR_SEEDS + 1 / len(scores))
        assert abs(scores.mean()) < 0.15
    anchor = [evaluate(task, _all(ROLES, Uniform), seed=7 + k).scores for k in range(scoring.ANCHOR_SEEDS)]
    for role in ROLES:
        assert np.mean([scores[role] for scores in anchor]) == pytest.approx(0, abs=1e-12), "these seeds are the anchor"


@pytest.mark.parametrize("name", ["drawn_task", "grid_task"])
@pytest.mark.parametrize(("role", "shift"), [("provider", 0.1), ("provider", -0.1), ("consumer", -0.12)])
def test_a_wrong_equilibrium_is_caught(name, role, shift, request):
    policies = _all(ROLES, EquilibriumPolicy) | {role: Shifted(shift)}
    found = evaluate(request.getfixturevalue(name), policies)
    other = next(r for r in ROLES if r != role)
    assert found.scores[role] < 0.9999
    assert found.regret[role] > 0
    assert found.scores[other] == pytest.approx(1, abs=1e-9)
    assert found.worst == found.scores[role]
    assert found.nash_conv[0] > 0


def test_a_wrong_certificate_does_not_help(drawn_task, monkeypatch):
    """The oracle itself claims a wrong profile: regrets come from best responses, not from the claim."""
    from marketenvs.markets.ai_bazaar import solve

    right = solve.equilibrium

    def wrong(market, state):
        found = right(market, state)
        price = np.clip(found.actions["pricing"] * 1.03, 10, 20)
        answer = market.respond(state, {"pricing": price})
        claimed = market.by_stage({"pricing": Pure(price), "purchase": answer.strategy["purchase"]})
        return dataclasses.replace(
            found, strategy=claimed, on_path=market.by_stage({"pricing": price, "purchase": answer.on_path["purchase"]})
        )

    monkeypatch.setattr(solve, "equilibrium", wrong)
    found = evaluate(drawn_task, _all(ROLES, EquilibriumPolicy))
    assert found.scores["provider"] < 0.999
    assert found.scores["consumer"] == pytest.approx(1, abs=1e-9)


def test_a_followers_point_is_not_rewarded(drawn_task):
    """On the path it is the equilibrium; over the frozen prices it answers nothing."""
    found = evaluate(drawn_task, {"provider": EquilibriumPolicy(), "consumer": OnPathPoint()})
    assert found.nash_conv == pytest.approx((0, 0), abs=1e-6)
    assert found.scores["consumer"] < 0.75
    away = drawn_task.prefixes["purchase"]["pricing"][3:]  # the uniform half alone: hardly better than uniform play
    market = drawn_task.make_market()
    state = drawn_task.held_out(market)
    point = market.equilibrium(state).actions["purchase"]
    gains = [market.best_response(state, "purchase", {"pricing": p, "purchase": point}).gains.mean() for p in away]
    assert 1 - np.mean(gains) / drawn_task.anchors["consumer"] < 0.5


class HalfHalf(Policy):
    """Each consumer mixes its least and largest amount, one in four; the provider its middle price."""

    stochastic = True

    def start(self, market, role, batch, seed):
        super().start(market, role, batch, seed)
        self.rng = np.random.default_rng(seed)

    def strategy(self, stage, obs, mask, state, draws):
        low, high = (
            np.broadcast_to(self.market.backend.numpy(b), (*obs.shape[:2], 1))
            for b in self.market.bounds(state, stage.name)
        )
        return Samples(np.stack((low, high)), np.array([0.75, 0.25]))

    def act_at(self, stage, obs, mask, state):
        return self.strategy(stage, obs, mask, state, 1).draw(self.rng.uniform(size=obs.shape[:2]))


def test_mixtures_on_the_grid_are_scored_as_mixtures(grid_task):
    """The regret of mixing consumers, against a sum over all their joint draws; scoring one draw would give something else."""
    found = evaluate(grid_task, {"provider": EquilibriumPolicy(), "consumer": HalfHalf()})
    market = grid_task.make_market()
    state = grid_task.held_out(market)
    low, high = 10.0, 100.0
    levels = np.linspace(low, high, market.params.amount_levels)
    regrets = []
    for p in range(len(grid_task.prefixes["purchase"]["pricing"])):
        price = grid_task.prefixes["purchase"]["pricing"][p]
        gains = np.zeros((market.batch(state), 3))
        for i in range(3):
            value = np.zeros((len(levels), market.batch(state)))
            for others in itertools.product((low, high), repeat=2):
                weight = math.prod(0.75 if x == low else 0.25 for x in others)
                for a, own in enumerate(levels):
                    amounts = np.insert(np.array(others), i, own)
                    value[a] += (
                        weight
                        * market.payoff(
                            state, {"pricing": price, "purchase": np.broadcast_to(amounts[:, None], (len(gains), 3, 1))}
                        )["consumer"][:, i]
                    )
            gains[:, i] = value.max(axis=0) - 0.75 * value[0] - 0.25 * value[-1]
        regrets.append(gains.mean())
    assert found.regret["consumer"] == pytest.approx(np.mean(regrets), rel=1e-9)
    assert found.kind == "exact"


def test_an_exact_mixed_equilibrium_scores_one(registered):
    plan = Plan(markets=3, warm_up=0)
    task = build_task(
        Definition("pennies", registered(games.Pennies), params={"stake": marketenvs.Uniform(2, 4)}, plan=plan),
        floors=False,
    )
    found = evaluate(task, {"player": EquilibriumPolicy()})
    assert found.score == pytest.approx(1, abs=1e-12)
    with pytest.raises(InvalidAction, match="mixed at stage"):
        _ = task.make_market().equilibrium(task.held_out(task.make_market())).actions
    for level in (0.0, 1.0):  # any pure play leaves something to be won
        assert evaluate(task, {"player": Constant([level])}).score < 0.5
    even = evaluate(task, {"player": _Coin(0.5)}).score  # player 1 should show level 1 less often
    assert 0.0 < even < 0.999


class _Coin(Policy):
    """Level 1 with a given chance."""

    stochastic = True

    def __init__(self, chance):
        self.chance = chance

    def strategy(self, stage, obs, mask, state, draws):
        return Samples(np.array([0.0, 1.0])[:, None, None, None], np.array([1 - self.chance, self.chance]))

    def act_at(self, stage, obs, mask, state):
        return np.zeros((*obs.shape[:2], 1))


@pytest.mark.parametrize("kind", [games.ProviderInPence, games.ConsumerInPounds])
def test_scores_do_not_depend_on_the_unit_of_money(kind, drawn_task, registered, monkeypatch):
    monkeypatch.setattr(role_track, "PANEL", {"equilibrium": EquilibriumPolicy})
    other = build_task(Definition("other-unit", registered(kind), "calibrated", CROWD, plan=PLAN), floors=False)
    for role in ROLES:
        assert other.anchors[role] == pytest.approx(kind.scale[role] * drawn_task.anchors[role], rel=1e-9)
    for policies in (
        lambda: {"provider": Shifted(0.1), "consumer": Shifted(-0.2)},
        lambda: {"provider": Constant([14.0]), "consumer": Constant([30.0])},
        lambda: _all(ROLES, Myopic),
        lambda: _all(ROLES, Uniform),
    ):
        mine, theirs = evaluate(drawn_task, policies()), evaluate(other, policies())
        assert theirs.scores == pytest.approx(mine.scores, abs=1e-9)
    for role in ROLES:
        shifted = Shifted(0.1)
        assert role_track.evaluate_role(other, role, shifted)["mean"] == pytest.approx(
            role_track.evaluate_role(drawn_task, role, Shifted(0.1))["mean"], abs=1e-9
        )


def test_the_role_track_has_its_ends_at_zero_and_one(grid_task):
    for role in ROLES:
        best = role_track.evaluate_role(grid_task, role, EquilibriumPolicy())
        assert set(best) == {*role_track.PANEL, "mean"}
        assert best["equilibrium"] == pytest.approx(1, abs=0.02)
        idle = role_track.evaluate_role(grid_task, role, Uniform(), seed=1)
        assert abs(idle["equilibrium"]) < 0.35
        assert idle["equilibrium"] < best["equilibrium"] - 0.5
    with pytest.raises(UnknownName, match="did you mean 'consumer'"):
        role_track.evaluate_role(grid_task, "consumers", Uniform())


def test_the_same_seed_gives_the_same_evaluation(drawn_task):
    one, two = (evaluate(drawn_task, _all(ROLES, Uniform), seed=3) for _ in range(2))
    assert dataclasses.replace(one, seconds=0.0) == dataclasses.replace(two, seconds=0.0)
    assert one.task_hash == drawn_task.hash
    other = evaluate(drawn_task, _all(ROLES, Uniform), seed=4)
    assert other.scores != one.scores


def test_best_constant_is_the_best_of_its_candidates(drawn_task):
    found = scoring.best_constant(drawn_task, points=3, zooms=0)
    score = evaluate(drawn_task, found).scores
    for x in (0.0, 0.5, 1.0):
        constants = {"provider": Constant([10 + 10 * x]), "consumer": Constant([10 + 90 * x])}
        tried = evaluate(drawn_task, constants).scores
        assert all(score[r] >= tried[r] - 1e-9 for r in ROLES)
    assert max(score.values()) < 0.999


class _Returns(Policy):
    def __init__(self, value):
        self.value = value

    def act(self, obs, mask=None):
        return self.value(obs) if callable(self.value) else self.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "policy of 'consumer' returned NaN or infinity at stage 'purchase'"),
        (np.inf, "returned NaN or infinity"),
        (np.zeros((3, 3, 3)), r"policy of 'consumer' returned shape \(3, 3, 3\); expected \(12, 10, 1\)"),
        (None, "policy of 'consumer' returned"),
        ("all", "policy of 'consumer' returned"),
    ],
)
def test_policies_that_return_nonsense(value, message, drawn_task):
    with pytest.raises(InvalidAction, match=message):
        evaluate(drawn_task, {"provider": EquilibriumPolicy(), "consumer": _Returns(value)})


def test_policies_for_wrong_roles(drawn_task):
    with pytest.raises(UnknownName, match=r"no policy for role\(s\) consumer"):
        evaluate(drawn_task, {"provider": Uniform()})
    with pytest.raises(UnknownName, match="has no role 'consumers'; did you mean 'consumer'"):
        evaluate(drawn_task, {"provider": Uniform(), "consumers": Uniform()})


def test_out_of_range_policies_are_scored_as_clipped(drawn_task):
    wild = evaluate(drawn_task, {"provider": Constant([1e6]), "consumer": Constant([-5.0])})
    tame = evaluate(drawn_task, {"provider": Constant([20.0]), "consumer": Constant([10.0])})
    assert wild.scores == pytest.approx(tame.scores, abs=1e-12)


def test_markets_without_certificates_are_not_scored(registered):
    definition = Definition("doubtful", registered(games.Uncertified), plan=Plan(markets=2, warm_up=0, prefixes=2))
    with pytest.raises(MarketEnvsError, match="task doubtful: only 0 of 2 drawn markets have a certified equilibrium"):
        build_task(definition, floors=False)


def test_the_panels_bidders_play_the_equilibrium_moved_by_a_fifth_of_the_range(drawn_task):
    """Over- and under-bidder, pure: the solver's decisions moved and kept within the bounds; shades of opposite sign bracket it."""
    market = drawn_task.make_market()
    state = drawn_task.held_out(market)
    (stage, _) = market.stages
    solved = market.equilibrium(state).actions[stage.name]
    obs = market.backend.numpy(market.observe(state, stage.name))
    for name, shift in (("overbidder", role_track.SHADE), ("underbidder", -role_track.SHADE)):
        bidder = role_track.PANEL[name]()
        bidder.start(market, stage.role, market.batch(state), 0)
        played = bidder.strategy(stage, obs, None, state, 1).decisions
        np.testing.assert_allclose(played, np.clip(solved + shift * 10.0, 10.0, 20.0))
        np.testing.assert_array_equal(bidder.act_at(stage, obs, None, state), played)


def test_a_mixed_equilibrium_is_moved_as_a_mixture():
    """Second method: quantiles of the moved mixture are the moved quantiles of the closed form's."""
    market = marketenvs.make("SpectrumBertrand-v0", preset="clearing", n_sellers=3, channels=10, demand=25.0)
    state = market.reset(seed=0, batch=2)
    (stage,) = market.stages
    obs = market.backend.numpy(market.observe(state, stage.name))
    uniforms = np.random.default_rng(0).uniform(size=(2, 3))
    plain = market.equilibrium(state).strategy[stage.name].draw(uniforms)
    low, high = (market.backend.numpy(b) for b in market.bounds(state, stage.name))
    for shift in (0.2, -0.2):
        moved = role_track.Shaded(shift)
        moved.start(market, "seller", 2, 0)
        found = moved.strategy(stage, obs, None, state, 8)
        assert not isinstance(found, Pure)
        np.testing.assert_allclose(found.draw(uniforms), np.clip(plain + shift * (high - low), low, high))
