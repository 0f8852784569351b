"""One agent of a market as a Gymnasium ``Env``: one step is one round."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ..errors import NotOffered, ResetNeeded
from ..market import Market
from .actions import actions_of, split_mask
from .base import RENDER_MODES, Shell, check_render_mode
from .game import Scale, as_market
from .roles import RoleGame, one_action
from .table import in_a_row


def view_spaces(game: RoleGame) -> tuple[spaces.Space, spaces.Space]:
    """New observation and action spaces of one learner; where it moves in several stages, as in :mod:`.table`."""
    seen = in_a_row([s.observation_space for s in game.own])
    acts: dict[str, spaces.Space] = {s.name: copy.deepcopy(s.codec.action_space) for s in game.own}
    return seen, acts[game.own[0].name] if len(acts) == 1 else spaces.Dict(acts)


class MarketSingleAgentEnv(Shell, gymnasium.Env):
    """One agent learns, everybody else is played by policies, and one step is one round.

    The observation is the agent's own at its stage; opponents of later stages see what it did. Rewards are the agent's
    payoff of the round; the episode is truncated after ``horizon`` rounds and never terminates. An agent of a role
    with several stages moves once per stage: then a step lasts from one of its moves to the next, spaces are Dicts
    of the stages, ``info["stage"]`` names the one whose entry counts, and rewards come with the step that settles a
    round.

    Args:
        market: A market, or its id with ``**params`` as for :func:`marketenvs.make`.
        role: The agent's role.
        opponents: Who plays the others: a name ("equilibrium", "random", "best_response"), the folder of a saved
            policy, "module:Class", a policy, or a mapping from roles to these.
        agent: Number of the agent within its role.
        stage: For a role with several stages: the one stage in which the agent moves (``opponents`` move in the
            others).
        render_mode: None, "rgb_array" or "ansi".
        reward_scale: Role -> constant that this role's rewards are divided by.

    Attributes:
        metrics: Name -> number or (n,) array of the round settled last. Not for the agent: it tells what it may not
            know.

    Raises:
        UnknownName: Unknown id, preset, parameter, role, stage or opponent.
        InvalidParameter: A value out of range.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 4}

    def __init__(
        self,
        market: Market | str,
        role: str,
        *,
        opponents: Any = "equilibrium",
        agent: int = 0,
        stage: str | None = None,
        render_mode: str | None = None,
        reward_scale: Scale | None = None,
        **params: Any,
    ):
        self.market = as_market(market, params)
        self.render_mode = check_render_mode(render_mode)
        self.game = RoleGame(
            self.market, role, 1, opponents=opponents, agent=agent, stage=stage, reward_scale=reward_scale
        )
        self.observation_space, self.action_space = view_spaces(self.game)
        self._over = True

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the round settled last."""
        return {k: v[0] for k, v in self.game.game.metrics.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; ``seed`` and ``options`` as in :meth:`MarketParallelEnv.reset`."""
        self.game.reset(seed, options)
        super().reset(seed=seed)
        self._over = False
        if self.render_mode is not None:
            self.screen.clear()
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one round.

        Raises:
            ResetNeeded: Before the first reset, or after the episode's end.
            InvalidAction: Wrong shape or type, NaN or infinity.
        """
        if self._over:
            raise ResetNeeded("the episode is over or has not begun: call reset() first")
        rounds = self.game.game.rounds
        reward = self.game.step([[one_action(self.game, action)]])
        if self.render_mode is not None and self.game.game.rounds > rounds:
            self.screen.settle(self.game.game)
        self._over = self.game.over
        return self._observation(), float(np.sum(reward)), False, self._over, self._info()

    def _observation(self) -> Any:
        return self.game.observation()[0, 0]

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"acting": bool(self.game.acting()[0, 0])}
        if len(self.game.own) > 1:
            info["stage"] = self.game.stage.name
        mask = self.game.mask()
        if mask is not None:
            info["action_mask"] = split_mask(self.game.stage, mask[0, 0])
        return info

    def action_masks(self) -> np.ndarray:
        """Legal actions at the next move, bool (A,), for MaskablePPO; all True where nothing is masked."""
        return action_masks(self.game)[0, 0]

    def render(self) -> Any:
        """The current picture: an (H, W, 3) uint8 array, a text, or None without a render mode."""
        return self._draw(self.game.game)

    def close(self) -> None:
        """Nothing is held open."""


def action_masks(game: RoleGame) -> np.ndarray:
    """Legal actions at the learner's next move, bool (B, m, A); all True where nothing is masked.

    Raises:
        NotOffered: The stage is continuous.
    """
    if not game.stage.codec.discrete:
        raise NotOffered(f"stage {game.stage.name!r} is continuous: it has no action masks")
    mask = game.mask()
    shape = (game.game.batch, len(game.index), actions_of(game.stage))
    return np.ones(shape, dtype=bool) if mask is None else mask.astype(bool)
