"""Ids in the frameworks' registries: of every market and role, at the price of a few strings."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import pettingzoo
import pytest
from pettingzoo.env_registry import registration as pettingzoo_registry

import marketenvs
from marketenvs import UnknownName, registry
from marketenvs.shells.registration import register_shells, view_id

from .toy import SPEC


def test_every_market_and_role_has_its_ids():
    for id in marketenvs.list_markets():
        spec = marketenvs.spec(id)
        env = pettingzoo.make("parallel", f"marketenvs/{id}")
        assert env.market.id == id
        assert set(env.market.roles) <= set(spec.roles), "every role of the market has a view"
        assert pettingzoo.make("aec", f"marketenvs/{id}").market.id == id
        for role in spec.roles:
            view = gymnasium.spec(view_id(id, role))
            assert view.vector_entry_point is not None
            if role in env.market.roles:
                assert gymnasium.make(view.id).unwrapped.game.role == role
            else:  # only with other parameters
                with pytest.raises(UnknownName, match=role):
                    gymnasium.make(view.id)


def test_names_of_views():
    assert view_id("AIBazaar-v0", "provider") == "marketenvs/AIBazaar-Provider-v0"
    assert view_id("My-Market-v12", "big_seller") == "marketenvs/My-Market-BigSeller-v12"


def test_registering_again_is_silent(recwarn):
    before = dict(gymnasium.registry)
    for id in marketenvs.list_markets():
        register_shells(marketenvs.spec(id))
    assert gymnasium.registry == before
    assert not recwarn.list


@pytest.fixture
def third_party():
    """A market registered later, from elsewhere."""
    marketenvs.register(SPEC)
    yield
    registry._REGISTRY.pop(SPEC.id)
    for role in SPEC.roles:
        gymnasium.registry.pop(view_id(SPEC.id, role))
    for known in (pettingzoo_registry.parallel_registry, pettingzoo_registry.aec_registry):
        known.pop(f"marketenvs/{SPEC.id}")


def test_a_third_partys_market(third_party):
    env = pettingzoo.make("parallel", "marketenvs/ShellToy-v3", n_buyers=5, horizon=2)
    assert len(env.reset(seed=0)[0]) == 7
    view = gymnasium.make("marketenvs/ShellToy-Seller-v3", opponents="random")
    view.reset(seed=0)
    view.step(view.action_space.sample())
    vector = gymnasium.make_vec("marketenvs/ShellToy-Seller-v3", num_envs=4, opponents="random")
    assert vector.reset(seed=0)[0].shape == (4, 2)


def test_importing_stays_light():
    """No market, shell or framework beyond Gymnasium's and PettingZoo's registries is imported before something is made."""
    code = (
        "import sys, marketenvs; "
        "heavy = {'torch', 'jax', 'ray', 'stable_baselines3', 'matplotlib', 'torchrl', 'pandas', 'supersuit'}; "
        "loaded = heavy & set(sys.modules) "
        "| {m for m in sys.modules if m.startswith('marketenvs.shells.') and m != 'marketenvs.shells.registration'} "
        "| {m for m in sys.modules if m.startswith('marketenvs.markets.') and m.endswith('.rules')}; "
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_not_installed_is_named():
    """Without its framework a shell says what to install, and everything else works."""
    code = """
import sys
for name in ("stable_baselines3", "ray", "torchrl", "matplotlib"):
    sys.modules[name] = None
import marketenvs
for shell, extra in (("sb3", "sb3"), ("rllib", "rllib"), ("torchrl", "torchrl")):
    try:
        __import__(f"marketenvs.{shell}")
    except ImportError as error:
        assert f"marketenvs[{extra}]" in str(error), error
    else:
        raise AssertionError(shell)
env = marketenvs.parallel_env("AIBazaar-v0", render_mode="rgb_array")
env.reset(seed=0)
try:
    env.render()
except ImportError as error:
    assert "marketenvs[plot]" in str(error), error
else:
    raise AssertionError("matplotlib")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
