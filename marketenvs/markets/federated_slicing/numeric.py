"""Search where the closed form does not hold: several peaks, the equal split among devices, the shared reward.

Everything here finds lower bounds of gains; nothing it returns is certified.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from . import oracle
from .oracle import SliceGame

Floats = NDArray[np.float64]
Payoff = Callable[[Floats], Floats]
"""Own payoffs (B, M) at grants (B, M)."""

_POINTS = 97
_REFINE = 3


def best_grant(payoff: Payoff, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Best grant of every slice in [low, high] (B, M) and its payoff: a grid, refined around its best point."""
    best, value = low.copy(), payoff(low)
    bottom, top = low, high
    for _ in range(_REFINE):
        for share in np.linspace(0.0, 1.0, _POINTS):
            trial = bottom + share * (top - bottom)
            found = payoff(trial)
            better = found > value
            best, value = np.where(better, trial, best), np.where(better, found, value)
        width = 1.5 * (top - bottom) / (_POINTS - 1)
        bottom, top = np.maximum(best - width, low), np.minimum(best + width, high)
    return best, value


def gains(g: SliceGame, payoff: Payoff, requests: Floats) -> tuple[Floats, Floats]:
    """Gains found by search and the grants that bring them, (B, M)."""
    low, high = oracle.reach(g, requests)
    best, value = best_grant(payoff, low, high)
    return np.maximum(value - payoff(oracle.grants_of(g, requests)), 0.0), best


def request_for(g: SliceGame, requests: Floats, grants: Floats) -> Floats:
    """The request that brings each slice its grant while the others keep theirs (the least such request)."""
    low, high = np.broadcast_to(g.request_min, grants.shape), np.broadcast_to(g.request_max, grants.shape)
    if g.rule == "uniform":
        return np.clip(grants, low, high)
    others = np.sum(requests, axis=-1, keepdims=True) - requests
    inflated = grants * others / np.maximum(g.capacity - grants, 1e-12)
    return np.clip(np.where(grants + others <= g.capacity, grants, inflated), low, high)


def equilibrium(g: SliceGame, payoff: Payoff, steps: int = 60) -> tuple[Floats, Floats]:
    """Least-regret requests found and their gains, (B, M): allocation on the best peaks, then damped best responses."""
    low, high = np.broadcast_to(g.request_min, g.need.shape), np.broadcast_to(g.request_max, g.need.shape)
    peak, _ = best_grant(payoff, np.full(g.need.shape, 1e-6), high + 0.0)
    scale = oracle.common_scale(peak, low, high, g.capacity) if g.rule == "proportional" else 1.0
    requests = np.clip(peak / scale, low, high)
    best, regret = requests, np.full(g.need.shape, np.inf)
    for step in range(steps):
        found, grants = gains(g, payoff, requests)
        better = found.sum(axis=-1) < regret.sum(axis=-1)
        best, regret = np.where(better[:, None], requests, best), np.where(better[:, None], found, regret)
        if np.all(regret <= 1e-10):
            break
        share = 1.0 if step < steps // 2 else 0.3
        requests = requests + share * np.where(found > 0, request_for(g, requests, grants) - requests, 0.0)
    return best, regret


def shared_gains(g: SliceGame, total: Callable[[Floats], Floats], requests: Floats) -> tuple[Floats, Floats]:
    """Gains of each slice in the mean reward by changing its own request, and the request, (B, M), by search.

    Args:
        g: the game.
        total: mean reward (B,) at requests (B, M).
        requests: the profile.
    """
    low, high = np.broadcast_to(g.request_min, requests.shape), np.broadcast_to(g.request_max, requests.shape)
    now = total(requests)
    best, value = requests.copy(), np.repeat(now[:, None], requests.shape[1], axis=1)
    for m in range(requests.shape[1]):
        bottom, top = low[:, m], high[:, m]
        for _ in range(2):
            for share in np.linspace(0.0, 1.0, 65):
                trial = requests.copy()
                trial[:, m] = bottom * (top / bottom) ** share
                found = total(trial)
                better = found > value[:, m]
                best[:, m] = np.where(better, trial[:, m], best[:, m])
                value[:, m] = np.where(better, found, value[:, m])
            ratio = (top / bottom) ** (1.5 / 64)
            bottom, top = np.maximum(best[:, m] / ratio, low[:, m]), np.minimum(best[:, m] * ratio, high[:, m])
    return value - now[:, None], best
