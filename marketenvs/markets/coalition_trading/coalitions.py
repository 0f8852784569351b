"""The coalition stage: what every partition of the buyers pays, who would move, who would merge, and fair shares.

Sellers serve the coalition of highest total reputation, so a coalition's worth depends on what others form: this is a
partition-function game. Every coalition's expected surplus comes from one batch of price games (`pricing`). Coalitions
are numbered by their members' bits (buyer n is bit n); everything is batched over B markets, for up to `MOST_BUYERS`
buyers.

Source: paper section III-A with fidelity notes F8, F11; spec section 5, "coalition stage".
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from math import factorial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from marketenvs.markets.coalition_trading.games import make_game
from marketenvs.markets.coalition_trading.pricing import PriceEquilibrium, price_equilibrium
from marketenvs.markets.coalition_trading.values import Curves

Floats = NDArray[Any]  # float64 unless said otherwise
Ints = NDArray[np.int64]

MOST_BUYERS = 6  # Bell(6) = 203 partitions


class Partitions(NamedTuple):
    """All partitions of n buyers and the moves between them.

    Attributes:
        labels: canonical labels (P, n): coalitions are numbered in the order of their smallest members.
        codes: bit code of every buyer's coalition, (P, n).
        moves: partition reached when buyer i joins the coalition of buyer j (j = i: goes alone), (P, n, n).
        merges: partition reached when the coalitions of buyers i and j merge, (P, n, n).
    """

    labels: Ints
    codes: Ints
    moves: Ints
    merges: Ints


def canonical(labels: tuple[int, ...]) -> tuple[int, ...]:
    """Labels renumbered in the order of first appearance."""
    seen: dict[int, int] = {}
    return tuple(seen.setdefault(label, len(seen)) for label in labels)


@cache
def all_partitions(n: int) -> Partitions:
    """Partitions of ``n`` buyers.

    Raises:
        ValueError: for more than `MOST_BUYERS` buyers.
    """
    if n > MOST_BUYERS:
        raise ValueError(f"all partitions are listed for at most {MOST_BUYERS} buyers, got {n}")
    grown: list[tuple[int, ...]] = [()]
    for _ in range(n):
        grown = [(*old, new) for old in grown for new in range(max(old, default=-1) + 2)]
    index = {labels: k for k, labels in enumerate(grown)}
    labels = np.array(grown, dtype=np.int64)
    same = labels[:, :, None] == labels[:, None, :]
    codes = np.sum(same * (1 << np.arange(n)), axis=2)
    moves = np.zeros((len(grown), n, n), dtype=np.int64)
    merges = np.zeros_like(moves)
    for k, old in enumerate(grown):
        for i in range(n):
            for j in range(n):
                target = old[j] if j != i else n
                moves[k, i, j] = index[canonical((*old[:i], target, *old[i + 1 :]))]
                merges[k, i, j] = index[canonical(tuple(old[i] if x == old[j] else x for x in old))]
    return Partitions(labels, codes, moves, merges)


@cache
def members_of(n: int) -> NDArray[np.bool_]:
    """Members of every coalition code, (2^n, n)."""
    return (np.arange(1 << n)[:, None] >> np.arange(n)) % 2 == 1


def signalling_cost(size: Floats, unit: Floats) -> Floats:
    """C_sig: ``unit`` $ per ordered pair of members."""
    return unit * size * (size - 1.0)


REMEMBERED = 4
"""Batches of markets whose price games are kept: every policy is judged on the same held-out markets."""
_known: dict[tuple, tuple[Floats, PriceEquilibrium]] = {}


def coalition_surplus(
    curves: Curves, sellers: int, capacity: Floats, cost: Floats, low: Floats, high: Floats
) -> tuple[Floats, PriceEquilibrium]:
    """Expected surplus before signalling cost of every coalition facing all sellers alone, (B, 2^n); code 0 is 0.

    Args:
        curves: fields (B, n).
        sellers: number of identical sellers.
        capacity: PRBs per seller, (B,).
        cost: unit cost, (B,).
        low: lowest price, (B,).
        high: highest price, (B,).

    Returns:
        Surpluses, and the price equilibria of all B * (2^n - 1) games (market-major).
    """
    inputs = (*curves, np.asarray(capacity), np.asarray(cost), np.asarray(low), np.asarray(high))
    key = (
        sellers,
        tuple(x.shape for x in inputs),
        b"".join(np.ascontiguousarray(x, dtype=float).tobytes() for x in inputs),
    )
    if key in _known:
        return _known[key]
    batch, n = curves.need.shape
    members = members_of(n)[1:]
    rows = np.repeat(np.arange(batch), len(members))
    wide = (np.broadcast_to(x, (batch,))[rows] for x in (capacity, cost, low, high))
    games = make_game(Curves(*(f[rows] for f in curves)), np.tile(members, (batch, 1)), sellers, *wide)
    found = price_equilibrium(games)
    surplus = np.zeros((batch, 1 << n))
    surplus[:, 1:] = found.surplus.reshape(batch, -1)
    while len(_known) >= REMEMBERED:
        _known.pop(next(iter(_known)), None)
    surplus.setflags(write=False)
    _known[key] = surplus, found
    return surplus, found


def winning_code(reputation: Floats, codes: Ints) -> Ints:
    """Code of the coalition that sellers choose in every partition, (B, P).

    The highest total reputation wins; among equals the larger coalition, then the one with the smallest member.

    Args:
        reputation: (B, n).
        codes: coalition code of every buyer, (P, n).
    """
    members = members_of(reputation.shape[1])[codes]  # (P, n, n)
    total = np.sum(np.where(members, reputation[:, None, None, :], 0.0), axis=3)
    # Round so that equal sums tie whatever the order of addition.
    total = np.round(total, 12)
    size = members.sum(axis=2)
    best = total >= total.max(axis=2, keepdims=True)
    largest = np.where(best, size, 0)
    best = best & (largest >= largest.max(axis=2, keepdims=True))
    first = np.argmax(best, axis=2)
    return np.take_along_axis(np.broadcast_to(codes, best.shape), first[..., None], axis=2)[..., 0]


def reputation_shares(reputation: Floats) -> Floats:
    """Share of each member in every coalition, in proportion to reputation, (B, 2^n, n); 0 for outsiders."""
    weight = members_of(reputation.shape[1]) * reputation[:, None, :]
    total = weight.sum(axis=2, keepdims=True)
    return weight / np.where(total > 0, total, 1.0)


def equal_shares(batch: int, n: int) -> Floats:
    """Equal shares in every coalition, (B, 2^n, n)."""
    return np.repeat(reputation_shares(np.ones((1, n))), batch, axis=0)


def characteristic(surplus: Floats, reputation: Floats, signalling: Floats) -> Floats:
    """v(S): net utility of S when everybody else forms one rival coalition, (B, 2^n).

    S is served only when its reputation exceeds the rest's; code 0 is worth 0.
    """
    n = reputation.shape[1]
    members = members_of(n)
    total = np.round(np.sum(members * reputation[:, None, :], axis=2), 12)
    serves = total > total[:, ::-1]  # the complement's code is the reversed index
    value = np.where(serves, surplus, 0.0) - signalling_cost(members.sum(axis=1), signalling[:, None])
    value[:, 0] = 0.0
    return value


def shapley(value: Floats) -> Floats:
    """Shapley values of games given by coalition code, (B, 2^n) -> (B, n)."""
    n = int(np.log2(value.shape[1]))
    codes, size = np.arange(value.shape[1]), members_of(n).sum(axis=1)
    result = np.zeros((value.shape[0], n))
    weight = np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])
    for i in range(n):
        without = codes[(codes >> i) % 2 == 0]
        result[:, i] = np.sum(weight[size[without]] * (value[:, without | (1 << i)] - value[:, without]), axis=1)
    return result


def shapley_shares(value: Floats) -> Floats:
    """Shares in proportion to the Shapley value of the game restricted to each coalition, (B, 2^n, n).

    Negative Shapley values count as 0; a coalition in which nobody's is positive shares equally.
    """
    n = int(np.log2(value.shape[1]))
    members = members_of(n)
    shares = np.zeros((*value.shape, n))
    for code in range(1, value.shape[1]):
        who = np.flatnonzero(members[code])
        inside = np.sum(members_of(len(who)) * (1 << who), axis=1)  # codes of its subsets
        weight = np.maximum(shapley(value[:, inside]), 0.0)
        total = weight.sum(axis=1, keepdims=True)
        shares[:, code, who] = np.where(total > 0, weight / np.where(total > 0, total, 1.0), 1.0 / len(who))
    return shares


def core_is_empty(value: Floats) -> NDArray[np.bool_]:
    """Whether the core (transferable utility) of each game is empty, (B,), by linear programming."""
    n = int(np.log2(value.shape[1]))
    members = members_of(n)[1:-1].astype(float)
    empty = np.zeros(value.shape[0], dtype=bool)
    for row, v in enumerate(value):
        # The least total payoff that satisfies every smaller coalition against what the grand coalition has.
        found = linprog(np.ones(n), -members, -v[1:-1], bounds=[(None, None)] * n, method="highs") if n > 1 else None
        empty[row] = found is not None and found.fun > v[-1] + 1e-9 * max(1.0, abs(v[-1]))
    return empty


class CoalitionStage(NamedTuple):
    """Payoffs and stability of every partition of the buyers.

    Attributes:
        partitions: the partitions.
        payoff: expected payoff of every buyer, $, (B, P, n).
        winner: code of the served coalition, (B, P).
        nash: no buyer gains by joining another coalition or going alone (free entry), (B, P).
        individual: no buyer gains by such a move to which the host coalition's members consent, (B, P).
        merged: partition at which merging from singletons stops (largest joint gain first), (B,).
        path: partitions on the way, (B, steps), the last one repeated.
    """

    partitions: Partitions
    payoff: Floats
    winner: Ints
    nash: NDArray[np.bool_]
    individual: NDArray[np.bool_]
    merged: Ints
    path: Ints


def coalition_stage(
    surplus: Floats, reputation: Floats, signalling: Floats, shares: Floats, winnings: Floats | None = None
) -> CoalitionStage:
    """Payoffs, stability and the merge path when sellers serve one coalition.

    Args:
        surplus: expected surplus of every coalition before signalling cost, (B, 2^n).
        reputation: (B, n).
        signalling: $ per ordered pair, (B,).
        shares: share of each member in every coalition, (B, 2^n, n).
        winnings: what the served coalition gets in every partition where that depends on the others, (B, P); default: its
            ``surplus``.
    """
    batch, n = reputation.shape
    parts = all_partitions(n)
    size = members_of(n).sum(axis=1)
    cost = signalling_cost(size, signalling[:, None])
    winner = winning_code(reputation, parts.codes)
    served = winner[:, :, None] == parts.codes
    gross = surplus[:, parts.codes] if winnings is None else winnings[:, :, None]
    net = np.where(served, gross, 0.0) - cost[:, parts.codes]
    mine = shares[np.arange(batch)[:, None, None], parts.codes, np.arange(n)]
    payoff = mine * net

    slack = 1e-9 * np.maximum(1.0, np.abs(payoff).max(axis=(1, 2)))[:, None, None, None]
    after = payoff[:, parts.moves]  # (B, P, mover, target, everybody)
    own = np.einsum("bpiji->bpij", after)
    gains = own > payoff[:, :, :, None] + slack
    # Hosts: the members of the coalition entered, other than the mover (nobody when it goes alone).
    host = (parts.labels[:, None, :, None] == parts.labels[:, None, None, :]) & ~np.eye(n, dtype=bool)[:, None, :]
    host = host & ~np.eye(n, dtype=bool)[:, :, None]
    content = np.all(~host | (after >= payoff[:, :, None, None, :] - slack[..., None]), axis=4)
    nash = ~gains.any(axis=(2, 3))
    individual = ~(gains & content).any(axis=(2, 3))

    # Merging: the pair of coalitions with the largest joint gain, given the rest of the partition, until none gains.
    here = np.full(batch, len(parts.labels) - 1)  # singletons come last
    path, rows = [here], np.arange(batch)
    pairs = np.array(list(combinations(range(n), 2)), dtype=np.int64).reshape(-1, 2)
    for _ in range(n - 1):
        first, second = pairs[:, 0], pairs[:, 1]
        merged = parts.merges[here][:, first, second]
        union = net[rows[:, None], merged, first]
        apart = net[rows[:, None], here[:, None], first] + net[rows[:, None], here[:, None], second]
        gain = np.where(merged == here[:, None], -np.inf, union - apart)
        best = np.argmax(np.round(gain, 12), axis=1)
        here = np.where(gain[rows, best] > slack[:, 0, 0, 0], merged[rows, best], here)
        path.append(here)
    return CoalitionStage(parts, payoff, winner, nash, individual, here, np.stack(path, axis=1))


def grand_is_nash(grand: Floats, alone: Floats, reputation: Floats, shares: Floats) -> NDArray[np.bool_]:
    """Whether the grand coalition is Nash-stable, for any number of buyers: O(n) price games instead of 2^n.

    Args:
        grand: net utility of the grand coalition, (B,).
        alone: surplus of each buyer served alone, (B, n).
        reputation: (B, n).
        shares: each buyer's share in the grand coalition, (B, n).
    """
    majority = 2.0 * reputation > reputation.sum(axis=1, keepdims=True)
    return np.all(shares * grand[:, None] >= np.where(majority, alone, 0.0) - 1e-9, axis=1)
