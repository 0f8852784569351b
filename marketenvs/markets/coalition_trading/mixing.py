"""The mixed regime of `pricing`: distributions that leave every seller indifferent, ironed where demand jumps.

For a price p the indifference distribution solves (p - c) E[sales at p] = pi for the probability F that a rival is
cheaper; it may fall where demand jumps or bends. The equilibrium is its running maximum: flat pieces are gaps of the
support, and deviating into a gap earns at most pi because the distribution there lies above the indifference level.
With an atom at the lowest price the running maximum starts at the atom's size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marketenvs.markets.coalition_trading.games import (
    BISECTIONS,
    MIXED,
    MIXED_ATOM,
    Game,
    PriceEquilibrium,
    binomial,
    coalition_demand,
    column,
    edges_of,
    expected_sales,
    matched_at_low,
    nodes_on,
    sales_after,
)
from marketenvs.markets.coalition_trading.values import coalition_value

Floats = NDArray[Any]  # float64 unless said otherwise

FINE = 33  # nodes per smooth piece when looking for gaps
GAUSS = 80  # quadrature nodes per smooth piece of the distribution


def indifference(game: Game, price: Floats, demand: Floats, best: Floats) -> Floats:
    """Probability of a cheaper rival that makes ``price`` worth exactly ``best``, in [0, 1], shape of ``price``."""
    with np.errstate(divide="ignore"):
        target = column(best, price) / (price - column(game.cost, price))
    sales = sales_after(game, demand)
    alone, last = sales[..., 0], sales[..., -1]
    if game.sellers == 2:
        with np.errstate(all="ignore"):
            root = (alone - target) / (alone - last)
        return np.where(alone <= target, 0.0, np.where(last >= target, 1.0, np.clip(root, 0.0, 1.0)))
    low, high = np.zeros_like(price), np.ones_like(price)
    for _ in range(BISECTIONS):
        mid = 0.5 * (low + high)
        above = expected_sales(game, demand, mid) > target
        low, high = np.where(above, mid, low), np.where(above, high, mid)
    return np.where(alone <= target, 0.0, np.where(last >= target, 1.0, 0.5 * (low + high)))


def _atom(game: Game, demand: Floats, best: Floats) -> Floats:
    """Size of the atom at the lowest price: sharing it with the rivals who post it too earns exactly ``best``."""
    low, high = np.zeros_like(best), np.ones_like(best)
    for _ in range(BISECTIONS):
        mid = 0.5 * (low + high)
        above = matched_at_low(game, demand, mid) > best
        low, high = np.where(above, mid, low), np.where(above, high, mid)
    return 0.5 * (low + high)


def _first_reaching(game: Game, best: Floats, price: Floats, right: Floats) -> Floats:
    """Lowest price whose monopoly profit (p - c) min(K, D) reaches ``best``; ``price`` are sorted nodes (G, P, n)."""
    rows = np.arange(best.size)
    demand = coalition_demand(game, price, right)[0]
    alone = (price - column(game.cost, price)) * np.minimum(column(game.capacity, price), demand)
    reached = (alone >= column(best, price)).reshape(rows.size, -1)
    first = np.argmax(reached, axis=1)
    flat, edge = price.reshape(rows.size, -1), np.broadcast_to(right, price.shape).reshape(rows.size, -1)[rows, first]
    high = flat[rows, first]
    # The profit rises inside a piece only, so the crossing lies in the piece of the first node that reaches it.
    same_piece = first % price.shape[2] > 0
    low = np.where(same_piece, flat[rows, np.maximum(first - 1, 0)], high)
    for _ in range(BISECTIONS):
        mid = 0.5 * (low + high)
        bought = coalition_demand(game, mid[:, None], edge[:, None])[0][:, 0]
        enough = (mid - game.cost) * np.minimum(game.capacity, bought) >= best
        low, high = np.where(enough, low, mid), np.where(enough, mid, high)
    return high


def _peak(game: Game, best: Floats, low: Floats, high: Floats, edge: Floats) -> tuple[Floats, Floats]:
    """Where the indifference distribution peaks between ``low`` and ``high`` inside one piece, and its value there."""
    ladder = np.arange(game.sellers)
    for _ in range(BISECTIONS):
        mid = 0.5 * (low + high)
        demand, slope = coalition_demand(game, mid[:, None], edge[:, None], slope=True)
        level = indifference(game, mid[:, None], demand, best)
        left = demand[..., None] - ladder * game.capacity[:, None, None]
        inner = (left > 0) & (left < game.capacity[:, None, None])
        # The profit's price slope at fixed F decides the sign of dF/dp: profits fall in F.
        lost = np.sum(binomial(game.sellers - 1, level) * inner * slope[..., None], axis=-1)
        rising = (expected_sales(game, demand, level) + (mid - game.cost)[:, None] * lost)[:, 0] > 0
        low, high = np.where(rising, mid, low), np.where(rising, high, mid)
    demand = coalition_demand(game, low[:, None], edge[:, None])[0]
    return low, indifference(game, low[:, None], demand, best)[:, 0]


def _gap_end(game: Game, best: Floats, level: Floats, low: Floats, high: Floats, edge: Floats) -> Floats:
    """Price in [low, high] (one piece) where the indifference distribution climbs back to ``level``."""
    for _ in range(BISECTIONS):
        mid = 0.5 * (low + high)
        demand = coalition_demand(game, mid[:, None], edge[:, None])[0]
        below = indifference(game, mid[:, None], demand, best)[:, 0] < level
        low, high = np.where(below, mid, low), np.where(below, high, mid)
    return high


def _gaps(game: Game, best: Floats, top: Floats, atom: Floats, start: Floats) -> tuple[Floats, Floats, Floats]:
    """Gaps of the ironed distribution: starts, ends and levels, (G, Q), padded with empty gaps at ``top``."""
    size = best.size
    edges = np.minimum(edges_of(game, top, start), top[:, None])
    price, right = nodes_on(edges, FINE)
    demand = coalition_demand(game, price, right)[0]
    level = indifference(game, price, demand, best).reshape(size, -1)
    flat, edge = price.reshape(size, -1), np.broadcast_to(right, price.shape).reshape(size, -1)
    level = np.where(flat >= top[:, None], 1.0, level)
    ceiling = np.maximum(np.maximum.accumulate(level, axis=1), atom[:, None])
    # Before the support starts (no atom) nothing is ironed; a relative slack keeps rounding from opening gaps.
    ironed = (level < ceiling * (1.0 - 1e-13)) & (ceiling > 0)
    opens = ironed & ~np.pad(ironed, ((0, 0), (1, 0)))[:, :-1]
    closes = ~ironed & np.pad(ironed, ((0, 0), (1, 0)))[:, :-1]
    row, first = np.nonzero(opens)
    _, after = np.nonzero(closes)  # the last node is never ironed, so every gap closes
    if not row.size:
        return (np.repeat(top[:, None], 1, axis=1),) * 2 + (np.ones((size, 1)),)

    part, goal = game.take(row), best[row]
    last = np.maximum(first - 1, 0)
    at_atom = (atom[row] > 0) & (ceiling[row, first] <= atom[row])
    jump = (first % FINE == 0) & ~at_atom  # the first ironed node opens a new piece: demand jumped at its left end
    before = np.where(last % FINE > 0, last - 1, last)
    # `edge` of the node before the gap decides the piece; a gap inside a piece starts at a peak around that node.
    same = last // FINE == first // FINE
    left = np.where(
        (before // FINE == first // FINE), flat[row, before], np.where(same, flat[row, last], flat[row, first])
    )
    peak, height = _peak(part, goal, left, flat[row, first], edge[row, first])
    begin = np.where(jump, flat[row, first], peak)
    height = np.where(jump, level[row, last], height)
    begin, height = np.where(at_atom, game.low[row], begin), np.where(at_atom, atom[row], height)
    start_of = np.where(after % FINE == 0, flat[row, after], flat[row, after - 1])
    end = _gap_end(part, goal, height, start_of, flat[row, after], edge[row, after])

    slot = np.arange(row.size) - np.searchsorted(row, row)
    width = int(slot.max()) + 1
    starts, ends, levels = np.repeat(top[:, None], width, 1), np.repeat(top[:, None], width, 1), np.ones((size, width))
    starts[row, slot], ends[row, slot], levels[row, slot] = begin, end, height
    return starts, ends, levels


def distribution(game: Game, found: PriceEquilibrium, price: Floats, right: Floats | None = None) -> Floats:
    """Distribution function of a seller's price.

    Args:
        game: G games.
        found: their equilibria.
        price: (G, ...).
        right: right end of the smooth piece of each price. With it, a price at a piece's left end is a limit from above
            and any other a limit from below; without it the function is the right-continuous CDF.

    Returns:
        Probability of a price at most ``price`` (with ``right``: just below it, except at left ends), same shape.
    """
    mixed = np.flatnonzero(found.regime >= MIXED)
    result = np.zeros(price.shape)
    if mixed.size:
        part = game.take(mixed)
        edge = None if right is None else np.broadcast_to(right, price.shape)[mixed]
        demand = coalition_demand(part, price[mixed], edge)[0]
        result[mixed] = indifference(part, price[mixed], demand, found.profit[mixed])
    for start, end, level in zip(found.gap_start.T, found.gap_end.T, found.gap_level.T, strict=True):
        inside = (price >= column(start, price)) & (price <= column(end, price)) & column(end > start, price)
        result = np.where(inside, column(level, price), result)
    low, high = column(found.low_price, price), column(found.high_price, price)
    above = price >= high
    if right is not None:
        above = above & ((price > high) | (right > price))
    result = np.where(price < low, 0.0, np.where(above, 1.0, result))
    return np.where(price >= column(game.low, price), np.maximum(result, column(found.atom, price)), result)


def solve_mixed(
    game: Game, best: Floats, top: Floats, out: PriceEquilibrium, rows: NDArray[np.int64]
) -> PriceEquilibrium:
    """Complete the mixed rows of a batch.

    Args:
        game: the mixed games only, (R, ...).
        best: their profit pi, (R,).
        top: highest price of the support, (R,).
        out: equilibria of the whole batch, whose ``rows`` are replaced.
        rows: where the mixed games sit in the batch.
    """
    price, right = nodes_on(edges_of(game), FINE)
    start = _first_reaching(game, best, price, right)
    at_low = coalition_demand(game, game.low[:, None])[0][:, 0]
    has_atom = out.regime[rows] == MIXED_ATOM
    start = np.where(has_atom, game.low, start)
    atom = np.where(has_atom, _atom(game, at_low, best), 0.0)
    # Several prices may be best on the residual demand: the distribution is full at the first of them.
    starts, ends, levels = _gaps(game, best, top, atom, start)
    part = PriceEquilibrium(
        out.regime[rows], start, top, atom, best, best, best, best, starts, ends, levels, np.zeros_like(best)
    )
    edges = np.clip(edges_of(game, start, top, *starts.T, *ends.T), start[:, None], top[:, None])
    mean, traded, surplus = _moments(game, part, edges)

    def put(whole: Floats, values: Floats) -> Floats:
        whole = whole.copy()
        whole[rows] = values
        return whole

    width = max(starts.shape[1], out.gap_start.shape[1])

    def put_wide(whole: Floats, values: Floats, fill: Floats) -> Floats:
        grown = np.repeat(fill[:, None], width, axis=1)
        grown[:, : whole.shape[1]] = whole
        grown[rows] = np.repeat(fill[rows][:, None], width, axis=1)
        grown[rows, : values.shape[1]] = values
        return grown

    high_price = put(out.high_price, top)
    return out._replace(
        low_price=put(out.low_price, start),
        high_price=high_price,
        atom=put(out.atom, atom),
        surplus=put(out.surplus, surplus),
        quantity=put(out.quantity, traded),
        mean_price=put(out.mean_price, mean),
        gap_start=put_wide(out.gap_start, starts, high_price),
        gap_end=put_wide(out.gap_end, ends, high_price),
        gap_level=put_wide(out.gap_level, levels, np.ones(high_price.size)),
    )


def _moments(game: Game, part: PriceEquilibrium, edges: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean posted price, expected PRBs traded and expected coalition surplus, (R,) each, by Gauss quadrature."""
    knots, weights = np.polynomial.legendre.leggauss(GAUSS)
    t = 0.5 + 0.5 * knots
    # Smoothing substitution: the distribution starts like a root of the distance to p_L when M > 2.
    bend, pull = t**3 * (10.0 - 15.0 * t + 6.0 * t * t), 30.0 * (t * (1.0 - t)) ** 2
    left, right = edges[:, :-1, None], edges[:, 1:, None]
    price = left + (right - left) * bend
    weight = (right - left) * (0.5 * weights * pull)
    demand = coalition_demand(game, price, right)[0]
    level = distribution(game, part, price, right)

    sellers, profit, top = game.sellers, part.profit, part.high_price
    margin = price - column(game.cost, price)
    mean = top - np.sum(weight * level, axis=(1, 2))
    # Every price of the support earns pi, so a seller sells pi / (p - c) there on average.
    inverse = 1.0 / (top - game.cost) + np.sum(weight * level / margin**2, axis=(1, 2))
    traded = sellers * profit * inverse
    # Expected surplus: integral over p of sum_j P(at least j sellers below p) clip(D - (j - 1) K, 0, K) ...
    tail = np.cumsum(binomial(sellers, level)[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    below = np.sum(weight * np.sum(tail * sales_after(game, demand), axis=-1), axis=(1, 2))
    # ... which beyond p_H is the ordinary consumer surplus at p_H.
    at_top = np.minimum(coalition_demand(game, top[:, None])[0][:, 0], sellers * game.capacity)
    beyond = coalition_value(game.curves, game.member, at_top) - top * at_top
    return mean, traded, below + beyond


def quantile(game: Game, found: PriceEquilibrium, chance: Floats) -> Floats:
    """Prices below which a seller posts with probability ``chance`` (bisection on the exact CDF).

    Args:
        game: G games.
        found: their equilibria.
        chance: (G, ...) in [0, 1).

    Returns:
        Prices, shape of ``chance``; a uniform draw gives an equilibrium draw.
    """
    low = np.broadcast_to(column(found.low_price, chance), chance.shape).copy()
    high = np.broadcast_to(column(found.high_price, chance), chance.shape).copy()
    weights = binomial(game.sellers - 1, chance)  # of the cheaper rivals, if their distribution stood at ``chance``
    starts, ends, levels = found.gap_start.T, found.gap_end.T, found.gap_level.T

    def reached(price: Floats) -> NDArray[np.bool_]:
        """Whether the distribution is at least ``chance``: the price still earns pi when rivals are that likely cheaper."""
        sales = np.sum(weights * sales_after(game, coalition_demand(game, price)[0]), axis=-1)
        enough = (price - column(game.cost, price)) * sales >= column(found.profit, price)
        for start, end, level in zip(starts, ends, levels, strict=True):
            inside = (price >= column(start, price)) & (price <= column(end, price)) & column(end > start, price)
            enough = np.where(inside, column(level, price) >= chance, enough)
        return enough

    atom = column(found.atom, chance) >= chance
    for _ in range(BISECTIONS):
        mid = 0.5 * (low + high)
        enough = reached(mid) | atom
        low, high = np.where(enough, low, mid), np.where(enough, mid, high)
    return np.where(atom, column(found.low_price, chance), high)
