"""docs/how-to/train.md says what works: every block is run or read."""

from __future__ import annotations

import re
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
    algorithm = resolve(content["learner"])
    training.check_options(content["learner"], algorithm, content["options"])
    assert content == yaml.safe_load(block)


def test_learners_and_commands_that_are_named_exist():
    import typer

    from marketenvs.cli import app

    text = PAGE.read_text()
    named = {n.replace(":", "_") for n in re.findall(r"`((?:sb3|rllib):[a-z]+)`", text)}
    assert len(named) >= 5
    assert all(name in ALGORITHMS for name in named)
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    (shell,) = blocks("bash")
    assert {line.split()[1] for line in shell.splitlines()} <= commands


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
