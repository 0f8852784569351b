"""Parameters of a market: declaration, validation, presets, and the arrays (``theta``) the rules compute with.

A market's ``Params`` is a frozen dataclass whose fields are declared with :func:`number` (numeric, becomes an array), :func:`count`
(static positive integer), :func:`option` (one of several named rules) or :func:`flag`. The declarations carry unit, range, the
paper's symbol and a one-line meaning, from which validation, ``market.symbols``, ``marketenvs describe`` and the docs are made.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .arrays import Array, Backend, Distribution, FirstThen, Noise, to_numpy
from .errors import InvalidParameter, UnknownName, nearest

TRAIN_STREAM, TEST_STREAM = 1, 2
_INTEGER_TYPES = (int, np.integer)


def number(
    default: Any,
    doc: str,
    *,
    unit: str = "-",
    symbol: str | None = None,
    shape: tuple[str | int, ...] = (),
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
) -> Any:
    """A numeric field: a scalar, an array of ``shape``, a (B, *shape) array, or a ``Distribution``.

    Args:
        default: Default value.
        doc: One-line meaning.
        unit: Unit, for docs.
        symbol: The paper's symbol, if it has one.
        shape: Shape for one market: names of ``count`` fields or integers; () for a number of the whole market.
        low: Smallest valid value.
        high: Largest valid value.
        open_low: Whether ``low`` itself is invalid.
    """
    meta = {"kind": "number", "doc": doc, "unit": unit, "symbol": symbol, "shape": shape, "low": low, "high": high}
    return field(default=default, metadata={**meta, "open_low": open_low})


def count(default: int | None, doc: str, *, low: int = 1, symbol: str | None = None, optional: bool = False) -> Any:
    """A static integer field, at least ``low``; None is valid when ``optional``."""
    return field(
        default=default, metadata={"kind": "count", "doc": doc, "low": low, "symbol": symbol, "optional": optional}
    )


def option(default: str, doc: str, choices: Mapping[str, str] | Sequence[str]) -> Any:
    """A static choice among named rules. A mapping gives each choice's oracle: "exact", "numeric" or "none"."""
    oracle = dict(choices) if isinstance(choices, Mapping) else {c: "exact" for c in choices}
    return field(default=default, metadata={"kind": "option", "doc": doc, "choices": oracle})


def flag(default: bool, doc: str) -> Any:
    """A static yes/no field."""
    return field(default=default, metadata={"kind": "flag", "doc": doc})


def static(default: Any, doc: str) -> Any:
    """A static field that the market validates itself in ``check``."""
    return field(default=default, metadata={"kind": "static", "doc": doc})


@dataclass(frozen=True, kw_only=True)
class MarketParams:
    """Base of every market's parameters.

    Subclasses add fields and a class variable ``PRESETS``: name -> dict of overrides; "default" is always valid.

    Raises:
        InvalidParameter: On construction, when a value is of the wrong type, outside its range or inconsistent with another.
    """

    horizon: int = count(200, "rounds per episode (truncated, never terminated)", symbol="T")
    drift: Mapping[str, Any] | None = static(
        None, "numeric fields that change within an episode: name -> Jump or AutoRegressive"
    )

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            _check_field(self, f)
        if self.drift is not None and not isinstance(self.drift, Mapping):
            raise InvalidParameter(f"drift must map parameter names to Jump or AutoRegressive, got {self.drift!r}")
        if self.drift:
            names = [f.name for f in numeric_fields(type(self))]
            for name in self.drift:
                if name not in names:
                    raise UnknownName(f"drift of unknown numeric parameter {name!r}; {nearest(name, names)}")
                if not (hasattr(self.drift[name], "noise") and hasattr(self.drift[name], "move")):
                    raise InvalidParameter(
                        f"drift of {name!r} must be a Jump or an AutoRegressive, got {self.drift[name]!r}"
                    )
            for name, law in self.drift.items():
                if isinstance(law, AutoRegressive) and self.bounds_of(name)[0] <= 0:
                    raise InvalidParameter(
                        f"drift of {name!r} by AutoRegressive needs a positive start, got {getattr(self, name)!r}"
                    )
        for name, law in (self.drift or {}).items():
            if isinstance(law, AutoRegressive) and self.bounds_of(name)[0] <= 0:
                where = f"drift of {name!r} by AutoRegressive"
                raise InvalidParameter(f"{where} needs a positive start, got {getattr(self, name)!r}")
        self.check()

    def check(self) -> None:
        """Relations between fields; raise ``InvalidParameter``. Overridden by markets."""

    def size(self, shape: tuple[str | int, ...]) -> tuple[int, ...]:
        """A declared shape with the names of ``count`` fields replaced by their values."""
        return tuple(getattr(self, s) if isinstance(s, str) else s for s in shape)

    def bounds_of(self, name: str) -> tuple[float, float]:
        """Smallest and largest value that a numeric field takes (over agents, markets and draws)."""
        value = getattr(self, name)
        if isinstance(value, Distribution):
            return value.support
        if isinstance(value, FirstThen):
            return min(value.first, value.then), max(value.first, value.then)
        array = to_numpy(value)
        return float(array.min()), float(array.max())

    @classmethod
    def preset(cls, name: str | None = None, **overrides: Any) -> MarketParams:
        """Parameters of a preset with some fields overridden.

        Raises:
            UnknownName: Unknown preset or field; the message names the nearest valid one.
            InvalidParameter: The result is not valid.
        """
        presets = {"default": {}, **cls.PRESETS}
        name = name or "default"
        if name not in presets:
            raise UnknownName(f"unknown preset {name!r}; {nearest(name, presets)}")
        fields = [f.name for f in dataclasses.fields(cls)]
        for key in overrides:
            if key not in fields:
                named = symbols(cls)
                if key in named:
                    raise UnknownName(f"unknown parameter {key!r}: the paper's {key} is the parameter {named[key]!r}")
                known = [*fields, "preset", "backend", "dtype", "device"]
                raise UnknownName(f"unknown parameter {key!r} of {cls.__name__}; {nearest(key, known)}")
        return cls(**{**presets[name], **overrides})


def numeric_fields(params: type[MarketParams]) -> list[dataclasses.Field]:
    """The fields declared with :func:`number`, in order."""
    return [f for f in dataclasses.fields(params) if f.metadata.get("kind") == "number"]


def symbols(params: type[MarketParams]) -> dict[str, str]:
    """The paper's symbol -> field name, for every field that has one."""
    return {f.metadata["symbol"]: f.name for f in dataclasses.fields(params) if f.metadata.get("symbol")}


def theta_type(name: str, params: type[MarketParams], derived: Sequence[str] = ()) -> Any:
    """A NamedTuple class (a pytree) with one array per numeric field of ``params``, then the ``derived`` ones.

    Assign it at module level under the same ``name``, so that states can be pickled.
    """
    fields = [f.name for f in numeric_fields(params)] + list(derived)
    cls = collections.namedtuple(name, fields)  # type: ignore[misc]
    cls.__module__ = sys._getframe(1).f_globals["__name__"]
    cls.__doc__ = "Numeric parameters: (1 or B, *shape) arrays, (1 or B, 1) for a number of the whole market."
    return cls


def _check_field(params: MarketParams, f: dataclasses.Field) -> None:
    meta, value, where = f.metadata, getattr(params, f.name), f"{type(params).__name__}.{f.name}"
    kind = meta.get("kind")
    if kind == "count":
        if value is None and meta["optional"]:
            return
        if isinstance(value, bool) or not isinstance(value, _INTEGER_TYPES) or value < meta["low"]:
            raise InvalidParameter(f"{where} must be an integer >= {meta['low']}, got {value!r}")
        object.__setattr__(params, f.name, int(value))
    elif kind == "option":
        if value not in meta["choices"]:
            raise InvalidParameter(f"{where}={value!r} is not offered; {nearest(value, meta['choices'])}")
    elif kind == "flag":
        if not isinstance(value, (bool, np.bool_)):
            raise InvalidParameter(f"{where} must be True or False, got {value!r}")
    elif kind == "number":
        _check_number(params, f.name, meta, value, where)


def _check_number(params: MarketParams, name: str, meta: Mapping[str, Any], value: Any, where: str) -> None:
    if isinstance(value, (str, bytes, bool)) or value is None:
        raise InvalidParameter(f"{where} must be a number, an array or a distribution, got {value!r}")
    if isinstance(value, list):
        value = tuple(value)
        object.__setattr__(params, name, value)
    if not isinstance(value, (Distribution, FirstThen)):
        try:
            array = np.asarray(to_numpy(value), dtype=np.float64)
        except (TypeError, ValueError):
            raise InvalidParameter(f"{where} must be a number, an array or a distribution, got {value!r}") from None
        if not np.all(np.isfinite(array)):
            raise InvalidParameter(f"{where} must be finite, got {value!r}")
        _with_batch_axis(array, params.size(meta["shape"]), where)
        if isinstance(value, np.ndarray):
            array = array.copy()  # frozen: what the caller does to its array later does not reach the market
            array.setflags(write=False)
            object.__setattr__(params, name, array)
    low, high = params.bounds_of(name)
    if low < meta["low"] or high > meta["high"] or (meta["open_low"] and low <= meta["low"]):
        left = "(" if meta["open_low"] else "["
        raise InvalidParameter(f"{where} must lie in {left}{meta['low']:g}, {meta['high']:g}], got {value!r}")


def _with_batch_axis(array: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """A parameter as (1 or B, *shape), or (1 or B, 1) for a market's scalar."""
    target = shape or (1,)
    if array.ndim == 0:
        return np.broadcast_to(array, (1, *target))
    if array.shape == shape:
        return array[None]
    if not shape and array.ndim == 1:
        return array[:, None]
    if array.ndim == len(target) + 1 and array.shape[1:] == target:
        return array
    want = "(), (B,) or (B, 1)" if not shape else f"(), {shape} or (B, {', '.join(map(str, shape))})"
    raise InvalidParameter(f"{where} has shape {array.shape}; expected {want}")


def batch_of(params: MarketParams) -> int:
    """Number of markets that the parameters themselves fix (1 if none is given per market).

    Raises:
        InvalidParameter: Two parameters are given per market for different numbers of markets.
    """
    sizes: dict[int, str] = {}
    for f in numeric_fields(type(params)):
        value = getattr(params, f.name)
        if not isinstance(value, (Distribution, FirstThen)):
            array = np.asarray(to_numpy(value))
            rows = _with_batch_axis(array, params.size(f.metadata["shape"]), f.name).shape[0]
            if rows > 1:
                sizes.setdefault(rows, f.name)
    if len(sizes) > 1:
        (a, first), (b, second) = list(sizes.items())[:2]
        raise InvalidParameter(f"{first} is given for {a} markets but {second} for {b}")
    return next(iter(sizes), 1)


def is_drawn(params: MarketParams) -> bool:
    """Whether some numeric field follows a distribution, so that every market has its own value."""
    return any(isinstance(getattr(params, f.name), Distribution) for f in numeric_fields(type(params)))


def draw_theta(params: MarketParams, theta_cls: Any, backend: Backend, key: Array) -> Any:
    """The parameter arrays of B markets; distributions are drawn from their own keyed streams. Derived fields are None."""
    values: dict[str, Any] = {}
    for position, f in enumerate(numeric_fields(type(params))):
        value, shape = getattr(params, f.name), params.size(f.metadata["shape"])
        if isinstance(value, Distribution):
            shared = value.shared or not shape
            noise = {"u": Noise("uniform", (1,) if shared else shape)}
            u = backend.draw(backend.fold(key, position, 7), noise)["u"]
            if shared and shape:
                target = backend.xp.zeros((u.shape[0], *shape), dtype=backend.dtype, device=backend.device)
                u = target + backend.xp.reshape(u, (u.shape[0],) + (1,) * len(shape))
            values[f.name] = value.quantile(backend.xp, u)
        else:
            if isinstance(value, FirstThen):
                array = np.full(shape, value.then, dtype=np.float64)
                array[..., 0] = value.first
            else:
                array = np.asarray(to_numpy(value), dtype=np.float64)
            values[f.name] = backend.asarray(np.array(_with_batch_axis(array, shape, f.name)))
    return theta_cls(**{name: values.get(name) for name in theta_cls._fields})


@dataclass(frozen=True)
class Jump:
    """Drift: with probability ``rate`` per round, multiply by 1 + ``size`` or 1 - ``size`` (equally likely), within ``bounds``."""

    rate: float
    size: float
    bounds: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        if not (0 <= self.rate <= 1 and 0 <= self.size < 1):
            raise InvalidParameter(f"Jump(rate={self.rate}, size={self.size}): needs 0 <= rate <= 1 and 0 <= size < 1")

    def noise(self, shape: tuple[int, ...]) -> Noise:
        """Uniforms: one decides whether and which way."""
        return Noise("uniform", shape)

    def move(self, xp: Any, value: Array, base: Array, u: Array) -> Array:
        """The field's next value."""
        up, down = value * (1 + self.size), value * (1 - self.size)
        moved = xp.where(u < self.rate / 2, up, xp.where(u < self.rate, down, value))
        return xp.clip(moved, self.bounds[0], self.bounds[1])


@dataclass(frozen=True)
class AutoRegressive:
    """Drift: log(value / start) follows an AR(1) with coefficient ``rho`` and innovation standard deviation ``sigma``."""

    rho: float
    sigma: float

    def __post_init__(self) -> None:
        if not (0 <= self.rho <= 1 and self.sigma >= 0):
            raise InvalidParameter(
                f"AutoRegressive(rho={self.rho}, sigma={self.sigma}): needs 0 <= rho <= 1 and sigma >= 0"
            )

    def noise(self, shape: tuple[int, ...]) -> Noise:
        """Standard normal innovations."""
        return Noise("normal", shape)

    def move(self, xp: Any, value: Array, base: Array, z: Array) -> Array:
        """The field's next value."""
        return base * xp.exp(self.rho * xp.log(value / base) + self.sigma * z)
