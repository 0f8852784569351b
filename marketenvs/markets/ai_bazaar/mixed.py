"""Consumers that mix over purchase levels: exact expected payoffs by convolving the distributions of mining effort.

A consumer's payoff depends on its rivals only through their total effort X. Where all efforts are multiples of a
common unit, the distribution of X lives on a lattice and is the convolution of the rivals' distributions (taken as a
product of their Fourier transforms). Elsewhere X is sampled, and the standard error is reported.
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd, lcm
from typing import NamedTuple

import numpy as np

from .game import FloatArray, Game, IntArray

_LARGEST_LATTICE = 1 << 16
_CELLS = 1 << 22  # lattice cells held at once


class MixedPayoff(NamedTuple):
    """Expected payoffs of independent mixed purchases, tokens."""

    values: FloatArray  # (B, n) of the mixtures played
    deviation_values: FloatArray  # (B, n, L) of each pure level against the others' mixtures
    standard_error: FloatArray  # (B, n, L) of deviation_values; 0 where they are exact

    @property
    def gains(self) -> FloatArray:
        """What each consumer gains by its best pure deviation, (B, n), tokens, never negative."""
        return np.maximum(self.deviation_values.max(axis=2) - self.values, 0.0)


def effort_unit(efforts: FloatArray) -> float | None:
    """The largest number of which all ``efforts`` are multiples (to 1e-9 of it), or None if they have no such unit.

    Args:
        efforts: any shape, not negative.
    """
    values = np.unique(efforts[efforts > 0])
    if values.size == 0:
        return 1.0
    numerators, denominators = [], []
    for value in values / values[0]:
        ratio = Fraction(float(value)).limit_denominator(1000)
        if abs(float(ratio) - value) > 1e-9:
            return None
        numerators.append(ratio.numerator)
        denominators.append(ratio.denominator)
    common = lcm(*denominators)
    step = gcd(*(p * (common // q) for p, q in zip(numerators, denominators, strict=True)))
    unit = float(values[0]) * step / common
    multiples = values / unit
    if multiples[-1] > _LARGEST_LATTICE or np.abs(multiples - np.round(multiples)).max() > 1e-9 * max(1, multiples[-1]):
        return None
    return unit


def mixed_payoff(
    game: Game,
    price: FloatArray,
    amounts: FloatArray,
    probabilities: FloatArray,
    *,
    samples: int = 20_000,
    seed: int = 0,
) -> MixedPayoff:
    """Expected payoffs when every consumer draws its purchase independently from its own mixture.

    Args:
        game: B markets.
        price: (B,) posted prices.
        amounts: levels, units, as (L,), (n, L) or (B, n, L).
        probabilities: (B, n, L) mixtures.
        samples: draws per market that has no common unit of effort.
        seed: of those draws.

    Returns:
        Values, values of all pure deviations, and their standard errors (0 where exact).

    Raises:
        ValueError: mixtures of the wrong shape, negative, or not summing to 1 (to 1e-6).
    """
    levels = np.array(np.broadcast_to(np.asarray(amounts, dtype=float), np.shape(probabilities)))
    mixture = np.asarray(probabilities, dtype=float)
    if mixture.ndim != 3 or mixture.shape[:2] != (game.markets, game.consumers):
        raise ValueError(f"probabilities must have shape ({game.markets}, {game.consumers}, L), got {mixture.shape}")
    if not (mixture >= -1e-12).all() or not (np.abs(mixture.sum(axis=2) - 1) <= 1e-6).all():
        raise ValueError("probabilities must not be negative and must sum to 1 along the last axis")
    mixture = np.maximum(mixture, 0.0)
    mixture = mixture / mixture.sum(axis=2, keepdims=True)
    efforts = game.mining_ratio[..., None] * levels
    units = [effort_unit(market) for market in efforts]
    share, error = np.empty(levels.shape), np.zeros(levels.shape)
    exact = np.array([unit is not None for unit in units], dtype=bool)
    for b in np.flatnonzero(~exact):
        share[b], error[b] = _sampled_shares(efforts[b], mixture[b], samples, seed + int(b))
    if exact.any():
        scale = np.array([unit or 1.0 for unit in units])
        steps = np.round(efforts / scale[:, None, None]).astype(np.int64)
        _exact_shares(steps, mixture, np.flatnonzero(exact), share)
    deviation = -game.net_cost(price)[..., None] * levels + game.reward[..., None] * share
    return MixedPayoff((mixture * deviation).sum(axis=2), deviation, game.reward[..., None] * error)


def _exact_shares(steps: IntArray, mixture: FloatArray, rows: IntArray, share: FloatArray) -> None:
    """Fill ``share[rows]`` with E[x / (x + X)] for every consumer and level, efforts in lattice steps."""
    n, width = steps.shape[1:]
    size = int(steps[rows].max(axis=2).sum(axis=1).max()) + 1
    chunk = max(1, _CELLS // (size * n))
    for begin in range(0, rows.size, chunk):
        block = rows[begin : begin + chunk]
        weights = np.zeros((block.size, n, size))
        at = np.indices((block.size, n, width))
        np.add.at(weights, (at[0], at[1], steps[block]), mixture[block])
        rivals = _leave_one_out(weights)
        sums = np.arange(size)
        for level in range(width):
            own = steps[block, :, level][..., None]
            won = own / np.maximum(own + sums, 1)
            share[block, :, level] = (rivals * won).sum(axis=2)


def _leave_one_out(weights: FloatArray) -> FloatArray:
    """Distribution (B, n, size) of the sum of all but one of n independent lattice variables (B, n, size)."""
    n, size = weights.shape[1:]
    spectrum = np.fft.rfft(weights, n=2 * size, axis=2)
    before = np.ones_like(spectrum)
    after = np.ones_like(spectrum)
    for i in range(1, n):
        before[:, i] = before[:, i - 1] * spectrum[:, i - 1]
        after[:, n - 1 - i] = after[:, n - i] * spectrum[:, n - i]
    return np.maximum(np.fft.irfft(before * after, n=2 * size, axis=2)[..., :size], 0.0)


def _sampled_shares(efforts: FloatArray, mixture: FloatArray, samples: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Monte Carlo means (n, L) of x / (x + X) and their standard errors, in one market."""
    rng = np.random.default_rng(seed)
    n, width = efforts.shape
    drawn = np.empty((n, samples))
    for i in range(n):
        drawn[i] = efforts[i, rng.choice(width, size=samples, p=mixture[i])]
    total = drawn.sum(axis=0)
    mean, error = np.empty((n, width)), np.empty((n, width))
    for i in range(n):
        rivals = np.maximum(total - drawn[i], 0.0) if n > 1 else np.zeros(samples)
        sums = efforts[i][:, None] + rivals
        share = np.where(sums > 0, efforts[i][:, None] / np.where(sums > 0, sums, 1.0), 0.0)
        mean[i], error[i] = share.mean(axis=1), share.std(axis=1) / np.sqrt(samples)
    return mean, error
