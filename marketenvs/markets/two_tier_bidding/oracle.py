"""Exact solver of the bandwidth auction (upper tier): equilibria, best responses, welfare optimum, certificates.

The game: operator m bids ``b_m`` in ``[floor, cap]``, receives ``c_m = C b_m / sum b`` (eq. 2) and pays by one of
five rules.

================  ==========================================  ==========================================================
payment           charge of operator m                        equilibrium
================  ==========================================  ==========================================================
``kelly``         ``q_m b_m``, one price q for all            ``v'(c)(1 - c/C) C = q B`` at the common total B: unique
``posted``        ``q_m b_m``, a price for each               the same; ``q_m = k (1 - c*_m/C)`` makes it efficient
``efficient``     ``k B_-m ln(1 + b_m/B_-m)``                 ``v'(c) C = k B``: equal slopes, hence the welfare optimum
``eq4``           ``c v'(c)(1 - c/C)`` (eq. 4 with v')        everyone at the cap, which is strictly dominant
``eq4_literal``   ``R v(c)(c/C)(1 - c/C)`` (eq. 4 as printed) everyone at the cap if elasticity allows (R = 1)
================  ==========================================  ==========================================================

Method: for a trial total B each operator's share follows from one scalar equation (`values.solve_share`), clipped to
its box ``[floor/B, cap/B]``. The sum of shares falls in B, so a bracketed Newton iteration on ``ln B`` finds the total.
All ``(B, M)`` operators are solved at once. Pure NumPy float64; nothing here knows the environment contract.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .values import Array, Share, Values, elasticity, marginal, solve_share, useful, value

PAYMENTS = ("kelly", "posted", "efficient", "eq4", "eq4_literal")
DOMINANCE_ELASTICITY = 2.0 / np.sqrt(3.0) - 1.0  # max over s of s(1-2s)/(1-s+s^2); spec 4.3
_EPS = float(np.finfo(np.float64).eps)


class Auction(NamedTuple):
    """One batch of bandwidth auctions.

    Attributes:
        values: What bandwidth is worth, ``(B, M)``.
        bandwidth: Total bandwidth C in MHz, ``(B, 1)``.
        price: Unit price ``q`` in Mb/s per credit, ``(B, M)``; for ``efficient`` the scale k; unused by eq. 4's rules.
        floor: Least bid, ``(B, M)``.
        cap: Largest bid, ``(B, M)``; may be infinite except under eq. 4's rules.
        payment: One of `PAYMENTS`.
        pool: The constant R of eq. (5), used by ``eq4_literal`` only.
    """

    values: Values
    bandwidth: Array
    price: Array
    floor: Array
    cap: Array
    payment: str = "kelly"
    pool: float = 1.0


class Outcome(NamedTuple):
    """What a bid profile leads to; every array ``(..., B, M)``."""

    bandwidths: Array
    values: Array
    payments: Array
    payoffs: Array


class Solution(NamedTuple):
    """Equilibrium of a batch of auctions.

    Attributes:
        bids: ``(B, M)``.
        outcome: Bandwidths, values, payments and payoffs at these bids.
        exists: ``(B,)``; where False, ``gains`` says how far from an equilibrium the bids are.
        dominant: ``(B,)``; whether the bids are dominant strategies.
    """

    bids: Array
    outcome: Outcome
    exists: NDArray[np.bool_]
    dominant: NDArray[np.bool_]


def make_auction(
    values: Values,
    bandwidth: Array | float = 10.0,
    price: Array | float = 1.0,
    floor: Array | float = 0.0,
    cap: Array | float = np.inf,
    payment: str = "kelly",
    pool: float = 1.0,
) -> Auction:
    """Broadcast and check the parts of an auction.

    Raises:
        ValueError: If a field is not finite (``cap`` may be infinite), a price is not positive, a floor exceeds its
            cap, the payment rule is unknown, or an eq. 4 rule is asked for without caps.
    """
    if payment not in PAYMENTS:
        raise ValueError(f"payment={payment!r} is not offered; choose one of {PAYMENTS}")
    weight, snr = (np.atleast_2d(np.asarray(a, float)) for a in (values.weight, values.snr))
    shape = np.broadcast_shapes(weight.shape, snr.shape, *(np.atleast_2d(a).shape for a in (price, floor, cap)))
    band = np.asarray(bandwidth, float).reshape(-1, 1)
    shape = np.broadcast_shapes(shape, band.shape)
    weight, snr, q, low, high = (np.broadcast_to(np.asarray(a, float), shape) for a in (weight, snr, price, floor, cap))
    for name, array in (("weight", weight), ("snr", snr), ("bandwidth", band), ("price", q), ("floor", low)):
        if not np.isfinite(array).all() or (array < 0).any():
            raise ValueError(f"{name} must be finite and not negative, got {array}")
    if (q <= 0).any() or (band <= 0).any():
        raise ValueError("price and bandwidth must be positive")
    if np.isnan(high).any() or (high < low).any():
        raise ValueError("every cap must be at least its floor")
    if payment.startswith("eq4") and not np.isfinite(high).all():
        raise ValueError(f"payment={payment!r} rewards ever larger bids: give every operator a finite cap")
    return Auction(Values(values.kind, weight, snr), np.broadcast_to(band, (shape[0], 1)), q, low, high, payment, pool)


def settle(auction: Auction, bids: Array) -> Outcome:
    """Bandwidths, values, payments and payoffs of a bid profile ``(..., B, M)``: eqs. (2)-(5)."""
    bids = np.asarray(bids, float)
    total = bids.sum(-1, keepdims=True)
    share = np.where(total > 0, bids / np.where(total > 0, total, 1.0), 0.0)
    c = auction.bandwidth * share
    v = value(auction.values, c)
    if auction.payment in ("kelly", "posted"):
        paid = auction.price * bids
    elif auction.payment == "efficient":
        others = others_of(bids)
        safe = np.where(others > 0, others, 1.0)
        paid = np.where(others > 0, auction.price * others * np.log1p(bids / safe), 0.0)
    elif auction.payment == "eq4":
        slope = marginal(auction.values, np.where(c > 0, c, 1.0))
        paid = np.where(c > 0, c * slope * (1.0 - share), 0.0)
    else:
        paid = auction.pool * v * share * (1.0 - share)
    return Outcome(c, v, paid, v - paid)


def social_optimum(auction: Auction) -> tuple[Array, Array]:
    """Bandwidths ``(B, M)`` that maximise the total value, and that value ``(B,)``.

    Equal slopes: closed form ``c_m`` proportional to ``S_m`` for equally weighted ``shannon``/``statistical`` operators
    (spec 5.1), the steepest operator takes all for ``linear``, one scalar search otherwise.
    """
    values, band = auction.values, auction.bandwidth
    top = values.weight.max(-1, keepdims=True)
    if values.kind == "linear":
        first = np.argmax(values.weight, -1)[:, None]
        c = np.where(np.arange(values.weight.shape[-1]) == first, band, 0.0)
    else:
        free = auction._replace(
            price=np.ones_like(auction.price),
            floor=np.zeros_like(auction.floor),
            cap=np.full_like(auction.cap, np.inf),
            payment="efficient",
        )
        _, log_share, _ = _solve_total(free)
        share = np.exp(log_share)
        c = band * share / np.maximum(share.sum(-1, keepdims=True), 1e-300)
        if values.kind in ("shannon", "statistical"):
            even = (values.weight == top).all(-1, keepdims=True)
            mass = np.maximum(values.snr.sum(-1, keepdims=True), 1e-300)
            c = np.where(even, band * values.snr / mass, c)
    return c, value(values, c).sum(-1)


def equilibrium(auction: Auction) -> Solution:
    """The Nash equilibrium of every auction in the batch (unique for ``kelly``/``posted``: spec 5.2).

    It fails to exist where fewer than two operators can compete and no floor holds the total up; the floors are then
    returned with ``exists=False``.
    """
    shape = auction.values.weight.shape
    exists = np.ones(shape[0], bool)
    dominant = np.zeros(shape[0], bool)
    if auction.payment.startswith("eq4"):
        bids = np.array(auction.cap)
        dominant = _cap_dominates(auction)
        exists = dominant.copy()
        if not exists.all():  # eq4_literal outside its proved range: keep the caps if nobody gains there
            exists |= gains(auction, bids).max(-1) <= 1e-9 * (1.0 + social_optimum(auction)[1])
    elif auction.values.kind == "linear" and auction.payment == "efficient":
        bids = _linear_efficient(auction)
    else:
        alive = useful(auction.values) & (auction.cap > 0)
        competitors = alive.sum(-1)
        floors = auction.floor.sum(-1)
        needed = 1 if auction.payment == "efficient" else 2
        solvable = (competitors >= needed) | (floors > 0)
        idle = competitors == 0
        exists = solvable | idle
        total, log_share, clipped = _solve_total(auction, solvable & ~idle)
        bids = np.where(clipped < 0, auction.floor, np.where(clipped > 0, auction.cap, np.exp(log_share + total)))
        bids = np.where((solvable & ~idle)[:, None], bids, auction.floor)
    return Solution(bids, settle(auction, bids), exists, dominant)


def best_response(auction: Auction, bids: Array) -> Array:
    """Each operator's payoff-maximising bid ``(B, M)`` against the others' bids in ``bids``: exact, clipped to its box.

    Where nobody else bids, any positive bid wins the whole band, so the floor is the best reply (a supremum, not
    attained, if the floor is 0 and bidding costs something: see `gains`).
    """
    others = others_of(bids)
    alone = others <= 0
    rival = np.where(alone, 1.0, others)
    if auction.payment == "eq4" or (auction.payment == "eq4_literal" and _cap_dominates(auction).all()):
        reply = np.broadcast_to(auction.cap, bids.shape)
    elif auction.payment == "eq4_literal":
        return _search_reply(auction, bids)
    else:
        power = 1 if auction.payment == "efficient" else 2
        # kelly: v'(sC) C (1-s)^2 = q B_-;  efficient: v'(sC) C (1-s) = k B_-;  and b = B_- s/(1-s).
        level = auction.price * rival / auction.bandwidth
        log = solve_share(auction.values, auction.bandwidth, level, power).log
        reply = rival * np.exp(log) / np.maximum(-np.expm1(log), 1e-300)
    reply = np.clip(reply, auction.floor, auction.cap)
    return np.where(alone, auction.floor, reply)


def gains(auction: Auction, bids: Array, reply: Array | None = None) -> Array:
    """What each operator could gain by deviating alone, ``(B, M)``, never negative; their sum is NashConv.

    Where nobody else bids, the supremum ``v(C)`` (the whole band for a vanishing bid) counts as the deviation.
    """
    reply = best_response(auction, bids) if reply is None else reply
    others = others_of(bids)
    current = settle(auction, bids).payoffs
    total = reply + others
    best = _own_payoff(auction, reply, others)
    whole = value(auction.values, np.broadcast_to(auction.bandwidth, bids.shape))
    least = whole - np.where(auction.payment in ("kelly", "posted"), auction.price * auction.floor, 0.0)
    can_bid = auction.cap > 0
    best = np.where((others <= 0) & can_bid, least, np.where(total > 0, best, 0.0))
    return np.maximum(best - current, 0.0)


def _own_payoff(auction: Auction, own: Array, others: Array) -> Array:
    """Payoff of an operator that bids ``own`` against rivals' total ``others`` (arrays of one shape)."""
    total = own + others
    share = np.where(total > 0, own / np.where(total > 0, total, 1.0), 0.0)
    c = auction.bandwidth * share
    v = value(auction.values, c)
    if auction.payment in ("kelly", "posted"):
        return v - auction.price * own
    if auction.payment == "efficient":
        return v - auction.price * others * np.log1p(own / np.where(others > 0, others, np.inf))
    if auction.payment == "eq4":
        slope = marginal(auction.values, np.where(c > 0, c, 1.0))
        return v - np.where(c > 0, c * slope * (1.0 - share), 0.0)
    return v * (1.0 - auction.pool * share * (1.0 - share))


def posted_price(auction: Auction, target: Array, scale: float = 1.0) -> Array:
    """Prices ``(B, M)`` whose unique ``posted`` equilibrium is ``target``: ``q ~ v'(c)(1 - c/C)``.

    At the welfare optimum the slopes are equal, and this is ``scale (1 - c*/C)`` up to a common factor (spec 5.2).
    """
    q = marginal(auction.values, target) * (1.0 - target / auction.bandwidth)
    slope = np.where(np.isfinite(q), q, 0.0).max(-1, keepdims=True)
    rest = (1.0 - target / auction.bandwidth).max(-1, keepdims=True)
    return scale * q / slope * rest


def feedback_price(bandwidths: Array, bandwidth: Array, scale: float = 1.0) -> Array:
    """Next posted prices ``k (1 - c/C)`` from what everybody received: uses observables only (spec 4.18)."""
    return scale * (1.0 - bandwidths / bandwidth)


def others_of(bids: Array) -> Array:
    """Sum of everybody else's bids, without the cancellation of ``total - own``."""
    before = np.cumsum(bids, -1) - bids
    after = np.cumsum(bids[..., ::-1], -1)[..., ::-1] - bids
    return before + after


def _cap_dominates(auction: Auction) -> NDArray[np.bool_]:
    """Whether bidding the cap is dominant for everybody, ``(B,)``: spec 4.3."""
    if auction.payment == "eq4":
        return np.ones(auction.values.weight.shape[0], bool)
    if auction.pool != 1.0:
        return np.zeros(auction.values.weight.shape[0], bool)
    # Elasticity falls in c for every family here, so the whole band is its worst case.
    worst = elasticity(auction.values, np.broadcast_to(auction.bandwidth, auction.values.weight.shape))
    return (worst >= DOMINANCE_ELASTICITY).all(-1)


def _search_reply(auction: Auction, bids: Array, points: int = 4001, rounds: int = 6) -> Array:
    """Best reply under ``eq4_literal`` by repeated grids over the own share: numeric, as v(1 - R s(1-s)) may dip."""
    others = others_of(bids)
    low_b, high_b = auction.floor, auction.cap
    low = low_b / np.maximum(low_b + others, 1e-300)
    high = high_b / np.maximum(high_b + others, 1e-300)
    best = low
    for _ in range(rounds):
        grid = low + (high - low) * np.linspace(0, 1, points)[:, None, None]
        worth = value(auction.values, grid * auction.bandwidth) * (1.0 - auction.pool * grid * (1.0 - grid))
        at = worth.argmax(0)[None]
        best = np.take_along_axis(grid, at, 0)[0]
        width = (high - low) / (points - 1)
        low, high = np.maximum(best - width, low), np.minimum(best + width, high)
    reply = others * best / np.maximum(1.0 - best, 1e-300)
    return np.where(others > 0, np.clip(reply, low_b, high_b), low_b)


def _linear_efficient(auction: Auction) -> Array:
    """``efficient`` with linear values: slopes are constant, so a bid sits at its cap, its floor, or fills the rest.

    The total B makes the operators with ``a C > k B`` bid their caps and those below their floors; the one at equality
    takes up what is missing. With nobody tied this is where the falling step function of caps and floors crosses B.
    """
    edge = auction.values.weight * auction.bandwidth / auction.price
    bids = np.array(auction.floor)
    for row in range(edge.shape[0]):  # a tie-breaking special case of the test family: not on any hot path
        order = np.argsort(-edge[row], kind="stable")
        spent = auction.floor[row].sum()
        for m in order:
            room = auction.cap[row, m] - auction.floor[row, m]
            add = np.clip(edge[row, m] - spent, 0.0, room)
            bids[row, m] += add
            spent += add
            if add < room:
                break
    return bids


def _solve_total(auction: Auction, rows: NDArray[np.bool_] | None = None) -> tuple[Array, Array, Array]:
    """Total bid at which the clipped shares add up to one.

    Returns:
        ``ln B`` of shape ``(B, 1)``, the log shares ``(B, M)``, and which bound binds (-1 floor, 0 none, 1 cap).
    """
    power = 0 if auction.payment == "efficient" else 1
    values, band, price = auction.values, auction.bandwidth, auction.price
    shape = values.weight.shape
    rows = np.ones(shape[0], bool) if rows is None else rows
    floor, cap = auction.floor, auction.cap
    if not rows.all():  # rows without a root are solved as a harmless market, and not used
        off = ~rows[:, None]
        values = values._replace(weight=np.where(off, 1.0, values.weight), snr=np.where(off, 1.0, values.snr))
        floor, cap = np.where(off, 0.0, floor), np.where(off, np.inf, cap)
    alive = useful(values) & (cap > 0)
    k = np.maximum(alive.sum(-1, keepdims=True), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # With B at most (at least) every r_m, all k operators want at least (at most) 1/k of the band.
        r = marginal(values, np.broadcast_to(band / k, values.weight.shape)) * (1.0 - 1.0 / k) ** power * band / price
        lowest = np.where(alive, np.minimum(r, k * cap), np.inf).min(-1, keepdims=True)
        highest = np.maximum(np.where(alive, r, 0.0).max(-1, keepdims=True), k * floor.max(-1, keepdims=True))
        highest = np.maximum(highest, shape[-1] * floor.max(-1, keepdims=True))
        lowest = np.maximum(lowest, floor.sum(-1, keepdims=True))
        highest = np.minimum(highest, cap.sum(-1, keepdims=True))
        highest = np.maximum(highest, lowest)
        low, high = np.log(np.maximum(lowest, 1e-290)) - 1e-9, np.log(np.maximum(highest, 1e-290)) + 1e-9
        log_floor, log_cap = np.log(floor), np.log(cap)
    total = 0.5 * (low + high)
    log_share = np.broadcast_to(-np.log(k), shape)
    side = np.zeros_like(log_share)
    slope = np.full_like(log_share, -0.5)
    done = ~rows[:, None] & np.ones_like(total, bool)
    step = np.zeros_like(total)
    for _ in range(100):
        level = np.maximum(price * np.exp(total) / band, 1e-300)
        guess = np.maximum(log_share + slope * step, -1e3)  # the last shares, moved along their slope
        root: Share = solve_share(values, band, level, power, guess)
        under, over = root.log < log_floor - total, root.log > log_cap - total
        new_share = np.where(under, log_floor - total, np.where(over, log_cap - total, root.log))
        log_share = np.where(done, log_share, new_share)
        side = np.where(done, side, np.where(under, -1.0, np.where(over, 1.0, 0.0)))
        slope = np.where(under | over, -1.0, root.slope)
        share = np.exp(log_share)
        # sum(s) - 1 with 1 - max(s) taken from the logarithm: exact even where one share is 1 - 1e-12.
        largest = log_share.max(-1, keepdims=True)
        first = np.argmax(log_share, -1, keepdims=True) == np.arange(shape[-1])
        excess = np.where(first, 0.0, share).sum(-1, keepdims=True) + np.expm1(largest)
        fall = (share * slope).sum(-1, keepdims=True) / np.maximum(share.sum(-1, keepdims=True), 1e-300)
        low, high = np.where(excess > 0, total, low), np.where(excess > 0, high, total)
        step = -np.log1p(np.maximum(excess, -1 + 1e-300)) / np.where(fall < 0, fall, -1e-300)
        new = total + step
        new = np.where((new >= low) & (new <= high), new, 0.5 * (low + high))
        settled = (np.abs(new - total) <= 2 * _EPS * np.maximum(1.0, np.abs(total))) | (high - low <= 4 * _EPS)
        settled |= (power == 0) & (np.abs(excess) <= 4 * _EPS)
        step = np.where(done, 0.0, new - total)
        total = np.where(done | settled, total, new)
        done = done | settled
        if done.all():
            break
    return total, log_share, side
