"""Equilibria on price grids: every pure profile of two sellers is checked, mixtures by complementary pivoting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import NotOffered
from ...solution.gains import certified, payoff_scale
from ...strategy import Equilibrium, Pure, Reply, Samples
from . import games, mixed, sellers, solve, urns

if TYPE_CHECKING:
    from ...market import State
    from .rules import SpectrumBertrand

Floats = NDArray[np.float64]


def grid_equilibrium(market: SpectrumBertrand, state: State, theta: Any) -> Equilibrium:
    """Equilibrium of the sellers' game on the price grid, buyers re-equilibrating.

    Raises:
        NotOffered: more than two sellers, or several prices per seller, on a grid.
    """
    p, batch = market.params, market.batch(state)
    if p.n_sellers != 2 or p.price_groups != 1:
        raise NotOffered("price grids have an oracle for two sellers with one price each; use continuous prices")
    rows = theta.worth.shape[0]
    if p.price_levels is None:
        levels = grid_levels(theta, 101)
    else:
        levels = grid_levels(theta, p.price_levels)
    k = levels.shape[1]
    pairs = np.stack(np.broadcast_arrays(levels[:, :, None], levels[:, None, :]), -1)
    profit = games.table_profit(market, theta, pairs)
    chosen, weights, epsilon = np.zeros((k, rows, 2)), np.zeros((k, rows, 2)), np.zeros(rows)
    several = 0
    for b in range(rows):
        first, second = profit[b, ..., 0], profit[b, ..., 1]
        loss = np.maximum(first.max(0, keepdims=True) - first, second.max(1, keepdims=True) - second)
        pure = np.argwhere(loss <= 1e-12 * max(1.0, float(np.abs(profit[b]).max())))
        chosen[:, b, :] = levels[b][:, None]
        if len(pure):
            several = max(several, len(pure))
            i, j = pure[0]
            weights[i, b, 0] = weights[j, b, 1] = 1.0
            epsilon[b] = loss[i, j]
        else:
            x, y = mixed.bimatrix_equilibrium(first, second)
            x, y = mixed.refine_pair(first, second, x, y)
            weights[:, b, 0], weights[:, b, 1] = x, y
            epsilon[b] = max((first @ y).max() - x @ first @ y, (x @ second).max() - x @ second @ y)
    earned = np.einsum("kb,lb,bklj->bj", weights[..., 0], weights[..., 1], profit)
    values = {"seller": games.spread(earned, batch)}
    exact = "exact"
    all_pure = bool(np.all(weights.max(0) == 1.0))
    strategy: dict[str, Any] = {}
    on_path = {}
    if all_pure:
        price = np.take_along_axis(chosen, weights.argmax(0)[None], 0)[0]
        on_path["pricing"] = games.spread(price[:, :, None], batch)
        strategy["pricing"] = Pure(on_path["pricing"])
    else:
        shape = (k, batch, 2)
        strategy["pricing"] = Samples(
            np.array(np.broadcast_to(chosen[..., None], (*shape, 1))), np.array(np.broadcast_to(weights, shape))
        )
    gain = epsilon
    if market.auction:
        strategy["bidding"] = Reply(lambda s: solve._answer(market, s))
        if p.fidelity == "paper":
            game = games.game_of(market, theta)
            payoff = np.einsum("kb,lb,bkl->b", weights[..., 0], weights[..., 1], sellers.respond(game, pairs).payoff)
            values["buyer"] = games.spread(np.repeat(payoff[:, None], p.n_buyers, -1), batch)
            exact = "estimate"
        elif all_pure:
            _, payoff, extra = solve._respond_at(market, theta, on_path["pricing"], batch)
            values["buyer"], gain = payoff, np.maximum(games.spread(epsilon, batch), extra)
        else:
            game = games.game_of(market, theta)
            payoff = np.einsum("kb,lb,bkl->b", weights[..., 0], weights[..., 1], sellers.respond(game, pairs).payoff)
            values["buyer"] = games.spread(np.repeat(payoff[:, None], p.n_buyers, -1), batch)
            exact = "exact" if p.bid_levels is None or p.payment == "posted" else "estimate"
    epsilon = games.spread(gain, batch)
    return Equilibrium(
        strategy=market.by_stage(strategy),
        values=values,
        epsilon=epsilon,
        certified=certified(exact, epsilon, payoff_scale(values)),
        kind=exact,
        method=f"all {k * k} price pairs; Lemke-Howson where none is an equilibrium",
        citation=solve.CITATION,
        exists=np.ones(batch, bool),
        selection=f"lowest first price of {several} pure equilibria"
        if several > 1
        else "the only pure equilibrium, or the mixture found",
        on_path=market.by_stage(on_path),
    )


def grid_levels(theta: Any, levels: int) -> Floats:
    """The price grid of each market, (rows, levels)."""
    low, high = theta.price_floor * theta.worth, theta.price_cap * theta.worth
    return low + (high - low) * (np.arange(levels) / (levels - 1))


def printed_profit(market: SpectrumBertrand, theta: Any, price: Floats) -> Floats:
    """Rewards of eq. (4) at prices (rows, ..., 2) when all-pay bidders re-equilibrate, by quadrature over bids."""
    game = games.game_of(market, theta)
    stage = sellers.respond(game, price)
    between = (1,) * (price.ndim - 2)
    value, number, cost = (x.reshape(-1, *between, x.shape[-1]) for x in (game.value[:, None], game.urns, game.cost))
    x, w = np.polynomial.legendre.leggauss(48)
    reward = np.zeros(price.shape)
    m = game.buyers
    for node, weight in zip(0.5 * (x + 1), 0.5 * w, strict=True):
        bid = urns.bid_quantile("all_pay", value, stage.payoff[..., None], stage.density, price, np.asarray(node), m, 1)
        q = stage.density
        density = m * q * (1.0 - q + q * node) ** (m - 1)  # of the winning bid's quantile
        reward = reward + weight * density * np.maximum(bid - price - cost, 0.0)
    reward = reward * number
    if market.params.team_reward == "shared":
        reward = np.repeat(reward.sum(-1, keepdims=True), 2, -1)
    return reward
