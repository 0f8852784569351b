"""Our side of the benchmark: every market's core on every array library, and every shell.

One step of the core is a whole round with nothing left out: all stages are observed (by all their agents) and committed, the round is
settled with its payoffs and all metrics, clipped decisions are counted, episodes that end are marked, the next round's noise is drawn.
Decisions are drawn beforehand, as for the peers.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import marketenvs
from marketenvs.arrays import to_numpy
from marketenvs.blocks import Blocks
from marketenvs.market import Market, State
from marketenvs.market import Stage as MarketStage
from marketenvs.shells.game import actions_of

from .throughput_measure import Contender, Run

BATCHES = (1, 16, 256, 1024, 4096, 8192, 16384)
LIBRARIES = (("numpy", "float64"), ("numpy", "float32"), ("torch", "float64"), ("jax", "float32"))
SCAN = 32
"""Rounds in one call of JAX's scan."""
SCAN_BATCHES = (1, 1024, 8192)
"""Batches at which whole rollouts are compiled, which is slow."""
MOST_USERS = 1_000_000
"""Radio users in one array; larger batches are measured in blocks."""
SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "AIBazaar-v0": ({"mining": "sampled"}, {}),
    "TwoTierBidding-v0": ({}, {"lower": "agents", "allocation": "blocks"}),
    "SpectrumBertrand-v0": ({}, {"matching": "logit"}),
}
"""Parameters beside the default preset's, the main setting first; a market that is not listed is measured in its default preset."""
Decisions = dict[str, np.ndarray]


def settings(id: str) -> tuple[dict[str, Any], ...]:
    """The parameter settings in which a market is measured, the main one first."""
    return SETTINGS.get(id, ({},))


def describe(setting: Mapping[str, Any]) -> str:
    """A setting in one line, "" for the default preset."""
    return ", ".join(f"{k}={v}" for k, v in setting.items())


def decisions_per_round(market: Market) -> int:
    """Decisions that the agents of one market make in a round."""
    return sum(market.roles[s.role] for s in market.stages)


def users_of(market: Market) -> int:
    """Users of the radio network of one market whose channel is computed in a round (0: none, or frozen rates)."""
    p = market.params
    if hasattr(p, "n_slices") and hasattr(p, "n_devices"):
        return p.n_slices * p.n_devices
    return 0


def profile_batch(id: str, largest: int) -> int:
    """The batch at which a market's parts are timed: large, but of few radio users."""
    return min(largest, 128 if users_of(marketenvs.make(id)) else 4096)


def play(market: Market, state: State, rng: np.random.Generator) -> Decisions:
    """Random decisions (B, n, k) of one round in natural units; 5 % of the continuous ones lie outside the range."""
    out: Decisions = {}
    for stage in market.stages:
        low, high = (market.backend.numpy(b) for b in market.bounds(state, stage.name))
        actions = _actions(market, state, stage, rng)
        decisions = np.array(
            np.broadcast_to(
                stage.codec.decode(np, actions, low, high),
                (market.batch(state), market.roles[stage.role], stage.codec.width),
            )
        )
        if not stage.codec.discrete:
            stray = rng.random(decisions.shape) < 0.05
            decisions = np.where(stray, decisions + 1.01 * (high - low), decisions)
        out[stage.name] = decisions
        state = market.commit(state, stage.name, market.backend.asarray(decisions))
    return out


def _actions(market: Market, state: State, stage: MarketStage, rng: np.random.Generator) -> np.ndarray:
    shape = (market.batch(state), market.roles[stage.role])
    space = stage.codec.action_space
    if not stage.codec.discrete:
        return rng.uniform(-1.0, 1.0, (*shape, *stage.codec.action_shape))
    if hasattr(space, "nvec"):
        return rng.integers(0, space.nvec, (*shape, len(space.nvec)))
    mask = market.action_mask(state, stage.name)
    chance = rng.random((*shape, actions_of(stage)))
    return np.argmax(chance if mask is None else np.where(to_numpy(mask), chance, -1.0), axis=-1)


def full_step(market: Market, state: State, decisions: Mapping[str, Any]) -> tuple[State, tuple]:
    """A whole round; returns the next state and everything it gave: observations, payoffs, metrics, done."""
    seen = []
    for stage in market.stages:
        seen.append(market.observe(state, stage.name))
        state = market.commit(state, stage.name, decisions[stage.name])
    state, outcome = market.conclude(state, decisions)
    return state, (tuple(seen), outcome.payoffs, outcome.metrics, state.round >= market.params.horizon)


def core(id: str, setting: Mapping[str, Any], library: str, dtype: str, batch: int, scan: bool = False) -> Contender:
    """The batched core as a contender."""
    market = marketenvs.make(id, **setting)

    def build() -> Run:
        return _build_core(id, setting, library, dtype, batch, scan)

    name = f"{library} {dtype}" + (" scan" if scan else "")
    return Contender(
        f"{id} core {name} B={batch}" + (f" ({describe(setting)})" if setting else ""),
        "marketenvs",
        id,
        "core",
        name,
        batch,
        batch * (SCAN if scan else 1),
        decisions_per_round(market),
        build,
        users_of(market),
        describe(setting),
    )


def _build_core(id: str, setting: Mapping[str, Any], library: str, dtype: str, batch: int, scan: bool) -> Run:
    market = marketenvs.make(id, backend=library, dtype=dtype, **setting)
    rng = np.random.default_rng(0)
    begun = market.reset(seed=0, batch=batch)
    plays = [
        {k: market.backend.asarray(v) for k, v in play(market, begun, rng).items()} for _ in range(2 if scan else 4)
    ]
    if library == "jax":
        return _scanned(market, begun, plays) if scan else _jitted(market, begun, plays)
    turn: list[Any] = [begun, itertools.cycle(plays)]

    def run(calls: int) -> None:
        state, cycle = turn
        with _inference(library):
            for _ in range(calls):
                state, _ = full_step(market, state, next(cycle))
        turn[0] = state

    return run


@contextlib.contextmanager
def _inference(library: str) -> Iterator[None]:
    if library == "torch":
        import torch

        with torch.inference_mode():
            yield
    else:
        yield


def _jitted(market: Market, begun: State, plays: list[Decisions]) -> Run:
    import jax

    step = jax.jit(lambda state, decisions: full_step(market, state, decisions))
    turn: list[Any] = [begun, itertools.cycle(plays)]

    def run(calls: int) -> None:
        state, cycle = turn
        given = None
        for _ in range(calls):
            state, given = step(state, next(cycle))
        jax.block_until_ready((state, given))
        turn[0] = state

    return run


def _scanned(market: Market, begun: State, plays: list[Decisions]) -> Run:
    """``SCAN`` rounds in one call. What a round gave is carried along, so that the compiler cannot drop any of it."""
    import jax
    import jax.numpy as jnp

    stacked = jax.tree.map(lambda *a: jnp.stack(a), *plays)

    def body(carry: Any, index: Any) -> tuple[Any, None]:
        state, _ = carry
        decisions = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), stacked)
        return full_step(market, state, decisions), None

    order = jnp.arange(SCAN) % len(plays)
    rollout = jax.jit(lambda carry: jax.lax.scan(body, carry, order)[0])
    turn = [jax.jit(lambda state: full_step(market, state, jax.tree.map(lambda a: a[0], stacked)))(begun)]

    def run(calls: int) -> None:
        carry = turn[0]
        for _ in range(calls):
            carry = rollout(carry)
        turn[0] = jax.block_until_ready(carry)

    return run


# -- shells -------------------------------------------------------------------------------------------------------------


def shells(id: str, setting: Mapping[str, Any], batch: int = 1024) -> list[Contender]:
    """The shells as contenders: PettingZoo at B=1, Gymnasium's vector view, SB3's VecEnv of one role."""
    market = marketenvs.make(id, **setting)
    role = market.stages[-1].role
    first = market.stages_of[role][0]

    def contender(shell: str, size: int, agents: int, build: Callable[[], Run]) -> Contender:
        label = f" ({describe(setting)})" if setting else ""
        return Contender(
            f"{id} {shell} B={size}{label}",
            "marketenvs",
            id,
            shell,
            "numpy float64",
            size,
            size,
            agents,
            build,
            users_of(market),
            describe(setting),
        )

    everybody = decisions_per_round(market)
    return [
        contender("parallel env", 1, everybody, lambda: _parallel(id, setting)),
        contender("AEC env", 1, everybody, lambda: _aec(id, setting)),
        contender("vector env", batch, 1, lambda: _vector(id, setting, role, first, batch)),
        contender("SB3 VecEnv", batch, market.roles[role], lambda: _sb3(id, setting, role, first, batch)),
    ]


def _joint_actions(env: Any, count: int = 16) -> list[dict[str, Any]]:
    for i, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(i)
    return [{a: env.action_space(a).sample() for a in env.possible_agents} for _ in range(count)]


def _parallel(id: str, setting: Mapping[str, Any]) -> Run:
    env = marketenvs.parallel_env(id, **setting)
    env.reset(seed=0)
    stages, cycle = len(env.market.stages), itertools.cycle(_joint_actions(env))

    def run(calls: int) -> None:
        for _ in range(calls):
            for _ in range(stages):
                env.step(next(cycle))
            if not env.agents:
                env.reset()

    return run


def _aec(id: str, setting: Mapping[str, Any]) -> Run:
    env = marketenvs.aec_env(id, **setting)
    env.reset(seed=0)
    cycle = itertools.cycle(_joint_actions(env))

    def run(calls: int) -> None:
        for _ in range(calls):
            begun, actions = env.table.game.rounds, next(cycle)
            while env.agents and env.table.game.rounds == begun:
                _, _, terminated, truncated, _ = env.last()
                env.step(None if terminated or truncated else actions[env.agent_selection])
            if not env.agents or env.truncations[env.agent_selection]:
                env.reset()

    return run


def _vector(id: str, setting: Mapping[str, Any], role: str, stage: str, batch: int) -> Run:
    from marketenvs.shells.vector import MarketVectorEnv

    several = len(marketenvs.make(id, **setting).stages_of[role]) > 1
    env = MarketVectorEnv(
        id, role, num_envs=batch, opponents="random", stage=stage if several else None, **dict(setting)
    )
    env.reset(seed=0)
    env.action_space.seed(0)
    cycle = itertools.cycle([env.action_space.sample() for _ in range(8)])

    def run(calls: int) -> None:
        for _ in range(calls):
            env.step(next(cycle))

    return run


def _sb3(id: str, setting: Mapping[str, Any], role: str, stage: str, batch: int) -> Run:
    from marketenvs.sb3 import MarketVecEnv

    several = len(marketenvs.make(id, **setting).stages_of[role]) > 1
    env = MarketVecEnv(id, role, batch, opponents="random", stage=stage if several else None, seed=0, **dict(setting))
    env.reset()
    env.action_space.seed(0)
    cycle = itertools.cycle([np.stack([env.action_space.sample() for _ in range(env.num_envs)]) for _ in range(4)])

    def run(calls: int) -> None:
        for _ in range(calls):
            env.step(next(cycle))

    return run


def blocked(id: str, setting: Mapping[str, Any], batch: int) -> Contender:
    """The NumPy core in cache-sized blocks: the same round, its payoffs and metrics gathered for all markets."""
    market = marketenvs.make(id, **setting)

    def build() -> Run:
        blocks = Blocks(market, batch)
        blocks.reset(seed=0)
        size = blocks.size
        plays = play(market, blocks.states[0], np.random.default_rng(0))

        def decide(stage: MarketStage, seen: Any, rows: slice) -> Any:
            return plays[stage.name][: min(size, rows.stop - rows.start)]

        def run(calls: int) -> None:
            for _ in range(calls):
                blocks.step(decide)

        return run

    return Contender(
        f"{id} core in blocks B={batch}", "marketenvs", id, "core", "numpy float64 in blocks", batch, batch,
        decisions_per_round(market), build, users_of(market), describe(setting),
    )  # fmt: skip


def contenders(
    id: str, batches: tuple[int, ...] = BATCHES, libraries: tuple[str, ...] = ("numpy", "torch", "jax")
) -> list[Contender]:
    """All contenders of one market.

    Every library and batch in its main setting, NumPy in the others, NumPy in blocks, and the shells. Batches of more than a million
    radio users are measured in blocks only: in one array they would take gigabytes for nothing.
    """
    main, *others = settings(id)
    users = users_of(marketenvs.make(id, **main))
    whole = tuple(b for b in batches if b * users <= MOST_USERS)
    out = [core(id, main, library, dtype, b) for library, dtype in LIBRARIES if library in libraries for b in whole]
    if "jax" in libraries:
        out += [core(id, main, "jax", "float32", b, scan=True) for b in whole if b in SCAN_BATCHES]
    out += [core(id, other, "numpy", "float64", b) for other in others for b in batches]
    if "jax" in libraries:
        out += [core(id, other, "jax", "float32", b) for other in others for b in (1024, 8192) if b in whole]
    out += [blocked(id, main, b) for b in sorted({max(batches), *(b for b in batches if b not in whole)})]
    for other in others:
        out.append(shells(id, other, 1)[0])
    return out + shells(id, main, min(1024, max(batches)))
