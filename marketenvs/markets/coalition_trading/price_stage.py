"""The sellers' stage: which solver a market's prices need, and its equilibrium as a strategy.

Symmetric sellers: exact (`pricing`). Two sellers of unequal capacity: exact where the construction certifies itself
(`duopoly`). Matching: separate monopolies. Price grids: matrix games for two sellers. Everything else is searched on a
grid and returned with its epsilon, never certified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...strategy import Pure, Samples, Strategy
from . import grid
from .coalitions import Floats
from .duopoly import duopoly_equilibrium
from .games import MIXED, REGIMES, Game, PriceEquilibrium, make_game
from .mixing import distribution, quantile
from .pricing import price_equilibrium
from .values import Curves, coalition_value
from .view import Units, View, follow

if TYPE_CHECKING:
    from .rules import CoalitionTrading


class PriceStage(NamedTuple):
    """Equilibrium prices of R markets at given coalitions.

    Attributes:
        strategy: of all sellers; `Pure`, `Samples` or `PriceMixture`.
        prices: pure prices (R, M), or None where any market mixes.
        profit: expected profits, $, (R, M).
        gross: expected value less bill of every served slot, $, (R, Z).
        quantity: expected PRBs traded, (R,).
        mean_price: expected posted prices, (R, M).
        epsilon: largest gain of a seller, (R,).
        kind: "exact" or "estimate".
        method: how.
        regime: names of the regimes, (R,).
    """

    strategy: Strategy
    prices: Floats | None
    profit: Floats
    gross: Floats
    quantity: Floats
    mean_price: Floats
    epsilon: Floats
    kind: str
    method: str
    regime: NDArray[np.str_]


@dataclass(frozen=True)
class PriceMixture(Strategy):
    """Independent price distributions of M sellers in R markets (R = 1 serves any number).

    Args:
        sample: uniforms (R, k, M) to prices (R, k, M).
        chances: prices (R, k) to the probabilities of a seller being below and exactly at them, each (R, M, k).
        support: lowest and highest price, (R,) each.
        alike: whether all sellers have the same distribution, capacity and cost.
    """

    sample: Callable[[Floats], Floats]
    chances: Callable[[Floats], tuple[Floats, Floats]]
    support: tuple[Floats, Floats]
    alike: bool = False

    def draw(self, uniforms: Floats) -> Floats:
        """Prices (B, M, 1) from uniforms (B, M)."""
        u = uniforms if uniforms.ndim == 2 else uniforms[..., 0]
        rows = self.support[0].size
        wide = u[None] if rows == 1 else u[:, None, :]
        return self.sample(wide).reshape(*u.shape, 1)

    def draw_many(self, uniforms: Floats) -> Floats:
        """Prices (D, B, M, 1) from uniforms (D, B, M), in one pass."""
        rows = self.support[0].size
        wide = uniforms.reshape(1, -1, uniforms.shape[2]) if rows == 1 else np.swapaxes(uniforms, 0, 1)
        found = self.sample(wide)
        found = found.reshape(uniforms.shape) if rows == 1 else np.swapaxes(found, 0, 1)
        return found[..., None]

    def cdf(self, price: Floats) -> Floats:
        """Distribution functions (R, M, k) at prices (R, k)."""
        below, at = self.chances(price)
        return below + at

    def quantiles(self, count: int) -> Floats:
        """Mid-quantiles of every seller, (R, count, M)."""
        u = (np.arange(count) + 0.5) / count
        return self.sample(np.broadcast_to(u[:, None], (self.support[0].size, count, self.sellers)))

    @property
    def sellers(self) -> int:
        """M."""
        return self.chances(self.support[0][:, None])[0].shape[1]


def symmetric_mixture(game: Game, found: PriceEquilibrium) -> PriceMixture:
    """The symmetric equilibrium as a strategy (pure rows are point masses)."""
    m = game.sellers

    def sample(u: Floats) -> Floats:
        return quantile(game, found, u.reshape(u.shape[0], -1)).reshape(u.shape)

    def chances(price: Floats) -> tuple[Floats, Floats]:
        upto = distribution(game, found, price)
        floor = (price == game.low[:, None]) * found.atom[:, None]
        point = (found.regime < MIXED)[:, None] & (price == found.high_price[:, None])
        at = np.where(point, 1.0, floor)
        return tuple(np.repeat(x[:, None, :], m, axis=1) for x in (upto - at, at))  # type: ignore[return-value]

    return PriceMixture(sample, chances, (found.low_price, found.high_price), alike=True)


def _identical(values: Floats) -> bool:
    return bool(np.all(values == values[:, :1]))


def solve_prices(market: CoalitionTrading, v: View, units: Units | None) -> PriceStage:
    """Equilibrium prices of R markets; see the module docstring for the cases."""
    p = market.params
    if p.price_levels is not None:
        return _on_grid(market, v, units, p.price_levels)
    if units is not None:
        found = _searched(market, v, units)
        return found._replace(method="continuous prices against purchases in units: grid search with a finer check")
    if p.selection == "matching":
        return _monopolies(market, v)
    pooled = v.served.any(axis=1)
    if _identical(v.room) and _identical(v.cost):
        stage = _symmetric(v, pooled)
        return stage if p.selection == "winner" else _checked(market, v, stage)
    if p.n_sellers == 2 and _identical(v.cost) and p.selection == "winner":
        exact = _two(v, pooled)
        return exact if exact is not None else _searched(market, v, None)
    return _searched(market, v, None)


def _continuous(v: View, member: Any) -> tuple[Game, PriceEquilibrium]:
    game = make_game(v.curves, member, v.room.shape[1], v.room[:, 0], v.cost[:, 0], v.low, v.high)
    return game, price_equilibrium(game)


def _symmetric(v: View, member: Any) -> PriceStage:
    game, found = _continuous(v, member)
    pure = not np.any(found.regime >= MIXED)
    m = v.room.shape[1]
    prices = np.repeat(found.high_price[:, None], m, axis=1) if pure else None
    strategy: Strategy = Pure(prices[:, :, None]) if prices is not None else symmetric_mixture(game, found)
    return PriceStage(
        strategy,
        prices,
        np.repeat(found.profit[:, None], m, axis=1),
        found.surplus[:, None],
        found.quantity,
        np.repeat(found.mean_price[:, None], m, axis=1),
        found.epsilon,
        "exact",
        "Bertrand-Edgeworth with ironed distributions; certified on a closed candidate set",
        np.array(REGIMES)[found.regime],
    )


def _two(v: View, member: Any) -> PriceStage | None:
    game = make_game(v.curves, member, 2, v.room[:, 0], v.cost[:, 0], v.low, v.high)
    found = duopoly_equilibrium(game, v.room)
    if np.any(found.epsilon > 1e-9 * np.maximum(1.0, found.profit.max(axis=1))):
        return None
    pure = not np.any(found.regime >= MIXED)
    prices = np.repeat(found.high_price[:, None], 2, axis=1) if pure else None

    def chances(price: Floats) -> tuple[Floats, Floats]:
        upto = np.swapaxes(found.cdf(price), 1, 2)
        at = (price == found.high_price[:, None])[:, None, :] * found.atom[:, :, None]
        return upto - at, at

    mixture = PriceMixture(found.sample, chances, (found.low_price, found.high_price))
    return PriceStage(
        Pure(prices[:, :, None]) if prices is not None else mixture,
        prices,
        found.profit,
        found.surplus[:, None],
        found.quantity.sum(axis=1),
        found.mean_price,
        found.epsilon,
        "exact",
        "asymmetric Bertrand-Edgeworth duopoly; certified on a closed candidate set",
        np.array(REGIMES)[found.regime],
    )


def _settled(market: CoalitionTrading, v: View, prices: Floats, units: Units | None) -> tuple[Floats, Floats, Floats]:
    """Profits (R, M), value less bill by slot (R, Z) and PRBs traded (R,) when followers answer pure prices."""
    bought = follow(market, v, prices[:, None, :], units)[:, 0]
    total = bought.sum(axis=2)
    if units is not None:
        index = np.round(total[:, :1] / units.size[:, None]).astype(int)
        value = np.take_along_axis(units.table, index, axis=1)
    else:
        curves = Curves(*(f[:, None, :] for f in v.curves))
        value = coalition_value(curves, v.served, total)
    bill = np.sum(bought * prices[:, None, :], axis=2)
    return (prices - v.cost) * bought.sum(axis=1), value - bill, total.sum(axis=1)


def _pure_stage(
    market: CoalitionTrading, v: View, prices: Floats, units: Units | None, gap: Floats, kind: str, how: str
) -> PriceStage:
    profit, gross, quantity = _settled(market, v, prices, units)
    regime = np.full(v.rows, "monopoly" if prices.shape[1] == 1 else "pure")
    return PriceStage(Pure(prices[:, :, None]), prices, profit, gross, quantity, prices, gap, kind, how, regime)


def _monopolies(market: CoalitionTrading, v: View) -> PriceStage:
    """Matching: seller k alone faces the coalition of rank k; sellers without one post the highest price."""
    prices = np.repeat(v.high[:, None], v.room.shape[1], axis=1)
    for place in range(min(v.room.shape[1], v.served.shape[1])):
        member = np.any(v.served & (v.rank == place)[:, :, None], axis=1)
        game = make_game(v.curves, member, 1, v.room[:, place], v.cost[:, place], v.low, v.high)
        found = price_equilibrium(game)
        prices[:, place] = np.where(member.any(axis=1), found.high_price, v.high)
    return _pure_stage(
        market, v, prices, None, np.zeros(v.rows), "exact", "separate monopolies, piecewise exact search"
    )


def _checked(market: CoalitionTrading, v: View, stage: PriceStage) -> PriceStage:
    """Several coalitions served in turn: the pooled-demand equilibrium, with the gain found against the true rationing."""
    if stage.prices is None:
        n = 200
        draws = stage.strategy.quantiles(n)  # type: ignore[attr-defined]
        rng = np.random.default_rng(0)
        joint = np.stack([draws[:, rng.permutation(n), m] for m in range(draws.shape[2])], axis=2)
    else:
        joint = stage.prices[:, None, :]
    fine = np.linspace(0.0, 1.0, 81)
    trial = v.low[:, None] + (v.high - v.low)[:, None] * fine
    chokes = np.clip(v.curves.choke_price, v.low[:, None], v.high[:, None])
    trial = np.concatenate([trial, chokes, joint[:, :12, 0], joint[:, :12, 0] - 1e-9], axis=1)
    trial = np.clip(trial, v.low[:, None], v.high[:, None])
    wide = np.repeat(joint[:, None], trial.shape[1], axis=1)
    wide[..., 0] = trial[:, :, None]
    shape = wide.shape
    sold = follow(market, v, wide.reshape(shape[0], -1, shape[3]), None).sum(axis=2)[..., 0].reshape(shape[:3])
    best = ((trial - v.cost[:, :1])[..., None] * sold).mean(axis=2).max(axis=1)
    here = follow(market, v, joint, None)
    profit = ((joint - v.cost[:, None, :]) * here.sum(axis=2)).mean(axis=1)
    curves = Curves(*(f[:, None, None, :] for f in v.curves))
    value = coalition_value(curves, v.served[:, None], here.sum(axis=3))
    gross = (value - np.sum(here * joint[:, :, None, :], axis=3)).mean(axis=1)
    return stage._replace(
        profit=profit,
        gross=gross,
        quantity=here.sum(axis=(2, 3)).mean(axis=1),
        epsilon=np.maximum(best - profit[:, 0], 0.0),
        kind="estimate",
        method="equilibrium of the pooled demand, deviations searched against the true order of service",
    )


def _searched(market: CoalitionTrading, v: View, units: Units | None) -> PriceStage:
    """Best grid profile found, market by market."""
    rows = [
        grid.grid_profile(
            Curves(*(f[r] for f in v.curves)), v.served[r].any(axis=0), v.room[r], v.cost[r], v.low[r], v.high[r]
        )
        for r in range(v.rows)
    ]
    size = max(r.levels.size for r in rows)
    values = np.stack([np.pad(r.levels, (0, size - r.levels.size), mode="edge") for r in rows], axis=1)  # (S, R)
    weights = np.stack([np.pad(r.chance, ((0, 0), (0, size - r.levels.size))).T for r in rows], axis=1)  # (S, R, M)
    samples = Samples(values[:, :, None, None] + np.zeros((1, 1, v.room.shape[1], 1)), weights)
    profit, gross, quantity = _moments(market, v, samples, units)
    if units is None:
        profit = np.stack([r.values for r in rows])  # exact sums over who is cheaper
    mean = np.sum(weights * values[:, :, None], axis=0)
    gap = np.stack([r.gains.max() for r in rows])
    how = "grid game (sequential LP for two sellers, regret matching for more), deviations on a finer grid"
    regime = np.full(v.rows, "searched")
    return PriceStage(samples, None, profit, gross, quantity, mean, gap, "estimate", how, regime)


def _moments(market: CoalitionTrading, v: View, samples: Samples, units: Units | None, n: int = 400) -> tuple:
    """Expected profits, value less bill and PRBs of a mixture, by quantiles paired at random."""
    rng = np.random.default_rng(0)
    u = np.stack([rng.permutation((np.arange(n) + 0.5) / n) for _ in range(v.room.shape[1])], axis=1)
    joint = np.stack([samples.draw(np.broadcast_to(x, (v.rows, x.size)))[:, :, 0] for x in u], axis=1)  # (R, n, M)
    rows = np.repeat(np.arange(v.rows), n)
    many = Units(units.size[rows], units.table[rows]) if units is not None else None
    profit, gross, quantity = _settled(market, v.take(rows), joint.reshape(-1, joint.shape[2]), many)
    return tuple(x.reshape(v.rows, n, *x.shape[1:]).mean(axis=1) for x in (profit, gross, quantity))


def _on_grid(market: CoalitionTrading, v: View, units: Units | None, count: int) -> PriceStage:
    """Prices on a grid: exact for one or two sellers, searched for more."""
    levels = v.low[:, None] + (v.high - v.low)[:, None] * np.arange(count) / (count - 1)
    sellers = v.room.shape[1]
    if sellers == 1:
        sold = follow(market, v, levels[:, :, None], units).sum(axis=2)[..., 0]
        worth = (levels - v.cost[:, :1]) * sold
        best = levels[np.arange(v.rows), count - 1 - np.argmax(worth[:, ::-1], axis=1)]
        return _pure_stage(market, v, best[:, None], units, np.zeros(v.rows), "exact", "grid monopoly, enumerated")
    if sellers > 2:
        stage = _searched(market, v, units)
        return stage._replace(method=f"continuous search for {sellers} sellers, not snapped to the grid")
    first, second = payoff_matrices(market, v, levels, units)
    chance, gap, pure = np.zeros((v.rows, 2, count)), np.zeros(v.rows), np.full((v.rows, 2), -1)
    start = _binned(v, levels) if units is None and market.params.selection == "winner" else None
    for r in range(v.rows):
        least, row, column = grid.best_deterministic(first[r], second[r])
        if least <= 1e-9 * max(1.0, np.abs(first[r]).max()):
            pure[r], gap[r] = (row, column), least
            chance[r, 0, row] = chance[r, 1, column] = 1.0
        else:
            found = grid.matrix_equilibrium(first[r], second[r], None if start is None else (start[r, 0], start[r, 1]))
            chance[r], gap[r] = np.stack([found.row, found.column]), found.epsilon
    profit = np.stack([np.einsum("ri,rij,rj->r", chance[:, 0], x, chance[:, 1]) for x in (first, second)], axis=1)
    if np.all(pure >= 0):
        prices = np.take_along_axis(levels, pure, axis=1)
        return _pure_stage(market, v, prices, units, gap, "exact", "grid game, pure equilibrium by enumeration")
    samples = Samples(np.repeat(levels.T[:, :, None, None], 2, axis=2), np.moveaxis(chance, 2, 0))
    _, gross, quantity = _grid_moments(market, v, levels, chance, units)
    mean = np.sum(chance * levels[:, None, :], axis=2)
    how = "grid game, sequential linear programming"
    return PriceStage(samples, None, profit, gross, quantity, mean, gap, "exact", how, np.full(v.rows, "grid"))


def _binned(v: View, levels: Floats) -> Floats | None:
    """The continuous equilibrium put on the nearest levels, (R, 2, n): where the sequential LP starts."""
    if not (_identical(v.room) and _identical(v.cost)):
        return None
    mixture = symmetric_mixture(*_continuous(v, v.served.any(axis=1)))
    upper = mixture.cdf(levels + 0.5 * (levels[:, 1] - levels[:, 0])[:, None])
    return np.diff(np.clip(upper, 0.0, 1.0), axis=2, prepend=0.0)


def payoff_matrices(market: CoalitionTrading, v: View, levels: Floats, units: Units | None) -> tuple[Floats, Floats]:
    """Profits of two sellers at every pair of grid prices, (R, n, n) each."""
    n = levels.shape[1]
    joint = np.stack(
        [np.repeat(levels[:, :, None], n, axis=2), np.repeat(levels[:, None, :], n, axis=1)], axis=3
    ).reshape(v.rows, -1, 2)
    sold = np.concatenate(
        [follow(market, v, joint[:, i : i + 2500], units).sum(axis=2) for i in range(0, joint.shape[1], 2500)], axis=1
    )
    profit = ((joint - v.cost[:, None, :]) * sold).reshape(v.rows, n, n, 2)
    return profit[..., 0], profit[..., 1]


def _grid_moments(market: CoalitionTrading, v: View, levels: Floats, chance: Floats, units: Units | None) -> tuple:
    """Exact value less bill (R, 1) and PRBs (R,) of a mixed grid equilibrium: all pairs that are ever played."""
    gross, quantity = np.zeros((v.rows, v.served.shape[1])), np.zeros(v.rows)
    for r in range(v.rows):
        row, column = (np.flatnonzero(c > 0) for c in chance[r])
        pairs = np.array([(i, j) for i in row for j in column])
        weight = chance[r, 0, pairs[:, 0]] * chance[r, 1, pairs[:, 1]]
        index = np.full(len(pairs), r)
        many = Units(units.size[index], units.table[index]) if units is not None else None
        _, value, total = _settled(market, v.take(index), levels[r][pairs], many)
        gross[r], quantity[r] = weight @ value, weight @ total
    return None, gross, quantity
