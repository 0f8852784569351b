"""Fictitious play and damped best response: best replies to what others did, smoothed so that they do not cycle.

Simultaneous best responses cycle in AI-Bazaar for five or more consumers (the slope of the joint reply is -(N - 2) / 2
at a symmetric
interior equilibrium). Fictitious play answers the mean of everything that the others have done so far; damped best
response moves
its last decision only part of the way. Both know the rules (access "model") and nobody's hidden state.

G. Brown, "Iterative solution of games by fictitious play", 1951; J. Robinson, Annals of Mathematics 54 (1951).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Access, Policy
from marketenvs.solution.search import stage_bounds

from .registry import Algorithm
from .run import Policies, Report


class _Replying(Policy):
    """A best reply to remembered decisions of everybody; at a first move the middle of the range."""

    access: Access = "model"

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.memory: dict[str, np.ndarray] = {}
        self.rounds = 0

    def reply(self, stage: Stage, state: State) -> np.ndarray:
        """(B, n, k) best reply to the remembered decisions and to what earlier stages have just decided."""
        if not self.memory:
            low, high = stage_bounds(self.market, state, stage.name)
            return (low + high) / 2
        now = {name: self.market.backend.numpy(value) for name, value in state.decisions.items()}
        profile = {**self.memory, **now}
        return self.market.best_response(state._replace(decisions={}), stage.name, profile).decisions

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        return self.reply(stage, state)

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Settings only: these policies learn nothing that outlives a market."""
        return {}, {}

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> _Replying:
        """The inverse of :meth:`export`."""
        return cls(**config)


class FictitiousPlay(_Replying):
    """Best reply to the mean of all past rounds."""

    def observe_round(self, public: dict[str, np.ndarray]) -> None:
        """Take a round into the means."""
        self.rounds += 1
        self.memory = {
            name: np.array(now)
            if name not in self.memory
            else self.memory[name] + (now - self.memory[name]) / self.rounds
            for name, now in public.items()
        }


class DampedBestResponse(_Replying):
    """The last decision, moved by ``step`` of the way to the best reply to the last round.

    Args:
        step: Share of the way, in (0, 1]; 1 is the myopic best response.
    """

    def __init__(self, step: float = 0.15):
        if not 0 < step <= 1:
            raise InvalidParameter(f"step must lie in (0, 1], got {step!r}")
        self.step = float(step)

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        reply = self.reply(stage, state)
        last = self.memory.get(stage.name, reply)
        return last + self.step * (reply - last)

    def observe_round(self, public: dict[str, np.ndarray]) -> None:
        """Remember the round."""
        self.memory = {name: np.array(now) for name, now in public.items()}

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {"step": self.step}, {}


def _train(make: Callable[[], Policy]) -> Callable[[Any, Sequence[int], int, Report | None], list[Policies]]:
    def train_many(task: Any, seeds: Sequence[int], budget: int, report: Report | None = None) -> list[Policies]:
        roles = task.make_market().roles
        return [{role: make() for role in roles} for _ in seeds]

    return train_many


ALGORITHMS = (
    Algorithm(
        "fictitious_play",
        train_many=_train(FictitiousPlay),
        title="Fictitious play",
        access="model",
        citation="G. Brown, Iterative solution of games by fictitious play, 1951",
        quick_budget=0,
    ),
    Algorithm(
        "damped_best_response",
        train_many=_train(DampedBestResponse),
        title="Damped best response (15 %)",
        access="model",
        quick_budget=0,
    ),
)
