"""Documented extras of coalition trading: coalition values, stability, deterministic bounds, bargaining."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import NotOffered
from . import coalitions as co
from . import grid
from .parameters import MOST_TABLED
from .price_stage import PriceMixture, payoff_matrices
from .solve import answer_prices, coalition_stage
from .values import Curves, coalition_value, demand_each
from .view import View, units_of, view

if TYPE_CHECKING:
    from ...market import State
    from .rules import CoalitionTrading

Floats = NDArray[Any]  # float64 unless said otherwise

LEVELS = 100  # price grid on which deterministic policies are bounded where prices are continuous


def analysis(market: CoalitionTrading, state: State) -> dict[str, Any]:
    """Extras of every market (leading axis 1 where all markets share their parameters).

    Returns:
        With identical sellers and at most 6 buyers: ``coalition_surplus`` (R, 2^N, by member bits), ``coalition_net``,
        ``shapley`` (R, N), ``core_empty`` (R,), ``partitions`` (P, N), ``partition_payoff`` (R, P, N), ``partition_winner``,
        ``nash_stable`` and ``individually_stable`` (R, P), ``merge_path`` (R, steps). At given coalitions: ``choke_price``,
        ``choke_quantity`` (R, N); ``coalition_reputation`` by slot and ``shares`` of everybody in its coalition's utility (R, N);
        ``price_regime``, ``expected_price``, ``expected_quantity``, ``surplus`` (before signalling); ``price_cdf`` (a function)
        and ``price_support`` where prices mix; with two sellers ``best_deterministic`` (R,), the least NashConv of any pair of
        pure prices on a 100-level grid, and ``best_deterministic_prices``; ``bargain``, the outcome if prices were bargained
        instead of posted.
    """
    if market.params.model == "paper":
        return {}
    out: dict[str, Any] = {}
    labelled = market.params.formation != "labels" or "coalition" in state.decisions
    if market.params.n_buyers <= MOST_TABLED and market.params.selection == "winner" and market.params.sharing != "own":
        with contextlib.suppress(NotOffered):  # unlike sellers: only what follows
            out |= _coalitions(market, state)
    if not labelled:
        return out
    v = view(market, state)
    out |= {"choke_price": v.curves.choke_price, "choke_quantity": v.curves.choke_quantity}
    out |= {"coalition_reputation": np.sum(v.slots * v.reputation[:, None, :], axis=2)}
    if market.params.sharing != "own":
        out["shares"] = np.asarray(
            market.backend.numpy(market.shares(state, market.standing(state, state.decisions)[0]))
        )
    stage = answer_prices(market, state, v)
    out |= {
        "price_regime": stage.regime,
        "expected_price": stage.mean_price,
        "expected_quantity": stage.quantity,
        "surplus": stage.gross,
    }
    if isinstance(stage.strategy, PriceMixture):
        out |= {"price_cdf": stage.strategy.cdf, "price_support": np.stack(stage.strategy.support, axis=1)}
    if v.room.shape[1] == 2 and market.params.selection == "winner":
        out |= _deterministic(market, state, v)
    if market.params.selection == "winner":
        out["bargain"] = bargain(market, state, v)
    return out


def _coalitions(market: CoalitionTrading, state: State) -> dict[str, Any]:
    stage, surplus, reputation, signalling = coalition_stage(market, state)
    worth = co.characteristic(surplus, reputation, signalling)
    size = co.members_of(reputation.shape[1]).sum(axis=1)
    return {
        "coalition_surplus": surplus,
        "coalition_net": surplus - co.signalling_cost(size, signalling[:, None]),
        "shapley": co.shapley(worth),
        "core_empty": co.core_is_empty(worth),
        "partitions": stage.partitions.labels,
        "partition_payoff": stage.payoff,
        "partition_winner": stage.winner,
        "nash_stable": stage.nash,
        "individually_stable": stage.individual,
        "merge_path": stage.path,
    }


def _deterministic(market: CoalitionTrading, state: State, v: View, most: int = 32) -> dict[str, Any]:
    """Least NashConv that two deterministic sellers can reach (at most ``most`` markets are scanned)."""
    v = v.take(slice(0, most))
    units = units_of(market, state, view(market, state))
    if units is not None:
        units = units._replace(size=units.size[:most], table=units.table[:most])
    count = market.params.price_levels or LEVELS
    levels = v.low[:, None] + (v.high - v.low)[:, None] * np.arange(count) / (count - 1)
    first, second = payoff_matrices(market, v, levels, units)
    found = [grid.best_deterministic(a, b) for a, b in zip(first, second, strict=True)]
    where = np.array([[levels[r, i], levels[r, j]] for r, (_, i, j) in enumerate(found)])
    return {"best_deterministic": np.array([f[0] for f in found]), "best_deterministic_prices": where}


def bargain(market: CoalitionTrading, state: State, v: View) -> dict[str, Floats]:
    """Outcome if the served coalition bargained over prices (symmetric sellers).

    The surplus S = max V(W) - c W is split: the sellers' fallback d is their posted-price profit with the runner-up
    coalition; the coalition gets beta (S - d), the sellers d + (1 - beta)(S - d).

    Returns:
        ``price``, ``quantity``, ``buyer``, ``sellers``, ``fallback``, each (R,).
    """
    power = np.broadcast_to(market.theta64(state).bargaining_power[:, 0], (v.rows,))
    cost, room = v.cost[:, 0], v.room.sum(axis=1)
    member = v.served[:, 0]
    curves = Curves(*v.curves)
    each = demand_each(curves, np.maximum(cost, 1e-12)[:, None])
    quantity = np.minimum(np.sum(np.where(member, each, 0.0), axis=1), room)
    surplus = coalition_value(curves, member, quantity) - cost * quantity
    second = np.any(v.slots & (v.rank == 1)[:, :, None], axis=1)
    other = v._replace(served=second[:, None, :])
    profit = answer_prices(market, state, other).profit.sum(axis=1)
    fallback = np.where(second.any(axis=1), profit, 0.0)
    buyer = power * (surplus - fallback)
    sellers = surplus - buyer
    price = cost + sellers / np.where(quantity > 0, quantity, 1.0)
    return {"price": price, "quantity": quantity, "buyer": buyer, "sellers": sellers, "fallback": fallback}
