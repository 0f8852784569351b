"""Smoke runs of the benchmark: it measures, counts and reports right; no timing is asserted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

import marketenvs

throughput = pytest.importorskip("marketenvs_benchmarks.throughput")
from marketenvs_benchmarks import throughput_measure as measuring  # noqa: E402
from marketenvs_benchmarks import throughput_ours as ours  # noqa: E402
from marketenvs_benchmarks import throughput_report as report  # noqa: E402


def test_the_command_writes_raw_results_and_one_line_per_shell(tmp_path):
    console = Console(record=True, width=160, force_terminal=False)
    path = throughput.main(
        tmp_path, console, ["AIBazaar-v0"], seconds=0.002, repeats=2, batches=[1, 8], libraries=["numpy"]
    )
    content = json.loads(path.read_text())
    shells = {(r["shell"], r["batch"]) for r in content["results"]}
    assert {("core", 1), ("core", 8), ("parallel env", 1), ("AEC env", 1), ("vector env", 8)} <= shells
    for r in content["results"]:
        assert len(r["wall_s"]) == len(r["cpu_s"]) == len(r["calls"]) == 2
        rates = [n * r["env_steps"] / s for n, s in zip(r["calls"], r["wall_s"], strict=True)]
        assert r["env_steps_per_wall_s"]["median"] == pytest.approx(np.median(rates))
        assert r["agent_steps_per_wall_s"] == pytest.approx(np.median(rates) * r["agents"])
    text = console.export_text()
    assert "parallel env B=1" in text
    assert "core numpy float64 B=8" in text


def test_unknown_markets_and_bad_numbers_are_refused(tmp_path):
    with pytest.raises(marketenvs.errors.UnknownName, match="AIBazaar-v0"):
        throughput.main(tmp_path, Console(), ["AIBazar-v0"])
    with pytest.raises(marketenvs.errors.InvalidParameter, match="seconds"):
        throughput.main(tmp_path, Console(), seconds=0.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("id", marketenvs.list_markets())
def test_the_timed_round_is_the_whole_round(id):
    """What is timed returns what ``step`` and ``observe`` return, stage by stage."""
    for setting in ours.settings(id):
        market = marketenvs.make(id, **setting)
        state = market.reset(seed=3, batch=4)
        decisions = ours.play(market, state, np.random.default_rng(0))
        after, (seen, payoffs, metrics, done) = ours.full_step(market, state, decisions)
        want, outcome = market.step(state, decisions)
        played = state
        for stage, observation in zip(market.stages, seen, strict=True):
            np.testing.assert_array_equal(observation, market.observe(played, stage.name))
            assert observation.shape == (4, market.roles[stage.role], *stage.observation_space.shape)
            played = market.commit(played, stage.name, decisions[stage.name])
        assert payoffs.keys() == market.roles.keys()
        for role, value in outcome.payoffs.items():
            np.testing.assert_array_equal(payoffs[role], value)
        assert metrics.keys() == outcome.metrics.keys()
        assert "clipped" in metrics
        np.testing.assert_array_equal(after.round, want.round)
        np.testing.assert_array_equal(done, want.round >= market.params.horizon)
        leaves = [(a, b) for a, b in zip(_leaves(after.nature), _leaves(want.nature), strict=True)]
        for a, b in leaves:
            np.testing.assert_array_equal(a, b)


def _leaves(tree):
    out = []
    marketenvs.market.tree_map(out.append, tree)
    return out


@pytest.mark.parametrize("shell", range(4))
def test_shells_play_whole_rounds(shell):
    """Every shell's contender plays as many rounds as it is asked to, over the end of an episode."""
    contender = ours.shells("AIBazaar-v0", {"horizon": 3}, batch=2)[shell]
    if contender.shell == "SB3 VecEnv":
        pytest.importorskip("stable_baselines3")
    rounds = []
    original = marketenvs.market.Market.conclude

    def counted(self, *args, **kwargs):
        rounds.append(1)
        return original(self, *args, **kwargs)

    run = contender.build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marketenvs.market.Market, "conclude", counted)
        run(7)
    assert len(rounds) == 7


def test_a_failing_contender_is_named_and_the_others_go_on():
    def broken():
        raise ValueError("no such library")

    def fine():
        return lambda calls: sum(range(100 * calls))

    make = [measuring.Contender(n, "x", "s", "core", "", 1, 1, 1, b) for n, b in (("broken", broken), ("fine", fine))]
    timings, failures = measuring.measure("group", make, 0.001, 3)
    assert [t.name for t in timings] == ["fine"]
    assert failures == {"broken": "ValueError: no such library"}
    assert len(timings[0].calls) == 3


def test_rates_are_short_and_readable():
    assert [report.short(v) for v in (7.0, 2718.0, 1.05e6, 2e9)] == ["7", "2.72 k", "1.05 M", "2 G"]


def test_oracles_agree_with_scipy_loops():
    from marketenvs_benchmarks import throughput_oracles

    rows = throughput_oracles.compare(repeats=1, loop_markets=2, markets=20)
    assert [r["certified"] for r in rows] == [1.0, 1.0, 1.0]
    assert "missed the optimum in 0 of 2" in rows[-1]["note"]
    assert all(r["ratio"] > 0 for r in rows)
    assert [r["certified"] for r in throughput_oracles.growth(1, (10, 1000))] == [True, True]


@pytest.mark.parametrize("id", ["AIBazaar-v0", "TwoTierBidding-v0"])
def test_fused_kernels_compute_what_the_rules_compute(id):
    pytest.importorskip("numba")
    from marketenvs_benchmarks import fused, throughput_limit

    throughput_limit.check_equal(id, ours.settings(id)[0], "float64", batch=8)
    original = fused.FUSED[id].results
    with pytest.MonkeyPatch.context() as patch:

        def wrong(self):
            return {k: v + (k == "welfare") for k, v in original(self).items()}

        patch.setattr(fused.FUSED[id], "results", wrong)
        with pytest.raises(RuntimeError, match="welfare"):
            throughput_limit.check_equal(id, ours.settings(id)[0], "float64", batch=8)


def test_bars_are_judged_by_ratios_within_a_group_and_the_page_is_made_from_the_raw_results(tmp_path):
    pytest.importorskip("matplotlib")
    from marketenvs_benchmarks import throughput_bars

    def record(system, shell, batch, rate, agents, **more):
        base = {
            "group": "AIBazaar-v0",
            "subject": "x",
            "library": "numpy float64",
            "setting": "",
            "users": 0,
            "build_s": 0.1,
        }
        median = {"median": rate, "q1": rate, "q3": rate}
        return {
            **base, "system": system, "shell": shell, "batch": batch, "agents": agents, "env_steps_per_cpu_s": median,
            "env_steps_per_wall_s": median, "agent_steps_per_cpu_s": rate * agents, **more,
        }  # fmt: skip

    results = [
        record("marketenvs", "core", 1024, 300.0, 11, setting="mining=sampled"),
        record("vmas", "core", 1024, 100.0, 3),
        record("marketenvs", "parallel env", 1, 40.0, 11),
        record("mpe2", "parallel env", 1, 50.0, 3),
    ]
    growth = [{"consumers": 100_000, "respond_s": 2.0, "solver_s": 1.0, "certified": True}]
    content = {
        "results": results, "growth": growth, "profile": [], "failures": {"jax": "not installed"}, "oracles": [],
        "machine": {"cpu": "a", "pinned_to": 0, "cores": 2, "load_at_start": [1.0], "load_at_end": [2.0]},
        "settings": {"repeats": 1, "seconds": 1.0}, "provenance": {"commit": "c", "versions": {}},
    }  # fmt: skip
    found = {v.bar: v for v in throughput_bars.verdicts(content)}
    assert found["AI-Bazaar, agent-steps, B=1024, vmas"].found == pytest.approx(11.0)
    assert found["AI-Bazaar, agent-steps, B=1024, vmas"].met == "yes"
    assert found["AI-Bazaar through PettingZoo, agent-steps by rounds, mpe2"].found == pytest.approx(440 / 150)
    assert found["AI-Bazaar through PettingZoo, agent-steps by rounds, mpe2"].met == "no"
    assert found["AI-Bazaar, agent-steps, B=8192, vmas"].met == "not measured"
    assert found["game of 100,000 consumers within a second (solutions per second)"].met == "no"
    page = tmp_path / "page.md"
    page.write_text(f"# Kept\n\n{report.MARKER}\nold tables\n")
    report.write_document(content, page)
    text = page.read_text()
    assert text.startswith("# Kept")
    assert "old tables" not in text
    assert "not measured: jax: not installed" in text
    assert (tmp_path / "throughput.svg").read_text().startswith("<?xml")
