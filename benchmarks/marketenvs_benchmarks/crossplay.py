"""``marketenvs crossplay``: policies trained with different seeds against each other.

Learners that only fit the partner they were trained with score high alone and low here. In markets with several roles cell (i, j) is the
first role's policy of run i with the other roles' policies of run j; in markets with one role every second agent plays run i's policy and
the others play run j's. The diagonal is self-play: the stored scores.

Scores judge a leader against followers in equilibrium and followers as maps over frozen earlier decisions, so between a single leader and
its followers they do not depend on who meets whom. What does is on the path of play: the matrices of NashConv and welfare beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.errors import MarketEnvsError
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy, decide
from marketenvs.scoring import evaluate
from marketenvs.strategy import Pure, Samples, Strategy
from marketenvs.task import Task, write_json

from . import runs


class Halves(Policy):
    """Even agents of a role play one policy, odd agents another."""

    def __init__(self, even: Any, odd: Any):
        self.parts = (even, odd)
        self.stochastic = any(getattr(p, "stochastic", False) for p in self.parts)

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        for part in self.parts:
            part.start(market, role, batch, seed)

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        even, odd = (decide(p, self.market, stage, obs, mask, state) for p in self.parts)
        return np.where(_even(obs.shape[1])[:, None], even, odd)

    def strategy(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State, draws: int) -> Strategy:
        even, odd = (p.strategy(stage, obs, mask, state, draws) for p in self.parts)
        return joined(even, odd, (*obs.shape[:2], stage.codec.width), draws, self.seed)

    def observe_round(self, public: dict[str, np.ndarray]) -> None:
        for part in self.parts:
            if hasattr(part, "observe_round"):
                part.observe_round(public)


def _even(n: int) -> np.ndarray:
    return np.arange(n) % 2 == 0


def joined(even: Strategy, odd: Strategy, shape: tuple[int, ...], draws: int, seed: int) -> Strategy:
    """The strategy in which even agents mix as in one and odd agents as in the other: exact where both are finite mixtures."""
    own = _even(shape[1])
    if isinstance(even, Pure) and isinstance(odd, Pure):
        return Pure(
            np.where(own[:, None], np.broadcast_to(even.decisions, shape), np.broadcast_to(odd.decisions, shape))
        )
    finite = [_finite(s) for s in (even, odd)]
    if finite[0] is not None and finite[1] is not None:
        values = np.concatenate([np.broadcast_to(v, (len(v), *shape)) for v, _ in finite])  # type: ignore[misc]
        parts = [np.broadcast_to(w, (len(w), *shape[:2])) for _, w in finite]  # type: ignore[misc]
        weights = np.concatenate([np.where(mine, w, 0.0) for mine, w in zip((own, ~own), parts, strict=True)])
        return Samples(values, weights)
    rng = np.random.default_rng(seed)
    rows = [
        np.where(own[:, None], even.draw(rng.uniform(size=shape[:2])), odd.draw(rng.uniform(size=shape[:2])))
        for _ in range(draws)
    ]
    return Samples(np.stack(rows), joint=True)


def _finite(strategy: Strategy) -> tuple[np.ndarray, np.ndarray] | None:
    """Values (S, B, n, k) and weights of a finite mixture without dependence between agents."""
    if isinstance(strategy, Pure):
        return strategy.decisions[None], np.ones((1, 1, 1))
    if isinstance(strategy, Samples) and not strategy.joint:
        assert strategy.weights is not None
        return strategy.values, strategy.weights
    return None


MEASURES = ("score", "nash_conv", "welfare")


def matrices(
    task: Task, several: Sequence[Mapping[str, Any]], seeds: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Measure -> (S, S): cell (i, j) mixes run i and run j as the module's docstring says. NashConv is its lower bound.

    Args:
        task: The task they were trained on.
        several: One ``{role: policy}`` per run.
        seeds: Seed that each run was scored with; default 0, 1, ...
    """
    roles = list(task.make_market().roles)
    seeds = list(range(len(several))) if seeds is None else list(seeds)
    out = {name: np.empty((len(several), len(several))) for name in MEASURES}
    for i, first in enumerate(several):
        for j, second in enumerate(several):
            if i == j:
                profile = dict(first)
            elif len(roles) > 1:
                profile = {role: (first if role == roles[0] else second)[role] for role in roles}
            else:
                profile = {role: Halves(first[role], second[role]) for role in roles}
            found = evaluate(task, profile, seed=seeds[i])
            values = (found.score, found.nash_conv[0], found.metrics["welfare"])
            for name, value in zip(MEASURES, values, strict=True):
                out[name][i, j] = value
    return out


def run(
    console: Any, folder: Path, tasks: Sequence[str] | None, algorithms: Sequence[str] | None, most: int
) -> dict[str, Any]:
    """Matrices of every cell of a results folder whose policies were kept, printed and written to ``crossplay.json`` beside them.

    Args:
        console: Where to print.
        folder: Results folder of ``marketenvs benchmark --keep-policies``, or one suite's part of it.
        tasks: Only these.
        algorithms: Only these.
        most: Runs per cell (the matrix needs its square in evaluations).

    Raises:
        MarketEnvsError: No kept policies there.
    """
    from marketenvs_baselines.store import load_policy
    from rich.table import Table

    from marketenvs.task import load_task

    found: dict[str, Any] = {}
    for cell in sorted({p.parent.parent for p in folder.rglob("seed-*.policy/policy.json")}):
        task_name = cell.parent.name
        if (tasks and task_name not in tasks) or (algorithms and cell.name not in map(runs.safe_name, algorithms)):
            continue
        task = load_task(task_name)
        market = task.make_market()
        seeds = sorted(int(p.parent.name[5:-7]) for p in cell.glob("seed-*.policy/policy.json"))[:most]
        stored = {s: runs.read_result(cell / f"seed-{s}.json") for s in seeds}
        seeds = [s for s in seeds if (r := stored[s]) is not None and r["run"]["task_hash"] == task.hash]
        if len(seeds) < 2:
            continue
        several = matrices(task, [load_policy(cell / f"seed-{s}.policy", market) for s in seeds], seeds)
        apart = ~np.eye(len(seeds), dtype=bool)
        means = {
            name: {"self": float(np.diag(m).mean()), "cross": float(m[apart].mean())} for name, m in several.items()
        }
        found[f"{task_name}/{cell.name}"] = {
            "seeds": seeds,
            "means": means,
            **{name: m.tolist() for name, m in several.items()},
        }
        roles = list(market.roles)
        console.print(f"[bold]{task_name} / {cell.name}[/]", highlight=False)
        console.print(
            f"rows: {roles[0]} of that run, columns: the other roles of that run"
            if len(roles) > 1
            else "rows: every second agent of that run, columns: the others",
            highlight=False,
        )
        for name, values in several.items():
            title = (
                f"{name.replace('_', ' ')}: self-play {means[name]['self']:.4g}, cross-play {means[name]['cross']:.4g}"
            )
            console.print(title, highlight=False)
            table = Table()
            table.add_column("seed", justify="right")
            for seed in seeds:
                table.add_column(str(seed), justify="right")
            for seed, line in zip(seeds, values, strict=True):
                table.add_row(str(seed), *(f"{x:.4g}" for x in line))
            console.print(table)
    if not found:
        raise MarketEnvsError(
            f"{folder} holds no cell with the stored policies of two runs on today's tasks: "
            "make them with marketenvs benchmark ... --keep-policies"
        )
    write_json(folder / "crossplay.json", found)
    return found
