"""Many markets in blocks that fit the cache: a million markets at the speed of a thousand, and in little memory.

A round of one large batch walks through memory once for every operation; a round in blocks keeps each block in the cache from its first
observation to its settlement, and never holds the observations of all markets at once. Market i draws what it would draw in one batch,
so the numbers are the same, bit for bit::

    blocks = Blocks(marketenvs.make("AIBazaar-v0"), 1_000_000)
    blocks.reset(seed=0)
    outcome = blocks.step({"pricing": price, "purchase": amounts})                     # (B, n, k), as for market.step
    outcome = blocks.step(lambda stage, seen, rows: policies[stage.role].act(seen))    # decided block by block
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .arrays import Array
from .errors import InvalidParameter, ResetNeeded
from .market import Market, Outcome, Stage, State, tree_map
from .params import batch_of

Decide = Callable[[Stage, Array, slice], Any]
"""Decisions (b, n, k) of a stage from its observations (b, n, d), for the markets ``rows`` of the whole."""
_NUMBERS = 1 << 20
"""Numbers that a block should write in a round, 8 MiB of float64: at this size NumPy's cost per call is small, and what one operation
writes is still in the cache when the next one reads it (measured: docs/throughput.md)."""


def block_size(market: Market) -> int:
    """Markets per block: a power of two, from the numbers that one market observes, draws and settles in a round."""
    seen = sum(market.roles[s.role] * (s.observation_space.shape[0] + 4 * s.codec.width) for s in market.stages)
    drawn = sum(4 * math.prod(noise.shape) for noise in market.noise_fields().values())
    return 1 << max(4, int(math.log2(max(1.0, _NUMBERS / (seen + drawn)))))


class Blocks:
    """B markets, stepped block by block.

    Args:
        market: The market.
        batch: Number of markets B.
        size: Markets per block; None for :func:`block_size`.

    Attributes:
        states: One begun state per block.
        rows: Which markets each block holds.

    Raises:
        InvalidParameter: No positive number, or the market's parameters are given for another number of markets.
    """

    def __init__(self, market: Market, batch: int, size: int | None = None):
        size = block_size(market) if size is None else size
        for name, value in (("batch", batch), ("size", size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidParameter(f"{name} must be a positive integer, got {value!r}")
        fixed = batch_of(market.params)
        if fixed not in (1, batch):
            raise InvalidParameter(f"the parameters are given for {fixed} markets, but the batch is {batch}")
        self.market, self.batch, self.size = market, batch, min(size, batch)
        self.rows = [slice(first, min(first + self.size, batch)) for first in range(0, batch, self.size)]
        self.states: list[State] = []

    def reset(self, seed: int = 0, split: str = "train") -> None:
        """New episodes: block by block what ``market.reset(seed, batch, split)`` gives."""
        market = self.market
        if batch_of(market.params) > 1:  # parameters per market: there is no smaller reset
            whole = market.reset(seed, self.batch, split)
            self.states = [_cut(whole, rows, self.batch) for rows in self.rows]
        else:
            self.states = [market.reset(seed, r.stop - r.start, split, first=r.start) for r in self.rows]

    def step(self, decide: Mapping[str, Any] | Decide) -> Outcome:
        """Play one round of all markets.

        Args:
            decide: Stage (or role) -> decisions of all markets, as for ``market.step``; or a function that is shown every block's
                observations and decides for it.

        Returns:
            Payoffs and metrics of all markets.

        Raises:
            ResetNeeded: Before the first reset.
            InvalidAction: As ``market.step``.
        """
        if not self.states:
            raise ResetNeeded("call reset() first")
        market = self.market
        given = None if callable(decide) else {market.stage(k).name: v for k, v in decide.items()}
        kept: Any = None
        parts: list[Outcome] = []
        for i, (rows, state) in enumerate(zip(self.rows, self.states, strict=True)):
            if given is not None:
                state, outcome = market.step(state, {k: _part(v, rows, self.batch) for k, v in given.items()})
            else:
                assert callable(decide)
                raw = {}
                for stage in market.stages:
                    chosen = decide(stage, market.observe(state, stage.name), rows)
                    raw[stage.name] = market.check_decisions(state, stage.name, chosen)
                    state = market.commit(state, stage.name, raw[stage.name])
                state, outcome = market.conclude(state, raw)
            self.states[i] = state
            if market.backend.name == "numpy":
                if kept is None:
                    kept = tree_map(self._room, outcome)
                _each(lambda whole, part, at=rows: whole.__setitem__(at, part), kept, outcome)
            else:
                parts.append(outcome)
        if kept is not None:
            return kept
        return _joined(market.xp, parts)

    def _room(self, part: Array) -> Array:
        return self.market.xp.empty((self.batch, *part.shape[1:]), dtype=part.dtype)


def _cut(state: State, rows: slice, batch: int) -> State:
    """The markets ``rows`` of a state; parameters that all markets share stay shared."""
    return tree_map(lambda a: a if a.shape[0] == 1 and batch > 1 else a[rows, ...], state)


def _part(value: Any, rows: slice, batch: int) -> Any:
    """A block's decisions; what is given once for all markets stays as it is."""
    shape: tuple[int, ...] = tuple(getattr(value, "shape", ()))
    return value[rows] if len(shape) >= 2 and shape[0] == batch else value


def _each(function: Any, a: Any, b: Any) -> None:
    """Call a function on the arrays of two equal outcomes."""
    for x, y in zip(a, b, strict=True):
        for name in x:
            function(x[name], y[name])


def _joined(xp: Any, parts: list[Outcome]) -> Outcome:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Outcome(
        {k: xp.concat([p.payoffs[k] for p in parts], axis=0) for k in first.payoffs},
        {k: xp.concat([p.metrics[k] for p in parts], axis=0) for k in first.metrics},
    )
