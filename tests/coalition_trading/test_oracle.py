"""Reference cases R1-R13, C1, C2 of the spec, and properties the solvers must have whatever the numbers."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from marketenvs.markets.coalition_trading import coalitions as co
from marketenvs.markets.coalition_trading import grid
from marketenvs.markets.coalition_trading.duopoly import duopoly_equilibrium
from marketenvs.markets.coalition_trading.games import REGIMES, coalition_demand, make_game
from marketenvs.markets.coalition_trading.mixing import distribution, quantile
from marketenvs.markets.coalition_trading.pricing import price_equilibrium
from marketenvs.markets.coalition_trading.values import (
    Curves,
    coalition_value,
    demand_each,
    envelope_use,
    make_curves,
    raw_coalition_table,
    split,
    value,
)

from .reference import ARRIVALS, COST, Tenant, default, need, tenants

ALL = (1, 1, 1)


def play(curves, member, sellers, capacity):
    game = make_game(curves, np.array(member, bool), sellers, capacity, COST, 1.0, 2.0)
    return game, price_equilibrium(game)


# name, tenants, members, M, K, regime, p_L, p_H, profit, E[U] + C_sig (spec section 5)
PRINTED = [
    ("R1", default(), ALL, 2, 50, "pure", 1.5851619930, 1.5851619930, 71.2580996515, 52.4233851976),
    ("R2", default(), (1, 0, 0), 1, 50, "monopoly", 2.0, 2.0, 92.0, 18.8871494772),
    ("R3", default(), (1, 0, 1), 2, 50, "mixed", 1.1276435710, 1.9952314801, 48.3821785495, 69.1471235171),
    ("R4", default(), (0, 1, 1), 2, 50, "mixed+atom", 1.0, 1.5851619930, 36.8849557153, 48.0721362448),
    ("R5", default(), ALL, 3, 50, "mixed", 1.0779799910, 1.5851619930, 45.8989995514, 108.7852678160),
    ("R6", default(), ALL, 4, 50, "floor", 1.0, 1.0, 29.7537891108, 132.3754901369),
    ("R7", default(), (0, 0, 1), 1, 50, "monopoly", 1.9952314801, 1.9952314801, 40.2128913476, 0.0),
    (
        "R9",
        tenants((0.78, 0.57, 0.82, 0.53), ("embb", "embb", "urllc", "mmtc")),
        (1, 1, 1, 1),
        2,
        75,
        "mixed",
        1.1795817851,
        1.5059038934,
        76.4686338829,
        71.3532268763,
    ),
    ("R10a", default(2876.6), ALL, 1, 50, "monopoly", 1.5851619930, 1.5851619930, 40.9370434833, 11.3900492764),
    ("R10b", default(2876.6), ALL, 2, 50, "floor", 1.0, 1.0, 12.9292346480, 28.7612741902),
]


@pytest.mark.parametrize("case", PRINTED, ids=[c[0] for c in PRINTED])
def test_reference_price_equilibria(case):
    _, curves, member, sellers, capacity, regime, low, high, profit, surplus = case
    _, found = play(curves, member, sellers, capacity)
    assert REGIMES[found.regime[0]] == regime
    for got, want in (
        (found.low_price, low),
        (found.high_price, high),
        (found.profit, profit),
        (found.surplus, surplus),
    ):
        assert got[0] == pytest.approx(want, abs=6e-11)
    assert found.epsilon[0] <= 1e-9 * profit


def test_choke_prices_and_quantities():
    curves = default()
    assert curves.choke_price == pytest.approx([2.3777429895, 1.5851619930, 1.9952314801], abs=5e-11)
    assert curves.choke_quantity == pytest.approx([52.9375458851, 52.9375458851, 21.9116181162], abs=5e-11)
    assert need("urllc") == pytest.approx(17.184)
    steep = np.array([4, 5, 6, 8, 10.0])
    use = envelope_use(steep, np.zeros(5), np.zeros(5))
    assert use == pytest.approx([1.3849397567, 1.3520419474, 1.3234386471, 1.2777505618, 1.2436898526], abs=5e-11)
    unit = make_curves(np.ones(5), np.ones(5), steep, 0.0, 0.0)
    slopes = [
        0.5922248171,
        0.6303406780,
        0.6604841638,
        0.7060653413,
        0.7394081561,
    ]  # the spec prints ...562; 40 digits give ...5612
    assert unit.choke_price == pytest.approx(slopes, abs=5e-11)


def test_r1_split_inside_the_coalition():
    quantities, price = split(default(), np.ones(3, bool), np.array(100.0))
    assert quantities == pytest.approx([56.3249257840, 20.7313828132, 22.9436914028], abs=5e-11)
    assert price == pytest.approx(1.5851619930, abs=5e-11)


def test_r3_distribution_and_moments():
    game, found = play(default(), (1, 0, 1), 2, 50)
    assert found.quantity[0] == pytest.approx(79.7831118951, abs=6e-11)
    assert found.mean_price[0] == pytest.approx(1.40970536, abs=5e-9)
    chance = distribution(game, found, np.array([[1.2, 1.4, 1.6, 1.8]]))[0]
    assert chance == pytest.approx([0.20105854, 0.5721785845, 0.7867288515, 0.9181950185], abs=5e-9)


def test_r4_atom_and_gap():
    game, found = play(default(), (0, 1, 1), 2, 50)
    assert found.atom[0] == pytest.approx(0.6708900991, abs=5e-11)
    assert found.gap_end[0, 0] == pytest.approx(1.171341471777, abs=5e-12)
    assert found.quantity[0] == pytest.approx(79.7626496821, abs=6e-11)
    assert distribution(game, found, np.array([[1.2]]))[0, 0] == pytest.approx(0.7098211037, abs=5e-11)


def test_r5_moments_with_three_sellers():
    _, found = play(default(), ALL, 3, 50)
    assert found.quantity[0] == pytest.approx(136.7748923954, abs=6e-11)
    assert found.mean_price[0] == pytest.approx(1.17852373, abs=5e-9)


def test_r6_r7_r10_quantities():
    assert play(default(), ALL, 4, 50)[1].quantity[0] == pytest.approx(141.6847100514, abs=6e-11)
    assert play(default(), (0, 0, 1), 1, 50)[1].quantity[0] == pytest.approx(21.9116181162, abs=6e-11)
    assert play(default(2876.6), ALL, 1, 50)[1].quantity[0] == pytest.approx(28.7244844330, abs=6e-11)
    assert play(default(2876.6), ALL, 2, 50)[1].quantity[0] == pytest.approx(30.7838920191, abs=6e-11)


def test_r9_interior_gap():
    curves = tenants((0.78, 0.57, 0.82, 0.53), ("embb", "embb", "urllc", "mmtc"))
    game, found = play(curves, (1, 1, 1, 1), 2, 75)
    assert (found.gap_start[0, 0], found.gap_end[0, 0]) == pytest.approx((1.4002264272, 1.4406494648), abs=6e-11)
    chance = distribution(game, found, np.array([[1.25, 1.42]]))[0]
    assert chance == pytest.approx([0.383731728, 0.887137528], abs=5e-10)


def test_r8_asymmetric_duopoly():
    game = make_game(default(), np.array([1, 0, 1], bool), 2, 50.0, COST, 1.0, 2.0)
    found = duopoly_equilibrium(game, np.array([[60.0, 40.0]]))
    assert found.low_price[0] == pytest.approx(1.2722415558, abs=6e-11)
    assert found.high_price[0] == pytest.approx(1.9952314801, abs=6e-11)
    assert found.profit[0] == pytest.approx([66.7344933509, 44.4896622339], abs=6e-11)
    assert found.atom[0] == pytest.approx([1 / 3, 0.0], abs=1e-12)
    assert found.epsilon[0] < 1e-9
    turned = duopoly_equilibrium(game, np.array([[40.0, 60.0]]))
    assert turned.profit[0] == pytest.approx(found.profit[0][::-1])


def test_r8_by_a_second_method():
    """Brent demand, a hand-written best residual price, and quadrature of payoffs against the reported distributions."""
    one, three = Tenant(0.9, "embb"), Tenant(0.8, "urllc")

    def total(p):
        return one.demand(p) + three.demand(p)

    residual = [(p - COST) * np.clip(total(p) - 40, 0, 60) for p in np.linspace(1, 2, 401)]
    peak = max(max(residual), (three.p_hat - COST) * (total(three.p_hat * (1 - 1e-14)) - 40))
    assert peak == pytest.approx(66.7344933509, abs=1e-8)
    game = make_game(default(), np.array([1, 0, 1], bool), 2, 50.0, COST, 1.0, 2.0)
    found = duopoly_equilibrium(game, np.array([[60.0, 40.0]]))
    prices = np.linspace(found.low_price[0] * (1 + 1e-12), three.p_hat * (1 - 1e-9), 60)
    chances = found.cdf(prices[None])[0]
    for p, (larger, smaller) in zip(prices, chances, strict=True):
        d = total(p)
        first = (p - COST) * ((1 - smaller) * min(60, d) + smaller * np.clip(d - 40, 0, 60))
        second = (p - COST) * ((1 - larger) * min(40, d) + larger * np.clip(d - 60, 0, 40))
        assert first == pytest.approx(66.7344933509, abs=1e-7)
        assert second == pytest.approx(44.4896622339, abs=1e-7)


def test_r11_grid_game():
    levels = grid.price_levels(1.0, 2.0, 100)
    first, second = grid.duopoly_matrices(
        default(), np.array([0, 1, 1], bool), levels, np.full(2, 50.0), np.full(2, COST)
    )
    game, exact = play(default(), (0, 1, 1), 2, 50)
    upper = distribution(game, exact, (levels + 0.5 / 99)[None])[0]
    binned = np.diff(np.concatenate([[0.0], upper]))
    found = grid.matrix_equilibrium(first, second, start=(binned, binned))
    assert found.epsilon < 1e-9
    assert found.values == pytest.approx([36.80025687] * 2, abs=5e-8)
    assert found.row @ levels == pytest.approx(1.10724, abs=5e-5)
    support = found.row > 1e-9
    assert support.sum() == 41
    # Second method: solve the indifference conditions on the support as one linear system.
    size = int(support.sum())
    system = np.zeros((size + 1, size + 1))
    system[:size, :size], system[:size, -1], system[-1, :size] = first[np.ix_(support, support)], -1.0, 1.0
    solved = np.linalg.solve(system, np.append(np.zeros(size), 1.0))
    assert solved[-1] == pytest.approx(36.80025687, abs=5e-8)
    assert solved[:-1] == pytest.approx(found.row[support], abs=1e-7)


def test_best_deterministic_bounds():
    levels = grid.price_levels(1.0, 2.0, 100)
    for member, gap, where in (((1, 0, 1), 15.369658, 1.1414), ((0, 1, 1), 4.757658, 1.0), (ALL, 0.0, 1.575758)):
        pair = grid.duopoly_matrices(default(), np.array(member, bool), levels, np.full(2, 50.0), np.full(2, COST))
        least, row, column = grid.best_deterministic(*pair)
        assert least == pytest.approx(gap, abs=5e-7)
        assert levels[row] == levels[column] == pytest.approx(where, abs=5e-5)


def test_r3_grid_converges_from_the_exact_distribution():
    levels = grid.price_levels(1.0, 2.0, 100)
    pair = grid.duopoly_matrices(default(), np.array([1, 0, 1], bool), levels, np.full(2, 50.0), np.full(2, COST))
    found = grid.matrix_equilibrium(*pair)
    assert found.epsilon < 1e-9
    assert found.values == pytest.approx([48.38] * 2, abs=0.1)


def test_r12_raw_curves_on_whole_prbs():
    table = raw_coalition_table(default(), np.array([1, 1, 0], bool), 100)
    assert table[[50, 57, 100]] == pytest.approx([117.66560955, 133.54473418, 197.24611162], abs=5e-9)
    levels = grid.price_levels(1.0, 2.0, 100)
    first, second, _ = grid.tabled_matrices(table, levels, np.array([50, 50]), np.full(2, COST))
    pure = np.argwhere(grid.pure_nash_conv(first, second) < 1e-9)
    assert [47, 47] in pure.tolist()  # a = 48
    assert levels[47] == pytest.approx(1.4747474747, abs=5e-11)
    assert first[47, 47] == pytest.approx(65.7373737374, abs=5e-11)
    grand = raw_coalition_table(default(), np.ones(3, bool), 100)
    pair13 = raw_coalition_table(default(), np.array([1, 0, 1], bool), 100)
    matrices = [grid.tabled_matrices(t, levels, np.array([50, 50]), np.full(2, COST)) for t in (grand, pair13)]
    assert grid.pure_nash_conv(*matrices[0][:2]).min() > 1e-6  # no pure equilibrium
    assert np.array_equal(matrices[0][0], matrices[1][0])  # buyer 2 is dropped


def test_r12_by_a_second_method():
    """Every pair of holdings, every order: plain enumeration from the independent tenants."""
    one, two = Tenant(0.9, "embb"), Tenant(0.6, "embb")
    best = np.zeros(101)
    for a in range(101):
        for b in range(101 - a):
            best[a + b] = max(best[a + b], one.g(a) + two.g(b))
    best = np.maximum.accumulate(best)
    assert best[[50, 57, 100]] == pytest.approx([117.66560955, 133.54473418, 197.24611162], abs=5e-9)

    def bought(p, q):  # from the seller at p when the other posts q
        sums = [best[a + b] - p * a - q * b for a in range(51) for b in range(51)]
        top = max(sums)
        orders = [divmod(k, 51) for k, s in enumerate(sums) if s > top - 1e-9]
        most = max(a + b for a, b in orders)
        at_most = [a for a, b in orders if a + b == most]
        return most / 2 if p == q else max(at_most)

    price = 1 + 47 / 99
    own = (price - COST) * bought(price, price)
    assert own == pytest.approx(65.7373737374, abs=5e-11)
    for level in range(0, 100, 3):
        p = 1 + level / 99
        assert (p - COST) * bought(p, price) <= own + 1e-9


def test_c1_coalition_values_and_stability():
    curves = Curves(*(f[None] for f in default()))
    reputation = np.array([[0.9, 0.6, 0.8]])
    surplus, _ = co.coalition_surplus(curves, 2, np.array([50.0]), np.array([COST]), np.array([1.0]), np.array([2.0]))
    printed = [77.1555178133, 32.0334573619, 43.2350422213, 23.1865149617, 69.1471235171, 48.0721362448, 52.4233851976]
    assert surplus[0, 1:] == pytest.approx(printed, abs=6e-11)  # codes 1 2 12 3 13 23 123
    stage = co.coalition_stage(surplus, reputation, np.array([0.5]), co.reputation_shares(reputation))
    assert stage.payoff[0, 0] == pytest.approx([19.3396, 12.8931, 17.1907], abs=5e-5)
    assert np.flatnonzero(stage.nash[0]).tolist() == [0]
    assert np.flatnonzero(stage.individual[0]).tolist() == [0]
    assert stage.partitions.labels[stage.path[0]].tolist() == [[0, 1, 2], [0, 1, 1], [0, 0, 0]]
    worth = co.characteristic(surplus, reputation, np.array([0.5]))
    assert co.shapley(worth)[0] == pytest.approx([19.180777274, 8.643283638, 21.599324286], abs=6e-9)
    assert worth[0, 0b101] == pytest.approx(68.147, abs=5e-4)
    assert co.core_is_empty(worth)[0]
    grand = worth[:, -1]
    assert co.grand_is_nash(grand, surplus[:, [1, 2, 4]], reputation, reputation / reputation.sum())[0]


def test_c2_no_nash_stable_partition():
    curves = Curves(*(f[None] for f in tenants((0.95, 0.44, 0.5), ("embb", "embb", "urllc"))))
    reputation = np.array([[0.95, 0.44, 0.5]])
    surplus, _ = co.coalition_surplus(curves, 2, np.array([50.0]), np.array([COST]), np.array([1.0]), np.array([2.0]))
    printed = [84.777220, 8.704034, 75.084315, 5.530136, 90.307356, 14.234170, 76.950433]
    assert surplus[0, 1:] == pytest.approx(printed, abs=6e-7)
    stage = co.coalition_stage(surplus, reputation, np.array([0.5]), co.reputation_shares(reputation))
    assert not stage.nash.any()
    assert stage.individual[0, -1]  # all singletons
    grand = np.array([76.950433 - 3.0])
    assert not co.grand_is_nash(grand, surplus[:, [1, 2, 4]], reputation, reputation / reputation.sum())[0]


def test_social_optimum_value():
    worth = coalition_value(default(), np.ones(3, bool), np.array(100.0)) - COST * 100
    assert worth == pytest.approx(194.9395845005, abs=6e-11)


# ------------------------------------------------------------ properties


def _random_markets(rng, rows, buyers):
    kinds = rng.random((rows, buyers)) < 0.5
    rate = rng.uniform(300, 1500, (rows, buyers))
    q = np.where(kinds, 50 * 2048 * (ARRIVALS + 100) / (1000 * rate), 25000 / rate)
    reputation = rng.uniform(0.4, 1, (rows, buyers))
    steep = rng.choice([4.0, 6.0, 8.0], (rows, buyers))
    return make_curves(4 * reputation * q, q, steep, ARRIVALS * 0.01, kinds.astype(float))


@pytest.mark.parametrize("sellers", [1, 2, 3, 4])
def test_random_markets_are_certified_in_every_regime(sellers):
    rng = np.random.default_rng(sellers)
    curves = _random_markets(rng, 150, 4)
    cost = rng.choice([0.0, 0.16, 0.5, 0.9], 150)
    game = make_game(curves, rng.random((150, 4)) < 0.8, sellers, rng.uniform(15, 90, 150), cost, 1.0, 2.0)
    found = price_equilibrium(game)
    assert np.all(found.epsilon <= 1e-9 * np.maximum(1.0, found.profit))
    if sellers > 1:
        assert {"floor", "mixed"} <= {REGIMES[r] for r in np.unique(found.regime)}


def test_mixed_equilibrium_against_brute_force_play():
    """Draw rivals' prices, let a brute-force follower buy, and average: no price beats the claimed profit."""
    game, found = play(default(), (1, 0, 1), 2, 50)
    rivals = quantile(game, found, ((np.arange(400) + 0.5) / 400)[None])[0]
    totals = np.arange(0, 100.01, 0.05)
    worth = coalition_value(default(), np.array([1, 0, 1], bool), totals)
    for p in (1.05, 1.15, 1.3, 1.5, 1.7, 1.9, 1.995, 2.0):
        earned = []
        for q in rivals:
            low, high = min(p, q), max(p, q)
            net = worth - low * np.minimum(totals, 50) - high * np.maximum(totals - 50, 0)
            total = totals[np.argmax(net)]
            sold = min(total, 50) if p < q else max(total - 50, 0)
            earned.append((p - COST) * sold)
        mean = np.mean(earned)
        assert mean <= 48.3821785495 + 0.12
        if 1.13 < p < 1.99:
            assert mean == pytest.approx(48.3821785495, abs=0.12)


def test_demand_matches_an_independent_tenant():
    for reputation, kind in ((0.9, "embb"), (0.8, "urllc"), (0.53, "mmtc")):
        other = Tenant(reputation, kind)
        curves = tenants((reputation,), (kind,))
        assert curves.choke_price[0] == pytest.approx(other.p_hat, rel=1e-9)
        for p in np.linspace(0.3, other.p_hat * 0.999, 7):
            assert demand_each(curves, np.array([p]))[0] == pytest.approx(other.demand(p), rel=1e-9)


def test_coalition_value_is_the_maximum_of_all_splits():
    rng = np.random.default_rng(5)
    curves = _random_markets(rng, 1, 3)
    curves = Curves(*(f[0] for f in curves))
    for total in (5.0, 30.0, 80.0, 200.0):
        best = coalition_value(curves, np.ones(3, bool), np.array(total))
        cuts = np.sort(rng.random((20_000, 2)), axis=1) * total
        parts = np.stack([cuts[:, 0], cuts[:, 1] - cuts[:, 0], total - cuts[:, 1]], axis=1)
        tried = value(np, curves, parts).sum(axis=1)
        assert best >= tried.max() - 1e-9
        assert best <= tried.max() + 0.02 * best


def test_monopoly_matches_scalar_search():
    _, found = play(default(), (1, 0, 1), 1, 90)
    one, three = Tenant(0.9, "embb"), Tenant(0.8, "urllc")
    curve = [-(p - COST) * min(90, one.demand(p) + three.demand(p)) for p in np.linspace(1, 2, 1001)]
    assert found.profit[0] >= -min(curve) - 1e-9
    assert found.profit[0] <= -min(curve) + 0.1
    # With a low cost and a wide box the best price is interior: compare with a bounded scalar search.
    wide = make_game(default(), np.array([1, 0, 0], bool), 1, 500.0, 0.0, 0.05, 2.0)
    best = price_equilibrium(wide)
    search = minimize_scalar(
        lambda p: -p * coalition_demand(wide, np.array([[p]]))[0][0, 0], bounds=(0.5, 2.0), options={"xatol": 1e-12}
    )
    assert best.profit[0] >= -search.fun - 1e-9


def test_random_duopolies_are_certified_or_say_why_not():
    rng = np.random.default_rng(9)
    curves = _random_markets(rng, 120, 3)
    game = make_game(curves, np.ones((120, 3), bool), 2, 50.0, COST, 1.0, 2.0)
    found = duopoly_equilibrium(game, rng.uniform(15, 90, (120, 2)))
    certified = found.epsilon <= 1e-9 * np.maximum(1.0, found.profit.max(axis=1))
    assert certified.mean() > 0.8
    assert np.all(np.isfinite(found.surplus))


def test_bad_input_names_the_culprit():
    with pytest.raises(ValueError, match="capacity must be positive"):
        make_game(default(), np.ones(3, bool), 2, 0.0, COST, 1.0, 2.0)
    with pytest.raises(ValueError, match="cost must be"):
        make_game(default(), np.ones(3, bool), 2, 50.0, 2.5, 1.0, 2.0)
    with pytest.raises(ValueError, match="steepness"):
        make_curves(np.ones(1), np.ones(1), 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="2 sellers"):
        duopoly_equilibrium(make_game(default(), np.ones(3, bool), 3, 50.0, COST, 1.0, 2.0), np.ones((1, 2)))


def test_nobody_buys_when_nobody_can_be_served():
    curves = make_curves(np.zeros(2), np.ones(2), 6.0, 0.0, 0.0)
    _, found = play(curves, (1, 1), 2, 50)
    assert found.quantity[0] == 0
    assert np.isfinite(found.surplus[0])
