"""RLlib's PPO, APPO, IMPALA, DQN and SAC (new API stack) on every role of a market at once.

All roles learn from the same rounds, with one module per stage that its agents share (``policies="role"``) or one for
every agent (``policies="agent"``). Markets are stepped as one
batch by ``marketenvs.rllib.MarketEnvRunner``; by default in this process (``env_runners=0``). Rewards are divided by the
task's constants. What comes back are :class:`~marketenvs_baselines.network.NetworkPolicy` objects (with a policy per agent
:class:`~marketenvs_baselines.agent_networks.AgentNetworkPolicy`): they play without Ray or torch.

A run is cut into segments (see ``checkpoints``): with ``checkpoint=FOLDER`` a killed run goes on from its last one, and
ends as an uninterrupted run would. APPO and IMPALA learn in a thread of their own, beside the sampling: they resume
too, but two of their runs are never equal to the last digit.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter, NotOffered, UnknownName, nearest
from marketenvs.market import Market, Stage

from .agent_networks import AgentNetworkPolicy, AgentNetworks
from .checkpoints import Segments, Settled
from .network import Network, NetworkPolicy
from .registry import Algorithm
from .run import Policies, Report

ENVIRONMENT = "marketenvs/task"
BUFFER = "replay_buffer.pkl"
SHARING = ("role", "agent")
"""Who shares a network: all agents of a role (in each of its stages), or nobody."""
KINDS = {
    "PPO": "J. Schulman et al., arXiv:1707.06347",
    "APPO": "M. Luo et al., arXiv:1912.00167",
    "IMPALA": "L. Espeholt et al., arXiv:1802.01561",
    "DQN": "V. Mnih et al., Nature 518 (2015); H. van Hasselt et al., AAAI 2016; Z. Wang et al., ICML 2016",
    "SAC": "T. Haarnoja et al., arXiv:1801.01290; P. Christodoulou, arXiv:1910.07207",
}


def why_not(kind: str, market: Market) -> str | None:
    """Why the algorithm cannot play the market; None if it can."""
    from gymnasium import spaces

    from marketenvs.shells.actions import is_masked

    for stage in market.stages:
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
    if kind == "DQN":
        return {
            **common,
            **replay,
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
        "gamma": 0.9,
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
) -> Any:
    """RLlib's configuration of an algorithm on a market: for ``build_algo()``, for Tune, or to be changed further.

    Args:
        kind: "PPO", "APPO", "IMPALA", "DQN" or "SAC".
        market: The market.
        seed: Seed of networks, exploration and markets.
        markets: Markets that each env runner plays side by side.
        rounds: Rounds of each market in one iteration; default: 32, or 1 with a replay buffer.
        hidden: Widths of the hidden layers.
        settings: Keyword arguments of ``config.training`` that replace defaults.
        env_runners: Remote env runners; 0 samples in this process.
        reward_scale: Role -> constant that its rewards are divided by.
        policies: "role": the agents of a stage share a module, named after the stage; "agent": each has its own, named
            ``role_i`` (``role_i.stage`` where the role has several stages).

    Raises:
        NotOffered: The algorithm cannot play the market.
        UnknownName: ``policies`` is neither.
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

    check_sharing(policies)
    reason = why_not(kind, market)
    if reason is not None:
        raise NotOffered(reason)
    rounds = (1 if kind in ("DQN", "SAC") else 32) if rounds is None else rounds
    if markets < 1 or rounds < 1:
        raise InvalidParameter(f"markets and rounds must be positive, got {markets} and {rounds}")
    register_env(ENVIRONMENT, lambda context: MarketMultiAgentEnv(context["market"], reward_scale=context["scale"]))
    game = Game(market, 1)
    masked = {"PPO": MaskedPPOModule, "IMPALA": MaskedPPOModule, "APPO": MaskedAPPOModule, "DQN": MaskedDQNModule}
    given = {**settings_of(kind, markets * rounds * max(1, env_runners)), **(settings or {})}
    config = get_trainable_cls(kind).get_default_config()
    specs = {}
    for stage in market.stages:
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
    steps = rounds * len(market.stages)
    if kind in ("PPO", "APPO", "IMPALA"):
        given.setdefault("train_batch_size_per_learner", markets * steps * max(1, env_runners))
    config.environment(ENVIRONMENT, env_config={"market": market, "scale": dict(reward_scale or {}) or None})
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


def network_of(module: Any, stochastic: bool | None = None) -> Network:
    """The acting part of an RLlib module (PPO, APPO, IMPALA, DQN, SAC; tanh or ReLU layers) as a NumPy network.

    Args:
        module: The module of one stage.
        stochastic: Whether it draws its actions; None: only where they are discrete choices of a stochastic policy.
    """
    from gymnasium import spaces
    from torch import nn

    if hasattr(module, "af"):
        parts, head = [module.encoder, module.af], "greedy"  # a dueling network's value adds the same to all choices
    elif hasattr(module, "pi_encoder"):
        parts, head = [module.pi_encoder, module.pi], "squashed"
    else:
        parts, head = [module.encoder.actor_encoder, module.pi], "box"
    space = module.action_space
    if head != "greedy" and not isinstance(space, spaces.Box):
        head = "categorical"
    members = [m for part in parts for m in part.modules()]
    layers = [
        (m.weight.detach().cpu().numpy().copy(), m.bias.detach().cpu().numpy().copy())
        for m in members
        if isinstance(m, nn.Linear)
    ]
    names = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.SiLU: "silu"}
    activation = next((names[type(m)] for m in members if type(m) in names), "tanh")
    deviation = None
    if head == "box":
        deviation = np.exp(module.pi.log_std.detach().cpu().numpy())
    if head == "squashed":  # the other half of the outputs are log deviations
        width = int(np.prod(space.shape))
        layers[-1] = (layers[-1][0][:width], layers[-1][1][:width])
    choices = tuple(int(n) for n in getattr(space, "nvec", ())) if head == "categorical" else ()
    draws = head == "categorical" if stochastic is None else stochastic
    return Network(layers, head, activation, deviation, choices, draws and head != "greedy")


def policies_of(algorithm: Any, market: Market, stochastic: bool | None = None) -> Policies:
    """The roles' policies as an RLlib algorithm has learned them, or as one of its checkpoints (a path) holds them.

    Modules may be of whole roles or of single agents, as :func:`build_config` names them.
    """
    if isinstance(algorithm, (str, os.PathLike)):
        from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

        path = Path(algorithm) / "learner_group" / "learner" / "rl_module"
        modules = MultiRLModule.from_checkpoint(str(path.resolve()))
        found: Callable[[str], Any] = modules.get
    else:
        found = algorithm.get_module
    out: Policies = {}
    for role in market.roles:
        stages = [s for s in market.stages if s.role == role]
        shared = {s.name: found(s.name) for s in stages}
        if all(module is not None for module in shared.values()):
            out[role] = NetworkPolicy({name: network_of(module, stochastic) for name, module in shared.items()})
        else:
            out[role] = AgentNetworkPolicy({s.name: _agents_of(found, market, s, stochastic) for s in stages})
    return out


def _agents_of(found: Callable[[str], Any], market: Market, stage: Stage, stochastic: bool | None) -> AgentNetworks:
    """The networks of a stage's agents, each a module of its own."""
    from marketenvs.shells.rllib_native import stage_agents

    names = [module_of_agent(market.stages_of, "agent", agent) for agent in stage_agents(market, stage)]
    modules = [found(name) for name in names]
    if None in modules:
        raise InvalidParameter(
            f"there is neither a module {stage.name!r} nor one for each agent ({names[modules.index(None)]!r} is missing)"
        )
    return AgentNetworks.stack([network_of(module, stochastic) for module in modules])


def score_callback(task: Any, every: int = 10) -> Callable[..., None]:
    """For ``config.callbacks(on_train_result=...)``: every so many iterations the task's score goes into the result.

    ``result["marketenvs"]`` then holds ``score``, ``nash_conv``, ``welfare_ratio`` and ``score/<role>``, which RLlib and
    Tune log to TensorBoard and to their tables.
    """
    from marketenvs.scoring import evaluate

    def on_train_result(*, algorithm: Any, result: dict[str, Any], **kwargs: Any) -> None:
        if algorithm.iteration % every:
            return
        found = evaluate(task, policies_of(algorithm, task.make_market()))
        result["marketenvs"] = {
            "score": found.score,
            "nash_conv": found.nash_conv[0],
            "welfare_ratio": found.welfare_ratio,
            **{f"score/{role}": value for role, value in found.scores.items()},
        }

    return on_train_result


def train_rllib(
    kind: str,
    task: Any,
    seed: int,
    budget: int,
    report: Report | None = None,
    *,
    markets: int = 64,
    rounds: int | None = None,
    hidden: tuple[int, ...] = (64, 64),
    settings: Mapping[str, Any] | None = None,
    env_runners: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int | None = None,
    patience: int | None = None,
    policies: str = "role",
) -> Policies:
    """Train an RLlib algorithm on all roles of a task.

    Args:
        kind: "PPO", "APPO", "IMPALA", "DQN" or "SAC".
        task: The task.
        seed: The run's seed.
        budget: Market rounds (of all markets together); whole iterations, at least one.
        report: Called after every iteration.
        markets: Markets that each env runner plays side by side.
        rounds: Rounds of each market in one iteration.
        hidden: Widths of the hidden layers.
        settings: Keyword arguments of ``config.training`` that replace defaults.
        env_runners: Remote env runners; 0 samples in this process.
        checkpoint: Folder from which a killed run goes on; None keeps nothing.
        every: Market rounds of a segment; default: a quarter of the budget.
        patience: Stop when the policies have not moved for so many segments (see ``checkpoints.Settled``).
        policies: "role" or "agent": who shares a network; see :func:`build_config`.

    Returns:
        Role -> policy.
    """
    import torch

    check_sharing(policies)
    market = task.make_market()
    every = max(1, -(-budget // 4)) if every is None else every
    key = {"algorithm": f"rllib:{kind}", "task": getattr(task, "hash", task.name), "markets": markets, "rounds": rounds}
    key = {**key, "hidden": list(hidden), "settings": repr(sorted((settings or {}).items())), "runners": env_runners}
    key = {**key, "policies": policies}
    settled = Settled(market, patience)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small networks: a second thread costs more than it gives
    try:
        with (
            Segments(max(1, budget), every, checkpoint, {**key, "patience": patience}, seed) as segments,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", DeprecationWarning)
            if segments.last is not None and segments.resumed >= budget:
                return policies_of(segments.last / "algorithm", market)
            with local_ray():
                for segment in segments:
                    _seed_all(segment.seed)
                    config = build_config(
                        kind,
                        market,
                        seed=segment.seed,
                        markets=markets,
                        rounds=rounds,
                        hidden=hidden,
                        settings=settings,
                        env_runners=env_runners,
                        reward_scale=getattr(task, "scale", None),
                        policies=policies,
                    )
                    algorithm = build(config)
                    try:
                        if segment.restore is not None:
                            restore(algorithm, segment.restore)
                            settled.load(segment.restore)
                        _seed_all(segment.seed)
                        _learn(algorithm, market, segment.last, budget, report)
                        stop = settled(policies_of(algorithm, market))
                        segment.commit(functools.partial(_save, algorithm, settled), stop)
                    finally:
                        algorithm.stop()
                if segments.last is None:
                    raise InvalidParameter("nothing was trained")
                return policies_of(segments.last / "algorithm", market)
    finally:
        torch.set_num_threads(threads)


def _learn(algorithm: Any, market: Market, until: int, budget: int, report: Report | None) -> None:
    """Whole iterations until so many market rounds have been sampled."""
    while rounds_of(algorithm, market) < until:
        algorithm.train()
        if report is not None:
            report(min(rounds_of(algorithm, market), budget), lambda: policies_of(algorithm, market))


def rounds_of(algorithm: Any, market: Market) -> int:
    """Market rounds that an algorithm has sampled in its life."""
    steps = algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0)
    return int(steps) // len(market.stages)


def _seed_all(seed: int) -> None:
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - RLlib draws minibatches and random actions from it
    torch.manual_seed(seed)


def _save(algorithm: Any, settled: Settled, folder: Path) -> None:
    """RLlib's own checkpoint, and the replay buffer, which RLlib leaves out."""
    algorithm.save_to_path(str((folder / "algorithm").resolve()))
    settled.save(folder)
    if algorithm.local_replay_buffer is not None:
        with open(folder / BUFFER, "wb") as file:
            pickle.dump(algorithm.local_replay_buffer.get_state(), file)


def restore(algorithm: Any, folder: Path) -> None:
    """What :func:`_save` saved. RLlib unpickles its checkpoints: resume only your own."""
    algorithm.restore_from_path(str((folder / "algorithm").resolve()))
    if algorithm.local_replay_buffer is not None:
        buffer = algorithm.local_replay_buffer
        with open(folder / BUFFER, "rb") as file:
            buffer.set_state(pickle.load(file))
        counts = dict(buffer.sampled_timesteps_per_module)  # RLlib restores a dictionary of lists
        buffer.sampled_timesteps_per_module = type(buffer.sampled_timesteps_per_module)(int, counts)


def _trainer(kind: str) -> Callable[..., Policies]:
    def train(
        task: Any,
        seed: int,
        budget: int,
        report: Report | None = None,
        *,
        markets: int = 64,
        rounds: int | None = None,
        hidden: tuple[int, ...] = (64, 64),
        settings: Mapping[str, Any] | None = None,
        env_runners: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int | None = None,
        patience: int | None = None,
        policies: str = "role",
    ) -> Policies:
        return train_rllib(
            kind,
            task,
            seed,
            budget,
            report,
            markets=markets,
            rounds=rounds,
            hidden=hidden,
            settings=settings,
            env_runners=env_runners,
            checkpoint=checkpoint,
            every=every,
            patience=patience,
            policies=policies,
        )

    train.__doc__ = f"RLlib's {kind} on all roles; see :func:`train_rllib`."
    return train


ALGORITHMS = tuple(
    Algorithm(
        f"rllib_{kind.lower()}",
        train=_trainer(kind),
        title=f"{kind} (RLlib)",
        citation=citation,
        quick_budget=60_000,
        stochastic=True,
        actions=("discrete",) if kind == "DQN" else ("discrete", "continuous"),
        can_play=functools.partial(why_not, kind),
        requires=("ray", "torch"),
        heavy=True,
    )
    for kind, citation in KINDS.items()
)
