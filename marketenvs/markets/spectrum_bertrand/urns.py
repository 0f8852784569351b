"""The buyers' stage as an urn game: who goes where, what is bid and what is earned, at any posted prices.

Every way of matching buyers to spectrum is the same game. Seller ``j`` owns ``urns_j`` identical urns of capacity
``capacity_j``: a channel is an urn of capacity 1, a pool of ``C`` channels is one urn of capacity ``C``. Each of ``M``
buyers drops one bid into one urn (or abstains); the highest admissible bids of an urn are served.

With ``q`` the probability that a given buyer lands in a given urn, and ``X ~ Binomial(M - 1, q)`` its rivals there:

===================  =========================================================================
``served``           ``G0(q) = P(X <= k - 1)``: the lowest admissible bid is served
``served_slope``     ``dG0/dq``
``units_sold``       ``S(q) = E min(k, Binomial(M, q))``: units sold by one urn; ``S' = M G0``
``fill_rate``        ``eta(q) = S / (M q)``: chance to be served when all bids are alike
===================  =========================================================================

A buyer earns on an urn of price ``p`` (the `attraction` ``w``): ``(U - p) eta`` under ``posted``, ``(U - p) G0`` under
``first_price`` and ``U G0 - p`` under ``all_pay``. The symmetric equilibrium equalises it over all urns in use; it is
unique because every ``w`` decreases in ``q``. All functions broadcast; sellers lie on the last axis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marketenvs.markets.spectrum_bertrand._scipy import elementwise, special

PAYMENTS = ("all_pay", "first_price", "posted")

Floats = NDArray[np.float64]

_TIGHT = {"xrtol": 4e-16, "fatol": 0.0}


class BuyerStage(NamedTuple):
    """Symmetric equilibrium of the buyers at posted prices.

    Attributes:
        payoff: what each buyer earns, money per round, shape ``(...)``.
        density: probability that a buyer lands in one given urn of each seller, ``(..., N)``.
        abstain: probability that a buyer stays out, ``(...)``.
    """

    payoff: Floats
    density: Floats
    abstain: Floats


def check_payment(payment: str) -> None:
    """Raise ``ValueError`` naming the offered rules if ``payment`` is not one of them."""
    if payment not in PAYMENTS:
        raise ValueError(f"payment must be one of {', '.join(PAYMENTS)}; got {payment!r}")


def served(q: ArrayLike, buyers: ArrayLike, capacity: ArrayLike) -> Floats:
    """Chance that the lowest admissible bid of an urn is served, ``G0(q) = P(Bin(M-1, q) <= k-1)``."""
    q, m, k = np.asarray(q, float), np.asarray(buyers), np.asarray(capacity)
    if np.all(k == 1):
        with np.errstate(divide="ignore"):
            return np.where(m > 1, np.exp(np.maximum(m - 1, 1) * np.log1p(-q)), 1.0)
    tail = special.betainc(np.maximum(m - k, 1), k, 1.0 - q)
    return np.where(k >= m, 1.0, tail)


def served_slope(q: ArrayLike, buyers: ArrayLike, capacity: ArrayLike) -> Floats:
    """Derivative ``dG0/dq = -(M-1) P(Bin(M-2, q) = k-1)``; zero where the capacity covers every buyer."""
    q, m, k = np.asarray(q, float), np.asarray(buyers), np.asarray(capacity)
    n = np.maximum(m - 2, 0)
    draws = np.minimum(k - 1, n)
    with np.errstate(divide="ignore"):
        log_pmf = (
            special.xlogy(draws, q)
            + special.xlog1py(n - draws, -q)
            - special.betaln(n - draws + 1, draws + 1)
            - np.log(n + 1)
        )
    return np.where(k >= m, 0.0, -(m - 1) * np.exp(log_pmf))


def units_sold(q: ArrayLike, buyers: ArrayLike, capacity: ArrayLike) -> Floats:
    """Expected units sold by one urn, ``S(q) = E min(k, Bin(M, q))``."""
    q, m, k = np.asarray(q, float), np.asarray(buyers), np.asarray(capacity)
    with np.errstate(divide="ignore"):
        if np.all(k == 1):
            return -np.expm1(m * np.log1p(-q))
    full = special.betainc(np.minimum(k, m), np.maximum(m - k, 0) + 1, q)  # P(Bin(M, q) >= k)
    below = np.where(k >= 2, special.betainc(np.maximum(m - k + 1, 1), np.maximum(k - 1, 1), 1.0 - q), 0.0)
    return np.where(k >= m, m * q, m * q * below + k * full)


def fill_rate(q: ArrayLike, buyers: ArrayLike, capacity: ArrayLike) -> Floats:
    """Chance ``eta(q) = S(q) / (M q)`` to be served when bids do not matter; 1 at ``q = 0``."""
    q, m = np.asarray(q, float), np.asarray(buyers)
    safe = np.where(q > 0, q, 1.0)
    return np.where(q > 0, units_sold(safe, m, capacity) / (m * safe), 1.0)


def fill_slope(q: ArrayLike, buyers: ArrayLike, capacity: ArrayLike) -> Floats:
    """Derivative ``eta'(q) = (G0 - eta) / q``, with its limit at ``q = 0``."""
    q, m, k = np.asarray(q, float), np.asarray(buyers), np.asarray(capacity)
    # below q ~ 1e-5 / M the difference G0 - eta is lost to rounding; the series has -(M-1)/2 for k = 1, else 0
    small = q * m < 1e-5
    safe = np.where(small, 1.0, q)
    exact = (served(safe, m, k) - fill_rate(safe, m, k)) / safe
    return np.where(small, np.where((k == 1) & (m > 1), -(m - 1) / 2.0, 0.0), exact)


def attraction(
    payment: str, value: ArrayLike, price: ArrayLike, q: ArrayLike, buyers: ArrayLike, capacity: ArrayLike
) -> Floats:
    """What a buyer earns on an urn of this price when everybody lands there with probability ``q``."""
    value, price = np.asarray(value, float), np.asarray(price, float)
    if payment == "posted":
        return (value - price) * fill_rate(q, buyers, capacity)
    if payment == "first_price":
        return (value - price) * served(q, buyers, capacity)
    return value * served(q, buyers, capacity) - price


def _served_inverse(level: Floats, buyers: NDArray, capacity: NDArray) -> Floats:
    """``q`` with ``G0(q) = level``, clipped to [0, 1]."""
    level = np.clip(level, 0.0, 1.0)
    if np.all(capacity == 1):
        with np.errstate(divide="ignore"):
            return -np.expm1(np.log(level) / np.maximum(buyers - 1, 1))
    return special.betainccinv(capacity, np.maximum(buyers - capacity, 1), level)


def _fill_inverse(level: Floats, buyers: NDArray, capacity: NDArray) -> Floats:
    """``q`` with ``eta(q) = level``, clipped to [0, 1].

    Channels (``k = 1``): ``1 / eta`` is convex and nearly linear, so Newton's method started on the right descends to
    the root in a few steps. Pools: ``eta`` is flat near ``q = 0``, where Newton would crawl, so the root is bracketed.
    """
    shape = np.broadcast_shapes(level.shape, buyers.shape, capacity.shape)
    level, m, k = (np.broadcast_to(x, shape) for x in (level, buyers, capacity))
    end = fill_rate(np.ones(shape), m, k)
    inside = (level < 1.0) & (level > end)
    edge = np.where(level >= 1.0, 0.0, 1.0)
    aim = np.where(inside, level, 0.5 * (1.0 + end))
    if np.any(capacity != 1):
        found = elementwise.find_root(
            lambda q, aim, m, k: fill_rate(q, m, k) - aim,
            (np.zeros(shape), np.ones(shape)),
            args=(aim, m.astype(float), k.astype(float)),
            tolerances=_TIGHT,
        )
        return np.where(inside & found.success, found.x, edge)
    # S(q) <= min(1, M q) gives eta <= 1 / (M q): the root lies left of 1 / (M eta)
    q = np.minimum(1.0, 1.0 / (m * aim))
    for _ in range(40):
        eta = fill_rate(q, m, k)
        step = (1.0 / eta - 1.0 / aim) / np.maximum(-fill_slope(q, m, k) / eta**2, 1e-300)
        q = np.clip(q - step, 0.0, 1.0)
        if np.all(np.abs(step) <= 1e-15 * q + 1e-17):
            break
    return np.where(inside, q, edge)


def density_at(
    payment: str, value: ArrayLike, price: ArrayLike, payoff: ArrayLike, buyers: ArrayLike, capacity: ArrayLike
) -> Floats:
    """Inverse of `attraction`: the ``q`` at which an urn of this price leaves a buyer ``payoff``; 0 if it never does.

    Urns whose capacity covers all buyers have a flat attraction and no inverse; they get 0 here and are filled by
    `solve_buyers`.
    """
    value, price, payoff = (np.asarray(x, float) for x in (value, price, payoff))
    m, k = np.asarray(buyers), np.asarray(capacity)
    usable = (value - price > payoff) & (k < m)
    margin = np.where(usable, value - price, 1.0)
    if payment == "all_pay":
        level = np.where(usable, (payoff + price) / value, 1.0)
    else:
        level = np.where(usable, payoff / margin, 1.0)
    inverse = _fill_inverse if payment == "posted" else _served_inverse
    return np.where(usable, inverse(level, m, k), 0.0)


def solve_buyers(
    payment: str,
    value: ArrayLike,
    price: ArrayLike,
    buyers: int,
    urns: ArrayLike,
    capacity: ArrayLike,
) -> BuyerStage:
    """Symmetric equilibrium of the buyers at the posted prices (spec 5.1), unique up to indifference.

    Buyers that are indifferent between trading at no gain and staying out trade.

    Args:
        payment: ``all_pay``, ``first_price`` or ``posted``.
        value: worth of one channel, ``U``, broadcastable to ``(...)``.
        price: posted prices ``(..., N)``.
        buyers: number of buyers ``M``.
        urns: urns per seller ``(..., N)``.
        capacity: units per urn ``(..., N)``.

    Returns:
        Payoff, densities and abstention.

    Raises:
        ValueError: on an unknown payment rule.
    """
    check_payment(payment)
    price = np.asarray(price, float)
    value = np.broadcast_to(np.asarray(value, float), price.shape[:-1])[..., None]
    urns, capacity = (np.broadcast_to(np.asarray(x), price.shape) for x in (urns, capacity))
    margin = value - price
    flat = capacity >= buyers
    floor = np.maximum(np.where(flat, margin, 0.0).max(-1), 0.0)
    top = np.maximum(margin.max(-1), floor)

    def excess(level: Floats, value: Floats, margin: Floats, urns: Floats, capacity: NDArray) -> Floats:
        q = density_at(payment, value, value - margin, level[..., None], buyers, capacity)
        return (urns * q).sum(-1) - 1.0

    if payment == "first_price" and buyers > 1 and np.all(capacity == 1):
        return _first_price_channels(margin, buyers, urns)

    crowded = excess(floor, value, margin, urns, capacity) > 0
    level, filled = floor, None
    if np.any(crowded):
        level, filled = _crowded(payment, value, margin, buyers, urns, capacity, floor, top)
        level = np.where(crowded, level, floor)
    q = density_at(payment, value, price, level[..., None], buyers, capacity)
    mass = (urns * q).sum(-1)
    # what the contested urns leave goes to urns that never fill up, or that sell at exactly the value
    spare = np.maximum(1.0 - mass, 0.0)
    free = flat & (margin == floor[..., None])
    if payment != "all_pay":
        free = free | ((margin == 0) & (floor[..., None] == 0))
    room = (urns * free).sum(-1)
    taken = ~crowded & (room > 0)
    q = q + np.where(taken[..., None] & free, (spare / np.where(room > 0, room, 1.0))[..., None], 0.0)
    if filled is not None:
        q = np.where(crowded[..., None], filled, q)
    return BuyerStage(level, q, np.where(crowded | taken, 0.0, spare))


def _first_price_channels(margin: Floats, buyers: int, urns: NDArray) -> BuyerStage:
    """First price on channels (``k = 1``, ``M > 1``) in closed form.

    ``q_j = 1 - (pi / m_j)^(1 / (M - 1))`` with margins ``m_j = U - p_j``; that the masses sum to one over the sellers in
    use gives ``pi^(1 / (M - 1)) = (sum L - 1) / sum L m^(-1 / (M - 1))``. Sellers enter in order of their margins, and
    one more seller raises ``pi`` exactly if its margin exceeds it, so the largest ``pi`` over all entries is the one.
    """
    power = 1.0 / (buyers - 1)
    usable = margin > 0
    best = np.where(usable, margin, 0.0).max(-1, keepdims=True)
    scale = np.where(best > 0, best, 1.0)
    with np.errstate(divide="ignore"):
        root = np.exp(power * np.log(np.where(usable, margin, 0.0) / scale))  # of the relative margin, in [0, 1]
    per_root = np.broadcast_to(urns, root.shape) / np.where(root > 0, root, np.inf)
    level = np.zeros(best.shape)
    for j in range(root.shape[-1]):  # seller j and everybody better
        inside = root >= root[..., j : j + 1]
        number, weight = (urns * inside).sum(-1, keepdims=True), (per_root * inside).sum(-1, keepdims=True)
        level = np.maximum(level, np.where(root[..., j : j + 1] > 0, (number - 1.0) / np.maximum(weight, 1e-300), 0.0))
    level = np.minimum(level, 1.0)
    q = np.where(root > level, 1.0 - level / np.where(root > 0, root, 1.0), 0.0)
    mass = (urns * q).sum(-1, keepdims=True)
    trades = mass > 0
    # nobody above the value, some exactly at it: buyers are indifferent, and trade
    free = (margin == 0) & ~trades
    room = (urns * free).sum(-1, keepdims=True)
    q = np.where(trades, q / np.where(trades, mass, 1.0), free / np.where(room > 0, room, 1.0))
    payoff = np.where(trades, best * level ** (buyers - 1), 0.0)[..., 0]
    return BuyerStage(payoff, q, np.where(trades | (room > 0), 0.0, 1.0)[..., 0])


def _crowded(
    payment: str,
    value: Floats,
    margin: Floats,
    buyers: int,
    urns: NDArray,
    capacity: NDArray,
    floor: Floats,
    top: Floats,
) -> tuple[Floats, Floats]:
    """Payoff and densities at which the densities sum to one, by Chandrupatla's bracketing on all markets at once."""
    n = margin.shape[-1]
    worth = np.broadcast_to(value, margin.shape).reshape(-1, n)
    gap, number, units = (np.reshape(x, (-1, n)) for x in (margin, urns, capacity))
    low, high = floor.reshape(-1), top.reshape(-1)
    rows = np.arange(gap.shape[0])

    def level_at(row: NDArray, q: Floats, j: int) -> Floats:
        return attraction(payment, worth[row, j], worth[row, j] - gap[row, j], q, buyers, units[row, j])

    def difference(mass: Floats, row: NDArray) -> Floats:
        """With two sellers the mass on the first is the one unknown, and no inverse is needed."""
        return level_at(row, mass / number[row, 0], 0) - level_at(row, (1.0 - mass) / number[row, 1], 1)

    def excess(level: Floats, row: NDArray) -> Floats:
        q = density_at(payment, worth[row], worth[row] - gap[row], level[..., None], buyers, units[row])
        return (number[row] * q).sum(-1) - 1.0

    if n == 2 and not np.any(units >= buyers):
        # at mass 0 or 1 one seller is left alone; otherwise the attractions cross once
        zero, one = np.zeros(rows.shape), np.ones(rows.shape)
        alone = np.where(difference(one, rows) >= 0, 1.0, 0.0)
        inside = (difference(zero, rows) > 0) & (difference(one, rows) < 0)
        found = elementwise.find_root(difference, (zero, one), args=(rows,), tolerances=_TIGHT)
        mass = np.where(inside, found.x, alone)
        first = level_at(rows, mass / number[:, 0], 0)
        second = level_at(rows, (1.0 - mass) / number[:, 1], 1)
        q = np.stack([mass / number[:, 0], (1.0 - mass) / number[:, 1]], -1)
        return np.where(mass >= 0.5, first, second).reshape(floor.shape), q.reshape(margin.shape)
    found = elementwise.find_root(excess, (low, high), args=(rows,), tolerances=_TIGHT)
    level = np.where(found.success, found.x, low)
    q = density_at(payment, worth, worth - gap, level[:, None], buyers, units)
    mass = (number * q).sum(-1, keepdims=True)
    q = q / np.where(mass > 0, mass, 1.0)  # last-bit normalisation
    return level.reshape(floor.shape), q.reshape(margin.shape)


def bid_quantile(
    payment: str,
    value: ArrayLike,
    payoff: ArrayLike,
    q: ArrayLike,
    price: ArrayLike,
    u: ArrayLike,
    buyers: int,
    capacity: ArrayLike,
) -> Floats:
    """Equilibrium bid at quantile ``u`` of the mixture played on an urn (spec 5.1); the price itself if bids are moot.

    Args:
        payment: payment rule.
        value: worth of a channel.
        payoff: the buyers' equilibrium payoff ``pi``.
        q: landing probability of the urn.
        price: its posted price.
        u: quantile in [0, 1].
        buyers: number of buyers.
        capacity: units of the urn.
    """
    value, payoff, q, price, u = (np.asarray(x, float) for x in (value, payoff, q, price, u))
    if payment == "posted":
        return np.broadcast_to(price, np.broadcast_shapes(price.shape, u.shape)).copy()
    beaten = served(q * (1.0 - u), buyers, capacity)
    bid = value * beaten - payoff if payment == "all_pay" else value - payoff / np.where(beaten > 0, beaten, 1.0)
    return np.where((np.asarray(capacity) >= buyers) | (q <= 0), price, np.maximum(bid, price))


def bid_cdf(
    payment: str,
    value: ArrayLike,
    payoff: ArrayLike,
    q: ArrayLike,
    price: ArrayLike,
    bid: ArrayLike,
    buyers: int,
    capacity: ArrayLike,
) -> Floats:
    """Distribution function of the equilibrium bid on an urn: inverse of `bid_quantile` in ``u``."""
    value, payoff, q, price, bid = (np.asarray(x, float) for x in (value, payoff, q, price, bid))
    m, k = np.asarray(buyers), np.asarray(capacity)
    if payment == "posted":
        return np.where(bid >= price, 1.0, 0.0)
    if payment == "all_pay":
        level = (bid + payoff) / value
    else:
        level = payoff / np.maximum(value - bid, 1e-300)
    above = _served_inverse(level, m, k) / np.where(q > 0, q, 1.0)
    smooth = np.where(bid < price, 0.0, np.clip(1.0 - above, 0.0, 1.0))
    return np.where((k >= m) | (q <= 0), np.where(bid >= price, 1.0, 0.0), smooth)
