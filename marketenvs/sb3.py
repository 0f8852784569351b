"""Stable-Baselines3: ``from marketenvs.sb3 import MarketVecEnv``."""

from .shells.sb3 import MarketVecEnv

__all__ = ["MarketVecEnv"]
