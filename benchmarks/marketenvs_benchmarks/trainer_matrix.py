"""Every trainer on every market for a short budget: ``python -m marketenvs_benchmarks.trainer_matrix [--write]``.

Each trainer gets one small task of each market: drawn markets where it can play them, else the market's discrete preset.
It trains with each seed, its policies are saved, loaded again and scored twice, before and after. The report says what
improves on random play within that budget, what does not, what fails and what cannot play, and why. Budgets are far below
what the trainers need to get good: this shows that they run everywhere and learn, not which is best (the leaderboard does).

A finished run is one JSON file, written atomically under ``<results>/trainer-matrix``; a rerun does what is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from marketenvs_baselines import ALGORITHMS, Algorithm

import marketenvs
from marketenvs.errors import MarketEnvsError, NotOffered
from marketenvs.task import Definition, Plan, Task, build_task, load_task, write_json

from . import runs, statistics

FORMAT = 1
PRESETS: dict[str, tuple[str, ...]] = {
    "AIBazaar-v0": ("drawn", "grid"),
    "CoalitionTrading-v0": ("drop", "grid"),
    "FederatedSlicing-v0": ("drawn", "default"),
    "SpectrumBertrand-v0": ("drawn", "calvano"),
    "TwoTierBidding-v0": ("drawn", "two_tier"),
}
"""The presets that a trainer is tried on, in this order: it gets the first that it can play."""
PLAN = Plan(markets=8, prefixes=4, warm_up=2, draws=32)
TASK_ROUNDS = 8_000
"""The budget that the tasks name. It is part of their hash; what trainers get is below."""
ROUNDS = 32_000
"""Budget of SB3 and RLlib in market rounds: they play many markets side by side."""
OWN_ROUNDS = 10_000
"""Budget of our own learners, which play one market for every seed, round after round."""
COSTLY = {
    "rllib_ppo": 16_000,
    "rllib_dqn": 8_000,
    "rllib_sac": 4_000,
    "minimax_q": 2_000,
    "maddpg": 2_000,
    "sa_ddpg": 2_000,
    "sa_ddpg_system": 2_000,
}
"""Trainers that get less: a round costs them several to several hundred times what it costs the others of their kind."""
SEEDS = 10
FRAMEWORK_SEEDS = 5
"""Seeds of SB3 and RLlib, whose runs are trained one after another."""
CONTROLS = ("random",)
BELOW = (
    "- CoalitionTrading-v0: in a traced run of SB3's PPO the sellers' prices passed the cap within seven turns, while buyers still asked for the "
    "middle of their range at any price, and requests fell only slowly after that. SB3's PPO is near random after 32,000 rounds and well above it "
    "after 60,000 (coalition-drop on the [leaderboard](leaderboard.md)). `sa_ddpg`, whose buyers answer exactly, does not meet this.",
    "- FederatedSlicing-v0 at .50: everybody asks the most. Gaussian policies are led there within a few turns, and one whose mean has left "
    "the action range sees no difference between requests. SB3's actors pay for leaving it (`restraint`, [Train](how-to/train.md)), RLlib's do not.",
    "- `genetic` searches what is best for one role if it could set everybody's decisions; the roles' optima do not fit together. `bandit` "
    "learns one decision for all markets, and these are drawn anew.",
    "- RLlib's APPO and IMPALA update in a thread of their own while sampling goes on: how old their samples are depends on the machine.",
)
"""What the page says about trainers that do not improve; looked up in the runs, not derived."""
PAGE, DATA = Path("docs/trainers.md"), Path("docs/trainers.json")


def trainers() -> list[str]:
    """Names of all algorithms that learn (controls and fixed rules do not), frameworks first."""
    names = [n for n, a in ALGORITHMS.items() if a.quick_budget > 1]
    return sorted(names, key=lambda n: (not is_framework(n), not n.startswith("sb3_"), n))


def preset_for(algorithm: Algorithm, id: str) -> str:
    """The first preset of the market's that the algorithm can play.

    Raises:
        NotOffered: It can play none; the message says why not the last of them.
    """
    reason = None
    for preset in PRESETS.get(id, marketenvs.list_presets(id)[:1]):
        reason = algorithm.why_not(marketenvs.make(id, preset=preset))
        if reason is None:
            return preset
    raise NotOffered(reason or f"{id} has no preset to try")


def task_for(id: str, preset: str, folder: Path | None = None) -> Task:
    """The small task of a preset, built once and kept in ``folder``."""
    name = f"matrix-{id}-{preset}"
    path = None if folder is None else folder / "tasks" / f"{name}.json"
    if path is not None and path.is_file():
        with contextlib.suppress(MarketEnvsError):
            return load_task(path)
    task = build_task(Definition(name, id, preset=preset, rounds=TASK_ROUNDS, plan=PLAN), floors=False)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        task.save(path)
    return task


def is_framework(name: str) -> bool:
    """Whether it is one of SB3's or RLlib's."""
    return name.startswith(("sb3_", "rllib_"))


def budget_of(algorithm: Algorithm, rounds: int = ROUNDS) -> int:
    """Rounds that the algorithm gets: never more than its quick budget."""
    most = rounds if is_framework(algorithm.name) else min(rounds, OWN_ROUNDS)
    return min(most, algorithm.quick_budget, COSTLY.get(algorithm.name, most))


def run_pair(name: str, task: Task, seeds: Sequence[int], budget: int) -> list[dict[str, Any]]:
    """Train with each seed; score, save, load, score again.

    Returns:
        For each seed its score, its roles' scores, the score of the loaded policies, and seconds.
    """
    from marketenvs_baselines.store import load_policy, save_policy

    from marketenvs.scoring import evaluate

    begun, market = time.process_time(), task.make_market()
    trained = ALGORITHMS[name].run(task, seeds, budget)
    seconds = (time.process_time() - begun) / len(seeds)
    out = []
    for seed, policies in zip(seeds, trained, strict=True):
        found = evaluate(task, policies, seed=seed)
        row = {"seed": seed, "score": found.score, "scores": dict(found.scores), "nash_conv": found.nash_conv[0]}
        with tempfile.TemporaryDirectory(prefix="marketenvs-matrix-") as place:
            try:
                save_policy(Path(place) / "policy", policies, task)
                row["loaded"] = evaluate(task, load_policy(Path(place) / "policy", market), seed=seed).score
            except MarketEnvsError as error:
                row["loaded"], row["not_saved"] = None, str(error)
        out.append({**row, "kind": found.kind, "cpu_seconds": seconds})
    return out


def pairs(names: Sequence[str], markets: Sequence[str]) -> Iterator[tuple[str, str, str | None, str]]:
    """(trainer, market, preset, "") for all that can play, (trainer, market, None, why not) for the others."""
    for name in names:
        for id in markets:
            try:
                yield name, id, preset_for(ALGORITHMS[name], id), ""
            except NotOffered as error:
                yield name, id, None, str(error)


def path_of(folder: Path, name: str, id: str) -> Path:
    """Where the result of a pair belongs."""
    return folder / runs.safe_name(name) / f"{id}.json"


def read(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """A finished result of exactly this key; None if there is none, it is damaged, or it is a failure."""
    try:
        data = json.loads(path.read_text())
        whole = data["format"] == FORMAT and data["key"] == key and len(data["runs"]) == len(key["seeds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return data if whole else None


def do(folder: Path, names: Sequence[str], markets: Sequence[str], rounds: int, seeds: tuple[int, int]) -> None:
    """Do what is missing, one after another; a failure is written down and the next is done."""
    todo = list(pairs(names, markets))
    tasks: dict[tuple[str, str], Task] = {}
    with contextlib.ExitStack() as stack:
        ray = False
        for name, id, preset, _ in todo:
            if preset is None:
                continue
            if (id, preset) not in tasks:
                tasks[id, preset] = task_for(id, preset, folder)
            task, budget = tasks[id, preset], budget_of(ALGORITHMS[name], rounds)
            count = seeds[1] if is_framework(name) else seeds[0]
            key = {
                "trainer": name,
                "market": id,
                "preset": preset,
                "task_hash": task.hash,
                "budget": budget,
                "seeds": list(range(count)),
                "code": runs.code_of(name),
            }
            path = path_of(folder, name, id)
            if read(path, key) is not None:
                continue
            content: dict[str, Any] = {"format": FORMAT, "key": key, "provenance": runs.provenance()}
            begun = time.process_time()
            try:
                if name.startswith("rllib_") and not ray:
                    from marketenvs_baselines.rllib_trainers import local_ray

                    stack.enter_context(local_ray())  # one Ray for all of them
                    ray = True
                content["runs"] = run_pair(name, task, range(count), budget)
            except Exception as error:  # shown as what it is; the others go on
                content["runs"], content["failure"] = [], f"{type(error).__name__}: {error}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, content)
            outcome = content.get("failure") or _text(content["runs"])
            print(f"{name} on {id} ({preset}): {outcome}; {time.process_time() - begun:.0f} s", flush=True)


def _text(found: Sequence[dict[str, Any]]) -> str:
    return statistics.interval([r["score"] for r in found]).text(2)


def collect(folder: Path, names: Sequence[str], markets: Sequence[str]) -> dict[str, Any]:
    """What is there, as the content of ``docs/trainers.json``."""
    cells: dict[str, dict[str, Any]] = {}
    for name, id, preset, reason in pairs(names, markets):
        cell: dict[str, Any] = {"preset": preset}
        if preset is None:
            cell["cannot"] = reason
        else:
            try:
                data = json.loads(path_of(folder, name, id).read_text())
            except (OSError, ValueError):
                cell["missing"] = "not run"
            else:
                cell |= _summary(data)
        cells.setdefault(name, {})[id] = cell
    return {"format": FORMAT, "cells": cells, "provenance": runs.provenance()}


def _summary(data: dict[str, Any]) -> dict[str, Any]:
    about = {"preset": data["key"]["preset"], "budget": data["key"]["budget"], "commit": data["provenance"]["commit"]}
    if "failure" in data:
        return {**about, "failure": data["failure"]}
    found = data["runs"]
    between = statistics.interval([r["score"] for r in found])
    return {
        **about,
        "score": [between.value, between.low, between.high],
        "scores": [r["score"] for r in found],
        "nash_conv": sum(r["nash_conv"] for r in found) / len(found),
        "kind": max((r["kind"] for r in found), key=("exact", "bound", "estimate").index),
        "loaded_equal": all(r["loaded"] == r["score"] for r in found),
        "not_saved": next((r["not_saved"] for r in found if "not_saved" in r), None),
        "cpu_seconds": sum(r["cpu_seconds"] for r in found) / len(found),
    }


def _verdict(cell: dict[str, Any], base: float) -> str:
    low, high = cell["score"][1:]
    return "better" if low > base else "worse" if high < base else "open"


def markdown(found: dict[str, Any]) -> str:
    """The report as a page."""
    cells, markets = found["cells"], list(PRESETS)
    random = cells.get("random", {})
    base = {id: max(0.0, cell["score"][2]) if "score" in (cell := random.get(id, {})) else 0.0 for id in markets}
    notes: list[str] = []
    counts = dict.fromkeys(("better", "open", "worse", "failed", "not run"), 0)
    unequal: list[str] = []
    table = [f"| trainer | rounds | seeds | {' | '.join(markets)} |", "|---|---|---|" + "---|" * len(markets)]
    for name, row in cells.items():
        texts = []
        for id in markets:
            text, verdict = _cell(row.get(id, {"missing": "not run"}), base[id], notes, f"`{name}`, {id}")
            texts.append(text)
            if name not in CONTROLS and verdict:
                counts[verdict] += 1
            if row.get(id, {}).get("loaded_equal") is False:
                unequal.append(f"`{name}` on {id}: {row[id]['not_saved'] or 'another score'}")
        done = [c for c in row.values() if "score" in c]
        rounds = " / ".join(f"{b:,}" for b in sorted({c["budget"] for c in done})) or "-"
        table.append(f"| `{name}` | {rounds} | {len(done[0]['scores']) if done else '-'} | {' | '.join(texts)} |")
    total = sum(counts.values())
    presets = "; ".join(f"{id}: {', else '.join(f'`{p}`' for p in PRESETS[id])}" for id in markets)
    versions = found["provenance"]["versions"]
    tools = ", ".join(f"{n} {versions[n]}" for n in ("ray", "stable-baselines3", "torch", "numpy") if n in versions)
    lines = [
        "# Every trainer on every market",
        "",
        "Generated by `python -m marketenvs_benchmarks.trainer_matrix --write`; the numbers are in `trainers.json`.",
        "",
        "Each trainer learns all roles of a small task of each market for a short budget (the column of rounds; SB3 and RLlib play many "
        "markets side by side, and a round of one market counts as one) and is scored on "
        f"{PLAN.markets} held-out markets: 0 is uniform play, 1 the equilibrium, below 0 is worse than uniform. A cell is the interquartile "
        "mean over seeds with its 95 % bootstrap interval. **Bold**: the whole interval lies above random play's. *Italic*: the whole interval "
        "lies below zero. The budgets are short on purpose: this page shows that everything trains, saves, loads and improves or "
        "not, and says nothing of which trainer is best.",
        "",
        f"Presets, the first that a trainer can play: {presets}. A mark (d) says that it was the second, discrete one.",
        "",
        f"Of {total} pairs that can play: {counts['better']} improve on random, {counts['open']} are undecided, {counts['worse']} are worse, "
        f"{counts['failed']} failed, {counts['not run']} were not run.",
        "",
        *table,
        "",
        "Saved, loaded and scored again, the score is the same to the last digit"
        + (" for all." if not unequal else f", except: {'; '.join(unequal)}."),
        "",
        f"Measured with {tools}.",
        "",
    ]
    lines += ["## What stays below random, and why", "", *BELOW, ""]
    if notes:
        lines += ["## Who cannot play, and what failed", "", *notes, ""]
    return "\n".join(lines)


def _cell(cell: dict[str, Any], base: float, notes: list[str], where: str) -> tuple[str, str]:
    """The cell's text and its verdict ("" where the trainer cannot play)."""
    if "cannot" in cell:
        notes.append(f"- {where}: {cell['cannot']}.")
        return "-", ""
    if "missing" in cell:
        return "not run", "not run"
    if "failure" in cell:
        notes.append(f"- {where}: **failed**, {cell['failure']}.")
        return "failed", "failed"
    text = statistics.Interval(*cell["score"]).text(2)
    verdict = _verdict(cell, base)
    text = {"better": f"**{text}**", "open": text, "worse": f"*{text}*" if cell["score"][2] < 0 else text}[verdict]
    return text + (" (d)" if cell["preset"] in ("grid", "calvano", "two_tier") else ""), verdict


def main(arguments: list[str] | None = None) -> None:
    """Do what is missing, then print the report, and write it with ``--write``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", action="append", choices=[*CONTROLS, *trainers()], help="only these")
    parser.add_argument("--market", action="append", choices=list(PRESETS), help="only these")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of our own learners, trained together")
    parser.add_argument("--framework-seeds", type=int, default=FRAMEWORK_SEEDS, help="of SB3 and RLlib")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--report", action="store_true", help="only collect what is there")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE} and {DATA} of this checkout")
    given = parser.parse_args(arguments)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    warnings.simplefilter("ignore", DeprecationWarning)
    folder = runs.check_folder(given.results) / "trainer-matrix"
    markets = given.market or list(PRESETS)
    if not given.report:
        names = given.trainer or [*CONTROLS, *trainers()]
        do(folder, names, markets, given.rounds, (given.seeds, given.framework_seeds))
    found = collect(folder, [*CONTROLS, *trainers()], list(PRESETS))
    page = markdown(found)
    print(page)
    if given.write:
        PAGE.write_text(page)
        write_json(DATA, found)


if __name__ == "__main__":
    main()
