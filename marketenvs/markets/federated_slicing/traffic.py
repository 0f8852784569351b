"""Offered traffic: devices whose load rises when a batch of work passes them on one of two fixed routes.

The paper's data are not available. Work batches ("pulses") travel two straight routes through the cell, so the devices
upstream light up first and device
data really predicts a slice's total, which its own past cannot. Without pulses it is the negative control: then device
data carry nothing.

Load of device u of slice m (Mbit/s), with h the fixed heaviness and z an AR(1) process (rho 0.6, stationary standard
deviation 0.3):

    d = mean_m * (1 + 0.3 sin(2 pi (t + t0)/144 + psi_m)) * h_u * H_u(t)/nrm * exp(z_u(t) - 0.045),  psi = linspace(0,
    pi, M)
    H = 1 + 12 sum over routes k, batches j of size_kj exp(-across^2/(2 s^2)) exp(-(along - position_kj)^2/(2 s^2)),  s
    = 60 m
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

Array = Any

CELL_RADIUS_M = 500.0
DAY_SLOTS = 144
DAY_AMPLITUDE = 0.3
AR_RHO = 0.6
AR_SD = 0.3
PULSE_GAIN = 12.0
PULSE_RATE = 0.1
PULSE_WIDTH_M = 60.0
PULSE_SPEED_M = 90.0
PULSE_SIZE_SD = 0.6
RING = 16
"""Batches kept per route; one arrives per slot at most, none lives beyond 15 slots: entry k has age k."""
WARM_UP = 60
EMPTY = -1.0e9
_FAINT = 80.0
"""A batch this many e-folds weak is nothing; in float32 its subnormal exponentials would be as slow as they are useless."""
_HEADINGS = (0.3, 0.3 + math.pi / 2)
_OFFSETS = (0.35 * CELL_RADIUS_M, -0.45 * CELL_RADIUS_M)
HALF_CHORDS_M = tuple(math.sqrt(CELL_RADIUS_M**2 - offset**2) for offset in _OFFSETS)
MEAN_LOAD_FACTOR = 1.0 + PULSE_GAIN * PULSE_RATE * math.sqrt(2 * math.pi) * PULSE_WIDTH_M / PULSE_SPEED_M * math.sqrt(
    2 * math.pi
) * PULSE_WIDTH_M * sum(2 * half for half in HALF_CHORDS_M) / (math.pi * CELL_RADIUS_M**2)
"""Mean of H over the cell and over time (1.70263485): loads are divided by it, so pulses leave the mean load alone."""


class Pulses(NamedTuple):
    """Work batches by age: position (m from the chord's start, ``EMPTY`` where none) and size, ``(B, 2, 16)``."""

    position: Array
    size: Array


class Placement(NamedTuple):
    """Where devices stand relative to the routes, ``(B, 2, M, N)``: metres along, and 12 exp(-across^2/(2 s^2))."""

    along: Array
    weight: Array


def place(position_m: Array, xp: Any) -> Placement:
    """Route coordinates of devices at ``position_m`` (B, M, N, 2), metres from the base station."""
    x, y = position_m[..., 0], position_m[..., 1]
    along, weight = [], []
    for heading, offset, half in zip(_HEADINGS, _OFFSETS, HALF_CHORDS_M, strict=True):
        along.append(x * math.cos(heading) + y * math.sin(heading) + half)
        across = y * math.cos(heading) - x * math.sin(heading) - offset
        weight.append(PULSE_GAIN * xp.exp(-(across * across) / (2.0 * PULSE_WIDTH_M**2)))
    return Placement(xp.stack(along, axis=1), xp.stack(weight, axis=1))


def no_pulses(like: Array, xp: Any) -> Pulses:
    """Empty routes; ``like`` is any (B, 2) array."""
    empty = xp.broadcast_to((0.0 * like)[:, :, None], (*like.shape, RING))
    return Pulses(empty + EMPTY, empty + 0.0)


def advance(pulses: Pulses, arrival: Array, size: Array, jitter: Array, xp: Any) -> Pulses:
    """One slot later.

    Args:
        pulses: batches on the routes.
        arrival: uniforms (B, 2); a batch enters where they are below ``PULSE_RATE``.
        size: standard normals (B, 2) of the batch size.
        jitter: uniforms (B, 2) of the place of entry.
        xp: array namespace.
    """
    enters = arrival < PULSE_RATE
    start = -3.0 * PULSE_WIDTH_M + PULSE_SPEED_M * jitter
    first = xp.where(enters, start, xp.zeros_like(start) + EMPTY)
    drawn = xp.exp(PULSE_SIZE_SD * size - 0.5 * PULSE_SIZE_SD**2)
    moved = pulses.position[:, :, :-1] + PULSE_SPEED_M
    gone = xp.asarray([2.0 * half + 3.0 * PULSE_WIDTH_M for half in HALF_CHORDS_M], dtype=moved.dtype)[None, :, None]
    out = (moved > gone) | (moved < 0.5 * EMPTY)
    position = xp.concat((first[:, :, None], xp.where(out, xp.zeros_like(moved) + EMPTY, moved)), axis=2)
    kept = xp.where(out, xp.zeros_like(moved), pulses.size[:, :, :-1])
    sizes = xp.concat((xp.where(enters, drawn, xp.zeros_like(drawn))[:, :, None], kept), axis=2)
    return Pulses(position, sizes)


def load_factor(place_: Placement, pulses: Pulses, xp: Any, compact: bool) -> Array:
    """H / nrm per device, (B, M, N).

    Args:
        place_: the devices' route coordinates.
        pulses: batches on the routes.
        xp: array namespace.
        compact: visit only the few batches alive (NumPy); otherwise all 16, so that shapes stay static under tracing.
            Both add the same terms.
    """
    if compact:
        return _compact_load_factor(place_, pulses)
    distance = place_.along[..., None] - pulses.position[:, :, None, None, :]
    exponent = xp.clip(-(distance * distance) / (2.0 * PULSE_WIDTH_M**2), -_FAINT, 0.0)
    bump = pulses.size[:, :, None, None, :] * xp.exp(exponent)
    return (1.0 + xp.sum(place_.weight * xp.sum(bump, axis=-1), axis=1)) / MEAN_LOAD_FACTOR


def _compact_load_factor(place_: Placement, pulses: Pulses) -> np.ndarray:
    """The same in NumPy: about 1.4 batches per route are alive on average, a dense 16 would cost ten times as much."""
    alive = pulses.position > 0.5 * EMPTY
    live = int(alive.sum(axis=2).max()) if alive.size else 0
    out = np.ones((place_.along.shape[0], *place_.along.shape[2:]), place_.along.dtype)
    single = place_.along.dtype == np.float32
    if live:
        first = np.argsort(~alive, axis=2, kind="stable")[:, :, :live]
        position = np.take_along_axis(pulses.position, first, 2)
        size = np.take_along_axis(pulses.size, first, 2)
        total = np.zeros_like(place_.along)
        scratch = np.empty_like(place_.along)
        for j in range(live):
            np.subtract(place_.along, position[:, :, j, None, None], out=scratch)
            np.multiply(scratch, scratch, out=scratch)
            scratch *= -1.0 / (2.0 * PULSE_WIDTH_M**2)
            if single:
                np.maximum(scratch, -_FAINT, out=scratch)
            np.exp(scratch, out=scratch)
            scratch *= size[:, :, j, None, None]
            total += scratch
        total *= place_.weight
        out += total.sum(axis=1)
    out *= 1.0 / MEAN_LOAD_FACTOR
    return out


def daily_profile(slot: Array, count: int, amplitude: Array, xp: Any) -> Array:
    """D_m: share of the mean load at slots ``slot`` (B, 1), (B, count); slices are spread over half a day."""
    phase = xp.asarray(np.linspace(0.0, math.pi, count), dtype=slot.dtype)[None, :]
    return 1.0 + amplitude * xp.sin((2.0 * math.pi / DAY_SLOTS) * slot + phase)


def next_log_load(z: Array, normal: Array) -> Array:
    """AR(1) step that keeps standard deviation ``AR_SD``."""
    return AR_RHO * z + AR_SD * math.sqrt(1.0 - AR_RHO**2) * normal


def simulate(
    slots: int, seed: int, *, n_slices: int = 6, n_devices: int = 100, mean_load: Any = None, pulses: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """A trace of offered loads from this generator, without a market (for forecasting studies).

    Args:
        slots: length T after the warm-up.
        seed: random seed.
        n_slices: M.
        n_devices: N.
        mean_load: Mbit/s per device and slice; the market's default for six slices if None.
        pulses: False for the negative control.

    Returns:
        Loads (T, M, N) in Mbit/s, and device positions (M, N, 2) in metres.
    """
    rng = np.random.default_rng(seed)
    mean = np.asarray((0.3, 0.2, 0.1, 0.08, 0.128, 0.02) if mean_load is None else mean_load, float)
    if mean.shape != (n_slices,):
        raise ValueError(f"mean_load needs {n_slices} values (Mbit/s per device of each slice), got shape {mean.shape}")
    shape = (1, n_slices, n_devices)
    radius = np.sqrt(10.0**2 + rng.uniform(size=shape) * (CELL_RADIUS_M**2 - 10.0**2))
    angle = rng.uniform(0, 2 * math.pi, shape)
    position = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    where = place(position, np)
    heavy = np.exp(rng.standard_normal(shape) - 0.5)
    z = AR_SD * rng.standard_normal(shape)
    t0 = rng.uniform(0, DAY_SLOTS)
    state = no_pulses(np.zeros((1, 2)), np)
    out = np.empty((slots, n_slices, n_devices))
    for t in range(-WARM_UP, slots):
        state = advance(state, rng.uniform(size=(1, 2)), rng.standard_normal((1, 2)), rng.uniform(size=(1, 2)), np)
        z = next_log_load(z, rng.standard_normal(shape))
        if t >= 0:
            factor = _compact_load_factor(where, state) if pulses else np.ones(shape)
            day = daily_profile(np.full((1, 1), t + t0), n_slices, DAY_AMPLITUDE, np)
            out[t] = (mean[None, :, None] * day[:, :, None] * heavy * factor * np.exp(z - 0.5 * AR_SD**2))[0]
    return out, position[0]
