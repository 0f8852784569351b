"""Any Stable-Baselines3 algorithm on every role of a market: self-play with one network per role.

Each role (each stage of a role with several) is a ``MarketVecEnv``: a batch of markets times the agents of the role on
SB3's environment axis, so all agents of a role share one network. Rewards are divided by the task's constants.

- ``schedule="alternating"``: the roles take turns; while one learns for some rounds, the others play their latest
  networks. A round of one market counts as one, whoever learnt from it.
- ``schedule="simultaneous"``: all roles learn from the same rounds, against each other's exploring selves.

What comes back are :class:`~marketenvs_baselines.network.NetworkPolicy` objects: they play without SB3 or torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter, NotOffered, UnknownName, nearest
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy, Uniform, decide

from .network import Network, NetworkPolicy
from .run import Policies, Report, role_seed
from .sb3_networks import load_model, network_of, save_model, sb3_class, why_not
from .sb3_options import SCHEDULES

__all__ = ["SelfPlay", "network_of", "passes_of", "sb3_class", "why_not"]


class _Latest(Policy):
    """Plays a role's latest networks, whatever they have become; uniform at stages that have none yet.

    In a share of the markets, drawn anew every round, it decides uniformly: later stages then learn to answer
    everything.
    Environments copy their opponents shallowly, so all copies read the same ``networks`` and ``wander``.
    """

    stochastic = True

    def __init__(self, networks: dict[str, Network], wander: dict[str, float]):
        self.networks, self.wander = networks, wander

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.rng = np.random.default_rng(seed)
        self.uniform = Uniform()
        self.uniform.start(market, role, batch, seed)

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        share = self.wander.get(stage.name, 0.0) if stage.name in self.networks else 1.0
        anywhere = self.uniform.act_at(stage, obs, mask, state) if share > 0 else np.zeros(1)
        if share >= 1.0:
            return anywhere
        player = NetworkPolicy({stage.name: self.networks[stage.name]})
        player.market, player.rng = self.market, self.rng
        meant = decide(player, self.market, stage, obs, mask, state)
        if share == 0:
            return meant
        return np.where(self.rng.random((len(obs), 1, 1)) < share, anywhere, meant)


class SelfPlay:
    """Models of all stages of a market, trained in turns or together.

    Args:
        task: A task.
        seed: Seed of networks, exploration and markets.
        algorithm: Name of an SB3 or sb3-contrib class ("PPO", "A2C", "SAC", "TD3", "DDPG", "DQN", "MaskablePPO").
        markets: Markets played side by side.
        rounds: Rounds of each market in one turn.
        settings: Keyword arguments of the SB3 class, or a function of (environment, rounds) that gives them.
        only: The one role that learns, against ``opponents``; None for all roles.
        opponents: Who plays the roles that do not learn, as for ``MarketVecEnv``.
        schedule: "alternating" or "simultaneous", as the module says.
        wander: While a later stage learns in its turn, the share of markets in which the stages before it decide
            uniformly, so that buyers meet every price. Elsewhere they draw as trained. Stages after the learning one
            play their means (choices are always drawn): a price is valued by what buyers mean to do.
        fresh: Whether every turn begins new episodes, so that more drawn markets are met (at their first ``rounds``
            rounds); False plays episodes to the horizon (alternating only).
        anneal: Share of the learning rate that is left at the end of the budget; it falls linearly (SB3's own schedules
            know only one turn). 1 keeps it constant.
        normalize: Whether observations and rewards go through ``VecNormalize`` (or its keyword arguments); its
            statistics become part of the policies.

    Raises:
        NotOffered: The algorithm cannot play a stage's actions.
        UnknownName: A schedule that does not exist.
        InvalidParameter: A value out of range, or no such role.
    """

    def __init__(
        self,
        task: Any,
        seed: int,
        algorithm: str,
        markets: int = 64,
        rounds: int = 8,
        settings: Mapping[str, Any] | Callable[[Any, int], Mapping[str, Any]] | None = None,
        only: str | None = None,
        opponents: Any = "equilibrium",
        schedule: str = "alternating",
        wander: float = 0.25,
        fresh: bool = True,
        anneal: float = 1.0,
        normalize: bool | Mapping[str, Any] | None = None,
    ):
        for name, value in (("wander", wander), ("anneal", anneal)):
            if not 0 <= value <= 1:
                raise InvalidParameter(f"{name} must lie in [0, 1], got {value!r}")
        if schedule not in SCHEDULES:
            raise UnknownName(f"unknown schedule {schedule!r}; {nearest(schedule, SCHEDULES)}")
        self.together = schedule == "simultaneous"
        if self.together and not fresh:
            raise InvalidParameter("schedule='simultaneous' begins new episodes in every turn: leave fresh=True")
        self.market, self.algorithm = task.make_market(), algorithm
        self.markets, self.rounds, self.only, self.wander, self.fresh = markets, rounds, only, wander, fresh
        self.stages = [s for s in self.market.stages if only in (None, s.role)]
        if not self.stages:
            raise InvalidParameter(f"{self.market.id} has no role {only!r}")
        reason = next((r for r in (why_not(algorithm, stage) for stage in self.stages) if r), None)
        if reason is not None:
            raise NotOffered(reason)
        self.networks: dict[str, dict[str, Network]] = {role: {} for role in self.market.roles}
        self.wandering: dict[str, float] = {}
        self.models: dict[str, Any] = {}
        from stable_baselines3.common.logger import Logger

        self.progress, self.anneal = 0.0, anneal
        scale = dict(getattr(task, "scale", {})) or None
        for name, env in self._environments(self._cast(opponents), scale).items():
            given = dict((settings(env, rounds) if callable(settings) else settings) or {})
            if normalize:
                from stable_baselines3.common.vec_env import VecNormalize

                more = {"gamma": given.get("gamma", 0.99)} | (dict(normalize) if isinstance(normalize, Mapping) else {})
                env = VecNormalize(env, **more)
            model = sb3_class(algorithm)("MlpPolicy", env, seed=int(seed) & 0x7FFFFFFF, device="cpu", **given)
            if model.tensorboard_log is None and model.verbose == 0:
                model.set_logger(Logger(None, []))  # SB3's own would leave an empty folder in /tmp for every turn
            self._follow_progress(model)
            self.models[name] = model
        self.seed(seed)
        for stage in self.stages:
            self._export(stage)

    def _cast(self, opponents: Any) -> dict[str, Any]:
        """Role -> who plays it while others learn."""
        latest = {role: _Latest(nets, self.wandering) for role, nets in self.networks.items()}
        given = opponents if isinstance(opponents, Mapping) else dict.fromkeys(latest, opponents)
        return {r: p if self.only in (None, r) else given.get(r, "equilibrium") for r, p in latest.items()}

    def _environments(self, cast: Mapping[str, Any], scale: Mapping[str, float] | None) -> dict[str, Any]:
        from marketenvs.sb3 import MarketVecEnv, SharedMarkets
        from marketenvs.shells.opponents import policy_of

        if self.together:
            policies = {role: policy_of(self.market, role, value) for role, value in cast.items()}
            self.table = SharedMarkets(self.market, self.markets, [s.name for s in self.stages], policies, scale)
            return dict(self.table.environments)
        return {
            s.name: MarketVecEnv(
                self.market, s.role, self.markets, opponents=cast, stage=s.name, reward_scale=scale, seed=0
            )
            for s in self.stages
        }

    def _follow_progress(self, model: Any) -> None:
        """Learning rate and DQN's exploration follow the whole budget; SB3 knows only one turn."""
        rate = model.lr_schedule
        model.lr_schedule = lambda remaining: rate(remaining) * (1.0 - (1.0 - self.anneal) * self.progress)
        if hasattr(model, "exploration_schedule"):
            exploration = model.exploration_schedule
            model.exploration_schedule = lambda remaining: exploration(1.0 - self.progress)

    def seed(self, seed: int) -> None:
        """Seed everything random from here on: exploration, minibatches and which markets are met."""
        from stable_baselines3.common.utils import set_random_seed

        set_random_seed(int(seed) & 0x7FFFFFFF)
        if self.together:
            self.table.seed(role_seed([seed], "markets") & 0x7FFFFFFF)
        for name, model in self.models.items():
            model.action_space.seed(role_seed([seed], f"{name} actions") & 0x7FFFFFFF)
            model.env.seed(role_seed([seed], name) & 0x7FFFFFFF)

    def _export(self, stage: Stage) -> None:
        self.networks[stage.role][stage.name] = network_of(self.models[stage.name])

    def _set_exploration(self, learning: Stage | None) -> None:
        """Decide who draws while ``learning`` learns (None: all learn together, nobody stands in for long)."""
        before = True
        for stage in self.market.stages:
            before = before and learning is not None and stage.name != learning.name
            self.wandering[stage.name] = self.wander if before else 0.0
            network = self.networks[stage.role].get(stage.name)
            if network is not None and network.head in ("box", "squashed"):
                network.stochastic = before or learning is None

    @property
    def cost(self) -> int:
        """Market rounds of one pass: a turn of every stage."""
        return self.markets * self.rounds * (1 if self.together else len(self.stages))

    def learn(
        self,
        budget: int,
        report: Report | None = None,
        passes: tuple[int, int] | None = None,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        """Play and learn until ``budget`` market rounds are used (at least one turn each).

        Args:
            budget: Market rounds of the whole run.
            report: Called after every turn.
            passes: First and last pass (a turn of every stage) to do; default: all.
            watch: Called with the rounds used, after every pass.
        """
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # small networks: a second thread costs more than it gives
        first, last = passes or (0, passes_of(budget, self.cost))
        try:
            for number in range(first, last):
                used = number * self.cost
                self.progress = min(1.0, used / max(budget, 1))
                turns: list[list[Stage]] = [self.stages] if self.together else [[s] for s in self.stages]
                for turn in turns:
                    self._together() if self.together else self._turn(turn[0])
                    used += self.cost // len(turns)
                    if report is not None:
                        report(min(used, budget), self.policies)
                if watch is not None:
                    watch(used)
        finally:
            torch.set_num_threads(threads)

    def _turn(self, stage: Stage) -> None:
        self._set_exploration(stage)
        self._learn(stage, self.fresh)
        self._export(stage)

    def _together(self) -> None:
        import torch

        def steps(stage: Stage) -> None:
            torch.set_num_threads(1)  # every thread has its own setting
            self._learn(stage, True)

        self._set_exploration(None)
        self.table.play({s.name: functools.partial(steps, s) for s in self.stages})
        for stage in self.stages:
            self._export(stage)

    def _learn(self, stage: Stage, fresh: bool) -> None:
        model = self.models[stage.name]
        if fresh:
            model._last_obs = None  # SB3 resets its environments when it has no last observation
        if hasattr(model, "exploration_schedule"):
            model.exploration_rate = model.exploration_schedule(1.0)
        masks = {"use_masking": model.env.has_attr("action_masks")} if self.algorithm == "MaskablePPO" else {}
        model.learn(self.rounds * model.n_envs, reset_num_timesteps=False, log_interval=None, **masks)

    def policies(self, stochastic: bool | None = None) -> Policies:
        """The learned roles as policies. By default choices are drawn as trained, continuous actions are their means."""
        out: Policies = {}
        for role, names in self.market.stages_of.items():
            if all(name in self.models for name in names):
                out[role] = NetworkPolicy({n: network_of(self.models[n], stochastic) for n in names})
        return out

    def save(self, folder: Path) -> None:
        """Everything that decides how training goes on, but for the random streams."""
        for name, model in self.models.items():
            save_model(model, folder, name)

    def load(self, folder: Path) -> None:
        """The inverse of :meth:`save`, for the same market and options."""
        for name, model in self.models.items():
            load_model(model, folder, name)
        for stage in self.stages:
            self._export(stage)


def passes_of(budget: int, cost: int) -> int:
    """Whole passes in a budget, at least one."""
    return max(1, budget // cost)
