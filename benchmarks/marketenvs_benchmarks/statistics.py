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
