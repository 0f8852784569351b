"""Bring arrays and Python scalars to one array library, one floating dtype, one device."""

from __future__ import annotations

from typing import Any

import array_api_compat
import array_api_compat.numpy as numpy_namespace
import numpy as np

from marketenvs.arrays import Array


def device_of(array: Array) -> dict[str, Any]:
    """Keyword that creates a new array beside `array`; only PyTorch needs it, others place new arrays alone."""
    return {"device": array.device} if array_api_compat.is_torch_array(array) else {}


def unify(xp: Any, *values: Array) -> tuple[Any, ...]:
    """Return the array namespace followed by `values` as floating arrays of one dtype.

    Python and NumPy scalars never decide the library or the precision: they take both from the arrays beside them. If
    there are none, NumPy scalars keep their own precision and Python scalars become NumPy float64. Integer arrays
    become floating; `None` passes through.

    Args:
        xp: array-API namespace, or None to find it from the arrays.
        values: arrays, Python scalars or None.

    Raises:
        TypeError: arrays of several libraries, or an object that is no array (a list, a string).
    """
    arrays = [v for v in values if v is not None and not isinstance(v, (int, float, np.generic))]
    if xp is None:
        xp = array_api_compat.array_namespace(*arrays) if arrays else numpy_namespace
    floating = [a.dtype for a in arrays if xp.isdtype(a.dtype, "real floating")]
    if not arrays and xp is numpy_namespace:  # NumPy turns 0-d results into scalars: those still carry their precision
        floating = [v.dtype for v in values if isinstance(v, np.floating)]
    if floating:
        dtype = floating[0]
        for other in floating[1:]:
            if other != dtype:
                dtype = xp.result_type(dtype, other)
    else:
        dtype = xp.asarray(0.0).dtype  # the library's own default: float64 in NumPy, float32 in PyTorch
    where = device_of(arrays[0]) if arrays else {}
    unified: list[Any] = []
    for value in values:
        if value is None:
            unified.append(None)
        elif isinstance(value, (int, float, np.generic)):
            unified.append(xp.asarray(float(value), dtype=dtype, **where))
        elif value.dtype != dtype:
            unified.append(xp.astype(value, dtype))
        else:
            unified.append(value)
    return (xp, *unified)
