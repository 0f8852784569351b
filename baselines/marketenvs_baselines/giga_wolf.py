"""GIGA-WoLF: generalised infinitesimal gradient ascent that wins or learns fast.

Two policies climb the same gradient, here the row of Q-values: x with step eta, z (slower) with eta / 3. After each
step x is pulled
towards z by at most the distance z just moved, which is the "learn fast when losing" of WoLF without knowing an
equilibrium. Rewards
are divided by the task's scale, as for PGA-APP.

M. Bowling, "Convergence and no-regret in multiagent learning", NIPS 2004, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .registry import Algorithm
from .run import Policies, Report
from .tabular import Rule, playable, project_to_simplex, rule_maker, train_tabular


@dataclass
class GigaWolf(Rule):
    """The update of one situation.

    Args:
        learning_rate: Step of Q.
        discount: gamma.
        step: eta, step of the policy.
        scaled: Whether rewards are divided by the task's scale.
        explore: Probability of a uniform action.
    """

    learning_rate: float = 0.8
    discount: float = 0.1
    step: float = 0.01
    scaled: bool = True
    explore: float = 0.0

    def grow(self, rows: int, actions: int) -> None:
        self.q = np.zeros((rows, actions))
        self.x = np.full((rows, actions), 1.0 / actions)
        self.z = np.full((rows, actions), 1.0 / actions)

    def probabilities(self, row: np.ndarray) -> np.ndarray:
        return self.x[row]

    def learn(self, row: np.ndarray, action: np.ndarray, reward: np.ndarray, next_row: np.ndarray, rivals: Any) -> None:
        target = reward + self.discount * self.q[next_row].max(axis=1)
        self.q[row, action] += self.learning_rate * (target - self.q[row, action])
        self.x[row], self.z[row] = wolf_step(self.x[row], self.z[row], self.q[row], self.step)


def wolf_step(x: np.ndarray, z: np.ndarray, rewards: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """One step of every row; returns the new x and z."""
    ahead = project_to_simplex(x + step * rewards)
    new_z = project_to_simplex(z + step * rewards / 3.0)
    moved = np.sqrt(((new_z - z) ** 2).sum(axis=1))
    distance = np.sqrt(((new_z - ahead) ** 2).sum(axis=1))
    pull = np.where(distance > moved, moved / np.where(distance > 0, distance, 1.0), 1.0)
    return ahead + pull[:, None] * (new_z - ahead), new_z


def train_many(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, raw: bool = False, **constants: Any
) -> list[Policies]:
    """GIGA-WoLF for all roles, one run per seed; ``raw=True`` leaves rewards as they are."""
    return train_tabular(rule_maker(GigaWolf, {"scaled": not raw, **constants}), task, seeds, budget, report)


ALGORITHM = Algorithm(
    "giga_wolf",
    train_many=train_many,
    title="GIGA-WoLF",
    citation="M. Bowling, Convergence and no-regret in multiagent learning, NIPS 2004",
    quick_budget=20_000,
    stochastic=True,
    can_play=playable,
)
