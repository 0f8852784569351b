"""Spectrum Bertrand: Table 2, Figures 3-6, learning with and without sight of prices, and the collusion study.

The paper's Table 2 cannot be reproduced as numbers: value, step sizes, temperatures, price step, law of demand and units
are not given (fidelity points in the market's page). Its claims are set beside three things: the certified equilibrium of
the corrected market, the equilibrium of the printed one, and the printed algorithm run as printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from marketenvs_baselines import calvano, play, qpml
from marketenvs_baselines.sights import Sight
from marketenvs_baselines.tabular import TabularLearner

import marketenvs
from marketenvs.markets.spectrum_bertrand import literal, repeated

from ._report import Finding, figure, write_report

ID = "SpectrumBertrand-v0"
BUYERS, CHANNELS = (10, 20, 50), (100, 300, 600)
TABLE2 = {  # PU1, PU2, SUs as printed
    (10, 100): (1.00, 1.06, 0.90), (10, 300): (0.64, 0.68, 0.62), (10, 600): (0.42, 0.44, 0.41),
    (20, 100): (1.14, 1.24, 0.94), (20, 300): (0.89, 0.94, 0.82), (20, 600): (0.62, 0.66, 0.60),
    (50, 100): (1.25, 1.36, 0.97), (50, 300): (1.10, 1.18, 0.93), (50, 600): (0.90, 0.96, 0.83),
}  # fmt: skip
# learning in the desk market, 64 markets of one seed batch: price, buyer, seller without and with sight of prices
E3 = {
    "posted": ((0.264, 0.633, 0.454), (0.711, 0.256, 1.224), (0.452, 0.495, 0.774)),
    "first_price": ((0.250, 0.547, 0.626), (0.620, 0.273, 1.181), (0.307, 0.490, 0.786)),
    "all_pay": ((0.243, 0.486, 0.747), (0.515, 0.183, 1.126), (0.392, 0.322, 1.101)),
}


def main(folder: Path, console: Any, quick: bool = False) -> None:
    """Draw the figures and write the report."""
    folder.mkdir(parents=True, exist_ok=True)
    findings = [
        *table_2(folder, quick),
        *figures_3_to_6(folder, quick),
        *learning(folder, quick),
        *collusion(folder, quick),
    ]
    write_report(
        folder,
        "Spectrum Bertrand: Table 2, Figures 3-6, learning, collusion",
        findings,
        console,
        notes="Equilibria are certified; intervals are 95 % over seeds. The paper gives no units, so Table 2 is compared by its claims.",
    )


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half a 95 % interval over seeds (normal)."""
    values = np.asarray(values, float)
    return float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


# -- Table 2: equilibria in the nine cells ------------------------------------------------------------------------------


def equilibrium_cells(payment: str = "all_pay") -> dict[tuple[int, int], tuple[float, float, float]]:
    """Price, buyer's payoff and seller's profit at the certified equilibrium of each of the paper's nine cells."""
    cells = {}
    for m in BUYERS:
        for c in CHANNELS:
            market = marketenvs.make(ID, preset=f"table1_{m}_{c}", payment=payment)
            found = market.equilibrium(market.reset(seed=0))
            assert found.certified.all(), (m, c, found.epsilon)
            price = float(found.strategy["pricing"].decisions[0, 0, 0])
            cells[m, c] = price, float(found.values["buyer"][0, 0]), float(found.values["seller"][0, 0])
    return cells


def table_2(folder: Path, quick: bool) -> list[Finding]:
    """The paper's claims on Table 2 against equilibrium."""
    cells = {p: equilibrium_cells(p) for p in ("all_pay", "first_price")}
    findings = []
    for payment, table in cells.items():
        seller = np.array([[table[m, c][2] for c in CHANNELS] for m in BUYERS])
        buyer = np.array([[table[m, c][1] for c in CHANNELS] for m in BUYERS])
        where = f"equilibrium, {payment}"
        claims = (
            (
                "fewer channels, higher PU reward",
                np.all(np.diff(seller, axis=1) < 0),
                seller[0],
                "M = 10, C = 100, 300, 600: R",
            ),
            (
                "more SUs, higher PU reward",
                np.all(np.diff(seller, axis=0) > 0),
                seller[:, 0],
                "C = 100, M = 10, 20, 50: R",
            ),
            (
                "fewer channels, higher SU reward",
                np.all(np.diff(buyer, axis=1) < 0),
                buyer[0],
                "M = 10, C = 100, 300, 600: pi",
            ),
            (
                "more SUs, higher SU reward",
                np.all(np.diff(buyer, axis=0) > 0),
                buyer[:, 0],
                "C = 100, M = 10, 20, 50: pi",
            ),
        )
        for claim, holds, row, text in claims:
            shown = ", ".join(f"{x:.4f}" for x in row)
            findings.append(
                Finding("Table 2", claim, where, f"{text} = {shown}", bool(holds), {"values": row.tolist()})
            )
    paper = np.array([TABLE2[m, c] for m in BUYERS for c in CHANNELS])
    ours = np.array([cells["all_pay"][m, c][2] for m in BUYERS for c in CHANNELS])
    close = bool(np.all(np.abs(ours / paper[:, 0] - 1) < 0.1))
    text = "R / PU1 from {:.2f} to {:.2f}".format(*np.sort(ours / paper[:, 0])[[0, -1]])
    findings.append(Finding("Table 2", "values of PU1", "equilibrium, all_pay", text, close))
    printed = np.array([literal.equilibrium_payoffs(1.0, m, c) for m in BUYERS for c in CHANNELS])
    rows = ", ".join(f"{x:.3f}" for x in printed[:3, 1]), ", ".join(f"{x:.3f}" for x in printed[:3, 0])
    text = f"p = 0; PU {rows[0]}; SU {rows[1]} at M = 10"
    close = bool(np.all(np.abs(printed[:, 1] / paper[:, 0] - 1) < 0.1))
    findings.append(Finding("Table 2", "values of PU1 and SUs", "equilibrium of the printed game", text, close))
    above = int((paper[:, 1] > paper[:, 0]).sum())
    text = f"PU2 > PU1 in {above} of 9 cells although the sellers are alike: two-sided sign test p = {2 * 0.5**9:.4f}"
    findings.append(Finding("Table 2", "PU1 and PU2 are treated alike", "as printed", text, above not in (0, 9)))
    drawing, axes = figure(panels=2)
    for m in BUYERS:
        axes[0].plot(CHANNELS, [cells["all_pay"][m, c][2] for c in CHANNELS], "o-", label=f"equilibrium, M={m}")
        axes[0].plot(CHANNELS, [TABLE2[m, c][0] for c in CHANNELS], "x--", label=f"Table 2 PU1, M={m}")
        axes[1].plot(CHANNELS, [cells["all_pay"][m, c][1] for c in CHANNELS], "o-")
        axes[1].plot(CHANNELS, [TABLE2[m, c][2] for c in CHANNELS], "x--")
    axes[0].set(xlabel="channels per seller C", ylabel="seller per round", yscale="log", xscale="log")
    axes[1].set(xlabel="channels per seller C", ylabel="buyer per round", xscale="log")
    axes[0].legend(fontsize=6)
    drawing.savefig(folder / "table2.png", dpi=130)
    return findings


# -- Figures 3-6: the printed algorithm, run as printed -----------------------------------------------------------------


def figures_3_to_6(folder: Path, quick: bool) -> list[Finding]:
    """Running means over 600 rounds and KL(D || Dhat), demand weights normalised (as printed) or raw."""
    runs, rounds = (3, 200) if quick else (10, 600)
    findings = []
    drawing, axes = figure(panels=3)
    for panel, m in enumerate(BUYERS):
        for c in (100,) if quick else CHANNELS:
            for scale in ("normalised", "raw"):
                found = qpml.simulate_printed(m, c, rounds, runs, seed=1, bid_scale=scale)
                first, second, buyer = (interval(x[-1]) for x in (found.first, found.second, found.buyer))
                paper = TABLE2[m, c]
                text = "PU1 {:.3f}+-{:.3f}, PU2 {:.3f}+-{:.3f}, SU {:.3f}+-{:.3f}".format(*first, *second, *buyer)
                holds = abs(first[0] - paper[0]) < 0.1 * paper[0] and abs(buyer[0] - paper[2]) < 0.1 * paper[2]
                claim = "PU1 {}, PU2 {}, SU {}".format(*paper)
                setting = f"printed QPML, M={m}, C={c}, {scale} D, {rounds} rounds, {runs} seeds"
                findings.append(Finding(f"Fig. {3 + panel}, Table 2", claim, setting, text, bool(holds)))
                if scale == "raw" and c == 100:
                    for curve, name in ((found.first, "PU1"), (found.second, "PU2"), (found.buyer, "SU")):
                        axes[panel].plot(curve.mean(1), label=name)
        axes[panel].set(xlabel="iteration", title=f"M = {m}, C = 100, raw D")
    axes[0].legend(fontsize=8)
    drawing.savefig(folder / "fig3_5.png", dpi=130)
    found = qpml.simulate_printed(10, 100, rounds, runs, seed=2)
    last, uniform = interval(found.divergence[-1]), interval(found.uniform)
    text = "KL(D || Dhat) {:.3f}+-{:.3f} at the end, {:.3f} at the start; not learning (uniform) gives {:.3f}".format(
        *last, found.divergence[0].mean(), uniform[0]
    )
    setting = f"printed QPML, M=10, C=100, D uniform and normalised, {runs} seeds"
    findings.append(
        Finding(
            "Fig. 6",
            "Boltzmann of Q estimates demand: KL falls below the uniform guess",
            setting,
            text,
            last[0] + last[1] < uniform[0],
        )
    )
    drawing, axes = figure(width=5, panels=1)
    axes[0].plot(found.kl_rounds, found.divergence.mean(1), label="KL(D || Dhat), printed QPML")
    axes[0].axhline(uniform[0], ls="--", label="uniform guess")
    axes[0].axhspan(1.7, 1.9, alpha=0.2, label="range in Fig. 6")
    axes[0].set(xlabel="iteration", ylabel="nats")
    axes[0].legend(fontsize=8)
    drawing.savefig(folder / "fig6.png", dpi=130)
    return findings


# -- learning in the corrected market -----------------------------------------------------------------------------------


class PriceBins(Sight):
    """Both posted prices, each in equal bins: the buyers' situation in the reference learning table."""

    def __init__(self, prices: int = 2, bins: int = 6):
        self.prices, self.bins, self.size = prices, bins, bins**prices

    def read(self, obs: np.ndarray) -> np.ndarray:
        digits = np.minimum((obs[..., : self.prices] * self.bins).astype(np.int64), self.bins - 1)
        return digits @ self.bins ** np.arange(self.prices)


class BinnedBuyers(TabularLearner):
    """Buyers who read `PriceBins`; only watched while they learn, so they stay as they are."""

    def start(self, market: Any, role: str, batch: int, seed: Any) -> None:
        super().start(market, role, batch, seed)
        seat = self.seats["bidding"]
        self.seats["bidding"] = type(seat)(self.make_rule(), PriceBins(), seat.grid, batch, market.roles[role])

    def trained(self, b: int) -> Any:
        return self


def learn(payment: str, sight: bool, rounds: int, seeds: int, unit: float) -> dict[str, np.ndarray]:
    """Corrected QPML (independent sellers) in the desk market, 21 prices, relative bids: last 10 % means per seed.

    Args:
        payment: payment rule.
        sight: whether buyers' tables are conditioned on both posted prices in six bins each.
        rounds: rounds of play; temperatures fall from .3 to .02 over the first 80 %.
        seeds: markets side by side.
        unit: money that a seller's temperature of 1 means: 1, or U C = 5.
    """
    market: Any = marketenvs.make(ID, preset="grid", payment=payment)
    cooling, levels = int(0.8 * rounds), market.params.bid_levels

    def buyer() -> qpml.Boltzmann:
        if payment == "posted":  # the bid is ignored: the choice alone is the action
            return qpml.ChoiceBoltzmann(0.1, cooling=cooling, bids=levels)
        return qpml.Boltzmann(0.1, cooling=cooling)

    learners = {
        "seller": TabularLearner(lambda: qpml.Boltzmann(0.05, cooling=cooling, unit=unit), leader_state="none"),
        "buyer": BinnedBuyers(buyer) if sight else TabularLearner(buyer, leader_state="none"),
    }
    record = play(market, learners, rounds, seeds=list(range(seeds)), tail=0.1)
    return {
        "price": np.asarray(record.metrics["price"]).mean(1),
        "buyer": record.payoffs["buyer"].mean(1),
        "seller": record.payoffs["seller"].mean(1),
    }


TEMPERATURES = {1.0: "sellers' tau .3 to .02 in money", 5.0: "sellers' tau .3 to .02 times U C = 5"}


def learning(folder: Path, quick: bool) -> list[Finding]:
    """The reference learning table, rerun under both readings of the sellers' temperature, and what sight of prices does."""
    rounds, seeds = (600, 4) if quick else (15_000, 64)
    findings = []
    for payment, (star, *reference) in E3.items():
        prices = {}
        for unit, reading in TEMPERATURES.items():
            for sight, spec in zip((False, True), reference, strict=True):
                got = learn(payment, sight, rounds, seeds, unit)
                prices[unit, sight] = got["price"]
                values = [interval(got[k]) for k in ("price", "buyer", "seller")]
                text = "p {:.3f}+-{:.3f}, SU {:.3f}+-{:.3f}, PU {:.3f}+-{:.3f}".format(*(x for v in values for x in v))
                name = "6x6 price bins" if sight else "stateless"
                claim = "(not the paper's: a reference run of 64 markets) p {}, SU {}, PU {} (p* {})".format(
                    *spec, star[0]
                )
                # both tables are means over 64 random markets: three standard errors of their difference
                near = all(
                    abs(m - x) <= 3 * np.sqrt(2) * half / 1.96 for (m, half), x in zip(values, spec, strict=True)
                )
                setting = f"corrected QPML, {payment}, buyers {name}, {reading}, {rounds} rounds, {seeds} seeds"
                data = {k: v.tolist() for k, v in got.items()}
                findings.append(Finding("Learning", claim, setting, text, None if quick else bool(near), data))
        for what, one, other in (
            ("price-aware buyers discipline sellers", (1.0, False), (1.0, True)),
            ("hotter sellers (tau times U C) end dearer against stateless buyers", (5.0, False), (1.0, False)),
        ):
            gap = interval(prices[one] - prices[other])
            text = "price {:.3f} -> {:.3f}, difference {:.3f}+-{:.3f}; p* = {}".format(
                prices[one].mean(), prices[other].mean(), *gap, star[0]
            )
            findings.append(Finding("Learning", what, payment, text, None if quick else bool(gap[0] - gap[1] > 0)))
    return findings


# -- the collusion study ------------------------------------------------------------------------------------------------


def single_deviations(greedy: np.ndarray, table: np.ndarray, state: np.ndarray, delta: float) -> np.ndarray:
    """Best relative gain ``(S,)`` from ONE other price on the path, everybody as learnt again from the next period on.

    Args:
        greedy: levels played in every state, ``(S, 2, K^2)``.
        table: stage profits ``(2, K, K)``.
        state: where play begins, ``(S,)``.
        delta: discount factor.
    """
    sessions, _, states = greedy.shape
    k, row = table.shape[-1], np.arange(sessions)
    pay = table.reshape(2, states)
    after = greedy[:, 0] * k + greedy[:, 1]
    chain = np.zeros((sessions, states, states))
    chain[row[:, None], np.arange(states), after] = delta
    value = np.linalg.solve(np.eye(states) - chain, np.moveaxis(pay[:, after], 0, -1))  # (S, states, 2)
    here = state.copy()
    for _ in range(states):
        here = after[row, here]
    best = np.full(sessions, -np.inf)
    for _ in range(states):  # once around the cycle, and perhaps again
        for i in (0, 1):
            other = greedy[row, 1 - i, here][:, None]
            level = np.arange(k)[None]
            there = level * k + other if i == 0 else other * k + level
            found = pay[i][there] + delta * value[row[:, None], there, i]
            best = np.maximum(best, found.max(1) / value[row, here, i] - 1.0)
        here = after[row, here]
    return best


def collusion(folder: Path, quick: bool) -> list[Finding]:
    """Memory-one Q-learners, published parameters, sessions side by side; Delta and exact dynamic regret."""
    market = marketenvs.make(ID, preset="calvano")
    state = market.reset(seed=0)
    table = calvano.payoff_table(market, state)
    sessions, periods = (20, 100_000) if quick else (100, 10_000_000)
    found = calvano.run_sessions(table, sessions, periods, seed=1)
    extra = market.analysis(state)
    nash, joint = float(extra["nash_profit"][0, 0]), float(extra["joint_profit"][0, 0])
    delta = (found.profit.sum(1) - nash) / (joint - nash)
    mean, half = interval(delta)
    start = np.zeros((sessions, table[0].size))
    start[np.arange(sessions), found.state] = 1.0
    regret = repeated.dynamic_regret(calvano.greedy_policies(found), table[None], 0.95, start)
    relative = interval((regret.regret / regret.value).mean(1))
    settled = float(found.converged.mean())
    low, high = np.quantile(delta, (0.25, 0.75))
    text = f"mean Delta {mean:.3f}+-{half:.3f} (quartiles {low:.2f}, {high:.2f}); "
    text += f"{settled:.0%} converged after {found.periods.mean():.3g} periods"
    setting = f"logit, 15 prices, alpha .15, beta 4e-6, delta .95, {sessions} sessions"
    holds = None if settled < 1 else bool(0.70 <= mean <= 0.90)
    findings = [
        Finding(
            "Collusion",
            "Delta between 0.70 and 0.90 (Calvano et al. 2020)",
            setting,
            text,
            holds,
            {"delta": delta.tolist()},
        )
    ]
    quiet = float((regret.regret.max(1) < 1e-9).mean())
    text = "a best reply to the rival's final policy earns {:.1%}+-{:.1%} more ".format(*relative)
    text += f"(discounted, from the last state); no gain for either seller in {quiet:.0%} of sessions"
    findings.append(
        Finding(
            "Collusion",
            "final policies are an equilibrium of the repeated game",
            setting,
            text,
            None if settled < 1 else bool(relative[0] + relative[1] < 0.01),
        )
    )
    single = single_deviations(found.q.argmax(-1), table, found.state, 0.95)
    none = float((single <= 1e-9).mean())
    text = f"nobody gains by one deviation on the path in {none:.0%} of sessions; "
    text += "the best one earns {:.2%}+-{:.2%} more".format(*interval(np.maximum(single, 0.0)))
    findings.append(
        Finding(
            "Collusion",
            "single deviations from the path do not pay",
            setting,
            text,
            None if settled < 1 else bool(none > 0.5),
        )
    )
    drawing, axes = figure(width=5, panels=1)
    axes[0].hist(delta, bins=20)
    axes[0].axvspan(0.7, 0.9, alpha=0.2)
    axes[0].set(xlabel="collusion index Delta", ylabel="sessions")
    drawing.savefig(folder / "collusion.png", dpi=130)
    return findings
