"""``marketenvs leaderboard``: do what is missing with progress shown, print the tables, write the page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marketenvs_baselines import ALGORITHMS, resolve_policy
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from marketenvs.errors import UnknownName, nearest
from marketenvs.task import write_json, write_text

from . import leaderboard, runs, tables


def run(
    console: Any,
    *,
    suite: str,
    tasks: Sequence[str] | None,
    algorithms: Sequence[str] | None,
    learners: Sequence[str],
    policies: Sequence[str],
    seeds: int,
    workers: int,
    folder: Path,
    full: bool,
    ray: str | None = None,
) -> int:
    """Run a leaderboard; returns the exit status (0, or 1 if a run failed, or 130 after Ctrl-C)."""
    begun = time.perf_counter()
    extra = [*learners, *(f"policy:{p}" for p in policies)]
    for name in [*(algorithms or ALGORITHMS), *extra]:
        runs.resolve_any(name)  # a wrong name is an error before anything is done
    wanted, left, loaded = leaderboard.wanted_runs(suite, algorithms or None, seeds, tasks, full, extra)
    _check_roles(policies, loaded)
    folder = runs.check_folder(folder)
    todo, reused, damaged = runs.plan_runs(wanted, folder)
    for text in damaged:
        console.print(f"[yellow]redoing:[/] {text}", highlight=False, soft_wrap=True)
    jobs = runs.make_jobs(todo)
    console.print(
        f"{len(wanted)} runs wanted, {reused} reused, {len(todo)} to do in {len(jobs)} jobs on {workers} workers",
        highlight=False,
    )
    report = runs.Report(reused=reused)
    if jobs:
        report = with_progress(console, wanted, folder, workers, jobs, ray)
    board = leaderboard.collect(suite, folder, wanted, left, loaded)
    return show(console, board, folder, report, begun)


def show(console: Any, board: leaderboard.Board, folder: Path, report: runs.Report, begun: float) -> int:
    """Print the tables, write the page and the summary, and say how it went; returns the exit status."""
    suite = board.suite
    tables.print_board(board, console)
    page = folder / suite / "leaderboard.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, tables.page(board, runs.provenance()))
    write_json(folder / suite / "summary.json", _summary(board))
    for label, error in report.failed.items():
        console.print(f"[red]failed:[/] {label}: {error}", highlight=False, soft_wrap=True)
    console.print(
        f"{report.done} runs done, {report.reused} reused, {time.perf_counter() - begun:.0f} s", highlight=False
    )
    console.print(f"results: {folder / suite}", soft_wrap=True, highlight=False)
    console.print(f"page:    {page.resolve().as_uri()}", soft_wrap=True, highlight=False)
    if report.interrupted:
        console.print("[yellow]interrupted: finished runs are kept; run the same command again to go on[/]")
        return 130
    return 1 if report.failed else 0


def _check_roles(policies: Sequence[str], tasks: dict[str, Any]) -> None:
    """Every ``role=policy`` must fit a role of some market, and load, before anything is done."""
    roles = sorted({role for task in tasks.values() for role in task.make_market().roles})
    for text in policies:
        role, _, where = text.partition("=")
        if role not in roles:
            raise UnknownName(
                f"--policy {text!r}: no market of these tasks has a role {role!r}; {nearest(role, roles)}"
            )
        resolve_policy(where, role)


def with_progress(
    console: Any,
    wanted: Sequence[runs.Run],
    folder: Path,
    workers: int,
    jobs: Sequence[runs.Job],
    ray: str | None = None,
) -> runs.Report:
    """Do the jobs with a bar for each that is running."""
    columns = (
        TextColumn("{task.description}", table_column=None),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        whole = progress.add_task("all jobs", total=len(jobs))
        bars: dict[str, Any] = {}
        finished: set[str] = set()

        def on_progress(label: str, part: float) -> None:
            if label in finished:
                return
            if label not in bars:
                bars[label] = progress.add_task(label, total=100)
            progress.update(bars[label], completed=round(100 * part))
            if part >= 1.0:
                finished.add(label)
                progress.remove_task(bars.pop(label))
                progress.advance(whole)

        if ray is not None:
            from . import ray_runs

            return ray_runs.run_all(wanted, folder, ray, workers, on_progress)
        return runs.run_all(wanted, folder, workers, on_progress)


def _summary(board: leaderboard.Board) -> dict[str, Any]:
    """The tables as data."""
    return {
        task: {
            "hash": board.tasks[task].hash,
            "floors": dict(board.tasks[task].floors),
            "rows": [
                {
                    "algorithm": row.algorithm,
                    "origin": row.origin,
                    "runs": row.runs,
                    "score": [row.score.value, row.score.low, row.score.high],
                    "worst": row.worst,
                    "regret": dict(row.regret),
                    "nash_conv": list(row.nash_conv),
                    "kind": row.kind,
                    "rounds_to_0.9": row.to_90,
                    "area": None if row.area is None else [row.area.value, row.area.low, row.area.high],
                    "extras": dict(row.extras),
                    "welfare": row.welfare,
                    "rounds": row.rounds,
                    "seconds": row.seconds,
                    "panel": {role: dict(v) for role, v in row.panel.items()},
                }
                for row in board.rows.get(task, [])
            ],
            "missing": board.missing.get(task, {}),
        }
        for task in board.tasks
    }
