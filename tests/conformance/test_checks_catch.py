"""The suite itself: a sound market passes every check, and each way to break it is caught by the check that is there for it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

from marketenvs import InvalidParameter, Outcome, Stage, UnknownName, testing
from marketenvs.codecs import BoxCodec, GridCodec
from marketenvs.params import count, number

from .samples import CalmToll, Toll, TollHistory, TollParams


@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize("kind", [Toll, CalmToll])
def test_sound_market_passes(kind, levels):
    ran = testing.check_market(kind(TollParams(levels=levels)), backends=("numpy",))
    assert [r.split()[1] for r in ran] == list(testing.CHECKS)


def test_sound_market_passes_on_every_library():
    ran = testing.check_market(Toll(), backends=("numpy", "torch", "array_api_strict"), oracle=False)
    assert sum("torch" in r for r in ran) == len(testing.LIBRARY_CHECKS)
    assert not set(testing.ORACLE_CHECKS) & {r.split()[-1] for r in ran}


class _Unnamed(Toll):
    def build_stages(self):
        first, second = super().build_stages()
        return first, second._replace(name="toll")


class _DoubleSymbol(Toll):
    Params = dataclasses.make_dataclass(
        "_DoubleParams",
        [("weight", object, number(1.0, "twice used", symbol="a"))],
        bases=(TollParams,),
        frozen=True,
        kw_only=True,
    )
    Theta = __import__("marketenvs.params", fromlist=["theta_type"]).theta_type("_DoubleTheta", Params)


class _Undocumented(Toll):
    Params = dataclasses.make_dataclass(
        "_UndocumentedParams", [("extra", int, count(1, ""))], bases=(TollParams,), frozen=True, kw_only=True
    )


class _Double(Toll):
    def build_stages(self):
        first, second = super().build_stages()
        return first._replace(observation_space=spaces.Box(0, 1, (1,), np.float64)), second


class _DependsOnBatch(Toll):
    """Scales by the batch's largest taste instead of by a constant."""

    def observe(self, state, stage):
        seen = super().observe(state, stage)
        return seen * (1 / np.max(state.theta.taste)) if stage == "trip" else seen


class _UnkeyedHistory(Toll):
    """Draws its history from NumPy's global stream."""

    def first_history(self, theta, noise, batch):
        return TollHistory(np.random.default_rng(0).uniform(0, 5, (batch, 1)))


class _OutOfSpace(Toll):
    def observe(self, state, stage):
        seen = super().observe(state, stage)
        return seen * 1.5 if stage == "trip" else seen


class _WrongShape(Toll):
    def observe(self, state, stage):
        return super().observe(state, stage)[..., :1]


class _NoClip(Toll):
    def commit(self, state, stage, decisions):
        return state._replace(decisions={**state.decisions, stage: decisions})


class _NoCount(Toll):
    def _count_clipped(self, kept, raw):
        return 0 * super()._count_clipped(kept, raw)


class _CrookedCodec(BoxCodec):
    def encode(self, xp, decisions, low, high):
        return super().encode(xp, decisions, low, high) * 0.9


class _Crooked(Toll):
    def build_stages(self):
        first, second = super().build_stages()
        return first._replace(codec=_CrookedCodec()), second


class _NothingLegal(Toll):
    def build_stages(self):
        first, second = super().build_stages()
        return Stage(first.name, first.role, GridCodec(4), first.observation_space), second

    def action_mask(self, state, stage):
        return np.zeros((self.batch(state), 1, 4), bool) if stage == "toll" else None


class _NoWelfare(Toll):
    def settle(self, state, decisions):
        return super().settle(state, decisions)._replace(metrics={})


class _Biased(Toll):
    """Realised payoffs lie 0.2 above what ``payoff`` promises: far below the noise of one round."""

    def settle(self, state, decisions):
        outcome = super().settle(state, decisions)
        return Outcome({**outcome.payoffs, "driver": outcome.payoffs["driver"] + 0.2}, outcome.metrics)


class _Favourite(Toll):
    """Driver 0 pays half the toll."""

    def expected(self, state, decisions):
        pay = super().expected(state, decisions)
        half = decisions["toll"][:, :, 0] * decisions["trip"][:, :, 0] / 2
        return {**pay, "driver": pay["driver"] + half * (np.arange(self.params.n_drivers) == 0)}


class _AdmittedFavourite(_Favourite):
    anonymous = ("keeper",)


class _InPlace(Toll):
    def remember(self, state, decisions, outcome):
        state.history.toll[:] = decisions["toll"][:, :, 0]
        return state.history


class _Forgetful(Toll):
    """Counts its own rounds in the object, which a copy loses."""

    seen = 0

    def remember(self, state, decisions, outcome):
        self.seen += 1
        return TollHistory(decisions["toll"][:, :, 0] + 1e-9 * self.seen)


class _Trusting(Toll):
    def check_decisions(self, state, stage, value):
        return np.nan_to_num(super().check_decisions(state, stage, np.nan_to_num(value)))


class _MissesGains(CalmToll):
    """Its best reply stops half way, and says that nothing more is to be had."""

    def best_reply(self, state, stage, decisions):
        found = super().best_reply(state, stage, decisions)
        if stage == "toll":
            return found
        half = (found.decisions + decisions[stage]) / 2
        values = self.payoff(state, {**decisions, stage: half})["driver"]
        gains = np.maximum(values - self.payoff(state, decisions)["driver"], 0)
        return dataclasses.replace(found, decisions=half, values=values, gains=gains, upper=gains)


class _Boastful(CalmToll):
    """Certifies a toll that is not the best."""

    def solve(self, state):
        return self.respond(state, {"toll": np.full((self.batch(state), 1, 1), 0.6)})


class _BoastfulBoth(_Boastful):
    """... and its own best reply agrees: only trying deviations finds out."""

    def best_reply(self, state, stage, decisions):
        found = super().best_reply(state, stage, decisions)
        zero = np.zeros_like(found.gains)
        return dataclasses.replace(
            found, gains=zero, upper=zero, values=found.values - found.gains, decisions=decisions[stage]
        )


class _WrongValues(CalmToll):
    def solve(self, state):
        found = super().solve(state)
        return dataclasses.replace(found, values={**found.values, "keeper": found.values["keeper"] + 0.01})


class _CertifiedEstimate(CalmToll):
    def solve(self, state):
        return dataclasses.replace(super().solve(state), kind="estimate")


class _LazyFollowers(CalmToll):
    """Followers drive 90 % of what they should."""

    def _trips(self, state, toll):
        return 0.9 * super()._trips(state, toll)

    def best_reply(self, state, stage, decisions):
        if stage == "toll":
            return super().best_reply(state, stage, decisions)
        best = np.clip(self.theta64(state).taste - decisions["toll"][:, :, 0], 0, 5)[..., None]
        best = np.broadcast_to(best, decisions["trip"].shape)
        base = self.payoff(state, decisions)["driver"]
        gains = np.maximum(self.payoff(state, {**decisions, "trip": best})["driver"] - base, 0)
        return dataclasses.replace(
            super().best_reply(state, stage, decisions), decisions=best, values=base + gains, gains=gains, upper=gains
        )


class _ModestOptimum(CalmToll):
    def optimum(self, state):
        best = super().optimum(state)
        return dataclasses.replace(best, value=0.5 * best.value)


BROKEN = [
    (_Unnamed, "declaration", "not all different"),
    (_DoubleSymbol, "declaration", r"\['a'\] name several"),
    (_Undocumented, "declaration", "extra lacks its one-line meaning"),
    (_Double, "declaration", "must be float32"),
    (_DependsOnBatch, "batch_of_singles", "observe: trip"),
    (_UnkeyedHistory, "batch_of_singles", "state: history.toll"),
    (_UnkeyedHistory, "streams", "history.toll"),
    (_OutOfSpace, "observation_spaces", "outside its space"),
    (_WrongShape, "observation_spaces", r"declared is \(6, 3, 2\)"),
    (_NoClip, "bounds_and_clipping", "left a decision outside"),
    (_NoCount, "bounds_and_clipping", "decisions were clipped"),
    (_Crooked, "codecs", "decode\\(encode"),
    (_NothingLegal, "masks", "no legal action"),
    (_NoWelfare, "outcomes", "lack 'welfare'"),
    (_Biased, "expectation", "differ by 0[.][12]"),
    (_Favourite, "symmetry", "driver permuted"),
    (_InPlace, "purity", "changed the state"),
    (_Forgetful, "purity", "a second time"),
    (_Forgetful, "copies", "the next state"),
    (_Trusting, "bad_input", "accepted"),
    (_MissesGains, "gains", "earns .* at 'trip'"),
    (_Boastful, "equilibrium", "certified with epsilon"),
    (_BoastfulBoth, "equilibrium", "keeper_0 .* earns"),
    (_WrongValues, "equilibrium", "values of 'keeper'"),
    (_CertifiedEstimate, "equilibrium", "never certified"),
    (_LazyFollowers, "respond", "leaves gains"),
    (_ModestOptimum, "social_optimum", "exceeds the social optimum"),
]


@pytest.mark.parametrize(("kind", "check", "message"), BROKEN, ids=[f"{k.__name__[1:]}-{c}" for k, c, _ in BROKEN])
def test_broken_market_is_caught(kind, check, message):
    with pytest.raises(AssertionError, match=message) as raised:
        testing.run_check(check, kind())
    assert f"check {check!r}" in str(raised.value)


def test_every_check_is_shown_to_fail():
    assert {c for _, c, _ in BROKEN} == set(testing.CHECKS)


def test_a_market_may_declare_which_roles_are_anonymous():
    testing.run_check("symmetry", _AdmittedFavourite())


class _NumpyOnly(Toll):
    def observe(self, state, stage):
        seen = super().observe(state, stage)
        seen[...] = seen  # in place: JAX arrays refuse
        return seen


class _OtherNumbers(Toll):
    def expected(self, state, decisions):
        pay = super().expected(state, decisions)
        return {**pay, "keeper": pay["keeper"] * (1 + 1e-6 * (self.backend.name != "numpy"))}


class _Drifts(Toll):
    def expected(self, state, decisions):
        pay = super().expected(state, decisions)
        return {**pay, "keeper": pay["keeper"] * (1 + 1e-2 * (self.backend.dtype_name == "float32"))}


class _PythonBranch(Toll):
    def expected(self, state, decisions):
        pay = super().expected(state, decisions)
        return pay if bool(self.xp.sum(decisions["toll"]) > 0) else {**pay}


@pytest.mark.parametrize(
    ("kind", "check", "library", "message"),
    [
        (_NumpyOnly, "same_numbers", "jax", "immutable|JaxRuntime|item assignment"),
        (_OtherNumbers, "same_numbers", "torch", "payoff: keeper"),
        (_OtherNumbers, "same_numbers", "array_api_strict", "payoff: keeper"),
        (_Drifts, "single_precision", "torch", "payoff: keeper"),
        (_PythonBranch, "same_numbers", "jax", "Tracer|traced"),
    ],
)
def test_broken_library_is_caught(kind, check, library, message):
    pytest.importorskip(library)
    with pytest.raises(AssertionError, match=message):
        testing.run_check(check, kind(), library)


def test_golden_trajectory_catches_a_change(tmp_path):
    path = tmp_path / "Toll-v0.json"
    Toll.id = "Toll-v0"
    with pytest.raises(AssertionError, match=r"has no golden trajectory.*--golden Toll-v0"):
        testing.check_golden(Toll(), path)
    import json

    record = testing.golden_trajectory(Toll())
    path.write_text(json.dumps(record))
    testing.check_golden(Toll(), path)
    _SlightlyOther.id = "Toll-v0"
    with pytest.raises(AssertionError, match=r"rounds\[0\].*keeper.*Toll-v1") as raised:
        testing.check_golden(_SlightlyOther(), path)
    assert "--golden" in str(raised.value)


class _SlightlyOther(Toll):
    def expected(self, state, decisions):
        pay = super().expected(state, decisions)
        return {**pay, "keeper": pay["keeper"] * (1 + 1e-8)}


def test_unknown_names_are_named():
    with pytest.raises(UnknownName, match="did you mean 'symmetry'"):
        testing.run_check("symetry", Toll())
    with pytest.raises(UnknownName, match="did you mean 'torch'"):
        testing.check_market(Toll(), backends=("troch",))
    with pytest.raises(UnknownName, match="did you mean 'AIBazaar-v0'"):
        testing.check_market("AIBazar-v0")
    with pytest.raises(UnknownName, match="did you mean 'calibrated'"):
        testing.check_market("AIBazaar-v0", presets=["calibratd"])
    with pytest.raises(InvalidParameter, match="n_drivers"):
        TollParams(n_drivers=0)


def test_checks_are_described():
    for name in (*testing.CHECKS, *testing.LIBRARY_CHECKS):
        assert len(testing.describe_check(name)) > 20
