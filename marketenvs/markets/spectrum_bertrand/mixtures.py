"""Best replies of buyers to others' unequal finite mixtures (policies that draw, tables), for channels.

At a bid, every rival ranks above with its own probability; the chance to be served is the Poisson-binomial integral of
`exploit`, here for all buyers and all bids of a market at once: atoms are sorted once, tails are cumulative sums, and
leaving out the own factor is a prefix product times a suffix product.

Mixtures that are draws of a policy (equal weights) are split: the deviation is chosen against one half and valued on the
other, so that a gain is not read into the noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...strategy import BestResponse, Samples
from . import sellers

if TYPE_CHECKING:
    from .rules import SpectrumBertrand

Floats = NDArray[np.float64]
CHUNK = 3_000_000  # numbers in the largest array


def mixture_reply(market: SpectrumBertrand, game: sellers.Sellers, price: Floats, strategy: Samples) -> BestResponse:
    """Best replies (B, M) to independent finite mixtures of (group, bid), every buyer with its own.

    Args:
        market: with matching "channel", common values, corrected rules.
        game: groups of like urns, B rows.
        price: posted prices (B, G).
        strategy: the buyers' mixtures.
    """
    p, m = market.params, market.params.n_buyers
    batch, groups = price.shape
    size = strategy.values.shape[0]
    assert strategy.weights is not None
    values = np.broadcast_to(strategy.values, (size, batch, m, 2))
    weights = np.broadcast_to(strategy.weights, (size, batch, m))
    drawn = size >= 64 and bool(np.all(weights == weights[:1]))
    best = np.zeros((batch, m))
    base = np.zeros((batch, m))
    actions = np.zeros((batch, m, 2))
    actions[..., 0] = groups + (0.5 if p.bid_levels is None else 0.0)
    rows = max(1, CHUNK // (size * m * m * ((m - 1) // 2 + 1)))
    for first in range(0, batch, rows):
        cut = slice(first, min(first + rows, batch))
        part = sellers.markets(game, np.arange(batch)[cut])
        chosen = _Search(market, part, price[cut])
        if drawn:
            half = size // 2
            chosen.choose(values[:half, cut], weights[:half, cut] * (size / half))
            base[cut], best[cut] = chosen.value(values[half:, cut], weights[half:, cut] * (size / (size - half)))
        else:
            base[cut], best[cut] = chosen.choose(values[:, cut], weights[:, cut])
        actions[cut] = chosen.actions(actions[cut])
    gains = np.maximum(best - base, 0.0)
    upper = np.full_like(gains, np.inf) if drawn else gains
    method = "mixtures integrated exactly" + (
        ", chosen on one half of the draws and valued on the other" if drawn else ""
    )
    return BestResponse(actions, base + gains, gains, upper, "estimate" if drawn else "exact", method)


class _Search:
    """The best (group, bid) of every buyer so far, and its value."""

    def __init__(self, market: SpectrumBertrand, game: sellers.Sellers, price: Floats):
        self.market, self.game, self.price = market, game, price
        shape = (price.shape[0], market.params.n_buyers)
        self.group = np.full(shape, -1)  # -1: abstain
        self.bid, self.above = np.zeros(shape), np.zeros(shape, bool)

    def choose(self, values: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Set the best replies to this mixture; returns what everybody earns and what the replies would."""
        base, best = np.zeros(self.bid.shape), np.zeros(self.bid.shape)
        p = self.market.params
        for g in range(self.price.shape[1]):
            extra = self.price[:, g, None]
            if p.bid_levels is not None and p.payment != "posted":
                share = np.arange(p.bid_levels) / (p.bid_levels - 1)
                worth = self.game.value[:, None]
                extra = np.concatenate([extra, self._money(g, share[None]) + 0 * worth], -1)
            bids, tie, over, owned = self._tables(g, values, weights, extra)
            base += owned
            options = [(tie, False)] + ([(over, True)] if p.bid_levels is None and p.payment != "posted" else [])
            for table, above in options:
                top = table.argmax(1)
                value = np.take_along_axis(table, top[:, None], 1)[:, 0]
                better = value > best
                best = np.where(better, value, best)
                self.group = np.where(better, g, self.group)
                self.bid = np.where(better, np.take_along_axis(bids, top, 1), self.bid)
                self.above = np.where(better, above, self.above)
        return base, best

    def value(self, values: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """What everybody earns under this mixture, and what the chosen replies earn against it."""
        base, best = np.zeros(self.bid.shape), np.zeros(self.bid.shape)
        m = self.bid.shape[1]
        for g in range(self.price.shape[1]):
            extra = np.where(self.group == g, self.bid, self.price[:, g, None])
            _, tie, over, owned = self._tables(g, values, weights, extra)
            base += owned
            own = np.arange(m)
            mine = np.where(self.above, over[:, -m:][:, own, own], tie[:, -m:][:, own, own])
            best = np.where(self.group == g, mine, best)
        return base, best

    def actions(self, stay: Floats) -> Floats:
        """The replies as decisions (B, M, 2)."""
        group = np.maximum(self.group, 0)
        price = np.take_along_axis(self.price, group, 1)
        worth = self.game.value[:, None]
        money = np.where(self.above, np.minimum(self.bid + 1e-12 * worth, worth), self.bid)
        if self.market.params.bid_encoding == "relative":
            room = worth - price
            money = np.clip((money - price) / np.where(room > 0, room, 1.0), 0.0, 1.0)
        return np.where(
            (self.group < 0)[..., None],
            stay,
            np.stack([group.astype(float), np.minimum(money, np.maximum(worth, 1.0))], -1),
        )

    def _money(self, g: int, raw: Floats) -> Floats:
        """Bids in money, raw decisions (B, ...) at group ``g``."""
        worth = self.game.value.reshape(-1, *((1,) * (raw.ndim - 1)))
        if self.market.params.bid_encoding == "relative":
            at = self.price[:, g].reshape(worth.shape)
            return np.clip(at + raw * (worth - at), 0.0, worth)
        return raw * worth if self.market.params.bid_levels is not None and raw.shape[0] == 1 else raw

    def _tables(self, g: int, values: Floats, weights: Floats, extra: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """On one group: bids (b, T), values to each buyer of matching and of just beating each (b, T, M), own earnings (b, M).

        ``extra`` (b, Q) are bids that nobody plays; they come last.
        """
        p = self.market.params
        size, batch, m, _ = values.shape
        at, worth = self.price[:, g, None], self.game.value[:, None, None]
        choice = np.clip(np.floor(values[..., 0]), 0, self.price.shape[1])
        bid = np.moveaxis(values[..., 1], 0, 1).reshape(batch, size * m)
        bid = np.broadcast_to(at, bid.shape) if p.payment == "posted" else self._money(g, bid)
        here = (np.moveaxis(choice, 0, 1).reshape(bid.shape) == g) & (bid >= at)
        mass = np.where(here, np.moveaxis(weights, 0, 1).reshape(bid.shape), 0.0)
        bid = np.concatenate([np.where(here, bid, -np.inf), extra], 1)
        mass = np.concatenate([mass, np.zeros(extra.shape)], 1)
        owner = np.concatenate([np.tile(np.arange(m), size), np.zeros(extra.shape[1], int)])
        order = np.argsort(-bid, axis=1, kind="stable")
        ordered = np.take_along_axis(bid, order, 1)
        each = np.zeros((*bid.shape, m))
        np.put_along_axis(each, owner[order][..., None], np.take_along_axis(mass, order, 1)[..., None], 2)
        total = np.cumsum(each, 1)
        place = np.arange(bid.shape[1])
        new = np.ones(bid.shape, bool)
        new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        start = np.maximum.accumulate(np.where(new, place, 0), 1)
        last = np.append(new[:, 1:], np.ones((batch, 1), bool), 1)
        end = np.minimum.accumulate(np.where(last, place, bid.shape[1])[:, ::-1], 1)[:, ::-1]
        upto = np.take_along_axis(total, end[..., None], 1)
        above = np.take_along_axis(total - each, start[..., None], 1)
        back = np.argsort(order, axis=1, kind="stable")[..., None]
        units = self.game.urns[:, g][:, None, None]
        above, upto = (np.take_along_axis(x, back, 1) / units for x in (above, upto))
        if p.payment == "posted":
            above = 0.0 * above
        nodes, share = np.polynomial.legendre.leggauss((m - 1) // 2 + 1)
        win = np.zeros(above.shape)
        for s, w in zip(0.5 * (nodes + 1), 0.5 * share, strict=True):
            win += w * _without_own(1.0 - above - (upto - above) * (1.0 - s))
        beat = _without_own(1.0 - above)
        money = bid[..., None]
        if p.payment == "posted":
            tie, over = (worth - at[..., None]) * win, (worth - at[..., None]) * win
        elif p.payment == "first_price":
            tie, over = (worth - money) * win, (worth - money) * beat
        else:
            tie, over = worth * win - money, worth * beat - money
        valid = np.isfinite(money)
        tie, over = np.where(valid, tie, -np.inf), np.where(valid, over, -np.inf)
        played = np.where(
            mass > 0, np.take_along_axis(tie, np.broadcast_to(owner[None, :, None], (*bid.shape, 1)), 2)[..., 0], 0.0
        )
        earned = np.zeros((batch, m))
        everybody: Any = (slice(None), owner)
        np.add.at(earned, everybody, mass * played)
        return bid, tie, over, earned


def _without_own(factors: Floats) -> Floats:
    """Product over all entries of the last axis but one's own."""
    ahead = np.ones(factors.shape)
    ahead[..., 1:] = np.cumprod(factors[..., :-1], -1)
    behind = np.ones(factors.shape)
    behind[..., :-1] = np.cumprod(factors[..., :0:-1], -1)[..., ::-1]
    return ahead * behind
