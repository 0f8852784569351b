"""Learners as a whole: determinism, independence of runs, the policies they become, and saving them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from marketenvs_baselines import ALGORITHMS
from marketenvs_baselines.minimax_q import maximin_profile
from marketenvs_baselines.pb_marl import WolfPHC
from marketenvs_baselines.run import play
from marketenvs_baselines.store import load_policy, save_policy
from marketenvs_baselines.tabular import ExactSight, TabularLearner, make_sight

import marketenvs
from marketenvs.errors import InvalidParameter, NotOffered, UnknownName
from marketenvs.policy import Constant, Policy, Uniform, decide
from marketenvs.strategy import Pure, Samples

from .tasks import FakeTask

TABULAR = ["giga_wolf", "minimax_q", "pb_marl", "pga_app", "q_learning"]
SMALL = FakeTask(params={"n_consumers": 3})


def tables(policies):
    return {role: policy.tables for role, policy in policies.items()}


@pytest.mark.parametrize("name", TABULAR)
def test_same_seed_same_policy_whatever_the_company(name):
    together = ALGORITHMS[name].run(SMALL, [3, 4, 5], 60)
    alone = ALGORITHMS[name].run(SMALL, [4], 60)
    again = ALGORITHMS[name].train(SMALL, 4, 60, None)
    for role in together[1]:
        for stage, table in together[1][role].tables.items():
            np.testing.assert_array_equal(table, alone[0][role].tables[stage])
            np.testing.assert_array_equal(table, again[role].tables[stage])
            if name != "q_learning":
                assert not np.array_equal(table, together[0][role].tables[stage])


@pytest.mark.parametrize("preset", ["grid", "calibrated"])
def test_policies_are_exact_mixtures_on_the_grid(preset):
    task = FakeTask(preset, params={"n_consumers": 3})
    policies = ALGORITHMS["pb_marl"].run(task, [0], 200)[0]
    market = task.make_market()
    state = market.reset(seed=1, batch=2)
    low, high, levels = (
        {"pricing": 10, "purchase": 10},
        {"pricing": 20, "purchase": 100},
        {"pricing": 11, "purchase": 10},
    )
    for stage in market.stages:
        policy = policies[stage.role]
        policy.start(market, stage.role, 2, 0)
        obs = market.observe(state, stage.name)
        strategy = policy.strategy(stage, obs, None, state, 8)
        assert isinstance(strategy, Samples)
        grid = np.linspace(low[stage.name], high[stage.name], levels[stage.name])
        np.testing.assert_allclose(strategy.values[:, 0, 0, 0], grid)
        drawn = decide(policy, market, stage, obs, None, state)
        assert np.all(np.isin(np.round(drawn, 9), np.round(grid, 9)))
        weights = np.broadcast_to(strategy.weights, (levels[stage.name], *obs.shape[:2]))
        counts = np.zeros(weights.shape)
        for _ in range(3000):
            x = policy.act_at(stage, obs, None, state)[..., 0]
            counts += np.isclose(x[None], grid[:, None, None])
        np.testing.assert_allclose(counts / 3000, weights, atol=0.05)
        state = market.commit(state, stage.name, market.backend.asarray(drawn))


def test_followers_are_maps_of_the_price():
    market = SMALL.make_market()
    learner = TabularLearner(WolfPHC)
    learner.start(market, "consumer", 1, [0])
    seat = learner.seats["purchase"]
    n, levels = 3, 11
    obs = np.zeros((1, n, market.stage("purchase").observation_space.shape[0]))
    for level in range(levels):
        obs[..., 0] = level / 10 + 0.04
        np.testing.assert_array_equal(seat.rows(obs) % seat.capacity, level)


@pytest.mark.parametrize(("share", "bin_"), [(0.0, 0), (0.099, 0), (0.1, 1), (0.55, 5), (0.999, 9), (1.0, 9)])
def test_the_provider_reads_demand_in_ten_bins(share, bin_):
    sight = make_sight({"kind": "mean_bin", "bins": 10, "entries": 4})
    obs = np.concatenate((np.full((1, 1, 4), share), np.full((1, 1, 3), 0.77)), axis=2)
    assert sight.read(obs)[0, 0] == bin_


def test_exact_state_keeps_every_vector_and_grows():
    market = marketenvs.make("AIBazaar-v0", preset="grid", n_consumers=4, horizon=1000)
    learner = TabularLearner(WolfPHC, leader_state="exact")
    rounds = 700
    record = play(market, {"provider": learner, "consumer": Uniform()}, rounds, [0, 1], keep=("purchase",))
    seat = learner.seats["pricing"]
    assert isinstance(seat.sight, ExactSight)
    assert seat.capacity > 256  # it has grown
    for b in range(2):
        seen = {tuple(row) for row in record.traces["purchase"][:-1, b, :, 0]}
        assert abs(len(seat.sight.maps[b]) - len(seen)) <= 1  # F^0 is not in the trace
        first = b * seat.capacity
        assert seat.rule.visits[first : first + seat.capacity].sum() == rounds
    policy = record.policies[0]["provider"]
    policy.start(market, "provider", 1, 0)
    known = seat.sight.known(0)
    obs = np.zeros((1, 1, market.stage("pricing").observation_space.shape[0]))
    obs[0, 0, :4] = known[100] / 9
    np.testing.assert_allclose(policy.weights("pricing", obs)[0, 0], seat.rule.pi[100])
    obs[0, 0, :4] = [0.31, 0.9, 0.11, 0.66]  # most likely never met: whatever it was, the weights are a distribution
    np.testing.assert_allclose(policy.weights("pricing", obs).sum(), 1.0)


def test_unknown_leader_state_is_refused():
    with pytest.raises(InvalidParameter, match="did you mean 'bins'"):
        TabularLearner(WolfPHC, leader_state="bin")


def test_constants_can_be_set_and_unknown_ones_are_named():
    for name in TABULAR:
        fast = ALGORITHMS[name].train_many(SMALL, [0], 150, None, learning_rate=0.1, discount=0.9)
        usual = ALGORITHMS[name].train_many(SMALL, [0], 150, None)
        assert any(
            not np.array_equal(fast[0][r].tables[s], usual[0][r].tables[s])
            for r in usual[0]
            for s in usual[0][r].tables
        )
        with pytest.raises(UnknownName, match="did you mean 'learning_rate'"):
            ALGORITHMS[name].train_many(SMALL, [0], 30, None, learning_rat=1.0)


def test_frozen_q_learning_is_greedy_and_pure():
    policies = ALGORITHMS["q_learning"].run(SMALL, [0], 100)[0]
    market = SMALL.make_market()
    state = market.reset(seed=0, batch=3)
    policy = policies["provider"]
    policy.start(market, "provider", 3, 0)
    assert not policy.stochastic
    obs = market.observe(state, "pricing")
    assert isinstance(policy.strategy(market.stage("pricing"), obs, None, state, 16), Pure)


def test_maximin_profile_of_the_spec():
    """Spec, section 6: p = 20, all F = 10, U_cpp = 1500; in table1 it is the equilibrium (all 100, 15000)."""
    for preset, amount, profit in (("grid", 10.0, 1500.0), ("calibrated", 10.0, 1500.0), ("table1", 100.0, 15000.0)):
        market = marketenvs.make("AIBazaar-v0", preset=preset)
        state = market.reset(seed=0)
        profile = maximin_profile(market, state)
        np.testing.assert_array_equal(profile["pricing"], 20.0)
        np.testing.assert_array_equal(profile["purchase"], amount)
        np.testing.assert_allclose(market.payoff(state, profile)["provider"], profit)


@pytest.mark.parametrize("name", ["fictitious_play", "damped_best_response", "myopic"])
def test_replying_policies_play_all_roles(name):
    task = FakeTask("calibrated", params={"n_consumers": 6})
    record = play(task.make_market(), ALGORITHMS[name].run(task, [0])[0], 25, [0])
    assert np.isfinite(record.payoffs["provider"]).all()


def test_damped_replies_settle_where_plain_ones_cycle():
    """Spec, section 5: calibrated at p = 16 from F = 50; best replies are in an exact 2-cycle, damped ones converge."""
    market = marketenvs.make("AIBazaar-v0", preset="calibrated")

    def amounts(policy, rounds):
        state = market.reset(seed=0)
        stage = market.stage("purchase")
        policy.start(market, "consumer", 1, 0)
        state = market.commit(state, "pricing", np.full((1, 1, 1), 16.0))
        public = {"pricing": np.full((1, 1, 1), 16.0), "purchase": np.full((1, 10, 1), 50.0)}
        policy.observe_round(public)
        seen = []
        for _ in range(rounds):
            public["purchase"] = policy.act_at(stage, market.observe(state, "purchase"), None, state)
            policy.observe_round(public)
            seen.append(public["purchase"][0, :, 0])
        return np.array(seen)

    from marketenvs_baselines.fictitious_play import DampedBestResponse

    from marketenvs.policy import Myopic

    plain = amounts(Myopic(), 40)
    np.testing.assert_allclose(plain[-1], plain[-3])
    np.testing.assert_allclose(
        sorted([plain[-1][0], plain[-2][0]]), [14.6249, 100], atol=5e-5
    )  # the spec's exact 2-cycle
    damped = amounts(DampedBestResponse(), 200)
    np.testing.assert_allclose(damped[-1], damped[-2], atol=1e-6)
    np.testing.assert_allclose(damped[-1][1:], 52.6546710409, atol=1e-4)  # spec R7: the same follower game


# -- saving -----------------------------------------------------------------------------------------------------------


def same_behaviour(market, old, new):
    state = market.reset(seed=3, batch=4)
    for stage in market.stages:
        obs = market.observe(state, stage.name)
        drawn = []
        for policy in (old[stage.role], new[stage.role]):
            policy.start(market, stage.role, 4, 11)
            drawn.append(decide(policy, market, stage, obs, None, state))
        np.testing.assert_array_equal(*drawn)
        state = market.commit(state, stage.name, drawn[0])


@pytest.mark.parametrize("name", [*TABULAR, "random", "equilibrium", "myopic", "best_constant", "damped_best_response"])
def test_policies_come_back_as_they_were(name, tmp_path):
    policies = ALGORITHMS[name].run(SMALL, [1], 50)[0]
    save_policy(tmp_path / "p", policies, SMALL, {"algorithm": name, "seed": 1})
    market = SMALL.make_market()
    same_behaviour(market, policies, load_policy(tmp_path / "p", market))
    about = json.loads((tmp_path / "p" / "policy.json").read_text())
    assert about["task"]["name"] == "fake"
    assert about["config"]["seed"] == 1
    assert not any(p.name.startswith(".") for p in tmp_path.iterdir())


def test_the_exact_state_is_saved_too(tmp_path):
    market = SMALL.make_market()
    learner = TabularLearner(WolfPHC, leader_state="exact")
    policies = play(market, {"provider": learner, "consumer": Uniform()}, 50, [0]).policies[0]
    save_policy(tmp_path / "p", policies, market)
    same_behaviour(market, policies, load_policy(tmp_path / "p", market))


def saved(tmp_path, task=SMALL):
    return save_policy(tmp_path / "p", ALGORITHMS["pb_marl"].run(task, [0], 5)[0], task)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (FakeTask(params={"n_consumers": 4}), "3 agents of role 'consumer'; this market has 4"),
        (FakeTask("calibrated", params={"n_consumers": 3}), "action Discrete"),
        (
            FakeTask(params={"n_consumers": 3, "observation": "full"}),
            "'pricing' with observation 7; this market has 19",
        ),
    ],
)
def test_a_policy_of_another_market_is_named(tmp_path, other, words):
    with pytest.raises(NotOffered, match=words):
        load_policy(saved(tmp_path), other.make_market())


def test_damaged_folders_are_named(tmp_path):
    with pytest.raises(UnknownName, match="no saved policy"):
        load_policy(tmp_path / "nothing")
    path = saved(tmp_path)
    (path / "consumer.npz").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(InvalidParameter, match=r"weights of 'consumer'.*damaged"):
        load_policy(path)
    about = json.loads((path / "policy.json").read_text())
    about["roles"]["consumer"]["kind"] = "os:system"
    (path / "policy.json").write_text(json.dumps(about))
    with pytest.raises(NotOffered, match="trust=True"):
        load_policy(path)
    (path / "policy.json").write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(InvalidParameter, match="format 99"):
        load_policy(path)
    (path / "policy.json").write_text("{")
    with pytest.raises(InvalidParameter, match="damaged"):
        load_policy(path)


def test_nothing_is_unpickled(tmp_path):
    path = saved(tmp_path)
    np.savez(path / "provider.npz", **{"table.pricing": np.array([{"evil": 1}], dtype=object)})
    with pytest.raises(InvalidParameter, match="damaged"):
        load_policy(path)


def test_a_failed_save_leaves_the_old_policy(tmp_path):
    class Unsavable(Policy):
        def act(self, obs, mask=None):
            return np.zeros((*obs.shape[:2], 1))

    path = saved(tmp_path)
    before = (path / "policy.json").read_text()
    with pytest.raises(NotOffered, match="Unsavable"):
        save_policy(path, {"consumer": Unsavable()}, SMALL)
    with pytest.raises(InvalidParameter, match="JSON"):
        save_policy(path, {"consumer": Constant([1.0])}, SMALL, {"x": object()})
    assert (path / "policy.json").read_text() == before
    stray = tmp_path / "results"
    stray.mkdir()
    (stray / "precious.txt").write_text("keep")
    with pytest.raises(InvalidParameter, match="not a saved policy"):
        save_policy(stray, {"consumer": Constant([1.0])}, SMALL)
    assert (stray / "precious.txt").read_text() == "keep"
