"""The runner: what learners are told, when, and that runs do not know of each other."""

from __future__ import annotations

import numpy as np
import pytest
from marketenvs_baselines.run import Streams, episode_seeds, play, ticks

import marketenvs
from marketenvs.errors import InvalidAction, InvalidParameter, UnknownName
from marketenvs.policy import Constant, Policy, Uniform


class Teller(Policy):
    """Plays per-run random decisions and keeps everything it is told."""

    per_seed = True

    def __init__(self, low, high):
        self.low, self.high = low, high

    def start(self, market, role, batch, seed):
        super().start(market, role, batch, seed)
        self.stream = Streams(seed, role)
        self.log = []

    def act(self, obs, mask=None):
        self.log.append(("act", obs.copy()))
        return self.low + (self.high - self.low) * self.stream.uniform(obs.shape[1], 1)

    def update(self, transition):
        self.log.append(("update", transition))


def bazaar(**params):
    return marketenvs.make("AIBazaar-v0", n_consumers=3, observation="paper", **params)


def tellers():
    return {"provider": Teller(10, 20), "consumer": Teller(10, 100)}


def test_transitions_arrive_when_the_next_observation_is_seen():
    market, policies = bazaar(), tellers()
    play(market, policies, 4, [7, 8])
    for role, teller in policies.items():
        kinds = [kind for kind, _ in teller.log]
        assert kinds == ["act", "update", "act", "update", "act", "update", "act", "update"], role
        for i in (2, 4, 6):
            told, seen = teller.log[i - 1][1], teller.log[i][1]
            np.testing.assert_array_equal(told.obs, teller.log[i - 2][1])
            # the update of round t comes after the observation of round t + 1 and carries it
            np.testing.assert_array_equal(told.next_obs, seen)
            assert not told.end
        assert teller.log[-1][1].end  # the last round is delivered at once, with its own observation again
        np.testing.assert_array_equal(teller.log[-1][1].next_obs, teller.log[-2][1])


def test_a_follower_bootstraps_at_the_next_price():
    market, policies = bazaar(), tellers()
    play(market, policies, 3, [1])
    prices = [(t.public["pricing"] - 10) / 10 for kind, t in policies["provider"].log if kind == "update"]
    first = next(t for kind, t in policies["consumer"].log if kind == "update")
    np.testing.assert_allclose(first.obs[0, :, 0], prices[0][0, 0, 0])
    np.testing.assert_allclose(first.next_obs[0, :, 0], prices[1][0, 0, 0])


def test_rewards_are_the_payoffs_of_the_settled_decisions():
    market, policies = bazaar(), {"provider": Constant([15.0]), "consumer": Teller(0, 200)}
    record = play(market, policies, 5, [3, 4], keep=("consumer", "purchase", "clipped"))
    told = [t for kind, t in policies["consumer"].log if kind == "update"]
    state = market.reset(seed=0, batch=2)
    for t, transition in enumerate(told):
        assert transition.action.min() >= 10
        assert transition.action.max() <= 100  # as counted, clipped
        pay = market.payoff(state, transition.public)["consumer"]
        np.testing.assert_allclose(transition.reward, pay)
        np.testing.assert_allclose(record.traces["consumer"][t], pay)
    np.testing.assert_allclose(record.payoffs["consumer"], record.traces["consumer"][-1])
    assert record.traces["clipped"].sum() > 0


def test_episodes_end_at_the_horizon_and_redraw_the_market():
    market = marketenvs.make("AIBazaar-v0", preset="drawn", n_consumers=3, horizon=2)
    policies = tellers()
    record = play(market, policies, 5, [5])
    ends = [t.end for kind, t in policies["provider"].log if kind == "update"]
    assert ends == [False, True, False, True, True]
    crowd = [obs[0, 0, -12:] for kind, obs in policies["provider"].log if kind == "act"]
    np.testing.assert_array_equal(crowd[0], crowd[1])
    assert not np.array_equal(crowd[1], crowd[2])
    assert not np.array_equal(crowd[3], crowd[4])
    assert record.rounds == 5


def test_a_run_does_not_depend_on_the_other_seeds():
    market = marketenvs.make("AIBazaar-v0", preset="drawn", n_consumers=3, horizon=3, mining="sampled")
    keep = ("pricing", "purchase", "consumer")
    together = play(market, tellers(), 8, [11, 12, 13], keep=keep)
    alone = play(market, tellers(), 8, [12], keep=keep)
    again = play(market, tellers(), 8, [11, 12, 13], keep=keep)
    for name in keep:
        np.testing.assert_array_equal(together.traces[name][:, 1], alone.traces[name][:, 0])
        np.testing.assert_array_equal(together.traces[name], again.traces[name])
        assert not np.array_equal(together.traces[name][:, 0], together.traces[name][:, 1])


def test_reports_come_with_frozen_policies_and_means():
    class Counting(Constant):
        def update(self, transition):
            self.decisions = self.decisions + 1

        def trained(self, b):
            return Constant(self.decisions)

    learner, seen = Counting([10.0]), []

    def report(rounds, policies=None, metrics=None):
        seen.append((rounds, policies()[0]["provider"].decisions[0], metrics["provider"].shape))

    record = play(bazaar(), {"provider": learner, "consumer": Uniform()}, 10, [0, 1], report)
    assert [r for r, *_ in seen] == sorted(ticks(10))
    # round t's update is delivered in round t + 1, the last one at once
    assert [p for _, p, _ in seen] == [10 + r - 1 for r, *_ in seen[:-1]] + [20]
    assert seen[0][2] == (2,)
    assert record.policies[1]["provider"].decisions[0] == 20


def test_ticks_are_even_and_logarithmic():
    marks = ticks(40_000)
    assert {1, 10, 100, 1000, 40_000, 800, 1600, 39_200} <= marks
    assert len(marks) < 100
    assert ticks(1) == {1}


def test_streams_do_not_depend_on_blocks_or_company():
    small, large = Streams([1, 2], "x", block=3), Streams([2], "x", block=1000)
    a = np.concatenate([small.uniform(2, 2).reshape(2, -1) for _ in range(5)], axis=1)
    np.testing.assert_array_equal(a[1], large.uniform(20)[0])
    assert not np.array_equal(a[0], a[1])
    assert not np.array_equal(Streams([2], "y").uniform(4), Streams([2], "x").uniform(4))


def test_episode_seeds_differ():
    seen = {s for episode in range(20) for s in episode_seeds(range(20), episode)}
    assert len(seen) == 400


@pytest.mark.parametrize(
    ("policies", "rounds", "seeds", "error", "words"),
    [
        ({"provider": Uniform()}, 3, [0], UnknownName, "consumer"),
        ({"provider": Uniform(), "consumers": Uniform()}, 3, [0], UnknownName, "did you mean 'consumer'"),
        ({"provider": Uniform(), "consumer": Uniform()}, 0, [0], InvalidParameter, "rounds"),
        ({"provider": Uniform(), "consumer": Uniform()}, 3, [], InvalidParameter, "seed"),
        ({"provider": Uniform(), "consumer": Constant([np.nan])}, 3, [0], InvalidAction, "consumer"),
        ({"provider": Uniform(), "consumer": Constant([1.0, 2.0])}, 3, [0], InvalidAction, "consumer"),
    ],
)
def test_bad_input_is_named(policies, rounds, seeds, error, words):
    with pytest.raises(error, match=words):
        play(bazaar(), policies, rounds, seeds)


def test_unknown_trace_is_named():
    with pytest.raises(UnknownName, match="did you mean 'demand'"):
        play(bazaar(), {"provider": Uniform(), "consumer": Uniform()}, 2, [0], keep=("demnad",))
