"""Gains, certificates and the game-theoretic tools that oracles of several markets share."""
