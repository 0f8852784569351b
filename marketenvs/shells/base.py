"""What the shells have in common: copying, drawing, and (in PettingZoo's two) named agents with their spaces."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from gymnasium import spaces

from ..errors import InvalidParameter, ResetNeeded
from ..market import Market
from .game import Game, Scale, as_market
from .table import Spaces, Table

RENDER_MODES = ("rgb_array", "ansi")


def check_render_mode(mode: str | None) -> str | None:
    """The render mode, if it is offered; raises ``InvalidParameter``."""
    if mode is not None and mode not in RENDER_MODES:
        raise InvalidParameter(f"render_mode must be None or one of {', '.join(RENDER_MODES)}, got {mode!r}")
    return mode


class Shell:
    """A shell of one market object that can be copied and drawn."""

    market: Market
    render_mode: str | None
    _screen: Any = None

    def __deepcopy__(self, memo: dict) -> Any:
        """An environment with the same future; the market itself is shared (it holds rules and parameters only)."""
        memo[id(self.market)] = self.market
        clone = object.__new__(type(self))
        memo[id(self)] = clone
        clone.__dict__.update({k: copy.deepcopy(v, memo) for k, v in vars(self).items()})
        return clone

    @property
    def screen(self) -> Any:
        """What draws this environment (:class:`marketenvs.render.Screen`); made on first use."""
        if self._screen is None:
            from ..render import Screen

            self._screen = Screen(self.market)
        return self._screen

    def _draw(self, game: Game, index: int = 0) -> Any:
        """What ``render()`` shows of one market: an (H, W, 3) uint8 array, a text, or None without a render mode."""
        if self.render_mode is None:
            return None
        if game.begun is None:
            raise ResetNeeded("call reset() before render()")
        return self.screen.frame(game, index) if self.render_mode == "rgb_array" else self.screen.text(game, index)


class NamedAgents(Shell):
    """One market whose agents have names and spaces: the common half of the two PettingZoo environments.

    Args:
        market: A market, or its id with ``**params`` as for :func:`marketenvs.make`.
        render_mode: None, "rgb_array" or "ansi".
        reward_scale: Role -> constant that this role's rewards are divided by.

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

    def observation_space(self, agent: str) -> spaces.Space:
        """Observation space of an agent, always the same object."""
        return self._spaces.of("observation", agent)

    def action_space(self, agent: str) -> spaces.Space:
        """Action space of an agent, always the same object."""
        return self._spaces.of("action", agent)

    @property
    def observation_spaces(self) -> dict[str, spaces.Space]:
        """Observation spaces of all agents."""
        return {a: self.observation_space(a) for a in self.possible_agents}

    @property
    def action_spaces(self) -> dict[str, spaces.Space]:
        """Action spaces of all agents."""
        return {a: self.action_space(a) for a in self.possible_agents}

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the round settled last, name -> number or (n,) array; {} before that. Not for agents."""
        return {k: v[0] for k, v in self.table.game.metrics.items()}

    def state(self) -> np.ndarray:
        """All agents' last observations in a row, float32: a global view for centralised critics."""
        if self.table.game.begun is None:
            raise ResetNeeded("call reset() first")
        return self.table.state()

    def render(self) -> Any:
        """The current picture: an (H, W, 3) uint8 array, a text, or None without a render mode."""
        return self._draw(self.table.game)

    def close(self) -> None:
        """Nothing is held open."""
