"""What the reproduction's verdicts rest on: paired intervals, and results that a stopped run left behind."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("marketenvs_benchmarks")

from marketenvs_benchmarks.reproduce._slicing_tools import difference, pm, remembered, significant


def test_intervals_are_students():
    # Mean 2, standard deviation 1, three values: t(.975, 2) = 4.302653, half width 4.302653 / sqrt(3) = 2.484138.
    assert pm([1, 2, 3]) == "2.000 ± 2.484"
    assert pm([5.0]) == "5.000 ± 0.000"


def test_verdicts_are_paired_and_two_sided():
    rng = np.random.default_rng(0)
    noise = 10 * rng.standard_normal(10)
    low, high = noise, noise + 0.5 + 0.1 * rng.standard_normal(10)
    assert significant(low, high)
    assert not significant(high, low)
    assert not significant(low, low + 0.1 * rng.standard_normal(10))
    # The longer list counts only as far as the shorter one goes.
    assert difference([1.0, 1.0], [2.0, 4.0, 1e9]) == difference([1.0, 1.0], [2.0, 4.0])


def test_stopped_runs_are_taken_up_and_other_settings_kept_apart(tmp_path):
    calls = []

    def run():
        calls.append(1)
        return {"values": [1.0, float(len(calls))]}

    first = remembered(tmp_path, "E1 part", [10, {}], run)
    assert remembered(tmp_path, "E1 part", [10, {}], run) == first
    assert remembered(tmp_path, "E1 part", [20, {}], run) != first
    assert remembered(tmp_path, "E1 part", [10, {}], run) == first
    assert len(calls) == 2
    # Half a file is no result.
    for path in (tmp_path / "parts").iterdir():
        path.write_text(json.dumps({"settings": [10, {}], "result": {}})[:-5])
    remembered(tmp_path, "E1 part", [10, {}], run)
    assert len(calls) == 3
