"""The same numbers from NumPy, PyTorch, JAX (jitted) and array-api-strict, in both precisions; finite gradients."""

import math
from contextlib import nullcontext

import numpy as np
import pytest

from marketenvs import channel
from marketenvs.arrays import to_numpy

LIBRARIES = ("numpy", "torch", "jax", "array_api_strict")
USERS = 257
_RNG = np.random.default_rng(8)
INPUTS = {
    "uniform": _RNG.random((3, USERS, 2)),
    "distance": np.geomspace(10.0, 550.0, USERS) * np.ones((3, 1)),
    "normal": _RNG.standard_normal((3, USERS)),
    "chance": _RNG.random((3, USERS)),
    "ratio": np.geomspace(1e-6, 1e7, USERS) * np.ones((3, 1)),
    "wide": np.linspace(-80.0, 80.0, USERS) * np.ones((3, 1)),
    "rate": np.linspace(0.0, 2000.0, USERS) * np.ones((3, 1)),
    "real": _RNG.random((3, USERS)) < 0.7,
    "interference": np.linspace(-120.0, -80.0, USERS) * np.ones((3, 1)),
    "trace": _RNG.random((4, 3, 5)),
    "slot": np.array([0, 4, 5, 12]),
}
_DROP = channel.radio_preset("iiot")
_MIXED = channel.radio_preset(
    "iiot",
    scenario="inf_sl",
    los="prob",
    frequency_mhz=3500.0,
    shadowing_std_db=None,
    efficiency_cap=7.40625,
    gap_db=3.0,
)
CASES = {
    **{
        f"path loss {model}": lambda v, xp, model=model: channel.path_loss_db(v["distance"], 3500.0, model, xp=xp)
        for model in channel.PATH_LOSS_MODELS
    },
    **{
        f"line of sight {name}": lambda v, xp, name=name: channel.los_probability(v["distance"], name, xp=xp)
        for name in ("umi", "inf_sl", "inf_dl", "inf_sh", "inf_dh")
    },
    "measured efficiency": lambda v, xp: _DROP.trace_efficiency(1e-9 * v["trace"], xp=xp),
    "square": lambda v, xp: channel.distance_m(channel.drop_square(v["uniform"], 500.0, xp=xp), 10.0, xp=xp),
    "disc": lambda v, xp: channel.drop_disc(v["uniform"], 500.0, 10.0, angle_to_rad=1.5, xp=xp),
    "noise": lambda v, xp: channel.noise_dbm(v["distance"], 9.0, xp=xp),
    "power split": lambda v, xp: channel.power_per_prb_dbm(v["wide"], 50, xp=xp),
    "power sum": lambda v, xp: channel.total_power_dbm(v["interference"], xp=xp),
    "SINR": lambda v, xp: channel.sinr(
        10.0, v["distance"] ** 0.5 + 80.0, -121.0, shadowing_db=v["normal"], fading=v["chance"], xp=xp
    ),
    "SINR with interference": lambda v, xp: channel.sinr(
        10.0, 100.0, -121.0, fading=v["chance"], interference_dbm=v["interference"], xp=xp
    ),
    "efficiency": lambda v, xp: channel.spectral_efficiency(v["ratio"], cap=7.4, gap_db=2.0, floor=0.1, xp=xp),
    "ergodic": lambda v, xp: channel.spectral_efficiency(v["ratio"], "rayleigh-ergodic", xp=xp),
    "ergodic, capped": lambda v, xp: channel.spectral_efficiency(v["ratio"], "rayleigh-ergodic", 7.40625, xp=xp),
    "scaled expint": lambda v, xp: channel.scaled_expint(v["ratio"], xp=xp),
    "rate": lambda v, xp: channel.rate_kbps(v["chance"], 180e3, v["rate"], 50, xp=xp),
    "tenant": lambda v, xp: channel.tenant_rate_kbps_per_prb(v["chance"] + 0.1, 180e3, active=v["real"], xp=xp),
    "delay": lambda v, xp: channel.mm1_delay_ms(v["rate"], 2048, 98.0, xp=xp),
    "satisfaction": lambda v, xp: channel.qos_satisfaction(v["rate"], 500, 6, xp=xp),
    "delay satisfaction": lambda v, xp: channel.qos_satisfaction(
        channel.mm1_delay_ms(v["rate"], 2048, 98.0, xp=xp), 10.0, 6.0, "delay", xp=xp
    ),
    "logistic": lambda v, xp: channel.logistic(v["wide"], xp=xp),
    "sub-band": lambda v, xp: channel.subband_rate(v["rate"], v["ratio"], 9.6, xp=xp),
    "statistical sub-band": lambda v, xp: channel.subband_rate(v["rate"], v["ratio"], fading="rayleigh-ergodic", xp=xp),
    "fading": lambda v, xp: channel.rayleigh_power(v["chance"], xp=xp),
    "AR(1)": lambda v, xp: channel.next_shadowing_db(v["wide"], v["normal"], 8.0, v["chance"], xp=xp),
    "trace": lambda v, xp: channel.trace_gain(v["trace"], v["slot"], xp=xp),
    "radio": lambda v, xp: _DROP.prb_rate_kbps(
        _DROP.sinr(_DROP.loss_db(_DROP.distance_m(_DROP.drop(v["uniform"], xp=xp), xp=xp), v["normal"], xp=xp), xp=xp),
        xp=xp,
    ),
    "radio, mixed": lambda v, xp: _MIXED.prb_rate_kbps(
        _MIXED.sinr(_MIXED.loss_db(v["distance"], v["normal"], v["chance"], xp=xp), v["ratio"], xp=xp), xp=xp
    ),
}


def in_library(name: str, dtype: str, case, *, look_up: bool):
    """Run a case in one library and return it as NumPy, with the library's own array kept beside it."""
    if name == "numpy":
        import array_api_compat.numpy as xp
    elif name == "torch":
        xp = pytest.importorskip("array_api_compat.torch")
    elif name == "jax":
        xp = pytest.importorskip("jax.numpy")
    else:
        xp = pytest.importorskip("array_api_strict")
    values = {}
    for key, value in INPUTS.items():
        kind = getattr(xp, dtype) if value.dtype.kind == "f" else None
        values[key] = xp.asarray(value.copy(), dtype=kind)
    namespace = None if look_up else xp
    if name == "jax":
        import jax

        return jax.jit(lambda v: case(v, namespace))(values)
    return case(values, namespace)


def precision(name: str, dtype: str):
    if name == "jax" and dtype == "float64":
        jax = pytest.importorskip("jax")
        return jax.enable_x64(True)
    return nullcontext()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_agree(name, case):
    expected = CASES[case](INPUTS, None)
    assert np.all(np.isfinite(expected)) or case == "delay"
    for dtype, look_up in (("float64", True), ("float64", False), ("float32", False)):
        with precision(name, dtype):
            got = in_library(name, dtype, CASES[case], look_up=look_up)
            assert dtype in str(got.dtype), "precision must follow the arrays, not the scalars beside them"
            got = to_numpy(got)
        if dtype == "float64":
            np.testing.assert_allclose(got, expected, rtol=2e-12, atol=1e-13)
        else:
            # dB values near 100 become ratios: one float32 ulp of the former is 1e-6 relative of the latter
            close = np.isclose(got, expected, rtol=2e-4, atol=1e-5 * np.nanmax(np.abs(expected[np.isfinite(expected)])))
            same_side = np.isinf(got) == np.isinf(expected)
            assert np.mean(close & same_side) > 0.995, case  # a user on a threshold may fall on its other side


@pytest.mark.parametrize("case", ["radio", "radio, mixed", "ergodic, capped", "delay satisfaction"])
def test_batches_do_not_mix(case):
    """Market i of a batch gets the same bits as market i alone."""
    whole = CASES[case](INPUTS, None)
    for i in range(3):
        alone = {k: v[i : i + 1] if v.shape[0] == 3 else v for k, v in INPUTS.items()}
        np.testing.assert_array_equal(CASES[case](alone, None)[0], whole[i])


def test_scalars_alone_are_numpy_float64():
    value = channel.path_loss_db(100, 2000)
    assert np.asarray(value).dtype == np.float64
    assert np.asarray(channel.qos_satisfaction(1, 2)).dtype == np.float64
    assert np.asarray(channel.qos_satisfaction(np.float32(1.0), 2)).dtype == np.float32
    assert channel.qos_satisfaction(np.ones(2), np.float32(2.0)).dtype == np.float64
    assert channel.qos_satisfaction(np.ones(2, dtype=np.float32), np.float64(2.0)).dtype == np.float32


def test_mixed_libraries_and_lists_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError):
        channel.rate_kbps(np.ones(2), torch.ones(2))
    with pytest.raises(TypeError):
        channel.path_loss_db([1.0, 2.0], 2000.0)


EDGES = {
    "ergodic": (lambda x: channel.spectral_efficiency(x, "rayleigh-ergodic"), [0.0, 1e-6, 0.4, 1.0, 1e7]),
    "ergodic, capped": (lambda x: channel.spectral_efficiency(x, "rayleigh-ergodic", 7.4), [0.0, 1e-6, 0.4, 1.0, 1e7]),
    "delay": (lambda x: channel.qos_satisfaction(channel.mm1_delay_ms(x, 2048.0, 98.0), 10.0, 6.0, "delay"), None),
    "logistic": (channel.logistic, [-700.0, -1.0, 0.0, 1.0, 700.0]),
    "sub-band": (lambda x: channel.subband_rate(x, 1e6), [0.0, 1.0, 10.0]),
    "tenant": (lambda x: channel.tenant_rate_kbps_per_prb(x, 180e3), [0.0, 1.0, 2.0]),
}


@pytest.mark.parametrize("edge", EDGES)
def test_gradients_are_finite(edge):
    torch = pytest.importorskip("torch")
    function, points = EDGES[edge]
    x = torch.tensor(points or [0.0, 100.0, 200.704, 250.0, 1e4], dtype=torch.float64, requires_grad=True)
    function(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    if edge == "logistic":
        assert x.grad[2] == 0.25
    if edge == "ergodic":  # d/ds = (x - x^2 e^x E1)/ln 2 with x = 1/s, here at s = 1
        expected = (1 - channel.scaled_expint(1.0)) / math.log(2)
        assert float(x.grad[3]) == pytest.approx(expected, rel=1e-11)
