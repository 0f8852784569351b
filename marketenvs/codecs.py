"""Codecs: between an agent's action space and decisions in natural units.

A codec is static. The market supplies the natural bounds of a stage (they may differ by agent and by market), the codec maps actions to
positions between them. In every shell a continuous decision is a Box(-1, 1) and a grid is Discrete or MultiDiscrete.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces

from .arrays import Array
from .errors import InvalidParameter


def _integer(xp: Any) -> Any:
    """Integer type of actions: 64 bits, but 32 on JAX, which has them only on request."""
    return xp.int32 if xp.__name__.startswith("jax") else xp.int64


class Codec:
    """Base of all codecs. ``width`` is k, the number of natural numbers in one decision; ``discrete`` tells the shells."""

    width: int
    discrete: bool = False

    @property
    def action_space(self) -> spaces.Space:
        """Action space of one agent."""
        raise NotImplementedError

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one agent's action."""
        return tuple(self.action_space.shape or ())

    def decode(self, xp: Any, actions: Array, low: Array, high: Array) -> Array:
        """Actions (B, n, *action_shape) to decisions (B, n, k); low and high broadcast to (B, n, k)."""
        raise NotImplementedError

    def encode(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        """The action whose decision is nearest; the inverse of ``decode`` on decisions it can produce."""
        raise NotImplementedError

    def snap(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        """Decisions moved to the nearest one an action can express (the identity for continuous codecs)."""
        return decisions

    def candidates(self, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
        """All decisions of a discrete codec, shape (A, ..., k) broadcast over low's shape; None if continuous."""
        return None


@dataclass(frozen=True)
class BoxCodec(Codec):
    """Box(-1, 1)^k, affine (or, with ``scale="log"``, geometric) between the natural bounds; actions outside are clipped."""

    width: int = 1
    scale: str = "linear"

    def __post_init__(self) -> None:
        if self.scale not in ("linear", "log"):
            raise InvalidParameter(f"scale must be 'linear' or 'log', got {self.scale!r}")

    @cached_property
    def _space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (self.width,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        return self._space

    def decode(self, xp: Any, actions: Array, low: Array, high: Array) -> Array:
        fraction = (xp.clip(actions, -1.0, 1.0) + 1.0) * 0.5
        if self.scale == "log":
            return low * xp.exp(fraction * xp.log(high / low))
        return low + (high - low) * fraction

    def encode(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        if self.scale == "log":
            span = xp.log(high / low)
            position = xp.log(xp.clip(decisions, low, high) / low)
        else:
            span, position = high - low, decisions - low
        safe = xp.where(span > 0, span, xp.ones_like(span))
        return xp.clip(xp.where(span > 0, 2.0 * position / safe - 1.0, -xp.ones_like(position)), -1.0, 1.0)


@dataclass(frozen=True)
class GridCodec(Codec):
    """Discrete(levels): equally spaced between the natural bounds (or geometrically, with ``scale="log"``), both included."""

    levels: int
    scale: str = "linear"
    width: int = 1
    discrete: bool = True

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise InvalidParameter(f"a grid needs at least 2 levels, got {self.levels}")

    @cached_property
    def _space(self) -> spaces.Discrete:
        return spaces.Discrete(self.levels)

    @property
    def action_space(self) -> spaces.Discrete:
        return self._space

    def decode(self, xp: Any, actions: Array, low: Array, high: Array) -> Array:
        fraction = xp.astype(actions, low.dtype)[..., None] / (self.levels - 1)
        if self.scale == "log":
            return low * xp.exp(fraction * xp.log(high / low))
        return low + (high - low) * fraction

    def encode(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        if self.scale == "log":
            span, position = xp.log(high / low), xp.log(decisions / low)
        else:
            span, position = high - low, decisions - low
        safe = xp.where(span > 0, span, xp.ones_like(span))
        index = xp.round(xp.clip(position / safe, 0.0, 1.0) * (self.levels - 1))
        return xp.astype(index, _integer(xp))[..., 0]

    def snap(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        return self.decode(xp, self.encode(xp, decisions, low, high), low, high)

    def candidates(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        levels = np.arange(self.levels).reshape((-1,) + (1,) * (low.ndim - 1))
        return self.decode(np, levels, low[None], high[None])


@dataclass(frozen=True)
class MultiGridCodec(Codec):
    """MultiDiscrete(levels): one grid for each of the k numbers, equally spaced between the natural bounds."""

    levels: tuple[int, ...]
    discrete: bool = True

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2:
            raise InvalidParameter(f"each grid needs at least 2 levels, got {self.levels}")

    @property
    def width(self) -> int:  # type: ignore[override]
        """Numbers in one decision."""
        return len(self.levels)

    @cached_property
    def _space(self) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete(np.asarray(self.levels))

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        return self._space

    def _steps(self, xp: Any, like: Array) -> Array:
        return xp.asarray([float(n - 1) for n in self.levels], dtype=like.dtype)

    def decode(self, xp: Any, actions: Array, low: Array, high: Array) -> Array:
        return low + (high - low) * (xp.astype(actions, low.dtype) / self._steps(xp, low))

    def encode(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        span = high - low
        safe = xp.where(span > 0, span, xp.ones_like(span))
        fraction = xp.clip((decisions - low) / safe, 0.0, 1.0)
        return xp.astype(xp.round(fraction * self._steps(xp, low)), _integer(xp))

    def snap(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        return self.decode(xp, self.encode(xp, decisions, low, high), low, high)


class TableCodec(Codec):
    """Discrete(A) over the rows of a fixed table of decisions (A, k) in natural units (splits, labels)."""

    discrete = True

    def __init__(self, table: Any):
        self.table = np.asarray(table, dtype=np.float64)
        if self.table.ndim != 2 or not len(self.table):
            raise InvalidParameter(f"a TableCodec needs a table of shape (A, k), got {self.table.shape}")
        self.width = self.table.shape[1]
        self._space: spaces.Discrete = spaces.Discrete(len(self.table))

    @property
    def action_space(self) -> spaces.Discrete:
        return self._space

    def decode(self, xp: Any, actions: Array, low: Array, high: Array) -> Array:
        table = xp.asarray(self.table, dtype=low.dtype)
        flat = xp.reshape(xp.astype(actions, _integer(xp)), (-1,))
        return xp.reshape(xp.take(table, flat, axis=0), (*actions.shape, self.width))

    def encode(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        table = xp.asarray(self.table, dtype=decisions.dtype)
        distance = xp.sum(xp.abs(decisions[..., None, :] - table), axis=-1)
        return xp.argmin(distance, axis=-1)

    def snap(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        return self.decode(xp, self.encode(xp, decisions, low, high), low, high)

    def candidates(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return self.table.reshape((len(self.table),) + (1,) * (low.ndim - 1) + (self.width,))
