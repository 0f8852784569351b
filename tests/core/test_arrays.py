"""Random words, draws and distributions: right against JAX's own generator, the same everywhere, and right in law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from marketenvs import Choice, InvalidParameter, LogUniform, Noise, Uniform
from marketenvs.arrays import BACKENDS, Backend, to_numpy

few = settings(max_examples=25, deadline=None, derandomize=True)
WORD = st.integers(0, 2**32 - 1)


def _backend(name):
    pytest.importorskip(name)
    return Backend(name, "float64" if name != "jax" else "float32")


def test_threefry_known_answers():
    """The published vectors of Random123 (kat_vectors: threefry2x32, 20 rounds)."""
    from marketenvs.arrays import _threefry_numpy

    ones = 0xFFFFFFFF
    vectors = [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((ones, ones), (ones, ones), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ]
    for key, counter, want in vectors:
        k0, k1, x0, x1 = (np.array([v], np.uint32) for v in (*key, *counter))
        got = _threefry_numpy(k0, k1, x0, x1)
        assert tuple(int(v[0]) for v in got) == want


@few
@given(key=st.tuples(WORD, WORD))
def test_words_are_jaxs_threefry(key):
    random = pytest.importorskip("jax.extend.random")
    import jax.numpy as jnp

    half = 6  # one shape: JAX compiles for each
    count = np.concatenate((np.arange(half), np.zeros(half))).astype(np.uint32)
    want = np.asarray(random.threefry_2x32(jnp.asarray(key, jnp.uint32), jnp.asarray(count)))
    got = Backend("numpy").words(np.array([key], np.uint32), 2 * half)
    assert np.array_equal(got[0], want)


@pytest.mark.parametrize("name", [b for b in BACKENDS if b != "numpy"])
def test_every_library_draws_the_same_words(name):
    numpy, other = Backend("numpy"), _backend(name)
    seeds, index = np.array([0, 1, 2**64 - 1, 77], np.uint64), np.array([0, 5, 2**32 - 1, 3])
    mine, theirs = numpy.keys(seeds, index, 3), other.keys(seeds, index, 3)
    assert np.array_equal(mine, to_numpy(theirs).astype(np.uint32))
    rounds = np.array([0, 1, 2, 2**31 - 1], np.int32)
    mine = numpy.fold(mine, numpy.integers(rounds), 13)
    theirs = other.fold(theirs, other.integers(rounds), 13)
    assert np.array_equal(mine, to_numpy(theirs).astype(np.uint32))
    for count in (1, 2, 7):
        assert np.array_equal(numpy.words(mine, count), to_numpy(other.words(theirs, count)).astype(np.uint32))


@few
@given(seed=st.integers(0, 2**64 - 1), batch=st.integers(1, 40), i=st.integers(0, 39), count=st.integers(1, 200))
def test_a_market_draws_the_same_in_every_batch(seed, batch, i, count):
    backend, i = Backend("numpy"), i % batch
    keys = backend.keys(np.full(batch, seed, np.uint64), np.arange(batch), 1)
    alone = backend.keys(np.array([seed], np.uint64), np.array([i]), 1)
    assert np.array_equal(keys[i : i + 1], alone)
    assert np.array_equal(backend.words(keys, count)[i], backend.words(alone, count)[0])


def test_blocks_do_not_show():
    """More words than a cache block holds, in fewer and more markets than fit one."""
    backend = Backend("numpy")
    keys = backend.keys(np.full(300, 5, np.uint64), np.arange(300), 1)
    many = backend.words(keys, 1001)
    assert np.array_equal(
        many[[0, 150, 299]], np.concatenate([backend.words(keys[i : i + 1], 1001) for i in (0, 150, 299)])
    )
    assert len(np.unique(many)) > 0.9999 * many.size


@pytest.mark.parametrize(
    ("kind", "law"), [("uniform", stats.uniform()), ("normal", stats.norm()), ("exponential", stats.expon())]
)
def test_draws_follow_their_law(kind, law):
    backend = Backend("numpy")
    keys = backend.keys(np.full(2000, 8, np.uint64), np.arange(2000), 2)
    drawn = backend.draw(keys, {"before": Noise("uniform", (3,)), "x": Noise(kind, (5, 3)), "after": Noise("normal")})
    assert drawn["x"].shape == (2000, 5, 3)
    assert drawn["after"].shape == (2000,)
    assert stats.kstest(drawn["x"].ravel(), law.cdf).pvalue > 1e-3
    correlation = np.corrcoef(drawn["x"].reshape(2000, -1), rowvar=False)
    assert np.abs(correlation - np.eye(15)).max() < 5 / np.sqrt(2000)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniforms_stay_inside_the_open_interval(dtype):
    backend = Backend("numpy", dtype)
    edge = backend.unit(np.array([0, 1, 2**32 - 1], np.uint32))
    assert edge.dtype == dtype
    assert np.all((edge > 0) & (edge < 1))
    assert np.all(np.isfinite(np.log(edge)))


@few
@given(low=st.floats(-1e6, 1e6), width=st.floats(0, 1e6), u=st.floats(1e-9, 1 - 1e-9))
def test_uniform_quantiles(low, width, u):
    law = Uniform(low, low + width)
    value = float(law.quantile(np, np.array([u]))[0])
    assert law.support[0] <= value <= law.support[1] + 1e-9 * abs(law.support[1])
    assert value == pytest.approx(low + (law.high - low) * u, rel=1e-12, abs=1e-9)


def test_other_quantiles():
    law = LogUniform(1.0, 100.0)
    assert law.quantile(np, np.array([0.25, 0.5])) == pytest.approx([10**0.5, 10.0], rel=1e-14)
    choice = Choice((3, 1, 2))
    u = (np.arange(300) + 0.5) / 300
    assert np.array_equal(np.bincount(choice.quantile(np, u).astype(int))[1:], [100, 100, 100])
    assert choice.support == (1.0, 3.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(2, 1), r"Uniform\(2, 1\): needs finite bounds with low <= high"),
        (lambda: Uniform(float("nan"), 1), "finite"),
        (lambda: Uniform(0, float("inf")), "finite"),
        (lambda: LogUniform(0, 1), "needs low > 0"),
        (lambda: LogUniform(3, 1), "low <= high"),
        (lambda: Choice(()), "at least one value"),
        (lambda: Backend("nunpy"), "did you mean 'numpy'"),
        (lambda: Backend("numpy", "float16"), "float64"),
    ],
)
def test_bad_laws_and_libraries(make, message):
    with pytest.raises(InvalidParameter, match=message):
        make()


@pytest.mark.parametrize("law", [lambda: Uniform("a", 1), lambda: Uniform(None, 1), lambda: Choice(("x",))])
def test_laws_of_things_that_are_no_numbers(law):
    with pytest.raises((InvalidParameter, ValueError, TypeError)):
        law()


def test_iterate_runs_in_order():
    assert Backend("numpy").iterate(4, lambda i, c: c * 10 + i, 7) == 70123
    pytest.importorskip("jax")
    assert int(Backend("jax").iterate(4, lambda i, c: c * 10 + i, 7)) == 70123


def test_jax_needs_telling_before_float64():
    jax = pytest.importorskip("jax")
    if jax.config.jax_enable_x64:
        pytest.skip("64-bit types are already on")
    with pytest.raises(InvalidParameter, match="jax_enable_x64"):
        Backend("jax", "float64")
    with jax.enable_x64(True):
        assert Backend("jax").dtype_name == "float64"


def test_backends_pickle():
    import pickle

    for name in ("numpy", "torch", "array_api_strict"):
        again = pickle.loads(pickle.dumps(_backend(name)))
        assert (again.name, again.dtype_name) == (name, "float64")
