"""A market outside this repository: the template, run as a script, as a package with an entry point, and through check_market."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys

import numpy as np
import pytest

import marketenvs
from marketenvs import InvalidParameter, MarketEnvsError, registry, testing
from marketenvs.templates import write_market


@pytest.fixture
def fish(tmp_path):
    """The template's market, loaded from a temporary folder and forgotten afterwards."""
    path = write_market("FishMarket", tmp_path)
    sys.path.insert(0, str(tmp_path))
    import fish_market

    yield fish_market.FishMarket
    sys.path.remove(str(tmp_path))
    sys.modules.pop("fish_market")
    registry._REGISTRY.pop("FishMarket-v0")
    assert path.is_file()


def test_it_passes_the_suite_on_every_library(fish):
    ran = testing.check_market("FishMarket-v0")
    assert {r.split()[0] for r in ran} == {"default", "drawn"}
    for library in ("torch", "jax", "array_api_strict"):
        if testing.libraries.installed(library):
            assert f"default {library} same_numbers" in ran


def test_search_finds_its_known_equilibrium(fish):
    """Equal sellers: each brings (top - cost) / (slope (n + 1)); found by search, hence not certified."""
    market = marketenvs.make("FishMarket-v0", n_sellers=3, top_price=10.0, unit_cost=2.0)
    found = market.equilibrium(market.reset(0))
    assert found.actions["seller"] == pytest.approx(2.0, abs=1e-3)
    assert found.kind == "estimate"
    assert not found.certified.any()
    assert found.epsilon == pytest.approx(0, abs=1e-6)


def test_its_shells_work(fish):
    from pettingzoo.test import parallel_api_test

    parallel_api_test(marketenvs.parallel_env("FishMarket-v0"), num_cycles=20)


def test_a_broken_rule_in_it_is_found(fish, monkeypatch):
    def crooked(self, state, decisions):
        pay = original(self, state, decisions)
        return {"seller": pay["seller"] * np.arange(1, 4)}

    original = fish.expected
    monkeypatch.setattr(fish, "expected", crooked)
    with pytest.raises(AssertionError, match="preset 'default': FishMarket-v0, check 'symmetry'"):
        testing.check_market("FishMarket-v0", backends=("numpy",))


def test_the_file_runs_as_a_script(tmp_path):
    path = write_market("SparePower", tmp_path / "deep" / "folder")
    assert path.name == "spare_power.py"
    done = subprocess.run([sys.executable, path.name], cwd=path.parent, capture_output=True, text=True, check=True)
    assert "NashConv of the profile found by search" in done.stdout
    assert "certified: False" in done.stdout
    assert "checks passed" in done.stdout


def test_a_package_with_an_entry_point_is_found_by_itself(tmp_path):
    write_market("FarMarket", tmp_path)
    info = tmp_path / "far_market-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: far-market\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[marketenvs.markets]\nFarMarket = far_market:SPEC\n")
    code = (
        "import marketenvs, gymnasium, pickle; from marketenvs.testing import check_market\n"
        "assert 'FarMarket-v0' in marketenvs.list_markets()\n"
        "print(len(check_market('FarMarket-v0', presets=['drawn'], backends=('numpy',))))\n"
        "print(gymnasium.make('marketenvs/FarMarket-Seller-v0', opponents='random').reset(seed=0)[0].shape)"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == str(len(testing.CHECKS))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fish market", "perhaps 'FishMarket'"),
        ("fish_market", "perhaps 'FishMarket'"),
        ("FishMarket-v0", "perhaps 'FishMarket'"),
        ("3Fish", "must be CamelCase"),
        ("", "must be CamelCase"),
        ("None", "must be CamelCase"),
        ("../Evil", "must be CamelCase"),
        ("Poiss\u00f6n", "must be CamelCase"),
        (None, "must be CamelCase"),
        ("AIBazaar", "market id 'AIBazaar-v0' is taken"),
    ],
)
def test_bad_names(name, message, tmp_path):
    with pytest.raises(InvalidParameter, match=message):
        write_market(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    path = write_market("FishMarket", tmp_path)
    path.write_text("my work")
    with pytest.raises(MarketEnvsError, match=r"fish_market\.py exists; nothing was overwritten"):
        write_market("FishMarket", tmp_path)
    assert path.read_text() == "my work"


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MarketEnvsError, match="cannot write"):
        write_market("FishMarket", tmp_path / "file")


@pytest.mark.parametrize("name", ["FishMarket", "AI2Market", "LTESpot", "M"])
def test_file_names(name, tmp_path):
    path = write_market(name, tmp_path)
    names = {"FishMarket": "fish_market", "AI2Market": "ai2_market", "LTESpot": "lte_spot", "M": "m"}
    assert path.stem == names[name]
    module = runpy.run_path(str(path), run_name=names[name])
    assert module["SPEC"].id == f"{name}-v0"
    registry._REGISTRY.pop(f"{name}-v0")
