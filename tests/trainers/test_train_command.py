"""``marketenvs train``: killed and called again, one role alone, early stop, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from marketenvs.cli import app
from marketenvs.errors import MarketEnvsError, NotOffered
from marketenvs.role_track import evaluate_role
from marketenvs.scoring import evaluate
from marketenvs.task import load_task

from .cases import small_task


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name, preset in (("grid", "grid"), ("fixed", None)):
        small_task(preset=preset, n_consumers=2, horizon=10).save(folder / f"{name}.json")
    small_task("SpectrumBertrand-v0", preset="calvano").save(folder / "calvano.json")
    return folder


def found(folder):
    """The result's content, but for what the clock and the machine put in."""
    (path,) = folder.rglob("result.json")
    content = json.loads(path.read_text())
    content.pop("provenance")
    content["evaluation"].pop("seconds")
    return content


OFF_POLICY = "settings: {batch_size: 32, gradient_steps: 1, policy_kwargs: {net_arch: [8]}}"
KILLED = {
    "sb3:ppo": ("fixed", 6_000, "{markets: 16, rounds: 4, every: 512, settings: {n_epochs: 2}}"),
    "sb3:sac": ("fixed", 4_000, "{markets: 16, rounds: 4, every: 256, " + OFF_POLICY + "}"),
    "sb3:dqn": ("grid", 6_000, "{markets: 16, rounds: 4, every: 512, " + OFF_POLICY + "}"),
    "sb3:maskableppo": ("grid", 6_000, "{schedule: simultaneous, normalize: true, markets: 16, rounds: 4, every: 512}"),
    "q_learning": ("grid", 20_000, "{}"),
    "dqn": ("grid", 4_000, "{}"),
    "maddpg": ("fixed", 1_500, "{}"),
    "calvano_q": ("calvano", 400_000, "{}"),
}
SLOW = ("sb3:sac", "sb3:maskableppo", "dqn", "maddpg", "calvano_q")


def interrupted(command, folder, after=2):
    """Start a command in a process of its own; SIGKILL it as soon as its ``after``-th checkpoint is whole."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        done = [p for p in folder.rglob("segment-*") if int(p.name[-6:]) + 1 >= after]
        if done:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.mark.parametrize("learner", [pytest.param(k, marks=pytest.mark.slow if k in SLOW else ()) for k in KILLED])
def test_killed_in_the_middle_it_goes_on_and_ends_like_an_uninterrupted_run(learner, tasks, tmp_path):
    if learner.startswith("sb3"):
        pytest.importorskip("stable_baselines3")
    task, budget, options = KILLED[learner]
    (tmp_path / "run.yaml").write_text(f"learner: {learner}\nbudget: {budget}\noptions: {options}\n")

    def command(name):
        arguments = [tasks / f"{task}.json", "--config", tmp_path / "run.yaml", "--seed", "3"]
        return [
            sys.executable,
            "-m",
            "marketenvs.cli",
            "train",
            *map(str, arguments),
            "--results",
            str(tmp_path / name),
        ]

    interrupted(command("killed"), tmp_path / "killed")
    assert not list((tmp_path / "killed").rglob("result.json"))
    assert list((tmp_path / "killed").rglob("checkpoint"))
    again = subprocess.run(command("killed"), capture_output=True, text=True, env=environment(), check=True).stdout
    assert "going on from" in again
    assert not list((tmp_path / "killed").rglob("segment-*")), "a finished run needs no checkpoint"
    subprocess.run(command("whole"), capture_output=True, env=environment(), check=True)
    assert found(tmp_path / "killed") == found(tmp_path / "whole")
    assert found(tmp_path / "killed")["evaluation"]["score"] != 0
    (a,) = (tmp_path / "killed").rglob("policy")
    (b,) = (tmp_path / "whole").rglob("policy")
    arrays = sorted(p.name for p in a.iterdir() if p.suffix == ".safetensors")
    assert all((a / n).read_bytes() == (b / n).read_bytes() for n in arrays), "the same weights to the last bit"
    assert "already done" in call(*map(str, command("killed")[3:]))


@pytest.mark.parametrize(
    ("learner", "opponents"), [("sb3:ppo", "equilibrium"), ("q_learning", "random"), ("dqn", None)]
)
def test_one_role_is_trained_saved_and_scored_beside_the_equilibrium(learner, opponents, tasks, tmp_path):
    if learner.startswith("sb3"):
        pytest.importorskip("stable_baselines3")
    options = "options: {markets: 8, rounds: 4}\n" if learner.startswith("sb3") else ""
    (tmp_path / "run.yaml").write_text(options)
    more = [] if opponents is None else ["--opponents", opponents]
    file = tasks / "grid.json"
    arguments = ["train", file, "--learner", learner, "--config", tmp_path / "run.yaml", "--role", "consumer"]
    out = call(*arguments, "--budget", "200", "--results", tmp_path / "out", *more)
    assert "score of consumer" in out
    (policy,) = (tmp_path / "out").rglob("policy")
    kept = found(tmp_path / "out")
    assert set(kept["only"]) == set(kept["roles"]) == {"consumer"}
    assert kept["setting"]["opponents"] == (opponents or "equilibrium")
    scored = json.loads(call("evaluate", policy, "--task", file))
    assert scored["only"] == kept["only"]
    assert scored["roles"] == kept["roles"]
    assert "role track consumer" in scored["summary"]
    from marketenvs_baselines.store import load_policy

    from marketenvs.policy import EquilibriumPolicy

    task = load_task(file)
    trained = load_policy(policy, task.make_market())
    assert set(trained) == {"consumer"}
    assert kept["only"]["consumer"] == evaluate(task, {"provider": EquilibriumPolicy(), **trained}).scores["consumer"]
    assert kept["roles"]["consumer"] == evaluate_role(task, "consumer", trained["consumer"])


def test_opponents_decide_what_is_learned(tasks, tmp_path):
    """Another opponent, another policy and another folder; a saved policy's folder is an opponent too."""
    base = ["train", tasks / "grid.json", "--learner", "q_learning", "--budget", "300", "--results", tmp_path]
    call(*base, "--role", "provider")
    (first,) = tmp_path.rglob("policy")
    for opponent in ("random", "equilibrium"):
        call(*base, "--role", "consumer", "--opponents", opponent)
    call(*base, "--role", "consumer", "--opponents", first)
    results = {json.dumps(json.loads(p.read_text())["setting"]["opponents"]): p for p in tmp_path.rglob("result.json")}
    assert len(list(tmp_path.rglob("result.json"))) == 4
    scores = {k: json.loads(p.read_text())["only"].get("consumer") for k, p in results.items()}
    assert scores['"random"'] != scores['"equilibrium"']
    assert any(str(first) in k for k in results), "a folder is identified by its name and its content"


def test_a_market_of_its_own_is_evaluated_from_the_run_folder(tmp_path):
    call("train", "AIBazaar-v0", "--learner", "myopic", "--results", tmp_path)
    (run,) = (p.parent for p in tmp_path.rglob("result.json"))
    assert json.loads(call("evaluate", run))["task"] == "AIBazaar-v0"


def test_early_stop(tasks, tmp_path):
    """With a learning rate of nothing, the second segment finds the policies where the first left them."""
    pytest.importorskip("stable_baselines3")
    options = "{markets: 8, rounds: 4, every: 128, settings: {learning_rate: 0.0}}"
    (tmp_path / "run.yaml").write_text(f"learner: sb3:ppo\nbudget: 50000\noptions: {options}\n")
    begun = time.monotonic()
    call(
        "train", tasks / "fixed.json", "--config", tmp_path / "run.yaml", "--patience", 1, "--results", tmp_path / "out"
    )
    assert time.monotonic() - begun < 30, "50,000 rounds would take minutes"
    assert found(tmp_path / "out")["setting"]["options"]["patience"] == 1


def test_tensorboard_shows_nash_conv_score_and_welfare(tasks, tmp_path):
    pytest.importorskip("stable_baselines3")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "run.yaml").write_text("options: {markets: 8, rounds: 4, log_every: 64, every: 128}\n")
    arguments = ["train", tasks / "fixed.json", "--learner", "sb3:ppo", "--config", tmp_path / "run.yaml"]
    call(*arguments, "--budget", 384, "--tensorboard", "--results", tmp_path / "out")
    (folder,) = (tmp_path / "out").rglob("tensorboard")
    log = events.EventAccumulator(str(folder))
    log.Reload()
    tags = set(log.Tags()["scalars"])
    assert {"market/nash_conv", "market/score", "market/score_provider", "market/welfare"} <= tags
    assert {"pricing/train/loss", "purchase/train/approx_kl"} <= tags
    assert [e.step for e in log.Scalars("market/score")] == [64 * k for k in range(1, 7)]
    call(*arguments, "--budget", 384, "--results", tmp_path / "quiet")
    assert found(tmp_path / "quiet") == found(tmp_path / "out"), "watching changes nothing"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("learner: sb3:ppo\nrol: provider", "did you mean 'role'"),
        ("learner: sb3:ppo\noptions: {market: 3}", "did you mean 'markets'"),
        ("learner: sb3:ppo\noptions: {settings: {n_epoch: 3}}", "did you mean 'n_epochs'"),
        ("learner: sb3:ppo\noptions: {settings: {policy_kwargs: {netarch: [8]}}}", "did you mean 'net_arch'"),
        ("learner: sb3:ppo\noptions: {settings: {policy_kwargs: {activation_fn: rel}}}", "did you mean 'relu'"),
        ("learner: sb3:ppo\noptions: {settings: 3}", "settings must map"),
        ("learner: sb3:ppo\noptions: {normalize: {clip_ob: 3}}", "did you mean 'clip_obs'"),
        ("learner: sb3:ppo\noptions: {normalize: 3}", "normalize must be"),
        ("learner: sb3:ppo\noptions: {schedule: simultaneus}", "did you mean 'simultaneous'"),
        ("learner: dqn\noptions: {learning_rat: 0.1}", "did you mean 'learning_rate'"),
        ("learner: sb3:ppo\nrole: providr", "did you mean 'provider'"),
        ("learner: sb3:ppo\nrole: provider\nopponents: equilibrum", "did you mean 'equilibrium'"),
        ("learner: sb3:ppo\nrole: provider\nopponents: {consmer: random}", "did you mean 'consumer'"),
        ("learner: sb3:ppo\nopponents: random", "--role"),
        ("learner: genetic\nrole: provider", "cannot train one role alone"),
        ("learner: sb3:dqn", "discrete"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_computed(content, message, tasks, tmp_path):
    pytest.importorskip("stable_baselines3")
    (tmp_path / "run.yaml").write_text(content)
    arguments = [tasks / "fixed.json", "--config", tmp_path / "run.yaml", "--results", tmp_path / "out"]
    with pytest.raises(MarketEnvsError, match=message):
        call("train", *arguments)
    assert not list((tmp_path / "out").rglob("*.json"))


def test_flags_that_an_algorithm_lacks_are_refused(tasks, tmp_path):
    for flag in (["--patience", "2"], ["--tensorboard"]):
        with pytest.raises(NotOffered, match=flag[0]):
            call("train", tasks / "grid.json", "--learner", "q_learning", *flag, "--results", tmp_path)
