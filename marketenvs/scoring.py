"""How policies are scored: regret against the certified equilibrium, free of units, on held-out markets.

For each role, ``score = 1 - regret / regret(all roles uniform)``: 1 is the equilibrium, 0 is uniform play. The regret of the first stage is what
an agent could still gain if later stages re-answer; the regret of a later stage is averaged over a frozen sample of earlier decisions
(half near the equilibrium, half uniform), so that a map is judged also where play does not lead. Mixtures are scored as mixtures.
See ``docs/scores.md``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InvalidAction, InvalidParameter, MarketEnvsError, UnknownName, nearest
from .market import Market, Outcome, Stage, State
from .policy import Constant, EquilibriumPolicy, Myopic, Uniform, decide
from .strategy import Pure, Strategy

if TYPE_CHECKING:
    from .task import Task

_STRENGTH = {"exact": 0, "bound": 1, "estimate": 2}


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    Attributes:
        task: Task name.
        task_hash: Its content hash.
        scores: Role -> raw score (1 equilibrium, 0 uniform; may be below -1).
        score: Mean over roles.
        worst: Least score of a role.
        digits: -log10(1 - score), floored at what the certificate can tell apart.
        regret: Role -> mean regret of an agent, in payoff units.
        nash_conv: [lower, upper] of the played profile's NashConv, mean over markets (upper is None where only searched).
        kind: Weakest certificate behind the regrets: "exact", "bound" or "estimate".
        payoffs: Role -> mean payoff of an agent in the scored rounds.
        welfare_ratio: Welfare over the social optimum; None where undefined.
        metrics: Mean of every market-wide metric of the scored rounds.
        seconds: Wall clock of the evaluation.
        extra: What else a kind of task reports. Under a task's ``discount``, ``regret``, ``nash_conv`` and the scores are those of the
            repeated game, and here stand "stage_score" and "stage_regret" (of one round, after the warm-up), "worst_regret" (role -> dynamic
            regret from the worst state, 0 exactly for subgame-perfect play) and "long_run" (role -> mean payoff per round in the long run).
    """

    task: str
    task_hash: str
    scores: Mapping[str, float]
    score: float
    worst: float
    digits: float
    regret: Mapping[str, float]
    nash_conv: tuple[float, float | None]
    kind: str
    payoffs: Mapping[str, float]
    welfare_ratio: float | None
    metrics: Mapping[str, float]
    seconds: float
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return asdict(self)


@dataclass
class _Judged:
    """Sums over scored rounds."""

    regret: dict[str, float]
    lower: float
    upper: float
    kind: str
    payoffs: dict[str, float]
    metrics: dict[str, float]
    welfare: float
    extra: dict[str, Any] = field(default_factory=dict)


def evaluate(task: Task, policies: Mapping[str, Any], seed: int = 0) -> Evaluation:
    """Score one policy per role on the task's held-out markets.

    Args:
        task: A frozen task.
        policies: Role -> policy, for every role of the market.
        seed: Seed of the policies' own randomness (the markets are frozen).

    Raises:
        InvalidAction: A policy returned NaN, infinity or a wrong shape.
        UnknownName: A role is missing or does not exist.
        InvalidParameter: What is given for a role is not a policy.
    """
    begun = time.perf_counter()
    market = task.make_market()
    check_roles(market, policies)
    judged = _judge(task, market, policies, seed)
    if task.definition.track == "team":
        scores = dict.fromkeys(market.roles, _team_score(task, judged.welfare))
    else:
        scores = {role: 1.0 - judged.regret[role] / task.anchors[role] for role in market.roles}
    score = float(np.mean(list(scores.values())))
    extra = dict(judged.extra)
    if task.stage_anchors:
        by_stage = {role: 1.0 - extra["stage_regret"][role] / task.stage_anchors[role] for role in market.roles}
        extra["stage_score"] = float(np.mean(list(by_stage.values())))
    floor = max(1e-12, max(task.epsilon * task.scale[r] / task.anchors[r] for r in market.roles))
    upper = judged.upper if math.isfinite(judged.upper) else None
    return Evaluation(
        task=task.name,
        task_hash=task.hash,
        scores=scores,
        score=score,
        worst=min(scores.values()),
        digits=max(0.0, -math.log10(max(1.0 - score, floor))),
        regret=judged.regret,
        nash_conv=(judged.lower, upper),
        kind=judged.kind,
        payoffs=judged.payoffs,
        welfare_ratio=judged.welfare / task.optimum if task.optimum and task.optimum > 0 else None,
        metrics=judged.metrics,
        seconds=time.perf_counter() - begun,
        extra=extra,
    )


def _team_score(task: Task, welfare: float) -> float:
    """(W - W_random) / (W* - W_random): the shared reward's place between uniform play and the social optimum."""
    if task.optimum is None or task.random_welfare is None:
        raise MarketEnvsError(f"task {task.name}: a team task needs a market with a social optimum")
    return (welfare - task.random_welfare) / (task.optimum - task.random_welfare)


def check_roles(market: Market, policies: Mapping[str, Any]) -> None:
    """Raise ``UnknownName`` unless exactly the market's roles are given."""
    for role in policies:
        if role not in market.roles:
            raise UnknownName(f"{market.id} has no role {role!r}; {nearest(role, market.roles)}")
    missing = [role for role in market.roles if role not in policies]
    if missing:
        raise UnknownName(f"no policy for role(s) {', '.join(missing)} of {market.id}")
    for role, policy in policies.items():
        if isinstance(policy, type) or not (hasattr(policy, "start") and hasattr(policy, "act_at")):
            raise InvalidParameter(f"the policy of {role!r} must be an instance with start and act_at, got {policy!r}")


def _judge(task: Task, market: Market, policies: Mapping[str, Any], seed: int) -> _Judged:
    plan = task.definition.plan
    state = task.held_out(market)
    batch = market.batch(state)
    for k, role in enumerate(market.roles):
        policies[role].start(market, role, batch, seed * 1009 + k)
    total = _Judged({r: 0.0 for r in market.roles}, 0.0, 0.0, "exact", {r: 0.0 for r in market.roles}, {}, 0.0)
    for step in range(plan.warm_up + plan.rounds):
        if step >= plan.warm_up:
            _add_regrets(task, market, state, policies, total)
        state, outcome = play_round(market, state, policies)
        if step >= plan.warm_up:
            _add_outcome(market, outcome, total)
    for table in (total.regret, total.payoffs, total.metrics):
        for key in table:
            table[key] /= plan.rounds
    total.lower, total.upper, total.welfare = (x / plan.rounds for x in (total.lower, total.upper, total.welfare))
    if task.definition.discount is not None:
        _judge_repeated(task, market, policies, seed, total)
    return total


def _judge_repeated(task: Task, market: Market, policies: Mapping[str, Any], seed: int, total: _Judged) -> None:
    """Replace the regret of one round by that of the repeated game; the former is kept in ``extra``."""
    from .solution import repeated

    plan = task.definition.plan
    role = market.stages[0].role
    state = task.held_out(market)
    table, payoff = repeated.memory_one(market, state, policies, plan.draws, seed * 1009)
    found = repeated.dynamic_regret(table, payoff, task.definition.discount or 0.0)
    total.extra = {
        "stage_regret": dict(total.regret),
        "worst_regret": {role: float(found.worst.mean())},
        "long_run": {role: float(found.long_run.mean())},
    }
    total.regret[role] = float(found.regret.mean())
    total.lower = total.upper = float(found.regret.sum(axis=1).mean())
    # Policy iteration is exact for the table; a table made of draws is itself an estimate.
    total.kind = "estimate" if getattr(policies[role], "stochastic", False) else "exact"


def play_round(market: Market, state: State, policies: Mapping[str, Any]) -> tuple[State, Outcome]:
    """One round in which every role's policy decides; policies with ``observe_round`` are told what was played."""
    for stage in market.stages:
        obs = market.backend.numpy(market.observe(state, stage.name))
        mask = market.action_mask(state, stage.name)
        decisions = decide(policies[stage.role], market, stage, obs, mask, state)
        state = market.commit(state, stage.name, market.backend.asarray(decisions))
    public = {k: market.backend.numpy(v) for k, v in state.decisions.items()}
    state, outcome = market.conclude(state)
    for policy in policies.values():
        if hasattr(policy, "observe_round"):
            policy.observe_round(public)
    return state, outcome


def strategy_at(market: Market, stage: Stage, policy: Any, state: State, draws: int) -> Strategy:
    """A policy's strategy at a state, checked to be finite."""
    obs = market.backend.numpy(market.observe(state, stage.name))
    strategy = policy.strategy(stage, obs, market.action_mask(state, stage.name), state, draws)
    if isinstance(strategy, Pure) and not np.all(np.isfinite(strategy.decisions)):
        raise InvalidAction(f"the policy of {stage.role!r} returned NaN or infinity at stage {stage.name!r}")
    return strategy


def _add_regrets(task: Task, market: Market, state: State, policies: Mapping[str, Any], total: _Judged) -> None:
    plan = task.definition.plan
    on_path: dict[str, Strategy] = {}
    drawn: dict[str, Strategy] = {}
    here = state
    rng = np.random.default_rng(plan.seed)
    for stage in market.stages:
        strategy = on_path[stage.name] = strategy_at(market, stage, policies[stage.role], here, plan.draws)
        shape = (market.batch(state), market.roles[stage.role], stage.codec.width)
        decisions = np.broadcast_to(strategy.draw(rng.uniform(size=shape[:2])), shape)
        here = market.commit(here, stage.name, market.check_decisions(here, stage.name, decisions))
        drawn[stage.name] = Pure(decisions)
    names = [s.name for s in market.stages]
    for k, stage in enumerate(market.stages):
        # What came before is one draw of what was played (an unbiased estimate); what comes after re-answers.
        best = market.best_response(state, stage.name, {**on_path, **{e: drawn[e] for e in names[:k]}})
        total.lower += float(best.gains.sum(axis=1).mean())
        total.upper += float(best.upper.sum(axis=1).mean())
        total.kind = max(total.kind, best.kind, key=_STRENGTH.__getitem__)
        if k == 0:
            total.regret[stage.role] += float(best.gains.mean())
            continue
        frozen = task.prefixes[stage.name]
        count = len(next(iter(frozen.values())))
        for p in range(count):
            prefix = {name: values[p] for name, values in frozen.items()}
            there = market.committed(state, prefix)
            strategy = strategy_at(market, stage, policies[stage.role], there, plan.draws)
            profile = {**drawn, **{name: Pure(v) for name, v in prefix.items()}, stage.name: strategy}
            best = market.best_response(state, stage.name, profile)
            total.kind = max(total.kind, best.kind, key=_STRENGTH.__getitem__)
            total.regret[stage.role] += float(best.gains.mean()) / count


def _add_outcome(market: Market, outcome: Outcome, total: _Judged) -> None:
    for role, values in outcome.payoffs.items():
        total.payoffs[role] += float(market.backend.numpy(values).mean())
    for name, values in outcome.metrics.items():
        mean = float(market.backend.numpy(values).mean())
        total.metrics[name] = total.metrics.get(name, 0.0) + mean
    total.welfare += float(market.backend.numpy(outcome.metrics["welfare"]).mean())


# -- what a task freezes ------------------------------------------------------------------------------------------------


ANCHOR_SEEDS = 4
"""Evaluations of uniform play that an anchor averages."""


def anchors(task: Task) -> dict[str, Any]:
    """Regret of uniform play (score 0) and the reward scales, per role.

    Raises:
        MarketEnvsError: Uniform play has no regret in some role, so no score can be defined there.
    """
    market = task.make_market()
    policies = {role: Uniform() for role in market.roles}
    several = [_judge(task, market, policies, seed=7 + k) for k in range(ANCHOR_SEEDS)]
    regret = {role: float(np.mean([j.regret[role] for j in several])) for role in market.roles}
    welfare = float(np.mean([j.welfare for j in several]))
    team = task.definition.track == "team"
    if team and (task.optimum is None or not task.optimum > welfare):
        raise MarketEnvsError(
            f"task {task.name}: no social optimum above the welfare of uniform play; no team score can be defined"
        )
    for role, value in regret.items():
        if not value > 0 and not team:
            raise MarketEnvsError(
                f"task {task.name}: uniform play has no regret for role {role!r}; no score can be defined"
            )
    state = task.held_out(market)
    for k, role in enumerate(policies):
        policies[role].start(market, role, market.batch(state), 11 + k)
    sums = {role: 0.0 for role in market.roles}
    for _ in range(8):
        state, outcome = play_round(market, state, policies)
        for role in sums:
            sums[role] += float(np.abs(market.backend.numpy(outcome.payoffs[role])).mean()) / 8
    scale = {role: value if value > 0 else 1.0 for role, value in sums.items()}
    from .role_track import panel_anchors

    frozen = {"anchors": regret, "scale": scale, "panel": panel_anchors(task)}
    if task.definition.discount is not None:
        rounds = [j.extra["stage_regret"] for j in several]
        frozen["stage_anchors"] = {role: float(np.mean([r[role] for r in rounds])) for role in market.roles}
    return frozen | ({"random_welfare": welfare} if team else {})


def best_constant(task: Task, points: int = 9, zooms: int = 2) -> dict[str, Constant]:
    """The constant decision per role of highest score, found with hindsight on the held-out markets: a floor no learner may miss.

    Candidates are positions between the stage's natural bounds (the same for all agents of a role), refined around the best, and the
    agents' median equilibrium decisions. Roles with several stages use one position for all of them.
    """
    from .solution.search import stage_bounds

    market = task.make_market()
    state = task.held_out(market)
    ranges = {s.name: tuple(b[0] for b in stage_bounds(market, state, s.name)) for s in market.stages}
    found = {role: (math.inf, 0.5, None) for role in market.roles}
    solved = market.equilibrium(state).on_path
    median = {
        role: np.median(solved[names[0]], axis=0) for role, names in market.stages_of.items() if _has(solved, names)
    }

    def judge(profile: Mapping[str, Any]) -> dict[str, float]:
        return _judge(task, market, profile, seed=3).regret

    def consider(positions: Mapping[str, float]) -> None:
        regrets = judge({role: _Position(positions[role], ranges) for role in market.roles})
        for role, regret in regrets.items():
            if regret < found[role][0]:
                found[role] = (regret, positions[role], None)

    for x in np.linspace(0, 1, points):
        consider({role: float(x) for role in market.roles})
    width = 1.0 / (points - 1)
    for _ in range(zooms):
        centres = {role: found[role][1] for role in market.roles}
        for offset in (-0.75, -0.5, -0.25, 0.25, 0.5, 0.75):
            consider({role: min(1.0, max(0.0, c + offset * width)) for role, c in centres.items()})
        width /= 4
    if median:
        others = {role: _Position(found[role][1], ranges) for role in market.roles}
        regrets = judge({role: Constant(median[role]) if role in median else others[role] for role in market.roles})
        for role, decisions in median.items():
            if regrets[role] < found[role][0]:
                found[role] = (regrets[role], found[role][1], decisions)
    return {
        role: _Position(position, ranges) if decisions is None else Constant(decisions)
        for role, (_, position, decisions) in found.items()
    }


class _Position(Constant):
    """The same relative position in every stage's range."""

    def __init__(self, position: float, ranges: Mapping[str, tuple[np.ndarray, np.ndarray]]):
        self.position, self.ranges = position, ranges

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        low, high = self.ranges[stage.name]
        return np.broadcast_to(low + (high - low) * self.position, (*obs.shape[:2], stage.codec.width))


def _has(solved: Any, names: tuple[str, ...]) -> bool:
    return len(names) == 1 and names[0] in solved and solved[names[0]] is not None


def floors(task: Task) -> dict[str, float]:
    """Scores of trivial policies: the published floors of a task."""
    market = task.make_market()
    out = {}
    out["best_constant"] = evaluate(task, best_constant(task)).score
    out["myopic"] = evaluate(task, {role: Myopic() for role in market.roles}).score
    out["equilibrium"] = evaluate(task, {role: EquilibriumPolicy() for role in market.roles}).score
    return out


__all__ = ["Evaluation", "anchors", "best_constant", "check_roles", "evaluate", "floors", "play_round", "strategy_at"]
