"""Best replies of sellers and buyers: to pure decisions exactly, to mixtures exactly where they are known in closed form."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...strategy import BestResponse, Pure, Sampler, Samples, Strategy
from . import clearing, games, logit, sellers
from .bidders import MOST_BUYERS, alike, bidding_reply, samples_outcome
from .mixtures import mixture_reply

if TYPE_CHECKING:
    from ...market import State
    from .rules import SpectrumBertrand

Floats = NDArray[np.float64]


def best_reply(market: SpectrumBertrand, state: State, stage: str, decisions: Mapping[str, Floats]) -> BestResponse:
    """Each agent's best deviation from pure decisions; buyers re-answer a seller's."""
    if stage == "bidding":
        return bidding_reply(market, state, decisions)
    if market.params.values == "private":
        from ...solution import search

        return search.best_response(market, state, stage, decisions)
    theta = games.rows_for(games.theta_rows(market, state), market.batch(state))
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
        game = games.logit_game(theta)
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
    played = games.table_profit(market, theta, price)
    best, gain = price.copy(), np.zeros(price.shape)
    for j in range(price.shape[1]):
        tried = np.repeat(price[:, None, :], levels, 1)
        tried[:, :, j] = low[:, j, None] + (high - low)[:, j, None] * (np.arange(levels) / (levels - 1))
        earned = games.table_profit(market, theta, tried)[..., j]
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
    played = games.table_profit(market, theta, price)
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
        earned = games.table_profit(market, theta, offers)[..., j]
        top = earned.argmax(-1)
        rows = np.arange(top.size)
        best[:, j] = np.where(earned[rows, top] > played[:, j], tried[rows, top], price[:, j])
        gain[:, j] = np.maximum(earned[rows, top] - played[:, j], 0.0)
    return best, gain, played, True


def _auction_replies(
    market: SpectrumBertrand, theta: Any, pricing: Floats, low: Floats, high: Floats
) -> tuple[Floats, Floats, Floats, bool]:
    """One price per seller is optimal, so a deviator faces its rivals' groups with all its channels at one price."""
    game = games.game_of(market, theta)
    groups = games.group_game(market, game)
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


# -- mixtures ---------------------------------------------------------------------------------------------------------


def mixed_reply(market: SpectrumBertrand, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
    """Replies to mixtures: exact for the oracle's own (bids, clearing prices, grids), sampled otherwise."""
    strategy = profile[stage]
    p, batch = market.params, market.batch(state)
    pricing = profile["pricing"]
    if stage == "bidding" and isinstance(pricing, Pure) and p.values == "common" and p.fidelity == "corrected":
        theta = games.rows_for(games.theta_rows(market, state), batch)
        game = games.group_game(market, games.game_of(market, theta))
        posted = market.backend.numpy(market.committed(state, {"pricing": pricing.decisions}).decisions["pricing"])
        price = posted.reshape(batch, -1)[:, market.group_price]
        shape = (batch, p.n_buyers)
        if (
            isinstance(strategy, games.BidMixture)
            and strategy.price.shape == price.shape
            and np.array_equal(strategy.price, price)
        ):
            payoff = np.repeat(strategy.stage.payoff[:, None], p.n_buyers, -1)
            best = strategy.draw(np.full(shape, 0.5))
            zero = np.zeros(shape)
            return BestResponse(
                best, payoff, zero, zero, "exact", "the equilibrium mixture: every bid in its support earns pi"
            )
        if isinstance(strategy, Samples) and alike(strategy, batch):
            gain, value, _ = samples_outcome(market, game, price, strategy)
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
        if p.matching == "channel" and p.n_buyers <= MOST_BUYERS:
            if isinstance(strategy, Sampler):
                strategy = _quantiles(strategy, shape)
            if isinstance(strategy, Samples):
                return mixture_reply(market, game, price, strategy)
    if stage == "pricing" and isinstance(pricing, Pure) and p.values == "common":
        posted = market.backend.numpy(market.committed(state, {"pricing": pricing.decisions}).decisions["pricing"])
        return best_reply(market, state, "pricing", {"pricing": posted})  # what buyers play is replaced by their answer
    if stage == "pricing" and p.fidelity == "corrected" and p.values == "common" and p.price_groups == 1:
        found = _price_mixture_reply(market, state, strategy)
        if found is not None:
            return found
    from ...solution import mixtures

    return mixtures.sampled_best_response(market, state, stage, profile)


def _quantiles(strategy: Sampler, shape: tuple[int, int], size: int = 64) -> Samples:
    """A sampler as equally likely atoms in the middle of equal slices; every other slice first, so that halves are alike."""
    cuts = (np.arange(size) + 0.5) / size
    values = [strategy.draw(np.full(shape, u)) for u in np.concatenate([cuts[::2], cuts[1::2]])]
    return Samples(np.stack(values), np.full((size, *shape), 1.0 / size))


def _price_mixture_reply(market: SpectrumBertrand, state: State, strategy: Strategy) -> BestResponse | None:
    """Sellers against mixed prices; None where no exact or finite form is known."""
    p, batch = market.params, market.batch(state)
    theta = games.rows_for(games.theta_rows(market, state), batch)
    n = p.n_sellers
    if p.matching == "clearing" and isinstance(strategy, games.PriceSampler) and p.price_levels is None:
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
        size = p.price_levels or 65
        grid = low + (high - low) * np.linspace(0, 1, size)
        best, gains, base = np.zeros((batch, n)), np.zeros((batch, n)), np.zeros((batch, n))
        for j in (0, 1):
            own = np.concatenate([grid, values[:, :, j].T], -1)  # the prices played come last
            rival = values[:, :, 1 - j].T
            pair = [own[:, :, None], rival[:, None, :]]
            offers = np.stack(np.broadcast_arrays(*(pair if j == 0 else pair[::-1])), -1)
            earned = (games.table_profit(market, theta, offers)[..., j] * weights[:, :, 1 - j].T[:, None, :]).sum(-1)
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
