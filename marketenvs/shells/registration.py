"""Registration of a market's shells with PettingZoo (multi-agent) and Gymnasium (single-agent and vector views)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..registry import MarketSpec


def register_shells(spec: MarketSpec) -> None:
    """Register ``marketenvs/<Id>`` and ``marketenvs/<Market>-<Role>-v<k>``."""
