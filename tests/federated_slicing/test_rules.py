"""FederatedSlicing-v0 through the public surface: reference cases, options, timing, batching, array libraries, bad input."""

from __future__ import annotations

import time

import numpy as np
import pytest

from marketenvs import channel
from marketenvs.errors import InvalidAction, InvalidParameter, MarketEnvsError, NotOffered
from marketenvs.markets.federated_slicing import stage as one_slot
from marketenvs.markets.federated_slicing import traffic
from marketenvs.markets.federated_slicing.params import SlicingParams
from marketenvs.registry import make

from .reference import ID, PHI0, reduced

# -- demand ---------------------------------------------------------------------------------------------------------------


def test_generator_constants_and_statistics():
    np.testing.assert_allclose(traffic.HALF_CHORDS_M, [468.37485, 446.51428], atol=5e-6)
    assert pytest.approx(1.70263485, abs=5e-9) == traffic.MEAN_LOAD_FACTOR
    market = make(ID)
    # 400 short traces: mean needs within four standard errors of the specification's long-run means.
    state = market.reset(3, batch=400)
    needs = [state.nature.need]
    for _ in range(3):
        state, _ = market.step(state, {"slice": 8.0})
        needs.append(state.nature.need)
    mean = np.mean(needs, axis=0)
    error = 4 * mean.std(axis=0) / 20
    want = np.array([11.60, 8.78, 3.80, 6.68, 6.43, 4.91])
    assert np.all(np.abs(mean.mean(axis=0) - want) < error + 0.15)
    assert np.mean(needs, axis=0).sum(axis=1).mean() == pytest.approx(42.2, abs=2.5)


def test_pulses_move_die_and_leave_the_mean_alone():
    pulses = traffic.no_pulses(np.zeros((1, 2)), np)
    none, now = np.ones((1, 2)), np.zeros((1, 2))
    pulses = traffic.advance(pulses, now, now, 0.5 + now, np)
    np.testing.assert_allclose(pulses.position[0, :, 0], -180.0 + 45.0)
    ages = 0
    while np.any(pulses.position > -1e8):
        pulses = traffic.advance(pulses, none, now, now, np)
        ages += 1
    assert 13 <= ages <= 15
    assert np.all(pulses.size == 0)
    market = make(ID, n_devices=50)
    state = market.reset(1, batch=3000)
    factor = traffic.load_factor(state.history.devices.place, state.nature.pulses, np, True)
    assert factor.mean() == pytest.approx(1.0, abs=0.03)


def test_compact_and_dense_batches_give_the_same_loads():
    market = make(ID)
    state = market.reset(5, batch=8)
    place, pulses = state.history.devices.place, state.nature.pulses
    dense = traffic.load_factor(place, pulses, np, False)
    np.testing.assert_allclose(traffic.load_factor(place, pulses, np, True), dense, rtol=1e-13)


def test_device_data_predict_only_with_pulses():
    def gain(pulses):
        loads, _ = traffic.simulate(1500, 0, pulses=pulses)
        slice0, total = loads[:, 0], loads[:, 0].sum(-1)
        error = []
        for features in (total[:, None], slice0):
            x = np.concatenate([features[1:-1], features[:-2], np.ones((len(features) - 2, 1))], axis=1)
            y = total[2:]
            cut = 1000
            mean, sd = x[:cut].mean(0), x[:cut].std(0) + 1e-9
            x = np.concatenate([(x - mean) / sd, np.ones((len(x), 1))], axis=1)
            w = np.linalg.solve(x[:cut].T @ x[:cut] + 30.0 * np.eye(x.shape[1]), x[:cut].T @ y[:cut])
            error.append(np.sqrt(np.mean((x[cut:] @ w - y[cut:]) ** 2)))
        return error[1] / error[0]

    assert gain(True) < 0.75
    assert gain(False) > 0.9


def test_lagged_hides_and_revealed_shows_the_demand():
    lagged, revealed = make(ID), make(ID, demand_timing="revealed")
    state = lagged.reset(0)
    obs = [m.observe(m.reset(0), "request") for m in (lagged, revealed)]
    np.testing.assert_allclose(obs[0][0, :, 1] * 50, state.history.need[0], rtol=1e-12)
    np.testing.assert_allclose(obs[1][0, :, 1] * 50, state.nature.need[0], rtol=1e-12)
    assert lagged.information == "clairvoyant"
    assert revealed.information == "public"


def test_forecasts():
    for kind in ("persistence", "oracle", "noisy"):
        market = make(ID, forecast=kind, forecast_sd=0.2)
        state, _ = market.step(market.reset(0, batch=50), {"slice": 8.0})
        shown, real, last = state.nature.forecast, state.nature.need, state.history.need
        if kind == "noisy":
            error = np.log(shown / real)
            assert 0.15 < error.std() < 0.25
        else:
            np.testing.assert_array_equal(shown, real if kind == "oracle" else last)


def test_trace_and_external_forecast_stay_in_step():
    rng = np.random.default_rng(0)
    loads = rng.uniform(0.05, 0.4, (30, 6, 10))
    table = np.arange(30.0)[:, None] + np.zeros((1, 6))
    market = make(
        ID, n_devices=10, demand="trace", load_trace=loads, forecast="external", forecast_trace=table, fading="none"
    )
    state = market.reset(0, batch=4)
    for _ in range(35):
        row = state.nature.forecast[:, 0].astype(int)
        np.testing.assert_allclose(state.nature.load, loads[row])
        state, _ = market.step(state, {"slice": 8.0})


def test_lognormal_needs_have_the_stated_law():
    market = make(ID, preset="drawn", load=1.0, need_sd=0.5, need_rho=0.7)
    state = market.reset(0, batch=4000)
    before = state.nature.need
    state, _ = market.step(state, {"slice": 8.0})
    logs = [np.log(n / np.array(market.params.mean_need)) for n in (before, state.nature.need)]
    assert logs[0].std() == pytest.approx(0.5, abs=0.02)
    assert before.mean(axis=0) == pytest.approx(market.params.mean_need, rel=0.05)
    assert np.corrcoef(logs[0].ravel(), logs[1].ravel())[0, 1] == pytest.approx(0.7, abs=0.03)


# -- rules ----------------------------------------------------------------------------------------------------------------


def test_grants_add_up_and_whole_blocks_are_whole():
    rng = np.random.default_rng(0)
    for options in ({}, {"rule": "uniform"}, {"whole_blocks": True}):
        market = make(ID, **options)
        state = market.reset(0, batch=64)
        for scale in (1.0, 20.0, 50.0):
            state, outcome = market.step(state, {"slice": rng.uniform(0.1, scale, (64, 6))})
            grants, asked = outcome.metrics["grants"], outcome.metrics["requests"]
            assert np.all(grants.sum(-1) <= 50 + 1e-9)
            scarce = np.maximum(np.round(asked), 1).sum(-1) > 50 if market.params.whole_blocks else asked.sum(-1) > 50
            np.testing.assert_allclose(grants[scarce].sum(-1), 50)
            if market.params.whole_blocks:
                np.testing.assert_array_equal(grants, np.round(grants))


def test_largest_remainder_ties_go_to_the_lowest_index():
    grants = one_slot.largest_remainder(np.array([[50.0] * 6]), 50.0, np)
    np.testing.assert_array_equal(grants, [[9, 9, 8, 8, 8, 8]])


def test_relative_action_moves_the_grant_and_keeps_limits():
    market = make(ID, action_mode="relative")
    state = market.reset(0)
    low, high = market.bounds(state, "request")
    np.testing.assert_allclose([low[0, 0, 0], high[0, 0, 0]], [50 / 12, 12.5])
    eq = market.equilibrium(state)
    assert eq.certified.all()
    assert market.nash_conv(state, eq.actions).upper[0] < 1e-14
    for _ in range(12):
        state, outcome = market.step(state, {"slice": 0.0})
    assert np.all(outcome.metrics["requests"] >= 0.1)


def test_printed_game_freezes_whatever_split_it_starts_from():
    # All play a = +1: everyone asks half as much again, the proportional rule gives the old grants back. Demand plays no part.
    market = make(ID, preset="paper")
    state = market.reset(0)
    start = np.array([[5.0, 20, 5, 5, 5, 10]])
    state = state._replace(history=state.history._replace(grants=start))
    for _ in range(20):
        eq = market.equilibrium(state)
        assert eq.certified.all()
        assert "dominant" in eq.selection
        high = market.bounds(state, "request")[1]
        np.testing.assert_allclose(eq.actions["slice"], high)
        state, outcome = market.step(state, {"slice": high})
        np.testing.assert_allclose(outcome.metrics["grants"], start, rtol=1e-12)


def test_printed_rewards_by_hand():
    market = make(ID, preset="paper", fading="none", n_devices=3)
    state = market.reset(0)
    outcome = market.outcome(state, {"slice": 8.0})
    ratio = outcome.metrics["grants"] / state.nature.need
    np.testing.assert_allclose(outcome.metrics["utilisation"], ratio)
    # One bit/s above or below a requirement of 10^5 saturates equation 2; a delay of 1/(r - lambda) seconds makes equation 3 about a half.
    np.testing.assert_allclose(outcome.metrics["utility"][0, :3], np.where(ratio[0, :3] > 1, 3.0, 0.0), atol=1e-6)
    bound = np.array([0.1, 0.25, 0.02])
    np.testing.assert_allclose(outcome.metrics["utility"][0, 3:], 3 / (1 + np.exp(-bound)), rtol=1e-4)


def test_team_reward_pays_the_mean_and_its_oracle_is_the_optimum():
    market = make(ID, preset="team", load=1.3, need_sd=0.0, day_amplitude=0.0)
    state = market.reset(0)
    _, outcome = market.step(state, {"slice": 9.0})
    assert np.ptp(outcome.payoffs["slice"]) == 0
    assert outcome.payoffs["slice"][0, 0] == pytest.approx(outcome.metrics["welfare"][0] / 6)
    eq = market.equilibrium(state)
    assert eq.kind == "bound"
    assert eq.values["slice"].sum() == pytest.approx(market.social_optimum(state).value[0], rel=2e-3)


def test_equal_split_and_two_peaks_are_searched_and_never_certified():
    for options in ({"intra": "equal", "n_devices": 20}, {"steepness": 3.5}):
        market = make(ID, **options)
        state = market.reset(0, batch=3)
        eq = market.equilibrium(state)
        assert eq.kind == "estimate"
        assert not eq.certified.any()
        assert np.all(eq.epsilon < 0.02)
        assert np.all(market.nash_conv(state, eq.actions).lower < 0.1)


def test_grid_actions_have_their_own_oracle():
    for mode, levels in (("absolute", 16), ("relative", 11)):
        market = make(ID, action_mode=mode, action_levels=levels)
        state = market.reset(0, batch=6)
        eq = market.equilibrium(state)
        assert eq.kind == "exact"
        good = eq.certified
        assert good.mean() >= 0.5
        assert np.all(market.nash_conv(state, eq.actions).upper[good] < 1e-12)


def test_reverse_engineered_observation():
    market = make(ID)
    state, outcome = market.step(market.reset(0, batch=2), {"slice": 20.0})
    obs = market.observe(state, "request")
    assert obs.shape == (2, 6, 12)
    np.testing.assert_allclose(obs[..., 3], outcome.metrics["grants"] / 50)
    np.testing.assert_allclose(obs[..., 4], 0.4)
    np.testing.assert_allclose(obs[..., 5], 50 / 120)
    np.testing.assert_allclose(obs[..., 6], outcome.metrics["utilisation"])
    np.testing.assert_allclose(obs[0, :, 8], [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(10 ** obs[0, :, 9], [300, 200, 100, 160, 160, 120])
    np.testing.assert_allclose(obs[..., 10] ** 2 + obs[..., 11] ** 2, 1)
    assert np.all(make(ID, observe_congestion=False).observe(make(ID).reset(0), "request")[..., 5] == 1)
    assert make(ID, observation="full").observe(make(ID).reset(0), "request").shape == (1, 6, 22)
    paper = make(ID, observation="paper").observe(make(ID).reset(0), "request")
    np.testing.assert_allclose(paper[..., 0], paper[..., 1])


# -- the contract ---------------------------------------------------------------------------------------------------------


def test_a_market_does_not_depend_on_its_batch():
    market = make(ID)
    many, one = market.reset([7, 8, 9]), market.reset([8])
    for _ in range(3):
        many, a = market.step(many, {"slice": 9.0})
        one, b = market.step(one, {"slice": 9.0})
    np.testing.assert_array_equal(a.metrics["need"][1], b.metrics["need"][0])
    np.testing.assert_array_equal(many.nature.load[1], one.nature.load[0])


@pytest.mark.parametrize(
    "backend",
    ["array_api_strict", pytest.param("torch", marks=pytest.mark.slow), pytest.param("jax", marks=pytest.mark.slow)],
)
def test_array_libraries_agree(backend):
    if backend != "array_api_strict":
        pytest.importorskip(backend)
    for options in (
        {},
        {"preset": "paper"},
        {"whole_blocks": True},
        {"rule": "uniform", "observation": "full"},
        {"preset": "drawn"},
    ):
        markets = [make(ID, **options), make(ID, backend=backend, **options)]
        exact = markets[1].backend.dtype_name == "float64"
        results = []
        for market in markets:
            state = market.reset(0, batch=2)
            state, outcome = market.step(state, {"slice": 9.0})
            eq = market.equilibrium(state)
            obs = market.backend.numpy(market.observe(state, "request"))
            results.append(
                (
                    market.backend.numpy(outcome.metrics["need"]),
                    market.backend.numpy(outcome.payoffs["slice"]),
                    obs,
                    eq.epsilon,
                )
            )
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9 if exact else 2e-3, atol=1e-12 if exact else 2e-3)


@pytest.mark.slow
def test_it_compiles_under_jax():
    jax = pytest.importorskip("jax")
    market = make(ID, backend="jax", n_devices=20)
    state = market.reset(0, batch=2)
    action = {"request": market.backend.asarray(np.full((2, 6, 1), 9.0))}
    step = jax.jit(lambda s: market.transition(s, action))
    compiled, _ = step(state)
    eager, _ = market.transition(state, action)
    np.testing.assert_allclose(compiled.nature.need, eager.nature.need, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"request_min": 60.0}, "exceeds request_max"),
        ({"n_slices": 6, "request_min": 9.0}, "add up to 54 RB"),
        ({"whole_blocks": True, "rule": "uniform"}, "proportional"),
        ({"whole_blocks": True, "capacity": 49.5}, "whole number"),
        ({"demand": "lognormal_ar1", "intra": "equal"}, "needs devices"),
        ({"demand": "trace"}, "load_trace"),
        ({"demand": "trace", "load_trace": np.ones((5, 6, 3))}, r"\(T >= 2, 6, 100\)"),
        ({"forecast": "external"}, "forecast_trace"),
        ({"load_trace": np.ones((5, 6, 100))}, "not 'trace'"),
        ({"demand": "trace", "load_trace": np.full((5, 6, 100), np.nan)}, "finite"),
        ({"steepness": 60.0}, "steepness"),
        ({"rule": "auction"}, "not offered"),
        ({"utilisation": "best"}, "not offered"),
    ],
)
def test_bad_parameters_are_refused(options, message):
    with pytest.raises(InvalidParameter, match=message):
        make(ID, **options)


def test_bad_actions_are_refused_and_wild_ones_clipped():
    market = make(ID)
    state = market.reset(0)
    for bad in (np.nan, np.inf):
        with pytest.raises(InvalidAction, match="slice_0"):
            market.step(state, {"slice": np.array([[bad, 1, 1, 1, 1, 1]])})
    with pytest.raises(MarketEnvsError):
        market.step(state, {"slices": 8.0})
    _, outcome = market.step(state, {"slice": np.array([[1e6, -5, 1, 1, 1, 1]])})
    np.testing.assert_array_equal(outcome.metrics["requests"][0, :2], [50, 0.1])
    assert outcome.metrics["clipped"][0] == 2


def test_not_offered_names_what_is():
    market = make(ID, preset="paper")
    with pytest.raises(NotOffered, match="corrected"):
        market.social_optimum(market.reset(0))


@pytest.mark.parametrize("preset", list(SlicingParams.PRESETS))
@pytest.mark.filterwarnings("error")
def test_single_precision_neither_overflows_nor_strays(preset):
    outcomes = []
    for dtype in ("float64", "float32"):
        market = make(ID, preset=preset, dtype=dtype)
        state = market.reset(0, batch=3)
        for action in (0.1, 100.0, 8.0):
            state, outcome = market.step(state, {"slice": action})
        outcomes.append(outcome)
    for name in ("need", "grants", "ratio"):
        assert outcomes[1].metrics[name].dtype == np.float32
        np.testing.assert_allclose(outcomes[1].metrics[name], outcomes[0].metrics[name], rtol=3e-4)
    np.testing.assert_allclose(outcomes[1].payoffs["slice"], outcomes[0].payoffs["slice"], rtol=2e-3, atol=1e-3)


def test_single_precision_is_not_slower():
    """Subnormal exponentials of far work batches once made it 2.3 times slower than double precision."""
    action = {"slice": np.full((64, 6, 1), 10.0)}
    least = {}
    for dtype in ("float64", "float32"):
        market = make(ID, dtype=dtype)
        state, _ = market.step(market.reset(0, batch=64), action)
        times = []
        for _ in range(12):
            start = time.process_time()
            state, _ = market.step(state, action)
            times.append(time.process_time() - start)
        least[dtype] = min(times)
    assert least["float32"] < 0.9 * least["float64"]


def test_speed_of_one_step():
    market = make(ID)

    def best(batch, repeats, steps):
        action = {"slice": np.full((batch, 6, 1), 10.0)}
        times = []
        for _ in range(repeats):
            state = market.reset(0, batch=batch)
            start = time.process_time()
            for _ in range(steps):
                state, _ = market.step(state, action)
            times.append((time.process_time() - start) / steps)
        return min(times)

    assert best(1, 5, 30) < 1e-3
    assert 16 * 600 / best(16, 6, 10) > 3e6


def test_radio_of_the_default_and_the_realistic_cell():
    state = make(ID).reset(0, batch=120)
    rate = state.nature.efficiency.ravel()
    faded = 10 * np.log10(2 ** (rate / 0.18) - 1)
    np.testing.assert_allclose(np.percentile(faded, [5, 50, 95]), [26.2, 43.9, 61.1], atol=0.5)
    assert rate.mean() == pytest.approx(2.621, abs=0.02)
    assert 1 / np.mean(1 / rate) == pytest.approx(2.410, abs=0.02)
    assert rate.min() >= 0.018
    real = make(ID, preset="realistic").reset(0, batch=120).nature.efficiency
    assert np.median(real) == pytest.approx(1.29, abs=0.02)
    assert real.max() <= 7.4063 * 0.18 * (1 + 1e-12)


def test_clairvoyant_satisfaction_over_the_load_is_the_specifications():
    # Section 7, E3/E4: clairvoyant equilibrium, share of satisfied devices, welfare and used blocks.
    for users, welfare, match, satisfied, used in (
        (20, 5.244, 0.819, 1.0, 0.139),
        (100, 4.931, 0.818, 0.884, 0.774),
        (200, 2.568, 0.671, 0.155, 0.979),
    ):
        market = make(ID, n_devices=users)
        state = market.reset(1, batch=150)
        metrics = market.outcome(state, market.equilibrium(state).actions).metrics
        error = 4 * metrics["welfare"].std() / np.sqrt(150) + 0.06
        assert metrics["welfare"].mean() == pytest.approx(welfare, abs=error)
        assert metrics["utilisation_match"].mean() == pytest.approx(match, abs=0.03)
        assert metrics["satisfied"].mean() == pytest.approx(satisfied, abs=0.12)
        assert metrics["used"].mean() == pytest.approx(used, abs=0.06)


# -- options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "torch", "array_api_strict"])
def test_measured_gains_give_the_rates_slot_after_slot(backend, tmp_path):
    pytest.importorskip(backend)
    rng = np.random.default_rng(0)
    gains_db = rng.uniform(-130, -60, (6, 3, 5))  # 3 slices of 2 devices, 3 PRBs, 5 slots
    np.savez(tmp_path / "gains.npz", gain_db=gains_db)
    gains = channel.load_trace(tmp_path / "gains.npz")
    options = {"n_slices": 3, "n_devices": 2, "channel": "trace", "gains": gains, "backend": backend}
    market = make(ID, **options)
    # 30 dBm over 50 RBs, -174 dBm/Hz over 180 kHz; mean over the PRBs; at least 0.1 bit/s/Hz.
    snr_db = 30 - 10 * np.log10(50) + gains_db + 174 - 10 * np.log10(180e3)
    want = 0.18 * np.maximum(np.log2(1 + 10 ** (snr_db / 10)), 0.1).mean(axis=1)
    state = market.reset(0, batch=4)
    seen = []
    for _ in range(6):
        rates = market.backend.numpy(state.nature.efficiency).reshape(4, 6)
        slot = np.argmin(np.abs(rates[:, None] - want.T[None]).sum(axis=2), axis=1)
        np.testing.assert_allclose(rates, want.T[slot], rtol=1e-9)
        seen.append(slot)
        state, _ = market.step(state, {"slice": 8.0})
    np.testing.assert_array_equal(np.diff(seen, axis=0) % 5, 1)
    assert market.equilibrium(state).certified.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gains": np.ones((600, 1, 2))}, "not 'trace'"),
        ({"channel": "trace"}, r"600 users"),
        ({"channel": "trace", "gains": np.ones((6, 1, 2))}, "one row per device"),
        ({"channel": "trace", "gains": np.full((600, 1, 2), np.inf)}, "finite"),
        ({"channel": "trace", "gains": np.ones((600, 1, 2)), "demand": "lognormal_ar1"}, "needs devices"),
        ({"channel": "tarce"}, "trace"),
    ],
)
def test_gains_are_checked(options, message):
    with pytest.raises(InvalidParameter, match=message):
        make(ID, **options)


def test_what_actions_mean():
    """Box(-1, 1): geometric, linear, or relative to the last grant; grids are even steps of the same."""
    share = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    for mode, want in (
        ("absolute", 0.1 * 500 ** ((share + 1) / 2)),
        ("absolute_linear", 0.1 + 49.9 * (share + 1) / 2),
        ("relative", 50 / 6 * (1 + 0.5 * share)),
    ):
        for levels in (None, 5):
            market = make(ID, action_mode=mode, action_levels=levels)
            state = market.reset(0)
            low, high = market.bounds(state, "request")
            codec = market.stages[0].codec
            for k, value in enumerate(want):
                action = np.full((1, 6), k) if levels else np.full((1, 6, 1), share[k])
                asked = codec.decode(np, action, low, high)
                np.testing.assert_allclose(asked, value, rtol=1e-12)


def test_utilisation_variants_by_hand():
    ratio = np.array([0.25, 1.0, 4.0])
    for variant, want in (
        ("match", [0.25, 1, 0.25]),
        ("served", [0.25, 1, 1]),
        ("efficiency", [1, 1, 0.25]),
        ("paper", [0.25, 1, 4]),
    ):
        np.testing.assert_allclose(one_slot.utilisation(ratio, variant, np), want)
        market = reduced(PHI0, utilisation=variant)
        outcome = market.outcome(market.reset(0), {"slice": 50.0})
        np.testing.assert_allclose(outcome.metrics["utilisation"], outcome.metrics[f"utilisation_{variant}"])
        terms = outcome.metrics["utilisation"] + outcome.metrics["utility"]
        np.testing.assert_allclose(outcome.payoffs["slice"], 0.5 * terms)


def test_equal_split_satisfies_fewer_devices_at_the_need():
    """Section 2: with w/N each, U at x = 1 is 0.60 for equal demands at N = 100 and 0.73 for heterogeneous ones."""
    rng = np.random.default_rng(0)
    radio = channel.radio_preset("federated")
    distance = np.sqrt(rng.uniform(10**2, 500**2, (400, 1, 100)))
    snr = radio.sinr(radio.loss_db(distance, rng.standard_normal(distance.shape)), rng.exponential(size=distance.shape))
    efficiency = radio.spectral_efficiency(snr) * 0.18
    sla = one_slot.SlaTerms(np.array([False]), np.array([0.0]))
    load = np.full(distance.shape, 0.1)
    need, _ = one_slot.need(load, efficiency, sla, np)
    utility, satisfied = one_slot.equal_split_utility(need, load, efficiency, sla, np.array([10.0]), np)
    assert utility.mean() == pytest.approx(0.60, abs=0.02)
    assert 0.3 < satisfied.mean() < 0.9
    # Heterogeneous demands: the generator's own, in the three rate slices.
    market = make(ID, intra="equal")
    nature = market.reset(0, batch=100).nature
    sla = one_slot.SlaTerms(np.zeros(6, bool), np.zeros(6))
    steepness = np.full(6, 10.0)
    utility, _ = one_slot.equal_split_utility(nature.need, nature.load, nature.efficiency, sla, steepness, np)
    assert utility[:, :3].mean() == pytest.approx(0.73, abs=0.03)


@pytest.mark.parametrize("users", range(20, 201, 20))
def test_every_load_of_the_sweep_plays_and_is_certified(users):
    market = make(ID, n_devices=users)
    state = market.reset(0, batch=8)
    eq = market.equilibrium(state)
    assert eq.certified.all()
    _, outcome = market.step(state, eq.actions)
    # Needs grow with the users, whatever is granted.
    assert outcome.metrics["need"].sum(1).mean() == pytest.approx(42.2 * users / 100, rel=0.35)
