"""From states of the federated slicing market to its solvers, and back to certified equilibria."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import NotOffered
from ...market import State, tree_map
from ...solution.gains import certified, payoff_scale
from ...strategy import BestResponse, Equilibrium, Pure, SocialOptimum
from . import finite, numeric, oracle
from . import optimum as optima
from .stage import Terms

if TYPE_CHECKING:
    from .rules import FederatedSlicing

Floats = NDArray[np.float64]

CITATION = (
    "marketenvs docs, federated slicing (max-min fairness on the peaks); uniform rule: Sprumont, Econometrica 59 (1991)"
)
_CLOSED = "peaks by Newton, common scale by one sort, gains in closed form"


def float_state(market: FederatedSlicing, state: State) -> State:
    """The state in NumPy float64, whatever the market's library."""
    if market.backend.name == "numpy" and market.backend.dtype_name == "float64":
        return state
    return tree_map(lambda a: market.backend.numpy(a), state)


def numpy_twin(market: FederatedSlicing) -> FederatedSlicing:
    """The same market on NumPy float64, for payoffs that have no closed form."""
    if market.backend.name == "numpy" and market.backend.dtype_name == "float64":
        return market
    known = getattr(market, "_twin", None)
    if known is None:
        known = type(market)(market.params)
        market._twin = known  # type: ignore[attr-defined]
    return known


def game_of(market: FederatedSlicing, state: State) -> oracle.SliceGame:
    """The slot's game at its own demand."""
    p, s = market.params, float_state(market, state)
    theta, need = s.theta, np.asarray(s.nature.need, float)
    terms = market.terms(theta)
    low, high = np.broadcast_to(theta.request_min, need.shape), np.broadcast_to(theta.request_max, need.shape)
    if p.action_mode == "relative":
        held = s.history.grants
        low, high = (
            np.clip(held * (1.0 - theta.relative_step), low, high),
            np.clip(held * (1.0 + theta.relative_step), low, high),
        )
    share = np.asarray(s.nature.load_share, float)
    plain = Terms(np.asarray(terms.is_delay), *(np.asarray(a, float) for a in terms[1:]))
    variant = "paper" if p.rewards == "paper" else p.utilisation
    return oracle.SliceGame(need, share, plain, low, high, theta.capacity, p.rule, variant)


def choices(market: FederatedSlicing, state: State, g: oracle.SliceGame) -> Floats | None:
    """Requests on offer, (B, M, K), where they are finitely many; None where requests are continuous."""
    p, s = market.params, float_state(market, state)
    low, high = np.broadcast_to(s.theta.request_min, g.need.shape), np.broadcast_to(s.theta.request_max, g.need.shape)
    if p.action_levels is not None:
        bounds = [np.asarray(market.backend.numpy(b)) for b in market.bounds(state, "request")]
        grid = market.stages[0].codec.candidates(*(np.broadcast_to(b, (*g.need.shape, 1)) for b in bounds))
        assert grid is not None
        return np.clip(np.moveaxis(grid[..., 0], 0, -1), low[..., None], high[..., None])
    if p.whole_blocks:
        whole = np.arange(1.0, float(np.max(g.request_max)) + 1.0)
        return np.clip(whole, np.maximum(np.round(g.request_min), 1.0)[..., None], np.round(g.request_max)[..., None])
    return None


def own_payoff(market: FederatedSlicing, state: State) -> numeric.Payoff:
    """Own reward (B, M) as a function of own grants (B, M)."""
    twin, s = numpy_twin(market), float_state(market, state)
    wide = s._replace(theta=s.theta._replace(capacity=np.full_like(s.theta.capacity, np.inf)))
    return lambda grants: twin._paid(wide, grants)[3]


def _shared(market: FederatedSlicing, state: State) -> Any:
    twin, s = numpy_twin(market), float_state(market, state)
    return lambda requests: np.mean(twin._paid(s, requests)[3], axis=1)


def _regime(market: FederatedSlicing, g: oracle.SliceGame) -> str:
    """Which method holds: finite, team, printed, numeric or closed."""
    p = market.params
    if p.action_levels is not None or p.whole_blocks:
        if p.reward == "team" or p.intra == "equal" or p.rewards == "paper":
            raise NotOffered(
                "no oracle for grids or whole blocks together with reward='team', intra='equal' or rewards='paper'"
            )
        return "finite"
    if p.reward == "team":
        return "team"
    if p.rewards == "paper":
        return "printed"
    if p.intra == "equal" or not np.all(oracle.peaks(g)[1]):
        return "numeric"
    return "closed"


def equilibrium(market: FederatedSlicing, state: State) -> Equilibrium:
    """The slot's Nash equilibrium at its own demand."""
    g = game_of(market, state)
    regime = _regime(market, g)
    kind, selection, method, stated = "exact", "unique allocation", _CLOSED, 0.0
    if regime == "finite":
        offered = choices(market, state, g)
        assert offered is not None
        found = finite.equilibrium(g, offered, 1 if market.params.whole_blocks else None)
        requests, gains = found.requests, found.gains
        selection = "first found from the fluid equilibrium by sequential best response"
        method = "sequential best response; gains by enumeration of every request on offer"
    elif regime == "team":
        requests, gains = _team(market, state, g)
        kind, method, stated = "bound", "social optimum; gains bounded by what any allocation could add", 5e-3
        selection = "the social optimum"
    elif regime == "numeric":
        requests, gains = numeric.equilibrium(g, own_payoff(market, state))
        kind, method, selection = (
            "estimate",
            "allocation on the best peaks, then damped best responses; gains by search",
            "found",
        )
    else:
        solved = oracle.equilibrium(g)
        requests = solved.requests
        gains = _printed_gains(market, state, g, requests) if regime == "printed" else oracle.gains(g, requests)
        if regime == "printed" or g.utilisation in ("paper", "served"):
            selection = "dominant: everyone asks the most, whatever the demand"
        if g.utilisation == "efficiency":
            selection = "max-min on the peaks (starved delay slices are indifferent, so others may exist)"
    values = {"slice": np.asarray(_values(market, state, requests))}
    epsilon = gains.max(axis=-1)
    exists = np.ones(len(epsilon), bool) if regime != "finite" else epsilon <= 1e-12
    decisions = {"request": _as_decisions(market, state, requests)}
    return Equilibrium(
        strategy=market.by_stage({k: Pure(v) for k, v in decisions.items()}),
        values=values,
        epsilon=epsilon,
        certified=certified(kind, epsilon, payoff_scale(values), stated),
        kind=kind,
        method=method,
        citation=CITATION,
        exists=exists,
        selection=selection,
        on_path=market.by_stage(decisions),
    )


def _values(market: FederatedSlicing, state: State, requests: Floats) -> Floats:
    twin, s = numpy_twin(market), float_state(market, state)
    return twin._shared(twin._paid(s, requests)[3])


def _as_decisions(market: FederatedSlicing, state: State, requests: Floats) -> Floats:
    low, high = (market.backend.numpy(b) for b in market.bounds(state, "request"))
    return np.clip(requests[:, :, None], low, high)


def _printed_gains(market: FederatedSlicing, state: State, g: oracle.SliceGame, requests: Floats) -> Floats:
    """Printed rewards rise in the own grant, so the best deviation is the largest grant within reach."""
    payoff = own_payoff(market, state)
    return np.maximum(payoff(oracle.reach(g, requests)[1]) - payoff(oracle.grants_of(g, requests)), 0.0)


def _team(market: FederatedSlicing, state: State, g: oracle.SliceGame) -> tuple[Floats, Floats]:
    """Requests that bring the social optimum (as far as least requests allow), and a bound of anyone's gain."""
    if market.params.intra == "equal" or market.params.rewards == "paper" or g.rule != "proportional":
        raise NotOffered(
            "reward='team' has an oracle with intra='max_min', corrected rewards and the proportional rule only"
        )
    best = optima.fluid_optimum(g)
    low, high = np.broadcast_to(g.request_min, best.grants.shape), np.broadcast_to(g.request_max, best.grants.shape)
    # A starved slice still has to ask its least: the others ask as much as they may, which makes that least request
    # weigh less.
    full = np.sum(best.grants, axis=-1, keepdims=True) >= g.capacity * (1 - 1e-9)
    scale = np.where(full, np.max(best.grants / high, axis=-1, keepdims=True), 1.0)
    requests = np.clip(best.grants / scale, low, high)
    reached = optima.welfare(g, oracle.grants_of(g, requests))
    count = best.grants.shape[-1]
    return requests, np.repeat(np.maximum(best.upper - reached, 0.0)[:, None] / count, count, axis=1)


def best_reply(market: FederatedSlicing, state: State, decisions: Floats) -> BestResponse:
    """Each slice's best request against the others', (B, M)."""
    g = game_of(market, state)
    s = float_state(market, state)
    requests = np.asarray(decisions, float)
    if market.params.action_mode == "relative":
        requests = np.clip(requests, s.theta.request_min, s.theta.request_max)
    regime, kind = _regime(market, g), "exact"
    if regime == "finite":
        offered = choices(market, state, g)
        assert offered is not None
        answers, gains = finite.best_replies(g, offered, requests, 1 if market.params.whole_blocks else None)
        method = "enumeration of every request on offer"
    elif regime == "team":
        gains, answers = numeric.shared_gains(g, _shared(market, state), requests)
        kind, method = "estimate", "search over the own request"
    elif regime == "numeric":
        gains, grants = numeric.gains(g, own_payoff(market, state), requests)
        answers = numeric.request_for(g, requests, grants)
        kind, method = "estimate", "search over the grants within reach"
    else:
        answers = oracle.best_response(g, requests)
        gains = _printed_gains(market, state, g, requests) if regime == "printed" else oracle.gains(g, requests)
        method = "closed form on the grants within reach"
    values = np.asarray(_values(market, state, requests)) + gains
    upper = gains if kind == "exact" else np.full_like(gains, np.inf)
    return BestResponse(_as_decisions(market, state, answers), values, gains, upper, kind, method)


def optimum(market: FederatedSlicing, state: State) -> SocialOptimum:
    """Largest sum of rewards over all allocations of the pool."""
    p, g = market.params, game_of(market, state)
    if p.rewards == "paper" or p.intra == "equal":
        raise NotOffered("social optimum is offered for corrected rewards with intra='max_min' only")
    many = g.need.shape[-1] > optima.MAX_FLUID_SLICES
    if p.whole_blocks:
        best, kind, method = optima.integer_optimum(g), "exact", "dynamic programme over whole blocks"
    elif many:
        best, kind, method = optima.priced_optimum(g), "estimate", "one price per block, bisected"
    else:
        best, kind = optima.fluid_optimum(g), "bound"
        method = "dynamic programme on W/1000, local refinement to 1e-9 RB, Newton; bound by priced cells"
    decisions = market.by_stage({"request": best.grants[:, :, None]})
    return SocialOptimum(best.welfare, decisions, kind, method, {"grants": best.grants, "upper": best.upper})


def analysis(market: FederatedSlicing, state: State) -> dict[str, Any]:
    """Documented extras.

    Returns:
        ``peaks`` p and ``scale`` s of the equilibrium; ``nash_grants``; ``certainty_equivalent`` and ``risk_adjusted``
        requests (what slices that
        trust their forecast, or know its error ``forecast_sd``, would ask) with their welfare; ``max_min`` welfare and
        ``log_fairness`` of
        the equilibrium; ``price_of_anarchy`` where the optimum is offered.
    """
    g, s = game_of(market, state), float_state(market, state)
    if _regime(market, g) not in ("closed", "finite", "team"):
        raise NotOffered("analysis is offered where the closed form holds")
    exact = oracle.equilibrium(g)
    rewards = oracle.payoff_of_grant(g, exact.grants)
    last_share = np.asarray(s.history.load_share, float)
    believed = oracle.certainty_equivalent(g, s.nature.forecast, last_share)
    careful = oracle.risk_adjusted(g._replace(load_share=last_share), s.nature.forecast, s.theta.forecast_sd)
    out: dict[str, Any] = {
        "peaks": exact.peaks,
        "scale": exact.scale[..., 0],
        "nash_grants": exact.grants,
        "nash_welfare": rewards.sum(axis=-1),
        "max_min": rewards.min(axis=-1),
        "log_fairness": np.sum(np.log(np.maximum(rewards, 1e-300)), axis=-1),
        "certainty_equivalent": believed.requests,
        "certainty_equivalent_welfare": optima.welfare(g, oracle.grants_of(g, believed.requests)),
        "risk_adjusted": careful.requests,
        "risk_adjusted_welfare": optima.welfare(g, oracle.grants_of(g, careful.requests)),
    }
    if g.need.shape[-1] <= optima.MAX_FLUID_SLICES and g.utilisation == "match":
        out["price_of_anarchy"] = optima.fluid_optimum(g).welfare / out["nash_welfare"]
    return out
