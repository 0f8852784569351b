"""The command line: what a newcomer types first."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import marketenvs
from marketenvs.cli import app
from marketenvs.errors import MarketEnvsError


def call(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_names_everything():
    out = call("list")
    for id in marketenvs.list_markets():
        assert id in out
    assert "bazaar-drawn" in out
    assert "pb_marl" in out


@pytest.mark.parametrize("id", marketenvs.list_markets())
def test_describe(id):
    out = call("describe", id)
    assert marketenvs.spec(id).title in out
    for role in marketenvs.make(id).roles:
        assert role in out


def test_play_prints_rounds():
    out = call("play", "AIBazaar-v0", "--rounds", "3", "--policy", "consumer=myopic")
    assert "14.929" in out, "the equilibrium price is posted"


def test_train_saves_scores_and_does_not_repeat(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("learner: q_learning\nbudget: 300\noptions:\n  explore: 0.2\n")
    arguments = ["train", "bazaar-grid", "--config", str(config), "--results", str(tmp_path / "out")]
    first = call(*arguments)
    assert "score" in first
    (result,) = (tmp_path / "out").rglob("result.json")
    (policy,) = (tmp_path / "out").rglob("policy")
    trained = json.loads(result.read_text())
    assert trained["setting"]["options"] == {"explore": 0.2}
    assert "already done" in call(*arguments)
    scored = json.loads(call("evaluate", str(policy)))
    assert scored["scores"] == trained["evaluation"]["scores"], "a stored policy scores the same"


def test_train_on_a_market_without_a_task(tmp_path):
    assert "score" in call("train", "AIBazaar-v0", "--learner", "myopic", "--results", str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lerner: q_learning", "did you mean 'learner'"),
        ("budget: many", "budget must be of type int"),
        ("learner: q_learning\noptions: {explor: 0.1}", "did you mean 'explore'"),
        ("- a list", "must map keys to values"),
        ("{", "cannot be read"),
        ("seed: 1", "name an algorithm"),
    ],
)
def test_bad_configurations(tmp_path, content, message):
    config = tmp_path / "run.yaml"
    config.write_text(content)
    with pytest.raises(MarketEnvsError, match=message):
        call("train", "bazaar-grid", "--config", str(config), "--results", str(tmp_path / "out"))
    assert not (tmp_path / "out" / "train").exists()


def test_errors_are_one_line_and_status_2():
    command = [sys.executable, "-m", "marketenvs.cli", "describe", "AIBazar-v0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown market 'AIBazar-v0'; did you mean 'AIBazaar-v0'?")
    assert "Traceback" not in done.stderr
