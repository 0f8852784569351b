"""Algorithms of the spectrum market: equal kernels, published parameters, printed model, and that learning learns."""

from itertools import pairwise

import numpy as np
import pytest
from marketenvs_baselines import ALGORITHMS, calvano, exp3, play, qpml
from marketenvs_baselines.tabular import TabularLearner

import marketenvs as me
from marketenvs.markets.spectrum_bertrand import repeated

ID = "SpectrumBertrand-v0"


class Task:
    """The part of a task that training needs."""

    name, budget, scale = "test", 100, {}

    def __init__(self, **settings):
        self.settings = settings

    def make_market(self, **overrides):
        return me.make(ID, **{**self.settings, **overrides})


@pytest.fixture(scope="module")
def study():
    market = me.make(ID, preset="calvano")
    return market, calvano.payoff_table(market, market.reset(0))


def test_compiled_kernel_gives_the_same_sessions(study):
    """Every value, state and count of 6 sessions over up to 30000 periods, bit for bit, also when some have converged."""
    pytest.importorskip("numba")
    settings = calvano.Settings(stable=300, decay=2e-2)
    plain, fast = (calvano.run_sessions(study[1], 6, 30_000, settings, seed=3, kernel=k) for k in ("numpy", "numba"))
    for name in plain._fields:
        np.testing.assert_array_equal(getattr(plain, name), getattr(fast, name), err_msg=name)
    assert plain.converged.any()
    assert len(set(plain.periods)) > 1


def test_sessions_with_their_own_seeds_do_not_depend_on_each_other(study):
    both = calvano.run_sessions(study[1], 2, 500, seed=[5, 6], kernel="numpy")
    alone = calvano.run_sessions(study[1], 1, 500, seed=[6], kernel="numpy")
    np.testing.assert_array_equal(both.q[1], alone.q[0])


DRAWN = {
    "preset": "calvano",
    "quality": me.Uniform(1.4, 2.6),
    "unit_cost": me.Uniform(0.8, 1.2),
    "price_floor": 0.95,
    "price_cap": 2.5,
    "observation": "full",
}


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_every_session_may_have_its_own_market(kernel):
    """Three unequal markets side by side give what each gives alone, profits and convergence included."""
    if kernel == "numba":
        pytest.importorskip("numba")
    market = me.make(ID, **DRAWN)
    tables = calvano.payoff_tables(market, market.reset(0, batch=3))
    assert np.ptp(tables, axis=0).max() > 0.05
    settings = calvano.Settings(stable=200, decay=2e-2)
    seeds = [(1, r) for r in range(3)]
    both = calvano.run_sessions(tables, 3, 5_000, settings, seed=seeds, kernel=kernel)
    assert both.converged.any()
    for r in range(3):
        alone = calvano.run_sessions(tables[r], 1, 5_000, settings, seed=[seeds[r]], kernel="numpy")
        for name in alone._fields:
            np.testing.assert_array_equal(getattr(both, name)[r], getattr(alone, name)[0], err_msg=name)


def test_on_drawn_markets_the_most_similar_session_is_played():
    """In the very market a table was learnt in, that table is played by both sellers; sellers must see what differs."""
    task = Task(**DRAWN)
    (policies,) = calvano.train_many(task, [3], 4_000, markets=4)
    policy = policies["seller"]
    assert policy.play.shape == (4, 2, 225)
    market = task.make_market()
    state = market.reset(seed=np.random.SeedSequence(3).generate_state(4).tolist())
    policy.start(market, "seller", 4, 0)
    stage = market.stage("pricing")
    price = policy.act_at(stage, market.observe(state, "pricing"), None, state)
    level = np.rint((state.history.price - 0.95) / (2.5 - 0.95) * 14).astype(int)
    index = level[:, 0] * 15 + level[:, 1]
    want = policy.play[np.arange(4)[:, None], np.arange(2)[None], index[:, None]]
    np.testing.assert_allclose(price[:, :, 0], 0.95 + 1.55 * want / 14, atol=1e-12)
    hidden = {**DRAWN, "observation": "own"}
    assert "do not see" in ALGORITHMS["calvano_q"].why_not(me.make(ID, **hidden))
    assert "taste_noise" in ALGORITHMS["calvano_q"].why_not(
        me.make(ID, **{**DRAWN, "taste_noise": me.Uniform(0.2, 0.3)})
    )
    saved = calvano.MemoryOne.restore(*policy.export())
    np.testing.assert_array_equal(saved.types, policy.types)


def test_a_bid_that_does_not_count_shares_the_choices_cell():
    """Posted prices: actions of one choice have one value, so learning about one is learning about all."""
    rule = qpml.ChoiceBoltzmann(0.5, hot=0.1, cold=0.1, bids=4)
    rule.grow(1, 12)
    row = np.zeros(1, int)
    rule.learn(row, np.array([6]), np.array([1.0]), row, np.zeros(1))
    np.testing.assert_allclose(rule.q[0], [0.0, 0.5, 0.0])
    chance = rule.probabilities(row)[0]
    assert chance.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(chance[4:8], chance[4])
    assert chance[4] > 100 * chance[0]


def test_one_step_of_memory_one_q_learning(study):
    """The first update by hand: Q0 = mean profit / (1 - delta); Q <- Q + alpha (r + delta max Q' - Q)."""
    table = study[1]
    found = calvano.run_sessions(table, 1, 1, seed=0, kernel="numpy")
    start = table[0].mean(1) / (1 - 0.95)
    changed = np.argwhere(found.q[0, 0] != start[None])
    assert len(changed) == 1
    _, action = changed[0]
    reward = table.reshape(2, -1)[0, found.state[0]]
    want = start[action] + 0.15 * (reward + 0.95 * start.max() - start[action])
    assert abs(found.q[0, 0][tuple(changed[0])] - want) < 1e-14


def test_greedy_profit_is_the_mean_over_the_cycle():
    """A two-cycle of two sellers on two levels."""
    payoff = np.arange(8.0).reshape(2, 4)
    greedy = np.zeros((1, 2, 4), np.int64)
    greedy[0, :, 0] = 1  # (0, 0) -> (1, 1) -> (0, 0)
    found = calvano.greedy_profit(greedy, np.array([0]), payoff, 2)
    np.testing.assert_allclose(found[0], [(payoff[0, 0] + payoff[0, 3]) / 2, (payoff[1, 0] + payoff[1, 3]) / 2])


@pytest.mark.slow
def test_collusion_study(study):
    """100 sessions with the published parameters: mean Delta in the 0.70-0.90 that the literature reports."""
    market, table = study
    found = calvano.run_sessions(table, 100, 10_000_000, seed=1)
    extra = market.analysis(market.reset(0))
    nash, joint = extra["nash_profit"][0, 0], extra["joint_profit"][0, 0]
    delta = (found.profit.sum(1) - nash) / (joint - nash)
    assert found.converged.all()
    assert 0.70 < delta.mean() < 0.90


def test_trained_policy_plays_its_table_in_the_market(study):
    """The frozen policy reads prices from observations and moves as its greedy table says."""
    market, table = study
    (policies,) = ALGORITHMS["calvano_q"].run(Task(preset="calvano"), [4], 3000)
    play_of = policies["seller"].play
    record = play(market, policies, 6, [0], keep=("pricing",), episode=None)
    low, high = market.params.price_floor, market.params.price_cap
    level = np.rint((np.asarray(record.traces["pricing"])[:, 0, :, 0] - low) / (high - low) * 14).astype(int)
    for before, after in pairwise(level):
        state = before[0] * 15 + before[1]
        assert tuple(after) == (play_of[0, state], play_of[1, state])
    regret = repeated.dynamic_regret(np.eye(15)[play_of][None], table[None])
    assert regret.regret.min() >= 0


@pytest.mark.parametrize(
    "name", ["qpml", "qpml_independent", "exp3", "regret_matching", "share_rule", "truthful", "zero_intelligence"]
)
@pytest.mark.parametrize("preset", ["grid", "drawn", "clearing"])
def test_algorithms_play_what_they_say(name, preset):
    """Training returns policies for all roles whose play is legal and finite."""
    task = Task(preset=preset)
    market = task.make_market()
    assert ALGORITHMS[name].why_not(market) is None
    (policies,) = ALGORITHMS[name].run(task, [0], 20)
    record = play(market, policies, 5, [0])
    assert all(np.all(np.isfinite(v)) for v in record.payoffs.values())


def test_truthful_trade_leaves_sellers_nothing():
    """Price at cost and first-price bids at value: buyers keep nothing, sellers take all of it (posted: the reverse)."""
    for payment, seller_gets in (("first_price", True), ("posted", False)):
        market = me.make(ID, preset="desk", payment=payment, unit_cost=0.2)
        (policies,) = ALGORITHMS["truthful"].run(Task(preset="desk", payment=payment, unit_cost=0.2), [0], 1)
        record = play(market, policies, 40, [0], tail=1.0)
        assert (record.payoffs["seller"].mean() > 0.1) == seller_gets
        assert (record.payoffs["buyer"].mean() > 0.1) != seller_gets


def test_boltzmann_and_exp3_find_the_best_of_two_arms():
    """Both rules on a fixed bandit: the better arm is played most."""
    rng = np.random.default_rng(0)
    for rule in (qpml.Boltzmann(0.1, hot=0.5, cold=0.05, cooling=800), exp3.Exp3(0.1), exp3.RegretMatching(0.1)):
        rule.grow(1, 2)
        row = np.zeros(1, int)
        for _ in range(2000):
            action = (rng.uniform() > rule.probabilities(row)[:, 0]).astype(int)
            rule.learn(row, action, np.where(action == 1, 0.8, 0.3), row, np.zeros(1))
        assert rule.probabilities(row)[0, 1] > 0.8


def test_joint_table_averages_over_the_rivals_levels():
    """Eqs. (8)-(9): what an action is worth depends on how often each rival level was met."""
    rule = qpml.JointBoltzmann(1.0)
    rule.grow(1, 2)
    row = np.zeros(1, int)
    for rival, reward in ((0.0, 1.0), (1.0, 0.0), (1.0, 0.0)):
        rule.learn(row, np.array([0]), np.array([reward]), row, np.array([rival]))
    seen = np.array([1.5, 2.5]) / 4.0
    np.testing.assert_allclose(rule.worth(row)[0], [seen[0], 0.0])


def test_buyers_who_see_prices_discipline_sellers():
    """A short version of E3 (posted): prices with sight end below prices without, on every one of 4 seeds together."""
    market = me.make(ID, preset="grid", payment="posted")
    means = {}
    for view in ("none", "bins"):
        learners = {
            "seller": TabularLearner(lambda: qpml.Boltzmann(0.05, cooling=480, unit=5.0), leader_state="none"),
            "buyer": TabularLearner(lambda: qpml.Boltzmann(0.1, cooling=480), leader_state=view),
        }
        means[view] = play(market, learners, 600, seeds=[0, 1, 2, 3], tail=0.1).metrics["price"].mean()
    assert means["bins"] < means["none"] - 0.05


def test_printed_model():
    """Normalised weights bid about 1 / 2C, so hardly anything sells; learning ends farther from D than a uniform guess."""
    found = qpml.simulate_printed(10, 100, rounds=150, runs=4, seed=0)
    assert found.first[-1].mean() + found.second[-1].mean() < 0.05
    assert found.divergence[-1].mean() > found.uniform.mean()
    np.testing.assert_allclose(found.uniform.mean(), 0.193, atol=0.01)
    again = qpml.simulate_printed(10, 100, rounds=150, runs=4, seed=0)
    np.testing.assert_array_equal(found.first, again.first)
    with pytest.raises(me.InvalidParameter, match="tau"):
        qpml.simulate_printed(10, 100, temperature=0.0)
