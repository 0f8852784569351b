"""Traffic files: the three formats, sums over countries, missing rows, and errors that name line and column."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from marketenvs.errors import InvalidParameter, UnknownName
from marketenvs.markets.federated_slicing.traces import SliceSource, load_traffic, sniff, write_long_csv
from marketenvs.registry import make

DATA = Path(__file__).parent / "data"
MILAN = DATA / "sms-call-internet-mi-2013-11-01.txt"
HOURLY = DATA / "milan_hourly.csv"
SLICES = [SliceSource((4259, 5060)), SliceSource((5060, 5061), "sms_in")]


def by_hand(path, square, step, column):
    """Sum of one activity of one square over countries in the `step`-th time interval, straight from the text."""
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    times = sorted({int(parts[1]) for parts in lines})
    wanted = [p for p in lines if int(p[0]) == square and int(p[1]) == times[step]]
    return sum(float(p[column]) for p in wanted if p[column])


def test_formats_are_recognised():
    assert [sniff(p) for p in (MILAN, HOURLY, DATA / "long.csv")] == ["milan_tsv", "milan_csv", "long_csv"]


@pytest.mark.parametrize("path", [MILAN, HOURLY])
def test_milan_sums_countries_and_fills_gaps(path):
    trace = load_traffic(path, SLICES, mbps_per_unit=0.5)
    assert trace.loads.shape == (4, 2, 2)
    assert trace.slot_seconds == (600 if path == MILAN else 3600)
    for step in range(4):
        assert trace.loads[step, 0, 0] == pytest.approx(0.5 * by_hand(MILAN, 4259, step, 7))
        assert trace.loads[step, 1, 1] == pytest.approx(0.5 * by_hand(MILAN, 5061, step, 3))
    assert trace.loads[2, 0, 1] == 0  # no row of square 5060 in the third step
    assert trace.missing == pytest.approx(1 / 12)


def test_rescaling_to_mean_loads_and_playing_the_trace():
    trace = load_traffic([MILAN], SLICES, mean_load=[0.3, 0.1])
    np.testing.assert_allclose(trace.loads.mean(axis=(0, 2)), [0.3, 0.1])
    market = make("FederatedSlicing-v0", n_slices=2, n_devices=2, demand="trace", load_trace=trace.loads, fading="none")
    _, outcome = market.step(market.reset(0), {"slice": 20.0})
    assert np.all(np.isfinite(outcome.payoffs["slice"]))


def test_long_csv_round_trip(tmp_path):
    loads = np.random.default_rng(0).uniform(size=(5, 3, 2))
    write_long_csv(tmp_path / "a.csv", loads)
    np.testing.assert_array_equal(load_traffic(tmp_path / "a.csv").loads, loads)
    assert load_traffic(DATA / "long.csv").loads.shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slot,slice,node,mbps\n0,0,0,1\n1,0,0,abc\n", r"line 3, column 4 \(mbps\): 'abc' is not a number"),
        ("slot,slice,node,mbps\n0,0,0,-1\n", r"line 2, column 4 \(mbps\)"),
        ("slot,slice,node,mbps\n0,0,0,nan\n", r"line 2, column 4 \(mbps\)"),
        ("slot,slice,node,mbps\n0,0,0,\n", "line 2, column 4 .*missing"),
        ("slot,slice,node,mbps\n0,0.5,0,1\n", r"line 2, column 2 \(slice\)"),
        ("slot,slice,node,mbps\n0,0,0,1\n0,0,0,2\n", "line 3.*given before"),
        ("slot,slice,node,mbps\n0,0,0\n", "line 2: 3 columns"),
        ("slot,slice,mbps\n0,0,1\n", "line 1"),
        ("a\tb\n", "line 1: neither"),
        ("1\t1383260400000\t39\t1\t2\t3\t4\tx\n", r"line 1, column 8 \(internet\): 'x'"),
        ("20000\t1383260400000\t39\t1\t2\t3\t4\t1\n", r"line 1, column 1 \(square_id\): 20000 must lie in 1..10000"),
        ("1\tnoon\t39\t1\t2\t3\t4\t1\n", r"line 1, column 2 \(time_interval\)"),
        ("1\t1383260400000\t39\t1\t2\t3\t4\t1\n1\t5\n", "line 2: 2 columns"),
        ("datetime,CellID,countrycode,smsin,smsout,callin,callout,internet\nx,1,39,1,1,1,1,1\n", r"line 2, column 1 \(datetime\)"),
    ],
)  # fmt: skip
def test_malformed_rows_name_line_and_column(tmp_path, text, message):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    kind = None if text.startswith(("slot", "date", "a\tb")) else "milan_tsv"
    arguments = {} if text.startswith("slot") else {"slices": [SliceSource((1,))], "mbps_per_unit": 1.0}
    with pytest.raises(InvalidParameter, match=message):
        load_traffic(path, format=kind, **arguments)


def test_arguments_are_checked(tmp_path):
    for arguments, message in (
        ({}, "need slices"),
        ({"slices": SLICES}, "either mbps_per_unit or mean_load"),
        ({"slices": [SliceSource((1,)), SliceSource((1, 2))], "mbps_per_unit": 1.0}, "same number of squares"),
        ({"slices": [SliceSource((9999,))], "mbps_per_unit": 1.0}, "0 time steps"),
        ({"slices": SLICES, "mean_load": [1.0]}, "2 positive values"),
        ({"slices": SLICES, "mbps_per_unit": 1.0, "format": "parquet"}, "not offered"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            load_traffic(MILAN, **arguments)
    with pytest.raises(InvalidParameter, match="no traffic file"):
        load_traffic(tmp_path / "none.csv")
    with pytest.raises(UnknownName, match="internet"):
        SliceSource((1,), "internt")
    with pytest.raises(InvalidParameter, match="grid"):
        SliceSource((0,))


def test_files_are_streamed(tmp_path):
    """Memory grows with what is asked for, not with the file: 40,000 rows of 1,000 squares, one of them wanted."""
    path = tmp_path / "sms-call-internet-mi-2013-11-01.txt"
    with open(path, "w") as file:
        for square in range(1, 1001):
            file.writelines(f"{square}\t{1383260400000 + 600000 * k}\t39\t1\t1\t1\t1\t{square}.25\n" for k in range(40))
    size = path.stat().st_size
    tracemalloc.start()
    trace = load_traffic(path, [SliceSource((500,))], mbps_per_unit=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert trace.lines == 40_000
    np.testing.assert_array_equal(trace.loads, 500.25)
    assert peak < 0.1 * size
