"""Tables of throughput: on the terminal, in Markdown, and the bars that are to be met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
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
    parts = [f"{who}{record['shell']}", record["library"] if record["shell"] == "core" else ""]
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
    for name, why in content["failures"].items():
        console.print(f"not measured: {name}: {why}", highlight=False, markup=False)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])
