r"""Coalition trading: sellers of a sliced network sublease PRBs to coalitions of tenants.

**Timeline of a round.** Buyers are grouped into coalitions: by a rule, or (``formation="labels"``) in stage ``coalition``, where each
buyer names a label and equal labels are one coalition. Stage ``pricing``: every seller posts a price per PRB. Stage ``purchase``: the
members of the served coalition see the prices and request PRBs from every seller. Sellers serve the coalition with the highest total
reputation (ties: the larger, then the one with the smallest member). Requests beyond a seller's capacity are cut; the coalition splits
what it bought efficiently. What was traded and posted last is remembered and seen; nothing else carries over, so the discount factor is
strategically irrelevant. An episode is truncated after ``horizon`` rounds and never terminates.

**Payoffs** ($ per round, prices delta_m, purchases q_m, W = sum q_m):

- seller m: (delta_m - c) q_m
- served coalition z: V_z(W) - sum_m delta_m q_m - c_s |z| (|z| - 1); other coalitions: only the signalling cost
- member n: its share of the coalition's utility, by ``sharing``: reputation Omega_n / Omega_z, equal, shapley, or own (own value less
  own bill)

V_z(W) = max { sum_n G_n(w_n) : sum w_n = W }, where G_n is the concave envelope of a sigmoid of the users' rate (eMBB, mMTC) or of their
M/M/1 delay (URLLC): a tenant that holds too few PRBs for its users runs enough of them in a fraction of the slots.

With ``price_formation="bargain"`` nobody posts prices: coalition and sellers split S_z = max_W V_z(W) - c W, the coalition gets
beta (S_z - d), the sellers the rest, where d is their posted-price profit with the coalition ranked second; stage ``coalition`` is the only
one and the sellers are no agents (their ``profit`` is a metric).

**Actions.** ``coalition``: Discrete(N). ``pricing``: Box(-1, 1) onto [price_min, price_max], or Discrete(price_levels). ``purchase``:
Box(-1, 1)^M onto [0, K_m], or MultiDiscrete(amount_levels); with ``purchase_mode="total"`` one number in [0, sum K], filled cheapest
first. Buyers who are not served do not act. Decisions outside the range are clipped and counted; NaN and infinities raise.

**Observations**, in [0, 1]. Prices are scaled by the box, PRBs by all PRBs, choke prices by twice the highest price; a coalition's slot
is its smallest member.

| stage | ``paper`` | ``full`` (default) |
|---|---|---|
| coalition | as full | reputations (N), last prices (M), own need, reputation and last PRBs |
| pricing | PRBs traded last, by slot (N) | + reputation and winner by slot (2N), capacities, last prices (2M), needs, chokes, served (3N), own cost |
| purchase | posted prices (M) | + capacities (M), reputations, needs, choke prices (3N), own coalition (N), own need, choke, class, served |

**Metrics**: ``price`` (M), ``mean_price`` (paid, or posted when nothing is sold), ``sold`` (M), ``quantity``, ``held`` (N),
``satisfaction`` (N, time-shared), ``served_fraction`` (N), ``winner`` (slot), ``coalition_size``, ``rationed`` (sellers who cut
requests), ``traded`` (N, by slot), ``welfare`` (sum of all payoffs), ``clipped``.

**Equilibrium.** Followers exact: a coalition buys as one agent (a joint stage). Sellers: Bertrand-Edgeworth in every regime (monopoly,
floor, market clearing, mixed with gaps and atoms), returned as a distribution where it is mixed; two sellers of different capacity
likewise; other asymmetries (three unequal sellers, unequal costs, raw curves at continuous prices), and ``selection="all"``, are searched:
the best profile found is returned with its epsilon and ``certified=False``. Grid prices: two sellers by a sequential LP.
Coalitions: every partition's payoffs, Nash and individual stability, merging, Shapley values, the core (``analysis``).

**Options.** What each changes, and what its oracle is worth:

| option | values | oracle |
|---|---|---|
| ``formation`` | ``grand``, ``singletons``, ``fixed`` (``partition=``), ``merge`` (largest joint gain first), ``labels`` (buyers choose) | exact |
| ``selection`` | ``winner`` (highest reputation), ``matching`` (seller k serves rank k: separate monopolies) | exact |
| | ``all`` (all in that order, from what is left) | estimate, never certified |
| ``capacity_rule`` | ``split`` (all / max(2, M)), ``half``, ``given`` (``capacity=``) | unequal: exact for two sellers, else estimate |
| ``sharing`` | ``reputation``, ``equal``, ``shapley``, ``own`` (own value less own bill) | exact |
| ``reputation_rule`` | ``static``, ``ema`` (a seller's own follows sold / offered, metric ``seller_reputation``) | exact |
| ``price_formation`` | ``posted``, ``bargain`` (with ``labels``) | exact |
| ``convexify=False`` | raw S-curves on whole PRBs: a tenant below its knee is dropped | exact on a price grid, else estimate |
| ``integer_prbs`` | requests rounded down, values tabled; an odd PRB of tied sellers is the first one's | exact on a price grid, else estimate |
| ``purchase_mode`` | ``each`` (per seller), ``total`` (one number, filled cheapest first) | exact |
| ``channel`` | ``frozen``, ``drop``, ``trace`` (measured gains, user x PRB x slot, npz or CSV; round t replays slot t) | exact |
| ``model="paper"`` | with ``reward_lag``, ``total_capacity``: the equations as printed | closed form |

**Presets.** ``default``; ``singletons``; ``labels``; ``grid``; ``drawn`` (reputations and PRB rates drawn); ``drop`` (users dropped in a
cell); ``table1_noise_limited``; ``reduced`` (two buyers, mixed regime: no deterministic policy solves it); ``paper`` (the equations as
printed, see ``literal.py``).

**Version history.** v0: first release.

**Source.** G. O. Boateng, G. Liu, "Cooperative Resource Trading for Network Slicing in Industrial IoT: A Multi-Agent DRL Approach".
Where the market departs from it, with numbers: ``docs/fidelity/coalition_trading.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium import spaces

from ... import channel
from ...arrays import Array, Noise
from ...codecs import BoxCodec, Codec, GridCodec, MultiGridCodec, TableCodec
from ...errors import InvalidParameter
from ...market import Market, Outcome, Stage, State
from ...strategy import BestResponse, Equilibrium, SocialOptimum, Strategy
from . import bargaining, literal, settlement, solve
from .metrics import metrics
from .parameters import CoalitionParams, CoalitionTheta, service_mask


class CoalitionHistory(NamedTuple):
    """What carries over: last prices and sales (B, M), PRBs traded by slot and held (B, N); PRB rates, labels where drawn.

    ``seller_reputation`` (B, M) is kept with ``reputation_rule="ema"`` only.
    """

    price: Array
    sold: Array
    traded: Array
    held: Array
    rate: Any
    labels: Any
    seller_reputation: Any = ()


class Deal(NamedTuple):
    """A settled round, before payoffs: Z coalition slots that may be served."""

    served: Array  # bool (., Z, N)
    slots: Array  # bool (., N, N), members by slot
    rank: Array  # (., N)
    requested: Array  # (B, Z, M)
    bought: Array  # (B, Z, M)
    held: Array  # (B, N)
    value: Array  # (B, N)
    gross: Array  # (B, Z), value less bill
    bill: Array  # (B, Z)


class CoalitionTrading(Market):
    """The coalition-trading market; see the module's docstring."""

    Params = CoalitionParams
    Theta = CoalitionTheta
    anonymous: ClassVar[tuple[str, ...] | None] = (
        "seller",
    )  # buyers differ by service, and by number where coalitions are fixed
    joint_stages = ("purchase",)  # a coalition buys as one agent
    params: CoalitionParams

    def count_roles(self) -> dict[str, int]:
        if self.params.price_formation == "bargain":  # prices are bargained: sellers decide nothing
            return {"buyer": self.params.n_buyers}
        return {"seller": self.params.n_sellers, "buyer": self.params.n_buyers}

    def build_stages(self) -> tuple[Stage, ...]:
        p, n, m = self.params, self.params.n_buyers, self.params.n_sellers
        full = p.observation == "full"
        price: Codec = BoxCodec() if p.price_levels is None else GridCodec(p.price_levels)
        width = 1 if p.purchase_mode == "total" else m
        amount: Codec = BoxCodec(width) if p.amount_levels is None else MultiGridCodec((p.amount_levels,) * width)
        sizes = (n + m + 3, 6 * n + 2 * m + 1 if full else n, 4 * n + 2 * m + 4 if full else m)
        boxes = [spaces.Box(0.0, 1.0, (d,), np.float32) for d in sizes]
        stages = (Stage("pricing", "seller", price, boxes[1]), Stage("purchase", "buyer", amount, boxes[2]))
        if p.formation == "labels":
            label = Stage("coalition", "buyer", TableCodec(np.arange(n)[:, None]), boxes[0])
            return (label,) if p.price_formation == "bargain" else (label, *stages)
        return stages

    def setup(self) -> None:
        p, real = self.params, self.backend.asarray
        self._delay = real(service_mask(p, "urllc"))
        self._mmtc = real(service_mask(p, "mmtc"))
        self._seats = None if p.seats is None else real([[float(s) for s in p.seats]])
        self._radio = channel.radio_preset(p.radio)
        if p.selection == "matching":  # seller k serves the coalition of rank k: sellers are not interchangeable
            self.anonymous = ()  # type: ignore[misc]
        self._trace_rates = real(self._measured_rates()) if p.channel == "trace" else None
        if p.channel == "drop":
            users = np.asarray(p.users, dtype=float)
            if users.ndim or users % 1:
                raise InvalidParameter(f"channel='drop' needs one whole number of users, got users={p.users!r}")
            self._users = int(users)

    def _measured_rates(self) -> np.ndarray:
        """PRB rate of every buyer in every slot of the trace, (slots, N)."""
        gains, n = channel.read_gains(self.params.gains), self.params.n_buyers
        if gains.shape[0] % n:
            raise InvalidParameter(f"the trace has {gains.shape[0]} users, which {n} buyers cannot share equally")
        efficiency = self._radio.trace_efficiency(gains)  # users x slots
        shaped = efficiency.reshape(n, -1, gains.shape[2]).transpose(2, 0, 1)
        return channel.tenant_rate_kbps_per_prb(shaped, self._radio.prb_bandwidth_hz, self.params.scheduler)

    # -- parameters -------------------------------------------------------------------------------------------------

    def derive(self, theta: Any) -> Any:
        xp, p, iterate = self.xp, self.params, self.backend.iterate
        half = 0.5 if p.capacity_rule == "half" else 1.0 / max(2, p.n_sellers)
        room = theta.capacity if p.capacity_rule == "given" else theta.trade_prbs * half + 0.0 * theta.capacity
        rate_need = self._mmtc * theta.mmtc_rate + (1.0 - self._mmtc) * theta.embb_rate
        arrivals = 1000.0 * theta.urllc_rate / theta.packet_bits
        delay_need = theta.packet_bits * (arrivals + 1000.0 / theta.urllc_delay) / 1000.0
        need_unit = theta.users * xp.where(self._delay > 0, delay_need + 0.0 * self._delay, rate_need)
        load = arrivals * theta.urllc_delay * 0.001 * self._delay
        scale, zero = theta.money_value * theta.reputation, 0.0 * (theta.reputation + theta.steepness + load)
        ready = settlement.prepare(xp, iterate, scale + zero, theta.steepness + zero, load + zero, self._delay + zero)
        theta = theta._replace(room=room, need_unit=need_unit + 0.0 * theta.reputation, ready=ready)
        tabled = p.integer_prbs or p.sharing == "shapley" or p.price_formation == "bargain"
        return solve.with_tables(self, theta) if tabled else theta

    def history_noise(self) -> Mapping[str, Noise]:
        if self.params.channel != "drop":
            return {}
        n, users = self.params.n_buyers, self._users
        fields = {"place": Noise("uniform", (n, users, 2)), "shadow": Noise("normal", (n, users))}
        return {**fields, "sight": Noise("uniform", (n, users))} if self._radio.los == "prob" else fields

    def first_history(self, theta: Any, noise: Mapping[str, Array], batch: int) -> CoalitionHistory:
        """Nothing traded, lowest prices posted; users dropped (``drop``), coalitions merged (``merge``)."""
        p = self.params
        zero = self.backend.asarray(np.zeros((batch, p.n_buyers)))
        rate: Any = ()
        if p.channel == "drop":
            radio = self._radio
            distance = radio.distance_m(radio.drop(noise["place"]))
            quality = radio.sinr(radio.loss_db(distance, noise["shadow"], noise.get("sight")))
            efficiency = radio.spectral_efficiency(quality)
            rate = channel.tenant_rate_kbps_per_prb(efficiency, radio.prb_bandwidth_hz, p.scheduler)
        price = theta.price_min + self.backend.asarray(np.zeros((batch, p.n_sellers)))
        trusted = 1.0 + 0.0 * price if p.reputation_rule == "ema" else ()
        history = CoalitionHistory(price, 0.0 * price, zero, zero, rate, (), trusted)
        if p.formation == "merge":
            rounds = self.backend.integers(np.zeros(batch, dtype=np.int32))
            state = State(theta, (), zero, rounds, history, (), {})
            history = history._replace(labels=self.backend.asarray(solve.merged_labels(self, state)))
        return history

    def rates(self, state: State) -> Array:
        """PRB rate of every buyer in the coming round, kbit/s, (1 or B, N)."""
        if self.params.channel == "drop":
            return state.history.rate
        if self.params.channel == "trace":
            measured: Any = self._trace_rates
            slots = measured.shape[0]
            return self.xp.take(measured, settlement.as_index(self.xp, state.round) % slots, axis=0)
        return state.theta.prb_rate

    def needs(self, state: State) -> tuple[Array, Array]:
        """PRBs for half satisfaction (1 or B, N), and who can be served at all (a rate of 0 never buys)."""
        rate = self.rates(state)
        alive = rate > 0
        return self.xp.where(alive, state.theta.need_unit / self.xp.where(alive, rate, 1.0 + 0.0 * rate), 1.0), alive

    def labels(self, state: State, decisions: Mapping[str, Array]) -> Array:
        """Every buyer's coalition label, (1 or B, N)."""
        if self._seats is not None:
            return self._seats
        return state.history.labels if self.params.formation == "merge" else decisions["coalition"][:, :, 0]

    def bounds(self, state: State, stage: str) -> tuple[Array, Array]:
        theta = state.theta
        if stage == "pricing":
            return theta.price_min[:, :, None], theta.price_max[:, :, None]
        if stage == "coalition":
            zero = 0.0 * theta.price_min[:, :, None]
            return zero, zero + (self.params.n_buyers - 1.0)
        room = theta.room[:, None, :]
        room = self.xp.sum(room, axis=2, keepdims=True) if self.params.purchase_mode == "total" else room
        return 0.0 * room, room

    def standing(self, state: State, decisions: Mapping[str, Array]) -> tuple[Array, Array, Array]:
        """Members by slot (., N, N), ranks by slot (., N) and served coalitions (., Z, N)."""
        xp = self.xp
        slots = settlement.coalitions(xp, self.labels(state, decisions))
        rank, _, _ = settlement.ranks(xp, slots, state.theta.reputation)
        if self.params.selection == "winner":
            return slots, rank, xp.any(slots & (rank == 0)[:, :, None], axis=1)[:, None, :]
        limit = self.params.n_buyers if self.params.selection == "all" else self.params.n_sellers
        return slots, rank, slots & (rank < limit)[:, :, None]

    def acting(self, state: State, stage: str) -> Array:
        like = super().acting(state, stage)
        if stage != "purchase":
            return like
        return like & self.xp.any(self.standing(state, state.decisions)[2], axis=1)

    # -- settlement -------------------------------------------------------------------------------------------------

    def deal(self, state: State, decisions: Mapping[str, Array]) -> Deal:
        """Who is served, what is bought, who holds it and what it is worth."""
        xp, p, theta = self.xp, self.params, state.theta
        price, asked = decisions["pricing"][:, :, 0], decisions["purchase"]
        slots, rank, served = self.standing(state, decisions)
        need, alive = self.needs(state)
        asked = xp.floor(asked) if p.integer_prbs else asked
        mine = xp.where(served[..., None], asked[:, None, :, :], 0.0 * asked[:, None, :, :])
        requested = xp.sum(mine, axis=2)  # (B, Z, M) or (B, 1, 1)
        room = theta.room[:, None, :]
        if p.purchase_mode == "total":
            bought = settlement.purchases(xp, requested[:, 0, :], price, theta.room + 0.0 * price)[:, None, :]
        elif p.selection == "winner":
            bought = xp.minimum(requested, room)
        else:
            if p.selection == "matching":
                own = xp.arange(p.n_sellers, device=settlement._device(rank)) == rank[:, :, None]
                requested = xp.where(own, requested, 0.0 * requested)
            ahead = (rank[:, None, :] < rank[:, :, None])[..., None]
            taken = xp.sum(xp.where(ahead, requested[:, None, :, :], 0.0 * requested[:, None, :, :]), axis=2)
            bought = xp.minimum(xp.maximum(room - taken, 0.0 * requested), requested)
        total = xp.sum(bought, axis=2)
        if p.integer_prbs:
            held, value = solve.tabled_split(self, theta, served, total)
        else:
            real = served & alive[:, None, :]
            held = settlement.divide(xp, self.backend.iterate, theta.ready, need, real, total)
            value = settlement.worth(xp, theta.ready, need, real, held)
        bill = xp.sum(bought * price[:, None, :], axis=2)
        gross = xp.sum(value, axis=2) - bill
        return Deal(served, slots, rank, requested, bought, xp.sum(held, axis=1), xp.sum(value, axis=1), gross, bill)

    def shares(self, state: State, slots: Array) -> Array:
        """Share of every buyer in its own coalition's utility, (., N)."""
        xp, kind = self.xp, self.params.sharing
        if kind == "shapley":
            return solve.tabled_shares(self, state.theta, slots)
        weight = state.theta.reputation if kind == "reputation" else 1.0 + 0.0 * state.theta.reputation
        both = xp.where(slots, weight[:, None, :], 0.0 * weight[:, None, :])
        total = xp.sum(both, axis=2, keepdims=True)
        return xp.sum(both / xp.where(total > 0, total, 1.0 + 0.0 * total), axis=1)

    def settled(self, state: State, decisions: Mapping[str, Array]) -> tuple[Deal, Array]:
        """The round's trade and its prices (B, M)."""
        if self.params.price_formation == "bargain":
            return bargaining.deal(self, state, decisions["coalition"][:, :, 0])
        return self.deal(state, decisions), decisions["pricing"][:, :, 0]

    def payoffs(self, state: State, price: Array, deal: Deal) -> dict[str, Array]:
        """Payoffs of a settled round, sellers' included where they are no agents."""
        xp, theta = self.xp, state.theta
        margin = price - theta.lease_price
        size = xp.sum(xp.astype(deal.slots, margin.dtype), axis=2)
        own_size = xp.sum(xp.where(deal.slots, size[:, :, None], 0.0 * size[:, :, None]), axis=1)
        cost = theta.signalling * own_size * (own_size - 1.0)
        inside = xp.astype(deal.served, margin.dtype)
        if self.params.sharing == "own":
            total = xp.sum(deal.bought, axis=2)
            mean = deal.bill / xp.where(total > 0, total, 1.0 + 0.0 * total)
            buyers = deal.value - deal.held * xp.sum(inside * mean[:, :, None], axis=1) - cost / own_size
        else:
            buyers = self.shares(state, deal.slots) * (xp.sum(inside * deal.gross[:, :, None], axis=1) - cost)
        return {"seller": margin * xp.sum(deal.bought, axis=1), "buyer": buyers}

    def expected(self, state: State, decisions: Mapping[str, Array]) -> dict[str, Array]:
        if self.params.model == "paper":
            return literal.payoffs(self, state, decisions)
        deal, price = self.settled(state, decisions)
        return {role: x for role, x in self.payoffs(state, price, deal).items() if role in self.roles}

    def settle(self, state: State, decisions: Mapping[str, Array]) -> Outcome:
        if self.params.model == "paper":
            return literal.settle(self, state, decisions)
        deal, price = self.settled(state, decisions)
        payoffs = self.payoffs(state, price, deal)
        found = metrics(self, state, price, deal, payoffs)
        return Outcome({role: x for role, x in payoffs.items() if role in self.roles}, found)

    def remember(self, state: State, decisions: Mapping[str, Array], outcome: Outcome) -> CoalitionHistory:
        names = ("sold", "traded", "held", *(("seller_reputation",) if self.params.reputation_rule == "ema" else ()))
        seen = {name: outcome.metrics[name] for name in names}
        price = decisions["pricing"][:, :, 0] if "pricing" in decisions else outcome.metrics["price"]
        return state.history._replace(price=price, **seen)

    def joint_groups(self, state: State, profile: Any) -> np.ndarray:
        """Which buyers move together at stage ``purchase``: the slot of everybody's coalition, (B, N)."""
        slots = self.backend.numpy(self.standing(state, profile)[0])
        return np.broadcast_to(np.argmax(slots, axis=1), (self.batch(state), self.params.n_buyers))

    # -- observations -----------------------------------------------------------------------------------------------

    def observe(self, state: State, stage: str) -> Array:
        from .observations import observe

        return observe(self, state, stage)

    # -- solvers ----------------------------------------------------------------------------------------------------

    def solve(self, state: State) -> Equilibrium:
        return solve.equilibrium(self, state)

    def respond(self, state: State, prefix: Mapping[str, Any]) -> Equilibrium:
        return solve.respond(self, state, prefix)

    def best_reply(self, state: State, stage: str, decisions: Mapping[str, np.ndarray]) -> BestResponse:
        from . import replies

        return replies.best_reply(self, state, stage, decisions)

    def mixed_reply(self, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
        from . import mixed_replies

        return mixed_replies.mixed_reply(self, state, stage, profile)

    def mixed_payoff(self, state: State, profile: Mapping[str, Strategy]) -> dict[str, np.ndarray]:
        from . import mixed_replies

        return mixed_replies.mixed_payoff(self, state, profile)

    def optimum(self, state: State) -> SocialOptimum:
        return solve.optimum(self, state)

    def analysis(self, state: State) -> dict[str, Any]:
        from . import analysis

        return analysis.analysis(self, state)
