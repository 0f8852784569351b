"""AI-Bazaar's oracles on a thousand markets in one call, beside a loop that solves one market after the other with SciPy.

The loop is what one would write: Brent's method on total effort for the consumers' game (vectorised over a market's consumers), and for
the provider a grid of prices with bounded Brent searches around the best three, every price answered by the consumers' game. Both sides are
checked to agree before they are timed, and take turns. Our calls certify what they return; the loop does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from scipy import optimize

import marketenvs

MARKETS = 1000
SIZES = (10, 100, 1000, 10_000, 100_000)
_GRID = 41


def _consumers(t: dict[str, np.ndarray], b: int) -> tuple[np.ndarray, ...]:
    names = ("mining_ratio", "payment_weight", "margin", "reward", "purchase_min", "purchase_max")
    return tuple(t[name][b] for name in names)


def scipy_followers(t: dict[str, np.ndarray], b: int, price: float) -> np.ndarray:
    """Purchases (n,) of one market at a price by Brent's method on total effort (all consumers mine)."""
    beta, weight, margin, reward, least, most = _consumers(t, b)
    cost = (weight * price - margin) / (beta * reward)
    low, high = beta * least, beta * most

    def efforts(total: float) -> np.ndarray:
        return np.where(cost > 0, np.clip(total - cost * total * total, low, high), high)

    lower, upper = low.sum(), high.sum()
    found = optimize.brentq(lambda s: efforts(s).sum() - s, lower, upper, xtol=1e-12, rtol=1e-14)
    return efforts(found) / beta


def generic_followers(t: dict[str, np.ndarray], b: int, price: float, sweeps: int = 200) -> np.ndarray:
    """Purchases (n,) of one market without knowing its structure: best responses in turn, each by a bounded scalar search."""
    beta, weight, margin, reward, least, most = _consumers(t, b)
    bought = 0.5 * (least + most)
    for _ in range(sweeps):
        before = bought.copy()
        for i in range(len(bought)):
            rivals = float((beta * bought).sum() - beta[i] * bought[i])

            def loss(f: float, i: int = i, rivals: float = rivals) -> float:
                return -f * (margin[i] - weight[i] * price) - reward[i] * beta[i] * f / (beta[i] * f + rivals)

            bought[i] = optimize.minimize_scalar(
                loss, bounds=(least[i], most[i]), method="bounded", options={"xatol": 1e-7}
            ).x
        if np.abs(bought - before).max() < 1e-5:
            return bought
    return bought


def scipy_leader(t: dict[str, np.ndarray], b: int) -> tuple[float, float]:
    """Price and profit of one provider: a grid, and bounded searches around its best three points."""
    low, high, cost = float(t["price_min"][b, 0]), float(t["price_max"][b, 0]), float(t["unit_cost"][b, 0])

    def loss(price: float) -> float:
        return -(price - cost) * float(scipy_followers(t, b, price).sum())

    grid = np.linspace(low, high, _GRID)
    losses = np.array([loss(p) for p in grid])
    best, where = float(losses.min()), float(grid[losses.argmin()])
    step = grid[1] - grid[0]
    for at in np.argsort(losses)[:3]:
        inside = (max(low, grid[at] - step), min(high, grid[at] + step))
        found = optimize.minimize_scalar(loss, bounds=inside, method="bounded", options={"xatol": 1e-9})
        if found.fun < best:
            best, where = float(found.fun), float(found.x)
    return where, -best


def _cpu(function: Callable[[], Any]) -> float:
    begun = time.process_time()
    function()
    return time.process_time() - begun


def compare(repeats: int = 5, loop_markets: int = 40, markets: int = MARKETS) -> list[dict[str, Any]]:
    """Seconds (CPU) per thousand markets of both sides, with their ratio.

    Args:
        repeats: Interleaved repeats.
        loop_markets: Markets that SciPy's leader loop solves (its time is scaled to all of them; the followers' loop solves all).
        markets: Markets in one call.

    Raises:
        RuntimeError: The two sides disagree.
    """
    market = marketenvs.make("AIBazaar-v0", preset="drawn")
    state = market.reset(seed=0, batch=markets)
    t = {k: np.broadcast_to(v, (markets, v.shape[1])) for k, v in state.theta._asdict().items() if v.ndim == 2}
    price = np.random.default_rng(0).uniform(11.0, 19.0, markets)

    def ours_follow() -> Any:
        return market.respond(state, {"provider": price[:, None]})

    def loop_follow() -> np.ndarray:
        return np.stack([scipy_followers(t, b, float(price[b])) for b in range(markets)])

    few = max(1, min(5, loop_markets))

    def generic_follow() -> np.ndarray:
        return np.stack([generic_followers(t, b, float(price[b])) for b in range(few)])

    def ours_lead() -> Any:
        market._leader_memo = None  # type: ignore[attr-defined]  # it remembers the last solution: solve it again
        return market.equilibrium(state)

    def loop_lead() -> np.ndarray:
        return np.array([scipy_leader(t, b) for b in range(loop_markets)])

    answer, reference = ours_follow(), loop_follow()
    if not np.allclose(answer.actions["purchase"][:, :, 0], reference, rtol=1e-6, atol=1e-6):
        raise RuntimeError("the consumers' game: our oracle and the SciPy loop disagree")
    if not np.allclose(generic_follow(), reference[:few], rtol=1e-3, atol=1e-2):
        raise RuntimeError("the consumers' game: best responses in turn and the SciPy loop disagree")
    solution, found = ours_lead(), loop_lead()
    worth = solution.values["provider"][:loop_markets, 0]
    if not np.all(worth >= found[:, 1] * (1 - 1e-9)):
        raise RuntimeError("the provider's price: the SciPy loop found a better one than our oracle")
    missed = int(np.sum(found[:, 1] < worth * (1 - 1e-6)))
    missing = f"the loop missed the optimum in {missed} of {loop_markets}"
    out = []
    for name, ours, loop, scale, note in (
        ("consumers' game, loop: Brent on total effort", ours_follow, loop_follow, 1.0, "equal purchases"),
        ("consumers' game, loop: best responses in turn", ours_follow, generic_follow, markets / few, "equal to 1e-3"),
        ("provider's price, loop: grid and bounded Brent", ours_lead, loop_lead, markets / loop_markets, missing),
    ):  # fmt: skip
        pairs = [(_cpu(ours), _cpu(loop) * scale) for _ in range(repeats)]
        mine, theirs = (float(np.median([p[i] for p in pairs])) for i in (0, 1))
        out.append({
            "oracle": name, "markets": markets, "ours_s": mine, "scipy_loop_s": theirs,
            "ratio": float(np.median([b / a for a, b in pairs])), "note": note,
            "certified": float(np.mean(ours().certified)),
        })  # fmt: skip
    return out


def growth(repeats: int = 3, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """CPU seconds of one market's follower game with N consumers drawn as in the preset ``drawn``: certified, and the solver alone."""
    from marketenvs.markets.ai_bazaar import followers, solve

    out = []
    for n in sizes:
        market = marketenvs.make("AIBazaar-v0", preset="drawn", n_consumers=n, observation="own")
        state = market.reset(seed=0)
        game, price = solve.game_of(cast(Any, market), state), np.array([15.0])
        begun = [
            (
                _cpu(partial(market.respond, state, {"provider": 15.0})),
                _cpu(partial(followers.follower_equilibrium, game, price)),
            )
            for _ in range(repeats)
        ]
        answer = market.respond(state, {"provider": 15.0})
        out.append({
            "consumers": n, "respond_s": float(np.median([b[0] for b in begun])),
            "solver_s": float(np.median([b[1] for b in begun])), "certified": bool(answer.certified.all()),
        })  # fmt: skip
    return out
