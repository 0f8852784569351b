"""Tasks: what is scored, frozen in one JSON file with a content hash.

A task is a market with draws, an observation, a training budget, and everything scores are measured against: held-out markets (the "test"
random streams), anchors (the regret of uniform play), frozen prefixes at which follower maps are judged, and floors. Tasks are built from
short definitions by :func:`build_task` and stored beside the leaderboard; results carry the hash of the task they belong to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import arrays, params
from .arrays import Distribution, FirstThen
from .errors import InvalidParameter, MarketEnvsError, UnknownName, nearest
from .market import Market, State
from .registry import make

FORMAT = 1
_TYPES = {
    c.__name__: c
    for c in (arrays.Uniform, arrays.LogUniform, arrays.Choice, FirstThen, params.Jump, params.AutoRegressive)
}


@dataclass(frozen=True)
class Plan:
    """How policies are scored on a task."""

    markets: int = 200
    seed: int = 20_260_101
    warm_up: int = 10
    """Rounds played before the scored one (memory kept)."""
    rounds: int = 1
    """Scored rounds."""
    prefixes: int = 8
    """Frozen earlier-stage decisions per market at which later stages are judged: half near the equilibrium, half uniform."""
    draws: int = 128
    """Draws of a stochastic policy whose mixture has no closed form."""


@dataclass(frozen=True)
class Definition:
    """A task as its author writes it; everything else is computed by :func:`build_task`.

    Args:
        name: Unique name, such as "bazaar-drawn".
        market: Market id.
        preset: Preset of the market.
        params: Overrides of the preset.
        title: One line for tables.
        tests: What the task tests.
        track: "profile" (one algorithm plays all roles) or "team" (shared reward).
        rounds: Training budget in market rounds (all stages of one market count as one).
        tripwire: A fixed market that a constant solves; shown apart, never aggregated.
        epsilon: Largest relative epsilon that counts as certified, for oracles that prove bounds instead of exact equilibria.
        plan: How it is scored.
        discount: Discount factor of the repeated game: policies are then scored by their exact dynamic regret as memory-one
            policies (:mod:`marketenvs.solution.repeated`) instead of the regret of one round. None: one round.
    """

    name: str
    market: str
    preset: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    tests: str = ""
    track: str = "profile"
    rounds: int = 300_000
    tripwire: bool = False
    plan: Plan = Plan()
    discount: float | None = None


@dataclass(frozen=True)
class Task:
    """A frozen task. See :class:`Definition` for the author's part.

    Attributes:
        definition: The author's part.
        instances: Indices of the held-out markets under ``plan.seed`` in the "test" split (uncertified draws are left out).
        rejected: Number of draws left out because their equilibrium is not certified.
        scale: Role -> constant by which trainers divide rewards (mean absolute payoff under uniform play).
        anchors: Role -> mean regret of an agent when all roles play uniformly: score 0.
        epsilon: Largest certified epsilon over the held-out markets, divided by the payoff scale.
        prefixes: Stage -> {earlier stage -> (P, M, n, k)}: where later stages are judged.
        floors: Policy name -> score of trivial policies (best constant, myopic).
        optimum: Mean welfare at the social optimum (None if the market has no such oracle).
        panel: Role -> member of the role track's panel -> payoffs of (uniform, reference) play.
        random_welfare: Mean welfare of uniform play (team track: score 0); None for other tracks.
        stage_anchors: Under a ``discount``: role -> mean regret of uniform play in one round (``anchors`` is then that of the repeated
            game); None otherwise.
        hash: SHA-256 of the content.
    """

    definition: Definition
    instances: tuple[int, ...]
    rejected: int
    scale: Mapping[str, float]
    anchors: Mapping[str, float]
    epsilon: float
    prefixes: Mapping[str, Mapping[str, np.ndarray]]
    floors: Mapping[str, float]
    optimum: float | None
    panel: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    random_welfare: float | None = None
    stage_anchors: Mapping[str, float] | None = None
    hash: str = ""

    @property
    def name(self) -> str:
        """Unique name."""
        return self.definition.name

    @property
    def budget(self) -> int:
        """Training budget in market rounds."""
        return self.definition.rounds

    def make_market(self, **overrides: Any) -> Market:
        """The task's market; ``overrides`` may choose a backend, never a parameter.

        Raises:
            InvalidParameter: An override that would change the task.
        """
        for name in overrides:
            if name not in ("backend", "dtype", "device"):
                raise InvalidParameter(f"a task's market is frozen: {name!r} cannot be overridden")
        d = self.definition
        return make(d.market, preset=d.preset, **overrides, **d.params)

    def held_out(self, market: Market) -> State:
        """The held-out markets as a begun state."""
        size = self.instances[-1] + 1
        state = market.reset(self.definition.plan.seed, batch=size, split="test")
        return state if size == len(self.instances) else market.take(state, np.asarray(self.instances))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready content, without the hash."""
        d = self.definition
        definition = {**dataclasses.asdict(d), "params": encode(dict(d.params))}
        if d.discount is None:
            del definition["discount"]  # so that a task scored by its rounds keeps the hash it always had
        content = {
            "format": FORMAT,
            "definition": definition,
            "instances": list(self.instances),
            "rejected": self.rejected,
            "scale": dict(self.scale),
            "anchors": dict(self.anchors),
            "epsilon": self.epsilon,
            "prefixes": {k: {s: a.tolist() for s, a in v.items()} for k, v in self.prefixes.items()},
            "floors": dict(self.floors),
            "optimum": self.optimum,
            "random_welfare": self.random_welfare,
            "panel": {r: {m: list(v) for m, v in t.items()} for r, t in self.panel.items()},
        }
        if self.stage_anchors is not None:
            content["stage_anchors"] = dict(self.stage_anchors)
        return content

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the task's file atomically."""
        content = self.to_json()
        write_json(path, {**content, "hash": content_hash(content)}, indent=None)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "task") -> Task:
        """A task from its file's content.

        Raises:
            MarketEnvsError: The content was changed (its hash does not fit) or is of another format.
        """
        if not isinstance(data, Mapping):
            raise MarketEnvsError(f"{where}: a task file holds a JSON object, not {type(data).__name__}")
        content = {k: v for k, v in data.items() if k != "hash"}
        if content.get("format") != FORMAT:
            raise MarketEnvsError(f"{where}: format {content.get('format')!r} is not supported (expected {FORMAT})")
        if data.get("hash") != content_hash(content):
            raise MarketEnvsError(
                f"{where}: the content does not fit its hash; tasks are frozen, make a new one under another name"
            )
        d = dict(content["definition"])
        definition = Definition(**{**d, "params": decode(d["params"]), "plan": Plan(**d["plan"])})
        prefixes = {
            k: {s: np.asarray(a, dtype=np.float64) for s, a in v.items()} for k, v in content["prefixes"].items()
        }
        rest = {
            k: content[k]
            for k in ("rejected", "scale", "anchors", "epsilon", "floors", "optimum", "panel", "random_welfare")
        }
        rest["stage_anchors"] = content.get("stage_anchors")
        return cls(definition, tuple(content["instances"]), prefixes=prefixes, hash=data["hash"], **rest)


def build_task(definition: Definition, floors: bool = True) -> Task:
    """Compute everything a task freezes: held-out certified markets, prefixes, anchors, scales and floors.

    Raises:
        MarketEnvsError: Fewer than half of the draws have a certified equilibrium.
    """
    from . import scoring

    plan = definition.plan
    market = make(definition.market, preset=definition.preset, **definition.params)
    _check_discount(definition, market)
    wanted, size = plan.markets, plan.markets
    while True:
        state = market.reset(plan.seed, batch=size, split="test")
        solved = market.equilibrium(state)
        good = np.flatnonzero(solved.certified)
        if len(good) >= wanted:
            break
        if len(good) < size / 2:
            raise MarketEnvsError(
                f"task {definition.name}: only {len(good)} of {size} drawn markets have a certified equilibrium"
            )
        size += max(8, int(1.2 * (wanted - len(good))))
    kept = good[:wanted]
    rejected = int(kept[-1] + 1 - wanted)
    chosen = market.take(state, kept)
    values = {role: np.abs(v)[kept].max(axis=1) for role, v in solved.values.items()}
    scale_of_market = np.maximum(1.0, np.max(list(values.values()), axis=0))
    epsilon = float((solved.epsilon[kept] / scale_of_market).max())
    try:
        optimum = _optimum(market, chosen, definition)
    except MarketEnvsError:
        optimum = None
    task = Task(
        definition=definition,
        instances=tuple(int(i) for i in kept),
        rejected=rejected,
        scale={role: 1.0 for role in market.roles},
        anchors={role: 1.0 for role in market.roles},
        epsilon=epsilon,
        prefixes=_draw_prefixes(market, chosen, plan),
        floors={},
        optimum=optimum,
    )
    task = dataclasses.replace(task, **scoring.anchors(task))
    if floors:
        task = dataclasses.replace(task, floors=scoring.floors(task))
    return dataclasses.replace(task, hash=content_hash(json.loads(json.dumps(task.to_json()))))


def _optimum(market: Market, state: State, definition: Definition) -> float:
    """Mean welfare at the social optimum: of the held-out states, or, for a team score, of the rounds that are scored (needs move)."""
    from . import scoring
    from .policy import Uniform

    plan = definition.plan
    if definition.track != "team":
        return float(np.mean(market.social_optimum(state).value))
    policies = {role: Uniform() for role in market.roles}
    for k, role in enumerate(policies):
        policies[role].start(market, role, market.batch(state), 7 * 1009 + k)
    total = 0.0
    for step in range(plan.warm_up + plan.rounds):
        if step >= plan.warm_up:
            total += float(np.mean(market.social_optimum(state).value)) / plan.rounds
        state, _ = scoring.play_round(market, state, policies)
    return total


def _check_discount(definition: Definition, market: Market) -> None:
    """Raise unless the task's discount, if it has one, is a number in [0, 1) and its market a repeated game on a grid."""
    from .solution import repeated

    delta = definition.discount
    if delta is None:
        return
    if isinstance(delta, bool) or not isinstance(delta, (int, float)) or not 0 <= delta < 1:
        raise InvalidParameter(f"task {definition.name}: discount must be a number in [0, 1) or None, got {delta!r}")
    reason = repeated.why_not(market)
    if reason is not None:
        raise InvalidParameter(f"task {definition.name} cannot be scored by dynamic regret: {reason}")


def _draw_prefixes(market: Market, state: State, plan: Plan) -> dict[str, dict[str, np.ndarray]]:
    """For every stage but the first: earlier stages' decisions, half near the equilibrium and half uniform over their range."""
    from .solution.mixtures import draw_profile
    from .solution.search import stage_bounds

    if len(market.stages) < 2:
        return {}
    rng = np.random.default_rng(plan.seed)
    equilibrium = {name: market.equilibrium(state).strategy[name] for name in (s.name for s in market.stages)}
    rows: list[dict[str, np.ndarray]] = []
    for p in range(plan.prefixes):
        near = p < (plan.prefixes + 1) // 2
        here, row = state, {}
        played = draw_profile(market, state, equilibrium, rng) if near else {}
        for stage in market.stages[:-1]:
            low, high = stage_bounds(market, here, stage.name)
            if near:
                decisions = played[stage.name] + 0.05 * (high - low) * rng.standard_normal(low.shape)
            else:
                decisions = low + (high - low) * rng.uniform(size=low.shape)
            here = market.commit(here, stage.name, market.backend.asarray(decisions))
            row[stage.name] = market.backend.numpy(here.decisions[stage.name])
        rows.append(row)
    names = [s.name for s in market.stages]
    return {name: {e: np.stack([r[e] for r in rows]) for e in names[:k]} for k, name in enumerate(names) if k}


# -- files --------------------------------------------------------------------------------------------------------------


def suite_folder(suite: str) -> Path:
    """Folder of a shipped suite's task files.

    Raises:
        UnknownName: No such suite.
    """
    root = Path(str(importlib.resources.files("marketenvs_benchmarks"))) / "suites"
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("_")) if root.is_dir() else []
    if suite not in names:
        raise UnknownName(f"unknown suite {suite!r}; {nearest(suite, names)}")
    return root / suite


def list_tasks() -> dict[str, Path]:
    """Name -> file of every task of the shipped suites (a name in several suites is the same task)."""
    root = Path(str(importlib.resources.files("marketenvs_benchmarks"))) / "suites"
    return {p.stem: p for p in sorted(root.glob("*/*.json"))}


def load_task(name: str | os.PathLike[str]) -> Task:
    """A task by name (of a shipped suite) or by the path of its JSON file.

    Raises:
        UnknownName: No such task or file.
        MarketEnvsError: The file is damaged.
    """
    path = Path(name)
    if path.suffix != ".json":
        known = list_tasks()
        if str(name) not in known:
            raise UnknownName(f"unknown task {str(name)!r}; {nearest(str(name), known)}")
        path = known[str(name)]
    if not path.is_file():
        raise UnknownName(f"no task file {path}")
    try:
        data = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise MarketEnvsError(f"{path} is not valid JSON: {error}") from None
    return Task.from_json(data, str(path))


def content_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_json(path: str | os.PathLike[str], content: Any, indent: int | None = 1) -> None:
    """Write JSON atomically: a reader sees the old file or the new one, never half of it."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def encode(value: Any) -> Any:
    """Parameters as JSON: distributions and drifts become ``{"type": ..., fields}``."""
    if isinstance(value, (Distribution, FirstThen, params.Jump, params.AutoRegressive)):
        return {
            "type": type(value).__name__,
            **{f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)},
        }
    if isinstance(value, Mapping):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value


def decode(value: Any) -> Any:
    """The inverse of :func:`encode` (lists become tuples)."""
    if isinstance(value, Mapping):
        if "type" in value:
            rest = {k: decode(v) for k, v in value.items() if k != "type"}
            return _TYPES[value["type"]](**rest)
        return {k: decode(v) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(decode(v) for v in value)
    return value
