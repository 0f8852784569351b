"""The slicing game when requests come from a finite list: whole RBs, or the discrete action grids.

There is no closed form and a pure equilibrium need not exist. Sequential best response from the fluid equilibrium finds
one in almost every market;
enumeration of every slice's list certifies what was found, so the regret reported is exact either way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marketenvs.markets.federated_slicing import oracle
from marketenvs.markets.federated_slicing import stage as stage_rules
from marketenvs.markets.federated_slicing.oracle import SliceGame

Floats = NDArray[np.float64]


class FiniteEquilibrium(NamedTuple):
    """Least-regret profile found.

    Attributes:
        requests: b, RB ``(..., M)``.
        grants: w, RB ``(..., M)``.
        gains: what each slice could gain, by enumeration, ``(..., M)``; all 0 in an exact pure equilibrium.
    """

    requests: Floats
    grants: Floats
    gains: Floats


def _deviation_payoffs(g: SliceGame, choices: Floats, requests: Floats, m: int, quantum: int | None) -> Floats:
    """Reward of slice m for every entry of its list, the others fixed, ``(..., K)``."""
    options = choices[..., m, :]
    profile = np.repeat(requests[..., None, :], options.shape[-1], axis=-2)
    profile[..., m] = options
    capacity = np.asarray(g.capacity)
    capacity = capacity[..., None, :] if capacity.ndim else capacity
    grants = stage_rules.allocate(profile, capacity, g.rule, np, quantum)[..., m]

    def own(a: ArrayLike) -> Floats:
        a = np.asarray(a)
        return np.broadcast_to(a, g.need.shape)[..., m, None]

    terms = type(g.terms)(*(own(a) for a in g.terms))
    return stage_rules.reward(grants / own(g.need), own(g.load_share), terms, g.utilisation, np)


def best_replies(
    g: SliceGame, choices: ArrayLike, requests: ArrayLike, quantum: int | None = None
) -> tuple[Floats, Floats]:
    """Best entry of every slice's list against the others, and what it gains, both ``(..., M)``, by enumeration.

    Args:
        g: the game.
        choices: requests offered, RB ``(K,)`` or ``(..., M, K)``.
        requests: the profile, RB ``(..., M)``.
        quantum: None (fluid grants) or 1 (whole RBs, largest remainder).
    """
    b = np.asarray(requests, float)
    lists = np.broadcast_to(choices, (*b.shape, np.shape(choices)[-1]))
    now = oracle.payoff_of_grant(g, stage_rules.allocate(b, np.asarray(g.capacity), g.rule, np, quantum))
    answers, gains = b.copy(), np.zeros_like(b)
    for m in range(b.shape[-1]):
        values = _deviation_payoffs(g, lists, b, m, quantum)
        top = np.argmax(values, axis=-1)[..., None]
        gain = np.take_along_axis(values, top, -1)[..., 0] - now[..., m]
        gains[..., m] = np.maximum(gain, 0.0)
        answers[..., m] = np.where(gain > 0, np.take_along_axis(lists[..., m, :], top, -1)[..., 0], b[..., m])
    return answers, gains


def regrets(g: SliceGame, choices: ArrayLike, requests: ArrayLike, quantum: int | None = None) -> Floats:
    """What each slice can gain by another entry of its list, ``(..., M)``, exact; see `best_replies`."""
    return best_replies(g, choices, requests, quantum)[1]


def equilibrium(
    g: SliceGame, choices: ArrayLike, quantum: int | None = None, sweeps: int = 60, start: ArrayLike | None = None
) -> FiniteEquilibrium:
    """Sequential best response over the lists, keeping the profile with the least total regret.

    Args:
        g: the game.
        choices: requests offered, RB ``(K,)`` or ``(..., M, K)``.
        quantum: None or 1.
        sweeps: most rounds over all slices.
        start: first profile; the fluid equilibrium moved to the nearest entries if None.
    """
    shape = g.need.shape
    lists = np.broadcast_to(np.asarray(choices, float), (*shape, np.shape(choices)[-1]))
    first = oracle.equilibrium(g).requests if start is None else np.broadcast_to(np.asarray(start, float), shape)
    near = np.argmin(np.abs(lists - first[..., None]), axis=-1)
    b = np.take_along_axis(lists, near[..., None], -1)[..., 0].copy()
    best, best_gain = b.copy(), regrets(g, lists, b, quantum)
    for _ in range(sweeps):
        before = b.copy()
        for m in range(shape[-1]):
            values = _deviation_payoffs(g, lists, b, m, quantum)
            options = lists[..., m, :]
            held = np.argmin(np.abs(options - b[..., m, None]), axis=-1)
            # A slice moves only for a strict gain, so that ties cannot cycle.
            top = np.argmax(values, axis=-1)
            rises = np.take_along_axis(values, top[..., None], -1) > (
                np.take_along_axis(values, held[..., None], -1) + 1e-13
            )
            pick = np.where(rises[..., 0], top, held)
            b[..., m] = np.take_along_axis(options, pick[..., None], -1)[..., 0]
        now = regrets(g, lists, b, quantum)
        better = now.sum(axis=-1) < best_gain.sum(axis=-1)
        best, best_gain = np.where(better[..., None], b, best), np.where(better[..., None], now, best_gain)
        if np.array_equal(before, b):
            break
    grants = stage_rules.allocate(best, g.capacity, g.rule, np, quantum)
    return FiniteEquilibrium(best, grants, best_gain)
