"""Options beside the default: conformance, what is never certified, bargaining, measured gains, formation and sharing rules."""

import itertools

import numpy as np
import pytest

from marketenvs import channel, make, testing
from marketenvs.arrays import Uniform
from marketenvs.errors import InvalidParameter, NotOffered
from marketenvs.markets.coalition_trading import mixed_replies, replies
from marketenvs.strategy import Samples

from . import second
from .test_reference_table import BUYERS, second_values

ID = "CoalitionTrading-v0"
UNEQUAL = {"n_sellers": 3, "capacity_rule": "given", "capacity": (60.0, 40.0, 20.0)}
OPTIONS = {
    "bargain": {"preset": "labels", "price_formation": "bargain", "reputation": Uniform(0.4, 1.0)},
    "ema": {"reputation_rule": "ema"},
    "matching": {"preset": "singletons", "selection": "matching"},
    "merge": {"formation": "merge"},
    "fixed": {"formation": "fixed", "partition": ((0, 2), (1,))},
    "total": {"purchase_mode": "total"},
    "equal": {"sharing": "equal"},
    "own": {"sharing": "own"},
    "shapley": {"sharing": "shapley"},
    "whole PRBs": {"integer_prbs": True, "price_levels": 100},
    "raw curves": {"convexify": False, "integer_prbs": True, "price_levels": 100},
    "unequal duopoly": {"capacity_rule": "given", "capacity": (60.0, 40.0)},
    "reward lag": {"preset": "paper", "reward_lag": True},
    "one limit": {"preset": "paper", "total_capacity": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_options_conform(name):
    settings = dict(OPTIONS[name])
    market = make(ID, preset=settings.pop("preset", None), **settings)
    for check in testing.CHECKS:
        if (name, check) != ("matching", "symmetry"):  # there seller k serves rank k: sellers are not interchangeable
            testing.run_check(check, market, "numpy")


# ------------------------------------------------------------ never certified


def test_three_unequal_sellers_get_the_best_profile_found_with_its_epsilon():
    market = make(ID, **UNEQUAL)
    state = market.reset(0)
    found = market.equilibrium(state)
    assert not found.certified.any()
    assert found.kind == "estimate"
    assert 0 < found.epsilon[0] < 0.05 * found.values["seller"].max()
    # The epsilon is honest: no seller gains more than it by any price of a fine grid, followers answering exactly.
    prices = found.strategy["pricing"]
    assert isinstance(prices, Samples)
    rng = np.random.default_rng(0)
    drawn = prices.draw(rng.random((1500, 3)))[:, :, 0]
    many = market.reset(0, batch=1500)

    def profit(joint):
        return market.respond(many, {"pricing": joint[:, :, None]}).values["seller"].mean(axis=0)

    base = profit(drawn)
    assert base == pytest.approx(found.values["seller"][0], rel=0.03)
    for k in range(3):
        gains = []
        for p in np.linspace(1.0, 2.0, 11):
            moved = drawn.copy()
            moved[:, k] = p
            gains.append(profit(moved)[k] - base[k])
        assert max(gains) <= found.epsilon[0] + 1.0  # sampling error of 1500 draws


@pytest.mark.parametrize("partition", [((0,), (1,), (2,)), ((0, 1), (2,)), ((0,), (1, 2))])
def test_all_served_every_coalitions_gain_is_what_it_earns_by_moving_alone(partition):
    """Coalitions share one pool of PRBs: each deviates with the others' requests held fixed."""
    market = make(ID, formation="fixed", partition=partition, selection="all")
    state = market.reset(0, batch=6)
    rng = np.random.default_rng(1)
    profile = {"pricing": rng.uniform(1, 2, (6, 2, 1)), "purchase": rng.uniform(0, 40, (6, 3, 2))}
    best = market.best_response(state, "purchase", profile)
    groups = market.joint_groups(state, profile)
    assert {tuple(np.flatnonzero(groups[0] == g)) for g in np.unique(groups[0])} == set(partition)
    played = market.payoff(state, profile)["buyer"]
    assert best.values == pytest.approx(played + best.gains, abs=1e-9)
    for members in partition:
        who = list(members)
        moved = profile["purchase"].copy()
        moved[:, who] = best.decisions[:, who]
        earned = market.payoff(state, {**profile, "purchase": moved})["buyer"][:, who].sum(axis=1)
        assert earned == pytest.approx(best.values[:, who].sum(axis=1), abs=1e-8)
        for _ in range(100):
            moved[:, who] = rng.uniform(0, 50, (6, len(who), 2)) * rng.integers(0, 2, (6, 1, 2))
            other = market.payoff(state, {**profile, "purchase": moved})["buyer"][:, who].sum(axis=1)
            assert np.all(other <= earned + 1e-8)
    prices = market.best_response(state, "pricing", profile)
    for k in range(2):
        moved = profile["pricing"].copy()
        moved[:, k] = prices.decisions[:, k]
        earned = market.respond(state, {"pricing": moved}).values["seller"][:, k]
        assert earned == pytest.approx(prices.values[:, k], abs=1e-7)
    found = market.equilibrium(state)
    assert not found.certified.any()
    assert found.kind == "estimate"
    assert np.all(market.nash_conv(state, found.strategy).gains["seller"].max(axis=1) <= found.epsilon + 0.3)


# ------------------------------------------------------------ bargained prices


def test_bargained_prices_as_printed():
    """Spec section 9: beta = 1/2, grand coalition and singletons; the runner-up's posted prices are the fallback."""
    market = make(ID, preset="labels", price_formation="bargain")
    assert market.roles == {"buyer": 3}
    assert [s.name for s in market.stages] == ["coalition"]
    state = market.reset(0, batch=2)
    labels = np.array([[[0.0], [0.0], [0.0]], [[0.0], [1.0], [2.0]]])
    outcome = market.outcome(state, {"coalition": labels})
    paid, earned = outcome.payoffs["buyer"], outcome.metrics["profit"]
    assert outcome.metrics["price"][:, 0] == pytest.approx([1.134698, 1.209173], abs=5e-7)
    assert outcome.metrics["quantity"] == pytest.approx([100.0, 72.6187], abs=5e-5)
    assert paid.sum(axis=1) == pytest.approx([97.4698 - 3.0, 55.1168], abs=5e-5)
    assert earned.sum(axis=1) == pytest.approx([97.4698, 76.1896], abs=6e-5)
    assert outcome.metrics["welfare"] == pytest.approx(paid.sum(axis=1) + earned.sum(axis=1))
    found = market.equilibrium(state)
    assert found.kind == "exact"
    assert found.certified.all()
    assert market.nash_conv(state, found.strategy).lower == pytest.approx([0.0, 0.0])


def test_bargaining_power_moves_the_surplus_and_nothing_else():
    worth = []
    for power in (0.0, 0.3, 1.0):
        market = make(ID, preset="labels", price_formation="bargain", bargaining_power=power)
        outcome = market.outcome(market.reset(0), {"coalition": np.zeros((1, 3, 1))})
        worth.append((outcome.payoffs["buyer"].sum() + 3.0, outcome.metrics["welfare"][0]))
    gross, welfare = np.array(worth).T
    assert gross == pytest.approx(np.array([0.0, 0.3, 1.0]) * 194.9395845005, abs=1e-8)
    assert welfare == pytest.approx([194.9395845005 - 3.0] * 3, abs=1e-8)


def test_bargained_coalitions_by_enumeration():
    """Every labelling's payoff and every label mixture's gain against plain sums."""
    market = make(ID, preset="labels", price_formation="bargain", reputation=(0.95, 0.44, 0.5))
    state = market.reset(0)
    rng = np.random.default_rng(3)
    weights = rng.dirichlet(np.ones(3), size=(1, 3)).transpose(2, 0, 1)
    mixture = Samples(np.arange(3.0)[:, None, None, None], weights)
    best = market.best_response(state, "coalition", {"coalition": mixture})
    value = np.zeros((3, 3))
    for labels in itertools.product(range(3), repeat=3):
        paid = market.payoff(state, {"coalition": np.array(labels, float)[None, :, None]})["buyer"][0]
        for i in range(3):
            value[i, labels[i]] += paid[i] * np.prod([weights[labels[j], 0, j] for j in range(3) if j != i])
    played = np.sum(value * weights[:, 0].T, axis=1)
    assert best.gains[0] == pytest.approx(value.max(axis=1) - played, abs=1e-9)
    assert market.payoff(state, {"coalition": mixture})["buyer"][0] == pytest.approx(played, abs=1e-9)
    assert best.kind == "exact"


def test_bargain_says_where_it_is_offered():
    for settings in ({}, {"formation": "labels", "price_levels": 100}, {"formation": "labels", "channel": "drop"}):
        with pytest.raises(InvalidParameter, match="price_formation='bargain'"):
            make(ID, price_formation="bargain", **settings)
    with pytest.raises(InvalidParameter, match="identical sellers"):
        make(ID, preset="labels", price_formation="bargain", lease_price=(0.1, 0.2))


@pytest.mark.slow
def test_drawn_tables_say_that_they_need_numpy():
    jax = pytest.importorskip("jax")
    drawn = make(ID, preset="labels", price_formation="bargain", reputation=Uniform(0.4, 1.0), backend="jax")
    with pytest.raises(NotOffered, match=r"outside jax\.jit"):
        jax.jit(drawn.reset_keys)(drawn.reset(0).seed)


def test_reputation_follows_what_is_sold():
    """Spec section 2: (1 - .05) Omega + .05 sold / offered, in rounds with sales only, within [.05, 1]."""
    market = make(ID, reputation_rule="ema")
    state, want = market.reset(0), np.ones(2)
    for asked in ([10.0, 0.0], [5.0, 5.0], [0.0, 0.0]):
        purchase = np.zeros((1, 3, 2))
        purchase[0, 0] = asked
        state, outcome = market.step(state, {"pricing": 1.2, "purchase": purchase})
        sold = np.array(asked)
        want = np.where(sold > 0, 0.95 * want + 0.05 * sold / 50.0, want)
        assert outcome.metrics["seller_reputation"][0] == pytest.approx(want, abs=1e-12)
    assert want == pytest.approx([0.95 * 0.96 + 0.05 * 0.1, 0.955], abs=1e-12)
    quick = make(ID, reputation_rule="ema", reputation_rate=1.0)
    state, outcome = quick.step(quick.reset(0), {"pricing": 1.2, "purchase": np.full((1, 3, 2), 0.01)})
    assert outcome.metrics["seller_reputation"][0] == pytest.approx([0.05, 0.05])  # never below .05
    with pytest.raises(InvalidParameter, match="reputation_rate"):
        make(ID, reputation_rule="ema", reputation_rate=0.0)


# ------------------------------------------------------------ coalitions, shares


def test_analysis_against_enumeration_for_four_buyers():
    """Shapley, payoffs and stability of all 15 partitions of four drawn buyers, listed in plain Python."""
    reputation = tuple(np.random.default_rng(4).uniform(0.4, 1.0, 4).round(3))
    service = ("embb", "urllc", "embb", "mmtc")
    market = make(ID, n_buyers=4, reputation=reputation, service=service, formation="labels")
    extra = market.analysis(market.reset(0))
    sets = [z for size in range(1, 5) for z in itertools.combinations(range(4), size)]
    worth = {frozenset(z): extra["coalition_surplus"][0, sum(1 << i for i in z)] for z in sets}
    listed = {tuple(row): k for k, row in enumerate(extra["partitions"])}
    count = 0
    for partition in second.partitions([0, 1, 2, 3]):
        labels = np.array([min(z) for i in range(4) for z in partition if i in z])
        (row,) = [k for p, k in listed.items() if np.array_equal(np.equal.outer(p, p), np.equal.outer(labels, labels))]
        paid = second.payoffs(partition, worth, reputation, 0.5)
        assert extra["partition_payoff"][0, row] == pytest.approx([paid[i] for i in range(4)], abs=1e-9)
        nash, individual = second.stable(partition, worth, reputation, 0.5)
        assert (extra["nash_stable"][0, row], extra["individually_stable"][0, row]) == (nash, individual)
        count += 1
    assert count == len(listed) == 15
    assert extra["shapley"][0] == pytest.approx(second.shapley(worth, reputation, 0.5), abs=1e-9)


@pytest.mark.parametrize("sharing", ["reputation", "equal", "shapley"])
def test_shares_of_the_grand_coalition(sharing):
    market = make(ID, sharing=sharing)
    shares = market.analysis(market.reset(0))["shares"][0]
    reputation = np.array([0.9, 0.6, 0.8])
    printed = np.array([19.180777274, 8.643283638, 21.599324286])  # C1
    want = {"reputation": reputation / 2.3, "equal": np.full(3, 1 / 3), "shapley": printed / printed.sum()}[sharing]
    assert shares == pytest.approx(want, abs=1e-9)
    found = market.equilibrium(market.reset(0))
    assert found.values["buyer"][0] == pytest.approx(want * 49.4233851976, abs=1e-8)


def test_own_books():
    """Own value less own bill at R1: everybody pays 1.585 for what it holds, and carries its part of the signalling cost."""
    market = make(ID, sharing="own")
    found = market.equilibrium(market.reset(0))
    price, held = 1.5851619930, [56.3249257840, 20.7313828132, 22.9436914028]
    from .reference import Tenant

    worth = []
    for kind, reputation, w in zip(("embb", "embb", "urllc"), (0.9, 0.6, 0.8), held, strict=True):
        one = Tenant(reputation, kind)
        worth.append(one.p_hat * w if w <= one.w_hat else one.g(w))
    assert found.values["buyer"][0] == pytest.approx(np.array(worth) - price * np.array(held) - 1.0, abs=1e-7)
    assert found.values["buyer"].sum() == pytest.approx(49.4233851976, abs=1e-7)


@pytest.mark.slow
def test_merging_stops_where_the_second_method_stops():
    for case, (reputation, _) in BUYERS.items():
        worth = second_values(case)
        partition = [(0,), (1,), (2,)]
        while True:
            here = second.payoffs(partition, worth, reputation, 0.5)
            tries = []
            for a, b in itertools.combinations(partition, 2):
                after = [z for z in partition if z not in (a, b)] + [tuple(sorted(a + b))]
                paid = second.payoffs(after, worth, reputation, 0.5)
                tries.append((sum(paid[i] - here[i] for i in a + b), after))
            gain, after = max(tries, key=lambda t: t[0]) if tries else (0.0, partition)
            if gain <= 1e-6:
                break
            partition = after
        labels = make(ID, formation="merge", reputation=reputation).reset(0).history.labels[0]
        assert {tuple(np.flatnonzero(labels == x)) for x in np.unique(labels)} == set(partition), case


# ------------------------------------------------------------ whole PRBs


def test_whole_prbs_split_and_settle_as_tabled():
    market = make(ID, integer_prbs=True)
    state = market.reset(0, batch=1)
    asked = np.array([[[10.7, 3.2], [0.0, 5.9], [7.0, 7.0]]])
    outcome = market.outcome(state, {"pricing": 1.2, "purchase": asked})
    assert outcome.metrics["sold"][0].tolist() == [17.0, 15.0]  # requests are rounded down
    from .reference import Tenant

    everybody = [Tenant(r, k) for r, k in zip(*BUYERS["C1"], strict=True)]

    def worth(one, w):
        return one.p_hat * w if w <= one.w_hat else one.g(w)

    best = max(
        worth(everybody[0], a) + worth(everybody[1], b) + worth(everybody[2], 32 - a - b)
        for a in range(33)
        for b in range(33 - a)
    )
    assert outcome.payoffs["buyer"].sum() == pytest.approx(best - 1.2 * 32 - 3.0, abs=1e-9)


# ------------------------------------------------------------ measured gains


def test_measured_gains_set_the_rates(tmp_path):
    """Two slots, two users a buyer: rates by hand, no Rayleigh average on top of measured fading, npz and CSV alike."""
    gains = np.random.default_rng(0).uniform(-110, -85, (6, 4, 2))
    path, table = tmp_path / "gains.npz", tmp_path / "gains.csv"
    np.savez(path, gain_db=gains)
    lines = [f"{u},{p},{t},{gains[u, p, t]}" for u in range(6) for p in range(4) for t in range(2)]
    table.write_text("user,prb,slot,gain_db\n" + "\n".join(lines) + "\n")
    noise = 10 ** (-120.98970004336019 / 10) + 10 ** (-90 / 10)  # mW per PRB of 200 kHz, with interference
    efficiency = np.log2(1 + 10 ** ((10.0 + gains) / 10) / noise).mean(axis=1)  # users x slots
    by_hand = 200.0 / np.mean(1.0 / efficiency.reshape(3, 2, 2), axis=1)  # equal rates: harmonic mean over users
    for file in (path, table):
        market = make(ID, channel="trace", gains=str(file))
        state = market.reset(0)
        for slot in (0, 1, 0):
            assert market.rates(state)[0] == pytest.approx(by_hand[:, slot], rel=1e-9)
            found = market.equilibrium(state)
            assert found.certified.all()
            state, _ = market.step(state, {"pricing": 1.2, "purchase": 10.0})
    with pytest.raises(InvalidParameter, match="6 users, which 4 buyers"):
        make(ID, channel="trace", gains=str(path), n_buyers=4, reputation=0.8, service="embb")
    with pytest.raises(InvalidParameter, match="no trace file"):
        make(ID, channel="trace", gains=str(tmp_path / "missing.npz"))


def test_trace_efficiency_is_the_mean_over_blocks():
    radio = channel.radio_preset("iiot_noise_limited")
    gain = np.array([[[1e-9], [3e-9], [0.0]]])
    noise = 10 ** (radio.prb_noise_dbm / 10)
    want = np.mean([np.log2(1 + 10.0 * g / noise) for g in gain[0, :, 0]])
    assert radio.trace_efficiency(gain)[0, 0] == pytest.approx(want, rel=1e-9)
    assert radio.fading == "rayleigh-ergodic"  # the radio would average; a measurement must not be


# ------------------------------------------------------------ mixtures


def test_label_mixtures_are_judged_exactly():
    market = make(ID, preset="labels")
    state = market.reset(0, batch=2)
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(3), size=(2, 3)).transpose(2, 0, 1)
    profile = {
        "coalition": Samples(np.arange(3.0)[:, None, None, None], weights),
        "pricing": np.full((2, 2, 1), 1.2),
        "purchase": np.zeros((2, 3, 2)),
    }
    best = market.best_response(state, "coalition", profile)
    value = np.zeros((2, 3, 3))
    for labels in itertools.product(range(3), repeat=3):
        named = np.repeat(np.array(labels, float)[None, :, None], 2, axis=0)
        earned = market.respond(state, {"coalition": named}).values["buyer"]
        for i in range(3):
            others = np.prod([weights[labels[j], :, j] for j in range(3) if j != i], axis=0)
            value[:, i, labels[i]] += others * earned[:, i]
    played = np.einsum("bik,kbi->bi", value, weights)
    assert best.kind == "exact"
    assert best.gains == pytest.approx(value.max(axis=2) - played, abs=1e-9)


def test_chances_of_samples_match_counting():
    rng = np.random.default_rng(2)
    values = rng.choice(np.linspace(1, 2, 9), size=(20, 3, 2, 1))
    weights = rng.dirichlet(np.ones(20), size=(3, 2)).transpose(2, 0, 1)
    chances, _ = mixed_replies._chances(Samples(values, weights), 3, 2)
    price = np.concatenate([np.linspace(0.9, 2.1, 30), np.linspace(1, 2, 9)])[None] + np.zeros((3, 1))
    below, at = chances(price)
    point = values[..., 0]
    assert below == pytest.approx(np.einsum("sbm,sbmc->bmc", weights, point[..., None] < price[:, None, :]))
    assert at == pytest.approx(np.einsum("sbm,sbmc->bmc", weights, point[..., None] == price[:, None, :]), abs=1e-12)
    assert replies.FINE > 100
