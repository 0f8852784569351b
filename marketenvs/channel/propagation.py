"""Where users stand and what the air takes: drops, path loss, line of sight, shadowing, Rayleigh fading.

All functions are pure and batched. Randomness enters as arrays of uniforms on [0, 1) or standard normals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from marketenvs.channel._namespace import Array, unify
from marketenvs.errors import InvalidParameter, UnknownName, nearest

SPEED_OF_LIGHT_M_PER_S = 3.0e8
"""The rounded value TR 38.901 itself prescribes for its break-point distance."""


@dataclass(frozen=True)
class PathLossModel:
    """Constants and validity range of one path-loss model.

    Attributes:
        description: the formula with d in metres (3-D distance where heights are given), f in GHz unless said.
        bs_height_m: default base-station height; None where the model uses the distance as given.
        user_height_m: default user height.
        shadowing_std_db: the model's own log-normal shadowing deviation, dB.
        frequency_mhz: valid carriers (lowest, highest).
        distance_m: valid distances (lowest, highest); 3-D for InF, ground distance for the others.
    """

    description: str
    bs_height_m: float | None = None
    user_height_m: float = 1.5
    shadowing_std_db: float = 0.0
    frequency_mhz: tuple[float, float] = (0.0, math.inf)
    distance_m: tuple[float, float] = (0.0, math.inf)


_TR38901_MHZ = (500.0, 100_000.0)


def _inf(description: str, bs_height_m: float, shadowing_std_db: float) -> PathLossModel:
    return PathLossModel(description, bs_height_m, 1.5, shadowing_std_db, _TR38901_MHZ, (1.0, 600.0))


PATH_LOSS_MODELS: dict[str, PathLossModel] = {
    "fspl": PathLossModel("20 lg d + 20 lg f_MHz - 27.55 (free space, the papers' rounded constant)"),
    "umi_los": PathLossModel(
        "32.4 + 21 lg d + 20 lg f up to the break point, then 32.4 + 40 lg d + 20 lg f - 9.5 lg(d_BP^2 + (hB-hU)^2)",
        10.0, 1.5, 4.0, _TR38901_MHZ, (10.0, 5000.0),
    ),
    "umi_nlos": PathLossModel(
        "max(umi_los, 22.4 + 35.3 lg d + 21.3 lg f - 0.3 (hU - 1.5))",
        10.0, 1.5, 7.82, _TR38901_MHZ, (10.0, 5000.0),
    ),
    "uma_nlos": PathLossModel(
        "13.54 + 39.08 lg d + 20 lg f - 0.6 (hU - 1.5)", 25.0, 1.5, 6.0, _TR38901_MHZ, (10.0, 5000.0)
    ),
    # line of sight: implementations carry 4.0 or 4.3 dB of shadowing; `RadioConfig.shadowing_std_db` sets another
    "inf_los": _inf("31.84 + 21.5 lg d + 19 lg f", 8.0, 4.0),
    "inf_sl": _inf("max(inf_los, 33 + 25.5 lg d + 20 lg f)", 1.5, 5.7),
    "inf_dl": _inf("max(inf_sl, 18.6 + 35.7 lg d + 20 lg f)", 1.5, 7.2),
    "inf_sh": _inf("max(inf_los, 32.4 + 23 lg d + 20 lg f)", 8.0, 5.9),
    "inf_dh": _inf("max(inf_los, 33.63 + 21.9 lg d + 20 lg f)", 8.0, 4.0),
    "hotzone_nlos": PathLossModel(
        "145.4 + 37.5 lg d_km, whatever the carrier (two-tier bidding's; the shape of TR 36.814's at 2 GHz)"
    ),
}  # fmt: skip
"""Every `model` that `path_loss_db` takes. 3GPP TR 38.901 Table 7.4.1-1 unless the description says otherwise."""

# (constant, per decade of distance, per decade of f_GHz) of the single-slope models, before the NLOS maximum
_SLOPES = {
    "inf_los": (31.84, 21.5, 19.0),
    "inf_sl": (33.0, 25.5, 20.0),
    "inf_dl": (18.6, 35.7, 20.0),
    "inf_sh": (32.4, 23.0, 20.0),
    "inf_dh": (33.63, 21.9, 20.0),
}
_NLOS_FLOOR = {"inf_sl": ("inf_los",), "inf_dl": ("inf_los", "inf_sl"), "inf_sh": ("inf_los",), "inf_dh": ("inf_los",)}


def path_loss_model(model: str) -> PathLossModel:
    """Constants of a named path-loss model.

    Raises:
        UnknownName: unknown name (the message names the nearest valid one).
    """
    if model not in PATH_LOSS_MODELS:
        raise UnknownName(f"unknown path-loss model {model!r}; {nearest(model, PATH_LOSS_MODELS)}")
    return PATH_LOSS_MODELS[model]


def path_loss_db(
    distance_m: Array,
    frequency_mhz: Array,
    model: str = "fspl",
    *,
    bs_height_m: Array | None = None,
    user_height_m: Array | None = None,
    xp: Any = None,
) -> Array:
    """Median path loss in dB.

    Models with heights (`umi_*`, `uma_nlos`, `inf_*`) take the GROUND distance and form the 3-D distance themselves;
    `fspl` and `hotzone_nlos` use the distance as given. Ranges are not checked here (this is a traced rule): see
    `validate_link`. A distance of 0 gives -inf in the models without heights: drop users with a minimum distance.

    Args:
        distance_m: distance in metres, any shape.
        frequency_mhz: carrier in MHz, broadcastable.
        model: a key of `PATH_LOSS_MODELS`.
        bs_height_m: base-station height in metres; None takes the model's.
        user_height_m: user height in metres; None takes the model's.
        xp: array namespace, to skip the look-up.

    Returns:
        Loss in dB (positive), broadcast shape.

    Raises:
        UnknownName: unknown `model`.
    """
    constants = path_loss_model(model)
    height_bs = bs_height_m if bs_height_m is not None else constants.bs_height_m
    height_user = user_height_m if user_height_m is not None else constants.user_height_m
    xp, d, f_mhz, h_bs, h_user = unify(xp, distance_m, frequency_mhz, height_bs, height_user)

    if model == "fspl":
        return 20.0 * xp.log10(d) + (20.0 * xp.log10(f_mhz) - 27.55)
    if model == "hotzone_nlos":
        return 145.4 + 37.5 * (xp.log10(d) - 3.0) + xp.zeros_like(f_mhz)  # the carrier only gives its shape

    lg_f = xp.log10(f_mhz) - 3.0
    lg_d = 0.5 * xp.log10(d * d + (h_bs - h_user) ** 2)
    if model == "uma_nlos":
        return 13.54 + 39.08 * lg_d + 20.0 * lg_f - 0.6 * (h_user - 1.5)
    if model in ("umi_los", "umi_nlos"):
        break_point = (4e6 / SPEED_OF_LIGHT_M_PER_S) * (h_bs - 1.0) * (h_user - 1.0) * f_mhz
        near = 32.4 + 21.0 * lg_d + 20.0 * lg_f
        far = 32.4 + 40.0 * lg_d + 20.0 * lg_f - 9.5 * xp.log10(break_point**2 + (h_bs - h_user) ** 2)
        los = xp.where(d <= break_point, near, far)
        if model == "umi_los":
            return los
        return xp.maximum(los, 22.4 + 35.3 * lg_d + 21.3 * lg_f - 0.3 * (h_user - 1.5))

    def slope(name: str) -> Array:
        constant, per_distance, per_frequency = _SLOPES[name]
        return constant + per_distance * lg_d + per_frequency * lg_f

    loss = slope(model)
    for floor in _NLOS_FLOOR.get(model, ()):
        loss = xp.maximum(loss, slope(floor))
    return loss


@dataclass(frozen=True)
class Clutter:
    """Indoor-factory clutter (TR 38.901 Table 7.2-4).

    Attributes:
        density: share of the floor covered by clutter, in (0, 1).
        height_m: effective clutter height.
        size_m: typical clutter size.

    Raises:
        InvalidParameter: a value outside its range.
    """

    density: float
    height_m: float
    size_m: float

    def __post_init__(self) -> None:
        if not 0.0 < self.density < 1.0:
            raise InvalidParameter(f"Clutter.density={self.density!r}: expected a share strictly between 0 and 1")
        for name in ("height_m", "size_m"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise InvalidParameter(f"Clutter.{name}={value!r}: expected > 0 and finite")


CLUTTER = {
    "inf_sl": Clutter(0.2, 2.0, 10.0),
    "inf_dl": Clutter(0.6, 6.0, 2.0),
    "inf_sh": Clutter(0.2, 2.0, 10.0),
    "inf_dh": Clutter(0.6, 6.0, 2.0),
}
"""Default clutter per scenario, the values of TR 38.901's calibration (Table 7.8-7)."""


def los_probability(
    distance_m: Array,
    scenario: str = "umi",
    *,
    clutter: Clutter | None = None,
    bs_height_m: Array | None = None,
    user_height_m: Array | None = None,
    xp: Any = None,
) -> Array:
    """Probability of line of sight (TR 38.901 Table 7.4.2-1).

    UMi: 1 up to 18 m, then 18/d + exp(-d/36)(1 - 18/d). InF: exp(-d/k) with k = -size/ln(1 - density), for the high
    base stations (`inf_sh`, `inf_dh`) times (hB - hU)/(clutter height - hU), which needs users below the clutter.

    Args:
        distance_m: ground distance in metres, any shape.
        scenario: "umi", "inf_sl", "inf_dl", "inf_sh" or "inf_dh".
        clutter: factory clutter; None takes `CLUTTER[scenario]`.
        bs_height_m: base-station height in metres; None takes the model's (used by `inf_sh`, `inf_dh`).
        user_height_m: user height in metres; None takes the model's.
        xp: array namespace, to skip the look-up.

    Raises:
        UnknownName: unknown scenario.
    """
    if scenario == "umi":
        xp, d = unify(xp, distance_m)
        beyond = 18.0 / xp.maximum(d, xp.full_like(d, 18.0))  # 1 inside 18 m, which makes the probability 1 there
        return beyond + xp.exp(-d / 36.0) * (1.0 - beyond)
    if scenario not in CLUTTER:
        raise UnknownName(f"no line-of-sight law for scenario {scenario!r}; {nearest(scenario, ['umi', *CLUTTER])}")
    constants = PATH_LOSS_MODELS[scenario]
    height_bs = bs_height_m if bs_height_m is not None else constants.bs_height_m
    height_user = user_height_m if user_height_m is not None else constants.user_height_m
    xp, d, h_bs, h_user = unify(xp, distance_m, height_bs, height_user)
    factory = clutter if clutter is not None else CLUTTER[scenario]
    reach_m = -factory.size_m / math.log1p(-factory.density)
    if scenario in ("inf_sh", "inf_dh"):
        return xp.exp(-d / (reach_m * (h_bs - h_user) / (factory.height_m - h_user)))
    return xp.exp(-d / reach_m)


def drop_square(uniform: Array, side_m: Array, *, xp: Any = None) -> Array:
    """Users uniform in a square, base station at its centre.

    Args:
        uniform: uniforms on [0, 1), shape (..., 2).
        side_m: side in metres, broadcastable to (..., 2).
        xp: array namespace, to skip the look-up.

    Returns:
        Positions (x, y) in metres relative to the base station, shape (..., 2).
    """
    _, u, side = unify(xp, uniform, side_m)
    return (u - 0.5) * side


def drop_disc(
    uniform: Array,
    radius_m: Array,
    min_distance_m: Array = 0.0,
    *,
    angle_from_rad: Array = 0.0,
    angle_to_rad: Array = 2.0 * math.pi,
    xp: Any = None,
) -> Array:
    """Users uniform (by area) in a disc, or in a ring or sector of it, base station at the centre.

    Args:
        uniform: uniforms on [0, 1), shape (..., 2): first radius, then angle.
        radius_m: outer radius in metres, broadcastable to (...).
        min_distance_m: inner radius in metres; users are uniform in the ring between the two.
        angle_from_rad: start of the sector (quadrant m of two-tier bidding: m pi/2), broadcastable to (...).
        angle_to_rad: end of the sector.
        xp: array namespace, to skip the look-up.

    Returns:
        Positions (x, y) in metres, shape (..., 2).
    """
    xp, u, outer, inner, start, end = unify(xp, uniform, radius_m, min_distance_m, angle_from_rad, angle_to_rad)
    radius = xp.sqrt(inner * inner + u[..., 0] * (outer * outer - inner * inner))
    angle = start + u[..., 1] * (end - start)
    return xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=-1)


def ring_distances_m(count: int, radius_m: float, *, xp: Any = None) -> Array:
    """Deterministic drop: user i of `count` at radius sqrt((i + 1/2)/count), equal areas between neighbours.

    The preset `positions="rings"` of two-tier bidding. Shape (count,), metres, ascending.
    """
    xp, _ = unify(xp, 0.0)
    return radius_m * xp.sqrt((xp.arange(count, dtype=xp.asarray(0.0).dtype) + 0.5) / count)


def distance_m(position_m: Array, min_distance_m: Array = 0.0, *, xp: Any = None) -> Array:
    """Distance from the base station in metres, never below `min_distance_m`; positions (..., 2) give shape (...)."""
    xp, position, least = unify(xp, position_m, min_distance_m)
    x, y = position[..., 0], position[..., 1]
    return xp.maximum(xp.sqrt(x * x + y * y), least)


def shadowing_db(normal: Array, std_db: Array, *, xp: Any = None) -> Array:
    """Static log-normal shadowing in dB: standard normals times the deviation. A positive value helps the user."""
    _, z, sigma = unify(xp, normal, std_db)
    return z * sigma


def shadowing_correlation(moved_m: Array, decorrelation_m: Array, *, xp: Any = None) -> Array:
    """Correlation exp(-moved/decorrelation) of shadowing after a user moved that far (Gudmundson)."""
    xp, moved, reach = unify(xp, moved_m, decorrelation_m)
    return xp.exp(-moved / reach)


def next_shadowing_db(previous_db: Array, normal: Array, std_db: Array, correlation: Array, *, xp: Any = None) -> Array:
    """One AR(1) step of shadowing that keeps N(0, std^2) stationary.

    Args:
        previous_db: shadowing of the previous round, dB.
        normal: fresh standard normals, same shape.
        std_db: stationary deviation, dB.
        correlation: correlation of neighbouring rounds in [0, 1], see `shadowing_correlation`.
        xp: array namespace, to skip the look-up.
    """
    xp, previous, z, sigma, rho = unify(xp, previous_db, normal, std_db, correlation)
    return rho * previous + sigma * xp.sqrt(1.0 - rho * rho) * z


def rayleigh_power(uniform: Array, *, xp: Any = None) -> Array:
    """Rayleigh power fading |g|^2 ~ Exp(1) from uniforms on [0, 1): -ln(1 - u), so that u = 0 is safe."""
    xp, u = unify(xp, uniform)
    return -xp.log1p(-u)


def validate_link(
    distance_m: Any,
    frequency_mhz: Any,
    model: str = "fspl",
    *,
    bs_height_m: float | None = None,
    user_height_m: float | None = None,
) -> None:
    """Check distances and carrier against a path-loss model, outside traced code.

    Args:
        distance_m: concrete distances in metres (anything `numpy.asarray` takes), as given to `path_loss_db`.
        frequency_mhz: carrier(s) in MHz.
        model: key of `PATH_LOSS_MODELS`.
        bs_height_m: base-station height; None takes the model's.
        user_height_m: user height; None takes the model's.

    Raises:
        UnknownName: unknown model.
        InvalidParameter: a distance that is negative, zero, not finite or outside the model's range (the first one is
            named with its index); a carrier outside the range; heights the model cannot take.
    """
    constants = path_loss_model(model)
    carrier = np.atleast_1d(np.asarray(frequency_mhz, dtype=np.float64))
    low, high = constants.frequency_mhz
    bad = ~(np.isfinite(carrier) & (carrier > 0.0) & (carrier >= low) & (carrier <= high))
    if bad.any():
        raise InvalidParameter(
            f"carrier {carrier[bad][0]:.10g} MHz: model {model!r} covers "
            + (f"{low:g} to {high:g} MHz" if math.isfinite(high) else "finite carriers > 0")
        )
    height_bs = constants.bs_height_m if bs_height_m is None else bs_height_m
    height_user = constants.user_height_m if user_height_m is None else user_height_m
    if model.startswith("umi") and not (height_bs is not None and height_bs > 1.0 and height_user > 1.0):
        raise InvalidParameter(
            f"heights {height_bs!r} m (base station) and {height_user!r} m (user): model {model!r} needs both above 1 m"
        )
    ground = np.atleast_1d(np.asarray(distance_m, dtype=np.float64))
    bad = ~(np.isfinite(ground) & (ground >= 0.0))
    reach = ground
    if model.startswith("inf_") and height_bs is not None:  # its range is stated for the 3-D distance
        reach = np.hypot(ground, height_bs - height_user)
    low, high = constants.distance_m
    bad |= (reach <= 0.0) | (reach < low) | (reach > high)
    if bad.any():
        index = np.argwhere(bad)[0]
        where = "" if ground.size == 1 else f" (user {'x'.join(map(str, index))})"
        covers = f"{low:g} to {high:g} m" if math.isfinite(high) else "finite distances > 0"
        raise InvalidParameter(f"distance {ground[tuple(index)]:.10g} m{where}: model {model!r} covers {covers}")
