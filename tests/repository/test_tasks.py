"""The shipped task files: whole, up to date with their definitions, certified, and not won by a constant."""

from __future__ import annotations

import json

import numpy as np
import pytest
from marketenvs_benchmarks import building, suites

from marketenvs import role_track
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
    assert TASKS[name].stat().st_size < building.MEGABYTE
    (trained,) = {m for role in task.panel.values() for m in role if m.startswith("trained-")}
    assert trained == role_track.trained_member(role_track.panel_folder(name)), "the panel's stored policy changed"
    assert set(next(iter(task.panel.values()))) == {*role_track.PANEL, trained}


def test_a_task_has_one_content_whatever_suites_it_is_in():
    names = [p.stem for p in suites.HERE.glob("*/*.json")]
    shared = {name for name in names if names.count(name) > 1}
    assert "bazaar-drawn" in shared
    for name in shared:
        assert len({p.read_bytes() for p in suites.HERE.glob(f"*/{name}.json")}) == 1, name


def test_suite_v1_is_the_planned_one():
    """The fifteen tasks of the plan, on the right tracks, and the three tripwires apart."""
    known = suites.definitions()
    planned = [known[name] for name in suites.suites()["suite-v1"] if not known[name].tripwire]
    assert {d.name for d in planned} == {
        *("bazaar-drawn", "bazaar-drift", "coalition-drop", "coalition-mixed", "coalition-labels"),
        *("spectrum-channel", "spectrum-clearing", "spectrum-calvano", "twotier-kelly", "twotier-rb"),
        *("slicing-load", "slicing-day", "slicing-1000", "twotier-team", "slicing-team"),
    }
    assert {d.name for d in planned if d.track == "team"} == {"twotier-team", "slicing-team"}
    tripwires = {name for name in suites.suites()["suite-v1"] if known[name].tripwire}
    assert tripwires >= {"bazaar-fixed", "kelly-fixed", "slicing-fixed"}
    budgets = {d.name: d.rounds for d in planned}
    for name, rounds in {"spectrum-calvano": 1_000_000, "slicing-1000": 20_000, "spectrum-clearing": 100_000}.items():
        assert budgets[name] == rounds


@pytest.mark.parametrize("name", TASKS)
def test_every_scored_round_is_certified(name):
    assert building.uncertified(load_task(name)) == {}


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
