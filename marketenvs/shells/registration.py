"""Registration of a market's shells with PettingZoo (multi-agent) and Gymnasium (single-agent and vector views).

Only names are registered: entry points are strings, and neither a market nor a shell is imported before it is made.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gymnasium.envs import registration as gymnasium_registry
from pettingzoo.env_registry import registration as pettingzoo_registry

if TYPE_CHECKING:
    from ..registry import MarketSpec

NAMESPACE = "marketenvs"


def view_id(id: str, role: str) -> str:
    """Gymnasium id of the view of one role: "AIBazaar-v0", "provider" -> "marketenvs/AIBazaar-Provider-v0"."""
    name, _, version = id.rpartition("-v")
    return f"{NAMESPACE}/{name}-{''.join(part.capitalize() for part in role.split('_'))}-v{version}"


def register_shells(spec: MarketSpec) -> None:
    """Register ``marketenvs/<Id>`` with PettingZoo and ``marketenvs/<Market>-<Role>-v<k>`` with Gymnasium.

    Registering again is harmless.
    """
    id, kwargs = f"{NAMESPACE}/{spec.id}", {"market": spec.id}
    if id not in pettingzoo_registry.parallel_registry:
        pettingzoo_registry.register(
            "parallel", id, "marketenvs.shells.parallel:MarketParallelEnv", kwargs=dict(kwargs)
        )
        pettingzoo_registry.register("aec", id, "marketenvs.shells.aec:MarketAECEnv", kwargs=dict(kwargs))
    for role in spec.roles:
        view = view_id(spec.id, role)
        if view not in gymnasium_registry.registry:
            gymnasium_registry.register(
                view,
                entry_point="marketenvs.shells.single:MarketSingleAgentEnv",
                vector_entry_point="marketenvs.shells.vector:MarketVectorEnv",
                kwargs={**kwargs, "role": role},
            )
    if "marketenvs.shells.rllib" in sys.modules:  # RLlib is in use: let it know markets that are registered later, too
        sys.modules["marketenvs.shells.rllib"].register_market(spec)
