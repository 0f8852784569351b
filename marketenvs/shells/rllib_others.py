"""Roles that do not learn in RLlib's shells: policies play them, whether markets are stepped one by one or as a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..market import Market
from ..policy import decide
from .game import Game, check_role
from .opponents import check_opponents, policy_of


class Others:
    """Who plays the roles beside ``only``.

    Policies are started anew at every reset, seeded from the episode, so an episode does not depend on those before it.

    Args:
        market: The market.
        only: The one role that learns; None for all roles (then nobody is played here).
        opponents: A name ("equilibrium", "random", "best_response"), the folder of a saved policy, "module:Class", a
            policy, or a mapping from roles to these.

    Raises:
        UnknownName: No such role or opponent.
        InvalidParameter: What is given is not a policy.
    """

    def __init__(self, market: Market, only: str | None, opponents: Any = "equilibrium"):
        self.market, self.only = market, only
        self.policies: dict[str, Any] = {}
        if only is not None:
            check_role(market, only)
            chosen = check_opponents(market, opponents)
            self.policies = {r: policy_of(market, r, chosen[r]) for r in market.roles if r != only}

    def start(self, game: Game) -> None:
        """Begin the game's current episodes."""
        for tag, (role, policy) in enumerate(self.policies.items()):
            policy.start(self.market, role, game.batch, game.episodes.entropy(tag))

    def play(self, game: Game) -> Mapping[str, np.ndarray] | None:
        """Play the current stage; role -> rewards (B, n) where that settles the round, else None."""
        stage, state = game.stage, game.state
        mask = game.mask()
        decisions = decide(
            self.policies[stage.role],
            self.market,
            stage,
            to_numpy(self.market.observe(state, stage.name)),
            None if mask is None else mask.astype(bool),
            state,
        )
        return game.commit(decisions)

    def settled(self, game: Game) -> None:
        """Tell the policies what was played in the round that has just been settled."""
        for policy in self.policies.values():
            if hasattr(policy, "observe_round"):
                policy.observe_round(game.played)
