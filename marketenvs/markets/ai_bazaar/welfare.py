"""Optima that are no equilibria: social optima, one-sided optima (the paper's Fig. 8a) and maximin play.

Two welfares are reported. *Utility* welfare is the sum of all payoffs; since a consumer weighs money by u_i, payments
do not cancel in it. *Resource* welfare leaves payments out: sum_i (K_i - C) F_i + sum_i R_i x_i / S.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from .followers import best_response, consumer_payoff, mining_shares, provider_payoff
from .game import BoolArray, FloatArray, Game

#: Up to this many consumers of unequal reward every order of them is looked at, beyond it a sample of orders.
MOST_CONSUMERS = 150
_SAMPLED_ORDERS = 2048


class Optimum(NamedTuple):
    """The best that a planner reaches in B markets."""

    value: FloatArray  # (B,)
    price: FloatArray  # (B,) money per unit; NaN where it does not matter
    purchases: FloatArray  # (B, n) units
    attained: BoolArray  # (B,) false: a supremum, approached as the purchases fall to those given
    exact: BoolArray  # (B,) false: the best of many candidates only


def welfare_utility(game: Game, price: FloatArray, purchases: FloatArray) -> FloatArray:
    """Sum of everybody's payoff, (B,): sum_i U_i + U_cpp (tokens and money added as they stand)."""
    return consumer_payoff(game, price, purchases).sum(axis=1) + provider_payoff(game, price, purchases)


def welfare_resource(game: Game, purchases: FloatArray) -> FloatArray:
    """Welfare without payments, (B,): sum_i (K_i - C) F_i + sum_i R_i x_i / S."""
    mined = (game.reward * mining_shares(game, purchases)).sum(axis=1)
    return ((game.business_margin - game.unit_cost[:, None]) * purchases).sum(axis=1) + mined


def social_optimum(game: Game, kind: Literal["utility", "resource"] = "resource") -> Optimum:
    """The largest welfare over prices and purchases.

    Args:
        game: B markets.
        kind: which welfare. Utility welfare is linear in the price, so its best price is p_min or p_max.

    Returns:
        The optimum, exact for equal rewards or up to ``MOST_CONSUMERS`` consumers.
    """
    if kind == "resource":
        best = largest_surplus(game, game.business_margin - game.unit_cost[:, None])
        return best._replace(price=np.full(game.markets, np.nan))
    if kind != "utility":
        raise ValueError(f"kind must be 'utility' or 'resource', got {kind!r}")
    at_low, at_high = (
        largest_surplus(game, -game.net_cost(price) + (price - game.unit_cost)[:, None])
        for price in (game.price_low, game.price_high)
    )
    low = at_low.value >= at_high.value
    return Optimum(
        value=np.where(low, at_low.value, at_high.value),
        price=np.where(low, game.price_low, game.price_high),
        purchases=np.where(low[:, None], at_low.purchases, at_high.purchases),
        attained=np.where(low, at_low.attained, at_high.attained),
        exact=at_low.exact & at_high.exact,
    )


def provider_optimum(game: Game) -> Optimum:
    """What the provider would choose if it set the purchases too (Fig. 8a): p_max, and F_max unless it loses by it."""
    margin = game.price_high - game.unit_cost
    bought = np.where((margin >= 0)[:, None], game.purchase_high, game.purchase_low)
    yes = np.ones(game.markets, dtype=bool)
    return Optimum(provider_payoff(game, game.price_high, bought), game.price_high.copy(), bought, yes, yes)


def consumers_optimum(game: Game, price: FloatArray | None = None) -> Optimum:
    """What the consumers as one cartel would choose (Fig. 8a): the largest sum of their payoffs.

    Args:
        game: B markets.
        price: (B,) the price they face; left out, they choose it too, which is p_min.
    """
    faced = game.price_low if price is None else np.asarray(price, dtype=float)
    return largest_surplus(game, -game.net_cost(faced))._replace(price=faced.copy())


def maximin_profile(game: Game, price: FloatArray | None = None) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Everybody's safest play: the fixed point of MiniMax-Q, in general not an equilibrium.

    U_cpp rises in every purchase and U_i falls in the rivals' effort, so the provider fears F_min (F_max below cost)
    and its safest price is p_max; a consumer answers all rivals buying F_max.

    Args:
        game: B markets.
        price: (B,) the price at which the consumers play; p_max if left out.

    Returns:
        The provider's price (B,), the consumers' purchases at ``price`` (B, n), and the consumers' guaranteed payoffs
        there (B, n).
    """
    faced = game.price_high if price is None else np.asarray(price, dtype=float)
    bought = best_response(game, faced, game.purchase_high)
    guaranteed = np.empty(bought.shape)
    for i in range(game.consumers):
        feared = game.purchase_high.copy()
        feared[:, i] = bought[:, i]
        guaranteed[:, i] = consumer_payoff(game, faced, feared)[:, i]
    return game.price_high.copy(), bought, guaranteed


def largest_surplus(game: Game, gain: FloatArray) -> Optimum:
    """Maximise sum_i gain_i F_i + sum_i R_i x_i / S over the purchase boxes.

    For a given S this is a fractional knapsack: efforts are filled up in the order of gain_i / beta_i + R_i / S, and at
    most one consumer is strictly inside its box. As S varies the order changes only where two of these terms are
    equal, O(n^2) times; all orders, and in each the n candidates for the inner consumer, are looked at.

    Args:
        game: B markets.
        gain: (B, n) tokens per unit.

    Returns:
        The optimum (``price`` NaN).
    """
    value, attained = np.empty(game.markets), np.ones(game.markets, dtype=bool)
    exact, bought = np.ones(game.markets, dtype=bool), np.empty(gain.shape)
    for b in range(game.markets):
        beta, reward = game.mining_ratio[b], game.reward[b]
        low, high = game.purchase_low[b], game.purchase_high[b]
        works = beta > 0
        bought[b] = np.where(gain[b] > 0, high, low)
        idle = float((gain[b] * bought[b])[~works].sum())
        value[b] = idle
        if not works.any():
            continue
        slope, prize = gain[b, works] / beta[works], reward[works]
        least, most = (beta * low)[works], (beta * high)[works]
        efforts, best, exact[b] = _best_efforts(slope, prize, least, most)
        bought[b, works] = np.clip(efforts / beta[works], low[works], high[works])
        value[b] = idle + best
        limit = float(np.where(most > 0, prize, 0.0).max())
        if least.sum() <= 0 and limit > best:  # the smallest positive effort of one consumer wins its whole reward
            bought[b, works], value[b], attained[b] = low[works], idle + limit, False
    return Optimum(value, np.full(game.markets, np.nan), bought, attained, exact)


def _best_efforts(
    slope: FloatArray, prize: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[FloatArray, float, bool]:
    """Maximise slope . x + prize . x / sum(x) over low <= x <= high in one market: optimum, value, exactness."""
    n = slope.size
    orders, exact = _orders(slope, prize)
    s, r, lo, hi = slope[orders], prize[orders], low[orders], high[orders]

    def before(a: FloatArray) -> FloatArray:
        return np.cumsum(a, axis=1) - a

    def after(a: FloatArray) -> FloatArray:
        return np.cumsum(a[:, ::-1], axis=1)[:, ::-1] - a

    rest = before(hi) + after(lo)
    linear, mined = before(s * hi) + after(s * lo), before(r * hi) + after(r * lo)
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = np.sqrt((r * rest - mined) / -s) - rest
    inner = np.where(np.isfinite(inner) & (s < 0), np.clip(inner, lo, hi), lo)
    options = np.stack([lo, inner, hi])  # of consumer k of each order; those before it are full, those after it empty
    total = options + rest
    shares = (mined + r * options) / np.where(total > 0, total, 1.0)
    values = linear + s * options + np.where(total > 0, shares, 0.0)
    which, order, position = np.unravel_index(int(np.argmax(values)), values.shape)
    efforts = np.empty(n)
    placed = np.where(np.arange(n) < position, hi[order], lo[order])
    placed[position] = options[which, order, position]
    efforts[orders[order]] = placed
    total_effort = efforts.sum()
    mined_best = float(prize @ efforts / total_effort) if total_effort > 0 else 0.0
    return efforts, float(slope @ efforts) + mined_best, exact


def _orders(slope: FloatArray, prize: FloatArray) -> tuple[np.ndarray, bool]:
    """All orders (M, n) of slope_i + prize_i t, best first, for t = 1/S > 0; and whether they are all."""
    i, j = np.triu_indices(slope.size, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = (slope[j] - slope[i]) / (prize[i] - prize[j])
    crossings = np.unique(crossings[np.isfinite(crossings) & (crossings > 0)])
    exact = slope.size <= MOST_CONSUMERS or crossings.size <= _SAMPLED_ORDERS
    if not exact:
        crossings = crossings[np.linspace(0, crossings.size - 1, _SAMPLED_ORDERS).astype(np.int64)]
    if crossings.size == 0:
        middles = np.ones(1)
    else:
        between = 0.5 * (crossings[1:] + crossings[:-1])
        middles = np.concatenate([[0.5 * crossings[0]], between, [2 * crossings[-1]]])
    scores = slope + prize * middles[:, None]
    return np.argsort(-scores, axis=1, kind="stable"), exact
