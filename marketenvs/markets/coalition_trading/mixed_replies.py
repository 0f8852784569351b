"""Best responses to mixed profiles, and their payoffs.

Against mixed rivals a price is worth a finite sum over who is cheaper, tied or dearer, so values are exact for point
masses and for equilibrium distributions alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...solution import mixtures
from ...strategy import BestResponse, Pure, Reply, Sampler, Samples, Strategy
from .price_stage import PriceMixture, payoff_matrices
from .replies import best_reply, candidate_prices, label_replies, polish
from .solve import FollowerReply, coalition_stage, later_stages, partition_index, remember, spread
from .values import Curves, demand_each
from .view import View, units_of, view

if TYPE_CHECKING:
    from ...market import State
    from .rules import CoalitionTrading

Floats = NDArray[Any]  # float64 unless said otherwise

CHUNK = 20_000  # markets settled at once when payoffs of mixtures are averaged
QUANTILES = 128  # points of a continuous distribution whose own profit is averaged


def mixed_reply(market: CoalitionTrading, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
    """Best deviations from a profile in which some stage is mixed."""
    if market.params.model == "paper" or market.params.selection != "winner":
        return mixtures.sampled_best_response(market, state, stage, profile)
    if stage == "coalition" and isinstance(profile["coalition"], Pure):
        return label_replies(market, state, {"coalition": profile["coalition"].decisions})
    if stage == "coalition":
        return _mixed_labels(market, state, profile["coalition"])
    here = state
    if market.params.formation == "labels" and "coalition" not in state.decisions:
        labels = profile["coalition"]
        if not isinstance(labels, Pure):
            return mixtures.sampled_best_response(market, state, stage, profile)
        here = market.commit(state, "coalition", market.check_decisions(state, "coalition", labels.decisions))
    if stage == "purchase":
        return _mixed_purchases(market, here, profile)
    prices = profile["pricing"]
    prices = prices.answer(here) if isinstance(prices, Reply) else prices
    v = view(market, here)
    units = units_of(market, here, v)
    if market.params.price_levels is not None and v.room.shape[1] == 2:
        return _grid_prices(market, here, v, prices)
    if units is not None or v.room.shape[1] > 6:
        return mixtures.sampled_best_response(market, state, stage, profile)
    return _mixed_prices(market, v, market.batch(state), prices)


def _mixed_labels(market: CoalitionTrading, state: State, labels: Strategy) -> BestResponse:
    """Each buyer's best label against independent mixtures: the sum over all N^N labellings, each with its partition's payoff."""
    batch, n = market.batch(state), market.params.n_buyers
    sampled = not isinstance(labels, Samples)
    if not isinstance(labels, Samples):
        u = (np.arange(256) + 0.5) / 256
        labels = Samples(np.stack([np.broadcast_to(labels.draw(np.full((batch, n), x)), (batch, n, 1)) for x in u]))
    weights: Any = labels.weights
    drawn = labels.values[..., 0]
    shape = np.broadcast_shapes(drawn.shape, weights.shape, (1, batch, n))
    here = np.broadcast_to(drawn, shape)[..., None] == np.arange(n)
    chance = np.sum(here * np.broadcast_to(weights, shape)[..., None], axis=0)  # (B, N, labels)
    profiles = np.stack(np.meshgrid(*[np.arange(n)] * n, indexing="ij"), axis=-1).reshape(-1, n)
    index = partition_index(profiles)
    stage, *_ = remember(market, state, "coalition", lambda: coalition_stage(market, state))
    payoff = stage.payoff
    table = np.empty((batch, n, n))
    step = max(1, 200_000 // len(profiles))
    for first in range(0, batch, step):
        part = slice(first, first + step)
        paid = payoff[part] if payoff.shape[0] > 1 else payoff
        each = chance[part][:, np.arange(n), profiles]  # (b, L, N)
        for i in range(n):
            others = np.prod(np.delete(each, i, axis=2), axis=2) * paid[:, index, i]
            others = others.reshape(len(each), *(n,) * n)
            table[part, i] = others.sum(axis=tuple(k + 1 for k in range(n) if k != i))
    played = np.sum(table * chance, axis=2)
    gains = np.maximum(table.max(axis=2) - played, 0.0)
    gains = np.where(gains > 1e-11 * np.maximum(1.0, np.abs(played)), gains, 0.0)
    exact = not sampled and market.params.price_levels is None and market.params.amount_levels is None
    upper = gains if exact else np.full_like(gains, np.inf)
    best = np.argmax(table, axis=2)[:, :, None].astype(float)
    method = "payoffs of all labellings, later stages in equilibrium"
    return BestResponse(best, played + gains, gains, upper, "exact" if exact else "estimate", method)


def _chances(prices: Strategy, batch: int, m: int) -> tuple[Callable[[Floats], tuple[Floats, Floats]], Floats]:
    """Probabilities of each seller being below and at prices (B, C), (B, M, C) each; and the point masses (B, k, M)."""
    if isinstance(prices, PriceMixture):
        ends = np.stack(prices.support, axis=1)[:, :, None]
        return prices.chances, np.broadcast_to(ends, (batch, 2, m))
    points: Any
    weights: Any
    if isinstance(prices, Pure):
        points, weights = prices.decisions[None], np.ones((1, 1, 1))
    elif isinstance(prices, Samples):
        points, weights = prices.values, prices.weights
    elif isinstance(prices, Sampler):
        u = (np.arange(256) + 0.5) / 256
        points = np.stack([prices.draw(np.full((batch, m), x)) for x in u])
        weights = np.full((256, 1, 1), 1 / 256)
    else:
        raise TypeError(f"prices cannot be a {type(prices).__name__} here")
    shape = (points.shape[0], batch, m)
    points = np.broadcast_to(points[..., 0], shape)
    order = np.argsort(points, axis=0, kind="stable")
    ranked = np.moveaxis(np.take_along_axis(points, order, axis=0), 0, 2)  # (B, M, S)
    upto = np.cumsum(np.moveaxis(np.take_along_axis(np.broadcast_to(weights, shape), order, axis=0), 0, 2), axis=2)
    upto = np.concatenate([np.zeros((batch, m, 1)), upto], axis=2)

    def chances(price: Floats) -> tuple[Floats, Floats]:
        wide = np.broadcast_to(price[:, None, :], (batch, m, price.shape[1]))
        below = np.take_along_axis(upto, _before(ranked, wide, False), axis=2)
        return below, np.take_along_axis(upto, _before(ranked, wide, True), axis=2) - below

    return chances, np.moveaxis(points, 0, 1)


def _before(ranked: Floats, values: Floats, ties: bool) -> NDArray[np.int64]:
    """How many of the sorted numbers (B, M, S) are below (``ties``: not above) the values (B, M, C), by bisection."""
    low = np.zeros(values.shape, dtype=np.int64)
    high = np.full(values.shape, ranked.shape[2])
    for _ in range(ranked.shape[2].bit_length()):
        mid = (low + high) // 2
        found = np.take_along_axis(ranked, np.minimum(mid, ranked.shape[2] - 1), axis=2)
        left = (low < high) & ((found <= values) if ties else (found < values))
        low, high = np.where(left, mid + 1, low), np.where(left, high, mid)
    return low


def _expected_profit(v: View, chances: Callable[[Floats], tuple[Floats, Floats]], seller: int, price: Floats) -> Floats:
    """Expected profits (B, C) of one seller at prices (B, C): a sum over rivals being cheaper, tied or dearer."""
    curves = Curves(*(f[:, None, :] for f in v.curves))
    demand = np.sum(np.where(v.served[:, :1, :], demand_each(curves, price[:, :, None]), 0.0), axis=2)
    below, at = chances(price)
    rivals = [j for j in range(v.room.shape[1]) if j != seller]
    own, sold = v.room[:, seller, None], np.zeros(price.shape)
    for pattern in product((0, 1, 2), repeat=len(rivals)):
        chance, ahead, tied = np.ones(price.shape), 0.0 * own, own
        for j, state in zip(rivals, pattern, strict=True):
            chance = chance * ((1.0 - below[:, j] - at[:, j]), below[:, j], at[:, j])[state]
            ahead, tied = ahead + v.room[:, j, None] * (state == 1), tied + v.room[:, j, None] * (state == 2)
        if chance.any():
            sold = sold + chance * np.clip(demand - ahead, 0.0, tied) * own / tied
    return (price - v.cost[:, seller, None]) * sold


def _own_average(prices: Strategy, worth: Callable[[Floats], Floats], points: Floats, seller: int) -> Floats:
    """A seller's expected profit from its own mixture, (B,)."""
    if isinstance(prices, PriceMixture):
        return worth(prices.quantiles(QUANTILES)[:, :, seller]).mean(axis=1)
    values = worth(points[:, :, seller])
    if isinstance(prices, Samples) and prices.weights is not None:
        weights = np.broadcast_to(prices.weights, (prices.weights.shape[0], *points.shape[::2]))[:, :, seller]
        return np.sum(values * weights.T, axis=1)
    return values.mean(axis=1)


def _mixed_prices(market: CoalitionTrading, v: View, batch: int, prices: Strategy) -> BestResponse:
    m = v.room.shape[1]
    rows = 1 if isinstance(prices, PriceMixture) and v.rows == 1 and prices.support[0].size == 1 else batch
    chances, points = _chances(prices, rows, m)
    best, values, gains = np.empty((rows, m)), np.empty((rows, m)), np.empty((rows, m))
    alike = isinstance(prices, PriceMixture) and prices.alike
    for i in range(1 if alike else m):

        def worth(price: Floats, i: int = i) -> Floats:
            return _expected_profit(v, chances, i, price)

        masses = np.sort(np.delete(points, i, axis=2).reshape(rows, -1), axis=1)
        trial = candidate_prices(v, masses)
        at, top = polish(worth, trial, worth(trial))
        played = np.broadcast_to(_own_average(prices, worth, points, i), (rows,))
        gains[:, i] = np.maximum(top - played, 0.0)
        best[:, i], values[:, i] = at, played + gains[:, i]
    if alike:
        best, values, gains = (np.repeat(x[:, :1], m, axis=1) for x in (best, values, gains))
    scale = np.maximum(1.0, np.abs(values))
    gains = np.where(gains > 1e-11 * scale, gains, 0.0)
    kind = "exact" if not isinstance(prices, Sampler) else "estimate"
    best, values, gains = (spread(x, batch) for x in (best, values, gains))
    upper = gains if kind == "exact" else np.full_like(gains, np.inf)
    method = "sums over cheaper, tied and dearer rivals at choke, clearing, rivals' and stationary prices"
    return BestResponse(best[:, :, None], values, gains, upper, kind, method)


def _grid_prices(market: CoalitionTrading, state: State, v: View, prices: Strategy) -> BestResponse:
    """Two sellers on a price grid: matrix algebra, exact."""
    batch, count = market.batch(state), market.params.price_levels
    assert count is not None
    levels = v.low[:, None] + (v.high - v.low)[:, None] * np.arange(count) / (count - 1)
    points: Any
    weights: Any
    if isinstance(prices, Pure):
        points, weights = prices.decisions[None, :, :, 0], np.ones((1, 1, 1))
    else:
        draws = (
            prices
            if isinstance(prices, Samples)
            else Samples(np.stack([prices.draw(np.full((batch, 2), (k + 0.5) / 256)) for k in range(256)]))
        )
        points, weights = draws.values[..., 0], draws.weights
    width = (v.high - v.low)[:, None]
    index = np.round((points - v.low[:, None]) / width * (count - 1)).astype(int).clip(0, count - 1)
    shape = np.broadcast_shapes(index.shape, np.shape(weights), (1, batch, 2))
    index, weights = np.broadcast_to(index, shape), np.broadcast_to(weights, shape)
    chance = np.zeros((batch, 2, count))
    for s in range(shape[0]):
        chance[np.arange(batch)[:, None], np.arange(2), index[s]] += weights[s]
    first, second = (spread(x, batch) for x in payoff_matrices(market, v, levels, units_of(market, state, v)))
    worth = np.stack(
        [np.einsum("bij,bj->bi", first, chance[:, 1]), np.einsum("bij,bi->bj", second, chance[:, 0])], axis=1
    )
    played = np.sum(worth * chance, axis=2)
    gains = np.maximum(worth.max(axis=2) - played, 0.0)
    best = np.take_along_axis(np.broadcast_to(levels, (batch, count)), worth.argmax(axis=2), axis=1)
    return BestResponse(best[:, :, None], played + gains, gains, gains, "exact", "price grid: matrix game")


def _mixed_purchases(
    market: CoalitionTrading, state: State, profile: Mapping[str, Strategy], draws: int = 64
) -> BestResponse:
    """The coalition's gain averaged over paired quantiles of the prices; each term is exact."""
    batch, m = market.batch(state), market.params.n_sellers
    prices = profile["pricing"]
    prices = prices.answer(state) if isinstance(prices, Reply) else prices
    rng = np.random.default_rng(0)
    u = np.stack([rng.permutation((np.arange(draws) + 0.5) / draws) for _ in range(m)], axis=1)
    price = _joint(prices, u, batch)
    here = market.take(state, np.tile(np.arange(batch), draws))
    here = market.commit(here, "pricing", market.check_decisions(here, "pricing", price))
    here = market.commit(
        here, "purchase", market.check_decisions(here, "purchase", _asked(market, here, profile, draws))
    )
    decisions = {name: market.backend.numpy(x) for name, x in here.decisions.items()}
    found = best_reply(market, here, "purchase", decisions)
    asked, values, gains = (
        x.reshape(draws, batch, *x.shape[1:]).mean(axis=0) for x in (found.decisions, found.values, found.gains)
    )
    settled = not np.any(gains)
    upper = gains if settled else np.full_like(gains, np.inf)
    method = f"exact purchases at {draws} paired quantiles of the prices"
    return BestResponse(asked, values, gains, upper, "exact" if settled else "estimate", method)


def _joint(prices: Strategy, uniforms: Floats, batch: int) -> Floats:
    """Prices of D draws in every market, (D * B, M, 1), from uniforms (D, M)."""
    wide = np.broadcast_to(uniforms[:, None, :], (uniforms.shape[0], batch, uniforms.shape[1]))
    if isinstance(prices, PriceMixture):
        drawn = prices.draw_many(wide)
    else:
        drawn = np.stack([np.broadcast_to(prices.draw(x), (*x.shape, 1)) for x in wide])
    return drawn.reshape(-1, *drawn.shape[2:])


def _asked(market: CoalitionTrading, here: State, profile: Mapping[str, Strategy], draws: int) -> Floats:
    """What the buyers ask for in ``draws`` copies of the markets, prices committed, (draws * B, N, k)."""
    answer, rng = profile["purchase"], np.random.default_rng(0)
    n, total = market.params.n_buyers, market.batch(here)
    if isinstance(answer, Reply):
        answer = answer.answer(here)
        return np.broadcast_to(
            answer.draw(rng.uniform(size=(total, n))), (total, n, market.stage("purchase").codec.width)
        )
    batch = total // draws
    drawn = [answer.draw(rng.uniform(size=(batch, n))) for _ in range(draws)]
    return np.concatenate([np.broadcast_to(x, (batch, *x.shape[1:])) for x in drawn])


def mixed_payoff(market: CoalitionTrading, state: State, profile: Mapping[str, Strategy]) -> dict[str, Floats]:
    """Expected payoffs of a profile with mixtures.

    The equilibrium's own prices with the exact follower: its closed-form values. Otherwise buyers by paired quantiles
    (all pairs for two sellers), sellers exactly where the exact follower answers.
    """
    batch, m = market.batch(state), market.params.n_sellers
    bargained = market.params.price_formation == "bargain"
    if market.params.model == "paper" or (
        "coalition" in profile and not isinstance(profile["coalition"], Pure) and not bargained
    ):
        return mixtures.sampled_payoff(market, state, profile)
    here = state
    if bargained:
        found = _mixed_labels(market, state, profile["coalition"])
        return {"buyer": found.values - found.gains}
    if market.params.formation == "labels":
        labels = profile["coalition"].decisions  # type: ignore[attr-defined]
        here = market.commit(state, "coalition", market.check_decisions(state, "coalition", labels))
    prices, answer = profile["pricing"], profile["purchase"]
    prices = prices.answer(here) if isinstance(prices, Reply) else prices
    exact = isinstance(answer, FollowerReply)
    if exact and isinstance(prices, PriceMixture | Samples):
        solved = later_stages(market, here)
        if _same(solved.strategy["pricing"], prices):
            return {role: np.array(x) for role, x in solved.values.items()}
    u = _paired(m)
    draws, total = len(u), {role: np.zeros((batch, n)) for role, n in market.roles.items()}
    step = max(1, CHUNK // batch)
    for first in range(0, draws, step):
        part = u[first : first + step]
        many = market.take(here, np.tile(np.arange(batch), len(part)))
        joint = _joint(prices, part, batch)
        many = market.commit(many, "pricing", market.check_decisions(many, "pricing", joint))
        asked = _asked(market, many, profile, len(part))
        many = market.commit(many, "purchase", market.check_decisions(many, "purchase", asked))
        for role, x in market.expected(many, many.decisions).items():
            total[role] += market.backend.numpy(x).reshape(len(part), batch, -1).sum(axis=0) / draws
    if exact and market.params.selection == "winner" and not isinstance(prices, Sampler) and m <= 6:
        v = view(market, here)
        if units_of(market, here, v) is None and market.params.price_levels is None:
            chances, points = _chances(prices, batch, m)
            worth = [_own_average(prices, partial(_expected_profit, v, chances, i), points, i) for i in range(m)]
            total["seller"] = np.stack([np.broadcast_to(x, (batch,)) for x in worth], axis=1)
    return total


def _same(one: Strategy, other: Strategy) -> bool:
    """Whether two mixtures are one and the same (a finite one may have been copied on its way)."""
    if isinstance(one, Samples) and isinstance(other, Samples):
        return np.array_equal(one.values, other.values) and np.array_equal(one.weights, other.weights)  # type: ignore[arg-type]
    return one is other


def _paired(m: int) -> Floats:
    """Quantiles of m sellers' independent mixtures, (S, m): a full grid for two, a Latin square design for more."""
    if m <= 2:
        grid = (np.arange(32) + 0.5) / 32
        return np.stack([x.reshape(-1) for x in np.meshgrid(*[grid] * m, indexing="ij")], axis=1)
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation((np.arange(512) + 0.5) / 512) for _ in range(m)], axis=1)
