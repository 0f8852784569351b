"""What a market is made of and what it hands out: its stages, its state (a pytree of arrays), and the outcome of a round."""

from __future__ import annotations

from typing import Any, NamedTuple

from gymnasium import spaces

from .arrays import Array
from .codecs import Codec


class Stage(NamedTuple):
    """One simultaneous move of all agents of one role."""

    name: str
    role: str
    codec: Codec
    observation_space: spaces.Box
    """Of one agent, shape (d,)."""


class State(NamedTuple):
    """State of B markets; a pytree. Every array has leading axis B, except those of ``theta``, which may have 1."""

    theta: Any
    """NamedTuple of the numeric parameters."""
    origin: Any
    """theta as drawn at reset (what drift starts from); () without drift."""
    seed: Array
    """(B, 2) key of each market's random stream."""
    round: Array
    """(B,) int32, rounds settled so far."""
    history: Any
    """What the market remembers between rounds."""
    nature: Any
    """The coming round's draws, some of them hidden from the agents."""
    decisions: dict[str, Array]
    """Stage -> decisions (B, n, k) committed so far in this round."""


class Outcome(NamedTuple):
    """What a settled round gave: payoffs {role: (B, n)} and named metrics {(B,) or (B, n)}; "welfare" is always among them."""

    payoffs: dict[str, Array]
    metrics: dict[str, Array]


def tree_map(function: Any, tree: Any) -> Any:
    """Apply a function to every array of nested NamedTuples, tuples and dicts; None stays None."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {k: tree_map(function, v) for k, v in tree.items()}
    if isinstance(tree, tuple):
        values = [tree_map(function, v) for v in tree]
        return type(tree)(*values) if hasattr(tree, "_fields") else tuple(values)
    return function(tree)
