"""From the market's states to its oracles and back: equilibria, best replies, optimum, analysis. NumPy float64.

Three regimes:

* *analytic* (continuous bids and bandwidth, ideal lower tier, a bidder per operator): `oracle`, exact, all B at once;
* *pool* (a finite pool of bids): every profile of every market is evaluated by the rules themselves, `pools` finds the
  pure equilibria or proves that there is none;
* otherwise (continuous bids over whole blocks, or a central bidder with continuous bids): search, never certified.

Slicers always re-answer: their best split for every number of blocks is enumerated (`reply_table`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import NotOffered
from ...solution import gains as certificates
from ...strategy import Equilibrium, Pure, Reply, SocialOptimum
from . import oracle, pools, posting, radio, replies, settlement, slices
from .game import Game, block_values

if TYPE_CHECKING:
    from ...market import State
    from .rules import TwoTierBidding

CITATION = "Johari and Tsitsiklis 2004 (kelly, posted); Maheswaran and Basar 2006, Yang and Hajek 2007 (efficient)"


# -- equilibrium ------------------------------------------------------------------------------------------------------


class _Bidding(NamedTuple):
    """A solved bidding stage of the game's markets."""

    decisions: np.ndarray
    epsilon: np.ndarray
    exists: np.ndarray
    kind: str
    method: str
    selection: str
    alternatives: tuple


def equilibrium(market: TwoTierBidding, state: State) -> Equilibrium:
    """Equilibrium of every market; with an infrastructure agent, of its price leadership (searched, not certified)."""
    game = Game(market, state)
    prefix: dict[str, np.ndarray] = {}
    lead: posting.Lead | None = None
    if market.params.posting == "agent":
        lead = posting.lead(game)
        prefix["posting"] = lead.prices
    solved = bidding(game, prefix)
    return _assemble(market, state, game, prefix, solved, lead)


def respond(market: TwoTierBidding, state: State, prefix: Mapping[str, Any]) -> Equilibrium:
    """Equilibrium of the stages after those committed in ``prefix``."""
    named = {market.stage(k).name: v.decisions if isinstance(v, Pure) else v for k, v in prefix.items()}
    given = market.committed(state, named).decisions
    fixed = {k: market.backend.numpy(v) for k, v in given.items()}
    game = Game(market, state)
    if fixed:
        game = game.unfold()
    if "bidding" in fixed:
        decided = dict(fixed)
        if market.params.slicers and "slicing" not in decided:
            _, blocks = game.market.allocate(game.state, game.market.bids(decided))
            decided["slicing"] = game.slicing(blocks)
        values = {k: np.asarray(v) for k, v in game.market.expected(game.state, decided).items()}
        later = {k: v for k, v in decided.items() if k not in fixed}
        return _result(
            market, later, values, np.zeros(game.full), np.ones(game.full, bool), "exact", "split enumeration"
        )
    return _assemble(market, state, game, fixed, bidding(game, fixed), None, skip=tuple(fixed))


def bidding(game: Game, prefix: Mapping[str, np.ndarray]) -> _Bidding:
    """The bidding stage given prices (if an agent posts them)."""
    p = game.params
    if game.analytic:
        auction = game.auction(prefix)
        solution = oracle.equilibrium(auction)
        gain = oracle.gains(auction, solution.bids).max(-1)
        exact = p.payment != "eq4_literal" or bool(solution.dominant.all())
        method = "bracketed Newton on ln(sum of bids)" if not p.payment.startswith("eq4") else "dominant caps"
        selection = "dominant strategies" if p.payment.startswith("eq4") else "unique"
        kind = "exact" if exact else "estimate"
        return _Bidding(solution.bids[..., None], gain, solution.exists, kind, method, selection, ())
    if p.bid_levels is not None and p.bid_levels**game.operators <= pools.MAX_PROFILES:
        return _pool_equilibrium(game, prefix)
    return _searched(game, prefix)


def _pool_equilibrium(game: Game, prefix: Mapping[str, np.ndarray]) -> _Bidding:
    levels, central = game.pool(), game.params.control == "central"
    size, m = levels.shape[-1], game.operators
    payoffs = game.pool_payoffs(prefix)
    at, epsilon, exists, others = [], [], [], []
    for row in range(game.batch):
        if central:
            at.append(np.array(np.unravel_index(int(payoffs[:, row, 0].argmax()), (size,) * m)))
            epsilon.append(0.0)
            exists.append(True)
            continue
        found = pools.solve_pool(payoffs[:, row].reshape((size,) * m + (m,)))
        at.append(found.best)
        epsilon.append(found.epsilon)
        exists.append(len(found.profiles) > 0)
        others.append({"bidding": levels[row][np.arange(m), found.profiles]})
    decisions = np.take_along_axis(levels, np.stack(at)[..., None], -1)
    decisions = np.swapaxes(decisions, 1, 2) if central else decisions
    method = f"enumeration of all {size}^{m} profiles"
    selection = "best joint bid" if central else "largest total payoff among the pure equilibria (else least NashConv)"
    return _Bidding(decisions, np.array(epsilon), np.array(exists), "exact", method, selection, tuple(others))


def _searched(game: Game, prefix: Mapping[str, np.ndarray]) -> _Bidding:
    """Sequential best replies from the analytic equilibrium; the profile of least gain met on the way.

    Where replies are exact so is its epsilon (``kind="bound"``): with whole blocks everybody shaves its bid down to a breakpoint, and
    in general no profile is stable to the last credit. Where replies are searched it is an estimate.
    """
    low, high = (np.broadcast_to(b, (game.batch, *b.shape[1:])) for b in game.market.bounds(game.state, "bidding"))
    bids = np.clip(_analytic_start(game, prefix), low, high)
    best, least = bids, np.full(game.batch, np.inf)
    exact = False
    for step in range(60):
        reply, gain, exact = replies.reply_to(game, bids, prefix)
        worst = gain.max(-1)
        better = worst < least
        best = np.where(better[:, None, None], bids, best)
        least = np.minimum(worst, least)
        if (least <= 0).all() or (step == 11 and not exact):
            break
        mover = gain.argmax(-1)  # the one with most to gain moves
        pick = np.arange(gain.shape[1]) == mover[:, None]
        bids = np.where(pick[..., None], reply, bids)
    how = "at the breakpoints of the rounding" if exact else f"on {replies.GRID} bids, refined"
    kind = "bound" if exact else "estimate"
    return _Bidding(
        best, least, np.ones(game.batch, bool), kind, f"sequential best replies {how}", "least gain found", ()
    )


def _analytic_start(game: Game, prefix: Mapping[str, np.ndarray]) -> np.ndarray:
    auction = game.auction(prefix)
    bids = oracle.equilibrium(auction).bids
    return bids[:, None, :] if game.params.control == "central" else bids[..., None]


def _assemble(
    market: TwoTierBidding,
    state: State,
    game: Game,
    prefix: Mapping[str, np.ndarray],
    solved: _Bidding,
    lead: posting.Lead | None,
    skip: tuple[str, ...] = (),
) -> Equilibrium:
    """An ``Equilibrium`` from a solved bidding stage."""
    path = {**prefix, "bidding": solved.decisions}
    if market.params.slicers:
        _, blocks = game.market.allocate(game.state, game.market.bids(path))
        path["slicing"] = game.slicing(blocks)
    values = {k: game.spread(np.asarray(v)) for k, v in game.market.expected(game.state, path).items()}
    on_path = {k: game.spread(v) for k, v in path.items() if k not in skip}
    epsilon, kind, method = game.spread(solved.epsilon), solved.kind, solved.method
    if lead is not None:
        epsilon, kind = np.maximum(epsilon, game.spread(lead.epsilon)), "estimate"
        method = f"{lead.method}; {method}"
    return _result(
        market,
        on_path,
        values,
        epsilon,
        game.spread(solved.exists),
        kind,
        method,
        solved.selection,
        solved.alternatives,
    )


def _result(
    market: TwoTierBidding,
    decisions: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    epsilon: np.ndarray,
    exists: np.ndarray,
    kind: str,
    method: str,
    selection: str = "unique",
    alternatives: tuple = (),
) -> Equilibrium:
    if market.params.packets_flow:
        kind = "estimate"  # of one round, knowing its packets; queues and later rounds are left out
    strategy: dict[str, Any] = {}
    first = True
    for stage in market.stages:
        if stage.name in decisions:
            strategy[stage.name] = Pure(decisions[stage.name]) if first else Reply(_Answer(market, stage.name))
            first = False
    scale = certificates.payoff_scale(values)
    certified = certificates.certified(kind, epsilon, scale) & exists
    return Equilibrium(
        strategy=market.by_stage(strategy),
        values=values,
        epsilon=epsilon,
        certified=certified,
        kind=kind,
        method=method,
        citation=CITATION,
        exists=exists,
        selection=selection,
        alternatives=alternatives,
        on_path=market.by_stage(decisions),
    )


@dataclass(frozen=True)
class _Answer:
    """A later stage's map from a state, in which the earlier stages are committed, to its equilibrium decisions."""

    market: TwoTierBidding
    stage: str

    def __call__(self, state: State) -> Pure:
        earlier = {}
        for stage in self.market.stages:
            if stage.name == self.stage:
                break
            earlier[stage.name] = state.decisions[stage.name]
        here = state._replace(decisions={})
        return Pure(respond(self.market, here, earlier).on_path[self.stage])


# -- welfare and analysis ---------------------------------------------------------------------------------------------


def optimum(market: TwoTierBidding, state: State) -> SocialOptimum:
    """Largest welfare: the total value over all divisions of the band, or the shared F over all profiles (team)."""
    game = Game(market, state)
    if market.params.reward == "team":
        return _team_optimum(market, game)
    if market.params.allocation == "continuous":
        auction = game.auction({"posting": np.ones((game.batch, 1, game.operators))})
        c, value = oracle.social_optimum(auction)
        method = "equal marginal values"
    else:
        blocks, value = slices.divide_blocks(block_values(game))
        c = blocks * game.theta.bandwidth / market.params.blocks
        method = "dynamic program over blocks"
    return SocialOptimum(game.spread(value), None, "exact", method, {"bandwidth": game.spread(c)})


def _team_optimum(market: TwoTierBidding, game: Game) -> SocialOptimum:
    """Largest F: over the pools' profiles, else over all divisions of the blocks where profit depends on own blocks."""
    p = market.params
    if p.bid_levels is not None and p.bid_levels**p.n_operators <= pools.MAX_PROFILES and p.posting != "agent":
        payoffs = game.pool_payoffs({})[..., 0]
        levels = game.pool()
        at = np.stack(np.unravel_index(payoffs.argmax(0), (levels.shape[-1],) * p.n_operators), -1)
        bids = np.take_along_axis(levels, at[..., None], -1)
        bids = np.swapaxes(bids, 1, 2) if p.control == "central" else bids
        method = "enumeration of all profiles"
        return SocialOptimum(game.spread(payoffs.max(0)), None, "exact", method, {"bidding": game.spread(bids)})
    if not p.payment.startswith("eq4"):
        raise NotOffered("the optimum of F needs a pool of bids, or payment='eq4' (profit from own blocks only)")
    blocks, value = slices.divide_blocks(_objective_worth(game, best_table(game)))
    return SocialOptimum(
        game.spread(value), None, "exact", "dynamic program over blocks", {"blocks": game.spread(blocks)}
    )


def best_table(game: Game) -> slices.Splits:
    """Table A of the game's markets."""
    t, net = game.theta, game.network
    tables = slices.SliceTables(net.ssr, net.rate, net.radial, float(np.max(t.bandwidth)) / game.params.blocks)
    return slices.best_splits(tables, t.rho, radio.split_gain(game.params, np, t))


def _objective_worth(game: Game, table: slices.Splits) -> np.ndarray:
    """What n blocks add to F, (B, M, N+1), under eq. (4)'s payments: f + omega y at table A's split."""
    t, share = game.theta, np.arange(game.params.blocks + 1) / game.params.blocks
    w = t.value_weight[:, :, None]
    if game.params.payment == "eq4_literal":
        profit = w * table.rate * (1.0 - t.penalty_constant[:, :, None] * share * (1.0 - share))
    else:
        profit = w * (table.rate - t.bandwidth[:, :, None] * share * table.marginal * (1.0 - share))
    return table.utility + settlement.omega(game.market, t)[:, :, None] * profit


def analysis(market: TwoTierBidding, state: State) -> dict[str, Any]:
    """Extras, each an array with leading axis B where it has one.

    ``efficiency``: welfare at the equilibrium over the optimum. ``efficient_prices``: posted prices that make the
    optimum the equilibrium (analytic markets). ``table_a``: `slices.Splits` of both tiers' exact lower layer.
    ``best_division``: blocks that maximise the sum of utilities f. ``objective_optimum``: blocks and value of the
    paper's objective F, where profit depends on own blocks only (payments 'eq4' and 'eq4_literal').
    ``pure_equilibria``: all pure equilibria of a pool market, one array of bids per solved market.
    """
    game = Game(market, state)
    out: dict[str, Any] = {}
    solved = equilibrium(market, state)
    best = optimum(market, state)
    reached = market.outcome(state, {k: solved.on_path[k] for k in solved.on_path})
    out["efficiency"] = market.backend.numpy(reached.metrics["welfare"]) / best.value
    if game.analytic and game.params.kind != "linear":
        out["efficient_prices"] = game.spread(1.0 - best.extra["bandwidth"][: game.batch] / game.theta.bandwidth)
    if solved.alternatives:
        out["pure_equilibria"] = tuple(a["bidding"] for a in solved.alternatives)
    if game.params.lower != "ideal":
        table = out["table_a"] = best_table(game)
        out["best_division"] = slices.divide_blocks(table.utility)
        if game.params.payment.startswith("eq4"):
            out["objective_optimum"] = slices.divide_blocks(_objective_worth(game, table))
    return out
