"""Two-player zero-sum matrix games, many at once, each with a certified value.

The row player chooses a mixture x to maximise, the column player y to minimise, x' M y. With all entries shifted to be
positive,
the game is the linear program max sum(w) subject to M w <= 1, w >= 0 (value 1 / sum(w), y = w * value), whose dual
gives x; w = 0 is
feasible, so the primal simplex method needs no first phase. All games pivot together, one pivot of each per pass; ties
and stalls are
broken by Bland's rule, which cannot cycle.

Whatever the pivots did, the answer is checked on the original matrix: max_i (M y)_i and min_j (x' M)_j enclose the
value of the game, so
their difference is a proven bound of the error. Games that miss the tolerance go to HiGHS once more.

G. Dantzig, "A proof of the equivalence of the programming problem and the game problem", 1951.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog

from ..errors import InvalidParameter

TOLERANCE = 1e-9
"""Certified gap, relative to the largest absolute entry (at least 1), above which a game is solved again."""


class MatrixGames(NamedTuple):
    """Solutions of a batch of games; the leading axes are those of the payoffs."""

    value: np.ndarray
    """(...) middle of the enclosure of the value."""
    row: np.ndarray
    """(..., m) the maximiser's mixture."""
    column: np.ndarray
    """(..., k) the minimiser's mixture."""
    lower: np.ndarray
    """(...) what ``row`` guarantees: the least entry of row' M."""
    upper: np.ndarray
    """(...) what ``column`` concedes at most: the largest entry of M column."""

    @property
    def gap(self) -> np.ndarray:
        """(...) proven bound on the error of the value, and on what either player could gain."""
        return self.upper - self.lower


def solve_matrix_games(payoffs: np.ndarray, tolerance: float = TOLERANCE) -> MatrixGames:
    """Solve a batch of zero-sum games.

    Args:
        payoffs: (..., m, k) payoffs of the row player, who maximises.
        tolerance: Relative gap above which a game is solved again by HiGHS.

    Returns:
        Mixtures, the value and its enclosure.

    Raises:
        InvalidParameter: NaN or infinite payoffs, or no action.
    """
    payoffs = np.asarray(payoffs, dtype=np.float64)
    if payoffs.ndim < 2 or 0 in payoffs.shape[-2:]:
        raise InvalidParameter(f"payoffs must have shape (..., m, k) with m, k >= 1, got {payoffs.shape}")
    if not np.all(np.isfinite(payoffs)):
        raise InvalidParameter("payoffs of a matrix game must be finite")
    lead, (m, k) = payoffs.shape[:-2], payoffs.shape[-2:]
    games = payoffs.reshape(-1, m, k)
    low = games.min(axis=(1, 2), keepdims=True)
    span = games.max(axis=(1, 2), keepdims=True) - low
    scaled = (games - low) / np.where(span > 0, span, 1.0) + 1.0  # entries in [1, 2]
    row, column = _simplex(scaled)
    lower, upper = _enclose(games, row, column)
    limit = tolerance * np.maximum(1.0, np.abs(games).max(axis=(1, 2)))
    for g in np.flatnonzero(upper - lower > limit):
        row[g], column[g] = _highs(scaled[g], row[g], column[g])
    lower, upper = _enclose(games, row, column)
    value = (lower + upper) / 2
    return MatrixGames(
        value.reshape(lead), row.reshape(*lead, m), column.reshape(*lead, k), lower.reshape(lead), upper.reshape(lead)
    )


def _enclose(games: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lower = (row[:, :, None] * games).sum(axis=1).min(axis=1)
    upper = (games * column[:, None, :]).sum(axis=2).max(axis=1)
    return lower, upper


def _simplex(games: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mixtures of games with entries in [1, 2], by tableau simplex on all games together.

    Rows 0 .. m-1 of a tableau are the constraints, row m the objective; columns 0 .. k-1 are w, k .. k+m-1 the slacks,
    the last
    one the right-hand side.
    """
    count, m, k = games.shape
    tableau = np.zeros((count, m + 1, k + m + 1))
    tableau[:, :m, :k] = games
    tableau[:, :m, k : k + m] = np.eye(m)
    tableau[:, :m, -1] = 1.0
    tableau[:, m, :k] = -1.0
    basis = np.broadcast_to(np.arange(k, k + m), (count, m)).copy()
    live = np.arange(count)
    bland_after, most = 4 * (m + k), 60 * (m + k)
    for step in range(most):
        objective = tableau[live, m, :-1]
        improving = objective < -1e-12
        live = live[improving.any(axis=1)]
        if not len(live):
            break
        objective, improving = tableau[live, m, :-1], tableau[live, m, :-1] < -1e-12
        enter = improving.argmax(axis=1) if step >= bland_after else objective.argmin(axis=1)
        rows = np.arange(len(live))
        part = tableau[live, :m]
        pivots = part[rows, :, enter]
        usable = pivots > 1e-11
        ratio = np.where(usable, part[:, :, -1] / np.where(usable, pivots, 1.0), np.inf)
        tied = ratio <= ratio.min(axis=1, keepdims=True) * (1 + 1e-12)
        leave = np.where(tied & usable, basis[live], np.iinfo(np.int64).max).argmin(axis=1)
        full = tableau[live]
        line = full[rows, leave] / full[rows, leave, enter][:, None]
        full = full - full[rows, :, enter][:, :, None] * line[:, None, :]
        full[rows, leave] = line
        tableau[live] = full
        basis[live, leave] = enter
    w = np.zeros((count, k + m))
    np.put_along_axis(w, basis, np.maximum(tableau[:, :m, -1], 0.0), axis=1)
    w = w[:, :k]
    duals = np.maximum(tableau[:, m, k : k + m], 0.0)
    return _normalise(duals), _normalise(w)


def _normalise(weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1, keepdims=True)
    return np.where(total > 0, weights / np.where(total > 0, total, 1.0), 1.0 / weights.shape[1])


def _highs(game: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same linear program by SciPy's HiGHS; the old mixtures where it fails."""
    m, k = game.shape
    found = linprog(-np.ones(k), A_ub=game, b_ub=np.ones(m), bounds=(0, None), method="highs")
    if found.status != 0:
        return row, column
    duals = np.maximum(-np.asarray(found.ineqlin.marginals), 0.0)
    return _normalise(duals[None])[0], _normalise(np.maximum(np.asarray(found.x), 0.0)[None])[0]
