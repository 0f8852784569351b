"""PGA-APP: policy gradient ascent with approximate policy prediction.

Q-learning estimates the value of every action; the policy climbs a gradient that is corrected by a forecast of the
opponents' next
policies, then is projected back onto the simplex. Rewards are divided by the task's scale: with raw rewards of 10^4 a
single step
throws the policy to a vertex, which is what "PGA-APP does not converge" in the AI-Bazaar paper appears to be
(``raw=True`` shows it).

C. Zhang, V. Lesser, "Multi-agent learning with policy prediction", AAAI 2010, algorithm 2.
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
class PgaApp(Rule):
    """The update of one situation.

    Args:
        learning_rate: alpha, step of Q.
        discount: gamma of the return (xi in the source).
        step: eta, step of the policy.
        prediction: zeta, length of the forecast (gamma in the source).
        scaled: Whether rewards are divided by the task's scale.
        explore: Probability of a uniform action.
    """

    learning_rate: float = 0.8
    discount: float = 0.1
    step: float = 0.01
    prediction: float = 3.0
    scaled: bool = True
    explore: float = 0.0

    def grow(self, rows: int, actions: int) -> None:
        self.q = np.zeros((rows, actions))
        self.pi = np.full((rows, actions), 1.0 / actions)

    def probabilities(self, row: np.ndarray) -> np.ndarray:
        return self.pi[row]

    def learn(self, row: np.ndarray, action: np.ndarray, reward: np.ndarray, next_row: np.ndarray, rivals: Any) -> None:
        target = reward + self.discount * self.q[next_row].max(axis=1)
        self.q[row, action] += self.learning_rate * (target - self.q[row, action])
        self.pi[row] = predicted_step(self.pi[row], self.q[row], self.step, self.prediction)


def predicted_step(pi: np.ndarray, q: np.ndarray, step: float, prediction: float) -> np.ndarray:
    """One policy step of every row: (Q - V) / (1 - pi), Q - V where pi = 1, less prediction * abs(of it) * pi."""
    advantage = q - (pi * q).sum(axis=1, keepdims=True)
    delta = advantage / np.where(pi < 1.0, 1.0 - pi, 1.0)
    return project_to_simplex(pi + step * (delta - prediction * np.abs(delta) * pi))


def train_many(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, raw: bool = False, **constants: Any
) -> list[Policies]:
    """PGA-APP for all roles, one run per seed; ``raw=True`` leaves rewards as they are."""
    return train_tabular(rule_maker(PgaApp, {"scaled": not raw, **constants}), task, seeds, budget, report)


ALGORITHM = Algorithm(
    "pga_app",
    train_many=train_many,
    title="PGA-APP",
    citation="C. Zhang, V. Lesser, Multi-agent learning with policy prediction, AAAI 2010",
    quick_budget=20_000,
    stochastic=True,
    can_play=playable,
)
