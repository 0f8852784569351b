"""Mixed requests: expected payoffs and best replies by joint draws, without copying the market's devices for every draw.

A reply is chosen on one half of the draws and valued on the other, so its gain is an honest estimate of a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...market import State
from ...strategy import BestResponse, Pure, Samples, Strategy
from . import solve
from .oracle import SliceGame, payoff_of_grant

if TYPE_CHECKING:
    from .rules import FederatedSlicing

Floats = NDArray[np.float64]

DRAWS = 128
CANDIDATES = 48
BUDGET = 40_000_000  # payoffs that one reply may evaluate per candidate list; very large markets use fewer draws
LARGE = 100_000  # slices in all markets together from which fewer candidates are tried (a crowd's sum hardly varies)


def draw_requests(market: FederatedSlicing, state: State, strategy: Strategy) -> Floats:
    """Joint draws of everybody's requests, (S, B, M); slices mix independently."""
    batch, count = market.batch(state), market.params.n_slices
    low, high = (
        np.broadcast_to(market.backend.numpy(b), (batch, count, 1))[..., 0] for b in market.bounds(state, "request")
    )
    rng = np.random.default_rng(0)
    if isinstance(strategy, Pure):
        draws = np.broadcast_to(strategy.decisions[None, :, :, 0], (1, batch, count))
    elif isinstance(strategy, Samples) and strategy.weights is not None and np.ptp(strategy.weights) == 0.0:
        draws = np.broadcast_to(strategy.values[..., 0], (len(strategy.values), batch, count))
    else:
        draws = np.stack([strategy.draw(rng.uniform(size=(batch, count)))[..., 0] for _ in range(DRAWS)])
    draws = np.clip(draws, low, high)
    codec = market.stages[0].codec
    if codec.discrete:
        draws = np.stack([codec.snap(np, d[..., None], low[..., None], high[..., None])[..., 0] for d in draws])
    if market.params.action_mode == "relative":
        s = solve.float_state(market, state)
        draws = np.clip(draws, s.theta.request_min, s.theta.request_max)
    return draws


def payoff(market: FederatedSlicing, state: State, strategy: Strategy) -> Floats:
    """Mean payoffs (B, M) over joint draws."""
    twin, s = solve.numpy_twin(market), solve.float_state(market, state)
    draws = draw_requests(market, state, strategy)
    return sum(twin._shared(twin._paid(s, d)[3]) for d in draws) / len(draws)


def reply(market: FederatedSlicing, state: State, strategy: Strategy) -> BestResponse:
    """Best request of every slice against a mixed profile."""
    p = market.params
    g = solve.game_of(market, state)
    draws = draw_requests(market, state, strategy)
    draws = draws[: max(8, BUDGET // (CANDIDATES * g.need.size))]
    quick = p.reward == "own" and not p.whole_blocks and p.intra == "max_min" and p.rewards != "paper"
    value = _sums if quick and p.rule == "proportional" else _profiles
    offered = solve.choices(market, state, g)
    low, high = np.broadcast_to(g.request_min, g.need.shape), np.broadcast_to(g.request_max, g.need.shape)
    half = max(1, len(draws) // 2)
    first, second = (draws[:half], draws[half:]) if len(draws) > 1 else (draws, draws)
    count = CANDIDATES if value is _sums and g.need.size < LARGE else CANDIDATES // 3
    if offered is not None:
        candidates = [offered[..., k] for k in range(offered.shape[-1])]
    else:
        candidates = [low * (high / low) ** share for share in np.linspace(0.0, 1.0, count)]
    best = candidates[0]
    top = value(market, state, g, best, first)
    for candidate in candidates[1:]:
        found = value(market, state, g, candidate, first)
        best, top = np.where(found > top, candidate, best), np.maximum(found, top)
    if offered is None:
        ratio = (high / low) ** (1.0 / (count - 1))
        centre = best
        for share in np.linspace(-1.0, 1.0, 9)[1:-1]:
            candidate = np.clip(centre * ratio**share, low, high)
            found = value(market, state, g, candidate, first)
            best, top = np.where(found > top, candidate, best), np.maximum(found, top)
    twin, s = solve.numpy_twin(market), solve.float_state(market, state)
    held = sum(twin._shared(twin._paid(s, d)[3]) for d in second) / len(second)
    gains = np.maximum(value(market, state, g, best, second) - held, 0.0)
    decisions = solve._as_decisions(market, state, best)
    method = f"{len(draws)} joint draws, chosen on one half and valued on the other"
    return BestResponse(decisions, held + gains, gains, np.full_like(gains, np.inf), "estimate", method)


def _sums(market: FederatedSlicing, state: State, g: SliceGame, requests: Floats, draws: Floats) -> Floats:
    """Mean payoff of each slice's own request against the rivals' draws: only their sum matters under the proportional rule."""
    rivals = draws.sum(axis=-1, keepdims=True) - draws
    rows = max(1, 2_000_000 // g.need.size)
    total = np.zeros(g.need.shape)
    for k in range(0, len(rivals), rows):
        part = rivals[k : k + rows]
        grants = requests * np.minimum(1.0, g.capacity / (requests + part))
        total += payoff_of_grant(g, grants).sum(axis=0)
    return total / len(rivals)


def _profiles(market: FederatedSlicing, state: State, g: SliceGame, requests: Floats, draws: Floats) -> Floats:
    """The same for every other rule and reward: one profile per slice and draw."""
    twin, s = solve.numpy_twin(market), solve.float_state(market, state)
    total = np.zeros(g.need.shape)
    for profile in draws[:32]:
        for m in range(g.need.shape[-1]):
            trial = profile.copy()
            trial[:, m] = requests[:, m]
            total[:, m] += twin._shared(twin._paid(s, trial)[3])[:, m]
    return total / min(len(draws), 32)


def mixed_payoff(market: FederatedSlicing, state: State, profile: Mapping[str, Strategy]) -> dict[str, Floats]:
    """Expected payoffs of a profile with mixtures."""
    return {"slice": payoff(market, state, profile["request"])}
