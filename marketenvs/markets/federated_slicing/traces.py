"""Real traffic: read offered loads per slice, node and slot from files, line by line, so that a month of Milan never sits in memory.

Formats:

* ``milan_tsv``: Telecom Italia Big Data Challenge, Milan, raw daily files ``sms-call-internet-mi-YYYY-MM-DD.txt``: tab-
separated, no header, 8 columns
  square_id (1..10000, 235 m), time_interval (epoch, ms), country_code, sms_in, sms_out, call_in, call_out, internet; a
  blank is 0, rows of several
  countries add up, a missing (square, time) is 0.
* ``milan_csv``: the common comma-separated variant with header
``datetime,CellID,countrycode,smsin,smsout,callin,callout,internet``.
* ``long_csv``: header ``slot,slice,node,mbps`` (any order; whole numbers from 0), Mbit/s.

Milan's values have no unit (they are proportional to call records): give ``mbps_per_unit``, or let every slice be
rescaled to its mean load.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InvalidParameter, UnknownName, nearest

ACTIVITIES = ("sms_in", "sms_out", "call_in", "call_out", "internet")
MILAN_COLUMNS = ("square_id", "time_interval", "country_code", *ACTIVITIES)
KAGGLE_COLUMNS = ("datetime", "CellID", "countrycode", "smsin", "smsout", "callin", "callout", "internet")
LONG_COLUMNS = ("slot", "slice", "node", "mbps")
FORMATS = ("milan_tsv", "milan_csv", "long_csv")
SQUARES = 10_000


@dataclass(frozen=True)
class SliceSource:
    """Where one slice's traffic comes from in the Milan data: its nodes are grid squares, its load is one activity.

    Attributes:
        squares: square ids, 1..10000; one per node.
        activity: ``sms_in``, ``sms_out``, ``call_in``, ``call_out`` or ``internet``.
    """

    squares: tuple[int, ...]
    activity: str = "internet"

    def __post_init__(self) -> None:
        if self.activity not in ACTIVITIES:
            raise UnknownName(f"unknown activity {self.activity!r}; {nearest(self.activity, ACTIVITIES)}")
        if not self.squares or len(set(self.squares)) != len(self.squares):
            raise InvalidParameter("a slice needs at least one square, and each square once")
        for square in self.squares:
            if not 1 <= square <= SQUARES:
                raise InvalidParameter(f"square {square} is outside Milan's grid 1..{SQUARES}")


@dataclass(frozen=True)
class Trace:
    """Offered loads read from files.

    Attributes:
        loads: Mbit/s, (T, M, N): pass it as ``load_trace`` with ``demand="trace"``.
        start: time of slot 0 in seconds since the epoch (0 for ``long_csv``).
        slot_seconds: length of a slot (0 for ``long_csv``).
        lines: lines read.
        missing: share of (slot, slice, node) that no line mentioned, taken as 0.
    """

    loads: np.ndarray
    start: float
    slot_seconds: float
    lines: int
    missing: float


def load_traffic(
    paths: str | Path | Iterable[str | Path],
    slices: Sequence[SliceSource] | None = None,
    *,
    format: str | None = None,
    mbps_per_unit: float | None = None,
    mean_load: Sequence[float] | None = None,
) -> Trace:
    """Read one or several files of the same format, in any order of lines and files.

    Args:
        paths: file or files.
        slices: for the Milan formats: one `SliceSource` per slice, all with the same number of squares.
        format: one of ``FORMATS``; None looks at the first line.
        mbps_per_unit: for the Milan formats: Mbit/s per unit of activity.
        mean_load: for the Milan formats, instead: mean Mbit/s per node, one per slice; the slice is rescaled to it.

    Raises:
        InvalidParameter: a malformed row (file, line and column are named), a missing file, nothing read, or missing
            arguments.
    """
    files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(p) for p in paths]
    if not files:
        raise InvalidParameter("no traffic file was given")
    for file in files:
        if not file.is_file():
            raise InvalidParameter(f"no traffic file {file}")
    chosen = format or sniff(files[0])
    if chosen not in FORMATS:
        raise InvalidParameter(f"format={chosen!r} is not offered; {nearest(chosen, FORMATS)}")
    if chosen == "long_csv":
        if slices is not None or mbps_per_unit is not None or mean_load is not None:
            raise InvalidParameter(
                "long_csv already names slices and Mbit/s: leave out slices, mbps_per_unit and mean_load"
            )
        return _read_long(files)
    if not slices:
        raise InvalidParameter("the Milan formats need slices=[SliceSource(squares, activity), ...]")
    if len({len(s.squares) for s in slices}) > 1:
        raise InvalidParameter(f"all slices need the same number of squares, got {[len(s.squares) for s in slices]}")
    if (mbps_per_unit is None) == (mean_load is None):
        raise InvalidParameter("Milan's values have no unit: give either mbps_per_unit or mean_load")
    rows = _milan_tsv if chosen == "milan_tsv" else _milan_csv
    loads, start, step, lines, missing = _gather(files, rows, slices)
    if mbps_per_unit is not None:
        if not (math.isfinite(mbps_per_unit) and mbps_per_unit > 0):
            raise InvalidParameter(f"mbps_per_unit must be a positive number, got {mbps_per_unit!r}")
        loads = loads * mbps_per_unit
    else:
        loads = _rescaled(loads, mean_load)
    return Trace(loads, start, step, lines, missing)


def _rescaled(loads: np.ndarray, mean_load: Any) -> np.ndarray:
    wanted = np.asarray(mean_load, dtype=np.float64)
    if wanted.shape != (loads.shape[1],) or not np.all(wanted > 0):
        raise InvalidParameter(f"mean_load needs {loads.shape[1]} positive values, got {mean_load!r}")
    mean = loads.mean(axis=(0, 2))
    if np.any(mean == 0):
        raise InvalidParameter(
            f"slice {int(np.argmin(mean))} has no traffic in these files: check its squares and its activity"
        )
    return loads * (wanted / mean)[None, :, None]


def sniff(path: str | Path) -> str:
    """The format of a file, from its first line.

    Raises:
        InvalidParameter: no known format.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        first = file.readline().rstrip("\r\n")
    if first.count("\t") == len(MILAN_COLUMNS) - 1:
        return "milan_tsv"
    names = [name.strip() for name in first.split(",")]
    if set(KAGGLE_COLUMNS) <= set(names):
        return "milan_csv"
    if set(LONG_COLUMNS) <= set(names):
        return "long_csv"
    raise InvalidParameter(
        f"{path}, line 1: neither 8 tab-separated columns (Milan), nor a header with {','.join(KAGGLE_COLUMNS)}, nor one with "
        f"{','.join(LONG_COLUMNS)}"
    )


def _fail(path: Path, line: int, column: int, name: str, problem: str) -> InvalidParameter:
    return InvalidParameter(f"{path}, line {line}, column {column} ({name}): {problem}")


def _amount(path: Path, line: int, column: int, name: str, text: str) -> float:
    """A non-negative number; a blank is 0."""
    text = text.strip()
    if not text:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        raise _fail(path, line, column, name, f"{text!r} is not a number") from None
    if not math.isfinite(value) or value < 0:
        raise _fail(path, line, column, name, f"{text!r} must be finite and >= 0")
    return value


def _whole(path: Path, line: int, column: int, name: str, text: str, low: int, high: int | None = None) -> int:
    try:
        value = int(text.strip())
    except ValueError:
        raise _fail(path, line, column, name, f"{text.strip()!r} is not a whole number") from None
    if value < low or (high is not None and value > high):
        raise _fail(path, line, column, name, f"{value} must lie in {low}..{'' if high is None else high}")
    return value


def _milan_tsv(path: Path) -> Iterator[tuple[int, int, float, list[str], int]]:
    """(line, square, seconds, activity texts, column of the first activity)."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, text in enumerate(file, start=1):
            parts = text.rstrip("\r\n").split("\t")
            if parts == [""]:
                continue
            if len(parts) != len(MILAN_COLUMNS):
                raise InvalidParameter(
                    f"{path}, line {number}: {len(parts)} columns, expected {len(MILAN_COLUMNS)} ({', '.join(MILAN_COLUMNS)})"
                )
            square = _whole(path, number, 1, "square_id", parts[0], 1, SQUARES)
            yield number, square, _whole(path, number, 2, "time_interval", parts[1], 0) / 1000.0, parts[3:], 4


def _milan_csv(path: Path) -> Iterator[tuple[int, int, float, list[str], int]]:
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        absent = [name for name in KAGGLE_COLUMNS if name not in header]
        if absent:
            raise InvalidParameter(f"{path}, line 1: the header lacks {', '.join(absent)}")
        at = [header.index(name) for name in KAGGLE_COLUMNS]
        for parts in reader:
            number = reader.line_num
            if not parts:
                continue
            if len(parts) != len(header):
                raise InvalidParameter(f"{path}, line {number}: {len(parts)} columns, the header has {len(header)}")
            try:
                moment = datetime.fromisoformat(parts[at[0]].strip())
            except ValueError:
                raise _fail(path, number, at[0] + 1, "datetime", f"{parts[at[0]]!r} is no date and time") from None
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            square = _whole(path, number, at[1] + 1, "CellID", parts[at[1]], 1, SQUARES)
            yield number, square, seconds, [parts[k] for k in at[3:]], at[3] + 1


def _gather(
    files: Sequence[Path], rows: Any, slices: Sequence[SliceSource]
) -> tuple[np.ndarray, float, float, int, float]:
    """Sum the wanted activities by time, slice and node; only wanted squares are kept in memory."""
    wanted: dict[int, list[tuple[int, int, int]]] = {}
    for m, source in enumerate(slices):
        for n, square in enumerate(source.squares):
            wanted.setdefault(square, []).append((m, n, ACTIVITIES.index(source.activity)))
    shape = (len(slices), len(slices[0].squares))
    by_time: dict[float, np.ndarray] = {}
    seen: set[tuple[float, int]] = set()
    lines = 0
    for path in files:
        for number, square, seconds, texts, first in rows(path):
            lines += 1
            places = wanted.get(square)
            amounts = [_amount(path, number, first + k, ACTIVITIES[k], text) for k, text in enumerate(texts)]
            if places is None:
                continue
            slot = by_time.get(seconds)
            if slot is None:
                slot = by_time[seconds] = np.zeros(shape)
            seen.add((seconds, square))
            for m, n, k in places:
                slot[m, n] += amounts[k]
    if len(by_time) < 2:
        raise InvalidParameter(
            f"{len(by_time)} time steps of the wanted squares in {len(files)} file(s); a trace needs at least 2"
        )
    times = np.array(sorted(by_time))
    step = float(np.min(np.diff(times)))
    slots = np.round((times - times[0]) / step)
    if np.any(np.abs((times - times[0]) / step - slots) > 1e-6):
        raise InvalidParameter(f"the times are not multiples of the shortest step of {step:g} s")
    loads = np.zeros((int(slots[-1]) + 1, *shape))
    for slot, time in zip(slots.astype(int), times, strict=True):
        loads[slot] = by_time[time]
    missing = 1.0 - len(seen) / (len(loads) * len(wanted))
    return loads, float(times[0]), step, lines, missing


def _read_long(files: Sequence[Path]) -> Trace:
    values: dict[tuple[int, int, int], float] = {}
    lines = 0
    for path in files:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            absent = [name for name in LONG_COLUMNS if name not in header]
            if absent:
                raise InvalidParameter(f"{path}, line 1: the header lacks {', '.join(absent)}")
            at = [header.index(name) for name in LONG_COLUMNS]
            for parts in reader:
                number = reader.line_num
                if not parts:
                    continue
                lines += 1
                if len(parts) != len(header):
                    raise InvalidParameter(f"{path}, line {number}: {len(parts)} columns, the header has {len(header)}")
                slot, m, n = (
                    _whole(path, number, k + 1, name, parts[k], 0)
                    for k, name in zip(at[:3], LONG_COLUMNS[:3], strict=True)
                )
                if not parts[at[3]].strip():
                    raise _fail(path, number, at[3] + 1, "mbps", "the value is missing")
                if (slot, m, n) in values:
                    raise _fail(path, number, at[0] + 1, "slot", f"slot {slot}, slice {m}, node {n} was given before")
                values[slot, m, n] = _amount(path, number, at[3] + 1, "mbps", parts[at[3]])
    if not values:
        raise InvalidParameter(f"no rows in {', '.join(map(str, files))}")
    keys = np.array(list(values))
    loads = np.zeros(keys.max(axis=0) + 1)
    loads[tuple(keys.T)] = list(values.values())
    if len(loads) < 2:
        raise InvalidParameter("a trace needs at least 2 slots")
    return Trace(loads, 0.0, 0.0, lines, 1.0 - len(values) / loads.size)


def write_long_csv(path: str | Path, loads: np.ndarray) -> None:
    """Write loads (T, M, N) in Mbit/s as ``slot,slice,node,mbps``."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(LONG_COLUMNS)
        for (slot, m, n), value in np.ndenumerate(loads):
            writer.writerow([slot, m, n, repr(float(value))])
