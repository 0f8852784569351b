"""Watching policies while they learn: score, NashConv and welfare on a small sample of markets, for TensorBoard.

The sample is drawn like a task's held-out markets, but with another seed: no held-out market is ever looked at, so
watching a run, and stopping it by what is seen, does not spoil its score.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from marketenvs.errors import InvalidParameter, NotOffered
from marketenvs.policy import EquilibriumPolicy
from marketenvs.scoring import evaluate
from marketenvs.task import Plan, Task, build_task

SEED_OFFSET = 0x57A7C4
PLAN = Plan(markets=8, prefixes=4, warm_up=2, draws=16)


def sample_task(task: Task, plan: Plan = PLAN) -> Task:
    """The task with a few other markets in place of the held-out ones.

    Args:
        task: A task.
        plan: How many markets, prefixes and draws; its seed is replaced by one that is not the task's.
    """
    definition = task.definition
    plan = dataclasses.replace(plan, seed=definition.plan.seed + SEED_OFFSET)
    return build_task(dataclasses.replace(definition, name=f"{definition.name}-watched", plan=plan), floors=False)


class Watch:
    """Measures policies on :func:`sample_task`.

    Args:
        task: The task that is learned.
        plan: Size of the sample.

    Raises:
        InvalidParameter: What is given is not a task.
    """

    def __init__(self, task: Any, plan: Plan = PLAN):
        if not isinstance(task, Task):
            raise InvalidParameter(f"watching a run needs a task (see marketenvs.task), got {type(task).__name__}")
        self.task = sample_task(task, plan)

    def __call__(self, policies: Mapping[str, Any]) -> dict[str, float]:
        """``market/score``, ``market/nash_conv``, ``market/welfare`` and more; roles without policy play the equilibrium."""
        market = self.task.make_market()
        found = evaluate(self.task, {r: policies.get(r) or EquilibriumPolicy() for r in market.roles})
        learned = [found.scores[r] for r in market.roles if r in policies]
        out = {"market/score": sum(learned) / len(learned), "market/nash_conv": found.nash_conv[0]}
        out |= {f"market/score_{role}": found.scores[role] for role in market.roles if role in policies}
        out |= {"market/welfare": found.metrics["welfare"]} if "welfare" in found.metrics else {}
        return out | ({"market/welfare_ratio": found.welfare_ratio} if found.welfare_ratio is not None else {})


def tensorboard_writer(folder: str | os.PathLike[str], first: int = 0) -> Callable[[Mapping[str, float], int], None]:
    """A function (values, step) that writes scalars to a TensorBoard folder.

    Args:
        folder: The folder.
        first: Step at which the run goes on; what a killed run wrote after it is hidden.

    Raises:
        NotOffered: tensorboard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise NotOffered("logging needs tensorboard: pip install tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(Path(folder)), purge_step=first or None)

    def write(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return write


def score_callback(task: Task, role: str, every: int = 10_000) -> Any:
    """A callback for ``model.learn`` of an SB3 model on a ``MarketVecEnv``: logs what :class:`Watch` measures.

    Where the values go is the model's own business: give it ``tensorboard_log=FOLDER``.

    Args:
        task: The task that is learned.
        role: The role that the model plays; it has one stage. The others are judged at the equilibrium.
        every: Environment steps between two looks.

    Raises:
        InvalidParameter: What is given is not a task, or the role has several stages.
    """
    from stable_baselines3.common.callbacks import BaseCallback

    from .network import NetworkPolicy
    from .sb3_networks import network_of

    watch = Watch(task)
    names = task.make_market().stages_of[role]
    if len(names) != 1:
        raise InvalidParameter(f"role {role!r} has the stages {', '.join(names)}; a callback watches one model")

    class ScoreCallback(BaseCallback):
        """Looks at the policy after every ``every`` steps."""

        seen = 0

        def _on_step(self) -> bool:
            if self.num_timesteps // every > self.seen:
                self.seen = self.num_timesteps // every
                for name, value in watch({role: NetworkPolicy({names[0]: network_of(self.model)})}).items():
                    self.logger.record(name, value)
                self.logger.dump(self.num_timesteps)
            return True

    return ScoreCallback()
