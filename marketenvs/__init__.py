"""marketenvs: multi-agent RL environments for wireless and computing markets, each with its certified equilibrium."""

from .arrays import Choice, Distribution, FirstThen, LogUniform, Noise, Uniform
from .errors import InvalidAction, InvalidParameter, MarketEnvsError, NotOffered, ResetNeeded, UnknownName
from .market import Market, Outcome, Stage, State
from .params import AutoRegressive, Jump, MarketParams
from .registry import MarketSpec, _discover, aec_env, list_markets, list_presets, make, parallel_env, register, spec
from .strategy import BestResponse, Equilibrium, NashConv, Pure, Reply, Sampler, Samples, SocialOptimum, Strategy

__version__ = "0.1.0"

_LAZY = {
    "Blocks": "blocks",
    "evaluate": "scoring",
    "Evaluation": "scoring",
    "Task": "task",
    "load_task": "task",
    "Policy": "policy",
    "EquilibriumPolicy": "policy",
}

__all__ = [
    "AutoRegressive",
    "BestResponse",
    "Choice",
    "Distribution",
    "Equilibrium",
    "FirstThen",
    "InvalidAction",
    "InvalidParameter",
    "Jump",
    "LogUniform",
    "Market",
    "MarketEnvsError",
    "MarketParams",
    "MarketSpec",
    "NashConv",
    "Noise",
    "NotOffered",
    "Outcome",
    "Pure",
    "Reply",
    "ResetNeeded",
    "Sampler",
    "Samples",
    "SocialOptimum",
    "Stage",
    "State",
    "Strategy",
    "Uniform",
    "UnknownName",
    "aec_env",
    "list_markets",
    "list_presets",
    "make",
    "parallel_env",
    "register",
    "spec",
    *sorted(_LAZY),
]

_discover()


def __getattr__(name: str) -> object:
    if name in _LAZY:
        import importlib

        value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
