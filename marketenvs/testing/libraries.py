"""Checks that a market's rules give the same numbers on every array library."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from ..arrays import BACKENDS
from ..market import Market, State, tree_map
from . import probe
from .probe import ensure_close

DOUBLE, SINGLE = 1e-8, 2e-3
"""Allowed difference from NumPy float64, relative to max(1, largest value of the array), in float64 and in float32."""
LIBRARIES = tuple(BACKENDS)


def installed(backend: str) -> bool:
    """Whether an array library can be imported."""
    return importlib.util.find_spec({"numpy": "numpy"}.get(backend, backend)) is not None


@contextlib.contextmanager
def _double_precision(backend: str) -> Iterator[None]:
    """JAX computes in float64 only when told to."""
    if backend != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


def _moved(market: Market, tree: Any) -> Any:
    """A NumPy tree as arrays of the market's library, integers kept."""
    xp = market.xp

    def move(leaf: Any) -> Any:
        if leaf.dtype.kind == "f":
            return market.backend.asarray(leaf)
        return (
            xp.asarray(leaf.copy())
            if leaf.dtype.kind != "u" or market.backend.name != "torch"
            else xp.asarray(leaf.astype("int64"))
        )

    return tree_map(move, tree)


def same_numbers(market: Market, backend: str) -> None:
    """Reset, observe, payoff and rounds agree with NumPy in float64; on JAX all of them traced by ``jit``."""
    with _double_precision(backend):
        other = type(market)(market.params, backend=backend, dtype="float64")
        mine = market.reset(7, batch=3)
        if backend == "jax":
            import jax

            theirs: State = jax.jit(other.reset_keys)(_moved(other, mine.seed))
        else:
            theirs = other.reset(7, batch=3)
        ensure_close(theirs, mine, f"{backend}: reset", DOUBLE)
        look, pay, advance = _functions(other)
        for step in range(2):
            profile = probe.random_profile(market, mine, 7 + step)
            arrays, what = _moved(other, profile), f"{backend}, round {step}"
            ensure_close(look(theirs, arrays), probe.observations(market, mine, profile), f"{what}: observe", DOUBLE)
            ensure_close(pay(theirs, arrays), market.payoff(mine, profile), f"{what}: payoff", DOUBLE)
            (mine, ours), (theirs, got) = market.step(mine, profile), advance(theirs, arrays)
            ensure_close(probe.pick(got), probe.pick(ours), f"{what}: outcome", DOUBLE)
            ensure_close(theirs, mine, f"{what}: next state", DOUBLE)


def public_calls(market: Market, backend: str) -> None:
    """The validated calls ``reset``, ``step`` and ``payoff``, given NumPy arrays, agree with NumPy (on JAX: operation by operation)."""
    with _double_precision(backend):
        other = type(market)(market.params, backend=backend, dtype="float64")
        mine, theirs = market.reset(7, batch=2), other.reset(7, batch=2)
        profile = probe.random_profile(market, mine, 7)
        ensure_close(other.payoff(theirs, profile), market.payoff(mine, profile), f"{backend}: payoff", DOUBLE)
        (_, ours), (_, got) = market.step(mine, profile), other.step(theirs, profile)
        ensure_close(probe.pick(got), probe.pick(ours), f"{backend}: step", DOUBLE)


def single_precision(market: Market, backend: str) -> None:
    """One round from the same state and noise agrees with NumPy float64 to what float32 can carry."""
    other = type(market)(market.params, backend=backend, dtype="float32")
    mine = market.reset(7, batch=3)
    theirs = _moved(other, mine)
    profile = probe.random_profile(market, mine, 7)
    look, pay, _ = _functions(other)
    arrays = _moved(other, profile)
    ensure_close(look(theirs, arrays), probe.observations(market, mine, profile), f"{backend} float32: observe", SINGLE)
    payoffs = pay(theirs, arrays)
    for role, value in payoffs.items():
        probe.ensure(
            value.dtype == other.backend.dtype, f"{backend} float32: payoff of {role!r} has type {value.dtype}"
        )
    ensure_close(payoffs, market.payoff(mine, profile), f"{backend} float32: payoff", SINGLE)


def _functions(market: Market) -> tuple[Callable, Callable, Callable]:
    """``observe`` of every stage, expected payoffs and a whole round as functions of (state, decisions); traced on JAX."""

    def look(state: State, decisions: dict[str, Any]) -> dict[str, Any]:
        return probe.observations(market, state, decisions)

    def pay(state: State, decisions: dict[str, Any]) -> dict[str, Any]:
        for stage in market.stages:
            state = market.commit(state, stage.name, decisions[stage.name])
        return market.expected(state, state.decisions)

    if market.backend.name != "jax":
        return look, pay, market.transition
    import jax

    return jax.jit(look), jax.jit(pay), jax.jit(market.transition)


CHECKS: dict[str, Callable[[Market, str], None]] = {
    check.__name__: check for check in (same_numbers, public_calls, single_precision)
}
"""Name -> check of one array library against a NumPy market."""
