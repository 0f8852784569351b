"""Ids of markets: ours (one room each under ``marketenvs.markets``) and third parties' (entry-point group ``marketenvs.markets``)."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from dataclasses import dataclass
from typing import Any

from .errors import InvalidParameter, UnknownName, nearest
from .market import Market

NAMESPACE = "marketenvs"


@dataclass(frozen=True)
class MarketSpec:
    """What the registry knows of a market before it is imported.

    Args:
        id: Versioned id such as "AIBazaar-v0".
        entry_point: "package.module:Class".
        roles: Role names, in order.
        title: Name in prose.
        summary: One sentence: what is traded, by whom, what makes it hard.
        paper: Title and venue of the source.
        default_preset: Preset used when none is named.
    """

    id: str
    entry_point: str
    roles: tuple[str, ...]
    title: str
    summary: str
    paper: str = ""
    default_preset: str = "default"

    def load(self) -> type[Market]:
        """Import the market's class."""
        module, _, name = self.entry_point.partition(":")
        return getattr(importlib.import_module(module), name)


_REGISTRY: dict[str, MarketSpec] = {}


def register(spec: MarketSpec) -> None:
    """Add a market to the registry (and to PettingZoo's and Gymnasium's).

    Raises:
        InvalidParameter: The id is not versioned, or is taken by another market.
    """
    name, _, version = spec.id.rpartition("-v")
    if not name or not version.isdigit():
        raise InvalidParameter(f"market id {spec.id!r} must end in a version, such as 'MyMarket-v0'")
    known = _REGISTRY.get(spec.id)
    if known is not None and known != spec:
        raise InvalidParameter(f"market id {spec.id!r} is taken by {known.entry_point}")
    _REGISTRY[spec.id] = spec
    from .shells import registration

    registration.register_shells(spec)


def _discover() -> None:
    from . import markets

    for info in pkgutil.iter_modules(markets.__path__):
        if info.ispkg:
            room = importlib.import_module(f"{markets.__name__}.{info.name}")
            if hasattr(room, "SPEC"):
                register(room.SPEC)
    for entry in importlib.metadata.entry_points(group="marketenvs.markets"):
        register(entry.load())


def spec(id: str) -> MarketSpec:
    """The registered market of that id; "marketenvs/X-v0" and "X-v0" are the same.

    Raises:
        UnknownName: No such id; the message names the nearest.
    """
    short = id.removeprefix(f"{NAMESPACE}/") if isinstance(id, str) else id
    if not isinstance(short, str) or short not in _REGISTRY:
        raise UnknownName(f"unknown market {id!r}; {nearest(short, _REGISTRY)}")
    return _REGISTRY[short]


def list_markets() -> list[str]:
    """Ids of all registered markets, sorted."""
    return sorted(_REGISTRY)


def list_presets(id: str) -> list[str]:
    """Preset names of a market, its default first."""
    found = spec(id)
    names = ["default", *(p for p in found.load().Params.PRESETS if p != "default")]
    return sorted(names, key=lambda p: p != found.default_preset)


def make(
    id: str,
    *,
    preset: str | None = None,
    backend: str = "numpy",
    dtype: str | None = None,
    device: Any = None,
    **params: Any,
) -> Market:
    """A market by id.

    Args:
        id: "AIBazaar-v0" or "marketenvs/AIBazaar-v0"; see :func:`list_markets`.
        preset: Named set of parameters; see :func:`list_presets`.
        backend: "numpy", "torch", "jax" or "array_api_strict".
        dtype: "float64" or "float32".
        device: Device of the arrays.
        **params: Parameters that replace the preset's: a scalar for all agents, a sequence per agent, a (B, n) array per market, or a
            distribution (``marketenvs.Uniform(11, 18)``).

    Raises:
        UnknownName: Unknown id, preset or parameter; the message names the nearest valid one.
        InvalidParameter: A value outside its range, of a wrong shape, or inconsistent with others.
    """
    found = spec(id)
    cls = found.load()
    chosen = cls.Params.preset(preset or found.default_preset, **params)
    market = cls(chosen, backend=backend, dtype=dtype, device=device)
    market.id = found.id
    return market


def parallel_env(id: str, **params: Any) -> Any:
    """A PettingZoo ``ParallelEnv`` of the market ``id``; takes ``render_mode``, ``reward_scale`` and :func:`make`'s parameters."""
    from .shells.parallel import MarketParallelEnv

    return MarketParallelEnv(id, **params)


def aec_env(id: str, **params: Any) -> Any:
    """A PettingZoo ``AECEnv`` of the market ``id``; takes ``render_mode``, ``reward_scale`` and :func:`make`'s parameters."""
    from .shells.aec import MarketAECEnv

    return MarketAECEnv(id, **params)
