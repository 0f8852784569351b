"""An RLlib ``EnvRunner`` that steps the batched core: one call of the rules and one of each network for all markets.

RLlib's own ``MultiAgentEnvRunner`` steps every environment, agent and timestep in Python. This one plays
``num_envs_per_env_runner`` markets as one batch and hands whole arrays to RLlib's episode objects, from which every
RLlib learner trains as usual. Use it with ``config.env_runners(env_runner_cls=MarketEnvRunner)`` and any environment of
``marketenvs.rllib``.

What is the same as with RLlib's own runner: markets and seeds (market i of the batch is the environment of seed + i),
observations, rewards, the step count (one stage of one market is one environment step; stages of roles that do not
learn count for nobody), where a chunk ends, how rewards
of rounds in which an agent is idle are added to its last action. What differs: chunks are never joined to one long
episode (each has its own id), episode callbacks are not called (``on_sample_end`` is), and there are no
env-to-module or module-to-env connectors: configurations that set some are refused.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from ..errors import InvalidParameter
from ..market import Market, Stage
from .actions import actions_of
from .game import Game
from .rllib import register_all
from .rllib_others import Others

try:
    import torch
    from ray.rllib.core.columns import Columns
    from ray.rllib.env.env_context import EnvContext
    from ray.rllib.env.multi_agent_env import MultiAgentEnv
    from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
    from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode
    from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
    from ray.rllib.env.vector.sync_vector_multi_agent_env import SyncVectorMultiAgentEnv
    from ray.rllib.utils.metrics import (
        NUM_AGENT_STEPS_SAMPLED,
        NUM_AGENT_STEPS_SAMPLED_LIFETIME,
        NUM_ENV_STEPS_SAMPLED,
        NUM_ENV_STEPS_SAMPLED_LIFETIME,
        NUM_EPISODES,
        NUM_EPISODES_LIFETIME,
        NUM_MODULE_STEPS_SAMPLED,
        NUM_MODULE_STEPS_SAMPLED_LIFETIME,
        RLMODULE_INFERENCE_TIMER,
        WEIGHTS_SEQ_NO,
    )
    from ray.rllib.utils.replay_buffers.multi_agent_episode_buffer import MultiAgentEpisodeReplayBuffer
    from ray.tune.registry import ENV_CREATOR, _global_registry
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("marketenvs.rllib needs Ray and torch: pip install 'marketenvs[rllib]'") from error


def stage_agents(market: Market, stage: Stage) -> list[str]:
    """Names of a stage's agents: ``role_i``, or ``role_i/stage`` where the role has several stages.

    An agent of a stage of its own has plain spaces and its own policy, which a Dict of several stages would not give.
    """
    several = len(market.stages_of[stage.role]) > 1
    return [f"{stage.role}_{i}" + (f"/{stage.name}" if several else "") for i in range(market.roles[stage.role])]


def stage_spaces(game: Game, stage: Stage) -> tuple[spaces.Space, spaces.Space]:
    """Observation and action space of one agent of a stage; masked stages observe ``observations`` and ``action_mask``."""
    seen: spaces.Space = stage.observation_space
    if game.masked[stage.name]:
        mask = spaces.Box(0.0, 1.0, (actions_of(stage),), np.float32)
        seen = spaces.Dict({"action_mask": mask, "observations": stage.observation_space})
    return seen, stage.codec.action_space


class _Spaces(MultiAgentEnv):
    """Agents and spaces of the batch, in the form that RLlib asks environments for; it cannot be stepped."""

    def __init__(self, game: Game, stages: Sequence[Stage]):
        self.observation_spaces, self.action_spaces = {}, {}
        for stage in stages:
            seen, action = stage_spaces(game, stage)
            for agent in stage_agents(game.market, stage):
                self.observation_spaces[agent], self.action_spaces[agent] = seen, action
        self.possible_agents = list(self.observation_spaces)
        self.agents = list(self.possible_agents)
        super().__init__()


class MarketEpisode(MultiAgentEpisode):
    """Names its agents in the order of play; RLlib's sets follow Python's hash seed, so no two processes learn alike."""

    __slots__ = ()

    @property
    def agent_ids(self) -> Any:
        """All agents with data."""
        return self.agent_episodes.keys()

    def get_agents_that_stepped(self) -> Any:
        """All agents with data: a chunk holds none that has not moved."""
        return self.agent_episodes.keys()


class MarketEpisodeReplayBuffer(MultiAgentEpisodeReplayBuffer):
    """RLlib's multi-agent replay buffer, drawing for the modules in a fixed order (for the same reason)."""

    def sample(self, *args: Any, modules_to_sample: Any = None, **kwargs: Any) -> Any:
        """As RLlib's."""
        return super().sample(*args, modules_to_sample=sorted(modules_to_sample or self._module_to_indices), **kwargs)


@dataclass
class _Track:
    """One stage's play since the last chunk; a list has one entry per round, each with leading axes (B, n)."""

    stage: Stage
    agents: list[str]
    modules: dict[str, np.ndarray]
    """Module -> numbers of its agents."""
    columns: dict[str, list[np.ndarray]] = field(default_factory=dict)
    acted: list[np.ndarray] = field(default_factory=list)
    rewards: list[np.ndarray] = field(default_factory=list)
    open: dict[str, np.ndarray] | None = None
    """Columns, ``acted`` and ``rewards`` of actions whose next observation was not there when the last chunk ended."""

    def add(self, columns: dict[str, np.ndarray], acted: np.ndarray) -> None:
        for name, values in columns.items():
            self.columns.setdefault(name, []).append(values)
        self.acted.append(acted)

    def stack(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Columns (B, n, T, ...), acted (B, n, T) and rewards (B, n, T), the open actions first."""
        parts = {k: list(v) for k, v in self.columns.items()}
        acted, rewards = list(self.acted), list(self.rewards)
        if self.open is not None:
            acted.insert(0, self.open["acted"])
            rewards.insert(0, self.open["rewards"])
            for name, values in parts.items():
                values.insert(0, self.open[name])
        out = {k: np.ascontiguousarray(np.moveaxis(np.stack(v), 0, 2)) for k, v in parts.items()}
        return out, np.stack(acted, axis=2), np.stack(rewards, axis=2)

    def clear(self) -> None:
        self.columns, self.acted, self.rewards, self.open = {}, [], [], None


def _observations(columns: dict[str, np.ndarray], b: int, i: int, rows: Any, last: list[np.ndarray]) -> Any:
    """Observations of an agent's steps with the final one, as one array (or a dictionary of two, where masked)."""
    seen = np.concatenate((columns["observations"][b, i, rows], last[0][b, i][None]))
    if "action_mask" not in columns:
        return seen
    mask = np.concatenate((columns["action_mask"][b, i, rows], last[1][b, i][None]))
    return {"action_mask": mask, "observations": seen}


class MarketEnvRunner(MultiAgentEnvRunner):
    """Samples from ``num_envs_per_env_runner`` markets at once; see the module.

    Raises:
        InvalidParameter: The environment is not one of ``marketenvs.rllib``, or the configuration sets connectors.
    """

    game: Game
    market: Market
    others: Others
    _tracks: list[_Track]
    _always: bool
    _ran: float
    _returns: dict[str, np.ndarray]
    _steps: dict[str, np.ndarray]

    def make_env(self) -> None:
        """Make the batch of markets (RLlib calls this)."""
        config = self.config
        if config._env_to_module_connector is not None or config._module_to_env_connector is not None:
            raise InvalidParameter("MarketEnvRunner has no connectors: leave them out, or use RLlib's own env runner")
        if not _global_registry.contains(ENV_CREATOR, config.env):
            register_all()  # Ray forgets names when it is shut down
        if not (isinstance(config.env, str) and _global_registry.contains(ENV_CREATOR, config.env)):
            raise InvalidParameter(
                f"MarketEnvRunner plays environments of marketenvs.rllib by name, such as 'marketenvs/AIBazaar-v0', got "
                f"{config.env!r}"
            )
        context = EnvContext(config.env_config, worker_index=self.worker_index or 0)
        shell = _global_registry.get(ENV_CREATOR, config.env)(context)
        if not hasattr(shell, "table"):
            raise InvalidParameter(f"{config.env!r} is not an environment of marketenvs.rllib")
        self.game = Game(shell.market, config.num_envs_per_env_runner, shell.table.game.scale)
        self.market, self.others = shell.market, shell.others
        learning = [s for s in self.market.stages if s.role not in self.others.policies]
        self.env = SyncVectorMultiAgentEnv([lambda: _Spaces(self.game, learning)])
        self.num_envs = self.game.batch
        self._tracks = [self._track(stage) for stage in learning]
        self._always = type(self.market).acting is Market.acting
        self._needs_initial_reset = True
        self._ran = 0.0
        self._returns, self._steps = {}, {}

    def _track(self, stage: Stage) -> _Track:
        agents = stage_agents(self.market, stage)
        modules: dict[str, list[int]] = {}
        for i, agent in enumerate(agents):
            mapping: Any = self.config.policy_mapping_fn
            modules.setdefault(mapping(agent, None), []).append(i)
        return _Track(stage, agents, {m: np.array(v) for m, v in modules.items()})

    def assert_healthy(self) -> None:
        """Checked by RLlib after construction."""
        assert self.env is not None
        assert self.module is not None

    def _reset(self) -> None:
        self.game.reset(self._seed if self._needs_initial_reset else None)
        self._needs_initial_reset = False
        self._ran = time.perf_counter()
        for track in self._tracks:
            track.clear()
            self._returns[track.stage.name] = np.zeros((self.game.batch, len(track.agents)))
        self._steps = {track.stage.name: np.zeros((self.game.batch, len(track.agents))) for track in self._tracks}
        self.others.start(self.game)
        self._advance()

    def _advance(self) -> None:
        """Let the policies of roles that do not learn play until it is somebody else's turn."""
        while not self.game.over and self.game.stage.role in self.others.policies:
            self._pay(self.others.play(self.game))

    def _pay(self, rewards: Mapping[str, np.ndarray] | None) -> None:
        """Book the rewards of a round, if one has just been settled."""
        if rewards is None:
            return
        for track in self._tracks:
            paid = rewards[track.stage.role]
            track.rewards.append(paid)
            self._returns[track.stage.name] += paid
        self.others.settled(self.game)

    def _sample(  # type: ignore[override]
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[MarketEpisode]:  # type: ignore[override]
        """At least so many timesteps (in whole rounds of all markets) or episodes."""
        if force_reset or num_episodes is not None or self._needs_initial_reset:
            self._reset()
        stages, batch = len(self._tracks), self.game.batch
        if num_timesteps is not None:
            per = stages * batch
            if self.config.count_steps_by != "env_steps":
                per = sum(len(t.agents) for t in self._tracks) * batch
            rounds = -(-num_timesteps // per)
        else:
            assert num_episodes is not None
            rounds = -(-num_episodes // batch) * self.game.horizon
        out: list[MarketEpisode] = []
        start = self.num_env_steps_sampled_lifetime
        for played in range(rounds):
            if self.game.begun is None or self.game.over:
                self._reset()
            for track in self._tracks:
                self._move(track, explore, random_actions, start + played * stages * batch)
            if self.game.over:
                out += self._chunk(end=True)
                self._log_episodes()
        if not self.game.over:
            out += self._chunk(end=False)
        self._log_steps(rounds * stages * batch, out)
        return out

    def _move(self, track: _Track, explore: bool, random_actions: bool, t: int) -> None:
        """One stage of one round in all markets."""
        game, stage = self.game, track.stage
        columns: dict[str, np.ndarray] = {"observations": game.observe()}
        mask = game.mask()
        if mask is not None:
            columns["action_mask"] = mask.astype(np.float32)
        acted = np.ones(columns["observations"].shape[:2], dtype=bool) if self._always else game.acting()
        if random_actions:
            columns[Columns.ACTIONS] = self._random(stage, columns)
        else:
            for module, index in track.modules.items():
                for name, values in self._forward(module, columns, index, explore, t).items():
                    if name not in columns:
                        shape = (*acted.shape, *values.shape[2:])
                        columns[name] = np.zeros(shape, dtype=values.dtype)
                    columns[name][:, index] = values
        actions = columns[Columns.ACTIONS]
        if isinstance(stage.codec.action_space, spaces.Box):
            actions = np.clip(actions, -1.0, 1.0)  # as RLlib does before it steps an environment
        if acted.all():
            decisions = game.decode(actions, track.agents)
        else:
            idle = np.where(acted.reshape(acted.shape + (1,) * (actions.ndim - 2)), actions, np.zeros_like(actions))
            decisions = np.where(acted[..., None], game.decode(idle, track.agents), game.neutral())
        track.add(columns, acted)
        self._steps[stage.name] += acted
        self._pay(game.commit(decisions))
        self._advance()

    def _random(self, stage: Stage, columns: dict[str, np.ndarray]) -> np.ndarray:
        space, shape = stage.codec.action_space, columns["observations"].shape[:2]
        if isinstance(space, spaces.Box):
            return np.random.uniform(-1.0, 1.0, (*shape, *space.shape)).astype(np.float32)  # noqa: NPY002 - RLlib seeds it
        sizes = getattr(space, "nvec", None)
        legal = columns.get("action_mask")
        if sizes is not None:
            parts = [np.random.random((*shape, int(n))) for n in sizes]  # noqa: NPY002
            masks: list[Any] = [1.0] * len(parts)
            if legal is not None:
                masks = np.split(legal, np.cumsum(sizes)[:-1], axis=-1)
            return np.stack([(p * m).argmax(-1) for p, m in zip(parts, masks, strict=True)], axis=-1)
        ranks = np.random.random((*shape, int(space.n)))  # type: ignore[attr-defined]  # noqa: NPY002
        return (ranks if legal is None else ranks * legal).argmax(-1)

    def _forward(
        self, module: str, columns: dict[str, np.ndarray], index: np.ndarray, explore: bool, t: int
    ) -> dict[str, np.ndarray]:
        """Actions and what the learner wants to know about them, each (B, m, ...)."""
        assert self.module is not None
        net = self.module[module]
        every = len(index) == columns["observations"].shape[1]
        flat = {}
        for key in ("observations", "action_mask"):
            if key in columns:
                part = columns[key] if every else columns[key][:, index]
                flat[key] = torch.from_numpy(part.reshape(-1, part.shape[-1])).to(self._device)
        batch = {Columns.OBS: flat if "action_mask" in flat else flat["observations"]}
        with self.metrics.log_time(RLMODULE_INFERENCE_TIMER), torch.no_grad():
            found = net.forward_exploration(batch, t=t) if explore else net.forward_inference(batch)
            if Columns.ACTIONS not in found:
                kind = net.get_exploration_action_dist_cls() if explore else net.get_inference_action_dist_cls()
                distribution = kind.from_logits(found[Columns.ACTION_DIST_INPUTS])
                if not explore:
                    distribution = distribution.to_deterministic()
                found[Columns.ACTIONS] = distribution.sample()
                if explore:
                    found[Columns.ACTION_LOGP] = distribution.logp(found[Columns.ACTIONS])
        keep = (Columns.ACTIONS, Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS)
        rows = len(columns["observations"])
        return {
            k: (a := found[k].detach().cpu().numpy()).reshape(rows, len(index), *a.shape[1:])
            for k in keep
            if k in found
        }

    def _chunk(self, end: bool) -> list[MarketEpisode]:
        """Everything played since the last chunk as one RLlib episode per market."""
        game = self.game
        length = len(self._tracks[0].acted) * len(self._tracks)
        out = []
        for _ in range(game.batch):
            episode = MarketEpisode(
                id_=uuid.UUID(bytes=np.random.bytes(16)).hex,  # noqa: NPY002 - from the seeded stream, so that runs repeat
                agent_to_module_mapping_fn=self.config.policy_mapping_fn,  # type: ignore[arg-type]
            )
            episode.env_t = length
            episode.is_truncated = end
            out.append(episode)
        for track in self._tracks:
            self._fill(track, out, end)
        return out

    def _fill(self, track: _Track, episodes: list[MarketEpisode], end: bool) -> None:
        columns, acted, rewards = track.stack()
        first = track.stage.name == self.game.stage.name
        last_seen, now = self._last(columns, first)
        extras = [k for k in columns if k in (Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS)]
        dense, every = bool(acted.all()), np.arange(acted.shape[2])
        # An action is complete at the episode's end, or when its agent moves again.
        closed = np.ones(acted.shape[:2], dtype=bool) if end else now
        kept = {k: v[:, :, -1].copy() for k, v in columns.items()}
        track.clear()
        own = [columns[k] for k in ("observations", "action_mask") if k in columns]
        for i, agent in enumerate(track.agents):
            module = _module_of(track, i)
            for b, episode in enumerate(episodes):
                when = every if dense else np.flatnonzero(acted[b, i])
                if not len(when):
                    continue
                paid = rewards[b, i] if dense else np.add.reduceat(rewards[b, i], when)
                final, newest = last_seen, when[-1]
                if not closed[b, i]:
                    final, when, paid = [part[:, :, newest] for part in own], when[:-1], paid[:-1]
                    for name, values in kept.items():
                        values[b, i] = columns[name][b, i, newest]
                count = len(when)
                rows: Any = slice(0, count) if dense else when
                if not count:
                    continue
                sole = SingleAgentEpisode(
                    id_=f"{episode.id_}{agent}",
                    agent_id=agent,
                    module_id=module,
                    multi_agent_episode_id=episode.id_,  # type: ignore[arg-type]
                    observations=InfiniteLookbackBuffer(_observations(columns, b, i, rows, final)),
                    actions=InfiniteLookbackBuffer(columns[Columns.ACTIONS][b, i, rows]),
                    rewards=InfiniteLookbackBuffer(paid),
                    infos=InfiniteLookbackBuffer([{}] * (count + 1)),
                    extra_model_outputs={
                        **{k: InfiniteLookbackBuffer(columns[k][b, i, rows]) for k in extras},
                        WEIGHTS_SEQ_NO: InfiniteLookbackBuffer(np.full(count, self._weights_seq_no)),
                    },
                    truncated=end,
                    t_started=0,
                    len_lookback_buffer=0,
                )
                sole.t = count
                episode.agent_episodes[agent] = sole
                episode._agent_to_module_mapping[agent] = module
                episode.env_t_to_agent_t[agent] = InfiniteLookbackBuffer(list(range(count + 1)))
        if end or closed.all():
            return
        waiting = ~closed & acted.any(axis=2)
        owed = np.where(waiting, _since_last(acted, rewards), 0.0)
        track.open = {**kept, "acted": waiting, "rewards": owed}

    def _last(self, columns: dict[str, np.ndarray], first: bool) -> tuple[list[np.ndarray], np.ndarray]:
        """What agents see last (the first stage's: the next round's start), and who of them moves now."""
        if not first:
            rows = [columns[k][:, :, -1] for k in ("observations", "action_mask") if k in columns]
            return rows, np.zeros(columns["observations"].shape[:2], dtype=bool)
        seen, mask = self.game.observe(), self.game.mask()
        now = np.ones(seen.shape[:2], dtype=bool) if self._always else self.game.acting()
        return [seen] if mask is None else [seen, mask.astype(np.float32)], now

    def _log_steps(self, steps: int, episodes: list[MarketEpisode]) -> None:
        metrics = self.metrics
        metrics.log_value(NUM_ENV_STEPS_SAMPLED, steps, reduce="sum")
        metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, steps, reduce="lifetime_sum", with_throughput=True)
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=steps)
        by_agent: dict[str, int] = {}
        by_module: dict[str, int] = {}
        for episode in episodes:
            for agent, sole in episode.agent_episodes.items():
                by_agent[str(agent)] = by_agent.get(str(agent), 0) + len(sole)
                by_module[str(sole.module_id)] = by_module.get(str(sole.module_id), 0) + len(sole)
        for name, count in by_agent.items():
            metrics.log_value((NUM_AGENT_STEPS_SAMPLED, name), count, reduce="sum")
            metrics.log_value((NUM_AGENT_STEPS_SAMPLED_LIFETIME, name), count, reduce="lifetime_sum")
        for name, count in by_module.items():
            metrics.log_value((NUM_MODULE_STEPS_SAMPLED, name), count, reduce="sum")
            metrics.log_value((NUM_MODULE_STEPS_SAMPLED_LIFETIME, name), count, reduce="lifetime_sum")

    def _log_episodes(self) -> None:
        """Means over the batch of the episodes that just ended."""
        agents: dict[str, float] = {}
        modules: dict[str, float] = {}
        steps: dict[str, float] = {}
        total = 0.0
        for track in self._tracks:
            means = self._returns[track.stage.name].mean(axis=0)
            counts = self._steps[track.stage.name].mean(axis=0)
            for i, agent in enumerate(track.agents):
                agents[agent], steps[agent] = float(means[i]), float(counts[i])
                module = _module_of(track, i)
                modules[module] = modules.get(module, 0.0) + float(means[i])
                total += float(means[i])
        seconds = (time.perf_counter() - self._ran) / self.game.batch
        self._log_episode_metrics(self.game.horizon * len(self._tracks), total, seconds, agents, modules, steps)
        self.metrics.log_value(NUM_EPISODES, self.game.batch, reduce="sum")
        self.metrics.log_value(NUM_EPISODES_LIFETIME, self.game.batch, reduce="lifetime_sum")


def _module_of(track: _Track, number: int) -> str:
    return next(m for m, index in track.modules.items() if number in index)


def _since_last(acted: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Rewards (B, n) since each agent's last action, of acted and rewards (B, n, T)."""
    later = np.cumsum(acted[..., ::-1], axis=-1)[..., ::-1] - acted  # actions after round t
    return np.where(later == 0, rewards, 0.0).sum(axis=-1)
