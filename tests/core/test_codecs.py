"""Codecs on every array library: into the bounds, back again, and to the nearest level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketenvs import InvalidParameter
from marketenvs.arrays import Backend, to_numpy
from marketenvs.codecs import BoxCodec, GridCodec, MultiGridCodec, TableCodec

few = settings(max_examples=40, deadline=None, derandomize=True)
POSITIVE = st.tuples(st.floats(1e-3, 1e3), st.floats(0, 1e3))


def _bounds(low, width, k=1):
    return np.full((2, 3, k), low), np.full((2, 3, k), low + width)


@few
@given(bounds=POSITIVE, scale=st.sampled_from(["linear", "log"]), a=st.floats(-3, 3))
def test_box(bounds, scale, a):
    low, high = _bounds(*bounds)
    codec = BoxCodec(scale=scale)
    decided = codec.decode(np, np.full((2, 3, 1), a), low, high)
    assert np.all((decided >= low * (1 - 1e-12)) & (decided <= high * (1 + 1e-12)))
    if bounds[1] > 1e-6 * bounds[0]:
        assert codec.encode(np, decided, low, high) == pytest.approx(np.clip(a, -1, 1), abs=1e-6)
        ends = codec.decode(np, np.array([-1.0, 0.0, 1.0])[None, :, None], low[:1], high[:1])[0, :, 0]
        middle = (low + high)[0, 0, 0] / 2 if scale == "linear" else np.sqrt(low * high)[0, 0, 0]
        assert ends == pytest.approx([low[0, 0, 0], middle, high[0, 0, 0]], rel=1e-9)


def test_box_of_no_width():
    low, high = _bounds(2.0, 0.0)
    for scale in ("linear", "log"):
        codec = BoxCodec(scale=scale)
        assert np.all(codec.decode(np, np.full((2, 3, 1), 0.3), low, high) == 2.0)
        assert np.all(np.isfinite(codec.encode(np, low, low, high)))


@few
@given(bounds=POSITIVE, levels=st.integers(2, 30), scale=st.sampled_from(["linear", "log"]))
def test_grid(bounds, levels, scale):
    low, high = _bounds(bounds[0], bounds[1] + 1e-3)
    codec = GridCodec(levels, scale=scale)
    low, high = np.broadcast_to(low[:1, :1], (1, levels, 1)), np.broadcast_to(high[:1, :1], (1, levels, 1))
    every = codec.decode(np, np.arange(levels)[None], low, high)
    want = (
        np.linspace(low[0, 0, 0], high[0, 0, 0], levels)
        if scale == "linear"
        else np.geomspace(low[0, 0, 0], high[0, 0, 0], levels)
    )
    assert every[0, :, 0] == pytest.approx(want, rel=1e-9)
    assert np.array_equal(codec.encode(np, every, low, high)[0], np.arange(levels))
    assert np.array_equal(codec.candidates(low, high)[:, 0, 0, 0], every[0, :, 0])
    nudged = every * (1 + 1e-9)
    assert codec.snap(np, nudged, low, high) == pytest.approx(every, rel=1e-12)


def test_grid_snaps_to_the_nearest_level():
    low, high = _bounds(0.0, 10.0)
    codec = GridCodec(6)  # 0, 2, ..., 10
    decided = np.array([[0.9, 1.1, 9.9], [5.1, -4.0, 40.0]])[..., None]
    assert codec.snap(np, decided, low, high)[..., 0].tolist() == [[0, 2, 10], [6, 0, 10]]


def test_multi_grid():
    codec = MultiGridCodec((3, 5))
    low, high = _bounds(1.0, 4.0, 2)
    actions = np.array([[[0, 0], [1, 2], [2, 4]], [[2, 1], [0, 3], [1, 1]]])
    decided = codec.decode(np, actions, low, high)
    assert decided[0].tolist() == [[1, 1], [3, 3], [5, 5]]
    assert np.array_equal(codec.encode(np, decided, low, high), actions)
    assert np.array_equal(codec.snap(np, decided + 0.2, low, high), decided)
    assert codec.width == 2
    assert codec.action_shape == (2,)


def test_table():
    table = np.array([[0, 0, 3], [0, 3, 0], [1, 1, 1.0]])
    codec = TableCodec(table)
    low, high = _bounds(0.0, 3.0, 3)
    actions = np.array([[0, 1, 2], [2, 2, 0]])
    decided = codec.decode(np, actions, low, high)
    assert np.array_equal(decided[0], table)
    assert np.array_equal(codec.encode(np, decided, low, high), actions)
    assert np.array_equal(codec.snap(np, decided + 0.1, low, high), decided)
    assert codec.candidates(low, high).shape == (3, 1, 1, 3)


@pytest.mark.parametrize("library", ["torch", "array_api_strict", "jax"])
@pytest.mark.parametrize(
    ("codec", "actions"),
    [
        (BoxCodec(2), np.linspace(-1, 1, 12).reshape(2, 3, 2)),
        (BoxCodec(2, "log"), np.linspace(-1, 1, 12).reshape(2, 3, 2)),
        (GridCodec(7), np.arange(6).reshape(2, 3)),
        (GridCodec(7, "log"), np.arange(6).reshape(2, 3)),
        (MultiGridCodec((3, 4)), np.arange(12).reshape(2, 3, 2) % 3),
        (TableCodec([[1.0, 2.0], [3.0, 1.0], [1.0, 5.0]]), np.arange(6).reshape(2, 3) % 3),
    ],
    ids=lambda v: type(v).__name__,
)
def test_libraries_agree(library, codec, actions):
    pytest.importorskip(library)
    backend = Backend(library)
    low, high = _bounds(1.0, 4.0, codec.width)
    ours = codec.decode(np, actions, low, high)
    xp = backend.xp
    given = backend.asarray(actions) if actions.dtype.kind == "f" else xp.asarray(actions)
    theirs = codec.decode(xp, given, backend.asarray(low), backend.asarray(high))
    tolerance = 1e-5 if backend.dtype_name == "float32" else 1e-12
    assert to_numpy(theirs) == pytest.approx(ours, rel=tolerance)
    back = to_numpy(codec.encode(xp, theirs, backend.asarray(low), backend.asarray(high)))
    assert back == pytest.approx(actions, abs=tolerance)
    assert to_numpy(codec.snap(xp, theirs, backend.asarray(low), backend.asarray(high))) == pytest.approx(
        ours, rel=tolerance
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: BoxCodec(scale="cubic"),
        lambda: GridCodec(1),
        lambda: MultiGridCodec((3, 1)),
        lambda: MultiGridCodec(()),
        lambda: TableCodec([1.0, 2.0]),
        lambda: TableCodec(np.zeros((0, 2))),
    ],
)
def test_bad_codecs(make):
    with pytest.raises(InvalidParameter):
        make()
