"""What is checked where a user's values enter a market: seeds, states, profiles and decisions.

Rules are not validated (validation breaks tracing); ``step``, ``payoff``, ``outcome``, the solvers and the shells call these. Every error
names the culprit and what would be right.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import Array, to_numpy
from .errors import InvalidAction, InvalidParameter, ResetNeeded
from .state import State
from .strategy import Pure, Samples, Strategy

if TYPE_CHECKING:
    from .market import Market


def read_seeds(
    fixed: int, seed: int | Sequence[int], batch: int | None, split: str, first: int
) -> tuple[np.ndarray, Any]:
    """The arguments of ``reset`` as seeds (B,) and the markets' indices under them.

    Args:
        fixed: Number of markets that the parameters are given for (1: any).
        seed: As ``Market.reset`` takes it; so are the others.
        batch: B, or None.
        split: "train" or "test".
        first: Index of the first market under one seed.

    Raises:
        InvalidParameter: Bad seed, batch, split or first, or parameters given for another number of markets.
    """
    if batch is not None and (not is_integer(batch) or batch < 1):
        raise InvalidParameter(f"batch must be an integer of at least 1, got {batch!r}")
    if not is_integer(first) or not 0 <= first < 1 << 31:
        raise InvalidParameter(f"first must be an integer in [0, 2**31), got {first!r}")
    index: Any = first
    if is_integer(seed):
        seeds = [int(seed)]  # type: ignore[arg-type]
        size = int(batch) if batch is not None else fixed
        index = np.arange(first, first + size)
    else:
        several: Any = seed
        if isinstance(seed, str) or not hasattr(seed, "__len__") or not all(is_integer(s) for s in several):
            raise InvalidParameter(f"seed must be an integer or a sequence of integers, got {seed!r}")
        seeds = [int(s) for s in several]
        size = len(seeds)
        if batch is not None and batch != size:
            raise InvalidParameter(f"{size} seeds were given for a batch of {batch}")
        if size < 1:
            raise InvalidParameter("batch must be at least 1, but seed is an empty sequence")
    if fixed not in (1, size):
        raise InvalidParameter(f"the parameters are given for {fixed} markets, but the batch is {size}")
    if min(seeds) < 0 or max(seeds) >= 1 << 64:
        raise InvalidParameter("seeds must lie in [0, 2**64)")
    if split not in ("train", "test"):
        raise InvalidParameter(f"split must be 'train' or 'test', got {split!r}")
    return np.resize(np.array(seeds, dtype=np.uint64), size), index


def check_profile(market: Market, state: State, profile: Mapping[str, Any], partial: bool) -> dict[str, Array]:
    """See ``Market.check_profile``."""
    check_mapping(profile)
    named: dict[str, Any] = {}
    for key, value in profile.items():
        name = market.stage(key).name
        if name in named:
            raise InvalidAction(f"stage {name!r} is given twice")
        named[name] = value
    if not partial and len(named) < len(market.stages):
        missing = [s.name for s in market.stages if s.name not in named]
        raise InvalidAction(f"the profile lacks stage(s) {', '.join(missing)} of {market.id}")
    return {name: market.check_decisions(state, name, value) for name, value in named.items()}


def check_decisions(market: Market, state: State, stage: str, value: Any) -> Array:
    """See ``Market.check_decisions``."""
    spec = market._stage[stage]
    want = (market.batch(state), market.roles[spec.role], spec.codec.width)
    xp = market.xp
    if isinstance(value, Strategy):
        if not isinstance(value, Pure):
            kind = type(value).__name__
            raise InvalidAction(
                f"stage {stage!r} is given a {kind}: draw from it, or use payoff and nash_conv for mixtures"
            )
        value = value.decisions
    array = value
    if not _is_array(xp, value, market.backend.dtype):
        try:
            given = np.asarray(to_numpy(value))
            if given.dtype.kind not in "fiub":
                raise TypeError
            array = market.backend.asarray(given.astype(np.float64))
        except (TypeError, ValueError):
            raise InvalidAction(
                f"decisions of stage {stage!r} must be real numbers of shape {want}, got {value!r}"
            ) from None
    shape = tuple(array.shape)
    if shape != want:
        if len(shape) == 2 and want[2] == 1 and shape[0] in (1, want[0]) and shape[1] == want[1]:
            array = array[..., None]
        elif len(shape) == 1 and want[2] == 1 and shape[0] == want[1] > 1:
            array = array[None, :, None]  # one number per agent, the same in every market
        elif not (shape == () or (len(shape) == 3 and shape[0] == 1 and shape[1:] == want[1:])):
            raise InvalidAction(
                f"decisions of stage {stage!r} must have shape {want} (markets, agents, numbers), got {shape}"
            )
        array = xp.broadcast_to(array, want)
    if not bool(xp.all(xp.isfinite(array))):
        bad = np.argwhere(~np.isfinite(to_numpy(array)))[0]
        agent = f"{spec.role}_{bad[1]}"
        raise InvalidAction(
            f"NaN or infinite decision of {agent} at stage {stage!r} in market {bad[0]}: decisions must be finite"
        )
    return array


def resolve(market: Market, state: State, profile: Mapping[str, Any]) -> dict[str, Strategy]:
    """See ``Market.resolve``."""
    check_mapping(profile)
    named: dict[str, Strategy] = {}
    for key, value in profile.items():
        stage = market.stage(key).name
        if stage in named:
            raise InvalidAction(f"stage {stage!r} is given twice")
        if isinstance(value, Samples):
            _check_samples(market, stage, value)
        elif isinstance(value, Pure) or not isinstance(value, Strategy):
            value = Pure(market.backend.numpy(market.check_decisions(state, stage, value)))
        named[stage] = _clip_strategy(market, state, stage, value)
    missing = [s.name for s in market.stages if s.name not in named]
    if missing:
        raise InvalidAction(f"the profile lacks stage(s) {', '.join(missing)} of {market.id}")
    return named


def _check_samples(market: Market, stage: str, value: Samples) -> None:
    n, k = market.roles[market._stage[stage].role], market._stage[stage].codec.width
    if value.values.shape[2] not in (1, n) or value.values.shape[3] != k:
        want = f"(S, B, {n}, {k})"
        raise InvalidAction(f"Samples of stage {stage!r} must have values of shape {want}, got {value.values.shape}")


def _clip_strategy(market: Market, state: State, stage: str, value: Strategy) -> Strategy:
    """Decisions of a point or a finite mixture moved into the stage's bounds, as ``commit`` would."""
    if not isinstance(value, (Pure, Samples)):
        return value
    earlier = [s.name for s in market.stages[: [s.name for s in market.stages].index(stage)]]
    here = state
    for name in earlier:
        if name not in here.decisions:
            here = market.commit(here, name, market.presumed(here, name))
    low, high = (market.backend.numpy(b) for b in market.bounds(here, stage))
    codec = market._stage[stage].codec
    given = value.decisions if isinstance(value, Pure) else value.values
    clipped = np.clip(given, low, high)
    if codec.discrete:
        shape = (*clipped.shape[:-3], *np.broadcast_shapes(clipped.shape[-3:], low.shape))
        clipped = codec.snap(np, np.broadcast_to(clipped, shape), low, high)
    if isinstance(value, Pure):
        return Pure(clipped)
    return Samples(clipped, value.weights, joint=value.joint)


def named_stage(rule: Any, presume: bool) -> Any:
    """A rule whose second argument, the stage, may also be a single-stage role; unknown names raise ``UnknownName``."""
    if hasattr(rule, "__wrapped__"):
        return rule

    @functools.wraps(rule)
    def call(self: Market, state: State, stage: str, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(state, State):
            raise ResetNeeded(f"{rule.__name__} needs a state from reset(), got {type(state).__name__}")
        if stage not in self._stage:
            stage = self.stage(stage).name
        if presume and len(state.decisions) < len(self.stages):
            for earlier in self.stages:
                if earlier.name == stage:
                    break
                if earlier.name not in state.decisions:
                    state = self.commit(state, earlier.name, self.presumed(state, earlier.name))
        return rule(self, state, stage, *args, **kwargs)

    return call


def checked_prefix(rule: Any) -> Any:
    """``respond`` with its prefix checked: the first stages, at least one, and at least one left to answer."""
    if hasattr(rule, "__wrapped__"):
        return rule

    @functools.wraps(rule)
    def call(self: Market, state: State, prefix: Mapping[str, Any]) -> Any:
        check_state(state)
        check_mapping(prefix)
        names = [s.name for s in self.stages]
        given = {self.stage(key).name for key in prefix}
        if not given or len(given) == len(names) or given != set(names[: len(given)]):
            want = " or ".join(repr(names[: k + 1]) for k in range(len(names) - 1)) or "no stage: it has only one"
            raise InvalidAction(f"respond in {self.id} takes the decisions of {want}, got {sorted(given)}")
        return rule(self, state, prefix)

    return call


def is_integer(value: Any) -> bool:
    """Whether a value is a whole number and no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def check_state(state: Any) -> None:
    """Raise ``ResetNeeded`` unless this is a market's state."""
    if not isinstance(state, State):
        raise ResetNeeded(f"a state from reset() is needed, got {type(state).__name__}")


def check_mapping(profile: Any) -> None:
    """Raise ``InvalidAction`` unless this is a mapping."""
    if not isinstance(profile, Mapping):
        raise InvalidAction(f"a profile maps stages or roles to decisions, got {type(profile).__name__}")


def _is_array(xp: Any, value: Any, dtype: Any) -> bool:
    if isinstance(value, np.ndarray):
        return xp is np and value.dtype == dtype
    return not isinstance(value, (int, float, list, tuple)) and getattr(value, "dtype", None) == dtype
