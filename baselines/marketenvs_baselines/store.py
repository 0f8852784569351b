"""Saving and loading trained policies: a folder with ``policy.json`` and arrays; nothing is unpickled.

``policy.json`` says what the policies are, for which market (its roles, stages and spaces), from which task, with which
configuration.
A policy class can be saved if it has ``export() -> (config, arrays)`` and a classmethod ``restore(config, arrays)``,
with a JSON-ready
``config`` and ``arrays`` by name. Arrays go to ``<role>.npz``, or to ``<role>.safetensors`` where the class sets
``tensors = True``.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter, MarketEnvsError, NotOffered, UnknownName, nearest
from marketenvs.market import Market
from marketenvs.policy import Constant, EquilibriumPolicy, Myopic, Uniform

from .run import Policies

FORMAT = 1
KINDS = {
    "constant": "marketenvs.policy:Constant",
    "uniform": "marketenvs.policy:Uniform",
    "equilibrium": "marketenvs.policy:EquilibriumPolicy",
    "myopic": "marketenvs.policy:Myopic",
    "fictitious_play": "marketenvs_baselines.fictitious_play:FictitiousPlay",
    "damped_best_response": "marketenvs_baselines.fictitious_play:DampedBestResponse",
    "table": "marketenvs_baselines.tabular:TablePolicy",
    "stage_constant": "marketenvs_baselines.best_constant:StageConstant",
    "network": "marketenvs_baselines.network:NetworkPolicy",
}
"""Name of a policy class in ``policy.json`` -> where it is. Classes of this package go by "module:Class" and are trusted too; any
other class loads only with ``trust=True``."""


def signature(market: Market) -> dict[str, Any]:
    """What a policy depends on: the market's id, its roles, and each stage's observation and action space."""
    stages = [
        {
            "name": s.name,
            "role": s.role,
            "observation": int(s.observation_space.shape[0]),
            "action": str(s.codec.action_space),
        }
        for s in market.stages
    ]
    return {"id": market.id, "roles": dict(market.roles), "stages": stages}


def save_policy(
    path: str | os.PathLike[str],
    policies: Mapping[str, Any],
    task: Any,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``{role: policy}`` as a folder, whole or not at all; an older policy at ``path`` is replaced.

    Args:
        path: The folder.
        policies: Role -> policy, for any of the market's roles.
        task: A task (its name and hash are kept), or a market.
        config: Anything JSON-ready that tells how the policies came about (algorithm, seed, budget, versions).

    Raises:
        NotOffered: A policy cannot be saved.
        InvalidParameter: ``path`` exists and is not a saved policy, or ``config`` is not JSON-ready.
    """
    path = Path(path)
    market = task if isinstance(task, Market) else task.make_market()
    if path.exists() and not (path / "policy.json").is_file():
        raise InvalidParameter(f"{path} exists and is not a saved policy: give another path")
    roles, arrays = {}, {}
    for role, policy in policies.items():
        if role not in market.roles:
            raise UnknownName(f"policy for unknown role {role!r} of {market.id}; {nearest(role, market.roles)}")
        kind, settings, arrays[role] = _export(policy)
        roles[role] = {"kind": kind, "config": settings, "tensors": bool(getattr(policy, "tensors", False))}
    about = {
        "format": FORMAT,
        "market": signature(market),
        "task": None if isinstance(task, Market) else {"name": task.name, "hash": getattr(task, "hash", None)},
        "roles": roles,
        "config": dict(config or {}),
    }
    try:
        text = json.dumps(about, indent=2)
    except TypeError as error:
        raise InvalidParameter(f"the configuration cannot be written as JSON: {error}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for role, named in arrays.items():
            if roles[role]["tensors"]:
                from safetensors.numpy import save_file

                save_file({k: np.ascontiguousarray(v) for k, v in named.items()}, str(fresh / f"{role}.safetensors"))
            elif named:
                np.savez(fresh / f"{role}.npz", **named)  # type: ignore[arg-type]
        (fresh / "policy.json").write_text(text)
        fresh.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        fresh.rename(path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return path


def load_policy(path: str | os.PathLike[str], market: Market | None = None, *, trust: bool = False) -> Policies:
    """The policies saved at ``path``.

    Args:
        path: The folder that :func:`save_policy` wrote.
        market: Where they are to play; checked if given.
        trust: Whether a policy may be of a class outside this project; loading it imports, so runs, that code.

    Raises:
        UnknownName: There is no saved policy at ``path``.
        InvalidParameter: The folder is damaged or of another format.
        NotOffered: The policies are of another market, or of a class that is not trusted.
    """
    path = Path(path)
    file = path / "policy.json"
    if not file.is_file():
        raise UnknownName(f"there is no saved policy at {path} (no policy.json)")
    try:
        about = json.loads(file.read_text())
        kept, roles = about["market"], about["roles"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"{file} is damaged: {error!r}") from None
    if about.get("format") != FORMAT:
        raise InvalidParameter(f"{file} has format {about.get('format')!r}; this version reads {FORMAT}")
    if market is not None:
        check_signature(path, kept, signature(market), roles)
    return {role: _restore(path, role, entry, trust) for role, entry in roles.items()}


def trained_on(path: str | os.PathLike[str]) -> str | None:
    """Name of the task that the saved policies were trained on; None if they do not say.

    Raises:
        UnknownName: There is no saved policy at ``path``.
        InvalidParameter: The folder is damaged.
    """
    file = Path(path) / "policy.json"
    if not file.is_file():
        raise UnknownName(f"there is no saved policy at {path} (no policy.json)")
    try:
        return (json.loads(file.read_text()).get("task") or {}).get("name")
    except (ValueError, AttributeError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"{file} is damaged: {error!r}") from None


def check_signature(path: Path, kept: Mapping[str, Any], want: Mapping[str, Any], roles: Mapping[str, Any]) -> None:
    """Raise ``NotOffered`` where a policy saved for ``kept`` cannot play ``want``; only the saved roles matter."""
    if kept["id"] != want["id"]:
        raise NotOffered(f"the policy at {path} is of market {kept['id']}, not {want['id']}")
    for role in roles:
        have, need = kept["roles"][role], want["roles"].get(role)
        if have != need:
            raise NotOffered(f"the policy at {path} plays {have} agents of role {role!r}; this market has {need}")
    for role in roles:
        for old, new in zip(_of_role(kept, role), _of_role(want, role), strict=False):
            for key in ("name", "observation", "action"):
                if old[key] != new[key]:
                    raise NotOffered(
                        f"the policy at {path} was trained on stage {old['name']!r} with {key} {old[key]}; "
                        f"this market has {new[key]} (another preset, parameter or observation)"
                    )


def _of_role(about: Mapping[str, Any], role: str) -> list[dict[str, Any]]:
    return [s for s in about["stages"] if s["role"] == role]


def _export(policy: Any) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    where = f"{type(policy).__module__}:{type(policy).__qualname__}"
    kind = {v: k for k, v in KINDS.items()}.get(where, where)
    if type(policy) is Constant:
        return kind, {}, {"decisions": policy.decisions}
    if type(policy) in (Uniform, EquilibriumPolicy, Myopic):
        return kind, {}, {}
    if not (hasattr(policy, "export") and hasattr(policy, "restore")):
        raise NotOffered(f"policies of class {where} cannot be saved: they lack export() and restore(config, arrays)")
    config, arrays = policy.export()
    return kind, config, {k: np.asarray(v) for k, v in arrays.items()}


def _restore(path: Path, role: str, entry: Mapping[str, Any], trust: bool) -> Any:
    kind = entry["kind"]
    if kind not in KINDS and not kind.startswith(f"{__package__}.") and not trust:
        raise NotOffered(
            f"the policy of {role!r} at {path} is of class {kind}: pass trust=True to import and run that code"
        )
    module, _, name = KINDS.get(kind, kind).partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise NotOffered(f"the policy of {role!r} at {path} needs {kind}: {error}") from error
    if cls in (Uniform, EquilibriumPolicy, Myopic):
        return cls()
    try:
        arrays = _arrays(path / role, bool(entry.get("tensors")))
        return cls(arrays["decisions"]) if cls is Constant else cls.restore(entry["config"], arrays)
    except MarketEnvsError:
        raise
    except Exception as error:
        raise InvalidParameter(
            f"the weights of {role!r} at {path} are damaged: {type(error).__name__}: {error}"
        ) from error


def _arrays(stem: Path, tensors: bool) -> dict[str, np.ndarray]:
    if tensors:
        from safetensors.numpy import load_file

        return dict(load_file(f"{stem}.safetensors"))
    if not Path(f"{stem}.npz").exists():
        return {}
    with np.load(f"{stem}.npz", allow_pickle=False) as file:
        return {k: file[k] for k in file.files}
