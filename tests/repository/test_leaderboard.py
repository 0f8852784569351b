"""The leaderboard keeps what is finished, names what is damaged, and refuses bad input before anything is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from marketenvs_benchmarks import leaderboard, runs, statistics
from typer.testing import CliRunner

from marketenvs.cli import app
from marketenvs.errors import MarketEnvsError

SMALL = [
    "leaderboard",
    "--task",
    "bazaar-fixed",
    "--algorithm",
    "random",
    "--algorithm",
    "equilibrium",
    "--seeds",
    "2",
    "--workers",
    "1",
]


def call(*arguments):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    result = call(*SMALL, "--results", str(folder))
    assert result.exit_code == 0, result.output
    return folder


def test_anchors_of_the_table(finished):
    rows = {
        r["algorithm"]: r for r in json.loads((finished / "quick" / "summary.json").read_text())["bazaar-fixed"]["rows"]
    }
    assert rows["equilibrium"]["score"] == [1.0, 1.0, 1.0]
    assert abs(rows["random"]["score"][0]) < 0.02
    page = (finished / "quick" / "leaderboard.html").read_text()
    assert "Equilibrium" in page
    assert "http" not in page.replace("http-equiv", ""), "the page loads nothing from elsewhere"


def test_a_second_run_reuses_everything(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("seed-*.json")}
    assert len(before) == 4
    result = call(*SMALL, "--results", str(finished))
    assert "4 reused, 0 to do" in result.output
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("seed-*.json")} == before


def test_a_damaged_result_is_named_and_redone(finished):
    path = finished / "quick" / "bazaar-fixed" / "random" / "seed-1.json"
    good = json.loads(path.read_text())
    path.write_text(path.read_text()[:200])
    result = call(*SMALL, "--results", str(finished))
    assert "seed-1.json is damaged" in result.output.replace("\n", " ")
    assert "3 reused, 1 to do" in result.output
    again = json.loads(path.read_text())
    assert again["evaluation"]["scores"] == good["evaluation"]["scores"], "equal seeds give equal results"


def test_a_result_of_another_task_content_is_not_reused(finished):
    path = finished / "quick" / "bazaar-fixed" / "random" / "seed-0.json"
    wanted, _, _ = leaderboard.wanted_runs("quick", ["random"], 1, ["bazaar-fixed"])
    assert runs.read_result(path, wanted[0]) is not None
    other = json.loads(path.read_text())
    other["run"]["task_hash"] = "0" * 64
    path.write_text(json.dumps(other))
    assert runs.read_result(path, wanted[0]) is None


def test_an_interrupt_keeps_finished_runs(tmp_path):
    command = [
        sys.executable,
        "-m",
        "marketenvs.cli",
        "leaderboard",
        "--task",
        "bazaar-fixed",
        "--seeds",
        "3",
        "--workers",
        "1",
    ]
    command += ["--results", str(tmp_path), "--algorithm", "random", "--algorithm", "q_learning"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.time() + 120
    while not list(tmp_path.rglob("seed-*.json")) and time.time() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    kept = list(tmp_path.rglob("seed-*.json"))
    assert kept, output
    for path in kept:
        assert runs.read_result(path) is not None
    assert not list(tmp_path.rglob("*.tmp"))
    assert process.returncode in (0, 130), output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "quik"], "did you mean 'quick'"),
        (["--task", "bazaar-fixd"], "did you mean 'bazaar-fixed'"),
        (["--algorithm", "pb_mar"], "did you mean 'pb_marl'"),
        (["--learner", "nowhere_at_all:train"], "no module 'nowhere_at_all'"),
        (["--policy", "consumr=random_module:P"], "did you mean 'consumer'"),
        (["--policy", "consumer=nowhere_at_all:P"], "no module 'nowhere_at_all'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_done(tmp_path, arguments, message):
    with pytest.raises(MarketEnvsError, match=message):
        call("leaderboard", *arguments, "--results", str(tmp_path / "out"))
    assert not list(tmp_path.rglob("seed-*.json"))


@pytest.mark.skipif(
    os.geteuid() != 0, reason="the place below /proc is refused to everybody; elsewhere permissions do it"
)
def test_an_unwritable_results_folder_is_an_error_before_any_work():
    with pytest.raises(MarketEnvsError, match="cannot be written"):
        call(*SMALL, "--results", "/proc/marketenvs-results")


def test_interquartile_mean_and_interval():
    assert statistics.iqm([0, 1, 2, 3, 4, 5, 6, 100]) == pytest.approx(3.5)
    same = statistics.interval([0.7] * 10)
    assert (same.low, same.value, same.high) == pytest.approx((0.7, 0.7, 0.7))
    wide = statistics.stratified([[0.0, 1.0] * 10, [0.0, 1.0] * 10])
    assert wide.low < wide.value < wide.high
    assert statistics.stratified([[0.0, 1.0] * 10]) == statistics.stratified([[0.0, 1.0] * 10]), (
        "the bootstrap is seeded"
    )


def test_a_changed_learner_is_run_again(tmp_path):
    """A stored score belongs to the source that made it."""
    file = tmp_path / "changing.py"
    file.write_text("def train(task, seed, budget, report):\n    return {}\n")
    name = f"{file}:train"
    before = runs.code_of(name)
    runs.code_of.cache_clear()
    assert runs.code_of(name) == before
    file.write_text("def train(task, seed, budget, report):\n    return {'provider': None}\n")
    runs.code_of.cache_clear()
    assert runs.code_of(name) != before
    assert "code" in runs.KEY


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(run="zz"),
        lambda r: r.update(evaluation={"score": 0.5}),
        lambda r: r["evaluation"].update(score=None),
        lambda r: r["evaluation"].update(score=float("nan")),
        lambda r: r.update(roles={}),
        lambda r: r["evaluation"]["regret"].clear(),
    ],
)
def test_half_a_result_counts_as_damaged(finished, tmp_path, change):
    good = json.loads((finished / "quick" / "bazaar-fixed" / "equilibrium" / "seed-0.json").read_text())
    path = tmp_path / "seed-0.json"
    path.write_text(json.dumps(good))
    assert runs.read_result(path) is not None
    change(good)
    path.write_text(json.dumps(good))
    with pytest.raises(MarketEnvsError, match="damaged"):
        runs.read_result(path)
