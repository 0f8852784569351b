"""An upper bound of what slices can reach together, tight enough to certify the social optimum.

The sum of sigmoids is not concave, so the Lagrangian dual alone leaves a gap. The pool is cut into cells, and two bounds
are added up by dynamic programming over the cells in which the grants may lie, for every total T of the cells' left ends:

* F(T): best sum of rewards at the cells' right ends (rewards rise up to their peaks);
* price * W + G(T), where G adds the cells' largest reward minus price * grant, at the optimum's own price: any
  allocation with sum w <= W is worth at most that.

The smaller of both bounds every allocation of that total, and the largest over T bounds them all. Far from a full pool
F is already below the optimum; near it the price makes the second bound exact to second order in the cell's width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import oracle
from .oracle import SliceGame

Floats = NDArray[np.float64]

_CELLS = 1000
_SUB = 8
_CHUNK = 16
_STEEPEST = 1.0 / (6.0 * np.sqrt(3.0))  # largest second derivative of the logistic function


def welfare_bound(g: SliceGame, grants: Floats, top: Floats) -> Floats:
    """A number that no allocation's welfare exceeds, ``(B,)``.

    Args:
        g: the game with one batch axis, fields ``(B, M)``, capacity ``(B, 1)``.
        grants: the best allocation known ``(B, M)``, RB; it sets the price, and the bound holds whatever it is.
        top: peaks p ``(B, M)``, RB: nobody gains from more.
    """
    parts = [
        _bound(_part(g, slice(k, k + _CHUNK)), grants[k : k + _CHUNK], top[k : k + _CHUNK])
        for k in range(0, len(grants), _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _part(g: SliceGame, rows: slice) -> SliceGame:
    terms = type(g.terms)(*(a[rows] for a in g.terms))
    return g._replace(
        need=g.need[rows],
        load_share=g.load_share[rows],
        terms=terms,
        request_min=g.request_min[rows],
        request_max=g.request_max[rows],
        capacity=g.capacity[rows],
    )


def _price(g: SliceGame, grants: Floats, top: Floats) -> Floats:
    """Price per RB at which no slice would trade a little, ``(B,)``: between the slopes to the right and to the left."""
    h = 1e-7 * np.maximum(1.0, grants)
    here = oracle.payoff_of_grant(g, grants)
    up = np.where(grants + h <= top, (oracle.payoff_of_grant(g, grants + h) - here) / h, -np.inf)
    down = np.where(grants > h, (here - oracle.payoff_of_grant(g, np.maximum(grants - h, 0.0))) / h, np.inf)
    low = np.maximum(np.max(up, axis=-1), 0.0)
    high = np.min(down, axis=-1)
    return np.where(np.isfinite(high), 0.5 * (low + np.maximum(high, low)), low)


def _bend(g: SliceGame) -> Floats:
    """Bound of -f'' away from the kink at x = 1, ``(B, M)``: utilisation is linear or convex there, so only U counts."""
    delay, k, _, mu = g.terms
    tilt = np.where(delay, 1.0 / (1.0 - g.load_share), 1.0)
    # Delay: U'' = tilt^2 (k^2 y^-4 s'' - 2 k y^-3 s'); s'' >= 0 below y = 1, and s' <= exp(-k(1/y - 1)) there.
    v = np.maximum(3.0 / k, 1.0)
    falling = 2.0 * k * v**3 * np.exp(-k * (v - 1.0))
    return mu * tilt**2 * (_STEEPEST * k**2 + np.where(delay, falling, 0.0)) / g.need**2


def _bound(g: SliceGame, grants: Floats, top: Floats) -> Floats:
    batch, count = g.need.shape
    fine = g.capacity / (_CELLS * _SUB)
    places = np.minimum(fine[:, :, None] * np.arange(_CELLS * _SUB + 1), top[:, :, None])
    terms = type(g.terms)(*(a[:, :, None] for a in g.terms))
    wide = g._replace(need=g.need[:, :, None], load_share=g.load_share[:, :, None], terms=terms)
    reward = oracle.payoff_of_grant(wide, places)
    kink = np.minimum(g.need, top)
    at_kink = oracle.payoff_of_grant(g, kink)
    left, right = places[:, :, :-1], places[:, :, 1:]
    has_kink = (left <= kink[:, :, None]) & (kink[:, :, None] <= right)
    within = np.concatenate([np.ones((batch, count, 1), bool), right[:, :, :-1] < top[:, :, None]], axis=2)
    rising = np.broadcast_to(oracle.peaks(g)[1], g.need.shape)[:, :, None]
    curved = (_bend(g) * fine**2 / 8.0)[:, :, None]

    def cells(price: Floats) -> Floats:
        """Bound of reward - price * grant in every cell, ``(B, M, _CELLS)``; -inf beyond the peak."""
        cost = price[:, None, None]
        net = reward - cost * places
        best = np.maximum(net[:, :, :-1], net[:, :, 1:])
        best = np.where(has_kink, np.maximum(best, (at_kink - price[:, None] * kink)[:, :, None]), best) + curved
        best = np.where(rising, np.minimum(best, reward[:, :, 1:] - cost * left), best)
        return np.max(np.where(within, best, -np.inf).reshape(batch, count, _CELLS, _SUB), axis=-1)

    price = _price(g, grants, top)
    whole = _sums(cells(np.zeros(batch)))
    priced = price[:, None] * g.capacity + _sums(cells(price))
    return np.max(np.minimum(whole, priced), axis=-1)


def _sums(table: Floats) -> Floats:
    """Best sum with one cell per slice whose indices add up to exactly T = 0.._CELLS, ``(B, _CELLS + 1)``."""
    batch, count, width = table.shape
    value = np.full((batch, width + 1), -np.inf)
    value[:, 0] = 0.0
    for m in range(count):
        best = np.full_like(value, -np.inf)
        for cell in np.flatnonzero(np.isfinite(table[:, m]).any(axis=0)):
            target = best[:, cell:]
            np.maximum(target, value[:, : width + 1 - cell] + table[:, m, cell, None], out=target)
        value = best
    return value
