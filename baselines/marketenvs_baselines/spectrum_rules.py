"""Hand-written traders of the spectrum market: zero intelligence, truthful, and the paper's share rule.

None of them learns a value. They are floors: a learner that does not beat them has learnt nothing.

D. Gode, S. Sunder, "Allocative efficiency of markets with zero-intelligence traders", Journal of Political Economy 101
(1993); share rule: D. Wang et al., "Market-Based Model in CR-IoT", section IV.B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy

from .registry import Algorithm
from .run import Policies, Report

ID = "SpectrumBertrand-v0"


class _Trader(Policy):
    """Prices at cost upwards and bids on observed prices; money in observations is scaled by the market's ``money``."""

    stochastic = True

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.rng = np.random.default_rng(seed)

    def act(self, obs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        raise NotImplementedError("decides in act_at, from the stage's bounds")

    def ends(self, stage: Stage, state: State, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest decisions (B, n, k)."""
        low, high = (self.market.backend.numpy(x) for x in self.market.bounds(state, stage.name))
        return np.broadcast_to(low, shape), np.broadcast_to(high, shape)

    def bids(self, stage: Stage, obs: np.ndarray, state: State, share: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """Bids a ``share`` of the way from the price to the own value at the chosen group; (B, n, 2)."""
        market: Any = self.market
        p, groups = market.params, market.groups
        _, high = self.ends(stage, state, (*obs.shape[:2], 2))
        prices = obs[..., : p.n_sellers * p.price_groups] * market.money
        value = obs[..., p.n_sellers * p.price_groups] * market.money
        price = np.take_along_axis(prices, market.group_price[choice][..., None], 2)[..., 0]
        bid = (
            share * np.ones(price.shape)
            if p.bid_encoding == "relative"
            else price + share * np.maximum(value - price, 0.0)
        )
        stay = value < price
        pick = np.where(stay, float(groups), choice.astype(float))
        return np.stack([np.minimum(pick, high[..., 0]), np.where(stay, 0.0, np.minimum(bid, high[..., 1]))], -1)

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Nothing is learnt."""
        return {}, {}

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> _Trader:
        """The inverse of :meth:`export`."""
        return cls()


class ZeroIntelligence(_Trader):
    """Sellers ask uniformly above cost, buyers bid uniformly between price and value, on any channel."""

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        low, high = self.ends(stage, state, (*obs.shape[:2], stage.codec.width))
        if stage.name == "pricing":
            cost = _own_cost(self.market, state, obs)
            return np.maximum(low, cost) + (high - np.maximum(low, cost)) * self.rng.uniform(size=low.shape)
        market: Any = self.market
        choice = self.rng.integers(0, market.groups, size=obs.shape[:2])
        return self.bids(stage, obs, state, self.rng.uniform(size=obs.shape[:2]), choice)


class Truthful(_Trader):
    """Sellers ask their cost; buyers go to a cheapest seller and bid their value (in ``all_pay``: the price)."""

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        low, high = self.ends(stage, state, (*obs.shape[:2], stage.codec.width))
        if stage.name == "pricing":
            return np.clip(_own_cost(self.market, state, obs), low, high)
        market: Any = self.market
        p = market.params
        prices = obs[..., : p.n_sellers * p.price_groups][..., market.group_price]
        cheapest = prices <= prices.min(-1, keepdims=True) + 1e-12
        choice = (cheapest * self.rng.uniform(0.5, 1.0, size=cheapest.shape)).argmax(-1)
        share = np.full(obs.shape[:2], 0.0 if p.payment == "all_pay" else 1.0)
        return self.bids(stage, obs, state, share, choice)


class ShareRule(_Trader):
    """The paper's price rule for two sellers: whoever sold more raises by a step, the other lowers; ties at random.

    The sum of both prices never changes except at the ends of the range, so the rule cannot find a price level.
    Buyers trade as `ZeroIntelligence`.

    Args:
        step: price step as a share of the range.
    """

    def __init__(self, step: float = 0.02):
        self.step = step

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        market: Any = self.market
        p = market.params
        low, high = self.ends(stage, state, (*obs.shape[:2], stage.codec.width))
        g = p.price_groups
        last = obs[..., 0 : p.n_sellers * g : p.n_sellers] * market.money
        sold_at = p.n_sellers * g + 1 if market.auction else p.n_sellers
        own = obs[..., sold_at]
        rival = obs[..., sold_at + 3 if market.auction else sold_at + 1]
        coin = (
            np.where(self.rng.uniform(size=(obs.shape[0], 1)) < 0.5, 1.0, -1.0) * np.array([1.0, -1.0])[: obs.shape[1]]
        )
        move = np.where(own > rival, 1.0, np.where(own < rival, -1.0, coin))
        return np.clip(last + self.step * (high - low) * move[..., None], low, high)

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The step."""
        return {"step": self.step}, {}

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> ShareRule:
        """The inverse of :meth:`export`."""
        return cls(**config)


def _own_cost(market: Any, state: State, obs: np.ndarray) -> np.ndarray:
    """(B, N, 1) the seller's own cost, from its observation."""
    p = market.params
    at = p.n_sellers * p.price_groups + p.n_sellers + 3 + 1 if market.auction else 2 * p.n_sellers + 1
    return obs[..., at : at + 1] * market.money


def _two_sellers(market: Any) -> str | None:
    return None if market.params.n_sellers == 2 else "the share rule is for two sellers"


def _constant(kind: type[_Trader], buyers: type[_Trader]) -> Any:
    def train(task: Any, seed: int, budget: int, report: Report | None = None) -> Policies:
        roles = task.make_market().roles
        return {role: (kind if role == "seller" else buyers)() for role in roles}

    return train


ALGORITHMS = (
    Algorithm(
        "zero_intelligence",
        train=_constant(ZeroIntelligence, ZeroIntelligence),
        title="Zero intelligence",
        citation="D. Gode, S. Sunder, Journal of Political Economy 101 (1993)",
        quick_budget=1,
        stochastic=True,
        markets=(ID,),
    ),
    Algorithm(
        "truthful",
        train=_constant(Truthful, Truthful),
        title="Truthful (cost and value)",
        citation="marketenvs",
        quick_budget=1,
        stochastic=True,
        markets=(ID,),
    ),
    Algorithm(
        "share_rule",
        train=_constant(ShareRule, ZeroIntelligence),
        title="Share rule",
        citation="D. Wang et al., Market-Based Model in CR-IoT, section IV.B",
        quick_budget=1,
        stochastic=True,
        markets=(ID,),
        can_play=_two_sellers,
    ),
)
