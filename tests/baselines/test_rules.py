"""Update rules of the tabular learners against steps worked out by hand, and the tables around them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from marketenvs_baselines.giga_wolf import GigaWolf, wolf_step
from marketenvs_baselines.minimax_q import MiniMaxQ
from marketenvs_baselines.pb_marl import WolfPHC, hill_climb
from marketenvs_baselines.pga_app import PgaApp, predicted_step
from marketenvs_baselines.q_learning import QLearning
from marketenvs_baselines.tabular import project_to_simplex, sample

ONE = np.array([0])


def told(rule, action, reward, row=0, next_row=0, rivals=0.0):
    rule.learn(np.array([row]), np.array([action]), np.array([reward]), np.array([next_row]), np.array([rivals]))


# -- the simplex ------------------------------------------------------------------------------------------------------


def test_projection_by_hand():
    points = np.array([[0.5, 0.5, 0.5], [2.0, 0.0, -1.0], [0.7, 0.5, -0.4], [0.2, 0.3, 0.5]])
    want = np.array([[1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [0.6, 0.4, 0.0], [0.2, 0.3, 0.5]])
    np.testing.assert_allclose(project_to_simplex(points), want, atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(arrays(float, (4, 5), elements=st.floats(-1e6, 1e6)), st.integers(0, 2**32 - 1))
def test_projection_is_the_nearest_point(points, seed):
    near = project_to_simplex(points)
    assert near.min() >= 0
    np.testing.assert_allclose(near.sum(axis=1), 1.0, atol=1e-9)
    # what characterises the projection: (p - near) . (q - near) <= 0 for every q in the simplex
    others = np.random.default_rng(seed).dirichlet(np.ones(5), size=30)
    others = np.concatenate((others, np.eye(5)))
    products = np.einsum("ra,rqa->rq", points - near, others[None] - near[:, None])
    assert products.max() <= 1e-9 * max(1.0, np.abs(points).max()) ** 2


def test_sampling_inverts_the_distribution():
    probabilities = np.array([[0.2, 0.0, 0.5, 0.3, 0.0]] * 6)
    u = np.array([0.0, 0.199, 0.2, 0.699, 0.7, 0.999999])
    np.testing.assert_array_equal(sample(probabilities, u), [0, 0, 2, 2, 3, 3])
    sure = np.eye(3)
    np.testing.assert_array_equal(sample(sure, np.array([0.0, 0.0, 0.99])), [0, 1, 2])


# -- WoLF-PHC ---------------------------------------------------------------------------------------------------------


def test_hill_climb_by_hand():
    pi = np.array([[0.25, 0.25, 0.25, 0.25], [0.001, 0.0, 0.499, 0.5]])
    out = hill_climb(pi, np.array([2, 3]), np.array([0.03, 0.0075]))
    np.testing.assert_allclose(out[0], [0.24, 0.24, 0.28, 0.24])
    np.testing.assert_allclose(out[1], [0.0, 0.0, 0.4965, 0.5035])  # the first can lose only the 0.001 it has


def test_wolf_first_step_by_hand():
    rule = WolfPHC()
    rule.grow(2, 3)
    rule.q[1] = [1.0, 5.0, 2.0]
    told(rule, action=1, reward=10.0, next_row=1)
    # Q <- 0.2 * 0 + 0.8 * (10 + 0.1 * 5); first visit: the average becomes the policy, values tie, so it "wins"
    np.testing.assert_allclose(rule.q[0], [0, 8.4, 0])
    assert rule.visits[0] == 1
    np.testing.assert_allclose(rule.average[0], 1 / 3)
    loss = 0.0025 / 2
    np.testing.assert_allclose(rule.pi[0], [1 / 3 - loss, 1 / 3 + 2 * loss, 1 / 3 - loss])
    assert rule.visits[1] == 0


@pytest.mark.parametrize(("pi", "rate"), [([0.6, 0.2, 0.2], 0.0025), ([0.2, 0.6, 0.2], 0.01)])
def test_wolf_is_slow_when_winning_and_fast_when_losing(pi, rate):
    rule = WolfPHC(discount=0.0)
    rule.grow(1, 3)
    rule.q[0] = [4.0, 0.0, 1.0]
    rule.pi[0] = pi
    rule.visits[0] = 9  # the average, uniform so far, moves a tenth of the way: value 5/3 before, pi's is 2.6 or 1
    told(rule, action=0, reward=4.0)
    np.testing.assert_allclose(rule.average[0], np.full(3, 1 / 3) + (np.array(pi) - 1 / 3) / 10)
    np.testing.assert_allclose(rule.pi[0], np.array(pi) + rate * np.array([1, -0.5, -0.5]))


def test_wolf_ties_go_to_the_lowest_action():
    rule = WolfPHC()
    rule.grow(1, 4)
    told(rule, action=3, reward=0.0)
    assert rule.pi[0].argmax() == 0


def test_rows_are_updated_each_on_its_own():
    rng = np.random.default_rng(0)
    for make in (WolfPHC, PgaApp, GigaWolf, QLearning, MiniMaxQ):
        together, alone = make(), make()
        together.grow(12, 5)
        alone.grow(12, 5)
        for _ in range(20):
            rows = rng.permutation(12)[:4]
            a, r, nxt = rng.integers(0, 5, 4), rng.normal(size=4), rng.integers(0, 12, 4)
            nxt = np.where(np.isin(nxt, rows), rows, nxt)  # never another row of this call
            together.learn(rows, a, r, nxt, np.full(4, 0.35))
            for i in range(4):
                alone.learn(rows[i : i + 1], a[i : i + 1], r[i : i + 1], nxt[i : i + 1], np.array([0.35]))
        for name, table in vars(together).items():
            if isinstance(table, np.ndarray):
                np.testing.assert_allclose(table, getattr(alone, name), err_msg=f"{make.__name__}.{name}", atol=1e-12)


# -- PGA-APP ----------------------------------------------------------------------------------------------------------


def test_pga_app_step_by_hand():
    # V = 0.5 * 1 + 0.3 * 2 + 0.2 * 0 = 1.1; delta^ = (-.1/.5, .9/.7, -1.1/.8); delta = delta^ - 3 |delta^| pi
    pi, q = np.array([[0.5, 0.3, 0.2]]), np.array([[1.0, 2.0, 0.0]])
    forecast = np.array([-0.2, 0.9 / 0.7, -1.375])
    delta = forecast - 3 * np.abs(forecast) * pi[0]
    moved = pi[0] + 0.01 * delta
    want = moved + (1 - moved.sum()) / 3  # stays inside, so the projection spreads the excess evenly
    np.testing.assert_allclose(predicted_step(pi, q, 0.01, 3.0)[0], want, atol=1e-15)


def test_pga_app_at_a_vertex_uses_the_plain_advantage():
    # pi = (1, 0): delta^ = (0, Q1 - V) = (0, 1); delta = (0, 1 - 3 * 1 * 0); the projection halves the excess of 0.01
    out = predicted_step(np.array([[1.0, 0.0]]), np.array([[1.0, 2.0]]), 0.01, 3.0)
    np.testing.assert_allclose(out, [[0.995, 0.005]], atol=1e-15)


def test_raw_rewards_throw_pga_to_a_vertex():
    out = predicted_step(np.full((1, 4), 0.25), np.array([[9e3, 0.0, 0.0, 0.0]]), 0.01, 3.0)
    np.testing.assert_array_equal(out, [[1.0, 0.0, 0.0, 0.0]])


def test_pga_learns_q_from_scaled_rewards():
    rule = PgaApp()
    rule.grow(2, 2)
    rule.q[1] = [3.0, 2.0]
    told(rule, 0, 1.0, next_row=1)
    np.testing.assert_allclose(rule.q[0], [0.8 * 1.3, 0.0])


# -- GIGA-WoLF --------------------------------------------------------------------------------------------------------


def test_giga_wolf_step_by_hand():
    # x^ = (.5 + .03, .5) -> (.515, .485); z' = (.2 + .01, .8) -> (.205, .795)
    # |z' - z| = .005 sqrt 2, |z' - x^| = .31 sqrt 2, so x' moves 5/310 of the way from x^ to z': 0.515 - .005 = .51
    x, z = wolf_step(np.array([[0.5, 0.5]]), np.array([[0.2, 0.8]]), np.array([[3.0, 0.0]]), 0.01)
    np.testing.assert_allclose(z, [[0.205, 0.795]], atol=1e-15)
    np.testing.assert_allclose(x, [[0.51, 0.49]], atol=1e-15)


def test_giga_wolf_never_moves_further_than_to_z():
    # x = z: x^ leads z' by two thirds of a step s, more than z moved: |z'-z| = s/3, |z'-x^| = 2s/3, half of the way
    x, z = wolf_step(np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]]), np.array([[1.2, 0.0]]), 0.01)
    np.testing.assert_allclose(z, [[0.502, 0.498]], atol=1e-15)
    np.testing.assert_allclose(x, [[0.504, 0.496]], atol=1e-15)  # x^ = (.506, .494)
    same, _ = wolf_step(np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]]), np.zeros((1, 2)), 0.01)
    np.testing.assert_array_equal(same, [[0.5, 0.5]])


# -- Q-learning and MiniMax-Q -----------------------------------------------------------------------------------------


def test_q_learning_by_hand():
    rule = QLearning()
    rule.grow(2, 3)
    rule.q[1] = [0.0, 7.0, 1.0]
    told(rule, 2, 4.0, next_row=1)
    told(rule, 2, 4.0, next_row=1)
    np.testing.assert_allclose(rule.q[0, 2], 0.8 * 4.7 + 0.2 * 0.8 * 4.7)
    np.testing.assert_array_equal(rule.probabilities(ONE), [[0, 0, 1]])


def test_minimax_q_learns_the_value_of_a_matrix_game():
    # matching pennies with unequal stakes [[3, 1], [0, 2]]: value 3/2 with x = (1/2, 1/2)
    game = np.array([[3.0, 1.0], [0.0, 2.0]])
    rule = MiniMaxQ(bins=2, discount=0.0, learning_rate=1.0)
    rule.grow(1, 2)
    for a in range(2):
        for o in range(2):
            told(rule, a, game[a, o], rivals=0.25 + 0.5 * o)
    np.testing.assert_allclose(rule.q[0], game)
    np.testing.assert_allclose(rule.pi[0], [0.5, 0.5])
    np.testing.assert_allclose(rule.value[0], 1.5)


def test_minimax_q_bootstraps_with_the_games_value_and_hopes_for_the_unmet():
    rule = MiniMaxQ(bins=2, learning_rate=0.5)
    rule.grow(2, 2)
    told(rule, 0, 8.0, rivals=1.0)  # first meeting: the target itself, in the last bin
    np.testing.assert_allclose(rule.q[0], [[0, 8], [0, 0]])
    np.testing.assert_allclose(rule.value[0], 8.0)  # three unmet pairs count as 8
    told(rule, 0, 2.0, rivals=0.99, next_row=0)
    np.testing.assert_allclose(rule.q[0, 0, 1], 8 + 0.5 * (2 + 0.1 * 8 - 8))
    np.testing.assert_allclose(rule.pi[0], [0, 1])  # the untried action looks better now
