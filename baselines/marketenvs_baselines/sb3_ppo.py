"""Stable-Baselines3's PPO in self-play, one network per role; defaults for a batch of markets.

J. Schulman et al., "Proximal policy optimization algorithms", arXiv:1707.06347 (2017); A. Raffin et al., JMLR 22
(2021).
"""

from __future__ import annotations

from typing import Any

from .sb3_training import algorithm


def settings(env: Any, rounds: int) -> dict[str, Any]:
    """Keyword arguments of ``PPO`` for a vector environment that plays ``rounds`` rounds in a turn."""
    rollout = env.num_envs * rounds
    parts = max(4, -(-rollout // 4096))
    while rollout % parts:
        parts += 1
    return {
        "n_steps": rounds,
        "batch_size": rollout // parts,
        "n_epochs": 10,
        "learning_rate": 1e-3,
        "gamma": 0.9,
        "gae_lambda": 0.9,
        "ent_coef": 0.0,
        "policy_kwargs": {"log_std_init": 0.0, "net_arch": [64, 64]},
    }


ALGORITHM = algorithm(
    "PPO", settings, "J. Schulman et al., arXiv:1707.06347; A. Raffin et al., JMLR 22 (2021)", stochastic=True
)
