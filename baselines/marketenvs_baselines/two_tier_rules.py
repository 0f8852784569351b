"""Hand-written rules for two-tier bidding: hard slicing, capped bids, and table A with the dynamic program.

``hard_slicing``: equal bids, equal split (the comparison that the paper's conclusion cites but does not show).
``cap_bids``: everybody bids its cap, what eq. (4) rewards. ``table_dp``: bids in proportion to the division of blocks
that maximises the sum of utilities (or of values, without a lower tier), splits from table A; it knows the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy

from .registry import Algorithm
from .run import Policies, Report

_MARKET = ("TwoTierBidding-v0",)


class _Rule(Policy):
    """Bids (B, M) from the state, then splits."""

    def bids(self, state: State, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def splits(self, state: State, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage.name))
        shape = (*obs.shape[:2], stage.codec.width)
        low, high = np.broadcast_to(low, shape), np.broadcast_to(high, shape)
        if stage.name != "bidding":
            return self.splits(state, low, high)
        flat = [b.reshape(len(b), -1) for b in (low, high)]
        return self.bids(state, *flat).reshape(shape)

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Nothing to keep."""
        return {}, {}

    @classmethod
    def restore(cls, config: Any, arrays: Any) -> Any:
        """The inverse of :meth:`export`."""
        return cls()


class HardSlicing(_Rule):
    """The same bid for everybody (the largest that all may make), the same number of blocks for every service."""

    def bids(self, state: State, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return np.clip(high.min(-1, keepdims=True), low, high)

    def splits(self, state: State, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        market: Any = self.market
        if market.params.split == "simplex":
            return np.ones_like(low)
        _, blocks = market.allocate(state, market.bids(state.decisions))
        n = market.backend.numpy(blocks)
        first = np.ceil(n / 3)
        return np.stack([first, np.ceil((n - first) / 2)], -1)


class CapBids(HardSlicing):
    """Everybody bids its cap; equal split."""

    def bids(self, state: State, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return high


class TableDP(_Rule):
    """Bids in proportion to the best division of the band, splits from table A."""

    access = "model"

    def bids(self, state: State, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        market: Any = self.market
        clean = state._replace(decisions={})
        if market.params.lower == "ideal":
            wanted = market.social_optimum(clean).extra["bandwidth"]
        else:
            wanted = np.asarray(market.analysis(clean)["best_division"][0], float)
        wanted = np.broadcast_to(wanted, low.shape)
        with np.errstate(divide="ignore"):  # the largest scale at which nobody exceeds its cap
            scale = np.where(wanted > 0, high / np.where(wanted > 0, wanted, 1.0), np.inf).min(-1, keepdims=True)
        return np.clip(wanted * scale, low, high)

    def splits(self, state: State, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        earlier = {name: self.market.backend.numpy(value) for name, value in state.decisions.items()}
        answer = self.market.respond(state._replace(decisions={}), earlier)
        return answer.actions["slicing"]


def _trainer(cls: type[_Rule]) -> Any:
    def train(task: Any, seeds: Sequence[int], budget: int, report: Report | None = None) -> list[Policies]:
        roles = task.make_market().roles
        return [{role: cls() for role in roles} for _ in seeds]

    return train


def _plain(market: Market) -> str | None:
    return "an infrastructure agent is not played by rules" if "infrastructure" in market.roles else None


ALGORITHMS = tuple(
    Algorithm(
        name,
        train_many=_trainer(cls),
        title=title,
        quick_budget=1,
        access=cls.access,
        markets=_MARKET,
        can_play=_plain,
    )
    for name, cls, title in (
        ("hard_slicing", HardSlicing, "Hard slicing"),
        ("cap_bids", CapBids, "Capped bids"),
        ("table_dp", TableDP, "Table A + DP"),
    )
)
