"""Speed of coalition trading's solver and of its paper's learner, beside what they replace.

- Price equilibria of 1,000 drawn markets of three buyers: all in one batch against one market at a time.
- CoST-MADDPG at the paper's sizes: 2,500 iterations of one round and one update each, one run against several at once.

Run with ``OMP_NUM_THREADS=1 python -m marketenvs_benchmarks.throughput_coalition`` (``--learner`` also trains; minutes). Time is
the process's own CPU time, so that a busy machine does not count; wall-clock beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import marketenvs

ID = "CoalitionTrading-v0"
MARKETS, LOOPED = 1000, 40
ITERATIONS = 2_500


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What ``work`` returns, its CPU seconds and its wall-clock seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def equilibria() -> dict[str, float]:
    """CPU seconds of 1,000 price equilibria with their certificates, in a batch and extrapolated from a loop.

    Raises:
        AssertionError: an equilibrium is not certified.
    """
    market = marketenvs.make(ID, preset="drawn")
    market.equilibrium(market.reset(7, batch=8))  # imports and first calls
    state = market.reset(0, batch=MARKETS)
    found, cpu, wall = timed(lambda: market.equilibrium(state))
    assert found.certified.all()
    single = [market.take(state, [k]) for k in range(LOOPED)]
    _, looped, _ = timed(lambda: [market.equilibrium(one) for one in single])
    return {"batch": cpu, "batch, wall": wall, "one at a time": looped * MARKETS / LOOPED}


class _Default:
    """What `maddpg.train_many` needs of a task: the default market."""

    scale = {"seller": 62.0, "buyer": 20.0}

    def make_market(self, **overrides: Any) -> Any:
        """The market."""
        return marketenvs.make(ID, **overrides)


def learner(runs: int) -> dict[str, float]:
    """CPU and wall-clock seconds of ``runs`` trainings of 2,500 iterations at once (batch 128, 2 x 128 units, buffer 1e5)."""
    from marketenvs_baselines import maddpg

    config = maddpg.Config(train_every=1)
    budget = ITERATIONS + config.warmup  # the first update comes after the warm-up
    _, cpu, wall = timed(lambda: maddpg.train_many(_Default(), list(range(runs)), budget, config=config))
    return {"cpu": cpu, "wall": wall}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--learner", action="store_true", help="also time CoST-MADDPG (minutes)")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 5], help="trainings side by side")
    arguments = parser.parse_args()
    found = equilibria()
    print(f"price equilibria of {MARKETS} markets, N = 3, certified (bar: 3 s)")
    for name, seconds in found.items():
        print(f"  {name:<28}{seconds:8.2f} s")
    if arguments.learner:
        print(f"CoST-MADDPG, {ITERATIONS} iterations (bar: 180 s)")
        for runs in arguments.runs:
            took = learner(runs)
            print(f"  {runs:>2} runs at once: {took['cpu']:8.1f} s CPU, {took['wall']:8.1f} s wall-clock")


if __name__ == "__main__":
    main()
