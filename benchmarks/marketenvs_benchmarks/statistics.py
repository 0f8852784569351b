"""Interquartile means and stratified-bootstrap intervals (Agarwal et al., "Deep RL at the edge of the statistical precipice", 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats as _stats  # type: ignore[import-untyped]

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A point estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 3) -> str:
        """As text: 0.913 [0.882, 0.934], or a single number where all runs agree."""
        if self.high - self.low < 0.5 * 10.0**-digits:
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def iqm(values: Any) -> float:
    """Mean of the middle half."""
    return float(_stats.trim_mean(np.asarray(values, dtype=float), 0.25))


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """IQM over runs with a percentile-bootstrap 95 % interval."""
    return stratified([values], seed)


def stratified(groups: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """IQM over all runs of all tasks; the bootstrap resamples runs within each task.

    Args:
        groups: One sequence of run scores per task.
        seed: Of the resampling, so that a table can be made again.
    """
    arrays = [np.asarray(g, dtype=float) for g in groups]
    rng = np.random.default_rng(seed)
    draws = np.concatenate([a[rng.integers(0, len(a), (RESAMPLES, len(a)))] for a in arrays], axis=1)
    resampled = _stats.trim_mean(draws, 0.25, axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(iqm(np.concatenate(arrays)), float(low), float(high))


def rounds_to(curves: Sequence[Sequence[Sequence[float]]], level: float) -> str:
    """Median over runs of the first scored round at which a run reaches ``level``, censored at the budget.

    Args:
        curves: One curve per run: points (rounds, seconds, score), the last one the final policy.
        level: The score to reach.

    Returns:
        The median ("12,000"); "> budget" where at least half of the runs never get there; "-" where nothing was scored on the way. A run
        that falls below the level later still counts from when it first got there.
    """
    if not _have_curve(curves):
        return "-"
    first = [next((p[0] for p in c if p[2] >= level), np.inf) for c in curves]
    middle = float(np.median(first))
    return f"{middle:,.0f}" if np.isfinite(middle) else f"> {max(c[-1][0] for c in curves):,}"


def curve_area(curves: Sequence[Sequence[Sequence[float]]]) -> Interval | None:
    """Area under the score over log rounds, divided by the width: the mean score, every factor of ten in rounds counting alike.

    Scores are clipped to [-1, 1] (a curve's first points can be far below 0). None where nothing was scored on the way.
    """
    if not _have_curve(curves):
        return None
    areas = []
    for curve in curves:
        points = np.asarray([(p[0], p[2]) for p in curve], dtype=float)
        x, y = np.log(points[:, 0]), np.clip(points[:, 1], -1, 1)
        areas.append(float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)) / (x[-1] - x[0])))
    return interval(areas)


def _have_curve(curves: Sequence[Sequence[Sequence[float]]]) -> bool:
    return all(len(c) >= 3 and c[0][0] > 0 and c[-1][0] > c[0][0] for c in curves)
