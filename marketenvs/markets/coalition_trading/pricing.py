"""Sellers' price competition for one coalition: Bertrand-Edgeworth equilibria in every regime, batched over games.

Identical sellers (capacity K, unit cost c) post prices in [low, high]; one optimising coalition with demand D buys
cheapest first. Its demand falls, jumps down where a tenant drops out (choke price) and is left-continuous. A seller
with ``a`` cheaper rivals sells ``clip(D(p) - a K, 0, K)``; for a single buyer this efficient rationing is exact, not
assumed.

Regimes, with pi the best profit on the residual demand and t the profit when everybody posts the lowest price:

    monopoly  M = 1                       best price on min(D, K)
    floor     t >= pi                     everybody posts the lowest price
    pure      pi sells all of K           everybody posts p_H (market clearing)
    mixed     otherwise                   an ironed distribution on [p_L, p_H], maybe with an atom at the lowest price

Source: spec section 5; Kreps and Scheinkman (1983), Levitan and Shubik (1972) for the smooth case. Everything here is
NumPy float64, prices in $/PRB, quantities in PRBs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marketenvs.markets.coalition_trading.games import (
    FLOOR,
    MIXED,
    MIXED_ATOM,
    MONOPOLY,
    NODES,
    PURE,
    Game,
    PriceEquilibrium,
    best_residual,
    coalition_demand,
    column,
    edges_of,
    expected_sales,
    matched_at_low,
    nodes_on,
)
from marketenvs.markets.coalition_trading.mixing import distribution, quantile, solve_mixed
from marketenvs.markets.coalition_trading.values import coalition_value

Floats = NDArray[Any]  # float64 unless said otherwise

PROBES = 16  # quantiles of the support whose profit is checked


def price_equilibrium(game: Game) -> PriceEquilibrium:
    """Exact symmetric equilibrium of every game in the batch (see the module docstring for the regimes)."""
    margin = game.low - game.cost
    best, top_price = best_residual(game)
    at_low = coalition_demand(game, game.low[:, None])[0][:, 0]
    at_top = coalition_demand(game, top_price[:, None])[0][:, 0]
    shared = margin * np.minimum(game.capacity, at_low / game.sellers)
    clears = at_top - (game.sellers - 1) * game.rival >= game.capacity * (1.0 - 1e-12)
    alone = margin * np.minimum(game.capacity, at_low)

    regime = np.where(alone > best, MIXED_ATOM, MIXED)
    regime = np.where(clears, PURE, regime)
    regime = np.where(shared >= best, FLOOR, regime)
    if game.sellers == 1:
        regime = np.full_like(regime, MONOPOLY)

    floor = regime == FLOOR
    price = np.where(floor, game.low, top_price)
    bought = np.minimum(np.where(floor, at_low, at_top), game.sellers * game.capacity)
    profit = np.where(floor, shared, best)
    surplus = coalition_value(game.curves, game.member, bought) - price * bought
    pure = PriceEquilibrium(
        regime=regime,
        low_price=price.copy(),
        high_price=price.copy(),
        atom=np.where(floor, 1.0, 0.0),
        profit=profit,
        surplus=surplus,
        quantity=bought,
        mean_price=price.copy(),
        gap_start=price[:, None],
        gap_end=price[:, None],
        gap_level=np.ones((price.size, 1)),
        epsilon=np.zeros_like(profit),
    )
    mixed = np.flatnonzero(regime >= MIXED)
    if mixed.size:
        pure = solve_mixed(game.take(mixed), best[mixed], top_price[mixed], pure, mixed)
    return pure._replace(epsilon=seller_gain(game, pure))


def seller_gain(game: Game, found: PriceEquilibrium) -> Floats:
    """Largest gain of one seller against the others' distribution, over a dense closed set of prices, (G,).

    Prices: every end of a smooth piece (left and right limits), nodes inside each piece, the ends of the support and of
    its gaps. Rivals' prices enter only through the probability of being cheaper, so each value is exact, not sampled.
    A price the seller does play and that earns less than the claimed profit counts as well.
    """
    more = (found.low_price, found.high_price, *found.gap_start.T, *found.gap_end.T)
    edges = np.clip(edges_of(game, *more), game.low[:, None], game.high[:, None])
    price, right = nodes_on(edges, NODES)
    demand = coalition_demand(game, price, right)[0]
    # Prices on a piece's left end are limits from above, the others limits from below: rivals exactly at the price
    # are cheaper in the first case and not in the second, so atoms are undercut and overcut, never matched.
    cheaper = distribution(game, found, price, right)
    value = (price - column(game.cost, price)) * expected_sales(game, demand, cheaper)
    best = value.reshape(value.shape[0], -1).max(axis=1)
    tied = matched_at_low(game, coalition_demand(game, game.low[:, None])[0][:, 0], found.atom)
    return np.maximum(np.maximum(np.maximum(best, tied) - found.profit, support_shortfall(game, found)), 0.0)


def support_shortfall(game: Game, found: PriceEquilibrium) -> Floats:
    """How much less than the claimed profit the worst of a seller's own prices earns (mixed regimes), $, (G,)."""
    short = np.zeros(found.profit.size)
    mixed = np.flatnonzero(found.regime >= MIXED)
    if mixed.size:
        part, rows = game.take(mixed), PriceEquilibrium(*(f[mixed] for f in found))
        chance = np.broadcast_to((np.arange(PROBES) + 0.5) / PROBES, (mixed.size, PROBES))
        price = quantile(part, rows, chance)
        demand = coalition_demand(part, price)[0]
        value = (price - part.cost[:, None]) * expected_sales(part, demand, distribution(part, rows, price))
        low = matched_at_low(part, coalition_demand(part, part.low[:, None])[0][:, 0], rows.atom)
        value = np.where(price <= part.low[:, None], low[:, None], value)
        short[mixed] = rows.profit - value.min(axis=1)
    return short
