"""Every number of the channel section of coalition trading, case L of federated slicing, two-tier bidding's radio."""

import math

import numpy as np
import pytest

from marketenvs import channel


def printed(value: float, text: str) -> None:
    """Assert that `value` rounds to the digits printed in the spec."""
    decimals = len(text.partition(".")[2])
    assert abs(float(value) - float(text)) <= 0.5000001 * 10.0**-decimals, (float(value), text)


class TestGrid:
    @pytest.mark.parametrize(("bandwidth_hz", "expected"), [(200e3, "-120.98970004"), (180e3, "-121.44727495")])
    def test_noise(self, bandwidth_hz, expected):
        printed(channel.noise_dbm(bandwidth_hz), expected)

    def test_equal_power_split(self):
        printed(channel.radio_preset("iiot").prb_power_dbm, "10.0000")
        printed(channel.radio_preset("federated").prb_power_dbm, "13.0103")

    def test_grids_of_the_papers(self):
        iiot, federated, two_tier = map(channel.radio_preset, ("iiot", "federated", "two_tier"))
        assert (iiot.n_prb, iiot.prb_bandwidth_hz, iiot.bandwidth_hz) == (100, 200e3, 20e6)
        assert (federated.n_prb, federated.prb_bandwidth_hz, federated.cell_size_m) == (50, 180e3, 500.0)
        assert (two_tier.n_prb, two_tier.bandwidth_hz, two_tier.power_dbm) == (50, 10e6, 46.0)


class TestDrop:
    """Means by quadrature: the drops map the uniforms, Gauss-Legendre nodes stand for them."""

    @staticmethod
    def nodes(count=60):
        x, w = np.polynomial.legendre.leggauss(count)
        return (x + 1.0) / 2.0, w / 2.0

    def test_square(self):
        x, w = self.nodes()
        # one eighth of the square as a triangle, s^2 = share of the half side and t = the slope, smooth at the centre
        s, t = np.meshgrid(x, x, indexing="ij")
        weight = np.outer(w * 4.0 * x**3, w)
        u = np.stack([0.5 + 0.5 * s**2, 0.5 + 0.5 * s**2 * t], axis=-1)
        distance = channel.distance_m(channel.drop_square(u, 500.0))
        assert np.sum(weight) == pytest.approx(1.0, rel=1e-14)
        printed(np.sum(weight * distance), "191.2989291161")
        assert np.sum(weight * distance) == pytest.approx(500 / 6 * (math.sqrt(2) + math.asinh(1)), rel=1e-13)
        printed(np.sum(weight * np.log10(distance)), "2.2381073721")
        printed(np.sum(weight * channel.path_loss_db(distance, 2000.0)), "83.2327")

    def test_disc(self):
        x, w = self.nodes()
        u = np.stack([x**4, np.full_like(x, 0.3)], axis=-1)  # x^4: smooth at the centre
        weight = w * 4.0 * x**3
        distance = channel.distance_m(channel.drop_disc(u, 500.0))
        assert np.sum(weight * distance) == pytest.approx(2 * 500 / 3, rel=1e-13)
        assert np.sum(weight * np.log10(distance)) == pytest.approx(math.log10(500) - 1 / (2 * math.log(10)), rel=1e-10)

    def test_ring_and_sector(self):
        u = np.random.default_rng(0).random((20_000, 2))
        position = channel.drop_disc(u, 500.0, 10.0, angle_from_rad=math.pi / 2, angle_to_rad=math.pi)
        distance = channel.distance_m(position)
        assert distance.min() >= 10.0
        assert distance.max() <= 500.0
        assert np.all(position[:, 0] <= 1e-9)
        assert np.all(position[:, 1] >= -1e-9)
        # uniform by area: half of the users stand inside the radius that halves the ring
        assert np.mean(distance < math.sqrt((500.0**2 + 10.0**2) / 2)) == pytest.approx(0.5, abs=0.015)

    def test_square_clamps_to_the_minimum_distance(self):
        radio = channel.radio_preset("iiot")
        assert radio.distance_m(radio.drop(np.array([0.5, 0.5]))) == 10.0


class TestPathLoss:
    @pytest.mark.parametrize(("distance", "expected"), [(100.0, "78.47059991"), (250.0, "86.42940009")])
    def test_free_space(self, distance, expected):
        printed(channel.path_loss_db(distance, 2000.0), expected)

    def test_papers_constant_against_physics(self):
        exact = 20 * math.log10(4 * math.pi * 250.0 * 2e9 / 299_792_458.0)
        assert channel.path_loss_db(250.0, 2000.0) - exact == pytest.approx(2.2e-3, abs=5e-5)

    @pytest.mark.parametrize(
        ("model", "expected"),
        [
            ("umi_los", "91.206369"),
            ("umi_nlos", "114.548306"),
            ("inf_los", "91.239552"),
            ("inf_sl", "102.065093"),
            ("inf_dl", "110.938585"),
            ("inf_sh", "95.766568"),
            ("inf_dh", "94.486406"),
        ],
    )
    def test_tr38901_at_191_metres(self, model, expected):
        printed(channel.path_loss_db(191.3, 3500.0, model), expected)

    def test_nlos_is_never_below_los(self):
        distance = np.geomspace(1.0, 600.0, 400)
        for scenario, (los, nlos) in channel.SCENARIOS.items():
            heights = {"bs_height_m": channel.PATH_LOSS_MODELS[nlos].bs_height_m}
            for carrier in (500.0, 3500.0, 28_000.0):
                gap = channel.path_loss_db(distance, carrier, nlos, **heights) - channel.path_loss_db(
                    distance, carrier, los, **heights
                )
                assert np.all(gap >= -1e-12), scenario

    def test_dense_low_follows_sparse_low_near_by(self):
        # 18.6 + 35.7 lg d < 33 + 25.5 lg d below 25.8 m: there the maximum holds the sparse law
        assert channel.path_loss_db(15.0, 3500.0, "inf_dl") == channel.path_loss_db(15.0, 3500.0, "inf_sl")
        assert channel.path_loss_db(40.0, 3500.0, "inf_dl") > channel.path_loss_db(40.0, 3500.0, "inf_sl") + 1.0

    def test_umi_break_point(self):
        # 4 (hB-1)(hU-1) fc/c = 210 m at 3.5 GHz; the two slopes meet there within the height terms
        near, far = channel.path_loss_db(np.array([209.999, 210.001]), 3500.0, "umi_los")
        assert far - near == pytest.approx(0.0, abs=0.02)
        slope = np.diff(channel.path_loss_db(np.array([1000.0, 2000.0]), 3500.0, "umi_los"))[0]
        assert slope == pytest.approx(40 * math.log10(2), abs=1e-3)
        # beyond: 32.4 + 40 lg d3D + 20 lg fc - 9.5 lg(dBP^2 + (hB-hU)^2), written out
        expected = 32.4 + 20 * math.log10(1000**2 + 8.5**2) + 20 * math.log10(3.5) - 9.5 * math.log10(210**2 + 8.5**2)
        assert channel.path_loss_db(1000.0, 3500.0, "umi_los") == pytest.approx(expected, rel=1e-14)

    def test_federated_and_two_tier_laws(self):
        expected = 13.54 + 39.08 * math.log10(math.hypot(300.0, 23.5)) + 20 * math.log10(2.0)
        assert channel.path_loss_db(300.0, 2000.0, "uma_nlos") == pytest.approx(expected, rel=1e-14)
        assert channel.path_loss_db(1000.0, 2000.0, "hotzone_nlos") == pytest.approx(145.4, rel=1e-14)
        assert channel.path_loss_db(100.0, 2000.0, "hotzone_nlos") == pytest.approx(107.9, rel=1e-14)

    def test_line_of_sight(self):
        distance = np.array([0.0, 10.0, 18.0, 36.0, 100.0])
        expected = [1.0, 1.0, 1.0, 0.5 + 0.5 * math.exp(-1.0), 0.18 + 0.82 * math.exp(-100 / 36)]
        np.testing.assert_allclose(channel.los_probability(distance, "umi"), expected, rtol=1e-14)
        clutter = channel.Clutter(density=0.5, height_m=4.0, size_m=10.0)
        k = -10.0 / math.log(0.5)
        np.testing.assert_allclose(
            channel.los_probability(50.0, "inf_dl", clutter=clutter), math.exp(-50.0 / k), rtol=1e-14
        )
        np.testing.assert_allclose(
            channel.los_probability(50.0, "inf_dh", clutter=clutter), math.exp(-50.0 / (k * 6.5 / 2.5)), rtol=1e-14
        )


class TestLink:
    """The user at 250 m of section 8: 10 dBm per PRB, 2 GHz, 200 kHz."""

    @pytest.mark.parametrize(
        ("preset", "snr_db", "awgn", "ergodic", "awgn_kbps", "ergodic_kbps"),
        [
            ("iiot_noise_limited", "44.56029996", "14.80266172", "13.97040438", "2960.5323", "2794.0809"),
            ("iiot", "13.56714337", "4.56900581", "3.90495411", "913.8012", "780.9908"),
        ],
    )
    def test_user_at_250_metres(self, preset, snr_db, awgn, ergodic, awgn_kbps, ergodic_kbps):
        radio = channel.radio_preset(preset)
        ratio = radio.sinr(radio.loss_db(250.0))
        printed(channel.ratio_to_db(ratio), snr_db)
        printed(channel.spectral_efficiency(ratio), awgn)
        printed(channel.spectral_efficiency(ratio, "rayleigh-ergodic"), ergodic)
        printed(channel.radio_preset(preset, fading="none").prb_rate_kbps(ratio), awgn_kbps)
        printed(radio.prb_rate_kbps(ratio), ergodic_kbps)

    @pytest.mark.parametrize(("snr_db", "expected"), [(0, ".8603473823"), (10, "2.9065148084"), (20, "5.8840482337")])
    def test_ergodic(self, snr_db, expected):
        printed(channel.spectral_efficiency(channel.db_to_ratio(snr_db), "rayleigh-ergodic"), expected)

    def test_one_neighbour_under_the_same_law_gives_the_interference(self):
        # F22: -90 dBm per PRB = one co-channel base station 1.19 km away
        received = channel.radio_preset("iiot").prb_power_dbm - channel.path_loss_db(1190.0, 2000.0)
        assert received == pytest.approx(-90.0, abs=0.05)
        assert channel.total_power_dbm(np.array([received, received])) == pytest.approx(
            received + 10 * math.log10(2), rel=1e-14
        )

    def test_mm1(self):
        printed(channel.mm1_delay_ms(300.0, 2048.0, 4.8828125), "7.062068965517")
        assert channel.mm1_delay_ms(214.8, 2048.0, 4.8828125) == pytest.approx(10.0, rel=1e-13)
        # F3: 4 packets/s served against 4.88 arriving is an unstable queue, not a delay of -1.13 s
        assert channel.mm1_delay_ms(4 * 2.048, 2048.0, 4.8828125) == math.inf
        assert channel.mm1_delay_ms(10.0, 2048.0, 4.8828125) == math.inf  # exactly r = lambda L

    def test_qos(self):
        printed(channel.qos_satisfaction(600.0, 500.0, 6.0), ".7685247834990")
        assert channel.qos_satisfaction(500.0, 500.0) == 0.5
        assert channel.qos_satisfaction(10.0, 10.0, 6.0, "delay") == 0.5
        assert channel.qos_satisfaction(math.inf, 10.0, 6.0, "delay") == 0.0

    def test_nominal_needs_of_the_default_tenants(self):
        # section 2: q = (40, 40, 17.184), mMTC 1.2, at rho = 625 kbps/PRB for 50 users
        efficiency = 625.0 / 200.0
        printed(channel.rate_kbps(efficiency, 200e3, prbs=40.0, users=50.0), "500.0000000")
        printed(channel.rate_kbps(efficiency, 200e3, prbs=1.2, users=50.0), "15.0000000")
        rate = channel.rate_kbps(efficiency, 200e3, prbs=17.184, users=50.0)
        assert channel.mm1_delay_ms(rate, 2048.0, 4.8828125) == pytest.approx(10.0, rel=1e-12)


class TestFederated:
    """Case L of the federated-slicing spec."""

    CASES = (
        (100.0, 0.0, 1.0, "3.347725347"),
        (400.0, -3.0, 0.5, "2.268382346"),
        (250.0, 2.0, 1.0, "2.99142257"),
        (500.0, 0.0, 1.0, "2.511846935"),
        (10.0, 0.0, 1.0, "4.543618814"),
        (353.5, 4.5, 0.1, "2.363067141"),
    )

    @staticmethod
    def mbps_per_rb(distance, shadow_db, fading):
        radio = channel.radio_preset("federated")
        ratio = radio.sinr(radio.loss_db(np.array(distance)) - np.array(shadow_db), np.array(fading))
        return radio.prb_rate_kbps(ratio) / 1e3

    @pytest.mark.parametrize(("distance", "shadow_db", "fading", "expected"), CASES)
    def test_rate_per_block(self, distance, shadow_db, fading, expected):
        printed(self.mbps_per_rb(distance, shadow_db, fading), expected)

    def test_path_loss_at_the_edge(self):
        printed(channel.path_loss_db(500.0, 2000.0), "92.45000")

    def test_chain_to_needs(self):
        e = self.mbps_per_rb(*np.array([case[:3] for case in self.CASES[:4]]).T)
        printed(30.0 / e[0] + 20.0 / e[1], "17.7781644")
        printed((8.0 + 8.0) / e[2] + (8.0 + 8.0) / e[3], "11.71844071")

    def test_delay_at_equal_split(self):
        # w = 12.5 each: 17.06711712 Mbit/s against load 8 and head-room 8 is tau/tau_max = .8823091061
        relative = channel.mm1_delay_ms(17.06711712e3, 8000.0, 1000.0) / channel.mm1_delay_ms(16e3, 8000.0, 1000.0)
        assert relative == pytest.approx(0.8823091061, abs=2e-10)

    def test_floor(self):
        radio = channel.radio_preset("federated")
        assert radio.prb_rate_kbps(np.array([0.0, 1e-9])) == pytest.approx(18.0, rel=1e-14)

    def test_population(self):
        """Monte Carlo of section 2: SNR 5/50/95 %, mean and harmonic mean of e."""
        rng = np.random.default_rng(3)
        radio = channel.radio_preset("federated")
        count = 200_000
        distance = radio.distance_m(radio.drop(rng.random((count, 2))))
        fading = channel.rayleigh_power(rng.random(count))
        ratio = radio.sinr(radio.loss_db(distance, rng.standard_normal(count)), fading)
        e = radio.prb_rate_kbps(ratio) / 1e3
        np.testing.assert_allclose(np.percentile(channel.ratio_to_db(ratio), [5, 50, 95]), [26.2, 43.9, 61.1], atol=0.2)
        assert e.mean() == pytest.approx(2.621, abs=0.01)
        assert 1 / np.mean(1 / e) == pytest.approx(2.410, abs=0.012)

    def test_realistic_population(self):
        rng = np.random.default_rng(4)
        radio = channel.radio_preset("realistic")
        count = 200_000
        distance = radio.distance_m(radio.drop(rng.random((count, 2))))
        fading = channel.rayleigh_power(rng.random(count))
        e = radio.prb_rate_kbps(radio.sinr(radio.loss_db(distance, rng.standard_normal(count)), fading)) / 1e3
        assert np.median(e) == pytest.approx(1.29, abs=0.01)
        assert e.max() == pytest.approx(0.18 * 7.4063, rel=1e-12)


class TestTwoTier:
    """Sections 2, 4.6, 5.1 and 5.6 of the two-tier spec."""

    USERS = ((9, 11, 7), (8, 11, 7), (6, 8, 13), (8, 2, 7))

    @staticmethod
    def snr_bandwidths(counts):
        radio = channel.radio_preset("two_tier")
        distance = np.concatenate([channel.ring_distances_m(count, 40.0) for count in counts])
        return radio.snr_bandwidth_mhz(radio.loss_db(distance))

    @pytest.mark.parametrize(
        ("operator", "expected"),
        [(0, 438163180045.0579), (1, 409560219393.47723), (2, 464818986988.87805), (3, 209011579627.28653)],
    )
    def test_snr_bandwidth(self, operator, expected):
        assert np.sum(self.snr_bandwidths(self.USERS[operator])) == pytest.approx(expected, rel=2e-15 * 30)

    def test_aggregation(self):
        s = self.snr_bandwidths(self.USERS[0])
        multiplier = channel.radio_preset("two_tier").spectral_multiplier
        assert multiplier == 9.632959861247398
        split = channel.subband_rate(2.5 * s / s.sum(), s, multiplier)
        assert split.sum() == pytest.approx(float(channel.subband_rate(2.5, s.sum(), multiplier)), rel=1e-13)

    def test_allocated_rate_of_seven_blocks(self):
        # A_{0,E}(7) = 465.3136831757 Mbit/s: eMBB of operator 0, 11 users on 7 RBs of 0.2 MHz
        s = self.snr_bandwidths(self.USERS[0][1:2])
        printed(np.sum(channel.subband_rate(7 * 0.2 / 11, s, 9.632959861247398)), "465.3136831757")

    def test_welfare_optimum(self):
        # section 5.6 R1: opt = L C log2(1 + sum S/C) = 3578.3319553301, at L = 1 371.4675454764
        total = sum(np.sum(self.snr_bandwidths(counts)) for counts in self.USERS)
        printed(channel.subband_rate(10.0, total, 9.632959861247398), "3578.3319553301")
        printed(channel.subband_rate(10.0, total), "371.4675454764")

    def test_statistical_welfare_optimum(self):
        # R7, statistical CSI: opt 3498.1138503500
        total = sum(np.sum(self.snr_bandwidths(counts)) for counts in self.USERS)
        printed(channel.subband_rate(10.0, total, 9.632959861247398, fading="rayleigh-ergodic"), "3498.1138503500")

    def test_low_snr_optimum(self):
        # R8: S = (1, 5, 20, 100), L = 1, C = 10: 37.6553474636
        printed(channel.subband_rate(10.0, 126.0), "37.6553474636")

    def test_feasibility_of_the_service_levels(self):
        """4.8: the band that holds every user's SLA at once, by bisection per user: 11.0346 MHz at default L."""
        sla = np.repeat([0.051, 100.0, 10.0] * 4, np.array(self.USERS).ravel())
        s = np.concatenate([self.snr_bandwidths(counts) for counts in self.USERS])
        for multiplier, gain, expected in ((9.632959861247398, 1.0, "11.0346"), (1.0, 0.01, "155.52")):
            low, high = np.full(97, 1e-9), np.full(97, 50.0)
            for _ in range(80):
                middle = (low + high) / 2
                enough = channel.subband_rate(middle, s * gain, multiplier) >= sla
                low, high = np.where(enough, low, middle), np.where(enough, middle, high)
            printed(high.sum(), expected)

    def test_edges_and_power_modes(self):
        assert channel.subband_rate(0.0, 1e9) == 0.0
        psd = channel.subband_rate(np.array([0.0, 1.0, 2.0]), 50.0, power_mode="psd", total_bandwidth=10.0)
        np.testing.assert_allclose(psd, np.array([0.0, 1.0, 2.0]) * math.log2(6.0), rtol=1e-14)
        with pytest.raises(ValueError, match="total_bandwidth"):
            channel.subband_rate(1.0, 1.0, power_mode="psd")
        with pytest.raises(ValueError, match="'psd'"):
            channel.subband_rate(1.0, 1.0, power_mode="pds")


FEASIBILITY = {  # section 8: percentiles 5/50/95 of the users' SNR in dB, PRBs for 50 users at 500 kbps each
    "FSPL 2 GHz": ({}, (33.2, 47.5, 63.2), 8.69),
    "FSPL 3.5 GHz": ({"frequency_mhz": 3500.0}, (28.4, 42.6, 58.3), 9.86),
    "InF-DH": ({"frequency_mhz": 3500.0, "scenario": "inf_dh"}, (28.5, 36.8, 48.7), 11.10),
    "InF-SL": ({"frequency_mhz": 3500.0, "scenario": "inf_sl"}, (18.2, 29.3, 44.1), 14.88),
    "InF-DL": ({"frequency_mhz": 3500.0, "scenario": "inf_dl"}, (6.1, 20.6, 40.6), 27.72),
    "UMi-NLOS 2 GHz": ({"scenario": "umi"}, (6.8, 22.3, 42.5), 25.76),
    "UMi-NLOS 3.5 GHz": ({"scenario": "umi", "frequency_mhz": 3500.0}, (1.6, 17.1, 37.3), 42.75),
    "FSPL with I": ({"interference_dbm": -90.0}, (2.2, 16.5, 32.2), 41.0),
}


@pytest.mark.parametrize("name", FEASIBILITY)
def test_feasibility_of_table_one(name):
    changes, percentiles, prbs = FEASIBILITY[name]
    own_shadowing = {"shadowing_std_db": None} if "scenario" in changes else {}
    radio = channel.radio_preset("iiot_noise_limited", **changes, **own_shadowing)
    rng = np.random.default_rng(5)
    count = 200_000
    ratio = radio.sinr(radio.loss_db(radio.distance_m(radio.drop(rng.random((count, 2)))), rng.standard_normal(count)))
    efficiency = radio.spectral_efficiency(ratio)
    np.testing.assert_allclose(np.percentile(channel.ratio_to_db(ratio), [5, 50, 95]), percentiles, atol=0.25)
    rho = channel.tenant_rate_kbps_per_prb(efficiency, radio.prb_bandwidth_hz)
    assert 50 * 500.0 / rho == pytest.approx(prbs, rel=0.012)
    if name == "FSPL with I":  # F22: median 650 (5-95 %: 425-837) over drops of 50 users, 38.5 PRBs
        rho = channel.tenant_rate_kbps_per_prb(efficiency.reshape(-1, 50), radio.prb_bandwidth_hz)
        np.testing.assert_allclose(np.percentile(rho, [5, 50, 95]), [425, 650, 837], rtol=0.03)
        assert 25_000.0 / np.median(rho) == pytest.approx(38.5, rel=0.02)
    if name == "FSPL 2 GHz":  # F22: rho about 2877 without interference
        assert rho == pytest.approx(2877.0, rel=2e-3)
