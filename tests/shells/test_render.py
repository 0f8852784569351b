"""Pictures and texts: they show what was played, and the equilibrium beside it."""

from __future__ import annotations

import copy
import pickle

import gymnasium
import numpy as np
import pytest

import marketenvs
from marketenvs import InvalidParameter, ResetNeeded
from marketenvs.render import Screen
from marketenvs.shells.vector import MarketVectorEnv

from .cases import every_default, sample

# Spec, reference case R3 (calibrated): p*, U_cpp, F_0, U_0, and the resource welfare at the equilibrium.
PRICE, PROFIT, AMOUNT, UTILITY, WELFARE = 14.9286510099, 9798.54134806, 86.8955347783, 804.243774649, 219261.5397


def played(env, rounds, seed=0):
    observations, infos = env.reset(seed=seed)
    rng = np.random.default_rng(0)
    for _ in range(rounds * len(env.market.stages)):
        step = env.step(sample(env, observations, infos, rng))
        observations, infos = step[0], step[4]
    return env


def test_the_panels_of_ai_bazaar():
    env = played(marketenvs.parallel_env("AIBazaar-v0", render_mode="ansi"), 3)
    panels, ideal = env.screen.panels(env.table.game)
    by_title = {p.title.split(" (")[0] + " " + p.title.split("(")[-1].rstrip(")"): p for p in panels}
    pricing, purchase = by_title["pricing provider"], by_title["purchase consumer"]
    profit, utility = by_title["payoff provider"], by_title["payoff consumer"]
    assert len(pricing.history) == 3
    assert pricing.last[0] == env.metrics["price"]
    np.testing.assert_allclose(pricing.reference, [PRICE], rtol=1e-9)
    np.testing.assert_allclose(purchase.reference, [AMOUNT] + [100.0] * 9, rtol=1e-9)
    np.testing.assert_allclose(profit.reference, [PROFIT], rtol=1e-9)
    assert utility.reference[0] == pytest.approx(UTILITY, rel=1e-9)
    np.testing.assert_array_equal(purchase.last, env.table.game.played["purchase"][0, :, 0])
    welfare = next(p for p in panels if p.title.startswith("welfare"))
    assert welfare.reference[0] == pytest.approx(WELFARE, rel=1e-9)
    assert pricing.limits == (10.0, 20.0)
    assert "exact" in ideal.label
    text = env.render()
    assert f"{env.metrics['price']:.6g} [14.9287]" in text
    assert "round 3 of 200" in text


@every_default
def test_every_market_is_drawn(make):
    pytest.importorskip("matplotlib")
    market = make()
    env = market.parallel_env(render_mode="rgb_array")
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=0)
    screen = env.screen
    names = [s.name for s in market.stages] + list(market.roles) + ["welfare"]
    played(env, 2)
    text = screen.text(env.table.game)
    assert all(name in text for name in names)
    assert "round 2" in text
    frame = env.render()
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert frame.shape[2] == 3
    assert len(np.unique(frame.astype(np.int64) @ [65536, 256, 1])) > 10


def test_the_picture_changes_with_the_round_and_comes_as_svg():
    pytest.importorskip("matplotlib")
    env = marketenvs.parallel_env("AIBazaar-v0", n_consumers=2, render_mode="rgb_array")
    before = played(env, 1).render()
    after = played(env, 2).render()
    assert not np.array_equal(before, after)
    svg = env.screen.svg(env.table.game)
    assert svg.lstrip().startswith("<?xml")
    assert "</svg>" in svg


def test_modes_and_shells():
    pytest.importorskip("matplotlib")
    assert marketenvs.parallel_env("AIBazaar-v0").render() is None
    with pytest.raises(InvalidParameter, match="ansi"):
        marketenvs.parallel_env("AIBazaar-v0", render_mode="human")
    env = gymnasium.make("marketenvs/AIBazaar-Provider-v0", render_mode="ansi", opponents="random")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert "payoff (consumer)" in env.render()
    vector = MarketVectorEnv("AIBazaar-v0", "provider", 10, preset="drawn", opponents="random", render_mode="ansi")
    vector.reset(seed=0)
    vector.step(np.zeros((10, 1)))
    texts = vector.render()
    assert len(texts) == 8
    assert len(set(texts)) == 8
    aec = marketenvs.aec_env("AIBazaar-v0", n_consumers=1, render_mode="ansi")
    aec.reset(seed=0)
    for _ in range(2):
        aec.step(np.zeros(1))
    assert "round 1 of" in aec.render()


def test_an_environment_that_draws_can_be_copied_and_pickled():
    env = played(marketenvs.parallel_env("AIBazaar-v0", n_consumers=2, render_mode="ansi"), 2)
    text = env.render()
    assert copy.deepcopy(env).render() == text
    assert pickle.loads(pickle.dumps(env)).render() == text


def test_no_equilibrium_no_lines():
    from .toy import Toy

    env = played(Toy().parallel_env(), 0)
    panels, ideal = Screen(env.market).panels(env.table.game)
    assert all(p.reference is None for p in panels)
    assert ideal.label == "no equilibrium known"
