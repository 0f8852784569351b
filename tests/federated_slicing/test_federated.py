"""Federated learners: averaging really averages, schemes share what they say, seeds do not meet, policies survive saving."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from marketenvs_baselines import netshare
from marketenvs_baselines.federated import FederatedLearner, Settings, train_many
from marketenvs_baselines.registry import ALGORITHMS
from marketenvs_baselines.run import play
from marketenvs_baselines.slice_networks import SlicePolicy, Twin, features
from marketenvs_baselines.store import load_policy, save_policy

from marketenvs.errors import InvalidParameter
from marketenvs.registry import make
from marketenvs.scoring import play_round

ID = "FederatedSlicing-v0"


class Task:
    """The least a trainer needs."""

    name, scale, budget = "test", {"slice": 1.0}, 100

    def __init__(self, **options):
        self.options = options

    def make_market(self, **more):
        return make(ID, **self.options, **more)


def learner_after(rounds, seeds=(0, 1), **settings):
    options = {"n_devices": 5} if "market" not in settings else settings.pop("market")
    learner = FederatedLearner(Settings(batch=16, hidden=(16,), patience=0, **settings))
    record = play(make(ID, **options), {"slice": learner}, rounds, list(seeds))
    return learner, record


def test_averaging_makes_the_slices_of_a_seed_equal_and_keeps_seeds_apart():
    learner, _ = learner_after(40, scheme="federated", period=20)
    for layers in (learner.actor, learner.critic):
        for weight, _ in layers:
            grouped = weight.detach().numpy().reshape(2, 6, *weight.shape[1:])
            np.testing.assert_allclose(grouped, grouped[:, :1].repeat(6, axis=1), rtol=1e-6)
    assert not np.allclose(learner.actor[0][0][0].detach(), learner.actor[0][0][6].detach())
    # Targets stay local.
    assert not np.allclose(learner.actor_target[0][0][0], learner.actor_target[0][0][1])


def test_average_is_the_mean():
    learner, _ = learner_after(25, scheme="federated", period=1000)
    before = learner.actor[0][0].detach().numpy().reshape(2, 6, 12, 16).copy()
    assert not np.allclose(before[:, 0], before[:, 1])
    learner.average()
    after = learner.actor[0][0].detach().numpy().reshape(2, 6, 12, 16)
    np.testing.assert_allclose(after[:, 0], before.mean(axis=1), rtol=1e-4, atol=1e-7)


def test_independent_slices_drift_apart():
    learner, _ = learner_after(40, scheme="independent")
    assert not np.allclose(learner.actor[0][0][0].detach(), learner.actor[0][0][1].detach())


@pytest.mark.parametrize("scheme", ["federated", "independent", "central", "dqn"])
def test_runs_do_not_depend_on_other_seeds(scheme):
    options = {"n_slices": 3, "demand": "lognormal_ar1"}
    policies = []
    for seeds in ((3, 4), (4,)):
        _, record = learner_after(30, seeds, scheme=scheme, market=options)
        policies.append(record.policies[-1]["slice"])
    for (a, b), (c, d) in zip(policies[0].layers, policies[1].layers, strict=True):
        np.testing.assert_allclose(a, c, atol=1e-5)
        np.testing.assert_allclose(b, d, atol=1e-5)


def test_twin_learns_a_linear_law_and_forgets_only_values():
    rng = np.random.default_rng(0)
    twin = Twin(1, 2)
    clock = np.zeros((1, 2, 2))
    x, errors = np.zeros(2), []
    for _ in range(1500):
        step = 0.3 * rng.standard_normal(2)
        x = 0.5 * x + step
        shown = twin.forecast(clock)
        if shown is not None:
            errors.append(np.log(shown[0]) - x)
        twin.observe(np.exp(x)[None], clock)
    assert np.std(errors[700:]) == pytest.approx(0.3, abs=0.02)
    weights = twin.weights.copy()
    twin.new_episode()
    assert twin.forecast(clock) is None
    np.testing.assert_array_equal(weights, twin.weights)


@pytest.mark.parametrize("name", ["dt_mafl", "federated_ddpg", "independent_ddpg", "central_ddpg", "madqn"])
def test_algorithms_train_save_and_load(name, tmp_path):
    task = Task(n_devices=5)
    policy = ALGORITHMS[name].run(task, [0], 12)[0]
    market = task.make_market()
    save_policy(tmp_path / name, policy, market)
    again = load_policy(tmp_path / name, market, trust=True)
    decisions = []
    for p in (policy["slice"], again["slice"]):
        p.start(market, "slice", 2, 0)
        state = market.reset(5, batch=2)
        for _ in range(3):
            state, outcome = play_round(market, state, {"slice": p})
        decisions.append(outcome.metrics["requests"])
    np.testing.assert_array_equal(*decisions)


def test_madqn_plays_grids_and_ddpg_says_why_not():
    task = Task(action_levels=11, n_devices=5)
    market = task.make_market()
    assert "continuous" in ALGORITHMS["federated_ddpg"].why_not(market)
    policy = train_many(task, [0], 30, scheme="dqn", batch=8, hidden=(8,))[0]["slice"]
    policy.start(market, "slice", 1, 0)
    _, outcome = play_round(market, market.reset(0), {"slice": policy})
    grid = 0.1 * 500 ** (np.arange(11) / 10)
    assert np.min(np.abs(outcome.metrics["requests"][0][:, None] - grid), axis=1).max() < 1e-9
    with pytest.raises(InvalidParameter, match="scheme"):
        Settings(scheme="centralised")
    with pytest.raises(InvalidParameter, match="nothing to forecast"):
        FederatedLearner(Settings(twin=True)).start(make(ID, demand_timing="revealed"), "slice", 1, [0])
    foreign = SlicePolicy([(np.zeros((3, 12, 1)), np.zeros((3, 1, 1)))], "actor")
    with pytest.raises(InvalidParameter, match="3 slices"):
        foreign.start(make(ID), "slice", 1, 0)


@pytest.mark.parametrize(
    "policy", [netshare.NetShare("need", [0.3, 0.2, 0.1, 0.15, 0.15, 0.1]), netshare.Static(), netshare.Truthful()]
)
def test_hand_written_policies_survive_saving(policy, tmp_path):
    market = make(ID, n_devices=5)
    save_policy(tmp_path / "p", {"slice": policy}, market)
    again = load_policy(tmp_path / "p", market, trust=True)["slice"]
    assert again.settings() == policy.settings()


def test_hand_written_requests():
    market = make(ID, forecast="oracle", demand_timing="revealed")
    state = market.reset(0, batch=40)
    welfare = {}
    exact = market.equilibrium(state).values["slice"].sum(axis=1)
    for name, policy in (
        ("netshare", netshare.NetShare()),
        ("need", netshare.NetShare("need")),
        ("static", netshare.Static()),
        ("max", netshare.AllMax()),
        ("truthful", netshare.Truthful()),
        ("forecast", netshare.OnForecast()),
    ):
        policy.start(market, "slice", 40, 0)
        decisions = policy.act_at(market.stages[0], market.observe(state, "request"), None, state)
        outcome = market.outcome(state, {"slice": decisions})
        welfare[name] = outcome.metrics["welfare"]
        if name == "need":
            served = outcome.metrics["ratio"] >= 1 - 1e-12
            np.testing.assert_allclose(
                outcome.metrics["utility"][served & (outcome.metrics["ratio"] < 1.0001)], 0.5, atol=1e-3
            )
    # Caps at the peaks and equal shares are the Nash allocation.
    np.testing.assert_allclose(welfare["netshare"], exact, rtol=1e-9)
    assert np.all(welfare["netshare"].mean() >= np.array([welfare[k].mean() for k in ("static", "max", "need")]))
    low = state.nature.need.sum(axis=1) * 1.3 < 50
    np.testing.assert_allclose(welfare["truthful"][low], exact[low], rtol=1e-9)


def test_features_scale_without_touching_what_was_seen():
    market = make(ID, observation="full")
    obs = market.observe(market.reset(0, batch=2), "request")
    kept = obs.copy()
    scaled = features(obs)
    np.testing.assert_array_equal(obs, kept)
    np.testing.assert_allclose(scaled[..., :2], 6 * obs[..., :2])
    np.testing.assert_allclose(scaled[..., 12:17], 6 * obs[..., 12:17])
    np.testing.assert_allclose(scaled[..., 17:], obs[..., 17:])
    assert np.abs(scaled[..., :12]).max() < 12


def test_exploration_and_patience_fit_into_short_budgets():
    assert Settings().within(100_000) == Settings()
    short = Settings().within(600)
    assert (short.explore, short.patience) == (180, 120)


def regret(market, policy, batch=64):
    policy.start(market, "slice", batch, 0)
    state = market.reset(5, batch=batch, split="test")
    for _ in range(3):
        state, _ = play_round(market, state, {"slice": policy})
    decisions = policy.act_at(market.stages[0], market.observe(state, "request"), None, state)
    asked = market.stages[0].codec.decode(np, decisions, *market.bounds(state, "request"))
    return float(market.nash_conv(state, {"slice": asked}).upper.mean())


@pytest.mark.parametrize("scheme", ["federated", pytest.param("independent", marks=pytest.mark.slow), "dqn"])
def test_ten_minutes_of_slots_beat_random_play_in_a_known_market(scheme):
    """600 slots: an actor that waited for 800 stayed where it began, below random play."""
    task = Task(preset="reduced", demand_timing="revealed")
    market = task.make_market()
    rng = np.random.default_rng(0)
    state = market.reset(0, batch=64)
    random = market.nash_conv(state, {"slice": 0.1 * 500 ** rng.uniform(size=(64, 6, 1))}).upper.mean()
    for policies in train_many(task, [0, 1], 600, scheme=scheme):
        assert regret(market, policies["slice"]) < 0.75 * random


def test_one_shared_network_plays_a_crowd(tmp_path):
    task = Task(preset="many", n_slices=40, capacity=280.0)
    policy = ALGORITHMS["shared_ddpg"].run(task, [0], 60)[0]
    assert policy["slice"].layers[0][0].shape[0] == 1
    assert "up to 32" in ALGORITHMS["federated_ddpg"].why_not(task.make_market())
    save_policy(tmp_path / "shared", policy, task.make_market())
    again = load_policy(tmp_path / "shared", task.make_market())
    for (a, b), (c, d) in zip(policy["slice"].layers, again["slice"].layers, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_a_shared_network_keeps_everybodys_transitions_in_turn():
    learner, _ = learner_after(5, (0,), scheme="shared", market={"preset": "many", "n_slices": 40, "capacity": 280.0})
    assert learner.kept == 32
    assert learner.filled == 160
    stored = learner.memory["obs"][0, :160]
    assert len(np.unique(stored[:, 9])) >= 35  # requirements of 40 slices: nearly all were kept


@pytest.mark.slow
def test_the_central_actor_does_not_saturate():
    """With one mean reward and a plain tanh head 93 % of its actions ended within 5 % of a bound."""
    task = Task(preset="drawn", need_sd=0.6, need_rho=0.0)
    market = task.make_market()
    for policies in train_many(task, [0, 1], 2500, scheme="central"):
        policy = policies["slice"]
        policy.start(market, "slice", 100, 0)
        state = market.reset(1, batch=100, split="test")
        actions = policy.act_at(market.stages[0], market.observe(state, "request"), None, state)
        assert np.mean(np.abs(actions) > 0.95) < 0.3
        assert actions.std(axis=0).mean() > 0.1
