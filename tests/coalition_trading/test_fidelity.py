"""The numbers of docs/fidelity/coalition_trading.md, recomputed; every note F1-F24 is there."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from marketenvs import channel, make

from .reference import COST, Tenant

ID = "CoalitionTrading-v0"
PAGE = (Path(__file__).parents[2] / "docs" / "fidelity" / "coalition_trading.md").read_text()
NOTES = dict(re.findall(r"^- \*\*(F\d+)[,:]?(.*?)(?=^- \*\*F|^## )", PAGE, flags=re.MULTILINE | re.DOTALL))


def said(note: str, *numbers: str) -> None:
    """The note prints these numbers."""
    for number in numbers:
        assert number in NOTES[note], (note, number)


def test_every_note_is_on_the_page_with_a_number():
    assert sorted(NOTES, key=lambda n: int(n[1:])) == [f"F{i}" for i in range(1, 25)]
    assert all(re.search(r"\d|twelve", text) for text in NOTES.values())


def test_radio_notes():
    radio = channel.radio_preset("iiot_noise_limited")
    ratio = float(radio.sinr(radio.loss_db(250.0)))
    efficiency = math.log2(1 + ratio)
    assert 200e3 * 20e6 * efficiency == pytest.approx(5.9e13, rel=0.01)  # F1
    said("F1", "5.9e13")
    prb = 200.0 * efficiency  # kbit/s
    assert (500 / prb, 50 * 500 / prb) == pytest.approx((0.17, 8.4), abs=0.05)
    said("F2", "0.17", "8.4")
    arrivals = 10e3 / 2048
    assert 1e6 / (prb * 1e3 - arrivals) == pytest.approx(0.34, abs=0.005)  # microseconds
    late = 1 / (4 - arrivals)
    assert late == pytest.approx(-1.13, abs=0.005)
    assert 1 / (1 + math.exp(-6 * (1 - 1e3 * late / 10))) == pytest.approx(1.0, abs=5e-5)
    said("F3", "0.34", "-1.13", "1.0000")
    assert 1 / (1 + math.exp(6)) == pytest.approx(0.0025, abs=5e-5)
    said("F4", "0.0025")
    everybody = [Tenant(0.9, "embb", 2876.6), Tenant(0.6, "embb", 2876.6), Tenant(0.8, "urllc", 2876.6)]
    assert sum(t.demand(1.0) for t in everybody) == pytest.approx(30.8, abs=0.05)
    said("F22", "30.8", "2877", "47.5", "1.19 km")
    assert radio.prb_power_dbm - float(channel.path_loss_db(1190.0, 2000.0)) == pytest.approx(-90, abs=0.05)


def test_payoff_notes():
    assert pytest.approx(115 / 50) == 0.9 + 0.6 + 0.8
    said("F6", "1.394", "61.70", "-1.70", "21")  # the reference table has R13
    said("F7", "115")
    price = np.linspace(1, 2, 100_001)
    assert np.max((price - COST) * 100 * (2 - price)) == pytest.approx(84.64, abs=1e-6)
    assert pytest.approx(92.0) == ((2 - COST) * 100 + (1 - COST) * 0) / 2
    said("F9", "92.0", "84.64")
    rows = [1 + (a - 1) / 99 for a in (25, 35, 50, 70)]
    assert rows == pytest.approx([1.242, 1.343, 1.495, 1.697], abs=6e-4)
    said("F15", "1.242", "1.343", "1.495", "1.697", "200 k$")
    needed = [5 * u / (2 - c) for u in (59, 75) for c in (COST, 0.0)]
    assert needed == pytest.approx([160, 147.5, 204, 187.5], abs=0.5)
    said("F16", "160", "204", "147", "187")
    assert np.mean(np.arange(1, 101)) == 50.5
    said("F17", "50.5")


def test_coalition_notes():
    assert 0.9 * 50 + 0.6 * 50 == 75
    said("F8", "75 > 0")
    everybody = [Tenant(0.9, "embb"), Tenant(0.6, "embb"), Tenant(0.8, "urllc")]
    assert sum(t.demand(2.0) for t in everybody) == pytest.approx(54.4, abs=0.05)
    assert pytest.approx(92) == (2 - COST) * 50
    said("F10", "1.585", "71.26", "92", "54.4")
    said("F11", "68.15", "49.42", ".95, .44, .5")
    market = make(ID)
    outcome = market.outcome(market.reset(0), {"pricing": 1.2, "purchase": 50.0})
    assert outcome.metrics["sold"][0].tolist() == [50.0, 50.0]
    said("F12", "150")
    assert pytest.approx(1.8e14, rel=0.03) == 100**2 * 51**6
    said("F24", "1.8e14")
    said("F23", "1.00", "1.585", "1.1347", "1.2092")


def test_bounds_on_the_page():
    for case, bound, profit in (({}, "15.37", "48.38"), ({"reputation": (0.6, 0.8)}, "4.76", "36.88")):
        market = make(ID, preset="reduced", **case)
        state = market.reset(0)
        assert market.analysis(state)["best_deterministic"][0] == pytest.approx(float(bound), abs=5e-3)
        assert market.equilibrium(state).values["seller"][0, 0] == pytest.approx(float(profit), abs=6e-3)
        assert bound in PAGE
        assert profit in PAGE
