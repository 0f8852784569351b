"""What algorithms there are: ours (one file each), third parties' (entry points), and a user's ``module:train``.

An algorithm is ``train(task, seed, budget, report) -> {role: policy}``. It may offer ``train_many(task, seeds,
budget, report)``, which trains one run per seed at once in arrays and returns a list. ``task`` gives
``make_market(**overrides)``, ``name``, ``budget`` (rounds) and ``scale`` ({role: number} that rewards are divided
by).

Every module of this package that sets ``ALGORITHM`` (or a tuple ``ALGORITHMS``) is found by itself. Such modules
import nothing heavy at the top: torch, SB3, Ray and pymoo are imported inside functions.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marketenvs.errors import InvalidParameter, NotOffered, UnknownName, nearest
from marketenvs.market import Market

from .run import Policies, Report, check_roles, per_run

ENTRY_POINTS = "marketenvs.policies"
TrainMany = Callable[[Any, Sequence[int], int, "Report | None"], list[Policies]]


@dataclass(frozen=True)
class Algorithm:
    """An algorithm that can be trained on tasks and put on the leaderboard.

    Args:
        name: Unique name, as on the command line.
        train: ``train(task, seed, budget, report) -> {role: policy}``. May be left out where ``train_many`` is given.
        train_many: ``train_many(task, seeds, budget, report) -> [{role: policy}, ...]``, all seeds at once.
        title: Name in tables.
        citation: Source of the algorithm.
        quick_budget: Rounds that it gets in the quick suite.
        access: "observation", "model" or "oracle": what its policies are given (ranked separately).
        stochastic: Whether its policies mix.
        markets: Ids of markets it plays; empty for all.
        actions: Kinds of stages it can play, of "discrete" and "continuous".
        can_play: Finer check: market -> None, or the reason why not. It may take the keyword ``role``: the only one to play.
        requires: Modules that must be installed ("stable_baselines3").
        heavy: Too slow for the quick suite; shown there as reference results.
        check: Checks options (name -> value) before anything is computed, nested ones too; raises ``UnknownName`` or
            ``InvalidParameter``. None: names are checked against the signature of ``train``.
    """

    name: str
    train: Callable[..., Policies] | None = None
    train_many: TrainMany | None = None
    title: str = ""
    citation: str = ""
    quick_budget: int = 20_000
    access: str = "observation"
    stochastic: bool = False
    markets: tuple[str, ...] = ()
    actions: tuple[str, ...] = ("discrete", "continuous")
    can_play: Callable[..., str | None] | None = None
    requires: tuple[str, ...] = ()
    heavy: bool = False
    check: Callable[[Mapping[str, Any]], None] | None = None

    def __post_init__(self) -> None:
        if self.train is None and self.train_many is None:
            raise InvalidParameter(f"algorithm {self.name!r} needs train or train_many")
        if self.train is None:
            object.__setattr__(self, "train", self._train_one)
        if not self.title:
            object.__setattr__(self, "title", self.name)

    def _train_one(self, task: Any, seed: int, budget: int, report: Report | None = None) -> Policies:
        assert self.train_many is not None
        return self.train_many(task, [seed], budget, per_run(report))[0]

    def why_not(self, market: Market, role: str | None = None) -> str | None:
        """Why this algorithm cannot play the market (or, if named, one role of it); None if it can."""
        missing = [m for m in self.requires if importlib.util.find_spec(m) is None]
        if missing:
            return f"{self.name} needs {', '.join(missing)}, which is not installed"
        if self.markets and market.id not in self.markets:
            return f"{self.name} plays {', '.join(self.markets)}, not {market.id}"
        for stage in (s for s in market.stages if role in (None, s.role)):
            kind = "discrete" if stage.codec.discrete else "continuous"
            if kind not in self.actions:
                return f"{self.name} plays {' and '.join(self.actions)} stages; {market.id}'s {stage.name!r} is {kind}"
        if self.can_play is None:
            return None
        if role is not None and "role" in inspect.signature(self.can_play).parameters:
            return self.can_play(market, role=role)
        return self.can_play(market)

    def plays(self, market: Market) -> bool:
        """Whether this algorithm can play the market."""
        return self.why_not(market) is None

    def run(
        self, task: Any, seeds: Sequence[int], budget: int | None = None, report: Report | None = None
    ) -> list[Policies]:
        """Train one run per seed, at once where the algorithm can, and check what comes back.

        Raises:
            NotOffered: The algorithm cannot play the task's market.
            InvalidParameter: It returned something else than ``{role: policy}``.
        """
        market = task.make_market()
        reason = self.why_not(market)
        if reason is not None:
            raise NotOffered(reason)
        budget = self.quick_budget if budget is None else budget
        if self.train_many is not None:
            results = list(self.train_many(task, list(seeds), budget, report))
        else:
            assert self.train is not None
            results = [self.train(task, seed, budget, report) for seed in seeds]
        if len(results) != len(seeds):
            raise InvalidParameter(f"{self.name} returned {len(results)} results for {len(seeds)} seeds")
        for result in results:
            check_result(self.name, market, result)
        return results


def check_result(name: str, market: Market, result: Any) -> None:
    """Raise unless ``result`` maps every role of the market to something with ``start`` and ``act_at`` (or ``act``)."""
    if not isinstance(result, Mapping):
        raise InvalidParameter(f"train of {name!r} must return {{role: policy}}, got {type(result).__name__}")
    check_roles(market, result)
    for role, policy in result.items():
        if inspect.isclass(policy) or not (hasattr(policy, "start") and hasattr(policy, "act_at")):
            what = (
                f"the class {policy.__name__}: return an instance" if inspect.isclass(policy) else type(policy).__name__
            )
            raise InvalidParameter(
                f"train of {name!r} returned for role {role!r} {what}; "
                "a policy needs start and act_at (see marketenvs.policy)"
            )


class Registry(Mapping[str, Algorithm]):
    """All algorithms by name, found on first use."""

    def __init__(self) -> None:
        self._found: dict[str, Algorithm] | None = None

    def _all(self) -> dict[str, Algorithm]:
        if self._found is None:
            found: dict[str, Algorithm] = {}
            for algorithm in (*_own(), *_third_party()):
                if algorithm.name in found:
                    warnings.warn(
                        f"two algorithms are named {algorithm.name!r}; the first is kept", RuntimeWarning, stacklevel=3
                    )
                found.setdefault(algorithm.name, algorithm)
            self._found = dict(sorted(found.items()))
        return self._found

    def __getitem__(self, name: str) -> Algorithm:
        found = self._all()
        if name not in found and name.replace("-", "_") in found:
            name = name.replace("-", "_")
        if name not in found:
            raise UnknownName(f"unknown algorithm {name!r}; {nearest(name, found)}")
        return found[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._all() or name.replace("-", "_") in self._all())

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


ALGORITHMS = Registry()
"""Name -> :class:`Algorithm`."""


def _own() -> Iterator[Algorithm]:
    package = importlib.import_module(__package__)
    for info in pkgutil.iter_modules(package.__path__):
        try:
            module = importlib.import_module(f"{__package__}.{info.name}")
        except ImportError as error:
            warnings.warn(f"marketenvs_baselines.{info.name} cannot be imported: {error}", RuntimeWarning, stacklevel=4)
            continue
        many = [value for key, value in vars(module).items() if key == "ALGORITHM"]
        if info.name != "registry":
            many += list(getattr(module, "ALGORITHMS", ()))
        yield from many


def _third_party() -> Iterator[Algorithm]:
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            yield as_algorithm(entry.name, entry.load())
        except Exception as error:
            warnings.warn(f"entry point {entry.name!r} of {ENTRY_POINTS} fails: {error}", RuntimeWarning, stacklevel=4)


def as_algorithm(name: str, value: Any) -> Algorithm:
    """An ``Algorithm`` as it is; a function ``train(task, seed, budget, report)`` wrapped into one.

    The function's attributes ``quick_budget``, ``access``, ``stochastic``, ``title``, ``citation`` and ``train_many``
    are used if set.

    Raises:
        InvalidParameter: Neither; or the function cannot be called with these four arguments.
    """
    if isinstance(value, Algorithm):
        return value
    if inspect.isclass(value) or not callable(value):
        kind = "a class" if inspect.isclass(value) else type(value).__name__
        raise InvalidParameter(
            f"{name} is {kind}; a learner is a function train(task, seed, budget, report) -> {{role: policy}}"
        )
    try:
        inspect.signature(value).bind(None, 0, 0, None)
    except TypeError as error:
        raise InvalidParameter(
            f"{name}{inspect.signature(value)} cannot be called as train(task, seed, budget, report): {error}"
        ) from None
    except ValueError:
        pass  # a builtin without a signature
    fields = {f.name for f in dataclasses.fields(Algorithm)} - {"name", "train"}
    given = {key: getattr(value, key) for key in fields if hasattr(value, key)}
    return Algorithm(name=name, train=value, **given)


def load_object(path: str) -> Any:
    """The object at ``"module:name"`` or ``"file.py:name"``; modules in the current directory are found too.

    Raises:
        UnknownName: No such module, file or name.
        InvalidParameter: The path is not of that form, or the module fails while it is imported.
    """
    where, _, name = path.rpartition(":")
    if not where or not name:
        raise InvalidParameter(f"{path!r} is neither a known name nor of the form 'module:name' or 'file.py:name'")
    module = _load_file(where) if where.endswith(".py") else _load_module(where)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            names = [n for n in vars(value) if not n.startswith("_")]
            raise UnknownName(f"{where} has no {part!r}; {nearest(part, names)}")
        value = getattr(value, part)
    return value


def _load_file(where: str) -> Any:
    file = Path(where).expanduser().resolve()
    if not file.is_file():
        raise UnknownName(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(file.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InvalidParameter(f"{file} fails while it is imported: {type(error).__name__}: {error}") from error
    return module


def _load_module(where: str) -> Any:
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is not None and (where == error.name or where.startswith(f"{error.name}.")):
            raise UnknownName(f"there is no module {where!r} (looked in {here} and on the Python path)") from None
        raise InvalidParameter(f"{where} needs the module {error.name!r}, which is not installed") from error
    except Exception as error:
        raise InvalidParameter(f"{where} fails while it is imported: {type(error).__name__}: {error}") from error
    finally:
        if added:
            sys.path.remove(here)


def resolve(name: str) -> Algorithm:
    """The algorithm of that name, or the function at ``"module:train"`` / ``"file.py:train"`` as an algorithm.

    Raises:
        UnknownName: No such algorithm, module, file or function.
        InvalidParameter: What is there is not a learner.
    """
    if ":" in name:
        if name.replace(":", "_") in ALGORITHMS:  # "sb3:ppo" is "sb3_ppo"
            return ALGORITHMS[name.replace(":", "_")]
        return as_algorithm(name, load_object(name))
    return ALGORITHMS[name]


def resolve_policy(name: str, role: str | None = None, market: Market | None = None) -> Any:
    """A policy from ``"module:Class"`` (made without arguments), ``"module:instance"``, or the folder of a saved one.

    Raises:
        NotOffered: The saved policies are of another market than ``market`` (if given).
        UnknownName: No such folder, module or name.
        InvalidParameter: What is there is not a policy, or a class that needs arguments.
    """
    if Path(name).is_dir():
        from .store import load_policy

        policies = load_policy(name, market)
        if role is None and len(policies) > 1:
            raise InvalidParameter(f"{name} holds policies of {', '.join(policies)}: name the role")
        if role is not None and role not in policies:
            raise UnknownName(f"{name} has no policy of role {role!r}; {nearest(role, policies)}")
        return policies[role] if role is not None else next(iter(policies.values()))
    value = load_object(name)
    if inspect.isclass(value):
        try:
            value = value()
        except TypeError as error:
            raise InvalidParameter(f"{name} cannot be made without arguments: {error}") from None
    if not (hasattr(value, "start") and hasattr(value, "act_at")):
        raise InvalidParameter(
            f"{name} is not a policy: it needs start(market, role, batch, seed) and act(obs, mask); "
            "subclass marketenvs.policy.Policy"
        )
    return value
