"""Several SB3 learners on the same markets."""

from __future__ import annotations

import numpy as np
import pytest

from marketenvs import InvalidParameter, ResetNeeded
from marketenvs.policy import Constant

from .cases import MAKERS

pytest.importorskip("stable_baselines3")

import marketenvs
from marketenvs.sb3 import MarketVecEnv, SharedMarkets


class Player:
    """Stands in for a model: resets, takes fixed actions, remembers everything."""

    def __init__(self, env, actions, log=None, name=""):
        self.env, self.actions, self.log, self.name = env, actions, log, name
        self.seen, self.paid, self.infos, self.done = [], [], [], []

    def __call__(self):
        self.seen.append(self.env.reset())
        for action in self.actions:
            if self.log is not None:
                self.log.append(self.name)
            seen, paid, done, infos = self.env.step(action)
            self.seen.append(seen)
            self.paid.append(paid)
            self.infos.append(infos)
            self.done.append(bool(done.all()))


def rehearse(steps, horizon=100, fail=None):
    market = marketenvs.make("AIBazaar-v0", n_consumers=2, horizon=horizon)
    policies = {"provider": Constant([12.0]), "consumer": Constant([60.0])}
    table = SharedMarkets(market, 3, ["pricing", "purchase"], policies, {"provider": 10.0}, seed=5)
    rng, log = np.random.default_rng(1), []
    players = {}
    for name, env in table.environments.items():
        actions = rng.uniform(-1, 1, (steps, env.num_envs, 1)).astype(np.float32)
        players[name] = Player(env, actions, log, name)
    if fail is not None:
        players[fail].actions = players[fail].actions[:, :-1]
    table.play(players)
    return market, table, players, log


def test_all_learn_from_the_rounds_that_the_market_plays():
    """Rewards and observations are those of the market itself, played with everybody's actions, round for round."""
    steps = 4
    market, _, players, log = rehearse(steps)
    assert log == ["pricing", "purchase"] * steps, "one acts at a time, in the order of the stages"
    state = market.reset(seed=[5, 6, 7])
    for t in range(steps):
        for stage in market.stages:
            obs = market.observe(state, stage.name)
            player = players[stage.name]
            np.testing.assert_allclose(player.seen[t].reshape(obs.shape), obs, rtol=1e-6)
            low, high = market.bounds(state, stage.name)
            action = player.actions[t].reshape(*obs.shape[:2], 1).astype(np.float64)
            state = market.commit(state, stage.name, stage.codec.decode(np, action, low, high))
        state, outcome = market.conclude(state)
        np.testing.assert_allclose(
            players["pricing"].paid[t], outcome.payoffs["provider"].reshape(-1) / 10.0, rtol=1e-6
        )
        np.testing.assert_allclose(players["purchase"].paid[t], outcome.payoffs["consumer"].reshape(-1), rtol=1e-6)
    price = (12.0 - market.params.price_min) / (market.params.price_max - market.params.price_min)
    assert np.allclose(players["purchase"].seen[-1][:, 0], price), (
        "the last move of a leader that has left is its policy's"
    )


def test_episodes_end_for_everybody():
    """At the horizon all are done; the terminal observation belongs to the old episode, the observation to the new one."""
    _, _, players, _ = rehearse(5, horizon=2)
    for player in players.values():
        assert player.done == [False, True, False, True, False]
        assert all(i["TimeLimit.truncated"] for i in player.infos[1])
        assert player.infos[1][0]["episode"]["l"] == 2
        assert player.infos[1][0]["terminal_observation"].shape == player.seen[2][0].shape
    first, last = players["pricing"].seen[2][0], players["pricing"].infos[1][0]["terminal_observation"]
    assert not np.array_equal(first, last), "purchases are remembered within an episode, not beyond"


def test_it_does_not_depend_on_the_scheduler():
    runs = [rehearse(6, horizon=4)[2] for _ in range(3)]
    for other in runs[1:]:
        for name, player in runs[0].items():
            np.testing.assert_array_equal(player.seen, other[name].seen)
            np.testing.assert_array_equal(player.paid, other[name].paid)


def test_an_error_in_one_learner_ends_all():
    with pytest.raises(Exception, match="need one action for each of 6"):
        rehearse(3, fail="purchase")


def test_masks_belong_to_the_learners_turn():
    market = MAKERS["masked"]()
    stage = next(s for s in market.stages if s.role == "seller")
    table = SharedMarkets(market, 2, [stage.name], {r: Constant([0.0]) for r in market.roles}, seed=0)
    (env,) = table.environments.values()
    masks = []

    def learn():
        env.reset()
        masks.append(env.action_masks())

    table.play({stage.name: learn})
    plain = MarketVecEnv(market, "seller", 2, opponents="random", seed=0)
    plain.reset()
    np.testing.assert_array_equal(masks[0], plain.action_masks())
    assert not masks[0].all()


def test_bad_input():
    market = marketenvs.make("AIBazaar-v0", n_consumers=2)
    policies = {"provider": Constant([12.0]), "consumer": Constant([60.0])}
    with pytest.raises(InvalidParameter, match="at least one stage"):
        SharedMarkets(market, 2, [], policies)
    with pytest.raises(marketenvs.UnknownName, match="pricing"):
        SharedMarkets(market, 2, ["pricin"], policies)
    table = SharedMarkets(market, 2, ["pricing"], policies, seed=0)
    with pytest.raises(InvalidParameter, match="one learner for each of pricing"):
        table.play({})
    with pytest.raises(ResetNeeded, match="SharedMarkets.play"):
        table.environments["pricing"].reset()
