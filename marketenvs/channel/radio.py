"""One cell's radio as a frozen, validated configuration, with the presets of the papers."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from marketenvs.channel._namespace import Array, unify
from marketenvs.channel.link import (
    FADING,
    NOISE_DENSITY_DBM_PER_HZ,
    noise_dbm,
    power_per_prb_dbm,
    rate_kbps,
    sinr,
    spectral_efficiency,
)
from marketenvs.channel.propagation import (
    CLUTTER,
    PATH_LOSS_MODELS,
    Clutter,
    PathLossModel,
    distance_m,
    drop_disc,
    drop_square,
    los_probability,
    path_loss_db,
    validate_link,
)
from marketenvs.errors import InvalidParameter, UnknownName, nearest

# scenario -> its path-loss models (with, without line of sight); scenarios with a single law have it twice
SCENARIOS: dict[str, tuple[str, str]] = {
    "fspl": ("fspl", "fspl"),
    "umi": ("umi_los", "umi_nlos"),
    "uma_nlos": ("uma_nlos", "uma_nlos"),
    "inf_sl": ("inf_los", "inf_sl"),
    "inf_dl": ("inf_los", "inf_dl"),
    "inf_sh": ("inf_los", "inf_sh"),
    "inf_dh": ("inf_los", "inf_dh"),
    "hotzone_nlos": ("hotzone_nlos", "hotzone_nlos"),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "scenario": tuple(SCENARIOS),
    "los": ("nlos", "los", "prob"),
    "fading": ("none", "block", "rayleigh-ergodic"),
    "power_mode": ("equal", "per_prb", "per_user"),
    "cell": ("square", "disc"),
}


@dataclass(frozen=True, kw_only=True)
class RadioConfig:
    """PRB grid, power, propagation and link of one cell. All fields are structural (Python scalars), checked at once.

    Attributes:
        n_prb: physical resource blocks of the grid.
        prb_bandwidth_hz: width of one PRB, Hz.
        power_dbm: base-station power, dBm, spent according to `power_mode`.
        power_mode: "equal": split equally over the PRBs; "per_prb": already per PRB; "per_user": every user's own
            sub-band carries all of it (two-tier bidding as printed).
        noise_density_dbm_per_hz: thermal noise density.
        noise_figure_db: receiver noise figure.
        interference_dbm: other cells' power per PRB, dBm; None means none.
        receiver_gain_db: antenna gains of the link, dB.
        frequency_mhz: carrier.
        scenario: key of `SCENARIOS`.
        los: "nlos", "los" or "prob" (drawn per user from `los_probability`); only for scenarios with both laws.
        clutter: factory clutter for `los="prob"` in the "inf_*" scenarios; None takes `CLUTTER[scenario]`.
        bs_height_m: base-station height; None takes the scenario's.
        user_height_m: user height; None takes the scenario's.
        shadowing_std_db: shadowing deviation; None takes the path-loss model's own, per line-of-sight state.
        decorrelation_m: decorrelation distance of shadowing for moving users.
        fading: "none", "block" (one Exp(1) draw per slot, multiplied by the market) or "rayleigh-ergodic".
        efficiency_cap: highest spectral efficiency, bit/s/Hz; None means none.
        efficiency_floor: lowest spectral efficiency, bit/s/Hz; None means none.
        gap_db: SNR gap to capacity.
        spectral_multiplier: factor on the efficiency, L of two-tier bidding (spatial layers times the log's base).
        cell: "square" of side `cell_size_m`, or "disc" of radius `cell_size_m`; base station at the centre.
        cell_size_m: side or radius.
        min_distance_m: users are never nearer: distances are clamped in a square, drawn from the ring in a disc.

    Raises:
        InvalidParameter: infeasible field (named, with what would be right), at construction.
    """

    n_prb: int = 100
    prb_bandwidth_hz: float = 200e3
    power_dbm: float = 30.0
    power_mode: str = "equal"
    noise_density_dbm_per_hz: float = NOISE_DENSITY_DBM_PER_HZ
    noise_figure_db: float = 0.0
    interference_dbm: float | None = None
    receiver_gain_db: float = 0.0
    frequency_mhz: float = 2000.0
    scenario: str = "fspl"
    los: str = "nlos"
    clutter: Clutter | None = None
    bs_height_m: float | None = None
    user_height_m: float | None = None
    shadowing_std_db: float | None = 8.0
    decorrelation_m: float = 50.0
    fading: str = "rayleigh-ergodic"
    efficiency_cap: float | None = None
    efficiency_floor: float | None = None
    gap_db: float = 0.0
    spectral_multiplier: float = 1.0
    cell: str = "square"
    cell_size_m: float = 500.0
    min_distance_m: float = 10.0

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Check every field; called by the constructor.

        Raises:
            InvalidParameter: the first infeasible field, named, with its value and what would be right.
        """
        for name, options in _CHOICES.items():
            value = getattr(self, name)
            if value not in options:
                raise InvalidParameter(f"RadioConfig.{name}={value!r}: {nearest(value, options)}")
        if isinstance(self.n_prb, bool) or not isinstance(self.n_prb, (int, np.integer)) or self.n_prb < 1:
            raise InvalidParameter(f"RadioConfig.n_prb={self.n_prb!r}: expected a whole number >= 1")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in (*_CHOICES, "clutter") or (value is None and "None" in str(field.type)):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
                raise InvalidParameter(f"RadioConfig.{field.name}={value!r}: expected a finite number")
        for name in (
            "prb_bandwidth_hz", "frequency_mhz", "cell_size_m", "min_distance_m", "decorrelation_m",
            "spectral_multiplier", "efficiency_cap", "bs_height_m", "user_height_m",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value <= 0.0:
                raise InvalidParameter(f"RadioConfig.{name}={value!r}: expected > 0")
        for name in ("noise_figure_db", "shadowing_std_db", "gap_db", "efficiency_floor"):
            value = getattr(self, name)
            if value is not None and value < 0.0:
                raise InvalidParameter(f"RadioConfig.{name}={value!r}: expected >= 0")
        if (self.efficiency_cap or math.inf) < (self.efficiency_floor or 0.0):
            raise InvalidParameter(
                f"RadioConfig.efficiency_floor={self.efficiency_floor!r} exceeds efficiency_cap={self.efficiency_cap!r}"
            )
        if self.farthest_m < self.min_distance_m:
            raise InvalidParameter(
                f"RadioConfig.min_distance_m={self.min_distance_m!r}: the {self.cell} ends at {self.farthest_m:.6g} m"
            )
        los_model, nlos_model = SCENARIOS[self.scenario]
        if los_model == nlos_model and self.los != "nlos":
            both = [name for name, pair in SCENARIOS.items() if pair[0] != pair[1]]
            raise InvalidParameter(
                f"RadioConfig.los={self.los!r}: scenario {self.scenario!r} has one law only, keep 'nlos' "
                f"(line of sight matters in {', '.join(both)})"
            )
        self._validate_clutter()
        for model in dict.fromkeys(self._models()):
            validate_link(
                [self.min_distance_m, self.farthest_m],
                self.frequency_mhz,
                model,
                bs_height_m=self._bs_height_m,
                user_height_m=self._user_height_m,
            )

    def _validate_clutter(self) -> None:
        if self.clutter is not None and (self.scenario not in CLUTTER or self.los != "prob"):
            raise InvalidParameter(
                f"RadioConfig.clutter={self.clutter!r} has no effect: it needs los='prob' and a scenario of "
                f"{', '.join(CLUTTER)}"
            )
        if self.scenario in ("inf_sh", "inf_dh") and self.los == "prob":
            top = (self.clutter or CLUTTER[self.scenario]).height_m
            if not self._user_height_m < top < (self._bs_height_m or math.inf):
                raise InvalidParameter(
                    f"RadioConfig.clutter of height {top:g} m: scenario {self.scenario!r} needs it between the users' "
                    f"{self._user_height_m:g} m and the base station's {self._bs_height_m:g} m"
                )

    def _models(self) -> tuple[str, str]:
        los_model, nlos_model = SCENARIOS[self.scenario]
        return (los_model if self.los != "nlos" else nlos_model, nlos_model if self.los != "los" else los_model)

    @property
    def _bs_height_m(self) -> float | None:
        return self.bs_height_m if self.bs_height_m is not None else self._nlos_constants.bs_height_m

    @property
    def _user_height_m(self) -> float:
        return self.user_height_m if self.user_height_m is not None else self._nlos_constants.user_height_m

    @property
    def _nlos_constants(self) -> PathLossModel:
        return PATH_LOSS_MODELS[SCENARIOS[self.scenario][1]]

    @property
    def farthest_m(self) -> float:
        """Distance of the cell's farthest point from the base station, metres."""
        return self.cell_size_m / math.sqrt(2.0) if self.cell == "square" else self.cell_size_m

    @property
    def bandwidth_hz(self) -> float:
        """Width of the whole grid, Hz."""
        return self.n_prb * self.prb_bandwidth_hz

    @property
    def prb_power_dbm(self) -> float:
        """Transmit power of one PRB, dBm (of a user's whole sub-band under "per_user")."""
        if self.power_mode == "equal":
            return float(power_per_prb_dbm(self.power_dbm, self.n_prb))
        return self.power_dbm

    @property
    def prb_noise_dbm(self) -> float:
        """Noise power of one PRB including the noise figure, dBm."""
        return float(noise_dbm(self.prb_bandwidth_hz, self.noise_figure_db, self.noise_density_dbm_per_hz))

    def drop(self, uniform: Array, *, xp: Any = None) -> Array:
        """Positions in metres, shape (..., 2), from uniforms of the same shape."""
        if self.cell == "square":
            return drop_square(uniform, self.cell_size_m, xp=xp)
        return drop_disc(uniform, self.cell_size_m, self.min_distance_m, xp=xp)

    def distance_m(self, position_m: Array, *, xp: Any = None) -> Array:
        """Distances from the base station in metres, at least `min_distance_m`; shape (...) from (..., 2)."""
        return distance_m(position_m, self.min_distance_m, xp=xp)

    def loss_db(
        self,
        distance_m: Array,
        shadowing_normal: Array | None = None,
        los_uniform: Array | None = None,
        *,
        xp: Any = None,
    ) -> Array:
        """Path loss less shadowing, dB.

        Args:
            distance_m: ground distance in metres, any shape.
            shadowing_normal: standard normals; None means no shadowing. For AR(1) shadowing keep this unit-variance
                process in the state (`next_shadowing_db` with std 1).
            los_uniform: uniforms that draw line of sight; needed by `los="prob"` and ignored otherwise.
            xp: array namespace, to skip the look-up.

        Raises:
            InvalidParameter: `los="prob"` without `los_uniform`.
        """
        if self.los == "prob" and los_uniform is None:
            raise InvalidParameter('RadioConfig.los="prob" needs los_uniform, one uniform per user')
        xp, d, z, u = unify(xp, distance_m, shadowing_normal, los_uniform)
        los_model, nlos_model = self._models()
        heights = {"bs_height_m": self._bs_height_m, "user_height_m": self._user_height_m, "xp": xp}
        loss = path_loss_db(d, self.frequency_mhz, nlos_model, **heights)
        std: Array = self._shadowing_std(nlos_model)
        if self.los == "prob":
            heard = u < los_probability(d, self.scenario, clutter=self.clutter, **heights)
            loss = xp.where(heard, path_loss_db(d, self.frequency_mhz, los_model, **heights), loss)
            one = xp.ones_like(loss)
            std = xp.where(heard, one * self._shadowing_std(los_model), one * std)
        return loss if z is None else loss - z * std

    def _shadowing_std(self, model: str) -> float:
        own = PATH_LOSS_MODELS[model].shadowing_std_db
        return own if self.shadowing_std_db is None else self.shadowing_std_db

    def sinr(self, loss_db: Array, fading: Array | None = None, *, xp: Any = None) -> Array:
        """SINR of one PRB as a ratio, from a loss in dB (see `loss_db`; -10 lg gain for a measured gain)."""
        return sinr(
            self.prb_power_dbm,
            loss_db,
            self.prb_noise_dbm,
            gain_db=self.receiver_gain_db,
            fading=fading,
            interference_dbm=self.interference_dbm,
            xp=xp,
        )

    def spectral_efficiency(self, sinr: Array, *, xp: Any = None) -> Array:
        """Spectral efficiency in bit/s/Hz under this radio's fading, gap, cap, floor and multiplier.

        With `fading="block"` the SINR given must already carry the slot's fading.
        """
        efficiency = spectral_efficiency(
            sinr,
            self.fading if self.fading in FADING else "none",
            self.efficiency_cap,
            gap_db=self.gap_db,
            floor=self.efficiency_floor,
            xp=xp,
        )
        return efficiency if self.spectral_multiplier == 1.0 else efficiency * self.spectral_multiplier

    def prb_rate_kbps(self, sinr: Array, *, xp: Any = None) -> Array:
        """Rate of one whole PRB in kbit/s at that SINR."""
        return rate_kbps(self.spectral_efficiency(sinr, xp=xp), self.prb_bandwidth_hz, xp=xp)

    def trace_efficiency(self, gain: Array, *, xp: Any = None) -> Array:
        """Spectral efficiency in bit/s/Hz that measured gains give every user in every slot, mean over the PRBs.

        A measured gain carries its fading, so none is averaged on top of it, whatever this radio's `fading` says.

        Args:
            gain: power gains, shape (users, PRBs, slots), of `load_trace`.
            xp: array namespace, to skip the look-up.

        Returns:
            Shape (users, slots).
        """
        xp, gain = unify(xp, gain)
        least = xp.asarray(1e-30, dtype=gain.dtype)
        loss = -10.0 / math.log(10.0) * xp.log(xp.where(gain > least, gain, least))
        known = replace(self, fading="none")
        return xp.mean(known.spectral_efficiency(known.sinr(loss, xp=xp), xp=xp), axis=1)

    def snr_bandwidth_mhz(self, loss_db: Array, fading: Array | None = None, *, xp: Any = None) -> Array:
        """Bandwidth in MHz at which a user alone with `prb_power_dbm` has SNR 1 (S_mj of two-tier bidding)."""
        to_mhz = -10.0 * math.log10(self.prb_bandwidth_hz / 1e6)  # dB from per PRB to per MHz
        return sinr(
            self.prb_power_dbm,
            loss_db,
            self.prb_noise_dbm + to_mhz,
            gain_db=self.receiver_gain_db,
            fading=fading,
            interference_dbm=None if self.interference_dbm is None else self.interference_dbm + to_mhz,
            xp=xp,
        )


_FEDERATED = RadioConfig(
    n_prb=50, prb_bandwidth_hz=180e3, cell="disc", cell_size_m=500.0, fading="block", efficiency_floor=0.1
)
RADIO_PRESETS: dict[str, RadioConfig] = {
    # coalition trading, Table I; -90 dBm per PRB of other-cell interference makes its requirements bite
    "iiot": RadioConfig(interference_dbm=-90.0),
    "iiot_noise_limited": RadioConfig(),
    "federated": _FEDERATED,
    # urban macro without line of sight, noise figure, macro power and the 256-QAM ceiling
    "realistic": replace(
        _FEDERATED,
        power_dbm=46.0,
        noise_figure_db=9.0,
        scenario="uma_nlos",
        shadowing_std_db=6.0,
        efficiency_cap=7.4063,
    ),
    # two-tier bidding: each user's sub-band carries the full power, 32 layers and log10 as in its simulator
    "two_tier": RadioConfig(
        n_prb=50,
        prb_bandwidth_hz=200e3,
        power_dbm=46.0,
        power_mode="per_user",
        receiver_gain_db=20.0,
        scenario="hotzone_nlos",
        shadowing_std_db=0.0,
        fading="none",
        spectral_multiplier=32.0 * math.log10(2.0),
        cell="disc",
        cell_size_m=40.0,
        min_distance_m=1.0,
    ),
}
"""The papers' radios by name; see `radio_preset`."""


def radio_preset(name: str, **changes: Any) -> RadioConfig:
    """A paper's radio, with changed fields: `radio_preset("iiot", scenario="inf_dl", los="prob", frequency_mhz=3500)`.

    Raises:
        UnknownName: a preset or a field that does not exist; the message names the nearest one.
        InvalidParameter: a change that makes the radio infeasible.
    """
    if name not in RADIO_PRESETS:
        raise UnknownName(f"unknown radio preset {name!r}; {nearest(name, RADIO_PRESETS)}")
    known = [field.name for field in fields(RadioConfig)]
    for key in changes:
        if key not in known:
            raise UnknownName(f"RadioConfig has no field {key!r}; {nearest(key, known)}")
    return replace(RADIO_PRESETS[name], **changes)
