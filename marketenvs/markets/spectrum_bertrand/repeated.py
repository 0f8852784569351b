"""The repeated game: exact regret of memory-one price policies by dynamic programming (spec 6, issue 5).

A state is last round's price profile on a grid of ``K`` levels, ``K^N`` of them; a policy gives each seller a
distribution over levels in every state. Against fixed rivals a seller faces a Markov decision problem, solved exactly
by policy iteration, so that "who could gain, in discounted future too, by deviating" has an exact answer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class DynamicRegret(NamedTuple):
    """Regret of memory-one policies in the discounted repeated game, in money per round.

    Attributes:
        regret: per seller at the start distribution, ``(B, N)``: ``(1 - delta) (best - played)``.
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
        policy: ``(B, N, S, K)`` with ``S = K^N`` states in row-major order of the sellers' last levels; rows sum to 1.
        payoff: stage profits ``(B or 1, N, K, ..., K)``, as from `logit.payoff_table`.
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


def _best_value(policy: Floats, payoff: Floats, seller: int, delta: float) -> Floats:
    """Optimal value ``(B, S)`` of one seller against the others' fixed policies, by policy iteration."""
    batch, n, states, k = policy.shape
    others = [j for j in range(n) if j != seller]
    rival = np.ones((batch, states, 1))
    for j in others:
        rival = (rival[:, :, :, None] * policy[:, j][:, :, None, :]).reshape(batch, states, -1)
    # order outcomes as (own level, rivals' levels) to reduce over the rivals
    order = np.moveaxis(np.arange(states).reshape((k,) * n), seller, 0).reshape(k, -1)
    reward = np.matmul(rival, payoff[:, seller][:, order].transpose(0, 2, 1))  # (B, S, K)
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
