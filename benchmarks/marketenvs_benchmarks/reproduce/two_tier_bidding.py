"""Two-tier bidding, Figures 2-15 and Table 4: the paper's claims beside what the market gives, and what pays to bid.

*Lower tier* (Figs 2-11): slicers learn the split of 13 blocks under the shaped reward with binomial packet noise.
*Upper tier* (Figs 12-15): one agent learns a joint bid of four four-level pools. Both with the paper's constants (discount
0.95, learning rate 0.01) and with corrected ones (discount 0, learning rate 0.001); every number is over >= 10 seeds.
*Payment rules* (not in the paper): what four independent learners make of each rule. *Trainers*: DQN of SB3 and RLlib beside ours on the
lower tier's market. *Speed*: solvers and the DQN loop.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from marketenvs_baselines.bandit import BanditLearner
from marketenvs_baselines.dqn import Constants, DQNLearner
from marketenvs_baselines.run import Record, play

import marketenvs
from marketenvs.policy import Constant
from marketenvs.task import write_json

from ..statistics import interval, iqm
from . import _two_tier_speed, _two_tier_trainers
from ._report import Finding, figure, write_report

ID = "TwoTierBidding-v0"
USERS_1 = ((8, 11, 7),)  # operator 1, the paper's example
VARIANTS: dict[str, Constants | None] = {
    "QL": Constants(tabular=True),
    "DQN": Constants(),
    "Double": Constants(double=True),
    "Dueling": Constants(dueling=True),
    "Double-Dueling": Constants(double=True, dueling=True),
    "bandit": None,
}
SETTINGS = {
    "paper": {"discount": 0.95, "learning_rate": 0.01},
    "corrected": {"discount": 0.0, "learning_rate": 0.001},
}


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
    findings = [f for name, part in parts.items() for f in kept(folder, name, [len(seeds), rounds], part, console)]
    notes = (
        f"{len(seeds)} seeds (RLlib 5), {rounds} rounds; intervals are 95 % bootstrap intervals of the interquartile mean; "
        "an order is decided only where intervals do not overlap."
    )
    write_report(folder, "Two-tier bidding, Figures 2-15 and Table 4", findings, console, notes=notes)


def kept(
    folder: Path, name: str, size: list[int], part: Callable[[], list[Finding]], console: Any
) -> Sequence[Finding]:
    """A part's findings: those that an earlier run of the same size and code left, or new ones."""
    path, key = folder / "parts" / f"{name}.json", {"size": size, "code": code_of_experiments()}
    if path.is_file():
        content = json.loads(path.read_text())
        if content["key"] == key:
            console.print(f"{name}: finished before")
            return [Finding(**f) for f in content["findings"]]
    begun = time.perf_counter()
    findings = part()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": key, "findings": [asdict(f) for f in findings]})
    console.print(f"{name}: {time.perf_counter() - begun:.0f} s")
    return findings


def code_of_experiments() -> str:
    """Hash of what the experiments run: these files, the learners, and the market's settlement and radio."""
    from marketenvs_baselines import bandit, dqn

    from marketenvs.markets.two_tier_bidding import literal, oracle, radio, settlement, values

    modules = (_two_tier_speed, _two_tier_trainers, bandit, dqn, literal, oracle, radio, settlement, values)
    files = [Path(__file__), *(Path(str(m.__file__)) for m in modules)]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


# -- statistics -------------------------------------------------------------------------------------------------------


def shown(values: np.ndarray) -> str:
    """IQM with its interval."""
    found = interval(list(values))
    return f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}]"


def above(higher: np.ndarray, lower: np.ndarray) -> bool | None:
    """Whether one sample's IQM is above another's; None where their 95 % intervals overlap."""
    a, b = interval(list(higher)), interval(list(lower))
    if a.low > b.high:
        return True
    return False if b.low > a.high else None


def in_order(samples: Sequence[np.ndarray]) -> bool | None:
    """Whether samples are in falling order: False if any two are clearly reversed, None if any two overlap."""
    answers = [above(a, b) for i, a in enumerate(samples) for b in samples[i + 1 :]]
    return False if False in answers else None if None in answers else True


def first(samples: Mapping[str, np.ndarray], name: str) -> bool | None:
    """Whether one sample is above all others: False if any is clearly above it, None if any overlaps it."""
    answers = [above(samples[name], other) for key, other in samples.items() if key != name]
    return False if False in answers else None if None in answers else True


def learner(name: str, rounds: int, setting: Mapping[str, Any], scale: float, explore_rounds: int) -> Any:
    """A learner of the comparison."""
    constants = VARIANTS[name]
    if constants is None:
        return BanditLearner(rounds, scale=scale)
    share = min(1.0, explore_rounds / rounds)
    return DQNLearner(replace(constants, explore_share=share, **setting), rounds, scale)


def tail(trace: np.ndarray) -> np.ndarray:
    """Mean over the last sixth of the rounds, one number per run."""
    last = trace[-max(1, len(trace) // 6) :]
    return last.reshape(len(last), last.shape[1], -1).mean((0, 2))


def smooth(trace: np.ndarray, window: int = 50) -> np.ndarray:
    """Running mean over rounds of the mean over runs and agents."""
    curve = trace.reshape(len(trace), -1).mean(1)
    return np.convolve(curve, np.ones(window) / window, mode="valid") if len(curve) > window else curve


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
    market = lower_market()
    best = market.analysis(market.reset(0))["table_a"].utility[0, 0, 13]
    findings = []
    for name, setting in SETTINGS.items():
        records: dict[str, Record] = {}
        for algorithm in VARIANTS:
            slicer = learner(algorithm, rounds, setting, 1.0, min(1000, rounds // 2))
            policies = {"bidder": Constant([100.0]), "slicer": slicer}
            records[algorithm] = play(market, policies, rounds, seeds, keep=_SEEN)
            console.print(f"lower tier, {name}, {algorithm}: {records[algorithm].seconds:.0f} s")
        drawing, axes = figure(width=16.0, panels=5)
        shown_keys = ("ssr_volte", "ssr_urllc", "ssr_embb", "spectral_efficiency", "utility")
        for axis, key in zip(axes, shown_keys, strict=True):
            for algorithm, record in records.items():
                axis.plot(smooth(record.traces[key]), label=algorithm, linewidth=0.9)
            axis.set(title=key, xlabel="round")
        axes[0].legend(fontsize=7)
        drawing.savefig(folder / f"fig7-11-{name}.png", dpi=130)
        data = {a: {k: tail(r.traces[k]) for k in _SEEN} for a, r in records.items()}
        for a, r in records.items():
            data[a]["volte_median"] = np.median(r.traces["ssr_volte"][-max(1, rounds // 6) :], axis=(0, 2))
        findings += _lower_findings(name, data, float(best))
    return findings


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
    market = marketenvs.make(ID, preset="paper", payment="eq4")
    state = market.reset(0)
    optimum = float(market.equilibrium(state).values["bidder"][0, 0])
    findings = []
    for name, setting in SETTINGS.items():
        data: dict[str, dict[str, np.ndarray]] = {}
        drawing, axes = figure(width=14.0, panels=4)
        for algorithm in VARIANTS:
            bidder = learner(algorithm, rounds, setting, 10.0, min(2000, rounds // 2))
            record = play(market, {"bidder": bidder}, rounds, seeds, keep=_UPPER)
            console.print(f"upper tier, {name}, {algorithm}: {record.seconds:.0f} s")
            data[algorithm] = {k: tail(v) for k, v in record.traces.items()}
            for axis, key in zip(axes[:2], ("profit", "objective"), strict=True):
                axis.plot(smooth(record.traces[key]), label=algorithm, linewidth=0.9)
        for axis, key in zip(axes[2:], ("profit", "objective"), strict=True):
            axis.violinplot([data[a][key] for a in VARIANTS], showmeans=True)
            axis.set_xticks(range(1, len(VARIANTS) + 1), list(VARIANTS), rotation=40, fontsize=7)
        for axis, title in zip(
            axes, ("profit (Fig. 12)", "utility F (13)", "profit (14)", "utility F (15)"), strict=True
        ):
            axis.set_title(title)
        axes[0].legend(fontsize=7)
        drawing.savefig(folder / f"fig12-15-{name}.png", dpi=130)
        findings += _upper_findings(name, data, optimum)
    return findings


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
            bool(abs(gap) > widest),
        ),
    ]


# -- libraries --------------------------------------------------------------------------------------------------------


def trainers(folder: Path, seeds: list[int], rounds: int, console: Any) -> list[Finding]:
    """Our DQN family and SB3's DQN on the lower tier's market, corrected constants: regret of the trained policy."""
    best = lower_optimum()
    data = {
        **_two_tier_trainers.ours(lower_market, best, seeds, rounds),
        **_two_tier_trainers.sb3(lower_market, best, seeds, rounds),
    }
    for name, values in data.items():
        console.print(f"{name}: {shown(values)}")
    text = "; ".join(f"{name} {shown(values)}" for name, values in data.items())
    verdict = above(data["ours DQN"], data["SB3 DQN"])
    same = verdict is None and above(data["SB3 DQN"], data["ours DQN"]) is None
    where = f"operator 1, 13 blocks, {rounds} rounds, {len(seeds)} seeds, regret in f of the greedy policy (optimum {best:.4f})"
    claim = "ours: our DQN and SB3's learn equally well with the same constants"
    return [Finding("libraries", claim, where, text, bool(same), {k: v.tolist() for k, v in data.items()})]


def trainers_of_rllib(folder: Path, seeds: list[int], rounds: int, console: Any) -> list[Finding]:
    """RLlib's DQN on the same market, both switches set."""
    best = lower_optimum()
    data = _two_tier_trainers.rllib(lower_market, best, seeds, rounds, console)
    text = "; ".join(f"{name} {shown(values)}" for name, values in data.items())
    plain, dueling = data["RLlib DQN"], data["RLlib Double-Dueling"]
    where = f"as above, {len(seeds)} seeds, ``dueling`` and ``double_q`` set in every variant"
    claim = "Dueling DQN has less regret than DQN (the paper's order, in RLlib's implementation)"
    return [Finding("libraries", claim, where, text, above(plain, dueling), {k: v.tolist() for k, v in data.items()})]


def lower_optimum() -> float:
    """The best f of operator 1 with 13 blocks."""
    market = lower_market()
    return float(market.analysis(market.reset(0))["table_a"].utility[0, 0, 13])


# -- payment rules ----------------------------------------------------------------------------------------------------


CASES: dict[str, dict[str, Any]] = {
    "bidding": {"preset": "bidding"},
    "heterogeneous": {"preset": "heterogeneous"},
    # Reference case R8, whose Kelly equilibrium is 0.960 efficient, in a box that binds nobody.
    "low SNR": {
        "preset": "bidding",
        "positions": "given",
        "snr_bandwidth": (1.0, 5.0, 20.0, 100.0),
        "spectral_multiplier": 1.0,
        "floor_per_user": 0.0,
        "cap_per_user": (1 / 27, 3 / 26, 10 / 27, 40 / 17),
    },
}


def payment_rules(folder: Path, seeds: list[int], rounds: int) -> list[Finding]:
    """Four independent value learners (step 0.05) with linear pools of 10 bids, under each rule."""
    findings, rows = [], {}
    for rule in ("kelly", "posted", "efficient", "eq4"):
        for case, params in CASES.items():
            exact = marketenvs.make(ID, payment=rule, **params)
            if rule == "posted":
                prices = np.maximum(exact.analysis(exact.reset(0))["efficient_prices"][0], 1e-6)
                params = {**params, "price": tuple(prices)}
                exact = marketenvs.make(ID, payment=rule, **params)
            market = marketenvs.make(ID, payment=rule, bid_levels=10, **params)
            state, same = market.reset(0), exact.reset(0)
            best = float(market.social_optimum(state).value[0])
            scale = best / 4
            record = play(market, {"bidder": BanditLearner(rounds, step=0.05, scale=scale)}, rounds, seeds)
            pool, free, share = [], [], []
            for policies in record.policies:
                policy = policies["bidder"]
                policy.start(market, "bidder", 1, 0)
                bids = policy.act_at(market.stage("bidding"), market.observe(state, "bidding"), None, state)
                pool.append(float(market.nash_conv(state, {"bidding": bids}).upper[0]) / best)
                free.append(float(exact.nash_conv(same, {"bidding": bids}).upper[0]) / best)
                share.append(float(market.outcome(state, {"bidding": bids}).metrics["welfare"][0]) / best)
            rows[rule, case] = share
            there = exact.analysis(same)["efficiency"][0]
            text = (
                f"efficiency {shown(np.array(share))} (equilibrium {there:.4f}); NashConv over the optimum: pool "
                f"{shown(np.array(pool))}, continuous {shown(np.array(free))}"
            )
            claim = "ours: independent learners reach an equilibrium of the pool (NashConv < 0.1 % of the optimum)"
            findings.append(Finding(f"rule {rule}", claim, case, text, iqm(np.array(pool)) < 1e-3))
    drawing, axes = figure(width=12.0, panels=3)
    for axis, case in zip(axes, CASES, strict=True):
        rules = [r for r, c in rows if c == case]
        axis.boxplot([rows[r, case] for r in rules])
        axis.set_xticks(range(1, len(rules) + 1), rules)
        axis.set(title=case, ylabel="welfare / optimum")
    drawing.savefig(folder / "payment_rules.png", dpi=130)
    return findings
