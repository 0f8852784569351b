"""What the slices could reach together: social optimum (whole and time-shared RBs) and price of anarchy.

The sum of sigmoids is not concave: under scarcity the optimum starves some slices so that others are satisfied. Dynamic
programming over the pool finds
it exactly for whole RBs; for time-shared RBs a fine grid and local refinement do, with an upper bound from the grid.
Tests compare the first with a
mixed-integer program and the second with an enumeration of the first-order conditions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketenvs.markets.federated_slicing import oracle
from marketenvs.markets.federated_slicing.bounds import welfare_bound
from marketenvs.markets.federated_slicing.oracle import SliceGame

Floats = NDArray[np.float64]

MAX_FLUID_SLICES = 64
_CELLS = 1000
_REACH = 4


class SocialOptimum(NamedTuple):
    """Best total reward.

    Attributes:
        grants: w, RB ``(..., M)``, sum <= W.
        welfare: sum of rewards ``(...,)``.
        upper: a bound no allocation can exceed ``(...,)``; equal to ``welfare`` where the method is exact.
    """

    grants: Floats
    welfare: Floats
    upper: Floats


def welfare(g: SliceGame, grants: Floats) -> Floats:
    """Sum of rewards at these grants, ``(...,)``."""
    return np.sum(oracle.payoff_of_grant(g, grants), axis=-1)


def _flat(g: SliceGame) -> tuple[SliceGame, tuple[int, ...]]:
    """The same game with exactly one batch axis, and the leading shape to restore."""
    lead = g.need.shape[:-1]
    count = g.need.shape[-1]

    def rows(a: Floats, width: int) -> Floats:
        return np.ascontiguousarray(np.broadcast_to(a, (*lead, width)).reshape(-1, width))

    terms = type(g.terms)(*(rows(a, count) for a in g.terms))
    flat = g._replace(
        need=rows(g.need, count),
        load_share=rows(g.load_share, count),
        terms=terms,
        request_min=rows(g.request_min, count),
        request_max=rows(g.request_max, count),
        capacity=rows(g.capacity, 1),
    )
    return flat, lead


def _table(g: SliceGame, steps: int, unit: Floats) -> Floats:
    """Rewards at 0, unit, ..., steps*unit for every slice, ``(B, M, steps + 1)``; -inf above request_max."""
    amounts = unit[:, :, None] * np.arange(steps + 1.0)
    terms = type(g.terms)(*(a[:, :, None] for a in g.terms))
    wide = g._replace(need=g.need[:, :, None], load_share=g.load_share[:, :, None], terms=terms)
    with np.errstate(invalid="ignore"):
        values = oracle.payoff_of_grant(wide, amounts)
    return np.where(amounts <= g.request_max[:, :, None] * (1 + 1e-12), values, -np.inf)


def _pool(table: Floats, least: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Dynamic programme: best sum of table entries whose indices add up to at most the table's width.

    Args:
        table: value of granting j units, ``(B, M, n + 1)``.
        least: smallest grant per slice, units.

    Returns:
        Best value ``(B,)`` and the grants in units ``(B, M)``.
    """
    batch, count, width = table.shape
    value = np.zeros((batch, width))
    choice = np.zeros((count, batch, width), np.int32)
    # No slice gains from more than its best amount, so the options end there.
    last = np.max(np.argmax(table, axis=-1), axis=0)
    for m in range(count):
        best = np.full((batch, width), -np.inf)
        pick = choice[m]
        for amount in range(least, max(int(last[m]), least) + 1):
            candidate = value[:, : width - amount] + table[:, m, amount, None]
            target = best[:, amount:]
            better = candidate > target
            np.copyto(target, candidate, where=better)
            np.copyto(pick[:, amount:], amount, where=better)
        value = best
    grants = np.zeros((batch, count), np.int64)
    left = np.argmax(value, axis=-1)
    rows = np.arange(batch)
    total = value[rows, left]
    for m in range(count - 1, -1, -1):
        grants[:, m] = choice[m, rows, left]
        left = left - grants[:, m]
    return total, grants


def integer_optimum(g: SliceGame, floor: int = 0) -> SocialOptimum:
    """Exact optimum over whole RBs, O(M W^2) per market.

    Args:
        g: the game; every capacity must be the same whole number.
        floor: least RBs per slice (0 lets the optimum starve slices).

    Raises:
        ValueError: if the capacity is not one whole number, or the floors exceed it.
    """
    flat, lead = _flat(g)
    capacity = float(flat.capacity[0, 0])
    if np.any(flat.capacity != capacity) or capacity != round(capacity):
        raise ValueError("integer_optimum needs one whole number of RBs as capacity of every market")
    count = flat.need.shape[1]
    if floor * count > capacity:
        raise ValueError(f"floor={floor} RB for {count} slices exceeds the capacity of {capacity:g} RB")
    total, grants = _pool(_table(flat, int(capacity), np.ones((1, 1))), floor)
    total = total.reshape(lead)
    return SocialOptimum(grants.reshape(g.need.shape).astype(float), total, total)


def fluid_optimum(g: SliceGame) -> SocialOptimum:
    """Optimum over time-shared RBs: the peaks where they fit, else a grid of W/1000 refined locally to 1e-9 RB.

    ``upper`` is proved by `bounds.welfare_bound`: above ``welfare`` by 1e-5 typically, by 1e-2 at worst where two
    different sets of starved slices are almost equally good (six slices, load up to twice the pool).

    Raises:
        ValueError: above 64 slices (use `integer_optimum`).
    """
    flat, lead = _flat(g)
    batch, count = flat.need.shape
    if count > MAX_FLUID_SLICES:
        raise ValueError(f"fluid_optimum is offered up to {MAX_FLUID_SLICES} slices, got {count}; use integer_optimum")
    p, _ = oracle.peaks(flat)
    grants = p.copy()
    upper = welfare(flat, p)
    scarce = np.sum(p, axis=-1) > flat.capacity[:, 0]
    for start in range(0, batch, 256):
        chosen = np.flatnonzero(scarce[start : start + 256]) + start
        if chosen.size:
            part = _rows(flat, chosen)
            grants[chosen] = _scarce_optimum(part, p[chosen])
            upper[chosen] = welfare_bound(part, grants[chosen], p[chosen])
    value = welfare(flat, grants)
    return SocialOptimum(grants.reshape(g.need.shape), value.reshape(lead), np.maximum(upper, value).reshape(lead))


def priced_optimum(g: SliceGame, points: int = 200) -> SocialOptimum:
    """Optimum of very many slices by one price per block: feasible grants and the dual's upper bound, whose gap shrinks as 1/M.

    Every slice takes the best of ``points`` load ratios (or nothing) at the price; the price is bisected until the pool suffices, then the rest of
    the pool goes to the slices that the next lower price would serve. ``upper`` is the dual value on the same ratios.
    """
    flat, lead = _flat(g)
    p, _ = oracle.peaks(flat)
    grants, upper = p.copy(), welfare(flat, p)
    for row in np.flatnonzero(np.sum(p, axis=-1) > flat.capacity[:, 0]):
        one = _rows(flat, np.array([row]))
        grants[row], upper[row] = _priced(one, p[row], points)
    value = welfare(flat, grants)
    return SocialOptimum(grants.reshape(g.need.shape), value.reshape(lead), np.maximum(upper, value).reshape(lead))


def _priced(g: SliceGame, top: Floats, points: int) -> tuple[Floats, float]:
    need, capacity = g.need[0], float(g.capacity[0, 0])
    share = np.concatenate([[0.0], np.linspace(0.4, 1.0, points)])
    # Ratios of the peak, and the kink x = 1, where many slices end.
    amounts = np.concatenate([share[:, None] * top, np.minimum(need, top)[None]])
    terms = type(g.terms)(*(a[0] for a in g.terms))
    values = oracle.payoff_of_grant(g._replace(need=need, load_share=g.load_share[0], terms=terms), amounts)
    low, high = 0.0, float(np.max(values / np.maximum(amounts, 1e-9)))
    columns = np.arange(len(need))
    for _ in range(50):
        price = 0.5 * (low + high)
        pick = np.argmax(values - price * amounts, axis=0)
        low, high = (low, price) if amounts[pick, columns].sum() <= capacity else (price, high)
    pick = np.argmax(values - high * amounts, axis=0)
    chosen = amounts[pick, columns]
    dual = float(np.sum(np.max(values - high * amounts, axis=0)) + high * capacity)
    more = amounts[np.argmax(values - low * amounts, axis=0), columns] - chosen
    for m in np.flatnonzero(more > 0):
        if more[m] <= capacity - chosen.sum():
            chosen[m] += more[m]
    return chosen, dual


def _rows(g: SliceGame, rows: NDArray[np.int64]) -> SliceGame:
    return g._replace(
        need=g.need[rows],
        load_share=g.load_share[rows],
        terms=type(g.terms)(*(a[rows] for a in g.terms)),
        request_min=g.request_min[rows],
        request_max=g.request_max[rows],
        capacity=g.capacity[rows],
    )


def _scarce_optimum(g: SliceGame, top: Floats) -> Floats:
    unit = g.capacity / _CELLS
    _, cells = _pool(_table(g, _CELLS, unit))
    grants = np.minimum(cells * unit, top)
    step = unit
    while np.max(step) > 1e-9:
        step = step / 2.0
        for _ in range(8):
            moved = _local(g, grants, top, step)
            improved = welfare(g, moved) > welfare(g, grants) + 1e-15
            grants = np.where(improved[:, None], moved, grants)
            if not improved.any():
                break
    return _polish(g, grants, top)


def _derivatives(g: SliceGame, w: Floats) -> tuple[Floats, Floats]:
    """Derivatives f' and f'' of the ``match`` reward, away from its kink at x = 1."""
    x = np.maximum(w, 1e-12) / g.need
    over = x > 1.0
    delay, k, weight, mu = g.terms
    first = weight * np.where(over, -(x**-2.0), 1.0)
    second = weight * np.where(over, 2.0 * x**-3.0, 0.0)
    y = np.where(delay, (x - g.load_share) / (1.0 - g.load_share), 1.0)
    stable = y > 0.02
    y = np.where(stable, y, 1.0)
    tilt = np.where(delay, 1.0 / (1.0 - g.load_share), 1.0)
    z = k * np.where(delay, 1.0 - 1.0 / y, x - 1.0)
    rise = k * tilt * np.where(delay, y**-2.0, 1.0)
    bend = np.where(delay, -2.0 * k * tilt**2 * y**-3.0, 0.0)
    s = 1.0 / (1.0 + np.exp(-np.clip(z, -700.0, 700.0)))
    bell = np.where(stable, s * (1.0 - s), 0.0)
    return (first + mu * bell * rise) / g.need, (second + mu * bell * ((1.0 - 2.0 * s) * rise**2 + bend)) / g.need**2


def _polish(g: SliceGame, grants: Floats, top: Floats) -> Floats:
    """Newton on the first-order conditions of the grants that are not 0, at a bound or at the kink x = 1."""
    if g.utilisation != "match":
        return grants
    free = (grants > 1e-6) & (grants < top - 1e-6) & (np.abs(grants / g.need - 1.0) > 1e-7)
    w = np.where(np.abs(grants / g.need - 1.0) <= 1e-7, np.minimum(g.need, top), grants)
    w = np.where(grants <= 1e-6, 0.0, np.where(grants >= top - 1e-6, top, w))
    for _ in range(6):
        slope, curve = _derivatives(g, w)
        usable = free & (np.abs(curve) > 1e-12)
        # A starved delay slice's reward is linear: its slope is the price, and it takes what the others leave.
        linear = free & ~usable
        first = linear & (np.cumsum(linear, axis=-1) == 1)
        has = np.any(linear, axis=-1, keepdims=True)
        inverse = np.where(usable, 1.0 / np.where(usable, curve, 1.0), 0.0)
        room = g.capacity - np.sum(w, axis=-1, keepdims=True)
        weight = np.sum(inverse, axis=-1, keepdims=True)
        price = (room + np.sum(slope * inverse, axis=-1, keepdims=True)) / np.where(weight == 0.0, 1.0, weight)
        price = np.where(has, np.sum(np.where(first, slope, 0.0), axis=-1, keepdims=True), price)
        w = np.where(usable & (weight != 0.0), w + np.clip((price - slope) * inverse, -1e-3, 1e-3), w)
        rest = g.capacity - np.sum(np.where(first, 0.0, w), axis=-1, keepdims=True)
        w = np.where(first, np.minimum(rest, w + 1e-3), w)
    w = np.clip(w, 0.0, top)
    fine = (np.sum(w, axis=-1) <= g.capacity[:, 0] * (1 + 1e-13)) & (welfare(g, w) >= welfare(g, grants) - 1e-12)
    return np.where(fine[:, None], w, grants)


def _local(g: SliceGame, grants: Floats, top: Floats, step: Floats) -> Floats:
    """Best joint move of every grant by -4..4 steps that keeps the sum within the capacity."""
    batch, count = grants.shape
    moves = np.arange(-_REACH, _REACH + 1)
    trial = grants[:, :, None] + step[:, :, None] * moves
    terms = type(g.terms)(*(a[:, :, None] for a in g.terms))
    wide = g._replace(need=g.need[:, :, None], load_share=g.load_share[:, :, None], terms=terms)
    inside = (trial >= -1e-15) & (trial <= top[:, :, None] * (1 + 1e-15))
    values = np.where(inside, oracle.payoff_of_grant(wide, np.maximum(trial, 0.0)), -np.inf)
    width = 2 * _REACH * count + 1
    origin = _REACH * count
    reached = np.full((batch, width), -np.inf)
    reached[:, origin] = 0.0
    picks = np.zeros((count, batch, width), np.int8)
    for m in range(count):
        following = np.full((batch, width), -np.inf)
        for j, move in enumerate(moves):
            source = slice(max(0, -move), width - max(0, move))
            target = slice(max(0, move), width - max(0, -move))
            candidate = reached[:, source] + values[:, m, j, None]
            better = candidate > following[:, target]
            np.copyto(following[:, target], candidate, where=better)
            np.copyto(picks[m][:, target], move, where=better)
        reached = following
    free = np.floor((g.capacity - np.sum(grants, axis=-1, keepdims=True)) / step + 1e-4)
    allowed = np.arange(-origin, origin + 1)[None, :] <= free
    at = np.argmax(np.where(allowed, reached, -np.inf), axis=-1)
    rows = np.arange(batch)
    offset = np.zeros((batch, count))
    for m in range(count - 1, -1, -1):
        offset[:, m] = picks[m, rows, at]
        at = at - picks[m, rows, at]
    return np.clip(grants + offset * step, 0.0, top)


def price_of_anarchy(g: SliceGame) -> Floats:
    """Optimal welfare over equilibrium welfare (time-shared RBs), ``(...,)``, >= 1."""
    return fluid_optimum(g).welfare / welfare(g, oracle.equilibrium(g).grants)
