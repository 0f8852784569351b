"""Federated slicing, Figures 2-4 and what the paper claims about communication: claims beside what is found.

E1 forecasts (Fig. 2), E2 learning (Fig. 3), E3/E4 utilisation and satisfaction over the load (Fig. 4), E5 what forecasts are worth,
E6 communication, E7 which rule of the market makes which behaviour. The paper's traffic is not available: the generator's routed work
batches make device data informative by construction, and the same generator without them is the negative control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from marketenvs_baselines import netshare
from marketenvs_baselines.communication import Scheme
from marketenvs_baselines.forecasters import FORECASTERS, Split, forecast_needs, judge, make_forecaster

import marketenvs
from marketenvs.arrays import Uniform
from marketenvs.markets.federated_slicing import optimum, oracle, solve, traffic
from marketenvs.scoring import play_round

from ._report import Finding, figure, write_report

ID = "FederatedSlicing-v0"
SEEDS = 10
ROUNDS = 3000  # slots of training
EVERY = 2  # slots between updates, to keep all seeds and schemes within an hour of one core
USERS = (20, 40, 60, 80, 100, 120, 140, 160, 180, 200)


def main(folder: Path, console: Any, quick: bool = False) -> None:
    """Draw the figures and write the report."""
    findings: list[Finding] = []
    for name, part in (
        ("E1 forecasts", forecasts),
        ("E5 value of forecasts", value_of_forecasts),
        ("E7 mechanism", mechanism),
        ("E2 learning", learning),
        ("E3/E4 load sweep", load_sweep),
        ("E6 communication", communication),
    ):
        console.print(f"[dim]{name} ...[/]")
        findings += part(folder, quick)
    findings.sort(key=lambda f: f.item)
    notes = (
        "Synthetic traffic (the paper's data are not available); the negative control has no work batches. "
        "Mean ± standard error over seeds. "
        + (
            "QUICK run: few seeds and slots, only to see that everything works."
            if quick
            else f"{SEEDS} seeds unless said."
        )
    )
    write_report(folder, "Federated slicing, Figures 2-4 and communication", findings, console, notes=notes)


def pm(values: Any, digits: int = 3) -> str:
    """Mean and standard error."""
    v = np.asarray(values, float)
    error = v.std(ddof=1) / np.sqrt(len(v)) if len(v) > 1 else 0.0
    return f"{v.mean():.{digits}f} ± {error:.{digits}f}"


def significant(a: Any, b: Any) -> bool:
    """Whether paired values a are smaller than b by more than two standard errors."""
    d = np.asarray(b, float) - np.asarray(a, float)
    return bool(d.mean() > 2 * d.std(ddof=1) / np.sqrt(len(d))) if len(d) > 1 else bool(d[0] > 0)


# -- E1 -------------------------------------------------------------------------------------------------------------------


def forecasts(folder: Path, quick: bool) -> list[Finding]:
    """RMSE of every forecaster on routed traffic and on the control."""
    slots, seeds, names = (
        (600, 2, ("persistence", "ar", "var", "ridge", "lstm", "gat")) if quick else (4000, SEEDS, FORECASTERS)
    )
    rmse: dict[bool, dict[str, list[float]]] = {}
    mae: dict[bool, dict[str, list[float]]] = {}
    shown: dict[str, np.ndarray] = {}
    for pulses in (True, False):
        rmse[pulses], mae[pulses] = {n: [] for n in names}, {n: [] for n in names}
        for seed in range(seeds if pulses else max(2, seeds // 3)):
            loads, _ = traffic.simulate(slots, seed, pulses=pulses)
            split = Split.of(slots)
            for name in names:
                settings = {"epochs": 3} if quick and name in ("lstm", "gat", "gat_identity") else {}
                model = make_forecaster(name, 0, seed, **settings).fit(loads, split)
                errors = judge(model, loads, split)
                rmse[pulses][name].append(errors.rmse)
                mae[pulses][name].append(errors.mae)
                if pulses and seed == 0:
                    shown[name] = model.forecast(loads, split.validation)[:144]
        if pulses:
            loads, _ = traffic.simulate(slots, 0, pulses=True)
            truth = loads[Split.of(slots).validation :, 0].sum(axis=1)[:144]
    drawing, axes = figure(panels=2)
    axes[0].plot(truth, color="black", label="load")
    for name in ("gat", "lstm", "arima"):
        if name in shown:
            axes[0].plot(shown[name], label=name, linewidth=0.9)
    axes[0].set(xlabel="slot", ylabel="Mbit/s", title="one-step forecasts, slice 0")
    axes[0].legend(fontsize=7)
    place = np.arange(len(names))
    for k, pulses in enumerate((True, False)):
        axes[1].bar(
            place + 0.4 * k,
            [np.mean(rmse[pulses][n]) for n in names],
            0.4,
            label="routed work" if pulses else "control",
        )
    axes[1].set_xticks(place + 0.2, names, rotation=60, fontsize=7)
    axes[1].set(ylabel="RMSE (Mbit/s)")
    axes[1].legend(fontsize=7)
    drawing.savefig(folder / "fig2.png", dpi=130)
    routed, control = rmse[True], rmse[False]
    listing = ", ".join(f"{n} {pm(routed[n])}" for n in names)
    data = {"rmse": rmse[True], "mae": mae[True], "rmse_control": rmse[False], "mae_control": mae[False]}
    setting = f"T = {slots}, N = 100, slice 0, split 60/20/20 by time, {seeds} seeds"
    best = min(names, key=lambda n: np.mean(routed[n]))
    found = [
        Finding("E1 Fig. 2b", "the GAT twin has the lowest RMSE", setting, f"{listing}; lowest: {best}", best == "gat", data),
        Finding(
            "E1 Fig. 2b", "GAT beats LSTM (spatial correlation matters)", setting,
            f"GAT {pm(routed['gat'])}, LSTM {pm(routed['lstm'])}, plain ridge on device lags {pm(routed['ridge'])}",
            significant(routed["gat"], routed["lstm"]),
        ),
        Finding(
            "E1 control", "(ours) without moving work, device data carry nothing", "pulses off",
            f"AR {pm(control['ar'])}, ridge on devices {pm(control['ridge'])}, GAT {pm(control['gat'])}",
            bool(np.mean(control["ridge"]) > 0.99 * np.mean(control["ar"]) and np.mean(control["gat"]) > 0.99 * np.mean(control["ar"])),
        ),
    ]  # fmt: skip
    if "arima" in names:
        worst = max((n for n in names if n in ("gat", "lstm", "arima")), key=lambda n: np.mean(routed[n]))
        text = f"ARIMA {pm(routed['arima'])}, LSTM {pm(routed['lstm'])}; persistence {pm(routed['persistence'])} is worse than both"
        found.append(Finding("E1 Fig. 2b", "ARIMA is the worst of the three", setting, text, worst == "arima"))
        gain = 1 - np.mean(routed["gat"]) / np.mean(routed["gat_identity"])
        text = f"learned graph {pm(routed['gat'])}, A = I (equation 9 as printed) {pm(routed['gat_identity'])}: {100 * gain:.1f} % lower"
        found.append(
            Finding(
                "E1 graph",
                "the learned graph is what helps",
                setting,
                text,
                significant(routed["gat"], routed["gat_identity"]),
            )
        )
    return found


# -- E5 -------------------------------------------------------------------------------------------------------------------


def record_needs(users: int, slots: int, seed: int) -> tuple[Any, oracle.SliceGame, np.ndarray, np.ndarray]:
    """A long run of the market: its parameters' game with needs (T, M); loads and rates per block (T, M, N)."""
    market = marketenvs.make(ID, n_devices=users, horizon=slots)
    state = market.reset(seed)
    loads, rates, needs, shares = [], [], [], []
    for _ in range(slots):
        loads.append(state.nature.load[0])
        rates.append(state.nature.efficiency[0])
        needs.append(state.nature.need[0])
        shares.append(state.nature.load_share[0])
        state, _ = market.step(state, {"slice": 8.0})
    game = solve.game_of(market, state)  # type: ignore[arg-type]
    many = game._replace(
        need=np.array(needs),
        load_share=np.array(shares),
        request_min=game.request_min[:1],
        request_max=game.request_max[:1],
    )
    return market, many, np.array(loads), np.array(rates)


def part_of(game: oracle.SliceGame, first: int) -> oracle.SliceGame:
    """The slots from ``first`` on."""
    return game._replace(need=game.need[first:], load_share=game.load_share[first:])


def value_of_forecasts(folder: Path, quick: bool) -> list[Finding]:
    """Welfare of play that trusts each forecast, over the load."""
    slots, seeds = (500, 2) if quick else (3000, SEEDS)
    rows: dict[int, dict[str, list[float]]] = {}
    for users in (60, 100, 140):
        rows[users] = {n: [] for n in ("persistence", "ar", "ridge", "clairvoyant")}
        for seed in range(seeds):
            market, game, loads, rates = record_needs(users, slots, seed)
            split = Split.of(slots)
            test = part_of(game, split.validation)
            last_share = game.load_share[split.validation - 1 : -1]
            headroom = market.reset(0).theta.headroom[0]
            for name in ("persistence", "ar", "ridge"):
                if name == "persistence":
                    forecast = game.need[split.validation - 1 : -1]
                else:
                    forecast = forecast_needs(loads, rates, headroom, split, name, seed)
                requests = oracle.certainty_equivalent(test, forecast, last_share).requests
                rows[users][name].append(float(optimum.welfare(test, oracle.grants_of(test, requests)).mean()))
            rows[users]["clairvoyant"].append(float(optimum.welfare(test, oracle.equilibrium(test).grants).mean()))
    found = []
    for users, row in rows.items():
        gain = 100 * (np.mean(row["ridge"]) / np.mean(row["persistence"]) - 1)
        text = ", ".join(f"{n} {pm(v)}" for n, v in row.items()) + f"; device data over persistence: {gain:+.1f} %"
        found.append(
            Finding("E5 forecasts", "better forecasts raise the slices' reward", f"N = {users}, {seeds} seeds, equilibrium at the forecast", text,
                    significant(row["persistence"], row["ridge"]), row)
        )  # fmt: skip
    return found


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

_TRAINED: dict[str, list[Any]] = {}
_SCHEMES: dict[str, dict[str, Any]] = {
    "DT-MAFL": {"scheme": "federated", "twin": True},
    "FL": {"scheme": "federated"},
    "MADQN": {"scheme": "dqn"},
    "independent": {"scheme": "independent"},
    "central": {"scheme": "central"},
}


def score(market: Any, policy: Any, batch: int, slots: int, seed: int = 99) -> dict[str, float]:
    """Means over slots of one policy on test markets: welfare, NashConv, utilisation, satisfaction, used blocks."""
    policy.start(market, "slice", batch, 0)
    state = market.reset(seed, batch=batch, split="test")
    rows = []
    for t in range(slots):
        before = state
        state, outcome = play_round(market, state, {"slice": policy})
        m = outcome.metrics
        row = [
            m["welfare"].mean(),
            m["utilisation_match"].mean(),
            m["satisfied"].mean(),
            m["used"].mean(),
            m["utility"].mean(),
        ]
        row.append(market.nash_conv(before, {"slice": m["requests"]}).upper.mean() if t % 8 == 0 else np.nan)
        if t >= 4:
            rows.append(row)
    mean = np.nanmean(np.array(rows), axis=0)
    return dict(zip(("welfare", "match", "satisfied", "used", "utility", "nash_conv"), map(float, mean), strict=True))


def learning(folder: Path, quick: bool) -> list[Finding]:
    """Learning curves of the schemes, and where they end beside the equilibrium lines."""
    from marketenvs_baselines.federated import FederatedLearner, Settings
    from marketenvs_baselines.run import play

    rounds, seeds, loads = (300, 2, (60,)) if quick else (ROUNDS, SEEDS, (60, 140))
    drawing, axes = figure(panels=2)
    found = []
    for users in loads:
        market = marketenvs.make(ID, n_devices=users)
        ends: dict[str, list[dict[str, float]]] = {}
        for name, settings in _SCHEMES.items():
            learner = FederatedLearner(Settings(every=EVERY, **settings))
            record = play(market, {"slice": learner}, rounds, list(range(seeds)), keep=("welfare",))
            policies = [p["slice"] for p in record.policies]
            _TRAINED[f"{name}/{users}"] = policies
            ends[name] = [score(market, p, 6, 40) for p in policies]
            if users == loads[0]:
                window = max(1, rounds // 30)
                curve = record.traces["welfare"].mean(axis=1)
                smooth = np.convolve(curve, np.ones(window) / window, mode="valid")
                axes[0].plot(smooth, label=name, linewidth=0.9)
                loss = np.convolve(learner.losses, np.ones(window) / window, mode="valid")
                axes[1].semilogy(np.arange(len(loss)), loss, label=name, linewidth=0.9)
        lines = {
            "NE at the forecast": netshare.OnForecast(),
            "NE (clairvoyant)": netshare.NetShare(),
            "truthful": netshare.Truthful(),
        }
        reference = {name: score(market, policy, 24, 40) for name, policy in lines.items()}
        if users == loads[0]:
            for style, (name, value) in zip(("--", ":", "-."), reference.items(), strict=True):
                axes[0].axhline(value["welfare"], color="black", linestyle=style, linewidth=0.8, label=name)
        final = {n: [e["welfare"] for e in v] for n, v in ends.items()}
        text = ", ".join(
            f"{n} {pm(v)} (NashConv {np.mean([e['nash_conv'] for e in ends[n]]):.2f})" for n, v in final.items()
        )
        text += "; " + ", ".join(f"{n} {v['welfare']:.3f}" for n, v in reference.items())
        setting = f"N = {users}, {rounds} slots, {seeds} seeds, DDPG 2x64, rates 5e-4 and 2e-3"
        best = max(("DT-MAFL", "FL", "MADQN"), key=lambda n: np.mean(final[n]))
        data = {"final": final, "reference": reference}
        found += [
            Finding("E2 Fig. 3a", "DT-MAFL has the highest reward of DT-MAFL, FL and MADQN", setting,
                    f"{text}; highest: {best}", best == "DT-MAFL", data),
            Finding("E2 Fig. 3a", "the twin's forecast beats FL without it", setting, f"DT-MAFL {pm(final['DT-MAFL'])}, FL {pm(final['FL'])}",
                    significant(final["FL"], final["DT-MAFL"])),
            Finding("E2 Fig. 3a", "sharing parameters beats learning alone", setting, f"FL {pm(final['FL'])}, independent {pm(final['independent'])}",
                    significant(final["independent"], final["FL"])),
        ]  # fmt: skip
    axes[0].set(xlabel="slot", ylabel="sum of rewards", title=f"training, N = {loads[0]}")
    axes[1].set(xlabel="slot", ylabel="critic loss")
    axes[0].legend(fontsize=6)
    drawing.savefig(folder / "fig3.png", dpi=130)
    return found


# -- E3/E4 ----------------------------------------------------------------------------------------------------------------


def load_sweep(folder: Path, quick: bool) -> list[Finding]:
    """Utilisation and satisfaction over the users per slice."""
    users = (20, 100, 200) if quick else USERS
    batch, slots, seeds = (2, 24, 1) if quick else (6, 60, 3)
    policies: dict[str, Any] = {
        "NE (clairvoyant)": netshare.NetShare(), "NE (persistence)": netshare.OnForecast(), "truthful (persistence)": netshare.Truthful(),
        "NetShare, caps = need": netshare.NetShare("need"), "static NetShare": netshare.Static(), "all max": netshare.AllMax(),
    }  # fmt: skip
    learned = _generalists(quick)
    table: dict[str, dict[int, dict[str, float]]] = {n: {} for n in (*policies, *learned)}
    for n in users:
        market = marketenvs.make(ID, n_devices=n)
        for name, policy in policies.items():
            runs = [score(market, policy, batch, slots, 7 + s) for s in range(seeds)]
            table[name][n] = {k: float(np.mean([r[k] for r in runs])) for k in runs[0]}
        for name, several in learned.items():
            runs = [score(market, policy, batch, slots, 7) for policy in several]
            table[name][n] = {k: float(np.mean([r[k] for r in runs])) for k in runs[0]}
    drawing, axes = figure(panels=2)
    for name, row in table.items():
        axes[0].plot(list(row), [v["match"] for v in row.values()], marker=".", label=name, linewidth=0.9)
        axes[1].plot(list(row), [v["satisfied"] for v in row.values()], marker=".", linewidth=0.9)
    axes[0].set(xlabel="users per slice", ylabel="utilisation (match)")
    axes[1].set(xlabel="users per slice", ylabel="satisfied devices")
    axes[0].legend(fontsize=6)
    drawing.savefig(folder / "fig4.png", dpi=130)
    data = {name: {str(n): v for n, v in row.items()} for name, row in table.items()}
    rivals = [n for n in ("FL", "MADQN", "NetShare, caps = need", "static NetShare") if n in table]
    verdicts = {}
    for key in ("match", "satisfied"):
        verdicts[key] = all(table["DT-MAFL"][n][key] >= max(table[r][n][key] for r in rivals) for n in users)
    setting = f"N in {users}, {batch * seeds} markets x {slots} slots; learners trained on load ~ U(.2, 2)"

    def shown(key: str, names: Sequence[str]) -> str:
        return "; ".join(
            f"{n}: " + ", ".join(f"{table[n][u][key]:.2f}" for u in (users[0], users[len(users) // 2], users[-1]))
            for n in names
        )

    chosen = ["DT-MAFL", "FL", "MADQN", "NE (clairvoyant)", "NetShare, caps = need", "static NetShare"]
    fall = all(table[n][users[-1]]["satisfied"] < table[n][users[0]]["satisfied"] for n in table)
    return [
        Finding("E3 Fig. 4a", "DT-MAFL has the highest utilisation at every load", setting, shown("match", chosen), verdicts["match"], data),
        Finding("E4 Fig. 4b", "DT-MAFL has the highest satisfaction at every load", setting, shown("satisfied", chosen), verdicts["satisfied"]),
        Finding("E4 Fig. 4b", "DT-MAFL keeps satisfaction where FL and MADQN fall", setting,
                f"it falls for every scheme, the clairvoyant equilibrium too: {shown('satisfied', ['NE (clairvoyant)', 'DT-MAFL'])}", not fall),
        Finding("E3 Fig. 4a", "Netshare is the least efficient", setting,
                "work-conserving NetShare with caps at the peaks IS the Nash allocation; static shares waste: "
                + shown("match", ["static NetShare"]),
                bool(min(table, key=lambda n: np.mean([v["match"] for v in table[n].values()])) == "NetShare, caps = need")),
    ]  # fmt: skip


def _generalists(quick: bool) -> dict[str, list[Any]]:
    """DT-MAFL, FL and MADQN trained over drawn loads, so that one policy meets every number of users."""
    from marketenvs_baselines.federated import FederatedLearner, Settings
    from marketenvs_baselines.run import play

    rounds, seeds = (200, 1) if quick else (ROUNDS, 3)
    market = marketenvs.make(ID, load=Uniform(0.2, 2.0), horizon=48)
    out = {}
    for name in ("DT-MAFL", "FL", "MADQN"):
        learner = FederatedLearner(Settings(every=EVERY, **_SCHEMES[name]))
        out[name] = [p["slice"] for p in play(market, {"slice": learner}, rounds, list(range(seeds))).policies]
    return out


# -- E6 -------------------------------------------------------------------------------------------------------------------


def communication(folder: Path, quick: bool) -> list[Finding]:
    """Bytes per slot of every scheme, and reward against bytes over the period of averaging."""
    from marketenvs_baselines.federated import FederatedLearner, Settings
    from marketenvs_baselines.run import play

    paper, ours = Scheme(), Scheme(observation=12, layers=2)
    table = paper.table()
    text = ", ".join(f"{k} {v:,.0f} B" for k, v in table.items())
    rounds, seeds, periods = (200, 2, (10, 100)) if quick else (2000, 4, (10, 100, 1000))
    market = marketenvs.make(ID, n_devices=60)
    reward = {}
    for period in periods:
        learner = FederatedLearner(Settings(scheme="federated", every=EVERY, period=period))
        record = play(market, {"slice": learner}, rounds, list(range(seeds)))
        reward[period] = [score(market, p["slice"], 6, 24)["welfare"] for p in record.policies]
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
        Finding("E6 reward", "(ours) what averaging more often buys", f"{rounds} slots, {seeds} seeds", shown, None),
    ]  # fmt: skip
