"""Exp3 and bandit regret matching: what a seller or bidder can learn from its own rewards alone.

P. Auer, N. Cesa-Bianchi, Y. Freund, R. Schapire, "The nonstochastic multiarmed bandit problem", SIAM Journal on
Computing 32 (2002). S. Hart, A. Mas-Colell, "A reinforcement procedure leading to correlated equilibrium", 2001.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import qpml as _spectrum  # what agents of the spectrum market read is declared there
from .registry import Algorithm
from .run import Policies, Report
from .tabular import Rule, playable, train_tabular


class Exp3(Rule):
    """Exponential weights on importance-weighted rewards, with a share of uniform play.

    Rewards of any range are mapped to [0, 1] by the smallest and largest seen so far. The frozen policy is the mean of
    the distributions played, which is what the regret bound is about.

    Args:
        gamma: share of uniform play; also the learning rate gamma / A of the original.
    """

    def __init__(self, gamma: float = 0.05):
        self.gamma = gamma

    def grow(self, rows: int, actions: int) -> None:
        self.log = np.zeros((rows, actions))
        self.total = np.zeros((rows, actions))
        self.low, self.high = np.zeros(rows), np.zeros(rows)

    def probabilities(self, row: np.ndarray) -> np.ndarray:
        weight = np.exp(self.log[row] - self.log[row].max(axis=1, keepdims=True))
        return (1 - self.gamma) * weight / weight.sum(axis=1, keepdims=True) + self.gamma / weight.shape[1]

    def learn(self, row: Any, action: Any, reward: Any, next_row: Any, rivals: Any) -> None:
        chance = self.probabilities(row)
        self.total[row] += chance
        self.low[row], self.high[row] = np.minimum(self.low[row], reward), np.maximum(self.high[row], reward)
        span = np.where(self.high[row] > self.low[row], self.high[row] - self.low[row], 1.0)
        unit = (reward - self.low[row]) / span
        actions = chance.shape[1]
        played = np.take_along_axis(chance, np.asarray(action)[:, None], 1)[:, 0]
        self.log[row, action] += self.gamma * unit / (played * actions)

    def final(self, row: np.ndarray) -> np.ndarray:
        total = self.total[row]
        known = total.sum(axis=1, keepdims=True) > 0
        mean = total / np.where(known, total.sum(axis=1, keepdims=True), 1.0)
        return np.where(known, mean, 1.0 / total.shape[1])


class RegretMatching(Rule):
    """Play in proportion to positive regrets, estimated from own rewards; the frozen policy is the mean play.

    Args:
        explore_share: uniform share, which keeps the estimates finite.
    """

    def __init__(self, explore_share: float = 0.05):
        self.explore_share = explore_share

    def grow(self, rows: int, actions: int) -> None:
        self.regret = np.zeros((rows, actions))
        self.total = np.zeros((rows, actions))

    def probabilities(self, row: np.ndarray) -> np.ndarray:
        positive = np.maximum(self.regret[row], 0.0)
        mass = positive.sum(axis=1, keepdims=True)
        play = np.where(mass > 0, positive / np.where(mass > 0, mass, 1.0), 1.0 / positive.shape[1])
        return (1 - self.explore_share) * play + self.explore_share / positive.shape[1]

    def learn(self, row: Any, action: Any, reward: Any, next_row: Any, rivals: Any) -> None:
        chance = self.probabilities(row)
        self.total[row] += chance
        played = np.take_along_axis(chance, np.asarray(action)[:, None], 1)[:, 0]
        self.regret[row] -= np.asarray(reward)[:, None]
        self.regret[row, action] += reward / played

    def final(self, row: np.ndarray) -> np.ndarray:
        total = self.total[row]
        known = total.sum(axis=1, keepdims=True) > 0
        mean = total / np.where(known, total.sum(axis=1, keepdims=True), 1.0)
        return np.where(known, mean, 1.0 / total.shape[1])


def train_exp3(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, **constants: Any
) -> list[Policies]:
    """Exp3 for all roles, one run per seed."""
    return train_tabular(lambda: Exp3(**constants), task, seeds, budget, report)


def train_matching(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, **constants: Any
) -> list[Policies]:
    """Bandit regret matching for all roles, one run per seed."""
    return train_tabular(lambda: RegretMatching(**constants), task, seeds, budget, report)


ALGORITHMS = (
    Algorithm(
        "exp3",
        train_many=train_exp3,
        title="Exp3",
        citation="P. Auer, N. Cesa-Bianchi, Y. Freund, R. Schapire, SIAM J. Computing 32 (2002)",
        stochastic=True,
        markets=(_spectrum.ID,),
        can_play=playable,
    ),
    Algorithm(
        "regret_matching",
        train_many=train_matching,
        title="Regret matching (bandit)",
        citation="S. Hart, A. Mas-Colell, A reinforcement procedure leading to correlated equilibrium (2001)",
        stochastic=True,
        markets=(_spectrum.ID,),
        can_play=playable,
    ),
)
