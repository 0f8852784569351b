"""Price competition with capacities, where turned-away buyers go to the next cheapest seller (spec 5.3).

This is the Bertrand-Edgeworth game: with unit demand all ``M`` buyers value a channel at ``U``; with linear demand
``M (1 - p / U)`` of them value it above ``p`` and the cheapest seller serves the keenest first (efficient rationing).
Between "everyone can be served twice" (price = cost) and "nobody is spare" (price = value) the only equilibria are
mixed; they are returned as distributions with exact quantile and distribution functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import elementwise

Floats = NDArray[np.float64]


class PriceMixture(NamedTuple):
    """Equilibrium of the sellers: each draws its price independently.

    Attributes:
        profit: expected profit of each seller, ``(B, N)``.
        low: lowest price played, ``(B, N)``.
        high: highest price played, ``(B, N)``.
        atom: probability of the price ``high`` itself, ``(B, N)``; 1 where the equilibrium is pure.
        quantile: maps ``u`` of shape ``(..., B, N)`` in [0, 1] to prices of that shape.
        cdf: maps prices ``(..., B, N)`` to probabilities ``P(price <= .)``.
        unique: whether theory says that no other equilibrium exists in these prices.
    """

    profit: Floats
    low: Floats
    high: Floats
    atom: Floats
    quantile: Callable[[Floats], Floats]
    cdf: Callable[[Floats], Floats]
    unique: bool = True

    def mean(self, nodes: int = 400) -> Floats:
        """Mean price ``(B, N)`` by Gauss-Legendre quadrature on the quantile function."""
        x, w = np.polynomial.legendre.leggauss(nodes)
        width = 1.0 - self.atom  # the quantile is smooth below the atom and constant on it
        u = 0.5 * (x[:, None, None] + 1.0) * width
        smooth = (0.5 * w[:, None, None] * width * self.quantile(u)).sum(0)
        return smooth + self.atom * self.high


def residual_sales(price: Floats, buyers: Floats | int, capacity: ArrayLike, value: ArrayLike, linear: bool) -> Floats:
    """Units each seller sells at these prices, ``(..., N)``: cheapest first, ties split equally up to capacity.

    Args:
        price: ``(..., N)``.
        buyers: ``M``.
        capacity: ``(N,)`` or ``(..., N)``.
        value: ``U``, ``(...)``; with unit demand nobody buys above it.
        linear: whether demand is ``M (1 - p / U)`` instead of ``M`` at prices up to ``U``.
    """
    price = np.asarray(price, float)
    stock = np.broadcast_to(np.asarray(capacity, float), price.shape)
    value = np.asarray(value, float)[..., None]
    want = buyers * np.maximum(1.0 - price / value, 0.0) if linear else np.where(price <= value, float(buyers), 0.0)
    mine, theirs = price[..., :, None], price[..., None, :]
    ahead = np.where(theirs < mine, stock[..., None, :], 0.0).sum(-1)
    tied = theirs == mine
    todo = np.maximum(want - ahead, 0.0)
    # equal split with caps: every pass hands the rest to those with stock left and fills up at least one of them
    got = np.zeros(np.broadcast_shapes(tied.shape, stock[..., None, :].shape))
    supply = np.broadcast_to(stock[..., None, :], got.shape)
    for _ in range(price.shape[-1]):
        open_ = tied & (got < supply)
        rest = (todo - got.sum(-1))[..., None]
        got = got + np.where(open_, np.minimum(rest / np.maximum(open_.sum(-1, keepdims=True), 1), supply - got), 0.0)
    index = np.arange(price.shape[-1])
    return got[..., index, index]


def unit_demand(value: ArrayLike, cost: ArrayLike, buyers: int, capacity: ArrayLike) -> PriceMixture:
    """Equilibrium with ``M`` buyers of value ``U`` and equal costs: any number of equal sellers, or any two.

    Args:
        value: ``(B,)``.
        cost: common unit cost ``(B,)``.
        buyers: ``M``.
        capacity: ``(N,)``.

    Raises:
        ValueError: more than two sellers of unequal capacity (no closed form is known here).
    """
    stock = np.minimum(np.atleast_1d(np.asarray(capacity, float)), buyers)
    n, m = stock.size, float(buyers)
    value, cost = np.broadcast_arrays(np.atleast_1d(np.asarray(value, float)), np.atleast_1d(np.asarray(cost, float)))
    gap = np.repeat((value - cost)[:, None], n, -1)
    if n == 1 or stock.sum() <= m:
        return _pure(cost[:, None] + gap, gap * stock)
    if n > 2 and np.any(stock != stock[0]):
        raise ValueError("clearing with more than two sellers of unequal channels has no oracle; use equal channels")
    spare = m - (stock.sum() - stock)  # buyers left to each seller when all others are cheaper
    if np.all(spare <= 0) or (n == 2 and m <= stock.min()):
        return _pure(np.repeat(cost[:, None], n, -1), np.zeros_like(gap))
    if n == 2:
        big = int(np.argmax(stock))
        small = 1 - big
        profit = np.empty_like(gap)
        profit[:, big] = (m - stock[small]) * gap[:, big]
        low = profit[:, big] / stock[big]
        profit[:, small] = stock[small] * low
        # each seller's distribution makes the OTHER indifferent
        other = [1, 0]
        earn, full = profit[:, other], stock[other]
        drop = full - np.maximum(m - stock, 0.0)
        power = 1.0
    else:
        profit = gap * spare
        earn, full, drop, power = profit, stock, stock.sum() - m + 0.0 * stock, n - 1.0
        low = profit[:, 0] / stock[0]
    base = np.repeat(cost[:, None], n, -1)
    top_cdf = np.clip((full * gap - earn) / (gap * drop), 0.0, 1.0) ** (1.0 / power)

    def quantile(u: Floats) -> Floats:
        rise = earn / np.maximum(full - drop * np.asarray(u, float) ** power, 1e-300)
        return base + np.minimum(rise, gap)

    def cdf(price: Floats) -> Floats:
        x = np.maximum(np.asarray(price, float) - base, 1e-300)
        inner = np.clip((full * x - earn) / (x * drop), 0.0, 1.0) ** (1.0 / power)
        return np.where(x >= gap, 1.0, inner)

    atom = np.where(1.0 - top_cdf > 1e-12, 1.0 - top_cdf, 0.0)
    return PriceMixture(profit, base + low[:, None], base + gap, atom, quantile, cdf)


def linear_demand(value: ArrayLike, buyers: int, capacity: ArrayLike) -> PriceMixture:
    """Equilibrium with demand ``M (1 - p / U)``, no costs and two equal sellers (Levitan and Shubik).

    Raises:
        ValueError: any other number of sellers than 1 or 2, or unequal capacities.
    """
    stock = np.atleast_1d(np.asarray(capacity, float))
    if stock.size > 2 or np.any(stock != stock[0]):
        raise ValueError("linear demand has an oracle for one seller or two equal ones only")
    value = np.atleast_1d(np.asarray(value, float))
    m, c, n = float(buyers), float(stock[0]), stock.size
    unit = np.ones((value.size, n))
    if n == 1:
        price = max(0.5, 1.0 - c / m)
        return _pure(price * value[:, None] * unit, price * m * (1.0 - price) * value[:, None] * unit)
    if c >= m:
        return _pure(0.0 * unit, 0.0 * unit)
    if c <= m / 3.0:
        price = 1.0 - 2.0 * c / m
        return _pure(price * value[:, None] * unit, price * c * value[:, None] * unit)
    top = 0.5 * (1.0 - c / m)
    profit = m * top**2
    low = profit / c
    if c > m * (1.0 - low):
        low = 0.5 * (1.0 - np.sqrt(1.0 - 4.0 * profit / m))

    def standard_cdf(price: Floats) -> Floats:
        p = np.clip(price, low, top)
        sold = np.minimum(c, m * (1.0 - p))
        return np.clip((p * sold - profit) / (p * (sold - (m * (1.0 - p) - c))), 0.0, 1.0)

    scale = value[:, None]

    def cdf(price: Floats) -> Floats:
        p = np.asarray(price, float) / scale
        return np.where(p < low, 0.0, standard_cdf(p))

    def quantile(u: Floats) -> Floats:
        u = np.clip(np.asarray(u, float), 0.0, 1.0)
        ends = np.full(u.shape, low), np.full(u.shape, top)
        root = elementwise.find_root(lambda p, u: standard_cdf(p) - u, ends, args=(u,)).x
        return scale * np.where(u <= 0, low, np.where(u >= 1, top, np.where(np.isfinite(root), root, top)))

    return PriceMixture(profit * scale * unit, low * scale * unit, top * scale * unit, 0.0 * unit, quantile, cdf)


def _pure(price: Floats, profit: Floats) -> PriceMixture:
    def quantile(u: Floats) -> Floats:
        return np.broadcast_to(price, np.shape(u)).copy()

    def cdf(at: Floats) -> Floats:
        return np.where(np.asarray(at, float) >= price, 1.0, 0.0)

    return PriceMixture(profit, price, price, np.ones_like(price), quantile, cdf)
