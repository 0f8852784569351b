"""Which markets an environment plays, reset after reset."""

from __future__ import annotations

import difflib
import operator
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidParameter, UnknownName
from ..market import Market, State
from ..params import TEST_STREAM, TRAIN_STREAM

_OPTIONS = ("split", "instance_ids")


class Episodes:
    """Which markets an environment plays next: a seed per market, and a counter under each seed.

    A reset with a seed starts a new sequence at number 0; a reset without one takes the next number of the
    sequence. Number k under seed s is market k of ``market.reset(seed=s, batch=..., split=...)``, so an environment
    can be put on any held-out market of a task with ``options={"instance_ids": [k], "split": "test"}``.
    """

    def __init__(self, batch: int):
        self.batch = batch
        self.split = "train"
        self.seeds: np.ndarray | None = None
        self.numbers = np.zeros(batch, dtype=np.int64)
        self._stride = 1

    def turn(self, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None) -> None:
        """Go to the next episodes.

        Args:
            seed: None for the next numbers; an integer s for seeds s, s + 1, ... (one per market); or one seed per
                market.
            options: ``split`` ("train" or "test") and ``instance_ids`` (one number per market, all under the first
                seed; 0 if there is none yet). Other keys are ignored, as Gymnasium and PettingZoo expect, unless
                they look like a misspelling.

        Raises:
            UnknownName: A misspelt option.
            InvalidParameter: A seed, split or instance id that is out of range or of a wrong length.
        """
        options = {} if options is None else options
        if not isinstance(options, Mapping):
            raise InvalidParameter(f"options must be a dictionary, got {options!r}")
        for key in options:
            close = difflib.get_close_matches(str(key), _OPTIONS, n=1, cutoff=0.7)
            if key not in _OPTIONS and close:
                raise UnknownName(f"unknown option {key!r}; did you mean {close[0]!r}?")
        seeds, split, ids = self.seeds, self.split, options.get("instance_ids")
        if seed is not None:
            seeds, split = self._spread(seed), "train"
        split = options.get("split", split)
        if split not in ("train", "test"):
            raise InvalidParameter(f"options['split'] must be 'train' or 'test', got {split!r}")
        if ids is not None:
            numbers = np.asarray(ids)
            if (
                numbers.shape != (self.batch,)
                or numbers.dtype.kind not in "iu"
                or numbers.min() < 0
                or numbers.max() >= 1 << 32
            ):
                raise InvalidParameter(
                    f"options['instance_ids'] must be {self.batch} integers in [0, 2**32), got {ids!r}"
                )
            seeds = np.full(self.batch, 0 if seeds is None else seeds[0], dtype=np.uint64)
            numbers, stride = numbers.astype(np.int64), self.batch
        elif seed is not None or seeds is None:
            seeds = self._spread(secrets.randbits(32)) if seeds is None else seeds
            numbers, stride = np.zeros(self.batch, dtype=np.int64), 1
        else:
            numbers, stride = self.numbers + self._stride, self._stride
        self.seeds, self.numbers, self.split, self._stride = seeds, numbers, split, stride

    def _spread(self, seed: Any) -> np.ndarray:
        whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
        try:
            values = [int(seed) + i for i in range(self.batch)] if whole else [operator.index(s) for s in seed]
        except TypeError:
            raise InvalidParameter(f"seed must be an integer, or {self.batch} of them, got {seed!r}") from None
        if len(values) != self.batch or min(values) < 0 or max(values) >= 1 << 64:
            raise InvalidParameter(f"need {self.batch} seed(s) in [0, 2**64), got {seed!r}")
        return np.array(values, dtype=np.uint64)

    def state(self, market: Market) -> State:
        """The begun markets of the current episodes."""
        assert self.seeds is not None
        stream = TRAIN_STREAM if self.split == "train" else TEST_STREAM
        return market.reset_keys(market.backend.keys(self.seeds, self.numbers, stream))

    def entropy(self, tag: int) -> int:
        """A seed for whatever plays along in this episode (an opponent's own randomness)."""
        assert self.seeds is not None
        words = [int(self.seeds[0]), int(self.numbers[0]), int(self.split == "test"), tag]
        return int(np.random.SeedSequence(words).generate_state(1)[0])
