"""The genetic algorithm against the analytic one-sided optima (spec, section 7, Fig. 8a)."""

from __future__ import annotations

import numpy as np
import pytest
from marketenvs_baselines import ALGORITHMS
from marketenvs_baselines.genetic import one_sided_optimum

import marketenvs
from marketenvs.errors import InvalidParameter, UnknownName

from .tasks import FakeTask

pytest.importorskip("pymoo")

# case: (role, fixed price, price, purchases, profit of the role)
FIG_8A = {
    "P1": ("provider", None, 20.0, 100.0, 15000.0),
    "P2, price chosen too": ("consumer", None, 10.0, 100.0, 76502.4),
    "P2 at the equilibrium price": ("consumer", 14.9286510099, 14.9286510099, 10.0, 27889.4),
}


@pytest.mark.parametrize("case", FIG_8A)
def test_one_sided_optima_of_the_calibrated_market(case):
    role, fixed, price, purchases, profit = FIG_8A[case]
    market = marketenvs.make("AIBazaar-v0", preset="calibrated")
    state = market.reset(seed=0)
    best = one_sided_optimum(market, state, role, fixed=None if fixed is None else {"pricing": fixed}, seed=3)
    np.testing.assert_allclose(best.value, profit, rtol=1e-4)
    np.testing.assert_allclose(best.decisions["pricing"], price, rtol=1e-3)
    np.testing.assert_allclose(best.decisions["purchase"], purchases, rtol=1e-2)
    np.testing.assert_allclose(market.payoff(state, best.decisions)[role].sum(), best.value)
    assert np.all(np.diff(best.history) >= 0)
    assert len(best.history) == 201


def test_decisions_lie_on_the_grid_and_the_seed_decides():
    market = marketenvs.make("AIBazaar-v0", preset="hetero", price_levels=11, amount_levels=10)
    state = market.reset(seed=0)
    first, again, other = (
        one_sided_optimum(market, state, "consumer", generations=30, seed=s, fixed={"provider": 16}) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.positions["purchase"], again.positions["purchase"])
    assert not np.array_equal(first.positions["purchase"], other.positions["purchase"])
    grid = np.linspace(10, 100, 10)
    assert np.all(np.isclose(first.decisions["purchase"][..., None], grid).any(axis=-1))


def test_one_set_of_positions_serves_all_draws():
    market = marketenvs.make("AIBazaar-v0", preset="drawn", n_consumers=3)
    state = market.reset(seed=0, batch=5)
    best = one_sided_optimum(market, state, "provider", generations=20, seed=0)
    assert best.decisions["purchase"].shape == (5, 3, 1)
    assert np.ptp(best.decisions["purchase"], axis=0).max() == 0
    value = market.payoff(state, best.decisions)["provider"].sum(axis=1).mean()
    np.testing.assert_allclose(value, best.value)


def test_as_an_algorithm_it_keeps_to_its_budget():
    task, told = FakeTask("calibrated", params={"n_consumers": 3}), []
    policies = ALGORITHMS["genetic"].run(task, [0], 8000, lambda r, *a: told.append(r))[0]
    assert set(policies) == {"provider", "consumer"}
    assert max(told) <= 8000
    assert told == sorted(told)


def test_bad_questions_are_named():
    market = marketenvs.make("AIBazaar-v0")
    state = market.reset(seed=0)
    with pytest.raises(UnknownName, match="did you mean 'provider'"):
        one_sided_optimum(market, state, "provder")
    with pytest.raises(InvalidParameter, match="nothing left"):
        one_sided_optimum(market, state, "provider", fixed={"pricing": 12, "purchase": 50})
    with pytest.raises(InvalidParameter, match="generations"):
        one_sided_optimum(market, state, "provider", generations=0)
