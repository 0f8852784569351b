"""Social optima, one-sided optima of Fig. 8a, maximin play."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from marketenvs.markets.ai_bazaar.followers import consumer_payoff, follower_equilibrium, provider_payoff
from marketenvs.markets.ai_bazaar.leader import leader_equilibrium
from marketenvs.markets.ai_bazaar.welfare import (
    consumers_optimum,
    largest_surplus,
    maximin_profile,
    provider_optimum,
    social_optimum,
    welfare_resource,
    welfare_utility,
)

from .reference import preset, random_games, wild_games


def equilibrium(game):
    price = leader_equilibrium(game).price
    return price, follower_equilibrium(game, price)


@pytest.mark.parametrize(
    ("name", "optimum", "at_equilibrium"),
    [
        ("table1", 200800, 200800),
        ("table1_ttrain", 218198.0285, 218198.0285),
        ("calibrated", 81502.40324, 12999.27338),
        ("hetero", 79098.12544, 47642.12035),
    ],
)
def test_utility_welfare(name, optimum, at_equilibrium):
    game = preset(name)
    best = social_optimum(game, "utility")
    assert best.value[0] == pytest.approx(optimum, rel=1e-9)
    assert best.exact[0]
    assert welfare_utility(game, best.price, best.purchases)[0] == pytest.approx(best.value[0], rel=1e-13)
    assert welfare_utility(game, *equilibrium(game))[0] == pytest.approx(at_equilibrium, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "optimum", "at_equilibrium"),
    [("calibrated", 221502.4032, 219261.5397), ("hetero", 219353.5071, 211805.9108)],
)
def test_resource_welfare(name, optimum, at_equilibrium):
    game = preset(name)
    best = social_optimum(game)
    assert best.value[0] == pytest.approx(optimum, rel=1e-9)
    assert welfare_resource(game, best.purchases)[0] == pytest.approx(best.value[0], rel=1e-13)
    assert welfare_resource(game, equilibrium(game)[1])[0] == pytest.approx(at_equilibrium, rel=1e-9)


def test_where_the_utility_optimum_lies():
    best = social_optimum(preset("calibrated"), "utility")
    assert best.price[0] == 10
    assert (best.purchases == 100).all()
    best = social_optimum(preset("hetero"), "utility")
    assert best.price[0] == 10
    assert best.purchases[0].tolist() == [100, 100, 100, 10, 100, 100, 100, 100, 100, 100]
    assert social_optimum(preset("table1"), "utility").price[0] == 20  # F10: u < 1 makes payments create welfare


def edges_of_the_box(game, gain):
    """The surplus on all edges of the purchase box: dense points and the stationary point of each."""
    n, beta, reward = game.consumers, game.mining_ratio[0], game.reward[0]
    low, high = game.purchase_low[0], game.purchase_high[0]

    def surplus(bought):
        effort = beta * bought
        total = effort.sum(axis=-1)
        mined = np.where(total > 0, (reward * effort).sum(axis=-1) / np.where(total > 0, total, 1), 0)
        return (gain[0] * bought).sum(axis=-1) + mined

    corners = np.where(np.array(list(product((0, 1), repeat=n))), high, low)
    best = surplus(corners).max()
    for j in range(n):
        for fraction in np.concatenate([[1e-13], np.linspace(0, 1, 200)]):
            points = corners.copy()
            points[:, j] = low[j] + fraction * (high[j] - low[j])
            best = max(best, surplus(points).max())
        effort = beta * corners
        rest = effort.sum(axis=1) - effort[:, j]
        mined = (reward * effort).sum(axis=1) - reward[j] * effort[:, j]
        with np.errstate(all="ignore"):
            inner = (np.sqrt((reward[j] * rest - mined) / (-gain[0, j] / beta[j])) - rest) / beta[j]
        points = corners.copy()
        points[:, j] = np.clip(np.where(np.isfinite(inner), inner, low[j]), low[j], high[j])
        best = max(best, surplus(points).max())
    return best


@pytest.mark.parametrize("seed", range(40))
def test_largest_surplus_is_the_best_of_all_edges(seed):
    game = wild_games(seed, 1)
    gain = np.random.default_rng(seed).normal(0, 100, (1, game.consumers))
    best = largest_surplus(game, gain)
    expected = edges_of_the_box(game, gain)
    assert best.exact[0]
    assert best.value[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    if best.attained[0]:
        assert (best.purchases >= game.purchase_low).all()
        assert (best.purchases <= game.purchase_high).all()


def test_no_profile_beats_the_social_optimum():
    game = random_games(2, 50, 30)
    rng = np.random.default_rng(2)
    for kind in ("utility", "resource"):
        best = social_optimum(game, kind)
        assert best.exact.all()
        for _ in range(50):
            price = rng.uniform(game.price_low, game.price_high)
            bought = np.where(
                rng.random((50, 30)) < 0.5,
                rng.choice([10.0, 100.0], (50, 30)),
                rng.uniform(10, 100, (50, 30)),
            )
            worth = welfare_utility(game, price, bought) if kind == "utility" else welfare_resource(game, bought)
            assert (worth <= best.value + 1e-9 * np.abs(best.value)).all()


def test_many_consumers_say_that_the_optimum_is_a_candidate_only():
    assert not social_optimum(random_games(1, 1, 200)).exact[0]
    assert social_optimum(preset("calibrated", n=1000)).exact[0]  # equal rewards: one order


def test_utility_and_kind_are_checked():
    with pytest.raises(ValueError, match="resource"):
        social_optimum(preset("calibrated"), "money")  # type: ignore[arg-type]


def test_one_sided_optima_of_fig_8a():
    game = preset("calibrated")
    alone = provider_optimum(game)
    assert alone.price[0] == 20
    assert (alone.purchases == 100).all()
    assert alone.value[0] == 15000
    assert consumer_payoff(game, alone.price, alone.purchases).sum() == pytest.approx(-73497.6, abs=0.05)
    cartel = consumers_optimum(game)
    assert cartel.price[0] == 10
    assert (cartel.purchases == 100).all()
    assert cartel.value[0] == pytest.approx(76502.4, abs=0.05)
    assert provider_payoff(game, cartel.price, cartel.purchases)[0] == 5000
    price, bought = equilibrium(game)
    assert provider_payoff(game, price, bought)[0] == pytest.approx(9798.5, abs=0.05)
    assert consumer_payoff(game, price, bought).sum() == pytest.approx(3200.7, abs=0.05)
    held = consumers_optimum(game, price)
    assert (held.purchases == 10).all()
    assert held.value[0] == pytest.approx(27889.4, abs=0.05)
    assert provider_payoff(game, price, held.purchases)[0] == pytest.approx(992.9, abs=0.05)


@pytest.mark.parametrize("name", ["table1", "table1_ttrain"])
def test_table1_equilibrium_is_the_providers_optimum(name):
    game = preset(name)
    price, bought = equilibrium(game)
    alone = provider_optimum(game)
    assert price[0] == alone.price[0]
    assert (bought == alone.purchases).all()


def test_maximin_profile():
    game = preset("calibrated")
    price, bought, guaranteed = maximin_profile(game)
    assert price[0] == 20
    assert (bought == 10).all()
    assert provider_payoff(game, price, bought)[0] == 1500
    rng = np.random.default_rng(0)
    for i in (0, 1):
        security = []
        for own in np.linspace(10, 100, 31):
            profiles = rng.choice([10.0, 55.0, 100.0], (200, 10))
            profiles[0] = 100
            profiles[:, i] = own
            many = game.at(np.zeros(200, dtype=int))
            security.append(consumer_payoff(many, np.full(200, 20.0), profiles)[:, i].min())
        assert max(security) == pytest.approx(guaranteed[0, i], rel=1e-12)


def test_maximin_is_the_equilibrium_in_table1():
    game = preset("table1")
    price, bought = equilibrium(game)
    safest, safe, _ = maximin_profile(game)
    assert safest[0] == price[0]
    assert (safe == bought).all()
