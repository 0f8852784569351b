"""What the paper's learners end with in coalition trading, run by run: the default market and the mixed regimes.

CoST-MADDPG, ST-MADDPG and SA-DDPG are `marketenvs_baselines.maddpg`; regret matching plus is the control that can mix. Finished
trainings are kept in a file, so that a killed run goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from marketenvs_baselines import maddpg, regret_matching_plus
from marketenvs_baselines.run import play

import marketenvs
from marketenvs.policy import EquilibriumPolicy
from marketenvs.scoring import play_round, strategy_at
from marketenvs.task import write_json

from ._report import Finding

ID = "CoalitionTrading-v0"
SEEDS, ROUNDS, STEPS = 10, 2_500, 20_000
"""Runs of every learner, rounds of the networks (the paper's iterations), steps of regret matching."""


class Kept:
    """Finished trainings by name, in one JSON file.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def __call__(self, key: str, train: Callable[[], list[dict[str, float]]]) -> list[dict[str, float]]:
        """What ``train`` gave under this name before, or gives now."""
        if key not in self.rows:
            self.rows[key] = train()
            write_json(self.path, self.rows)
        return self.rows[key]


class _Task:
    """What `train_many` needs of a task, for one setting of the market."""

    scale: Mapping[str, float] = {"seller": 50.0, "buyer": 30.0}

    def __init__(self, **settings: Any):
        self.settings = settings

    def make_market(self, **overrides: Any) -> Any:
        """The market."""
        return marketenvs.make(ID, **self.settings, **overrides)


LEARNERS: dict[str, tuple[dict[str, Any], str]] = {
    "CoST-MADDPG": ({}, "agents"),
    "ST-MADDPG": ({"formation": "singletons"}, "agents"),
    "SA-DDPG (sellers)": ({"formation": "singletons"}, "sellers"),
    "SA-DDPG (system)": ({}, "system"),
}


def learners(seeds: int, rounds: int, console: Any, kept: Kept) -> dict[str, dict[str, float]]:
    """Mean price, PRBs, welfare ratio and NashConv of every trained algorithm in the default market."""
    out = {}
    for name, (settings, owner) in LEARNERS.items():

        def train(settings: Mapping[str, Any] = settings, owner: str = owner) -> list[dict[str, float]]:
            task = _Task(**settings)
            trained = maddpg.train_many(task, list(range(seeds)), rounds, owner=owner)
            return [_judge(task.make_market(), policies) for policies in trained]

        rows = kept(f"default, {name}, {seeds} seeds, {rounds} rounds", train)
        out[name] = {key: float(np.mean([r[key] for r in rows])) for key in rows[0]}
        if console is not None:
            console.print(
                f"trained {name}: " + ", ".join(f"{k} {v:.3g}" for k, v in out[name].items()), highlight=False
            )
    return out


def _judge(market: Any, policies: Mapping[str, Any]) -> dict[str, float]:
    record = play(market, policies, 20, [0], tail=1.0, keep=("pricing", "purchase"))
    state = market.reset(0)
    best = float(market.social_optimum(state).value[0])
    last = {name: record.traces[name][-1] for name in ("pricing", "purchase")}
    return {
        "price": float(record.metrics["price"].mean()),
        "quantity": float(record.metrics["quantity"].mean()),
        "ratio": float(record.metrics["welfare"].mean()) / best,
        "nash_conv": float(market.nash_conv(state, last).lower[0]),
    }


# ---------------------------------------------------------------- the mixed regimes


MIXED: dict[str, dict[str, Any]] = {"R3": {"preset": "reduced"}, "R4": {"preset": "reduced", "reputation": (0.6, 0.8)}}
"""Coalitions {1, 3} and {2, 3} of the default market: sellers mix, and no pair of pure prices is an equilibrium."""


def gaps(market: Any, policies: Mapping[str, Any], rounds: int = 20) -> dict[str, float]:
    """NashConv after ``rounds`` of play: the sellers' against exact followers, and that of the whole profile."""
    state = market.reset(0)
    for role, policy in policies.items():
        policy.start(market, role, 1, 0)
    for _ in range(rounds):
        state, outcome = play_round(market, state, policies)
    first, second = market.stages
    prices = strategy_at(market, first, policies[first.role], state, 256)
    played = np.broadcast_to(prices.draw(np.full((1, market.roles["seller"]), 0.5)), (1, market.roles["seller"], 1))
    here = market.commit(state, first.name, played)
    asked = strategy_at(market, second, policies[second.role], here, 1)
    exact = market.equilibrium(state).strategy[second.name]
    alone = market.nash_conv(state, {first.name: prices, second.name: exact}).lower[0]
    whole = alone if isinstance(policies["buyer"], EquilibriumPolicy) else None
    if whole is None:
        whole = market.nash_conv(state, {first.name: prices, second.name: asked}).lower[0]
    low, high = played[0, :, 0].min(), played[0, :, 0].max()
    earned = float(np.mean(outcome.payoffs["seller"]))
    return {"sellers": float(alone), "profile": float(whole), "low": float(low), "high": float(high), "profit": earned}


def mixed_runs(case: str, algorithm: str, seeds: int, budget: int) -> list[dict[str, float]]:
    """`gaps` of every trained run of an algorithm in a mixed regime."""
    task = _Task(**MIXED[case])
    if algorithm == "regret matching plus":
        trained = regret_matching_plus.train_many(task, list(range(seeds)), budget)
    else:
        trained = maddpg.train_many(task, list(range(seeds)), budget, owner=MIXED_LEARNERS[algorithm])
    return [gaps(task.make_market(), policies) for policies in trained]


MIXED_LEARNERS = {"CoST-MADDPG": "agents", "SA-DDPG (sellers)": "sellers", "regret matching plus": ""}


def deterministic_bound(case: str) -> tuple[float, float]:
    """Least NashConv of any pair of pure prices, and the equilibrium's own profit."""
    market = marketenvs.make(ID, **MIXED[case])
    state = market.reset(0)
    found = market.equilibrium(state)
    assert found.certified.all()
    return float(market.analysis(state)["best_deterministic"][0]), float(found.values["seller"][0, 0])


def mixed_regimes(seeds: int, rounds: int, steps: int, console: Any, kept: Kept) -> list[Finding]:
    """Learners where no deterministic policy is an equilibrium: everybody's NashConv beside the best deterministic bound."""
    findings = []
    for case in MIXED:
        bound, profit = deterministic_bound(case)
        rows = {}
        for name, owner in MIXED_LEARNERS.items():
            budget = rounds if owner else steps
            key = f"{case}, {name}, {seeds} seeds, {budget} rounds"
            rows[name] = kept(key, partial(mixed_runs, case, name, seeds, budget))
        shown = "; ".join(f"{name} {_spread([r['sellers'] for r in runs])}" for name, runs in rows.items())
        if console is not None:
            console.print(f"{case}: best deterministic {bound:.2f}; {shown}", highlight=False)
        best = min(np.median([r["sellers"] for r in rows[name]]) for name, owner in MIXED_LEARNERS.items() if owner)
        findings.append(
            Finding(
                f"{case}, mixed prices",
                "the paper's networks learn the Stackelberg equilibrium",
                f"coalition {'{1, 3}' if case == 'R3' else '{2, 3}'}, two sellers; equilibrium profit {profit:.2f}, NashConv 0",
                f"sellers' NashConv, median [least, most] of {seeds} runs: {shown}; best pair of pure prices {bound:.2f}",
                bool(best < 0.05 * profit),
                {"bound": bound, "runs": rows},
            )
        )
    return findings


def _spread(values: Sequence[float]) -> str:
    return f"{np.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
