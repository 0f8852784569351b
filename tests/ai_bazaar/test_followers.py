"""The consumers' equilibrium: reference cases, three methods against each other, edge cases, boundaries."""

from __future__ import annotations

import time

import numpy as np
import pytest

from marketenvs.errors import InvalidParameter
from marketenvs.markets.ai_bazaar.followers import (
    best_response,
    consumer_payoff,
    equilibrium_attained,
    follower_equilibrium,
    follower_equilibrium_sorted,
    mining_shares,
    provider_payoff,
    regrets,
)
from marketenvs.markets.ai_bazaar.game import make_game

from .reference import CALIBRATED, CASES, case, game_of, preset, random_games, wild_games

POSTED = [c for c in CASES if c["kind"] in ("stackelberg", "follower_ne")]
METHODS = ["active_set", "sorted", "damped"]


def price_of(c: dict) -> np.ndarray:
    return np.array([c["p"] if "p" in c else c["p_star"]])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("c", POSTED, ids=lambda c: c["name"])
def test_reference_cases(c, method):
    game, price = game_of(c["params"]), price_of(c)
    bought = follower_equilibrium(game, price, method=method)
    # the reference prices carry 12 digits, which leaves about 9 in the purchases
    assert bought[0] == pytest.approx(np.array(c["F"]), rel=1e-8, abs=1e-6)
    assert consumer_payoff(game, price, bought)[0] == pytest.approx(np.array(c["U"]), rel=1e-8, abs=1e-5)
    assert provider_payoff(game, price, bought)[0] == pytest.approx(c["U_cpp"], rel=1e-9)


@pytest.mark.parametrize("name", ["R5a", "R6", "R12"])
def test_reference_cases_at_exact_prices_to_the_last_digit(name):
    c = case(name)
    game, price = game_of(c["params"]), price_of(c)
    bought = follower_equilibrium(game, price)
    assert bought[0] == pytest.approx(np.array(c["F"]), rel=5e-12, abs=1e-9)
    assert consumer_payoff(game, price, bought)[0] == pytest.approx(np.array(c["U"]), rel=5e-12, abs=5e-9)
    assert provider_payoff(game, price, bought)[0] == pytest.approx(c["U_cpp"], rel=5e-12)


def test_duopoly_closed_form():
    game, price = game_of(case("R6")["params"]), np.array([15.0])
    cost = (game.net_cost(price) / (game.mining_ratio * game.reward))[0]
    total = 1 / cost.sum()
    expected = total * (1 - total * cost) / game.mining_ratio[0]
    assert follower_equilibrium(game, price)[0] == pytest.approx(expected, rel=1e-13)


def test_regret_reference_r10():
    c = case("R10")
    game, price, bought = game_of(c["params"]), np.array([16.0]), np.array([c["F"]])
    assert consumer_payoff(game, price, bought)[0] == pytest.approx(np.array(c["U"]), rel=5e-12)
    assert regrets(game, price, bought)[0] == pytest.approx(np.array(c["regret"]), rel=1e-11)
    assert regrets(game, price, bought).sum() == pytest.approx(c["follower_nashconv"], rel=1e-11)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 200])
def test_methods_agree_and_nobody_can_gain(n):
    game = random_games(n, 200 if n < 100 else 20, n)
    price = np.random.default_rng(n).uniform(10, 20, game.markets)
    bought = follower_equilibrium(game, price)
    scale = np.maximum(1.0, np.abs(consumer_payoff(game, price, bought)))
    assert (regrets(game, price, bought) <= 1e-11 * scale).all()
    assert follower_equilibrium_sorted(game, price) == pytest.approx(bought, rel=1e-12)
    if n <= 10:
        assert follower_equilibrium(game, price, method="damped") == pytest.approx(bought, abs=1e-5)


@pytest.mark.parametrize("seed", range(60))
def test_edge_cases_at_random(seed):
    game = wild_games(seed)
    price = np.random.default_rng(seed).uniform(game.price_low, game.price_high)
    for solve in (follower_equilibrium, follower_equilibrium_sorted):
        bought = solve(game, price)
        assert (bought >= game.purchase_low).all()
        assert (bought <= game.purchase_high).all()
        gain = regrets(game, price, bought) / np.maximum(1.0, np.abs(consumer_payoff(game, price, bought)))
        assert (gain[equilibrium_attained(game, price)] <= 1e-10).all()


def test_best_response_is_the_best_of_many_purchases():
    game = wild_games(3, 40)
    rng = np.random.default_rng(3)
    price, bought = rng.uniform(game.price_low, game.price_high), rng.uniform(game.purchase_low, game.purchase_high)
    best = best_response(game, price, bought)
    for i in range(game.consumers):
        profile = bought.copy()
        profile[:, i] = best[:, i]
        top = consumer_payoff(game, price, profile)[:, i]
        for fraction in np.linspace(0, 1, 101):
            profile[:, i] = game.purchase_low[:, i] + fraction * (game.purchase_high - game.purchase_low)[:, i]
            assert (consumer_payoff(game, price, profile)[:, i] <= top + 1e-8 * np.maximum(1, np.abs(top))).all()


def test_undamped_best_response_cycles_on_calibrated():
    game, price = preset("calibrated"), np.array([16.0])
    bought = np.full((1, 10), 50.0)
    for _ in range(20):
        bought = best_response(game, price, bought)
    again = best_response(game, price, best_response(game, price, bought))
    assert again == pytest.approx(bought, abs=1e-9)
    low, high = sorted((bought[0], best_response(game, price, bought)[0]), key=lambda f: f[0])
    assert low == pytest.approx(np.array([14.6249] + [10.0] * 9), abs=1e-4)
    assert high == pytest.approx(np.full(10, 100.0))


def test_demand_of_a_consumer_may_rise_with_the_price():  # F9
    game = preset("calibrated").at(np.zeros(4, dtype=int))
    first = follower_equilibrium(game, np.array([14.93, 15.32, 16.0, 16.0]))[:, 0]
    assert first[:3] == pytest.approx([86.98, 100, 100], abs=0.006)


@pytest.mark.parametrize(("low", "at", "expected"), [(10.0, 20.0, 10.0), (10.0, 10.0, 100.0), (0.0, 20.0, 0.0)])
def test_one_consumer(low, at, expected):
    game, price = preset("calibrated", n=1, F_min=low), np.array([at])
    assert follower_equilibrium(game, price)[0, 0] == expected
    attained = not (low == 0.0 and expected == 0.0)
    assert equilibrium_attained(game, price)[0] == attained
    # with nothing to buy at least, any positive amount wins the whole reward: the profile is off by R
    assert regrets(game, price, follower_equilibrium(game, price))[0, 0] == (0 if attained else game.reward[0, 0])
    assert np.isnan(follower_equilibrium(game, price, attained=True)).any() == (not attained)


def test_non_miners_and_ties():
    game = preset("calibrated", beta=[0.0, 0.1, 0.1], m=[1.0, 0.0, 1.0])
    tie = game.business_margin[0, 0] / 15.0
    for price, expected in ((tie, 100.0), (tie * (1 + 1e-9), 10.0), (tie * (1 - 1e-9), 100.0)):
        bought = follower_equilibrium(game, np.array([price]))[0]
        assert bought[0] == expected
    # consumer 1 earns nothing by mining but its effort counts
    shares = mining_shares(game, np.full((1, 3), 50.0))
    assert shares[0].tolist() == [0.0, 0.5, 0.5]


def test_nobody_mines():
    game = preset("calibrated", beta=np.zeros(4), F_min=0.0)
    bought = follower_equilibrium(game, np.array([20.0]))
    assert (bought == 0).all()
    assert (consumer_payoff(game, np.array([20.0]), bought) == 0).all()
    assert (mining_shares(game, bought) == 0).all()
    assert (regrets(game, np.array([20.0]), bought) == 0).all()


def test_opt_out_keeps_a_contest():
    game, price = preset("calibrated", F_min=0.0, R=3000.0, lam=0.0), np.array([20.0])
    bought = follower_equilibrium(game, price)
    assert 0 < bought.min() < 10
    assert regrets(game, price, bought).max() < 1e-9
    # the all-zero profile is no equilibrium: whoever buys a little takes the whole reward
    assert regrets(game, price, np.zeros((1, 10))).min() == pytest.approx(game.reward[0, 0])


def test_rewards_at_the_edge_of_underflow():
    game = game_of({**CALIBRATED, "eps": 20.0, "beta": np.full(5, 0.1), "C_b": 0.0, "F_min": 0.0})
    assert game.reward.max() < 1e-29
    bought = follower_equilibrium(game, np.array([15.0]))
    assert (bought > 0).all()  # a contest for 1e-30 tokens is still solved exactly
    assert bought == pytest.approx(follower_equilibrium_sorted(game, np.array([15.0])), rel=1e-12)
    expected = 4 / 25 * game.reward[0, 0] / (15 * 15)
    assert bought[0] == pytest.approx(np.full(5, expected), rel=1e-12)


def test_a_hundred_thousand_consumers_in_a_second():
    game = random_games(0, 1, 100_000)
    game = game._replace(reward=game.reward * 1e4)
    start = time.perf_counter()
    bought = follower_equilibrium_sorted(game, np.array([15.0]))
    assert time.perf_counter() - start < 1.0
    inside = (bought > game.purchase_low) & (bought < game.purchase_high)
    assert inside.sum() > 1000
    assert regrets(game, np.array([15.0]), bought).max() < 1e-9


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"payment_weight": [1.0, np.nan]}, "payment_weight"),
        ({"mining_ratio": 1.5}, "mining_ratio"),
        ({"block_reward": -1.0}, "block_reward"),
        ({"purchase_low": 200.0}, "purchase_low"),
        ({"price_low": 30.0}, "price_low"),
        ({"payment_weight": np.ones((2, 3)), "mining_ratio": np.ones(4) / 2}, "shapes"),
    ],
)
def test_bad_numbers_are_named(change, culprit):
    good = {
        "payment_weight": 15.0, "business_value": 220.0, "mining_ratio": 0.1, "block_reward": 1e4, "unit_cost": 5.0,
        "purchase_low": 10.0, "purchase_high": 100.0, "price_low": 10.0, "price_high": 20.0,
    }  # fmt: skip
    with pytest.raises(InvalidParameter, match=culprit):
        make_game(**{**good, **change})


def test_bad_prices_and_methods_are_named():
    game = preset("calibrated")
    with pytest.raises(ValueError, match="shape"):
        follower_equilibrium(game, np.ones(3))
    with pytest.raises(ValueError, match="NaN"):
        follower_equilibrium(game, np.array([np.nan]))
    with pytest.raises(ValueError, match="damped"):
        follower_equilibrium(game, np.ones(1), method="newton")
