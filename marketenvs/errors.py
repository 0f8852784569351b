"""Errors raised at the package's boundaries. Each names the culprit, what would be right and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MarketEnvsError(ValueError):
    """Base of every error that marketenvs raises on bad input."""


class UnknownName(MarketEnvsError):
    """An id, preset, parameter, stage, role, policy or task that does not exist."""


class InvalidParameter(MarketEnvsError):
    """A parameter outside its valid range, of the wrong type or of the wrong shape."""


class InvalidAction(MarketEnvsError):
    """An action or decision that is NaN, infinite, of the wrong shape, or from the wrong agent."""


class NotOffered(MarketEnvsError):
    """An option or solver that this market does not offer; the message names what it does offer."""


class ResetNeeded(MarketEnvsError):
    """``step`` or ``observe`` was called before ``reset``, or after the episode ended."""


def nearest(name: object, valid: Iterable[str]) -> str:
    """A hint for an error message: the closest valid name, and the list of valid names."""
    names = [str(v) for v in valid]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    if not close:
        lowered = {n.lower(): n for n in names}
        close = [lowered[m] for m in difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.4)]
    hint = f"did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return f"{hint}Valid: {listed}" if names else f"{hint}There are none."
