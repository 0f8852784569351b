"""Peaks: where a payoff f(w) = Lambda Omega(w/phi) + mu U(w/phi) is largest, by Newton on a concave function.

The peak depends on the terms and the load share only; the need scales it. Batched over arrays of any shape, float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marketenvs.markets.federated_slicing import stage as stage_rules
from marketenvs.markets.federated_slicing.stage import Terms

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_NEWTON_STEPS = 80


def _newton_from_right(start: Floats, position: Floats, slope: Floats, offset: Floats, gain: Floats) -> Floats:
    """Largest root v of log s(z)(1 - s(z)) + 2 log(position + slope v) + offset with z = gain v.

    The function is concave in v and negative at ``start``, so Newton's steps descend to the root without overshooting.
    """
    v = start
    for _ in range(_NEWTON_STEPS):
        z = gain * v
        e = np.exp(-z)
        inner = position + slope * v
        value = 2.0 * np.log(inner) - z - 2.0 * np.log1p(e) + offset
        derivative = 2.0 * slope / inner + gain * (e - 1.0) / (1.0 + e)
        step = value / derivative
        # Only leftward steps count: near the root rounding makes them change sign.
        moved = np.where(step > 0.0, v - step, v)
        if np.all(v - moved <= 4e-16 * (1.0 + np.abs(v))):
            return moved
        v = moved
    return v


def peak_ratio(
    terms: Terms, load_share: ArrayLike, upper: ArrayLike = np.inf, utilisation: str = "match"
) -> tuple[Floats, Bools]:
    """Load ratio x* = w/phi that a slice likes best, and whether its payoff has no other peak.

    Args:
        terms: the slices' terms.
        load_share: c in [0, 1).
        upper: the largest ratio within reach; a peak beyond it becomes ``upper``.
        utilisation: variant of Omega. ``served`` and ``paper`` never fall, so their peak is ``upper``.

    Returns:
        x* and single-peakedness, both of the common shape of the inputs. For a rate slice with two peaks (with equal
        weights: steepness between
        2.6816 and 4) x* is the better one.
    """
    top = np.asarray(upper, float)
    if utilisation in ("served", "paper"):
        shape = np.broadcast_shapes(*(np.shape(a) for a in (*terms, load_share, top)))
        return np.broadcast_to(top, shape).copy(), np.ones(shape, bool)
    delay, k, weight, mu, c = np.broadcast_arrays(*terms, np.asarray(load_share, float))
    c = np.where(delay, c, 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return _peak_ratio(delay.astype(bool), k, weight, mu, c, top)


def _peak_ratio(delay: Bools, k: Floats, weight: Floats, mu: Floats, c: Floats, top: Floats) -> tuple[Floats, Bools]:
    log_odds = np.log(mu * k) - np.log(weight)
    # Rate slice: with v = x - 1 the sign of f' is that of log(mu k / Lambda) + 2 log(1 + v) + log s(1 - s)(k v),
    # concave in v.
    bottom = log_odds - np.log(4.0)
    crest = np.zeros(k.shape)
    humped = ~delay & (bottom < 0.0)
    two_peaks = np.zeros(k.shape, bool)
    if humped.any():
        crest[humped] = _crest(k[humped])
        e = np.exp(-k * crest)
        height = log_odds + 2.0 * np.log1p(crest) - k * crest - 2.0 * np.log1p(e)
        two_peaks = humped & (height > 0.0) & (crest > 0.0)
    # log(1 + v) <= (1 + v)/a - 1 + log a with a = 4/k bounds the root from above.
    far = (2.0 / k) * (log_odds - 2.0 + 2.0 * np.log(4.0 / k) + k) - 1.0
    rate_start = np.maximum(far, crest + 1.0 / k)
    # Delay slice: with v = 1 - 1/y the sign is that of log(mu k / (Lambda (1 - c))) + 2 log(1 - c v) + log s(1 - s)(k
    # v), v in [0, 1).
    delay_offset = log_odds - np.log1p(-c)
    at_one = delay_offset + 2.0 * np.log1p(-c) - k - 2.0 * np.log1p(np.exp(-k))
    start = np.where(delay, 1.0, rate_start)
    offset = np.where(delay, delay_offset, log_odds)
    endless = np.where(delay, at_one >= 0.0, weight <= 0.0)
    flat = np.where(delay, delay_offset <= np.log(4.0), (bottom < 0.0) & ~two_peaks)
    solve = ~(endless | flat)
    v = np.zeros(k.shape)
    if solve.any():
        v[solve] = _newton_from_right(
            start[solve], np.ones(int(solve.sum())), np.where(delay, -c, 1.0)[solve], offset[solve], k[solve]
        )
    ratio = np.where(delay, c + (1.0 - c) / (1.0 - np.where(delay, v, 0.0)), 1.0 + v)
    ratio = np.where(endless, np.inf, np.where(flat, 1.0, ratio))
    if two_peaks.any():
        # The upward-closed hump beats x = 1 only if it pays more there.
        terms = Terms(delay, k, weight, mu)
        capped = np.minimum(ratio, top)
        better = stage_rules.reward(capped, c, terms, "match", np) > stage_rules.reward(
            np.minimum(1.0, top), c, terms, "match", np
        )
        ratio = np.where(two_peaks & ~better, 1.0, ratio)
    # Below its requirement f rises everywhere, so a reach below x* makes the reach the peak.
    return np.minimum(ratio, top), np.broadcast_to(~two_peaks, np.broadcast_shapes(k.shape, top.shape))


def _crest(k: Floats) -> Floats:
    """Place v >= 0 where 2 log(1 + v) + log s(1 - s)(k v) is largest: 2/(1 + v) = k tanh(k v / 2), by bisection."""
    low, high = np.zeros(k.shape), np.full(k.shape, 4.0) + 8.0 / k
    for _ in range(70):
        middle = 0.5 * (low + high)
        rising = 2.0 / (1.0 + middle) > k * np.tanh(0.5 * k * middle)
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return 0.5 * (low + high)


def risk_adjusted_ratio(
    sigma: ArrayLike, terms: Terms, load_share: ArrayLike = 0.0, utilisation: str = "match", upper: float = 8.0
) -> Floats:
    """Best request under a log-normal forecast error: argmax over b of E f(b / (phi_hat exp(sigma Z))), over phi_hat.

    Args:
        sigma: standard deviation of log(phi / phi_hat); 0 gives the peak ratio.
        terms: the slices' terms.
        load_share: c in [0, 1).
        utilisation: variant of Omega.
        upper: largest ratio looked at.

    Returns:
        The ratio, of the inputs' common shape, to about 1e-6 (a nested grid over the ratio; Gauss-Legendre quadrature
        on both sides of the kink).
    """
    delay, k, weight, mu, c, spread = np.broadcast_arrays(*terms, load_share, np.asarray(sigma, float))
    sd = np.maximum(spread.ravel(), 1e-9)[:, None]
    rows = Terms(*(np.ravel(a)[:, None, None] for a in (delay.astype(bool), k, weight, mu)))
    share = np.where(rows.is_delay, c.ravel()[:, None, None], 0.0)
    nodes, weights = np.polynomial.legendre.leggauss(96)

    def expected(ratio: Floats) -> Floats:
        # The payoff has a kink where the load ratio is 1, at z = log(ratio)/sigma: each side is integrated on its own.
        kink = np.clip(np.log(ratio) / sd, -8.0, 8.0)[..., None]
        total = np.zeros(ratio.shape)
        for left, right in ((-8.0 + 0.0 * kink, kink), (kink, 8.0 + 0.0 * kink)):
            half = 0.5 * (right - left)
            z = left + half * (1.0 + nodes)
            value = stage_rules.reward(ratio[..., None] * np.exp(-sd[..., None] * z), share, rows, utilisation, np)
            total += half[..., 0] * np.sum(value * np.exp(-0.5 * z * z) * weights, axis=-1)
        return total

    low, high = np.full(spread.size, 0.05), np.full(spread.size, float(upper))
    best = low
    for _ in range(7):
        grid = np.linspace(low, high, 41, axis=-1)
        best = np.take_along_axis(grid, np.argmax(expected(grid), axis=-1)[:, None], -1)[:, 0]
        width = (high - low) / 20.0
        low, high = np.maximum(best - width, 1e-3), np.minimum(best + width, upper)
    return best.reshape(spread.shape)
