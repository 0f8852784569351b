"""Tasks of two-tier bidding, as their author writes them (``marketenvs suite build`` freezes them)."""

from ...arrays import LogUniform, Uniform
from ...task import Definition, Plan

_ID = "TwoTierBidding-v0"
# A drawn crowd without radio detail. Eight operators, because simultaneous best responses of four settle within the
# warm-up (the myopic policy would score 1.0); with eight and SNRs up to 60 dB they do not.
_KELLY = {
    "n_operators": 8,
    "positions": "given",
    "snr_bandwidth": LogUniform(1e2, 1e6),
    "spectral_multiplier": 1.0,
    "value_weight": Uniform(1.0, 3.0),
    "floor_per_user": 0.01,
    "cap_per_user": 4.0,
}
# Geometric pools of ten under the efficient rule. Of 80 drawn markets 93 % have a pure equilibrium (1.35 on average), and simultaneous
# best responses keep swinging (bidders score 0.5). Kelly pools of ten: a pure equilibrium in 34 % (equal steps) or 78 % (equal ratios) of
# the draws, but best responses settle there (bidders score 0.95-0.99), so that the myopic policy would solve the task.
_BLOCKS = {
    "value_weight": LogUniform(0.5, 2.0),
    "positions": "random",
    "payment": "efficient",
    "bid_scale": "log",
}
_TEAM = {
    "lower": "table",
    "reward": "team",
    "payment": "eq4",
    "omega": 5.0,
    "bid_levels": 5,
    "value_weight": LogUniform(0.1, 10.0),
    "positions": "random",
}

TASKS = (
    Definition(
        "kelly-fixed",
        _ID,
        "bidding",
        title="one known Kelly market",
        tests="tripwire: a constant solves it; a learner below 0.9 here is broken",
        rounds=50_000,
        tripwire=True,
        plan=Plan(markets=20),
    ),
    Definition(
        "twotier-kelly",
        _ID,
        "bidding",
        _KELLY,
        title="Kelly bids of drawn operators",
        tests="continuous bids for shares against rivals whose values are hidden",
        rounds=100_000,
        plan=Plan(draws=64),
    ),
    Definition(
        "twotier-rb",
        _ID,
        "two_tier",
        _BLOCKS,
        title="bidders and slicers on 50 blocks",
        tests="hierarchy, discrete actions with masks, several equilibria",
        rounds=300_000,
        # 1326 masked splits: fewer frozen prefixes and draws keep the evaluation of a stochastic policy below 2 s.
        plan=Plan(prefixes=4, draws=32),
    ),
    Definition(
        "twotier-team",
        _ID,
        "two_tier",
        _TEAM,
        title="shared objective on blocks",
        tests="cooperation: four bidders share F with profit in Gb/s",
        track="team",
        rounds=100_000,
    ),
)
SUITE_V1 = ("kelly-fixed", "twotier-kelly", "twotier-rb", "twotier-team")
QUICK = ("kelly-fixed", "twotier-kelly")
QUICK_ALGORITHMS = {
    "random": None,
    "equilibrium": None,
    "best_constant": None,
    "myopic": None,
    "damped_best_response": None,
    "bandit": 5_000,
    "q_learning": 5_000,
    "cap_bids": None,
    "sb3_ppo": 6_000,
}
"""What ``make leaderboard`` runs here: algorithm -> budget in rounds (None: its own quick budget)."""

_DEEP = {"twotier-rb": 4_000, "twotier-team": 4_000}  # 7-14 ms a round for ten seeds
_TABLES = {"kelly-fixed": 10_000, "twotier-kelly": 10_000, "twotier-team": 10_000}
V1_ALGORITHMS = {
    "random": None,
    "equilibrium": None,
    "best_constant": None,
    "myopic": None,
    "damped_best_response": None,
    "fictitious_play": None,
    "cap_bids": None,
    "hard_slicing": None,
    "table_dp": None,
    "bandit": 10_000,
    "genetic": 10_000,
    "q_learning": _TABLES,
    "giga_wolf": _TABLES,
    "pga_app": {"kelly-fixed": 10_000, "twotier-kelly": 10_000},
    "dqn": _DEEP,
    "dueling_dqn": _DEEP,
    "sb3_ppo": {"twotier-kelly": 60_000},
    "sb3_sac": {"twotier-kelly": 20_000},
    "sb3_dqn": {"twotier-team": 20_000},
    "rllib_ppo": {"twotier-kelly": 20_000},
}
"""What ``marketenvs benchmark suite-v1`` trains here for the committed reference results."""
