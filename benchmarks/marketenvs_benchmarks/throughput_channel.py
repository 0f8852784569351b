"""Throughput of the shared channel on one core, beside a hand-fused numba kernel of the same arithmetic.

One UE-step is, for one user in one slot of a fixed drop: Rayleigh fading, SINR, Shannon rate, satisfaction. Run with

    OMP_NUM_THREADS=1 python -m marketenvs_benchmarks.throughput_channel

The channel is array code: it is fastest where a block of slots stays in the cache, so several block sizes are measured.
The numba kernels (extra `numba`) do the same per user in one pass, in strict and in relaxed ("fast") floating point.
All read uniforms that NumPy draws inside the measured time, and take turns, so that a busy machine slows all alike;
time is the process's own CPU time. NumPy's logarithm and exponential use AVX-512 where the machine has it, numba's call
the C library; `NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL"` shows the channel without it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable

import array_api_compat.numpy as xp
import numpy as np

from marketenvs import channel

USERS = 600
PRBS, SHARING, TARGET_KBPS, STEEPNESS = 25.0, 50.0, 500.0, 6.0
RADIO = channel.radio_preset("iiot", fading="block")
Step = Callable[[np.ndarray, np.ndarray], np.ndarray]


def channel_step(mean_sinr: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Satisfaction of every user in a block of slots: the channel's own functions, one after the other.

    Args:
        mean_sinr: SINR of the drop without fading, shape (users,).
        uniform: uniforms on [0, 1), shape (slots, users).
    """
    ratio = mean_sinr * channel.rayleigh_power(uniform, xp=xp)
    efficiency = channel.spectral_efficiency(ratio, xp=xp)
    rate = channel.rate_kbps(efficiency, RADIO.prb_bandwidth_hz, PRBS, SHARING, xp=xp)
    return channel.qos_satisfaction(rate, TARGET_KBPS, STEEPNESS, xp=xp)


def numba_step(fast: bool) -> Step:
    """The same arithmetic fused by hand into one loop.

    Raises:
        ImportError: numba is not installed (extra `numba`).
    """
    import numba

    factor = PRBS * RADIO.prb_bandwidth_hz * 1e-3 / SHARING / math.log(2.0)

    @numba.njit(fastmath=fast, error_model="numpy")
    def kernel(mean_sinr: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        out = np.empty_like(uniform)
        for slot in range(uniform.shape[0]):
            for user in range(uniform.shape[1]):
                fading = -math.log1p(-uniform[slot, user])
                rate = factor * math.log1p(mean_sinr[user] * fading)
                x = STEEPNESS * (rate / TARGET_KBPS - 1.0)
                if x >= 0.0:
                    out[slot, user] = 1.0 / (1.0 + math.exp(-x))
                else:
                    decay = math.exp(x)
                    out[slot, user] = decay / (1.0 + decay)
        return out

    return kernel


def drop(rng: np.random.Generator) -> np.ndarray:
    """Mean SINR of one drop of the users, shape (users,)."""
    distance = RADIO.distance_m(RADIO.drop(rng.random((USERS, 2))))
    return RADIO.sinr(RADIO.loss_db(distance, rng.standard_normal(USERS)))


def measure(
    blocks: tuple[int, ...] = (1, 8, 32, 128, 1024), rounds: int = 30, seconds: float = 0.02
) -> dict[str, dict[str, float]]:
    """Million UE-steps per CPU-second of each contender and block size.

    Args:
        blocks: slots per call.
        rounds: interleaved turns of every contender.
        seconds: rough duration of one turn.

    Returns:
        "<contender>, <slots> slots" -> {"median": ..., "best": ...}, in million UE-steps/CPU-s.

    Raises:
        RuntimeError: a kernel does not compute the same satisfaction as the channel.
    """
    rng = np.random.default_rng(0)
    mean_sinr = drop(rng)
    steps: dict[str, Step] = {"channel": channel_step}
    with contextlib.suppress(ImportError):  # an optional extra; without it the channel is measured alone
        steps |= {"numba strict": numba_step(fast=False), "numba fast": numba_step(fast=True)}

    turns: list[tuple[str, Step, np.ndarray, int]] = []
    for block in blocks:
        uniform = np.empty((block, USERS))
        rng.random(out=uniform)
        expected = channel_step(mean_sinr, uniform)
        for name, step in steps.items():
            if not np.allclose(step(mean_sinr, uniform), expected, rtol=1e-9, atol=0.0):
                raise RuntimeError(f"{name} does not compute what the channel computes")
            start = time.process_time()
            step(mean_sinr, uniform)
            once = time.process_time() - start
            turns.append((f"{name}, {block} slots", step, uniform, max(1, int(seconds / once))))

    speeds: dict[str, list[float]] = {name: [] for name, *_ in turns}
    for _ in range(rounds):
        for name, step, uniform, calls in turns:
            start = time.process_time()
            for _ in range(calls):
                rng.random(out=uniform)
                step(mean_sinr, uniform)
            speeds[name].append(calls * uniform.size / (time.process_time() - start) / 1e6)
    return {name: {"median": statistics.median(s), "best": max(s)} for name, s in speeds.items()}


def main() -> None:
    """Print the table, or JSON with `--json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30, help="interleaved turns of every contender")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    arguments = parser.parse_args()
    result = measure(rounds=arguments.rounds)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{USERS} users, fixed drop, float64, one core; million UE-steps per CPU-second: median, best turn")
    for name, speed in result.items():
        print(f"  {name:<28}{speed['median']:8.1f}{speed['best']:8.1f}")


if __name__ == "__main__":
    main()
