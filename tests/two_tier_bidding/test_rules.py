"""TwoTierBidding-v0 through the public surface: every reference case, every option, every array library."""

import numpy as np
import pytest

import marketenvs
from marketenvs.arrays import to_numpy
from marketenvs.errors import InvalidAction, InvalidParameter, UnknownName
from marketenvs.markets.two_tier_bidding import slices

from .reference import ACTIVITY, CAP, FLOOR, MULTIPLIER, SLA, SNR, USERS, ring_snr

ID = "TwoTierBidding-v0"
NO_BOX = {"floor_per_user": 0.0, "cap_per_user": 1000.0}


def make(preset=None, **params):
    return marketenvs.make(ID, preset=preset, **params)


def solved(market, batch=2):
    state = market.reset(0, batch)
    return state, market.equilibrium(state)


def close(actual, expected, digits=10):
    np.testing.assert_allclose(np.ravel(actual), np.ravel(expected), rtol=0, atol=1.01 * 10.0**-digits)


def bids_of(equilibrium):
    return equilibrium.actions["bidding"][0, :, 0]


def snr_market(snr, **params):
    return make(positions="given", snr_bandwidth=snr, spectral_multiplier=1.0, **NO_BOX, **params)


CASES = {
    "R1": (lambda: make(), (656.7863147034, 652.1193532018, 660.8552882529, 604.7029930993), 3573.4632414961),
    "R2": (
        lambda: make(payment="posted", price=tuple(1 - SNR[0] / SNR.sum())),
        (990.4347463317, 925.7799159683, 1050.6881829302, 472.4548758918),
        3578.3319553301,
    ),
    "R2b": (
        lambda: make(payment="efficient"),
        (990.4347463317, 925.7799159683, 1050.6881829302, 472.4548758918),
        3578.3319553301,
    ),
    "R3": (lambda: make(payment="eq4"), CAP, 3577.4689222963),
    "R4": (lambda: make("reduced"), (24.9886826618, 18.4698958805, 7.6052512449, 0), 86.8085106383),
    "R5": (
        lambda: make("reduced", value="log", value_weight=(4, 3, 2, 1)),
        (1.9438025462, 1.5622004522, 1.0714839721, 0.4170461582),
        13.5024140682,
    ),
    "R6": (
        lambda: make(cap_per_user=tuple(np.array([2700, 300, 2700, 100]) / USERS.sum(1))),
        (815.0390804188, 300, 817.8090023555, 100),
        3563.8485649110,
    ),
    "R7": (
        lambda: make(fading="statistical"),
        (641.7119642615, 637.0575979347, 645.7697641848, 589.7574390934),
        3493.2751052779,
    ),
    "R8": (
        lambda: snr_market((1.0, 5.0, 20.0, 100.0)),
        (0.2811182118, 1.2529906086, 3.5404642745, 6.9150564149),
        36.1494666232,
    ),
    "R9": (
        lambda: make(value_weight=(1, 1.05, 1.1, 1.2)),
        (558.9208989873, 646.9561344407, 743.3925469217, 841.6893098267),
        3912.1426787280,
    ),
    "R10": (
        lambda: make("reduced", n_operators=2, value_weight=(1.0, 2**0.5 - 1), users=((9, 11, 7), (8, 11, 7))),
        (2.0710678119, 0.8578643763),
        8.28427124746,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_reference_case(case):
    build, bids, welfare = CASES[case]
    market = build()
    state, equilibrium = solved(market)
    close(bids_of(equilibrium), bids)
    assert equilibrium.certified.all()
    _, outcome = market.step(state, {"bidding": equilibrium.actions["bidding"]})
    close(outcome.metrics["welfare"], [welfare, welfare])
    close(outcome.payoffs["bidder"], equilibrium.values["bidder"], 9)
    nash_conv = market.nash_conv(state, equilibrium.strategy)
    assert nash_conv.kind == "exact"
    assert nash_conv.upper.max() <= 1e-9 * (1 + welfare)


def test_profits_of_r1_r2_r3():
    for case, profits in (
        ("R1", (260.3975704438, 256.4218466129, 263.8972731481, 218.2826020339)),
        ("R2", (325.2368575319, 286.6023506725, 363.4295542122, 83.9902934652)),
        ("R3", (305.5274409590, 284.3973262433, 306.1633385854, 128.9572798379)),
    ):
        _, equilibrium = solved(CASES[case][0]())
        close(equilibrium.values["bidder"][0], profits)


def test_heterogeneous_preset():
    """Spec 4.17."""
    market = make("heterogeneous")
    state, equilibrium = solved(market)
    close(equilibrium.values["bidder"][0, 0], -0.24245891, 8)
    close(market.analysis(state)["efficiency"], [0.638117] * 2, 6)


def test_optimum_and_efficient_prices():
    market = make()
    state, _ = solved(market)
    close(market.social_optimum(state).value, [3578.3319553301] * 2)
    close(market.social_optimum(state).extra["bandwidth"][0], (2.8797084416, 2.6917232548, 3.0548964898, 1.3736718138))
    prices = market.analysis(state)["efficient_prices"]
    posted = make(payment="posted", price=tuple(prices[0]))
    state, equilibrium = solved(posted)
    close(posted.analysis(state)["efficiency"], [1, 1])
    assert equilibrium.certified.all()


def test_feedback_prices_converge():
    market = make(payment="posted", posting="feedback")
    state = market.reset(0, 1)
    target = market.social_optimum(state).extra["bandwidth"]
    for _ in range(101):
        state, outcome = market.step(state, {"bidding": market.equilibrium(state).actions["bidding"]})
    assert np.abs(outcome.metrics["bandwidth"] - target).max() == pytest.approx(1.7e-5, rel=0.05)


# -- lower tier -------------------------------------------------------------------------------------------------------


def tables_of(market):
    network = market.reset(0, 1).theta.network
    return network.ssr, network.rate, network.radial


@pytest.mark.parametrize("fading", ["mean"])
def test_tables_match_the_independent_oracle(fading):
    ours = tables_of(make("two_tier", fading=fading))
    theirs = slices.slice_tables(ring_snr(), USERS, ACTIVITY, SLA, MULTIPLIER, 0.2, 50)
    for a, b in zip(ours, theirs[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
    table = make("two_tier", lower="table").reset(0, 1).theta.network.best
    np.testing.assert_array_equal(table, slices.best_splits(theirs, 0.01, np.ones(3)).blocks)


def test_reference_numbers_of_the_lower_tier():
    market = make("two_tier")
    analysis = market.analysis(market.reset(0, 1))
    table = analysis["table_a"]
    close(table.utility[0, 0, [9, 13, 50]], (6.3630027082, 6.3460892672, 6.1734112139))
    assert tuple(table.blocks[0, 0, 9]) == (1, 7, 1)
    close(table.utility[0, 1:, 13], (6.3420306014, 6.3410020376, 6.2658817150))
    blocks, best = analysis["best_division"]
    assert tuple(blocks[0]) == (12, 11, 12, 15)
    close(best, 25.3119170447)


@pytest.mark.parametrize(
    ("omega", "unit", "blocks", "best", "digits"),
    [
        (0.1, "Mbps", (0, 0, 50, 0), 323.5186, 4),
        (0.02, "Mbps", (47, 1, 1, 1), 76.4888, 4),
        (1e-3, "Mbps", (34, 6, 6, 4), 26.7590822053, 10),
        (0.1, "Gbps", (11, 11, 10, 18), 25.40730767, 8),
    ],
)
def test_objective_optimum(omega, unit, blocks, best, digits):
    market = make("two_tier", payment="eq4", omega=omega, omega_unit=unit)
    found, value = market.analysis(market.reset(0, 1))["objective_optimum"]
    assert tuple(found[0]) == blocks
    close(value, best, digits)


@pytest.mark.parametrize(("scale", "size", "count"), [("log", 8, 2), ("linear", 10, 2), ("linear", 20, 0)])
def test_pool_markets_on_blocks(scale, size, count):
    market = make("two_tier", bid_levels=size, bid_scale=scale)
    state, equilibrium = solved(market)
    assert len(market.analysis(state)["pure_equilibria"][0]) == count
    nash_conv = market.nash_conv(state, equilibrium.strategy)
    if count:
        assert equilibrium.certified.all()
        assert nash_conv.upper.max() <= 1e-9
    else:
        assert not equilibrium.exists.any()
        assert not equilibrium.certified.any()
        close(nash_conv.lower, [23.534191534] * 2, 9)
        grid = np.linspace(FLOOR, CAP, 20)
        close(bids_of(equilibrium), grid[(4, 4, 4, 7), range(4)])


@pytest.mark.parametrize(("scale", "size", "count"), [("log", 8, 4), ("linear", 10, 1), ("linear", 20, 4)])
def test_pool_markets_continuous(scale, size, count):
    market = make(bid_levels=size, bid_scale=scale)
    state, equilibrium = solved(market)
    assert len(market.analysis(state)["pure_equilibria"][0]) == count
    assert equilibrium.certified.all()


def test_slicer_regret_by_loops():
    """Every legal split of one operator, paid by the rules themselves."""
    market = make("two_tier")
    state, equilibrium = solved(market, 1)
    profile = {"bidding": equilibrium.actions["bidding"], "slicing": np.array([[[1, 1], [2, 2], [0, 9], [5, 4]]])}
    gains = market.nash_conv(state, profile).gains["slicer"][0]
    committed = market.commit(state, "bidding", profile["bidding"])
    mask = market.action_mask(committed, "slicing")[0]
    pairs = market.stage("slicing").codec.table
    base = market.payoff(state, profile)["slicer"][0]
    for m in range(4):
        best = -np.inf
        for pair in pairs[mask[m]]:
            trial = np.array(profile["slicing"], float)
            trial[0, m] = pair
            best = max(best, market.payoff(state, {**profile, "slicing": trial})["slicer"][0, m])
        assert gains[m] == pytest.approx(best - base[m], abs=1e-12)


@pytest.mark.parametrize("reward", ["utility", "team", "paper"])
@pytest.mark.parametrize("payment", ["kelly", "eq4", "eq4_literal"])
def test_every_reward_has_an_exact_slicer(reward, payment):
    market = make("two_tier", reward=reward, payment=payment, bid_levels=3, ssr_noise="binomial")
    state = market.reset(0, 1)
    bids = np.array([[[900.0], [1300.0], [10.0], [1700.0]]])
    answer = market.respond(state, {"bidding": bids}).actions["slicing"]
    profile = {"bidding": bids, "slicing": answer}
    paid = market.payoff(state, profile)["slicer"]
    assert market.best_response(state, "slicing", profile).gains.max() == 0
    rng = np.random.default_rng(0)
    committed = market.commit(state, "bidding", bids)
    mask = market.action_mask(committed, "slicing")[0]
    for _ in range(40):
        m = rng.integers(4)
        other = np.array(answer)
        other[0, m] = market.stage("slicing").codec.table[rng.choice(np.flatnonzero(mask[m]))]
        trial = market.payoff(state, {"bidding": bids, "slicing": other})["slicer"]
        assert trial[0, m] <= paid[0, m] + 1e-12
        gain = market.best_response(state, "slicing", {"bidding": bids, "slicing": other}).gains
        assert gain[0, m] == pytest.approx(paid[0, m] - trial[0, m], abs=1e-10)


def test_illegal_splits_move_to_the_nearest_pair():
    market = make("two_tier", bid_levels=None)
    state = market.reset(0, 1)
    bids = np.array([[[1000.0], [1000.0], [1000.0], [1000.0]]])
    _, outcome = market.step(state, {"bidding": bids, "slicing": [[[50, 0], [9, 9], [2, 40], [3, 4]]]})
    m = outcome.metrics
    assert m["illegal_splits"][0] == 3
    got = np.stack([m[f"blocks_{s}"][0] for s in ("volte", "embb", "urllc")], -1)
    np.testing.assert_array_equal(got, [(13, 0, 0), (4, 9, 0), (0, 12, 0), (3, 4, 5)])
    np.testing.assert_array_equal(m["blocks"][0], (13, 13, 12, 12))


def test_simplex_splits():
    market = make("two_tier", split="simplex", bid_levels=None)
    state = market.reset(0, 1)
    bids = np.array([[[1000.0], [1000.0], [1000.0], [1000.0]]])
    _, outcome = market.step(state, {"bidding": bids, "slicing": [[[0, 0, 0], [1, 1, 0], [0.1, 0.2, 0.1], [0, 0, 1]]]})
    got = np.stack([outcome.metrics[f"blocks_{s}"][0] for s in ("volte", "embb", "urllc")], -1)
    np.testing.assert_array_equal(got, [(5, 4, 4), (7, 6, 0), (3, 6, 3), (0, 0, 12)])
    market = make("two_tier", split="simplex", bid_levels=5)
    state, equilibrium = solved(market, 1)
    assert market.nash_conv(state, equilibrium.strategy).upper.max() <= 1e-9
    pairs = make("two_tier", bid_levels=5)
    other = pairs.equilibrium(pairs.reset(0, 1))
    close(equilibrium.values["slicer"], other.values["slicer"])


# -- controls, posting, fading ----------------------------------------------------------------------------------------


def test_merged_operators():
    market = make("two_tier", control="merged", reward="utility")
    state, equilibrium = solved(market)
    assert market.roles == {"operator": 4}
    assert [s.role for s in market.stages] == ["operator", "operator"]
    assert market.nash_conv(state, equilibrium.strategy).upper.max() <= 1e-9
    assert equilibrium.certified.all()


def test_central_control_by_loops():
    market = make("paper")
    state, equilibrium = solved(market, 1)
    stage = market.stage("bidding")
    low, high = market.bounds(state, "bidding")
    every = stage.codec.decode(np, np.arange(256)[:, None], low, high)
    worth = [market.payoff(state, {"bidding": b[None]})["bidder"][0, 0] for b in every]
    assert equilibrium.values["bidder"][0, 0] == pytest.approx(max(worth), abs=1e-12)
    np.testing.assert_array_equal(stage.codec.encode(np, every, low, high)[:, 0], np.arange(256))


def test_shaped_reward_has_the_cliff_and_the_reference_maximum():
    """Spec 4.12 and section 7: 24.4995 over four-level pools with eq. (4) read as v'."""
    from marketenvs.markets.two_tier_bidding import literal

    one = np.ones(1)
    at = [literal.upper_reward(np, one, one, one, se * one, 185.0 * one)[0] for se in (219.99, 220.0)]
    assert at == [4.0, pytest.approx(3.0)]
    assert literal.upper_reward(np, one, one, 0.9 * one, 250 * one, 300 * one)[0] == pytest.approx(1.2)
    assert literal.upper_reward(np, one, 0.9 * one, one, 250 * one, 300 * one)[0] == -5
    assert literal.upper_reward(np, 0.9 * one, one, one, 250 * one, 300 * one)[0] == 0
    assert literal.upper_reward(np, one, one, one, 250 * one, 175 * one)[0] == pytest.approx(3.0)
    assert literal.upper_reward(np, one, one, one, 250 * one, 165 * one)[0] == 0
    assert literal.lower_reward(np, one, one, one, 300 * one)[0] == pytest.approx(6.0)
    assert literal.lower_reward(np, one, one, one, 279 * one)[0] == 4
    assert literal.lower_reward(np, one, one, 0.9 * one, 300 * one)[0] == pytest.approx(2.0)
    assert literal.lower_reward(np, one, 0.95 * one, one, 300 * one)[0] == -5
    market = make("paper", payment="eq4")
    _, equilibrium = solved(market, 1)
    close(equilibrium.values["bidder"], 24.4995, 4)
    table = slices.best_splits(
        slices.slice_tables(ring_snr(), USERS, ACTIVITY, SLA, MULTIPLIER, 0.2, 50), 0.01, np.ones(3)
    )
    n = np.indices((51, 51, 51)).reshape(3, -1)
    n = np.vstack([n, 50 - n.sum(0)])[:, n.sum(0) <= 50]
    c = 0.2 * np.arange(51)
    profit = table.rate - c * table.marginal * (1 - c / 10)

    def mean(column):
        return sum(column[0, m, n[m]] for m in range(4)) / 4

    shaped = literal.upper_reward(
        np, *(mean(table.ssr[..., s]) for s in range(3)), mean(table.rate) * 0.4, mean(profit)
    )
    assert tuple(n[:, shaped.argmax()]) == (9, 7, 27, 7)
    close(shaped.max(), 27.5298, 4)


def test_price_leadership():
    market = make(payment="posted", posting="agent")
    state, equilibrium = solved(market, 1)
    assert not equilibrium.certified.any()
    revenue = equilibrium.values["infrastructure"][0, 0]
    uniform = market.respond(state, {"posting": np.ones((1, 1, 4))})
    assert revenue >= uniform.values["infrastructure"][0, 0]
    rng = np.random.default_rng(0)
    for prices in np.exp(rng.uniform(np.log(0.01), np.log(10), (40, 1, 1, 4))):
        assert market.respond(state, {"posting": prices}).values["infrastructure"][0, 0] <= revenue + 1e-6
    follower = market.best_response(state, "bidding", equilibrium.strategy)
    assert follower.gains.max() <= 1e-9


def test_random_drop_differs_by_market_and_not_by_batch():
    market = make("drawn")
    state = market.reset(3, 5)
    welfare = market.social_optimum(state).value
    assert len(np.unique(welfare)) == 5
    alone = market.reset(3, 1, first=4)
    close(market.social_optimum(alone).value, welfare[4])
    assert market.equilibrium(state).certified.all()
    tiers = make("two_tier", positions="random", bid_levels=4)
    state, equilibrium = solved(tiers, 3)
    assert tiers.nash_conv(state, equilibrium.strategy).upper[equilibrium.certified].max() <= 1e-9
    single = tiers.equilibrium(tiers.reset(0, 1, first=2))
    close(single.actions["bidding"], equilibrium.actions["bidding"][2])


def test_sampled_fading_is_solved_per_round():
    market = make(fading="sampled")
    state, equilibrium = solved(market, 3)
    assert len(np.unique(bids_of(equilibrium))) == 4
    assert np.ptp(equilibrium.actions["bidding"][:, 0, 0]) > 0
    assert market.nash_conv(state, equilibrium.strategy).upper.max() <= 1e-9
    new, _ = market.step(state, {"bidding": equilibrium.actions["bidding"]})
    assert not np.allclose(market.equilibrium(new).actions["bidding"], equilibrium.actions["bidding"])
    tiers = make("two_tier", fading="sampled", bid_levels=3)
    state, equilibrium = solved(tiers, 2)
    assert tiers.nash_conv(state, equilibrium.strategy).gains["slicer"].max() <= 1e-12


def test_constant_density_is_linear():
    market = make(power_mode="psd")
    state, equilibrium = solved(market, 1)
    assert equilibrium.certified.all()
    one, two = (market.payoff(state, {"bidding": f * np.ones((1, 4, 1)) * 50})["bidder"] + f * 50 for f in (1, 2))
    close(one, two)


def test_binomial_reports_have_the_expected_mean():
    market = make("two_tier", ssr_noise="binomial")
    state = market.reset(0, 1000)
    profile = {"bidding": np.full((1, 4, 1), 900.0), "slicing": np.array([[[3, 6], [3, 5], [2, 4], [2, 2]]])}
    outcome = market.outcome(state, profile)
    mean = market.payoff(state, profile)["slicer"][0]
    spread = outcome.payoffs["slicer"].std(0) / np.sqrt(1000)
    assert (np.abs(outcome.payoffs["slicer"].mean(0) - mean) <= 4 * spread + 1e-12).all()
    counts = outcome.metrics["ssr_embb"] * 900
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
    assert outcome.metrics["ssr_embb"][:, 0].std() == pytest.approx(0.0, abs=0.05)
    assert outcome.metrics["ssr_embb"][:, 0].std() > 0


# -- edges and errors -------------------------------------------------------------------------------------------------


def test_nobody_bids():
    market = make("reduced")
    _, outcome = market.step(market.reset(0, 1), {"bidding": np.zeros((1, 4, 1))})
    for name in ("bandwidth", "rate", "profit"):
        assert (outcome.metrics[name] == 0).all()


def test_an_operator_without_users():
    market = make("two_tier", users=((0, 0, 0), (8, 11, 7), (6, 8, 13), (8, 0, 7)))
    state, equilibrium = solved(market, 1)
    _, outcome = market.step(state, equilibrium.actions)
    assert outcome.metrics["bandwidth"][0, 0] == 0
    assert outcome.metrics["utility"][0, 0] == 3  # three empty services are satisfied
    assert np.isfinite(outcome.payoffs["bidder"]).all()


def test_two_and_seven_operators():
    for n in (2, 7):
        market = make(n_operators=n)
        _, equilibrium = solved(market, 1)
        assert equilibrium.certified.all()
        assert market.observe(market.reset(0, 1), "bidding").shape == (1, n, 13)


def test_bad_decisions():
    market = make()
    state = market.reset(0, 1)
    for bad in (np.nan, np.inf):
        with pytest.raises(InvalidAction, match="bidder_2"):
            market.step(state, {"bidding": [[[1.0], [1.0], [bad], [1.0]]]})
    _, outcome = market.step(state, {"bidding": [[[0.0], [100.0], [9e9], [100.0]]]})
    assert outcome.metrics["clipped"][0] == 2
    close(outcome.metrics["bid"][0, :3], (1.377, 100.0, 2700.0))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lower": "agents"}, "allocation='blocks'"),
        ({"reward": "team"}, "lower tier"),
        ({"control": "merged"}, "lower='agents'"),
        ({"posting": "agent"}, "payment='posted'"),
        ({"floor_per_user": 5.0, "cap_per_user": 4.0}, "exceeds"),
        ({"bid_scale": "log", "floor_per_user": 0.0}, "positive floor"),
        ({"users": 2.5}, "whole numbers"),
        ({"activity": 0.0}, "activity"),
        ({"payment": "vickrey"}, "not offered"),
        ({"control": "central", "bid_levels": 30}, "joint bids"),
    ],
)
def test_contradictory_parameters(params, message):
    with pytest.raises(InvalidParameter, match=message):
        make(**params)


def test_unknown_names():
    with pytest.raises(UnknownName, match="two_tier"):
        make("two_tiers")
    with pytest.raises(UnknownName, match="bandwidth"):
        make(bandwith=3)


PRESETS = marketenvs.list_presets(ID)
TRACE = 10.0 ** np.random.default_rng(5).uniform(-9.0, -6.0, (97, 3, 4))  # users, PRBs, rounds
VARIANTS = {
    **{name: {"preset": name} for name in PRESETS},
    "full": {"observation": "full"},
    "efficient": {"payment": "efficient"},
    "eq4": {"preset": "two_tier", "payment": "eq4"},
    "agent": {"payment": "posted", "posting": "agent"},
    "feedback": {"payment": "posted", "posting": "feedback"},
    "statistical": {"preset": "two_tier", "fading": "statistical"},
    "sampled": {"preset": "two_tier", "fading": "sampled"},
    "noisy": {"preset": "two_tier", "ssr_noise": "binomial", "reward": "paper"},
    "simplex": {"preset": "two_tier", "split": "simplex", "bid_levels": None},
    "merged": {"preset": "two_tier", "control": "merged", "reward": "team"},
    "random_table": {"preset": "two_tier", "positions": "random", "lower": "table"},
    "central": {"preset": "two_tier", "control": "central", "bid_levels": None, "positions": "random"},
    "psd": {"power_mode": "psd"},
    "packet": {"preset": "two_tier", "traffic": "packet", "subframes": 12},
    "packet_table": {"preset": "two_tier", "lower": "table", "traffic": "packet", "subframes": 6, "fading": "sampled"},
    "trace": {"preset": "two_tier", "channel": "trace", "gains": TRACE},
}


def play(market, rounds=2, batch=2):
    """Payoffs of fixed fractions of the natural ranges."""
    state, out = market.reset(1, batch), []
    for _ in range(rounds):
        here, profile = state, {}
        for stage in market.stages:
            view = to_numpy(market.observe(here, stage.name))
            shape = (batch, market.roles[stage.role])
            assert view.shape == (*shape, *stage.observation_space.shape)
            assert (view >= 0).all()
            assert (view <= 1).all()
            low, high = (market.backend.numpy(b) for b in market.bounds(here, stage.name))
            fraction = np.linspace(0.1, 0.4, int(np.prod(shape)) * stage.codec.width).reshape(*shape, stage.codec.width)
            profile[stage.name] = market.backend.asarray(low + (high - low) * fraction)
            here = market.commit(here, stage.name, profile[stage.name])
        state, outcome = market.step(state, profile)
        out.append({k: market.backend.numpy(v) for k, v in {**outcome.payoffs, **outcome.metrics}.items()})
    return out


LIBRARIES = [
    pytest.param(v, b, marks=[pytest.mark.slow] if b == "jax" and v != "bidding" else [], id=f"{v}-{b}")
    for v in VARIANTS
    for b in ("torch", "array_api_strict", "jax")
]


@pytest.mark.parametrize(("variant", "backend"), LIBRARIES)
def test_array_libraries_agree(variant, backend):
    pytest.importorskip(backend)
    tolerance = 1e-9
    if backend == "jax":
        import jax

        if not jax.config.jax_enable_x64:
            tolerance = 2e-3
    expected = play(make(**VARIANTS[variant]))
    actual = play(make(**VARIANTS[variant], backend=backend))
    for a, b in zip(expected, actual, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if tolerance < 1e-3 or not name.startswith(("blocks", "ssr", "slicer", "illegal")):
                np.testing.assert_allclose(b[name], a[name], rtol=tolerance, atol=tolerance, err_msg=name)
