"""Training in segments, so that a killed run goes on from its last finished segment with the same result.

A run is cut into segments. Every segment begins by loading what the one before it saved, with random streams seeded by
(seed, segment), whether or not the process was killed in between: an interrupted run and an uninterrupted one do the
same things. A segment's folder is written under another name and renamed when it is whole, so that a kill at any moment
leaves either the old state or the new one.

    with Segments(budget, every, folder, key, seed) as segments:
        for segment in segments:
            trainer = make(seed=segment.seed)
            if segment.restore is not None:
                trainer.load(segment.restore)
            trainer.learn(segment.first, segment.last)
            segment.commit(trainer.save)
        policies = load(segments.last)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter
from marketenvs.market import Market
from marketenvs.policy import decide

FORMAT = 1
ABOUT = "segment.json"


@dataclass
class Segment:
    """One part of a run.

    Attributes:
        index: Its number, from 0.
        first: Rounds played before it.
        last: Rounds played after it.
        seed: Seed of everything random in it.
        restore: Folder that the segment before it saved; None for the first.
    """

    index: int
    first: int
    last: int
    seed: int
    restore: Path | None
    _commit: Callable[[Segment, Callable[[Path], Any], bool], None] = field(repr=False)

    def commit(self, save: Callable[[Path], Any], stop: bool = False) -> None:
        """Save the state after this segment: ``save(folder)`` fills an empty folder. ``stop`` ends the run early."""
        self._commit(self, save, stop)


class Segments:
    """The segments of one run that are still to do.

    Args:
        rounds: Rounds of the whole run.
        every: Rounds of a segment (the last may be shorter).
        folder: Where states are kept; None for a temporary folder (the run then goes the same way, but cannot be
            resumed).
        key: What identifies the run (JSON-ready): states of another key are not used.
        seed: The run's seed.

    Attributes:
        last: Folder of the last finished segment, None before there is one.
        resumed: Rounds that were already done when the run began.

    Raises:
        InvalidParameter: ``rounds`` or ``every`` is not positive, or the folder cannot be written.
    """

    def __init__(
        self, rounds: int, every: int, folder: str | os.PathLike[str] | None, key: Mapping[str, Any], seed: int
    ):
        if rounds < 1 or every < 1:
            raise InvalidParameter(f"a run needs positive rounds and rounds per segment, got {rounds} and {every}")
        self.ends = [min(rounds, k) for k in range(every, rounds + every, every)]
        self.key = json.loads(json.dumps({**key, "rounds": rounds, "every": every, "seed": seed}))
        self.seed, self._given = seed, folder
        self.last: Path | None = None
        self.resumed = 0
        self._done, self._stopped = 0, False

    def __enter__(self) -> Segments:
        if self._given is None:
            self._own = tempfile.TemporaryDirectory(prefix="marketenvs-segments-")
            self.folder = Path(self._own.name)
            return self
        self.folder = Path(self._given)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidParameter(f"the checkpoint folder {self.folder} cannot be made: {error}") from None
        for leftover in self.folder.glob(".new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        found = self._find()
        if found is not None:
            about, self.last = found
            self._done, self._stopped = about["index"] + 1, about["stop"]
            self.resumed = about["last"]
        return self

    def __exit__(self, *error: Any) -> None:
        if self._given is None:
            self._own.cleanup()

    def _find(self) -> tuple[dict[str, Any], Path] | None:
        """The newest whole segment of this run."""
        for path in sorted(self.folder.glob("segment-*"), reverse=True):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                about = json.loads((path / ABOUT).read_text())
                if about["format"] == FORMAT and about["key"] == self.key:
                    return about, path
        return None

    def __iter__(self) -> Iterator[Segment]:
        while self._done < len(self.ends) and not self._stopped:
            index = self._done
            first = self.ends[index - 1] if index else 0
            yield Segment(index, first, self.ends[index], segment_seed(self.seed, index), self.last, self._keep)
            if self._done == index:
                raise InvalidParameter(f"segment {index} was not committed")

    def _keep(self, segment: Segment, save: Callable[[Path], Any], stop: bool) -> None:
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        save(fresh)
        about = {"format": FORMAT, "key": self.key, "index": segment.index, "last": segment.last, "stop": bool(stop)}
        (fresh / ABOUT).write_text(json.dumps(about))
        _flush(fresh)
        path = self.folder / f"segment-{segment.index:06d}"
        if path.exists():
            shutil.rmtree(path)  # of another key: a whole one of this key would have been used
        fresh.rename(path)
        _flush(self.folder, deep=False)
        for old in self.folder.glob("segment-*"):
            if old != path:
                shutil.rmtree(old, ignore_errors=True)
        self.last, self._done, self._stopped = path, segment.index + 1, bool(stop)


def segment_seed(seed: int, index: int) -> int:
    """Seed of a segment of a run: below 2**31, which every framework takes."""
    return int(np.random.SeedSequence([int(seed), 0x5E6, index]).generate_state(1)[0] >> 1)


def _flush(folder: Path, deep: bool = True) -> None:
    """Have the folder's content on the disk before it gets its name."""
    paths = [p for p in folder.rglob("*") if p.is_file()] if deep else []
    for path in (*paths, folder):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


class Settled:
    """Early stop: whether the policies have stopped moving, judged on training markets only.

    After every segment the policies play one round of the same 64 training draws with the same random numbers. When no
    stage's decisions moved by more than ``tolerance`` (mean, in parts of the natural range) for ``patience`` segments in
    a row, they have settled. No held-out market and no score is looked at.

    Args:
        market: The market.
        patience: Segments in a row; None never stops.
        tolerance: Part of the range.
    """

    FILE = "settled.npz"

    def __init__(self, market: Market, patience: int | None, tolerance: float = 0.01):
        if patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 1):
            raise InvalidParameter(f"patience must be a positive integer or None, got {patience!r}")
        self.market, self.patience, self.tolerance = market, patience, tolerance
        self.calm = 0
        self.before: dict[str, np.ndarray] = {}

    def __call__(self, policies: Mapping[str, Any]) -> bool:
        """Look at the policies after a segment; True when they have settled."""
        if self.patience is None:
            return False
        market = self.market
        state = market.reset(seed=0, batch=64)
        for k, (role, policy) in enumerate(policies.items()):
            policy.start(market, role, 64, k)
        now, moved = {}, 0.0
        for stage in market.stages:
            seen = market.backend.numpy(market.observe(state, stage.name))
            mask = market.action_mask(state, stage.name)
            decisions = decide(policies[stage.role], market, stage, seen, mask, state)
            low, high = (market.backend.numpy(b) for b in market.bounds(state, stage.name))
            state = market.commit(state, stage.name, market.backend.asarray(decisions))
            now[stage.name] = decisions / np.where(high > low, high - low, 1.0)
            if stage.name in self.before:
                moved = max(moved, float(np.mean(np.abs(now[stage.name] - self.before[stage.name]))))
        self.calm = self.calm + 1 if self.before and moved <= self.tolerance else 0
        self.before = now
        return self.calm >= self.patience

    def save(self, folder: Path) -> None:
        """Keep what the next segment compares with."""
        if self.patience is not None:
            np.savez(folder / self.FILE, calm=np.array(self.calm), **self.before)  # type: ignore[arg-type]

    def load(self, folder: Path) -> None:
        """The inverse of :meth:`save`."""
        if self.patience is not None and (folder / self.FILE).is_file():
            with np.load(folder / self.FILE) as kept:
                self.calm = int(kept["calm"])
                self.before = {k: kept[k] for k in kept.files if k != "calm"}
