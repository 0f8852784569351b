"""Small tasks that trainers are tried on."""

from __future__ import annotations

import functools

from marketenvs.task import Definition, Plan, Task, build_task


@functools.cache
def small_task(id: str = "AIBazaar-v0", preset: str | None = None, **params) -> Task:
    """A task with few held-out markets, built in a second or two."""
    plan = Plan(markets=4, prefixes=2, warm_up=2, draws=8)
    return build_task(Definition(f"small-{id}-{preset}", id, preset=preset, params=params, plan=plan), floors=False)
