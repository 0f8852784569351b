"""Committed reference results: one compact file per task and algorithm, and the final policies where they are small.

A result file of :mod:`.runs` is kept whole, but what all runs of a cell share (provenance, names) is written once. Final policies of a cell
are packed into one zip archive of the folders that ``save_policy`` wrote.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marketenvs.errors import MarketEnvsError, UnknownName
from marketenvs.task import load_task, write_json

from . import runs

FOLDER = Path(__file__).parent / "reference"
SHARED = ("format", "algorithm", "provenance")
SMALL = 48_000
"""Bytes up to which the archive of a cell's policies is committed; larger ones hold the first seed only, or nothing."""


def file_of(suite: str, task: str, algorithm: str) -> Path:
    """Where a cell's committed results are."""
    return FOLDER / suite / task / f"{runs.safe_name(algorithm)}.json"


def archive_of(suite: str, task: str, algorithm: str) -> Path:
    """Where a cell's committed policies are, if there are any."""
    return file_of(suite, task, algorithm).with_suffix(".policies.zip")


def read(suite: str, task: str, algorithm: str, task_hash: str) -> list[dict[str, Any]]:
    """Committed results of an algorithm on exactly this task content; empty if there are none.

    The suite's own come first; then those of another suite that has the same task content.
    """
    own = file_of(suite, task, algorithm)
    for path in (own, *sorted(p for p in FOLDER.glob(f"*/{task}/{own.name}") if p != own)):
        if path.is_file():
            data = json.loads(path.read_text())
            shared = data.get("shared", {})
            found = [{**shared, **r} for r in data["results"] if r["run"]["task_hash"] == task_hash]
            if found:
                return found
    return []


def store(suite: str, folder: Path, least: int = 1) -> list[Path]:
    """Collect a results folder into the committed reference files.

    Cells of other task content, and cells with fewer than ``least`` runs, are left out.
    """
    written = []
    for directory in sorted((folder / suite).glob("*/*")):
        if not directory.is_dir():
            continue
        task = load_task(directory.parent.name)
        results = [r for p in sorted(directory.glob("seed-*.json")) if (r := runs.read_result(p)) is not None]
        results = [r for r in results if r["run"]["task_hash"] == task.hash]
        keys = {(r["run"]["code"], r["run"]["budget"]) for r in results}
        if len(keys) > 1:
            raise MarketEnvsError(f"{directory} holds runs of several budgets or sources ({len(keys)}): clear it first")
        if len(results) >= max(1, least):
            written.append(_store_cell(suite, directory, sorted(results, key=lambda r: r["run"]["seed"])))
    return written


def _store_cell(suite: str, directory: Path, results: Sequence[Mapping[str, Any]]) -> Path:
    first = results[0]
    shared = {k: first[k] for k in SHARED}
    target = file_of(suite, directory.parent.name, directory.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    packed = [{k: v for k, v in r.items() if k not in SHARED} for r in results]
    write_json(target, {"shared": shared, "results": packed}, indent=None)
    archive = target.with_suffix(".policies.zip")
    archive.unlink(missing_ok=True)
    seeds = [r["run"]["seed"] for r in results]
    for some in (seeds, seeds[:1]):
        content = _pack(directory, some)
        if content and len(content) <= SMALL:
            archive.write_bytes(content)
            break
    return target


def _pack(directory: Path, seeds: Sequence[int]) -> bytes:
    """A zip of the stored policies of some seeds, the same bytes for the same policies; empty if there are none."""
    buffer, count = io.BytesIO(), 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for seed in seeds:
            for path in sorted((directory / f"seed-{seed}.policy").glob("*")):
                entry = zipfile.ZipInfo(f"seed-{seed}.policy/{path.name}", (1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
                count += 1
    return buffer.getvalue() if count else b""


def stored_seeds(suite: str, task: str, algorithm: str) -> list[int]:
    """Seeds whose final policies are committed."""
    path = archive_of(suite, task, algorithm)
    if not path.is_file():
        return []
    with zipfile.ZipFile(path) as archive:
        return sorted({int(n.split("/")[0][5:-7]) for n in archive.namelist()})


def policies(suite: str, task: str, algorithm: str, seed: int = 0) -> dict[str, Any]:
    """The committed final policies of a reference run.

    Raises:
        UnknownName: None are committed for this cell and seed.
    """
    from marketenvs_baselines.store import load_policy

    if seed not in stored_seeds(suite, task, algorithm):
        raise UnknownName(f"no committed policies of {algorithm!r} with seed {seed} on {suite}/{task}")
    with tempfile.TemporaryDirectory() as place, zipfile.ZipFile(archive_of(suite, task, algorithm)) as archive:
        names = [n for n in archive.namelist() if n.startswith(f"seed-{seed}.policy/")]
        archive.extractall(place, names)
        return load_policy(Path(place) / f"seed-{seed}.policy", load_task(task).make_market())


def cells(suite: str) -> list[tuple[str, str]]:
    """(task, algorithm) of every committed cell, by file name."""
    return [(p.parent.name, p.stem) for p in sorted((FOLDER / suite).glob("*/*.json"))]


def rescore(suite: str, task: str, algorithm: str, seed: int = 0) -> tuple[float, float]:
    """(stored score, score of the committed policy evaluated again): equal where nothing has changed."""
    from marketenvs.scoring import evaluate

    loaded = load_task(task)
    stored = {r["run"]["seed"]: r for r in read(suite, task, algorithm, loaded.hash)}
    if seed not in stored:
        raise UnknownName(f"no reference result of {algorithm!r} with seed {seed} on this content of {task!r}")
    found = evaluate(loaded, policies(suite, task, algorithm, seed), seed=seed)
    return stored[seed]["evaluation"]["score"], found.score
