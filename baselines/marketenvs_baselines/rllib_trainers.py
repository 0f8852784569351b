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

import functools
import inspect
import os
import pickle
import random
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter
from marketenvs.market import Market
from marketenvs.policy import Uniform

from .checkpoints import Segments, Settled
from .registry import Algorithm
from .rllib_config import (
    SHARING,
    build,
    build_config,
    check_sharing,
    local_ray,
    module_of_agent,
    settings_of,
    stage_of_agent,
    why_not,
)
from .rllib_policies import Log, network_of, policies_of, rounds_of, score_callback
from .run import Policies, Report

__all__ = [
    "ALGORITHMS",
    "SHARING",
    "build",
    "build_config",
    "local_ray",
    "module_of_agent",
    "network_of",
    "policies_of",
    "restore",
    "rounds_of",
    "score_callback",
    "settings_of",
    "stage_of_agent",
    "train_rllib",
    "why_not",
]
BUFFER = "replay_buffer.pkl"
KINDS = {
    "PPO": "J. Schulman et al., arXiv:1707.06347",
    "APPO": "M. Luo et al., arXiv:1912.00167",
    "IMPALA": "L. Espeholt et al., arXiv:1802.01561",
    "DQN": "V. Mnih et al., Nature 518 (2015); H. van Hasselt et al., AAAI 2016; Z. Wang et al., ICML 2016",
    "SAC": "T. Haarnoja et al., arXiv:1801.01290; P. Christodoulou, arXiv:1910.07207",
}


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
    only: str | None = None,
    opponents: Any = "equilibrium",
    tensorboard: str | os.PathLike[str] | None = None,
    log_every: int | None = None,
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
        only: The one role that learns; None for all.
        opponents: Who plays the roles that do not learn: "equilibrium", "random", "best_response", the folder of a
            saved policy, "module:Class", a policy, or a mapping from roles to these.
        tensorboard: Folder for TensorBoard: losses and returns; score, NashConv and welfare on a small sample of markets
            that are not the held-out ones (see :mod:`~marketenvs_baselines.watch`).
        log_every: Market rounds between two looks at that sample; default: a twentieth of the budget.

    Returns:
        Role -> policy, of those that learned.
    """
    import torch

    check_sharing(policies)
    market = task.make_market()
    every = max(1, -(-budget // 4)) if every is None else every
    key = {"algorithm": f"rllib:{kind}", "task": getattr(task, "hash", task.name), "markets": markets, "rounds": rounds}
    key = {**key, "hidden": list(hidden), "settings": repr(sorted((settings or {}).items())), "runners": env_runners}
    key = {**key, "policies": policies, "only": only, "opponents": repr(opponents) if only is not None else None}
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
                return policies_of(segments.last / "algorithm", market, only=only)
            log = None
            if tensorboard is not None:
                log = Log(task, tensorboard, log_every or max(1, budget // 20), segments.resumed)
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
                        only=only,
                        opponents=opponents,
                    )
                    algorithm = build(config)
                    try:
                        if segment.restore is not None:
                            restore(algorithm, segment.restore)
                            settled.load(segment.restore)
                        _seed_all(segment.seed)
                        _learn(algorithm, market, segment.last, budget, report, only, log)
                        stop = settled(
                            {**{r: Uniform() for r in market.roles}, **policies_of(algorithm, market, only=only)}
                        )
                        segment.commit(functools.partial(_save, algorithm, settled), stop)
                    finally:
                        algorithm.stop()
                if segments.last is None:
                    raise InvalidParameter("nothing was trained")
                return policies_of(segments.last / "algorithm", market, only=only)
    finally:
        torch.set_num_threads(threads)


def _learn(
    algorithm: Any,
    market: Market,
    until: int,
    budget: int,
    report: Report | None,
    only: str | None = None,
    log: Log | None = None,
) -> None:
    """Whole iterations until so many market rounds have been sampled."""
    while rounds_of(algorithm, market, only) < until:
        result = algorithm.train()
        done = min(rounds_of(algorithm, market, only), budget)
        if report is not None:
            report(done, lambda: policies_of(algorithm, market, only=only))
        if log is not None:
            log(done, result, lambda: policies_of(algorithm, market, only=only), done >= budget)


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
    """:func:`train_rllib` of one kind, with the same options."""

    @functools.wraps(train_rllib)
    def train(*given: Any, **options: Any) -> Policies:
        return train_rllib(kind, *given, **options)

    whole = inspect.signature(train_rllib)
    train.__signature__ = whole.replace(parameters=list(whole.parameters.values())[1:])  # type: ignore[attr-defined]
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
