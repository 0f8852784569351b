"""Forecasters of a slice's traffic behind one interface, and an honest protocol to compare them.

Data are offered loads (T, M, N): slots, slices, devices. A forecaster of slice m is fitted on the first slots, may stop
early on the next
(validation)
and is judged one step ahead on the last (test), which nothing has seen. Classical models are here (NumPy, statsmodels);
the LSTM and the
graph networks
of the digital twin are in `twin`.

Train one on your own file (see `marketenvs.markets.federated_slicing.traces` for formats) and save it:

    python -m marketenvs_baselines.forecasters traffic.csv --model gat --slice 0 --out my_twin

and use it:

    model = load_forecaster("my_twin"); model.forecast(loads, first=2400)  # (T - 2400,) Mbit/s, each from the slots
    before it
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from marketenvs.errors import InvalidParameter, MarketEnvsError, nearest

Floats = NDArray[np.float64]
Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called with (epoch, epochs, {"train": loss, "validation": loss})."""

DAY = 144
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3, 1e4)


@dataclass(frozen=True)
class Split:
    """Slots [0, train) to fit, [train, validation) to stop early and to choose, [validation, T) to judge."""

    train: int
    validation: int

    @classmethod
    def of(cls, slots: int, shares: tuple[float, float] = (0.6, 0.2)) -> Split:
        """Split by time, 60/20/20 unless said.

        Raises:
            InvalidParameter: Too few slots (fewer than 60) or shares that leave nothing to judge.
        """
        if slots < 60:
            raise InvalidParameter(
                f"{slots} slots are too few to fit, validate and judge a forecaster: give at least 60"
            )
        if not (shares[0] > 0 and shares[1] > 0 and sum(shares) < 1):
            raise InvalidParameter(
                f"shares of training and validation must be positive and add up to less than 1, got {shares}"
            )
        return cls(round(slots * shares[0]), round(slots * (shares[0] + shares[1])))


class Forecaster:
    """One-step-ahead forecasts of one slice's total load. Subclasses say how to fit and how to forecast.

    Args:
        target: Index of the slice.
        seed: Seed of whatever is random.
    """

    name: ClassVar[str] = ""
    reads: ClassVar[str] = "total"
    """What it reads: "total" (own past total), "slices" (all totals) or "devices" (own devices)."""

    def __init__(self, target: int = 0, seed: int = 0):
        self.target, self.seed = int(target), int(seed)

    def fit(self, loads: Floats, split: Split, progress: Progress | None = None) -> Forecaster:
        """Fit on ``loads[:split.train]``, choosing on ``loads[split.train:split.validation]`` only."""
        raise NotImplementedError

    def forecast(self, loads: Floats, first: int) -> Floats:
        """Forecasts (T - first,) of slots first..T-1 in Mbit/s, each from the slots before it."""
        raise NotImplementedError

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON-ready settings and arrays."""
        raise NotImplementedError

    def restore(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """The inverse of :meth:`export`."""
        raise NotImplementedError

    def total(self, loads: Floats) -> Floats:
        """Own total load (T,)."""
        return loads[:, self.target].sum(axis=-1)


class Persistence(Forecaster):
    """The last value."""

    name = "persistence"

    def fit(self, loads: Floats, split: Split, progress: Progress | None = None) -> Forecaster:
        return self

    def forecast(self, loads: Floats, first: int) -> Floats:
        return self.total(loads)[first - 1 : -1]

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {}, {}

    def restore(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        return None


class SeasonalNaive(Persistence):
    """The value a day (144 slots) ago; the last value where there is no day of past yet."""

    name = "seasonal"

    def forecast(self, loads: Floats, first: int) -> Floats:
        y = self.total(loads)
        slots = np.arange(first, len(y))
        return np.where(slots >= DAY, y[np.maximum(slots - DAY, 0)], y[slots - 1])


class _Linear(Forecaster):
    """Ridge regression of the change from the last value, with the penalty chosen on the validation slots."""

    lags: ClassVar[int] = 8

    def features(self, loads: Floats) -> Floats:
        """(T, k) what is known in each slot and may be lagged."""
        raise NotImplementedError

    def design(self, loads: Floats) -> Floats:
        """(T - lags, p) regressors of slots lags..T-1: lagged features and the time of day."""
        x = self.features(loads)
        past = np.concatenate([x[self.lags - k : len(x) - k] for k in range(1, self.lags + 1)], axis=1)
        angle = 2 * math.pi * np.arange(self.lags, len(x)) / DAY
        clock = np.stack([np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)], axis=1)
        return np.concatenate([past, clock], axis=1)

    def fit(self, loads: Floats, split: Split, progress: Progress | None = None) -> Forecaster:
        if split.train <= self.lags + 2:
            raise InvalidParameter(f"{self.name} needs more than {self.lags + 2} training slots, got {split.train}")
        x, y = self.design(loads[: split.validation]), self.total(loads)[: split.validation]
        change = y[self.lags :] - y[self.lags - 1 : -1]
        cut = split.train - self.lags
        self.mean, self.sd = x[:cut].mean(axis=0), x[:cut].std(axis=0) + 1e-12
        z = (x - self.mean) / self.sd
        self.offset = float(change[:cut].mean())
        gram, cross = z[:cut].T @ z[:cut], z[:cut].T @ (change[:cut] - self.offset)
        best = math.inf
        for step, ridge in enumerate(RIDGES, start=1):
            weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), cross)
            errors = [
                float(np.sqrt(np.mean((z[part] @ weights + self.offset - change[part]) ** 2)))
                for part in (slice(0, cut), slice(cut, None))
            ]
            if errors[1] < best:
                best, self.weights = errors[1], weights
            if progress is not None:
                progress(step, len(RIDGES), {"train": errors[0], "validation": errors[1]})
        return self

    def forecast(self, loads: Floats, first: int) -> Floats:
        if first < self.lags:
            raise InvalidParameter(f"{self.name} needs {self.lags} slots of past, first={first}")
        part = loads[first - self.lags :]
        # The clock must go on where the whole series is, not where the part starts.
        x = self.design(part)
        angle = 2 * math.pi * np.arange(first, len(loads)) / DAY
        x[:, -4:] = np.stack([np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)], axis=1)
        return self.total(loads)[first - 1 : -1] + (x - self.mean) / self.sd @ self.weights + self.offset

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {"offset": self.offset}, {"mean": self.mean, "sd": self.sd, "weights": self.weights}

    def restore(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        self.offset = float(config["offset"])
        self.mean, self.sd, self.weights = (np.asarray(arrays[k], float) for k in ("mean", "sd", "weights"))


class AutoRegression(_Linear):
    """AR(8) with the time of day."""

    name = "ar"

    def features(self, loads: Floats) -> Floats:
        return self.total(loads)[:, None]


class VectorAutoRegression(_Linear):
    """VAR over the slices' totals: what a controller that sees every slice could know without device data."""

    name, reads, lags = "var", "slices", 4

    def features(self, loads: Floats) -> Floats:
        return loads.sum(axis=-1)


class DeviceRidge(_Linear):
    """Ridge on two lags of every device of the slice: device data without any graph."""

    name, reads, lags = "ridge", "devices", 2

    def features(self, loads: Floats) -> Floats:
        return loads[:, self.target]


class Arima(Forecaster):
    """ARIMA(2,1,2) per slice (statsmodels), fitted on training and validation slots, then rolled one step at a time."""

    name = "arima"
    order: ClassVar[tuple[int, int, int]] = (2, 1, 2)

    def fit(self, loads: Floats, split: Split, progress: Progress | None = None) -> Forecaster:
        import warnings

        from statsmodels.tsa.arima.model import ARIMA

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = ARIMA(self.total(loads)[: split.validation], order=self.order).fit()
        self.parameters = np.asarray(fitted.params)
        if progress is not None:
            progress(1, 1, {"train": float(np.sqrt(fitted.mse)), "validation": math.nan})
        return self

    def forecast(self, loads: Floats, first: int) -> Floats:
        import warnings

        from statsmodels.tsa.arima.model import ARIMA

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rolled = ARIMA(self.total(loads), order=self.order).filter(self.parameters)
        return np.asarray(rolled.forecasts[0][first:], float)

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {}, {"parameters": self.parameters}

    def restore(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        self.parameters = np.asarray(arrays["parameters"], float)


CLASSICAL: dict[str, type[Forecaster]] = {
    c.name: c for c in (Persistence, SeasonalNaive, AutoRegression, VectorAutoRegression, DeviceRidge, Arima)
}
NEURAL = ("lstm", "gat", "gat_identity")
FORECASTERS = (*CLASSICAL, *NEURAL)


def make_forecaster(name: str, target: int = 0, seed: int = 0, **settings: Any) -> Forecaster:
    """A forecaster by name.

    Args:
        name: One of ``FORECASTERS``.
        target: Index of the slice.
        seed: Seed of the weights and batches.
        **settings: Of the neural models: ``epochs``, ``patience``, ``rate``, ...

    Raises:
        InvalidParameter: Unknown name.
    """
    if name in CLASSICAL:
        return CLASSICAL[name](target, seed, **settings)
    if name in NEURAL:
        from . import twin

        return twin.MODELS[name](target, seed, **settings)
    raise InvalidParameter(f"unknown forecaster {name!r}; {nearest(name, FORECASTERS)}")


@dataclass(frozen=True)
class Errors:
    """One-step errors on the test slots, Mbit/s."""

    rmse: float
    mae: float
    deviation: float
    """Standard deviation of the load itself: an RMSE near it means that nothing was learned."""


def judge(model: Forecaster, loads: Floats, split: Split) -> Errors:
    """RMSE and MAE of a fitted forecaster on the slots after validation."""
    truth = model.total(loads)[split.validation :]
    error = model.forecast(loads, split.validation) - truth
    return Errors(float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error))), float(truth.std()))


def check_loads(loads: Any) -> Floats:
    """Loads as float64 (T, M, N).

    Raises:
        InvalidParameter: Another shape, or entries that are not finite and >= 0.
    """
    array = np.asarray(loads, dtype=np.float64)
    if array.ndim != 3 or not np.all(np.isfinite(array)) or np.any(array < 0):
        raise InvalidParameter(f"loads must be finite, >= 0 and of shape (T, slices, devices), got shape {array.shape}")
    return array


def save_forecaster(folder: str | Path, model: Forecaster, about: Mapping[str, Any] | None = None) -> Path:
    """Write a fitted forecaster as ``forecaster.json`` and ``weights.npz`` (no pickle)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, arrays = model.export()
    content = {"format": 1, "model": model.name, "target": model.target, "seed": model.seed, "config": config}
    (folder / "forecaster.json").write_text(json.dumps({**content, "about": dict(about or {})}, indent=1) + "\n")
    np.savez(folder / "weights.npz", **arrays)  # type: ignore[arg-type]
    return folder


def load_forecaster(folder: str | Path) -> Forecaster:
    """A saved forecaster.

    Raises:
        MarketEnvsError: No such folder, or not a forecaster.
    """
    folder = Path(folder)
    path = folder / "forecaster.json"
    if not path.is_file():
        raise MarketEnvsError(f"{folder} holds no forecaster.json")
    content = json.loads(path.read_text())
    if content.get("format") != 1:
        raise MarketEnvsError(f"{path}: format {content.get('format')!r} is not supported (expected 1)")
    model = make_forecaster(content["model"], content["target"], content["seed"])
    with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
        model.restore(content["config"], dict(arrays))
    return model


def forecast_needs(
    loads: Floats, efficiency: Floats, headroom: Floats, split: Split, name: str = "ridge", seed: int = 0
) -> Floats:
    """Forecasts of every slice's need on the test slots, (T - split.validation, M) in RB: the twin reads loads, slices ask for blocks.

    Every device's load is turned into blocks at its mean inverse efficiency over the training slots (what is left is fading, which nothing can
    forecast), the forecaster predicts the total, and the headroom of delay slices is added.

    Args:
        loads: Offered loads (T, M, N), Mbit/s.
        efficiency: Mbit/s per block that went with them, (T, M, N).
        headroom: L / tau_max per device of every slice, (M,), Mbit/s.
        split: The forecasters' split.
        name: Forecaster.
        seed: Its seed.
    """
    per_load = np.mean(1.0 / efficiency[: split.train], axis=0)
    blocks = loads * per_load
    out = np.empty((len(loads) - split.validation, loads.shape[1]))
    for m in range(loads.shape[1]):
        model = make_forecaster(name, m, seed).fit(blocks, split)
        out[:, m] = np.maximum(model.forecast(blocks, split.validation), 0.0) + headroom[m] * per_load[m].sum()
    return out


def _source(text: str) -> Any:
    """A slice's Milan squares from the command line: ``4259,4260[:activity]``."""
    from marketenvs.markets.federated_slicing.traces import SliceSource

    squares, _, activity = text.partition(":")
    if not all(part.strip().isdigit() for part in squares.split(",")):
        raise InvalidParameter(f"--squares {text}: give square numbers such as 4259,4260 or 4259,4260:sms_in")
    return SliceSource(tuple(int(part) for part in squares.split(",")), activity or "internet")


def main(arguments: list[str] | None = None) -> None:
    """Train a forecaster on a traffic file, show its errors beside persistence, and save it."""
    import argparse

    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    from marketenvs.markets.federated_slicing.traces import load_traffic

    parser = argparse.ArgumentParser(prog="python -m marketenvs_baselines.forecasters", description=main.__doc__)
    parser.add_argument("files", nargs="+", help="traffic files: slot,slice,node,mbps or Telecom Italia Milan")
    parser.add_argument("--model", default="gat", choices=FORECASTERS)
    parser.add_argument("--slice", type=int, default=0, help="slice to forecast")
    parser.add_argument("--out", default="forecaster", help="folder of the saved model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=None, help="most passes over the data (neural models)")
    parser.add_argument(
        "--squares",
        action="append",
        default=None,
        help="Milan: squares of a slice, 4259,4260,...[:activity]; repeat per slice",
    )
    parser.add_argument("--mbps-per-unit", type=float, default=None, help="Milan: Mbit/s per unit of activity")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        slices = [_source(text) for text in options.squares] if options.squares else None
        trace = load_traffic(options.files, slices, mbps_per_unit=options.mbps_per_unit)
        loads = check_loads(trace.loads)
        if not 0 <= options.slice < loads.shape[1]:
            raise InvalidParameter(f"--slice {options.slice}: the files hold slices 0..{loads.shape[1] - 1}")
        split = Split.of(len(loads))
        settings = {} if options.epochs is None or options.model in CLASSICAL else {"epochs": options.epochs}
        model = make_forecaster(options.model, options.slice, options.seed, **settings)
        console.print(f"{trace.lines} lines: {loads.shape[0]} slots, {loads.shape[1]} slices of {loads.shape[2]} nodes")
        with Bar(TextColumn(options.model), BarColumn(), TextColumn("{task.fields[text]}"), console=console) as bar:
            task = bar.add_task("fit", total=1, text="")

            def show(done: int, total: int, losses: Mapping[str, float]) -> None:
                text = f"{done}/{total}  train {losses['train']:.4g}  validation {losses['validation']:.4g}"
                bar.update(task, completed=done, total=total, text=text)

            model.fit(loads, split, show)
        errors = judge(model, loads, split)
        naive = judge(Persistence(options.slice), loads, split)
        console.print(
            f"test slots {split.validation}..{len(loads) - 1}: RMSE {errors.rmse:.4g} Mbit/s, MAE {errors.mae:.4g}"
        )
        console.print(
            f"persistence: RMSE {naive.rmse:.4g}, MAE {naive.mae:.4g}; the load's own deviation {errors.deviation:.4g}"
        )
        about = {
            "files": [str(f) for f in options.files],
            "rmse": errors.rmse,
            "mae": errors.mae,
            "persistence_rmse": naive.rmse,
        }
        folder = save_forecaster(options.out, model, about)
        console.print(f"saved in {folder}")
    except MarketEnvsError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
