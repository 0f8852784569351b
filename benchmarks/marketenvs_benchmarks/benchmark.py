"""``marketenvs benchmark SUITE``: the suite's reference runs, or a user's learner alone beside the committed reference results.

Every algorithm of the package has a declared budget on every task it is run on (the rooms' ``V1_ALGORITHMS``): the whole suite can be done on
two cores within hours, and a table says in its column "rounds" what each row has had. A user's learner gets the tasks' full budgets.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marketenvs_baselines import ALGORITHMS

from marketenvs.errors import UnknownName, nearest
from marketenvs.task import Task

from . import boards, leaderboard, runs
from .runs import Run

CURVE = 6
"""Points of a learning curve beside the final score."""
NOT_YET = "declared, but not run: the time for the reference runs was up; marketenvs benchmark goes on with it"
NOT_DECLARED = "not among the reference runs (they fit two cores in hours); --algorithm NAME runs it"


def plan(
    suite: str,
    tasks: Sequence[str] | None = None,
    algorithms: Sequence[str] | None = None,
    learners: Sequence[str] = (),
    seeds: int = leaderboard.SEEDS,
    budget: int | None = None,
    keep: bool = False,
    curve: int = CURVE,
    whatever_is_installed: bool = False,
) -> tuple[list[Run], dict[str, dict[str, str]], dict[str, Task]]:
    """The runs that are asked for.

    Args:
        suite: Name of the suite.
        tasks: Only these.
        algorithms: Of the package; None: all declared ones, or none of them where ``learners`` are given.
        learners: A user's own, "module:train".
        seeds: Runs per algorithm and task.
        budget: Rounds of every run that trains; default: the declared ones, and the task's for what is not declared.
        keep: Store the final policies.
        curve: Points of the learning curves.
        whatever_is_installed: Do not ask whether an algorithm's libraries are installed (for pages that must not depend on it).

    Returns:
        The runs; task -> algorithm -> why it is not among them; the tasks by name.

    Raises:
        UnknownName: No such suite, task or algorithm.
    """
    loaded = runs.load_suite(suite)
    for name in tasks or ():
        if name not in loaded:
            raise UnknownName(f"suite {suite!r} has no task {name!r}; {nearest(name, loaded)}")
    loaded = {k: v for k, v in loaded.items() if not tasks or k in tasks}
    table = leaderboard.declared(suite)
    out: list[Run] = []
    left: dict[str, dict[str, str]] = {}
    for task_name, (path, task) in loaded.items():
        market, rounds = task.make_market(), table.get(task_name, {})
        for name in [*ALGORITHMS, *learners, *(a for a in algorithms or () if a not in ALGORITHMS)]:
            algorithm = runs.resolve_any(name)
            needs = dataclasses.replace(algorithm, requires=()) if whatever_is_installed else algorithm
            reason = needs.why_not(market)
            if reason is not None and algorithm.markets and market.id not in algorithm.markets:
                continue  # made for another market
            asked = name in learners or (
                name in algorithms if algorithms is not None else not learners and name in rounds
            )
            if reason is None and not asked:
                reason = "not asked for" if name in rounds else NOT_DECLARED
            if reason is not None:
                left.setdefault(task_name, {})[name] = reason
                continue
            size = _rounds(algorithm, task, rounds.get(name), name in rounds, budget, name in learners)
            code = runs.code_of(name)
            out += [
                Run(suite, task_name, str(path), task.hash, name, seed, size, code, curve, keep)
                for seed in range(seeds)
            ]
    return out, left, {k: t for k, (_, t) in loaded.items()}


def _rounds(algorithm: Any, task: Task, declared: int | None, known: bool, budget: int | None, own: bool) -> int:
    """Rounds of a run: controls that do not train keep theirs."""
    if algorithm.quick_budget <= 1 and not own:
        return algorithm.quick_budget
    if budget is not None:
        return budget
    if known:
        return min(task.budget, declared if declared is not None else algorithm.quick_budget)
    return task.budget


def run(
    console: Any,
    *,
    suite: str,
    tasks: Sequence[str] | None,
    algorithms: Sequence[str] | None,
    learners: Sequence[str],
    seeds: int,
    workers: int,
    folder: Path,
    shard: str | None = None,
    budget: int | None = None,
    keep: bool = False,
    curve: int = CURVE,
    ray: str | None = None,
) -> int:
    """Do what is missing and show it beside the reference results; returns the exit status (see :func:`.boards.run`)."""
    begun = time.perf_counter()
    for name in [*(algorithms or ()), *learners]:
        runs.resolve_any(name)  # a wrong name is an error before anything is done
    wanted, left, loaded = plan(suite, tasks, algorithms, learners, seeds, budget, keep, curve)
    mine = runs.take_shard(wanted, shard)
    folder = runs.check_folder(folder)
    todo, reused, damaged = runs.plan_runs(mine, folder)
    for text in damaged:
        console.print(f"[yellow]redoing:[/] {text}", highlight=False, soft_wrap=True)
    jobs = runs.make_jobs(todo)
    part = f" (shard {shard} of {len(wanted)})" if shard else ""
    console.print(
        f"{len(mine)} runs wanted{part}, {reused} reused, {len(todo)} to do in {len(jobs)} jobs on {workers} workers",
        highlight=False,
    )
    report = runs.Report(reused=reused)
    if jobs:
        report = boards.with_progress(console, mine, folder, workers, jobs, ray)
    board = leaderboard.collect(suite, folder, wanted, left, loaded)
    return boards.show(console, board, folder, report, begun)
