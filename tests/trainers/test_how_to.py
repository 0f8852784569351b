"""docs/how-to/train.md says what works: every block is run or read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from marketenvs_baselines import ALGORITHMS, resolve

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "train.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.S)


def test_the_configuration_is_read_and_its_options_are_options(tmp_path):
    from marketenvs_benchmarks import training

    (block,) = blocks("yaml")
    (tmp_path / "ppo.yaml").write_text(block)
    content = training.read_config(tmp_path / "ppo.yaml")
    training.check_options(content["learner"], resolve(content["learner"]), content["options"])
    assert content == yaml.safe_load(block)


def test_learners_and_commands_that_are_named_exist():
    import typer

    from marketenvs.cli import app

    text = PAGE.read_text()
    named = {n.replace(":", "_") for n in re.findall(r"`((?:sb3|rllib):[a-z0-9]+)`", text)}
    assert len(named) >= 12
    assert all(name in ALGORITHMS for name in named)
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) >= 7
    assert {line.split()[1] for line in lines} <= commands


def test_who_keeps_checkpoints_is_told_truly():
    """The table of learners with and without checkpoints against what the command does."""
    import inspect

    from marketenvs_benchmarks import training

    rows = [line.split("|")[1:3] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = {name: "none" not in what for names, what in rows for name in re.findall(r"`([a-z_]+)`", names)}
    assert len(told) >= 14
    for name, keeps in told.items():
        algorithm = ALGORITHMS[name]
        takes = "checkpoint" in inspect.signature(training.function_of(algorithm)).parameters
        own = training.plays_rounds(algorithm) or training.keeps_segments(algorithm)
        assert (takes or own) == keeps, name


@pytest.mark.slow
def test_the_commands_run_one_after_another(tmp_path):
    """Every line of every shell block, in a folder of its own, as a newcomer would type it."""
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("tensorboard")
    (tmp_path / "ppo.yaml").write_text(blocks("yaml")[0])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    out = []
    for line in [line for block in blocks("bash") for line in block.splitlines() if line.startswith("marketenvs")]:
        done = subprocess.run(["bash", "-ec", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        out.append(done.stdout)
    assert all("score" in text for text in out)
    assert list(tmp_path.rglob("tensorboard/events*"))
    assert sorted(p.parent.name for p in tmp_path.rglob("policy.json")) == ["policy"] * 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_python_blocks_run_one_after_another(tmp_path, monkeypatch):
    pytest.importorskip("torchrl")
    ray = pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    try:
        for block in blocks("python"):
            if "ray_runs" in block:
                ray.shutdown()
            exec(compile(block, str(PAGE), "exec"), names)
    finally:
        ray.shutdown()
    assert set(names["trained"]) == set(names["again"]) == {"provider", "consumer"}
    assert names["report"].done == 2
