"""TorchRL: ``from marketenvs.torchrl import MarketTorchEnv``."""

from .shells.torchrl import MarketTorchEnv

__all__ = ["MarketTorchEnv"]
