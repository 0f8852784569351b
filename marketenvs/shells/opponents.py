"""Who plays the other roles in a single-agent view: policies by name, by path, or as objects."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidParameter, UnknownName, nearest
from ..market import Market
from ..policy import EquilibriumPolicy, Myopic, Uniform

BUILT_IN = {
    "equilibrium": EquilibriumPolicy,
    "random": Uniform,
    "uniform": Uniform,
    "best_response": Myopic,
    "myopic": Myopic,
}


def policy_of(market: Market, role: str, value: Any) -> Any:
    """A policy of one role from what a user may give.

    Args:
        market: The market.
        role: Role that the policy is to play.
        value: A name ("equilibrium", "random", "best_response"), the folder of a saved policy, "module:Class", or a
            policy.

    Raises:
        UnknownName: No such name, folder or class.
        InvalidParameter: What is there is not a policy.
    """
    if isinstance(value, str):
        if value in BUILT_IN:
            return BUILT_IN[value]()
        from marketenvs_baselines.registry import resolve_policy

        if not (":" in value or os.path.isdir(value)):
            raise UnknownName(
                f"no opponent {value!r} for role {role!r}; {nearest(value, BUILT_IN)} "
                "(or the folder of a saved policy, 'module:Class', or a Policy)"
            )
        return resolve_policy(value, role, market)
    if isinstance(value, type):
        raise InvalidParameter(f"opponent of role {role!r} is the class {value.__name__}: give an instance")
    if not (hasattr(value, "start") and hasattr(value, "act_at")):
        raise InvalidParameter(
            f"opponent of role {role!r} must be a name, a path or a policy (with start and act_at), "
            f"got {type(value).__name__}"
        )
    return copy.copy(value)  # its memory is this environment's own; weights stay shared


def check_opponents(market: Market, opponents: Any) -> dict[str, Any]:
    """Role -> what plays it, for all roles.

    One answer for everybody, or a mapping (equilibrium where it says nothing).
    """
    if not isinstance(opponents, Mapping):
        return dict.fromkeys(market.roles, opponents)
    for role in opponents:
        if role not in market.roles:
            raise UnknownName(f"opponents of unknown role {role!r}; {nearest(role, market.roles)}")
    return {role: opponents.get(role, "equilibrium") for role in market.roles}
