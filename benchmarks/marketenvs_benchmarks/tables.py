"""The leaderboard as text, Markdown and one self-contained HTML page."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from .leaderboard import EXTRAS, OLDER, REFERENCE, Board, Row, aggregate

HEADINGS = (
    "algorithm",
    "score IQM [95 % CI]",
    "min role",
    "digits",
    "NashConv [lower, upper]",
    "regret per role",
    "kind",
    "welfare",
    "rounds",
    "to 0.9",
    "area",
    "s/run",
    "runs",
)


def headings(rows: Sequence[Row]) -> tuple[str, ...]:
    """Columns of a task's table: the common ones, and those that only its market has."""
    return (*HEADINGS, *extra_columns(rows))


def extra_columns(rows: Sequence[Row]) -> list[str]:
    """Columns of what only some markets have, if any row has it."""
    return [name for name in EXTRAS if any(name in row.extras for row in rows)]


def cells(row: Row, extras: Sequence[str] = ()) -> list[str]:
    """One row as text, in the order of ``HEADINGS`` and then of ``extras``."""
    low, high = row.nash_conv
    regret = ", ".join(f"{role} {_short(value)}" for role, value in row.regret.items())
    note = "" if row.access == "observation" else f" ({row.access})"
    return [
        row.title + note + {REFERENCE: " *", OLDER: " **"}.get(row.origin, ""),
        row.score.text(),
        f"{row.worst:.3f}",
        f"{row.digits:.1f}",
        f"[{_short(low)}, {_short(high) if high is not None else '-'}]",
        regret,
        row.kind,
        "-" if row.welfare is None else f"{row.welfare:.3f}",
        f"{row.rounds:,}",
        row.to_90,
        "-" if row.area is None else f"{row.area.value:.3f}",
        f"{row.seconds:.1f}",
        str(row.runs),
        *(f"{row.extras[name]:.3f}" if name in row.extras else "-" for name in extras),
    ]


def _short(value: float) -> str:
    if abs(value) < 1e-9:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.2e}"


def floors_line(board: Board, task: str) -> str:
    """The task's published floors and certificate in one line."""
    t = board.tasks[task]
    floors = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in t.floors.items())
    plan = t.definition.plan
    kind = "tripwire, not aggregated; " if t.definition.tripwire else ""
    return (
        f"{kind}{plan.markets} held-out markets, all certified (largest relative epsilon {t.epsilon:.1e}, {t.rejected} draws rejected); "
        f"floors: {floors}; task {t.hash[:12]}"
    )


def without_result(board: Board, task: str) -> dict[str, list[str]]:
    """Reason -> algorithms that have no row on the task."""
    grouped: dict[str, list[str]] = {}
    for name, reason in board.missing.get(task, {}).items():
        reason = "needs other action spaces" if " stages; " in reason else reason.removeprefix(f"{name} ")
        grouped.setdefault(reason, []).append(name)
    return grouped


def role_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The role track of one task: headings and lines, best mean first (IQM over runs; "-" where undefined)."""
    members = [m for m in next(iter(rows[0].panel.values())) if m != "mean"]
    lines = [
        (row.panel[role]["mean"], [role, row.title, *(_score(row.panel[role].get(m)) for m in ("mean", *members))])
        for row in rows
        for role in row.panel
    ]
    order = {role: k for k, role in enumerate(rows[0].panel)}
    lines.sort(key=lambda x: (order[x[1][0]], -(x[0] if x[0] is not None else -9e9)))
    return ["role", "policy", "mean", *(f"vs {m}" for m in members)], [line for _, line in lines]


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def in_order(board: Board) -> list[str]:
    """Tasks as they are shown: the tripwires apart, last."""
    return sorted(board.tasks, key=lambda task: board.tasks[task].definition.tripwire)


def print_board(board: Board, console: Any) -> None:
    """Tables on a rich console."""
    from rich.table import Table

    apart = False
    for task in in_order(board):
        rows = board.rows.get(task, [])
        if board.tasks[task].definition.tripwire and not apart:
            console.rule("Tripwires: fixed markets, shown apart, not aggregated", align="left")
            apart = True
        table = Table(
            title=f"{task}: {board.tasks[task].definition.title}  ({board.tasks[task].definition.track} track)",
            title_justify="left",
            caption=floors_line(board, task),
        )
        table.caption_justify = "left"
        for k, heading in enumerate(headings(rows)):
            table.add_column(heading, justify="left" if k in (0, 5) else "right", overflow="fold")
        for row in rows:
            table.add_row(*cells(row, extra_columns(rows)))
        console.print(table)
        if rows:
            names, lines = role_table(rows)
            table = Table(
                title=f"{task}  (role track: one agent against the frozen panel; 0 uniform play, 1 best reply)",
                title_justify="left",
            )
            for k, heading in enumerate(names):
                table.add_column(heading, justify="left" if k == 0 else "right")
            for line in lines:
                table.add_row(*line)
            console.print(table)
        for reason, left in without_result(board, task).items():
            console.print(f"  -  {', '.join(left)}: {reason}", style="dim", highlight=False)
    for text in footnotes(board):
        console.print(text, style="dim", highlight=False)
    total = aggregate(board)
    if total:
        table = Table(title="All aggregated tasks (algorithms with every cell)", title_justify="left")
        for heading in ("algorithm", "score IQM [95 % CI]", "tasks"):
            table.add_column(heading)
        for title, value, count in total:
            table.add_row(title, value.text(), str(count))
        console.print(table)


def footnotes(board: Board) -> list[str]:
    """What the marks of the rows mean, as far as they occur."""
    seen = {row.origin for rows in board.rows.values() for row in rows}
    notes = {
        REFERENCE: "*  reference, not rerun: committed results on the same task content",
        OLDER: "**  reference of older code: committed results on the same task content; the algorithm's file has changed since",
    }
    return [text for origin, text in notes.items() if origin in seen]


def markdown(board: Board) -> str:
    """The committed reference results as Markdown: one table per task, the tripwires apart, and why cells are missing."""
    from marketenvs.docs import table

    parts = []
    apart = False
    for task in in_order(board):
        content, rows = board.tasks[task], board.rows.get(task, [])
        if content.definition.tripwire and not apart:
            parts.append("## Tripwires\n\nFixed markets, shown apart, never aggregated.\n")
            apart = True
        level = "###" if apart else "##"
        parts.append(f"{level} {task}: {content.definition.title}\n")
        parts.append(
            f"{content.definition.tests[:1].upper()}{content.definition.tests[1:]}. {floors_line(board, task)}.\n"
        )
        if rows:
            extras = extra_columns(rows)
            names = (
                "algorithm",
                "access",
                "score IQM [95 % CI]",
                "least role",
                "regret kind",
                "rounds",
                "to 0.9",
                "area",
                "role track",
                *extras,
                "runs",
            )
            lines = []
            for row in rows:
                full = cells(row, extras)
                area = "-" if row.area is None else row.area.text(2)
                score = [
                    row.score.text(),
                    f"{row.worst:.3f}",
                    row.kind,
                    f"{row.rounds:,}",
                    row.to_90,
                    area,
                    _roles(row),
                ]
                lines.append([row.title, row.access, *score, *full[len(HEADINGS) :], str(row.runs)])
            parts.append(table(names, lines))
        else:
            parts.append("No reference results yet.\n")
        reasons = without_result(board, task)
        if reasons:
            parts.append("Without a result (`-`):\n")
            parts.append(
                "\n".join(f"- {', '.join(f'`{n}`' for n in names)}: {why}" for why, names in reasons.items()) + "\n"
            )
    total = aggregate(board)
    if total:
        parts.append("## Aggregate\n\nAlgorithms with a result on every task that is not a tripwire.\n")
        parts.append(table(("algorithm", "score IQM [95 % CI]", "tasks"), [[t, v.text(), str(n)] for t, v, n in total]))
    return "\n".join(parts)


def _roles(row: Row) -> str:
    """Mean over the panel of every role's track."""
    return ", ".join(f"{role} {_score(found['mean'])}" for role, found in row.panel.items())


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #3b82f6; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1340px; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.note { opacity: .75; font-size: .88rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } td.regret { text-align: left; line-height: 1.25; }
tr.oracle td { background: var(--soft); } .tag { font-size: .75rem; opacity: .7; border: 1px solid var(--line); border-radius: 3px; padding: 0 .3em; }
.bar { position: relative; width: 110px; height: 14px; background: var(--soft); display: inline-block; vertical-align: middle; margin-left: .6em; }
.bar i { position: absolute; top: 5px; height: 4px; background: var(--bar); opacity: .45; }
.bar b { position: absolute; top: 1px; width: 3px; height: 12px; background: var(--bar); }
"""


def page(board: Board, provenance: dict[str, Any]) -> str:
    """One self-contained HTML page: no scripts, no external files."""
    esc = html.escape
    body = [
        f"<h1>marketenvs leaderboard: {esc(board.suite)}</h1>",
        "<p class=note>Score 1 is the certified equilibrium, 0 is uniform play; interquartile mean over seeds with its 95 % bootstrap interval. "
        "Regret is what an agent could still gain by deviating alone, in payoff units. Policies are judged on held-out markets; follower policies "
        "also at earlier decisions that play does not lead to. Bars show [0, 1].</p>",
    ]
    for task in in_order(board):
        content, rows = board.tasks[task], board.rows.get(task, [])
        body.append(f"<h2 id='{esc(task)}'>{esc(task)} <span class=note>{esc(content.definition.title)}</span></h2>")
        body.append(
            f"<p class=note>{esc(content.definition.tests)}. {esc(floors_line(board, task))}</p><div class=scroll><table><tr>"
        )
        body.append("".join(f"<th>{esc(h)}</th>" for h in headings(rows)) + "</tr>")
        for row in rows:
            body.append(_html_row(row, extra_columns(rows)))
        body.append("</table></div>")
        if rows:
            names, lines = role_table(rows)
            body.append(
                "<details><summary class=note>role track: one agent against the frozen panel (0 uniform play, 1 best reply)</summary><table><tr>"
            )
            body.append("".join(f"<th>{esc(h)}</th>" for h in names) + "</tr>")
            body += ["<tr>" + "".join(f"<td>{esc(c)}</td>" for c in line) + "</tr>" for line in lines]
            body.append("</table></details>")
        reasons = without_result(board, task)
        if reasons:
            text = "; ".join(f"{esc(', '.join(names))}: {esc(reason)}" for reason, names in reasons.items())
            body.append(f"<p class=note>Without a result: {text}</p>")
    total = aggregate(board)
    if total:
        body.append(
            "<h2>Aggregate</h2><p class=note>Algorithms with a result on every task that is not a tripwire.</p><table>"
        )
        body.append("<tr><th>algorithm</th><th>score IQM [95 % CI]</th><th>tasks</th></tr>")
        body += [f"<tr><td>{esc(t)}</td><td>{v.text()}</td><td>{n}</td></tr>" for t, v, n in total]
        body.append("</table>")
    versions = ", ".join(f"{k} {v}" for k, v in provenance["versions"].items())
    body.append(
        f"<p class=note>commit {esc(str(provenance['commit']))}; Python {esc(provenance['python'])}; {esc(versions)}</p>"
    )
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>marketenvs leaderboard</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _html_row(row: Row, extras: Sequence[str]) -> str:
    esc = html.escape
    values = cells(row, extras)
    tags = "" if row.access == "observation" else f" <span class=tag>{esc(row.access)}</span>"
    tags += "" if row.origin == "run here" else f" <span class=tag>{esc(row.origin)}</span>"

    def place(x: float) -> float:
        return 100 * min(1.0, max(0.0, x))

    low, high = place(row.score.low), place(row.score.high)
    bar = f"<span class=bar><i style='left:{low:.1f}%;width:{high - low:.1f}%'></i><b style='left:{place(row.score.value):.1f}%'></b></span>"
    out = [f"<td>{esc(row.title)}{tags}</td>", f"<td>{esc(values[1])}{bar}</td>"]
    out += [f"<td{' class=regret' if k == 5 else ''}>{_breaks(esc(values[k]), k)}</td>" for k in range(2, len(values))]
    return f"<tr class='{esc(row.access)}'>{''.join(out)}</tr>"


def _breaks(text: str, column: int) -> str:
    """One line per role in the regret column."""
    return re.sub(r", (?=[a-z])", "<br>", text) if column == 5 else text
