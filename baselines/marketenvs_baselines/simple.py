"""Algorithms that do not learn: random, the equilibrium itself, and the myopic best response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from marketenvs.policy import EquilibriumPolicy, Myopic, Uniform

from .registry import Algorithm
from .run import Policies, Report


def _same(make: Callable[[], Any]) -> Callable[[Any, Sequence[int], int, Report | None], list[Policies]]:
    def train_many(task: Any, seeds: Sequence[int], budget: int, report: Report | None = None) -> list[Policies]:
        roles = task.make_market().roles
        return [{role: make() for role in roles} for _ in seeds]

    return train_many


ALGORITHMS = (
    Algorithm("random", train_many=_same(Uniform), title="Random (uniform)", stochastic=True, quick_budget=0),
    Algorithm(
        "equilibrium",
        train_many=_same(EquilibriumPolicy),
        title="Equilibrium",
        access="oracle",
        quick_budget=0,
    ),
    Algorithm(
        "myopic",
        train_many=_same(Myopic),
        title="Myopic best response",
        access="model",
        quick_budget=0,
        citation="Cournot, A. (1838). Recherches sur les principes mathématiques de la théorie des richesses.",
    ),
)
