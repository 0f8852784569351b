"""The role track: one agent of a role against a frozen panel of everybody else. See ``docs/scores.md``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MarketEnvsError, UnknownName, nearest
from .market import Market, Outcome, Stage, State
from .policy import Constant, EquilibriumPolicy, Myopic, Policy, Uniform, decide
from .scoring import play_round, strategy_at
from .solution.search import stage_bounds
from .strategy import Pure, Sampler, Samples, Strategy

if TYPE_CHECKING:
    from .task import Task

SHADE = 0.2
"""By what part of the natural range the panel's over- and under-bidder depart from the equilibrium."""


class Shaded(EquilibriumPolicy):
    """Plays the equilibrium, every decision moved by ``shift`` of its natural range (within it): an over- or under-bidder.

    Args:
        shift: Part of the range; positive asks, bids or buys too much. Legal actions of masked stages are kept: where the moved decision is
            illegal, the market settles it as it settles any other.
    """

    def __init__(self, shift: float):
        super().__init__()
        self.shift = shift

    def strategy(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State, draws: int) -> Strategy:
        low, high = stage_bounds(self.market, state, stage.name)
        strategy = super().strategy(stage, obs, mask, state, draws)

        def move(values: np.ndarray) -> np.ndarray:
            return np.clip(values + self.shift * (high - low), low, high)

        if isinstance(strategy, Pure):
            return Pure(move(strategy.decisions))
        if isinstance(strategy, Samples):
            return Samples(move(strategy.values), strategy.weights, strategy.joint)
        return Sampler(lambda u: move(strategy.draw(u)))


PANEL: dict[str, Callable[[], Policy]] = {
    "equilibrium": EquilibriumPolicy,
    "myopic": Myopic,
    "random": Uniform,
    "overbidder": lambda: Shaded(SHADE),
    "underbidder": lambda: Shaded(-SHADE),
}
"""Frozen panel of the role track: what everybody else plays. Tasks with a stored panel policy add a trained member (:func:`members`)."""
PANEL_MARKETS, PANEL_WARM_UP, PANEL_ROUNDS = 50, 3, 4


def members(task: Task) -> dict[str, Callable[[str], Any]]:
    """The panel of a task: member -> (role -> a fresh policy).

    A task for which a policy is stored beside the suites (``marketenvs_benchmarks/panel/<task>``) has one more member, the trained one. Its
    name carries a digest of the stored files, so that the frozen task names exactly the policy it was frozen with.
    """
    found: dict[str, Callable[[str], Any]] = {name: (lambda role, make=make: make()) for name, make in PANEL.items()}  # type: ignore[misc]
    folder = panel_folder(task.name)
    if (folder / "policy.json").is_file():
        from marketenvs_baselines.store import load_policy

        found[trained_member(folder)] = lambda role: load_policy(folder)[role]
    return found


def panel_folder(task: str) -> Path:
    """Where the trained member of a task's panel is stored (there may be none)."""
    import importlib.resources

    return Path(str(importlib.resources.files("marketenvs_benchmarks"))) / "panel" / task


def trained_member(folder: Path) -> str:
    """Name of the trained member: "trained-" and eight digits of the stored files' hash."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"trained-{digest.hexdigest()[:8]}"


def evaluate_role(task: Task, role: str, policy: Any, seed: int = 0) -> dict[str, float | None]:
    """Score one policy as ONE agent of a role against the frozen panel.

    In every market the policy decides for one agent of the role (another one from market to market); everybody else, same role included,
    plays the panel member. Per member, ``(u - u_uniform) / (u_best - u_uniform)`` with u that agent's mean payoff: 0 is uniform play, 1 the
    best reply to the member (see :func:`panel_anchors`). None where the best reply gains nothing over uniform play.

    Returns:
        Panel member -> score, and "mean" over those that are defined.

    Raises:
        UnknownName: The market has no such role.
        MarketEnvsError: The panel's stored policy is missing, or is not the one the task was frozen with.
    """
    market = task.make_market()
    panel = members(task)
    if role not in market.roles:
        raise UnknownName(f"{market.id} has no role {role!r}; {nearest(role, market.roles)}")
    scores: dict[str, float | None] = {}
    for name, (uniform, best) in task.panel[role].items():
        if best - uniform <= 1e-9 * max(1.0, abs(best), abs(uniform)):
            scores[name] = None
            continue
        if name not in panel:
            raise MarketEnvsError(
                f"task {task.name}: the panel member {name!r} it was frozen with is not stored ({nearest(name, panel)})"
            )
        mean = float(_panel_payoff(task, market, role, policy, panel[name], seed).mean())
        scores[name] = (mean - uniform) / (best - uniform)
    defined = [v for v in scores.values() if v is not None]
    return {**scores, "mean": float(np.mean(defined)) if defined else None}


class _OneAgent(Policy):
    """The candidate decides for one agent of each market (market b: agent b mod n), the panel member for the rest of the role."""

    def __init__(self, candidate: Any, member: Any):
        self.candidate, self.member = candidate, member

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.candidate.start(market, role, batch, seed)
        self.member.start(market, role, batch, 77)

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        mine = decide(self.candidate, self.market, stage, obs, mask, state)
        others = decide(self.member, self.market, stage, obs, mask, state)
        chosen = _own_agent(len(obs), self.market.roles[self.role])
        own = np.arange(self.market.roles[self.role])[None, :] == chosen[:, None]
        return np.where(own[:, :, None], mine, others)

    def observe_round(self, public: dict[str, np.ndarray]) -> None:
        for policy in (self.candidate, self.member):
            if hasattr(policy, "observe_round"):
                policy.observe_round(public)


def _own_agent(batch: int, n: int) -> np.ndarray:
    return np.arange(batch) % n


def _panel_rounds(
    task: Task, market: Market, role: str, policy: Any, member: Callable[[str], Any], seed: int
) -> Iterator[tuple[State, Any, Outcome]]:
    """The scored rounds: (state before, policies, outcome)."""
    size = min(PANEL_MARKETS, len(task.instances))
    state = market.take(task.held_out(market), np.arange(size))
    policies = {r: _OneAgent(policy, member(r)) if r == role else member(r) for r in market.roles}
    for k, r in enumerate(market.roles):
        policies[r].start(market, r, size, seed * 1009 + k if r == role else 77 + k)
    for step in range(PANEL_WARM_UP + PANEL_ROUNDS):
        before = state
        state, outcome = play_round(market, state, policies)
        if step >= PANEL_WARM_UP:
            yield before, policies, outcome


def _panel_payoff(
    task: Task, market: Market, role: str, policy: Any, member: Callable[[str], Any], seed: int
) -> np.ndarray:
    """(M,) mean payoff of the policy's own agent."""
    total: Any = 0.0
    for _, _, outcome in _panel_rounds(task, market, role, policy, member, seed):
        payoffs = market.backend.numpy(outcome.payoffs[role])
        own = _own_agent(len(payoffs), market.roles[role])
        total = total + payoffs[np.arange(len(payoffs)), own] / PANEL_ROUNDS
    return total


def panel_anchors(task: Task) -> dict[str, dict[str, tuple[float, float]]]:
    """Role -> panel member -> (payoff of uniform play, payoff of the best reply) of one agent of the role.

    Best reply to a member: a single first mover plays, in every market, the best of 33 constant decisions in hindsight (or the member's
    own play, if that is better), against the member's followers; every other agent adds its exact gains at the role's stages to what it
    earns by playing as the member does.
    """
    market = task.make_market()
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for role, names in market.stages_of.items():
        found[role] = {}
        single = names == (market.stages[0].name,) and market.roles[role] == 1 and market.stages[0].codec.width == 1
        for name, member in members(task).items():
            uniform = float(
                np.mean([_panel_payoff(task, market, role, Uniform(), member, seed).mean() for seed in range(4)])
            )
            best = _panel_payoff(task, market, role, EquilibriumPolicy() if single else member(role), member, 0)
            if single:
                low, high = (b[0] for b in stage_bounds(market, task.held_out(market), names[0]))
                for x in np.linspace(0, 1, 33):
                    constant = Constant(low + (high - low) * x)
                    best = np.maximum(best, _panel_payoff(task, market, role, constant, member, 0))
            else:
                best = _best_reply_payoff(task, market, role, member)
            found[role][name] = (uniform, float(best.mean()))
    return found


def _best_reply_payoff(task: Task, market: Market, role: str, member: Callable[[str], Any]) -> np.ndarray:
    """(M,) what one agent of the role earns by best replies to the panel member, along the member's own play."""
    total: Any = 0.0
    rng = np.random.default_rng(5)
    for state, policies, _ in _panel_rounds(task, market, role, member(role), member, 0):
        batch = market.batch(state)
        own = (np.arange(batch), _own_agent(batch, market.roles[role]))
        strategies: dict[str, Strategy] = {}
        drawn: dict[str, Strategy] = {}
        here = state
        for stage in market.stages:
            policy = policies[stage.role]
            policy = policy.member if isinstance(policy, _OneAgent) else policy
            strategy = strategies[stage.name] = strategy_at(market, stage, policy, here, task.definition.plan.draws)
            shape = (batch, market.roles[stage.role], stage.codec.width)
            decisions = np.broadcast_to(strategy.draw(rng.uniform(size=shape[:2])), shape)
            here = market.commit(here, stage.name, market.check_decisions(here, stage.name, decisions))
            drawn[stage.name] = Pure(decisions)
        names = [s.name for s in market.stages]
        values: Any = None
        gains: Any = 0.0
        for k, name in enumerate(names):
            if market.stage(name).role == role:
                reply = market.best_response(state, name, {**strategies, **{e: drawn[e] for e in names[:k]}})
                values, gains = reply.values[own] - reply.gains[own], gains + reply.gains[own]
        total = total + (values + gains) / PANEL_ROUNDS
    return total
