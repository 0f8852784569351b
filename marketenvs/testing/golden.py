"""Golden trajectories: recorded play that any change of a market's behaviour breaks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..market import Market, State
from ..params import numeric_fields
from ..registry import make
from ..registry import spec as find_spec
from ..task import write_json
from . import probe

FORMAT, TOLERANCE = 1, 1e-9
ROUNDS, BATCH, SEED = 3, 2, 20_260


def golden_trajectory(market: Market) -> dict[str, Any]:
    """A short game with every number that players see or earn, as JSON-ready lists.

    Seeds, decisions (drawn from the package's own generator) and number of rounds are fixed: the same market gives the same game on
    every machine, up to the last digits of ``exp`` and ``log``.
    """
    state = market.reset(SEED, batch=BATCH)
    rounds = []
    for before, profile, after, outcome in probe.play(market, state, ROUNDS, seed=SEED):
        rounds.append(
            {
                "observations": _lists(probe.observations(market, before, profile)),
                "decisions": _lists(profile),
                "expected": _lists(market.payoff(before, profile)),
                "payoffs": _lists(outcome.payoffs),
                "metrics": _lists(outcome.metrics),
            }
        )
        state = after
    return {
        "format": FORMAT,
        "market": market.id,
        "seed": SEED,
        "theta": _parameters(market, state),
        "rounds": rounds,
    }


def _parameters(market: Market, state: State) -> dict[str, Any]:
    """The declared parameters; what is derived from them is the market's own business."""
    return {f.name: to_numpy(getattr(state.theta, f.name)).tolist() for f in numeric_fields(market.Params)}


def _lists(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: to_numpy(value).tolist() for name, value in tree.items()}


def write_golden(id: str, folder: str | Path = "tests/golden") -> Path:
    """Record the golden trajectory of a registered market's default preset in ``folder/<id>.json``."""
    market = make(id)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{find_spec(id).id}.json"
    write_json(path, golden_trajectory(market), indent=None)
    return path


def check_golden(market: Market, path: str | Path) -> None:
    """Compare a market with its recorded game at relative tolerance 1e-9.

    Raises:
        AssertionError: The record is missing, or the market plays otherwise; the message names the first number and the version rule.
    """
    path = Path(path)
    how = f"python -m marketenvs.testing --golden {market.id} --folder {path.parent}"
    if not path.is_file():
        raise AssertionError(f"{market.id} has no golden trajectory {path}; record it with: {how}")
    recorded = json.loads(path.read_text())
    difference = _difference(recorded, json.loads(json.dumps(golden_trajectory(market))), "")
    if difference:
        name, _, version = market.id.rpartition("-v")
        raise AssertionError(
            f"{market.id} no longer plays as recorded: {difference}. Results under this id would not be comparable any more. If the change "
            f"is meant, raise the version to {name}-v{int(version) + 1}, say so in the market's version history, and record anew: {how}"
        )


def _difference(old: Any, new: Any, where: str) -> str:
    """The first place at which two JSON trees differ, in words; empty if none."""
    if isinstance(old, dict) and isinstance(new, dict):
        if old.keys() != new.keys():
            return f"{where or 'the record'} has entries {sorted(old.keys() ^ new.keys())} on one side only"
        found = (_difference(old[key], new[key], f"{where}.{key}".lstrip(".")) for key in old)
        return next((f for f in found if f), "")
    if isinstance(old, list) and where.endswith("rounds"):
        found = (_difference(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(old, new, strict=True)))
        return next((f for f in found if f), "")
    if not isinstance(old, list):
        return "" if old == new else f"{where} was {old!r}, is {new!r}"
    a, b = np.asarray(old, dtype=float), np.asarray(new, dtype=float)
    if a.shape != b.shape:
        return f"{where} had shape {a.shape}, has {b.shape}"
    off = ~np.isclose(
        b, a, rtol=TOLERANCE, atol=TOLERANCE * 1e-3 * max(1.0, float(np.abs(a).max(initial=0.0))), equal_nan=True
    )
    if not off.any():
        return ""
    at = tuple(int(i) for i in np.argwhere(off)[0])
    return f"{where}{list(at)} was {a[at]!r}, is {b[at]!r}"
