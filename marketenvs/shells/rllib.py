"""A market as an RLlib ``MultiAgentEnv`` (new API stack).

One step is one stage, and only those who act next observe.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from ..errors import InvalidAction, ResetNeeded
from ..market import Market
from ..registry import NAMESPACE, MarketSpec, list_markets, register, spec
from .base import RENDER_MODES, Shell, check_render_mode
from .game import Scale, as_market
from .rllib_others import Others
from .table import Spaces, Table

try:
    from ray.rllib.env.multi_agent_env import MultiAgentEnv
    from ray.tune.registry import register_env
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("marketenvs.rllib needs Ray: pip install 'marketenvs[rllib]'") from error


class MarketMultiAgentEnv(Shell, MultiAgentEnv):
    """One market, turn by turn.

    A step returns observations of the agents that act next, and of them alone; stages in which nobody acts are played
    through. Rewards go to everybody when a round is settled. The last step of an episode gives everyone who has acted
    a final observation (what it saw last, or sees now) beside its reward, and truncates all, ``__all__`` included.

    Where the market masks actions, an observation is ``{"observations": Box, "action_mask": Box}`` as in RLlib's
    action-masking module: the mask is float32 with entries 0 and 1 (for MultiDiscrete: all numbers' levels in a row).
    A role with several stages observes what it saw last at each of them in a row, and acts with a Dict of its stages,
    of which only the current stage's entry counts (``infos[agent]["stage"]``).

    Args:
        market: A market, or its id with ``**params`` as for :func:`marketenvs.make`.
        render_mode: None, "rgb_array" or "ansi".
        reward_scale: Role -> constant that this role's rewards are divided by.
        only: The one role that learns: only its agents are there, ``opponents`` play the others. None: all roles.
        opponents: "equilibrium", "random", "best_response", the folder of a saved policy, "module:Class", a policy, or a
            mapping from roles to these.

    Attributes:
        metrics: Name -> number or (n,) array of the round settled last; {} before that. Not for agents.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 4}

    def __init__(
        self,
        market: Market | str,
        *,
        render_mode: str | None = None,
        reward_scale: Scale | None = None,
        only: str | None = None,
        opponents: Any = "equilibrium",
        **params: Any,
    ):
        self.market = as_market(market, params)
        self.render_mode = check_render_mode(render_mode)
        self.table = Table(self.market, reward_scale)
        self.others = Others(self.market, only, opponents)
        learning = [only] if only is not None else list(self.market.roles)
        names = [a for role in learning for a in self.table.names[role]]
        self.possible_agents, self._own = list(names), frozenset(names)
        self.agents = list(self.possible_agents)
        super().__init__()
        made = Spaces(self.market)
        self.observation_spaces = {a: _floats(made.of("observation", a)) for a in names}
        self.action_spaces = {a: made.of("action", a) for a in names}
        self._acted: set[str] = set()
        self._over = True

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the round settled last."""
        return {k: v[0] for k, v in self.table.game.metrics.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Begin an episode; ``seed`` and ``options`` as in :meth:`MarketParallelEnv.reset`."""
        self.table.reset(seed, options)
        self.others.start(self.table.game)
        self._acted, self._over = set(), False
        if self.render_mode is not None:
            self.screen.clear()
        self._skip({})
        return self._seen(self._next())

    def step(self, action_dict: Mapping[str, Any]) -> tuple[dict, dict, dict, dict, dict]:  # type: ignore[override]
        """Play one stage.

        Raises:
            ResetNeeded: Before the first reset, or after the episode's end.
            InvalidAction: Unknown agent; or of an acting agent: no action, wrong shape or type, NaN, infinity.
        """
        if self._over:
            raise ResetNeeded("the episode is over or has not begun: call reset() first")
        movers = self._next()
        rewards: dict[str, float] = {}
        if self.others.only is not None and not action_dict.keys() <= set(self.possible_agents):
            name = next(a for a in action_dict if a not in self.possible_agents)
            raise InvalidAction(f"action of {name!r}, who does not learn here: only {self.others.only} does")
        self._play(action_dict, rewards)
        self._acted.update(movers)
        self._skip(rewards)
        if self._over:
            acted = [a for a in self.possible_agents if a in self._acted]
            observations, infos = self._seen(acted)
            flags = {**dict.fromkeys(acted, True), "__all__": True}
            return observations, rewards, {**dict.fromkeys(acted, False), "__all__": False}, flags, infos
        observations, infos = self._seen(self._next())
        return observations, rewards, {"__all__": False}, {"__all__": False}, infos

    def _next(self) -> list[str]:
        return [a for a in self.table.names[self.table.stage.role] if self.table.acting[a]]

    def _play(self, actions: Mapping[str, Any], rewards: dict[str, float]) -> None:
        table = self.table
        if table.stage.role in self.others.policies:
            settled = self.others.play(table.game)
            table.look()
            paid = None
            if settled is not None:
                named = ((r, table.names[r], settled[r][0].tolist()) for r in table.names)
                paid = {a: x for _, names, row in named for a, x in zip(names, row, strict=True)}
        else:
            paid = table.commit(actions)
        if paid is not None:
            for agent, reward in paid.items():
                if agent in self._own:
                    rewards[agent] = rewards.get(agent, 0.0) + reward
            self.others.settled(table.game)
            self._over = table.game.over
            if self.render_mode is not None:
                self.screen.settle(table.game)

    def _skip(self, rewards: dict[str, float]) -> None:
        """Play through stages in which nobody acts who learns."""
        table = self.table
        while not self._over and (table.stage.role in self.others.policies or not any(table.acting.values())):
            self._play({}, rewards)

    def _seen(self, agents: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = {role: self.table.observations(role) for role in {a.rpartition("_")[0] for a in agents}}
        seen, infos = {}, {}
        for agent in agents:
            role, _, number = agent.rpartition("_")
            value = rows[role][int(number)]
            if isinstance(value, dict):
                value = {"observations": value["observation"], "action_mask": _flat(value["action_mask"])}
            seen[agent] = value
            infos[agent] = self.table.info(agent)
        return seen, infos

    def render(self) -> Any:
        """The current picture: an (H, W, 3) uint8 array, a text, or None without a render mode."""
        return self._draw(self.table.game)

    def close(self) -> None:
        """Nothing is held open."""


def _flat(mask: Any) -> np.ndarray:
    row = np.concatenate(mask) if isinstance(mask, tuple) else mask
    return row.astype(np.float32)


def _floats(space: spaces.Space) -> spaces.Space:
    """A PettingZoo observation space in RLlib's form."""
    if not isinstance(space, spaces.Dict):
        return space
    mask = space["action_mask"]
    size = sum(s.shape[0] for s in mask) if isinstance(mask, spaces.Tuple) else mask.shape[0]  # type: ignore
    return spaces.Dict({"action_mask": spaces.Box(0.0, 1.0, (size,), np.float32), "observations": space["observation"]})


def make_env(known: MarketSpec, context: Mapping[str, Any]) -> MarketMultiAgentEnv:
    """What RLlib calls, in whatever process, with ``env_config``.

    Parameters of the market, ``preset``, ``reward_scale``, ``only`` and ``opponents``.
    """
    register(known)  # a market registered by hand in the driver is unknown in a worker
    return MarketMultiAgentEnv(known.id, **dict(context))


def register_market(known: MarketSpec) -> None:
    """Let RLlib and Tune know the market as "marketenvs/<Id>" and "<Id>"."""
    for name in (f"{NAMESPACE}/{known.id}", known.id):
        register_env(name, functools.partial(make_env, known))


def register_all() -> None:
    """Let RLlib and Tune know all markets; done on import. Ray forgets them at ``ray.shutdown()``: call it again then."""
    for id in list_markets():
        register_market(spec(id))


register_all()
