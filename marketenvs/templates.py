"""Starting points for people who add things: ``write_market`` writes one runnable file with a complete small market."""

from __future__ import annotations

import keyword
import os
import re
from pathlib import Path

from .errors import InvalidParameter, MarketEnvsError
from .registry import list_markets

_NAME = re.compile(r"[A-Z][A-Za-z0-9]*\Z")


def write_market(name: str, folder: str | os.PathLike[str] = ".") -> Path:
    """Write a complete small market of your own as one file, ready to run and to change.

    The file registers the market ``<name>-v0``. Run as a script it plays a few rounds, checks the market with
    :func:`marketenvs.testing.check_market` and prints the NashConv of random play and of the profile that the generic search finds.

    Args:
        name: Name of the market in CamelCase, such as "FishMarket"; the file is then ``fish_market.py``.
        folder: Where to write it; made if it does not exist.

    Returns:
        Path of the file.

    Raises:
        InvalidParameter: The name is not CamelCase, a Python keyword, or the id of a registered market.
        MarketEnvsError: The file exists (nothing is overwritten), or the folder cannot be written.
    """
    if not isinstance(name, str) or not _NAME.match(name) or keyword.iskeyword(name):
        hint = f"; perhaps {_suggest(name)!r}" if isinstance(name, str) and _suggest(name) else ""
        raise InvalidParameter(f"market name {name!r} must be CamelCase letters and digits, such as 'FishMarket'{hint}")
    id = f"{name}-v0"
    if id in list_markets():
        raise InvalidParameter(f"market id {id!r} is taken; choose another name (taken: {', '.join(list_markets())})")
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    path = Path(folder) / f"{module}.py"
    text = _MARKET.replace("@NAME@", name).replace("@MODULE@", module)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MarketEnvsError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise MarketEnvsError(f"{path} exists; nothing was overwritten. Choose another name or folder") from None
    except OSError as error:
        raise MarketEnvsError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _suggest(name: str) -> str:
    """The nearest valid name, or nothing."""
    words = re.findall(r"[A-Za-z0-9]+", re.sub(r"-v\d+\Z", "", name))
    candidate = "".join(w[0].upper() + w[1:] for w in words)
    return candidate if _NAME.match(candidate) and not keyword.iskeyword(candidate) else ""


_MARKET = '''"""@NAME@: sellers choose how much to bring to one market; the more they bring, the lower its price.

A starting point: change the parameters, the stages, what agents see and what they earn. Try it with

    python @MODULE@.py

To let `import marketenvs` find the market by itself, put this file into a package and add to its pyproject.toml:

    [project.entry-points."marketenvs.markets"]
    @NAME@ = "@MODULE@:SPEC"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

import marketenvs
from marketenvs import Market, MarketParams, MarketSpec, Stage, Uniform
from marketenvs.codecs import BoxCodec
from marketenvs.params import count, number, theta_type


@dataclass(frozen=True, kw_only=True)
class @NAME@Params(MarketParams):
    """What can be set. Every number may be a scalar, an array, or a distribution that is drawn for each market."""

    n_sellers: int = count(3, "sellers")
    top_price: Any = number(10.0, "price at which nobody buys", unit="money/unit", low=0, open_low=True)
    slope: Any = number(1.0, "fall of the price with each unit sold", unit="money/unit^2", low=0, open_low=True)
    unit_cost: Any = number(2.0, "a seller's cost of a unit", unit="money/unit", shape=("n_sellers",), low=0)
    capacity: Any = number(8.0, "most that a seller can bring", unit="units", shape=("n_sellers",), low=0)

    PRESETS: ClassVar = {"drawn": {"unit_cost": Uniform(1, 3)}}


@NAME@Theta = theta_type("@NAME@Theta", @NAME@Params)


class @NAME@(Market):
    """The rules, for any number B of markets at once: arrays are (markets, agents, numbers). Use self.xp instead of numpy."""

    Params = @NAME@Params
    Theta = @NAME@Theta
    params: @NAME@Params

    def count_roles(self):
        """Role -> number of agents."""
        return {"seller": self.params.n_sellers}

    def build_stages(self):
        """Stages of a round, in order of play."""
        seen = spaces.Box(0.0, 1.0, (3,), np.float32)  # what ONE agent sees
        return (Stage("supply", "seller", BoxCodec(), seen),)

    def bounds(self, state, stage):
        """Least and largest decision, in natural units."""
        largest = state.theta.capacity[:, :, None]
        return 0.0 * largest, largest

    def observe(self, state, stage):
        """Own cost and capacity, and the slope, scaled into [0, 1]; (B, n, 3)."""
        xp, theta = self.xp, state.theta
        shape = (self.batch(state), self.params.n_sellers)
        parts = (theta.unit_cost / (1 + theta.unit_cost), theta.capacity / (1 + theta.capacity), theta.slope / (1 + theta.slope))
        return xp.stack([xp.broadcast_to(part, shape) for part in parts], axis=2)

    def expected(self, state, decisions):
        """Expected payoffs {role: (B, n)}."""
        theta, amounts = state.theta, decisions["supply"][:, :, 0]
        price = theta.top_price - theta.slope * self.xp.sum(amounts, axis=1, keepdims=True)
        return {"seller": (price - theta.unit_cost) * amounts}


SPEC = MarketSpec(
    id="@NAME@-v0",
    entry_point=f"{__name__}:@NAME@",
    roles=("seller",),
    title="@NAME@",
    summary="Sellers choose amounts; the price falls with what all of them bring.",
)
marketenvs.register(SPEC)


def main() -> None:
    """Play, look for an equilibrium, check the market."""
    market = marketenvs.make("@NAME@-v0")
    state = market.reset(seed=0, batch=4)
    rng = np.random.default_rng(0)
    for _ in range(3):
        amounts = rng.uniform(0, 8, size=(4, market.params.n_sellers))
        before = state
        state, outcome = market.step(state, {"seller": amounts})
        print("payoffs of the sellers in market 0:", np.round(outcome.payoffs["seller"][0], 3))
    print("NashConv of the last random profile:", np.round(market.nash_conv(before, {"seller": amounts}).lower, 3))

    # Without an oracle of its own the market gets a search: a lower bound, never certified. Write solve() and best_reply() to certify.
    found = market.equilibrium(state)
    gap = market.nash_conv(state, found.strategy)
    print(f"NashConv of the profile found by search: {gap.lower.max():.2e} ({found.kind}, certified: {bool(found.certified.any())})")

    from marketenvs.testing import check_market

    ran = check_market("@NAME@-v0", backends=("numpy",))
    print(f"check_market: {len(ran)} checks passed")


if __name__ == "__main__":
    main()
'''

__all__ = ["write_market"]
