"""Payoffs of bidders at many bid profiles of one market: everything that depends on own blocks is looked up.

With a lower tier, what an operator makes of its bandwidth depends on its number of blocks alone. These tables, computed once per market,
turn the enumeration of a pool (K^M profiles) into rounding and look-ups; the rules give the same numbers one profile at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import oracle, radio, settlement, slices

if TYPE_CHECKING:
    from .game import Game
    from .parameters import BiddingParams


class BlockTables(NamedTuple):
    """What 0..N blocks give an operator when its split is the one its slicer answers, (B|1, M, N+1) each."""

    worth: np.ndarray
    """Value of the rate, w v."""
    radial: np.ndarray
    """w c v'(c): the value gained per relative growth of the share."""
    utility: np.ndarray
    """f of eq. (14)."""


def offered(p: BiddingParams) -> bool:
    """Whether payoffs are functions of own blocks and bids alone (the paper's shaped reward goes through the rules)."""
    return p.allocation == "blocks" and p.reward != "paper"


def tabulate(game: Game) -> BlockTables:
    """The tables of all markets of a game."""
    t, net = game.theta, game.network
    if game.params.lower == "ideal":
        return _ideal(game)
    answer = np.moveaxis(np.round(game.tiers().blocks).astype(int), -1, 2)

    def at(table: np.ndarray) -> np.ndarray:
        return np.take_along_axis(np.broadcast_to(table, np.broadcast_shapes(table.shape, answer.shape)), answer, -1)

    rate, weight = at(net.rate).sum(2), t.value_weight[:, :, None]
    c = t.bandwidth[:, :, None] * np.arange(game.params.blocks + 1) / game.params.blocks
    efficiency = np.where(c > 0, rate / np.where(c > 0, c, 1.0), 0.0)
    satisfied = (radio.split_gain(game.params, np, t)[..., None] * at(net.ssr)).sum(2)
    return BlockTables(weight * rate, weight * at(net.radial).sum(2), t.rho[:, :, None] * efficiency + satisfied)


def _ideal(game: Game) -> BlockTables:
    """The same for the closed-form split: no satisfaction, hence no utility."""
    p, t = game.params, game.theta
    shape = (game.batch, game.operators, p.blocks + 1)
    c = np.broadcast_to(t.bandwidth[:, :, None] * np.arange(p.blocks + 1) / p.blocks, shape)
    snr = np.broadcast_to(game.network.snr[:, :, None], shape)
    wide = type(t)(*(f[..., None] if isinstance(f, np.ndarray) and f.ndim == 2 else f for f in t))
    worth = t.value_weight[:, :, None] * radio.operator_value(p, np, wide, snr, c)
    slope = radio.operator_marginal(p, np, wide, snr, np.where(c > 0, c, 1.0))
    return BlockTables(worth, t.value_weight[:, :, None] * c * slope, np.zeros(shape))


def own_payoff(
    game: Game, tables: BlockTables, i: int, blocks: np.ndarray, bids: np.ndarray, price: np.ndarray
) -> np.ndarray:
    """Operator i's payoff (B, N) where it holds ``blocks`` (B, N) after bidding ``bids[..., i]``, bids (B, N, M), price (B, M).

    For rewards that depend on own blocks and payment alone (``profit`` and ``utility``).
    """
    p, t = game.params, game.theta
    worth, radial, utility = (
        np.take_along_axis(np.broadcast_to(a[:, i], (len(blocks), a.shape[-1])), blocks, 1) for a in tables
    )
    own, share = bids[..., i], blocks / p.blocks
    if p.payment in ("kelly", "posted"):
        paid = price[:, i, None] * own
    elif p.payment == "efficient":
        others = oracle.others_of(bids)[..., i]
        paid = np.where(others > 0, price[:, i, None] * others * np.log1p(own / np.where(others > 0, others, 1.0)), 0.0)
    elif p.payment == "eq4":
        paid = radial * (1.0 - share)
    else:
        paid = np.asarray(t.penalty_constant) * worth * share * (1.0 - share)
    profit = worth - paid
    return utility + np.asarray(settlement.omega(game.market, t)) * profit if p.reward == "utility" else profit


def payoffs(game: Game, tables: BlockTables, row: int, bids: np.ndarray, price: np.ndarray) -> np.ndarray:
    """Payoffs (P, n) of the bidding role of market ``row`` at bids (P, M), given prices (M,)."""
    p, t = game.params, game.theta
    row_of = [row % a.shape[0] for a in tables]
    blocks = slices.round_blocks(bids, 1.0, p.blocks)
    own = np.arange(bids.shape[1])
    worth, radial, utility = (a[r][own, blocks] for a, r in zip(tables, row_of, strict=True))
    share = blocks / p.blocks
    if p.payment in ("kelly", "posted"):
        paid = price * bids
    elif p.payment == "efficient":
        others = oracle.others_of(bids)
        paid = np.where(others > 0, price * others * np.log1p(bids / np.where(others > 0, others, 1.0)), 0.0)
    elif p.payment == "eq4":
        paid = radial * (1.0 - share)
    else:
        constant = t.penalty_constant[row % t.penalty_constant.shape[0]]
        paid = constant * worth * share * (1.0 - share)
    omega = np.asarray(settlement.omega(game.market, t))
    omega = omega[row % omega.shape[0]]
    upper = worth - paid
    if p.reward == "utility":
        upper = utility + omega * upper
    elif p.reward == "team":
        upper = (utility + omega * upper).sum(-1, keepdims=True) + 0.0 * upper
    if p.control != "central":
        return upper
    total = upper.sum(-1, keepdims=True)
    return total / p.n_operators if p.reward == "team" else total
