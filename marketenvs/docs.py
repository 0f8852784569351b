"""Generated documentation: a page per market, the README's and the index's tables. A test fails when they are stale.

Everything here derives from the registry: a market's page is its rules' module docstring, then its parameters, presets, stages and tasks.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

from . import list_markets, list_presets, make, spec
from .arrays import Distribution, FirstThen

BEGIN, END = "<!-- begin generated: {} -->", "<!-- end generated: {} -->"


def slug(id: str) -> str:
    """File name of a market's page."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", id.rsplit("-v", 1)[0]).lower()


def market_page(id: str) -> str:
    """The documentation page of one market, in Markdown."""
    s = spec(id)
    cls = s.load()
    module = importlib.import_module(cls.__module__)
    market = make(id)
    parts = [f"# {s.title} (`{id}`)\n", f"{s.summary}\n", (module.__doc__ or "").strip() + "\n"]
    rows = [
        [
            f"`{stage.name}`",
            stage.role,
            str(market.roles[stage.role]),
            _code(stage.codec.action_space),
            _code(stage.observation_space),
            str(stage.codec.width),
        ]
        for stage in market.stages
    ]
    parts += [
        f"## Stages (preset `{s.default_preset}`)\n",
        table(("stage", "role", "agents", "action space", "observation space", "numbers per decision"), rows),
    ]
    rows = []
    for f in dataclasses.fields(cls.Params):
        meta = f.metadata
        choices = ", ".join(f"`{c}` ({o})" for c, o in meta["choices"].items()) if "choices" in meta else ""
        shape = _shape(meta.get("shape")) if meta.get("kind") == "number" else ""
        rows.append(
            [
                f"`{f.name}`",
                meta.get("symbol") or "",
                meta.get("unit", ""),
                shape,
                f"`{_value(f.default)}`",
                meta.get("doc", "") + (f": {choices}" if choices else ""),
            ]
        )
    parts += ["## Parameters\n", table(("name", "symbol", "unit", "shape", "default", "meaning"), rows)]
    rows = [[f"`{name}`", _preset(cls.Params.PRESETS.get(name, {}))] for name in list_presets(id)]
    parts += ["## Presets\n", table(("preset", "differs from the defaults in"), rows)]
    if s.paper:
        parts.append(f"## Paper\n\n{s.paper}\n")
    return "\n".join(parts)


def _code(space: Any) -> str:
    return f"`{space}`".replace("\n", " ")


def _shape(shape: tuple | None) -> str:
    return "(" + ", ".join(map(str, shape)) + ")" if shape else "()"


def _value(value: Any) -> str:
    if isinstance(value, (Distribution, FirstThen)):
        return repr(value)
    if value is dataclasses.MISSING:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _preset(overrides: Any) -> str:
    text = ", ".join(f"`{k}={_value(v)}`" for k, v in overrides.items()) or "nothing"
    return text if len(text) < 600 else text[:600].rsplit(", ", 1)[0] + ", ..."


def table(headings: tuple[str, ...], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def markets_table(prefix: str) -> str:
    """The table of markets, from the registry."""
    rows = []
    for id in list_markets():
        s = spec(id)
        market = make(id)
        agents = " + ".join(f"{n} {role}" for role, n in market.roles.items())
        rows.append(
            [
                f"[`{id}`]({prefix}{slug(id)}.md)",
                s.summary,
                agents,
                ", ".join(stage.name for stage in market.stages),
                market.information,
            ]
        )
    return table(("id", "what is traded", "agents (default preset)", "stages", "oracle's information"), rows)


def algorithms_table() -> str:
    """The table of algorithms, from their registry."""
    from marketenvs_baselines import ALGORITHMS

    rows = [
        [f"`{name}`", a.title, a.access, "yes" if a.stochastic else "", ", ".join(a.markets) or "all", a.citation]
        for name, a in ALGORITHMS.items()
    ]
    return table(("name", "algorithm", "access", "mixes", "markets", "source"), rows)


def tasks_table(suite: str, tripwires: bool | None = None) -> str:
    """The table of a suite's frozen tasks, with their floors.

    Args:
        suite: Name of the suite.
        tripwires: Only the tripwires, or only the others; None for all.
    """
    from marketenvs_benchmarks.runs import load_suite

    rows = []
    for name, (_, task) in load_suite(suite).items():
        d = task.definition
        if tripwires is not None and d.tripwire != tripwires:
            continue
        agents = " + ".join(f"{n} {role}" for role, n in task.make_market().roles.items())
        kind = "tripwire" if d.tripwire else d.track
        floors = [f"{task.floors[k]:.3f}" for k in ("best_constant", "myopic", "equilibrium")]
        held_out = f"{len(task.instances)} ({task.rejected} rejected)"
        rows.append(
            [
                f"`{name}`",
                d.market,
                agents,
                kind,
                d.tests,
                f"{d.rounds:,}",
                held_out,
                "0",
                *floors,
                f"`{task.hash[:12]}`",
            ]
        )
    headings = ("task", "market", "agents", "track", "what it tests", "rounds", "held-out markets")
    return table((*headings, "random", "best constant", "myopic", "equilibrium", "hash"), rows)


def leaderboard_page(suite: str = "suite-v1") -> str:
    """The page of the committed reference results."""
    from marketenvs_benchmarks import leaderboard, tables
    from marketenvs_benchmarks.reference import stored_seeds

    board, cost = leaderboard.reference_board(suite)
    stored = sum(bool(stored_seeds(suite, task, row.algorithm)) for task, rows in board.rows.items() for row in rows)
    intro = f"""# Reference results of {suite}

Generated by `marketenvs docs` from the committed files; nothing is estimated, and a cell that was not run is missing with its reason.

Score 1 is the certified equilibrium, 0 uniform play ([how scores are defined](scores.md)); interquartile mean over runs with its 95 %
bootstrap interval.

- *Access*: "oracle" rows see the state, "model" rows know the rules; only "observation" rows compete.
- *Regret kind* is the weakest certificate behind the row.
- *Rounds* is what a run was given: the package's own algorithms have declared budgets that fit two cores, often far below the task's. Policies
  with 0 or 1 rounds do not train.
- *To 0.9* is the median round at which a run first scored 0.9, censored at its budget; *area* is the mean score over log rounds.
- *Role track* is one agent against the frozen panel, mean over its members.

{cost["cells"]:.0f} cells, {cost["runs"]:.0f} runs, {cost["hours"]:.1f} hours of one core in all (training, learning
curves and scoring, wall clock on a shared machine).
The final policies of {stored} cells are stored, of the first run only where ten would be large (`marketenvs_benchmarks.reference.policies`);
scoring them again gives the stored score. Do it all again with `marketenvs benchmark {suite} --keep-policies`; put your own learner beside it
as [how-to/benchmark.md](how-to/benchmark.md) says.

"""
    return intro + tables.markdown(board)


def generated(root: Path) -> dict[Path, str]:
    """Path -> content of every generated file under the repository's root."""
    files = {root / "docs" / "markets" / f"{slug(id)}.md": market_page(id) for id in list_markets()}
    blocks = {
        root / "README.md": {"markets": markets_table("docs/markets/")},
        root / "docs" / "index.md": {"markets": markets_table("markets/")},
        root / "docs" / "algorithms.md": {"algorithms": algorithms_table()},
        root / "docs" / "tasks.md": {
            "suite-v1": tasks_table("suite-v1", tripwires=False),
            "suite-v1 tripwires": tasks_table("suite-v1", tripwires=True),
            "quick": tasks_table("quick"),
        },
    }
    files[root / "docs" / "leaderboard.md"] = leaderboard_page()
    for path, parts in blocks.items():
        text = path.read_text()
        for name, content in parts.items():
            text = _replace_block(text, name, content)
        files[path] = text
    return files


def _replace_block(text: str, name: str, content: str) -> str:
    begin, end = BEGIN.format(name), END.format(name)
    head, _, rest = text.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"the block {begin} ... {end} is missing")
    return f"{head}{begin}\n\n{content}\n{end}{tail}"


def stale(root: Path) -> list[Path]:
    """Generated files whose content on disk is out of date."""
    return [p for p, content in generated(root).items() if not p.is_file() or p.read_text() != content]


def write(root: Path) -> list[Path]:
    """Write every generated file that is out of date; returns those."""
    content = generated(root)
    changed = stale(root)
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content[path])
    return changed
