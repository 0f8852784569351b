"""Runs in segments: killed anywhere, they go on and end as if nothing had happened."""

from __future__ import annotations

import json

import numpy as np
import pytest
from marketenvs_baselines.checkpoints import Segments, Settled, segment_seed

import marketenvs
from marketenvs import InvalidParameter
from marketenvs.policy import Constant, Uniform


class Killed(Exception):
    pass


def walk(folder, kill=None, rounds=10, every=3, seed=1, key=None, stop_after=None):
    """A random walk in segments; ``kill`` is (segment, when) with when "before", "saving" or "after"."""
    visited = []
    with Segments(rounds, every, folder, key or {"what": "walk"}, seed) as segments:
        for segment in segments:
            visited.append((segment.first, segment.last))
            x = 0.0 if segment.restore is None else json.loads((segment.restore / "x.json").read_text())
            if kill == (segment.index, "before"):
                raise Killed
            rng = np.random.default_rng(segment.seed)
            for _ in range(segment.first, segment.last):
                x += rng.normal()

            def save(path, x=x, segment=segment):
                (path / "x.json").write_text(json.dumps(x))
                if kill == (segment.index, "saving"):
                    raise Killed

            segment.commit(save, stop=segment.index == stop_after)
            if kill == (segment.index, "after"):
                raise Killed
        x = json.loads((segments.last / "x.json").read_text())
        return x, visited, segments.resumed


@pytest.mark.parametrize("when", ["before", "saving", "after"])
@pytest.mark.parametrize("index", [0, 1, 3])
def test_a_killed_run_ends_like_an_uninterrupted_one(tmp_path, index, when):
    want, parts, _ = walk(None)
    assert parts == [(0, 3), (3, 6), (6, 9), (9, 10)]
    with pytest.raises(Killed):
        walk(tmp_path, kill=(index, when))
    got, rest, resumed = walk(tmp_path)
    assert got == want
    assert rest == parts[index + (when == "after") :], "nothing that was done is redone"
    assert resumed == ([0, 3, 6, 9, 10][index + (when == "after")])
    assert [p.name for p in tmp_path.iterdir()] == ["segment-000003"], "nothing is left lying about"


def test_states_of_other_runs_and_damaged_ones_are_not_used(tmp_path):
    want, _, _ = walk(tmp_path)
    assert walk(tmp_path)[1] == []
    other, parts, _ = walk(tmp_path, seed=2)
    assert parts[0] == (0, 3)
    assert other != want
    assert walk(tmp_path, seed=2, key={"what": "else"})[1][0] == (0, 3)
    (next(tmp_path.glob("segment-*")) / "segment.json").write_text("{")
    assert walk(tmp_path)[:2] == (want, [(0, 3), (3, 6), (6, 9), (9, 10)])


def test_an_early_stop_is_kept(tmp_path):
    _, parts, _ = walk(tmp_path, stop_after=1)
    assert parts == [(0, 3), (3, 6)]
    assert walk(tmp_path, stop_after=1)[1] == []


def test_segments_draw_different_numbers_that_every_framework_takes():
    seeds = [segment_seed(s, k) for s in range(20) for k in range(20)]
    assert len(set(seeds)) == 400
    assert min(seeds) >= 0
    assert max(seeds) < 1 << 31


def test_bad_input():
    for rounds, every in ((0, 1), (5, 0)):
        with pytest.raises(InvalidParameter, match="positive"):
            Segments(rounds, every, None, {}, 0)
    with pytest.raises(InvalidParameter, match="patience"):
        Settled(marketenvs.make("AIBazaar-v0"), 0)
    with pytest.raises(InvalidParameter, match="committed"), Segments(4, 2, None, {}, 0) as segments:
        for _ in segments:
            pass


def test_settled_when_decisions_stay(tmp_path):
    market = marketenvs.make("AIBazaar-v0")
    still = {"provider": Constant([12.0]), "consumer": Constant([100.0])}
    moved = {"provider": Constant([12.0]), "consumer": Constant([150.0])}
    watch = Settled(market, 2)
    assert [watch(still), watch(still)] == [False, False]
    watch.save(tmp_path)
    again = Settled(market, 2)
    again.load(tmp_path)
    assert again(still)
    assert not again(moved)
    assert not Settled(market, None)(still)
    same = Settled(market, 1)
    policies = {"provider": Uniform(), "consumer": Uniform()}
    assert not same(policies)
    assert same(policies), "random policies are compared on the same random numbers"
