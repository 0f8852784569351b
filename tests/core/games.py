"""Markets for the tests of scoring: one whose only equilibrium is mixed, wrappers that rescale money, a doubtful certificate."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces

from marketenvs import BestResponse, Equilibrium, Market, Pure, Samples, Stage
from marketenvs.codecs import GridCodec
from marketenvs.markets.ai_bazaar.rules import AIBazaar
from marketenvs.params import MarketParams, number, theta_type
from tests.conformance.samples import CalmToll


@dataclass(frozen=True, kw_only=True)
class PenniesParams(MarketParams):
    """Stakes."""

    stake: Any = number(3.0, "what player 0 wins when both show level 1", low=1)


PenniesTheta = theta_type("PenniesTheta", PenniesParams)


class Pennies(Market):
    """Matching pennies with unequal stakes: 0 wins (s, 1) on matches, 1 wins 1 on mismatches. Player 1 mixes 1/(1+s), player 0 1/2."""

    Params = PenniesParams
    Theta = PenniesTheta

    def count_roles(self):
        return {"player": 2}

    def build_stages(self):
        return (Stage("show", "player", GridCodec(2), spaces.Box(0.0, 1.0, (1,), np.float32)),)

    def bounds(self, state, stage):
        one = self.xp.ones_like(state.theta.stake[:, :, None])
        return 0 * one, one

    def observe(self, state, stage):
        return self.xp.zeros((self.batch(state), 2, 1), dtype=self.backend.dtype)

    def expected(self, state, decisions):
        a, b = decisions["show"][:, 0, 0], decisions["show"][:, 1, 0]
        first = state.theta.stake[:, 0] * a * b + (1 - a) * (1 - b)
        second = a * (1 - b) + (1 - a) * b
        return {"player": self.xp.stack((first + 0 * a, second), axis=1)}

    def _chances(self, state, strategy):
        """(B, 2) probability of level 1."""
        if isinstance(strategy, Pure):
            return np.broadcast_to(strategy.decisions[..., 0], (self.batch(state), 2))
        return np.broadcast_to((strategy.weights * strategy.values[..., 0]).sum(axis=0), (self.batch(state), 2))

    def mixed_payoff(self, state, profile):
        chance = self._chances(state, profile["show"])
        total = np.zeros((len(chance), 2))
        for a, b in itertools.product((0.0, 1.0), repeat=2):
            weight = np.where(a, chance[:, :1], 1 - chance[:, :1]) * np.where(b, chance[:, 1:], 1 - chance[:, 1:])
            total += weight * self.expected(state, {"show": np.tile([[[a], [b]]], (len(chance), 1, 1))})["player"]
        return {"player": total}

    def mixed_reply(self, state, stage, profile):
        base = self.mixed_payoff(state, profile)["player"]
        chance = self._chances(state, profile["show"])
        values = []
        for level in (0.0, 1.0):
            columns = []
            for i in range(2):
                tried = chance.copy()
                tried[:, i] = level
                mixed = Samples(np.array([0.0, 1.0])[:, None, None, None], np.stack((1 - tried, tried)))
                columns.append(self.mixed_payoff(state, {"show": mixed})["player"][:, i])
            values.append(np.stack(columns, axis=1))
        best = np.maximum(*values)
        gains = np.maximum(best - base, 0)
        return BestResponse(np.argmax(values, axis=0)[..., None] * 1.0, best, gains, gains, "exact", "enumeration")

    def best_reply(self, state, stage, decisions):
        return self.mixed_reply(state, stage, {"show": Pure(decisions["show"])})

    def solve(self, state):
        batch = self.batch(state)
        stake = np.broadcast_to(self.theta64(state).stake[:, 0], (batch,))
        high = np.stack((np.full(batch, 0.5), 1 / (1 + stake)), axis=1)
        mixed = Samples(np.array([0.0, 1.0])[:, None, None, None], np.stack((1 - high, high)))
        return Equilibrium(
            strategy=self.by_stage({"show": mixed}),
            values=self.mixed_payoff(state, {"show": mixed}),
            epsilon=np.zeros(batch),
            certified=np.ones(batch, bool),
            kind="exact",
            method="indifference",
            citation="",
            exists=np.ones(batch, bool),
        )


class _Scaled(AIBazaar):
    """AI-Bazaar with a role's money counted in another unit."""

    scale = {"provider": 1.0, "consumer": 1.0}

    def _by_role(self, payoffs):
        return {role: self.scale[role] * value for role, value in payoffs.items()}

    def expected(self, state, decisions):
        return self._by_role(super().expected(state, decisions))

    def settle(self, state, decisions):
        outcome = super().settle(state, decisions)
        return outcome._replace(payoffs=self._by_role(outcome.payoffs))

    def solve(self, state):
        found = super().solve(state)
        return replace(found, values=self._by_role(found.values), epsilon=found.epsilon * max(self.scale.values()))

    def respond(self, state, prefix):
        found = super().respond(state, prefix)
        return replace(found, values=self._by_role(found.values))

    def _reply(self, stage, found):
        by = self.scale[self.stage(stage).role]
        return replace(found, values=by * found.values, gains=by * found.gains, upper=by * found.upper)

    def best_reply(self, state, stage, decisions):
        return self._reply(stage, super().best_reply(state, stage, decisions))

    def mixed_reply(self, state, stage, profile):
        return self._reply(stage, super().mixed_reply(state, stage, profile))

    def mixed_payoff(self, state, profile):
        return self._by_role(super().mixed_payoff(state, profile))


class ProviderInPence(_Scaled):
    """30 times the provider's payoffs."""

    scale = {"provider": 30.0, "consumer": 1.0}


class ConsumerInPounds(_Scaled):
    """The consumers' payoffs divided by 30."""

    scale = {"provider": 1.0, "consumer": 1 / 30}


class HalfCertified(CalmToll):
    """Its oracle gives up on markets whose first driver is lukewarm."""

    def solve(self, state):
        found = super().solve(state)
        return replace(found, certified=self.theta64(state).taste[:, 0] > 2.7)


class Uncertified(CalmToll):
    """A market without an oracle of its own."""

    solve = Market.solve
