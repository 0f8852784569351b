"""Lower tier and pools: the spec's resource-block numbers, Table A, division of blocks, enumerated pools."""

from itertools import product
from math import comb

import numpy as np
import pytest

from marketenvs.markets.two_tier_bidding import pools, slices
from marketenvs.markets.two_tier_bidding.oracle import settle

from .reference import ACTIVITY, CAP, FLOOR, MULTIPLIER, SLA, SNR, USERS, default_auction, default_tables, ring_snr

PHI = np.ones(3)


@pytest.fixture(scope="module")
def tables():
    return default_tables()


@pytest.fixture(scope="module")
def table_a(tables):
    return slices.best_splits(tables, 0.01, PHI)


def test_rings_give_the_reference_snr():
    inside = np.arange(USERS.max()) < USERS[..., None]
    np.testing.assert_allclose(np.where(inside, ring_snr(), 0).sum((-1, -2)), SNR, rtol=1e-13)


@pytest.mark.parametrize(
    ("operator", "service", "blocks", "expected"),
    [
        (0, 1, 4, 0.829179947790),
        (0, 1, 7, 0.990467133285),
        (2, 1, 6, 0.989060122382),
        (2, 2, 1, 0.955769533878),
        (3, 1, 2, 0.909534120394),
        (1, 2, 1, 0.999553021607),
    ],
)
def test_satisfaction(tables, operator, service, blocks, expected):
    assert tables.ssr[0, operator, service, blocks] == pytest.approx(expected, abs=1.01e-12)


def test_allocated_rate(tables):
    assert tables.rate[0, 0, 1, 7] == pytest.approx(465.3136831757, abs=1.01e-10)


def test_satisfaction_by_simulation(tables):
    """Draw activity and Rayleigh fading, count valid users: no closed form involved."""
    rng = np.random.default_rng(0)
    snr, users, share = ring_snr()[0, 0, 1, :11], 11, 4 * 0.2
    valid = np.zeros(users)
    draws = 40000
    for j in range(users):
        others = rng.binomial(users - 1, ACTIVITY[1], draws)
        c = share / (1 + others)
        rate = MULTIPLIER * c * np.log2(1 + snr[j] * rng.exponential(size=draws) / c)
        valid[j] = (rate > SLA[1]).mean()
    assert valid.mean() == pytest.approx(tables.ssr[0, 0, 1, 4], abs=3 * 0.38 / np.sqrt(draws * users))


def test_edges(tables):
    assert (tables.ssr[..., 0] == 0).all()
    assert (tables.rate[..., 0] == 0).all()
    none = USERS.copy()
    none[0, 1] = 0
    t = slices.slice_tables(ring_snr(), none, ACTIVITY, SLA, MULTIPLIER, 0.2, 5)
    assert (t.ssr[0, 0, 1] == 1).all()
    assert (t.rate[0, 0, 1] == 0).all()
    always = slices.slice_tables(ring_snr(), USERS, np.ones(3), SLA, MULTIPLIER, 0.2, 5)
    assert np.isfinite(always.ssr).all()
    assert (always.ssr <= tables.ssr[..., :6] + 1e-15).all()


@pytest.mark.parametrize(
    ("operator", "blocks", "split", "utility", "rate"),
    [
        (0, 9, (1, 7, 1), 6.3630027082, 607.1368596),
        (0, 13, (3, 7, 3), 6.3460892672, 872.46175626),
        (0, 50, (17, 20, 13), 6.1734112139, None),
        (1, 13, None, 6.3420306014, None),
        (2, 13, (2, 6, 5), 6.3410020376, None),
        (3, 13, (5, 4, 4), 6.2658817150, None),
    ],
)
def test_table_a(table_a, operator, blocks, split, utility, rate):
    assert table_a.utility[0, operator, blocks] == pytest.approx(utility, abs=1.01e-10)
    if split is not None:
        assert tuple(table_a.blocks[0, operator, blocks]) == split
    if rate is not None:
        assert table_a.rate[0, operator, blocks] == pytest.approx(rate, abs=1.01e-7)


def test_table_a_by_plain_loops(tables, table_a):
    for operator, n in ((0, 6), (3, 9)):
        best = max(
            (
                sum(tables.ssr[0, operator, s, k] for s, k in enumerate(split))
                + 0.01 * sum(tables.rate[0, operator, s, k] for s, k in enumerate(split)) / (n * 0.2),
                tuple(-k for k in split),
            )
            for split in product(range(n + 1), repeat=3)
            if sum(split) == n
        )
        assert table_a.utility[0, operator, n] == pytest.approx(best[0], abs=1e-13)
        assert tuple(table_a.blocks[0, operator, n]) == tuple(-k for k in best[1])


def test_table_a_by_dynamic_programming(tables, table_a):
    phi = np.ones((1, 4, 3))
    for n in (0, 1, 5, 13, 29, 50):
        second = slices.best_split_dp(tables, n, np.full((1, 4), 0.01), phi)
        np.testing.assert_allclose(second, table_a.utility[..., n], atol=1e-12)


def test_radial_slope_by_differences():
    """v' of table A is the rate gained when every user's bandwidth grows in proportion."""
    t = slices.slice_tables(ring_snr(), USERS, ACTIVITY, SLA, MULTIPLIER, 0.2, 13)
    wide = slices.slice_tables(ring_snr(), USERS, ACTIVITY, SLA, MULTIPLIER, 0.2 * (1 + 1e-6), 13)
    np.testing.assert_allclose((wide.rate - t.rate) / 1e-6, t.radial, rtol=1e-5)


def test_utility_falls_once_satisfaction_saturates(table_a):
    """Spec 4.20: a lower tier prefers less bandwidth: f_0(9) > f_0(50)."""
    assert table_a.utility[0, 0, 9] > table_a.utility[0, 0, 50]


def test_division_of_blocks(table_a):
    blocks, best = slices.divide_blocks(table_a.utility)
    assert tuple(blocks[0]) == (12, 11, 12, 15)
    assert best[0] == pytest.approx(25.3119170447, abs=1.01e-10)
    blocks, best = slices.divide_blocks(table_a.rate)
    assert tuple(blocks[0]) == (15, 13, 16, 6)
    assert best[0] == pytest.approx(3340.7821451133, abs=1.01e-10)


@pytest.mark.parametrize(
    ("omega", "blocks", "best", "digits"),
    [
        (0.1, (0, 0, 50, 0), 323.5186, 4),
        (0.02, (47, 1, 1, 1), 76.4888, 4),
        (1e-3, (34, 6, 6, 4), 26.7590822053, 10),
        (1e-4, (11, 11, 10, 18), 25.40730767, 8),
    ],
)
def test_objective_with_profit(table_a, omega, blocks, best, digits):
    """Spec 4.5: with omega as printed the optimum gives one operator everything; in Gb/s it is sane."""
    c = 0.2 * np.arange(51)
    profit = table_a.rate - c * table_a.marginal * (1 - c / 10)
    found, value = slices.divide_blocks(table_a.utility + omega * profit)
    assert tuple(found[0]) == blocks
    assert value[0] == pytest.approx(best, abs=1.01 * 10.0**-digits)
    if omega == 1e-3:
        assert profit[0, 1, 11] == pytest.approx(186.8, abs=0.05)
        assert profit[0, 0, 12] == pytest.approx(219.1, abs=0.05)
        assert profit[0, np.arange(4), (12, 11, 12, 15)].mean() == pytest.approx(236.7, abs=0.05)


def test_division_by_brute_force(table_a):
    """All 23426 divisions of 50 blocks over 4 operators."""
    worth = table_a.utility[0] + 1e-4 * table_a.rate[0]
    n = np.indices((51, 51, 51)).reshape(3, -1)
    n = n[:, n.sum(0) <= 50]
    assert n.shape[1] == comb(53, 3) == 23426
    total = worth[0, n[0]] + worth[1, n[1]] + worth[2, n[2]] + worth[3, 50 - n.sum(0)]
    blocks, best = slices.divide_blocks(worth[None])
    assert best[0] == pytest.approx(total.max(), abs=1e-12)
    assert worth[np.arange(4), blocks[0]].sum() == pytest.approx(best[0], abs=1e-12)
    assert blocks.sum() == 50


def test_largest_remainder():
    assert tuple(slices.round_blocks(np.array([2.5, 2.5, 2.5, 2.5]), 0.2, 50)) == (13, 13, 12, 12)
    assert tuple(slices.round_blocks(np.array([2.0, 3.0, 5.0, 0.0]), 0.2, 50)) == (10, 15, 25, 0)
    assert tuple(slices.round_blocks(np.zeros(4), 0.2, 50)) == (0, 0, 0, 0)
    assert tuple(slices.round_blocks(np.array([0.3, 0.0, 0.0, 0.0]), 0.2, 50)) == (50, 0, 0, 0)
    rng = np.random.default_rng(0)
    c = rng.dirichlet(np.ones(4), 5000) * 10
    n = slices.round_blocks(c, 0.2, 50)
    assert (n.sum(-1) == 50).all()
    assert (np.abs(n - c / 0.2) < 1).all()


# -- pools ------------------------------------------------------------------------------------------------------------


def _payoff(kind, table_a):
    auction = default_auction()
    if kind == "continuous":
        return lambda bids: settle(auction, bids[:, None]).payoffs[:, 0]

    def blocks(bids):
        n = slices.round_blocks(bids, 0.2, 50)
        return np.stack([table_a.rate[0, m, n[:, m]] for m in range(4)], -1) - bids

    return blocks


@pytest.mark.parametrize(
    ("scale", "size", "kind", "count"),
    [
        ("geomspace", 8, "continuous", 4),
        ("geomspace", 8, "blocks", 2),
        ("linspace", 10, "continuous", 1),
        ("linspace", 10, "blocks", 2),
        ("linspace", 20, "continuous", 4),
        ("linspace", 20, "blocks", 0),
    ],
)
def test_pool_equilibria(table_a, scale, size, kind, count):
    payoffs = pools.profile_payoffs(pools.pool_bids(FLOOR, CAP, size, scale), _payoff(kind, table_a))
    found = pools.solve_pool(payoffs)
    assert len(found.profiles) == count
    if count == 0:
        assert tuple(found.best) == (4, 4, 4, 7)
        assert found.nash_conv == pytest.approx(23.534191534, abs=1.01e-9)
    else:
        assert found.epsilon == 0


def test_pool_gains_by_loops(table_a):
    payoffs = pools.profile_payoffs(pools.pool_bids(FLOOR, CAP, 3), _payoff("blocks", table_a))
    gains = pools.pool_gains(payoffs)
    for profile in product(range(3), repeat=4):
        for m in range(4):
            best = max(payoffs[(*profile[:m], k, *profile[m + 1 :])][m] for k in range(3))
            assert gains[profile][m] == best - payoffs[profile][m]


def test_equation_4_pool_has_one_equilibrium_at_the_cap():
    auction = default_auction("eq4")
    payoffs = pools.profile_payoffs(
        pools.pool_bids(FLOOR, CAP, 10), lambda bids: settle(auction, bids[:, None]).payoffs[:, 0]
    )
    np.testing.assert_array_equal(pools.solve_pool(payoffs).profiles, [(9, 9, 9, 9)])


def test_pool_bad_input():
    with pytest.raises(ValueError, match="not offered"):
        pools.pool_bids(FLOOR, CAP, 4, "sobol")
    with pytest.raises(ValueError, match="too many"):
        pools.profile_payoffs(np.ones((8, 10)), lambda b: b)
    with pytest.raises(ValueError, match="ssr_sum"):
        slices.service_weights(USERS, "packets")
