"""Tables of throughput: on the terminal, in Markdown, and the bars that are to be met."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
MARKER = "<!-- generated from throughput.json by python -m marketenvs_benchmarks.throughput_report -->"
HEADINGS = ("", "env-steps/s", "quartiles", "wall", "agent-steps/s", "UE-steps/s", "first call")


def short(value: float) -> str:
    """A rate in three digits: 2.72 k, 10.3 M."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def label(record: Record) -> str:
    """What was measured, within its group."""
    who = "" if record["system"] == "marketenvs" else f"{record['system']} {record['subject']}: "
    parts = [f"{who}{record['shell']}", record["library"] if record["shell"] in ("core", "fused kernel") else ""]
    return " ".join(
        p for p in [*parts, f"B={record['batch']}", f"({record['setting']})" if record["setting"] else ""] if p
    )


def row(record: Record) -> list[str]:
    """One line of a table: CPU-time rates, the wall-time median beside them."""
    cpu, wall = record["env_steps_per_cpu_s"], record["env_steps_per_wall_s"]
    return [
        label(record),
        short(cpu["median"]),
        f"{short(cpu['q1'])} - {short(cpu['q3'])}",
        short(wall["median"]),
        short(record["agent_steps_per_cpu_s"]),
        short(record["ue_steps_per_cpu_s"]) if record["users"] else "-",
        f"{record['build_s']:.2f} s",
    ]


def groups(content: Mapping[str, Any]) -> dict[str, list[Record]]:
    """Records by group, in the order in which they were measured."""
    out: dict[str, list[Record]] = {}
    for record in content["results"]:
        out.setdefault(record["group"], []).append(record)
    return out


def print_results(content: Mapping[str, Any], console: Any) -> None:
    """All tables on a rich console."""
    from rich.table import Table

    for name, records in groups(content).items():
        table = Table(title=f"{name}: steps per CPU-second of one thread, median of {content['settings']['repeats']}")
        for i, heading in enumerate(HEADINGS):
            table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
        for record in records:
            table.add_row(*row(record))
        console.print(table)
    bars = Table(title="Bars: ratios of CPU-time rates within one run")
    for i, heading in enumerate(BAR_HEADINGS):
        bars.add_column(heading, justify="right" if i in (1, 2) else "left")
    for cells in bar_rows(content):
        bars.add_row(*cells)
    if bars.row_count:
        console.print(bars)
    for name, why in content["failures"].items():
        console.print(f"not measured: {name}: {why}", highlight=False, markup=False)


BAR_HEADINGS = ("bar", "wanted", "found", "met", "what was compared")


def bar_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """One line per bar that was measured."""
    from .throughput_bars import verdicts

    return [
        [v.bar, f"{v.wanted:,.3g}", f"{v.found:,.3g}", v.met, v.how] for v in verdicts(content) if v.found is not None
    ]


def profile_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Per market and batch: microseconds per round, and the shares of its parts, largest first."""
    out = []
    for entry in content.get("profile", ()):
        spent = entry["microseconds"]
        total = sum(spent.values())
        ordered = sorted(spent.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {value / total:.0%}" for name, value in ordered if value >= 0.02 * total)
        out.append([entry["market"], str(entry["batch"]), f"{total:,.0f} µs", shares])
    return out


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])


def document(content: Mapping[str, Any], plot: str) -> str:
    """The tables of docs/throughput.md, from raw results.

    Args:
        content: What ``throughput.json`` holds.
        plot: The plot's file name, relative to the page.
    """
    machine, settings = content["machine"], content["settings"]
    load = machine.get("load_at_start")
    lines = [
        f"{machine['cpu']}, pinned to core {machine['pinned_to']} of {machine['cores']}; load at the start "
        f"{load[0]:.1f}, at the end {machine['load_at_end'][0]:.1f}. "
        if load
        else f"{machine['cpu']}. ",
        f"{settings['repeats']} interleaved repeats of {settings['seconds']} s; code {content['provenance']['commit']}; "
        + ", ".join(f"{k} {v}" for k, v in content["provenance"]["versions"].items())
        + ".",
        *([f"Note: {content['note']}."] if content.get("note") else []),
        "",
        f"![Agent-steps per CPU-second over the batch]({plot})",
        "",
        "## The bars",
        "",
        markdown(BAR_HEADINGS, bar_rows(content)),
        "",
    ]
    if content.get("growth"):
        rows = [
            [
                f"{g['consumers']:,}",
                f"{g['respond_s'] * 1e3:.2f} ms",
                f"{g['solver_s'] * 1e3:.2f} ms",
                "yes" if g["certified"] else "no",
            ]
            for g in content["growth"]
        ]
        headings = ("consumers", "solved and certified", "solved", "certified")
        lines += ["## One game of many consumers (AI-Bazaar)", "", markdown(headings, rows), ""]
    lines += ["## Where the time goes (NumPy float64)", ""]
    lines += [markdown(("market", "B", "one round of all", "parts"), profile_rows(content)), ""]
    for name, records in groups(content).items():
        lines += [f"## {name}", "", markdown(("what", *HEADINGS[1:]), [row(r) for r in records]), ""]
    for name, why in content["failures"].items():
        lines.append(f"- not measured: {name}: {why}")
    return "\n".join(lines).rstrip() + "\n"


def write_document(content: Mapping[str, Any], page: Path) -> None:
    """Replace the generated part of the page (from its marker on), and draw the plot beside it."""
    from .throughput_plot import plot

    head, found, _ = page.read_text().partition(MARKER)
    if not found:
        raise ValueError(f"{page} lacks the line {MARKER!r}, below which the tables go")
    picture = page.with_name("throughput.svg")
    plot(content, picture)
    page.write_text(head + MARKER + "\n\n" + document(content, picture.name))


if __name__ == "__main__":
    write_document(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
