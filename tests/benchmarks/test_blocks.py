"""Blocks are the same markets as one batch, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from marketenvs_benchmarks import throughput_ours as ours

import marketenvs
from marketenvs.blocks import Blocks, block_size
from marketenvs.errors import InvalidAction, InvalidParameter, ResetNeeded


def same(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for name in x:
            np.testing.assert_array_equal(x[name], y[name], err_msg=name)


@pytest.mark.parametrize("id", marketenvs.list_markets())
def test_blocks_play_what_one_batch_plays(id):
    market = marketenvs.make(id, **ours.settings(id)[0])
    whole = market.reset(seed=5, batch=7)
    blocks, watched = Blocks(market, 7, size=3), Blocks(market, 7, size=2)
    blocks.reset(seed=5)
    watched.reset(seed=5)
    rng = np.random.default_rng(0)
    for _ in range(2):
        decisions = ours.play(market, whole, rng)
        state, want = whole, None
        seen = {}
        for stage in market.stages:
            seen[stage.name] = market.observe(state, stage.name)
            state = market.commit(state, stage.name, decisions[stage.name])
        whole, want = market.step(whole, decisions)

        def decide(stage, observation, rows, seen=seen, decisions=decisions):
            np.testing.assert_array_equal(observation, seen[stage.name][rows])
            return decisions[stage.name][rows]

        same(blocks.step(decisions), want)
        same(watched.step(decide), want)


def test_parameters_per_market_and_roles_and_numbers_for_all():
    price = np.linspace(10.0, 12.0, 5)
    market = marketenvs.make("AIBazaar-v0", price_min=price)
    blocks = Blocks(market, 5, size=2)
    blocks.reset(seed=1)
    want = market.step(market.reset(seed=1), {"provider": 0.0, "consumer": 50.0})[1]
    same(blocks.step({"provider": 0.0, "consumer": 50.0}), want)
    np.testing.assert_array_equal(want.metrics["price"], price)


def test_other_libraries():
    pytest.importorskip("torch")
    market = marketenvs.make("AIBazaar-v0", backend="torch")
    blocks = Blocks(market, 5, size=2)
    blocks.reset(seed=1)
    want = market.step(market.reset(seed=1, batch=5), {"provider": 12.0, "consumer": 50.0})[1]
    same(blocks.step({"provider": 12.0, "consumer": 50.0}), want)


def test_bad_input_is_named():
    market = marketenvs.make("AIBazaar-v0")
    with pytest.raises(InvalidParameter, match="batch"):
        Blocks(market, 0)
    with pytest.raises(InvalidParameter, match="size"):
        Blocks(market, 5, size=0)
    with pytest.raises(InvalidParameter, match="5 markets"):
        Blocks(marketenvs.make("AIBazaar-v0", price_min=np.full(5, 10.0)), 6)
    blocks = Blocks(market, 5, size=2)
    with pytest.raises(ResetNeeded):
        blocks.step({"provider": 12.0, "consumer": 50.0})
    blocks.reset()
    with pytest.raises(InvalidAction):
        blocks.step({"provider": np.nan, "consumer": 50.0})


def test_blocks_of_larger_markets_are_smaller():
    sizes = {id: block_size(marketenvs.make(id)) for id in ("AIBazaar-v0", "FederatedSlicing-v0")}
    assert sizes["FederatedSlicing-v0"] < sizes["AIBazaar-v0"]
    assert all(16 <= s <= 8192 for s in sizes.values())
