"""DQN of Stable-Baselines3 and of RLlib beside ours, on one market: operator 1 splits 13 blocks under the paper's shaped reward.

Same market, network (64, 64), rewards, discount 0, learning rate 0.001 (Adam), batches of 32, exploration from 1 to 0.02 over the first sixth, copies
into the target network every 200 updates. What differs is the library: SB3's DQN is plain; RLlib's has ``dueling`` and ``double_q``, BOTH
on by default, so that they are set in every variant; RLlib collects its experience in eight markets at once. With discount 0 the target
network is not used: Double DQN is DQN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from marketenvs_baselines import ALGORITHMS
from marketenvs_baselines.dqn import Constants, DQNLearner
from marketenvs_baselines.run import play

from marketenvs.market import Market
from marketenvs.policy import Constant

OURS = {
    "DQN": Constants(),
    "Double": Constants(double=True),
    "Dueling": Constants(dueling=True),
    "Double-Dueling": Constants(double=True, dueling=True),
}
RLLIB = {"RLlib DQN": (False, False), "RLlib Double-Dueling": (True, True)}
"""Name -> (dueling, double_q)."""
BIDDER = Constant([100.0])  # alone in the market: any bid wins the whole band


class LowerTask:
    """What trainers need of a task."""

    name, scale = "two-tier-lower", {"bidder": 1.0, "slicer": 1.0}

    def __init__(self, make: Any, budget: int):
        self.make, self.budget = make, budget

    def make_market(self, **overrides: Any) -> Market:
        """The market; nothing is overridden here."""
        return self.make()


def regret(market: Market, policies: Mapping[str, Any], best: float, seed: int, rounds: int = 200) -> float:
    """Mean regret in f of a trained policy that no longer explores (reported ratios are noisy: mean over rounds)."""
    record = play(market, {**policies, "bidder": BIDDER}, rounds, [1000 + seed], keep=["utility"])
    return best - float(record.traces["utility"].mean())


def ours(make: Any, best: float, seeds: Sequence[int], rounds: int, name: str) -> list[float]:
    """One of our DQN family, all seeds at once."""
    learner = DQNLearner(replace(OURS[name], explore_share=min(1000, rounds // 2) / rounds), rounds)
    record = play(make(), {"bidder": BIDDER, "slicer": learner}, rounds, list(seeds))
    pairs = zip(record.policies, seeds, strict=True)
    return [regret(make(), {"slicer": policies["slicer"]}, best, seed) for policies, seed in pairs]


def sb3(make: Any, best: float, seed: int, rounds: int) -> float:
    """SB3's DQN in one market, one gradient step a round."""
    from marketenvs_baselines.network import NetworkPolicy
    from marketenvs_baselines.sb3_networks import network_of
    from stable_baselines3 import DQN

    from marketenvs.sb3 import MarketVecEnv

    env = MarketVecEnv(make(), "slicer", 1, opponents={"bidder": BIDDER}, seed=seed)
    model = DQN("MlpPolicy", env, **sb3_settings(rounds, 1, 1), seed=seed, device="cpu")
    model.learn(rounds)
    return regret(make(), {"slicer": NetworkPolicy({"slicing": network_of(model)})}, best, seed)


def sb3_settings(rounds: int, environments: int, updates: int) -> dict[str, Any]:
    """SB3's names for the constants above: ``updates`` gradient steps after each step of all environments."""
    return {
        "policy_kwargs": {"net_arch": [64, 64]},
        "learning_rate": 1e-3,
        "buffer_size": 50_000,
        "batch_size": 32,
        "gamma": 0.0,
        "train_freq": 1,
        "gradient_steps": updates,
        "learning_starts": 50 * environments,
        "target_update_interval": 200 * environments,
        "exploration_fraction": min(1000, rounds // 2) / rounds,
        "exploration_final_eps": 0.02,
    }


def rllib(make: Any, best: float, seed: int, rounds: int, name: str) -> float:
    """RLlib's DQN with both switches set explicitly."""
    dueling, double = RLLIB[name]
    settings = {
        "dueling": dueling,
        "double_q": double,
        "gamma": 0.0,
        "lr": 1e-3,
        "train_batch_size_per_learner": 32,
        "num_steps_sampled_before_learning_starts": 50,
        "target_network_update_freq": 200,
        "epsilon": [(0, 1.0), (min(1000, rounds // 2), 0.02)],
    }
    train: Any = ALGORITHMS["rllib_dqn"].train
    others = {"markets": 8, "rounds": 1, "only": "slicer", "opponents": {"bidder": BIDDER}, "settings": settings}
    return regret(make(), train(LowerTask(make, rounds), seed, rounds, None, **others), best, seed)
