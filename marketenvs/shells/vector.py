"""B markets as a native Gymnasium ``VectorEnv``: one step is one round of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ..errors import InvalidAction, InvalidParameter, ResetNeeded
from ..market import Market
from .base import RENDER_MODES, Shell, check_render_mode
from .game import Scale, as_market
from .roles import RoleGame, one_action
from .single import action_masks, view_spaces


class MarketVectorEnv(Shell, VectorEnv):
    """The view of :class:`MarketSingleAgentEnv`, of ``num_envs`` markets at once.

    Environment i of a reset with seed s plays what a single environment plays after ``reset(seed=s + i)``, episode
    after episode, bit for bit (opponents that mix draw from one stream for the whole batch, so they differ). All
    markets have the same length, so all episodes end in the same step.

    Args:
        market: A market, or its id with ``**params`` as for :func:`marketenvs.make`.
        role: The agent's role.
        num_envs: Number of markets.
        opponents: See :class:`MarketSingleAgentEnv`.
        agent: Number of the agent within its role.
        stage: See :class:`MarketSingleAgentEnv`.
        render_mode: None, "rgb_array" or "ansi"; ``render()`` shows the first eight markets.
        reward_scale: Role -> constant that this role's rewards are divided by.
        autoreset_mode: ``SAME_STEP`` (default): the step that ends an episode returns the next one's first
            observation, and the last one in ``infos["final_obs"]``. ``NEXT_STEP``: the step after it resets, ignores
            its actions and pays 0.
        max_episode_steps: Truncate after so many rounds, if that is before the market's horizon.

    Raises:
        UnknownName: Unknown id, preset, parameter, role, stage or opponent.
        InvalidParameter: A value out of range.
    """

    def __init__(
        self,
        market: Market | str,
        role: str,
        num_envs: int = 1,
        *,
        opponents: Any = "equilibrium",
        agent: int = 0,
        stage: str | None = None,
        render_mode: str | None = None,
        reward_scale: Scale | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        **params: Any,
    ):
        self.market = as_market(market, params)
        self.render_mode = check_render_mode(render_mode)
        try:
            mode = AutoresetMode(autoreset_mode)
        except ValueError:
            mode = AutoresetMode.DISABLED
        if mode == AutoresetMode.DISABLED:
            raise InvalidParameter(f"autoreset_mode must be SAME_STEP or NEXT_STEP, got {autoreset_mode!r}")
        self.metadata = {"render_modes": list(RENDER_MODES), "render_fps": 4, "autoreset_mode": mode}
        self.game = RoleGame(
            self.market, role, num_envs, opponents=opponents, agent=agent, stage=stage, reward_scale=reward_scale
        )
        if max_episode_steps is not None:
            self.game.game.horizon = min(self.game.game.horizon, max_episode_steps)
        self.num_envs = self.game.game.batch
        self.single_observation_space, self.single_action_space = view_spaces(self.game)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._ready = self._over = False

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Name -> (B,) or (B, n) of the round settled last. Not for agents: it tells what they may not know."""
        return dict(self.game.game.metrics)

    def reset(  # type: ignore[override]
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin ``num_envs`` episodes.

        Args:
            seed: s for seeds s, s + 1, ...; or one seed per environment; None goes on with the sequence.
            options: ``instance_ids`` (one per environment) and ``split``, as in :meth:`MarketParallelEnv.reset`.
        """
        self.game.reset(seed, options)
        super().reset(seed=seed if isinstance(seed, int) else None)
        self._ready, self._over = True, False
        if self.render_mode is not None:
            self.screen.clear()
        return self._observation(), self._infos()

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Play one round of every market.

        Raises:
            ResetNeeded: Before the first reset.
            InvalidAction: Wrong shape or type, NaN or infinity.
        """
        if not self._ready:
            raise ResetNeeded("call reset() first")
        never = np.zeros(self.num_envs, dtype=bool)
        if self._over:  # NEXT_STEP: this step only resets
            observation, infos = self.reset()
            return observation, np.zeros(self.num_envs), never, never.copy(), infos
        rounds = self.game.game.rounds
        actions = one_action(self.game, actions)
        if np.ndim(actions) == 0 or len(actions) != self.num_envs:
            raise InvalidAction(f"need one action for each of {self.num_envs} environments, got {actions!r}")
        values = np.asarray(actions)[:, None] if not isinstance(actions, np.ndarray) else actions[:, None]
        paid = self.game.step(values)
        if self.render_mode is not None and self.game.game.rounds > rounds:
            self.screen.settle(self.game.game)
        rewards = np.array(paid[:, 0], dtype=np.float64)
        over = self.game.over
        truncated = np.full(self.num_envs, over)
        final: dict[str, Any] = {}
        if over and self.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP:
            final = self._final()
            observation, infos = self.reset()
        else:
            self._over = over
            observation, infos = self._observation(), self._infos()
        return observation, rewards, never, truncated, {**infos, **final}

    def _observation(self) -> Any:
        return self.game.observation()[:, 0]

    def _infos(self) -> dict[str, Any]:
        """Gymnasium's form: name -> array over environments, and ``_name`` -> which of them have it."""
        every = np.ones(self.num_envs, dtype=bool)
        infos: dict[str, Any] = {"acting": self.game.acting()[:, 0].copy(), "_acting": every}
        if len(self.game.own) > 1:
            infos |= {"stage": np.full(self.num_envs, self.game.stage.name, dtype=object), "_stage": every}
        mask = self.game.mask()
        if mask is not None:
            infos |= {"action_mask": mask[:, 0], "_action_mask": every}
        return infos

    def _final(self) -> dict[str, Any]:
        every = np.ones(self.num_envs, dtype=bool)
        seen, infos = self._observation(), self._infos()
        rows = np.empty(self.num_envs, dtype=object)
        rows[:] = list(seen)
        return {"final_obs": rows, "_final_obs": every, "final_info": infos, "_final_info": every.copy()}

    def action_masks(self) -> np.ndarray:
        """Legal actions at the next move, bool (B, A); all True where nothing is masked."""
        return action_masks(self.game)[:, 0]

    def render(self) -> tuple[Any, ...] | None:
        """Pictures (or texts) of the first eight markets; None without a render mode."""
        if self.render_mode is None:
            return None
        if not self._ready:
            raise ResetNeeded("call reset() before render()")
        return tuple(self._draw(self.game.game, i) for i in range(min(8, self.num_envs)))

    def close_extras(self, **kwargs: Any) -> None:
        """Nothing is held open."""
