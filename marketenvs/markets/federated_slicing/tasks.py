"""Tasks of federated slicing, as their author writes them (``marketenvs suite build`` freezes them)."""

from ...arrays import Uniform
from ...params import Jump
from ...task import Definition, Plan

TASKS = (
    Definition(
        "slicing-fixed",
        "FederatedSlicing-v0",
        "reduced",
        title="one known market under scarcity",
        tests="tripwire: a constant solves it; a learner below 0.9 here is broken",
        rounds=100_000,
        tripwire=True,
        plan=Plan(markets=20, prefixes=8),
    ),
    Definition(
        "slicing-load",
        "FederatedSlicing-v0",
        "drawn",
        {"load": Uniform(0.2, 2.0), "need_sd": 0.6, "need_rho": 0.0},
        title="load drawn from a fifth of the pool to twice the pool",
        tests="truthful at low load, asking the cap under scarcity",
        rounds=100_000,
    ),
    Definition(
        "slicing-day",
        "FederatedSlicing-v0",
        "default",
        title="600 devices, a day, demand seen one slot late",
        tests="forecasts; the equilibrium at the real demand is clairvoyant and not attainable",
        rounds=100_000,
    ),
    Definition(
        "slicing-1000",
        "FederatedSlicing-v0",
        "many",
        {"load": Uniform(0.3, 1.6), "drift": {"load": Jump(0.6, 0.5, (0.3, 2.0))}},
        title="a thousand slices",
        tests="scale: one shared policy for slices of every kind",
        rounds=20_000,
    ),
    Definition(
        "slicing-team",
        "FederatedSlicing-v0",
        "team",
        title="shared reward",
        tests="cooperation: under scarcity the optimum starves some slices",
        track="team",
        rounds=100_000,
    ),
)
QUICK = ("slicing-load", "slicing-day")
QUICK_ALGORITHMS = {
    "random": None,
    "equilibrium": None,
    "best_constant": None,
    "myopic": None,
    "slicing_truthful": None,
    "slicing_all_max": None,
    "slicing_static": None,
    "netshare": None,
    "bandit": 4_000,
    "independent_ddpg": 600,
    "federated_ddpg": 600,
    "dt_mafl": 600,
}
"""What ``make leaderboard`` runs here: algorithm -> budget in rounds (None: its own quick budget)."""
