"""Independent Q-learning, the control: every agent learns as if it were alone.

C. Watkins, P. Dayan, "Q-learning", Machine Learning 8 (1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .registry import Algorithm
from .run import Policies, Report
from .tabular import Rule, playable, rule_maker, train_tabular


@dataclass
class QLearning(Rule):
    """The update of one situation.

    Args:
        learning_rate: alpha.
        discount: gamma.
        explore: Probability of a uniform action while learning; the final policy is greedy (ties: the lowest action).
    """

    learning_rate: float = 0.8
    discount: float = 0.1
    explore: float = 0.05

    def grow(self, rows: int, actions: int) -> None:
        self.q = np.zeros((rows, actions))

    def probabilities(self, row: np.ndarray) -> np.ndarray:
        out = np.zeros((len(row), self.q.shape[1]))
        out[np.arange(len(row)), self.q[row].argmax(axis=1)] = 1.0
        return out

    def learn(self, row: np.ndarray, action: np.ndarray, reward: np.ndarray, next_row: np.ndarray, rivals: Any) -> None:
        target = reward + self.discount * self.q[next_row].max(axis=1)
        self.q[row, action] += self.learning_rate * (target - self.q[row, action])


def train_many(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, **constants: Any
) -> list[Policies]:
    """Independent Q-learning for all roles, one run per seed."""
    return train_tabular(rule_maker(QLearning, constants), task, seeds, budget, report)


ALGORITHM = Algorithm(
    "q_learning",
    train_many=train_many,
    title="Independent Q-learning",
    citation="C. Watkins, P. Dayan, Q-learning, Machine Learning 8 (1992)",
    quick_budget=20_000,
    can_play=playable,
)
