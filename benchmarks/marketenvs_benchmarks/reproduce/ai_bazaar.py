"""AI-Bazaar, Figures 6-9: the paper's claims beside what the market really gives.

Figures 7-9 are properties of the game: they are computed from the certified equilibrium through the public surface, under Table 1 as printed
(``table1``), with eps = 1/20 (``table1_ttrain``) and in the interior game (``calibrated``). Figure 6 is learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import marketenvs
from marketenvs.arrays import FirstThen

from ._report import Finding, figure, write_report

PRESETS = ("table1", "table1_ttrain", "calibrated")
SEEDS = 10


def main(folder: Path, console: Any, quick: bool = False) -> None:
    """Draw the figures and write the report."""
    findings = [*figure_7(folder), *figure_8(folder), *figure_9(folder), *figure_6(folder, console, quick)]
    findings.sort(key=lambda f: f.item)
    write_report(
        folder,
        "AI-Bazaar, Figures 6-9",
        findings,
        console,
        notes="Numbers are exact equilibria unless a learner is named.",
    )


def solve(preset: str, **params: Any) -> tuple[float, float, np.ndarray]:
    """Equilibrium price, provider's profit and consumers' profits of one market.

    Raises:
        AssertionError: The equilibrium is not certified.
    """
    market = marketenvs.make("AIBazaar-v0", preset=preset, **params)
    eq = market.equilibrium(market.reset(seed=0))
    assert eq.certified.all(), (preset, params, eq.epsilon)
    return float(eq.actions["pricing"][0, 0, 0]), float(eq.values["provider"][0, 0]), eq.values["consumer"][0]


def at_price(preset: str, price: float, **params: Any) -> np.ndarray:
    """Consumers' profits when they answer a fixed price."""
    market = marketenvs.make("AIBazaar-v0", preset=preset, **params)
    return market.respond(market.reset(seed=0), {"provider": price}).values["consumer"][0]


def peak(values: Sequence[float]) -> str:
    """Shape of a curve: "rises", "falls", "flat", "rises then falls" or "other"."""
    v = np.asarray(values, dtype=float)
    step = np.diff(v)
    tolerance = 1e-9 * max(1.0, float(np.abs(v).max()))
    up, down = step > tolerance, step < -tolerance
    if not up.any() and not down.any():
        return "flat"
    if not down.any():
        return "rises"
    if not up.any():
        return "falls"
    return "rises then falls" if np.flatnonzero(up).max() < np.flatnonzero(down).min() else "other"


def numbers(values: Any) -> str:
    """A few numbers for a table."""
    return ", ".join(f"{v:.5g}" for v in values)


# -- Figure 7: one-sided profit curves ------------------------------------------------------------------------------------


def figure_7(folder: Path) -> list[Finding]:
    """Profit over the own decision, everybody else at equilibrium play."""
    drawing, axes = figure(panels=2)
    found = []
    amounts, prices = np.linspace(10, 100, 181), np.linspace(10, 20, 401)
    for preset in PRESETS:
        market = marketenvs.make("AIBazaar-v0", preset=preset)
        price = 16.0 if preset == "calibrated" else 20.0
        one = market.reset(seed=0)
        answer = market.respond(one, {"provider": price}).on_path["purchase"]
        many = market.reset(seed=0, batch=len(amounts))
        bought = np.repeat(answer, len(amounts), axis=0)
        bought[:, 1, 0] = amounts
        own = market.payoff(many, {"provider": price, "consumer": bought})["consumer"][:, 1]
        axes[0].plot(amounts, own / np.abs(own).max(), label=preset)
        shape = peak(own)
        text = f"{shape}; {numbers(own[[0, 80, -1]])} at F = 10, 50, 100 (p = {price:g})"
        found.append(Finding("Fig. 7 left", "U_i peaks in F_i", preset, text, shape == "rises then falls"))
        many = market.reset(seed=0, batch=len(prices))
        value = market.respond(many, {"provider": prices[:, None, None]}).values["provider"][:, 0]
        axes[1].plot(prices, value / value.max(), label=preset)
        inside = 0 < int(value.argmax()) < len(prices) - 1
        text = f"best p = {prices[value.argmax()]:.3f}, U_cpp {numbers(value[[0, 160, 240, -1]])} at p = 10, 14, 16, 20"
        found.append(Finding("Fig. 7 right", "U_cpp peaks in p", preset, text, inside))
    axes[0].set(xlabel="own purchase F_i", ylabel="profit / largest", title="a consumer")
    axes[1].set(xlabel="price p", title="the provider (consumers answer)")
    axes[1].legend(fontsize=8)
    drawing.savefig(folder / "fig7.png", dpi=130)
    return found


# -- Figure 8: who gains, and how many consumers ---------------------------------------------------------------------------


def figure_8(folder: Path) -> list[Finding]:
    """One-sided optima against the equilibrium; profits over the number of consumers."""
    found = []
    drawing, axes = figure(panels=2)
    for k, preset in enumerate(PRESETS):
        market = marketenvs.make("AIBazaar-v0", preset=preset)
        state = market.reset(seed=0)
        extra = market.analysis(state)
        provider, consumers = extra["provider_optimum"], extra["consumers_optimum"]
        eq = market.equilibrium(state)
        rows = [
            ("CPP only (P1)", provider.price[0], provider.purchases[0]),
            ("consumers only (P2)", consumers.price[0], consumers.purchases[0]),
        ]
        pairs = []
        for _, price, bought in rows:
            pay = market.payoff(state, {"provider": float(price), "consumer": bought[None, :, None]})
            pairs.append((float(pay["provider"][0, 0]), float(pay["consumer"][0].sum())))
        pairs.append((float(eq.values["provider"][0, 0]), float(eq.values["consumer"][0].sum())))
        (a, b), (c, d), (e, f) = pairs
        between = c <= e <= a and b <= f <= d and not (abs(e - a) < 1e-6 and abs(f - b) < 1e-6)
        text = f"(U_cpp, sum U_i): CPP only ({a:.5g}, {b:.6g}), consumers only ({c:.5g}, {d:.6g}), equilibrium ({e:.5g}, {f:.6g})"
        claim = "the equilibrium lies between the consumers-only and the CPP-only optimum"
        found.append(Finding("Fig. 8a", claim, preset, text, between))
        if preset == "calibrated":
            names = ["CPP only", "equilibrium", "consumers only"]
            axes[0].bar(np.arange(3) - 0.2, [a, e, c], 0.4, label="U_cpp")
            axes[0].bar(np.arange(3) + 0.2, [b, f, d], 0.4, label="sum U_i")
            axes[0].set_xticks(range(3), names)
            axes[0].set(title="Fig. 8a, calibrated")
            axes[0].legend(fontsize=8)
        sizes = (2, 5, 10, 20, 30)
        solved = [solve(preset, n_consumers=n) for n in sizes]
        means, values = [float(s[2].mean()) for s in solved], [s[1] for s in solved]
        axes[1].plot(sizes, np.array(means) / means[0], "o-", color=f"C{k}", label=f"{preset}: mean U_i")
        axes[1].plot(sizes, np.array(values) / values[-1], "s--", color=f"C{k}", label=f"{preset}: U_cpp")
        holds = peak(means) == "falls" and peak(values) == "rises"
        text = f"N = 2, 5, 10, 20, 30: mean U_i {numbers(means)}; U_cpp {numbers(values)}"
        found.append(
            Finding("Fig. 8b", "with N, a consumer's profit falls and the provider's rises", preset, text, holds)
        )
    axes[1].set(xlabel="consumers N", ylabel="relative", title="Fig. 8b")
    axes[1].legend(fontsize=6)
    drawing.savefig(folder / "fig8.png", dpi=130)
    return found


# -- Figure 9: mining ratio, roles, rewards, block size ---------------------------------------------------------------------


def figure_9(folder: Path) -> list[Finding]:
    """Profits over beta_0, N, lambda and B."""
    drawing, axes = figure(width=14, panels=4)
    found = [*_beta(axes[0]), *_roles(axes[1]), *_performance(axes[2]), *_block(axes[3])]
    drawing.savefig(folder / "fig9.png", dpi=130)
    return found


def _beta(axis: Any) -> list[Finding]:
    betas = np.linspace(0.0, 1.0, 41)
    claim = "U_0 rises then falls in beta_0; a higher block reward is better and peaks later"
    found = []
    for preset in PRESETS:
        rewards = (20000.0, 25000.0, 30000.0, 35000.0, 40000.0)
        for fixed in (13.0, None):
            curves = []
            for reward in rewards:
                params: dict[str, Any] = {"block_reward": reward, "mining_ratio": None}
                curve = []
                for beta in betas:
                    params["mining_ratio"] = FirstThen(float(beta), 0.1)
                    curve.append(
                        float(at_price(preset, fixed, **params)[0] if fixed else solve(preset, **params)[2][0])
                    )
                curves.append(curve)
            shapes = [peak(c) for c in curves]
            tops = [float(betas[int(np.argmax(c))]) for c in curves]
            better = all(np.all(np.array(b) >= np.array(a) - 1e-6) for a, b in pairwise(curves))
            later = all(b >= a for a, b in pairwise(tops))
            holds = all(s == "rises then falls" for s in shapes) and better and later
            where = "price fixed at 13" if fixed else "price re-optimised"
            text = f"peaks at beta_0 = {numbers(tops)} for R = 20k..40k; shapes: {', '.join(sorted(set(shapes)))}"
            found.append(Finding("Fig. 9a", claim, f"{preset}, {where}", text, holds))
            if preset == "calibrated" and fixed:
                for reward, curve in zip(rewards, curves, strict=True):
                    axis.plot(betas, curve, label=f"R = {reward / 1000:g}k")
    axis.set(xlabel="beta_0", ylabel="U_0", title="9a calibrated, p = 13")
    axis.legend(fontsize=6)
    return found


def _roles(axis: Any) -> list[Finding]:
    sizes, betas = (2, 3, 5, 6, 8, 10, 12, 15, 20), (0.1, 0.2, 0.3)
    claim = "a large beta is better with few consumers and worse with many"
    found = []
    for preset in PRESETS:
        curves = {
            beta: [float(solve(preset, n_consumers=n, mining_ratio=FirstThen(beta, 0.1))[2][0]) for n in sizes]
            for beta in betas
        }
        few = curves[0.3][0] > curves[0.2][0] > curves[0.1][0]
        many = curves[0.3][-1] < curves[0.2][-1] < curves[0.1][-1]
        text = (
            "; ".join(f"beta_0 = {b}: {numbers(c)}" for b, c in curves.items())
            + f" for N = {', '.join(map(str, sizes))}"
        )
        found.append(Finding("Fig. 9b", claim, preset, text, few and many))
        if preset == "calibrated":
            for beta, curve in curves.items():
                axis.plot(sizes, curve, "o-", label=f"beta_0 = {beta}")
    axis.set(xlabel="consumers N", ylabel="U_0", title="9b calibrated", yscale="symlog")
    axis.legend(fontsize=6)
    return found


def _performance(axis: Any) -> list[Finding]:
    lambdas, rewards = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0), (20000.0, 30000.0, 40000.0)
    found = []
    for preset in PRESETS:
        curves = {r: [solve(preset, block_reward=r, transaction_reward=x)[1] for x in lambdas] for r in rewards}
        rising = all(peak(c) == "rises" for c in curves.values())
        higher = all(np.all(np.array(curves[b]) > np.array(curves[a])) for a, b in pairwise(rewards))
        text = (
            "; ".join(f"R = {r / 1000:g}k: {numbers(c)}" for r, c in curves.items())
            + " for lambda = 0, 5, 10, 15, 20, 30"
        )
        found.append(Finding("Fig. 9c", "U_cpp rises with lambda and with R", preset, text, rising and higher))
        if preset == "calibrated":
            for reward, curve in curves.items():
                axis.plot(lambdas, curve, "o-", label=f"R = {reward / 1000:g}k")
    axis.set(xlabel="lambda", ylabel="U_cpp", title="9c calibrated")
    axis.legend(fontsize=6)
    return found


def _block(axis: Any) -> list[Finding]:
    blocks, betas = (0.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0, 3000.0), (0.1, 0.15, 0.2, 0.3)
    found = []
    for preset in PRESETS:
        curves = {
            b: [float(solve(preset, block_size=x, mining_ratio=FirstThen(b, 0.1))[2][0]) for x in blocks] for b in betas
        }
        peaked = all(peak(c) == "rises then falls" for c in curves.values())
        ordered = all(np.all(np.array(curves[b]) >= np.array(curves[a])) for a, b in pairwise(betas))
        text = (
            "; ".join(f"beta_0 = {b}: {numbers(c)}" for b, c in curves.items())
            + f" for B = {', '.join(f'{x:g}' for x in blocks)}"
        )
        found.append(Finding("Fig. 9d", "U_0 rises then falls in the block size", preset, text, peaked))
        found.append(
            Finding("Fig. 9d", "a larger beta_0 is better at every block size", preset, "same numbers", ordered)
        )
        if preset == "calibrated":
            for beta, curve in curves.items():
                axis.plot(blocks, curve, "o-", label=f"beta_0 = {beta}")
    axis.set(xlabel="block size B", ylabel="U_0", title="9d calibrated")
    axis.legend(fontsize=6)
    return found


# -- Figure 6: learning ----------------------------------------------------------------------------------------------------


class _GridGame:
    """What a learner needs of a task: a market on the grid and reward scales."""

    def __init__(self, preset: str, scaled: bool = True):
        self.name = f"fig6-{preset}"
        self.preset = preset
        market = self.make_market()
        pay = market.payoff(market.reset(seed=0), {"provider": 15.0, "consumer": 50.0})
        self.scale = {role: max(1.0, float(np.abs(v).max())) if scaled else 1.0 for role, v in pay.items()}
        self.budget = 40_000

    def make_market(self, **overrides: Any) -> Any:
        return marketenvs.make("AIBazaar-v0", preset=self.preset, price_levels=11, amount_levels=10, **overrides)


def figure_6(folder: Path, console: Any, quick: bool) -> list[Finding]:
    """Final prices and profits of the learners on the grid, many seeds in one run each."""
    from marketenvs_baselines import ALGORITHMS

    drawing, axes = figure(panels=2)
    rounds, seeds = (4_000, range(3)) if quick else (40_000, range(SEEDS))
    claims = {
        "pb_marl": ("PB-MARL reaches the equilibrium", True),
        "pga_app": ("PGA-APP does not converge", False),
        "minimax_q": ("MiniMax-Q reaches the equilibrium", True),
    }
    learners = [
        ("pb_marl", True),
        ("pga_app", True),
        ("pga_app", False),
        ("minimax_q", True),
        ("giga_wolf", True),
        ("q_learning", True),
    ]
    found = []
    for axis, preset in zip(axes, ("table1", "calibrated"), strict=True):
        for name, scaled in learners:
            task = _GridGame(preset, scaled)
            budget = rounds if name != "minimax_q" else rounds // 8  # one linear program per agent and round
            policies = ALGORITHMS[name].run(task, list(seeds), budget, None)
            text, near, profits = _after_learning(task, policies)
            setting = f"{preset}, {'rewards divided by a constant' if scaled else 'raw rewards'}, {budget} rounds"
            claim, expected = claims.get(name, (f"({name} is not in the figure)", None))
            found.append(
                Finding("Fig. 6", claim, setting, text, None if expected is None else (near >= 0.5) == expected)
            )
            axis.plot(range(len(seeds)), sorted(profits), "o-", label=name + ("" if scaled else " (raw)"), markersize=3)
            console.print(f"  Fig. 6, {setting}, {name}: {text}", highlight=False, style="dim")
        axis.axhline(_target(task)[0], color="k", linestyle="--", linewidth=0.8, label="equilibrium")
        axis.set(xlabel="seed (sorted)", ylabel="U_cpp after learning", title=preset)
    axes[1].legend(fontsize=7)
    drawing.savefig(folder / "fig6.png", dpi=130)
    return found


def _target(task: _GridGame) -> tuple[float, float]:
    """Provider's profit and price in the grid's equilibrium."""
    market = task.make_market()
    eq = market.equilibrium(market.reset(seed=0))
    return float(eq.values["provider"][0, 0]), float(eq.actions["pricing"][0, 0, 0])


def _after_learning(task: _GridGame, policies: Sequence[dict[str, Any]]) -> tuple[str, float, list[float]]:
    """Modal prices and mean profits over 200 rounds of the final policies, and the share of seeds within 5 % of the equilibrium."""
    from marketenvs_baselines import play

    market, (target, price) = task.make_market(), _target(task)
    prices, profits = [], []
    for k, trained in enumerate(policies):
        record = play(market, trained, 200, [10_000 + k], keep=("pricing",), tail=1.0)
        levels, counts = np.unique(np.round(record.traces["pricing"], 6), return_counts=True)
        prices.append(float(levels[counts.argmax()]))
        profits.append(float(record.payoffs["provider"].mean()))
    near = float(np.mean(np.abs(np.array(profits) - target) < 0.05 * target))
    text = (
        f"modal prices {numbers(prices)} (equilibrium {price:g}); U_cpp {np.mean(profits):.0f} +- {np.std(profits):.0f} "
        f"(equilibrium {target:.0f}); {near:.0%} of {len(profits)} seeds within 5 %"
    )
    return text, near, profits
