"""Q-learning in one file: DQN, Double DQN, Dueling DQN, both together, and tables; many seeds at once (torch).

V. Mnih et al., "Human-level control through deep reinforcement learning", Nature 518 (2015); H. van Hasselt, A. Guez,
D. Silver, "Deep reinforcement learning with double Q-learning", AAAI 2016; Z. Wang et al., "Dueling network
architectures for deep reinforcement learning", ICML 2016.

All agents of a role share one network per run; the runs' networks are stacked along a leading axis, so that ten seeds
train in one matrix product. Illegal actions (the stage's mask) are neither explored, nor chosen, nor bootstrapped on.
The learned greedy policy leaves as a plain ``NetworkPolicy``: in a dueling network the largest advantage is the largest
value, so only the advantage stream is kept.

The default discount is 0: rounds of these markets are a one-shot game repeated, and bootstrapping adds noise only (the
two-tier page, fidelity 19). ``PAPER`` holds the constants of the two-tier paper.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from marketenvs.errors import UnknownName, nearest
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy, Transition

from .network import Network, NetworkPolicy
from .registry import Algorithm
from .run import Policies, Report, Streams, play


@dataclass(frozen=True)
class Constants:
    """Everything that can be tuned.

    Args:
        double: Whether the online network picks the action that the target network values.
        dueling: Whether Q = V + A - mean A, with streams of their own.
        discount: gamma.
        learning_rate: Of Adam.
        width: Units of each of the two hidden layers.
        batch: Transitions per update and run.
        memory: Transitions kept per run.
        target_every: Updates between copies into the target network.
        train_every: Rounds between updates.
        warm_up: Rounds before the first update.
        explore_from: First probability of a uniform legal action.
        explore_to: Last one.
        explore_share: Share of the budget over which it falls linearly.
        tabular: A table instead of a network (reproductions only: its policy is not exported).
    """

    double: bool = False
    dueling: bool = False
    discount: float = 0.0
    learning_rate: float = 1e-3
    width: int = 64
    batch: int = 32
    memory: int = 50_000
    target_every: int = 200
    train_every: int = 1
    warm_up: int = 50
    explore_from: float = 1.0
    explore_to: float = 0.02
    explore_share: float = 0.33
    tabular: bool = False


PAPER = {"discount": 0.95, "learning_rate": 0.01, "target_every": 200}


class Stack:
    """Q-networks of R runs: two hidden ReLU layers, weights (R, in, out)."""

    def __init__(self, seeds: Sequence[int], inputs: int, outputs: int, c: Constants):
        import torch

        self.dueling = c.dueling
        heads = {"advantage": outputs, "value": 1} if c.dueling else {"advantage": outputs}
        sizes = [("first", inputs, c.width), ("second", c.width, c.width)]
        sizes += [(name, c.width, size) for name, size in heads.items()]
        self.weights: dict[str, Any] = {}
        for name, fan_in, fan_out in sizes:  # uniform in +-1/sqrt(fan in), each run from its own seed
            parts = []
            for seed in seeds:
                generator = torch.Generator().manual_seed(int(seed) * 7919 + hash_name(name))
                parts.append(2 * torch.rand((fan_in + 1, fan_out), generator=generator) - 1)
            stacked = torch.stack(parts) / fan_in**0.5
            self.weights[name + ".w"] = stacked[:, :-1].clone().requires_grad_()
            self.weights[name + ".b"] = stacked[:, -1:].clone().requires_grad_()

    def __call__(self, x: Any) -> Any:
        """Values (R, m, A) of observations (R, m, d)."""
        x = self._trunk(x)
        q = self._layer("advantage", x)
        return self._layer("value", x) + q - q.mean(-1, keepdim=True) if self.dueling else q

    def of_chosen(self, x: Any, action: Any) -> Any:
        """Values (R, m) of one action each (R, m): the same numbers without the other columns of the last layer."""
        import torch

        x = self._trunk(x)
        weight, bias = self.weights["advantage.w"], self.weights["advantage.b"]
        run = torch.arange(len(weight))[:, None]
        q = (x * weight.transpose(1, 2)[run, action]).sum(-1) + bias[:, 0][run, action]
        if not self.dueling:
            return q
        mean = (x * weight.mean(-1)[:, None]).sum(-1) + bias.mean(-1)
        return self._layer("value", x)[..., 0] + q - mean

    def _layer(self, name: str, x: Any) -> Any:
        import torch

        return torch.baddbmm(self.weights[name + ".b"], x, self.weights[name + ".w"])

    def _trunk(self, x: Any) -> Any:
        import torch

        return torch.relu(self._layer("second", torch.relu(self._layer("first", x))))

    def twin(self) -> Stack:
        """A frozen copy: the target network."""
        other = copy.copy(self)
        other.weights = {k: w.detach().clone() for k, w in self.weights.items()}
        return other

    def copy_from(self, other: Stack) -> None:
        """Take over another stack's weights."""
        for k, w in other.weights.items():
            self.weights[k].copy_(w.detach())

    def export(self, run: int) -> Network:
        """One run's greedy policy."""
        names = ("first", "second", "advantage")
        layers = [
            tuple(
                self.weights[f"{n}.{k}"][run].detach().numpy().T.reshape(shape)
                for k, shape in (("w", (-1, i)), ("b", (-1,)))
            )
            for n, i in ((n, self.weights[f"{n}.w"].shape[1]) for n in names)
        ]
        return Network(layers, "greedy", "relu")  # type: ignore[arg-type]


def hash_name(name: str) -> int:
    """A small number that differs by layer."""
    return sum(ord(c) * (i + 1) for i, c in enumerate(name))


class Memory:
    """A ring of transitions per run."""

    def __init__(self, runs: int, size: int, inputs: int, actions: int, masked: bool):
        self.size, self.next, self.filled = size, 0, 0
        self.obs = np.zeros((runs, size, inputs), np.float32)
        self.next_obs = np.zeros((runs, size, inputs), np.float32)
        self.action = np.zeros((runs, size), np.int64)
        self.reward = np.zeros((runs, size), np.float32)
        self.next_mask = np.ones((runs, size, actions), bool) if masked else None

    def add(self, obs: np.ndarray, action: np.ndarray, reward: np.ndarray, next_obs: np.ndarray) -> np.ndarray:
        """Store n transitions per run; returns where."""
        at = (self.next + np.arange(obs.shape[1])) % self.size
        self.obs[:, at], self.action[:, at], self.reward[:, at], self.next_obs[:, at] = obs, action, reward, next_obs
        self.next = (self.next + obs.shape[1]) % self.size
        self.filled = min(self.filled + obs.shape[1], self.size)
        return at


class Brain:
    """One stage's networks, memory and exploration, for all runs."""

    def __init__(self, stage: Stage, agents: int, seeds: Sequence[int], c: Constants, scale: float):
        import torch

        space: Any = stage.codec.action_space
        self.c, self.scale, self.seeds, self.actions = c, scale, list(seeds), int(space.n)
        self.inputs = int(stage.observation_space.shape[0])
        self.net = Stack(seeds, self.inputs, self.actions, c)
        self.target = self.net.twin()
        self.adam = torch.optim.Adam(list(self.net.weights.values()), lr=c.learning_rate, fused=True)
        self.memory: Memory | None = None
        self.streams = Streams(seeds, "dqn", stage.name)
        self.rounds = self.updates = 0
        self.chosen = np.zeros((len(self.seeds), agents), np.int64)
        self.waiting: np.ndarray | None = None  # rows of the memory whose next mask is still unknown

    def act(self, obs: np.ndarray, mask: np.ndarray | None, explore: float) -> np.ndarray:
        """Epsilon-greedy legal actions (R, n)."""
        import torch

        if self.waiting is not None and mask is not None and self.memory is not None:
            assert self.memory.next_mask is not None
            self.memory.next_mask[:, self.waiting] = mask
        self.waiting = None
        with torch.no_grad():
            q = self.net(torch.as_tensor(obs, dtype=torch.float32)).numpy()
        u = self.streams.uniform(obs.shape[1], 2)
        if mask is None:
            greedy = q.argmax(-1)
            random = (u[..., 1] * self.actions).astype(np.int64)
        else:
            greedy = np.where(mask, q, -np.inf).argmax(-1)
            rank = np.cumsum(mask, -1)
            wanted = (u[..., 1] * rank[..., -1]).astype(np.int64) + 1
            random = (rank >= wanted[..., None]).argmax(-1)
        self.chosen = np.where(u[..., 0] < explore, random, greedy)
        return self.chosen

    def learn(self, t: Transition, masked: bool) -> None:
        """Remember a round and take one step of gradient descent per run."""
        if self.memory is None:
            rows = min(self.c.memory, max(self.c.batch, 2_000_000 // max(self.actions, 1)) if masked else self.c.memory)
            self.memory = Memory(len(self.seeds), rows, self.inputs, self.actions, masked and self.c.discount > 0)
        at = self.memory.add(t.obs, self.chosen, t.reward / self.scale, t.next_obs)
        self.waiting = at if self.memory.next_mask is not None else None
        self.rounds += 1
        if self.rounds > self.c.warm_up and self.rounds % self.c.train_every == 0:
            self._step()

    def _step(self) -> None:
        import torch

        c, memory = self.c, self.memory
        assert memory is not None
        pick = (self.streams.uniform(c.batch) * memory.filled).astype(np.int64)
        rows = np.arange(len(self.seeds))[:, None]
        obs = torch.from_numpy(memory.obs[rows, pick])
        action = torch.from_numpy(memory.action[rows, pick])
        target = torch.from_numpy(memory.reward[rows, pick])
        if c.discount > 0:
            with torch.no_grad():
                after = torch.from_numpy(memory.next_obs[rows, pick])
                value = self.target(after)
                judge = self.net(after) if c.double else value
                if memory.next_mask is not None:
                    judge = judge.masked_fill(~torch.from_numpy(memory.next_mask[rows, pick]), -torch.inf)
                best = judge.argmax(-1, keepdim=True)
                target = target + c.discount * value.gather(-1, best)[..., 0]
        q = self.net.of_chosen(obs, action)
        loss = torch.nn.functional.smooth_l1_loss(q, target, reduction="sum") / c.batch  # runs do not mix
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        self.updates += 1
        if self.updates % c.target_every == 0:
            self.target.copy_from(self.net)


class Table:
    """The tabular counterpart of `Brain`: a row per situation (the observation rounded to 0.1), grown as they are met."""

    def __init__(self, stage: Stage, agents: int, seeds: Sequence[int], c: Constants, scale: float):
        space: Any = stage.codec.action_space
        self.c, self.scale, self.runs, self.agents, self.actions = c, scale, len(seeds), agents, int(space.n)
        self.q = np.zeros((self.runs, 64, self.actions), np.float32)
        self.rows: list[dict[bytes, int]] = [{} for _ in seeds]
        self.streams = Streams(seeds, "table", stage.name)
        self.chosen = np.zeros((self.runs, agents), np.int64)

    def _row(self, obs: np.ndarray) -> np.ndarray:
        keys = np.rint(obs * 10).astype(np.int8)
        out = np.empty(obs.shape[:2], np.int64)
        for r, i in np.ndindex(out.shape):
            out[r, i] = self.rows[r].setdefault(keys[r, i].tobytes(), len(self.rows[r]))
        if out.max() >= self.q.shape[1]:
            more = np.zeros((self.runs, max(self.q.shape[1], int(out.max())), self.actions), np.float32)
            self.q = np.concatenate([self.q, more], axis=1)
        return out

    def act(self, obs: np.ndarray, mask: np.ndarray | None, explore: float) -> np.ndarray:
        """Epsilon-greedy legal actions (R, n)."""
        q = self.q[np.arange(self.runs)[:, None], self._row(obs)]
        legal = np.ones(q.shape, bool) if mask is None else mask
        u = self.streams.uniform(self.agents, 2)
        rank = np.cumsum(legal, -1)
        random = (rank > (u[..., 1] * rank[..., -1]).astype(np.int64)[..., None]).argmax(-1)
        self.chosen = np.where(u[..., 0] < explore, random, np.where(legal, q, -np.inf).argmax(-1))
        return self.chosen

    def learn(self, t: Transition, masked: bool) -> None:
        """Eq. (17) of the two-tier paper for every run and agent."""
        run = np.arange(self.runs)[:, None]
        here, after = self._row(t.obs), self._row(t.next_obs)
        target = t.reward / self.scale + self.c.discount * self.q[run, after].max(-1)
        at = run, here, self.chosen
        self.q[at] += self.c.learning_rate * (target - self.q[at])


class DQNLearner(Policy):
    """A role's deep Q-learner over all its (discrete) stages; ``trained(b)`` is run b's greedy policy."""

    per_seed = True

    def __init__(self, constants: Constants, budget: int, scale: float = 1.0):
        self.constants, self.budget, self.scale = constants, budget, scale

    def start(self, market: Market, role: str, batch: int, seed: Any) -> None:
        super().start(market, role, batch, 0)
        seeds = [int(seed)] * batch if isinstance(seed, (int, np.integer)) else list(seed)
        self.rounds = 0
        self.masked: dict[str, bool] = {}
        kind: Any = Table if self.constants.tabular else Brain
        self.brains = {
            name: kind(market.stage(name), market.roles[role], seeds, self.constants, self.scale)
            for name in market.stages_of[role]
        }

    def explore(self) -> float:
        """The present probability of a uniform action."""
        c = self.constants
        progress = min(1.0, self.rounds / max(1.0, c.explore_share * self.budget))
        return c.explore_from + (c.explore_to - c.explore_from) * progress

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        self.masked[stage.name] = mask is not None
        actions = self.brains[stage.name].act(obs, mask, self.explore())
        low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage.name))
        return stage.codec.decode(np, actions, low, high)

    def update_at(self, stage: Stage, transition: Transition) -> None:
        """Learn from one round of one stage."""
        self.brains[stage.name].learn(transition, self.masked[stage.name])
        if stage.name == next(reversed(self.brains)):
            self.rounds += 1

    def trained(self, run: int) -> Policy:
        """What run ``run`` has learned (the learner itself, for tables)."""
        if self.constants.tabular:
            return self
        return NetworkPolicy({name: brain.net.export(run) for name, brain in self.brains.items()})


def train_many(
    task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, **constants: Any
) -> list[Policies]:
    """Deep Q-learning for all roles, one run per seed, all runs at once.

    Args:
        task: The task (or anything with ``make_market()`` and ``scale``).
        seeds: One seed per run.
        budget: Rounds.
        report: Called now and then.
        **constants: Fields of :class:`Constants`.
    """
    market = task.make_market()
    chosen = Constants(**constants)
    learners = {role: DQNLearner(chosen, budget, task.scale[role]) for role in market.roles}
    return play(market, learners, budget, seeds, report).policies


def single_choice(market: Market, role: str | None = None) -> str | None:
    """None where every stage (of the role) has one discrete choice, else the reason why not."""
    from gymnasium import spaces

    for stage in (s for s in market.stages if role in (None, s.role)):
        if not isinstance(stage.codec.action_space, spaces.Discrete):
            return f"DQN needs one discrete choice; stage {stage.name!r} of {market.id} has {stage.codec.action_space}"
    return None


def check_constants(options: Mapping[str, Any]) -> None:
    """Raise ``UnknownName`` unless every option is a field of :class:`Constants`."""
    known = [f.name for f in fields(Constants)]
    for name in options:
        if name not in known:
            raise UnknownName(f"deep Q-learning has no option {name!r}; {nearest(name, known)}")


def _variant(name: str, title: str, double: bool, dueling: bool, citation: str) -> Algorithm:
    def train(task: Any, seeds: Sequence[int], budget: int, report: Report | None = None, **k: Any) -> list[Policies]:
        return train_many(task, seeds, budget, report, **{"double": double, "dueling": dueling, **k})

    return Algorithm(
        name,
        train_many=train,
        title=title,
        citation=citation,
        quick_budget=6_000,
        actions=("discrete",),
        requires=("torch",),
        can_play=single_choice,
        check=check_constants,
    )


_MNIH = "V. Mnih et al., Human-level control through deep reinforcement learning, Nature 518 (2015)"
_HASSELT = "H. van Hasselt, A. Guez, D. Silver, Deep reinforcement learning with double Q-learning, AAAI 2016"
_WANG = "Z. Wang et al., Dueling network architectures for deep reinforcement learning, ICML 2016"
ALGORITHMS = (
    _variant("dqn", "DQN", False, False, _MNIH),
    _variant("double_dqn", "Double DQN", True, False, _HASSELT),
    _variant("dueling_dqn", "Dueling DQN", False, True, _WANG),
    _variant("double_dueling_dqn", "Double Dueling DQN", True, True, f"{_HASSELT}; {_WANG}"),
)
