"""A market as a PettingZoo ``ParallelEnv``: one step is one stage."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from ..errors import InvalidParameter, ResetNeeded
from ..market import Market
from .game import Scale, as_market
from .table import Spaces, Table

RENDER_MODES = ("rgb_array", "ansi")


def check_render_mode(mode: str | None) -> str | None:
    """The render mode, if it is offered."""
    if mode is not None and mode not in RENDER_MODES:
        raise InvalidParameter(f"render_mode must be None or one of {', '.join(RENDER_MODES)}, got {mode!r}")
    return mode


class MarketParallelEnv(ParallelEnv):
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

    def __init__(
        self,
        market: Market | str,
        *,
        render_mode: str | None = None,
        reward_scale: Scale | None = None,
        **params: Any,
    ):
        self.market = as_market(market, params)
        self.render_mode = check_render_mode(render_mode)
        self.table = Table(self.market, reward_scale)
        self.metadata = {
            "name": (self.market.id or type(self.market).__name__).replace("-", "_"),
            "render_modes": list(RENDER_MODES),
            "render_fps": 4,
            "is_parallelizable": True,
        }
        self.possible_agents = list(self.market.agents)
        self.agents: list[str] = []
        self._spaces = Spaces(self.market)
        self._roles = list(self.market.roles)
        self._screen: Any = None

    def __deepcopy__(self, memo: dict) -> MarketParallelEnv:
        """An environment with the same future; the market itself is shared (it holds rules and parameters only)."""
        return copy_env(self, memo)

    def observation_space(self, agent: str) -> spaces.Space:
        """Observation space of an agent, always the same object."""
        return self._spaces.of("observation", agent)

    def action_space(self, agent: str) -> spaces.Space:
        """Action space of an agent, always the same object."""
        return self._spaces.of("action", agent)

    @property
    def observation_spaces(self) -> dict[str, spaces.Space]:  # type: ignore[override]
        """Observation spaces of all agents."""
        return {a: self.observation_space(a) for a in self.possible_agents}

    @property
    def action_spaces(self) -> dict[str, spaces.Space]:  # type: ignore[override]
        """Action spaces of all agents."""
        return {a: self.action_space(a) for a in self.possible_agents}

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the round settled last."""
        return {k: v[0] for k, v in self.table.game.metrics.items()}

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
        for role in self._roles:
            seen.update(zip(self.table.names[role], self.table.observations(role), strict=True))
        return seen

    def _infos(self) -> dict[str, dict[str, Any]]:
        return {a: self.table.info(a) for a in self.possible_agents}

    def state(self) -> np.ndarray:
        """All agents' last observations in a row, float32: a global view for centralised critics."""
        if self.table.game.begun is None:
            raise ResetNeeded("call reset() first")
        return self.table.state()

    @property
    def screen(self) -> Any:
        """What draws this environment; made on first use."""
        if self._screen is None:
            from ..render import Screen

            self._screen = Screen(self.market)
        return self._screen

    def render(self) -> Any:
        """The current picture: an (H, W, 3) uint8 array, a text, or None without a render mode."""
        return render(self, self.table.game)

    def close(self) -> None:
        """Nothing is held open."""


def copy_env(env: Any, memo: dict) -> Any:
    """``copy.deepcopy`` of an environment that shares the market."""
    memo[id(env.market)] = env.market
    clone = object.__new__(type(env))
    memo[id(env)] = clone
    clone.__dict__.update({k: copy.deepcopy(v, memo) for k, v in vars(env).items()})
    return clone


def render(env: Any, game: Any) -> Any:
    """What ``env.render()`` returns in every shell."""
    if env.render_mode is None:
        return None
    if game.begun is None:
        raise ResetNeeded("call reset() before render()")
    return env.screen.frame(game) if env.render_mode == "rgb_array" else env.screen.text(game)
