"""Algorithms of this market: they train, respect masks, leave policies that save and load, and rules do what they say."""

import numpy as np
import pytest
from marketenvs_baselines import ALGORITHMS, play
from marketenvs_baselines.store import load_policy, save_policy

import marketenvs
from marketenvs.policy import Constant

ID = "TwoTierBidding-v0"


class Plan:
    """What a trainer needs of a task."""

    name, budget = "test", 100
    scale = {"bidder": 500.0, "slicer": 1.0}

    def __init__(self, **params):
        self.params = params

    def make_market(self, **overrides):
        return marketenvs.make(ID, **self.params, **overrides)


@pytest.mark.parametrize("name", ["hard_slicing", "cap_bids", "table_dp", "bandit", "equilibrium"])
@pytest.mark.parametrize("preset", ["two_tier", "drawn", "paper"])
def test_algorithms_play(name, preset):
    plan = Plan(preset=preset)
    [policies] = ALGORITHMS[name].run(plan, [0], 60)
    record = play(plan.make_market(), policies, 2, [0, 1])
    assert all(np.isfinite(p).all() for p in record.payoffs.values())
    if preset == "two_tier":
        assert record.metrics["illegal_splits"].max() == 0


def test_hard_slicing_is_equal():
    market = marketenvs.make(ID, preset="two_tier", bid_levels=None)
    [policies] = ALGORITHMS["hard_slicing"].run(Plan(preset="two_tier", bid_levels=None), [0], 1)
    metrics = play(market, policies, 1, [0]).metrics
    assert np.ptp(metrics["blocks"]) <= 1
    split = np.stack([metrics[f"blocks_{s}"] for s in ("volte", "embb", "urllc")])
    assert np.ptp(split, axis=0).max() <= 1


def test_table_dp_reaches_the_best_division():
    """Continuous bids can buy exactly the division that maximises the sum of utilities (25.3119170447)."""
    plan = Plan(preset="two_tier", bid_levels=None)
    [policies] = ALGORITHMS["table_dp"].run(plan, [0], 1)
    metrics = play(plan.make_market(), policies, 1, [0]).metrics
    np.testing.assert_array_equal(metrics["blocks"][0], (12, 11, 12, 15))
    assert metrics["utility"].sum() == pytest.approx(25.3119170447, abs=1e-9)


@pytest.mark.parametrize("name", ["dqn", "double_dqn", "dueling_dqn", "double_dueling_dqn"])
def test_deep_q_learning_trains_and_saves(name, tmp_path):
    pytest.importorskip("torch")
    plan = Plan(preset="two_tier", blocks=10, bid_levels=3)
    runs = ALGORITHMS[name].run(plan, [0, 1], 80)
    market = plan.make_market()
    save_policy(tmp_path / "saved", runs[0], market)
    loaded = load_policy(tmp_path / "saved", market)
    same = [play(market, p, 3, [5], keep=["slicing", "bidding"]).traces for p in (runs[0], loaded)]
    for stage in ("slicing", "bidding"):
        np.testing.assert_array_equal(same[0][stage], same[1][stage])
    assert play(market, runs[0], 3, [5]).metrics["illegal_splits"].max() == 0


def test_a_run_does_not_depend_on_the_other_seeds():
    pytest.importorskip("torch")
    plan = Plan(preset="two_tier", blocks=8, bid_levels=3)
    together = ALGORITHMS["dueling_dqn"].run(plan, [3, 4], 120)[1]
    alone = ALGORITHMS["dueling_dqn"].run(plan, [4], 120)[0]
    for a, b in zip(
        together["slicer"].networks["slicing"].layers, alone["slicer"].networks["slicing"].layers, strict=True
    ):
        np.testing.assert_allclose(a[0], b[0], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("discount", [0.0, 0.5])
def test_q_values_of_a_bandit(discount):
    """One operator, all bandwidth, no noise: Q(a) = reward(a) + discount max reward / (1 - discount)."""
    pytest.importorskip("torch")
    from marketenvs_baselines.dqn import Constants, DQNLearner

    market = marketenvs.make(
        ID, preset="two_tier", n_operators=1, users=((8, 11, 7),), bandwidth=1.0, blocks=5, bid_levels=None
    )
    rounds = 1500 if discount == 0 else 2500
    constants = Constants(discount=discount, learning_rate=3e-3, explore_to=1.0, target_every=50, double=discount > 0)
    learner = DQNLearner(constants, rounds)
    play(market, {"bidder": Constant([100.0]), "slicer": learner}, rounds, [0])
    state = market.commit(market.reset(0), "bidding", np.full((1, 1, 1), 100.0))
    low, high = market.bounds(state, "slicing")
    pairs = market.stage("slicing").codec.candidates(low, high)[:, 0, 0]
    reward = np.array(
        [market.payoff(market.reset(0), {"bidding": 100.0, "slicing": p[None, None]})["slicer"][0, 0] for p in pairs]
    )
    network = learner.trained(0).networks["slicing"]
    values = network.forward(market.observe(state, "slicing")[0])[0]
    assert reward.max() - reward[values.argmax()] < 0.1
    if discount == 0:
        np.testing.assert_allclose(values, reward, atol=0.25)
    else:
        np.testing.assert_allclose(values, reward + discount * reward.max() / (1 - discount), rtol=0.15)


@pytest.mark.slow
def test_table_finds_the_best_split():
    from marketenvs_baselines.dqn import Constants, DQNLearner

    market = marketenvs.make(
        ID,
        preset="two_tier",
        n_operators=1,
        users=((8, 11, 7),),
        bandwidth=1.0,
        blocks=5,
        bid_levels=None,
        observation="paper",
    )
    learner = DQNLearner(Constants(tabular=True, learning_rate=0.2, explore_share=0.8), 4000)
    record = play(market, {"bidder": Constant([100.0]), "slicer": learner}, 4000, [0, 1], keep=["slicer"])
    best = market.analysis(market.reset(0))["table_a"].utility[0, 0, 5]
    assert best - record.traces["slicer"][-300:].mean() < 0.15


def test_bandit_means():
    plan = Plan(preset="bidding", bid_levels=4)
    [policies] = ALGORITHMS["bandit"].run(plan, [0], 3000)
    market = plan.make_market()
    state = market.reset(0)
    policy = policies["bidder"]
    policy.start(market, "bidder", 1, 0)
    bids = policy.act_at(market.stage("bidding"), market.observe(state, "bidding"), None, state)
    assert market.nash_conv(state, {"bidding": bids}).upper[0] < 600  # of 4 x 355 for uniform play


@pytest.mark.parametrize("dueling", [False, True])
def test_values_of_chosen_actions(dueling):
    """The short cut for one action each gives the values, and the gradients, of the whole last layer."""
    torch = pytest.importorskip("torch")
    from marketenvs_baselines.dqn import Constants, Stack

    net = Stack([0, 1, 2], 5, 9, Constants(dueling=dueling, width=6))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((3, 4, 5), generator=generator)
    action = torch.randint(9, (3, 4), generator=generator)
    whole = net(x).gather(-1, action[..., None])[..., 0]
    short = net.of_chosen(x, action)
    torch.testing.assert_close(short, whole, rtol=1e-5, atol=1e-6)
    weights = list(net.weights.values())
    for a, b in zip(
        torch.autograd.grad(whole.pow(2).sum(), weights), torch.autograd.grad(short.pow(2).sum(), weights), strict=True
    ):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)
