"""Replies to mixtures, against enumeration of every combination of the others' atoms."""

import itertools

import numpy as np
import pytest

import marketenvs as me
from marketenvs.strategy import Pure, Samples

ID = "SpectrumBertrand-v0"


@pytest.mark.parametrize("payment", ["posted", "first_price", "all_pay"])
@pytest.mark.parametrize("encoding", ["absolute", "relative"])
def test_replies_to_unequal_mixtures(payment, encoding):
    """3 buyers, 3 atoms each with ties: payoff by enumeration, and the reply earns what it says and is not beaten."""
    market = me.make(ID, n_buyers=3, channels=(1, 2), payment=payment, bid_encoding=encoding)
    state = market.reset(0, batch=2)
    rng = np.random.default_rng(2)
    values = np.stack([rng.integers(0, 3, size=(3, 2, 3)) + 0.5, np.round(rng.uniform(0.2, 1, size=(3, 2, 3)), 1)], -1)
    weights = np.moveaxis(rng.dirichlet(np.ones(3), size=(2, 3)), 2, 0)
    prices = np.array([[[0.2], [0.3]], [[0.1], [0.5]]])
    mixture = Samples(values, weights)
    reply = market.best_response(state, "bidding", {"pricing": Pure(prices), "bidding": mixture})

    def worth(buyer, own=None):
        total = np.zeros(2)
        for combo in itertools.product(range(3), repeat=3):
            if own is not None and combo[buyer] != 0:
                continue
            bids = np.stack([values[s, :, i] for i, s in enumerate(combo)], 1)
            chance = np.prod([weights[s, :, i] for i, s in enumerate(combo) if own is None or i != buyer], axis=0)
            if own is not None:
                bids[:, buyer] = own
            total += chance * market.payoff(state, {"pricing": prices, "bidding": bids})["buyer"][:, buyer]
        return total

    for buyer in range(3):
        base = worth(buyer)
        np.testing.assert_allclose(reply.values[:, buyer] - reply.gains[:, buyer], base, atol=1e-12)
        np.testing.assert_allclose(worth(buyer, reply.decisions[:, buyer]), reply.values[:, buyer], atol=1e-9)
        for group, bid in itertools.product((0.5, 1.5, 2.5), np.linspace(0, 1, 21)):
            assert np.all(worth(buyer, np.array([group, bid])) <= reply.values[:, buyer] + 1e-9)


def test_draws_of_the_equilibrium_mixture_show_hardly_any_gain():
    """256 draws of everybody's equilibrium bids: the split keeps noise from being read as a gain."""
    market = me.make(ID, preset="desk", payment="first_price")
    state = market.reset(0, batch=40)
    prices = market.equilibrium(state).strategy["pricing"].decisions
    here = market.committed(state, {"pricing": prices})
    answer = market.equilibrium(state).strategy["bidding"].answer(here)
    rng = np.random.default_rng(1)
    draws = np.stack([answer.draw(rng.uniform(size=(40, 4))) for _ in range(256)])
    reply = market.best_response(state, "bidding", {"pricing": Pure(prices), "bidding": Samples(draws)})
    assert reply.kind == "estimate"
    assert reply.gains.mean() < 0.01
    uniform = np.stack([np.stack([rng.uniform(0, 3, (40, 4)), rng.uniform(0, 1, (40, 4))], -1) for _ in range(256)])
    worse = market.best_response(state, "bidding", {"pricing": Pure(prices), "bidding": Samples(uniform)})
    assert worse.gains.mean() > 0.3
