"""Two made-up markets with what AI-Bazaar lacks: roles with several stages, masks, agents that sit out, hidden draws.

``Toy``: buyers say whether they come (stage ``join``, a masked grid), sellers post two prices each (``pricing``),
buyers who came choose two amounts (``purchase``). Each buyer's taste is drawn every round and is its own secret; a
shock is nobody's to see.
``MaskedToy``: one stage per role, sellers on a masked MultiDiscrete, buyers on a masked Discrete.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from marketenvs import Market, MarketSpec, Noise, Outcome, Stage
from marketenvs.codecs import BoxCodec, GridCodec, MultiGridCodec
from marketenvs.params import MarketParams, count, number, theta_type


@dataclass(frozen=True, kw_only=True)
class ToyParams(MarketParams):
    """Parameters."""

    n_sellers: int = count(2, "sellers")
    n_buyers: int = count(3, "buyers")
    cost: Any = number(0.5, "unit cost", shape=("n_sellers",), low=0)


ToyTheta = theta_type("ToyTheta", ToyParams)


class ToyHistory(NamedTuple):
    """Last round's mean price (B, 1)."""

    price: Any


def _box(d: int) -> spaces.Box:
    return spaces.Box(0.0, 1.0, (d,), np.float32)


class Toy(Market):
    """See the module."""

    Params = ToyParams
    Theta = ToyTheta
    params: ToyParams

    def count_roles(self):
        return {"seller": self.params.n_sellers, "buyer": self.params.n_buyers}

    def build_stages(self):
        n = self.params.n_sellers
        return (
            Stage("join", "buyer", GridCodec(3), _box(1)),
            Stage("pricing", "seller", BoxCodec(2), _box(2)),
            Stage("purchase", "buyer", BoxCodec(2), _box(2 * n + 1)),
        )

    def first_history(self, theta, noise, batch):
        return ToyHistory(self.xp.zeros((batch, 1), dtype=self.backend.dtype) + 0.0 * theta.cost[:, :1])

    def round_noise(self):
        return {"taste": Noise("uniform", (self.params.n_buyers,)), "shock": Noise("uniform", (1,))}

    def bounds(self, state, stage):
        ones = self.xp.ones_like(state.theta.cost[:, :1, None])
        return 0.0 * ones, (2.0 if stage == "join" else 1.0) * ones

    def acting(self, state, stage):
        if stage != "purchase":
            return super().acting(state, stage)
        return state.decisions["join"][:, :, 0] > 0.5

    def action_mask(self, state, stage):
        """The topmost level of ``join`` is closed in odd rounds; the least level is closed to buyer 0."""
        n, levels = self.params.n_buyers, 3
        level = np.arange(levels)[None, None, :]
        odd = (np.asarray(state.round) % 2 == 1)[:, None, None]
        first = (np.arange(n) == 0)[None, :, None]
        return ~((level == 2) & odd) & ~((level == 0) & first)

    def observe(self, state, stage):
        xp, batch = self.xp, state.seed.shape[0]
        sellers, buyers = self.params.n_sellers, self.params.n_buyers
        if stage == "join":
            return xp.broadcast_to(state.history.price[:, None, :], (batch, buyers, 1))
        came = xp.mean(state.decisions["join"], axis=1) / 2.0
        if stage == "pricing":
            own = xp.broadcast_to(state.theta.cost, (batch, sellers))
            return xp.stack((own, xp.broadcast_to(came, (batch, sellers))), axis=2)
        prices = xp.reshape(state.decisions["pricing"], (batch, 1, 2 * sellers))
        return xp.concat(
            (xp.broadcast_to(prices, (batch, buyers, 2 * sellers)), state.nature["taste"][:, :, None]), axis=2
        )

    def expected(self, state, decisions):
        return self._pay(state, decisions, 0.5)

    def _pay(self, state, decisions, shock):
        came = (decisions["join"] > 0.5) * 1.0
        amount = self.xp.sum(decisions["purchase"] * came, axis=2)
        price = self.xp.mean(decisions["pricing"], axis=(1, 2), keepdims=False)[:, None]
        seller = (price - state.theta.cost) * self.xp.sum(amount, axis=1, keepdims=True)
        return {
            "seller": seller + shock,
            "buyer": amount * (state.nature["taste"] - price) + 0.1 * decisions["join"][:, :, 0],
        }

    def settle(self, state, decisions):
        pay = self._pay(state, decisions, state.nature["shock"])
        return Outcome(pay, {"welfare": sum(self.xp.sum(p, axis=1) for p in pay.values())})

    def remember(self, state, decisions, outcome):
        return ToyHistory(self.xp.mean(decisions["pricing"], axis=(1, 2))[:, None])


class MaskedToy(Market):
    """See the module."""

    Params = ToyParams
    Theta = ToyTheta
    params: ToyParams

    def count_roles(self):
        return {"seller": self.params.n_sellers, "buyer": self.params.n_buyers}

    def build_stages(self):
        return (
            Stage("pricing", "seller", MultiGridCodec((3, 4)), _box(1)),
            Stage("choice", "buyer", GridCodec(4), _box(2)),
        )

    def bounds(self, state, stage):
        ones = self.xp.ones_like(state.theta.cost[:, :1, None])
        return 0.0 * ones, ones

    def action_mask(self, state, stage):
        batch = state.seed.shape[0]
        if stage == "pricing":  # the last level of each number is closed
            row = np.array([1, 1, 0, 1, 1, 1, 0], dtype=bool)
            return np.broadcast_to(row, (batch, self.params.n_sellers, 7))
        return np.broadcast_to(np.array([True, False, True, False]), (batch, self.params.n_buyers, 4))

    def observe(self, state, stage):
        xp, batch = self.xp, state.seed.shape[0]
        if stage == "pricing":
            return xp.zeros((batch, self.params.n_sellers, 1)) + state.theta.cost[:, :, None]
        mean = xp.mean(state.decisions["pricing"], axis=1)
        return xp.broadcast_to(mean[:, None, :], (batch, self.params.n_buyers, 2))

    def expected(self, state, decisions):
        price = self.xp.mean(decisions["pricing"], axis=(1, 2))[:, None]
        bought = decisions["choice"][:, :, 0]
        zero = self.xp.zeros_like(decisions["pricing"][:, :, 0])
        return {"seller": zero + price * self.xp.sum(bought, axis=1, keepdims=True), "buyer": bought * (0.7 - price)}


SPEC = MarketSpec(
    id="ShellToy-v3",
    entry_point="tests.shells.toy:Toy",
    roles=("seller", "buyer"),
    title="Toy",
    summary="For tests of the shells.",
)
