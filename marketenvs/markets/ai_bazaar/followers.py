"""The consumers' game at a posted price: payoffs, best responses, and its Nash equilibrium by three methods.

Consumers meet only through the total mining effort S = sum_j beta_j F_j, so the equilibrium is one number per market:
with x_i = beta_i F_i and r_i = kappa_i / (beta_i R_i), every consumer's effort is its *share function*
``x_i(S) = clip(S - r_i S^2, beta_i F_min, beta_i F_max)`` and the equilibrium solves sum_i x_i(S) = S. The shares
x_i(S) / S do not increase in S, so the solution is unique whenever there is a contest (two miners, or one miner beside
a consumer whose effort is fixed).

Inside this module arrays are laid out consumers first, (n, M), so that sums over few consumers are fast.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .game import TIE_TOLERANCE, BoolArray, FloatArray, Game

_EPS = float(np.finfo(float).eps)
_CHUNK = 8192  # columns solved together: keeps the temporaries in the processor's cache


class Contest(NamedTuple):
    """The follower games of M (market, price) pairs in effort space; arrays (n, M).

    A consumer whose purchase does not depend on the others has ``low == high``: then its clipped share function is the
    constant it should be, and the solvers need no special case for it.
    """

    cost: FloatArray  # r_i, 0 where the purchase is fixed
    low: FloatArray  # beta_i F_min
    high: FloatArray  # beta_i F_max
    fixed: BoolArray
    purchase: FloatArray  # the purchase of a fixed consumer
    linear: BoolArray  # fixed because its payoff is linear (no miner, or a miner without rivals): jumps at K_i / u_i
    unattained: BoolArray  # a lone miner that wants the smallest positive amount, and F_min = 0


def build_contest(game: Game, price: FloatArray, *, ties_buy: bool = True) -> Contest:
    """Reduce the follower game to effort space.

    Args:
        game: B markets.
        price: (B,) or (B, P) prices, money per unit.
        ties_buy: whether an indifferent consumer buys F_max (the rule) or, if it pays at all, F_min (the limit as
            the price falls to the tie).

    Returns:
        The contest, columns in C order of ``price``.
    """
    per_market = int(price.size // max(game.markets, 1))

    def column(field: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(field.T, per_market, axis=1) if per_market != 1 else np.ascontiguousarray(field.T)

    weight, margin, beta = (column(f) for f in (game.payment_weight, game.business_margin, game.mining_ratio))
    purchase_low, purchase_high, reward = (column(f) for f in (game.purchase_low, game.purchase_high, game.reward))
    kappa = weight * price.reshape(1, -1) - margin
    prize = beta * reward
    low, high = beta * purchase_low, beta * purchase_high
    miner = column(game.miners())
    tie = TIE_TOLERANCE * np.maximum(1.0, np.abs(margin))
    wants_all = kappa <= (tie if ties_buy else np.where(weight > 0, -tie, tie))
    linear = ~miner
    contenders = miner.sum(axis=0)
    if (contenders == 1).any():
        idle_effort = np.where(linear, np.where(wants_all, high, low), 0.0).sum(axis=0)
        linear = linear | (miner & (contenders == 1) & (idle_effort == 0))
    dominated = miner & ~linear & (kappa <= 0)
    fixed = linear | dominated
    purchase = np.where(np.where(linear, wants_all, dominated), purchase_high, purchase_low)
    effort = beta * purchase
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        cost = np.where(fixed, 0.0, kappa / prize)
    return Contest(
        cost=cost,
        low=np.where(fixed, effort, low),
        high=np.where(fixed, effort, high),
        fixed=fixed,
        purchase=purchase,
        linear=linear,
        unattained=miner & linear & ~wants_all & (low <= 0),
    )


def _bracket(contest: Contest) -> tuple[FloatArray, FloatArray]:
    """Bounds of the equilibrium effort S, (M,) each; the lower one is positive wherever there is a contest."""
    lower, upper = contest.low.sum(axis=0), contest.high.sum(axis=0)
    if (lower <= 0).any() and contest.cost.shape[0] > 1:
        # All minima are zero: the two cheapest miners alone already demand more than S below this.
        cheapest = np.partition(np.where(contest.fixed, np.inf, contest.cost), 1, axis=0)[:2].sum(axis=0)
        room = np.where(contest.fixed, np.inf, contest.high).min(axis=0)
        with np.errstate(divide="ignore"):
            floor = np.minimum(np.where(np.isfinite(cheapest), 1 / cheapest, 0.0), room)
        lower = np.where(lower <= 0, floor, lower)
    return np.minimum(lower, upper), upper


def active_set_effort(cost: FloatArray, inside: BoolArray, effort: FloatArray) -> FloatArray:
    """Solve sum_i x_i = S exactly for a given active set.

    With n active consumers of total cost A = sum r_i and X the effort of the others, n - A S + X / S = 1, so
    S = (n - 1 + sqrt((n - 1)^2 + 4 A X)) / (2 A), and S = X where nobody is active.

    Args:
        cost: (n, M) r_i.
        inside: (n, M) which consumers are active.
        effort: (n, M) efforts; only those of inactive consumers are read.

    Returns:
        (M,) total effort S.
    """
    excess = inside.sum(axis=0) - 1.0
    total_cost = np.where(inside, cost, 0.0).sum(axis=0)
    rest = np.where(inside, 0.0, effort).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        interior = (excess + np.sqrt(excess * excess + 4 * total_cost * rest)) / (2 * total_cost)
    return np.where(excess >= 0, interior, rest)


def solve_effort(contest: Contest, start: FloatArray | None = None) -> FloatArray:
    """Equilibrium effort by bracketed active-set steps.

    Each step evaluates the excess effort at S, shrinks the bracket, and proposes the exact solution for the active set
    found at S; every fourth step, and whenever the proposal leaves the bracket, it bisects (geometrically) instead.
    A market is done when its proposal reproduces S: then S is exact for its own active set.

    Args:
        contest: M contests.
        start: (M,) first guesses, used where they lie in the bracket.

    Returns:
        (M,) S.
    """
    lower, upper = _bracket(contest)
    total = upper.copy()
    with np.errstate(invalid="ignore"):
        guess = np.sqrt(lower) * np.sqrt(upper) if start is None else start
        pending = np.flatnonzero(upper - lower > 4 * _EPS * upper)
        total[pending] = np.where((guess > lower) & (guess < upper), guess, np.sqrt(lower) * np.sqrt(upper))[pending]
    if pending.size == 0:
        return total
    everything = pending.size == total.size
    c, lo, hi = (f if everything else f[:, pending] for f in (contest.cost, contest.low, contest.high))
    lower, upper, here = lower[pending], upper[pending], total[pending]
    for step in range(1, 400):
        share = here * (1 - c * here)
        inside = (share > lo) & (share < hi)
        effort = np.minimum(np.maximum(share, lo), hi)
        excess = effort.sum(axis=0) - here
        lower = np.where(excess >= 0, here, lower)
        upper = np.where(excess <= 0, here, upper)
        proposal = active_set_effort(c, inside, effort)
        done = (np.abs(proposal - here) <= 4 * _EPS * here) | (upper - lower <= 4 * _EPS * upper)
        middle = np.sqrt(lower) * np.sqrt(upper)
        usable = (proposal >= lower) & (proposal <= upper)  # S may be an end of the bracket: everybody at a bound
        following = middle if step % 4 == 0 else np.where(usable, proposal, middle)
        if done.any():
            total[pending[done]] = np.where(usable | (proposal == here), proposal, here)[done]
            keep = ~done
            if not keep.any():
                return total
            c, lo, hi = c[:, keep], lo[:, keep], hi[:, keep]
            pending, lower, upper, following = pending[keep], lower[keep], upper[keep], following[keep]
        here = following
    raise RuntimeError("the follower equilibrium did not settle; this is a defect, please report the market")


def solve_effort_sorted(contest: Contest) -> FloatArray:
    """Equilibrium effort without iteration tolerance: O(n log n).

    Each share function is piecewise: it changes form at the at most four S with S - r_i S^2 in {low_i, high_i}. Those
    4 n points are sorted, the excess effort's sign change among them is found by binary search (it is monotone after
    division by S), and the active set in between gives S by its quadratic.

    Args:
        contest: M contests.

    Returns:
        (M,) S.
    """
    lower, upper = _bracket(contest)
    points = [np.broadcast_to(lower, contest.cost.shape), np.broadcast_to(upper, contest.cost.shape)]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for bound in (contest.low, contest.high):
            root = np.sqrt(1 - 4 * contest.cost * bound)  # NaN where the parabola stays below the bound
            points += [2 * bound / (1 + root), (1 + root) / (2 * contest.cost)]
        stacked = np.concatenate([np.where(np.isfinite(p), p, lower) for p in points])
    stacked = np.sort(np.clip(stacked, lower, upper), axis=0)

    def excess(at: FloatArray) -> FloatArray:
        share = at * (1 - contest.cost * at)
        return np.clip(share, contest.low, contest.high).sum(axis=0) - at

    first = np.zeros(lower.shape, dtype=np.int64)
    last = np.full(lower.shape, stacked.shape[0] - 1, dtype=np.int64)
    while (last - first > 1).any():
        middle = (first + last) // 2
        positive = excess(np.take_along_axis(stacked, middle[None], axis=0)[0]) >= 0
        first, last = np.where(positive, middle, first), np.where(positive, last, middle)
    left = np.take_along_axis(stacked, first[None], axis=0)[0]
    right = np.take_along_axis(stacked, last[None], axis=0)[0]
    centre = np.sqrt(left) * np.sqrt(right)
    share = centre * (1 - contest.cost * centre)
    inside = (share > contest.low) & (share < contest.high)
    total = active_set_effort(contest.cost, inside, np.clip(share, contest.low, contest.high))
    return np.clip(total, left, right)


def purchases_at(game: Game, contest: Contest, total: FloatArray) -> FloatArray:
    """Purchases (n, M) that go with the effort ``total``, (M,) or one per consumer (n, M); M / B columns per market."""
    per_market = total.shape[-1] // max(game.markets, 1)
    fields = (game.purchase_low, game.purchase_high, game.mining_ratio)
    low, high, beta = (np.repeat(f.T, per_market, axis=1) if per_market != 1 else f.T for f in fields)
    effort = np.clip(total * (1 - contest.cost * total), contest.low, contest.high)
    with np.errstate(divide="ignore", invalid="ignore"):
        bought = np.clip(effort / beta, low, high)
    return np.where(contest.fixed, contest.purchase, bought)


def follower_equilibrium(
    game: Game, price: FloatArray, *, method: str = "active_set", attained: bool = False
) -> FloatArray:
    """Nash equilibrium of the consumers at posted prices.

    Args:
        game: B markets.
        price: (B,) prices, money per unit.
        method: ``"active_set"`` (bisection with exact active-set steps), ``"sorted"`` (breakpoints, O(n log n)) or
            ``"damped"`` (damped best response: slow, an independent check).
        attained: if true, NaN marks the markets where :func:`equilibrium_attained` is false.

    Returns:
        (B, n) purchases. Consumers without a contest buy F_max if kappa_i <= 0 (ties included), else F_min.

    Raises:
        ValueError: unknown method, or a price that is not finite or not of shape (B,).
    """
    price = _check_price(game, price)
    if method == "damped":
        bought = damped_best_response(game, price)
    elif method in ("active_set", "sorted"):
        solver = solve_effort if method == "active_set" else solve_effort_sorted
        bought = np.empty(game.payment_weight.shape)
        chunk = max(1, _CHUNK * 10 // max(game.consumers, 1))
        for begin in range(0, game.markets, chunk):
            part = game.at(slice(begin, begin + chunk))
            contest = build_contest(part, price[begin : begin + chunk])
            bought[begin : begin + chunk] = purchases_at(part, contest, solver(contest)).T
    else:
        raise ValueError(f"method must be 'active_set', 'sorted' or 'damped', got {method!r}")
    if attained:
        bought = np.where(equilibrium_attained(game, price)[:, None], bought, np.nan)
    return bought


def follower_equilibrium_sorted(game: Game, price: FloatArray) -> FloatArray:
    """:func:`follower_equilibrium` by sorted breakpoints, O(n log n) per market; the choice for very many consumers.

    Args:
        game: B markets.
        price: (B,) prices.

    Returns:
        (B, n) purchases.
    """
    return follower_equilibrium(game, price, method="sorted")


def equilibrium_attained(game: Game, price: FloatArray) -> BoolArray:
    """Whether the followers' game has an equilibrium at all, (B,).

    It has none only where one miner meets no other effort, mining costs it (kappa > 0) and it may buy nothing
    (F_min = 0): any positive amount wins the whole reward, so there is no smallest best amount.
    """
    return np.asarray(~build_contest(game, _check_price(game, price)).unattained.any(axis=0))


def damped_best_response(
    game: Game, price: FloatArray, *, damping: float = 0.15, tolerance: float = 1e-13, limit: int = 20_000
) -> FloatArray:
    """The equilibrium by damped simultaneous best response, F <- F + damping (BR(F) - F); uses no share function.

    Args:
        game: B markets.
        price: (B,) prices.
        damping: step in (0, 1]. Undamped (1.0) iteration diverges for five or more like consumers.
        tolerance: stop when no purchase moves by more than this, relative to the market's largest.
        limit: most iterations.

    Returns:
        (B, n) purchases.
    """
    bought = (game.purchase_low + game.purchase_high) / 2
    for _ in range(limit):
        step = damping * (best_response(game, price, bought) - bought)
        bought = bought + step
        if (np.abs(step) <= tolerance * bought.max(axis=1, keepdims=True)).all():
            break
    return bought


def mining_shares(game: Game, purchases: FloatArray) -> FloatArray:
    """alpha_i = x_i / S, (B, n), equation (1); 0 for everyone where nobody mines."""
    effort = game.mining_ratio * purchases
    total = effort.sum(axis=1, keepdims=True)
    return np.where(total > 0, effort / np.where(total > 0, total, 1.0), 0.0)


def consumer_payoff(game: Game, price: FloatArray, purchases: FloatArray) -> FloatArray:
    """U_i = F_i (K_i - u_i p) + R_i x_i / S, tokens, (B, n), equation (5).

    Args:
        game: B markets.
        price: (B,) prices.
        purchases: (B, n) units.

    Returns:
        (B, n) payoffs.
    """
    return -game.net_cost(price) * purchases + game.reward * mining_shares(game, purchases)


def provider_payoff(game: Game, price: FloatArray, purchases: FloatArray) -> FloatArray:
    """U_cpp = (p - C) sum_i F_i, money, (B,), equation (4)."""
    return (price - game.unit_cost) * purchases.sum(axis=1)


def _rival_effort(game: Game, purchases: FloatArray) -> FloatArray:
    """X_-i, (B, n): by running sums from both ends, so that no cancellation hides small rivals."""
    effort = game.mining_ratio * purchases
    before, after = np.zeros_like(effort), np.zeros_like(effort)
    before[:, 1:] = np.cumsum(effort, axis=1)[:, :-1]
    after[:, :-1] = np.cumsum(effort[:, :0:-1], axis=1)[:, ::-1]
    return before + after


def best_response(game: Game, price: FloatArray, purchases: FloatArray) -> FloatArray:
    """Each consumer's best purchase against the others', (B, n): equations (12), (13) with every edge case.

    kappa_i > 0 and rivals with effort X: F = sqrt(R_i X / (beta_i kappa_i)) - X / beta_i, clipped. Otherwise the payoff
    is monotone in F_i: F_max if kappa_i <= 0 (ties included), F_min if not.

    Args:
        game: B markets.
        price: (B,) prices.
        purchases: (B, n) the profile answered.

    Returns:
        (B, n) purchases. A lone miner with kappa > 0 and F_min = 0 has no best answer; F_min is returned for it.
    """
    kappa = game.net_cost(price)
    rivals = _rival_effort(game, purchases)
    prize = game.mining_ratio * game.reward
    contested = game.miners() & (rivals > 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        stationary = (np.sqrt(prize * rivals / kappa) - rivals) / game.mining_ratio
        interior = np.clip(stationary, game.purchase_low, game.purchase_high)
    threshold = np.where(contested, 0.0, TIE_TOLERANCE * np.maximum(1.0, np.abs(game.business_margin)))
    linear = np.where(kappa <= threshold, game.purchase_high, game.purchase_low)
    return np.where(contested & (kappa > 0), interior, linear)


def regrets(game: Game, price: FloatArray, purchases: FloatArray) -> FloatArray:
    """What each consumer could still gain by deviating alone, (B, n), exact and never negative.

    Args:
        game: B markets.
        price: (B,) prices.
        purchases: (B, n) the profile judged.

    Returns:
        (B, n) sup_F U_i(F, F_-i) - U_i. A lone miner that may buy nothing is judged against the supremum R_i.
    """
    beta, kappa, rivals = game.mining_ratio, game.net_cost(price), _rival_effort(game, purchases)

    def payoff(amount: FloatArray) -> FloatArray:
        effort = beta * amount
        total = effort + rivals
        return -kappa * amount + game.reward * np.where(total > 0, effort / np.where(total > 0, total, 1.0), 0.0)

    best = payoff(best_response(game, price, purchases))
    lone = (rivals <= 0) & (beta * game.purchase_high > 0) & (game.purchase_low <= 0)
    best = np.where(lone & (kappa > 0), np.maximum(best, game.reward), best)
    return np.maximum(best - payoff(purchases), 0.0)


def _check_price(game: Game, price: FloatArray) -> FloatArray:
    price = np.asarray(price, dtype=float)
    if price.ndim == 0:
        price = np.full(game.markets, float(price))
    if price.shape != (game.markets,):
        raise ValueError(f"price must have shape ({game.markets},), one per market, got {price.shape}")
    if not np.isfinite(price).all():
        raise ValueError("price holds NaN or an infinity")
    return price
