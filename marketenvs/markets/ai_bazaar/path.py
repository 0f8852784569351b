"""The equilibrium path p -> (F*(p), S*(p)) of the consumers' game, one stretch of constant active set at a time.

Between two events the active set I is constant, and price and purchases are explicit in the total effort S. With
w_i = u_i / (beta_i R_i), k_i = K_i / (beta_i R_i), a = sum_I w_i, d = sum_I k_i and X the effort of the others:
``p(S) = d/a + (|I| - 1)/(a S) + X/(a S^2)`` falls in S, and ``v_i(S) = S - S^2 (w_i p(S) - k_i)``, what consumer i
would put in, is a quadratic in S. So the next event is the root of a quadratic, the provider's payoff is a Laurent
polynomial in S with powers -2 .. 2, and its stationary prices are roots of a quartic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .followers import build_contest, purchases_at, solve_effort
from .game import BoolArray, FloatArray, Game


class Segment(NamedTuple):
    """One stretch of constant active set in each of M markets, all fields (M,).

    V = (c0 + c1/S + c2/S^2) (q2 S^2 + q1 S + q0).
    """

    c0: FloatArray
    c1: FloatArray
    c2: FloatArray
    q2: FloatArray
    q1: FloatArray
    q0: FloatArray
    effort_start: FloatArray
    effort_end: FloatArray
    curved: BoolArray  # false where nobody is active: V is linear in p there and has no inner stationary point


def jump_prices(game: Game) -> FloatArray:
    """Prices at which V may jump, (B, n), NaN elsewhere: K_i / u_i of consumers whose payoff can be linear."""
    miner = game.miners()
    linear = ~miner | (miner.sum(axis=1, keepdims=True) <= 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        price = game.business_margin / game.payment_weight
    inside = (price >= game.price_low[:, None]) & (price <= game.price_high[:, None])
    return np.where(linear & inside, price, np.nan)


def follow(
    game: Game, price: FloatArray, jumps: FloatArray, start: FloatArray | None
) -> tuple[Segment, FloatArray, FloatArray]:
    """One segment of the path from ``price``: its polynomials, the price at its end, and S there."""
    contest = build_contest(game, price)
    total = solve_effort(contest, start)
    weight, margin, beta = game.payment_weight.T, game.business_margin.T, game.mining_ratio.T
    prize = beta * game.reward.T
    free = ~contest.linear
    low, high = beta * game.purchase_low.T, beta * game.purchase_high.T
    share = total * (1 - contest.cost * total)
    inside = ~contest.fixed & (share > contest.low) & (share < contest.high)
    at_high = free & ~inside & (contest.fixed | (share >= contest.high))
    at_low = free & ~inside & ~at_high
    effort = np.clip(share, contest.low, contest.high)
    bought = purchases_at(game, contest, total)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        w, k = np.where(free, weight / prize, 0.0), np.where(free, margin / prize, 0.0)
        a, d = np.where(inside, w, 0.0).sum(axis=0), np.where(inside, k, 0.0).sum(axis=0)
        count = inside.sum(axis=0)
        curved = count > 0
        a = np.where(curved, a, 1.0)
        base, c1 = d / a, (count - 1) / a
        c2 = np.where(inside, 0.0, effort).sum(axis=0) / a
        # v_i(S) = square S^2 + slope S + constant
        square, slope, constant = k - w * base, 1 - w * c1, -w * c2
        falling = np.where(inside, low, np.where(at_high, high, np.nan))  # v_i falls through it as S falls
        rising = np.where(inside, high, np.where(at_low, low, np.nan))
        events = [_crossing(square, slope, constant - falling, 1.0), _crossing(square, slope, constant - rising, -1.0)]
        reached = [np.where((s > 0) & (s <= total * (1 + 1e-12)), s, -np.inf).max(axis=0) for s in events]
        event_effort = np.minimum(np.maximum(*reached), total)
        event = np.where(event_effort > 0, base + c1 / event_effort + c2 / event_effort**2, np.inf)
        # Nobody active: S stays, and the first consumer at its maximum leaves it where v_i = high_i.
        leaving = (margin + prize * (total - high) / total**2) / weight
        leaving = np.where(at_high & (leaving > price), leaving, np.inf).min(axis=0)
        event = np.where(curved, np.maximum(event, price), leaving)
        jump = np.where(price < jumps.T, jumps.T, np.inf).min(axis=0)
        following = np.minimum(np.minimum(event, jump), game.price_high)
        excess, rise = count - 1.0, a * (following - base)
        there = (excess + np.sqrt(excess * excess + 4 * rise * c2 * a)) / (2 * rise)
        there = np.where(following >= event, event_effort, there)
        q2, q1, q0 = (np.where(inside, c / beta, 0.0).sum(axis=0) for c in (square, slope, constant))
    q0 = q0 + np.where(inside, 0.0, bought).sum(axis=0)
    end = np.where(curved & (there > 0), np.minimum(there, total), total)
    return Segment(base - game.unit_cost, c1, c2, q2, q1, q0, total, end, curved), following, end


def _crossing(square: FloatArray, slope: FloatArray, constant: FloatArray, direction: float) -> FloatArray:
    """The root of square S^2 + slope S + constant at which the derivative has the sign ``direction``; NaN if none."""
    root = direction * np.sqrt(slope * slope - 4 * square * constant)
    return np.where(slope * direction > 0, -2 * constant / (slope + root), (root - slope) / (2 * square))


def stationary_prices(segment: Segment, cost: FloatArray) -> FloatArray:
    """Prices (3, M) at which dV/dS = 0 within each segment; NaN where there are fewer than three.

    S^3 dV/dS is the quartic 2 c0 q2 S^4 + (c0 q1 + c1 q2) S^3 - (c1 q0 + c2 q1) S - 2 c2 q0. Its second derivative
    vanishes only at 0 and at one known S, so its derivative is monotone on two pieces and the quartic on three, and
    plain bisection finds every sign change.
    """
    scale = np.where(segment.effort_start > 0, segment.effort_start, 1.0)
    c0, c1, c2 = segment.c0, segment.c1 / scale, segment.c2 / scale**2
    q2, q1, q0 = segment.q2 * scale**2, segment.q1 * scale, segment.q0
    e4, e3, e1, e0 = 2 * c0 * q2, c0 * q1 + c1 * q2, -(c1 * q0 + c2 * q1), -2 * c2 * q0
    left, right = segment.effort_end / scale, segment.effort_start / scale

    def quartic(t: FloatArray) -> FloatArray:
        return ((e4 * t + e3) * t * t + e1) * t + e0

    def cubic(t: FloatArray) -> FloatArray:
        return (4 * e4 * t + 3 * e3) * t * t + e1

    with np.errstate(divide="ignore", invalid="ignore"):
        bend = -e3 / (2 * e4)
    bend = np.clip(np.where(np.isfinite(bend), bend, left), left, right)
    turns, _ = _bisect(cubic, np.stack([left, bend]), np.stack([bend, right]))
    edges = np.stack([left, turns[0], turns[1], right])
    roots, found = _bisect(quartic, edges[:-1], edges[1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        price = c0 + cost + c1 / roots + c2 / roots**2
    return np.where(found & segment.curved & (right > left), price, np.nan)


def _bisect(
    function: Callable[[FloatArray], FloatArray], left: FloatArray, right: FloatArray
) -> tuple[FloatArray, BoolArray]:
    """Where a monotone function changes sign between the bounds (else the right bound), and whether it does."""
    sign = np.sign(function(left))
    found = sign * np.sign(function(right)) <= 0
    for _ in range(56):
        middle = 0.5 * (left + right)
        same = np.sign(function(middle)) == sign
        left, right = np.where(same, middle, left), np.where(same, right, middle)
    return np.where(found, left, right), found
