"""The sellers' stage above the urn game: profits, best responses and equilibrium prices (spec 5.2, 5.7).

One identity carries everything, under all three payment rules: with the buyers in equilibrium, seller ``j`` earns
``urns_j * ((U - c_j) S(q_j) - M q_j pi)``, and ``pi`` depends on its own prices only through its own mass of buyers.
A price is therefore a choice of ``q_j``, one price per seller is enough, and for channels (``k = 1``) the profit is
concave in ``q_j``: first-order conditions decide, globally for two sellers or equal rivals. For pools (``k > 1``) it
is not; there profits are searched on a grid and `marketenvs.markets.spectrum_bertrand.mixed` takes over.

Sellers lie on the last axis; the axes before it are markets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marketenvs.markets.spectrum_bertrand import urns as urn
from marketenvs.markets.spectrum_bertrand._scipy import elementwise
from marketenvs.markets.spectrum_bertrand.best_price import (
    best_response,
    best_response_channels,
    best_response_search,
    seller_gains,
)
from marketenvs.markets.spectrum_bertrand.seller_game import (
    Sellers,
    SellerStage,
    markets,
    own_price,
    profits,
    respond,
    seller_game,
)
from marketenvs.markets.spectrum_bertrand.urns import BuyerStage, Floats

__all__ = [
    "SellerStage",
    "Sellers",
    "best_response",
    "best_response_channels",
    "best_response_search",
    "best_response_sweeps",
    "equilibrium",
    "kink_range",
    "markets",
    "own_price",
    "profits",
    "respond",
    "seller_gains",
    "seller_game",
    "social_optimum",
    "symmetric_price",
    "welfare",
]

_TIGHT = {"xrtol": 4e-16, "fatol": 0.0}


def symmetric_price(game: Sellers) -> Floats:
    """Closed-form symmetric price ``(B,)`` for equal sellers (spec 5.2). For pools with ``C < M`` it needs checking."""
    n, m, k = game.n, game.buyers, game.capacity[:, 0]
    value, cost = game.value, game.cost[:, 0]
    q = 1.0 / (n * game.urns[:, 0])
    beaten, eta = urn.served(q, m, k), urn.fill_rate(q, m, k)
    if n == 1:
        return value * beaten if game.payment == "all_pay" else np.broadcast_to(value, cost.shape).copy()
    if game.payment == "posted":
        return value - (value - cost) * (n - 1) * beaten / (n * eta - beaten)
    pull = -q * urn.served_slope(q, m, k) / (n - 1)
    if game.payment == "first_price":
        return value - (value - cost) * beaten / (beaten + pull)
    return np.minimum(cost * beaten + value * pull, value * beaten)


def _duopoly(game: Sellers) -> tuple[Floats, BuyerStage]:
    """Two sellers of channels: both first-order conditions give ``pi`` as a function of the split of the buyers.

    ``(U - c_j) G0(q_j) = pi + q_j dpi/dq_j``; the split at which the two agree is the equilibrium. Under ``all_pay``
    an agreement at ``pi < 0`` means the kink ``pi = 0``, where equilibria form a continuum (see `kink_range`).
    """
    m, urns, value = game.buyers, game.urns, game.value
    rows = np.arange(value.size)

    def wanted(mass: Floats, row: NDArray, j: int) -> Floats:
        i = 1 - j
        share = (mass, 1.0 - mass)
        own, other = share[j] / urns[row, j], share[i] / urns[row, i]
        gross = (value[row] - game.cost[row, j]) * urn.served(own, m, 1)
        if game.payment == "all_pay":
            return gross + own * urns[row, j] / urns[row, i] * value[row] * urn.served_slope(other, m, 1)
        if game.payment == "posted":
            relative = -urn.fill_slope(other, m, 1) / urn.fill_rate(other, m, 1)
        else:
            relative = (m - 1) / np.maximum(1.0 - other, 1e-300)
        return gross / (1.0 + own * urns[row, j] / urns[row, i] * relative)

    def disagreement(mass: Floats, row: NDArray) -> Floats:
        return wanted(mass, row, 0) - wanted(mass, row, 1)

    zero, one = np.zeros(value.shape), np.ones(value.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        out0, out1 = disagreement(zero, rows) <= 0, disagreement(one, rows) >= 0
        found = elementwise.find_root(disagreement, (zero, one), args=(rows,), tolerances=_TIGHT)
    mass = np.where(out0, 0.0, np.where(out1, 1.0, found.x))
    level = np.maximum(np.where(mass >= 0.5, wanted(mass, rows, 0), wanted(mass, rows, 1)), 0.0)
    # a seller priced out posts its cost, and the other keeps buyers just as happy as that offer would
    level = np.where(out0, value - game.cost[:, 0], np.where(out1, value - game.cost[:, 1], level))
    q = np.stack([mass / urns[:, 0], (1.0 - mass) / urns[:, 1]], -1)
    price = own_price(game.payment, value[:, None], q, level[:, None], m, 1)
    price = np.where(q > 0, price, game.cost)
    return price, BuyerStage(level, q, np.zeros(value.shape))


def equilibrium(game: Sellers, sweeps: int = 200, tolerance: float = 1e-9) -> SellerStage:
    """Pure equilibrium prices, or the least exploitable ones found, with each seller's remaining gain.

    Equal sellers: closed form. Two sellers of channels: one bracketed root. Otherwise, and wherever a gain remains,
    damped best responses. Whether it *is* an equilibrium is said by ``gain``, never by the method.
    """
    same = (
        np.all(game.cost == game.cost[:, :1])
        and np.all(game.urns == game.urns[:, :1])
        and np.all(game.capacity == game.capacity[:, :1])
    )
    if game.n == 1 or same:
        price, method = np.repeat(symmetric_price(game)[:, None], game.n, -1), "closed form"
        q = 1.0 / (game.n * game.urns)
        level = urn.attraction(game.payment, game.value[:, None], price, q, game.buyers, game.capacity)[:, 0]
        stage = BuyerStage(np.maximum(level, 0.0), q, np.zeros(level.shape))
    elif game.n == 2 and np.all(game.capacity == 1) and game.buyers > 1:
        price, stage = _duopoly(game)
        method = "first-order conditions"
    else:
        price = 0.5 * (game.cost + game.value[:, None])
        price, method = best_response_sweeps(game, price, sweeps), "best-response iteration"
        stage = respond(game, price)
    gain = seller_gains(game, price, stage)
    scale = np.maximum(1.0, game.value * game.buyers)
    poor = gain.max(-1) > tolerance * scale
    if np.any(poor) and method != "best-response iteration" and np.all(game.capacity == 1):
        subset = markets(game, poor)
        retried = best_response_sweeps(subset, price[poor], sweeps)
        stage_retried = respond(subset, retried)
        gain_retried = seller_gains(subset, retried, stage_retried)
        price, gain = price.copy(), gain.copy()
        better = gain_retried.max(-1) < gain[poor].max(-1)
        where = np.flatnonzero(poor)[better]
        price[where], gain[where] = retried[better], gain_retried[better]
        stage = respond(game, price)
        method += " + best-response iteration"
    return SellerStage(price, profits(game, stage), stage, gain, method)


def best_response_sweeps(game: Sellers, price: Floats, sweeps: int = 200, damping: float = 0.7) -> Floats:
    """Damped best responses, seller after seller, until prices move by less than 1e-13 or ``sweeps`` are done."""
    price = np.array(price, float)
    search = best_response_channels if np.all(game.capacity == 1) else best_response_search
    for _ in range(sweeps):
        before = price.copy()
        for j in range(game.n):
            price[:, j] += damping * (search(game, price, j)[0] - price[:, j])
        if np.max(np.abs(price - before)) < 1e-13:
            break
    return price


def kink_range(game: Sellers) -> Floats:
    """All-pay, two sellers of channels: the interval of ``q_0`` that equilibria with ``pi = 0`` fill, ``(B, 2)``.

    At scarcity (``M >= 2C`` for equal costless sellers) buyers earn nothing and every split with
    ``(U - c_j) G0(q_j) <= q_j dpi/dq_j`` for both sellers is an equilibrium, with prices ``U G0(q_j)``. NaN where the
    equilibrium is not on the kink.
    """
    if game.payment != "all_pay" or game.n != 2 or np.any(game.capacity != 1):
        raise ValueError("the kink continuum exists for all_pay with two sellers of channels only")
    m, urns, value = game.buyers, game.urns, game.value
    rows = np.arange(value.size)

    def slack(mass: Floats, row: NDArray, j: int) -> Floats:
        share = (mass, 1.0 - mass)
        own, other = share[j] / urns[row, j], share[1 - j] / urns[row, 1 - j]
        rise = -value[row] * urn.served_slope(other, m, 1) * urns[row, j] / urns[row, 1 - j]
        return (value[row] - game.cost[row, j]) * urn.served(own, m, 1) - own * rise

    centre = _duopoly(game)[1].density[:, 0] * urns[:, 0]
    on_kink = (slack(centre, rows, 0) <= 1e-15) & (slack(centre, rows, 1) <= 1e-15)
    zero, one = np.zeros(value.shape), np.ones(value.shape)
    with np.errstate(invalid="ignore"):
        lower = elementwise.find_root(lambda x, r: slack(x, r, 0), (zero, centre), args=(rows,), tolerances=_TIGHT).x
        upper = elementwise.find_root(lambda x, r: slack(x, r, 1), (centre, one), args=(rows,), tolerances=_TIGHT).x
    span = np.stack([lower, upper], -1) / urns[:, :1]
    return np.where(on_kink[:, None], span, np.nan)


def social_optimum(game: Sellers) -> Floats:
    """Largest total surplus ``(B,)``: the cheapest units first, one per buyer (spec 5.7)."""
    supply = game.urns * game.capacity
    order = np.argsort(game.cost, axis=-1)
    margin = np.take_along_axis(game.value[:, None] - game.cost, order, -1)
    stock = np.take_along_axis(supply, order, -1)
    before = np.cumsum(stock, -1) - stock
    return (np.maximum(margin, 0.0) * np.clip(game.buyers - before, 0, stock)).sum(-1)


def welfare(game: Sellers, stage: BuyerStage) -> Floats:
    """Total surplus ``(B,)`` of the buyers' equilibrium ``stage``: payments are transfers."""
    sold = game.urns * urn.units_sold(stage.density, game.buyers, game.capacity)
    return ((game.value[:, None] - game.cost) * sold).sum(-1)
