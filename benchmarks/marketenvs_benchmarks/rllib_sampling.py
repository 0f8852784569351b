"""RLlib's sampling speed on every market: ``python -m marketenvs_benchmarks.rllib_sampling [--write PAGE]``.

Five ways to the same experience, in one process, in turns (see :mod:`.throughput_measure`):

* RLlib's ``ParallelPettingZooEnv`` around the market's PettingZoo environment, in RLlib's own ``MultiAgentEnvRunner``;
* our ``MarketMultiAgentEnv`` in the same runner: only those who act observe and are asked;
* a hollow environment in the same runner, which plays back one recorded episode of ``MarketMultiAgentEnv`` and computes
  nothing: what remains is RLlib's own Python, so no adapter can be faster in this runner;
* our ``MarketEnvRunner``, with as many markets, and with 256.

Counted are rounds of markets, so that decisions that idle agents are asked for in vain count for nobody. Beside sampling,
``step`` alone is timed, and what RLlib's runner does with its time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.market import Market

from .throughput_measure import Contender, Run, Timing, measure

ENVS = 16
"""Environments of a runner."""
WIDE = 256
"""Markets of the native runner where it is given more."""
ROUNDS = 4
"""Rounds of every market in one call of ``sample``."""
ROUTES = {
    "ParallelPettingZooEnv": "RLlib's wrapper",
    "MarketMultiAgentEnv": "our adapter",
    "hollow": "an environment that costs nothing",
    "MarketEnvRunner": "our runner",
    f"MarketEnvRunner, {WIDE} markets": "our runner, wide",
}
BEGIN, END = "<!-- begin generated: sampling -->", "<!-- end generated: sampling -->"


def _hollow(market: Market) -> Any:
    """A MultiAgentEnv that plays back one episode of ``MarketMultiAgentEnv``."""
    from ray.rllib.env.multi_agent_env import MultiAgentEnv

    from marketenvs.rllib import MarketMultiAgentEnv

    real = MarketMultiAgentEnv(market)
    first = real.reset(seed=0)
    steps, seen, over = [], first[0], False
    while not over:
        steps.append(real.step({a: real.get_action_space(a).sample() for a in seen}))
        seen, over = steps[-1][0], steps[-1][3]["__all__"]

    class Hollow(MultiAgentEnv):
        def __init__(self) -> None:
            self.possible_agents, self.agents = list(real.possible_agents), list(real.possible_agents)
            super().__init__()
            self.observation_spaces, self.action_spaces = real.observation_spaces, real.action_spaces
            self.at = 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.at = 0
            return first

        def step(self, action_dict: Any) -> Any:
            self.at += 1
            return steps[self.at - 1]

    return Hollow()


def build_runner(market: Market, route: str, envs: int = ENVS) -> Any:
    """A runner of RLlib's PPO with default networks, one module per role, as ``algorithm.env_runner`` would be."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
    from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
    from ray.tune.registry import register_env

    from marketenvs.rllib import MarketEnvRunner, MarketMultiAgentEnv

    native = route.startswith("MarketEnvRunner")
    makers: dict[str, Callable[[], Any]] = {
        "ParallelPettingZooEnv": lambda: ParallelPettingZooEnv(market.parallel_env()),
        "hollow": lambda: _hollow(market),
    }
    make = makers.get(route, lambda: MarketMultiAgentEnv(market))
    register_env(f"sampling-{route}", lambda context: make())
    cls = MarketEnvRunner if native else MultiAgentEnvRunner
    config = (
        PPOConfig()
        .environment(f"sampling-{route}")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=envs, env_runner_cls=cls)
        .multi_agent(
            policies=set(market.roles), policy_mapping_fn=lambda agent, *rest, **more: agent.rpartition("_")[0]
        )
        .debugging(seed=0, log_level="ERROR")
    )
    return cls(config=config, worker_index=0)


def sampling(id: str, market: Market, route: str) -> Contender:
    """``sample()`` of a runner: one call plays ``ROUNDS`` rounds of every market."""
    envs = WIDE if str(WIDE) in route else ENVS

    def build() -> Run:
        runner, steps = build_runner(market, route, envs), envs * len(market.stages) * ROUNDS

        def run(calls: int) -> None:
            for _ in range(calls):
                runner.sample(num_timesteps=steps)

        return run

    decisions = sum(market.roles[s.role] for s in market.stages)
    return Contender(route, "rllib", id, "sample", "numpy float64", envs, envs * ROUNDS, decisions, build)


def stepping(id: str, market: Market, route: str) -> Contender:
    """``step()`` of one environment with actions drawn beforehand; one call plays one round."""

    def build() -> Run:
        from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv

        from marketenvs.rllib import MarketMultiAgentEnv

        own = MarketMultiAgentEnv(market)
        env: Any = own if route == "MarketMultiAgentEnv" else ParallelPettingZooEnv(market.parallel_env())
        drawn = [{a: own.get_action_space(a).sample() for a in market.agents} for _ in range(16)]
        state: dict[str, Any] = {"seen": env.reset(seed=0)[0], "n": 0}

        def run(calls: int) -> None:
            for _ in range(calls):
                for _ in market.stages:
                    actions = drawn[state["n"] % 16]
                    seen, _, _, over, _ = env.step({a: actions[a] for a in state["seen"]})
                    state["n"] += 1
                    state["seen"] = env.reset()[0] if over["__all__"] else seen

        return run

    decisions = sum(market.roles[s.role] for s in market.stages)
    return Contender(f"step: {route}", "rllib", id, "step", "numpy float64", 1, 1, decisions, build)


@contextlib.contextmanager
def _clocked() -> Iterator[dict[str, float]]:
    """Seconds spent in the parts of RLlib's runner; a part inside another counts for the outer one."""
    from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
    from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
    from ray.rllib.env.multi_agent_episode import MultiAgentEpisode
    from ray.rllib.env.vector import sync_vector_multi_agent_env as vector
    from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

    from marketenvs.rllib import MarketMultiAgentEnv

    parts: list[tuple[str, Any, str]] = [
        ("the market (our step)", MarketMultiAgentEnv, "step"),
        ("the market (our step)", MarketMultiAgentEnv, "reset"),
        ("copies of observations", vector, "deepcopy"),
        ("networks", MultiRLModule, "forward_exploration"),
        ("connectors", ConnectorPipelineV2, "__call__"),
        ("metrics", MultiAgentEnvRunner, "_increase_sampled_metrics"),
        ("metrics", MultiAgentEnvRunner, "_log_env_steps"),
        ("metrics", MetricsLogger, "log_value"),
        ("episode objects", MultiAgentEpisode, "add_env_step"),
        ("episode objects", MultiAgentEpisode, "add_env_reset"),
        ("episode objects", MultiAgentEpisode, "cut"),
        ("episode objects", MultiAgentEpisode, "to_numpy"),
        ("episode objects", MultiAgentEpisode, "__init__"),
    ]
    spent: dict[str, float] = {}
    inside = False

    def clocked(part: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:
                return real(*args, **kwargs)
            inside = True
            begun = time.perf_counter()
            try:
                return real(*args, **kwargs)
            finally:
                spent[part] = spent.get(part, 0.0) + time.perf_counter() - begun
                inside = False

        return call

    kept = [(owner, name, getattr(owner, name)) for _, owner, name in parts]
    for part, owner, name in parts:
        setattr(owner, name, clocked(part, getattr(owner, name)))
    try:
        yield spent
    finally:
        for owner, name, real in kept:
            setattr(owner, name, real)


def profile(market: Market, seconds: float) -> dict[str, float]:
    """Share of each part of RLlib's runner in sampling with our adapter; the rest is its loop."""
    runner, steps = build_runner(market, "MarketMultiAgentEnv"), ENVS * len(market.stages) * ROUNDS
    runner.sample(num_timesteps=steps)
    with _clocked() as spent:
        begun = time.perf_counter()
        while (whole := time.perf_counter() - begun) < seconds:
            runner.sample(num_timesteps=steps)
        whole = time.perf_counter() - begun
    shares = {part: value / whole for part, value in sorted(spent.items(), key=lambda x: -x[1])}
    return {**shares, "the runner's loop": 1.0 - sum(shares.values())}


def compare(id: str, seconds: float, repeats: int, report: Callable[[str], None]) -> dict[str, Any]:
    """All routes on one market's default preset."""
    import marketenvs

    market = marketenvs.make(id)
    timings, failures = measure(id, [sampling(id, market, r) for r in ROUTES], seconds, repeats, report)
    steps, missing = measure(
        id,
        [stepping(id, market, r) for r in ("ParallelPettingZooEnv", "MarketMultiAgentEnv")],
        seconds,
        repeats,
        report,
    )
    return {
        "market": id,
        "stages": len(market.stages),
        "agents": dict(market.roles),
        "routes": {t.name: t.record() for t in [*timings, *steps]},
        "ratios": {name: _ratio(timings, name) for name in ROUTES},
        "stepping": _ratio(steps, "step: MarketMultiAgentEnv", "step: ParallelPettingZooEnv"),
        "shares": profile(market, seconds * repeats),
        "failures": {**failures, **missing},
    }


def _ratio(timings: list[Timing], name: str, base: str = "ParallelPettingZooEnv") -> list[float] | None:
    """Median and range over the repeats of how many times faster a route is (CPU time; neighbours in time)."""
    found = {t.name: np.asarray(t.calls) * t.env_steps / np.asarray(t.cpu_s) for t in timings}
    if name not in found or base not in found:
        return None
    ratios = found[name] / found[base]
    return [float(x) for x in (np.median(ratios), ratios.min(), ratios.max())]


def _cell(ratio: list[float] | None) -> str:
    return "-" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"


def markdown(found: list[dict[str, Any]]) -> str:
    """The tables of a report."""
    lines = [
        f"| market | wrapper, rounds/s | adapter, times the wrapper | nothing but RLlib, times | `MarketEnvRunner`, {ENVS} markets, times "
        f"| {WIDE} markets, times | `step` alone, adapter over wrapper |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        base = row["routes"]["ParallelPettingZooEnv"]["env_steps_per_cpu_s"]["median"]
        ratios = [_cell(row["ratios"][name]) for name in list(ROUTES)[1:]]
        lines.append(f"| {row['market']} | {base:,.0f} | {' | '.join(ratios)} | {_cell(row['stepping'])} |")
    parts = list(dict.fromkeys(part for row in found for part in row["shares"]))
    lines += ["", f"| share of the time of RLlib's runner | {' | '.join(row['market'] for row in found)} |"]
    lines.append("|---|" + "---|" * len(found))
    for part in parts:
        shares = [f"{100 * row['shares'].get(part, 0.0):.0f} %" for row in found]
        lines.append(f"| {part} | {' | '.join(shares)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write JSON, and put the tables into a page between its markers."""
    import marketenvs

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--market", action="append", choices=marketenvs.list_markets(), help="only these")
    parser.add_argument("--seconds", type=float, default=1.5, help="CPU seconds of one turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--write", type=Path, help=f"page with {BEGIN} and {END}")
    given = parser.parse_args(arguments)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)  # as in RLlib's own env-runner processes
    found = [compare(id, given.seconds, given.repeats, print) for id in given.market or marketenvs.list_markets()]
    given.results.mkdir(parents=True, exist_ok=True)
    from marketenvs.task import write_json

    from .runs import provenance

    write_json(given.results / "rllib_sampling.json", {"provenance": provenance(), "markets": found})
    print(json.dumps({r["market"]: r["failures"] for r in found if r["failures"]}))
    table = markdown(found)
    print(table)
    if given.write is not None:
        head, _, rest = given.write.read_text().partition(BEGIN)
        given.write.write_text(f"{head}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
