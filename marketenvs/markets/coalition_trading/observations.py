"""What the agents of coalition trading see; the table is in the docstring of `rules`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...market import State
    from .rules import CoalitionTrading

Array = Any


def observe(market: CoalitionTrading, state: State, stage: str) -> Array:
    """Observations (B, n, d) of one stage, every entry in [0, 1]."""
    parts, own, agents = _parts(market, state, stage)
    xp, batch = market.xp, state.seed.shape[0]
    shared = xp.concat([xp.broadcast_to(x, (batch, x.shape[1])) for x in parts], axis=1) if len(parts) > 1 else parts[0]
    seen = xp.broadcast_to(shared[:, None, :], (batch, agents, shared.shape[1]))
    if own is not None:
        seen = xp.concat((seen, xp.broadcast_to(own, (batch, agents, own.shape[2]))), axis=2)
    return xp.minimum(xp.maximum(seen, 0.0 * seen), 1.0 + 0.0 * seen)


def _parts(market: CoalitionTrading, state: State, stage: str) -> tuple[list[Array], Array | None, int]:
    """What all agents of the stage share, (., d) each; what is each agent's own, (., n, d); the number of agents."""
    xp, theta, p = market.xp, state.theta, market.params
    m, n = p.n_sellers, p.n_buyers
    width = theta.price_max - theta.price_min
    scale = xp.where(width > 0, 1.0 / xp.where(width > 0, width, 1.0 + 0.0 * width), 0.0 * width)

    def priced(value: Array) -> Array:
        return (value - theta.price_min) * scale

    everything = xp.sum(theta.room, axis=1, keepdims=True)
    if stage == "purchase" and p.observation == "paper":
        return [priced(state.decisions["pricing"][:, :, 0])], None, n
    if stage == "pricing" and p.observation == "paper":
        return [state.history.traded / everything], None, m

    need, alive = market.needs(state)
    needs, reputation = need / everything, theta.reputation
    if stage == "coalition":
        held = state.history.held / everything
        own = xp.stack((needs + 0.0 * held, reputation + 0.0 * held, held), axis=2)
        return [reputation, priced(state.history.price)], own, n

    slots, rank, served = market.standing(state, state.decisions)
    inside = xp.astype(xp.any(served, axis=1), need.dtype)
    room = theta.room / everything
    chokes = xp.where(alive, theta.ready.choke, 0.0 * theta.ready.choke) / (2.0 * theta.price_max)
    if stage == "pricing":
        zero = 0.0 * reputation[:, None, :]
        total = xp.sum(xp.where(slots, reputation[:, None, :], zero), axis=2) / xp.sum(
            reputation, axis=1, keepdims=True
        )
        first = xp.astype(rank == 0, need.dtype)
        parts = [state.history.traded / everything, total, first, room, priced(state.history.price)]
        return [*parts, needs, chokes, inside], (theta.lease_price / theta.price_max)[:, :, None], m
    mine = xp.astype(xp.any(slots[:, :, :, None] & slots[:, :, None, :], axis=1), need.dtype)
    wide = 0.0 * (needs + chokes + inside)
    own = xp.stack((needs + wide, chokes + wide, market._delay + wide, inside + wide), axis=2)
    rows = max(own.shape[0], mine.shape[0])
    own = xp.concat([xp.broadcast_to(x, (rows, *x.shape[1:])) for x in (mine, own)], axis=2)
    return [priced(state.decisions["pricing"][:, :, 0]), room, reputation, needs, chokes], own, n
