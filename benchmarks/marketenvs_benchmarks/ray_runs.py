"""Leaderboard runs on Ray: on this machine, or on a cluster whose machines have marketenvs installed.

A job is one Ray task. It gets the task's content and gives back the content of its result files (and of the policies that
are to be kept), so nothing but Ray has to be shared between machines; this process writes each file as it arrives. A job
whose worker or machine dies is started again elsewhere; a job that raises is reported, like a local one. Results depend on
task, algorithm, seed and budget only, so the table is the local one's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from marketenvs.errors import MarketEnvsError
from marketenvs.task import write_json

from .runs import Job, Report, Run, do_job, make_jobs, plan_runs

RETRIES = 10
"""How often a job is started again after its worker or machine died."""


@contextlib.contextmanager
def connected(address: str, workers: int | None = None) -> Iterator[Any]:
    """Ray: "local" starts it on this machine (and stops it at the end), "auto" finds a running cluster, else an address.

    A Ray that this process has already begun is used as it is.

    Raises:
        MarketEnvsError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise MarketEnvsError("--ray needs Ray: pip install 'marketenvs[rllib]'") from None
    if ray.is_initialized():
        yield ray
        return
    _check_reachable(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": 200 * 1024 * 1024}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise MarketEnvsError(f"--ray {address}: no Ray cluster there ({error})") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray tries a wrong address for minutes; a socket tells at once."""
    where = address.removeprefix("ray://")
    host, _, port = where.rpartition(":")
    if address in ("local", "auto"):
        return
    if not host or not port.isdigit():
        raise MarketEnvsError(f"--ray must be local, auto, HOST:PORT or ray://HOST:PORT, got {address!r}")
    try:
        with socket.create_connection((host, int(port)), timeout=10):
            pass
    except OSError as error:
        raise MarketEnvsError(f"--ray {address}: no Ray cluster there ({error.strerror or error})") from None


Files = dict[str, bytes]
"""Names and contents of the files of one folder."""


def do_job_here(runs: Sequence[Run], content: Mapping[str, Any], where: str) -> list[tuple[int, dict[str, Any], Files]]:
    """What a Ray worker does: train and score a job's runs, and give back (seed, result, kept policies) of each.

    Args:
        runs: The job's runs.
        content: The task file's content.
        where: Folder in which the user's own ``module:train`` is found, if this machine has it.
    """
    if os.path.isdir(where):
        os.chdir(where)
    with tempfile.TemporaryDirectory(prefix="marketenvs-job-") as place:
        path = Path(place) / "task.json"
        path.write_text(json.dumps(content))
        here = tuple(dataclasses.replace(run, task_path=str(path)) for run in runs)
        do_job(Job(here), place)
        return [(r.seed, json.loads(r.path(Path(place)).read_text()), _files(r.policy_path(Path(place)))) for r in here]


def _files(folder: Path) -> Files:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())} if folder.is_dir() else {}


def _put(folder: Path, files: Files) -> None:
    """Write a folder, whole or not at all, in place of an older one."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    for name, data in files.items():
        (fresh / name).write_bytes(data)
    fresh.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def run_all(
    wanted: Sequence[Run],
    folder: Path,
    address: str = "local",
    workers: int | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> Report:
    """Do what is missing on Ray; every result is written as soon as it is there, and Ctrl-C keeps them.

    Args:
        wanted: The runs; finished ones are reused.
        folder: Results folder.
        address: "local", "auto" or the address of a cluster.
        workers: CPUs of a local Ray; None for all. A cluster uses what it has.
        on_progress: Called with a job's label and 1.0 when it has ended.

    Raises:
        MarketEnvsError: There is no Ray, or no cluster at the address.
    """
    todo, reused, damaged = plan_runs(wanted, folder)
    report = Report(reused=reused, failed={}, damaged=damaged)
    jobs = make_jobs(todo)
    if not jobs:
        return report
    with connected(address, workers) as ray:
        work = ray.remote(do_job_here).options(num_cpus=1, max_retries=RETRIES)
        contents = {path: json.loads(Path(path).read_text()) for path in {j.runs[0].task_path for j in jobs}}
        shared = {path: ray.put(content) for path, content in contents.items()}
        waiting = {work.remote(job.runs, shared[job.runs[0].task_path], os.getcwd()): job for job in jobs}
        try:
            while waiting:
                finished, _ = ray.wait(list(waiting), num_returns=1)
                for reference in finished:
                    job = waiting.pop(reference)
                    _collect(ray, reference, job, folder, report)
                    if on_progress is not None:
                        on_progress(job.label, 1.0)
        except KeyboardInterrupt:
            report.interrupted = True
            for reference in waiting:
                ray.cancel(reference, force=True)
    return report


def _collect(ray: Any, reference: Any, job: Job, folder: Path, report: Report) -> None:
    assert report.failed is not None
    try:
        results = {seed: (result, files) for seed, result, files in ray.get(reference)}
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        report.failed[job.label] = f"{type(cause).__name__}: {cause}"
        return
    except ray.exceptions.RayError as error:
        report.failed[job.label] = f"its worker died {RETRIES + 1} times ({type(error).__name__})"
        return
    for run in job.runs:
        path = run.path(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        result, files = results[run.seed]
        if files:  # first, so that a result never lacks its policies
            _put(run.policy_path(folder), files)
        write_json(path, result)
        report.done += 1
