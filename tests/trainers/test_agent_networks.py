"""Networks of single agents, computed at once: each agent plays its own, and they are saved and loaded."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from marketenvs_baselines.agent_networks import AgentNetworkPolicy, AgentNetworks
from marketenvs_baselines.network import Network, NetworkPolicy
from marketenvs_baselines.store import load_policy, save_policy

import marketenvs
from marketenvs import InvalidParameter, NotOffered


def mlp(rng, sizes, **more):
    layers = [
        (rng.normal(size=(b, a)).astype(np.float32), rng.normal(size=b).astype(np.float32))
        for a, b in itertools.pairwise(sizes)
    ]
    return Network(layers, **more)


KINDS = {
    "box": ({"head": "box", "deviation": np.array([0.5, 0.1])}, 2),
    "squashed": ({"head": "squashed", "activation": "relu"}, 2),
    "categorical": ({"head": "categorical"}, 4),
    "several": ({"head": "categorical", "choices": (2, 3)}, 5),
    "greedy": ({"head": "greedy"}, 4),
}


@pytest.mark.parametrize(("more", "outputs"), KINDS.values(), ids=KINDS.keys())
def test_each_agent_plays_its_own_network(more, outputs):
    rng = np.random.default_rng(0)
    own = [mlp(rng, (3, 8, outputs), **more) for _ in range(4)]
    together = AgentNetworks.stack(own)
    obs = rng.normal(size=(5, 4, 3))
    mask = None
    if more["head"] == "greedy" or outputs == 4:
        mask = rng.random((5, 4, outputs)) < 0.6
        mask[..., 0] = True
    flat = None if mask is None else mask.reshape(20, -1)
    got = together.act(obs.reshape(20, 3), flat, rng)
    for i, network in enumerate(own):
        want = network.act(obs[:, i], None if mask is None else mask[:, i], rng)
        np.testing.assert_allclose(got.reshape(5, 4, *got.shape[1:])[:, i], want, rtol=1e-4, atol=1e-5)
        alone = together.of(i)
        np.testing.assert_array_equal(alone.layers[0][0], network.layers[0][0])


def test_each_agent_draws_with_its_own_spread():
    rng = np.random.default_rng(1)
    own = [mlp(rng, (2, 1), head="box", deviation=np.array([s]), stochastic=True) for s in (0.0, 0.01, 0.1)]
    for network in own:
        network.layers = [(0 * w, 0 * b) for w, b in network.layers]
    drawn = AgentNetworks.stack(own).act(np.zeros((3 * 4000, 2)), None, rng).reshape(4000, 3)
    np.testing.assert_allclose(drawn.std(axis=0), [0.0, 0.01, 0.1], rtol=0.05)


def test_saved_and_loaded_for_the_same_number_of_agents_only(tmp_path):
    market = marketenvs.make("AIBazaar-v0", n_consumers=3)
    width = market.stage("purchase").observation_space.shape[0]
    rng = np.random.default_rng(2)
    own = [mlp(rng, (width, 4, 1), head="box", deviation=np.array([0.3])) for _ in range(3)]
    policy = AgentNetworkPolicy({"purchase": AgentNetworks.stack(own)})
    save_policy(tmp_path / "p", {"consumer": policy}, market)
    assert json.loads((tmp_path / "p" / "policy.json").read_text())["roles"]["consumer"]["tensors"]
    loaded = load_policy(tmp_path / "p", market)["consumer"]
    obs = rng.random((2, 3, width), dtype=np.float32)
    out = []
    for player in (policy, loaded):
        player.start(market, "consumer", 2, 0)
        state = market.reset(seed=0, batch=2)
        out.append(player.act_at(market.stage("purchase"), obs, None, state))
    np.testing.assert_array_equal(*out)
    for i, network in enumerate(own):
        shared = NetworkPolicy({"purchase": network})
        shared.start(market, "consumer", 2, 0)
        alone = shared.act_at(market.stage("purchase"), obs, None, market.reset(seed=0, batch=2))
        np.testing.assert_allclose(out[0][:, i], alone[:, i], rtol=1e-5)
    with pytest.raises(NotOffered, match="3 agents"):
        loaded.start(marketenvs.make("AIBazaar-v0", n_consumers=4), "consumer", 1, 0)


def test_what_does_not_fit_together_is_refused():
    rng = np.random.default_rng(3)
    with pytest.raises(InvalidParameter, match="weights only"):
        AgentNetworks.stack([mlp(rng, (2, 1), head="box"), mlp(rng, (3, 1), head="box")])
    with pytest.raises(InvalidParameter, match="agents each"):
        AgentNetworks.stack([mlp(rng, (2, 1), head="box")] * 3).forward(np.zeros((4, 2)))
    with pytest.raises(InvalidParameter, match="different numbers"):
        AgentNetworks([(np.zeros((3, 1, 2)), np.zeros((2, 1)))], "box")
    bad = mlp(rng, (2, 1), head="box")
    bad.layers[0][0][0, 0] = np.nan
    with pytest.raises(InvalidParameter, match="diverged"):
        AgentNetworks.stack([mlp(rng, (2, 1), head="box"), bad])
