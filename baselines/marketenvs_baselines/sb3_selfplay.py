"""Any Stable-Baselines3 algorithm on every role of a market: alternating self-play with one network per role.

Each role (each stage of a role with several) is a ``MarketVecEnv``: a batch of markets times the agents of the role on
SB3's
environment axis, so all agents of a role share one network. The roles take turns: while one learns for a rollout, the
others play
their latest networks. Rewards are divided by the task's constants. A round of one market counts as one, whoever
learnt from it.

What comes back are :class:`~marketenvs_baselines.network.NetworkPolicy` objects: they play without SB3 or torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter, NotOffered, UnknownName, nearest
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy, Uniform, decide

from .network import Network, NetworkPolicy
from .run import Policies, Report, role_seed


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
    """Models of all stages of a market, trained in turns.

    Args:
        task: A task.
        seed: Seed of networks, exploration and markets.
        algorithm: Name of an SB3 or sb3-contrib class ("PPO", "A2C", "SAC", "TD3", "DDPG", "DQN", "MaskablePPO").
        markets: Markets played side by side.
        rounds: Rounds of each market in one turn.
        settings: Keyword arguments of the SB3 class, or a function of (environment, rounds) that gives them.
        only: The one role that learns, against ``opponents``; None for all roles.
        opponents: Who plays the roles that do not learn, as for ``MarketVecEnv``.
        wander: While a later stage learns, the share of markets in which the stages before it decide uniformly, so
            that buyers meet every price. Elsewhere they draw as trained. Stages after the learning one play their
            means (choices are always drawn): a price is valued by what buyers mean to do.
        fresh: Whether every turn begins new episodes, so that more drawn markets are met (at their first ``rounds``
            rounds); False plays episodes to the horizon.
        anneal: Share of the learning rate that is left at the end of the budget; it falls linearly (SB3's own schedules
            know only one turn). 1 keeps it constant.

    Raises:
        NotOffered: The algorithm cannot play a stage's actions.
    """

    def __init__(
        self,
        task: Any,
        seed: int,
        algorithm: str,
        markets: int = 256,
        rounds: int = 8,
        settings: Mapping[str, Any] | Callable[[Any, int], Mapping[str, Any]] | None = None,
        only: str | None = None,
        opponents: Any = "equilibrium",
        wander: float = 0.25,
        fresh: bool = True,
        anneal: float = 1.0,
    ):
        from marketenvs.sb3 import MarketVecEnv

        for name, value in (("wander", wander), ("anneal", anneal)):
            if not 0 <= value <= 1:
                raise InvalidParameter(f"{name} must lie in [0, 1], got {value!r}")
        cls = sb3_class(algorithm)
        self.market, self.algorithm = task.make_market(), algorithm
        self.markets, self.rounds, self.only, self.wander, self.fresh = markets, rounds, only, wander, fresh
        learned = [s for s in self.market.stages if only in (None, s.role)]
        if not learned:
            raise InvalidParameter(f"{self.market.id} has no role {only!r}")
        self.networks: dict[str, dict[str, Network]] = {role: {} for role in self.market.roles}
        self.wandering: dict[str, float] = {}
        latest = {role: _Latest(nets, self.wandering) for role, nets in self.networks.items()}
        self.models: dict[str, Any] = {}
        for number, stage in enumerate(learned):
            reason = why_not(algorithm, stage)
            if reason is not None:
                raise NotOffered(reason)
            others = {
                r: p
                if only in (None, r)
                else (opponents.get(r, "equilibrium") if isinstance(opponents, Mapping) else opponents)
                for r, p in latest.items()
            }
            env = MarketVecEnv(
                self.market,
                stage.role,
                markets,
                opponents=others,
                stage=stage.name,
                reward_scale=dict(getattr(task, "scale", {})) or None,
                seed=role_seed([seed, number], stage.name) & 0x7FFFFFFF,
            )
            given = settings(env, rounds) if callable(settings) else settings
            self.models[stage.name] = cls("MlpPolicy", env, seed=int(seed) & 0x7FFFFFFF, device="cpu", **(given or {}))
        self.pace, self.anneal = 1.0, anneal
        for stage in learned:
            model = self.models[stage.name]
            model.lr_schedule = self._paced(model.lr_schedule)
            self._export(stage)

    def _paced(self, schedule: Callable[[float], float]) -> Callable[[float], float]:
        return lambda remaining: self.pace * schedule(remaining)

    def _export(self, stage: Stage) -> None:
        self.networks[stage.role][stage.name] = network_of(self.models[stage.name])

    def _set_exploration(self, learning: Stage) -> None:
        """Decide who draws while ``learning`` learns."""
        before = True
        for stage in self.market.stages:
            before = before and stage.name != learning.name
            self.wandering[stage.name] = self.wander if before else 0.0
            network = self.networks[stage.role].get(stage.name)
            if network is not None and network.head in ("box", "squashed"):
                network.stochastic = before

    def learn(self, budget: int, report: Report | None = None) -> None:
        """Play and learn until ``budget`` market rounds are used (at least one turn each)."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # small networks: a second thread costs more than it gives
        try:
            used, turn = 0, self.markets * self.rounds
            stages = [s for s in self.market.stages if s.name in self.models]
            while True:
                self.pace = 1.0 - (1.0 - self.anneal) * min(1.0, used / max(budget, 1))
                for stage in stages:
                    self._turn(stage)
                    used += turn
                    if report is not None:
                        report(min(used, budget), self.policies)
                if used + turn * len(stages) > budget:
                    break
        finally:
            torch.set_num_threads(threads)

    def _turn(self, stage: Stage) -> None:
        model = self.models[stage.name]
        self._set_exploration(stage)
        if self.fresh:
            model._last_obs = None  # SB3 resets its environments when it has no last observation
        masks = {"use_masking": model.env.has_attr("action_masks")} if self.algorithm == "MaskablePPO" else {}
        model.learn(self.rounds * model.n_envs, reset_num_timesteps=False, log_interval=None, **masks)
        self._export(stage)

    def policies(self, stochastic: bool | None = None) -> Policies:
        """The learned roles as policies. By default choices are drawn as trained, continuous actions are their means."""
        out: Policies = {}
        for role, names in self.market.stages_of.items():
            if all(name in self.models for name in names):
                out[role] = NetworkPolicy({n: network_of(self.models[n], stochastic) for n in names})
        return out


def sb3_class(name: str) -> Any:
    """The class of that name in Stable-Baselines3 or sb3-contrib; raises ``NotOffered``."""
    import stable_baselines3

    if hasattr(stable_baselines3, name):
        return getattr(stable_baselines3, name)
    try:
        import sb3_contrib
    except ImportError:
        raise NotOffered(f"{name} is not in stable-baselines3, and sb3-contrib is not installed") from None
    if not hasattr(sb3_contrib, name):
        raise NotOffered(f"neither stable-baselines3 nor sb3-contrib has {name!r}")
    return getattr(sb3_contrib, name)


def why_not(algorithm: str, stage: Stage) -> str | None:
    """Why the algorithm cannot play a stage's actions; None if it can."""
    from gymnasium import spaces

    space = stage.codec.action_space
    if algorithm in ("SAC", "TD3", "DDPG") and not isinstance(space, spaces.Box):
        return f"{algorithm} needs continuous actions; stage {stage.name!r} has {space}"
    if algorithm == "DQN" and not isinstance(space, spaces.Discrete):
        return f"DQN needs one discrete choice; stage {stage.name!r} has {space}"
    if algorithm == "MaskablePPO" and isinstance(space, spaces.Box):
        return f"MaskablePPO needs discrete actions; stage {stage.name!r} has {space}"
    return None


def network_of(model: Any, stochastic: bool | None = None) -> Network:
    """The acting part of an SB3 model as a NumPy network.

    Args:
        model: PPO, A2C, MaskablePPO, SAC, TD3, DDPG or DQN with an MLP policy.
        stochastic: Whether it draws its actions; None: only where they are discrete choices of a stochastic policy.
    """
    from gymnasium import spaces
    from torch import nn

    policy, space = model.policy, model.action_space
    names = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.ELU: "elu", nn.SiLU: "silu"}
    deviation = None
    choices: tuple[int, ...] = ()
    if hasattr(policy, "q_net"):
        body, head = [*policy.q_net.q_net], "greedy"
    elif hasattr(policy, "actor") and hasattr(policy.actor, "latent_pi"):
        body, head = [*policy.actor.latent_pi, policy.actor.mu], "squashed"
    elif hasattr(policy, "actor") and policy.actor is not None:
        body, head = (
            [m for m in policy.actor.mu if not isinstance(m, nn.Tanh) or m is not policy.actor.mu[-1]],
            "squashed",
        )
    else:
        body = [*policy.mlp_extractor.policy_net, policy.action_net]
        head = "box" if isinstance(space, spaces.Box) else "categorical"
        choices = tuple(int(n) for n in getattr(space, "nvec", ()))
        if head == "box":
            deviation = np.exp(policy.log_std.detach().cpu().numpy())
    layers = [m for m in body if isinstance(m, nn.Linear)]
    activation = next((names[type(m)] for m in body if type(m) in names), "tanh")
    weights = [(m.weight.detach().cpu().numpy().copy(), m.bias.detach().cpu().numpy().copy()) for m in layers]
    draws = head == "categorical" if stochastic is None else stochastic
    return Network(weights, head, activation, deviation, choices, draws and head != "greedy")


def train_selfplay(
    algorithm: str,
    defaults: Callable[[Any, int], dict[str, Any]],
    task: Any,
    seed: int,
    budget: int,
    report: Report | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Policies:
    """``train`` of an SB3 algorithm.

    Args:
        algorithm: Name of the SB3 class.
        defaults: Its keyword arguments here, from the environment and the rounds of a turn.
        task: A task.
        seed: Seed.
        budget: Market rounds.
        report: See ``run.Report``.
        settings: Keyword arguments of the SB3 class that replace the defaults, such as ``{"learning_rate": 1e-4}``.
        **options: Those of :class:`SelfPlay`.

    Raises:
        UnknownName: An option or setting that does not exist; the message names the nearest.
    """
    _check_names("SelfPlay", options, SelfPlay.__init__)
    _check_names(algorithm, settings or {}, sb3_class(algorithm).__init__)

    def merged(env: Any, rounds: int) -> dict[str, Any]:
        return {**defaults(env, rounds), **(settings or {})}

    game = SelfPlay(task, seed, algorithm, settings=merged, **options)
    game.learn(budget, report)
    return game.policies()


def _check_names(owner: str, given: Mapping[str, Any], function: Any) -> None:
    reserved = ("self", "task", "seed", "algorithm", "settings", "policy", "env", "device")
    known = [name for name in inspect.signature(function).parameters if name not in reserved]
    for name in given:
        if name not in known:
            raise UnknownName(f"{owner} has no option {name!r}; {nearest(name, known)}")
