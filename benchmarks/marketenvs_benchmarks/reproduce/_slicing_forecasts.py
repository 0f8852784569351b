"""Federated slicing, E1 (who forecasts best) and E5 (what a forecast is worth); parts of `federated_slicing`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from marketenvs_baselines.forecasters import FORECASTERS, NEURAL, Split, forecast_needs, judge, make_forecaster

import marketenvs
from marketenvs.markets.federated_slicing import optimum, oracle, solve, traffic

from ._report import Finding, figure
from ._slicing_tools import ID, SEEDS, difference, pm, remembered, significant

NETWORK_SEEDS = SEEDS
NETWORKS_ON_CONTROL = 3
"""Seeds of the negative control on which the networks are trained too."""


def judged(folder: Path, name: str, slots: int, seed: int, pulses: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """RMSE and MAE of a forecaster on one trace, and a day of its test forecasts; remembered."""

    def run() -> dict[str, Any]:
        loads, _ = traffic.simulate(slots, seed, pulses=pulses)
        split = Split.of(slots)
        model = make_forecaster(name, 0, seed, **(settings if name in NEURAL else {})).fit(loads, split)
        errors = judge(model, loads, split)
        shown = model.forecast(loads, split.validation)[:144].tolist()
        return {"rmse": errors.rmse, "mae": errors.mae, "shown": shown if seed == 0 else []}

    trace = "routed" if pulses else "control"
    return remembered(folder, f"E1 {trace} seed {seed} {name}", [slots, settings], run)


def forecasts(folder: Path, quick: bool) -> list[Finding]:
    """RMSE of every forecaster on routed traffic and on the control."""
    slots, seeds, names = (
        (600, 2, ("persistence", "ar", "var", "ridge", "lstm", "gat")) if quick else (4000, SEEDS, FORECASTERS)
    )
    settings = {"epochs": 3} if quick else {}
    rmse: dict[bool, dict[str, list[float]]] = {}
    mae: dict[bool, dict[str, list[float]]] = {}
    shown: dict[str, np.ndarray] = {}
    for pulses in (True, False):
        rmse[pulses], mae[pulses] = {n: [] for n in names}, {n: [] for n in names}
        for seed in range(seeds):
            # The control needs its networks only to show that they gain nothing: a few seeds are enough.
            networks = NETWORK_SEEDS if pulses else NETWORKS_ON_CONTROL
            for name in names if seed < networks else [n for n in names if n not in NEURAL]:
                errors = judged(folder, name, slots, seed, pulses, settings)
                rmse[pulses][name].append(errors["rmse"])
                mae[pulses][name].append(errors["mae"])
                if pulses and seed == 0:
                    shown[name] = np.array(errors["shown"])
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
    if len(routed["gat"]) < seeds:
        setting += f" (networks {len(routed['gat'])})"
    best = min(names, key=lambda n: np.mean(routed[n][: len(routed["gat"])]))
    found = [
        Finding("E1 Fig. 2b", "the GAT twin has the lowest RMSE", setting, f"{listing}; lowest: {best}", best == "gat", data),
        Finding(
            "E1 Fig. 2b", "GAT beats LSTM (spatial correlation matters)", setting,
            f"GAT {pm(routed['gat'])}, LSTM {pm(routed['lstm'])}; LSTM minus GAT {difference(routed['gat'], routed['lstm'])}",
            significant(routed["gat"], routed["lstm"]),
        ),
        Finding(
            "E1 graph", "(ours) the device data need a graph network: ridge on device lags is worse", setting,
            f"ridge minus GAT {difference(routed['gat'], routed['ridge'])}", significant(routed["gat"], routed["ridge"]),
        ),
        Finding(
            "E1 control", "(ours) without moving work, device data carry nothing",
            f"pulses off, {seeds} seeds, networks on {len(control['gat'])}",
            ", ".join(f"{n} {pm(v)}" for n, v in control.items())
            + f"; AR minus ridge {difference(control['ridge'], control['ar'])}, AR minus GAT {difference(control['gat'], control['ar'])}",
            not significant(control["ridge"], control["ar"]) and not significant(control["gat"], control["ar"]),
        ),
    ]  # fmt: skip
    if "arima" in names:
        worst = max((n for n in names if n in ("gat", "lstm", "arima")), key=lambda n: np.mean(routed[n]))
        text = (
            f"ARIMA minus LSTM {difference(routed['lstm'], routed['arima'])}; persistence {pm(routed['persistence'])}"
        )
        found.append(Finding("E1 Fig. 2b", "ARIMA is the worst of the three", setting, text, worst == "arima"))
        gain = 1 - np.mean(routed["gat"]) / np.mean(routed["gat_identity"])
        text = (
            f"learned graph {pm(routed['gat'])}, A = I (equation 9 as printed) {pm(routed['gat_identity'])}: {100 * gain:.1f} % lower, "
            f"difference {difference(routed['gat'], routed['gat_identity'])}"
        )
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

            def run(users: int = users, seed: int = seed) -> dict[str, float]:
                return _welfare(users, slots, seed)

            for name, value in remembered(folder, f"E5 N {users} seed {seed}", [slots], run).items():
                rows[users][name].append(value)
    found = []
    for users, row in rows.items():
        gain = 100 * (np.mean(row["ridge"]) / np.mean(row["persistence"]) - 1)
        text = ", ".join(f"{n} {pm(v)}" for n, v in row.items()) + f"; device data over persistence: {gain:+.1f} %"
        found.append(
            Finding("E5 forecasts", "better forecasts raise the slices' reward", f"N = {users}, {seeds} seeds, equilibrium at the forecast", text,
                    significant(row["persistence"], row["ridge"]), row)
        )  # fmt: skip
    return found


def _welfare(users: int, slots: int, seed: int) -> dict[str, float]:
    """Mean welfare on the test slots of play that trusts each forecast."""
    market, game, loads, rates = record_needs(users, slots, seed)
    split = Split.of(slots)
    test = part_of(game, split.validation)
    last_share = game.load_share[split.validation - 1 : -1]
    headroom = market.reset(0).theta.headroom[0]
    out = {}
    for name in ("persistence", "ar", "ridge"):
        if name == "persistence":
            forecast = game.need[split.validation - 1 : -1]
        else:
            forecast = forecast_needs(loads, rates, headroom, split, name, seed)
        requests = oracle.certainty_equivalent(test, forecast, last_share).requests
        out[name] = float(optimum.welfare(test, oracle.grants_of(test, requests)).mean())
    out["clairvoyant"] = float(optimum.welfare(test, oracle.equilibrium(test).grants).mean())
    return out
