"""A market's state as a game in float64: what the solvers look up (slicers' answers, bidders' payoffs, pools)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ...codecs import GridCodec
from ...market import tree_map
from . import literal, oracle, packets, radio, settlement, slices, tables
from .parameters import JointPoolCodec, SplitCodec
from .values import Values

if TYPE_CHECKING:
    from ...market import State
    from .rules import TwoTierBidding

_ROWS = 50_000  # profiles x markets evaluated at once
_MANY = 64  # profiles from which markets are evaluated one by one


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
        alike = (
            leading == 1
            and not p.packets_flow
            and p.positions != "random"
            and not p.known_fading
            and p.posting != "feedback"
        )
        self.state = self.market.take(state, [0]) if alike else state
        self.batch = 1 if alike else self.full
        self.params, self.theta = p, self.state.theta
        self.network = self.market.network(self.state)
        if (
            p.packets_flow
        ):  # the coming round's packets are known to the oracle only: a clairvoyant, one-round benchmark
            self.network = self.network._replace(ssr=packets.ratios(self.market, self.state))
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
        """What operator m's slicer maximises, up to a constant.

        Args:
            split: Candidates (A, 3), the same for everybody, or splits of each operator, (B, M, 3) or (B, M, S, 3).

        Returns:
            (B|1, M, A), (B, M) or (B, M, S).
        """
        if split.ndim == 2:
            return self._objective(lambda table, s: table[:, :, s, split[:, s]], split.sum(1))
        if split.ndim == 3:
            return self.split_objective(split[:, :, None])[..., 0]
        row = np.arange(split.shape[0])[:, None, None]
        own = np.arange(split.shape[1])[:, None]

        def pick(table: np.ndarray, s: int) -> np.ndarray:
            return table[row % table.shape[0], own, s, split[..., s]]

        return self._objective(pick, split.sum(-1))

    def _objective(self, pick: Callable[[np.ndarray, int], np.ndarray], n: np.ndarray) -> np.ndarray:
        """`split_objective` at splits of n blocks, whose entries of a table ``pick`` looks up by service."""
        p, t, net = self.params, self.theta, self.network
        ssr, rate = ([pick(table, s) for s in range(3)] for table in (net.ssr, net.rate))
        c = t.bandwidth[:, :, None] * n / p.blocks
        safe = np.where(c > 0, c, 1.0)
        total = rate[0] + rate[1] + rate[2]
        se = np.where(c > 0, total / safe, 0.0)
        if p.reward == "paper" and p.ssr_noise == "none":
            return literal.lower_reward(np, ssr[0], ssr[1], ssr[2], se)
        if p.reward == "paper":
            volte, embb, urllc, short = (pick(g, s) for g, s in zip(self._gates(), (0, 1, 2, 2), strict=True))
            return literal.expected_lower_reward(np, volte, embb, urllc, short, se)
        weight = radio.split_gain(p, np, t)
        f = t.rho[:, :, None] * se + sum(weight[:, :, s, None] * ssr[s] for s in range(3))
        alone = p.control == "merged" and p.reward == "profit"
        if p.reward == "team" or p.control == "merged":
            w, share = t.value_weight[:, :, None], c / t.bandwidth[:, :, None]
            profit = w * total
            if p.payment == "eq4":
                profit = profit - w * sum(pick(net.radial, s) for s in range(3)) * (1.0 - share)
            elif p.payment == "eq4_literal":
                profit = profit * (1.0 - t.penalty_constant[:, :, None] * share * (1.0 - share))
            return profit if alone else f + settlement.omega(self.market, t)[:, :, None] * profit
        return f

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
        self._tiers = self._kept("tiers", self._enumerate)
        return self._tiers

    def _kept(self, name: str, compute: Callable[[], Any]) -> Any:
        """Many solver calls ask about one and the same state: what is dear to compute is kept with the market."""
        t, kept = self.theta, self.market.__dict__.setdefault("_kept_by_solvers", {})
        price = self.state.history.price if self.params.posting == "feedback" else t.price
        key = self.network.snr, self.network.rate, t.value_weight, t.rho, t.phi, price, self.batch
        if name not in kept or not all(a is b for a, b in zip(kept[name][0], key, strict=True)):
            kept[name] = key, compute()
        return kept[name][1]

    def _enumerate(self) -> Tiers:
        if self.params.lower == "table":
            blocks = np.asarray(self.network.best, float)
            return Tiers(blocks, np.zeros(blocks.shape[:-1]))
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
        return Tiers(np.stack(chosen, 2).astype(float), np.stack(value, 2))

    def split_of(self, blocks: np.ndarray, row: int | None = None) -> np.ndarray:
        """Answers (R, M, 3) to blocks (R, M) of market ``row``, or of profiles times all markets in that order."""
        table = self.tiers().blocks
        index = np.arange(len(blocks)) % self.batch if row is None else np.full(len(blocks), row)
        index = index % table.shape[0]
        return table[index[:, None], np.arange(self.operators), np.round(blocks).astype(int)]

    def slicing(self, blocks: np.ndarray, row: int | None = None) -> np.ndarray:
        """Answers as decisions of the stage: pairs, or blocks over N for the simplex action."""
        split = self.split_of(blocks, row)
        return split[..., :2] if self.params.split == "discrete" else split / self.params.blocks

    # -- bidders ----------------------------------------------------------------------------------------------------

    def payoffs(self, bids: np.ndarray, prefix: Mapping[str, np.ndarray]) -> np.ndarray:
        """Payoffs of the bidding role at bids (P, B, n, k) with slicers re-answering: (P, B, n)."""
        count = bids.shape[0]
        if count < _MANY or self.batch == 1:
            step = max(1, _ROWS // self.batch)
            parts = [self._evaluate(bids[i : i + step], prefix, None) for i in range(0, count, step)]
            return np.concatenate(parts)
        # Many profiles: market by market, so that its tables are looked up in place instead of copied to every row.
        columns = []
        for row in range(self.batch):
            own = {k: v[row : row + 1] for k, v in prefix.items()}
            chunks = [bids[i : i + _ROWS, row : row + 1] for i in range(0, count, _ROWS)]
            columns.append(np.concatenate([self._evaluate(b, own, row) for b in chunks]))
        return np.concatenate(columns, axis=1)

    def _evaluate(self, bids: np.ndarray, prefix: Mapping[str, np.ndarray], row: int | None) -> np.ndarray:
        """`payoffs` of all markets (``row`` None) or of one."""
        count, batch = bids.shape[:2]
        state = self.state if row is None else self.market.take(self.state, [row])
        if batch == 1:
            history, nature = state.history, state.nature
            light = state._replace(history=history._replace(network=()), nature={})
            tiled = self.market.take(light, np.zeros(count, int))
            state = tiled._replace(history=tiled.history._replace(network=history.network), nature=nature)
        else:
            state = self.market.take(state, np.tile(np.arange(batch), count))
        flat = {"bidding": bids.reshape(count * batch, *bids.shape[2:])}
        flat |= {k: np.tile(v, (count, 1, 1)) for k, v in prefix.items()}
        if self.params.slicers:
            _, blocks = self.market.allocate(state, self.market.bids(flat))
            flat["slicing"] = self.slicing(blocks, row)
        return self.market.expected(state, flat)[self.bidder].reshape(count, batch, -1)

    def pool_payoffs(self, prefix: Mapping[str, np.ndarray]) -> np.ndarray:
        """Payoffs of the bidding role at every profile of the pools, (K^M, B, n); the last operator changes fastest."""
        return self._enumerate_pool(prefix) if prefix else self._kept("pool", lambda: self._enumerate_pool({}))

    def _enumerate_pool(self, prefix: Mapping[str, np.ndarray]) -> np.ndarray:
        levels, m = self.pool(), self.operators
        index = np.indices((levels.shape[-1],) * m).reshape(m, -1)
        if tables.offered(self.params):
            found = tables.tabulate(self)
            price = np.broadcast_to(self.market.prices(self.state, prefix), (self.batch, m))
            rows = [
                tables.payoffs(self, found, row, levels[row, np.arange(m)[:, None], index].T, price[row])
                for row in range(self.batch)
            ]
            return np.stack(rows, axis=1)
        bids = np.stack([levels[:, i, index[i]].T for i in range(m)], -1)  # (P, B, M)
        shaped = bids[:, :, None, :] if self.params.control == "central" else bids[..., None]
        return self.payoffs(shaped, prefix)

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
