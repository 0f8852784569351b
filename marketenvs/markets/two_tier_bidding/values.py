"""What bandwidth is worth to an operator: concave value functions, their slopes, and shares at a given slope.

Four families, all arrays ``(B, M)`` in NumPy float64 (``c`` is bandwidth in MHz, the value a rate in Mb/s):

==============  ============================================  ======================================================
kind            value ``v(c)``                                where it comes from
==============  ============================================  ======================================================
``shannon``     ``w c log2(1 + S/c)``                         sum-rate-optimal split, users' SNR bandwidths add to S
``statistical`` ``w c E_h[log2(1 + h S/c)]``, h ~ Exp(1)      the same when the Rayleigh fading is unknown
``linear``      ``w c``                                       constant power spectral density
``log``         ``w ln(1 + c)``                               a test family with a closed form
==============  ============================================  ======================================================

Every equilibrium of the bidding games comes down to one scalar equation per operator,

    ``v'(s C) (1 - s)^k = level``,     s >= 0 (and s <= 1 if k > 0),

with ``k = 0`` for efficient sharing, ``k = 1`` for an equilibrium bid and ``k = 2`` for a best response. `solve_share`
answers it for all operators at once: closed form for ``linear`` and ``log``, a Newton iteration in ``ln s`` kept inside
a bracket for the other two (shares of 1e-20 are met when values differ, so the logarithm is the natural unknown).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import exp1, roots_genlaguerre

Array = NDArray[np.float64]
KINDS = ("shannon", "statistical", "linear", "log")

_LN2 = float(np.log(2.0))
_EPS = float(np.finfo(np.float64).eps)
_LOWEST_LOG_SHARE = -600.0  # S / (exp(-600) C) is still finite
# Gauss-Laguerre nodes for weight z exp(-z); 64 of them give full precision for y >= 2.
_NODES, _WEIGHTS = roots_genlaguerre(64, 1.0)


class Values(NamedTuple):
    """Value functions of ``(B, M)`` operators.

    Attributes:
        kind: One of `KINDS`.
        weight: Factor ``w`` in front, ``(B, M)``: (value per Mb/s) x (spectral multiplier L).
        snr: SNR bandwidth ``S`` in MHz, ``(B, M)``; unused by ``linear`` and ``log``.
    """

    kind: str
    weight: Array
    snr: Array


class Share(NamedTuple):
    """Root of ``v'(s C)(1 - s)^k = level``.

    Attributes:
        log: ``ln s``, ``(B, M)``, at most 0 unless ``k = 0``; ``-inf`` where the slope at zero is below the level.
        slope: ``d ln s / d ln level``, ``(B, M)``, never positive; 0 where the share sits at 0 or 1.
    """

    log: Array
    slope: Array


def value(values: Values, c: Array) -> Array:
    """Value ``v(c)`` in Mb/s; ``v(0) = 0``. Shapes broadcast to ``(..., B, M)``. Eq. (9)-(10) after the ideal split."""
    c = np.asarray(c, float)
    if values.kind == "linear":
        return values.weight * c
    if values.kind == "log":
        return values.weight * np.log1p(c)
    safe = np.where(c > 0, c, 1.0)
    if values.kind == "shannon":
        out = values.weight * safe * np.log1p(values.snr / safe) / _LN2
    else:
        snr = np.where(values.snr > 0, values.snr, 1.0)
        out = np.where(values.snr > 0, values.weight * safe * _mean_log(safe / snr) / _LN2, 0.0)
    return np.where(c > 0, out, 0.0)


def marginal(values: Values, c: Array) -> Array:
    """Slope ``v'(c)`` in Mb/s per MHz; infinite at 0 for a ``shannon`` or ``statistical`` operator."""
    c = np.asarray(c, float)
    if values.kind == "linear":
        return values.weight + 0.0 * c
    if values.kind == "log":
        return values.weight / (1.0 + c)
    safe = np.where(c > 0, c, 1.0)
    slope, _ = _slope(values.kind, safe, np.where(values.snr > 0, values.snr, 1.0))
    worth = (values.weight > 0) & (values.snr > 0)
    return np.where(worth, np.where(c > 0, values.weight * slope, np.inf), 0.0)


def elasticity(values: Values, c: Array) -> Array:
    """``c v'(c) / v(c)`` at ``c > 0``; between 0 and 1 for a concave value with ``v(0) = 0``."""
    v = value(values, c)
    return np.where(v > 0, c * marginal(values, c) / np.where(v > 0, v, 1.0), 1.0)


def useful(values: Values) -> NDArray[np.bool_]:
    """Whether the first MHz is worth anything to the operator, ``(B, M)``."""
    if values.kind in ("linear", "log"):
        return values.weight > 0
    return (values.weight > 0) & (values.snr > 0)


def solve_share(
    values: Values, bandwidth: Array, level: Array, power: int, guess: Array | None = None, iterations: int = 120
) -> Share:
    """Share ``s`` of ``bandwidth`` at which ``v'(s C)(1 - s)^power`` falls to ``level``.

    Args:
        values: The value functions, ``(B, M)``.
        bandwidth: Total bandwidth ``C`` in MHz, broadcast to ``(B, M)``.
        level: Positive slope asked for, ``(B, M)``.
        power: 0, 1 or 2 (0 is not defined for ``linear``: a flat slope has no root).
        guess: Starting ``ln s``, ``(B, M)``; only speed depends on it.
        iterations: Cap on the Newton iteration; every other step at worst halves the bracket.

    Returns:
        The shares in logarithm and their elasticity with respect to the level.
    """
    shape = np.broadcast_shapes(values.weight.shape, np.shape(level), np.shape(bandwidth))
    weight, snr, bandwidth, level = (
        np.broadcast_to(np.asarray(a, float), shape) for a in (values.weight, values.snr, bandwidth, level)
    )
    if values.kind in ("linear", "log"):
        return _closed_share(values.kind, weight, bandwidth, level, power)
    alive = (weight > 0) & (snr > 0)
    snr = np.where(alive, snr, 1.0)
    target = level / np.where(alive, weight, 1.0)

    def residual(t: Array) -> tuple[Array, Array, Array]:
        """H = u (1-s)^k - target, the Newton step, and d ln(u (1-s)^k)/dt."""
        s = np.exp(t)
        u, du = _slope(values.kind, np.maximum(s * bandwidth, 1e-300), snr)
        rest = -np.expm1(t)
        if power == 0:
            left, relative = u, du / u
        else:
            safe = np.maximum(rest, 1e-300)
            left, relative = u * rest**power, du / u - power * s / safe
        plain = (left - target) / np.where(left > 0, -left * relative, np.inf)
        logarithmic = np.log(np.where(left > 0, left, 1e-300) / target) / -relative
        # At high SNR u is nearly linear in ln s; at low SNR it is nearly exponential in it.
        high = snr > 3.0 * s * bandwidth
        return left - target, np.where(high, plain, logarithmic), relative

    low = np.full(shape, _LOWEST_LOG_SHARE)
    high = np.full(shape, 30.0 if power == 0 else 0.0)  # without the factor 1 - s the root may lie beyond 1
    at_zero = ~alive | (residual(low)[0] <= 0)
    ceiling = high
    at_one = alive & (residual(high)[0] >= 0)
    done = at_zero | at_one
    t = np.where(done, -1.0, -1.0 if guess is None else np.clip(guess, _LOWEST_LOG_SHARE, high - 1e-290))
    for _ in range(iterations):
        gap, step, _ = residual(t)
        low = np.where(gap > 0, t, low)
        high = np.where(gap > 0, high, t)
        new = t + step
        inside = (new > low) & (new < high)
        new = np.where(inside, new, 0.5 * (low + high))
        # A share next to 1 matters through 1 - s = -t only if that factor is in the equation.
        near = np.maximum(np.abs(t), 1.0) if power == 0 else np.abs(t)
        settled = (np.abs(new - t) <= 4 * _EPS * near) | (gap == 0)
        t = np.where(done, t, np.where(gap == 0, t, new))
        done = done | settled
        if done.all():
            break
    relative = residual(t)[2]
    log = np.where(at_zero, -np.inf, np.where(at_one, ceiling, t))
    return Share(log, np.where(at_zero | at_one, 0.0, 1.0 / np.where(relative < 0, relative, -1.0)))


def _closed_share(kind: str, weight: Array, bandwidth: Array, level: Array, power: int) -> Share:
    """`solve_share` for ``linear`` and ``log``: at most a quadratic."""
    alive = weight > 0
    ratio = level / np.where(alive, weight, 1.0)
    if kind == "linear":
        if power == 0:
            raise ValueError("a linear value has a flat slope: power 0 has no root, use the step rule instead")
        root = ratio ** (1.0 / power)
        s = 1.0 - root
        growth = -root / power
    elif power == 0:
        s = (1.0 / ratio - 1.0) / bandwidth
        growth = -1.0 / (ratio * bandwidth)
    elif power == 1:
        s = (1.0 - ratio) / (1.0 + ratio * bandwidth)
        growth = -ratio * (1.0 + bandwidth) / (1.0 + ratio * bandwidth) ** 2
    else:  # (1 - s)^2 = ratio (1 + s C): the root below 1, in the form that does not cancel
        half = 1.0 + 0.5 * ratio * bandwidth
        s = (1.0 - ratio) / (half + np.sqrt(half * half - (1.0 - ratio)))
        growth = -ratio * (1.0 + s * bandwidth) / (2.0 * (1.0 - s) + ratio * bandwidth)
    inside = alive & (s > 0) & ((s < 1) | (power == 0))
    safe = np.where(inside, s, 1.0)
    log = np.where(inside, np.log(safe), np.where(alive & (s >= 1), 0.0, -np.inf))
    return Share(log, np.where(inside, growth / safe, 0.0))


def _slope(kind: str, c: Array, snr: Array) -> tuple[Array, Array]:
    """``v'/w`` and ``c v''/w`` at ``c > 0``, without cancellation at low SNR."""
    if kind == "shannon":
        x = snr / c
        ratio = 1.0 / (1.0 + c / snr)
        u = np.log1p(x) - ratio
        small = x < 0.02
        if small.any():
            u = np.where(small, _low_snr(np.where(small, x, 0.0)), u)
        return u / _LN2, -ratio * ratio / _LN2
    y = c / snr
    u = np.empty_like(y)
    du = np.empty_like(y)
    near = y < 2.0
    z = y[near]
    g = np.exp(z) * exp1(z)
    u[near] = (1.0 + z) * g - 1.0
    du[near] = z * g * (2.0 + z) - (1.0 + z)
    far = y[~near]
    if far.size:  # v' = U(2, 1, y) = y^-2 int z exp(-z) (1 + z/y)^-2 dz, where the line above would cancel
        kernel = 1.0 / (1.0 + _NODES / far[:, None]) ** 2
        u[~near] = (kernel * _WEIGHTS).sum(-1) / far**2
        du[~near] = -(kernel * _WEIGHTS * _NODES).sum(-1) / far**2
    return u / _LN2, du / _LN2


def _low_snr(x: Array) -> Array:
    """``ln(1+x) - x/(1+x)`` for small x: sum over k >= 2 of (-x)^k (k-1)/k."""
    total = np.zeros_like(x)
    for k in range(12, 1, -1):
        total = (k - 1) / k - x * total
    return total * x * x


def _mean_log(y: Array) -> Array:
    """``E_h[ln(1 + h/y)] = exp(y) E1(y)`` for h ~ Exp(1)."""
    out = np.empty_like(y)
    near = y < 2.0
    out[near] = np.exp(y[near]) * exp1(y[near])
    far = y[~near]
    if far.size:  # by parts: exp(y) E1(y) = y int exp(-y t) ln(1 + t) dt, which the nodes integrate as z exp(-z) [...]
        ratio = _NODES / far[:, None]
        out[~near] = (_WEIGHTS * np.log1p(ratio) / ratio).sum(-1) / far
    return out
