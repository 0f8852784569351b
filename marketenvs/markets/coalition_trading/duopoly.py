"""Price competition of two sellers with different capacities and one unit cost (asymmetric Bertrand-Edgeworth).

The larger seller's residual profit sets the game: pi_1 = max (p - c) clip(D - K_2, 0, K_1), reached at p_H. When mixed,
each distribution makes the other seller indifferent, both start at p_L, and the larger seller keeps an atom at
p_H. Each is ironed like in `mixing`. Where an atom at the lowest price would be needed, or where the two distributions
would need gaps in different places, this construction is no equilibrium: the certificate says so (``epsilon``).

Source: spec section 5 (unequal capacities); Kreps and Scheinkman (1983), lemma 6, for smooth demand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketenvs.markets.coalition_trading.games import (
    FLOOR,
    MIXED,
    NODES,
    PURE,
    Game,
    PriceEquilibrium,
    best_residual,
    coalition_demand,
    column,
    edges_of,
    nodes_on,
    sales_after,
)
from marketenvs.markets.coalition_trading.mixing import FINE, GAUSS, _first_reaching, _gaps, distribution, quantile
from marketenvs.markets.coalition_trading.values import coalition_value

Floats = NDArray[Any]  # float64 unless said otherwise

PROBES = 16


class DuopolyEquilibrium(NamedTuple):
    """Equilibria of G duopolies; axis 1 is the seller in the caller's order.

    Attributes:
        regime: index into `games.REGIMES`, (G,).
        low_price: lowest price of the support, (G,).
        high_price: highest price, (G,).
        atom: probability of ``high_price``, (G, 2) (1 in pure regimes).
        profit: expected profits, $, (G, 2).
        surplus: expected coalition surplus before signalling cost, $, (G,).
        quantity: expected PRBs sold, (G, 2).
        mean_price: expected posted prices, (G, 2).
        epsilon: largest gain of a seller, or shortfall on its own support, $, (G,); inf where an atom at the lowest
            price would be needed, which this construction does not offer.
        sides: for the larger and the smaller seller, the game and equilibrium whose `mixing.distribution` is its CDF.
        order: column of the larger and of the smaller seller, (G, 2).
    """

    regime: NDArray[np.int64]
    low_price: Floats
    high_price: Floats
    atom: Floats
    profit: Floats
    surplus: Floats
    quantity: Floats
    mean_price: Floats
    epsilon: Floats
    sides: tuple[tuple[Game, PriceEquilibrium], tuple[Game, PriceEquilibrium]]
    order: NDArray[np.int64]

    def cdf(self, price: Floats) -> Floats:
        """CDFs of both sellers (G, k, 2) at prices (G, k)."""
        values = np.stack([distribution(game, side, price) for game, side in self.sides], axis=-1)
        return np.take_along_axis(values, np.argsort(self.order, axis=1)[:, None, :], axis=2)

    def sample(self, chance: Floats) -> Floats:
        """Prices (G, k, 2) at uniform draws (G, k, 2), one column per seller."""
        ordered = np.take_along_axis(chance, self.order[:, None, :], axis=2)
        values = np.stack([quantile(*side, ordered[..., i]) for i, side in enumerate(self.sides)], axis=-1)
        return np.take_along_axis(values, np.argsort(self.order, axis=1)[:, None, :], axis=2)


def duopoly_equilibrium(game: Game, capacities: Floats) -> DuopolyEquilibrium:
    """Equilibrium of two sellers with ``capacities`` (G, 2), any order.

    Args:
        game: G games with two sellers; its own capacities are ignored.
        capacities: PRBs of each seller, positive.

    Raises:
        ValueError: when the game has not exactly two sellers.
    """
    if game.sellers != 2:
        raise ValueError(f"duopoly_equilibrium needs 2 sellers, got {game.sellers}")
    order = np.argsort(-capacities, axis=1, kind="stable")
    large, small = np.take_along_axis(capacities, order, axis=1).T
    first = game._replace(capacity=large, rival=small)
    second = game._replace(capacity=small, rival=large)
    margin = game.low - game.cost

    best, top = best_residual(first)
    other, _ = best_residual(second)
    at_low, at_top = (coalition_demand(game, p[:, None])[0][:, 0] for p in (game.low, top))
    share = np.minimum(1.0, at_low / (large + small))
    floor = (margin * large * share >= best) & (margin * small * share >= other)
    regime = np.where(floor, FLOOR, np.where(at_top >= (large + small) * (1.0 - 1e-12), PURE, MIXED))

    price, right = nodes_on(edges_of(first), FINE)
    start = _first_reaching(first, best, price, right)
    at_start = coalition_demand(game, start[:, None])[0][:, 0]
    second_best = (start - game.cost) * np.minimum(small, at_start)
    fixed = np.where(floor, game.low, top)
    mixed = regime == MIXED
    start, top = np.where(mixed, start, fixed), np.where(mixed, top, fixed)
    served = np.minimum(1.0, np.where(floor, share, 1.0))
    profit_large = np.where(mixed, best, (fixed - game.cost) * large * served)
    profit_small = np.where(mixed, second_best, (fixed - game.cost) * small * served)

    # The smaller seller's prices keep the larger one indifferent, and the other way round.
    sides = []
    for view, target in ((second, profit_small), (first, profit_large)):
        gaps = [np.repeat(top[:, None], 1, 1), np.repeat(top[:, None], 1, 1), np.ones((top.size, 1))]
        rows = np.flatnonzero(mixed)
        if rows.size:
            found = _gaps(view.take(rows), target[rows], top[rows], np.zeros(rows.size), start[rows])
            gaps = [np.repeat(g[:, :1], found[0].shape[1], axis=1) for g in gaps]
            for whole, part in zip(gaps, found, strict=True):
                whole[rows] = part
        zero = np.zeros(top.size)
        floor_atom = np.where(floor, 1.0, 0.0)
        side = PriceEquilibrium(
            regime, start, top, floor_atom, target, zero, zero, zero, gaps[0], gaps[1], gaps[2], zero
        )
        sides.append((view, side))
    result = DuopolyEquilibrium(
        regime,
        start,
        top,
        np.zeros_like(capacities),
        np.stack([profit_large, profit_small], 1),
        start,
        capacities,
        capacities,
        start,
        (sides[0], sides[1]),
        order,
    )
    needs_atom = mixed & (margin * np.minimum(large, at_low) > best * (1.0 + 1e-12))
    result = _complete(game, result, large, small)
    return result._replace(epsilon=np.where(needs_atom, np.inf, result.epsilon))


def _complete(game: Game, out: DuopolyEquilibrium, large: Floats, small: Floats) -> DuopolyEquilibrium:
    """Moments by quadrature, the certificate, and everything in the caller's order of sellers."""
    views = (out.sides[1][0], out.sides[0][0])  # the larger and the smaller seller's own games
    cuts = [c for _, side in out.sides for c in (*side.gap_start.T, *side.gap_end.T)]
    edges = np.concatenate([edges_of(views[0], out.low_price, out.high_price, *cuts), edges_of(views[1])], axis=1)
    edges = np.sort(edges, axis=1)
    inner = np.clip(edges, out.low_price[:, None], out.high_price[:, None])

    knots, weights = np.polynomial.legendre.leggauss(GAUSS)
    left, right = inner[:, :-1, None], inner[:, 1:, None]
    price, weight = left + (right - left) * (0.5 + 0.5 * knots), (right - left) * 0.5 * weights
    demand = coalition_demand(game, price, right)[0]
    cdf = [distribution(*side, price, right) for side in out.sides]
    total = column(large + small, demand)
    held = [np.minimum(demand, column(k, demand)) for k in (large, small)]
    bought = cdf[0] * cdf[1] * np.minimum(demand, total)
    bought = bought + cdf[0] * (1.0 - cdf[1]) * held[0] + (1.0 - cdf[0]) * cdf[1] * held[1]
    at_top = np.minimum(coalition_demand(game, out.high_price[:, None])[0][:, 0], large + small)
    beyond = coalition_value(game.curves, game.member, at_top) - out.high_price * at_top
    surplus = np.sum(weight * bought, axis=(1, 2)) + beyond

    mean: list[Floats] = []
    traded: list[Floats] = []
    atom: list[Floats] = []
    gain = np.zeros(large.size)
    margin = price - column(game.cost, price)
    nodes, ends = nodes_on(np.clip(edges, game.low[:, None], game.high[:, None]), NODES)
    node_demand = coalition_demand(game, nodes, ends)[0]
    for i, view in enumerate(views):
        mean.append(out.high_price - np.sum(weight * cdf[i], axis=(1, 2)))
        inverse = 1.0 / (out.high_price - game.cost) + np.sum(weight * cdf[i] / margin**2, axis=(1, 2))
        traded.append(out.profit[:, i] * inverse)
        below = distribution(*out.sides[i], out.high_price[:, None], out.high_price[:, None])[:, 0]
        atom.append(np.where(out.regime == MIXED, 1.0 - below, 1.0))
        rival = distribution(*out.sides[1 - i], nodes, ends)
        sales = sales_after(view, node_demand)
        worth = (nodes - column(game.cost, nodes)) * ((1.0 - rival) * sales[..., 0] + rival * sales[..., 1])
        gain = np.maximum(gain, worth.reshape(large.size, -1).max(axis=1) - out.profit[:, i])
        # Its own prices must earn the claimed profit too.
        chance = np.broadcast_to((np.arange(PROBES) + 0.5) / PROBES, (large.size, PROBES))
        own = quantile(*out.sides[i], chance)
        sales = sales_after(view, coalition_demand(view, own)[0])
        at_own = distribution(*out.sides[1 - i], own)
        earned = (own - game.cost[:, None]) * ((1.0 - at_own) * sales[..., 0] + at_own * sales[..., 1])
        short = np.where(out.regime == MIXED, out.profit[:, i] - earned.min(axis=1), 0.0)
        gain = np.maximum(gain, short)
    back = np.argsort(out.order, axis=1)

    def turned(columns: list[Floats]) -> Floats:
        return np.take_along_axis(np.stack(columns, 1), back, axis=1)

    return out._replace(
        atom=turned(atom),
        profit=turned(list(out.profit.T)),
        quantity=turned(traded),
        mean_price=turned(mean),
        surplus=surplus,
        epsilon=np.where(out.regime == FLOOR, 0.0, gain),
    )
