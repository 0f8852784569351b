"""From states of the market to games of its oracles, and equilibria as strategies that can be drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import NotOffered
from ...strategy import Sampler, Samples
from . import clearing, logit, sellers, urns

if TYPE_CHECKING:
    from ...market import State
    from .rules import SpectrumBertrand

Floats = NDArray[np.float64]


# -- strategies -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BidMixture(Sampler):
    """The buyers' symmetric equilibrium at posted prices: where to bid, and the exact distribution of bids there.

    Attributes:
        stage: payoffs and densities, groups of like urns on the last axis.
        price: posted price of each group, ``(B, G)``.
        game: the urns behind it.
    """

    stage: Any = field(default=None)
    price: Any = field(default=None)
    game: Any = field(default=None)


@dataclass(frozen=True)
class PriceSampler(Sampler):
    """Independent mixed prices of all sellers, with their exact distribution ``mixture``."""

    mixture: Any = field(default=None)


def bid_mixture(market: SpectrumBertrand, game: sellers.Sellers, price: Floats) -> BidMixture:
    """The buyers' equilibrium at ``price`` (B, G) as a strategy."""
    stage = sellers.respond(game, price)
    mass = game.urns * stage.density
    edges = np.cumsum(mass, -1)
    edges[:, -1] = np.where(stage.abstain > 0, edges[:, -1], 1.0)
    groups = price.shape[1]

    def sample(u: Floats) -> Floats:
        index = (u[:, :, None] >= edges[:, None, :]).sum(-1)
        inside = np.minimum(index, groups - 1)
        at = [
            np.take_along_axis(np.broadcast_to(x, price.shape), inside, 1)
            for x in (edges, mass, stage.density, price, game.capacity)
        ]
        end, size, q, posted, k = at
        v = np.clip(1.0 - (end - u) / np.where(size > 0, size, 1.0), 0.0, 1.0)
        value = game.value[:, None]
        bid = urns.bid_quantile(game.payment, value, stage.payoff[:, None], q, posted, v, game.buyers, k)
        bid = np.where(index < groups, np.minimum(bid, value), 0.0)
        if market.params.bid_encoding == "relative":
            room = value - posted
            bid = np.where((index < groups) & (room > 0), (bid - posted) / np.where(room > 0, room, 1.0), 0.0)
        return np.stack([index.astype(float), bid], -1)

    return BidMixture(sample=sample, cdf=None, stage=stage, price=price, game=game)


def grid_mixture(market: SpectrumBertrand, mixture: BidMixture) -> Samples:
    """A bid mixture moved up to the next bid level: probabilities of every (group, level) and of abstaining."""
    game, price, stage = mixture.game, mixture.price, mixture.stage
    size = int(market.params.bid_levels or 2)
    value = game.value[:, None]
    level = np.arange(size) / (size - 1)
    values, weights = [], []
    for g in range(price.shape[1]):
        p, q, k = price[:, g], stage.density[:, g], game.capacity[:, g]
        before = np.zeros(p.shape)
        for x in level:
            bid = x * game.value if market.params.bid_encoding == "absolute" else p + x * (game.value - p)
            cdf = urns.bid_cdf(game.payment, game.value, stage.payoff, q, p, bid, game.buyers, k)
            cdf = np.where(x == 1.0, 1.0, cdf)
            weights.append((cdf - before) * q * game.urns[:, g])
            values.append(
                np.stack(
                    [
                        np.full(p.shape, float(g)),
                        x * (value[:, 0] if market.params.bid_encoding == "absolute" else 1.0 + 0 * p),
                    ],
                    -1,
                )
            )
            before = cdf
    weights.append(np.maximum(1.0 - np.sum(weights, axis=0), 0.0))
    values.append(np.stack([np.full(price.shape[0], float(price.shape[1])), np.zeros(price.shape[0])], -1))
    table = np.maximum(np.stack(weights), 0.0)
    table /= table.sum(0)
    shape = (len(values), price.shape[0], market.params.n_buyers)
    return Samples(
        np.stack(values)[:, :, None, :] + np.zeros((*shape, 1)), np.broadcast_to(table[:, :, None], shape).copy()
    )


# -- games ------------------------------------------------------------------------------------------------------------


def spread(array: Any, batch: int) -> Floats:
    """An array of one market repeated for all."""
    array = np.asarray(array, float)
    return np.array(np.broadcast_to(array, (batch, *array.shape[1:])))


def game_of(market: SpectrumBertrand, theta: Any) -> sellers.Sellers:
    """The sellers' auction game, one price per seller; one row only where all markets are alike."""
    p = market.params
    blind = p.matching == "channel"
    held = theta.channels
    return sellers.seller_game(
        p.payment, theta.worth[:, 0], theta.unit_cost, p.n_buyers, held if blind else 1, 1 if blind else held
    )


def group_game(market: SpectrumBertrand, game: sellers.Sellers) -> sellers.Sellers:
    """The same game with every group of like urns as a seller of its own (blocks of prices, explicit channels)."""
    if market.groups == game.n and market.params.channel_choice == "blind":
        return game
    s = market.group_seller
    number = (
        game.urns[:, s] / market.params.price_groups
        if market.params.channel_choice == "blind"
        else np.ones((game.value.size, s.size))
    )
    return game._replace(cost=game.cost[:, s], urns=number, capacity=np.ones(number.shape))


def theta_rows(market: SpectrumBertrand, state: State) -> Any:
    """Numeric parameters as float64 with a common leading axis, 1 or B."""
    t = market.theta64(state)
    rows = max(np.shape(x)[0] for x in t)
    return type(t)(*(np.broadcast_to(x, (rows, *np.shape(x)[1:])) for x in t))


def rows_for(theta: Any, batch: int) -> Any:
    """Parameters of one market repeated for all B."""
    return type(theta)(*(np.broadcast_to(x, (batch, *x.shape[1:])) for x in theta))


def need_common(market: SpectrumBertrand) -> None:
    """Private values have no price oracle.

    Raises:
        NotOffered: with private values.
    """
    if market.params.values == "private":
        raise NotOffered(
            "private values have no equilibrium oracle with prices; nash_conv and best_response are offered, and oracle.private at equal prices"
        )


def logit_game(theta: Any) -> logit.LogitMarket:
    """The logit pricing game of (1 or B) markets."""
    return logit.logit_market(
        theta.quality, theta.unit_cost, theta.taste_noise[:, 0], theta.outside[:, 0], theta.demand[:, 0]
    )


def clearing_game(market: SpectrumBertrand, theta: Any) -> clearing.PriceMixture:
    """Equilibrium mixture of the clearing market.

    Raises:
        NotOffered: unequal costs, or unequal channels of more than two sellers.
    """
    if np.any(theta.unit_cost != theta.unit_cost[:, :1]):
        raise NotOffered("clearing with unequal costs has no oracle; give all sellers the same unit_cost")
    try:
        if market.params.demand_curve == "linear":
            return clearing.linear_demand(theta.worth[:, 0], theta.demand[:, 0], theta.channels)
        return clearing.unit_demand(theta.worth[:, 0], theta.unit_cost[:, 0], theta.demand[:, 0], theta.channels)
    except ValueError as error:
        raise NotOffered(str(error)) from error


def table_profit(market: SpectrumBertrand, theta: Any, price: Floats) -> Floats:
    """Profits (rows, ..., N) at prices of that shape, buyers in equilibrium; ``theta`` with as many rows."""
    p = market.params
    between = (1,) * (price.ndim - 2)
    if p.matching == "logit":
        moved = np.moveaxis(price, 0, -2)
        return np.moveaxis(logit.profits(logit_game(theta), moved), -2, 0)
    if p.matching == "clearing":
        stock, cost = (x.reshape(-1, *between, p.n_sellers) for x in (theta.channels, theta.unit_cost))
        worth = np.broadcast_to(theta.worth.reshape(-1, *between), price.shape[:-1])
        want = theta.demand.reshape(-1, *between, 1)
        sold = clearing.residual_sales(price, want, stock, worth, p.demand_curve == "linear")
        return (price - cost) * sold
    if p.fidelity == "paper":
        from .grids import printed_profit

        return printed_profit(market, theta, price)
    game = game_of(market, theta)
    if p.bid_levels is None or p.payment == "posted":
        return sellers.profits(game, sellers.respond(game, price))
    from .bidders import samples_outcome  # bids on a grid: what buyers really answer is the rounded mixture

    flat = price.reshape(-1, p.n_sellers)
    game = sellers.markets(game, np.repeat(np.arange(game.value.size), len(flat) // game.value.size))
    coarse = grid_mixture(market, bid_mixture(market, game, flat))
    return samples_outcome(market, game, flat, coarse)[2].reshape(price.shape)


def reference_profits(market: SpectrumBertrand, theta: Any) -> tuple[Any, Any]:
    """Total profits in equilibrium and in full collusion (rows, 1), for the collusion index; zeros where unknown."""
    if market.backend.name == "jax":  # also while JAX traces
        import jax

        rows = max(x.shape[0] for x in theta if x is not None)
        out = jax.ShapeDtypeStruct((rows, 1), market.backend.dtype)
        return jax.pure_callback(lambda t: reference_numbers(market, t), (out, out), theta)
    nash, joint = reference_numbers(market, theta)
    return market.backend.asarray(nash), market.backend.asarray(joint)


def reference_numbers(market: SpectrumBertrand, theta: Any) -> tuple[Floats, Floats]:
    """`reference_profits` in NumPy."""
    p = market.params
    t = type(theta)(*(None if x is None else market.backend.numpy(x) for x in theta))
    rows = max(np.shape(x)[0] for x in t if x is not None)
    t = type(t)(*(None if x is None else np.broadcast_to(x, (rows, *np.shape(x)[1:])) for x in t))
    zero = np.zeros((rows, 1), market.backend.dtype_name)
    if p.values == "private" or p.fidelity == "paper" or (np.any(t.unit_cost >= t.worth) and p.matching != "logit"):
        return zero, zero
    if p.matching == "logit":
        pricing = logit_game(t)
        nash, joint = (logit.profits(pricing, f(pricing)).sum(-1) for f in (logit.nash, logit.monopoly))
    elif p.matching == "clearing":
        try:
            nash = clearing_game(market, t).profit.sum(-1)
        except NotOffered:
            return zero, zero
        stock, m, worth = t.channels.sum(-1), t.demand[:, 0], t.worth[:, 0]
        if p.demand_curve == "linear":
            price = np.maximum(0.5, 1.0 - stock / m)
            joint = worth * price * m * (1.0 - price)
        else:
            joint = (worth - t.unit_cost[:, 0]) * np.minimum(stock, m)
    elif p.matching == "pooled":
        return zero, zero  # the equilibrium may be mixed, and then takes seconds: see analysis()
    else:
        game = game_of(market, t)
        found = sellers.equilibrium(game)
        nash, joint = found.profit.sum(-1), sellers.welfare(game, found.buyers)
    return nash[:, None].astype(zero.dtype), joint[:, None].astype(zero.dtype)
