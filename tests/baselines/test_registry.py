"""Finding algorithms: ours, a user's module or file, and what bad ones are told."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from marketenvs_baselines import ALGORITHMS, Algorithm, resolve, resolve_policy
from marketenvs_baselines.store import save_policy

from marketenvs.errors import InvalidParameter, NotOffered, UnknownName
from marketenvs.policy import Uniform

from .tasks import FakeTask

GOOD = """
from marketenvs.policy import Policy, Uniform
import numpy as np

class Mine(Policy):
    def act(self, obs, mask=None):
        return np.full((*obs.shape[:2], 1), 15.0)

class Needs(Mine):
    def __init__(self, x):
        self.x = x

def train(task, seed, budget, report):
    report and report(budget)
    return {role: Uniform() for role in task.make_market().roles}
train.quick_budget = 123
train.title = "Mine"

def short(task, seed):
    return {}

def wrong(task, seed, budget, report):
    return {"provider": Mine}

def nothing(task, seed, budget, report):
    return None
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_learner.py").write_text(textwrap.dedent(GOOD))
    (tmp_path / "broken_learner.py").write_text("1 / 0\n")
    (tmp_path / "needy_learner.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_learner", None)


def test_our_algorithms_are_found():
    want = {"random", "equilibrium", "myopic", "best_constant", "fictitious_play", "damped_best_response", "pb_marl"}
    want |= {"pga_app", "giga_wolf", "minimax_q", "q_learning"}
    assert want <= set(ALGORITHMS)
    for name, algorithm in ALGORITHMS.items():
        assert algorithm.name == name
        assert callable(algorithm.train)
        assert algorithm.access in ("observation", "model", "oracle")
    assert ALGORITHMS["pb-marl"] is ALGORITHMS["pb_marl"]
    assert resolve("sb3:ppo") is ALGORITHMS["sb3_ppo"]
    with pytest.raises(UnknownName, match="did you mean 'pb_marl'"):
        ALGORITHMS["pb_mral"]


def test_listing_algorithms_loads_nothing_heavy():
    heavy = ("torch", "stable_baselines3", "ray", "jax", "pymoo", "matplotlib")
    code = f"import sys, marketenvs_baselines as b; list(b.ALGORITHMS); print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert out.stderr == ""


@pytest.mark.parametrize("path", ["my_learner:train", "my_learner.py:train", "./my_learner.py:train"])
def test_a_users_function_is_a_learner(here, path):
    algorithm = resolve(path)
    assert isinstance(algorithm, Algorithm)
    assert (algorithm.title, algorithm.quick_budget) == ("Mine", 123)
    reports = []
    out = algorithm.run(FakeTask(), [0, 1], 50, lambda *a: reports.append(a))
    assert len(out) == 2
    assert reports == [(50,), (50,)]


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("no_such_module:train", UnknownName, "no module 'no_such_module'"),
        ("nofile.py:train", UnknownName, "no file"),
        ("my_learner:trian", UnknownName, "did you mean 'train'"),
        ("my_learner:short", InvalidParameter, r"train\(task, seed, budget, report\)"),
        ("my_learner:Mine", InvalidParameter, "a class"),
        ("broken_learner:train", InvalidParameter, "ZeroDivisionError"),
        ("needy_learner:train", InvalidParameter, "a_module_that_is_not_there"),
        ("my_learner:", InvalidParameter, "module:name"),
        ("pbmarl", UnknownName, "pb_marl"),
    ],
)
def test_bad_learners_are_named(here, path, error, words):
    with pytest.raises(error, match=words):
        resolve(path)


@pytest.mark.parametrize(
    ("name", "error", "words"), [("wrong", UnknownName, "consumer"), ("nothing", InvalidParameter, "NoneType")]
)
def test_what_a_learner_returns_is_checked(here, name, error, words):
    with pytest.raises(error, match=words):
        resolve(f"my_learner:{name}").run(FakeTask(), [0], 5)


def test_a_class_instead_of_a_policy_is_named():
    algorithm = Algorithm("x", train=lambda *a: {"provider": Uniform, "consumer": Uniform()})
    with pytest.raises(InvalidParameter, match="return an instance"):
        algorithm.run(FakeTask(), [0], 5)


def test_users_policies(here):
    assert resolve_policy("my_learner:Mine").act is not None
    with pytest.raises(InvalidParameter, match="without arguments"):
        resolve_policy("my_learner:Needs")
    with pytest.raises(InvalidParameter, match="not a policy"):
        resolve_policy("my_learner:train")
    save_policy("saved", {"provider": Uniform(), "consumer": Uniform()}, FakeTask())
    assert isinstance(resolve_policy("saved", "consumer"), Uniform)
    with pytest.raises(InvalidParameter, match="name the role"):
        resolve_policy("saved")
    with pytest.raises(UnknownName, match="did you mean 'consumer'"):
        resolve_policy("saved", "consumers")


def test_reasons_not_to_play():
    market = FakeTask().make_market()
    grids = Algorithm("grids", train=lambda *a: {}, actions=("continuous",))
    assert "discrete" in grids.why_not(market)
    other = Algorithm("other", train=lambda *a: {}, markets=("SpectrumBertrand-v0",))
    with pytest.raises(NotOffered, match="SpectrumBertrand-v0"):
        other.run(FakeTask(), [0], 5)
    absent = Algorithm("absent", train=lambda *a: {}, requires=("a_module_that_is_not_there",))
    assert "not installed" in absent.why_not(market)
    assert ALGORITHMS["pb_marl"].plays(market)


def test_reports_of_one_seed_are_single_policies():
    seen = []

    def report(rounds, policies=None, metrics=None):
        seen.append(policies())

    ALGORITHMS["pb_marl"].train(FakeTask(params={"n_consumers": 3}), 0, 4, report)
    assert set(seen[0]) == {"provider", "consumer"}
