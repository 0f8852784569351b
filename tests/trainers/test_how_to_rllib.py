"""docs/how-to/rllib.md says what works: its code runs from top to bottom, and its table comes from the command it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "rllib.md"
pytestmark = pytest.mark.filterwarnings("ignore")


def test_commands_options_and_learners_that_are_named_exist():
    import typer
    from marketenvs_baselines import ALGORITHMS

    from marketenvs.cli import app

    text = PAGE.read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = re.findall(r"`marketenvs (\w+)([^`]*)`", text)
    assert {"train", "leaderboard", "evaluate"} <= {name for name, _ in found}
    for name, rest in found:
        options = {o for p in commands[name].params for o in p.opts}
        assert set(re.findall(r"--\w+", rest)) <= options, (name, rest)
    assert all(n.replace(":", "_") in ALGORITHMS for n in re.findall(r"rllib:\w+", text))


def test_the_table_has_every_market_and_its_claims_hold():
    """The page's sentences about the measured table, against the table itself."""
    from marketenvs_benchmarks.rllib_sampling import BEGIN, END

    import marketenvs

    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = {
        c[0]: c[1:] for line in table.splitlines() if len(c := [x.strip() for x in line.strip("|").split("|")]) == 7
    }
    rows = {k: v for k, v in rows.items() if k in marketenvs.list_markets()}
    assert list(rows) == marketenvs.list_markets()
    ratios = {id: [float(cell.split()[0]) for cell in row[1:]] for id, row in rows.items()}
    assert all(r[2] >= 5 and r[3] >= 5 for r in ratios.values()), "MarketEnvRunner, 16 and 256 markets"
    assert min(r[1] for r in ratios.values()) < 2, "an environment that costs nothing is not twice as fast everywhere"
    assert all(0.8 < r[4] < 1.2 for r in ratios.values()), "step alone"


@pytest.mark.slow
def test_the_code_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    ray = pytest.importorskip("ray", reason="needs marketenvs[rllib]")
    pytest.importorskip("ray.rllib")
    monkeypatch.chdir(tmp_path)
    ray.shutdown()
    names: dict = {}
    try:
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S):
            exec(compile(block, str(PAGE), "exec"), names)
    finally:
        ray.shutdown()
    lines = capsys.readouterr().out.splitlines()
    assert "[0.0003, 0.003]" in lines, "Tune tried both"
    assert len(names["found"]) == 2
    assert all(r.error is None for r in names["found"])
    assert any(line.startswith("['consumer_0'") and "'provider_0'" in line for line in lines)
    assert list(names["provider"]) == ["provider"]
