"""Reference cases R1-R13 of the specification, to the digits it gives, and checks by independent computation."""

import itertools

import numpy as np
import pytest

from marketenvs.markets.spectrum_bertrand import clearing, exploit, logit, mixed, oracle, private, sellers, urns
from marketenvs.markets.spectrum_bertrand.sellers import seller_game

RULES = ("posted", "first_price", "all_pay")

# price / buyers' payoff / profit per seller, for posted, first_price, all_pay (spec 5.8)
SYMMETRIC = {
    "R1": (
        dict(n=2, m=10, c=100, cost=0.0),
        [
            (0.043828545177, 0.934941953573, 0.214277185558),
            (0.043269230769, 0.914528971602, 0.316342095414),
            (0.043231186961, 0.912658391397, 0.325694996439),
        ],
    ),
    "R2": (
        dict(n=2, m=10, c=600, cost=0.0),
        [
            (0.007466801528, 0.988819458037, 0.037194315776),
            (0.007450331126, 0.985130311911, 0.055640046410),
            (0.007450145591, 0.985074805859, 0.055917576668),
        ],
    ),
    "R3": (
        dict(n=2, m=50, c=100, cost=0.0),
        [
            (0.210892042575, 0.699741301113, 4.675211765308),
            (0.197580645161, 0.627671416991, 6.476958868365),
            (0.192607839683, 0.589615835763, 7.428348399055),
        ],
    ),
    "R4": (
        dict(n=2, m=20, c=300, cost=0.1),
        [
            (0.127940375126, 0.858389117409, 0.275023785767),
            (0.127669902913, 0.845116780065, 0.407747159208),
            (0.127610393813, 0.841193483168, 0.446980128180),
        ],
    ),
    "R5": (
        dict(n=3, m=6, c=3, cost=0.0),
        [
            (0.356736568823, 0.488941139917, 0.542307167349),
            (0.238095238095, 0.422803015091, 0.674583417001),
            (0.173415299158, 0.381513658148, 0.757162130886),
        ],
    ),
    "R6": (
        dict(n=2, m=4, c=5, cost=0.0),
        [
            (0.264008076729, 0.632769056032, 0.453961887935),
            (0.25, 0.54675, 0.626),
            (0.243, 0.486, 0.7475),
        ],
    ),
    "R7": (
        dict(n=2, m=30, c=10, cost=0.0),
        [
            (0.724875759103, 0.144047942600, 5.692893221573),
            (0.604166666667, 0.089432818310, 6.512120085927),
            (0.225935540993, 0.0, 7.853612360571),
        ],
    ),
}


@pytest.mark.parametrize("case", SYMMETRIC)
@pytest.mark.parametrize("rule", range(3))
def test_symmetric_equilibria(case, rule):
    """R1-R7: price, payoff and profit to 1e-11, and nobody can gain."""
    size, rows = SYMMETRIC[case]
    game = seller_game(RULES[rule], 1.0, [size["cost"]] * size["n"], size["m"], size["c"])
    found = sellers.equilibrium(game)
    np.testing.assert_allclose(found.price[0], rows[rule][0], atol=1e-11)
    np.testing.assert_allclose(found.buyers.payoff[0], rows[rule][1], atol=1e-11)
    np.testing.assert_allclose(found.profit[0], rows[rule][2], atol=1e-11)
    assert found.gain.max() < 1e-12
    grid = np.linspace(0, 1, 201)
    offers = np.repeat(found.price[:, None], 201, 1)
    offers[:, :, 0] = grid
    earned = sellers.profits(game, sellers.respond(game, offers))[0, :, 0]
    assert earned.max() <= found.profit[0, 0] + 1e-12


@pytest.mark.parametrize(
    ("rule", "price", "payoff", "profit"),
    [
        ("posted", (0.402553490, 0.443016366), 0.456556066571, (0.852786477, 2.291964992)),
        ("first_price", (0.301239119, 0.479540159), 0.357968062343, (1.293429466, 2.721794233)),
        ("all_pay", (0.256555940, 0.450587296), 0.24389480072, (1.814264421, 3.307668662)),
    ],
)
def test_unequal_sellers(rule, price, payoff, profit):
    """R8: C = (6, 14), c = (.1, 0), M = 10; first-order conditions and best-response iteration agree."""
    game = seller_game(rule, 1.0, [0.1, 0.0], 10, [6, 14])
    found = sellers.equilibrium(game)
    np.testing.assert_allclose(found.price[0], price, atol=1e-9)
    np.testing.assert_allclose(found.buyers.payoff[0], payoff, atol=1e-11)
    np.testing.assert_allclose(found.profit[0], profit, atol=1e-9)
    assert found.gain.max() < 1e-12
    iterated = sellers.best_response_sweeps(game, np.full((1, 2), 0.6))
    np.testing.assert_allclose(iterated, found.price, atol=1e-9)


def test_three_unequal_sellers_are_certified_by_their_gains():
    """Beyond the proofs: N = 3 with unequal channels and costs still ends where nobody gains."""
    for rule in RULES:
        found = sellers.equilibrium(seller_game(rule, 1.0, [0.1, 0.0, 0.2], 9, [3, 5, 4]))
        assert found.gain.max() < 1e-9, rule


@pytest.mark.parametrize(
    ("rule", "price", "payoff", "profit"),
    [
        ("posted", 0.949670270081, 0.040019603490, 18.878219551612),
        ("first_price", 0.929494604592, 0.005372785113, 19.744390011055),
        ("all_pay", 0.076203885981, 0.0, 19.878709638873),
    ],
)
def test_pools(rule, price, payoff, profit):
    """R9: M = 50, C = 20 pooled; and any C >= M prices at cost."""
    found = sellers.equilibrium(seller_game(rule, 1.0, [0.0, 0.0], 50, 1, 20))
    np.testing.assert_allclose(found.price[0], price, atol=1e-11)
    np.testing.assert_allclose(found.buyers.payoff[0], payoff, atol=1e-11)
    np.testing.assert_allclose(found.profit[0], profit, atol=1e-10)
    assert found.gain.max() < 1e-8
    plenty = sellers.equilibrium(seller_game(rule, 1.0, [0.1, 0.1], 12, 1, 12))
    np.testing.assert_allclose(plenty.price[0], 0.1, atol=1e-12)
    np.testing.assert_allclose(plenty.buyers.payoff[0], 0.9, atol=1e-12)
    np.testing.assert_allclose(plenty.profit[0], 0.0, atol=1e-12)
    assert plenty.gain.max() < 1e-9


def test_pooled_gap_has_no_pure_equilibrium_at_the_formula():
    """M = 30, C = 20 posted: p = .0556, and deviating to .200 gains 56 % (spec 5.2)."""
    game = seller_game("posted", 1.0, [0.0, 0.0], 30, 1, 20)
    found = sellers.equilibrium(game)
    assert abs(found.price[0, 0] - 0.0556) < 5e-5
    offers = np.array([[[0.2, found.price[0, 0]]]])
    lifted = sellers.profits(game, sellers.respond(game, offers))[0, 0, 0]
    assert abs(lifted / found.profit[0, 0] - 1.56) < 0.005


def test_pooled_gap_mixture_beats_the_specs_certificate():
    """The spec's regret matching leaves 1.7 % to be gained; linear programs leave less than 0.01 %."""
    game = seller_game("posted", 1.0, [0.0, 0.0], 30, 1, 20)
    found = oracle.pooled_mixture(game, rounds=1)
    assert found.gain.max() / found.profit[0] < 1e-4
    # an independent check of the certificate on a grid of its own
    own = np.linspace(0, 1, 401)
    offers = np.stack(np.broadcast_arrays(own[:, None], found.prices[1][None]), -1)[None]
    earned = sellers.profits(game, sellers.respond(game, offers))[0, ..., 0] @ found.weights[1]
    assert earned.max() <= found.profit[0] + found.gain[0] + 1e-6


@pytest.mark.slow
def test_pooled_gap_mixture_fine():
    """Finer grids: below 1e-3 for first_price and all_pay in the hardest part of the gap."""
    for rule in ("first_price", "all_pay"):
        game = seller_game(rule, 1.0, [0.0, 0.0], 25, 1, 20)
        found = oracle.pooled_mixture(game, halvings=3, rounds=1)
        assert found.gain.max() / found.profit[0] < 1e-3


@pytest.mark.parametrize(
    ("capacity", "m", "cost", "profit", "low", "atom", "mean"),
    [
        ((20, 20), 30, 0.0, (10, 10), 0.5, (0, 0), (0.693147180560, 0.693147180560)),
        ((20, 20), 30, 0.1, (9, 9), None, (0, 0), (0.723832462504, 0.723832462504)),
        ((10, 10, 10), 24, 0.0, (4, 4, 4), None, (0, 0, 0), (0.532777160252,) * 3),
        ((20, 15), 30, 0.0, (15, 11.25), None, (0.25, 0), (0.897284663017, 0.863046217355)),
        ((40, 15), 30, 0.0, (15, 7.5), None, (0.5, 0), None),
    ],
)
def test_clearing(capacity, m, cost, profit, low, atom, mean):
    """R10: Bertrand-Edgeworth mixtures, and indifference re-checked on the allocation rule itself."""
    found = clearing.unit_demand(1.0, cost, m, capacity)
    np.testing.assert_allclose(found.profit[0], profit, atol=1e-12)
    np.testing.assert_allclose(found.atom[0], atom, atol=1e-12)
    if low is not None:
        np.testing.assert_allclose(found.low[0], low, atol=1e-12)
    if mean is not None:
        np.testing.assert_allclose(found.mean()[0], mean, atol=1e-11)
    if len(capacity) == 2:
        u = (np.arange(4000) + 0.5) / 4000
        for j in (0, 1):
            rival = found.quantile(np.repeat(u[:, None, None], 2, -1))[:, 0, 1 - j]
            for own in np.linspace(found.low[0, j] + 1e-9, found.high[0, j] - 1e-9, 7):
                prices = np.full((u.size, 2), own)
                prices[:, 1 - j] = rival
                sold = clearing.residual_sales(prices, m, capacity, np.ones(u.size), False)[:, j]
                assert abs(((own - cost) * sold).mean() - found.profit[0, j]) < 3e-3 * found.profit[0, j]


def test_clearing_edges():
    """Both can serve all: price at cost; nobody is spare: price at value; unequal triples are refused."""
    assert clearing.unit_demand(1.0, 0.2, 10, (10, 12)).high[0, 0] == 0.2
    assert clearing.unit_demand(1.0, 0.2, 30, (10, 12)).low[0, 0] == 1.0
    with pytest.raises(ValueError, match="equal channels"):
        clearing.unit_demand(1.0, 0.0, 30, (10, 12, 14))


@pytest.mark.parametrize(("c", "low"), [(3, None), (4, 0.225), (6, None), (8, None), (10, 0.0)])
def test_linear_demand_nobody_gains(c, low):
    """Levitan-Shubik: no price earns more than the equilibrium profit against the rival's mixture."""
    m = 10
    found = clearing.linear_demand(1.0, m, (c, c))
    if low is not None:
        np.testing.assert_allclose(found.low[0], low, atol=1e-12)
    u = (np.arange(2000) + 0.5) / 2000
    rival = found.quantile(np.repeat(u[:, None, None], 2, -1))[:, 0, 1]
    own = np.linspace(0.0, 1.0, 201)
    prices = np.stack(np.broadcast_arrays(own[:, None], rival[None]), -1)
    earned = (own[:, None] * clearing.residual_sales(prices, m, (c, c), np.ones(prices.shape[:-1]), True)[..., 0]).mean(
        -1
    )
    assert earned.max() <= found.profit[0, 0] + 2e-3
    assert earned.max() >= found.profit[0, 0] - 5e-3


def test_discrete_bertrand_equilibria():
    """C >= M, N = 2, c = 0, step .1: the pure equilibria are (0, 0), (d, d), (2d, 2d) (spec 5.3)."""
    grid = np.round(np.arange(11) * 0.1, 10)
    prices = np.stack(np.broadcast_arrays(grid[:, None], grid[None]), -1)
    table = grid[:, None] * clearing.residual_sales(prices, 10, (10, 10), np.ones((11, 11)), False)[..., 0]
    best = table.max(0)
    pure = [
        (i, j)
        for i in range(11)
        for j in range(11)
        if table[i, j] >= best[j] - 1e-12 and table[j, i] >= best[i] - 1e-12
    ]
    assert pure == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("quality", "cost", "mu", "nash", "nash_profit", "monopoly", "monopoly_profit"),
    [
        ((2, 2), (1, 1), 0.25, 1.47292666003, 0.222926660031, 1.92498091902, 0.337490459509),
        ((2, 2, 2), (1, 1, 1), 0.25, 1.37016272938, None, 2.0, 0.25),
        ((2, 2), (1, 0.8), 0.25, (1.42452842614, 1.35279019164), None, (2.01362212835, 1.81362212835), None),
        ((1, 1), (0, 0), 0.1, 0.199966476224, None, 0.865746605390, None),
    ],
)
def test_logit(quality, cost, mu, nash, nash_profit, monopoly, monopoly_profit):
    """R11: Nash and joint-monopoly prices and profits."""
    market = logit.logit_market(quality, cost, mu)
    found, joint = logit.nash(market), logit.monopoly(market)
    np.testing.assert_allclose(found[0], nash, atol=1e-11)
    np.testing.assert_allclose(joint[0], monopoly, atol=1e-11)
    assert logit.gains(market, found).max() < 1e-14
    if nash_profit is not None:
        np.testing.assert_allclose(logit.profits(market, found)[0], nash_profit, atol=1e-11)
    if monopoly_profit is not None:
        np.testing.assert_allclose(logit.profits(market, joint)[0], monopoly_profit, atol=1e-11)


@pytest.mark.parametrize(
    ("rule", "payoff", "share"),
    [
        ("posted", 0.595228759268, 0.973398883),
        ("first_price", 0.503328023105, 0.715596367),
        ("all_pay", 0.433566115937, 0.705618217),
    ],
)
def test_buyers_alone(rule, payoff, share):
    """R12: M = 4, C = 5 at prices (.2, .4)."""
    stage = urns.solve_buyers(rule, 1.0, [0.2, 0.4], 4, [5, 5], [1, 1])
    assert abs(stage.payoff - payoff) < 1e-11
    assert abs(5 * stage.density[0] - share) < 1e-9
    bids = urns.bid_quantile(rule, 1.0, stage.payoff, stage.density[0], 0.2, np.linspace(0, 1, 11), 4, 1)
    if rule != "posted":
        u = urns.bid_cdf(rule, 1.0, stage.payoff, stage.density[0], 0.2, bids, 4, 1)
        np.testing.assert_allclose(u, np.linspace(0, 1, 11), atol=1e-12)


def test_private_values():
    """R13: bids of a type .9, and the cheapest all-pay type."""
    assert abs(private.bid("first_price", 0.9, 0.25, 4, q=0.1) - 0.3112591341) < 1e-10
    assert abs(private.bid("all_pay", 0.9, 0.25, 4, q=0.1) - 0.3498239152) < 1e-10
    assert abs(private.lowest_bidder(0.25, 4, q=0.1) - 0.3098243500) < 1e-10
    assert abs(private.bid("first_price", 0.9, 0.2, 50, pooled=10) - 0.7975172850) < 1e-10
    v = np.linspace(0.1, 1, 10)
    np.testing.assert_allclose(private.bid("first_price", v, 0.0, 5, pooled=1), 0.8 * v, atol=1e-12)
    np.testing.assert_allclose(private.bid("all_pay", v, 0.0, 5, pooled=1), 0.8 * v**5, atol=1e-12)


def test_kink_continuum():
    """M = 30, C = 10 all-pay: splits up to .055 are equilibria, (.06, .04) gains .0585 (spec 5.2)."""
    game = seller_game("all_pay", 1.0, [0.0, 0.0], 30, 10)
    low, high = sellers.kink_range(game)[0]
    assert low < 0.045 < 0.055 < high < 0.06
    for q, expected in ((0.05, 0.0), (0.052, 0.0), (0.055, 0.0), (0.06, 0.0585)):
        split = np.array([[q, 0.1 - q]])
        gain = sellers.seller_gains(game, (1 - split) ** 29).max()
        assert abs(gain - expected) < (1e-12 if expected == 0 else 5e-5)
    assert np.all(np.isnan(sellers.kink_range(seller_game("all_pay", 1.0, [0.0, 0.0], 10, 10))))


def test_price_of_anarchy():
    """1.0227 (M = 10, C = 100) to 1.1277 (50, 100) (spec 5.7)."""
    for m, expected in ((10, 1.0227), (50, 1.1277)):
        game = seller_game("posted", 1.0, [0.0, 0.0], m, 100)
        ratio = sellers.social_optimum(game) / sellers.welfare(game, sellers.equilibrium(game).buyers)
        assert abs(ratio[0] - expected) < 5e-5


def test_gain_at_zero_prices():
    """All-pay, everyone at p = 0: gains .0062, .0357, .755 (spec 5.6)."""
    for m, c, expected, digits in ((10, 600, 0.0062, 5e-5), (10, 100, 0.0357, 5e-5), (50, 100, 0.755, 5e-4)):
        gain = sellers.seller_gains(seller_game("all_pay", 1.0, [0.0, 0.0], m, c), np.zeros((1, 2)))
        assert abs(gain[0, 0] - expected) < digits


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("rule", RULES)
def test_win_probability_is_exact(k, rule):
    """Gauss-Legendre against brute-force enumeration of four asymmetric mixed buyers with ties (spec: 6.7e-16)."""
    rng = np.random.default_rng(3)
    m, bids, price, count = 4, np.array([0.0, 0.3, 0.3, 0.7]), np.array([0.2, 0.3]), np.array([2, 1])
    play = rng.dirichlet(np.ones(9), size=m)[:, :8].reshape(m, 2, 4)
    found = exploit.buyer_values(rule, 1.0, price, bids, play, count, k)
    actions = [(g, u, b) for g in range(2) for u in range(count[g]) for b in range(4)] + [None]
    chance = [[play[i, a[0], a[2]] / count[a[0]] if a else 1 - play[i].sum() for a in actions] for i in range(m)]
    g, b = 0, 1
    total = 0.0
    for rivals in itertools.product(range(len(actions)), repeat=3):
        p = np.prod([chance[i + 1][a] for i, a in enumerate(rivals)])
        on = [
            bids[actions[a][2]]
            for a in rivals
            if actions[a] and actions[a][:2] == (g, 0) and bids[actions[a][2]] >= price[g]
        ]
        higher = 0 if rule == "posted" else sum(x > bids[b] for x in on)
        equal = len(on) if rule == "posted" else sum(x == bids[b] for x in on)
        total += p * min(max((k - higher) / (equal + 1), 0.0), 1.0)
    pay = {"posted": price[g] * total, "first_price": bids[b] * total, "all_pay": bids[b]}[rule]
    assert abs(found[0, g, b] - (total - pay)) < 1e-14


def test_equilibrium_mixture_leaves_no_buyer_gain():
    """The continuous bid mixture makes every bid in its support worth pi, exactly (independent win probability)."""
    for rule in ("first_price", "all_pay"):
        stage = urns.solve_buyers(rule, 1.0, [0.2, 0.4], 4, [5, 5], [1, 1])
        for j, price in enumerate((0.2, 0.4)):
            u = np.linspace(0, 1, 9)
            bid = urns.bid_quantile(rule, 1.0, stage.payoff, stage.density[j], price, u, 4, 1)
            above = np.repeat((stage.density[j] * (1 - u))[:, None], 3, -1)
            win = exploit.win_probability(above, np.zeros_like(above), 1)
            earned = win - bid if rule == "all_pay" else (1 - bid) * win
            np.testing.assert_allclose(earned, stage.payoff, atol=1e-14)


def test_pivoting_solves_known_games():
    """Rock-paper-scissors, matching pennies, and random games checked by their gap."""
    rps = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0.0]])
    np.testing.assert_allclose(mixed.symmetric_equilibrium(rps), 1 / 3, atol=1e-12)
    pennies = np.array([[1, -1], [-1, 1.0]])
    x, y = mixed.bimatrix_equilibrium(pennies, -pennies)
    np.testing.assert_allclose([x, y], 0.5, atol=1e-12)
    rng = np.random.default_rng(1)
    for n in (4, 15):
        a, b = rng.normal(size=(2, n, n + 2))
        x, y = mixed.bimatrix_equilibrium(a, b)
        assert max((a @ y).max() - x @ a @ y, (x @ b).max() - x @ b @ y) < 1e-10


def test_edges_and_bad_input():
    """One buyer, one seller, prices above the value, and clear errors."""
    lone = urns.solve_buyers("posted", 1.0, [0.2, 0.4], 1, [3, 3], [1, 1])
    assert lone.payoff == pytest.approx(0.8)
    np.testing.assert_allclose(lone.density, [1 / 3, 0.0])
    dear = urns.solve_buyers("first_price", 1.0, [1.2, 1.1], 5, [3, 3], [1, 1])
    assert dear.payoff == 0
    assert dear.abstain == 1
    for rule in RULES:
        alone = sellers.equilibrium(seller_game(rule, 1.0, [0.0], 8, 4))
        assert abs(alone.buyers.payoff[0]) < 1e-12
        assert alone.gain.max() < 1e-9
    with pytest.raises(ValueError, match="payment must be one of"):
        seller_game("second_price", 1.0, [0, 0], 4, 5)
    with pytest.raises(ValueError, match="channels must be"):
        seller_game("posted", 1.0, [0, 0], 4, 0)
    with pytest.raises(ValueError, match="mu"):
        logit.logit_market([2, 2], [1, 1], 0.0)
    with pytest.raises(ValueError, match="unit_cost"):
        seller_game("posted", 1.0, [0, np.nan], 4, 5)
