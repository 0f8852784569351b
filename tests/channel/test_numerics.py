"""Accuracy and safety at both ends: exponential integral, ergodic rate, logistic, queue, random laws."""

import math

import mpmath
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from marketenvs import channel


def reference(x: float) -> float:
    """exp(x) E1(x) to 30 digits: mpmath's E1, or its integral where E1 underflows every working range."""
    with mpmath.workdps(40):
        x = mpmath.mpf(x)
        if x < 700:
            return float(mpmath.exp(x) * mpmath.e1(x))
        # alternating asymptotic series, truncated before its smallest term: below 1e-40 from x = 700 on
        return float(mpmath.fsum((-1) ** k * mpmath.factorial(k) / x ** (k + 1) for k in range(40)))


class TestScaledExponentialIntegral:
    def test_against_mpmath(self):
        x = np.concatenate([np.geomspace(1e-8, 1e8, 321), np.linspace(1.5, 4.0, 101), [2.4999999, 2.5, 2.5000001]])
        expected = np.array([reference(value) for value in x])
        np.testing.assert_allclose(channel.scaled_expint(x), expected, rtol=1e-13)

    def test_against_scipy(self):
        x = np.geomspace(1e-8, 600.0, 4001)
        np.testing.assert_allclose(channel.scaled_expint(x), np.exp(x) * scipy.special.exp1(x), rtol=1e-12)

    def test_single_precision(self):
        x = np.geomspace(1e-8, 1e8, 2001).astype(np.float32)
        got = channel.scaled_expint(x)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, channel.scaled_expint(x.astype(np.float64)), rtol=1e-5)

    def test_monotone_and_bracketed(self):
        # 1/(x+1) < e^x E1(x) < 1/x: exact bounds, over everything a float can hold
        x = np.geomspace(1e-300, 1e300, 20_001)
        got = channel.scaled_expint(x)
        assert np.all(np.isfinite(got))
        assert np.all(np.diff(got) < 0)
        assert np.all(got <= 1.0 / x)
        assert np.all(got >= (1.0 - 1e-15) / (x + 1.0))
        assert channel.scaled_expint(math.inf) == 0.0


class TestErgodicRate:
    @pytest.mark.parametrize("snr_db", [-80, -60, -40, -28.5, -28, -10, 0, 10, 30, 60, 80])
    def test_against_mpmath(self, snr_db):
        ratio = 10.0 ** (snr_db / 10.0)
        expected = reference(1.0 / ratio) / math.log(2.0)
        assert channel.spectral_efficiency(ratio, "rayleigh-ergodic") == pytest.approx(expected, rel=1e-12)

    def test_low_snr_limit_and_silence(self):
        ratio = np.array([0.0, 1e-300, 1e-30, 1e-12])
        with np.errstate(all="raise", under="ignore"):
            efficiency = channel.spectral_efficiency(ratio, "rayleigh-ergodic")
        np.testing.assert_allclose(efficiency, ratio / math.log(2.0), rtol=1e-11)

    def test_is_the_mean_over_fading(self):
        nodes, weights = np.polynomial.laguerre.laggauss(80)
        for ratio in (0.05, 0.3, 1.0):
            mean = np.sum(weights * channel.spectral_efficiency(ratio * nodes))
            assert channel.spectral_efficiency(ratio, "rayleigh-ergodic") == pytest.approx(mean, rel=1e-6)

    @pytest.mark.parametrize("ratio", [1e-4, 0.1, 3.0, 100.0, 1e5, 1e9])
    def test_capped_mean(self, ratio):
        """E[min(log2(1 + s g), cap)] by quadrature, not min(E[log2(1 + s g)], cap)."""
        cap = 7.40625
        with mpmath.workdps(25):
            knee = (mpmath.mpf(2) ** cap - 1) / ratio
            below = mpmath.quad(
                lambda g: mpmath.exp(-g) * mpmath.log(1 + ratio * g, 2),
                [knee * share for share in (0, 0.01, 0.1, 0.5, 1)] if knee < 60 else [0, 0.1, 1, 5, 20, 60],
            )
            expected = float(below + cap * mpmath.exp(-knee))
        got = channel.spectral_efficiency(ratio, "rayleigh-ergodic", cap)
        assert got == pytest.approx(expected, rel=1e-11)
        assert got < min(channel.spectral_efficiency(ratio, "rayleigh-ergodic"), cap) * (1 + 1e-14)

    def test_cap_gap_floor(self):
        ratio = np.array([0.0, 1.0, 1e9])
        np.testing.assert_allclose(channel.spectral_efficiency(ratio, cap=7.40625), [0.0, 1.0, 7.40625], rtol=1e-14)
        np.testing.assert_allclose(channel.spectral_efficiency(ratio, floor=0.1)[:2], [0.1, 1.0], rtol=1e-14)
        assert channel.spectral_efficiency(10.0, gap_db=10.0) == pytest.approx(1.0, rel=1e-14)
        assert channel.spectral_efficiency(10.0, "rayleigh-ergodic", gap_db=10.0) == pytest.approx(
            channel.spectral_efficiency(1.0, "rayleigh-ergodic"), rel=1e-13
        )

    def test_tiny_sinr_keeps_its_digits(self):
        assert channel.spectral_efficiency(1e-14) == pytest.approx(1e-14 / math.log(2.0), rel=1e-13)


class TestLogisticAndQueue:
    def test_logistic_against_scipy(self):
        x = np.concatenate([np.linspace(-745.0, 745.0, 2001), [-math.inf, math.inf, -1e308, 1e308, 0.0]])
        with np.errstate(all="raise", under="ignore"):
            got = channel.logistic(x)
        np.testing.assert_allclose(got, scipy.special.expit(x), rtol=1e-14, atol=1e-307)  # scipy drops subnormals

    @settings(deadline=None, derandomize=True)
    @given(
        value=st.floats(0.0, 1e300),
        target=st.floats(1e-3, 1e6),
        steepness=st.floats(0.1, 50.0),
        kind=st.sampled_from(["rate", "delay"]),
    )
    def test_satisfaction_is_a_share(self, value, target, steepness, kind):
        share = float(channel.qos_satisfaction(value, target, steepness, kind))
        assert 0.0 <= share <= 1.0
        more = float(channel.qos_satisfaction(value * 1.5 + 1e-3, target, steepness, kind))
        assert more >= share if kind == "rate" else more <= share

    @settings(deadline=None, derandomize=True)
    @given(
        rate=st.just(0.0) | st.floats(1e-6, 1e9),
        packet=st.floats(1.0, 1e6),
        arrivals=st.just(0.0) | st.floats(1e-6, 1e6),
    )
    def test_delay_is_positive_or_infinite(self, rate, packet, arrivals):
        with np.errstate(all="raise", under="ignore"):
            delay = float(channel.mm1_delay_ms(rate, packet, arrivals))
        assert delay > 0.0
        assert math.isinf(delay) == (rate * 1e3 / packet <= arrivals)


class TestRandomLaws:
    def test_rayleigh_power(self):
        u = (np.arange(100_000) + 0.5) / 100_000
        g = channel.rayleigh_power(u)
        assert g.mean() == pytest.approx(1.0, abs=1e-4)
        assert (g**2).mean() == pytest.approx(2.0, abs=2e-3)
        assert channel.rayleigh_power(0.0) == 0.0
        assert np.isfinite(channel.rayleigh_power(1.0 - 2.0**-53))
        assert channel.rayleigh_power(1e-20) == 1e-20

    def test_shadowing_stays_stationary(self):
        rng = np.random.default_rng(6)
        correlation = channel.shadowing_correlation(25.0, 50.0)
        assert correlation == pytest.approx(math.exp(-0.5), rel=1e-15)
        first = x = channel.shadowing_db(rng.standard_normal(100_000), 8.0)
        for _ in range(3):
            previous, x = x, channel.next_shadowing_db(x, rng.standard_normal(x.size), 8.0, correlation)
        assert x.std() == pytest.approx(8.0, rel=0.01)
        assert np.corrcoef(previous, x)[0, 1] == pytest.approx(correlation, abs=0.01)
        assert np.corrcoef(first, x)[0, 1] == pytest.approx(correlation**3, abs=0.01)
        frozen = channel.next_shadowing_db(first, rng.standard_normal(first.size), 8.0, 1.0)
        np.testing.assert_array_equal(frozen, first)

    def test_drawn_line_of_sight_mixes_both_laws(self):
        radio = channel.radio_preset("iiot", scenario="inf_dl", los="prob", frequency_mhz=3500.0, shadowing_std_db=None)
        d, normal = np.full(4, 100.0), np.array([0.0, 0.0, 1.0, 1.0])
        heard = channel.los_probability(100.0, "inf_dl")
        loss = radio.loss_db(d, normal, heard + np.array([-1e-9, 1e-9, -1e-9, 1e-9]))
        los = channel.path_loss_db(100.0, 3500.0, "inf_los", bs_height_m=1.5)
        nlos = channel.path_loss_db(100.0, 3500.0, "inf_dl")
        np.testing.assert_allclose(loss, [los, nlos, los - 4.0, nlos - 7.2], rtol=1e-14)


class TestTenantRate:
    def test_harmonic_and_arithmetic(self):
        efficiency = np.array([[1.0, 4.0, 99.0], [2.0, 0.0, 5.0], [1.0, 1.0, 1.0]])
        real = np.array([[True, True, False], [True, True, True], [False, False, False]])
        rate = channel.tenant_rate_kbps_per_prb(efficiency, 200e3, active=real)
        np.testing.assert_allclose(rate, [200 * 1.6, 0.0, 0.0], rtol=1e-14)
        rate = channel.tenant_rate_kbps_per_prb(efficiency, 200e3, "equal_airtime", active=real)
        np.testing.assert_allclose(rate, [200 * 2.5, 200 * 7 / 3, 0.0], rtol=1e-14)

    def test_equal_rate_really_equalises(self):
        efficiency = np.random.default_rng(7).uniform(0.5, 8.0, 50)
        rate = channel.tenant_rate_kbps_per_prb(efficiency, 180e3) / 50  # of each user, on one PRB
        share = rate / (efficiency * 180.0)
        assert share.sum() == pytest.approx(1.0, rel=1e-13)
