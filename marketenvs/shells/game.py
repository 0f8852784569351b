"""Markets played stage by stage: what every shell stands on.

:class:`Game` holds B begun markets and the stage whose turn it is. It turns actions of the codecs' spaces into
decisions, checks them at the boundary, settles rounds, and hands out observations as float32 and rewards as
float64, in NumPy, whatever library the market runs on. :class:`Episodes` numbers the episodes, so that a copied,
resumed or vectorised environment draws the same markets as a single one.
"""

from __future__ import annotations

import copy
import math
import operator
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from ..arrays import to_numpy
from ..errors import InvalidAction, InvalidParameter, ResetNeeded, UnknownName, nearest
from ..market import Market, Stage, State
from ..params import TEST_STREAM, TRAIN_STREAM, batch_of

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
                seed; 0 if there is none yet). Other keys are ignored, as Gymnasium and PettingZoo expect.

        Raises:
            InvalidParameter: A seed, split or instance id that is out of range or of a wrong length.
        """
        options = {} if options is None else options
        if not isinstance(options, Mapping):
            raise InvalidParameter(f"options must be a dictionary, got {options!r}")
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


def is_masked(market: Market, stage: Stage) -> bool:
    """Whether the shells offer action masks at this stage.

    It is discrete and the market says which actions are legal.
    """
    return stage.codec.discrete and type(market).action_mask is not Market.action_mask


def actions_of(stage: Stage) -> int:
    """Length A of a discrete stage's action mask.

    The actions, or for MultiDiscrete the levels of all numbers in a row.
    """
    space = stage.codec.action_space
    return int(np.sum(space.nvec)) if isinstance(space, spaces.MultiDiscrete) else int(space.n)  # type: ignore[attr-defined]


def mask_space(stage: Stage) -> spaces.Space:
    """Space of one agent's action mask, in the form that ``action_space.sample(mask)`` takes."""
    space = stage.codec.action_space
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.Tuple([spaces.Box(0, 1, (int(n),), np.int8) for n in space.nvec])
    return spaces.Box(0, 1, (actions_of(stage),), np.int8)


def split_mask(stage: Stage, row: np.ndarray) -> Any:
    """One agent's mask (A,) in the form of :func:`mask_space`."""
    space = stage.codec.action_space
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(np.split(row, np.cumsum(space.nvec)[:-1]))
    return row


def blank(space: spaces.Box) -> np.ndarray:
    """What an agent sees before it has seen anything: zeros (or the nearest valid values)."""
    return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)


def legal(space: spaces.Space) -> Any:
    """The mask of :func:`mask_space` in which everything is legal."""
    if isinstance(space, spaces.Tuple):
        return tuple(legal(s) for s in space)
    return np.ones(space.shape, space.dtype)  # type: ignore[arg-type]


def check_actions(stage: Stage, actions: Any, batch: int, agents: Sequence[str] | None = None) -> np.ndarray:
    """Actions of a stage as an array (B, m, *action shape): float64, or int64 where the stage is discrete.

    Raises:
        InvalidAction: A wrong shape or type, NaN, infinity, or an index outside a discrete space; it names the agent.
    """
    codec = stage.codec
    shape = codec.action_shape
    try:
        values = np.asarray(actions)
    except (TypeError, ValueError):
        values = np.empty(0, dtype=object)
    if (
        values.ndim != 2 + len(shape)
        or values.shape[0] != batch
        or values.shape[2:] != shape
        or values.dtype.kind not in "fiu"
    ):
        raise InvalidAction(_complaint(stage, actions, batch, agents))
    if agents is not None and values.shape[1] != len(agents):
        raise InvalidAction(_complaint(stage, actions, batch, agents))
    if codec.discrete:
        if values.dtype.kind == "f":
            raise InvalidAction(f"actions of stage {stage.name!r} must be integers of {codec.action_space}")
        top = getattr(codec.action_space, "nvec", None)
        wrong = (values < 0) | (values >= (codec.action_space.n if top is None else top))  # type: ignore[attr-defined]
        if wrong.any():
            where = np.argwhere(wrong)[0]
            raise InvalidAction(
                f"action {values[tuple(where)]} of {_agent(stage, agents, where)} at stage {stage.name!r} is not in "
                f"{codec.action_space}"
            )
        return values.astype(np.int64, copy=False)
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0]
        raise InvalidAction(
            f"NaN or infinite action of {_agent(stage, agents, where)} at stage {stage.name!r} in market {where[0]}: "
            "actions must be finite"
        )
    return values.astype(np.float64, copy=False)


def _agent(stage: Stage, agents: Sequence[str] | None, where: np.ndarray) -> str:
    return agents[where[1]] if agents is not None else f"{stage.role}_{where[1]}"


def _complaint(stage: Stage, actions: Any, batch: int, agents: Sequence[str] | None) -> str:
    """The message for actions of a wrong shape or type; it looks for the agent to blame."""
    space = stage.codec.action_space
    if (
        batch == 1
        and agents is not None
        and isinstance(actions, list)
        and len(actions) == 1
        and len(actions[0]) == len(agents)
    ):
        for agent, action in zip(agents, actions[0], strict=True):
            try:
                value = np.asarray(action)
            except (TypeError, ValueError):
                value = np.empty(0, dtype=object)
            if value.shape != stage.codec.action_shape or value.dtype.kind not in "fiu":
                return f"action of {agent} at stage {stage.name!r} must be in {space}, got {action!r}"
    want = (batch, "agents" if agents is None else len(agents), *stage.codec.action_shape)
    got = getattr(actions, "shape", None)
    what = repr(actions) if got is None else f"shape {got} of {actions.dtype}"
    return f"actions of stage {stage.name!r} must have shape {want} with entries of {space}, got {what}"
