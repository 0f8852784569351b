"""Price games between sellers and one coalition: demand on smooth pieces, residual sales, best residual price.

Prices in $/PRB, quantities in PRBs, everything NumPy float64 and batched over G games. `pricing` builds the
equilibria on these parts, `mixing` the distributions of the mixed regime.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketenvs.markets.coalition_trading.values import Curves, demand_each, demand_slope

Floats = NDArray[Any]  # float64 unless said otherwise

NODES = 17  # price nodes on each smooth piece when looking for the best residual price
BISECTIONS = 56
REGIMES = ("monopoly", "floor", "pure", "mixed", "mixed+atom")
MONOPOLY, FLOOR, PURE, MIXED, MIXED_ATOM = range(5)


class Game(NamedTuple):
    """A batch of price games, one coalition each.

    Attributes:
        curves: fields (G, N).
        member: bool (G, N), the coalition's members.
        sellers: number of identical sellers M.
        capacity: PRBs the seller under study can sell, (G,).
        rival: PRBs each of its rivals can sell, (G,); differs from ``capacity`` only in the duopoly of `duopoly`.
        cost: unit cost, $/PRB, (G,).
        low: lowest price of the box, raised to the cost where that is higher, (G,).
        high: highest price, (G,).
    """

    curves: Curves
    member: Floats
    sellers: int
    capacity: Floats
    rival: Floats
    cost: Floats
    low: Floats
    high: Floats

    def take(self, rows: Floats) -> Game:
        """The games of ``rows`` (indices or mask)."""
        return Game(
            Curves(*(f[rows] for f in self.curves)),
            self.member[rows],
            self.sellers,
            *(f[rows] for f in (self.capacity, self.rival, self.cost, self.low, self.high)),
        )


def make_game(
    curves: Curves, member: Floats, sellers: int, capacity: Floats, cost: Floats, low: Floats, high: Floats
) -> Game:
    """Broadcast a batch of games to one leading axis.

    Args:
        curves: fields (N,) or (G, N).
        member: bool (N,) or (G, N).
        sellers: number of identical sellers, at least 1.
        capacity: PRBs per seller, scalar or (G,), positive.
        cost: $/PRB, scalar or (G,), below ``high``.
        low: lowest price, $/PRB, positive.
        high: highest price, $/PRB.

    Raises:
        ValueError: naming the culprit when a capacity, cost or price box makes no game.
    """
    if sellers < 1:
        raise ValueError(f"sellers must be at least 1, got {sellers}")
    member = np.atleast_2d(np.asarray(member, bool))
    scalars = [np.asarray(x, float) for x in (capacity, cost, low, high)]
    rows = np.broadcast_shapes(member.shape[:1], np.atleast_2d(curves.need).shape[:1], *(x.shape for x in scalars))[0]
    size = (rows, member.shape[1])
    fields = Curves(*(np.broadcast_to(f, size) for f in curves))
    capacity, cost, low, high = (np.broadcast_to(x, (rows,)) for x in scalars)
    for name, good in (
        ("capacity must be positive", capacity > 0),
        ("low must be positive", low > 0),
        ("low must not exceed high", low <= high),
        ("cost must be nonnegative and below high", (cost >= 0) & (cost < high)),
    ):
        if not np.all(good):
            raise ValueError(f"price game: {name} (game {int(np.argmin(good))})")
    return Game(fields, np.broadcast_to(member, size), sellers, capacity, capacity, cost, np.maximum(low, cost), high)


def coalition_demand(game: Game, price: Floats, right: Floats | None = None, slope: bool = False) -> tuple:
    """Demand D of each game's coalition.

    Args:
        game: G games.
        price: (G, ...) prices.
        right: (G, ...) right end of the smooth piece the price belongs to; who buys is decided there, which gives the
            right limit at the piece's left end. Default: the price itself.
        slope: also return dD/dp.

    Returns:
        ``(D,)`` or ``(D, dD/dp)``, shape of ``price``.
    """
    extra = (1,) * (price.ndim - 1)
    curves = Curves(*(f.reshape(f.shape[0], *extra, f.shape[1]) for f in game.curves))
    member = game.member.reshape(game.member.shape[0], *extra, -1)
    edge = price if right is None else np.broadcast_to(right, price.shape)
    each = demand_each(curves, price[..., None], active=member & (edge[..., None] <= curves.choke_price))
    total = each.sum(axis=-1)
    if not slope:
        return (total,)
    return total, demand_slope(curves, each).sum(axis=-1)


def column(values: Floats, like: Floats) -> Floats:
    """Per-game values (G,) shaped to broadcast against (G, ...)."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))


def clearing_price(game: Game, amount: Floats) -> Floats:
    """Highest price in the box at which demand still reaches ``amount``, (G, k); ``low`` where it never does."""
    low = np.broadcast_to(game.low[:, None], amount.shape).copy()
    high = np.broadcast_to(game.high[:, None], amount.shape).copy()
    reached = coalition_demand(game, high)[0] >= amount
    low = np.where(reached, high, low)
    for _ in range(BISECTIONS):
        mid = 0.5 * (low + high)
        enough = coalition_demand(game, mid)[0] >= amount
        low, high = np.where(enough, mid, low), np.where(enough, high, mid)
    return low


def edges_of(game: Game, *more: Floats) -> Floats:
    """Ends of the smooth pieces of demand and of its clipped residuals, sorted, (G, E); ``low`` appears twice."""
    ahead = np.arange(game.sellers) * game.rival[:, None]
    steps = ahead + game.capacity[:, None]
    if np.any(game.rival != game.capacity):
        steps = np.concatenate([steps, ahead[:, 1:]], axis=1)
    columns = [
        np.stack([game.low, game.low, game.high], axis=1),
        np.clip(game.curves.choke_price, game.low[:, None], game.high[:, None]),
        clearing_price(game, steps),
        *(m[:, None] for m in more),
    ]
    return np.sort(np.concatenate(columns, axis=1), axis=1)


def nodes_on(edges: Floats, count: int) -> tuple[Floats, Floats]:
    """Price nodes (G, E - 1, count) on each piece, ends included and denser there, and right ends (G, E - 1, 1)."""
    grid = 0.5 - 0.5 * np.cos(np.pi * np.arange(count) / (count - 1))
    left, right = edges[:, :-1, None], edges[:, 1:, None]
    price = left + (right - left) * grid
    price[..., -1] = edges[:, 1:]
    return price, right


def sales_after(game: Game, demand: Floats) -> Floats:
    """Sales of a seller with a = 0..M-1 cheaper rivals, (..., M): clip(D - a K, 0, K)."""
    capacity, rival = (column(k, demand)[..., None] for k in (game.capacity, game.rival))
    return np.clip(demand[..., None] - np.arange(game.sellers) * rival, 0.0, capacity)


def binomial(trials: int, chance: Floats) -> Floats:
    """Binomial probabilities (..., trials + 1), by the stable recursion over trials."""
    chance = np.asarray(chance, float)
    weights = np.ones((*chance.shape, 1))
    for _ in range(trials):
        grown = np.zeros((*chance.shape, weights.shape[-1] + 1))
        grown[..., :-1] += weights * (1.0 - chance[..., None])
        grown[..., 1:] += weights * chance[..., None]
        weights = grown
    return weights


def expected_sales(game: Game, demand: Floats, cheaper: Floats) -> Floats:
    """Expected sales when each rival is cheaper with probability ``cheaper`` (no ties), shape of ``demand``."""
    return np.sum(binomial(game.sellers - 1, cheaper) * sales_after(game, demand), axis=-1)


def best_residual(game: Game) -> tuple[Floats, Floats]:
    """Best profit pi on the residual demand left by M - 1 cheaper rivals, and its largest best price p_H, (G,) each."""
    rows = np.arange(game.low.size)
    price, right = nodes_on(edges_of(game), NODES)
    rivals = (game.sellers - 1) * game.rival

    def profit(p: Floats, edge: Floats) -> tuple[Floats, Floats]:
        demand, slope = coalition_demand(game, p, edge, slope=True)
        capacity = column(game.capacity, p)
        left = demand - column(rivals, p)
        sold = np.clip(left, 0.0, capacity)
        inner = (left > 0) & (left < capacity)
        margin = p - column(game.cost, p)
        return margin * sold, sold + margin * np.where(inner, slope, 0.0)

    level, _ = profit(price, right)
    flat = level.reshape(rows.size, -1)
    best = flat.shape[1] - 1 - np.argmax(flat[:, ::-1], axis=1)
    piece, node = best // NODES, best % NODES
    top, at = flat[rows, best], price[rows, piece, node]
    # A stationary point may lie between the neighbours of the best node: bisect on the sign of the slope.
    edge = right[rows, piece, 0]
    low, high = price[rows, piece, np.maximum(node - 1, 0)], price[rows, piece, np.minimum(node + 1, NODES - 1)]
    for _ in range(BISECTIONS):
        mid = 0.5 * (low + high)
        rising = profit(mid, edge)[1] > 0
        low, high = np.where(rising, mid, low), np.where(rising, high, mid)
    polished = profit(low, edge)[0]
    return np.maximum(top, polished), np.where(polished >= top, low, at)


class PriceEquilibrium(NamedTuple):
    """Symmetric price equilibria of G games.

    Attributes:
        regime: index into `REGIMES`, (G,).
        low_price: lowest price of the support p_L, (G,).
        high_price: highest price of the support p_H, (G,).
        atom: probability of the lowest price of the box (1 in the floor regime), (G,).
        profit: each seller's expected profit, $, (G,).
        surplus: the coalition's expected surplus before signalling cost, $, (G,).
        quantity: expected PRBs traded, (G,).
        mean_price: expected posted price, $/PRB, (G,).
        gap_start, gap_end, gap_level: price intervals without probability and the distribution's level there, (G, Q);
            padded with empty intervals at ``high_price``.
        epsilon: largest gain found for a seller over the closed candidate set, $, (G,).
    """

    regime: NDArray[np.int64]
    low_price: Floats
    high_price: Floats
    atom: Floats
    profit: Floats
    surplus: Floats
    quantity: Floats
    mean_price: Floats
    gap_start: Floats
    gap_end: Floats
    gap_level: Floats
    epsilon: Floats


def matched_at_low(game: Game, demand: Floats, atom: Floats) -> Floats:
    """Profit at the lowest price when each rival posts it too with probability ``atom``, (G,); ties share equally."""
    together = binomial(game.sellers - 1, atom)
    shares = np.minimum(game.capacity[:, None], demand[:, None] / np.arange(1, game.sellers + 1))
    return (game.low - game.cost) * np.sum(together * shares, axis=1)
