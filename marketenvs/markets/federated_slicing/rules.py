r"""Federated slicing: six slices of one cell ask for resource blocks, slot after slot, before they know their demand.

**Timeline of a slot.** One stage ``request``: all slices ask at once for b_m resource blocks (RBs) of the W = 50 of the
base station; the allocation rule
grants w_m; each slice shares its grant among its devices and is paid. The infrastructure is not an agent: it is the
rule. With
``demand_timing="lagged"`` (default) the slot's traffic and fading are revealed after the requests, with ``"revealed"``
a slice sees its own
demand first (never the others'). An episode is truncated after ``horizon`` slots and never terminates.

**Need.** phi_m is the number of RBs that gives every device of the slice exactly its requirement: for a rate slice
sum_u d_u / e_u (offered load over rate per
RB); for a delay slice the same plus sum_u (L / tau_max) / e_u of headroom (M/M/1), and c_m is the share of it that only
carries load. The load ratio is
x = w / phi.

**Payoff.** R = Lambda Omega + mu U in [0, 1]. Utilisation Omega is ``match`` = min(x, 1/x) (default), ``served`` =
min(1, x), ``efficiency`` = min(1, 1/x) or
``paper`` = x. Utility U is the mean satisfaction, sigma(k (x - 1)) for rate, sigma(k (1 - 1/y)) for delay slices with y
= (x - c)/(1 - c), 0 where
y <= 0. ``reward="team"`` pays everyone the mean.

**Allocation.** ``proportional`` (default): w = b min(1, W / sum b). ``uniform``: w = min(b, l), strategy-proof.
``whole_blocks``: largest remainder.

**Actions.** Box(-1, 1). ``absolute`` (default): geometric between ``request_min`` and ``request_max``;
``absolute_linear``; ``relative``: the last
grant times 1 + delta a, then clipped to the request limits. ``action_levels`` makes a grid (16 is usual for absolute,
11 for relative). Requests outside the
range are clipped and counted in ``clipped``; NaN and infinities raise.

**Observations** (own data only; clipped to [0, 10], sine and cosine in [-1, 1]):

| entry | ``own`` (12, default) | unit |
|---|---|---|
| 0 | forecast of the need / W | - |
| 1, 2 | last need / W, last load share (this slot's, if revealed) | - |
| 3, 4 | last grant / W, last request / request_max | - |
| 5 | min(1, W / sum of last requests), the congestion broadcast | - |
| 6, 7 | last Omega, last U | - |
| 8 | 1 for a delay slice | - |
| 9 | log10 of the mean requirement per device | log10 kbit/s |
| 10, 11 | sine and cosine of the time of day | - |

``full`` adds the other slices' entries 1 and 2 in cyclic order (12 + 2 (M - 1)). ``paper`` is [demand, forecast] in
Mbit/s (2).

**Metrics** per slot: ``need``, ``load_share``, ``forecast``, ``demand`` (Mbit/s), ``requests``, ``grants``, ``ratio``,
``utilisation`` and all four variants,
``utility``, ``satisfied`` (share of devices), ``used`` = sum min(w, phi)/W, ``allocated`` = sum w/W, ``welfare`` (sum
of rewards), ``clipped``.

**Equilibrium.** Each slice's payoff has one peak p in its own grant, so the slot's game has a unique Nash allocation: w
= clip(p, s lo, s cap) with one
scale s; exact, certified by exact gains. Under lagged demand this is the clairvoyant ex-post benchmark
(``information="clairvoyant"``, not
attainable): `analysis` gives the certainty-equivalent and risk-adjusted play. Slots are linked only by demand in the
absolute modes, so stage
play is subgame perfect there; in ``relative`` mode it is myopic and NOT Markov-perfect. With ``intra="equal"`` or a
rate slice's steepness between
2.68 and 4 (equal weights) payoffs may have two peaks: then a numeric search, never certified. Team reward: the social
optimum, with a bound.

**Presets.** ``default``: 600 devices, routed work batches. ``realistic``: urban-macro path loss, noise figure, 46 dBm,
256-QAM ceiling. ``paper``: equations
as printed (see `literal`), relative actions, two observations. ``drawn``: log-normal needs at a load drawn from [0.2,
2]. ``reduced``: needs given directly
(the specification's reference games). ``many``: 1000 slices. ``team``: shared reward.

**Channel.** ``model``: the radio preset's path loss, shadowing and fading; ``trace``: measured gains of every device
(`marketenvs.channel.load_trace`), read slot
after slot. A gain carries its fading, so ``fading`` plays no part then.

**Demand.** ``devices``: generator of `traffic`; ``lognormal_ar1``: needs drawn directly, any number of slices;
``trace``: measured or recorded loads
(`traces`). ``forecast``: ``persistence``, ``oracle``, ``noisy``, or ``external`` forecasts, one row per slot of the
trace.

**Fidelity.** See ``docs/fidelity/federated_slicing.md`` for the twenty places where the paper's formulas fail and what
is done.

**Version history.** v0: first release.

**Source.** D. Ayepah-Mensah, G. Sun, Y. Pang, W. Jiang, "Adaptive Digital Twin and Communication-Efficient Federated
Learning Network
Slicing for 5G-enabled Internet of Things". Allocation: Y. Sprumont, Econometrica 59 (1991).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from ... import channel
from ...arrays import Array
from ...codecs import BoxCodec, Codec, GridCodec
from ...market import Outcome, Stage, State
from ...strategy import BestResponse, Equilibrium, SocialOptimum, Strategy
from . import literal, mixed, solve, traffic
from . import stage as one_slot
from .demand import Demand, SlicingHistory
from .params import SlicingParams, SlicingTheta

_CLIP = 10.0


class FederatedSlicing(Demand):
    """The federated slicing market; see the module's docstring."""

    Params = SlicingParams
    Theta = SlicingTheta
    welfare_name = "sum of the slices' rewards"
    params: SlicingParams

    # -- structure --------------------------------------------------------------------------------------------------

    def count_roles(self) -> dict[str, int]:
        return {"slice": self.params.n_slices}

    def build_stages(self) -> tuple[Stage, ...]:
        p = self.params
        scale = "log" if p.action_mode == "absolute" else "linear"
        codec: Codec = BoxCodec(scale=scale) if p.action_levels is None else GridCodec(p.action_levels, scale=scale)
        if p.observation == "paper":
            space = spaces.Box(0.0, np.inf, (2,), np.float32)
        else:
            low, high = np.zeros(12, np.float32), np.full(12, _CLIP, np.float32)
            low[10:], high[10:] = -1.0, 1.0
            others = 2 * (p.n_slices - 1) if p.observation == "full" else 0
            space = spaces.Box(
                np.concatenate([low, np.zeros(others, np.float32)]),
                np.concatenate([high, np.full(others, _CLIP, np.float32)]),
            )
        return (Stage("request", "slice", codec, space),)

    def setup(self) -> None:
        p = self.params
        # What the oracle knows is only reached by slices that see their demand first.
        self.information = "public" if p.demand_timing == "revealed" else "clairvoyant"  # type: ignore[misc]
        fading = {"block": "block", "ergodic": "rayleigh-ergodic", "none": "none"}[p.fading]
        self.radio = channel.radio_preset(p.radio, fading=fading)
        self.has_devices = p.demand != "lognormal_ar1"
        backend = self.backend
        self._loads = backend.asarray(p.load_trace) if p.load_trace is not None else None
        self._forecasts = backend.asarray(p.forecast_trace) if p.forecast_trace is not None else None
        self._rates = None
        if p.channel == "trace":
            slots, shape = np.shape(p.gains)[2], (p.n_slices, p.n_devices)
            rate = self.radio.trace_efficiency(np.asarray(p.gains, float)).T * (self.radio.prb_bandwidth_hz * 1e-6)
            self._rates = backend.asarray(rate.reshape(slots, *shape))
        self._compact = backend.name == "numpy"

    def derive(self, theta: Any) -> Any:
        xp = self.xp
        delay = theta.delay_bound_ms > 0.0
        bound = xp.where(delay, theta.delay_bound_ms, xp.ones_like(theta.delay_bound_ms))
        headroom = xp.where(delay, theta.packet_kbit / bound, 0.0 * bound)
        required = (theta.device_load + headroom) * 1e3
        descriptor = xp.log10(xp.where(required > 1.0, required, xp.ones_like(required)))
        return theta._replace(is_delay=xp.astype(delay, self.backend.dtype), headroom=headroom, descriptor=descriptor)

    def terms(self, theta: Any) -> one_slot.Terms:
        """What the slices are paid for (``satisfaction="sum"`` counts every device)."""
        weight = theta.utility_weight * (self.params.n_devices if self.params.satisfaction == "sum" else 1.0)
        return one_slot.Terms(theta.is_delay > 0.5, theta.steepness, theta.utilisation_weight, weight)

    # -- play -------------------------------------------------------------------------------------------------------

    def bounds(self, state: State, stage: str) -> tuple[Array, Array]:
        theta = state.theta
        if self.params.action_mode == "relative":
            held = state.history.grants
            return (held * (1.0 - theta.relative_step))[:, :, None], (held * (1.0 + theta.relative_step))[:, :, None]
        return theta.request_min[:, :, None], theta.request_max[:, :, None]

    def requests(self, state: State, decisions: Array) -> Array:
        """Requests b (B, M) that count: a relative change may not leave the request limits."""
        asked = decisions[:, :, 0]
        if self.params.action_mode == "relative":
            asked = self.xp.clip(asked, state.theta.request_min, state.theta.request_max)
        return asked

    def observe(self, state: State, stage: str) -> Array:
        xp, p, theta, last, now = self.xp, self.params, state.theta, state.history, state.nature
        shape = last.need.shape
        revealed = p.demand_timing == "revealed"
        need, share = (now.need, now.load_share) if revealed else (last.need, last.load_share)
        if p.observation == "paper":
            demand = now.demand if revealed else last.demand
            return xp.stack((demand, now.forecast * (last.demand / last.need)), axis=2)

        def wide(a: Array) -> Array:
            return xp.broadcast_to(a, shape)

        relative_need = need / theta.capacity
        congestion = last.congestion if p.observe_congestion else xp.ones_like(last.congestion)
        slot = last.clock + xp.astype(state.round, self.backend.dtype)[:, None]
        angle = (2.0 * math.pi / traffic.DAY_SLOTS) * slot
        entries = (
            now.forecast / theta.capacity, relative_need, share, last.grants / theta.capacity,
            last.requests / theta.request_max, congestion, last.utilisation, last.utility, theta.is_delay, theta.descriptor,
        )  # fmt: skip
        columns = [xp.stack([wide(a) for a in entries], axis=2)]
        columns[0] = xp.clip(columns[0], 0.0, _CLIP)
        columns.append(xp.stack((wide(xp.sin(angle)), wide(xp.cos(angle))), axis=2))
        if p.observation == "full" and p.n_slices > 1:
            m = p.n_slices
            order = ((np.arange(m)[:, None] + np.arange(1, m)[None, :]) % m).reshape(-1)
            index = xp.asarray(order, device=self.backend.device)
            for values in (relative_need, share):
                others = xp.reshape(xp.take(values, index, axis=1), (shape[0], m, m - 1))
                columns.append(xp.clip(others, 0.0, _CLIP))
        return xp.concat(columns, axis=2)

    def _paid(self, state: State, requests: Array) -> tuple[Array, Array, Array, Array]:
        """Grants, Omega, U and rewards before any sharing, each (B, M)."""
        xp, p, theta, now = self.xp, self.params, state.theta, state.nature
        grants = one_slot.allocate(requests, theta.capacity, p.rule, xp, 1 if p.whole_blocks else None)
        terms = self.terms(theta)
        if p.rewards == "paper":
            return grants, *self._printed(state, grants)
        ratio = grants / now.need
        used = one_slot.utilisation(ratio, p.utilisation, xp)
        if p.intra == "equal":
            sla = one_slot.SlaTerms(terms.is_delay, theta.headroom)
            served = one_slot.equal_split_utility(grants, now.load, now.efficiency, sla, theta.steepness, xp)[0]
        else:
            served = one_slot.utility(ratio, now.load_share, terms, xp)
        return grants, used, served, terms.utilisation_weight * used + terms.utility_weight * served

    def _printed(self, state: State, grants: Array) -> tuple[Array, Array, Array]:
        xp, theta, now = self.xp, state.theta, state.nature
        sla = one_slot.SlaTerms(theta.is_delay > 0.5, theta.headroom)
        rates, _ = one_slot.device_rates(grants, now.need, now.load_share, now.load, now.efficiency, sla, xp)
        delay = theta.is_delay > 0.5
        packet = xp.where(delay, theta.packet_kbit, xp.ones_like(theta.packet_kbit))[:, :, None]
        terms = literal.PaperTerms(
            delay[:, :, None], theta.rate_slope[:, :, None], theta.delay_slope[:, :, None],
            theta.delay_bound_ms[:, :, None] * 1e-3, now.load * 1e3 / packet, theta.utilisation_weight, theta.utility_weight,
        )  # fmt: skip
        reward, used, served = literal.reward_eq14(grants, now.need, rates * 1e6, now.load * 1e6, terms, xp)
        return used, served, reward

    def _shared(self, rewards: Array) -> Array:
        if self.params.reward == "own":
            return rewards
        return self.xp.broadcast_to(self.xp.mean(rewards, axis=1, keepdims=True), rewards.shape)

    def expected(self, state: State, decisions: Mapping[str, Array]) -> dict[str, Array]:
        """Payoffs at the slot's own demand (hidden when lagged): the ex-post game that the oracle solves."""
        return {"slice": self._shared(self._paid(state, self.requests(state, decisions["request"]))[3])}

    def settle(self, state: State, decisions: Mapping[str, Array]) -> Outcome:
        xp, p, theta, now = self.xp, self.params, state.theta, state.nature
        asked = self.requests(state, decisions["request"])
        grants, used, served, rewards = self._paid(state, asked)
        ratio = grants / now.need
        if p.intra == "equal":
            sla = one_slot.SlaTerms(theta.is_delay > 0.5, theta.headroom)
            satisfied = one_slot.equal_split_utility(grants, now.load, now.efficiency, sla, theta.steepness, xp)[1]
        else:
            satisfied = xp.astype(ratio >= 1.0, rewards.dtype)
        capacity = theta.capacity[:, 0]
        metrics = {
            "need": now.need,
            "load_share": now.load_share,
            "forecast": now.forecast,
            "demand": now.demand,
            "requests": asked,
            "grants": grants,
            "ratio": ratio,
            "utilisation": used,
            "utility": served,
            "satisfied": satisfied,
            "used": xp.sum(xp.minimum(grants, now.need), axis=1) / capacity,
            "allocated": xp.sum(grants, axis=1) / capacity,
            "welfare": xp.sum(rewards, axis=1),
        }
        metrics |= {f"utilisation_{v}": one_slot.utilisation(ratio, v, xp) for v in one_slot.UTILISATIONS}
        return Outcome({"slice": self._shared(rewards)}, metrics)

    def remember(self, state: State, decisions: Mapping[str, Array], outcome: Outcome) -> SlicingHistory:
        xp, now, m = self.xp, state.nature, outcome.metrics
        total = xp.sum(m["requests"], axis=1, keepdims=True)
        congestion = xp.minimum(state.theta.capacity / total, xp.ones_like(total))
        return state.history._replace(
            grants=m["grants"],
            requests=m["requests"],
            need=now.need,
            load_share=now.load_share,
            demand=now.demand,
            utilisation=m["utilisation"],
            utility=m["utility"],
            congestion=congestion,
            log_load=now.log_load,
            pulses=now.pulses,
        )

    # -- solvers ----------------------------------------------------------------------------------------------------

    def solve(self, state: State) -> Equilibrium:
        return solve.equilibrium(self, state)

    def best_reply(self, state: State, stage: str, decisions: Mapping[str, np.ndarray]) -> BestResponse:
        return solve.best_reply(self, state, decisions["request"][:, :, 0])

    def mixed_reply(self, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
        return mixed.reply(self, state, profile["request"])

    def mixed_payoff(self, state: State, profile: Mapping[str, Strategy]) -> dict[str, np.ndarray]:
        return mixed.mixed_payoff(self, state, profile)

    def optimum(self, state: State) -> SocialOptimum:
        return solve.optimum(self, state)

    def analysis(self, state: State) -> dict[str, Any]:
        return solve.analysis(self, state)
