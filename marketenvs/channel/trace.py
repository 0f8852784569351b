"""Measured channels: read power gains (user x PRB x slot) from npz or CSV; replay them slot by slot."""

from __future__ import annotations

import csv
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.channel._namespace import Array, unify

CSV_COLUMNS = ("user", "prb", "slot")
GAIN_NAMES = ("gain_db", "gain")


def load_trace(path: str | Path) -> np.ndarray:
    """Read measured power gains.

    Two formats, by the file's ending:

    * `.npz` with one array `gain_db` (dB) or `gain` (power ratio), shape (users, PRBs, slots);
    * `.csv` with a header naming `user`, `prb`, `slot` and one of `gain_db`, `gain`, in any order, one line per
      (user, PRB, slot), all counted from 0, in any order of lines; further columns are ignored.

    A gain is received over transmitted power: path loss, antennas, shadowing and fading together.

    Args:
        path: file to read.

    Returns:
        Linear power gains >= 0, float64, shape (users, PRBs, slots): the value of `channel="trace"` settings.

    Raises:
        FileNotFoundError: no such file.
        ValueError: wrong ending, missing or wrong-shaped array, missing column, a value that is no number, not finite,
            negative or duplicated (line and column named), or a missing (user, PRB, slot).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no trace file {path}")
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    raise ValueError(f"trace {path}: unknown ending {path.suffix!r}, expected .npz or .csv")


def _to_ratio(values: np.ndarray, name: str) -> np.ndarray:
    return 10.0 ** (values / 10.0) if name == "gain_db" else values


def _read_npz(path: Path) -> np.ndarray:
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"trace {path}: not a readable npz file ({error})") from error
    with archive:
        found = [name for name in GAIN_NAMES if name in archive.files]
        if len(found) != 1:
            raise ValueError(
                f"trace {path}: expected exactly one of the arrays 'gain_db' and 'gain', found {sorted(archive.files)}"
            )
        try:
            values = archive[found[0]]
        except (ValueError, OSError, zipfile.BadZipFile) as error:  # pickled objects, truncated members
            raise ValueError(f"trace {path}: array {found[0]!r} cannot be read ({error})") from error
    if values.dtype.kind not in "fiu":
        raise ValueError(f"trace {path}: array {found[0]!r} has dtype {values.dtype}, expected real numbers")
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(
            f"trace {path}: array {found[0]!r} has shape {values.shape}, expected (users, PRBs, slots), none empty"
        )
    values = values.astype(np.float64)
    gain = _to_ratio(values, found[0])
    bad = ~(np.isfinite(values) & np.isfinite(gain) & (gain >= 0.0))
    if bad.any():
        user, prb, slot = np.argwhere(bad)[0]
        raise ValueError(
            f"trace {path}: {found[0]}={values[user, prb, slot]:g} at user {user}, PRB {prb}, slot {slot} "
            f"({bad.sum()} such values): expected finite" + ("" if found[0] == "gain_db" else " and >= 0")
        )
    return gain


def _read_csv(path: Path) -> np.ndarray:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        position = {}
        for name in CSV_COLUMNS:
            if name not in header:
                raise ValueError(
                    f"trace {path}, line 1: no column {name!r} in the header {header}; "
                    "expected user, prb, slot and one of gain_db, gain"
                )
            position[name] = header.index(name)
        found = [name for name in GAIN_NAMES if name in header]
        if len(found) != 1:
            raise ValueError(
                f"trace {path}, line 1: expected exactly one of the columns 'gain_db' and 'gain' in the header {header}"
            )
        gain_name = found[0]
        position[gain_name] = header.index(gain_name)
        for name in position:
            if header.count(name) > 1:
                raise ValueError(f"trace {path}, line 1: column {name!r} appears {header.count(name)} times")

        def culprit(column: str, text: str, expected: str) -> ValueError:
            return ValueError(
                f"trace {path}, line {reader.line_num}, column {position[column] + 1} ({column}): "
                f"{text!r}, expected {expected}"
            )

        lines: dict[tuple[int, int, int], int] = {}
        gains: list[float] = []
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"trace {path}, line {reader.line_num}: {len(row)} columns, the header has {len(header)}"
                )
            key = []
            for name in CSV_COLUMNS:
                text = row[position[name]].strip()
                if not text.isascii() or not text.isdigit():
                    raise culprit(name, text, "a whole number counted from 0")
                key.append(int(text))
            text = row[position[gain_name]].strip()
            try:
                value = float(text)
            except ValueError:
                raise culprit(gain_name, text, "a number") from None
            if not math.isfinite(value) or (gain_name == "gain" and value < 0.0):
                raise culprit(gain_name, text, "a finite number" + (" >= 0" if gain_name == "gain" else ""))
            if gain_name == "gain_db" and value > 3000.0:  # its ratio would overflow
                raise culprit(gain_name, text, "at most 3000 dB")
            index = (key[0], key[1], key[2])
            if index in lines:
                raise culprit("user", f"{index}", f"each (user, prb, slot) once; it is already on line {lines[index]}")
            lines[index] = reader.line_num
            gains.append(value)
    if not gains:
        raise ValueError(f"trace {path}: no lines after the header")
    keys = np.array(list(lines))
    shape = keys.max(axis=0) + 1
    if shape.prod() != len(gains):
        if shape.prod() > 1_000 * len(gains):
            raise ValueError(
                f"trace {path}: {len(gains)} lines cannot fill {shape[0]} users x {shape[1]} PRBs x {shape[2]} slots; "
                "user, prb and slot count from 0 without gaps"
            )
        missing = np.ones(shape, dtype=bool)
        missing[tuple(keys.T)] = False
        user, prb, slot = np.argwhere(missing)[0]
        raise ValueError(
            f"trace {path}: no line for user {user}, prb {prb}, slot {slot} "
            f"({missing.sum()} of {shape.prod()} missing); user, prb and slot count from 0 without gaps"
        )
    trace = np.empty(shape)
    trace[tuple(keys.T)] = _to_ratio(np.array(gains), gain_name)
    return trace


def trace_gain(trace: Array, slot: Array, *, xp: Any = None) -> Array:
    """Gains of one slot, shape (users, PRBs); `slot` counts on and wraps around at the trace's end."""
    xp, gains = unify(xp, trace)
    index = xp.reshape(xp.asarray(slot), (1,)) % gains.shape[2]
    return xp.take(gains, index, axis=2)[..., 0]
