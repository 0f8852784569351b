"""Forecasters: nothing sees the future or the test slots, saved models answer alike, device data help only where pulses move."""

from __future__ import annotations

import glob
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from marketenvs_baselines import forecasters
from marketenvs_baselines.forecasters import (
    CLASSICAL,
    NEURAL,
    Split,
    judge,
    load_forecaster,
    make_forecaster,
    save_forecaster,
)

from marketenvs.errors import InvalidParameter, MarketEnvsError
from marketenvs.markets.federated_slicing import literal, traffic
from marketenvs.markets.federated_slicing.traces import write_long_csv

SMALL = {"epochs": 2}
FAST = [n for n in CLASSICAL if n != "arima"]


@pytest.fixture(scope="module")
def loads():
    return traffic.simulate(400, 3, n_devices=12)[0]


def fitted(name, loads, split, seed=0):
    if name in NEURAL:
        pytest.importorskip("torch")
    return make_forecaster(name, 1, seed, **(SMALL if name in NEURAL else {})).fit(loads, split)


@pytest.mark.parametrize("name", [*CLASSICAL, *NEURAL])
def test_no_forecast_sees_its_own_slot_or_later(name, loads):
    if name == "arima":
        pytest.importorskip("statsmodels")
    split = Split.of(len(loads))
    model = fitted(name, loads, split)
    whole = model.forecast(loads, split.validation)
    assert whole.shape == (len(loads) - split.validation,)
    changed = loads.copy()
    changed[350:] *= 7.0
    again = model.forecast(changed, split.validation)
    np.testing.assert_allclose(again[: 350 - split.validation + 1], whole[: 350 - split.validation + 1], rtol=1e-6)
    # A day-old value is out of reach of this change.
    assert np.allclose(again, whole) == (name == "seasonal")


@pytest.mark.parametrize("name", [*FAST, *NEURAL])
def test_fitting_never_touches_the_test_slots(name, loads):
    split = Split.of(len(loads))
    other = loads.copy()
    other[split.validation :] = 5.0
    a, b = fitted(name, loads, split), fitted(name, other, split)
    np.testing.assert_allclose(a.forecast(loads, 330), b.forecast(loads, 330), rtol=1e-6)


@pytest.mark.parametrize("name", [*FAST, *NEURAL])
def test_saved_models_forecast_alike(name, loads, tmp_path):
    split = Split.of(len(loads))
    model = fitted(name, loads, split)
    again = load_forecaster(save_forecaster(tmp_path / name, model))
    np.testing.assert_allclose(again.forecast(loads, 320), model.forecast(loads, 320), rtol=1e-6)


def test_naive_forecasts_by_hand(loads):
    total = loads[:, 1].sum(axis=1)
    np.testing.assert_array_equal(make_forecaster("persistence", 1).forecast(loads, 300), total[299:-1])
    np.testing.assert_array_equal(make_forecaster("seasonal", 1).forecast(loads, 300), total[156:-144])


def test_linear_model_recovers_a_linear_law():
    rng = np.random.default_rng(0)
    x = np.zeros(2000)
    for t in range(1, 2000):
        x[t] = 0.8 * x[t - 1] + rng.standard_normal()
    loads = (20.0 + x)[:, None, None]
    split = Split.of(2000)
    found = judge(make_forecaster("ar").fit(loads, split), loads, split)
    assert found.rmse == pytest.approx(1.0, abs=0.07)
    assert judge(make_forecaster("persistence"), loads, split).rmse == pytest.approx(np.sqrt(2 / 1.8), abs=0.1)


def test_negative_control_device_data_help_only_with_pulses():
    ratio = {}
    for pulses in (True, False):
        loads, _ = traffic.simulate(2400, 1, pulses=pulses)
        split = Split.of(2400)
        errors = {n: [] for n in ("ar", "ridge")}
        for m in (0, 3):
            for name in errors:
                errors[name].append(judge(make_forecaster(name, m).fit(loads, split), loads, split).rmse)
        ratio[pulses] = np.mean(errors["ridge"]) / np.mean(errors["ar"])
    assert ratio[True] < 0.8
    assert ratio[False] > 0.97


def test_the_printed_graph_and_head_are_empty():
    rng = np.random.default_rng(0)
    assert np.max(np.abs(literal.adjacency_eq9(rng.standard_normal((100, 8))))) == 0.0
    assert literal.softmax_eq12(np.array([3.7])) == 1.0
    assert literal.softmax_eq12(rng.standard_normal(5)).sum() == pytest.approx(1.0)


def test_learned_graph_never_links_both_ways():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = make_forecaster("gat").build(100)
    graph = network.graph().detach().numpy() - np.eye(100)
    assert np.all(np.diag(graph) == 0)
    assert not np.any((graph > 0) & (graph.T > 0))
    assert 0.45 < np.mean(graph > 0) < 0.5
    identity = make_forecaster("gat_identity").build(100)
    np.testing.assert_array_equal(identity.graph().numpy(), np.eye(100))


def test_one_command_trains_saves_and_shows(tmp_path, capsys, loads):
    pytest.importorskip("torch")
    path = tmp_path / "traffic.csv"
    write_long_csv(path, loads[:120, :2, :3])
    forecasters.main([str(path), "--model", "gat", "--slice", "1", "--epochs", "2", "--out", str(tmp_path / "twin")])
    shown = capsys.readouterr().out
    assert "120 slots, 2 slices of 3 nodes" in shown
    assert "persistence" in shown
    assert load_forecaster(tmp_path / "twin").forecast(loads[:120, :2, :3], 100).shape == (20,)
    with pytest.raises(SystemExit, match=r"slices 0\.\.1"):
        forecasters.main([str(path), "--model", "ar", "--slice", "5", "--out", str(tmp_path / "x")])
    with pytest.raises(SystemExit, match="--squares 5060,x"):
        forecasters.main([str(path), "--squares", "5060,x"])
    path.write_text("slot,slice,node,mbps\n0,0,0,oops\n")
    with pytest.raises(SystemExit, match="line 2, column 4"):
        forecasters.main([str(path)])


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(InvalidParameter, match="ridge"):
        make_forecaster("rigde")
    with pytest.raises(InvalidParameter, match="60"):
        Split.of(20)
    with pytest.raises(InvalidParameter, match="setting"):
        make_forecaster("gat", layers=3)
    with pytest.raises(MarketEnvsError, match=r"forecaster\.json"):
        load_forecaster(tmp_path)


def test_the_how_to_runs_as_written(tmp_path, monkeypatch, capsys):
    """Every command and every block of docs/how-to/forecast_traffic.md, in an empty folder with small files."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    loads, _ = traffic.simulate(120, 0, n_slices=2, n_devices=4, mean_load=[0.3, 0.2])
    write_long_csv("traffic.csv", loads)
    squares = (5060, 5061, 5160, 5161, 4259, 4260, 4359, 4360)
    for day in (1, 2):
        rows = [
            f"{square}\t{1383260400000 + 600000 * (60 * day + k)}\t39\t{k % 7}\t\t\t1\t{k % 5}.5\n"
            for square in squares
            for k in range(60)
        ]
        (tmp_path / f"sms-call-internet-mi-2013-11-0{day}.txt").write_text("".join(rows))
    page = (Path(__file__).parents[2] / "docs/how-to/forecast_traffic.md").read_text()
    blocks = re.findall(r"```(\w*)\n(.*?)```", page, re.S)
    ran = 0
    names: dict = {}
    for language, text in blocks:
        if language == "python":
            exec(text, names)
            continue
        words = shlex.split(text.replace("\\\n", " "))
        assert words[:3] == ["python", "-m", "marketenvs_baselines.forecasters"]
        given = [f for w in words[3:] for f in (sorted(glob.glob(w)) if "*" in w else [w])]
        forecasters.main([*given, "--epochs", "2"])
        ran += 1
    assert ran == 2
    assert names["forecast"].shape == (50,)
    assert names["needs"].shape == (24, 2)
    shown = capsys.readouterr().out
    assert "RMSE" in shown
    assert "saved in my_twin" in shown
    assert {p.name for p in Path("my_twin").iterdir()} == {"forecaster.json", "weights.npz"}
    Path("bad.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(SystemExit, match="line 1: neither"):
        forecasters.main(["bad.csv"])
