"""Packet traffic with queues: what ``traffic="packet"`` puts in place of the closed form of satisfaction. Array API, tracing safe.

A round is ``subframes`` of 0.5 ms. In each, every user may receive a packet (a renewal process per user, its laws below),
which joins the user's queue or is dropped if ``queue_length`` packets are there; the users of a slice with something to
send share its band equally; the packet at the head is served at the PHY rate of that share. A packet is *valid* if its
mean PHY rate while it was served exceeds the agreed rate. The ratio of a slice is valid packets over those that ended in
the round, served or dropped (eq. 13, whose "sent" is the same in the long run, but may fall into another round); 1 where
none ended, 0 where none could, for want of blocks. Queues, the packet in service and the time to the next arrival carry
over between rounds: with them the market has a state.

=========  ==================================  ======================================  ====================
service    packet                              time between packets                    source
=========  ==================================  ======================================  ====================
VoLTE      40 B                                uniform on 0-160 ms                     paper's ref. 2, code
eMBB       Pareto 1.2 from 40 B, cut at 250 B  Pareto 1.2 from 2.5, cut at 12.5 ms     NGMN video (spec 4.9)
URLLC      0.3 MB                              exponential, mean 180 ms                paper's ref. 2, code
=========  ==================================  ======================================  ====================

Approximations: at most one arrival and one completion per user and subframe; capacity left over by a completed packet is not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ...arrays import Array, Backend
from . import radio

if TYPE_CHECKING:
    from ...state import State
    from .parameters import BiddingParams
    from .rules import TwoTierBidding

SUBFRAME_MS = 0.5
VOLTE_BITS, URLLC_BITS = 320.0, 2.4e6
EMBB_BITS = (320.0, 2000.0)
EMBB_GAP_MS = (2.5, 12.5)
PARETO = 1.2
VOLTE_GAP_MS, URLLC_GAP_MS = 160.0, 180.0


class Queues(NamedTuple):
    """What users have not sent yet, (B, M, 3, J) each."""

    waiting: Array
    """Packets in the queue, the one in service included."""
    left: Array
    """Bits left of the packet in service."""
    rate: Array
    """Sum of its PHY rates over the subframes in which it was served, Mb/s."""
    served: Array
    """Number of those subframes."""
    gap: Array
    """ms until the next arrival."""


class Traffic(NamedTuple):
    """One simulated round of every slice and alternative band, (B, M, 3, X) each."""

    ratio: Array
    """Valid packets over those that ended."""
    delivered: Array
    """Mb/s that really passed."""
    busy_rate: Array
    """Mb/s: PHY rates of the users that are served, the mean over all subframes, idle ones included."""
    active: Array
    """Mean share of a slice's users with something to send."""
    queues: Queues
    """Queues after the round, (B, M, 3, J, X)."""


def first_queues(backend: Backend, uniform: Array) -> Queues:
    """Empty queues; ``uniform`` (B, M, 3, J) gives the time to the first packet."""
    zero = 0.0 * uniform
    return Queues(zero, zero, zero, zero, _gap(backend.xp, uniform))


def simulate(
    params: BiddingParams,
    backend: Backend,
    theta: Any,
    user_snr: Array,
    band: Array,
    queues: Queues,
    noise: Mapping[str, Array],
) -> Traffic:
    """Play one round of packets.

    Args:
        params: The market's parameters.
        backend: Its array library.
        theta: Its numeric parameters.
        user_snr: (B|1, M, 3, J) SNR bandwidth of each user, MHz.
        band: (B, M, 3, X) bandwidth of each slice, MHz; X alternatives are played side by side on the same draws.
        queues: What the last round left.
        noise: ``gaps`` and ``sizes`` (uniform) and, unless fading is known, ``fast_fading`` (exponential), (B|1, M, 3, J, W) each.
    """
    xp, width, limit = backend.xp, params.max_users, float(params.queue_length)
    member = xp.astype(radio.member_mask(xp, theta.users, width), backend.dtype)[..., None]  # (B|1, M, 3, J, 1)
    slices = band[..., None, :]  # (B, M, 3, 1, X)
    open_band = slices > 0
    safe = xp.where(open_band, slices, 1.0)
    multiplier = theta.spectral_multiplier[:, :, None, None, None]
    agreed = theta.agreed_rate[:, None, :, None, None]
    snr = xp.where(member > 0, user_snr[..., None], 1.0)
    zero = 0.0 * (member + slices + queues.gap[..., None])
    fading = noise.get("fast_fading")

    def at(name: str, index: Array) -> Array:
        return xp.take(noise[name], index, axis=4)

    def subframe(k: Any, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        waiting, left, rate, served, gap, ended, valid, bits, phy, busy = carry
        index = xp.reshape(backend.integers(k), (1,))
        size = _size(xp, at("sizes", index))
        gap = gap - SUBFRAME_MS
        arrives = (gap <= 0.0) & (member > 0)
        gap = xp.where(arrives, gap + _gap(xp, at("gaps", index)[..., 0])[..., None], gap)
        dropped = arrives & (waiting >= limit)
        new = arrives & (waiting == 0.0)
        waiting = xp.where(arrives & (waiting < limit), waiting + 1.0, waiting)
        left, rate, served = xp.where(new, size, left), xp.where(new, 0.0, rate), xp.where(new, 0.0, served)

        active = (waiting > 0.0) & open_band
        share = safe / xp.clip(xp.sum(xp.astype(active, backend.dtype), axis=3, keepdims=True), 1.0, None)
        power = snr if fading is None else snr * at("fast_fading", index)
        speed = multiplier * share * xp.log1p(power / share) / math.log(2.0)
        passed = xp.where(active, xp.minimum(speed * (1e3 * SUBFRAME_MS), left), 0.0)
        left = left - passed
        rate, served = rate + xp.where(active, speed, 0.0), served + xp.astype(active, backend.dtype)
        done = active & (left <= 0.0)
        good = done & (rate > agreed * served)
        waiting = xp.where(done, waiting - 1.0, waiting)
        left, rate, served = xp.where(done, size, left), xp.where(done, 0.0, rate), xp.where(done, 0.0, served)
        return (
            waiting,
            left,
            rate,
            served,
            gap,
            ended + xp.astype(done | dropped, backend.dtype) + xp.astype(done & dropped, backend.dtype),
            valid + xp.astype(good, backend.dtype),
            bits + passed,
            phy + xp.where(active, speed, 0.0),
            busy + xp.astype(active, backend.dtype),
        )

    start = tuple(q[..., None] + zero for q in queues)
    played = backend.iterate(params.subframes, subframe, (*start, zero, zero, zero, zero, zero))
    ended, valid, bits, phy, busy = (xp.sum(a, axis=3) for a in played[5:])
    nothing = xp.astype((band > 0) | (theta.users[..., None] == 0), backend.dtype)  # the ratio where no packet ended
    ratio = xp.where(ended > 0, valid / xp.where(ended > 0, ended, 1.0), nothing + 0.0 * ended)
    duration = params.subframes * SUBFRAME_MS
    users = xp.where(theta.users > 0, theta.users, 1.0)[..., None]
    active = busy / (users * params.subframes)
    return Traffic(ratio, bits / (1e3 * duration), phy / params.subframes, active, Queues(*played[:5]))


def play(market: TwoTierBidding, state: State, decisions: Mapping[str, Array], split: Array) -> Traffic:
    """The coming round at a split (B, M, 3) of blocks.

    Settlement and memory ask for the same round one after the other: outside traces the last answer is kept.
    """
    key = (*decisions.values(), state.nature["gaps"], state.history.queues.waiting)
    kept = market.__dict__.get("_last_round")
    if kept is not None and len(kept[0]) == len(key) and all(a is b for a, b in zip(kept[0], key, strict=True)):
        return kept[1]  # type: ignore[no-any-return]
    band = state.theta.bandwidth[:, :, None] * split / market.params.blocks
    traffic = _run(market, state, band[..., None])
    if market.backend.name != "jax":
        market.__dict__["_last_round"] = key, traffic
    return traffic


def ratios(market: TwoTierBidding, state: State) -> Array:
    """(B, M, 3, N+1) ratios of the coming round for every number of blocks: what a clairvoyant slicer would know."""
    xp, p = market.xp, market.params
    key = state.nature["gaps"], state.history.queues.waiting
    kept = market.__dict__.get("_last_ratios")
    if kept is not None and all(a is b for a, b in zip(kept[0], key, strict=True)):
        return kept[1]
    blocks = xp.astype(xp.arange(p.blocks + 1), market.backend.dtype)
    band = state.theta.bandwidth[:, :, None, None] * blocks / p.blocks
    shape = (market.batch(state), p.n_operators, 3, p.blocks + 1)
    found = _run(market, state, xp.broadcast_to(band, shape)).ratio
    market.__dict__["_last_ratios"] = key, found
    return found


def _run(market: TwoTierBidding, state: State, band: Array) -> Traffic:
    return simulate(
        market.params,
        market.backend,
        state.theta,
        market.network(state).user_snr,
        band,
        state.history.queues,
        state.nature,
    )


def _pareto(xp: Any, u: Array, low: float, high: float) -> Array:
    """Pareto cut off at ``high``, where its tail's mass sits (so the mean packet is 101.4 B, the mean gap 5.9 ms)."""
    return xp.minimum(low * (1.0 - u) ** (-1.0 / PARETO), high + 0.0 * u)


def _by_service(xp: Any, volte: Array, embb: Array, urllc: Array) -> Array:
    """One of three laws by the third axis."""
    return xp.stack((volte[:, :, 0, ...], embb[:, :, 1, ...], urllc[:, :, 2, ...]), axis=2)


def _gap(xp: Any, u: Array) -> Array:
    """Milliseconds between packets from uniforms (B, M, 3, ...)."""
    return _by_service(xp, VOLTE_GAP_MS * u, _pareto(xp, u, *EMBB_GAP_MS), -URLLC_GAP_MS * xp.log1p(-u))


def _size(xp: Any, u: Array) -> Array:
    """Bits of a packet from uniforms (B, M, 3, ...)."""
    return _by_service(xp, VOLTE_BITS + 0.0 * u, _pareto(xp, u, *EMBB_BITS), URLLC_BITS + 0.0 * u)
