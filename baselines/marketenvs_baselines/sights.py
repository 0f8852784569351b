"""What an agent of a tabular learner reads and does: sights turn observations into situation numbers, grids number actions.

A market without an entry in :data:`SIGHTS` is played as a bandit (one situation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter, NotOffered, nearest
from marketenvs.market import Market, Stage

LEVELS = 11  # grid points per number of a continuous decision, where the market's entry below says nothing else
MAX_ACTIONS = 4096


# -- actions ----------------------------------------------------------------------------------------------------------


class ActionGrid:
    """The actions of a stage, numbered 0 .. size - 1.

    Args:
        stage: The stage.
        levels: Grid points per number of a continuous decision.

    Raises:
        NotOffered: More than ``MAX_ACTIONS`` actions.
    """

    def __init__(self, stage: Stage, levels: int = LEVELS):
        self.codec = stage.codec
        space: Any = stage.codec.action_space
        if not self.codec.discrete:
            shape = (levels,) * self.codec.width
        elif hasattr(space, "nvec"):
            shape = tuple(int(m) for m in space.nvec)
        else:
            shape = (int(space.n),)
        self.size = int(np.prod([float(m) for m in shape]))
        if self.size > MAX_ACTIONS:
            raise NotOffered(f"stage {stage.name!r} has {self.size} actions; tables end at {MAX_ACTIONS}")
        cells = np.stack(np.unravel_index(np.arange(self.size), shape), axis=1)
        if not self.codec.discrete:
            self.table: np.ndarray = 2.0 * cells / max(levels - 1, 1) - 1.0
        else:
            self.table = cells if hasattr(space, "nvec") else cells[:, 0]

    def decode(self, index: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Decisions (B, n, k) of action numbers (B, n)."""
        return self.codec.decode(np, self.table[index], low, high)

    def values(self, low: np.ndarray, high: np.ndarray, batch: int, agents: int) -> np.ndarray:
        """Decisions (size, B, n, k) of every action."""
        index = np.broadcast_to(np.arange(self.size)[:, None, None], (self.size, batch, agents))
        return self.codec.decode(np, self.table[index], low[None], high[None])


# -- what is read from an observation ---------------------------------------------------------------------------------


class Sight:
    """Reads situation numbers (B, n) from observations (B, n, d). The base class reads nothing: one situation."""

    size = 1

    def read(self, obs: np.ndarray) -> np.ndarray:
        """Situation of every agent."""
        return np.zeros(obs.shape[:2], dtype=np.int64)

    def export(self) -> dict[str, Any]:
        """JSON description, for :func:`make_sight`."""
        return {"kind": "none"}


class LevelSight(Sight):
    """The nearest of ``levels`` equally spaced levels of one entry, scaled to [0, 1]."""

    def __init__(self, levels: int, entry: int = 0):
        self.size, self.entry = levels, entry

    def read(self, obs: np.ndarray) -> np.ndarray:
        scaled = np.clip(obs[..., self.entry], 0.0, 1.0)
        return np.rint(scaled * (self.size - 1)).astype(np.int64)

    def export(self) -> dict[str, Any]:
        return {"kind": "level", "levels": self.size, "entry": self.entry}


class MeanBinSight(Sight):
    """The mean of the first ``entries`` entries, each scaled to [0, 1], in ``bins`` equal bins."""

    def __init__(self, bins: int, entries: int):
        self.size, self.entries = bins, entries

    def read(self, obs: np.ndarray) -> np.ndarray:
        mean = obs[..., : self.entries].mean(axis=-1)
        return np.clip((mean * self.size).astype(np.int64), 0, self.size - 1)

    def export(self) -> dict[str, Any]:
        return {"kind": "mean_bin", "bins": self.size, "entries": self.entries}


class ExactSight(Sight):
    """Every distinct vector of the first ``entries`` entries is a situation of its own: the paper's literal state.

    The vectors met so far are kept in a dictionary for each run (row b of the batch), so the table grows as it learns.
    A frozen policy
    reads with one run's dictionary and sends vectors never met to the last row, which is uniform.
    """

    def __init__(self, entries: int, levels: int, known: np.ndarray | None = None):
        self.entries, self.levels = entries, levels
        self.maps: list[dict[bytes, int]] = []
        self.frozen = known is not None
        if known is not None:
            self.maps = [{row.tobytes(): i for i, row in enumerate(np.asarray(known, dtype=np.int16))}]
            self.size = len(known) + 1

    def read(self, obs: np.ndarray) -> np.ndarray:
        keys = np.rint(np.clip(obs[..., : self.entries], 0, 1) * (self.levels - 1)).astype(np.int16)
        out = np.empty(obs.shape[:2], dtype=np.int64)
        if self.frozen:
            table = self.maps[0]
            for b, n in np.ndindex(out.shape):
                out[b, n] = table.get(keys[b, n].tobytes(), self.size - 1)
            return out
        while len(self.maps) < len(out):
            self.maps.append({})
        for b, n in np.ndindex(out.shape):
            table = self.maps[b]
            out[b, n] = table.setdefault(keys[b, n].tobytes(), len(table))
        self.size = max(self.size, *(len(m) for m in self.maps))
        return out

    def known(self, b: int) -> np.ndarray:
        """(situations, entries) vectors met by run b, in order."""
        rows = [np.frombuffer(key, dtype=np.int16) for key in self.maps[b]]
        return np.stack(rows) if rows else np.empty((0, self.entries), dtype=np.int16)

    def export(self) -> dict[str, Any]:
        return {"kind": "exact", "entries": self.entries, "levels": self.levels}


def make_sight(config: Mapping[str, Any], known: np.ndarray | None = None) -> Sight:
    """The inverse of ``Sight.export``."""
    kind = config["kind"]
    if kind == "none":
        return Sight()
    if kind == "level":
        return LevelSight(config["levels"], config["entry"])
    if kind == "mean_bin":
        return MeanBinSight(config["bins"], config["entries"])
    if kind == "exact":
        return ExactSight(config["entries"], config["levels"], known)
    raise InvalidParameter(f"unknown sight {kind!r}; {nearest(kind, ['none', 'level', 'mean_bin', 'exact'])}")


def _bazaar_sight(market: Market, stage: str, leader_state: str, bins: int) -> Sight:
    """AI-Bazaar: the provider sees last purchases first, a consumer sees the price first."""
    n, params = market.roles["consumer"], market.params
    if stage == "purchase":
        return LevelSight(getattr(params, "price_levels", None) or GRIDS["AIBazaar-v0"]["pricing"])
    if leader_state == "none":
        return Sight()
    if leader_state == "bins":
        return MeanBinSight(bins, n)
    return ExactSight(n, getattr(params, "amount_levels", None) or GRIDS["AIBazaar-v0"]["purchase"])


LEADER_STATES = ("bins", "none", "exact")
SIGHTS: dict[str, Callable[[Market, str, str, int], Sight]] = {"AIBazaar-v0": _bazaar_sight}
"""Market id -> function (market, stage, leader_state, bins) that gives a stage's sight."""
GRIDS: dict[str, dict[str, int]] = {"AIBazaar-v0": {"pricing": 11, "purchase": 10}}
"""Market id -> stage -> grid points of a continuous decision."""


def playable(market: Market) -> str | None:
    """None where tables can play the market, else the reason why not."""
    if type(market).action_mask is not Market.action_mask:
        state = market.reset(seed=0)
        for stage in market.stages:
            if stage.codec.discrete and market.action_mask(state, stage.name) is not None:
                return f"stage {stage.name!r} of {market.id} masks actions, which tables do not handle"
    try:
        for stage in market.stages:
            ActionGrid(stage, GRIDS.get(market.id, {}).get(stage.name, LEVELS))
    except NotOffered as error:
        return str(error)
    return None
