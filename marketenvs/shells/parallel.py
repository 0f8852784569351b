"""A market as a PettingZoo ``ParallelEnv``: one step is one stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pettingzoo import ParallelEnv

from ..errors import ResetNeeded
from .base import NamedAgents


class MarketParallelEnv(NamedAgents, ParallelEnv):
    """One market; all agents stay live through the whole episode, and one step is one stage.

    Only the agents of the current stage act. An idle agent may leave out its action (what it gives has no effect),
    keeps its last observation (zeros before its first move) and gets reward 0. Rewards are paid at settlement,
    after the round's last stage. Every ``infos[agent]`` tells ``stage``, whose turn it is next, and ``acting``,
    whether this agent decides there. The episode is truncated for everybody after ``horizon`` rounds, that is
    ``horizon * len(market.stages)`` steps.

    Args:
        market: A market, or its id with ``**params`` as for :func:`marketenvs.make`.
        render_mode: None, "rgb_array" or "ansi".
        reward_scale: Role -> constant that this role's rewards are divided by.

    Attributes:
        market: The market.
        metrics: Name -> number or (n,) array of the round settled last; {} before that. Not for agents: it tells
            what they may not know.

    Raises:
        UnknownName: Unknown id, preset, parameter or role.
        InvalidParameter: A value out of range.
    """

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Begin an episode.

        Args:
            seed: Starts a new sequence of episodes; None goes on with the sequence (at random, if there is none yet).
            options: ``{"instance_ids": [k]}`` for the k-th market under the seed, ``{"split": "test"}`` for
                held-out markets; others are ignored.
        """
        self.table.reset(seed, options)
        self.agents = list(self.possible_agents)
        if self.render_mode is not None:
            self.screen.clear()
        return self._observations(), self._infos()

    def step(self, actions: Mapping[str, Any]) -> tuple[dict, dict[str, float], dict[str, bool], dict[str, bool], dict]:  # type: ignore[override]
        """Play one stage.

        Raises:
            ResetNeeded: Before the first reset, or after the episode's end.
            InvalidAction: Unknown agent; or of an acting agent: no action, wrong shape or type, NaN, infinity.
        """
        if not self.agents:
            raise ResetNeeded("the episode is over or has not begun: call reset() first")
        table, agents = self.table, self.agents
        rewards = table.commit(actions)
        if rewards is None:
            rewards = dict.fromkeys(agents, 0.0)
        elif self.render_mode is not None:
            self.screen.settle(table.game)
        over = table.game.over and table.game.position == 0
        terminated, truncated = dict.fromkeys(agents, False), dict.fromkeys(agents, over)
        observations, infos = self._observations(), self._infos()
        if over:
            self.agents = []
        return observations, rewards, terminated, truncated, infos

    def _observations(self) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for role in self.market.roles:
            seen.update(zip(self.table.names[role], self.table.observations(role), strict=True))
        return seen

    def _infos(self) -> dict[str, dict[str, Any]]:
        return {a: self.table.info(a) for a in self.possible_agents}
