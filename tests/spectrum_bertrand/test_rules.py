"""The market as users meet it: reference cases through the public surface, settlement, expectation, options, bad input."""

import itertools

import numpy as np
import pytest

import marketenvs as me
from marketenvs.markets.spectrum_bertrand import literal
from marketenvs.testing import probe

ID = "SpectrumBertrand-v0"
RULES = ("posted", "first_price", "all_pay")
OPTIONS = [
    ("desk", {"payment": "all_pay"}),
    ("desk", {"payment": "first_price", "bid_encoding": "relative"}),
    ("desk", {"payment": "posted"}),
    ("desk", {"matching": "pooled", "payment": "first_price"}),
    ("desk", {"channel_choice": "explicit"}),
    ("desk", {"channels": 6, "price_groups": 3, "payment": "first_price"}),
    ("desk", {"values": "private", "payment": "first_price"}),
    ("desk", {"channels": (2, 5), "unit_cost": (0.1, 0.0)}),
    ("drawn", {}),
    ("grid", {}),
    ("clearing", {}),
    ("clearing", {"demand_curve": "linear", "channels": 7, "demand": 10.0}),
    ("calvano", {}),
    ("radio", {}),
]


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        (
            {"preset": "table1_10_100"},
            [
                (0.043828545177, 0.934941953573, 0.214277185558),
                (0.043269230769, 0.914528971602, 0.316342095414),
                (0.043231186961, 0.912658391397, 0.325694996439),
            ],
        ),
        (
            {"preset": "table1_50_100"},
            [
                (0.210892042575, 0.699741301113, 4.675211765308),
                (0.197580645161, 0.627671416991, 6.476958868365),
                (0.192607839683, 0.589615835763, 7.428348399055),
            ],
        ),
        (
            {"preset": "desk"},
            [(0.264008076729, 0.632769056032, 0.453961887935), (0.25, 0.54675, 0.626), (0.243, 0.486, 0.7475)],
        ),
        (
            {"n_buyers": 30, "channels": 10},
            [
                (0.724875759103, 0.144047942600, 5.692893221573),
                (0.604166666667, 0.089432818310, 6.512120085927),
                (0.225935540993, 0.0, 7.853612360571),
            ],
        ),
        (
            {"n_sellers": 3, "n_buyers": 6, "channels": 3},
            [
                (0.356736568823, 0.488941139917, 0.542307167349),
                (0.238095238095, 0.422803015091, 0.674583417001),
                (0.173415299158, 0.381513658148, 0.757162130886),
            ],
        ),
    ],
)
@pytest.mark.parametrize("rule", range(3))
def test_reference_equilibria_through_make(settings, rows, rule):
    """R1, R3, R5-R7 as a user asks for them, certified, with no gain left for anybody."""
    market = me.make(ID, payment=RULES[rule], **settings)
    state = market.reset(0, batch=2)
    found = market.equilibrium(state)
    price, payoff, profit = rows[rule]
    np.testing.assert_allclose(found.strategy["pricing"].decisions, price, atol=1e-11)
    np.testing.assert_allclose(found.values["buyer"], payoff, atol=1e-11)
    np.testing.assert_allclose(found.values["seller"], profit, atol=1e-11)
    assert found.certified.all()
    assert found.kind == "exact"
    conv = market.nash_conv(state, found.strategy)
    assert conv.kind == "exact"
    assert conv.upper.max() < 1e-9


def test_unequal_sellers_through_make():
    """R8 first_price, and the buyers' payoff at posted prices of R12."""
    market = me.make(ID, n_buyers=10, channels=(6, 14), unit_cost=(0.1, 0.0), payment="first_price")
    found = market.equilibrium(market.reset(0))
    np.testing.assert_allclose(found.strategy["seller"].decisions[0, :, 0], (0.301239119, 0.479540159), atol=1e-9)
    np.testing.assert_allclose(found.values["seller"][0], (1.293429466, 2.721794233), atol=1e-9)
    desk = me.make(ID, preset="desk", payment="posted")
    state = desk.reset(0)
    answer = desk.respond(state, {"pricing": np.array([[[0.2], [0.4]]])})
    np.testing.assert_allclose(answer.values["buyer"], 0.595228759268, atol=1e-11)


def test_clearing_and_logit_through_make():
    """R10 and R11: mixtures as strategies with their distribution; Nash and monopoly prices in the analysis."""
    market = me.make(ID, preset="clearing")
    state = market.reset(0, batch=2)
    found = market.equilibrium(state)
    np.testing.assert_allclose(found.values["seller"], 10.0, atol=1e-12)
    u = (np.arange(4000) + 0.5) / 4000
    mean = np.mean([found.strategy["pricing"].draw(np.full((1, 2), x))[0, 0, 0] for x in u])
    assert abs(mean - 0.693147180560) < 1e-4
    assert market.nash_conv(state, found.strategy).upper.max() < 1e-9
    with pytest.raises(me.InvalidAction, match="mixed"):
        found.actions  # noqa: B018
    study = me.make(ID, preset="calvano", price_levels=None)
    state = study.reset(0)
    np.testing.assert_allclose(study.equilibrium(state).actions["pricing"], 1.47292666003, atol=1e-10)
    extra = study.analysis(state)
    np.testing.assert_allclose(extra["monopoly_price"], 1.92498091902, atol=1e-10)
    np.testing.assert_allclose(extra["nash_profit"], 2 * 0.222926660031, atol=1e-10)
    np.testing.assert_allclose(extra["joint_profit"], 2 * 0.337490459509, atol=1e-10)


def test_calvano_grid_has_its_own_oracle():
    """15 prices: the grid's Nash prices are 1.4665 and 1.5052 (spec 7), certified by enumeration."""
    market = me.make(ID, preset="calvano")
    state = market.reset(0)
    found = market.equilibrium(state)
    assert found.certified.all()
    price = found.actions["pricing"].reshape(-1)
    assert all(min(abs(x - 1.4665), abs(x - 1.5052)) < 5e-5 for x in price)
    assert market.nash_conv(state, found.strategy).upper.max() < 1e-12


def test_collusion_index():
    """Delta is 0 at Nash and 1 at the joint optimum, in the metrics of every round."""
    market = me.make(ID, preset="calvano", price_levels=None)
    state = market.reset(0)
    extra = market.analysis(state)
    for price, delta in (
        (market.equilibrium(state).actions["pricing"], 0.0),
        (extra["monopoly_price"][..., None], 1.0),
    ):
        _, outcome = market.step(state, {"pricing": price})
        np.testing.assert_allclose(outcome.metrics["collusion_index"], delta, atol=1e-9)


@pytest.mark.parametrize("n", [2, 3])
def test_collusion_index_of_unequal_sellers(n):
    """Drawn qualities and costs: still 0 at every market's own Nash prices and 1 at its own joint monopoly; between in between."""
    market = me.make(
        ID,
        preset="calvano",
        n_sellers=n,
        price_levels=None,
        quality=me.Uniform(1.4, 2.6),
        unit_cost=me.Uniform(0.8, 1.2),
        price_floor=0.5,
        price_cap=4.0,
    )
    state = market.reset(0, batch=6)
    extra = market.analysis(state)
    low, high = market.equilibrium(state).actions["pricing"], extra["monopoly_price"][..., None]
    delta = [
        market.step(state, {"pricing": low + share * (high - low)})[1].metrics["collusion_index"]
        for share in (0, 0.5, 1)
    ]
    np.testing.assert_allclose(delta[0], 0.0, atol=1e-9)
    np.testing.assert_allclose(delta[2], 1.0, atol=1e-9)
    assert np.all((delta[1] > 0.2) & (delta[1] < 1.0))


@pytest.mark.parametrize(("preset", "options"), OPTIONS)
def test_budget_balances_every_step(preset, options):
    """All rewards add up to value x trades minus costs: payments are transfers."""
    market = me.make(ID, preset=preset, **options)
    state = market.reset(5, batch=6)
    for turn in range(6):
        profile = probe.random_profile(market, state, turn)
        theta = state.theta
        types = np.asarray(state.nature["type"]) if market.params.values == "private" else None
        after, outcome = market.step(state, profile)
        total = sum(p.sum(1) for p in outcome.payoffs.values())
        sales = outcome.metrics["sales"]
        cost = (theta.unit_cost * sales).sum(1)
        if market.auction:
            worth = theta.worth * (1.0 if types is None else types)
            gross = (worth * outcome.metrics["won"]).sum(1)
            assert np.all(sales <= theta.channels)
            np.testing.assert_allclose(total, gross - cost, atol=1e-12)
            np.testing.assert_allclose(outcome.metrics["trades"], sales.sum(1), atol=1e-12)
        else:
            price = after.history.price
            np.testing.assert_allclose(total, ((price - theta.unit_cost) * sales).sum(1), atol=1e-12)
        np.testing.assert_allclose(outcome.metrics["welfare"], total, atol=1e-12)
        state = after


@pytest.mark.parametrize(("preset", "options"), OPTIONS[:7])
def test_expectation_is_the_mean_of_settlement(preset, options):
    """`payoff` against 20000 realised rounds of the same decisions with fresh landings and ties."""
    market = me.make(ID, preset=preset, **options)
    many = 20_000
    state = market.reset(1, batch=many)
    if market.params.values == "private":
        state.nature["type"][:] = state.nature["type"][:1]
    one = probe.random_profile(market, market.take(state, [0]), 3)
    one["pricing"] = one["pricing"] * 0.5
    one["bidding"][..., 1] = np.round(0.5 + one["bidding"][..., 1] * 0.5, 1)  # ties happen
    profile = {k: np.repeat(v, many, 0) for k, v in one.items()}
    expected = market.payoff(state, profile)
    outcome = market.outcome(state, profile)
    for role in expected:
        error = outcome.payoffs[role].std(0) / np.sqrt(many)
        assert np.all(np.abs(outcome.payoffs[role].mean(0) - expected[role][0]) < 5 * error + 1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_equilibrium_play_earns_the_equilibrium_values(rule):
    """Drawing everybody's mixture (R6): realised means within 5 standard errors of pi and R."""
    market = me.make(ID, preset="desk", payment=rule)
    many = 20_000
    state = market.reset(2, batch=many)
    found = market.equilibrium(state)
    prices = found.strategy["pricing"].decisions
    here = market.committed(state, {"pricing": prices})
    bids = found.strategy["bidding"].answer(here).draw(np.random.default_rng(0).uniform(size=(many, 4)))
    outcome = market.outcome(state, {"pricing": prices, "bidding": bids})
    for role, values in found.values.items():
        error = outcome.payoffs[role].std(0) / np.sqrt(many)
        assert np.all(np.abs(outcome.payoffs[role].mean(0) - values[0]) < 5 * error)


@pytest.mark.parametrize("options", [o for _, o in OPTIONS[:8]])
def test_buyers_replies_against_a_search(options):
    """Exact best replies beat a fine grid of deviations, and are attained (up to the open supremum)."""
    market = me.make(ID, preset="desk", **options)
    state = market.reset(4, batch=3)
    profile = probe.random_profile(market, state, 1)
    profile["pricing"] = profile["pricing"] * 0.3
    reply = market.best_response(state, "bidding", profile)
    _, high = market.bounds(state, "bidding")
    base = market.payoff(state, profile)["buyer"]
    for buyer in range(market.params.n_buyers):
        best = np.full(3, -np.inf)
        for group, share in itertools.product(range(market.groups + 1), np.linspace(0, 1, 41)):
            tried = {k: np.array(v) for k, v in profile.items()}
            tried["bidding"][:, buyer] = np.stack(
                [np.full(3, group + 0.25), share * np.broadcast_to(high, (3, 1, 2))[:, 0, 1]], -1
            )
            best = np.maximum(best, market.payoff(state, tried)["buyer"][:, buyer])
        assert np.all(reply.values[:, buyer] >= best - 1e-9)
        tried = {k: np.array(v) for k, v in profile.items()}
        tried["bidding"][:, buyer] = reply.decisions[:, buyer]
        got = market.payoff(state, tried)["buyer"][:, buyer]
        np.testing.assert_allclose(got, reply.values[:, buyer], atol=1e-6)
    assert np.all(reply.values >= base - 1e-12)


def test_price_blocks_and_explicit_channels_have_the_same_equilibrium():
    """One price per seller is without loss: blocks and explicit choice keep price, payoff and profit (spec 5.2)."""
    base = me.make(ID, n_buyers=4, channels=6, payment="first_price")
    want = base.equilibrium(base.reset(0))
    for options in ({"price_groups": 3}, {"price_groups": 2, "channel_choice": "explicit"}):
        market = me.make(ID, n_buyers=4, channels=6, payment="first_price", **options)
        state = market.reset(0)
        found = market.equilibrium(state)
        np.testing.assert_allclose(found.values["seller"], want.values["seller"], atol=1e-11)
        conv = market.nash_conv(state, found.strategy)
        assert conv.lower.max() < 1e-9


def test_pooled_gap_is_a_mixture_that_is_not_certified():
    """C < M < 1.9 C: no pure equilibrium; what comes back says so and is far better than the pure formula."""
    market = me.make(ID, n_buyers=12, channels=8, matching="pooled", payment="posted")
    state = market.reset(0, batch=2)
    found = market.equilibrium(state)
    assert not found.certified.any()
    assert found.kind == "estimate"
    assert found.epsilon.max() < 0.02 * found.values["seller"].max()


def test_paper_preset_pays_as_printed():
    """Eq. (2) burns losing bids, eq. (4) pays the surplus over the own price; eq. (3) shares it."""
    market = me.make(ID, preset="paper", n_buyers=3, channels=1, price_levels=None, bid_levels=None)
    state = market.reset(0)
    bids = np.array([[[0.0, 0.6], [0.0, 0.5], [1.0, 0.2]]])
    outcome = market.outcome(state, {"pricing": np.array([[[0.1], [0.3]]]), "bidding": bids})
    np.testing.assert_allclose(outcome.payoffs["buyer"][0], [0.4, -0.5, -0.2], atol=1e-15)
    np.testing.assert_allclose(outcome.payoffs["seller"][0], [0.5, 0.0], atol=1e-15)
    shared = me.make(
        ID, preset="paper", n_buyers=3, channels=1, price_levels=None, bid_levels=None, team_reward="shared"
    )
    outcome = shared.outcome(shared.reset(0), {"pricing": np.array([[[0.1], [0.3]]]), "bidding": bids})
    np.testing.assert_allclose(outcome.payoffs["seller"][0], [0.5, 0.5], atol=1e-15)


def test_paper_equilibrium_is_price_zero():
    """M = 4, C = 5: seller's reward .237065 (spec 4), found by quadrature and by the closed form."""
    pi, reward = literal.equilibrium_payoffs(1.0, 4, 5)
    assert abs(reward - 0.237065) < 5e-7
    assert abs(pi - 0.9**3) < 1e-15
    market = me.make(ID, preset="paper", n_buyers=4, channels=5)
    found = market.equilibrium(market.reset(0))
    np.testing.assert_allclose(found.strategy["pricing"].decisions, 0.0)
    np.testing.assert_allclose(found.values["seller"], reward, atol=1e-9)
    np.testing.assert_allclose(found.values["buyer"], pi, atol=1e-12)


def test_share_rule_cannot_find_a_level():
    """p1 + p2 stays, apart from clipping (fidelity 12), and ties favour seller 1."""
    price = np.array([0.5, 0.4])
    for sold in ([3, 1], [1, 3], [2, 2], [0, 4]):
        price = literal.share_rule(price, np.array(sold), 0.01)
        assert abs(price.sum() - 0.9) < 1e-12
    np.testing.assert_allclose(literal.share_rule(np.array([0.5, 0.5]), np.array([2, 2]), 0.05), [0.55, 0.45])


def test_printed_boltzmann_rows_do_not_sum_to_one():
    """Eq. (11): expected row sum 2C / M = 20 at M = 10, C = 100 (fidelity 8)."""
    rows = literal.printed_boltzmann(np.random.default_rng(0).uniform(size=(10, 200)), 0.1).sum(1)
    assert abs(rows.mean() - 20) < 1e-9
    assert rows.max() > 1.01


def test_radio_value_is_the_priced_rate():
    """The value is tariff x Mbit/s of one channel at the buyers' distance, and farther is worth less."""
    near, far = (me.make(ID, preset="radio", distance=d, tariff=2.0) for d in (60.0, 280.0))
    worth = [float(m.reset(0).theta.worth[0, 0]) for m in (near, far)]
    radio = near.radio
    rate = float(radio.prb_rate_kbps(radio.sinr(radio.loss_db(np.asarray(60.0)))))
    assert abs(worth[0] - 2.0 * rate / 1000) < 1e-12
    assert worth[0] > worth[1] > 0
    drawn = me.make(ID, preset="radio")
    assert drawn.equilibrium(drawn.reset(0, batch=8)).certified.all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 0}, "channels"),
        ({"channels": 2.5}, "whole"),
        ({"n_buyers": 0}, "n_buyers"),
        ({"unit_cost": 1.0}, "unit_cost"),
        ({"value": 0.0}, "value"),
        ({"payment": "second_price"}, "all_pay"),
        ({"matching": "logit", "taste_noise": 0.0}, "taste_noise"),
        ({"price_groups": 3, "channels": 10}, "multiple"),
        ({"price_groups": 2, "matching": "pooled"}, "price_groups"),
        ({"price_floor": 1.0}, "price_floor"),
        ({"fidelity": "paper", "payment": "posted"}, "paper"),
        ({"values": "private", "matching": "clearing"}, "private"),
        ({"channels": me.Uniform(4, 16)}, "Choice"),
    ],
)
def test_bad_parameters_are_named(options, words):
    with pytest.raises(me.MarketEnvsError, match=words):
        me.make(ID, **options)


def test_bad_actions_and_edges():
    """NaN raises naming the agent; out of range is clipped and counted; prices above the value end trade."""
    market = me.make(ID, preset="desk", price_cap=2.0, payment="first_price")
    state = market.reset(0)
    bids = np.zeros((1, 4, 2))
    with pytest.raises(me.InvalidAction, match="seller_1"):
        market.step(state, {"pricing": np.array([[[0.1], [np.nan]]]), "bidding": bids})
    _, outcome = market.step(state, {"pricing": np.array([[[5.0], [-1.0]]]), "bidding": bids})
    assert outcome.metrics["clipped"][0] == 2
    dear = market.respond(state, {"pricing": np.full((1, 2, 1), 1.5)})
    np.testing.assert_allclose(dear.values["buyer"], 0.0)
    np.testing.assert_allclose(dear.values["seller"], 0.0)
    idle = market.outcome(state, {"pricing": np.full((1, 2, 1), 0.1), "bidding": np.full((1, 4, 2), 2.5)})
    assert idle.metrics["trades"][0] == 0
    assert idle.metrics["conflict_rate"][0] == 0
    lone = me.make(ID, n_buyers=1, channels=3)
    assert lone.equilibrium(lone.reset(0)).values["buyer"][0, 0] == pytest.approx(1.0)


def test_private_values_offer_no_price_oracle_but_replies():
    market = me.make(ID, preset="desk", values="private", payment="first_price")
    state = market.reset(0)
    with pytest.raises(me.NotOffered, match="private"):
        market.equilibrium(state)
    conv = market.nash_conv(state, probe.random_profile(market, state, 0))
    assert conv.lower[0] > 0


@pytest.mark.parametrize("backend", ["array_api_strict", "torch", pytest.param("jax", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("preset", "options"), [OPTIONS[0], OPTIONS[3], OPTIONS[5], OPTIONS[8], OPTIONS[10], OPTIONS[12]]
)
def test_other_array_libraries_give_the_same_round(backend, preset, options):
    pytest.importorskip(backend)
    if backend == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    plain, other = (me.make(ID, preset=preset, backend=b, **options) for b in ("numpy", backend))
    profile = probe.random_profile(plain, plain.reset(3, batch=2), 1)
    _, want = plain.step(plain.reset(3, batch=2), profile)
    after, got = other.step(other.reset(3, batch=2), profile)
    for role, values in want.payoffs.items():
        np.testing.assert_allclose(other.backend.numpy(got.payoffs[role]), values, rtol=1e-9, atol=1e-12)
    assert other.backend.numpy(other.observe(after, "pricing")).max() <= 1


def test_price_range_that_binds_is_part_of_the_game():
    """With p* outside the range the equilibrium is the constrained one, certified by constrained best responses."""
    cheap = me.make(ID, preset="calvano", price_levels=None, quality=(1.5, 2.4), unit_cost=(0.9, 1.1), price_floor=1.5)
    found = cheap.equilibrium(cheap.reset(0))
    assert found.certified.all()
    assert found.actions["pricing"].min() == 1.5
    capped = me.make(ID, preset="scarce", payment="posted", price_cap=0.6)
    state = capped.reset(0)
    found = capped.equilibrium(state)
    np.testing.assert_allclose(found.strategy["pricing"].decisions, 0.6)
    assert found.certified.all()
    assert capped.nash_conv(state, found.strategy).upper.max() < 1e-9


def test_more_reference_cases_through_make():
    """R2 and R4, R9 (searched, so not certified), R13 as functions of the analysis."""
    for settings, profit in (
        ({"preset": "table1_10_600"}, 0.055917576668),
        ({"n_buyers": 20, "channels": 300, "unit_cost": 0.1}, 0.446980128180),
    ):
        market = me.make(ID, **settings)
        np.testing.assert_allclose(market.equilibrium(market.reset(0)).values["seller"], profit, atol=1e-11)
    pool = me.make(ID, n_buyers=50, channels=20, matching="pooled", payment="first_price")
    found = pool.equilibrium(pool.reset(0))
    np.testing.assert_allclose(found.values["seller"], 19.744390011055, atol=1e-10)
    assert found.kind == "estimate"
    assert found.epsilon.max() < 1e-8
    for payment, bid in (("first_price", 0.3112591341), ("all_pay", 0.3498239152)):
        market = me.make(ID, preset="desk", values="private", payment=payment)
        assert abs(market.analysis(market.reset(0))["bid"](0.9, 0.25) - bid) < 1e-10
    lone = me.make(
        ID, n_sellers=1, n_buyers=50, channels=10, matching="pooled", values="private", payment="first_price"
    )
    assert abs(lone.analysis(lone.reset(0))["bid"](0.9, 0.2) - 0.7975172850) < 1e-10


def test_mixtures_need_room():
    market = me.make(ID, preset="clearing", price_cap=0.8)
    with pytest.raises(me.NotOffered, match="price_cap"):
        market.equilibrium(market.reset(0))
