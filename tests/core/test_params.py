"""Parameters: shapes, ranges, presets, distributions; and errors that name the culprit and the nearest valid name."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import marketenvs
from marketenvs import AutoRegressive, Choice, InvalidParameter, Jump, LogUniform, MarketEnvsError, Uniform, UnknownName
from marketenvs.params import batch_of, count, number, numeric_fields, option

few = settings(max_examples=30, deadline=None, derandomize=True)
BAZAAR = "AIBazaar-v0"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_consumers": 0}, "n_consumers must be an integer >= 1, got 0"),
        ({"n_consumers": 2.5}, "n_consumers must be an integer"),
        ({"n_consumers": True}, "n_consumers must be an integer"),
        ({"n_consumers": None}, "n_consumers must be an integer"),
        ({"unit_cost": -1}, r"unit_cost must lie in \[0, inf\], got -1"),
        ({"unit_cost": math.nan}, "unit_cost must be finite"),
        ({"unit_cost": math.inf}, "unit_cost must be finite"),
        ({"unit_cost": "cheap"}, "unit_cost must be a number.*'cheap'"),
        ({"unit_cost": None}, "unit_cost must be a number"),
        ({"unit_cost": {}}, "unit_cost must be a number"),
        ({"unit_cost": True}, "unit_cost must be a number"),
        ({"purchase_min": 200.0}, "purchase_min=200.0 exceeds purchase_max=100.0"),
        ({"price_min": 30, "price_max": 20}, "price_min=30 exceeds price_max=20"),
        ({"purchase_max": 0.0, "purchase_min": 0.0}, r"purchase_max must lie in \(0"),
        ({"mining_ratio": 1.5}, r"mining_ratio must lie in \[0, 1\], got 1.5"),
        ({"mining_ratio": Uniform(0.5, 1.5)}, r"mining_ratio must lie in \[0, 1\]"),
        ({"payment_weight": [1, 2, 3]}, r"payment_weight has shape \(3,\); expected \(\), \(10,\) or \(B, 10\)"),
        ({"payment_weight": np.zeros((2, 3, 10))}, "payment_weight has shape"),
        ({"payment_weight": [[1, 2], [3]]}, "payment_weight must be a number"),
        ({"payment_weight": [1, math.nan] + 8 * [1]}, "payment_weight must be finite"),
        ({"horizon": 0}, "horizon must be an integer >= 1"),
        ({"mining": "sampeld"}, "mining='sampeld' is not offered; did you mean 'sampled'"),
        ({"price_levels": 1, "amount_levels": 4}, "price_levels must be an integer >= 2"),
        ({"price_levels": 5}, "give both price_levels and amount_levels"),
        (
            {"drift": {"unit_cots": Jump(0.1, 0.1)}},
            "drift of unknown numeric parameter 'unit_cots'; did you mean 'unit_cost'",
        ),
        ({"unit_costs": 3}, "unknown parameter 'unit_costs' of BazaarParams; did you mean 'unit_cost'"),
        ({"preset": "calibratd"}, "unknown preset 'calibratd'; did you mean 'calibrated'"),
        ({"backend": "pytorch"}, "unknown backend 'pytorch'"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises(MarketEnvsError, match=message):
        marketenvs.make(BAZAAR, **params)


@pytest.mark.parametrize("id", ["AIBazar-v0", "aibazaar-v0", "AIBazaar", "AIBazaar-v9", "marketenvs/AIBazar-v0"])
def test_unknown_market_names_the_nearest(id):
    with pytest.raises(UnknownName, match="did you mean 'AIBazaar-v0'"):
        marketenvs.make(id)


@pytest.mark.parametrize("id", [None, 3, ["AIBazaar-v0"]])
def test_ids_that_are_no_strings(id):
    with pytest.raises(MarketEnvsError, match="unknown market"):
        marketenvs.make(id)


@pytest.mark.parametrize("value", [{"rate": 0.1}, 0.1, Uniform(0, 1)])
def test_drifts_must_be_laws(value):
    with pytest.raises(InvalidParameter, match="drift"):
        marketenvs.make(BAZAAR, drift={"unit_cost": value})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Jump(1.5, 0.1),
        lambda: Jump(0.1, 1.0),
        lambda: Jump(-0.1, 0.1),
        lambda: AutoRegressive(1.1, 0.1),
        lambda: AutoRegressive(0.5, -1),
        lambda: Jump(math.nan, 0.1),
        lambda: AutoRegressive(0.5, math.nan),
    ],
)
def test_bad_drifts(make):
    with pytest.raises(InvalidParameter):
        make()


@few
@given(value=st.floats(allow_nan=True, allow_infinity=True, width=64))
def test_any_number_is_taken_or_refused_with_its_name(value):
    if math.isfinite(value) and value >= 0:
        market = marketenvs.make(BAZAAR, unit_cost=value)
        assert float(market.reset(0).theta.unit_cost[0, 0]) == value
    else:
        with pytest.raises(InvalidParameter, match="unit_cost"):
            marketenvs.make(BAZAAR, unit_cost=value)


@few
@given(low=st.floats(0, 50), high=st.floats(0.5, 50))
def test_boxes_may_not_be_empty(low, high):
    if low <= high:
        marketenvs.make(BAZAAR, purchase_min=low, purchase_max=high)
    else:
        with pytest.raises(InvalidParameter, match="purchase_min=.* exceeds purchase_max="):
            marketenvs.make(BAZAAR, purchase_min=low, purchase_max=high)


def test_boxes_may_not_be_empty_in_any_market_or_draw():
    lows = np.array([[1.0] * 10, [60.0] * 10])
    marketenvs.make(BAZAAR, purchase_min=lows, purchase_max=lows + 1)
    with pytest.raises(InvalidParameter, match="purchase_min"):
        marketenvs.make(BAZAAR, purchase_min=lows, purchase_max=50.0)
    with pytest.raises(InvalidParameter, match="purchase_min"):
        marketenvs.make(BAZAAR, purchase_min=Uniform(0, 20), purchase_max=Uniform(10, 30))


def test_shapes_of_parameters():
    each = np.arange(1.0, 4.0)
    for value, want in [
        (2.0, [[2, 2, 2]] * 2),
        (each, [each, each]),
        (list(each), [each, each]),
        (np.stack((each, 2 * each)), [each, 2 * each]),
    ]:
        market = marketenvs.make(BAZAAR, n_consumers=3, payment_weight=value)
        got = np.broadcast_to(market.reset(0, batch=2).theta.payment_weight, (2, 3))
        assert np.array_equal(got, want)
    market = marketenvs.make(BAZAAR, n_consumers=3, unit_cost=[1.0, 2.0, 4.0])  # a market's number per market
    assert market.reset(0).theta.unit_cost.tolist() == [[1.0], [2.0], [4.0]]
    assert batch_of(market.params) == 3
    with pytest.raises(InvalidParameter, match="given for 3 markets, but the batch is 2"):
        market.reset(0, batch=2)
    both = {"unit_cost": [1.0, 2.0], "payment_weight": np.ones((3, 4)), "n_consumers": 4}
    with pytest.raises(InvalidParameter, match="unit_cost is given for 2 markets but payment_weight for 3"):
        marketenvs.make(BAZAAR, **both).reset(0)


@pytest.mark.parametrize("law", [Uniform(11, 18), LogUniform(11, 18), Choice((11, 14, 18))])
def test_distributions_are_drawn_per_agent_or_market(law):
    market = marketenvs.make(BAZAAR, payment_weight=law, n_consumers=4)
    drawn = market.reset(0, batch=500).theta.payment_weight
    assert drawn.shape == (500, 4)
    assert drawn.min() >= 11
    assert drawn.max() <= 18
    u = np.linspace(0.0005, 0.9995, 1000)
    assert drawn.mean() == pytest.approx(law.quantile(np, u).mean(), abs=5 * law.quantile(np, u).std() / 2000**0.5)
    assert np.abs(np.corrcoef(drawn, rowvar=False) - np.eye(4)).max() < 0.25
    shared = marketenvs.make(BAZAAR, payment_weight=dataclasses.replace(law, per="market"), n_consumers=4)
    drawn = shared.reset(0, batch=500).theta.payment_weight
    assert np.array_equal(drawn, np.repeat(drawn[:, :1], 4, axis=1))
    assert len(np.unique(drawn)) > 2


def test_a_parameters_draw_does_not_move_when_another_becomes_random():
    one = marketenvs.make(BAZAAR, payment_weight=Uniform(11, 18)).reset(5, batch=3)
    two = marketenvs.make(BAZAAR, payment_weight=Uniform(11, 18), unit_cost=Uniform(1, 5)).reset(5, batch=3)
    assert np.array_equal(one.theta.payment_weight, two.theta.payment_weight)


def test_jump_drift():
    market = marketenvs.make(BAZAAR, drift={"unit_cost": Jump(0.5, 0.1, (4.0, 6.0))})
    state = market.reset(3, batch=400)
    path = [state.theta.unit_cost[:, 0]]
    for _ in range(6):
        state, _ = market.step(state, {"pricing": 15.0, "purchase": 50.0})
        path.append(state.theta.unit_cost[:, 0])
    assert np.all(path[0] == 5.0)
    first = path[1] / path[0]
    shares = [(np.isclose(first, x)).mean() for x in (0.9, 1.0, 1.1)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.1)
    assert np.min(path) >= 4.0
    assert np.max(path) <= 6.0
    again, _ = market.step(market.reset(3, batch=4), {"pricing": 15.0, "purchase": 50.0})
    assert np.array_equal(again.theta.unit_cost, path[1][:4, None])


def test_autoregressive_drift():
    market = marketenvs.make(
        BAZAAR, drift={"payment_weight": AutoRegressive(0.8, 0.05)}, payment_weight=Uniform(11, 18)
    )
    state = market.reset(4, batch=300)
    start, path = state.theta.payment_weight, []
    for _ in range(25):
        state, _ = market.step(state, {"pricing": 15.0, "purchase": 50.0})
        path.append(np.log(state.theta.payment_weight / start))
    assert path[0].std() == pytest.approx(0.05, rel=0.1)
    assert path[-1].std() == pytest.approx(0.05 / (1 - 0.64) ** 0.5, rel=0.1)
    correlation = np.corrcoef(path[-1].ravel(), path[-2].ravel())[0, 1]
    assert correlation == pytest.approx(0.8, abs=0.05)


def test_drift_moves_what_follows_from_the_parameter():
    market = marketenvs.make(BAZAAR, drift={"business_value": Jump(1.0, 0.2)})
    state, _ = market.step(market.reset(0, batch=5), {"pricing": 15.0, "purchase": 50.0})
    theta = state.theta
    assert not np.allclose(theta.business_value, 220.0)
    assert np.allclose(theta.margin, (1 - theta.mining_ratio) * theta.business_value)


def test_presets_and_overrides():
    assert marketenvs.list_presets(BAZAAR)[0] == "calibrated"
    market = marketenvs.make("marketenvs/AIBazaar-v0", preset="grid", n_consumers=3, unit_cost=4)
    assert (market.params.price_levels, market.params.n_consumers, market.params.unit_cost) == (11, 3, 4)
    assert market.roles == {"provider": 1, "consumer": 3}


def test_parameters_of_another_market_are_refused():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Other(marketenvs.MarketParams):
        n: int = count(2, "things")
        x: float = number(1.0, "a number", low=0)
        how: str = option("a", "a way", ("a", "b"))

    with pytest.raises(InvalidParameter, match="params must be a BazaarParams, got Other"):
        type(marketenvs.make(BAZAAR))(Other())
    assert [f.name for f in numeric_fields(Other)] == ["x"]
    with pytest.raises(InvalidParameter, match=r"Other.how='c' is not offered"):
        Other(how="c")
