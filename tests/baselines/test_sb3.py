"""Stable-Baselines3 in self-play: every algorithm learns all roles, and comes out as a policy that needs no SB3."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from marketenvs_baselines import ALGORITHMS
from marketenvs_baselines.store import load_policy, save_policy

from marketenvs.errors import InvalidParameter, NotOffered, UnknownName
from marketenvs.policy import decide
from marketenvs.scoring import evaluate

from ..trainers.cases import small_task
from .tasks import FakeTask

pytest.importorskip("stable_baselines3")

TINY = {"markets": 8, "rounds": 4}
LIGHT = {"batch_size": 32, "gradient_steps": 1, "learning_starts": 64}
SETTINGS = {name: LIGHT for name in ("sb3_sac", "sb3_td3", "sb3_ddpg", "sb3_dqn")}
SETTINGS |= {name: {"n_epochs": 1} for name in ("sb3_ppo", "sb3_maskableppo")}
CASES = [("sb3_ppo", "calibrated"), ("sb3_ppo", "grid")]
SLOW = [
    ("sb3_a2c", "calibrated"),
    ("sb3_a2c", "grid"),
    ("sb3_sac", "calibrated"),
    ("sb3_td3", "calibrated"),
    ("sb3_ddpg", "calibrated"),
    ("sb3_dqn", "grid"),
    ("sb3_maskableppo", "grid"),
]
EVERY = [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


def task(preset="calibrated"):
    return FakeTask(preset, params={"n_consumers": 3, "horizon": 6})


def decisions(policies, market, seed=5):
    state = market.reset(seed=3, batch=16)
    out = {}
    for stage in market.stages:
        policies[stage.role].start(market, stage.role, 16, seed)
        obs = market.observe(state, stage.name)
        out[stage.name] = decide(policies[stage.role], market, stage, obs, None, state)
        state = market.commit(state, stage.name, out[stage.name])
    return out


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_all_roles_learn_save_and_load(name, preset, tmp_path):
    used = []
    first = ALGORITHMS[name].train(task(preset), 0, 1, None, **TINY)
    policies = ALGORITHMS[name].train(task(preset), 0, 300, lambda r, *a: used.append(r), **TINY)
    assert used == sorted(used)
    assert used[-1] <= 300
    market = task(preset).make_market()
    for role in market.roles:  # both have learned: the weights moved between 1 turn and many
        for stage, net in policies[role].networks.items():
            assert not np.array_equal(net.layers[0][0], first[role].networks[stage].layers[0][0])
    save_policy(tmp_path / "p", policies, task(preset), {"algorithm": name})
    back = load_policy(tmp_path / "p", market)
    for stage, value in decisions(policies, market).items():
        np.testing.assert_array_equal(decisions(back, market)[stage], value)


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_the_numpy_network_plays_what_sb3_would(name, preset):
    from marketenvs_baselines import sb3_others, sb3_ppo
    from marketenvs_baselines.sb3_selfplay import SelfPlay

    cls = {"sb3_maskableppo": "MaskablePPO"}.get(name, name.removeprefix("sb3_").upper())
    found = {"PPO": sb3_ppo.settings, "A2C": sb3_others.a2c, "DQN": sb3_others.dqn, "MaskablePPO": sb3_others.maskable}
    found |= {"SAC": sb3_others.sac, "TD3": sb3_others.noisy, "DDPG": sb3_others.noisy}
    game = SelfPlay(task(preset), 1, cls, settings=found[cls], **TINY)
    game.learn(200)
    market, policies = game.market, game.policies(stochastic=False)
    state = market.reset(seed=0, batch=64)
    for stage in market.stages:
        obs = market.observe(state, stage.name)
        n, d = obs.shape[1:]
        policies[stage.role].start(market, stage.role, 64, 0)
        mine = policies[stage.role].act_at(stage, obs, None, state)
        theirs, _ = game.models[stage.name].predict(obs.reshape(-1, d).astype(np.float32), deterministic=True)
        np.testing.assert_allclose(mine.reshape(theirs.shape), theirs, atol=2e-6)
        state = market.commit(state, stage.name, market.bounds(state, stage.name)[0] + np.zeros((64, n, 1)))


def exported(policies):
    return {(role, name): value for role, p in policies.items() for name, value in p.export()[1].items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        np.testing.assert_array_equal(b[key], value, err_msg=str(key))


class Killed(Exception):
    pass


WAYS = {
    "alternating": {},
    "simultaneous": {"schedule": "simultaneous"},
    "normalised": {"normalize": True, "anneal": 0.2},
    "both": {"normalize": {"clip_obs": 3.0, "norm_reward": False}, "schedule": "simultaneous"},
}
QUICK = [("sb3_ppo", "calibrated", w) for w in WAYS]
QUICK += [("sb3_dqn", "grid", "alternating"), ("sb3_sac", "calibrated", "both")]
QUICK += [("sb3_maskableppo", "grid", "normalised")]
ALL = [(name, preset, way) for name, preset in [*CASES, *SLOW] for way in WAYS]
WITH_WAY = [*QUICK, *(pytest.param(*c, marks=pytest.mark.slow) for c in ALL if c not in QUICK)]


@pytest.mark.parametrize(("name", "preset", "way"), WITH_WAY)
def test_a_killed_run_goes_on_and_every_policy_scores_the_same_when_loaded(name, preset, way, tmp_path):
    """Weights, optimizers, counters, replay buffers and normalisation: nothing of a run is lost with its process."""
    frozen = small_task(preset=None if preset == "calibrated" else preset, n_consumers=2, horizon=6)
    options = {**TINY, **WAYS[way], "settings": SETTINGS.get(name, {}), "every": 128}

    def train(report=None, folder=None):
        return ALGORITHMS[name].train(frozen, 3, 640, report, checkpoint=folder, **options)

    def kill(rounds, *rest):
        if rounds > 400:
            raise Killed

    whole, reports = train(), []
    with pytest.raises(Killed):
        train(kill, tmp_path / "run")
    again = train(lambda rounds, *rest: reports.append(rounds), tmp_path / "run")
    assert reports[0] > 384, "what was done is not redone"
    assert_equal(exported(whole), exported(again))
    assert_equal(exported(train(None, tmp_path / "run")), exported(whole))  # a finished run is only loaded
    save_policy(tmp_path / "p", again, frozen)
    loaded = load_policy(tmp_path / "p", frozen.make_market())
    assert evaluate(frozen, loaded).scores == evaluate(frozen, again).scores
    standardized = [n.standardize is not None for p in loaded.values() for n in p.networks.values()]
    assert all(standardized) if "normalize" in WAYS[way] else not any(standardized)


def test_normalised_networks_see_what_vec_normalize_shows():
    """The NumPy network, given raw observations, acts as SB3's does behind its VecNormalize."""
    from marketenvs_baselines.sb3_ppo import settings
    from marketenvs_baselines.sb3_selfplay import SelfPlay

    game = SelfPlay(task(), 1, "PPO", settings=settings, normalize={"clip_obs": 1.5}, **TINY)
    game.learn(400)
    model = game.models["purchase"]
    wrapper = model.get_vec_normalize_env()
    raw = np.random.default_rng(0).normal(0.5, 1.0, (50, *model.observation_space.shape)).astype(np.float32)
    shown = wrapper.normalize_obs(raw)
    assert np.abs(shown).max() == 1.5, "the limit is reached"
    theirs, _ = model.predict(shown, deterministic=True)
    network = game.policies(stochastic=False)["consumer"].networks["purchase"]
    mine = network.act(raw, None, np.random.default_rng(0))
    np.testing.assert_allclose(mine, theirs, atol=2e-6)
    plain = dataclasses.replace(network, standardize=None)
    assert not np.allclose(plain.act(raw, None, np.random.default_rng(0)), theirs, atol=0.05)


def test_a_normalised_policy_without_its_statistics_is_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    policies = ALGORITHMS["sb3_ppo"].train(task(), 0, 1, None, normalize=True, **TINY)
    save_policy(tmp_path / "p", policies, task())
    file = str(tmp_path / "p" / "consumer.safetensors")
    save_file({k: v for k, v in load_file(file).items() if not k.endswith(".mean")}, file)
    with pytest.raises(InvalidParameter, match="VecNormalize.*statistics are not in the saved arrays"):
        load_policy(tmp_path / "p", task().make_market())


def test_dqn_explores_in_each_environment_on_its_own():
    """SB3's own DQN draws one number for all environments of a step."""
    from marketenvs_baselines.sb3_networks import batch_dqn
    from stable_baselines3 import DQN

    from marketenvs.sb3 import MarketVecEnv

    env = MarketVecEnv("AIBazaar-v0", "consumer", 64, preset="grid", opponents="random", seed=0)
    seen = env.reset()
    share = {}
    for cls in (batch_dqn(), DQN):
        model = cls("MlpPolicy", env, seed=0, device="cpu", buffer_size=640)
        greedy = model.predict(seen, deterministic=True)[0]
        model.exploration_rate = 0.3
        steps = [np.mean(model.predict(seen)[0] != greedy) for _ in range(40)]
        share[cls.__name__] = np.array(steps)
    explored = 0.3 * 0.9  # a random action is the greedy one in a tenth of cases
    np.testing.assert_allclose(share["BatchDQN"], explored, atol=5 * np.sqrt(explored * (1 - explored) / 640))
    assert set(share["DQN"] > 0.5) == {True, False}, "all or nothing"


def test_simultaneous_rounds_teach_everybody():
    """One pass of simultaneous play costs the rounds of one turn, and all roles have learned from it."""
    from marketenvs_baselines.sb3_ppo import settings
    from marketenvs_baselines.sb3_selfplay import SelfPlay

    alternating = SelfPlay(task(), 0, "PPO", settings=settings, **TINY)
    together = SelfPlay(task(), 0, "PPO", settings=settings, schedule="simultaneous", **TINY)
    assert 2 * together.cost == alternating.cost == 64
    before = exported(together.policies())
    together.learn(32)
    after = exported(together.policies())
    assert all(not np.array_equal(before[k], after[k]) for k in before if k[1].endswith("0.weight"))
    assert {m.num_timesteps for m in together.models.values()} == {32, 96}
    with pytest.raises(InvalidParameter, match="fresh"):
        SelfPlay(task(), 0, "PPO", settings=settings, schedule="simultaneous", fresh=False, **TINY)


def test_runs_of_neighbouring_seeds_meet_different_markets():
    """SB3 seeds its environments with the model's seed: market b would play seed + b, of every role and run."""
    from marketenvs_baselines.sb3_ppo import settings
    from marketenvs_baselines.sb3_selfplay import SelfPlay

    met = []
    for seed in (0, 1):
        game = SelfPlay(FakeTask("drawn", params={"n_consumers": 3}), seed, "PPO", settings=settings, **TINY)
        for model in game.models.values():
            model.env.reset()
            met += model.env.venv.game.game.episodes.seeds.tolist() if hasattr(model.env, "venv") else []
            met += model.env.game.game.episodes.seeds.tolist() if not hasattr(model.env, "venv") else []
    assert len(met) == len(set(met)) == 4 * TINY["markets"]


def test_watching_changes_nothing_and_looks_at_other_markets(tmp_path):
    from marketenvs_baselines.watch import sample_task

    frozen = small_task(preset="drawn", n_consumers=2, horizon=6)
    options = {**TINY, "settings": {"n_epochs": 1}}
    plain = ALGORITHMS["sb3_ppo"].train(frozen, 0, 128, None, **options)
    watched = ALGORITHMS["sb3_ppo"].train(frozen, 0, 128, None, tensorboard=tmp_path, log_every=64, **options)
    assert_equal(exported(plain), exported(watched))
    market, sample = frozen.make_market(), sample_task(frozen)
    held_out = frozen.held_out(market).theta.payment_weight
    assert not np.isin(sample.held_out(market).theta.payment_weight, held_out).any()
    with pytest.raises(InvalidParameter, match="needs a task"):
        ALGORITHMS["sb3_ppo"].train(task(), 0, 64, None, tensorboard=tmp_path, **options)


def test_a_callback_scores_a_model_of_ones_own(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from marketenvs_baselines.watch import score_callback
    from stable_baselines3 import PPO

    from marketenvs.sb3 import MarketVecEnv

    frozen = small_task(preset="drawn", n_consumers=2, horizon=6)
    env = MarketVecEnv(frozen.make_market(), "provider", 8, reward_scale=frozen.scale, seed=0)
    model = PPO("MlpPolicy", env, n_steps=4, batch_size=32, n_epochs=1, device="cpu", tensorboard_log=str(tmp_path))
    model.learn(128, callback=score_callback(frozen, "provider", every=64))
    log = events.EventAccumulator(str(next(tmp_path.iterdir())))
    log.Reload()
    for tag in ("market/score", "market/score_provider", "market/nash_conv", "market/welfare"):
        assert [e.step for e in log.Scalars(tag)] == [64, 128]
    assert "market/score_consumer" not in log.Tags()["scalars"]


def test_the_seed_decides():
    a, b, c = (
        decisions(ALGORITHMS["sb3_ppo"].train(task(), s, 200, None, **TINY), task().make_market()) for s in (1, 1, 2)
    )
    for stage in a:
        np.testing.assert_array_equal(a[stage], b[stage])
        assert not np.array_equal(a[stage], c[stage])


def test_settings_replace_defaults_one_by_one():
    still = ALGORITHMS["sb3_ppo"].train(task(), 0, 100, None, settings={"learning_rate": 0.0}, **TINY)
    again = ALGORITHMS["sb3_ppo"].train(task(), 0, 300, None, settings={"learning_rate": 0.0}, **TINY)
    for stage, value in decisions(still, task().make_market()).items():
        np.testing.assert_array_equal(decisions(again, task().make_market())[stage], value)


def test_annealing_stops_the_steps():
    """With nothing left at the end, learning rates fall linearly from turn to turn."""
    from marketenvs_baselines.sb3_ppo import settings
    from marketenvs_baselines.sb3_selfplay import SelfPlay

    game, seen = SelfPlay(task(), 0, "PPO", settings=settings, anneal=0.0, **TINY), []
    game.learn(256, lambda *a: seen.append(game.models["pricing"].policy.optimizer.param_groups[0]["lr"]))
    np.testing.assert_allclose(seen[::2], 1e-3 * np.array([1, 0.75, 0.5, 0.25]))  # 4 passes of 2 turns of 32 rounds


def test_one_role_learns_alone():
    only = ALGORITHMS["sb3_ppo"].train(task(), 0, 100, None, only="consumer", opponents="random", **TINY)
    assert set(only) == {"consumer"}


def test_what_cannot_be_played_is_named():
    continuous, grid = task().make_market(), task("grid").make_market()
    assert "discrete" in ALGORITHMS["sb3_dqn"].why_not(continuous)
    assert "continuous" in ALGORITHMS["sb3_sac"].why_not(grid)
    with pytest.raises(NotOffered, match="SAC needs continuous actions"):
        ALGORITHMS["sb3_sac"].train(task("grid"), 0, 10, None, **TINY)
    with pytest.raises(InvalidParameter, match="no role 'cosumer'"):
        ALGORITHMS["sb3_ppo"].train(task(), 0, 10, None, only="cosumer", **TINY)
    with pytest.raises(UnknownName, match="did you mean 'wander'"):
        ALGORITHMS["sb3_ppo"].train(task(), 0, 10, None, wandr=0.1)
    with pytest.raises(UnknownName, match="did you mean 'learning_rate'"):
        ALGORITHMS["sb3_ppo"].train(task(), 0, 10, None, settings={"learning_rat": 0.1})
    with pytest.raises(InvalidParameter, match="wander"):
        ALGORITHMS["sb3_ppo"].train(task(), 0, 10, None, wander=2.0, **TINY)


def test_a_trained_policy_plays_without_sb3_and_torch(tmp_path):
    policies = ALGORITHMS["sb3_ppo"].train(task(), 0, 1, None, **TINY)
    save_policy(tmp_path / "p", policies, task())
    code = f"""
import sys, marketenvs
from marketenvs_baselines import play
from marketenvs_baselines.store import load_policy
market = marketenvs.make("AIBazaar-v0", n_consumers=3, horizon=6)
play(market, load_policy({str(tmp_path / "p")!r}, market), 3, [0])
print([m for m in ("torch", "stable_baselines3") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["TD3", "DDPG"])
def test_a_restrained_actor_feels_the_penalty_and_leaves_the_bound(name):
    """Its gradient is that of loss + restraint / 2 * raw^2; SB3's own actor stays where its tanh is flat."""
    import torch
    from marketenvs_baselines.sb3_networks import sb3_class

    from marketenvs.sb3 import MarketVecEnv

    env = MarketVecEnv("AIBazaar-v0", "provider", 4, seed=0)

    def actor_of(restraint):
        kwargs = {"net_arch": [8], "restraint": restraint}
        return sb3_class(name)("MlpPolicy", env, seed=0, policy_kwargs=kwargs).policy.actor

    obs = torch.as_tensor(env.reset())
    mine, plain = actor_of(0.3), actor_of(0.0)
    (-mine(obs).mean()).backward()
    raw = plain.mu[:-1](obs)
    (-torch.tanh(raw).mean() + 0.15 * (raw**2).mean()).backward()
    for a, b in zip(mine.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for actor, free in ((mine, True), (actor_of(0.0), False)):
        with torch.no_grad():
            actor.mu[-2].bias.fill_(30.0)
        optimizer = torch.optim.Adam(actor.parameters(), 0.05)
        for _ in range(600):
            loss = ((actor(obs) - 0.2) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert (abs(float(actor(obs).mean().detach()) - 0.2) < 0.2) is free


@pytest.mark.parametrize("name", ["PPO", "A2C"])
def test_a_restrained_mean_pays_for_leaving_the_range(name):
    """Its gradient is that of loss + restraint / 2 * (distance of the mean from the action range)^2."""
    import torch
    from marketenvs_baselines.sb3_networks import sb3_class

    from marketenvs.sb3 import MarketVecEnv

    env = MarketVecEnv("AIBazaar-v0", "provider", 4, seed=0)
    obs, actions = torch.as_tensor(env.reset()), torch.full((4, 1), 0.3)

    def policy_of(restraint):
        kwargs = {"net_arch": [8], "restraint": restraint}
        policy = sb3_class(name)("MlpPolicy", env, seed=0, policy_kwargs=kwargs).policy
        with torch.no_grad():
            policy.action_net.weight.mul_(300.0)  # some means inside the range, some outside
        return policy

    mine, plain = policy_of(0.7), policy_of(0.0)
    mine.evaluate_actions(obs, actions)[1].mean().backward()
    mean = plain.get_distribution(obs).distribution.mean
    excess = mean - mean.clamp(-1.0, 1.0)
    assert (excess != 0).any()
    (plain.evaluate_actions(obs, actions)[1].mean() + 0.35 * (excess**2).mean()).backward()
    pairs = [(a.grad, b.grad) for a, b in zip(mine.parameters(), plain.parameters(), strict=True) if b.grad is not None]
    assert pairs
    for a, b in pairs:
        torch.testing.assert_close(a, b)
    with pytest.raises(InvalidParameter, match="restraint must be a number >= 0"):
        policy_of(-1.0)


def test_options_of_constructors_that_hand_on_theirs_are_known_by_name():
    algorithm = ALGORITHMS["sb3_td3"]

    def settings(**policy):
        return {"settings": {"policy_kwargs": policy}}

    algorithm.check(settings(restraint=0.1, net_arch=[8]))
    with pytest.raises(UnknownName, match="did you mean 'restraint'"):
        algorithm.check(settings(restrain=0.1))


def test_training_leaves_no_folders_of_its_own_behind(tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ALGORITHMS["sb3_a2c"].train(task("calibrated"), 0, 200, **TINY)
    left = [p.name for p in tmp_path.iterdir() if p.name != "torchinductor_root"]  # torch makes its cache once
    assert not left
