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
    seen = []
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


def test_a_run_does_not_depend_on_shapes_of_the_others():
    """Stacked networks stay separate: each run's critic sees only its own memory."""
    torch = pytest.importorskip("torch")
    learner = maddpg.Learner(make(ID), [0, 1], "agents", maddpg.Config(hidden=8, batch=4, memory=16), Task.scale)
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
    assert "labels" in maddpg.playable(make(ID, preset="labels"))
    assert "drawn" in regret_matching_plus.playable(make(ID, preset="drawn"))
    assert maddpg.playable(make(ID, preset="drop")) is None
