"""What an agent plays: a point, a mixture, a sampler, or a map from what it sees.

Equilibria of these markets are often mixed, and so are learners. A profile therefore maps a stage (or a role, where a role has one
stage) to a :class:`Strategy`; arrays are read as :class:`Pure`. Mixing is independent across agents, unless a market says otherwise.
All arrays here are NumPy float64: strategies belong to the solver side of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .arrays import to_numpy
from .errors import InvalidAction, UnknownName, nearest


class Strategy:
    """Base of all strategies of the agents that act at one stage."""

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        """Decisions (B, n, k) from uniforms (B, n) or (B, n, d): one independent draw for each agent."""
        raise NotImplementedError


@dataclass(frozen=True)
class Pure(Strategy):
    """One decision for each agent: ``decisions`` (B, n, k) in natural units."""

    decisions: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "decisions", np.asarray(to_numpy(self.decisions), dtype=np.float64))

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        return self.decisions


@dataclass(frozen=True)
class Samples(Strategy):
    """A finite mixture: agent i plays ``values[s, b, i]`` with probability ``weights[s, b, i]``, independently of the others.

    Args:
        values: (S, B, n, k) decisions in natural units (B or n may be 1).
        weights: (S,) or (S, B, n), non-negative, summing to 1 over S. Default: equal.
        joint: Whether the S rows are already independent joint draws of all agents (what a sampled policy gives), so that row s may be
            paired with row s; then weights are equal.
    """

    values: np.ndarray
    weights: np.ndarray | None = None
    joint: bool = False

    def __post_init__(self) -> None:
        values = np.asarray(to_numpy(self.values), dtype=np.float64)
        if values.ndim != 4 or not np.all(np.isfinite(values)):
            raise InvalidAction(f"Samples.values must be finite with shape (S, B, n, k), got shape {values.shape}")
        size = values.shape[0]
        weights = (
            np.full(size, 1.0 / size) if self.weights is None else np.asarray(to_numpy(self.weights), dtype=np.float64)
        )
        if weights.ndim == 1:
            weights = weights[:, None, None]
        if weights.ndim != 3 or weights.shape[0] != size or not np.all(weights >= 0):
            raise InvalidAction(
                f"Samples.weights must be non-negative with shape ({size},) or ({size}, B, n), got {weights.shape}"
            )
        total = weights.sum(axis=0)
        if np.any(np.abs(total - 1) > 1e-9):
            raise InvalidAction(
                f"Samples.weights must sum to 1 over the first axis, got sums in [{total.min()}, {total.max()}]"
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "weights", weights)

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        u = uniforms if uniforms.ndim == 2 else uniforms[..., 0]
        assert self.weights is not None
        cumulative = np.cumsum(self.weights, axis=0)
        batch, n = np.broadcast_shapes(u.shape, self.values.shape[1:3])
        cumulative = np.broadcast_to(cumulative, (len(cumulative), batch, n))
        index = np.minimum((cumulative < u).sum(axis=0), len(cumulative) - 1)
        values = np.broadcast_to(self.values, (self.values.shape[0], batch, n, self.values.shape[3]))
        return np.take_along_axis(values, index[None, :, :, None], axis=0)[0]


@dataclass(frozen=True)
class Sampler(Strategy):
    """A distribution given by its inverse: ``sample(u)`` maps uniforms (B, n) to decisions (B, n, k); ``cdf`` if it is known."""

    sample: Callable[[np.ndarray], np.ndarray]
    cdf: Callable[[np.ndarray], np.ndarray] | None = None

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        return np.asarray(self.sample(uniforms if uniforms.ndim == 2 else uniforms[..., 0]), dtype=np.float64)


@dataclass(frozen=True)
class Reply(Strategy):
    """A map from what earlier stages did: ``answer(state)`` gives the strategy at a state in which those stages are committed."""

    answer: Callable[[Any], Strategy]

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        raise InvalidAction(
            "a Reply is a map; resolve it with answer(state) at a state in which the earlier stages are committed"
        )


class ByStage(Mapping[str, Any]):
    """A read-only mapping keyed by stage name that also answers to a role's name where that role has one stage."""

    def __init__(self, items: Mapping[str, Any], aliases: Mapping[str, str]):
        self._items = dict(items)
        self._aliases = {role: stage for role, stage in aliases.items() if stage in self._items}

    def __getitem__(self, key: str) -> Any:
        key = key if key in self._items else self._aliases.get(key, key)
        if key not in self._items:
            raise UnknownName(f"no stage or single-stage role {key!r}; {nearest(key, [*self._items, *self._aliases])}")
        return self._items[key]

    def get(self, key: str, default: Any = None) -> Any:  # type: ignore[override]
        try:
            return self[key]
        except UnknownName:
            return default

    def __contains__(self, key: object) -> bool:
        return key in self._items or key in self._aliases

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"ByStage({self._items!r})"


@dataclass(frozen=True)
class Equilibrium:
    """An equilibrium of every market of a batch, with its certificate.

    Attributes:
        strategy: Stage -> ``Strategy``; the truth. A follower's is usually a ``Reply``.
        values: Role -> expected payoffs (B, n).
        epsilon: (B,) largest gain any agent can make by deviating alone (an upper bound, unless ``kind`` is "estimate").
        certified: (B,) whether epsilon is small enough to call this an equilibrium (DESIGN: "Strategies and equilibria").
        kind: "exact", "bound" or "estimate".
        method: How it was computed.
        citation: Where the method or formula comes from.
        exists: (B,) False where no equilibrium exists; then the least-NashConv profile found is given.
        selection: Which one, if there are several.
        alternatives: Other equilibria found, as {stage: array} per entry.
        on_path: Stage -> decisions (B, n, k) on the equilibrium path, where they are pure; None for a mixed stage.
    """

    strategy: ByStage
    values: Mapping[str, np.ndarray]
    epsilon: np.ndarray
    certified: np.ndarray
    kind: str
    method: str
    citation: str
    exists: np.ndarray
    selection: str = "unique"
    alternatives: tuple = ()
    on_path: ByStage = field(default_factory=lambda: ByStage({}, {}))

    @property
    def actions(self) -> ByStage:
        """Stage (or single-stage role) -> decisions (B, n, k) on the equilibrium path.

        Raises:
            InvalidAction: Some stage is mixed; use ``strategy``.
        """
        mixed = [stage for stage in self.strategy if self.on_path._items.get(stage) is None]
        if mixed:
            raise InvalidAction(
                f"the equilibrium is mixed at stage(s) {', '.join(mixed)}: use eq.strategy, not eq.actions"
            )
        return self.on_path


@dataclass(frozen=True)
class BestResponse:
    """Each agent's best deviation, alone, at one stage.

    Attributes:
        decisions: (B, n, k); row i is what agent i would play, all others held fixed.
        values: (B, n) what it would then earn (later stages re-answer).
        gains: (B, n) values minus what the played decision earns under the same convention; never negative.
        upper: (B, n) a proven upper bound of the gain (equal to ``gains`` where exact, inf where only searched).
        kind: "exact", "bound" or "estimate".
        method: How it was found.
    """

    decisions: np.ndarray
    values: np.ndarray
    gains: np.ndarray
    upper: np.ndarray
    kind: str
    method: str


@dataclass(frozen=True)
class NashConv:
    """Sum over agents and stages of the gains from unilateral deviation, as an interval.

    Attributes:
        lower: (B,) sum of gains found.
        upper: (B,) sum of proven upper bounds (inf where only a search was made).
        gains: Role -> (B, n) gains, summed over the role's stages.
        kind: "exact", "bound" or "estimate": the weakest of the stages.
        method: Per stage, how.
    """

    lower: np.ndarray
    upper: np.ndarray
    gains: Mapping[str, np.ndarray]
    kind: str
    method: str


@dataclass(frozen=True)
class SocialOptimum:
    """The welfare-maximising profile of every market.

    Attributes:
        value: (B,) welfare at the optimum, in the market's headline welfare.
        decisions: Stage -> (B, n, k), or None where only the value is known.
        kind: "exact", "bound" or "estimate".
        method: How it was computed.
        extra: Other optima the market documents (for instance under another welfare).
    """

    value: np.ndarray
    decisions: ByStage | None
    kind: str
    method: str
    extra: Mapping[str, Any] = field(default_factory=dict)
