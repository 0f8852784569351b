"""Markets seen from one role: the learner moves for some agents of it, policies move for everybody else."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..errors import InvalidAction, InvalidParameter, ResetNeeded
from ..market import Market, Stage
from ..policy import decide
from .actions import blank
from .game import Game, Scale, check_role
from .opponents import check_opponents, policy_of


class RoleGame:
    """B markets in which a learner fills one role, or one agent of it; others are played by policies.

    One :meth:`step` lasts from one move of the learner to its next: a round, where the role has one stage (or ``stage``
    picks one). Opponents of later stages see what the learner did, as in the market itself. Policies are started anew
    at every reset, seeded from the episode, so an episode does not depend on those played before it.

    Args:
        market: The market.
        role: The learner's role.
        batch: Number of markets B.
        opponents: A name, a path or a policy for all others, or a mapping from roles to these.
        agent: Number of the learner's agent; None for all agents of the role.
        stage: Stage in which the learner moves; None for all stages of the role. In other stages of its role the
            opponents' policy moves.
        reward_scale: Role -> constant that this role's rewards are divided by.

    Raises:
        UnknownName: No such role, stage, or opponent.
        InvalidParameter: No such agent, or bad scale.
    """

    def __init__(
        self,
        market: Market,
        role: str,
        batch: int,
        *,
        opponents: Any = "equilibrium",
        agent: int | None = None,
        stage: str | None = None,
        reward_scale: Scale | None = None,
    ):
        self.market, self.role = market, check_role(market, role)
        self.game = Game(market, batch, reward_scale)
        count = market.roles[role]
        if agent is not None and (
            isinstance(agent, bool) or not isinstance(agent, (int, np.integer)) or not 0 <= agent < count
        ):
            raise InvalidParameter(f"agent must be in 0..{count - 1} ({role!r} has {count}), got {agent!r}")
        self.index = np.arange(count) if agent is None else np.array([int(agent)])
        self.names = [f"{role}_{i}" for i in self.index]
        own = [s for s in market.stages if s.role == role]
        if stage is not None:
            own = [market.stage(stage)]
            if own[0].role != role:
                raise InvalidParameter(f"stage {stage!r} is played by {own[0].role!r}, not by {role!r}")
        self.own: list[Stage] = own
        self._own = {s.name for s in own}
        self.alone = len(self.index) == count
        others = check_opponents(market, opponents)
        movers = {s.role for s in market.stages if s.name not in self._own or not self.alone}
        self.policies = {r: policy_of(market, r, others[r]) for r in market.roles if r in movers}
        self.seen: dict[str, np.ndarray] = {}

    def __deepcopy__(self, memo: dict) -> RoleGame:
        """A game with the same future: policies' memories are copied, the market and the state's arrays are shared."""
        clone = copy.copy(self)
        memo[id(self)] = clone
        memo[id(self.market)] = self.market
        if self.game.begun is not None:
            for part in (self.game.begun, self.game.begun.theta, self.game.begun.nature):
                memo[id(part)] = part
        clone.game = copy.deepcopy(self.game, memo)
        clone.seen = dict(self.seen)
        clone.policies = {}
        for role, policy in self.policies.items():
            twin = copy.copy(policy)
            twin.__dict__.update({k: copy.deepcopy(v, memo) for k, v in vars(policy).items()})
            clone.policies[role] = twin
        return clone

    @property
    def stage(self) -> Stage:
        """The learner's stage whose turn it is."""
        return self.game.stage

    @property
    def over(self) -> bool:
        """Whether the episode has been truncated."""
        return self.game.over

    def reset(self, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None) -> None:
        """Begin the next episodes, and play up to the learner's first move."""
        self.game.reset(seed, options)
        for tag, (role, policy) in enumerate(self.policies.items()):
            policy.start(self.market, role, self.game.batch, self.game.episodes.entropy(tag))
        rows = (self.game.batch, len(self.index))
        self.seen = {
            s.name: np.broadcast_to(first := blank(s.observation_space), (*rows, *first.shape)) for s in self.own
        }
        self._advance()

    def step(self, actions: Any) -> np.ndarray:
        """The learner's move (B, m, *action shape), then everybody's until its next move.

        Returns:
            Scaled rewards (B, m) of the rounds settled on the way (0 where none was).

        Raises:
            ResetNeeded: Before the first reset.
            InvalidAction: A wrong shape or type, NaN, infinity.
        """
        if self.game.begun is None:
            raise ResetNeeded("call reset() first")
        decisions = self.game.decode(actions, self.names)
        if not self.alone:
            rest = np.array(self._decide())
            rest[:, self.index] = decisions
            decisions = rest
        paid = self._commit(decisions) + self._advance()
        return np.broadcast_to(paid, (self.game.batch, len(self.index)))

    def observation(self) -> np.ndarray:
        """What the learner's agents see at their move, float32 (B, m, d); of several stages, all last seen in a row."""
        if len(self.own) == 1:
            return self.seen[self.own[0].name].copy()
        return np.concatenate([self.seen[s.name] for s in self.own], axis=2)

    def acting(self) -> np.ndarray:
        """Whether the learner's move counts, bool (B, m)."""
        return self.game.acting()[:, self.index]

    def mask(self) -> np.ndarray | None:
        """Legal actions of the learner's move, int8 (B, m, A); None where nothing is masked."""
        mask = self.game.mask()
        return None if mask is None else mask[:, self.index]

    def _advance(self) -> np.ndarray | float:
        """Let policies play until it is the learner's turn; rewards of rounds settled on the way."""
        paid: np.ndarray | float = 0.0
        while self.game.stage.name not in self._own:
            paid = paid + self._commit(self._decide())
        self.seen[self.stage.name] = self.game.observe()[:, self.index]
        return paid

    def _decide(self) -> np.ndarray:
        game, stage = self.game, self.game.stage
        state = game.state
        obs = to_numpy(self.market.observe(state, stage.name))
        mask = self.market.action_mask(state, stage.name) if game.masked[stage.name] else None
        return decide(
            self.policies[stage.role], self.market, stage, obs, None if mask is None else to_numpy(mask), state
        )

    def _commit(self, decisions: np.ndarray) -> np.ndarray | float:
        rewards = self.game.commit(decisions)
        if rewards is None:
            return 0.0
        for policy in self.policies.values():
            if hasattr(policy, "observe_round"):
                policy.observe_round(self.game.played)
        return rewards[self.role][:, self.index]


def one_action(game: RoleGame, action: Any) -> Any:
    """A single agent's action, taken out of the Dict of stages where the learner has several.

    Raises ``InvalidAction``.
    """
    if len(game.own) == 1:
        return action
    if not isinstance(action, Mapping) or game.stage.name not in action:
        raise InvalidAction(
            f"the action must be a dictionary with the current stage {game.stage.name!r}, got {action!r}"
        )
    return action[game.stage.name]
