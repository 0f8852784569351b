"""``marketenvs benchmark`` and what it stands on: shards, kept policies, reference files, comparison, cross-play, citation."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import shutil
import zipfile

import numpy as np
import pytest
from marketenvs_baselines.store import load_policy
from marketenvs_benchmarks import benchmark, cite, compare, crossplay, leaderboard, reference, runs, statistics, suites
from rich.console import Console
from typer.testing import CliRunner

from marketenvs.cli import app
from marketenvs.errors import InvalidParameter, MarketEnvsError, UnknownName
from marketenvs.policy import Constant, EquilibriumPolicy, Uniform
from marketenvs.scoring import evaluate
from marketenvs.strategy import Pure, Samples
from marketenvs.task import load_task

ARGUMENTS = ["benchmark", "quick", "--task", "bazaar-grid", "--algorithm", "random", "--algorithm", "q_learning"]
ARGUMENTS += ["--seeds", "3", "--workers", "1", "--budget", "400", "--curve", "3", "--keep-policies"]


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    result = call(*ARGUMENTS, "--results", folder)
    assert result.exit_code == 0, result.output
    return folder


def scores(folder):
    return {
        str(p.relative_to(folder)): json.loads(p.read_text())["evaluation"]["scores"]
        for p in folder.rglob("seed-*.json")
    }


def test_shards_together_are_the_whole(finished, tmp_path):
    wanted, _, _ = benchmark.plan("quick", ["bazaar-grid", "kelly-fixed"], ["random", "q_learning", "bandit"], seeds=3)
    parts = [runs.take_shard(wanted, f"{k}/4") for k in (1, 2, 3, 4)]
    assert sorted(map(str, itertools.chain(*parts))) == sorted(map(str, wanted)), "every run is in exactly one shard"
    merged = tmp_path / "merged"
    for k in (1, 2):
        result = call(*ARGUMENTS, "--results", tmp_path / str(k), "--shard", f"{k}/2")
        assert result.exit_code == 0, result.output
        shutil.copytree(tmp_path / str(k), merged, dirs_exist_ok=True)
    assert scores(tmp_path / "1")
    assert scores(tmp_path / "2")
    assert not set(scores(tmp_path / "1")) & set(scores(tmp_path / "2"))
    assert scores(merged) == scores(finished), "a sharded run is the run"
    assert "6 reused, 0 to do" in call(*ARGUMENTS, "--results", merged).output


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_a_wrong_shard_is_refused(shard, tmp_path):
    with pytest.raises(InvalidParameter, match="1/4"):
        call(*ARGUMENTS, "--results", tmp_path, "--shard", shard)


def test_stored_policies_score_the_stored_score(finished):
    """What is scored is what was stored: every kept policy, read back and scored again, gives exactly the same numbers."""
    task = load_task("bazaar-grid")
    found = list(finished.rglob("seed-*.policy"))
    assert len(found) == 6
    for place in found:
        stored = json.loads(place.with_suffix(".json").read_text())
        again = evaluate(task, load_policy(place, task.make_market()), seed=stored["run"]["seed"])
        assert again.scores == stored["evaluation"]["scores"]
        assert list(again.nash_conv) == stored["evaluation"]["nash_conv"]
        assert stored["policy"] == {"stored": place.name}


def test_a_lost_policy_is_made_again(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "quick" / "bazaar-grid" / "random" / "seed-1.policy")
    assert "5 reused, 1 to do" in call(*ARGUMENTS, "--results", tmp_path / "copy").output


def test_curves_and_columns(finished):
    rows = {
        r["algorithm"]: r for r in json.loads((finished / "quick" / "summary.json").read_text())["bazaar-grid"]["rows"]
    }
    assert rows["q_learning"]["rounds_to_0.9"] == "> 400"
    assert -1 <= rows["q_learning"]["area"][0] < 1
    assert rows["random"]["rounds_to_0.9"] == "-", "what does not train has no curve"
    assert rows["random"]["area"] is None


def test_rounds_to_and_area_by_hand():
    reached = [[100, 0, 0.1], [1000, 0, 0.95], [10_000, 0, 0.92]]
    never = [[100, 0, 0.1], [1000, 0, 0.5], [10_000, 0, 0.8]]
    assert statistics.rounds_to([reached] * 3 + [never], 0.9) == "1,000"
    assert statistics.rounds_to([reached] + [never] * 3, 0.9) == "> 10,000"
    assert statistics.rounds_to([[[0, 0, 1.0]]], 0.9) == "-"
    area = statistics.curve_area([never] * 4)
    assert area is not None
    assert area.value == pytest.approx((0.3 + 0.65) / 2)  # two decades: means 0.3 and 0.65
    clipped = [[100, 0, -50.0], [1000, 0, 1.0], [10_000, 0, 1.0]]
    assert statistics.curve_area([clipped]).value == pytest.approx(0.5)
    assert statistics.curve_area([[[0, 0, 1.0]]]) is None


def test_a_learner_runs_alone_with_the_full_budget(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def train(task, seed, budget, report):\n    return {}\n")
    wanted, left, tasks = benchmark.plan("quick", learners=[f"{file}:train"], seeds=2)
    assert {r.algorithm for r in wanted} == {f"{file}:train"}, "nobody else's algorithm is run"
    assert {r.task: r.budget for r in wanted} == {name: task.budget for name, task in tasks.items()}
    assert left["bazaar-grid"]["pb_marl"] == "not asked for"
    both, _, _ = benchmark.plan("quick", ["bazaar-grid"], ["random"], [f"{file}:train"], seeds=2)
    assert {r.algorithm for r in both} == {f"{file}:train", "random"}


@pytest.fixture
def shelf(finished, tmp_path, monkeypatch):
    """The finished runs as committed reference results."""
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "reference")
    reference.store("quick", finished)
    return tmp_path / "reference"


def test_references_stand_beside_what_is_run(shelf, finished, tmp_path):
    """A learner's table shows the committed results, marked; equal runs made here replace them, other budgets stand beside."""
    (tmp_path / "mine.py").write_text(
        "from marketenvs.policy import Uniform\n"
        "def train(task, seed, budget, report):\n    return {r: Uniform() for r in task.make_market().roles}\n"
    )
    arguments = ["benchmark", "quick", "--task", "bazaar-grid", "--seeds", "2", "--workers", "1"]
    result = call(*arguments, "--learner", f"{tmp_path}/mine.py:train", "--results", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out" / "quick" / "summary.json").read_text())["bazaar-grid"]["rows"]
    origins = {r["algorithm"]: r["origin"] for r in rows}
    assert origins.pop(f"{tmp_path}/mine.py:train") == "run here"
    assert origins == dict.fromkeys(("random", "q_learning"), leaderboard.REFERENCE)
    wanted, left, tasks = benchmark.plan("quick", ["bazaar-grid"], ["q_learning"], seeds=3, budget=400)
    board = leaderboard.collect("quick", finished, wanted, left, tasks)
    assert [r.origin for r in board.rows["bazaar-grid"] if r.algorithm == "q_learning"] == ["run here"]
    wanted, left, tasks = benchmark.plan("quick", ["bazaar-grid"], ["q_learning"], seeds=3, budget=300)
    board = leaderboard.collect("quick", finished, wanted, left, tasks)
    assert [(r.origin, r.rounds) for r in board.rows["bazaar-grid"] if r.algorithm == "q_learning"] == [
        (leaderboard.REFERENCE, 400)
    ]


def test_a_reference_of_changed_source_says_so(shelf, monkeypatch):
    task = load_task("bazaar-grid")
    ((row, _),) = leaderboard.reference_rows("quick", "bazaar-grid", "q_learning", task.hash)
    assert row.origin == leaderboard.REFERENCE
    monkeypatch.setattr(runs, "code_of", lambda name: "another")
    ((row, _),) = leaderboard.reference_rows("quick", "bazaar-grid", "q_learning", task.hash)
    assert row.origin == leaderboard.OLDER
    assert leaderboard.reference_rows("quick", "bazaar-grid", "q_learning", "0" * 64) == []


def test_reference_files_are_whole_and_compact(shelf, finished):
    hash_ = load_task("bazaar-grid").hash
    for algorithm in ("random", "q_learning"):
        back = reference.read("quick", "bazaar-grid", algorithm, hash_)
        assert back == [
            json.loads((finished / "quick" / "bazaar-grid" / algorithm / f"seed-{k}.json").read_text())
            for k in range(3)
        ]
    assert reference.stored_seeds("quick", "bazaar-grid", "q_learning") == [0, 1, 2]
    stored, again = reference.rescore("quick", "bazaar-grid", "q_learning", 2)
    assert stored == again
    before = reference.archive_of("quick", "bazaar-grid", "q_learning").read_bytes()
    reference.store("quick", finished)
    assert reference.archive_of("quick", "bazaar-grid", "q_learning").read_bytes() == before, "the same bytes again"
    with pytest.raises(UnknownName, match="seed 7"):
        reference.policies("quick", "bazaar-grid", "q_learning", 7)


def test_mixed_budgets_are_not_stored_as_one_cell(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "reference")
    shutil.copytree(finished, tmp_path / "copy")
    path = tmp_path / "copy" / "quick" / "bazaar-grid" / "q_learning" / "seed-1.json"
    data = json.loads(path.read_text())
    data["run"]["budget"] = 999
    path.write_text(json.dumps(data))
    with pytest.raises(MarketEnvsError, match="several budgets"):
        reference.store("quick", tmp_path / "copy")


def test_compare_shows_folders_side_by_side(finished, tmp_path):
    other = tmp_path / "other"
    call(
        "benchmark",
        "quick",
        "--task",
        "bazaar-grid",
        "--algorithm",
        "random",
        "--seeds",
        "2",
        "--workers",
        "1",
        "--results",
        other,
    )
    out = tmp_path / "table.csv"
    result = call("compare", finished, other, "--format", "csv", "--out", out)
    assert result.exit_code == 0, result.output
    lines = list(csv.reader(io.StringIO(out.read_text())))
    assert lines[0][:2] == ["task", "algorithm"]
    assert len(lines[0]) == 8
    by_name = {line[1]: line[2:] for line in lines[1:]}
    assert by_name["random"][2] == "3"
    assert by_name["random"][5] == "2"
    assert by_name["q_learning"][3:] == ["-", "-", "-"]
    assert call("compare", finished, other, "--format", "markdown").output.startswith("| task | algorithm |")
    assert "q_learning" in call("compare", finished).output
    with pytest.raises(UnknownName, match="did you mean 'csv'"):
        compare.run(Console(), [finished], "cvs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MarketEnvsError, match="no finished results"):
        call("compare", finished, tmp_path / "empty")


def test_crossplay_of_one_role_and_of_several(finished):
    result = call("crossplay", finished, "--algorithm", "q_learning", "--seeds", "3")
    assert result.exit_code == 0, result.output
    found = json.loads((finished / "crossplay.json").read_text())["bazaar-grid/q_learning"]
    stored = [
        json.loads((finished / "quick" / "bazaar-grid" / "q_learning" / f"seed-{k}.json").read_text()) for k in range(3)
    ]
    assert np.diag(found["score"]) == pytest.approx([s["evaluation"]["score"] for s in stored], abs=0), (
        "self-play is the score"
    )
    cell = crossplay.matrices(load_task("kelly-fixed"), [{"bidder": Uniform()}, {"bidder": EquilibriumPolicy()}])
    assert cell["score"][1, 1] == pytest.approx(1.0)
    assert cell["score"][0, 0] < 0.1
    for i, j in ((0, 1), (1, 0)):
        assert cell["score"][0, 0] < cell["score"][i, j] < 1, "half of the agents play the equilibrium"


def test_halves_join_two_strategies():
    """Second method: expectations of the joined mixture, agent by agent, are those of its parts."""
    even = Samples(np.array([0.0, 1.0]).reshape(2, 1, 1, 1), np.array([0.25, 0.75]))
    odd = Pure(np.full((2, 3, 1), 5.0))
    mixed = crossplay.joined(even, odd, (2, 3, 1), 8, 0)
    assert isinstance(mixed, Samples)
    mean = (np.broadcast_to(mixed.weights, mixed.values.shape[:3])[..., None] * mixed.values).sum(axis=0)
    np.testing.assert_allclose(mean[..., 0], [[0.75, 5.0, 0.75]] * 2)
    rows = crossplay.joined(Samples(np.zeros((4, 2, 3, 1)), joint=True), odd, (2, 3, 1), 8, 0)
    assert rows.joint
    assert rows.values.shape == (8, 2, 3, 1)
    np.testing.assert_array_equal(rows.values[:, :, 1], 5.0)
    task = load_task("kelly-fixed")
    same = crossplay.Halves(Constant([3.0]), Constant([3.0]))
    assert evaluate(task, {"bidder": same}).score == evaluate(task, {"bidder": Constant([3.0])}).score


def test_crossplay_without_policies_says_how(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(MarketEnvsError, match="--keep-policies"):
        call("crossplay", tmp_path / "x")


def test_citations(tmp_path):
    import yaml

    from .test_documents import ROOT

    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    text = call("cite", "kelly-fixed").output
    assert text.count("@") == 3
    assert text.count("{") == text.count("}")
    assert load_task("kelly-fixed").hash in text
    assert "Two Tier Slicing" in text
    assert cite.TITLE.replace("{", "").replace("}", "") == about["title"]
    assert cite.AUTHOR.strip("{}") == about["authors"][0]["name"]
    assert str(about["date-released"]).startswith(cite.YEAR)
    assert f"version = {{{about['version']}}}" in text
    assert call("cite", "AIBazaar-v0").output.count("@") == 2
    with pytest.raises(UnknownName, match="did you mean 'kelly-fixed'"):
        call("cite", "kelly-fixd")


def test_bad_input_is_refused_before_anything_is_done(tmp_path):
    for arguments, message in (
        (["benchmark", "suite-v2"], "unknown suite 'suite-v2'"),
        (["benchmark", "quick", "--task", "bazar-grid"], "did you mean 'bazaar-grid'"),
        (["benchmark", "quick", "--algorithm", "q_lerning"], "did you mean 'q_learning'"),
        (["benchmark", "quick", "--learner", "nowhere_at_all:train"], "no module"),
    ):
        with pytest.raises(MarketEnvsError, match=message):
            call(*arguments, "--results", tmp_path / "out")
    assert not list(tmp_path.rglob("seed-*"))


COMMITTED = [(suite, *cell) for suite in ("quick", "suite-v1") for cell in reference.cells(suite)]


@pytest.mark.parametrize(("suite", "task", "algorithm"), COMMITTED)
def test_committed_results(suite, task, algorithm):
    """Every committed cell belongs to the task as it is, has ten runs, and says where it comes from."""
    found = reference.read(suite, task, algorithm, load_task(task).hash)
    assert len(found) == len(json.loads(reference.file_of(suite, task, algorithm).read_text())["results"])
    assert [r["run"]["seed"] for r in found] == list(range(10))
    row = leaderboard.make_row(found, leaderboard.REFERENCE)
    assert math.isfinite(row.score.value)
    assert found[0]["provenance"]["commit"]
    archive = reference.archive_of(suite, task, algorithm)
    if archive.is_file():
        with zipfile.ZipFile(archive) as files:
            assert files.testzip() is None
        assert archive.stat().st_size <= reference.SMALL


STORED = [cell for cell in COMMITTED if reference.stored_seeds(*cell)]


@pytest.mark.parametrize(("suite", "task", "algorithm"), STORED[:: max(1, len(STORED) // 8)])
def test_committed_policies_score_the_committed_score(suite, task, algorithm):
    stored, again = reference.rescore(suite, task, algorithm)
    assert again == pytest.approx(stored, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "task", "algorithm"), STORED)
def test_every_committed_policy_scores_the_committed_score(suite, task, algorithm):
    stored, again = reference.rescore(suite, task, algorithm)
    assert again == pytest.approx(stored, abs=1e-12)


OWN = {
    "AIBazaar-v0": {"pb_marl"},
    "CoalitionTrading-v0": {"maddpg"},
    "FederatedSlicing-v0": {"dt_mafl"},
    "SpectrumBertrand-v0": {"qpml"},
    "TwoTierBidding-v0": {"dqn", "dueling_dqn"},
}
"""The markets' own papers' algorithms."""


def test_every_profile_task_has_eight_algorithms_and_every_market_its_papers_own():
    tasks = {name: load_task(name) for name in suites.suites()["suite-v1"]}
    cells = {name: {a for t, a in reference.cells("suite-v1") if t == name} for name in tasks}
    for name, task in tasks.items():
        if not task.definition.tripwire:
            assert len(cells[name]) >= 8, f"{name} has only {sorted(cells[name])}"
    for market, own in OWN.items():
        there = set().union(*(cells[name] for name, task in tasks.items() if task.definition.market == market))
        assert own & there, f"{market} lacks its paper's own algorithm"
