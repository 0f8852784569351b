"""Measured channels: read power gains (user x PRB x slot) from npz or CSV; replay them slot by slot."""

from __future__ import annotations

import csv
import math
import zipfile
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.channel._namespace import Array, device_of, unify
from marketenvs.errors import InvalidParameter

CSV_COLUMNS = ("user", "prb", "slot")
GAIN_NAMES = ("gain_db", "gain")
_DENSE = "user, prb and slot count from 0 without gaps"


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
        InvalidParameter: wrong ending, missing or wrong-shaped array, missing column, a value that is no number, not
            finite, negative or duplicated (line and column named), or a missing (user, PRB, slot).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no trace file {path}")
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    raise InvalidParameter(f"trace {path}: unknown ending {path.suffix!r}, expected .npz or .csv")


def read_gains(value: Any) -> np.ndarray:
    """What a market's ``gains`` takes, as an array: the path of a trace file (see :func:`load_trace`), or the gains themselves.

    Args:
        value: path, or linear power gains >= 0 of shape (users, PRBs, slots).

    Returns:
        Gains, float64, shape (users, PRBs, slots).

    Raises:
        InvalidParameter: no such file, a damaged one, or an array that is not finite, negative, empty or of another shape.
    """
    if isinstance(value, (str, Path)):
        try:
            return load_trace(value)
        except FileNotFoundError as error:
            raise InvalidParameter(f"gains={str(value)!r}: {error}") from None
    try:
        gains = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidParameter(
            f"gains must be a file (npz, CSV) or an array (users, PRBs, slots), got {value!r}"
        ) from None
    if gains.ndim != 3 or gains.size == 0:
        raise InvalidParameter(f"gains must have shape (users, PRBs, slots), none empty, got {gains.shape}")
    if not (np.isfinite(gains).all() and (gains >= 0).all()):
        raise InvalidParameter("gains must be finite power gains >= 0 of shape (users, PRBs, slots)")
    return gains


def _to_ratio(values: np.ndarray, name: str) -> np.ndarray:
    return 10.0 ** (values / 10.0) if name == "gain_db" else values


def _read_npz(path: Path) -> np.ndarray:
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InvalidParameter(f"trace {path}: not a readable npz file ({error})") from error
    with archive:
        found = [name for name in GAIN_NAMES if name in archive.files]
        if len(found) != 1:
            raise InvalidParameter(
                f"trace {path}: expected exactly one of the arrays 'gain_db' and 'gain', found {sorted(archive.files)}"
            )
        try:
            values = archive[found[0]]
        except (ValueError, OSError, zipfile.BadZipFile) as error:  # pickled objects, truncated members
            raise InvalidParameter(f"trace {path}: array {found[0]!r} cannot be read ({error})") from error
    if values.dtype.kind not in "fiu":
        raise InvalidParameter(f"trace {path}: array {found[0]!r} has dtype {values.dtype}, expected real numbers")
    if values.ndim != 3 or 0 in values.shape:
        raise InvalidParameter(
            f"trace {path}: array {found[0]!r} has shape {values.shape}, expected (users, PRBs, slots), none empty"
        )
    values = values.astype(np.float64)
    gain = _to_ratio(values, found[0])
    bad = ~(np.isfinite(values) & np.isfinite(gain) & (gain >= 0.0))
    if bad.any():
        user, prb, slot = np.argwhere(bad)[0]
        raise InvalidParameter(
            f"trace {path}: {found[0]}={values[user, prb, slot]:g} at user {user}, PRB {prb}, slot {slot} "
            f"({bad.sum()} such values): expected finite" + ("" if found[0] == "gain_db" else " and >= 0")
        )
    return gain


def _read_csv(path: Path) -> np.ndarray:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            header = [name.strip() for name in next(reader, [])]
            position = _columns(path, header)
            keys, gains, lines = _parse(path, reader, len(header), position)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InvalidParameter(f"trace {path}, after line {reader.line_num}: not a text table ({error})") from error
    name = list(position)[3]

    def culprit(row: np.integer, column: str, value: object, expected: str) -> InvalidParameter:
        return _culprit(path, int(lines[row]), position, column, value, expected)

    for axis, column in enumerate(CSV_COLUMNS):
        if (keys[axis] < 0).any():
            row = np.argmax(keys[axis] < 0)
            raise culprit(row, column, keys[axis, row], "a whole number counted from 0")
    with np.errstate(over="ignore"):
        ratio = _to_ratio(gains, name)
    bad = ~(np.isfinite(gains) & np.isfinite(ratio) & (ratio >= 0.0))
    if bad.any():
        row = np.argmax(bad)
        raise culprit(row, name, gains[row], "a finite number" + (" >= 0" if name == "gain" else ", its ratio too"))

    shape = tuple(int(n) for n in keys.max(axis=1) + 1)
    total = math.prod(shape)
    if total > 1000 * gains.size:  # one stray index would ask for a huge array
        raise InvalidParameter(
            f"trace {path}: {gains.size} lines cannot fill {shape[0]} users x {shape[1]} PRBs x {shape[2]} slots; "
            f"{_DENSE}"
        )
    flat = np.ravel_multi_index(tuple(keys), shape)
    order = np.argsort(flat, kind="stable")
    again = np.flatnonzero(np.diff(flat[order]) == 0)
    if again.size:
        row = order[again + 1].min()
        first = np.argmax(flat == flat[row])
        at = tuple(int(k) for k in keys[:, row])
        raise culprit(row, "user", at, f"each (user, prb, slot) once; it is already on line {lines[first]}")
    if gains.size != total:
        missing = np.ones(total, dtype=bool)
        missing[flat] = False
        user, prb, slot = np.unravel_index(np.argmax(missing), shape)
        raise InvalidParameter(
            f"trace {path}: no line for user {user}, prb {prb}, slot {slot} ({missing.sum()} of {total} missing); "
            f"{_DENSE}"
        )
    return ratio[order].reshape(shape)


def _culprit(
    path: Path, line: int, position: dict[str, int], column: str, value: object, expected: str
) -> InvalidParameter:
    return InvalidParameter(
        f"trace {path}, line {line}, column {position[column] + 1} ({column}): {value!s}, expected {expected}"
    )


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    """Where user, prb, slot and the gain stand, in this order."""
    gain = [name for name in GAIN_NAMES if name in header]
    for name in CSV_COLUMNS:
        if name not in header:
            raise InvalidParameter(
                f"trace {path}, line 1: no column {name!r} in the header {header}; "
                "expected user, prb, slot and one of gain_db, gain"
            )
    if len(gain) != 1:
        raise InvalidParameter(
            f"trace {path}, line 1: expected exactly one of the columns 'gain_db' and 'gain' in the header {header}"
        )
    for name in (*CSV_COLUMNS, *gain):
        if header.count(name) > 1:
            raise InvalidParameter(f"trace {path}, line 1: column {name!r} appears {header.count(name)} times")
    return {name: header.index(name) for name in (*CSV_COLUMNS, *gain)}


def _parse(path: Path, reader: Any, width: int, position: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys (3, n), gains (n,) and line numbers (n,) of the table's body."""
    keys, gains, lines = array("q"), array("d"), array("q")
    for row in reader:
        if not any(row) or not any(cell.strip() for cell in row):
            continue
        if len(row) != width:
            raise InvalidParameter(f"trace {path}, line {reader.line_num}: {len(row)} columns, the header has {width}")
        for name, column in position.items():
            text = row[column].strip()
            try:
                if "_" in text:  # Python's own digit grouping is no number in a table
                    raise ValueError(text)
                if name in CSV_COLUMNS:
                    keys.append(int(text))
                else:
                    gains.append(float(text))
            except (ValueError, OverflowError):
                expected = "a whole number counted from 0" if name in CSV_COLUMNS else "a number"
                raise _culprit(path, reader.line_num, position, name, repr(text), expected) from None
        lines.append(reader.line_num)
    if not gains:
        raise InvalidParameter(f"trace {path}: no lines after the header")
    return np.array(keys).reshape(-1, 3).T, np.array(gains), np.array(lines)


def trace_gain(trace: Array, slot: Array, *, xp: Any = None) -> Array:
    """Gains of one slot, or of each market's own slot; beyond its end the trace starts again.

    Args:
        trace: gains, shape (users, PRBs, slots).
        slot: whole numbers >= 0, shape () or (B,).
        xp: array namespace, to skip the look-up.

    Returns:
        Gains, shape (users, PRBs) or (B, users, PRBs).
    """
    xp, gains = unify(xp, trace)
    users, prbs, slots = gains.shape
    index = xp.asarray(slot, **device_of(gains)) % slots
    taken = xp.take(gains, xp.reshape(index, (-1,)), axis=2)
    return xp.reshape(xp.permute_dims(taken, (2, 0, 1)), (*index.shape, users, prbs))
