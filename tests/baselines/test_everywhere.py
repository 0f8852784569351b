"""Every algorithm of this package on every market: it plays, or says why not."""

from __future__ import annotations

import numpy as np
import pytest
from marketenvs_baselines import ALGORITHMS, play

import marketenvs

from .tasks import FakeTask

NAMES = (
    "random equilibrium myopic best_constant fictitious_play damped_best_response pb_marl pga_app giga_wolf minimax_q"
)
NAMES += " q_learning genetic sb3_ppo sb3_a2c sb3_sac sb3_td3 sb3_ddpg sb3_dqn sb3_maskableppo"


class Everywhere(FakeTask):
    @property
    def scale(self):
        return {role: 10.0 for role in self.make_market().roles}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES.split())
@pytest.mark.parametrize("id", marketenvs.list_markets())
def test_every_algorithm_plays_every_market_or_says_why_not(id, name):
    algorithm = ALGORITHMS[name]
    for preset in ("default", "grid"):
        if preset not in marketenvs.list_presets(id):
            continue
        task = Everywhere(preset, id=id)
        market = task.make_market()
        reason = algorithm.why_not(market)
        if reason is not None:
            assert id in reason or "needs" in reason
            continue
        options = {"markets": 4, "rounds": 3} if name.startswith("sb3") else {}
        options |= {"markets": 4} if name == "best_constant" else {}
        budget = 2000 if name == "genetic" else 6
        trained = algorithm.train_many or (lambda t, s, b, r, **o: [algorithm.train(t, s[0], b, r, **o)])
        record = play(market, trained(task, [0], budget, None, **options)[0], 2, [0, 1])
        assert all(np.isfinite(p).all() for p in record.payoffs.values())
