"""The discretised market: enumeration of pure equilibria, grid prices, expected payoffs of mixtures."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from marketenvs.markets.ai_bazaar.followers import consumer_payoff
from marketenvs.markets.ai_bazaar.grid import (
    grid_best_response,
    grid_follower_equilibrium,
    grid_leader,
    grid_levels,
    grid_regrets,
    mixed_payoff,
    pure_equilibria,
)
from marketenvs.markets.ai_bazaar.leader import leader_equilibrium
from marketenvs.markets.ai_bazaar.mixed import effort_unit

from .reference import CALIBRATED, case, game_of, preset, wild_games

TEN = np.linspace(10, 100, 10)


@pytest.mark.parametrize(
    ("name", "n", "prices", "price", "value"),
    [
        ("calibrated", 10, 11, 15.0, 9400),
        ("calibrated", 10, 21, 14.5, 9500),
        ("calibrated", 5, 11, 16.0, 5500),
        ("calibrated", 15, 11, 14.0, 13500),
        ("hetero", 10, 11, 16.0, 6930),
        ("table1", 10, 11, 20.0, 15000),
    ],
)
def test_grid_prices(name, n, prices, price, value):
    solution = grid_leader(preset(name, n=n), prices, 10)
    assert solution.price[0] == price
    assert solution.value[0] == pytest.approx(value, rel=1e-12)
    assert solution.values[0, solution.position[0]] == solution.value[0]
    assert solution.enumerated.all()


def test_runners_up():
    assert grid_leader(preset("calibrated"), 11, 10).values[0, 4] == pytest.approx(9000)  # p = 14
    hetero = grid_leader(preset("hetero"), 11, 10).values[0]
    assert hetero[[2, 7]] == pytest.approx([6860, 6840])  # p = 12, 17


def test_grid_value_can_exceed_the_continuous_optimum():
    game = preset("calibrated", n=15)
    assert leader_equilibrium(game).value[0] == pytest.approx(13492.21, abs=0.005)
    assert grid_leader(game, 11, 10).value[0] > 13492.22


def test_calibrated_has_one_multiset_at_every_half_integer_price_but_one():
    game = preset("calibrated").at(np.zeros(21, dtype=int))
    prices = np.linspace(10, 20, 21)
    answer = grid_follower_equilibrium(game, prices, 10)
    assert answer.exists.all()
    assert answer.enumerated.all()
    assert answer.multisets.tolist() == [2 if p == 16.5 else 1 for p in prices]
    assert answer.profiles.max() == 126
    assert answer.regret.max() < 1e-9
    at_15 = answer.purchases[10]
    assert at_15[0] == 90
    assert sorted(at_15[1:]) == [90] * 5 + [100] * 4


def brute_force(game, price, levels):
    choices = np.array(list(product(range(levels.shape[2]), repeat=levels.shape[1])))
    profiles = levels[0][np.arange(levels.shape[1]), choices]
    many, prices = game.at(np.zeros(len(profiles), dtype=int)), np.full(len(profiles), price)
    gain = grid_regrets(many, prices, profiles, levels[0])
    scale = np.maximum(1.0, np.abs(consumer_payoff(many, prices, profiles)))
    return np.unique(profiles[(gain <= 1e-9 * scale).all(axis=1)], axis=0)


def uneven_games(seed, markets, n):
    """Small contests between very different consumers; a fifth of them has no pure equilibrium on a grid."""
    rng = np.random.default_rng(seed)
    shape = (markets, n)
    changes = {"C_b": 2.2, "R": 2000.0, "lam": 2.5, "F_min": 1.0, "F_max": rng.uniform(20, 200, shape)}
    return game_of({**CALIBRATED, **changes, "u": rng.uniform(0.2, 4, shape), "beta": rng.uniform(0.05, 0.5, shape)})


def small_games():
    for seed in range(120):
        game = wild_games(seed, 2)
        if game.consumers <= 4:
            yield seed, game
    for seed in range(40):
        yield seed, uneven_games(seed, 2, 2 + seed % 3)
        yield seed, game_of({**CALIBRATED, "R": 2000.0, "lam": 0.0, "beta": np.tile([0.2, 0.1, 0.1, 0.1], (2, 1))})


def test_enumeration_equals_brute_force():
    kinds = {0: 0, 1: 0, 2: 0}
    for seed, game in small_games():
        rng = np.random.default_rng(seed)
        for b in range(2):
            one = game.at(slice(b, b + 1))
            price = float(rng.uniform(one.price_low[0], one.price_high[0]))
            levels = grid_levels(one, int(rng.integers(2, 7)))
            if (np.abs(one.net_cost(np.array([price]))) < 1e-9).any():
                continue  # indifferent consumers: brute force would list all their purchases
            profiles, repeats, complete = pure_equilibria(one, price, levels)
            expected = brute_force(one, price, levels)
            assert complete
            assert len(expected) == repeats.sum()
            for profile in profiles:
                assert (np.abs(expected - profile).max(axis=1) == 0).any()
            kinds[min(2, len(expected))] += 1
    assert min(kinds.values()) >= 3  # games without, with one and with several equilibria were all met


def test_tie_goes_to_the_largest_purchase_on_the_grid_too():
    game = preset("calibrated", beta=np.zeros(2))
    answer = grid_follower_equilibrium(game, np.array([220 / 15]), TEN)
    assert answer.purchases.tolist() == [[100.0, 100.0]]


def test_without_an_equilibrium_the_lowest_regret_is_reported():
    seen = 0
    for n, width in ((2, 10), (3, 6), (4, 4)):
        games = uneven_games(n, 60, n)
        price = np.random.default_rng(n).uniform(10, 20, 60)
        answer = grid_follower_equilibrium(games, price, width)
        assert answer.enumerated.all()
        for b in np.flatnonzero(~answer.exists):
            one, levels = games.at(slice(b, b + 1)), grid_levels(games, width)[b]
            profiles = np.array(list(product(*levels)))
            many = one.at(np.zeros(len(profiles), dtype=int))
            least = grid_regrets(many, np.full(len(profiles), price[b]), profiles, levels).sum(axis=1).min()
            assert least > 0
            assert least - 1e-9 <= answer.regret[b].sum() <= 3 * least
            seen += 1
    assert seen >= 10


def test_grid_best_response_is_a_level_and_the_best():
    game, price = preset("hetero"), np.array([15.0])
    bought = np.full((1, 10), 50.0)
    best = grid_best_response(game, price, bought, TEN)
    assert np.isin(best, TEN).all()
    for i in range(10):
        worth = []
        for level in TEN:
            profile = bought.copy()
            profile[0, i] = level
            worth.append(consumer_payoff(game, price, profile)[0, i])
        assert TEN[int(np.argmax(worth))] == best[0, i]
        gain = grid_regrets(game, price, bought, TEN)[0, i]
        assert gain == pytest.approx(max(worth) - consumer_payoff(game, price, bought)[0, i], abs=1e-9)


def test_uniform_mixtures_r11():
    c = case("R11")
    game = game_of(c["params"])
    result = mixed_payoff(game, np.array([15.0]), TEN, np.full((1, 10, 10), 0.1))
    assert result.values[0] == pytest.approx(np.array(c["EU"]), rel=5e-12)
    assert result.gains[0] == pytest.approx(np.array(c["gain"]), rel=5e-12)
    assert result.gains.sum() == pytest.approx(c["sum_gain"], rel=1e-11)
    assert (result.standard_error == 0).all()
    demand = 10 * TEN.mean()
    assert (15 - 5) * demand == 5500


def test_mixtures_equal_full_enumeration():
    rng = np.random.default_rng(4)
    for beta in ([0.1, 0.2, 0.25], [0.0, 0.1, 0.3], [0.3, 0.3, 0.3]):
        game = preset("calibrated", beta=beta, u=[12.0, 14.0, 16.0])
        levels = np.array([0.0, 10.0, 20.0, 35.0])
        mixture = rng.dirichlet(np.ones(4), (1, 3))
        result = mixed_payoff(game, np.array([15.0]), levels, mixture)
        expected = np.zeros(3)
        for choice in product(range(4), repeat=3):
            chance = np.prod(mixture[0, np.arange(3), choice])
            expected += chance * consumer_payoff(game, np.array([15.0]), levels[list(choice)][None])[0]
        assert result.values[0] == pytest.approx(expected, rel=1e-12)
        pure = np.zeros((1, 3, 4))
        pure[:, :, 2] = 1
        profile = np.full((1, 3), 20.0)
        exact = mixed_payoff(game, np.array([15.0]), levels, pure)
        assert exact.values == pytest.approx(consumer_payoff(game, np.array([15.0]), profile), rel=1e-12)
        assert exact.gains == pytest.approx(grid_regrets(game, np.array([15.0]), profile, levels), abs=1e-9)


def test_mixtures_in_batches_of_different_units():
    games = [preset("calibrated", n=3), preset("calibrated", beta=[0.25, 0.15, 0.1])]
    both = type(games[0])(*(np.concatenate(fields) for fields in zip(*games, strict=True)))
    mixture = np.random.default_rng(0).dirichlet(np.ones(10), (2, 3))
    together = mixed_payoff(both, np.array([14.0, 16.0]), TEN, mixture)
    for b, price in enumerate((14.0, 16.0)):
        alone = mixed_payoff(games[b], np.array([price]), TEN, mixture[b : b + 1])
        assert together.deviation_values[b] == pytest.approx(alone.deviation_values[0], rel=1e-13)


def test_mixtures_without_a_common_unit_are_sampled_with_an_honest_error():
    game = preset("calibrated", beta=[0.1, 0.1 * np.sqrt(2), 0.1 * np.pi], u=[12.0, 14.0, 16.0])
    assert effort_unit(game.mining_ratio[0][:, None] * TEN) is None
    mixture = np.random.default_rng(1).dirichlet(np.ones(10), (1, 3))
    result = mixed_payoff(game, np.array([15.0]), TEN, mixture, samples=4000)
    assert (result.standard_error > 0).all()
    expected = np.zeros((3, 10))
    for i in range(3):
        others = [j for j in range(3) if j != i]
        for choice in product(range(10), repeat=2):
            chance = np.prod([mixture[0, j, a] for j, a in zip(others, choice, strict=True)])
            profiles = np.empty((10, 3))
            profiles[:, others], profiles[:, i] = TEN[list(choice)], TEN
            many = game.at(np.zeros(10, dtype=int))
            expected[i] += chance * consumer_payoff(many, np.full(10, 15.0), profiles)[:, i]
    wrong = np.abs(result.deviation_values[0] - expected) / result.standard_error[0]
    assert wrong.max() < 4.5
    assert wrong.mean() > 0.1  # an error far below the stated one would be as suspicious


@pytest.mark.parametrize(
    ("efforts", "unit"),
    [
        ([10, 20, 50], 10),
        ([2.5, 1.0, 1.5], 0.5),
        ([0.3, 0.1], 0.1),
        ([0, 7e-9, 14e-9], 7e-9),
        ([1, np.e], None),
        ([0], 1),
    ],
)
def test_effort_unit(efforts, unit):
    found = effort_unit(np.array(efforts, dtype=float))
    assert found is None if unit is None else found == pytest.approx(unit, rel=1e-12)


def test_bad_grids_and_mixtures_are_refused():
    game = preset("calibrated")
    with pytest.raises(ValueError, match="ascend"):
        grid_levels(game, TEN[::-1])
    with pytest.raises(ValueError, match="sum to 1"):
        mixed_payoff(game, np.array([15.0]), TEN, np.full((1, 10, 10), 0.2))
    with pytest.raises(ValueError, match="shape"):
        mixed_payoff(game, np.array([15.0]), TEN, np.full((1, 9, 10), 0.1))
    with pytest.raises(ValueError, match="one market"):
        pure_equilibria(game.at([0, 0]), 15.0, TEN)
