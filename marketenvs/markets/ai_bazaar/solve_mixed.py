"""Mixed profiles of AI-Bazaar: payoffs and best deviations when the provider or the consumers randomise.

The provider's mixture is valued exactly (its value is linear in its weights). A consumer's rivals matter only through the distribution of
their total effort; that is integrated over independent draws, with the deviation chosen on one half and valued on the other. A consumer's
payoff is concave in its own amount whatever the rivals mix, so the deviation is a bisection on the derivative, not a search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...strategy import BestResponse, Pure, Reply, Samples, Strategy
from . import leader, mixed, solve
from .game import FloatArray, Game

if TYPE_CHECKING:
    from ...market import State
    from .rules import AIBazaar

DRAWS = 256
_PRICE_ATOMS = 64
_EXACT_ATOMS = 32  # finite mixtures up to this size are integrated exactly (effort must have a common unit)


def price_atoms(market: AIBazaar, state: State, strategy: Strategy) -> tuple[FloatArray, FloatArray]:
    """Prices (S, B) and probabilities (S, B) of the provider's strategy (quantiles, if it is a continuous sampler)."""
    batch = market.batch(state)
    if isinstance(strategy, Samples):
        assert strategy.weights is not None
        values = np.broadcast_to(strategy.values[:, :, 0, 0], (len(strategy.values), batch))
        return values, np.broadcast_to(strategy.weights[:, :, 0], values.shape)
    if isinstance(strategy, Pure):
        return np.broadcast_to(strategy.decisions[:, 0, 0], (1, batch)), np.ones((1, batch))
    quantiles = (np.arange(_PRICE_ATOMS) + 0.5) / _PRICE_ATOMS
    values = np.stack([strategy.draw(np.full((batch, 1), q))[:, 0, 0] for q in quantiles])
    return values, np.full(values.shape, 1.0 / _PRICE_ATOMS)


def mixed_reply(market: AIBazaar, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
    """Best deviations from a profile in which some stage is mixed."""
    if market.params.price_levels is not None:
        from . import solve_grid

        return solve_grid.mixed_reply(market, state, stage, profile)
    prices, weights = price_atoms(market, state, profile["pricing"])
    game = solve.rows_for(solve.game_of(market, state), market.batch(state))
    if stage == "pricing":
        played = (leader.leader_value(game, prices.T) * weights.T).sum(axis=1)
        solution = solve.leader_optimum(market, state)
        best, value = (np.broadcast_to(a, played.shape) for a in (solution.price, solution.value))
        gains = np.maximum(value - played, 0.0)[:, None]
        method = "path-following against the exact mean over the provider's prices, consumers re-answer"
        return BestResponse(best[:, None, None], played[:, None] + gains, gains, gains, "exact", method)
    parts = [_consumers(market, state, game, price, profile["purchase"]) for price in prices]
    decisions = np.stack([p[0] for p in parts])
    mean = [(np.stack([p[k] for p in parts]) * weights[:, :, None]).sum(axis=0) for k in (1, 2)]
    best = decisions[weights.argmax(axis=0), np.arange(decisions.shape[1])]
    method = f"rivals' effort from {DRAWS} independent draws; own amount by bisection, chosen on one half and valued on the other"
    return BestResponse(best[:, :, None], mean[0] + mean[1], mean[1], np.full_like(mean[1], np.inf), "estimate", method)


def _draws(market: AIBazaar, state: State, price: FloatArray, strategy: Strategy, seed: int = 0) -> FloatArray:
    """Independent draws (M, B, n) of what the consumers buy at ``price`` (B,)."""
    if isinstance(strategy, Reply):
        strategy = strategy.answer(market.commit(state, "pricing", market.backend.asarray(price[:, None, None])))
    rng = np.random.default_rng(seed)
    batch, n = market.batch(state), market.params.n_consumers
    if isinstance(strategy, Pure):
        return np.broadcast_to(strategy.decisions[:, :, 0], (1, batch, n))
    if isinstance(strategy, Samples) and strategy.joint:
        return np.broadcast_to(strategy.values[..., 0], (len(strategy.values), batch, n))
    return np.stack(
        [np.broadcast_to(strategy.draw(rng.uniform(size=(batch, n))), (batch, n, 1))[:, :, 0] for _ in range(DRAWS)]
    )


def _consumers(
    market: AIBazaar, state: State, game: Game, price: FloatArray, strategy: Strategy
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Best amounts, mean payoffs as played, and gains, each (B, n), at one price per market."""
    bought = _draws(market, state, price, strategy)
    effort = game.mining_ratio * bought
    rivals = np.maximum(effort.sum(axis=2, keepdims=True) - effort, 0.0)
    half = len(bought) // 2
    first, second = (slice(0, half), slice(half, None)) if half else (slice(None), slice(None))
    kappa = game.net_cost(price)

    def value(amount: FloatArray, against: FloatArray) -> FloatArray:
        own = game.mining_ratio * amount
        total = own + against
        return (-kappa * amount + game.reward * own / np.where(total > 0, total, 1.0)).mean(axis=0)

    low, high = game.purchase_low.copy(), game.purchase_high.copy()
    prize, chosen = game.mining_ratio * game.reward, rivals[first]
    for _ in range(45):
        middle = (low + high) / 2
        total = np.maximum(game.mining_ratio * middle + chosen, 1e-300)
        rising = -kappa + prize * (chosen / total**2).mean(axis=0) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    best = (low + high) / 2
    best = np.where(np.abs(best - game.purchase_high) < 1e-9 * game.purchase_high, game.purchase_high, best)
    played = value(bought[second], rivals[second])
    gains = np.maximum(value(best, rivals[second]) - played, 0.0)
    return best, value(bought, rivals), gains


def _exact(
    market: AIBazaar, state: State, game: Game, price: FloatArray, strategy: Strategy
) -> tuple[FloatArray, FloatArray] | None:
    """Mean demand (B,) and payoffs (B, n) of independent finite mixtures; None where they cannot be integrated exactly."""
    if isinstance(strategy, Reply):
        strategy = strategy.answer(market.commit(state, "pricing", market.backend.asarray(price[:, None, None])))
    if isinstance(strategy, Pure):
        strategy = Samples(strategy.decisions[None])
    if not isinstance(strategy, Samples) or strategy.joint or len(strategy.values) > _EXACT_ATOMS:
        return None
    assert strategy.weights is not None
    shape = (len(strategy.values), *game.payment_weight.shape)
    levels = np.moveaxis(np.broadcast_to(strategy.values[..., 0], shape), 0, 2)
    weights = np.moveaxis(np.broadcast_to(strategy.weights, shape), 0, 2)
    found = mixed.mixed_payoff(game, price, levels, weights)
    if found.standard_error.any():
        return None
    return (levels * weights).sum(axis=(1, 2)), found.values


def mixed_payoff(market: AIBazaar, state: State, profile: Mapping[str, Strategy]) -> dict[str, FloatArray]:
    """Mean payoffs over the provider's price atoms; the consumers' finite mixtures exactly, others over independent draws."""
    if market.params.price_levels is not None:
        from . import solve_grid

        return solve_grid.mixed_payoff(market, state, profile)
    prices, weights = price_atoms(market, state, profile["pricing"])
    game = solve.rows_for(solve.game_of(market, state), market.batch(state))
    provider = np.zeros((market.batch(state), 1))
    consumer = np.zeros((market.batch(state), market.params.n_consumers))
    for price, weight in zip(prices, weights, strict=True):
        found = _exact(market, state, game, price, profile["purchase"])
        if found is not None:
            demand, played = found
            provider += (weight * (price - game.unit_cost) * demand)[:, None]
            consumer += weight[:, None] * played
            continue
        bought = _draws(market, state, price, profile["purchase"])
        _, played, _ = _consumers(market, state, game, price, profile["purchase"])
        provider += (weight * (price - game.unit_cost) * bought.sum(axis=2).mean(axis=0))[:, None]
        consumer += weight[:, None] * played
    return {"provider": provider, "consumer": consumer}
