"""RLlib, new API stack: importing this makes every market known by its id.

``config.environment("marketenvs/AIBazaar-v0", env_config={...})`` then works; ``env_config`` holds the market's
parameters (``preset`` and ``reward_scale`` among them). ``config.env_runners(env_runner_cls=MarketEnvRunner)`` samples
many times faster than RLlib's own loop: it steps all markets of a runner as one batch.
"""

from .shells.rllib import MarketMultiAgentEnv, register_all, register_market
from .shells.rllib_masks import MaskedAPPOModule, MaskedDQNModule, MaskedPPOModule
from .shells.rllib_native import MarketEnvRunner, MarketEpisodeReplayBuffer

__all__ = [
    "MarketEnvRunner",
    "MarketEpisodeReplayBuffer",
    "MarketMultiAgentEnv",
    "MaskedAPPOModule",
    "MaskedDQNModule",
    "MaskedPPOModule",
    "register_all",
    "register_market",
]
