"""A market's state as a game in float64: what the solvers look up (slicers' answers, bidders' payoffs, pools)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ...codecs import GridCodec
from ...market import tree_map
from . import literal, oracle, radio, settlement, slices
from .parameters import JointPoolCodec, SplitCodec
from .values import Values

if TYPE_CHECKING:
    from ...market import State
    from .rules import TwoTierBidding

_ROWS = 200_000  # profiles x markets evaluated at once


class Tiers(NamedTuple):
    """Slicers' answers for every number of blocks."""

    blocks: np.ndarray
    """(B|1, M, N+1, 3) best split."""
    best: np.ndarray
    """(B|1, M, N+1) its objective."""


class Game:
    """A state in float64, with everything the solvers look up; markets that are all alike are solved once."""

    def __init__(self, market: TwoTierBidding, state: State):
        self.outer, p = market, market.params
        plain = market.backend.name == "numpy" and market.backend.dtype_name == "float64"
        self.market: TwoTierBidding = market if plain else type(market)(p)
        state = state if plain else tree_map(market.backend.numpy, state)
        self.full = market.batch(state)
        leading = max(a.shape[0] for a in _leaves(state.theta))
        alike = leading == 1 and p.positions != "random" and p.fading != "sampled" and p.posting != "feedback"
        self.state = self.market.take(state, [0]) if alike else state
        self.batch = 1 if alike else self.full
        self.params, self.theta = p, self.state.theta
        self.network = self.market.network(self.state)
        self.operators = p.n_operators
        self._tiers: Tiers | None = None
        self._chances: tuple[np.ndarray, ...] | None = None
        self.bidder = self.market.stage("bidding").role
        self.analytic = (
            p.lower == "ideal" and p.allocation == "continuous" and p.control == "independent" and p.bid_levels is None
        )

    def spread(self, array: np.ndarray) -> np.ndarray:
        """From solved markets to the state's batch."""
        return np.broadcast_to(array, (self.full, *array.shape[1:]))

    def unfold(self) -> Game:
        """The same game with one row per market of the state (for profiles that differ between markets)."""
        if self.batch == self.full:
            return self
        other = object.__new__(Game)
        other.__dict__.update(self.__dict__)
        other.state = self.market.take(self.state, np.zeros(self.full, int))
        other.batch, other.theta = self.full, other.state.theta
        return other

    def auction(self, decisions: Mapping[str, np.ndarray]) -> oracle.Auction:
        """The bandwidth auction of `oracle`."""
        p, t = self.params, self.theta
        multiplier = t.spectral_multiplier if p.value == "rate" else 1.0
        weight = t.value_weight * multiplier
        if p.value == "rate" and p.power_mode == "psd":
            weight = t.value_weight * radio.operator_value(p, np, t, self.network.snr, 1.0 + 0.0 * self.network.snr)
        full = np.broadcast_shapes(weight.shape, self.network.snr.shape, (self.batch, self.operators))
        return oracle.make_auction(
            Values(p.kind, np.broadcast_to(weight, full), np.broadcast_to(self.network.snr, full)),
            t.bandwidth,
            self.market.prices(self.state, decisions),
            t.headcount * t.floor_per_user,
            t.headcount * t.cap_per_user,
            p.payment,
            float(np.max(t.penalty_constant)) if p.payment == "eq4_literal" else 1.0,
        )

    # -- slicers ----------------------------------------------------------------------------------------------------

    def split_objective(self, split: np.ndarray) -> np.ndarray:
        """What operator m's slicer maximises, up to a constant, at splits (A, 3) of A candidates: (B|1, M, A)."""
        p, t, net = self.params, self.theta, self.network
        ssr, rate, radial = (
            [table[:, :, s, split[:, s]] for s in range(3)] for table in (net.ssr, net.rate, net.radial)
        )
        n = split.sum(1)
        c = t.bandwidth[:, :, None] * n / p.blocks
        safe = np.where(c > 0, c, 1.0)
        total = rate[0] + rate[1] + rate[2]
        se = np.where(c > 0, total / safe, 0.0)
        if p.reward == "paper":
            return self._shaped(split, ssr, se)
        weight = radio.split_gain(p, np, t)
        f = t.rho[:, :, None] * se + sum(weight[:, :, s, None] * ssr[s] for s in range(3))
        alone = p.control == "merged" and p.reward == "profit"
        if p.reward == "team" or p.control == "merged":
            w, share = t.value_weight[:, :, None], c / t.bandwidth[:, :, None]
            profit = w * total
            if p.payment == "eq4":
                profit = profit - w * (radial[0] + radial[1] + radial[2]) * (1.0 - share)
            elif p.payment == "eq4_literal":
                profit = profit * (1.0 - t.penalty_constant[:, :, None] * share * (1.0 - share))
            return profit if alone else f + settlement.omega(self.market, t)[:, :, None] * profit
        return f

    def _shaped(self, split: np.ndarray, ssr: list[np.ndarray], se: np.ndarray) -> np.ndarray:
        """Expected shaped reward of splits (A, 3) with ratios and efficiency (B|1, M, A)."""
        if self.params.ssr_noise == "none":
            return literal.lower_reward(np, ssr[0], ssr[1], ssr[2], se)
        gates = self._gates()
        volte, embb = (gates[s][:, :, s, split[:, s]] for s in (0, 1))
        urllc, short = (gates[i][:, :, 2, split[:, 2]] for i in (2, 3))
        return literal.expected_lower_reward(np, volte, embb, urllc, short, se)

    def _gates(self) -> tuple[np.ndarray, ...]:
        """`literal.gate_chances` of every slice and number of blocks, each (B|1, M, 3, N+1)."""
        if self._chances is None:
            table = self.network.ssr
            batch, operators, services, size = table.shape
            flat = np.moveaxis(table, 2, -1).reshape(batch, operators * size, services)
            packets = np.round(self.theta.packets)[:, None, :]
            chances = literal.gate_chances(np, flat, packets, self.theta.log_ways, self.market.max_packets())
            shaped = (c.reshape(batch, operators, 1, size) for c in chances)
            self._chances = tuple(np.broadcast_to(c, (batch, operators, services, size)) for c in shaped)
        return self._chances

    def tiers(self) -> Tiers:
        """Best split for every number of blocks, by enumeration; ties to the lexicographically smallest."""
        if self._tiers is not None:
            return self._tiers
        if self.params.lower == "table":
            blocks = np.asarray(self.network.best, float)
            self._tiers = Tiers(blocks, np.zeros(blocks.shape[:-1]))
            return self._tiers
        size = self.params.blocks + 1
        pairs = SplitCodec(self.params.blocks).table.astype(int)
        chosen, value = [], []
        for n in range(size):
            legal = pairs[pairs.sum(1) <= n]
            split = np.column_stack([legal, n - legal.sum(1)])
            worth = self.split_objective(split)
            at = worth.argmax(-1)
            chosen.append(split[at])
            value.append(worth.max(-1))
        self._tiers = Tiers(np.stack(chosen, 2).astype(float), np.stack(value, 2))
        return self._tiers

    def split_of(self, blocks: np.ndarray) -> np.ndarray:
        """Answers (rows, M, 3) to blocks (rows, M); rows are markets, or profiles times markets in that order."""
        table = self.tiers().blocks
        index = np.arange(len(blocks)) % self.batch % table.shape[0]
        return table[index[:, None], np.arange(self.operators), np.round(blocks).astype(int)]

    def slicing(self, blocks: np.ndarray) -> np.ndarray:
        """Answers as decisions of the stage: pairs, or blocks over N for the simplex action."""
        split = self.split_of(blocks)
        return split[..., :2] if self.params.split == "discrete" else split / self.params.blocks

    # -- bidders ----------------------------------------------------------------------------------------------------

    def payoffs(self, bids: np.ndarray, prefix: Mapping[str, np.ndarray]) -> np.ndarray:
        """Payoffs of the bidding role at bids (P, B, n, k) with slicers re-answering: (P, B, n)."""
        count = bids.shape[0]
        step = max(1, _ROWS // self.batch)
        parts = [self._payoffs(bids[i : i + step], prefix) for i in range(0, count, step)]
        return np.concatenate(parts)

    def _payoffs(self, bids: np.ndarray, prefix: Mapping[str, np.ndarray]) -> np.ndarray:
        count, rows = bids.shape[0], bids.shape[0] * self.batch
        state = self.market.take(self.state, np.tile(np.arange(self.batch), count))
        if self.batch == 1:  # leaves shared by all rows stay shared
            state = state._replace(theta=self.state.theta)
        flat = {"bidding": bids.reshape(rows, *bids.shape[2:])}
        flat |= {k: np.tile(v, (count, 1, 1)) for k, v in prefix.items()}
        if self.params.slicers:
            _, blocks = self.market.allocate(state, self.market.bids(flat))
            flat["slicing"] = self.slicing(blocks)
        return self.market.expected(state, flat)[self.bidder].reshape(count, self.batch, -1)

    def pool(self) -> np.ndarray:
        """Bids of every pool, (B, M, K)."""
        stage = self.market.stage("bidding")
        low, high = (np.broadcast_to(b, (self.batch, *b.shape[1:])) for b in self.market.bounds(self.state, "bidding"))
        if self.params.control == "central":
            low, high = (np.swapaxes(b, 1, 2) for b in (low, high))
            levels = cast(JointPoolCodec, stage.codec).grid.candidates(low, high)
        else:
            levels = cast(GridCodec, stage.codec).candidates(low, high)
        return np.moveaxis(levels[..., 0], 0, -1)


def _leaves(tree: Any) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    tree_map(found.append, tree)
    return found


def one_market(game: Game, row: int) -> Game:
    """One market of a game."""
    if game.batch == 1:
        return game
    other = object.__new__(Game)
    other.__dict__.update(game.__dict__)
    other._chances = None
    other.state = game.market.take(game.state, [row])
    theta = tree_map(lambda a: a[row : row + 1] if a.shape[0] == game.batch else a, game.state.theta)
    other.state = other.state._replace(theta=theta)
    other.theta, other.batch, other.full = theta, 1, 1
    other.network = game.market.network(other.state)
    if game._tiers is not None:
        rows = slice(row, row + 1) if game._tiers.blocks.shape[0] > 1 else slice(None)
        other._tiers = Tiers(game._tiers.blocks[rows], game._tiers.best[rows])
    return other


def block_values(game: Game, split: str = "free") -> np.ndarray:
    """What n = 0..N blocks are worth to each operator, (B, M, N+1).

    ``split="free"``: the rate-maximising split; ``"answer"``: the split that the slicers (or table A) answer.
    """
    p, t, net = game.params, game.theta, game.network
    size = p.blocks + 1
    if p.lower == "ideal":
        c = t.bandwidth * np.arange(size) / p.blocks
        values = np.stack(
            [radio.operator_value(p, np, t, net.snr, c[:, n : n + 1] + 0.0 * net.snr) for n in range(size)], -1
        )
    elif split == "free" and p.slicers:
        values = slices.max_plus(slices.max_plus(net.rate[:, :, 0], net.rate[:, :, 1]), net.rate[:, :, 2])
    else:
        answer = np.moveaxis(np.round(game.tiers().blocks).astype(int), -1, 2)
        values = np.take_along_axis(net.rate, np.broadcast_to(answer, net.rate.shape), -1).sum(2)
    return np.broadcast_to(t.value_weight[:, :, None] * values, (game.batch, game.operators, size))
