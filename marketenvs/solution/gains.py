"""Unilateral gains and NashConv of a profile, for every market.

The gain of an agent at stage k is max_a V(a) - V(played), where V lets every LATER stage re-answer (``respond``) and holds same-stage rivals
and earlier stages fixed. The played decision is always a candidate, so a gain is never negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..strategy import BestResponse, NashConv, Pure, Reply, Strategy

if TYPE_CHECKING:
    from ..market import Market, State

_STRENGTH = {"exact": 0, "bound": 1, "estimate": 2}


def resolve_replies(market: Market, state: State, profile: Mapping[str, Any]) -> dict[str, Strategy]:
    """The profile by stage, with every ``Reply`` that follows only pure stages replaced by what it answers on the path of play."""
    named = market.resolve(state, profile)
    here, pure = state, True
    for stage in market.stages:
        strategy = named[stage.name]
        if isinstance(strategy, Reply) and pure:
            strategy = named[stage.name] = strategy.answer(here)
        pure = pure and isinstance(strategy, Pure)
        if pure and isinstance(strategy, Pure):
            here = market.commit(here, stage.name, market.check_decisions(state, stage.name, strategy.decisions))
    return named


def best_response(market: Market, state: State, stage: str, profile: Mapping[str, Any]) -> BestResponse:
    """Best unilateral deviations at ``stage``: the market's oracle, or a search where it has none."""
    named = resolve_replies(market, state, profile)
    if not all(isinstance(s, Pure) for s in named.values()):
        return market.mixed_reply(state, stage, named)
    committed = market.committed(state, {k: v.decisions for k, v in named.items() if isinstance(v, Pure)})
    decisions = {k: market.backend.numpy(v) for k, v in committed.decisions.items()}
    if type(market).best_reply is not _base_best_reply():
        return market.best_reply(state, stage, decisions)
    from . import search

    return search.best_response(market, state, stage, decisions)


def nash_conv(market: Market, state: State, profile: Mapping[str, Any]) -> NashConv:
    """Sum of gains over agents and stages, with its lower and upper end."""
    named = resolve_replies(market, state, profile)
    batch = market.batch(state)
    gains = {role: np.zeros((batch, n)) for role, n in market.roles.items()}
    lower, upper = np.zeros(batch), np.zeros(batch)
    kind, methods = "exact", []
    for stage in market.stages:
        best = best_response(market, state, stage.name, named)
        gains[stage.role] = gains[stage.role] + best.gains
        lower = lower + best.gains.sum(axis=1)
        upper = upper + best.upper.sum(axis=1)
        kind = max(kind, best.kind, key=_STRENGTH.__getitem__)
        methods.append(f"{stage.name}: {best.method}")
    return NashConv(lower, upper, gains, kind, "; ".join(methods))


def certified(kind: str, epsilon: np.ndarray, scale: np.ndarray, stated: float = 0.0) -> np.ndarray:
    """Whether each market's equilibrium may be called certified: exact with gain <= 1e-9 x scale, or bounded by the stated epsilon.

    Args:
        kind: "exact", "bound" or "estimate".
        epsilon: (B,) largest gain (its upper bound).
        scale: (B,) max(1, largest absolute payoff).
        stated: For "bound": the preset's stated epsilon, relative to scale.
    """
    if kind == "exact":
        return epsilon <= 1e-9 * scale
    if kind == "bound":
        return epsilon <= stated * scale
    return np.zeros(np.shape(epsilon), dtype=bool)


def payoff_scale(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """(B,) max(1, largest absolute payoff of any agent)."""
    return np.maximum(1.0, np.max([np.abs(v).max(axis=1) for v in values.values()], axis=0))


def _base_best_reply() -> Any:
    from ..market import Market

    return Market.best_reply
