"""The native Stable-Baselines3 VecEnv."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

from marketenvs import InvalidAction, InvalidParameter, NotOffered, ResetNeeded, UnknownName
from marketenvs.shells.single import MarketSingleAgentEnv

from .cases import HORIZON, MAKERS, every_role, stage_of

pytest.importorskip("stable_baselines3")
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

from marketenvs.sb3 import MarketVecEnv


@every_role
def test_framework_check(make, role):
    market = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(MarketSingleAgentEnv(market, role, opponents="random", stage=stage_of(market, role)))


@every_role
def test_one_step_is_a_round_of_every_agent(make, role):
    """Rows are markets times agents; episodes end together, with the last observation and a truncation in the infos."""
    market = make()
    stage = market.stage(stage_of(market, role) or role)
    n, batch = market.roles[role], 3
    env = MarketVecEnv(market, role, batch, opponents="random", stage=stage.name, seed=4)
    assert env.num_envs == batch * n
    with pytest.raises(ResetNeeded):
        env.step(np.stack([env.action_space.sample() for _ in range(env.num_envs)]))
    env.action_space.seed(11)
    seen = env.reset()
    assert seen.dtype == np.float32
    paid, turnover = np.zeros(env.num_envs), np.zeros(env.num_envs)
    for step in range(HORIZON):
        assert seen.shape == (env.num_envs, *env.observation_space.shape)
        assert all(env.observation_space.contains(row) for row in seen)
        seen, rewards, dones, infos = env.step(np.stack([env.action_space.sample() for _ in range(env.num_envs)]))
        np.testing.assert_allclose(
            rewards, env.game.game.payoffs.get(role, rewards).reshape(-1)
        ) if step < HORIZON - 1 else None
        paid += rewards
        turnover += np.abs(rewards)
        assert dones.all() == dones.any() == (step == HORIZON - 1)
    for i, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert env.observation_space.contains(info["terminal_observation"])
        assert info["episode"]["r"] == pytest.approx(paid[i], abs=1e-5 * turnover[i] + 1e-6)  # single precision
        assert info["episode"]["l"] == HORIZON
    assert not any(env.step(np.stack([env.action_space.sample() for _ in range(env.num_envs)]))[3])


def test_rows_are_agents_of_markets():
    """Row b * n + i is agent i of market b: its own type is in what it sees."""
    env = MarketVecEnv("AIBazaar-v0", "consumer", 2, preset="drawn", n_consumers=3, opponents="random", seed=1)
    seen = env.reset()
    weights = env.game.game.state.theta.payment_weight
    np.testing.assert_allclose(seen[:, 2] * 7 + 11, weights.reshape(-1), rtol=1e-6)
    actions = np.linspace(-1, 1, 6)[:, None]
    env.step(actions)
    np.testing.assert_allclose(env.game.game.played["purchase"].reshape(-1), np.linspace(10, 100, 6), rtol=1e-6)


def test_seeds_make_the_single_environments_markets():
    env = MarketVecEnv("AIBazaar-v0", "provider", 3, preset="drawn", observation="full", opponents="random")
    env.seed(7)
    seen = env.reset()
    for i in range(3):
        single = MarketSingleAgentEnv("AIBazaar-v0", "provider", preset="drawn", observation="full", opponents="random")
        np.testing.assert_array_equal(single.reset(seed=7 + i)[0], seen[i])
    env.seed(7)
    env.set_options({"split": "test"})
    assert not np.array_equal(env.reset(), seen)
    env.seed(7)
    np.testing.assert_array_equal(env.reset(), seen)


def test_wrappers_of_sb3():
    env = VecNormalize(VecMonitor(MarketVecEnv("AIBazaar-v0", "consumer", 2, opponents="random", horizon=3)))
    env.reset()
    for _ in range(3):
        _, _, dones, infos = env.step(np.zeros((20, 1), np.float32))
    assert dones.all()
    assert infos[0]["episode"]["l"] == 3
    assert env.env_is_wrapped(VecMonitor) == [False] * 20


def test_copies_have_the_same_future():
    env = MarketVecEnv("AIBazaar-v0", "consumer", 2, opponents="random", horizon=3)
    env.reset()
    env.step(np.zeros((20, 1)))
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (5, 20, 1))
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    want = [env.step(a)[:3] for a in actions]
    for twin in twins:
        for got, expected in zip([twin.step(a)[:3] for a in actions], want, strict=True):
            for x, y in zip(got, expected, strict=True):
                np.testing.assert_array_equal(x, y)


def test_masks_reach_maskable_algorithms():
    utils = pytest.importorskip("sb3_contrib.common.maskable.utils")
    env = MarketVecEnv(MAKERS["masked"](), "seller", 2, opponents="random")
    env.reset()
    assert utils.is_masking_supported(env)
    np.testing.assert_array_equal(utils.get_action_masks(env), np.array([[1, 1, 0, 1, 1, 1, 0]] * 4, dtype=bool))
    plain = MarketVecEnv("AIBazaar-v0", "consumer", 2, preset="grid", opponents="random")
    assert not utils.is_masking_supported(plain)


def test_bad_input():
    env = MarketVecEnv("AIBazaar-v0", "consumer", 2, n_consumers=2, opponents="random")
    env.reset()
    for bad in (np.zeros((3, 1)), np.zeros(4), np.full((4, 1), np.inf), np.zeros((4, 1), dtype=object), np.float64(0)):
        with pytest.raises(InvalidAction):
            env.step(bad)
    with pytest.raises(ResetNeeded, match="step_async"):
        env.step_wait()
    with pytest.raises(InvalidParameter, match="indices"):
        env.set_attr("x", 1, indices=[0])
    with pytest.raises(NotOffered, match="join"):
        MarketVecEnv(MAKERS["toy"](), "buyer", 2, opponents="random")
    with pytest.raises(UnknownName, match="consumer"):
        MarketVecEnv("AIBazaar-v0", "consumr", 2)
    with pytest.raises(InvalidParameter, match="number of environments"):
        MarketVecEnv("AIBazaar-v0", "consumer", 0)


def test_ppo_runs():
    from stable_baselines3 import PPO

    env = MarketVecEnv(
        "AIBazaar-v0", "consumer", 2, opponents="equilibrium", horizon=5, seed=0, reward_scale={"consumer": 1e3}
    )
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=80, n_epochs=1, seed=0, device="cpu")
    model.learn(320)
    assert model.num_timesteps == 320
    assert len(model.ep_info_buffer) == 60
