"""The one runner of every hand-written algorithm: policies and learners play many runs of a market at once.

The batch axis is the runs: market b of the batch belongs to ``seeds[b]``, draws its randomness from that seed alone,
and never meets the other markets. One call therefore trains ten seeds of an algorithm in the time of one, and a run's
result does not depend on which other seeds were in the batch.

What a round looks like to a policy: for every stage, in order, ``act_at`` of the role's policy; then the market
settles; then ``observe_round(public)`` of every policy that has it. A learner (anything with ``update``) gets one
``Transition`` per round and stage, delivered when the role sees its next move's observation and before it acts on it:
a follower whose value bootstraps at the next posted price thus learns from round t as soon as the price of round t +
1 is known.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from marketenvs.errors import InvalidParameter, NotOffered, UnknownName, nearest
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Transition, decide

from . import snapshot
from .arrangement import Arrangement, current, in_segments, part_of

Policies = dict[str, Any]
"""Role -> policy."""


class Report(Protocol):
    """What a training run calls now and then, so that the caller can draw a progress bar and a learning curve.

    Args:
        rounds: Rounds finished so far (rounds of ONE market: every run of the batch has played as many).
        policies: None, or a function without arguments that returns the policies as they are now: one ``{role:
            policy}`` from ``train``, a list of them (one per seed) from ``train_many``. Calling it costs a copy of
            the tables; not calling it is free.
        metrics: None, or name -> number or (B,) array: means since the last report.
    """

    def __call__(
        self, rounds: int, policies: Callable[[], Any] | None = None, metrics: Mapping[str, Any] | None = None
    ) -> None: ...


@dataclass
class Record:
    """What :func:`play` returns.

    Attributes:
        rounds: Rounds played in every market.
        seconds: Wall-clock seconds.
        payoffs: Role -> (B, n) mean payoffs over the last ``tail`` of the rounds.
        metrics: Name -> (B,) or (B, n) mean metrics over the same rounds.
        traces: Kept name -> (rounds, B, ...) of every round.
        policies: One ``{role: policy}`` per run, frozen (what learners have become; policies that do not learn as
            they are).
    """

    rounds: int
    seconds: float
    payoffs: dict[str, np.ndarray]
    metrics: dict[str, np.ndarray]
    traces: dict[str, np.ndarray] = field(default_factory=dict)
    policies: list[Policies] = field(default_factory=list)


class Streams:
    """Uniform random numbers of many runs, each from its own generator.

    Run b's numbers depend on ``seeds[b]`` and the labels only.

    Args:
        seeds: One integer per run.
        *labels: What the numbers are for (role, purpose); different labels give independent streams.
        block: Numbers drawn ahead per run (speed only; no effect on the values).
    """

    def __init__(self, seeds: Sequence[int], *labels: str, block: int = 4096):
        tags = [zlib.crc32(label.encode()) for label in labels]
        self.generators = [np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(s), *tags]))) for s in seeds]
        self.block = block
        self._ready = np.empty((len(self.generators), 0))
        self._next = 0

    def uniform(self, *shape: int) -> np.ndarray:
        """(runs, *shape) uniforms in [0, 1)."""
        size = int(np.prod(shape))
        left = self._ready.shape[1] - self._next
        if size > left:
            fresh = np.stack([g.random(max(size, self.block)) for g in self.generators])
            self._ready = np.concatenate((self._ready[:, self._next :], fresh), axis=1)
            self._next = 0
        out = self._ready[:, self._next : self._next + size]
        self._next += size
        return out.reshape(len(self.generators), *shape)


def episode_seeds(seeds: Sequence[int], episode: int) -> list[int]:
    """The markets' seeds in an episode: fresh for every episode and run, so that drawn markets are redrawn."""
    return [int(np.random.SeedSequence([int(s), 0xE915, episode]).generate_state(1, np.uint64)[0]) for s in seeds]


def role_seed(seeds: Sequence[int], role: str) -> int:
    """One integer seed for a policy that draws for the whole batch from a single generator."""
    return int(
        np.random.SeedSequence([zlib.crc32(role.encode()), *map(int, seeds)]).generate_state(1, np.uint64)[0] >> 1
    )


def ticks(rounds: int, linear: int = 50, per_decade: int = 8) -> frozenset[int]:
    """Rounds after which a run reports: even ones for progress bars, log-spaced ones for curves over log rounds."""
    even = np.linspace(0, rounds, linear + 1)[1:]
    log = np.round(10 ** (np.arange(int(per_decade * np.log10(rounds)) + 1) / per_decade))
    return frozenset(int(r) for r in np.ceil(np.concatenate((even, log))) if 1 <= r <= rounds)


def play(
    market: Market,
    policies: Mapping[str, Any],
    rounds: int,
    seeds: int | Sequence[int],
    report: Report | None = None,
    *,
    split: str = "train",
    keep: Sequence[str] = (),
    tail: float = 0.05,
    episode: int | None = None,
) -> Record:
    """Play ``rounds`` rounds of every run; learners learn on the way.

    Args:
        market: The market; one copy per seed is played side by side.
        policies: Role -> policy or learner, for every role. They are started here. A class attribute ``per_seed =
            True`` makes ``start`` receive the list of seeds instead of one integer, for policies whose runs must not
            depend on each other.
        rounds: Rounds of each market.
        seeds: One seed per run.
        report: Called at :func:`ticks`; see :class:`Report` (``policies()`` returns a list, one per run).
        split: "train" or "test" draws of the markets.
        keep: What to record of every round: stage names, role names (payoffs) or metric names.
        tail: Share of the rounds, at the end, over which ``Record.payoffs`` and ``Record.metrics`` are means.
        episode: Rounds per episode; default ``market.params.horizon``.

    Returns:
        The :class:`Record`.

    Raises:
        UnknownName: A role without policy, a policy for a role that does not exist, or an unknown name in ``keep``.
        InvalidParameter: ``rounds`` or ``tail`` out of range, or no seed.
        InvalidAction: A policy returned NaN, infinity or a wrong shape; the message names the role.
    """
    how = current() or Arrangement()
    if how.only is not None:
        policies = {role: p if role == how.only else how.opponents[role] for role, p in policies.items()}
    run = _Run(market, policies, rounds, seeds, split, keep, tail, episode, how.only)
    marks = ticks(rounds) if report is not None else frozenset()
    start = time.perf_counter()

    def play_rounds(first: int, last: int) -> None:
        for t in range(first, last):
            run.round(t)
            if t + 1 in marks:
                assert report is not None
                report(t + 1, run.policies_now, run.means())

    if how.checkpoint is not None and not run.can_be_kept():
        play_rounds(0, rounds)
    else:
        about = {"market": market.id, "seeds": run.seeds}
        in_segments(rounds, part_of(rounds, run.horizon), about, play_rounds, run.save, run.load)
    return run.record(time.perf_counter() - start)


class _Run:
    """State of one :func:`play`."""

    def __init__(
        self,
        market: Market,
        policies: Mapping[str, Any],
        rounds: int,
        seeds: int | Sequence[int],
        split: str,
        keep: Sequence[str],
        tail: float,
        episode: int | None,
        only: str | None = None,
    ):
        self.only = only
        self.seeds = [int(seeds)] if isinstance(seeds, (int, np.integer)) else [int(s) for s in seeds]
        if not self.seeds:
            raise InvalidParameter("play needs at least one seed")
        if isinstance(rounds, bool) or not isinstance(rounds, (int, np.integer)) or rounds < 1:
            raise InvalidParameter(f"rounds must be an integer >= 1, got {rounds!r}")
        if not 0 < tail <= 1:
            raise InvalidParameter(f"tail must lie in (0, 1], got {tail!r}")
        check_roles(market, policies)
        self.market, self.policies, self.split = market, dict(policies), split
        self.horizon = market.params.horizon if episode is None else int(episode)
        self.rounds, self.tail_start = rounds, rounds - max(1, round(rounds * tail))
        for role, policy in self.policies.items():
            seed = self.seeds if getattr(policy, "per_seed", False) else role_seed(self.seeds, role)
            policy.start(market, role, len(self.seeds), seed)
        self.state = self._new_episode(0)
        self.pending: dict[str, tuple] = {}  # stage -> what is known of its last round, but for next_obs
        self.traces: dict[str, list[np.ndarray]] = {name: [] for name in keep}
        self.sums: dict[tuple[str, str], Any] = {}
        self.since: dict[str, np.ndarray] = {}
        self.since_rounds = 0

    def _new_episode(self, number: int) -> State:
        return self.market.reset(seed=episode_seeds(self.seeds, number), split=self.split)

    def round(self, t: int) -> None:
        """Play one round of every market."""
        market, state, backend = self.market, self.state, self.market.backend
        raw: dict[str, Any] = {}
        seen: dict[str, tuple] = {}
        for stage in market.stages:
            policy = self.policies[stage.role]
            obs = backend.numpy(market.observe(state, stage.name))
            self._deliver(stage, obs)
            mask = market.action_mask(state, stage.name)
            mask = None if mask is None else np.asarray(backend.numpy(mask), dtype=bool)
            decisions = backend.asarray(decide(policy, market, stage, obs, mask, state))
            acting = None
            if hasattr(policy, "update") or hasattr(policy, "update_at"):
                acting = np.asarray(backend.numpy(market.acting(state, stage.name)), dtype=bool)
            seen[stage.name] = (obs, acting)
            raw[stage.name] = decisions
            state = market.commit(state, stage.name, decisions)
        public = {name: backend.numpy(value) for name, value in state.decisions.items()}
        self.state, outcome = market.conclude(state, raw)
        payoffs = {role: backend.numpy(p) for role, p in outcome.payoffs.items()}
        self._note(t, public, payoffs, outcome.metrics)
        end = (t + 1) % self.horizon == 0
        for stage in market.stages:
            obs, acting = seen[stage.name]
            if acting is not None:
                self.pending[stage.name] = (obs, public[stage.name], payoffs[stage.role], acting, public)
                if end or t + 1 == self.rounds:
                    self._deliver(stage, obs, end=True)
        for policy in self.policies.values():
            if hasattr(policy, "observe_round"):
                policy.observe_round(public)
        if end and t + 1 < self.rounds:
            self.state = self._new_episode((t + 1) // self.horizon)

    def _deliver(self, stage: Stage, next_obs: np.ndarray, end: bool = False) -> None:
        if stage.name not in self.pending:
            return
        obs, action, reward, acting, public = self.pending.pop(stage.name)
        transition = Transition(obs, action, reward, next_obs, acting, end, public)
        policy = self.policies[stage.role]
        if hasattr(policy, "update_at"):
            policy.update_at(stage, transition)
        else:
            policy.update(transition)

    def _note(
        self, t: int, public: dict[str, np.ndarray], payoffs: dict[str, np.ndarray], metrics: Mapping[str, Any]
    ) -> None:
        for name, trace in self.traces.items():
            if name in public:
                trace.append(public[name].copy())
            elif name in payoffs:
                trace.append(payoffs[name].copy())
            elif name in metrics:
                trace.append(np.array(self.market.backend.numpy(metrics[name])))
            else:
                raise UnknownName(f"cannot keep {name!r}; {nearest(name, [*public, *payoffs, *metrics])}")
        welfare = self.market.backend.numpy(metrics["welfare"])
        values = {"welfare": welfare} | {role: p.mean(axis=1) for role, p in payoffs.items()}
        for key, value in values.items():
            self.since[key] = self.since[key] + value if key in self.since else value
        self.since_rounds += 1
        if t >= self.tail_start:
            named = {("payoff", k): v for k, v in payoffs.items()}
            named |= {("metric", k): self.market.backend.numpy(v) for k, v in metrics.items()}
            for pair, value in named.items():
                self.sums[pair] = self.sums[pair] + value if pair in self.sums else value

    def _state(self) -> dict[str, Any]:
        """What decides how the run goes on after an episode; the next episode's markets follow from the seeds."""
        kept = {"traces": self.traces, "sums": self.sums, "since": self.since, "since_rounds": self.since_rounds}
        return {"policies": self.policies, "run": kept}

    def can_be_kept(self) -> bool:
        """Whether all that the policies hold can be written; warns if not."""
        try:
            snapshot.check(self._state())
        except NotOffered as error:
            warnings.warn(f"no checkpoints: {error}", RuntimeWarning, stacklevel=3)
            return False
        return True

    def save(self, folder: Path) -> None:
        """Write the state after the last round of an episode (or of the run)."""
        snapshot.save(folder, self._state())

    def load(self, folder: Path, played: int) -> None:
        """The inverse of :meth:`save`, in a run that has just been made."""
        found = snapshot.load(folder, self._state())
        self.policies, kept = found["policies"], found["run"]
        self.traces, self.sums = kept["traces"], kept["sums"]
        self.since, self.since_rounds = kept["since"], kept["since_rounds"]
        if played < self.rounds:
            self.state = self._new_episode(played // self.horizon)

    def means(self) -> dict[str, np.ndarray]:
        """(B,) mean payoff per agent of every role and mean welfare since the last call."""
        out = {key: value / self.since_rounds for key, value in self.since.items()}
        self.since, self.since_rounds = {}, 0
        return out

    def policies_now(self) -> list[Policies]:
        """One ``{role: policy}`` per run, frozen as they are now."""
        return [
            {
                role: policy.trained(b) if hasattr(policy, "trained") else policy
                for role, policy in self.policies.items()
                if self.only in (None, role)
            }
            for b in range(len(self.seeds))
        ]

    def record(self, seconds: float) -> Record:
        """Everything :func:`play` returns."""
        count = self.rounds - self.tail_start
        split = {
            kind: {k: np.asarray(v) / count for (what, k), v in self.sums.items() if what == kind}
            for kind in ("payoff", "metric")
        }
        traces = {name: np.stack(trace) for name, trace in self.traces.items()}
        return Record(self.rounds, seconds, split["payoff"], split["metric"], traces, self.policies_now())


def check_roles(market: Market, policies: Mapping[str, Any]) -> None:
    """Raise ``UnknownName`` unless there is exactly one policy for every role of the market."""
    for role in policies:
        if role not in market.roles:
            raise UnknownName(f"policy for unknown role {role!r} of {market.id}; {nearest(role, market.roles)}")
    missing = [role for role in market.roles if role not in policies]
    if missing:
        raise UnknownName(
            f"no policy for role(s) {', '.join(missing)} of {market.id}; give one for each of {', '.join(market.roles)}"
        )


def per_run(report: Report | None) -> Report | None:
    """A report for a ``train_many`` of one seed that hands its caller a single ``{role: policy}``."""
    if report is None:
        return None

    def single(
        rounds: int, policies: Callable[[], Any] | None = None, metrics: Mapping[str, Any] | None = None
    ) -> None:
        report(rounds, None if policies is None else lambda: policies()[0], metrics)

    return single
