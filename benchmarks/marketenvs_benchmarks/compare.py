"""``marketenvs compare DIR...``: the tables of several results folders side by side, as text, Markdown or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marketenvs.errors import InvalidParameter, MarketEnvsError, UnknownName, nearest
from marketenvs.task import write_text

from . import leaderboard, runs
from .leaderboard import Row

FORMATS = ("text", "markdown", "csv")


@dataclass(frozen=True)
class Cell:
    """An algorithm's results on a task in one folder."""

    suite: str
    task: str
    algorithm: str
    task_hash: str
    row: Row


def read_folder(folder: Path) -> list[Cell]:
    """Every finished cell of a results folder; runs of different task content, budget or code are different cells.

    Raises:
        MarketEnvsError: No such folder, nothing finished in it, or a damaged file.
    """
    if not folder.is_dir():
        raise MarketEnvsError(f"there is no folder {folder}")
    grouped: dict[tuple, list[Any]] = {}
    for path in sorted(folder.rglob("seed-*.json")):
        result = runs.read_result(path)
        if result is not None:
            run = result["run"]
            key = (run["suite"], run["task"], run["algorithm"], run["task_hash"], run["budget"], run["code"])
            grouped.setdefault(key, []).append(result)
    if not grouped:
        raise MarketEnvsError(f"{folder} holds no finished results (seed-*.json)")
    return [
        Cell(key[0], key[1], key[2], key[3], leaderboard.make_row(found, "run here")) for key, found in grouped.items()
    ]


def side_by_side(folders: Sequence[Path], reference: bool = False) -> tuple[list[str], list[list[str]]]:
    """Headings and lines: one line per task content and algorithm, three columns per folder ("-" where it has nothing).

    Args:
        folders: Results folders.
        reference: Whether the committed reference results are a further column.
    """
    names = _short_names(folders)
    columns = [read_folder(folder) for folder in folders]
    if reference:
        contents = {(c.suite, c.task, c.task_hash) for column in columns for c in column}
        names.append("reference")
        columns.append(_reference(sorted(contents)))
    lines: dict[tuple[str, ...], dict[int, list[Cell]]] = {}
    for k, column in enumerate(columns):
        for cell in column:
            key = (cell.suite, cell.task, cell.task_hash, cell.algorithm)
            lines.setdefault(key, {}).setdefault(k, []).append(cell)
    order = {task: k for k, (task, _) in enumerate(_tasks(lines))}
    keys = sorted(lines, key=lambda key: (order[key[1]], key[2], -_best(lines[key]), key[3]))
    out = []
    for suite, task, task_hash, algorithm in keys:
        found = lines[suite, task, task_hash, algorithm]
        line = [f"{task} {task_hash[:8]}", algorithm]
        for k in range(len(columns)):
            line += _texts(found.get(k, []))
        out.append(line)
    headings = ["task", "algorithm"]
    for name in names:
        headings += [f"{name}: score", f"{name}: rounds", f"{name}: runs"]
    return headings, out


def _tasks(lines: Any) -> list[tuple[str, None]]:
    """Tasks in their suites' order."""
    from . import suites

    order = [task for tasks in suites.suites().values() for task in tasks]
    names = dict.fromkeys(key[1] for key in lines)
    return [(t, None) for t in sorted(names, key=lambda t: (order.index(t) if t in order else len(order), t))]


def _best(found: dict[int, list[Cell]]) -> float:
    return max(cell.row.score.value for cells in found.values() for cell in cells)


def _texts(cells: Sequence[Cell]) -> list[str]:
    if not cells:
        return ["-", "-", "-"]
    cells = sorted(cells, key=lambda c: c.row.rounds)
    return [
        " / ".join(c.row.score.text() for c in cells),
        " / ".join(f"{c.row.rounds:,}" for c in cells),
        " / ".join(str(c.row.runs) for c in cells),
    ]


def _reference(contents: Sequence[tuple[str, str, str]]) -> list[Cell]:
    from . import reference

    found = []
    for suite, task, task_hash in contents:
        for where, algorithm in reference.cells(suite):
            results = reference.read(suite, task, algorithm, task_hash) if where == task else []
            if results:
                found.append(
                    Cell(suite, task, algorithm, task_hash, leaderboard.make_row(results, leaderboard.REFERENCE))
                )
    return found


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Last parts of the paths, or the whole paths where those are not unique."""
    last = [folder.resolve().name for folder in folders]
    return last if len(set(last)) == len(last) else [str(folder) for folder in folders]


def render(headings: Sequence[str], lines: Sequence[Sequence[str]], form: str) -> str:
    """The table as Markdown or CSV.

    Raises:
        UnknownName: Another form.
    """
    if form == "markdown":
        from marketenvs.docs import table

        return table(tuple(headings), [list(line) for line in lines])
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(headings)
        writer.writerows(lines)
        return buffer.getvalue()
    raise UnknownName(f"no output format {form!r}; {nearest(form, FORMATS)}")


def run(
    console: Any, folders: Sequence[Path], form: str = "text", out: Path | None = None, reference: bool = False
) -> None:
    """Print the table, or write it to a file.

    Raises:
        UnknownName: No such format.
        InvalidParameter: A text table cannot be written to a file.
    """
    if form not in FORMATS:
        raise UnknownName(f"no output format {form!r}; {nearest(form, FORMATS)}")
    if out is not None and form == "text":
        raise InvalidParameter("--out needs --format markdown or csv")
    headings, lines = side_by_side(folders, reference)
    if form == "text":
        from rich.table import Table

        table = Table(title="Score IQM [95 % CI]; 1 is the equilibrium, 0 uniform play", title_justify="left")
        for k, heading in enumerate(headings):
            table.add_column(heading, justify="left" if k < 2 else "right", overflow="fold")
        for line in lines:
            table.add_row(*line)
        console.print(table)
        return
    text = render(headings, lines, form)
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
        console.print(f"wrote {out}", highlight=False, soft_wrap=True)
