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
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ...solution import gains as certificates
from ...solution import mixtures
from ...strategy import BestResponse, Equilibrium, Pure, Reply, Samples, SocialOptimum, Strategy
from . import oracle, pools, posting, radio, settlement, slices
from .game import Game, block_values
from .parameters import JointPoolCodec

if TYPE_CHECKING:
    from ...market import State
    from .rules import TwoTierBidding

CITATION = "Johari and Tsitsiklis 2004 (kelly, posted); Maheswaran and Basar 2006, Yang and Hajek 2007 (efficient)"
_GRID = 129


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
    """Sequential best replies from the analytic equilibrium; the profile of least gain met on the way. An estimate."""
    low, high = (np.broadcast_to(b, (game.batch, *b.shape[1:])) for b in game.market.bounds(game.state, "bidding"))
    bids = np.clip(_analytic_start(game, prefix), low, high)
    best, least = bids, np.full(game.batch, np.inf)
    for _ in range(12):
        reply, gain = _search_reply(game, bids, prefix)
        worst = gain.max(-1)
        better = worst < least
        best = np.where(better[:, None, None], bids, best)
        least = np.minimum(worst, least)
        if (least <= 0).all():
            break
        mover = gain.argmax(-1)  # the one with most to gain moves
        pick = np.arange(gain.shape[1]) == mover[:, None]
        bids = np.where(pick[..., None], reply, bids)
    method = f"sequential best replies on {_GRID} bids, refined"
    return _Bidding(best, least, np.ones(game.batch, bool), "estimate", method, "least gain found", ())


def _analytic_start(game: Game, prefix: Mapping[str, np.ndarray]) -> np.ndarray:
    auction = game.auction(prefix)
    bids = oracle.equilibrium(auction).bids
    return bids[:, None, :] if game.params.control == "central" else bids[..., None]


def _search_reply(game: Game, bids: np.ndarray, prefix: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Best of a grid for each bid in turn, twice refined: replies (B, n, k) and gains (B, n), a lower bound."""
    low, high = (np.broadcast_to(b, bids.shape) for b in game.market.bounds(game.state, "bidding"))
    current = game.payoffs(bids[None], prefix)[0]
    reply, best = bids.copy(), current.copy()
    agents, width = bids.shape[1:]
    for i in range(agents):
        for k in range(width):
            below, above = low[:, i, k], high[:, i, k]
            for _ in range(3):
                grid = below + (above - below) * np.linspace(0, 1, _GRID)[:, None]
                trial = np.broadcast_to(bids, (_GRID, *bids.shape)).copy()
                trial[:, :, i, :] = reply[:, i, :]
                trial[:, :, i, k] = grid
                worth = game.payoffs(trial, prefix)[..., i]
                at = worth.argmax(0)
                top = np.take_along_axis(worth, at[None], 0)[0]
                bid = np.take_along_axis(grid, at[None], 0)[0]
                better = top > best[:, i]
                best[:, i] = np.where(better, top, best[:, i])
                reply[:, i, k] = np.where(better, bid, reply[:, i, k])
                step = (above - below) / (_GRID - 1)
                below, above = np.maximum(low[:, i, k], bid - step), np.minimum(high[:, i, k], bid + step)
    return reply, np.maximum(best - current, 0.0)


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


# -- best replies -----------------------------------------------------------------------------------------------------


def best_reply(market: TwoTierBidding, state: State, stage: str, decisions: Mapping[str, np.ndarray]) -> BestResponse:
    """Each agent's best deviation at a stage: exact by formula or enumeration, else the best of a refined grid."""
    game = Game(market, state).unfold()
    prefix = {k: v for k, v in decisions.items() if k == "posting"}
    if stage == "posting":
        return posting.best_reply(game, decisions["posting"])
    if stage == "slicing":
        return _best_split(game, decisions)
    bids = np.asarray(decisions["bidding"], float)
    if game.analytic:
        auction = game.auction(prefix)
        flat = bids[..., 0]
        reply = oracle.best_response(auction, flat)
        gain = oracle.gains(auction, flat, reply)
        exact = game.params.payment != "eq4_literal" or bool(oracle.equilibrium(auction).dominant.all())
        values = oracle.settle(auction, flat).payoffs + gain
        upper = gain if exact else np.full_like(gain, np.inf)
        kind = "exact" if exact else "estimate"
        return BestResponse(reply[..., None], values, gain, upper, kind, "first-order condition, clipped to the box")
    if game.params.bid_levels is not None:
        return _best_of_pool(game, bids, prefix)
    reply, gain = _search_reply(game, bids, prefix)
    values = game.payoffs(bids[None], prefix)[0] + gain
    return BestResponse(reply, values, gain, np.full_like(gain, np.inf), "estimate", f"grid of {_GRID} bids, refined")


def _best_of_pool(game: Game, bids: np.ndarray, prefix: Mapping[str, np.ndarray]) -> BestResponse:
    current = game.payoffs(bids[None], prefix)[0]
    if game.params.control == "central":
        stage = game.market.stage("bidding")
        low, high = (np.broadcast_to(b, bids.shape) for b in game.market.bounds(game.state, "bidding"))
        trials = cast(JointPoolCodec, stage.codec).candidates(low, high)
        worth = game.payoffs(trials, prefix)
        at = worth.argmax(0)
        reply = np.take_along_axis(trials, at[None, :, :, None], 0)[0]
        best = worth.max(0)
    else:
        levels = game.pool()  # (B, M, K)
        size, reply, best = levels.shape[-1], bids.copy(), current.copy()
        for i in range(game.operators):
            trial = np.broadcast_to(bids, (size, *bids.shape)).copy()
            trial[:, :, i, 0] = levels[:, i].T
            worth = game.payoffs(trial, prefix)[..., i]
            at = worth.argmax(0)
            top = worth.max(0)
            better = top > current[:, i]
            best[:, i] = np.where(better, top, current[:, i])
            reply[:, i, 0] = np.where(better, levels[np.arange(game.batch), i, at], bids[:, i, 0])
    gain = np.maximum(best - current, 0.0)
    return BestResponse(reply, current + gain, gain, gain, "exact", "every bid of the pool")


def _best_split(game: Game, decisions: Mapping[str, np.ndarray]) -> BestResponse:
    """Slicers: enumeration of all splits of the blocks they hold."""
    market, rows = game.market, np.arange(game.batch)
    _, blocks = market.allocate(game.state, market.bids(decisions))
    played, _ = settlement.split_blocks(market, np.asarray(decisions["slicing"], float), blocks)
    n = np.round(blocks).astype(int)
    tiers = game.tiers()
    index = (rows % tiers.best.shape[0])[:, None]
    best = tiers.best[index, np.arange(game.operators), n]
    now = game.split_objective(np.round(played).astype(int))
    gain = np.maximum(best - now, 0.0)
    value = np.asarray(market.expected(game.state, dict(decisions))[market.stage("slicing").role])
    return BestResponse(game.slicing(blocks), value + gain, gain, gain, "exact", "every split")


def mixed_reply(market: TwoTierBidding, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
    """Best deviation from mixtures: exact for pools of bids and for splits after pure bids, sampled otherwise."""
    strategies = {name: profile[name] for name in (s.name for s in market.stages)}
    if stage == "bidding" and market.params.bid_levels is not None and market.params.control != "central":
        exact = isinstance(strategies["bidding"], (Pure, Samples)) and market.params.posting != "agent"
        if exact and market.params.bid_levels**market.params.n_operators <= pools.MAX_PROFILES:
            return _mixed_pool(market, state, strategies["bidding"])
    elif stage == "slicing" and isinstance(strategies["bidding"], Pure):
        if isinstance(strategies["slicing"], (Pure, Samples)):
            return _mixed_split(market, state, strategies)
    return mixtures.sampled_best_response(market, state, stage, profile)


def _support(strategy: Strategy, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Values (S, B, n, k) and weights (S, B, n) of a finite mixture."""
    if isinstance(strategy, Samples):
        assert strategy.weights is not None
        values, weights = strategy.values, strategy.weights
    else:
        values = cast(Pure, strategy).decisions[None]
        weights = np.ones((1, 1, 1))
    full = (len(values), *shape)
    return np.broadcast_to(values, full), np.broadcast_to(weights, full[:3])


def _mixed_pool(market: TwoTierBidding, state: State, strategy: Strategy) -> BestResponse:
    game = Game(market, state)
    levels, m = game.spread(game.pool()), game.operators
    size = levels.shape[-1]
    values, weights = _support(strategy, (game.full, m, 1))
    nearest = np.abs(values - levels[None]).argmin(-1)  # (S, B, M)
    chance = np.zeros((game.full, m, size))
    rows, agents = np.arange(game.full)[:, None], np.arange(m)
    for point, weight in zip(nearest, weights, strict=True):
        np.add.at(chance, (np.broadcast_to(rows, point.shape), np.broadcast_to(agents, point.shape), point), weight)
    payoffs = game.pool_payoffs({})
    own = np.empty((game.full, m, size))
    for i in range(m):
        table = payoffs[..., i].reshape((size,) * m + (game.batch,))
        for j in reversed([j for j in range(m) if j != i]):  # average out the others, the last axis first
            table = np.moveaxis(table, j, -2)
            table = (table * chance[:, j].T).sum(-2)
        own[:, i] = table.T
    base = (chance * own).sum(-1)
    best = own.max(-1)
    reply = np.take_along_axis(levels, own.argmax(-1)[..., None], -1)
    gain = np.maximum(best - base, 0.0)
    return BestResponse(reply, base + gain, gain, gain, "exact", "every bid against the rivals' mixture")


def _mixed_split(market: TwoTierBidding, state: State, strategies: Mapping[str, Strategy]) -> BestResponse:
    earlier = {k: v.decisions for k, v in strategies.items() if k != "slicing" and isinstance(v, Pure)}
    decisions = {k: market.backend.numpy(v) for k, v in market.committed(state, earlier).decisions.items()}
    game = Game(market, state).unfold()
    _, blocks = game.market.allocate(game.state, game.market.bids(decisions))
    stage = market.stage("slicing")
    values, weights = _support(strategies["slicing"], (game.full, game.operators, stage.codec.width))
    mean = np.zeros(blocks.shape)
    for point, weight in zip(values, weights, strict=True):
        split, _ = settlement.split_blocks(game.market, point, blocks)
        mean += weight * game.split_objective(np.round(split).astype(int))
    answer = _best_split(game, {**decisions, "slicing": game.slicing(blocks)})
    best = game.split_objective(np.round(game.split_of(blocks)).astype(int))
    gain = np.maximum(best - mean, 0.0)
    return BestResponse(answer.decisions, answer.values, gain, gain, "exact", "every split against the own mixture")


# -- welfare and analysis ---------------------------------------------------------------------------------------------


def optimum(market: TwoTierBidding, state: State) -> SocialOptimum:
    """Largest total value of the rates over all divisions of the band (payments are transfers)."""
    game = Game(market, state)
    if market.params.allocation == "continuous":
        auction = game.auction({"posting": np.ones((game.batch, 1, game.operators))})
        c, value = oracle.social_optimum(auction)
        method = "equal marginal values"
    else:
        blocks, value = slices.divide_blocks(block_values(game))
        c = blocks * game.theta.bandwidth / market.params.blocks
        method = "dynamic program over blocks"
    return SocialOptimum(game.spread(value), None, "exact", method, {"bandwidth": game.spread(c)})


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
        t, net = game.theta, game.network
        tables = slices.SliceTables(net.ssr, net.rate, net.radial, float(np.max(t.bandwidth)) / game.params.blocks)
        table = slices.best_splits(tables, t.rho, radio.split_gain(game.params, np, t))
        out["table_a"] = table
        out["best_division"] = slices.divide_blocks(table.utility)
        if game.params.payment.startswith("eq4"):
            c = t.bandwidth[:, :, None] * np.arange(game.params.blocks + 1) / game.params.blocks
            share, w = c / t.bandwidth[:, :, None], t.value_weight[:, :, None]
            profit = w * (table.rate - c * table.marginal * (1.0 - share))
            if game.params.payment == "eq4_literal":
                profit = w * table.rate * (1.0 - t.penalty_constant[:, :, None] * share * (1.0 - share))
            out["objective_optimum"] = slices.divide_blocks(
                table.utility + settlement.omega(game.market, t)[:, :, None] * profit
            )
    return out
