"""Stackelberg MADDPG (CoST-MADDPG, ST-MADDPG) and single-agent DDPG for markets with a price stage and a purchase stage.

The learner of the coalition-trading paper, corrected where its text is not an algorithm (fidelity note F19):

- critics are centralised: Q_i(s, a) sees all observations and all actions;
- "StackelbergQ" is the only thing it can be: a' in the target y_i = r_i + gamma Q'_i(s', a') comes from ALL target
  actors in stage order, the leaders' target prices entering the followers' observations;
- a leader's policy gradient lets the followers' actors answer its new price (their weights held fixed): with
  purchases from the buffer the highest price would always look best;
- everybody is paid for this round's trade; rewards are divided by the task's scale.

CoST-MADDPG is this learner on a market whose buyers form coalitions (``formation="grand"`` or ``"merge"``), ST-MADDPG
on ``formation="singletons"``: the market decides, not the learner. Where buyers name their coalition (``"labels"``) they follow
CoST's rule and join the grand coalition. SA-DDPG is the same code with one agent for all
sellers (``owner="sellers"``: followers best-respond) or for everybody (``owner="system"``: one reward, the sum).
All runs (seeds) train at once: their networks are stacked and multiplied in batches.

R. Lowe et al., Multi-agent actor-critic for mixed cooperative-competitive environments, NeurIPS 2017; T. P. Lillicrap
et al., Continuous control with deep reinforcement learning, ICLR 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter, NotOffered
from marketenvs.market import Market, Stage, State
from marketenvs.policy import EquilibriumPolicy, Policy

from . import snapshot
from .arrangement import in_segments, part_of
from .registry import Algorithm
from .run import Policies, Report, episode_seeds, ticks

PRICES: dict[str, Callable[[Market], int]] = {
    "CoalitionTrading-v0": lambda market: market.roles["seller"],
    "AIBazaar-v0": lambda market: 1,
}
"""Market -> how many posted prices, scaled to [0, 1], a follower's observation starts with."""


@dataclass(frozen=True)
class Config:
    """Constants; the paper's where it gives them.

    Args:
        discount: gamma.
        learning_rate: Adam's, for actors and critics.
        batch: transitions per update.
        memory: transitions kept.
        hidden: units of both hidden layers (ReLU; tanh on the actors' output).
        soft: share of the target networks replaced per update (the paper's 0.001 is its learning rate).
        noise: first and last standard deviation of the Gaussian exploration, in actions of [-1, 1].
        warmup: rounds of uniform play before the first update.
        train_every: rounds per update.
        restraint: penalty on the squared outputs of the actors before their tanh (1e-3 as in the code of Lowe et al.). Without it
            the first hundred updates drive the outputs so far out that tanh is flat in float32 and the actor never moves again.
        heads: whether the served coalition has one head actor that asks for all members (each asks its equal part), or every
            member an actor of its own. Members' requests add up and are cut at capacity: where the others ask for all there is,
            a member's own request changes nothing, and actors of their own stay there, buying everything at any price.
    """

    discount: float = 0.9
    learning_rate: float = 1e-3
    batch: int = 128
    memory: int = 100_000
    hidden: int = 128
    soft: float = 0.005
    noise: tuple[float, float] = (0.3, 0.05)
    warmup: int = 256
    train_every: int = 1
    restraint: float = 1e-3
    heads: bool = True


class Actors(Policy):
    """Deterministic actors of one role, in NumPy: what training leaves behind.

    Args:
        layers: weights (m, in, out) and biases (m, 1, out) of m networks: one per agent, or one for all (joint).
        joint: whether one network reads all agents' observations and decides for all.
        head: whether one network reads all observations and names one request, of which every served member asks its equal part.
    """

    tensors = True
    units = "action"

    def __init__(self, layers: Sequence[tuple[np.ndarray, np.ndarray]], joint: bool = False, head: bool = False):
        self.head = head
        self.layers = [(np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in layers]
        self.joint = joint
        if not all(np.isfinite(w).all() and np.isfinite(b).all() for w, b in self.layers):
            raise InvalidParameter("the actors have NaN or infinite weights: training diverged")

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        n, d = market.roles[role], int(market.stage(market.stages_of[role][-1]).observation_space.shape[0])
        want = (1, n * d) if self.joint or self.head else (n, d)
        if self.layers[0][0].shape[:2] != want:
            raise NotOffered(
                f"these actors read {self.layers[0][0].shape[:2]} (networks, numbers), not {want} of {role}"
            )

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        b, n, d = obs.shape
        if stage.name == "coalition":  # CoST's formation rule: everybody joins the grand coalition
            return np.zeros((b, n), dtype=np.int64)
        x = np.asarray(obs, np.float32)
        x = x.reshape(b, 1, n * d) if self.joint or self.head else x
        x = np.swapaxes(x, 0, 1)
        for w, bias in self.layers[:-1]:
            x = np.maximum(x @ w + bias, 0.0)
        w, bias = self.layers[-1]
        unit = np.swapaxes(np.tanh(x @ w + bias), 0, 1)
        unit = (unit + 1.0) * members(self.market, obs) - 1.0 if self.head else unit.reshape(b, n, -1)
        if not stage.codec.discrete:
            return unit
        # A grid: the nearest level (the networks were trained on what the market made of their actions).
        low, high = (
            np.broadcast_to(self.market.backend.numpy(x), unit.shape) for x in self.market.bounds(state, stage.name)
        )
        return stage.codec.encode(np, low + (high - low) * (unit + 1.0) / 2.0, low, high)

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON and arrays, for ``store.save_policy``."""
        arrays = {f"{i}.{name}": x for i, pair in enumerate(self.layers) for name, x in zip("wb", pair, strict=True)}
        return {"layers": len(self.layers), "joint": self.joint, "head": self.head}, arrays

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Actors:
        """The inverse of :meth:`export`."""
        return cls(
            [(arrays[f"{i}.w"], arrays[f"{i}.b"]) for i in range(config["layers"])], config["joint"], config["head"]
        )


def members(market: Market, obs: np.ndarray) -> np.ndarray:
    """Part of the coalition's request that every buyer asks for, (B, n, 1): equal among those served."""
    n, params = obs.shape[1], market.params
    if getattr(params, "observation", "full") == "paper":  # only prices are seen: nobody knows who is served
        return np.full((*obs.shape[:2], 1), 1.0 / n)
    served = np.asarray(obs)[:, :, -1:] > 0.5
    return np.where(served, 1.0 / np.maximum(served.sum(axis=1, keepdims=True), 1), 0.0)


# ---------------------------------------------------------------- stacked networks


def stack(torch: Any, groups: int, sizes: Sequence[int], generator: Any) -> list[Any]:
    """Parameters of ``groups`` MLPs side by side: weights (G, in, out) and biases (G, 1, out), uniform by fan-in."""
    out = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        bound = 3e-3 if i == len(sizes) - 2 else a**-0.5
        for shape in ((groups, a, b), (groups, 1, b)):
            out.append(((torch.rand(shape, generator=generator) * 2 - 1) * bound).requires_grad_())
    return out


def forward(torch: Any, parameters: Sequence[Any], x: Any, squash: bool) -> Any:
    """(G, batch, out) from (G, batch, in)."""
    for i in range(0, len(parameters), 2):
        x = torch.baddbmm(parameters[i + 1], x, parameters[i])
        x = torch.relu(x) if i < len(parameters) - 2 else x
    return torch.tanh(x) if squash else x


class Learner:
    """All networks and memories of all runs.

    Shapes: S runs, per stage n actors that each read d numbers and give k; L learners (agents with a critic).

    Args:
        market: of S runs side by side.
        seeds: one per run.
        owner: "agents" (one learner per agent), "sellers" (one for the first stage only) or "system" (one for all).
        config: constants.
        scale: role -> what rewards are divided by.
    """

    def __init__(self, market: Market, seeds: Sequence[int], owner: str, config: Config, scale: Mapping[str, float]):
        import torch

        self.torch, self.market, self.owner, self.config = torch, market, owner, config
        self.runs, self.prices = len(seeds), PRICES[market.id](market)
        self.moves = moves(market)
        self.stages = self.moves[:1] if owner == "sellers" else self.moves
        self.joint = owner != "agents"
        self.generator = torch.Generator().manual_seed(int(np.random.SeedSequence(list(seeds)).generate_state(1)[0]))
        self.rng = np.random.default_rng([int(s) for s in seeds])
        shapes = [(market.roles[s.role], int(s.observation_space.shape[0]), s.codec.width) for s in self.stages]
        self.raw = shapes
        self.head = config.heads and owner == "agents" and market.id == "CoalitionTrading-v0"
        self.shapes = [(1, n * d, n * k) if self.joint else (n, d, k) for n, d, k in shapes]
        if self.head:
            n, d, k = shapes[1]
            self.shapes[1] = (1, n * d, k)
        self.scale = [float(scale.get(s.role, 1.0)) or 1.0 for s in self.stages]
        if self.joint:  # one learner, whose reward is a sum: one common unit
            self.scale = [max(self.scale)] * len(self.stages)
        self.learners = 1 if self.joint else sum(n for n, _, _ in self.shapes)
        h = config.hidden
        self.actors = [stack(torch, self.runs * n, (d, h, h, k), self.generator) for n, d, k in self.shapes]
        width = sum(n * (d + k) for n, d, k in self.shapes)
        self.critic = stack(torch, self.runs * self.learners, (width, h, h, 1), self.generator)
        self.targets = [[p.detach().clone() for p in a] for a in self.actors]
        self.critic_target = [p.detach().clone() for p in self.critic]
        every = [p for a in self.actors for p in a]
        self.optimisers = [torch.optim.Adam(ps, lr=config.learning_rate) for ps in (every, self.critic)]
        self.size = self.filled = 0
        obs, act = sum(n * d for n, d, _ in self.shapes), sum(n * k for n, _, k in self.shapes)
        self.memory = torch.zeros((self.runs, config.memory, 2 * obs + act + self.learners))

    # -- one network pass ------------------------------------------------------------------------------------------

    def play(self, parameters: Sequence[Any], place: int, obs: Any, squash: bool = True) -> Any:
        """Actions (S, batch, n, k) of a stage's actors at observations (S, batch, n, d); without ``squash`` before their tanh."""
        n, d, k = self.shapes[place]
        batch = obs.shape[1]
        x = obs.permute(0, 2, 1, 3).reshape(self.runs * n, batch, d)
        return forward(self.torch, parameters, x, squash).reshape(self.runs, n, batch, k).permute(0, 2, 1, 3)

    def shown(self, obs: Any, actions: Any) -> Any:
        """Followers' observations with the leaders' prices written in (they are the first numbers, in [0, 1])."""
        posted = ((actions.flatten(2) + 1.0) / 2.0)[:, :, None, :]
        n, d, _ = self.raw[1]
        wide = obs.reshape(*obs.shape[:2], n, d)
        prices = posted.expand(-1, -1, n, -1)
        return self.torch.cat((prices, wide[..., self.prices :]), dim=-1).reshape(obs.shape)

    def values(
        self, critic: Sequence[Any], obs: Sequence[Any], actions: Sequence[Any], per_learner: bool = False
    ) -> Any:
        """Q (S, L, batch). ``per_learner``: actions and observations carry a learner axis (S, L, batch, n, .)."""
        torch = self.torch
        flat = [x.flatten(-2) for x in (*obs, *actions)]
        if per_learner:
            x = torch.cat(flat, dim=-1)
        else:
            x = torch.cat(flat, dim=-1)[:, None].expand(-1, self.learners, -1, -1)
        x = x.reshape(self.runs * self.learners, x.shape[2], x.shape[3])
        return forward(torch, critic, x, False).reshape(self.runs, self.learners, -1)

    # -- acting and remembering ------------------------------------------------------------------------------------

    def decide(self, place: int, obs: np.ndarray, noise: float | None) -> np.ndarray:
        """Actions in [-1, 1], (S, n, k) of the market's agents (n = 1 for a head); uniform where ``noise`` is None."""
        n, _, k = self.shapes[place] if self.head else self.raw[place]
        if noise is None:
            return self.rng.uniform(-1, 1, (self.runs, n, k))
        with self.torch.no_grad():
            x = self.torch.as_tensor(obs, dtype=self.torch.float32).reshape(self.runs, 1, *self.shapes[place][:2])
            actions = self.play(self.actors[place], place, x).reshape(self.runs, n, k).numpy()
        return np.clip(actions + noise * self.rng.normal(size=actions.shape), -1.0, 1.0)

    def remember(
        self, obs: Sequence[np.ndarray], acts: Sequence[np.ndarray], reward: np.ndarray, after: Sequence[np.ndarray]
    ) -> None:
        """One round of every run; ``reward`` (S, L)."""
        row = np.concatenate([np.asarray(x).reshape(self.runs, -1) for x in (*obs, *acts, reward, *after)], axis=1)
        self.memory[:, self.size % self.config.memory] = self.torch.as_tensor(row, dtype=self.torch.float32)
        self.size += 1
        self.filled = min(self.size, self.config.memory)

    def sample(self) -> tuple[list[Any], list[Any], Any, list[Any]]:
        """A batch of rounds: observations and actions by stage (S, batch, n, .), rewards (S, L, batch), next ones."""
        torch, batch = self.torch, self.config.batch
        index = torch.randint(self.filled, (self.runs, batch), generator=self.generator)
        rows = torch.gather(self.memory, 1, index[:, :, None].expand(-1, -1, self.memory.shape[2]))
        obs = [n * d for n, d, _ in self.shapes]
        parts = torch.split(rows, [*obs, *(n * k for n, _, k in self.shapes), self.learners, *obs], dim=2)
        m = len(self.shapes)

        def shaped(xs: Sequence[Any], last: int) -> list[Any]:
            return [x.reshape(self.runs, batch, s[0], s[last]) for x, s in zip(xs, self.shapes, strict=True)]

        return shaped(parts[:m], 1), shaped(parts[m : 2 * m], 2), parts[2 * m].transpose(1, 2), shaped(parts[-m:], 1)

    # -- learning --------------------------------------------------------------------------------------------------

    def answered(self, actors: Sequence[Any], obs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Everybody's actions in stage order, and the observations that go with them."""
        acts = [self.play(actors[0], 0, obs[0])]
        seen = [obs[0]]
        if len(self.shapes) > 1:
            seen.append(self.shown(obs[1], acts[0]))
            acts.append(self.play(actors[1], 1, seen[1]))
        return acts, seen

    def update(self) -> None:
        """One step of all critics, all actors and all targets."""
        torch, config = self.torch, self.config
        obs, acts, reward, after = self.sample()
        with torch.no_grad():
            next_acts, next_obs = self.answered(self.targets, after)
            target = reward + config.discount * self.values(self.critic_target, next_obs, next_acts)
        # Mean over the batch, sum over learners and runs: every network has its own step.
        loss = ((self.values(self.critic, obs, acts) - target) ** 2).mean(dim=2).sum()
        self.optimisers[1].zero_grad()
        loss.backward()
        self.optimisers[1].step()

        gain = self.ascent(obs, acts)
        self.optimisers[0].zero_grad()
        (-gain).backward()
        self.optimisers[0].step()
        with torch.no_grad():
            for mine, kept in zip([*self.actors, self.critic], [*self.targets, self.critic_target], strict=True):
                torch._foreach_lerp_(kept, [p.detach() for p in mine], config.soft)

    def ascent(self, obs: Sequence[Any], acts: Sequence[Any]) -> Any:
        """Sum over learners of its own Q with its own action replaced (and the followers answering a leader), less the restraint."""
        torch = self.torch
        raw = [self.play(actors, k, obs[k], False) for k, actors in enumerate(self.actors)]  # (S, batch, n, k)
        calm = self.config.restraint * sum((x**2).mean(dim=(1, 3)).sum() for x in raw)
        frozen = [p.detach() for p in self.critic]
        if self.joint:
            acts, seen = self.answered(self.actors, obs)
            return self.values(frozen, seen, acts).mean(dim=2).sum() - calm
        first, second = (torch.tanh(x) for x in raw)
        leaders, followers = self.shapes[0][0], self.shapes[1][0]
        fixed = [p.detach() for p in self.actors[1]]
        rows: list[tuple[Any, ...]] = []
        for i in range(leaders):
            mixed = torch.cat((acts[0][:, :, :i], first[:, :, i : i + 1], acts[0][:, :, i + 1 :]), dim=2)
            seen = self.shown(obs[1], mixed)
            rows.append((obs[0], seen, mixed, self.play(fixed, 1, seen)))
        for j in range(followers):
            mixed = torch.cat((acts[1][:, :, :j], second[:, :, j : j + 1], acts[1][:, :, j + 1 :]), dim=2)
            rows.append((obs[0], obs[1], acts[0], mixed))
        stacked = [torch.stack(x, dim=1) for x in zip(*rows, strict=True)]
        return self.values(frozen, stacked[:2], stacked[2:], per_learner=True).mean(dim=2).sum() - calm

    # -- results ---------------------------------------------------------------------------------------------------

    def policies(self) -> list[Policies]:
        """The actors as they are, one ``{role: policy}`` per run."""
        found: list[Policies] = []
        for run in range(self.runs):
            mine: Policies = {}
            for (n, _, _), stage, parameters in zip(self.shapes, self.stages, self.actors, strict=True):
                part = [p.detach()[run * n : (run + 1) * n].numpy().copy() for p in parameters]
                head = self.head and stage.role == "buyer"
                mine[stage.role] = Actors(list(zip(part[::2], part[1::2], strict=True)), self.joint, head)
            for stage in self.moves[len(self.stages) :]:
                mine[stage.role] = EquilibriumPolicy()
            found.append(mine)
        return found


# ---------------------------------------------------------------- training


class _Game:
    """The learner, where its markets are, and what they show before anybody has moved."""

    def __init__(self, learner: Learner, state: State):
        self.learner, self.state = learner, state
        self.blank = _observed(learner.market, state)


def train_many(
    task: Any,
    seeds: Sequence[int],
    budget: int,
    report: Report | None = None,
    owner: str = "agents",
    config: Config | None = None,
) -> list[Policies]:
    """Train one run per seed, all at once.

    Args:
        task: gives ``make_market()`` and ``scale``.
        seeds: one per run.
        budget: rounds of each run.
        report: see `run.Report`.
        owner: "agents" (MADDPG), "sellers" or "system" (SA-DDPG).
        config: constants; by default at most `UPDATES` updates are spread over the budget.
    """
    market = task.make_market()
    reason = playable(market)
    if reason is not None:
        raise NotOffered(reason)
    if owner not in ("agents", "sellers", "system"):
        raise InvalidParameter(f"owner must be 'agents', 'sellers' or 'system', got {owner!r}")
    config = config or Config(train_every=max(1, budget // UPDATES))
    config = replace(config, memory=min(config.memory, max(budget, config.batch)))
    learner = Learner(market, seeds, owner, config, getattr(task, "scale", {}))
    marks = ticks(budget) if report is not None else frozenset()
    horizon = market.params.horizon
    game = _Game(learner, _grouped(learner, market.reset(episode_seeds(seeds, 0)), 1.0))

    def rounds(first: int, last: int) -> None:
        for t in range(first, last):
            share = t / max(1, budget - 1)
            noise = None if t < config.warmup else (1 - share) * config.noise[0] + share * config.noise[1]
            state, obs, acts, payoffs = _round(market, learner, game.state, game.blank, noise)
            state = _grouped(learner, state, 1.0 if t < config.warmup else max(0.1, 1.0 - share))
            after = _observed(market, state)
            units = _units(learner, payoffs)
            pay = {role: np.asarray(x) / s for (role, x), s in zip(payoffs.items(), units, strict=True)}
            learner.remember(obs, acts, _rewards(learner, pay), after[: len(obs)])
            if (t + 1) % horizon == 0 and t + 1 < budget:
                state = _grouped(learner, market.reset(episode_seeds(seeds, (t + 1) // horizon)), 0.5)
                after = _observed(market, state)
            game.state, game.blank = state, after
            if t >= config.warmup and t % config.train_every == 0:
                learner.update()
            if t + 1 in marks and report is not None:
                report(t + 1, learner.policies, {f"payoff_{role}": x.mean(axis=1) for role, x in payoffs.items()})

    about = {"market": market.id, "owner": owner, "seeds": [int(s) for s in seeds], "config": repr(config)}
    in_segments(budget, part_of(budget), about, rounds, *snapshot.keeper(game))
    return learner.policies()


def _units(learner: Learner, payoffs: Mapping[str, np.ndarray]) -> list[float]:
    known = {s.role: u for s, u in zip(learner.stages, learner.scale, strict=True)}
    return [known.get(role, 1.0) for role in payoffs]


def _rewards(learner: Learner, pay: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rewards (S, L): each agent's own, the sellers' sum, or everybody's sum."""
    if learner.owner == "agents":
        first, second = (pay[s.role] for s in learner.stages)
        return np.concatenate([first, second.sum(axis=1, keepdims=True) if learner.head else second], axis=1)
    roles = [learner.stages[0].role] if learner.owner == "sellers" else list(pay)
    return np.stack([sum(pay[r].sum(axis=1) for r in roles)], axis=1)


def moves(market: Market) -> tuple[Stage, ...]:
    """The stages that are learned: prices, then purchases."""
    return tuple(stage for stage in market.stages if stage.name != "coalition")


def _grouped(learner: Learner, state: State, explore: float) -> State:
    """The state with labels committed where buyers name them: the grand coalition, in a share ``explore`` of runs drawn at random.

    The drawn ones let the actors meet other partitions; the formation rule is the paper's, nothing is learned about it.
    """
    if "coalition" not in (stage.name for stage in learner.market.stages):
        return state
    n = learner.market.roles["buyer"]
    drawn = learner.rng.integers(n, size=(learner.runs, n, 1)).astype(float)
    labels = np.where(learner.rng.uniform(size=(learner.runs, 1, 1)) < explore, drawn, 0.0)
    return learner.market.commit(state, "coalition", learner.market.backend.asarray(labels))


def _observed(market: Market, state: State) -> list[np.ndarray]:
    """What every stage shows before anybody has moved; followers with the lowest prices (overwritten when posted)."""
    first, second = moves(market)
    low, _ = market.bounds(state, first.name)
    shape = (market.batch(state), market.roles[first.role], first.codec.width)
    here = market.commit(state, first.name, market.xp.broadcast_to(low, shape))
    return [
        np.asarray(market.backend.numpy(x))
        for x in (market.observe(state, first.name), market.observe(here, second.name))
    ]


def _round(
    market: Market, learner: Learner, state: State, blank: list[np.ndarray], noise: float | None
) -> tuple[State, list[np.ndarray], list[np.ndarray], dict[str, np.ndarray]]:
    """Play one round of every run."""
    obs, acts = [], []
    for place, stage in enumerate(learner.moves):
        if place >= len(learner.stages):  # the followers' exact answer
            prefix = {k: market.backend.numpy(v) for k, v in state.decisions.items()}
            answer = market.respond(state._replace(decisions={}), prefix)
            state = market.commit(state, stage.name, market.backend.asarray(answer.on_path[stage.name]))
            continue
        seen = blank[place] if place == 0 else np.asarray(market.backend.numpy(market.observe(state, stage.name)))
        action = learner.decide(place, seen, noise)
        low, high = (market.backend.numpy(x) for x in market.bounds(state, stage.name))
        asked = (action + 1.0) / 2.0 * (members(market, seen) if learner.head and place else 1.0)
        natural = low + (high - low) * asked
        state = market.commit(state, stage.name, market.backend.asarray(natural))
        obs.append(seen)
        acts.append(action)
    state, outcome = market.conclude(state)
    return state, obs, acts, {role: market.backend.numpy(x) for role, x in outcome.payoffs.items()}


UPDATES = 20_000
"""Most updates that a run makes, spread evenly over its rounds."""


def playable(market: Market) -> str | None:
    """Why this learner cannot play a market; None if it can."""
    if market.id not in PRICES:
        return f"Stackelberg MADDPG plays {', '.join(PRICES)} (it must know where the posted prices are seen)"
    if len(moves(market)) != 2:
        return "Stackelberg MADDPG plays a price stage and a purchase stage"
    return None


def _owned(owner: str) -> Callable[..., list[Policies]]:
    def many(task: Any, seeds: Sequence[int], budget: int, report: Report | None = None) -> list[Policies]:
        return train_many(task, seeds, budget, report, owner=owner)

    return many


ALGORITHMS = (
    Algorithm(
        "maddpg",
        train_many=_owned("agents"),
        title="Stackelberg MADDPG (CoST/ST)",
        citation="Boateng, Liu: Cooperative resource trading for network slicing in IIoT; Lowe et al., NeurIPS 2017",
        quick_budget=2_500,
        can_play=playable,
        requires=("torch",),
    ),
    Algorithm(
        "sa_ddpg",
        train_many=_owned("sellers"),
        title="SA-DDPG (one agent owns the sellers)",
        citation="Lillicrap et al., ICLR 2016; followers answer exactly",
        quick_budget=2_500,
        access="oracle",
        can_play=playable,
        requires=("torch",),
    ),
    Algorithm(
        "sa_ddpg_system",
        train_many=_owned("system"),
        title="SA-DDPG (one agent owns the system)",
        citation="Lillicrap et al., ICLR 2016",
        quick_budget=2_500,
        can_play=playable,
        requires=("torch",),
    ),
)

__all__ = ["ALGORITHMS", "Actors", "Config", "Learner", "train_many"]
