"""Parameters and presets of the federated slicing market."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...arrays import Distribution, Uniform
from ...channel import read_gains
from ...errors import InvalidParameter
from ...params import MarketParams, count, flag, number, option, static, theta_type

# Loads give the six slices their kind: three with a rate requirement, three with a delay bound (the paper has no such
# table; ours).
_LOADS = (0.30, 0.20, 0.10, 0.08, 0.128, 0.02)
_PACKETS = (0.0, 0.0, 0.0, 8.0, 8.0, 2.0)
_BOUNDS = (0.0, 0.0, 0.0, 100.0, 250.0, 20.0)
# Mean needs of the default devices (RB), and the share of them that only carries load, d / (d + L / tau_max).
_NEEDS = (11.60, 8.78, 3.80, 6.68, 6.43, 4.91)
_SHARES = (0.0, 0.0, 0.0, 0.5, 0.8, 1.0 / 6.0)
_KINDS = {
    "device_load": _LOADS,
    "packet_kbit": _PACKETS,
    "delay_bound_ms": _BOUNDS,
    "mean_need": _NEEDS,
    "mean_load_share": _SHARES,
}
_REFERENCE_NEEDS = (12.4, 8.3, 4.1, 6.6, 6.6, 5.0)
SEQUENCES = ("forecast_trace", "load_trace", "gains")


@dataclass(frozen=True, kw_only=True)
class SlicingParams(MarketParams):
    """Parameters of federated slicing; defaults are the ``default`` preset: 6 slices of 100 devices share 50 blocks."""

    n_slices: int = count(6, "slices", symbol="M")
    n_devices: int = count(100, "devices per slice", symbol="N")
    horizon: int = count(144, "slots per episode (a day of 10 minutes each)", symbol="T")
    capacity: Any = number(50.0, "resource blocks of the base station", unit="RB", symbol="W", low=0, open_low=True)
    load: Any = number(1.0, "factor on every slice's demand (load sweep)", low=0)
    device_load: Any = number(
        _LOADS, "mean offered load", unit="Mbit/s per device", symbol="d", shape=("n_slices",), low=0
    )
    packet_kbit: Any = number(
        _PACKETS, "packet length of a delay slice", unit="kbit", symbol="L", shape=("n_slices",), low=0
    )
    delay_bound_ms: Any = number(
        _BOUNDS, "delay bound; 0 makes the slice a rate slice", unit="ms", symbol="tau_max", shape=("n_slices",), low=0
    )
    steepness: Any = number(10.0, "slope of the satisfaction curve", symbol="phi", shape=("n_slices",), low=1, high=50)
    utilisation_weight: Any = number(0.5, "weight of utilisation", symbol="Lambda", shape=("n_slices",), low=0)
    utility_weight: Any = number(0.5, "weight of the utility", symbol="mu", shape=("n_slices",), low=0)
    request_min: Any = number(0.1, "least request", unit="RB", shape=("n_slices",), low=0, open_low=True)
    request_max: Any = number(
        50.0, "largest request", unit="RB", symbol="kappa", shape=("n_slices",), low=0, open_low=True
    )
    relative_step: Any = number(
        0.5, "largest relative change per slot (action_mode='relative')", symbol="delta", low=0, high=1
    )
    forecast_sd: Any = number(0.2, "standard deviation of the log error (forecast='noisy')", low=0)
    mean_need: Any = number(
        _NEEDS, "mean need of a slice (demand='lognormal_ar1')", unit="RB", symbol="varphi", shape=("n_slices",), low=0
    )
    mean_load_share: Any = number(
        _SHARES,
        "share of a delay slice's need that carries load (demand='lognormal_ar1')",
        shape=("n_slices",),
        low=0,
        high=0.999,
    )
    need_sd: Any = number(
        0.4, "standard deviation of the log need (demand='lognormal_ar1')", shape=("n_slices",), low=0
    )
    need_rho: Any = number(0.85, "autocorrelation of the log need (demand='lognormal_ar1')", low=0, high=1)
    day_amplitude: Any = number(0.3, "amplitude of the daily profile", low=0, high=0.99)
    rate_slope: Any = number(
        1.0, "printed slope of equation 2 (rewards='paper')", unit="s/bit", symbol="phi_rate", low=0
    )
    delay_slope: Any = number(
        1.0, "printed slope of equation 3 (rewards='paper')", unit="1/s", symbol="phi_delay", low=0
    )
    demand: str = option("devices", "where needs come from", ("devices", "lognormal_ar1", "trace"))
    demand_timing: str = option(
        "lagged", "whether slices see their demand before or after they ask", ("lagged", "revealed")
    )
    forecast: str = option(
        "persistence", "the forecast slices are shown", ("persistence", "oracle", "noisy", "external")
    )
    rule: str = option("proportional", "who gets what when the pool is short", ("proportional", "uniform"))
    utilisation: str = option("match", "variant of Omega", ("match", "served", "efficiency", "paper"))
    satisfaction: str = option("mean", "utility: mean or sum over a slice's devices", ("mean", "sum"))
    rewards: str = option("corrected", "corrected rewards or the paper's as printed", ("corrected", "paper"))
    reward: str = option("own", "what a slice is paid", {"own": "exact", "team": "numeric"})
    action_mode: str = option("absolute", "what an action means", ("absolute", "absolute_linear", "relative"))
    action_levels: int | None = count(None, "actions on a grid (None: continuous)", low=2, optional=True)
    intra: str = option(
        "max_min", "how a slice shares its blocks among devices", {"max_min": "exact", "equal": "numeric"}
    )
    observation: str = option("own", "what slices see", ("own", "full", "paper"))
    fading: str = option("block", "fast fading", ("block", "ergodic", "none"))
    radio: str = option("federated", "radio preset of the cell", ("federated", "realistic"))
    channel: str = option("model", "rates of the devices: radio model, or measured gains", ("model", "trace"))
    whole_blocks: bool = flag(False, "grant whole blocks only (largest remainder)")
    pulses: bool = flag(True, "work batches on their routes; False is the negative control")
    observe_congestion: bool = flag(True, "broadcast min(1, W / sum of requests) of the last slot")
    load_trace: Any = static(None, "offered loads (T, n_slices, n_devices) in Mbit/s (demand='trace')")
    gains: Any = static(
        None,
        "measured power gains (users, PRBs, slots) for channel='trace', or their file (npz, CSV; see marketenvs.channel.load_trace); "
        "device u of slice m is user m * n_devices + u",
    )
    forecast_trace: Any = static(
        None, "forecasts of the needs (T, n_slices) in RB, one per slot of load_trace (forecast='external')"
    )

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "realistic": {"radio": "realistic"},
        "paper": {
            "utilisation": "paper",
            "satisfaction": "sum",
            "rewards": "paper",
            "action_mode": "relative",
            "observation": "paper",
            "demand_timing": "revealed",
        },
        "drawn": {
            "demand": "lognormal_ar1",
            "demand_timing": "revealed",
            "day_amplitude": 0.0,
            "load": Uniform(0.2, 2.0),
            "horizon": 20,
        },
        "reduced": {
            "demand": "lognormal_ar1",
            "demand_timing": "revealed",
            "forecast": "oracle",
            "mean_need": _REFERENCE_NEEDS,
            "need_sd": 0.0,
            "day_amplitude": 0.0,
        },
        "many": {
            "n_slices": 1000,
            "demand": "lognormal_ar1",
            "demand_timing": "revealed",
            "day_amplitude": 0.0,
            "capacity": 7000.0,
            "request_max": 100.0,
            "device_load": Uniform(0.05, 0.3),
            "packet_kbit": 8.0,
            "delay_bound_ms": 100.0,
            "mean_need": Uniform(2.0, 12.0),
            "mean_load_share": Uniform(0.1, 0.8),
            "horizon": 20,
        },
        "team": {"reward": "team", "demand": "lognormal_ar1", "demand_timing": "revealed", "load": Uniform(0.2, 2.0)},
    }

    def __post_init__(self) -> None:
        """Other numbers of slices than six repeat the six kinds, unless the fields are given."""
        count = self.n_slices
        if isinstance(count, int) and not isinstance(count, bool) and count >= 1 and count != len(_LOADS):
            for name, kinds in _KINDS.items():
                if getattr(self, name) is kinds:
                    object.__setattr__(self, name, tuple(kinds[m % len(kinds)] for m in range(count)))
        super().__post_init__()

    def check(self) -> None:
        """Relations between fields."""
        if self.bounds_of("request_min")[0] > self.bounds_of("request_max")[1]:
            raise InvalidParameter(f"request_min={self.request_min!r} exceeds request_max={self.request_max!r}")
        least = _total(self.request_min, self.n_slices)
        if least > self.bounds_of("capacity")[0]:
            raise InvalidParameter(
                f"request_min={self.request_min!r}: {self.n_slices} least requests add up to {least:g} RB, "
                f"more than capacity={self.capacity!r}"
            )
        if self.whole_blocks:
            if self.rule != "proportional":
                raise InvalidParameter("whole_blocks=True is offered with rule='proportional' only")
            for edge in self.bounds_of("capacity"):
                if edge != round(edge):
                    raise InvalidParameter(f"whole_blocks=True needs a whole number as capacity, got {self.capacity!r}")
        reduced = self.demand == "lognormal_ar1"
        for name, value in (("intra", "equal"), ("rewards", "paper")):
            if reduced and getattr(self, name) == value:
                raise InvalidParameter(f"{name}={value!r} needs devices: choose demand='devices' or demand='trace'")
        if self.rewards == "paper" and self.intra == "equal":
            raise InvalidParameter("rewards='paper' is offered with intra='max_min' only")
        if reduced and self.bounds_of("mean_need")[0] <= 0:
            raise InvalidParameter(f"mean_need must be positive, got {self.mean_need!r}")
        self._check_sequences()

    def _check_sequences(self) -> None:
        for name in SEQUENCES:
            value = getattr(self, name)
            if name == "gains" and isinstance(value, (str, Path)):
                value = read_gains(value)
            if value is not None:
                try:
                    array = np.asarray(value, dtype=np.float64)
                except (TypeError, ValueError):
                    raise InvalidParameter(f"{name} must be an array of numbers") from None
                if not np.all(np.isfinite(array)) or np.any(array < 0):
                    raise InvalidParameter(f"{name} must hold finite numbers >= 0")
                object.__setattr__(self, name, array)
        if self.demand == "trace":
            if self.load_trace is None:
                raise InvalidParameter("demand='trace' needs load_trace, shape (T, n_slices, n_devices), Mbit/s")
            want = (self.n_slices, self.n_devices)
            if self.load_trace.ndim != 3 or self.load_trace.shape[1:] != want or len(self.load_trace) < 2:
                raise InvalidParameter(
                    f"load_trace must have shape (T >= 2, {want[0]}, {want[1]}), got {self.load_trace.shape}"
                )
        elif self.load_trace is not None:
            raise InvalidParameter("load_trace is given, but demand is not 'trace'")
        self._check_gains()
        if self.forecast == "external":
            if self.forecast_trace is None:
                raise InvalidParameter("forecast='external' needs forecast_trace, shape (T, n_slices), RB")
            if self.forecast_trace.ndim != 2 or self.forecast_trace.shape[1] != self.n_slices:
                raise InvalidParameter(
                    f"forecast_trace must have shape (T, {self.n_slices}), got {self.forecast_trace.shape}"
                )
            if self.load_trace is not None and len(self.load_trace) != len(self.forecast_trace):
                raise InvalidParameter(
                    f"forecast_trace has {len(self.forecast_trace)} slots but load_trace has {len(self.load_trace)}"
                )
        elif self.forecast_trace is not None:
            raise InvalidParameter("forecast_trace is given, but forecast is not 'external'")

    def _check_gains(self) -> None:
        """Gains exactly where they are used, one row per device."""
        if self.channel == "model":
            if self.gains is not None:
                raise InvalidParameter("gains are given, but channel is not 'trace'")
            return
        if self.demand == "lognormal_ar1":
            raise InvalidParameter("channel='trace' needs devices: choose demand='devices' or demand='trace'")
        users = self.n_slices * self.n_devices
        if self.gains is None:
            raise InvalidParameter(f"channel='trace' needs gains, shape ({users} users, PRBs, slots)")
        if self.gains.ndim != 3 or len(self.gains) != users or self.gains.size == 0:
            raise InvalidParameter(
                f"gains must have shape ({users}, PRBs, slots): one row per device, slice after slice; "
                f"got {self.gains.shape}"
            )


def _total(value: Any, slices: int) -> float:
    """Largest possible sum over the slices."""
    if isinstance(value, Distribution):
        return value.support[1] * slices
    array = np.asarray(value, dtype=np.float64)
    return float(
        np.max(np.sum(np.broadcast_to(array, (*array.shape[:-1], slices) if array.ndim else (slices,)), axis=-1))
    )


SlicingTheta = theta_type("SlicingTheta", SlicingParams, derived=("is_delay", "headroom", "descriptor"))
