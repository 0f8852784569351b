"""Tasks of the spectrum price market, as their author writes them (``marketenvs suite build`` freezes them)."""

from ...arrays import Choice, Uniform
from ...task import Definition, Plan

TASKS = (
    Definition(
        "spectrum-fixed",
        "SpectrumBertrand-v0",
        "desk",
        title="one known market",
        tests="tripwire: prices by a constant, bids by one fixed mixture",
        rounds=100_000,
        tripwire=True,
        plan=Plan(markets=20, prefixes=4, draws=32),
    ),
    Definition(
        "spectrum-channel",
        "SpectrumBertrand-v0",
        "drawn",
        title="costs and channels differ by market",
        tests="choice, congestion, mixed bids",
        rounds=300_000,
    ),
    Definition(
        "spectrum-clearing",
        "SpectrumBertrand-v0",
        "clearing",
        {"n_sellers": 3, "channels": 10, "demand": Choice(tuple(range(15, 30)))},
        title="price dispersion",
        tests="mixing over prices; closed form",
        rounds=100_000,
        plan=Plan(draws=32),
    ),
    Definition(
        "spectrum-calvano",
        "SpectrumBertrand-v0",
        "calvano",
        title="logit pricing with memory, 15 prices",
        tests="collusion: read Delta and repeated.dynamic_regret beside the stage score, which a constant wins",
        rounds=1_000_000,
        tripwire=True,
        plan=Plan(markets=20),
    ),
    Definition(
        "spectrum-logit",
        "SpectrumBertrand-v0",
        "calvano",
        {
            "quality": Uniform(1.5, 2.5),
            "unit_cost": Uniform(0.8, 1.2),
            "price_levels": None,
            "price_floor": 0.8,
            "price_cap": 2.8,
            "observation": "full",
        },
        title="logit pricing, qualities and costs differ by market",
        tests="reading qualities and costs; myopic replies converge in the stage game, so they are no floor here",
        rounds=300_000,
        tripwire=True,
    ),
)
QUICK = ("spectrum-fixed", "spectrum-clearing")
QUICK_ALGORITHMS = {
    "random": None,
    "equilibrium": None,
    "best_constant": None,
    "myopic": None,
    "qpml": 4_000,
    "exp3": 4_000,
    "regret_matching": 4_000,
    "zero_intelligence": None,
    "truthful": None,
    "q_learning": 4_000,
}
"""What ``make leaderboard`` runs here: algorithm -> budget in rounds (None: its own quick budget)."""
