"""From powers to money's raw material: noise, SINR, spectral efficiency, rates, queueing delay, satisfaction.

Symbols of the papers: phi = `sinr`, r = `rate_kbps`, tau = `mm1_delay_ms`, xi = `qos_satisfaction`,
S_mj = `snr_bandwidth_mhz`, v = `subband_rate`, rho_n = `tenant_rate_kbps_per_prb`.
"""

from __future__ import annotations

import math
from typing import Any

from marketenvs.channel._namespace import Array, unify
from marketenvs.errors import InvalidParameter, UnknownName, nearest

EULER_GAMMA = 0.5772156649015329
NOISE_DENSITY_DBM_PER_HZ = -174.0
FADING = ("none", "rayleigh-ergodic")


def db_to_ratio(value_db: Array, *, xp: Any = None) -> Array:
    """10^(x/10): dB to a power ratio, dBm to mW."""
    xp, value = unify(xp, value_db)
    return xp.exp(value * (math.log(10.0) / 10.0))


def ratio_to_db(ratio: Array, *, xp: Any = None) -> Array:
    """10 lg x: a power ratio to dB, mW to dBm. Zero gives -inf."""
    xp, value = unify(xp, ratio)
    return 10.0 * xp.log10(value)


def noise_dbm(
    bandwidth_hz: Array,
    noise_figure_db: Array = 0.0,
    density_dbm_per_hz: Array = NOISE_DENSITY_DBM_PER_HZ,
    *,
    xp: Any = None,
) -> Array:
    """Thermal noise power in dBm over `bandwidth_hz`: density + 10 lg bandwidth + noise figure."""
    xp, bandwidth, figure, density = unify(xp, bandwidth_hz, noise_figure_db, density_dbm_per_hz)
    return density + 10.0 * xp.log10(bandwidth) + figure


def power_per_prb_dbm(total_power_dbm: Array, n_prb: Array, *, xp: Any = None) -> Array:
    """Power of one PRB in dBm when the total is split equally over `n_prb` of them."""
    xp, total, count = unify(xp, total_power_dbm, n_prb)
    return total - 10.0 * xp.log10(count)


def total_power_dbm(received_dbm: Array, axis: int = -1, *, xp: Any = None) -> Array:
    """Sum of received powers in dBm over `axis` (interference of several cells): adds milliwatts, not dB."""
    xp, received = unify(xp, received_dbm)
    return ratio_to_db(xp.sum(db_to_ratio(received, xp=xp), axis=axis), xp=xp)


def sinr(
    power_dbm: Array,
    loss_db: Array,
    noise_dbm: Array,
    *,
    shadowing_db: Array = 0.0,
    gain_db: Array = 0.0,
    fading: Array | None = None,
    interference_dbm: Array | None = None,
    xp: Any = None,
) -> Array:
    """Signal to interference and noise, as a ratio (not dB).

    10^((power - loss + gain + shadowing)/10) fading / (noise + interference), the denominator in milliwatts.
    With a fixed drop, compute this once without fading and multiply by the fading of each slot.

    Args:
        power_dbm: transmit power of the PRB or sub-band, dBm.
        loss_db: path loss, dB (positive), e.g. of `path_loss_db`.
        noise_dbm: noise power over the same bandwidth, dBm.
        shadowing_db: shadowing, dB; positive helps.
        gain_db: antenna gains, dB.
        fading: power fading |g|^2 of the signal as a ratio; None means 1.
        interference_dbm: other cells' power received in the same bandwidth, dBm; None means none.
        xp: array namespace, to skip the look-up.
    """
    xp, power, loss, noise, shadow, gain, fade, interference = unify(
        xp, power_dbm, loss_db, noise_dbm, shadowing_db, gain_db, fading, interference_dbm
    )
    received_dbm = power - loss + gain + shadow
    if interference is None:
        ratio = db_to_ratio(received_dbm - noise, xp=xp)
    else:
        ratio = db_to_ratio(received_dbm, xp=xp) / (db_to_ratio(noise, xp=xp) + db_to_ratio(interference, xp=xp))
    return ratio if fade is None else ratio * fade


# E1's power series is summed up to _SPLIT, its continued fraction from there on: a later split loses digits to the
# series' cancellation, an earlier one needs a longer fraction. Truncation is then below 4e-14 relative on both sides.
_SPLIT = 2.5
_SERIES = tuple((-1.0) ** (k + 1) / (k * math.factorial(k)) for k in range(1, 28))
_FRACTION_TERMS = 32


def scaled_expint(x: Array, *, xp: Any = None) -> Array:
    """exp(x) E1(x) for x > 0, with E1 the exponential integral; 0 at x = inf, +inf at x = 0.

    The product stays finite where exp(x) alone overflows (SNR below about -28 dB). Fixed length, no branch on data:
    the power series -gamma - ln x + sum (-1)^(k+1) x^k/(k k!) up to x = 2.5, above it the continued fraction
    1/(x+1 - 1/(x+3 - 4/(x+5 - ...))) from the innermost term outwards. 1e-12 relative in float64.
    """
    xp, x = unify(xp, x)
    split = xp.full_like(x, _SPLIT)
    # each branch sees only arguments of its own side, so neither overflows nor spoils gradients on the other
    small = xp.minimum(x, split)
    series = xp.zeros_like(small)
    for coefficient in reversed(_SERIES):
        series = (series + coefficient) * small
    low = xp.exp(small) * (series - xp.log(small) - EULER_GAMMA)

    large = xp.maximum(x, split)
    tail = large + (2.0 * _FRACTION_TERMS + 1.0)
    for k in range(_FRACTION_TERMS, 0, -1):
        tail = large + (2.0 * k - 1.0) - (k * k) / tail
    return xp.where(x < split, low, 1.0 / tail)


def spectral_efficiency(
    sinr: Array,
    fading: str = "none",
    cap: Array | None = None,
    *,
    gap_db: Array = 0.0,
    floor: Array | None = None,
    xp: Any = None,
) -> Array:
    """Spectral efficiency in bit/s/Hz.

    `fading="none"`: log2(1 + s) with s = sinr/gap. `fading="rayleigh-ergodic"`: its mean over Rayleigh fading of the
    signal, e^{1/s} E1(1/s)/ln 2; with a cap, the mean of the CAPPED efficiency (modulation saturates slot by slot),
    [e^{1/s} E1(1/s) - e^{1/s} E1(2^cap/s)]/ln 2, which is below the capped mean.

    Args:
        sinr: signal to interference and noise as a ratio >= 0, any shape (the mean over fading in the ergodic case).
        fading: "none" or "rayleigh-ergodic".
        cap: highest efficiency in bit/s/Hz (7.40625 = 256-QAM); None means none.
        gap_db: SNR gap to capacity in dB.
        floor: lowest efficiency in bit/s/Hz, applied last; None means none.
        xp: array namespace, to skip the look-up.

    Raises:
        UnknownName: unknown `fading`.
    """
    if fading not in FADING:
        raise UnknownName(f"unknown fading {fading!r}; {nearest(fading, FADING)}")
    xp, ratio, most, least = unify(xp, sinr, cap, floor)
    if not (isinstance(gap_db, (int, float)) and gap_db == 0.0):
        xp, ratio, gap = unify(xp, ratio, gap_db)
        ratio = ratio / db_to_ratio(gap, xp=xp)
    if fading == "none":
        efficiency = xp.log1p(ratio) * (1.0 / math.log(2.0))
        if most is not None:
            efficiency = xp.minimum(efficiency, most)
    else:
        heard = ratio > 0.0
        x = 1.0 / xp.where(heard, ratio, xp.ones_like(ratio))
        efficiency = scaled_expint(x, xp=xp)
        if most is not None:
            top = xp.exp(most * math.log(2.0))
            efficiency = efficiency - xp.exp(-(top - 1.0) * x) * scaled_expint(top * x, xp=xp)
        efficiency = xp.where(heard, efficiency, xp.zeros_like(efficiency)) * (1.0 / math.log(2.0))
    return efficiency if least is None else xp.maximum(efficiency, least)


def rate_kbps(
    spectral_efficiency: Array, bandwidth_hz: Array, prbs: Array = 1.0, users: Array = 1.0, *, xp: Any = None
) -> Array:
    """Rate in kbit/s of each of `users` sharing `prbs` PRBs of `bandwidth_hz` in time.

    prbs x bandwidth x efficiency / users / 1000; PRBs may be fractional (time-shared).
    """
    _, efficiency, bandwidth, held, sharing = unify(xp, spectral_efficiency, bandwidth_hz, prbs, users)
    return efficiency * (held * bandwidth * 1e-3 / sharing)


SCHEDULERS = ("equal_rate", "equal_airtime")


def tenant_rate_kbps_per_prb(
    spectral_efficiency: Array,
    bandwidth_hz: Array,
    scheduler: str = "equal_rate",
    *,
    active: Array | None = None,
    axis: int = -1,
    xp: Any = None,
) -> Array:
    """Sum rate in kbit/s that a tenant's users draw from one PRB (rho_n of coalition trading).

    "equal_rate": all users get the same rate, so the harmonic mean of their efficiencies counts (0 as soon as one user
    has none). "equal_airtime": all get the same time, the arithmetic mean.

    Args:
        spectral_efficiency: of each user, bit/s/Hz, users along `axis`.
        bandwidth_hz: PRB bandwidth in Hz, broadcastable to the result.
        scheduler: "equal_rate" or "equal_airtime".
        active: boolean mask of real users (ragged tenants are padded); None means all. No active user gives 0.
        axis: the axis of users.
        xp: array namespace, to skip the look-up.

    Raises:
        UnknownName: unknown `scheduler`.
    """
    if scheduler not in SCHEDULERS:
        raise UnknownName(f"unknown scheduler {scheduler!r}; {nearest(scheduler, SCHEDULERS)}")
    xp, efficiency, bandwidth = unify(xp, spectral_efficiency, bandwidth_hz)
    one, zero = xp.ones_like(efficiency), xp.zeros_like(efficiency)
    member = one if active is None else xp.where(active, one, zero)
    count = xp.sum(member, axis=axis)
    some = count > 0.0
    count = xp.where(some, count, xp.ones_like(count))
    if scheduler == "equal_airtime":
        mean = xp.sum(efficiency * member, axis=axis) / count
    else:
        heard = efficiency > 0.0
        inverse = xp.sum(member / xp.where(heard, efficiency, one), axis=axis)
        deaf = xp.sum(xp.where(heard, zero, member), axis=axis)
        served = xp.logical_and(some, deaf == 0.0)
        mean = xp.where(served, count / xp.where(served, inverse, xp.ones_like(inverse)), xp.zeros_like(inverse))
    return mean * bandwidth * 1e-3


def mm1_delay_ms(rate_kbps: Array, packet_bits: Array, arrivals_per_s: Array, *, xp: Any = None) -> Array:
    """Mean sojourn time in ms of an M/M/1 queue, 1/(rate/packet - arrivals); +inf where it is unstable.

    Args:
        rate_kbps: service rate in kbit/s.
        packet_bits: mean packet length in bits.
        arrivals_per_s: Poisson arrivals in packets per second.
        xp: array namespace, to skip the look-up.
    """
    xp, rate, packet, arrivals = unify(xp, rate_kbps, packet_bits, arrivals_per_s)
    slack = rate * 1e3 / packet - arrivals
    stable = slack > 0.0
    delay = 1e3 / xp.where(stable, slack, xp.ones_like(slack))
    return xp.where(stable, delay, xp.full_like(delay, math.inf))


def logistic(x: Array, *, xp: Any = None) -> Array:
    """1/(1 + e^-x) without overflow, accurate in both tails; 0 at -inf, 1 at +inf."""
    xp, x = unify(xp, x)
    positive = x >= 0.0
    decay = xp.exp(xp.where(positive, -x, x))  # not -abs(x), whose derivative at 0 is 0
    upper = 1.0 / (1.0 + decay)
    return xp.where(positive, upper, decay * upper)


QOS_KINDS = ("rate", "delay")


def qos_satisfaction(
    value: Array, target: Array, steepness: Array = 6.0, kind: str = "rate", *, xp: Any = None
) -> Array:
    """Sigmoid satisfaction in [0, 1], 1/2 exactly at the target.

    "rate": logistic(steepness (value/target - 1)). "delay": logistic(steepness (1 - value/target)), 0 at an infinite
    delay. The steepness is dimensionless (eta of the papers times the target).

    Args:
        value: achieved rate or delay, in the unit of the target.
        target: required rate or tolerated delay, > 0.
        steepness: dimensionless slope.
        kind: "rate" (more is better) or "delay" (less is better).
        xp: array namespace, to skip the look-up.

    Raises:
        UnknownName: unknown `kind`.
    """
    if kind not in QOS_KINDS:
        raise UnknownName(f"unknown QoS kind {kind!r}; {nearest(kind, QOS_KINDS)}")
    xp, achieved, wanted, slope = unify(xp, value, target, steepness)
    excess = achieved / wanted - 1.0
    return logistic(excess * (slope if kind == "rate" else -slope), xp=xp)


def snr_bandwidth_mhz(
    power_dbm: Array,
    loss_db: Array,
    *,
    gain_db: Array = 0.0,
    shadowing_db: Array = 0.0,
    fading: Array | None = None,
    noise_figure_db: Array = 0.0,
    density_dbm_per_hz: Array = NOISE_DENSITY_DBM_PER_HZ,
    xp: Any = None,
) -> Array:
    """Received power over noise density in MHz: the bandwidth at which the SNR is 1 (S_mj of two-tier bidding)."""
    density_per_mhz = density_dbm_per_hz + 60.0
    return sinr(
        power_dbm,
        loss_db,
        density_per_mhz + noise_figure_db,
        shadowing_db=shadowing_db,
        gain_db=gain_db,
        fading=fading,
        xp=xp,
    )


POWER_MODES = ("per_user", "psd")


def subband_rate(
    bandwidth: Array,
    snr_bandwidth: Array,
    multiplier: Array = 1.0,
    *,
    fading: str = "none",
    power_mode: str = "per_user",
    total_bandwidth: Array | None = None,
    xp: Any = None,
) -> Array:
    """Rate of a sub-band whose noise grows with its width: L c log2(1 + S/c); 0 at c = 0. MHz give Mbit/s.

    Two-tier bidding's (9), homogeneous of degree 1 in (c, S): several users at the sum-rate optimum act as one with
    S = sum S_j.

    Args:
        bandwidth: width c of the sub-band.
        snr_bandwidth: S in the same unit, see `snr_bandwidth_mhz`.
        multiplier: spectral multiplier L (spatial layers times the logarithm's base).
        fading: "none" or "rayleigh-ergodic" (mean over the fading of S).
        power_mode: "per_user": every sub-band carries the full power; "psd": power c/C, so the rate is linear in c.
        total_bandwidth: the band C, needed by "psd".
        xp: array namespace, to skip the look-up.

    Raises:
        UnknownName: unknown `power_mode` or `fading`.
        InvalidParameter: "psd" without `total_bandwidth`.
    """
    if power_mode not in POWER_MODES:
        raise UnknownName(f"unknown power mode {power_mode!r}; {nearest(power_mode, POWER_MODES)}")
    if power_mode == "psd" and total_bandwidth is None:
        raise InvalidParameter('power_mode="psd" needs total_bandwidth')
    xp, width, reach, factor, band = unify(xp, bandwidth, snr_bandwidth, multiplier, total_bandwidth)
    if power_mode == "psd":
        return factor * width * spectral_efficiency(reach / band, fading, xp=xp)
    open_ = width > 0.0
    ratio = xp.where(open_, reach / xp.where(open_, width, xp.ones_like(width)), xp.zeros_like(width * reach))
    return factor * width * spectral_efficiency(ratio, fading, xp=xp)
