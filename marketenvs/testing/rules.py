"""Checks of a market's rules: what every market must do whatever it trades. Each takes a NumPy market and raises ``AssertionError``."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from .. import params as _params
from ..arrays import to_numpy
from ..errors import InvalidAction, MarketEnvsError, UnknownName
from ..market import Market, State, tree_map
from . import probe
from .probe import ensure, ensure_close, ensure_same

Check = Callable[[Market], None]


def declaration(market: Market) -> None:
    """Roles, stages, spaces and parameters are declared completely and without clashes."""
    ensure(
        market.roles and all(n >= 1 for n in market.roles.values()),
        f"count_roles() gave {market.roles}: each role needs an agent",
    )
    ensure(market.stages, "build_stages() gave no stage")
    names = [s.name for s in market.stages]
    ensure(len(set(names)) == len(names), f"stage names {names} are not all different")
    clash = set(names) & set(market.roles)
    ensure(
        not clash, f"{sorted(clash)} name both a stage and a role: name stages after the move, roles after the mover"
    )
    for stage in market.stages:
        ensure(
            stage.role in market.roles,
            f"stage {stage.name!r} belongs to role {stage.role!r}, which count_roles() lacks",
        )
        space = stage.observation_space
        ensure(
            isinstance(space, spaces.Box) and len(space.shape) == 1,
            f"stage {stage.name!r}: observation_space must be a Box of rank 1",
        )
        ensure(space.dtype == np.float32, f"stage {stage.name!r}: observation_space must be float32, not {space.dtype}")
        ensure(stage.codec.width >= 1, f"stage {stage.name!r}: codec.width must be at least 1")
    idle = set(market.roles) - {s.role for s in market.stages}
    ensure(not idle, f"role(s) {sorted(idle)} never act in any stage")
    fields = dataclasses.fields(market.Params)
    for f in fields:
        ensure(
            f.metadata.get("kind"),
            f"{market.Params.__name__}.{f.name} is not declared with number, count, option, flag or static",
        )
        ensure(f.metadata.get("doc"), f"{market.Params.__name__}.{f.name} lacks its one-line meaning")
    symbols = [f.metadata["symbol"] for f in fields if f.metadata.get("symbol")]
    twice = sorted({s for s in symbols if symbols.count(s) > 1})
    ensure(not twice, f"symbol(s) {twice} name several parameters: market.symbols can keep only one")
    theta = market.reset(0).theta
    lacking = [f.name for f in _params.numeric_fields(market.Params) if getattr(theta, f.name, None) is None]
    ensure(not lacking, f"Theta lacks numeric parameter(s) {lacking}")


def batch_of_singles(market: Market) -> None:
    """A batch of B is B single markets with the same seeds, bit for bit: reset, observations, payoffs, outcome, next state."""
    seeds = [3, 3 + (1 << 40), 77, 12345]
    batch = market.reset(seeds)
    singles = [market.reset(seed) for seed in seeds]
    for step in range(2):
        profile = probe.random_profile(market, batch, 5 + step)
        seen, expected = probe.observations(market, batch, profile), market.payoff(batch, profile)
        after, outcome = market.step(batch, profile)
        for i, single in enumerate(singles):
            what = f"market {i} of a batch against the same market alone, round {step}"
            own = {name: value[i : i + 1] for name, value in profile.items()}
            ensure_same(single, batch, f"{what}: state", slice(i, i + 1), len(seeds))
            ensure_same(probe.observations(market, single, own), seen, f"{what}: observe", slice(i, i + 1))
            ensure_same(market.payoff(single, own), expected, f"{what}: payoff", slice(i, i + 1))
            singles[i], got = market.step(single, own)
            ensure_same(probe.pick(got), probe.pick(outcome), f"{what}: outcome", slice(i, i + 1))
        batch = after
    for i, single in enumerate(singles):
        ensure_same(
            single,
            batch,
            f"market {i} of a batch against the same market alone, at the end",
            slice(i, i + 1),
            len(seeds),
        )


def streams(market: Market) -> None:
    """One seed gives one market whatever the batch size; ``first`` continues; seeds and splits draw different markets."""
    long, short = market.reset(9, batch=8), market.reset(9, batch=4)
    ensure_same(short, long, "reset(seed, batch=4) against the first four of reset(seed, batch=8)", slice(0, 4), 8)
    ensure_same(
        market.reset(9, batch=4, first=4),
        long,
        "reset(seed, batch=4, first=4) against the last four of batch=8",
        slice(4, 8),
        8,
    )
    ensure_same(market.reset(9, batch=8), long, "reset twice with the same seed")
    profile = probe.random_profile(market, long, 2)
    head = {name: value[:4] for name, value in profile.items()}
    (after, full), (shorter, part) = market.step(long, profile), market.step(short, head)
    ensure_same(shorter, after, "a step of batch=4 against the first four of batch=8", slice(0, 4), 8)
    ensure_same(probe.pick(part), probe.pick(full), "outcome of batch=4 against the first four of batch=8", slice(0, 4))
    for name, other in {
        "another seed": market.reset(10, batch=8),
        "split='test'": market.reset(9, batch=8, split="test"),
    }.items():
        ensure(
            not np.any(np.all(to_numpy(other.seed) == to_numpy(long.seed), axis=1)),
            f"{name} shares random streams with seed 9",
        )
    if _random_at_reset(market):
        test = market.reset(9, batch=8, split="test")
        mine, theirs = dict(probe.leaves(long._replace(seed=()))), dict(probe.leaves(test._replace(seed=())))
        ensure(
            any(not np.array_equal(mine[k], theirs[k]) for k in mine),
            "split='test' draws the same markets as split='train'",
        )
        ensure(
            any(len(np.unique(v, axis=0)) > 1 for v in mine.values() if v.shape[0] == 8),
            "all markets of a batch are drawn alike",
        )


def _random_at_reset(market: Market) -> bool:
    """Whether a reset draws anything that shows in the state."""
    drawn = [getattr(market.params, f.name) for f in _params.numeric_fields(market.Params)]
    return bool(
        any(isinstance(v, _params.Distribution) for v in drawn) or market.history_noise() or market.round_noise()
    )


def observation_spaces(market: Market) -> None:
    """Observations are finite, of the declared shape, and lie in the declared float32 space, also at the corners of the decisions."""
    state = market.reset(4, batch=6)
    for step, corner in enumerate((None, 0.0, 1.0, None)):
        here, played = state, {}
        for stage in market.stages:
            seen = to_numpy(market.observe(here, stage.name))
            space, n = stage.observation_space, market.roles[stage.role]
            want = (6, n, *space.shape)
            ensure(
                seen.shape == want,
                f"observe at {stage.name!r} gave shape {seen.shape}, declared is {want} (markets, agents, entries)",
            )
            ensure(
                np.all(np.isfinite(seen)),
                f"observe at {stage.name!r} gave NaN or infinity at entries {_where(~np.isfinite(seen))}",
            )
            cast = seen.astype(np.float32)
            outside = (cast < space.low) | (cast > space.high)
            if outside.any():
                at = tuple(np.argwhere(outside)[0])
                raise AssertionError(
                    f"observe at {stage.name!r}, round {step}: entry {at[2]} is {seen[at]!r}, outside its space "
                    f"[{space.low[at[2]]}, {space.high[at[2]]}] (entries outside: {_where(outside)})"
                )
            low, high = probe.full_bounds(market, here, stage.name)
            if corner is None or stage.codec.discrete:
                decisions = probe.random_decisions(market, here, stage.name, 40 + step)
            else:
                decisions = low + (high - low) * corner
            played[stage.name] = decisions
            here = market.commit(here, stage.name, market.backend.asarray(decisions))
        state, _ = market.step(state, played)


def _where(mask: np.ndarray) -> list[int]:
    return sorted({int(i) for i in np.argwhere(mask)[:, -1]})


def bounds_and_clipping(market: Market) -> None:
    """Bounds are finite and ordered; decisions outside them are clipped (grids: moved to a level) and counted, those inside kept."""
    state = market.reset(6, batch=3)
    here, raw, expected = state, {}, np.zeros(3)
    inside: dict[str, np.ndarray] = {}
    for position, stage in enumerate(market.stages):
        low, high = probe.full_bounds(market, here, stage.name)
        ensure(np.all(np.isfinite(low)) and np.all(np.isfinite(high)), f"bounds of stage {stage.name!r} are not finite")
        ensure(np.all(low <= high), f"bounds of stage {stage.name!r}: low exceeds high")
        inside[stage.name] = probe.random_decisions(market, here, stage.name, 60 + position)
        width = np.maximum(high - low, 1.0)
        raw[stage.name] = np.array(inside[stage.name])
        raw[stage.name][:, 0, 0] = (high + width)[:, 0, 0]
        raw[stage.name][1, -1, -1] = (low - width)[1, -1, -1]
        here = market.commit(here, stage.name, market.backend.asarray(raw[stage.name]))
        kept = to_numpy(here.decisions[stage.name])
        ensure(
            np.all((kept >= low - 1e-12 * width) & (kept <= high + 1e-12 * width)),
            f"commit at {stage.name!r} left a decision outside",
        )
        if not stage.codec.discrete:
            expected += (kept != raw[stage.name]).sum(axis=(1, 2))
            ensure(
                np.all(kept[:, 0, 0] != raw[stage.name][:, 0, 0]),
                f"commit at {stage.name!r} did not clip a decision above its bound",
            )
    _, outcome = market.step(state, raw)
    counted = to_numpy(outcome.metrics.get("clipped", np.full(3, -1)))
    ensure(np.array_equal(counted, expected), f"metric 'clipped' is {counted}, but {expected} decisions were clipped")
    _, outcome = market.step(state, probe.random_profile(market, state, 61))
    counted = to_numpy(outcome.metrics["clipped"])
    ensure(
        not counted.any(),
        f"metric 'clipped' is {counted} although every decision was inside its bounds and as committed",
    )


def codecs(market: Market) -> None:
    """Actions decode into the bounds, encode back to themselves, and snapping leaves decodable decisions alone."""
    state = market.reset(8, batch=4)
    for position, stage in enumerate(market.stages):
        low, high = probe.full_bounds(market, state, stage.name)
        codec, where = stage.codec, f"codec of stage {stage.name!r}"
        actions = probe.random_actions(market, state, stage.name, 80 + position)
        decisions = np.asarray(codec.decode(np, actions, low, high))
        ensure(decisions.shape == low.shape, f"{where} decodes to shape {decisions.shape}, expected {low.shape}")
        slack = 1e-12 * np.maximum(np.abs(low), np.abs(high))
        inside = (decisions >= low - slack) & (decisions <= high + slack)
        ensure(np.all(inside), f"{where} decodes outside the bounds")
        back = np.asarray(codec.encode(np, decisions, low, high))
        ensure(back.shape == actions.shape, f"{where} encodes to shape {back.shape}, expected {actions.shape}")
        again = np.asarray(codec.decode(np, back, low, high))
        ensure_close(again, decisions, f"{where}: decode(encode(decision))", 1e-9)
        ensure_close(
            np.asarray(codec.snap(np, decisions, low, high)), decisions, f"{where}: snap(decode(action))", 1e-9
        )
        member = np.asarray(actions[0, 0]).astype(codec.action_space.dtype)
        ensure(codec.action_space.contains(member), f"{where}: {member!r} is not in {codec.action_space}")
        state = market.commit(state, stage.name, market.backend.asarray(decisions))


def masks(market: Market) -> None:
    """``acting`` and ``action_mask`` have their shapes and types, and every acting agent has a legal action."""
    state = market.reset(5, batch=3)
    for step in range(2):
        here = state
        for stage in market.stages:
            n = market.roles[stage.role]
            acting = to_numpy(market.acting(here, stage.name))
            ensure(
                acting.shape == (3, n) and acting.dtype == bool,
                f"acting at {stage.name!r} must be bool (3, {n}), got {acting.dtype} {acting.shape}",
            )
            mask = market.action_mask(here, stage.name)
            if mask is not None:
                ensure(stage.codec.discrete, f"action_mask at {stage.name!r}: only discrete stages have masks")
                space: Any = stage.codec.action_space
                sizes = [int(s) for s in space.nvec] if hasattr(space, "nvec") else [int(space.n)]
                mask = to_numpy(mask)
                want = (3, n, sum(sizes))
                ensure(
                    mask.shape == want and mask.dtype == bool,
                    f"action_mask at {stage.name!r} must be bool {want}, got {mask.dtype} {mask.shape}",
                )
                for part in np.split(mask, np.cumsum(sizes)[:-1], axis=2):
                    ensure(
                        np.all(part.any(axis=2) | ~acting),
                        f"action_mask at {stage.name!r} leaves an acting agent no legal action",
                    )
            decisions = probe.random_decisions(market, here, stage.name, 50 + step)
            here = market.commit(here, stage.name, market.backend.asarray(decisions))
        state, _ = market.conclude(here)


def outcomes(market: Market) -> None:
    """Payoffs of every role, (B, n) and finite; metrics named "welfare" (B,) and others with leading axis B; the round advances."""
    state = market.reset(2, batch=3)
    for before, profile, after, outcome in probe.play(market, state, 3):
        expected = market.payoff(before, profile)
        for name, payoffs in {"outcome": outcome.payoffs, "payoff": expected}.items():
            ensure(
                set(payoffs) == set(market.roles),
                f"{name} pays {sorted(payoffs)}; the roles are {sorted(market.roles)}",
            )
            for role, n in market.roles.items():
                value = to_numpy(payoffs[role])
                ensure(value.shape == (3, n), f"{name} of {role!r} has shape {value.shape}, expected {(3, n)}")
                ensure(np.all(np.isfinite(value)), f"{name} of {role!r} is not finite")
        ensure("welfare" in outcome.metrics, f"the metrics {sorted(outcome.metrics)} lack 'welfare'")
        ensure(to_numpy(outcome.metrics["welfare"]).shape == (3,), "metric 'welfare' must have shape (B,)")
        for name, value in outcome.metrics.items():
            array = to_numpy(value)
            ensure(
                array.ndim >= 1 and array.shape[0] == 3,
                f"metric {name!r} has shape {array.shape}; the first axis must be the markets",
            )
        ensure(np.array_equal(to_numpy(after.round), to_numpy(before.round) + 1), "step must add 1 to state.round")
        ensure(after.decisions == {}, "after a step state.decisions must be empty")


def expectation(market: Market, z: float = 5.0) -> None:
    """``payoff`` is the mean of ``outcome`` over what nobody has seen.

    Their difference averages to zero within ``z`` standard errors, and what events too rare to be seen here could still add.

    The state is held and the round's noise redrawn, from fixed keys, so the check gives the same answer every time.
    """
    instances, fields = 3, market.noise_fields()
    total = sum(market.roles.values())
    redraws = int(np.clip(40_000 // total, 256, 2048)) if fields else 1
    state = market.reset(12, batch=instances)
    profile = probe.random_profile(market, state, 12)
    many = market.take(state, np.tile(np.arange(instances), redraws))
    many = many._replace(decisions={})
    if fields:
        keys = market.backend.keys(np.full(redraws * instances, 4242, np.uint64), np.arange(redraws * instances), 17)
        many = market.begin(many, market.backend.draw(keys, fields))
    # Decisions must not depend on what is redrawn: bounds may, so keep to the profile and let the rules clip.
    tiled = {name: np.tile(value, (redraws, 1, 1)) for name, value in profile.items()}
    outcome, expected = market.outcome(many, tiled), market.payoff(many, tiled)
    for role in market.roles:
        promised = to_numpy(expected[role]).reshape(redraws, instances, -1)
        gap = to_numpy(outcome.payoffs[role]).reshape(promised.shape) - promised
        size = max(1.0, float(np.abs(promised).max()))
        _ensure_mean_zero(gap, size, z, f"{role}_", redraws)
        _ensure_mean_zero(gap.mean(axis=2, keepdims=True), size, z, f"the mean {role}, not {role}_", redraws)


def _ensure_mean_zero(gap: np.ndarray, size: float, z: float, who: str, redraws: int) -> None:
    """Raise unless a mean (R, b, n) over R redraws is 0 within Bernstein's bound: rare large events count, seen or not."""
    mean = gap.mean(axis=0)
    error = gap.std(axis=0, ddof=1) / np.sqrt(redraws) if redraws > 1 else np.zeros_like(mean)
    rare = (
        0.0
        if redraws == 1 or (not (gap != gap[:1]).any() and np.abs(mean).max() < 1e-9 * size)
        else z * z / 3 * size / redraws
    )
    off = np.abs(mean) > z * error + rare + 1e-9 * size
    if off.any():
        b, i = (int(v) for v in np.argwhere(off)[0])
        raise AssertionError(
            f"outcome and payoff of {who}{i} differ by {mean[b, i]:.6g} on average over {redraws} redraws (standard error {error[b, i]:.2g})"
        )


def symmetry(market: Market) -> None:
    """Agents are anonymous: permuting them in parameters, state and decisions permutes their payoffs and keeps the welfare.

    Every axis as long as the role is taken to be its agents. A market in which agents' numbers matter (labels, fixed order) says so with
    the attribute ``anonymous``: the tuple of roles whose agents are interchangeable (default: all roles).
    """
    anonymous = market.anonymous
    roles = market.roles if anonymous is None else {r: market.roles[r] for r in anonymous if r in market.roles}
    batch = 7 if 7 not in market.roles.values() else 5
    state = market.reset(21, batch=batch)
    profile = probe.random_profile(market, state, 21)
    expected, welfare = market.payoff(state, profile), market.outcome(state, profile).metrics["welfare"]
    fixed = {
        size for role, size in market.roles.items() if role not in roles
    }  # axes of these lengths must stay as they are
    for n in sorted({n for n in roles.values() if n > 1} - fixed):
        exchange = np.array([1, 0, *range(2, n)])
        for order in (exchange, np.roll(exchange, 1)) if n > 2 else (exchange,):
            moved = _permuted(market, state, n, order)
            swapped = {name: _move(value, n, order, 1) for name, value in profile.items()}
            got = market.payoff(moved, swapped)
            names = " and ".join(r for r, count in roles.items() if count == n)
            want = {
                r: to_numpy(expected[r])[:, order] if size == n else to_numpy(expected[r]) for r, size in roles.items()
            }
            what = f"agents of {names} permuted"
            hint = f"{what}: payoff (not anonymous? set the attribute 'anonymous')"
            ensure_close({r: got[r] for r in roles}, want, hint, 1e-9)
            again = market.outcome(moved, swapped).metrics["welfare"]
            ensure_close({"welfare": again}, {"welfare": welfare}, f"{what}: metrics", 1e-9)


def _move(value: Any, n: int, order: np.ndarray, first: int) -> np.ndarray:
    """An array with every axis of length n from ``first`` on permuted."""
    array = to_numpy(value)
    for axis in range(first, array.ndim):
        if array.shape[axis] == n:
            array = np.take(array, order, axis=axis)
    return array


def _permuted(market: Market, state: State, n: int, order: np.ndarray) -> State:
    theta = state.theta
    for f in _params.numeric_fields(market.Params):
        value = np.array(getattr(theta, f.name))
        for axis, size in enumerate(f.metadata["shape"], start=1):
            if isinstance(size, str) and getattr(market.params, size) == n:
                value = np.take(value, order, axis=axis)
        theta = theta._replace(**{f.name: value})
    history, nature = (tree_map(lambda a: _move(a, n, order, 1), tree) for tree in (state.history, state.nature))
    return state._replace(theta=market.derive(theta), history=history, nature=nature)


def purity(market: Market) -> None:
    """Rules change nothing in place and give the same answer twice."""
    state = market.reset(31, batch=3)
    profile = probe.random_profile(market, state, 31)
    frozen, kept = copy.deepcopy(state), copy.deepcopy(profile)

    def everything() -> dict[str, Any]:
        after, outcome = market.step(state, profile)
        return {
            "observe": probe.observations(market, state, profile),
            "payoff": market.payoff(state, profile),
            "outcome": probe.pick(market.outcome(state, profile)),
            "step": probe.pick(outcome),
            "after": after,
        }

    first, second = everything(), everything()
    ensure_same(state, frozen, "a rule changed the state that it was given")
    ensure_same(profile, kept, "a rule changed the decisions that it was given")
    ensure_same(first, second, "the same calls a second time")


def copies(market: Market) -> None:
    """Markets and states copy and pickle: the copies play the same round bit for bit, keep their id, and are small."""
    state = market.reset(41, batch=3)
    state, _ = market.step(state, probe.random_profile(market, state, 41))
    profile = probe.random_profile(market, state, 42)
    after, outcome = market.step(state, profile)
    packed = pickle.dumps(market)
    ensure(
        len(packed) < 1_000_000, f"a pickled market takes {len(packed)} bytes: keep what can be recomputed out of it"
    )
    for name, (other, held) in {
        "pickle": (pickle.loads(packed), pickle.loads(pickle.dumps(state))),
        "deepcopy": (copy.deepcopy(market), copy.deepcopy(state)),
        "copy": (copy.copy(market), copy.copy(state)),
    }.items():
        ensure(
            type(held) is type(state) and type(held.theta) is type(state.theta), f"{name}: the state's types changed"
        )
        ensure(other.id == market.id and other.params == market.params, f"{name}: id or parameters changed")
        ensure_same(held, state, f"{name} of a state")
        again, got = other.step(held, profile)
        ensure_same(again, after, f"{name}: the next state")
        ensure_same(probe.pick(got), probe.pick(outcome), f"{name}: the outcome")


def bad_input(market: Market) -> None:
    """NaN, infinity, wrong shapes, missing and unknown stages raise an error of marketenvs that names the culprit."""
    state = market.reset(51, batch=2)
    profile = probe.random_profile(market, state, 51)

    def refuse(bad: Any, error: type[Exception], *words: str) -> None:
        for call in (market.step, market.payoff, market.outcome):
            try:
                call(state, bad)
            except error as raised:
                lacking = [w for w in words if w not in str(raised)]
                ensure(not lacking, f"{call.__name__}: the error {str(raised)!r} does not name {lacking}")
            except Exception as other:
                raise AssertionError(
                    f"{call.__name__} raised {type(other).__name__} ({other}), expected {error.__name__}"
                ) from other
            else:
                raise AssertionError(f"{call.__name__} accepted {_short(bad)}")

    for stage in market.stages:
        n, k = market.roles[stage.role], stage.codec.width
        for value in (np.nan, np.inf, -np.inf):
            broken = np.array(profile[stage.name])
            broken[1, n - 1, k - 1] = value
            refuse({**profile, stage.name: broken}, InvalidAction, stage.name, f"{stage.role}_{n - 1}", "market 1")
        refuse({**profile, stage.name: np.zeros((2, n + 1, k))}, InvalidAction, stage.name)
        refuse({**profile, stage.name: np.zeros((3, n, k))}, InvalidAction, stage.name)
        refuse({**profile, stage.name: "much"}, InvalidAction, stage.name)
        refuse({name: v for name, v in profile.items() if name != stage.name}, InvalidAction, stage.name)
        refuse({**profile, stage.name + "x": profile[stage.name]}, UnknownName, stage.name)
    refuse(list(profile.values()), InvalidAction)
    try:
        type(market.params).preset("defualt")
    except UnknownName as raised:
        ensure("default" in str(raised), f"the error {raised} does not name the nearest preset")
    try:
        dataclasses.replace(market.params, horizon=0)
    except MarketEnvsError as raised:
        ensure("horizon" in str(raised), f"the error {raised} does not name the parameter")
    else:
        raise AssertionError("horizon=0 was accepted")


def _short(value: Any) -> str:
    text = repr(value if not isinstance(value, Mapping) else {k: np.shape(v) for k, v in value.items()})
    return text if len(text) < 200 else text[:200] + "..."


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        declaration,
        batch_of_singles,
        streams,
        observation_spaces,
        bounds_and_clipping,
        codecs,
        masks,
        outcomes,
        expectation,
        symmetry,
        purity,
        copies,
        bad_input,
    )
}
"""Name -> check of the rules, for NumPy markets."""
