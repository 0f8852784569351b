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

from marketenvs.markets.spectrum_bertrand._scipy import elementwise

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
    want = (
        buyers * np.maximum(1.0 - price / value, 0.0)
        if linear
        else np.where(price <= value, np.asarray(buyers, float), 0.0)
    )
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


def unit_demand(value: ArrayLike, cost: ArrayLike, buyers: ArrayLike, capacity: ArrayLike) -> PriceMixture:
    """Equilibrium with ``M`` buyers of value ``U`` and equal costs: any number of equal sellers, or any two.

    Args:
        value: ``(B,)``.
        cost: common unit cost ``(B,)``.
        buyers: ``M``, ``(B,)``.
        capacity: ``(N,)`` or ``(B, N)``.

    Raises:
        ValueError: more than two sellers of unequal capacity (no closed form is known here).
    """
    stock = np.atleast_2d(np.asarray(capacity, float))
    value, cost, buyers = (np.atleast_1d(np.asarray(x, float)) for x in (value, cost, buyers))
    batch = np.broadcast_shapes(value.shape, cost.shape, buyers.shape, stock.shape[:1])[0]
    n = stock.shape[1]
    value, cost, m = (np.broadcast_to(x, (batch,))[:, None] for x in (value, cost, buyers))
    stock = np.minimum(np.broadcast_to(stock, (batch, n)), m)
    if n > 2 and np.any(stock != stock[:, :1]):
        raise ValueError("clearing with more than two sellers of unequal channels has no oracle; use equal channels")
    gap = np.repeat(value - cost, n, -1)
    base = np.repeat(cost, n, -1)
    total = stock.sum(-1, keepdims=True)
    spare = m - (total - stock)  # buyers left to each seller when all others are cheaper
    scarce = np.broadcast_to(total <= m, gap.shape)
    glut = np.broadcast_to(np.all(spare <= 0, -1, keepdims=True), gap.shape) & ~scarce
    pure = scarce | glut
    big = np.arange(n) == np.argmax(stock, -1)[:, None]
    held = (spare * gap * big).sum(-1, keepdims=True)  # what the largest seller can secure at the value
    low = held / (stock * big).sum(-1, keepdims=True)
    profit = np.where(big, held, stock * low)
    if n == 2:  # each seller's distribution makes the OTHER indifferent
        earn, full, power = profit[:, ::-1], stock[:, ::-1], 1.0
        drop = full - np.maximum(m - stock, 0.0)
    else:
        earn, full, drop, power = profit, stock, np.repeat(total - m, n, -1), max(n - 1.0, 1.0)
    drop = np.where(pure, 1.0, drop)
    high = base + np.where(glut, 0.0, gap)
    with np.errstate(divide="ignore", invalid="ignore"):
        top = np.clip((full * gap - earn) / (gap * drop), 0.0, 1.0) ** (1.0 / power)
    atom = np.where(pure, 1.0, np.where(1.0 - top > 1e-12, 1.0 - top, 0.0))

    def quantile(u: Floats) -> Floats:
        rise = earn / np.maximum(full - drop * np.asarray(u, float) ** power, 1e-300)
        return np.where(pure, high, base + np.minimum(rise, gap))

    def cdf(price: Floats) -> Floats:
        x = np.maximum(np.asarray(price, float) - base, 1e-300)
        inner = np.clip((full * x - earn) / (x * drop), 0.0, 1.0) ** (1.0 / power)
        return np.where(pure, np.where(price >= high, 1.0, 0.0), np.where(x >= gap, 1.0, inner))

    earned = np.where(scarce, gap * stock, np.where(glut, 0.0, profit))
    return PriceMixture(earned, np.where(pure, high, base + low), high, atom, quantile, cdf)


def linear_demand(value: ArrayLike, buyers: ArrayLike, capacity: ArrayLike) -> PriceMixture:
    """Equilibrium with demand ``M (1 - p / U)``, no costs and one seller or two equal ones (Levitan and Shubik).

    Args:
        value: ``(B,)``.
        buyers: ``M``, ``(B,)``.
        capacity: ``(N,)`` or ``(B, N)``.

    Raises:
        ValueError: more than two sellers, or unequal capacities.
    """
    stock = np.atleast_2d(np.asarray(capacity, float))
    n = stock.shape[1]
    if n > 2 or np.any(stock != stock[:, :1]):
        raise ValueError("linear demand has an oracle for one seller or two equal ones only")
    value, buyers = (np.atleast_1d(np.asarray(x, float)) for x in (value, buyers))
    batch = np.broadcast_shapes(value.shape, buyers.shape, stock.shape[:1])[0]
    scale, m = (np.broadcast_to(x, (batch,))[:, None] for x in (value, buyers))
    c = np.broadcast_to(stock, (batch, n))
    m, scale = np.broadcast_to(m, c.shape), np.broadcast_to(scale, c.shape)
    if n == 1:
        price = np.maximum(0.5, 1.0 - c / m)
        return _pure(price * scale, price * m * (1.0 - price) * scale)
    glut, scarce = c >= m, c <= m / 3.0
    pure = glut | scarce
    fixed = np.where(glut, 0.0, 1.0 - 2.0 * c / m)
    top = np.where(pure, 0.5, 0.5 * (1.0 - c / m))
    profit = m * top**2
    low = profit / c
    low = np.where(c > m * (1.0 - low), 0.5 * (1.0 - np.sqrt(np.maximum(1.0 - 4.0 * profit / m, 0.0))), low)

    def standard_cdf(price: Floats, *at: Floats) -> Floats:
        low, top, m, c, profit = at
        p = np.clip(price, low, top)
        sold = np.minimum(c, m * (1.0 - p))
        spread = p * (sold - (m * (1.0 - p) - c))
        return np.clip((p * sold - profit) / np.where(spread > 0, spread, 1.0), 0.0, 1.0)

    def cdf(price: Floats) -> Floats:
        p = np.asarray(price, float) / scale
        mixed = np.where(p < low, 0.0, np.where(p >= top, 1.0, standard_cdf(p, low, top, m, c, profit)))
        return np.where(pure, np.where(p >= fixed, 1.0, 0.0), mixed)

    def quantile(u: Floats) -> Floats:
        u = np.clip(np.asarray(u, float), 0.0, 1.0)
        at = [np.broadcast_to(x, u.shape) for x in (low, top, m, c, profit)]
        root = elementwise.find_root(
            lambda p, u, *at: standard_cdf(p, *at) - u, (at[0].copy(), at[1].copy()), args=(u, *at)
        ).x
        inner = np.where(u <= 0, low, np.where(u >= 1, top, np.where(np.isfinite(root), root, top)))
        return scale * np.where(pure, fixed, inner)

    earned = np.where(glut, 0.0, np.where(scarce, fixed * c, profit)) * scale
    ends = [scale * np.where(pure, fixed, x) for x in (low, top)]
    return PriceMixture(earned, ends[0], ends[1], np.where(pure, 1.0, 0.0), quantile, cdf)


def _pure(price: Floats, profit: Floats) -> PriceMixture:
    def quantile(u: Floats) -> Floats:
        return np.broadcast_to(price, np.shape(u)).copy()

    def cdf(at: Floats) -> Floats:
        return np.where(np.asarray(at, float) >= price, 1.0, 0.0)

    return PriceMixture(profit, price, price, np.ones_like(price), quantile, cdf)
