"""Best replies of sellers and buyers: to pure decisions exactly, to mixtures exactly where they are known in closed form."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from ...errors import NotOffered
from ...strategy import BestResponse, Pure, Samples, Strategy
from . import clearing, logit, sellers, solve

if TYPE_CHECKING:
    from ...market import State
    from .rules import SpectrumBertrand

Floats = NDArray[np.float64]
MOST_BUYERS = 512
"""Exact replies of buyers compare every bid with every other; beyond this they are not offered."""


def best_reply(market: SpectrumBertrand, state: State, stage: str, decisions: Mapping[str, Floats]) -> BestResponse:
    """Each agent's best deviation from pure decisions; buyers re-answer a seller's."""
    if stage == "bidding":
        return _bidding_reply(market, state, decisions)
    if market.params.values == "private":
        from ...solution import search

        return search.best_response(market, state, stage, decisions)
    theta = solve._rows(solve.theta_rows(market, state), market.batch(state))
    best, gain, played, exact = pricing_replies(market, theta, decisions["pricing"])
    upper = gain if exact else np.full_like(gain, np.inf)
    kind = "exact" if exact else "estimate"
    out = np.repeat(best[:, :, None], market.params.price_groups, -1)
    return BestResponse(out, played + gain, gain, upper, kind, "global best response against re-equilibrating buyers")


def pricing_gains(market: SpectrumBertrand, theta: Any, pricing: Floats) -> tuple[Floats, Floats]:
    """Best prices and gains of all sellers, each (rows, N)."""
    best, gain, _, _ = pricing_replies(market, theta, pricing)
    return best, gain


def pricing_replies(market: SpectrumBertrand, theta: Any, pricing: Floats) -> tuple[Floats, Floats, Floats, bool]:
    """Best price, gain and present profit of every seller (rows, N), and whether the search is exact."""
    p = market.params
    low, high = (
        np.broadcast_to(x, pricing.shape[:2]) for x in (theta.price_floor * theta.worth, theta.price_cap * theta.worth)
    )
    if (p.price_levels is not None or p.fidelity == "paper") and p.price_groups == 1:
        return _grid_replies(market, theta, pricing[:, :, 0], low, high)
    if p.matching == "logit":
        game = solve.logit_game(theta)
        price = pricing[:, :, 0]
        played = logit.profits(game, price)
        best = np.clip(logit.best_response(game, price), low, high)  # profits are single-peaked in the own price
        return best, np.maximum(_swap_in(lambda x: logit.profits(game, x), price, best) - played, 0.0), played, True
    if p.matching == "clearing":
        return _clearing_replies(market, theta, pricing[:, :, 0], low, high)
    return _auction_replies(market, theta, pricing, low, high)


def _swap_in(profit: Any, price: Floats, best: Floats) -> Floats:
    """Each seller's profit when it alone plays ``best``."""
    out = np.empty(price.shape)
    for j in range(price.shape[1]):
        changed = price.copy()
        changed[:, j] = best[:, j]
        out[:, j] = profit(changed)[:, j]
    return out


def _grid_replies(
    market: SpectrumBertrand, theta: Any, price: Floats, low: Floats, high: Floats
) -> tuple[Floats, Floats, Floats, bool]:
    levels = int(market.params.price_levels or 101)
    played = solve.table_profit(market, theta, price)
    best, gain = price.copy(), np.zeros(price.shape)
    for j in range(price.shape[1]):
        tried = np.repeat(price[:, None, :], levels, 1)
        tried[:, :, j] = low[:, j, None] + (high - low)[:, j, None] * np.linspace(0.0, 1.0, levels)
        earned = solve.table_profit(market, theta, tried)[..., j]
        top = earned.argmax(-1)
        rows = np.arange(top.size)
        better = earned[rows, top] > played[:, j]
        best[:, j] = np.where(better, tried[rows, top, j], price[:, j])
        gain[:, j] = np.maximum(earned[rows, top] - played[:, j], 0.0)
    return best, gain, played, market.params.fidelity == "corrected"


def _clearing_replies(
    market: SpectrumBertrand, theta: Any, price: Floats, low: Floats, high: Floats
) -> tuple[Floats, Floats, Floats, bool]:
    """Between rivals' prices profit rises with the price (or peaks): the rivals', just below them, the peak, the cap.

    "Just below" is one part in 1e12: the supremum is not attained.
    """
    linear = market.params.demand_curve == "linear"
    n = price.shape[1]
    played = solve.table_profit(market, theta, price)
    best, gain = price.copy(), np.zeros(price.shape)
    for j in range(n):
        rivals = np.delete(price, j, -1)
        points = [
            rivals,
            rivals - 1e-12 * (high[:, :1] - low[:, :1]),
            high[:, :1],
            np.minimum(theta.worth, high[:, :1]),
        ]
        if linear:  # peaks of p (D(p) - served before), and where the own stock just sells
            for before in itertools.product((0, 1), repeat=n - 1):
                ahead = (np.delete(theta.channels, j, -1) * np.array(before)).sum(-1, keepdims=True)
                points += [0.5 * theta.worth * (1.0 - ahead / theta.demand)]
                points += [theta.worth * (1.0 - (ahead + theta.channels[:, [j]]) / theta.demand)]
        tried = np.clip(np.concatenate(points, -1), low[:, j, None], high[:, j, None])
        offers = np.repeat(price[:, None, :], tried.shape[1], 1)
        offers[:, :, j] = tried
        earned = solve.table_profit(market, theta, offers)[..., j]
        top = earned.argmax(-1)
        rows = np.arange(top.size)
        best[:, j] = np.where(earned[rows, top] > played[:, j], tried[rows, top], price[:, j])
        gain[:, j] = np.maximum(earned[rows, top] - played[:, j], 0.0)
    return best, gain, played, True


def _auction_replies(
    market: SpectrumBertrand, theta: Any, pricing: Floats, low: Floats, high: Floats
) -> tuple[Floats, Floats, Floats, bool]:
    """One price per seller is optimal, so a deviator faces its rivals' groups with all its channels at one price."""
    game = solve.game_of(market, theta)
    groups = solve.group_game(market, game)
    rows, n = pricing.shape[:2]
    price = pricing.reshape(rows, -1)[:, market.group_price]
    by_group = sellers.profits(groups, sellers.respond(groups, price))
    owner = market.group_seller
    played = np.stack([by_group[:, owner == j].sum(-1) for j in range(n)], -1)
    best, value = np.zeros((rows, n)), np.zeros((rows, n))
    exact = market.params.matching == "channel"
    for j in range(n):
        others = owner != j
        merged = game._replace(
            cost=np.concatenate([game.cost[:, [j]], groups.cost[:, others]], -1),
            urns=np.concatenate([game.urns[:, [j]], groups.urns[:, others]], -1),
            capacity=np.concatenate([game.capacity[:, [j]], groups.capacity[:, others]], -1),
        )
        rivals = price[:, others]
        start = np.concatenate([rivals[:, :1] if rivals.shape[1] else game.value[:, None], rivals], -1)
        exact = exact and (rivals.shape[1] <= 1 or bool(np.all(rivals == rivals[:, :1])))
        found, earned = sellers.best_response(merged, start, 0)
        kept = np.clip(found, low[:, j], high[:, j])
        moved = kept != found
        if np.any(moved):  # concave in the own mass, so the constrained best is the nearer end
            start[:, 0] = kept
            earned = np.where(moved, sellers.profits(merged, sellers.respond(merged, start))[:, 0], earned)
        best[:, j], value[:, j] = kept, earned
    gain = np.maximum(value - played, 0.0)
    own = pricing.mean(-1)
    return np.where(gain > 0, best, own), gain, played, exact


# -- buyers -----------------------------------------------------------------------------------------------------------


def _bidding_reply(market: SpectrumBertrand, state: State, decisions: Mapping[str, Floats]) -> BestResponse:
    """Exact best replies of all buyers to pure choices and bids, in expectation over landings and ties."""
    p, batch, m = market.params, market.batch(state), market.params.n_buyers
    if m > MOST_BUYERS:
        raise NotOffered(f"exact replies of buyers are offered for up to {MOST_BUYERS} buyers; this market has {m}")
    game = solve.group_game(market, solve.game_of(market, solve.theta_rows(market, state)))
    if game.value.size != batch:
        game = sellers.markets(game, np.zeros(batch, int))
    price = decisions["pricing"].reshape(batch, -1)[:, market.group_price]
    worth = np.broadcast_to(game.value[:, None], (batch, m))
    if p.values == "private":
        worth = worth * market.backend.numpy(state.nature["type"])
    low, top = (market.backend.numpy(x)[..., 1] for x in market.bounds(state, "bidding"))
    groups = price.shape[1]
    choice = np.clip(np.floor(decisions["bidding"][..., 0]), 0, groups).astype(int)
    posted = np.take_along_axis(np.concatenate([price, np.zeros((batch, 1))], 1), choice, 1)
    raw = decisions["bidding"][..., 1]
    ceiling = game.value[:, None]
    bid = np.clip(posted + raw * (worth - posted), 0.0, ceiling) if p.bid_encoding == "relative" else raw
    strict = p.fidelity == "paper"
    entered = choice < groups
    if p.payment == "posted":
        bid, admissible = posted, entered
    else:
        admissible = entered & ((bid > posted) if strict else (bid >= posted))
    values = np.zeros((batch, m))
    actions = np.zeros((batch, m, 2))
    actions[..., 0] = groups + (0.5 if p.bid_levels is None else 0.0)
    played = np.zeros((batch, m))
    rows = max(1, 4_000_000 // (m * m * max(m, int(p.bid_levels or 1))))
    others = ~np.eye(m, dtype=bool)
    for first in range(0, batch, rows):
        cut = slice(first, first + rows)
        own = bid[cut, :, None]
        for g in range(groups):
            here = admissible[cut] & (choice[cut] == g)
            at = price[cut, g][:, None, None]
            w, units, k = worth[cut, :, None], game.urns[cut, g][:, None, None], game.capacity[cut, g][:, None, None]
            if p.payment == "posted":
                options, above = np.broadcast_to(at, (len(at), m, 1)), np.zeros((1, 1, 1), bool)
            elif p.bid_levels is not None:
                share = np.linspace(0.0, 1.0, p.bid_levels)
                options = (
                    at + share * (w - at) if p.bid_encoding == "relative" else share * ceiling[cut][:, :, None] + 0 * w
                )
                options, above = np.clip(options, 0.0, ceiling[cut][:, :, None]), np.zeros((1, 1, 1), bool)
            else:  # the price, every rival's bid, and just above each
                rival = np.where(here, bid[cut], at[:, :, 0])[:, None, :] + 0 * w
                options = np.concatenate([at + 0 * w, rival, rival], -1)
                above = np.concatenate(
                    [np.full((1, 1, 1), strict), np.zeros((1, 1, m), bool), np.ones((1, 1, m), bool)], -1
                )
            options, above = np.broadcast_arrays(options, above)
            ok = (options > at) | (above & (options >= at)) if strict else options >= at
            gain = _option_values(
                p.payment, p.matching, options, above, own[:, None, :, 0], here, others, w, at, units, k
            )
            gain = np.where(ok, gain, np.where(strict, -options, 0.0))
            pick = gain.argmax(-1)
            best = np.take_along_axis(gain, pick[..., None], -1)[..., 0]
            money = np.take_along_axis(options, pick[..., None], -1)[..., 0]
            raised = np.take_along_axis(above, pick[..., None], -1)[..., 0]
            money = np.where(raised, np.minimum(money + 1e-12 * ceiling[cut], ceiling[cut]), money)
            better = best > values[cut]
            values[cut] = np.where(better, best, values[cut])
            room = np.where(worth[cut] - at[:, :, 0] > 0, worth[cut] - at[:, :, 0], 1.0)
            encoded = (money - at[:, :, 0]) / room if p.bid_encoding == "relative" else money
            encoded = np.clip(encoded, low[cut] if low.shape[0] > 1 else low, top[cut] if top.shape[0] > 1 else top)
            actions[cut] = np.where(
                better[..., None], np.stack([np.full(encoded.shape, float(g)), encoded], -1), actions[cut]
            )
            mine = choice[cut] == g
            same = np.zeros((1, 1, 1), bool)
            now = _option_values(
                p.payment, p.matching, own + 0 * at, same, own[:, None, :, 0], here, others, w, at, units, k
            )[..., 0]
            now = np.where(here, now, np.where(strict, -own[..., 0], 0.0))
            played[cut] = np.where(mine, now, played[cut])
    gains = np.maximum(values - played, 0.0)
    actions = np.where((gains > 0)[..., None], actions, decisions["bidding"])
    method = "every rival's bid and just above it, on every group of urns"
    return BestResponse(actions, played + gains, gains, gains, "exact", method)


def _option_values(
    payment: str,
    matching: str,
    options: Floats,
    above: NDArray[np.bool_],
    bids: Floats,
    here: NDArray[np.bool_],
    others: NDArray[np.bool_],
    worth: Floats,
    price: Floats,
    units: Floats,
    capacity: Floats,
) -> Floats:
    """Expected payoffs (b, M, A) of each buyer's options on one group, rivals' bids (b, 1, M) fixed."""
    rivals = (here[:, None, :] & others)[:, :, None, :]  # (b, own, 1, rival)
    mine, theirs = options[..., None], bids[:, :, None, :]
    if payment == "posted":
        higher, equal = np.zeros(options.shape), rivals.sum(-1) + 0 * options
    else:
        higher = (rivals & (theirs > mine)).sum(-1).astype(float)
        equal = np.where(above, 0.0, (rivals & (theirs == mine)).sum(-1))
    if matching == "pooled":
        served = np.clip((capacity - higher) / (equal + 1.0), 0.0, 1.0)
    else:
        miss = 1.0 - 1.0 / units
        served = np.where(higher > 0, miss**higher, 1.0) * (1.0 - miss ** (equal + 1.0)) * units / (equal + 1.0)
    if payment == "posted":
        return (worth - price) * served
    return (worth - options) * served if payment == "first_price" else worth * served - options


# -- mixtures ---------------------------------------------------------------------------------------------------------


def mixed_reply(market: SpectrumBertrand, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
    """Replies to mixtures: exact for the oracle's own (bids, clearing prices, grids), sampled otherwise."""
    strategy = profile[stage]
    p, batch = market.params, market.batch(state)
    pricing = profile["pricing"]
    if stage == "bidding" and isinstance(pricing, Pure) and p.values == "common" and p.fidelity == "corrected":
        theta = solve._rows(solve.theta_rows(market, state), batch)
        game = solve.group_game(market, solve.game_of(market, theta))
        posted = market.backend.numpy(market.committed(state, {"pricing": pricing.decisions}).decisions["pricing"])
        price = posted.reshape(batch, -1)[:, market.group_price]
        shape = (batch, p.n_buyers)
        if (
            isinstance(strategy, solve.BidMixture)
            and strategy.price.shape == price.shape
            and np.array_equal(strategy.price, price)
        ):
            payoff = np.repeat(strategy.stage.payoff[:, None], p.n_buyers, -1)
            best = strategy.draw(np.full(shape, 0.5))
            zero = np.zeros(shape)
            return BestResponse(
                best, payoff, zero, zero, "exact", "the equilibrium mixture: every bid in its support earns pi"
            )
        if isinstance(strategy, Samples) and _alike(strategy, batch):
            gain, value = samples_gains(market, game, price, strategy)
            gains = np.repeat(gain[:, None], p.n_buyers, -1)
            exact = p.bid_levels is not None or p.payment == "posted"
            upper = gains if exact else np.full_like(gains, np.inf)
            best = np.broadcast_to(strategy.values[strategy.weights.argmax(0)[0, 0]], (*shape, 2))  # type: ignore[union-attr]
            return BestResponse(
                np.array(best),
                value + gains,
                gains,
                upper,
                "exact" if exact else "bound",
                "symmetric mixture, exact win probabilities",
            )
    if stage == "pricing" and isinstance(pricing, Pure) and p.values == "common":
        posted = market.backend.numpy(market.committed(state, {"pricing": pricing.decisions}).decisions["pricing"])
        return best_reply(market, state, "pricing", {"pricing": posted})  # what buyers play is replaced by their answer
    if stage == "pricing" and p.fidelity == "corrected" and p.values == "common" and p.price_groups == 1:
        found = _price_mixture_reply(market, state, strategy)
        if found is not None:
            return found
    from ...solution import mixtures

    return mixtures.sampled_best_response(market, state, stage, profile)


def _alike(strategy: Samples, batch: int) -> bool:
    """Whether all buyers of a market play the same finite mixture."""
    v, w = strategy.values, strategy.weights
    assert w is not None
    return bool(np.all(v == v[:, :, :1]) and np.all(w == w[:, :, :1]) and v.shape[1] in (1, batch))


def samples_gains(
    market: SpectrumBertrand, game: sellers.Sellers, price: Floats, strategy: Samples
) -> tuple[Floats, Floats]:
    """Largest gain (B,) and payoff (B, M) when all buyers play one finite mixture of (group, bid).

    With common play the rivals above a bid are binomial given the own tie-breaker, which Gauss-Legendre integrates
    exactly. Deviations: every bid of the mixture, just above it, the price, and on grids every level.
    """
    p, m = market.params, market.params.n_buyers
    batch, groups = price.shape
    assert strategy.weights is not None
    atoms = np.broadcast_to(strategy.values[:, :, 0], (strategy.values.shape[0], batch, 2))
    weight = np.broadcast_to(strategy.weights[:, :, 0], atoms.shape[:2])
    choice = np.clip(np.floor(atoms[..., 0]), 0, groups).astype(int)
    nodes = min((m - 1) // 2 + 1, 64)
    x, w = np.polynomial.legendre.leggauss(nodes)
    s, w = 0.5 * (x + 1), 0.5 * w
    best, earned = np.zeros(batch), np.zeros(batch)
    for g in range(groups):
        at, value = price[:, g], game.value
        bid = np.clip(at + atoms[..., 1] * (value - at), 0, value) if p.bid_encoding == "relative" else atoms[..., 1]
        if p.payment == "posted":
            bid = np.broadcast_to(at, bid.shape)
        here = (choice == g) & (bid >= at)
        mass = np.where(here, weight, 0.0) / game.urns[:, g]
        options = [bid, at[None]]
        if p.bid_levels is not None and p.payment != "posted":
            share = np.linspace(0, 1, p.bid_levels)[:, None]
            options.append(at + share * (value - at) if p.bid_encoding == "relative" else share * value)
        tried = np.concatenate(options)
        raised = [np.zeros(tried.shape, bool)]
        if p.bid_levels is None and p.payment != "posted":
            tried, raised = np.concatenate([tried, bid]), [raised[0], np.ones(bid.shape, bool)]
        over = np.concatenate(raised)
        above = (mass[None] * (bid[None] > tried[:, None])).sum(1)
        tied = (mass[None] * (bid[None] == tried[:, None])).sum(1)
        tied = np.where(over, 0.0, tied)
        if p.payment == "posted":
            above, tied = 0.0 * above, mass.sum(0)[None] + 0.0 * tied
        z = np.clip(above[..., None] + tied[..., None] * (1 - s), 0.0, 1.0)
        k = game.capacity[:, g]
        if np.all(k == 1):
            served = ((1 - z) ** (m - 1) * w).sum(-1)
        else:
            served = (betainc(np.maximum(m - k, 1)[None, :, None], k[None, :, None], 1 - z) * w).sum(-1)
            served = np.where(k >= m, 1.0, served)
        if p.payment == "posted":
            pay = (value - at) * served
        else:
            pay = (value - tried) * served if p.payment == "first_price" else value * served - tried
        pay = np.where(tried >= at, pay, 0.0)
        best = np.maximum(best, pay.max(0))
        earned += np.where(choice == g, pay[: len(atoms)] * weight, 0.0).sum(0)
    return np.maximum(best - earned, 0.0), np.repeat(earned[:, None], m, -1)


def _price_mixture_reply(market: SpectrumBertrand, state: State, strategy: Strategy) -> BestResponse | None:
    """Sellers against mixed prices; None where no exact or finite form is known."""
    p, batch = market.params, market.batch(state)
    theta = solve._rows(solve.theta_rows(market, state), batch)
    n = p.n_sellers
    if p.matching == "clearing" and isinstance(strategy, solve.PriceSampler) and p.price_levels is None:
        mixture = strategy.mixture
        flat = np.zeros((1, batch, n))
        own = np.linspace(0.0, 1.0, 129)[:, None, None] * (mixture.high - mixture.low) + mixture.low + flat
        ends = [flat + np.minimum(theta.worth, theta.price_cap * theta.worth) * share for share in (1.0, 0.5)]
        tried = np.concatenate([own, *ends])
        value = _against_mixture(market, theta, mixture, tried)
        profit = np.broadcast_to(mixture.profit, (batch, n))
        top = value.argmax(0)
        gains = np.maximum(np.take_along_axis(value, top[None], 0)[0] - profit, 0.0)
        gains = np.where(gains <= 1e-10 * np.maximum(1.0, profit), 0.0, gains)  # rounding of the distribution function
        best = np.take_along_axis(tried, top[None], 0)[0]
        return BestResponse(
            best[..., None], profit + gains, gains, gains, "exact", "exact distribution of rivals' prices"
        )
    if isinstance(strategy, Samples) and n == 2:
        values = np.broadcast_to(strategy.values[..., 0], (strategy.values.shape[0], batch, n))
        weights = np.broadcast_to(strategy.weights, values.shape)  # type: ignore[arg-type]
        if values.shape[0] * batch > 40_000:
            return None
        low, high = theta.price_floor * theta.worth, theta.price_cap * theta.worth
        size = p.price_levels or 129
        grid = low + (high - low) * np.linspace(0, 1, size)
        best, gains, base = np.zeros((batch, n)), np.zeros((batch, n)), np.zeros((batch, n))
        for j in (0, 1):
            own = grid if p.price_levels is not None else np.concatenate([grid, values[:, :, j].T], -1)
            own = np.concatenate([own, values[:, :, j].T], -1)
            rival = values[:, :, 1 - j].T
            pair = [own[:, :, None], rival[:, None, :]]
            offers = np.stack(np.broadcast_arrays(*(pair if j == 0 else pair[::-1])), -1)
            earned = (solve.table_profit(market, theta, offers)[..., j] * weights[:, :, 1 - j].T[:, None, :]).sum(-1)
            played = (earned[:, -values.shape[0] :] * weights[:, :, j].T).sum(-1)
            top = earned.argmax(-1)
            rows = np.arange(batch)
            base[:, j], best[:, j] = played, own[rows, top]
            gains[:, j] = np.maximum(earned[rows, top] - played, 0.0)
        exact = p.price_levels is not None
        upper = gains if exact else np.full_like(gains, np.inf)
        return BestResponse(
            best[..., None],
            base + gains,
            gains,
            upper,
            "exact" if exact else "estimate",
            "finite mixtures against a price grid",
        )
    return None


def _against_mixture(market: SpectrumBertrand, theta: Any, mixture: clearing.PriceMixture, own: Floats) -> Floats:
    """Expected profits (A, B, N) of prices against rivals' mixtures: every rival is cheaper, equal or dearer."""
    n, p = own.shape[2], market.params
    worth, demand = theta.worth[:, 0], theta.demand
    out = np.zeros(own.shape)
    for j in range(n):
        others = [i for i in range(n) if i != j]
        at = np.repeat(own[:, :, [j]], n, -1)
        below = mixture.cdf(at)
        tie = np.where(at >= mixture.high, mixture.atom, 0.0) * (at == mixture.high)
        below = below - tie
        for case in itertools.product((-1, 0, 1), repeat=n - 1):
            chance = np.ones(own.shape[:2])
            prices = np.repeat(own[:, :, [j]], n, -1)
            for i, c in zip(others, case, strict=True):
                chance = chance * (
                    below[..., i] if c < 0 else tie[..., i] if c == 0 else 1.0 - below[..., i] - tie[..., i]
                )
                prices[..., i] = prices[..., i] + c * 1e-9
            if np.any(chance > 0):
                want = _want(p.demand_curve, own[:, :, j], worth, demand)
                sold = _sold(prices, want, theta.channels, j)
                out[..., j] += chance * (own[..., j] - theta.unit_cost[:, j]) * sold
    return out


def _want(curve: str, price: Floats, worth: Floats, demand: Floats) -> Floats:
    if curve == "linear":
        return demand[:, 0] * np.maximum(1.0 - price / worth, 0.0)
    return np.where(price <= worth, demand[:, 0], 0.0)


def _sold(prices: Floats, want: Floats, stock: Floats, j: int) -> Floats:
    """What seller ``j`` sells when only the order of prices matters and its own demand is ``want``."""
    ahead = np.where(prices < prices[..., [j]], stock, 0.0).sum(-1)
    todo = np.maximum(want - ahead, 0.0)
    tied = prices == prices[..., [j]]
    got = np.zeros(prices.shape)
    for _ in range(prices.shape[-1]):
        open_ = tied & (got < stock)
        rest = (todo - got.sum(-1))[..., None]
        got = got + np.where(open_, np.minimum(rest / np.maximum(open_.sum(-1, keepdims=True), 1), stock - got), 0.0)
    return got[..., j]
