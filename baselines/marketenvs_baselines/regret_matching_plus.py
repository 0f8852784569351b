"""Regret matching plus: stateless self-play of two sellers on a price grid, followers answering exactly (a control).

It knows the market's rules (model access) and sees no observation: both sellers keep one mixture over the price levels and
learn from the expected profit of every level against the other's mixture. Played is the linearly weighted average, which is
where the guarantee lies: a coarse correlated equilibrium, not Nash, so a gap remains in the mixed regime.

S. Hart, A. Mas-Colell, A simple adaptive procedure leading to correlated equilibrium, Econometrica 2000; O. Tammelin, Solving
large imperfect information games using CFR+, 2014.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marketenvs.market import Market, Stage, State
from marketenvs.policy import EquilibriumPolicy, Policy
from marketenvs.strategy import Samples, Strategy

from . import snapshot
from .arrangement import in_segments, part_of
from .registry import Algorithm
from .run import Policies, Report, ticks

LEVELS = 100
"""Price levels where the market's prices are continuous."""


class FixedMixture(Policy):
    """One fixed distribution over levels per agent, whatever is seen.

    Args:
        levels: decisions (S,), natural units.
        chance: probabilities (S, n).
    """

    stochastic = True

    def __init__(self, levels: np.ndarray, chance: np.ndarray):
        self.levels, self.chance = np.asarray(levels, float), np.asarray(chance, float)

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.rng = np.random.default_rng(seed)

    def strategy(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State, draws: int) -> Strategy:
        """The mixture itself: scored exactly."""
        batch, n = obs.shape[:2]
        values = np.broadcast_to(self.levels[:, None, None, None], (self.levels.size, 1, n, 1))
        return Samples(values, np.broadcast_to(self.chance[:, None, :], (self.levels.size, batch, n)))

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        return self.strategy(stage, obs, mask, state, 1).draw(self.rng.uniform(size=obs.shape[:2]))

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON and arrays, for ``store.save_policy``."""
        return {}, {"levels": self.levels, "chance": self.chance}

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> FixedMixture:
        """The inverse of :meth:`export`."""
        return cls(arrays["levels"], arrays["chance"])


class _Tables:
    """What the runs have learned: regrets and weighted sums of their mixtures, (runs, sellers, levels)."""

    def __init__(self, regret: np.ndarray):
        self.regret, self.total = regret, np.zeros_like(regret)


def train_many(task: Any, seeds: Sequence[int], budget: int, report: Report | None = None) -> list[Policies]:
    """Self-play from a random start per seed; one step of both sellers is one round."""
    from marketenvs.markets.coalition_trading.price_stage import payoff_matrices
    from marketenvs.markets.coalition_trading.view import units_of, view

    market = task.make_market()
    state = market.reset(0)
    v = view(market, state)
    count = market.params.price_levels or LEVELS
    levels = v.low[:, None] + (v.high - v.low)[:, None] * np.arange(count) / (count - 1)
    first, second = (x[0] for x in payoff_matrices(market, v, levels, units_of(market, state, v)))
    rng = [np.random.default_rng(int(s)) for s in seeds]
    tables = _Tables(np.stack([g.random((2, count)) for g in rng]))
    marks = ticks(budget) if report is not None else frozenset()

    def now() -> list[Policies]:
        mean = tables.total / tables.total.sum(axis=2, keepdims=True)
        return [{"seller": FixedMixture(levels[0], m.T), "buyer": EquilibriumPolicy()} for m in mean]

    def steps(begin: int, end: int) -> None:
        for step in range(begin + 1, end + 1):
            regret = tables.regret
            mass = regret.sum(axis=2, keepdims=True)
            chance = np.where(mass > 0, regret / np.where(mass > 0, mass, 1.0), 1.0 / count)
            tables.total += step * chance
            worth = np.stack([chance[:, 1] @ first.T, chance[:, 0] @ second], axis=1)
            tables.regret = np.maximum(regret + worth - np.sum(worth * chance, axis=2, keepdims=True), 0.0)
            if step in marks and report is not None:
                report(step, now, {"profit": np.sum(worth * chance, axis=2).mean(axis=1)})

    about = {"market": market.id, "seeds": [int(s) for s in seeds]}
    in_segments(budget, part_of(budget), about, steps, *snapshot.keeper(tables))
    return now()


def playable(market: Market) -> str | None:
    """Why regret matching cannot play a market; None if it can."""
    if market.id != "CoalitionTrading-v0":
        return "regret matching here plays CoalitionTrading-v0 (two sellers on a price grid)"
    p: Any = market.params
    if p.n_sellers != 2 or p.selection != "winner" or p.formation in ("labels", "merge") or p.model == "paper":
        return "regret matching plays two sellers who serve one known coalition"
    state = market.reset(0, batch=2)
    if p.channel != "frozen" or state.theta.ready.choke.shape[0] > 1:
        return "regret matching keeps one mixture: it plays known markets, not drawn ones"
    return None


ALGORITHM = Algorithm(
    "regret_matching_plus",
    train_many=train_many,
    title="Regret matching plus (self-play on the payoff matrix)",
    citation="Hart, Mas-Colell, Econometrica 2000; Tammelin 2014",
    quick_budget=20_000,
    access="oracle",
    stochastic=True,
    can_play=playable,
)
