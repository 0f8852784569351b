"""Options of the SB3 trainers, checked by name before anything is computed: also those inside ``settings`` and ``normalize``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from marketenvs.errors import InvalidParameter, UnknownName, nearest

from .network import ACTIVATIONS
from .sb3_networks import sb3_class

RESERVED = ("self", "task", "seed", "algorithm", "defaults", "budget", "report", "policy", "env", "device", "venv")
SCHEDULES = ("alternating", "simultaneous")


def check_options(algorithm: str, train: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check the options of an SB3 trainer.

    Args:
        algorithm: Name of the SB3 class.
        train: The function that takes the options.
        options: Name -> value.

    Raises:
        UnknownName: An option, or a key of ``settings``, ``settings["policy_kwargs"]`` or ``normalize``, that does not
            exist; the message names the nearest.
        InvalidParameter: One of these is not a mapping.
    """
    check_names(f"sb3:{algorithm.lower()}", options, train)
    schedule = options.get("schedule", SCHEDULES[0])
    if schedule not in SCHEDULES:
        raise UnknownName(f"unknown schedule {schedule!r}; {nearest(schedule, SCHEDULES)}")
    settings = _mapping("settings", options.get("settings"))
    cls = sb3_class(algorithm)
    check_names(f"{algorithm} (settings)", settings, cls)
    inner = _mapping("settings: policy_kwargs", settings.get("policy_kwargs"))
    check_names(f"{algorithm}'s policy (policy_kwargs)", inner, cls.policy_aliases["MlpPolicy"])
    activation(inner.get("activation_fn"))
    normalize = options.get("normalize")
    if isinstance(normalize, Mapping):
        from stable_baselines3.common.vec_env import VecNormalize

        check_names("VecNormalize (normalize)", normalize, VecNormalize)
    elif not isinstance(normalize, (bool, type(None))):
        raise InvalidParameter(f"normalize must be true, false or VecNormalize's arguments, got {normalize!r}")


def check_names(owner: str, given: Mapping[str, Any], function: Any) -> None:
    """Raise ``UnknownName`` unless the function (or constructor of the class) takes all these keyword arguments."""
    classes = function.__mro__[:-1] if inspect.isclass(function) else ()
    known: list[str] = []
    for each in [vars(c)["__init__"] for c in classes if "__init__" in vars(c)] or [function]:
        parameters = inspect.signature(each).parameters
        various = [n for n, p in parameters.items() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        known += [n for n in parameters if n not in (*RESERVED, *various, *known)]
        if not various:  # else a constructor hands what it does not name itself to its base class's
            break
    for name in given:
        if name not in known:
            raise UnknownName(f"{owner} has no option {name!r}; {nearest(str(name), known)}")


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise InvalidParameter(f"{name} must map names to values, got {value!r}")
    return value or {}


def activation(name: Any) -> Any:
    """Torch's class of an activation from its name (a configuration file has only names); classes stay as they are.

    Raises:
        UnknownName: No activation of that name plays here.
    """
    if not isinstance(name, str):
        return name
    from torch import nn

    found = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}
    assert set(found) == set(ACTIVATIONS)
    if name.lower() not in found:
        raise UnknownName(f"unknown activation_fn {name!r}; {nearest(name, found)}")
    return found[name.lower()]


def merged(defaults: Mapping[str, Any], settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Keyword arguments of the SB3 class: the defaults with what the user set, ``policy_kwargs`` key by key."""
    out = {**defaults, **(settings or {})}
    inner = {**defaults.get("policy_kwargs", {}), **((settings or {}).get("policy_kwargs") or {})}
    if "activation_fn" in inner:
        inner["activation_fn"] = activation(inner["activation_fn"])
    return {**out, "policy_kwargs": inner} if inner else out
