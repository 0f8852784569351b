"""``marketenvs throughput``: environment steps per second of every shell, beside the peers and the limit of the machine.

The measuring is done in a process of its own that is pinned to one core and told to use one thread (the libraries read that when they
are imported). Each market is one group: its cores, its shells, the peers, the limit take turns there. Raw results are written after every
group, so an interrupted run keeps what it has. See ``docs/throughput.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FORMAT = 1
FILE = "throughput.json"
ONE_THREAD = {
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
    ),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    "SDL_VIDEODRIVER": "dummy",
}


def main(
    folder: str | os.PathLike[str],
    console: Any,
    markets: Sequence[str] | None = None,
    seconds: float = 0.3,
    repeats: int = 5,
    peers: bool = False,
    batches: Sequence[int] | None = None,
    libraries: Sequence[str] = ("numpy", "torch", "jax"),
) -> Path:
    """Measure, keep the raw results as ``throughput.json`` in the folder, and print the tables.

    Args:
        folder: Where the results go; it must exist.
        console: A rich console.
        markets: Ids; None for all registered markets.
        seconds: Length of one turn of one contender.
        repeats: Interleaved turns of each.
        peers: Also the peers that are installed (extra ``peers``), the numba limit and the oracles against SciPy loops.
        batches: Batch sizes of the cores; None for 1 to 16384.
        libraries: Array libraries of the cores; one that is not installed is named.

    Returns:
        The file that was written.

    Raises:
        UnknownName: No market of that id.
        InvalidParameter: No positive number of seconds or repeats.
        MarketEnvsError: The measuring process died; its last words are in the message.
    """
    import marketenvs
    from marketenvs.errors import InvalidParameter, MarketEnvsError, UnknownName, nearest

    known = marketenvs.list_markets()
    chosen = [id.removeprefix("marketenvs/") for id in markets] if markets else known
    for id in chosen:
        if id not in known:
            raise UnknownName(f"unknown market {id!r}; {nearest(id, known)}")
    if not seconds > 0 or repeats < 1:
        raise InvalidParameter(f"seconds and repeats must be positive, got {seconds} and {repeats}")
    from . import throughput_report

    path = Path(folder) / FILE
    plan = {
        "markets": chosen,
        "seconds": seconds,
        "repeats": repeats,
        "peers": peers,
        "batches": list(batches) if batches else None,
        "libraries": list(libraries),
        "path": str(path),
    }
    with tempfile.TemporaryFile("w+") as errors:
        worker = subprocess.Popen(
            [sys.executable, "-m", __name__, "--worker", json.dumps(plan)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )
        try:
            _follow(worker, console)
        finally:
            if worker.poll() is None:
                worker.terminate()
                worker.wait()
        if worker.returncode:
            errors.seek(0)
            words = errors.read().strip().splitlines()[-5:]
            raise MarketEnvsError(
                "the measuring process failed: " + (" | ".join(words) or f"status {worker.returncode}")
            )
    content = json.loads(path.read_text())
    throughput_report.print_results(content, console)
    console.print(f"raw results: {path}", highlight=False)
    return path


def _follow(worker: subprocess.Popen, console: Any) -> None:
    """Show what the worker says until it ends; where nobody watches, only which group begins."""
    assert worker.stdout is not None
    group = ""
    with console.status("starting") as status:
        for line in worker.stdout:
            status.update(line.strip())
            begun, _, _ = line.partition(":")
            if begun != group and not console.is_terminal:
                console.print(f"measuring {begun.strip()} ...", highlight=False)
            group = begun
    worker.wait()


def pin() -> int | None:
    """Bind this process to one core, the last that it may use; None where the system offers no such thing."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def work(plan: dict[str, Any], report: Callable[[str], None]) -> None:
    """The measuring process: one group per market, then the groups without a market."""
    core = pin()
    warnings.simplefilter("ignore")
    from marketenvs.task import write_json

    from . import throughput_oracles, throughput_profile
    from . import throughput_ours as ours
    from .runs import provenance
    from .throughput_measure import measure

    content: dict[str, Any] = {
        "format": FORMAT,
        "settings": {k: plan[k] for k in ("seconds", "repeats", "peers", "batches", "libraries")},
        "machine": machine(core),
        "provenance": provenance(),
        "results": [],
        "growth": [],
        "profile": [],
        "failures": {},
        "oracles": [],
    }
    batches = tuple(plan["batches"] or ours.BATCHES)
    for name in plan["markets"]:
        try:
            contenders = ours.contenders(name, batches, tuple(plan["libraries"]))
            if plan["peers"]:
                contenders += _rivals(name, batches)
        except Exception as error:  # a market that cannot even be made is named; the others go on
            content["failures"][name] = f"{type(error).__name__}: {error}"
            continue
        timings, failures = measure(name, contenders, plan["seconds"], plan["repeats"], report)
        content["results"] += [t.record() for t in timings]
        content["failures"] |= {f"{name}: {who}": why for who, why in failures.items()}
        report(f"{name}: where a round's time goes")
        for batch in sorted({1, ours.profile_batch(name, max(batches))}):
            content["profile"].append(
                throughput_profile.parts(name, ours.settings(name)[0], batch, min(0.03, plan["seconds"]))
            )
        write_json(plan["path"], content)
    if plan["peers"] and "AIBazaar-v0" in plan["markets"]:
        report("oracles of AI-Bazaar beside SciPy loops")
        try:
            content["oracles"] = throughput_oracles.compare(plan["repeats"])
            content["growth"] = throughput_oracles.growth()
        except Exception as error:
            content["failures"]["oracles"] = f"{type(error).__name__}: {error}"
    content["machine"]["load_at_end"] = os.getloadavg() if hasattr(os, "getloadavg") else None
    write_json(plan["path"], content)


def _rivals(id: str, batches: tuple[int, ...]) -> list[Any]:
    """Who takes turns with a market: the peers, the limit of the machine, SuperSuit beside our own VecEnv."""
    from . import throughput_limit as limit
    from . import throughput_ours as ours
    from . import throughput_peers as rivals

    main = ours.settings(id)[0]
    users = ours.users_of(ours.marketenvs.make(id, **main))
    out = limit.contenders(id, tuple(b for b in batches if b * users <= ours.MOST_USERS))
    out += rivals.radio() if users else rivals.spread(compiled=id == "AIBazaar-v0")
    return out + (rivals.supersuit(main) if id == "AIBazaar-v0" else [])


def machine(core: int | None) -> dict[str, Any]:
    """What the numbers were measured on."""
    import platform

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = found[0] if found else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "pinned_to": core,
        "system": platform.platform(),
        "load_at_start": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The measuring process of `marketenvs throughput`.")
    parser.add_argument("--worker", required=True, help="the plan, as JSON")
    work(json.loads(parser.parse_args().worker), lambda text: print(text, flush=True))
