"""Stable-Baselines3 in self-play: every algorithm learns all roles, and comes out as a policy that needs no SB3."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from marketenvs_baselines import ALGORITHMS
from marketenvs_baselines.store import load_policy, save_policy

from marketenvs.errors import InvalidParameter, NotOffered, UnknownName
from marketenvs.policy import decide

from .tasks import FakeTask

pytest.importorskip("stable_baselines3")

TINY = {"markets": 8, "rounds": 4}
CASES = [("sb3_ppo", "calibrated"), ("sb3_ppo", "grid")]
SLOW = [
    ("sb3_a2c", "calibrated"),
    ("sb3_a2c", "grid"),
    ("sb3_sac", "calibrated"),
    ("sb3_td3", "calibrated"),
    ("sb3_ddpg", "calibrated"),
    ("sb3_dqn", "grid"),
    ("sb3_maskableppo", "grid"),
]
EVERY = [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


def task(preset="calibrated"):
    return FakeTask(preset, params={"n_consumers": 3, "horizon": 6})


def decisions(policies, market, seed=5):
    state = market.reset(seed=3, batch=16)
    out = {}
    for stage in market.stages:
        policies[stage.role].start(market, stage.role, 16, seed)
        obs = market.observe(state, stage.name)
        out[stage.name] = decide(policies[stage.role], market, stage, obs, None, state)
        state = market.commit(state, stage.name, out[stage.name])
    return out


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_all_roles_learn_save_and_load(name, preset, tmp_path):
    used = []
    first = ALGORITHMS[name].train(task(preset), 0, 1, None, **TINY)
    policies = ALGORITHMS[name].train(task(preset), 0, 300, lambda r, *a: used.append(r), **TINY)
    assert used == sorted(used)
    assert used[-1] <= 300
    market = task(preset).make_market()
    for role in market.roles:  # both have learned: the weights moved between 1 turn and many
        for stage, net in policies[role].networks.items():
            assert not np.array_equal(net.layers[0][0], first[role].networks[stage].layers[0][0])
    save_policy(tmp_path / "p", policies, task(preset), {"algorithm": name})
    back = load_policy(tmp_path / "p", market)
    for stage, value in decisions(policies, market).items():
        np.testing.assert_array_equal(decisions(back, market)[stage], value)


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_the_numpy_network_plays_what_sb3_would(name, preset):
    from marketenvs_baselines import sb3_others, sb3_ppo
    from marketenvs_baselines.sb3_selfplay import SelfPlay

    cls = {"sb3_maskableppo": "MaskablePPO"}.get(name, name.removeprefix("sb3_").upper())
    found = {"PPO": sb3_ppo.settings, "A2C": sb3_others.a2c, "DQN": sb3_others.dqn, "MaskablePPO": sb3_others.maskable}
    found |= {"SAC": sb3_others.off_policy, "TD3": sb3_others.noisy, "DDPG": sb3_others.noisy}
    game = SelfPlay(task(preset), 1, cls, settings=found[cls], **TINY)
    game.learn(200)
    market, policies = game.market, game.policies(stochastic=False)
    state = market.reset(seed=0, batch=64)
    for stage in market.stages:
        obs = market.observe(state, stage.name)
        n, d = obs.shape[1:]
        policies[stage.role].start(market, stage.role, 64, 0)
        mine = policies[stage.role].act_at(stage, obs, None, state)
        theirs, _ = game.models[stage.name].predict(obs.reshape(-1, d).astype(np.float32), deterministic=True)
        np.testing.assert_allclose(mine.reshape(theirs.shape), theirs, atol=2e-6)
        state = market.commit(state, stage.name, market.bounds(state, stage.name)[0] + np.zeros((64, n, 1)))


def test_the_seed_decides():
    a, b, c = (
        decisions(ALGORITHMS["sb3_ppo"].train(task(), s, 200, None, **TINY), task().make_market()) for s in (1, 1, 2)
    )
    for stage in a:
        np.testing.assert_array_equal(a[stage], b[stage])
        assert not np.array_equal(a[stage], c[stage])


def test_settings_replace_defaults_one_by_one():
    still = ALGORITHMS["sb3_ppo"].train(task(), 0, 100, None, settings={"learning_rate": 0.0}, **TINY)
    again = ALGORITHMS["sb3_ppo"].train(task(), 0, 300, None, settings={"learning_rate": 0.0}, **TINY)
    for stage, value in decisions(still, task().make_market()).items():
        np.testing.assert_array_equal(decisions(again, task().make_market())[stage], value)


def test_annealing_stops_the_steps():
    """With nothing left at the end, learning rates fall linearly from turn to turn."""
    from marketenvs_baselines.sb3_ppo import settings
    from marketenvs_baselines.sb3_selfplay import SelfPlay

    game, seen = SelfPlay(task(), 0, "PPO", settings=settings, anneal=0.0, **TINY), []
    game.learn(256, lambda *a: seen.append(game.models["pricing"].policy.optimizer.param_groups[0]["lr"]))
    np.testing.assert_allclose(seen[::2], 1e-3 * np.array([1, 0.75, 0.5, 0.25]))  # 4 passes of 2 turns of 32 rounds


def test_one_role_learns_alone():
    only = ALGORITHMS["sb3_ppo"].train(task(), 0, 100, None, only="consumer", opponents="random", **TINY)
    assert set(only) == {"consumer"}


def test_what_cannot_be_played_is_named():
    continuous, grid = task().make_market(), task("grid").make_market()
    assert "discrete" in ALGORITHMS["sb3_dqn"].why_not(continuous)
    assert "continuous" in ALGORITHMS["sb3_sac"].why_not(grid)
    with pytest.raises(NotOffered, match="SAC needs continuous actions"):
        ALGORITHMS["sb3_sac"].train(task("grid"), 0, 10, None, **TINY)
    with pytest.raises(InvalidParameter, match="no role 'cosumer'"):
        ALGORITHMS["sb3_ppo"].train(task(), 0, 10, None, only="cosumer", **TINY)
    with pytest.raises(UnknownName, match="did you mean 'wander'"):
        ALGORITHMS["sb3_ppo"].train(task(), 0, 10, None, wandr=0.1)
    with pytest.raises(UnknownName, match="did you mean 'learning_rate'"):
        ALGORITHMS["sb3_ppo"].train(task(), 0, 10, None, settings={"learning_rat": 0.1})
    with pytest.raises(InvalidParameter, match="wander"):
        ALGORITHMS["sb3_ppo"].train(task(), 0, 10, None, wander=2.0, **TINY)


def test_a_trained_policy_plays_without_sb3_and_torch(tmp_path):
    policies = ALGORITHMS["sb3_ppo"].train(task(), 0, 1, None, **TINY)
    save_policy(tmp_path / "p", policies, task())
    code = f"""
import sys, marketenvs
from marketenvs_baselines import play
from marketenvs_baselines.store import load_policy
market = marketenvs.make("AIBazaar-v0", n_consumers=3, horizon=6)
play(market, load_policy({str(tmp_path / "p")!r}, market), 3, [0])
print([m for m in ("torch", "stable_baselines3") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
