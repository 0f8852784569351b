"""One slot of the slicing market without randomness: who gets how many resource blocks (RBs), and what that is worth.

Everything here is a pure function in the Array API: the rules call it with the market's namespace, the solvers with
NumPy. Arrays are batched as
``(..., M)``: M slices, any leading axes. `marketenvs.markets.federated_slicing.literal` holds the paper's own formulas
and shares nothing with this file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Array = Any

UTILISATIONS = ("match", "served", "efficiency", "paper")
ALLOCATION_RULES = ("proportional", "uniform")
MIN_NEED = 1e-6
"""RB. Zero demand is floored here: the load ratio stays finite, utilisation tends to 0 and utility to 1."""
_EXP_LIMIT = 80.0  # beyond it the logistic is 0 or 1 to 1e-34, and float32 would overflow


class Terms(NamedTuple):
    """What a slice is paid for; every field is a number or broadcasts against ``(..., M)``.

    Attributes:
        is_delay: True for a slice with a delay bound, False for a slice with a rate requirement.
        steepness: k, slope of the satisfaction curve (dimensionless, 1..50).
        utilisation_weight: Lambda, weight of utilisation in the reward.
        utility_weight: mu, weight of the utility (mean satisfaction) in the reward.
    """

    is_delay: Array
    steepness: Array
    utilisation_weight: Array
    utility_weight: Array


class StageResult(NamedTuple):
    """What one slot gave: all ``(..., M)``."""

    grants: Array
    ratio: Array
    utility: Array
    utilisation: Array
    reward: Array


def sigmoid(z: Array, xp: Any) -> Array:
    """Logistic function without overflow."""
    return 1.0 / (1.0 + xp.exp(-xp.clip(z, -_EXP_LIMIT, _EXP_LIMIT)))


def delay_margin(ratio: Array, load_share: Array) -> Array:
    """Margin y = (x - c)/(1 - c): rate left above the offered load, per required headroom; delay = bound / y."""
    return (ratio - load_share) / (1.0 - load_share)


def utility(ratio: Array, load_share: Array, terms: Terms, xp: Any) -> Array:
    """Mean satisfaction U of a slice in [0, 1) (equations 2-4 with relative arguments).

    Args:
        ratio: x = granted / needed RBs, ``(..., M)``.
        load_share: c = share of the need that only carries the offered load, in [0, 1); 0 for rate slices.
        terms: the slices' terms.
        xp: array namespace.
    """
    margin = delay_margin(ratio, load_share)
    stable = margin > 0.0
    slack = 1.0 - 1.0 / xp.where(stable, margin, 1.0)
    z = terms.steepness * xp.where(terms.is_delay, slack, ratio - 1.0)
    value = sigmoid(z, xp)
    return xp.where(terms.is_delay & ~stable, 0.0 * value, value)


def utilisation(ratio: Array, variant: str, xp: Any) -> Array:
    """Utilisation Omega of a slice (equation 5 and its repairs).

    Args:
        ratio: x = granted / needed RBs.
        variant: ``match`` min(x, 1/x); ``served`` min(1, x); ``efficiency`` min(1, 1/x); ``paper`` x, as printed.
        xp: array namespace.

    Raises:
        ValueError: for another variant.
    """
    one = xp.ones_like(ratio)
    if variant == "match":
        return xp.where(ratio <= 1.0, ratio, 1.0 / xp.where(ratio > 0.0, ratio, one))
    if variant == "served":
        return xp.where(ratio < 1.0, ratio, one)
    if variant == "efficiency":
        return xp.where(ratio <= 1.0, one, 1.0 / xp.where(ratio > 0.0, ratio, one))
    if variant == "paper":
        return ratio
    raise ValueError(f"utilisation={variant!r} is not offered; choose one of {UTILISATIONS}")


def proportional(requests: Array, capacity: Array, xp: Any) -> Array:
    """Grants w = b min(1, W / sum b)."""
    total = xp.sum(requests, axis=-1, keepdims=True)
    fits = total <= capacity
    return requests * xp.where(fits, xp.ones_like(total), capacity / total)


def uniform(requests: Array, capacity: Array, xp: Any) -> Array:
    """Sprumont's uniform rule with free disposal: w = min(b, l), where l makes the grants sum to W under scarcity.

    For every i, W = sum min(b, l) <= (sum of the i smallest) + (M - i) l, with equality at the right i: so l is a
    maximum and needs no search.
    """
    ordered = xp.sort(requests, axis=-1)
    below = xp.cumulative_sum(ordered, axis=-1) - ordered
    count = requests.shape[-1]
    remaining = xp.asarray(list(range(count, 0, -1)), dtype=requests.dtype)
    level = xp.max((capacity - below) / remaining, axis=-1, keepdims=True)
    return xp.minimum(requests, level)


def largest_remainder(requests: Array, capacity: Array, xp: Any) -> Array:
    """Whole RBs: requests rounded to at least 1, then W b / sum b by largest remainder, ties to the lowest index."""
    whole = xp.maximum(xp.round(requests), xp.ones_like(requests))
    total = xp.sum(whole, axis=-1, keepdims=True)
    share = xp.floor(whole * capacity / total)
    # The remainder is taken in whole numbers, so that equal requests tie exactly.
    remainder = whole * capacity - share * total
    left = capacity - xp.sum(share, axis=-1, keepdims=True)
    order = xp.argsort(-remainder, axis=-1, stable=True)
    rank = xp.astype(xp.argsort(order, axis=-1, stable=True), requests.dtype)
    rounded = share + xp.where(rank < left, xp.ones_like(share), xp.zeros_like(share))
    return xp.where(total <= capacity, whole, rounded)


def allocate(requests: Array, capacity: Array, rule: str, xp: Any, rb_quantum: int | None = None) -> Array:
    """Grants w of the allocation rule, RB.

    Args:
        requests: b, RB, ``(..., M)``, positive.
        capacity: W, RB, scalar or ``(..., 1)``.
        rule: ``proportional`` or ``uniform``.
        xp: array namespace.
        rb_quantum: None for time-shared (fluid) RBs, 1 for whole RBs (only with ``proportional``).

    Raises:
        ValueError: for a combination that is not offered.
    """
    if rb_quantum not in (None, 1):
        raise ValueError(f"rb_quantum={rb_quantum!r} is not offered; choose None (fluid) or 1 (whole RBs)")
    if rule == "proportional":
        return proportional(requests, capacity, xp) if rb_quantum is None else largest_remainder(requests, capacity, xp)
    if rule == "uniform":
        if rb_quantum is not None:
            raise ValueError("rb_quantum=1 is offered with rule='proportional' only")
        return uniform(requests, capacity, xp)
    raise ValueError(f"rule={rule!r} is not offered; choose one of {ALLOCATION_RULES}")


def reward(ratio: Array, load_share: Array, terms: Terms, variant: str, xp: Any) -> Array:
    """R = Lambda Omega + mu U (equation 14)."""
    return terms.utilisation_weight * utilisation(ratio, variant, xp) + terms.utility_weight * utility(
        ratio, load_share, terms, xp
    )


def stage(
    need: Array,
    load_share: Array,
    requests: Array,
    terms: Terms,
    *,
    capacity: Array,
    xp: Any,
    rule: str = "proportional",
    variant: str = "match",
    rb_quantum: int | None = None,
) -> StageResult:
    """Allocate one slot and pay the slices.

    Args:
        need: phi, RB that would give every device of the slice exactly its requirement, ``(..., M)``.
        load_share: c in [0, 1), ``(..., M)``.
        requests: b, RB, ``(..., M)``.
        terms: the slices' terms.
        capacity: W, RB.
        xp: array namespace.
        rule: allocation rule.
        variant: utilisation variant.
        rb_quantum: None or 1.
    """
    need = xp.where(need > MIN_NEED, need, MIN_NEED)
    grants = allocate(requests, capacity, rule, xp, rb_quantum)
    ratio = grants / need
    satisfied = utility(ratio, load_share, terms, xp)
    used = utilisation(ratio, variant, xp)
    return StageResult(
        grants, ratio, satisfied, used, terms.utilisation_weight * used + terms.utility_weight * satisfied
    )


class SlaTerms(NamedTuple):
    """Service-level terms per slice, each broadcasting against ``(..., M)``.

    Attributes:
        is_delay: delay slice or rate slice.
        headroom: L / tau_max, Mbit/s per device that a delay bound needs above the offered load (0 for rate slices).
    """

    is_delay: Array
    headroom: Array


def need(load: Array, efficiency: Array, sla: SlaTerms, xp: Any) -> tuple[Array, Array]:
    """RBs needed and the share of them that only carries the load (equation 5's varphi made precise).

    Args:
        load: d, offered load per device, Mbit/s, ``(..., M, N)``.
        efficiency: e, Mbit/s per RB, ``(..., M, N)``.
        sla: the slices' terms.
        xp: array namespace.

    Returns:
        phi ``(..., M)`` in RB, floored at ``MIN_NEED``, and c ``(..., M)`` in [0, 1).
    """
    inverse = 1.0 / efficiency
    carried = xp.sum(load * inverse, axis=-1)
    spare = xp.sum(inverse, axis=-1) * sla.headroom
    total = carried + xp.where(sla.is_delay, spare, 0.0 * spare)
    floored = xp.where(total > MIN_NEED, total, MIN_NEED)
    return floored, xp.where(sla.is_delay, carried / floored, 0.0 * carried)


def device_rates(
    grants: Array, phi: Array, load_share: Array, load: Array, efficiency: Array, sla: SlaTerms, xp: Any
) -> tuple[Array, Array]:
    """Rate per device under the max-min split: every device of a slice gets the same satisfaction.

    Args:
        grants: w, RB, ``(..., M)``.
        phi: need, RB, ``(..., M)``.
        load_share: c, ``(..., M)``.
        load: d, Mbit/s, ``(..., M, N)``.
        efficiency: e, Mbit/s per RB, ``(..., M, N)``.
        sla: the slices' terms.
        xp: array namespace.

    Returns:
        Rates (Mbit/s) and RBs per device, both ``(..., M, N)``. An unstable delay slice (x <= c) shares what it has in
        proportion to the load.
    """
    ratio = grants / phi
    margin = delay_margin(ratio, load_share)
    stable = margin > 0.0
    delay = xp.broadcast_to(xp.asarray(sla.is_delay), ratio.shape)
    spare = xp.where(delay & stable, margin * sla.headroom, 0.0 * ratio)
    starved = ratio / xp.where(load_share > 0.0, load_share, xp.ones_like(load_share))
    scale = xp.where(delay, xp.where(stable, xp.ones_like(ratio), starved), ratio)
    rates = load * xp.expand_dims(scale, axis=-1) + xp.expand_dims(spare, axis=-1)
    return rates, rates / efficiency


def equal_split_utility(
    grants: Array, load: Array, efficiency: Array, sla: SlaTerms, steepness: Array, xp: Any
) -> tuple[Array, Array]:
    """Mean satisfaction and share of satisfied devices when every device gets w / N blocks (``intra="equal"``).

    Args:
        grants: w, RB, ``(..., M)``.
        load: d, Mbit/s, ``(..., M, N)``.
        efficiency: e, Mbit/s per RB, ``(..., M, N)``.
        sla: the slices' terms.
        steepness: k, ``(..., M)``.
        xp: array namespace.
    """
    rates = xp.expand_dims(grants / load.shape[-1], axis=-1) * efficiency
    delay = xp.broadcast_to(xp.expand_dims(xp.asarray(sla.is_delay), axis=-1), rates.shape)
    headroom = xp.expand_dims(sla.headroom, axis=-1) + 0.0 * rates
    margin = (rates - load) / xp.where(delay, headroom, xp.ones_like(rates))
    stable = margin > 0.0
    slack = 1.0 - 1.0 / xp.where(stable, margin, xp.ones_like(margin))
    excess = rates / xp.where(load > 0.0, load, xp.ones_like(load)) - 1.0
    value = sigmoid(xp.expand_dims(steepness, axis=-1) * xp.where(delay, slack, excess), xp)
    value = xp.where(delay & ~stable, 0.0 * value, value)
    met = xp.where(delay, margin >= 1.0, excess >= 0.0)
    return xp.mean(value, axis=-1), xp.mean(xp.astype(met, value.dtype), axis=-1)
