"""The spec's default instance, built from its own numbers (section 5.6), for tests of the oracle."""

import numpy as np

from marketenvs.markets.two_tier_bidding.oracle import Auction, make_auction
from marketenvs.markets.two_tier_bidding.slices import SliceTables, slice_tables
from marketenvs.markets.two_tier_bidding.values import Values

MULTIPLIER = 32 * np.log10(2.0)
SNR = np.array([[438163180045.0579, 409560219393.47723, 464818986988.87805, 209011579627.28653]])
USERS = np.array([(9, 11, 7), (8, 11, 7), (6, 8, 13), (8, 2, 7)])
FLOOR = USERS.sum(1) * 0.051
CAP = USERS.sum(1) * 100.0
ACTIVITY = np.array([0.0062, 0.075, 0.25])
SLA = np.array([0.051, 100.0, 10.0])


def default_auction(payment: str = "kelly", weight=1.0, **changes) -> Auction:
    values = Values("shannon", MULTIPLIER * np.broadcast_to(weight, (1, 4)).astype(float), SNR)
    return make_auction(values, **{"price": 1.0, "floor": FLOOR, "cap": CAP, "payment": payment, **changes})


def ring_snr() -> np.ndarray:
    """SNR bandwidth of every user on rings, (1, M, 3, J): spec section 2."""
    index = np.arange(USERS.max())
    inside = index < USERS[..., None]
    distance = np.where(inside, 40 * np.sqrt((index + 0.5) / USERS[..., None]), 40.0)
    loss = 145.4 + 37.5 * np.log10(np.maximum(distance, 1.0) / 1000)
    return (10 ** ((46 + 174 + 20 - loss) / 10) / 1e6)[None]


def default_tables() -> SliceTables:
    return slice_tables(ring_snr(), USERS, ACTIVITY, SLA, MULTIPLIER, 0.2, 50)
