"""What the agents of coalition trading see; the table is in the docstring of `rules`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import settlement

if TYPE_CHECKING:
    from ...market import State
    from .rules import CoalitionTrading

Array = Any


def observe(market: CoalitionTrading, state: State, stage: str) -> Array:
    """Observations (B, n, d) of one stage, every entry in [0, 1]."""
    xp, theta, p = market.xp, state.theta, market.params
    batch, m, n = state.seed.shape[0], p.n_sellers, p.n_buyers
    width = theta.price_max - theta.price_min
    scale = xp.where(width > 0, 1.0 / xp.where(width > 0, width, 1.0 + 0.0 * width), 0.0 * width)

    def row(value: Array) -> Array:
        return xp.broadcast_to(xp.clip(value, 0.0, 1.0), (batch, value.shape[1]))

    def priced(value: Array) -> Array:
        return row((value - theta.price_min) * scale)

    everything = xp.sum(theta.room, axis=1, keepdims=True)
    need, alive = market.needs(state)
    needs, reputation = row(need / everything), row(theta.reputation)

    if stage == "coalition":
        shared = xp.concat((reputation, priced(state.history.price)), axis=1)
        own = xp.stack((needs, reputation, row(state.history.held / everything)), axis=2)
        return xp.concat((_repeat(xp, shared, n), own), axis=2)

    if stage == "purchase" and p.observation == "paper":
        return _repeat(xp, priced(state.decisions["pricing"][:, :, 0]), n)
    traded = row(state.history.traded / everything)
    if stage == "pricing" and p.observation == "paper":
        return _repeat(xp, traded, m)

    slots, rank, served = market.standing(state, state.decisions)
    inside = xp.astype(xp.any(served, axis=1), need.dtype) + 0.0 * need
    room = row(theta.room / everything)
    chokes = row(xp.where(alive, theta.ready.choke, 0.0 * theta.ready.choke) / (2.0 * theta.price_max))
    if stage == "pricing":
        _, total, _ = settlement.ranks(xp, slots, theta.reputation)
        first = xp.astype(rank == 0, need.dtype)
        parts = [traded, row(total / xp.sum(theta.reputation, axis=1, keepdims=True)), row(first), room]
        parts += [priced(state.history.price), needs, chokes, row(inside)]
        cost = row(theta.lease_price / theta.price_max)[:, :, None]
        return xp.concat((_repeat(xp, xp.concat(parts, axis=1), m), cost), axis=2)
    parts = [priced(state.decisions["pricing"][:, :, 0]), room, reputation, needs, chokes]
    mine = xp.astype(xp.any(slots[:, :, :, None] & slots[:, :, None, :], axis=1), need.dtype)
    mine = xp.broadcast_to(mine, (batch, n, n))
    own = xp.stack((needs, chokes, row(market._delay + 0.0 * need), row(inside)), axis=2)
    return xp.concat((_repeat(xp, xp.concat(parts, axis=1), n), mine, own), axis=2)


def _repeat(xp: Any, shared: Array, agents: int) -> Array:
    """(B, d) as (B, agents, d)."""
    return xp.broadcast_to(shared[:, None, :], (shared.shape[0], agents, shared.shape[1]))
