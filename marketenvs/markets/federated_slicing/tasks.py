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
        # The issue says load ~ U(.2, 2) and nothing else. Needs are fresh in every slot and vary more: with the preset's
        # slow needs (AR(1), .85; deviation .4) myopic play scored .975.
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
        # The issue says reduced-form needs. With a load that stays myopic play scored .992 (a crowd's sum hardly moves), so
        # the load is drawn and jumps by half in three slots of five, unannounced.
        {"load": Uniform(0.3, 1.6), "drift": {"load": Jump(0.6, 0.5, (0.3, 2.0))}},
        title="a thousand slices",
        tests="scale: one shared policy for slices of every kind",
        rounds=20_000,
        # 200,000 requests per profile: fewer draws keep the evaluation of a stochastic policy near 2 s.
        plan=Plan(draws=32),
    ),
    Definition(
        "slicing-team",
        "FederatedSlicing-v0",
        "team",
        # The issue says only reward=team with the fluid optimum. Needs are fresh in every slot and public: which slice
        # should starve depends on all needs, and with a slice's own need alone nobody could know. All draws are certified
        # (welfare within 5e-3 per slice of a proved bound).
        {
            "need_sd": 0.6,
            "need_rho": 0.0,
            "day_amplitude": 0.0,
            "horizon": 20,
            "observation": "full",
        },
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

SUITE_V1 = ("slicing-fixed", "slicing-load", "slicing-day", "slicing-1000", "slicing-team")
_SIX = ("slicing-fixed", "slicing-load", "slicing-day", "slicing-team")
_SMALL = {name: 3_000 for name in _SIX} | {"slicing-load": 5_000}
_TABLES = {name: 10_000 for name in _SIX} | {"slicing-1000": 2_000}
V1_ALGORITHMS = {
    "random": None,
    "equilibrium": None,
    "best_constant": None,
    "myopic": None,
    "damped_best_response": None,
    "slicing_truthful": None,
    "slicing_all_max": None,
    "slicing_static": None,
    "netshare": None,
    "bandit": _TABLES,
    "q_learning": _TABLES,
    "pga_app": {name: 10_000 for name in _SIX},
    "giga_wolf": {name: 10_000 for name in _SIX},
    "madqn": _SMALL,
    "independent_ddpg": _SMALL,
    "federated_ddpg": _SMALL,
    "central_ddpg": _SMALL,
    "dt_mafl": {"slicing-day": 3_000},
    "shared_ddpg": {"slicing-1000": 1_000},
    "sb3_ppo": {"slicing-load": 60_000},
    "sb3_sac": {"slicing-load": 20_000},
}
"""What ``marketenvs benchmark suite-v1`` runs here: algorithm -> None (its own quick budget) or {task: rounds}."""
