"""The repeated game: exact regret of memory-one policies by dynamic programming.

A state is last round's profile on a grid of ``K`` levels for each of ``N`` agents, ``K^N`` of them; a policy gives each
agent a distribution over levels in every state. Against fixed rivals an agent faces a Markov decision problem, solved
exactly by policy iteration, so that "who could gain, in discounted future too, by deviating" has an exact answer.
:func:`memory_one` reads any policies of a market as such tables by asking them in every state.

The setting is that of E. Calvano, G. Calzolari, V. Denicolo, S. Pastorello, "Artificial Intelligence, Algorithmic
Pricing, and Collusion", American Economic Review 110 (2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import NotOffered
from ..strategy import Pure, Samples, Strategy

if TYPE_CHECKING:
    from ..market import Market, State

Floats = NDArray[np.float64]


class DynamicRegret(NamedTuple):
    """Regret of memory-one policies in the discounted repeated game, in payoff units per round.

    Attributes:
        regret: per agent at the start distribution, ``(B, N)``: ``(1 - delta) (best - played)``.
        worst: the same from the worst state, ``(B, N)``: 0 exactly for subgame-perfect play.
        value: normalised discounted value of the policies at the start, ``(B, N)``.
        long_run: undiscounted mean profit per round in the long run from the start, ``(B, N)``.
    """

    regret: Floats
    worst: Floats
    value: Floats
    long_run: Floats


def dynamic_regret(
    policy: ArrayLike, payoff: ArrayLike, delta: float = 0.95, start: ArrayLike | None = None
) -> DynamicRegret:
    """Exact dynamic regret of memory-one policies.

    Args:
        policy: ``(B, N, S, K)`` with ``S = K^N`` states in row-major order of the agents' last levels; rows sum to 1.
        payoff: stage payoffs ``(B or 1, N, K, ..., K)``.
        delta: discount factor in [0, 1).
        start: distribution over states, ``(B, S)``; default: uniform.

    Raises:
        ValueError: on shapes that do not fit, rows that are no distributions, or ``delta`` outside [0, 1).
    """
    policy, payoff = np.asarray(policy, float), np.asarray(payoff, float)
    if policy.ndim != 4 or payoff.ndim != policy.shape[1] + 2:
        raise ValueError("policy must be (B, N, S, K) and payoff (B, N, K, ..., K)")
    batch, n, states, k = policy.shape
    if states != k**n or payoff.shape[1:] != (n, *((k,) * n)):
        raise ValueError(f"policy has {states} states and {k} levels, payoff {payoff.shape[1:]}; need S = K^N")
    if not 0 <= delta < 1:
        raise ValueError(f"delta must lie in [0, 1); got {delta}")
    if np.any(policy < -1e-12) or np.any(np.abs(policy.sum(-1) - 1) > 1e-9):
        raise ValueError("every row of policy must be a distribution over levels")
    begin = np.full((batch, states), 1.0 / states) if start is None else np.asarray(start, float)
    payoff = np.broadcast_to(payoff, (batch, *payoff.shape[1:])).reshape(batch, n, states)

    joint = policy[:, 0]
    for j in range(1, n):
        joint = (joint[:, :, :, None] * policy[:, j][:, :, None, :]).reshape(batch, states, -1)
    eye = np.eye(states)
    stage = np.matmul(joint, payoff.transpose(0, 2, 1))  # (B, S, N)
    value = np.linalg.solve(eye - delta * joint, stage) * (1 - delta)
    best = np.stack([_best_value(policy, payoff, j, delta) for j in range(n)], -1) * (1 - delta)
    gain = np.maximum(best - value, 0.0)
    weigh = begin[:, None, :]
    settled = _long_run(joint, begin)
    return DynamicRegret(
        np.matmul(weigh, gain)[:, 0],
        gain.max(1),
        np.matmul(weigh, value)[:, 0],
        np.matmul(settled[:, None, :], stage)[:, 0],
    )


def _best_value(policy: Floats, payoff: Floats, agent: int, delta: float) -> Floats:
    """Optimal value ``(B, S)`` of one agent against the others' fixed policies, by policy iteration."""
    batch, n, states, k = policy.shape
    others = [j for j in range(n) if j != agent]
    rival = np.ones((batch, states, 1))
    for j in others:
        rival = (rival[:, :, :, None] * policy[:, j][:, :, None, :]).reshape(batch, states, -1)
    # order outcomes as (own level, rivals' levels) to reduce over the rivals
    order = np.moveaxis(np.arange(states).reshape((k,) * n), agent, 0).reshape(k, -1)
    reward = np.matmul(rival, payoff[:, agent][:, order].transpose(0, 2, 1))  # (B, S, K)
    rows = np.arange(batch)[:, None, None]
    choice = reward.argmax(-1)
    value = np.zeros((batch, states))
    for _ in range(1000):
        move = np.zeros((batch, states, states))
        move[rows, np.arange(states)[None, :, None], order[choice]] = rival
        earned = np.take_along_axis(reward, choice[..., None], -1)
        value = np.linalg.solve(np.eye(states) - delta * move, earned)[..., 0]
        ahead = reward + delta * np.matmul(rival, value[:, order].transpose(0, 2, 1))
        kept = np.take_along_axis(ahead, choice[..., None], -1)[..., 0]
        better = ahead.max(-1) > kept + 1e-12 * np.maximum(1.0, np.abs(kept))
        if not np.any(better):
            return value
        choice = np.where(better, ahead.argmax(-1), choice)
    raise RuntimeError("policy iteration did not end: this cannot happen for finite problems")


def _long_run(joint: Floats, begin: Floats, rounds: int = 64) -> Floats:
    """Cesaro mean of the state distribution: squaring ``(I + P) / 2`` removes cycles without a tolerance on them."""
    lazy = 0.5 * (np.eye(joint.shape[-1]) + joint)
    for _ in range(rounds):
        new = np.matmul(lazy, lazy)
        new /= new.sum(-1, keepdims=True)
        if np.max(np.abs(new - lazy)) < 1e-14:
            break
        lazy = new
    return np.matmul(begin[:, None, :], lazy)[:, 0]


# -- from a market and its policies ---------------------------------------------------------------------------------------

MOST_STATES = 5000
"""Profiles of a repeated game that are still solved: tables of that side are inverted."""


def why_not(market: Market) -> str | None:
    """Why a market is no repeated game with public decisions on a grid; None if it is."""
    if len(market.stages) != 1 or len(market.roles) != 1:
        return f"{market.id} has several stages or roles; dynamic regret needs one stage of one role"
    stage = market.stages[0]
    if not stage.codec.discrete or stage.codec.width != 1:
        return f"decisions of {stage.name!r} are not one grid each; dynamic regret is exact on grids only"
    if market.noise_fields():
        return f"{market.id} draws something every round; dynamic regret needs the same stage game in all rounds"
    states = int(stage.codec.action_space.n) ** market.roles[stage.role]  # type: ignore[attr-defined]
    return None if states <= MOST_STATES else f"{states} profiles are too many (at most {MOST_STATES})"


class MemoryOne(NamedTuple):
    """Policies read as memory-one tables.

    Attributes:
        policy: ``(B, N, K^N, K)``, as :func:`dynamic_regret` takes it.
        payoff: ``(B, N, K, ..., K)`` stage payoffs by the market's own rules.
    """

    policy: Floats
    payoff: Floats


def memory_one(market: Market, state: State, policies: Mapping[str, Any], draws: int, seed: int = 0) -> MemoryOne:
    """Ask the policies what they do after every profile of last round.

    The market is stepped once with each of the ``K^N`` profiles, so that everything an agent sees of the past belongs to
    it; a policy with more memory is told that one round (``observe_round``) and nothing else.

    Args:
        market: The market, with one stage of one role on a grid.
        state: Its state of B markets.
        policies: ``{role: policy}``.
        draws: Draws of a stochastic policy without a closed form.
        seed: Seed of the policies.

    Raises:
        NotOffered: The market is no repeated game on a grid (see :func:`why_not`).
    """
    reason = why_not(market)
    if reason is not None:
        raise NotOffered(reason)
    stage = market.stages[0]
    batch, n = market.batch(state), market.roles[stage.role]
    k = int(stage.codec.action_space.n)  # type: ignore[attr-defined]
    levels = np.stack(np.meshgrid(*[np.arange(k)] * n, indexing="ij"), -1).reshape(-1, n)  # (S, N)
    many = market.take(state, np.repeat(np.arange(batch), len(levels)))
    low, high = (market.backend.numpy(b) for b in market.bounds(many, stage.name))
    shape = (batch * len(levels), n, 1)
    low, high = np.broadcast_to(low, shape), np.broadcast_to(high, shape)
    last = stage.codec.decode(np, np.tile(levels, (batch, 1)), low, high)
    after, outcome = market.step(many, {stage.name: last})
    payoff = market.backend.numpy(outcome.payoffs[stage.role]).reshape(batch, len(levels), n)

    policy = policies[stage.role]
    policy.start(market, stage.role, len(last), seed)
    if hasattr(policy, "observe_round"):
        policy.observe_round({stage.name: np.array(last)})
    obs = market.backend.numpy(market.observe(after, stage.name))
    strategy = policy.strategy(stage, obs, market.action_mask(after, stage.name), after, draws)
    table = _on_grid(strategy, low, high, k, draws).reshape(batch, len(levels), n, k)
    return MemoryOne(
        np.ascontiguousarray(np.moveaxis(table, 2, 1)),
        np.ascontiguousarray(np.moveaxis(payoff, 2, 1)).reshape((batch, n, *((k,) * n))),
    )


def _on_grid(strategy: Strategy, low: Floats, high: Floats, k: int, draws: int) -> Floats:
    """Probability of each level, ``(rows, N, K)``."""
    rows, n = low.shape[:2]
    if isinstance(strategy, Pure):
        values, weights = strategy.decisions[None], np.ones((1, 1, 1))
    elif isinstance(strategy, Samples):
        assert strategy.weights is not None
        values, weights = strategy.values, strategy.weights
    else:  # quantiles in the middle of equal slices: no random error
        cuts = (np.arange(draws) + 0.5) / draws
        values = np.stack([strategy.draw(np.full((rows, n), u)) for u in cuts])
        weights = np.full((draws, 1, 1), 1.0 / draws)
    span = np.where(high > low, high - low, 1.0)[..., 0]
    table = np.zeros((rows, n, k))
    row, agent = np.arange(rows)[:, None], np.arange(n)[None, :]
    for value, weight in zip(values, weights, strict=True):
        level = np.clip(np.rint((np.broadcast_to(value, low.shape)[..., 0] - low[..., 0]) / span * (k - 1)), 0, k - 1)
        table[row, agent, level.astype(np.int64)] += np.broadcast_to(weight, (rows, n))
    return table
