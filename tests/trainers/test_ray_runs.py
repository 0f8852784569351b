"""The leaderboard's runs on Ray: the local table, also when a machine dies in the middle."""

from __future__ import annotations

import json
import threading
import time

import pytest
from marketenvs_benchmarks import ray_runs, runs

from marketenvs.errors import MarketEnvsError

from .cases import small_task

ray = pytest.importorskip("ray", reason="needs marketenvs[rllib]")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LEARNER = """
import os, time
import numpy as np
from pathlib import Path
from marketenvs.policy import Constant

def train(task, seed, budget, report=None):
    import ray
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "local"
    with open(Path(__file__).with_name("log.txt"), "a") as log:
        log.write(f"{node} {seed}\\n")
    if ray.is_initialized():
        time.sleep(3)
    if budget == 13 and seed == 1:
        raise ValueError("this learner fails")
    rng = np.random.default_rng(seed)
    report and report(budget)
    return {"provider": Constant([rng.uniform(6, 19)]), "consumer": Constant([rng.uniform(10, 200)])}
"""


@pytest.fixture
def wanted(tmp_path):
    """Six runs of a learner that takes three seconds, and one of an algorithm that trains its seeds together."""
    task = small_task()
    path = tmp_path / "task.json"
    task.save(path)
    (tmp_path / "learner.py").write_text(LEARNER)
    name = f"{tmp_path / 'learner.py'}:train"
    hash = json.loads(path.read_text())["hash"]
    made = [runs.Run("s", "small", str(path), hash, name, seed, 100) for seed in range(6)]
    return made + [runs.Run("s", "small", str(path), hash, "q_learning", seed, 300) for seed in range(2)]


def results_of(folder, wanted):
    found = [runs.read_result(run.path(folder), run) for run in wanted]
    assert all(found)
    timed = ("seconds",)  # the one thing that differs
    return [
        (f["run"], {k: v for k, v in f["evaluation"].items() if k not in timed}, f["roles"], f["rounds"]) for f in found
    ]


def logged(wanted):
    from pathlib import Path

    file = Path(wanted[0].task_path).with_name("log.txt")
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def test_a_machine_dies_and_the_table_is_the_local_one(wanted, tmp_path):
    from ray.cluster_utils import Cluster

    local = tmp_path / "local"
    assert runs.run_all(wanted, local, workers=2).done == 8
    (tmp_path / "log.txt").unlink()
    options = {"num_cpus": 1, "object_store_memory": 100 * 1024 * 1024}
    cluster = Cluster(initialize_head=True, head_node_args=options)
    try:
        others = [cluster.add_node(**options) for _ in range(2)]
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        doomed, killed = others[0], []

        def kill():
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                hit = [seed for node, seed in logged(wanted) if node == doomed.node_id]
                if hit:
                    cluster.remove_node(doomed, allow_graceful=False)
                    killed.extend(hit[-1:])
                    return
                time.sleep(0.1)

        watcher = threading.Thread(target=kill)
        watcher.start()
        folder = tmp_path / "ray"
        folder.mkdir()
        report = ray_runs.run_all(wanted, folder, "auto")
        watcher.join()
        assert killed, "a machine was killed while it worked"
        assert (report.done, report.failed, report.interrupted) == (8, {}, False)
        seeds = [seed for _, seed in logged(wanted)]
        assert seeds.count(killed[0]) >= 2, "its job was done again"
        assert results_of(folder, wanted) == results_of(local, wanted)
        again = ray_runs.run_all(wanted, folder, "auto")
        assert (again.done, again.reused) == (0, 8)
        assert len(logged(wanted)) == len(seeds), "finished runs are kept"
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_failing_jobs_are_named_and_the_others_done(wanted, tmp_path):
    import dataclasses

    failing = [dataclasses.replace(run, budget=13) for run in wanted[:3]]
    seen = []
    report = ray_runs.run_all(failing, tmp_path, "local", workers=3, on_progress=lambda label, part: seen.append(label))
    assert not ray.is_initialized()
    assert report.done == 2
    (label,) = report.failed
    assert "seed 1" in label
    assert report.failed[label] == "ValueError: this learner fails"
    assert len(seen) == 3


def test_kept_policies_come_back_from_the_workers(wanted, tmp_path):
    """Where policies are kept, they are those that a local run keeps, and what they score is what the result says."""
    import dataclasses

    from marketenvs_baselines.store import load_policy

    from marketenvs.scoring import evaluate

    kept = [dataclasses.replace(run, keep=True) for run in wanted if run.algorithm == "q_learning"]
    local, folder = tmp_path / "local", tmp_path / "ray"
    assert runs.run_all(kept, local, workers=1).done == 2
    assert ray_runs.run_all(kept, folder, "local", workers=1).done == 2
    assert runs.plan_runs(kept, folder)[1] == 2, "nothing is missing"
    task = small_task()
    for run in kept:
        mine, theirs = (ray_runs._files(run.policy_path(f)) for f in (folder, local))
        assert mine.keys() == theirs.keys()
        assert mine["policy.json"] == theirs["policy.json"]
        result = runs.read_result(run.path(folder), run)
        policies = load_policy(run.policy_path(folder), task.make_market())
        assert evaluate(task, policies, seed=run.seed).score == result["evaluation"]["score"]


def test_no_cluster_is_an_error_in_one_line(wanted, tmp_path):
    with pytest.raises(MarketEnvsError, match="no Ray cluster"):
        ray_runs.run_all(wanted, tmp_path, "127.0.0.1:1")
    with pytest.raises(MarketEnvsError, match="HOST:PORT"):
        ray_runs.run_all(wanted, tmp_path, "lokal")
