"""CoalitionTrading-v0 through its public surface: every reference case, the options, bad input."""

import numpy as np
import pytest

import marketenvs
from marketenvs import make
from marketenvs.errors import InvalidAction, InvalidParameter, MarketEnvsError, UnknownName
from marketenvs.markets.coalition_trading import settlement
from marketenvs.markets.coalition_trading.price_stage import PriceMixture
from marketenvs.markets.coalition_trading.values import Curves, coalition_value, make_curves, split
from marketenvs.strategy import Pure, Samples

from .reference import ARRIVALS

ID = "CoalitionTrading-v0"


def pair(*members):
    rest = tuple(i for i in range(3) if i not in members)
    return {"formation": "fixed", "partition": (members, *((i,) for i in rest))}


# name, settings, sellers' profit, winner's members, E[U] + C_sig
CASES = [
    ("R1", {}, [71.2580996515] * 2, (0, 1, 2), 52.4233851976),
    ("R2", {"n_sellers": 1, "formation": "singletons"}, [92.0], (0,), 18.8871494772),
    ("R3", pair(0, 2), [48.3821785495] * 2, (0, 2), 69.1471235171),
    ("R4", pair(1, 2), [36.8849557153] * 2, (1, 2), 48.0721362448),
    ("R5", {"n_sellers": 3, "capacity_rule": "half"}, [45.8989995514] * 3, (0, 1, 2), 108.7852678160),
    ("R6", {"n_sellers": 4, "capacity_rule": "half"}, [29.7537891108] * 4, (0, 1, 2), 132.3754901369),
    ("R7", {"n_sellers": 1, "n_buyers": 1, "reputation": 0.8, "service": ("urllc",)}, [40.2128913476], (0,), 0.0),
    (
        "R8",
        {**pair(0, 2), "capacity_rule": "given", "capacity": (60.0, 40.0)},
        [66.7344933509, 44.4896622339],
        (0, 2),
        None,
    ),
    (
        "R9",
        {
            "n_buyers": 4,
            "reputation": (0.78, 0.57, 0.82, 0.53),
            "service": ("embb", "embb", "urllc", "mmtc"),
            "capacity_rule": "given",
            "capacity": 75.0,
        },
        [76.4686338829] * 2,
        (0, 1, 2, 3),
        71.3532268763,
    ),
    ("R10a", {"preset": "table1_noise_limited", "n_sellers": 1}, [40.9370434833], (0, 1, 2), 11.3900492764),
    ("R10b", {"preset": "table1_noise_limited"}, [12.9292346480] * 2, (0, 1, 2), 28.7612741902),
    ("R11", {**pair(1, 2), "price_levels": 100}, [36.80025687] * 2, (1, 2), None),
    (
        "R12",
        {**pair(0, 1), "price_levels": 100, "convexify": False, "integer_prbs": True},
        [65.7373737374] * 2,
        (0, 1),
        None,
    ),
    ("R13a", {"preset": "paper", "n_sellers": 1}, [92.0], (0, 1, 2), 10.5 + 4.5),
    ("R13b", {"preset": "paper", "total_capacity": True}, [21.0, 21.0], (0, 1, 2), 60.5 + 4.5),
    ("R13c", {"preset": "paper", "n_sellers": 1, **pair(1, 2)}, [61.6969697], (1, 2), -1.6969697 + 2.0),
]


@pytest.mark.parametrize("case", CASES, ids=[c[0] for c in CASES])
def test_reference_cases_through_the_public_surface(case):
    name, settings, profit, members, surplus = case
    settings = dict(settings)
    market = make(ID, preset=settings.pop("preset", None), **settings)
    state = market.reset(0)
    found = market.equilibrium(state)
    digits = 5e-8 if name in ("R11", "R13c") else 6e-11
    assert found.values["seller"][0] == pytest.approx(profit, abs=digits)
    assert found.certified[0]
    assert found.kind == "exact"
    conv = market.nash_conv(state, found.strategy)
    assert conv.lower[0] <= 1e-7
    if surplus is not None:
        paper = settings.get("total_capacity") or name.startswith("R13")
        size = len(members)
        cost = 0.5 * (size * size if paper else size * (size - 1))
        joint = found.values["buyer"][0, list(members)].sum()
        assert joint + cost == pytest.approx(surplus, abs=max(digits, 6e-11))


def test_r13_by_a_second_method():
    """The printed game enumerated: every price level, the follower's best whole purchase."""
    for omega, size, want in ((2.3, 3, (92.0, 10.5)), (1.4, 2, (61.69696970, -1.69696970))):
        best = None
        for level in range(100):
            price = 1 + level / 99
            amounts = range(51)
            utility = [(omega - price) * w - 0.5 * size * size for w in amounts]
            amount = max(amounts, key=lambda w: (round(utility[w], 12), w))
            profit = (price - 0.16) * amount
            if best is None or profit > best[0]:
                best = (profit, utility[amount])
        assert best == pytest.approx(want, abs=1e-8)
    # One limit of 50 over two sellers: everybody at the lowest price is the only pair nobody undercuts.
    levels = 1 + np.arange(100) / 99

    def profits(p, q):
        mine = 50.0 if p < q else 25.0 if p == q else 0.0
        return (p - 0.16) * mine

    stable = [p for p in levels if all(profits(x, p) <= profits(p, p) + 1e-12 for x in levels)]
    assert 1.0 in stable
    assert max(stable) < 1.02
    assert profits(1.0, 1.0) == pytest.approx(21.0)


def test_default_equilibrium_is_settled_as_solved():
    market = make(ID)
    state = market.reset(0)
    found = market.equilibrium(state)
    assert found.actions["pricing"][0, :, 0] == pytest.approx([1.5851619930] * 2, abs=5e-11)
    _, outcome = market.step(state, found.actions)
    assert outcome.metrics["held"][0] == pytest.approx([56.3249257840, 20.7313828132, 22.9436914028], abs=1e-7)
    assert outcome.payoffs["buyer"][0] == pytest.approx([19.3396, 12.8931, 17.1907], abs=5e-5)
    assert outcome.metrics["welfare"][0] == pytest.approx(0.98461 * 194.9395845005, rel=1e-5)
    assert market.social_optimum(state).value[0] == pytest.approx(194.9395845005, abs=6e-11)


def test_mixed_equilibrium_is_a_distribution_with_its_bound():
    for members, bound in (((0, 2), 15.369658), ((1, 2), 4.757658)):
        market = make(ID, **pair(*members))
        state = market.reset(0)
        found = market.equilibrium(state)
        assert isinstance(found.strategy["pricing"], PriceMixture)
        with pytest.raises(InvalidAction, match="mixed"):
            _ = found.actions
        extra = market.analysis(state)
        assert extra["best_deterministic"][0] == pytest.approx(bound, abs=5e-7)
        prices = extra["best_deterministic_prices"]
        gap = market.nash_conv(state, {"pricing": prices[:, :, None], "purchase": found.strategy["purchase"]})
        assert gap.lower[0] == pytest.approx(
            bound, abs=1.1
        )  # undercutting by a hair instead of a level: up to 0.5 $ each
        assert gap.lower[0] >= bound - 1e-6


def test_sampled_mixture_is_nearly_indifferent():
    market = make(ID, **pair(0, 2))
    state = market.reset(0)
    found = market.equilibrium(state)
    draws = found.strategy["pricing"].quantiles(200)
    samples = Samples(np.moveaxis(draws, 1, 0)[..., None])
    conv = market.nash_conv(state, {"pricing": samples, "purchase": found.strategy["purchase"]})
    assert conv.kind == "exact"
    assert 0 < conv.lower[0] < 0.6
    paid = market.payoff(state, {"pricing": samples, "purchase": found.strategy["purchase"]})
    assert paid["seller"][0] == pytest.approx([48.38, 48.38], abs=0.15)
    assert paid["buyer"][0].sum() == pytest.approx(69.147 - 1.0, abs=0.5)


def test_coalition_stage_analysis():
    market = make(ID, preset="labels")
    state = market.reset(0)
    extra = market.analysis(state)
    printed = [77.1555178133, 32.0334573619, 43.2350422213, 23.1865149617, 69.1471235171, 48.0721362448, 52.4233851976]
    assert extra["coalition_surplus"][0, 1:] == pytest.approx(printed, abs=6e-11)
    assert extra["partitions"][extra["nash_stable"][0]].tolist() == [[0, 0, 0]]
    assert extra["core_empty"][0]
    found = market.equilibrium(state)
    assert found.exists[0]
    assert found.certified[0]
    assert len(set(found.strategy["coalition"].decisions[0, :, 0])) == 1
    # C2: no Nash-stable partition.
    other = make(ID, preset="labels", reputation=(0.95, 0.44, 0.5))
    found = other.equilibrium(other.reset(0))
    assert not found.exists[0]
    assert not found.certified[0]


def test_labels_gains_are_moves_between_partitions():
    market = make(ID, preset="labels")
    state = market.reset(0)
    found = market.equilibrium(state)
    apart = {
        "coalition": np.array([[[0.0], [1.0], [2.0]]]),
        "pricing": np.full((1, 2, 1), 1.0),
        "purchase": np.zeros((1, 3, 2)),
    }
    best = market.best_response(state, "coalition", apart)
    # Alone: {1} wins 77.16; 2 does best by joining 3 (0.6/1.4 of 47.07), 3 by joining 1 (0.8/1.7 of 68.15).
    assert best.values[0] == pytest.approx(
        [77.1555178133, 0.6 / 1.4 * 47.0721362448, 0.8 / 1.7 * 68.1471235171], abs=1e-9
    )
    assert found.values["buyer"][0].sum() == pytest.approx(49.4233851976, abs=1e-9)


def test_bargain_restores_buyer_power():
    grand = make(ID)
    deal = grand.analysis(grand.reset(0))["bargain"]
    assert deal["price"][0] == pytest.approx(1.134698, abs=5e-7)
    assert deal["buyer"][0] == pytest.approx(97.4698, abs=5e-5)
    apart = make(ID, preset="singletons")
    deal = apart.analysis(apart.reset(0))["bargain"]
    got = [deal[k][0] for k in ("price", "quantity", "buyer", "sellers")]
    assert got == pytest.approx([1.209173, 72.6187, 55.1168, 76.1896], abs=5e-5)


def test_selection_rules():
    everyone = make(ID, preset="singletons", selection="all")
    state = everyone.reset(0)
    found = everyone.equilibrium(state)
    assert not found.certified[0]  # searched, never certified
    _, outcome = everyone.step(state, found.actions)
    assert outcome.metrics["welfare"][0] == pytest.approx(194.9395845005, abs=1e-6)
    matched = make(ID, preset="singletons", selection="matching")
    state = matched.reset(0)
    found = matched.equilibrium(state)
    assert found.values["seller"][0] == pytest.approx([92.0, 40.2128913476], abs=6e-11)  # R2 and R7, side by side
    _, outcome = matched.step(state, found.actions)
    assert outcome.metrics["held"][0, 1] == 0


def test_merge_and_drop():
    merged = make(ID, formation="merge")
    assert merged.reset(0).history.labels.tolist() == [[0, 0, 0]]
    dropped = make(ID, preset="drop")
    state = dropped.reset(3, batch=60)
    assert 400 < np.median(dropped.rates(state)) < 850  # spec F22: median about 650
    found = dropped.equilibrium(state)
    assert found.certified.all()
    assert len({round(p, 6) for p in found.values["seller"][:, 0]}) > 30


def test_trace_channel(tmp_path):
    gains = np.full((3, 4, 2), -97.0)
    gains[:, :, 1] = -100.0
    path = tmp_path / "gains.npz"
    np.savez(path, gain_db=gains)
    market = make(ID, channel="trace", gains=str(path), users=1.0)
    state = market.reset(0)
    first = market.rates(state)
    state, _ = market.step(state, {"pricing": 1.2, "purchase": 10.0})
    assert np.all(market.rates(state) < first)
    with pytest.raises(InvalidParameter, match="gains"):
        make(ID, channel="trace")


def test_settlement_split_agrees_with_bisection():
    rng = np.random.default_rng(0)
    market = make(ID)
    rows, n = 3000, 4
    delay = (rng.random((rows, n)) < 0.4).astype(float)
    reputation, steep = rng.uniform(0.3, 1, (rows, n)), rng.choice([4.0, 6.0, 8.0, 10.0], (rows, n))
    need = np.exp(rng.uniform(0, 4, (rows, n)))
    load = np.full((rows, n), ARRIVALS * 0.01)
    iterate = market.backend.iterate
    ready = settlement.prepare(market.xp, iterate, 4 * reputation, steep, load, delay)
    curves = make_curves(4 * reputation * need, need, steep, load, delay)
    assert ready.choke == pytest.approx(curves.choke_price, rel=1e-12)
    member = rng.random((rows, 1, n)) < 0.75
    total = rng.uniform(0, 150, (rows, 1)) * (rng.random((rows, 1)) < 0.95)
    held = settlement.divide(market.xp, iterate, ready, need, member, total)
    some = member.any(axis=2)[:, 0]
    assert held.sum(axis=(1, 2))[some] == pytest.approx(total[some, 0], abs=1e-9)
    worth = settlement.worth(market.xp, ready, need, member, held).sum(axis=(1, 2))
    assert worth == pytest.approx(coalition_value(curves, member[:, 0], total[:, 0]), abs=1e-9)
    want, price = split(curves, member[:, 0], total[:, 0])
    bent = price > 1e-6  # where value saturates any split is as good
    assert np.abs(held[:, 0] - want)[bent].max() < 1e-6


def test_requests_are_cut_and_edges_are_safe():
    market = make(ID)
    state = market.reset(0)
    state, outcome = market.step(state, {"pricing": 1.0, "purchase": 50.0})
    assert outcome.metrics["rationed"][0] == 2
    assert outcome.metrics["sold"][0].tolist() == [50.0, 50.0]
    _, outcome = market.step(state, {"pricing": (np.array([[1.2, 1.8]])), "purchase": 0.0})
    assert outcome.metrics["mean_price"][0] == pytest.approx(1.5)
    assert outcome.payoffs["seller"][0].tolist() == [0.0, 0.0]
    assert outcome.payoffs["buyer"][0].sum() == pytest.approx(-3.0)
    dead = make(ID, prb_rate=(625.0, 0.0, 625.0))
    state = dead.reset(0)
    _, outcome = dead.step(state, {"pricing": 1.0, "purchase": 30.0})
    assert outcome.metrics["held"][0, 1] == 0
    assert all(np.all(np.isfinite(x)) for x in (*outcome.payoffs.values(), *outcome.metrics.values()))
    _, outcome = market.step(market.reset(0), {"pricing": 5.0, "purchase": -3.0})
    assert outcome.metrics["clipped"][0] == 8


@pytest.mark.parametrize("sharing", ["reputation", "equal", "shapley", "own"])
def test_members_share_exactly_the_coalition_utility(sharing):
    market = make(ID, sharing=sharing)
    state = market.reset(0)
    decisions = {"pricing": np.array([[1.3, 1.4]]), "purchase": np.array([[[20.0, 5.0], [3.0, 9.0], [8.0, 8.0]]])}
    outcome = market.outcome(state, decisions)
    bill = np.sum(outcome.metrics["sold"][0] * [1.3, 1.4])
    curves = make_curves(
        4 * np.array([36.0, 24.0, 0.8 * 17.184]),
        np.array([40, 40, 17.184]),
        6.0,
        ARRIVALS * 0.01,
        np.array([0, 0, 1.0]),
    )
    value = coalition_value(curves, np.ones(3, bool), np.array(outcome.metrics["quantity"][0]))
    assert outcome.payoffs["buyer"][0].sum() == pytest.approx(value - bill - 3.0, abs=1e-9)


def test_bad_input_names_the_culprit():
    for settings, match in (
        ({"partition": ((0, 1), (2,))}, "formation='fixed'"),
        ({"formation": "fixed", "partition": ((0, 1),)}, "every buyer"),
        ({"formation": "fixed", "partition": ((0, 1, 2), ())}, "empty coalition"),
        ({"service": ("embb", "embb", "video")}, "service 'video'"),
        ({"lease_price": 2.5}, "lease_price"),
        ({"price_min": 3.0}, "price_min"),
        ({"convexify": False}, "integer_prbs"),
        ({"selection": "lottery"}, "not offered"),
        ({"capacity": -1.0}, "capacity"),
        ({"total_capacity": True}, "model='paper'"),
        ({"n_buyers": 4}, "reputation|service"),
    ):
        with pytest.raises((InvalidParameter, MarketEnvsError), match=match):
            make(ID, **settings)
    with pytest.raises(UnknownName, match="reputation"):
        make(ID, reputations=0.5)
    market = make(ID)
    with pytest.raises(InvalidAction, match="finite"):
        market.step(market.reset(0), {"pricing": np.nan, "purchase": 1.0})


def test_best_replies_match_a_plain_search():
    """Coalition and sellers against brute force on a fine grid, at random profiles."""
    market = make(ID, **pair(0, 2))
    state = market.reset(0, batch=4)
    rng = np.random.default_rng(2)
    profile = {"pricing": rng.uniform(1, 2, (4, 2, 1)), "purchase": rng.uniform(0, 50, (4, 3, 2))}
    best = market.best_response(state, "pricing", profile)
    many = market.reset(0, batch=4 * 201)
    grid = np.linspace(1, 2, 201)
    for seller in range(2):
        prices = np.repeat(profile["pricing"], 201, axis=0)
        prices[:, seller, 0] = np.tile(grid, 4)
        answered = market.respond(many, {"pricing": prices})
        tried = answered.values["seller"][:, seller].reshape(4, 201).max(axis=1)
        assert np.all(best.values[:, seller] >= tried - 1e-9)
        assert np.all(best.values[:, seller] <= tried + 0.6)
    answer = market.best_response(state, "purchase", profile)
    played = market.payoff(state, profile)["buyer"].sum(axis=1)
    again = market.payoff(state, {**profile, "purchase": answer.decisions})["buyer"].sum(axis=1)
    assert again == pytest.approx(played + answer.gains.sum(axis=1), abs=1e-8)
    for _ in range(200):
        trial = rng.uniform(0, 50, (4, 3, 2))
        other = market.payoff(state, {**profile, "purchase": trial})["buyer"].sum(axis=1)
        assert np.all(other <= again + 1e-8)


@pytest.mark.parametrize("preset", ["default", "labels", "drop", "paper"])
@pytest.mark.parametrize("backend", ["torch", "array_api_strict"])
def test_array_libraries_agree(preset, backend):
    pytest.importorskip("torch" if backend == "torch" else "array_api_strict")
    outcomes = []
    for name in ("numpy", backend):
        market = make(ID, preset=preset, backend=name, dtype="float64")
        state = market.reset(5, batch=3)
        rng = np.random.default_rng(1)
        profile = {}
        for stage in market.stages:
            low, high = (market.backend.numpy(x) for x in market.bounds(state, stage.name))
            shape = (3, market.roles[stage.role], stage.codec.width)
            profile[stage.name] = np.round(low + (high - low) * rng.random(shape))
        state, outcome = market.step(state, profile)
        outcomes.append({k: market.backend.numpy(x) for k, x in outcome.payoffs.items()})
    for role, value in outcomes[0].items():
        assert outcomes[1][role] == pytest.approx(value, abs=1e-10)


def test_pure_equilibria_are_pure_strategies():
    market = make(ID)
    assert isinstance(market.equilibrium(market.reset(0)).strategy["pricing"], Pure)
    assert Curves._fields[0] == "amplitude"
    assert ID in marketenvs.list_markets()


def test_reward_lag_pays_last_rounds_trade():
    market = make(ID, preset="paper", reward_lag=True)
    state = market.reset(0)
    state, first = market.step(state, {"pricing": 1.0, "purchase": 50.0})
    assert first.payoffs["seller"][0].tolist() == [0.0, 0.0]
    _, second = market.step(state, {"pricing": 2.0, "purchase": 0.0})
    assert second.payoffs["seller"][0] == pytest.approx([92.0, 92.0])
