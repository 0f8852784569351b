"""The bandwidth auction against reference cases R1-R10 of the spec, and against methods that share no code with it."""

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import exp1

from marketenvs.markets.two_tier_bidding.oracle import (
    best_response,
    equilibrium,
    feedback_price,
    gains,
    make_auction,
    posted_price,
    settle,
    social_optimum,
)
from marketenvs.markets.two_tier_bidding.values import Values, elasticity, marginal, solve_share, value

from .reference import CAP, FLOOR, MULTIPLIER, SNR, default_auction


def close(actual, expected, digits=10):
    """Equal to the digits the spec prints (5e-11 in bids), allowing one unit in the last place."""
    np.testing.assert_allclose(np.ravel(actual), np.ravel(expected), rtol=0, atol=1.01 * 10.0**-digits)


def family(kind, weight, snr=None):
    weight = np.atleast_2d(np.asarray(weight, float))
    return Values(kind, weight, np.ones_like(weight) if snr is None else np.atleast_2d(np.asarray(snr, float)))


def efficiency(auction, solution):
    return solution.outcome.values.sum(-1) / social_optimum(auction)[1]


def test_r1_kelly():
    a = default_auction()
    s = equilibrium(a)
    close(s.bids, (656.7863147034, 652.1193532018, 660.8552882529, 604.7029930993))
    close(s.bids.sum(), 2574.4639492573)
    close(s.outcome.bandwidths, (2.5511575522, 2.5330296561, 2.5669626815, 2.3488501102))
    close(s.outcome.payoffs, (260.3975704438, 256.4218466129, 263.8972731481, 218.2826020339))
    close(s.outcome.values.sum(), 3573.4632414961)
    close(social_optimum(a)[1], 3578.3319553301)
    close(efficiency(a, s), 0.998639390114, 12)
    assert s.exists.all()
    assert gains(a, s.bids).sum() <= 1e-9


def test_r1_without_the_multiplier():
    a = make_auction(family("shannon", np.ones(4), SNR))
    s = equilibrium(a)
    close(s.outcome.values.sum(), 370.9621230617)
    close(social_optimum(a)[1], 371.4675454764)
    close(s.bids * MULTIPLIER, (656.7863147034, 652.1193532018, 660.8552882529, 604.7029930993))


def test_r2_posted_is_efficient():
    free = default_auction("posted")
    target, _ = social_optimum(free)
    price = feedback_price(target, free.bandwidth)
    np.testing.assert_allclose(posted_price(free, target), price, rtol=1e-12)
    a = default_auction("posted", price=price)
    s = equilibrium(a)
    close(s.bids, (990.4347463317, 925.7799159683, 1050.6881829302, 472.4548758918))
    close(s.bids.sum(), 3439.3577211220)
    close(s.outcome.bandwidths, (2.8797084416, 2.6917232548, 3.0548964898, 1.3736718138))
    close(s.outcome.payoffs, (325.2368575319, 286.6023506725, 363.4295542122, 83.9902934652))
    close(efficiency(a, s), 1.0, 12)


def test_posted_feedback_converges_to_the_optimum():
    a = default_auction("posted", price=0.75)
    target, _ = social_optimum(a)
    c = equilibrium(a).outcome.bandwidths
    close(np.abs(c - target).max(), 0.975, 3)
    errors = []
    for _ in range(200):
        a = a._replace(price=feedback_price(c, a.bandwidth))
        c = equilibrium(a).outcome.bandwidths
        errors.append(np.abs(c - target).max())
    assert errors[99] == pytest.approx(1.7e-5, rel=0.05)
    assert errors[199] == pytest.approx(1.8e-9, rel=0.05)


def test_r2b_efficient_mechanism():
    a = default_auction("efficient")
    s = equilibrium(a)
    close(s.bids, (990.4347463317, 925.7799159683, 1050.6881829302, 472.4548758918))
    close(s.outcome.payments, (831.7434300543, 788.2016613699, 870.7852106813, 438.4078088577))
    close(marginal(a.values, s.outcome.bandwidths), [343.93577211220] * 4)
    assert gains(a, s.bids).sum() <= 1e-9


def test_r3_equation_4():
    a = default_auction("eq4")
    s = equilibrium(a)
    assert s.dominant.all()
    close(s.bids, CAP)
    close(s.outcome.bandwidths, (2.7835051546, 2.6804123711, 2.7835051546, 1.7525773196))
    close(s.outcome.payoffs, (305.5274409590, 284.3973262433, 306.1633385854, 128.9572798379))
    close(s.outcome.values.sum(), 3577.4689222963)


def test_r4_linear():
    a = make_auction(family("linear", (10, 8, 6, 1)))
    s = equilibrium(a)
    close(s.outcome.bandwidths, (4.8936170213, 3.6170212766, 1.4893617021, 0))
    close(s.bids, (24.9886826618, 18.4698958805, 7.6052512449, 0))
    close(s.outcome.values.sum(), 86.8085106383)
    close(efficiency(a, s), 0.868085106383, 12)


def test_r5_logarithm():
    a = make_auction(family("log", (4, 3, 2, 1)))
    s = equilibrium(a)
    close(s.bids, (1.9438025462, 1.5622004522, 1.0714839721, 0.4170461582))
    close(s.outcome.bandwidths, (3.8918603523, 3.1278207831, 2.1453135749, 0.8350052896))
    close(s.outcome.values.sum(), 13.5024140682)
    c, best = social_optimum(a)
    close(c, (4.6, 3.2, 1.8, 0.4))
    close(best, 13.5920310378)


def test_r6_caps():
    s = equilibrium(default_auction(cap=np.array([2700.0, 300.0, 2700.0, 100.0])))
    close(s.bids, (815.0390804188, 300, 817.8090023555, 100))
    close(s.outcome.bandwidths, (4.0093457417, 1.4757620234, 4.0229715604, 0.4919206745))
    close(s.outcome.values.sum(), 3563.8485649110)


def test_r7_statistical_channel():
    a = default_auction()
    a = a._replace(values=a.values._replace(kind="statistical"))
    s = equilibrium(a)
    close(s.bids, (641.7119642615, 637.0575979347, 645.7697641848, 589.7574390934))
    close(s.bids.sum(), 2514.2967654744)
    close(s.outcome.values.sum(), 3493.2751052779)
    close(social_optimum(a)[1], 3498.1138503500)


def test_r8_low_snr():
    a = make_auction(family("shannon", np.ones(4), (1, 5, 20, 100)))
    s = equilibrium(a)
    close(s.bids, (0.2811182118, 1.2529906086, 3.5404642745, 6.9150564149))
    close(s.outcome.bandwidths, (0.2344678053, 1.0450619910, 2.9529388474, 5.7675313563))
    close(s.outcome.values.sum(), 36.1494666232)
    target, best = social_optimum(a)
    close(best, 37.6553474636)
    close(efficiency(a, s), 0.960008844908, 12)
    posted = a._replace(payment="posted", price=feedback_price(target, a.bandwidth))
    close(equilibrium(posted).bids, (0.1927714463, 0.9638572314, 3.8554289257, 19.2771446285))


def test_r9_heterogeneous_values():
    a = default_auction(weight=(1, 1.05, 1.1, 1.2))
    s = equilibrium(a)
    close(s.bids, (558.9208989873, 646.9561344407, 743.3925469217, 841.6893098267))
    close(s.outcome.bandwidths, (2.0026124389, 2.3180425076, 2.6635739765, 3.0157710771))
    close(s.outcome.values.sum(), 3912.1426787280)
    c, best = social_optimum(a)
    close(c, (0.1519357993, 0.5308764886, 1.9977992603, 7.3193884518))
    close(best, 4010.6816898442)
    close(efficiency(a, s), 0.975430857212, 12)


def test_r10_johari_tsitsiklis_pair():
    a = make_auction(family("linear", (1, np.sqrt(2) - 1)))
    s = equilibrium(a)
    close(s.bids, (2.0710678119, 0.8578643763))
    close(efficiency(a, s), 0.828427124746, 12)


def test_kelly_worst_case_tends_to_three_quarters():
    """Johari and Tsitsiklis: one value 1 and n = M - 1 equal values r, ratio 1 - n r (1 - r)/(r + n).

    Its minimum, at r = sqrt(n^2 + n) - n, is 0.7501250469 for M = 1000 (the spec's 0.75012503 is below what can occur).
    """

    def ratio(rest):
        a = make_auction(family("linear", np.r_[1.0, np.full(999, rest)]))
        return efficiency(a, equilibrium(a))[0]

    worst = minimize_scalar(ratio, bounds=(0.4, 0.6), method="bounded", options={"xatol": 1e-9})
    close(worst.fun, 1 - 999 * (1 - 2 * (np.sqrt(999.0**2 + 999) - 999)), 9)
    close(worst.fun, 0.75012503, 7)


def test_floors_can_make_an_operator_lose():
    """Spec 4.17: with the default box, values 1, 2, 4, 8 leave operator 0 a loss and efficiency below 3/4."""
    boxed = default_auction(weight=(1, 2, 4, 8))
    s = equilibrium(boxed)
    close(s.outcome.payoffs[0, 0], -0.24245891, 8)
    close(efficiency(boxed, s), 0.638117, 6)
    free = make_auction(boxed.values)
    close(efficiency(free, equilibrium(free)), 0.851820, 6)


def test_welfare_is_nearly_flat_at_the_default():
    a = default_auction()
    _, best = social_optimum(a)
    for shares, expected, digits in ((np.full(4, 0.25), 0.99822, 5), ((0.97, 0.01, 0.01, 0.01), 0.9579, 4)):
        close(value(a.values, 10 * np.array([shares])).sum() / best, expected, digits)


# -- the boxed efficient mechanism: derived in the spec, run here for the first time ----------------------------


def _boxed_efficient(count=60, operators=5, seed=3):
    rng = np.random.default_rng(seed)
    values = family("shannon", rng.uniform(0.5, 2, (count, operators)), 10 ** rng.uniform(-1, 5, (count, operators)))
    free = equilibrium(make_auction(values, payment="efficient"))
    cap = free.bids * rng.uniform(0.3, 3.0, free.bids.shape)
    floor = free.bids * rng.uniform(0.0, 0.9, free.bids.shape) * rng.integers(0, 2, free.bids.shape)
    floor = np.minimum(floor, cap)
    return make_auction(values, floor=floor, cap=cap, payment="efficient")


def test_boxed_efficient_equilibrium_by_scalar_optimisation():
    """Each bidder's own payoff, maximised by SciPy over its box, beats the equilibrium payoff by nothing."""
    a = _boxed_efficient()
    s = equilibrium(a)
    bound = np.isclose(s.bids, a.cap, rtol=1e-12) | np.isclose(s.bids, a.floor, rtol=1e-12)
    assert 0.2 < bound.mean() < 0.9  # boxes bind for many, but not all
    assert gains(a, s.bids).max() <= 1e-9
    for row, m in ((0, 0), (7, 1), (19, 2), (33, 3), (59, 4)):
        others = s.bids[row].sum() - s.bids[row, m]

        def loss(b, row=row, m=m, others=others):
            c = 10 * b / (b + others)
            gain = a.values.weight[row, m] * c * np.log2(1 + a.values.snr[row, m] / c)
            return -(gain - others * np.log1p(b / others))

        low = max(a.floor[row, m], 1e-9)
        found = minimize_scalar(loss, bounds=(low, a.cap[row, m]), method="bounded", options={"xatol": 1e-10})
        best = max(-found.fun, -loss(a.cap[row, m]), -loss(low))
        assert best <= s.outcome.payoffs[row, m] + 1e-8
        close(s.outcome.payoffs[row, m], -loss(max(s.bids[row, m], 1e-12)), 8)


def test_boxed_efficient_equilibrium_by_sequential_best_response():
    a = _boxed_efficient(count=20, seed=4)
    bids = 0.5 * (a.floor + a.cap)
    for _ in range(80):
        for m in range(bids.shape[1]):
            bids[:, m] = best_response(a, bids)[:, m]
    np.testing.assert_allclose(bids, equilibrium(a).bids, rtol=1e-9)


def test_boxed_efficient_equilibrium_by_kkt_and_scipy():
    """Slopes at the solution, and the same bids from the concave program that they are the conditions of.

    At a total B, ``v'(C b/B) C/B - kappa`` is 0 inside a box, positive only at a cap and negative only at a floor: the conditions of
    maximising ``sum v(C b/B) - kappa sum b`` over the boxes. L-BFGS-B finds its optimum without knowing that sum b must be B.
    """
    rng = np.random.default_rng(9)
    values = family("shannon", rng.uniform(0.5, 2, (40, 4)), 10 ** rng.uniform(-1, 5, (40, 4)))
    free = equilibrium(make_auction(values, payment="efficient")).bids
    floor = free * rng.uniform(0.5, 2.0, free.shape) * (rng.uniform(size=free.shape) < 0.3)
    cap = np.maximum(free * rng.uniform(0.3, 3.0, free.shape), 1.2 * floor)
    a = make_auction(values, floor=floor, cap=cap, payment="efficient")
    s = equilibrium(a)
    total = s.bids.sum(-1, keepdims=True)
    slope = marginal(a.values, np.maximum(s.outcome.bandwidths, 1e-300)) * 10 / total - 1.0
    at_cap, at_floor = s.bids >= a.cap * (1 - 1e-12), s.bids <= a.floor * (1 + 1e-12)
    inside = ~at_cap & ~at_floor
    assert min(at_cap.sum(), at_floor.sum(), inside.sum()) >= 10
    assert np.abs(slope[inside]).max() <= 1e-11
    assert slope[at_cap].min() >= -1e-11
    assert slope[at_floor].max() <= 1e-11
    for row in range(0, 40, 4):
        weight, snr, size = a.values.weight[row], a.values.snr[row], total[row, 0]

        def loss(z, weight=weight, snr=snr, size=size):
            b = z * size
            c = np.maximum(10 * b / size, 1e-12)
            x = snr / c
            gradient = weight * (np.log1p(x) - x / (1 + x)) / np.log(2) * 10 - size
            return -(weight * c * np.log2(1 + x) - b).sum(), -gradient

        bounds = list(zip(a.floor[row] / size, a.cap[row] / size, strict=True))
        start = np.clip(np.full(4, 0.25), a.floor[row] / size, a.cap[row] / size)
        options = {"ftol": 1e-16, "gtol": 1e-13, "maxiter": 2000, "maxcor": 20}
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        np.testing.assert_allclose(found.x * size, s.bids[row], rtol=2e-6, atol=1e-6 * size)
        assert found.x.sum() == pytest.approx(1.0, abs=1e-6)


def test_boxes_that_bind_cost_welfare():
    a = default_auction("efficient", cap=np.array([2700.0, 300.0, 2700.0, 100.0]))
    s = equilibrium(a)
    close(s.bids[0, [1, 3]], (300, 100))
    assert efficiency(a, s)[0] < 1 - 1e-4
    assert gains(a, s.bids).sum() <= 1e-9


def test_efficient_with_linear_values():
    """Constant slopes: bids at caps, at floors, one in between; certified by exact best responses."""
    a = make_auction(family("linear", (10, 8, 6, 1)), floor=0.5, cap=(30, 40, 60, 100), payment="efficient")
    s = equilibrium(a)
    close(s.bids, (30, 40, 0.5, 0.5))  # total 71 lies between 8 C = 80 and 6 C = 60
    assert gains(a, s.bids).max() <= 1e-9
    free = make_auction(family("linear", (10, 8, 6, 1)), payment="efficient")
    close(efficiency(free, equilibrium(free)), 1.0, 12)


# -- equation 4 and what it rewards (spec 4.3) ------------------------------------------------------------------------


@pytest.mark.parametrize("payment", ["eq4", "eq4_literal"])
def test_the_cap_dominates_under_equation_4(payment):
    """On a grid of own bids, against many rivals, the payoff only rises: the 'penalty' rewards over-bidding."""
    a = default_auction(payment)
    assert equilibrium(a).dominant.all()
    for others in np.geomspace(3.0, 7000.0, 12):
        grid = np.geomspace(0.5, 2700.0, 4000)
        bids = np.stack([grid, np.full_like(grid, others), np.zeros_like(grid), np.zeros_like(grid)], -1)
        payoff = settle(a, bids[:, None]).payoffs[:, 0, 0]
        assert (np.diff(payoff) > 0).all()


def test_literal_equation_4_with_a_large_constant_is_not_dominant():
    a = default_auction("eq4_literal", pool=10.0)
    s = equilibrium(a)
    assert not s.dominant.any()
    c = np.array([[2.5] * 4])
    bids = np.full((1, 4), 100.0)
    close(settle(a, bids).payoffs.sum() / 4, (value(a.values, c) * (1 - 10 * 0.25 * 0.75)).mean())
    assert settle(a, bids).payoffs[0, 0] == pytest.approx(-787, abs=0.5)  # spec 4.2, operator 0 at c = 2.5
    assert settle(default_auction("eq4_literal"), bids).payoffs[0, 0] == pytest.approx(731, abs=0.5)
    reply = best_response(a, bids)
    grid = np.linspace(FLOOR[0], CAP[0], 20001)
    others = 300.0
    share = grid / (grid + others)
    best = (value(a.values, 10 * share[:, None, None])[:, 0, 0] * (1 - 10 * share * (1 - share))).max()
    got = 10 * reply[0, 0] / (reply[0, 0] + others)
    assert value(a.values, np.array([[got] * 4]))[0, 0] * (1 - got * (1 - got / 10)) >= best - 1e-6


def test_frozen_penalty_makes_every_bid_vector_an_equilibrium():
    """Spec 4.3: with q frozen at its value nobody gains, anywhere; once q is anticipated hundreds of Mb/s are left."""
    a = default_auction("eq4", floor=0.0)
    rng = np.random.default_rng(0)
    for bids in rng.uniform(100, 1700, (3, 1, 4)):
        o = settle(a, bids)
        frozen = default_auction("posted", price=o.payments / bids, floor=0.0)
        assert gains(frozen, bids).sum() <= 1e-9
        assert gains(a, bids).sum() > 100


def test_elasticity_bound():
    a = default_auction()
    assert elasticity(a.values, np.full((1, 4), 10.0)).min() == pytest.approx(0.96, abs=0.005)


# -- certificates, hard inputs, speed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("payment", ["kelly", "posted", "efficient"])
@pytest.mark.parametrize("kind", ["shannon", "statistical", "linear", "log"])
def test_random_markets_are_certified(payment, kind):
    """The spec's sweep: M 2-50, S 1e-1..1e12, values 0.5-2; NashConv / (1 + optimum) at rounding level."""
    rng = np.random.default_rng(11)
    for operators in (2, 3, 7, 50):
        shape = (25, operators)
        values = family(kind, rng.uniform(0.5, 2, shape), 10 ** rng.uniform(-1, 12, shape))
        a = make_auction(values, price=rng.uniform(0.2, 5, shape), payment=payment)
        if payment != "posted":
            a = a._replace(price=np.broadcast_to(a.price[:, :1], shape))
        s = equilibrium(a)
        _, best = social_optimum(a)
        assert s.exists.all()
        assert (gains(a, s.bids).sum(-1) / (1 + best)).max() <= 1e-13
        np.testing.assert_allclose(s.outcome.bandwidths.sum(-1), 10, rtol=1e-12)
        if payment == "kelly":
            assert efficiency(a, s).min() >= 0.75
        if payment == "efficient" and kind != "linear":
            np.testing.assert_allclose(efficiency(a, s), 1, rtol=1e-12)


def test_best_response_by_brute_force():
    """Payoffs on a fine grid of own bids, worked out here from eqs. (2)-(3), never beat the reported best response."""
    a = default_auction(weight=(1, 2, 4, 8))
    bids = np.array([[500.0, 20.0, 900.0, 1200.0]])
    reply = best_response(a, bids)
    for m in range(4):
        others = bids.sum() - bids[0, m]
        own = np.r_[np.linspace(FLOOR[m], CAP[m], 200001), reply[0, m]]
        c = 10 * own / (own + others)
        payoff = a.values.weight[0, m] * c * np.log2(1 + SNR[0, m] / c) - own
        assert payoff.max() - payoff[-1] <= 1e-9
        current = 10 * bids[0, m] / bids.sum()
        current = a.values.weight[0, m] * current * np.log2(1 + SNR[0, m] / current) - bids[0, m]
        close(gains(a, bids)[0, m], payoff[-1] - current, 9)


def test_weighted_optimum_by_slsqp():
    a = make_auction(family("shannon", (1, 1.05, 1.1, 1.2), (30, 80, 5, 12)))
    c, best = social_optimum(a)
    found = minimize(
        lambda x: -value(a.values, x[None]).sum(),
        np.full(4, 2.5),
        bounds=[(1e-9, 10)] * 4,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 10},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    close(-found.fun, best, 7)
    np.testing.assert_allclose(found.x, c[0], atol=1e-3)


def test_very_unequal_values_keep_tiny_shares_exact():
    a = make_auction(family("shannon", (1, 8, 64), (1e12, 1e12, 1e12)))
    s = equilibrium(a)
    assert 0 < s.outcome.bandwidths[0, 0] < 1e-10
    foc = marginal(a.values, s.outcome.bandwidths) * (1 - s.outcome.bandwidths / 10) * 10 / s.bids.sum()
    np.testing.assert_allclose(foc, 1, rtol=1e-9)


@pytest.mark.parametrize("kind", ["shannon", "statistical", "linear", "log"])
@pytest.mark.parametrize("power", [0, 1, 2])
def test_share_solves_its_equation(kind, power):
    rng = np.random.default_rng(5)
    values = family(kind, rng.uniform(0.5, 2, (40, 6)), 10 ** rng.uniform(-2, 12, (40, 6)))
    if kind == "linear" and power == 0:
        with pytest.raises(ValueError, match="flat slope"):
            solve_share(values, np.full((40, 1), 10.0), np.ones((40, 6)), 0)
        return
    level = 10 ** rng.uniform(-4, 2, (40, 6))
    root = solve_share(values, np.full((40, 1), 10.0), level, power)
    s = np.exp(root.log)
    inside = (s > 0) & (s < 1)
    left = marginal(values, np.where(inside, 10 * s, 1.0)) * np.where(inside, -np.expm1(root.log), 1.0) ** power
    np.testing.assert_allclose(left[inside], level[inside], rtol=1e-10)
    nudge = solve_share(values, np.full((40, 1), 10.0), level * (1 + 1e-6), power)
    moved = np.isfinite(nudge.log) & inside
    rise = (nudge.log[moved] - root.log[moved]) / np.log1p(1e-6)
    np.testing.assert_allclose(rise, root.slope[moved], rtol=2e-2, atol=1e-6)


def test_statistical_value_by_quadrature():
    """E_h log2(1 + h S/c) against SciPy's E1 where it does not overflow, and its slope against differences."""
    c = np.geomspace(1e-6, 4e3, 60)[None]
    values = Values("statistical", np.ones_like(c), np.full_like(c, 10.0))
    y = c / 10
    np.testing.assert_allclose(value(values, c), c * np.exp(y) * exp1(y) / np.log(2), rtol=1e-13)
    step = 1e-5 * c
    slope = (value(values, c + step) - value(values, c - step)) / (2 * step)
    np.testing.assert_allclose(marginal(values, c), slope, rtol=1e-6)


def test_where_no_equilibrium_exists():
    alone = make_auction(family("shannon", (1.0, 0.0), (10, 10)))
    s = equilibrium(alone)
    assert not s.exists.any()
    assert gains(alone, np.zeros((1, 2)))[0, 0] == pytest.approx(value(alone.values, np.array([[10.0, 10.0]]))[0, 0])
    held = make_auction(family("shannon", (1.0, 0.0), (10, 10)), floor=(1.0, 0.0))
    s = equilibrium(held)
    assert s.exists.all()
    close(s.outcome.bandwidths, (10, 0))
    assert gains(held, s.bids).max() == 0
    nobody = make_auction(family("shannon", (0.0, 0.0), (10, 10)))
    assert equilibrium(nobody).exists.all()
    assert equilibrium(nobody).bids.sum() == 0


def test_lone_bidder_gets_the_whole_band():
    a = default_auction("efficient", floor=0.0)
    bids = np.array([[50.0, 0.0, 0.0, 0.0]])
    o = settle(a, bids)
    close(o.bandwidths, (10, 0, 0, 0))
    assert o.payments.sum() == 0
    assert settle(a, np.zeros((1, 4))).payoffs.sum() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": 0.0}, "positive"),
        ({"price": np.nan}, "price"),
        ({"floor": 5.0, "cap": 4.0}, "cap"),
        ({"payment": "vickrey"}, "not offered"),
        ({"payment": "eq4", "cap": np.inf}, "finite cap"),
        ({"bandwidth": -1.0}, "bandwidth"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        make_auction(**{"values": family("shannon", (1, 2), (3, 4)), **change})


def test_a_market_does_not_depend_on_its_batch():
    rng = np.random.default_rng(2)
    values = family("shannon", rng.uniform(0.5, 2, (30, 4)), 10 ** rng.uniform(-1, 12, (30, 4)))
    together = equilibrium(make_auction(values)).bids
    alone = equilibrium(make_auction(Values("shannon", values.weight[7:8], values.snr[7:8]))).bids
    np.testing.assert_array_equal(together[7], alone[0])
