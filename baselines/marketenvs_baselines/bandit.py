"""Sample-mean bandit: every agent averages what each action has paid and plays the best one so far.

The control for deep Q-learning on repeated one-shot games: it ignores the observation, needs no bootstrapping and no
tuning. R. Sutton, A. Barto, "Reinforcement Learning: An Introduction", chapter 2. With ``step`` set, old rewards are
forgotten at that rate (rivals learn, too).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marketenvs.errors import NotOffered
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy, Transition

from .registry import Algorithm
from .run import Policies, Report, Streams, play
from .tabular import GRIDS, LEVELS, ActionGrid


class BanditPolicy(Policy):
    """Greedy on a table of mean rewards per stage, (n, A); illegal actions are left out, ties go to the lowest."""

    def __init__(self, means: Mapping[str, np.ndarray], levels: Mapping[str, int]):
        self.means, self.levels = dict(means), dict(levels)

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.grids = {name: ActionGrid(market.stage(name), self.levels[name]) for name in market.stages_of[role]}
        for name, means in self.means.items():
            want = (market.roles[role], self.grids[name].size)
            if means.shape != want:
                raise NotOffered(f"this bandit's table of stage {name!r} is {means.shape}; the market needs {want}")

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        means = np.broadcast_to(self.means[stage.name], (len(obs), *self.means[stage.name].shape))
        action = (means if mask is None else np.where(mask, means, -np.inf)).argmax(-1)
        low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage.name))
        return self.grids[stage.name].decode(action, low, high)

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON and arrays, for ``store.save_policy``."""
        return {"levels": self.levels}, self.means

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> BanditPolicy:
        """The inverse of :meth:`export`."""
        return cls(arrays, config["levels"])


class BanditLearner(Policy):
    """Epsilon-greedy sample means of all agents of a role, all runs at once.

    Args:
        budget: Rounds; exploration falls linearly from 1 to ``explore`` over a third of them.
        explore: Last probability of a uniform legal action.
        step: Weight of a new reward; None for the sample mean.
        optimism: Value of an action never tried, in units of ``scale``.
        scale: What rewards are divided by.
    """

    per_seed = True

    def __init__(
        self, budget: int, explore: float = 0.02, step: float | None = None, optimism: float = 0.0, scale: float = 1.0
    ):
        self.budget, self.least, self.step, self.optimism, self.scale = budget, explore, step, optimism, scale

    def start(self, market: Market, role: str, batch: int, seed: Any) -> None:
        super().start(market, role, batch, 0)
        seeds = [int(seed)] * batch if isinstance(seed, (int, np.integer)) else list(seed)
        names = market.stages_of[role]
        self.levels = {name: GRIDS.get(market.id, {}).get(name, LEVELS) for name in names}
        self.grids = {name: ActionGrid(market.stage(name), self.levels[name]) for name in names}
        shape = (len(seeds), market.roles[role])
        self.mean = {k: np.full((*shape, g.size), self.optimism) for k, g in self.grids.items()}
        self.count = {k: np.zeros((*shape, g.size), np.int64) for k, g in self.grids.items()}
        self.streams = {k: Streams(seeds, "bandit", role, k) for k in names}
        self.chosen: dict[str, np.ndarray] = {}
        self.rounds = 0

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        mean = self.mean[stage.name]
        explore = 1.0 + (self.least - 1.0) * min(1.0, 3.0 * self.rounds / self.budget)
        u = self.streams[stage.name].uniform(mean.shape[1], 2)
        legal = np.ones(mean.shape, bool) if mask is None else mask
        greedy = np.where(legal, mean, -np.inf).argmax(-1)
        rank = np.cumsum(legal, -1)
        random = (rank > (u[..., 1] * rank[..., -1]).astype(np.int64)[..., None]).argmax(-1)
        action = self.chosen[stage.name] = np.where(u[..., 0] < explore, random, greedy)
        low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage.name))
        return self.grids[stage.name].decode(action, low, high)

    def update_at(self, stage: Stage, transition: Transition) -> None:
        """Average one round's reward in."""
        mean, count = self.mean[stage.name], self.count[stage.name]
        at = (*np.indices(transition.reward.shape), self.chosen[stage.name])
        count[at] += 1
        weight = 1.0 / count[at] if self.step is None else self.step
        mean[at] += weight * (transition.reward / self.scale - mean[at])
        if stage.name == next(reversed(self.grids)):
            self.rounds += 1

    def trained(self, run: int) -> BanditPolicy:
        """What run ``run`` has learned: actions never tried count as worst."""
        means = {k: np.where(self.count[k][run] > 0, m[run], -1e9) for k, m in self.mean.items()}
        return BanditPolicy(means, self.levels)


def train_many(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, **constants: Any
) -> list[Policies]:
    """Independent bandits for all roles, one run per seed."""
    market = task.make_market()
    learners = {role: BanditLearner(budget, scale=task.scale[role], **constants) for role in market.roles}
    return play(market, learners, budget, seeds, report).policies


def _small_enough(market: Market) -> str | None:
    try:
        for stage in market.stages:
            ActionGrid(stage, GRIDS.get(market.id, {}).get(stage.name, LEVELS))
    except NotOffered as error:
        return str(error)
    return None


ALGORITHM = Algorithm(
    "bandit",
    train_many=train_many,
    title="Sample-mean bandit",
    citation="R. Sutton, A. Barto, Reinforcement Learning: An Introduction (2018), chapter 2",
    quick_budget=20_000,
    can_play=_small_enough,
)
