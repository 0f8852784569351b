r"""Spectrum Bertrand: sellers post prices for channels, buyers bid for one channel each.

**Timeline of a round.** Stage ``pricing``: all sellers post prices at once, seeing only the past. Stage ``bidding`` (matching ``channel`` and
``pooled``): all buyers see all prices, and each picks a seller or abstains, and a bid. Then the urns are settled. Under ``clearing`` and
``logit`` buyers are a demand curve and there is no second stage. The stage game is repeated; an episode is truncated after ``horizon`` rounds.

**Matching.** ``channel``: a buyer ends up on one channel of the seller it picked (drawn blindly, or picked with ``channel_choice="explicit"``), and
bids collide there. ``pooled``: the seller serves its C highest bids. ``clearing`` (Bertrand-Edgeworth): buyers go to the cheapest seller that has
stock left. ``logit``: market shares by a logit formula (Calvano et al. 2020).

**Payoffs.** A bid is admissible from the posted price up (b >= p); the highest admissible bids of a channel or pool are served, ties at random.
Buyer: U if served, minus b if admissible (``all_pay``, eq. 2), b if served (``first_price``) or p if served (``posted``). Seller: payments it
receives minus ``unit_cost`` per channel sold. Inadmissible bids pay nothing. All payoffs of a round add up to U x trades - costs.

**Actions.** Sellers: one price (``price_groups``: one per block of channels) in [price_floor, price_cap] x U. Buyers: two numbers, the choice in
[0, G + 1] (its whole part: seller or block or channel; G is to abstain) and the bid in [0, U], or with ``bid_encoding="relative"`` the share of the
way from price to value in [0, 1]. With ``price_levels``/``bid_levels`` both are grids. Out of range: clipped and counted; NaN raises.

**Observations** (all in [0, 1]; money over the largest price or value possible):

| stage | entries |
|---|---|
| pricing, ``channel``/``pooled`` | own last prices g, rivals' last prices (N-1)g, own last bids/M, sales/C, mean and highest admissible bid, rivals' sales/C N-1, own last reward/(U C), own cost, U, own C, t/T |
| pricing, ``clearing``/``logit`` | own last price, rivals' N-1, own sales share, rivals' N-1, own last reward, own cost, U, own C, t/T |
| + ``observation="full"`` | rivals' costs N-1 and channels N-1; logit also all qualities |
| bidding | posted prices N g, own value, last choice one-hot N+1, last bid, won, last payment, loads n_j/M N, channels N, t/T |

**Metrics**: ``price``, ``sales``, ``trades``, ``conflict_rate`` (admissible bids not served), ``efficiency``, ``collusion_index``
Delta = (profit - Nash)/(joint - Nash), ``welfare`` (sum of payoffs; payments cancel), ``clipped``.

**Equilibrium.** The buyers' symmetric equilibrium at any prices is unique and exact (an urn game; bids are mixed). Sellers: closed forms for equal
sellers, first-order conditions for two unequal ones, certified by global best responses (profits are concave in the seller's own mass of
buyers). At all-pay scarcity (M >= 2C) equilibria form a continuum: the symmetric one is returned, scores go by gains. ``pooled`` with C < M < 1.9 C
has no pure equilibrium: linear programs give a mixture and its epsilon. ``clearing``: closed-form mixtures. ``logit``: Nash and monopoly by
Lambert's W. Coordinated (asymmetric) equilibria of the buyers also exist when M < N C; learners may land between.

**Where the future matters.** ``calvano`` is a repeated game with public prices. A grim trigger (hold the monopoly price until somebody deviates, then the
stage equilibrium for ever) is an exact equilibrium of it at delta = .95, dynamic regret 0, although its stage score is bad: in a single round either seller
would gain by undercutting. The tasks ``spectrum-calvano`` and ``spectrum-study`` are therefore scored by the exact dynamic regret of memory-one policies
(``marketenvs.solution.repeated``), with stage score, long-run profit and the collusion index beside it: Delta is 0 at the stage equilibrium and 1 at joint
monopoly, and a good score does not say which of the two was played. Myopic best replies do not win there: a patient rival exploits them.

**Presets.** ``table1_{10,20,50}_{100,300,600}`` (the paper's nine cells), ``desk`` (M=4, C=5), ``congested``, ``scarce``, ``edge``, ``drawn`` (costs and channels differ
by market), ``clearing``, ``calvano``, ``radio`` (the value is a tariff on the rate of one channel of the shared radio cell, alike for all buyers so that the
oracle holds; with ``channel="trace"`` the rate that measured ``gains`` allow), ``grid`` (21 prices x 21 bids),
``reduced`` (three buyers, one channel per seller, posted), ``paper`` (the equations as printed, see ``literal.py``).

**Fidelity.** See the [fidelity notes](../fidelity/spectrum_bertrand.md) for the seventeen places where the paper's formulas or claims fail, with numbers, what is done
instead, and what the preset ``paper`` does literally; and for the paper's table and figures, the learning table and the collusion study beside what the
model really gives.

**Version history.** v0: first release. Against the source's specification: a blind buyer facing ``price_groups`` picks the block (not just the seller), which keeps
the urn game and its oracle exact.

**Source.** D. Wang, W. Zhang, B. Song, X. Du, M. Guizani, "Market-Based Model in CR-IoT: A Q-Probabilistic Multi-agent Learning Approach". Logit study: E. Calvano,
G. Calzolari, V. Denicolo, S. Pastorello, "Artificial Intelligence, Algorithmic Pricing, and Collusion", American Economic Review 110 (2020).
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from ...arrays import Array, Noise
from ...channel import radio_preset
from ...codecs import BoxCodec, Codec, GridCodec, MultiGridCodec
from ...errors import InvalidParameter
from ...market import Market, Outcome, Stage, State
from ...strategy import BestResponse, Equilibrium, SocialOptimum, Strategy
from . import allocation, auction, games, observations, replies, solve
from .params import AUCTIONS, SpectrumParams, SpectrumTheta


class SpectrumHistory(NamedTuple):
    """The last round: sellers' prices (B, N g), loads, sales, bids' mean and maximum, rewards (B, N); buyers' own (B, M)."""

    price: Array
    load: Array
    sales: Array
    mean_bid: Array
    top_bid: Array
    reward: Array
    choice: Array
    bid: Array
    won: Array
    paid: Array


class SpectrumBertrand(Market):
    """The spectrum price market; see the module's docstring."""

    Params = SpectrumParams
    Theta = SpectrumTheta
    anonymous = ("buyer",)  # buyers' choices name sellers, so these cannot be permuted alone
    welfare_name = "sum of payoffs (payments cancel)"
    params: SpectrumParams

    # -- what is there ----------------------------------------------------------------------------------------------

    @property
    def auction(self) -> bool:
        """Whether buyers are agents."""
        return self.params.matching in AUCTIONS

    def count_roles(self) -> dict[str, int]:
        p = self.params
        return {"seller": p.n_sellers, "buyer": p.n_buyers} if self.auction else {"seller": p.n_sellers}

    def build_stages(self) -> tuple[Stage, ...]:
        p = self.params
        n, g = p.n_sellers, p.price_groups
        self._layout()
        size = n * g + n + 8 if self.auction else 2 * n + 5
        if p.observation == "full":
            size += 2 * (n - 1) + (n if p.matching == "logit" else 0)
        if p.price_levels is None:
            codec: Codec = BoxCodec(g)
        else:
            codec = GridCodec(p.price_levels) if g == 1 else MultiGridCodec((p.price_levels,) * g)
        pricing = Stage("pricing", "seller", codec, spaces.Box(0.0, 1.0, (size,), np.float32))
        if not self.auction:
            return (pricing,)
        bids: Codec = BoxCodec(2) if p.bid_levels is None else MultiGridCodec((self.groups + 1, p.bid_levels))
        seen = spaces.Box(0.0, 1.0, (n * g + 3 * n + 6,), np.float32)
        return pricing, Stage("bidding", "buyer", bids, seen)

    def _layout(self) -> None:
        """Groups of like urns: which seller and which posted price each has (static)."""
        p = self.params
        n, g = p.n_sellers, p.price_groups
        if p.channel_choice == "explicit":
            held = np.broadcast_to(np.asarray(p.channels, int), (n,))
            seller = np.repeat(np.arange(n), held)
            place = np.concatenate([np.arange(c) for c in held])
            price = seller * g + place * g // held[seller]
        else:
            seller, price = np.repeat(np.arange(n), g), np.arange(n * g)
        self.groups = len(seller)
        self.group_seller, self.group_price = seller, price
        self.most_channels = int(p.bounds_of("channels")[1])
        if p.value_source == "radio":
            self.radio = radio_preset("iiot")
            tariff, distance = p.bounds_of("tariff"), p.bounds_of("distance")
            if p.channel == "trace":  # Mbit/s of a channel, mean over users and PRBs
                efficiency = self.radio.trace_efficiency(np.asarray(p.gains, float)).mean(0)
                mean = efficiency.mean() if p.slot is None else efficiency[p.slot]
                self.trace_rate = float(mean) * self.radio.prb_bandwidth_hz / 1e6
                if not self.trace_rate > 1e-9:
                    raise InvalidParameter(
                        f"gains: nobody hears anything in slot {p.slot}, so a channel is worth nothing"
                    )
                top = tariff[1] * self.trace_rate
            else:
                top = float(self._radio_worth(np, np.asarray(tariff[1]), np.asarray(distance[0])))
        else:
            top = p.bounds_of("value")[1]
        self.money = top * max(p.bounds_of("price_cap")[1], 1.0)

    def _radio_worth(self, xp: Any, tariff: Array, distance: Array) -> Array:
        radio = self.radio
        rate = radio.prb_rate_kbps(radio.sinr(radio.loss_db(distance, xp=xp), xp=xp), xp=xp)
        return tariff * rate / 1000.0

    def setup(self) -> None:
        b = self.backend
        self._group_seller = b.asarray(np.append(self.group_seller, self.params.n_sellers))[None, :]
        self._group_price = self.xp.asarray(self.group_price, device=b.device)
        n = self.params.n_sellers
        # JAX without 64-bit types would warn at int64, PyTorch indexes with nothing else
        self._index = self.xp.int32 if b.name == "jax" else self.xp.int64
        self._cyclic = self.xp.asarray(
            ((np.arange(n)[:, None] + np.arange(n)[None, :]) % n).reshape(-1), device=b.device
        )
        self._sellers = b.asarray(np.arange(n))[None, :, None]

    def derive(self, theta: Any) -> Any:
        if self.params.value_source == "radio":
            if self.params.channel == "trace":
                worth = theta.tariff * self.trace_rate
            else:
                worth = self._radio_worth(self.xp, theta.tariff, theta.distance)
        else:
            worth = theta.value
        theta = theta._replace(worth=worth)
        nash, joint = games.reference_profits(self, theta)
        return theta._replace(nash_profit=nash, joint_profit=joint)

    # -- randomness -------------------------------------------------------------------------------------------------

    def history_noise(self) -> Mapping[str, Noise]:
        return {"price": Noise("uniform", (self.params.n_sellers * self.params.price_groups,))}

    def first_history(self, theta: Any, noise: Mapping[str, Array], batch: int) -> SpectrumHistory:
        """Before the first round: prices uniform above cost (the paper: random initial prices), nothing sold."""
        xp = self.xp
        n, m, g = self.params.n_sellers, self.params.n_buyers if self.auction else 1, self.params.price_groups
        low, high = self._price_range(theta)
        floor = xp.minimum(xp.maximum(theta.unit_cost, low), high)
        floor = xp.reshape(
            floor[:, :, None] + xp.zeros((1, 1, g), dtype=self.backend.dtype, device=self.backend.device), (-1, n * g)
        )
        price = floor + (high - floor) * noise["price"]
        none = 0.0 * price[:, :n]
        mine = 0.0 * price[:, :1] + xp.zeros((1, m), dtype=self.backend.dtype, device=self.backend.device)
        return SpectrumHistory(price, none, none, none, none, none, mine + float(n), mine, mine, mine)

    def round_noise(self) -> Mapping[str, Noise]:
        p = self.params
        if not self.auction:
            return {}
        noise = {"tie": Noise("uniform", (p.n_buyers,))}
        if p.matching == "channel" and p.channel_choice == "blind":
            noise["landing"] = Noise("uniform", (p.n_buyers,))
        if p.values == "private":
            noise["type"] = Noise("uniform", (p.n_buyers,))
        return noise

    # -- bounds and observations ------------------------------------------------------------------------------------

    def _price_range(self, theta: Any) -> tuple[Array, Array]:
        return theta.price_floor * theta.worth, theta.price_cap * theta.worth

    def bounds(self, state: State, stage: str) -> tuple[Array, Array]:
        xp, theta = self.xp, state.theta
        if stage == "pricing":
            low, high = self._price_range(theta)
            return low[:, :, None], high[:, :, None]
        top = theta.worth if self.params.bid_encoding == "absolute" else xp.ones_like(theta.worth)
        last = self.groups + (1.0 if self.params.bid_levels is None else 0.0)
        high = xp.stack((xp.zeros_like(top) + last, top), axis=2)
        return xp.zeros_like(high), high

    def worth(self, state: State) -> Array:
        """(B, M) value of a channel to each buyer."""
        theta = state.theta
        if self.params.values == "private":
            return theta.worth * state.nature["type"]
        return theta.worth + 0.0 * state.nature["tie"]

    def observe(self, state: State, stage: str) -> Array:
        return observations.of_sellers(self, state) if stage == "pricing" else observations.of_buyers(self, state)

    # -- settling ---------------------------------------------------------------------------------------------------

    def by_seller(self, seller: Array, values: Array) -> Array:
        """Sum of buyers' values (B, M) per seller (B, N)."""
        xp = self.xp
        mine = seller[:, None, :] == self._sellers
        return xp.sum(xp.where(mine, values[:, None, :], xp.zeros_like(values[:, None, :])), axis=2)

    def expected(self, state: State, decisions: Mapping[str, Array]) -> dict[str, Array]:
        if not self.auction:
            return {"seller": self._demand(state, decisions)[1]}
        a = auction.read(self, state, decisions)
        return auction.payoffs(self, state, a, auction.chances(self, state, a))

    def _demand(self, state: State, decisions: Mapping[str, Array]) -> tuple[Array, Array]:
        """Sales and profits (B, N) without buyer agents."""
        xp, p, theta = self.xp, self.params, state.theta
        price = decisions["pricing"][:, :, 0]
        if p.matching == "logit":
            sold = theta.demand * allocation.logit_shares(xp, price, theta.quality, theta.taste_noise, theta.outside)
        else:
            nothing = xp.zeros_like(price)
            if p.demand_curve == "linear":
                want = theta.demand * xp.clip(1.0 - price / theta.worth, 0.0, None)
            else:
                want = xp.where(price <= theta.worth, theta.demand + nothing, nothing)
            sold = allocation.clear(xp, price, want, theta.channels)
        return sold, (price - theta.unit_cost) * sold

    def settle(self, state: State, decisions: Mapping[str, Array]) -> Outcome:
        xp, p, theta = self.xp, self.params, state.theta
        batch = decisions["pricing"].shape[0]
        price = xp.reshape(decisions["pricing"], (batch, -1))
        if not self.auction:
            sold, profit = self._demand(state, decisions)
            trades = xp.sum(sold, axis=1)
            metrics = {"price": price, "sales": sold, "trades": trades}
            payoffs = {"seller": profit}
            if p.matching == "clearing":
                possible = xp.minimum(theta.demand[:, 0], xp.sum(theta.channels + 0.0 * sold, axis=1))
                metrics["efficiency"] = trades / possible
        else:
            a = auction.read(self, state, decisions)
            won = xp.astype(auction.winners(self, state, a), price.dtype)
            payoffs = auction.payoffs(self, state, a, won)
            sold = self.by_seller(a.seller, won)
            trades, tried = xp.sum(won, axis=1), xp.sum(xp.astype(a.admissible, price.dtype), axis=1)
            supply = xp.sum(theta.channels + 0.0 * sold, axis=1)
            metrics = {
                "price": price,
                "sales": sold,
                "trades": trades,
                "conflict_rate": 1.0
                - (trades + xp.astype(tried == 0, price.dtype)) / xp.where(tried > 0, tried, xp.ones_like(tried)),
                "efficiency": trades / xp.clip(supply, None, float(p.n_buyers)),
                "won": won,
                "paid": auction.payment(self, a, won),
            }
        total = xp.sum(payoffs["seller"], axis=1)
        span = theta.joint_profit[:, 0] - theta.nash_profit[:, 0]
        safe = xp.where(xp.abs(span) > 1e-12, span, xp.ones_like(span))
        metrics["collusion_index"] = xp.where(
            xp.abs(span) > 1e-12, (total - theta.nash_profit[:, 0]) / safe, 0.0 * total
        )
        metrics["welfare"] = total + (xp.sum(payoffs["buyer"], axis=1) if self.auction else 0.0 * total)
        return Outcome(payoffs, metrics)

    def remember(self, state: State, decisions: Mapping[str, Array], outcome: Outcome) -> SpectrumHistory:
        xp, last = self.xp, state.history
        price = xp.reshape(decisions["pricing"], last.price.shape)
        sales, reward = outcome.metrics["sales"], outcome.payoffs["seller"]
        if not self.auction:
            return last._replace(price=price, sales=sales, reward=reward)
        a = auction.read(self, state, decisions)
        counted = xp.astype(a.admissible, price.dtype)
        number = self.by_seller(a.seller, counted)
        mean = self.by_seller(a.seller, counted * a.bid) / xp.where(number > 0, number, xp.ones_like(number))
        mine = a.seller[:, None, :] == self._sellers
        top = xp.max(xp.where(mine, (counted * a.bid)[:, None, :], xp.zeros_like(a.bid[:, None, :])), axis=2)
        load = self.by_seller(a.seller, xp.ones_like(a.bid))
        won, paid = outcome.metrics["won"], outcome.metrics["paid"]
        return SpectrumHistory(price, load, sales, mean, top, reward, a.seller, a.bid, won, paid)

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
