"""The TorchRL shell."""

from __future__ import annotations

import numpy as np
import pytest

import marketenvs
from marketenvs import InvalidAction, InvalidParameter, NotOffered

from .cases import HORIZON, same, sample
from .toy import MaskedToy, Toy, ToyParams

pytest.importorskip("torchrl", reason="needs marketenvs[torchrl]")
import torch
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from marketenvs.torchrl import MarketTorchEnv

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = [
    (id, preset)
    for id in marketenvs.list_markets()
    for preset in (marketenvs.list_presets(id)[0], "grid")
    if preset in marketenvs.list_presets(id)
]


@pytest.mark.parametrize(("id", "preset"), IDS)
def test_framework_check(id, preset):
    check_env_specs(MarketTorchEnv(id, 3, preset=preset, horizon=2, seed=0))


@pytest.mark.parametrize("toy", [Toy, MaskedToy])
def test_masks_and_roles_with_several_stages(toy):
    market = toy(ToyParams(horizon=2), backend="torch", dtype="float32")
    env = MarketTorchEnv(market, 3, seed=0)
    check_env_specs(env)
    env.set_seed(0)
    data = env.reset()
    if toy is MaskedToy:
        assert data["seller", "action_mask"][0, 0].tolist() == [True, True, False, True, True, True, False]
        return
    assert data["buyer", "action_mask_join"][0].tolist() == [[False, True, True], [True] * 3, [True] * 3]
    actions = env.rand_action(data)
    actions["buyer", "action_join"] = torch.tensor([[0, 1, 2]] * 3)
    data = env.step(actions)["next"]
    assert data["seller", "mask"].all()
    assert not data["buyer", "mask"].any()
    data = env.step(env.rand_action(data))["next"]
    assert data["buyer", "mask"].tolist() == [[False, True, True]] * 3


@pytest.mark.parametrize(("id", "preset"), IDS)
def test_the_same_game_as_the_parallel_environment(id, preset):
    """Market by market: the same observations, masks and rewards, in float64 to the last digits that float32 keeps."""
    batch = 2
    env = MarketTorchEnv(id, batch, dtype="float64", preset=preset, horizon=HORIZON, seed=6)
    singles = [marketenvs.parallel_env(id, preset=preset, horizon=HORIZON) for _ in range(batch)]
    now = [s.reset(seed=6 + i) for i, s in enumerate(singles)]
    rng = np.random.default_rng(0)
    data = env.reset()
    for step in range(HORIZON * len(env.market.stages)):
        for i, single in enumerate(singles):
            for role, names in single.table.names.items():
                if (
                    len(single.table.stages_of[role]) > 1
                    or single.table.game.masked[single.table.stages_of[role][0].name]
                ):
                    continue
                want = np.stack([now[i][0][a] for a in names])
                np.testing.assert_allclose(data[role, "observation"][i].numpy(), want, rtol=1e-5, atol=1e-6)
                acting = [now[i][-1][a]["acting"] for a in names]
                assert data[role, "mask"][i].tolist() == acting
        stage = env.stage
        actions = [sample(s, n[0], n[-1], rng) for s, n in zip(singles, now, strict=True)]
        names = singles[0].table.names[stage.role]
        several = len(env.stages_of[stage.role]) > 1
        rows = [[a[x][stage.name] if several else a[x] for x in names] for a in actions]
        chosen = env.rand_action(data)
        chosen.set(env.action_key(stage), torch.as_tensor(np.asarray(rows)))
        data = env.step(chosen)["next"]
        now = [s.step(a) for s, a in zip(singles, actions, strict=True)]
        for i, out in enumerate(now):
            for role, own in singles[i].table.names.items():
                np.testing.assert_allclose(
                    data[role, "reward"][i, :, 0].numpy(), [out[1][a] for a in own], rtol=1e-5, atol=1e-5
                )
        assert bool(data["truncated"].all()) == (step == HORIZON * len(env.market.stages) - 1)
        assert not data["terminated"].any()
        assert same(data["done"].numpy(), data["truncated"].numpy())


def test_rollouts_go_through_episodes():
    env = MarketTorchEnv("AIBazaar-v0", 4, n_consumers=3, horizon=2, seed=0, reward_scale={"provider": 1e3})
    data = env.rollout(9, break_when_any_done=False)
    assert data.batch_size == (4, 9)
    assert data["next", "done"][0, :, 0].tolist() == [(k % 4) == 3 for k in range(9)]
    assert data["next", "provider", "reward"].abs().max() < 10
    env.set_seed(0)
    again = env.reset()
    np.testing.assert_array_equal(again["provider", "observation"], data["provider", "observation"][:, 0])


def test_bad_input():
    env = MarketTorchEnv("AIBazaar-v0", 2, n_consumers=2, horizon=2, seed=0)
    data = env.rand_action(env.reset())
    data["provider", "action"][1] = float("nan")
    with pytest.raises(InvalidAction, match="pricing"):
        env.step(data)
    with pytest.raises(NotOffered, match="together"):
        env.reset(TensorDict({"_reset": torch.tensor([[True], [False]])}, batch_size=[2]))
    with pytest.raises(InvalidParameter, match="torch"):
        MarketTorchEnv(marketenvs.make("AIBazaar-v0"), 2)
    with pytest.raises(InvalidParameter, match="positive"):
        MarketTorchEnv("AIBazaar-v0", 0)
    with pytest.raises(InvalidParameter, match="2 markets"):
        MarketTorchEnv("AIBazaar-v0", 3, unit_cost=[1.0, 2.0])
