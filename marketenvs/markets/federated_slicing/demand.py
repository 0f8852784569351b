"""What the slots of federated slicing bring: devices, traffic, fading, forecasts, and from them the needs in resource blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...arrays import Array, Noise
from ...channel import RadioConfig
from ...market import Market, State
from . import stage as one_slot
from . import traffic
from .params import SlicingParams


class Devices(NamedTuple):
    """Constants of an episode, ``(B, M, N)``: SNR per RB without fading, heaviness, place relative to the routes."""

    snr: Array
    heaviness: Array
    place: traffic.Placement


class SlicingHistory(NamedTuple):
    """What carries over; ``(B, M)`` unless said.

    Attributes:
        grants: last w, RB.
        requests: last b, RB.
        need: last phi, RB.
        load_share: last c.
        demand: last offered load, Mbit/s.
        utilisation: last Omega.
        utility: last U.
        congestion: last min(1, W / sum b), ``(B, 1)``.
        clock: start of the day or of the trace, slots ``(B, 1)``.
        log_load: AR(1) state, ``(B, M, N)`` of devices or ``(B, M)`` of slices.
        pulses: work batches.
        devices: constants of the devices.
    """

    grants: Array
    requests: Array
    need: Array
    load_share: Array
    demand: Array
    utilisation: Array
    utility: Array
    congestion: Array
    clock: Array
    log_load: Array
    pulses: Any
    devices: Any


class SlicingNature(NamedTuple):
    """The slot's draws: need, load share, demand, forecast ``(B, M)``; loads and rates per RB of devices ``(B, M, N)``."""

    need: Array
    load_share: Array
    demand: Array
    forecast: Array
    load: Any
    efficiency: Any
    log_load: Array
    pulses: Any


class Demand(Market):
    """The part of the market that draws: everything random at reset and in every slot."""

    params: SlicingParams
    radio: RadioConfig
    has_devices: bool
    _loads: Any
    _forecasts: Any
    _rates: Any
    _compact: bool

    def history_noise(self) -> Mapping[str, Noise]:
        m, n = self.params.n_slices, self.params.n_devices
        fields = {"clock": Noise("uniform", (1,))}
        if not self.has_devices:
            return fields | {"log_need": Noise("normal", (m,))}
        fields |= {
            "position": Noise("uniform", (m, n, 2)),
            "shadowing": Noise("normal", (m, n)),
            "fading": Noise("exponential", (m, n)),
        }
        if self.params.demand == "devices":
            fields |= {"heaviness": Noise("normal", (m, n)), "log_load": Noise("normal", (m, n))}
            if self.params.pulses:
                fields |= {
                    "arrival": Noise("uniform", (traffic.WARM_UP, 2)),
                    "size": Noise("normal", (traffic.WARM_UP, 2)),
                    "jitter": Noise("uniform", (traffic.WARM_UP, 2)),
                }
        return fields

    def round_noise(self) -> Mapping[str, Noise]:
        m, n = self.params.n_slices, self.params.n_devices
        fields: dict[str, Noise] = {}
        if self.has_devices and self.params.fading == "block" and self._rates is None:
            fields["fading"] = Noise("exponential", (m, n))
        if self.params.demand == "devices":
            fields["log_load"] = Noise("normal", (m, n))
            if self.params.pulses:
                fields |= {
                    "arrival": Noise("uniform", (2,)),
                    "size": Noise("normal", (2,)),
                    "jitter": Noise("uniform", (2,)),
                }
        elif self.params.demand == "lognormal_ar1":
            fields["log_need"] = Noise("normal", (m,))
        if self.params.forecast == "noisy":
            fields["forecast"] = Noise("normal", (m,))
        # A replayed trace without fading draws nothing, but its next slot has to be read all the same.
        return fields or {"idle": Noise("uniform", (1,))}

    def first_history(self, theta: Any, noise: Mapping[str, Array], batch: int) -> SlicingHistory:
        xp, p = self.xp, self.params
        rows = 0.0 * noise["clock"]
        pulses: Any = ()
        devices: Any = ()
        if self._loads is not None:
            clock = xp.floor(noise["clock"] * self._loads.shape[0])
        else:
            clock = noise["clock"] * traffic.DAY_SLOTS
        log_load = noise["log_need"] if not self.has_devices else ()
        if self.has_devices:
            position = self.radio.drop(noise["position"], xp=xp)
            loss = self.radio.loss_db(self.radio.distance_m(position, xp=xp), noise["shadowing"], xp=xp)
            heavy: Any = ()
            place: Any = ()
            if p.demand == "devices":
                heavy = xp.exp(noise["heaviness"] - 0.5)
                log_load = traffic.AR_SD * noise["log_load"]
                if p.pulses:
                    place = traffic.place(position, xp)
                    pulses = self._warm_up(noise, rows)
            devices = Devices(self.radio.sinr(loss, xp=xp), heavy, place)
        share = (theta.capacity + rows) / p.n_slices
        share = xp.broadcast_to(share, (batch, p.n_slices)) + 0.0
        zero = 0.0 * share
        history = SlicingHistory(
            share, share, zero, zero, zero, zero, zero, rows + 1.0, clock, log_load, pulses, devices
        )
        # The slot before the first one gives the first forecast its past.
        need, load_share, demand, _, _ = self._needs(theta, history, clock - 1.0, log_load, pulses, noise.get("fading"))
        return history._replace(need=need, load_share=load_share, demand=demand)

    def _warm_up(self, noise: Mapping[str, Array], rows: Array) -> traffic.Pulses:
        xp = self.xp
        pulses = traffic.no_pulses(xp.concat((rows, rows), axis=1), xp)
        # Nothing lives longer than the ring, so only the last arrivals matter; they are all drawn, whatever the ring's
        # length.
        for t in range(traffic.WARM_UP - traffic.RING, traffic.WARM_UP):
            pulses = traffic.advance(
                pulses, noise["arrival"][:, t, :], noise["size"][:, t, :], noise["jitter"][:, t, :], xp
            )
        return pulses

    def _needs(
        self, theta: Any, history: SlicingHistory, slot: Array, log_load: Array, pulses: Any, fading: Array | None
    ) -> tuple[Array, Array, Array, Any, Any]:
        """Need, load share, demand (B, M); loads and rates per RB of devices (B, M, N)."""
        xp, p = self.xp, self.params
        if not self.has_devices:
            day = traffic.daily_profile(slot, p.n_slices, theta.day_amplitude, xp)
            level = theta.load * day * xp.exp(theta.need_sd * log_load - 0.5 * theta.need_sd**2)
            need = xp.where(theta.mean_need * level > one_slot.MIN_NEED, theta.mean_need * level, one_slot.MIN_NEED)
            share = xp.where(theta.is_delay > 0.5, theta.mean_load_share + 0.0 * need, 0.0 * need)
            return need, share, theta.device_load * p.n_devices * level, (), ()
        if self._loads is not None:
            load = xp.take(self._loads, self._index(slot, self._loads), axis=0) * theta.load[:, :, None]
        else:
            day = traffic.daily_profile(slot, p.n_slices, theta.day_amplitude, xp)
            mean = theta.load * theta.device_load * day
            load = mean[:, :, None] * (history.devices.heaviness * xp.exp(log_load - 0.5 * traffic.AR_SD**2))
            if p.pulses:
                load = load * traffic.load_factor(history.devices.place, pulses, xp, self._compact)
        if self._rates is not None:
            efficiency = xp.take(self._rates, self._index(slot, self._rates), axis=0)
        else:
            snr = history.devices.snr if p.fading != "block" else history.devices.snr * fading
            efficiency = self.radio.spectral_efficiency(snr, xp=xp) * (self.radio.prb_bandwidth_hz * 1e-6)
        sla = one_slot.SlaTerms(theta.is_delay > 0.5, theta.headroom)
        need, share = one_slot.need(load, efficiency, sla, xp)
        return need, share, xp.sum(load, axis=-1), load, efficiency

    def _index(self, slot: Array, table: Array) -> Array:
        """Row of a recorded table of every market, (B,); beyond its end it starts again."""
        rows = table.shape[0]
        whole = self.xp.floor(slot[:, 0] + 0.5)
        return self.xp.astype(whole - rows * self.xp.floor(whole / rows), self.xp.int64)

    def draw_nature(self, state: State, noise: Mapping[str, Array]) -> SlicingNature:
        xp, p, theta, last = self.xp, self.params, state.theta, state.history
        log_load, pulses = last.log_load, last.pulses
        if p.demand == "devices":
            log_load = traffic.next_log_load(log_load, noise["log_load"])
            if p.pulses:
                pulses = traffic.advance(pulses, noise["arrival"], noise["size"], noise["jitter"], xp)
        elif p.demand == "lognormal_ar1":
            rho = theta.need_rho
            log_load = rho * log_load + xp.sqrt(1.0 - rho * rho) * noise["log_need"]
        slot = last.clock + xp.astype(state.round, self.backend.dtype)[:, None]
        need, share, demand, load, efficiency = self._needs(theta, last, slot, log_load, pulses, noise.get("fading"))
        if p.forecast == "persistence":
            forecast = last.need
        elif p.forecast == "oracle":
            forecast = need
        elif p.forecast == "noisy":
            forecast = need * xp.exp(theta.forecast_sd * noise["forecast"])
        else:
            table = self._loads if self._loads is not None else self._forecasts
            forecast = xp.take(self._forecasts, self._index(slot, table), axis=0)
        return SlicingNature(need, share, demand, forecast, load, efficiency, log_load, pulses)
