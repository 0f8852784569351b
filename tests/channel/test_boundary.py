"""Bad input is refused where it enters: configurations, links, names and trace files."""

import dataclasses
import doctest
import math
import subprocess
import sys

import numpy as np
import pytest

from marketenvs import channel
from marketenvs.errors import InvalidParameter, UnknownName


@pytest.mark.parametrize("name", channel.RADIO_PRESETS)
def test_presets_are_valid_frozen_and_hashable(name):
    radio = channel.radio_preset(name)
    radio.validate()
    assert hash(radio) == hash(dataclasses.replace(radio))
    with pytest.raises(dataclasses.FrozenInstanceError):
        radio.n_prb = 1
    distance = np.linspace(radio.min_distance_m, radio.farthest_m, 5)
    rate = radio.prb_rate_kbps(radio.sinr(radio.loss_db(distance)))
    assert np.all(np.isfinite(rate))
    assert np.all(np.diff(rate) <= 0)
    assert rate[0] > 0


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"n_prb": 0}, "n_prb=0.*whole number >= 1"),
        ({"n_prb": 2.5}, "n_prb=2.5"),
        ({"n_prb": True}, "n_prb=True"),
        ({"prb_bandwidth_hz": 0.0}, "prb_bandwidth_hz=0.0.*> 0"),
        ({"power_dbm": math.nan}, "power_dbm=nan.*finite"),
        ({"power_dbm": None}, "power_dbm=None.*finite"),
        ({"interference_dbm": -math.inf}, "interference_dbm=-inf.*finite"),
        ({"shadowing_std_db": -1.0}, "shadowing_std_db=-1.0.*>= 0"),
        ({"noise_figure_db": -0.5}, "noise_figure_db"),
        ({"min_distance_m": -3.0}, "min_distance_m=-3.0.*> 0"),
        ({"min_distance_m": 400.0}, "min_distance_m=400.0.*ends at 353.553"),
        ({"efficiency_cap": 0.0}, "efficiency_cap"),
        ({"efficiency_cap": 1.0, "efficiency_floor": 2.0}, "efficiency_floor=2.0 exceeds"),
        ({"fading": "rayleigh"}, "fading='rayleigh'.*rayleigh-ergodic"),
        ({"los": "prob"}, "one law only.*umi"),
        ({"scenario": "inf_ls"}, "did you mean 'inf_sl'"),
        ({"scenario": "umi", "frequency_mhz": 100.0}, "carrier 100 MHz.*'umi_nlos' covers 500 to 100000 MHz"),
        ({"scenario": "umi", "min_distance_m": 1.0}, "distance 1 m.*covers 10 to 5000 m"),
        ({"scenario": "inf_dl", "cell_size_m": 900.0}, "distance 636.396.*covers 1 to 600 m"),
        ({"scenario": "umi", "user_height_m": 0.8}, "0.8 m .user.: model 'umi_nlos' needs both above 1 m"),
        ({"clutter": channel.CLUTTER["inf_sl"]}, "clutter=.*has no effect"),
        ({"scenario": "inf_sh", "los": "prob", "user_height_m": 2.5}, "height 2 m.*between the users' 2.5 m"),
        (
            {"scenario": "inf_dh", "los": "prob", "clutter": channel.Clutter(0.5, 9.0, 2.0)},
            "height 9 m.*the base station's 8 m",
        ),
    ],
)
def test_infeasible_radio(changes, culprit):
    with pytest.raises(InvalidParameter, match=culprit):
        channel.radio_preset("iiot", **changes)


@pytest.mark.parametrize("values", [(0.0, 2.0, 10.0), (1.0, 2.0, 10.0), (0.2, -1.0, 10.0), (0.2, 2.0, math.inf)])
def test_infeasible_clutter(values):
    with pytest.raises(InvalidParameter, match=r"Clutter\."):
        channel.Clutter(*values)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'two_tier'"):
        channel.radio_preset("twotier")
    with pytest.raises(UnknownName, match="did you mean 'frequency_mhz'"):
        channel.radio_preset("iiot", frequency=2000.0)
    with pytest.raises(UnknownName, match="did you mean 'umi_nlos'"):
        channel.path_loss_db(100.0, 2000.0, "umi-nlos")
    with pytest.raises(UnknownName, match="did you mean 'rayleigh-ergodic'"):
        channel.spectral_efficiency(1.0, "rayleigh")
    with pytest.raises(UnknownName, match="Valid: umi, inf_sl"):
        channel.los_probability(100.0, "rma")
    with pytest.raises(UnknownName, match="equal_rate"):
        channel.tenant_rate_kbps_per_prb(np.ones(3), 180e3, "fair")
    with pytest.raises(UnknownName, match="'delay'"):
        channel.qos_satisfaction(1.0, 1.0, kind="delays")


@pytest.mark.parametrize("distance", [-1.0, 0.0, math.nan, math.inf])
def test_bad_distance_names_its_user(distance):
    with pytest.raises(InvalidParameter, match=r"distance .* \(user 1x2\)"):
        channel.validate_link([[10.0, 20.0, 30.0], [10.0, 20.0, distance]], 2000.0)


def test_valid_links_pass():
    channel.validate_link(np.linspace(10.0, 5000.0, 7), [500.0, 100_000.0], "umi_los")
    channel.validate_link(0.0, 3500.0, "inf_sh")  # right under the base station the 3-D distance is 6.5 m
    with pytest.raises(InvalidParameter, match="carrier -1 MHz"):
        channel.validate_link(100.0, -1.0)
    with pytest.raises(InvalidParameter, match="covers 500"):
        channel.validate_link(100.0, 1.2e5, "inf_los")


def test_documented_example():
    result = doctest.testmod(channel)
    assert result.attempted >= 4
    assert result.failed == 0


def test_import_is_light():
    code = "import sys, marketenvs.channel; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "marketenvs.channel" in loaded
    assert not {"torch", "jax", "pandas", "matplotlib", "scipy.stats", "numba"} & set(loaded)


def test_drawn_line_of_sight_needs_its_draw():
    radio = channel.radio_preset("iiot", scenario="umi", los="prob")
    with pytest.raises(InvalidParameter, match="los_uniform"):
        radio.loss_db(100.0)


def test_interference_lowers_the_snr_bandwidth():
    quiet = channel.radio_preset("two_tier")
    loud = dataclasses.replace(quiet, interference_dbm=quiet.prb_noise_dbm)  # as strong as the noise
    loss = quiet.loss_db(20.0)
    assert loud.snr_bandwidth_mhz(loss) == pytest.approx(quiet.snr_bandwidth_mhz(loss) / 2, rel=1e-13)
    alone = channel.snr_bandwidth_mhz(46.0, loss, gain_db=20.0)
    assert quiet.snr_bandwidth_mhz(loss) == pytest.approx(alone, rel=1e-13)


class TestTrace:
    GAIN_DB = np.random.default_rng(9).uniform(-130.0, -70.0, (3, 4, 5))

    def lines(self, column="gain_db", order=None):
        values = self.GAIN_DB if column == "gain_db" else 10 ** (self.GAIN_DB / 10)
        body = [f"{u},{p},{s},{float(values[u, p, s])!r}" for u, p, s in np.ndindex(values.shape)]
        return [f"user,prb,slot,{column}", *(body if order is None else [body[i] for i in order])]

    def write(self, path, lines):
        path.write_text("\n".join(lines) + "\n")
        return path

    def test_all_formats_agree(self, tmp_path):
        expected = 10 ** (self.GAIN_DB / 10)
        np.savez(tmp_path / "db.npz", gain_db=self.GAIN_DB)
        np.savez(tmp_path / "ratio.npz", gain=expected)
        self.write(tmp_path / "db.csv", self.lines())
        self.write(tmp_path / "ratio.csv", self.lines("gain", np.random.default_rng(0).permutation(60)))
        swapped = [",".join([c[3], " " + c[1], c[0], "x", c[2]]) for c in (x.split(",") for x in self.lines())]
        self.write(tmp_path / "swapped.CSV", [swapped[0], "", *swapped[1:]])
        (tmp_path / "bom.csv").write_text("\ufeff" + "\r\n".join(self.lines()), encoding="utf-8")
        for name in ("db.npz", "ratio.npz", "db.csv", "ratio.csv", "swapped.CSV", "bom.csv"):
            trace = channel.load_trace(tmp_path / name)
            assert trace.dtype == np.float64
            np.testing.assert_allclose(trace, expected, rtol=1e-14)

    def test_slots_wrap_around(self, tmp_path):
        trace = 10 ** (self.GAIN_DB / 10)
        np.testing.assert_array_equal(channel.trace_gain(trace, 2), trace[:, :, 2])
        np.testing.assert_array_equal(channel.trace_gain(trace, 7), trace[:, :, 2])
        np.testing.assert_array_equal(
            channel.trace_gain(trace, np.array([1, 5])), np.stack([trace[:, :, 1], trace[:, :, 0]])
        )

    def test_replay_reaches_the_rate(self):
        radio = channel.radio_preset("iiot_noise_limited", fading="block")
        gain = channel.trace_gain(10 ** (self.GAIN_DB / 10), 0)
        ratio = radio.sinr(0.0, gain)
        expected = 10 ** ((10.0 + self.GAIN_DB[:, :, 0] + 120.98970004336019) / 10)
        np.testing.assert_allclose(ratio, expected, rtol=1e-12)
        np.testing.assert_allclose(radio.prb_rate_kbps(ratio), 200 * np.log2(1 + expected), rtol=1e-12)

    @pytest.mark.parametrize(
        ("change", "culprit"),
        [
            ({0: "user,prb,time,gain_db"}, r"line 1: no column 'slot'"),
            ({0: "user,prb,slot,power"}, r"line 1: expected exactly one of the columns 'gain_db' and 'gain'"),
            ({0: "user,prb,slot,gain,gain_db"}, r"line 1: expected exactly one"),
            ({0: "user,user,prb,slot,gain_db"}, r"line 1: column 'user' appears 2 times"),
            ({7: "0,1,1,oops"}, r"line 8, column 4 \(gain_db\): 'oops', expected a number"),
            ({7: "0,1,1,nan"}, r"line 8, column 4 \(gain_db\): nan, expected a finite number"),
            ({7: "0,1,1,inf"}, r"line 8, column 4 \(gain_db\): inf"),
            ({7: "0,1,1,4000"}, r"line 8, column 4 \(gain_db\): 4000.0, .* its ratio too"),
            ({7: "0,1,1"}, r"line 8: 3 columns, the header has 4"),
            ({7: "0,1.5,1,-80"}, r"line 8, column 2 \(prb\): '1.5', expected a whole number"),
            ({7: "0,1,-1,-80"}, r"line 8, column 3 \(slot\): -1, expected a whole number counted from 0"),
            ({7: "0,1,1_0,-80"}, r"line 8, column 3 \(slot\): '1_0'"),
            ({7: "0,1,99999999999999999999,-80"}, r"line 8, column 3 \(slot\): '99999999999999999999'"),
            ({7: "0,1,0,-80"}, r"line 8, column 1 \(user\): \(0, 1, 0\), expected each .* already on line 7"),
            ({7: ""}, r"no line for user 0, prb 1, slot 1 \(1 of 60 missing\)"),
            ({7: "0,1,9999999999,-80"}, r"60 lines cannot fill 3 users x 4 PRBs x 10000000000 slots"),
        ],
    )
    def test_bad_csv_names_line_and_column(self, tmp_path, change, culprit):
        lines = self.lines()
        for number, text in change.items():
            lines[number] = text
        with pytest.raises(InvalidParameter, match=culprit):
            channel.load_trace(self.write(tmp_path / "trace.csv", lines))

    def test_negative_ratio(self, tmp_path):
        lines = self.lines("gain")
        lines[3] = "0,0,2,-1e-9"
        with pytest.raises(InvalidParameter, match=r"line 4, column 4 \(gain\): -1e-09, expected a finite number >= 0"):
            channel.load_trace(self.write(tmp_path / "trace.csv", lines))

    def test_bad_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
            channel.load_trace(tmp_path / "nowhere.npz")
        (tmp_path / "trace.mat").write_bytes(b"x")
        with pytest.raises(InvalidParameter, match=r"'\.mat', expected \.npz or \.csv"):
            channel.load_trace(tmp_path / "trace.mat")
        (tmp_path / "broken.npz").write_bytes(b"not a zip")
        with pytest.raises(InvalidParameter, match="not a readable npz"):
            channel.load_trace(tmp_path / "broken.npz")
        (tmp_path / "binary.csv").write_bytes(b"user,prb,slot,gain_db\n0,0,0,\xff\xfe\n")
        with pytest.raises(InvalidParameter, match="not a text table"):
            channel.load_trace(tmp_path / "binary.csv")
        for name, lines in (("empty.csv", []), ("header.csv", ["user,prb,slot,gain"])):
            with pytest.raises(InvalidParameter, match=r"line 1|no lines"):
                channel.load_trace(self.write(tmp_path / name, lines))

    @pytest.mark.parametrize(
        ("arrays", "culprit"),
        [
            ({"h": np.ones((2, 2, 2))}, r"exactly one of the arrays .* found \['h'\]"),
            ({"gain": np.ones((2, 2))}, r"shape \(2, 2\), expected \(users, PRBs, slots\)"),
            ({"gain": np.ones((2, 0, 2))}, "none empty"),
            ({"gain": np.ones((2, 2, 2), dtype=complex)}, "dtype complex128"),
            ({"gain": np.array([[[1.0, -1.0]]])}, r"gain=-1 at user 0, PRB 0, slot 1 .* >= 0"),
            ({"gain_db": np.array([[[1.0]], [[np.nan]]])}, r"gain_db=nan at user 1, PRB 0, slot 0"),
            ({"gain": np.array([[[{}]]], dtype=object)}, "cannot be read"),
        ],
    )
    def test_bad_npz(self, tmp_path, arrays, culprit):
        np.savez(tmp_path / "trace.npz", **arrays)
        with pytest.raises(InvalidParameter, match=culprit):
            channel.load_trace(tmp_path / "trace.npz")
