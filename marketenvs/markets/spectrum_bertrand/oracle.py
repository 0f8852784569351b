"""All of the market's mathematics under one name; pure NumPy float64, free of the market contract.

========================== ==========================================================================================
`urns`                     the buyers' stage at posted prices: who goes where, bid mixtures (spec 5.1)
`sellers`                  profits, best responses, equilibrium prices, the all-pay kink, welfare (5.2, 5.7)
`mixed`                    mixed price equilibria: pivoting, linear programs, double oracle (the pooled gap, grids)
`clearing`                 Bertrand-Edgeworth prices with unit and linear demand (5.3)
`private`                  bids of buyers with private values at one price (5.4)
`logit`                    logit demand: Nash, monopoly, collusion index (5.5)
`exploit`                  exact chances to win against arbitrary mixed rivals (5.6)
`repeated`                 exact regret of memory-one policies in the repeated game
========================== ==========================================================================================
"""

import numpy as np

from marketenvs.markets.spectrum_bertrand import clearing, exploit, logit, mixed, private, repeated, sellers, urns
from marketenvs.markets.spectrum_bertrand.sellers import seller_game


def pooled_mixture(
    game: sellers.Sellers, market: int = 0, tolerance: float = 1e-6, halvings: int = 2, rounds: int = 2
) -> mixed.MixedPair:
    """Mixed price equilibrium of two sellers of pooled channels, where ``sellers.equilibrium`` leaves a gain.

    Args:
        game: two sellers; see `sellers.seller_game`.
        market: which market of the batch.
        tolerance: gain at which to stop, relative to the largest profit ``(U - c) min(M, C)``.
        halvings: how often the price grid is refined; 3 is an order of magnitude more exact and slower.
        rounds: rounds of best replies over all prices after that.

    Raises:
        ValueError: for other numbers of sellers than two.
    """
    if game.n != 2:
        raise ValueError("mixed price equilibria are solved for two sellers")
    one = sellers.markets(game, np.array([market]))
    value, cost = float(one.value[0]), one.cost[0]

    def payoff(j: int, own: urns.Floats, rival: urns.Floats) -> urns.Floats:
        own, rival = np.broadcast_arrays(own, rival)
        price = np.stack([own, rival] if j == 0 else [rival, own], -1)[None]
        return sellers.profits(one, sellers.respond(one, price))[0, ..., j]

    alike = all(bool(x[0, 0] == x[0, 1]) for x in (one.cost, one.urns, one.capacity))
    scale = (value - cost.min()) * min(game.buyers, int((one.urns * one.capacity).max()))
    return mixed.double_oracle(
        payoff,
        (float(cost[0]), float(cost[1])),
        (value, value),
        symmetric=alike,
        tolerance=tolerance * scale,
        halvings=halvings,
        rounds=rounds,
    )


__all__ = [
    "clearing",
    "exploit",
    "logit",
    "mixed",
    "pooled_mixture",
    "private",
    "repeated",
    "seller_game",
    "sellers",
    "urns",
]
