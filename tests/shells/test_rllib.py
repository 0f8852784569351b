"""The RLlib adapter."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import marketenvs
from marketenvs import InvalidAction, ResetNeeded, UnknownName
from marketenvs.policy import Uniform

from .cases import HORIZON, MAKERS, every_market, same

pytest.importorskip("ray.rllib", reason="needs marketenvs[rllib]")
from ray.rllib.env.multi_agent_episode import MultiAgentEpisode

from marketenvs.rllib import MarketMultiAgentEnv

pytestmark = pytest.mark.filterwarnings("ignore")


def actions_of(env, observations, rng):
    chosen = {}
    for agent in observations:
        space = env.get_action_space(agent)
        space.seed(int(rng.integers(1 << 31)))
        chosen[agent] = space.sample()
    return chosen


@every_market
def test_only_those_who_act_observe_and_everybody_is_paid(make):
    """A whole episode, fed to RLlib's own episode object, which refuses what its stack cannot train on."""
    market = make()
    env, twin = MarketMultiAgentEnv(market), market.parallel_env()
    assert env.possible_agents == list(market.agents)
    rng = np.random.default_rng(0)
    observations, infos = env.reset(seed=1)
    seen, told = twin.reset(seed=1)
    episode = MultiAgentEpisode(
        observation_space=env.observation_spaces,
        action_space=env.action_spaces,
        agent_to_module_mapping_fn=lambda agent, episode, **kw: agent.rpartition("_")[0],
    )
    episode.add_env_reset(observations=observations, infos=infos)
    paid, want, acted = dict.fromkeys(env.possible_agents, 0.0), dict.fromkeys(env.possible_agents, 0.0), set()
    over = False
    while not over:
        while not any(told[a]["acting"] for a in twin.agents):  # stages without anyone are played through
            seen, rewards, _, _, told = twin.step({})
            want = {a: want[a] + rewards[a] for a in want}
        assert set(observations) == {a for a in twin.agents if told[a]["acting"]}
        for agent, value in observations.items():
            assert env.get_observation_space(agent).contains(value)
            row = value["observations"] if isinstance(value, dict) else value
            assert same(row, seen[agent]["observation"] if isinstance(seen[agent], dict) else seen[agent])
        actions = actions_of(env, observations, rng)
        acted |= set(actions)
        observations, rewards, terminated, truncated, infos = env.step(actions)
        episode.add_env_step(observations, actions, rewards, infos, terminateds=terminated, truncateds=truncated)
        assert set(infos) <= set(observations)
        assert not any(terminated.values())
        for agent, reward in rewards.items():
            paid[agent] += reward
        seen, rewards, _, _, told = twin.step(actions)
        want = {a: want[a] + rewards[a] for a in want}
        over = truncated["__all__"]
    while twin.agents:  # the episode may end in stages without anyone
        _, rewards, *_ = twin.step({})
        want = {a: want[a] + rewards[a] for a in want}
    assert env.table.game.rounds == HORIZON
    assert paid == pytest.approx(want)
    assert set(observations) == acted, "a final observation for everyone who acted"
    assert {a for a, flag in truncated.items() if flag} == acted | {"__all__"}
    assert episode.is_done
    assert {a: e.get_return() for a, e in episode.agent_episodes.items()} == pytest.approx({a: want[a] for a in acted})
    with pytest.raises(ResetNeeded):
        env.step({})


def test_masks_in_rllibs_form():
    env = MarketMultiAgentEnv(MAKERS["masked"]())
    observations, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observations["seller_0"]["action_mask"], [1, 1, 0, 1, 1, 1, 0])
    assert observations["seller_0"]["action_mask"].dtype == np.float32
    toy = MarketMultiAgentEnv(MAKERS["toy"]())
    _, infos = toy.reset(seed=0)
    np.testing.assert_array_equal(infos["buyer_0"]["action_mask"]["join"], [0, 1, 1])


def test_stages_without_anyone_are_played_through():
    """If no buyer comes, sellers see the next round's start in one step, and are paid for the empty one."""
    market = MAKERS["toy"]()
    env = MarketMultiAgentEnv(market)
    env.reset(seed=0)
    observations, rewards, *_ = env.step({f"buyer_{i}": {"join": 0} for i in range(3)})
    assert set(observations) == {"seller_0", "seller_1"}
    assert rewards == {}
    observations, rewards, *_ = env.step({f"seller_{i}": np.zeros(2) for i in range(2)})
    assert set(observations) == {"buyer_0", "buyer_1", "buyer_2"}
    assert set(rewards) == set(env.possible_agents)


def test_copies_and_bad_input():
    env = MarketMultiAgentEnv("AIBazaar-v0", n_consumers=2, horizon=3)
    with pytest.raises(ResetNeeded):
        env.step({})
    env.reset(seed=0)
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    want = env.step({"provider_0": np.zeros(1)})
    assert all(same(t.step({"provider_0": np.zeros(1)}), want) for t in twins)
    with pytest.raises(InvalidAction, match="consumer_1"):
        env.step({"consumer_0": np.zeros(1)})
    with pytest.raises(InvalidAction, match="consumer_0"):
        env.step({"consumer_0": np.full(1, np.nan), "consumer_1": np.zeros(1)})
    with pytest.raises(UnknownName, match="n_consumers"):
        MarketMultiAgentEnv("AIBazaar-v0", n_consumer=2)


LEARNING = [(name, role) for name, make in MAKERS.items() for role in make().roles if len(make().roles) > 1]


@pytest.mark.parametrize(("name", "role"), LEARNING, ids=[f"{n}:{r}" for n, r in LEARNING])
def test_one_role_learns_against_policies(name, role):
    """The game is the one in which the others' agents are given the policies' own moves by hand."""
    market = MAKERS[name]()
    spied = {r: Spy() for r in market.roles if r != role}
    env = MarketMultiAgentEnv(market, only=role, opponents=spied, reward_scale={role: 2.0})
    twin = MarketMultiAgentEnv(market, reward_scale={role: 2.0})
    assert env.possible_agents == [a for a in market.agents if a.rpartition("_")[0] == role]
    assert set(env.observation_spaces) == set(env.action_spaces) == set(env.possible_agents)
    observations, _ = env.reset(seed=3)
    seen, _ = twin.reset(seed=3)
    rng = np.random.default_rng(0)
    paid, want = dict.fromkeys(env.possible_agents, 0.0), dict.fromkeys(env.possible_agents, 0.0)
    played = {r: 0 for r in spied}

    def follow(seen):
        """Let the spies' recorded actions be played in the twin until it is the learner's turn."""
        while seen and next(iter(seen)).rpartition("_")[0] != role:
            other = next(iter(seen)).rpartition("_")[0]
            policy = env.others.policies[other]
            stage, actions = policy.log[played[other]]
            played[other] += 1
            assert stage == twin.table.stage.name
            several = len(market.stages_of[other]) > 1
            rows = {a: actions[0, int(a.rpartition("_")[2])] for a in seen}
            seen, rewards, _, truncated, _ = twin.step({a: {stage: x} if several else x for a, x in rows.items()})
            for agent in want:
                want[agent] += rewards.get(agent, 0.0)
            if truncated["__all__"]:
                return {}
        return seen

    seen = follow(seen)
    over = False
    while not over:
        assert set(observations) == set(seen)
        for agent in observations:
            assert same(observations[agent], seen[agent])
            assert env.get_observation_space(agent).contains(observations[agent])
        actions = actions_of(env, observations, rng)
        observations, rewards, _, truncated, infos = env.step(actions)
        assert set(rewards) <= set(paid)
        assert set(infos) <= set(observations) <= set(paid)
        for agent, reward in rewards.items():
            paid[agent] += reward
        over = truncated["__all__"]
        seen, rewards, _, done, _ = twin.step(actions)
        for agent in want:
            want[agent] += rewards.get(agent, 0.0)
        seen = follow({} if done["__all__"] else seen)
    assert env.table.game.rounds == HORIZON == twin.table.game.rounds
    assert paid == pytest.approx(want)
    assert any(want.values()) or name.startswith("masked")


class Spy(Uniform):
    """Draws actions, and keeps them."""

    units = "action"

    def start(self, market, role, batch, seed):
        super().start(market, role, batch, seed)
        self.log, self.rng = [], np.random.default_rng(seed)

    def act_at(self, stage, obs, mask, state):
        space = stage.codec.action_space
        space.seed(int(self.rng.integers(1 << 31)))
        split = [None] * obs.shape[1] if mask is None else list(mask[0].astype(np.int8))
        actions = np.stack([np.asarray(space.sample(as_mask(space, m))) for m in split])[None]
        actions = actions if stage.codec.discrete else actions.astype(np.float64)  # as shells compute
        if self.market.acting(state, stage.name)[0].any():
            self.log.append((stage.name, actions))
        return actions


def as_mask(space, row):
    if row is None or not hasattr(space, "nvec"):
        return row
    return tuple(np.split(row, np.cumsum(space.nvec)[:-1]))


def test_learning_roles_and_opponents_are_checked():
    with pytest.raises(UnknownName, match="provider"):
        MarketMultiAgentEnv("AIBazaar-v0", only="providr")
    with pytest.raises(UnknownName, match="equilibrium"):
        MarketMultiAgentEnv("AIBazaar-v0", only="provider", opponents="equilibrum")
    with pytest.raises(UnknownName, match="consumer"):
        MarketMultiAgentEnv("AIBazaar-v0", only="provider", opponents={"consumr": "random"})
    env = MarketMultiAgentEnv("AIBazaar-v0", only="provider", n_consumers=2, horizon=2)
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match="consumer_0.*does not learn"):
        env.step({"provider_0": np.zeros(1), "consumer_0": np.zeros(1)})


def test_an_agent_alone_against_the_equilibrium_is_paid_what_the_oracle_says():
    """AI-Bazaar: a provider at its certified price, consumers by equilibrium, earns the certified payoff each round."""
    market = marketenvs.make("AIBazaar-v0", preset="calibrated", horizon=1)
    env = MarketMultiAgentEnv(market, only="provider", opponents="equilibrium")
    env.reset(seed=0)
    state = env.table.game.state
    price = market.equilibrium(state).actions["provider"]
    low, high = market.bounds(state, "pricing")
    action = market.stage("pricing").codec.encode(np, price, low, high)[0, 0]
    _, rewards, *_ = env.step({"provider_0": action})
    answer = market.respond(state, {"provider": price}).actions["consumer"]
    want = market.payoff(state, {"provider": price, "consumer": answer})
    assert rewards["provider_0"] == pytest.approx(float(want["provider"][0, 0]), rel=1e-5)


@pytest.fixture(scope="module")
def cluster():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    yield
    ray.shutdown()


def ppo(id="AIBazaar-v0", runners=0, **env_config):
    from ray.rllib.algorithms.ppo import PPOConfig

    return (
        PPOConfig()
        .environment(f"marketenvs/{id}", env_config=env_config)
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=2, rollout_fragment_length="auto")
        .learners(num_learners=0)
        .multi_agent(
            policies=set(marketenvs.make(id, **{k: v for k, v in env_config.items() if k != "reward_scale"}).roles),
            policy_mapping_fn=lambda agent, episode, **kwargs: agent.rpartition("_")[0],
        )
        .training(train_batch_size_per_learner=80, minibatch_size=40, num_epochs=1)
    )


@pytest.mark.slow
@pytest.mark.parametrize("runners", [0, 2])
def test_ppo_trains_both_roles(cluster, runners):
    """Known by name, in this process and in workers.

    Every role's policy gets samples of the expected number and return.
    """
    algorithm = ppo(
        runners=runners, n_consumers=3, horizon=10, preset="drawn", reward_scale={"provider": 1e4, "consumer": 1e3}
    ).build_algo()
    try:
        for _ in range(2):
            result = algorithm.train()
        sampled = result["env_runners"]
        assert sampled["num_env_steps_sampled_lifetime"] >= 160
        assert sampled["num_agent_steps_sampled"]["provider_0"] > 0
        assert set(result["learners"]) >= {"provider", "consumer"}
        assert np.isfinite(result["learners"]["consumer"]["total_loss"])
        # Spec: in 10 rounds a provider earns between (10 - 5) * 30 and (20 - 5) * 300 per round.
        mean = sampled["agent_episode_returns_mean"]["provider_0"]
        assert 10 * 150 / 1e4 <= mean <= 10 * 4500 / 1e4
    finally:
        algorithm.stop()


@pytest.mark.slow
@pytest.mark.parametrize("id", marketenvs.list_markets())
def test_ppo_trains_in_every_market(cluster, id):
    algorithm = ppo(id, horizon=5).build_algo()
    try:
        learners = algorithm.train()["learners"]
        for role in marketenvs.make(id).roles:
            assert np.isfinite(learners[role]["total_loss"])
    finally:
        algorithm.stop()


@pytest.mark.slow
def test_ppo_trains_where_a_role_has_several_stages(cluster):
    """Buyers name a coalition (Discrete), then choose amounts (Box): RLlib's default modules take the Dict of both."""
    algorithm = ppo("CoalitionTrading-v0", preset="labels", horizon=5).build_algo()
    try:
        assert np.isfinite(algorithm.train()["learners"]["buyer"]["total_loss"])
    finally:
        algorithm.stop()


@pytest.mark.slow
def test_rllibs_masking_module_takes_the_masks(cluster):
    """Slicers choose among 1326 splits, of which only those within their share are legal."""
    from ray.rllib.core.rl_module import MultiRLModuleSpec, RLModuleSpec
    from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule

    one = RLModuleSpec(module_class=ActionMaskingTorchRLModule, model_config={"head_fcnet_hiddens": [16]})
    config = ppo("TwoTierBidding-v0", preset="two_tier", horizon=5)
    algorithm = config.rl_module(
        rl_module_spec=MultiRLModuleSpec(rl_module_specs={"bidder": one, "slicer": one})
    ).build_algo()
    try:
        assert np.isfinite(algorithm.train()["learners"]["slicer"]["total_loss"])
    finally:
        algorithm.stop()
