"""Best replies to pure and mixed profiles: by formula, by enumeration, else by search. NumPy float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from ...solution import mixtures
from ...strategy import BestResponse, Pure, Samples, Strategy
from . import oracle, pools, posting, settlement, slices, tables
from .game import Game
from .parameters import JointPoolCodec

if TYPE_CHECKING:
    from ...market import State
    from .rules import TwoTierBidding

GRID = 129  # bids tried at once where none can be enumerated


def best_reply(market: TwoTierBidding, state: State, stage: str, decisions: Mapping[str, np.ndarray]) -> BestResponse:
    """Each agent's best deviation at a stage: exact by formula or enumeration, else the best of a refined grid."""
    game = Game(market, state).unfold()
    prefix = {k: v for k, v in decisions.items() if k == "posting"}
    if stage == "posting":
        return posting.best_reply(game, decisions["posting"])
    if stage == "slicing":
        return _best_split(game, decisions)
    bids = np.asarray(decisions["bidding"], float)
    if game.analytic:
        auction = game.auction(prefix)
        flat = bids[..., 0]
        reply = oracle.best_response(auction, flat)
        gain = oracle.gains(auction, flat, reply)
        exact = game.params.payment != "eq4_literal" or bool(oracle.equilibrium(auction).dominant.all())
        values = oracle.settle(auction, flat).payoffs + gain
        upper = gain if exact else np.full_like(gain, np.inf)
        kind = "exact" if exact else "estimate"
        return BestResponse(reply[..., None], values, gain, upper, kind, "first-order condition, clipped to the box")
    if game.params.bid_levels is not None:
        return _best_of_pool(game, bids, prefix)
    reply, gain, exact = reply_to(game, bids, prefix)
    values = game.payoffs(bids[None], prefix)[0] + gain
    if exact:
        return BestResponse(reply, values, gain, gain, "exact", "least bid for every number of blocks")
    return BestResponse(reply, values, gain, np.full_like(gain, np.inf), "estimate", f"grid of {GRID} bids, refined")


def _best_of_pool(game: Game, bids: np.ndarray, prefix: Mapping[str, np.ndarray]) -> BestResponse:
    current = game.payoffs(bids[None], prefix)[0]
    if game.params.control == "central":
        stage = game.market.stage("bidding")
        low, high = (np.broadcast_to(b, bids.shape) for b in game.market.bounds(game.state, "bidding"))
        trials = cast(JointPoolCodec, stage.codec).candidates(low, high)
        worth = game.payoffs(trials, prefix)
        at = worth.argmax(0)
        reply = np.take_along_axis(trials, at[None, :, :, None], 0)[0]
        best = worth.max(0)
    else:
        levels = game.pool()  # (B, M, K)
        size, reply, best = levels.shape[-1], bids.copy(), current.copy()
        for i in range(game.operators):
            trial = np.broadcast_to(bids, (size, *bids.shape)).copy()
            trial[:, :, i, 0] = levels[:, i].T
            worth = game.payoffs(trial, prefix)[..., i]
            at = worth.argmax(0)
            top = worth.max(0)
            better = top > current[:, i]
            best[:, i] = np.where(better, top, current[:, i])
            reply[:, i, 0] = np.where(better, levels[np.arange(game.batch), i, at], bids[:, i, 0])
    gain = np.maximum(best - current, 0.0)
    return BestResponse(reply, current + gain, gain, gain, "exact", "every bid of the pool")


def _best_split(game: Game, decisions: Mapping[str, np.ndarray]) -> BestResponse:
    """Slicers: enumeration of all splits of the blocks they hold."""
    market, rows = game.market, np.arange(game.batch)
    _, blocks = market.allocate(game.state, market.bids(decisions))
    played, _ = settlement.split_blocks(market, np.asarray(decisions["slicing"], float), blocks)
    n = np.round(blocks).astype(int)
    tiers = game.tiers()
    index = (rows % tiers.best.shape[0])[:, None]
    best = tiers.best[index, np.arange(game.operators), n]
    now = game.split_objective(np.round(played).astype(int))
    gain = np.maximum(best - now, 0.0)
    value = np.asarray(market.expected(game.state, dict(decisions))[market.stage("slicing").role])
    if game.params.packets_flow:  # the draws of the round are known to the oracle only, and queues outlive it
        upper = np.full_like(gain, np.inf)
        return BestResponse(
            game.slicing(blocks), value + gain, gain, upper, "estimate", "every split of this round, clairvoyant"
        )
    return BestResponse(game.slicing(blocks), value + gain, gain, gain, "exact", "every split")


def mixed_reply(market: TwoTierBidding, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
    """Best deviation from mixtures: exact for pools of bids and for splits after pure bids, sampled otherwise."""
    strategies = {name: profile[name] for name in (s.name for s in market.stages)}
    if stage == "bidding" and market.params.bid_levels is not None and market.params.control != "central":
        exact = isinstance(strategies["bidding"], (Pure, Samples)) and market.params.posting != "agent"
        exact = exact and (not market.params.packets_flow or market.params.reward == "profit")
        if exact and market.params.bid_levels**market.params.n_operators <= pools.MAX_PROFILES:
            return _mixed_pool(market, state, strategies["bidding"])
    split = stage == "slicing" and not market.params.packets_flow and isinstance(strategies["bidding"], Pure)
    if split and isinstance(strategies["slicing"], (Pure, Samples)):
        return _mixed_split(market, state, strategies)
    return mixtures.sampled_best_response(market, state, stage, profile)


def _support(strategy: Strategy, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Values (S, B, n, k) and weights (S, B, n) of a finite mixture."""
    if isinstance(strategy, Samples):
        assert strategy.weights is not None
        values, weights = strategy.values, strategy.weights
    else:
        values = cast(Pure, strategy).decisions[None]
        weights = np.ones((1, 1, 1))
    full = (len(values), *shape)
    return np.broadcast_to(values, full), np.broadcast_to(weights, full[:3])


def _mixed_pool(market: TwoTierBidding, state: State, strategy: Strategy) -> BestResponse:
    game = Game(market, state)
    levels, m = game.spread(game.pool()), game.operators
    size = levels.shape[-1]
    values, weights = _support(strategy, (game.full, m, 1))
    nearest = np.abs(values - levels[None]).argmin(-1)  # (S, B, M)
    chance = np.zeros((game.full, m, size))
    rows, agents = np.arange(game.full)[:, None], np.arange(m)
    for point, weight in zip(nearest, weights, strict=True):
        np.add.at(chance, (np.broadcast_to(rows, point.shape), np.broadcast_to(agents, point.shape), point), weight)
    payoffs = game.pool_payoffs({})
    own = np.empty((game.full, m, size))
    for i in range(m):
        table = payoffs[..., i].reshape((size,) * m + (game.batch,))
        for j in reversed([j for j in range(m) if j != i]):  # average out the others, the last axis first
            table = np.moveaxis(table, j, -2)
            table = (table * chance[:, j].T).sum(-2)
        own[:, i] = table.T
    base = (chance * own).sum(-1)
    best = own.max(-1)
    reply = np.take_along_axis(levels, own.argmax(-1)[..., None], -1)
    gain = np.maximum(best - base, 0.0)
    return BestResponse(reply, base + gain, gain, gain, "exact", "every bid against the rivals' mixture")


def _mixed_split(market: TwoTierBidding, state: State, strategies: Mapping[str, Strategy]) -> BestResponse:
    earlier = {k: v.decisions for k, v in strategies.items() if k != "slicing" and isinstance(v, Pure)}
    decisions = {k: market.backend.numpy(v) for k, v in market.committed(state, earlier).decisions.items()}
    game = Game(market, state).unfold()
    _, blocks = game.market.allocate(game.state, game.market.bids(decisions))
    stage = market.stage("slicing")
    values, weights = _support(strategies["slicing"], (game.full, game.operators, stage.codec.width))
    splits = [settlement.split_blocks(game.market, point, blocks)[0] for point in values]
    paid = game.split_objective(np.round(np.stack(splits, axis=2)).astype(int))
    mean = (np.moveaxis(weights, 0, 2) * paid).sum(-1)
    answer = _best_split(game, {**decisions, "slicing": game.slicing(blocks)})
    best = game.split_objective(np.round(game.split_of(blocks)).astype(int))
    gain = np.maximum(best - mean, 0.0)
    return BestResponse(answer.decisions, answer.values, gain, gain, "exact", "every split against the own mixture")


def reply_to(game: Game, bids: np.ndarray, prefix: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, bool]:
    """Best continuous bids (B, n, k), their gains (B, n), and whether they are exact (breakpoints) or searched (grid)."""
    p = game.params
    own_only = p.reward in ("profit", "utility") and p.control != "central"
    if own_only and tables.offered(p) and not p.packets_flow:
        return *_breakpoints(game, bids, prefix), True
    return *search_bids(game, bids, prefix), False


def _breakpoints(game: Game, bids: np.ndarray, prefix: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Exact best replies where bandwidth comes in whole blocks.

    Against given rivals, an operator's blocks never fall as its bid rises (its quota rises, all others fall in proportion, so that it
    is overtaken by nobody in the order of remainders). What it earns depends on its blocks and, where bids are paid, falls in the
    bid: so the candidates are the least bids for every attainable number of blocks, found by bisection to the last bit.
    """
    p, m, found = game.params, game.operators, tables.tabulate(game)
    low, high = (np.broadcast_to(b, bids.shape)[..., 0] for b in game.market.bounds(game.state, "bidding"))
    price = np.broadcast_to(game.market.prices(game.state, prefix), (game.batch, m))
    count = np.arange(p.blocks + 1)
    reply, gain = bids.copy(), np.zeros(bids.shape[:2])

    def blocks_at(trial: np.ndarray, i: int) -> tuple[np.ndarray, np.ndarray]:
        profile = np.repeat(bids[:, None, :, 0], trial.shape[1], axis=1)
        profile[..., i] = trial
        return slices.round_blocks(profile, 1.0, p.blocks)[..., i], profile

    for i in range(m):
        least = np.repeat(low[:, i, None], len(count), axis=1)
        most = np.repeat(high[:, i, None], len(count), axis=1)
        enough = blocks_at(least, i)[0] >= count  # the floor already buys so many
        reach = blocks_at(most, i)[0] >= count
        most = np.where(enough, least, most)
        for _ in range(70):
            middle = 0.5 * (least + most)
            there = blocks_at(middle, i)[0] >= count
            least, most = np.where(there, least, middle), np.where(there, middle, most)
            if (most - least <= 4e-16 * most).all():
                break
        got, profile = blocks_at(most, i)
        worth = np.where(reach, tables.own_payoff(game, found, i, got, profile, price), -np.inf)
        now, played = blocks_at(bids[:, i], i)
        current = tables.own_payoff(game, found, i, now, played, price)[:, 0]
        at, top = worth.argmax(1), worth.max(1)
        gain[:, i] = np.maximum(top - current, 0.0)
        best = np.take_along_axis(most, at[:, None], 1)[:, 0]
        reply[:, i, 0] = np.where(top > current, best, bids[:, i, 0])
    return reply, gain


def search_bids(game: Game, bids: np.ndarray, prefix: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Best of a grid for each bid in turn, twice refined: replies (B, n, k) and gains (B, n), a lower bound."""
    low, high = (np.broadcast_to(b, bids.shape) for b in game.market.bounds(game.state, "bidding"))
    current = game.payoffs(bids[None], prefix)[0]
    reply, best = bids.copy(), current.copy()
    agents, width = bids.shape[1:]
    for i in range(agents):
        for k in range(width):
            below, above = low[:, i, k], high[:, i, k]
            for _ in range(3):
                grid = below + (above - below) * np.linspace(0, 1, GRID)[:, None]
                trial = np.broadcast_to(bids, (GRID, *bids.shape)).copy()
                trial[:, :, i, :] = reply[:, i, :]
                trial[:, :, i, k] = grid
                worth = game.payoffs(trial, prefix)[..., i]
                at = worth.argmax(0)
                top = np.take_along_axis(worth, at[None], 0)[0]
                bid = np.take_along_axis(grid, at[None], 0)[0]
                better = top > best[:, i]
                best[:, i] = np.where(better, top, best[:, i])
                reply[:, i, k] = np.where(better, bid, reply[:, i, k])
                step = (above - below) / (GRID - 1)
                below, above = np.maximum(low[:, i, k], bid - step), np.minimum(high[:, i, k], bid + step)
    return reply, np.maximum(best - current, 0.0)
