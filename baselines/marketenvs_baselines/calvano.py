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
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketenvs.errors import InvalidParameter
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy

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


def run_sessions(
    payoff: Floats,
    sessions: int,
    periods: int,
    settings: Settings | None = None,
    seed: int | Sequence[int] = 0,
    kernel: str = "auto",
    report: Any = None,
) -> Sessions:
    """Play sessions until all have converged or ``periods`` are over.

    Args:
        payoff: stage profits ``(N, K, ..., K)``.
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
    n, k = payoff.shape[0], payoff.shape[-1]
    if payoff.shape != (n, *((k,) * n)):
        raise InvalidParameter(f"payoff must have shape (N, K, ..., K), got {payoff.shape}")
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
    flat = payoff.reshape(n, states)
    start = np.stack([np.moveaxis(payoff[i], i, 0).reshape(k, -1).mean(1) for i in range(n)]) / (1 - settings.discount)
    q = np.broadcast_to(start[None, :, None, :], (sessions, n, states, k)).copy()
    greedy = q.argmax(-1).astype(np.int64)
    state = np.concatenate([rng.integers(0, states, size=each) for rng in streams])
    changed = np.zeros(sessions, np.int64)  # period of the last change of greedy play
    ended = np.full(sessions, -1, np.int64)
    played = 0
    while played < periods and np.any(ended < 0):
        block = min(BLOCK, periods - played)
        u = np.concatenate([rng.random((block, each, n)) for rng in streams], axis=1)
        explore = np.exp(-settings.decay * np.arange(played, played + block))
        live = np.flatnonzero(ended < 0)
        if live.size == sessions:
            advance(q, greedy, state, changed, u, explore, flat, settings.learning_rate, settings.discount, played)
        else:
            part = [q[live], greedy[live], state[live], changed[live]]
            draws = np.ascontiguousarray(u[:, live])
            advance(
                part[0],
                part[1],
                part[2],
                part[3],
                draws,
                explore,
                flat,
                settings.learning_rate,
                settings.discount,
                played,
            )
            q[live], greedy[live], state[live], changed[live] = part
        played += block
        settled = (ended < 0) & (played - changed >= settings.stable)
        ended[settled] = played
        if report is not None:
            report(played)
    profit = greedy_profit(greedy, state, flat, k)
    return Sessions(q, state, ended >= 0, np.where(ended < 0, played, ended), profit)


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
    sellers = np.arange(n) * states
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
                    new = old + rate * (payoff[i, after] + discount * future - old)
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
    """Mean profit ``(S, N)`` over the cycle that greedy play from ``state`` runs into."""
    sessions, n, states = greedy.shape
    place = k ** np.arange(n - 1, -1, -1)
    rows = np.arange(sessions)
    here = np.array(state)
    for _ in range(states):  # long enough to be on the cycle
        here = np.stack([greedy[rows, i, here] for i in range(n)], -1) @ place
    begin, total, length = here.copy(), np.zeros((sessions, n)), np.zeros(sessions)
    open_ = np.ones(sessions, bool)
    for _ in range(states):
        here = np.stack([greedy[rows, i, here] for i in range(n)], -1) @ place
        total += np.where(open_[:, None], payoff[:, here].T, 0.0)
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
    """Prices by a table over last round's price profile, read from the observation.

    Args:
        play: level of each seller in each state, ``(N, K^N)``.
    """

    def __init__(self, play: NDArray[np.int64]):
        self.play = np.asarray(play, dtype=np.int64)

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        market: Any = self.market
        n = self.play.shape[0]
        k = market.params.price_levels
        low, high = (
            np.broadcast_to(market.backend.numpy(x), (*obs.shape[:2], 1)) for x in market.bounds(state, stage.name)
        )
        last = obs[:, :, :n] * market.money  # own price first, then the rivals' in cyclic order
        level = np.clip(np.rint((last - low) / (high - low) * (k - 1)), 0, k - 1).astype(np.int64)
        out = np.empty((*obs.shape[:2], 1))
        for i in range(n):
            own = level[:, i, (np.arange(n) - i) % n]  # back to the sellers' order
            index = own @ (k ** np.arange(n - 1, -1, -1))
            out[:, i, 0] = low[:, i, 0] + (high - low)[:, i, 0] * self.play[i, index] / (k - 1)
        return out

    def act(self, obs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        raise NotImplementedError("MemoryOne decides in act_at, from the stage's bounds")

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON settings and arrays."""
        return {}, {"play": self.play}

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> MemoryOne:
        """The inverse of :meth:`export`."""
        return cls(arrays["play"])


def payoff_table(market: Market, state: State) -> Floats:
    """Stage profits ``(N, K, ..., K)`` of a one-stage pricing market on its price grid, from the market's own rules."""
    n, k = market.roles["seller"], int(market.params.price_levels)  # type: ignore[attr-defined]
    mesh = np.stack(np.meshgrid(*[np.arange(k)] * n, indexing="ij"), -1).reshape(-1, n)
    low, high = (market.backend.numpy(x)[0, :, 0] for x in market.bounds(state, "pricing"))
    price = low + (high - low) * mesh / (k - 1)
    many = market.take(state, np.zeros(len(mesh), dtype=int))
    table = market.backend.numpy(market.payoff(many, {"pricing": price[:, :, None]})["seller"])
    return np.ascontiguousarray(table.T.reshape(n, *((k,) * n)))


def playable(market: Market) -> str | None:
    """None where the algorithm can play, else the reason."""
    p: Any = market.params
    if p.matching not in ("logit", "clearing") or p.price_levels is None:
        return "memory-one Q-learning needs sellers alone (matching 'logit' or 'clearing') on a price grid"
    if p.price_levels**p.n_sellers > 5000:
        return f"{p.price_levels} levels and {p.n_sellers} sellers make too many states"
    return None


def train_many(task: Any, seeds: Sequence[int], budget: int, report: Report | None = None) -> list[Policies]:
    """One session per seed, all at once; ``budget`` periods at most."""
    market = task.make_market()
    table = payoff_table(market, market.reset(0))
    found = run_sessions(table, len(seeds), budget, seed=[int(s) for s in seeds])
    play = found.q.argmax(-1)
    if report is not None:
        report(budget)
    return [{"seller": MemoryOne(play[s])} for s in range(len(seeds))]


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
