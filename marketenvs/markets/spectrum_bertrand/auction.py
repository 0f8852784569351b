"""Buyers' decisions read against the posted prices, who is served, and who pays what, in any array library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ...arrays import Array
from . import allocation, literal

if TYPE_CHECKING:
    from ...market import State
    from .rules import SpectrumBertrand


class Auction(NamedTuple):
    """Buyers' decisions read against the posted prices, all (B, M)."""

    group: Array  # index of the group of like urns; G to abstain (float)
    seller: Array  # its seller; N to abstain (float)
    price: Array
    bid: Array
    admissible: Array
    urns: Array  # urns in the group
    capacity: Array  # units per urn
    worth: Array


def read(market: SpectrumBertrand, state: State, decisions: Mapping[str, Array]) -> Auction:
    """Buyers' choices and bids against the posted prices."""
    xp, p, theta = market.xp, market.params, state.theta
    batch = decisions["bidding"].shape[0]
    posted = xp.reshape(decisions["pricing"], (batch, -1))
    worth = market.worth(state)
    choice = xp.clip(xp.floor(decisions["bidding"][:, :, 0]), 0.0, float(market.groups))
    index = xp.astype(choice, market._index)
    group_price = xp.take(posted, market._group_price, axis=1)
    nobody = xp.zeros_like(group_price[:, :1])
    price = xp.take_along_axis(xp.concat((group_price, nobody), axis=1), index, axis=1)
    seller = xp.take_along_axis(market._group_seller + nobody, index, axis=1)
    held = xp.concat((theta.channels + 0.0 * nobody, 1.0 + nobody), axis=1)
    held = xp.take_along_axis(held, xp.astype(seller, market._index), axis=1)
    one = xp.ones_like(held)
    blind = p.matching == "channel" and p.channel_choice == "blind"
    urns, capacity = (held / float(p.price_groups) if blind else one), (held if p.matching == "pooled" else one)
    bid = decisions["bidding"][:, :, 1]
    if p.bid_encoding == "relative":
        bid = xp.clip(price + bid * (worth - price), 0.0, theta.worth)
    abstains = choice >= market.groups
    if p.payment == "posted":
        bid, admissible = xp.where(abstains, xp.zeros_like(price), price), ~abstains
    else:
        bid = xp.where(abstains, xp.zeros_like(bid), bid)
        admissible = (bid > price if p.fidelity == "paper" else bid >= price) & ~abstains
    return Auction(choice, seller, price, bid, admissible, urns, capacity, worth)


def chances(market: SpectrumBertrand, state: State, a: Auction) -> Array:
    """(B, M) probability to be served, over blind landings and ties."""
    xp = market.xp
    apart = xp.where(a.admissible, a.group, xp.full_like(a.group, -1.0))
    higher, equal = allocation.rank_counts(xp, apart, a.bid)
    pooled = market.params.matching == "pooled"
    chance = allocation.chance_served(xp, higher, equal, a.urns, a.capacity, pooled)
    return xp.where(a.admissible, chance, xp.zeros_like(chance))


def payoffs(market: SpectrumBertrand, state: State, a: Auction, served: Array) -> dict[str, Array]:
    """Rewards when the bids are served (0 or 1, or with these probabilities)."""
    if market.params.fidelity == "paper":
        return literal.payoffs(market, state, a, served)
    paid = payment(market, a, served)
    sold = market.by_seller(a.seller, served)
    return {
        "seller": market.by_seller(a.seller, paid) - state.theta.unit_cost * sold,
        "buyer": a.worth * served - paid,
    }


def payment(market: SpectrumBertrand, a: Auction, served: Array) -> Array:
    """(B, M) what each buyer pays."""
    if market.params.payment == "all_pay":
        return market.xp.where(a.admissible, a.bid, market.xp.zeros_like(a.bid))
    return served * (a.bid if market.params.payment == "first_price" else a.price)


def winners(market: SpectrumBertrand, state: State, a: Auction) -> Array:
    """(B, M) which bids are served, on this round's landings and ties."""
    xp, nature = market.xp, state.nature
    urn = a.group * float(market.most_channels)
    if "landing" in nature:
        urn = urn + xp.minimum(xp.floor(nature["landing"] * a.urns), a.urns - 1.0)
    urn = xp.where(a.admissible, urn, xp.full_like(urn, -1.0))
    capacity = a.capacity if market.params.matching == "pooled" else None
    return allocation.winners(xp, urn, a.bid, nature["tie"], capacity) & a.admissible
