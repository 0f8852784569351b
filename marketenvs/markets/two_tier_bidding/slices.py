"""Exact lower tier: satisfaction and rate of a slice on resource blocks, and the best split of an operator's blocks.

A slice (operator m, service s) with n blocks holds ``n w`` MHz for its J users. Two closed forms (spec section 2):

* allocated rate ``A(n)``: every user holds 1/J of the slice (eqs. 9-12);
* satisfaction ratio ``SSR(n)``: a user that is active shares the slice with the K ~ Bin(J-1, a) other active ones and
  is served validly if its Rayleigh-faded rate exceeds the agreed one (eq. 13 in expectation).

From these tables the best split of n blocks over the services is found by enumeration, and the best division of all
blocks over operators by dynamic programming. NumPy float64, batched over ``(B, M)``; no environment contract here.
Axis order everywhere: ``(B, M, service, blocks)``; services in the order VoLTE, eMBB, URLLC.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from .values import Array

SERVICES = ("VoLTE", "eMBB", "URLLC")
_LN2 = float(np.log(2.0))


class SliceTables(NamedTuple):
    """Everything a slicer can get, for 0..N blocks.

    Attributes:
        ssr: Expected satisfaction ratio, ``(B, M, 3, N+1)``.
        rate: Allocated rate A(n) in Mb/s, ``(B, M, 3, N+1)``.
        radial: ``sum_j c_j dv/dc_j`` in Mb/s, the rate gained per relative growth of the slice, ``(B, M, 3, N+1)``.
        block: Width of a block in MHz.
    """

    ssr: Array
    rate: Array
    radial: Array
    block: float


class Splits(NamedTuple):
    """Table A: the best split for every number of blocks.

    Attributes:
        blocks: Blocks of (VoLTE, eMBB, URLLC), ``(B, M, N+1, 3)``; among ties the lexicographically smallest.
        utility: The optimum f (eq. 14), ``(B, M, N+1)``.
        rate: Total rate v in Mb/s at that split, ``(B, M, N+1)``.
        marginal: Radial slope of v in Mb/s per MHz at that split, ``(B, M, N+1)``.
        efficiency: Spectral efficiency (eq. 12) at that split, ``(B, M, N+1)``.
        ssr: Satisfaction per service at that split, ``(B, M, N+1, 3)``.
    """

    blocks: NDArray[np.int64]
    utility: Array
    rate: Array
    marginal: Array
    efficiency: Array
    ssr: Array


def slice_tables(
    snr: Array, users: NDArray[np.int64], activity: Array, sla: Array, multiplier: float, block: float, blocks: int
) -> SliceTables:
    """Satisfaction and rates of every slice for 0..N blocks.

    Args:
        snr: SNR bandwidth of each user at mean fading in MHz, ``(B, M, 3, J)``, padded beyond a slice's users.
        users: Users per slice, ``(M, 3)`` or ``(B, M, 3)``.
        activity: Probability that a user is active, broadcast to ``(B, M, 3)``, in (0, 1].
        sla: Agreed rate in Mb/s, broadcast to ``(B, M, 3)``.
        multiplier: Spectral multiplier L.
        block: Width of a resource block in MHz.
        blocks: Number of blocks N.
    """
    width = snr.shape[-1]
    users = np.broadcast_to(users, snr.shape[:-1])[..., None]  # (B, M, 3, 1)
    activity = np.broadcast_to(activity, snr.shape[:-1])[..., None]
    sla = np.broadcast_to(sla, snr.shape[:-1])[..., None]
    member = np.arange(width) < users
    snr = np.where(member, snr, 1.0)
    count = np.maximum(users, 1)
    rate, radial, ssr = (np.zeros((*snr.shape[:-1], blocks + 1)) for _ in range(3))
    ssr += np.where(users == 0, 1.0, 0.0)
    others = np.arange(width)  # k other active users
    chance = _binomial(others, np.maximum(users - 1, 0), activity)  # (B, M, 3, J)
    for n in range(1, blocks + 1):  # one pass per block count keeps the (J, k) table small
        band = n * block
        each = band / count
        x = snr / each
        log = np.log1p(x)
        rate[..., n] = np.where(member, multiplier * each * log / _LN2, 0.0).sum(-1)
        radial[..., n] = np.where(member, multiplier * each * (log - x / (1.0 + x)) / _LN2, 0.0).sum(-1)
        c = band / (others + 1.0)
        with np.errstate(over="ignore"):
            need = c * np.expm1(sla * _LN2 / (multiplier * c))  # SNR bandwidth that just carries the agreed rate
        fail = need[..., None, :] / snr[..., None]  # (B, M, 3, J, k)
        served = (chance[..., None, :] * np.exp(-fail)).sum(-1)
        ssr[..., n] = np.where(users[..., 0] == 0, 1.0, np.where(member, served, 0.0).sum(-1) / count[..., 0])
    return SliceTables(ssr, rate, radial, block)


def service_weights(users: NDArray[np.int64], ssr_sum: str) -> Array:
    """Weight of each service's ratio in eq. (14): 1 for ``services``, its number of users for ``users``, ``(M, 3)``."""
    if ssr_sum not in ("services", "users"):
        raise ValueError(f"ssr_sum={ssr_sum!r} is not offered; choose 'services' or 'users'")
    return np.ones(np.shape(users)) if ssr_sum == "services" else np.asarray(users, float)


def split_utility(tables: SliceTables, split: NDArray[np.int64], rho: Array | float, phi: Array) -> Array:
    """Utility f of eq. (14) at a split ``(..., M, 3)`` of blocks: ``rho SE + sum_s phi_s SSR_s``, ``(..., M)``."""
    ssr, rate = (np.take_along_axis(t, split[..., None], -1)[..., 0] for t in (tables.ssr, tables.rate))
    band = split.sum(-1) * tables.block
    se = np.where(band > 0, rate.sum(-1) / np.where(band > 0, band, 1.0), 0.0)
    return rho * se + (phi * ssr).sum(-1)


def best_splits(tables: SliceTables, rho: Array | float, phi: Array) -> Splits:
    """Table A for every operator and every number of blocks, by enumeration of all splits (at most 1326 for 50 blocks).

    Args:
        tables: From `slice_tables`.
        rho: Weight of spectral efficiency, broadcast to ``(B, M)``.
        phi: Weights of the three ratios, broadcast to ``(B, M, 3)``.
    """
    batch, operators, _, size = tables.ssr.shape
    weight = np.broadcast_to(np.asarray(rho, float), (batch, operators))[..., None, None]
    phi = np.broadcast_to(np.asarray(phi, float), (batch, operators, 3))
    chosen = np.zeros((batch, operators, size, 3), np.int64)
    utility = np.zeros((batch, operators, size))
    satisfied = phi[..., None] * tables.ssr
    for n in range(size):
        band = max(n * tables.block, 1e-300)
        gain = satisfied[..., : n + 1] + weight * tables.rate[..., : n + 1] / band
        first, second = np.nonzero(np.add.outer(np.arange(n + 1), np.arange(n + 1)) <= n)  # lexicographic order
        total = gain[..., 0, first] + gain[..., 1, second] + gain[..., 2, n - first - second]
        at = total.argmax(-1)
        utility[..., n] = np.take_along_axis(total, at[..., None], -1)[..., 0]
        chosen[..., n, :] = np.stack([first[at], second[at], n - first[at] - second[at]], -1)
    pick = np.moveaxis(chosen, -1, 2)  # (B, M, 3, N+1)
    ssr, rate, radial = (np.take_along_axis(t, pick, -1) for t in (tables.ssr, tables.rate, tables.radial))
    width = np.arange(size) * tables.block
    safe = np.where(width > 0, width, 1.0)
    total_rate, slope = rate.sum(2), np.where(width > 0, radial.sum(2) / safe, 0.0)
    return Splits(chosen, utility, total_rate, slope, total_rate / safe, np.moveaxis(ssr, 2, -1))


def best_split_dp(tables: SliceTables, blocks: int, rho: Array | float, phi: Array) -> Array:
    """The optimum f for one number of blocks by dynamic programming over services, ``(B, M)``: a second method."""
    band = max(blocks * tables.block, 1e-300)
    gain = np.asarray(phi)[..., None] * tables.ssr[..., : blocks + 1]
    gain = gain + np.asarray(rho, float)[..., None, None] * tables.rate[..., : blocks + 1] / band
    return max_plus(max_plus(gain[..., 0, :], gain[..., 1, :]), gain[..., 2, :])[..., blocks]


def max_plus(left: Array, right: Array) -> Array:
    """``out[n] = max over k of left[k] + right[n-k]`` along the last axis."""
    size = left.shape[-1]
    out = np.full(np.broadcast_shapes(left.shape, right.shape), -np.inf)
    for k in range(size):
        out[..., k:] = np.maximum(out[..., k:], left[..., k : k + 1] + right[..., : size - k])
    return out


def divide_blocks(worth: Array) -> tuple[NDArray[np.int64], Array]:
    """Division of all N blocks over operators that maximises ``sum_m worth[m, n_m]``: exact, O(M N^2).

    Args:
        worth: What n blocks are worth to each operator, ``(B, M, N+1)``.

    Returns:
        Blocks ``(B, M)`` (among ties, later operators get fewer) and the optimum ``(B,)``.
    """
    batch, operators, size = worth.shape
    best = [worth[:, 0]]
    for m in range(1, operators):
        best.append(max_plus(best[-1], worth[:, m]))
    left = np.full((batch, 1), size - 1)
    blocks = np.zeros((batch, operators), np.int64)
    for m in range(operators - 1, 0, -1):
        k = np.arange(size)
        rest = left - k
        before = np.take_along_axis(best[m - 1], np.maximum(rest, 0), -1)
        total = np.where(rest >= 0, before + worth[:, m], -np.inf)
        blocks[:, m] = total.argmax(-1)
        left = left - blocks[:, m : m + 1]
    blocks[:, 0] = left[:, 0]
    return blocks, best[-1][:, -1]


def round_blocks(bandwidths: Array, block: float, blocks: int) -> NDArray[np.int64]:
    """Largest-remainder rounding of bandwidths ``(..., M)`` to whole blocks; ties go to the lower index.

    Bandwidths that add up to nothing give no blocks.
    """
    total = bandwidths.sum(-1, keepdims=True)
    exact = np.where(total > 0, bandwidths / np.where(total > 0, total, 1.0), 0.0) * blocks
    whole = np.floor(exact + 1e-9)
    missing = np.where(total > 0, blocks - whole.sum(-1, keepdims=True), 0.0)
    # Equal remainders must compare equal whatever their last bit: compare them on a fixed grid.
    remainder = np.round((exact - whole) * 2**30)
    rank = np.argsort(np.argsort(-remainder, -1, kind="stable"), -1, kind="stable")
    return (whole + (rank < missing)).astype(np.int64)


def _binomial(k: NDArray[np.int64], trials: NDArray[np.int64], p: Array) -> Array:
    """Bin(k; trials, p), 0 beyond the number of trials; shapes broadcast."""
    inside = k <= trials
    rest = np.where(inside, trials - k, 0)
    log = gammaln(trials + 1) - gammaln(np.where(inside, k, 0) + 1) - gammaln(rest + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        lose = np.where(rest > 0, rest * np.log1p(-p), 0.0)  # 0 log 0 = 0 at p = 1
    return np.where(inside, np.exp(log + k * np.log(p) + lose), 0.0)
