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
        plan=Plan(prefixes=4, draws=64),
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
        {
            "quality": Uniform(1.4, 2.6),
            "unit_cost": Uniform(0.8, 1.2),
            "price_floor": 0.95,
            "price_cap": 2.5,
            "observation": "full",
        },
        title="logit pricing with memory one, 15 prices; qualities and costs differ by market",
        tests="the future matters: exact dynamic regret at delta = .95, with stage score and collusion index beside it",
        rounds=1_000_000,
        discount=0.95,
        plan=Plan(markets=100, draws=64),
    ),
    Definition(
        "spectrum-study",
        "SpectrumBertrand-v0",
        "calvano",
        title="the published collusion study: one known logit market",
        tests="tripwire: the stage equilibrium's price, always, has no dynamic regret; watch the collusion index",
        rounds=1_000_000,
        discount=0.95,
        tripwire=True,
        plan=Plan(markets=1, draws=64),
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

SUITE_V1 = ("spectrum-fixed", "spectrum-channel", "spectrum-clearing", "spectrum-calvano")
_TABLES = {
    "spectrum-fixed": 10_000,
    "spectrum-channel": 10_000,
    "spectrum-clearing": 20_000,
    "spectrum-calvano": 20_000,
}
V1_ALGORITHMS = {
    "random": None,
    "equilibrium": None,
    "best_constant": None,
    "myopic": None,
    "damped_best_response": None,
    "fictitious_play": None,
    "zero_intelligence": None,
    "truthful": None,
    "share_rule": None,
    "qpml": _TABLES,
    "qpml_independent": _TABLES,
    "exp3": _TABLES,
    "regret_matching": _TABLES,
    "q_learning": _TABLES,
    "calvano_q": {"spectrum-calvano": 1_000_000},
    "sb3_ppo": {"spectrum-clearing": 30_000, "spectrum-channel": 30_000},
    "sb3_dqn": {"spectrum-calvano": 20_000},
}
"""What ``marketenvs benchmark suite-v1`` trains here for the committed reference results."""
