"""The numbers every AI-Bazaar solver works on: a batch of games, as plain float64 arrays.

A *market* is one game (axis 0, length B), a *consumer* one of its n buyers (axis 1). Money and tokens are the paper's
units. The paper's symbols: u_i = ``payment_weight``, K_i = (1 - beta_i) C_b = ``business_margin``, beta_i =
``mining_ratio``, R_i = m_i (R + lam B) exp(-eps tau delta_i B) = ``reward``, [F_min, F_max] = ``purchase_low/high``,
C = ``unit_cost``, [p_min, p_max] = ``price_low/high``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InvalidParameter

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

#: |kappa_i| at or below this, times max(1, |K_i|), counts as a tie of a consumer whose payoff is linear.
TIE_TOLERANCE = 1e-12
#: A consumer mines only if beta_i R_i exceeds the first and R_i exceeds the second times |K_i| F_max: below that the
#: reward has underflown, or is lost in the rounding of the business payoff, and the payoff counts as linear.
SMALLEST_REWARD, SMALLEST_SHARE = 1e-100, 1e-14


class Game(NamedTuple):
    """A batch of B markets with n consumers each; float64, consumers' fields (B, n), market's fields (B,)."""

    payment_weight: FloatArray  # u_i, tokens per money, >= 0
    business_margin: FloatArray  # K_i = (1 - beta_i) C_b, tokens per unit bought
    mining_ratio: FloatArray  # beta_i in [0, 1]
    reward: FloatArray  # R_i, tokens
    purchase_low: FloatArray  # units of computing power, >= 0
    purchase_high: FloatArray
    unit_cost: FloatArray  # C, money per unit
    price_low: FloatArray  # money per unit, >= 0
    price_high: FloatArray

    @property
    def markets(self) -> int:
        """B, the number of markets."""
        return int(self.payment_weight.shape[0])

    @property
    def consumers(self) -> int:
        """The number n of consumers in each market."""
        return int(self.payment_weight.shape[1])

    def at(self, index: Any) -> Game:
        """The markets that ``index`` selects (a slice, an integer array or a Boolean mask over the B markets)."""
        return Game(*(field[index] for field in self))

    def miners(self) -> BoolArray:
        """Which consumers take part in the mining contest, (B, n); the others' payoffs are linear in their purchase."""
        business = np.abs(self.business_margin) * self.purchase_high
        enough = (self.mining_ratio * self.reward > SMALLEST_REWARD) & (self.reward > SMALLEST_SHARE * business)
        return enough & (self.mining_ratio * self.purchase_high > 0)

    def net_cost(self, price: FloatArray) -> FloatArray:
        """kappa_i(p) = u_i p - K_i, tokens per unit, (B, n), at ``price`` (B,)."""
        return self.payment_weight * price[:, None] - self.business_margin

    def price_scale(self) -> FloatArray:
        """The size of a price, (B,): the unit in which steps and tolerances over prices are measured."""
        return np.maximum(np.abs(self.price_high), np.finfo(float).tiny)


def make_game(
    *,
    payment_weight: ArrayLike,
    business_value: ArrayLike,
    mining_ratio: ArrayLike,
    block_reward: ArrayLike,
    transaction_reward: ArrayLike = 0.0,
    block_size: ArrayLike = 0.0,
    token_effect: ArrayLike = 1.0,
    puzzle_constant: ArrayLike = 0.0,
    propagation: ArrayLike = 0.0,
    loss: ArrayLike = 0.0,
    unit_cost: ArrayLike,
    purchase_low: ArrayLike,
    purchase_high: ArrayLike,
    price_low: ArrayLike,
    price_high: ArrayLike,
) -> Game:
    """Build a :class:`Game` from the quantities of the paper's Table 1.

    Args:
        payment_weight: u_i, tokens per money.
        business_value: C_b, tokens per unit of power not mining.
        mining_ratio: beta_i in [0, 1].
        block_reward: R, tokens.
        transaction_reward: lam, tokens per transaction.
        block_size: B, transactions.
        token_effect: m_i.
        puzzle_constant: eps, 1/s.
        propagation: tau, seconds per unit of block size.
        loss: delta_i.
        unit_cost: C, money per unit.
        purchase_low: F_min, units; a scalar, (n,) or (B, n), like every field of a consumer.
        purchase_high: F_max, units.
        price_low: p_min, money per unit; a scalar or (B,), like every field of a market.
        price_high: p_max.

    Returns:
        The game, with R_i = m_i (R + lam B) exp(-eps tau delta_i B) and K_i = (1 - beta_i) C_b.

    Raises:
        InvalidParameter: a value is NaN, infinite, out of its range, or the shapes do not fit together.
    """
    ranges = {"mining_ratio": (0.0, 1.0), "unit_cost": (-np.inf, np.inf)}
    of_consumer = {
        "payment_weight": payment_weight,
        "business_value": business_value,
        "mining_ratio": mining_ratio,
        "block_reward": block_reward,
        "transaction_reward": transaction_reward,
        "block_size": block_size,
        "token_effect": token_effect,
        "puzzle_constant": puzzle_constant,
        "propagation": propagation,
        "loss": loss,
        "purchase_low": purchase_low,
        "purchase_high": purchase_high,
    }
    of_market = {"unit_cost": unit_cost, "price_low": price_low, "price_high": price_high}
    values: dict[str, FloatArray] = {}
    for name, given in {**of_consumer, **of_market}.items():
        array = np.asarray(given, dtype=float)
        low, high = ranges.get(name, (0.0, np.inf))
        if not np.isfinite(array).all():
            raise InvalidParameter(f"{name} holds NaN or an infinity; every entry must be finite")
        if (array < low).any() or (array > high).any():
            raise InvalidParameter(f"{name} must lie in [{low}, {high}], got {array.min()} .. {array.max()}")
        if array.ndim > (2 if name in of_consumer else 1):
            raise InvalidParameter(f"{name} has shape {array.shape}; at most (B, n) for consumers, (B,) for markets")
        values[name] = array
    try:
        shape = np.broadcast_shapes(
            (1, 1), *(values[k].shape for k in of_consumer), *((*values[k].shape, 1) for k in of_market)
        )
    except ValueError as error:
        shapes = {name: array.shape for name, array in values.items() if array.ndim}
        raise InvalidParameter(f"shapes do not fit together as (B, n) and (B,): {shapes}") from error
    v = {name: np.array(np.broadcast_to(values[name], shape)) for name in of_consumer}
    v |= {name: np.array(np.broadcast_to(values[name], shape[:1])) for name in of_market}
    if (v["purchase_low"] > v["purchase_high"]).any():
        raise InvalidParameter("purchase_low exceeds purchase_high")
    if (v["price_low"] > v["price_high"]).any():
        raise InvalidParameter("price_low exceeds price_high")
    decay = np.exp(-v["puzzle_constant"] * v["propagation"] * v["loss"] * v["block_size"])
    return Game(
        payment_weight=v["payment_weight"],
        business_margin=(1 - v["mining_ratio"]) * v["business_value"],
        mining_ratio=v["mining_ratio"],
        reward=v["token_effect"] * (v["block_reward"] + v["transaction_reward"] * v["block_size"]) * decay,
        purchase_low=v["purchase_low"],
        purchase_high=v["purchase_high"],
        unit_cost=v["unit_cost"],
        price_low=v["price_low"],
        price_high=v["price_high"],
    )
