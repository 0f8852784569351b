"""What tabular learners share: grids of actions, readings of observations, tables, and the policies they become.

A tabular learner keeps one row of numbers per (run, agent, situation) and one column per action; all rows of all runs
are updated in one
array operation. A file such as ``pb_marl.py`` only says how a row changes (a :class:`Rule`).

On continuous stages the learner lays its own grid over the natural bounds. What an agent reads from its observation is
a *sight*: the
posted price, the last demand in bins, or nothing. Markets without an entry in :data:`~marketenvs_baselines.sights.SIGHTS` are played as a bandit
(one situation).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter, NotOffered, UnknownName, nearest
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy, Transition
from marketenvs.strategy import Pure, Samples, Strategy

from .run import Policies, Report, Streams, play
from .sights import (
    GRIDS,
    LEADER_STATES,
    LEVELS,
    SIGHTS,
    ActionGrid,
    ExactSight,
    LevelSight,
    MeanBinSight,
    Sight,
    make_sight,
    playable,
)

__all__ = [
    "GRIDS",
    "LEADER_STATES",
    "LEVELS",
    "SIGHTS",
    "ActionGrid",
    "ExactSight",
    "LevelSight",
    "MeanBinSight",
    "Rule",
    "Sight",
    "TablePolicy",
    "TabularLearner",
    "make_sight",
    "playable",
    "project_to_simplex",
    "rule_maker",
    "sample",
    "train_tabular",
]


# -- rules and learners -----------------------------------------------------------------------------------------------


class Rule:
    """How the rows of a table change. Rows are (run, agent, situation), flattened; columns are actions.

    A subclass sets its constants as keyword arguments and overrides :meth:`grow` (allocate) and :meth:`learn`.
    """

    explore = 0.0
    """Probability of a uniform action instead of the table's."""
    scaled = False
    """Whether rewards are divided by the task's scale of the role."""

    def grow(self, rows: int, actions: int) -> None:
        """Allocate the tables."""
        raise NotImplementedError

    def probabilities(self, row: np.ndarray) -> np.ndarray:
        """(rows, A) probabilities with which each row plays."""
        raise NotImplementedError

    def learn(
        self, row: np.ndarray, action: np.ndarray, reward: np.ndarray, next_row: np.ndarray, rivals: np.ndarray
    ) -> None:
        """Update ``row`` after ``action`` earned ``reward`` and led to ``next_row``; all (m,), rows all different.

        ``rivals`` (m,) is what the others of the market decided at other agents' moves, averaged and scaled to [0, 1];
        only
        MiniMax-Q reads it.
        """
        raise NotImplementedError

    def final(self, row: np.ndarray) -> np.ndarray:
        """(rows, A) probabilities of the frozen policy; without exploration."""
        return self.probabilities(row)


class _Seat:
    """Tables of one role at one stage: sight, grid and rule, over B runs and n agents."""

    def __init__(self, rule: Rule, sight: Sight, grid: ActionGrid, batch: int, agents: int):
        self.rule, self.sight, self.grid = rule, sight, grid
        self.capacity = 256 if isinstance(sight, ExactSight) else sight.size
        self.block = np.arange(batch * agents)
        self.shape = (batch, agents)
        self.rule.grow(batch * agents * self.capacity, grid.size)
        self.now: np.ndarray | None = None
        self.action: np.ndarray | None = None

    def rows(self, obs: np.ndarray) -> np.ndarray:
        """Table rows of these observations."""
        situation = self.sight.read(obs).reshape(-1)
        if self.sight.size > self.capacity:
            self._enlarge()
        return self.block * self.capacity + situation

    def _enlarge(self) -> None:
        """Twice as many situations per agent; what was learnt stays. Rows of the current move are renumbered."""
        old, new = self.capacity, 2 * self.capacity
        tables = {k: v for k, v in vars(self.rule).items() if isinstance(v, np.ndarray)}
        self.rule.grow(len(self.block) * new, self.grid.size)
        for name, table in tables.items():
            fresh = getattr(self.rule, name).reshape(len(self.block), new, *table.shape[1:])
            fresh[:, :old] = table.reshape(len(self.block), old, *table.shape[1:])
        if self.now is not None:
            self.now = self.now // old * new + self.now % old
        self.capacity = new

    def probabilities(self, b: int) -> np.ndarray:
        """(n, situations, A) final probabilities of run b."""
        size = len(self.sight.maps[b]) + 1 if isinstance(self.sight, ExactSight) else self.sight.size
        out = np.empty((self.shape[1], size, self.grid.size))
        for i in range(self.shape[1]):
            first = (b * self.shape[1] + i) * self.capacity
            out[i] = self.rule.final(first + np.minimum(np.arange(size), self.capacity - 1))
        if isinstance(self.sight, ExactSight):
            out[:, -1] = 1.0 / self.grid.size
        return out / out.sum(axis=-1, keepdims=True)


class TabularLearner(Policy):
    """Any :class:`Rule` as a learner of one role.

    Args:
        rule: Makes a fresh rule for each stage of the role.
        scale: Rewards are divided by it where the rule asks for scaled rewards.
        leader_state: What a first mover reads, where the market's sight offers a choice: "bins", "none" or "exact".
        bins: Number of bins of "bins".
    """

    per_seed = True
    stochastic = True

    def __init__(self, rule: Callable[[], Rule], scale: float = 1.0, leader_state: str = "bins", bins: int = 10):
        if leader_state not in LEADER_STATES:
            raise InvalidParameter(
                f"leader_state={leader_state!r} is not offered; {nearest(leader_state, LEADER_STATES)}"
            )
        self.make_rule, self.scale, self.leader_state, self.bins = rule, float(scale), leader_state, bins

    def start(self, market: Market, role: str, batch: int, seed: Any) -> None:
        seeds = [int(seed)] if isinstance(seed, (int, np.integer)) else [int(s) for s in seed]
        super().start(market, role, batch, seeds[0])
        if len(seeds) != batch:
            seeds = [hash((seeds[0], b)) & 0x7FFFFFFF for b in range(batch)]
        reason = playable(market)
        if reason is not None:
            raise NotOffered(reason)
        self.stream = Streams(seeds, role, "act")
        self.seats: dict[str, _Seat] = {}
        sight_of = SIGHTS.get(market.id, lambda *_: Sight())
        for name in market.stages_of[role]:
            grid = ActionGrid(market.stage(name), GRIDS.get(market.id, {}).get(name, LEVELS))
            sight = sight_of(market, name, self.leader_state, self.bins)
            self.seats[name] = _Seat(self.make_rule(), sight, grid, batch, market.roles[role])

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        seat = self.seats[stage.name]
        seat.now = seat.rows(obs)
        probabilities = seat.rule.probabilities(seat.now)
        if seat.rule.explore:
            probabilities = (1 - seat.rule.explore) * probabilities + seat.rule.explore / seat.grid.size
        action = sample(probabilities, self.stream.uniform(obs.shape[1]).reshape(-1))
        seat.action = action
        low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage.name))
        return seat.grid.decode(action.reshape(seat.shape), low, high)

    def update_at(self, stage: Stage, transition: Transition) -> None:
        """Learn from one round (see ``run.play`` for when it is called)."""
        seat = self.seats[stage.name]
        assert seat.now is not None
        assert seat.action is not None
        next_row = seat.rows(transition.next_obs)
        row, action, reward = seat.now, seat.action, transition.reward.reshape(-1)
        if seat.rule.scaled:
            reward = reward / self.scale
        rivals = self._rivals(stage, transition).reshape(-1) if getattr(seat.rule, "watches_rivals", False) else reward
        acting = transition.acting.reshape(-1)
        if not acting.all():
            row, action, reward, next_row, rivals = (x[acting] for x in (row, action, reward, next_row, rivals))
            if not len(row):
                return
        seat.rule.learn(row, action, reward, next_row, rivals)

    def _rivals(self, stage: Stage, transition: Transition) -> np.ndarray:
        """(B, n) in [0, 1]: mean position, in its range, of the others at this stage.

        For a lone agent: of the agents of the next stage.
        """
        names = [s.name for s in self.market.stages]
        agents = transition.reward.shape[1]
        watched = stage.name if agents > 1 else names[(names.index(stage.name) + 1) % len(names)]
        decisions = transition.public[watched]
        low, high = self._ranges(watched)
        position = ((decisions - low) / np.where(high > low, high - low, 1.0)).mean(axis=2)
        if agents > 1:
            return (position.sum(axis=1, keepdims=True) - position) / (agents - 1)
        return position.mean(axis=1, keepdims=True)

    def _ranges(self, stage: str) -> tuple[np.ndarray, np.ndarray]:
        if not hasattr(self, "_known_ranges"):
            self._known_ranges: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        if stage not in self._known_ranges:
            state = self.market.reset(seed=0, batch=None)
            low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage))
            self._known_ranges[stage] = (low, high)
        return self._known_ranges[stage]

    def trained(self, b: int) -> TablePolicy:
        """The policy of run b as it is now."""
        tables = {name: seat.probabilities(b) for name, seat in self.seats.items()}
        sights = {name: seat.sight.export() for name, seat in self.seats.items()}
        known = {name: s.sight.known(b) for name, s in self.seats.items() if isinstance(s.sight, ExactSight)}
        levels = {name: GRIDS.get(self.market.id, {}).get(name, LEVELS) for name in self.seats}
        return TablePolicy(tables, sights, levels, known)


class TablePolicy(Policy):
    """A frozen table: a map from what an agent reads to a distribution over the actions of its grid.

    Args:
        tables: Stage -> (n, situations, A) probabilities.
        sights: Stage -> description of what is read.
        levels: Stage -> grid points per number, on continuous stages.
        known: Stage -> vectors of an ``ExactSight``.
    """

    def __init__(
        self,
        tables: Mapping[str, np.ndarray],
        sights: Mapping[str, Mapping[str, Any]],
        levels: Mapping[str, int],
        known: Mapping[str, np.ndarray] | None = None,
    ):
        self.tables = {k: np.asarray(v, dtype=np.float64) for k, v in tables.items()}
        self.sights = {k: dict(v) for k, v in sights.items()}
        self.levels = dict(levels)
        self.known = dict(known or {})
        self.stochastic = any(bool(np.any((t > 0) & (t < 1))) for t in self.tables.values())
        self._readers = {k: make_sight(v, self.known.get(k)) for k, v in self.sights.items()}

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.rng = np.random.default_rng(seed)
        self._grids: dict[str, ActionGrid] = {}
        if sorted(market.stages_of[role]) != sorted(self.tables):
            raise NotOffered(f"this table plays {', '.join(self.tables)}, not {', '.join(market.stages_of[role])}")
        for name, table in self.tables.items():
            grid = ActionGrid(market.stage(name), self.levels[name])
            want, have = (market.roles[role], grid.size), (table.shape[0], table.shape[2])
            if want != have:
                raise NotOffered(f"this table is for {have[0]} agents with {have[1]} actions; the market has {want}")
            self._grids[name] = grid

    def weights(self, stage: str, obs: np.ndarray) -> np.ndarray:
        """(B, n, A) probabilities at these observations."""
        situation = self._readers[stage].read(obs)
        return self.tables[stage][np.arange(obs.shape[1])[None], situation]

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        weights = self.weights(stage.name, obs)
        action = sample(weights.reshape(-1, weights.shape[2]), self.rng.random(obs.shape[0] * obs.shape[1]))
        low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage.name))
        return self._grids[stage.name].decode(action.reshape(obs.shape[:2]), low, high)

    def strategy(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State, draws: int) -> Strategy:
        """The exact mixture."""
        if not self.stochastic:
            return Pure(self.act_at(stage, obs, mask, state))
        weights = np.moveaxis(self.weights(stage.name, obs), 2, 0)
        low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage.name))
        return Samples(self._grids[stage.name].values(low, high, obs.shape[0], obs.shape[1]), weights)

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON and arrays, for ``store.save_policy``."""
        arrays = {f"table.{k}": v for k, v in self.tables.items()} | {f"known.{k}": v for k, v in self.known.items()}
        return {"sights": self.sights, "levels": self.levels}, arrays

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> TablePolicy:
        """The inverse of :meth:`export`."""
        parts: dict[str, dict[str, np.ndarray]] = {"table": {}, "known": {}}
        for key, value in arrays.items():
            kind, _, stage = key.partition(".")
            parts[kind][stage] = value
        return cls(parts["table"], config["sights"], config["levels"], parts["known"])


def sample(probabilities: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """One index per row of (rows, A) probabilities, by inversion of uniforms (rows,) in [0, 1)."""
    cumulative = np.cumsum(probabilities, axis=1)
    return (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(axis=1)


def project_to_simplex(points: np.ndarray) -> np.ndarray:
    """Euclidean projection of every row onto the probability simplex.

    Held, Wolfe, Crowder (1974); Duchi et al., "Efficient projections onto the l1-ball", ICML 2008, algorithm 1.
    """
    ordered = -np.sort(-points, axis=1)
    excess = np.cumsum(ordered, axis=1) - 1.0
    rank = np.arange(1, points.shape[1] + 1)
    last = (ordered * rank > excess).sum(axis=1) - 1
    threshold = np.take_along_axis(excess, last[:, None], axis=1) / (last[:, None] + 1)
    return np.maximum(points - threshold, 0.0)


def rule_maker(cls: type[Rule], constants: Mapping[str, Any]) -> Callable[[], Rule]:
    """What makes rules of a dataclass with some constants replaced; raises ``UnknownName`` for one that it has not."""
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in constants:
        if name not in known:
            raise UnknownName(f"{cls.__name__} has no constant {name!r}; {nearest(name, known)}")
    return lambda: cls(**constants)


def train_tabular(
    rule: Callable[[], Rule],
    task: Any,
    seeds: Sequence[int],
    budget: int,
    report: Report | None = None,
    **learner: Any,
) -> list[Policies]:
    """Train all roles with one rule, one run per seed; the body of every ``train_many`` below."""
    market = task.make_market()
    scale = getattr(task, "scale", {})
    learners = {role: TabularLearner(rule, scale.get(role, 1.0), **learner) for role in market.roles}
    return play(market, learners, budget, seeds, report).policies
