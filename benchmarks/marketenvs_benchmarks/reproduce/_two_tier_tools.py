"""Shared by the parts of the two-tier reproduction: learners, statistics, and runs that survive a kill."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from marketenvs_baselines import bandit, dqn
from marketenvs_baselines.bandit import BanditLearner
from marketenvs_baselines.dqn import Constants, DQNLearner
from marketenvs_baselines.run import Record

from marketenvs.markets.two_tier_bidding import literal, oracle, radio, settlement, values
from marketenvs.task import write_json

from ..statistics import interval
from ._report import Finding

EXPERIMENTS = 1
"""Raised when an experiment changes, so that kept results are made anew."""
ID = "TwoTierBidding-v0"
USERS_1 = ((8, 11, 7),)  # operator 1, the paper's example
VARIANTS: dict[str, Constants | None] = {
    "QL": Constants(tabular=True),
    "DQN": Constants(),
    "Double": Constants(double=True),
    "Dueling": Constants(dueling=True),
    "Double-Dueling": Constants(double=True, dueling=True),
    "bandit": None,
}
SETTINGS = {
    "paper": {"discount": 0.95, "learning_rate": 0.01},
    "corrected": {"discount": 0.0, "learning_rate": 0.001},
}


def kept(folder: Path, name: str, size: list[int], part: Callable[[], Any], console: Any) -> Any:
    """What an earlier run of the same size and code left of a part, or the part run now (anything that JSON holds)."""
    path, key = folder / "parts" / f"{name}.json", {"size": size, "code": code_of_experiments()}
    if path.is_file():
        content = json.loads(path.read_text())
        if content["key"] == key:
            console.print(f"{name}: finished before")
            return content["result"]
    begun = time.perf_counter()
    result = part()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": key, "result": result})
    console.print(f"{name}: {time.perf_counter() - begun:.0f} s")
    return result


def findings_of(
    folder: Path, name: str, size: list[int], part: Callable[[], list[Finding]], console: Any
) -> list[Finding]:
    """A part that gives findings."""
    return [Finding(**f) for f in kept(folder, name, size, lambda: [asdict(f) for f in part()], console)]


def code_of_experiments() -> str:
    """Hash of what the experiments run: learners, and the market's settlement and radio."""
    files = [Path(str(m.__file__)) for m in (bandit, dqn, literal, oracle, radio, settlement, values)]
    content = b"".join(f.read_bytes() for f in files)
    return f"{EXPERIMENTS}-{hashlib.sha256(content).hexdigest()[:16]}"


# -- statistics -------------------------------------------------------------------------------------------------------


def shown(values: np.ndarray) -> str:
    """IQM with its interval."""
    found = interval(list(values))
    return f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}]"


def above(higher: np.ndarray, lower: np.ndarray) -> bool | None:
    """Whether one sample's IQM is above another's; None where their 95 % intervals overlap."""
    a, b = interval(list(higher)), interval(list(lower))
    if a.low > b.high:
        return True
    return False if b.low > a.high else None


def in_order(samples: Sequence[np.ndarray]) -> bool | None:
    """Whether samples are in falling order: False if any two are clearly reversed, None if any two overlap."""
    answers = [above(a, b) for i, a in enumerate(samples) for b in samples[i + 1 :]]
    return False if False in answers else None if None in answers else True


def first(samples: Mapping[str, np.ndarray], name: str) -> bool | None:
    """Whether one sample is above all others: False if any is clearly above it, None if any overlaps it."""
    answers = [above(samples[name], other) for key, other in samples.items() if key != name]
    return False if False in answers else None if None in answers else True


def learner(name: str, rounds: int, setting: Mapping[str, Any], scale: float, explore_rounds: int) -> Any:
    """A learner of the comparison."""
    constants = VARIANTS[name]
    if constants is None:
        return BanditLearner(rounds, scale=scale)
    share = min(1.0, explore_rounds / rounds)
    return DQNLearner(replace(constants, explore_share=share, **setting), rounds, scale)


def tail(trace: np.ndarray) -> np.ndarray:
    """Mean over the last sixth of the rounds, one number per run."""
    last = trace[-max(1, len(trace) // 6) :]
    return last.reshape(len(last), last.shape[1], -1).mean((0, 2))


def smooth(trace: np.ndarray, window: int = 50) -> np.ndarray:
    """Running mean over rounds of the mean over runs and agents."""
    curve = trace.reshape(len(trace), -1).mean(1)
    return np.convolve(curve, np.ones(window) / window, mode="valid") if len(curve) > window else curve


def summary(record: Record, keys: Sequence[str]) -> dict[str, Any]:
    """Tails by run, and curves at every 20th round."""
    curves = {k: smooth(record.traces[k])[::20].tolist() for k in keys}
    return {"tails": {k: tail(record.traces[k]).tolist() for k in keys}, "curves": curves}


def tails(run: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A run's tails, and whatever else it kept, as arrays."""
    found = {k: np.array(v) for k, v in run["tails"].items()}
    return found | {k: np.array(v) for k, v in run.items() if k not in ("tails", "curves")}


def draw_curves(axes: Any, keys: Sequence[str], runs: Mapping[str, Mapping[str, Any]]) -> None:
    """One panel for each key, one line for each algorithm."""
    for axis, key in zip(axes, keys, strict=False):
        for algorithm, run in runs.items():
            curve = run["curves"][key]
            axis.plot(20 * np.arange(len(curve)), curve, label=algorithm, linewidth=0.9)
        axis.set(title=key, xlabel="round")
