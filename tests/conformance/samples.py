"""A small market that passes every check, with everything optional in it, for tests that then break it on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium import spaces

from marketenvs import BestResponse, Equilibrium, Market, Noise, Outcome, Pure, Reply, SocialOptimum, Stage, Uniform
from marketenvs.codecs import BoxCodec, GridCodec
from marketenvs.params import MarketParams, count, number, theta_type


@dataclass(frozen=True, kw_only=True)
class TollParams(MarketParams):
    """A keeper sets a toll, drivers choose how far to drive."""

    n_drivers: int = count(3, "drivers", symbol="N")
    taste: Any = number(Uniform(2, 4), "worth of the first kilometre", symbol="a", shape=("n_drivers",), low=0)
    cost: Any = number(0.5, "the keeper's cost of a kilometre", symbol="c", low=0)
    levels: int | None = count(None, "tolls on a grid", low=2, optional=True)

    PRESETS: ClassVar = {"grid": {"levels": 5}}


TollTheta = theta_type("TollTheta", TollParams)


class TollHistory(NamedTuple):
    """Last round's toll (B, 1)."""

    toll: Any


class Toll(Market):
    """Driver i earns (a_i - toll) x - x^2 / 2 plus its share of a shock; the keeper (toll - cost) sum x. Tolls lie in [0, 5]."""

    Params = TollParams
    Theta = TollTheta
    params: TollParams

    def count_roles(self):
        return {"keeper": 1, "driver": self.params.n_drivers}

    def build_stages(self):
        codec = BoxCodec() if self.params.levels is None else GridCodec(self.params.levels)
        one = spaces.Box(0.0, 1.0, (1,), np.float32)
        return Stage("toll", "keeper", codec, one), Stage(
            "trip", "driver", BoxCodec(), spaces.Box(0.0, 1.0, (2,), np.float32)
        )

    def history_noise(self):
        return {"toll": Noise("uniform", (1,))}

    def first_history(self, theta, noise, batch):
        return TollHistory(5 * noise["toll"])

    def round_noise(self):
        return {"shock": Noise("normal", (self.params.n_drivers,))}

    def bounds(self, state, stage):
        one = self.xp.ones_like(state.theta.cost[:, :, None])
        return 0 * one, 5 * one

    def observe(self, state, stage):
        xp = self.xp
        if stage == "toll":
            return state.history.toll[:, :, None] / 5
        shape = (self.batch(state), self.params.n_drivers)
        toll = xp.broadcast_to(state.decisions["toll"][:, :, 0] / 5, shape)
        return xp.stack((toll, xp.broadcast_to(state.theta.taste / 4, shape)), axis=2)

    def expected(self, state, decisions):
        toll, trips = decisions["toll"][:, :, 0], decisions["trip"][:, :, 0]
        return {
            "keeper": (toll - state.theta.cost) * self.xp.sum(trips, axis=1, keepdims=True),
            "driver": (state.theta.taste - toll) * trips - trips**2 / 2,
        }

    def settle(self, state, decisions):
        pay = self.expected(state, decisions)
        pay = {**pay, "driver": pay["driver"] + 0.3 * state.nature["shock"]}
        return Outcome(pay, {"welfare": self.xp.sum(pay["keeper"], axis=1) + self.xp.sum(pay["driver"], axis=1)})

    def remember(self, state, decisions, outcome):
        return TollHistory(decisions["toll"][:, :, 0])

    # -- solvers: drivers drive a_i - toll; the keeper's best toll is found among the breakpoints' quadratics -----------------------

    def _trips(self, state, toll):
        return np.clip(self.theta64(state).taste - toll, 0, 5)

    def respond(self, state, prefix):
        toll = self.backend.numpy(self.committed(state, {"toll": prefix["toll"]}).decisions["toll"])
        trips = np.broadcast_to(self._trips(state, toll[:, :, 0]), (len(toll), self.params.n_drivers))[..., None]
        values = {r: self.backend.numpy(v) for r, v in self.payoff(state, {"toll": toll, "trip": trips}).items()}
        path = self.by_stage({"toll": toll, "trip": trips})
        return self._found(state, path, values)

    def _found(self, state, path, values):
        batch = self.batch(state)

        def answer(here):
            return Pure(self.respond(here, {"toll": here.decisions["toll"]}).on_path["trip"])

        return Equilibrium(
            strategy=self.by_stage({"toll": Pure(path["toll"]), "trip": Reply(answer)}),
            values=values,
            epsilon=np.zeros(batch),
            certified=np.ones(batch, bool),
            kind="exact",
            method="closed form",
            citation="",
            exists=np.ones(batch, bool),
            on_path=path,
        )

    def _best_toll(self, state):
        taste, cost = np.broadcast_to(self.theta64(state).taste, (self.batch(state), self.params.n_drivers)), 0.5
        ordered = np.sort(taste, axis=1)[:, ::-1]
        if self.params.levels is not None:
            tolls = np.broadcast_to(np.linspace(0, 5, self.params.levels), (len(taste), self.params.levels))
        else:
            active = np.arange(1, taste.shape[1] + 1)
            peaks = (np.cumsum(ordered, axis=1) / active + cost) / 2
            tolls = np.clip(np.concatenate((peaks, ordered), axis=1), 0, 5)
        earned = (tolls - cost) * np.clip(taste[:, None] - tolls[:, :, None], 0, 5).sum(axis=2)
        best = earned.argmax(axis=1)[:, None]
        return np.take_along_axis(tolls, best, 1)[..., None], np.take_along_axis(earned, best, 1)

    def solve(self, state):
        return self.respond(state, {"toll": self._best_toll(state)[0]})

    def best_reply(self, state, stage, decisions):
        if stage == "trip":
            best = np.broadcast_to(self._trips(state, decisions["toll"][:, :, 0])[..., None], decisions["trip"].shape)
            values = self.payoff(state, {**decisions, "trip": best})["driver"]
            base = self.payoff(state, decisions)["driver"]
        else:
            best, values = self._best_toll(state)
            base = self.respond(state, {"toll": decisions["toll"]}).values["keeper"]
        gains = np.maximum(values - base, 0)
        return BestResponse(best, base + gains, gains, gains, "exact", "closed form")

    def optimum(self, state):
        trips = np.broadcast_to(
            np.clip(self.theta64(state).taste - 0.5, 0, 5), (self.batch(state), self.params.n_drivers)
        )
        value = (np.clip(self.theta64(state).taste - 0.5, 0, 5) ** 2 / 2).sum(axis=1)
        return SocialOptimum(
            np.broadcast_to(value, (self.batch(state),)),
            self.by_stage({"trip": trips[..., None]}),
            "exact",
            "closed form",
        )


class CalmToll(Toll):
    """Without the shock, so that realised welfare can be compared with the optimum."""

    def round_noise(self):
        return {}

    def settle(self, state, decisions):
        pay = self.expected(state, decisions)
        return Outcome(pay, {"welfare": self.xp.sum(pay["keeper"], axis=1) + self.xp.sum(pay["driver"], axis=1)})
