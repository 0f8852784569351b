"""The slicing market's equilibrium in closed form: peaks, Nash allocation, best response, exact exploitability.

A slice's payoff f(w) = Lambda Omega(w/phi) + mu U(w/phi) depends on the others only through its own grant w. Where f
has one peak p, the game under
the proportional rule has a unique Nash allocation (spec, section 5): every slice gets ``clip(p, s lo, s cap)`` with one
common scale s <= 1, that is,
max-min fairness on the peaks. Solving it is one sort.

All functions are batched: ``(..., M)`` arrays in float64, capacity broadcasting as ``(..., 1)`` or a number. Nothing
here knows the market's contract.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marketenvs.markets.federated_slicing import stage as stage_rules
from marketenvs.markets.federated_slicing.peaks import peak_ratio, risk_adjusted_ratio
from marketenvs.markets.federated_slicing.stage import Terms

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class SliceGame(NamedTuple):
    """One slot's game with complete information; numeric fields broadcast against ``(..., M)``.

    Attributes:
        need: phi, RB.
        load_share: c in [0, 1), 0 for rate slices.
        terms: what each slice is paid for.
        request_min: lo, RB, the least a slice may request.
        request_max: cap (kappa), RB, the most a slice may request.
        capacity: W, RB, a number or ``(..., 1)``.
        rule: ``proportional`` or ``uniform``.
        utilisation: variant of Omega.
    """

    need: Floats
    load_share: Floats
    terms: Terms
    request_min: Floats
    request_max: Floats
    capacity: Floats
    rule: str = "proportional"
    utilisation: str = "match"


class SliceEquilibrium(NamedTuple):
    """Nash allocation of a `SliceGame`.

    Attributes:
        requests: b, RB ``(..., M)``.
        grants: w, RB ``(..., M)``.
        scale: s = min(1, W / sum b) ``(..., 1)``; under the uniform rule 1.
        peaks: p, RB ``(..., M)``.
        single_peaked: whether the closed form is proved for every slice of the market, ``(...,)``.
    """

    requests: Floats
    grants: Floats
    scale: Floats
    peaks: Floats
    single_peaked: Bools


def game(
    need: ArrayLike,
    load_share: ArrayLike = 0.0,
    is_delay: ArrayLike = False,
    *,
    steepness: ArrayLike = 10.0,
    utilisation_weight: ArrayLike = 0.5,
    utility_weight: ArrayLike = 0.5,
    request_min: ArrayLike = 0.1,
    request_max: ArrayLike | None = None,
    capacity: ArrayLike = 50.0,
    rule: str = "proportional",
    utilisation: str = "match",
) -> SliceGame:
    """Build a `SliceGame` with the paper's defaults, checking what would make the answer meaningless.

    Args:
        need: phi, RB, ``(..., M)``, positive.
        load_share: c in [0, 1).
        is_delay: True for delay slices.
        steepness: k.
        utilisation_weight: Lambda.
        utility_weight: mu.
        request_min: lo, RB.
        request_max: cap, RB; the whole capacity if None.
        capacity: W, RB; a number or one per market ``(...,)``.
        rule: ``proportional`` or ``uniform``.
        utilisation: ``match``, ``served``, ``efficiency`` or ``paper``.

    Raises:
        ValueError: for non-finite needs, load shares outside [0, 1), lo > cap or sum lo > W.
    """
    phi = np.asarray(need, float)
    if phi.ndim == 0:
        raise ValueError("need is a number; give one need per slice, shape (..., M)")
    if not np.all(np.isfinite(phi)) or np.any(phi < 0):
        raise ValueError(f"need has {np.sum(~np.isfinite(phi) | (phi < 0))} entries that are not finite and >= 0 (RB)")
    phi = np.maximum(phi, stage_rules.MIN_NEED)
    c = np.asarray(load_share, float)
    if np.any(~((c >= 0) & (c < 1))):
        raise ValueError("load_share must lie in [0, 1): it is the share of a delay slice's need that carries the load")
    if utilisation not in stage_rules.UTILISATIONS:
        raise ValueError(f"utilisation={utilisation!r} is not offered; choose one of {stage_rules.UTILISATIONS}")
    if rule not in stage_rules.ALLOCATION_RULES:
        raise ValueError(f"rule={rule!r} is not offered; choose one of {stage_rules.ALLOCATION_RULES}")
    total = np.asarray(capacity, float)
    total = total[..., None] if total.ndim else total
    lo = np.asarray(request_min, float)
    cap = np.asarray(total if request_max is None else request_max, float)
    if np.any(lo > cap):
        raise ValueError("request_min exceeds request_max for some slice")
    if np.any(np.sum(np.broadcast_to(lo, phi.shape), axis=-1, keepdims=True) > total * (1 + 1e-12)):
        raise ValueError("the least requests together exceed the capacity (sum request_min > W)")
    delay = np.asarray(is_delay, bool)
    terms = Terms(
        delay, np.asarray(steepness, float), np.asarray(utilisation_weight, float), np.asarray(utility_weight, float)
    )
    return SliceGame(phi, np.where(delay, c, 0.0), terms, lo, cap, total, rule, utilisation)


def payoff_of_grant(g: SliceGame, grants: ArrayLike) -> Floats:
    """f(w), the reward of every slice at its grant."""
    return stage_rules.reward(np.asarray(grants, float) / g.need, g.load_share, g.terms, g.utilisation, np)


def grants_of(g: SliceGame, requests: ArrayLike) -> Floats:
    """Grants w under the game's rule."""
    return stage_rules.allocate(np.asarray(requests, float), g.capacity, g.rule, np)


def peaks(g: SliceGame) -> tuple[Floats, Bools]:
    """p, the grant in (0, request_max] that each slice likes best (RB), and single-peakedness per slice."""
    ratio, single = peak_ratio(g.terms, g.load_share, g.request_max / g.need, g.utilisation)
    shape = g.need.shape
    return np.broadcast_to(ratio, shape) * g.need, np.broadcast_to(single, shape)


# --- equilibrium ------------------------------------------------------------------------------------------------------


def common_scale(peaks_: Floats, low: Floats, high: Floats, capacity: Floats) -> Floats:
    """Largest s <= 1 with sum clip(p, s lo, s cap) <= W, ``(..., 1)``: exact, by one sort.

    Args:
        peaks_: p, ``(..., M)``.
        low: lo, broadcasting.
        high: cap, broadcasting.
        capacity: W.
    """
    p = np.asarray(peaks_, float)
    low, high = np.broadcast_to(low, p.shape), np.broadcast_to(high, p.shape)
    if np.all(low <= p):
        # Then s lo never binds. For every i, W = sum min(p, s cap) <= (i smallest p/cap satisfied) + s (caps of the
        # rest), with equality once.
        turning = p / high
        order = np.argsort(turning, axis=-1)
        p_sorted, cap_sorted = np.take_along_axis(p, order, -1), np.take_along_axis(high, order, -1)
        served = np.cumsum(p_sorted, axis=-1) - p_sorted
        waiting = np.cumsum(cap_sorted[..., ::-1], axis=-1)[..., ::-1]
        scale = np.max((capacity - served) / waiting, axis=-1, keepdims=True)
        return np.where(np.sum(p, axis=-1, keepdims=True) <= capacity, 1.0, np.minimum(1.0, scale))
    # General case: the sum is piecewise linear in s, with slope +cap before p/cap, 0 up to p/lo and +lo beyond.
    with np.errstate(divide="ignore"):
        turning = np.concatenate([p / high, np.where(low > 0, p / np.where(low > 0, low, 1.0), np.inf)], axis=-1)
    order = np.argsort(turning, axis=-1)
    at = np.take_along_axis(turning, order, -1)
    slopes = np.take_along_axis(np.concatenate([-high, low], axis=-1), order, -1)
    levels = np.take_along_axis(np.concatenate([p, -p], axis=-1), order, -1)
    slope = np.sum(high, axis=-1, keepdims=True) + np.cumsum(slopes, axis=-1) - slopes
    level = np.cumsum(levels, axis=-1) - levels
    start = np.concatenate([np.zeros((*at.shape[:-1], 1)), at[..., :-1]], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = (capacity - level) / slope
    inside = (slope > 0) & (root >= start * (1 - 1e-15)) & (root <= at * (1 + 1e-15))
    scale = np.min(np.where(inside, root, np.inf), axis=-1, keepdims=True)
    fits = np.sum(np.clip(p, low, high), axis=-1, keepdims=True) <= capacity
    return np.where(fits, 1.0, np.minimum(scale, 1.0))


def equilibrium(g: SliceGame) -> SliceEquilibrium:
    """The Nash allocation (unique where every slice is single-peaked) and requests that reach it.

    Under the proportional rule b = w / s; under the uniform rule the truthful b = clip(p, lo, cap), a weakly dominant
    strategy.
    """
    p, single = peaks(g)
    if g.rule == "uniform":
        requests = np.clip(p, g.request_min, g.request_max)
        grants = grants_of(g, requests)
        return SliceEquilibrium(requests, grants, np.ones((*p.shape[:-1], 1)), p, np.all(single, axis=-1))
    scale = common_scale(p, g.request_min, g.request_max, g.capacity)
    requests = np.clip(p / scale, g.request_min, g.request_max)
    return SliceEquilibrium(requests, requests * scale, scale, p, np.all(single, axis=-1))


# --- deviations -------------------------------------------------------------------------------------------------------


def reach(g: SliceGame, requests: ArrayLike) -> tuple[Floats, Floats]:
    """Smallest and largest grant each slice can bring about alone, the others' requests fixed: two ``(..., M)``."""
    b = np.asarray(requests, float)
    low, high = np.broadcast_to(g.request_min, b.shape), np.broadcast_to(g.request_max, b.shape)
    if g.rule == "uniform":
        ceiling = _uniform_ceiling(b, g.capacity)
        return np.minimum(low, ceiling), np.minimum(high, ceiling)
    others = np.sum(b, axis=-1, keepdims=True) - b
    return low * np.minimum(1.0, g.capacity / (low + others)), high * np.minimum(1.0, g.capacity / (high + others))


def _uniform_ceiling(b: Floats, capacity: Floats) -> Floats:
    """What a slice would get under the uniform rule if it asked without limit: l with sum_{j != m} min(b_j, l) + l = W.

    With F(l) = sum_j min(b_j, l) the equation reads F(l) = W while l < b_m and F(l) + l = W + b_m above, both solved as
    maxima over the sorted
    requests (see `stage.uniform`).
    """
    count = b.shape[-1]
    ordered = np.sort(b, axis=-1)
    below = np.concatenate([np.zeros((*b.shape[:-1], 1)), np.cumsum(ordered, axis=-1)], axis=-1)
    remaining = np.arange(count, 0, -1.0)
    level = np.max((capacity - below[..., :-1]) / remaining, axis=-1, keepdims=True)
    # l = max_i (W + b_m - P_i) / (M - i + 1), i = 0..M: the upper envelope of M + 1 lines in b_m.
    weights = np.arange(count + 1, 0, -1.0)
    above = np.empty_like(b)
    step = max(1, int(2e6) // (count + 1))
    flat_b, flat_below = b.reshape(-1, count), below.reshape(-1, count + 1)
    flat_capacity = np.broadcast_to(capacity, (*b.shape[:-1], 1)).reshape(-1, 1)
    flat_above = above.reshape(-1, count)
    rows = max(1, step // count) if count <= step else 1
    for start in range(0, flat_b.shape[0], rows):
        chunk = slice(start, start + rows)
        for first in range(0, count, step):
            part = slice(first, first + step)
            lines = flat_capacity[chunk, :, None] + flat_b[chunk, part, None] - flat_below[chunk, None, :]
            flat_above[chunk, part] = np.max(lines / weights, axis=-1)
    above = flat_above.reshape(b.shape)
    own_capped = np.sum(np.minimum(b[..., None, :], b[..., :, None]), axis=-1) >= capacity if count <= 64 else level < b
    return np.where(own_capped, np.minimum(level, b), np.maximum(above, b))


def best_response(g: SliceGame, requests: ArrayLike) -> Floats:
    """Best own request against the others', ``(..., M)``; of several the least distorted (the peak itself)."""
    b = np.asarray(requests, float)
    p, _ = peaks(g)
    if g.rule == "uniform":
        return np.clip(p, g.request_min, g.request_max)
    others = np.sum(b, axis=-1, keepdims=True) - b
    with np.errstate(divide="ignore", invalid="ignore"):
        inflated = np.where(p < g.capacity, p * others / np.maximum(g.capacity - p, 1e-300), np.inf)
    return np.clip(np.where(p + others <= g.capacity, p, inflated), g.request_min, g.request_max)


def gains(g: SliceGame, requests: ArrayLike) -> Floats:
    """What each slice gains at most by deviating alone, ``(..., M)`` >= 0; exact where it is single-peaked."""
    b = np.asarray(requests, float)
    low, high = reach(g, b)
    p, _ = peaks(g)
    best = payoff_of_grant(g, np.clip(p, low, high))
    return np.maximum(best - payoff_of_grant(g, grants_of(g, b)), 0.0)


def nash_conv(g: SliceGame, requests: ArrayLike) -> Floats:
    """Sum of all slices' gains, ``(...,)``."""
    return np.sum(gains(g, requests), axis=-1)


def dynamics(g: SliceGame, start: ArrayLike, steps: int = 500, tolerance: float = 1e-13) -> tuple[Floats, int]:
    """Simultaneous best responses from ``start``; returns the last requests and the number of steps used.

    Best responses increase in the others' total, so they converge (200 of 200 random games); the second method behind
    `equilibrium`'s certificate.
    """
    b = np.asarray(start, float)
    for step in range(1, steps + 1):
        answer = best_response(g, b)
        if np.max(np.abs(answer - b)) <= tolerance * np.max(np.abs(b)):
            return answer, step
        b = answer
    return b, steps


# --- imperfect information --------------------------------------------------------------------------------------------


def certainty_equivalent(g: SliceGame, forecast: ArrayLike, load_share: ArrayLike | None = None) -> SliceEquilibrium:
    """Equilibrium of the game in which every forecast were true: what slices that trust their forecasts would play.

    Args:
        g: the game as it really is.
        forecast: phi_hat, RB, ``(..., M)``.
        load_share: c expected; the real one if None.
    """
    believed = np.maximum(np.asarray(forecast, float), stage_rules.MIN_NEED)
    share = g.load_share if load_share is None else np.where(g.terms.is_delay, load_share, 0.0)
    return equilibrium(g._replace(need=believed, load_share=share))


def risk_adjusted(g: SliceGame, forecast: ArrayLike, sigma: ArrayLike) -> SliceEquilibrium:
    """Play on forecasts with each peak moved to where its expected payoff under the forecast error is largest.

    Args:
        g: the game; its load shares are taken as known.
        forecast: phi_hat, RB.
        sigma: standard deviation of log(phi / phi_hat), per slice.
    """
    phi_hat = np.maximum(np.asarray(forecast, float), stage_rules.MIN_NEED)
    ratio = risk_adjusted_ratio(sigma, g.terms, g.load_share, g.utilisation)
    p = np.clip(ratio * phi_hat, 0.0, g.request_max)
    scale = common_scale(p, g.request_min, g.request_max, g.capacity)
    requests = np.clip(p / scale, g.request_min, g.request_max)
    return SliceEquilibrium(requests, requests * scale, scale, p, np.zeros(p.shape[:-1], bool))
