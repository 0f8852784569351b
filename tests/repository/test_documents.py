"""What the repository says about itself is true: README, generated pages, light imports, the how-to's learner."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import marketenvs

ROOT = Path(__file__).parents[2]


def code_blocks(path: Path, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)


def test_the_readme_quickstart_runs(capsys):
    (block,) = code_blocks(ROOT / "README.md")
    assert len([line for line in block.splitlines() if line.strip()]) <= 18
    exec(compile(block, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert "True" in lines[0], "the README's equilibrium is certified"
    assert lines[-1] == "1.0"


def test_the_index_page_runs(capsys):
    for block in code_blocks(ROOT / "docs" / "index.md"):
        exec(compile(block, "docs/index.md", "exec"), {})
    assert "exact" in capsys.readouterr().out


def test_generated_pages_are_not_stale():
    from marketenvs import docs

    old = [str(p.relative_to(ROOT)) for p in docs.stale(ROOT)]
    assert not old, f"out of date: {old}; run `marketenvs docs`"


def test_a_stale_page_is_noticed(tmp_path):
    import shutil

    from marketenvs import docs

    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    assert docs.stale(tmp_path) == docs.stale(ROOT)
    page = tmp_path / "docs" / "markets" / "ai_bazaar.md"
    page.write_text(page.read_text() + "an edit by hand\n")
    assert page in docs.stale(tmp_path)


@pytest.mark.parametrize("module", ["marketenvs", "marketenvs.registry", "marketenvs_baselines"])
def test_imports_are_light(module):
    code = (
        f"import sys, {module}\n"
        "heavy = ['torch', 'ray', 'stable_baselines3', 'matplotlib', 'jax', 'pandas', 'statsmodels', 'pymoo', 'torchrl']\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_making_every_market_is_light():
    code = (
        "import sys, marketenvs\n"
        "for id in marketenvs.list_markets(): marketenvs.make(id).reset(seed=0)\n"
        "print([m for m in ['torch', 'ray', 'stable_baselines3', 'matplotlib', 'pandas', 'statsmodels'] if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_the_how_to_works(tmp_path, monkeypatch):
    """The policy and the learner of docs/how-to join the tables from outside the tree, on a tiny budget."""
    import json

    from typer.testing import CliRunner

    from marketenvs.cli import app

    policy, learner = code_blocks(ROOT / "docs" / "how-to" / "bring-your-own.md")[:2]
    (tmp_path / "my_policy.py").write_text(policy)
    (tmp_path / "my_learner.py").write_text(
        learner.replace("def train(", "def train(") + "\n\ntrain.quick_budget = 300\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = [
        "leaderboard",
        "--task",
        "bazaar-fixed",
        "--algorithm",
        "random",
        "--seeds",
        "2",
        "--workers",
        "1",
        "--results",
        "out",
    ]
    arguments += ["--learner", "my_learner:train", "--policy", "consumer=my_policy:Cautious"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = {
        r["algorithm"]: r
        for r in json.loads((tmp_path / "out" / "quick" / "summary.json").read_text())["bazaar-fixed"]["rows"]
    }
    assert set(rows) == {"random", "my_learner:train", "policy:consumer=my_policy:Cautious"}
    assert rows["my_learner:train"]["regret"]["provider"] < 100 < rows["random"]["regret"]["provider"]
    assert rows["policy:consumer=my_policy:Cautious"]["regret"]["provider"] < 1e-6


def test_the_benchmark_how_to_works(tmp_path, monkeypatch):
    """The page's learner of at most thirty lines joins suite-v1's table beside the committed results; its commands run."""
    import json

    from typer.testing import CliRunner

    from marketenvs.cli import app

    text = (ROOT / "docs" / "how-to" / "benchmark.md").read_text()
    (learner,) = code_blocks(ROOT / "docs" / "how-to" / "benchmark.md")
    assert len([line for line in learner.splitlines() if line.strip()]) <= 30
    (tmp_path / "my_learner.py").write_text(learner)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    commands = re.findall(r"^marketenvs (.*)$", text, flags=re.MULTILINE)
    assert len(commands) == 4
    tiny = {"benchmark": "--budget 240 --seeds 2 --workers 1 --keep-policies --results results-monday"}
    done = CliRunner().invoke(app, [*commands[0].split(), *tiny["benchmark"].split()], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "results-monday" / "suite-v1" / "summary.json").read_text())
    for task in ("bazaar-fixed", "kelly-fixed"):
        rows = {r["algorithm"]: r for r in summary[task]["rows"]}
        mine = rows.pop("my_learner:train")
        assert (mine["origin"], mine["rounds"], mine["runs"]) == ("run here", 240, 2)
        if task == "kelly-fixed":
            assert mine["score"][0] > rows["random"]["score"][0] + 0.2, "even little hill climbing beats uniform play"
        assert len(rows) >= 8
        assert all(r["origin"].startswith("reference") and r["runs"] == 10 for r in rows.values())
    (tmp_path / "results-monday").rename(tmp_path / "results")
    for folder in ("results-monday", "results-tuesday"):
        again = [*commands[0].split(), "--budget", "40", "--seeds", "1", "--workers", "1", "--results", folder]
        assert CliRunner().invoke(app, again, catch_exceptions=False).exit_code == 0
    compared = CliRunner().invoke(app, commands[1].split(), catch_exceptions=False)
    assert "my_learner:train" in compared.output
    assert "fictitious_play" in compared.output, "--reference adds the committed results"
    assert CliRunner().invoke(app, commands[3].split(), catch_exceptions=False).exit_code == 0


def test_version_is_the_same_everywhere():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == marketenvs.__version__
    assert f"version: {marketenvs.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {marketenvs.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_satisfy_the_project():
    from importlib import metadata

    from packaging.requirements import Requirement

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for text in metadata.requires("marketenvs") or []:
        requirement = Requirement(text)
        if requirement.name in pins:
            assert requirement.specifier.contains(pins[requirement.name]), text
