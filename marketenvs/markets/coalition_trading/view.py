"""From states of the market to plain NumPy float64, and the exact follower in every mode.

Parameters shared by all markets are kept as one row, so that they are solved once and broadcast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .values import Curves, coalition_value, demand_each, split

if TYPE_CHECKING:
    from ...market import State
    from .rules import CoalitionTrading

Floats = NDArray[Any]  # float64 unless said otherwise


class View(NamedTuple):
    """R markets (all B, or one row that all share) as the solvers see them.

    Attributes:
        curves: tenants' value curves, (R, N).
        reputation: (R, N).
        room: PRBs of each seller, (R, M).
        cost: unit costs, (R, M).
        low, high: price box, (R,).
        signalling: $ per ordered pair, (R,).
        slots: members by slot, bool (R, N, N).
        rank: rank by slot, (R, N).
        served: coalitions that may buy, bool (R, Z, N).
    """

    curves: Curves
    reputation: Floats
    room: Floats
    cost: Floats
    low: Floats
    high: Floats
    signalling: Floats
    slots: NDArray[np.bool_]
    rank: Floats
    served: NDArray[np.bool_]

    @property
    def rows(self) -> int:
        """R."""
        return self.low.size

    def take(self, index: Any) -> View:
        """Some of the rows."""
        fields = [f[index] for f in self[1:]]
        return View(Curves(*(f[index] for f in self.curves)), *fields)


def tenants(market: CoalitionTrading, state: State) -> tuple[Curves, Floats]:
    """Value curves (R, N) and reputations (R, N); a tenant whose PRB rate is 0 never buys."""
    theta = market.theta64(state)
    need, alive = (np.asarray(market.backend.numpy(x)) for x in market.needs(state))
    ready = theta.ready
    scale = ready.price_scale * alive
    shape = np.broadcast_shapes(scale.shape, need.shape, ready.steepness.shape)
    fields = (scale * need, need, ready.steepness, ready.load, ready.delay, ready.choke * alive, ready.hold * need)
    return Curves(*(np.broadcast_to(f, shape) for f in fields)), np.broadcast_to(theta.reputation, (shape[0], shape[1]))


def view(market: CoalitionTrading, state: State, decisions: Any = None) -> View:
    """The state's markets; coalitions from ``decisions`` (default: those committed in the state)."""
    theta = market.theta64(state)
    curves, reputation = tenants(market, state)
    if market.params.formation == "labels" and "coalition" not in (decisions or state.decisions):
        standing = [np.zeros((1, market.params.n_buyers, market.params.n_buyers), bool), np.zeros((1, 1))]
        standing = [standing[0], np.zeros((1, market.params.n_buyers)), standing[0][:, :1]]
    else:
        kept = state.decisions if decisions is None else decisions
        standing = [np.asarray(market.backend.numpy(x)) for x in market.standing(state, kept)]
        standing = [standing[0] > 0, standing[1], standing[2] > 0]
    slots, rank, served = standing
    scalars = [x[:, 0] for x in (theta.price_min, theta.price_max, theta.signalling)]
    sellers = market.params.n_sellers
    rows = max(x.shape[0] for x in (curves.need, reputation, theta.room, theta.lease_price, *scalars, slots, rank))

    def wide(x: Floats, *shape: int) -> Floats:
        return np.broadcast_to(x, (rows, *shape))

    n = market.params.n_buyers
    low, high, signalling = (np.ascontiguousarray(wide(x)) for x in scalars)
    return View(
        Curves(*(np.ascontiguousarray(wide(f, n)) for f in curves)),
        wide(reputation, n),
        wide(theta.room, sellers),
        wide(theta.lease_price, sellers),
        low,
        high,
        signalling,
        wide(slots, n, n),
        wide(rank, n),
        wide(served, *served.shape[1:]),
    )


def fill(demand: Floats, price: Floats, room: Floats) -> Floats:
    """Cheapest-first purchases (..., M) at the demand each price would find; ties in proportion to the room left."""
    mine, rival = price[..., :, None], price[..., None, :]
    held = np.broadcast_to(room[..., None, :], np.broadcast_shapes(mine.shape, rival.shape))
    cheaper = np.sum(np.where(rival < mine, held, 0.0), axis=-1)
    tied = np.sum(np.where(rival == mine, held, 0.0), axis=-1)
    return np.clip(demand - cheaper, 0.0, tied) * room / np.where(tied > 0, tied, 1.0)


class Units(NamedTuple):
    """A market that trades in units (whole PRBs, or an amount grid): the served coalition's value table.

    Attributes:
        size: PRBs per unit, (R,).
        table: value of 0, 1, 2, ... units, (R, U + 1).
    """

    size: Floats
    table: Floats


def units_of(market: CoalitionTrading, state: State, v: View) -> Units | None:
    """The units of a grid or whole-PRB market; None where amounts are continuous.

    With an amount grid the unit is the step of the first seller's grid (all sellers have the same where they are alike).
    """
    p = market.params
    if p.integer_prbs:
        tables = np.broadcast_to(market.backend.numpy(state.theta.tables), (v.rows, *state.theta.tables.shape[1:]))
        code = np.sum(v.served[:, 0] * (1 << np.arange(p.n_buyers)), axis=1)
        return Units(np.ones(v.rows), tables[np.arange(v.rows), code])
    if p.amount_levels is None or p.selection != "winner":
        return None
    width = v.room.sum(axis=1) if p.purchase_mode == "total" else v.room[:, 0]
    size = width / (p.amount_levels - 1)
    count = int(np.max(np.round(v.room.sum(axis=1) / size)))
    totals = np.arange(count + 1) * size[:, None]
    curves = Curves(*(f[:, None, :] for f in v.curves))
    return Units(size, coalition_value(curves, v.served[:, :1], totals))


def follow(market: CoalitionTrading, v: View, price: Floats, units: Units | None) -> Floats:
    """Exact purchases of every coalition slot at posted prices.

    Args:
        market: the market.
        v: R markets.
        price: (R or B, C, M), C price vectors in every market.
        units: of `units_of`.

    Returns:
        PRBs (B, C, Z, M).
    """
    room = np.broadcast_to(v.room[:, None, :], price.shape)
    if units is not None and market.params.selection == "winner":
        return _follow_units(v, price, room, units)
    curves = Curves(*(f[:, None, None, :] for f in v.curves))
    each = demand_each(curves, price[..., None])  # (B, C, M, N)
    if v.served.shape[1] == 1:
        demand = np.sum(np.where(v.served[:, :1, None, :], each, 0.0), axis=3)
        return fill(demand, price, room)[:, :, None, :]
    # Several coalitions: in the order of their ranks, each from what is left.
    result = np.zeros((*price.shape[:2], v.served.shape[1], price.shape[2]))
    left = room
    for place in range(v.served.shape[1]):
        here = (v.rank == place)[:, :, None] & v.served  # (R, Z, N), at most one slot of each market
        member = here.any(axis=1)
        demand = np.sum(np.where(member[:, None, None, :], each, 0.0), axis=3)
        if market.params.selection == "matching":
            bought = np.where(np.arange(price.shape[2]) == place, np.minimum(demand, left), 0.0)
        else:
            bought = fill(demand, price, left)
        left = left - bought
        result = result + here.any(axis=2)[:, None, :, None] * bought[:, :, None, :]
    return result


def _follow_units(v: View, price: Floats, room: Floats, units: Units) -> Floats:
    """Best whole number of units at posted prices; the largest of several best totals."""
    total = np.arange(units.table.shape[1]) * units.size[:, None]  # (R, U + 1)
    shape = (*price.shape[:2], total.shape[1], price.shape[2])
    wide = [np.broadcast_to(x[..., None, :], shape) for x in (price, room)]
    parts = fill(np.broadcast_to(total[:, None, :, None], shape), *wide)
    feasible = total <= v.room.sum(axis=1)[:, None] + 1e-9
    net = units.table[:, None, :] - np.sum(parts * wide[0], axis=3)
    net = np.where(feasible[:, None, :], np.round(net, 11), -np.inf)
    best = net.shape[2] - 1 - np.argmax(net[:, :, ::-1], axis=2)
    bought = np.take_along_axis(parts, best[:, :, None, None], axis=2)
    # Tied sellers are asked for whole units: an odd one comes from the first of them, as in `requests`.
    size = units.size[:, None, None, None]
    return np.minimum(_apportion(bought / size) * size, room[:, :, None, :])


def requests(market: CoalitionTrading, state: State, v: View, bought: Floats) -> Floats:
    """Requests of every buyer (B, N, k) that add up to the coalitions' purchases (B, Z, M), split as PRBs will be held."""
    p = market.params
    if p.integer_prbs:
        return _whole_requests(market, state, v, bought)
    total = bought.sum(axis=2)
    batch = bought.shape[0]
    curves = Curves(*(np.broadcast_to(f, (batch, p.n_buyers))[:, None, :] for f in v.curves))
    member = np.broadcast_to(v.served, (batch, *v.served.shape[1:]))
    held, _ = split(curves, member, total)
    held = np.where(member, held, 0.0)
    size = held.sum(axis=2, keepdims=True)
    even = member / np.maximum(member.sum(axis=2, keepdims=True), 1)
    part = np.where(size > 0, held / np.where(size > 0, size, 1.0), even)
    if p.purchase_mode == "total":
        return np.sum(part * total[:, :, None], axis=1)[:, :, None]
    asked = np.sum(part[:, :, :, None] * bought[:, :, None, :], axis=1)
    if p.amount_levels is None:
        return asked
    # On an amount grid only whole steps can be asked for: lay members and sellers side by side, unit by unit.
    step = v.room[:, :1, None] / (p.amount_levels - 1)
    whole = _apportion(bought[:, 0, :] / step[:, 0])
    return _overlap(_apportion(part[:, 0] * whole.sum(axis=1, keepdims=True)), whole) * step


def _apportion(exact: Floats) -> Floats:
    """Whole numbers (..., N) nearest to ``exact`` with the same (whole) sum: largest remainders first."""
    low = np.floor(exact + 1e-9)
    missing = np.round(exact.sum(axis=-1) - low.sum(axis=-1)).astype(int)
    order = np.argsort(-np.round(exact - low, 9), axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1, kind="stable")
    return low + (rank < missing[..., None])


def _overlap(members: Floats, sellers: Floats) -> Floats:
    """Whole requests (B, N, M) with the given sums per member (B, N) and per seller (B, M), which agree in total."""
    m_end, s_end = np.cumsum(members, axis=1), np.cumsum(sellers, axis=1)
    end = np.minimum(m_end[:, :, None], s_end[:, None, :])
    start = np.maximum((m_end - members)[:, :, None], (s_end - sellers)[:, None, :])
    return np.maximum(end - start, 0.0)


def _whole_requests(market: CoalitionTrading, state: State, v: View, bought: Floats) -> Floats:
    """Whole requests of an integer market; an odd PRB of tied sellers comes from the first of them."""
    sellers = np.minimum(_apportion(bought[:, 0]), v.room)
    total = np.round(sellers.sum(axis=1)).astype(int)
    tables = market.backend.numpy(state.theta.allocations)
    code = np.sum(v.served[:, 0] * (1 << np.arange(market.params.n_buyers)), axis=1)
    rows = np.arange(bought.shape[0]) if tables.shape[0] > 1 else np.zeros(bought.shape[0], dtype=int)
    held = tables[rows, np.broadcast_to(code, rows.shape), total]
    held = held.copy()
    held[np.arange(len(held)), np.argmax(v.served[:, 0] + 0 * held, axis=1)] += total - held.sum(axis=1)
    return _overlap(held, sellers)
