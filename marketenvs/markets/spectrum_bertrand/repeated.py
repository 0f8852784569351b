"""The repeated price game: the general solver of :mod:`marketenvs.solution.repeated` under the room's own roof."""

from ...solution.repeated import DynamicRegret, dynamic_regret

__all__ = ["DynamicRegret", "dynamic_regret"]
