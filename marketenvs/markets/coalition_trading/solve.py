"""Equilibrium, responses, optimum and prepared tables of the coalition-trading market."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidAction, NotOffered
from ...solution.gains import certified, payoff_scale
from ...strategy import Equilibrium, Pure, Reply, SocialOptimum
from . import bargaining, literal
from . import coalitions as co
from .price_stage import PriceStage, solve_prices
from .settlement import as_index
from .values import Curves, coalition_value, demand_each, split, unit_tables, value
from .view import View, fill, follow, requests, tenants, units_of, view

if TYPE_CHECKING:
    from ...market import State
    from .rules import CoalitionTrading

Array = Any
Floats = NDArray[Any]  # float64 unless said otherwise
CITATION = (
    "marketenvs docs, coalition trading (Bertrand-Edgeworth with jumps; Kreps-Scheinkman 1983, Levitan-Shubik 1972)"
)


# ------------------------------------------------------------ prepared at reset


def with_tables(market: CoalitionTrading, theta: Any) -> Any:
    """``theta`` with integer value tables and Shapley shares, where the options need them (NumPy, once per reset)."""
    p, real, number = market.params, market.backend.asarray, market.backend.numpy
    try:
        need_unit, rate = number(theta.need_unit), number(theta.prb_rate)
    except TypeError as error:  # a tracer of JAX: drawn parameters inside jit
        raise NotOffered(
            "integer_prbs, sharing='shapley' and price_formation='bargain' solve their tables with NumPy at reset: with "
            "drawn parameters call reset outside jax.jit"
        ) from error
    need = need_unit / np.where(rate > 0, rate, 1.0)
    ready = type(theta.ready)(*(number(f) for f in theta.ready))
    scale = ready.price_scale * (rate > 0)
    shape = np.broadcast_shapes(scale.shape, need.shape)
    fields = (scale * need, need, ready.steepness, ready.load, ready.delay, ready.choke, ready.hold * need)
    curves = Curves(*(np.broadcast_to(f, shape) for f in fields))
    members = co.members_of(p.n_buyers)
    if p.integer_prbs:
        most = int(np.round(number(theta.room).sum(axis=1).max()))
        listed = [
            [unit_tables(Curves(*(f[r] for f in curves)), m, most, raw=not p.convexify) for m in members]
            for r in range(shape[0])
        ]
        tables = np.array([[t for t, _ in row] for row in listed])
        holdings = np.array([[h for _, h in row] for row in listed])
        theta = theta._replace(tables=real(tables), allocations=real(holdings))
    if p.price_formation == "bargain":
        boxes = [number(x) for x in (theta.room, theta.lease_price, theta.price_min, theta.price_max)]
        rows = max(shape[0], *(x.shape[0] for x in boxes))
        room, cost, low, high = (np.broadcast_to(x, (rows, x.shape[1])) for x in boxes)
        wide = Curves(*(np.broadcast_to(f, (rows, shape[1])) for f in curves))
        found = bargaining.bargains(wide, room, cost, low[:, 0], high[:, 0])
        theta = theta._replace(bargains=bargaining.Bargains(*(real(x) for x in found)))
    if p.sharing == "shapley":
        surplus = _surplus(
            market, curves, *(number(x) for x in (theta.room, theta.lease_price, theta.price_min, theta.price_max))
        )
        reputation = np.broadcast_to(number(theta.reputation), (surplus.shape[0], p.n_buyers))
        worth = co.characteristic(
            surplus, reputation, np.broadcast_to(number(theta.signalling)[:, 0], surplus.shape[:1])
        )
        # Rounded, so that a market's shares do not depend on its neighbours in the batch by a last bit.
        theta = theta._replace(shapley=real(np.round(co.shapley_shares(worth), 12)))
    return theta


def _surplus(market: CoalitionTrading, curves: Curves, room: Floats, cost: Floats, low: Floats, high: Floats) -> Floats:
    """Expected surplus of every coalition, (R, 2^N), for identical sellers."""
    if not (np.all(room == room[:, :1]) and np.all(cost == cost[:, :1])):
        raise NotOffered("the coalition stage is solved for identical sellers: equal capacities and lease prices")
    rows = max(curves.need.shape[0], room.shape[0], cost.shape[0], low.shape[0], high.shape[0])
    wide = Curves(*(np.broadcast_to(f, (rows, f.shape[1])) for f in curves))
    scalars = (np.broadcast_to(x[:, 0], (rows,)) for x in (room, cost, low, high))
    return co.coalition_surplus(wide, market.params.n_sellers, *scalars)[0]


def tabled_split(market: CoalitionTrading, theta: Any, served: Array, total: Array) -> tuple[Array, Array]:
    """Whole-PRB split and values from the prepared tables: held and worth, (B, Z, N) each (worth on the first member)."""
    xp, n = market.xp, market.params.n_buyers
    bits = market.backend.asarray([[[float(1 << i) for i in range(n)]]])
    zero = 0.0 * total
    code = xp.sum(xp.where(served, bits, 0.0 * bits), axis=2) + zero  # (B, Z)
    width = theta.tables.shape[2]
    index = as_index(xp, xp.round(code * width + total))
    batch = total.shape[0]
    flat = xp.broadcast_to(
        xp.reshape(theta.tables, (theta.tables.shape[0], -1)), (batch, theta.tables.shape[1] * width)
    )
    worth = xp.take_along_axis(flat, index, axis=1)
    held = []
    for i in range(n):
        column = xp.reshape(theta.allocations[:, :, :, i], (theta.tables.shape[0], -1))
        held.append(xp.take_along_axis(xp.broadcast_to(column, flat.shape), index, axis=1))
    holdings = xp.stack(held, axis=2)
    amount = xp.sum(holdings, axis=2, keepdims=True)
    part = xp.where(amount > 0, holdings / xp.where(amount > 0, amount, 1.0 + 0.0 * amount), 0.0 * holdings)
    return holdings, part * worth[:, :, None]


def tabled_shares(market: CoalitionTrading, theta: Any, slots: Array) -> Array:
    """Prepared Shapley share of every buyer in its own coalition, (., N)."""
    xp, n = market.xp, market.params.n_buyers
    bits = market.backend.asarray([[[float(1 << i) for i in range(n)]]])
    own = xp.any(slots[:, :, :, None] & slots[:, :, None, :], axis=1)
    code = as_index(xp, xp.sum(xp.where(own, bits, 0.0 * bits), axis=2))  # (., N)
    rows = max(code.shape[0], theta.shapley.shape[0])
    code = xp.broadcast_to(code, (rows, n))
    table = xp.broadcast_to(theta.shapley, (rows, *theta.shapley.shape[1:]))
    return xp.stack([xp.take_along_axis(table[:, :, i], code[:, i : i + 1], axis=1)[:, 0] for i in range(n)], axis=1)


def by_slot(xp: Any, deal: Any, total: Array) -> Array:
    """PRBs traded by coalition slot, (B, N)."""
    amount = xp.sum(deal.bought, axis=2)
    if amount.shape[1] > 1:
        return amount
    first = xp.astype(deal.rank == 0, amount.dtype)
    return first * total[:, None]


# ------------------------------------------------------------ coalition stage


def coalition_stage(market: CoalitionTrading, state: State) -> tuple[co.CoalitionStage, Floats, Floats, Floats]:
    """Payoffs and stability of every partition, with surpluses (R, 2^N), reputations (R, N) and signalling (R,)."""
    if market.params.selection != "winner" or market.params.model == "paper":
        raise NotOffered("the coalition stage is solved for selection='winner' in the corrected model")
    theta = market.theta64(state)
    curves, reputation = tenants(market, state)
    boxes = (theta.room, theta.lease_price, theta.price_min, theta.price_max)
    surplus = _surplus(market, curves, *boxes)
    rows = max(surplus.shape[0], reputation.shape[0], theta.signalling.shape[0])
    surplus = np.broadcast_to(surplus, (rows, surplus.shape[1]))
    reputation = np.broadcast_to(reputation, (rows, reputation.shape[1]))
    signalling = np.broadcast_to(theta.signalling[:, 0], (rows,))
    kind = market.params.sharing
    if kind == "shapley":
        shares = np.broadcast_to(theta.shapley, (rows, *theta.shapley.shape[1:]))
    elif kind == "equal":
        shares = co.equal_shares(rows, reputation.shape[1])
    else:
        shares = co.reputation_shares(reputation)
    winnings = None
    if market.params.price_formation == "bargain":
        tables = bargaining.Bargains(*(np.asarray(market.backend.numpy(x)) for x in state.theta.bargains))
        power = np.broadcast_to(theta.bargaining_power[:, 0], (rows,))
        winnings = bargaining.winnings(tables, power, reputation, co.all_partitions(reputation.shape[1]).codes)
    return co.coalition_stage(surplus, reputation, signalling, shares, winnings), surplus, reputation, signalling


def merged_labels(market: CoalitionTrading, state: State) -> Floats:
    """Labels (B, N) at which merging from singletons stops."""
    stage, *_ = coalition_stage(market, state)
    labels = stage.partitions.labels[stage.merged].astype(float)
    return np.broadcast_to(labels, (state.history.price.shape[0], labels.shape[1]))


def partition_index(labels: Floats) -> NDArray[np.int64]:
    """Index of each labelling (K, N) in `coalitions.all_partitions`."""
    n = labels.shape[1]
    parts = co.all_partitions(n)
    same = labels[:, :, None] == labels[:, None, :]
    codes = np.sum(same * (1 << np.arange(n)), axis=2)
    base = (1 << n) ** np.arange(n)
    known = parts.codes @ base
    order = np.argsort(known)
    return order[np.searchsorted(known[order], codes @ base)]


# ------------------------------------------------------------ equilibria


class FollowerReply(Reply):
    """The exact follower: every coalition's best purchases at whatever prices are posted."""


def spread(array: Floats, batch: int) -> Floats:
    """One shared row repeated for all B markets."""
    return np.broadcast_to(array, (batch, *array.shape[1:])).copy() if array.shape[0] == 1 else array


def buyer_payoffs(market: CoalitionTrading, state: State, v: View, stage: PriceStage) -> Floats:
    """Expected payoffs of all buyers, (R, N)."""
    size = v.slots.sum(axis=2)
    own = np.sum(v.slots * size[:, :, None], axis=1)
    cost = co.signalling_cost(own, v.signalling[:, None])
    gross = np.sum(v.served * stage.gross[:, :, None], axis=1)
    kind = market.params.sharing
    if kind == "own":
        return _own_payoffs(market, v, stage, cost / own)
    if kind == "shapley":
        table = market.backend.numpy(state.theta.shapley)
        code = np.sum(
            np.any(v.slots[:, :, :, None] & v.slots[:, :, None, :], axis=1) * (1 << np.arange(own.shape[1])), axis=2
        )
        table = np.broadcast_to(table, (v.rows, *table.shape[1:]))
        share = table[np.arange(v.rows)[:, None], code, np.arange(own.shape[1])]
    else:
        weight = v.reputation if kind == "reputation" else np.ones_like(v.reputation)
        inside = v.slots * weight[:, None, :]
        total = inside.sum(axis=2, keepdims=True)
        share = np.sum(inside / np.where(total > 0, total, 1.0), axis=1)
    return share * (gross - cost)


def _own_payoffs(market: CoalitionTrading, v: View, stage: PriceStage, cost: Floats) -> Floats:
    """Own value less own bill, averaged over quantiles of the prices where they are mixed."""
    n = 1 if stage.prices is not None else 256
    rng = np.random.default_rng(0)
    sellers = v.room.shape[1]
    u = np.stack([rng.permutation((np.arange(n) + 0.5) / n) for _ in range(sellers)], axis=1)
    joint = np.stack([stage.strategy.draw(np.broadcast_to(x, (v.rows, sellers)))[:, :, 0] for x in u], axis=1)
    bought = follow(market, v, joint, None)  # (R, n, Z, M)
    curves = Curves(*(f[:, None, None, :] for f in v.curves))
    total = bought.sum(axis=3)
    held, _ = split(curves, v.served[:, None], total)
    mean = np.sum(bought * joint[:, :, None, :], axis=3) / np.where(total > 0, total, 1.0)
    net = np.where(v.served[:, None], value(np, curves, held) - held * mean[..., None], 0.0)
    return net.sum(axis=2).mean(axis=1) - cost


def answer_prices(market: CoalitionTrading, state: State, v: View) -> PriceStage:
    """The sellers' stage at the view's coalitions."""
    return solve_prices(market, v, units_of(market, state, v))


def answer_purchases(market: CoalitionTrading, state: State) -> Pure:
    """The followers' exact answer to the prices committed in ``state``, (B, N, k)."""
    if market.params.model == "paper":
        return literal.answer(market, state)
    v = view(market, state)
    price = market.backend.numpy(state.decisions["pricing"])[:, :, 0]
    bought = follow(market, v, price[:, None, :], units_of(market, state, v))[:, 0]
    return Pure(requests(market, state, v, bought))


def remember(market: CoalitionTrading, state: State, name: str, solve: Any) -> Any:
    """Solutions are remembered for as long as the state's parameters stay the same objects and the coalitions the same."""
    key: tuple[Any, ...] = (state.theta, state.history.rate, state.history.labels)
    key = (*key, state.round if market.params.channel == "trace" else None)
    labels = state.decisions.get("coalition")
    labels = None if labels is None else market.backend.numpy(labels)
    known = market.__dict__.setdefault("_solved", {}).get(name)
    same = known is not None and all(a is b for a, b in zip(known[0], key, strict=True))
    if same and (known[1] is None) == (labels is None) and (labels is None or np.array_equal(known[1], labels)):
        return known[2]
    known = market._solved[name] = (key, labels, solve())  # type: ignore[attr-defined]
    return known[2]


def equilibrium(market: CoalitionTrading, state: State) -> Equilibrium:
    """Equilibrium of all stages, with its certificate."""
    if market.params.model == "paper":
        return literal.equilibrium(market, state)
    if market.params.price_formation == "bargain":
        return bargaining.equilibrium(market, state)
    if market.params.formation != "labels":
        return later_stages(market, state)
    batch, n = market.batch(state), market.params.n_buyers
    named, _, gain, stable = chosen_partition(market, state)
    labels = spread(named, batch)[:, :, None]
    here = market.commit(state, "coalition", market.check_decisions(state, "coalition", labels))
    later = later_stages(market, here)
    exists = spread(stable, batch)
    epsilon = np.maximum(later.epsilon, spread(gain, batch))
    ok = certified(later.kind, epsilon, payoff_scale(later.values)) & exists & later.certified

    def prices(at: State) -> Any:
        return later_stages(market, at).strategy["pricing"]

    strategy = {
        "coalition": Pure(labels),
        "pricing": Reply(prices),
        "purchase": FollowerReply(lambda at: answer_purchases(market, at)),
    }
    path = {
        "coalition": labels,
        "pricing": later.on_path._items.get("pricing"),
        "purchase": later.on_path._items.get("purchase"),
    }
    return Equilibrium(
        market.by_stage(strategy),
        later.values,
        epsilon,
        ok,
        later.kind,
        f"all partitions, 2^{n} - 1 price games; {later.method}",
        CITATION,
        exists,
        "Nash-stable partition with the largest joint payoff of the buyers",
        on_path=market.by_stage(path),
    )


def chosen_partition(market: CoalitionTrading, state: State) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """Labels (R, N) of the partition taken for the equilibrium, payoffs (R, N), gain left (R,) and whether it is stable (R,).

    Nash-stable where there is one (the largest joint payoff of the buyers), else the least gain from moving.
    """
    stage, *_ = remember(market, state, "coalition", lambda: coalition_stage(market, state))
    rows = np.arange(len(stage.payoff))
    own = np.einsum("rpiji->rpij", stage.payoff[:, stage.partitions.moves])
    gain = np.maximum(own.max(axis=3) - stage.payoff, 0.0).max(axis=2)
    joint = np.where(stage.nash, stage.payoff.sum(axis=2), -np.inf)
    stable = stage.nash.any(axis=1)
    chosen = np.where(stable, np.argmax(joint, axis=1), np.argmin(gain, axis=1))
    return stage.partitions.labels[chosen].astype(float), stage.payoff[rows, chosen], gain[rows, chosen], stable


def later_stages(market: CoalitionTrading, state: State) -> Equilibrium:
    """Prices and purchases at the state's coalitions."""
    batch = market.batch(state)

    def solved() -> tuple[View, PriceStage, Floats]:
        v = view(market, state)
        stage = answer_prices(market, state, v)
        return v, stage, buyer_payoffs(market, state, v, stage)

    _, stage, buyers = remember(market, state, "prices", solved)
    values = {"seller": spread(stage.profit, batch), "buyer": spread(buyers, batch)}
    epsilon = spread(stage.epsilon, batch)
    path: dict[str, Any] = {"pricing": None, "purchase": None}
    if stage.prices is not None:
        prices = spread(stage.prices, batch)[:, :, None]
        here = market.commit(state, "pricing", market.check_decisions(state, "pricing", prices))
        path = {"pricing": prices, "purchase": answer_purchases(market, here).decisions}
    reply = FollowerReply(lambda at: answer_purchases(market, at))
    strategy = Pure(path["pricing"]) if stage.prices is not None else stage.strategy
    return Equilibrium(
        market.by_stage({"pricing": strategy, "purchase": reply}),
        values,
        epsilon,
        certified(stage.kind, epsilon, payoff_scale(values)),
        stage.kind,
        f"{stage.method}; followers exact",
        CITATION,
        np.ones(batch, dtype=bool),
        "symmetric where sellers are alike; uniqueness is not claimed",
        on_path=market.by_stage(path),
    )


def respond(market: CoalitionTrading, state: State, prefix: Mapping[str, Any]) -> Equilibrium:
    """The later stages' equilibrium, given labels (then prices and purchases) or prices (then purchases)."""
    named = market.check_profile(state, prefix, partial=True)
    here = state
    for name in (s.name for s in market.stages):
        if name in named:
            here = market.commit(here, name, named[name])
    if "pricing" not in named:
        if market.params.formation == "labels" and "coalition" not in named:
            raise InvalidAction("respond needs the decisions of an earlier stage: coalition, or pricing with it")
        return literal.equilibrium(market, here) if market.params.model == "paper" else later_stages(market, here)
    if market.params.formation == "labels" and "coalition" not in here.decisions:
        raise InvalidAction("respond to prices needs the coalitions too: give stage 'coalition'")
    batch = market.batch(state)
    decisions = answer_purchases(market, here).decisions
    done = market.commit(here, "purchase", market.check_decisions(here, "purchase", decisions))
    values = {role: market.backend.numpy(x) for role, x in market.expected(done, done.decisions).items()}
    return Equilibrium(
        market.by_stage({"purchase": Pure(decisions)}),
        values,
        np.zeros(batch),
        np.ones(batch, dtype=bool),
        "exact",
        "exact follower: value curves, cheapest first",
        CITATION,
        np.ones(batch, dtype=bool),
        "a coalition indifferent at a choke price buys",
        on_path=market.by_stage({"purchase": decisions}),
    )


def optimum(market: CoalitionTrading, state: State) -> SocialOptimum:
    """max_W V(W) - c W over all buyers in one coalition, cheapest sellers first; signalling costs are left out."""
    if market.params.model == "paper":
        return literal.optimum(market, state)
    batch = market.batch(state)
    v = view(market, state, {"coalition": market.xp.zeros((batch, market.params.n_buyers, 1))})
    everyone = np.ones_like(v.served[:, 0])
    curves = Curves(*(f[:, None, :] for f in v.curves))
    # Buying at cost is the welfare problem: each seller's cost is its price.
    cost = np.maximum(v.cost, 1e-12)
    demand = demand_each(curves, cost[:, :, None]).sum(axis=2)
    bought = fill(demand, cost, v.room)
    best = coalition_value(v.curves, everyone, bought.sum(axis=1)) - np.sum(v.cost * bought, axis=1)
    extra = {"quantity": spread(bought.sum(axis=1), batch), "sold": spread(bought, batch)}
    return SocialOptimum(spread(best, batch), None, "exact", "demand of all buyers at the sellers' costs", extra)
