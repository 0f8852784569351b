r"""Two-tier bidding: operators bid for bandwidth, then divide what they won over service slices.

One base station holds C MHz. M virtual operators bid for it (upper tier); each divides its share over three slices,
VoLTE, eMBB and URLLC (lower tier). The question: which payment rule makes greedy operators share well? The paper's
own provably does not.

**Timeline of a round.** (``posting``: an infrastructure agent posts prices, only with ``posting="agent"``.)
``bidding``: operators submit sealed bids b_m at once. Shares follow, c_m = C b_m / sum b, with
``allocation="blocks"`` rounded by largest remainder (ties to the lower index). ``slicing`` (only with
``lower="agents"``): each slicer sees its blocks and divides them. Then rates, satisfaction, payments and rewards.
Rounds are a one-shot game repeated; only fed-back prices (``posting="feedback"``) carry over, so the discount factor
is strategically irrelevant (queues of ``traffic="packet"`` carry over, too, and there it matters). An episode is
truncated after ``horizon`` rounds and never terminates. Users stand still within an episode.

**Roles.** ``bidder`` and ``slicer`` per operator; ``control="merged"``: one ``operator`` acts at both stages;
``control="central"``: one bidder chooses all M bids (the paper's Algorithm 1). ``lower="ideal"``: no slicers, the
share is split sum-rate optimally in closed form (the analytic market); ``lower="table"``: slicers play table A, the
best split for the blocks at hand.

**Payments** (v the operator's value of its rate, s = c/C, B_- the others' bids):

| ``payment`` | charge | equilibrium |
|---|---|---|
| ``kelly`` | q_m b_m, one price | unique, efficiency >= 3/4 without boxes |
| ``posted`` | q_m b_m, a price each: ``fixed``, ``feedback`` k(1 - last s), ``agent`` | unique; k(1 - s*) is efficient |
| ``efficient`` | k B_- ln(1 + b_m/B_-) | the welfare optimum, unless a bid is at a bound |
| ``eq4`` | c v'(c)(1 - s): eq. (4) with the lost prime | everybody bids the cap (strictly dominant) |
| ``eq4_literal`` | R v(c) s (1 - s): eq. (4) as printed | everybody bids the cap if R = 1 and c v'/v >= 0.1547 |

**Actions.** Bidding: Box(-1, 1) onto [floor, cap] (both per user), linear or geometric; with ``bid_levels`` Discrete
over a pool of K bids; a central bidder has a Box(M), or Discrete(K^M). Slicing: ``split="discrete"`` is Discrete over
pairs (n_V, n_E), n_V + n_E <= N (1326 for 50 blocks), masked by n_V + n_E <= n_m, URLLC gets the rest; an unmasked
illegal pair becomes the nearest legal one in L1 (of several the lexicographically smallest), counted in
``illegal_splits``. ``split="simplex"`` is Box(3): weights, normalised (all zero: equal), largest remainder. Posting:
Box(M), geometric on [price_min, price_max]. Bids outside their box are clipped and counted in ``clipped``; NaN
raises.

**Observations**, all clipped to [0, 1]; *last* is the round before, zeros at first:

- bidding, 13 entries: log10(S/MHz)/15; users/20 (V, E, U); value weight/10; last c/C; last rate/(10 x sum of agreed
  rates); last SSR (V, E, U); price/10; last sum b/sum of caps; 0.5 + 0.5 tanh(last profit/500).
- slicing, 11 entries: c/C; per service users/20, mean log10(S)/15, last SSR; last SE/400.
  With ``traffic="packet"`` 3 more: mean queue of each service's users over ``queue_length``.
- posting, 3M entries: last c/C, last b/cap, last price/10 of every operator.

``full`` (``own`` is the default) adds every rival's log10(S)/15 and last b/cap to bidding (13 + 2(M - 1)). ``paper``:
bidding sees all rates over agreed rates (M), slicing its three last satisfaction ratios (3). A central bidder sees
all operators' own rows (13 M), or the paper's (M).

**Rewards.** ``profit``: bidder y_m = w v_m - payment, slicer f_m = rho SE + sum_s phi_s SSR_s. ``utility``: bidder
f_m + omega y_m. ``team``: all get F = sum f + omega sum y. ``paper``: the shaped rewards of Section 4.1 (upper from
means over operators and the system's SE, lower from own values; both in ``literal``). A merged operator earns the bidder's reward; a
central bidder the sum (team and paper: the common value). The infrastructure earns the payments. With
``ssr_noise="binomial"`` slicers' reports are Binomial(npk, SSR)/npk; the upper gates use the true ratios.

**Metrics.** ``welfare`` (total value of the rates; F under ``team``), ``value`` (total w v), ``revenue``,
``objective`` (F), per operator ``price bid bandwidth blocks rate payment profit spectral_efficiency``, ``loss_share``
(operators with y < 0), and with a lower tier ``utility ssr_* blocks_* illegal_splits``; with packets ``delivered_*``
(Mb/s that passed) and ``busy_efficiency`` (PHY rates served over bandwidth, idle time included).

**Equilibrium.** Analytic markets: unique equilibrium by a bracketed Newton iteration on ln(sum b), boxes included,
exact best responses, certified. Pools: every profile enumerated; all pure equilibria, else ``exists=False`` with the
profile of least NashConv. Continuous bids over whole blocks (rewards ``profit`` and ``utility``): an operator's blocks
never fall in its bid, so the best response is exact from the least bids for 0..N blocks; the profile is the best that
sequential replies met, with its exact epsilon (``kind="bound"``, about the price of one block: bids are shaved down to
the breakpoints of the rounding, and no stable profile was found), certified only if that is 0 (eq. 4's rules). Price
leadership, shared rewards with continuous bids, and ``eq4_literal`` outside its proved range: searched, never
certified. Slicer regret: exact by enumeration.

**Packets** (``traffic="packet"``, with a lower tier). A round is ``subframes`` of 0.5 ms; users receive packets, which wait
in queues of ``queue_length``; satisfaction is the share of valid ones among those that ended in the round (`packets`
has the laws). Rates, and with them profits, are as before. Queues carry over: the market is a real decision process.
The oracle knows the round's packets and answers for that round alone: a clairvoyant benchmark, an estimate, never
certified.

**Measured channels** (``channel="trace"``, ``gains`` of shape (users, PRBs, rounds)): round t uses slot t of the trace, its
mean over PRBs per user (bandwidth is divided in MHz, not PRB by PRB), known before bids, fading included; the trace
starts again at its end. Exact oracles per round, as with ``fading="sampled"``.

**Presets.** ``bidding`` (default, certified): ideal lower tier, continuous, Kelly. ``two_tier``: bidders with pools
of 10, slicers on blocks. ``physical``: two_tier with L = 1 and no receiver gain (eMBB is best abandoned).
``heterogeneous``: value weights 1, 2, 4, 8 (the default's welfare is nearly flat: equal shares reach 0.998 of the
optimum). ``drawn``: value weights LogUniform(0.5, 8), random drop, 8 dB shadowing. ``reduced``: linear values 10, 8,
6, 1 without radio. ``paper``: central bidder, 4-level pools, table A, eq. (4) as printed, shaped reward.

**Fidelity** (numbers: the default instance; eq. numbers count back from (17)):

1. f_m is (14), SE (12), SSR (13); the text calls f_m "(15)" and Algorithm 1 computes F "by (5)", which is alpha.
2. The prime of (4) is lost: v'(c) gives consistent units (y 187-219 Mb/s per operator at 11-12 blocks; the paper
   shows 184-194), v(c) does not (731 with R = 1, -787 with R = 10 at c = 2.5). ``eq4`` is the first, ``eq4_literal``
   the second.
3. "The penalty prevents over-bidding" is false under both: dy/dc > 0, so the cap is dominant. With q frozen instead,
   EVERY bid vector is an equilibrium; with q lagged by one round the shares never move. So (2)-(5) alone define no
   meaningful game: hence ``payment``.
4. (14) sums SSR over users, Table 4 fits three service ratios: ``ssr_sum="services"`` (default) or ``"users"``.
5. F with omega = 0.1 per Mb/s cannot give Table 4 (F >= 24 where it says 9.01), and its optimum gives one operator
   all 50 blocks (F = 323.5186; omega 0.02 still starves three). Default ``omega_unit="Gbps"`` (optimum (11, 11, 10,
   18), F = 25.4073); ``"Mbps"`` is literal.
6. Noise in (11) grows with c, power does not shrink: 97 users at 46 dBm each (3.9 kW). ``power_mode="per_user"``
   (paper) or ``"psd"``.
7. Log base, antennas, path loss and receiver gain are absent; the physical log2 gives SE 24-28, never 300. 32 log10(1
   + SNR), 20 dB and 145.4 + 37.5 log10(d/km) [inferred from the simulator of the paper's ref. 2] give 294-335. True
   Rayleigh here, 8 dB lognormal there.
8. Feasibility: all users at their agreed rate need 155.5 MHz (L = 1, no gain), 11.03 MHz at the default L, 129 whole
   blocks: full service is impossible in 10 MHz; the reported 0.96-1.0 needs users that are rarely active together.
9. Traffic: inter-arrival times are not given. Activity 0.0062 / 0.075 / 0.25 is ours; the closed-form SSR fits packet
   simulations for eMBB (n = 4, 6, 8 blocks: 0.829/0.970/0.997 against 0.826/0.962/0.997 in the spec's simulation and
   0.795/0.958/0.995 with ``traffic="packet"``, whose activity is 0.084: the closed form at that activity gives
   0.796/0.959/0.995) and is optimistic for URLLC at one block (0.9996 against 0.66 and 0.64).
10. Two notions of SE: allocated (12) hardly depends on the split (317-336 over all splits of 13 blocks), so
   Q-learning's 168 against 297 cannot come from it; a delivered accounting gives 113-169. No single one gives both.
11. The state "bandwidth / minimum rate" mixes units (here rate / rate). Table A indexed by the own bid ignores that
   c_m depends on all bids: indexed by blocks here. Users add to 97, not 100. "c_m c_n = 0" literally lets one
   operator own bandwidth. Sums start at j = 0.
12. The shaped rewards are read as a cascade; they have a cliff (profit 185: SE 219.99 earns 4, SE 220 earns 3) and
   their optimum is not F's.
13. eMBB's agreed rate is 0.1 Gb/s in Table 2 and 1 Gb/s in the text, URLLC's 0.01 and 0.1: Table 2 is taken.
14. alpha means four things; the users' 20 dBm is unused downlink. (13) counts valid packets over SENT ones.
15. The upper algorithm is DQN in the abstract, Algorithm 1 and Table 4, Dueling DQN in introduction and conclusion;
   Figs 2-6 are captioned DQN and discussed as Dueling; Figs 5 and 6 share a caption; the conclusion cites a hard
   slicing comparison that is not shown.
16. Table 4: "more unstable" for all four, percentages off (1.33 is printed 1.1, 33.9 as 34.1); "SE > 300, utility >
   6" against 297 and 5.93.
17. Bid floors break individual rationality and caps the 3/4 bound: ``heterogeneous`` has y_0 = -0.2425 and 0.638 of
   the optimum (0.852 without).
18. (4) needs every operator's v', which the infrastructure does not know; ``posting="feedback"`` uses observables
   only.
19. With fixed prices and no fading revealed, both "MDPs" are bandits: the best action depends on neither state nor
   discount.
20. f_m falls with c_m once SSR saturates (f_0(9) = 6.3630 > f_0(50) = 6.1734): bidders are paid profit, not f.
21. Throughput-based validity cannot hold for 2000-bit packets at 100 Mb/s in 0.5 ms; validity is by PHY rate, as the
   paper words it.

Ours beyond the source: the value weight is observed (entry 5 of bidding), so that drawn markets can be told apart;
the shaped reward's SE is the system's (sum of rates over C). Drawn user counts must be whole numbers (use
``Choice``). A parameter that drifts does not move users of a random drop.

**Version history.** v0: first release.

**Source.** G. Chen, X. Zhang, F. Shen, Q. Zeng, "Two Tier Slicing Resource Allocation Algorithm Based on Deep
Reinforcement Learning and Joint Bidding in Wireless Access Networks", Sensors 22(9):3495, 2022. Mechanisms: R. Johari
and J. Tsitsiklis, "Efficiency loss in a network resource allocation game", 2004; R. Maheswaran and T. Basar 2006; S.
Yang and B. Hajek 2007.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium import spaces

from ...arrays import Array, Noise
from ...codecs import BoxCodec, Codec, GridCodec
from ...market import Market, Outcome, Stage, State
from ...params import theta_type
from ...strategy import BestResponse, Equilibrium, SocialOptimum, Strategy
from . import literal, packets, radio, replies, settlement, solve, views
from .parameters import BiddingParams, JointPoolCodec, SplitCodec

BiddingTheta = theta_type("BiddingTheta", BiddingParams, derived=("headcount", "network", "log_ways"))


class BiddingHistory(NamedTuple):
    """What carries over: the drop of users (if random) and the last round's public results, (B, M) each."""

    network: Any
    price: Array
    bids: Array
    bandwidth: Array
    rate: Array
    profit: Array
    ssr: Array
    """(B, M, 3)"""
    efficiency: Array
    queues: Any = ()
    """`packets.Queues` under packet traffic."""


class TwoTierBidding(Market):
    """The two-tier bidding market; see the module's docstring."""

    Params = BiddingParams
    Theta = BiddingTheta
    information: ClassVar[str] = "public"
    welfare_name = "total value of the rates (payments are transfers)"  # of F under reward="team"
    params: BiddingParams

    def count_roles(self) -> dict[str, int]:
        p = self.params
        if p.control == "merged":
            roles = {"operator": p.n_operators}
        else:
            roles = {"bidder": 1 if p.control == "central" else p.n_operators}
            if p.slicers:
                roles["slicer"] = p.n_operators
        return {**({"infrastructure": 1} if p.posting == "agent" else {}), **roles}

    def build_stages(self) -> tuple[Stage, ...]:
        p, m = self.params, self.params.n_operators
        central, merged = p.control == "central", p.control == "merged"
        width = {"paper": m, "own": views.OWN_SIZE, "full": views.OWN_SIZE + 2 * (m - 1)}[p.observation]
        if central and p.observation != "paper":
            width = views.OWN_SIZE * m

        def stage(name: str, role: str, codec: Codec, size: int) -> Stage:
            return Stage(name, role, codec, spaces.Box(0.0, 1.0, (size,), np.float32))

        stages = []
        if p.posting == "agent":
            stages.append(stage("posting", "infrastructure", BoxCodec(m, "log"), 3 * m))
        bid: Codec
        if central and p.bid_levels is not None:
            bid = JointPoolCodec(p.bid_levels, m, p.bid_scale)
        elif central:
            bid = BoxCodec(m, p.bid_scale)
        else:
            bid = BoxCodec(1, p.bid_scale) if p.bid_levels is None else GridCodec(p.bid_levels, p.bid_scale)
        stages.append(stage("bidding", "operator" if merged else "bidder", bid, width))
        if p.slicers:
            split: Codec = SplitCodec(p.blocks) if p.split == "discrete" else BoxCodec(3)
            size = 3 if p.observation == "paper" else views.SLICER_SIZE + (3 if p.packets_flow else 0)
            stages.append(stage("slicing", "operator" if merged else "slicer", split, size))
        return tuple(stages)

    def setup(self) -> None:
        """Packets of a round are hidden from everybody but the oracle."""
        if self.params.packets_flow:
            self.information = "clairvoyant"  # type: ignore[misc]

    # -- state ------------------------------------------------------------------------------------------------------

    def derive(self, theta: Any) -> Any:
        xp, p = self.xp, self.params
        network: Any = ()
        if p.positions == "rings" and p.channel == "model":
            network = radio.build_network(p, self.backend, theta, radio.drop_users(p, self.backend, theta, None, None))
        elif p.positions == "given":
            network = radio.Network((), theta.snr_bandwidth, (), (), (), (), ())
        log_ways: Any = ()
        if p.ssr_noise == "binomial":
            log_ways = self._log_ways(theta.packets)
        return theta._replace(headcount=xp.sum(theta.users, axis=2), network=network, log_ways=log_ways)

    def _log_ways(self, packets: Array) -> Array:
        """Logarithm of C(npk, k), (B, 1, 3, K+1) with k along the last axis, by running sums of logarithms."""
        xp, most = self.xp, self.max_packets()
        steps = self.backend.asarray(np.log(np.maximum(np.arange(most + 1.0), 1.0)))
        k = self.backend.asarray(np.arange(most + 1.0))
        n = packets[:, None, :, None]
        up = xp.log(xp.where(n - k + 1.0 > 0, n - k + 1.0, 1.0))
        terms = xp.where(k > 0, up - steps, 0.0 * up)
        return xp.cumulative_sum(terms, axis=3)

    def max_packets(self) -> int:
        return math.ceil(self.params.bounds_of("packets")[1])

    def history_noise(self) -> Mapping[str, Noise]:
        noise, shape = {}, (self.params.n_operators, 3, self.params.max_users)
        if self.params.positions == "random":
            noise = {"radius": Noise("uniform", shape), "shadowing": Noise("normal", shape)}
        if self.params.packets_flow:
            noise["first_packet"] = Noise("uniform", shape)
        return noise

    def first_history(self, theta: Any, noise: Mapping[str, Array], batch: int) -> BiddingHistory:
        xp, p, m = self.xp, self.params, self.params.n_operators
        network: Any = ()
        if p.positions == "random":
            snr = radio.drop_users(p, self.backend, theta, noise["radius"], noise["shadowing"])
            network = radio.build_network(p, self.backend, theta, snr)
        elif p.channel == "trace":
            network = self._measured(theta, self.backend.integers(np.zeros(batch, dtype=np.int32)))
        zero = xp.zeros((batch, m), dtype=self.backend.dtype, device=self.backend.device)
        price = zero + theta.price
        if p.posting == "feedback":
            price = price * (1.0 - 1.0 / m)
        queues = packets.first_queues(self.backend, noise["first_packet"]) if p.packets_flow else ()
        none = xp.stack((zero, zero, zero), axis=2)
        return BiddingHistory(network, price, zero, zero, zero, zero, none, zero, queues)

    def _measured(self, theta: Any, round_: Array) -> radio.Network:
        """The network that the trace shows in each market's round."""
        snr = radio.measured_users(self.params, self.backend, theta, round_)
        return radio.build_network(self.params, self.backend, theta, snr)

    def round_noise(self) -> Mapping[str, Noise]:
        p, noise = self.params, {}
        if p.fading == "sampled":
            noise["fading"] = Noise("exponential", (p.n_operators, 3, p.max_users))
        if p.ssr_noise == "binomial":
            noise["reports"] = Noise("uniform", (p.n_operators, 3))
        if p.packets_flow:
            shape = (p.n_operators, 3, p.max_users, p.subframes)
            noise |= {"gaps": Noise("uniform", shape), "sizes": Noise("uniform", shape)}
            if not p.known_fading:
                noise["fast_fading"] = Noise("exponential", shape)
        return noise

    def draw_nature(self, state: State, noise: Mapping[str, Array]) -> Any:
        nature = dict(noise)
        if self.params.fading == "sampled":
            still = self._still(state)
            nature["network"] = radio.build_network(
                self.params, self.backend, state.theta, still.user_snr * nature.pop("fading")
            )
        return nature

    def _still(self, state: State) -> radio.Network:
        """The network at mean fading."""
        moving = self.params.positions == "random" or self.params.channel == "trace"
        return state.history.network if moving else state.theta.network

    def network(self, state: State) -> radio.Network:
        """The network of the coming round."""
        return state.nature["network"] if self.params.fading == "sampled" else self._still(state)

    def prices(self, state: State, decisions: Mapping[str, Array]) -> Array:
        """Prices (B, M) of the round: posted by the agent, fed back, or fixed."""
        if self.params.posting == "agent":
            return decisions["posting"][:, 0, :]
        if self.params.posting == "feedback":
            return state.history.price
        return state.theta.price + 0.0 * state.history.price

    # -- decisions --------------------------------------------------------------------------------------------------

    def bounds(self, state: State, stage: str) -> tuple[Array, Array]:
        theta, xp = state.theta, self.xp
        if stage == "posting":
            shape = (1, 1, self.params.n_operators)
            low, high = (
                xp.broadcast_to(b[:, :, None], (b.shape[0], *shape[1:])) for b in (theta.price_min, theta.price_max)
            )
            return low, high
        if stage == "bidding":
            axis = 1 if self.params.control == "central" else 2
            low, high = theta.headcount * theta.floor_per_user, theta.headcount * theta.cap_per_user
            return xp.expand_dims(low, axis=axis), xp.expand_dims(high, axis=axis)
        zero = 0.0 * theta.bandwidth[:, :, None]
        width = 2 if self.params.split == "discrete" else 3
        zero = xp.broadcast_to(zero, (zero.shape[0], 1, width))
        return zero, zero + (float(self.params.blocks) if width == 2 else 1.0)

    def bids(self, decisions: Mapping[str, Array]) -> Array:
        """Bids (B, M), whoever decided them."""
        bid = decisions["bidding"]
        return bid[:, 0, :] if self.params.control == "central" else bid[:, :, 0]

    def allocate(self, state: State, bids: Array) -> tuple[Array, Array]:
        """Bandwidths in MHz (eq. 2) and blocks, (B, M) each; nothing to anybody where nobody bids."""
        xp = self.xp
        total = xp.sum(bids, axis=1, keepdims=True)
        share = xp.where(total > 0, bids / xp.where(total > 0, total, 1.0), 0.0 * bids)
        if self.params.allocation == "continuous":
            return state.theta.bandwidth * share, self.params.blocks * share
        blocks = radio.round_blocks(self.params, xp, share)
        return state.theta.bandwidth * blocks / self.params.blocks, blocks

    def action_mask(self, state: State, stage: str) -> Array | None:
        """A split is legal if it uses no more blocks than the operator won (all are, while bids are not committed)."""
        if stage != "slicing" or self.params.split != "discrete":
            return None
        if "bidding" not in state.decisions:
            shape = (self.batch(state), self.params.n_operators, len(SplitCodec(self.params.blocks).table))
            return self.xp.ones(shape, dtype=self.xp.bool, device=self.backend.device)
        _, blocks = self.allocate(state, self.bids(state.decisions))
        pairs = SplitCodec(self.params.blocks).table
        return self.backend.asarray(pairs.sum(axis=1)) <= blocks[:, :, None] + 0.5

    # -- settlement -------------------------------------------------------------------------------------------------

    def expected(self, state: State, decisions: Mapping[str, Array]) -> dict[str, Array]:
        return settlement.rewards(self, state.theta, settlement.settled(self, state, decisions), expected=True)

    def settle(self, state: State, decisions: Mapping[str, Array]) -> Outcome:
        xp, p, theta = self.xp, self.params, state.theta
        true = s = settlement.settled(self, state, decisions)
        payoffs = settlement.rewards(self, theta, s, expected=False)
        if p.ssr_noise == "binomial":
            packets = xp.round(theta.packets)[:, None, :]
            pmf = literal.binomial_pmf(xp, s.ssr, packets, theta.log_ways, self.max_packets())
            below = xp.cumulative_sum(pmf, axis=3) < state.nature["reports"][..., None]
            ssr = xp.minimum(xp.sum(xp.astype(below, s.ssr.dtype), axis=3), packets) / packets
            utility = s.utility + xp.sum(radio.split_gain(p, xp, theta) * (ssr - s.ssr), axis=2)
            s = s._replace(ssr=ssr, utility=utility)
            payoffs = settlement.rewards(self, theta, s, expected=False)
            if p.reward == "paper":  # the upper tier's gates use the true ratios
                payoffs = {
                    **settlement.rewards(self, theta, true, expected=False),
                    **{k: v for k, v in payoffs.items() if k == "slicer"},
                }
        objective = xp.sum(s.utility + settlement.omega(self, theta) * s.profit, axis=1)
        metrics = {
            "welfare": objective if p.reward == "team" else xp.sum(s.worth, axis=1),
            "value": xp.sum(s.worth, axis=1),
            "revenue": xp.sum(s.payment, axis=1),
            "objective": objective,
            "price": s.price,
            "bid": s.bids,
            "bandwidth": s.bandwidth,
            "blocks": s.blocks,
            "rate": s.rate,
            "payment": s.payment,
            "profit": s.profit,
            "loss_share": xp.mean(xp.astype(s.profit < 0, s.profit.dtype), axis=1),
            "spectral_efficiency": s.efficiency,
        }
        if p.lower != "ideal":
            metrics["utility"] = s.utility
            for i, name in enumerate(("volte", "embb", "urllc")):
                metrics[f"ssr_{name}"] = s.ssr[:, :, i]
                metrics[f"blocks_{name}"] = s.split[:, :, i]
                if p.packets_flow:
                    metrics[f"delivered_{name}"] = s.delivered[:, :, i]
            if p.packets_flow:  # the other notion of efficiency: idle time counts
                band = xp.where(s.bandwidth > 0, s.bandwidth, 1.0)
                metrics["busy_efficiency"] = xp.sum(s.busy, axis=2) / band
            metrics["illegal_splits"] = xp.sum(xp.astype(s.illegal, xp.int32), axis=1)
        return Outcome(payoffs, metrics)

    def remember(self, state: State, decisions: Mapping[str, Array], outcome: Outcome) -> BiddingHistory:
        xp, last, seen = self.xp, state.history, outcome.metrics
        c, bids = seen["bandwidth"], seen["bid"]
        price = seen["price"]
        if self.params.posting == "feedback":
            price = state.theta.price * (1.0 - c / state.theta.bandwidth)
        elif self.params.payment not in ("kelly", "posted"):
            price = xp.where(bids > 0, seen["payment"] / xp.where(bids > 0, bids, 1.0), 0.0 * bids)
        ssr, network, queues = last.ssr, last.network, last.queues
        if self.params.channel == "trace":
            network = self._measured(state.theta, state.round + 1)
        if self.params.packets_flow:
            played = settlement.settled(self, state, decisions).queues
            queues = packets.Queues(*(q[..., 0] for q in played))
        if self.params.lower != "ideal":
            ssr = xp.stack([seen[f"ssr_{name}"] for name in ("volte", "embb", "urllc")], axis=2)
        return BiddingHistory(
            network, price, bids, c, seen["rate"], seen["profit"], ssr, seen["spectral_efficiency"], queues
        )

    # -- observations -----------------------------------------------------------------------------------------------

    def observe(self, state: State, stage: str) -> Array:
        view = {"posting": views.infrastructure, "bidding": views.bidder, "slicing": views.slicer}[stage]
        return self.xp.clip(view(self, state), 0.0, 1.0)

    # -- solvers ----------------------------------------------------------------------------------------------------

    def solve(self, state: State) -> Equilibrium:
        return solve.equilibrium(self, state)

    def respond(self, state: State, prefix: Mapping[str, Any]) -> Equilibrium:
        return solve.respond(self, state, prefix)

    def best_reply(self, state: State, stage: str, decisions: Mapping[str, np.ndarray]) -> BestResponse:
        return replies.best_reply(self, state, stage, decisions)

    def mixed_reply(self, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
        return replies.mixed_reply(self, state, stage, profile)

    def optimum(self, state: State) -> SocialOptimum:
        return solve.optimum(self, state)

    def analysis(self, state: State) -> dict[str, Any]:
        return solve.analysis(self, state)
