"""Parameters of two-tier bidding, with their presets and the codec of a split of resource blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from ...arrays import Array, LogUniform
from ...channel import read_gains
from ...codecs import Codec, GridCodec
from ...errors import InvalidParameter
from ...params import MarketParams, count, number, option, static

SERVICES = ("VoLTE", "eMBB", "URLLC")
MAX_JOINT = 100_000  # joint bids of a central bidder
MAX_USERS = 200  # per slice: binomial weights stay far from overflow

# Tables for four operators; for another number of operators they are repeated cyclically.
_USERS = ((9, 11, 7), (8, 11, 7), (6, 8, 13), (8, 2, 7))
_VALUES = (1.0, 2.0, 4.0, 8.0)
_SLOPES = (10.0, 8.0, 6.0, 1.0)
_SNR = (438163180045.0579, 409560219393.47723, 464818986988.87805, 209011579627.28653)

_BLOCKS = {"lower": "agents", "allocation": "blocks", "bid_levels": 10}


class Measured:
    """A constant array that compares and hashes by content, as frozen parameters must."""

    def __init__(self, array: np.ndarray):
        self.array = array.copy()
        self.array.setflags(write=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Measured) and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash((self.array.shape, self.array.tobytes()))

    def __repr__(self) -> str:
        return f"Measured(shape={self.array.shape})"


@dataclass(frozen=True, kw_only=True)
class BiddingParams(MarketParams):
    """Parameters of TwoTierBidding-v0; the defaults are the ``bidding`` preset. Services: VoLTE, eMBB, URLLC."""

    horizon: int = count(64, "rounds per episode (truncated, never terminated)", symbol="T")
    n_operators: int = count(4, "virtual operators", symbol="M")
    bandwidth: Any = number(10.0, "bandwidth of the base station", unit="MHz", symbol="C", low=0, open_low=True)
    blocks: int = count(50, "resource blocks the bandwidth is cut into", symbol="N")
    users: Any = number(
        _USERS, "users per operator and service", symbol="J", shape=("n_operators", 3), low=0, high=MAX_USERS
    )
    value_weight: Any = number(1.0, "worth of a Mb/s to the operator", symbol="w_val", shape=("n_operators",), low=0)

    power_dbm: Any = number(46.0, "power of the base station on a user's sub-band", unit="dBm", symbol="P")
    noise_dbm_per_hz: Any = number(-174.0, "noise density", unit="dBm/Hz", symbol="N0")
    receiver_gain_db: Any = number(20.0, "receiver gain", unit="dB", symbol="G_rx")
    cell_radius_m: Any = number(40.0, "radius of the cell", unit="m", low=1, open_low=True)
    shadowing_db: Any = number(0.0, "standard deviation of shadowing", unit="dB", symbol="sigma_sh", low=0)
    spectral_multiplier: Any = number(
        32 * float(np.log10(2.0)), "spatial layers times the base of the logarithm", symbol="L", low=0, open_low=True
    )
    snr_bandwidth: Any = number(
        _SNR,
        "SNR bandwidth of an operator, for positions='given'",
        unit="MHz",
        symbol="S",
        shape=("n_operators",),
        low=0,
    )
    agreed_rate: Any = number(
        (0.051, 100.0, 10.0), "rate a user must get", unit="Mb/s", symbol="r", shape=(3,), low=0, open_low=True
    )
    activity: Any = number(
        (0.0062, 0.075, 0.25), "chance that a user is active", symbol="a", shape=(3,), low=0, high=1, open_low=True
    )
    packets: Any = number((50.0, 900.0, 38.0), "packets counted per round", symbol="npk", shape=(3,), low=1)

    floor_per_user: Any = number(
        0.051, "least bid per user of the operator", unit="credits", symbol="b_min", shape=("n_operators",), low=0
    )
    cap_per_user: Any = number(
        100.0, "largest bid per user", unit="credits", symbol="b_max", shape=("n_operators",), low=0, open_low=True
    )
    price: Any = number(
        1.0, "unit price, or the scale of the payment rule", unit="Mb/s per credit", symbol="q",
        shape=("n_operators",), low=0, open_low=True,
    )  # fmt: skip
    price_min: Any = number(0.01, "least price an infrastructure agent may post", low=0, open_low=True)
    price_max: Any = number(10.0, "largest price an infrastructure agent may post", low=0, open_low=True)
    penalty_constant: Any = number(
        1.0, "the undefined R of eq. (5), for 'eq4_literal'", symbol="R", low=0, open_low=True
    )

    rho: Any = number(0.01, "weight of spectral efficiency", unit="per (b/s/Hz)", symbol="rho", low=0)
    phi: Any = number(1.0, "weights of the satisfaction ratios", symbol="phi", shape=(3,), low=0)
    omega: Any = number(0.1, "weight of profit in the objective", unit="per omega_unit", symbol="omega", low=0)

    payment: str = option(
        "kelly",
        "what a bid costs",
        {"kelly": "exact", "posted": "exact", "efficient": "exact", "eq4": "exact", "eq4_literal": "numeric"},
    )
    posting: str = option(
        "fixed",
        "who posts prices under 'posted'",
        {"fixed": "exact", "feedback": "exact", "agent": "numeric"},
    )
    allocation: str = option("continuous", "bandwidth in MHz or in whole blocks", ("continuous", "blocks"))
    lower: str = option("ideal", "who divides an operator's share", ("ideal", "agents", "table"))
    control: str = option(
        "independent",
        "a bidder and a slicer per operator, one agent for both, or one bidder for all",
        {"independent": "exact", "merged": "exact", "central": "exact"},
    )
    bid_levels: int | None = count(None, "bids in a pool (None: continuous)", low=2, optional=True, symbol="K")
    bid_scale: str = option("linear", "spacing of bids between floor and cap", ("linear", "log"))
    split: str = option("discrete", "a slicer's action", {"discrete": "exact", "simplex": "exact"})
    value: str = option("rate", "worth of c MHz: the rate, w c, or w ln(1+c)", ("rate", "linear", "log"))
    power_mode: str = option("per_user", "full power on every sub-band, or constant density", ("per_user", "psd"))
    positions: str = option("rings", "where users stand", ("rings", "random", "given"))
    fading: str = option("mean", "what is known of the Rayleigh fading", ("mean", "statistical", "sampled"))
    channel: str = option("model", "where users' channels come from", ("model", "trace"))
    gains: Any = static(
        None,
        "measured power gains (users, PRBs, rounds) for channel='trace', users in the order operator, service, user "
        "(or their file, npz or CSV: see marketenvs.channel.load_trace)",
    )
    traffic: str = option(
        "activity",
        "satisfaction in closed form, or from packets with queues",
        {"activity": "exact", "packet": "numeric"},
    )
    subframes: int = count(200, "subframes of 0.5 ms in a round of packet traffic")
    queue_length: int = count(5, "packets that a user's queue holds under packet traffic")
    ssr_noise: str = option("none", "noise of reported satisfaction", ("none", "binomial"))
    ssr_sum: str = option("services", "sum of satisfaction over services or users", ("services", "users"))
    omega_unit: str = option("Gbps", "unit of profit in the objective", ("Gbps", "Mbps"))
    reward: str = option(
        "profit",
        "what is paid out",
        {"profit": "exact", "utility": "exact", "team": "exact", "paper": "exact"},
    )
    observation: str = option("own", "what agents see", ("own", "full", "paper"))

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bidding": {},
        "two_tier": _BLOCKS,
        "physical": {**_BLOCKS, "spectral_multiplier": 1.0, "receiver_gain_db": 0.0},
        "heterogeneous": {"value_weight": _VALUES},
        "drawn": {"value_weight": LogUniform(0.5, 8.0), "positions": "random", "shadowing_db": 8.0},
        "reduced": {"value": "linear", "value_weight": _SLOPES, "floor_per_user": 0.0, "positions": "given"},
        "paper": {
            **_BLOCKS,
            "lower": "table",
            "bid_levels": 4,
            "control": "central",
            "payment": "eq4_literal",
            "omega_unit": "Mbps",
            "reward": "paper",
            "observation": "paper",
        },
    }

    def __post_init__(self) -> None:
        for name, table in (
            ("users", _USERS),
            ("value_weight", _VALUES),
            ("value_weight", _SLOPES),
            ("snr_bandwidth", _SNR),
        ):
            if getattr(self, name) is table and isinstance(self.n_operators, int) and self.n_operators > 0:
                object.__setattr__(self, name, tuple(table[m % 4] for m in range(self.n_operators)))
        super().__post_init__()

    @property
    def slicers(self) -> bool:
        """Whether agents divide the blocks."""
        return self.lower == "agents"

    @property
    def max_users(self) -> int:
        """Largest number of users of a slice: the width of padded user arrays."""
        return max(int(np.ceil(self.bounds_of("users")[1])), 1)

    @property
    def known_fading(self) -> bool:
        """Whether each round's channels are known before bids, fading included."""
        return self.fading == "sampled" or self.channel == "trace"

    @property
    def packets_flow(self) -> bool:
        """Whether satisfaction comes from simulated packets."""
        return self.traffic == "packet"

    @property
    def kind(self) -> str:
        """Family of the value functions (see ``values.KINDS``)."""
        if self.value != "rate":
            return self.value
        if self.power_mode == "psd":
            return "linear"
        return "statistical" if self.fading == "statistical" else "shannon"

    def check(self) -> None:
        """Options that contradict each other, and empty bid boxes."""

        def need(condition: bool, message: str) -> None:
            if not condition:
                raise InvalidParameter(message)

        tiers = self.lower != "ideal"
        need(not tiers or self.allocation == "blocks", f"lower={self.lower!r} works on blocks: set allocation='blocks'")
        need(not tiers or self.value == "rate", f"lower={self.lower!r} needs value='rate'")
        need(not tiers or self.power_mode == "per_user", f"lower={self.lower!r} is offered for power_mode='per_user'")
        need(not tiers or self.positions != "given", f"lower={self.lower!r} needs users: positions='rings' or 'random'")
        need(tiers or self.reward == "profit", f"reward={self.reward!r} needs a lower tier: lower='agents' or 'table'")
        need(tiers or self.ssr_noise == "none", "ssr_noise='binomial' needs a lower tier: lower='agents' or 'table'")
        need(self.slicers or self.control != "merged", "control='merged' needs lower='agents'")
        need(self.posting == "fixed" or self.payment == "posted", f"posting={self.posting!r} needs payment='posted'")
        need(self.positions != "given" or self.fading != "sampled", "fading='sampled' needs users: positions='rings'")
        need(not self.packets_flow or tiers, "traffic='packet' needs a lower tier: lower='agents' or 'table'")
        need(not self.packets_flow or self.ssr_noise == "none", "traffic='packet' counts packets: ssr_noise='none'")
        self._check_trace(need)
        users = self.users
        if not hasattr(users, "support"):  # a distribution is checked by its own values
            need(bool(np.all(np.asarray(users, float) % 1 == 0)), f"users must be whole numbers, got {users!r}")
        low, high = self.bounds_of("floor_per_user")[1], self.bounds_of("cap_per_user")[0]
        if low > high:
            pair = self.floor_per_user, self.cap_per_user
            plain = all(isinstance(p, (int, float, tuple, np.ndarray)) for p in pair)
            ordered = plain and np.all(np.asarray(pair[0], float) <= np.asarray(pair[1], float))
            need(bool(ordered), f"floor_per_user={pair[0]!r} exceeds cap_per_user={pair[1]!r}")
        need(
            self.bid_scale == "linear" or self.bounds_of("floor_per_user")[0] > 0,
            "bid_scale='log' needs a positive floor_per_user",
        )
        if self.control == "central" and self.bid_levels is not None:
            size = self.bid_levels**self.n_operators
            need(
                size <= MAX_JOINT,
                f"bid_levels={self.bid_levels} gives {size} joint bids; at most {MAX_JOINT} are offered",
            )
        need(self.bounds_of("price_min")[1] <= self.bounds_of("price_max")[0], "price_min exceeds price_max")

    def _check_trace(self, need: Callable[[bool, str], None]) -> None:
        """Fill in ``gains`` as an array; its first axis must be the operators' users."""
        need(self.channel == "trace" or self.gains is None, "gains are given, but channel is not 'trace'")
        if self.channel != "trace":
            return
        need(self.gains is not None, "channel='trace' needs gains, shape (users, PRBs, rounds)")
        need(self.positions == "rings", "channel='trace' replaces positions: leave positions at 'rings'")
        need(self.fading == "mean", "channel='trace' carries the fading: leave fading at 'mean'")
        need(self.value == "rate", "channel='trace' needs value='rate'")
        users = np.asarray(self.users, dtype=object)
        need(users.shape == (self.n_operators, 3), "channel='trace' needs users as one fixed table (n_operators, 3)")
        gains = self.gains.array if isinstance(self.gains, Measured) else read_gains(self.gains)
        total = int(users.sum())
        need(
            gains.shape[0] == total,
            f"gains must have shape ({total} users, PRBs, rounds), got {gains.shape}",
        )
        object.__setattr__(self, "gains", Measured(gains))


class SplitCodec(Codec):
    """Discrete over the pairs (VoLTE, eMBB) of blocks with a sum of at most ``blocks``; URLLC gets the rest.

    Pairs are in lexicographic order: 1326 of them for 50 blocks. The mask tells which are legal.
    """

    width = 2
    discrete = True

    def __init__(self, blocks: int):
        self.blocks = blocks
        grid = np.add.outer(np.arange(blocks + 1), np.arange(blocks + 1)) <= blocks
        self.table = np.argwhere(grid).astype(float)
        self._space: spaces.Discrete = spaces.Discrete(len(self.table))

    @property
    def action_space(self) -> spaces.Discrete:
        return self._space

    def decode(self, xp: Any, actions: Array, low: Array, high: Array) -> Array:
        table = xp.asarray(self.table, dtype=low.dtype)
        flat = xp.reshape(xp.astype(actions, xp.int64), (-1,))
        return xp.reshape(xp.take(table, flat, axis=0), (*actions.shape, 2))

    def encode(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        pair = self.snap(xp, decisions, low, high)
        first, second = pair[..., 0], pair[..., 1]
        return xp.astype(first * (self.blocks + 1) - first * (first - 1) / 2 + second, xp.int64)

    def snap(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        whole = xp.round(xp.clip(decisions, 0.0, float(self.blocks)))
        first = whole[..., 0]
        return xp.stack((first, xp.minimum(whole[..., 1], self.blocks - first)), axis=-1)

    def candidates(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return self.table.reshape((len(self.table),) + (1,) * (low.ndim - 1) + (2,))


class JointPoolCodec(Codec):
    """Discrete(K^M): one index for all M bids of a central bidder, the last operator's bid changing fastest."""

    discrete = True

    def __init__(self, levels: int, operators: int, scale: str):
        self.width, self.levels = operators, levels
        self.grid = GridCodec(levels, scale)
        self.steps = levels ** np.arange(operators - 1, -1, -1)
        self._space: spaces.Discrete = spaces.Discrete(int(levels**operators))

    @property
    def action_space(self) -> spaces.Discrete:
        return self._space

    def _digits(self, xp: Any, actions: Array) -> Array:
        steps = xp.asarray(self.steps, device=getattr(actions, "device", None))
        return (xp.astype(actions, steps.dtype)[..., None] // steps) % self.levels

    def decode(self, xp: Any, actions: Array, low: Array, high: Array) -> Array:
        return self.grid.decode(xp, self._digits(xp, actions), low[..., None], high[..., None])[..., 0]

    def encode(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        digits = self.grid.encode(xp, decisions[..., None], low[..., None], high[..., None])
        return xp.sum(digits * xp.asarray(self.steps, dtype=digits.dtype), axis=-1)

    def snap(self, xp: Any, decisions: Array, low: Array, high: Array) -> Array:
        return self.grid.snap(xp, decisions[..., None], low[..., None], high[..., None])[..., 0]

    def candidates(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        every = np.arange(int(self._space.n)).reshape((-1,) + (1,) * (low.ndim - 1))
        return self.decode(np, every, low[None], high[None])
