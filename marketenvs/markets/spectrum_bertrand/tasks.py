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
        plan=Plan(markets=20, prefixes=8),
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
    ),
    Definition(
        "spectrum-calvano",
        "SpectrumBertrand-v0",
        "calvano",
        {"quality": Uniform(1.75, 2.25), "unit_cost": Uniform(0.9, 1.1), "price_levels": None, "observation": "full"},
        title="logit pricing with memory",
        tests="the future matters; collusion",
        rounds=1_000_000,
    ),
)
QUICK = ("spectrum-fixed", "spectrum-channel", "spectrum-clearing")
