"""PB-MARL: WoLF policy hill climbing for every agent (Algorithm 1 of the AI-Bazaar paper).

Each agent keeps Q(s, a), a current policy pi(s, .) and its running average. It moves pi towards the greedy action,
slowly
(``win_rate``) while pi does better than the average policy and fast (``lose_rate``) otherwise. The paper gives the
provider's
constants; consumers use the same.

The paper's provider reads the vector of all last purchases, 10^10 situations. ``leader_state="bins"`` reads total
demand in ten
bins; "none" reads nothing (strategically enough, the rounds are independent); "exact" is the literal state, met vectors
in a dictionary.

M. Bowling, M. Veloso, "Multiagent learning using a variable learning rate", Artificial Intelligence 136 (2002).
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
class WolfPHC(Rule):
    """The update of one situation.

    Args:
        learning_rate: alpha of the paper, step of Q.
        discount: gamma of the paper.
        win_rate: delta_win, step of the policy while winning.
        lose_rate: delta_lose, otherwise. Equal rates give plain policy hill climbing.
        explore: Probability of a uniform action (the paper has none).
    """

    learning_rate: float = 0.8
    discount: float = 0.1
    win_rate: float = 0.0025
    lose_rate: float = 0.01
    explore: float = 0.0

    def grow(self, rows: int, actions: int) -> None:
        self.q = np.zeros((rows, actions))
        self.pi = np.full((rows, actions), 1.0 / actions)
        self.average = np.full((rows, actions), 1.0 / actions)
        self.visits = np.zeros(rows)

    def probabilities(self, row: np.ndarray) -> np.ndarray:
        return self.pi[row]

    def learn(self, row: np.ndarray, action: np.ndarray, reward: np.ndarray, next_row: np.ndarray, rivals: Any) -> None:
        target = reward + self.discount * self.q[next_row].max(axis=1)
        self.q[row, action] += self.learning_rate * (target - self.q[row, action])
        value, pi = self.q[row], self.pi[row]
        self.visits[row] += 1
        average = self.average[row] + (pi - self.average[row]) / self.visits[row][:, None]
        winning = (pi * value).sum(axis=1) >= (average * value).sum(axis=1)
        rate = np.where(winning, self.win_rate, self.lose_rate)
        self.average[row] = average
        self.pi[row] = hill_climb(pi, value.argmax(axis=1), rate)


def hill_climb(pi: np.ndarray, greedy: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Every non-greedy action loses min(pi, rate / (A - 1)); the greedy one gains what they lose."""
    rows, actions = np.arange(len(pi)), pi.shape[1]
    loss = np.minimum(pi, rate[:, None] / (actions - 1))
    loss[rows, greedy] = 0.0
    pi = pi - loss
    pi[rows, greedy] += loss.sum(axis=1)
    return pi


def train_many(
    task: Any,
    seeds: Sequence[int],
    budget: int,
    report: Report | None = None,
    leader_state: str = "bins",
    **constants: Any,
) -> list[Policies]:
    """PB-MARL for all roles, one run per seed; ``constants`` are those of :class:`WolfPHC`."""
    return train_tabular(rule_maker(WolfPHC, constants), task, seeds, budget, report, leader_state=leader_state)


ALGORITHM = Algorithm(
    "pb_marl",
    train_many=train_many,
    title="PB-MARL (WoLF-PHC)",
    citation="X. Ren et al., AI-Bazaar, Algorithm 1; M. Bowling, M. Veloso, Artificial Intelligence 136 (2002)",
    quick_budget=20_000,
    stochastic=True,
    can_play=playable,
)
