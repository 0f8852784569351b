"""Parameters and presets of coalition trading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...arrays import Uniform
from ...channel import RADIO_PRESETS
from ...errors import InvalidParameter, nearest
from ...params import MarketParams, count, flag, number, option, static, theta_type

SERVICES = ("embb", "urllc", "mmtc")
MOST_TABLED = 6  # buyers for which every coalition is listed (Shapley shares, merging, integer tables, labels)

_GRID = {"price_levels": 100, "amount_levels": 51}
_REDUCED = {"n_sellers": 2, "n_buyers": 2, "reputation": (0.9, 0.8), "service": ("embb", "urllc")}


@dataclass(frozen=True, kw_only=True)
class CoalitionParams(MarketParams):
    """Parameters of coalition trading; defaults are the paper's Table I where it has a value, else the spec's filler."""

    horizon: int = count(50, "rounds per episode (truncated, never terminated)", symbol="T")
    n_sellers: int = count(2, "seller tenants", symbol="M")
    n_buyers: int = count(3, "buyer tenants", symbol="N")
    service: Any = static(("embb", "embb", "urllc"), "service of each buyer: embb, urllc or mmtc")
    reputation: Any = number(
        (0.9, 0.6, 0.8), "reputation", symbol="Omega", shape=("n_buyers",), low=0, high=1, open_low=True
    )
    prb_rate: Any = number(
        625.0,
        "rate that a tenant's users draw from one PRB",
        unit="kbit/s per PRB",
        symbol="rho",
        shape=("n_buyers",),
        low=0,
    )
    steepness: Any = number(
        6.0, "slope of the satisfaction sigmoid, dimensionless", symbol="eta", shape=("n_buyers",), low=0, open_low=True
    )
    users: Any = number(50.0, "users per tenant", symbol="K_u", low=1)
    money_value: Any = number(
        4.0,
        "worth of one fully satisfied nominal PRB per unit reputation",
        unit="$/PRB",
        symbol="kappa",
        low=0,
        open_low=True,
    )
    embb_rate: Any = number(500.0, "rate need of an eMBB user", unit="kbit/s", low=0, open_low=True)
    mmtc_rate: Any = number(15.0, "rate need of an mMTC user", unit="kbit/s", low=0, open_low=True)
    urllc_rate: Any = number(
        10.0, "offered traffic of a URLLC user", unit="kbit/s", symbol="r_min", low=0, open_low=True
    )
    urllc_delay: Any = number(10.0, "allowed delay of a URLLC user", unit="ms", symbol="tau_max", low=0, open_low=True)
    packet_bits: Any = number(2048.0, "packet length", unit="bit", symbol="L", low=0, open_low=True)
    lease_price: Any = number(
        0.16, "what a seller pays the operator for a PRB", unit="$/PRB", symbol="delta_i", shape=("n_sellers",), low=0
    )
    price_min: Any = number(1.0, "lowest posted price", unit="$/PRB", symbol="delta_min", low=0, open_low=True)
    price_max: Any = number(2.0, "highest posted price", unit="$/PRB", symbol="delta_max", low=0, open_low=True)
    trade_prbs: Any = number(100.0, "PRBs offered for trade", unit="PRB", symbol="W_tr", low=0, open_low=True)
    capacity: Any = number(
        50.0, "PRBs of each seller (rule 'given')", unit="PRB", symbol="K_m", shape=("n_sellers",), low=0, open_low=True
    )
    signalling: Any = number(0.5, "signalling cost per ordered pair of members", unit="$", symbol="c_s", low=0)
    bargaining_power: Any = number(
        0.5, "coalition's share of the surplus where prices are bargained", symbol="beta", low=0, high=1
    )
    capacity_rule: str = option("split", "PRBs of a seller: all/max(2, M), all/2, or given", ("split", "half", "given"))
    formation: str = option(
        "grand",
        "how buyers group",
        {"grand": "exact", "singletons": "exact", "merge": "exact", "fixed": "exact", "labels": "exact"},
    )
    partition: Any = static(None, "coalitions of formation='fixed', as tuples of buyers: ((0, 1), (2,))")
    selection: str = option(
        "winner",
        "whom sellers serve: the highest reputation, all in that order, or k-th coalition by k-th seller",
        {"winner": "exact", "all": "numeric", "matching": "exact"},
    )
    sharing: str = option("reputation", "how members share", ("reputation", "equal", "shapley", "own"))
    price_formation: str = option(
        "posted",
        "sellers post prices, or split the surplus with the coalition (formation='labels'; no prices are chosen)",
        {"posted": "exact", "bargain": "exact"},
    )
    reputation_rule: str = option(
        "static",
        "reputations are given, or a tenant's own follows what it sells: sold / offered enters with weight "
        "reputation_rate in rounds in which it sells (sellers do not buy here, so no round's game depends on it)",
        {"static": "exact", "ema": "exact"},
    )
    reputation_rate: float = static(0.05, "kappa_r of reputation_rule='ema', in (0, 1]")
    purchase_mode: str = option("each", "purchases per seller, or a total filled cheapest first", ("each", "total"))
    convexify: bool = flag(True, "time-share PRBs (concave value); False: raw S-curves, whole PRBs only")
    integer_prbs: bool = flag(False, "requests in whole PRBs")
    price_levels: int | None = count(None, "prices on a grid (None: continuous)", low=2, optional=True)
    amount_levels: int | None = count(None, "purchases on a grid (None: continuous)", low=2, optional=True)
    channel: str = option(
        "frozen", "PRB rates: given, drawn by dropping users, or measured", ("frozen", "drop", "trace")
    )
    radio: str = option("iiot", "radio of channel='drop' and 'trace'", tuple(RADIO_PRESETS))
    scheduler: str = option("equal_rate", "how a tenant's users share a PRB", ("equal_rate", "equal_airtime"))
    gains: Any = static(
        None,
        "measured power gains (users, PRBs, slots) for channel='trace', or their file (npz, CSV; see "
        "marketenvs.channel.load_trace); users of buyer n are rows n * users ...",
    )
    model: str = option(
        "corrected", "the market as corrected, or the paper's equations as printed", ("corrected", "paper")
    )
    total_capacity: bool = flag(False, "paper model: one purchase limit of 50 PRBs over all sellers (A_z literal)")
    reward_lag: bool = flag(False, "paper model: sellers are paid for last round's purchase (F9)")
    observation: str = option("full", "what agents see", ("full", "paper"))

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"model": "paper", "observation": "paper", "capacity_rule": "half", **_GRID},
        "drop": {"channel": "drop", "reputation": Uniform(0.4, 1.0)},
        "drawn": {"reputation": Uniform(0.4, 1.0), "prb_rate": Uniform(425.0, 837.0)},
        "reduced": _REDUCED,
        "grid": _GRID,
        "singletons": {"formation": "singletons"},
        "labels": {"formation": "labels"},
        "table1_noise_limited": {"prb_rate": 2876.6, "radio": "iiot_noise_limited"},
    }

    def check(self) -> None:
        """Relations between fields."""
        if self.bounds_of("price_min")[1] > self.bounds_of("price_max")[0]:
            raise InvalidParameter(f"price_min={self.price_min!r} exceeds price_max={self.price_max!r}")
        if self.bounds_of("lease_price")[1] >= self.bounds_of("price_max")[0]:
            raise InvalidParameter(f"lease_price={self.lease_price!r} must stay below price_max={self.price_max!r}")
        service = tuple(self.service) if not isinstance(self.service, str) else (self.service,) * self.n_buyers
        object.__setattr__(self, "service", service)
        if len(service) != self.n_buyers:
            raise InvalidParameter(f"service names {len(service)} buyers, but n_buyers={self.n_buyers}")
        for kind in service:
            if kind not in SERVICES:
                raise InvalidParameter(f"service {kind!r} is not offered; {nearest(kind, SERVICES)}")
        if not self.convexify and not self.integer_prbs:
            raise InvalidParameter("convexify=False is offered with integer_prbs=True only: raw curves need whole PRBs")
        self._check_coalitions()
        self._check_options()

    def _check_coalitions(self) -> None:
        if (self.partition is not None) != (self.formation == "fixed"):
            raise InvalidParameter(
                "partition is given exactly when formation='fixed', such as partition=((0, 1), (2,))"
            )
        if self.partition is not None:
            try:
                partition = tuple(tuple(int(i) for i in coalition) for coalition in self.partition)
            except TypeError:
                raise InvalidParameter(f"partition must list coalitions of buyers, got {self.partition!r}") from None
            if not all(partition):
                raise InvalidParameter(f"partition={self.partition!r} has an empty coalition")
            if sorted(i for coalition in partition for i in coalition) != list(range(self.n_buyers)):
                raise InvalidParameter(
                    f"partition={self.partition!r} must hold every buyer 0..{self.n_buyers - 1} once"
                )
            object.__setattr__(self, "partition", partition)
        listed = self.formation in ("merge", "labels") or self.sharing == "shapley" or self.integer_prbs
        if listed and self.n_buyers > MOST_TABLED:
            raise InvalidParameter(
                f"formation merge/labels, Shapley shares and integer_prbs list every coalition: at most {MOST_TABLED} "
                f"buyers, got n_buyers={self.n_buyers}"
            )
        if self.selection != "winner" and self.formation in ("merge", "labels"):
            raise InvalidParameter(f"formation={self.formation!r} is offered with selection='winner' only")
        if self.sharing == "own" and self.formation in ("merge", "labels"):
            raise InvalidParameter(
                "sharing='own' has no coalition-stage oracle: use it with grand, singletons or fixed"
            )

    def _check_options(self) -> None:
        if self.purchase_mode == "total" and (self.selection != "winner" or self.integer_prbs):
            raise InvalidParameter("purchase_mode='total' is offered with selection='winner' and divisible PRBs only")
        if self.channel != "frozen" and (self.integer_prbs or self.sharing == "shapley"):
            raise InvalidParameter("integer_prbs and sharing='shapley' are tabled per market: channel='frozen' only")
        if (self.gains is not None) != (self.channel == "trace"):
            raise InvalidParameter("gains are given exactly when channel='trace'")
        if self.integer_prbs:
            for name in ("capacity",) if self.capacity_rule == "given" else ("trade_prbs",):
                low, high = self.bounds_of(name)
                step = {"given": 1, "half": 2, "split": max(2, self.n_sellers)}[self.capacity_rule]
                if low != high or (low / step) % 1:
                    raise InvalidParameter(
                        f"integer_prbs needs whole, known capacities, got {name}={getattr(self, name)!r}"
                    )
        if self.model == "paper" and (self.selection != "winner" or self.purchase_mode != "each"):
            raise InvalidParameter("model='paper' is offered with selection='winner' and purchase_mode='each' only")
        if self.price_formation == "bargain":
            self._check_bargain()
        if not isinstance(self.reputation_rate, int | float) or not 0.0 < self.reputation_rate <= 1.0:
            raise InvalidParameter(f"reputation_rate={self.reputation_rate!r} must lie in (0, 1]")
        if self.reputation_rule == "ema" and self.model == "paper":
            raise InvalidParameter(
                "reputation_rule='ema' is offered with model='corrected': the paper never updates reputations"
            )
        if self.model == "corrected" and (self.total_capacity or self.reward_lag):
            raise InvalidParameter("total_capacity and reward_lag belong to model='paper'")

    def _check_bargain(self) -> None:
        if self.formation != "labels":
            raise InvalidParameter(
                "price_formation='bargain' leaves only the coalitions to choose: it is offered with formation='labels'; "
                "for given coalitions market.analysis(state)['bargain'] has the outcome"
            )
        plain = (self.selection, self.purchase_mode, self.model, self.channel) == (
            "winner",
            "each",
            "corrected",
            "frozen",
        )
        if not plain or self.integer_prbs or self.price_levels is not None or self.amount_levels is not None:
            raise InvalidParameter(
                "price_formation='bargain' is offered with selection='winner', channel='frozen' and divisible PRBs, "
                "without price or amount grids"
            )
        for name in ("capacity", "lease_price"):
            value = getattr(self, name)
            if np.ndim(value) and not isinstance(value, str) and len(np.unique(np.asarray(value))) > 1:
                raise InvalidParameter(f"price_formation='bargain' needs identical sellers, got {name}={value!r}")

    @property
    def seats(self) -> tuple[int, ...] | None:
        """Label of every buyer where the formation rule fixes it, else None."""
        if self.formation == "grand":
            return (0,) * self.n_buyers
        if self.formation == "singletons":
            return tuple(range(self.n_buyers))
        if self.partition is not None:
            return tuple(min(c) for i in range(self.n_buyers) for c in self.partition if i in c)
        return None


CoalitionTheta = theta_type(
    "CoalitionTheta",
    CoalitionParams,
    derived=("room", "need_unit", "ready", "tables", "allocations", "shapley", "bargains"),
)


def service_mask(params: CoalitionParams, kind: str) -> np.ndarray:
    """1.0 where a buyer has the service, (1, N)."""
    return np.array([[float(s == kind) for s in params.service]])
