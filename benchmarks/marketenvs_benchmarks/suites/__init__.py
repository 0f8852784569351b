"""Suites: fixed sets of frozen tasks, one folder each, built from the rooms' definitions."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marketenvs import markets
from marketenvs.task import Definition

HERE = Path(__file__).parent


def definitions() -> dict[str, Definition]:
    """Task name -> definition, from every room's ``tasks`` module."""
    return {d.name: d for module in rooms() for d in module.TASKS}


def suites() -> dict[str, tuple[str, ...]]:
    """Suite name -> task names, in order."""
    found = rooms()
    quick = tuple(name for module in found for name in getattr(module, "QUICK", ()))
    full = tuple(name for module in found for name in getattr(module, "SUITE_V1", ()))
    return {"quick": quick} | ({"suite-v1": full} if full else {})


def quick_algorithms() -> dict[str, dict[str, int | None]]:
    """Task -> algorithm -> budget that the quick suite runs (None: the algorithm's own quick budget).

    A room's ``QUICK_ALGORITHMS`` maps algorithm names to budgets; a room without it gets every algorithm that can play.
    """
    return {
        name: dict(module.QUICK_ALGORITHMS)
        for module in rooms()
        if hasattr(module, "QUICK_ALGORITHMS")
        for name in getattr(module, "QUICK", ())
    }


def v1_algorithms() -> dict[str, dict[str, int | None]]:
    """Task of suite-v1 -> algorithm -> rounds it gets in the reference results (None: the algorithm's own quick budget).

    A room's ``V1_ALGORITHMS`` maps an algorithm to None, to rounds on all of its tasks, or to ``{task: rounds}``.
    """
    found: dict[str, dict[str, int | None]] = {}
    for module in rooms():
        table: Mapping[str, Any] = getattr(module, "V1_ALGORITHMS", {})
        for task in getattr(module, "SUITE_V1", ()):
            found[task] = {
                name: budget[task] if isinstance(budget, Mapping) else budget
                for name, budget in table.items()
                if not isinstance(budget, Mapping) or task in budget
            }
    return found


def rooms() -> list:
    """Every room's ``tasks`` module."""
    found = []
    for info in pkgutil.iter_modules(markets.__path__):
        name = f"{markets.__name__}.{info.name}.tasks"
        if importlib.util.find_spec(name) is not None:
            found.append(importlib.import_module(name))
    return found
