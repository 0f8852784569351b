"""A second method for two equal sellers: no code shared with the package, plain grids and enumeration.

Demand from the independent tenants (Brent's roots), the coalition's value by max-plus sums over a grid of amounts, the
sellers' distribution on a price grid, and the buyers' surplus by letting a brute-force follower buy at all pairs of
quantiles. Good to about four digits.
"""

import itertools

import numpy as np

COST, LOW, HIGH = 0.16, 1.0, 2.0
STEP, PRICES, PAIRS = 0.1, 3001, 1000


def value_table(tenants, most):
    """V(0, STEP, ..., most) by max-plus sums of the tenants' time-shared values."""
    amounts = np.arange(0, most + STEP / 2, STEP)
    total = np.zeros_like(amounts)
    for one in tenants:
        own = np.array([one.p_hat * w if w <= one.w_hat else one.g(w) for w in amounts])
        total = np.array([np.max(total[: k + 1] + own[k::-1][: k + 1]) for k in range(len(amounts))])
    return amounts, total


def surplus(tenants, room):
    """E[U_z] + C_sig of a coalition facing two sellers of ``room`` PRBs, and each seller's profit."""
    price = np.unique(
        np.concatenate([np.linspace(LOW, HIGH, PRICES), [t.p_hat for t in tenants if LOW < t.p_hat < HIGH]])
    )
    demand = np.sum([[t.demand(p) for p in price] for t in tenants], axis=0)
    high = (price - COST) * np.clip(demand - room, 0, room)
    low = (price - COST) * np.minimum(demand, room)
    profit = high.max()
    together = (LOW - COST) * min(room, demand[0] / 2)
    atom = 0.0
    if low[0] > profit:  # the lowest price is worth more than the residual: an atom there makes up for it
        atom = 1.0 if together >= profit else (low[0] - profit) / (low[0] - together)
    apart = low - high
    raw = np.where(
        apart > 1e-12, (low - profit) / np.where(apart > 1e-12, apart, 1.0), np.where(low >= profit, 0.0, -1.0)
    )
    raw[np.argmax(high) :] = 1.0
    spread = np.clip(np.maximum.accumulate(np.maximum(raw, atom)), 0.0, 1.0)
    if atom >= 1.0:
        spread, profit = np.ones_like(price), together
    chance = (np.arange(PAIRS) + 0.5) / PAIRS
    drawn = np.interp(chance, *_rising(spread, price))
    amounts, value = value_table(tenants, 2 * room)
    split = round(room / STEP)
    from_one = np.array([np.max(value[: split + 1] - p * amounts[: split + 1]) for p in drawn])
    from_both = np.array([np.max(value[split:] - q * amounts[split:]) for q in drawn])
    cheap, dear = np.minimum.outer(drawn, drawn), np.maximum.outer(drawn, drawn)
    order = np.arange(PAIRS)
    first, second = np.minimum.outer(order, order), np.maximum.outer(order, order)
    utility = np.maximum(from_one[first], from_both[second] + (dear - cheap) * room)
    return utility.mean(), profit


def _rising(spread, price):
    """The distribution as (probabilities, prices) that `numpy.interp` inverts; flat pieces (gaps) become jumps."""
    keep = np.concatenate([[True], np.diff(spread) > 0])
    before = np.concatenate([keep[1:], [True]])
    used = keep | before
    return spread[used] + 1e-15 * np.arange(used.sum()), price[used]


def partitions(items):
    """All partitions of a list, as lists of tuples."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for k in range(len(rest) + 1):
        for others in itertools.combinations(rest, k):
            left = [x for x in rest if x not in others]
            for tail in partitions(left):
                yield [(first, *others), *tail]


def payoffs(partition, worth, reputation, signalling):
    """What every buyer gets: the coalition of highest reputation (then largest, then first) is served, shares by reputation."""
    winner = max(partition, key=lambda z: (round(sum(reputation[i] for i in z), 12), len(z), -min(z)))
    out = {}
    for z in partition:
        net = (worth[frozenset(z)] if z == winner else 0.0) - signalling * len(z) * (len(z) - 1)
        for i in z:
            out[i] = net * reputation[i] / sum(reputation[j] for j in z)
    return out


def moves(partition, i):
    """Partitions after buyer i joins another coalition or goes alone, with the host joined (or none)."""
    rest = [tuple(j for j in z if j != i) for z in partition]
    rest = [z for z in rest if z]
    for k, host in enumerate(rest):
        yield [*rest[:k], tuple(sorted((*host, i))), *rest[k + 1 :]], host
    yield [*rest, (i,)], ()


def stable(partition, worth, reputation, signalling):
    """Whether a partition is Nash-stable and individually stable."""
    here = payoffs(partition, worth, reputation, signalling)
    nash = individual = True
    for i in here:
        for after, host in moves(partition, i):
            then = payoffs(after, worth, reputation, signalling)
            if then[i] > here[i] + 1e-9:
                nash = False
                if all(then[j] >= here[j] - 1e-9 for j in host):
                    individual = False
    return nash, individual


def shapley(worth, reputation, signalling):
    """Average marginal worth over all orders; a set is served only if it outranks everybody else together."""
    n = len(reputation)

    def v(members):
        mine = sum(reputation[i] for i in members)
        served = mine > sum(reputation) - mine + 1e-12
        return (
            (worth[frozenset(members)] if served else 0.0) - signalling * len(members) * (len(members) - 1)
            if members
            else 0.0
        )

    total = np.zeros(n)
    orders = list(itertools.permutations(range(n)))
    for order in orders:
        for k, i in enumerate(order):
            total[i] += v(order[: k + 1]) - v(order[:k])
    return total / len(orders)
