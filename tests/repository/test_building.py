"""``marketenvs suite build``: bit for bit, in parallel, resumed only where that is safe, and a refusal for what is no benchmark."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
from marketenvs_benchmarks import building, suites
from typer.testing import CliRunner

from marketenvs import role_track
from marketenvs.cli import app
from marketenvs.errors import MarketEnvsError, UnknownName
from marketenvs.policy import Uniform
from marketenvs.role_track import evaluate_role
from marketenvs.task import Plan, load_task

CHEAP = ("slicing-load", "bazaar-grid")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    lines: list[str] = []
    done = building.build("quick", folder, lines.append, workers=2, tasks=CHEAP)
    assert {p.stem for p in done.written} == set(CHEAP)
    assert len(lines) == 2
    return folder


def test_task_files_rebuild_bit_for_bit(built):
    """Built again in parallel worker processes, the shipped files come out byte by byte."""
    for name in CHEAP:
        assert (built / f"{name}.json").read_bytes() == (suites.HERE / "quick" / f"{name}.json").read_bytes()


def test_a_second_build_keeps_what_is_unchanged(built):
    before = {p: p.stat().st_mtime_ns for p in built.glob("*.json")}
    again = building.build("quick", built, workers=1, tasks=CHEAP)
    assert not again.written
    assert {p: p.stat().st_mtime_ns for p in built.glob("*.json")} == before


def test_anything_a_task_depends_on_changes_its_fingerprint(built, tmp_path, monkeypatch):
    definition = suites.definitions()["bazaar-grid"]
    assert building.is_current(definition, built)
    assert not building.is_current(dataclasses.replace(definition, plan=Plan(markets=19, prefixes=8)), built)
    monkeypatch.setattr(building, "panel_folder", lambda name: tmp_path)
    (tmp_path / "policy.json").write_text("{}")
    assert not building.is_current(definition, built), "another panel policy is another task"
    monkeypatch.undo()
    path = built / "bazaar-grid.json"
    whole = path.read_text()
    path.write_text(whole[:-50])
    assert not building.is_current(definition, built), "a damaged file is built again"
    path.write_text(whole)
    assert building.is_current(definition, built)
    monkeypatch.setattr(building.metadata, "version", lambda name: "0")
    assert not building.is_current(definition, built), "other library versions"


def test_the_code_is_part_of_the_fingerprint(tmp_path, monkeypatch):
    """A copy of the package in which one line of a solver, of another room or of the command line is changed."""
    import shutil
    from pathlib import Path

    import marketenvs

    root = tmp_path / "marketenvs"
    shutil.copytree(Path(marketenvs.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(building.markets, "__path__", [str(root / "markets")])
    definition = suites.definitions()["bazaar-grid"]
    before = building.fingerprint(definition)

    def after(name):
        path = root / name
        path.write_text(path.read_text() + "\n# changed\n")
        return building.fingerprint(definition)

    assert after("cli.py") == before
    assert after("markets/two_tier_bidding/rules.py") == before
    changed = after("markets/ai_bazaar/solve_grid.py")
    assert changed != before
    assert after("scoring.py") != changed


@pytest.fixture
def small(monkeypatch):
    """A suite of two tiny tasks, one of which a constant wins."""
    plan = Plan(markets=4, prefixes=2, draws=8)
    known = suites.definitions()
    good = dataclasses.replace(known["bazaar-grid"], tripwire=False, plan=plan)
    won = dataclasses.replace(known["kelly-fixed"], tripwire=False, plan=plan)
    monkeypatch.setattr(role_track, "PANEL", {"random": Uniform})
    monkeypatch.setattr(suites, "definitions", lambda: {d.name: d for d in (good, won)})
    monkeypatch.setattr(suites, "suites", lambda: {"small": (won.name, good.name)})

    def build_all(names, folder, report, workers, built):
        for name in names:
            done = building.build_one(name, str(folder))
            built.refused.update({name: done["refused"]} if done["refused"] else {})
            built.written += [] if done["refused"] else [done["path"]]

    monkeypatch.setattr(building, "_build_all", build_all)  # worker processes would not see the tiny suite
    return good, won


def test_a_task_that_a_constant_wins_is_refused_by_name_and_numbers(small, tmp_path):
    with pytest.raises(MarketEnvsError) as refused:
        building.build("small", tmp_path)
    text = str(refused.value)
    assert "kelly-fixed: the best constant scores 1.0000, more than 0.8; myopic play scores" in text
    assert "more than 0.95" in text
    assert "bazaar-grid" not in text
    assert [p.name for p in tmp_path.glob("*.json")] == ["bazaar-grid.json"], "the others are written"


def test_objections_name_what_is_wrong():
    task = load_task("bazaar-grid")
    assert building.objections(task) == []
    floors = {"best_constant": 0.81, "myopic": 0.96, "equilibrium": 0.5}
    open_ = dataclasses.replace(task, floors=floors, definition=dataclasses.replace(task.definition, tripwire=False))
    assert [text.split(",")[0] for text in building.objections(open_)] == [
        "the equilibrium scores 0.5000",
        "the best constant scores 0.8100",
        "myopic play scores 0.9600",
    ]
    fewer = dataclasses.replace(task, instances=task.instances[:-1])
    assert building.objections(fewer) == ["19 certified markets, the definition wants 20"]


def test_scored_rounds_must_be_certified_too(monkeypatch):
    from marketenvs.markets.ai_bazaar.rules import AIBazaar

    task = load_task("bazaar-grid")
    solve = AIBazaar.equilibrium
    seen = []

    def doubtful(self, state):
        solved = solve(self, state)
        seen.append(int(self.backend.numpy(state.round).max()))
        return dataclasses.replace(solved, certified=solved.certified & (seen[-1] < 10))

    monkeypatch.setattr(AIBazaar, "equilibrium", doubtful)
    assert building.uncertified(task) == {10: 20}
    assert "only 0 of 20 are certified" in building.objections(task)[0]


def test_wrong_names(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'quick'"):
        building.build("quik", tmp_path)
    with pytest.raises(UnknownName, match="did you mean 'bazaar-grid'"):
        CliRunner().invoke(
            app, ["suite", "build", "quick", "--task", "bazar-grid", "--folder", str(tmp_path)], catch_exceptions=False
        )


def test_an_interrupt_keeps_finished_tasks(tmp_path):
    command = [sys.executable, "-m", "marketenvs.cli", "suite", "build", "quick", "--folder", str(tmp_path)]
    command += ["--task", "slicing-load", "--task", "bazaar-drawn", "--task", "spectrum-fixed", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.time() + 180
    while not list(tmp_path.glob("*.json")) and time.time() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    kept = list(tmp_path.glob("*.json"))
    assert 1 <= len(kept) < 3
    for path in kept:
        assert load_task(path).hash, "a finished file is whole"
    assert not list(tmp_path.glob(".*.tmp"))
    assert os.path.isdir(tmp_path / ".built")


def test_the_trained_member_is_frozen_with_the_task(tmp_path, monkeypatch):
    """A task frozen with a stored policy names it by a digest of its files, and refuses to be scored against another."""
    task = load_task("kelly-fixed")
    (member,) = (m for m in task.panel["bidder"] if m.startswith("trained-"))
    assert member == role_track.trained_member(role_track.panel_folder("kelly-fixed"))
    assert set(task.panel["bidder"]) == {*role_track.PANEL, member}
    found = evaluate_role(task, "bidder", Uniform())
    assert found[member] == pytest.approx(0, abs=0.15)
    monkeypatch.setattr(building, "PANEL_ROUNDS", 50)
    other = building.train_panel("kelly-fixed", tmp_path)
    assert role_track.trained_member(other) != member
    monkeypatch.setattr(role_track, "panel_folder", lambda name: other)
    with pytest.raises(MarketEnvsError, match="is not stored"):
        evaluate_role(task, "bidder", Uniform())
