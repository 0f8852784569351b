"""The provider's price: V(p) = (p - C) sum_i F_i*(p), where F*(p) is the consumers' equilibrium at price p.

V has kinks (a consumer arrives at or leaves a bound), usually several local maxima, and jumps where a consumer with a
linear payoff changes its mind. Three solvers that share little but the followers' equilibrium:

* :func:`leader_equilibrium` follows the equilibrium path exactly (module ``path``);
* :func:`leader_equilibrium_batched` searches a price grid and polishes its best local maxima;
* :func:`leader_bound` and :func:`certify_leader` prove an upper bound of V over intervals of prices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .followers import build_contest, purchases_at, solve_effort
from .game import BoolArray, FloatArray, Game, IntArray
from .path import Segment, follow, jump_prices, stationary_prices

#: Prices whose values lie within this of the best, relatively, are reported as tied.
TIE = 1e-9
_STEP = 1e-11  # how far behind an event the path is taken up again, in units of p_max
_COLUMNS = 4096  # follower equilibria solved together


class LeaderSolution(NamedTuple):
    """Optimal prices of B markets."""

    price: FloatArray  # (B,) the lowest optimal price
    value: FloatArray  # (B,) U_cpp there, money
    ties: FloatArray  # (B, T) all prices within TIE of the best, ascending, padded with NaN
    pieces: FloatArray  # (B,) number of path segments, or of grid cells, that were searched
    exact: BoolArray  # (B,) whether the whole path was followed; otherwise the value is a lower bound


def leader_value(game: Game, prices: FloatArray) -> FloatArray:
    """V(p), the provider's payoff when the consumers answer with their equilibrium.

    Args:
        game: B markets.
        prices: (B, P) prices, money per unit.

    Returns:
        (B, P) U_cpp, money.
    """
    prices = np.asarray(prices, dtype=float)
    if prices.ndim != 2 or prices.shape[0] != game.markets:
        raise ValueError(f"prices must have shape ({game.markets}, P), got {prices.shape}")
    demand, _ = _answer(game, prices)
    return (prices - game.unit_cost[:, None]) * demand


def _answer(game: Game, prices: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Total demand and total effort (B, P) of the follower equilibria at ``prices`` (B, P)."""
    demand, effort = np.empty(prices.shape), np.empty(prices.shape)
    columns = max(1, _COLUMNS * 10 // max(game.consumers, 1))
    rows = max(1, columns // max(prices.shape[1], 1))
    for top in range(0, prices.shape[0], rows):
        part = game.at(slice(top, top + rows))
        for left in range(0, prices.shape[1], columns):
            block = prices[top : top + rows, left : left + columns]
            contest = build_contest(part, block)
            total = solve_effort(contest)
            bought = purchases_at(part, contest, total)
            demand[top : top + rows, left : left + columns] = bought.sum(axis=0).reshape(block.shape)
            effort[top : top + rows, left : left + columns] = total.reshape(block.shape)
    return demand, effort


def leader_equilibrium(game: Game) -> LeaderSolution:
    """The optimal price by exact path-following, all markets in lockstep.

    Candidates are p_min, p_max, every event of the path, both sides of every jump and every stationary price of every
    segment; each is then valued with the followers' equilibrium, so the value returned is one the provider obtains.
    Where V jumps up just behind a jump price, its supremum is not attained there; the price a relative 1e-11 further
    on stands in for it.

    Args:
        game: B markets with n consumers.

    Returns:
        The solution; ``pieces`` counts the segments. O(n) work per segment, O(n) segments as a rule.
    """
    jumps = jump_prices(game)
    step = _STEP * game.price_scale()
    alive = np.arange(game.markets)
    price, start = game.price_low.copy(), None
    segments: list[Segment] = []
    owners, candidates = [], []
    pieces = np.zeros(game.markets)
    part, jump = game, jumps
    for _ in range(200 + 40 * game.consumers):
        segment, following, effort_next = follow(part, price, jump, start)
        segments.append(segment)
        owners.append(alive)
        # V may fall off a cliff right behind an event: the price is rounded down so as to stay on top of it.
        candidates += [(alive, price), (alive, following), (alive, following * (1 - 1e-14))]
        pieces[alive] += 1
        price = following + step[alive]
        going = price < part.price_high
        if not going.any():
            alive = alive[:0]
            break
        alive, price, start = alive[going], price[going], effort_next[going]
        part, jump = part.at(going), jump[going]
    exact = np.ones(game.markets, dtype=bool)
    exact[alive] = False
    if alive.size:  # rounding keeps the path on the spot (rewards some 1e20 apart): search these markets by grid
        searched = leader_equilibrium_batched(game.at(alive)).price
        candidates.append((alive, searched))
    owner = np.concatenate(owners)
    merged = Segment(*(np.concatenate(parts) for parts in zip(*segments, strict=True)))
    stationary = stationary_prices(merged, game.unit_cost[owner])
    candidates += [(owner, stationary[j]) for j in range(stationary.shape[0])]
    candidates.append((np.arange(game.markets), game.price_high))
    rows = np.concatenate([who for who, _ in candidates])
    values = np.concatenate([prices for _, prices in candidates])
    return _best(game, _ragged(rows, values, game), pieces, exact)


def _ragged(rows: IntArray, values: FloatArray, game: Game) -> FloatArray:
    """Collect (market, price) pairs into (B, T), clipped to the price box and padded with p_min."""
    order = np.argsort(rows, kind="stable")
    rows, values = rows[order], values[order]
    counts = np.bincount(rows, minlength=game.markets)
    table = np.repeat(game.price_low[:, None], int(counts.max(initial=1)), axis=1)
    position = np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)
    low, high = game.price_low[rows], game.price_high[rows]
    table[rows, position] = np.clip(np.where(np.isfinite(values), values, low), low, high)
    return table


def _best(game: Game, candidates: FloatArray, pieces: FloatArray, exact: BoolArray) -> LeaderSolution:
    """Value the candidates (B, T) and pick the best; ties go to the lowest price."""
    candidates = np.sort(candidates, axis=1)
    values = leader_value(game, candidates)
    best = values.max(axis=1)
    good = values >= (best - TIE * np.abs(best))[:, None]
    # Candidates closer than this belong to one peak, which is represented by its best candidate.
    near = 1e-6 * game.price_scale()
    ties = np.full(candidates.shape, np.nan)
    price, value = np.empty(game.markets), np.empty(game.markets)
    for b in range(game.markets):
        kept = candidates[b, good[b]]
        worth = values[b, good[b]]
        group = np.cumsum(np.concatenate([[False], np.diff(kept) > near[b]]))
        heads = [np.flatnonzero(group == j) for j in range(int(group[-1]) + 1)]
        peaks = [members[np.argmax(worth[members])] for members in heads]
        ties[b, : len(peaks)] = kept[peaks]
        price[b], value[b] = kept[peaks[0]], worth[peaks[0]]
    width = max(1, int(np.max(np.count_nonzero(~np.isnan(ties), axis=1), initial=1)))
    return LeaderSolution(price, value, ties[:, :width], pieces, exact)


_GOLDEN = (np.sqrt(5.0) - 1) / 2


def leader_equilibrium_batched(game: Game, *, points: int = 1024, peaks: int = 4) -> LeaderSolution:
    """The optimal price by a price grid and golden section, for many markets at once.

    The ``peaks`` best local maxima of the grid are polished on both of their sides; the kink next to each result and
    both sides of every jump are then valued exactly. A narrow peak between two grid points can be missed:
    :func:`certify_leader` tells whether it was.

    Args:
        game: B markets.
        points: grid points per market.
        peaks: local maxima polished per market.

    Returns:
        The solution; ``pieces`` is the number of grid cells.
    """
    fractions = np.linspace(0.0, 1.0, points)
    width = game.price_high - game.price_low
    grid = game.price_low[:, None] + fractions * width[:, None]
    values = leader_value(game, grid)
    padded = np.pad(values, ((0, 0), (1, 1)), constant_values=-np.inf)
    local = (values >= padded[:, :-2]) & (values >= padded[:, 2:])
    chosen = np.argsort(np.where(local, -values, np.inf), axis=1, kind="stable")[:, :peaks]
    near = np.take_along_axis(grid, chosen, axis=1)
    left = np.take_along_axis(grid, np.maximum(chosen - 1, 0), axis=1)
    right = np.take_along_axis(grid, np.minimum(chosen + 1, points - 1), axis=1)
    found = _golden_section(game, np.hstack([left, near]), np.hstack([near, right]))
    flat = game.at(np.repeat(np.arange(game.markets), found.shape[1]))
    jumps = jump_prices(game)
    behind = 1e-7 * game.price_scale()[:, None]
    before = np.maximum(found - behind, game.price_low[:, None])
    _, kinks, _ = follow(flat, before.ravel(), np.repeat(jumps, found.shape[1], axis=0), None)
    extra = [near, found, kinks.reshape(found.shape), jumps, jumps + _STEP * game.price_scale()[:, None]]
    low, high = game.price_low[:, None], game.price_high[:, None]
    candidates = np.hstack([np.clip(np.where(np.isnan(e), low, e), low, high) for e in extra])
    pieces = np.full(game.markets, float(points - 1))
    return _best(game, candidates, pieces, np.zeros(game.markets, dtype=bool))


def _golden_section(game: Game, left: FloatArray, right: FloatArray) -> FloatArray:
    """Maximisers (B, T) of V in the brackets, where V has one local maximum in each."""
    inner = np.stack([right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)])
    value = np.stack([leader_value(game, inner[0]), leader_value(game, inner[1])])
    while (right - left > 1e-13 * game.price_scale()[:, None]).any():
        higher = value[0] >= value[1]
        left, right = np.where(higher, left, inner[0]), np.where(higher, inner[1], right)
        kept, kept_value = np.where(higher, inner[0], inner[1]), np.where(higher, value[0], value[1])
        fresh = np.where(higher, right - _GOLDEN * (right - left), left + _GOLDEN * (right - left))
        fresh_value = leader_value(game, fresh)
        inner = np.stack([np.where(higher, fresh, kept), np.where(higher, kept, fresh)])
        value = np.stack([np.where(higher, fresh_value, kept_value), np.where(higher, kept_value, fresh_value)])
    return np.where(value[0] >= value[1], inner[0], inner[1])


def leader_bound(game: Game, cells: int) -> tuple[FloatArray, FloatArray]:
    """Rigorous upper bounds of V over a uniform partition of the price box.

    S*(p) does not increase and r_i(p) does not decrease in p, so in the cell (p_lo, p_hi]
    ``V <= (p_hi - C) sum_i max_{S in [S*(p_hi), S*(p_lo)]} clip(S - r_i(p_lo) S^2) / beta_i`` (the smallest demand
    instead of the largest where p_hi < C).

    Args:
        game: B markets.
        cells: cells per market.

    Returns:
        Edges (B, cells + 1) and bounds (B, cells), money.
    """
    edges = game.price_low[:, None] + np.linspace(0.0, 1.0, cells + 1) * (game.price_high - game.price_low)[:, None]
    owner = np.repeat(np.arange(game.markets), cells)
    bounds = _cell_bounds(game, owner, edges[:, :-1].ravel(), edges[:, 1:].ravel()).reshape(game.markets, cells)
    bounds[:, 0] = np.maximum(bounds[:, 0], leader_value(game, game.price_low[:, None])[:, 0])
    return edges, bounds


def certify_leader(
    game: Game, value: FloatArray, *, tolerance: float = 1e-9, first: int = 128, most: int = 400_000
) -> FloatArray:
    """A proven upper bound of V*, by branch and bound on the cells of :func:`leader_bound`.

    Args:
        game: B markets.
        value: (B,) a value that the provider obtains, for instance from :func:`leader_equilibrium`.
        tolerance: stop once the bound is within ``tolerance * max(1, |value|)`` of ``value``.
        first: cells per market to begin with.
        most: cells examined per market before giving up; the bound is then looser but still proven.

    Returns:
        (B,) upper bounds of V*, money, never below ``value``.
    """
    goal = value + tolerance * np.maximum(1.0, np.abs(value))
    jumps = np.where(np.isnan(jumps := jump_prices(game)), game.price_low[:, None], jumps)
    points = np.hstack([game.price_low[:, None], jumps])
    upper = np.maximum(value, leader_value(game, points).max(axis=1))  # the cells exclude these points
    edges = game.price_low[:, None] + np.linspace(0.0, 1.0, first + 1) * (game.price_high - game.price_low)[:, None]
    edges = np.sort(np.hstack([edges, jumps]), axis=1)
    owner = np.repeat(np.arange(game.markets), edges.shape[1] - 1)
    low, high = edges[:, :-1].ravel(), edges[:, 1:].ravel()
    wide = low < high
    owner, low, high = owner[wide], low[wide], high[wide]
    examined = np.zeros(game.markets)
    while owner.size:
        bound = _cell_bounds(game, owner, low, high)
        examined += np.bincount(owner, minlength=game.markets)
        middle = 0.5 * (low + high)
        open_ = (bound > goal[owner]) & (examined[owner] < most) & (low < middle) & (middle < high)
        np.maximum.at(upper, owner[~open_], bound[~open_])
        owner = np.repeat(owner[open_], 2)
        low, high = (
            np.stack([low[open_], middle[open_]], axis=1).ravel(),
            np.stack([middle[open_], high[open_]], axis=1).ravel(),
        )
    return upper


def _cell_bounds(game: Game, owner: IntArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Upper bounds (M,) of V over the cells (low, high] of the markets ``owner``."""
    bounds = np.empty(low.shape)
    columns = max(1, _COLUMNS * 10 // max(game.consumers, 1))
    for begin in range(0, low.size, columns):
        cut = slice(begin, begin + columns)
        part = game.at(owner[cut])
        cheap, dear = build_contest(part, low[cut], ties_buy=False), build_contest(part, high[cut])
        # Widened by far more than the solver's rounding, so that the bound survives it.
        effort_high, effort_low = solve_effort(cheap) * (1 + 1e-13), solve_effort(dear) * (1 - 1e-13)
        with np.errstate(divide="ignore"):
            top = np.where(cheap.cost > 0, 0.5 / cheap.cost, effort_high)
        most = purchases_at(part, cheap, np.clip(top, effort_low, effort_high))
        least = np.minimum(purchases_at(part, dear, effort_low), purchases_at(part, dear, effort_high))
        margin = high[cut] - part.unit_cost
        bound = margin * np.where(margin >= 0, most.sum(axis=0), least.sum(axis=0))
        bounds[cut] = bound + 1e-13 * np.abs(bound)
    return bounds
