"""Two-tier bidding, not in the paper: what four independent learners make of each payment rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from marketenvs_baselines.bandit import BanditLearner
from marketenvs_baselines.run import play

import marketenvs

from ..statistics import iqm
from ._report import Finding, figure
from ._two_tier_tools import ID, shown

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
