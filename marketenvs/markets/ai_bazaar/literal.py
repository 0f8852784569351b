"""The paper's equations exactly as printed, for comparison only: no solver of this package uses them.

They need equal mining ratios, positive net costs and results inside the purchase box, and condition (14), under which
the paper proves them unique, holds for no market with two or more consumers. Every result carries these flags. The
fidelity notes in ``docs/fidelity/ai_bazaar.md`` give a counterexample for each equation that fails.

Nothing here clips, and nothing here shares code with the corrected solvers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .game import BoolArray, FloatArray, Game


class ClosedForm(NamedTuple):
    """The paper's closed-form "equilibrium" at a price, with the conditions it rests on."""

    purchases: FloatArray  # (B, n) equation (18), not clipped
    demand: FloatArray  # (B,) equation (22)
    provider_payoff: FloatArray  # (B,) equation (26)
    kappa_positive: BoolArray  # (B,) u_i p > (1 - beta_i) C_b for all i
    equal_beta: BoolArray  # (B,) one mining ratio for all
    inside_box: BoolArray  # (B,) F_min <= (18) <= F_max for all i
    cond14: BoolArray  # (B,) condition (14) with its parentheses repaired; false whenever N >= 2
    cond14_as_printed: BoolArray  # (B,) condition (14) as printed, 2 (N - 1) p u_i + (beta - 1) C_b


def paper_closed_form(game: Game, price: FloatArray) -> ClosedForm:
    """Equations (18), (22), (26), and condition (14), at ``price`` (B,); infinite or negative where they break down."""
    n = game.payment_weight.shape[1]
    p = price[:, None]
    spent = p * game.payment_weight - game.business_margin  # p u_i + (beta_i - 1) C_b
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = spent / game.reward
        total = ratio.sum(axis=1, keepdims=True)
        purchases = (n - 1) / total - ((n - 1) / total) ** 2 * ratio
        demand = (n - 1) / total[:, 0]
        payoff = (price - game.unit_cost) * (n - 1) / total[:, 0]
        printed = (2 * (n - 1) * p * game.payment_weight - game.business_margin) / game.reward
    return ClosedForm(
        purchases=purchases,
        demand=demand,
        provider_payoff=payoff,
        kappa_positive=np.asarray((spent > 0).all(axis=1)),
        equal_beta=(game.mining_ratio == game.mining_ratio[:, :1]).all(axis=1),
        inside_box=((purchases >= game.purchase_low) & (purchases <= game.purchase_high)).all(axis=1),
        cond14=(2 * (n - 1) * ratio < total).all(axis=1),
        cond14_as_printed=(printed < total).all(axis=1),
    )


def paper_best_response(game: Game, price: FloatArray, purchases: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Equations (12) and (13), (B, n) each: unclipped and clipped "purchase strategy"; NaN without a root in (12).

    With ``u_i p < (1 - beta_i) C_b``, as everywhere in Table 1, the square root in (12) is imaginary.
    """
    effort = game.mining_ratio * purchases
    others = np.stack([np.delete(effort, i, axis=1).sum(axis=1) for i in range(effort.shape[1])], axis=1)
    beta = game.mining_ratio
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(game.reward * others / (beta * (price[:, None] * game.payment_weight - game.business_margin)))
        unclipped = root - others / beta
    clipped = np.where(unclipped < game.purchase_low, game.purchase_low, unclipped)
    clipped = np.where(unclipped > game.purchase_high, game.purchase_high, clipped)
    return unclipped, clipped


def paper_scalability(reward: float, rivals: float, kappa: float, rho: float) -> float:
    """Equation (17) as printed: R X / ((rho - sqrt rho) sqrt(R X / kappa)) for rho f(x) - f(rho x)."""
    return reward * rivals / ((rho - rho**0.5) * (reward * rivals / kappa) ** 0.5)


def paper_slope(game: Game, price: FloatArray) -> FloatArray:
    """Equation (27) as printed, (B,): dU_cpp / dp with sums taken in numerator and denominator apart."""
    n = game.payment_weight.shape[1]
    weight, margin = game.payment_weight.sum(axis=1), game.business_margin.sum(axis=1)
    numerator = (n - 1) * game.reward.sum(axis=1) * (game.unit_cost * weight - margin)
    return numerator / (price * weight - margin) ** 2


def paper_curvature(game: Game, price: FloatArray) -> FloatArray:
    """Equation (28) as printed, (B,), read as 2 sum u_j times the fraction: it lacks its minus sign."""
    n = game.payment_weight.shape[1]
    weight, margin = game.payment_weight.sum(axis=1), game.business_margin.sum(axis=1)
    numerator = (n - 1) * game.reward.sum(axis=1) * (game.unit_cost * weight - margin)
    return 2 * weight * numerator / (price * weight - margin) ** 3


def paper_nash_gap(game: Game, price: FloatArray, purchases: FloatArray) -> FloatArray:
    """The provider's gap to condition (6), (B,): its gain from another price with the purchases held fixed.

    U_cpp rises in the price, so only p_max meets Definition 1: it is a Nash, not a Stackelberg, condition.
    """
    demand = purchases.sum(axis=1)
    return (game.price_high - price) * demand


def paper_price_condition(game: Game) -> FloatArray:
    """C sum_j u_j - sum_j (1 - beta_j) C_b, (B,): the sign that decides between (27), (28) and Theorem 5."""
    return game.unit_cost * game.payment_weight.sum(axis=1) - game.business_margin.sum(axis=1)
