"""Whatever is given as actions: either a clear error of this package that changes nothing, or a played stage."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import marketenvs
from marketenvs import MarketEnvsError
from marketenvs.shells.single import MarketSingleAgentEnv
from marketenvs.shells.vector import MarketVectorEnv

from .cases import MAKERS, same

FEW = settings(max_examples=30, deadline=None)
floats = st.floats(allow_nan=True, allow_infinity=True, width=32)
arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    elements=floats,
)
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.integers(-5, 50),
    floats,
    arrays,
    hnp.arrays(np.int64, st.sampled_from([(), (1,), (2,), (4,)]), elements=st.integers(-3, 12)),
    st.lists(floats, max_size=3),
    st.dictionaries(st.sampled_from(["join", "purchase", "pricing"]), st.one_of(floats, st.integers(0, 3)), max_size=2),
)


def begun(make):
    env = make()
    env.reset(seed=0)
    return env


PARALLEL = {
    "bazaar": begun(lambda: marketenvs.parallel_env("AIBazaar-v0", n_consumers=2, horizon=2)),
    "grid": begun(lambda: marketenvs.parallel_env("AIBazaar-v0", preset="grid", n_consumers=2, horizon=2)),
    "toy": begun(lambda: MAKERS["toy"]().parallel_env()),
    "masked": begun(lambda: MAKERS["masked"]().parallel_env()),
}


@pytest.mark.parametrize("name", PARALLEL)
@FEW
@given(data=st.data())
def test_parallel(name, data):
    env = copy.deepcopy(PARALLEL[name])
    agents = [*env.possible_agents, "provider_9", "nobody", 3]
    actions = data.draw(st.one_of(st.dictionaries(st.sampled_from(agents), junk, max_size=5), junk))
    observations, rewards, complaint = {}, {}, None
    try:
        observations, rewards, *_ = env.step(actions)
    except MarketEnvsError as error:
        complaint = str(error)
    if complaint is not None:
        assert complaint
        assert env.table.game.begun is PARALLEL[name].table.game.begun
        assert env.table.game.position == 0
        assert same(env.table._seen, PARALLEL[name].table._seen)
    else:
        for agent in env.possible_agents:
            assert env.observation_space(agent).contains(observations[agent])
            assert np.isfinite(rewards[agent])


@FEW
@given(action=junk)
def test_one_agent_at_a_time(action):
    env = marketenvs.aec_env("AIBazaar-v0", n_consumers=1, horizon=1)
    env.reset(seed=0)
    complaint = None
    try:
        env.step(action)
    except MarketEnvsError as error:
        complaint = str(error)
    if complaint is not None:
        assert "provider_0" in complaint
        assert env.agent_selection == "provider_0"
    else:
        assert env.agent_selection == "consumer_0"


SINGLE = {
    "bazaar": MarketSingleAgentEnv("AIBazaar-v0", "provider", opponents="random", n_consumers=2, horizon=2),
    "toy": MarketSingleAgentEnv(MAKERS["toy"](), "buyer", opponents="random"),
    "masked": MarketSingleAgentEnv(MAKERS["masked"](), "seller", opponents="random"),
    "vector": MarketVectorEnv("AIBazaar-v0", "provider", 2, opponents="random", n_consumers=2, horizon=2),
    "vector grid": MarketVectorEnv("AIBazaar-v0", "provider", 2, opponents="random", preset="grid", horizon=2),
}


@pytest.mark.parametrize("name", SINGLE)
@FEW
@given(action=junk)
def test_views(name, action):
    env = copy.deepcopy(SINGLE[name])
    env.reset(seed=0)
    before = env.game.game.begun
    seen = reward = complaint = None
    try:
        seen, reward, *_ = env.step(action)
    except MarketEnvsError as error:
        complaint = str(error)
    if complaint is not None:
        assert complaint
        assert env.game.game.begun is before
    else:
        assert env.observation_space.contains(seen)
        assert np.all(np.isfinite(reward))


@FEW
@given(
    seed=st.one_of(
        st.integers(-(2**70), 2**70), floats, st.text(max_size=2), st.lists(st.integers(-2, 2**65), max_size=3)
    )
)
def test_seeds(seed):
    env = marketenvs.parallel_env("AIBazaar-v0", n_consumers=1)
    valid = isinstance(seed, int) and 0 <= seed < 2**64
    valid = valid or (isinstance(seed, list) and len(seed) == 1 and 0 <= seed[0] < 2**64)
    if valid:
        env.reset(seed=seed)
    else:
        with pytest.raises(MarketEnvsError, match="seed"):
            env.reset(seed=seed)
        assert env.agents == []
