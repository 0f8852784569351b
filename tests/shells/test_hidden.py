"""Attempts to find out, through observations and infos, what an agent may not know."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import marketenvs
from marketenvs.shells.single import MarketSingleAgentEnv
from marketenvs.shells.vector import MarketVectorEnv

from .cases import HORIZON, every_market, every_role, same, sample
from .toy import Toy, ToyParams

ALLOWED = {"acting", "stage", "action_mask"}


def leaves(value: Any):
    """All that is inside nested dictionaries and tuples."""
    if isinstance(value, dict):
        for v in value.values():
            yield from leaves(v)
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from leaves(v)
    else:
        yield value


@every_market
def test_infos_hold_nothing_but_whose_turn_it_is(make):
    """No metrics, payoffs, states or draws; masks are zeros and ones."""
    market = make()
    env = market.parallel_env()
    observations, infos = env.reset(seed=0)
    rng = np.random.default_rng(0)
    while env.agents:
        for info in infos.values():
            assert set(info) <= ALLOWED
            for leaf in leaves(info):
                assert isinstance(leaf, (bool, str, type(None))) or (
                    isinstance(leaf, np.ndarray) and leaf.dtype == np.int8
                )
        observations, _, _, _, infos = env.step(sample(env, observations, infos, rng))


@every_market
def test_nobody_sees_moves_of_its_own_stage_or_later_ones(make):
    """Whatever others choose at a stage, those who move at the same stage see the same.

    And the next draws stay hidden.
    """
    market = make()
    rng = np.random.default_rng(1)
    one, two = market.parallel_env(), market.parallel_env()
    observations, infos = one.reset(seed=2)
    two.reset(seed=2)
    for step in range(2 * len(market.stages) - 1):
        a, b = sample(one, observations, infos, rng), sample(one, observations, infos, rng)
        here = market.stages[step % len(market.stages)]
        movers = [x for x in one.agents if x.startswith(here.role + "_") and infos[x]["acting"]]
        seen_one, seen_two = one.step(a)[0], two.step(b)[0]
        after = market.stages[(step + 1) % len(market.stages)]
        for agent in movers:
            if agent.rpartition("_")[0] != after.role:
                assert same(seen_one[agent], seen_two[agent])
        two = copy.deepcopy(one)  # the next stage again from the same past
        observations, infos = _now(one)


def _now(env):
    return {a: env.table.observe(a) for a in env.agents}, {a: env.table.info(a) for a in env.agents}


@every_market
def test_the_random_seed_does_not_show(make):
    """Two games in the same state but for the key of later draws look the same to everybody."""
    env = make().parallel_env()
    env.reset(seed=0)
    seen = _now(env)[0]
    game = env.table.game
    game.begun = game.begun._replace(seed=game.begun.seed ^ 12345)
    env.table.look()
    assert same(_now(env)[0], seen)


def test_the_winner_of_the_coming_contest_is_hidden():
    """AI-Bazaar draws each round's lucky miner at the round's begin; nobody may see it before the settlement."""
    market = marketenvs.make("AIBazaar-v0", mining="sampled", n_consumers=4, observation="full", preset="drawn")
    winners = []
    seen = []
    for lucky in (0.01, 0.99):
        env = market.parallel_env()
        env.reset(seed=0)
        game = env.table.game
        nature = {k: np.full_like(v, lucky) for k, v in game.begun.nature.items()}
        game.begun = game.begun._replace(nature=nature)
        env.table.look()
        one = env.step({"provider_0": np.zeros(1)})
        seen.append((_now(env), one))
        _, rewards, *_ = env.step({f"consumer_{i}": np.zeros(1) for i in range(4)})
        winners.append(max(rewards, key=lambda a: rewards[a] if a.startswith("consumer") else -np.inf))
    assert same(seen[0], seen[1])
    assert winners[0] != winners[1], "the draw must matter, or the test shows nothing"


def test_own_means_own():
    """With ``observation="own"`` a consumer's type does not show in what others see (before its first purchase)."""
    views = []
    for u in ((11.0, 13.0, 18.0, 14.0), (11.0, 13.0, 18.0, 12.5)):  # of equal range, which scales what is seen
        env = marketenvs.parallel_env(
            "AIBazaar-v0", n_consumers=4, payment_weight=u, mining_ratio=marketenvs.Uniform(0.05, 0.3)
        )
        env.reset(seed=0)
        views.append(env.step({"provider_0": np.zeros(1)})[0])
    for agent in ("provider_0", "consumer_0", "consumer_1", "consumer_2"):
        assert same(views[0][agent], views[1][agent])
    assert not same(views[0]["consumer_3"], views[1]["consumer_3"])


def test_a_buyers_taste_is_its_own_secret():
    """The toy's hidden draws: a change of buyer 0's taste, or of the shock, changes nothing that others see."""
    views = []
    for change in ({}, {"taste": 0}, {"shock": 0}):
        env = Toy(ToyParams(horizon=HORIZON)).parallel_env()
        env.reset(seed=3)
        game = env.table.game
        nature = {k: v.copy() for k, v in game.begun.nature.items()}
        for name, column in change.items():
            nature[name][0, column] = 0.123
        game.begun = game.begun._replace(nature=nature)
        env.table.look()
        views.append([_now(env)])
        views[-1].append(env.step({f"buyer_{i}": {"join": 2} for i in range(3)}))
        views[-1].append(env.step({f"seller_{i}": np.zeros(2) for i in range(2)}))
    assert same(views[0], views[2])
    taste = [view[2][0] for view in views[:2]]
    assert not same(taste[0]["buyer_0"], taste[1]["buyer_0"])
    for agent in ("seller_0", "seller_1", "buyer_1", "buyer_2"):
        assert same(taste[0][agent], taste[1][agent])
    assert same(views[0][:2], views[1][:2])


@every_role
def test_views_show_what_the_parallel_environment_shows(make, role):
    """No view adds an entry: a policy moves from one shell to another."""
    market = make()
    stage = next(s for s in market.stages if s.role == role)
    single = MarketSingleAgentEnv(market, role, opponents="random", stage=stage.name)
    vector = MarketVectorEnv(market, role, 2, opponents="random", stage=stage.name)
    assert single.observation_space == stage.observation_space == vector.single_observation_space
    assert single.action_space == stage.codec.action_space == vector.single_action_space
    assert stage.observation_space.dtype == np.float32
    if not stage.codec.discrete:
        assert stage.codec.action_space.low.min() == -1 == -stage.codec.action_space.high.max()


@pytest.mark.parametrize("shell", ["single", "vector"])
def test_metrics_are_reached_through_the_environment_only(shell):
    env = (
        MarketSingleAgentEnv("AIBazaar-v0", "provider", opponents="random")
        if shell == "single"
        else MarketVectorEnv("AIBazaar-v0", "provider", 2, opponents="random")
    )
    env.reset(seed=0)
    assert env.unwrapped.metrics == {}
    info = env.step(np.zeros((2, 1) if shell == "vector" else 1))[4]
    assert not {"metrics", "welfare", "demand"} & set(info)
    assert {"welfare", "demand", "share", "clipped"} <= set(env.unwrapped.metrics)
