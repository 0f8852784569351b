"""DT-MAFL and its rivals on federated slicing: DDPG per slice with federated averaging, independent and central DDPG, and MADQN.

All networks of all seeds are trained together, as one batch of matrix products in PyTorch: group g = (seed, slice). A
scheme differs from another only in what
the groups share:

* ``dt_mafl``: actor and critic averaged over a seed's slices every ``period`` slots (weights: real sample counts;
targets and Adam's moments stay
  local), forecasts from the twin;
* ``federated``: the same without a twin;  ``independent_ddpg``: nothing is shared;
* ``central_ddpg``: one DDPG on all observations, paid the mean reward (an upper reference for learning);
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marketenvs.errors import InvalidParameter
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy, Transition

from .registry import Algorithm
from .run import Policies, Report, Streams, play

Floats = NDArray[np.float64]
MARKET = "FederatedSlicing-v0"
LEVELS = 16
MOST_SLICES = 32


@dataclass(frozen=True)
class Settings:
    """Constants of a scheme.

    Attributes:
        scheme: "federated", "independent", "central" or "dqn".
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
        if self.scheme not in ("federated", "independent", "central", "dqn"):
            raise InvalidParameter(f"unknown scheme {self.scheme!r}; federated, independent, central or dqn")


class Twin:
    """Recursive least squares of log need on its last four values and the time of day; one forecaster per (market, slice).

    Args:
        batch: markets.
        count: slices.
    """

    lags, memory = 4, 0.999

    def __init__(self, batch: int, count: int):
        size = self.lags + 3
        self.weights = np.zeros((batch, count, size))
        self.weights[:, :, 0] = 1.0
        self.inverse = np.broadcast_to(10.0 * np.eye(size), (batch, count, size, size)).copy()
        self.past: Floats | None = None

    def _regressors(self, past: Floats, clock: Floats) -> Floats:
        return np.concatenate([past, clock, np.ones((*past.shape[:2], 1))], axis=2)

    def forecast(self, clock: Floats) -> Floats | None:
        """Exp of the forecast of the log need (B, M); None before the first observation."""
        if self.past is None:
            return None
        value = np.sum(self.weights * self._regressors(self.past, clock), axis=2)
        last = self.past[:, :, 0]
        return np.exp(np.clip(value, last - 1.5, last + 1.5))

    def observe(self, need: Floats, clock: Floats, learn: bool = True) -> None:
        """Learn from the need (B, M) that followed ``clock`` (B, M, 2)."""
        log = np.log(np.maximum(need, 1e-9))
        if self.past is None:
            self.past = np.repeat(log[:, :, None], self.lags, axis=2)
            return
        if learn:
            x = self._regressors(self.past, clock)
            gain = np.einsum("bmij,bmj->bmi", self.inverse, x)
            scale = self.memory + np.sum(gain * x, axis=2, keepdims=True)
            error = log[:, :, None] - np.sum(self.weights * x, axis=2, keepdims=True)
            self.weights = self.weights + gain / scale * error
            shrunk = self.inverse - gain[..., :, None] * gain[..., None, :] / scale[..., None]
            # A forecaster that sees the same thing for long must not forget how sure it is: the matrix is kept bounded.
            self.inverse = np.clip(shrunk / self.memory, -1e3, 1e3)
        self.past = np.concatenate([log[:, :, None], self.past[:, :, :-1]], axis=2)

    def new_episode(self) -> None:
        """Forget the past values, keep what was learned."""
        self.past = None


class SlicePolicy(Policy):
    """Trained networks of the slices, in NumPy: one for all, one per slice, or one for all slices' observations at once.

    Args:
        layers: [(weight (G, in, out), bias (G, 1, out))]; G = 1 (shared or joint) or the number of slices.
        kind: "actor" (tanh head), "values" (largest of ``LEVELS`` values) or "joint" (tanh head of all slices).
        twin: (weights (M, k), inverse (M, k, k)) of a trained twin, or None.
    """

    units = "action"
    tensors = True

    def __init__(self, layers: list[tuple[Floats, Floats]], kind: str, twin: tuple[Floats, Floats] | None = None):
        self.layers, self.kind, self.learned = layers, kind, twin

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        count = market.roles[role]
        if len(self.layers[0][0]) not in (1, count):
            raise InvalidParameter(f"these networks are for {len(self.layers[0][0])} slices, the market has {count}")
        self.twin = None
        if self.learned is not None:
            self.twin = Twin(batch, count)
            self.twin.weights = np.broadcast_to(self.learned[0], self.twin.weights.shape).copy()
            self.twin.inverse = np.broadcast_to(self.learned[1], self.twin.inverse.shape).copy()

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        seen = obs
        if self.twin is not None:
            self.twin = copy.copy(self.twin)
            seen = with_twin(self.twin, obs, learn=False)
        seen = features(seen)
        batch, count, d = seen.shape
        x = seen.reshape(1, batch, count * d) if self.kind == "joint" else seen.transpose(1, 0, 2)
        for i, (weight, bias) in enumerate(self.layers):
            x = x @ weight + bias
            if i + 1 < len(self.layers):
                x = np.maximum(x, 0.0)
        if self.kind == "values":
            return as_action(stage, np.argmax(x, axis=2).T)
        out = np.tanh(x[0]) if self.kind == "joint" else np.tanh(x[..., 0]).T
        return out.reshape(batch, count, 1)

    def act(self, obs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        raise NotImplementedError("SlicePolicy decides in act_at")

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON and arrays, for ``store.save_policy``."""
        arrays = {}
        for i, (weight, bias) in enumerate(self.layers):
            arrays[f"{i}.weight"], arrays[f"{i}.bias"] = np.ascontiguousarray(weight), np.ascontiguousarray(bias)
        if self.learned is not None:
            arrays["twin.weights"], arrays["twin.inverse"] = (np.ascontiguousarray(a) for a in self.learned)
        return {"layers": len(self.layers), "kind": self.kind, "twin": self.learned is not None}, arrays

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> SlicePolicy:
        """The inverse of :meth:`export`."""
        layers = [(arrays[f"{i}.weight"], arrays[f"{i}.bias"]) for i in range(config["layers"])]
        twin = (arrays["twin.weights"], arrays["twin.inverse"]) if config["twin"] else None
        return cls(layers, config["kind"], twin)


def with_twin(twin: Twin, obs: np.ndarray, learn: bool) -> np.ndarray:
    """Observations whose forecast entry (0) comes from the twin; the twin sees the last need (entry 1) first."""
    previous = getattr(twin, "clock", None)
    clock = obs[:, :, 10:12]
    twin.observe(obs[:, :, 1], clock if previous is None else previous, learn)
    twin.clock = clock  # type: ignore[attr-defined]
    value = twin.forecast(clock)
    seen = obs.copy()
    if value is not None:
        seen[:, :, 0] = np.clip(value, 0.0, 10.0)
    return seen


def features(obs: np.ndarray) -> np.ndarray:
    """Network inputs of order 1: needs and grants in fair shares of the pool instead of the whole, requirements around their middle.

    Without it a need is a few hundredths beside entries of 1 to 2.5, and actors saturate before they can tell slices apart.
    """
    count, d = obs.shape[1:]
    if d == 2:
        return np.log1p(obs) / 3.0
    x = np.array(obs)
    x[:, :, [0, 1, 3]] *= count
    x[:, :, 9] -= 2.2
    x[:, :, 12 : 12 + (d - 12) // 2] *= count
    return x


def as_action(stage: Stage, index: np.ndarray) -> np.ndarray:
    """Indices 0..LEVELS-1 (B, n) as actions of the stage: its own indices, or equal steps of [-1, 1]."""
    if stage.codec.discrete:
        return index
    return (-1.0 + 2.0 * index / (LEVELS - 1))[..., None]


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
        self.joint = s.scheme == "central"
        self.groups = batch * (1 if self.joint else self.count)
        self.inputs = d * self.count if self.joint else d
        self.outputs = self.count if self.joint else 1
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
        self.critic = self._network(self.inputs + self.outputs, 1, generators) if s.scheme != "dqn" else []
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
            "reward": np.zeros((self.groups, size), np.float32),
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
        """(B, n, k) as (groups, k)."""
        values = np.asarray(values, np.float32)
        return values.reshape(self.groups, -1)

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        torch, s = self.torch, self.settings
        if self.twin is not None:
            obs = with_twin(self.twin, obs, learn=True)
        self.seen = self._grouped(features(obs))
        with torch.no_grad():
            out = self._run(self.actor, torch.from_numpy(self.seen)[:, None, :])[:, 0].numpy()
        epsilon = max(0.05, 1.0 - self.t / s.explore)
        if s.scheme == "dqn":
            u = self.streams.uniform(self.count, 2)
            greedy = out.argmax(axis=1).reshape(-1, self.count)
            index = np.where(u[..., 0] < epsilon, np.floor(u[..., 1] * self.levels).astype(np.int64), greedy)
            self.played = index.reshape(self.groups, 1).astype(np.float32)
            if stage.codec.discrete:
                return index
            return (-1.0 + 2.0 * index / (self.levels - 1))[..., None]
        u = self.streams.uniform(self.count, 4)
        normal = np.sqrt(-2.0 * np.log(1.0 - u[..., 0])) * np.cos(2 * np.pi * u[..., 1])
        mean = np.tanh(out).reshape(-1, self.count)
        # The paper's noise is on [0, 1]; actions span [-1, 1], twice as much.
        noisy = mean + 2.0 * s.noise * max(0.25, epsilon) * normal
        action = np.where(u[..., 2] < epsilon - 0.05, 2.0 * u[..., 3] - 1.0, np.clip(noisy, -1.0, 1.0))
        self.played = action.reshape(self.groups, -1).astype(np.float32)
        return action[..., None]

    def act(self, obs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        raise NotImplementedError("FederatedLearner decides in act_at")

    def update(self, transition: Transition) -> None:
        """Store the slot, learn every ``every`` slots, average every ``period`` slots."""
        s = self.settings
        reward = transition.reward.mean(axis=1) if self.joint else transition.reward
        following = transition.next_obs
        if self.twin is not None and not transition.end and self.gamma:
            following = with_twin(copy.copy(self.twin), following, learn=False)
        at = self.t % s.buffer
        for name, value in (
            ("obs", self.seen),
            ("action", self.played),
            ("reward", np.asarray(reward, np.float32).reshape(self.groups)),
            ("next", self._grouped(features(following))),
        ):
            self.memory[name][:, at] = value
        self.t += 1
        self.filled = min(self.t, s.buffer)
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
        batch = {
            k: torch.from_numpy(np.take_along_axis(v, rows if v.ndim == 2 else rows[..., None], axis=1))
            for k, v in self.memory.items()
        }
        obs, action, reward, following = batch["obs"], batch["action"], batch["reward"], batch["next"]
        if s.scheme == "dqn":
            with torch.no_grad():
                target = reward
                if self.gamma:
                    best = self._run(self.actor, following).argmax(dim=2, keepdim=True)
                    target = reward + self.gamma * self._run(self.actor_target, following).gather(2, best)[..., 0]
            value = self._run(self.actor, obs).gather(2, action.long())[..., 0]
            loss = ((value - target) ** 2).mean(dim=1).sum()
            self._descend(0, loss)
        else:
            with torch.no_grad():
                target = reward[..., None]
                if self.gamma:
                    answer = torch.tanh(self._run(self.actor_target, following))
                    target = target + self.gamma * self._run(self.critic_target, torch.cat([following, answer], dim=2))
            loss = ((self._run(self.critic, torch.cat([obs, action], dim=2)) - target) ** 2).mean(dim=(1, 2)).sum()
            self._descend(1, loss)
        if s.scheme != "dqn" and self.t > s.patience:
            raw = self._run(self.actor, obs)
            # A saturated head has no gradient left: large pre-activations are discouraged, the known failure of this
            # market's actors.
            value = self._run(self.critic, torch.cat([obs, torch.tanh(raw)], dim=2)).mean(dim=(1, 2)).sum()
            self._descend(0, -value + 1e-3 * (raw**2).mean(dim=(1, 2)).sum())
        self.losses.append(float(loss.detach()) / self.groups)
        with torch.no_grad():
            for net, old in ((self.actor, self.actor_target), (self.critic, self.critic_target)):
                for pair, kept in zip(net, old, strict=True):
                    for p, q in zip(pair, kept, strict=True):
                        q.lerp_(p, s.blend)

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
    learner = FederatedLearner(Settings(**settings))
    return play(task.make_market(), {"slice": learner}, budget, list(seeds), report).policies


def _can_play(**needs: bool) -> Any:
    def check(market: Market) -> str | None:
        p: Any = market.params
        if p.n_slices > MOST_SLICES:
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
        can_play=_can_play(box=box, twin=twin),
    )


ALGORITHMS = (
    _algorithm("dt_mafl", "DT-MAFL (federated DDPG with a twin)", twin=True, scheme="federated"),
    _algorithm("federated_ddpg", "FL (federated DDPG)", scheme="federated"),
    _algorithm("independent_ddpg", "independent DDPG", scheme="independent"),
    _algorithm("central_ddpg", "central DDPG", scheme="central"),
    _algorithm("madqn", "MADQN (independent double DQN)", box=False, scheme="dqn"),
)
