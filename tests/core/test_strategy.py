"""Strategies: draws with the right frequencies, mixtures that are checked, equilibria that do not pretend to be pure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketenvs import Equilibrium, InvalidAction, Pure, Reply, Sampler, Samples, UnknownName
from marketenvs.strategy import ByStage

few = settings(max_examples=30, deadline=None, derandomize=True)


@few
@given(weights=st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda w: sum(w) > 1e-3))
def test_samples_draw_with_their_weights(weights):
    weights = np.array(weights) / np.sum(weights)
    weights = weights / weights.sum()
    values = np.arange(len(weights), dtype=float).reshape(-1, 1, 1, 1)
    u = (np.arange(20_000) + 0.5)[:, None] / 20_000
    drawn = Samples(values, weights).draw(u)[:, 0, 0]
    counts = np.bincount(drawn.astype(int), minlength=len(weights)) / 20_000
    assert counts == pytest.approx(weights, abs=2e-4)


def test_samples_mix_independently_per_agent():
    values = np.array([[[[0.0], [10.0]]], [[[1.0], [11.0]]]])  # two values for each of two agents of one market
    weights = np.array([[[1.0, 0.25]], [[0.0, 0.75]]])
    drawn = Samples(values, weights).draw(np.array([[0.9, 0.2]]))
    assert drawn[0, :, 0].tolist() == [0.0, 10.0]
    assert Samples(values, weights).draw(np.array([[0.9, 0.3]]))[0, :, 0].tolist() == [0.0, 11.0]


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [
        (np.zeros((2, 1, 1)), None, "shape"),
        (np.full((2, 1, 1, 1), np.nan), None, "finite"),
        (np.zeros((2, 1, 1, 1)), [0.5, 0.6], "sum to 1"),
        (np.zeros((2, 1, 1, 1)), [1.5, -0.5], "non-negative"),
        (np.zeros((2, 1, 1, 1)), [1.0], "non-negative with shape"),
        (np.zeros((2, 1, 1, 1)), [np.nan, 1.0], "weights"),
    ],
)
def test_bad_mixtures(values, weights, message):
    with pytest.raises(InvalidAction, match=message):
        Samples(values, weights)


def test_samplers_and_replies():
    assert Sampler(lambda u: u[..., None] * 2).draw(np.array([[0.5, 0.25]])).tolist() == [[[1.0], [0.5]]]
    with pytest.raises(InvalidAction, match="map"):
        Reply(lambda state: Pure(np.zeros((1, 1, 1)))).draw(np.zeros((1, 1)))


def test_by_stage_answers_to_roles():
    items = ByStage({"pricing": 1, "purchase": 2}, {"seller": "pricing", "buyer": "purchase", "judge": "verdict"})
    assert items["seller"] == items["pricing"] == 1
    assert "buyer" in items
    assert "judge" not in items
    assert list(items) == ["pricing", "purchase"]
    assert items.get("nobody") is None
    assert items.get("seller", 7) == 1
    with pytest.raises(UnknownName, match="did you mean 'pricing'"):
        items["pricin"]


def test_mixed_equilibria_have_no_actions():
    mixed = Samples(np.zeros((2, 1, 1, 1)))
    found = Equilibrium(
        strategy=ByStage({"pricing": mixed}, {"seller": "pricing"}),
        values={"seller": np.zeros((1, 1))},
        epsilon=np.zeros(1),
        certified=np.ones(1, bool),
        kind="exact",
        method="by hand",
        citation="",
        exists=np.ones(1, bool),
    )
    with pytest.raises(InvalidAction, match=r"mixed at stage\(s\) pricing: use eq.strategy"):
        _ = found.actions
