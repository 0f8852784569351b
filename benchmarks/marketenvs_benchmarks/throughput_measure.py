"""Timing contenders in turn: warm-up apart, interleaved, wall and CPU time, median and quartiles.

All contenders of a group take a turn in every repeat, so that a machine that is busy for a while slows all of them alike and their
ratios stay. CPU time of the process (all its threads) is kept beside wall time: on a shared machine it is the steadier number.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

Run = Callable[[int], Any]
"""Makes that many calls, and returns only when their results are there."""


@dataclass(frozen=True)
class Contender:
    """Something to time.

    Args:
        name: Unique within its group.
        system: "marketenvs", "limit" (hand-fused code, random numbers alone) or the name of a peer.
        subject: The market's id or the peer's scenario.
        shell: "core", "parallel env", "AEC env", "vector env", "SB3 VecEnv", ...
        library: Array library and type, or "".
        batch: Environments side by side.
        env_steps: Rounds (all environments) that one call plays.
        agents: Decisions that are made in one round of one environment.
        build: Makes everything and returns the timed function.
        users: Users of the radio network in one environment (0: none).
        setting: The market's parameters beside the preset's, or "".
    """

    name: str
    system: str
    subject: str
    shell: str
    library: str
    batch: int
    env_steps: int
    agents: int
    build: Callable[[], Run]
    users: int = 0
    setting: str = ""


@dataclass
class Timing:
    """What was measured of one contender; rates are per second, "wall" and "cpu"."""

    name: str
    group: str
    system: str
    subject: str
    shell: str
    library: str
    batch: int
    env_steps: int
    agents: int
    users: int
    setting: str
    build_s: float
    """Wall seconds of building and of the first call: imports, tracing, compilation, warm-up."""
    calls: list[int] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def rate(self, clock: str = "cpu") -> tuple[float, float, float]:
        """Env-steps per second: median, lower and upper quartile over the repeats."""
        seconds = np.maximum(self.cpu_s if clock == "cpu" else self.wall_s, 1e-9)
        rates = np.asarray(self.calls) * self.env_steps / seconds
        low, median, high = np.quantile(rates, (0.25, 0.5, 0.75))
        return float(median), float(low), float(high)

    def record(self) -> dict[str, Any]:
        """Raw turns and their summary, ready for JSON."""
        summary: dict[str, Any] = {}
        for clock in ("wall", "cpu"):
            median, low, high = self.rate(clock)
            summary[f"env_steps_per_{clock}_s"] = {"median": median, "q1": low, "q3": high}
            summary[f"agent_steps_per_{clock}_s"] = median * self.agents
            if self.users:
                summary[f"ue_steps_per_{clock}_s"] = median * self.users
        return {**asdict(self), **summary}


def measure(
    group: str,
    contenders: Sequence[Contender],
    seconds: float,
    repeats: int,
    report: Callable[[str], None] = lambda text: None,
) -> tuple[list[Timing], dict[str, str]]:
    """Time all contenders of a group, interleaved.

    Args:
        group: Name of the group.
        contenders: Who takes part.
        seconds: Length of one turn (at least one call).
        repeats: Turns of each.
        report: Told what is going on.

    Returns:
        Timings, and for those that could not take part: name -> why.
    """
    ready: list[tuple[Timing, Run, int]] = []
    failures: dict[str, str] = {}
    for c in contenders:
        report(f"{group}: preparing {c.name}")
        begun = time.perf_counter()
        try:
            run = c.build()
            run(1)
            timing = Timing(
                c.name,
                group,
                c.system,
                c.subject,
                c.shell,
                c.library,
                c.batch,
                c.env_steps,
                c.agents,
                c.users,
                c.setting,
                time.perf_counter() - begun,
            )
            ready.append((timing, run, _calls(run, seconds)))
        except Exception as error:  # a library or market that fails is named; the others go on
            failures[c.name] = f"{type(error).__name__}: {str(error).strip()[:300]}"
            report(f"{group}: {c.name} cannot take part ({failures[c.name]})")
    gc.collect()
    gc.freeze()
    try:
        for repeat in range(repeats):
            report(f"{group}: repeat {repeat + 1} of {repeats}, {len(ready)} contenders")
            for timing, run, calls in ready:
                wall, cpu = time.perf_counter(), time.process_time()
                run(calls)
                timing.cpu_s.append(time.process_time() - cpu)
                timing.wall_s.append(time.perf_counter() - wall)
                timing.calls.append(calls)
    finally:
        gc.unfreeze()
    return [timing for timing, _, _ in ready], failures


def _calls(run: Run, seconds: float) -> int:
    """How many calls fill one turn: doubled until it is measurable."""
    calls = 1
    while True:
        begun = time.process_time()
        run(calls)
        spent = time.process_time() - begun
        if spent >= 0.2 * seconds or calls >= 1 << 20:
            return max(1, round(calls * seconds / max(spent, 1e-9)))
        calls *= 2 if spent > 0.05 * seconds else 8
