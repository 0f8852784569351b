"""Numbers of docs/fidelity/spectrum_bertrand.md, recomputed: what the paper's formulas and claims give."""

import numpy as np
import pytest
from marketenvs_baselines import qpml

import marketenvs as me
from marketenvs.markets.spectrum_bertrand import literal, sellers, urns
from marketenvs.markets.spectrum_bertrand.sellers import seller_game

ID = "SpectrumBertrand-v0"
RULES = ("posted", "first_price", "all_pay")


def test_point_3_the_printed_reward_falls_in_the_own_price():
    """First-price bidders answer, M = 4, C = 5, rival at .25: eq. (4) pays .5035 at price 0 and .0219 at .5."""
    game = seller_game("first_price", 1.0, [0.0, 0.0], 4, 5)
    x, w = np.polynomial.legendre.leggauss(60)
    u, w = 0.5 * (x + 1), 0.5 * w
    found = []
    for price in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
        stage = sellers.respond(game, np.array([[price, 0.25]]))
        q = stage.density[0, 0]
        bid = urns.bid_quantile("first_price", 1.0, stage.payoff[0], q, price, u, 4, 1)
        found.append(5 * (w * 4 * q * (1 - q + q * u) ** 3 * (bid - price)).sum())
    np.testing.assert_allclose(found, [0.5035, 0.3670, 0.2482, 0.1493, 0.0728, 0.0219], atol=5e-5)


@pytest.mark.parametrize(
    ("m", "c", "alpha", "bound"),
    [(10, 600, None, 0.017), (10, 600, 1.0, 0.063), (10, 600, 0.1, 0.334), (50, 100, None, 0.50), (50, 100, 1.0, 1.48), (50, 100, 0.1, 6.5),
     (10, 100, None, 0.10), (10, 100, 1.0, 0.30), (10, 100, 0.1, 1.31)],
)  # fmt: skip
def test_point_5_normalised_demand_bounds_the_sellers(m, c, alpha, bound):
    """A round pays both sellers at most the buyers' largest weights; Table 2 has .86, 2.61 and 2.06 in these cells."""
    rng = np.random.default_rng(0)
    shape = (40, m, 2 * c)
    d = rng.uniform(size=shape) if alpha is None else rng.gamma(alpha, size=shape)
    d /= d.sum(-1, keepdims=True)
    total = d.max(-1).sum(-1)
    assert abs(total.mean() - bound) < 0.04 * bound + 4 * total.std() / np.sqrt(40)


def test_point_9_softmax_of_learnt_values_is_no_estimate_of_demand():
    """Guessing uniformly gives .193 / .423 / 1.88 nats; the winner's converged values are anti-ordered: +.489 nats."""
    rng = np.random.default_rng(1)
    flat = rng.uniform(size=(200, 200))
    one, tenth = rng.gamma(1.0, size=(200, 200)), rng.gamma(0.1, size=(400, 200))
    for draws, nats, tolerance in ((flat, 0.193, 0.01), (one, 0.423, 0.015), (tenth, 1.88, 0.08)):
        d = draws / draws.sum(-1, keepdims=True)
        kl = literal.divergence(d, np.full(d.shape, 1 / 200))
        assert abs(kl.mean() - nats) < tolerance
        q = 1.0 - d  # it pays d_k when it wins channel k
        estimate = np.exp(q / 0.1) / np.exp(q / 0.1).sum(-1, keepdims=True)
        worse = literal.divergence(d, estimate) - kl
        assert np.all(worse >= ((d**2).sum(-1) - 1 / 200) / 0.1 - 1e-12)
    assert abs(worse.mean() - 0.489) < 0.04


def test_point_11_two_cells_punish_what_was_earned():
    """Eqs. (13)-(16): the seller of the smaller share learns minus its reward, whatever the prices were."""
    start = np.zeros((3, 2, 2))
    sold, reward = np.array([[3, 1], [1, 3], [2, 2]]), np.array([[0.5, 0.4], [0.5, 0.4], [0.5, 0.4]])
    found = literal.two_cell_update(start, sold, reward, 0.1)
    np.testing.assert_allclose(found[0], [[0.05, 0], [-0.04, 0]], atol=1e-15)
    np.testing.assert_allclose(found[1], [[0, -0.05], [0, 0.04]], atol=1e-15)
    np.testing.assert_allclose(found[2], found[0], atol=1e-15)  # ties are booked for seller 1
    poor = literal.two_cell_update(start[0], sold[0], [0.5, 0.0], 0.1)
    assert poor[1, 0] > found[0, 1, 0]  # earning nothing is punished less than earning .4


def test_printed_run_keeps_its_tables_between_the_rewards():
    found = qpml.simulate_printed(10, 100, rounds=200, runs=3, seed=0, bid_scale="raw")
    assert found.tables.shape == (3, 2, 2)
    assert np.all(found.tables[:, 1, 0] < found.tables[:, 0, 0])
    assert np.all(found.tables[:, 0, 1] < found.tables[:, 1, 1])
    np.testing.assert_array_equal(
        found.prices, qpml.simulate_printed(10, 100, rounds=200, runs=3, seed=0, bid_scale="raw").prices
    )


def test_point_15_pooled_bertrand_prices_at_cost_in_all_nine_cells():
    for m in (10, 20, 50):
        for c in (100, 300, 600):
            market = me.make(ID, preset=f"table1_{m}_{c}", matching="pooled")
            found = market.equilibrium(market.reset(0))
            assert found.certified.all()
            np.testing.assert_allclose(found.values["seller"], 0.0, atol=1e-12)
            np.testing.assert_allclose(found.values["buyer"], 1.0, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_point_16_buyers_lose_from_rivals_and_gain_from_channels(rule):
    """pi falls in M and rises in C in every case, N = 2, 3, 5; for all_pay at C = 100: .9127, .8224, .5896."""
    for n in (2, 3, 5):
        table = np.empty((5, 5))
        for i, m in enumerate((5, 10, 20, 50, 100)):
            for j, c in enumerate((5, 20, 60, 100, 300)):
                price = sellers.symmetric_price(seller_game(rule, 1.0, [0.0] * n, m, c))[0]
                table[i, j] = max(float(urns.attraction(rule, 1.0, price, 1 / (n * c), m, 1)), 0.0)
        assert np.all(np.diff(table, axis=0) <= 1e-12)
        assert np.all(np.diff(table, axis=1) >= -1e-12)
    if rule == "all_pay":
        pays = [sellers.equilibrium(seller_game(rule, 1.0, [0.0] * 2, m, 100)).buyers.payoff[0] for m in (10, 20, 50)]
        np.testing.assert_allclose(pays, [0.9127, 0.8224, 0.5896], atol=5e-5)


@pytest.mark.parametrize(("rule", "peak"), [("posted", 19), ("first_price", 24), ("all_pay", 25)])
def test_fewer_channels_do_not_always_pay_sellers(rule, peak):
    """M = 50: a seller's revenue RISES with C up to 19 / 24 / 25 channels, although it falls in the paper's nine cells."""
    revenue = [sellers.equilibrium(seller_game(rule, 1.0, [0.0] * 2, 50, c)).profit[0, 0] for c in range(1, 60)]
    assert int(np.argmax(revenue)) + 1 == peak
    assert np.all(np.diff(revenue[:peak]) > 0)


def test_trades_fall_with_congestion():
    """Trades per buyer in symmetric equilibrium: .978 at (10, 100), .887 at (50, 100)."""
    for m, share in ((10, 0.978), (50, 0.887)):
        assert abs(200 * float(urns.units_sold(1 / 200, m, 1)) / m - share) < 5e-4
