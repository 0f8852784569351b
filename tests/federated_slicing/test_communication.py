"""Byte counts of section 6 to the byte, and the reservation scheduler against its fluid limit."""

from __future__ import annotations

import numpy as np
import pytest
from marketenvs_baselines.communication import Scheme
from marketenvs_baselines.netshare import fluid, simulate

from marketenvs.errors import InvalidParameter
from marketenvs.markets.federated_slicing import oracle

from .reference import DELAY, PHI0, SHARE


def test_network_sizes():
    two, twelve = Scheme(observation=2), Scheme(observation=12)
    assert (two.actor, two.critic, two.actor + two.critic) == (21_057, 21_121, 42_178)
    assert (twelve.actor, twelve.critic, twelve.actor + twelve.critic) == (21_697, 21_761, 43_458)


def test_bytes_per_slot():
    s = Scheme()
    assert [round(s.federated(p)) for p in (1, 10, 100, 1000)] == [2_024_544, 202_454, 20_245, 2_025]
    assert s.raw_transitions() == 144
    assert round(s.raw_transitions(100)) == 5_198
    assert s.raw_device_data() == 4_800
    assert s.requests_and_grants() == 48
    assert s.central_execution() == 72
    assert round(s.break_even()) == 14_059
    assert round(s.break_even(refresh=True)) == 10_550
    assert round(s.break_even("devices")) == 422
    assert s.federated(100) / s.raw_transitions() == pytest.approx(141, abs=0.5)
    assert s.federated(100) / s.raw_device_data() == pytest.approx(4.2, abs=0.05)


def test_fluid_limit():
    need = 1.3 * PHI0
    np.testing.assert_allclose(fluid(need, np.ones(6)), [10.505, 10.505, 5.33, 8.58, 8.58, 6.5])
    np.testing.assert_allclose(fluid(need, [0.3, 0.2, 0.1, 0.15, 0.15, 0.1]), [15, 10, 5, 7.5, 7.5, 5])
    np.testing.assert_allclose(fluid(0.5 * need, np.ones(6)), 0.5 * need)


def test_equal_shares_capped_at_the_peaks_are_the_nash_allocation():
    for load in (0.2, 1.0, 1.3, 2.0):
        g = oracle.game(load * PHI0, SHARE, DELAY)
        np.testing.assert_allclose(fluid(oracle.peaks(g)[0], np.ones(6)), oracle.equilibrium(g).grants, rtol=1e-9)


@pytest.mark.parametrize(
    ("share", "want"),
    [
        (np.full(6, 1 / 6), [10.505, 10.505, 5.33, 8.58, 8.58, 6.5]),
        ([0.3, 0.2, 0.1, 0.15, 0.15, 0.1], [15, 10, 5, 7.5, 7.5, 5]),
    ],
)
def test_scheduler_reaches_its_fluid_limit(share, want):
    np.testing.assert_allclose(simulate(1.3 * PHI0, share, slots=8_000), want, atol=0.15)


def test_bad_reservations_are_refused():
    with pytest.raises(InvalidParameter, match="add up to 1"):
        simulate([1.0, 1.0], [0.5, 0.6], slots=10)
    with pytest.raises(InvalidParameter, match="kind"):
        simulate([1.0, 1.0], [0.5, 0.5], kind="time", slots=10)
