"""Best replies of buyers: to pure choices and bids of others, and to common finite mixtures; all exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import NotOffered
from ...strategy import BestResponse, Samples
from . import games, sellers
from ._scipy import special

if TYPE_CHECKING:
    from ...market import State
    from .rules import SpectrumBertrand

Floats = NDArray[np.float64]
MOST_BUYERS = 512
"""Exact replies of buyers compare every bid with every other; beyond this they are not offered."""


def bidding_reply(market: SpectrumBertrand, state: State, decisions: Mapping[str, Floats]) -> BestResponse:
    """Exact best replies of all buyers to pure choices and bids, in expectation over landings and ties."""
    p, batch, m = market.params, market.batch(state), market.params.n_buyers
    if m > MOST_BUYERS:
        raise NotOffered(f"exact replies of buyers are offered for up to {MOST_BUYERS} buyers; this market has {m}")
    game = games.group_game(market, games.game_of(market, games.theta_rows(market, state)))
    if game.value.size != batch:
        game = sellers.markets(game, np.zeros(batch, int))
    price = decisions["pricing"].reshape(batch, -1)[:, market.group_price]
    worth = np.broadcast_to(game.value[:, None], (batch, m))
    if p.values == "private":
        worth = worth * market.backend.numpy(state.nature["type"])
    low, top = (market.backend.numpy(x)[..., 1] for x in market.bounds(state, "bidding"))
    groups = price.shape[1]
    choice = np.clip(np.floor(decisions["bidding"][..., 0]), 0, groups).astype(int)
    posted = np.take_along_axis(np.concatenate([price, np.zeros((batch, 1))], 1), choice, 1)
    raw = decisions["bidding"][..., 1]
    ceiling = game.value[:, None]
    bid = np.clip(posted + raw * (worth - posted), 0.0, ceiling) if p.bid_encoding == "relative" else raw
    strict = p.fidelity == "paper"
    entered = choice < groups
    if p.payment == "posted":
        bid, admissible = posted, entered
    else:
        admissible = entered & ((bid > posted) if strict else (bid >= posted))
    values = np.zeros((batch, m))
    actions = np.zeros((batch, m, 2))
    actions[..., 0] = groups + (0.5 if p.bid_levels is None else 0.0)
    played = np.zeros((batch, m))
    rows = max(1, 4_000_000 // (m * m * max(m, int(p.bid_levels or 1))))
    others = ~np.eye(m, dtype=bool)
    for first in range(0, batch, rows):
        cut = slice(first, first + rows)
        own = bid[cut, :, None]
        for g in range(groups):
            here = admissible[cut] & (choice[cut] == g)
            at = price[cut, g][:, None, None]
            w, units, k = worth[cut, :, None], game.urns[cut, g][:, None, None], game.capacity[cut, g][:, None, None]
            if p.payment == "posted":
                options, above = np.broadcast_to(at, (len(at), m, 1)), np.zeros((1, 1, 1), bool)
            elif p.bid_levels is not None:
                share = np.arange(p.bid_levels) / (p.bid_levels - 1)  # the codec's own floats
                options = (
                    at + share * (w - at) if p.bid_encoding == "relative" else share * ceiling[cut][:, :, None] + 0 * w
                )
                options, above = np.clip(options, 0.0, ceiling[cut][:, :, None]), np.zeros((1, 1, 1), bool)
            else:  # the price, every rival's bid, and just above each
                rival = np.where(here, bid[cut], at[:, :, 0])[:, None, :] + 0 * w
                options = np.concatenate([at + 0 * w, rival, rival], -1)
                above = np.concatenate(
                    [np.full((1, 1, 1), strict), np.zeros((1, 1, m), bool), np.ones((1, 1, m), bool)], -1
                )
            options, above = np.broadcast_arrays(options, above)
            ok = (options > at) | (above & (options >= at)) if strict else options >= at
            gain = _option_values(
                p.payment, p.matching, options, above, own[:, None, :, 0], here, others, w, at, units, k
            )
            gain = np.where(ok, gain, np.where(strict, -options, 0.0))
            pick = gain.argmax(-1)
            best = np.take_along_axis(gain, pick[..., None], -1)[..., 0]
            money = np.take_along_axis(options, pick[..., None], -1)[..., 0]
            raised = np.take_along_axis(above, pick[..., None], -1)[..., 0]
            money = np.where(raised, np.minimum(money + 1e-12 * ceiling[cut], ceiling[cut]), money)
            better = best > values[cut]
            values[cut] = np.where(better, best, values[cut])
            room = np.where(worth[cut] - at[:, :, 0] > 0, worth[cut] - at[:, :, 0], 1.0)
            encoded = (money - at[:, :, 0]) / room if p.bid_encoding == "relative" else money
            encoded = np.clip(encoded, low[cut] if low.shape[0] > 1 else low, top[cut] if top.shape[0] > 1 else top)
            actions[cut] = np.where(
                better[..., None], np.stack([np.full(encoded.shape, float(g)), encoded], -1), actions[cut]
            )
            mine = choice[cut] == g
            same = np.zeros((1, 1, 1), bool)
            now = _option_values(
                p.payment, p.matching, own + 0 * at, same, own[:, None, :, 0], here, others, w, at, units, k
            )[..., 0]
            now = np.where(here, now, np.where(strict, -own[..., 0], 0.0))
            played[cut] = np.where(mine, now, played[cut])
    gains = np.maximum(values - played, 0.0)
    actions = np.where((gains > 0)[..., None], actions, decisions["bidding"])
    method = "every rival's bid and just above it, on every group of urns"
    return BestResponse(actions, played + gains, gains, gains, "exact", method)


def _option_values(
    payment: str,
    matching: str,
    options: Floats,
    above: NDArray[np.bool_],
    bids: Floats,
    here: NDArray[np.bool_],
    others: NDArray[np.bool_],
    worth: Floats,
    price: Floats,
    units: Floats,
    capacity: Floats,
) -> Floats:
    """Expected payoffs (b, M, A) of each buyer's options on one group, rivals' bids (b, 1, M) fixed."""
    rivals = (here[:, None, :] & others)[:, :, None, :]  # (b, own, 1, rival)
    mine, theirs = options[..., None], bids[:, :, None, :]
    if payment == "posted":
        higher, equal = np.zeros(options.shape), rivals.sum(-1) + 0 * options
    else:
        higher = (rivals & (theirs > mine)).sum(-1).astype(float)
        equal = np.where(above, 0.0, (rivals & (theirs == mine)).sum(-1))
    if matching == "pooled":
        served = np.clip((capacity - higher) / (equal + 1.0), 0.0, 1.0)
    else:
        miss = 1.0 - 1.0 / units
        served = np.where(higher > 0, miss**higher, 1.0) * (1.0 - miss ** (equal + 1.0)) * units / (equal + 1.0)
    if payment == "posted":
        return (worth - price) * served
    return (worth - options) * served if payment == "first_price" else worth * served - options


def alike(strategy: Samples, batch: int) -> bool:
    """Whether all buyers of a market play the same finite mixture."""
    v, w = strategy.values, strategy.weights
    assert w is not None
    return bool(np.all(v == v[:, :, :1]) and np.all(w == w[:, :, :1]) and v.shape[1] in (1, batch))


def samples_outcome(
    market: SpectrumBertrand, game: sellers.Sellers, price: Floats, strategy: Samples
) -> tuple[Floats, Floats, Floats]:
    """Buyers' largest gain (B,), their payoff (B, M) and profits by group (B, G) under one common mixture of (group, bid).

    With common play the rivals above a bid are binomial given the own tie-breaker, which Gauss-Legendre integrates
    exactly. Deviations: every bid of the mixture, just above it, the price, and on grids every level.
    """
    p, m = market.params, market.params.n_buyers
    batch, groups = price.shape
    assert strategy.weights is not None
    atoms = np.broadcast_to(strategy.values[:, :, 0], (strategy.values.shape[0], batch, 2))
    weight = np.broadcast_to(strategy.weights[:, :, 0], atoms.shape[:2])
    choice = np.clip(np.floor(atoms[..., 0]), 0, groups).astype(int)
    nodes = min((m - 1) // 2 + 1, 64)
    x, w = np.polynomial.legendre.leggauss(nodes)
    s, w = 0.5 * (x + 1), 0.5 * w
    best, earned, profit = np.zeros(batch), np.zeros(batch), np.zeros((batch, groups))
    for g in range(groups):
        at, value = price[:, g], game.value
        bid = np.clip(at + atoms[..., 1] * (value - at), 0, value) if p.bid_encoding == "relative" else atoms[..., 1]
        if p.payment == "posted":
            bid = np.broadcast_to(at, bid.shape)
        here = (choice == g) & (bid >= at)
        mass = np.where(here, weight, 0.0) / game.urns[:, g]
        options = [bid, at[None]]
        if p.bid_levels is not None and p.payment != "posted":
            share = np.arange(p.bid_levels)[:, None] / (p.bid_levels - 1)
            options.append(at + share * (value - at) if p.bid_encoding == "relative" else share * value)
        tried = np.concatenate(options)
        raised = [np.zeros(tried.shape, bool)]
        if p.bid_levels is None and p.payment != "posted":
            tried, raised = np.concatenate([tried, bid]), [raised[0], np.ones(bid.shape, bool)]
        over = np.concatenate(raised)
        above = (mass[None] * (bid[None] > tried[:, None])).sum(1)
        tied = (mass[None] * (bid[None] == tried[:, None])).sum(1)
        tied = np.where(over, 0.0, tied)
        if p.payment == "posted":
            above, tied = 0.0 * above, mass.sum(0)[None] + 0.0 * tied
        z = np.clip(above[..., None] + tied[..., None] * (1 - s), 0.0, 1.0)
        k = game.capacity[:, g]
        if np.all(k == 1):
            served = ((1 - z) ** (m - 1) * w).sum(-1)
        else:
            served = (special.betainc(np.maximum(m - k, 1)[None, :, None], k[None, :, None], 1 - z) * w).sum(-1)
            served = np.where(k >= m, 1.0, served)
        if p.payment == "posted":
            pay = (value - at) * served
        else:
            pay = (value - tried) * served if p.payment == "first_price" else value * served - tried
        pay = np.where(tried >= at, pay, 0.0)
        own = slice(0, len(atoms))
        money = {"posted": at * served[own], "first_price": tried[own] * served[own], "all_pay": tried[own]}[p.payment]
        sold = money - game.cost[:, g] * served[own]
        profit[:, g] = m * np.where(here, sold * weight, 0.0).sum(0)
        best = np.maximum(best, pay.max(0))
        earned += np.where(choice == g, pay[: len(atoms)] * weight, 0.0).sum(0)
    return np.maximum(best - earned, 0.0), np.repeat(earned[:, None], m, -1), profit
