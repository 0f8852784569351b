"""What bandwidth gives: SNR of users, value of an operator's share, tables of its slices. Array API, tracing safe.

Rates and losses come from the shared `marketenvs.channel`; particular to this market are users padded to
``(B, M, 3, J)``, the satisfaction ratio with random activity, and table A (the best split for every number of blocks).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ... import channel
from ...arrays import Array, Backend
from .parameters import BiddingParams, SplitCodec

PATH_LOSS_1KM_DB, PATH_LOSS_SLOPE_DB = 145.4, 37.5  # NGMN-style macro model, spec 4.7
_LN2 = math.log(2.0)


class Network(NamedTuple):
    """Radio of B markets (or one for all): what the rules look up. Unused entries are ``()``."""

    user_snr: Any
    """(B, M, 3, J) SNR bandwidth of each user, MHz."""
    snr: Array
    """(B, M) SNR bandwidth of an operator under the ideal split, MHz."""
    reach: Any
    """(B, M, 3) mean of log10(S/MHz)/15 over a slice's users: what slicers observe."""
    ssr: Any
    """(B, M, 3, N+1) satisfaction ratio of a slice of n blocks."""
    rate: Any
    """(B, M, 3, N+1) allocated rate, Mb/s."""
    radial: Any
    """(B, M, 3, N+1) rate gained per relative growth of the slice, Mb/s."""
    best: Any
    """(B, M, N+1, 3) table A, blocks per service."""


def member_mask(xp: Any, users: Array, width: int) -> Array:
    """(B, M, 3, J): which of the padded entries are users."""
    return xp.astype(xp.arange(width), users.dtype) < users[..., None]


def drop_users(params: BiddingParams, backend: Backend, theta: Any, uniform: Any, normal: Any) -> Array:
    """SNR bandwidth of every user, (B, M, 3, J) MHz, at mean fading.

    ``rings``: user i of J at radius R sqrt((i + 1/2)/J). ``random``: uniform in a disc of radius R (the quadrant of its
    operator; only the distance matters here), log-normal shadowing.

    Args:
        params: The market's parameters.
        backend: Its array library.
        theta: Its numeric parameters.
        uniform: (B, M, 3, J) uniforms, or None for rings.
        normal: (B, M, 3, J) standard normals, or None for rings.
    """
    xp, width = backend.xp, params.max_users
    radius = theta.cell_radius_m[:, :, None, None]
    if uniform is None:
        count = xp.where(theta.users > 0, theta.users, 1.0)[..., None]
        index = xp.astype(xp.arange(width), theta.users.dtype)
        distance = radius * xp.sqrt((index + 0.5) / count)
    else:
        distance = radius * xp.sqrt(uniform)
    distance = xp.where(distance > 1.0, distance, 1.0)
    loss = PATH_LOSS_1KM_DB + PATH_LOSS_SLOPE_DB * (xp.log(distance / 1000.0) / math.log(10.0))
    shadow = 0.0 * loss if normal is None else theta.shadowing_db[:, :, None, None] * normal
    snr = channel.snr_bandwidth_mhz(
        theta.power_dbm[:, :, None, None],
        loss,
        gain_db=theta.receiver_gain_db[:, :, None, None],
        shadowing_db=shadow,
        density_dbm_per_hz=theta.noise_dbm_per_hz[:, :, None, None],
        xp=xp,
    )
    return xp.where(member_mask(xp, theta.users, width), snr, 0.0 * snr)


def measured_users(params: BiddingParams, backend: Backend, theta: Any, round_: Array) -> Array:
    """SNR bandwidth of every user in the trace's slot of each market's round, (B, M, 3, J) MHz: the mean gain over its PRBs.

    Gains hold everything between transmitter and receiver, so neither path loss nor receiver gain is added.
    """
    xp = backend.xp
    count = np.asarray(params.users, dtype=int)
    row = np.zeros((*count.shape, params.max_users), dtype=np.int64)
    inside = np.arange(params.max_users) < count[..., None]
    row[inside] = np.arange(inside.sum())
    gain = backend.asarray(params.gains.array.mean(axis=1).T)  # (rounds, users)
    slot = xp.astype(round_, xp.int64) % gain.shape[0]
    index = xp.asarray(row.reshape(-1), device=backend.device)
    users = xp.take(xp.take(gain, slot, axis=0), index, axis=1)
    users = xp.reshape(users, (-1, *row.shape))
    loss = -10.0 * xp.log(xp.where(users > 0, users, 1e-30)) / math.log(10.0)
    snr = channel.snr_bandwidth_mhz(
        theta.power_dbm[:, :, None, None],
        loss,
        gain_db=0.0,
        shadowing_db=0.0,
        density_dbm_per_hz=theta.noise_dbm_per_hz[:, :, None, None],
        xp=xp,
    )
    return xp.where(member_mask(xp, theta.users, params.max_users) & (users > 0), snr, 0.0 * snr)


def build_network(params: BiddingParams, backend: Backend, theta: Any, user_snr: Array) -> Network:
    """All tables the rules need for these users."""
    xp = backend.xp
    if params.power_mode == "psd":  # rates linear in c: the ideal split serves the best user alone
        snr = xp.max(user_snr, axis=(2, 3))
    else:
        snr = xp.sum(user_snr, axis=(2, 3))
    kept = user_snr if params.known_fading or params.packets_flow else ()
    if params.lower == "ideal":
        return Network(kept, snr, (), (), (), (), ())
    ssr, rate, radial = slice_tables(params, backend, theta, user_snr)
    best = best_splits(params, backend, theta, ssr, rate) if params.lower == "table" else ()
    member = member_mask(xp, theta.users, params.max_users)
    logs = xp.sum(xp.where(member, scaled_reach(xp, user_snr), 0.0 * user_snr), axis=3)
    reach = logs / xp.where(theta.users > 0, theta.users, 1.0)
    return Network(kept, snr, reach, ssr, rate, radial, best)


def scaled_reach(xp: Any, snr: Array) -> Array:
    """SNR bandwidths on a scale from 0 (1 MHz) to 1 (1e15 MHz)."""
    return xp.log(xp.where(snr > 1.0, snr, 1.0)) / (15.0 * math.log(10.0))


def operator_value(params: BiddingParams, xp: Any, theta: Any, snr: Array, c: Array) -> Array:
    """Rate in Mb/s (or the value itself, for value='linear' and 'log') of c MHz under the ideal split, (B, M)."""
    if params.value == "linear":
        return c
    if params.value == "log":
        return xp.log1p(c)
    fading = "rayleigh-ergodic" if params.fading == "statistical" else "none"
    total = theta.bandwidth if params.power_mode == "psd" else None
    return channel.subband_rate(
        c, snr, theta.spectral_multiplier, fading=fading, power_mode=params.power_mode, total_bandwidth=total, xp=xp
    )


def operator_marginal(params: BiddingParams, xp: Any, theta: Any, snr: Array, c: Array) -> Array:
    """Slope of `operator_value` at c > 0, (B, M); at c = 0 any finite number (it is multiplied by 0)."""
    if params.value == "log":
        return 1.0 / (1.0 + c)
    if params.kind == "linear":
        one = c * 0.0 + 1.0
        return operator_value(params, xp, theta, snr, one)
    safe = xp.where(c > 0, c, 1.0)
    return (
        theta.spectral_multiplier
        * _slope(params, xp, xp.where(snr > 0, snr, 1.0) / safe)
        * xp.where(snr > 0, 1.0, 0.0 * snr)
    )


def _slope(params: BiddingParams, xp: Any, x: Array) -> Array:
    """d/dc of c log2(1 + S/c), or of its mean over Rayleigh fading, as a function of x = S/c."""
    if params.fading == "statistical":
        y = 1.0 / x
        return ((1.0 + y) * channel.scaled_expint(y, xp=xp) - 1.0) / _LN2
    return (xp.log1p(x) - x / (1.0 + x)) / _LN2


def slice_tables(params: BiddingParams, backend: Backend, theta: Any, user_snr: Array) -> tuple[Array, Array, Array]:
    """SSR, allocated rate and radial slope of every slice for 0..N blocks, each (B, M, 3, N+1): spec section 2.

    With sampled fading the users' SNR is known, so only the activity of the others is random.
    """
    xp, width = backend.xp, params.max_users
    n = backend.asarray(np.maximum(np.arange(params.blocks + 1.0), 0.5))  # 0 blocks are masked below
    member = xp.astype(member_mask(xp, theta.users, width), backend.dtype)[..., None]
    users = theta.users[..., None]
    count = xp.where(users > 0, users, 1.0)
    band = theta.bandwidth[:, :, None, None] * n / params.blocks  # (B|1, 1, 1, N+1)
    held = xp.where(backend.asarray(np.arange(params.blocks + 1.0)) > 0, 1.0 + 0.0 * band, 0.0 * band)
    snr = xp.where(member > 0, user_snr[..., None], 1.0)  # (B, M, 3, J, 1)
    each = (band / count)[..., None, :]  # (B, M, 3, 1, N+1)
    multiplier = theta.spectral_multiplier[:, :, None, None, None]
    fading = "rayleigh-ergodic" if params.fading == "statistical" else "none"
    rates = each * multiplier * channel.spectral_efficiency(snr / each, fading, xp=xp)
    slopes = each * multiplier * _slope(params, xp, snr / each)
    rate, radial = (held * xp.sum(member * r, axis=3) for r in (rates, slopes))

    chance = _active_weights(params, backend, theta)  # (B, M, 3, J)
    agreed = theta.agreed_rate[:, None, :, None]

    def others_active(k: Any, served: Array) -> Array:
        index = xp.reshape(backend.integers(k), (1,))
        c = band / (xp.astype(index, backend.dtype)[0] + 1.0)
        exponent = agreed * _LN2 / (theta.spectral_multiplier[:, :, None, None] * c)
        need = (c * xp.expm1(xp.clip(exponent, 0.0, 80.0)))[..., None, :]  # SNR bandwidth that carries the agreed rate
        if params.known_fading:
            valid = xp.where(snr > need, 1.0 + 0.0 * need, 0.0 * need)
        else:
            valid = xp.exp(-need / snr)
        return served + xp.take(chance, index, axis=3)[..., None] * valid

    served = backend.iterate(width, others_active, xp.zeros_like(snr * each))
    ssr = held * xp.sum(member * served, axis=3) / count
    return xp.where(users > 0, ssr, 1.0 + 0.0 * ssr), rate, radial


def _active_weights(params: BiddingParams, backend: Backend, theta: Any) -> Array:
    """Chance that k of a user's J - 1 fellows are active, (B, M, 3, J): Bin(k; J-1, a)."""
    xp, width = backend.xp, params.max_users
    table = np.array([[math.comb(j, k) for k in range(width)] for j in range(width)], dtype=np.float64)
    fellows = xp.where(theta.users > 0, theta.users - 1.0, 0.0)
    flat = xp.reshape(xp.astype(xp.round(fellows), xp.int64), (-1,))
    ways = xp.reshape(xp.take(backend.asarray(table), flat, axis=0), (*fellows.shape, width))
    k = xp.astype(xp.arange(width), backend.dtype)
    rest = xp.where(fellows[..., None] > k, fellows[..., None] - k, 0.0)
    a = theta.activity[:, None, :, None]
    return ways * a**k * (1.0 - a) ** rest


def split_gain(params: BiddingParams, xp: Any, theta: Any) -> Array:
    """Weights of the satisfaction ratios in eq. (14), (B, M, 3): phi, times the users if summed over users."""
    weight = theta.phi[:, None, :] + 0.0 * theta.users
    return weight * theta.users if params.ssr_sum == "users" else weight


def best_splits(params: BiddingParams, backend: Backend, theta: Any, ssr: Array, rate: Array) -> Array:
    """Table A, (B, M, N+1, 3): the split of n blocks that maximises f; among ties the lexicographically smallest."""
    xp, size = backend.xp, params.blocks + 1
    pairs = SplitCodec(params.blocks).table
    first, second = (xp.asarray(pairs[:, i].astype(np.int64), device=backend.device) for i in (0, 1))
    both = first + second
    order = xp.arange(len(pairs), device=backend.device)
    ratio = split_gain(params, xp, theta)[..., None] * ssr
    blocks = xp.arange(size, device=backend.device)

    def column(n: Any, table: Array) -> Array:
        width = theta.bandwidth[:, :, None, None] * (n + (n == 0)) / params.blocks  # 0 blocks carry 0
        gain = ratio + theta.rho[:, :, None, None] * rate / width
        third = xp.where(both <= n, n - both, 0 * both)
        total = xp.take(gain[:, :, 0, :], first, axis=2) + xp.take(gain[:, :, 1, :], second, axis=2)
        total = total + xp.take(gain[:, :, 2, :], third, axis=2)
        total = xp.where(both <= n, total, -math.inf)
        top = xp.max(total, axis=2, keepdims=True)
        at = xp.min(xp.where(total == top, order, len(pairs) - 1), axis=2)  # the first of the best
        flat = xp.reshape(at, (-1,))
        v, e = (xp.reshape(xp.take(p, flat, axis=0), at.shape) for p in (first, second))
        chosen = xp.stack((v, e, n - v - e), axis=2)
        return xp.where((blocks == n)[None, None, :, None], chosen[:, :, None, :], table)

    zero = xp.zeros((*ssr.shape[:2], size, 3), dtype=first.dtype, device=backend.device)
    return backend.iterate(size, column, zero)


def round_blocks(params: BiddingParams, xp: Any, share: Array) -> Array:
    """Largest-remainder rounding of shares (B, M) of the band to whole blocks (floats); ties to the lower index.

    No shares, no blocks. Remainders are compared on a grid of 2^-30, so that equal ones tie whatever their last bit.
    """
    count = share.shape[1]
    exact = share * params.blocks
    whole = xp.floor(exact + 1e-9)
    missing = xp.round(xp.sum(share, axis=1, keepdims=True)) * params.blocks - xp.sum(whole, axis=1, keepdims=True)
    remainder = xp.round((exact - whole) * 2.0**30)
    index = xp.arange(count)
    before = remainder[:, None, :] > remainder[:, :, None]
    tie = (remainder[:, None, :] == remainder[:, :, None]) & (index[None, None, :] < index[None, :, None])
    rank = xp.sum(xp.astype(before | tie, share.dtype), axis=2)
    return whole + xp.astype(rank < missing, share.dtype)
