"""Tasks of coalition trading, as their author writes them (``marketenvs suite build`` freezes them)."""

from ...arrays import Uniform
from ...task import Definition, Plan

# 4 frozen prefixes and 64 draws per market instead of 8 and 128: a stochastic policy is then judged on 200 markets in about
# a second or two (coalition-drop .8 s, coalition-labels 1.8 s); the buyers' anchor of coalition-labels moves by 9 %.
_CHEAP = Plan(prefixes=4, draws=64)

TASKS = (
    Definition(
        "coalition-fixed",
        "CoalitionTrading-v0",
        "default",
        title="one known market, prices clear it",
        tests="tripwire: a constant price pair and a demand rule solve it; a learner below 0.9 here is broken",
        rounds=100_000,
        tripwire=True,
        plan=Plan(markets=10, prefixes=8),
    ),
    Definition(
        "coalition-drop",
        "CoalitionTrading-v0",
        "drop",
        {"reputation": Uniform(0.4, 1.0)},
        title="users dropped in a cell",
        tests="radio and reputations set the price regime, pure or mixed",
        rounds=300_000,
        plan=_CHEAP,
    ),
    Definition(
        "coalition-mixed",
        "CoalitionTrading-v0",
        "reduced",
        title="two buyers, mixed prices",
        tests="mixing; deterministic policies cannot win",
        rounds=300_000,
        plan=Plan(markets=10, prefixes=8),
    ),
    Definition(
        "coalition-labels",
        "CoalitionTrading-v0",
        "labels",
        {"reputation": Uniform(0.4, 1.0)},
        title="who joins whom",
        tests="three stages: labels, prices, purchases; certified draws only",
        rounds=300_000,
        plan=_CHEAP,
    ),
)
SUITE_V1 = ("coalition-fixed", "coalition-drop", "coalition-mixed", "coalition-labels")
QUICK = ("coalition-mixed",)
QUICK_ALGORITHMS = {
    "random": None,
    "equilibrium": None,
    "best_constant": None,
    "myopic": None,
    "regret_matching_plus": None,
    "q_learning": 2_000,
    "maddpg": 200,
    "sa_ddpg": 200,
}
"""What ``make leaderboard`` runs here: algorithm -> budget in rounds (None: its own quick budget)."""

_TABULAR = {"coalition-fixed": 3_000, "coalition-drop": 3_000, "coalition-mixed": 20_000, "coalition-labels": 3_000}
_DEEP = {"coalition-fixed": 1_500, "coalition-drop": 1_500, "coalition-mixed": 2_500, "coalition-labels": 600}
V1_ALGORITHMS = {
    "random": None,
    "equilibrium": None,
    "best_constant": None,
    "myopic": None,
    "damped_best_response": None,
    "fictitious_play": None,
    "genetic": 10_000,
    "q_learning": _TABULAR,
    "giga_wolf": _TABULAR,
    "pga_app": _TABULAR,
    "regret_matching_plus": {"coalition-fixed": 20_000, "coalition-mixed": 20_000},
    "maddpg": _DEEP,
    "sa_ddpg": {name: rounds for name, rounds in _DEEP.items() if name != "coalition-labels"},
    "sb3_ppo": {"coalition-mixed": 30_000},
}
"""What ``marketenvs benchmark suite-v1`` trains here for the reference results; ``maddpg`` is the paper's own."""
