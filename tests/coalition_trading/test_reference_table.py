"""Every number that the spec prints for R1-R13, C1 and C2, through the public surface, to the digits printed."""

import itertools
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from marketenvs import make
from marketenvs.markets.coalition_trading import grid
from marketenvs.markets.coalition_trading.values import raw_coalition_table

from . import second
from .reference import COST, Tenant, default

ID = "CoalitionTrading-v0"
MIXED_BUYERS = {"reputation": (0.78, 0.57, 0.82, 0.53), "service": ("embb", "embb", "urllc", "mmtc")}


def fixed(*members):
    rest = tuple((i,) for i in range(3) if i not in members)
    return {"formation": "fixed", "partition": (members, *rest)}


SETTINGS = {
    "R1": {},
    "R2": {"n_sellers": 1, "formation": "singletons"},
    "R3": fixed(0, 2),
    "R4": fixed(1, 2),
    "R5": {"n_sellers": 3, "capacity_rule": "half"},
    "R6": {"n_sellers": 4, "capacity_rule": "half"},
    "R7": {"n_sellers": 1, "n_buyers": 1, "reputation": 0.8, "service": ("urllc",)},
    "R8": {**fixed(0, 2), "capacity_rule": "given", "capacity": (60.0, 40.0)},
    "R9": {"n_buyers": 4, **MIXED_BUYERS, "capacity_rule": "given", "capacity": 75.0},
    "R10 M=1": {"preset": "table1_noise_limited", "n_sellers": 1},
    "R10 M=2": {"preset": "table1_noise_limited"},
    "R11": {**fixed(1, 2), "price_levels": 100},
    "R12": {**fixed(0, 1), "price_levels": 100, "convexify": False, "integer_prbs": True},
    "R13 M=1": {"preset": "paper", "n_sellers": 1},
    "R13 cap": {"preset": "paper", "total_capacity": True},
    "R13 1.4": {"preset": "paper", "n_sellers": 1, **fixed(1, 2)},
    "C1": {"formation": "labels"},
    "C2": {"formation": "labels", "reputation": (0.95, 0.44, 0.5)},
}


@cache
def solved(case):
    """Equilibrium, analysis and (where pure) the settled round of a case."""
    settings = dict(SETTINGS[case])
    market = make(ID, preset=settings.pop("preset", None), **settings)
    state = market.reset(0)
    found, extra = market.equilibrium(state), market.analysis(state)
    pure = found.on_path.get("purchase") is not None
    metrics = market.step(state, found.actions)[1].metrics if pure else {}
    return SimpleNamespace(market=market, state=state, found=found, extra=extra, metrics=metrics)


def seller(k=0):
    return lambda x: x.found.values["seller"][0, k]


def net(*members):
    """Net utility of the coalition."""
    return lambda x: x.found.values["buyer"][0, list(members)].sum()


def gross(*members):
    """Surplus before signalling cost c_s n (n - 1)."""
    size = len(members)
    return lambda x: net(*members)(x) + 0.5 * size * (size - 1)


def price(x):
    return x.found.actions["pricing"][0, 0, 0]


def quantity(x):
    return x.extra["expected_quantity"][0]


def mean(x):
    return x.extra["expected_price"][0, 0]


def support(end):
    return lambda x: x.extra["price_support"][0, end]


def cdf(p, k=0):
    return lambda x: x.extra["price_cdf"](np.array([[p]]))[0, k, 0]


def regime(x):
    return x.extra["price_regime"][0]


def grid_mean(x):
    prices = x.found.strategy["pricing"]
    return np.sum(prices.weights[:, 0, 0] * prices.values[:, 0, 0, 0])


def grid_support(x):
    return int(np.sum(x.found.strategy["pricing"].weights[:, 0, 0] > 1e-9))


def raw(count):
    return lambda _: raw_coalition_table(default(), np.array([1, 1, 0], bool), 100)[count]


def coalition(*members):
    code = sum(1 << i for i in members)
    return lambda x: x.extra["coalition_surplus"][0, code]


def held(buyer):
    return lambda x: x.metrics["held"][0, buyer]


ALL = (0, 1, 2)
# reference, printed number (as text, or a word), how it is read off
TABLE = [
    ("R1", "pure", regime),
    ("R1", "1.5851619930", price),
    ("R1", "71.2580996515", seller()),
    ("R1", "52.4233851976", gross(*ALL)),
    ("R1", "100", quantity),
    ("R1", "56.3249257840", held(0)),
    ("R1", "20.7313828132", held(1)),
    ("R1", "22.9436914028", held(2)),
    ("R1", "49.4233851976", net(*ALL)),
    ("R2", "monopoly", regime),
    ("R2", "2", price),
    ("R2", "92", seller()),
    ("R2", "18.8871494772", gross(0)),
    ("R2", "50", quantity),
    ("R3", "mixed", regime),
    ("R3", "1.1276435710", support(0)),
    ("R3", "1.9952314801", support(1)),
    ("R3", "48.3821785495", seller()),
    ("R3", "69.1471235171", gross(0, 2)),
    ("R3", "79.7831118951", quantity),
    ("R3", "1.40970536", mean),
    ("R3", ".20105854", cdf(1.2)),
    ("R3", ".5721785845", cdf(1.4)),
    ("R3", ".7867288515", cdf(1.6)),
    ("R3", ".9181950185", cdf(1.8)),
    ("R4", "mixed+atom", regime),
    ("R4", "1", support(0)),
    ("R4", "1.5851619930", support(1)),
    ("R4", ".6708900991", cdf(1.0)),
    ("R4", "36.8849557153", seller()),
    ("R4", "48.0721362448", gross(1, 2)),
    ("R4", ".6708900991", cdf(1.171341471776)),  # flat up to the end of the gap, 1.171341471777
    ("R4", "79.7626496821", quantity),
    ("R4", ".7098211037", cdf(1.2)),
    ("R5", "mixed", regime),
    ("R5", "1.0779799910", support(0)),
    ("R5", "1.5851619930", support(1)),
    ("R5", "45.8989995514", seller()),
    ("R5", "108.7852678160", gross(*ALL)),
    ("R5", "136.7748923954", quantity),
    ("R5", "1.17852373", mean),
    ("R6", "floor", regime),
    ("R6", "1", price),
    ("R6", "29.7537891108", seller()),
    ("R6", "132.3754901369", gross(*ALL)),
    ("R6", "141.6847100514", quantity),
    ("R6", "35.4211775128", lambda x: x.metrics["sold"][0, 3]),
    ("R7", "monopoly", regime),
    ("R7", "1.9952314801", price),
    ("R7", "40.2128913476", seller()),
    ("R7", "0", gross(0)),
    ("R7", "21.9116181162", quantity),
    ("R8", "1.2722415558", support(0)),
    ("R8", "1.9952314801", support(1)),
    ("R8", "66.7344933509", seller(0)),
    ("R8", "44.4896622339", seller(1)),
    ("R8", ".6666666667", cdf(1.99523148)),  # the larger seller keeps an atom of 1/3 at the top
    ("R9", "mixed", regime),
    ("R9", "1.1795817851", support(0)),
    ("R9", "1.5059038934", support(1)),
    ("R9", "76.4686338829", seller()),
    ("R9", "71.3532268763", gross(*range(4))),
    ("R9", ".383731728", cdf(1.25)),
    ("R9", ".887137528", cdf(1.42)),
    ("R9", ".887137528", cdf(1.4002264272)),  # the gap (1.4002264272, 1.4406494648)
    ("R9", ".887137528", cdf(1.4406494647)),
    ("R10 M=1", "monopoly", regime),
    ("R10 M=1", "1.5851619930", price),
    ("R10 M=1", "40.9370434833", seller()),
    ("R10 M=1", "11.3900492764", gross(*ALL)),
    ("R10 M=1", "28.7244844330", quantity),
    ("R10 M=2", "floor", regime),
    ("R10 M=2", "1", price),
    ("R10 M=2", "12.9292346480", seller()),
    ("R10 M=2", "28.7612741902", gross(*ALL)),
    ("R10 M=2", "30.7838920191", quantity),
    ("R11", "36.80025687", seller()),
    ("R11", "41", grid_support),
    ("R11", "1.10724", grid_mean),
    ("R12", "1.4747474747", price),
    ("R12", "65.7373737374", seller()),
    ("R12", "117.66560955", raw(50)),
    ("R12", "133.54473418", raw(57)),
    ("R12", "197.24611162", raw(100)),
    ("R13 M=1", "2", price),
    ("R13 M=1", "92", seller()),
    ("R13 M=1", "10.5", net(*ALL)),
    ("R13 cap", "1", price),
    ("R13 cap", "21", seller()),
    ("R13 cap", "60.5", net(*ALL)),
    ("R13 1.4", "1.3939393939", price),
    ("R13 1.4", "61.6969697", seller()),
    ("R13 1.4", "-1.6969697", net(1, 2)),
    ("C1", "77.1555178133", coalition(0)),
    ("C1", "32.0334573619", coalition(1)),
    ("C1", "23.1865149617", coalition(2)),
    ("C1", "43.2350422213", coalition(0, 1)),
    ("C1", "69.1471235171", coalition(0, 2)),
    ("C1", "48.0721362448", coalition(1, 2)),
    ("C1", "52.4233851976", coalition(*ALL)),
    ("C1", "19.3396", lambda x: x.found.values["buyer"][0, 0]),
    ("C1", "12.8931", lambda x: x.found.values["buyer"][0, 1]),
    ("C1", "17.1907", lambda x: x.found.values["buyer"][0, 2]),
    ("C1", "19.180777274", lambda x: x.extra["shapley"][0, 0]),
    ("C1", "8.643283638", lambda x: x.extra["shapley"][0, 1]),
    ("C1", "21.599324286", lambda x: x.extra["shapley"][0, 2]),
    ("C2", "84.777220", coalition(0)),
    ("C2", "8.704034", coalition(1)),
    ("C2", "5.530136", coalition(2)),
    ("C2", "75.084315", coalition(0, 1)),
    ("C2", "90.307356", coalition(0, 2)),
    ("C2", "14.234170", coalition(1, 2)),
    ("C2", "76.950433", coalition(*ALL)),
]


def test_the_table_names_every_reference_case():
    named = {name.split()[0] for name, *_ in TABLE}
    assert named == {*(f"R{i}" for i in range(1, 14)), "C1", "C2"}
    assert {name for name, *_ in TABLE} == set(SETTINGS)


@pytest.mark.parametrize("row", TABLE, ids=[f"{name}-{text}-{k}" for k, (name, text, _) in enumerate(TABLE)])
def test_printed_number(row):
    name, text, read = row
    found = read(solved(name))
    if isinstance(found, str):
        assert found == text
        return
    digits = len(text.partition(".")[2])
    # The last printed digit may be cut off instead of rounded: one unit of it.
    assert float(found) == pytest.approx(float(text), abs=max(1.01 * 10.0**-digits, 1e-10) if digits else 1e-9)


@pytest.mark.parametrize("case", [c for c in SETTINGS if c != "C2"])
def test_cases_are_certified(case):
    x = solved(case)
    assert x.found.certified.all()
    assert x.found.kind == "exact"
    assert np.all(x.market.nash_conv(x.state, x.found.strategy).lower <= 1e-7)


def test_c1_and_c2_stability_as_printed():
    stage = solved("C1").extra
    assert stage["partitions"][stage["nash_stable"][0]].tolist() == [[0, 0, 0]]
    assert stage["partitions"][stage["individually_stable"][0]].tolist() == [[0, 0, 0]]
    assert stage["partitions"][stage["merge_path"][0]].tolist() == [[0, 1, 2], [0, 1, 1], [0, 0, 0]]
    assert stage["core_empty"][0]
    other = solved("C2")
    assert not other.extra["nash_stable"].any()
    alone = np.flatnonzero((other.extra["partitions"] == [0, 1, 2]).all(axis=1))
    assert other.extra["individually_stable"][0, alone].all()
    assert not other.found.exists[0]
    assert not other.found.certified[0]
    assert other.found.epsilon[0] > 0.1


def test_best_deterministic_bounds_as_printed():
    for case, text, at in (("R3", "15.369658", 1.1414), ("R4", "4.757658", 1.0), ("R1", "0", 1.575758)):
        extra = solved(case).extra
        assert extra["best_deterministic"][0] == pytest.approx(float(text), abs=1e-6)
        assert extra["best_deterministic_prices"][0] == pytest.approx([at, at], abs=5e-5)


# ------------------------------------------------------------ second methods


@cache
def tenants(reputation, kinds):
    return [Tenant(r, k) for r, k in zip(reputation, kinds, strict=True)]


BUYERS = {
    "C1": ((0.9, 0.6, 0.8), ("embb", "embb", "urllc")),
    "C2": ((0.95, 0.44, 0.5), ("embb", "embb", "urllc")),
}


@cache
def second_values(case):
    """E[U] + C_sig of every coalition by `second`: price grid, brute-force follower, all pairs of quantiles."""
    everybody = tenants(*BUYERS[case])
    sets = [z for size in (1, 2, 3) for z in itertools.combinations(range(3), size)]
    return {frozenset(z): second.surplus([everybody[i] for i in z], 50.0)[0] for z in sets}


@pytest.mark.parametrize("case", ["C1", "C2"])
def test_coalition_values_by_a_second_method(case):
    for members, worth in second_values(case).items():
        assert coalition(*members)(solved(case)) == pytest.approx(worth, abs=0.02), members


@pytest.mark.parametrize("case", ["C1", "C2"])
def test_stability_and_shapley_by_enumeration(case):
    """Partitions, moves and orders listed one by one on the second method's values."""
    worth, (reputation, _), extra = second_values(case), BUYERS[case], solved(case).extra
    seen = 0
    for partition in second.partitions([0, 1, 2]):
        labels = [min(z) for i in range(3) for z in partition if i in z]
        together = np.equal.outer(labels, labels)
        (row,) = [k for k, p in enumerate(extra["partitions"]) if np.array_equal(np.equal.outer(p, p), together)]
        nash, individual = second.stable(partition, worth, reputation, 0.5)
        assert extra["nash_stable"][0, row] == nash, partition
        assert extra["individually_stable"][0, row] == individual, partition
        paid = second.payoffs(partition, worth, reputation, 0.5)
        assert extra["partition_payoff"][0, row] == pytest.approx([paid[i] for i in range(3)], abs=0.02)
        seen += 1
    assert seen == len(extra["partitions"]) == 5
    assert extra["shapley"][0] == pytest.approx(second.shapley(worth, reputation, 0.5), abs=0.02)


def test_r8_equilibrium_by_fictitious_grid_play():
    """R8 as a matrix game on 400 prices, solved by linear programs on it: the profits agree to the grid's step."""
    first, other = tenants((0.9, 0.8), ("embb", "urllc"))
    levels = np.linspace(1.0, 2.0, 401)
    levels = np.unique(np.append(levels, other.p_hat))
    demand = np.array([first.demand(p) + other.demand(p) for p in levels])
    room = np.array([60.0, 40.0])

    def sold(mine, theirs):
        cheap, dear = np.minimum(demand, mine), np.clip(demand - theirs, 0, mine)
        tied = np.minimum(demand, mine + theirs) * mine / (mine + theirs)
        size = len(levels)
        own, rival = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
        return np.where(own < rival, cheap[own], np.where(own > rival, dear[own], tied[own]))

    a = (levels - COST)[:, None] * sold(*room)
    b = ((levels - COST)[:, None] * sold(*room[::-1])).T
    found = grid.matrix_equilibrium(a, b)
    assert found.epsilon < 1e-6
    assert found.values == pytest.approx([66.7344933509, 44.4896622339], abs=0.2)
    top = found.row[np.isclose(levels, other.p_hat)].sum()
    assert top == pytest.approx(1 / 3, abs=0.03)
