"""The paper's model as printed (``model="paper"``): linear, non-rival, with signalling cost c_s |z|^2.

Equations (7), (8): U_m = (delta_m - delta_i) w_m and U_z = sum_m (Omega_z - delta_m) w_m - c_s |z|^2, where every member is
credited with all of the coalition's PRBs (v(z) = sum_n Omega_n w_z). The follower is therefore bang-bang: everything at
prices up to Omega_z, nothing above. ``reward_lag`` pays sellers for last round's purchase (F9), ``total_capacity`` reads
A_z as one limit over all sellers. Nothing here is shared with the corrected rules but the winner's choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import NotOffered
from ...market import Outcome
from ...strategy import BestResponse, Equilibrium, Pure, Reply, SocialOptimum

if TYPE_CHECKING:
    from ...market import State
    from .rules import CoalitionTrading

Array = Any
Floats = NDArray[Any]  # float64 unless said otherwise
CITATION = "equations (7), (8) as printed; closed form"


def _trade(market: CoalitionTrading, state: State, decisions: Mapping[str, Array]) -> tuple[Array, Array, Array, Array]:
    """PRBs sold (B, M), sizes of every buyer's coalition, the winner's members and each buyer's coalition reputation."""
    xp, theta = market.xp, state.theta
    slots, _, served = market.standing(state, decisions)
    asked = decisions["purchase"]
    zero = 0.0 * asked
    sold = xp.minimum(xp.sum(xp.where(served[:, 0, :, None], asked, zero), axis=1), theta.room)
    if market.params.total_capacity:
        total = xp.sum(sold, axis=1, keepdims=True)
        cut = theta.room[:, :1] / xp.where(total > 0, total, 1.0 + 0.0 * total)
        sold = sold * xp.minimum(cut, 1.0 + 0.0 * cut)
    weight = xp.where(slots, theta.reputation[:, None, :], 0.0 * theta.reputation[:, None, :])
    omega = xp.sum(weight, axis=2, keepdims=True)
    inside = xp.astype(slots, asked.dtype)
    size = xp.sum(inside * xp.sum(inside, axis=2, keepdims=True), axis=1)
    return sold, size, xp.astype(served[:, 0, :], asked.dtype), xp.sum(inside * omega, axis=1)


def payoffs(market: CoalitionTrading, state: State, decisions: Mapping[str, Array]) -> dict[str, Array]:
    """Payoffs of sellers (B, M) and buyers (B, N): coalition utility split by reputation."""
    xp, theta, price = market.xp, state.theta, decisions["pricing"][:, :, 0]
    sold, size, inside, omega = _trade(market, state, decisions)
    paid_for = state.history.sold if market.params.reward_lag else sold
    traded = xp.sum(sold, axis=1, keepdims=True)
    utility = inside * (omega * traded - xp.sum(price * sold, axis=1, keepdims=True)) - theta.signalling * size * size
    return {"seller": (price - theta.lease_price) * paid_for, "buyer": theta.reputation / omega * utility}


def settle(market: CoalitionTrading, state: State, decisions: Mapping[str, Array]) -> Outcome:
    """Outcome with the same metrics as the corrected model, where they mean anything (satisfaction does not)."""
    xp, theta, price = market.xp, state.theta, decisions["pricing"][:, :, 0]
    pay = payoffs(market, state, decisions)
    sold, size, inside, _ = _trade(market, state, decisions)
    _, rank, served = market.standing(state, decisions)
    total = xp.sum(sold, axis=1)
    first = xp.astype(rank == 0, price.dtype)
    asked = xp.sum(xp.where(served[:, 0, :, None], decisions["purchase"], 0.0 * decisions["purchase"]), axis=1)
    bill = xp.sum(price * sold, axis=1)
    over = xp.where(asked > theta.room, 1.0 + 0.0 * asked, 0.0 * asked)
    metrics = {
        "price": price,
        "mean_price": xp.where(total > 0, bill / xp.where(total > 0, total, 1.0 + 0.0 * total), xp.mean(price, axis=1)),
        "sold": sold,
        "quantity": total,
        "held": inside * total[:, None],
        "winner": xp.astype(xp.argmin(rank, axis=1), price.dtype) + 0.0 * total,
        "coalition_size": xp.max(inside * size, axis=1) + 0.0 * total,
        "rationed": xp.sum(over, axis=1),
        "welfare": xp.sum(pay["seller"], axis=1) + xp.sum(pay["buyer"], axis=1),
        "traded": first * total[:, None],
    }
    return Outcome(pay, metrics)


# ------------------------------------------------------------ closed-form solutions


def _numbers(market: CoalitionTrading, state: State, decisions: Any = None) -> tuple[Floats, ...]:
    """Omega of the winner (R,), its members (R, N), reputations, room (R, M), cost (R, M), box (R,), all NumPy."""
    theta = market.theta64(state)
    _, _, served = market.standing(state, state.decisions if decisions is None else decisions)
    inside = np.asarray(market.backend.numpy(served))[:, 0] > 0
    omega = np.sum(inside * theta.reputation, axis=1)
    rows = max(x.shape[0] for x in (omega, theta.room, theta.lease_price, theta.price_min, theta.price_max))

    def wide(x: Floats) -> Floats:
        return np.broadcast_to(x, (rows, *x.shape[1:]))

    low, high = wide(theta.price_min)[:, 0], wide(theta.price_max)[:, 0]
    return wide(omega), wide(inside * theta.reputation), wide(theta.room), wide(theta.lease_price), low, high


def follow(market: CoalitionTrading, omega: Floats, room: Floats, price: Floats) -> Floats:
    """Bang-bang purchases (B, M): everything at prices up to Omega_z; with one limit, from the cheapest (ties equally)."""
    wanted = price <= omega[:, None] + 1e-12
    if not market.params.total_capacity:
        return np.where(wanted, room, 0.0)
    cheapest = wanted & (price <= price.min(axis=1, keepdims=True))
    count = cheapest.sum(axis=1, keepdims=True)
    return np.where(cheapest, room[:, :1] / np.maximum(count, 1), 0.0)


def answer(market: CoalitionTrading, state: State) -> Pure:
    """Members' requests at the committed prices, in proportion to reputation, (B, N, M)."""
    omega, weight, room, *_ = _numbers(market, state)
    price = market.backend.numpy(state.decisions["pricing"])[:, :, 0]
    bought = follow(market, omega, np.broadcast_to(room, price.shape), price)
    return Pure((weight / omega[:, None])[:, :, None] * bought[:, None, :])


def _levels(market: CoalitionTrading, low: Floats, high: Floats) -> Floats | None:
    count = market.params.price_levels
    return None if count is None else low[:, None] + (high - low)[:, None] * np.arange(count) / (count - 1)


def equilibrium_prices(market: CoalitionTrading, state: State) -> Floats:
    """Prices (R, M): min(delta_max, Omega_z) (the largest level up to it), or delta_min under one purchase limit (M > 1)."""
    omega, _, room, _, low, high = _numbers(market, state)
    levels = _levels(market, low, high)
    if market.params.reward_lag:
        price = high
    elif market.params.total_capacity and room.shape[1] > 1:
        price = low
    elif levels is None:
        price = np.clip(omega, low, high)
    else:
        price = np.max(np.where(levels <= omega[:, None] + 1e-12, levels, low[:, None]), axis=1)
    return np.repeat(price[:, None], room.shape[1], axis=1)


def equilibrium(market: CoalitionTrading, state: State) -> Equilibrium:
    """Closed-form equilibrium of the printed game (one round; exact)."""
    batch = market.batch(state)
    if market.params.formation == "labels" and "coalition" not in state.decisions:
        n = market.params.n_buyers  # v(z) always grows with members: everybody joins (F8)
        labels = market.check_decisions(state, "coalition", np.zeros((batch, n, 1)))
        inner = equilibrium(market, market.commit(state, "coalition", labels))
        grand = {"coalition": market.backend.numpy(labels), **dict(inner.on_path)}
        strategy = {"coalition": Pure(grand["coalition"]), **dict(inner.strategy)}
        return Equilibrium(
            market.by_stage(strategy), inner.values, inner.epsilon, np.zeros(batch, bool), "estimate",
            "grand coalition assumed; prices and purchases in closed form", CITATION, inner.exists,
            on_path=market.by_stage(grand),
        )  # fmt: skip
    price = equilibrium_prices(market, state)
    price = np.broadcast_to(price, (batch, price.shape[1]))[:, :, None]
    here = market.commit(state, "pricing", market.check_decisions(state, "pricing", price))
    asked = answer(market, here).decisions
    done = market.commit(here, "purchase", market.check_decisions(here, "purchase", asked))
    values = {role: market.backend.numpy(x) for role, x in payoffs(market, done, done.decisions).items()}
    path = {"pricing": price, "purchase": asked}
    return Equilibrium(
        market.by_stage({"pricing": Pure(price), "purchase": Reply(lambda s: answer(market, s))}),
        values,
        np.zeros(batch),
        np.ones(batch, dtype=bool),
        "exact",
        "bang-bang closed form of the printed model",
        CITATION,
        np.ones(batch, dtype=bool),
        on_path=market.by_stage(path),
    )


def optimum(market: CoalitionTrading, state: State) -> SocialOptimum:
    """Everything sold while Omega of the served coalition exceeds the cost; signalling costs are left out.

    Raises:
        NotOffered: with ``reward_lag`` money is not conserved and welfare has no optimum of one round.
    """
    if market.params.reward_lag:
        raise NotOffered("the lagged reward of the printed model does not conserve money: it has no social optimum")
    batch, n = market.batch(state), market.params.n_buyers
    theta = market.theta64(state)
    omega = np.broadcast_to(theta.reputation, (theta.reputation.shape[0], n)).sum(axis=1)  # at best everybody is served
    margin = np.maximum(omega[:, None] - theta.lease_price, 0.0)
    if market.params.total_capacity:
        value = margin.max(axis=1) * theta.room[:, 0]
    else:
        value = np.sum(margin * theta.room, axis=1)
    return SocialOptimum(
        np.broadcast_to(value, (batch,)).copy(), None, "exact", "all members served; linear in the PRBs"
    )


def best_reply(market: CoalitionTrading, state: State, stage: str, decisions: Mapping[str, Floats]) -> BestResponse:
    """Exact deviations: sellers over the closed candidate set, the coalition jointly (gain split by reputation)."""
    batch = market.batch(state)
    omega, weight, room, cost, low, high = (
        np.broadcast_to(x, (batch, *x.shape[1:])) for x in _numbers(market, state, decisions)
    )
    price = decisions["pricing"][:, :, 0]
    if stage == "pricing":
        levels = _levels(market, low, high)
        tied = np.clip(np.concatenate([omega[:, None], price, price - 1e-9], axis=1), low[:, None], high[:, None])
        trial = np.concatenate([low[:, None], high[:, None], tied], axis=1) if levels is None else levels
        lag = market.backend.numpy(state.history.sold) if market.params.reward_lag else None

        def profit(prices: Floats, m: int) -> Floats:
            sold = follow(market, omega, room, prices)[:, m] if lag is None else lag[:, m]
            return (prices[:, m] - cost[:, m]) * sold

        best, values, gains = np.empty(price.shape), np.empty(price.shape), np.empty(price.shape)
        for m in range(price.shape[1]):
            worth = []
            for k in range(trial.shape[1]):
                moved = price.copy()
                moved[:, m] = trial[:, k]
                worth.append(profit(moved, m))
            table, played = np.stack(worth, axis=1), profit(price, m)
            top = np.argmax(table, axis=1)
            best[:, m] = trial[np.arange(batch), top]
            gains[:, m] = np.maximum(table.max(axis=1) - played, 0.0)
            values[:, m] = played + gains[:, m]
        return BestResponse(
            best[:, :, None], values, gains, gains, "exact", "closed candidate set of the printed model"
        )
    asked = decisions["purchase"]
    inside = weight > 0
    sold = np.minimum(np.sum(np.where(inside[:, :, None], asked, 0.0), axis=1), room)
    if market.params.total_capacity:
        total = sold.sum(axis=1, keepdims=True)
        sold = sold * np.minimum(1.0, room[:, :1] / np.where(total > 0, total, 1.0))
    best_sold = follow(market, omega, room, price)
    net = [np.sum((omega[:, None] - price) * x, axis=1) for x in (best_sold, sold)]
    gains = (weight / omega[:, None]) * np.maximum(net[0] - net[1], 0.0)[:, None]
    named = {name: market.backend.asarray(x) for name, x in decisions.items()}
    played = market.backend.numpy(payoffs(market, state, named)["buyer"])
    asked_best = (weight / omega[:, None])[:, :, None] * best_sold[:, None, :]
    return BestResponse(asked_best, played + gains, gains, gains, "exact", "bang-bang coalition response")
