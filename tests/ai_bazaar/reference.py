"""Games of the AI-Bazaar specification: its reference cases, its presets by name, and random ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.markets.ai_bazaar.game import Game, make_game

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "refs.json").read_text())

_NAMES = {
    "C_b": "business_value", "C": "unit_cost", "R": "block_reward", "lam": "transaction_reward", "B": "block_size",
    "eps": "puzzle_constant", "tau": "propagation", "delta": "loss", "u": "payment_weight", "m": "token_effect",
    "beta": "mining_ratio", "F_min": "purchase_low", "F_max": "purchase_high", "p_min": "price_low",
    "p_max": "price_high",
}  # fmt: skip

TABLE1: dict[str, Any] = {
    "C_b": 220.0, "C": 5.0, "R": 20000.0, "lam": 2.5, "B": 500.0, "eps": 20.0, "tau": 0.01, "delta": 0.8, "u": 0.5,
    "m": 1.0, "F_min": 10.0, "F_max": 100.0, "p_min": 10.0, "p_max": 20.0,
}  # fmt: skip
TTRAIN = {**TABLE1, "eps": 1 / 20}
CALIBRATED = {**TTRAIN, "u": 15.0, "R": 30000.0, "lam": 15.0}
HETERO = {
    **CALIBRATED,
    "u": (16, 16.5, 12.5, 17.5, 12, 13, 12.5, 17.5, 18, 16.5),
    "beta": (0.2, 0.2, 0.1, 0.25, 0.15, 0.1, 0.1, 0.1, 0.15, 0.1),
    "delta": (0.8, 0.6, 1, 1, 0.6, 0.8, 0.6, 0.8, 0.6, 0.6),
    "m": (1.5, 1.5, 0.8, 1, 1.25, 0.8, 1, 0.8, 1.5, 0.8),
}
PRESETS = {"table1": TABLE1, "table1_ttrain": TTRAIN, "calibrated": CALIBRATED, "hetero": HETERO}


def case(name: str) -> dict[str, Any]:
    """The reference case whose name starts with ``name`` and a space."""
    return next(c for c in CASES if c["name"].startswith(name + " "))


def game_of(parameters: dict[str, Any]) -> Game:
    """The game of a set of the paper's symbols."""
    return make_game(**{_NAMES[k]: v for k, v in parameters.items() if k in _NAMES})


def preset(name: str, n: int = 10, beta_0: float = 0.2, **changes: Any) -> Game:
    """A preset of the specification with n consumers, consumer 0 mining ``beta_0`` and the others 0.1."""
    ratios = {} if "beta" in PRESETS[name] else {"beta": np.concatenate([[beta_0], np.full(n - 1, 0.1)])}
    return game_of({**PRESETS[name], **ratios, **changes})


def random_games(seed: int, markets: int, n: int = 10) -> Game:
    """Heterogeneous markets around ``calibrated``, most with an interior game."""
    rng = np.random.default_rng(seed)
    shape = (markets, n)
    return game_of(
        {
            **CALIBRATED,
            "u": rng.uniform(11, 18, shape),
            "beta": rng.uniform(0.05, 0.3, shape),
            "R": rng.uniform(1e4, 4e4, (markets, 1)),
            "m": rng.uniform(0.5, 1.5, shape),
            "delta": rng.uniform(0.5, 1, shape),
        }
    )


def wild_games(seed: int, markets: int = 20) -> Game:
    """Markets with every edge case: opt-out, non-miners, equal and free payments, underflow, empty boxes, losses."""
    rng = np.random.default_rng(seed)
    shape = (markets, int(rng.integers(1, 7)))

    def some(*chances: float) -> np.ndarray:
        return rng.random(shape) < rng.choice(chances)

    def mixed(values: list[float], low: float, high: float) -> np.ndarray:
        return rng.choice(values, shape) if rng.random() < 0.5 else rng.uniform(low, high, shape)

    low = np.where(some(0, 0.3, 1), 0.0, rng.uniform(1, 30, shape))
    price_low = rng.uniform(0, 15, markets) * rng.choice([0, 1])
    return game_of(
        {
            **CALIBRATED,
            "C_b": rng.choice([0, 100.0, 220.0]),
            "R": rng.choice([0, 100.0, 3e4]),
            "eps": rng.choice([0.05, 0.05, 20.0]),
            "C": rng.choice([1.0, 5.0, 30.0]),
            "beta": np.where(some(0, 0.3, 0.8), 0.0, mixed([0.1, 0.2, 0.25, 0.5, 1.0], 0, 1)),
            "m": np.where(some(0, 0.3, 0.8), 0.0, rng.uniform(0.1, 2, shape)),
            "u": np.where(some(0, 0, 0.2), 0.0, mixed([12.0, 15.0, 18.0], 5, 25)),
            "delta": rng.uniform(0.5, 1, shape),
            "F_min": low,
            "F_max": low + np.where(some(0, 0.1), 0.0, rng.uniform(0, 100, shape)),
            "p_min": price_low,
            "p_max": price_low + rng.uniform(0, 20, markets) * rng.choice([0, 1, 1]),
        }
    )
