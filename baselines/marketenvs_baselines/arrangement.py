"""How the runs of a hand-written algorithm are done: with checkpoints, or for one role only; algorithms need not know."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .checkpoints import Segments


@dataclass
class Arrangement:
    """How the runs of an algorithm are done, whatever the algorithm; see :func:`arranged`.

    Attributes:
        checkpoint: Folder from which killed runs go on, or None.
        key: What identifies the training (JSON-ready).
        only: The one role that learns, or None for all.
        opponents: Role -> policy of the roles that do not learn.
        plays: How often :func:`in_segments` (by :func:`~marketenvs_baselines.run.play` or the algorithm itself) was called so far.
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


def in_segments(
    rounds: int,
    every: int,
    about: Mapping[str, Any],
    advance: Callable[[int, int], bool | None],
    save: Callable[[Path], Any],
    load: Callable[[Path, int], Any],
) -> None:
    """Do rounds 0 to ``rounds`` of a training: in one go, or in segments that survive a kill where :func:`arranged` says so.

    Args:
        rounds: Rounds of the training.
        every: Rounds of a segment.
        about: What identifies the training besides the arrangement's key (JSON-ready).
        advance: ``advance(first, last)`` does rounds first to last - 1; True ends the training there.
        save: Writes the state into an empty folder.
        load: ``load(folder, played)`` is its inverse, in a training that has just been set up.
    """
    how = current() or Arrangement()
    how.plays, how.resumed = how.plays + 1, 0
    if how.checkpoint is None:
        advance(0, rounds)
        return
    key = {"training": how.key, **about, "call": how.plays}
    with Segments(rounds, every, how.checkpoint / f"play-{how.plays}", key, 0) as segments:
        if segments.last is not None:
            how.resumed = segments.resumed
            load(segments.last, segments.resumed)
        for segment in segments:
            stop = advance(segment.first, segment.last)
            segment.commit(save, stop is True)


def part_of(rounds: int, unit: int = 1) -> int:
    """Rounds of one of :data:`PARTS` segments, rounded up to whole units."""
    return unit * max(1, -(-rounds // (PARTS * unit)))
