"""NVS / NetShare: the reservation scheduler that federated slicing is compared with, and the hand-written requests of its market.

A slice reserves a share t_m of the resource blocks or a rate r_m. Block by block, among the slices with a backlog, the
scheduler serves the
one with the
largest weight (NVS, Kokku et al. 2012; with one base station NetShare, Mahindra et al. 2013, reduces to it). Its fluid
limit is
w_m = min(cap_m, l t_m), sum = W: max-min fairness weighted by the reservations. It reacts within a slot, so it needs no
forecast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marketenvs.errors import InvalidParameter
from marketenvs.market import Market, Stage, State
from marketenvs.markets.federated_slicing import solve
from marketenvs.markets.federated_slicing.oracle import common_scale
from marketenvs.markets.federated_slicing.peaks import peak_ratio
from marketenvs.policy import Access, Policy

from .registry import Algorithm
from .run import Policies, Report

Floats = NDArray[np.float64]
MARKET = "FederatedSlicing-v0"


def simulate(
    arrivals: ArrayLike,
    reservation: ArrayLike,
    *,
    slots: int = 40_000,
    blocks: int = 50,
    kind: str = "resource",
    efficiency: ArrayLike = 1.0,
    reference: ArrayLike = 1.0,
    memory: float = 0.01,
    seed: int = 0,
) -> Floats:
    """Mean blocks per slot that each slice gets from the slot-level scheduler with Poisson arrivals.

    Args:
        arrivals: mean arrivals per slot in blocks' worth of work, (M,).
        reservation: t_m (shares, sum 1; ``kind="resource"``) or r_m (Mbit/s; ``kind="bandwidth"``), (M,).
        slots: slots (TTIs) to simulate; the first tenth is not counted.
        blocks: resource blocks per slot, each given to the slice of the largest weight.
        kind: weight t_m / T_m, or r_m min(1, eff_m / ref_m) / R_m.
        efficiency: Mbit/s per block of each slice, (M,).
        reference: reference efficiency of a bandwidth reservation, (M,).
        memory: beta of the moving averages X <- (1 - beta) X + beta inst.
        seed: seed of the arrivals.

    Raises:
        InvalidParameter: unknown kind, or shares that do not add up to 1.
    """
    rate, share = np.asarray(arrivals, float), np.asarray(reservation, float)
    count = len(rate)
    if kind not in ("resource", "bandwidth"):
        raise InvalidParameter(f"kind must be 'resource' or 'bandwidth', got {kind!r}")
    if share.shape != rate.shape or np.any(share <= 0) or (kind == "resource" and abs(share.sum() - 1) > 1e-9):
        raise InvalidParameter(f"reservation needs {count} positive entries (shares add up to 1), got {reservation!r}")
    eff, ref = np.broadcast_to(efficiency, rate.shape), np.broadcast_to(reference, rate.shape)
    worth = share * np.minimum(1.0, eff / ref) if kind == "bandwidth" else share
    work = np.random.default_rng(seed).poisson(rate, (slots, count)).tolist()
    weight, gain = worth.tolist(), (np.ones(count) if kind == "resource" else eff).tolist()
    # The moving averages go on block by block (beta / blocks each), so that slices interleave within a slot.
    step = memory / blocks
    keep = 1.0 - step
    backlog, average, served = [0.0] * count, list(weight), [0.0] * count
    slices = range(count)
    for t in range(slots):
        for m in slices:
            backlog[m] += work[t][m]
        for _ in range(blocks):
            best, top = -1, -1.0
            for m in slices:
                average[m] *= keep
                if backlog[m] > 0.0 and weight[m] > top * average[m]:
                    best, top = m, weight[m] / average[m]
            if best < 0:
                continue
            backlog[best] -= 1.0
            average[best] += step * gain[best]
            if t >= slots // 10:
                served[best] += 1.0
    return np.array(served) / (slots - slots // 10)


def fluid(caps: ArrayLike, reservation: ArrayLike, capacity: ArrayLike = 50.0) -> Floats:
    """Fluid limit w_m = min(cap_m, l t_m) with sum W, or the caps where they fit, (..., M)."""
    caps, share = np.asarray(caps, float), np.asarray(reservation, float)
    weight = np.broadcast_to(share / share.sum(axis=-1, keepdims=True) * 1e9, caps.shape)
    scale = common_scale(caps, np.zeros(caps.shape[-1]), weight, np.asarray(capacity, float))
    return np.minimum(caps, scale * weight)


class _Requests(Policy):
    """Base: requests from what a slice sees, or (oracle access) from the slot's real needs."""

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.params: Any = market.params

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-ready."""
        return {}

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON and arrays, for ``store.save_policy``."""
        return self.settings(), {}

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
        """The inverse of :meth:`export`."""
        return cls(**config)

    def limits(self, state: State) -> tuple[Floats, Floats]:
        """Least and largest request, (B, M) or (1, M)."""
        return tuple(self.market.backend.numpy(getattr(state.theta, k)) for k in ("request_min", "request_max"))  # type: ignore[return-value]


class Static(_Requests):
    """A fixed share of the pool, t equal or in proportion to the mean need: nothing is borrowed (the paper's weak baseline).

    Args:
        reservation: (M,) shares; equal if None.
    """

    access: Access = "model"

    def __init__(self, reservation: ArrayLike | None = None):
        self.reservation = None if reservation is None else np.asarray(reservation, float)

    def settings(self) -> dict[str, Any]:
        return {"reservation": None if self.reservation is None else self.reservation.tolist()}

    def act_at(self, stage: Stage, obs: Any, mask: Any, state: State) -> Floats:
        count = obs.shape[1]
        share = np.full(count, 1.0 / count) if self.reservation is None else self.reservation / self.reservation.sum()
        capacity = self.market.backend.numpy(state.theta.capacity)
        return np.broadcast_to((capacity * share)[:, :, None], (*obs.shape[:2], 1))


class AllMax(_Requests):
    """Everybody asks the most: an equal split where the largest requests are equal."""

    access: Access = "model"

    def act_at(self, stage: Stage, obs: Any, mask: Any, state: State) -> Floats:
        return np.broadcast_to(self.limits(state)[1][:, :, None], (*obs.shape[:2], 1))


class Truthful(_Requests):
    """Ask the peak at the forecast: what a slice would like to get, without any thought of the others."""

    access: Access = "model"

    def act_at(self, stage: Stage, obs: Any, mask: Any, state: State) -> Floats:
        theta = self.market.theta64(state)
        # A slice that sees its demand first needs no forecast.
        entry = 1 if self.params.demand_timing == "revealed" else 0
        need = np.maximum(obs[:, :, entry] * theta.capacity, 1e-6)
        terms = self.market.terms(theta)  # type: ignore[attr-defined]
        ratio, _ = peak_ratio(terms, np.minimum(obs[:, :, 2], 0.999), theta.request_max / need, self.params.utilisation)
        return np.clip(ratio * need, theta.request_min, theta.request_max)[:, :, None]


class NetShare(_Requests):
    """The work-conserving scheduler's fluid limit: it serves slices as their packets come, so it knows the slot's need (oracle access).

    Args:
        cap: what a slice may take: its "need" (then satisfaction is a half) or its "peak" (with equal shares: the Nash
            allocation).
        reservation: (M,) shares; equal if None.
    """

    access: Access = "oracle"

    def __init__(self, cap: str = "peak", reservation: ArrayLike | None = None):
        if cap not in ("need", "peak"):
            raise InvalidParameter(f"cap must be 'need' or 'peak', got {cap!r}")
        self.cap = cap
        self.reservation = None if reservation is None else np.asarray(reservation, float)

    def settings(self) -> dict[str, Any]:
        return {"cap": self.cap, "reservation": None if self.reservation is None else self.reservation.tolist()}

    def act_at(self, stage: Stage, obs: Any, mask: Any, state: State) -> Floats:
        from marketenvs.markets.federated_slicing import oracle

        game = solve.game_of(self.market, state)  # type: ignore[arg-type]
        caps = game.need if self.cap == "need" else oracle.peaks(game)[0]
        share = np.ones(caps.shape[-1]) if self.reservation is None else self.reservation
        return fluid(caps, share, game.capacity)[:, :, None]


class OnForecast(_Requests):
    """Equilibrium requests if every slice's forecast were true: a controller that trusts the forecasts (it sees all of them).

    Args:
        careful: move every peak to where its expected payoff under the forecast's error (``forecast_sd``) is largest.
    """

    access: Access = "oracle"

    def __init__(self, careful: bool = False):
        self.careful = careful

    def settings(self) -> dict[str, Any]:
        return {"careful": self.careful}

    def act_at(self, stage: Stage, obs: Any, mask: Any, state: State) -> Floats:
        from marketenvs.markets.federated_slicing import oracle

        game = solve.game_of(self.market, state)  # type: ignore[arg-type]
        forecast = np.maximum(self.market.backend.numpy(state.nature.forecast), 1e-6)
        share = self.market.backend.numpy(state.history.load_share)
        if self.careful:
            sd = self.market.theta64(state).forecast_sd
            return oracle.risk_adjusted(game._replace(load_share=share), forecast, sd).requests[:, :, None]
        return oracle.certainty_equivalent(game, forecast, share).requests[:, :, None]


def _ready(build: Any) -> Any:
    def train(task: Any, seed: int, budget: int, report: Report | None = None) -> Policies:
        return {"slice": build()}

    return train


_CITE = "R. Kokku et al., IEEE/ACM ToN 20 (2012); R. Mahindra et al., ICNP (2013)"
ALGORITHMS = (
    Algorithm("slicing_static", _ready(Static), title="static shares", access="model", markets=(MARKET,), quick_budget=1),
    Algorithm("slicing_all_max", _ready(AllMax), title="everybody asks the most", access="model", markets=(MARKET,), quick_budget=1),
    Algorithm("slicing_truthful", _ready(Truthful), title="truthful peaks", access="model", markets=(MARKET,), quick_budget=1),
    Algorithm(
        "netshare", _ready(NetShare), title="NetShare (fluid, caps at the peaks)", citation=_CITE, access="oracle",
        markets=(MARKET,), quick_budget=1,
    ),
)  # fmt: skip
