"""What a market without oracles of its own gets: bracketed search for deviations, multistart search for equilibria.

Everything here is a lower bound ("estimate") and is never certified, except where the decisions are few enough to enumerate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..errors import NotOffered
from ..strategy import BestResponse, Equilibrium, Pure
from .gains import nash_conv

if TYPE_CHECKING:
    from ..market import Market, State

GRID, ZOOM, ZOOMS = 41, 13, 6
MAX_ENUMERATION = 5000


def stage_bounds(market: Market, state: State, stage: str) -> tuple[np.ndarray, np.ndarray]:
    """Natural bounds of a stage as NumPy arrays of the full shape (B, n, k)."""
    spec = market.stage(stage)
    shape = (market.batch(state), market.roles[spec.role], spec.codec.width)
    low, high = market.bounds(state, stage)
    return tuple(np.broadcast_to(market.backend.numpy(b), shape) for b in (low, high))  # type: ignore[return-value]


def deviation_values(
    market: Market, state: State, stage: str, decisions: Mapping[str, np.ndarray], candidates: np.ndarray
) -> np.ndarray:
    """Value of each agent's unilateral deviation to each candidate, later stages re-answering where the market can say how.

    Args:
        market: The market.
        state: State of B markets.
        stage: Stage at which agents deviate.
        decisions: Decisions of all stages, (B, n, k).
        candidates: (A, B, n, k): agent i's own candidates.

    Returns:
        (A, B, n) payoffs of the deviating agent.
    """
    names = [s.name for s in market.stages]
    position = names.index(stage)
    role = market.stage(stage).role
    a, b, n, _ = candidates.shape
    index = np.tile(np.arange(b), a)
    many = market.take(state, index)
    out = np.empty((a, b, n))
    for i in range(n):
        profile = {name: np.tile(decisions[name], (a, 1, 1)) for name in names}
        profile[stage][:, i] = candidates[:, :, i].reshape(a * b, -1)
        values = None
        if position + 1 < len(names):
            # Later stages may keep what they played where the market has no solver for them; ``method`` says so.
            with contextlib.suppress(NotOffered):
                answer = market.respond(many, {name: profile[name] for name in names[: position + 1]})
                values = np.asarray(answer.values[role])  # holds where the answer is mixed, too
        if values is None:
            values = market.backend.numpy(market.payoff(many, profile)[role])
        out[:, :, i] = values[:, i].reshape(a, b)
    return out


def best_response(market: Market, state: State, stage: str, decisions: Mapping[str, np.ndarray]) -> BestResponse:
    """Enumeration of a small discrete stage, else a grid and zooms, coordinate by coordinate."""
    low, high = stage_bounds(market, state, stage)
    played = decisions[stage]
    base = deviation_values(market, state, stage, decisions, played[None])[0]
    best, best_value = played.copy(), base.copy()
    table = market.stage(stage).codec.candidates(low, high)
    if table is not None and len(table) <= MAX_ENUMERATION:
        candidates = np.broadcast_to(table, (len(table), *played.shape))
        best, best_value = _improve(market, state, stage, decisions, candidates, best, best_value)
        kind, method = "exact", "enumeration of the stage's decisions"
    else:
        kind, method = "estimate", f"grid of {GRID} and {ZOOMS} zooms per coordinate"
        for k in range(played.shape[2]):
            width = (high[..., k] - low[..., k]) / 2
            centre, points = (high[..., k] + low[..., k]) / 2, GRID
            for _ in range(1 + ZOOMS):
                offsets = np.linspace(-1, 1, points)[:, None, None]
                candidates = np.repeat(best[None], points, axis=0)
                candidates[..., k] = np.clip(centre + offsets * width, low[..., k], high[..., k])
                best, best_value = _improve(market, state, stage, decisions, candidates, best, best_value)
                centre, width, points = best[..., k], 2 * width / (points - 1), ZOOM
    if type(market).respond is _base_respond() and stage != market.stages[-1].name:
        kind, method = "estimate", method + ", later stages held as played"
    gains = best_value - base
    upper = gains if kind == "exact" else np.full_like(gains, np.inf)
    return BestResponse(best, best_value, gains, upper, kind, method)


def _improve(
    market: Market,
    state: State,
    stage: str,
    decisions: Mapping[str, np.ndarray],
    candidates: np.ndarray,
    best: np.ndarray,
    best_value: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    values = deviation_values(market, state, stage, decisions, candidates)
    top = values.argmax(axis=0)
    value = np.take_along_axis(values, top[None], axis=0)[0]
    choice = np.take_along_axis(candidates, top[None, :, :, None], axis=0)[0]
    better = value > best_value
    return np.where(better[..., None], choice, best), np.where(better, value, best_value)


def equilibrium(market: Market, state: State, starts: int = 4, sweeps: int = 12, seed: int = 0) -> Equilibrium:
    """Damped sequential best responses from several starts; the profile of least NashConv. Never certified."""
    rng = np.random.default_rng(seed)
    bounds = {s.name: stage_bounds(market, state, s.name) for s in market.stages}
    batch = market.batch(state)
    best_gap = np.full(batch, np.inf)
    best: dict[str, np.ndarray] = {}
    for start in range(starts):
        profile = {
            name: low + (high - low) * (0.5 if start == 0 else rng.uniform(size=low.shape))
            for name, (low, high) in bounds.items()
        }
        for sweep in range(sweeps):
            damping = max(0.2, 0.9**sweep)
            for stage in reversed(market.stages):
                reply = best_response(market, state, stage.name, profile).decisions
                profile[stage.name] = profile[stage.name] + damping * (reply - profile[stage.name])
        committed = market.committed(state, profile)
        profile = {k: market.backend.numpy(v) for k, v in committed.decisions.items()}
        gap = nash_conv(market, state, profile).lower
        better = gap < best_gap
        best_gap = np.where(better, gap, best_gap)
        best = {k: np.where(better[:, None, None], v, best.get(k, v)) for k, v in profile.items()}
    conv = nash_conv(market, state, best)
    epsilon = np.max([g.max(axis=1) for g in conv.gains.values()], axis=0)
    values = {role: market.backend.numpy(v) for role, v in market.payoff(state, best).items()}
    return Equilibrium(
        strategy=market.by_stage({k: Pure(v) for k, v in best.items()}),
        values=values,
        epsilon=epsilon,
        certified=np.zeros(batch, dtype=bool),
        kind="estimate",
        method=f"multistart ({starts}) damped best-response search; deviations: {conv.method}",
        citation="",
        exists=np.ones(batch, dtype=bool),
        selection="least NashConv found",
        on_path=market.by_stage(best),
    )


def _base_respond() -> object:
    from ..market import Market

    return Market.respond
