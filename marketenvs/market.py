"""The contract that every market fulfils.

A market is a short sequence of stages, repeated. In a stage all agents of one role decide at once; after the last stage the round is
settled and everyone is paid. One object holds the rules of any number of markets that run side by side along the leading axis B.

What a market's author writes (all pure functions in the Array API, tracing safe):

=================== ======================================================================================================
``Params``          frozen dataclass of :mod:`marketenvs.params` declarations, with ``PRESETS``
``build_stages``    the tuple of :class:`Stage`, per instance (it may depend on the parameters)
``observe``         what each agent of a stage sees, (B, n, d)
``expected``        expected payoffs of a profile, {role: (B, n)}
*optional:*         ``Theta`` and ``derive`` (what follows from the parameters once), ``bounds``, ``acting``, ``action_mask``,
                    ``history_noise``/``first_history``, ``round_noise``/``draw_nature``, ``settle`` (realised outcome and metrics),
                    ``remember`` (history after a round), and the solvers ``solve``, ``respond``, ``best_reply``, ``optimum``, ``analysis``
=================== ======================================================================================================

What users call (validated): ``reset step observe payoff outcome commit equilibrium respond best_response nash_conv social_optimum
analysis symbols``. Every state a user holds has *begun*: the whole coming round is drawn in ``state.nature``; ``observe`` decides what
is hidden. The core never resets by itself and never renders; shells do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from . import boundary
from . import params as _params
from .arrays import Array, Backend, Noise
from .errors import InvalidParameter, NotOffered, UnknownName, nearest
from .state import Outcome, Stage, State, tree_map
from .strategy import BestResponse, ByStage, Equilibrium, NashConv, SocialOptimum, Strategy

_THETA, _HISTORY, _ROUND = 11, 12, 13  # streams of the keyed generator


class Market:
    """Base of all markets; see the module's docstring for what a subclass writes.

    Args:
        params: An instance of the market's ``Params``.
        backend: "numpy", "torch", "jax", "array_api_strict", or a :class:`Backend`.
        dtype: "float64" (default) or "float32".
        device: Device of the arrays; None for the library's default.
    """

    id: str = ""
    Params: ClassVar[type[_params.MarketParams]]
    Theta: ClassVar[Any] = None
    anonymous: ClassVar[tuple[str, ...] | None] = None
    """Roles whose agents are interchangeable: permuting them in theta, state and decisions permutes their payoffs. None: all roles."""
    joint_stages: ClassVar[tuple[str, ...]] = ()
    """Stages whose deviations are joint moves of a coalition (the gain is the coalition's, split to its members)."""
    information: ClassVar[str] = "public"
    """What the oracle knows: "public", "clairvoyant" (marked as not attainable) or "certainty_equivalent"."""
    welfare_name: ClassVar[str] = "sum of payoffs"

    def __init__(
        self,
        params: _params.MarketParams | None = None,
        *,
        backend: str | Backend = "numpy",
        dtype: str | None = None,
        device: Any = None,
    ):
        params = self.Params() if params is None else params
        if not isinstance(params, self.Params):
            raise InvalidParameter(f"params must be a {self.Params.__name__}, got {type(params).__name__}")
        self.params = params
        self.backend = backend if isinstance(backend, Backend) else Backend(backend, dtype, device)
        self.xp = self.backend.xp
        if type(self).Theta is None:
            raise TypeError(
                f"{type(self).__name__}.Theta is missing: set Theta = theta_type('...', Params) at module level"
            )
        self.roles: dict[str, int] = self.count_roles()
        self.stages: tuple[Stage, ...] = self.build_stages()
        self.setup()
        self._stage = {s.name: s for s in self.stages}
        by_role: dict[str, list[str]] = {}
        for s in self.stages:
            by_role.setdefault(s.role, []).append(s.name)
        self.stages_of = {role: tuple(names) for role, names in by_role.items()}
        self._alias = {role: names[0] for role, names in by_role.items() if len(names) == 1}
        self._round_noise = dict(self.round_noise())
        self._drift = dict(params.drift or {})
        self._fixed_theta: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let every rule that takes a stage answer to single-stage roles too, and refuse unknown names."""
        super().__init_subclass__(**kwargs)
        for name in ("observe", "bounds", "acting", "action_mask"):
            if name in cls.__dict__:
                setattr(cls, name, boundary.named_stage(cls.__dict__[name], presume=name == "observe"))
        if "respond" in cls.__dict__:
            cls.respond = boundary.checked_prefix(cls.__dict__["respond"])  # type: ignore[method-assign]

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.params, self.backend, self.id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.params!r}, backend={self.backend.name!r})"

    # -- what a market's author writes -------------------------------------------------------------------------------

    def count_roles(self) -> dict[str, int]:
        """Role -> number of agents, in the order of agents everywhere."""
        raise NotImplementedError

    def build_stages(self) -> tuple[Stage, ...]:
        """The stages of a round, in order of play."""
        raise NotImplementedError

    def setup(self) -> None:
        """Static precomputation after the stages are built."""

    def derive(self, theta: Any) -> Any:
        """``theta`` with its derived fields filled in (once per reset, and after every drift)."""
        return theta

    def history_noise(self) -> Mapping[str, Noise]:
        """Random inputs of a reset."""
        return {}

    def first_history(self, theta: Any, noise: Mapping[str, Array], batch: int) -> Any:
        """History before the first round: a pytree of arrays with leading axis B."""
        return ()

    def round_noise(self) -> Mapping[str, Noise]:
        """Random inputs of one round."""
        return {}

    def draw_nature(self, state: State, noise: Mapping[str, Array]) -> Any:
        """Everything random about the coming round, as a pytree of arrays with leading axis B."""
        return dict(noise)

    def bounds(self, state: State, stage: str) -> tuple[Array, Array]:
        """Natural lower and upper bounds of a stage's decisions; each broadcasts to (B, n, k)."""
        raise NotImplementedError

    def acting(self, state: State, stage: str) -> Array:
        """Which agents of the stage's role really decide, bool (B, n)."""
        xp = self.xp
        like = state.seed[:, :1] == state.seed[:, :1]
        return xp.broadcast_to(like, (self.batch(state), self.roles[self._stage[stage].role]))

    def action_mask(self, state: State, stage: str) -> Array | None:
        """Legal actions of a discrete stage, bool (B, n, A); None where all are legal."""
        return None

    def presumed(self, state: State, stage: str) -> Array:
        """Decisions (B, n, k) that ``observe`` shows later stages while ``stage`` is not committed: the middle of its range."""
        low, high = self.bounds(state, stage)
        shape = (self.batch(state), self.roles[self._stage[stage].role], self._stage[stage].codec.width)
        return self.xp.broadcast_to((low + high) / 2, shape)

    def observe(self, state: State, stage: str) -> Array:
        """What each agent of the stage sees now, (B, n, d).

        Earlier stages of the round are in ``state.decisions``. Where a caller has not committed them yet, they are shown as
        :meth:`presumed`.
        """
        raise NotImplementedError

    def expected(self, state: State, decisions: Mapping[str, Array]) -> dict[str, Array]:
        """Payoffs {role: (B, n)} in expectation over what nobody has seen when acting."""
        raise NotImplementedError

    def settle(self, state: State, decisions: Mapping[str, Array]) -> Outcome:
        """Realised payoffs and metrics: the one function that settlement and renderer call."""
        payoffs = self.expected(state, decisions)
        total = sum(self.xp.sum(p, axis=1) for p in payoffs.values())
        return Outcome(payoffs, {"welfare": total})

    def remember(self, state: State, decisions: Mapping[str, Array], outcome: Outcome) -> Any:
        """History after a settled round."""
        return state.history

    # solvers (NumPy float64, whatever the arrays outside)

    def solve(self, state: State) -> Equilibrium:
        """The market's own equilibrium oracle."""
        raise NotOffered(f"{self.id} has no equilibrium oracle of its own")

    def best_reply(self, state: State, stage: str, decisions: Mapping[str, np.ndarray]) -> BestResponse:
        """The market's own exact best response to pure decisions (all stages given)."""
        raise NotOffered(f"{self.id} has no best-response oracle at stage {stage!r}")

    def optimum(self, state: State) -> SocialOptimum:
        """The market's own social optimum."""
        raise NotOffered(f"{self.id} has no social-optimum oracle")

    def mixed_reply(self, state: State, stage: str, profile: Mapping[str, Strategy]) -> BestResponse:
        """Best response to a profile with mixtures; the default estimates by sampling (``solution.mixtures``)."""
        from .solution import mixtures

        return mixtures.sampled_best_response(self, state, stage, profile)

    def joint_groups(self, state: State, profile: Mapping[str, Any]) -> np.ndarray:
        """Which agents of a joint stage move together, (B, n) labels: all of them by default. See ``joint_stages``."""
        role = next((self.stage(name).role for name in self.joint_stages), next(iter(self.roles)))
        return np.zeros((self.batch(state), self.roles[role]), dtype=np.int64)

    def mixed_payoff(self, state: State, profile: Mapping[str, Strategy]) -> dict[str, np.ndarray]:
        """Expected payoffs of a profile with mixtures; the default estimates by sampling."""
        from .solution import mixtures

        return mixtures.sampled_payoff(self, state, profile)

    def analysis(self, state: State) -> dict[str, Any]:
        """Documented extras of the market (closed forms, indices, other equilibria)."""
        return {}

    # -- names ------------------------------------------------------------------------------------------------------

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of all agents, ``role_i``, role by role."""
        return tuple(f"{role}_{i}" for role, n in self.roles.items() for i in range(n))

    @property
    def symbols(self) -> dict[str, str]:
        """The paper's symbol -> parameter name."""
        return _params.symbols(self.Params)

    def stage(self, name: str) -> Stage:
        """The stage of that name, or the only stage of that role.

        Raises:
            UnknownName: No such stage or role, or the role has several stages.
        """
        name = self._alias.get(name, name)
        if name not in self._stage:
            if name in self.stages_of:
                raise UnknownName(f"role {name!r} has several stages: name one of {', '.join(self.stages_of[name])}")
            raise UnknownName(
                f"no stage or role {name!r} in {self.id}; {nearest(name, [*self._stage, *self.stages_of])}"
            )
        return self._stage[name]

    def batch(self, state: State) -> int:
        """Number of markets B of a state."""
        return int(state.seed.shape[0])

    # -- playing ----------------------------------------------------------------------------------------------------

    def reset(
        self, seed: int | Sequence[int] = 0, batch: int | None = None, split: str = "train", first: int = 0
    ) -> State:
        """New episodes of B markets.

        Args:
            seed: One seed for the whole batch (market i then uses stream ``first + i`` under it), or one seed per market: market i of
                a batch given ``[s0, s1, ...]`` is bit for bit the only market of ``reset(seed=s_i)``.
            batch: B. Default: the number of seeds, or of markets that the parameters fix, or 1.
            split: "train" or "test": disjoint random streams.
            first: Index of the first market under one seed (``reset(0, 8, first=8)`` continues ``reset(0, 8)``).

        Raises:
            InvalidParameter: Bad seed, batch or split, or parameters given for another number of markets.
        """
        seeds, index = boundary.read_seeds(_params.batch_of(self.params), seed, batch, split, first)
        stream = _params.TRAIN_STREAM if split == "train" else _params.TEST_STREAM
        key = self.backend.keys(seeds, index, stream)
        if self._fixed_theta is None and not _params.is_drawn(self.params):
            self._fixed_theta = self.derive(_params.draw_theta(self.params, self.Theta, self.backend, key))
        return self.reset_keys(key)

    def reset_keys(self, key: Array) -> State:
        """New episodes from keys (B, 2): the traceable part of :meth:`reset`."""
        backend = self.backend
        batch = key.shape[0]
        theta = self._fixed_theta  # the same object at every reset: oracles remember solutions by it
        if theta is None:
            theta = self.derive(_params.draw_theta(self.params, self.Theta, backend, backend.fold(key, 0, _THETA)))
        noise = backend.draw(backend.fold(key, 0, _HISTORY), self.history_noise())
        history = self.first_history(theta, noise, batch)
        origin = theta if self._drift else ()
        rounds = self.backend.integers(np.zeros(batch, dtype=np.int32))
        return self.begin(State(theta, origin, key, rounds, history, (), {}))

    def noise_fields(self) -> dict[str, Noise]:
        """Declared random inputs of one round, including those of drift (named ``drift:<field>``)."""
        fields = dict(self._round_noise)
        if self._drift:
            shapes = {
                f.name: self.params.size(f.metadata["shape"]) or (1,) for f in _params.numeric_fields(self.Params)
            }
            fields |= {f"drift:{name}": law.noise(shapes[name]) for name, law in self._drift.items()}
        return fields

    def begin(self, state: State, noise: Mapping[str, Array] | None = None) -> State:
        """Draw the whole coming round into ``state.nature``; from the state's own key and round when ``noise`` is None."""
        fields = self.noise_fields()
        if noise is None:
            noise = self.backend.draw(self.backend.fold(state.seed, state.round, _ROUND), fields) if fields else {}
        if self._drift:
            limits = {f.name: f.metadata for f in _params.numeric_fields(self.Params)}
            moved = {}
            for name, law in self._drift.items():
                value = law.move(
                    self.xp, getattr(state.theta, name), getattr(state.origin, name), noise[f"drift:{name}"]
                )
                moved[name] = self.xp.clip(value, limits[name]["low"], limits[name]["high"])
            started = (state.round > 0)[:, None]
            for name, value in moved.items():
                old = getattr(state.theta, name)
                moved[name] = self.xp.where(
                    self.xp.reshape(started, (-1,) + (1,) * (value.ndim - 1)), value, old + 0 * value
                )
            state = state._replace(theta=self.derive(state.theta._replace(**moved)))
        if self._round_noise:
            state = state._replace(nature=self.draw_nature(state, {k: noise[k] for k in self._round_noise}))
        return state

    def commit(self, state: State, stage: str, decisions: Array) -> State:
        """The state after the agents of ``stage`` have decided (B, n, k); decisions outside the bounds are clipped (and counted).

        A rule, not validated, so that it can be traced: ``check_decisions`` and :meth:`step` validate.
        """
        stage = self._alias.get(stage, stage)
        low, high = self.bounds(state, stage)
        codec = self._stage[stage].codec
        clipped = self.xp.clip(decisions, low, high)
        if codec.discrete:
            clipped = codec.snap(self.xp, clipped, low, high)
        return state._replace(decisions={**state.decisions, stage: clipped})

    def transition(
        self, state: State, decisions: Mapping[str, Array], noise: Mapping[str, Array] | None = None
    ) -> tuple[State, Outcome]:
        """One whole round without validation: what :meth:`step` does and what ``jax.jit`` traces.

        Args:
            state: A begun state.
            decisions: Stage name -> decisions (B, n, k).
            noise: Random inputs of THIS round, to replace the state's own; None keeps what ``state.nature`` holds.
        """
        if noise is not None:
            state = self.begin(state, noise)
        for stage in self.stages:
            state = self.commit(state, stage.name, decisions[stage.name])
        return self.conclude(state, decisions)

    def conclude(self, state: State, raw: Mapping[str, Array] | None = None) -> tuple[State, Outcome]:
        """Settle a round whose stages are all committed, and begin the next one."""
        outcome = self.settle(state, state.decisions)
        if raw is not None:
            outcome.metrics["clipped"] = self._count_clipped(state.decisions, raw)
        history = self.remember(state, state.decisions, outcome)
        state = state._replace(history=history, round=state.round + 1, decisions={})
        if self._round_noise or self._drift:
            state = self.begin(state)
        return state, outcome

    def _count_clipped(self, kept: Mapping[str, Array], raw: Mapping[str, Array]) -> Array:
        xp, total = self.xp, 0
        for stage in self.stages:
            if not stage.codec.discrete:
                total = total + xp.sum(xp.astype(kept[stage.name] != raw[stage.name], xp.int32), axis=(1, 2))
        return (
            total if not isinstance(total, int) else self.backend.integers(np.zeros(next(iter(kept.values())).shape[0]))
        )

    def step(
        self, state: State, profile: Mapping[str, Any], noise: Mapping[str, Array] | None = None
    ) -> tuple[State, Outcome]:
        """Play one round: check the decisions, commit stage by stage, settle, begin the next round.

        Args:
            state: A state from :meth:`reset` or :meth:`step`.
            profile: Stage (or role with one stage) -> decisions in natural units: (B, n, k); where k is 1 also (B, n), or (n,) for
                the same in every market; a number for all; a ``Pure``, or a ``Reply`` to the stages before it.
            noise: Random inputs of this round, name -> (B, ...) standard draws; default: the state's own.

        Returns:
            The state at the begin of the next round, and the outcome.

        Raises:
            InvalidAction: NaN or infinite decisions, a wrong shape, a missing or unknown stage.
        """
        boundary.check_state(state)
        if isinstance(profile, Mapping) and any(isinstance(v, Strategy) for v in profile.values()):
            from .solution.gains import resolve_replies

            profile = resolve_replies(self, state, profile)
        return self.transition(state, self.check_profile(state, profile), noise)

    # -- evaluating a profile ---------------------------------------------------------------------------------------

    def committed(self, state: State, profile: Mapping[str, Any]) -> State:
        """The state after committing the stages of a (validated, possibly partial) profile, in order."""
        decisions = self.check_profile(state, profile, partial=True)
        return self._committed(state, decisions)

    def _committed(self, state: State, decisions: Mapping[str, Array]) -> State:
        for stage in self.stages:
            if stage.name in decisions:
                state = self.commit(state, stage.name, decisions[stage.name])
        return state

    def payoff(self, state: State, profile: Mapping[str, Any]) -> dict[str, Array]:
        """Expected payoffs {role: (B, n)} of a profile of decisions or strategies.

        Raises:
            InvalidAction: As :meth:`step`.
        """
        boundary.check_mapping(profile)
        if any(isinstance(v, Strategy) for v in profile.values()):
            return self.mixed_payoff(state, self.resolve(state, profile))
        state = self._committed(state, self.check_profile(state, profile))
        return self.expected(state, state.decisions)

    def outcome(self, state: State, profile: Mapping[str, Any]) -> Outcome:
        """Realised payoffs and metrics of a profile of decisions, without moving on."""
        checked = self.check_profile(state, profile)
        state = self._committed(state, checked)
        outcome = self.settle(state, state.decisions)
        outcome.metrics["clipped"] = self._count_clipped(state.decisions, checked)
        return outcome

    def resolve(self, state: State, profile: Mapping[str, Any]) -> dict[str, Strategy]:
        """A profile by stage name, arrays as ``Pure``; unknown or missing stages raise ``UnknownName``/``InvalidAction``."""
        return boundary.resolve(self, state, profile)

    # -- solving ----------------------------------------------------------------------------------------------------

    def equilibrium(self, state: State) -> Equilibrium:
        """The equilibrium of every market of the state, with its certificate.

        Markets without an oracle of their own get multistart best-response search, ``kind="estimate"``, never certified.
        """
        if type(self).solve is not Market.solve:
            return self.solve(state)
        from .solution import search

        return search.equilibrium(self, state)

    def respond(self, state: State, prefix: Mapping[str, Any]) -> Equilibrium:
        """The equilibrium of the later stages, given the decisions of the earlier ones.

        Raises:
            NotOffered: The market has no such solver.
        """
        raise NotOffered(f"{self.id} has no solver for its later stages")

    def best_response(self, state: State, stage: str, profile: Mapping[str, Any]) -> BestResponse:
        """Each agent's best unilateral deviation at a stage (or at a role's only stage).

        Same-stage rivals and earlier stages are held fixed; every later stage re-answers as ``respond`` says.
        """
        from .solution import gains

        return gains.best_response(self, state, self.stage(stage).name, profile)

    def nash_conv(self, state: State, profile: Mapping[str, Any]) -> NashConv:
        """Sum of all unilateral gains of a profile of decisions or strategies, as [lower, upper], with the gains per role."""
        from .solution import gains

        return gains.nash_conv(self, state, profile)

    def social_optimum(self, state: State) -> SocialOptimum:
        """The welfare-maximising profile (welfare: ``welfare_name``)."""
        return self.optimum(state)

    # -- validation -------------------------------------------------------------------------------------------------

    def check_profile(self, state: State, profile: Mapping[str, Any], partial: bool = False) -> dict[str, Array]:
        """Decisions by stage name as the market's arrays (B, n, k).

        Raises:
            InvalidAction: Not a mapping, NaN or infinity, a wrong shape, a missing stage.
            UnknownName: A stage or role that does not exist.
        """
        return boundary.check_profile(self, state, profile, partial)

    def check_decisions(self, state: State, stage: str, value: Any) -> Array:
        """One stage's decisions as an array (B, n, k) of the market's library; raises ``InvalidAction``."""
        return boundary.check_decisions(self, state, stage, value)

    # -- shells -----------------------------------------------------------------------------------------------------

    def parallel_env(self, **kwargs: Any) -> Any:
        """This market as a PettingZoo ``ParallelEnv`` (one step is one stage)."""
        from .shells.parallel import MarketParallelEnv

        return MarketParallelEnv(self, **kwargs)

    def aec_env(self, **kwargs: Any) -> Any:
        """This market as a PettingZoo ``AECEnv``."""
        from .shells.aec import MarketAECEnv

        return MarketAECEnv(self, **kwargs)

    # -- states -----------------------------------------------------------------------------------------------------

    def take(self, state: State, index: Any) -> State:
        """The markets at ``index`` (integers, repeats allowed) as a state of their own."""
        index = np.asarray(index, dtype=np.int64).reshape(-1)
        batch = self.batch(state)

        def pick(leaf: Array, shared: bool) -> Array:
            if shared and leaf.shape[0] == 1 and (batch > 1 or len(index) != 1):
                return leaf
            if self.backend.name == "numpy":
                return leaf[index]
            return self.xp.take(leaf, self.xp.asarray(index), axis=0)

        return State(
            theta=tree_map(lambda a: pick(a, True), state.theta),
            origin=tree_map(lambda a: pick(a, True), state.origin),
            **{
                f: tree_map(lambda a: pick(a, False), getattr(state, f))
                for f in ("seed", "round", "history", "nature", "decisions")
            },
        )

    def theta64(self, state: State) -> Any:
        """``state.theta`` as NumPy float64, for solvers."""
        return tree_map(lambda a: self.backend.numpy(a), state.theta)

    def by_stage(self, items: Mapping[str, Any]) -> ByStage:
        """A mapping by stage name that also answers to single-stage roles."""
        return ByStage(items, self._alias)


def _rebuild(cls: type[Market], params: Any, backend: Backend, id: str) -> Market:
    market = cls(params, backend=backend)
    market.id = id
    return market
