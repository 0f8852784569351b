"""Solvers of the discretised AI-Bazaar presets, on the contract's types: the game has its own oracle and its own anchor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...solution.gains import certified, payoff_scale
from ...strategy import BestResponse, Equilibrium, Pure, Reply, Samples, Strategy
from . import followers, grid, mixed, solve
from .game import FloatArray, Game
from .solve_mixed import price_atoms

if TYPE_CHECKING:
    from ...market import State
    from .rules import AIBazaar

_METHOD = (
    "exact enumeration of the consumers' pure equilibria on the grid (largest demand of several), argmax over prices"
)


def _solved(market: AIBazaar, state: State) -> tuple[Game, grid.GridLeader]:
    known = getattr(market, "_grid_memo", None)
    if known is None or known[0] is not state.theta:
        game = solve.game_of(market, state)
        assert market.params.price_levels is not None
        assert market.params.amount_levels is not None
        known = (state.theta, game, grid.grid_leader(game, market.params.price_levels, market.params.amount_levels))
        market._grid_memo = known  # type: ignore[attr-defined]
    return known[1], known[2]


def _row(array: FloatArray, batch: int) -> np.ndarray:
    """Index of each market's own row (0 where all markets share one)."""
    return np.arange(batch) if array.shape[0] == batch else np.zeros(batch, dtype=np.int64)


def _index(game: Game, leader: grid.GridLeader, prices: FloatArray) -> np.ndarray:
    """Grid position (B,) of prices (B,)."""
    levels = leader.values.shape[1]
    low, high = (np.broadcast_to(a, prices.shape) for a in (game.price_low, game.price_high))
    width = np.where(high > low, high - low, 1.0)
    return np.clip(np.rint((prices - low) / width * (levels - 1)), 0, levels - 1).astype(np.int64)


def _answers(market: AIBazaar, state: State, prices: FloatArray) -> tuple[Game, FloatArray, np.ndarray]:
    """The game of every market, the consumers' grid equilibrium (B, n) at ``prices`` (B,), and whether it is one."""
    game, leader = _solved(market, state)
    row, column = _row(leader.values, len(prices)), _index(game, leader, prices)
    return solve.rows_for(game, len(prices)), leader.purchases[row, column], leader.exists[row, column]


def _values(game: Game, price: FloatArray, bought: FloatArray) -> dict[str, FloatArray]:
    return {
        "provider": followers.provider_payoff(game, price, bought)[:, None],
        "consumer": followers.consumer_payoff(game, price, bought),
    }


def _reply(market: AIBazaar, there: State) -> Strategy:
    """The consumers' answer to the price committed in ``there``."""
    posted = market.backend.numpy(there.decisions["pricing"])[:, 0, 0]
    return Pure(_answers(market, there, posted)[1][:, :, None])


def equilibrium(market: AIBazaar, state: State) -> Equilibrium:
    """Grid Stackelberg equilibrium; certified where every price's consumer game has a pure equilibrium."""
    _, leader = _solved(market, state)
    batch = market.batch(state)
    price = np.broadcast_to(leader.price, (batch,)).copy()
    answer = respond(market, state, {"pricing": price[:, None, None]})
    everywhere = np.broadcast_to(leader.exists.all(axis=1), (batch,))

    return Equilibrium(
        strategy=market.by_stage({"pricing": Pure(price[:, None, None]), "purchase": Reply(partial(_reply, market))}),
        values=answer.values,
        epsilon=answer.epsilon,
        certified=answer.certified & everywhere,
        kind="exact" if everywhere.all() else "estimate",
        method=_METHOD
        if everywhere.all()
        else _METHOD + "; at some prices there is none: the least-regret profile stands in",
        citation=solve.CITATION,
        exists=answer.exists,
        selection="lowest best price; of several consumer equilibria the one of largest demand",
        on_path=answer.on_path,
    )


def respond(market: AIBazaar, state: State, prefix: Mapping[str, Any]) -> Equilibrium:
    """The consumers' pure equilibrium on the grid at posted prices (least-regret profile where there is none)."""
    posted = market.backend.numpy(market.committed(state, prefix).decisions["pricing"])
    price = posted[:, 0, 0]
    game, bought, exists = _answers(market, state, price)
    values = _values(game, price, bought)
    assert market.params.amount_levels is not None
    epsilon = grid.grid_regrets(game, price, bought, market.params.amount_levels).max(axis=1)
    return Equilibrium(
        strategy=market.by_stage({"purchase": Pure(bought[:, :, None])}),
        values=values,
        epsilon=epsilon,
        certified=certified("exact", epsilon, payoff_scale(values)) & exists,
        kind="exact",
        method=_METHOD,
        citation=solve.CITATION,
        exists=exists,
        selection="largest demand",
        on_path=market.by_stage({"pricing": posted, "purchase": bought[:, :, None]}),
    )


def _leader_reply(market: AIBazaar, state: State, played: FloatArray, method: str) -> BestResponse:
    """The provider's gain over ``played`` (B,), its value when the consumers re-answer."""
    _, leader = _solved(market, state)
    value = np.maximum(np.broadcast_to(leader.value, played.shape), played)
    best = np.broadcast_to(leader.price, played.shape)
    gains = (value - played)[:, None]
    return BestResponse(best[:, None, None].copy(), value[:, None], gains, gains, "exact", method)


def best_reply(market: AIBazaar, state: State, stage: str, decisions: Mapping[str, FloatArray]) -> BestResponse:
    """Exact best deviations on the grid."""
    price = decisions["pricing"][:, 0, 0]
    game, answered, _ = _answers(market, state, price)
    if stage == "pricing":
        played = followers.provider_payoff(game, price, answered)
        best = _leader_reply(market, state, played, "enumeration of prices, consumers re-answer")
        keep = best.gains[:, :, None] <= 0
        return BestResponse(
            np.where(keep, decisions["pricing"], best.decisions),
            best.values,
            best.gains,
            best.upper,
            "exact",
            best.method,
        )
    levels = market.params.amount_levels
    assert levels is not None
    bought = decisions["purchase"][:, :, 0]
    gains = grid.grid_regrets(game, price, bought, levels)
    amounts = np.where(gains > 0, grid.grid_best_response(game, price, bought, levels), bought)
    values = followers.consumer_payoff(game, price, bought) + gains
    return BestResponse(amounts[:, :, None], values, gains, gains, "exact", "enumeration of purchase levels")


def _mixtures(market: AIBazaar, state: State, game: Game, strategy: Strategy) -> tuple[FloatArray, FloatArray]:
    """Purchase levels (B, n, L) and probabilities (B, n, L) of a consumers' strategy; a sampler is counted over draws."""
    levels_count = market.params.amount_levels
    assert levels_count is not None
    levels = grid.grid_levels(game, levels_count)
    shape = levels.shape[:2]
    if isinstance(strategy, Samples):
        assert strategy.weights is not None
        values = np.broadcast_to(strategy.values[..., 0], (len(strategy.values), *shape))
        weights = np.broadcast_to(strategy.weights, values.shape)
    elif isinstance(strategy, Pure):
        values, weights = np.broadcast_to(strategy.decisions[..., 0], (1, *shape)), np.ones((1, *shape))
    else:
        points = (np.arange(256) + 0.5) / 256
        values = np.stack([strategy.draw(np.full(shape, q))[..., 0] for q in points])
        weights = np.full(values.shape, 1 / 256)
    nearest = np.abs(values[..., None] - levels).argmin(axis=-1)
    probabilities = np.zeros(levels.shape)
    for s in range(len(values)):
        np.put_along_axis(
            probabilities,
            nearest[s][..., None],
            np.take_along_axis(probabilities, nearest[s][..., None], axis=2) + weights[s][..., None],
            axis=2,
        )
    return levels, probabilities


def _at_price(
    market: AIBazaar, state: State, game: Game, price: FloatArray, strategy: Strategy
) -> tuple[mixed.MixedPayoff, FloatArray, FloatArray]:
    if isinstance(strategy, Reply):
        strategy = strategy.answer(market.commit(state, "pricing", market.backend.asarray(price[:, None, None])))
    levels, probabilities = _mixtures(market, state, game, strategy)
    return mixed.mixed_payoff(game, price, levels, probabilities), levels, probabilities


def mixed_reply(market: AIBazaar, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
    """Exact best deviations from independent mixtures on the grid (convolution of effort distributions)."""
    prices, weights = price_atoms(market, state, profile["pricing"])
    game = solve.rows_for(solve.game_of(market, state), market.batch(state))
    if stage == "pricing":
        played = np.zeros(prices.shape[1])
        for price, weight in zip(prices, weights, strict=True):
            played += weight * followers.provider_payoff(game, price, _answers(market, state, price)[1])
        return _leader_reply(market, state, played, "exact mean over the provider's prices, consumers re-answer")
    gains: Any = 0.0
    values: Any = 0.0
    decisions: Any = None
    exact = True
    heaviest = weights.argmax(axis=0)
    for s, (price, weight) in enumerate(zip(prices, weights, strict=True)):
        payoff, levels, _ = _at_price(market, state, game, price, profile["purchase"])
        best = np.take_along_axis(levels, payoff.deviation_values.argmax(axis=2)[..., None], axis=2)
        decisions = best if decisions is None else np.where((heaviest == s)[:, None, None], best, decisions)
        gains = gains + weight[:, None] * payoff.gains
        values = values + weight[:, None] * payoff.values
        exact = exact and not payoff.standard_error.any()
    method = "exact convolution of effort distributions" if exact else "sampled effort (no common unit)"
    upper = gains if exact else np.full_like(gains, np.inf)
    return BestResponse(decisions, values + gains, gains, upper, "exact" if exact else "estimate", method)


def mixed_payoff(market: AIBazaar, state: State, profile: Mapping[str, Strategy]) -> dict[str, FloatArray]:
    """Exact expected payoffs of independent mixtures on the grid."""
    prices, weights = price_atoms(market, state, profile["pricing"])
    game = solve.rows_for(solve.game_of(market, state), market.batch(state))
    provider: Any = 0.0
    consumer: Any = 0.0
    for price, weight in zip(prices, weights, strict=True):
        payoff, levels, probabilities = _at_price(market, state, game, price, profile["purchase"])
        demand = (levels * probabilities).sum(axis=(1, 2))
        provider = provider + weight * (price - game.unit_cost) * demand
        consumer = consumer + weight[:, None] * payoff.values
    return {"provider": np.asarray(provider)[:, None], "consumer": np.asarray(consumer)}
