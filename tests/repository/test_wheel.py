"""The built wheel, in an empty environment outside the clone, runs the README's quickstart and the leaderboard."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_documents import ROOT, code_blocks


def run(command: list[str], where: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_stands_alone(tmp_path):
    pip = ["-m", "pip", "--disable-pip-version-check", "-q"]
    run([sys.executable, *pip, "wheel", str(ROOT), "--no-deps", "-w", str(tmp_path / "dist")], tmp_path)
    (wheel,) = (tmp_path / "dist").glob("marketenvs-*.whl")
    run([sys.executable, "-m", "venv", str(tmp_path / "venv")], tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    run([python, *pip, "install", str(wheel), "-c", str(ROOT / "constraints.txt")], tmp_path)
    (quickstart,) = code_blocks(ROOT / "README.md")
    assert run([python, "-c", quickstart], tmp_path).splitlines()[-1] == "1.0"
    program = str(tmp_path / "venv" / "bin" / "marketenvs")
    board = run(
        [
            program,
            "leaderboard",
            "--task",
            "bazaar-fixed",
            "--seeds",
            "2",
            "--algorithm",
            "random",
            "--algorithm",
            "equilibrium",
        ],
        tmp_path,
    )
    assert "Equilibrium" in board
    assert (tmp_path / "results" / "quick" / "leaderboard.html").is_file()
    assert "AIBazaar-v0" in run([program, "list"], tmp_path)
    leaked = run(
        [python, "-c", "import marketenvs, marketenvs_baselines, marketenvs_benchmarks as b; print(b.__file__)"],
        tmp_path,
    )
    assert str(tmp_path) in leaked
