"""RLlib, new API stack: importing this makes every market known by its id.

``config.environment("marketenvs/AIBazaar-v0", env_config={...})`` then works; ``env_config`` holds the market's
parameters (``preset`` and ``reward_scale`` among them).
"""

from .shells.rllib import MarketMultiAgentEnv, register_market

__all__ = ["MarketMultiAgentEnv", "register_market"]
