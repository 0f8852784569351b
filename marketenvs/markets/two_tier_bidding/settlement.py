"""Settlement of a round: from decisions to rates, payments, satisfaction and rewards. Array API, tracing safe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ...arrays import Array
from . import literal, packets, radio

if TYPE_CHECKING:
    from ...market import State
    from .rules import TwoTierBidding


class Settled(NamedTuple):
    """One settled round, before rewards; (B, M) each, ssr (B, M, 3)."""

    bids: Array
    price: Array
    bandwidth: Array
    blocks: Array
    split: Any
    illegal: Array
    rate: Array
    worth: Array
    payment: Array
    profit: Array
    ssr: Array
    efficiency: Array
    utility: Array
    delivered: Any = ()
    busy: Any = ()
    queues: Any = ()
    """Packet traffic: (B, M, 3) Mb/s that really passed, (B, M, 3) mean PHY rates served, and the queues left behind."""


def split_blocks(market: TwoTierBidding, decision: Array, blocks: Array) -> tuple[Array, Array]:
    """Blocks per service (B, M, 3) from a slicer's decision, and whether it was illegal (B, M)."""
    xp = market.xp
    if market.params.split == "discrete":
        volte, embb = xp.round(decision[:, :, 0]), xp.round(decision[:, :, 1])
        excess = volte + embb - blocks
        over = excess > 0
        cut = xp.where(over, xp.minimum(excess, volte), 0.0 * excess)  # the lexicographically smallest nearest pair
        volte = volte - cut
        embb = embb - xp.where(over, excess - cut, 0.0 * excess)
        return xp.stack((volte, embb, blocks - volte - embb), axis=2), over
    total = xp.sum(decision, axis=2, keepdims=True)
    share = xp.where(total > 0, decision / xp.where(total > 0, total, 1.0), 1.0 / 3.0 + 0.0 * decision)
    exact = share * blocks[..., None]
    whole = xp.floor(exact + 1e-9)
    missing = blocks[..., None] - xp.sum(whole, axis=2, keepdims=True)
    remainder = xp.round((exact - whole) * 2.0**30)
    index = xp.arange(3)
    ahead = remainder[..., None, :] > remainder[..., :, None]
    tie = (remainder[..., None, :] == remainder[..., :, None]) & (index[None, :] < index[:, None])
    rank = xp.sum(xp.astype(ahead | tie, exact.dtype), axis=3)
    return whole + xp.astype(rank < missing, exact.dtype), blocks < -1.0


def settled(market: TwoTierBidding, state: State, decisions: Mapping[str, Array]) -> Settled:
    """Everything that follows from the decisions, with satisfaction in expectation: eqs. (2)-(5), (9)-(14)."""
    xp, p, theta = market.xp, market.params, state.theta
    bids, price = market.bids(decisions), market.prices(state, decisions)
    c, blocks = market.allocate(state, bids)
    network = market.network(state)
    split: Any = ()
    delivered: Any = ()
    busy: Any = ()
    queues: Any = ()
    illegal = blocks < -1.0
    if p.lower == "ideal":
        rate = radio.operator_value(p, xp, theta, network.snr, c)
        marginal = radio.operator_marginal(p, xp, theta, network.snr, c) if p.payment == "eq4" else c
        ssr = xp.stack((0.0 * c, 0.0 * c, 0.0 * c), axis=2)
    else:
        if p.slicers:
            split, illegal = split_blocks(market, decisions["slicing"], blocks)
        else:
            at = xp.astype(xp.round(blocks), xp.int64)[:, :, None, None]
            best = xp.broadcast_to(network.best, (bids.shape[0], *network.best.shape[1:]))
            index = xp.broadcast_to(at, (*at.shape[:2], 1, 3))
            split = xp.astype(xp.take_along_axis(best, index, axis=2)[:, :, 0, :], c.dtype)
        ssr, slice_rate, radial = (_look_up(xp, t, split) for t in (network.ssr, network.rate, network.radial))
        if p.packets_flow:
            traffic = packets.play(market, state, decisions, split)
            ssr, queues = traffic.ratio[..., 0], traffic.queues
            delivered, busy = traffic.delivered[..., 0], traffic.busy_rate[..., 0]
        rate = xp.sum(slice_rate, axis=2)
        marginal = xp.sum(radial, axis=2) / xp.where(c > 0, c, 1.0)
    worth = theta.value_weight * rate
    efficiency = xp.where(c > 0, rate / xp.where(c > 0, c, 1.0), 0.0 * c)
    payment = payments(market, theta, bids, price, c, worth, theta.value_weight * marginal)
    gain = xp.sum(radio.split_gain(p, xp, theta) * ssr, axis=2)
    utility = theta.rho * efficiency + gain
    return Settled(
        bids,
        price,
        c,
        blocks,
        split,
        illegal,
        rate,
        worth,
        payment,
        worth - payment,
        ssr,
        efficiency,
        utility,
        delivered,
        busy,
        queues,
    )


def _look_up(xp: Any, table: Array, split: Array) -> Array:
    """Entries of a (B|1, M, 3, N+1) table at the blocks of a split (B, M, 3)."""
    index = xp.astype(xp.round(split), xp.int64)[..., None]
    table = xp.broadcast_to(table, (split.shape[0], *table.shape[1:]))
    return xp.take_along_axis(table, index, axis=3)[..., 0]


def payments(
    market: TwoTierBidding, theta: Any, bids: Array, price: Array, c: Array, worth: Array, marginal: Array
) -> Array:
    """What each operator pays, (B, M): see ``oracle`` for the rules."""
    xp, rule = market.xp, market.params.payment
    if rule in ("kelly", "posted"):
        return price * bids
    if rule == "efficient":
        others = xp.cumulative_sum(bids, axis=1) - bids
        others = others + xp.flip(xp.cumulative_sum(xp.flip(bids, axis=1), axis=1), axis=1) - bids
        safe = xp.where(others > 0, others, 1.0)
        return xp.where(others > 0, price * others * xp.log1p(bids / safe), 0.0 * bids)
    if rule == "eq4":
        return xp.where(c > 0, c * marginal * (1.0 - c / theta.bandwidth), 0.0 * c)
    # (4)-(5) in the bandwidth a bid bought: the same as in bids, except that whole blocks settle whole shares.
    return c * literal.penalty(xp, worth, c, theta.bandwidth, c, theta.penalty_constant)


def omega(market: TwoTierBidding, theta: Any) -> Array:
    """Weight of a Mb/s of profit in the objective, (B, 1)."""
    return theta.omega * (1e-3 if market.params.omega_unit == "Gbps" else 1.0)


def rewards(market: TwoTierBidding, theta: Any, s: Settled, expected: bool) -> dict[str, Array]:
    """Payoffs by role. ``expected``: slicers' shaped rewards in the mean over reported ratios."""
    xp, p = market.xp, market.params
    merged, central = p.control == "merged", p.control == "central"
    bidder = "operator" if merged else "bidder"
    objective = xp.sum(s.utility + omega(market, theta) * s.profit, axis=1, keepdims=True)
    upper, lower = s.profit, s.utility
    if p.reward == "utility":
        upper = s.utility + omega(market, theta) * s.profit
    elif p.reward == "team":
        upper = lower = objective + 0.0 * s.profit
    elif p.reward == "paper":
        mean = [xp.mean(s.ssr[:, :, i], axis=1, keepdims=True) for i in range(3)]
        shaped = literal.upper_reward(
            xp,
            mean[0],
            mean[1],
            mean[2],
            xp.sum(s.rate, axis=1, keepdims=True) / theta.bandwidth,  # of the whole system
            xp.mean(s.profit, axis=1, keepdims=True),
        )
        upper = shaped + 0.0 * s.profit
        if expected and p.ssr_noise == "binomial":
            packets = xp.round(theta.packets)[:, None, :]
            gates = literal.gate_chances(xp, s.ssr, packets, theta.log_ways, market.max_packets())
            volte, embb, urllc, short = gates
            lower = literal.expected_lower_reward(xp, volte, embb, urllc, short, s.efficiency)
        else:
            lower = literal.lower_reward(xp, s.ssr[:, :, 0], s.ssr[:, :, 1], s.ssr[:, :, 2], s.efficiency)
    if central:
        total = xp.sum(upper, axis=1, keepdims=True)
        upper = total if p.reward in ("profit", "utility") else total / p.n_operators
    paid = {bidder: upper}
    if p.slicers and not merged:
        paid["slicer"] = lower
    if p.posting == "agent":
        paid["infrastructure"] = xp.sum(s.payment, axis=1, keepdims=True)
    return {role: paid[role] for role in market.roles}
