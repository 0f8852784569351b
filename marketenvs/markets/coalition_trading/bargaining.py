"""Bargained prices (``price_formation="bargain"``): coalition and sellers split the surplus instead of posting prices.

The served coalition z and the sellers trade W = argmax V_z(W) - c W, and share the surplus S_z = V_z(W) - c W: the sellers
can fall back on d, their posted-price equilibrium profit with the coalition ranked second; the coalition gets
beta (S_z - d), the sellers d + (1 - beta)(S_z - d), each in proportion to its PRBs, at the mean price c + sellers / W. A
coalition worth less than the fallback gets nothing and pays all it is worth. Prices and purchases are results, nobody
decides on them: what is left to play is who joins whom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import NotOffered
from ...strategy import Equilibrium, Pure
from . import coalitions as co
from . import settlement
from .values import Curves, coalition_value, demand_each

if TYPE_CHECKING:
    from ...market import State
    from .rules import CoalitionTrading, Deal

Array = Any
Floats = NDArray[Any]  # float64 unless said otherwise


class Bargains(NamedTuple):
    """What every coalition (by member bits) brings to the table; leading axis 1 or B.

    Attributes:
        surplus: S_z, $, (., 2^N).
        quantity: PRBs W that give it, (., 2^N).
        fallback: the sellers' posted-price profit with the coalition, $, (., 2^N).
    """

    surplus: Array
    quantity: Array
    fallback: Array


def bargains(curves: Curves, room: Floats, cost: Floats, low: Floats, high: Floats) -> Bargains:
    """Tables of all coalitions of R markets with identical sellers.

    Args:
        curves: fields (R, N).
        room: PRBs of each seller, (R, M).
        cost: unit costs, (R, M).
        low: lowest price of the posted market, (R,).
        high: highest price, (R,).

    Raises:
        NotOffered: sellers differ.
    """
    if not (np.all(room == room[:, :1]) and np.all(cost == cost[:, :1])):
        raise NotOffered("price_formation='bargain' needs identical sellers: equal capacities and lease prices")
    rows, n = curves.need.shape
    members = co.members_of(n)
    at_cost = demand_each(curves, np.maximum(cost[:, :1], 1e-12))  # (R, N)
    quantity = np.minimum(np.sum(members * at_cost[:, None, :], axis=2), room.sum(axis=1, keepdims=True))
    wide = Curves(*(f[:, None, :] for f in curves))
    value = coalition_value(wide, np.broadcast_to(members, (rows, *members.shape)), quantity)
    surplus = np.where(members.any(axis=1), value - cost[:, :1] * quantity, 0.0)
    _, games = co.coalition_surplus(curves, room.shape[1], room[:, 0], cost[:, 0], low, high)
    fallback = np.zeros_like(surplus)
    fallback[:, 1:] = room.shape[1] * games.profit.reshape(rows, -1)
    # Rounded, so that a market's table does not depend on its neighbours in the batch by a last bit.
    return Bargains(*(np.round(x, 10) for x in (surplus, np.where(members.any(axis=1), quantity, 0.0), fallback)))


def coalition_gain(power: Any, surplus: Any, fallback: Any, xp: Any = np) -> Any:
    """Beta max(S - d, 0), $."""
    gap = surplus - fallback
    return power * xp.maximum(gap, 0.0 * gap)


def deal(market: CoalitionTrading, state: State, labels: Array) -> tuple[Deal, Array]:
    """The bargained trade and the price (B, M) that all sellers get, in any array library."""
    from .rules import Deal

    xp, theta = market.xp, state.theta
    slots = settlement.coalitions(xp, labels)
    rank, _, _ = settlement.ranks(xp, slots, theta.reputation)
    need, alive = market.needs(state)
    first, second = (_picked(market, slots, rank, place, theta.bargains) for place in (0, 1))
    table = [xp.broadcast_to(x, (first.shape[0], x.shape[1])) for x in theta.bargains]
    surplus, quantity = (xp.take_along_axis(x, first, axis=1) for x in table[:2])
    fallback = xp.take_along_axis(table[2], second, axis=1)
    gross = coalition_gain(theta.bargaining_power, surplus, fallback, xp)
    served = xp.any(slots & (rank == 0)[:, :, None], axis=1)[:, None, :]
    room = theta.room + 0.0 * quantity
    bought = (quantity * room / xp.sum(room, axis=1, keepdims=True))[:, None, :]
    held = settlement.divide(xp, market.backend.iterate, theta.ready, need, served & alive[:, None, :], quantity)
    value = settlement.worth(xp, theta.ready, need, served & alive[:, None, :], held)
    bill = xp.sum(value, axis=2) - gross
    traded = quantity > 0
    mean = xp.where(traded, bill / xp.where(traded, quantity, 1.0 + 0.0 * quantity), theta.price_min + 0.0 * quantity)
    done = Deal(served, slots, rank, bought, bought, xp.sum(held, axis=1), xp.sum(value, axis=1), gross, bill)
    return done, mean + 0.0 * room


def _picked(market: CoalitionTrading, slots: Array, rank: Array, place: int, tables: Bargains) -> Array:
    """Code of the coalition of a rank, (B, 1) indices; 0 where there is none."""
    xp, n = market.xp, market.params.n_buyers
    bits = market.backend.asarray([[float(1 << i) for i in range(n)]])
    member = xp.any(slots & (rank == place)[:, :, None], axis=1)
    code = xp.sum(xp.where(member, bits, 0.0 * bits), axis=1, keepdims=True)
    return settlement.as_index(xp, code + 0.0 * tables.surplus[:, :1])


def winnings(tables: Bargains, power: Floats, reputation: Floats, codes: NDArray[np.int64]) -> Floats:
    """The served coalition's utility before signalling in every partition, (R, P).

    Args:
        tables: NumPy, leading axis 1 or R.
        power: beta, (R,).
        reputation: (R, N).
        codes: coalition code of every buyer in every partition, (P, N).
    """
    winner = co.winning_code(reputation, codes)
    rest = np.where(codes == winner[:, :, None], 0, codes)  # (R, P, N)
    second = np.stack([co.winning_code(reputation[r : r + 1], rest[r])[0] for r in range(len(reputation))])
    rows = np.arange(len(reputation))[:, None]
    surplus, _, fallback = (np.broadcast_to(x, (len(reputation), x.shape[1])) for x in tables)
    return coalition_gain(power[:, None], surplus[rows, winner], fallback[rows, second])


def equilibrium(market: CoalitionTrading, state: State) -> Equilibrium:
    """The coalition stage alone: payoffs of all partitions, the Nash-stable one with the largest joint payoff."""
    from .solve import CITATION, chosen_partition, spread

    batch, n = market.batch(state), market.params.n_buyers
    labels, payoff, gain, exists = chosen_partition(market, state)
    labels, values = spread(labels, batch)[:, :, None], {"buyer": spread(payoff, batch)}
    epsilon, stable = spread(gain, batch), spread(exists, batch)
    return Equilibrium(
        market.by_stage({"coalition": Pure(labels)}),
        values,
        epsilon,
        stable.copy(),
        "exact",
        f"bargained prices; payoffs of all partitions of {n} buyers",
        CITATION,
        stable,
        "Nash-stable partition with the largest joint payoff of the buyers",
        on_path=market.by_stage({"coalition": labels}),
    )
