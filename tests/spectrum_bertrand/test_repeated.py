"""The repeated game: exact dynamic regret of memory-one policies."""

import numpy as np
import pytest
from marketenvs_baselines.calvano import MemoryOne

import marketenvs as me
from marketenvs.markets.spectrum_bertrand import logit
from marketenvs.markets.spectrum_bertrand.repeated import dynamic_regret
from marketenvs.markets.spectrum_bertrand.tasks import TASKS
from marketenvs.task import build_task

MARKET = logit.logit_market([2, 2], [1, 1])
LEVELS = logit.calvano_grid(MARKET)
TABLE = logit.payoff_table(MARKET, LEVELS)
K = 15


def _pure(levels0, levels1, k=K):
    policy = np.zeros((1, 2, k * k, k))
    policy[0, 0, np.arange(k * k), levels0] = 1
    policy[0, 1, np.arange(k * k), levels1] = 1
    return policy


def test_grid_nash_prices_of_the_spec():
    """The 15-level grid has the Nash prices 1.4665 and 1.5052 (spec 7, E3)."""
    first, second = TABLE[0]
    pure = [
        (i, j)
        for i in range(K)
        for j in range(K)
        if first[i, j] == first[:, j].max() and second[i, j] == second[i].max()
    ]
    np.testing.assert_allclose(sorted({LEVELS[0, i] for i, _ in pure}), [1.4665, 1.5052], atol=5e-5)


def test_grim_trigger_is_an_exact_equilibrium_of_the_repeated_game():
    """Bad stage regret, zero dynamic regret: from the collusive state nobody gains at delta = .95."""
    high, nash = 13, 1
    state = np.arange(K * K)
    play = np.where(state == high * K + high, high, nash)
    start = np.zeros((1, K * K))
    start[0, high * K + high] = 1
    found = dynamic_regret(_pure(play, play), TABLE, 0.95, start)
    assert found.worst.max() == 0
    np.testing.assert_allclose(found.long_run, TABLE[0, :, high, high][None], atol=1e-12)
    stage = TABLE[0, 0, :, high].max() - TABLE[0, 0, high, high]
    assert stage > 0.02
    impatient = dynamic_regret(_pure(play, play), TABLE, 0.05, start)
    assert impatient.regret.min() > 0.01


def test_stage_equilibrium_repeated_and_joint_price_held():
    """Nash in every state has no regret; the monopoly price whatever happens has the one-shot gain forever."""
    assert dynamic_regret(_pure(1, 1), TABLE).worst.max() == 0
    held = dynamic_regret(_pure(13, 13), TABLE)
    np.testing.assert_allclose(held.regret[0, 0], TABLE[0, 0, :, 13].max() - TABLE[0, 0, 13, 13], atol=1e-12)


def test_against_value_iteration():
    """Random mixed policies of two unequal sellers on 3 levels: policy iteration equals plain value iteration."""
    rng = np.random.default_rng(0)
    k, delta = 3, 0.9
    payoff = rng.normal(size=(1, 2, k, k))
    policy = rng.dirichlet(np.ones(k), size=(1, 2, k * k))
    found = dynamic_regret(policy, payoff, delta)
    for j in (0, 1):
        rival = policy[0, 1 - j]
        best, own = np.zeros(k * k), np.zeros(k * k)
        for _ in range(600):
            q = np.empty((k * k, k))
            for a in range(k):
                for s in range(k * k):
                    after = [a * k + b if j == 0 else b * k + a for b in range(k)]
                    pay = [payoff[0, j].reshape(-1)[x] for x in after]
                    q[s, a] = sum(rival[s, b] * (pay[b] + delta * best[after[b]]) for b in range(k))
            best = q.max(1)
            value = np.empty(k * k)
            for s in range(k * k):
                value[s] = sum(
                    policy[0, 0, s, a] * policy[0, 1, s, b] * (payoff[0, j, a, b] + delta * own[a * k + b])
                    for a in range(k)
                    for b in range(k)
                )
            own = value
        np.testing.assert_allclose(found.regret[0, j], (1 - delta) * (best - own).mean(), atol=1e-9)


def test_bad_input():
    """Shapes, distributions and discount factors are checked."""
    with pytest.raises(ValueError, match="distribution"):
        dynamic_regret(np.zeros((1, 2, 4, 2)), np.zeros((1, 2, 2, 2)))
    with pytest.raises(ValueError, match="delta"):
        dynamic_regret(np.full((1, 2, 4, 2), 0.5), np.zeros((1, 2, 2, 2)), 1.0)
    with pytest.raises(ValueError, match="states"):
        dynamic_regret(np.full((1, 2, 5, 2), 0.5), np.zeros((1, 2, 2, 2)))


@pytest.fixture(scope="module")
def study():
    """The published market as a task scored by dynamic regret."""
    definition = next(t for t in TASKS if t.name == "spectrum-study")
    return build_task(definition, floors=False)


def test_grim_trigger_scores_one_although_its_stage_score_is_bad(study):
    """From next to the monopoly price nobody gains in the repeated game; in one round somebody would. Delta is near 1."""
    high, nash = 13, 1
    play = np.full((2, K * K), nash)
    play[:, high * K + high] = high
    found = me.evaluate(study, {"seller": MemoryOne(play)})
    assert found.kind == "exact"
    assert found.score == pytest.approx(1.0, abs=1e-12)
    assert found.regret["seller"] == pytest.approx(0.0, abs=1e-14)
    assert found.extra["worst_regret"]["seller"] == pytest.approx(0.0, abs=1e-14)
    market = study.make_market()
    state = market.reset(0)
    held = np.full((1, 2, 1), LEVELS[0, high])
    conv = market.nash_conv(state, {"pricing": held})
    assert conv.lower[0] / 2 > 0.5 * study.stage_anchors["seller"]  # a stage score below 0.5
    _, outcome = market.step(state, {"pricing": held})
    assert outcome.metrics["collusion_index"][0] > 0.9
    # the same prices held whatever happens are no equilibrium of the repeated game
    always = me.evaluate(study, {"seller": MemoryOne(np.full((2, K * K), high))})
    assert always.score < 0.5
    assert always.metrics["collusion_index"] > 0.9


def test_stage_equilibrium_repeated_is_the_anchor(study):
    """Score 1 for the grid's stage equilibrium in every state, and Delta near 0."""
    always = me.evaluate(study, {"seller": MemoryOne(np.full((2, K * K), 1))})
    assert always.score == pytest.approx(1.0, abs=1e-12)
    assert abs(always.metrics["collusion_index"]) < 0.05


@pytest.mark.slow
def test_drawn_collusion_task_keeps_its_floors():
    """spectrum-calvano: constants and myopic replies leave something to gain, the equilibrium nothing."""
    task = build_task(next(t for t in TASKS if t.name == "spectrum-calvano"))
    assert task.floors["best_constant"] <= 0.8
    assert task.floors["myopic"] <= 0.95
    assert task.floors["equilibrium"] == pytest.approx(1.0, abs=1e-9)
