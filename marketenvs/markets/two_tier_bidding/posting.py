"""The infrastructure as a price leader: which posted prices earn most when operators answer with their equilibrium.

Followers' equilibria are unique given the prices (spec 5.2), so the leader's problem is a search over M prices. Revenue
depends on prices only through their ratios while no bid is at a bound, and in shares it is separable:
``sum_m c_m v'(c_m)(1 - c_m/C)``. The search starts at the maximiser of that sum and at the efficient prices, then moves
one price at a time on a shrinking grid. A lower bound of the leader's gain: never certified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...strategy import BestResponse
from . import oracle
from .values import marginal

if TYPE_CHECKING:
    from .game import Game

_POINTS, _SWEEPS = 17, 6


class Lead(NamedTuple):
    """Prices found, (B, 1, M), their revenue (B,) and the gain still found against them (B,)."""

    prices: np.ndarray
    revenue: np.ndarray
    epsilon: np.ndarray
    method: str


def revenue(game: Game, prices: np.ndarray) -> np.ndarray:
    """Revenue (P, B) at prices (P, B, M) when operators re-equilibrate."""
    from . import solve

    if game.analytic:
        trials, batch, m = prices.shape
        auction = game.auction({"posting": np.ones((game.batch, 1, m))})
        tiled = auction._replace(
            values=auction.values._replace(
                weight=np.tile(auction.values.weight, (trials, 1)), snr=np.tile(auction.values.snr, (trials, 1))
            ),
            bandwidth=np.tile(auction.bandwidth, (trials, 1)),
            price=prices.reshape(-1, m),
            floor=np.tile(auction.floor, (trials, 1)),
            cap=np.tile(auction.cap, (trials, 1)),
        )
        solution = oracle.equilibrium(tiled)
        return solution.outcome.payments.sum(-1).reshape(trials, batch)
    out = []
    for price in prices:
        prefix = {"posting": price[:, None, :]}
        bids = solve.bidding(game, prefix).decisions
        flat = bids[:, 0, :] if game.params.control == "central" else bids[..., 0]
        out.append((price * flat).sum(-1))
    return np.stack(out)


def lead(game: Game) -> Lead:
    """Prices of most revenue found."""
    low, high = _box(game)
    starts = np.clip(np.stack(_starts(game)), low, high)
    worth = revenue(game, starts)
    at = worth.argmax(0)
    prices = np.take_along_axis(starts, at[None, :, None], 0)[0]
    best = worth.max(0)
    before = best
    for sweep in range(_SWEEPS):
        before = best
        prices, best = _sweep(game, prices, best, low, high, 0.5**sweep)
    gain = np.maximum(best - before, 0.0)
    return Lead(prices[:, None, :], best, gain, f"price search, {_SWEEPS} sweeps of {_POINTS} prices")


def best_reply(game: Game, posted: np.ndarray) -> BestResponse:
    """The leader's best prices found; the gain is a lower bound."""
    current = revenue(game, posted[None, :, 0, :])[0]
    found = lead(game)
    gain = np.maximum(found.revenue - current, 0.0)[:, None]
    prices = np.where(gain[..., None] > 0, found.prices, posted)
    upper = np.full_like(gain, np.inf)
    return BestResponse(prices, current[:, None] + gain, gain, upper, "estimate", found.method)


def _box(game: Game) -> tuple[np.ndarray, np.ndarray]:
    low, high = game.market.bounds(game.state, "posting")
    shape = (game.batch, game.operators)
    return np.broadcast_to(low[:, 0, :], shape), np.broadcast_to(high[:, 0, :], shape)


def _starts(game: Game) -> list[np.ndarray]:
    """Uniform prices at three scales, efficient prices, and those of the separable maximiser."""
    shape = (game.batch, game.operators)
    low, high = _box(game)
    starts = [np.full(shape, 1.0), low.copy(), high.copy()]
    auction = game.auction({"posting": np.ones((game.batch, 1, game.operators))})
    if auction.values.kind == "linear":
        return starts
    target, _ = oracle.social_optimum(auction)
    starts.append(1.0 - target / auction.bandwidth)
    # water-filling of the slopes of r(c) = c v'(c)(1 - c/C) on a grid of c, for all operators at once
    c = np.linspace(1e-6, 1.0, 801)[:, None, None] * auction.bandwidth
    worth = c * marginal(auction.values, c) * (1.0 - c / auction.bandwidth)
    slope = np.maximum.accumulate(-np.diff(worth, axis=0), axis=0)  # rising, so each level has one crossing
    down, up = slope.min((0, 2)) - 1.0, slope.max((0, 2)) + 1.0
    for _ in range(60):
        mid = 0.5 * (down + up)
        share = c[np.minimum((slope < mid[:, None]).sum(0), 800), 0, 0]
        over = share.sum(-1) > auction.bandwidth[:, 0]
        up, down = np.where(over, mid, up), np.where(over, down, mid)
    share = share * auction.bandwidth / share.sum(-1, keepdims=True)
    starts.append(np.clip(oracle.posted_price(auction, np.minimum(share, 0.999 * auction.bandwidth)), low, high))
    return starts


def _sweep(
    game: Game, prices: np.ndarray, best: np.ndarray, low: np.ndarray, high: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """One pass over the prices: each in turn to the best of a geometric grid around its value."""
    span = np.log(high / low) * width
    for m in range(game.operators):
        grid = np.repeat(prices[None], _POINTS, 0)
        factor = np.exp(np.linspace(-0.5, 0.5, _POINTS)[:, None] * span[:, m])
        grid[..., m] = np.clip(prices[:, m] * factor, low[:, m], high[:, m])
        worth = revenue(game, grid)
        at = worth.argmax(0)
        top = worth.max(0)
        better = top > best
        moved = np.take_along_axis(grid, at[None, :, None], 0)[0]
        prices = np.where(better[:, None], moved, prices)
        best = np.where(better, top, best)
    return prices, best
