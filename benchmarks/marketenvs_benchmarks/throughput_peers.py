"""The peers as contenders (extra ``peers``): MPE2, VMAS, JaxMARL, mobile-env, and SuperSuit's route to Stable-Baselines3.

All with decisions drawn beforehand, all their observations, rewards and ends of episodes computed and kept, as on our side. Episodes do
not end within a measurement, except mobile-env's (100 steps), whose resets are part of its time.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from .throughput_measure import Contender, Run
from .throughput_ours import SCAN

AGENTS = 3
"""Agents of simple_spread."""
USERS = 15
"""Users of mobile-env's medium scenario."""


def spread(compiled: bool = True) -> list[Contender]:
    """simple_spread, three agents: MPE2 through PettingZoo, VMAS, and (if ``compiled``, which takes half a minute) JaxMARL."""
    out = [Contender("mpe2 simple_spread", "mpe2", "simple_spread", "parallel env", "", 1, 1, AGENTS, _mpe2)]
    for batch in (1024, 8192):
        out.append(
            Contender(
                f"vmas simple_spread B={batch}", "vmas", "simple_spread", "core", "torch float32", batch, batch, AGENTS,
                partial(_vmas, batch),
            )
        )  # fmt: skip
    for batch in (1024, 8192) if compiled else ():
        out.append(
            Contender(
                f"jaxmarl simple_spread B={batch}", "jaxmarl", "simple_spread", "core", "jax float32 scan", batch,
                batch * SCAN, AGENTS, partial(_jaxmarl, batch),
            )
        )  # fmt: skip
    return out


def radio() -> list[Contender]:
    """mobile-env's medium scenario, and our channel alone (600 users, 32 slots at a time)."""
    from . import throughput_channel as channel

    return [
        Contender("mobile-env medium", "mobile-env", "medium", "Gymnasium env", "", 1, 1, 1, _mobile_env, USERS),
        Contender(
            "marketenvs channel", "marketenvs", "channel module", "fading, SINR, rate, QoS", "numpy float64", 32, 32, 1,
            _channel, channel.USERS,
        ),
    ]  # fmt: skip


def supersuit(setting: Mapping[str, Any], batch: int = 128) -> list[Contender]:
    """AI-Bazaar through SuperSuit to Stable-Baselines3, beside our own VecEnv of the same size."""
    import marketenvs

    from .throughput_ours import _sb3, describe

    agents = marketenvs.make("AIBazaar-v0", **setting).roles["consumer"]
    return [
        Contender(
            f"supersuit AI-Bazaar B={batch}", "supersuit", "AIBazaar-v0", "SB3 VecEnv", "", batch, batch, agents + 1,
            lambda: _supersuit(setting, batch), setting=describe(setting),
        ),
        Contender(
            f"AIBazaar-v0 SB3 VecEnv B={batch}", "marketenvs", "AIBazaar-v0", "SB3 VecEnv", "numpy float64", batch,
            batch, agents, lambda: _sb3("AIBazaar-v0", setting, "consumer", "purchase", batch), setting=describe(setting),
        ),
    ]  # fmt: skip


def _mpe2() -> Run:
    from mpe2 import simple_spread_v3

    env = simple_spread_v3.parallel_env(max_cycles=10**9)
    env.reset(seed=0)
    for i, agent in enumerate(env.agents):
        env.action_space(agent).seed(i)
    cycle = itertools.cycle([{a: env.action_space(a).sample() for a in env.agents} for _ in range(16)])

    def run(calls: int) -> None:
        for _ in range(calls):
            env.step(next(cycle))

    return run


def _vmas(batch: int) -> Run:
    import torch
    import vmas

    torch.set_num_threads(1)
    env = vmas.make_env("simple_spread", num_envs=batch, device="cpu", continuous_actions=True, seed=0, n_agents=AGENTS)
    env.reset()
    cycle = itertools.cycle([[env.get_random_action(a) for a in env.agents] for _ in range(4)])

    def run(calls: int) -> None:
        with torch.inference_mode():
            for _ in range(calls):
                env.step([a.clone() for a in next(cycle)])

    return run


def _jaxmarl(batch: int) -> Run:
    import jax
    import jax.numpy as jnp

    with contextlib.redirect_stdout(io.StringIO()):
        import jaxmarl
    env = jaxmarl.make("MPE_simple_spread_v3")
    reset = jax.vmap(env.reset)
    step = jax.vmap(env.step)
    keys = jax.random.split(jax.random.PRNGKey(0), batch)
    rng = np.random.default_rng(0)
    plays = {a: jnp.asarray(rng.integers(0, 5, (2, batch))) for a in env.agents}

    def body(carry: Any, index: Any) -> tuple[Any, None]:
        state, keys, _ = carry
        actions = {a: p[index] for a, p in plays.items()}
        seen, state, paid, done, _ = step(keys, state, actions)
        return (state, keys, (seen, paid, done)), None

    order = jnp.arange(SCAN) % 2
    rollout = jax.jit(lambda carry: jax.lax.scan(body, carry, order)[0])

    @jax.jit
    def begin(keys: Any) -> Any:
        _, state = reset(keys)
        seen, state, paid, done, _ = step(keys, state, {a: p[0] for a, p in plays.items()})
        return state, keys, (seen, paid, done)

    turn = [begin(keys)]

    def run(calls: int) -> None:
        carry = turn[0]
        for _ in range(calls):
            carry = rollout(carry)
        turn[0] = jax.block_until_ready(carry)

    return run


def _mobile_env() -> Run:
    import gymnasium

    with contextlib.redirect_stdout(io.StringIO()):
        import mobile_env  # noqa: F401
    env = gymnasium.make("mobile-medium-central-v0")
    env.reset(seed=0)
    env.action_space.seed(0)
    cycle = itertools.cycle([env.action_space.sample() for _ in range(16)])

    def run(calls: int) -> None:
        for _ in range(calls):
            _, _, terminated, truncated, _ = env.step(next(cycle))
            if terminated or truncated:
                env.reset()

    return run


def _channel() -> Run:
    from . import throughput_channel as channel

    rng = np.random.default_rng(0)
    mean, uniform = channel.drop(rng), np.empty((32, channel.USERS))

    def run(calls: int) -> None:
        for _ in range(calls):
            rng.random(out=uniform)
            channel.channel_step(mean, uniform)

    return run


def _supersuit(setting: Mapping[str, Any], batch: int) -> Run:
    import supersuit
    from gymnasium import spaces
    from pettingzoo import ParallelEnv

    import marketenvs

    class Padded(ParallelEnv):
        """AI-Bazaar with all spaces made equal by hand, as SuperSuit needs, without the cost of its own padding."""

        metadata = {"name": "padded", "render_modes": []}
        render_mode = None

        def __init__(self) -> None:
            self.env = marketenvs.parallel_env("AIBazaar-v0", **setting)
            self.possible_agents: list[str] = self.env.possible_agents
            self.agents: list[str] = []
            self.width = max(self.env.observation_space(a).shape[0] for a in self.possible_agents)
            self.seen = spaces.Box(0.0, 1.0, (self.width,), np.float32)
            self.act = spaces.Box(-1.0, 1.0, (1,), np.float32)

        def observation_space(self, agent: str) -> spaces.Space:
            return self.seen

        def action_space(self, agent: str) -> spaces.Space:
            return self.act

        def _pad(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            out = {}
            for agent, seen in observations.items():
                out[agent] = row = np.zeros(self.width, np.float32)
                row[: len(seen)] = seen
            return out

        def reset(self, seed: Any = None, options: Any = None) -> Any:
            observations, infos = self.env.reset(seed, options)
            self.agents = list(self.env.agents)
            return self._pad(observations), infos

        def step(self, actions: Any) -> Any:
            observations, *rest = self.env.step(actions)
            self.agents = list(self.env.agents)
            return self._pad(observations), *rest

    env = supersuit.concat_vec_envs_v1(
        supersuit.pettingzoo_env_to_vec_env_v1(Padded()), batch, num_cpus=1, base_class="stable_baselines3"
    )
    env.reset()
    actions = np.stack([env.action_space.sample() for _ in range(env.num_envs)])
    stages = len(marketenvs.make("AIBazaar-v0", **setting).stages)

    def run(calls: int) -> None:
        for _ in range(calls * stages):
            env.step(actions)

    return run
