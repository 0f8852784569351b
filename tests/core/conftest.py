"""Small frozen tasks that the tests of scoring share."""

from __future__ import annotations

import pytest

import marketenvs
from marketenvs import MarketSpec, Uniform, registry, role_track
from marketenvs.policy import EquilibriumPolicy
from marketenvs.task import Definition, Plan, build_task

CROWD = {
    "n_consumers": 10,
    "payment_weight": Uniform(11, 18),
    "mining_ratio": Uniform(0.05, 0.3),
    "loss": Uniform(0.6, 1.0),
    "token_effect": Uniform(0.8, 1.5),
    "observation": "full",
}
PLAN = Plan(markets=12, warm_up=1, prefixes=6, draws=32)


@pytest.fixture(scope="session")
def drawn_task():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            role_track, "PANEL", {"equilibrium": EquilibriumPolicy}
        )  # the panel's anchors take most of the time
        return build_task(Definition("small-drawn", "AIBazaar-v0", "calibrated", CROWD, plan=PLAN), floors=False)


@pytest.fixture(scope="session")
def grid_task():
    plan = Plan(markets=6, warm_up=0, prefixes=4, draws=32)
    return build_task(Definition("small-grid", "AIBazaar-v0", "grid", {"n_consumers": 3}, plan=plan), floors=False)


@pytest.fixture
def registered():
    """Registers classes as markets for one test: ``registered(Class) -> id``."""
    added = []

    def add(cls):
        id = f"{cls.__name__.strip('_')}-v0"
        marketenvs.register(MarketSpec(id, f"{cls.__module__}:{cls.__name__}", ("role",), cls.__name__, "For a test."))
        added.append(id)
        return id

    yield add
    for id in added:
        registry._REGISTRY.pop(id)
