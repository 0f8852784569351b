"""The leaderboard: which algorithms play which tasks, the tables, and the page.

Results are the files of :mod:`.runs`; tables are made from whatever is finished. Algorithms that are too slow here, or whose library is not
installed, are shown with the committed reference results, marked "reference, not rerun".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marketenvs_baselines import ALGORITHMS

from marketenvs.errors import MarketEnvsError, UnknownName
from marketenvs.task import Task

from . import reference, runs, statistics, suites
from .runs import Run
from .statistics import Interval

SEEDS = 10
CURVE = 8
"""Points of a learning curve in full runs; the quick suite scores only the final policies."""
REFERENCE, OLDER = "reference, not rerun", "reference of older code"


@dataclass(frozen=True)
class Row:
    """One algorithm on one task.

    Attributes:
        algorithm: Name.
        title: Name in tables.
        access: "observation", "model" or "oracle".
        origin: "run here", or one of ``REFERENCE`` and ``OLDER``.
        runs: Number of runs (seeds).
        score: IQM of the mean score over roles, with its interval.
        worst: IQM of the least role's score.
        digits: IQM of the digits.
        regret: Role -> mean regret of an agent.
        nash_conv: Mean [lower, upper] (upper None where only searched).
        kind: Weakest certificate behind the numbers.
        welfare: Mean welfare over the social optimum, or None.
        rounds: Training rounds.
        seconds: Mean training seconds of one run.
        scores: The runs' scores.
        role_scores: Role -> IQM of the role's score.
    """

    algorithm: str
    title: str
    access: str
    origin: str
    runs: int
    score: Interval
    worst: float
    digits: float
    regret: Mapping[str, float]
    nash_conv: tuple[float, float | None]
    kind: str
    welfare: float | None
    rounds: int
    seconds: float
    scores: Sequence[float]
    role_scores: Mapping[str, float]
    panel: Mapping[str, Mapping[str, float | None]]
    """Role -> panel member -> mean score of the role track."""
    to_90: str = "-"
    """Median rounds to score 0.9; "> budget" where half of the runs never get there; "-" without a learning curve."""
    area: Interval | None = None
    """Area under the score curve over log rounds, in [-1, 1]; None without a curve."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """What only some markets have: "collusion index", "stage score", ...: means over runs."""


@dataclass
class Board:
    """All tables of one suite."""

    suite: str
    tasks: dict[str, Task]
    rows: dict[str, list[Row]] = field(default_factory=dict)
    missing: dict[str, dict[str, str]] = field(default_factory=dict)
    """Task -> algorithm -> why there is no result."""


def declared(suite: str) -> dict[str, dict[str, int | None]]:
    """Task -> algorithm -> rounds that the rooms declare for a suite; empty for suites without such a table."""
    return {"quick": suites.quick_algorithms, "suite-v1": suites.v1_algorithms}.get(suite, dict)()


def wanted_runs(
    suite: str,
    algorithms: Sequence[str] | None = None,
    seeds: int = SEEDS,
    tasks: Sequence[str] | None = None,
    full: bool = False,
    extra: Sequence[str] = (),
) -> tuple[list[Run], dict[str, dict[str, str]], dict[str, Task]]:
    """The runs of a suite: every algorithm on every task it can play.

    Args:
        suite: Suite name.
        algorithms: Names or "module:train"; default: all registered ones.
        seeds: Runs per algorithm and task.
        tasks: Only these tasks.
        extra: Further algorithms ("module:train", "policy:role=module:Class") beside those.
        full: Use the tasks' full budgets and run heavy algorithms too, instead of the quick budgets.

    Returns:
        The runs, why some pairs are left out, and the tasks by name.
    """
    loaded = runs.load_suite(suite)
    if tasks:
        for name in tasks:
            if name not in loaded:
                from marketenvs.errors import nearest

                raise UnknownName(f"suite {suite!r} has no task {name!r}; {nearest(name, loaded)}")
        loaded = {k: v for k, v in loaded.items() if k in tasks}
    names = list(algorithms) if algorithms is not None else list(ALGORITHMS)
    chosen = declared(suite) if algorithms is None and not full else {}
    out: list[Run] = []
    left: dict[str, dict[str, str]] = {}
    for task_name, (path, task) in loaded.items():
        market = task.make_market()
        for name in [*names, *extra]:
            algorithm = runs.resolve_any(name)
            quick = chosen.get(task_name)
            reason = algorithm.why_not(market)
            if reason is not None and algorithm.markets and market.id not in algorithm.markets:
                continue  # made for another market
            if reason is None and name in names and quick is not None and name not in quick:
                reason = f"not part of the {suite} suite's table (--algorithm NAME runs it)"
            elif reason is None and algorithm.heavy and not full and algorithms is None:
                reason = "too slow for this suite"
            if reason is not None:
                left.setdefault(task_name, {})[algorithm.name] = reason
                continue
            budget = min(task.budget, (quick or {}).get(name) or algorithm.quick_budget)
            if full and algorithm.quick_budget > 1:
                budget = task.budget
            curve = CURVE if full else 0
            code = runs.code_of(name)
            out += [
                Run(suite, task_name, str(path), task.hash, name, seed, budget, code, curve) for seed in range(seeds)
            ]
    return out, left, {k: t for k, (_, t) in loaded.items()}


def make_row(results: Sequence[Mapping[str, Any]], origin: str) -> Row:
    """A table row from the results of an algorithm's runs on one task."""
    evaluations = [r["evaluation"] for r in results]
    first = results[0]
    roles = list(evaluations[0]["regret"])
    name = first["run"]["algorithm"]
    only = name.removeprefix("policy:").partition("=")[0] if name.startswith("policy:") else None
    scores = [
        e["scores"][only] if only else e["score"] for e in evaluations
    ]  # a single role's policy: that role's score

    def mean(get: Callable[[Mapping[str, Any]], float | None]) -> float | None:
        values = [get(e) for e in evaluations]
        return None if any(v is None for v in values) else float(sum(v for v in values if v is not None) / len(values))

    kinds = {"exact": 0, "bound": 1, "estimate": 2}
    return Row(
        algorithm=name,
        title=first["algorithm"]["title"],
        access=first["algorithm"]["access"],
        origin=origin,
        runs=len(results),
        score=statistics.interval(scores),
        worst=statistics.iqm(scores if only else [e["worst"] for e in evaluations]),
        digits=statistics.iqm([e["digits"] for e in evaluations]),
        regret={role: mean(lambda e, r=role: e["regret"][r]) or 0.0 for role in roles},  # type: ignore[misc]
        nash_conv=(mean(lambda e: e["nash_conv"][0]) or 0.0, mean(lambda e: e["nash_conv"][1])),
        kind=max((e["kind"] for e in evaluations), key=kinds.__getitem__),
        welfare=mean(lambda e: e["welfare_ratio"]),
        rounds=first["rounds"],
        seconds=float(sum(r["training_seconds"] for r in results) / len(results)),
        scores=scores,
        role_scores={role: statistics.iqm([e["scores"][role] for e in evaluations]) for role in roles},
        panel={role: _panel([r["roles"][role] for r in results]) for role in roles},
        to_90=statistics.rounds_to([r["curve"] for r in results], 0.9),
        area=statistics.curve_area([r["curve"] for r in results]),
        extras=_extras(evaluations),
    )


EXTRAS = {
    "collusion index": lambda e: e["metrics"].get("collusion_index"),
    "stage score": lambda e: e.get("extra", {}).get("stage_score"),
    "stage regret": lambda e: _mean_of(e.get("extra", {}).get("stage_regret")),
}
"""Columns of some markets: (profit - Nash) / (joint monopoly - Nash), and the one-round score beside a dynamic one."""


def _extras(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found = {name: [get(e) for e in evaluations] for name, get in EXTRAS.items()}
    return {name: statistics.iqm(values) for name, values in found.items() if all(v is not None for v in values)}


def _mean_of(value: Any) -> float | None:
    """A number as it is; the mean of numbers by role."""
    if isinstance(value, Mapping):
        return float(sum(value.values()) / len(value)) if value else None
    return None if value is None else float(value)


def _panel(found: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    out: dict[str, float | None] = {}
    for member in found[0]:
        values = [f[member] for f in found]
        out[member] = None if any(v is None for v in values) else statistics.iqm([v for v in values if v is not None])
    return out


def collect(
    suite: str, folder: Path, wanted: Sequence[Run], left: Mapping[str, Mapping[str, str]], tasks: dict[str, Task]
) -> Board:
    """The board from finished results, and committed reference results for what has none.

    A reference is also shown beside results made here if it is of another budget or code.
    """
    board = Board(suite, tasks)
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in wanted:
        grouped.setdefault((run.task, run.algorithm), []).append(run)
    for (task, algorithm), group in grouped.items():
        results = []
        for run in group:
            try:
                result = runs.read_result(run.path(folder), run)
            except MarketEnvsError:
                result = None
            if result is not None:
                results.append(result)
        if results:
            board.rows.setdefault(task, []).append(make_row(results, "run here"))
        rows = reference_rows(suite, task, algorithm, tasks[task].hash)
        same = {(r["run"]["budget"], r["run"]["code"]) for r in results}
        board.rows.setdefault(task, []).extend(row for row, key in rows if key not in same)
        if not results and not rows:
            board.missing.setdefault(task, {})[algorithm] = "not run"
    for task, reasons in left.items():
        for algorithm, reason in reasons.items():
            rows = reference_rows(suite, task, algorithm, tasks[task].hash)
            board.rows.setdefault(task, []).extend(row for row, _ in rows)
            if not rows:
                board.missing.setdefault(task, {})[algorithm] = reason
    for found in board.rows.values():
        found.sort(key=lambda r: -r.score.value)
    return board


def reference_board(suite: str) -> tuple[Board, dict[str, float]]:
    """The board of the committed reference results alone, and what they cost: "cells", "runs" and "hours" of one core."""
    from . import benchmark

    _, left, tasks = benchmark.plan(suite, algorithms=[], whatever_is_installed=True)
    left = {
        t: {n: benchmark.NOT_YET if why == "not asked for" else why for n, why in r.items()} for t, r in left.items()
    }
    board = collect(suite, Path(), [], left, tasks)
    cost = {"cells": 0.0, "runs": 0.0, "hours": 0.0}
    for task, algorithm in reference.cells(suite):
        results = reference.read(suite, task, algorithm, tasks[task].hash) if task in tasks else []
        cost["cells"] += bool(results)
        cost["runs"] += len(results)
        cost["hours"] += sum(r.get("seconds", r["training_seconds"]) for r in results) / 3600
    return board, cost


def reference_rows(suite: str, task: str, algorithm: str, task_hash: str) -> list[tuple[Row, tuple[int, str]]]:
    """Rows of committed results, with their (budget, code); marked where the algorithm's source has changed since."""
    results = reference.read(suite, task, algorithm, task_hash)
    if not results:
        return []
    key = (results[0]["run"]["budget"], results[0]["run"]["code"])
    try:
        current = runs.code_of(algorithm) == key[1]
    except MarketEnvsError:
        current = False
    return [(make_row(results, REFERENCE if current else OLDER), key)]


def aggregate(board: Board) -> list[tuple[str, Interval, int]]:
    """Algorithms that have a result on every (untripped) task: IQM over all tasks, stratified bootstrap."""
    names = [t for t, task in board.tasks.items() if not task.definition.tripwire]
    if not names:
        return []
    per_task = [{r.title: r.scores for r in board.rows.get(t, ())} for t in names]
    common = set(per_task[0]).intersection(*per_task[1:])
    found = [(title, statistics.stratified([p[title] for p in per_task]), len(names)) for title in common]
    return sorted(found, key=lambda x: -x[1].value)
