"""RLlib's algorithms as trainers: they train, leave NumPy networks behind, and go on after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from marketenvs_baselines import ALGORITHMS, resolve
from marketenvs_baselines.store import load_policy, save_policy

import marketenvs
from marketenvs import UnknownName
from marketenvs.policy import EquilibriumPolicy
from marketenvs.scoring import evaluate

from .cases import small_task

pytest.importorskip("ray.rllib", reason="needs marketenvs[rllib]")
import torch
from marketenvs_baselines import rllib_trainers as trainers

pytestmark = pytest.mark.filterwarnings("ignore")
GRADIENT = ("PPO", "APPO", "IMPALA")


def test_registered_heavy_and_honest_about_what_they_cannot_play():
    for kind in trainers.KINDS:
        algorithm = ALGORITHMS[f"rllib_{kind.lower()}"]
        assert algorithm.heavy
        assert resolve(f"rllib:{kind.lower()}") is algorithm
    assert "continuous" in ALGORITHMS["rllib_dqn"].why_not(marketenvs.make("AIBazaar-v0"))
    two_tier = marketenvs.make("TwoTierBidding-v0", preset="two_tier")
    assert "masks" in ALGORITHMS["rllib_sac"].why_not(two_tier)
    for kind in GRADIENT:
        assert all(ALGORITHMS[f"rllib_{kind.lower()}"].plays(marketenvs.make(i)) for i in marketenvs.list_markets())


@pytest.fixture(scope="module")
def cluster():
    with trainers.local_ray():
        yield


def small(kind):
    return {"markets": 8, "rounds": 8 if kind in GRADIENT else 2, "hidden": (16, 16)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", trainers.KINDS)
def test_the_network_is_the_module_and_it_learned(cluster, kind):
    """The NumPy network gives the module's own outputs, before and after learning; learning changes them."""
    market = marketenvs.make("AIBazaar-v0", preset="grid" if kind == "DQN" else "drawn")
    settings = {} if kind in GRADIENT else {"num_steps_sampled_before_learning_starts": 16}
    algorithm = trainers.build_config(kind, market, seed=0, settings=settings, **small(kind)).build_algo()
    try:
        rng = np.random.default_rng(0)
        outputs = []
        for _ in range(2):
            row = []
            for stage in market.stages:
                module = algorithm.get_module(stage.name)
                seen = rng.random((5, stage.observation_space.shape[0]), dtype=np.float32)
                with torch.no_grad():
                    batch = {"obs": torch.from_numpy(seen)}
                    if kind == "DQN":
                        want = module.compute_q_values(batch)["qf_preds"].numpy()
                    else:
                        want = module._forward_inference(batch)["action_dist_inputs"].numpy()
                got = trainers.network_of(module).forward(seen)
                if kind == "DQN":  # a dueling network's choices differ from its values by one constant
                    got, want = got - got.mean(1, keepdims=True), want - want.mean(1, keepdims=True)
                np.testing.assert_allclose(got, want[:, : got.shape[1]], atol=1e-5)
                row.append(got)
            outputs.append(row)
            for _ in range(8):
                algorithm.train()
        assert all(not np.allclose(a, b, atol=1e-4) for a, b in zip(*outputs, strict=True)), "every stage learned"
    finally:
        algorithm.stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PPO", "DQN"])
def test_masks_are_honoured(cluster, kind):
    """In training, no illegal action is ever sampled; the game would refuse it or play something else."""
    market = marketenvs.make("TwoTierBidding-v0", preset="two_tier")
    reason = trainers.why_not(kind, market)
    if reason is not None:
        pytest.skip(reason)
    algorithm = trainers.build_config(kind, market, seed=0, **small(kind)).build_algo()
    try:
        algorithm.train()
        stage = next(s.name for s in market.stages if s.role == "slicer")
        checked = 0
        for chunk in algorithm.env_runner.sample(num_timesteps=8 * 8 * len(market.stages), explore=True):
            for agent, sole in chunk.agent_episodes.items():
                if trainers.stage_of_agent(market.stages_of, agent) == stage:
                    masks = sole.get_observations()["action_mask"][:-1]
                    actions = np.asarray(sole.get_actions())
                    assert (np.take_along_axis(masks, actions[:, None], axis=1) == 1).all()
                    checked += len(actions)
        assert checked > 50
    finally:
        algorithm.stop()


@pytest.mark.slow
def test_scores_go_into_results_and_checkpoints_become_policies(cluster, tmp_path):
    task = small_task(n_consumers=2)
    market = task.make_market()
    config = trainers.build_config("PPO", market, seed=0, reward_scale=task.scale, **small("PPO"))
    config.callbacks(on_train_result=trainers.score_callback(task, every=2))
    algorithm = config.build_algo()
    try:
        assert "marketenvs" not in algorithm.train()
        found = algorithm.train()["marketenvs"]
        policies = trainers.policies_of(algorithm, market)
        assert found["score"] == evaluate(task, policies).score
        assert {"nash_conv", "score/provider", "score/consumer"} <= set(found)
        path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
        loaded = trainers.policies_of(path, market)
        assert evaluate(task, loaded).score == found["score"]
    finally:
        algorithm.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "id", "preset"),
    [
        ("PPO", "AIBazaar-v0", "drawn"),
        ("PPO", "CoalitionTrading-v0", "labels"),
        ("DQN", "TwoTierBidding-v0", "two_tier"),
        ("SAC", "FederatedSlicing-v0", "reduced"),
    ],
)
def test_a_policy_for_every_agent(cluster, kind, id, preset, tmp_path):
    """Each agent has its own module, learns its own weights, and plays them after saving, from memory and checkpoint."""
    task = small_task(id, preset)
    market = task.make_market()
    settings = {} if kind in GRADIENT else {"num_steps_sampled_before_learning_starts": 16}
    config = trainers.build_config(kind, market, seed=0, settings=settings, policies="agent", **small(kind))
    several = {r: len(s) > 1 for r, s in market.stages_of.items()}
    names = {
        f"{s.role}_{i}" + (f".{s.name}" if several[s.role] else "")
        for s in market.stages
        for i in range(market.roles[s.role])
    }
    assert set(config.policies) == names
    algorithm = trainers.build(config)
    try:
        before = trainers.policies_of(algorithm, market)
        for _ in range(3):
            algorithm.train()
        trained = trainers.policies_of(algorithm, market)
        for role, policy in trained.items():
            for name, network in policy.networks.items():
                assert network.agents == market.roles[role]
                # the output layer of an actor always learns; agents end with different ones
                weights = network.layers[-1][0]
                assert not np.array_equal(weights, before[role].networks[name].layers[-1][0])
                assert all(not np.array_equal(weights[0], w) for w in weights[1:])
                module = algorithm.get_module(f"{role}_0.{name}" if several[role] else f"{role}_0")
                np.testing.assert_array_equal(weights[0], trainers.network_of(module).layers[-1][0])
        score = evaluate(task, trained, seed=0).score
        path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
        assert evaluate(task, trainers.policies_of(path, market), seed=0).score == score
        save_policy(tmp_path / "p", trained, task)
        assert evaluate(task, load_policy(tmp_path / "p", market), seed=0).score == score
    finally:
        algorithm.stop()


def test_who_shares_a_network_is_checked_before_anything_is_trained():
    with pytest.raises(UnknownName, match="agent"):
        trainers.train_rllib("PPO", small_task(), 0, 10, policies="agents")
    with pytest.raises(UnknownName, match="'role' or 'agent'"):
        trainers.build_config("PPO", marketenvs.make("AIBazaar-v0"), seed=0, policies="everybody")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "role"), [("PPO", "provider"), ("SAC", "consumer")])
def test_one_role_learns_and_is_watched(cluster, kind, role, tmp_path):
    """Only that role comes back; TensorBoard has losses, returns, score and NashConv; watching changes nothing."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    task = small_task(n_consumers=2, horizon=8)
    settings = {} if kind in GRADIENT else {"num_steps_sampled_before_learning_starts": 16}
    options = {"settings": settings, "only": role, "opponents": "equilibrium", **small(kind)}
    seen = []
    trained = trainers.train_rllib(
        kind, task, 0, 256, lambda n, *_: seen.append(n), tensorboard=tmp_path, log_every=128, **options
    )
    assert set(trained) == {role}
    assert seen[-1] == 256
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"market/score", "market/nash_conv", f"market/score_{role}", "rollout/return"} <= tags
    assert any(tag.endswith("loss") for tag in tags)
    steps = [point.step for point in events.Scalars("market/nash_conv")]
    assert steps[-1] == 256
    assert 2 <= len(steps) <= 4
    whole = {**{r: EquilibriumPolicy() for r in task.make_market().roles}, **trained}
    assert np.isfinite(evaluate(task, whole, seed=0).score)
    again = trainers.train_rllib(kind, task, 0, 256, **options)
    for name, array in trained[role].export()[1].items():
        np.testing.assert_array_equal(again[role].export()[1][name], array)


@pytest.mark.slow
def test_remote_env_runners(cluster):
    task = small_task(n_consumers=2)
    trained = trainers.train_rllib("PPO", task, 0, 128, env_runners=2, markets=4, rounds=8, hidden=(16,))
    assert np.isfinite(evaluate(task, trained).score)


RUN = """
import os, signal, sys
from marketenvs.task import load_task
from marketenvs_baselines.rllib_trainers import train_rllib
from marketenvs_baselines.store import save_policy
task = load_task(sys.argv[2])
kill, folder = int(sys.argv[4]), sys.argv[3]
def report(rounds, *rest):
    print(rounds, flush=True)
    if rounds >= kill:
        os.kill(os.getpid(), signal.SIGKILL)
kind = sys.argv[1]
settings = {} if kind == "PPO" else {"num_steps_sampled_before_learning_starts": 64}
options = dict(markets=8, rounds=4, hidden=(16,), every=96, settings=settings)
trained = train_rllib(kind, task, 3, 288, report, checkpoint=folder, **options)
save_policy(folder + "-policy", trained, task)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PPO", "DQN", "SAC"])
def test_kill_nine_and_rerun_equals_an_uninterrupted_run(kind, tmp_path):
    """Killed in the second of three segments; the rerun does not redo the first, and ends with the same weights."""
    task = small_task(preset="grid" if kind == "DQN" else "drawn", n_consumers=2)
    task.save(tmp_path / "task.json")

    def run(folder, kill):
        command = [sys.executable, "-c", RUN, kind, str(tmp_path / "task.json"), str(tmp_path / folder), str(kill)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=400)
        return done.returncode, [int(line) for line in done.stdout.split()], done.stderr

    code, rounds, error = run("whole", 10**9)
    assert code == 0, error
    assert rounds[-1] == 288
    code, rounds, error = run("killed", 150)
    assert code == -signal.SIGKILL, error
    assert rounds[-1] == 160
    code, rest, error = run("killed", 10**9)
    assert code == 0, error
    assert rest[0] == 128, "segment 0 is not redone, segment 1 is begun again"
    market = task.make_market()
    whole, again = (load_policy(tmp_path / f"{name}-policy", market) for name in ("whole", "killed"))
    for role in market.roles:
        (_, a), (_, b) = whole[role].export(), again[role].export()
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.slow
def test_early_stop_when_policies_no_longer_move(cluster):
    """With a learning rate of nothing, the second segment finds the policies where the first left them."""
    task, seen = small_task(n_consumers=2), []
    options = {"every": 64, "patience": 1, "settings": {"lr": 1e-12}, **small("PPO")}
    trainers.train_rllib("PPO", task, 0, 640, lambda n, *_: seen.append(n), **options)
    assert seen == [64, 128]


@pytest.mark.slow
def test_markets_are_known_again_after_ray_was_shut_down():
    import ray
    from ray.rllib.algorithms.ppo import PPOConfig

    from marketenvs.rllib import MarketEnvRunner

    ray.shutdown()
    with trainers.local_ray():
        pass
    config = (
        PPOConfig()
        .environment("marketenvs/SpectrumBertrand-v0", env_config={"horizon": 2})
        .env_runners(num_env_runners=0)
    )
    config.multi_agent(
        policies={"seller", "buyer"}, policy_mapping_fn=lambda agent, *rest, **kw: agent.rpartition("_")[0]
    )
    runner = MarketEnvRunner(config=config, worker_index=0)
    assert runner.market.id == "SpectrumBertrand-v0"
