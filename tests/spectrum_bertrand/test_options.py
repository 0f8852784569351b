"""Options at their edges: one seller, measured gains, budget balance in every preset under every payment rule, the kink."""

import numpy as np
import pytest
from marketenvs_baselines import qpml

import marketenvs as me
from marketenvs import channel
from marketenvs.markets.spectrum_bertrand import urns
from marketenvs.markets.spectrum_bertrand.params import SpectrumParams
from marketenvs.testing import probe

ID = "SpectrumBertrand-v0"
RULES = ("posted", "first_price", "all_pay")
AUCTION_PRESETS = [p for p, s in SpectrumParams.PRESETS.items() if s.get("matching", "channel") == "channel"]


@pytest.mark.parametrize("preset", [p for p in AUCTION_PRESETS if p != "paper"])
@pytest.mark.parametrize("payment", RULES)
def test_budget_balances_in_every_auction_preset(preset, payment):
    """Rewards add up to value x trades - costs x sales in every step, whatever is played."""
    market = me.make(ID, preset=preset, payment=payment)
    state = market.reset(9, batch=3)
    for turn in range(3):
        state, outcome = market.step(state, probe.random_profile(market, state, turn))
        total = sum(p.sum(1) for p in outcome.payoffs.values())
        sales, theta = outcome.metrics["sales"], state.theta
        want = theta.worth[:, 0] * outcome.metrics["trades"] - (theta.unit_cost * sales).sum(1)
        np.testing.assert_allclose(total, want, rtol=0, atol=1e-10 * np.maximum(1.0, np.abs(want).max()))
        assert np.all(sales <= theta.channels)


@pytest.mark.parametrize("preset", ["clearing", "calvano"])
def test_budget_balances_without_buyers(preset):
    """Sellers' rewards are (price - cost) x sales, and sales never exceed channels or demand."""
    market = me.make(ID, preset=preset)
    state = market.reset(9, batch=5)
    for turn in range(4):
        profile = probe.random_profile(market, state, turn)
        state, outcome = market.step(state, profile)
        price = state.history.price
        sales = outcome.metrics["sales"]
        np.testing.assert_allclose(
            outcome.payoffs["seller"], (price - state.theta.unit_cost) * sales, rtol=0, atol=1e-12
        )
        assert np.all(sales.sum(1) <= state.theta.demand[:, 0] + 1e-9)


@pytest.mark.parametrize("team", ["individual", "shared"])
def test_the_printed_model_burns_what_losers_pay(team):
    """Preset paper: the budget does not balance; what is missing is the losers' bids and the price part of winners'."""
    market = me.make(ID, preset="paper", n_buyers=6, channels=2, team_reward=team)
    state = market.reset(4, batch=8)
    profile = probe.random_profile(market, state, 0)
    after, outcome = market.step(state, profile)
    buyers, sellers = outcome.payoffs["buyer"], outcome.payoffs["seller"]
    won, bid, choice = outcome.metrics["won"], after.history.bid, after.history.choice
    placed = np.where(choice < 2, bid, 0.0)
    np.testing.assert_allclose(buyers, won - placed, atol=1e-12)
    price = np.take_along_axis(np.concatenate([after.history.price, np.zeros((8, 1))], 1), choice.astype(int), 1)
    surplus = [(won * np.maximum(bid - price, 0.0) * (choice == j)).sum(1) for j in (0, 1)]
    if team == "shared":
        surplus = [surplus[0] + surplus[1]] * 2
    np.testing.assert_allclose(sellers, np.stack(surplus, 1), atol=1e-12)


@pytest.mark.parametrize("payment", RULES)
@pytest.mark.parametrize("matching", ["channel", "pooled"])
def test_one_seller_takes_everything(payment, matching):
    """N = 1: p = U (posted, first_price) or U G0(1/L) (all_pay), and buyers keep nothing (spec 5.2)."""
    market = me.make(ID, n_sellers=1, n_buyers=8, channels=4, payment=payment, matching=matching)
    state = market.reset(0)
    found = market.equilibrium(state)
    q = 1.0 / (4 if matching == "channel" else 1)
    beaten = float(urns.served(q, 8, 1 if matching == "channel" else 4))
    price = found.strategy["pricing"].decisions[0, 0, 0]
    assert price == pytest.approx(beaten if payment == "all_pay" else 1.0, abs=1e-12)
    assert np.abs(found.values["buyer"]).max() < 1e-12
    sold = 4 * (1 - (1 - q) ** 8) if matching == "channel" else 4.0
    assert found.values["seller"][0, 0] == pytest.approx(sold, abs=1e-9)
    assert market.nash_conv(state, found.strategy).lower.max() < 1e-9


@pytest.mark.parametrize("gain", [0.0, 0.0585])
def test_kink_is_scored_by_gains_through_the_market(gain):
    """M = 30, C = 10 all-pay: every split of the continuum has NashConv 0, (.06, .04) gains .0585 (spec 5.2)."""
    market = me.make(ID, n_buyers=30, channels=10)
    state = market.reset(0)
    q = np.array([0.055, 0.045] if gain == 0 else [0.06, 0.04])
    low, high = market.analysis(state)["kink_range"][0]
    assert (low <= q[0] <= high) == (gain == 0)
    conv = market.best_response(
        state, "pricing", {"pricing": ((1 - q) ** 29).reshape(1, 2, 1), "bidding": np.zeros((1, 30, 2))}
    )
    assert conv.gains.max() == pytest.approx(gain, abs=5e-5 if gain else 1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stage", ["pricing", "bidding"])
def test_what_is_not_finite_is_refused_and_named(stage, bad):
    market = me.make(ID, preset="desk")
    profile = {"pricing": np.full((1, 2, 1), 0.1), "bidding": np.full((1, 4, 2), 0.5)}
    profile[stage][0, 1, -1] = bad
    with pytest.raises(me.InvalidAction, match="seller_1" if stage == "pricing" else "buyer_1"):
        market.step(market.reset(0), profile)


def test_more_winners_than_channels_cannot_be():
    """30 eager buyers on 2 x 2 channels, channel and pooled, blind and explicit: never more sales than channels."""
    for options in ({}, {"matching": "pooled"}, {"channel_choice": "explicit"}):
        market = me.make(ID, n_buyers=30, channels=2, payment="first_price", **options)
        state = market.reset(1, batch=50)
        choice = np.random.default_rng(0).integers(0, market.groups, size=(50, 30)) + 0.5
        profile = {"pricing": np.zeros((50, 2, 1)), "bidding": np.stack([choice, np.ones((50, 30))], -1)}
        sales = market.outcome(state, profile).metrics["sales"]
        assert sales.max() == 2
        assert np.all(market.outcome(state, profile).metrics["won"].sum(1) <= 4)


def test_no_temperature_is_refused():
    with pytest.raises(me.InvalidParameter, match="tau"):
        qpml.Boltzmann(cold=0.0)


def _gains(slots=3):
    rng = np.random.default_rng(2)
    return 10.0 ** rng.uniform(-10, -7, size=(4, 6, slots))


def test_radio_with_measured_gains(tmp_path):
    """channel="trace": tariff x mean rate of one channel over users and PRBs, from a file, certified like any value."""
    gains = _gains()
    np.savez(tmp_path / "trace.npz", gain=gains)
    loaded = channel.load_trace(tmp_path / "trace.npz")
    radio = channel.radio_preset("iiot")
    rate = radio.trace_efficiency(gains).mean(0) * radio.prb_bandwidth_hz / 1e6
    for slot, expected in ((None, rate.mean()), (2, rate[2])):
        market = me.make(ID, preset="radio", channel="trace", gains=loaded, slot=slot, tariff=3.0)
        state = market.reset(0, batch=2)
        np.testing.assert_allclose(state.theta.worth, 3.0 * expected, rtol=1e-12)
        found = market.equilibrium(state)
        assert found.certified.all()
        # value is only a unit: the desk market's equilibrium, scaled
        np.testing.assert_allclose(found.values["buyer"], 3.0 * expected * 0.486, rtol=1e-9)
        assert market.observe(state, "pricing").max() <= 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gains": _gains()}, "not 'trace'"),
        ({"channel": "trace"}, "needs gains"),
        ({"channel": "trace", "gains": _gains()[0]}, "shape"),
        ({"channel": "trace", "gains": -_gains()}, ">= 0"),
        ({"channel": "trace", "gains": _gains(), "slot": 3}, "slots 0 to 2"),
        ({"channel": "trace", "gains": _gains(), "slot": 0.5}, "whole number"),
        ({"channel": "trace", "gains": 0.0 * _gains()}, "worth nothing"),
        ({"channel": "trace", "gains": _gains(), "value_source": "given"}, "value_source"),
        ({"channel": "traced"}, "trace"),
    ],
)
def test_bad_traces_are_named(options, words):
    with pytest.raises(me.MarketEnvsError, match=words):
        me.make(ID, preset="radio", **options)


def test_first_price_channels_in_closed_form_equal_the_equations():
    """Densities sum to one, attractions are equal where used and lower elsewhere; up to 5 unequal sellers, dear ones too."""
    rng = np.random.default_rng(5)
    for n, m in ((1, 3), (2, 8), (3, 50), (5, 2)):
        price, number = rng.uniform(0, 1.2, (200, n)), rng.integers(1, 12, (200, n))
        price[0] = 1.3
        stage = urns.solve_buyers("first_price", 1.0, price, m, number, np.ones((200, n), int))
        mass = (number * stage.density).sum(1) + stage.abstain
        np.testing.assert_allclose(mass, 1.0, atol=1e-12)
        worth = urns.attraction("first_price", 1.0, price, stage.density, m, 1)
        used = stage.density > 0
        pay = np.broadcast_to(stage.payoff[:, None], worth.shape)
        np.testing.assert_allclose(worth[used], pay[used], atol=1e-12)
        assert np.all(worth[~used] <= pay[~used] + 1e-12)
        assert stage.abstain[0] == 1.0


def test_replies_to_a_sampler_are_those_to_its_distribution():
    """Buyers who draw from the oracle's mixture through a plain Sampler: what is left to gain is the discretisation's."""
    market = me.make(ID, preset="desk", payment="first_price")
    state = market.reset(0, batch=2)
    price = np.full((2, 2, 1), 0.25)
    mixture = market.respond(state, {"pricing": price}).strategy["bidding"]
    plain = me.strategy.Sampler(sample=mixture.sample)
    reply = market.best_response(state, "bidding", {"pricing": me.strategy.Pure(price), "bidding": plain})
    assert reply.kind == "estimate"
    np.testing.assert_allclose(reply.values - reply.gains, 0.54675, atol=0.02)
    assert reply.gains.max() < 0.03
