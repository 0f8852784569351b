"""What holds in every market (specification, section 8), on drawn markets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketenvs.markets.ai_bazaar.followers import (
    consumer_payoff,
    follower_equilibrium,
    mining_shares,
    provider_payoff,
    regrets,
)
from marketenvs.markets.ai_bazaar.game import Game, make_game
from marketenvs.markets.ai_bazaar.leader import leader_equilibrium

from .reference import random_games, wild_games

MARKETS = 20
SEEDS = st.integers(0, 10_000)
drawn = settings(max_examples=10, deadline=None)


def prices(seed: int, game: Game) -> np.ndarray:
    return np.random.default_rng(seed).uniform(game.price_low, game.price_high)


def scaled(game: Game, **factors: float) -> Game:
    return game._replace(**{name: getattr(game, name) * factor for name, factor in factors.items()})


@given(seed=SEEDS)
@drawn
def test_i_order_of_the_consumers_does_not_matter(seed):
    game = random_games(seed, MARKETS)
    order = np.random.default_rng(seed).permutation(10)
    other = Game(*(field[:, order] if field.ndim == 2 else field for field in game))
    price = prices(seed, game)
    assert follower_equilibrium(other, price) == pytest.approx(follower_equilibrium(game, price)[:, order], rel=1e-11)
    assert leader_equilibrium(other).price == pytest.approx(leader_equilibrium(game).price, rel=1e-6)


@given(seed=SEEDS, factor=st.floats(0.05, 40))
@drawn
def test_ii_unit_of_the_consumers_payoff(seed, factor):
    game = random_games(seed, MARKETS)
    other = scaled(game, business_margin=factor, reward=factor, payment_weight=factor)
    price = prices(seed, game)
    bought = follower_equilibrium(game, price)
    assert follower_equilibrium(other, price) == pytest.approx(bought, rel=1e-9)
    assert consumer_payoff(other, price, bought) == pytest.approx(
        factor * consumer_payoff(game, price, bought), rel=1e-9, abs=1e-9
    )
    assert leader_equilibrium(other).value == pytest.approx(leader_equilibrium(game).value, rel=1e-10)


@given(seed=SEEDS, factor=st.floats(0.05, 40))
@drawn
def test_iii_unit_of_money(seed, factor):
    game = random_games(seed, MARKETS)
    other = scaled(game, price_low=factor, price_high=factor, unit_cost=factor, payment_weight=1 / factor)
    one, two = leader_equilibrium(game), leader_equilibrium(other)
    assert two.value == pytest.approx(factor * one.value, rel=1e-10)
    assert two.price == pytest.approx(factor * one.price, rel=1e-6)
    assert follower_equilibrium(other, factor * one.price) == pytest.approx(
        follower_equilibrium(game, one.price), rel=1e-8
    )


@given(seed=SEEDS, factor=st.floats(0.05, 40))
@drawn
def test_iv_unit_of_computing_power(seed, factor):
    game = random_games(seed, MARKETS)
    other = scaled(game, purchase_low=factor, purchase_high=factor, reward=factor)
    price = prices(seed, game)
    bought = follower_equilibrium(game, price)
    assert follower_equilibrium(other, price) == pytest.approx(factor * bought, rel=1e-9)
    assert consumer_payoff(other, price, factor * bought) == pytest.approx(
        factor * consumer_payoff(game, price, bought), rel=1e-9, abs=1e-9
    )
    assert leader_equilibrium(other).price == pytest.approx(leader_equilibrium(game).price, rel=1e-6)


@given(seed=SEEDS)
@drawn
def test_v_total_effort_does_not_rise_with_the_price(seed):
    for game in (random_games(seed, 5), wild_games(seed, 5)):
        rows = np.repeat(np.arange(5), 200)
        grid = game.price_low[:, None] + np.linspace(0, 1, 200) * (game.price_high - game.price_low)[:, None]
        bought = follower_equilibrium(game.at(rows), grid.ravel())
        effort = (game.mining_ratio[rows] * bought).sum(axis=1).reshape(5, 200)
        assert (np.diff(effort, axis=1) <= 1e-12 * effort[:, 1:] + 1e-12).all()


@given(seed=SEEDS)
@drawn
def test_vi_payoffs_fall_in_the_purchases_of_rivals(seed):
    game = random_games(seed, MARKETS)
    rng = np.random.default_rng(seed)
    price, bought = prices(seed, game), rng.uniform(10, 90, (MARKETS, 10))
    rival = int(rng.integers(1, 10))
    more = bought.copy()
    more[:, rival] += rng.uniform(0.1, 10, MARKETS)
    others = np.arange(10) != rival
    change = consumer_payoff(game, price, more) - consumer_payoff(game, price, bought)
    assert (change[:, others] < 0).all()


@given(seed=SEEDS)
@drawn
def test_vii_shares(seed):
    game = wild_games(seed)
    bought = np.random.default_rng(seed).uniform(game.purchase_low, game.purchase_high)
    shares = mining_shares(game, bought)
    works = (game.mining_ratio * bought).sum(axis=1) > 0
    assert shares.sum(axis=1) == pytest.approx(works.astype(float), abs=1e-12)
    assert (shares >= 0).all()
    # rho_i = alpha_i exp(-eps T_i): what the decay leaves of a reward without it
    rng = np.random.default_rng(seed)
    common = dict.fromkeys(("payment_weight", "business_value", "block_reward", "block_size"), 1.0) | {
        "mining_ratio": rng.uniform(0.1, 1, (5, 4)), "puzzle_constant": rng.uniform(0, 5), "propagation": 1.0,
        "loss": rng.uniform(0, 1, (5, 4)), "unit_cost": 0.0, "purchase_low": 0.0, "purchase_high": 1.0,
        "price_low": 0.0, "price_high": 1.0,
    }  # fmt: skip
    game = make_game(**common)
    chance = mining_shares(game, rng.uniform(0, 1, (5, 4))) * game.reward
    assert (chance.sum(axis=1) <= 1 + 1e-12).all()


@given(seed=SEEDS, cost=st.floats(0, 100))
@drawn
def test_viii_cost_does_not_enter_the_consumers_game(seed, cost):
    game = random_games(seed, MARKETS)
    other = game._replace(unit_cost=np.full(MARKETS, cost))
    price = prices(seed, game)
    bought = follower_equilibrium(game, price)
    assert (follower_equilibrium(other, price) == bought).all()
    demand = bought.sum(axis=1)
    assert provider_payoff(other, price, bought) == pytest.approx(
        provider_payoff(game, price, bought) + (5 - cost) * demand, abs=1e-7
    )


@given(seed=SEEDS)
@drawn
def test_ix_regrets_are_not_negative_and_are_gains(seed):
    game = wild_games(seed)
    rng = np.random.default_rng(seed)
    price, bought = prices(seed, game), rng.uniform(game.purchase_low, game.purchase_high)
    regret = regrets(game, price, bought)
    assert (regret >= 0).all()
    base = consumer_payoff(game, price, bought)
    for i in range(game.consumers):
        other = bought.copy()
        other[:, i] = rng.uniform(game.purchase_low, game.purchase_high)[:, i]
        gain = (consumer_payoff(game, price, other) - base)[:, i]
        assert (gain <= regret[:, i] + 1e-9 * np.maximum(1, np.abs(base[:, i]))).all()
