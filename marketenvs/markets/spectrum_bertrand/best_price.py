"""Best prices of one seller against the others' while buyers re-equilibrate (spec 5.2).

For channels (``k = 1``) the profit is concave in the seller's own mass of buyers, and its first-order condition is
bracketed; for pools it is not, and prices are searched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marketenvs.markets.spectrum_bertrand import urns as urn
from marketenvs.markets.spectrum_bertrand._scipy import elementwise
from marketenvs.markets.spectrum_bertrand.seller_game import Sellers, own_price, profits, respond
from marketenvs.markets.spectrum_bertrand.urns import BuyerStage, Floats

_TIGHT = {"xrtol": 4e-16, "fatol": 0.0}


def _steepness(payment: str, margin: Floats, value: Floats, q: Floats, m: int, k: ArrayLike) -> Floats:
    """``|dw/dq|`` of an urn."""
    if payment == "posted":
        return -margin * urn.fill_slope(q, m, k)
    return -(value if payment == "all_pay" else margin) * urn.served_slope(q, m, k)


def best_response_channels(game: Sellers, price: Floats, seller: int) -> tuple[Floats, Floats]:
    """Best price of one seller of channels (``k = 1``) against rivals' prices.

    The profit is concave in the seller's own mass of buyers, so the sign change of its derivative is bracketed.

    Returns:
        ``(price, profit)``, each ``(B,)``.
    """
    m, own = game.buyers, game.urns[:, seller]
    value, cost = game.value, game.cost[:, seller]
    if game.n == 1:
        q, level = 1.0 / own, np.zeros(value.shape)
    elif game.n == 2:
        q, level = _best_mass_duopoly(game, price, seller)
    else:
        q, level = _best_mass(game, price, seller)
    best = own_price(game.payment, value, q, level, m, 1)
    best = np.where(q > 0, np.maximum(best, 0.0), cost)  # a seller with no customers may as well post its cost
    earned = own * ((value - cost) * urn.units_sold(q, m, 1) - m * q * level)
    return best, np.where(q > 0, earned, 0.0)


def _best_mass_duopoly(game: Sellers, price: Floats, seller: int) -> tuple[Floats, Floats]:
    """Best ``(q, pi)`` of one of two sellers: the buyers it does not attract are the rival's, which fixes ``pi``."""
    m, own, other = game.buyers, game.urns[:, seller], game.urns[:, 1 - seller]
    value, cost, rival = game.value, game.cost[:, seller], price[:, 1 - seller]
    rows = np.arange(value.size)

    def level_at(mass: Floats, row: NDArray) -> Floats:
        return urn.attraction(game.payment, value[row], rival[row], (1.0 - mass) / other[row], m, 1)

    def slope(mass: Floats, row: NDArray) -> Floats:
        q, level = mass / own[row], level_at(mass, row)
        steep = _steepness(game.payment, value[row] - rival[row], value[row], (1.0 - mass) / other[row], m, 1)
        return (value[row] - cost[row]) * urn.served(q, m, 1) - level - mass / other[row] * steep

    zero, one = np.zeros(value.shape), np.ones(value.shape)
    if game.payment == "all_pay":  # buyers whom the rival leaves nothing (the kink) can be had for nothing
        zero = 1.0 - np.minimum(other * urn.density_at("all_pay", value, rival, 0.0, m, 1), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        starts, ends = slope(zero, rows), slope(one, rows)
        inside = (starts > 0) & (ends < 0)
        found = elementwise.find_root(slope, (zero, one), args=(rows,), tolerances=_TIGHT)
    mass = np.where(inside & np.isfinite(found.x), found.x, np.where(starts <= 0, zero, one))
    return mass / own, np.maximum(level_at(mass, rows), 0.0)


def _best_mass(game: Sellers, price: Floats, seller: int) -> tuple[Floats, Floats]:
    """Best ``(q, pi)`` of one of many sellers: ``pi`` is the unknown, the rivals' inverse attractions give the rest."""
    m, own = game.buyers, game.urns[:, seller]
    value, cost = game.value, game.cost[:, seller]
    others = [i for i in range(game.n) if i != seller]
    rival_urns, rival_k = game.urns[:, others], game.capacity[:, others]
    rival_margin = value[:, None] - price[:, others]
    shut = urn.solve_buyers(game.payment, value, price[:, others], m, rival_urns, rival_k)
    low = shut.payoff
    high = np.maximum(rival_margin.max(-1), low)
    rows = np.arange(value.size)

    def left(level: Floats, row: NDArray) -> tuple[Floats, Floats]:
        worth, margin = value[row][:, None], rival_margin[row]
        rival = urn.density_at(game.payment, worth, worth - margin, level[:, None], m, rival_k[row])
        steep = _steepness(game.payment, margin, worth, rival, m, rival_k[row])
        active = (margin >= level[:, None]) & (steep > 0)
        yielding = np.where(active, rival_urns[row] / np.where(active, steep, 1.0), 0.0).sum(-1)
        mass = np.clip(1.0 - (rival_urns[row] * rival).sum(-1), 0.0, 1.0)
        return mass / own[row], own[row] / np.where(yielding > 0, yielding, np.inf)

    def slope(level: Floats, row: NDArray) -> Floats:
        q, rise = left(level, row)
        return (value[row] - cost[row]) * urn.served(q, m, 1) - level - q * rise

    starts, ends = slope(low, rows), slope(high, rows)
    inside = (starts > 0) & (ends < 0) & (high > low)
    found = elementwise.find_root(slope, (low, high), args=(rows,), tolerances=_TIGHT)
    level = np.where(inside & np.isfinite(found.x), found.x, np.where(starts <= 0, low, high))
    return left(level, rows)[0], level


def best_response_search(game: Sellers, price: Floats, seller: int, points: int = 257) -> tuple[Floats, Floats]:
    """Best price of one seller by a grid over ``[cost, value]`` and three zooms; works for pools of any size.

    Returns:
        ``(price, profit)``, each ``(B,)``: a lower bound of the best profit, tight to about 1e-10 for smooth profits.
    """
    low, high = game.cost[:, seller].copy(), game.value.copy()
    for size in (points, 65, 65, 65):
        tried = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, size)
        offers = np.repeat(price[:, None, :], size, axis=1)
        offers[:, :, seller] = tried
        earned = profits(game, respond(game, offers))[:, :, seller]
        top = earned.argmax(-1)
        rows = np.arange(top.size)
        best, value = tried[rows, top], earned[rows, top]
        low, high = tried[rows, np.maximum(top - 1, 0)], tried[rows, np.minimum(top + 1, size - 1)]
    return best, value


def best_response(game: Sellers, price: Floats, seller: int) -> tuple[Floats, Floats]:
    """Best price and profit of one seller against re-equilibrating buyers.

    Exact for channels with two sellers or equal rivals; with unequal rivals (``N > 2``) the concave solution is
    compared with a global search, and pools are always searched.
    """
    if np.any(game.capacity != 1):
        return best_response_search(game, price, seller)
    best, value = best_response_channels(game, price, seller)
    others = np.delete(price, seller, axis=-1)
    if game.n > 2 and np.any(np.ptp(others, axis=-1) > 1e-12):
        searched, found = best_response_search(game, price, seller)
        better = found > value + 1e-12
        best, value = np.where(better, searched, best), np.where(better, found, value)
    return best, value


def seller_gains(game: Sellers, price: Floats, stage: BuyerStage | None = None) -> Floats:
    """How much each seller could gain by another price while buyers re-equilibrate, ``(B, N)``, never negative."""
    price = np.asarray(price, float)
    earned = profits(game, respond(game, price) if stage is None else stage)
    best = np.stack([best_response(game, price, j)[1] for j in range(game.n)], -1)
    return np.maximum(best - earned, 0.0)
