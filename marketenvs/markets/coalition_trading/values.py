"""What PRBs are worth to a tenant: satisfaction curves, their concave envelopes, demand, and a coalition's value.

A curve turns ``w`` PRBs into money. Both service classes share one normalised form: with ``u`` the served rate over the
needed rate (rate class) or the allowed delay over the achieved delay (delay class),

    w = need * (u + load) / (1 + load),      G(w) = amplitude * (s(z) - base) / s(steepness),      s = logistic

    rate class   z = steepness * (u - 1),      base = s(-steepness),  load = 0
    delay class  z = steepness * (1 - 1 / u),  base = 0,              load = arrival rate * allowed delay (M/M/1)

so one set of functions serves every tenant, and a tenant is five numbers. Functions of the first part take an array
namespace ``xp`` and are free of branches (the rules use them); the second part is NumPy float64 for the solvers.

Source: paper (3), (5), (6) as corrected by fidelity notes F1-F5; the time-shared (concave) value is the envelope of G.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = Any
Floats = NDArray[Any]  # float64 unless said otherwise

NEWTON_STEPS = 60  # safeguarded: every step at least bisects, and the loop stops as soon as nothing moves


class Curves(NamedTuple):
    """Satisfaction-value curves of tenants; every field broadcasts to (..., N).

    Attributes:
        amplitude: value of full satisfaction, $ (paper-free: kappa * reputation * need).
        need: PRBs at which satisfaction is one half.
        steepness: dimensionless slope of the sigmoid (paper's eta, made dimensionless).
        load: M/M/1 arrival rate times allowed delay; 0 for the rate class.
        delay: 1.0 for the delay class, 0.0 for the rate class.
        choke_price: highest price at which the tenant buys, $/PRB (slope of the envelope's straight piece).
        choke_quantity: PRBs bought at that price (where the envelope leaves the curve).
    """

    amplitude: Array
    need: Array
    steepness: Array
    load: Array
    delay: Array
    choke_price: Array
    choke_quantity: Array


# ---------------------------------------------------------------- elementwise, any array library


def logistic(xp: Any, z: Array) -> Array:
    """Overflow-safe 1 / (1 + exp(-z)), any shape."""
    small = xp.exp(-xp.abs(z))
    return xp.where(z >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


def _argument(xp: Any, steepness: Array, delay: Array, use: Array) -> Array:
    safe = xp.where(use > 0, use, xp.ones_like(use))
    return xp.where(delay > 0, steepness * (1.0 - 1.0 / safe), steepness * (use - 1.0))


def use_of(curves: Curves, quantity: Array) -> Array:
    """Normalised use u of ``quantity`` PRBs; negative when a delay tenant's queue is unstable."""
    return quantity * (1.0 + curves.load) / curves.need - curves.load


def quantity_of(curves: Curves, use: Array) -> Array:
    """PRBs behind a normalised use (inverse of `use_of`)."""
    return curves.need * (use + curves.load) / (1.0 + curves.load)


def raw_value(xp: Any, curves: Curves, quantity: Array) -> Array:
    """G(w): S-shaped value of holding exactly ``quantity`` PRBs all the time, $; 0 where the queue is unstable."""
    use = use_of(curves, quantity)
    base = xp.where(curves.delay > 0, xp.zeros_like(use), logistic(xp, -curves.steepness) + xp.zeros_like(use))
    level = (logistic(xp, _argument(xp, curves.steepness, curves.delay, use)) - base) / logistic(xp, curves.steepness)
    dead = (curves.delay > 0) & (use <= 0)
    return xp.where(dead, xp.zeros_like(level), curves.amplitude * level)


def _slopes(xp: Any, steepness: Array, delay: Array, use: Array) -> tuple[Array, Array, Array]:
    """g, g', g'' in the normalised use (without the base), for use > 0."""
    safe = xp.where(use > 0, use, xp.ones_like(use))
    z = _argument(xp, steepness, delay, use)
    up, down, top = logistic(xp, z), logistic(xp, -z), logistic(xp, steepness)
    slope = xp.where(delay > 0, steepness / (safe * safe), steepness + xp.zeros_like(use))
    bend = xp.where(delay > 0, -2.0 * steepness / (safe * safe * safe), xp.zeros_like(use))
    return up / top, up * down * slope / top, up * down * ((down - up) * slope * slope + bend) / top


def marginal(xp: Any, curves: Curves, quantity: Array) -> tuple[Array, Array]:
    """G'(w) and G''(w), $/PRB and $/PRB^2, for w on the concave branch (w >= choke quantity)."""
    stretch = (1.0 + curves.load) / curves.need
    _, first, second = _slopes(xp, curves.steepness, curves.delay, use_of(curves, quantity))
    return curves.amplitude * stretch * first, curves.amplitude * stretch * stretch * second


def value(xp: Any, curves: Curves, quantity: Array) -> Array:
    """Time-shared value: the concave envelope of G, $; linear at the choke price up to the choke quantity."""
    linear = curves.choke_price * quantity
    return xp.where(quantity <= curves.choke_quantity, linear, raw_value(xp, curves, quantity))


# ---------------------------------------------------------------- NumPy float64 solvers


def envelope_use(steepness: Floats, load: Floats, delay: Floats) -> Floats:
    """Normalised use where the envelope leaves the curve: the root of (u + load) g'(u) = g(u) beyond the inflection.

    Args:
        steepness: positive, any shape.
        load: nonnegative, same shape (ignored for the rate class).
        delay: 1.0 for the delay class, 0.0 for the rate class.

    Returns:
        The root, same shape. Depends on nothing but the arguments, so drawn channels and reputations reuse it.
    """
    steepness, load, delay = (np.asarray(x, float) for x in np.broadcast_arrays(steepness, load, delay))
    base = np.where(delay > 0, 0.0, logistic(np, -steepness) / logistic(np, steepness))
    # The gap g - (u + load) g' is negative at the inflection and grows from there on (its slope is -(u + load) g'').
    low = np.where(delay > 0, _delay_inflection(steepness), 1.0)
    high = np.where(delay > 0, steepness + np.sqrt(steepness * load) + 1.0, 2.0)
    root = 0.5 * (low + high)
    for _ in range(NEWTON_STEPS):
        level, first, second = _slopes(np, steepness, delay, root)
        gap = level - base - (root + load) * first
        low, high = np.where(gap < 0, root, low), np.where(gap < 0, high, root)
        with np.errstate(all="ignore"):
            trial = root + gap / ((root + load) * second)
        trial = np.where((trial > low) & (trial < high), trial, 0.5 * (low + high))
        if np.all(np.abs(trial - root) <= 2e-16 * root):
            return trial
        root = trial
    return root


def _delay_inflection(steepness: Floats) -> Floats:
    """Use where the delay class turns concave: steepness * (1 - 2 s) = 2 u, bisected (left falls, right rises)."""
    low, high = np.zeros_like(steepness), np.maximum(steepness, 1.0)
    for _ in range(60):
        mid = 0.5 * (low + high)
        z = steepness * (1.0 - 1.0 / mid)
        above = steepness * (logistic(np, -z) - logistic(np, z)) > 2.0 * mid
        low, high = np.where(above, mid, low), np.where(above, high, mid)
    return high


def make_curves(
    amplitude: Floats,
    need: Floats,
    steepness: Floats,
    load: Floats,
    delay: Floats,
) -> Curves:
    """Curves with their envelopes.

    Args:
        amplitude: value of full satisfaction, $, nonnegative; 0 for a tenant that can never be served.
        need: PRBs for half satisfaction, positive and finite.
        steepness: positive.
        load: nonnegative M/M/1 load of the delay class (arrival rate times allowed delay).
        delay: 1.0 delay class, 0.0 rate class.

    Raises:
        ValueError: naming the argument that is out of range.
    """
    amplitude, need, steepness, load, delay = (
        np.array(x, float) for x in np.broadcast_arrays(amplitude, need, steepness, load, delay)
    )
    for name, field, good in (
        ("amplitude", amplitude, amplitude >= 0),
        ("need", need, need > 0),
        ("steepness", steepness, steepness > 0),
        ("load", load, load >= 0),
    ):
        if not (np.all(np.isfinite(field)) and np.all(good)):
            raise ValueError(f"curves: {name} must be finite and in range, got {field}")
    load = np.where(delay > 0, load, 0.0)
    use = envelope_use(steepness, load, delay)
    curves = Curves(amplitude, need, steepness, load, delay, np.zeros_like(need), np.zeros_like(need))
    quantity = quantity_of(curves, use)
    return curves._replace(choke_price=marginal(np, curves, quantity)[0], choke_quantity=quantity)


def demand_each(curves: Curves, price: Floats, active: Floats | None = None) -> Floats:
    """PRBs each tenant buys at ``price`` (the exact follower, linear prices).

    Args:
        curves: fields broadcasting against ``price``.
        price: $/PRB, positive.
        active: who buys at all; default ``price <= choke_price`` (a tenant indifferent at its choke price buys).

    Returns:
        Quantities of the broadcast shape; 0 where not active.
    """
    shape = np.broadcast_shapes(np.shape(price), np.shape(curves.need))
    if active is None:
        active = price <= curves.choke_price
    active = np.broadcast_to(active & (curves.choke_price > 0), shape)
    result = np.zeros(shape)
    # Gather per class: the delay class needs a root, the rate class is closed form.
    for is_delay in (False, True):
        pick = active & np.broadcast_to((curves.delay > 0) == is_delay, shape)
        if pick.any():
            part = Curves(*(np.broadcast_to(f, shape)[pick] for f in curves))
            cost = np.broadcast_to(price, shape)[pick]
            scale = part.amplitude * part.steepness * (1.0 + part.load) / (part.need * logistic(np, part.steepness))
            solve = _delay_use if is_delay else _rate_use
            found = np.maximum(quantity_of(part, solve(cost / scale, part)), part.choke_quantity)
            result[pick] = found
    return result


def _rate_use(level: Floats, part: Curves) -> Floats:
    """Root of s (1 - s) = level with s >= 1/2, as a use."""
    top = 0.5 * (1.0 + np.sqrt(np.maximum(1.0 - 4.0 * level, 0.0)))
    return 1.0 + (2.0 * np.log(top) - np.log(level)) / part.steepness


def _delay_use(level: Floats, part: Curves) -> Floats:
    """Root of s (1 - s) / u^2 = level on the concave branch: Newton in log(1/u), kept inside a bracket."""
    target = np.log(level)
    high = -np.log(use_of(part, part.choke_quantity))
    low = np.minimum(0.5 * (target + np.log(4.0)), high)
    root = high - 0.35 * (high - low)
    for _ in range(NEWTON_STEPS):
        inverse = np.exp(root)
        z = part.steepness * (1.0 - inverse)
        small = np.exp(-np.abs(z))
        gap = -np.abs(z) - 2.0 * np.log1p(small) + 2.0 * root - target
        slope = 2.0 + np.tanh(0.5 * z) * part.steepness * inverse
        low, high = np.where(gap < 0, root, low), np.where(gap < 0, high, root)
        with np.errstate(all="ignore"):
            trial = root - gap / slope
        trial = np.where((trial >= low) & (trial <= high), trial, 0.5 * (low + high))
        moved = np.abs(trial - root)
        root = trial
        if np.all(moved <= 1e-15 * (1.0 + np.abs(root))):
            break
    return np.exp(-root)


def demand_slope(curves: Curves, quantity: Floats) -> Floats:
    """d(quantity)/d(price) of tenants buying ``quantity`` (0 for those who buy nothing)."""
    buying = quantity > 0
    second = marginal(np, curves, np.where(buying, quantity, curves.choke_quantity))[1]
    with np.errstate(divide="ignore"):
        return np.where(buying, 1.0 / second, 0.0)


def split(curves: Curves, member: Floats, total: Floats) -> tuple[Floats, Floats]:
    """Efficient split of ``total`` PRBs inside a coalition and its shadow price.

    Either the shadow price is a choke price, and those who sit there take the remainder on their straight piece, or it
    lies between two of them, where demand is smooth: Newton in logarithms, kept inside a bracket.

    Args:
        curves: fields (..., N).
        member: bool (..., N), who belongs to the coalition.
        total: PRBs to share, (...).

    Returns:
        Quantities (..., N) that sum to ``total`` (to less where more PRBs have no value at all) and the shadow price.
    """
    total = np.asarray(total, float)
    choke = np.where(member, curves.choke_price, 0.0)
    if choke.ndim == 1 and total.ndim == 0:
        held, price = split(curves, np.asarray(member)[None], total[None])
        return held[0], price[0]
    shape = np.broadcast_shapes(choke.shape, (*total.shape, 1))
    member = np.broadcast_to(np.asarray(member, bool) & (curves.choke_price > 0), shape)
    choke = np.where(member, np.broadcast_to(choke, shape), 0.0)
    total = np.broadcast_to(total, shape[:-1])
    wide = Curves(*(np.broadcast_to(f, shape)[..., None, :] for f in curves))

    # Demand of every member n at every choke price k, and what sits exactly there.
    each = np.where(member[..., None, :], demand_each(wide, np.where(choke > 0, choke, 1.0)[..., None]), 0.0)
    there = (choke[..., None, :] == choke[..., :, None]) & member[..., None, :]
    jump = np.sum(np.where(there, wide.choke_quantity, 0.0), axis=-1)
    upto = each.sum(axis=-1)
    at = member & (upto - jump <= total[..., None]) & (total[..., None] <= upto)
    k = np.argmax(at, axis=-1)[..., None]
    chosen = np.take_along_axis(each, k[..., None], axis=-2)[..., 0, :]
    part = np.take_along_axis(there, k[..., None], axis=-2)[..., 0, :]
    left = total - np.take_along_axis(upto - jump, k, axis=-1)[..., 0]
    weight = left[..., None] / np.take_along_axis(np.where(jump > 0, jump, 1.0), k, axis=-1)
    straight = np.where(part, wide.choke_quantity[..., 0, :] * weight, chosen)

    high = np.min(np.where(member & (upto < total[..., None]), choke, np.inf), axis=-1)
    low = np.max(np.where(member & (upto - jump > total[..., None]), choke, 0.0), axis=-1)
    smooth = ~at.any(axis=-1) & np.isfinite(high)
    price = np.take_along_axis(choke, k, axis=-1)[..., 0]
    held = np.where(at.any(axis=-1)[..., None], straight, 0.0)
    rows = np.nonzero(smooth)
    if rows[0].size:
        one = Curves(*(np.broadcast_to(f, shape)[rows] for f in curves))
        found, quantities = _shadow_price(one, member[rows], total[rows], low[rows], high[rows])
        price, held = price.copy(), held.copy()
        price[rows], held[rows] = found, quantities
    return held, price


def _shadow_price(curves: Curves, member: Floats, total: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Price at which smooth demand equals ``total``, and the members' demands, (R,) and (R, N)."""
    top, bottom = np.log(high), np.log(np.maximum(low, 1e-300))
    active = member & (curves.choke_price >= high[:, None])
    root = top
    for _ in range(2 * NEWTON_STEPS):
        each = demand_each(curves, np.exp(root)[:, None], active=active)
        gap = each.sum(axis=1) - total
        slope = np.sum(np.where(active, demand_slope(curves, each), 0.0), axis=1) * np.exp(root)
        bottom, top = np.where(gap > 0, root, bottom), np.where(gap > 0, top, root)
        sums = gap + total
        with np.errstate(all="ignore"):  # in logarithms of demand and price: nearly straight for both classes
            trial = root - np.log(sums / total) * sums / slope
        trial = np.where((trial > bottom) & (trial < top), trial, 0.5 * (bottom + top))
        done = (np.abs(gap) <= 1e-14 * (1.0 + total)) | (top - bottom <= 1e-15 * (1.0 + np.abs(top)))
        if np.all(done):
            break
        root = np.where(done, root, trial)
    # What rounding leaves goes to the members in proportion (their marginal values are equal).
    return np.exp(root), each * (total / sums)[:, None]


def coalition_value(curves: Curves, member: Floats, total: Floats) -> Floats:
    """V(W) of a coalition: the best sum of time-shared values from ``total`` PRBs, $ (shape of ``total``)."""
    quantities, _ = split(curves, member, total)
    return np.sum(np.where(member, value(np, curves, quantities), 0.0), axis=-1)


def unit_tables(curves: Curves, member: Floats, most: int, raw: bool = True) -> tuple[Floats, Floats]:
    """Value of one coalition from whole PRBs, and who holds them: max-plus dynamic programme.

    Args:
        curves: fields (N,).
        member: bool (N,).
        most: largest number of PRBs.
        raw: S-shaped values; False: their concave envelopes.

    Returns:
        V(0..most), (most + 1,), PRBs may stay unused; and the best holdings, (most + 1, N).
    """
    units = np.arange(most + 1.0)
    table, holdings = np.zeros(most + 1), np.zeros((most + 1, np.size(curves.need)))
    rest = np.arange(most + 1)[:, None] - np.arange(most + 1)[None, :]
    for index in np.flatnonzero(member):
        one = Curves(*(np.asarray(f)[index] for f in curves))
        own = raw_value(np, one, units) if raw else value(np, one, units)
        tried = np.where(rest >= 0, table[np.maximum(rest, 0)] + own[None, :], -np.inf)
        best = np.argmax(tried, axis=1)
        table = np.take_along_axis(tried, best[:, None], axis=1)[:, 0]
        holdings = holdings[np.arange(most + 1) - best]
        holdings[:, index] = best
    last = np.maximum.accumulate(np.where(table >= np.maximum.accumulate(table), np.arange(most + 1), 0))
    return table[last], holdings[last]


def raw_coalition_table(curves: Curves, member: Floats, most: int) -> Floats:
    """V(0..most) of one coalition from raw S-curves on whole PRBs, (most + 1,); see `unit_tables`."""
    return unit_tables(curves, member, most)[0]
