"""Checks of a market's solvers against its own rules. Nothing here trusts an oracle: deviations are tried with ``payoff``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..errors import NotOffered
from ..market import Market, Stage, State
from ..solution.mixtures import draw_profile
from ..strategy import BestResponse, Equilibrium, Pure, Reply
from . import probe
from .probe import ensure

BATCH = 2
SLACK = 1e-9
"""Relative to max(1, |payoffs|): what rounding may add to a gain."""


def _is(market: Market, method: str) -> bool:
    """Whether the market overrides a method of the base class."""
    return getattr(type(market), method) is not getattr(Market, method)


def _joint(market: Market) -> tuple[str, ...]:
    """Stages whose deviations are joint moves of a coalition (attribute ``joint_stages``): there, gains are of the coalition."""
    return tuple(market.joint_stages)


def _answered(market: Market, state: State, profile: dict[str, np.ndarray], stage: str) -> dict[str, np.ndarray]:
    """The profile with the stages after ``stage`` re-answering, where the market offers ``respond``."""
    names = [s.name for s in market.stages]
    cut = names.index(stage) + 1
    if cut == len(names):
        return profile
    try:
        answer = market.respond(state, {name: profile[name] for name in names[:cut]}).on_path
    except NotOffered:
        return profile
    return {**profile, **{name: np.asarray(answer[name]) for name in names[cut:]}}


def _state(market: Market, seed: int) -> State:
    return market.reset(seed, batch=BATCH, split="test")


def _try_deviations(
    market: Market, state: State, profile: Mapping[str, np.ndarray], stage: str, limit: np.ndarray, what: str, seed: int
) -> None:
    """Raise if a random or extreme deviation of an agent pays more than ``limit`` (B, n)."""
    if stage in _joint(market):
        return
    low, high = probe.full_bounds(market, _before(market, state, profile, stage), stage)
    n = market.roles[market.stage(stage).role]
    for agent in probe.some_agents(n):
        tried = [low[:, agent], high[:, agent], np.asarray(profile[stage])[:, agent]]
        for k in range(12):
            drawn = probe.random_decisions(market, _before(market, state, profile, stage), stage, seed * 31 + k)
            tried.append(drawn[:, agent])
            if not market.stage(stage).codec.discrete:  # and one near what is played, where local gains would be
                near = np.asarray(profile[stage])[:, agent] + 0.01 * (k - 6) * (high - low)[:, agent]
                tried.append(np.clip(near, low[:, agent], high[:, agent]))
        values = probe.deviation_payoffs(market, state, stage, profile, agent, np.stack(tried))
        over = values.max(axis=0) - limit[:, agent]
        if (over > 0).any():
            b = int(over.argmax())
            best = np.stack(tried)[values[:, b].argmax(), b]
            role = market.stage(stage).role
            raise AssertionError(
                f"{what}: {role}_{agent} in market {b} earns {values[:, b].max():.12g} by playing {best.tolist()} at {stage!r}; "
                f"the oracle allows at most {limit[b, agent]:.12g}"
            )


def _before(market: Market, state: State, profile: Mapping[str, np.ndarray], stage: str) -> State:
    """The state in which the stages before ``stage`` are committed."""
    for spec in market.stages:
        if spec.name == stage:
            break
        state = market.commit(state, spec.name, market.backend.asarray(np.asarray(profile[spec.name])))
    return state


def gains(market: Market) -> None:
    """At random profiles no gain is negative, bounds are ordered, and the best response earns what it says and is not beaten."""
    state = _state(market, 71)
    for seed in (71, 72):
        profile = probe.random_profile(market, state, seed)
        conv = market.nash_conv(state, profile)
        ensure(conv.kind in ("exact", "bound", "estimate"), f"nash_conv.kind is {conv.kind!r}")
        for role, n in market.roles.items():
            ensure(conv.gains[role].shape == (BATCH, n), f"gains of {role!r} have shape {conv.gains[role].shape}")
            ensure(
                np.all(conv.gains[role] >= 0), f"negative gain of {role!r}: the played decision is always a candidate"
            )
        total = sum(g.sum(axis=1) for g in conv.gains.values())
        ensure(
            np.allclose(conv.lower, total, rtol=1e-12),
            f"nash_conv.lower {conv.lower} is not the sum of the gains {total}",
        )
        ensure(np.all(conv.upper >= conv.lower), f"nash_conv: upper {conv.upper} is below lower {conv.lower}")
        scale = SLACK * probe.payoff_scale(market.payoff(state, profile))[:, None]
        for stage in market.stages:
            best, where = market.best_response(state, stage.name, profile), f"best_response at {stage.name!r}"
            n = market.roles[stage.role]
            ensure(
                best.decisions.shape == (BATCH, n, stage.codec.width),
                f"{where}: decisions have shape {best.decisions.shape}",
            )
            ensure(
                best.values.shape == (BATCH, n) == best.gains.shape == best.upper.shape,
                f"{where}: values, gains, upper must be {(BATCH, n)}",
            )
            ensure(np.all(best.upper >= best.gains), f"{where}: upper is below the gains")
            low, high = probe.full_bounds(market, _before(market, state, profile, stage.name), stage.name)
            slack = 1e-9 * np.maximum(1.0, np.abs(high))
            ensure(
                np.all((best.decisions >= low - slack) & (best.decisions <= high + slack)),
                f"{where}: outside the bounds",
            )
            if stage.name in _joint(market):
                _coalitions_earn(market, state, profile, stage, best, 100 * n * scale[:, 0], where)
                continue
            ceiling = best.values if best.kind == "exact" else best.values - best.gains + best.upper
            for agent in probe.some_agents(n):
                earned = probe.deviation_payoffs(
                    market, state, stage.name, profile, agent, best.decisions[None, :, agent]
                )[0]
                off = np.abs(earned - best.values[:, agent]) > 100 * scale[:, 0]
                ensure(
                    not off.any(),
                    f"{where}: {stage.role}_{agent} is said to earn {best.values[:, agent]}, but earns {earned}",
                )
            if np.all(np.isfinite(ceiling)):
                _try_deviations(market, state, profile, stage.name, ceiling + 100 * scale, where, seed)


def _coalitions_earn(
    market: Market,
    state: State,
    profile: dict[str, np.ndarray],
    stage: Stage,
    best: BestResponse,
    limit: np.ndarray,
    where: str,
) -> None:
    """Each coalition moves alone, all others as played, and together its members earn what the reply says (``limit``: (B,))."""
    played = np.broadcast_to(np.asarray(profile[stage.name]), best.decisions.shape)
    groups = np.broadcast_to(market.joint_groups(state, profile), best.values.shape)
    for group in np.unique(groups):
        mine = groups == group
        moved = {**profile, stage.name: np.where(mine[:, :, None], best.decisions, played)}
        earned = to_numpy(market.payoff(state, _answered(market, state, moved, stage.name))[stage.role])
        got, said = (np.where(mine, values, 0.0).sum(axis=1) for values in (earned, best.values))
        ensure(
            not (np.abs(got - said) > limit).any(),
            f"{where}: coalition {group} of {stage.role}s is said to earn {said} jointly, but earns {got}",
        )


def equilibrium(market: Market) -> None:
    """The certificate is honest: own gains and tried deviations stay below epsilon, values are the payoffs, estimates never certify."""
    state = _state(market, 81)
    found = market.equilibrium(state)
    for name in ("epsilon", "certified", "exists"):
        ensure(
            np.shape(getattr(found, name)) == (BATCH,),
            f"equilibrium.{name} must have shape (B,), got {np.shape(getattr(found, name))}",
        )
    ensure(found.kind in ("exact", "bound", "estimate"), f"equilibrium.kind is {found.kind!r}")
    ensure(found.method, "equilibrium.method is empty: say how it was computed")
    ensure(np.all(found.epsilon >= 0), f"equilibrium.epsilon is negative: {found.epsilon}")
    ensure(np.all(~found.certified | found.exists), "an equilibrium that does not exist is called certified")
    if not _is(market, "solve"):
        ensure(found.kind == "estimate", "a market without an oracle gets an estimate")
    if found.kind == "estimate":
        ensure(not found.certified.any(), "an estimate is never certified")
    scale = probe.payoff_scale(found.values)
    if found.kind == "exact":
        ensure(
            np.all(~found.certified | (found.epsilon <= SLACK * scale)),
            f"certified as exact with epsilon {found.epsilon}",
        )
    for role, n in market.roles.items():
        ensure(
            np.shape(found.values[role]) == (BATCH, n),
            f"equilibrium.values of {role!r} have shape {np.shape(found.values[role])}",
        )
    _match_values(market, state, found, scale)
    conv = market.nash_conv(state, found.strategy)
    if conv.kind == "exact" or _pure(found, market):
        for role, got in conv.gains.items():
            over = found.certified & (got.max(axis=1) > found.epsilon + SLACK * scale)
            ensure(not over.any(), f"certified with epsilon {found.epsilon}, but {role!r} gains {got.max(axis=1)}")
    if _pure(found, market):
        profile = {s.name: np.asarray(found.on_path[s.name]) for s in market.stages}
        for stage in market.stages:
            earned = to_numpy(market.payoff(state, profile)[stage.role])
            limit = earned + (found.epsilon + 10 * SLACK * scale)[:, None]
            limit = np.where(found.certified[:, None], limit, np.inf)
            _try_deviations(market, state, profile, stage.name, limit, "equilibrium", 7)


def _path(found: Equilibrium, stage: str) -> Any:
    return found.on_path.get(stage)


def _pure(found: Equilibrium, market: Market) -> bool:
    return all(_path(found, s.name) is not None for s in market.stages)


def _match_values(market: Market, state: State, found: Equilibrium, scale: np.ndarray) -> None:
    exact = _pure(found, market)
    here = state
    for stage in market.stages:
        strategy = found.strategy[stage.name]
        if not exact:
            continue
        strategy = strategy.answer(here) if isinstance(strategy, Reply) else strategy
        decisions = np.asarray(found.actions[stage.name])
        if isinstance(strategy, Pure):
            low, high = probe.full_bounds(market, here, stage.name)
            width = np.maximum(high - low, 1e-300)
            off = np.abs(strategy.decisions - decisions) / width
            ensure(
                off.max() < 1e-6,
                f"equilibrium.strategy and .actions differ at {stage.name!r} by {off.max():.2g} of the range",
            )
            ensure(
                np.all((decisions >= low - 1e-9 * width) & (decisions <= high + 1e-9 * width)),
                f"actions at {stage.name!r} are out of bounds",
            )
        here = market.commit(here, stage.name, market.backend.asarray(decisions))
    if exact:
        payoffs: Any = market.payoff(state, {s.name: found.actions[s.name] for s in market.stages})
    elif _is(market, "mixed_payoff"):
        payoffs = market.payoff(state, found.strategy)
    else:
        return  # only sampling could value this mixture
    tolerance = (1e-9 if exact else 1e-6) * scale[:, None]
    for role, value in payoffs.items():
        off = np.abs(to_numpy(value) - found.values[role]) > tolerance
        ensure(
            not off.any(),
            f"equilibrium.values of {role!r} are {found.values[role]}, but its strategy pays {to_numpy(value)}",
        )


def respond(market: Market) -> None:
    """At random earlier decisions the later stages' answer leaves its agents no more than its epsilon."""
    if not _is(market, "respond"):
        return
    state = _state(market, 91)
    profile = probe.random_profile(market, state, 91)
    names = [s.name for s in market.stages]
    for cut in range(1, len(names)):
        prefix = {name: profile[name] for name in names[:cut]}
        try:
            answer = market.respond(state, prefix)
        except NotOffered:
            continue
        scale = probe.payoff_scale(answer.values)
        played: dict[str, Any] = {**prefix, **{name: answer.strategy[name] for name in names[cut:]}}
        for name in names[cut:]:
            best = market.best_response(state, name, played)
            if best.kind == "estimate":
                continue
            gain = best.gains.max(axis=1)
            over = answer.certified & (gain > answer.epsilon + SLACK * scale)
            ensure(
                not over.any(),
                f"respond after {list(prefix)} is certified with epsilon {answer.epsilon}, but {name!r} leaves gains {gain}",
            )
        if any(_path(answer, name) is None for name in names[cut:]):
            _sample_values(market, state, prefix, scale)
        else:
            pure = {**prefix, **{name: np.asarray(answer.on_path[name]) for name in names[cut:]}}
            for name in names[cut:]:
                role = market.stage(name).role
                limit = to_numpy(market.payoff(state, pure)[role]) + (answer.epsilon + 10 * SLACK * scale)[:, None]
                limit = np.where(answer.certified[:, None], limit, np.inf)
                _try_deviations(market, state, pure, name, limit, f"respond after {list(prefix)}", 9)


def _sample_values(market: Market, state: State, prefix: Mapping[str, np.ndarray], scale: np.ndarray) -> None:
    """Raise unless the values of a mixed answer are the mean payoffs of its draws, within 5 standard errors and rare events."""
    draws, batch = 600, market.batch(state)
    many = market.take(state, np.tile(np.arange(batch), draws))
    tiled = {name: np.tile(value, (draws, 1, 1)) for name, value in prefix.items()}
    answer = market.respond(many, tiled)
    played = {
        **{name: Pure(value) for name, value in tiled.items()},
        **{n: s for n, s in answer.strategy.items() if n not in tiled},
    }
    payoffs = market.payoff(many, draw_profile(market, many, played, np.random.default_rng(17)))
    for role, value in payoffs.items():
        drawn = to_numpy(value).reshape(draws, batch, -1)
        error = 5 * drawn.std(axis=0, ddof=1) / np.sqrt(draws) + 25 / 3 * scale[:, None] / draws
        stated = np.asarray(answer.values[role])[:batch]
        off = np.abs(drawn.mean(axis=0) - stated) > error
        ensure(
            not off.any(),
            f"respond after {list(prefix)}: values of {role!r} are {stated}, but {draws} draws earn {drawn.mean(axis=0)}",
        )


def social_optimum(market: Market) -> None:
    """No profile tried here has more welfare than the optimum, and the optimum's own decisions reach it."""
    state = _state(market, 95)
    try:
        best = market.social_optimum(state)
    except NotOffered:
        return
    ensure(np.shape(best.value) == (BATCH,), f"social_optimum.value must have shape (B,), got {np.shape(best.value)}")
    ensure(np.all(np.isfinite(best.value)), "social_optimum.value is not finite")
    if market.noise_fields() and market.round_noise():
        return  # realised welfare is random; only its mean is bounded
    if best.kind == "estimate":
        return
    found = market.equilibrium(state)
    profiles = [probe.random_profile(market, state, seed) for seed in range(96, 102)]
    if _pure(found, market):
        profiles.append({s.name: np.asarray(found.on_path[s.name]) for s in market.stages})
    for profile in profiles:
        welfare = to_numpy(market.outcome(state, profile).metrics["welfare"])
        slack = 1e-7 * np.maximum(1.0, np.abs(best.value))
        ensure(
            np.all(welfare <= best.value + slack),
            f"welfare {welfare} exceeds the social optimum {best.value} ({best.method})",
        )
    if best.decisions is not None and best.kind == "exact":
        chosen = {**profiles[0], **best.decisions}  # stages that only move money between agents may be left open
        reached = to_numpy(market.outcome(state, chosen).metrics["welfare"])
        slack = 1e-6 * np.maximum(1.0, np.abs(best.value))
        ensure(
            np.all(np.abs(reached - best.value) <= slack),
            f"the optimum's decisions reach welfare {reached}, not {best.value}",
        )


CHECKS: dict[str, Callable[[Market], None]] = {
    check.__name__: check for check in (gains, equilibrium, respond, social_optimum)
}
"""Name -> check of the solvers, for NumPy markets."""
