"""Every registered market x preset x check, and x array library: new markets join by being registered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import marketenvs
from marketenvs import testing

GOLDEN = Path(__file__).parents[1] / "golden"
MARKETS = marketenvs.list_markets()
LIBRARIES = ("torch", "jax", "array_api_strict")


def _cases():
    """All presets; of presets that differ in numbers only (``table1_10_100``, ``table1_10_300``) the first is in the quick tests."""
    for id in MARKETS:
        families = set()
        for preset in marketenvs.list_presets(id):
            family = re.sub(r"\d+", "#", preset)
            for check in testing.CHECKS:
                slow = family in families or (id, preset, check) in SLOW
                yield pytest.param(
                    id, preset, check, marks=[pytest.mark.slow] if slow else [], id=f"{id}:{preset}-{check}"
                )
            families.add(family)


SLOW = {("CoalitionTrading-v0", "labels", check) for check in testing.ORACLE_CHECKS}


@pytest.mark.parametrize(("id", "preset", "check"), list(_cases()))
def test_market(id, preset, check):
    testing.run_check(check, marketenvs.make(id, preset=preset))


def _array_cases():
    """JAX compiles for seconds: in the quick tests every market runs traced in float64 (test_third_party.py has the other ways)."""
    for id in MARKETS:
        for library in LIBRARIES:
            for check in testing.LIBRARY_CHECKS:
                slow = library == "jax" and check != "same_numbers"
                marks = [pytest.mark.slow] if slow else []
                yield pytest.param(id, library, check, marks=marks, id=f"{id}-{library}-{check}")


@pytest.mark.parametrize(("id", "library", "check"), list(_array_cases()))
def test_array_library(id, library, check):
    pytest.importorskip(library)
    testing.run_check(check, marketenvs.make(id), library)


@pytest.mark.parametrize("id", MARKETS)
def test_golden_trajectory(id):
    testing.check_golden(marketenvs.make(id), GOLDEN / f"{id}.json")


def test_every_golden_trajectory_has_its_market():
    assert {p.stem for p in GOLDEN.glob("*.json")} <= set(MARKETS)


SYMBOLS = {
    # ai_bazaar.md, section 2
    "AIBazaar-v0": {
        "N": "n_consumers",
        "eps": "puzzle_constant",
        "tau": "propagation",
        "delta": "loss",
        "C": "unit_cost",
        "C_b": "business_value",
        "u": "payment_weight",
        "m": "token_effect",
        "R": "block_reward",
        "B": "block_size",
        "lam": "transaction_reward",
        "beta": "mining_ratio",
        "F_min": "purchase_min",
        "F_max": "purchase_max",
        "p_min": "price_min",
        "p_max": "price_max",
    },
    # federated_slicing.md, section 2: phi there is the steepness of the utility, kappa the largest request, W the resource blocks
    "FederatedSlicing-v0": {
        "M": "n_slices",
        "W": "capacity",
        "mu": "utility_weight",
        "kappa": "request_max",
        "tau_max": "delay_bound_ms",
        "L": "packet_kbit",
        "delta": "relative_step",
    },
    # two_tier_bidding.md, section 2
    "TwoTierBidding-v0": {
        "C": "bandwidth",
        "N": "blocks",
        "M": "n_operators",
        "J": "users",
        "N0": "noise_dbm_per_hz",
        "P": "power_dbm",
        "G_rx": "receiver_gain_db",
        "sigma_sh": "shadowing_db",
        "L": "spectral_multiplier",
        "S": "snr_bandwidth",
        "r": "agreed_rate",
        "a": "activity",
        "q": "price",
        "rho": "rho",
        "phi": "phi",
        "omega": "omega",
    },
    # coalition_trading.md, section 2
    "CoalitionTrading-v0": {"M": "n_sellers", "N": "n_buyers", "T": "horizon"},
    # spectrum_bertrand.md, section 2, whose table names the fields itself
    "SpectrumBertrand-v0": {
        "N": "n_sellers",
        "M": "n_buyers",
        "C": "channels",
        "U": "value",
        "c": "unit_cost",
    },
}


@pytest.mark.parametrize("id", [i for i in MARKETS if i in SYMBOLS])
def test_symbols_are_the_papers(id):
    market = marketenvs.make(id)
    wrong = {s: (market.symbols.get(s), name) for s, name in SYMBOLS[id].items() if market.symbols.get(s) != name}
    assert not wrong, f"symbol: (is, should be) {wrong}"
    for name in market.symbols.values():
        assert hasattr(market.params, name)
