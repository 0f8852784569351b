"""The paper's market as printed: preset ``paper`` (eqs. 1-4, 11-12); shares no branch with the corrected rules.

Bids must exceed the price strictly; every bid is paid, won or lost, and losing or inadmissible ones are burned; sellers
earn ``sum max(bid - price - cost, 0)`` over winning bids (eq. 4), or both the sum of that (eq. 3, ``team_reward``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from ...arrays import Array
    from ...market import State
    from .auction import Auction
    from .rules import SpectrumBertrand

Floats = NDArray[np.float64]


def payoffs(market: SpectrumBertrand, state: State, auction: Auction, served: Array) -> dict[str, Array]:
    """Rewards of eqs. (2) and (4), or (3); ``served`` (B, M) are wins or their probabilities."""
    xp: Any = market.xp
    bids = auction.seller < market.params.n_sellers
    buyer = auction.worth * served - xp.where(bids, auction.bid, xp.zeros_like(auction.bid))
    cost = xp.concat((state.theta.unit_cost + 0.0 * auction.bid[:, :1], 0.0 * auction.bid[:, :1]), axis=1)
    cost = xp.take_along_axis(cost, xp.astype(auction.seller, market._index), axis=1)
    surplus = xp.clip(auction.bid - auction.price - cost, 0.0, None)
    seller = market.by_seller(auction.seller, served * surplus)
    if market.params.team_reward == "shared":
        seller = 0.0 * seller + xp.sum(seller, axis=1, keepdims=True)
    return {"seller": seller, "buyer": buyer}


def equilibrium_payoffs(value: float, buyers: int, channels: int) -> tuple[float, float]:
    """(buyer's payoff, seller's reward) in the printed game's symmetric equilibrium, two sellers, price 0.

    ``U (1-q)^(M-1)`` and ``C U [M (1 - x^(2M-1)) / (2M-1) - x^(M-1) (1 - x^M)]`` with ``q = 1/(2C)``, ``x = 1 - q``.
    """
    x = 1.0 - 1.0 / (2.0 * channels)
    m = buyers
    reward = channels * value * (m * (1 - x ** (2 * m - 1)) / (2 * m - 1) - x ** (m - 1) * (1 - x**m))
    return value * x ** (m - 1), reward


def bid_from_demand(choice: ArrayLike, demand: ArrayLike) -> Floats:
    """Eq. (1): ``Bid = A . D``, weights of the chosen channels; choice and demand ``(..., 2C)``."""
    return (np.asarray(choice, float) * np.asarray(demand, float)).sum(-1)


def printed_boltzmann(q: ArrayLike, temperature: float) -> Floats:
    """Eq. (11) as printed: normalised over the buyers (axis 0), so that a buyer's row does not sum to 1."""
    if temperature <= 0:
        raise ValueError(f"temperature (tau) must be positive; got {temperature}")
    q = np.asarray(q, float)
    weight = np.exp((q - q.max(0, keepdims=True)) / temperature)
    return weight / weight.sum(0, keepdims=True)


def divergence(demand: ArrayLike, estimate: ArrayLike) -> Floats:
    """Eq. (12): KL(D || Dhat) in nats along the last axis."""
    d, e = np.asarray(demand, float), np.asarray(estimate, float)
    return np.where(d > 0, d * np.log(np.where(d > 0, d, 1.0) / e), 0.0).sum(-1)


def share_rule(price: ArrayLike, sold: ArrayLike, step: float, low: float = 0.0, high: float = 1.0) -> Floats:
    """The paper's price rule: the seller with the larger share raises, the other lowers; ties favour seller 1.

    Args:
        price: ``(..., 2)``.
        sold: ``(..., 2)`` buyers served, ``M_1`` and ``M_2``.
        step: size of a move.
        low: lowest price.
        high: highest price.
    """
    price, sold = np.asarray(price, float), np.asarray(sold, float)
    up = np.where(sold[..., 0] >= sold[..., 1], 1.0, -1.0)
    return np.clip(price + step * np.stack([up, -up], -1), low, high)


def two_cell_update(tables: ArrayLike, sold: ArrayLike, reward: ArrayLike, rate: float) -> Floats:
    """Eqs. (13)-(16): the sellers' Q-values as printed, indexed by nothing but the pair of signs (+,-) or (-,+).

    The seller of the larger share (ties: seller 1) learns its reward, the other learns MINUS its reward: of two losing
    sellers the one that earned more is punished more. Rewards are never negative, outcomes (+,+) and (-,-) are booked
    under one of the two labels, and no price occurs: no action can be read from these tables (fidelity point 11).

    Args:
        tables: ``(..., 2, 2)``: seller, cell; cell 0 is (+,-), cell 1 is (-,+).
        sold: ``(..., 2)`` buyers served, ``M_1`` and ``M_2``.
        reward: ``(..., 2)`` rewards of eq. (4).
        rate: alpha.

    Returns:
        The updated tables.
    """
    tables, sold, reward = (np.asarray(x, float) for x in (tables, sold, reward))
    first = sold[..., 0] >= sold[..., 1]
    sign = np.where(first[..., None], np.array([1.0, -1.0]), np.array([-1.0, 1.0]))
    target = (sign * reward)[..., None]
    booked = np.stack([first, ~first], -1)[..., None, :]
    return np.where(booked, tables + rate * (target - tables), tables)
