"""The paper's equations as printed or as worded, for the ``paper`` preset; shares no branch with the corrected rules.

Numbering as in the paper's text. What is wrong with them: the fidelity notes in the page of the market (`rules`).
Array API functions; M operators along the last axis unless said otherwise.
"""

from __future__ import annotations

from typing import Any

from ...arrays import Array


def penalty(xp: Any, value: Array, bandwidths: Array, bandwidth: Array, bids: Array, constant: Array) -> Array:
    """Eqs. (4) and (5) as printed, v without a prime: ``q_m = (1/alpha) v_m (1 - c_m/C)``, ``alpha = sum b / R``.

    Zero where nobody bids. The constant R is never defined in the paper; 1 makes q b a rate.
    """
    total = xp.sum(bids, axis=1, keepdims=True)
    alpha = xp.where(total > 0, total, 1.0) / constant
    return xp.where(total > 0, value * (1.0 - bandwidths / bandwidth) / alpha, 0.0 * value)


def upper_reward(xp: Any, volte: Array, embb: Array, urllc: Array, efficiency: Array, profit: Array) -> Array:
    """Shaped reward of the upper tier (Section 4.1), read literally as a cascade, from means over the operators.

    It has a cliff: at profit 185, efficiency 219.99 earns 4 and efficiency 220 earns 3. Shapes all (B,).
    """
    base = (embb >= 0.975) & (volte >= 0.98)
    dear = xp.where(efficiency >= 220.0, 4.0 + (efficiency - 230.0) * 0.1 + (profit - 185.0) * 0.1, 4.0 + 0.0 * profit)
    middling = xp.where(profit > 170.0, (urllc - 0.7) * 10.0, 0.0 * profit)
    good = xp.where(profit >= 185.0, dear, middling)
    satisfied = xp.where(urllc < 0.95, (urllc - 0.7) * 6.0, good)
    return xp.where(embb < 0.975, -5.0 + 0.0 * profit, xp.where(base, satisfied, 0.0 * profit))


def lower_reward(xp: Any, volte: Array, embb: Array, urllc: Array, efficiency: Array) -> Array:
    """Shaped reward of the lower tier (Section 4.1), element by element."""
    fine = xp.where(efficiency >= 280.0, 4.0 + (efficiency - 280.0) * 0.1, 4.0 + 0.0 * efficiency)
    served = xp.where(urllc < 0.95, (urllc - 0.7) * 10.0, fine)
    return xp.where((embb >= 0.96) & (volte >= 0.98), served, -5.0 + 0.0 * efficiency)


def gate_chances(xp: Any, ssr: Array, packets: Array, log_ways: Array, max_packets: int) -> tuple[Array, ...]:
    """What the gates of `lower_reward` do to ratios reported as Binomial(npk, SSR)/npk: exact sums over the counts.

    Args:
        xp: Array namespace.
        ssr: True ratios, (B, X, 3).
        packets: Packets counted per service, (B, 1, 3).
        log_ways: ln of the binomial coefficients, (B, 1, 3, K+1), -inf beyond npk.
        max_packets: K.

    Returns:
        Chances that VoLTE, eMBB and URLLC pass, and the mean of (ratio - 0.7) x 10 over URLLC's failures; (B, X) each.
    """
    pmf = binomial_pmf(xp, ssr, packets, log_ways, max_packets)
    ratio = xp.astype(xp.arange(max_packets + 1), ssr.dtype) / packets[..., None]
    eps = 1e-12  # k/npk against a threshold that it equals on paper
    passed = [xp.astype(ratio[:, :, i, :] >= t - eps, ssr.dtype) for i, t in enumerate((0.98, 0.96, 0.95))]
    volte, embb, urllc = (xp.sum(pmf[:, :, i, :] * passed[i], axis=2) for i in range(3))
    short = xp.sum(pmf[:, :, 2, :] * (1.0 - passed[2]) * (ratio[:, :, 2, :] - 0.7) * 10.0, axis=2)
    return volte, embb, urllc, short


def expected_lower_reward(xp: Any, volte: Array, embb: Array, urllc: Array, short: Array, efficiency: Array) -> Array:
    """Mean of `lower_reward` from `gate_chances`, element by element."""
    fine = xp.where(efficiency >= 280.0, 4.0 + (efficiency - 280.0) * 0.1, 4.0 + 0.0 * efficiency)
    both = volte * embb
    return both * (short + urllc * fine) - 5.0 * (1.0 - both)


def binomial_pmf(xp: Any, p: Array, trials: Array, log_ways: Array, most: int) -> Array:
    """Bin(k; trials, p) for k = 0..most along a new last axis; p (B, M, 3), trials (B, 1, 3)."""
    k = xp.astype(xp.arange(most + 1), p.dtype)
    n = trials[..., None]
    p = p[..., None]
    some, none = p > 0.0, p >= 1.0
    log_p = xp.log(xp.where(some, p, 1.0))
    log_q = xp.log1p(-xp.where(none, 0.5, p))
    win = xp.where(some, k * log_p, xp.where(k > 0, -1e30, 0.0 * k))
    rest = n - k
    lose = xp.where(none, xp.where(rest > 0, -1e30 + 0.0 * rest, 0.0 * rest), rest * log_q)
    return xp.exp(xp.where(rest >= 0, log_ways + win + lose, -1e30 + 0.0 * rest))
