"""Two markets' rounds, fused by hand into one loop over markets with numba: the limit that array code is measured against.

The same arithmetic as the rules in the default presets (AI-Bazaar with ``mining="sampled"``), nothing left out: both observations, clipping
and its count, settlement with all metrics, history, the keyed draw of the next round, ends of episodes. Constants are read once,
outputs are written into arrays that are allocated once; a market never leaves the registers and the first cache in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit, uint32

from marketenvs.market import Market, State

# No NaN or infinity is assumed away: only the order of sums may change.
_FAST: dict[str, Any] = {"fastmath": {"reassoc", "nsz", "contract", "arcp"}, "error_model": "numpy", "cache": False}


@njit(inline="always")
def _rotated(x: Any, r: int) -> Any:
    return uint32((uint32(x) << uint32(r)) | (uint32(x) >> uint32(32 - r)))


@njit(inline="always")
def _four(x0: Any, x1: Any, a: int, b: int, c: int, d: int) -> Any:
    x0 = uint32(x0 + x1)
    x1 = uint32(_rotated(x1, a) ^ x0)
    x0 = uint32(x0 + x1)
    x1 = uint32(_rotated(x1, b) ^ x0)
    x0 = uint32(x0 + x1)
    x1 = uint32(_rotated(x1, c) ^ x0)
    x0 = uint32(x0 + x1)
    x1 = uint32(_rotated(x1, d) ^ x0)
    return x0, x1


@njit(inline="always")
def threefry(k0: Any, k1: Any, x0: Any, x1: Any) -> Any:
    """Threefry-2x32 with 20 rounds, as in ``marketenvs.arrays``."""
    k2 = uint32(k0 ^ k1 ^ uint32(0x1BD11BDA))
    x0, x1 = uint32(x0 + k0), uint32(x1 + k1)
    x0, x1 = _four(x0, x1, 13, 15, 26, 6)
    x0, x1 = uint32(x0 + k1), uint32(x1 + k2 + uint32(1))
    x0, x1 = _four(x0, x1, 17, 29, 16, 24)
    x0, x1 = uint32(x0 + k2), uint32(x1 + k0 + uint32(2))
    x0, x1 = _four(x0, x1, 13, 15, 26, 6)
    x0, x1 = uint32(x0 + k0), uint32(x1 + k1 + uint32(3))
    x0, x1 = _four(x0, x1, 17, 29, 16, 24)
    x0, x1 = uint32(x0 + k1), uint32(x1 + k2 + uint32(4))
    x0, x1 = _four(x0, x1, 13, 15, 26, 6)
    return uint32(x0 + k2), uint32(x1 + k0 + uint32(5))


@njit(**_FAST)
def _bazaar(
    theta: Any, types: Any, seed: Any, rounds: Any, price: Any, amount: Any, winner: Any, last: Any, previous: Any,
    seen0: Any, seen1: Any, provider: Any, consumer: Any, share: Any, chance: Any, per_market: Any, clipped: Any,
    done: Any, horizon: int, one: Any,
) -> None:  # fmt: skip
    """One round of all markets.

    ``theta``: rows unit_cost, price_min, price_max and prize (in column 0), and per agent beta, u, decay, K, F_min, F_max, m.
    """
    batch, n = amount.shape
    zero = one - one
    cost, low, high, prize = theta[0, 0], theta[1, 0], theta[2, 0], theta[3, 0]
    beta, weight, decay, margin = theta[4], theta[5], theta[6], theta[7]
    least, most = theta[8], theta[9]
    over_n = one / n
    price_scale = one / (high - low) if high > low else zero
    for b in range(batch):
        # pricing: what the provider sees
        mean, smallest, largest = zero, one, zero
        for i in range(n):
            width = most[i] - least[i]
            x = (previous[b, i] - least[i]) * (one / width if width > zero else zero)
            seen0[b, 0, i] = x
            mean += x
            smallest, largest = min(smallest, x), max(largest, x)
        mean = mean * over_n
        seen0[b, 0, n] = (last[b, 0] - low) * price_scale
        seen0[b, 0, n + 1], seen0[b, 0, n + 2], seen0[b, 0, n + 3] = mean, smallest, largest
        asked = price[b, 0, 0] if price.ndim == 3 else price[b, 0]
        p = min(max(asked, low), high)
        count = 1 if p != asked else 0
        # purchase: what the consumers see, and their efforts
        total, demand, weighted = zero, zero, zero
        shown = (p - low) * price_scale
        for i in range(n):
            seen1[b, i, 0] = shown
            seen1[b, i, 1], seen1[b, i, 2] = types[i, 0], types[i, 1]
            seen1[b, i, 3], seen1[b, i, 4] = types[i, 2], types[i, 3]
            seen1[b, i, 5] = seen0[b, 0, i]
            seen1[b, i, 6] = mean
            f = min(max(amount[b, i], least[i]), most[i])
            count += 1 if f != amount[b, i] else 0
            previous[b, i] = f
            total += beta[i] * f
            demand += f
            weighted += weight[i] * f
        last[b, 0] = p
        # settlement
        safe = total if total > zero else one
        upper, utility, u = zero, zero, winner[b, 0]
        for i in range(n):
            f = previous[b, i]
            part = beta[i] * f / safe
            hit = part * decay[i]
            upper += hit
            mined = prize * theta[10, i] if (u < upper and u >= upper - hit) else zero
            paid = f * (margin[i] - weight[i] * p) + mined
            share[b, i], chance[b, i], consumer[b, i] = part, hit, paid
            utility += paid
        provider[b, 0] = (p - cost) * demand
        utility += provider[b, 0]
        per_market[0, b], per_market[1, b], per_market[2, b] = p, demand, total
        per_market[3, b], per_market[4, b] = utility + p * (weighted - demand), utility
        clipped[b] = count
        # the next round
        rounds[b] += 1
        done[b] = rounds[b] >= horizon
        k0, k1 = threefry(seed[b, 0], seed[b, 1], uint32(rounds[b]), uint32(13))
        w, _ = threefry(k0, k1, uint32(0), uint32(0))
        if winner.itemsize == 4:
            winner[b, 0] = (np.float32(w >> uint32(9)) + np.float32(0.5)) * np.float32(2.0**-23)
        else:
            winner[b, 0] = (np.float64(w) + 0.5) * 2.0**-32


@njit(**_FAST)
def _bidding(
    theta: Any, reach: Any, users: Any, rounds: Any, bid: Any, history: Any, seen: Any, out: Any, per_market: Any,
    clipped: Any, done: Any, horizon: int, bandwidth: Any, multiplier: Any, rho: Any, omega: Any, blocks: Any, one: Any,
) -> None:  # fmt: skip
    """One round of all markets.

    ``theta``: rows floor, cap, price, snr, value_weight, 1 / demand, value_weight / 10. ``history``: price, bids, bandwidth,
    rate, profit, efficiency, and ssr's three. ``out``: price, bid, bandwidth, blocks, rate, payment, profit, efficiency.
    """
    _, batch, m = history.shape
    zero = one - one
    half, tenth, small = one / 2, one / 10, one / 500
    capped = zero
    for i in range(m):
        capped += theta[1, i]
    for b in range(batch):
        bids = zero
        for i in range(m):
            bids += history[1, b, i]
        bids = min(max(bids / capped, zero), one)
        total, count = zero, 0
        for i in range(m):
            served = history[3, b, i] * theta[5, i] * tenth
            s = seen[b, i]
            s[0], s[1], s[2], s[3], s[4] = reach[i], users[i, 0], users[i, 1], users[i, 2], theta[6, i]
            s[5] = min(max(history[2, b, i] / bandwidth, zero), one)
            s[6] = min(max(served, zero), one)
            for k in range(3):
                s[7 + k] = min(max(history[6 + k, b, i], zero), one)
            s[10] = min(max(theta[2, i] * tenth, zero), one)
            s[11] = bids
            s[12] = half + half * math.tanh(history[4, b, i] * small)
            kept = min(max(bid[b, i], theta[0, i]), theta[1, i])
            count += 1 if kept != bid[b, i] else 0
            out[1, b, i] = kept
            total += kept
        safe = total if total > zero else one
        worth_sum, paid_sum, objective, losses = zero, zero, zero, zero
        for i in range(m):
            kept = out[1, b, i]
            part = kept / safe
            c = bandwidth * part
            rate = multiplier * c * math.log1p(theta[3, i] / c) / math.log(2.0) if c > zero else zero
            worth = theta[4, i] * rate
            paid = theta[2, i] * kept
            profit = worth - paid
            efficiency = rate / c if c > zero else zero
            out[0, b, i], out[2, b, i], out[3, b, i] = theta[2, i], c, blocks * part
            out[4, b, i], out[5, b, i], out[6, b, i], out[7, b, i] = rate, paid, profit, efficiency
            history[0, b, i], history[1, b, i], history[2, b, i] = theta[2, i], kept, c
            history[3, b, i], history[4, b, i], history[5, b, i] = rate, profit, efficiency
            worth_sum += worth
            paid_sum += paid
            objective += rho * efficiency + omega * profit
            losses += one if profit < zero else zero
        per_market[0, b], per_market[1, b] = worth_sum, paid_sum
        per_market[2, b], per_market[3, b], per_market[4, b] = objective, losses / m, worth_sum
        clipped[b] = count
        rounds[b] += 1
        done[b] = rounds[b] >= horizon


class FusedBazaar:
    """AI-Bazaar with sampled mining, shared parameters, observation="own": one call is one round of all markets."""

    def __init__(self, market: Market, state: State):
        p, theta, n = market.params, state.theta, market.roles["consumer"]
        if (p.mining, p.observation) != ("sampled", "own") or theta.loss.shape[0] != 1:  # type: ignore[attr-defined]
            raise ValueError(
                "the fused kernel is AI-Bazaar's with mining='sampled', observation='own' and fixed parameters"
            )
        kind = state.history.price.dtype
        batch = market.batch(state)
        prize = theta.block_reward + theta.transaction_reward * theta.block_size
        rows = [theta.unit_cost, theta.price_min, theta.price_max, prize, theta.mining_ratio, theta.payment_weight]
        rows += [theta.decay, theta.margin, theta.purchase_min, theta.purchase_max, theta.token_effect]
        self.theta = np.ascontiguousarray(np.concatenate([np.broadcast_to(r, (1, n)) for r in rows]), dtype=kind)
        self.types = np.ascontiguousarray(theta.types[0], dtype=kind)
        self.seed, self.rounds = state.seed.copy(), state.round.copy()
        self.price, self.amounts = state.history.price.copy(), state.history.purchases.copy()
        self.winner = state.nature["winner"].copy()
        self.seen = np.empty((batch, 1, n + 4), kind), np.empty((batch, n, 7), kind)
        self.provider, self.consumer = np.empty((batch, 1), kind), np.empty((batch, n), kind)
        self.share, self.chance = np.empty((batch, n), kind), np.empty((batch, n), kind)
        self.per_market = np.empty((5, batch), kind)
        self.clipped, self.done = np.empty(batch, np.int32), np.empty(batch, bool)
        self.horizon, self.one = p.horizon, kind.type(1.0)

    def step(self, decisions: Mapping[str, np.ndarray]) -> None:
        """Play a round; results are in the attributes."""
        _bazaar(
            self.theta, self.types, self.seed, self.rounds, decisions["pricing"], decisions["purchase"][:, :, 0],
            self.winner, self.price, self.amounts, *self.seen, self.provider, self.consumer, self.share, self.chance,
            self.per_market, self.clipped, self.done, self.horizon, self.one,
        )  # fmt: skip

    def results(self) -> dict[str, np.ndarray]:
        """What the last round gave, by the names of the rules."""
        names = ("price", "demand", "effort", "welfare", "welfare_utility")
        return {
            "seen pricing": self.seen[0], "seen purchase": self.seen[1], "provider": self.provider,
            "consumer": self.consumer, "share": self.share, "mining_probability": self.chance,
            **dict(zip(names, self.per_market, strict=True)), "clipped": self.clipped, "done": self.done,
        }  # fmt: skip


class FusedBidding:
    """Two-tier bidding in its default preset (Kelly's auction, fixed prices, ideal split, rings)."""

    def __init__(self, market: Market, state: State):
        p, theta = market.params, state.theta
        if market.stages[-1].name != "bidding" or p.payment != "kelly" or p.observation != "own":  # type: ignore[attr-defined]
            raise ValueError("the fused kernel is two-tier bidding's in its default preset")
        kind = state.history.price.dtype
        batch, m = market.batch(state), market.roles["bidder"]
        low, high = (b[0, :, 0] for b in market.bounds(state, "bidding"))
        demand = (theta.users * theta.agreed_rate[:, None, :]).sum(axis=2)[0]
        inverse = 1.0 / np.where(theta.headcount[0] > 0, demand, 1.0)
        snr = theta.network.snr[0]
        weight = np.broadcast_to(theta.value_weight[0], (m,))
        rows = [
            low,
            high,
            np.broadcast_to(theta.price[0], (m,)),
            snr,
            weight,
            inverse,
            np.clip(weight / 10.0, 0.0, 1.0),
        ]
        self.theta = np.ascontiguousarray(np.stack(rows), dtype=kind)
        self.reach = (np.log(np.where(snr > 1.0, snr, 1.0)) / (15.0 * math.log(10.0))).astype(kind)
        self.users = np.ascontiguousarray(np.clip(theta.users[0] / 20.0, 0.0, 1.0), dtype=kind)
        last = state.history
        plain = [last.price, last.bids, last.bandwidth, last.rate, last.profit, last.efficiency]
        self.history = np.stack([*plain, *(last.ssr[:, :, k] for k in range(3))]).astype(kind)
        self.rounds = state.round.copy()
        self.seen = np.empty((batch, m, 13), kind)
        self.out, self.per_market = np.empty((8, batch, m), kind), np.empty((5, batch), kind)
        self.clipped, self.done = np.empty(batch, np.int32), np.empty(batch, bool)
        one = kind.type(1.0)
        self.scalars = (
            p.horizon, theta.bandwidth[0, 0], theta.spectral_multiplier[0, 0], theta.rho[0, 0],
            theta.omega[0, 0] * one * kind.type(1e-3), kind.type(p.blocks), one,  # type: ignore[attr-defined]
        )  # fmt: skip

    def step(self, decisions: Mapping[str, np.ndarray]) -> None:
        """Play a round; results are in the attributes."""
        _bidding(
            self.theta, self.reach, self.users, self.rounds, decisions["bidding"][:, :, 0], self.history, self.seen,
            self.out, self.per_market, self.clipped, self.done, *self.scalars,
        )  # fmt: skip

    def results(self) -> dict[str, np.ndarray]:
        """What the last round gave, by the names of the rules."""
        agents = ("price", "bid", "bandwidth", "blocks", "rate", "payment", "profit", "spectral_efficiency")
        markets = ("welfare", "revenue", "objective", "loss_share", "value")
        return {
            "seen bidding": self.seen, "bidder": self.out[6], **dict(zip(agents, self.out, strict=True)),
            **dict(zip(markets, self.per_market, strict=True)), "clipped": self.clipped, "done": self.done,
        }  # fmt: skip


FUSED: dict[str, Any] = {"AIBazaar-v0": FusedBazaar, "TwoTierBidding-v0": FusedBidding}
