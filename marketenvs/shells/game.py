"""Markets played stage by stage: what every shell stands on.

:class:`Game` holds B begun markets and the stage whose turn it is. It turns actions of the codecs' spaces into
decisions, checks them at the boundary, settles rounds, and hands out observations as float32 and rewards as
float64, in NumPy, whatever library the market runs on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..errors import InvalidParameter, ResetNeeded, UnknownName, nearest
from ..market import Market, Stage, State
from ..params import batch_of
from .actions import actions_of, check_actions, is_masked
from .episodes import Episodes

Scale = Mapping[str, float]


def as_market(market: Market | str, params: Mapping[str, Any]) -> Market:
    """A market from an id and its parameters, or the market itself (then there must be no parameters).

    Raises:
        UnknownName: Unknown id, preset or parameter.
        InvalidParameter: ``market`` is neither, or parameters were given beside a market.
    """
    if isinstance(market, str):
        from ..registry import make

        return make(market, **params)
    if not isinstance(market, Market):
        raise InvalidParameter(f"expected a market or its id, got {type(market).__name__}")
    if params:
        raise UnknownName(f"unknown argument {next(iter(params))!r}: a market's parameters are set when it is made")
    return market


def check_scale(market: Market, scale: Scale | None) -> dict[str, float]:
    """Role -> the constant its rewards are divided by (1 where none is given)."""
    full = dict.fromkeys(market.roles, 1.0)
    for role, value in (scale or {}).items():
        if role not in full:
            raise UnknownName(f"reward_scale of unknown role {role!r}; {nearest(role, full)}")
        number = float(value) if isinstance(value, (int, float, np.number)) else math.nan
        if not (math.isfinite(number) and number > 0):
            raise InvalidParameter(f"reward_scale of {role!r} must be a finite positive number, got {value!r}")
        full[role] = number
    return full


def check_role(market: Market, role: str) -> str:
    """The role, if the market has it; raises ``UnknownName`` naming the nearest."""
    if role not in market.roles:
        raise UnknownName(f"{market.id or type(market).__name__} has no role {role!r}; {nearest(role, market.roles)}")
    return role


class Game:
    """B markets at the same stage of the same round.

    Args:
        market: The market.
        batch: Number of markets B.
        reward_scale: Role -> constant that this role's rewards are divided by.

    Raises:
        InvalidParameter: The market's parameters are given per market for another number of markets, or a bad scale.
    """

    def __init__(self, market: Market, batch: int, reward_scale: Scale | None = None):
        if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)) or batch < 1:
            raise InvalidParameter(f"the number of environments must be a positive integer, got {batch!r}")
        fixed = batch_of(market.params)
        if fixed not in (1, batch):
            raise InvalidParameter(f"the parameters are given for {fixed} markets, but this environment holds {batch}")
        self.market = market
        self.batch = int(batch)
        self.scale = check_scale(market, reward_scale)
        self.episodes = Episodes(self.batch)
        self.horizon = market.params.horizon
        self.masked = {s.name: is_masked(market, s) for s in market.stages}
        self.begun: State | None = None
        self.settled: State | None = None
        self.position = 0
        self.rounds = 0
        self.clipped: np.ndarray | int = 0
        self.metrics: dict[str, np.ndarray] = {}
        self.payoffs: dict[str, np.ndarray] = {}
        self.played: dict[str, np.ndarray] = {}

    def __deepcopy__(self, memo: dict) -> Game:
        """A game with the same future.

        The market and the arrays of a state are never written to, so they are shared.
        """
        clone = copy.copy(self)
        clone.episodes = copy.copy(self.episodes)
        memo[id(self)] = clone
        return clone

    @property
    def state(self) -> State:
        """The markets' state; raises ``ResetNeeded`` before the first reset."""
        if self.begun is None:
            raise ResetNeeded("call reset() first")
        return self.begun

    @property
    def stage(self) -> Stage:
        """The stage whose turn it is."""
        return self.market.stages[self.position]

    @property
    def over(self) -> bool:
        """Whether the episode has been truncated (all markets of a batch have the same length)."""
        return self.rounds >= self.horizon

    def reset(self, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None) -> None:
        """Begin the next episodes; see :meth:`Episodes.turn`."""
        self.episodes.turn(seed, options)
        self.begun = self.episodes.state(self.market)
        self.position = self.rounds = 0
        self.clipped = 0
        self.settled = None
        self.metrics, self.payoffs, self.played = {}, {}, {}

    def observe(self) -> np.ndarray:
        """What the agents of the current stage see, float32 (B, n, d)."""
        return to_numpy(self.market.observe(self.state, self.stage.name)).astype(np.float32)

    def acting(self) -> np.ndarray:
        """Which agents of the current stage really decide, bool (B, n)."""
        return to_numpy(self.market.acting(self.state, self.stage.name))

    def mask(self) -> np.ndarray | None:
        """Legal actions of the current stage, int8 (B, n, A); None where the market masks nothing at this stage."""
        if not self.masked[self.stage.name]:
            return None
        mask = self.market.action_mask(self.state, self.stage.name)
        if mask is None:
            return np.ones((self.batch, self.market.roles[self.stage.role], actions_of(self.stage)), dtype=np.int8)
        return to_numpy(mask).astype(np.int8)

    def neutral(self) -> np.ndarray:
        """Decisions (B, n, k) for agents that have no say: the lower bounds."""
        low, _ = self.bounds()
        shape = (self.batch, self.market.roles[self.stage.role], self.stage.codec.width)
        return np.broadcast_to(low, shape)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Natural bounds of the current stage, float64, broadcasting to (B, n, k)."""
        low, high = self.market.bounds(self.state, self.stage.name)
        return self.market.backend.numpy(low), self.market.backend.numpy(high)

    def decode(self, actions: Any, agents: Sequence[str] | None = None) -> np.ndarray:
        """Decisions (B, m, k) from actions (B, m, *action shape) of the current stage.

        Continuous actions are clipped to [-1, 1], and counted in the metric ``clipped``.

        Args:
            actions: Of all n agents of the stage, or of ``agents`` alone.
            agents: Names in the order of axis 1, for the error message and for m < n; default: all of the role.

        Raises:
            InvalidAction: A wrong shape or type, NaN, infinity, or the number of an action that does not exist.
        """
        stage = self.stage
        values = check_actions(stage, actions, self.batch, agents)
        low, high = self.bounds()
        if agents is not None and len(agents) < self.market.roles[stage.role]:
            index = [int(a.rpartition("_")[2]) for a in agents]
            low, high = (b if b.shape[1] == 1 else b[:, index] for b in (low, high))
        if not stage.codec.discrete:
            outside = np.abs(values) > 1.0
            if outside.any():
                self.clipped = self.clipped + outside.sum(axis=tuple(range(1, outside.ndim)))
        return stage.codec.decode(np, values, low, high)

    def commit(self, decisions: np.ndarray) -> dict[str, np.ndarray] | None:
        """Commit the current stage; after the last one settle the round and begin the next.

        Args:
            decisions: (B, n, k) in natural units.

        Returns:
            Role -> scaled rewards (B, n) of the round that has just been settled; None in the middle of a round.
        """
        market, stage = self.market, self.stage
        state = market.commit(self.state, stage.name, market.backend.asarray(decisions))
        self.position += 1
        if self.position < len(market.stages):
            self.begun = state
            return None
        played = state.decisions
        self.settled = state._replace(decisions={})
        self.begun, outcome = market.conclude(state)
        self.played = {name: to_numpy(value) for name, value in played.items()}
        self.payoffs = {role: to_numpy(value) for role, value in outcome.payoffs.items()}
        self.metrics = {name: to_numpy(value) for name, value in outcome.metrics.items()}
        self.metrics["clipped"] = np.broadcast_to(np.asarray(self.clipped), (self.batch,))
        self.clipped = 0
        self.position = 0
        self.rounds += 1
        return {
            role: value if self.scale[role] == 1.0 else value / self.scale[role] for role, value in self.payoffs.items()
        }
