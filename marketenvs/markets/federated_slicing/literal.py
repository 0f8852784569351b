"""The paper's equations as printed (preset ``paper``), with nothing of the corrected rules in them.

Symbols: r_u rate of a device (bit/s), r_min its requirement, tau delay (s), tau_max its bound, lambda packets per
    second, w resource blocks,
varphi blocks needed, phi slope of the satisfaction curve (per bit/s, per second), Lambda and mu weights.

Taken literally the reward rises strictly in a slice's own grant: asking for the most is dominant, whatever the demand
and whatever the forecast.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

Array = Any


class PaperTerms(NamedTuple):
    """What equations 2, 3 and 14 need; each broadcasts against ``(B, M, N)`` (the last two against ``(B, M)``)."""

    is_delay: Array
    rate_slope: Array
    delay_slope: Array
    delay_bound_s: Array
    packets_per_s: Array
    utilisation_weight: Array
    utility_weight: Array


def rate_eq1(blocks: Array, received_power: Array, noise_power: Array, xp: Any) -> Array:
    """Equation 1: r = w log2(1 + p |h|^2 / N0). As printed it has no bandwidth: with w in blocks it is not in bit/s."""
    return blocks * xp.log(1.0 + received_power / noise_power) / math.log(2.0)


def delay_eq(rate_bps: Array, packets_per_s: Array, xp: Any) -> Array:
    """Section II-A: tau = 1/(r_b - lambda), bit/s minus packets/s; infinite where r_b <= lambda (not in the paper)."""
    spare = rate_bps - packets_per_s
    return 1.0 / xp.where(spare > 0, spare, xp.zeros_like(spare) + 1e-30)


def _sigmoid(z: Array, xp: Any) -> Array:
    decay = xp.exp(-xp.abs(z))
    return xp.where(z >= 0, 1.0 / (1.0 + decay), decay / (1.0 + decay))


def satisfaction_eq2_3(rate_bps: Array, required_bps: Array, terms: PaperTerms, xp: Any) -> Array:
    """Equations 2 and 3 per device: one slope, absolute differences in bit/s or in seconds."""
    by_rate = _sigmoid(terms.rate_slope * (rate_bps - required_bps), xp)
    by_delay = _sigmoid(terms.delay_slope * (terms.delay_bound_s - delay_eq(rate_bps, terms.packets_per_s, xp)), xp)
    return xp.where(terms.is_delay, by_delay, by_rate)


def utility_eq4(satisfaction: Array, xp: Any) -> Array:
    """Equation 4: the slice's utility is the SUM over its devices, 0..N."""
    return xp.sum(satisfaction, axis=-1)


def utilisation_eq5(blocks: Array, needed: Array) -> Array:
    """Equation 5: Omega = w / varphi, unbounded and rising."""
    return blocks / needed


def reward_eq14(
    blocks: Array, needed: Array, rate_bps: Array, required_bps: Array, terms: PaperTerms, xp: Any
) -> tuple[Array, Array, Array]:
    """Equation 14: R = Lambda Omega + mu U; returns (R, Omega, U), each ``(B, M)``."""
    used = utilisation_eq5(blocks, needed)
    served = utility_eq4(satisfaction_eq2_3(rate_bps, required_bps, terms, xp), xp)
    return terms.utilisation_weight * used + terms.utility_weight * served, used, served


def relative_action(previous: Array, action: Array, step: float) -> Array:
    """Section IV-A-b: a percentage of the blocks held is added (a > 0) or given up (a < 0)."""
    return previous * (1.0 + step * action)


def adjacency_eq9(embedding: Array, beta: float = 1.0) -> Array:
    """Equation 9 with M1 = M2 as printed: M1 M2^T - M2 M1^T is zero, so the graph has no edge at all."""
    import numpy as np

    m = np.tanh(beta * np.asarray(embedding, float))
    return np.maximum(np.tanh(beta * (m @ m.T - m @ m.T)), 0.0)


def softmax_eq12(scores: Array) -> Array:
    """Equation 12: a softmax as forecast head; its entries add up to 1 whatever the traffic, and a single one IS 1."""
    import numpy as np

    e = np.exp(np.asarray(scores, float) - np.max(scores))
    return e / e.sum()
