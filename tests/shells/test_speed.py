"""Speed beside the neighbours, in one run each (slow: `make test-slow`); generous margins below what was measured."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import ParallelEnv

import marketenvs

pytestmark = pytest.mark.slow


def per_second(step, count, size):
    """Best of three: ``size`` agent-steps per call, per CPU second."""
    rates = []
    for _ in range(3):
        begun = time.process_time()
        for k in range(count):
            step(k)
        rates.append(count * size / (time.process_time() - begun))
    return max(rates)


def test_parallel_env_beside_mpe2():
    """At least 5 times simple_spread's agent-steps per second, with 11 agents (all live agents count as stepping, in both)."""
    mpe2 = pytest.importorskip("mpe2")
    from mpe2 import simple_spread_v3

    assert mpe2
    rates = []
    for env in (simple_spread_v3.parallel_env(max_cycles=10**9), marketenvs.parallel_env("AIBazaar-v0", horizon=10**6)):
        env.reset(seed=0)
        actions = [{a: env.action_space(a).sample() for a in env.agents} for _ in range(20)]
        rates.append(per_second(lambda k, env=env, acts=actions: env.step(acts[k % 20]), 1000, len(env.agents)))
    print(f"agent-steps/s: mpe2 {rates[0]:.0f}, marketenvs {rates[1]:.0f}, ratio {rates[1] / rates[0]:.1f}")
    assert rates[1] >= 5 * rates[0]


class Padded(ParallelEnv):
    """AI-Bazaar with all spaces made equal by hand.

    What SuperSuit needs, without the cost of its own padding wrapper.
    """

    def __init__(self):
        self.env = marketenvs.parallel_env("AIBazaar-v0")
        self.possible_agents, self.agents, self.metadata, self.render_mode = (
            self.env.possible_agents,
            [],
            self.env.metadata,
            None,
        )
        self._seen, self._act = spaces.Box(0, 1, (14,), np.float32), spaces.Box(-1, 1, (1,), np.float32)

    def observation_space(self, agent):
        return self._seen

    def action_space(self, agent):
        return self._act

    def _pad(self, observations):
        out = {}
        for agent, seen in observations.items():
            out[agent] = row = np.zeros(14, np.float32)
            row[: len(seen)] = seen
        return out

    def reset(self, seed=None, options=None):
        observations, infos = self.env.reset(seed, options)
        self.agents = list(self.env.agents)
        return self._pad(observations), infos

    def step(self, actions):
        observations, *rest = self.env.step(actions)
        self.agents = list(self.env.agents)
        return self._pad(observations), *rest


def test_native_sb3_beside_supersuit():
    """At least 50 times SuperSuit's agent-steps per second at 128 environments, even where its padding costs nothing."""
    supersuit = pytest.importorskip("supersuit")
    pytest.importorskip("stable_baselines3")
    from marketenvs.sb3 import MarketVecEnv

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slow = supersuit.concat_vec_envs_v1(
            supersuit.pettingzoo_env_to_vec_env_v1(Padded()), 128, num_cpus=1, base_class="stable_baselines3"
        )
    rates = []
    for env, count in ((slow, 10), (MarketVecEnv("AIBazaar-v0", "consumer", 128, opponents="random", seed=0), 200)):
        env.reset()
        actions = np.stack([env.action_space.sample() for _ in range(env.num_envs)])
        rates.append(per_second(lambda k, env=env, acts=actions: env.step(acts), count, env.num_envs))
    print(f"agent-steps/s: SuperSuit {rates[0]:.0f}, native {rates[1]:.0f}, ratio {rates[1] / rates[0]:.1f}")
    assert rates[1] >= 50 * rates[0]
