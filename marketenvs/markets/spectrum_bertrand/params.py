"""Parameters and presets of the spectrum price market."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...arrays import Choice, Distribution, Uniform
from ...channel import read_gains
from ...errors import InvalidParameter
from ...params import MarketParams, count, number, option, static, theta_type
from . import logit

AUCTIONS = ("channel", "pooled")

# the price range of the collusion study: a tenth of the gap below Nash to as much above monopoly
_STUDY = logit.logit_market([2.0, 2.0], [1.0, 1.0], 0.25)
_STUDY_GRID = logit.calvano_grid(_STUDY)[0]
_DESK = {"n_buyers": 4, "channels": 5}
_CALVANO = {
    "matching": "logit",
    "unit_cost": 1.0,
    "quality": 2.0,
    "taste_noise": 0.25,
    "outside": 0.0,
    "demand": 1.0,
    "price_floor": float(_STUDY_GRID[0]),
    "price_cap": float(_STUDY_GRID[-1]),
    "price_levels": 15,
}
_TABLE1 = {f"table1_{m}_{c}": {"n_buyers": m, "channels": c} for m in (10, 20, 50) for c in (100, 300, 600)}


@dataclass(frozen=True, kw_only=True)
class SpectrumParams(MarketParams):
    """Parameters of the spectrum price market; money is in arbitrary units, the paper gives none."""

    n_sellers: int = count(2, "sellers (primary users)", symbol="N")
    n_buyers: int = count(10, "buyers (secondary users); they are agents under channel and pooled matching", symbol="M")
    matching: str = option(
        "channel",
        "how buyers meet spectrum",
        {"channel": "exact", "pooled": "numeric", "clearing": "exact", "logit": "exact"},
    )
    payment: str = option(
        "all_pay", "what a bidder pays", {"all_pay": "exact", "first_price": "exact", "posted": "exact"}
    )
    channels: Any = number(100, "channels of each seller", unit="channels", symbol="C", shape=("n_sellers",), low=1)
    value: Any = number(1.0, "worth of one channel to a buyer", unit="money/channel", symbol="U", low=0, open_low=True)
    unit_cost: Any = number(
        0.0, "seller's cost per channel sold", unit="money/channel", symbol="c", shape=("n_sellers",), low=0
    )
    price_floor: Any = number(0.0, "lowest price, as a multiple of the value", low=0)
    price_cap: Any = number(1.0, "highest price and end of the price grid, as a multiple of the value", low=0)
    price_levels: int | None = count(None, "prices on a grid (None: continuous)", low=2, optional=True)
    bid_levels: int | None = count(None, "bids on a grid (None: continuous)", low=2, optional=True)
    price_groups: int = count(1, "prices per seller, each for an equal block of its channels")
    channel_choice: str = option(
        "blind",
        "whether a buyer picks a seller (a block) and draws a channel, or picks the channel",
        ("blind", "explicit"),
    )
    bid_encoding: str = option(
        "absolute", "bids in money, or as the share of the way from price to value", ("absolute", "relative")
    )
    values: str = option(
        "common", "one value for all buyers, or private draws from [0, value]", {"common": "exact", "private": "none"}
    )
    demand: Any = number(10.0, "clearing: buyers; logit: mass of demand", unit="channels", low=0, open_low=True)
    demand_curve: str = option("unit", "clearing: all value a channel alike, or linearly fewer", ("unit", "linear"))
    quality: Any = number(2.0, "logit: quality of a seller", unit="money", symbol="a", shape=("n_sellers",))
    taste_noise: Any = number(0.25, "logit: spread of tastes", unit="money", symbol="mu", low=0, open_low=True)
    outside: Any = number(0.0, "logit: worth of the outside option", unit="money", symbol="a_0")
    value_source: str = option(
        "given", "the value is a number, or the tariff on the rate of one channel of the radio cell", ("given", "radio")
    )
    channel: str = option(
        "model",
        "radio: path loss at a distance, or measured gains (mean over their users and PRBs)",
        ("model", "trace"),
    )
    gains: Any = static(
        None,
        "measured power gains (users, PRBs, slots) for channel='trace', or their file (npz, CSV; see "
        "marketenvs.channel.load_trace)",
    )
    slot: Any = static(None, "channel='trace': slot of the trace (None: the mean over all slots)")
    tariff: Any = number(1.0, "radio: money per Mbit/s", unit="money/(Mbit/s)", low=0, open_low=True)
    distance: Any = number(150.0, "radio: the buyers' distance from the base station", unit="m", low=10, high=1000)
    fidelity: str = option(
        "corrected", "corrected rules, or the paper's equations as printed", {"corrected": "exact", "paper": "numeric"}
    )
    team_reward: str = option("individual", "paper: whether sellers share the sum (eq. 3)", ("individual", "shared"))
    observation: str = option("own", "what sellers see of rivals' costs and channels", ("own", "full"))
    horizon: int = count(600, "rounds per episode (truncated, never terminated)", symbol="T")

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **_TABLE1,
        "desk": _DESK,
        "congested": {"n_buyers": 20, "channels": 10},
        "scarce": {"n_buyers": 50, "channels": 10},
        "edge": {"n_buyers": 30, "channels": 20},
        "drawn": {
            "n_buyers": 8,
            "payment": "first_price",
            "channels": Choice(tuple(range(4, 17))),
            "unit_cost": Uniform(0.0, 0.3),
            "observation": "full",
        },
        "clearing": {"matching": "clearing", "channels": 20, "demand": 30.0},
        "calvano": _CALVANO,
        "radio": {**_DESK, "value_source": "radio", "distance": Uniform(50.0, 300.0)},
        "reduced": {"n_buyers": 3, "channels": 1, "payment": "posted"},
        "grid": {**_DESK, "price_levels": 21, "bid_levels": 21, "bid_encoding": "relative"},
        "paper": {"fidelity": "paper", "payment": "all_pay", "price_levels": 21},
    }

    def check(self) -> None:
        """Options that fit together, whole numbers of channels, costs below values."""
        auction = self.matching in AUCTIONS
        if isinstance(self.channels, Distribution):
            if not isinstance(self.channels, Choice) or any(v != int(v) for v in self.channels.values):
                raise InvalidParameter(f"channels={self.channels!r}: draw channels with Choice over whole numbers")
        elif np.any(np.asarray(self.channels) != np.rint(self.channels)):
            raise InvalidParameter(f"channels={self.channels!r} must be whole numbers")
        fixed = not isinstance(self.channels, Distribution) and np.ndim(self.channels) <= 1
        finer = self.price_groups > 1 or self.channel_choice == "explicit"
        if finer and (self.matching != "channel" or not fixed):
            raise InvalidParameter(
                "price_groups > 1 and channel_choice='explicit' are offered for matching='channel' with fixed channels"
            )
        if fixed and self.price_groups > 1 and np.any(np.asarray(self.channels) % self.price_groups):
            raise InvalidParameter(f"channels={self.channels!r} must be a multiple of price_groups={self.price_groups}")
        if self.values == "private" and not auction:
            raise InvalidParameter(
                "values='private' is offered for matching 'channel' and 'pooled'; clearing has demand_curve"
            )
        if self.fidelity == "paper" and (self.matching, self.payment, self.values) != ("channel", "all_pay", "common"):
            raise InvalidParameter(
                "fidelity='paper' is the paper's model: matching='channel', payment='all_pay', common values"
            )
        if self.bounds_of("price_floor")[1] >= self.bounds_of("price_cap")[0]:
            raise InvalidParameter(f"price_floor={self.price_floor!r} must lie below price_cap={self.price_cap!r}")
        self._check_trace()
        given = self.value_source == "given"
        if self.matching != "logit" and given and self.bounds_of("unit_cost")[1] >= self.bounds_of("value")[0]:
            raise InvalidParameter(f"unit_cost={self.unit_cost!r} must be below value={self.value!r}")
        if self.demand_curve == "linear" and self.bounds_of("unit_cost")[1] > 0:
            raise InvalidParameter("demand_curve='linear' is offered without costs: set unit_cost=0")

    def _check_trace(self) -> None:
        """Gains exactly where they are used, of the right form, and a slot that is there."""
        if self.channel == "model":
            if self.gains is not None or self.slot is not None:
                raise InvalidParameter("gains or slot are given, but channel is not 'trace'")
            return
        if self.value_source != "radio":
            raise InvalidParameter("channel='trace' needs value_source='radio'")
        if self.gains is None:
            raise InvalidParameter("channel='trace' needs gains, shape (users, PRBs, slots)")
        gains = read_gains(self.gains)
        object.__setattr__(self, "gains", gains)
        if self.slot is not None and (isinstance(self.slot, bool) or not isinstance(self.slot, int | np.integer)):
            raise InvalidParameter(f"slot={self.slot!r} must be a whole number, or None for the mean over all slots")
        if self.slot is not None and not 0 <= self.slot < gains.shape[2]:
            raise InvalidParameter(f"slot={self.slot!r}: the gains have slots 0 to {gains.shape[2] - 1}")


SpectrumTheta = theta_type("SpectrumTheta", SpectrumParams, derived=("worth", "nash_profit", "joint_profit"))
SpectrumTheta.__module__ = __name__
