"""``marketenvs cite TASK``: what to cite, as BibTeX: the suite, the market's paper, and the exact task."""

from __future__ import annotations

import re
from importlib import metadata

from marketenvs import spec
from marketenvs.errors import UnknownName, nearest
from marketenvs.registry import list_markets
from marketenvs.task import list_tasks, load_task

from . import suites

TITLE = (
    "marketenvs: multi-agent {RL} environments for wireless and computing markets, each with its certified equilibrium"
)
AUTHOR, YEAR = "{The marketenvs developers}", "2026"
"""As in CITATION.cff (a test compares them: the wheel does not carry that file)."""


def cite(name: str) -> str:
    """BibTeX entries for a task or a market.

    Args:
        name: A task of a shipped suite, or a market's id.

    Raises:
        UnknownName: Neither.
    """
    version = metadata.version("marketenvs")
    if name.removeprefix("marketenvs/") in list_markets():
        return "\n".join([_software(version), _paper(name.removeprefix("marketenvs/"))])
    known = list_tasks()
    if name not in known:
        raise UnknownName(f"unknown task or market {name!r}; {nearest(name, [*known, *list_markets()])}")
    task = load_task(name)
    parts = [_software(version), _paper(task.definition.market)]
    within = ", ".join(suite for suite, tasks in suites.suites().items() if name in tasks)
    note = (
        f"Task of suite {within} in marketenvs {version}, market {task.definition.market}; content SHA-256 {task.hash}"
    )
    parts.append(
        _entry(
            "misc",
            f"marketenvs-{name}",
            {"title": f"{{{name}}}: {task.definition.title}", "author": AUTHOR, "year": YEAR, "note": note},
        )
    )
    return "\n".join(parts)


def _software(version: str) -> str:
    return _entry("software", "marketenvs", {"title": TITLE, "author": AUTHOR, "year": YEAR, "version": version})


def _paper(market: str) -> str:
    """The market's source, as far as the market says it: its title (look up authors and venue there)."""
    paper = spec(market).paper
    if not paper:
        return f"% {market} comes from no paper\n"
    key = re.sub(r"[^a-z]+", "-", paper.lower()).strip("-").split("-")
    return _entry("article", "-".join(key[:4]), {"title": f"{{{paper}}}", "note": f"Source of the market {market}"})


def _entry(kind: str, key: str, fields: dict[str, str]) -> str:
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@{kind}{{{key},\n{lines}\n}}\n"
