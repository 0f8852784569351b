"""What RLlib has learned as policies: from a running algorithm or a checkpoint, scored and logged while it learns."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter
from marketenvs.market import Market, Stage
from marketenvs.policy import EquilibriumPolicy

from .agent_networks import AgentNetworkPolicy, AgentNetworks
from .network import Network, NetworkPolicy
from .rllib_config import module_of_agent
from .run import Policies


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


def policies_of(algorithm: Any, market: Market, stochastic: bool | None = None, only: str | None = None) -> Policies:
    """The roles' policies as an RLlib algorithm has learned them, or as one of its checkpoints (a path) holds them.

    Modules may be of whole roles or of single agents, as :func:`build_config` names them. With ``only``, that role's
    policy alone.
    """
    if isinstance(algorithm, (str, os.PathLike)):
        from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule

        path = Path(algorithm) / "learner_group" / "learner" / "rl_module"
        modules = MultiRLModule.from_checkpoint(str(path.resolve()))
        found: Callable[[str], Any] = modules.get
    else:
        found = algorithm.get_module
    out: Policies = {}
    for role in market.roles if only is None else [only]:
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


def rounds_of(algorithm: Any, market: Market, only: str | None = None) -> int:
    """Market rounds that an algorithm has sampled in its life; ``only`` is the role that learns, if not all do."""
    steps = algorithm.metrics.peek(("env_runners", "num_env_steps_sampled_lifetime"), default=0)
    return int(steps) // sum(only in (None, s.role) for s in market.stages)


def score_callback(task: Any, every: int = 10) -> Callable[..., None]:
    """For ``config.callbacks(on_train_result=...)``: every so many iterations the task's score goes into the result.

    ``result["marketenvs"]`` then holds ``score``, ``nash_conv``, ``welfare_ratio`` and ``score/<role>``, which RLlib and
    Tune log to TensorBoard and to their tables. Roles that do not learn (``only``) play the equilibrium.
    """
    from marketenvs.scoring import evaluate

    def on_train_result(*, algorithm: Any, result: dict[str, Any], **kwargs: Any) -> None:
        if algorithm.iteration % every:
            return
        market = task.make_market()
        only = algorithm.config.env_config.get("only")
        trained = policies_of(algorithm, market, only=only)
        found = evaluate(task, {r: trained.get(r) or EquilibriumPolicy() for r in market.roles})
        result["marketenvs"] = {
            "score": found.score,
            "nash_conv": found.nash_conv[0],
            "welfare_ratio": found.welfare_ratio,
            **{f"score/{role}": value for role, value in found.scores.items()},
        }

    return on_train_result


class Log:
    """Writes RLlib's losses and returns, and how good the policies are, to TensorBoard.

    Args:
        task: The task that is learned.
        folder: TensorBoard folder.
        every: Market rounds between two looks at the policies.
        first: Market rounds that were played before.
    """

    def __init__(self, task: Any, folder: str | os.PathLike[str], every: int, first: int = 0):
        from .watch import Watch, tensorboard_writer

        self.watch, self.every, self.next = Watch(task), every, first
        self.write = tensorboard_writer(folder, first)

    def __call__(self, rounds: int, result: Mapping[str, Any], policies: Callable[[], Policies], last: bool) -> None:
        """After an iteration, ``rounds`` market rounds into the run."""
        values = {"rollout/return": result.get("env_runners", {}).get("episode_return_mean")}
        for module, found in result.get("learners", {}).items():
            if not str(module).startswith("__"):
                values |= {f"{module}/{k}": v for k, v in found.items() if k.endswith("loss") or k == "entropy"}
        out = {k: float(v) for k, v in values.items() if v is not None and np.isfinite(v)}
        if rounds >= self.next or last:
            self.next = rounds + self.every
            out |= self.watch(policies())
        self.write(out, rounds)
