"""What a settled round reports beside its payoffs; the list is in the docstring of `rules`. Array API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import solve

if TYPE_CHECKING:
    from ...market import State
    from .rules import CoalitionTrading, Deal

Array = Any


def metrics(
    market: CoalitionTrading, state: State, price: Array, deal: Deal, payoffs: Mapping[str, Array]
) -> dict[str, Array]:
    """Metrics of one round.

    Args:
        market: the market.
        state: before the round.
        price: what every seller got per PRB, (B, M).
        deal: the round's trade.
        payoffs: of sellers (B, M) and buyers (B, N).
    """
    xp, theta = market.xp, state.theta
    sold, total = xp.sum(deal.bought, axis=1), xp.sum(deal.bought, axis=(1, 2))
    need, _ = market.needs(state)
    full = theta.ready.price_scale * need
    paid = xp.sum(deal.bill, axis=1) / xp.where(total > 0, total, 1.0 + 0.0 * total)
    winner = xp.astype(xp.argmin(deal.rank, axis=1), price.dtype) + 0.0 * total
    size = xp.sum(xp.astype(deal.slots & (deal.rank == 0)[:, :, None], price.dtype), axis=(1, 2)) + 0.0 * total
    over = xp.sum(deal.requested, axis=1) > theta.room + 0.0 * sold
    found = {
        "price": price,
        "mean_price": xp.where(total > 0, paid, xp.mean(price, axis=1)),
        "sold": sold,
        "quantity": total,
        "held": deal.held,
        "satisfaction": deal.value / xp.where(full > 0, full, 1.0 + 0.0 * full),
        "served_fraction": xp.clip(deal.held / (theta.ready.hold * need), 0.0, 1.0),
        "winner": winner,
        "coalition_size": size,
        "rationed": xp.sum(xp.where(over, 1.0 + 0.0 * sold, 0.0 * sold), axis=1),
        "welfare": xp.sum(payoffs["seller"], axis=1) + xp.sum(payoffs["buyer"], axis=1),
        "traded": solve.by_slot(xp, deal, total),
    }
    if market.params.reputation_rule == "ema":
        found["seller_reputation"] = renewed(market, state, sold)
    if "seller" not in market.roles:
        found["profit"] = payoffs["seller"]
    return found


def renewed(market: CoalitionTrading, state: State, sold: Array) -> Array:
    """Sellers' reputations after a round (B, M): a moving average of sold / offered over the rounds in which they sell."""
    xp, rate, last = market.xp, market.params.reputation_rate, state.history.seller_reputation
    moved = (1.0 - rate) * last + rate * sold / state.theta.room
    return xp.where(sold > 0, xp.clip(moved, 0.05, 1.0), last)
