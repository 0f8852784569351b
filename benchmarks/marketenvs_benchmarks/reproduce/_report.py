"""What every reproduction reports: a paper's claim beside what was found, with numbers, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from marketenvs.task import write_json

from ..runs import provenance


@dataclass(frozen=True)
class Finding:
    """One claim.

    Attributes:
        item: Figure or table, "Fig. 7 left".
        claim: What the paper says.
        setting: Under which parameters it was tried.
        found: What came out, with numbers.
        holds: True, False, or None where the claim cannot be decided (say why in ``found``).
        data: The numbers behind it.
    """

    item: str
    claim: str
    setting: str
    found: str
    holds: bool | None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "holds", False: "does not hold", None: "not decided"}[self.holds]


def write_report(folder: Path, title: str, findings: Sequence[Finding], console: Any, notes: str = "") -> None:
    """Write report.json and report.md into the folder and print the table."""
    from rich.table import Table

    content = {
        "title": title,
        "notes": notes,
        "provenance": provenance(),
        "findings": [{**asdict(f), "verdict": f.verdict} for f in findings],
    }
    write_json(folder / "report.json", content)
    lines = [
        f"# {title}\n",
        notes + "\n" if notes else "",
        "| item | paper's claim | setting | found | verdict |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {f.item} | {f.claim} | {f.setting} | {f.found} | **{f.verdict}** |" for f in findings]
    (folder / "report.md").write_text("\n".join(lines) + "\n")
    table = Table(title=title, title_justify="left", show_lines=True)
    for heading, ratio in (("item", 2), ("paper's claim", 5), ("setting", 3), ("found", 7), ("verdict", 2)):
        table.add_column(heading, ratio=ratio, overflow="fold")
    style = {True: "green", False: "red", None: "yellow"}
    for f in findings:
        table.add_row(f.item, f.claim, f.setting, f.found, f"[{style[f.holds]}]{f.verdict}[/]")
    console.print(table)
    console.print(f"figures and report.md, report.json in {folder}", highlight=False, soft_wrap=True)


def figure(width: float = 9.0, height: float = 3.4, panels: int = 1) -> tuple[Any, Any]:
    """A matplotlib figure on the Agg canvas with ``panels`` axes side by side (never touches a display)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing, drawing.subplots(1, panels, squeeze=False)[0]
