"""Settlement in any array library: who is served, who gets how many PRBs, and how a coalition splits what it bought.

Nothing is iterated inside anything: `prepare` solves the tenants' envelopes and demands once (at reset), `divide` then
finds a coalition's efficient split by looking up a start in that table and polishing it by a few Newton steps on the
optimality conditions (common log marginal value, fixed sum). All functions are free of data-dependent branches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .values import Curves, logistic, value

Array = Any

NODES = 24  # prices in the start table, geometric
SPAN = 24.0  # natural logarithms that the table covers below the highest choke price
POLISH = 8  # Newton steps of a split
ROOT_STEPS = 14  # safeguarded Newton steps of a delay tenant's demand, at reset
ENVELOPE_STEPS = 60  # bisections of an envelope's end, at reset


class Prepared(NamedTuple):
    """Tenants ready to settle; leading axis 1 or B, N tenants, G table nodes.

    Attributes:
        price_scale: reputation times the money value of a PRB, $/PRB, (., N).
        steepness: of the satisfaction curve, (., N).
        load: M/M/1 load of the delay class, (., N).
        delay: 1.0 for the delay class, (., N).
        choke: choke prices, $/PRB, (., N).
        hold: choke quantity per PRB of need, (., N).
        cross: demand per PRB of need of tenant n at tenant k's choke price, 0 above its own, (., N, N).
        table: demand per PRB of need at the table's falling prices, at least ``hold``, (., N, G).
    """

    price_scale: Array
    steepness: Array
    load: Array
    delay: Array
    choke: Array
    hold: Array
    cross: Array
    table: Array


def _log_slope(xp: Any, steepness: Array, delay: Array, use: Array) -> tuple[Array, Array]:
    """Logarithm of g'(u) up to a constant, and its derivative, for u > 0."""
    z = xp.where(delay > 0, steepness * (1.0 - 1.0 / use), steepness * (use - 1.0))
    size = xp.abs(z)
    level = -size - 2.0 * xp.log1p(xp.exp(-size)) - xp.where(delay > 0, 2.0 * xp.log(use), 0.0 * use)
    fall = -steepness * xp.tanh(0.5 * z)
    return level, xp.where(delay > 0, fall / (use * use) - 2.0 / use, fall)


def _envelope_use(xp: Any, iterate: Callable, steepness: Array, load: Array, delay: Array) -> Array:
    """Use where the envelope leaves the curve (`values.envelope_use`, by bisection, any array library).

    Beyond the inflection the gap g - (u + load) g' grows from negative to positive. Bisecting from the known upper end
    downwards needs the inflection, which the delay class bisects too: both in one loop of fixed length.
    """
    base = xp.where(delay > 0, 0.0 * steepness, logistic(xp, -steepness))

    def bend(_: int, bracket: tuple) -> tuple:
        low, high = bracket
        mid = 0.5 * (low + high)
        z = steepness * (1.0 - 1.0 / mid)
        above = steepness * (logistic(xp, -z) - logistic(xp, z)) > 2.0 * mid
        return xp.where(above, mid, low), xp.where(above, high, mid)

    one = xp.ones_like(steepness)
    _, start = iterate(ENVELOPE_STEPS, bend, (0.0 * one, xp.maximum(steepness, one)))
    start = xp.where(delay > 0, start, one)
    stop = xp.where(delay > 0, steepness + xp.sqrt(steepness * load) + 1.0, 2.0 * one)

    def gap(use: Array) -> Array:
        z = xp.where(delay > 0, steepness * (1.0 - 1.0 / use), steepness * (use - 1.0))
        slope = xp.where(delay > 0, steepness / (use * use), steepness)
        up, down = logistic(xp, z), logistic(xp, -z)
        return up - base - (use + load) * up * down * slope

    def halve(_: int, bracket: tuple) -> tuple:
        low, high = bracket
        mid = 0.5 * (low + high)
        below = gap(mid) < 0
        return xp.where(below, mid, low), xp.where(below, high, mid)

    return iterate(ENVELOPE_STEPS, halve, (start, stop))[1]


def prepare(xp: Any, iterate: Callable, price_scale: Array, steepness: Array, load: Array, delay: Array) -> Prepared:
    """Envelopes, demands at every choke price and the start table; all inputs (1 or B, N), same shape."""
    load = load * delay
    use = _envelope_use(xp, iterate, steepness, load, delay)
    hold = (use + load) / (1.0 + load)
    z = xp.where(delay > 0, steepness * (1.0 - 1.0 / use), steepness * (use - 1.0))
    slope = xp.where(delay > 0, steepness / (use * use), steepness)
    top = logistic(xp, steepness)
    choke = price_scale * (1.0 + load) * logistic(xp, z) * logistic(xp, -z) * slope / top

    highest = xp.max(choke, axis=1, keepdims=True)
    steps = xp.arange(NODES, dtype=choke.dtype, device=_device(choke)) * (-SPAN / (NODES - 1))
    ladder = xp.where(highest > 0, highest, xp.ones_like(highest)) * xp.exp(steps)[None, :]
    price = xp.concat((choke, ladder), axis=1)[:, None, :]
    # Level of s (1 - s) [/ u^2] that the price asks of each tenant; free tenants never buy and need no level.
    unit = price_scale * (1.0 + load) * steepness / top
    level = xp.where(price > 0, price, xp.ones_like(price)) / xp.where(unit > 0, unit, xp.ones_like(unit))[:, :, None]
    wide = [x[:, :, None] for x in (steepness, load, delay, use, hold)]
    found = _use_at(xp, iterate, level, *wide[:1], *wide[2:4])
    found = xp.maximum((found + wide[1]) / (1.0 + wide[1]), wide[4])
    count = choke.shape[1]
    above = choke[:, :, None] > choke[:, None, :]
    cross = xp.where(above, found[:, :, :count], 0.0 * found[:, :, :count])
    return Prepared(price_scale, steepness, load, delay, choke, hold, cross, found[:, :, count:])


def as_index(xp: Any, values: Array) -> Array:
    """Whole numbers as the library's own index type (int32 on JAX without 64-bit types)."""
    return xp.astype(values, xp.arange(1).dtype)


def _device(array: Array) -> Any:
    device = getattr(array, "device", None)
    return None if callable(device) else device


def _use_at(xp: Any, iterate: Callable, level: Array, steepness: Array, delay: Array, least: Array) -> Array:
    """Use at which s (1 - s) (over u^2 for the delay class) falls to ``level``, not below ``least``."""
    safe = xp.minimum(level, 0.25 * xp.ones_like(level))
    up = 0.5 * (1.0 + xp.sqrt(1.0 - 4.0 * safe))
    rate = 1.0 + (2.0 * xp.log(up) - xp.log(safe)) / steepness
    target, high = xp.log(level), -xp.log(least) + 0.0 * level
    low = xp.minimum(0.5 * (target + 1.3862943611198906), high)

    def newton(_: int, carry: tuple) -> tuple:
        root, low, high = carry
        inverse = xp.exp(root)
        z = steepness * (1.0 - inverse)
        size = xp.abs(z)
        gap = -size - 2.0 * xp.log1p(xp.exp(-size)) + 2.0 * root - target
        low, high = xp.where(gap < 0, root, low), xp.where(gap < 0, high, root)
        trial = root - gap / (2.0 + xp.tanh(0.5 * z) * steepness * inverse)
        inside = (trial >= low) & (trial <= high)
        return xp.where(inside, trial, 0.5 * (low + high)), low, high

    root, _, _ = iterate(ROOT_STEPS, newton, (high - 0.35 * (high - low), low, high))
    return xp.where(delay > 0, xp.exp(-root), rate)


def curves_of(xp: Any, ready: Prepared, need: Array) -> Curves:
    """The tenants' value curves for given needs (PRBs), broadcast to one shape."""
    fields = (ready.price_scale * need, need, ready.steepness, ready.load, ready.delay, ready.choke, ready.hold * need)
    shape = fields[0].shape
    return Curves(*(xp.broadcast_to(f, shape) for f in fields))


def divide(xp: Any, iterate: Callable, ready: Prepared, need: Array, member: Array, total: Array) -> Array:
    """Efficient split of what each coalition bought.

    Args:
        xp: array namespace.
        iterate: loop of the backend.
        ready: prepared tenants.
        need: PRBs for half satisfaction, (., N).
        member: bool (., Z, N), the members of each of Z coalitions.
        total: PRBs each coalition holds, (B, Z).

    Returns:
        PRBs of every tenant in every coalition, (B, Z, N); 0 outside.
    """
    need = need[:, None, :]
    member = member & (ready.choke > 0)[:, None, :]
    zero = 0.0 * need
    weight = xp.where(member, need, zero)
    hold, choke = ready.hold[:, None, :], ready.choke
    before = xp.sum(weight[..., :, None] * ready.cross[:, None, :, :], axis=2)  # demand just above k's choke price
    same = choke[:, :, None] == choke[:, None, :]
    jump = xp.sum(xp.where(same[:, None, ...], (weight * hold)[..., :, None], 0.0 * weight[..., :, None]), axis=2)
    amount = total[:, :, None]

    # Case 1: the shadow price is a choke price; those who sit there take the remainder on their straight piece.
    at = member & (before <= amount) & (amount <= before + jump)
    share = xp.where(at, 1.0 + 0.0 * amount, 0.0 * amount)
    hits = xp.sum(share, axis=2, keepdims=True)
    share = share / xp.where(hits > 0, hits, xp.ones_like(hits))
    rest = (amount - before) / xp.where(jump > 0, jump, xp.ones_like(jump))
    above = xp.sum(share[:, :, None, :] * ready.cross[:, None, :, :], axis=3)
    level = xp.sum(xp.where(same[:, None, ...], (share * rest)[:, :, None, :], 0.0 * share[:, :, None, :]), axis=3)
    straight = weight * (above + hold * level)

    # Case 2: everybody active is beyond the straight piece; start from the table, polish by Newton.
    active = member & (before + jump < amount)
    load = xp.where(active, need, 0.0 * amount)
    start, stretch = _lookup(xp, ready.table, load, total), (1.0 + ready.load[:, None, :]) / need
    floor = hold * need

    # The unit enters as a logarithm: log G'(w) = unit + log g'(u) with u linear in w.
    scale = ready.price_scale * (1.0 + ready.load) * ready.steepness / logistic(xp, ready.steepness)
    unit = xp.log(xp.where(scale > 0, scale, xp.ones_like(scale)))[:, None, :]
    steepness, delay = ready.steepness[:, None, :], ready.delay[:, None, :]

    def newton(_: int, held: Array) -> Array:
        use = held * stretch - ready.load[:, None, :]
        height, slope = _log_slope(xp, steepness, delay, use)
        height, give = unit + height, 1.0 / (slope * stretch)
        give = xp.where(active, give, 0.0 * held)
        sums = xp.sum(xp.where(active, held, 0.0 * held) - height * give, axis=2, keepdims=True)
        flex = xp.sum(give, axis=2, keepdims=True)
        price = (amount - sums) / xp.where(flex < 0, flex, -xp.ones_like(flex))
        moved = held + (price - height) * give
        return xp.maximum(xp.minimum(moved, xp.maximum(amount, floor)), floor)

    polished = iterate(POLISH, newton, xp.maximum(start * need, floor + 0.0 * amount))
    bent = xp.where(active, polished, 0.0 * polished)
    return xp.where(hits > 0, straight, bent)


def _lookup(xp: Any, table: Array, weight: Array, total: Array) -> Array:
    """Demand per PRB of need at the price where the weighted demands sum to ``total``, interpolated, (B, Z, N)."""
    sums = xp.sum(weight[..., None] * table[:, None, :, :], axis=2)
    below = xp.sum(xp.where(sums <= total[:, :, None], xp.ones_like(sums), xp.zeros_like(sums)), axis=2)
    index = as_index(xp, xp.clip(below - 1.0, 0.0, NODES - 2.0))[:, :, None]
    left = xp.take_along_axis(sums, index, axis=2)
    right = xp.take_along_axis(sums, index + 1, axis=2)
    span = right - left
    part = xp.clip((total[:, :, None] - left) / xp.where(span > 0, span, xp.ones_like(span)), 0.0, 1.0)
    shape = (*sums.shape[:2], *table.shape[1:])
    wide = xp.broadcast_to(table[:, None, :, :], shape)
    pick = xp.broadcast_to(index[:, :, None, :], (*shape[:3], 1))
    low = xp.take_along_axis(wide, pick, axis=3)[..., 0]
    high = xp.take_along_axis(wide, pick + 1, axis=3)[..., 0]
    return low + (high - low) * part


def worth(xp: Any, ready: Prepared, need: Array, member: Array, held: Array) -> Array:
    """Value of every tenant's PRBs in its coalition, $, (B, Z, N); 0 outside."""
    curves = Curves(*(f[:, None, :] for f in curves_of(xp, ready, need)))
    return xp.where(member, value(xp, curves, held), 0.0 * held)


def coalitions(xp: Any, labels: Array) -> Array:
    """Members of the coalition in every slot, bool (., N, N); a coalition's slot is its smallest member's index."""
    same = labels[:, :, None] == labels[:, None, :]
    count = labels.shape[1]
    order = xp.arange(count, device=_device(labels))
    earlier = same & (order[None, :] < order[:, None])[None, ...]
    leads = ~xp.any(earlier, axis=2)
    return same & leads[:, :, None]


def ranks(xp: Any, member: Array, reputation: Array) -> tuple[Array, Array, Array]:
    """How sellers rank the coalitions.

    Args:
        xp: array namespace.
        member: bool (., N, N) by slot.
        reputation: (., N).

    Returns:
        Rank of every slot (0 is chosen first; N for an empty slot), total reputation and size, each (., N).
    """
    zero = 0.0 * reputation[:, None, :]
    total = xp.sum(xp.where(member, reputation[:, None, :], zero), axis=2)
    size = xp.sum(xp.where(member, 1.0 + zero, zero), axis=2)
    filled = size > 0
    count = reputation.shape[1]
    order = xp.arange(count, device=_device(reputation))
    ahead = (order[None, :] < order[:, None])[None, ...]
    gap = total[:, None, :] - total[:, :, None]  # [slot, rival]
    bigger = size[:, None, :] - size[:, :, None]
    tie = xp.abs(gap) <= 1e-12
    beats = (~tie & (gap > 0)) | (tie & ((bigger > 0) | ((bigger == 0) & ahead)))
    beaten = xp.where(beats & filled[:, None, :], 1.0 + 0.0 * gap, 0.0 * gap)
    rank = xp.sum(beaten, axis=2)
    return xp.where(filled, rank, count + 0.0 * rank), total, size


def purchases(xp: Any, demand: Array, price: Array, capacity: Array) -> Array:
    """Exact follower: PRBs bought from every seller at posted prices, cheapest first, ties by capacity, (B, M)."""
    rival, mine = price[:, None, :], price[:, :, None]
    held = capacity[:, None, :] + 0.0 * mine
    cheaper = xp.sum(xp.where(rival < mine, held, 0.0 * held), axis=2)
    tied = xp.sum(xp.where(rival == mine, held, 0.0 * held), axis=2)
    return xp.minimum(xp.maximum(demand - cheaper, 0.0 * tied), tied) * capacity / tied
