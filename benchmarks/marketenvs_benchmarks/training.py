"""``marketenvs train``: one training run of any algorithm on a task or a market, saved as a policy and scored.

The configuration is a YAML file with the keys ``learner``, ``seed``, ``budget`` and ``options`` (the algorithm's own keyword arguments);
command-line options come first. A finished run with the same configuration on the same task content is not done again.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from marketenvs.errors import InvalidParameter, MarketEnvsError, UnknownName, nearest
from marketenvs.registry import list_markets
from marketenvs.task import Definition, Plan, Task, build_task, content_hash, list_tasks, load_task, write_json

from . import runs

KEYS = {"learner": str, "seed": int, "budget": int, "options": dict}


def read_config(path: Path | None) -> dict[str, Any]:
    """The configuration file's content.

    Raises:
        InvalidParameter: Unreadable, not a mapping, or a value of the wrong type.
        UnknownName: An unknown key; the message names the nearest valid one.
    """
    if path is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidParameter(f"the configuration {path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise InvalidParameter(f"the configuration {path} must map keys to values, got {type(content).__name__}")
    for key, value in content.items():
        if key not in KEYS:
            raise UnknownName(f"{path}: unknown key {key!r}; {nearest(key, KEYS)}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise InvalidParameter(f"{path}: {key} must be of type {KEYS[key].__name__}, got {value!r}")
    return content


def check_options(name: str, train: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise ``UnknownName`` for an option that the algorithm does not take (where its signature says which it takes)."""
    parameters = inspect.signature(train).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [k for k in parameters if k not in ("task", "seed", "seeds", "budget", "report")]
    for key in options:
        if key not in known:
            raise UnknownName(f"{name} has no option {key!r}; {nearest(key, known)}")


def find_task(name: str, folder: Path) -> Task:
    """A task by name or file; for a market id, a small task of its default preset, built once and kept in the folder.

    Raises:
        UnknownName: Neither a task nor a market.
    """
    short = name.removeprefix("marketenvs/")
    if short not in list_markets():
        if name not in list_tasks() and not name.endswith(".json"):
            raise UnknownName(f"unknown task or market {name!r}; {nearest(name, [*list_tasks(), *list_markets()])}")
        return load_task(name)
    definition = Definition(short, short, title="default preset", rounds=100_000, plan=Plan(markets=20))
    path = folder / "tasks" / f"{short}.json"
    if path.is_file():
        try:
            return load_task(path)
        except MarketEnvsError:
            path.unlink()
    task = build_task(definition, floors=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    task.save(path)
    return task


def train(
    console: Any,
    name: str,
    learner: str | None,
    config: Path | None,
    seed: int | None,
    budget: int | None,
    results: Path,
) -> Path:
    """Train, save and score; returns the folder of the run."""
    from marketenvs_baselines.store import save_policy
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from marketenvs.scoring import evaluate

    content = read_config(config)
    learner = learner or content.get("learner")
    if not learner:
        raise InvalidParameter("name an algorithm: --learner NAME, or learner: NAME in the configuration")
    algorithm = runs.resolve_any(learner)
    options = content.get("options", {})
    chosen = algorithm.train_many if algorithm.train_many is not None else algorithm.train
    check_options(learner, chosen, options)
    folder = runs.check_folder(results)
    task = find_task(name, folder)
    reason = algorithm.why_not(task.make_market())
    if reason is not None:
        raise InvalidParameter(reason)
    seed = seed if seed is not None else content.get("seed", 0)
    rounds = budget if budget is not None else content.get("budget", algorithm.quick_budget)
    setting = {"learner": learner, "seed": seed, "budget": rounds, "options": options, "task_hash": task.hash}
    place = folder / "train" / task.name / runs.safe_name(learner) / f"seed-{seed}-{content_hash(setting)[:8]}"
    if (place / "result.json").is_file():
        console.print(f"already done with this configuration: {place}", highlight=False, soft_wrap=True)
        return place
    chosen_options = dict(options)
    if "checkpoint" in inspect.signature(chosen).parameters:  # what a killed run left is taken up again
        chosen_options.setdefault("checkpoint", str(place / "checkpoint"))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(f"{learner} on {task.name}", total=max(rounds, 1))

        def report(done: int, policies: Any = None, metrics: Any = None) -> None:
            progress.update(bar, completed=done)

        if algorithm.train_many is not None:
            trained = algorithm.train_many(task, [seed], rounds, report, **chosen_options)[0]
        else:
            trained = algorithm.train(task, seed, rounds, report, **chosen_options)
    found = evaluate(task, trained, seed=seed)
    place.mkdir(parents=True, exist_ok=True)
    try:
        save_policy(place / "policy", trained, task, setting)
        console.print(f"policy: {place / 'policy'}", highlight=False, soft_wrap=True)
    except MarketEnvsError as error:
        console.print(f"[yellow]not saved:[/] {error}", highlight=False, soft_wrap=True)
    write_json(
        place / "result.json", {"setting": setting, "evaluation": found.to_json(), "provenance": runs.provenance()}
    )
    shutil.rmtree(place / "checkpoint", ignore_errors=True)
    roles = ", ".join(f"{role} {value:.3f}" for role, value in found.scores.items())
    console.print(
        f"score {found.score:.4f} ({roles}; 1 = equilibrium, 0 = uniform; {found.kind}), result: {place / 'result.json'}",
        highlight=False,
        soft_wrap=True,
    )
    return place
