"""Every reference case of the specification (section 5, A-L) through the market's public surface, one table of checks.

`test_oracle` and `test_optimum` put the same numbers to the solvers alone.
"""

from __future__ import annotations

import numpy as np
import pytest

from marketenvs import channel
from marketenvs.markets.federated_slicing import stage as one_slot

from .reference import CASES, PHI0, reduced


def game(name):
    """Equilibrium, requests, grants, rewards, welfare, whole-block and fluid optimum of one game."""
    case = CASES[name]
    market = reduced(case.need, case.load_share, case.is_delay, **case.options)
    state = market.reset(0)
    eq = market.equilibrium(state)
    assert eq.certified.all()
    assert eq.kind == "exact"
    assert eq.values["slice"].sum() == pytest.approx(case.welfare, rel=1e-11)
    if case.requests is not None:
        np.testing.assert_allclose(eq.actions["slice"][0, :, 0], case.requests, rtol=2e-9)
    _, outcome = market.step(state, eq.actions)
    if case.grants is not None:
        np.testing.assert_allclose(outcome.metrics["grants"][0], case.grants, rtol=2e-9)
    if case.reward is not None:
        np.testing.assert_allclose(outcome.payoffs["slice"][0], case.reward, rtol=1e-9)
    assert market.nash_conv(state, eq.actions).upper[0] <= 1e-15
    known = market.analysis(state)
    if case.scale is not None:
        assert known["scale"][0] == pytest.approx(case.scale, rel=1e-10)
    assert known["price_of_anarchy"][0] == pytest.approx(case.fluid / case.welfare, rel=1e-9)
    best = market.social_optimum(state)
    assert best.value[0] == pytest.approx(case.fluid, abs=6e-10)
    if case.fluid_grants is not None:
        np.testing.assert_allclose(best.decisions["request"][0, :, 0], case.fluid_grants, atol=6e-9, rtol=1e-8)
    if case.integer:
        whole = reduced(case.need, case.load_share, case.is_delay, whole_blocks=True, **case.options)
        best = whole.social_optimum(whole.reset(0))
        assert best.value[0] == pytest.approx(case.integer[0], rel=1e-11)
        np.testing.assert_array_equal(best.decisions["request"][0, :, 0], case.integer[1])


def case_j():
    """Off the equilibrium: exact gains, and truthful requests that are worse than the equilibrium."""
    market = reduced(PHI0)
    state = market.reset(0)
    profile = {"slice": np.array([[15.0, 10, 5, 8, 7, 6]])}
    found = market.nash_conv(state, profile)
    assert found.upper[0] == pytest.approx(0.0642245423973, rel=1e-11)
    want = [0.008042455075, 0.009167681117, 0.006016788392, 0.0004121660361, 0.0364396064, 0.00414584538]
    np.testing.assert_allclose(found.gains["slice"][0], want, rtol=1e-9)
    want = [14.70588235, 9.803921569, 4.901960784, 7.843137255, 6.862745098, 5.882352941]
    np.testing.assert_allclose(market.outcome(state, profile).metrics["grants"][0], want, rtol=1e-9)
    market = reduced(1.3 * PHI0)
    state = market.reset(0)
    truthful = market.analysis(state)["peaks"]
    assert market.outcome(state, {"slice": truthful}).metrics["welfare"][0] == pytest.approx(3.27511768932, rel=1e-11)
    assert market.nash_conv(state, {"slice": truthful}).upper[0] == pytest.approx(1.99480043936, rel=1e-11)
    assert market.outcome(state, {"slice": 50.0}).metrics["welfare"][0] == pytest.approx(3.59211939554, rel=1e-11)
    assert market.nash_conv(state, {"slice": 50.0}).upper[0] == pytest.approx(0.0461490823206, rel=1e-10)


def case_k():
    """The reward as printed: everybody asks the most."""
    market = reduced(PHI0, utilisation="paper", satisfaction="sum")
    state = market.reset(0)
    want = [2.149959058, 26.0039486, 51.01462042, 49.08346128, 50.46068203, 50.25296751]
    eq = market.equilibrium(state)
    np.testing.assert_allclose(eq.values["slice"][0], want, rtol=1e-9)
    assert eq.values["slice"].sum() == pytest.approx(228.965638898, rel=1e-11)
    np.testing.assert_array_equal(eq.actions["slice"], 50.0)
    whole = reduced(PHI0, utilisation="paper", satisfaction="sum", whole_blocks=True)
    assert whole.social_optimum(whole.reset(0)).value[0] == pytest.approx(268.8235294, rel=1e-9)


def case_l():
    """From distance, shadowing and fading to needs, equilibrium and device rates."""
    radio = channel.radio_preset("federated")
    rows = [
        (100, 0, 1, 3.347725347), (400, -3, 0.5, 2.268382346), (250, 2, 1, 2.99142257), (500, 0, 1, 2.511846935),
        (10, 0, 1, 4.543618814), (353.5, 4.5, 0.1, 2.363067141),
    ]  # fmt: skip
    distance, shadow, fading, want = np.array(rows).T
    # A shadowing of s dB is s/8 standard deviations.
    snr = radio.sinr(radio.loss_db(distance, shadow / 8.0), fading)
    efficiency = radio.spectral_efficiency(snr) * 0.18
    np.testing.assert_allclose(efficiency, want, rtol=1e-9)
    assert channel.path_loss_db(500.0, 2000.0) == pytest.approx(92.45, abs=5e-6)
    e = np.array([[efficiency[0], efficiency[1]], [efficiency[2], efficiency[3]]])
    load = np.array([[30.0, 20.0], [8.0, 8.0]])
    sla = one_slot.SlaTerms(np.array([False, True]), np.array([0.0, 8.0]))
    need, share = one_slot.need(load, e, sla, np)
    np.testing.assert_allclose(need, [17.7781644, 11.71844071], rtol=1e-9)
    np.testing.assert_allclose(share, [0, 0.5], rtol=1e-12)
    market = reduced(need, share, [False, True], capacity=25.0, request_max=25.0)
    state = market.reset(0)
    eq = market.equilibrium(state)
    np.testing.assert_allclose(eq.actions["slice"][0, :, 0], [25, 25])
    np.testing.assert_allclose(eq.values["slice"][0], [0.3759801913, 0.8509334121], rtol=1e-9)
    rates, blocks = one_slot.device_rates(np.array([12.5, 12.5]), need, share, load, e, sla, np)
    np.testing.assert_allclose(rates, [[21.09329128, 14.06219419], [17.06711712, 17.06711712]], rtol=1e-9)
    np.testing.assert_allclose(blocks[1], [5.705351456, 6.794648544], rtol=1e-9)
    np.testing.assert_allclose(8.0 / (rates[1] - 8.0), 0.8823091061, rtol=1e-9)
    gains = market.nash_conv(state, {"slice": np.array([[20.0, 20.0]])}).gains["slice"][0]
    np.testing.assert_allclose(gains, [0.0650679207, 0.0397961394], rtol=1e-8)


CHECKS = {name: (lambda name=name: game(name)) for name in "ABCDEFGHI"} | {"J": case_j, "K": case_k, "L": case_l}


def test_no_case_is_missing():
    assert "".join(CHECKS) == "ABCDEFGHIJKL"
    assert set(CASES) == set("ABCDEFGHI")


@pytest.mark.parametrize("case", CHECKS)
def test_case(case):
    CHECKS[case]()
