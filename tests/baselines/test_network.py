"""Networks as policies: heads by hand, exact mixtures, masks, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from marketenvs_baselines.network import Network, NetworkPolicy
from marketenvs_baselines.store import load_policy, save_policy

import marketenvs
from marketenvs.errors import InvalidParameter, NotOffered
from marketenvs.policy import decide
from marketenvs.strategy import Pure, Samples

RNG = np.random.default_rng(0)


def linear(weight, bias, head, **more):
    return Network([(np.array(weight), np.array(bias))], head, **more)


def test_heads_by_hand():
    obs = np.array([[1.0, 2.0], [0.0, -1.0]])
    box = linear([[0.25, 0.5]], [0.1], "box")
    np.testing.assert_allclose(box.act(obs, None, RNG), [[1.0], [-0.4]], rtol=1e-6)  # 1.35 is cut off
    np.testing.assert_allclose(linear([[0.25, 0.5]], [0.1], "squashed").act(obs, None, RNG), np.tanh([[1.35], [-0.4]]))
    values = linear([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [0.0, 0.0, 0.5], "greedy")
    np.testing.assert_array_equal(values.act(obs, None, RNG), [1, 2])
    np.testing.assert_array_equal(values.act(obs, np.array([[1, 0, 1], [1, 1, 0]], bool), RNG), [0, 0])


def test_two_layers_and_activations():
    w1, b1, w2, b2 = np.array([[1.0], [-1.0]]), np.array([0.0, 0.5]), np.array([[2.0, 3.0]]), np.array([-1.0])
    for name, f in (("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0)), ("silu", lambda x: x / (1 + np.exp(-x)))):
        net = Network([(w1, b1), (w2, b2)], "squashed", name)
        x = 0.3
        want = 2 * f(x) + 3 * f(0.5 - x) - 1
        np.testing.assert_allclose(net.forward(np.array([[x]]))[0, 0], want, rtol=1e-5)


def test_probabilities_are_softmaxes_and_masks_remove():
    net = linear(np.zeros((5, 1)), np.log([1.0, 2.0, 1.0, 3.0, 1.0]), "categorical", choices=(3, 2), stochastic=True)
    first, second = net.probabilities(np.zeros((1, 1)), None)
    np.testing.assert_allclose(first, [[0.25, 0.5, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(second, [[0.75, 0.25]], rtol=1e-6)
    one = linear(np.zeros((3, 1)), np.log([1.0, 2.0, 1.0]), "categorical", stochastic=True)
    (masked,) = one.probabilities(np.zeros((1, 1)), np.array([[True, False, True]]))
    np.testing.assert_allclose(masked, [[0.5, 0, 0.5]])


def provider(network, preset="grid"):
    market = marketenvs.make("AIBazaar-v0", preset=preset, n_consumers=3, observation="paper")
    policy = NetworkPolicy({"pricing": network})
    policy.start(market, "provider", 4, 0)
    state = market.reset(seed=0, batch=4)
    return market, policy, state, market.stage("pricing"), market.observe(state, "pricing")


def test_a_drawn_choice_is_scored_as_its_mixture():
    net = linear(RNG.normal(size=(11, 3)), RNG.normal(size=11), "categorical", stochastic=True)
    market, policy, state, stage, obs = provider(net)
    strategy = policy.strategy(stage, obs, None, state, 8)
    assert isinstance(strategy, Samples)
    np.testing.assert_allclose(strategy.values[:, 0, 0, 0], np.arange(10, 21))
    logits = obs.reshape(4, 3) @ net.layers[0][0].T.astype(float) + net.layers[0][1]
    want = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(strategy.weights[:, :, 0].T, want, rtol=1e-5)
    counts = np.zeros((4, 11))
    for _ in range(4000):
        counts[np.arange(4), decide(policy, market, stage, obs, None, state)[:, 0, 0].astype(int) - 10] += 1
    np.testing.assert_allclose(counts / 4000, want, atol=0.04)


def test_a_mean_is_a_point_and_a_gaussian_is_sampled():
    net = linear(np.full((1, 3), 0.1), [0.0], "box", deviation=np.array([0.1]))
    market, policy, state, stage, obs = provider(net, "calibrated")
    point = policy.strategy(stage, obs, None, state, 8)
    assert isinstance(point, Pure)
    want = 15 + 5 * 0.1 * obs.sum(axis=2)
    np.testing.assert_allclose(point.decisions[..., 0], want, rtol=1e-6)
    np.testing.assert_array_equal(decide(policy, market, stage, obs, None, state), point.decisions)
    net.stochastic = True
    drawn = policy.strategy(stage, obs, None, state, 400)
    assert isinstance(drawn, Samples)
    np.testing.assert_allclose(drawn.values[..., 0].mean(axis=0), want, atol=0.15)
    np.testing.assert_allclose(drawn.values[..., 0].std(axis=0), 0.5, atol=0.1)


def test_networks_are_stored_as_safetensors(tmp_path):
    net = linear(RNG.normal(size=(1, 3)), [0.2], "box", deviation=np.array([0.3]), stochastic=True)
    market, policy, state, stage, obs = provider(net, "calibrated")
    save_policy(tmp_path / "p", {"provider": policy}, market)
    assert (tmp_path / "p" / "provider.safetensors").is_file()
    back = load_policy(tmp_path / "p", market)["provider"]
    back.start(market, "provider", 4, 9)
    policy.start(market, "provider", 4, 9)
    for _ in range(3):
        np.testing.assert_array_equal(*(decide(p, market, stage, obs, None, state) for p in (policy, back)))


def test_bad_networks_are_named():
    with pytest.raises(InvalidParameter, match="did you mean 'squashed'"):
        linear([[1.0]], [0.0], "squash")
    with pytest.raises(InvalidParameter, match="diverged"):
        linear([[np.nan]], [0.0], "box")
    with pytest.raises(InvalidParameter, match="shapes"):
        Network([(np.zeros((2, 3)), np.zeros(2)), (np.zeros((1, 3)), np.zeros(1))], "box")
    with pytest.raises(NotOffered, match="reads 5 numbers; the market shows 3"):
        provider(linear(np.zeros((1, 5)), [0.0], "box"), "calibrated")
