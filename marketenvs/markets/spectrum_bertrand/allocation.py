"""Who is served, in any array library: auctions on urns, their exact expectations, and clearing by price.

Used by the rules; every function takes the namespace ``xp`` first. B markets, M buyers, N sellers.
"""

from __future__ import annotations

from typing import Any

from marketenvs.arrays import Array


def _lookup(xp: Any, values: Array, order: Array) -> Array:
    return xp.take_along_axis(values, order, axis=1)


def _inverse(xp: Any, order: Array) -> Array:
    return xp.argsort(order, axis=1, stable=False)  # all different, so stability is moot and the faster sort will do


def winners(xp: Any, urn: Array, bid: Array, tie: Array, capacity: Array | None) -> Array:
    """Which bids are among the ``capacity`` highest of their urn, bool (B, M); ties go to the larger ``tie``.

    Args:
        xp: array namespace.
        urn: (B, M) urn of each bid, whole numbers; a bid that does not compete needs an urn of its own or a huge one.
        bid: (B, M).
        tie: (B, M) distinct uniforms.
        capacity: (B, M) units of the urn each bid is on; None for 1.
    """
    order = xp.argsort(-tie, axis=1, stable=False)
    order = _lookup(xp, order, xp.argsort(_lookup(xp, -bid, order), axis=1, stable=True))
    order = _lookup(xp, order, xp.argsort(_lookup(xp, urn, order), axis=1, stable=True))
    sorted_urn = _lookup(xp, urn, order)
    # k units: served unless the bid k places further up is on the same urn
    if capacity is None:
        before = xp.concat((sorted_urn[:, :1] - 1.0, sorted_urn[:, :-1]), axis=1)
        served = before != sorted_urn
    else:
        place = xp.cumulative_sum(xp.ones_like(sorted_urn), axis=1) - 1.0
        back = place - _lookup(xp, capacity, order)
        index = xp.astype(xp.clip(back, 0.0, float(urn.shape[1])), order.dtype)
        served = (back < 0) | (_lookup(xp, sorted_urn, index) != sorted_urn)
    return _lookup(xp, served, _inverse(xp, order))


def rank_counts(xp: Any, group: Array, bid: Array) -> tuple[Array, Array]:
    """How many bids of the same group are higher, and how many others are equal, each (B, M)."""
    order = xp.argsort(-bid, axis=1, stable=True)
    order = _lookup(xp, order, xp.argsort(_lookup(xp, group, order), axis=1, stable=True))
    g, b = _lookup(xp, group, order), _lookup(xp, bid, order)
    place = xp.cumulative_sum(xp.ones_like(b), axis=1) - 1.0
    yes = xp.ones_like(g[:, :1]) > 0
    new_group = xp.concat((yes, g[:, 1:] != g[:, :-1]), axis=1)
    new_block = xp.concat((yes, (g[:, 1:] != g[:, :-1]) | (b[:, 1:] != b[:, :-1])), axis=1)
    last_block = xp.concat((new_block[:, 1:], yes), axis=1)
    start_group = _running_max(xp, xp.where(new_group, place, xp.zeros_like(place)))
    start_block = _running_max(xp, xp.where(new_block, place, xp.zeros_like(place)))
    from_end = xp.where(last_block, float(place.shape[1] - 1) - place, xp.zeros_like(place))
    end_block = float(place.shape[1] - 1) - xp.flip(_running_max(xp, xp.flip(from_end, axis=1)), axis=1)
    back = _inverse(xp, order)
    return _lookup(xp, start_block - start_group, back), _lookup(xp, end_block - start_block, back)


def _running_max(xp: Any, values: Array) -> Array:
    """Maximum of all entries up to each one along axis 1, in log2(M) doublings."""
    size, step = values.shape[1], 1
    while step < size:
        shifted = xp.concat((values[:, :step], values[:, :-step]), axis=1)
        values = xp.maximum(values, shifted)
        step *= 2
    return values


def chance_served(xp: Any, higher: Array, equal: Array, urns: Array, capacity: Array, pooled: bool) -> Array:
    """Probability to be served over the blind draw of urns and the tie-break (B, M).

    Channels: each higher bid misses my channel with probability 1 - 1/L, and with s my tie-breaker an equal one is no
    threat with probability 1 - (1 - s)/L; the integral over s is ``(1 - (1 - 1/L)^(n+1)) L / (n+1)``. A pool serves
    the first ``capacity``.

    Args:
        xp: array namespace.
        higher: (B, M) higher bids in the group.
        equal: (B, M) other bids in the group that are equal.
        urns: (B, M) urns of the group, L.
        capacity: (B, M) units per urn.
        pooled: whether all groups are single pools (L = 1) or channels (capacity 1).
    """
    if pooled:
        return xp.clip((capacity - higher) / (equal + 1.0), 0.0, 1.0)
    miss = 1.0 - 1.0 / urns
    below = xp.where(higher > 0, miss**higher, xp.ones_like(miss))
    return below * (1.0 - miss ** (equal + 1.0)) * urns / (equal + 1.0)


def clear(xp: Any, price: Array, want: Array, stock: Array) -> Array:
    """Units sold (B, N) when buyers go to the cheapest seller with stock; equal prices share equally up to their stock.

    Args:
        xp: array namespace.
        price: (B, N).
        want: (B, N) demand at each seller's price.
        stock: (B, N) or (1, N).
    """
    n = price.shape[1]
    mine, theirs = price[:, :, None], price[:, None, :]
    stock = stock + xp.zeros_like(price)
    supply = stock[:, None, :] + xp.zeros_like(mine - theirs)
    ahead = xp.sum(xp.where(theirs < mine, supply, xp.zeros_like(supply)), axis=2)
    todo = xp.clip(want - ahead, 0.0, None)
    tied = theirs == mine
    got = xp.zeros_like(supply)
    for _ in range(n):  # every pass fills at least one seller or ends the demand
        open_ = tied & (got < supply)
        rest = (todo - xp.sum(got, axis=2))[:, :, None]
        number = xp.sum(xp.astype(open_, price.dtype), axis=2)[:, :, None]
        share = xp.minimum(rest / xp.where(number > 0, number, xp.ones_like(number)), supply - got)
        got = got + xp.where(open_, share, xp.zeros_like(share))
    own = xp.eye(n, dtype=price.dtype, device=getattr(price, "device", None))
    return xp.sum(got * own, axis=2)


def logit_shares(xp: Any, price: Array, quality: Array, noise: Array, outside: Array) -> Array:
    """Logit demand shares (B, N)."""
    utility = (quality - price) / noise
    other = outside / noise + xp.zeros_like(utility[:, :1])
    top = xp.maximum(xp.max(utility, axis=1, keepdims=True), other)
    weight = xp.exp(utility - top)
    return weight / (xp.sum(weight, axis=1, keepdims=True) + xp.exp(other - top))
