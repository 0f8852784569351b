"""Actions at the boundary: masks in the form of their spaces, what agents see before they have seen, and checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from ..errors import InvalidAction
from ..market import Market, Stage


def is_masked(market: Market, stage: Stage) -> bool:
    """Whether the shells offer action masks at this stage.

    It is discrete and the market says which actions are legal.
    """
    return stage.codec.discrete and type(market).action_mask is not Market.action_mask


def actions_of(stage: Stage) -> int:
    """Length A of a discrete stage's action mask.

    The actions, or for MultiDiscrete the levels of all numbers in a row.
    """
    space = stage.codec.action_space
    return int(np.sum(space.nvec)) if isinstance(space, spaces.MultiDiscrete) else int(space.n)  # type: ignore[attr-defined]


def mask_space(stage: Stage) -> spaces.Space:
    """Space of one agent's action mask, in the form that ``action_space.sample(mask)`` takes."""
    space = stage.codec.action_space
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.Tuple([spaces.Box(0, 1, (int(n),), np.int8) for n in space.nvec])
    return spaces.Box(0, 1, (actions_of(stage),), np.int8)


def split_mask(stage: Stage, row: np.ndarray) -> Any:
    """One agent's mask (A,) in the form of :func:`mask_space`."""
    space = stage.codec.action_space
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(np.split(row, np.cumsum(space.nvec)[:-1]))
    return row


def blank(space: spaces.Box) -> np.ndarray:
    """What an agent sees before it has seen anything: zeros (or the nearest valid values)."""
    return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)


def legal(space: spaces.Space) -> Any:
    """The mask of :func:`mask_space` in which everything is legal."""
    if isinstance(space, spaces.Tuple):
        return tuple(legal(s) for s in space)
    return np.ones(space.shape, space.dtype)  # type: ignore[arg-type]


def check_actions(stage: Stage, actions: Any, batch: int, agents: Sequence[str] | None = None) -> np.ndarray:
    """Actions of a stage as an array (B, m, *action shape): float64, or int64 where the stage is discrete.

    Raises:
        InvalidAction: A wrong shape or type, NaN, infinity, or an index outside a discrete space; it names the agent.
    """
    codec = stage.codec
    shape = codec.action_shape
    try:
        values = np.asarray(actions)
    except (TypeError, ValueError):
        values = np.empty(0, dtype=object)
    if (
        values.ndim != 2 + len(shape)
        or values.shape[0] != batch
        or values.shape[2:] != shape
        or values.dtype.kind not in "fiu"
    ):
        raise InvalidAction(_complaint(stage, actions, batch, agents))
    if agents is not None and values.shape[1] != len(agents):
        raise InvalidAction(_complaint(stage, actions, batch, agents))
    if codec.discrete:
        if values.dtype.kind == "f":
            raise InvalidAction(f"actions of stage {stage.name!r} must be integers of {codec.action_space}")
        top = getattr(codec.action_space, "nvec", None)
        wrong = (values < 0) | (values >= (codec.action_space.n if top is None else top))  # type: ignore[attr-defined]
        if wrong.any():
            where = np.argwhere(wrong)[0]
            raise InvalidAction(
                f"action {values[tuple(where)]} of {_agent(stage, agents, where)} at stage {stage.name!r} is not in "
                f"{codec.action_space}"
            )
        return values.astype(np.int64, copy=False)
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0]
        raise InvalidAction(
            f"NaN or infinite action of {_agent(stage, agents, where)} at stage {stage.name!r} in market {where[0]}: "
            "actions must be finite"
        )
    return values.astype(np.float64, copy=False)


def _agent(stage: Stage, agents: Sequence[str] | None, where: np.ndarray) -> str:
    return agents[where[1]] if agents is not None else f"{stage.role}_{where[1]}"


def _complaint(stage: Stage, actions: Any, batch: int, agents: Sequence[str] | None) -> str:
    """The message for actions of a wrong shape or type; it looks for the agent to blame."""
    space = stage.codec.action_space
    if (
        batch == 1
        and agents is not None
        and isinstance(actions, list)
        and len(actions) == 1
        and len(actions[0]) == len(agents)
    ):
        for agent, action in zip(agents, actions[0], strict=True):
            try:
                value = np.asarray(action)
            except (TypeError, ValueError):
                value = np.empty(0, dtype=object)
            if value.shape != stage.codec.action_shape or value.dtype.kind not in "fiu":
                return f"action of {agent} at stage {stage.name!r} must be in {space}, got {action!r}"
    want = (batch, "agents" if agents is None else len(agents), *stage.codec.action_shape)
    got = getattr(actions, "shape", None)
    what = repr(actions) if got is None else f"shape {got} of {actions.dtype}"
    return f"actions of stage {stage.name!r} must have shape {want} with entries of {space}, got {what}"
