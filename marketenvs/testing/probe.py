"""What the conformance checks share: reproducible decisions, walks over states, and comparisons that say where two things differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..arrays import Backend, Noise, to_numpy
from ..errors import NotOffered
from ..market import Market, Outcome, State

_STREAM = 99
MANY = 64
"""Markets with more agents than this are probed at a few agents only."""


def ensure(condition: Any, message: str) -> None:
    """Raise ``AssertionError`` with the message unless the condition holds."""
    if not bool(condition):
        raise AssertionError(message)


def leaves(tree: Any, where: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Every array of a state, outcome or profile with its path, such as ``history.price``."""
    if tree is None:
        return
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{where}.{key}".lstrip("."))
    elif isinstance(tree, tuple):
        names = getattr(tree, "_fields", range(len(tree)))
        for name, value in zip(names, tree, strict=True):
            yield from leaves(value, f"{where}.{name}".lstrip("."))
    else:
        yield where, to_numpy(tree)


def ensure_same(one: Any, other: Any, what: str, index: Any = slice(None), batch: int | None = None) -> None:
    """Raise unless two trees are equal bit for bit.

    Args:
        one: A tree.
        other: A tree; its arrays are taken at ``index`` along the batch axis first.
        what: Beginning of the message.
        index: Markets of ``other`` to compare with.
        batch: Batch size of ``other``: arrays with one row for all markets are then compared as they are.
    """
    a, b = dict(leaves(one)), dict(leaves(other))
    ensure(a.keys() == b.keys(), f"{what}: entries {sorted(a.keys() ^ b.keys())} are only in one of the two")
    for name, left in a.items():
        right = b[name] if batch is not None and b[name].shape[0] != batch else b[name][index]
        ensure(
            left.shape == right.shape, f"{what}: {name} has shape {left.shape} in one and {right.shape} in the other"
        )
        if not np.array_equal(left, right, equal_nan=left.dtype.kind == "f"):
            at = tuple(int(i) for i in np.argwhere(left != right)[0])
            raise AssertionError(f"{what}: {name}{list(at)} is {left[at]!r} in one and {right[at]!r} in the other")


def ensure_close(one: Any, other: Any, what: str, tolerance: float) -> None:
    """Raise unless two trees agree to ``tolerance`` times max(1, largest absolute value) of each array."""
    a, b = dict(leaves(one)), dict(leaves(other))
    ensure(a.keys() == b.keys(), f"{what}: entries {sorted(a.keys() ^ b.keys())} are only in one of the two")
    for name, left in a.items():
        right = b[name]
        ensure(
            left.shape == right.shape, f"{what}: {name} has shape {left.shape} in one and {right.shape} in the other"
        )
        left, right = left.astype(np.float64), right.astype(np.float64)
        finite = np.isfinite(right)
        ensure(np.array_equal(finite, np.isfinite(left)), f"{what}: {name} is not finite at the same places in the two")
        if not finite.any():
            continue
        error = np.where(finite, np.abs(left - np.where(finite, right, 0)), 0.0)
        limit = tolerance * max(1.0, float(np.abs(right[finite]).max()))
        if error.max() > limit:
            at = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
            raise AssertionError(
                f"{what}: {name}{list(at)} is {left[at]!r} in one and {right[at]!r} in the other (allowed: {limit:.1g})"
            )


def uniforms(batch: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Uniform numbers (B, *shape), the same on every machine; row b depends on ``seed`` and b only."""
    backend = Backend("numpy")
    key = backend.keys(np.full(batch, seed, dtype=np.uint64), np.arange(batch), _STREAM)
    return backend.draw(key, {"u": Noise("uniform", shape)})["u"]


def full_bounds(market: Market, state: State, stage: str) -> tuple[np.ndarray, np.ndarray]:
    """Natural bounds of a stage as float64 arrays of the full shape (B, n, k)."""
    spec = market.stage(stage)
    shape = (market.batch(state), market.roles[spec.role], spec.codec.width)
    low, high = (market.backend.numpy(b) for b in market.bounds(state, spec.name))
    return np.broadcast_to(low, shape), np.broadcast_to(high, shape)


def random_actions(market: Market, state: State, stage: str, seed: int) -> np.ndarray:
    """Legal actions (B, n, *action_shape) of the stage's action space, uniform over it."""
    spec = market.stage(stage)
    space: Any = spec.codec.action_space
    n = market.roles[spec.role]
    batch = market.batch(state)
    u = uniforms(batch, (n, max(1, int(np.prod(spec.codec.action_shape)))), seed)
    if not spec.codec.discrete:
        return -1.0 + 2.0 * u
    mask = market.action_mask(state, spec.name)
    mask = None if mask is None else np.broadcast_to(to_numpy(mask), (batch, n, to_numpy(mask).shape[-1]))
    sizes = [int(s) for s in space.nvec] if hasattr(space, "nvec") else [int(space.n)]
    columns, start = [], 0
    for j, size in enumerate(sizes):
        legal = np.ones((batch, n, size), bool) if mask is None else mask[..., start : start + size]
        start += size
        rank = np.floor(u[..., j] * legal.sum(axis=-1))
        columns.append((np.cumsum(legal, axis=-1) <= rank[..., None]).sum(axis=-1).clip(0, size - 1))
    return np.stack(columns, axis=-1) if hasattr(space, "nvec") else columns[0]


def random_decisions(market: Market, state: State, stage: str, seed: int) -> np.ndarray:
    """Legal decisions (B, n, k) in natural units, uniform over the stage's actions."""
    low, high = full_bounds(market, state, stage)
    codec = market.stage(stage).codec
    if not codec.discrete:
        return low + (high - low) * uniforms(market.batch(state), low.shape[1:], seed)
    return np.asarray(codec.decode(np, random_actions(market, state, stage, seed), low, high))


def random_profile(market: Market, state: State, seed: int) -> dict[str, np.ndarray]:
    """Random decisions of all stages, as committed: later stages' bounds and masks follow from the earlier decisions."""
    for position, stage in enumerate(market.stages):
        decisions = random_decisions(market, state, stage.name, seed * 101 + position)
        state = market.commit(state, stage.name, market.backend.asarray(decisions))
    return {name: np.array(market.backend.numpy(value)) for name, value in state.decisions.items()}


def observations(market: Market, state: State, profile: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What every stage shows when the stages before it play ``profile``."""
    seen = {}
    for stage in market.stages:
        seen[stage.name] = market.observe(state, stage.name)
        state = market.commit(state, stage.name, market.backend.asarray(profile[stage.name]))
    return seen


def play(
    market: Market, state: State, rounds: int, seed: int = 1
) -> Iterator[tuple[State, dict[str, np.ndarray], State, Outcome]]:
    """Rounds of random play: (state before, decisions, state after, outcome) of each."""
    for step in range(rounds):
        profile = random_profile(market, state, seed + 1000 * step)
        after, outcome = market.step(state, profile)
        yield state, profile, after, outcome
        state = after


def pick(outcome: Outcome) -> dict[str, Any]:
    """An outcome as a tree."""
    return {"payoffs": dict(outcome.payoffs), "metrics": dict(outcome.metrics)}


def payoff_scale(payoffs: Mapping[str, Any]) -> np.ndarray:
    """(B,) max(1, largest absolute payoff), the unit of every tolerance on money."""
    return np.maximum(1.0, np.max([np.abs(to_numpy(v)).max(axis=1) for v in payoffs.values()], axis=0))


def some_agents(n: int) -> list[int]:
    """All agents of a small role, first, middle and last of a large one."""
    return list(range(n)) if n <= 12 else [0, n // 2, n - 1]


def deviation_payoffs(
    market: Market, state: State, stage: str, profile: Mapping[str, np.ndarray], agent: int, candidates: np.ndarray
) -> np.ndarray:
    """Payoff (A, B) of one agent for each of its candidate decisions (A, B, k) at a stage.

    Same-stage rivals and earlier stages are as in ``profile``; later stages re-answer where the market offers ``respond``.
    """
    names = [s.name for s in market.stages]
    count, batch = candidates.shape[:2]
    many = market.take(state, np.tile(np.arange(batch), count))
    tried: dict[str, Any] = {name: np.tile(profile[name], (count, 1, 1)) for name in names}
    tried[stage][:, agent] = candidates.reshape(count * batch, -1)
    later = names[names.index(stage) + 1 :]
    if later:
        role = market.stage(stage).role
        try:
            answer = market.respond(many, {name: tried[name] for name in names if name not in later})
        except NotOffered:
            pass  # then they stay as played
        else:
            if not all(name in answer.on_path and answer.on_path[name] is not None for name in later):
                return np.asarray(answer.values[role])[:, agent].reshape(
                    count, batch
                )  # mixed; ``respond`` is checked by itself
            tried |= {name: np.asarray(answer.on_path[name]) for name in later}
    payoffs = market.payoff(many, tried)[market.stage(stage).role]
    return market.backend.numpy(payoffs)[:, agent].reshape(count, batch)
