"""Stable-Baselines3: ``from marketenvs.sb3 import MarketVecEnv``; ``SharedMarkets`` lets several learners share markets."""

from .shells.sb3 import MarketVecEnv
from .shells.sb3_shared import SharedMarkets

__all__ = ["MarketVecEnv", "SharedMarkets"]
