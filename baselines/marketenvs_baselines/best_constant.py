"""The floor: the best decisions per role that do not depend on anything seen.

For every agent, the constant with the highest mean payoff over training draws of the market, when its rivals at the
same stage play constants too (found by fictitious play among constants; the iterate of least regret is kept). A
follower's constant is judged after earlier moves as tasks judge followers: half of them near the equilibrium, half
anywhere in the leaders' range. On a fixed market such a constant can be nearly perfect; on drawn markets it shows what
adapting is worth. (The floor published with a task is found with hindsight on its held-out markets; this one is not.)

The search knows the model; the policy it returns looks at nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from marketenvs.errors import NotOffered
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy
from marketenvs.solution.mixtures import draw_profile
from marketenvs.solution.search import deviation_values, stage_bounds
from marketenvs.strategy import Pure, Strategy

from .registry import Algorithm
from .run import Policies, Report, role_seed

MARKETS, GRID, ZOOM, ZOOMS, SWEEPS = 96, 21, 9, 3, 10


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


def train(task: Any, seed: int, budget: int, report: Report | None = None, markets: int = MARKETS) -> Policies:
    """The best constants of all roles; ``budget`` is not used: the search asks solvers, it does not play."""
    market = task.make_market()
    rng = np.random.default_rng(role_seed([seed], "best_constant"))
    state = market.reset(seed=int(rng.integers(1 << 62)), batch=markets, split="train")
    strategy = market.equilibrium(state).strategy
    found: dict[str, dict[str, np.ndarray]] = {role: {} for role in market.roles}
    for number, stage in enumerate(market.stages):
        played = played_before(market, state, strategy, number, rng)
        found[stage.role][stage.name] = constants_of(market, state, stage.name, played)
        if report is not None:
            report(round(budget * (number + 1) / len(market.stages)))
    return {role: StageConstant(positions) for role, positions in found.items()}


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
    """(n, k) positions: fictitious play among the constants of one stage; of all sweeps, the least mean regret."""
    low, high = stage_bounds(market, state, stage)
    codec = market.stage(stage).codec
    least, best = np.inf, np.zeros(low.shape[1:])
    mean, now = np.zeros(low.shape[1:]), dict(played)
    for sweep in range(1, 1 + SWEEPS):
        reply = best_positions(market, state, stage, now)
        mean = mean + (reply - mean) / sweep
        for trial in (reply, mean):
            decisions = low + (high - low) * trial
            now[stage] = codec.snap(np, decisions, low, high) if codec.discrete else decisions
            regret = float(market.best_response(state, stage, now).gains.mean())
            if regret < least:
                least, best = regret, trial
        if least <= 1e-9 or len(mean) == 1:
            break
    return best


def best_positions(market: Market, state: State, stage: str, played: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n, k) positions of the constants with the highest mean payoff, number by number: a grid, then zooms."""
    low, high = stage_bounds(market, state, stage)
    codec = market.stage(stage).codec
    best: np.ndarray = np.full(low.shape[1:], 0.5)
    for k in range(best.shape[1]):
        centre, width, points = np.full(best.shape[0], 0.5), 0.5, GRID
        for _ in range(1 + ZOOMS):
            trial = np.repeat(best[None], points, axis=0)
            trial[..., k] = np.clip(centre + np.linspace(-1, 1, points)[:, None] * width, 0, 1)
            candidates = low + (high - low) * trial[:, None]
            if codec.discrete:
                candidates = np.stack([codec.snap(np, c, low, high) for c in candidates])
            mean = deviation_values(market, state, stage, played, candidates).mean(axis=1)
            best = np.take_along_axis(trial, mean.argmax(axis=0)[None, :, None], axis=0)[0]
            centre, width, points = best[:, k], 2 * width / (points - 1), ZOOM
    return best


ALGORITHM = Algorithm("best_constant", train=train, title="Best constant (floor)", quick_budget=0)
