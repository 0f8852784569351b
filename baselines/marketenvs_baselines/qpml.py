"""Q-probabilistic multi-agent learning (QPML), the algorithm of the spectrum market's paper: corrected, and as printed.

Corrected: everybody keeps a stateless (or price-aware) table and plays its Boltzmann distribution over the OWN actions
(the printed eq. 11 normalises over buyers, so that rows do not sum to 1). Sellers keep the joint table of eqs. (8)-(9)
over own and rival price levels and average it over the levels that the rival has played; ``qpml_independent`` keeps the
own level only.

As printed (`simulate_printed`): buyers bid their demand weight on a Boltzmann channel; sellers keep the two-cell tables of
eqs. (13)-(16), which hold no price and so never affect one, and follow the share rule.

D. Wang, W. Zhang, B. Song, X. Du, M. Guizani, "Market-Based Model in CR-IoT: A Q-Probabilistic Multi-agent Learning
Approach". The paper gives neither step sizes nor temperatures; the defaults are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketenvs.errors import InvalidParameter
from marketenvs.market import Market

from .registry import Algorithm
from .run import Policies, Report, play
from .tabular import GRIDS, SIGHTS, ExactSight, Rule, Sight, TabularLearner, playable

Floats = NDArray[np.float64]
ID = "SpectrumBertrand-v0"
PRICE_BINS = 6


def _sight(market: Market, stage: str, leader_state: str, bins: int) -> Sight:
    """Buyers read the posted prices in six bins each, or nothing; sellers read nothing (rounds are independent)."""
    p: Any = market.params
    if leader_state != "none" and stage == "bidding" and p.n_sellers * p.price_groups <= 3:
        return ExactSight(p.n_sellers * p.price_groups, PRICE_BINS)
    return Sight()


SIGHTS.setdefault(ID, _sight)
GRIDS.setdefault(ID, {"pricing": 21, "bidding": 11})


class Boltzmann(Rule):
    """A table of mean rewards, played as ``softmax(Q / tau)`` with a falling temperature.

    Args:
        learning_rate: alpha.
        hot: first temperature, in the money of ``unit``.
        cold: last temperature.
        cooling: updates over which the temperature falls geometrically, then it stays.
        unit: money that a temperature of 1 means (U for buyers, U C for sellers).
    """

    def __init__(
        self, learning_rate: float = 0.1, hot: float = 0.3, cold: float = 0.02, cooling: int = 1, unit: float = 1.0
    ):
        if not (0 < learning_rate <= 1 and 0 < cold <= hot and unit > 0):
            raise InvalidParameter(
                f"Boltzmann needs 0 < learning_rate <= 1 and 0 < cold <= hot (tau); got {learning_rate}, {cold}, {hot}"
            )
        self.learning_rate, self.hot, self.cold, self.cooling, self.unit = learning_rate, hot, cold, cooling, unit
        self.updates = 0

    @property
    def temperature(self) -> float:
        """Present temperature, in money."""
        done = min(self.updates / max(self.cooling, 1), 1.0)
        return self.unit * self.hot * (self.cold / self.hot) ** done

    def grow(self, rows: int, actions: int) -> None:
        self.q = np.zeros((rows, actions))

    def worth(self, row: NDArray[np.int64]) -> Floats:
        """(rows, A) what each action is thought to earn."""
        return self.q[row]

    def probabilities(self, row: NDArray[np.int64]) -> Floats:
        score = self.worth(row) / self.temperature
        weight = np.exp(score - score.max(axis=1, keepdims=True))
        return weight / weight.sum(axis=1, keepdims=True)

    def learn(self, row: Any, action: Any, reward: Any, next_row: Any, rivals: Any) -> None:
        self.updates += 1
        self.q[row, action] += self.learning_rate * (reward - self.q[row, action])


class ChoiceBoltzmann(Boltzmann):
    """Posted prices: a bid does not count, so actions that differ in it only share a cell.

    Args:
        bids: bid levels per choice, the faster index of an action.
    """

    def __init__(self, *args: Any, bids: int = 1, **constants: Any):
        super().__init__(*args, **constants)
        self.bids = bids

    def grow(self, rows: int, actions: int) -> None:
        self.q = np.zeros((rows, actions // self.bids))

    def probabilities(self, row: NDArray[np.int64]) -> Floats:
        return np.repeat(super().probabilities(row) / self.bids, self.bids, axis=1)

    def learn(self, row: Any, action: Any, reward: Any, next_row: Any, rivals: Any) -> None:
        super().learn(row, action // self.bids, reward, next_row, rivals)


class JointBoltzmann(Boltzmann):
    """Eqs. (8)-(9): a table over (own level, rival level), averaged over the levels the rival has played.

    The paper's second table, the rival's own, never enters a decision and is not kept.
    """

    watches_rivals = True

    def grow(self, rows: int, actions: int) -> None:
        self.q = np.zeros((rows, actions, actions))
        self.seen = np.full((rows, actions), 1.0 / actions)

    def worth(self, row: NDArray[np.int64]) -> Floats:
        often = self.seen[row] / self.seen[row].sum(axis=1, keepdims=True)
        return (self.q[row] * often[:, None, :]).sum(axis=2)

    def learn(self, row: Any, action: Any, reward: Any, next_row: Any, rivals: Any) -> None:
        self.updates += 1
        levels = self.seen.shape[1]
        rival = np.clip(np.rint(rivals * (levels - 1)), 0, levels - 1).astype(np.int64)
        self.seen[row, rival] += 1.0
        self.q[row, action, rival] += self.learning_rate * (reward - self.q[row, action, rival])


def train(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None, joint: bool, **constants: Any
) -> list[Policies]:
    """QPML for all roles, one run per seed."""
    market = task.make_market()
    p: Any = market.params
    value, channels = p.bounds_of("value")[1], p.bounds_of("channels")[1]
    if p.matching == "logit":
        value, channels = 1.0, p.bounds_of("demand")[1]
    cooling = max(int(0.8 * budget), 1)

    def seller() -> Rule:
        kind = JointBoltzmann if joint and p.n_sellers == 2 and p.price_groups == 1 else Boltzmann
        return kind(
            **{"learning_rate": 0.05, "cooling": cooling, "unit": value * min(channels, p.n_buyers), **constants}
        )

    def buyer() -> Rule:
        given = {"learning_rate": 0.1, "cooling": cooling, "unit": value, **constants}
        if p.payment == "posted":
            return ChoiceBoltzmann(**given, bids=p.bid_levels or GRIDS[ID]["bidding"])
        return Boltzmann(**given)

    learners = {role: TabularLearner(seller if role == "seller" else buyer) for role in market.roles}
    return play(market, learners, budget, seeds, report).policies


def train_many(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, **constants: Any
) -> list[Policies]:
    """Corrected QPML with the sellers' joint tables."""
    return train(task, seeds, budget, report, True, **constants)


def train_independent(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, **constants: Any
) -> list[Policies]:
    """Corrected QPML in which sellers keep their own level only."""
    return train(task, seeds, budget, report, False, **constants)


_CITATION = "D. Wang, W. Zhang, B. Song, X. Du, M. Guizani, Market-Based Model in CR-IoT"
ALGORITHMS = (
    Algorithm(
        "qpml",
        train_many=train_many,
        title="QPML (corrected)",
        citation=_CITATION,
        stochastic=True,
        markets=(ID,),
        can_play=playable,
    ),
    Algorithm(
        "qpml_independent",
        train_many=train_independent,
        title="QPML, independent sellers",
        citation=_CITATION,
        stochastic=True,
        markets=(ID,),
        can_play=playable,
    ),
)


# -- as printed -------------------------------------------------------------------------------------------------------


class Printed(NamedTuple):
    """Curves of the printed model: running means over rounds, (T, R) for R runs, and the last prices.

    Attributes:
        first: reward of seller 1 per round.
        second: reward of seller 2.
        buyer: mean reward of a buyer.
        divergence: KL(D || Dhat) in nats, mean over buyers, on ``kl_rounds``.
        uniform: KL(D || uniform), what not learning would give.
        prices: (R, 2).
        kl_rounds: rounds at which ``divergence`` was taken.
        tables: the sellers' two-cell Q-values of eqs. (13)-(16) at the end, (R, 2, 2); they never reach a price.
    """

    first: Floats
    second: Floats
    buyer: Floats
    divergence: Floats
    uniform: Floats
    prices: Floats
    kl_rounds: NDArray[np.int64]
    tables: Floats


def simulate_printed(
    buyers: int,
    channels: int,
    rounds: int = 600,
    runs: int = 10,
    seed: int = 0,
    learning_rate: float = 0.1,
    temperature: float = 0.1,
    step: float = 0.01,
    bid_scale: str = "normalised",
    value: float = 1.0,
) -> Printed:
    """The paper's Algorithms 1-3 as printed, R runs side by side.

    Each buyer samples one of the 2C channels from its Boltzmann distribution, bids its demand weight there (eq. 1), pays it
    won or lost (eq. 2) and updates that cell (eq. 10). The highest bid above the price gets the channel. Sellers earn
    ``bid - price`` per sale (eq. 4) and move their price by the share rule of section IV.B.

    Args:
        buyers: M.
        channels: C per seller.
        rounds: iterations.
        runs: independent runs.
        seed: of everything random.
        learning_rate: alpha (the paper gives none).
        temperature: tau (the paper gives none).
        step: price step of the share rule (the paper gives none).
        bid_scale: "normalised": demand weights sum to 1 (as printed); "raw": uniform in [0, 1].
        value: U_t (the paper gives none).

    Raises:
        InvalidParameter: unknown ``bid_scale`` or a temperature that is not positive.
    """
    from marketenvs.markets.spectrum_bertrand.literal import divergence, share_rule, two_cell_update

    if bid_scale not in ("normalised", "raw"):
        raise InvalidParameter(f"bid_scale must be 'normalised' or 'raw', got {bid_scale!r}")
    if temperature <= 0:
        raise InvalidParameter(f"temperature (tau) must be positive, got {temperature}")
    rng = np.random.default_rng(seed)
    total = 2 * channels
    demand = rng.uniform(size=(runs, buyers, total))
    weight = demand / demand.sum(-1, keepdims=True)
    bids = weight if bid_scale == "normalised" else demand
    q = rng.uniform(size=demand.shape)
    price = rng.uniform(size=(runs, 2))
    tables = np.random.default_rng((seed, 2)).uniform(size=(runs, 2, 2))  # "random initialization"
    r, m = np.arange(runs)[:, None], np.arange(buyers)[None]
    sums = np.zeros((3, runs))
    curves = np.empty((3, rounds, runs))
    kl_rounds = np.unique(np.linspace(0, rounds - 1, 13).astype(int))
    kl = np.empty((kl_rounds.size, runs))
    for t in range(rounds):
        p = np.exp((q - q.max(-1, keepdims=True)) / temperature)
        p /= p.sum(-1, keepdims=True)
        if t in kl_rounds:
            kl[np.searchsorted(kl_rounds, t)] = divergence(weight, p).mean(-1)
        chosen = (np.cumsum(p, -1) < rng.uniform(size=(runs, buyers, 1))).sum(-1).clip(0, total - 1)
        bid = bids[r, m, chosen]
        seller = chosen // channels
        top = np.zeros((runs, total))
        np.maximum.at(top, (r, chosen), bid)
        wins = (bid == top[r, chosen]) & (bid > price[r, seller])  # continuous weights: no ties
        reward = np.where(wins, value, 0.0) - bid
        q[r, m, chosen] += learning_rate * (reward - q[r, m, chosen])
        surplus = np.where(wins, np.maximum(bid - price[r, seller], 0.0), 0.0)
        earned = np.stack([(surplus * (seller == j)).sum(-1) for j in (0, 1)])
        sold = np.stack([(wins & (seller == j)).sum(-1) for j in (0, 1)], -1)
        tables = two_cell_update(tables, sold, np.moveaxis(earned, 0, -1), learning_rate)
        price = share_rule(price, sold, step)
        sums += np.stack([*earned, reward.mean(-1)])
        curves[:, t] = sums / (t + 1)
    flat = np.full(weight.shape, 1.0 / total)
    return Printed(curves[0], curves[1], curves[2], kl, divergence(weight, flat).mean(-1), price, kl_rounds, tables)
