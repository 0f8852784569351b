"""Federated slicing, Figures 2-4 and what the paper claims about communication: claims beside what is found.

E1 forecasts (Fig. 2), E2 learning (Fig. 3), E3/E4 utilisation and satisfaction over the load (Fig. 4), E5 what forecasts are worth,
E6 communication, E7 which rule of the market makes which behaviour. The paper's traffic is not available: the generator's routed work
batches make device data informative by construction, and the same generator without them is the negative control.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from marketenvs_baselines import netshare
from marketenvs_baselines.communication import Scheme

import marketenvs
from marketenvs.arrays import Uniform
from marketenvs.scoring import play_round

from ._report import Finding, figure, write_report
from ._slicing_forecasts import forecasts, value_of_forecasts
from ._slicing_tools import EVERY, ID, ROUNDS, SEEDS, USERS, difference, pm, remembered, significant


def main(folder: Path, console: Any, quick: bool = False) -> None:
    """Draw the figures and write the report; what a stopped run left in ``folder/parts`` is taken up."""
    findings: list[Finding] = []
    for name, part in (
        ("E7 mechanism", mechanism),
        ("E6 communication", communication),
        ("E2 learning", learning),
        ("E3/E4 load sweep", load_sweep),
        ("E5 value of forecasts", value_of_forecasts),
        ("E1 forecasts", forecasts),
    ):
        console.print(f"[dim]{name} ...[/]")
        findings += part(folder, quick)
    findings.sort(key=lambda f: f.item)
    notes = (
        "Synthetic traffic (the paper's data are not available); the negative control has no work batches. "
        "Mean ± half width of the 95 % confidence interval (Student's t over seeds). "
        + ("QUICK run: few seeds and slots, only to see that everything works." if quick else f"{SEEDS} seeds.")
    )
    write_report(folder, "Federated slicing, Figures 2-4 and communication", findings, console, notes=notes)


# -- E7 -------------------------------------------------------------------------------------------------------------------


def mechanism(folder: Path, quick: bool) -> list[Finding]:
    """What each rule and each utilisation makes slices do, and the frozen game of the printed reward."""
    batch = 20 if quick else 200
    rows = {}
    for rule in ("proportional", "uniform"):
        for variant in ("match", "served", "efficiency", "paper"):
            market = marketenvs.make(ID, preset="drawn", rule=rule, utilisation=variant)
            state = market.reset(0, batch=batch)
            eq = market.equilibrium(state)
            truth = market.analysis(state)["peaks"]
            limits = {"slice": np.clip(truth, 0.1, 50.0)}
            rows[rule, variant] = {
                "welfare": float(eq.values["slice"].sum(axis=1).mean()),
                "truthful": float(market.nash_conv(state, limits).upper.mean()),
                "all_max": float(market.nash_conv(state, {"slice": 50.0}).upper.mean()),
                "asks_cap": float(np.mean(eq.actions["slice"] >= 50.0 - 1e-9)),
            }
    text = "; ".join(
        f"{rule}/{variant}: NashConv truthful {r['truthful']:.3g}, all-max {r['all_max']:.3g}, {100 * r['asks_cap']:.0f} % at the cap"
        for (rule, variant), r in rows.items()
    )
    monotone = all(
        rows["proportional", v]["all_max"] < 1e-12 and rows["proportional", v]["asks_cap"] == 1.0
        for v in ("paper", "served")
    )
    proof = rows["uniform", "match"]["truthful"] < 1e-12 < rows["proportional", "match"]["truthful"]
    market = marketenvs.make(ID, preset="paper")
    state = market.reset(0)
    start = np.array([[5.0, 20.0, 5.0, 5.0, 5.0, 10.0]])
    state = state._replace(history=state.history._replace(grants=start))
    for _ in range(30):
        state, outcome = market.step(state, {"slice": market.bounds(state, "request")[1]})
    frozen = float(np.max(np.abs(outcome.metrics["grants"] - start)))
    setting = f"load ~ U(.2, 2), {batch} markets"
    return [
        Finding("E7 reward", "the reward as printed makes forecasts matter", setting,
                f"with Omega = w/phi (or min(1, w/phi)) asking the cap is dominant whatever the demand: {text}", not monotone,
                {f"{a}/{b}": r for (a, b), r in rows.items()}),
        Finding("E7 relative action", "percent changes let slices adapt to demand", "preset paper, all play a = +1, 30 slots",
                f"grants stay at 5, 20, 5, 5, 5, 10 (largest change {frozen:.1e} RB): a demand-blind equilibrium", frozen > 1e-6),
        Finding("E7 rule", "(ours) the uniform rule is truthful, the proportional one is not", setting,
                f"NashConv of truthful peaks: uniform {rows['uniform', 'match']['truthful']:.2g}, "
                f"proportional {rows['proportional', 'match']['truthful']:.3g}", proof),
    ]  # fmt: skip


# -- E2 -------------------------------------------------------------------------------------------------------------------

_SCHEMES: dict[str, dict[str, Any]] = {
    "DT-MAFL": {"scheme": "federated", "twin": True},
    "FL": {"scheme": "federated"},
    "MADQN": {"scheme": "dqn"},
    "independent": {"scheme": "independent"},
    "central": {"scheme": "central"},
}


_GENERALISTS = ("DT-MAFL", "FL", "MADQN")
_KEYS = ("welfare", "match", "satisfied", "used", "utility", "nash_conv")


def score(market: Any, policy: Any, batch: int, slots: int, first: int = 0) -> dict[str, np.ndarray]:
    """Means over slots of one policy on test markets first, first + 1, ...: welfare, utilisation, satisfaction, ... (batch,)."""
    policy.start(market, "slice", batch, 0)
    state = market.reset(99, batch=batch, split="test", first=first)
    rows, gains = [], []
    for t in range(slots):
        before = state
        state, outcome = play_round(market, state, {"slice": policy})
        m = outcome.metrics
        if t >= 4:
            rows.append(
                [m["welfare"], m["utilisation_match"].mean(1), m["satisfied"].mean(1), m["used"], m["utility"].mean(1)]
            )
        if t % 8 == 4:
            gains.append(market.nash_conv(before, {"slice": m["requests"]}).upper)
    return dict(zip(_KEYS, [*np.mean(rows, axis=0), np.mean(gains, axis=0)], strict=True))


def means(found: Mapping[str, np.ndarray], groups: int = 1) -> dict[str, list[float]]:
    """Means over ``groups`` equal groups of markets."""
    return {k: v.reshape(groups, -1).mean(axis=1).tolist() for k, v in found.items()}


def train(
    market: Any, settings: Mapping[str, Any], rounds: int, seeds: int, keep: Sequence[str] = ()
) -> tuple[Any, Any]:
    """A scheme trained on a market, all seeds at once: the learner and its record."""
    from marketenvs_baselines.federated import FederatedLearner, Settings
    from marketenvs_baselines.run import play

    learner = FederatedLearner(Settings(every=EVERY, **settings).within(rounds))
    return learner, play(market, {"slice": learner}, rounds, list(range(seeds)), keep=keep)


def learning(folder: Path, quick: bool) -> list[Finding]:
    """Learning curves of the schemes, and where they end beside the equilibrium lines."""
    rounds, seeds, loads = (300, 2, (60,)) if quick else (ROUNDS, SEEDS, (60, 140))
    window = max(1, rounds // 30)
    drawing, axes = figure(panels=2)
    found = []
    for users in loads:
        market = marketenvs.make(ID, n_devices=users)
        ends: dict[str, dict[str, list[float]]] = {}
        reached: dict[str, list[float]] = {}
        lines = {
            "NE at the forecast": netshare.OnForecast(), "NE (clairvoyant)": netshare.NetShare(), "truthful": netshare.Truthful(),
        }  # fmt: skip
        # The markets that the learners are judged on.
        reference = {name: means(score(market, policy, 6, 40)) for name, policy in lines.items()}
        goal = 0.85 * float(np.mean(reference["NE at the forecast"]["welfare"]))
        for name, settings in _SCHEMES.items():

            def run(market: Any = market, settings: Mapping[str, Any] = settings) -> dict[str, Any]:
                learner, record = train(market, settings, rounds, seeds, ("welfare",))
                scores = [means(score(market, p["slice"], 6, 40)) for p in record.policies]
                smooth = [_smooth(curve, window).tolist() for curve in record.traces["welfare"].T]
                ends = {k: [s[k][0] for s in scores] for k in _KEYS}
                return {"ends": ends, "curves": smooth, "loss": _smooth(np.array(learner.losses), window).tolist()}

            result = remembered(folder, f"E2 {name} N {users}", [rounds, seeds, EVERY], run)
            ends[name] = result["ends"]
            curves = np.array(result["curves"])
            above = curves >= goal
            reached[name] = np.where(above.any(axis=1), above.argmax(axis=1) + window, np.inf).tolist()
            if users == loads[0]:
                axes[0].plot(curves.mean(axis=0), label=name, linewidth=0.9)
                axes[1].semilogy(result["loss"], label=name, linewidth=0.9)
        if users == loads[0]:
            for style, (name, value) in zip(("--", ":", "-."), reference.items(), strict=True):
                axes[0].axhline(np.mean(value["welfare"]), color="black", linestyle=style, linewidth=0.8, label=name)
        found += _learned(
            users,
            f"N = {users}, {rounds} slots, {seeds} seeds, DDPG 2x64, rates 5e-4 and 2e-3",
            ends,
            reference,
            reached,
        )
    axes[0].set(xlabel="slot", ylabel="sum of rewards", title=f"training, N = {loads[0]}")
    axes[1].set(xlabel="update", ylabel="critic loss")
    axes[0].legend(fontsize=6)
    drawing.savefig(folder / "fig3.png", dpi=130)
    return found


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    return np.convolve(values, np.ones(window) / window, mode="valid")


def _learned(users: int, setting: str, ends: Any, reference: Any, reached: Mapping[str, list[float]]) -> list[Finding]:
    """E2's claims at one load."""
    final = {n: v["welfare"] for n, v in ends.items()}
    text = ", ".join(f"{n} {pm(v)} (NashConv {np.mean(ends[n]['nash_conv']):.2f})" for n, v in final.items())
    text += "; " + ", ".join(f"{n} {np.mean(v['welfare']):.3f}" for n, v in reference.items())
    data = {"final": final, "nash_conv": {n: v["nash_conv"] for n, v in ends.items()}, "reference": reference}
    rivals = [n for n in ("FL", "MADQN") if not significant(final[n], final["DT-MAFL"])]
    middle = {n: float(np.median(reached[n])) for n in ("DT-MAFL", "FL", "MADQN")}
    counted = {n: [x if np.isfinite(x) else None for x in v] for n, v in reached.items()}
    slots = ", ".join(f"{n} {v:.0f}" if np.isfinite(v) else f"{n} never" for n, v in middle.items())
    return [
        Finding("E2 Fig. 3a", "DT-MAFL has the highest reward of DT-MAFL, FL and MADQN", setting,
                text + (f"; not above {' and '.join(rivals)} by more than chance" if rivals else ""), not rivals, data),
        Finding("E2 Fig. 3a", "the twin's forecast beats FL without it", setting,
                f"DT-MAFL - FL {difference(final['FL'], final['DT-MAFL'])}", significant(final["FL"], final["DT-MAFL"])),
        Finding("E2 Fig. 3a", "sharing parameters beats learning alone", setting,
                f"FL - independent {difference(final['independent'], final['FL'])}", significant(final["independent"], final["FL"])),
        Finding("E2 Fig. 3a", "MADQN converges slower than FL and DT-MAFL", setting,
                f"median slots until the training reward reaches .85 of the equilibrium at the forecast: {slots} (MADQN sends nothing)",
                middle["MADQN"] > max(middle["FL"], middle["DT-MAFL"]), {"slots": counted}),
    ]  # fmt: skip


# -- E3/E4 ----------------------------------------------------------------------------------------------------------------


def load_sweep(folder: Path, quick: bool) -> list[Finding]:
    """Utilisation and satisfaction over the users per slice; lists over seeds throughout."""
    users = (20, 100, 200) if quick else USERS
    slots, seeds = (24, 2) if quick else (52, SEEDS)
    policies: dict[str, Any] = {
        "NE (clairvoyant)": netshare.NetShare(), "NE (persistence)": netshare.OnForecast(), "truthful (persistence)": netshare.Truthful(),
        "NetShare, caps = need": netshare.NetShare("need"), "static NetShare": netshare.Static(), "all max": netshare.AllMax(),
    }  # fmt: skip
    # Trained once, and only where something is left to play.
    learned = functools.cache(lambda: _generalists(quick, seeds))
    table: dict[str, dict[int, dict[str, list[float]]]] = {n: {} for n in (*policies, *_GENERALISTS)}
    for n in users:

        def fixed(n: int = n) -> dict[str, Any]:
            market = marketenvs.make(ID, n_devices=n)
            return {name: means(score(market, policy, 6 * seeds, slots), seeds) for name, policy in policies.items()}

        def trained(n: int = n) -> dict[str, Any]:
            # Seed k plays the k-th six of the markets that the others play: differences over seeds are paired.
            market, out = marketenvs.make(ID, n_devices=n), {}
            for name, several in learned().items():
                runs = [means(score(market, policy, 6, slots, 6 * k)) for k, policy in enumerate(several)]
                out[name] = {k: [r[k][0] for r in runs] for k in _KEYS}
            return out

        rows = remembered(folder, f"E3 fixed N {n}", [slots, seeds], fixed)
        rows |= remembered(folder, f"E3 trained N {n}", [slots, seeds, ROUNDS, EVERY, quick], trained)
        for name in table:
            table[name][n] = rows[name]
    drawing, axes = figure(panels=2)
    for name, row in table.items():
        axes[0].plot(list(row), [np.mean(v["match"]) for v in row.values()], marker=".", label=name, linewidth=0.9)
        axes[1].plot(list(row), [np.mean(v["satisfied"]) for v in row.values()], marker=".", linewidth=0.9)
    axes[0].set(xlabel="users per slice", ylabel="utilisation (match)")
    axes[1].set(xlabel="users per slice", ylabel="satisfied devices")
    axes[0].legend(fontsize=6)
    drawing.savefig(folder / "fig4.png", dpi=130)
    data = {name: {str(n): v for n, v in row.items()} for name, row in table.items()}
    rivals = [n for n in ("FL", "MADQN", "NetShare, caps = need", "static NetShare") if n in table]

    def mean(name: str, n: int, key: str) -> float:
        return float(np.mean(table[name][n][key]))

    verdicts, where = {}, {}
    for key in ("match", "satisfied"):
        wins = [n for n in users if mean("DT-MAFL", n, key) >= max(mean(r, n, key) for r in rivals)]
        verdicts[key], where[key] = len(wins) == len(users), f"highest at {len(wins)} of {len(users)} loads"
    setting = (
        f"N in {users}, {6 * seeds} markets x {slots - 4} slots; learners: {seeds} seeds trained on load ~ U(.2, 2)"
    )

    def shown(key: str, names: Sequence[str]) -> str:
        at = (users[0], users[len(users) // 2], users[-1])
        return f"N = {', '.join(map(str, at))}: " + "; ".join(
            f"{n} " + ", ".join(pm(table[n][u][key], 2) for u in at) for n in names
        )

    chosen = ["DT-MAFL", "FL", "MADQN", "NE (clairvoyant)", "NetShare, caps = need", "static NetShare"]
    fall = all(mean(n, users[-1], "satisfied") < mean(n, users[0], "satisfied") for n in table)
    rises = all(mean(n, users[-1], "used") > mean(n, users[0], "used") for n in table)
    least = min([*rivals, "DT-MAFL"], key=lambda n: np.mean([mean(n, u, "match") for u in users]))
    return [
        Finding("E3 Fig. 4a", "DT-MAFL has the highest utilisation at every load", setting,
                f"{where['match']}; {shown('match', chosen)}", verdicts["match"], data),
        Finding("E4 Fig. 4b", "DT-MAFL has the highest satisfaction at every load", setting,
                f"{where['satisfied']}; {shown('satisfied', chosen)}", verdicts["satisfied"]),
        Finding("E4 Fig. 4b", "DT-MAFL keeps satisfaction where FL and MADQN fall", setting,
                f"it falls for every scheme, the clairvoyant equilibrium too: {shown('satisfied', ['NE (clairvoyant)', 'DT-MAFL'])}", not fall),
        Finding("E3 Fig. 4a", "used blocks rise with the users", setting, shown("used", ["NE (clairvoyant)", "DT-MAFL", "FL"]), rises),
        Finding("E3 Fig. 4a", "Netshare is the least efficient", setting,
                f"least on average: {least}; work-conserving NetShare with caps at the peaks IS the Nash allocation; static shares waste: "
                + shown("match", ["static NetShare"]), least == "NetShare, caps = need"),
    ]  # fmt: skip


def _generalists(quick: bool, seeds: int) -> dict[str, list[Any]]:
    """DT-MAFL, FL and MADQN trained over drawn loads, so that one policy meets every number of users."""
    rounds = 200 if quick else ROUNDS
    market = marketenvs.make(ID, load=Uniform(0.2, 2.0), horizon=48)
    return {
        name: [p["slice"] for p in train(market, _SCHEMES[name], rounds, seeds)[1].policies] for name in _GENERALISTS
    }


# -- E6 -------------------------------------------------------------------------------------------------------------------


def communication(folder: Path, quick: bool) -> list[Finding]:
    """Bytes per slot of every scheme, and reward against bytes over the period of averaging."""
    paper, ours = Scheme(), Scheme(observation=12, layers=2)
    table = paper.table()
    text = ", ".join(f"{k} {v:,.0f} B" for k, v in table.items())
    rounds, seeds, periods = (200, 2, (10, 100)) if quick else (ROUNDS, SEEDS, (10, 100, 1000))
    market = marketenvs.make(ID, n_devices=60)
    reward = {}
    for period in periods:

        def run(period: int = period) -> list[float]:
            policies = train(market, {"scheme": "federated", "period": period}, rounds, seeds)[1].policies
            return [means(score(market, p["slice"], 6, 28))["welfare"][0] for p in policies]

        reward[period] = remembered(folder, f"E6 tau {period}", [rounds, seeds, EVERY], run)
    drawing, axes = figure(panels=1, width=5.0)
    axes[0].semilogx([ours.federated(p) for p in periods], [np.mean(reward[p]) for p in periods], marker="o")
    axes[0].set(xlabel="bytes per slot (2x64 networks)", ylabel="sum of rewards, N = 60")
    drawing.savefig(folder / "communication.png", dpi=130)
    shown = ", ".join(f"tau = {p}: {pm(reward[p])} at {ours.federated(p):,.0f} B/slot" for p in periods)
    less = paper.federated(100) < paper.raw_transitions()
    data: Mapping[str, Any] = {"bytes": table, "reward": {str(k): v for k, v in reward.items()}}
    return [
        Finding("E6 communication", "federated averaging reduces the communication of dynamic slicing", "6x64 networks, 2 inputs, tau = 100",
                f"{text}; averaging sends {paper.federated(100) / paper.raw_transitions():.0f}x the slices' raw transitions; break-even at tau = "
                f"{paper.break_even():,.0f}", less, data),
        Finding("E6 communication", "it reduces communication against raw device data", "tau = 100, N = 100",
                f"{paper.federated(100) / paper.raw_device_data():.1f}x the raw device data; less only from tau = {paper.break_even('devices'):.0f}",
                paper.federated(100) < paper.raw_device_data()),
        Finding("E6 reward", "(ours) averaging often earns more than averaging rarely", f"N = 60, {rounds} slots, {seeds} seeds",
                shown, significant(reward[periods[-1]], reward[10])),
    ]  # fmt: skip
