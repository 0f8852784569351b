"""Bidding from a finite pool: every profile enumerated, so pure equilibria are found, counted, or proved absent.

A pool game may have several pure equilibria or none (spec 5.5). With none, the profile of least NashConv is returned
with its gains. Size grows as K^M: `MAX_PROFILES` keeps it to what fits in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .values import Array

MAX_PROFILES = 2_000_000


class PoolSolution(NamedTuple):
    """Pure equilibria of one pool game.

    Attributes:
        profiles: Indices of all pure equilibria, ``(E, M)``, in lexicographic order; empty if there is none.
        best: Indices of the profile reported, ``(M,)``: among the equilibria the one of largest total payoff (ties to
            the lexicographically smallest), or the profile of least NashConv if there is no equilibrium.
        payoffs: Payoffs there, ``(M,)``.
        gains: Unilateral gains there, ``(M,)``.
        epsilon: Largest of the gains; 0 at an equilibrium.
        nash_conv: Sum of the gains.
    """

    profiles: NDArray[np.int64]
    best: NDArray[np.int64]
    payoffs: Array
    gains: Array
    epsilon: float
    nash_conv: float


def pool_bids(floor: Array, cap: Array, size: int, kind: str = "linspace") -> Array:
    """Pools of ``size`` bids between floor and cap, ``(..., M, size)``.

    Args:
        floor: Least bids, positive for ``geomspace``.
        cap: Largest bids, finite.
        size: Bids per pool, at least 2.
        kind: ``linspace`` (equal steps) or ``geomspace`` (equal ratios).
    """
    if kind not in ("linspace", "geomspace"):
        raise ValueError(f"pool={kind!r} is not offered; choose 'linspace' or 'geomspace'")
    space = np.linspace if kind == "linspace" else np.geomspace
    return np.asarray(space(floor, cap, size, axis=-1))


def profile_payoffs(pools: Array, payoff: Callable[[Array], Array]) -> Array:
    """Payoffs of all profiles of one market, ``(K, ..., K, M)``.

    Args:
        pools: Bids of each operator, ``(M, K)``.
        payoff: Maps bids ``(P, M)`` to payoffs ``(P, M)``.

    Raises:
        ValueError: If there are more than `MAX_PROFILES` profiles.
    """
    operators, size = pools.shape
    if size**operators > MAX_PROFILES:
        raise ValueError(f"{size}^{operators} profiles are too many to enumerate; use at most {MAX_PROFILES}")
    index = np.indices((size,) * operators).reshape(operators, -1)
    bids = np.take_along_axis(pools, index, 1).T
    return payoff(bids).reshape((size,) * operators + (operators,))


def pool_gains(payoffs: Array) -> Array:
    """What each operator could gain by another bid of its pool, at every profile; same shape as ``payoffs``."""
    return np.stack([payoffs[..., m].max(m, keepdims=True) - payoffs[..., m] for m in range(payoffs.shape[-1])], -1)


def solve_pool(payoffs: Array, tolerance: float = 1e-9) -> PoolSolution:
    """All pure equilibria of one pool game, or the profile closest to one.

    Args:
        payoffs: From `profile_payoffs`.
        tolerance: A gain up to ``tolerance * max(1, largest payoff)`` counts as none.
    """
    gains = pool_gains(payoffs)
    operators = payoffs.shape[-1]
    total = gains.sum(-1)
    stable = gains.max(-1) <= tolerance * max(1.0, float(np.abs(payoffs).max()))
    profiles = np.argwhere(stable)
    if len(profiles):
        welfare = np.array([payoffs[tuple(p)].sum() for p in profiles])
        best = profiles[int(welfare.argmax())]
    else:
        best = np.array(np.unravel_index(int(total.argmin()), total.shape))
    here = tuple(best)
    return PoolSolution(
        profiles.reshape(-1, operators),
        best,
        payoffs[here],
        gains[here],
        float(gains[here].max()),
        float(total[here]),
    )
