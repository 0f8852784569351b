"""The discretised market: prices and purchases on finite grids, as tabular learners play it.

Pure equilibria of the consumers are enumerated exactly. By concavity a level is a best reply iff neither neighbour is
better, which holds for rivals' efforts X in at most two intervals; shifted by the level's own effort these are
intervals of the total effort S. Between their end points every consumer's set of admissible levels is constant, and an
equilibrium is a selection from these sets whose efforts sum to an S in that stretch. Consumers with equal parameters
are interchangeable, so selections are counted as multisets. No common unit of effort is needed.

Where no pure equilibrium exists, or too many selections would have to be looked at, the profile of lowest total regret
that sequential best response visits stands in, with its regret.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from math import comb, factorial, prod
from typing import NamedTuple

import numpy as np

from .followers import consumer_payoff, follower_equilibrium
from .game import TIE_TOLERANCE, BoolArray, FloatArray, Game, IntArray
from .mixed import MixedPayoff, mixed_payoff

__all__ = [
    "GridAnswer",
    "GridLeader",
    "MixedPayoff",
    "grid_best_response",
    "grid_follower_equilibrium",
    "grid_leader",
    "grid_levels",
    "grid_regrets",
    "mixed_payoff",
    "pure_equilibria",
]

#: Gains below this, relative to max(1, |payoff|), do not count as deviations.
TOLERANCE = 1e-9
_MOST = 2_000_000  # selections looked at per stretch of S before giving up on enumeration


class GridAnswer(NamedTuple):
    """The consumers' play on the grid at given prices, in B markets."""

    purchases: FloatArray  # (B, n) units; the equilibrium of largest demand, or the lowest-regret profile found
    regret: FloatArray  # (B, n) gain of each consumer's best deviation on the grid, tokens
    exists: BoolArray  # (B,) whether a pure equilibrium was found
    enumerated: BoolArray  # (B,) whether all pure equilibria were enumerated, so that ``exists`` is proved
    multisets: IntArray  # (B,) pure equilibria, like consumers not told apart
    profiles: FloatArray  # (B,) pure equilibria, every consumer told apart (up to 9! per multiset in `calibrated`)
    least: FloatArray  # (B,) the lowest total demand among them (== purchases.sum(1) if unique)


class GridLeader(NamedTuple):
    """The provider's choice from a price grid in B markets, over P prices."""

    price: FloatArray  # (B,) the lowest best price
    position: IntArray  # (B,) where it stands on the grid
    value: FloatArray  # (B,) U_cpp
    values: FloatArray  # (B, P) U_cpp at every price; of several equilibria the one of largest demand
    lowest_values: FloatArray  # (B, P) the lowest value over the equilibria
    purchases: FloatArray  # (B, P, n)
    regret: FloatArray  # (B, P) the consumers' total regret
    exists: BoolArray  # (B, P)
    enumerated: BoolArray  # (B, P)


def grid_levels(game: Game, amounts: FloatArray | int) -> FloatArray:
    """Purchase levels (B, n, L), ascending.

    Args:
        game: B markets.
        amounts: L levels common to all, as (L,), or one's own as (n, L) or (B, n, L); or the number L of equally
            spaced levels of each purchase box.

    Raises:
        ValueError: levels that do not ascend, are negative, or have the wrong shape.
    """
    if isinstance(amounts, (int, np.integer)):
        steps = np.linspace(0.0, 1.0, int(amounts))
        return game.purchase_low[..., None] + steps * (game.purchase_high - game.purchase_low)[..., None]
    amounts = np.asarray(amounts, dtype=float)
    if amounts.ndim not in (1, 2, 3):
        raise ValueError(f"amounts must have shape (L,), (n, L) or (B, n, L), got {amounts.shape}")
    if (np.diff(amounts, axis=-1) < 0).any() or (amounts < 0).any() or not np.isfinite(amounts).all():
        raise ValueError("amounts must be finite, not negative, and ascend along the last axis")
    return np.array(np.broadcast_to(amounts, (game.markets, game.consumers, amounts.shape[-1])))


def _level_payoffs(game: Game, price: FloatArray, purchases: FloatArray, levels: FloatArray) -> FloatArray:
    """U_i at each of its levels against the others' purchases, (B, n, L)."""
    effort = game.mining_ratio * purchases
    rivals = (effort.sum(axis=1, keepdims=True) - effort)[..., None]
    rivals = np.where(rivals < 1e-13 * effort.sum(axis=1)[:, None, None], 0.0, rivals)
    own = game.mining_ratio[..., None] * levels
    total = own + rivals
    share = np.where(total > 0, own / np.where(total > 0, total, 1.0), 0.0)
    return -game.net_cost(price)[..., None] * levels + game.reward[..., None] * share


def grid_best_response(game: Game, price: FloatArray, purchases: FloatArray, amounts: FloatArray | int) -> FloatArray:
    """Each consumer's best level against the others' purchases, (B, n); the lowest of several.

    Args:
        game: B markets.
        price: (B,) prices.
        purchases: (B, n) the profile answered.
        amounts: levels, see :func:`grid_levels`.
    """
    levels = grid_levels(game, amounts)
    choice = np.argmax(_level_payoffs(game, price, purchases, levels), axis=2)
    return np.take_along_axis(levels, choice[..., None], axis=2)[..., 0]


def grid_regrets(game: Game, price: FloatArray, purchases: FloatArray, amounts: FloatArray | int) -> FloatArray:
    """Gain (B, n) of each consumer's best deviation on the grid; arguments as in :func:`grid_best_response`."""
    best = _level_payoffs(game, price, purchases, grid_levels(game, amounts)).max(axis=2)
    return np.maximum(best - consumer_payoff(game, price, purchases), 0.0)


def pure_equilibria(game: Game, price: float, amounts: FloatArray | int) -> tuple[FloatArray, FloatArray, bool]:
    """All pure Nash equilibria of the consumers of ONE market on the grid.

    Args:
        game: one market (B = 1).
        price: the posted price.
        amounts: levels, see :func:`grid_levels`.

    Returns:
        profiles (E, n), one per multiset, where of like consumers the first buy most; how many profiles each stands
        for (E,); and whether the enumeration is complete. Indifferent consumers buy the most, as everywhere.
    """
    if game.markets != 1:
        raise ValueError(f"pure_equilibria solves one market at a time, got {game.markets}")
    levels, kappa = grid_levels(game, amounts)[0], game.net_cost(np.array([price]))[0]
    tied = np.abs(kappa) <= TIE_TOLERANCE * np.maximum(1.0, np.abs(game.business_margin[0]))
    kappa = np.where(tied & ~game.miners()[0], 0.0, kappa)
    features = np.column_stack([kappa, game.mining_ratio[0], game.reward[0], levels])
    kinds, first, kind_of = np.unique(features, axis=0, return_index=True, return_inverse=True)
    members = [np.flatnonzero(kind_of.ravel() == k) for k in range(len(kinds))]
    efforts = game.mining_ratio[0, first][:, None] * levels[first]
    low, high = _admissible(kappa[first], game.reward[0, first], efforts, levels[first])
    found: dict[tuple[int, ...], FloatArray] = {}
    complete = _search_stretches(game, price, levels, efforts, members, low, high, found)
    profiles = np.array(list(found.values())).reshape(len(found), game.consumers)
    if len(profiles):
        profiles = np.unique(profiles, axis=0)  # levels may coincide
        batch = game.at(np.zeros(len(profiles), dtype=np.int64))
        worst = grid_regrets(batch, np.full(len(profiles), price), profiles, amounts)
        scale = np.maximum(1.0, np.abs(consumer_payoff(batch, np.full(len(profiles), price), profiles)))
        profiles = profiles[(worst <= TOLERANCE * scale).all(axis=1)]
    counts = [prod(_permutations(profile[m]) for m in members) for profile in profiles]
    return profiles, np.array(counts, dtype=float), complete


def _permutations(values: FloatArray) -> int:
    """In how many orders a multiset can be arranged."""
    _, repeats = np.unique(values, return_counts=True)
    return factorial(values.size) // prod(factorial(int(r)) for r in repeats)


def _admissible(
    kappa: FloatArray, reward: FloatArray, efforts: FloatArray, levels: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Intervals [low, high] of S, (G, L, 2) each, in which a level is a best reply; empty ones have low > high.

    Level a beats b = a - 1 iff reward (alpha_a - alpha_b) >= kappa (F_a - F_b), a quadratic in the rivals' effort X:
    kappa (X + x_a)(X + x_b) <= reward X (x_a - x_b) / (F_a - F_b). The set of such X shrinks as a rises.
    """
    lower, upper = efforts[:, :-1], efforts[:, 1:]
    step = levels[:, 1:] - levels[:, :-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        prize = reward[:, None] * np.where(step > 0, (upper - lower) / step, 0.0)
        cost = kappa[:, None]
        half = 0.5 * (prize / cost - lower - upper)
        root = np.sqrt(half * half - lower * upper)
        far = half + root
        near = np.where(far > 0, lower * upper / far, 0.0)
    possible = (root >= 0) & (far > 0)
    near, far = np.where(possible, near, np.inf), np.where(possible, far, -np.inf)
    willing = np.broadcast_to(cost <= 0, near.shape)
    near, far = np.where(willing, 0.0, near), np.where(willing, np.inf, far)
    edge = np.zeros((efforts.shape[0], 1))
    near, far = np.hstack([edge, near, edge + np.inf]), np.hstack([edge + np.inf, far, edge - np.inf])
    none_above = near[:, 1:] > far[:, 1:]
    low = np.stack([near[:, :-1], np.where(none_above, np.inf, far[:, 1:])], axis=2)
    high = np.stack([np.where(none_above, far[:, :-1], near[:, 1:]), far[:, :-1]], axis=2)
    never = (near[:, :-1] > far[:, :-1])[..., None]
    low, high = np.where(never, np.inf, low), np.where(never, -np.inf, high)
    return low + efforts[..., None], high + efforts[..., None]


def _search_stretches(
    game: Game,
    price: float,
    levels: FloatArray,
    efforts: FloatArray,
    members: list[IntArray],
    low: FloatArray,
    high: FloatArray,
    found: dict[tuple[int, ...], FloatArray],
) -> bool:
    """Collect in ``found`` every selection whose sum lies in the stretch of S that admits it; false if it gave up."""
    sizes = np.array([m.size for m in members])
    least, most = float(sizes @ efforts[:, 0]), float(sizes @ efforts[:, -1])
    slack = 1e-10 * max(most, 1e-300)
    low, high = low - slack, high + slack
    if least <= 0:  # nobody mines at all: outside the calculus above, kept as a candidate and checked like the others
        found[(0,) * game.consumers] = levels[:, 0]
    cuts = np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)], [least - slack, most + slack]])
    cuts = np.unique(np.clip(cuts, least - slack, most + slack))
    left, right = cuts[:-1], cuts[1:]
    middle = (0.5 * (left + right))[:, None, None, None]
    admitted = ((low <= middle) & (middle <= high)).any(axis=3)  # (stretches, kinds, levels)
    smallest = np.where(admitted, efforts, np.inf).min(axis=2) @ sizes
    largest = np.where(admitted, efforts, -np.inf).max(axis=2) @ sizes
    complete = True
    for k in np.flatnonzero((smallest <= right + slack) & (largest >= left - slack)):
        sets = [np.flatnonzero(row) for row in admitted[k]]
        if prod(comb(s.size + int(m) - 1, int(m)) for s, m in zip(sets, sizes, strict=True)) > _MOST:
            complete = False
            continue
        choices = [list(combinations_with_replacement(s[::-1], int(m))) for s, m in zip(sets, sizes, strict=True)]
        sums = [np.array([efforts[g, list(c)].sum() for c in options]) for g, options in enumerate(choices)]
        total = np.zeros(1)
        for part in sums:
            total = np.add.outer(total, part).ravel()
        for hit in np.flatnonzero((total >= left[k] - slack) & (total <= right[k] + slack)):
            where = np.unravel_index(hit, [len(c) for c in choices])
            picked = np.zeros(game.consumers, dtype=np.int64)
            for options, position, who in zip(choices, where, members, strict=True):
                picked[who] = options[int(position)]
            found.setdefault(tuple(picked.tolist()), levels[np.arange(game.consumers), picked])
    return complete


def grid_follower_equilibrium(
    game: Game, price: FloatArray, amounts: FloatArray | int, *, restarts: int = 8, seed: int = 0
) -> GridAnswer:
    """The consumers' play on the grid at posted prices.

    Args:
        game: B markets.
        price: (B,) prices.
        amounts: levels, see :func:`grid_levels`.
        restarts: random starts of the sequential best response that is used where there is no pure equilibrium.
        seed: of those starts.

    Returns:
        The answer. Of several equilibria the one with the largest demand is played, as ties are elsewhere.
    """
    levels = grid_levels(game, amounts)
    count, n = game.markets, game.consumers
    bought, least = np.empty((count, n)), np.empty(count)
    exists, enumerated = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    multisets, profiles = np.zeros(count, dtype=np.int64), np.zeros(count)
    for b in range(count):
        one = game.at(slice(b, b + 1))
        equilibria, repeats, enumerated[b] = pure_equilibria(one, float(price[b]), levels[b])
        exists[b], multisets[b], profiles[b] = len(equilibria) > 0, len(equilibria), repeats.sum()
        if exists[b]:
            demand = equilibria.sum(axis=1)
            bought[b], least[b] = equilibria[np.argmax(demand)], demand.min()
        else:
            bought[b] = _lowest_regret(one, price[b : b + 1], levels[b : b + 1], restarts, seed)
            least[b] = bought[b].sum()
    regret = grid_regrets(game, price, bought, levels)
    payoffs = np.maximum(1.0, np.abs(consumer_payoff(game, price, bought)))
    found = (regret <= TOLERANCE * payoffs).all(axis=1)  # sequential best response may find one where counting gave up
    return GridAnswer(bought, regret, exists | found, enumerated, multisets, profiles, least)


def _lowest_regret(game: Game, price: FloatArray, levels: FloatArray, restarts: int, seed: int) -> FloatArray:
    """The profile (n,) of lowest total regret visited by sequential best response from several starts."""
    rng = np.random.default_rng(seed)
    n, width = levels.shape[1:]
    nearest = np.abs(levels[0] - follower_equilibrium(game, price)[0][:, None]).argmin(axis=1)
    starts = [nearest, np.zeros(n, dtype=np.int64), np.full(n, width - 1), *rng.integers(0, width, (restarts, n))]
    bought = np.stack([levels[0, np.arange(n), s] for s in starts])
    many = game.at(np.zeros(len(starts), dtype=np.int64))
    prices, grids = np.repeat(price, len(starts)), np.repeat(levels, len(starts), axis=0)
    best, lowest = bought[0].copy(), np.inf
    for _ in range(60):
        for i in range(n):
            regret = grid_regrets(many, prices, bought, grids).sum(axis=1)
            if regret.min() < lowest:
                lowest, best = float(regret.min()), bought[int(regret.argmin())].copy()
            bought[:, i] = grid_best_response(many, prices, bought, grids)[:, i]
        if lowest == 0:
            break
    return best


def grid_leader(game: Game, prices: FloatArray | int, amounts: FloatArray | int) -> GridLeader:
    """The provider's best grid price against the consumers' grid equilibrium.

    Args:
        game: B markets.
        prices: (P,) or (B, P) prices, or the number P of equally spaced ones.
        amounts: levels, see :func:`grid_levels`.

    Returns:
        The solution; of several best prices (relative 1e-9) the lowest.
    """
    if isinstance(prices, (int, np.integer)):
        prices = (
            game.price_low[:, None] + np.linspace(0.0, 1.0, int(prices)) * (game.price_high - game.price_low)[:, None]
        )
    prices = np.array(np.broadcast_to(prices, (game.markets, np.shape(prices)[-1])), dtype=float)
    count = prices.shape[1]
    owner = np.repeat(np.arange(game.markets), count)
    levels = grid_levels(game, amounts)
    answer = grid_follower_equilibrium(game.at(owner), prices.ravel(), levels[owner])
    margin = prices - game.unit_cost[:, None]
    demand, least = answer.purchases.sum(axis=1).reshape(prices.shape), answer.least.reshape(prices.shape)
    values, lowest = margin * demand, np.minimum(margin * demand, margin * least)
    best = values.max(axis=1, keepdims=True)
    position = np.argmax(values >= best - TOLERANCE * np.abs(best), axis=1)
    rows = np.arange(game.markets)
    return GridLeader(
        price=prices[rows, position],
        position=position,
        value=values[rows, position],
        values=values,
        lowest_values=lowest,
        purchases=answer.purchases.reshape(game.markets, count, game.consumers),
        regret=answer.regret.sum(axis=1).reshape(prices.shape),
        exists=answer.exists.reshape(prices.shape),
        enumerated=answer.enumerated.reshape(prices.shape),
    )
