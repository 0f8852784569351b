"""Memory-one Q-learning of prices, the collusion study: many sessions of two or more sellers side by side.

Every seller keeps one number per (last round's prices, own price) and plays the best one, except that it explores with
probability ``exp(-beta t)``. States are last round's price profile. Parameters are the published baseline.

A session's payoffs depend on the price profile only, so they are read from a table that the market computes once; the
sessions are then updated together in arrays (NumPy), or one after another by a compiled kernel (``numba`` extra) that
draws the same random numbers and gives the same results.

E. Calvano, G. Calzolari, V. Denicolo, S. Pastorello, "Artificial Intelligence, Algorithmic Pricing, and Collusion",
American Economic Review 110 (2020).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketenvs.arrays import Distribution
from marketenvs.errors import InvalidParameter
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy

from . import snapshot
from .arrangement import in_segments, part_of
from .registry import Algorithm
from .run import Policies, Report

Floats = NDArray[np.float64]
BLOCK = 1000  # periods whose random numbers are drawn together


@dataclass(frozen=True)
class Settings:
    """The published baseline.

    Args:
        learning_rate: alpha.
        decay: beta: exploration is ``exp(-beta t)``.
        discount: delta.
        stable: a session has converged when no greedy price has changed for this many periods.
    """

    learning_rate: float = 0.15
    decay: float = 4e-6
    discount: float = 0.95
    stable: int = 100_000

    def __post_init__(self) -> None:
        if not (0 < self.learning_rate <= 1 and self.decay > 0 and 0 <= self.discount < 1 and self.stable >= 1):
            raise InvalidParameter(f"{self}: needs 0 < learning_rate <= 1, decay > 0, 0 <= discount < 1, stable >= 1")


class Sessions(NamedTuple):
    """Result of a batch of S sessions of N sellers on K levels.

    Attributes:
        q: values, ``(S, N, K^N, K)``.
        state: the state reached, ``(S,)``.
        converged: whether greedy play had settled, ``(S,)``.
        periods: periods played, ``(S,)``.
        profit: mean profit of the final greedy play, once it repeats itself, ``(S, N)``.
    """

    q: Floats
    state: NDArray[np.int64]
    converged: NDArray[np.bool_]
    periods: NDArray[np.int64]
    profit: Floats


class _Play:
    """Where the sessions are; see :class:`Sessions`.

    Args:
        q: first values.
        state: first states.
        streams: generators of the exploration.
    """

    def __init__(self, q: Floats, state: NDArray[np.int64], streams: list[np.random.Generator]):
        self.q, self.greedy = q, q.argmax(-1).astype(np.int64)
        self.state, self.streams = state, streams
        self.changed = np.zeros(len(q), np.int64)  # period of the last change of greedy play
        self.ended = np.full(len(q), -1, np.int64)
        self.played = 0


def run_sessions(
    payoff: Floats,
    sessions: int,
    periods: int,
    settings: Settings | None = None,
    seed: int | Sequence[Any] = 0,
    kernel: str = "auto",
    report: Any = None,
) -> Sessions:
    """Play sessions until all have converged or ``periods`` are over.

    Args:
        payoff: stage profits ``(N, K, ..., K)``, or ``(S, N, K, ..., K)`` for a market of its own in every session.
        sessions: S.
        periods: most periods.
        settings: learning parameters; default: the published ones.
        seed: of the exploration and the first states; a sequence gives every session its own stream.
        kernel: "numpy", "numba", or "auto" (numba where it is installed).
        report: called with the number of periods played, after every block.

    Raises:
        InvalidParameter: unknown kernel or missing extra, or a payoff of the wrong shape.
    """
    settings = settings or Settings()
    payoff = np.ascontiguousarray(payoff, dtype=np.float64)
    k = payoff.shape[-1]
    n = payoff.ndim - 1 if payoff.shape[0] == payoff.ndim - 1 and len(set(payoff.shape[1:])) == 1 else payoff.ndim - 2
    if payoff.shape not in ((n, *((k,) * n)), (sessions, n, *((k,) * n))):
        raise InvalidParameter(f"payoff must have shape (N, K, ..., K) or (S, N, K, ..., K), got {payoff.shape}")
    found = importlib.util.find_spec("numba") is not None
    if kernel not in ("auto", "numpy", "numba"):
        raise InvalidParameter(f"kernel must be 'auto', 'numpy' or 'numba', got {kernel!r}")
    if kernel == "numba" and not found:
        raise InvalidParameter("kernel='numba' needs numba: pip install 'marketenvs[numba]'")
    advance: Any = _compiled() if kernel == "numba" or (kernel == "auto" and found) else _advance
    streams = [np.random.default_rng(s) for s in ([seed] if isinstance(seed, int) else seed)]
    if len(streams) not in (1, sessions):
        raise InvalidParameter(f"{len(streams)} seeds were given for {sessions} sessions")
    each = sessions // len(streams)
    states = k**n
    flat = payoff.reshape(-1, n, states)  # one row, or one for every session
    cube = payoff.reshape(-1, n, *((k,) * n))
    start = [np.moveaxis(cube[:, i], i + 1, 1).reshape(len(cube), k, -1).mean(2) for i in range(n)]
    first = np.stack(start, 1) / (1 - settings.discount)
    q = np.broadcast_to(first[:, :, None, :], (sessions, n, states, k)).copy()
    at = _Play(q, np.concatenate([rng.integers(0, states, size=each) for rng in streams]), streams)
    constants = (settings.learning_rate, settings.discount)

    def blocks(begin: int, end: int) -> bool:
        """Play until period ``end``; whether all sessions have converged."""
        while at.played < end and np.any(at.ended < 0):
            block = min(BLOCK, periods - at.played)
            u = np.concatenate([rng.random((block, each, n)) for rng in at.streams], axis=1)
            explore = np.exp(-settings.decay * np.arange(at.played, at.played + block))
            live = np.flatnonzero(at.ended < 0)
            if live.size == sessions:
                advance(at.q, at.greedy, at.state, at.changed, u, explore, flat, *constants, at.played)
            else:
                part = at.q[live], at.greedy[live], at.state[live], at.changed[live]
                own = flat if len(flat) == 1 else flat[live]
                advance(*part, np.ascontiguousarray(u[:, live]), explore, own, *constants, at.played)
                at.q[live], at.greedy[live], at.state[live], at.changed[live] = part
            at.played += block
            settled = (at.ended < 0) & (at.played - at.changed >= settings.stable)
            at.ended[settled] = at.played
            if report is not None:
                report(at.played)
        return not np.any(at.ended < 0)

    about = {"sessions": sessions, "seeds": repr(seed), "settings": repr(settings)}
    in_segments(periods, part_of(periods, BLOCK), about, blocks, *snapshot.keeper(at))
    profit = greedy_profit(at.greedy, at.state, flat, k)
    return Sessions(at.q, at.state, at.ended >= 0, np.where(at.ended < 0, at.played, at.ended), profit)


def _advance(
    q: Floats,
    greedy: NDArray[np.int64],
    state: NDArray[np.int64],
    changed: NDArray[np.int64],
    u: Floats,
    explore: Floats,
    payoff: Floats,
    rate: float,
    discount: float,
    first: int,
) -> None:
    """A block of periods for all sessions at once, in place. One uniform decides whether and what to explore."""
    block, sessions, n = u.shape
    states, k = q.shape[2], q.shape[3]
    rows = q.reshape(sessions * n * states, k)
    cells = q.reshape(-1)
    best = greedy.reshape(-1)
    base = (np.arange(sessions * n) * states).reshape(sessions, n)
    place = k ** np.arange(n - 1, -1, -1)
    market = np.arange(sessions)[:, None] if len(payoff) > 1 else 0
    sellers = (market * n + np.arange(n)) * states
    profits = payoff.reshape(-1)
    for t in range(block):
        row = base + state[:, None]
        action = best[row]
        chance = explore[t]
        draw = u[t]
        tries = draw < chance
        picked = np.where(tries, draw, 0.0) / max(chance, 1e-300) * k
        action = np.where(tries, np.minimum(picked.astype(np.int64), k - 1), action)
        after = action @ place
        reward = profits[sellers + after[:, None]]
        ahead = base + after[:, None]
        future = cells[ahead * k + best[ahead]]
        cell = row * k + action
        old = cells[cell]
        cells[cell] = old + rate * (reward + discount * future - old)
        now = rows[row].argmax(-1)
        moved = now != best[row]
        best[row] = now
        changed[moved.any(-1)] = first + t + 1
        state[:] = after


@cache
def _compiled() -> Any:
    """`_advance` compiled: sessions one after another, rescanning a row only when its best entry fell."""
    from numba import njit

    @njit(cache=False)
    def advance(q, greedy, state, changed, u, explore, payoff, rate, discount, first):  # type: ignore[no-untyped-def]
        block, sessions, n = u.shape
        k = q.shape[3]
        action = np.empty(n, np.int64)
        for s in range(sessions):
            here = state[s]
            earned = payoff[s if len(payoff) > 1 else 0]
            for t in range(block):
                after = 0
                for i in range(n):
                    draw = u[t, s, i]
                    if draw < explore[t]:
                        a = int(draw / explore[t] * k)
                        if a > k - 1:
                            a = k - 1
                    else:
                        a = greedy[s, i, here]
                    action[i] = a
                    after = after * k + a
                for i in range(n):
                    a = action[i]
                    future = q[s, i, after, greedy[s, i, after]]
                    old = q[s, i, here, a]
                    new = old + rate * (earned[i, after] + discount * future - old)
                    q[s, i, here, a] = new
                    b = greedy[s, i, here]
                    best = b
                    if a == b:
                        if new < old:
                            best = 0
                            for c in range(1, k):
                                if q[s, i, here, c] > q[s, i, here, best]:
                                    best = c
                        else:  # an equal entry of lower index may not exist: b was the first maximum
                            best = b
                    else:
                        top = q[s, i, here, b]
                        if new > top or (new == top and a < b):
                            best = a
                    if best != b:
                        greedy[s, i, here] = best
                        changed[s] = first + t + 1
                here = after
            state[s] = here

    return advance


def greedy_profit(greedy: NDArray[np.int64], state: NDArray[np.int64], payoff: Floats, k: int) -> Floats:
    """Mean profit ``(S, N)`` over the cycle that greedy play from ``state`` runs into.

    Args:
        greedy: greedy levels, ``(S, N, K^N)``.
        state: where to begin, ``(S,)``.
        payoff: ``(N, K^N)``, or ``(1 or S, N, K^N)``.
        k: levels.
    """
    sessions, n, states = greedy.shape
    payoff = np.broadcast_to(payoff, (sessions, n, states))
    place = k ** np.arange(n - 1, -1, -1)
    rows = np.arange(sessions)
    here = np.array(state)
    for _ in range(states):  # long enough to be on the cycle
        here = np.stack([greedy[rows, i, here] for i in range(n)], -1) @ place
    begin, total, length = here.copy(), np.zeros((sessions, n)), np.zeros(sessions)
    open_ = np.ones(sessions, bool)
    for _ in range(states):
        here = np.stack([greedy[rows, i, here] for i in range(n)], -1) @ place
        total += np.where(open_[:, None], np.take_along_axis(payoff, here[:, None, None], 2)[:, :, 0], 0.0)
        length += open_
        open_ &= here != begin
        if not np.any(open_):
            break
    return total / length[:, None]


def greedy_policies(sessions: Sessions) -> Floats:
    """Final greedy play as memory-one policies ``(S, N, K^N, K)``, for `repeated.dynamic_regret`."""
    k = sessions.q.shape[-1]
    return np.eye(k)[sessions.q.argmax(-1)]


class MemoryOne(Policy):
    """Prices by tables over last round's price profile, read from the observation.

    With several tables the one learnt in the most similar market is played: similar in the costs and qualities that
    ``observation="full"`` shows.

    Args:
        play: level of each seller in each state, ``(N, K^N)`` or ``(R, N, K^N)``.
        types: what the R markets looked like, ``(R, 2 N)``: costs and qualities as observed by seller 0.
    """

    def __init__(self, play: NDArray[np.int64], types: Floats | None = None):
        self.play = np.asarray(play, dtype=np.int64)
        self.types = None if types is None else np.asarray(types, dtype=np.float64)

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        market: Any = self.market
        tables = self.play if self.play.ndim == 3 else self.play[None]
        n = tables.shape[1]
        k = market.params.price_levels
        low, high = (
            np.broadcast_to(market.backend.numpy(x), (*obs.shape[:2], 1)) for x in market.bounds(state, stage.name)
        )
        last = obs[:, :, :n] * market.money  # own price first, then the rivals' in cyclic order
        level = np.clip(np.rint((last - low) / (high - low) * (k - 1)), 0, k - 1).astype(np.int64)
        out = np.empty((*obs.shape[:2], 1))
        for i in range(n):
            order = (np.arange(n) - i) % n  # back to the sellers' order
            index = level[:, i, order] @ (k ** np.arange(n - 1, -1, -1))
            table = 0
            if self.types is not None:
                seen = observed_type(obs[:, i], n, order)
                table = ((seen[:, None] - self.types[None]) ** 2).sum(-1).argmin(-1)
            out[:, i, 0] = low[:, i, 0] + (high - low)[:, i, 0] * tables[table, i, index] / (k - 1)
        return out

    def act(self, obs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        raise NotImplementedError("MemoryOne decides in act_at, from the stage's bounds")

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON settings and arrays."""
        return {}, {"play": self.play} | ({} if self.types is None else {"types": self.types})

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> MemoryOne:
        """The inverse of :meth:`export`."""
        return cls(arrays["play"], arrays.get("types"))


def observed_type(obs: Floats, n: int, order: NDArray[np.int64]) -> Floats:
    """Costs and qualities ``(B, 2 N)`` in the sellers' order, from one seller's full observation ``(B, d)`` (logit)."""
    cost = np.concatenate([obs[:, 2 * n + 1, None], obs[:, 2 * n + 5 : 3 * n + 4]], 1)
    return np.concatenate([cost[:, order], obs[:, -n:][:, order]], 1)


def payoff_table(market: Market, state: State) -> Floats:
    """Stage profits ``(N, K, ..., K)`` of the first market of ``state``; see `payoff_tables`."""
    return payoff_tables(market, market.take(state, np.zeros(1, dtype=int)))[0]


def payoff_tables(market: Market, state: State) -> Floats:
    """Stage profits ``(B, N, K, ..., K)`` of one-stage pricing markets on their price grids, from the market's own rules."""
    n, k = market.roles["seller"], int(market.params.price_levels)  # type: ignore[attr-defined]
    mesh = np.stack(np.meshgrid(*[np.arange(k)] * n, indexing="ij"), -1).reshape(-1, n)
    batch = market.batch(state)
    many = market.take(state, np.repeat(np.arange(batch), len(mesh)))
    low, high = (market.backend.numpy(x) for x in market.bounds(many, "pricing"))
    price = low + (high - low) * np.tile(mesh, (batch, 1))[:, :, None] / (k - 1)
    table = market.backend.numpy(market.payoff(many, {"pricing": price})["seller"]).reshape(batch, len(mesh), n)
    return np.ascontiguousarray(np.moveaxis(table, 2, 1)).reshape(batch, n, *((k,) * n))


def drawn(market: Market) -> list[str]:
    """Names of the parameters that differ by market."""
    return [f.name for f in fields(market.params) if isinstance(getattr(market.params, f.name), Distribution)]


def playable(market: Market) -> str | None:
    """None where the algorithm can play, else the reason."""
    p: Any = market.params
    if p.matching not in ("logit", "clearing") or p.price_levels is None:
        return "memory-one Q-learning needs sellers alone (matching 'logit' or 'clearing') on a price grid"
    if p.price_levels**p.n_sellers > 5000:
        return f"{p.price_levels} levels and {p.n_sellers} sellers make too many states"
    unseen = [name for name in drawn(market) if p.observation != "full" or name not in ("quality", "unit_cost")]
    if unseen:
        return f"its tables belong to a known market, and sellers do not see {', '.join(unseen)} (differs by market)"
    return None


def train_many(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, markets: int = 32
) -> list[Policies]:
    """One session per seed and training market, all at once.

    Args:
        task: Task with a logit or clearing market on a price grid.
        seeds: One run each.
        budget: Periods of a run at most, shared equally by its sessions. Where a session has less than a million,
            exploration falls faster than published, to the same ``exp(-4)`` at its end.
        report: Told after every thousand periods, and at the end.
        markets: Where costs or qualities differ by market: training markets of a run, each with its own session; play
            is by the most similar one.

    Raises:
        InvalidParameter: ``markets`` below 1.
    """
    if markets < 1:
        raise InvalidParameter(f"markets must be at least 1, got {markets}")
    market = task.make_market()
    each = markets if drawn(market) else 1
    periods = max(budget // each, 1)
    settings = Settings(decay=max(Settings.decay, 4.0 / periods))
    n = market.roles["seller"]
    if each == 1:
        state, table = None, payoff_table(market, market.reset(0))
    else:
        state = market.reset(
            seed=[s for seed in seeds for s in np.random.SeedSequence(seed).generate_state(each).tolist()]
        )
        table = payoff_tables(market, state)
    streams = [x for seed in seeds for x in ([int(seed)] if each == 1 else [(int(seed), r) for r in range(each)])]
    told = None if report is None else lambda played: report(min(budget, played * each))
    found = run_sessions(table, len(streams), periods, settings, seed=streams, report=told)
    play = found.q.argmax(-1).reshape(len(seeds), each, n, -1)
    types = None
    if state is not None:
        obs = market.backend.numpy(market.observe(state, "pricing"))[:, 0]
        types = observed_type(obs, n, np.arange(n)).reshape(len(seeds), each, -1)
    if report is not None:
        report(budget)
    return [
        {"seller": MemoryOne(play[s, 0]) if types is None else MemoryOne(play[s], types[s])} for s in range(len(seeds))
    ]


ALGORITHM = Algorithm(
    "calvano_q",
    train_many=train_many,
    title="Memory-one Q-learning (Calvano et al.)",
    citation="E. Calvano, G. Calzolari, V. Denicolo, S. Pastorello, American Economic Review 110 (2020)",
    quick_budget=200_000,
    markets=("SpectrumBertrand-v0",),
    actions=("discrete",),
    can_play=playable,
)
