"""Logit demand: the pricing game of Calvano, Calzolari, Denicolo and Pastorello (2020) (spec 5.5).

Shares are ``s_i = exp((a_i - p_i) / mu) / (sum_k exp((a_k - p_k) / mu) + exp(a_0 / mu))``, profits
``(p_i - c_i) s_i * size``. Arrays are ``(B, N)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marketenvs.markets.spectrum_bertrand._scipy import special

Floats = NDArray[np.float64]


class LogitMarket(NamedTuple):
    """Demand and costs: ``quality`` a and ``cost`` c are ``(B, N)``, ``noise`` mu, ``outside`` a0, ``size`` ``(B,)``."""

    quality: Floats
    cost: Floats
    noise: Floats
    outside: Floats
    size: Floats


def logit_market(
    quality: ArrayLike, cost: ArrayLike, noise: ArrayLike = 0.25, outside: ArrayLike = 0.0, size: ArrayLike = 1.0
) -> LogitMarket:
    """Build a `LogitMarket` from anything that broadcasts; one-dimensional input is one market.

    Raises:
        ValueError: if a number is not finite or ``noise`` is not positive.
    """
    quality, cost = np.broadcast_arrays(
        np.atleast_2d(np.asarray(quality, float)), np.atleast_2d(np.asarray(cost, float))
    )
    batch = max([quality.shape[0], *(np.size(x) for x in (noise, outside, size))])
    quality, cost = (np.broadcast_to(x, (batch, x.shape[-1])) for x in (quality, cost))
    noise, outside, size = (np.broadcast_to(np.asarray(x, float).reshape(-1), (batch,)) for x in (noise, outside, size))
    for name, x in (("quality", quality), ("cost", cost), ("noise", noise), ("outside", outside), ("size", size)):
        if not np.all(np.isfinite(x)):
            raise ValueError(f"{name} must be finite")
    if np.any(noise <= 0):
        raise ValueError("noise (mu) must be positive: at 0 demand is a step function; use matching='clearing'")
    return LogitMarket(quality, cost, noise, outside, size)


def shares(market: LogitMarket, price: ArrayLike) -> Floats:
    """Demand shares ``(..., B, N)`` at prices of that shape."""
    utility = (market.quality - np.asarray(price, float)) / market.noise[:, None]
    outside = (market.outside / market.noise)[:, None]
    top = np.maximum(utility.max(-1, keepdims=True), outside)
    weight = np.exp(utility - top)
    return weight / (weight.sum(-1, keepdims=True) + np.exp(outside - top))


def profits(market: LogitMarket, price: ArrayLike) -> Floats:
    """Profits ``(..., B, N)``."""
    return (np.asarray(price, float) - market.cost) * shares(market, price) * market.size[:, None]


def best_response(market: LogitMarket, price: ArrayLike) -> Floats:
    """Every seller's best price against the others' in ``price``, closed form by Lambert's W, ``(B, N)``."""
    mu = market.noise[:, None]
    utility = (market.quality - np.asarray(price, float)) / mu
    top = np.maximum(utility.max(-1, keepdims=True), (market.outside / market.noise)[:, None])
    weight = np.exp(utility - top)
    everyone = weight.sum(-1, keepdims=True) + np.exp((market.outside / market.noise)[:, None] - top)
    rest = np.log(np.maximum(everyone - weight, 1e-300)) + top
    # x = W(exp(z)) is Wright's omega(z): no overflow for large quality gaps
    return market.cost + mu * (1.0 + special.wrightomega((market.quality - market.cost) / mu - 1.0 - rest))


def nash(market: LogitMarket, iterations: int = 1000) -> Floats:
    """Nash prices ``(B, N)``: best responses are a contraction; ``(p_i - c_i)(1 - s_i) = mu`` at the fixed point."""
    price = market.cost + 1.5 * market.noise[:, None]
    for _ in range(iterations):
        new = best_response(market, price)
        moved = np.max(np.abs(new - price))
        price = new
        if moved < 1e-15 * max(1.0, float(np.abs(price).max())):
            break
    return price


def monopoly(market: LogitMarket) -> Floats:
    """Prices of one owner of all sellers ``(B, N)``: equal markups, by Lambert's W."""
    z = (market.quality - market.cost - market.outside[:, None]) / market.noise[:, None] - 1.0
    top = z.max(-1)
    total = np.log(np.exp(z - top[:, None]).sum(-1)) + top
    return market.cost + (market.noise * (1.0 + special.wrightomega(total)))[:, None]


def gains(market: LogitMarket, price: ArrayLike) -> Floats:
    """What each seller could gain by its best response, ``(B, N)``."""
    price = np.asarray(price, float)
    best = best_response(market, price)
    out = np.empty(np.broadcast_shapes(price.shape, best.shape))
    for j in range(best.shape[-1]):
        changed = np.array(np.broadcast_to(price, out.shape))
        changed[..., j] = best[..., j]
        out[..., j] = profits(market, changed)[..., j]
    return np.maximum(out - profits(market, price), 0.0)


def payoff_table(market: LogitMarket, levels: Floats) -> Floats:
    """Profits on a price grid, ``(B, N, K, ..., K)`` for ``levels`` ``(B, K)`` common to all sellers."""
    batch, n = market.cost.shape
    k = levels.shape[-1]
    mesh = np.meshgrid(*[np.arange(k)] * n, indexing="ij")
    index = np.stack([x.reshape(-1) for x in mesh], -1)  # (K^N, N)
    grid = levels[:, index]  # (B, K^N, N)
    table = profits(market, np.moveaxis(grid, 1, 0))  # (K^N, B, N)
    return np.moveaxis(table, 0, 2).reshape((batch, n, *((k,) * n)))


def calvano_grid(market: LogitMarket, levels: int = 15, margin: float = 0.1) -> Floats:
    """The price grid of the study, ``(B, K)``: from ``margin`` of the gap below Nash to as much above monopoly.

    Uses seller 0's prices, as in the symmetric study.
    """
    low, high = nash(market)[:, 0], monopoly(market)[:, 0]
    gap = margin * (high - low)
    return (low - gap)[:, None] + ((high - low) + 2 * gap)[:, None] * np.linspace(0.0, 1.0, levels)


def collusion_index(profit: ArrayLike, nash_profit: ArrayLike, monopoly_profit: ArrayLike) -> Floats:
    """``Delta = (profit - Nash) / (monopoly - Nash)``: 0 is competition, 1 full collusion; NaN where they coincide."""
    profit, low, high = (np.asarray(x, float) for x in (profit, nash_profit, monopoly_profit))
    span = high - low
    return np.where(span > 0, (profit - low) / np.where(span > 0, span, 1.0), np.nan)
