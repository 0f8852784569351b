"""What the parts of the federated slicing reproduction share: constants, intervals, and results kept from a run that was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.task import write_json

ID = "FederatedSlicing-v0"
SEEDS = 10
ROUNDS = 2000
"""Slots of training."""
EVERY = 2
"""Slots between updates."""
USERS = (20, 60, 80, 100, 140, 200)


def pm(values: Any, digits: int = 3) -> str:
    """Mean and half width of its 95 % confidence interval (Student's t over seeds)."""
    v = np.asarray(values, float)
    return f"{v.mean():.{digits}f} ± {_half(v):.{digits}f}"


def significant(a: Any, b: Any) -> bool:
    """Whether a is below b: the 95 % interval of the paired differences lies above 0."""
    d = _paired(a, b)
    return bool(d.mean() > _half(d))


def difference(a: Any, b: Any) -> str:
    """Paired difference b - a with its interval."""
    return pm(_paired(a, b))


def _paired(a: Any, b: Any) -> np.ndarray:
    """Differences b - a over the seeds that both have (lists are in order of the seeds)."""
    count = min(len(a), len(b))
    return np.asarray(b[:count], float) - np.asarray(a[:count], float)


def _half(v: np.ndarray) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / np.sqrt(len(v))) if len(v) > 1 else 0.0


def remembered(folder: Path, name: str, settings: Any, run: Callable[[], Any]) -> Any:
    """The JSON-ready result of ``run``, or the one that an earlier run with the same settings left in ``folder/parts``."""
    known = json.loads(json.dumps(settings))
    mark = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:8]
    path = folder / "parts" / f"{name.replace(' ', '_')}_{mark}.json"
    if path.is_file():
        try:
            content = json.loads(path.read_text())
        except json.JSONDecodeError:
            content = {}
        if content.get("settings") == known and "result" in content:
            return content["result"]
    result = run()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"settings": known, "result": result})
    return json.loads(json.dumps(result))
