"""The other algorithms of Stable-Baselines3 and sb3-contrib in self-play: A2C, SAC, TD3, DDPG, DQN, MaskablePPO.

All are played by :mod:`sb3_selfplay`; here are only their settings for a batch of markets, one configuration per
algorithm. The off-policy
ones keep a buffer of the latest transitions, which other roles' learning makes stale: it is kept short.
"""

from __future__ import annotations

from typing import Any

from . import sb3_ppo
from .sb3_training import algorithm

ARCH = {"net_arch": [64, 64]}


def a2c(env: Any, rounds: int) -> dict[str, Any]:
    """Short rollouts, one step each: RMSprop of the original, a larger step for the larger batch."""
    return {"n_steps": rounds, "learning_rate": 2e-3, "gamma": 0.9, "gae_lambda": 0.9, "policy_kwargs": dict(ARCH)}


def off_policy(env: Any, rounds: int) -> dict[str, Any]:
    """What SAC, TD3, DDPG and DQN share: eight updates of 256 transitions after every round of all environments.

    There is no discount: what an action earns is known at the end of its round. With 0.9, values are ten times as
    large, and the differences between actions, which are all that matters, drown in the error of the bootstrapped rest.
    """
    return {
        "learning_rate": 1e-3,
        "buffer_size": max(20_000, 16 * rounds * env.num_envs),
        "learning_starts": 2 * rounds * env.num_envs,
        "batch_size": 256,
        "gamma": 0.0,
        "train_freq": (1, "step"),
        "gradient_steps": 8,
        "policy_kwargs": dict(ARCH),
    }


def sac(env: Any, rounds: int) -> dict[str, Any]:
    """SB3's own first entropy weight of 1 is worth as much as all rewards here, and outlasts a short budget."""
    return {**off_policy(env, rounds), "ent_coef": "auto_0.05"}


def noisy(env: Any, rounds: int) -> dict[str, Any]:
    """TD3 and DDPG: Gaussian noise of a tenth of the action range, drawn for all environments at once.

    Their actors are restrained (:func:`~marketenvs_baselines.sb3_networks.restrained`): SB3's own run into the price cap within
    the first turns and stay there. Other rates, turn orders, weight decay and noise over the whole range did not help.
    """
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
    """Three actions of ten are explored throughout: the others play greedily all the same, and a map needs all of them."""
    return {
        **off_policy(env, rounds),
        "exploration_initial_eps": 0.3,
        "exploration_final_eps": 0.3,
        "target_update_interval": env.num_envs,
        "tau": 0.05,
    }


def maskable(env: Any, rounds: int) -> dict[str, Any]:
    """PPO's settings; masks are used where the market has any."""
    return {**sb3_ppo.settings(env, rounds), "policy_kwargs": dict(ARCH)}


_CONTRIB = ("stable_baselines3", "sb3_contrib")
ALGORITHMS = (
    algorithm("A2C", a2c, "V. Mnih et al., ICML 2016", stochastic=True, heavy=True),
    algorithm("SAC", sac, "T. Haarnoja et al., ICML 2018", actions=("continuous",), heavy=True),
    algorithm("TD3", noisy, "S. Fujimoto et al., ICML 2018", actions=("continuous",), heavy=True),
    algorithm("DDPG", noisy, "T. Lillicrap et al., ICLR 2016", actions=("continuous",), heavy=True),
    algorithm("DQN", dqn, "V. Mnih et al., Nature 518 (2015)", actions=("discrete",), heavy=True),
    algorithm(
        "MaskablePPO",
        maskable,
        "S. Huang, S. Ontañón, FLAIRS 2022",
        requires=_CONTRIB,
        actions=("discrete",),
        stochastic=True,
        heavy=True,
    ),
)
