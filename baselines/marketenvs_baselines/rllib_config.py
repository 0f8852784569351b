"""RLlib configurations of markets: which algorithm can play, default settings, one module per stage or per agent."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter, NotOffered, UnknownName, nearest
from marketenvs.market import Market

ENVIRONMENT = "marketenvs/task"
SHARING = ("role", "agent")
"""Who shares a network: all agents of a role (in each of its stages), or nobody."""


def why_not(kind: str, market: Market, only: str | None = None) -> str | None:
    """Why the algorithm cannot play the market (or one role of it); None if it can."""
    from gymnasium import spaces

    from marketenvs.shells.actions import is_masked

    for stage in market.stages:
        if only not in (None, stage.role):
            continue
        space = stage.codec.action_space
        if kind == "DQN" and not isinstance(space, spaces.Discrete):
            return f"RLlib's DQN needs one discrete choice; stage {stage.name!r} has {space}"
        if kind == "SAC" and not isinstance(space, (spaces.Box, spaces.Discrete)):
            return f"RLlib's SAC needs continuous actions or one discrete choice; stage {stage.name!r} has {space}"
        if kind == "SAC" and is_masked(market, stage):
            return f"RLlib's SAC has no action masks; stage {stage.name!r} needs them"
    return None


def settings_of(kind: str, rows: int) -> dict[str, Any]:
    """Default keyword arguments of ``config.training`` where an iteration holds ``rows`` rounds in all markets."""
    common = {"gamma": 0.9, "lr": 1e-3}
    if kind == "PPO":
        return {
            **common,
            "lambda_": 0.9,
            "num_epochs": 10,
            "minibatch_size": max(64, rows // 4),
            "clip_param": 0.2,
            "vf_clip_param": float("inf"),
            "use_kl_loss": False,  # its coefficient is not part of RLlib's checkpoints
            "entropy_coeff": 0.0,
            "grad_clip": 0.5,
        }
    if kind in ("APPO", "IMPALA"):
        more = {"use_kl_loss": False, "clip_param": 0.2} if kind == "APPO" else {}
        return {**common, "entropy_coeff": 0.0, "vf_loss_coeff": 0.5, "grad_clip": 0.5, **more}
    buffer = {"type": "MultiAgentEpisodeReplayBuffer", "capacity": 100_000}  # the default one fails with several agents
    replay = {"replay_buffer_config": buffer, "train_batch_size_per_learner": 256}
    bandit = {"gamma": 0.0}  # what an action earns is known at the end of its round; bootstrapping adds its error only
    if kind == "DQN":
        return {
            **common,
            **replay,
            **bandit,
            "dueling": True,
            "double_q": True,
            "num_atoms": 1,
            "n_step": 1,
            "target_network_update_freq": 50 * rows,
            "num_steps_sampled_before_learning_starts": 4 * rows,
            "epsilon": [(0, 1.0), (200 * rows, 0.05)],
        }
    return {
        **replay,
        **bandit,
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
        "alpha_lr": 1e-3,
        "lr": None,
        "twin_q": True,
        "n_step": 1,
        "num_steps_sampled_before_learning_starts": 4 * rows,
    }


@contextlib.contextmanager
def local_ray() -> Iterator[None]:
    """Ray for the time of a training run: a small local one where none runs, stopped at the end; else the running one."""
    import ray

    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(
        address="local",  # never some other cluster that happens to run here
        num_cpus=max(2, os.cpu_count() or 1),
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 * 1024 * 1024,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


def build_config(
    kind: str,
    market: Market,
    *,
    seed: int,
    markets: int = 64,
    rounds: int | None = None,
    hidden: tuple[int, ...] = (64, 64),
    settings: Mapping[str, Any] | None = None,
    env_runners: int = 0,
    reward_scale: Mapping[str, float] | None = None,
    policies: str = "role",
    only: str | None = None,
    opponents: Any = "equilibrium",
) -> Any:
    """RLlib's configuration of an algorithm on a market: for ``build_algo()``, for Tune, or to be changed further.

    Args:
        kind: "PPO", "APPO", "IMPALA", "DQN" or "SAC".
        market: The market.
        seed: Seed of networks, exploration and markets.
        markets: Markets that each env runner plays side by side.
        rounds: Rounds of each market in one iteration; default: 8, or 1 with a replay buffer.
        hidden: Widths of the hidden layers.
        settings: Keyword arguments of ``config.training`` that replace defaults.
        env_runners: Remote env runners; 0 samples in this process.
        reward_scale: Role -> constant that its rewards are divided by.
        policies: "role": the agents of a stage share a module, named after the stage; "agent": each has its own, named
            ``role_i`` (``role_i.stage`` where the role has several stages).
        only: The one role that learns; None for all.
        opponents: Who plays the roles that do not learn, as for ``MarketMultiAgentEnv``.

    Raises:
        NotOffered: The algorithm cannot play the market.
        UnknownName: ``policies`` is neither; no such role or opponent.
    """
    from gymnasium import spaces
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.tune.registry import (
        get_trainable_cls,
        register_env,
    )

    from marketenvs.rllib import (
        MarketEnvRunner,
        MarketMultiAgentEnv,
        MaskedAPPOModule,
        MaskedDQNModule,
        MaskedPPOModule,
    )
    from marketenvs.shells.game import Game
    from marketenvs.shells.rllib_native import stage_agents, stage_spaces
    from marketenvs.shells.rllib_others import Others

    check_sharing(policies)
    Others(market, only, opponents)  # wrong names are errors here, not in a worker
    reason = why_not(kind, market, only)
    if reason is not None:
        raise NotOffered(reason)
    rounds = (1 if kind in ("DQN", "SAC") else 8) if rounds is None else rounds
    if markets < 1 or rounds < 1:
        raise InvalidParameter(f"markets and rounds must be positive, got {markets} and {rounds}")
    register_env(ENVIRONMENT, lambda context: MarketMultiAgentEnv(**context))
    game = Game(market, 1)
    masked = {"PPO": MaskedPPOModule, "IMPALA": MaskedPPOModule, "APPO": MaskedAPPOModule, "DQN": MaskedDQNModule}
    given = {**settings_of(kind, markets * rounds * max(1, env_runners)), **(settings or {})}
    config = get_trainable_cls(kind).get_default_config()
    specs = {}
    learning = [s for s in market.stages if only in (None, s.role)]
    for stage in learning:
        seen, action = stage_spaces(game, stage)
        for agent in stage_agents(market, stage):
            name = module_of_agent(market.stages_of, policies, agent)
            if name in specs:
                continue
            specs[name] = RLModuleSpec(
                module_class=masked[kind] if game.masked[stage.name] else None,
                observation_space=seen,
                action_space=action,
                model_config=DefaultModelConfig(
                    fcnet_hiddens=list(hidden),
                    fcnet_activation="tanh",
                    vf_share_layers=False,
                    free_log_std=kind not in ("DQN", "SAC") and isinstance(action, spaces.Box),
                ),
            )
    steps = rounds * len(learning)
    if kind in ("PPO", "APPO", "IMPALA"):
        given.setdefault("train_batch_size_per_learner", markets * steps * max(1, env_runners))
    scale = dict(reward_scale or {}) or None
    config.environment(
        ENVIRONMENT, env_config={"market": market, "reward_scale": scale, "only": only, "opponents": opponents}
    )
    config.env_runners(
        env_runner_cls=MarketEnvRunner,
        num_env_runners=env_runners,
        num_envs_per_env_runner=markets,
        rollout_fragment_length=steps,
    )
    config.learners(num_learners=0)
    config.multi_agent(
        policies={name: (None, spec.observation_space, spec.action_space, {}) for name, spec in specs.items()},
        policy_mapping_fn=functools.partial(module_of_agent, market.stages_of, policies),
    )
    config.training(**given)
    config.rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=specs))
    config.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=0)
    config.debugging(seed=seed, log_level="ERROR")
    return config


def check_sharing(policies: str) -> None:
    """Raise ``UnknownName`` unless ``policies`` is "role" or "agent"."""
    if policies not in SHARING:
        raise UnknownName(f"policies must be 'role' or 'agent', got {policies!r}; {nearest(str(policies), SHARING)}")


def stage_of_agent(stages_of: Mapping[str, Any], agent: str, episode: Any = None, **kwargs: Any) -> str:
    """The stage that an agent of ``MarketEnvRunner`` plays: ``role_i`` or ``role_i/stage``."""
    name, _, stage = agent.partition("/")
    return stage or stages_of[name.rpartition("_")[0]][0]


def module_of_agent(stages_of: Mapping[str, Any], policies: str, agent: str, episode: Any = None, **kwargs: Any) -> str:
    """The module that an agent of ``MarketEnvRunner`` plays, where ``policies`` says who shares one."""
    if policies == "role":
        return stage_of_agent(stages_of, agent)
    return agent.replace("/", ".")  # modules are folders of a checkpoint


def build(config: Any) -> Any:
    """``config.build_algo()``, with a replay buffer (if any) that draws in the same order in every process."""
    from marketenvs.rllib import MarketEpisodeReplayBuffer

    algorithm = config.build_algo()
    buffer = algorithm.local_replay_buffer
    if buffer is not None:  # RLlib's configuration takes its own classes by name only, and seeds none of them
        algorithm.local_replay_buffer = MarketEpisodeReplayBuffer(
            capacity=buffer.capacity,
            batch_size_B=buffer.batch_size_B,
            batch_length_T=buffer.batch_length_T,
            metrics_num_episodes_for_smoothing=config.metrics_num_episodes_for_smoothing,
        )
        algorithm.local_replay_buffer.rng = np.random.default_rng(config.seed)
    return algorithm
