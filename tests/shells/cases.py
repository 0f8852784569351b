"""The markets every shell is tested on: all registered ones, their discrete presets, and the toys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import marketenvs
from marketenvs import Market

from .toy import MaskedToy, Toy, ToyParams

HORIZON = 4


def _makers() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for id in marketenvs.list_markets():
        for preset in marketenvs.list_presets(id):
            if (
                preset == marketenvs.list_presets(id)[0]
                or preset in ("grid", "labels", "two_tier")
                or (preset == "drawn" and id == "AIBazaar-v0")
            ):
                made[f"{id}:{preset}"] = lambda id=id, preset=preset: marketenvs.make(
                    id, preset=preset, horizon=HORIZON
                )
    made["toy"] = lambda: Toy(ToyParams(horizon=HORIZON))
    made["masked"] = lambda: MaskedToy(ToyParams(horizon=HORIZON))
    return made


MAKERS = _makers()
every_market = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
DEFAULTS = {k: m for k, m in MAKERS.items() if ":" not in k or k.endswith(marketenvs.list_presets(k.split(":")[0])[0])}
every_default = pytest.mark.parametrize("make", DEFAULTS.values(), ids=DEFAULTS.keys())
ROLES = [(name, role) for name, make in MAKERS.items() for role in make().roles]
every_role = pytest.mark.parametrize(
    ("make", "role"), [(MAKERS[n], r) for n, r in ROLES], ids=[f"{n}:{r}" for n, r in ROLES]
)


def stage_of(market: Market, role: str) -> str | None:
    """The last stage of a role with several, else None."""
    names = market.stages_of[role]
    return names[-1] if len(names) > 1 else None


def sample(env: Any, observations: Any, infos: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Legal random actions of all live agents of a parallel environment."""
    actions = {}
    for agent in env.agents:
        space = env.action_space(agent)
        space.seed(int(rng.integers(1 << 31)))
        seen = observations[agent]
        mask = seen.get("action_mask") if isinstance(seen, dict) else None
        mask = infos[agent].get("action_mask") if mask is None else mask
        actions[agent] = space.sample(mask)
    return actions


def same(a: Any, b: Any) -> bool:
    """Whether nested dictionaries and tuples of arrays are equal bit for bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.array_equal(a, b))
