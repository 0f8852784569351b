"""The command ``marketenvs``: list, describe, play, train, evaluate, leaderboard, benchmark, compare, crossplay, cite, suite, reproduce, ..."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .errors import MarketEnvsError

app = typer.Typer(
    help="Multi-agent RL environments for wireless and computing markets, each with its certified equilibrium.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
suite_app = typer.Typer(help="Suites of frozen tasks.", no_args_is_help=True)
new_app = typer.Typer(help="Write a starting point for your own market or learner.", no_args_is_help=True)
app.add_typer(suite_app, name="suite")
app.add_typer(new_app, name="new")
# Tables are wide: a pipe or a log file gets 160 columns, a terminal its own width.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)


def main() -> None:
    """Entry point: the package's own errors are printed in one line and end with status 2."""
    try:
        app()
    except MarketEnvsError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)


@app.command("list")
def list_command() -> None:
    """Markets, their presets, tasks and algorithms."""
    from . import list_markets, list_presets, spec
    from .task import list_tasks

    table = Table(title="Markets", title_justify="left")
    for heading in ("id", "roles", "presets", "what is traded"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "id")
    for id in list_markets():
        s = spec(id)
        table.add_row(id, ", ".join(s.roles), ", ".join(list_presets(id)), s.summary)
    console.print(table)
    console.print("Tasks: " + ", ".join(list_tasks()), highlight=False)
    from marketenvs_baselines import ALGORITHMS

    console.print("Algorithms: " + ", ".join(ALGORITHMS), highlight=False)


@app.command()
def describe(id: str, preset: Annotated[str | None, typer.Option(help="Preset of the market.")] = None) -> None:
    """Parameters, stages and spaces of a market."""
    import dataclasses

    from . import make, spec

    market, s = make(id, preset=preset), spec(id)
    console.print(f"[bold]{s.title}[/] ({s.id}): {s.summary}", highlight=False)
    if s.paper:
        console.print(f"Paper: {s.paper}", highlight=False)
    table = Table(title="Stages", title_justify="left")
    for heading in ("stage", "role", "agents", "action space", "observation space", "numbers per decision"):
        table.add_column(heading, overflow="fold")
    for stage in market.stages:
        table.add_row(
            stage.name,
            stage.role,
            str(market.roles[stage.role]),
            str(stage.codec.action_space),
            str(stage.observation_space),
            str(stage.codec.width),
        )
    console.print(table)
    table = Table(title="Parameters", title_justify="left")
    for heading in ("name", "symbol", "unit", "value", "meaning"):
        table.add_column(heading, overflow="fold")
    for f in dataclasses.fields(market.params):
        meta = f.metadata
        table.add_row(
            f.name,
            meta.get("symbol") or "",
            meta.get("unit", ""),
            str(getattr(market.params, f.name)),
            meta.get("doc", ""),
        )
    console.print(table)


@app.command()
def play(
    id: str,
    preset: Annotated[str | None, typer.Option(help="Preset of the market.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="role=name or role=module:Class; default: equilibrium.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to play.")] = 10,
    seed: int = 0,
) -> None:
    """Play some rounds of a market in the terminal and print what happens."""
    import numpy as np

    from . import make
    from .scoring import check_roles, play_round

    market = make(id, preset=preset)
    policies = _policies(market, policy, "equilibrium")
    check_roles(market, policies)
    state = market.reset(seed=seed, batch=1)
    for k, role in enumerate(market.roles):
        policies[role].start(market, role, 1, seed + k)
    table = Table(title=f"{id}, {rounds} rounds", title_justify="left")
    table.add_column("round", justify="right")
    rows: list[list[str]] = []
    names: list[str] = []
    for t in range(rounds):
        state, outcome = play_round(market, state, policies)
        scalars = {
            k: float(market.backend.numpy(v).reshape(-1)[0])
            for k, v in outcome.metrics.items()
            if market.backend.numpy(v).size == 1
        }
        pay = {f"{role} payoff": float(np.mean(market.backend.numpy(p))) for role, p in outcome.payoffs.items()}
        names = [*scalars, *pay]
        rows.append([str(t), *(f"{v:.5g}" for v in (*scalars.values(), *pay.values()))])
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _policies(market: Any, given: list[str] | None, default: str | None) -> dict[str, Any]:
    """role=name pairs as policies."""
    from marketenvs_baselines import ALGORITHMS, resolve_policy

    from .errors import InvalidParameter, UnknownName, nearest
    from .policy import EquilibriumPolicy, Myopic, Uniform

    builtin = {"equilibrium": EquilibriumPolicy, "random": Uniform, "myopic": Myopic, "best_response": Myopic}
    chosen: dict[str, Any] = {}
    for text in given or []:
        role, sign, name = text.partition("=")
        if not sign or not name:
            raise InvalidParameter(
                f"--policy {text!r}: write role=name, for instance {next(iter(market.roles))}=random"
            )
        if role not in market.roles:
            raise UnknownName(f"--policy {text!r}: {market.id} has no role {role!r}; {nearest(role, market.roles)}")
        if name in builtin:
            chosen[role] = builtin[name]()
        elif ":" in name or Path(name).exists():
            chosen[role] = resolve_policy(name, role, market)
        elif name in ALGORITHMS:
            raise InvalidParameter(
                f"--policy {text!r}: {name} is an algorithm; train it (marketenvs train) and name the policy's folder"
            )
        else:
            raise UnknownName(f"--policy {text!r}: unknown policy {name!r}; {nearest(name, builtin)}")
    if default is not None:
        for role in market.roles:
            chosen.setdefault(role, builtin[default]())
    return chosen


@app.command()
def leaderboard(
    suite: Annotated[str, typer.Option(help="Suite of tasks.")] = "quick",
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    algorithm: Annotated[list[str] | None, typer.Option(help="Only these algorithms.")] = None,
    learner: Annotated[list[str] | None, typer.Option(help="Add your algorithm: module:train.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Add your policy: role=module:Class (others play the equilibrium).")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per algorithm and task.")] = 10,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = os.cpu_count() or 1,
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    full: Annotated[bool, typer.Option(help="Full budgets, heavy algorithms too.")] = False,
    ray: Annotated[str | None, typer.Option(help="Run on Ray: local, auto or HOST:PORT of a cluster.")] = None,
) -> None:
    """Train and score every algorithm on every task of a suite; finished runs are reused."""
    from marketenvs_benchmarks import boards

    status = boards.run(
        console,
        suite=suite,
        tasks=task,
        algorithms=algorithm,
        learners=learner or [],
        policies=policy or [],
        seeds=seeds,
        workers=workers,
        folder=results,
        full=full,
        ray=ray,
    )
    if status:
        raise typer.Exit(status)


@app.command()
def benchmark(
    suite: Annotated[str, typer.Argument(help="Suite of tasks.")] = "suite-v1",
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    algorithm: Annotated[
        list[str] | None, typer.Option(help="Run these of ours (default: all declared ones, none beside a learner).")
    ] = None,
    learner: Annotated[list[str] | None, typer.Option(help="Your algorithm: module:train or file.py:train.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per algorithm and task.")] = 10,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = os.cpu_count() or 1,
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    shard: Annotated[str | None, typer.Option(help="i/n: the i-th of n parts, one for each machine.")] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Rounds of every run that trains (default: declared, or the task's).")
    ] = None,
    curve: Annotated[int, typer.Option(min=0, help="Points of the learning curves.")] = 6,
    keep_policies: Annotated[bool, typer.Option(help="Store the final policies beside the results.")] = False,
    ray: Annotated[str | None, typer.Option(help="Run on Ray: local, auto or HOST:PORT of a cluster.")] = None,
) -> None:
    """Your learner beside the committed reference results, or (without one) the reference runs themselves."""
    from marketenvs_benchmarks import benchmark as module

    status = module.run(
        console,
        suite=suite,
        tasks=task,
        algorithms=algorithm,
        learners=learner or [],
        seeds=seeds,
        workers=workers,
        folder=results,
        shard=shard,
        budget=budget,
        keep=keep_policies,
        curve=curve,
        ray=ray,
    )
    if status:
        raise typer.Exit(status)


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Results folders.")],
    form: Annotated[str, typer.Option("--format", help="text, markdown or csv.")] = "text",
    out: Annotated[Path | None, typer.Option(help="Write Markdown or CSV to this file.")] = None,
    reference: Annotated[bool, typer.Option(help="The committed reference results as a further column.")] = False,
) -> None:
    """Tables of several results folders side by side; "-" where a folder has nothing."""
    from marketenvs_benchmarks import compare as module

    module.run(console, folders, form, out, reference)


@app.command()
def crossplay(
    folder: Annotated[Path, typer.Argument(help="Results of marketenvs benchmark --keep-policies.")],
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    algorithm: Annotated[list[str] | None, typer.Option(help="Only these algorithms.")] = None,
    seeds: Annotated[int, typer.Option(min=2, help="At most so many runs of each.")] = 10,
) -> None:
    """Policies of different seeds against each other: a matrix of scores."""
    from marketenvs_benchmarks import crossplay as module

    module.run(console, folder, task, algorithm, seeds)


@app.command()
def cite(name: Annotated[str, typer.Argument(metavar="TASK", help="A task, or a market id.")]) -> None:
    """What to cite, as BibTeX: the suite, the market's paper, the exact task."""
    from marketenvs_benchmarks import cite as module

    print(module.cite(name))


@app.command()
def train(
    name: Annotated[str, typer.Argument(metavar="TASK", help="A task, a task file, or a market id.")],
    learner: Annotated[str | None, typer.Option(help="Algorithm, or module:train.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML: learner, seed, budget, role, opponents, options.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run (default 0).")] = None,
    budget: Annotated[int | None, typer.Option(min=0, help="Rounds (default: the algorithm's quick budget).")] = None,
    role: Annotated[str | None, typer.Option(help="Train this role only.")] = None,
    opponents: Annotated[
        str | None,
        typer.Option(
            help="Who plays the other roles: equilibrium (default), random, best_response, a policy's folder."
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop when the policies have not moved for so many segments.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log to tensorboard/ in the run's folder.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
) -> None:
    """Train one algorithm once, save its policies and score them; a killed run goes on when it is called again."""
    from marketenvs_benchmarks import training

    training.train(console, name, learner, config, seed, budget, results, role, opponents, patience, tensorboard)


@app.command()
def evaluate(
    path: Annotated[Path, typer.Argument(help="Folder of a saved policy, or of a run of marketenvs train.")],
    task: Annotated[str | None, typer.Option(help="Task to score on; default: the one it was trained on.")] = None,
    seed: int = 0,
) -> None:
    """Score saved policies on a task's held-out markets; roles that were not trained play the equilibrium."""
    from marketenvs_baselines.store import load_policy
    from marketenvs_benchmarks import training

    where, loaded = training.find_policy(path, task)
    scored = training.score(loaded, load_policy(where, loaded.make_market()), seed)
    found = scored.pop("evaluation")
    console.print_json(json.dumps({**found, **scored, "summary": training.summary({"evaluation": found, **scored})}))


@suite_app.command("build")
def suite_build(
    suite: str,
    folder: Annotated[Path | None, typer.Option(help="Where to write; default: the package's own folder.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = os.cpu_count() or 1,
    force: Annotated[bool, typer.Option(help="Build also what is known to be unchanged.")] = False,
) -> None:
    """Freeze a suite's tasks from their definitions; a task that trivial play wins, or that is not certified, is refused."""
    from marketenvs_benchmarks import building

    built = building.build(
        suite, folder, lambda text: console.print(text, highlight=False, soft_wrap=True), workers, task, force
    )
    console.print(f"{len(built.written)} written, {len(built.kept)} unchanged", highlight=False)
    if built.interrupted:
        console.print("[yellow]interrupted: finished tasks are kept; run the same command again to go on[/]")
        raise typer.Exit(130)


@suite_app.command("list")
def suite_list() -> None:
    """Suites and their tasks."""
    from marketenvs_benchmarks import suites

    for name, tasks in suites.suites().items():
        console.print(f"{name}: {', '.join(tasks)}", highlight=False)


@app.command()
def reproduce(
    paper: str,
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    quick: Annotated[bool, typer.Option(help="Fewer seeds and rounds.")] = False,
) -> None:
    """Redo a paper's figures: its claim beside what was found."""
    import importlib
    import pkgutil

    from marketenvs_benchmarks.runs import check_folder

    from .errors import UnknownName, nearest

    package = importlib.import_module("marketenvs_benchmarks.reproduce")
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    if paper not in names:
        raise UnknownName(f"no reproduction {paper!r}; {nearest(paper, names)}")
    folder = check_folder(results / "reproduce" / paper)
    importlib.import_module(f"{package.__name__}.{paper}").main(folder, console, quick=quick)


@app.command()
def throughput(
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    market: Annotated[list[str] | None, typer.Option(help="Only these markets.")] = None,
    seconds: Annotated[float, typer.Option(help="Least time per measurement.")] = 0.3,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats.")] = 5,
    peers: Annotated[bool, typer.Option(help="Also measure the peers that are installed.")] = False,
) -> None:
    """Steps per second of every shell, one pinned thread."""
    import importlib

    from marketenvs_benchmarks.runs import check_folder

    module = importlib.import_module("marketenvs_benchmarks.throughput")
    module.main(check_folder(results), console, markets=market, seconds=seconds, repeats=repeats, peers=peers)


@app.command()
def docs(root: Annotated[Path, typer.Option(help="Root of the repository.")] = Path()) -> None:
    """Write the generated documentation (market pages, README tables) of a checkout."""
    from . import docs as module
    from .errors import InvalidParameter

    if not (root / "docs" / "index.md").is_file():
        raise InvalidParameter(
            f"{root.resolve()} is not a checkout of marketenvs (docs/index.md is missing): name it with --root"
        )
    for path in module.write(root):
        console.print(f"wrote {path}", highlight=False)


@new_app.command("market")
def new_market(name: str, folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path()) -> None:
    """Write a runnable market of your own: one file, ready to be judged by marketenvs.testing.check_market."""
    from .templates import write_market

    path = write_market(name, folder)
    console.print(f"wrote {path}; try:  python {path}", highlight=False)


if __name__ == "__main__":
    main()
