"""``marketenvs train``: one training run of any algorithm on a task or a market, saved as a policy and scored.

The configuration is a YAML file with the keys ``learner``, ``seed``, ``budget``, ``role``, ``opponents`` and ``options`` (the
algorithm's own keyword arguments); command-line options come first. A finished run with the same configuration on the same task
content is not done again, a killed one goes on from its last checkpoint.

What an algorithm can do here is told by the keyword arguments of its ``train``: ``checkpoint`` (folder), ``tensorboard`` (folder),
``patience``, and ``only`` with ``opponents`` for one role alone. Algorithms that play through ``marketenvs_baselines.run.play`` get
checkpoints and single roles without taking any of these.
"""

from __future__ import annotations

import contextlib
import inspect
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from marketenvs.errors import InvalidParameter, MarketEnvsError, NotOffered, UnknownName, nearest
from marketenvs.policy import EquilibriumPolicy
from marketenvs.registry import list_markets
from marketenvs.task import Definition, Plan, Task, build_task, content_hash, list_tasks, load_task, write_json

from . import runs

KEYS: dict[str, type | tuple[type, ...]] = {
    "learner": str,
    "seed": int,
    "budget": int,
    "role": str,
    "opponents": (str, dict),
    "options": dict,
}


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
            kinds = KEYS[key] if isinstance(KEYS[key], tuple) else (KEYS[key],)
            names = " or ".join(kind.__name__ for kind in kinds)  # type: ignore[union-attr]
            raise InvalidParameter(f"{path}: {key} must be of type {names}, got {value!r}")
    return content


def check_options(name: str, algorithm: Any, options: Mapping[str, Any]) -> None:
    """Raise ``UnknownName`` for an option that the algorithm does not take (where it says which it takes), nested ones too."""
    if getattr(algorithm, "check", None) is not None:
        algorithm.check(options)
        return
    parameters = inspect.signature(function_of(algorithm)).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [k for k in parameters if k not in ("task", "seed", "seeds", "budget", "report")]
    for key in options:
        if key not in known:
            raise UnknownName(f"{name} has no option {key!r}; {nearest(key, known)}")


def function_of(algorithm: Any) -> Callable[..., Any]:
    """What trains: ``train_many``, or ``train``; or the function itself."""
    if getattr(algorithm, "train_many", None) is not None:
        return algorithm.train_many
    return getattr(algorithm, "train", algorithm)


def plays_rounds(algorithm: Any) -> bool:
    """Whether the algorithm trains through ``run.play`` (or ``tabular.train_tabular``), as its module shows."""
    from marketenvs_baselines import run, tabular

    module = sys.modules.get(inspect.unwrap(function_of(algorithm)).__module__)
    ours = {"play": run.play, "train_tabular": tabular.train_tabular}
    return any(getattr(module, name, None) is function for name, function in ours.items())


def keeps_segments(algorithm: Any) -> bool:
    """Whether the algorithm trains through ``arrangement.in_segments`` by itself, as its module shows."""
    from marketenvs_baselines.arrangement import in_segments

    module = sys.modules.get(inspect.unwrap(function_of(algorithm)).__module__)
    return getattr(module, "in_segments", None) is in_segments


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


def cast(market: Any, role: str | None, opponents: Any) -> dict[str, Any]:
    """Role -> policy of the roles that do not learn; empty where all learn.

    Raises:
        UnknownName: No such role, or no such opponent.
    """
    from marketenvs.shells.game import check_role
    from marketenvs.shells.opponents import check_opponents, policy_of

    if role is None:
        return {}
    check_role(market, role)
    given = check_opponents(market, opponents)
    return {r: policy_of(market, r, value) for r, value in given.items() if r != role}


def identity(opponents: Any) -> Any:
    """What identifies opponents in a run's setting: their names, and the content of folders."""
    if isinstance(opponents, Mapping):
        return {role: identity(value) for role, value in opponents.items()}
    return [opponents, runs.code_of(opponents)] if Path(opponents).is_dir() else opponents


def score(task: Task, policies: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """What saved or trained policies are worth: all roles, or one role with the others at the equilibrium.

    Returns:
        ``evaluation`` (see :class:`marketenvs.scoring.Evaluation`) and ``roles`` (role -> role-track scores); of policies that leave
        roles out also ``only``: role -> score of those that are there. The others play the equilibrium then.
    """
    from marketenvs.role_track import evaluate_role
    from marketenvs.scoring import evaluate

    market = task.make_market()
    missing = [role for role in market.roles if role not in policies]
    found = evaluate(task, {**{role: EquilibriumPolicy() for role in missing}, **policies}, seed=seed)
    tracks = {role: evaluate_role(task, role, policy, seed=seed) for role, policy in policies.items()}
    out: dict[str, Any] = {"evaluation": found.to_json(), "roles": tracks}
    return {**out, "only": {role: found.scores[role] for role in policies}} if missing else out


def find_policy(path: Path, task: str | None = None) -> tuple[Path, Task]:
    """The folder of a saved policy, and the task to score it on.

    Args:
        path: The folder, or that of a run of ``marketenvs train``.
        task: Task name or file; None for the one that it was trained on: by its name, or, of a market's own task, from the
            results folder that ``marketenvs train`` wrote it to.

    Raises:
        UnknownName: There is no saved policy, or no such task.
        InvalidParameter: The policy does not say on which task it was trained.
    """
    from marketenvs_baselines.store import trained_on

    where = path / "policy" if not (path / "policy.json").is_file() and (path / "policy").is_dir() else path
    name = task or trained_on(where)
    if not name:
        raise InvalidParameter(f"{path} does not say on which task it was trained: name one with --task")
    if task is None and name not in list_tasks():
        for folder in where.resolve().parents:
            if (folder / "tasks" / f"{name}.json").is_file():
                return where, load_task(folder / "tasks" / f"{name}.json")
    return where, load_task(name)


def summary(scored: Mapping[str, Any]) -> str:
    """One line about :func:`score`."""
    found = scored["evaluation"]
    tracks = ", ".join(f"{role} {t['mean']:.4f}" for role, t in scored["roles"].items() if t["mean"] is not None)
    scale = f"1 = equilibrium, 0 = uniform; {found['kind']}"
    if "only" in scored:
        text = ", ".join(f"score of {role} {value:.4f}" for role, value in scored["only"].items())
        return f"{text} (others play the equilibrium; {scale}); role track {tracks or 'undefined'}"
    roles = ", ".join(f"{role} {value:.3f}" for role, value in found["scores"].items())
    return f"score {found['score']:.4f} ({roles}; {scale}); role track {tracks or 'undefined'}"


@contextlib.contextmanager
def bar_of(console: Any, title: str, rounds: int) -> Iterator[Callable[..., None]]:
    """A progress bar, and the report function that moves it."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=max(rounds, 1))

        def report(done: int, policies: Any = None, metrics: Any = None) -> None:
            progress.update(bar, completed=done)

        yield report
        progress.update(bar, completed=max(rounds, 1))  # whole turns may leave a rest of the budget, and early stops


def train(
    console: Any,
    name: str,
    learner: str | None,
    config: Path | None,
    seed: int | None,
    budget: int | None,
    results: Path,
    role: str | None = None,
    opponents: str | None = None,
    patience: int | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train, save and score; returns the folder of the run.

    Args:
        console: Where to print.
        name: A task, a task file or a market id.
        learner: Name of an algorithm, or "module:train".
        config: Configuration file.
        seed: Seed of the run.
        budget: Market rounds.
        results: Results folder.
        role: The one role that learns; None for all.
        opponents: Who plays the other roles.
        patience: Stop early after so many calm segments.
        tensorboard: Whether to log to ``tensorboard`` in the run's folder.

    Raises:
        UnknownName: Something that does not exist; the message names the nearest.
        InvalidParameter: A value out of range.
        NotOffered: The algorithm cannot do what is asked for.
    """
    from marketenvs_baselines.arrangement import arranged
    from marketenvs_baselines.store import save_policy

    content = read_config(config)
    learner = learner or content.get("learner")
    if not learner:
        raise InvalidParameter("name an algorithm: --learner NAME, or learner: NAME in the configuration")
    algorithm = runs.resolve_any(learner)
    options = {**content.get("options", {}), **({} if patience is None else {"patience": patience})}
    parameters = inspect.signature(function_of(algorithm)).parameters
    for option, wanted in (("patience", patience is not None), ("tensorboard", tensorboard)):
        if wanted and option not in parameters:
            raise NotOffered(f"{learner} has no {option}: leave --{option} out")
    check_options(learner, algorithm, options)
    role = role or content.get("role")
    opponents = opponents or content.get("opponents")
    folder = runs.check_folder(results)
    task = find_task(name, folder)
    market = task.make_market()
    reason = algorithm.why_not(market, role)
    if reason is not None:
        raise InvalidParameter(reason)
    if role is None and opponents is not None:
        raise InvalidParameter("opponents play the roles that do not learn: name the one that does with --role")
    single = "only" in parameters and "opponents" in parameters
    arranges = plays_rounds(algorithm)
    if role is not None and not single and not arranges:
        raise NotOffered(f"{learner} cannot train one role alone: leave --role out, or take sb3:..., rllib:... or dqn")
    keeps = arranges or keeps_segments(algorithm)
    others = cast(market, role, opponents or "equilibrium")
    seed = seed if seed is not None else content.get("seed", 0)
    rounds = budget if budget is not None else content.get("budget", algorithm.quick_budget)
    setting = {"learner": learner, "seed": seed, "budget": rounds, "options": options, "task_hash": task.hash}
    if role is not None:
        setting |= {"role": role, "opponents": identity(opponents or "equilibrium")}
    place = folder / "train" / task.name / runs.safe_name(learner) / f"seed-{seed}-{content_hash(setting)[:8]}"
    if (place / "result.json").is_file():
        console.print(f"already done with this configuration: {place}", highlight=False, soft_wrap=True)
        return place
    chosen = dict(options)
    kept = place / "checkpoint"
    if "checkpoint" in parameters:
        chosen.setdefault("checkpoint", str(kept))
    if tensorboard:
        chosen.setdefault("tensorboard", str(place / "tensorboard"))
    if role is not None and single:
        chosen |= {"only": role, "opponents": others}
    if "checkpoint" not in parameters and not keeps:
        console.print(f"{learner} keeps no checkpoints: killed, it begins anew", highlight=False)
    elif any(kept.rglob("segment-*")):
        console.print(f"going on from {kept}", highlight=False, soft_wrap=True)
    alone = None if single else role
    arrangement = arranged(kept, setting, alone, others) if keeps else contextlib.nullcontext()
    with bar_of(console, f"{learner} on {task.name}", rounds) as report, arrangement:
        try:
            if algorithm.train_many is not None:
                trained = algorithm.train_many(task, [seed], rounds, report, **chosen)[0]
            else:
                trained = algorithm.train(task, seed, rounds, report, **chosen)
        except TypeError as error:
            if options and "unexpected keyword argument" in str(error):
                raise UnknownName(f"{learner}: {error}") from error
            raise
    if role is not None:
        trained = {role: trained[role]}
    scored = score(task, trained, seed)
    place.mkdir(parents=True, exist_ok=True)
    try:
        save_policy(place / "policy", trained, task, setting)
        console.print(f"policy: {place / 'policy'}", highlight=False, soft_wrap=True)
    except MarketEnvsError as error:
        console.print(f"[yellow]not saved:[/] {error}", highlight=False, soft_wrap=True)
    write_json(place / "result.json", {"setting": setting, **scored, "provenance": runs.provenance()})
    shutil.rmtree(kept, ignore_errors=True)
    console.print(f"{summary(scored)}, result: {place / 'result.json'}", highlight=False, soft_wrap=True)
    return place
