"""Coalition trading, Figures 2, 3a, 3b, 4a, 4b: the paper's claim, the equilibrium's answer, the learners' answer.

The equilibrium columns are exact solutions of the corrected market, taken through the public surface; the learners are the
paper's (CoST-MADDPG, ST-MADDPG, SA-DDPG) as `marketenvs_baselines.maddpg` corrects them, plus Random. A learner's line is
reported, never required to agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import marketenvs

from ._coalition_learners import ID, ROUNDS, SEEDS, STEPS, Kept, learners, mixed_regimes
from ._report import Finding, figure, write_report

BANDS = (5, 10, 15, 20)
"""Bandwidth offered for trade, MHz (25..100 PRBs of 200 kHz)."""
CROWD = ((0.9, 0.6, 0.8, 0.7, 0.5), ("embb", "embb", "urllc", "mmtc", "urllc"))
"""Reputations and services of up to five buyers (the paper gives neither)."""


def main(folder: Path, console: Any, quick: bool = False) -> None:
    """Draw the figures and write the report; ``quick`` trains two seeds for 600 rounds. A killed run goes on where it was."""
    seeds, rounds = (2, 600) if quick else (SEEDS, ROUNDS)
    kept = Kept(folder / "runs.json")
    learned = learners(seeds, rounds, console, kept)
    findings = [*figure_2(folder, learned), *figure_3(folder, learned), *figure_4(folder)]
    findings += mixed_regimes(seeds, rounds, 2_000 if quick else STEPS, console, kept)
    notes = (
        "Equilibrium numbers are exact and certified. Learners: mean over seeds of the last policies, played for 20 rounds; "
        f"{seeds} seeds, {rounds} rounds with one update each. NashConv against the exact followers is the sellers' own; the whole "
        "profile's adds what its own followers leave. Every run is listed in the report's data."
    )
    write_report(folder, "Coalition trading, Figures 2-4", findings, console, notes=notes)


# ---------------------------------------------------------------- the equilibrium's side


def buyers(count: int) -> dict[str, Any]:
    """Settings of the first ``count`` buyers."""
    return {"n_buyers": count, "reputation": CROWD[0][:count], "service": CROWD[1][:count]}


def solve(**settings: Any) -> dict[str, float]:
    """Mean posted price, PRBs traded, a seller's profit, the coalition's net utility, welfare and its share of the optimum.

    Raises:
        AssertionError: the equilibrium is not certified.
    """
    market = marketenvs.make(ID, **settings)
    state = market.reset(0)
    found, extra = market.equilibrium(state), market.analysis(state)
    assert found.certified.all() or settings.get("selection") == "all", (settings, found.epsilon)
    welfare = float(found.values["seller"].sum() + found.values["buyer"].sum())
    return {
        "price": float(extra["expected_price"].mean()),
        "quantity": float(extra["expected_quantity"][0]),
        "seller": float(found.values["seller"].mean()),
        "coalition": float(found.values["buyer"].sum()),
        "welfare": welfare,
        "ratio": welfare / float(market.social_optimum(state).value[0]),
    }


def joint_sellers(**settings: Any) -> dict[str, float]:
    """SA-DDPG's ideal: one owner of all sellers, followers best-responding, buyers alone (ST)."""
    total = settings.pop("trade_prbs", 100.0)
    alone = {"formation": "singletons", **settings, "n_sellers": 1, "capacity_rule": "given", "capacity": total}
    out = solve(**alone)
    market = marketenvs.make(ID, formation="singletons", **settings)
    return {**out, "ratio": out["welfare"] / float(market.social_optimum(market.reset(0)).value[0])}


@cache
def random_play(formation: str = "grand", trade_prbs: float = 100.0) -> dict[str, float]:
    """The paper's Random policy in expectation: uniform prices, the coalition asks each seller for uniform {1..50}."""
    sold = np.minimum(np.arange(1, 51), trade_prbs / 2)  # each seller cuts what it cannot serve
    amounts, count = np.unique(sold[:, None] + sold[None, :], return_counts=True)
    total = count / count.sum()
    market = marketenvs.make(ID, purchase_mode="total", formation=formation, trade_prbs=trade_prbs)
    state = market.reset(0, batch=total.size)
    asked = np.zeros((total.size, 3, 1))
    asked[:, 0, 0] = amounts
    welfare = market.outcome(state, {"pricing": 1.5, "purchase": asked}).metrics["welfare"]
    best = float(market.social_optimum(state).value[0])
    mean = float(total @ welfare)
    return {"price": 1.5, "quantity": float(total @ amounts), "welfare": mean, "ratio": mean / best}


# ---------------------------------------------------------------- figures


def _line(learned: Mapping[str, Mapping[str, float]], key: str) -> str:
    return ", ".join(f"{name} {row[key]:.3f}" for name, row in learned.items())


def welfare_ratios() -> dict[str, float]:
    """Welfare over the optimum at the exact solutions (Figure 2)."""
    return {
        "CoST": solve()["ratio"],
        "ST": solve(formation="singletons")["ratio"],
        "SA (sellers)": joint_sellers()["ratio"],
        "Random": random_play()["ratio"],
        "ST (all served)": solve(formation="singletons", selection="all")["ratio"],
        "SA (system)": 1.0,
    }


def figure_2(folder: Path, learned: Mapping[str, Mapping[str, float]]) -> list[Finding]:
    """Normalised system utility."""
    ratio = welfare_ratios()
    order = ratio["CoST"] > ratio["ST"] > ratio["SA (sellers)"] > ratio["Random"]
    paper = {"CoST": 0.95, "ST": 0.80}
    drawing, (axis,) = figure(panels=1)
    names = ["CoST", "ST", "SA (sellers)", "SA (system)", "Random"]
    axis.bar(np.arange(5) - 0.3, [paper.get(n, np.nan) for n in names], 0.3, label="paper")
    axis.bar(np.arange(5), [ratio[n] for n in names], 0.3, label="equilibrium")
    keys = ["CoST-MADDPG", "ST-MADDPG", "SA-DDPG (sellers)", "SA-DDPG (system)"]
    axis.bar(np.arange(5) + 0.3, [*(learned[k]["ratio"] for k in keys), np.nan], 0.3, label="learned")
    axis.set_xticks(np.arange(5), names)
    axis.set_ylabel("welfare / optimum")
    axis.legend()
    drawing.savefig(folder / "figure_2.png", dpi=150)
    found = ", ".join(f"{name} {value:.5f}" for name, value in ratio.items())
    alone = ratio["ST (all served)"] > ratio["CoST"]
    converged = learned["CoST-MADDPG"]["ratio"] > learned["ST-MADDPG"]["ratio"] > learned["SA-DDPG (sellers)"]["ratio"]
    return [
        Finding(
            "Fig. 2",
            "system utility: CoST .95 > ST .80 > SA > Random",
            "default market, exact solutions",
            f"{found}"
            + ("; the order is due to winner-take-all: served together, singletons beat CoST" if alone else ""),
            order,
            ratio,
        ),
        Finding(
            "Fig. 2, learned",
            "the learners end in that order",
            "default market",
            f"welfare ratio: {_line(learned, 'ratio')}; NashConv: {_line(learned, 'nash_conv')}",
            converged,
            {k: dict(v) for k, v in learned.items()},
        ),
    ]


def against_bandwidth() -> dict[str, dict[str, list[float]]]:
    """Mean price and PRBs bought against the bandwidth offered (Figure 3)."""
    rows = {
        "CoST": [solve(trade_prbs=5.0 * b) for b in BANDS],
        "ST": [solve(trade_prbs=5.0 * b, formation="singletons") for b in BANDS],
        "SA": [joint_sellers(trade_prbs=5.0 * b) for b in BANDS],
    }
    return {name: {k: [r[k] for r in row] for k in ("price", "quantity")} for name, row in rows.items()}


def figure_3(folder: Path, learned: Mapping[str, Mapping[str, float]]) -> list[Finding]:
    """Prices and purchases against bandwidth."""
    found = against_bandwidth()
    found["Random"] = {"price": [1.5] * 4, "quantity": [random_play("grand", 5.0 * b)["quantity"] for b in BANDS]}
    drawing, axes = figure(panels=2)
    for name, row in found.items():
        axes[0].plot(BANDS, row["price"], marker="o", label=name)
        axes[1].plot(BANDS, row["quantity"], marker="o", label=name)
    for name, trained in learned.items():
        axes[0].plot(20, trained["price"], "x", label=f"{name} (learned)")
        axes[1].plot(20, trained["quantity"], "x")
    axes[0].set_ylabel("mean price, $/PRB")
    axes[1].set_ylabel("PRBs bought")
    for axis in axes:
        axis.set_xlabel("bandwidth for trade, MHz")
    axes[0].legend(fontsize=6)
    drawing.savefig(folder / "figure_3.png", dpi=150)
    cost, st = found["CoST"], found["ST"]
    falls = all(np.all(np.diff(found[n]["price"]) <= 1e-9) for n in ("CoST", "ST", "SA"))
    lowest = all(c <= s + 1e-9 for c, s in zip(cost["price"], st["price"], strict=True))
    rises = all(np.all(np.diff(found[n]["quantity"]) >= -1e-9) for n in ("CoST", "ST", "SA"))
    most = all(
        c >= max(s, a) - 1e-9 for c, s, a in zip(cost["quantity"], st["quantity"], found["SA"]["quantity"], strict=True)
    )
    shown = {n: ", ".join(f"{x:.4f}" for x in found[n]["price"]) for n in ("CoST", "ST", "SA")}
    amounts = {n: ", ".join(f"{x:.2f}" for x in found[n]["quantity"]) for n in ("CoST", "ST", "SA")}
    setting = "B = 5, 10, 15, 20 MHz, two sellers, three buyers"
    return [
        Finding("Fig. 3a", "prices fall with bandwidth", setting, _join(shown), falls, found),
        Finding(
            "Fig. 3a, order",
            "CoST's price is the lowest",
            setting,
            f"CoST {shown['CoST']}; ST {shown['ST']}"
            + ("" if lowest else "; merging enlarges demand, a posted-price follower has no bargaining power"),
            lowest,
        ),
        Finding("Fig. 3a, learned", "CoST's price is the lowest", "20 MHz", _line(learned, "price"), _least(learned)),
        Finding(
            "Fig. 3b", "purchases rise with bandwidth, CoST buys most", setting, _join(amounts), rises and most, found
        ),
    ]


def _join(rows: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {row}" for name, row in rows.items())


def _least(learned: Mapping[str, Mapping[str, float]]) -> bool | None:
    """Whether CoST's learned price is strictly the lowest; None where it ties with another."""
    mine = learned["CoST-MADDPG"]["price"]
    others = min(row["price"] for name, row in learned.items() if name != "CoST-MADDPG")
    return None if abs(mine - others) < 5e-3 else mine < others


def against_sellers() -> dict[str, list[float]]:
    """A seller's profit against the number of sellers (Figure 4a)."""
    settings = {
        "CoST, half": {"capacity_rule": "half"},
        "ST, half": {"capacity_rule": "half", "formation": "singletons"},
        "CoST, split": {},
        "CoST, half, 5 buyers": {"capacity_rule": "half", **buyers(5)},
    }
    return {name: [solve(n_sellers=m, **kept)["seller"] for m in range(1, 6)] for name, kept in settings.items()}


def against_buyers() -> dict[str, list[float]]:
    """The grand coalition's net utility against the number of buyers (Figure 4b)."""
    settings: dict[str, dict[str, Any]] = {
        "two sellers": {},
        "five sellers of 50 PRBs": {"n_sellers": 5, "capacity_rule": "given", "capacity": 50.0},
        "one seller": {"n_sellers": 1},
    }
    return {name: [solve(**buyers(n), **kept)["coalition"] for n in range(1, 6)] for name, kept in settings.items()}


def printed_model(counts: Sequence[int] = (1, 2, 3, 4, 5)) -> list[float]:
    """The same curve in the paper's own equations, one seller."""
    out = []
    for n in counts:
        market = marketenvs.make(ID, preset="paper", n_sellers=1, **buyers(n))
        out.append(float(market.equilibrium(market.reset(0)).values["buyer"].sum()))
    return out


def figure_4(folder: Path) -> list[Finding]:
    """Profits against the number of sellers, utilities against the number of buyers."""
    profits, utilities, literal = against_sellers(), against_buyers(), printed_model()
    drawing, axes = figure(panels=2)
    for name, row in profits.items():
        axes[0].plot(range(1, 6), row, marker="o", label=name)
    axes[0].plot([1, 5], [92, 59], "k--", label="CoST (paper)")
    axes[0].plot([1, 5], [91, 75], "k:", label="ST (paper)")
    for name, row in utilities.items():
        axes[1].plot(range(1, 6), row, marker="o", label=name)
    axes[1].plot(range(1, 6), literal, "k-.", label="equations as printed")
    axes[1].plot([1, 5], [15, 45], "k--", label="CoST (paper)")
    for axis, label in zip(axes, ("number of sellers", "number of buyers"), strict=True):
        axis.set_xlabel(label)
        axis.legend(fontsize=6)
    axes[0].set_ylabel("a seller's profit, $")
    axes[1].set_ylabel("coalition's utility, $")
    drawing.savefig(folder / "figure_4.png", dpi=150)
    rows = {name: ", ".join(f"{x:.2f}" for x in row) for name, row in {**profits, **utilities}.items()}
    falls = all(np.all(np.diff(row) < 1e-9) for row in profits.values())
    below = all(a <= b + 1e-9 for a, b in zip(profits["CoST, half"][1:], profits["ST, half"][1:], strict=True))
    rises = {name: bool(np.all(np.diff(row) > 0)) for name, row in utilities.items()}
    return [
        Finding(
            "Fig. 4a",
            "profits fall with the number of sellers",
            "M = 1..5",
            _join({k: rows[k] for k in profits}),
            falls,
            profits,
        ),
        Finding(
            "Fig. 4a, order",
            "CoST's sellers earn less than ST's (59 against 75 at M = 5)",
            "K = 50, three buyers",
            f"CoST {rows['CoST, half']}; ST {rows['ST, half']}",
            below,
        ),
        Finding(
            "Fig. 4b",
            "the coalition's utility rises with the number of buyers (15 to 45)",
            "N = 1..5, grand coalition",
            _join({k: rows[k] for k in utilities})
            + "; rises throughout: "
            + (", ".join(name for name, up in rises.items() if up) or "nowhere"),
            all(rises.values()),
            utilities,
        ),
        Finding(
            "Fig. 4b, as printed",
            "the same in the paper's own equations",
            "one seller; where the joint reputation exceeds the highest price (N = 3..5)",
            ", ".join(f"{x:.2f}" for x in literal) + " for N = 1..5 (every member is credited with all PRBs, F7)",
            bool(np.all(np.diff(literal[2:]) > 0)),
            {"utility": literal},
        ),
    ]
