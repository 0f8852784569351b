"""The sellers' game above the urn game: who sells what at which cost, and what prices earn once buyers have answered.

Sellers lie on the last axis; the axes before it are markets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marketenvs.markets.spectrum_bertrand import urns as urn
from marketenvs.markets.spectrum_bertrand.urns import BuyerStage, Floats


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
