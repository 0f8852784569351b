"""Batched matrix games: enclosures hold, and HiGHS finds the same values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from marketenvs.errors import InvalidParameter
from marketenvs.solution import matrix_games
from marketenvs.solution.matrix_games import solve_matrix_games


def highs_value(game):
    """max v subject to x' M >= v, sum x = 1, written directly (another program than the one solved)."""
    m, k = game.shape
    found = linprog(
        np.append(np.zeros(m), -1.0),
        A_ub=np.hstack((-game.T, np.ones((k, 1)))),
        b_ub=np.zeros(k),
        A_eq=np.append(np.ones(m), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * m + [(None, None)],
        method="highs",
    )
    assert found.status == 0
    return -found.fun


def check(games, solved):
    """Enclosure and mixtures, from the definitions alone."""
    for x in (solved.row, solved.column):
        assert x.min() >= 0
        np.testing.assert_allclose(x.sum(axis=-1), 1.0, atol=1e-12)
    lower = np.einsum("...m,...mk->...k", solved.row, games).min(axis=-1)
    upper = np.einsum("...mk,...k->...m", games, solved.column).max(axis=-1)
    scale = np.maximum(1.0, np.abs(games).max(axis=(-1, -2)))
    np.testing.assert_array_less(lower - 1e-12 * scale, solved.value)
    np.testing.assert_array_less(solved.value, upper + 1e-12 * scale)
    np.testing.assert_allclose(solved.gap, upper - lower, atol=1e-12 * scale.max())
    assert np.all(solved.gap <= 1e-9 * scale)


@pytest.mark.parametrize("shape", [(2, 2), (1, 5), (5, 1), (10, 10), (11, 10), (3, 40), (40, 3), (25, 30)])
@pytest.mark.parametrize("law", ["normal", "integers", "huge", "negative"])
def test_random_games_agree_with_highs(shape, law):
    rng = np.random.default_rng([len(law), *shape])
    games = {
        "normal": lambda: rng.normal(size=(12, *shape)),
        "integers": lambda: rng.integers(0, 3, size=(12, *shape)).astype(float),  # many ties: degenerate pivots
        "huge": lambda: 4e4 * rng.uniform(size=(12, *shape)),
        "negative": lambda: -1e3 - 1e-3 * rng.uniform(size=(12, *shape)),
    }[law]()
    solved = solve_matrix_games(games)
    check(games, solved)
    values = [highs_value(game) for game in games]
    np.testing.assert_allclose(solved.value, values, rtol=1e-8, atol=1e-8)


def test_textbook_games():
    rock = solve_matrix_games([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    np.testing.assert_allclose([*rock.row, *rock.column], 1 / 3)
    assert abs(rock.value) < 1e-12
    # [[3, 1], [0, 2]]: x = (1/2, 1/2), y = (1/4, 3/4), value 3/2
    pair = solve_matrix_games([[3, 1], [0, 2]])
    np.testing.assert_allclose(pair.row, [0.5, 0.5])
    np.testing.assert_allclose(pair.column, [0.25, 0.75])
    np.testing.assert_allclose(pair.value, 1.5)
    saddle = solve_matrix_games([[4, 5], [2, 9]])  # row 0 has the larger minimum, column 0 the smaller maximum
    np.testing.assert_allclose(saddle.row, [1, 0])
    np.testing.assert_allclose(saddle.value, 4.0)


def test_constant_games_and_lead_axes():
    games = np.full((2, 3, 4, 5), -7.5)
    solved = solve_matrix_games(games)
    assert solved.value.shape == (2, 3)
    assert solved.row.shape == (2, 3, 4)
    np.testing.assert_array_equal(solved.value, -7.5)
    check(games, solved)


def test_a_game_does_not_depend_on_its_company():
    games = np.random.default_rng(5).normal(size=(50, 6, 7))
    together, alone = solve_matrix_games(games), solve_matrix_games(games[17])
    np.testing.assert_array_equal(together.row[17], alone.row)
    np.testing.assert_array_equal(together.value[17], alone.value)


def test_games_the_pivots_miss_go_to_highs(monkeypatch):
    def lazy(games):
        count, m, k = games.shape
        return np.full((count, m), 1 / m), np.full((count, k), 1 / k)

    monkeypatch.setattr(matrix_games, "_simplex", lazy)
    games = np.random.default_rng(1).normal(size=(5, 4, 6))
    solved = solve_matrix_games(games)
    check(games, solved)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), np.array([[1.0, np.nan]]), np.array([[np.inf, 1.0]])])
def test_bad_games_are_refused(bad):
    with pytest.raises(InvalidParameter):
        solve_matrix_games(bad)
