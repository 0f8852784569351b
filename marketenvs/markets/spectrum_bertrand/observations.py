"""What sellers and buyers of the spectrum market observe, in any array library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...arrays import Array

if TYPE_CHECKING:
    from ...market import State
    from .rules import SpectrumBertrand


def _cycle(market: SpectrumBertrand, values: Array) -> Array:
    """(B, N, N): own entry first, then the rivals' in cyclic order."""
    n = market.params.n_sellers
    return market.xp.reshape(market.xp.take(values, market._cyclic, axis=1), (values.shape[0], n, n))


def of_sellers(market: SpectrumBertrand, state: State) -> Array:
    """What sellers see before they price, (B, N, d) in [0, 1]; see the market's page."""
    xp, p, theta, last = market.xp, market.params, state.theta, state.history
    n, g, batch = p.n_sellers, p.price_groups, state.seed.shape[0]
    zero = xp.zeros_like(last.load)
    prices = [
        _cycle(market, x) / market.money for x in (xp.reshape(last.price, (batch, n, g))[:, :, k] for k in range(g))
    ]
    held, cost, worth = theta.channels + zero, theta.unit_cost + zero, theta.worth + zero
    scale = worth * held if p.matching != "logit" else market.money * theta.demand + zero
    sold = _cycle(market, last.sales / held if p.matching != "logit" else last.sales / theta.demand)
    clock = xp.astype(state.round, market.backend.dtype)[:, None] / float(p.horizon) + zero
    parts = [xp.clip(x, 0.0, 1.0) for x in prices]
    if market.auction:
        own = (last.load / float(p.n_buyers), sold[:, :, 0], last.mean_bid / market.money, last.top_bid / market.money)
        parts += [xp.clip(x, 0.0, 1.0)[:, :, None] for x in own] + [xp.clip(sold[:, :, 1:], 0.0, 1.0)]
    else:
        parts.append(xp.clip(sold, 0.0, 1.0))
    known = (last.reward / scale, cost / market.money, worth / market.money, held / float(market.most_channels), clock)
    parts += [xp.clip(x, 0.0, 1.0)[:, :, None] for x in known]
    if p.observation == "full":
        parts += [xp.clip(_cycle(market, cost)[:, :, 1:] / market.money, 0.0, 1.0)]
        parts += [_cycle(market, held)[:, :, 1:] / float(market.most_channels)]
        if p.matching == "logit":
            top = max(abs(x) for x in p.bounds_of("quality")) or 1.0
            parts.append(xp.clip(0.5 + 0.5 * _cycle(market, theta.quality + zero) / top, 0.0, 1.0))
    return xp.concat(parts, axis=2)


def of_buyers(market: SpectrumBertrand, state: State) -> Array:
    """What buyers see at the posted prices, (B, M, d) in [0, 1]."""
    xp, p, theta, last = market.xp, market.params, state.theta, state.history
    n, m, batch = p.n_sellers, p.n_buyers, state.seed.shape[0]
    posted = xp.reshape(state.decisions["pricing"], (batch, 1, n * p.price_groups)) / market.money
    mine = xp.zeros_like(last.bid)

    def shared(x: Array) -> Array:
        return xp.clip(x, 0.0, 1.0) + 0.0 * mine[:, :, None]

    chosen = xp.astype(
        last.choice[:, :, None] == market.backend.asarray(np.arange(n + 1))[None, None, :], market.backend.dtype
    )
    clock = xp.astype(state.round, market.backend.dtype)[:, None] / float(p.horizon) + mine
    own = [market.worth(state) / market.money, last.bid / market.money, last.won, last.paid / market.money]
    own = [xp.clip(x, 0.0, 1.0)[:, :, None] for x in own]
    held = theta.channels / float(market.most_channels) + 0.0 * last.load
    parts = [
        shared(posted),
        own[0],
        chosen,
        *own[1:],
        shared(last.load[:, None, :] / float(m)),
        shared(held[:, None, :]),
    ]
    return xp.concat([*parts, xp.clip(clock, 0.0, 1.0)[:, :, None]], axis=2)
