"""Section 8 of the coalition-trading spec, number by number; what needs a quadrature or a population names its own test."""

import math

import numpy as np
import pytest

from marketenvs import channel

from . import test_reference

FREE = channel.radio_preset("iiot_noise_limited")
HEARD = channel.radio_preset("iiot")
SNR, SINR = (radio.sinr(radio.loss_db(250.0)) for radio in (FREE, HEARD))
ERGODIC = "rayleigh-ergodic"

TABLE = {
    "noise of 200 kHz, dBm": ("-120.98970004", lambda: channel.noise_dbm(200e3)),
    "noise of 180 kHz, dBm": ("-121.44727495", lambda: channel.noise_dbm(180e3)),
    "IIoT power per PRB, dBm": ("10", lambda: HEARD.prb_power_dbm),
    "sister paper's power per PRB, dBm": ("13.0103", lambda: channel.radio_preset("federated").prb_power_dbm),
    "FSPL at 100 m, 2 GHz": ("78.47059991", lambda: channel.path_loss_db(100.0, 2000.0)),
    "FSPL at 250 m, 2 GHz": ("86.42940009", lambda: channel.path_loss_db(250.0, 2000.0)),
    "SNR at 250 m, dB": ("44.56029996", lambda: channel.ratio_to_db(SNR)),
    "its SE, awgn": ("14.80266172", lambda: channel.spectral_efficiency(SNR)),
    "its SE, ergodic": ("13.97040438", lambda: channel.spectral_efficiency(SNR, ERGODIC)),
    "its rate per PRB, awgn": ("2960.5323", lambda: channel.rate_kbps(channel.spectral_efficiency(SNR), 200e3)),
    "its rate per PRB, ergodic": ("2794.0809", lambda: FREE.prb_rate_kbps(SNR)),
    "SINR at 250 m with I = -90 dBm, dB": ("13.56714337", lambda: channel.ratio_to_db(SINR)),
    "with I: SE, awgn": ("4.56900581", lambda: channel.spectral_efficiency(SINR)),
    "with I: SE, ergodic": ("3.90495411", lambda: channel.spectral_efficiency(SINR, ERGODIC)),
    "with I: rate, awgn": ("913.8012", lambda: channel.rate_kbps(channel.spectral_efficiency(SINR), 200e3)),
    "with I: rate, ergodic": ("780.9908", lambda: HEARD.prb_rate_kbps(SINR)),
    "ergodic SE at 0 dB": (".8603473823", lambda: channel.spectral_efficiency(1.0, ERGODIC)),
    "ergodic SE at 10 dB": ("2.9065148084", lambda: channel.spectral_efficiency(10.0, ERGODIC)),
    "ergodic SE at 20 dB": ("5.8840482337", lambda: channel.spectral_efficiency(100.0, ERGODIC)),
    **{
        f"{model} at 191.3 m, 3.5 GHz": (text, lambda model=model: channel.path_loss_db(191.3, 3500.0, model))
        for model, text in (
            ("umi_los", "91.206369"),
            ("umi_nlos", "114.548306"),
            ("inf_los", "91.239552"),
            ("inf_sl", "102.065093"),
            ("inf_dl", "110.938585"),
            ("inf_sh", "95.766568"),
            ("inf_dh", "94.486406"),
        )
    },
    "M/M/1 at 300 kbit/s, ms": ("7.062068965517", lambda: channel.mm1_delay_ms(300.0, 2048.0, 4.8828125)),
    "M/M/1 at 214.8 kbit/s, ms": ("10", lambda: channel.mm1_delay_ms(214.8, 2048.0, 4.8828125)),
    "satisfaction of 600 of 500 kbit/s": (".7685247834990", lambda: channel.qos_satisfaction(600.0, 500.0, 6.0)),
}
ELSEWHERE = {
    "E[d] = 191.2989291161, E[log10 d] = 2.2381073721, mean FSPL 83.2327 (square)": "TestDrop.test_square",
    "E[d] = 2R/3, E[log10 d] = log10 R - 1/(2 ln 10) (disc)": "TestDrop.test_disc",
    "exact FSPL constant -27.5522": "TestPathLoss.test_papers_constant_against_physics",
    "UMi break point": "TestPathLoss.test_umi_break_point",
    "line-of-sight probabilities": "TestPathLoss.test_line_of_sight",
    "users' 5/50/95 % SNR and PRBs of Table I, eight radios": "test_feasibility_of_table_one",
}


@pytest.mark.parametrize("name", TABLE)
def test_number_of_section_eight(name):
    text, read = TABLE[name]
    decimals = len(text.partition(".")[2])
    tolerance = 0.5000001 * 10.0**-decimals if decimals else 1e-12
    assert abs(float(read()) - float(text)) <= tolerance


@pytest.mark.parametrize("what", ELSEWHERE)
def test_the_rest_has_its_own_test(what):
    place = test_reference
    for part in ELSEWHERE[what].split("."):
        place = getattr(place, part)
    assert callable(place)


def test_papers_free_space_constant():
    """The spec: 20 lg d + 20 lg f - 27.55, the exact constant being -27.5522 (2.2e-3 dB)."""
    exact = 20 * math.log10(4 * math.pi * 1e6 / 299_792_458.0)
    assert exact == pytest.approx(-27.5522, abs=5e-5)
    assert channel.path_loss_db(1.0, 1.0) == pytest.approx(-27.55, abs=1e-12)


def test_ergodic_rate_stays_finite_below_the_overflow():
    """Naive exp(1/SNR) overflows below -28 dB; there the mean SE tends to SNR / ln 2."""
    low = np.array([10 ** (-x / 10) for x in (28, 30, 60, 150, 300)])
    found = channel.spectral_efficiency(low, ERGODIC)
    assert np.all(np.isfinite(found))
    assert found[2:] == pytest.approx(low[2:] / math.log(2), rel=2e-6)
