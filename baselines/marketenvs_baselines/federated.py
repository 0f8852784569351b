"""DT-MAFL and its rivals on federated slicing: DDPG per slice with federated averaging, independent and central DDPG, and MADQN.

All networks of all seeds are trained together, as one batch of matrix products in PyTorch: group g = (seed, slice). A
scheme differs from another only in what
the groups share:

* ``dt_mafl``: actor and critic averaged over a seed's slices every ``period`` slots (weights: real sample counts;
targets and Adam's moments stay
  local), forecasts from the twin;
* ``federated``: the same without a twin;  ``independent_ddpg``: nothing is shared;
* ``central_ddpg``: one DDPG on all observations that maximises the sum of rewards (an upper reference for welfare, not for
  the equilibrium). Its critic has one output per slice (their sum is the value) and its actor inverts gradients at the
  bounds (Hausknecht & Stone, ICLR 2016): with one mean reward and a plain tanh head 93 % of its actions end at a bound;
* ``shared_ddpg``: one network for all slices, averaged in every step: the limit tau = 1, for crowds of slices;
* ``madqn``: independent double DQN on 16 equal steps of the action, no communication.

One averaged policy serves rate and delay slices, so observations must tell them apart (entries 8 and 9 do). The market
shows no device data, so the twin here is
a recursive AR(4) on the slice's own needs, learned on the way; forecasts from device data enter through
``forecast="external"`` (see `forecasters`).
The paper's learning rate of 0.1 collapses; 5e-4 and 2e-3 are used. gamma = 0 is exact for absolute actions, whose slots are
strategically independent.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marketenvs.errors import InvalidParameter
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy, Transition

from .registry import Algorithm
from .run import Policies, Report, Streams, play
from .slice_networks import LEVELS, SlicePolicy, Twin, features, with_twin

Floats = NDArray[np.float64]
MARKET = "FederatedSlicing-v0"
MOST_SLICES = 32
MOST_KEPT = 32
"""Slices whose transitions a shared network keeps per slot; a crowd takes turns."""
SCHEMES = ("federated", "independent", "central", "shared", "dqn")


@dataclass(frozen=True)
class Settings:
    """Constants of a scheme.

    Attributes:
        scheme: "federated", "independent", "central", "shared" or "dqn".
        twin: replace the forecast shown by the twin's.
        hidden: neurons of the hidden layers (the paper: six layers of 64).
        rate: Adam's step size of the actor.
        critic_rate: Adam's step size of the critic (and of MADQN's values), which has to know the peak before the actor climbs.
        gamma: discount; None: 0 for absolute actions, 0.95 for relative ones.
        buffer: transitions kept per slice.
        batch: transitions per update.
        every: slots between updates.
        blend: nu, share of the online network in its target per update.
        noise: standard deviation of the exploration in [0, 1] of the action.
        explore: slots over which random actions fade out.
        patience: slots before the actor starts to follow its critic (an untrained critic drives it into saturation).
        period: tau, slots between averagings.
    """

    scheme: str = "federated"
    twin: bool = False
    hidden: tuple[int, ...] = (64, 64)
    rate: float = 5e-4
    critic_rate: float = 2e-3
    gamma: float | None = None
    buffer: int = 1_000
    batch: int = 64
    every: int = 1
    blend: float = 0.01
    noise: float = 0.2
    explore: int = 1_200
    patience: int = 800
    period: int = 100

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise InvalidParameter(f"unknown scheme {self.scheme!r}; {', '.join(SCHEMES)}")

    def within(self, budget: int) -> Settings:
        """The same with exploration and patience that fit into short runs: an actor must not wait until the budget is spent."""
        return replace(
            self, explore=max(1, min(self.explore, 3 * budget // 10)), patience=min(self.patience, budget // 5)
        )


class FederatedLearner(Policy):
    """The learner of every scheme; see the module's docstring. All seeds learn at once."""

    per_seed = True
    stochastic = True
    units = "action"

    def __init__(self, settings: Settings):
        self.settings = settings

    def start(self, market: Market, role: str, batch: int, seed: Any) -> None:
        import torch

        super().start(market, role, batch, 0)
        s, self.seeds = self.settings, [int(x) for x in seed]
        self.count = market.roles[role]
        stage = market.stages[0]
        d = int(stage.observation_space.shape[0])
        if s.twin and d < 12:
            raise InvalidParameter("the twin needs observation='own' or 'full'")
        if s.twin and market.params.demand_timing == "revealed":  # type: ignore[attr-defined]
            raise InvalidParameter(
                "with demand_timing='revealed' there is nothing to forecast: choose a scheme without a twin"
            )
        self.joint, self.shared = s.scheme == "central", s.scheme == "shared"
        self.groups = batch * (1 if self.joint or self.shared else self.count)
        self.inputs = d * self.count if self.joint else d
        self.outputs = self.count if self.joint else 1
        self.kept = min(self.count, MOST_KEPT) if self.shared else 1
        self.levels = stage.codec.levels if stage.codec.discrete else LEVELS  # type: ignore[attr-defined]
        self.gamma = s.gamma
        if self.gamma is None:
            self.gamma = 0.95 if market.params.action_mode == "relative" else 0.0  # type: ignore[attr-defined]
        self.streams = Streams(self.seeds, role, "explore")
        self.picks = Streams(self.seeds, role, "replay")
        self.twin = Twin(batch, self.count) if s.twin else None
        self.torch, self.t, self.filled = torch, 0, 0
        torch.set_num_threads(1)
        generators = [torch.Generator().manual_seed(x) for x in self.seeds]
        width = self.levels if s.scheme == "dqn" else self.outputs
        self.actor = self._network(self.inputs, width, generators)
        if s.scheme != "dqn":
            with torch.no_grad():
                # Start near a fair share of the pool instead of in the middle of the request range.
                self.actor[-1][1].add_(0.4 if market.params.action_mode == "absolute" else -0.6)  # type: ignore[attr-defined]
        inputs = self.inputs + self.outputs
        self.critic = self._network(inputs, self.outputs, generators) if s.scheme != "dqn" else []
        self.actor_target = [(w.detach().clone(), b.detach().clone()) for w, b in self.actor]
        self.critic_target = [(w.detach().clone(), b.detach().clone()) for w, b in self.critic]
        rates = (s.critic_rate,) if s.scheme == "dqn" else (s.rate, s.critic_rate)
        nets = [net for net in (self.actor, self.critic) if net]
        self.optimisers = [
            torch.optim.Adam([p for pair in n for p in pair], lr=x) for n, x in zip(nets, rates, strict=True)
        ]
        size = s.buffer
        self.memory = {
            "obs": np.zeros((self.groups, size, self.inputs), np.float32),
            "action": np.zeros((self.groups, size, self.outputs), np.float32),
            "reward": np.zeros((self.groups, size, self.outputs), np.float32),
            "next": np.zeros((self.groups, size, self.inputs), np.float32),
        }
        self.losses: list[float] = []

    def _network(self, inputs: int, outputs: int, generators: list[Any]) -> list[tuple[Any, Any]]:
        """Layers of every group; the slices of a seed start equal (Algorithm 1, line 1)."""
        torch, sizes = self.torch, [inputs, *self.settings.hidden, outputs]
        copies = self.groups // len(self.seeds)
        layers = []
        for i, (a, b) in enumerate(itertools.pairwise(sizes)):
            bound = (1.0 / a) ** 0.5 * (0.1 if i + 2 == len(sizes) else 1.0)
            weight = torch.stack([(torch.rand(a, b, generator=g) * 2 - 1) * bound for g in generators])
            pair = (weight.repeat_interleave(copies, 0), torch.zeros(self.groups, 1, b))
            layers.append(tuple(p.clone().requires_grad_(True) for p in pair))
        return layers

    def _run(self, layers: list[tuple[Any, Any]], x: Any) -> Any:
        for i, (weight, bias) in enumerate(layers):
            x = self.torch.baddbmm(bias, x, weight)
            if i + 1 < len(layers):
                x = self.torch.relu(x)
        return x

    def _grouped(self, values: np.ndarray) -> np.ndarray:
        """(B, n, k) as (groups, rows, k'): a row per slice of a shared network, one row otherwise."""
        values = np.asarray(values, np.float32)
        if self.shared:
            return values
        return values.reshape(self.groups, 1, -1)

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        torch, s = self.torch, self.settings
        if self.twin is not None:
            obs = with_twin(self.twin, obs, learn=True)
        self.seen = self._grouped(features(obs))
        with torch.no_grad():
            out = self._run(self.actor, torch.from_numpy(self.seen)).numpy()
        epsilon = max(0.05, 1.0 - self.t / s.explore)
        if s.scheme == "dqn":
            u = self.streams.uniform(self.count, 2)
            greedy = out.argmax(axis=2).reshape(-1, self.count)
            index = np.where(u[..., 0] < epsilon, np.floor(u[..., 1] * self.levels).astype(np.int64), greedy)
            self.played = self._grouped(index[..., None])
            if stage.codec.discrete:
                return index
            return (-1.0 + 2.0 * index / (self.levels - 1))[..., None]
        u = self.streams.uniform(self.count, 4)
        normal = np.sqrt(-2.0 * np.log(1.0 - u[..., 0])) * np.cos(2 * np.pi * u[..., 1])
        mean = np.tanh(out).reshape(-1, self.count)
        # The paper's noise is on [0, 1]; actions span [-1, 1], twice as much.
        noisy = mean + 2.0 * s.noise * max(0.25, epsilon) * normal
        action = np.where(u[..., 2] < epsilon - 0.05, 2.0 * u[..., 3] - 1.0, np.clip(noisy, -1.0, 1.0))
        self.played = self._grouped(action[..., None])
        return action[..., None]

    def act(self, obs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        raise NotImplementedError("FederatedLearner decides in act_at")

    def update(self, transition: Transition) -> None:
        """Store the slot, learn every ``every`` slots, average every ``period`` slots."""
        s = self.settings
        following = transition.next_obs
        if self.twin is not None and not transition.end and self.gamma:
            following = with_twin(copy.copy(self.twin), following, learn=False)
        turn = self.t * self.kept + np.arange(self.kept)
        at, rows = turn % s.buffer, turn % self.count if self.shared else np.zeros(1, np.int64)
        for name, value in (
            ("obs", self.seen),
            ("action", self.played),
            ("reward", self._grouped(transition.reward[..., None])),
            ("next", self._grouped(features(following))),
        ):
            self.memory[name][:, at] = value[:, rows]
        self.t += 1
        self.filled = min(self.t * self.kept, s.buffer)
        if transition.end and self.twin is not None:
            self.twin.new_episode()
            self.twin.clock = None  # type: ignore[attr-defined]
        if self.filled >= s.batch and self.t % s.every == 0:
            self._learn()
        if s.scheme == "federated" and self.t % s.period == 0:
            self.average()

    def _learn(self) -> None:
        torch, s = self.torch, self.settings
        pick = np.floor(self.picks.uniform(s.batch) * self.filled).astype(np.int64)
        rows = np.repeat(pick, self.groups // len(self.seeds), axis=0)
        batch = {k: torch.from_numpy(np.take_along_axis(v, rows[..., None], axis=1)) for k, v in self.memory.items()}
        obs, action, reward, following = batch["obs"], batch["action"], batch["reward"], batch["next"]
        if s.scheme == "dqn":
            with torch.no_grad():
                target = reward[..., 0]
                if self.gamma:
                    best = self._run(self.actor, following).argmax(dim=2, keepdim=True)
                    target = target + self.gamma * self._run(self.actor_target, following).gather(2, best)[..., 0]
            value = self._run(self.actor, obs).gather(2, action.long())[..., 0]
            loss = ((value - target) ** 2).mean(dim=1).sum()
            self._descend(0, loss)
        else:
            with torch.no_grad():
                target = reward
                if self.gamma:
                    answer = torch.tanh(self._run(self.actor_target, following))
                    target = target + self.gamma * self._run(self.critic_target, torch.cat([following, answer], dim=2))
            loss = ((self._run(self.critic, torch.cat([obs, action], dim=2)) - target) ** 2).mean(dim=(1, 2)).sum()
            self._descend(1, loss)
        if s.scheme != "dqn" and self.t > s.patience:
            self._climb(obs)
        self.losses.append(float(loss.detach()) / self.groups)
        with torch.no_grad():
            for net, old in ((self.actor, self.actor_target), (self.critic, self.critic_target)):
                for pair, kept in zip(net, old, strict=True):
                    for p, q in zip(pair, kept, strict=True):
                        q.lerp_(p, s.blend)

    def _climb(self, obs: Any) -> None:
        """One step of the actors up their critics."""
        torch = self.torch
        raw = self._run(self.actor, obs)
        if not self.joint:
            # A saturated head has no gradient left: large pre-activations are discouraged, the known failure of this
            # market's actors.
            value = self._run(self.critic, torch.cat([obs, torch.tanh(raw)], dim=2)).mean(dim=(1, 2)).sum()
            self._descend(0, -value + 1e-3 * (raw**2).mean(dim=(1, 2)).sum())
            return
        action = torch.tanh(raw).detach().requires_grad_(True)
        value = self._run(self.critic, torch.cat([obs, action], dim=2)).sum(dim=2).mean(dim=1).sum()
        (slope,) = torch.autograd.grad(value, action)
        # Inverted gradients: steps shrink towards the bound ahead and stay whole on the way back.
        room = torch.where(slope > 0, 1.0 - action, 1.0 + action).detach() / 2.0
        self._descend(0, -(raw * slope * room).sum())

    def _descend(self, which: int, loss: Any) -> None:
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[which].step()

    def average(self) -> None:
        """Federated averaging over the slices of each seed (equation 19), weighted by the transitions each has."""
        counts = np.full((len(self.seeds), self.count), float(self.filled))
        share = self.torch.from_numpy((counts / counts.sum(axis=1, keepdims=True)).astype(np.float32))
        with self.torch.no_grad():
            for layers in (self.actor, self.critic):
                for pair in layers:
                    for p in pair:
                        grouped = p.view(len(self.seeds), self.count, *p.shape[1:])
                        mean = (grouped * share.view(*share.shape, 1, 1)).sum(dim=1, keepdim=True)
                        grouped.copy_(mean.expand_as(grouped))

    def trained(self, b: int) -> SlicePolicy:
        """Run b's policy, frozen: the averaged network, one per slice, or the joint one."""
        per = self.groups // len(self.seeds)
        layers = []
        for pair in self.actor:
            own = [p.detach().numpy()[b * per : (b + 1) * per] for p in pair]
            if self.settings.scheme == "federated":
                own = [p.mean(axis=0, keepdims=True) for p in own]
            layers.append(tuple(np.array(p, np.float32) for p in own))
        kind = {"central": "joint", "dqn": "values"}.get(self.settings.scheme, "actor")
        twin = None if self.twin is None else (self.twin.weights[b].copy(), self.twin.inverse[b].copy())
        return SlicePolicy(layers, kind, twin)  # type: ignore[arg-type]


def train_many(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, **settings: Any
) -> list[Policies]:
    """Train a scheme on a task's market, all seeds at once; ``settings`` are those of :class:`Settings`."""
    learner = FederatedLearner(Settings(**settings).within(budget))
    return play(task.make_market(), {"slice": learner}, budget, list(seeds), report).policies


def _can_play(**needs: bool) -> Any:
    def check(market: Market) -> str | None:
        p: Any = market.params
        if p.n_slices > MOST_SLICES and not needs.get("shared"):
            return f"one network per slice and seed: up to {MOST_SLICES} slices"
        if needs.get("box") and market.stages[0].codec.discrete:
            return "DDPG needs continuous requests"
        if needs.get("twin") and (p.demand_timing == "revealed" or p.observation == "paper"):
            return "a twin needs lagged demand and observation 'own' or 'full'"
        return None

    return check


def _algorithm(name: str, title: str, box: bool = True, twin: bool = False, **settings: Any) -> Algorithm:
    def train(task: Any, seeds: Sequence[int], budget: int, report: Report | None = None) -> list[Policies]:
        return train_many(task, seeds, budget, report, twin=twin, **settings)

    return Algorithm(
        name,
        train_many=train,
        title=title,
        citation="D. Ayepah-Mensah et al., Adaptive Digital Twin and Communication-Efficient Federated Learning Network Slicing",
        quick_budget=6_000,
        markets=(MARKET,),
        requires=("torch",),
        can_play=_can_play(box=box, twin=twin, shared=settings["scheme"] == "shared"),
    )


ALGORITHMS = (
    _algorithm("dt_mafl", "DT-MAFL (federated DDPG with a twin)", twin=True, scheme="federated"),
    _algorithm("federated_ddpg", "FL (federated DDPG)", scheme="federated"),
    _algorithm("independent_ddpg", "independent DDPG", scheme="independent"),
    _algorithm("central_ddpg", "central DDPG", scheme="central"),
    _algorithm("shared_ddpg", "shared DDPG (averaged every step)", scheme="shared", buffer=20_000),
    _algorithm("madqn", "MADQN (independent double DQN)", box=False, scheme="dqn"),
)
