"""Mixed profiles in markets that cannot integrate them in closed form: sampling with common random numbers.

A deviation is chosen on one half of the draws and valued on the other, so that the reported gain is an honest (unbiased, then floored at
zero) estimate of a lower bound. Markets with exact formulas override ``mixed_reply`` and ``mixed_payoff``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..strategy import BestResponse, Reply, Strategy
from .search import GRID, deviation_values, stage_bounds

if TYPE_CHECKING:
    from ..market import Market, State

DRAWS = 256
BUDGET = 400_000  # market evaluations per agent that one estimate may spend


def draw_profile(
    market: Market, state: State, profile: Mapping[str, Strategy], rng: np.random.Generator, copies: int = 1
) -> dict[str, np.ndarray]:
    """Independent draws of everybody's decisions, stage after stage (replies answer what was drawn before them).

    Args:
        market: The market.
        state: ``copies`` repetitions, one after the other, of the markets that the strategies are for.
        profile: Stage -> strategy.
        rng: Source of the uniforms.
        copies: Draws per market.

    Returns:
        Stage -> decisions (copies * B, n, k).
    """
    here, out = state, {}
    batch = market.batch(state) // copies
    for stage in market.stages:
        strategy, parts = profile[stage.name], copies
        if isinstance(strategy, Reply):
            strategy, parts = strategy.answer(here), 1
        rows = batch * copies // parts
        shape = (rows, market.roles[stage.role], stage.codec.width)
        drawn = [np.broadcast_to(strategy.draw(rng.uniform(size=shape[:2])), shape) for _ in range(parts)]
        here = market.commit(here, stage.name, market.check_decisions(here, stage.name, np.concatenate(drawn)))
        out[stage.name] = market.backend.numpy(here.decisions[stage.name])
    return out


def sampled_payoff(
    market: Market, state: State, profile: Mapping[str, Strategy], draws: int = DRAWS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Mean payoffs {role: (B, n)} over independent draws."""
    rng = np.random.default_rng(seed)
    batch = market.batch(state)
    many = market.take(state, np.tile(np.arange(batch), draws))
    payoffs = market.payoff(many, draw_profile(market, many, profile, rng, draws))
    return {role: market.backend.numpy(p).reshape(draws, batch, -1).mean(axis=0) for role, p in payoffs.items()}


def sampled_best_response(
    market: Market, state: State, stage: str, profile: Mapping[str, Strategy], seed: int = 0
) -> BestResponse:
    """Best deviation from a mixed profile, estimated; ``kind`` is "estimate" and ``upper`` is inf."""
    rng = np.random.default_rng(seed)
    batch = market.batch(state)
    low, high = stage_bounds(market, state, stage)
    table = market.stage(stage).codec.candidates(low, high)
    if table is None or len(table) > 4 * GRID:
        table = low + (high - low) * np.linspace(0, 1, GRID)[:, None, None, None]
    candidates = np.broadcast_to(table, (len(table), *low.shape))
    draws = int(np.clip(BUDGET // (len(table) * batch), 8, DRAWS)) // 2 * 2
    many = market.take(state, np.tile(np.arange(batch), draws))
    played = draw_profile(market, many, profile, rng, draws)
    repeated = np.tile(candidates, (1, draws, 1, 1))
    size = (draws, batch, low.shape[1])
    here = deviation_values(market, many, stage, played, played[stage][None])[0].reshape(size)
    values = deviation_values(market, many, stage, played, repeated).reshape(len(table), *size)
    half = draws // 2
    chosen = values[:, :half].mean(axis=1).argmax(axis=0)
    valued = np.take_along_axis(values[:, half:].mean(axis=1), chosen[None], axis=0)[0]
    base = here[half:].mean(axis=0)
    gains = np.maximum(valued - base, 0.0)
    decisions = np.take_along_axis(candidates, chosen[None, :, :, None], axis=0)[0]
    method = f"sampling: {draws} draws, {len(table)} candidates, chosen on one half and valued on the other"
    return BestResponse(decisions, base + gains, gains, np.full_like(gains, np.inf), "estimate", method)


__all__ = ["draw_profile", "sampled_best_response", "sampled_payoff"]
