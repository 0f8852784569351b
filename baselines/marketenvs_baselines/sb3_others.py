"""The other algorithms of Stable-Baselines3 and sb3-contrib in alternating self-play: A2C, SAC, TD3, DDPG, DQN, MaskablePPO.

All are played by :mod:`sb3_selfplay`; here are only their settings for a batch of markets, one configuration per
algorithm. The off-policy
ones keep a buffer of the latest transitions, which other roles' learning makes stale: it is kept short.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marketenvs.market import Market

from . import sb3_ppo
from .registry import Algorithm
from .run import Policies, Report
from .sb3_selfplay import train_selfplay, why_not

ARCH = {"net_arch": [64, 64]}


def a2c(env: Any, rounds: int) -> dict[str, Any]:
    """Short rollouts, one step each: RMSprop of the original, a larger step for the larger batch."""
    return {"n_steps": rounds, "learning_rate": 2e-3, "gamma": 0.9, "gae_lambda": 0.9, "policy_kwargs": dict(ARCH)}


def off_policy(env: Any, rounds: int) -> dict[str, Any]:
    """What SAC, TD3, DDPG and DQN share: eight updates of 1,024 transitions per round of all environments."""
    return {
        "learning_rate": 1e-3,
        "buffer_size": max(20_000, 16 * rounds * env.num_envs),
        "learning_starts": env.num_envs,
        "batch_size": 1024,
        "gamma": 0.9,
        "train_freq": (1, "step"),
        "gradient_steps": 8,
        "policy_kwargs": dict(ARCH),
    }


def noisy(env: Any, rounds: int) -> dict[str, Any]:
    """TD3 and DDPG: Gaussian noise of a tenth of the action range, drawn for all environments at once."""
    import numpy as np
    from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise

    shape = (env.num_envs, *env.action_space.shape)

    class BatchNoise(VectorizedActionNoise):
        """SB3 would keep one noise object per environment and loop over them."""

        def __init__(self) -> None:
            super().__init__(NormalActionNoise(np.zeros(1), np.full(1, 0.2)), 1)

        def __call__(self) -> np.ndarray:
            return np.random.normal(0.0, 0.2, shape)  # noqa: NPY002 - SB3 seeds this generator

        def reset(self, indices: Any = None) -> None:
            """Nothing is kept between rounds."""

    return {**off_policy(env, rounds), "action_noise": BatchNoise()}


def dqn(env: Any, rounds: int) -> dict[str, Any]:
    """Constant exploration of a tenth (turns are too short for SB3's schedule), soft target updates."""
    return {
        **off_policy(env, rounds),
        "exploration_initial_eps": 0.1,
        "exploration_final_eps": 0.1,
        "target_update_interval": env.num_envs,
        "tau": 0.05,
    }


def maskable(env: Any, rounds: int) -> dict[str, Any]:
    """PPO's settings; masks are used where the market has any."""
    return {**sb3_ppo.settings(env, rounds), "policy_kwargs": dict(ARCH)}


def _learner(name: str, settings: Callable[[Any, int], dict[str, Any]]) -> Callable[..., Policies]:
    def train(task: Any, seed: int, budget: int, report: Report | None = None, **options: Any) -> Policies:
        return train_selfplay(name, settings, task, seed, budget, report, **options)

    return train


def _can_play(name: str) -> Callable[[Market], str | None]:
    def check(market: Market) -> str | None:
        return next((reason for reason in (why_not(name, s) for s in market.stages) if reason), None)

    return check


def _algorithm(name: str, settings: Callable[[Any, int], dict[str, Any]], citation: str, **more: Any) -> Algorithm:
    return Algorithm(
        f"sb3_{name.lower()}",
        train=_learner(name, settings),
        title=f"{name} (SB3, self-play)",
        citation=citation,
        quick_budget=60_000,
        can_play=_can_play(name),
        heavy=True,
        **more,
    )


_SB3, _CONTRIB = ("stable_baselines3",), ("stable_baselines3", "sb3_contrib")
ALGORITHMS = (
    _algorithm("A2C", a2c, "V. Mnih et al., ICML 2016", requires=_SB3, stochastic=True),
    _algorithm("SAC", off_policy, "T. Haarnoja et al., ICML 2018", requires=_SB3, actions=("continuous",)),
    _algorithm("TD3", noisy, "S. Fujimoto et al., ICML 2018", requires=_SB3, actions=("continuous",)),
    _algorithm("DDPG", noisy, "T. Lillicrap et al., ICLR 2016", requires=_SB3, actions=("continuous",)),
    _algorithm("DQN", dqn, "V. Mnih et al., Nature 518 (2015)", requires=_SB3, actions=("discrete",)),
    _algorithm(
        "MaskablePPO",
        maskable,
        "S. Huang, S. Ontañón, FLAIRS 2022",
        requires=_CONTRIB,
        actions=("discrete",),
        stochastic=True,
    ),
)
