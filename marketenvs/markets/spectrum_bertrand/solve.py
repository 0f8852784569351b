"""From states of the market to its oracles, and back to certified equilibria. Replies are in `replies`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import NotOffered
from ...solution.gains import certified, payoff_scale
from ...strategy import Equilibrium, Pure, Reply, Samples, SocialOptimum, Strategy
from . import literal, logit, oracle, private, sellers
from .bidders import samples_outcome
from .games import (
    PriceSampler,
    bid_mixture,
    clearing_game,
    game_of,
    grid_mixture,
    group_game,
    logit_game,
    need_common,
    reference_numbers,
    rows_for,
    spread,
    table_profit,
    theta_rows,
)

if TYPE_CHECKING:
    from ...market import State
    from .rules import SpectrumBertrand

Floats = NDArray[np.float64]
CITATION = "marketenvs docs, Spectrum Bertrand (urn games, Bertrand-Edgeworth, logit pricing)"


# -- equilibria -------------------------------------------------------------------------------------------------------


def equilibrium(market: SpectrumBertrand, state: State) -> Equilibrium:
    """The stage game's equilibrium with its certificate."""
    need_common(market)
    theta, batch, p = theta_rows(market, state), market.batch(state), market.params
    if p.price_levels is not None or p.fidelity == "paper":
        from .grids import grid_equilibrium

        return grid_equilibrium(market, state, theta)
    if p.matching == "clearing":
        return _clearing_equilibrium(market, theta, batch)
    if p.matching == "logit":
        game = logit_game(theta)
        price = logit.nash(game)
        gain, method = (
            logit.gains(game, price).max(-1),
            "best responses in closed form (Lambert's W), iterated to the fixed point",
        )
        profit, exact = logit.profits(game, price), True
    else:
        game_a = game_of(market, theta)
        found = sellers.equilibrium(game_a)
        price, profit, gain, method = found.price, found.profit, found.gain.max(-1), found.method
        equal = game_a.n <= 2 or bool(np.all(price == price[:, :1]) and np.all(game_a.urns == game_a.urns[:, :1]))
        exact = p.matching == "channel" and equal
        if p.matching == "pooled":  # one seller extracts everything; pools that never fill are Bertrand's: price = cost
            plenty = bool(np.all(game_a.capacity >= p.n_buyers) and np.all(game_a.cost == game_a.cost[:, :1]))
            exact = p.n_sellers == 1 or plenty
    low, high = (
        np.broadcast_to(x, price.shape) for x in (theta.price_floor * theta.worth, theta.price_cap * theta.worth)
    )
    inside = np.all((price >= low) & (price <= high), -1)
    if p.matching == "pooled" and p.n_sellers == 2 and np.any(gain > 1e-6 * np.maximum(1.0, profit.max(-1))):
        return _pooled_equilibrium(market, theta, batch, game_a, found)
    price = np.clip(price, low, high)
    decisions = {"pricing": spread(price[:, :, None] + np.zeros((1, 1, p.price_groups)), batch)}
    if not np.all(inside):  # an end of the range binds: damped best responses within it, and their gains
        from .replies import pricing_gains

        for _ in range(200):
            best, within = pricing_gains(market, theta, np.repeat(price[:, :, None], p.price_groups, -1))
            if within.max() <= 1e-13:
                break
            price = price + 0.8 * (best - price)
        gain, profit = within.max(-1), table_profit(market, theta, price)
        decisions = {"pricing": spread(price[:, :, None] + np.zeros((1, 1, p.price_groups)), batch)}
    values = {"seller": spread(profit, batch)}
    strategy: dict[str, Strategy] = {"pricing": Pure(decisions["pricing"])}
    selection = "unique in symmetric strategies of the buyers"
    if market.auction:
        if p.bid_levels is None and np.all(inside):
            values["buyer"] = spread(np.repeat(found.buyers.payoff[:, None], p.n_buyers, -1), batch)
        else:
            _, values["buyer"], extra = _respond_at(market, theta, decisions["pricing"], batch)
            gain = np.maximum(gain, extra)
        strategy["bidding"] = Reply(lambda s: _answer(market, s))
        selection += "; on the all-pay kink (pi = 0) the member of the continuum given by the first-order conditions"
    kind = "exact" if exact else "estimate"
    epsilon = spread(gain, batch)
    return Equilibrium(
        strategy=market.by_stage(strategy),
        values=values,
        epsilon=epsilon,
        certified=certified(kind, epsilon, payoff_scale(values)),
        kind=kind,
        method=method + "; certified by each seller's global best response",
        citation=CITATION,
        exists=np.ones(batch, bool),
        selection=selection,
        on_path=market.by_stage(decisions),
    )


def _clearing_equilibrium(market: SpectrumBertrand, theta: Any, batch: int) -> Equilibrium:
    found = clearing_game(market, theta)
    _need_room(market, theta, found.low, found.high)
    pure = bool(np.all(found.atom.min(-1) == 1.0))

    def sample(u: Floats) -> Floats:
        return found.quantile(u)[..., None]

    strategy: Strategy = (
        Pure(spread(found.high[:, :, None], batch))
        if pure
        else PriceSampler(sample=sample, cdf=found.cdf, mixture=found)
    )
    values = {"seller": spread(found.profit, batch)}
    return Equilibrium(
        strategy=market.by_stage({"pricing": strategy}),
        values=values,
        epsilon=np.zeros(batch),
        certified=np.ones(batch, bool),
        kind="exact",
        method="closed-form price mixtures (Bertrand-Edgeworth)",
        citation="Kreps and Scheinkman (1983); Levitan and Shubik (1972)",
        exists=np.ones(batch, bool),
        selection="unique; where everyone can be served twice, price = cost",
        on_path=market.by_stage({"pricing": strategy.decisions} if isinstance(strategy, Pure) else {}),
    )


def _pooled_equilibrium(
    market: SpectrumBertrand, theta: Any, batch: int, game: sellers.Sellers, pure: sellers.SellerStage
) -> Equilibrium:
    """Pools in the gap: a finite mixture per market and what it leaves to gain."""
    rows, n = game.value.size, 2
    _need_room(market, theta, game.cost, game.value[:, None])
    pairs = [oracle.pooled_mixture(game, b) for b in range(rows)]
    size = max(len(p) for pair in pairs for p in pair.prices)
    values, weights = np.zeros((size, rows, n, 1)), np.zeros((size, rows, n))
    for b, pair in enumerate(pairs):
        for j in (0, 1):
            k = len(pair.prices[j])
            values[:k, b, j, 0], weights[:k, b, j] = pair.prices[j], pair.weights[j]
            values[k:, b, j, 0] = pair.prices[j][-1]
    profit = spread(np.stack([pair.profit for pair in pairs]), batch)
    epsilon = spread(np.array([pair.gain.max() for pair in pairs]), batch)
    total = np.stack([_expected_payoff(game, b, pair) for b, pair in enumerate(pairs)])
    payoffs = {"seller": profit, "buyer": spread(total[:, None] + np.zeros((1, market.params.n_buyers)), batch)}
    grow = (size, batch, n)
    mix = Samples(np.array(np.broadcast_to(values, (*grow, 1))), np.array(np.broadcast_to(weights, grow)))
    return Equilibrium(
        strategy=market.by_stage({"pricing": mix, "bidding": Reply(lambda s: _answer(market, s))}),
        values=payoffs,
        epsilon=epsilon,
        certified=np.zeros(batch, bool),
        kind="estimate",
        method="no pure equilibrium; Lemke-Howson, sequential linear programs and best replies over all prices",
        citation=CITATION,
        exists=np.ones(batch, bool),
        selection="the symmetric mixture for equal sellers",
    )


def _need_room(market: SpectrumBertrand, theta: Any, low: Floats, high: Floats) -> None:
    """Raise where the price range cuts into the prices of a mixture.

    Raises:
        NotOffered: the mixture needs prices outside [price_floor, price_cap].
    """
    floor, cap = theta.price_floor * theta.worth, theta.price_cap * theta.worth
    if np.any(low < floor - 1e-12) or np.any(high > cap + 1e-12):
        raise NotOffered(
            f"the mixed equilibrium plays prices up to {float(np.max(high)):g}, outside the price range; "
            "widen price_floor and price_cap, or give price_levels for a grid with its own oracle"
        )


def _expected_payoff(game: sellers.Sellers, row: int, pair: Any) -> float:
    one = sellers.markets(game, np.array([row]))
    price = np.stack(np.broadcast_arrays(pair.prices[0][:, None], pair.prices[1][None, :]), -1)[None]
    return float(pair.weights[0] @ sellers.respond(one, price).payoff[0] @ pair.weights[1])


def _respond_at(market: SpectrumBertrand, theta: Any, pricing: Floats, batch: int) -> tuple[Strategy, Floats, Floats]:
    """Buyers' strategy at prices (B, N, g), their payoffs (B, M) and their largest gain (B,)."""
    game = group_game(market, game_of(market, theta))
    if game.value.size != batch:
        game = sellers.markets(game, np.zeros(batch, int))
    price = pricing.reshape(batch, -1)[:, market.group_price]
    mixture = bid_mixture(market, game, price)
    payoff = np.repeat(mixture.stage.payoff[:, None], market.params.n_buyers, -1)
    if market.params.bid_levels is None or market.params.payment == "posted":
        return mixture, payoff, np.zeros(batch)
    coarse = grid_mixture(market, mixture)
    gain, value, _ = samples_outcome(market, game, price, coarse)
    return coarse, value, gain


def _answer(market: SpectrumBertrand, state: State) -> Strategy:
    """The buyers' equilibrium at the prices committed in ``state``."""
    return _respond_at(
        market, theta_rows(market, state), market.backend.numpy(state.decisions["pricing"]), market.batch(state)
    )[0]


def respond(market: SpectrumBertrand, state: State, prefix: Mapping[str, Any]) -> Equilibrium:
    """The buyers' symmetric equilibrium at posted prices.

    Raises:
        NotOffered: private values, or a market without buyer agents.
    """
    need_common(market)
    if not market.auction:
        raise NotOffered("clearing and logit have one stage: there is nobody to respond")
    batch, theta = market.batch(state), theta_rows(market, state)
    pricing = market.backend.numpy(market.committed(state, prefix).decisions["pricing"])
    strategy, payoff, gain = _respond_at(market, theta, pricing, batch)
    if market.params.price_groups == 1:
        profit = table_profit(market, rows_for(theta, batch), pricing[:, :, 0])
    else:
        game = group_game(market, game_of(market, rows_for(theta, batch)))
        price = pricing.reshape(batch, -1)[:, market.group_price]
        if isinstance(strategy, Samples):
            by_group = samples_outcome(market, game, price, strategy)[2]
        else:
            by_group = sellers.profits(game, sellers.respond(game, price))
        profit = np.stack([by_group[:, market.group_seller == j].sum(-1) for j in range(market.params.n_sellers)], -1)
    values = {"seller": profit, "buyer": payoff}
    return Equilibrium(
        strategy=market.by_stage({"bidding": strategy}),
        values=values,
        epsilon=gain,
        certified=certified("exact", gain, payoff_scale(values)),
        kind="exact",
        method="urn game: attractions equalised by bracketing, bids in closed form",
        citation=CITATION,
        exists=np.ones(batch, bool),
        selection="symmetric; coordinated equilibria exist besides",
    )


def optimum(market: SpectrumBertrand, state: State) -> SocialOptimum:
    """Largest total surplus: the cheapest units, one per buyer (logit: the sellers' joint monopoly, whose surplus is profit)."""
    theta, batch, p = theta_rows(market, state), market.batch(state), market.params
    if p.matching == "logit":
        game = logit_game(theta)
        if p.price_levels is not None:
            return _grid_optimum(market, theta, batch)
        price = logit.monopoly(game)
        value = logit.profits(game, price).sum(-1)
        pricing = market.by_stage({"pricing": spread(price[:, :, None], batch)})
        return SocialOptimum(spread(value, batch), pricing, "exact", "joint monopoly (only sellers are agents here)")
    if p.matching == "clearing":
        joint = reference_numbers(market, theta)[1]
        return SocialOptimum(
            spread(np.asarray(joint)[:, 0], batch), None, "exact", "all surplus to the sellers (the only agents)"
        )
    if p.fidelity == "paper":
        raise NotOffered("the printed payoffs burn money; the corrected market has a social optimum")
    if p.values == "private":
        best = -np.sort(-market.backend.numpy(state.nature["type"]), -1) * theta.worth
        units = int(np.sum(theta.channels[0]))
        return SocialOptimum(best[:, :units].sum(-1), None, "bound", "highest types served at no cost")
    game_a = game_of(market, theta)
    value = sellers.social_optimum(game_a)
    uncoordinated = sellers.welfare(game_a, sellers.equilibrium(game_a).buyers)
    extra = {"price_of_anarchy": spread(value / uncoordinated, batch)}
    return SocialOptimum(spread(value, batch), None, "exact", "cheapest units first, one per buyer", extra)


def _grid_optimum(market: SpectrumBertrand, theta: Any, batch: int) -> SocialOptimum:
    """Best joint profit on the price grid: every common and every pair of prices of two sellers."""
    from .grids import grid_levels

    n, levels = market.params.n_sellers, grid_levels(theta, int(market.params.price_levels or 2))
    if n != 2:
        raise NotOffered("logit prices on a grid have a social optimum for two sellers; use continuous prices")
    k = levels.shape[1]
    pairs = np.stack(np.broadcast_arrays(levels[:, :, None], levels[:, None, :]), -1).reshape(-1, k * k, 2)
    total = table_profit(market, theta, pairs).sum(-1)
    best = total.argmax(-1)
    price = np.take_along_axis(pairs, best[:, None, None], 1)[:, 0]
    decisions = market.by_stage({"pricing": spread(price[:, :, None], batch)})
    return SocialOptimum(spread(total.max(-1), batch), decisions, "exact", "every pair of prices on the grid")


def analysis(market: SpectrumBertrand, state: State) -> dict[str, Any]:
    """Extras: reference profits of the collusion index, the all-pay kink, logit Nash and monopoly prices, the printed equilibrium."""
    theta, p = theta_rows(market, state), market.params
    nash, joint = reference_numbers(market, theta)
    out: dict[str, Any] = {"nash_profit": np.asarray(nash), "joint_profit": np.asarray(joint)}
    if p.matching == "logit":
        game = logit_game(theta)
        out |= {"nash_price": logit.nash(game), "monopoly_price": logit.monopoly(game)}
    if p.matching == "channel" and p.payment == "all_pay" and p.n_sellers == 2 and p.values == "common":
        out["kink_range"] = sellers.kink_range(game_of(market, theta))
    if p.values == "private" and p.payment != "posted" and p.price_groups == 1:
        units = int(theta.channels[0].sum())
        worth = float(theta.worth[0, 0])
        mass: dict[str, Any] = {"q": 1.0 / units} if p.matching == "channel" else {"pooled": units}

        def bid(value: Any, price: Any) -> Floats:
            """Equilibrium bid of a buyer of this value when all sellers (one, if pooled) post this price; NaN: stays out."""
            return worth * private.bid(
                p.payment, np.asarray(value) / worth, np.asarray(price) / worth, p.n_buyers, **mass
            )

        if p.matching == "channel" or p.n_sellers == 1:
            out["bid"] = bid
    if p.fidelity == "paper" and p.n_sellers == 2:
        out["printed_equilibrium"] = literal.equilibrium_payoffs(
            float(theta.worth[0, 0]), p.n_buyers, int(theta.channels[0, 0])
        )
    return out
