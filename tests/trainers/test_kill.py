"""kill -9 in the middle of the commands: they are run again, finish, redo nothing, and end with the same results.

Training runs in segments are killed in ``test_checkpoints`` and ``test_rllib_trainers``, a Ray machine in
``test_ray_runs``; here whole commands are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from marketenvs_baselines.store import load_policy

from .cases import small_task

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
COMMAND = [sys.executable, "-m", "marketenvs.cli"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "200"}
SUITE, TASKS = "quick", ("kelly-fixed", "bazaar-fixed")
LEARNER = """
import os, time
from pathlib import Path
import numpy as np
from marketenvs.policy import Constant

def train(task, seed, budget, report=None):
    with open(Path(__file__).with_name("log.txt"), "a") as log:
        log.write(f"{task.name} {seed} {os.getpid()}\\n")
    time.sleep(float(os.environ.get("LEARNER_SLEEP", "0")))
    rng = np.random.default_rng(seed)
    market = task.make_market()
    state = market.reset(seed=0, batch=1)
    out = {}
    for stage in market.stages:
        low, high = (np.asarray(b).reshape(-1, stage.codec.width)[0] for b in market.bounds(state, stage.name))
        out[stage.role] = Constant(rng.uniform(low, high))
        state = market.commit(state, stage.name, np.broadcast_to(out[stage.role].decisions, (1, market.roles[stage.role], stage.codec.width)))
    return out
"""


def leaderboard(tmp_path, folder, *more, workers="2", sleep="0"):
    """The command, running in a session of its own."""
    arguments = [f"--task={t}" for t in TASKS] + ["--algorithm=random", "--algorithm=pga_app", "--seeds=4"]
    arguments += [f"--learner={tmp_path / 'learner.py'}:train", f"--workers={workers}", f"--results={folder}", *more]
    return subprocess.Popen(
        [*COMMAND, "leaderboard", f"--suite={SUITE}", *arguments],
        stdout=open(tmp_path / f"{Path(folder).name}.out", "a"),
        stderr=subprocess.STDOUT,
        env={**ENV, "LEARNER_SLEEP": sleep},
        cwd=tmp_path,
        start_new_session=True,
    )


def family(session):
    """Live processes (zombies apart) of a session: the command's workers, whoever their parent is now."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return value


def results(folder):
    return {p: p.read_bytes() for p in sorted((Path(folder) / SUITE).glob("*/*/seed-*.json"))}


def without_times(found, folder):
    """Results by place, less what says when and how long."""
    out = {}
    for path, raw in found.items():
        data = json.loads(raw)
        for name in [k for k in data if "seconds" in k]:
            assert data.pop(name) >= 0
        data.pop("provenance")
        data["evaluation"].pop("seconds", None)
        data["curve"] = [[point[0], *point[2:]] for point in data["curve"]]
        out[str(path.relative_to(folder))] = data
    return out


def test_the_leaderboard_command_is_killed(tmp_path):
    """SIGKILL of the command alone, in the middle: its workers end by themselves, and the rerun does only the rest."""
    (tmp_path / "learner.py").write_text(LEARNER)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert leaderboard(tmp_path, whole).wait(timeout=300) == 0, (tmp_path / "whole.out").read_text()
    want = results(whole)
    assert len(want) == len(TASKS) * 3 * 4
    (tmp_path / "log.txt").unlink()

    process = leaderboard(tmp_path, killed, sleep="1.5")
    try:
        wait_until(lambda: len(results(killed)) >= 2, 200, "nothing finished")
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=10) == -signal.SIGKILL
        wait_until(lambda: not family(process.pid), 60, "orphaned workers stay")
    finally:
        for orphan in family(process.pid):
            os.kill(orphan, signal.SIGKILL)
    before = results(killed)
    assert 2 <= len(before) < len(want), "it was killed in the middle"
    for raw in before.values():
        json.loads(raw)  # each is whole
    begun = len((tmp_path / "log.txt").read_text().splitlines())

    assert leaderboard(tmp_path, killed).wait(timeout=300) == 0, (tmp_path / "killed.out").read_text()
    after = results(killed)
    assert {p: after[p] for p in before} == before, "what was done is kept, byte for byte"
    assert without_times(after, killed) == without_times(want, whole)
    done = {str(p) for p in before if "learner" in str(p)}
    rerun = len((tmp_path / "log.txt").read_text().splitlines()) - begun
    assert rerun == len(TASKS) * 4 - len(done), "nothing that was done is redone"
    assert not [p for p in killed.rglob("*") if p.is_file() and p.suffix not in (".json", ".html", ".svg", ".png")]
    summaries = [json.loads((f / SUITE / "summary.json").read_text()) for f in (whole, killed)]
    for summary in summaries:
        for row in (r for task in summary.values() for r in task["rows"]):
            for key in [k for k in row if "second" in k]:
                row.pop(key)
    assert summaries[0] == summaries[1], "the table is that of the uninterrupted run"


def train(tmp_path, folder, learner, task, config, timeout=400, kill_at=None):
    """``marketenvs train``; with ``kill_at`` it is killed as soon as that file is there."""
    command = [*COMMAND, "train", str(task), f"--learner={learner}", f"--config={config}", "--seed=3"]
    process = subprocess.Popen(
        [*command, f"--results={folder}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENV,
        cwd=tmp_path,
        start_new_session=True,
    )
    if kill_at is None:
        output, _ = process.communicate(timeout=timeout)
        assert process.returncode == 0, output
        return output
    try:
        wait_until(lambda: list(Path(folder).glob(kill_at)), timeout, f"{kill_at} did not come")
    finally:
        process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    wait_until(lambda: not family(process.pid), 90, "Ray's processes stay after the kill")
    return ""


def weights(folder, market):
    (path,) = Path(folder).glob("train/*/*/*/policy")
    return {
        (role, name): array
        for role, policy in load_policy(path, market).items()
        for name, array in policy.export()[1].items()
    }


@pytest.mark.parametrize("learner", ["rllib:ppo", "rllib:appo"])
def test_the_train_command_is_killed(learner, tmp_path):
    """RLlib by the command, killed after its first segments: the rerun takes them up and ends as if nothing had been.

    APPO learns in a thread beside the sampling, so two of its runs differ whatever happens; it resumes all the same.
    """
    pytest.importorskip("ray.rllib", reason="needs marketenvs[rllib]")
    task = small_task(n_consumers=2)
    task.save(tmp_path / "task.json")
    (tmp_path / "config.yaml").write_text("budget: 384\noptions: {markets: 8, rounds: 4, hidden: [16], every: 96}\n")
    arguments = (learner, tmp_path / "task.json", tmp_path / "config.yaml")
    train(tmp_path, tmp_path / "killed", *arguments, kill_at="train/*/*/*/checkpoint/segment-*")
    (kept,) = (tmp_path / "killed").glob("train/*/*/*/checkpoint/segment-*/segment.json")
    done = json.loads(kept.read_text())["last"]
    assert 96 <= done < 384, "it was killed in the middle"
    assert not list((tmp_path / "killed").glob("train/*/*/*/result.json"))
    train(tmp_path, tmp_path / "killed", *arguments)
    assert "already done" in train(tmp_path, tmp_path / "killed", *arguments)
    market = task.make_market()
    if learner == "rllib:ppo":
        train(tmp_path, tmp_path / "whole", *arguments)
        found, want = (weights(tmp_path / f, market) for f in ("killed", "whole"))
        assert found.keys() == want.keys()
        for name in want:
            np.testing.assert_array_equal(found[name], want[name])
        scores = [
            json.loads(next((tmp_path / f).glob("train/*/*/*/result.json")).read_text())["evaluation"]["score"]
            for f in ("killed", "whole")
        ]
        assert scores[0] == scores[1]
    else:
        assert all(np.isfinite(a).all() for a in weights(tmp_path / "killed", market).values())
