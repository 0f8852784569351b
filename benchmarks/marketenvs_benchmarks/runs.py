"""Training and scoring runs: which are wanted, which are done, and doing the rest in parallel without ever losing a finished one.

One run is (task, algorithm, seed). Its result is one JSON file, written atomically under ``<results>/<suite>/<task>/<algorithm>/``. A file is
kept if it is whole and belongs to the same task content, algorithm and budget; otherwise it is named and done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import math
import multiprocessing
import os
import platform
import queue
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any

from marketenvs.errors import InvalidParameter, MarketEnvsError, NotOffered, UnknownName, nearest
from marketenvs.task import Task, load_task, write_json

from .orphans import end_with_parent

RESULT_FORMAT = 1


@dataclass(frozen=True)
class Run:
    """One training and scoring run."""

    suite: str
    task: str
    task_path: str
    task_hash: str
    algorithm: str
    seed: int
    budget: int
    code: str = ""
    """Hash of the algorithm's source and the package's version: a changed policy is trained and scored again."""
    curve: int = 0
    """Checkpoints at which the learning curve is scored (log-spaced); part of no key: a curve never changes the result."""
    keep: bool = False
    """Whether the final policies are stored beside the result (and what is scored is what was stored); part of no key."""

    def path(self, folder: Path) -> Path:
        """Where its result belongs."""
        return folder / self.suite / self.task / safe_name(self.algorithm) / f"seed-{self.seed}.json"

    def policy_path(self, folder: Path) -> Path:
        """Where its final policies belong, if they are kept."""
        return self.path(folder).with_suffix(".policy")


def safe_name(name: str) -> str:
    """A name as a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


KEY = ("task_hash", "algorithm", "seed", "budget", "code")
"""What a stored result must agree on to be used instead of a new run."""


@cache
def code_of(name: str) -> str:
    """Hash of the file that defines an algorithm or policy (or of a saved policy's folder), with the package's version.

    Ours are keyed by version and file; what they call in other files is not followed.
    """
    where = name.removeprefix("policy:").partition("=")[2] if name.startswith("policy:") else name
    digest = hashlib.sha256(metadata.version("marketenvs").encode())
    folder = Path(where)
    if folder.is_dir():
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]
    from marketenvs_baselines.registry import load_object, resolve

    target = load_object(where) if ":" in where else resolve(where)
    if not inspect.isroutine(target) and not inspect.isclass(target):
        target = getattr(target, "train_many", None) or getattr(target, "train", None) or type(target)
    with contextlib.suppress(TypeError, OSError):
        source = inspect.getsourcefile(inspect.unwrap(target))
        if source is not None:
            digest.update(Path(source).read_bytes())
    return digest.hexdigest()[:16]


def resolve_any(name: str) -> Any:
    """The algorithm of that name, ``module:train``, or ``policy:role=module:Class`` (its other roles play the equilibrium)."""
    from marketenvs_baselines import Algorithm, resolve, resolve_policy

    if not name.startswith("policy:"):
        return resolve(name)
    role, _, where = name.removeprefix("policy:").partition("=")

    def train(task: Any, seed: int, budget: int, report: Any = None) -> dict[str, Any]:
        from marketenvs.policy import EquilibriumPolicy

        roles = task.make_market().roles
        if role not in roles:
            raise UnknownName(f"--policy {role}={where}: the market has no role {role!r}; {nearest(role, roles)}")
        return {r: resolve_policy(where, role) if r == role else EquilibriumPolicy() for r in roles}

    def can_play(market: Any) -> str | None:
        return None if role in market.roles else f"{market.id} has no role {role!r}"

    return Algorithm(name, train=train, title=f"{where} (only {role} scored)", quick_budget=0, can_play=can_play)


@dataclass(frozen=True)
class Job:
    """Runs that one worker does in one go: all seeds where the algorithm trains them together, else one seed."""

    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        """Short name for progress."""
        first = self.runs[0]
        return f"{first.task} / {first.algorithm}" + ("" if len(self.runs) > 1 else f" / seed {first.seed}")


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """The results folder, made if needed.

    Raises:
        MarketEnvsError: It cannot be written; nothing was computed yet.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise MarketEnvsError(
            f"the results folder {path} cannot be written: {error.strerror or error}. Choose another with --results"
        ) from None
    return path


def read_result(path: Path, run: Run | None = None) -> dict[str, Any] | None:
    """A finished result; None if there is none, or it belongs to another task content, algorithm or budget.

    Raises:
        MarketEnvsError: The file is damaged.
    """
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text())
        key, found = dict(data["run"]), data["evaluation"]
        numbers = [found["score"], found["worst"], found["digits"], found["nash_conv"][0], data["training_seconds"]]
        numbers += [*found["regret"].values(), *found["scores"].values(), data["rounds"]]
        whole = all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers) and bool(found["regret"])
        whole = whole and set(data["roles"]) == set(found["regret"]) and {"kind", "welfare_ratio"} <= set(found)
        data["format"], data["algorithm"]["title"], data["algorithm"]["access"]
        if not whole:
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise MarketEnvsError(f"{path} is damaged (not a whole result file)") from None
    if data["format"] != RESULT_FORMAT:
        return None
    if run is not None and any(key.get(k) != getattr(run, k) for k in KEY):
        return None
    return data


@cache
def provenance() -> dict[str, Any]:
    """Versions, machine and commit: what a result needs to be believed later."""
    versions = {}
    for name in ("marketenvs", "numpy", "scipy", "torch", "stable-baselines3", "ray", "gymnasium", "pettingzoo"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    commit = None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        here = Path(__file__).resolve().parent
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, timeout=10
        )
        commit = out.stdout.strip() or None
    return {"versions": versions, "python": platform.python_version(), "machine": platform.platform(), "commit": commit}


def do_job(job: Job, folder: str, progress: Any = None) -> list[str]:
    """Train and score the runs of a job, writing each result; runs in a worker process.

    Returns:
        The files written.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a finished result is always whole
    from marketenvs.role_track import evaluate_role
    from marketenvs.scoring import evaluate

    first = job.runs[0]
    task = load_task(first.task_path)
    algorithm = resolve_any(first.algorithm)
    curve: list[list[list[float]]] = [[] for _ in job.runs]
    left = _checkpoints(first.budget, first.curve)
    scoring_seconds = 0.0
    begun = time.perf_counter()

    def report(rounds: int, policies: Callable[[], Any] | None = None, metrics: Any = None) -> None:
        nonlocal scoring_seconds
        if progress is not None:
            progress.put((job.label, rounds / max(first.budget, 1)))
        if policies is None or not left or rounds < left[0] or rounds >= first.budget:
            return
        while left and rounds >= left[0]:
            left.pop(0)
        paused = time.perf_counter()
        now: Any = policies()
        for points, trained, run in zip(curve, now if isinstance(now, list) else [now], job.runs, strict=True):
            score = evaluate(task, trained, seed=run.seed).score
            points.append([rounds, (paused - begun - scoring_seconds) / len(job.runs), score])
        scoring_seconds += time.perf_counter() - paused

    policies = algorithm.run(task, [r.seed for r in job.runs], first.budget, report)
    seconds = (time.perf_counter() - begun - scoring_seconds) / len(job.runs)
    share = (time.perf_counter() - begun) / len(job.runs)
    written = []
    for run, trained, points in zip(job.runs, policies, curve, strict=True):
        scoring = time.perf_counter()
        path = run.path(Path(folder))
        path.parent.mkdir(parents=True, exist_ok=True)
        trained, stored = _keep(run, trained, task, Path(folder)) if run.keep else (trained, None)
        found = evaluate(task, trained, seed=run.seed)
        if task.definition.track == "team":  # what one agent earns of a shared reward is the team score's business
            roles: dict[str, Any] = {role: dict.fromkeys((*members, "mean")) for role, members in task.panel.items()}
        else:
            roles = {role: evaluate_role(task, role, policy, seed=run.seed) for role, policy in trained.items()}
        content = {
            "format": RESULT_FORMAT,
            "run": {k: getattr(run, k) for k in ("suite", "task", *KEY)},
            "algorithm": {"title": algorithm.title, "access": algorithm.access, "stochastic": algorithm.stochastic},
            "rounds": run.budget,
            "training_seconds": seconds,
            "seconds": share + time.perf_counter() - scoring,
            "curve": [*points, [run.budget, seconds, found.score]],
            "evaluation": found.to_json(),
            "roles": roles,
            "policy": stored,
            "provenance": provenance(),
        }
        write_json(path, content)
        written.append(str(path))
    if progress is not None:
        progress.put((job.label, 1.0))
    return written


def _keep(run: Run, policies: Any, task: Task, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Store the final policies and read them back, so that what is scored is exactly what is stored.

    Returns:
        The policies as read back (or as they were, where they cannot be stored), and what the result says about it.
    """
    from marketenvs_baselines.store import load_policy, save_policy

    place = run.policy_path(folder)
    about = {k: getattr(run, k) for k in ("suite", "algorithm", "seed", "budget", "code")}
    try:
        save_policy(place, policies, task, about)
        return load_policy(place, task.make_market()), {"stored": place.name}
    except NotOffered as error:
        return policies, {"stored": None, "why": str(error)}


def _checkpoints(budget: int, count: int) -> list[int]:
    """Log-spaced rounds at which the curve is scored."""
    if count < 1 or budget < 200:
        return []
    ratio = (budget / 100) ** (1 / count)
    return [int(100 * ratio**k) for k in range(count)]


@dataclass
class Report:
    """What :func:`run_all` did."""

    done: int = 0
    reused: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    interrupted: bool = False


def plan_runs(runs: Sequence[Run], folder: Path) -> tuple[list[Run], int, list[str]]:
    """The runs that are still to do, how many are done, and the damaged files that will be redone."""
    todo, reused, damaged = [], 0, []
    for run in runs:
        try:
            found = read_result(run.path(folder), run)
            done = found is not None and not (run.keep and _lacks_policy(found, run, folder))
        except MarketEnvsError as error:
            damaged.append(str(error))
            done = False
        if done:
            reused += 1
        else:
            todo.append(run)
    return todo, reused, damaged


def _lacks_policy(found: Mapping[str, Any], run: Run, folder: Path) -> bool:
    """Whether a finished run was done without keeping its policies, or they are gone."""
    kept = found.get("policy")
    return not kept or bool(kept["stored"] and not (run.policy_path(folder) / "policy.json").is_file())


def take_shard(runs: Sequence[Run], shard: str | None) -> list[Run]:
    """The part of the runs that one of several machines does: "2/4" is the second of four; None is all.

    Every job is in exactly one shard, whatever is finished where, so that the shards' results folders together are the whole.

    Raises:
        InvalidParameter: Not of the form "i/n" with 1 <= i <= n.
    """
    if shard is None:
        return list(runs)
    part, _, whole = shard.partition("/")
    if not (part.isdigit() and whole.isdigit() and 1 <= int(part) <= int(whole)):
        raise InvalidParameter(f"a shard is written i/n with 1 <= i <= n, such as 1/4, got {shard!r}")
    return [run for job in make_jobs(runs)[int(part) - 1 :: int(whole)] for run in job.runs]


def make_jobs(runs: Sequence[Run]) -> list[Job]:
    """Jobs of the runs; algorithms that train many seeds at once get them together."""
    together: dict[tuple[str, str], list[Run]] = {}
    jobs = []
    for run in runs:
        if resolve_any(run.algorithm).train_many is not None:
            together.setdefault((run.task, run.algorithm), []).append(run)
        else:
            jobs.append(Job((run,)))
    jobs += [Job(tuple(group)) for group in together.values()]
    # Long jobs first, so that the last worker does not finish alone.
    return sorted(jobs, key=lambda j: -j.runs[0].budget * (10 if len(j.runs) == 1 else 1))


def run_all(
    runs: Sequence[Run], folder: Path, workers: int, on_progress: Callable[[str, float], None] | None = None
) -> Report:
    """Do what is missing, in parallel; Ctrl-C keeps every finished run."""
    todo, reused, damaged = plan_runs(runs, folder)
    report = Report(reused=reused, damaged=damaged)
    jobs = make_jobs(todo)
    if not jobs:
        return report
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(initializer=end_with_parent)
    with manager, _single_threaded():
        channel = manager.Queue()
        pool = ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=end_with_parent)
        pending: dict[Future, Job] = {pool.submit(do_job, job, str(folder), channel): job for job in jobs}
        try:
            while pending:
                finished, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                for label, part in _drain(channel):
                    if on_progress:
                        on_progress(label, part)
                for future in finished:
                    job = pending.pop(future)
                    error = future.exception()
                    if error is not None:
                        report.failed[job.label] = f"{type(error).__name__}: {error}"
                    else:
                        report.done += len(job.runs)
                    if on_progress:
                        on_progress(job.label, 1.0)
        except KeyboardInterrupt:
            report.interrupted = True
            for future in pending:
                future.cancel()
            processes = list(getattr(pool, "_processes", {}).values())
            for process in processes:
                process.terminate()
        finally:
            pool.shutdown(wait=not report.interrupted, cancel_futures=True)
    return report


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Worker processes inherit one thread each: several workers with several threads fight over the cores."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: "1" for name in names})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _drain(channel: Any) -> Iterator[tuple[str, float]]:
    while True:
        try:
            yield channel.get_nowait()
        except (queue.Empty, EOFError, BrokenPipeError, ConnectionError):
            return


def load_suite(name: str) -> dict[str, tuple[Path, Task]]:
    """Task name -> (file, task) of a shipped suite, in the suite's order."""
    from marketenvs.task import suite_folder

    from . import suites

    order = {task: k for k, task in enumerate(suites.suites().get(name, ()))}
    paths = sorted(suite_folder(name).glob("*.json"), key=lambda p: (order.get(p.stem, len(order)), p.stem))
    return {p.stem: (p, load_task(p)) for p in paths}
