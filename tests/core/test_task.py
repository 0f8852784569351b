"""Frozen tasks: held-out markets, hashes, files, and what may not be changed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from marketenvs import (
    AutoRegressive,
    Choice,
    FirstThen,
    InvalidParameter,
    Jump,
    LogUniform,
    MarketEnvsError,
    Uniform,
    UnknownName,
    evaluate,
    load_task,
    task,
)
from marketenvs.policy import EquilibriumPolicy
from marketenvs.task import Definition, Plan, Task, build_task, content_hash

from . import games


def test_round_trip(drawn_task, tmp_path):
    path = tmp_path / "small-drawn.json"
    drawn_task.save(path)
    again = load_task(path)
    assert again.definition == drawn_task.definition
    assert again.hash == drawn_task.hash == content_hash(json.loads(json.dumps(again.to_json())))
    assert json.dumps(again.to_json()) == json.dumps(drawn_task.to_json())
    policies = {role: EquilibriumPolicy() for role in ("provider", "consumer")}
    assert evaluate(again, policies).scores == evaluate(drawn_task, policies).scores
    assert [p.name for p in tmp_path.iterdir()] == ["small-drawn.json"], "no temporary file is left"


def test_building_twice_gives_the_same_hash(registered):
    definition = Definition("toll", registered(games.CalmToll), plan=Plan(markets=3, warm_up=0, prefixes=2))
    one, two = build_task(definition, floors=False), build_task(definition, floors=False)
    assert one.hash == two.hash
    other = build_task(Definition("toll", definition.market, params={"cost": 0.6}, plan=definition.plan), floors=False)
    assert other.hash != one.hash


def _paths(content, prefix=()):
    for key, value in content.items():
        yield (*prefix, key), value
        if isinstance(value, dict):
            yield from _paths(value, (*prefix, key))


def test_every_change_of_a_frozen_task_is_noticed(drawn_task):
    content = json.loads(json.dumps({**drawn_task.to_json(), "hash": drawn_task.hash}))
    Task.from_json(content)
    changed = 0
    for path, value in _paths(content):
        if isinstance(value, (dict, type(None))) or path == ("format",):
            continue
        other = json.loads(json.dumps(content))
        spot = other
        for key in path[:-1]:
            spot = spot[key]
        spot[path[-1]] = _other(value)
        with pytest.raises(MarketEnvsError, match="does not fit its hash"):
            Task.from_json(other, str(path))
        changed += 1
    assert changed > 20
    del content["rejected"]
    with pytest.raises(MarketEnvsError, match="does not fit its hash"):
        Task.from_json(content)


def _other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, list):
        return [_other(value[0]), *value[1:]] if value else [0]
    return value + "x"


def test_damaged_files(tmp_path, drawn_task):
    path = tmp_path / "broken.json"
    path.write_text('{"format": 1, "defin')
    with pytest.raises(MarketEnvsError, match=r"broken.json is not valid JSON"):
        load_task(path)
    path.write_text(json.dumps({**drawn_task.to_json(), "format": 99}))
    with pytest.raises(MarketEnvsError, match="format 99 is not supported"):
        load_task(path)
    path.write_text("[1, 2]")
    with pytest.raises(MarketEnvsError, match=r"broken\.json"):
        load_task(path)
    with pytest.raises(UnknownName, match="no task file"):
        load_task(tmp_path / "absent.json")
    with pytest.raises(UnknownName, match="unknown task 'bazaar-drown'"):
        load_task("bazaar-drown")
    with pytest.raises(UnknownName, match="unknown suite"):
        task.suite_folder("quik")


def test_a_tasks_market_is_frozen(drawn_task):
    assert drawn_task.make_market(dtype="float32").backend.dtype_name == "float32"
    with pytest.raises(InvalidParameter, match="'n_consumers' cannot be overridden"):
        drawn_task.make_market(n_consumers=2)


def test_held_out_markets_are_the_test_split_without_the_uncertified(registered):
    definition = Definition("half", registered(games.HalfCertified), plan=Plan(markets=6, warm_up=0, prefixes=2))
    frozen = build_task(definition, floors=False)
    market = frozen.make_market()
    drawn = market.reset(definition.plan.seed, batch=frozen.instances[-1] + 1, split="test")
    good = np.flatnonzero(drawn.theta.taste[:, 0] > 2.7)
    assert len(good) < len(drawn.round), "the example must reject something"
    assert frozen.instances == tuple(good[:6])
    assert frozen.rejected == len(drawn.round) - 6
    held = frozen.held_out(market)
    assert np.array_equal(held.theta.taste, drawn.theta.taste[list(frozen.instances)])
    assert np.array_equal(held.seed, drawn.seed[list(frozen.instances)])


def test_prefixes_are_half_near_the_equilibrium_and_half_uniform(drawn_task):
    prices = drawn_task.prefixes["purchase"]["pricing"]
    assert prices.shape == (6, 12, 1, 1)
    market = drawn_task.make_market()
    star = market.equilibrium(drawn_task.held_out(market)).actions["pricing"]
    distance = np.abs(prices - star).mean(axis=(1, 2, 3))
    assert distance[:3].max() < 1.0 < distance[3:].min()
    assert prices.min() >= 10
    assert prices.max() <= 20


@pytest.mark.parametrize(
    "value",
    [
        Uniform(1, 2),
        Uniform(1, 2, per="market"),
        LogUniform(1, 2),
        Choice((1, 2, 3)),
        FirstThen(0.2, 0.1),
        {"unit_cost": Jump(0.1, 0.2, (1.0, 2.0))},
        {"unit_cost": AutoRegressive(0.9, 0.1)},
        (1.0, 2.0),
        "own",
        3,
        None,
    ],
    ids=repr,
)
def test_parameters_survive_json(value):
    assert task.decode(json.loads(json.dumps(task.encode(value)))) == value


def test_arrays_become_lists():
    assert task.encode({"a": np.arange(2), "b": np.float64(1.5)}) == {"a": [0, 1], "b": 1.5}


def test_unwritable_folders_lose_nothing(tmp_path, drawn_task):
    with pytest.raises(OSError):
        drawn_task.save(tmp_path / "absent" / "task.json")
    path = tmp_path / "task.json"
    path.write_text("old")
    with pytest.raises(ValueError):
        task.write_json(path, {"x": float("nan")})
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
