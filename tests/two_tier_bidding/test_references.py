"""Every reference number of the spec's section 5.6 in one table, to the digits given, through the public surface of the market.

R1-R10 (equilibria), RB (satisfaction and rates on resource blocks), A (table A and the best divisions of 50 blocks). What a second method
says about the same numbers is in ``test_oracle`` and ``test_slices``.
"""

import functools

import numpy as np
import pytest

import marketenvs
from marketenvs.markets.two_tier_bidding.slices import divide_blocks

from .reference import SNR, USERS

ID = "TwoTierBidding-v0"
BOX = {"floor_per_user": 0.0, "cap_per_user": 1000.0}
LOW_SNR = {"positions": "given", "snr_bandwidth": (1.0, 5.0, 20.0, 100.0), "spectral_multiplier": 1.0, **BOX}
STAR = SNR[0] / SNR.sum()  # shares at the optimum
MARKETS = {
    "R1": {},
    "R1 L=1": {"spectral_multiplier": 1.0, "floor_per_user": 0.0},
    "R2": {"payment": "posted", "price": tuple(1 - STAR)},
    "R2b": {"payment": "efficient"},
    "R3": {"payment": "eq4"},
    "R4": {"preset": "reduced"},
    "R5": {"preset": "reduced", "value": "log", "value_weight": (4, 3, 2, 1)},
    "R6": {"cap_per_user": tuple(np.array([2700, 300, 2700, 100]) / USERS.sum(1))},
    "R7": {"fading": "statistical"},
    "R8": LOW_SNR,
    "R8 posted": {**LOW_SNR, "payment": "posted", "price": tuple(1 - np.array([1, 5, 20, 100]) / 126)},
    "R9": {"value_weight": (1, 1.05, 1.1, 1.2)},
    "R10": {
        "preset": "reduced",
        "n_operators": 2,
        "value_weight": (1.0, 2**0.5 - 1),
        "users": tuple(map(tuple, USERS[:2])),
    },
    "blocks": {"preset": "two_tier"},
}


@functools.cache
def answer(name):
    """All quantities of one market by name."""
    options = dict(MARKETS[name])
    market = marketenvs.make(ID, preset=options.pop("preset", None), **options)
    state = market.reset(0, 1)
    if name == "blocks":
        network, analysis = state.theta.network, market.analysis(state)
        table = analysis["table_a"]
        return {"network": network, "table": table, "f": analysis["best_division"], "v": divide_blocks(table.rate)}
    equilibrium, best = market.equilibrium(state), market.social_optimum(state)
    assert equilibrium.certified.all()
    outcome = market.outcome(state, {"bidding": equilibrium.actions["bidding"]})
    gain = market.nash_conv(state, equilibrium.strategy)
    assert gain.kind == "exact"
    assert gain.upper.max() <= 2.3e-13 * (1 + best.value.max())  # the spec's "deviation gain <= 2.3e-13", relative
    m = outcome.metrics
    return {
        "b": m["bid"][0],
        "B": m["bid"].sum(),
        "c": m["bandwidth"][0],
        "y": m["profit"][0],
        "pay": m["payment"][0],
        "V": m["value"][0],
        "opt": best.value[0],
        "c*": best.extra["bandwidth"][0],
        "eff": m["value"][0] / best.value[0],
    }


# (market, quantity, values, digits after the point)
EQUILIBRIA = [
    ("R1", "b", (656.7863147034, 652.1193532018, 660.8552882529, 604.7029930993), 10),
    ("R1", "B", 2574.4639492573, 10),
    ("R1", "c", (2.5511575522, 2.5330296561, 2.5669626815, 2.3488501102), 10),
    ("R1", "y", (260.3975704438, 256.4218466129, 263.8972731481, 218.2826020339), 10),
    ("R1", "V", 3573.4632414961, 10),
    ("R1", "opt", 3578.3319553301, 10),
    ("R1", "eff", 0.998639390114, 12),
    ("R1 L=1", "V", 370.9621230617, 10),
    ("R1 L=1", "opt", 371.4675454764, 10),
    ("R2", "b", (990.4347463317, 925.7799159683, 1050.6881829302, 472.4548758918), 10),
    ("R2", "B", 3439.3577211220, 10),
    ("R2", "c", (2.8797084416, 2.6917232548, 3.0548964898, 1.3736718138), 10),
    ("R2", "c*", (2.8797084416, 2.6917232548, 3.0548964898, 1.3736718138), 10),
    ("R2", "y", (325.2368575319, 286.6023506725, 363.4295542122, 83.9902934652), 10),
    ("R2", "eff", 1.0, 12),
    ("R2b", "b", (990.4347463317, 925.7799159683, 1050.6881829302, 472.4548758918), 10),
    ("R2b", "B", 3439.3577211220, 10),
    ("R2b", "pay", (831.7434300543, 788.2016613699, 870.7852106813, 438.4078088577), 10),
    ("R3", "b", (2700, 2600, 2700, 1700), 10),
    ("R3", "c", (2.7835051546, 2.6804123711, 2.7835051546, 1.7525773196), 10),
    ("R3", "y", (305.5274409590, 284.3973262433, 306.1633385854, 128.9572798379), 10),
    ("R3", "V", 3577.4689222963, 10),
    ("R4", "b", (24.9886826618, 18.4698958805, 7.6052512449, 0), 10),
    ("R4", "c", (4.8936170213, 3.6170212766, 1.4893617021, 0), 10),
    ("R4", "V", 86.8085106383, 10),
    ("R4", "eff", 0.868085106383, 12),
    ("R5", "b", (1.9438025462, 1.5622004522, 1.0714839721, 0.4170461582), 10),
    ("R5", "c", (3.8918603523, 3.1278207831, 2.1453135749, 0.8350052896), 10),
    ("R5", "V", 13.5024140682, 10),
    ("R5", "opt", 13.5920310378, 10),
    ("R5", "c*", (4.6, 3.2, 1.8, 0.4), 10),
    ("R6", "b", (815.0390804188, 300, 817.8090023555, 100), 10),
    ("R6", "c", (4.0093457417, 1.4757620234, 4.0229715604, 0.4919206745), 10),
    ("R6", "V", 3563.8485649110, 10),
    ("R7", "b", (641.7119642615, 637.0575979347, 645.7697641848, 589.7574390934), 10),
    ("R7", "B", 2514.2967654744, 10),
    ("R7", "V", 3493.2751052779, 10),
    ("R7", "opt", 3498.1138503500, 10),
    ("R8", "b", (0.2811182118, 1.2529906086, 3.5404642745, 6.9150564149), 10),
    ("R8", "c", (0.2344678053, 1.0450619910, 2.9529388474, 5.7675313563), 10),
    ("R8", "V", 36.1494666232, 10),
    ("R8", "opt", 37.6553474636, 10),
    ("R8", "eff", 0.960008844908, 12),
    ("R8 posted", "b", (0.1927714463, 0.9638572314, 3.8554289257, 19.2771446285), 10),
    ("R9", "b", (558.9208989873, 646.9561344407, 743.3925469217, 841.6893098267), 10),
    ("R9", "c", (2.0026124389, 2.3180425076, 2.6635739765, 3.0157710771), 10),
    ("R9", "V", 3912.1426787280, 10),
    ("R9", "opt", 4010.6816898442, 10),
    ("R9", "c*", (0.1519357993, 0.5308764886, 1.9977992603, 7.3193884518), 10),
    ("R9", "eff", 0.975430857212, 12),
    ("R10", "b", (2.0710678119, 0.8578643763), 10),
    ("R10", "eff", 0.828427124746, 12),
]


@pytest.mark.parametrize(
    ("name", "quantity", "expected", "digits"), EQUILIBRIA, ids=[f"{r[0]}:{r[1]}" for r in EQUILIBRIA]
)
def test_equilibrium(name, quantity, expected, digits):
    np.testing.assert_allclose(answer(name)[quantity], expected, rtol=0, atol=1.01 * 10.0**-digits)


def test_r1_bids_scale_with_the_multiplier():
    """At L = 1 bids are those of R1 divided by 32 log10 2 (the floor does not bind in either)."""
    np.testing.assert_allclose(answer("R1 L=1")["b"] * 32 * np.log10(2), answer("R1")["b"], rtol=1e-13)


def test_r2b_slope_and_r4_price():
    """Mu = v'(c*) = 343.93577211 is B kappa / C; R4's mu = 5.1063829787234 is B p / C."""
    assert answer("R2b")["B"] / 10 == pytest.approx(343.93577211, abs=1.01e-8)
    assert answer("R4")["B"] / 10 == pytest.approx(5.1063829787234, abs=1.01e-13)


# (service, operator, blocks, satisfaction): VoLTE 0, eMBB 1, URLLC 2
RB = [
    ("RB E 0 4", 0, 1, 4, 0.829179947790),
    ("RB E 0 7", 0, 1, 7, 0.990467133285),
    ("RB E 2 6", 2, 1, 6, 0.989060122382),
    ("RB U 2 1", 2, 2, 1, 0.955769533878),
    ("RB E 3 2", 3, 1, 2, 0.909534120394),
    ("RB U 1 1", 1, 2, 1, 0.999553021607),
]


@pytest.mark.parametrize(("operator", "service", "blocks", "expected"), [r[1:] for r in RB], ids=[r[0] for r in RB])
def test_satisfaction(operator, service, blocks, expected):
    assert answer("blocks")["network"].ssr[0, operator, service, blocks] == pytest.approx(expected, abs=1.01e-12)


def test_rate_of_a_slice():
    assert answer("blocks")["network"].rate[0, 0, 1, 7] == pytest.approx(465.3136831757, abs=1.01e-10)


# (operator, blocks, split, f, rate, digits of the rate)
TABLE_A = [
    ("A m0 n9", 0, 9, (1, 7, 1), 6.3630027082, 607.1368596, 7),
    ("A m0 n13", 0, 13, (3, 7, 3), 6.3460892672, 872.46175626, 8),
    ("A m0 n50", 0, 50, (17, 20, 13), 6.1734112139, None, 0),
    ("A m1 n13", 1, 13, None, 6.3420306014, None, 0),
    ("A m2 n13", 2, 13, (2, 6, 5), 6.3410020376, None, 0),
    ("A m3 n13", 3, 13, (5, 4, 4), 6.2658817150, None, 0),
]


@pytest.mark.parametrize(
    ("operator", "blocks", "split", "utility", "rate", "digits"), [r[1:] for r in TABLE_A], ids=[r[0] for r in TABLE_A]
)
def test_table_a(operator, blocks, split, utility, rate, digits):
    table = answer("blocks")["table"]
    assert table.utility[0, operator, blocks] == pytest.approx(utility, abs=1.01e-10)
    if split is not None:
        assert tuple(table.blocks[0, operator, blocks]) == split
    if rate is not None:
        assert table.rate[0, operator, blocks] == pytest.approx(rate, abs=1.01 * 10.0**-digits)


@pytest.mark.parametrize(
    ("key", "blocks", "best"), [("f", (12, 11, 12, 15), 25.3119170447), ("v", (15, 13, 16, 6), 3340.7821451133)]
)
def test_best_division_of_50_blocks(key, blocks, best):
    found, value = answer("blocks")[key]
    assert tuple(found[0]) == blocks
    assert value[0] == pytest.approx(best, abs=1.01e-10)
