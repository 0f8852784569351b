"""From states of the AI-Bazaar market to its solvers, and back to certified equilibria.

Solvers take a :class:`~.game.Game` (NumPy float64). Parameters that are the same in every market are solved once and broadcast.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...solution.gains import certified, payoff_scale
from ...strategy import BestResponse, Equilibrium, Pure, Reply, SocialOptimum
from . import followers, leader, literal, welfare
from .game import FloatArray, Game

if TYPE_CHECKING:
    from ...market import State
    from .rules import AIBazaar

CITATION = "marketenvs docs, AI-Bazaar (aggregative Tullock contest with boxes; path-following leader)"


def game_of(market: AIBazaar, state: State) -> Game:
    """The state's games; one market only, if all markets have the same parameters."""
    t = market.theta64(state)
    rows = max(
        a.shape[0]
        for a in (t.margin, t.reward, t.payment_weight, t.mining_ratio, t.purchase_min, t.unit_cost, t.price_min)
    )
    rows = max(rows, t.purchase_max.shape[0], t.price_max.shape[0])
    n = market.params.n_consumers

    def consumers(a: FloatArray) -> FloatArray:
        return np.ascontiguousarray(np.broadcast_to(a, (rows, n)))

    def markets(a: FloatArray) -> FloatArray:
        return np.ascontiguousarray(np.broadcast_to(a, (rows, 1))[:, 0])

    return Game(
        payment_weight=consumers(t.payment_weight),
        business_margin=consumers(t.margin),
        mining_ratio=consumers(t.mining_ratio),
        reward=consumers(t.reward),
        purchase_low=consumers(t.purchase_min),
        purchase_high=consumers(t.purchase_max),
        unit_cost=markets(t.unit_cost),
        price_low=markets(t.price_min),
        price_high=markets(t.price_max),
    )


def rows_for(game: Game, batch: int) -> Game:
    """The games of all B markets of a state (a shared one is repeated)."""
    return game if game.markets == batch else game.at(np.zeros(batch, dtype=np.int64))


def _spread(array: Any, batch: int) -> Any:
    return np.broadcast_to(array, (batch, *array.shape[1:])).copy() if array.shape[0] == 1 else array


def leader_optimum(market: AIBazaar, state: State) -> leader.LeaderSolution:
    """Stackelberg prices of the state's markets, remembered for as long as the parameters stay the same object."""
    known = getattr(market, "_leader_memo", None)
    if known is not None and known[0] is state.theta:
        return known[1]
    solution = leader.leader_equilibrium(game_of(market, state))
    market._leader_memo = (state.theta, solution)  # type: ignore[attr-defined]
    return solution


def _values(game: Game, price: FloatArray, bought: FloatArray) -> dict[str, FloatArray]:
    return {
        "provider": followers.provider_payoff(game, price, bought)[:, None],
        "consumer": followers.consumer_payoff(game, price, bought),
    }


def _answer(market: AIBazaar, state: State) -> Pure:
    """The consumers' equilibrium at the price that is committed in ``state``."""
    price = market.backend.numpy(state.decisions["pricing"])[:, 0, 0]
    return Pure(followers.follower_equilibrium(rows_for(game_of(market, state), len(price)), price)[:, :, None])


def equilibrium(market: AIBazaar, state: State) -> Equilibrium:
    """Stackelberg equilibrium with its certificate."""
    if market.params.price_levels is not None:
        from . import solve_grid

        return solve_grid.equilibrium(market, state)
    batch, game = market.batch(state), game_of(market, state)
    solution = leader_optimum(market, state)
    price = solution.price
    bought = followers.follower_equilibrium(game, price)
    values = _values(game, price, bought)
    regret = followers.regrets(game, price, bought)
    epsilon = np.maximum(regret.max(axis=1), solution.value - values["provider"][:, 0])
    exists = followers.equilibrium_attained(game, price)
    ok = certified("exact", epsilon, payoff_scale(values)) & exists
    decisions = {"pricing": price[:, None, None], "purchase": bought[:, :, None]}
    decisions = {k: _spread(v, batch) for k, v in decisions.items()}
    ties = solution.ties
    return Equilibrium(
        strategy=market.by_stage({"pricing": Pure(decisions["pricing"]), "purchase": Reply(partial(_answer, market))}),
        values={role: _spread(v, batch) for role, v in values.items()},
        epsilon=_spread(epsilon, batch),
        certified=_spread(ok, batch),
        kind="exact",
        method="exact path-following over the consumers' active sets; consumers by bisection and exact active-set steps",
        citation=CITATION,
        exists=_spread(exists, batch),
        selection="lowest optimal price; ties of consumers with linear payoffs go to the largest purchase",
        alternatives=tuple({"pricing": _spread(ties[:, [k]], batch)[:, :, None]} for k in range(1, ties.shape[1])),
        on_path=market.by_stage(decisions),
    )


def respond(market: AIBazaar, state: State, prefix: Mapping[str, Any]) -> Equilibrium:
    """The consumers' Nash equilibrium at posted prices."""
    if market.params.price_levels is not None:
        from . import solve_grid

        return solve_grid.respond(market, state, prefix)
    batch = market.batch(state)
    decisions = market.committed(state, prefix).decisions
    posted = market.backend.numpy(decisions["pricing"])
    game, price = rows_for(game_of(market, state), batch), posted[:, 0, 0]
    bought = followers.follower_equilibrium(game, price)
    values = _values(game, price, bought)
    epsilon = followers.regrets(game, price, bought).max(axis=1)
    exists = followers.equilibrium_attained(game, price)
    return Equilibrium(
        strategy=market.by_stage({"purchase": Pure(bought[:, :, None])}),
        values=values,
        epsilon=epsilon,
        certified=certified("exact", epsilon, payoff_scale(values)) & exists,
        kind="exact",
        method="bisection on total effort and exact active-set steps",
        citation=CITATION,
        exists=exists,
        selection="unique; ties of consumers with linear payoffs go to the largest purchase",
        on_path=market.by_stage({"pricing": posted, "purchase": bought[:, :, None]}),
    )


def best_reply(market: AIBazaar, state: State, stage: str, decisions: Mapping[str, FloatArray]) -> BestResponse:
    """Exact best deviations: the provider's against re-answering consumers, each consumer's against fixed rivals."""
    if market.params.price_levels is not None:
        from . import solve_grid

        return solve_grid.best_reply(market, state, stage, decisions)
    batch = market.batch(state)
    game, price = rows_for(game_of(market, state), batch), decisions["pricing"][:, 0, 0]
    if stage == "pricing":
        solution = leader_optimum(market, state)
        played = followers.provider_payoff(game, price, followers.follower_equilibrium(game, price))
        best, value = _spread(solution.price, batch), _spread(solution.value, batch)
        best, value = np.where(value > played, best, price), np.maximum(value, played)
        gains = (value - played)[:, None]
        return BestResponse(
            best[:, None, None], value[:, None], gains, gains, "exact", "path-following, consumers re-answer"
        )
    bought = decisions["purchase"][:, :, 0]
    gains = followers.regrets(game, price, bought)
    best_amount = followers.best_response(game, price, bought)
    values = followers.consumer_payoff(game, price, bought) + gains
    best_amount = np.where(gains > 0, best_amount, bought)
    return BestResponse(best_amount[:, :, None], values, gains, gains, "exact", "closed form (12), (13)")


def optimum(market: AIBazaar, state: State) -> SocialOptimum:
    """Resource welfare's optimum (payments removed; the price does not matter); the utility-weighted one is in ``extra``.

    On a grid this is the continuous box's optimum, an upper bound (``kind="bound"``).
    """
    batch, game = market.batch(state), game_of(market, state)
    resource, utility = welfare.social_optimum(game, "resource"), welfare.social_optimum(game, "utility")
    exact = bool(resource.exact.all() and resource.attained.all()) and market.params.price_levels is None
    price = np.broadcast_to(game.price_low, resource.value.shape)
    return SocialOptimum(
        value=_spread(resource.value, batch),
        decisions=market.by_stage(
            {
                "pricing": _spread(price[:, None, None], batch),  # any price: payments are removed
                "purchase": _spread(resource.purchases[:, :, None], batch),
            }
        ),
        kind="exact" if exact else "bound" if market.params.price_levels else "estimate",
        method="at most one consumer strictly inside its box: enumeration of the box's edges (a search over S for many consumers)",
        extra={
            "utility_welfare": _spread(utility.value, batch),
            "utility_price": _spread(utility.price, batch),
            "utility_purchases": _spread(utility.purchases, batch),
        },
    )


def analysis(market: AIBazaar, state: State) -> dict[str, Any]:
    """Extras of the market, each for all B markets.

    Returns:
        ``leader_ties`` (B, T) all optimal prices; ``leader_upper`` (B,) a proven upper bound of the provider's best value (branch and
        bound, independent of the path-following); ``provider_optimum`` and ``consumers_optimum`` (the two one-sided optima of Fig. 8a);
        ``maximin`` (price, purchases, provider's payoff): the fixed point of MiniMax-Q; ``game``: the numbers the solvers work on;
        ``paper``: the paper's closed forms (18), (22), (26) at the equilibrium price, with the flags that say whether they apply.
        On a grid the two keys of the leader are left out: they are of the continuous game.
    """
    game = game_of(market, state)
    solution = leader_optimum(market, state)
    continuous = {
        "leader_ties": solution.ties,
        "leader_upper": leader.certify_leader(game, solution.value),
    }
    return {
        **(continuous if market.params.price_levels is None else {}),
        "paper": literal.paper_closed_form(game, solution.price),
        "provider_optimum": welfare.provider_optimum(game),
        "consumers_optimum": welfare.consumers_optimum(game),
        "maximin": welfare.maximin_profile(game),
        "game": game,
    }
