"""Genetic algorithm for one-sided optima: the paper's problems P1 (provider) and P2 (consumers), with pymoo.

One role sets everybody's decisions to its own advantage: P1 chooses price and purchases for the provider's profit, P2
chooses purchases
(and the price, where it is not given) for the consumers' total profit. Neither is an equilibrium; the paper's Fig. 8a
compares them with
it. Any market and role can be asked. Genes are positions in [0, 1] between the natural bounds; a generation is valued
in one batch.

The paper gives no operators. Here: population 50, tournaments of 3, blend crossover (BLX-0.5), Gaussian mutation of 10
% of the range
cut off at the bounds, 2 elites, 200 generations.

L. Eshelman, J. Schaffer, "Real-coded genetic algorithms and interval-schemata", FOGA 2 (1993). J. Blank, K. Deb,
"pymoo", IEEE Access 8
(2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from marketenvs.errors import InvalidParameter, UnknownName, nearest
from marketenvs.market import Market, State
from marketenvs.solution.search import stage_bounds

from . import snapshot
from .arrangement import in_segments
from .best_constant import StageConstant
from .registry import Algorithm
from .run import Policies, Report, role_seed

POPULATION, TOURNAMENT, BLEND, SIGMA, ELITES, GENERATIONS = 50, 3, 0.5, 0.1, 2, 200
TRAIN_MARKETS = 8


class OneSided(NamedTuple):
    """The best found for one role that sets everybody's decisions."""

    value: float
    """Mean, over the state's markets, of the sum of the role's payoffs."""
    positions: dict[str, np.ndarray]
    """Chosen stage -> (n, k) positions in [0, 1]."""
    decisions: dict[str, np.ndarray]
    """Stage -> decisions (B, n, k) in natural units, fixed ones included."""
    history: np.ndarray
    """(generations,) best value so far."""


def one_sided_optimum(
    market: Market,
    state: State,
    role: str,
    *,
    fixed: Mapping[str, Any] | None = None,
    generations: int = GENERATIONS,
    seed: int = 0,
    report: Report | None = None,
) -> OneSided:
    """Maximise the sum of a role's payoffs over the decisions of everybody.

    Args:
        market: The market.
        state: State of B markets; one set of positions serves them all, valued by the mean.
        role: Whose payoffs count ("provider" is P1, "consumer" P2).
        fixed: Stage -> decisions that are given, (B, n, k) or what broadcasts to it (a number).
        generations: Generations after the first population.
        seed: Seed of the search.
        report: Called after every generation with the number of market rounds valued so far.

    Raises:
        UnknownName: No such role or stage.
        InvalidParameter: Nothing is left to choose, or fewer than one generation.
    """
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.operators.sampling.rnd import FloatRandomSampling
    from pymoo.operators.selection.tournament import TournamentSelection
    from pymoo.optimize import minimize

    if role not in market.roles:
        raise UnknownName(f"{market.id} has no role {role!r}; {nearest(role, market.roles)}")
    if generations < 1:
        raise InvalidParameter(f"generations must be at least 1, got {generations}")
    problem = _problem(market, state, role, fixed or {}, report)
    crossover, mutation, survival = _operators()
    algorithm = GA(
        pop_size=POPULATION,
        n_offsprings=POPULATION - ELITES,
        sampling=FloatRandomSampling(),
        selection=TournamentSelection(func_comp=_best_of, pressure=TOURNAMENT),
        crossover=crossover,
        mutation=mutation,
        survival=survival,
        eliminate_duplicates=False,
    )
    found = minimize(problem, algorithm, ("n_gen", generations + 1), seed=int(seed) & 0x7FFFFFFF)
    genes = np.asarray(found.X, dtype=np.float64)
    decisions = {name: value[0] for name, value in problem.decode(genes[None]).items()}
    return OneSided(-float(found.F[0]), problem.positions(genes), decisions, np.array(problem.best_values))


def _problem(market: Market, state: State, role: str, fixed: Mapping[str, Any], report: Report | None) -> Any:
    from pymoo.core.problem import Problem

    given = {market.stage(name).name: value for name, value in fixed.items()}
    bounds = {s.name: stage_bounds(market, state, s.name) for s in market.stages}
    free = [s.name for s in market.stages if s.name not in given]
    shapes = {name: bounds[name][0].shape[1:] for name in free}
    sizes = [int(np.prod(shapes[name])) for name in free]
    if not free:
        raise InvalidParameter("all stages are fixed: there is nothing left to choose")
    batch = market.batch(state)

    class _OneSided(Problem):
        """Minimise minus the role's total payoff."""

        def __init__(self) -> None:
            super().__init__(n_var=sum(sizes), n_obj=1, xl=0.0, xu=1.0)
            self.best_values: list[float] = []
            self.valued = 0

        def positions(self, genes: np.ndarray) -> dict[str, np.ndarray]:
            parts = np.split(genes, np.cumsum(sizes)[:-1], axis=-1)
            return {n: p.reshape(*genes.shape[:-1], *shapes[n]) for n, p in zip(free, parts, strict=True)}

        def decode(self, genes: np.ndarray) -> dict[str, np.ndarray]:
            """(P, genes) -> stage -> (P, B, n, k)."""
            out = {}
            at = self.positions(genes)
            for name, (low, high) in bounds.items():
                codec = market.stage(name).codec
                value = given[name] if name in given else low + (high - low) * at[name][:, None]
                value = np.broadcast_to(np.asarray(value, dtype=np.float64), (len(genes), *low.shape))
                out[name] = codec.snap(np, value, low, high) if codec.discrete else value
            return out

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            many = market.take(state, np.tile(np.arange(batch), len(x)))
            profile = {name: v.reshape(-1, *v.shape[2:]) for name, v in self.decode(x).items()}
            total = market.backend.numpy(market.payoff(many, profile)[role]).sum(axis=1)
            value = total.reshape(len(x), batch).mean(axis=1)
            out["F"] = -value[:, None]
            self.best_values.append(max([float(value.max()), *self.best_values[-1:]]))
            self.valued += len(x)
            if report is not None:
                report(self.valued)

    return _OneSided()


def _best_of(pop: Any, contenders: np.ndarray, **kwargs: Any) -> np.ndarray:
    """The fittest of each row of contenders."""
    fitness = pop.get("F")[:, 0]
    rows = np.arange(len(contenders))
    return contenders[rows, fitness[contenders].argmin(axis=1)][:, None]


def _operators() -> tuple[Any, Any, Any]:
    """Blend crossover, Gaussian mutation with cut-off, and survival of the elites and all offspring."""
    from pymoo.core.crossover import Crossover
    from pymoo.core.mutation import Mutation
    from pymoo.core.survival import Survival

    class Blend(Crossover):
        """BLX-alpha: each child's gene uniform on the parents' interval, widened by alpha of its length on both sides."""

        def __init__(self) -> None:
            super().__init__(2, 2, prob=0.9)

        def _do(self, problem: Any, X: np.ndarray, *args: Any, random_state: Any = None, **kwargs: Any) -> np.ndarray:
            low, high = X.min(axis=0), X.max(axis=0)
            width = high - low
            return np.clip(low - BLEND * width + (1 + 2 * BLEND) * width * random_state.random(X.shape), 0.0, 1.0)

    class Gauss(Mutation):
        """Each gene with probability 1 / genes: a normal step of 10 % of the range, cut off at the bounds."""

        def _do(self, problem: Any, X: np.ndarray, *args: Any, random_state: Any = None, **kwargs: Any) -> np.ndarray:
            moved = random_state.random(X.shape) < 1.0 / X.shape[1]
            return np.clip(X + np.where(moved, SIGMA * random_state.standard_normal(X.shape), 0.0), 0.0, 1.0)

    class Elites(Survival):
        """The two best of the parents, and all offspring."""

        def _do(self, problem: Any, pop: Any, *args: Any, n_survive: int | None = None, **kwargs: Any) -> Any:
            if n_survive is None or len(pop) <= n_survive:
                return pop
            parents = pop[: -(POPULATION - ELITES)]
            elites = parents[np.argsort(parents.get("F")[:, 0], kind="stable")[:ELITES]]
            return type(pop).merge(elites, pop[-(POPULATION - ELITES) :])

    return Blend(), Gauss(), Elites(filter_infeasible=False)


class _Found:
    """The roles' policies so far."""

    def __init__(self) -> None:
        self.policies: Policies = {}


def train(task: Any, seed: int, budget: int, report: Report | None = None) -> Policies:
    """Every role plays its own part of its own one-sided optimum, as a constant (what the paper's Fig. 8a compares).

    ``budget`` counts valued market rounds, of ``TRAIN_MARKETS`` draws each; it is shared by the roles.
    """
    market = task.make_market()
    state = market.reset(seed=role_seed([seed], "genetic"), batch=TRAIN_MARKETS, split="train")
    share = max(1, budget // len(market.roles))
    generations = max(1, min(GENERATIONS, (share // TRAIN_MARKETS - POPULATION) // (POPULATION - ELITES)))
    found = _Found()

    def search(first: int, last: int) -> None:
        for role in list(market.roles)[first // share : last // share]:

            def counted(
                rounds: int, policies: Any = None, metrics: Any = None, before: int = len(found.policies)
            ) -> None:
                if report is not None:
                    report(min(budget, before * share + rounds * TRAIN_MARKETS))

            best = one_sided_optimum(market, state, role, generations=generations, seed=seed, report=counted)
            found.policies[role] = StageConstant({name: best.positions[name] for name in market.stages_of[role]})

    about = {"market": market.id, "seeds": [int(seed)]}
    in_segments(share * len(market.roles), share, about, search, *snapshot.keeper(found))
    return found.policies


ALGORITHM = Algorithm(
    "genetic",
    train=train,
    title="Genetic algorithm (P1, P2)",
    access="model",
    citation="pymoo (Blank, Deb 2020); problems P1 and P2 of X. Ren et al., AI-Bazaar",
    quick_budget=40_000,
    requires=("pymoo",),
)
