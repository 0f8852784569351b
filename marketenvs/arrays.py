"""Array libraries behind one interface: namespace, bounded loops, keyed random draws and distributions.

Rules of a market are written in the Array API, so that the same lines run on NumPy (default), PyTorch, JAX (also under ``jit``)
and ``array-api-strict``. This module owns what the standard lacks: loops that JAX can trace, and random numbers.

Random numbers are counter based (Threefry-2x32 with 20 rounds; Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
1, 2, 3", SC 2011). Every market of a batch has its own key, so what market ``i`` draws never depends on the batch size, on the
number of workers, on a resume, or on the array library: the same 32-bit words come out everywhere.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .errors import InvalidParameter, nearest

Array = Any
"""An array of whichever library the market runs on."""

BACKENDS = {
    "numpy": "numpy",
    "torch": "array_api_compat.torch",
    "jax": "jax.numpy",
    "array_api_strict": "array_api_strict",
}
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_MASK = 0xFFFFFFFF
_BLOCK = 1 << 15  # words per block of the NumPy generator: both halves and the scratch stay in the L2 cache


class Backend:
    """An array library, a floating-point type and a device, resolved once per market.

    Args:
        name: "numpy", "torch", "jax" or "array_api_strict".
        dtype: "float64" or "float32". Default: float64, but float32 on JAX without ``jax_enable_x64``.
        device: Passed to array creation (for instance "cuda"); None is the library's default.

    Raises:
        InvalidParameter: Unknown library or type, or float64 on JAX while 64-bit types are switched off.
    """

    def __init__(self, name: str = "numpy", dtype: str | None = None, device: Any = None):
        if name not in BACKENDS:
            raise InvalidParameter(f"unknown backend {name!r}; {nearest(name, BACKENDS)}")
        self.name = name
        self.device = device
        self.xp: Any = importlib.import_module(BACKENDS[name])
        x64 = True
        if name == "jax":
            x64 = bool(importlib.import_module("jax").config.jax_enable_x64)
        self.dtype_name = dtype or ("float64" if x64 else "float32")
        if self.dtype_name not in ("float64", "float32"):
            raise InvalidParameter(f"dtype must be 'float64' or 'float32', got {dtype!r}")
        if self.dtype_name == "float64" and not x64:
            raise InvalidParameter("dtype='float64' on JAX needs jax.config.update('jax_enable_x64', True) first")
        self.dtype = getattr(self.xp, self.dtype_name)
        # PyTorch has no arithmetic on uint32: there, 32-bit words live in int64 and are masked.
        self._word = self.xp.int64 if name == "torch" else self.xp.uint32

    def __reduce__(self) -> tuple:
        return Backend, (self.name, self.dtype_name, self.device)

    def asarray(self, value: Any) -> Array:
        """Array of the market's floating-point type."""
        if self.name == "torch" and isinstance(value, np.ndarray):
            value = self.xp.asarray(np.array(value))  # torch warns on read-only views
        return self.xp.asarray(value, dtype=self.dtype, device=self.device)

    def integers(self, value: Any) -> Array:
        """Array of 32-bit integers (round counters, labels)."""
        return self.xp.asarray(value, dtype=self.xp.int32, device=self.device)

    def numpy(self, value: Any) -> np.ndarray:
        """NumPy float64 copy or view of an array: the type every solver works in."""
        return to_numpy(value).astype(np.float64, copy=False)

    def iterate(self, n: int, body: Callable[[int, Any], Any], carry: Any) -> Any:
        """``for i in range(n): carry = body(i, carry)``; a traced ``fori_loop`` on JAX (unrolled loops compile for seconds)."""
        if self.name == "jax":
            return importlib.import_module("jax").lax.fori_loop(0, n, body, carry)
        for i in range(n):
            carry = body(i, carry)
        return carry

    # -- random words -----------------------------------------------------------------------------------------------

    def _words(self, value: Any) -> Array:
        return self.xp.asarray(value, dtype=self._word, device=self.device)

    def keys(self, seeds: Sequence[int] | np.ndarray, index: np.ndarray | int, stream: int) -> Array:
        """One key per market, shape (B, 2), from 64-bit seeds, the market's index under that seed, and a stream number."""
        seed = np.asarray(seeds, dtype=np.uint64)
        low, high = (seed & np.uint64(_MASK)).astype(np.uint32), (seed >> np.uint64(32)).astype(np.uint32)
        index = np.broadcast_to(np.asarray(index, dtype=np.uint32), seed.shape)
        words = _threefry_numpy(low, high, index.copy(), np.full(seed.shape, stream, dtype=np.uint32))
        return self._words(np.stack(words, axis=1).astype(np.int64 if self.name == "torch" else np.uint32))

    def fold(self, key: Array, counter: Array | int, stream: int) -> Array:
        """A new key (B, 2) from a key (B, 2), a counter (B,) or int, and a stream number."""
        xp = self.xp
        zeros = xp.zeros_like(key[:, 0])
        first = zeros + (self._cast(counter) if not isinstance(counter, int) else self._words(counter))
        x0, x1 = self._threefry(key[:, 0], key[:, 1], first, zeros + self._words(stream))
        return xp.stack((x0, x1), axis=1)

    def _cast(self, counter: Array) -> Array:
        return self.xp.astype(counter, self._word)

    def words(self, key: Array, count: int) -> Array:
        """``count`` random 32-bit words per market, shape (B, count)."""
        xp = self.xp
        half = (count + 1) // 2
        if self.name == "numpy":
            return _words_numpy(key, half)[:, :count]
        index = self._words(np.arange(half))[None, :]
        shape0 = xp.zeros_like(key[:, :1]) + index
        x0, x1 = self._threefry(key[:, :1], key[:, 1:], shape0, xp.zeros_like(shape0))
        return xp.concat((x0, x1), axis=1)[:, :count]

    def _threefry(self, k0: Array, k1: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
        if self.name == "numpy":
            shape = np.broadcast_shapes(k0.shape, x0.shape)
            return _threefry_numpy(k0, k1, np.broadcast_to(x0, shape).copy(), np.broadcast_to(x1, shape).copy())
        masked = self.name == "torch"
        word = self._words
        ks = (k0, k1, k0 ^ k1 ^ word(_PARITY))
        x0, x1 = x0 + k0, x1 + k1
        for group in range(5):
            for r in _ROTATIONS[group % 2]:
                x0 = x0 + x1
                if masked:
                    x0, x1 = x0 & _MASK, x1 & _MASK
                x1 = (x1 << word(r)) | (x1 >> word(32 - r))
                if masked:
                    x1 = x1 & _MASK
                x1 = x1 ^ x0
            x0 = x0 + ks[(group + 1) % 3]
            x1 = x1 + ks[(group + 2) % 3] + word(group + 1)
        if masked:
            x0, x1 = x0 & _MASK, x1 & _MASK
        return x0, x1

    # -- random numbers ---------------------------------------------------------------------------------------------

    def unit(self, words: Array) -> Array:
        """Uniform numbers strictly inside (0, 1) from 32-bit words (23 bits of them in float32)."""
        xp = self.xp
        if self.dtype_name == "float32":
            word = words >> (9 if self.name == "numpy" else self._words(9))
            return (xp.astype(word, self.dtype) + 0.5) * 2.0**-23
        return (xp.astype(words, self.dtype) + 0.5) * 2.0**-32

    def draw(self, key: Array, fields: Mapping[str, Noise]) -> dict[str, Array]:
        """Draw the declared noise fields for every market.

        Args:
            key: Keys of this draw, shape (B, 2).
            fields: Name -> ``Noise(kind, shape)``.

        Returns:
            Name -> array of shape (B, *shape).
        """
        if not fields:
            return {}
        xp = self.xp
        sizes = {name: _words_needed(noise) for name, noise in fields.items()}
        uniforms = self.unit(self.words(key, sum(sizes.values())))
        batch = uniforms.shape[0]
        out: dict[str, Array] = {}
        start = 0
        for name, noise in fields.items():
            u = uniforms[:, start : start + sizes[name]]
            start += sizes[name]
            size = math.prod(noise.shape)
            if noise.kind == "normal":
                half = u.shape[1] // 2
                radius = xp.sqrt(-2.0 * xp.log(u[:, :half]))
                angle = (2.0 * math.pi) * u[:, half:]
                u = xp.concat((radius * xp.cos(angle), radius * xp.sin(angle)), axis=1)[:, :size]
            elif noise.kind == "exponential":
                u = -xp.log(u)
            out[name] = xp.reshape(u, (batch, *noise.shape))
        return out


class Noise(NamedTuple):
    """A declared random input of a market: its law and its shape for one market."""

    kind: Literal["uniform", "normal", "exponential"]
    shape: tuple[int, ...] = ()


def _words_needed(noise: Noise) -> int:
    size = math.prod(noise.shape)
    return size + size % 2 if noise.kind == "normal" else size


def _threefry_few(k0: np.ndarray, k1: np.ndarray, x0: np.ndarray, x1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for a few words: Python integers beat NumPy's overhead."""
    out = []
    rows = (np.broadcast_to(a, x0.shape).ravel().tolist() for a in (k0, k1, x0, x1))
    for key0, key1, u, v in zip(*rows, strict=True):
        ks = (key0, key1, key0 ^ key1 ^ _PARITY)
        u, v = (u + key0) & _MASK, (v + key1) & _MASK
        for group in range(5):
            for r in _ROTATIONS[group % 2]:
                u = (u + v) & _MASK
                v = (((v << r) | (v >> (32 - r))) & _MASK) ^ u
            u = (u + ks[(group + 1) % 3]) & _MASK
            v = (v + ks[(group + 2) % 3] + group + 1) & _MASK
        out.append((u, v))
    words = np.array(out, dtype=np.uint32).reshape(*x0.shape, 2)
    return words[..., 0], words[..., 1]


def _threefry_numpy(k0: np.ndarray, k1: np.ndarray, x0: np.ndarray, x1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Threefry-2x32-20, in place on ``x0`` and ``x1`` (uint32, already of the full shape) where they are many."""
    if 0 < x0.size <= 4:
        return _threefry_few(k0, k1, x0, x1)
    ks = (k0, k1, k0 ^ k1 ^ np.uint32(_PARITY))
    scratch = np.empty_like(x0)
    x0 += k0
    x1 += k1
    for group in range(5):
        for r in _ROTATIONS[group % 2]:
            x0 += x1
            np.left_shift(x1, r, out=scratch)
            x1 >>= 32 - r
            x1 |= scratch
            x1 ^= x0
        x0 += ks[(group + 1) % 3]
        x1 += ks[(group + 2) % 3]
        x1 += np.uint32(group + 1)
    return x0, x1


def _words_numpy(key: np.ndarray, half: int) -> np.ndarray:
    """(B, 2 * half) words, computed in blocks of markets that fit the cache."""
    batch = key.shape[0]
    out = np.empty((batch, 2 * half), dtype=np.uint32)
    index = np.arange(half, dtype=np.uint32)
    rows = max(1, _BLOCK // max(half, 1))
    for first in range(0, batch, rows):
        block = key[first : first + rows]
        x0 = np.repeat(index[None], block.shape[0], axis=0)
        x0, x1 = _threefry_numpy(block[:, :1], block[:, 1:], x0, np.zeros_like(x0))
        out[first : first + rows, :half] = x0
        out[first : first + rows, half:] = x1
    return out


def to_numpy(value: Any) -> np.ndarray:
    """Any supported array (or nested sequence of numbers) as a NumPy array of its own type."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):  # torch
        return value.detach().cpu().numpy()
    if type(value).__module__.startswith("array_api_strict"):
        return np.asarray(value._array)
    return np.asarray(value)


# -- distributions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distribution:
    """Base of the laws a numeric parameter may follow; drawn once per market at reset, from the parameter's own stream.

    ``per="agent"`` (default) draws each entry on its own; ``per="market"`` draws one value that all entries of a market share.
    """

    def quantile(self, xp: Any, u: Array) -> Array:
        """Value at probability ``u`` in (0, 1)."""
        raise NotImplementedError

    @property
    def shared(self) -> bool:
        """Whether one draw serves all entries of a market."""
        return getattr(self, "per", "agent") == "market"

    @property
    def support(self) -> tuple[float, float]:
        """Smallest and largest possible value (used to validate the parameter's range)."""
        raise NotImplementedError


def _check_order(name: str, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise InvalidParameter(f"{name}({low}, {high}): needs finite bounds with low <= high")


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform on [low, high]."""

    low: float
    high: float
    per: Literal["agent", "market"] = "agent"

    def __post_init__(self) -> None:
        _check_order("Uniform", self.low, self.high)

    def quantile(self, xp: Any, u: Array) -> Array:
        return self.low + (self.high - self.low) * u

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True)
class LogUniform(Distribution):
    """exp of a uniform on [log low, log high]; low > 0."""

    low: float
    high: float
    per: Literal["agent", "market"] = "agent"

    def __post_init__(self) -> None:
        _check_order("LogUniform", self.low, self.high)
        if self.low <= 0:
            raise InvalidParameter(f"LogUniform({self.low}, {self.high}): needs low > 0")

    def quantile(self, xp: Any, u: Array) -> Array:
        return self.low * xp.exp(math.log(self.high / self.low) * u)

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True)
class Choice(Distribution):
    """One of the given values, equally likely."""

    values: tuple[float, ...]
    per: Literal["agent", "market"] = "agent"

    def __post_init__(self) -> None:
        if not self.values:
            raise InvalidParameter("Choice needs at least one value")
        object.__setattr__(self, "values", tuple(float(v) for v in self.values))

    def quantile(self, xp: Any, u: Array) -> Array:
        out = xp.zeros_like(u) + self.values[0]
        for k, value in enumerate(self.values[1:], start=1):
            out = xp.where(u * len(self.values) >= k, xp.zeros_like(u) + value, out)
        return out

    @property
    def support(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


@dataclass(frozen=True)
class FirstThen:
    """``first`` for agent 0, ``then`` for all others: keeps a preset valid for every number of agents."""

    first: float
    then: float
