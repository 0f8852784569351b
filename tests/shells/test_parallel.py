"""The PettingZoo shells: the framework's own checks, and what one step means here."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pettingzoo
import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

import marketenvs
from marketenvs import InvalidAction, InvalidParameter, ResetNeeded, UnknownName

from .cases import HORIZON, every_market, same, sample


def play(env, seed=0, policy_seed=1, steps=None):
    """Everything that an episode returns."""
    rng, out = np.random.default_rng(policy_seed), []
    observations, infos = env.reset(seed=seed)
    out.append((observations, infos))
    while env.agents and (steps is None or len(out) <= steps):
        step = env.step(sample(env, observations, infos, rng))
        observations, infos = step[0], step[4]
        out.append(step)
    return out


@every_market
def test_framework_checks(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "agents have different observation spaces" and the like: they do
        parallel_api_test(make().parallel_env(), 40)
        api_test(make().aec_env(), 12)
    seed_test(lambda: make().aec_env(), 12)
    parallel_seed_test(lambda: make().parallel_env(), 12)


@pytest.mark.slow
@pytest.mark.parametrize("id", marketenvs.list_markets())
def test_every_preset(id):
    """Every preset passes PettingZoo's checks, and pays and shows nothing that is not finite."""
    for preset in marketenvs.list_presets(id):
        market = marketenvs.make(id, preset=preset, horizon=3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parallel_api_test(market.parallel_env(), 10)
            api_test(market.aec_env(), 6)
        env = market.parallel_env()
        for observations, rewards, *_ in play(env)[1:]:
            assert all(np.isfinite(r) for r in rewards.values()), preset
            assert all(env.observation_space(a).contains(o) for a, o in observations.items()), preset


@every_market
def test_equal_seeds_give_equal_episodes(make):
    assert same(play(make().parallel_env()), play(make().parallel_env()))


@every_market
def test_one_step_is_one_stage(make):
    market = make()
    env = market.parallel_env()
    rng = np.random.default_rng(0)
    observations, infos = env.reset(seed=3)
    first = {a: env.observation_space(a) for a in env.agents}
    for step in range(HORIZON * len(market.stages)):
        stage = market.stages[step % len(market.stages)]
        roles = {a: a.rpartition("_")[0] for a in env.agents}
        assert {infos[a]["stage"] for a in env.agents} == {stage.name}
        assert not any(infos[a]["acting"] for a in env.agents if roles[a] != stage.role)
        for agent, seen in observations.items():
            assert first[agent].contains(seen), (agent, seen)
            assert env.observation_space(agent) is first[agent]
        before, agents = observations, list(env.agents)
        observations, rewards, terminated, truncated, infos = env.step(sample(env, observations, infos, rng))
        after = market.stages[(step + 1) % len(market.stages)]
        last, settled = step == HORIZON * len(market.stages) - 1, after is market.stages[0]
        assert set(observations) == set(rewards) == set(terminated) == set(truncated) == set(infos) == set(agents)
        assert not any(terminated.values())
        assert set(truncated.values()) == {last}
        for agent in agents:
            assert isinstance(rewards[agent], float)
            if not settled:
                assert rewards[agent] == 0.0
            if roles[agent] != after.role:
                assert same(before[agent], observations[agent]), "an idle agent keeps its last observation"
        if settled:
            assert any(rewards.values())
            assert rewards == pytest.approx(
                {a: env.table.game.payoffs[roles[a]][0, int(a.split("_")[-1])] for a in agents}
            )
    assert env.agents == []
    with pytest.raises(ResetNeeded):
        env.step({})


@every_market
def test_the_shell_plays_the_core_game(make):
    """Rewards, metrics and observations are those of ``market.step`` for the same decisions."""
    market = make()
    env, state = market.parallel_env(), market.reset(seed=5)
    observations, infos = env.reset(seed=5)
    rng = np.random.default_rng(2)
    for _ in range(2):
        profile = {}
        for stage in market.stages:
            actions = sample(env, observations, infos, rng)
            game = env.table.game
            chosen = [actions[a] for a in env.table.names[stage.role]]
            if len(market.stages_of[stage.role]) > 1:
                chosen = [c[stage.name] for c in chosen]
            low, high = game.bounds()
            chosen = np.asarray([chosen], dtype=np.int64 if stage.codec.discrete else np.float64)
            decisions = stage.codec.decode(np, chosen, low, high)
            acting = np.asarray(market.acting(game.state, stage.name))[..., None]
            profile[stage.name] = np.where(acting, decisions, np.broadcast_to(low, decisions.shape))
            observations, rewards, _, _, infos = env.step(actions)
        state, outcome = market.step(state, profile)
        for role, pay in outcome.payoffs.items():
            np.testing.assert_array_equal([rewards[a] for a in env.table.names[role]], pay[0])
        np.testing.assert_array_equal(env.unwrapped.metrics["welfare"], outcome.metrics["welfare"][0])
        first = market.stages[0]
        want = np.asarray(market.observe(state, first.name))[0].astype(np.float32)
        np.testing.assert_array_equal(env.table._seen[first.name], want)


@every_market
def test_what_idle_agents_do_has_no_effect(make):
    """Neither the actions of other stages' agents nor of agents that sit out change anything; they may be left out."""
    market = make()
    left, right = market.parallel_env(), market.parallel_env()
    a, b = left.reset(seed=1), right.reset(seed=1)
    rng = np.random.default_rng(7)
    while left.agents:
        actions = sample(left, *a[:1], a[-1], rng)
        fewer = {k: v for k, v in actions.items() if a[-1][k]["acting"]}
        a, b = left.step(actions), right.step(fewer)
        assert same(a, b)


@every_market
def test_deep_copies_and_pickles_have_the_same_future(make):
    for build in (lambda: make().parallel_env(), lambda: make().aec_env()):
        env = build()
        with pytest.raises(ResetNeeded):
            env.state()
        env.reset(seed=4)
        twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
        assert twins[0].market is env.market
        want = futures(env)
        for twin in twins:
            assert same(futures(twin), want)


def futures(env):
    """What the next moves of either PettingZoo environment return, through the end and into the next episode."""
    rng, out = np.random.default_rng(0), []
    if hasattr(env, "agent_selection"):
        for _ in range(2):
            while env.agents:
                agent = env.agent_selection
                seen, reward, _, over, info = env.last()
                space = env.action_space(agent)
                space.seed(int(rng.integers(1 << 31)))
                mask = seen.get("action_mask") if isinstance(seen, dict) else None
                action = None if over else space.sample(info.get("action_mask") if mask is None else mask)
                out.append((agent, seen, reward, over, info, action))
                env.step(action)
            env.reset()
        return out
    observations = {a: env.table.observe(a) for a in env.agents}
    infos = {a: env.table.info(a) for a in env.agents}
    for _ in range(2):
        while env.agents:
            step = env.step(sample(env, observations, infos, rng))
            observations, infos = step[0], step[4]
            out.append(step)
        observations, infos = env.reset()
        out.append(observations)
    return out


@every_market
def test_moves_one_by_one_are_the_same_game(make):
    """The AEC environment plays the parallel one's game, and nobody sees a rival's move of its own stage."""
    market = make()
    parallel, aec = market.parallel_env(), market.aec_env()
    rng = np.random.default_rng(3)
    observations, infos = parallel.reset(seed=9)
    aec.reset(seed=9)
    while parallel.agents:
        actions = sample(parallel, observations, infos, rng)
        movers = [a for a in parallel.agents if infos[a]["acting"]]
        for agent in movers:
            assert aec.agent_selection == agent
            seen = {a: aec.observe(a) for a in aec.agents}
            assert same(seen, observations)
            aec.step(actions[agent])
        observations, rewards, _, truncated, infos = parallel.step(actions)
        if movers:
            assert same({a: aec.rewards[a] for a in rewards}, rewards)
            assert aec.truncations == truncated
    for _ in range(len(aec.agents)):
        aec.step(None)
    assert aec.agents == []


def test_ids_of_the_frameworks():
    env = pettingzoo.make("parallel", "marketenvs/AIBazaar-v0", preset="hetero", horizon=7)
    assert env.unwrapped.market.params.horizon == 7
    assert env.unwrapped.market.params.payment_weight[2] == 12.5
    assert isinstance(pettingzoo.make("aec", "marketenvs/AIBazaar-v0"), pettingzoo.AECEnv)
    assert marketenvs.parallel_env("AIBazaar-v0", n_consumers=3).num_agents == 0
    assert marketenvs.aec_env("marketenvs/AIBazaar-v0", n_consumers=3).max_num_agents == 4
    with pytest.raises(UnknownName, match="n_consumers"):
        pettingzoo.make("parallel", "marketenvs/AIBazaar-v0", n_consumer=3)
    with pytest.raises(UnknownName, match="calibrated"):
        pettingzoo.make("parallel", "marketenvs/AIBazaar-v0", preset="calibratd")


def test_resets_go_through_numbered_markets():
    """Reset number k under seed s is market k of ``market.reset(s, batch)``.

    A split or an instance can be asked for.
    """
    market = marketenvs.make("AIBazaar-v0", preset="drawn")
    env = market.parallel_env()
    train, test = market.reset(seed=3, batch=6), market.reset(seed=3, batch=6, split="test")

    def weights():
        return env.table.game.state.theta.payment_weight[0]

    for k in range(3):
        env.reset(seed=3 if k == 0 else None)
        np.testing.assert_array_equal(weights(), train.theta.payment_weight[k])
    env.reset(seed=3, options={"split": "test", "instance_ids": [4]})
    np.testing.assert_array_equal(weights(), test.theta.payment_weight[4])
    env.reset()
    np.testing.assert_array_equal(weights(), test.theta.payment_weight[5])
    env.reset(seed=3)
    np.testing.assert_array_equal(weights(), train.theta.payment_weight[0])
    with pytest.raises(UnknownName, match="instance_ids"):
        env.reset(options={"instance_id": [1]})
    with pytest.raises(InvalidParameter, match="options"):
        env.reset(options=[1])  # type: ignore[arg-type]
    for options in ({"split": "held-out"}, {"instance_ids": [-1]}, {"instance_ids": [1, 2]}, {"instance_ids": [0.5]}):
        with pytest.raises(InvalidParameter, match=next(iter(options))):
            env.reset(options=options)


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow), "array_api_strict"])
def test_markets_on_other_array_libraries(backend):
    """The shells speak NumPy whatever the market runs on, and show the same game."""
    pytest.importorskip(backend)
    want = play(marketenvs.parallel_env("AIBazaar-v0", preset="drawn", horizon=2))
    got = play(marketenvs.parallel_env("AIBazaar-v0", preset="drawn", horizon=2, backend=backend, dtype="float32"))
    for a, b in zip(got[1:], want[1:], strict=True):
        for agent in b[0]:
            assert a[0][agent].dtype == np.float32
            np.testing.assert_allclose(a[0][agent], b[0][agent], rtol=1e-4, atol=1e-5)
            assert a[1][agent] == pytest.approx(b[1][agent], rel=1e-3, abs=1e-2)


def test_rewards_can_be_scaled():
    plain = play(marketenvs.parallel_env("AIBazaar-v0", horizon=2), 1)
    scaled = play(marketenvs.parallel_env("AIBazaar-v0", horizon=2), 1)
    assert same(plain, scaled)
    env = marketenvs.make("AIBazaar-v0", horizon=2).parallel_env(reward_scale={"provider": 30.0})
    for a, b in zip(plain[1:], play(env, 1)[1:], strict=True):
        assert b[1]["provider_0"] == pytest.approx(a[1]["provider_0"] / 30, rel=1e-15)
        assert b[1]["consumer_4"] == a[1]["consumer_4"]
    market = marketenvs.make("AIBazaar-v0")
    for scale, error in (
        ({"providr": 1.0}, UnknownName),
        ({"provider": 0.0}, InvalidParameter),
        ({"provider": np.nan}, InvalidParameter),
    ):
        with pytest.raises(error, match="provid"):
            market.parallel_env(reward_scale=scale)


def test_actions_outside_are_clipped_and_counted():
    env = marketenvs.parallel_env("AIBazaar-v0", n_consumers=3)
    env.reset(seed=0)
    env.step({"provider_0": np.array([7.0])})
    env.step({"consumer_0": np.array([-9.0]), "consumer_1": np.array([0.0]), "consumer_2": np.array([1.5])})
    assert env.metrics["price"] == 20.0
    np.testing.assert_allclose(env.table.game.played["purchase"][0, :, 0], [10.0, 55.0, 100.0], rtol=1e-14)
    assert env.metrics["clipped"] == 3


def test_parameters_of_many_markets_do_not_fit_one():
    with pytest.raises(InvalidParameter, match="given for 2 markets"):
        marketenvs.parallel_env("AIBazaar-v0", unit_cost=[4.0, 5.0])


@pytest.mark.parametrize(
    ("actions", "match"),
    [
        ({}, "provider_0 must act"),
        ({"provider_0": np.array([np.nan])}, "provider_0"),
        ({"provider_0": np.array([np.inf])}, "provider_0"),
        ({"provider_0": np.zeros(2)}, "provider_0"),
        ({"provider_0": None}, "provider_0"),
        ({"provider_0": "high"}, "provider_0"),
        ({"provider_0": np.zeros(1), "provider_1": np.zeros(1)}, "unknown agent 'provider_1'"),
        ([0.0], "map agents"),
    ],
)
def test_bad_actions_name_the_culprit_and_change_nothing(actions, match):
    env = marketenvs.parallel_env("AIBazaar-v0", horizon=2)
    with pytest.raises(ResetNeeded):
        env.step({"provider_0": np.zeros(1)})
    env.reset(seed=0)
    before = futures(copy.deepcopy(env))
    with pytest.raises(InvalidAction, match=match):
        env.step(actions)
    assert same(futures(env), before)


def test_bad_moves_one_by_one():
    env = marketenvs.aec_env("AIBazaar-v0", horizon=1, n_consumers=2)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(1))
    env.reset(seed=0)
    for bad in (None, np.zeros(3), np.array([np.nan]), "x"):
        with pytest.raises(InvalidAction, match="provider_0"):
            env.step(bad)
    for _ in range(3):
        env.step(np.zeros(1, np.float32))
    with pytest.raises(InvalidAction, match="None"):
        env.step(np.zeros(1))


def test_bad_discrete_actions():
    env = marketenvs.parallel_env("AIBazaar-v0", preset="grid")
    env.reset(seed=0)
    for bad in (11, -1, 3.0, np.array([3]), True, None):
        with pytest.raises(InvalidAction, match=r"provider_0|pricing"):
            env.step({"provider_0": bad})
    env.step({"provider_0": np.int64(10)})
    assert env.table.game.state.decisions["pricing"][0, 0, 0] == 20.0
