"""The radio that every market shares: an OFDMA cell of physical resource blocks (PRBs).

Pure, batched functions on arrays of NumPy, PyTorch, JAX or array-api-strict (or Python scalars), in four steps:

1. `propagation`: where users stand and what the air takes (drops, path loss, line of sight, shadowing, fading);
2. `link`: from powers to SINR, spectral efficiency, rate, queueing delay and satisfaction;
3. `radio`: `RadioConfig`, one cell's constants checked at construction, with the papers' radios as presets;
4. `trace`: measured gains instead of a model.

Units are in the names: `_dbm _db _mhz _hz _kbps _ms _m`; SINR, gains and fading are power ratios, spectral efficiency
is bit/s/Hz. Nothing here draws random numbers: uniforms and normals come in as arrays. Ranges are checked where values
enter (`RadioConfig`, `validate_link`, `load_trace`), never inside the functions, which may be traced.

Example:
    >>> from marketenvs import channel
    >>> radio = channel.radio_preset("iiot_noise_limited")
    >>> ratio = radio.sinr(radio.loss_db(250.0))
    >>> print(f"{channel.ratio_to_db(ratio):.8f} dB, {radio.prb_rate_kbps(ratio):.4f} kbit/s per PRB")
    44.56029996 dB, 2794.0809 kbit/s per PRB
"""

from marketenvs.channel.link import (
    db_to_ratio,
    logistic,
    mm1_delay_ms,
    noise_dbm,
    power_per_prb_dbm,
    qos_satisfaction,
    rate_kbps,
    ratio_to_db,
    scaled_expint,
    sinr,
    snr_bandwidth_mhz,
    spectral_efficiency,
    subband_rate,
    tenant_rate_kbps_per_prb,
    total_power_dbm,
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
    next_shadowing_db,
    path_loss_db,
    rayleigh_power,
    ring_distances_m,
    shadowing_correlation,
    shadowing_db,
    validate_link,
)
from marketenvs.channel.radio import RADIO_PRESETS, SCENARIOS, RadioConfig, radio_preset
from marketenvs.channel.trace import load_trace, read_gains, trace_gain

__all__ = [
    "CLUTTER",
    "PATH_LOSS_MODELS",
    "RADIO_PRESETS",
    "SCENARIOS",
    "Clutter",
    "PathLossModel",
    "RadioConfig",
    "db_to_ratio",
    "distance_m",
    "drop_disc",
    "drop_square",
    "load_trace",
    "logistic",
    "los_probability",
    "mm1_delay_ms",
    "next_shadowing_db",
    "noise_dbm",
    "path_loss_db",
    "power_per_prb_dbm",
    "qos_satisfaction",
    "radio_preset",
    "rate_kbps",
    "ratio_to_db",
    "rayleigh_power",
    "read_gains",
    "ring_distances_m",
    "scaled_expint",
    "shadowing_correlation",
    "shadowing_db",
    "sinr",
    "snr_bandwidth_mhz",
    "spectral_efficiency",
    "subband_rate",
    "tenant_rate_kbps_per_prb",
    "total_power_dbm",
    "trace_gain",
    "validate_link",
]
