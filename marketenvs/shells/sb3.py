"""All agents of one role in B markets as a native Stable-Baselines3 ``VecEnv``.

One shared policy, one step is one round.
"""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InvalidAction, InvalidParameter, NotOffered, ResetNeeded
from ..market import Market
from .base import Shell, check_render_mode
from .game import Scale, as_market
from .roles import RoleGame
from .single import action_masks

try:
    import gymnasium
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("marketenvs.sb3 needs stable-baselines3: pip install 'marketenvs[sb3]'") from error


class MarketVecEnv(Shell, VecEnv):
    """``batch`` markets times the agents of one role on SB3's environment axis; other roles are played by policies.

    Environment ``b * n + i`` is agent i of market b, so one network is shared by all agents of the role. All of them
    see the same step: a round. At the horizon every environment is done; then ``terminal_observation`` and
    ``TimeLimit.truncated`` are in its info (SB3 bootstraps there), and ``episode`` in Monitor's form.

    Args:
        market: A market, or its id with ``**params`` as for :func:`marketenvs.make`.
        role: The role that learns.
        batch: Number of markets.
        opponents: Who plays the others: a name ("equilibrium", "random", "best_response"), the folder of a saved
            policy, "module:Class", a policy, or a mapping from roles to these.
        stage: For a role with several stages: the one stage that is learned (``opponents`` play its others).
        agent: Number of the only agent that learns; None for all agents of the role.
        render_mode: None, "rgb_array" or "ansi".
        reward_scale: Role -> constant that this role's rewards are divided by.
        seed: Seed of the first reset; ``seed()`` sets a new one. At random if None.

    Attributes:
        metrics: Name -> (B,) or (B, n) of the round settled last. Not for agents: it tells what they may not know.

    Raises:
        UnknownName: Unknown id, preset, parameter, role, stage or opponent.
        InvalidParameter: A value out of range.
        NotOffered: The role has several stages and ``stage`` names none (SB3 has no Dict actions).
    """

    def __init__(
        self,
        market: Market | str,
        role: str,
        batch: int = 128,
        *,
        opponents: Any = "equilibrium",
        stage: str | None = None,
        agent: int | None = None,
        render_mode: str | None = None,
        reward_scale: Scale | None = None,
        seed: int | None = None,
        **params: Any,
    ):
        self.market = as_market(market, params)
        self.render_mode = check_render_mode(render_mode)
        self.game = RoleGame(
            self.market, role, batch, opponents=opponents, agent=agent, stage=stage, reward_scale=reward_scale
        )
        if len(self.game.own) > 1:
            names = ", ".join(s.name for s in self.game.own)
            raise NotOffered(f"role {role!r} has several stages: name the one to learn with stage=, one of {names}")
        only = self.game.own[0]
        self.agents = len(self.game.index)
        self._first_seed: int | None = seed
        self._actions: np.ndarray | None = None
        self._paid = np.zeros(self.game.game.batch * self.agents)
        self._steps = 0
        self._begun = time.time()
        super().__init__(
            self.game.game.batch * self.agents,
            copy.deepcopy(only.observation_space),
            copy.deepcopy(only.codec.action_space),
        )

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Name -> (B,) or (B, n) of the round settled last."""
        return dict(self.game.game.metrics)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed of the next reset: market b then plays seed + b. Returns one entry per environment."""
        self._first_seed = secrets.randbits(31) if seed is None else int(seed)
        return [self._first_seed + i // self.agents for i in range(self.num_envs)]

    def reset(self) -> np.ndarray:
        """Begin an episode in every market; observations (batch * n, d), float32.

        Options set with ``set_options`` are read from its first entry: ``split``, and ``instance_ids`` with one number
        per market.
        """
        self.game.reset(self._first_seed, self._options[0])
        self._first_seed = None
        self._reset_options()
        if self.render_mode is not None:
            self.screen.clear()
        self._start_episode()
        return self._observation()

    def _start_episode(self) -> None:
        self._paid = np.zeros(self.num_envs)
        self._steps = 0

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions (batch * n, *action shape) for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Play the round.

        Raises:
            ResetNeeded: Before the first reset, or without :meth:`step_async`.
            InvalidAction: Wrong shape or type, NaN or infinity.
        """
        if self.game.game.begun is None:
            raise ResetNeeded("call reset() first")
        if self._actions is None:
            raise ResetNeeded("call step_async(actions) first")
        actions, self._actions = np.asarray(self._actions), None
        if actions.ndim == 0 or len(actions) != self.num_envs:
            raise InvalidAction(f"need one action for each of {self.num_envs} environments, got shape {actions.shape}")
        batch = self.game.game.batch
        rewards = np.asarray(self.game.step(actions.reshape(batch, self.agents, *actions.shape[1:]))).reshape(-1)
        if self.render_mode is not None:
            self.screen.settle(self.game.game)
        self._paid += rewards
        self._steps += 1
        over = self.game.over
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        observation = self._observation()
        if over:
            elapsed = round(time.time() - self._begun, 6)
            for i, (info, last, paid) in enumerate(zip(infos, observation, self._paid.tolist(), strict=True)):
                info["terminal_observation"] = last
                info["TimeLimit.truncated"] = True
                info["episode"] = {"r": paid, "l": self._steps, "t": elapsed}
                self.reset_infos[i] = {}
            self.game.reset()
            self._start_episode()
            observation = self._observation()
        return observation, rewards.astype(np.float32), np.full(self.num_envs, over), infos

    def _observation(self) -> np.ndarray:
        seen = self.game.observation()
        return seen.reshape(self.num_envs, seen.shape[-1])

    def action_masks(self) -> np.ndarray:
        """Legal actions, bool (batch * n, A); all True where nothing is masked.

        Raises:
            NotOffered: The stage is continuous.
        """
        masks = action_masks(self.game)
        return masks.reshape(self.num_envs, masks.shape[-1])

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Pictures of the first four markets."""
        if self.game.game.begun is None:
            raise ResetNeeded("call reset() before render()")
        return [self.screen.frame(self.game.game, b) for b in range(min(4, self.game.game.batch))]

    def has_attr(self, attr_name: str) -> bool:
        """Whether the environments have an attribute; ``action_masks`` only where the market masks actions."""
        if attr_name == "action_masks":
            return self.game.game.masked[self.game.own[0].name]
        return hasattr(self, attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of this object, once for every index."""
        return [getattr(self, attr_name)] * self._count(indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of this object; all environments share it, so ``indices`` must be None.

        Raises:
            InvalidParameter: Indices were given.
        """
        if indices is not None:
            raise InvalidParameter("the environments of a MarketVecEnv share their attributes: leave indices out")
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list:
        """Call a method once; its result for every index (``action_masks``: each environment's row)."""
        result = getattr(self, method_name)(*method_args, **method_kwargs)
        if method_name == "action_masks":
            return [result[i] for i in self._get_indices(indices)]
        return [result] * self._count(indices)

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """False for all: nothing is wrapped (episode statistics are in ``info["episode"]`` all the same)."""
        return [False] * self._count(indices)

    def _count(self, indices: VecEnvIndices) -> int:
        return len(list(self._get_indices(indices)))

    def close(self) -> None:
        """Nothing is held open."""
