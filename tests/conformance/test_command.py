"""``python -m marketenvs.testing``: a table of verdicts, golden trajectories, and its exit code."""

from __future__ import annotations

import json

import pytest

from marketenvs import UnknownName, testing
from marketenvs.testing.__main__ import main


def test_list(capsys):
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}: " in out for name in (*testing.CHECKS, *testing.LIBRARY_CHECKS))


def test_golden(tmp_path, capsys):
    assert main(["AIBazaar-v0", "--golden", "--folder", str(tmp_path / "new")]) == 0
    path = tmp_path / "new" / "AIBazaar-v0.json"
    assert str(path) in capsys.readouterr().out
    record = json.loads(path.read_text())
    assert record["market"] == "AIBazaar-v0"
    assert len(record["rounds"]) == 3
    first = record["rounds"][0]
    price, amounts = first["decisions"]["pricing"][0][0][0], first["decisions"]["purchase"][0]
    assert first["payoffs"]["provider"][0][0] == pytest.approx((price - 5.0) * sum(a[0] for a in amounts), rel=1e-12)


def test_verdicts(capsys, monkeypatch):
    monkeypatch.setattr("marketenvs.testing.__main__.libraries.LIBRARIES", ("numpy", "array_api_strict"))
    assert main(["AIBazaar-v0", "--presets", "calibrated"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == len(testing.CHECKS) + len(testing.LIBRARY_CHECKS)
    assert all(line.endswith("ok") for line in out)
    monkeypatch.setitem(testing.rules.CHECKS, "masks", lambda market: testing.rules.ensure(False, "a made-up fault"))
    assert main(["AIBazaar-v0", "--presets", "calibrated"]) == 1
    assert "FAILED AIBazaar-v0, check 'masks': a made-up fault" in capsys.readouterr().out


def test_unknown_market():
    with pytest.raises(UnknownName, match="did you mean 'AIBazaar-v0'"):
        main(["AIBazar-v0"])
