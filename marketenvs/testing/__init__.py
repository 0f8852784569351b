"""Conformance suite for markets in anyone's repository, and their golden trajectories.

In a test of your own package::

    from marketenvs.testing import check_market

    def test_my_market():
        check_market("MyMarket-v0")

or one named check at a time, so that a test runner reports each::

    @pytest.mark.parametrize("check", marketenvs.testing.CHECKS)
    def test_my_market(check):
        marketenvs.testing.run_check(check, marketenvs.make("MyMarket-v0"))

``python -m marketenvs.testing MyMarket-v0`` prints the same as a table; ``--golden`` records the golden trajectory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from ..errors import MarketEnvsError, UnknownName, nearest
from ..market import Market
from ..registry import list_presets, make
from . import libraries, oracles, rules
from .golden import check_golden, golden_trajectory, write_golden

CHECKS: tuple[str, ...] = (*rules.CHECKS, *oracles.CHECKS)
"""Names of the checks on NumPy: of the rules, then of the solvers."""
ORACLE_CHECKS: tuple[str, ...] = tuple(oracles.CHECKS)
LIBRARY_CHECKS: tuple[str, ...] = tuple(libraries.CHECKS)
"""Names of the checks of an array library against NumPy."""


def describe_check(name: str) -> str:
    """What a check demands, in a sentence or two."""
    return (inspect.getdoc(_find(name)) or "").replace("\n", " ")


def run_check(name: str, market: Market, backend: str = "numpy") -> None:
    """Run one named check on a NumPy market.

    Args:
        name: One of ``CHECKS`` or ``LIBRARY_CHECKS``.
        market: A market on NumPy.
        backend: Array library to compare with, for ``LIBRARY_CHECKS``.

    Raises:
        AssertionError: The market breaks the contract; the message names the check, the market and what is wrong.
        UnknownName: No such check.
    """
    check = _find(name)
    if market.backend.name != "numpy":
        market = type(market)(market.params)
    try:
        if name in libraries.CHECKS:
            libraries.CHECKS[name](market, backend)
        else:
            check(market)
    except AssertionError as error:
        raise AssertionError(f"{market.id or type(market).__name__}, check {name!r}: {error}") from error.__cause__
    except (MarketEnvsError, ArithmeticError, LookupError, TypeError, ValueError, NotImplementedError) as error:
        where = f"{market.id or type(market).__name__}, check {name!r}"
        raise AssertionError(f"{where}: {type(error).__name__} instead of an answer: {error}") from error


def _find(name: str) -> Callable[..., None]:
    known: dict[str, Callable[..., None]] = {**rules.CHECKS, **oracles.CHECKS, **libraries.CHECKS}
    if name not in known:
        raise UnknownName(f"unknown check {name!r}; {nearest(name, known)}")
    return known[name]


def check_market(
    market: Market | str,
    *,
    presets: Sequence[str] | None = None,
    backends: Sequence[str] = libraries.LIBRARIES,
    oracle: bool = True,
) -> list[str]:
    """Run the whole conformance suite on a market.

    Args:
        market: A registered id, or a market of your own.
        presets: Presets to check on NumPy; default: all of them (of a market object: its own parameters only). The other array
            libraries are checked on the first.
        backends: Array libraries; those that are not installed are left out (the answer says which ran).
        oracle: Whether to check the solvers too.

    Returns:
        What ran, as "preset check" or "preset library check".

    Raises:
        AssertionError: The first broken rule, with market, preset and check.
        UnknownName: Unknown id, preset or array library.
    """
    for name in backends:
        if name not in libraries.LIBRARIES:
            raise UnknownName(f"unknown backend {name!r}; {nearest(name, libraries.LIBRARIES)}")
    if isinstance(market, str):
        names = list(presets) if presets is not None else list_presets(market)
        subjects = {name: make(market, preset=name) for name in names}
    elif presets is not None:
        subjects = {name: type(market)(market.Params.preset(name)) for name in presets}
    else:
        subjects = {"own": market}
    ran = []
    for preset, subject in subjects.items():
        for name in CHECKS if oracle else rules.CHECKS:
            _run(name, subject, preset, "numpy")
            ran.append(f"{preset} {name}")
    preset, subject = next(iter(subjects.items()))
    for backend in backends:
        if backend != "numpy" and libraries.installed(backend):
            for name in LIBRARY_CHECKS:
                _run(name, subject, preset, backend)
                ran.append(f"{preset} {backend} {name}")
    return ran


def _run(name: str, market: Market, preset: str, backend: str) -> None:
    try:
        run_check(name, market, backend)
    except AssertionError as error:
        raise AssertionError(f"preset {preset!r}: {error}") from error.__cause__


__all__ = [
    "CHECKS",
    "LIBRARY_CHECKS",
    "ORACLE_CHECKS",
    "check_golden",
    "check_market",
    "describe_check",
    "golden_trajectory",
    "run_check",
    "write_golden",
]
