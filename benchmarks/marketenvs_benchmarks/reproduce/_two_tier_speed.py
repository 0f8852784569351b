"""Speed of the two-tier solvers and of the deep Q-learning loop, in CPU seconds of one core (robust where other work shares the machine)."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import marketenvs
from marketenvs.markets.two_tier_bidding import oracle, radio
from marketenvs.markets.two_tier_bidding.game import Game
from marketenvs.markets.two_tier_bidding.tasks import TASKS
from marketenvs.markets.two_tier_bidding.values import Values
from marketenvs.policy import Constant

from ._report import Finding

REPEATS = 5


def cpu(action: Callable[[], Any], repeats: int = REPEATS) -> list[float]:
    """CPU seconds of several runs, after one to warm up."""
    action()
    out = []
    for _ in range(repeats):
        begun = time.process_time()
        action()
        out.append(time.process_time() - begun)
    return out


def auctions(markets: int, operators: int) -> oracle.Auction:
    """Random auctions of the spec's sweep: S 1e-1..1e12 MHz, values 0.5-2."""
    rng = np.random.default_rng(0)
    shape = (markets, operators)
    return oracle.make_auction(Values("shannon", rng.uniform(0.5, 2, shape), 10 ** rng.uniform(-1, 12, shape)))


def solvers() -> list[Finding]:
    """The three solver bars of the issue."""
    rows = []
    for label, markets, operators, bar in (
        ("1,000 markets, M = 4", 1000, 4, 0.5),
        ("M = 10,000 bidders", 1, 10_000, 1.0),
    ):
        auction = auctions(markets, operators)
        seconds = cpu(functools.partial(oracle.equilibrium, auction))
        solution = oracle.equilibrium(auction)
        worst = float((oracle.gains(auction, solution.bids).sum(-1) / (1 + oracle.social_optimum(auction)[1])).max())
        rows.append((f"Kelly equilibria: {label}", bar, seconds, f"; largest NashConv / (1 + optimum) {worst:.1e}"))
    market: Any = marketenvs.make("TwoTierBidding-v0", preset="two_tier", lower="table")
    theta = market.reset(0, 1).theta

    def table() -> None:
        users = radio.drop_users(market.params, market.backend, theta, None, None)
        radio.build_network(market.params, market.backend, theta, users)

    rows.append(("table A for all n and m, its slices' tables included", 2.0, cpu(table), ""))
    definition = next(d for d in TASKS if d.name == "twotier-rb")
    pools: Any = marketenvs.make(definition.market, preset=definition.preset, **definition.params)
    state = pools.reset(0, 100)

    def enumerate_pools() -> None:
        game = Game(pools, pools.take(state, np.arange(100)))
        game.pool_payoffs({})

    rows.append(("payoffs of all 10^4 bids of 100 drawn pool markets", float("inf"), cpu(enumerate_pools), ""))
    return [speed(label, bar, seconds, extra) for label, bar, seconds, extra in rows]


def speed(label: str, bar: float, seconds: list[float], extra: str) -> Finding:
    """A solver's time beside its bar."""
    text = f"{np.median(seconds):.3f} s, {min(seconds):.3f}-{max(seconds):.3f} of {len(seconds)}{extra}"
    claim = f"ours: {label}" + (f" in < {bar:g} s of one core" if np.isfinite(bar) else "")
    return Finding(
        "speed",
        claim,
        "CPU seconds",
        text,
        bool(np.median(seconds) < bar),
        {"seconds": seconds, "bar": bar if np.isfinite(bar) else None},
    )


def learning(rounds: int = 300, markets: int = 10, repeats: int = 3) -> list[Finding]:
    """Environment steps per CPU second of our DQN and of SB3's, side by side, on two tasks of the suite.

    Ours trains ``markets`` runs at once, one gradient step on 32 transitions per run and round. SB3's trains one network in as many markets:
    once with the same number of gradient steps, once with one for all markets.
    """
    import torch

    torch.set_num_threads(1)
    findings = []
    for name, role, others, scale in (
        ("twotier-team", "bidder", {}, 36.0),
        ("twotier-rb", "slicer", {"bidder": Constant([300.0])}, 4.0),
    ):
        rates: dict[str, list[float]] = {"ours": [], "same": [], "one": []}
        _ours(name, role, others, scale, 60, markets)  # to warm up
        _sb3(name, role, others, scale, 60, markets, 1)
        for _ in range(repeats):
            rates["ours"].append(_ours(name, role, others, scale, rounds, markets))
            rates["same"].append(_sb3(name, role, others, scale, rounds, markets, markets))
            rates["one"].append(_sb3(name, role, others, scale, rounds, markets, 1))
        middle = {k: float(np.median(v)) for k, v in rates.items()}
        ratio = middle["ours"] / middle["same"]
        text = (
            f"{middle['ours']:.0f} steps per CPU second against SB3's {middle['same']:.0f} ({ratio:.1f} times) with as many gradient steps, "
            f"{middle['one']:.0f} with one in {markets}"
        )
        claim = "ours: the DQN loop makes at least 3 times SB3's environment steps (same market, task, network, batch, gradient steps)"
        where = f"{name}, {role}, {markets} markets at once, {rounds} rounds, median of {repeats}"
        findings.append(Finding("speed", claim, where, text, bool(ratio >= 3.0), rates))
    return findings


def _market(name: str) -> marketenvs.Market:
    definition = next(d for d in TASKS if d.name == name)
    return marketenvs.make(definition.market, preset=definition.preset, **definition.params)


def _ours(name: str, role: str, others: dict[str, Any], scale: float, rounds: int, markets: int) -> float:
    from marketenvs_baselines.dqn import Constants, DQNLearner
    from marketenvs_baselines.run import play

    market = _market(name)
    learner = DQNLearner(Constants(), rounds, scale)
    begun = time.process_time()
    play(market, {**others, role: learner}, rounds, list(range(markets)))
    return rounds * markets * market.roles[role] / (time.process_time() - begun)


def _sb3(name: str, role: str, others: dict[str, Any], scale: float, rounds: int, markets: int, updates: int) -> float:
    from stable_baselines3 import DQN

    from marketenvs.sb3 import MarketVecEnv

    from ._two_tier_trainers import sb3_settings

    env = MarketVecEnv(_market(name), role, markets, opponents=others or None, reward_scale={role: scale}, seed=0)
    model = DQN("MlpPolicy", env, **sb3_settings(rounds, env.num_envs, updates), seed=0, device="cpu")
    begun = time.process_time()
    model.learn(rounds * env.num_envs)
    return rounds * env.num_envs / (time.process_time() - begun)
