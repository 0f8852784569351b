"""Two-tier bidding, Figures 2-15 and Table 4: the paper's claims beside what the market gives, and what pays to bid.

*Lower tier* (Figs 2-11): slicers learn the split of 13 blocks under the shaped reward with binomial packet noise.
*Upper tier* (Figs 12-15): one agent learns a joint bid of four four-level pools. Both with the paper's constants (discount
0.95, learning rate 0.01) and with corrected ones (discount 0, learning rate 0.001); every number is over >= 10 seeds.
*Payment rules* (not in the paper): what four independent learners make of each rule. *Trainers*: DQN of SB3 and RLlib beside ours on the
lower tier's market. *Speed*: solvers and the DQN loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from marketenvs_baselines.run import play

import marketenvs
from marketenvs.policy import Constant

from ..statistics import iqm
from . import _two_tier_speed, _two_tier_trainers
from ._report import Finding, figure, write_report
from ._two_tier_payments import payment_rules
from ._two_tier_tools import (
    ID,
    SETTINGS,
    VARIANTS,
    above,
    draw_curves,
    findings_of,
    first,
    in_order,
    kept,
    learner,
    shown,
    smooth,
    summary,
    tails,
)

USERS_1 = ((8, 11, 7),)  # operator 1, the paper's example


def main(folder: Path, console: Any, quick: bool = False) -> None:
    """Run the experiments, draw the figures and write the report. Finished parts are kept: a killed run goes on where it was."""
    seeds, rounds = (list(range(3)), 600) if quick else (list(range(10)), 6000)
    parts: dict[str, Callable[[], list[Finding]]] = {
        "optima": optima,
        "speed": lambda: [*_two_tier_speed.solvers(), *_two_tier_speed.learning(100 if quick else 300)],
        "payment_rules": lambda: payment_rules(folder, seeds, rounds),
        "figures_2_to_6": lambda: figures_2_to_6(folder, seeds, rounds),
        "lower_tier": lambda: lower_tier(folder, seeds, rounds, console),
        "upper_tier": lambda: upper_tier(folder, seeds, rounds, console),
        "trainers": lambda: trainers(folder, seeds, rounds, console),
        "rllib": lambda: trainers_of_rllib(folder, seeds[: (2 if quick else 5)], rounds, console),
    }
    size = [len(seeds), rounds]
    findings = [f for name, part in parts.items() for f in findings_of(folder, name, size, part, console)]
    notes = (
        f"{len(seeds)} seeds (RLlib 5), {rounds} rounds; intervals are 95 % bootstrap intervals of the interquartile mean; "
        "an order is decided only where intervals do not overlap."
    )
    write_report(folder, "Two-tier bidding, Figures 2-15 and Table 4", findings, console, notes=notes)


# -- exact facts ------------------------------------------------------------------------------------------------------


def optima() -> list[Finding]:
    """What the objective and the penalty reward, without any learning."""
    market = marketenvs.make(ID, preset="two_tier", payment="eq4", omega_unit="Mbps")
    blocks, value = market.analysis(market.reset(0))["objective_optimum"]
    starved = int((blocks[0] == 0).sum())
    found = f"optimum of the stated objective: blocks {tuple(map(int, blocks[0]))}, F = {value[0]:.4f}"
    findings = [
        Finding(
            "eq. (6)", "maximising F serves all operators", "omega = 0.1 per Mb/s, eq. (4) with v'", found, starved == 0
        )
    ]
    for payment in ("eq4", "eq4_literal"):
        market = marketenvs.make(ID, payment=payment)
        state = market.reset(0)
        eq = market.equilibrium(state)
        _, high = market.bounds(state, "bidding")
        capped = bool(np.allclose(eq.actions["bidding"], high))
        claim = "the penalty (4) keeps operators from bidding too much"
        text = f"equilibrium bids {'are the caps, dominant' if capped else 'stay below the caps'}; certified {eq.certified.all()}"
        findings.append(Finding("eqs. (3)-(5)", claim, payment, text, not capped))
    return findings


# -- lower tier -------------------------------------------------------------------------------------------------------

_SEEN = ("slicer", "utility", "spectral_efficiency", "ssr_volte", "ssr_embb", "ssr_urllc")


def figures_2_to_6(folder: Path, seeds: list[int], rounds: int) -> list[Finding]:
    """Satisfaction and efficiency of all four operators while slicers learn with Dueling DQN."""
    market = marketenvs.make(ID, preset="two_tier", bid_levels=None, reward="paper", ssr_noise="binomial")
    slicer = learner("Dueling", rounds, SETTINGS["corrected"], 1.0, min(1000, rounds // 2))
    record = play(market, {"bidder": Constant([1000.0]), "slicer": slicer}, rounds, seeds, keep=_SEEN)
    drawing, axes = figure(width=14.0, panels=4)
    findings = []
    names = {"ssr_volte": "VoLTE", "ssr_urllc": "URLLC", "ssr_embb": "eMBB", "spectral_efficiency": "SE"}
    # The median round: exploration (2 % of rounds) now and then leaves a service without blocks.
    last = {key: np.median(record.traces[key][-max(1, rounds // 6) :], axis=(0, 1)) for key in names}
    for axis, (key, name) in zip(axes, names.items(), strict=True):
        for m in range(4):
            axis.plot(smooth(record.traces[key][:, :, m]), label=f"operator {m}")
        axis.set(title=name, xlabel="round")
    axes[0].legend(fontsize=8)
    drawing.savefig(folder / "fig2-6.png", dpi=130)
    setting = "four operators, 13/13/12/12 blocks, shaped reward, Dueling DQN"
    for item, key, claim, low in (
        ("Fig. 2", "ssr_volte", "satisfaction of VoLTE is 1", 0.999),
        ("Fig. 3", "ssr_urllc", "satisfaction of URLLC stays between 0.96 and 1", 0.96),
        ("Fig. 4", "ssr_embb", "satisfaction of eMBB stays between 0.96 and 1", 0.96),
    ):
        text = "median round of the last sixth, by operator: " + ", ".join(f"{v:.4f}" for v in last[key])
        findings.append(Finding(item, claim, setting, text, bool((last[key] >= low).all())))
    se = last["spectral_efficiency"]
    text = "median round of the last sixth, by operator: " + ", ".join(f"{v:.1f}" for v in se)
    findings.append(Finding("Figs. 5-6", "SE settles near 300", setting, text, bool((np.abs(se - 300) <= 30).all())))
    return findings


def lower_market() -> Any:
    """Operator 1 alone with 13 blocks: 105 splits, optimum f = 6.3420306014."""
    return marketenvs.make(
        ID,
        preset="two_tier",
        n_operators=1,
        users=USERS_1,
        bandwidth=2.6,
        blocks=13,
        bid_levels=None,
        reward="paper",
        ssr_noise="binomial",
        observation="paper",
    )


def lower_tier(folder: Path, seeds: list[int], rounds: int, console: Any) -> list[Finding]:
    """Algorithms on operator 1 with 13 blocks."""
    best, findings = lower_optimum(), []
    for name in SETTINGS:
        runs = {a: lower_run(folder, name, a, seeds, rounds, console) for a in VARIANTS}
        drawing, axes = figure(width=16.0, panels=5)
        shown_keys = ("ssr_volte", "ssr_urllc", "ssr_embb", "spectral_efficiency", "utility")
        draw_curves(axes, shown_keys, runs)
        axes[0].legend(fontsize=7)
        drawing.savefig(folder / f"fig7-11-{name}.png", dpi=130)
        findings += _lower_findings(name, {a: tails(r) for a, r in runs.items()}, best)
    return findings


def lower_run(
    folder: Path, setting: str, algorithm: str, seeds: list[int], rounds: int, console: Any
) -> dict[str, Any]:
    """One algorithm under one setting on operator 1, all seeds at once."""

    def run() -> dict[str, Any]:
        slicer = learner(algorithm, rounds, SETTINGS[setting], 1.0, min(1000, rounds // 2))
        record = play(lower_market(), {"bidder": Constant([100.0]), "slicer": slicer}, rounds, seeds, keep=_SEEN)
        volte = np.median(record.traces["ssr_volte"][-max(1, rounds // 6) :], axis=(0, 2))
        return summary(record, _SEEN) | {"volte_median": volte.tolist()}

    result: dict[str, Any] = kept(folder, f"lower-{setting}-{algorithm}", [len(seeds), rounds], run, console)
    return result


def _lower_findings(setting: str, data: Mapping[str, Mapping[str, np.ndarray]], best: float) -> list[Finding]:
    se = {a: d["spectral_efficiency"] for a, d in data.items()}
    # The noise of reported ratios is in f too: regret is a mean over rounds and seeds.
    regret = {a: best - d["utility"] for a, d in data.items()}
    paper = ("Dueling", "DQN", "Double", "QL")
    se_text = "; ".join(f"{a} {shown(se[a])}" for a in VARIANTS)
    regret_text = "; ".join(f"{a} {shown(regret[a])}" for a in VARIANTS)
    ratio = iqm(se["QL"]) / iqm(se["Dueling"])
    where = f"operator 1, 13 blocks, {setting} constants"
    volte = min(float(d["volte_median"].min()) for d in data.values())
    ladder = "Dueling 297 > DQN 294 > Double 289 > QL 168"
    text = f"QL reaches {ratio:.3f} of Dueling's SE: (12) hardly depends on the split"
    return [
        Finding(
            "Fig. 7",
            "VoLTE is fully satisfied under every method",
            where,
            f"median round of the worst run: {volte:.5f}",
            volte >= 0.999,
        ),
        Finding("Fig. 10, Table 4", f"SE: {ladder}", where, se_text, in_order([se[a] for a in paper])),
        Finding("Table 4", "Dueling's SE is 76 % above Q-learning's", where, text, ratio < 0.7),
        Finding(
            "Fig. 11, Table 4",
            "Dueling DQN has the best utility of the four",
            where,
            f"regret in f (optimum {best:.4f}): {regret_text}",
            first({a: -regret[a] for a in paper}, "Dueling"),
            {a: r.tolist() for a, r in regret.items()},
        ),
    ]


# -- upper tier -------------------------------------------------------------------------------------------------------

_UPPER = ("bidder", "profit", "objective", "ssr_embb", "ssr_volte", "ssr_urllc")


def upper_tier(folder: Path, seeds: list[int], rounds: int, console: Any) -> list[Finding]:
    """One agent over joint bids, shaped reward, table A below, eq. (4) with v'."""
    market = upper_market()
    optimum = float(market.equilibrium(market.reset(0)).values["bidder"][0, 0])
    findings = []
    for name in SETTINGS:
        runs = {a: upper_run(folder, name, a, seeds, rounds, console) for a in VARIANTS}
        data = {a: tails(r) for a, r in runs.items()}
        drawing, axes = figure(width=14.0, panels=4)
        draw_curves(axes[:2], ("profit", "objective"), runs)
        for axis, key in zip(axes[2:], ("profit", "objective"), strict=True):
            axis.violinplot([data[a][key] for a in VARIANTS], showmeans=True)
            axis.set_xticks(range(1, len(VARIANTS) + 1), list(VARIANTS), rotation=40, fontsize=7)
        titles = ("profit (Fig. 12)", "utility F (13)", "profit (14)", "utility F (15)")
        for axis, title in zip(axes, titles, strict=True):
            axis.set_title(title)
        axes[0].legend(fontsize=7)
        drawing.savefig(folder / f"fig12-15-{name}.png", dpi=130)
        findings += _upper_findings(name, data, optimum)
    return findings


def upper_market() -> Any:
    """The paper's upper tier: a central bidder with 256 joint bids."""
    return marketenvs.make(ID, preset="paper", payment="eq4")


def upper_run(
    folder: Path, setting: str, algorithm: str, seeds: list[int], rounds: int, console: Any
) -> dict[str, Any]:
    """One algorithm under one setting as the central bidder, all seeds at once."""

    def run() -> dict[str, Any]:
        bidder = learner(algorithm, rounds, SETTINGS[setting], 10.0, min(2000, rounds // 2))
        return summary(play(upper_market(), {"bidder": bidder}, rounds, seeds, keep=_UPPER), _UPPER)

    result: dict[str, Any] = kept(folder, f"upper-{setting}-{algorithm}", [len(seeds), rounds], run, console)
    return result


def _upper_findings(setting: str, data: Mapping[str, Mapping[str, np.ndarray]], optimum: float) -> list[Finding]:
    where = f"central, 256 joint bids, {setting} constants"
    profit = {a: iqm(d["profit"]) for a, d in data.items()}
    nets = ("DQN", "QL", "Dueling", "Double")
    top = in_order([data[a]["profit"] for a in nets])
    best = first({a: data[a]["bidder"] for a in nets}, "DQN")
    text = "; ".join(f"{a} {shown(d['profit'])}" for a, d in data.items())
    reward = "; ".join(f"{a} {shown(d['bidder'])}" for a, d in data.items())
    spread = {a: float(np.ptp(d["profit"]) / abs(d["profit"].mean())) for a, d in data.items()}
    gap = (profit["DQN"] - profit["Double"]) / profit["Double"]
    gaps = ", ".join(f"{a} {100 * s:.1f} %" for a, s in spread.items())
    widest = max(spread[a] for a in nets)
    return [
        Finding(
            "Figs. 12, 14, Table 4", "profit: DQN 194 > QL 191 > Dueling 189 > Double 184", where, text, top == "DQN"
        ),
        Finding(
            "Figs. 13, 15",
            "DQN is best at what is optimised",
            where,
            f"shaped reward (largest possible {optimum:.4f}): {reward}",
            best,
            {a: d["bidder"].tolist() for a, d in data.items()},
        ),
        Finding(
            "Table 4",
            "differences of 1-5 % between algorithms mean something (one run each)",
            where,
            f"DQN over Double {100 * gap:.1f} %; (max - min)/mean over seeds: {gaps}",
            bool(widest < 0.054),  # the largest gap that the paper reports
        ),
    ]


# -- libraries --------------------------------------------------------------------------------------------------------


def trainers(folder: Path, seeds: list[int], rounds: int, console: Any) -> list[Finding]:
    """Our DQN family and SB3's DQN on the lower tier's market, corrected constants: regret of the trained policy."""
    best, size, data = lower_optimum(), [len(seeds), rounds], {}
    for name in _two_tier_trainers.OURS:
        run = partial(_two_tier_trainers.ours, lower_market, best, seeds, rounds, name)
        data[f"ours {name}"] = np.array(kept(folder, f"ours-{name}", size, run, console))
    found = []
    for seed in seeds:
        one = partial(_two_tier_trainers.sb3, lower_market, best, seed, rounds)
        found.append(kept(folder, f"sb3-{seed}", [1, rounds], one, console))
    data["SB3 DQN"] = np.array(found)
    text = "; ".join(f"{name} {shown(values)}" for name, values in data.items())
    same = above(data["ours DQN"], data["SB3 DQN"]) is None
    where = f"operator 1, 13 blocks, {rounds} rounds, {len(seeds)} seeds, regret in f of the greedy policy (optimum {best:.4f})"
    claim = "ours: our DQN and SB3's learn equally well with the same constants (intervals overlap)"
    return [Finding("libraries", claim, where, text, same, {k: v.tolist() for k, v in data.items()})]


def trainers_of_rllib(folder: Path, seeds: list[int], rounds: int, console: Any) -> list[Finding]:
    """RLlib's DQN on the same market, both switches set."""
    best, data = lower_optimum(), {}
    for name in _two_tier_trainers.RLLIB:
        found = []
        for seed in seeds:
            one = partial(_two_tier_trainers.rllib, lower_market, best, seed, rounds, name)
            found.append(kept(folder, f"{name.replace(' ', '-')}-{seed}", [1, rounds], one, console))
        data[name] = np.array(found)
    text = "; ".join(f"{name} {shown(values)}" for name, values in data.items())
    plain, dueling = data["RLlib DQN"], data["RLlib Double-Dueling"]
    where = f"as above, {len(seeds)} seeds, ``dueling`` and ``double_q`` set in every variant"
    claim = "Double-Dueling DQN has less regret than DQN, in RLlib's implementation"
    return [Finding("libraries", claim, where, text, above(plain, dueling), {k: v.tolist() for k, v in data.items()})]


def lower_optimum() -> float:
    """The best f of operator 1 with 13 blocks."""
    market = lower_market()
    return float(market.analysis(market.reset(0))["table_a"].utility[0, 0, 13])
