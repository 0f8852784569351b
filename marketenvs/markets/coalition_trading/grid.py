"""Price games on a grid: payoff matrices, pure equilibria, sequential LP for mixed ones, regret matching beyond two.

A grid game is what agents with a discrete price set play; it is also the fallback where no closed construction is known
(unequal costs, three or more unequal sellers, raw S-curves on whole PRBs). Source: spec section 5, "discrete grid".
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from marketenvs.markets.coalition_trading.values import Curves, demand_each

Floats = NDArray[Any]  # float64 unless said otherwise


class MatrixEquilibrium(NamedTuple):
    """Equilibrium of a two-seller matrix game.

    Attributes:
        row: probabilities of the first seller's prices, (n,).
        column: probabilities of the second seller's prices, (n,).
        values: expected profits, $, (2,).
        epsilon: NashConv, the sum of both sellers' gains, $.
        programs: linear programs solved.
    """

    row: Floats
    column: Floats
    values: Floats
    epsilon: float
    programs: int


def price_levels(low: float, high: float, count: int) -> Floats:
    """The price set A_m: ``count`` equally spaced prices, $/PRB."""
    return low + (high - low) * np.arange(count) / (count - 1)


def purchases(demand: Floats, price: Floats, capacity: Floats) -> Floats:
    """Exact follower at posted prices: PRBs bought from each seller, cheapest first, ties in proportion to capacity.

    Args:
        demand: coalition demand at each seller's price, (..., M).
        price: posted prices, (..., M).
        capacity: PRBs each seller can sell, (..., M).

    Returns:
        Quantities (..., M).
    """
    mine, other = price[..., :, None], price[..., None, :]
    weight = np.broadcast_to(capacity[..., None, :], np.broadcast_shapes(mine.shape, other.shape))
    cheaper = np.sum(np.where(other < mine, weight, 0.0), axis=-1)
    tied = np.sum(np.where(other == mine, weight, 0.0), axis=-1)
    return np.clip(demand - cheaper, 0.0, tied) * capacity / tied


def duopoly_matrices(
    curves: Curves, member: Floats, levels: Floats, capacity: Floats, cost: Floats
) -> tuple[Floats, Floats]:
    """Profits of two sellers at every pair of grid prices, with the follower's exact response.

    Args:
        curves: fields (N,).
        member: bool (N,).
        levels: prices (n,), $/PRB.
        capacity: PRBs, (2,).
        cost: unit costs, (2,).

    Returns:
        Two matrices (n, n): rows are the first seller's prices, columns the second's.
    """
    demand = np.where(member, demand_each(curves, levels[:, None]), 0.0).sum(axis=1)
    shape = (levels.size, levels.size)
    price = np.stack([np.broadcast_to(levels[:, None], shape), np.broadcast_to(levels, shape)], axis=-1)
    both = np.stack([np.broadcast_to(demand[:, None], shape), np.broadcast_to(demand, shape)], axis=-1)
    profit = (price - cost) * purchases(both, price, np.broadcast_to(capacity, price.shape))
    return profit[..., 0], profit[..., 1]


def tabled_matrices(
    table: Floats, levels: Floats, capacity: NDArray[np.int64], cost: Floats
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Profits when the coalition maximises a tabulated value over whole PRBs (raw S-curves: no demand curve exists).

    Args:
        table: coalition value V(0..sum of capacities), $.
        levels: prices (n,), $/PRB.
        capacity: whole PRBs, (2,).
        cost: unit costs, (2,).

    Returns:
        Two matrices (n, n) and the PRBs bought (n, n). The coalition takes the largest of several best totals; equal
        prices share the total in proportion to capacity.
    """
    total = np.arange(int(capacity.sum()) + 1.0)
    first, second = levels[:, None, None], levels[None, :, None]
    from_first = np.where(first < second, np.minimum(total, capacity[0]), np.maximum(total - capacity[1], 0.0))
    from_first = np.where(first == second, total * capacity[0] / capacity.sum(), from_first)
    net = table[: total.size] - first * from_first - second * (total - from_first)
    bought = total.size - 1 - np.argmax(np.round(net[..., ::-1], 12), axis=-1)
    chosen = np.take_along_axis(np.broadcast_to(from_first, net.shape), bought[..., None], axis=-1)[..., 0]
    return (levels[:, None] - cost[0]) * chosen, (levels[None, :] - cost[1]) * (bought - chosen), bought


def pure_nash_conv(first: Floats, second: Floats) -> Floats:
    """NashConv of every pair of prices, (n, n): what both sellers together gain by unilateral deviations."""
    return (first.max(axis=0)[None, :] - first) + (second.max(axis=1)[:, None] - second)


def best_deterministic(first: Floats, second: Floats) -> tuple[float, int, int]:
    """Least NashConv over all pairs of pure prices and where it is reached: no deterministic policy does better."""
    gap = pure_nash_conv(first, second)
    row, column = np.unravel_index(np.argmin(gap), gap.shape)
    return float(gap[row, column]), int(row), int(column)


def matrix_equilibrium(
    first: Floats, second: Floats, start: tuple[Floats, Floats] | None = None, tolerance: float = 1e-9, most: int = 200
) -> MatrixEquilibrium:
    """Mixed equilibrium of a bimatrix game by the sequential LP (exact to ``tolerance`` where it converges).

    NashConv is bilinear apart from two maxima: its bilinear part is linearised at the current point, the linear program
    is solved inside a trust box, and the box is halved when the step does not pay. Symmetric games stay symmetric.

    Args:
        first: profits of the first seller, (n, m).
        second: profits of the second, (n, m).
        start: starting probabilities tried first; then uniform and random ones, until one converges.
        tolerance: NashConv at which to stop, in units of the payoffs' scale.
        most: most linear programs.
    """
    starts = _starts(first.shape) if start is None else [start, *_starts(first.shape)]
    best: MatrixEquilibrium | None = None
    for x, y in starts:
        found = _sequential_programs(first, second, x, y, tolerance, most)
        best = found if best is None or found.epsilon < best.epsilon else best
        if best.epsilon <= tolerance * _scale(first, second):
            break
    assert best is not None
    return best


def _starts(shape: tuple[int, ...]) -> list[tuple[Floats, Floats]]:
    rng = np.random.default_rng(0)
    n, m = shape
    uniform = (np.full(n, 1.0 / n), np.full(m, 1.0 / m))
    return [uniform, *((rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))) for _ in range(4))]


def _scale(first: Floats, second: Floats) -> float:
    return max(1.0, float(np.abs(first).max()), float(np.abs(second).max()))


def _sequential_programs(
    first: Floats, second: Floats, x: Floats, y: Floats, tolerance: float, most: int
) -> MatrixEquilibrium:
    """One run of the sequential LP from (x, y)."""
    n, m = first.shape
    symmetric = n == m and np.allclose(first, second.T, rtol=0, atol=1e-12)
    if symmetric:
        y = x
    scale = _scale(first, second)
    joint = first + second

    def gap(x: Floats, y: Floats) -> float:
        return float((first @ y).max() + (x @ second).max() - x @ joint @ y)

    best, box, programs = gap(x, y), 0.2, 0
    while best > tolerance * scale and programs < most and box > 1e-13:
        if symmetric:
            # min t - x' S x with S = (A + A') / 2, A x <= t; NashConv is twice the objective.
            cost = np.append(-(first + first.T) @ x, 1.0)
            above = np.hstack([first, -np.ones((n, 1))])
            equal = np.append(np.ones(n), 0.0)[None, :]
            bounds = [(max(0.0, p - box), min(1.0, p + box)) for p in x] + [(None, None)]
            found = linprog(cost, above, np.zeros(n), equal, [1.0], bounds, method="highs")
        else:
            cost = np.concatenate([-joint @ y, -joint.T @ x, [1.0, 1.0]])
            above = np.zeros((n + m, n + m + 2))
            above[:n, n : n + m], above[:n, -2] = first, -1.0
            above[n:, :n], above[n:, -1] = second.T, -1.0
            equal = np.zeros((2, n + m + 2))
            equal[0, :n], equal[1, n : n + m] = 1.0, 1.0
            around = np.concatenate([x, y])
            bounds = [(max(0.0, p - box), min(1.0, p + box)) for p in around] + [(None, None)] * 2
            found = linprog(cost, above, np.zeros(n + m), equal, [1.0, 1.0], bounds, method="highs")
        programs += 1
        if found.x is None:
            box *= 0.5
            continue
        trial_x = np.maximum(found.x[:n], 0.0)
        trial_x = trial_x / trial_x.sum()
        trial_y = trial_x if symmetric else np.maximum(found.x[n : n + m], 0.0)
        trial_y = trial_y / trial_y.sum()
        reached = gap(trial_x, trial_y)
        if reached < best:
            x, y, best, box = trial_x, trial_y, reached, min(0.2, 1.5 * box)
        else:
            box *= 0.5
    return MatrixEquilibrium(x, y, np.array([x @ first @ y, x @ second @ y]), max(best, 0.0), programs)


class GridProfile(NamedTuple):
    """Best profile found on a grid for any number of sellers.

    Attributes:
        levels: prices (n,).
        chance: probabilities, (M, n).
        values: expected profits, (M,).
        gains: largest gain of each seller in the continuous game, $, (M,).
    """

    levels: Floats
    chance: Floats
    values: Floats
    gains: Floats


def _profits(
    demand: Floats, price: Floats, capacity: Floats, cost: Floats, below: Floats, at: Floats, seller: int
) -> Floats:
    """Expected profit of ``seller`` at each price, (k,), given each rival's chances (M, k) of being below and level."""
    rivals = [j for j in range(capacity.size) if j != seller]
    worth = np.zeros(price.size)
    for pattern in product((0, 1, 2), repeat=len(rivals)):  # above, below, tied
        chance, ahead, tied = np.ones(price.size), 0.0, capacity[seller]
        for j, state in zip(rivals, pattern, strict=True):
            chance = chance * (1.0 - below[j] - at[j] if state == 0 else below[j] if state == 1 else at[j])
            ahead, tied = ahead + capacity[j] * (state == 1), tied + capacity[j] * (state == 2)
        worth += chance * np.clip(demand - ahead, 0.0, tied) * capacity[seller] / tied
    return (price - cost[seller]) * worth


def grid_profile(
    curves: Curves, member: Floats, capacity: Floats, cost: Floats, low: float, high: float, count: int = 60
) -> GridProfile:
    """Best grid profile found for unequal sellers (sequential LP for two, regret matching for more); never certified.

    Args:
        curves: fields (N,).
        member: bool (N,).
        capacity: PRBs of each seller, (M,), M at most 6.
        cost: unit costs, (M,).
        low: lowest price.
        high: highest price.
        count: grid levels; every choke price in the box is added, as is a price just below each.

    Raises:
        ValueError: for more than 6 sellers (every pattern of cheaper rivals is enumerated).
    """
    sellers = capacity.size
    if sellers > 6:
        raise ValueError(f"unequal sellers are solved numerically for at most 6 sellers, got {sellers}")
    chokes = np.unique(np.asarray(curves.choke_price)[np.asarray(member, bool)])
    chokes = chokes[(chokes >= low) & (chokes <= high)]
    levels = np.unique(np.concatenate([np.linspace(low, high, count), chokes]))
    total = np.where(member, demand_each(curves, levels[:, None]), 0.0).sum(axis=1)
    if sellers == 2:
        first, second = duopoly_matrices(curves, member, levels, capacity, cost)
        found = matrix_equilibrium(first, second, most=120)
        chance = np.stack([found.row, found.column])
    else:
        chance = _regret_matching(levels, total, capacity, cost)
    # Deviations in the continuous game: the grid, just below each level (undercutting) and a finer grid between.
    fine = np.unique(np.concatenate([levels, np.clip(levels - 1e-9, low, high), np.linspace(low, high, 8 * count)]))
    demand = np.where(member, demand_each(curves, fine[:, None]), 0.0).sum(axis=1)
    at = chance[:, np.searchsorted(levels, fine).clip(0, levels.size - 1)] * np.isin(fine, levels)
    below = np.cumsum(chance, axis=1)
    below = np.concatenate([np.zeros((sellers, 1)), below], axis=1)[:, np.searchsorted(levels, fine, side="left")]
    worth = np.stack([_profits(demand, fine, capacity, cost, below, at, m) for m in range(sellers)])
    own = np.cumsum(chance, axis=1) - chance
    played = np.stack([_profits(total, levels, capacity, cost, own, chance, m) for m in range(sellers)])
    values = np.sum(played * chance, axis=1)
    return GridProfile(levels, chance, values, np.maximum(worth.max(axis=1) - values, 0.0))


def _regret_matching(levels: Floats, demand: Floats, capacity: Floats, cost: Floats, rounds: int = 1500) -> Floats:
    """Regret matching plus with linear averaging and alternating updates, probabilities (M, n)."""
    sellers = capacity.size
    regret, average = np.zeros((sellers, levels.size)), np.zeros((sellers, levels.size))
    chance = np.full((sellers, levels.size), 1.0 / levels.size)
    for step in range(1, rounds + 1):
        for m in range(sellers):
            below = np.cumsum(chance, axis=1) - chance
            worth = _profits(demand, levels, capacity, cost, below, chance, m)
            regret[m] = np.maximum(regret[m] + worth - worth @ chance[m], 0.0)
            mass = regret[m].sum()
            chance[m] = regret[m] / mass if mass > 0 else chance[m]
        average += step * chance
    return average / average.sum(axis=1, keepdims=True)
