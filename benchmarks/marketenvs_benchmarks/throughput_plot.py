"""Plots of throughput: agent-steps per second over the batch, and the time of one follower game over its consumers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plot(content: Mapping[str, Any], path: Path) -> Path:
    """Draw both as one SVG.

    Args:
        content: What ``throughput.json`` holds.
        path: File to write.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(r["group"] for r in content["results"]))
    growth = content.get("growth", [])
    panels = len(groups) + bool(growth)
    columns = min(3, panels)
    rows = -(-panels // columns)
    with mpl.rc_context({"svg.hashsalt": "marketenvs", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, group in zip(axes, groups, strict=False):
            _batches(axis, group, [r for r in content["results"] if r["group"] == group])
        if growth:
            _growth(axes[len(groups)], growth)
        for axis in axes[panels:]:
            axis.set_visible(False)
        figure.savefig(path, metadata={"Date": None})
    return path


def _batches(axis: Any, group: str, records: list[Mapping[str, Any]]) -> None:
    main = records[0]["setting"]
    lines: dict[str, list[tuple[int, float]]] = {}
    for r in records:
        if r["system"] == "marketenvs" and r["shell"] == "core" and r["setting"] == main:
            lines.setdefault(r["library"], []).append((r["batch"], r["agent_steps_per_cpu_s"]))
        elif r["system"] == "limit" and r["shell"] == "fused kernel" and r["library"].endswith("float64"):
            lines.setdefault("fused numba float64", []).append((r["batch"], r["agent_steps_per_cpu_s"]))
    for name, points in lines.items():
        style = "k:" if name.startswith("fused") else "o-"
        axis.plot(*zip(*sorted(points), strict=True), style, label=name, markersize=3, linewidth=1)
    for r in records:
        if r["system"] in ("vmas", "jaxmarl", "mpe2"):
            axis.plot(r["batch"], r["agent_steps_per_cpu_s"], "x", color="tab:gray")
            axis.annotate(r["system"], (r["batch"], r["agent_steps_per_cpu_s"]), fontsize=6, color="tab:gray")
    axis.set(
        xscale="log", yscale="log", title=group, xlabel="markets in the batch", ylabel="agent-steps per CPU-second"
    )
    axis.minorticks_off()
    axis.legend(fontsize=6)
    axis.grid(alpha=0.3)


def _growth(axis: Any, growth: list[Mapping[str, Any]]) -> None:
    sizes = [g["consumers"] for g in growth]
    for key, name in (("respond_s", "solved and certified"), ("solver_s", "solved")):
        axis.plot(sizes, [g[key] for g in growth], "o-", markersize=3, linewidth=1, label=name)
    last = growth[-1]
    axis.plot(
        sizes, [last["respond_s"] * n / last["consumers"] for n in sizes], "k:", linewidth=1, label="in proportion to N"
    )
    axis.set(
        xscale="log", yscale="log", title="AI-Bazaar, the consumers' game", xlabel="consumers N", ylabel="CPU-seconds"
    )
    axis.minorticks_off()
    axis.legend(fontsize=6)
    axis.grid(alpha=0.3)
