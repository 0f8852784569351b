"""The equilibrium numbers behind the paper's figures (specification, section 7), preset by preset."""

from __future__ import annotations

import numpy as np
import pytest

from marketenvs.markets.ai_bazaar.followers import consumer_payoff, follower_equilibrium
from marketenvs.markets.ai_bazaar.game import Game
from marketenvs.markets.ai_bazaar.leader import leader_equilibrium, leader_value

from .reference import preset


def stackelberg(game: Game) -> tuple[float, float, np.ndarray]:
    """Price, provider's payoff and the consumers' payoffs at the equilibrium of one market."""
    solution = leader_equilibrium(game)
    bought = follower_equilibrium(game, solution.price)
    return solution.price[0], solution.value[0], consumer_payoff(game, solution.price, bought)[0]


def at_price(game: Game, price: float) -> np.ndarray:
    """The consumers' payoffs at a fixed price."""
    posted = np.full(game.markets, price)
    return consumer_payoff(game, posted, follower_equilibrium(game, posted))[0]


@pytest.mark.parametrize(
    ("name", "price", "amounts", "payoffs"),
    [
        ("table1", 20.0, (10, 50, 100), (1880, 9400, 18800)),
        ("table1_ttrain", 20.0, (10, 50, 100), (2052.3, 10228.5, 20381.6)),
        ("calibrated", 16.0, (10, 52.6546710409, 100), (66.384, 187.441, 56.907)),
    ],
)
def test_fig_7_left_payoff_over_own_purchase(name, price, amounts, payoffs):
    game = preset(name)
    posted = np.array([price])
    bought = follower_equilibrium(game, posted)
    for amount, payoff in zip(amounts, payoffs, strict=True):
        bought[0, 1] = amount
        tolerance = 0.0006 if name == "calibrated" else 0.06
        assert consumer_payoff(game, posted, bought)[0, 1] == pytest.approx(payoff, abs=tolerance)


def test_fig_7_right_payoff_over_price():
    value = leader_value(preset("calibrated"), np.array([[14, 14.9286510099, 16, 20]]))[0]
    assert value == pytest.approx([9000, 9798.5, 6312.8, 3318.8], abs=0.05)
    for name in ("table1", "table1_ttrain"):
        prices = np.linspace(10, 20, 101)
        assert leader_value(preset(name), prices[None])[0] == pytest.approx((prices - 5) * 1000)


@pytest.mark.parametrize(
    ("n", "mean", "provider"),
    [
        (2, 8020.82, 2315.28),
        (5, 1436.26, 5521.41),
        (10, 320.073, 9798.54),
        (20, 76.533, 17592.1),
        (30, 31.100, 25832.0),
    ],
)
def test_fig_8b_calibrated(n, mean, provider):
    _, value, payoffs = stackelberg(preset("calibrated", n=n))
    assert payoffs.mean() == pytest.approx(mean, rel=1e-5)
    assert value == pytest.approx(provider, rel=4e-6)
    if n == 20:
        assert payoffs[0] == pytest.approx(-51.76, abs=0.005)  # no opting out: somebody loses


def test_fig_8b_table1():
    for n, mean in ((2, 17700), (20, 18690)):
        _, value, payoffs = stackelberg(preset("table1", n=n))
        assert value == pytest.approx(1500 * n)
        assert payoffs.mean() == pytest.approx(mean)
    for n, mean in ((2, 26399.0), (20, 19559.9)):
        assert stackelberg(preset("table1_ttrain", n=n))[2].mean() == pytest.approx(mean, abs=0.05)


RATIOS = np.round(np.arange(0.0, 1.0001, 0.005), 3)


def peak_ratio(game_of_ratio) -> float:
    return float(RATIOS[np.argmax([game_of_ratio(ratio) for ratio in RATIOS])])


@pytest.mark.parametrize("price", [13.0, 14.0])
def test_fig_9a_peaks_at_a_fixed_price(price):
    for reward, peak in ((20e3, 0.060), (25e3, 0.145), (30e3, 0.220), (35e3, 0.295), (40e3, 0.360)):
        found = peak_ratio(lambda ratio, r=reward: at_price(preset("calibrated", beta_0=ratio, R=r), price)[0])
        assert found == pytest.approx(peak, abs=0.0051)
        closed = np.sqrt(0.9 * preset("calibrated", R=reward).reward[0, 0] / (100 * 220)) - 0.9
        assert found == pytest.approx(closed, abs=0.0051)


def test_fig_9a_table1_ttrain():
    for reward, peak in ((20e3, 0.0), (25e3, 0.038), (30e3, 0.123), (40e3, 0.275)):
        found = peak_ratio(lambda ratio, r=reward: stackelberg(preset("table1_ttrain", beta_0=ratio, R=r))[2][0])
        assert found == pytest.approx(peak, abs=0.0051)
    fall = [stackelberg(preset("table1", beta_0=ratio))[2][0] for ratio in RATIOS[::20]]
    assert (np.diff(fall) < 0).all()


def test_fig_9a_with_the_price_answering():
    rise = {
        r: [stackelberg(preset("calibrated", beta_0=b, R=r))[2][0] for b in RATIOS[::10]] for r in (20e3, 25e3, 30e3)
    }
    assert np.argmax(rise[30e3]) == len(RATIOS[::10]) - 1
    for reward in (20e3, 25e3):
        assert RATIOS[::10][np.argmax(rise[reward][:8])] == pytest.approx(0.15)


def test_fig_9b_ratio_and_crowd():
    for n, payoffs in ((12, (213.2, 319.2, 344.9)), (15, (136.5, 14.9, 4.4))):
        found = [stackelberg(preset("calibrated", n=n, beta_0=ratio))[2][0] for ratio in (0.1, 0.2, 0.3)]
        assert found == pytest.approx(payoffs, abs=0.05)
    for n, better in ((5, True), (6, False)):
        low, high = (stackelberg(preset("table1_ttrain", n=n, beta_0=ratio))[2][0] for ratio in (0.1, 0.2))
        assert (high > low) == better
        prize = preset("table1_ttrain").reward[0, 0]
        closed = 100 * (0.8 * 220 - 0.5 * 20) + prize * 0.2 / (0.2 + 0.1 * (n - 1))
        assert high == pytest.approx(closed)


@pytest.mark.parametrize(
    ("reward", "values"),
    [
        (20e3, (8424.41, 8560.25, 8763.24, 8977.92, 9195.57, 9604.83)),
        (30e3, (9195.57, 9404.15, 9604.83, 9798.54, 9986.08, 10229.91)),
        (40e3, (9986.08, 10117.14, 10229.91, 10342.68, 10455.46, 10681.00)),
    ],
)
def test_fig_9c_rewards(reward, values):
    found = [stackelberg(preset("calibrated", R=reward, lam=lam))[1] for lam in (0, 5, 10, 15, 20, 30)]
    assert found == pytest.approx(values, abs=0.006)
    for name in ("table1", "table1_ttrain"):
        assert stackelberg(preset(name, R=reward, lam=30))[1] == pytest.approx(15000)


def test_fig_9d_block_size():
    sizes = (0, 500, 1500, 3000)
    expected = {
        0.1: (300, 307.0, 288.1, 225.9),
        0.2: (729.4, 804.2, 609.2, 132.7),
        0.3: (850.5, 947.3, 696.5, 115.9),
    }
    for ratio, payoffs in expected.items():
        found = [stackelberg(preset("calibrated", beta_0=ratio, B=size))[2][0] for size in sizes]
        assert found == pytest.approx(payoffs, abs=0.06)
    for ratio in (0.1, 0.15, 0.2, 0.3):
        found = [stackelberg(preset("calibrated", beta_0=ratio, B=size))[2][0] for size in range(0, 3001, 100)]
        assert np.argmax(found) == 5
    at_2000 = [stackelberg(preset("calibrated", beta_0=ratio, B=2000))[2][0] for ratio in (0.15, 0.3)]
    assert at_2000 == pytest.approx([550.2, 481.4], abs=0.06)
    for name in ("table1", "table1_ttrain"):
        fall = [stackelberg(preset(name, B=size))[2][0] for size in (0, 500, 1500, 3000)]
        assert fall[1] < fall[0]
        assert (np.diff(fall) <= 0).all()  # in table1 the reward is below rounding from B = 500 on
    low, high = (stackelberg(preset("table1_ttrain", beta_0=ratio))[2][0] for ratio in (0.1, 0.3))
    assert high < low


def test_block_size_of_the_largest_reward():  # F15
    sizes = np.arange(1.0, 3000.0)
    calibrated = preset("calibrated", n=1, beta_0=0.1, B=sizes[:, None]).reward[:, 0]
    assert sizes[np.argmax(calibrated)] == 500
    table1 = preset("table1_ttrain", n=1, beta_0=0.1, B=sizes[:, None]).reward[:, 0]
    assert (np.diff(table1) < 0).all()


def test_payoffs_jump_when_the_provider_changes_peaks():
    found = [stackelberg(preset("calibrated", u=16.0, lam=10.0, R=20e3, beta_0=b)) for b in (0.15, 0.2)]
    assert [payoffs[0] for _, _, payoffs in found] == pytest.approx([417.7, 43.3], abs=0.05)
    assert abs(found[0][0] - found[1][0]) > 0.3


def test_other_units_of_calibrated():
    game, other = preset("calibrated"), preset("calibrated", u=0.5, C_b=22 / 3, R=1000.0, lam=0.5)
    (price, value, payoffs), (price_2, value_2, payoffs_2) = stackelberg(game), stackelberg(other)
    assert price_2 == pytest.approx(price, rel=1e-12)
    assert value_2 == pytest.approx(value, rel=1e-12)
    assert payoffs_2 == pytest.approx(payoffs / 30, rel=1e-8)
