"""Policies: what fills a role, from any trainer or by hand, and how it is scored.

A policy serves all agents of one role in all markets of a batch at once. It is started once per evaluation or training run and keeps
its memory inside. It decides in natural units (or, if it declares ``units = "action"``, in the codec's action space).
"""

from __future__ import annotations

import copy
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from .errors import InvalidAction
from .market import Market, Stage, State
from .strategy import Pure, Samples, Strategy

Access = Literal["observation", "model", "oracle"]


class Transition(NamedTuple):
    """What a learner is told after a round, for all agents of its role in all markets."""

    obs: np.ndarray
    """(B, n, d) what the agents saw when they decided."""
    action: np.ndarray
    """(B, n, k) decisions in natural units, as they counted (clipped)."""
    reward: np.ndarray
    """(B, n) realised payoffs."""
    next_obs: np.ndarray
    """(B, n, d) what they see at their next move (of the next round; of the last round again when the episode ended)."""
    acting: np.ndarray
    """(B, n) whether the decision counted."""
    end: bool
    """Whether the episode was truncated after this round (never a terminal state: bootstrap)."""
    public: dict[str, np.ndarray]
    """Stage -> decisions (B, n, k) of everybody, as settled and published by the market."""


class Policy:
    """Base of all policies; a subclass needs only :meth:`act`.

    Attributes:
        access: "observation" (may be submitted), "model" (knows the rules' parameters) or "oracle" (is given the state).
        stochastic: Whether two calls with the same observation may differ; then it is scored as a mixture.
        units: "natural" decisions, or "action" for the codec's action space.
    """

    access: Access = "observation"
    stochastic: bool = False
    units: Literal["natural", "action"] = "natural"

    def __deepcopy__(self, memo: dict) -> Policy:
        """A policy copies as itself: frameworks deep-copy keyword arguments, a trained network is one thing."""
        return self

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        """Called once before play: the market (its parameters may be read only with "model" access), the role, B, and a seed."""
        self.market, self.role, self.batch, self.seed = market, role, batch, seed

    def act(self, obs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Decisions (B, n, k) for observations (B, n, d); ``mask`` (B, n, A) for discrete stages with illegal actions."""
        raise NotImplementedError

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        """What runners call: :meth:`act`. Override for roles with several stages, or (oracle access) to use the state."""
        return self.act(obs, mask)

    def strategy(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State, draws: int) -> Strategy:
        """The distribution of the next decision without changing the policy's memory; ``draws`` samples where it is stochastic."""
        values = [
            decide(copy.copy(self), self.market, stage, obs, mask, state)
            for _ in range(draws if self.stochastic else 1)
        ]
        return Samples(np.stack(values), joint=True) if self.stochastic else Pure(values[0])


class Learner(Protocol):
    """A policy that learns while it plays."""

    def start(self, market: Market, role: str, batch: int, seed: int) -> None: ...

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray: ...

    def update(self, transition: Transition) -> None:
        """Learn from one round."""


def decide(policy: Any, market: Market, stage: Stage, obs: Any, mask: Any, state: State) -> np.ndarray:
    """One call of a policy, as decisions (B, n, k) in natural units.

    Raises:
        InvalidAction: The policy returned a wrong shape, NaN or infinity; the message names its role.
    """
    raw = np.asarray(policy.act_at(stage, obs, mask, state))
    want = (*np.asarray(obs).shape[:2], stage.codec.width)
    if getattr(policy, "units", "natural") == "action":
        low, high = (market.backend.numpy(b) for b in market.bounds(state, stage.name))
        raw = stage.codec.decode(np, raw, low, high)
    try:
        decisions = np.broadcast_to(np.asarray(raw, dtype=np.float64), want)
    except (ValueError, TypeError):
        raise InvalidAction(
            f"the policy of {stage.role!r} returned shape {raw.shape}; expected {want} (markets, agents, numbers)"
        ) from None
    if not np.all(np.isfinite(decisions)):
        raise InvalidAction(f"the policy of {stage.role!r} returned NaN or infinity at stage {stage.name!r}")
    return decisions


class Uniform(Policy):
    """Every decision uniform over the stage's natural range (over legal actions, where they are discrete): the anchor of score 0."""

    stochastic = True

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.rng = np.random.default_rng(seed)

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        shape = (*obs.shape[:2], stage.codec.width)
        low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage.name))
        if not stage.codec.discrete:
            fraction = self.rng.uniform(size=shape)
            return np.broadcast_to(low, shape) + np.broadcast_to(high - low, shape) * fraction
        space = stage.codec.action_space
        if hasattr(space, "nvec"):
            actions = self.rng.integers(0, space.nvec, size=shape)
        elif mask is not None:
            weights = np.asarray(mask, dtype=float)
            ranks = self.rng.uniform(size=weights.shape) * (weights > 0)
            actions = ranks.argmax(axis=-1)
        else:
            actions = self.rng.integers(0, int(space.n), size=shape[:2])  # type: ignore[attr-defined]
        return stage.codec.decode(np, actions, np.broadcast_to(low, shape), np.broadcast_to(high, shape))

    def act(self, obs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        raise NotImplementedError("Uniform decides in act_at, from the stage's bounds")


class Constant(Policy):
    """The same decision always: (k,), or (n, k), or (B, n, k) in natural units."""

    def __init__(self, decisions: Any):
        self.decisions = np.asarray(decisions, dtype=np.float64)

    def act(self, obs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        return np.broadcast_to(self.decisions, (*obs.shape[:2], self.decisions.shape[-1]))


class EquilibriumPolicy(Policy):
    """Plays the market's equilibrium strategy: the leader's part at the first stage, the followers' map after it (oracle access)."""

    access: Access = "oracle"

    def __init__(self) -> None:
        self._solved: tuple[Any, Any] = (None, None)

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.rng = np.random.default_rng(seed)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_solved": (None, None)}  # solutions hold closures; solved again when needed

    def strategy(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State, draws: int) -> Strategy:
        from .strategy import Reply

        if state.decisions and type(self.market).respond is not Market.respond:
            # Followers need only the answer to what was just played, not the whole game.
            strategy = self.market.respond(state._replace(decisions={}), state.decisions).strategy[stage.name]
        else:
            strategy = self._solve(state).strategy[stage.name]
        return strategy.answer(state) if isinstance(strategy, Reply) else strategy

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        return self.strategy(stage, obs, mask, state, 1).draw(self.rng.uniform(size=obs.shape[:2]))

    def _solve(self, state: State) -> Any:
        key = state._replace(decisions={}, round=None, history=None)
        known, solved = self._solved
        if known is None or known.theta is not key.theta or known.nature is not key.nature:
            solved = self.market.equilibrium(state._replace(decisions={}))
            self._solved = (key, solved)
        return solved


class Myopic(Policy):
    """Best response to what everybody else did last round (model access); the middle of its range in the first round."""

    access: Access = "model"

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.last: dict[str, np.ndarray] | None = None

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        from .solution.search import stage_bounds

        low, high = stage_bounds(self.market, state, stage.name)
        if self.last is None:
            return (low + high) / 2
        profile = {**self.last, **{k: self.market.backend.numpy(v) for k, v in state.decisions.items()}}
        return self.market.best_response(state._replace(decisions={}), stage.name, profile).decisions

    def observe_round(self, public: dict[str, np.ndarray]) -> None:
        """Remember what was played (runners call it after every round)."""
        self.last = {k: np.array(v) for k, v in public.items()}
