"""Tasks of AI-Bazaar, as their author writes them (``marketenvs suite build`` freezes them)."""

from ...arrays import Uniform
from ...params import Jump
from ...task import Definition, Plan

_CROWD = {
    "n_consumers": 10,
    "payment_weight": Uniform(11, 18),
    "mining_ratio": Uniform(0.05, 0.3),
    "loss": Uniform(0.6, 1.0),
    "token_effect": Uniform(0.8, 1.5),
    "observation": "full",
}

TASKS = (
    Definition(
        "bazaar-fixed",
        "AIBazaar-v0",
        "calibrated",
        title="one known market",
        tests="one known market: a constant solves the provider's half, the consumers' half needs a map from price to amount",
        rounds=100_000,
        tripwire=True,
        plan=Plan(markets=20, prefixes=8),
    ),
    Definition(
        "bazaar-grid",
        "AIBazaar-v0",
        "grid",
        title="11 prices x 10 amounts",
        tests="the discretised market of the tabular learners, with its own oracle and anchor",
        rounds=100_000,
        tripwire=True,
        plan=Plan(markets=20, prefixes=8),
    ),
    Definition(
        "bazaar-drawn",
        "AIBazaar-v0",
        "drawn",
        _CROWD,
        title="a new crowd in every market",
        tests="the leader faces a new crowd; consumers answer any price",
        rounds=300_000,
    ),
    # Every consumer's C_b and the block's R jump by a fifth every 40 rounds on average, and nobody is told (no observation shows them). Play is
    # judged over ten consecutive rounds after twenty of warm-up: what is measured is how far a policy lags behind a moving equilibrium.
    Definition(
        "bazaar-drift",
        "AIBazaar-v0",
        "drawn",
        {
            **_CROWD,
            "horizon": 200,
            "drift": {
                "business_value": Jump(1 / 40, 0.2, (55.0, 880.0)),
                "block_reward": Jump(1 / 40, 0.2, (7_500.0, 120_000.0)),
            },
        },
        title="values and rewards jump unannounced",
        tests="tracking regret: nothing but play itself tells that the market has moved",
        rounds=300_000,
        plan=Plan(warm_up=20, rounds=10, prefixes=4),
    ),
)
QUICK = ("bazaar-fixed", "bazaar-grid", "bazaar-drawn")
QUICK_ALGORITHMS = {
    "random": None,
    "equilibrium": None,
    "best_constant": None,
    "myopic": None,
    "damped_best_response": None,
    "fictitious_play": None,
    "genetic": None,
    "pb_marl": 10_000,
    "pga_app": 10_000,
    "giga_wolf": 10_000,
    "minimax_q": 1_500,
    "q_learning": 10_000,
}
"""What ``make leaderboard`` runs here: algorithm -> budget in rounds (None: its own quick budget)."""

SUITE_V1 = ("bazaar-drawn", "bazaar-drift", "bazaar-fixed")
_TABLES = {"bazaar-drawn": 100_000, "bazaar-drift": 50_000, "bazaar-fixed": 50_000}
V1_ALGORITHMS = {
    "random": None,
    "equilibrium": None,
    "best_constant": None,
    "myopic": None,
    "damped_best_response": None,
    "fictitious_play": None,
    "genetic": {"bazaar-fixed": 40_000},
    "pb_marl": _TABLES,
    "pga_app": _TABLES,
    "giga_wolf": _TABLES,
    "minimax_q": 2_000,
    "q_learning": _TABLES,
    "bandit": _TABLES,
    "sb3_ppo": {"bazaar-drawn": 60_000, "bazaar-fixed": 60_000},
    "sb3_sac": {"bazaar-fixed": 20_000},
}
"""What ``marketenvs benchmark suite-v1`` runs here: algorithm -> budget in rounds (None: its own quick budget), or task -> budget."""
