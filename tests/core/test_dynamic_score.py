"""Tasks scored by the repeated game: a trigger strategy is an equilibrium there although one round of it is far from one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from marketenvs import InvalidParameter, NotOffered, evaluate, make
from marketenvs.policy import Constant, EquilibriumPolicy, Myopic, Policy, Uniform
from marketenvs.solution import repeated
from marketenvs.task import Definition, Plan, Task, build_task

DELTA = 0.95


@pytest.fixture(scope="module")
def task():
    definition = Definition(
        "calvano", "SpectrumBertrand-v0", "calvano", plan=Plan(markets=2, warm_up=4), discount=DELTA
    )
    return build_task(definition, floors=False)


class Grim(Policy):
    """The joint price as long as everybody charged it last round, the price of the stage equilibrium otherwise."""

    stochastic = False

    def __init__(self, kind, nash, joint):
        self.kind, self.nash, self.joint = kind, nash, joint

    def act(self, obs, mask=None):
        last = obs[:, :, :2] * self.market.money  # own and the rival's last price
        calm = np.all(np.abs(last - self.joint) < 1e-6, axis=2, keepdims=True)
        return np.where(calm, self.joint, self.nash)


def _prices():
    """Prices of the best symmetric stage equilibrium and of the best symmetric profile, found on the grid by looking at all of them."""
    market = make("SpectrumBertrand-v0", preset="calvano")
    state = market.reset(0)
    low, high = (float(b.reshape(-1)[0]) for b in market.bounds(state, "pricing"))
    grid = np.linspace(low, high, 15)
    many = market.reset(0, batch=225)
    profile = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2, 1)
    pay = market.payoff(many, {"pricing": profile})["seller"].reshape(15, 15, 2)
    first = pay[:, :, 0]  # the game is symmetric
    nash = [k for k in range(15) if first[k, k] >= first[:, k].max() - 1e-15]
    joint = int(np.argmax([first[k, k] for k in range(15)]))
    return grid[nash[0]], grid[joint], len(nash)


def test_equilibrium_is_one_and_uniform_play_zero(task):
    assert evaluate(task, {"seller": EquilibriumPolicy()}).score == pytest.approx(1.0, abs=1e-12)
    found = evaluate(task, {"seller": Uniform()}, seed=99)
    assert abs(found.score) < 0.02
    assert found.kind == "estimate"  # its table is made of draws
    assert task.anchors["seller"] > 0
    assert task.stage_anchors["seller"] > 0


def test_grim_trigger_has_no_dynamic_regret_although_its_round_is_bad(task):
    nash, joint, equilibria = _prices()
    assert equilibria >= 1
    assert joint > nash
    found = evaluate(task, {"seller": Grim("grim", nash, joint)})
    # From any state: one deviation costs all later cooperation, and Nash forever cannot be improved.
    assert found.regret["seller"] == pytest.approx(0.0, abs=1e-12)
    assert found.extra["worst_regret"]["seller"] == pytest.approx(0.0, abs=1e-12)
    assert found.kind == "exact"
    assert found.score == pytest.approx(1.0, abs=1e-12)
    # Held at the joint price, what one round judges is a deviation from it.
    held = evaluate(task, {"seller": Constant([joint])})
    assert held.extra["stage_score"] < 0.8
    assert held.score < 0.8  # without the threat the joint price is no equilibrium of any kind
    assert held.metrics["collusion_index"] > 0.8


def test_grim_trigger_after_a_calm_start_has_a_bad_round(task):
    nash, joint, _ = _prices()

    class Calm(Grim):
        """Begins with the joint price: in its first round there is no past to judge."""

        def act_at(self, stage, obs, mask, state):
            begins = int(np.max(np.asarray(state.round))) == 0
            return np.full((*obs.shape[:2], 1), self.joint) if begins else self.act(obs)

    found = evaluate(task, {"seller": Calm("grim", nash, joint)})
    assert found.score == pytest.approx(1.0, abs=1e-12)
    assert found.extra["stage_score"] < 0.8
    assert found.metrics["collusion_index"] == pytest.approx(1.0, abs=0.05)


def test_myopic_replies_can_be_exploited_by_a_patient_rival(task):
    found = evaluate(task, {"seller": Myopic()})
    assert found.extra["stage_score"] == pytest.approx(1.0, abs=1e-9)
    assert found.score < 0.999


def test_dynamic_regret_is_what_long_play_can_gain():
    """A second method: simulate the discounted game with the best reply's table and without it."""
    rng = np.random.default_rng(5)
    k, n = 3, 2
    payoff = rng.uniform(size=(1, n, k, k))
    policy = rng.dirichlet(np.ones(k), size=(1, n, k * k))
    found = repeated.dynamic_regret(policy, payoff, 0.6)
    flat = payoff.reshape(n, k * k)
    for agent in range(n):
        value = np.zeros(k * k)
        played = np.zeros(k * k)
        for _ in range(200):  # value iteration: another algorithm than policy iteration
            best_new, played_new = np.empty(k * k), np.empty(k * k)
            for s in range(k * k):
                other = policy[0, 1 - agent, s]
                own = np.empty((k, 2))
                for a in range(k):
                    nxt = [a * k + b if agent == 0 else b * k + a for b in range(k)]
                    own[a] = [
                        sum(other[b] * ((1 - 0.6) * flat[agent, x] + 0.6 * v[x]) for b, x in enumerate(nxt))
                        for v in (value, played)
                    ]
                best_new[s] = own[:, 0].max()
                played_new[s] = policy[0, agent, s] @ own[:, 1]
            value, played = best_new, played_new
        assert found.regret[0, agent] == pytest.approx((value - played).mean(), abs=1e-12)
        assert found.worst[0, agent] == pytest.approx((value - played).max(), abs=1e-12)


def test_file_round_trip_and_hash(task, tmp_path):
    task.save(tmp_path / "t.json")
    data = json.loads((tmp_path / "t.json").read_text())
    again = Task.from_json(data)
    assert again.stage_anchors == task.stage_anchors
    assert again.definition.discount == DELTA
    assert again.hash == task.hash
    plain = dataclasses.replace(
        task, definition=dataclasses.replace(task.definition, discount=None), stage_anchors=None
    )
    assert "discount" not in plain.to_json()["definition"]


def test_refusals():
    bad = Definition("x", "SpectrumBertrand-v0", "calvano", plan=Plan(markets=2), discount=1.0)
    with pytest.raises(InvalidParameter, match=r"discount must be a number in \[0, 1\)"):
        build_task(bad)
    staged = Definition("x", "AIBazaar-v0", plan=Plan(markets=2), discount=0.9)
    with pytest.raises(InvalidParameter, match="several stages"):
        build_task(staged)
    market = make("SpectrumBertrand-v0", preset="clearing")
    with pytest.raises(NotOffered, match="grids only"):
        repeated.memory_one(market, market.reset(0), {"seller": Uniform()}, 4)
