"""Legal splits reach every kind of trainer in the form it expects, and none of them plays an illegal one."""

import numpy as np
import pytest

import marketenvs

ID, OPTIONS = "TwoTierBidding-v0", {"preset": "two_tier", "blocks": 9, "bandwidth": 1.8, "bid_levels": 4, "horizon": 4}
ACTIONS = 55  # pairs (n_V, n_E) with a sum of at most 9

AT_CAPS = (
    3,
    2,
    2,
    2,
)  # quotas 2.505, 2.412, 2.505, 1.577: two blocks go to the largest remainders, ties to the lower index


def legal(blocks):
    """By hand: pairs in lexicographic order that use no more than the operator's blocks."""
    pairs = [(v, e) for v in range(10) for e in range(10) if v + e <= 9]
    return np.array([[v + e <= n for v, e in pairs] for n in blocks])


def market():
    return marketenvs.make(ID, **OPTIONS)


def test_the_rule():
    made = market()
    assert made.stage("slicing").codec.action_space.n == ACTIONS
    state = made.commit(made.reset(0), "bidding", np.array([[[2700.0], [900.0], [1.377], [567.0]]]))
    _, blocks = made.allocate(state, made.bids(state.decisions))
    mask = made.action_mask(state, "slicing")
    assert mask.shape == (1, 4, ACTIONS)
    np.testing.assert_array_equal(mask[0], legal(blocks[0]))
    assert mask[0].sum(-1).tolist() == [(n + 1) * (n + 2) / 2 for n in blocks[0]]
    assert made.action_mask(state, "bidding") is None


def test_pettingzoo_infos_and_spaces():
    env = market().parallel_env()
    observations, infos = env.reset(seed=0)
    actions = {a: (3 if a.startswith("bidder") else 0) for a in env.agents}
    observations, _, _, _, infos = env.step(actions)
    for m, n in enumerate(AT_CAPS):
        seen = observations[f"slicer_{m}"]
        mask = seen["action_mask"] if isinstance(seen, dict) else infos[f"slicer_{m}"]["action_mask"]
        assert mask.dtype == np.int8
        np.testing.assert_array_equal(mask, legal([n])[0])
        space = env.action_space(f"slicer_{m}")
        space.seed(m)
        assert all(mask[space.sample(mask)] for _ in range(20))
        assert "action_mask" not in infos[f"bidder_{m}"]  # idle now, and any bid of the pool is legal


def test_pettingzoo_turns():
    env = market().aec_env()
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for agent in env.agent_iter(max_iter=40):
        seen, _, terminated, truncated, info = env.last()
        mask = seen.get("action_mask") if isinstance(seen, dict) else info.get("action_mask")
        assert mask.shape == ((ACTIONS,) if agent.startswith("slicer") else (4,))
        space = env.action_space(agent)
        space.seed(int(rng.integers(1000)))
        env.step(None if terminated or truncated else space.sample(mask))
    assert env.unwrapped.metrics["illegal_splits"] == 0


def test_gymnasium_views():
    from marketenvs.shells.single import MarketSingleAgentEnv
    from marketenvs.shells.vector import MarketVectorEnv

    single = MarketSingleAgentEnv(market(), "slicer", opponents="random")
    _, info = single.reset(seed=0)
    np.testing.assert_array_equal(single.action_masks(), info["action_mask"].astype(bool))
    assert single.action_masks().shape == (ACTIONS,)
    vector = MarketVectorEnv(market(), "slicer", 3, opponents="random")
    _, infos = vector.reset(seed=0)
    assert vector.action_masks().shape == (len(infos["action_mask"]), ACTIONS)


def test_maskable_ppo_plays_legal_splits_only():
    contrib = pytest.importorskip("sb3_contrib")
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported

    from marketenvs.sb3 import MarketVecEnv

    env = MarketVecEnv(market(), "slicer", 4, opponents="random")
    model = contrib.MaskablePPO("MlpPolicy", env, n_steps=4, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.learn(128)
    obs = env.reset()
    assert is_masking_supported(env)
    for _ in range(6):
        mask = get_action_masks(env)
        assert mask.shape == (16, ACTIONS)
        assert 0 < mask.sum() < mask.size
        actions, _ = model.predict(obs, action_masks=mask)
        assert mask[np.arange(16), actions].all()
        obs, *_ = env.step(actions)


def test_rllib_observations_carry_the_mask():
    pytest.importorskip("ray")
    from marketenvs.rllib import MarketMultiAgentEnv

    env = MarketMultiAgentEnv(market())
    observations, _ = env.reset(seed=0)
    assert set(observations) == {f"bidder_{m}" for m in range(4)}
    observations, *_ = env.step({f"bidder_{m}": 3 for m in range(4)})
    for m, n in enumerate(AT_CAPS):
        seen = observations[f"slicer_{m}"]
        assert seen["action_mask"].dtype == np.float32
        np.testing.assert_array_equal(seen["action_mask"], legal([n])[0])
        assert seen["observations"].shape == (11,)
