"""``marketenvs suite build``: freeze a suite's tasks from their definitions, side by side, and refuse what is no benchmark.

A task is written only if it passes :func:`objections`. A finished file is kept by an interrupted build; whether it is still what the code
would build is known from a fingerprint of everything its content depends on (:func:`fingerprint`), else it is built again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import platform
import signal
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs import markets
from marketenvs.errors import MarketEnvsError, UnknownName, nearest
from marketenvs.role_track import panel_folder
from marketenvs.scoring import play_round
from marketenvs.task import Definition, Task, build_task, encode, load_task, write_text

from . import suites
from .orphans import end_with_parent

BEST_CONSTANT, MYOPIC, EQUILIBRIUM = 0.8, 0.95, 0.99
"""Bounds of a task's floors: a constant must not win it, nor myopic play; the equilibrium must."""
MEGABYTE = 1_000_000
PANEL_LEARNER, PANEL_ROUNDS, PANEL_SEED = "bandit", 20_000, 1_000_003
"""Who the trained member of a task's panel is: it plays every market, and its policy is a small table."""


def objections(task: Task) -> list[str]:
    """Why a task may not enter a suite, with numbers; empty if it may.

    Every held-out market must be certified, at the rounds that are scored too; the equilibrium must score 1; a task that is no tripwire must
    not be won by the best constant (all tracks) nor by myopic play (profile track: a shared reward makes myopic play hill climbing on the
    welfare, which is what the team track is about).
    """
    found = []
    floors, definition = task.floors, task.definition
    team = definition.track == "team"
    if len(task.instances) != definition.plan.markets:
        found.append(f"{len(task.instances)} certified markets, the definition wants {definition.plan.markets}")
    if not team and floors["equilibrium"] < EQUILIBRIUM:
        found.append(f"the equilibrium scores {floors['equilibrium']:.4f}, less than {EQUILIBRIUM}")
    if not definition.tripwire:
        if floors["best_constant"] > BEST_CONSTANT:
            found.append(f"the best constant scores {floors['best_constant']:.4f}, more than {BEST_CONSTANT}")
        if not team and floors["myopic"] > MYOPIC:
            found.append(f"myopic play scores {floors['myopic']:.4f}, more than {MYOPIC}")
    for step, count in uncertified(task).items():
        found.append(
            f"in scored round {step} only {len(task.instances) - count} of {len(task.instances)} are certified"
        )
    size = len(json.dumps(task.to_json()))
    if size > MEGABYTE:
        found.append(f"its file would have {size / MEGABYTE:.1f} MB; lower the plan's markets or prefixes")
    return found


def uncertified(task: Task) -> dict[int, int]:
    """Scored round -> held-out markets whose equilibrium is not certified there (rounds without any are left out).

    Markets are chosen by their first round; where they drift or draw something every round, the scored rounds are other games.
    """
    market, plan = task.make_market(), task.definition.plan
    if task.definition.track == "team":
        return {}  # its reference is the optimum
    state = task.held_out(market)
    from marketenvs.policy import EquilibriumPolicy

    policies = {role: EquilibriumPolicy() for role in market.roles}
    for k, role in enumerate(market.roles):
        policies[role].start(market, role, market.batch(state), k)
    found = {}
    for step in range(plan.warm_up + plan.rounds):
        if step >= plan.warm_up:
            missing = int(np.sum(~np.asarray(market.equilibrium(state).certified)))
            if missing:
                found[step] = missing
        state, _ = play_round(market, state, policies)
    return found


def fingerprint(definition: Definition) -> str:
    """Hash of everything a task's content depends on: its definition, the package's sources, the stored panel policy, library and Python versions.

    Other rooms' files, the shells and the documentation are left out: no task is built with them.
    """
    root = Path(next(iter(markets.__path__))).parent
    room = _room_of(definition)
    digest = hashlib.sha256(
        json.dumps([dataclasses.asdict(definition), encode(dict(definition.params))], default=repr).encode()
    )
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if (
            parts[0] in ("shells", "cli.py", "docs.py", "render.py", "templates.py", "testing")
            or path.name == "tasks.py"
        ):
            continue
        if parts[0] == "markets" and len(parts) > 2 and parts[1] != room:
            continue
        digest.update("/".join(parts).encode() + b"\0" + path.read_bytes())
    folder = panel_folder(definition.name)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    versions = [metadata.version(name) for name in ("numpy", "scipy", "array-api-compat")]
    digest.update(json.dumps([*versions, platform.python_version(), platform.machine()]).encode())
    return digest.hexdigest()


def _room_of(definition: Definition) -> str:
    for module in suites.rooms():
        if any(d.name == definition.name for d in module.TASKS):
            return module.__name__.split(".")[-2]
    return ""


@dataclasses.dataclass
class Built:
    """What a build did.

    Attributes:
        written: Files built now.
        kept: Files whose fingerprint says that a build would give the same.
        refused: Task -> why it is not in the suite.
        interrupted: Whether Ctrl-C ended it.
    """

    written: list[Path] = dataclasses.field(default_factory=list)
    kept: list[Path] = dataclasses.field(default_factory=list)
    refused: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    interrupted: bool = False


def build(
    suite: str,
    folder: Path | None = None,
    report: Callable[[str], None] = lambda text: None,
    workers: int = 1,
    tasks: Iterable[str] | None = None,
    force: bool = False,
) -> Built:
    """Freeze the tasks of a suite as JSON files, each as soon as it is built.

    Args:
        suite: Name of the suite.
        folder: Where to write; default: the package's own.
        report: Called with one line per step.
        workers: Processes.
        tasks: Only these.
        force: Build also what is known to be unchanged.

    Returns:
        What was written, kept and refused; an interrupt keeps what is finished.

    Raises:
        UnknownName: No such suite or task.
        MarketEnvsError: Some task is refused; all others are written.
    """
    known = suites.suites()
    if suite not in known:
        raise UnknownName(f"unknown suite {suite!r}; {nearest(suite, known)}")
    names = list(known[suite])
    for name in tasks or ():
        if name not in names:
            raise UnknownName(f"suite {suite!r} has no task {name!r}; {nearest(name, names)}")
    if tasks is not None:
        names = [name for name in names if name in set(tasks)]
    folder = suites.HERE / suite if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    everything = suites.definitions()
    built = Built()
    todo = []
    for name in names:
        if not force and is_current(everything[name], folder):
            report(f"{name}: unchanged, kept")
            built.kept.append(folder / f"{name}.json")
        elif not force and (twin := _in_another_suite(everything[name], folder)) is not None:
            write_text(folder / f"{name}.json", twin.read_text())
            _mark(folder, name, load_task(twin).hash, fingerprint(everything[name]))
            report(f"{name}: the same as in {twin.parent.name}, copied")
            built.written.append(folder / f"{name}.json")
        else:
            todo.append(name)
    _build_all(todo, folder, report, workers, built)
    if built.refused:
        lines = [f"{name}: {'; '.join(reasons)}" for name, reasons in built.refused.items()]
        raise MarketEnvsError(f"suite {suite}: {len(lines)} task(s) refused and not written\n" + "\n".join(lines))
    return built


def is_current(definition: Definition, folder: Path) -> bool:
    """Whether the task's file is there, whole, and was built from exactly this definition, code and library versions."""
    mark, path = folder / ".built" / definition.name, folder / f"{definition.name}.json"
    try:
        written, made_from = mark.read_text().split()
        return load_task(path).hash == written and made_from == fingerprint(definition)
    except (OSError, ValueError, MarketEnvsError):
        return False


def _in_another_suite(definition: Definition, folder: Path) -> Path | None:
    """The up-to-date file of the same task in another of the package's suites: a task has one content, whatever suites it is in."""
    if folder.resolve().parent != suites.HERE.resolve():
        return None
    for other in sorted(suites.HERE.glob(f"*/{definition.name}.json")):
        if other.parent != folder and is_current(definition, other.parent):
            return other
    return None


def _mark(folder: Path, name: str, task_hash: str, made_from: str) -> None:
    (folder / ".built").mkdir(exist_ok=True)
    write_text(folder / ".built" / name, f"{task_hash} {made_from}\n")


def build_one(name: str, folder: str) -> dict[str, Any]:
    """Build, check and write one task (in a worker process); says what happened."""
    definition = suites.definitions()[name]
    made_from = fingerprint(definition)
    task = build_task(definition)
    reasons = objections(task)
    path = Path(folder) / f"{name}.json"
    if not reasons:
        task.save(path)
        _mark(path.parent, name, task.hash, made_from)
    return {"name": name, "path": path, "refused": reasons, "line": _line(task)}


def _line(task: Task) -> str:
    floors = ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in task.floors.items())
    return f"hash {task.hash[:12]}, {len(task.instances)} markets, {task.rejected} rejected, {floors}"


def _build_all(names: list[str], folder: Path, report: Callable[[str], None], workers: int, built: Built) -> None:
    if not names:
        return

    def note(done: Mapping[str, Any]) -> None:
        if done["refused"]:
            built.refused[done["name"]] = done["refused"]
            report(f"{done['name']}: REFUSED: {'; '.join(done['refused'])} ({done['line']})")
        else:
            built.written.append(done["path"])
            report(f"{done['name']}: {done['line']}")

    def fail(name: str, error: BaseException) -> None:
        built.refused[name] = [str(error)]
        report(f"{name}: REFUSED: {error}")

    from .runs import _single_threaded

    context = multiprocessing.get_context("spawn")
    with _single_threaded():
        pool = ProcessPoolExecutor(min(workers, len(names)), context, initializer=_begin_worker)
        pending: dict[Future, str] = {pool.submit(build_one, name, str(folder)): name for name in names}
        try:
            while pending:
                finished, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    name = pending.pop(future)
                    error = future.exception()
                    if isinstance(error, MarketEnvsError):
                        fail(name, error)
                    elif error is not None:
                        raise error
                    else:
                        note(future.result())
        except KeyboardInterrupt:
            built.interrupted = True
            for process in list(getattr(pool, "_processes", {}).values()):
                process.terminate()
        finally:
            pool.shutdown(wait=not built.interrupted, cancel_futures=True)


def _begin_worker() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a finished file is always whole


def train_panel(name: str, root: Path | None = None) -> Path:
    """Train and store the trained member of a task's panel; every task frozen afterwards has it.

    The learner sees training draws only. It is trained once: its stored policy, not the training, is what the panel's numbers depend on.
    """
    from marketenvs_baselines import resolve
    from marketenvs_baselines.store import save_policy

    definition = suites.definitions()[name]
    small = dataclasses.replace(definition.plan, markets=min(8, definition.plan.markets), prefixes=1, draws=8)
    task = build_task(dataclasses.replace(definition, name=f"{name}-panel", plan=small), floors=False)
    rounds = min(PANEL_ROUNDS, definition.rounds // 5)
    (policies,) = resolve(PANEL_LEARNER).run(task, [PANEL_SEED], rounds)
    folder = panel_folder(name) if root is None else root / name
    about = {"learner": PANEL_LEARNER, "rounds": rounds, "seed": PANEL_SEED}
    return save_policy(folder, policies, task.make_market(), about)
