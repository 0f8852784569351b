"""One market with its agents by name: what the PettingZoo and RLlib shells share.

Spaces of an agent. A role with one stage has that stage's Box and action space; where the market masks actions, the
observation is PettingZoo's ``{"observation": Box, "action_mask": int8}``. A role with several stages observes a Box of
what it saw last at each of its stages, one after another in the order of play (zeros before it has seen any); its
action is a Dict of its stages, of which only the current stage's entry counts; masks are then in
``infos[agent]["action_mask"]``, in the form that the Dict's ``sample(mask)`` takes. (A Dict of observations would be
the same numbers, but PettingZoo's ``api_test`` fails when some agents observe arrays and others dictionaries.)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from ..errors import InvalidAction, UnknownName, nearest
from ..market import Market, Stage
from .actions import blank, is_masked, legal, mask_space, split_mask
from .game import Game, Scale


def in_a_row(boxes: Sequence[spaces.Box]) -> spaces.Box:
    """A new Box of the given ones' entries in a row."""
    low, high = (np.concatenate([getattr(b, side) for b in boxes]) for side in ("low", "high"))
    return spaces.Box(low, high, dtype=np.float32)


def observation_space(market: Market, role: str) -> spaces.Space:
    """A new observation space of one agent of the role."""
    stages = [s for s in market.stages if s.role == role]
    seen = in_a_row([s.observation_space for s in stages])
    if len(stages) == 1 and is_masked(market, stages[0]):
        return spaces.Dict({"observation": seen, "action_mask": mask_space(stages[0])})
    return seen


def action_space(market: Market, role: str) -> spaces.Space:
    """A new action space of one agent of the role."""
    stages = [s for s in market.stages if s.role == role]
    if len(stages) > 1:
        return spaces.Dict({s.name: copy.deepcopy(s.codec.action_space) for s in stages})
    return copy.deepcopy(stages[0].codec.action_space)


class Spaces:
    """Observation and action spaces of named agents, made on first use.

    Each agent has its own, so that seeding one leaves the others.
    """

    def __init__(self, market: Market):
        self._market = market
        self.role_of = {f"{role}_{i}": role for role, n in market.roles.items() for i in range(n)}
        self._made: dict[tuple[str, str], spaces.Space] = {}

    def __deepcopy__(self, memo: dict) -> Spaces:
        clone = copy.copy(self)
        clone._made = {k: copy.deepcopy(s) for k, s in self._made.items() if s._np_random is not None}
        return clone

    def of(self, kind: str, agent: str) -> spaces.Space:
        """The "observation" or "action" space of an agent: always the same object."""
        found = self._made.get((kind, agent))
        if found is None:
            if agent not in self.role_of:
                raise UnknownName(f"no agent {agent!r}; {nearest(agent, self.role_of)}")
            make = observation_space if kind == "observation" else action_space
            found = self._made[kind, agent] = make(self._market, self.role_of[agent])
        return found


class Table:
    """One market (B = 1) whose agents are named ``role_i``; it remembers what each of them saw last.

    Args:
        market: The market.
        reward_scale: Role -> constant that this role's rewards are divided by.
    """

    def __init__(self, market: Market, reward_scale: Scale | None = None):
        self.market = market
        self.game = Game(market, 1, reward_scale)
        self.names = {role: [f"{role}_{i}" for i in range(n)] for role, n in market.roles.items()}
        self.agents = list(market.agents)
        self.known = frozenset(self.agents)
        self.stages_of = {role: [s for s in market.stages if s.role == role] for role in market.roles}
        self._masks_in_infos = any(
            len(s) > 1 and any(self.game.masked[t.name] for t in s) for s in self.stages_of.values()
        )
        self._always = type(market).acting is Market.acting
        self._first = {s.name: blank(s.observation_space) for s in market.stages}
        self._seen: dict[str, np.ndarray] = {}
        self._masks: dict[str, np.ndarray] = {}
        self.acting: dict[str, bool] = {}
        self.everybody = True

    def __deepcopy__(self, memo: dict) -> Table:
        clone = copy.copy(self)
        memo[id(self)] = clone
        clone.game = copy.deepcopy(self.game, memo)
        clone._seen, clone._masks, clone.acting = dict(self._seen), dict(self._masks), dict(self.acting)
        return clone

    @property
    def stage(self) -> Stage:
        """The stage whose turn it is."""
        return self.game.stage

    def reset(self, seed: int | None, options: Mapping[str, Any] | None) -> None:
        """Begin the next episode."""
        self.game.reset(seed, options)
        self._seen = {
            s.name: np.repeat(self._first[s.name][None], self.market.roles[s.role], axis=0) for s in self.market.stages
        }
        self._masks = {}
        self.look()

    def look(self) -> None:
        """Let the agents of the current stage see what they see now, and find out who of them decides."""
        game, stage = self.game, self.game.stage
        self._seen[stage.name] = game.observe()[0]
        mask = game.mask()
        if mask is not None:
            self._masks[stage.name] = mask[0]
        self.acting = dict.fromkeys(self.agents, False)
        names = self.names[stage.role]
        if self._always:
            self.everybody = True
            for name in names:
                self.acting[name] = True
        else:
            row = game.acting()[0]
            self.everybody = bool(row.all())
            self.acting.update(zip(names, row.tolist(), strict=True))

    def observations(self, role: str) -> list[Any]:
        """What each agent of a role saw last; the arrays are the caller's own."""
        stages = self.stages_of[role]
        if len(stages) > 1:
            return list(np.concatenate([self._seen[s.name] for s in stages], axis=1))
        rows = list(self._seen[stages[0].name].copy())
        if self.game.masked[stages[0].name]:
            masks = self._masks.get(stages[0].name)
            if masks is None:
                return [{"observation": row, "action_mask": legal(mask_space(stages[0]))} for row in rows]
            return [
                {"observation": row, "action_mask": split_mask(stages[0], mask)}
                for row, mask in zip(rows, masks.copy(), strict=True)
            ]
        return rows

    def observe(self, agent: str) -> Any:
        """What one agent saw last; the array is the caller's own."""
        role, _, number = agent.rpartition("_")
        stages, i = self.stages_of[role], int(number)
        if len(stages) > 1:
            return np.concatenate([self._seen[s.name][i] for s in stages])
        row = self._seen[stages[0].name][i].copy()
        if not self.game.masked[stages[0].name]:
            return row
        masks = self._masks.get(stages[0].name)
        mask = legal(mask_space(stages[0])) if masks is None else split_mask(stages[0], masks[i].copy())
        return {"observation": row, "action_mask": mask}

    def info(self, agent: str) -> dict[str, Any]:
        """What else an agent is told.

        Whether it decides now, and which stage it is (and masks, for roles with several stages).
        """
        info: dict[str, Any] = {"acting": self.acting[agent], "stage": self.stage.name}
        if not self._masks_in_infos:
            return info
        role, _, number = agent.rpartition("_")
        stages = self.stages_of[role]
        if len(stages) > 1 and any(self.game.masked[s.name] for s in stages):
            masks = {s.name: self._masks.get(s.name) for s in stages}
            info["action_mask"] = {
                s.name: None if (m := masks[s.name]) is None else split_mask(s, m[int(number)].copy()) for s in stages
            }
        return info

    def decide(self, actions: Mapping[str, Any]) -> np.ndarray:
        """Decisions (1, n, k) of the current stage from actions by agent; those who do not act now need not give one.

        Raises:
            InvalidAction: Actions are no mapping, of an unknown agent, missing, of a wrong shape or type, NaN or
                infinite.
        """
        if not isinstance(actions, Mapping):
            raise InvalidAction(f"actions must map agents to actions, got {type(actions).__name__}")
        if not actions.keys() <= self.known:
            name = next(a for a in actions if a not in self.known)
            raise InvalidAction(f"action of unknown agent {name!r}; {nearest(name, self.agents)}")
        stage = self.stage
        names = self.names[stage.role]
        try:
            chosen = [actions[a] if self.acting[a] else None for a in names]
        except KeyError as missing:
            raise InvalidAction(f"{missing.args[0]} must act at stage {stage.name!r}, but has no action") from None
        if len(self.stages_of[stage.role]) > 1:
            chosen = [
                None if c is None and not self.acting[a] else _entry(stage, a, c)
                for a, c in zip(names, chosen, strict=True)
            ]
        if self.everybody:
            return self.game.decode([chosen], names)
        idle = np.zeros(stage.codec.action_shape, dtype=np.int64 if stage.codec.discrete else np.float64)
        chosen = [c if self.acting[a] else idle for a, c in zip(names, chosen, strict=True)]
        acts = np.array([self.acting[a] for a in names])[None, :, None]
        return np.where(acts, self.game.decode([chosen], names), self.game.neutral())

    def commit(self, actions: Mapping[str, Any]) -> dict[str, float] | None:
        """Play the current stage.

        Rewards by agent if that settled the round, else None. The next stage's agents then see it.
        """
        rewards = self.game.commit(self.decide(actions))
        self.look()
        if rewards is None:
            return None
        return {
            a: r for role, names in self.names.items() for a, r in zip(names, rewards[role][0].tolist(), strict=True)
        }

    def state(self) -> np.ndarray:
        """All agents' last observations in a row: a global view for centralised critics, float32."""
        return np.concatenate([self._seen[s.name].reshape(-1) for s in self.market.stages])


def _entry(stage: Stage, agent: str, action: Any) -> Any:
    if not isinstance(action, Mapping) or stage.name not in action:
        raise InvalidAction(
            f"action of {agent} must be a dictionary with the current stage {stage.name!r}, got {action!r}"
        )
    return action[stage.name]
