"""The sellers' stage above the urn game: profits, best responses and equilibrium prices (spec 5.2, 5.7).

One identity carries everything, under all three payment rules: with the buyers in equilibrium, seller ``j`` earns
``urns_j * ((U - c_j) S(q_j) - M q_j pi)``, and ``pi`` depends on its own prices only through its own mass of buyers.
A price is therefore a choice of ``q_j``, one price per seller is enough, and for channels (``k = 1``) the profit is
concave in ``q_j``: first-order conditions decide, globally for two sellers or equal rivals. For pools (``k > 1``) it
is not; there profits are searched on a grid and `marketenvs.markets.spectrum_bertrand.mixed` takes over.

Sellers lie on the last axis; the axes before it are markets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marketenvs.markets.spectrum_bertrand import urns as urn
from marketenvs.markets.spectrum_bertrand._scipy import elementwise
from marketenvs.markets.spectrum_bertrand.urns import BuyerStage, Floats

_TIGHT = {"xrtol": 4e-16, "fatol": 0.0}


class Sellers(NamedTuple):
    """One batch of seller games.

    Attributes:
        payment: payment rule.
        value: worth of a channel to every buyer, ``(B,)``.
        cost: cost per unit sold, ``(B, N)``.
        buyers: number of buyers ``M``.
        urns: urns of each seller, ``(B, N)``.
        capacity: units per urn, ``(B, N)``.
    """

    payment: str
    value: Floats
    cost: Floats
    buyers: int
    urns: NDArray
    capacity: NDArray

    @property
    def n(self) -> int:
        """Number of sellers."""
        return self.cost.shape[-1]


class SellerStage(NamedTuple):
    """Prices, what follows from them, and how much any one seller could still gain.

    Attributes:
        price: ``(B, N)``.
        profit: ``(B, N)``.
        buyers: the buyers' equilibrium at these prices.
        gain: best improvement of each seller against re-equilibrating buyers, ``(B, N)``.
        method: how the prices were found.
    """

    price: Floats
    profit: Floats
    buyers: BuyerStage
    gain: Floats
    method: str


def seller_game(
    payment: str, value: ArrayLike, cost: ArrayLike, buyers: int, urns: ArrayLike, capacity: ArrayLike = 1
) -> Sellers:
    """Build a `Sellers` batch from anything that broadcasts; a plain ``(N,)`` cost is one market.

    Raises:
        ValueError: if ``buyers`` is negative, an urn count or capacity is below 1, a value is not positive, or a cost
            does not lie in ``[0, value]``.
    """
    urn.check_payment(payment)
    per_seller = [np.atleast_2d(np.asarray(x, float)) for x in (cost, urns, capacity)]
    value = np.atleast_1d(np.asarray(value, float))
    shape = np.broadcast_shapes(*(x.shape for x in per_seller), (value.shape[0], 1))
    cost, urns, capacity = (np.array(np.broadcast_to(x, shape)) for x in per_seller)
    value = np.array(np.broadcast_to(value, shape[:1]))
    if buyers < 1:
        raise ValueError(f"buyers must be at least 1; got {buyers}")
    if not all(np.all(np.isfinite(x)) and np.all(x >= 1) and np.all(x == np.rint(x)) for x in (urns, capacity)):
        raise ValueError("every seller needs at least one channel: channels must be whole numbers >= 1")
    if not np.all(np.isfinite(value)) or np.any(value <= 0):
        raise ValueError("value must be finite and positive")
    if not np.all(np.isfinite(cost)) or np.any(cost < 0) or np.any(cost > value[:, None]):
        raise ValueError("unit_cost must be finite and lie in [0, value]")
    return Sellers(payment, value, cost, int(buyers), urns, capacity)


def markets(game: Sellers, index: NDArray) -> Sellers:
    """The markets of a batch that ``index`` (integers or Booleans) selects."""
    fields = {name: getattr(game, name)[index] for name in ("value", "cost", "urns", "capacity")}
    return game._replace(**fields)


def respond(game: Sellers, price: ArrayLike) -> BuyerStage:
    """The buyers' equilibrium at posted prices ``(B, ..., N)``."""
    price = np.asarray(price, float)
    between = (1,) * (price.ndim - 2)
    value = np.broadcast_to(game.value.reshape(-1, *between), price.shape[:-1])
    urns, capacity = (x.reshape(-1, *between, game.n) for x in (game.urns, game.capacity))
    return urn.solve_buyers(game.payment, value, price, game.buyers, urns, capacity)


def profits(game: Sellers, stage: BuyerStage) -> Floats:
    """Profit of each seller in the buyers' equilibrium ``stage``, by the identity above."""
    between = (1,) * (stage.payoff.ndim - 1)
    margin = game.value[:, None] - game.cost
    margin, urns, capacity = (x.reshape(-1, *between, game.n) for x in (margin, game.urns, game.capacity))
    sold = urn.units_sold(stage.density, game.buyers, capacity)
    return urns * (margin * sold - game.buyers * stage.density * stage.payoff[..., None])


def own_price(payment: str, value: Floats, q: Floats, payoff: Floats, buyers: int, capacity: ArrayLike) -> Floats:
    """The price at which an urn is visited with probability ``q`` while buyers earn ``payoff`` everywhere."""
    if payment == "posted":
        return value - payoff / urn.fill_rate(q, buyers, capacity)
    beaten = urn.served(q, buyers, capacity)
    return value * beaten - payoff if payment == "all_pay" else value - payoff / beaten


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
