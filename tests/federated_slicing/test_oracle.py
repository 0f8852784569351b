"""Reference cases A-K of the specification through the oracle, and its theorem on random games."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from marketenvs.markets.federated_slicing import finite, oracle
from marketenvs.markets.federated_slicing.optimum import fluid_optimum, integer_optimum, price_of_anarchy, welfare
from marketenvs.markets.federated_slicing.peaks import peak_ratio, risk_adjusted_ratio
from marketenvs.markets.federated_slicing.stage import Terms, stage

from .reference import CASES, DELAY, PEAK_RATIOS, PEAKS_A, PHI0, POA, RISK, SHARE


def build(case, **more):
    return oracle.game(case.need, case.load_share, case.is_delay, **{**case.options, **more})


def random_game(rng, batch=64, count=5, **options):
    delay = rng.uniform(size=(batch, count)) < 0.5
    weight = rng.uniform(0.2, 0.8, (batch, count))
    defaults = {
        "steepness": rng.uniform(5, 30, (batch, count)),
        "utilisation_weight": np.where(delay, weight, 0.5),
        "utility_weight": np.where(delay, 1 - weight, 0.5),
        "request_max": rng.uniform(10, 50, (batch, count)),
    }
    need = rng.uniform(0.5, 20, (batch, count))
    return oracle.game(need, rng.uniform(0, 0.9, (batch, count)), delay, **{**defaults, **options})


@pytest.mark.parametrize("name", CASES)
def test_reference_equilibrium(name):
    case = CASES[name]
    g = build(case)
    eq = oracle.equilibrium(g)
    assert eq.single_peaked
    for got, want in ((eq.scale[0], case.scale), (eq.requests, case.requests), (eq.grants, case.grants)):
        if want is not None:
            np.testing.assert_allclose(got, want, rtol=2e-9)
    if case.reward is not None:
        np.testing.assert_allclose(oracle.payoff_of_grant(g, eq.grants), case.reward, rtol=1e-9)
    np.testing.assert_allclose(welfare(g, eq.grants), case.welfare, rtol=1e-11)
    assert oracle.nash_conv(g, eq.requests) <= 1e-15
    np.testing.assert_allclose(oracle.grants_of(g, eq.requests), eq.grants, rtol=1e-14)


def test_case_a_peaks_and_case_g_first_slice():
    np.testing.assert_allclose(oracle.peaks(build(CASES["A"]))[0], PEAKS_A, rtol=1e-9)
    g = build(CASES["G"], request_max=100.0)
    assert oracle.peaks(g)[0][0] == pytest.approx(75.78, abs=5e-3)
    g = build(CASES["G"])
    assert oracle.payoff_of_grant(g, oracle.equilibrium(g).grants)[0] == pytest.approx(0.1101051567, rel=1e-9)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.integer])
def test_reference_integer_optimum(name):
    best = integer_optimum(build(CASES[name]))
    value, grants = CASES[name].integer
    assert best.welfare == pytest.approx(value, rel=1e-11)
    np.testing.assert_array_equal(best.grants, grants)


@pytest.mark.parametrize("name", CASES)
def test_reference_fluid_optimum(name):
    case = CASES[name]
    best = fluid_optimum(build(case))
    assert best.welfare == pytest.approx(case.fluid, abs=6e-10)
    assert best.upper >= best.welfare
    assert best.grants.sum() <= 50 * (1 + 1e-12)
    if case.fluid_grants is not None:
        np.testing.assert_allclose(best.grants, case.fluid_grants, atol=6e-9, rtol=1e-8)


def test_case_h_starves_any_one_slice():
    np.testing.assert_allclose(np.sort(fluid_optimum(build(CASES["H"])).grants), [0, 10, 10, 10, 10, 10], atol=1e-9)
    g = build(CASES["H"])
    out = stage(g.need, g.load_share, np.full(6, 50.0), g.terms, capacity=50.0, xp=np)
    np.testing.assert_allclose(out.utility, 0.1588691049, rtol=1e-9)


def test_case_j_off_equilibrium():
    g = build(CASES["A"])
    b = np.array([15.0, 10, 5, 8, 7, 6])
    want = [14.70588235, 9.803921569, 4.901960784, 7.843137255, 6.862745098, 5.882352941]
    np.testing.assert_allclose(oracle.grants_of(g, b), want, rtol=1e-9)
    gains = [0.008042455075, 0.009167681117, 0.006016788392, 0.0004121660361, 0.0364396064, 0.00414584538]
    np.testing.assert_allclose(oracle.gains(g, b), gains, rtol=1e-9)
    assert oracle.nash_conv(g, b) == pytest.approx(0.0642245423973, rel=1e-11)
    g = build(CASES["D"])
    truthful = oracle.peaks(g)[0]
    assert welfare(g, oracle.grants_of(g, truthful)) == pytest.approx(3.27511768932, rel=1e-11)
    assert oracle.nash_conv(g, truthful) == pytest.approx(1.99480043936, rel=1e-11)
    full = np.full(6, 50.0)
    assert welfare(g, oracle.grants_of(g, full)) == pytest.approx(3.59211939554, rel=1e-11)
    assert oracle.nash_conv(g, full) == pytest.approx(0.0461490823206, rel=1e-10)


def test_price_of_anarchy_over_the_load():
    loads = np.array(list(POA))
    found = price_of_anarchy(oracle.game(loads[:, None] / 100 * PHI0, SHARE, DELAY))
    np.testing.assert_allclose(found, list(POA.values()), atol=6e-8)


@pytest.mark.parametrize("steepness", PEAK_RATIOS)
def test_peak_ratios(steepness):
    shares = np.array([0, 1 / 6, 0.5, 0.8])
    found, single = peak_ratio(Terms(shares > 0, steepness, 0.5, 0.5), shares)
    np.testing.assert_allclose(found, PEAK_RATIOS[steepness], atol=6e-11)
    assert np.all(single)


@pytest.mark.parametrize(
    ("steepness", "single", "low", "high"),
    [
        (2.681607, True, 1, 1), (2.681609, False, 1, 1), (3.218740, False, 1, 1), (3.218742, False, 1.4, 1.6),
        (3.999999, False, 1.4, 1.6), (4.0, True, 1.4, 1.6),
    ],
)  # fmt: skip
def test_two_peaked_region_of_rate_slices(steepness, single, low, high):
    ratio, found = peak_ratio(Terms(False, steepness, 0.5, 0.5), 0.0)
    assert bool(found) is single
    assert low <= ratio <= high


def test_risk_adjusted_peaks():
    terms = Terms(np.array([False, True]), 10.0, 0.5, 0.5)
    found = risk_adjusted_ratio(np.array(list(RISK))[:, None], terms, [0.0, 0.5])
    np.testing.assert_allclose(found, list(RISK.values()), atol=6e-4)


def test_monotone_variants_ask_for_everything_whatever_the_demand():
    for variant in ("paper", "served"):
        eq = oracle.equilibrium(oracle.game(PHI0, SHARE, DELAY, utilisation=variant))
        np.testing.assert_array_equal(eq.requests, 50.0)
        np.testing.assert_allclose(eq.grants, 8.333333333, rtol=1e-9)


def test_delay_slice_whose_payoff_never_falls_asks_the_cap():
    # Lambda < mu k (1 - c) s(k) s(-k): f rises for every w.
    g = oracle.game([5.0, 5.0], [0.1, 0.1], True, steepness=2.0, utilisation_weight=[0.001, 0.5])
    assert oracle.peaks(g)[0][0] == 50.0
    assert oracle.peaks(g)[0][1] < 50.0


def test_peaks_beat_a_grid_and_gains_beat_grid_search():
    rng = np.random.default_rng(1)
    g = random_game(rng)
    p, single = oracle.peaks(g)
    assert single.all()
    fractions = np.linspace(1e-3, 1, 4001)[:, None, None]
    best = oracle.payoff_of_grant(g, fractions * g.request_max).max(axis=0)
    assert np.all(oracle.payoff_of_grant(g, p) >= best - 1e-13)
    b = rng.uniform(0.1, 1, p.shape) * g.request_max
    low, high = oracle.reach(g, b)
    reachable = low + (high - low) * np.linspace(0, 1, 4001)[:, None, None]
    searched = oracle.payoff_of_grant(g, reachable).max(axis=0) - oracle.payoff_of_grant(g, oracle.grants_of(g, b))
    found = oracle.gains(g, b)
    assert np.all(found >= searched - 1e-13)
    assert np.all(found <= searched + 5e-3)


@pytest.mark.parametrize("rule", ["proportional", "uniform"])
def test_reach_is_what_requests_bring(rule):
    rng = np.random.default_rng(2)
    g = random_game(rng, batch=40, rule=rule)
    b = rng.uniform(0.1, 1, g.need.shape) * g.request_max
    low, high = oracle.reach(g, b)
    for m in range(b.shape[1]):
        for bound, want in ((0.1, low), (g.request_max[:, m], high)):
            moved = b.copy()
            moved[:, m] = bound
            np.testing.assert_allclose(oracle.grants_of(g, moved)[:, m], want[:, m], rtol=1e-12)


@pytest.mark.parametrize("rule", ["proportional", "uniform"])
def test_closed_form_is_the_limit_of_best_responses(rule):
    rng = np.random.default_rng(3)
    g = random_game(rng, batch=200, rule=rule, request_min=rng.uniform(0.1, 9, (200, 5)))
    eq = oracle.equilibrium(g)
    assert np.max(oracle.gains(g, eq.requests)) < 1e-14
    limit, _ = oracle.dynamics(g, rng.uniform(g.request_min, g.request_max), steps=5000)
    np.testing.assert_allclose(oracle.grants_of(g, limit), eq.grants, rtol=1e-9)


def test_best_response_is_optimal_request():
    rng = np.random.default_rng(4)
    g = random_game(rng, batch=50)
    b = rng.uniform(0.1, 1, g.need.shape) * g.request_max
    answer = oracle.best_response(g, b)
    held = oracle.payoff_of_grant(g, oracle.grants_of(g, b))
    for m in range(5):
        moved = b.copy()
        moved[:, m] = answer[:, m]
        gain = oracle.payoff_of_grant(g, oracle.grants_of(g, moved))[:, m] - held[:, m]
        np.testing.assert_allclose(gain, oracle.gains(g, b)[:, m], atol=1e-13)


def test_uniform_rule_is_strategy_proof_and_proportional_is_not():
    rng = np.random.default_rng(5)
    gained = {}
    for rule in ("proportional", "uniform"):
        g = random_game(rng, batch=300, rule=rule)
        p = np.clip(oracle.peaks(g)[0], 0.1, g.request_max)
        held = oracle.payoff_of_grant(g, oracle.grants_of(g, p))
        count = 0
        for m in range(5):
            lie = p.copy()
            lie[:, m] = rng.uniform(0.1, g.request_max[:, m])
            count += np.sum(oracle.payoff_of_grant(g, oracle.grants_of(g, lie))[:, m] > held[:, m] + 1e-12)
        gained[rule] = count
    assert gained["uniform"] == 0
    assert gained["proportional"] > 100


def test_uniform_and_proportional_agree_where_caps_are_equal():
    for factor in (0.2, 1.0, 1.3, 2.0):
        both = [
            oracle.equilibrium(oracle.game(factor * PHI0, SHARE, DELAY, rule=r)) for r in ("proportional", "uniform")
        ]
        np.testing.assert_allclose(both[0].grants, both[1].grants, rtol=1e-12)


def test_literal_game_of_case_k():
    g = oracle.game(PHI0, SHARE, DELAY, utilisation="paper", utility_weight=50.0)
    grants = np.full(6, 50 / 6)
    want = [2.149959058, 26.0039486, 51.01462042, 49.08346128, 50.46068203, 50.25296751]
    np.testing.assert_allclose(oracle.payoff_of_grant(g, grants), want, rtol=1e-9)
    assert welfare(g, grants) == pytest.approx(228.965638898, rel=1e-11)
    best = integer_optimum(g)
    assert best.welfare == pytest.approx(268.8235294, rel=1e-9)
    np.testing.assert_array_equal(best.grants, [14, 10, 5, 8, 7, 6])
    # n = 200 devices per slice: needs double, satisfactions add up to 200; anarchy on a grid of 0.25 RB
    heavy = oracle.game(2 * PHI0, SHARE, DELAY, utilisation="paper", utility_weight=100.0)
    quarter = oracle.game(8 * PHI0, SHARE, DELAY, utilisation="paper", utility_weight=100.0, capacity=200.0)
    ratio = integer_optimum(quarter).welfare / welfare(heavy, grants)
    assert ratio == pytest.approx(5.43, abs=5e-3)


@pytest.mark.parametrize("load", [0.2, 0.6, 1.0, 1.3, 1.6, 2.0])
def test_whole_rb_game_has_a_pure_equilibrium(load):
    g = oracle.game(load * PHI0, SHARE, DELAY)
    found = finite.equilibrium(g, np.arange(1.0, 51.0), quantum=1)
    np.testing.assert_array_equal(found.gains, 0.0)
    assert found.grants.sum() <= 50
    rounded = np.maximum(np.round(oracle.equilibrium(g).requests), 1)
    assert finite.regrets(g, np.arange(1.0, 51.0), rounded, 1).sum() <= 0.4509  # the specification rounds to .45


def test_finite_regret_by_hand():
    # Two equal rate slices, 10 RB each needed, 10 RB in all, requests of 5 or 10: the one who asks 10 against 5 gets
    # 6.67 instead of 5.
    g = oracle.game([10.0, 10.0], capacity=10.0)
    f = oracle.payoff_of_grant(g, np.array([5.0, 20 / 3]))
    np.testing.assert_allclose(finite.regrets(g, [5.0, 10.0], [5.0, 5.0]), [f[1] - f[0]] * 2, rtol=1e-12)


def test_speed_of_equilibria():
    rng = np.random.default_rng(6)

    def best_of(g, repeats=7):
        times = []
        for _ in range(repeats):
            start = time.process_time()
            oracle.equilibrium(g)
            times.append(time.process_time() - start)
        return min(times)

    need = rng.lognormal(size=10_000)
    wide = oracle.game(
        need * 60 / need.sum(), rng.uniform(0, 0.9, 10_000), rng.uniform(size=10_000) < 0.5, request_min=1e-4
    )
    assert best_of(wide) < 0.010
    many = oracle.game(rng.uniform(2, 18, (1024, 6)), rng.uniform(0.1, 0.9, (1024, 6)), DELAY)
    assert best_of(many) < 0.020


def test_certainty_equivalent_play_is_the_equilibrium_of_the_forecast():
    g = oracle.game(PHI0, SHARE, DELAY)
    forecast = 1.3 * PHI0
    eq = oracle.certainty_equivalent(g, forecast)
    np.testing.assert_allclose(eq.requests, oracle.equilibrium(g._replace(need=forecast)).requests)
    assert oracle.nash_conv(g, eq.requests) > 0.01


def test_risk_adjusted_play_beats_certainty_equivalence_under_noise():
    rng = np.random.default_rng(7)
    need = np.tile(0.5 * PHI0, (2000, 1))
    phi_hat = need * np.exp(-0.3 * rng.standard_normal(need.shape))
    g = oracle.game(need, SHARE, DELAY)
    bold = oracle.certainty_equivalent(g, phi_hat).grants
    careful = oracle.risk_adjusted(g, phi_hat, 0.3).grants
    assert welfare(g, careful).mean() > welfare(g, bold).mean() + 0.1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"need": [1.0, np.nan]}, "not finite"),
        ({"need": [1.0, 2.0], "load_share": 1.0, "is_delay": True}, r"\[0, 1\)"),
        ({"need": [1.0, 2.0], "utilisation": "other"}, "not offered"),
        ({"need": [1.0, 2.0], "rule": "auction"}, "not offered"),
        ({"need": [1.0, 2.0], "request_min": 30.0}, "exceed the capacity"),
        ({"need": 1.0}, "one need per slice"),
    ],
)
def test_bad_games_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        oracle.game(**kwargs)


def test_peak_of_expected_payoff_against_adaptive_search():
    rng = np.random.default_rng(8)
    z = rng.standard_normal(400_000)
    terms = Terms(False, 10.0, 0.5, 0.5)
    from marketenvs.markets.federated_slicing.stage import reward

    found = minimize_scalar(
        lambda r: -np.mean(reward(r * np.exp(-0.2 * z), 0.0, terms, "match", np)), bounds=(1, 2), method="bounded"
    ).x
    assert risk_adjusted_ratio(0.2, terms) == pytest.approx(found, abs=0.01)
