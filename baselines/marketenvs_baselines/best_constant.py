"""The floor: the best decisions per role that do not depend on anything seen.

Stage by stage, the position between the bounds (one for all agents of the role, number by number: a grid, then zooms)
at which an agent could gain least by deviating, on training draws of the market, its rivals at the same stage playing
the constant too; or every agent's mean equilibrium decision, where that is better. A follower's constant is judged after
earlier moves as tasks judge followers: half of them near the equilibrium, half anywhere in the leaders' range. On a
fixed market such a constant can be nearly perfect; on drawn markets it shows what adapting is worth. (The floor
published with a task is found with hindsight on its held-out markets; this one is not.)

The search knows the model; the policy it returns looks at nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marketenvs.errors import NotOffered
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy
from marketenvs.solution.mixtures import draw_profile
from marketenvs.solution.search import stage_bounds
from marketenvs.strategy import Pure, Strategy

from .registry import Algorithm
from .run import Policies, Report

MARKETS, GRID, ZOOMS = 32, 9, 3


class StageConstant(Policy):
    """The same decision always, as positions in [0, 1] between the natural bounds of the market played.

    Args:
        positions: Stage -> (n, k).
    """

    def __init__(self, positions: Mapping[str, np.ndarray]):
        self.positions = {k: np.asarray(v, dtype=np.float64) for k, v in positions.items()}

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        low, high = stage_bounds(self.market, state, stage.name)
        position = self.positions[stage.name]
        if position.shape != low.shape[1:]:
            raise NotOffered(
                f"this constant is for {position.shape} numbers at {stage.name!r}; the market has {low.shape[1:]}"
            )
        return low + (high - low) * position

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON and arrays, for ``store.save_policy``."""
        return {}, self.positions

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> StageConstant:
        """The inverse of :meth:`export`."""
        return cls(arrays)


def train_many(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, markets: int = MARKETS
) -> list[Policies]:
    """The best constants of all roles, found once: they are the same for every seed.

    ``budget`` is not used: the search asks solvers, it does not play.
    """
    market = task.make_market()
    rng = np.random.default_rng(0xC0)
    state = market.reset(seed=0xC0, batch=markets, split="train")
    strategy = market.equilibrium(state).strategy
    found: dict[str, dict[str, np.ndarray]] = {role: {} for role in market.roles}
    for number, stage in enumerate(market.stages):
        played = played_before(market, state, strategy, number, rng)
        found[stage.role][stage.name] = constants_of(market, state, stage.name, played)
        if report is not None:
            report(round(budget * (number + 1) / len(market.stages)))
    return [{role: StageConstant(positions) for role, positions in found.items()} for _ in seeds]


def played_before(
    market: Market, state: State, strategy: Mapping[str, Strategy], stage: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Decisions of everybody: earlier stages near equilibrium in even markets, uniform in odd ones; others answer."""
    profile = {s.name: strategy[s.name] for s in market.stages}
    if stage == 0:
        return draw_profile(market, state, profile, rng)
    usual = draw_profile(market, state, profile, rng)
    anywhere = np.arange(market.batch(state)) % 2 == 1
    for earlier in market.stages[:stage]:
        low, high = stage_bounds(market, state, earlier.name)
        near = np.clip(usual[earlier.name] + 0.05 * (high - low) * rng.normal(size=low.shape), low, high)
        uniform = low + (high - low) * rng.uniform(size=low.shape)
        profile[earlier.name] = Pure(np.where(anywhere[:, None, None], uniform, near))
    return draw_profile(market, state, profile, rng)


def constants_of(market: Market, state: State, stage: str, played: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n, k) positions of least mean gain from deviating, everybody at the stage playing them."""
    low, high = stage_bounds(market, state, stage)
    width = np.where(high > low, high - low, 1.0)
    usual = ((played[stage] - low) / width).mean(axis=0)  # every agent's own mean equilibrium position

    def gain(positions: np.ndarray) -> float:
        decisions = {**played, stage: low + (high - low) * positions}
        return float(market.best_response(state, stage, decisions).gains.mean())

    best, least = usual, gain(usual)
    shared = np.broadcast_to(usual.mean(axis=0), usual.shape).copy()
    for k in range(shared.shape[1]):
        offsets, centre, half = np.linspace(-1, 1, GRID), 0.5, 0.5
        for _ in range(1 + ZOOMS):
            trials = np.repeat(shared[None], len(offsets), axis=0)
            trials[..., k] = np.clip(centre + half * offsets, 0, 1)[:, None]
            gains = [gain(trial) for trial in trials]
            shared = trials[int(np.argmin(gains))]
            if min(gains) < least:
                best, least = shared, min(gains)
            centre, half, offsets = float(shared[0, k]), 2 * half / (GRID - 1), np.linspace(-0.75, 0.75, 7)
    return best


ALGORITHM = Algorithm("best_constant", train_many=train_many, title="Best constant (floor)", quick_budget=0)
