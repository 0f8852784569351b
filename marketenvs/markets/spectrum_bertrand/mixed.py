"""Mixed equilibria of two sellers' price games, where no pure one exists (pools with ``C < M < 1.9 C``, price grids).

Finite games are solved exactly by complementary pivoting (Lemke and Howson 1964, with the lexicographic rule against
cycling). Continuous prices are solved by the double oracle of McMahan, Gordon and Blum (2003): solve the game on the
prices seen so far, add each seller's best price against the other's mixture, repeat. What remains to be gained by
*any* price is the certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketenvs.markets.spectrum_bertrand._scipy import linprog, lu_factor, lu_solve

Floats = NDArray[np.float64]


class MixedPair(NamedTuple):
    """A mixed equilibrium of two sellers in one market.

    Attributes:
        prices: support of each seller, two arrays ``(K_j,)``.
        weights: probabilities on them, two arrays ``(K_j,)``.
        profit: expected profits ``(2,)``.
        gain: best improvement found for each seller over ALL prices, ``(2,)``.
        rounds: double-oracle rounds used.
    """

    prices: tuple[Floats, Floats]
    weights: tuple[Floats, Floats]
    profit: Floats
    gain: Floats
    rounds: int


def symmetric_equilibrium(payoff: Floats) -> Floats:
    """Symmetric equilibrium ``x`` of a symmetric game: ``payoff[a, b]`` is what ``a`` earns against ``b``.

    Lemke-Howson on the single polytope ``{z >= 0, A z <= 1}``, tried from every first label until a basis with small
    residual comes out (all are exact; rounding can spoil one).

    Raises:
        ValueError: if ``payoff`` is not a finite square matrix.
    """
    payoff = np.asarray(payoff, float)
    n = payoff.shape[0]
    if payoff.shape != (n, n) or not np.all(np.isfinite(payoff)):
        raise ValueError("payoff must be a finite square matrix")
    span = float(np.ptp(payoff)) or 1.0
    shifted = (payoff - payoff.min()) / span + 1.0  # positive, so that z is bounded
    best, best_gap = np.full(n, 1.0 / n), np.inf
    for label in _labels(n):
        x = _pivot(shifted, label)
        if x is None:
            continue
        earned = shifted @ x
        gap = float(earned.max() - x @ earned)
        if gap < best_gap:
            best, best_gap = x, gap
        if gap < 1e-12:
            break
    return best


def bimatrix_equilibrium(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """One equilibrium ``(x, y)`` of a bimatrix game; ``first[a, b]`` and ``second[a, b]`` pay the row and column player.

    The game is symmetrised: with positive payoffs, a symmetric equilibrium ``(x, y)`` of ``[[0, A], [B', 0]]``,
    each part scaled to a distribution, is an equilibrium of ``(A, B)``.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    rows, columns = first.shape
    a = (first - first.min()) / (np.ptp(first) or 1.0) + 1.0
    b = (second - second.min()) / (np.ptp(second) or 1.0) + 1.0
    both = np.zeros((rows + columns, rows + columns))
    both[:rows, rows:], both[rows:, :rows] = a, b.T
    best, best_gap = (np.full(rows, 1.0 / rows), np.full(columns, 1.0 / columns)), np.inf
    for label in _labels(rows + columns):
        z = _pivot(both, label)
        if z is None or z[:rows].sum() <= 1e-12 or z[rows:].sum() <= 1e-12:
            continue
        x, y = z[:rows] / z[:rows].sum(), z[rows:] / z[rows:].sum()
        gap = max((a @ y).max() - x @ a @ y, (x @ b).max() - x @ b @ y)
        if gap < best_gap:
            best, best_gap = (x, y), gap
        if gap < 1e-12:
            break
    return best


def _labels(n: int, tries: int = 6) -> NDArray[np.int64]:
    """First labels to try, spread over the strategies."""
    return np.unique(np.linspace(0, n - 1, min(n, tries)).round().astype(int))


def _pivot(matrix: Floats, label: int) -> Floats | None:
    """Complementary path from the origin that drops ``label``; None if it breaks down numerically.

    Every basis is factorised anew: a tableau updated over hundreds of pivots loses the digits that games with nearly
    equal prices need.
    """
    n = matrix.shape[0]
    columns = np.hstack([matrix, np.eye(n)])  # z (0..n-1), then slacks 1 - A z (n..2n-1)
    basis = np.arange(n, 2 * n)
    entering = label
    for _ in range(5 * n + 100):
        factors = lu_factor(columns[:, basis], check_finite=False)
        column, values = lu_solve(factors, np.stack([columns[:, entering], np.ones(n)], 1), check_finite=False).T
        rows = np.flatnonzero(column > 1e-10 * np.abs(column).max())
        if rows.size == 0:
            return None
        ratios = np.maximum(values[rows], 0.0) / column[rows]
        tied = rows[ratios <= ratios.min() + 1e-13]
        if tied.size > 1:  # lexicographic rule against cycling: compare rows of the inverse basis
            inverse = lu_solve(factors, np.eye(n), check_finite=False)
            tied = tied[np.lexsort((inverse[tied] / column[tied, None]).T[::-1])]
        row = int(tied[0])
        leaving = int(basis[row])
        basis[row] = entering
        if leaving % n == label:
            break
        entering = leaving - n if leaving >= n else leaving + n
    else:
        return None
    z = np.zeros(2 * n)
    z[basis] = np.linalg.solve(columns[:, basis], np.ones(n))
    x = np.maximum(z[:n], 0.0)
    return x / x.sum() if x.sum() > 0 else None


def refine_symmetric(payoff: Floats, x: Floats, steps: int = 40) -> Floats:
    """Improve a symmetric profile by sequential linear programs until its gap is gone or stays.

    The gap ``max_a (A x)_a - x A x`` is zero exactly at symmetric equilibria. Each step minimises its linearisation
    over the whole simplex (with the maximum as a linear constraint) and searches the line to that point.
    """
    scale = float(np.ptp(payoff)) or 1.0
    a = (payoff - payoff.min()) / scale
    n = len(x)
    for _ in range(steps):
        gap = _gap(a, x)
        if gap < 1e-12:
            break
        solved = _linear(np.append(-(a.T @ x) - a @ x, 1.0), np.hstack([a, -np.ones((n, 1))]), [n], 1)
        if solved is None:
            break
        y = solved[0]
        sizes = 0.5 ** np.arange(14)
        tried = [_gap(a, x + t * (y - x)) for t in sizes]
        best = int(np.argmin(tried))
        if tried[best] >= gap * (1 - 1e-6):
            break
        x = x + sizes[best] * (y - x)
    return x


def refine_pair(first: Floats, second: Floats, x: Floats, y: Floats, steps: int = 40) -> tuple[Floats, Floats]:
    """As `refine_symmetric`, for a bimatrix game: the gap is ``max A y + max x B - x (A + B) y``."""
    a = (first - first.min()) / (float(np.ptp(first)) or 1.0)
    b = (second - second.min()) / (float(np.ptp(second)) or 1.0)
    m, n = a.shape
    both = a + b

    def gap(x: Floats, y: Floats) -> float:
        return float((a @ y).max() + (x @ b).max() - x @ both @ y)

    limits = np.block(
        [[np.zeros((m, m)), a, -np.ones((m, 1)), np.zeros((m, 1))], [b.T, np.zeros((n, n + 1)), -np.ones((n, 1))]]
    )
    for _ in range(steps):
        now = gap(x, y)
        if now < 1e-12:
            break
        solved = _linear(np.concatenate([-(both @ y), -(x @ both), [1.0, 1.0]]), limits, [m, n], 2)
        if solved is None:
            break
        sizes = 0.5 ** np.arange(14)
        moves = [(x + t * (solved[0] - x), y + t * (solved[1] - y)) for t in sizes]
        tried = [gap(*move) for move in moves]
        best = int(np.argmin(tried))
        if tried[best] >= now * (1 - 1e-6):
            break
        x, y = moves[best]
    return x, y


def _gap(payoff: Floats, x: Floats) -> float:
    earned = payoff @ x
    return float(earned.max() - x @ earned)


def _linear(cost: Floats, limits: Floats, sizes: list[int], free: int) -> list[Floats] | None:
    """Minimise over distributions of the given sizes and ``free`` free variables subject to ``limits @ . <= 0``."""
    equal = np.zeros((len(sizes), cost.size))
    start = 0
    for row, size in enumerate(sizes):
        equal[row, start : start + size] = 1.0
        start += size
    bounds = [(0, None)] * start + [(None, None)] * free
    precise = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    answer = linprog(
        cost,
        A_ub=limits,
        b_ub=np.zeros(limits.shape[0]),
        A_eq=equal,
        b_eq=np.ones(len(sizes)),
        bounds=bounds,
        method="highs",
        options=precise,
    )
    if answer.x is None:
        return None
    parts = np.split(np.maximum(answer.x[:start], 0.0), np.cumsum(sizes)[:-1])
    return [p / p.sum() for p in parts]


def double_oracle(
    payoff: Callable[[int, Floats, Floats], Floats],
    low: tuple[float, float],
    high: tuple[float, float],
    *,
    symmetric: bool,
    tolerance: float,
    start: int = 41,
    halvings: int = 2,
    rounds: int = 2,
    points: int = 321,
) -> MixedPair:
    """Mixed equilibrium over continuous prices.

    Args:
        payoff: ``payoff(j, own, rival)`` with broadcasting arrays of prices: profit of seller ``j``.
        low: lowest price of each seller.
        high: highest price of each seller.
        symmetric: both sellers alike: one shared support and a symmetric equilibrium.
        tolerance: stop once no price gains more than this.
        start: prices in the first grid.
        halvings: how often the grid step is halved, each solution starting the next.
        rounds: most rounds of the oracle after that.
        points: grid of the search for better prices, before the zooms.
    """
    ends = _played_range(payoff, low, high, symmetric, start)
    support = [np.linspace(ends[j][0], ends[j][1], start) for j in (0, 1)]
    weights = _solve_tables(payoff, support, symmetric, None)
    for _ in range(halvings):
        fine = [np.linspace(ends[j][0], ends[j][1], 2 * support[j].size - 1) for j in (0, 1)]
        for j in (0, 1):
            coarse, weights[j] = weights[j], np.zeros(fine[j].size)
            weights[j][::2] = coarse
        support = fine
        weights = _solve_tables(payoff, support, symmetric, weights)
    best: MixedPair | None = None
    for turn in range(1, rounds + 1):
        profit = np.array(
            [weights[j] @ payoff(j, support[j][:, None], support[1 - j][None, :]) @ weights[1 - j] for j in (0, 1)]
        )
        gain, reply = np.zeros(2), [np.empty(0), np.empty(0)]
        for j in (0,) if symmetric else (0, 1):

            def earned(own: Floats, j: int = j, p: list[Floats] = support, w: list[Floats] = weights) -> Floats:
                used = w[1 - j] > 0
                return payoff(j, own[..., None], p[1 - j][used]) @ w[1 - j][used]

            reply[j], value = _better_prices(earned, low[j], high[j], ends[j], points, profit[j])
            gain[j] = max(value - profit[j], 0.0)
        if symmetric:
            gain[1], reply[1] = gain[0], reply[0]
        if best is None or gain.max() < best.gain.max():
            kept = [w > 1e-13 for w in weights]
            thin = [w[k] / w[k].sum() for w, k in zip(weights, kept, strict=True)]
            best = MixedPair((support[0][kept[0]], support[1][kept[1]]), (thin[0], thin[1]), profit, gain, turn)
        if gain.max() <= tolerance or turn == rounds:
            break
        for j in (0, 1):
            grown = np.concatenate([support[j], reply[j]])
            order = np.argsort(grown, kind="stable")
            support[j] = grown[order]
            weights[j] = np.concatenate([weights[j], np.zeros(reply[j].size)])[order]
        weights = _solve_tables(payoff, support, symmetric, weights)
    assert best is not None
    return best


def _solve_tables(
    payoff: Callable[[int, Floats, Floats], Floats],
    support: list[Floats],
    symmetric: bool,
    weights: list[Floats] | None,
) -> list[Floats]:
    """Equilibrium of the game on these prices: by pivoting at first, by linear programs from a known profile after."""
    tables = [payoff(j, support[j][:, None], support[1 - j][None, :]) for j in ((0,) if symmetric else (0, 1))]
    if symmetric:
        x = refine_symmetric(tables[0], symmetric_equilibrium(tables[0]) if weights is None else weights[0])
        return [x, x]
    if weights is None:
        weights = list(bimatrix_equilibrium(tables[0], tables[1].T))
    return list(refine_pair(tables[0], tables[1].T, weights[0], weights[1]))


def _played_range(
    payoff: Callable[[int, Floats, Floats], Floats],
    low: tuple[float, float],
    high: tuple[float, float],
    symmetric: bool,
    size: int,
    zooms: int = 6,
) -> list[list[float]]:
    """The prices that matter: coarse games are solved and the next grid is laid over what they play."""
    ends = [[low[j], high[j]] for j in (0, 1)]
    for _ in range(zooms):
        support = [np.linspace(ends[j][0], ends[j][1], size) for j in (0, 1)]
        weights = _solve_tables(payoff, support, symmetric, None)
        before = [list(e) for e in ends]
        for j in (0, 1):
            used = np.flatnonzero(weights[j] > 1e-9)
            step = support[j][1] - support[j][0]
            first, last = support[j][used[0]], support[j][used[-1]]
            # coarse games play too few prices: keep a wide margin, or the next grid cuts off part of the true support
            margin = 2 * step + 0.5 * (last - first)
            ends[j] = [max(low[j], first - margin), min(high[j], last + margin)]
        if all(e[1] - e[0] > 0.5 * (b[1] - b[0]) for e, b in zip(ends, before, strict=True)):
            break
    return ends


def _better_prices(
    value: Callable[[Floats], Floats], low: float, high: float, played: list[float], points: int, profit: float
) -> tuple[Floats, float]:
    """Peaks of ``value``, each zoomed into: at most 24 that beat ``profit``, and the best value."""
    grid = np.union1d(np.linspace(low, high, points // 2), np.linspace(played[0], played[1], points))
    at = value(grid)
    peak = np.flatnonzero((at >= np.append(at[1:], -np.inf)) & (at >= np.append(-np.inf, at[:-1])))
    peak = peak[np.argsort(-at[peak])][:24]
    left, right = grid[np.maximum(peak - 1, 0)], grid[np.minimum(peak + 1, grid.size - 1)]
    for _ in range(3):
        fine = left[:, None] + (right - left)[:, None] * np.linspace(0, 1, 9)
        v = value(fine)
        k = v.argmax(-1)
        rows = np.arange(peak.size)
        left, right = fine[rows, np.maximum(k - 1, 0)], fine[rows, np.minimum(k + 1, 8)]
    found, worth = fine[rows, k], v[rows, k]
    good = (worth > profit) | (worth == worth.max())
    return found[good], float(worth.max())
