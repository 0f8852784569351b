"""Buyers whose values are private draws from U[0, 1], at one common posted price (spec 5.4).

``G(x)`` is the chance that a buyer of type ``x`` is served when higher types come first: ``K`` pooled units among
``M`` buyers, or channels that every buyer visits with probability ``q``. Only the buyers' stage has a closed form;
unequal prices are outside the oracle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marketenvs.markets.spectrum_bertrand._scipy import elementwise, special

Floats = NDArray[np.float64]


def served_type(x: Any, buyers: int, *, pooled: int | None = None, q: float | None = None) -> Floats:
    """``G(x)``; give either ``pooled`` (units ``K`` for everybody) or ``q`` (landing probability of one channel)."""
    x = np.asarray(np.clip(np.asarray(x, float), 0.0, 1.0))
    if (pooled is None) == (q is None):
        raise ValueError("give exactly one of pooled= and q=")
    if q is None:
        assert pooled is not None
        return np.ones_like(x) if pooled >= buyers else special.betainc(buyers - pooled, pooled, x)
    return np.asarray((1.0 - q + q * x) ** (buyers - 1), float)


def served_integral(x: ArrayLike, buyers: int, *, pooled: int | None = None, q: float | None = None) -> Floats:
    """Antiderivative of `served_type` in closed form (up to a constant)."""
    x = np.asarray(x, float)
    if (pooled is None) == (q is None):
        raise ValueError("give exactly one of pooled= and q=")
    if q is None:
        assert pooled is not None
        if pooled >= buyers:
            return x
        a, b = buyers - pooled, pooled
        return x * special.betainc(a, b, x) - a / (a + b) * special.betainc(a + 1, b, x)
    return (1.0 - q + q * x) ** buyers / (q * buyers)


def lowest_bidder(price: ArrayLike, buyers: int, *, pooled: int | None = None, q: float | None = None) -> Floats:
    """All-pay: the type ``v*`` with ``v* G(v*) = p`` that is just willing to bid; 1 if nobody is."""
    price = np.asarray(price, float)
    ends = np.zeros_like(price), np.ones_like(price)
    root = elementwise.find_root(lambda v, p: v * served_type(v, buyers, pooled=pooled, q=q) - p, ends, args=(price,)).x
    return np.where(price >= 1, 1.0, np.where(price <= 0, 0.0, root))


def bid(
    payment: str, v: ArrayLike, price: ArrayLike, buyers: int, *, pooled: int | None = None, q: float | None = None
) -> Floats:
    """Equilibrium bid of type ``v`` at the common price; NaN for types that stay out.

    Raises:
        ValueError: for ``posted`` payments, where a bid is only an acceptance.
    """
    v, price = np.broadcast_arrays(np.asarray(v, float), np.asarray(price, float))
    mass: Any = {"pooled": pooled, "q": q}
    if payment == "first_price":
        area = served_integral(v, buyers, **mass) - served_integral(price, buyers, **mass)
        win = served_type(v, buyers, **mass)
        return np.where(v >= price, v - area / np.where(win > 0, win, 1.0), np.nan)
    if payment != "all_pay":
        raise ValueError("private-value bids exist for first_price and all_pay only")
    low = lowest_bidder(price, buyers, **mass)
    area = served_integral(v, buyers, **mass) - served_integral(low, buyers, **mass)
    return np.where(v >= low, v * served_type(v, buyers, **mass) - area, np.nan)


def revenue_without_reserve(buyers: int, units: int) -> float:
    """Expected revenue of ``K`` pooled units at ``p = 0`` under either auction, ``K (M - K) / (M + 1)``."""
    return units * (buyers - units) / (buyers + 1.0)
