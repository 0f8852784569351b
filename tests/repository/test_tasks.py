"""The shipped task files: whole, up to date with their definitions, certified, and not won by a constant."""

from __future__ import annotations

import json

import numpy as np
import pytest
from marketenvs_benchmarks import suites

from marketenvs.task import build_task, list_tasks, load_task

TASKS = list_tasks()


def test_every_suite_is_shipped_whole():
    known = suites.suites()
    for path in suites.HERE.glob("*/"):
        if path.name.startswith("_"):
            continue
        assert {p.stem for p in path.glob("*.json")} == set(known[path.name]), (
            f"run `marketenvs suite build {path.name}`"
        )


@pytest.mark.parametrize("name", TASKS)
def test_task_file(name):
    task = load_task(TASKS[name])
    definition = suites.definitions()[name]
    fresh = json.loads(
        json.dumps(task.__class__(definition, (0,), 0, {}, {}, 0.0, {}, {}, None).to_json()["definition"])
    )
    assert json.loads(TASKS[name].read_text())["definition"] == fresh, "the definition changed: rebuild the suite"
    assert len(task.instances) == definition.plan.markets
    assert task.epsilon < 0.05
    market = task.make_market()
    assert set(task.anchors) == set(task.scale) == set(task.panel) == set(market.roles)
    if definition.track == "profile":
        assert task.floors["equilibrium"] > 0.99
        assert min(task.anchors.values()) > 0
    if not definition.tripwire:
        assert task.floors["best_constant"] <= 0.8, "a constant wins this task"
        if definition.track == "profile":
            assert task.floors["myopic"] <= 0.95, "myopic play wins this task"


@pytest.mark.parametrize("name", [n for n in TASKS if n in ("bazaar-grid", "twotier-kelly")])
def test_task_rebuilds_bit_for_bit(name):
    task = load_task(name)
    again = build_task(suites.definitions()[name])
    assert again.hash == task.hash


def test_prefixes_and_markets_are_what_the_task_says():
    task = load_task("bazaar-drawn")
    market = task.make_market()
    state = task.held_out(market)
    assert market.batch(state) == len(task.instances)
    assert np.unique(market.backend.numpy(state.theta.payment_weight), axis=0).shape[0] == len(task.instances)
    assert market.equilibrium(state).certified.all()
    prices = task.prefixes["purchase"]["pricing"]
    assert prices.shape == (8, 200, 1, 1)
    assert prices.min() >= 10
    assert prices.max() <= 20
