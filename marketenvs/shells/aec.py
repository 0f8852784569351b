"""A market as a PettingZoo ``AECEnv``: one step is one agent's move."""

from __future__ import annotations

from typing import Any

from pettingzoo import AECEnv

from ..errors import InvalidAction, ResetNeeded
from ..market import Market
from .actions import check_actions
from .base import NamedAgents
from .game import Scale


class MarketAECEnv(NamedAgents, AECEnv):
    """One market in which the acting agents of a stage move one after another.

    None of them sees what the others of its stage have chosen. Agents that do not decide in a stage are left out of
    the cycle. Rewards are paid to everybody when the round's last move is made.

    Args:
        market: A market, or its id with ``**params`` as for :func:`marketenvs.make`.
        render_mode: None, "rgb_array" or "ansi".
        reward_scale: Role -> constant that this role's rewards are divided by.

    Attributes:
        market: The market.
        metrics: Name -> number or (n,) array of the round settled last; {} before that. Not for agents: it tells
            what they may not know.
    """

    def __init__(
        self,
        market: Market | str,
        *,
        render_mode: str | None = None,
        reward_scale: Scale | None = None,
        **params: Any,
    ):
        super().__init__(market, render_mode=render_mode, reward_scale=reward_scale, **params)
        self.agent_selection = self.possible_agents[0]
        self._queue: list[str] = []
        self._actions: dict[str, Any] = {}

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Begin an episode; ``seed`` and ``options`` as in :meth:`MarketParallelEnv.reset`."""
        self.table.reset(seed, options)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self._skip_agent_selection = None
        if self.render_mode is not None:
            self.screen.clear()
        self._actions = {}
        self._next_stage()

    def observe(self, agent: str) -> Any:
        """What an agent saw last (zeros before its first move)."""
        if self.table.game.begun is None:
            raise ResetNeeded("call reset() first")
        return self.table.observe(agent)

    def step(self, action: Any) -> None:
        """One agent's move: of ``agent_selection``.

        Raises:
            ResetNeeded: Before the first reset, or when no agent is left.
            InvalidAction: Wrong shape or type, NaN or infinity; or an action of an agent whose episode is over (it
                must be None).
        """
        if not self.agents:
            raise ResetNeeded("the episode is over or has not begun: call reset() first")
        agent = self.agent_selection
        if self.truncations[agent]:
            if action is not None:
                raise InvalidAction(f"the episode of {agent} is over: its only valid action is None")
            self._was_dead_step(None)
            return
        self._check(agent, action)
        self._cumulative_rewards[agent] = 0.0
        self._clear_rewards()
        self._actions[agent] = action
        self._queue.pop(0)
        if self._queue:
            self.agent_selection = self._queue[0]
        else:
            self._play()
        self._accumulate_rewards()

    def _check(self, agent: str, action: Any) -> None:
        """Blame an agent for its bad action when it moves, not when the stage is played."""
        stage, several = self.table.stage, len(self.table.stages_of[self._spaces.role_of[agent]]) > 1
        if several and (not isinstance(action, dict) or stage.name not in action):
            raise InvalidAction(
                f"action of {agent} must be a dictionary with the current stage {stage.name!r}, got {action!r}"
            )
        check_actions(stage, [[action[stage.name] if several else action]], 1, [agent])

    def _play(self) -> None:
        """Play the stage with the actions gathered, then find who moves next."""
        paid = self.table.commit(self._actions)
        self._actions = {}
        if paid is not None:
            self.rewards.update(paid)
            if self.render_mode is not None:
                self.screen.settle(self.table.game)
            if self.table.game.over:
                self.truncations = dict.fromkeys(self.agents, True)
                self.agent_selection = self.agents[0]
                self._refresh()
                return
        self._next_stage()

    def _next_stage(self) -> None:
        """The acting agents of the current stage, or of the next one that has any."""
        self._queue = [a for a in self.table.names[self.table.stage.role] if self.table.acting[a]]
        if not self._queue:
            self._play()
            return
        self.agent_selection = self._queue[0]
        self._refresh()

    def _refresh(self) -> None:
        self.infos = {a: self.table.info(a) for a in self.agents}
