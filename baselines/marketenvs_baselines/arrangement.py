"""How the runs of a hand-written algorithm are done: with checkpoints, or for one role only; algorithms need not know."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Arrangement:
    """How the runs of an algorithm are done, whatever the algorithm; see :func:`arranged`.

    Attributes:
        checkpoint: Folder from which killed runs go on, or None.
        key: What identifies the training (JSON-ready).
        only: The one role that learns, or None for all.
        opponents: Role -> policy of the roles that do not learn.
        plays: How often :func:`~marketenvs_baselines.run.play` was called so far.
        resumed: Rounds that were already done when the last of these calls began.
    """

    checkpoint: Path | None = None
    key: Mapping[str, Any] = field(default_factory=dict)
    only: str | None = None
    opponents: Mapping[str, Any] = field(default_factory=dict)
    plays: int = 0
    resumed: int = 0


_ARRANGED: ContextVar[Arrangement | None] = ContextVar("arranged", default=None)
PARTS = 20
"""Segments of a run that keeps checkpoints, at most."""


@contextlib.contextmanager
def arranged(
    checkpoint: str | os.PathLike[str] | None = None,
    key: Mapping[str, Any] | None = None,
    only: str | None = None,
    opponents: Mapping[str, Any] | None = None,
) -> Iterator[Arrangement]:
    """Let every :func:`~marketenvs_baselines.run.play` inside keep checkpoints, or train one role only; algorithms need not know.

    With ``checkpoint``, the learners' state is kept at ends of episodes (about every twentieth of the run). Killed at
    any moment, the same call goes on from the last one and ends like a run that was never killed. A learner whose state
    cannot be kept is trained without, with a warning.

    With ``only``, the other roles are played by ``opponents`` (one policy per role) in place of their learners.
    """
    arrangement = Arrangement(None if checkpoint is None else Path(checkpoint), key or {}, only, opponents or {})
    token = _ARRANGED.set(arrangement)
    try:
        yield arrangement
    finally:
        _ARRANGED.reset(token)


def current() -> Arrangement | None:
    """The arrangement that :func:`arranged` has made, None outside."""
    return _ARRANGED.get()
