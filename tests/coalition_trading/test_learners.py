"""The market's own learners: they run, improve on what they can, save, and refuse what they cannot play."""

import numpy as np
import pytest
from marketenvs_baselines import maddpg, regret_matching_plus
from marketenvs_baselines.run import play

from marketenvs import make

ID = "CoalitionTrading-v0"


class Task:
    scale = {"seller": 50.0, "buyer": 30.0}

    def __init__(self, **settings):
        self.settings = settings

    def make_market(self, **overrides):
        return make(ID, **self.settings, **overrides)


@pytest.mark.parametrize("owner", ["agents", "sellers", "system"])
def test_ddpg_family_trains_and_round_trips(owner):
    pytest.importorskip("torch")
    config = maddpg.Config(hidden=16, batch=16, warmup=8)
    seen: list[int] = []
    trained = maddpg.train_many(
        Task(), [0, 1], 24, lambda rounds, policies=None, metrics=None: seen.append(rounds), owner=owner, config=config
    )
    assert len(trained) == 2
    assert seen[-1] == 24
    market = make(ID)
    record = play(market, trained[0], 3, [0], tail=1.0)
    assert np.all(np.isfinite(record.payoffs["seller"]))
    actors = trained[0]["seller"]
    again = maddpg.Actors.restore(*actors.export())
    again.start(market, "seller", 1, 0)
    state = market.reset(0)
    obs = market.observe(state, "pricing")
    played = [p.act_at(market.stage("pricing"), obs, None, state) for p in (actors, again)]
    assert np.array_equal(*played)


def test_the_labels_market_is_played_by_the_papers_formation_rule():
    pytest.importorskip("torch")
    config = maddpg.Config(hidden=16, batch=8, warmup=8)
    trained = maddpg.train_many(Task(preset="labels"), [0, 1], 30, config=config)
    market = make(ID, preset="labels")
    record = play(market, trained[0], 3, [0, 1], tail=1.0, keep=("coalition", "purchase"))
    assert np.all(record.traces["coalition"] == 0)  # everybody joins the grand coalition
    assert record.metrics["coalition_size"] == pytest.approx([3, 3])


def test_a_head_asks_once_for_all_served_members():
    """The members' requests add up to the head's single one, whoever is served; the others ask for nothing."""
    rng = np.random.default_rng(0)
    market = make(ID, formation="fixed", partition=((0, 2), (1,)))
    n, d, k = 3, market.stage("purchase").observation_space.shape[0], 2
    layers = [(rng.normal(size=(1, n * d, k)) * 0.1, np.zeros((1, 1, k)))]
    head = maddpg.Actors(layers, head=True)
    head.start(market, "buyer", 4, 0)
    state = market.commit(market.reset(0, batch=4), "pricing", np.full((4, 2, 1), 1.3))
    obs = market.observe(state, "purchase")
    unit = head.act_at(market.stage("purchase"), obs, None, state)
    asked = 50.0 * (unit + 1.0) / 2.0
    want = 50.0 * (np.tanh(np.float32(obs).reshape(4, -1) @ np.float32(layers[0][0][0])) + 1.0) / 2.0
    assert asked.sum(axis=1) == pytest.approx(want, rel=1e-5)
    assert np.all(np.abs(asked[:, 1]) < 1e-9)
    assert asked[:, 0] == pytest.approx(asked[:, 2])


@pytest.mark.slow
def test_actors_are_kept_where_tanh_still_moves():
    """A reward that always pays more for more drives unrestrained actors out of float32; restrained ones stay within reach."""
    torch = pytest.importorskip("torch")
    reach = {}
    for restraint in (0.0, 1e-3):
        config = maddpg.Config(hidden=32, batch=32, memory=256, restraint=restraint, discount=0.0, learning_rate=3e-3)
        learner = maddpg.Learner(make(ID), [0], "agents", config, Task.scale)
        rng = np.random.default_rng(0)
        for _ in range(256):
            obs = [rng.random((1, s[0], s[1])) for s in learner.shapes]
            acts = [rng.uniform(-1, 1, (1, s[0], s[2])) for s in learner.shapes]
            reward = np.concatenate([acts[0].reshape(1, -1), acts[1].mean(axis=(1, 2))[:, None]], axis=1)
            learner.remember(obs, acts, 10.0 * reward, obs)
        for _ in range(300):
            learner.update()
        seen = learner.sample()[0][0]
        reach[restraint] = float(learner.play(learner.actors[0], 0, seen, squash=False).detach().abs().mean())
    assert reach[1e-3] < 6.0
    assert reach[0.0] > 1.5 * reach[1e-3]
    assert torch.isfinite(torch.tensor(list(reach.values()))).all()


def test_a_run_does_not_depend_on_shapes_of_the_others():
    """Stacked networks stay separate: each run's critic sees only its own memory."""
    torch = pytest.importorskip("torch")
    config = maddpg.Config(hidden=8, batch=4, memory=16, heads=False)
    learner = maddpg.Learner(make(ID), [0, 1], "agents", config, Task.scale)
    obs = [np.zeros((2, 2, 23)), np.zeros((2, 3, 20))]
    for _ in range(8):
        learner.remember(obs, [np.zeros((2, 2, 1)), np.zeros((2, 3, 2))], np.array([[1.0] * 5, [0.0] * 5]), obs)
    before = [p.detach().clone() for p in learner.critic]
    learner.update()
    moved = (learner.critic[-1].detach() - before[-1]).reshape(2, -1).abs().sum(dim=1)
    assert torch.all(moved > 0)
    _, _, reward, _ = learner.sample()
    assert torch.all(reward[0] == 1)
    assert torch.all(reward[1] == 0)


@pytest.mark.slow
def test_sellers_owner_finds_the_joint_monopoly_price():
    """SA-DDPG's problem with exact followers is a one-step bandit with optimum 2.0: it must get there."""
    pytest.importorskip("torch")
    config = maddpg.Config(hidden=32, batch=32, warmup=64)
    trained = maddpg.train_many(Task(formation="singletons"), [0], 400, owner="sellers", config=config)
    record = play(make(ID, formation="singletons"), trained[0], 2, [0], tail=1.0)
    assert record.metrics["price"].min() > 1.9


def test_regret_matching_mixes_and_is_judged_against_the_bound():
    task = Task(preset="reduced")
    found = regret_matching_plus.train_many(task, [0], 4000)[0]
    market = task.make_market()
    state = market.reset(0)
    for role, policy in found.items():
        policy.start(market, role, 1, 0)
    strategy = found["seller"].strategy(market.stage("pricing"), market.observe(state, "pricing"), None, state, 1)
    reply = market.equilibrium(state).strategy["purchase"]
    gap = market.nash_conv(state, {"pricing": strategy, "purchase": reply}).lower[0]
    bound = market.analysis(state)["best_deterministic"][0]
    assert gap < 0.25 * bound  # a mixture does what no deterministic policy can


def test_they_say_what_they_cannot_play():
    assert maddpg.playable(make(ID, preset="labels")) is None
    assert "AIBazaar" in maddpg.playable(make("SpectrumBertrand-v0"))
    assert "drawn" in regret_matching_plus.playable(make(ID, preset="drawn"))
    assert maddpg.playable(make(ID, preset="drop")) is None
