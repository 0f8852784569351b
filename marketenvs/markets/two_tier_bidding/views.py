"""What agents observe, (B, n, d), before the market clips it to [0, 1]. Array API, tracing safe.

The tables in the page of the market (`rules`) list the entries in this order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...arrays import Array
from . import radio

if TYPE_CHECKING:
    from ...market import State
    from .rules import TwoTierBidding

OWN_SIZE, SLICER_SIZE = 13, 11


def infrastructure(market: TwoTierBidding, state: State) -> Array:
    """Last bandwidth shares, bids over caps and prices / 10 of all operators, (B, 1, 3M)."""
    xp, theta, last = market.xp, state.theta, state.history
    parts = [last.bandwidth / theta.bandwidth, last.bids / _cap(market, state), last.price / 10.0]
    return xp.concat(parts, axis=1)[:, None, :]


def bidder(market: TwoTierBidding, state: State) -> Array:
    """Own radio, users and value weight, and the last round's public results; rivals' reach and bids if ``full``."""
    xp, p, theta, last = market.xp, market.params, state.theta, state.history
    m, batch = p.n_operators, state.seed.shape[0]
    demand = xp.sum(theta.users * theta.agreed_rate[:, None, :], axis=2)
    served = last.rate / xp.where(theta.headcount > 0, demand, 1.0)
    if p.observation == "paper":
        seen = served[:, None, :]
        return seen if p.control == "central" else xp.broadcast_to(seen, (batch, m, m))
    price = market.prices(state, state.decisions) if p.payment in ("kelly", "posted") else last.price
    zero = 0.0 * last.bids
    reach = radio.scaled_reach(xp, market.network(state).snr) + zero
    total = xp.sum(last.bids, axis=1, keepdims=True) / xp.sum(
        theta.headcount * theta.cap_per_user, axis=1, keepdims=True
    )
    columns = [
        reach,
        *(theta.users[:, :, i] / 20.0 + zero for i in range(3)),
        theta.value_weight / 10.0 + zero,
        last.bandwidth / theta.bandwidth,
        served / 10.0,
        *(last.ssr[:, :, i] for i in range(3)),
        price / 10.0,
        total + zero,
        0.5 + 0.5 * xp.tanh(last.profit / 500.0),
    ]
    own = xp.stack(columns, axis=2)
    if p.control == "central":
        return xp.reshape(own, (batch, 1, m * OWN_SIZE))
    if p.observation == "own":
        return own
    others = np.array([[(i + j) % m for j in range(1, m)] for i in range(m)], dtype=np.int64).reshape(-1)
    index = xp.asarray(others, device=market.backend.device)
    rivals = [xp.take(r, index, axis=1) for r in (reach, last.bids / _cap(market, state))]
    return xp.concat((own, *(xp.reshape(r, (batch, m, m - 1)) for r in rivals)), axis=2)


def slicer(market: TwoTierBidding, state: State) -> Array:
    """Own share, and per service: users, mean reach, last satisfaction; last spectral efficiency."""
    xp, theta, last = market.xp, state.theta, state.history
    if market.params.observation == "paper":
        return last.ssr
    c, _ = market.allocate(state, market.bids(state.decisions))
    reach = market.network(state).reach
    columns = [c / theta.bandwidth]
    for i in range(3):
        columns += [theta.users[:, :, i] / 20.0 + 0.0 * c, reach[:, :, i] + 0.0 * c, last.ssr[:, :, i]]
    columns.append(last.efficiency / 400.0)
    if market.params.packets_flow:  # mean packets waiting, over the queue's length
        users = xp.where(theta.users > 0, theta.users, 1.0)
        filled = xp.sum(last.queues.waiting, axis=3) / (users * market.params.queue_length)
        columns += [filled[:, :, i] for i in range(3)]
    return xp.stack(columns, axis=2)


def _cap(market: TwoTierBidding, state: State) -> Array:
    """Caps on bids, (B|1, M), 1 for an operator without users."""
    cap = state.theta.headcount * state.theta.cap_per_user
    return market.xp.where(cap > 0, cap, 1.0)
