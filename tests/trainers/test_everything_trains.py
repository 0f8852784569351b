"""Every trainer on every market: it trains, saves, loads and scores as before; the report of them all is made from that."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
from marketenvs_baselines import ALGORITHMS
from marketenvs_baselines.store import load_policy, save_policy
from marketenvs_benchmarks import trainer_matrix as matrix

import marketenvs
from marketenvs.errors import NotOffered
from marketenvs.scoring import evaluate
from marketenvs.task import Definition, Plan, build_task

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = Plan(markets=3, prefixes=2, warm_up=1, draws=8)
QUICK = {("q_learning", "AIBazaar-v0"), ("sb3_ppo", "AIBazaar-v0"), ("bandit", "TwoTierBidding-v0")}
"""What the quick tests run; the rest is slow."""
ALONE = """
import sys
from marketenvs_baselines.store import load_policy
from marketenvs.scoring import evaluate
from marketenvs.task import load_task
task = load_task(sys.argv[2])
found = evaluate(task, load_policy(sys.argv[1], task.make_market()), seed=0).score
assert not {"torch", "ray", "stable_baselines3"} & set(sys.modules)
print(repr(found))
"""


@functools.cache
def tiny_task(id, preset):
    params = {"n_consumers": 3} if id == "AIBazaar-v0" else {}
    return build_task(Definition(f"tiny-{id}-{preset}", id, preset=preset, params=params, plan=TINY), floors=False)


@pytest.fixture(scope="module")
def ray_runs():
    """One Ray for all of RLlib's trainers; nothing where it is not installed."""
    pytest.importorskip("ray.rllib", reason="needs marketenvs[rllib]")
    from marketenvs_baselines.rllib_trainers import local_ray

    with local_ray():
        yield


def brief(name):
    """(Budget, options) of the shortest run that still learns something."""
    if name.startswith("sb3_"):
        return 64, {"markets": 8, "rounds": 4}
    if name.startswith("rllib_"):
        replay = name in ("rllib_dqn", "rllib_sac")
        settings = {"num_steps_sampled_before_learning_starts": 16} if replay else {}
        return 160, {"markets": 8, "rounds": 2 if replay else 8, "hidden": (16, 16), "settings": settings}
    return (2000, {}) if name == "genetic" else (60, {})


def cases():
    for name, id, preset, _ in matrix.pairs(matrix.trainers(), list(matrix.PRESETS)):
        if preset is not None:
            marks = [] if (name, id) in QUICK else [pytest.mark.slow]
            yield pytest.param(name, id, preset, marks=marks, id=f"{name}-{id}-{preset}")


@pytest.mark.parametrize(("name", "id", "preset"), list(cases()))
def test_trains_saves_loads_and_scores_the_same(name, id, preset, tmp_path, request):
    if name.startswith("rllib_"):
        request.getfixturevalue("ray_runs")
    task, algorithm = tiny_task(id, preset), ALGORITHMS[name]
    budget, options = brief(name)
    reported = []
    if algorithm.train_many is not None:
        trained = algorithm.train_many(task, [0], budget, lambda n, *_: reported.append(n), **options)[0]
    else:
        trained = algorithm.train(task, 0, budget, lambda n, *_: reported.append(n), **options)
    market = task.make_market()
    assert set(trained) == set(market.roles)
    if reported:
        assert reported == sorted(reported)
        assert 0 < reported[-1] <= budget
    score = evaluate(task, trained, seed=0).score
    assert np.isfinite(score)
    assert score <= 1.0 + 1e-6, "nobody beats the equilibrium's zero regret"
    save_policy(tmp_path / "policy", trained, task, {"algorithm": name})
    assert evaluate(task, load_policy(tmp_path / "policy", market), seed=0).score == score
    if name.startswith(("sb3_", "rllib_")):  # in a process that never sees the framework
        task.save(tmp_path / "task.json")
        command = [sys.executable, "-c", ALONE, str(tmp_path / "policy"), str(tmp_path / "task.json")]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
        assert float(out.stdout) == score


def test_every_market_and_every_trainer_is_in_the_report():
    assert list(matrix.PRESETS) == marketenvs.list_markets()
    names = matrix.trainers()
    assert {n for n in ALGORITHMS if n.startswith(("sb3_", "rllib_"))} <= set(names)
    assert {"q_learning", "maddpg", "dqn", "genetic", "calvano_q"} <= set(names)
    for id, presets in matrix.PRESETS.items():
        for name in names:
            try:
                chosen = matrix.preset_for(ALGORITHMS[name], id)
            except NotOffered:
                assert all(not ALGORITHMS[name].plays(marketenvs.make(id, preset=p)) for p in presets)
            else:
                assert ALGORITHMS[name].plays(marketenvs.make(id, preset=chosen))
    general = [n for n in names if not ALGORITHMS[n].markets]
    played = {id: {n for n, i, p, _ in matrix.pairs(general, [id]) if p is not None} for id in matrix.PRESETS}
    assert all({"sb3_ppo", "rllib_ppo", "q_learning"} <= found for found in played.values())


def test_the_report_says_what_happened(tmp_path, monkeypatch):
    """Done once, reused, redone where damaged; failures and what cannot play are named; the verdict is the interval's."""

    def broken(task, seed, budget, report=None):
        raise ValueError("this trainer is broken")

    import dataclasses

    registry = {
        "random": ALGORITHMS["random"],
        "equilibrium": dataclasses.replace(ALGORITHMS["equilibrium"], quick_budget=7),
        "bandit": ALGORITHMS["bandit"],
        "sb3_dqn": ALGORITHMS["sb3_dqn"],
        "broken": dataclasses.replace(
            ALGORITHMS["sb3_dqn"], name="broken", train=broken, actions=("continuous",), can_play=None
        ),
    }
    monkeypatch.setattr(matrix, "ALGORITHMS", registry)
    monkeypatch.setattr(matrix, "PRESETS", {"AIBazaar-v0": ("drawn",)})
    monkeypatch.setattr(matrix, "PLAN", TINY)
    monkeypatch.setattr(matrix.runs, "code_of", lambda name: "code")
    names = list(registry)

    def go():
        matrix.do(tmp_path, names, ["AIBazaar-v0"], 20, (3, 2))
        return matrix.collect(tmp_path, names, ["AIBazaar-v0"])

    found = go()
    cells = {n: row["AIBazaar-v0"] for n, row in found["cells"].items()}
    assert cells["equilibrium"]["score"][0] > 0.9
    assert cells["equilibrium"]["budget"] == 7
    assert len(cells["bandit"]["scores"]) == 3
    assert cells["bandit"]["loaded_equal"]
    assert cells["broken"]["failure"] == "ValueError: this trainer is broken"
    assert "discrete" in cells["sb3_dqn"]["cannot"] or "continuous" in cells["sb3_dqn"]["cannot"]
    page = matrix.markdown(found)
    assert "**" in next(line for line in page.splitlines() if line.startswith("| `equilibrium`"))
    assert "failed" in next(line for line in page.splitlines() if line.startswith("| `broken`"))
    assert "this trainer is broken" in page
    files = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*.json")) if p.parent.name != "broken"}
    go()
    assert {p: p.read_bytes() for p in files} == files, "what is finished is not done again"
    victim = tmp_path / "bandit" / "AIBazaar-v0.json"
    victim.write_bytes(victim.read_bytes()[:50])
    go()
    again = json.loads(victim.read_text())
    want = json.loads(files[victim])
    for row in (*again["runs"], *want["runs"]):
        row.pop("cpu_seconds")
    assert again["runs"] == want["runs"]
