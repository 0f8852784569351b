"""The limit of the machine: hand-fused kernels of the same arithmetic, and the time of only drawing a round's random numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

import marketenvs
from marketenvs.arrays import to_numpy
from marketenvs.market import _ROUND

from .throughput_measure import Contender, Run
from .throughput_ours import decisions_per_round, describe, full_step, play, settings, users_of

KERNELS = ("AIBazaar-v0", "TwoTierBidding-v0")
CHECKED_ROUNDS = 5


def check_equal(id: str, setting: Mapping[str, Any], dtype: str, batch: int = 64) -> None:
    """That the fused kernel gives what the rules give, over several rounds.

    Raises:
        RuntimeError: It does not; the message names the first quantity that differs.
    """
    from .fused import FUSED

    market = marketenvs.make(id, dtype=dtype, **setting)
    state = market.reset(seed=1, batch=batch)
    kernel = FUSED[id](market, state)
    rng = np.random.default_rng(1)
    tolerance = 1e-9 if dtype == "float64" else 2e-4
    for _ in range(CHECKED_ROUNDS):
        decisions = {k: v.astype(dtype) for k, v in play(market, state, rng).items()}
        state, (seen, payoffs, metrics, done) = full_step(market, state, decisions)
        kernel.step(decisions)
        want = {f"seen {s.name}": o for s, o in zip(market.stages, seen, strict=True)}
        want |= {**payoffs, **metrics, "done": done}
        have = kernel.results()
        for name, value in want.items():
            if name not in have:
                raise RuntimeError(f"the fused kernel of {id} lacks {name!r}, which the rules give")
            value = np.asarray(to_numpy(value), dtype=np.float64)
            got = np.asarray(have[name], dtype=np.float64)
            scale = max(1.0, float(np.abs(value).max()))
            if got.shape != value.shape or not np.allclose(got, value, rtol=tolerance, atol=tolerance * scale):
                raise RuntimeError(f"the fused kernel of {id} does not compute {name!r} as the rules do")


def fused(id: str, setting: Mapping[str, Any], dtype: str, batch: int) -> Contender:
    """A hand-fused kernel as a contender; it is checked against the rules before it is timed."""
    market = marketenvs.make(id, **setting)

    def build() -> Run:
        from .fused import FUSED

        check_equal(id, setting, dtype)
        own = marketenvs.make(id, dtype=dtype, **setting)
        state = own.reset(seed=0, batch=batch)
        rng = np.random.default_rng(0)
        plays = [{k: v.astype(dtype) for k, v in play(own, state, rng).items()} for _ in range(4)]
        kernel, cycle = FUSED[id](own, state), itertools.cycle(plays)

        def run(calls: int) -> None:
            for _ in range(calls):
                kernel.step(next(cycle))

        return run

    return Contender(
        f"{id} fused numba {dtype} B={batch}", "limit", id, "fused kernel", f"numba {dtype}", batch, batch,
        decisions_per_round(market), build, users_of(market), describe(setting),
    )  # fmt: skip


def noise(id: str, setting: Mapping[str, Any], batch: int) -> Contender:
    """Only drawing a round's random numbers (NumPy float64)."""
    market = marketenvs.make(id, **setting)

    def build() -> Run:
        backend, fields = market.backend, market.noise_fields()
        if not fields:
            raise ValueError("this market draws nothing in a round")
        state = market.reset(seed=0, batch=batch)

        def run(calls: int) -> None:
            for _ in range(calls):
                backend.draw(backend.fold(state.seed, state.round, _ROUND), fields)

        return run

    return Contender(
        f"{id} random numbers only B={batch}", "limit", id, "random numbers only", "numpy float64", batch, batch,
        decisions_per_round(market), build, users_of(market), describe(setting),
    )  # fmt: skip


def contenders(id: str, batches: tuple[int, ...]) -> list[Contender]:
    """The limits of one market, in its main setting."""
    main, *_ = settings(id)
    out = []
    if id in KERNELS:
        out += [fused(id, main, dtype, b) for dtype in ("float64", "float32") for b in batches]
    if marketenvs.make(id, **main).noise_fields():
        out += [noise(id, main, b) for b in batches]
    return out
