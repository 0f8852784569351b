"""Runs of hand-written learners: resumed after a kill, and one role at a time, without the algorithms knowing."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
from marketenvs_baselines import ALGORITHMS, play, snapshot
from marketenvs_baselines.arrangement import arranged, current
from marketenvs_baselines.store import _export

import marketenvs
from marketenvs.errors import InvalidParameter, NotOffered
from marketenvs.policy import EquilibriumPolicy, Myopic, Policy, Uniform

from .tasks import FakeTask

GRID = "pb_marl pga_app giga_wolf q_learning minimax_q bandit dqn double_dqn dueling_dqn double_dueling_dqn"
SLICING = "federated_ddpg independent_ddpg central_ddpg shared_ddpg madqn dt_mafl"
SPECTRUM = "qpml qpml_independent exp3 regret_matching"
FAST = "pb_marl q_learning minimax_q bandit double_dueling_dqn sa_ddpg_system genetic calvano_q regret_matching_plus"
CASES = [("AIBazaar-v0", "grid", name, {"n_consumers": 3, "horizon": 10}) for name in GRID.split()]
CASES += [("FederatedSlicing-v0", None, name, {}) for name in SLICING.split()]
CASES += [("SpectrumBertrand-v0", None, name, {"horizon": 20}) for name in SPECTRUM.split()]
OWN_LOOPS = [
    ("CoalitionTrading-v0", "default", "maddpg", {"horizon": 50}),
    ("CoalitionTrading-v0", "default", "sa_ddpg", {"horizon": 50}),
    ("CoalitionTrading-v0", "default", "sa_ddpg_system", {"horizon": 50}),
    ("CoalitionTrading-v0", "grid", "regret_matching_plus", {"horizon": 100}),
    ("AIBazaar-v0", "default", "genetic", {"horizon": 1000}),
    ("SpectrumBertrand-v0", "calvano", "calvano_q", {"horizon": 10_000}),
]
CASES += OWN_LOOPS
SEEDS = [1, 2]


class Killed(Exception):
    pass


@functools.cache
def task(id, preset, params):
    made = FakeTask(preset, id=id, params=dict(params))

    class Scaled(FakeTask):
        scale = {role: 10.0 for role in made.make_market().roles}

    return Scaled(preset, id=id, params=dict(params))


def arrays(policies):
    return {(role, name): value for role, p in policies.items() for name, value in _export(p)[2].items()}


@pytest.mark.parametrize(
    ("id", "preset", "name", "params"),
    [pytest.param(*c, marks=() if c[2] in FAST.split() else pytest.mark.slow, id=c[2]) for c in CASES],
)
def test_a_killed_run_ends_like_an_uninterrupted_one(id, preset, name, params, tmp_path):
    algorithm, made = ALGORITHMS[name], task(id, preset, tuple(params.items()))
    market = made.make_market()
    reason = algorithm.why_not(market)
    if reason is not None:
        pytest.skip(reason)
    rounds = 6 * market.params.horizon
    seeds = SEEDS if algorithm.train_many is not None else SEEDS[:1]
    whole = algorithm.run(made, seeds, rounds)

    def kill(done, *rest):
        if done >= 0.6 * rounds:
            raise Killed

    with arranged(tmp_path, {"seed": 1}), pytest.raises(Killed):
        algorithm.run(made, seeds, rounds, kill)
    seen = []
    with arranged(tmp_path, {"seed": 1}) as how:
        again = algorithm.run(made, seeds, rounds, lambda done, *rest: seen.append(done))
    assert how.resumed >= 0.4 * rounds
    assert seen[0] > how.resumed
    for a, b in zip(whole, again, strict=True):
        a, b = arrays(a), arrays(b)
        assert a.keys() == b.keys()
        for key, value in a.items():
            np.testing.assert_array_equal(b[key], value, err_msg=str(key))
    with arranged(tmp_path, {"seed": 2}) as how:
        algorithm.run(made, seeds, rounds)
    assert how.resumed == 0, "another training's state is not used"


def test_traces_and_means_go_on_too(tmp_path):
    market = marketenvs.make("AIBazaar-v0", preset="drawn", n_consumers=2, horizon=5)

    def run(report=None):
        policies = {"provider": Uniform(), "consumer": Myopic()}
        return play(market, policies, 50, [3, 4], report, keep=["pricing", "welfare"], tail=0.9)

    def kill(done, *rest):
        if done >= 31:
            raise Killed

    whole = run()
    with arranged(tmp_path), pytest.raises(Killed):
        run(kill)
    with arranged(tmp_path) as how:
        again = run()
    assert how.resumed == 30
    for name in ("traces", "payoffs", "metrics"):
        for key, value in getattr(whole, name).items():
            np.testing.assert_array_equal(getattr(again, name)[key], value)


def test_one_role_learns_and_the_others_are_played():
    made = task("AIBazaar-v0", "grid", (("n_consumers", 3), ("horizon", 10)))
    fields = {}
    for name, opponent in (("equilibrium", EquilibriumPolicy()), ("random", Uniform())):
        with arranged(only="consumer", opponents={"provider": opponent}):
            (trained,) = ALGORITHMS["q_learning"].train_many(made, [0], 200)
        assert set(trained) == {"consumer"}
        fields[name] = trained["consumer"].tables["purchase"]
    assert not np.array_equal(fields["equilibrium"], fields["random"])
    assert current() is None


class Odd(Policy):
    """Holds something that cannot be written."""

    def start(self, market, role, batch, seed):
        super().start(market, role, batch, seed)
        self.file = open(__file__)  # noqa: SIM115

    def act(self, obs, mask=None):
        return np.zeros((*obs.shape[:2], 1))


def test_what_cannot_be_kept_is_said_and_trained_without(tmp_path):
    market = marketenvs.make("AIBazaar-v0", n_consumers=2, horizon=5)
    with arranged(tmp_path), pytest.warns(RuntimeWarning, match=r"no checkpoints: state.*file is of _io.TextIOWrapper"):
        play(market, {"provider": Odd(), "consumer": Uniform()}, 10, 0)
    assert not list(tmp_path.iterdir())


def test_snapshots(tmp_path):
    """Containers, bytes, generators, shared objects and torch's optimizers come back; other objects are refused."""
    torch = pytest.importorskip("torch")

    class Thing(Policy):
        def __init__(self):
            self.weight = torch.zeros(3, requires_grad=True)
            self.adam = torch.optim.Adam([self.weight], lr=0.1)
            self.rng, self.noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
            self.table, self.late = {b"key": (1, [2.5, None])}, None
            self.twin = self.table

        def step(self):
            self.adam.zero_grad()
            (self.weight - torch.rand(3, generator=self.noise)).square().sum().backward()
            self.adam.step()
            return self.weight.detach().numpy().copy(), self.rng.random()

    first, second = Thing(), Thing()
    for _ in range(3):
        first.step()
    first.table[("a", 1)] = np.arange(3)
    first.late = {"set": {1, 2}}
    snapshot.save(tmp_path, {"policies": {"x": first}})
    snapshot.load(tmp_path, {"policies": {"x": second}})
    for _ in range(3):
        a, b = first.step(), second.step()
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1] == b[1]
    assert second.twin is second.table
    assert second.table[b"key"] == (1, [2.5, None])
    assert second.late == {"set": {1, 2}}
    second.late = object()
    with pytest.raises(NotOffered, match=r"late is of builtins.object"):
        snapshot.check({"policies": {"x": second}})
    other = Thing()
    other.adam = None
    with pytest.raises(InvalidParameter, match="does not fit"):
        snapshot.load(tmp_path, {"policies": {"x": other}})


def test_files_name_no_code_to_run(tmp_path):
    """A class named in a file must be one of this project, already imported."""
    holder = Uniform()
    holder.extra = {"a": 1}
    snapshot.save(tmp_path, holder)
    text = (tmp_path / "state.json").read_text()
    (tmp_path / "state.json").write_text(text.replace("marketenvs.policy", "subprocess"))
    with pytest.raises(InvalidParameter, match="not part of this learner"):
        snapshot.load(tmp_path, Uniform())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (tmp_path / "state.json").write_text(text)
        assert snapshot.load(tmp_path, Uniform()).extra == {"a": 1}
