"""Pictures and texts of a market: what was decided, what it paid, and the equilibrium beside it.

Everything is drawn from a market's stages, outcome and metrics, so a new market is drawn without a line of its own:
a panel per stage and per role's payoffs (a trace over rounds for one number, bars for many agents), and one for
welfare. Black marks are the equilibrium of the round settled last. For people, not for agents: it shows what agents
may not know.
"""

from __future__ import annotations

import copy
import io
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MarketEnvsError
from .market import Market, State

if TYPE_CHECKING:
    from .shells.game import Game

_ROUNDS = 200  # rounds kept for traces
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # colour-blind safe (Okabe, Ito)


@dataclass(frozen=True)
class Reference:
    """The equilibrium of one market's round.

    Decisions by stage, payoffs by role, welfare; parts that are mixed or unknown are absent.
    """

    decisions: Mapping[str, np.ndarray]
    payoffs: Mapping[str, np.ndarray]
    welfare: float | None
    label: str


@dataclass(frozen=True)
class Panel:
    """One quantity: its last values (m,), its history (T, m), and its equilibrium (m,) if there is one."""

    title: str
    labels: Sequence[str]
    last: np.ndarray
    history: np.ndarray
    reference: np.ndarray | None
    limits: tuple[float, float] | None = None


def reference(market: Market, state: State) -> Reference:
    """The equilibrium of the only market of a begun state; empty where the market has no oracle of its own."""
    empty = Reference({}, {}, None, "no equilibrium known")
    if type(market).solve is Market.solve:
        return empty
    try:
        found = market.equilibrium(state)
    except MarketEnvsError:
        return empty
    path = {s.name: found.on_path._items.get(s.name) for s in market.stages}
    pure = {name: np.asarray(value)[0] for name, value in path.items() if value is not None}
    values = {role: np.asarray(value)[0] for role, value in found.values.items()}
    welfare = None
    if len(pure) == len(path):
        welfare = float(market.backend.numpy(market.outcome(state, path).metrics["welfare"])[0])
    kind = found.kind if bool(found.certified[0]) else f"{found.kind}, not certified"
    return Reference(pure, values, welfare, f"equilibrium ({kind}, epsilon {float(found.epsilon[0]):.1g})")


class Screen:
    """Remembers the settled rounds of an episode and draws them.

    Args:
        market: The market.
    """

    def __init__(self, market: Market):
        self.market = market
        self.rounds: deque[tuple[Mapping, Mapping, Mapping]] = deque(maxlen=_ROUNDS)
        self._solved: tuple[Any, int, Reference | None] = (None, 0, None)

    def __deepcopy__(self, memo: dict) -> Screen:
        clone = copy.copy(self)
        clone.rounds = self.rounds.copy()
        return clone

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_solved": (None, 0, None)}

    def clear(self) -> None:
        """Forget the rounds: a new episode begins."""
        self.rounds.clear()

    def settle(self, game: Game) -> None:
        """Remember the round that the game has just settled."""
        self.rounds.append((game.played, game.payoffs, game.metrics))

    def reference(self, game: Game, index: int) -> Reference:
        """The equilibrium of the round settled last in market ``index`` (of the coming round, before the first)."""
        state = game.settled if game.settled is not None else game.state
        known, which, solved = self._solved
        same = known is not None and which == index and known.theta is state.theta and known.nature is state.nature
        if solved is None or not same:
            alone = self.market.take(state._replace(decisions={}), [index])
            solved = reference(self.market, alone)
            self._solved = (state, index, solved)
        return solved

    def panels(self, game: Game, index: int = 0) -> tuple[list[Panel], Reference]:
        """What there is to draw of market ``index``, and the equilibrium it is compared with."""
        ideal, out = self.reference(game, index), []
        state = game.settled if game.settled is not None else game.state
        for stage in self.market.stages:
            n, k = self.market.roles[stage.role], stage.codec.width
            labels = [f"{i}" if k == 1 else f"{i}.{j}" for i in range(n) for j in range(k)]
            history = [np.asarray(played[stage.name])[index].reshape(-1) for played, _, _ in self.rounds]
            low, high = self._limits(state, stage.name, index)
            out.append(
                _panel(f"{stage.name} ({stage.role})", labels, history, ideal.decisions.get(stage.name), (low, high))
            )
        for role, n in self.market.roles.items():
            history = [np.asarray(paid[role])[index] for _, paid, _ in self.rounds]
            out.append(_panel(f"payoff ({role})", [f"{i}" for i in range(n)], history, ideal.payoffs.get(role)))
        welfare = [np.asarray(m["welfare"])[index].reshape(-1) for _, _, m in self.rounds]
        best = None if ideal.welfare is None else np.array([ideal.welfare])
        out.append(_panel(f"welfare: {self.market.welfare_name}", ["0"], welfare, best))
        return out, ideal

    def _limits(self, state: State, stage: str, index: int) -> tuple[float, float]:
        try:
            low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage))
        except (KeyError, MarketEnvsError):  # bounds that depend on earlier stages of the round
            return -math.inf, math.inf
        row = [b[min(index, b.shape[0] - 1)] for b in (low, high)]
        return float(row[0].min()), float(row[1].max())

    def figure(self, game: Game, index: int = 0) -> Any:
        """A Matplotlib figure of market ``index``."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("drawing needs matplotlib: pip install 'marketenvs[plot]'") from error
        panels, ideal = self.panels(game, index)
        columns = min(3, len(panels))
        rows = math.ceil(len(panels) / columns)
        figure = Figure(figsize=(4.2 * columns, 2.8 * rows), dpi=100)
        inch = 1 / (
            2.8 * rows
        )  # margins as fractions of the height; a layout engine would take longer than the drawing
        margins = {"left": 0.2 / columns, "right": 1 - 0.05 / columns, "bottom": 0.45 * inch, "top": 1 - 0.65 * inch}
        figure.subplots_adjust(**margins, wspace=0.3, hspace=0.45)
        name = self.market.id or type(self.market).__name__
        figure.suptitle(f"{name}, round {game.rounds} of {game.horizon}    black: {ideal.label}", fontsize=10)
        axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
        for color, axis, panel in zip(_cycle(len(panels)), axes, panels, strict=False):
            _draw(axis, panel, color)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        return figure

    def frame(self, game: Game, index: int = 0) -> np.ndarray:
        """The picture as an array (H, W, 3), uint8."""
        figure = self.figure(game, index)
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def svg(self, game: Game, index: int = 0) -> str:
        """The picture as an SVG document."""
        figure = self.figure(game, index)
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        target = io.StringIO()
        FigureCanvasSVG(figure).print_svg(target)
        return target.getvalue()

    def text(self, game: Game, index: int = 0) -> str:
        """The same panels as a text: last round's values, with the equilibrium in brackets."""
        panels, ideal = self.panels(game, index)
        name = self.market.id or type(self.market).__name__
        lines = [f"{name}, round {game.rounds} of {game.horizon}, in brackets: {ideal.label}"]
        for panel in panels:
            best = [""] * len(panel.labels) if panel.reference is None else [f" [{v:.6g}]" for v in panel.reference]
            last = ["-"] * len(panel.labels) if not len(panel.history) else [f"{v:.6g}" for v in panel.last]
            values = [f"{a}{b}" for a, b in zip(last, best, strict=True)]
            shown = values if len(values) <= 12 else [*values[:10], f"... {len(values) - 10} more"]
            lines.append(f"  {panel.title}: " + ", ".join(shown))
        return "\n".join(lines) + "\n"


def _panel(
    title: str,
    labels: Sequence[str],
    history: Sequence[np.ndarray],
    ideal: np.ndarray | None,
    limits: tuple[float, float] | None = None,
) -> Panel:
    trace = np.array(history, dtype=np.float64).reshape(len(history), len(labels))
    last = trace[-1] if len(trace) else np.full(len(labels), np.nan)
    best = None if ideal is None else np.asarray(ideal, dtype=np.float64).reshape(-1)
    return Panel(title, labels, last, trace, best, limits)


def _cycle(count: int) -> list[str]:
    return [_COLORS[i % len(_COLORS)] for i in range(count)]


def _draw(axis: Any, panel: Panel, color: str) -> None:
    """A trace for one number, bars for several."""
    axis.set_title(panel.title, fontsize=9)
    axis.tick_params(labelsize=7)
    if len(panel.labels) == 1:
        axis.plot(np.arange(1, len(panel.history) + 1), panel.history[:, 0], color=color, linewidth=1.2, marker=".")
        if panel.reference is not None:
            axis.axhline(panel.reference[0], color="black", linestyle="--", linewidth=1)
        axis.set_xlabel("round", fontsize=7)
    else:
        place = np.arange(len(panel.labels))
        axis.bar(place, np.nan_to_num(panel.last), color=color, width=0.7)
        if panel.reference is not None:
            axis.scatter(place, panel.reference, color="black", marker="_", s=80, zorder=3)
        if len(place) <= 20:
            axis.set_xticks(place, panel.labels)
        axis.set_xlabel("agent", fontsize=7)
    if panel.limits is not None and all(map(math.isfinite, panel.limits)) and panel.limits[0] < panel.limits[1]:
        low, high = panel.limits
        margin = 0.05 * (high - low)
        axis.set_ylim(low - margin, high + margin)
