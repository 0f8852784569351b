"""Policies, learners and trainers for the markets of ``marketenvs``: one algorithm, one readable file.

>>> from marketenvs_baselines import ALGORITHMS, resolve
>>> "random" in ALGORITHMS
True
"""

from __future__ import annotations

from .registry import ALGORITHMS, Algorithm, resolve, resolve_policy
from .run import Record, Report, Streams, play

__all__ = ["ALGORITHMS", "Algorithm", "Record", "Report", "Streams", "play", "resolve", "resolve_policy"]
