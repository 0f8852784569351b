"""Suites: fixed sets of frozen tasks, one folder each, built from the rooms' definitions."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from pathlib import Path

from marketenvs import markets
from marketenvs.errors import UnknownName, nearest
from marketenvs.task import Definition, build_task

HERE = Path(__file__).parent


def definitions() -> dict[str, Definition]:
    """Task name -> definition, from every room's ``tasks`` module."""
    return {d.name: d for module in _rooms() for d in module.TASKS}


def suites() -> dict[str, tuple[str, ...]]:
    """Suite name -> task names, in order."""
    rooms = _rooms()
    quick = tuple(name for module in rooms for name in getattr(module, "QUICK", ()))
    full = tuple(name for module in rooms for name in getattr(module, "SUITE_V1", ()))
    return {"quick": quick} | ({"suite-v1": full} if full else {})


def quick_algorithms() -> dict[str, dict[str, int | None]]:
    """Task -> algorithm -> budget that the quick suite runs (None: the algorithm's own quick budget).

    A room's ``QUICK_ALGORITHMS`` maps algorithm names to budgets; a room without it gets every algorithm that can play.
    """
    return {
        name: dict(module.QUICK_ALGORITHMS)
        for module in _rooms()
        if hasattr(module, "QUICK_ALGORITHMS")
        for name in getattr(module, "QUICK", ())
    }


def _rooms() -> list:
    found = []
    for info in pkgutil.iter_modules(markets.__path__):
        name = f"{markets.__name__}.{info.name}.tasks"
        if importlib.util.find_spec(name) is not None:
            found.append(importlib.import_module(name))
    return found


def build(suite: str, folder: Path | None = None, report: Callable[[str], None] = lambda text: None) -> list[Path]:
    """Freeze every task of a suite as a JSON file; files whose content is unchanged stay bit for bit the same.

    Raises:
        UnknownName: No such suite.
    """
    known = suites()
    if suite not in known:
        raise UnknownName(f"unknown suite {suite!r}; {nearest(suite, known)}")
    folder = HERE / suite if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    everything = definitions()
    written = []
    for name in known[suite]:
        report(f"building {name}")
        task = build_task(everything[name])
        task.save(folder / f"{name}.json")
        report(f"{name}: hash {task.hash[:12]}, rejected {task.rejected}, floors {dict(task.floors)}")
        written.append(folder / f"{name}.json")
    return written
