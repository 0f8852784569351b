"""The single-agent view and the native vector environment."""

from __future__ import annotations

import copy
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import marketenvs
from marketenvs import InvalidAction, InvalidParameter, NotOffered, ResetNeeded, UnknownName
from marketenvs.policy import Constant, Policy
from marketenvs.shells.single import MarketSingleAgentEnv
from marketenvs.shells.vector import MarketVectorEnv

from .cases import DEFAULTS, HORIZON, MAKERS, every_role, same

MIDDLE = {"opponents": "random"}


class Echo(Policy):
    """Answers the mean of what it sees, so that the leader's move shows in it; remembers how often it was asked."""

    def start(self, market, role, batch, seed):
        super().start(market, role, batch, seed)
        self.asked = np.zeros(batch)

    def act_at(self, stage, obs, mask, state):
        self.asked = self.asked + 1
        low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage.name))
        seen = np.clip(obs[..., :1] + 0.01 * self.asked[:, None, None], 0, 1)
        return np.broadcast_to(low + (high - low) * seen, (*obs.shape[:2], stage.codec.width))


@every_role
def test_framework_check(make, role):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(MarketSingleAgentEnv(make(), role, **MIDDLE), skip_render_check=True)


@every_role
def test_one_step_is_one_round(make, role):
    market = make()
    moves = len(market.stages_of[role])
    env = MarketSingleAgentEnv(market, role, opponents=Echo(), agent=market.roles[role] - 1)
    with pytest.raises(ResetNeeded):
        env.step(env.action_space.sample())
    env.reset(seed=0)
    env.action_space.seed(0)
    paid = []
    for step in range(HORIZON * moves):
        seen, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(seen)
        assert not terminated
        assert truncated == (step == HORIZON * moves - 1)
        assert set(info) <= {"acting", "stage", "action_mask"}
        paid.append(reward)
        if env.game.game.rounds * moves == step + 1:
            assert sum(paid[-moves:]) == pytest.approx(env.game.game.payoffs[role][0, -1])
    with pytest.raises(ResetNeeded):
        env.step(env.action_space.sample())


@every_role
def test_the_vector_environment_is_many_single_ones(make, role):
    """Bit for bit, through autoresets, for opponents that do not mix."""
    batch = 3
    vector = MarketVectorEnv(make(), role, batch, opponents=Echo())
    singles = [MarketSingleAgentEnv(make(), role, opponents=Echo()) for _ in range(batch)]
    seen, _ = vector.reset(seed=11)
    vector.action_space.seed(5)
    first = [env.reset(seed=11 + i) for i, env in enumerate(singles)]
    assert same(list(seen), [f[0] for f in first])
    steps = HORIZON * len(vector.market.stages_of[role])
    for step in range(2 * steps + 1):
        actions = vector.action_space.sample()
        out = vector.step(actions)
        rows = [
            env.step({k: v[i] for k, v in actions.items()} if isinstance(actions, dict) else actions[i])
            for i, env in enumerate(singles)
        ]
        np.testing.assert_array_equal(out[1], [r[1] for r in rows])
        np.testing.assert_array_equal(out[3], [r[3] for r in rows])
        assert vector.observation_space.contains(out[0])
        if (step + 1) % steps == 0:
            assert out[3].all()
            assert same(list(out[4]["final_obs"]), [r[0] for r in rows])
            assert same(list(out[0]), [env.reset()[0] for env in singles])
        else:
            assert "final_obs" not in out[4]
            assert same(list(out[0]), [r[0] for r in rows])


@every_role
def test_deep_copies_and_pickles_have_the_same_future(make, role):
    for env in (
        MarketSingleAgentEnv(make(), role, opponents=Echo()),
        MarketVectorEnv(make(), role, 2, opponents="random"),
    ):
        env.reset(seed=2)
        env.action_space.seed(1)
        for _ in range(2):
            env.step(env.action_space.sample())
        actions = [env.action_space.sample() for _ in range(2 * HORIZON)]
        twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
        assert twins[0].market is env.market

        def future(env, actions=actions):
            out = []
            for action in actions:
                out.append(env.step(action)[:4])
                if isinstance(env, MarketSingleAgentEnv) and out[-1][3]:
                    out.append(env.reset())
            return out

        want = future(env)
        assert all(same(future(twin), want) for twin in twins)


def test_the_next_step_mode():
    env = MarketVectorEnv("AIBazaar-v0", "provider", 2, opponents="random", horizon=2, autoreset_mode="NextStep")
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    env.reset(seed=0)
    actions = np.zeros((2, 1), np.float32)
    env.step(actions)
    last, _, _, truncated, infos = env.step(actions)
    assert truncated.all()
    assert "final_obs" not in infos
    first, rewards, _, truncated, _ = env.step(actions)
    assert not truncated.any()
    assert not rewards.any()
    assert not np.array_equal(first, last)
    assert env.step(actions)[1].all()
    for bad in ("Disabled", "sometimes", None):
        with pytest.raises(InvalidParameter, match="autoreset_mode"):
            MarketVectorEnv("AIBazaar-v0", "provider", 2, autoreset_mode=bad)


def test_made_by_id():
    env = gymnasium.make("marketenvs/AIBazaar-Consumer-v0", opponents="equilibrium", preset="grid", n_consumers=4)
    assert env.action_space == gymnasium.spaces.Discrete(10)
    vector = gymnasium.make_vec("marketenvs/AIBazaar-Provider-v0", num_envs=1024)
    assert isinstance(vector, MarketVectorEnv)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert vector.reset(seed=0)[0].shape == (1024, 14)
    sync = gymnasium.make_vec(
        "marketenvs/AIBazaar-Provider-v0", num_envs=2, vectorization_mode="sync", opponents="random"
    )
    sync.reset(seed=3)
    sync.step(sync.action_space.sample())
    with pytest.raises(UnknownName, match="horizon"):
        gymnasium.make("marketenvs/AIBazaar-Provider-v0", horizn=3)
    with pytest.raises(UnknownName, match="equilibrium"):
        gymnasium.make("marketenvs/AIBazaar-Provider-v0", opponents="equilibrum")


def test_statistics_wrappers_work_on_the_vector_environment():
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(
        gymnasium.make_vec("marketenvs/AIBazaar-Provider-v0", num_envs=3, opponents="random", horizon=4)
    )
    env.reset(seed=0)
    total = np.zeros(3)
    for _ in range(4):
        _, rewards, _, _, infos = env.step(np.zeros((3, 1), np.float32))
        total += rewards
    np.testing.assert_allclose(infos["episode"]["r"], total)
    np.testing.assert_array_equal(infos["episode"]["l"], 4)


# Spec, reference case R3 (calibrated, closed form): p*, U_cpp and F_0; all other consumers buy 100.
PRICE, PROFIT, AMOUNT = 14.9286510099, 9798.54134806, 86.8955347783


def test_a_leader_that_posts_the_equilibrium_price_earns_its_value():
    """Consumers see the posted price and answer it."""
    env = gymnasium.make("marketenvs/AIBazaar-Provider-v0", opponents="equilibrium").unwrapped
    env.reset(seed=0)
    exact = np.array([2 * (PRICE - 10) / 10 - 1])
    assert env.step(exact)[1] == pytest.approx(PROFIT, rel=1e-9)
    np.testing.assert_allclose(env.game.game.played["purchase"][0, :, 0], [AMOUNT] + [100.0] * 9, rtol=1e-9)
    # Spec, F7: at p = 20 the consumers that still bought F* would have paid 14803.43; those who answer pay far less.
    assert env.step(np.array([1.0]))[1] < 9798
    assert not np.allclose(env.game.game.played["purchase"][0, :, 0], [AMOUNT] + [100.0] * 9)


def test_a_consumer_faces_the_equilibrium_price_and_crowd():
    env = gymnasium.make("marketenvs/AIBazaar-Consumer-v0").unwrapped
    seen, _ = env.reset(seed=0)
    assert seen[0] == pytest.approx((PRICE - 10) / 10, rel=1e-6)
    reward = env.step(np.array([2 * (AMOUNT - 10) / 90 - 1]))[1]
    assert reward == pytest.approx(804.243774649, rel=1e-9)
    assert env.step(np.array([0.0]))[1] < reward


@pytest.mark.parametrize("opponents", ["equilibrium", "best_response", "random"])
def test_built_in_opponents_play_every_market(opponents):
    for make in DEFAULTS.values():
        market = make()
        if opponents == "equilibrium" and type(market).solve is marketenvs.Market.solve:
            continue
        for role in market.roles:
            env = MarketVectorEnv(market, role, 2, opponents=opponents)
            env.reset(seed=0)
            env.action_space.seed(0)
            for _ in range(2):
                seen, rewards, *_ = env.step(env.action_space.sample())
                assert np.isfinite(rewards).all()
                assert env.observation_space.contains(seen)


def test_opponents_by_name_object_and_role(tmp_path):
    policy = Constant([[15.0]])
    env = MarketSingleAgentEnv("AIBazaar-v0", "consumer", opponents={"provider": policy}, n_consumers=2)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.metrics["price"] == 15.0
    assert type(env.game.policies["consumer"]).__name__ == "EquilibriumPolicy"
    module = MarketSingleAgentEnv("AIBazaar-v0", "provider", opponents="tests.shells.test_gymnasium:Echo")
    module.reset(seed=0)
    module.step(module.action_space.sample())
    for bad, error in (
        ({"provider": "nobody"}, UnknownName),
        (str(tmp_path / "missing"), UnknownName),
        ({"providr": policy}, UnknownName),
        (Echo, InvalidParameter),
        (7, InvalidParameter),
    ):
        with pytest.raises(error):
            MarketSingleAgentEnv("AIBazaar-v0", "consumer", opponents=bad)


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"role": "providr"}, UnknownName, "provider"),
        ({"agent": 10}, InvalidParameter, "0..9"),
        ({"agent": True}, InvalidParameter, "agent"),
        ({"stage": "pricing"}, InvalidParameter, "provider"),
        ({"stage": "purchasing"}, UnknownName, "purchase"),
        ({"render_mode": "human"}, InvalidParameter, "rgb_array"),
    ],
)
def test_bad_arguments(kwargs, error, match):
    with pytest.raises(error, match=match):
        MarketSingleAgentEnv(**{"market": "AIBazaar-v0", "role": "consumer", **kwargs})


def test_bad_vector_actions_and_sizes():
    env = MarketVectorEnv("AIBazaar-v0", "provider", 3, opponents="random")
    with pytest.raises(ResetNeeded):
        env.step(np.zeros((3, 1)))
    env.reset(seed=[5, 6, 7])
    for bad in (np.zeros((2, 1)), np.zeros(3), np.zeros((3, 2)), np.full((3, 1), np.nan), 0.0, None, "abc"):
        with pytest.raises(InvalidAction):
            env.step(bad)
    for seed in ([1, 2], -1, "x", 1.5):
        with pytest.raises(InvalidParameter, match="seed"):
            env.reset(seed=seed)
    for size in (0, -1, 2.0, True):
        with pytest.raises(InvalidParameter, match="number of environments"):
            MarketVectorEnv("AIBazaar-v0", "provider", size)


def test_masks():
    single = MarketSingleAgentEnv(MAKERS["masked"](), "buyer", opponents="random")
    _, info = single.reset(seed=0)
    np.testing.assert_array_equal(info["action_mask"], [1, 0, 1, 0])
    np.testing.assert_array_equal(single.action_masks(), [True, False, True, False])
    seller = MarketVectorEnv(MAKERS["masked"](), "seller", 2, opponents="random")
    _, infos = seller.reset(seed=0)
    np.testing.assert_array_equal(infos["action_mask"], [[1, 1, 0, 1, 1, 1, 0]] * 2)
    np.testing.assert_array_equal(seller.action_masks(), np.array([[1, 1, 0, 1, 1, 1, 0]] * 2, dtype=bool))
    grid = MarketSingleAgentEnv("AIBazaar-v0", "provider", preset="grid", opponents="random")
    grid.reset(seed=0)
    assert grid.action_masks().tolist() == [True] * 11
    box = MarketSingleAgentEnv("AIBazaar-v0", "provider", opponents="random")
    box.reset(seed=0)
    with pytest.raises(NotOffered, match="continuous"):
        box.action_masks()


def test_a_role_with_several_stages():
    """It moves at each of them; or in one, while its policy moves in the other."""
    env = MarketSingleAgentEnv(MAKERS["toy"](), "buyer", opponents="random", agent=1)
    _, info = env.reset(seed=0)
    assert info["stage"] == "join"
    _, reward, _, _, info = env.step({"join": 1})
    assert info["stage"] == "purchase"
    assert info["acting"]
    assert reward == 0.0
    _, reward, _, _, info = env.step({"purchase": np.ones(2)})
    assert info["stage"] == "join"
    assert reward != 0.0
    with pytest.raises(InvalidAction, match="join"):
        env.step({"purchase": np.ones(2)})
    _, _, _, _, info = env.step({"join": 0})
    assert info["acting"] is False
    one = MarketSingleAgentEnv(MAKERS["toy"](), "buyer", opponents="random", stage="purchase")
    assert one.reset(seed=0)[0].shape == (5,)
    assert one.step(np.zeros(2))[0].shape == (5,)


def test_max_episode_steps():
    env = gymnasium.make_vec("marketenvs/AIBazaar-Provider-v0", num_envs=2, opponents="random", max_episode_steps=2)
    env.reset(seed=0)
    assert not env.step(np.zeros((2, 1)))[3].any()
    assert env.step(np.zeros((2, 1)))[3].all()


def test_views_of_third_party_and_torch_markets():
    pytest.importorskip("torch")
    market = marketenvs.make("AIBazaar-v0", backend="torch", dtype="float32", horizon=3)
    env = MarketVectorEnv(market, "provider", 2, opponents="random")
    seen, _ = env.reset(seed=0)
    assert isinstance(seen, np.ndarray)
    out = env.step(np.zeros((2, 1), np.float32))
    assert isinstance(out[1], np.ndarray)
    assert env.observation_space.contains(out[0])


def test_the_default_opponents_can_be_pickled():
    for id in ("marketenvs/AIBazaar-Consumer-v0", "marketenvs/AIBazaar-Provider-v0"):
        env = gymnasium.make(id).unwrapped
        env.reset(seed=0)
        action = np.zeros(1)
        env.step(action)
        twin = pickle.loads(pickle.dumps(env))
        assert same(twin.step(action)[:2], env.step(action)[:2])
