"""The paper's equations as printed: where they are right, and the counterexamples of the fidelity notes."""

from __future__ import annotations

import numpy as np
import pytest

from marketenvs.markets.ai_bazaar.followers import best_response, follower_equilibrium, regrets
from marketenvs.markets.ai_bazaar.game import Game
from marketenvs.markets.ai_bazaar.leader import leader_equilibrium, leader_value
from marketenvs.markets.ai_bazaar.literal import (
    paper_best_response,
    paper_closed_form,
    paper_curvature,
    paper_nash_gap,
    paper_price_condition,
    paper_scalability,
    paper_slope,
)

from .reference import CALIBRATED, TABLE1, TTRAIN, case, game_of, preset, random_games


def test_closed_form_is_right_where_its_conditions_hold():
    c = case("R5a")
    game, price = game_of(c["params"]), np.array([15.0])
    form = paper_closed_form(game, price)
    assert form.kappa_positive[0]
    assert form.equal_beta[0]
    assert form.inside_box[0]
    assert form.purchases[0] == pytest.approx(np.array(c["F"]), rel=5e-12)
    assert form.provider_payoff[0] == pytest.approx(c["U_cpp"], rel=5e-12)
    assert form.demand[0] == pytest.approx(sum(c["F"]), rel=5e-12)


def test_closed_form_goes_negative_for_inactive_consumers():  # R12
    game = game_of(case("R12")["params"])
    form = paper_closed_form(game, np.array([15.0]))
    assert form.purchases[0, 3] == pytest.approx(-106.7, abs=0.05)
    assert not form.inside_box[0]


def test_table1_makes_the_closed_form_inapplicable():  # F1, F2
    table1 = preset("table1")
    assert table1.reward[0, 0] == pytest.approx(3.8353092e-31, rel=1e-7)
    assert preset("table1_ttrain").reward[0, 0] == pytest.approx(17398.0285, rel=1e-9)
    for game in (table1, preset("table1_ttrain")):
        price = np.array([10.0])
        assert -193 <= game.net_cost(price).min() <= game.net_cost(np.array([20.0])).max() <= -166
        assert not paper_closed_form(game, price).kappa_positive[0]
        unclipped, _ = paper_best_response(game, price, np.full((1, 10), 50.0))
        assert np.isnan(unclipped).all()


@pytest.mark.parametrize(("base", "purchase"), [(TTRAIN, 100.0), (TABLE1, 10.0)])
def test_a_typing_error_in_c_b_does_not_save_table1(base, purchase):  # F2
    game = game_of({**base, "C_b": 2.2, "beta": [0.2] + [0.1] * 9})
    for price in (10.0, 15.0, 20.0):
        assert (follower_equilibrium(game, np.array([price])) == purchase).all()
    solution = leader_equilibrium(game)
    assert solution.price[0] == 20
    assert solution.value[0] == pytest.approx(150 * purchase)


def four(reward) -> Game:
    """Four interior consumers with K = 1.98, equal beta, in a box that never binds."""
    return game_of(
        {**CALIBRATED, "C_b": 1.98 / 0.9, "beta": 0.1, "u": (0.5, 0.6, 0.7, 0.8), "R": reward, "lam": 0.0, "eps": 0.0,
         "F_min": 0.0, "F_max": 1e6}
    )  # fmt: skip


def slope_of(function) -> float:
    return (function(np.array([15 + 1e-4]))[0] - function(np.array([15 - 1e-4]))[0]) / 2e-4


def test_slope_of_revenue_as_printed_is_wrong():  # F3
    for reward, derivative, printed in (((1000, 2000, 1500, 800), 18.4767, 83.6178), (1000, 15.7769, 63.1078)):
        game, price = four(reward), np.array([15.0])
        assert slope_of(lambda p, g=game: paper_closed_form(g, p).provider_payoff) == pytest.approx(
            derivative, abs=1e-4
        )
        assert paper_slope(game, price)[0] == pytest.approx(printed, abs=6e-5)
    # with equal rewards all four are active and (26) is the game: (27) is N times too large
    assert slope_of(lambda p: leader_value(game, p[:, None])[:, 0]) == pytest.approx(15.7769, abs=1e-4)
    assert paper_slope(game, price)[0] / 15.7769 == pytest.approx(4, abs=1e-4)


def test_the_first_of_those_markets_is_not_interior():
    # (18) is negative for consumer 3, which stays out: the slope of the game is that of (26) for the other three
    game, price = four((1000, 2000, 1500, 800)), np.array([15.0])
    assert paper_closed_form(game, price).purchases[0, 3] < 0
    assert follower_equilibrium(game, price)[0, 3] == 0
    three = Game(*(field[:, :3] if field.ndim == 2 else field for field in game))
    expected = slope_of(lambda p: paper_closed_form(three, p).provider_payoff)
    assert slope_of(lambda p: leader_value(game, p[:, None])[:, 0]) == pytest.approx(expected, abs=1e-5)


def test_revenue_of_interior_equal_consumers_has_no_peak():  # F3
    prices = np.linspace(10, 20, 201)[None]
    rising = leader_value(four(1000), prices)[0]
    assert (np.diff(rising) > 0).all()
    assert paper_price_condition(four(1000))[0] > 0
    falling_game = four(1000)._replace(unit_cost=np.array([1.0]))
    falling = leader_value(falling_game, prices)[0]
    assert paper_price_condition(falling_game)[0] < 0
    assert (np.diff(falling) < 0).all()
    assert (np.diff(falling, 2) > 0).all()
    # (28) as printed has the sign of this condition, so "negative" is the falling, convex case
    assert paper_curvature(falling_game, np.array([15.0]))[0] < 0


def test_table1_has_the_wrong_sign_for_theorem_5():  # F3
    assert paper_price_condition(preset("table1"))[0] == pytest.approx(25 - 1958)


def test_condition_14_never_holds():  # F4
    for n in (2, 3, 10):
        game = random_games(n, 20_000, n)
        game = game._replace(business_margin=game.business_margin * np.random.default_rng(n).uniform(0, 1, (20_000, 1)))
        form = paper_closed_form(game, np.random.default_rng(n).uniform(5, 20, 20_000))
        positive = form.kappa_positive
        assert positive.sum() > 5000
        assert not form.cond14[positive].any()
        assert not form.cond14_as_printed[positive].any()


def test_best_response_falls_at_a_symmetric_equilibrium():  # F4: it is not a standard function
    n = 10
    game = preset("calibrated", beta=np.full(n, 0.1), p_max=40.0)
    price = np.array([18.0])
    bought = follower_equilibrium(game, price)
    assert (bought > 10).all()
    assert (bought < 100).all()
    moved = bought.copy()
    moved[0, 1] += 1e-4
    slope = (best_response(game, price, moved) - best_response(game, price, bought))[0, 0] / 1e-4
    assert slope == pytest.approx(-(n - 2) / (2 * (n - 1)), abs=1e-4)


def test_scalability_formula_is_upside_down():  # F5
    reward, rivals, kappa, rho = 1000.0, 10.0, 5.0, 4.0

    def answer(x):
        return np.sqrt(reward * x / kappa) - x

    assert rho * answer(rivals) - answer(rho * rivals) == pytest.approx(89.44, abs=0.005)
    assert paper_scalability(reward, rivals, kappa, rho) == pytest.approx(111.8, abs=0.05)


@pytest.mark.parametrize(("price", "true", "printed"), [(10.0, 3131.2054, 3936.2055), (20.0, 3497.9662, 4466.7759)])
def test_revenue_formula_with_unequal_beta(price, true, printed):  # F6
    game = game_of(
        {
            **CALIBRATED,
            "C_b": 2.2,
            "u": 0.5,
            "R": 2000.0,
            "lam": 2.5,
            "beta": [0.2] + [0.1] * 9,
            "F_min": 0.0,
            "F_max": 1e6,
        }
    )
    assert leader_value(game, np.array([[price]]))[0, 0] == pytest.approx(true, abs=6e-5)
    form = paper_closed_form(game, np.array([price]))
    assert form.provider_payoff[0] == pytest.approx(printed, abs=6e-5)
    assert not form.equal_beta[0]
    if price == 10:
        bought = follower_equilibrium(game, np.array([price]))
        assert bought[0, 0] == pytest.approx(205.3, abs=0.05)
        assert form.purchases[0, 0] == pytest.approx(32.6, abs=0.05)
        assert regrets(game, np.array([price]), form.purchases)[0, 0] == pytest.approx(170.2, abs=0.05)


def test_definition_1_is_a_nash_condition():  # F7
    game = preset("calibrated")
    price = leader_equilibrium(game).price
    bought = follower_equilibrium(game, price)
    assert paper_nash_gap(game, price, bought)[0] == pytest.approx(14803.43 - 9798.54, abs=0.01)
    assert paper_nash_gap(game, game.price_high, bought)[0] == 0


def test_best_response_as_printed_agrees_where_it_applies():
    game, price = preset("calibrated"), np.array([16.0])
    bought = np.random.default_rng(0).uniform(10, 100, (1, 10))
    _, clipped = paper_best_response(game, price, bought)
    assert clipped == pytest.approx(best_response(game, price, bought), rel=1e-12)
