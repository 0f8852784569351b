"""MiniMax-Q: every agent plays the maximin mixture of its own Q(s, a, o) against everybody else.

o is what the others did, in ten bins: for a consumer the mean purchase of its rivals, for the provider the mean
purchase (the joint action
itself is exponential). Each update solves one matrix game per agent; all of them are solved at once
(``marketenvs.solution.matrix_games``). The provider reads nothing by default: ten situations only slow it down. Pairs
(a, o) never met count as good as the best value met in that situation: with zeros instead,
the maximin of positive payoffs is 0 for every action and nothing is learnt.

What it converges to is known in AI-Bazaar: a consumer's profit falls in its rivals' purchases and the provider's rises
in every purchase, so
consumers answer the worst case (everybody else buys all they can) and the provider asks ``price_max``. That is the
Stackelberg
equilibrium only where strategies are dominant (preset ``table1``). :func:`maximin_profile` gives it exactly.

M. Littman, "Markov games as a framework for multi-agent reinforcement learning", ICML 1994.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marketenvs.market import Market, State
from marketenvs.solution.matrix_games import solve_matrix_games

from .registry import Algorithm
from .run import Policies, Report
from .tabular import Rule, playable, rule_maker, train_tabular


@dataclass
class MiniMaxQ(Rule):
    """The update of one situation.

    Args:
        learning_rate: alpha.
        discount: gamma.
        explore: Probability of a uniform action while learning.
        bins: Number of bins of what the others did.
    """

    learning_rate: float = 0.8
    discount: float = 0.1
    explore: float = 0.2
    bins: int = 10
    watches_rivals: bool = True

    def grow(self, rows: int, actions: int) -> None:
        self.q = np.zeros((rows, actions, self.bins))
        self.met = np.zeros((rows, actions, self.bins), dtype=bool)
        self.best = np.full(rows, -np.inf)
        self.value = np.zeros(rows)
        self.pi = np.full((rows, actions), 1.0 / actions)

    def probabilities(self, row: np.ndarray) -> np.ndarray:
        return self.pi[row]

    def learn(
        self, row: np.ndarray, action: np.ndarray, reward: np.ndarray, next_row: np.ndarray, rivals: np.ndarray
    ) -> None:
        bin_ = np.clip((rivals * self.bins).astype(np.int64), 0, self.bins - 1)
        target = reward + self.discount * self.value[next_row]
        old = np.where(self.met[row, action, bin_], self.q[row, action, bin_], target)
        self.q[row, action, bin_] = old + self.learning_rate * (target - old)
        self.met[row, action, bin_] = True
        self.best[row] = np.maximum(self.best[row], target)
        games = np.where(self.met[row], self.q[row], self.best[row][:, None, None])
        solved = solve_matrix_games(games)
        self.pi[row], self.value[row] = solved.row, solved.value


def maximin_profile(market: Market, state: State) -> dict[str, np.ndarray]:
    """What MiniMax-Q's fixed point plays in AI-Bazaar: the dearest price, and answers to rivals who all buy the most.

    Returns:
        Stage -> decisions (B, n, 1).
    """
    bounds = {s.name: [market.backend.numpy(b) for b in market.bounds(state, s.name)] for s in market.stages}
    shape = (market.batch(state), market.roles["consumer"], 1)
    most = {name: np.array(high) for name, (_, high) in bounds.items()}
    most = {
        "pricing": np.broadcast_to(most["pricing"], (shape[0], 1, 1)),
        "purchase": np.broadcast_to(most["purchase"], shape),
    }
    reply = market.best_response(state, "purchase", most).decisions
    return {"pricing": most["pricing"], "purchase": reply}


def train_many(
    task: Any,
    seeds: Sequence[int],
    budget: int,
    report: Report | None = None,
    leader_state: str = "none",
    **constants: Any,
) -> list[Policies]:
    """MiniMax-Q for all roles, one run per seed."""
    return train_tabular(rule_maker(MiniMaxQ, constants), task, seeds, budget, report, leader_state=leader_state)


ALGORITHM = Algorithm(
    "minimax_q",
    train_many=train_many,
    title="MiniMax-Q",
    citation="M. Littman, Markov games as a framework for multi-agent reinforcement learning, ICML 1994",
    quick_budget=3_000,
    stochastic=True,
    can_play=playable,
)
