"""Where a round's time goes: the parts of one step of the NumPy core, timed one by one on the same state."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import marketenvs
from marketenvs.market import _ROUND

from .throughput_ours import describe, play


def parts(id: str, setting: Mapping[str, Any], batch: int, seconds: float = 0.05) -> dict[str, Any]:
    """CPU microseconds per round of every part.

    Args:
        id: The market.
        setting: Parameters beside the preset's.
        batch: Markets side by side.
        seconds: Time per part.

    Returns:
        The market, its setting and batch, and part -> microseconds per round of the whole batch.
    """
    market = marketenvs.make(id, **setting)
    state = market.reset(seed=0, batch=batch)
    decisions = play(market, state, np.random.default_rng(0))
    out: dict[str, float] = {}
    begun = state
    for stage in market.stages:
        out[f"observe {stage.name}"] = _time(lambda s=state, n=stage.name: market.observe(s, n), seconds)  # type: ignore[misc]
        out[f"commit {stage.name}"] = _time(
            lambda s=state, n=stage.name: market.commit(s, n, decisions[n]),  # type: ignore[misc]
            seconds,
        )
        state = market.commit(state, stage.name, decisions[stage.name])
    outcome = market.settle(state, state.decisions)
    out["settle and metrics"] = _time(lambda: market.settle(state, state.decisions), seconds)
    out["count clipped"] = _time(lambda: market._count_clipped(state.decisions, decisions), seconds)
    out["remember"] = _time(lambda: market.remember(state, state.decisions, outcome), seconds)
    fields = market.noise_fields()
    if fields:
        backend = market.backend

        def draw() -> dict[str, Any]:
            return backend.draw(backend.fold(begun.seed, begun.round, _ROUND), fields)

        noise = draw()
        out["draw random numbers"] = _time(draw, seconds)
        out["next round from them"] = _time(lambda: market.begin(begun, noise), seconds)
    return {"market": id, "setting": describe(setting), "batch": batch, "microseconds": out}


def _time(function: Callable[[], Any], seconds: float) -> float:
    """Least CPU microseconds per call of three turns."""
    function()
    calls, spent = 1, 0.0
    while spent < seconds / 4 and calls < 1 << 16:
        calls *= 2
        spent = _turn(function, calls)
    return min(_turn(function, calls) for _ in range(3)) / calls * 1e6


def _turn(function: Callable[[], Any], calls: int) -> float:
    begun = time.process_time()
    for _ in range(calls):
        function()
    return time.process_time() - begun
