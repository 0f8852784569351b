"""The reproduction's parts that need no training: exact facts, and results that survive a kill."""

import numpy as np
import pytest

pytest.importorskip("rich")
from marketenvs_benchmarks.reproduce import two_tier_bidding as reproduction
from marketenvs_benchmarks.reproduce._two_tier_tools import above, first, in_order, kept
from rich.console import Console

QUIET = Console(quiet=True)


def test_exact_facts():
    findings = reproduction.optima()
    assert [f.holds for f in findings] == [False, False, False]
    assert "(0, 0, 50, 0), F = 323.5186" in findings[0].found
    assert all("dominant" in f.found for f in findings[1:])


def test_finished_parts_are_kept(tmp_path):
    calls = []

    def part():
        calls.append(1)
        return {"value": len(calls)}

    assert kept(tmp_path, "a", [10, 6000], part, QUIET) == {"value": 1}
    assert kept(tmp_path, "a", [10, 6000], part, QUIET) == {"value": 1}
    assert kept(tmp_path, "a", [3, 600], part, QUIET) == {"value": 2}  # another size
    (tmp_path / "parts" / "a.json").write_text('{"key": {"size": [3, 600], "code": "old"}, "result": {"value": 9}}')
    assert kept(tmp_path, "a", [3, 600], part, QUIET) == {"value": 3}  # other code


def test_orders_are_decided_only_where_intervals_part():
    low, high, wide = np.linspace(0, 1, 10), np.linspace(5, 6, 10), np.linspace(-20, 30, 10)
    assert above(high, low) is True
    assert above(low, high) is False
    assert above(high, wide) is None
    assert in_order([high, low]) is True
    assert in_order([low, high]) is False
    assert in_order([high, wide, low]) is None
    assert first({"a": high, "b": low}, "a") is True
    assert first({"a": low, "b": high, "c": wide}, "a") is False


def test_the_lower_markets_optimum():
    assert reproduction.lower_optimum() == pytest.approx(6.3420306014, abs=1.01e-10)
    market = reproduction.lower_market()
    assert market.stage("slicing").codec.action_space.n == 105


def test_one_run_of_each_tier(tmp_path):
    pytest.importorskip("torch")
    run = reproduction.lower_run(tmp_path, "paper", "bandit", [0, 1], 40, QUIET)
    assert len(run["tails"]["utility"]) == 2
    again = reproduction.lower_run(tmp_path, "paper", "bandit", [0, 1], 40, QUIET)
    assert again["tails"] == run["tails"]
    upper = reproduction.upper_run(tmp_path, "corrected", "bandit", [0, 1], 40, QUIET)
    assert np.isfinite(upper["tails"]["profit"]).all()
