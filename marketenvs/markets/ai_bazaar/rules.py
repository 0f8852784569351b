r"""AI-Bazaar: a provider prices computing power, consumers buy it to serve their business and to mine.

**Timeline of a round.** Stage ``pricing``: the provider posts one unit price p. Stage ``purchase``: all consumers see p and choose how much
computing power F_i to buy. A fixed share beta_i of it mines in a winner-takes-a-share contest, the rest serves the consumer's own
business. Everyone is paid after the purchases. Rounds are independent: nothing but what agents remember carries over, so the discount
factor is strategically irrelevant. An episode is truncated after ``horizon`` rounds and never terminates.

**Payoffs** (the paper's equations 4 and 5; x_i = beta_i F_i, S = sum_j x_j):

- provider: (p - C) sum_i F_i
- consumer i: F_i (K_i - u_i p) + R_i x_i / S, with K_i = (1 - beta_i) C_b and R_i = m_i (R + lambda B) exp(-eps tau delta_i B);
  if S = 0 nobody mines.

**Actions.** Box(-1, 1), affine onto [price_min, price_max] and [purchase_min, purchase_max]; with ``price_levels`` / ``amount_levels``
Discrete over equally spaced levels. Decisions outside the range are clipped and counted in the metric ``clipped``; on a grid they go to
the nearest level. NaN and infinities raise.

**Observations** (all scaled to [0, 1] by the parameters' ranges; a zero-width range gives 0):

| stage | ``paper`` | ``own`` (default) | ``full`` |
|---|---|---|---|
| pricing | last purchases (N) | + last price, mean, least and largest last purchase (N + 4) | + every consumer's beta, u, m, delta (5N + 4) |
| purchase | price (1) | + own beta, u, m, delta, own and mean last purchase (7) | + the others' beta, u, m, delta in cyclic order (4N + 3) |

**Metrics** per round: ``price``, ``demand`` (sum F), ``effort`` (S), ``share`` (alpha_i), ``mining_probability`` (rho_i), ``welfare`` (resource
welfare: payments removed), ``welfare_utility`` (sum of all payoffs), ``clipped``.

**Welfare.** The headline is resource welfare sum_i (K_i - C) F_i + sum_i R_i x_i / S. The plain sum of payoffs is beside it; because u_i weighs
money differently on the two sides of a payment, most of its "inefficiency" is the weight of a transfer.

**Equilibrium.** Consumers: the unique Nash equilibrium of an aggregative Tullock contest with boxes, exact to machine precision. Provider:
Stackelberg leader, exact path-following over all active sets, or the batched companion certified against it; several local maxima are
normal. Discretised presets have their own grid oracle.

**Presets.** ``calibrated`` (default of the id and of the dataclass): an interior game. ``table1``: the paper's Table 1 as printed, in which mining
vanishes and every strategy is dominant. ``table1_ttrain``: Table 1 with eps = 1/20. ``hetero``: ten different consumers, seven local maxima in
the price. ``opt_out``: purchase_min = 0. ``grid``: 11 prices x 10 amounts. ``drawn``: a new crowd in every market. ``reduced``: the game in its own
numbers (no mining delay), for closed forms. ``paper`` is ``table1`` with the paper's observations and grids.

**Version history.** v0: first release.

**Source.** X. Ren, C. Qiu, X. Wang, Z. Han, K. Xu, H. Yao, S. Guo, "AI-Bazaar: A Cloud-Edge Computing Power Trading Framework for Ubiquitous
AI Services". Where the paper's formulas fail, see the fidelity notes in ``docs/fidelity/ai_bazaar.md``; ``literal.py`` holds them as printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium import spaces

from ...arrays import Array, FirstThen, Noise, Uniform
from ...codecs import BoxCodec, Codec, GridCodec
from ...errors import InvalidParameter
from ...market import Market, Outcome, Stage, State
from ...params import MarketParams, count, number, option, theta_type
from ...strategy import BestResponse, Equilibrium, SocialOptimum, Strategy
from . import solve, solve_mixed

_TYPES = ("mining_ratio", "payment_weight", "token_effect", "loss")
_TTRAIN = {"puzzle_constant": 1 / 20, "payment_weight": 0.5, "block_reward": 20000.0, "transaction_reward": 2.5}
_TABLE1 = {**_TTRAIN, "puzzle_constant": 20.0}
_GRID = {"price_levels": 11, "amount_levels": 10}
_HETERO = {
    "payment_weight": (16, 16.5, 12.5, 17.5, 12, 13, 12.5, 17.5, 18, 16.5),
    "mining_ratio": (0.2, 0.2, 0.1, 0.25, 0.15, 0.1, 0.1, 0.1, 0.15, 0.1),
    "loss": (0.8, 0.6, 1, 1, 0.6, 0.8, 0.6, 0.8, 0.6, 0.6),
    "token_effect": (1.5, 1.5, 0.8, 1, 1.25, 0.8, 1, 0.8, 1.5, 0.8),
}
_DRAWN = {
    "payment_weight": Uniform(11, 18),
    "mining_ratio": Uniform(0.05, 0.3),
    "loss": Uniform(0.6, 1),
    "token_effect": Uniform(0.8, 1.5),
    "observation": "full",
}


@dataclass(frozen=True, kw_only=True)
class BazaarParams(MarketParams):
    """Parameters of AI-Bazaar; defaults are the ``calibrated`` preset."""

    n_consumers: int = count(10, "consumers", symbol="N")
    unit_cost: Any = number(
        5.0, "the provider's cost of a unit of computing power", unit="money/unit", symbol="C", low=0
    )
    business_value: Any = number(
        220.0,
        "worth of a unit that serves the own business",
        unit="tokens/unit",
        symbol="C_b",
        shape=("n_consumers",),
        low=0,
    )
    payment_weight: Any = number(
        15.0,
        "weight of a payment in a consumer's profit",
        unit="tokens/money",
        symbol="u",
        shape=("n_consumers",),
        low=0,
    )
    token_effect: Any = number(1.0, "worth of mined tokens", symbol="m", shape=("n_consumers",), low=0)
    block_reward: Any = number(30000.0, "fixed reward of a block", unit="tokens", symbol="R", low=0)
    block_size: Any = number(500.0, "transactions in a block", unit="transactions", symbol="B", low=0)
    transaction_reward: Any = number(15.0, "reward per transaction", unit="tokens", symbol="lam", low=0)
    mining_ratio: Any = number(
        FirstThen(0.2, 0.1),
        "share of the purchase that mines (role-playing ratio)",
        symbol="beta",
        shape=("n_consumers",),
        low=0,
        high=1,
    )
    puzzle_constant: Any = number(1 / 20, "puzzle constant, 1 / training time", unit="1/s", symbol="eps", low=0)
    propagation: Any = number(0.01, "propagation time per unit of block size and loss", unit="s", symbol="tau", low=0)
    loss: Any = number(
        0.8, "loss of the trained network (evaluation metric)", symbol="delta", shape=("n_consumers",), low=0
    )
    purchase_min: Any = number(10.0, "least purchase", unit="units", symbol="F_min", shape=("n_consumers",), low=0)
    purchase_max: Any = number(
        100.0, "largest purchase", unit="units", symbol="F_max", shape=("n_consumers",), low=0, open_low=True
    )
    price_min: Any = number(10.0, "least price", unit="money/unit", symbol="p_min", low=0)
    price_max: Any = number(20.0, "largest price", unit="money/unit", symbol="p_max", low=0)
    price_levels: int | None = count(None, "prices on a grid (None: continuous)", low=2, optional=True)
    amount_levels: int | None = count(None, "purchases on a grid (None: continuous)", low=2, optional=True)
    mining: str = option(
        "expected", "reward of mining: its mean, or one sampled winner per round", ("expected", "sampled")
    )
    observation: str = option("own", "what agents see", ("paper", "own", "full"))

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "calibrated": {},
        "table1": _TABLE1,
        "table1_ttrain": _TTRAIN,
        "hetero": _HETERO,
        "opt_out": {"purchase_min": 0.0},
        "grid": _GRID,
        "drawn": _DRAWN,
        "reduced": {"puzzle_constant": 0.0, "block_size": 0.0, "transaction_reward": 0.0},
        "paper": {**_TABLE1, **_GRID, "observation": "paper"},
    }

    def check(self) -> None:
        """The boxes must not be empty."""
        for low, high in (("purchase_min", "purchase_max"), ("price_min", "price_max")):
            if self.bounds_of(low)[1] > self.bounds_of(high)[0] and not self._ordered(low, high):
                raise InvalidParameter(f"{low}={getattr(self, low)!r} exceeds {high}={getattr(self, high)!r}")
        if (self.price_levels is None) != (self.amount_levels is None):
            raise InvalidParameter(
                "give both price_levels and amount_levels, or neither: a market is a grid or continuous"
            )

    def _ordered(self, low: str, high: str) -> bool:
        """Whether two array fields are ordered entry by entry."""
        a, b = getattr(self, low), getattr(self, high)
        if isinstance(a, (Uniform, FirstThen)) or isinstance(b, (Uniform, FirstThen)):
            return False
        try:
            return bool(np.all(np.asarray(a) <= np.asarray(b)))
        except ValueError:
            return False


BazaarTheta = theta_type(
    "BazaarTheta",
    BazaarParams,
    derived=("margin", "reward", "decay", "price_scale", "purchase_scale", "types", "crowd"),
)


class BazaarHistory(NamedTuple):
    """What carries over: the last round's price (B, 1) and purchases (B, n)."""

    price: Array
    purchases: Array


class AIBazaar(Market):
    """The AI-Bazaar market; see the module's docstring."""

    Params = BazaarParams
    Theta = BazaarTheta
    welfare_name = "resource welfare (payments removed)"
    params: BazaarParams

    def count_roles(self) -> dict[str, int]:
        return {"provider": 1, "consumer": self.params.n_consumers}

    def build_stages(self) -> tuple[Stage, ...]:
        p, n = self.params, self.params.n_consumers
        size = {"paper": (n, 1), "own": (n + 4, 7), "full": (5 * n + 4, 4 * n + 3)}[p.observation]

        def stage(name: str, role: str, levels: int | None, d: int) -> Stage:
            codec: Codec = BoxCodec() if levels is None else GridCodec(levels)
            return Stage(name, role, codec, spaces.Box(0.0, 1.0, (d,), np.float32))

        return stage("pricing", "provider", p.price_levels, size[0]), stage(
            "purchase", "consumer", p.amount_levels, size[1]
        )

    # -- rules ------------------------------------------------------------------------------------------------------

    def derive(self, theta: Any) -> Any:
        xp, n = self.xp, self.params.n_consumers
        decay = xp.exp(-theta.puzzle_constant * theta.propagation * theta.loss * theta.block_size)
        reward = theta.token_effect * (theta.block_reward + theta.transaction_reward * theta.block_size) * decay
        margin = (1.0 - theta.mining_ratio) * theta.business_value
        types: Any = None
        crowd: Any = None
        if self.params.observation != "paper":
            rows = max(getattr(theta, name).shape[0] for name in _TYPES)
            scaled = [self._scaled(getattr(theta, name), *self.params.bounds_of(name)) for name in _TYPES]
            types = xp.stack([xp.broadcast_to(s, (rows, n)) for s in scaled], axis=2)
        if self.params.observation == "full":
            cyclic = (np.arange(n)[:, None] + np.arange(n)[None, :]) % n
            index = xp.asarray(cyclic.reshape(-1), device=self.backend.device)
            crowd = xp.reshape(xp.take(types, index, axis=1), (types.shape[0], n, 4 * n))
        return theta._replace(
            margin=margin,
            reward=reward,
            decay=decay,
            price_scale=self._inverse_width(theta.price_min, theta.price_max),
            purchase_scale=self._inverse_width(theta.purchase_min, theta.purchase_max),
            types=types,
            crowd=crowd,
        )

    def _inverse_width(self, low: Array, high: Array) -> Array:
        """1 / (high - low), 0 for a range of no width: what observations are scaled by."""
        xp, width = self.xp, high - low
        return xp.where(width > 0, 1.0 / xp.where(width > 0, width, 1.0), 0.0 * width)

    def _scaled(self, value: Array, low: float, high: float) -> Array:
        return (value - low) * (1.0 / (high - low)) if high > low else 0.0 * value

    def history_noise(self) -> Mapping[str, Noise]:
        return {"purchases": Noise("uniform", (self.params.n_consumers,)), "price": Noise("uniform", (1,))}

    def first_history(self, theta: Any, noise: Mapping[str, Array], batch: int) -> BazaarHistory:
        """Before the first round: uniform over the boxes (the paper does not say)."""
        price = theta.price_min + (theta.price_max - theta.price_min) * noise["price"]
        return BazaarHistory(price, theta.purchase_min + (theta.purchase_max - theta.purchase_min) * noise["purchases"])

    def round_noise(self) -> Mapping[str, Noise]:
        return {"winner": Noise("uniform", (1,))} if self.params.mining == "sampled" else {}

    def bounds(self, state: State, stage: str) -> tuple[Array, Array]:
        theta = state.theta
        if stage == "pricing":
            return theta.price_min[:, :, None], theta.price_max[:, :, None]
        return theta.purchase_min[:, :, None], theta.purchase_max[:, :, None]

    def presumed(self, state: State, stage: str) -> Array:
        """Before the provider has posted a price, consumers see the last one."""
        return state.history.price[:, :, None] if stage == "pricing" else super().presumed(state, stage)

    def observe(self, state: State, stage: str) -> Array:
        xp, theta, last = self.xp, state.theta, state.history
        kind, n = self.params.observation, self.params.n_consumers
        batch = state.seed.shape[0]

        purchases: Any = None
        if kind != "paper" or stage == "pricing":
            purchases = (last.purchases - theta.purchase_min) * theta.purchase_scale
        if stage == "pricing":
            parts = [purchases]
            if kind != "paper":
                price = (last.price - theta.price_min) * theta.price_scale
                mean, least, most = (f(purchases, axis=1, keepdims=True) for f in (xp.mean, xp.min, xp.max))
                parts += [price, mean, least, most]
            if kind == "full":
                parts.append(xp.broadcast_to(xp.reshape(theta.types, (-1, 4 * n)), (batch, 4 * n)))
            return (xp.concat(parts, axis=1) if len(parts) > 1 else parts[0])[:, None, :]
        price = (state.decisions["pricing"][:, :, 0] - theta.price_min) * theta.price_scale
        price = xp.broadcast_to(price, (batch, n))[:, :, None]
        if kind == "paper":
            return price
        mean = xp.broadcast_to(xp.mean(purchases, axis=1, keepdims=True), (batch, n))[:, :, None]
        known = theta.types if kind == "own" else theta.crowd
        known = xp.broadcast_to(known, (batch, *known.shape[1:]))
        return xp.concat((price, known, purchases[:, :, None], mean), axis=2)

    def _contest(self, state: State, amounts: Array) -> tuple[Array, Array]:
        """Shares alpha_i (B, n) and total effort S (B, 1) (eq. 1); shares are 0 where nobody mines."""
        xp = self.xp
        effort = state.theta.mining_ratio * amounts
        total = xp.sum(effort, axis=1, keepdims=True)
        return effort / xp.where(total > 0, total, 1.0), total

    def expected(self, state: State, decisions: Mapping[str, Array]) -> dict[str, Array]:
        price, amounts = decisions["pricing"][:, :, 0], decisions["purchase"][:, :, 0]
        share, _ = self._contest(state, amounts)
        demand = self.xp.sum(amounts, axis=1, keepdims=True)
        return self._payoffs(state.theta, price, amounts, demand, state.theta.reward * share)

    def _payoffs(self, theta: Any, price: Array, amounts: Array, demand: Array, mined: Array) -> dict[str, Array]:
        return {
            "provider": (price - theta.unit_cost) * demand,
            "consumer": amounts * (theta.margin - theta.payment_weight * price) + mined,
        }

    def settle(self, state: State, decisions: Mapping[str, Array]) -> Outcome:
        xp, theta = self.xp, state.theta
        price, amounts = decisions["pricing"][:, :, 0], decisions["purchase"][:, :, 0]
        share, effort = self._contest(state, amounts)
        chance = share * theta.decay
        if self.params.mining == "sampled":
            upper = xp.cumulative_sum(chance, axis=1)
            u = state.nature["winner"]
            wins = xp.astype((u < upper) & (u >= upper - chance), amounts.dtype)
            mined = wins * theta.token_effect * (theta.block_reward + theta.transaction_reward * theta.block_size)
        else:
            mined = theta.reward * share
        demand = xp.sum(amounts, axis=1, keepdims=True)
        payoffs = self._payoffs(theta, price, amounts, demand, mined)
        demand = demand[:, 0]
        utility = payoffs["provider"][:, 0] + xp.sum(payoffs["consumer"], axis=1)
        paid = price[:, 0] * (xp.sum(theta.payment_weight * amounts, axis=1) - demand)
        metrics = {
            "price": price[:, 0],
            "demand": demand,
            "effort": effort[:, 0],
            "share": share,
            "mining_probability": chance,
            "welfare": utility + paid,
            "welfare_utility": utility,
        }
        return Outcome(payoffs, metrics)

    def remember(self, state: State, decisions: Mapping[str, Array], outcome: Outcome) -> BazaarHistory:
        return BazaarHistory(decisions["pricing"][:, :, 0], decisions["purchase"][:, :, 0])

    # -- solvers ----------------------------------------------------------------------------------------------------

    def solve(self, state: State) -> Equilibrium:
        return solve.equilibrium(self, state)

    def respond(self, state: State, prefix: Mapping[str, Any]) -> Equilibrium:
        return solve.respond(self, state, prefix)

    def best_reply(self, state: State, stage: str, decisions: Mapping[str, np.ndarray]) -> BestResponse:
        return solve.best_reply(self, state, stage, decisions)

    def mixed_reply(self, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
        return solve_mixed.mixed_reply(self, state, stage, profile)

    def mixed_payoff(self, state: State, profile: Mapping[str, Strategy]) -> dict[str, np.ndarray]:
        return solve_mixed.mixed_payoff(self, state, profile)

    def optimum(self, state: State) -> SocialOptimum:
        return solve.optimum(self, state)

    def analysis(self, state: State) -> dict[str, Any]:
        return solve.analysis(self, state)
