"""Best responses to pure profiles.

A coalition buys as one agent: at stage ``purchase`` its gain is what the coalition gains, split among the members by
payoff share. Sellers' deviations are valued with the exact follower re-answering; moves between coalitions with prices
and purchases in equilibrium.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...strategy import BestResponse
from . import literal
from .solve import coalition_stage, partition_index, remember, spread
from .values import Curves, coalition_value, demand_each
from .view import View, fill, follow, requests, units_of, view

if TYPE_CHECKING:
    from ...market import State
    from .rules import CoalitionTrading

Floats = NDArray[Any]  # float64 unless said otherwise

FINE = 129  # evenly spaced candidate prices beside the exact ones
GOLDEN = 0.6180339887498949
SHRINKS = 44


def best_reply(market: CoalitionTrading, state: State, stage: str, decisions: Mapping[str, Floats]) -> BestResponse:
    """Each agent's best deviation from pure decisions."""
    if stage == "coalition":
        return label_replies(market, state, decisions)
    if market.params.model == "paper":
        return literal.best_reply(market, state, stage, decisions)
    v = _view(market, state, decisions)
    if stage == "pricing":
        return _prices(market, state, v, decisions)
    return _purchases(market, state, v, decisions)


def _view(market: CoalitionTrading, state: State, decisions: Mapping[str, Floats]) -> View:
    named = {name: market.backend.asarray(x) for name, x in decisions.items()}
    return view(market, state, named)


# ------------------------------------------------------------ labels


def label_replies(market: CoalitionTrading, state: State, decisions: Mapping[str, Floats]) -> BestResponse:
    """Each buyer's best label, the others' held fixed and later stages in equilibrium."""
    stage, *_ = remember(market, state, "coalition", lambda: coalition_stage(market, state))
    labels = decisions["coalition"][:, :, 0]
    batch, n = labels.shape
    payoff = spread(stage.payoff, batch)
    rows = np.arange(batch)
    played = payoff[rows, partition_index(labels)]
    table = np.empty((batch, n, n))
    for i in range(n):
        for label in range(n):
            moved = labels.copy()
            moved[:, i] = label
            table[:, i, label] = payoff[rows, partition_index(moved), i]
    best = np.argmax(table, axis=2)
    gains = np.maximum(table.max(axis=2) - played, 0.0)
    kind = "exact" if market.params.price_levels is None and market.params.amount_levels is None else "estimate"
    method = "payoffs of all partitions, later stages in equilibrium (continuous prices)"
    upper = gains if kind == "exact" else np.full_like(gains, np.inf)
    return BestResponse(best[:, :, None].astype(float), played + gains, gains, upper, kind, method)


# ------------------------------------------------------------ prices


def candidate_prices(v: View, rivals: Floats) -> Floats:
    """Prices worth trying (B, C): ends, choke prices, rivals' prices and just below, clearing prices, an even grid."""
    low, high = v.low[:, None], v.high[:, None]
    even = low + (high - low) * np.linspace(0.0, 1.0, FINE)
    below = rivals - 1e-10 * np.maximum(1.0, rivals)
    batch = rivals.shape[0]
    parts = [np.broadcast_to(x, (batch, x.shape[1])) for x in (even, v.curves.choke_price, _clearing(v))]
    return np.clip(np.concatenate([*parts, rivals, below], axis=1), low, high)


def _clearing(v: View) -> Floats:
    """Prices at which demand equals a sum of some sellers' capacities (for every slot served), (R, k)."""
    rooms = np.array(list(product((0.0, 1.0), repeat=min(v.room.shape[1], 4))))[1:]
    amounts = np.unique(np.round(v.room[:, : rooms.shape[1]] @ rooms.T, 12), axis=1)
    found = []
    curves = Curves(*(f[:, None, :] for f in v.curves))
    for slot in range(v.served.shape[1]):
        low = np.broadcast_to(v.low[:, None], amounts.shape).copy()
        high = np.broadcast_to(v.high[:, None], amounts.shape).copy()
        for _ in range(50):
            mid = 0.5 * (low + high)
            each = np.where(v.served[:, slot, None, :], demand_each(curves, mid[:, :, None]), 0.0)
            enough = each.sum(axis=2) >= amounts
            low, high = np.where(enough, mid, low), np.where(enough, high, mid)
        found.append(low)
    return np.concatenate(found, axis=1)


def polish(value: Callable[[Floats], Floats], trial: Floats, worth: Floats) -> tuple[Floats, Floats]:
    """Best candidate of each market, refined by a golden-section search between its neighbours."""
    rows = np.arange(trial.shape[0])
    order = np.argsort(trial, axis=1, kind="stable")
    trial, worth = np.take_along_axis(trial, order, 1), np.take_along_axis(worth, order, 1)
    best = np.argmax(worth, axis=1)
    top, at = worth[rows, best], trial[rows, best]
    last = trial.shape[1] - 1
    for low, high in (
        (trial[rows, np.maximum(best - 1, 0)], at),
        (at, trial[rows, np.minimum(best + 1, last)]),
    ):
        a, b = low.copy(), high.copy()
        for _ in range(SHRINKS):
            left, right = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
            better = value(np.stack([left, right], axis=1))
            rising = better[:, 1] > better[:, 0]
            a, b = np.where(rising, left, a), np.where(rising, b, right)
        mid = 0.5 * (a + b)
        found = value(mid[:, None])[:, 0]
        top, at = np.maximum(top, found), np.where(found > top, mid, at)
    return at, top


def _prices(market: CoalitionTrading, state: State, v: View, decisions: Mapping[str, Floats]) -> BestResponse:
    price = decisions["pricing"][:, :, 0]
    batch, m = price.shape
    units, levels = units_of(market, state, v), market.params.price_levels
    exact = market.params.selection != "all" and units is None
    best, values, gains = np.empty((batch, m)), np.empty((batch, m)), np.empty((batch, m))
    for i in range(m):

        def value(trial: Floats, i: int = i) -> Floats:
            joint = np.repeat(price[:, None, :], trial.shape[1], axis=1)
            joint[:, :, i] = trial
            sold = follow(market, v, joint, units).sum(axis=2)[:, :, i]
            return (trial - v.cost[:, i, None]) * sold

        if levels is not None:
            trial = (v.low[:, None] + (v.high - v.low)[:, None] * np.arange(levels) / (levels - 1)) + 0.0 * price[:, :1]
        else:
            trial = candidate_prices(v, np.delete(price, i, axis=1))
        worth, played = value(trial), value(price[:, i : i + 1])[:, 0]
        if levels is None:
            at, top = polish(value, trial, worth)
        else:
            at, top = trial[np.arange(batch), np.argmax(worth, axis=1)], worth.max(axis=1)
        gains[:, i] = np.maximum(top - played, 0.0)
        best[:, i] = np.where(gains[:, i] > 0, at, price[:, i])
        values[:, i] = played + gains[:, i]
    kind = "exact" if exact or levels is not None else "estimate"
    upper = gains if kind == "exact" else np.full_like(gains, np.inf)
    how = "all grid prices" if levels is not None else "choke, clearing and rivals' prices, and stationary points"
    return BestResponse(best[:, :, None], values, gains, upper, kind, f"{how}; exact follower re-answers")


# ------------------------------------------------------------ purchases


def _played(
    market: CoalitionTrading, state: State, decisions: Mapping[str, Floats]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Buyers' payoffs (B, N), value less bill by slot (B, Z), shares (B, N) and requests by slot (B, Z, M), NumPy."""
    named = {name: market.backend.asarray(x) for name, x in decisions.items()}
    deal = market.deal(state, named)
    payoff = market.payoffs(state, named["pricing"][:, :, 0], deal)["buyer"]
    if market.params.sharing == "own":  # the coalition's gain goes by reputation where members keep their own books
        weight = deal.slots * market.backend.numpy(state.theta.reputation)[:, None, :]
        shares = np.sum(weight / np.maximum(weight.sum(axis=2, keepdims=True), 1e-300), axis=1)
    else:
        shares = market.backend.numpy(market.shares(state, deal.slots))
    number = market.backend.numpy
    return number(payoff), number(deal.gross), shares, number(deal.requested)


def _purchases(market: CoalitionTrading, state: State, v: View, decisions: Mapping[str, Floats]) -> BestResponse:
    price = decisions["pricing"][:, :, 0]
    payoff, gross, shares, requested = _played(market, state, decisions)
    batch, units = price.shape[0], units_of(market, state, v)
    if v.served.shape[1] == 1:
        bought = follow(market, v, price[:, None, :], units)[:, 0]
    else:
        # The others' requests stay: each coalition buys from what those ranked ahead of it leave.
        ahead = (v.rank[:, None, :] < v.rank[:, :, None])[..., None]
        left = np.maximum(v.room[:, None, :] - np.sum(ahead * requested[:, None, :, :], axis=2), 0.0)
        if market.params.selection == "matching":
            left = left * (np.arange(price.shape[1]) == v.rank[:, :, None])
        each = demand_each(Curves(*(f[:, None, :] for f in v.curves)), price[:, :, None])
        demand = np.sum(np.where(v.served[:, :, None, :], each[:, None], 0.0), axis=3)
        bought = fill(demand, np.broadcast_to(price[:, None, :], demand.shape), left)
    total = bought.sum(axis=2)
    if units is not None:
        table = np.broadcast_to(units.table, (batch, units.table.shape[1]))
        value = np.take_along_axis(table, np.round(total / units.size[:, None]).astype(int), axis=1)
    else:
        value = coalition_value(Curves(*(f[:, None, :] for f in v.curves)), v.served, total)
    best = value - np.sum(bought * price[:, None, :], axis=2)
    gain = np.maximum(best - gross, 0.0)
    inside = np.broadcast_to(v.served, (batch, *v.served.shape[1:]))
    gains = shares * np.sum(inside * gain[:, :, None], axis=1)
    gains = np.where(gains > 1e-12 * np.maximum(1.0, np.abs(payoff)), gains, 0.0)
    asked = requests(market, state, v, bought)
    kind = "exact" if units is None or market.params.integer_prbs else "estimate"
    upper = gains if kind == "exact" else np.full_like(gains, np.inf)
    method = "the coalition's exact purchase; its gain split by payoff share"
    return BestResponse(asked, payoff + gains, gains, upper, kind, method)
