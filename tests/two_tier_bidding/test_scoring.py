"""What scores rest on: exact replies to mixtures, the team's optimum, tasks whose floors are low."""

import dataclasses
from itertools import product

import numpy as np
import pytest

import marketenvs
from marketenvs import Pure, Samples, scoring
from marketenvs.markets.two_tier_bidding import slices
from marketenvs.markets.two_tier_bidding.game import Game
from marketenvs.markets.two_tier_bidding.tasks import QUICK, TASKS
from marketenvs.policy import EquilibriumPolicy, Uniform
from marketenvs.task import build_task

ID = "TwoTierBidding-v0"


def mixture(rng, values, batch, agents):
    weights = rng.dirichlet(np.ones(len(values)), (batch, agents))
    return Samples(values, np.moveaxis(weights, -1, 0))


@pytest.mark.parametrize("positions", ["rings", "random"])
def test_reply_to_mixed_bids_is_exact(positions):
    """Expected payoffs over all 27 profiles, summed by hand."""
    market = marketenvs.make(ID, preset="two_tier", n_operators=3, bid_levels=3, positions=positions)
    state = market.reset(1, 2)
    rng = np.random.default_rng(0)
    low, high = (np.broadcast_to(b, (2, 3, 1)) for b in market.bounds(state, "bidding"))
    grid = market.stage("bidding").codec.candidates(low, high)
    mixed = mixture(rng, grid, 2, 3)
    splits = np.zeros((2, 3, 2))
    got = market.best_response(state, "bidding", {"bidding": mixed, "slicing": splits})
    assert got.kind == "exact"
    own = np.zeros((2, 3, 3))
    for profile in product(range(3), repeat=3):
        bids = np.stack([grid[k, :, m] for m, k in enumerate(profile)], 1)
        paid = market.respond(state, {"bidding": bids}).values["bidder"]
        for m, k in enumerate(profile):
            others = np.prod([mixed.weights[j, :, i] for i, j in enumerate(profile) if i != m], axis=0)
            own[:, m, k] += others * paid[:, m]
    base = (np.moveaxis(mixed.weights, 0, -1) * own).sum(-1)
    np.testing.assert_allclose(got.values, own.max(-1), rtol=1e-12)
    np.testing.assert_allclose(got.gains, own.max(-1) - base, rtol=1e-9)


def test_reply_of_a_mixing_slicer_is_exact():
    market = marketenvs.make(ID, preset="two_tier", bid_levels=4)
    state = market.reset(0, 1)
    bids = np.full((1, 4, 1), 900.0)
    values = np.array([[3, 6], [1, 9], [5, 2]], float)[:, None, None, :] * np.ones((1, 1, 4, 1))
    mixed = mixture(np.random.default_rng(1), values, 1, 4)
    got = market.best_response(state, "slicing", {"bidding": Pure(bids), "slicing": mixed})
    paid = np.stack([market.payoff(state, {"bidding": bids, "slicing": v})["slicer"] for v in values])
    best = market.respond(state, {"bidding": bids}).values["slicer"]
    np.testing.assert_allclose(got.gains, best - (mixed.weights * paid).sum(0), atol=1e-12)


@pytest.mark.parametrize("payment", ["kelly", "eq4"])
def test_team_optimum(payment):
    market = marketenvs.make(
        ID, preset="two_tier", reward="team", payment=payment, n_operators=3, bid_levels=3, lower="table"
    )
    state = market.reset(0, 1)
    stage = market.stage("bidding")
    low, high = (np.broadcast_to(b, (1, 3, 1)) for b in market.bounds(state, "bidding"))
    grid = stage.codec.candidates(low, high)
    every = [np.stack([grid[k, :, m] for m, k in enumerate(p)], 1) for p in product(range(3), repeat=3)]
    best = max(float(market.outcome(state, {"bidding": b}).metrics["welfare"][0]) for b in every)
    assert market.social_optimum(state).value[0] == pytest.approx(best, abs=1e-12)
    assert market.equilibrium(state).certified.all()
    whole = marketenvs.make(ID, preset="two_tier", reward="team", payment="eq4", bid_levels=None, lower="table")
    blocks = whole.social_optimum(whole.reset(0, 1)).extra["blocks"]
    assert tuple(blocks[0]) == (11, 11, 10, 18)  # spec 4.5, omega = 0.1 per Gb/s
    free = marketenvs.make(ID, preset="two_tier", reward="team", bid_levels=None, lower="table")
    with pytest.raises(marketenvs.NotOffered, match="pool of bids"):
        free.social_optimum(free.reset(0, 1))


def test_tasks_are_named():
    assert set(QUICK) <= {d.name for d in TASKS}


@pytest.mark.parametrize(
    "name",
    [
        "kelly-fixed",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("twotier-kelly", "twotier-rb", "twotier-team")),
    ],
)
def test_task(name):
    definition = next(d for d in TASKS if d.name == name)
    # A team's welfare is a mean over markets that differ a lot: eight are too few for its floor.
    markets = 60 if definition.track == "team" else 8
    small = dataclasses.replace(definition.plan, markets=markets, prefixes=2, draws=16)
    task = build_task(dataclasses.replace(definition, plan=small), floors=definition.tripwire is False)
    market = task.make_market()
    perfect = scoring.evaluate(task, {role: EquilibriumPolicy() for role in market.roles})
    assert perfect.score == pytest.approx(1.0, abs=1e-6)
    assert abs(scoring.evaluate(task, {role: Uniform() for role in market.roles}, seed=3).score) < 0.5
    if not definition.tripwire:
        assert task.floors["best_constant"] <= 0.8
        assert task.floors["myopic"] <= 0.95


def _pool_cases():
    for lower, payment, reward, control in product(
        ("agents", "table"),
        ("kelly", "posted", "efficient", "eq4", "eq4_literal"),
        ("profit", "utility", "team"),
        ("independent", "merged", "central"),
    ):
        if control != "merged" or lower == "agents":
            yield lower, payment, reward, control


@pytest.mark.parametrize("positions", ["rings", "random"])
def test_tables_of_pool_payoffs_equal_the_rules(positions):
    """Look-up by own blocks against the rules, profile by profile, for every payment, reward and control."""
    rng = np.random.default_rng(0)
    for lower, payment, reward, control in _pool_cases():
        options = {"lower": lower, "payment": payment, "reward": reward, "control": control, "positions": positions}
        market = marketenvs.make(
            ID, preset="two_tier", n_operators=3, bid_levels=4, value_weight=(1.0, 2.0, 0.5), **options
        )
        state = market.reset(2, 2)
        game = Game(market, state)
        table = game.pool_payoffs({}).reshape(4, 4, 4, game.batch, -1)
        levels = game.spread(game.pool())
        for _ in range(6):
            at = rng.integers(4, size=3)
            bids = np.stack([levels[:, m, k] for m, k in enumerate(at)], 1)
            bids = bids[:, None, :] if control == "central" else bids[..., None]
            later = market.respond(state, {"bidding": bids}).on_path if lower == "agents" else {}
            rules = market.payoff(state, {**later, "bidding": bids})
            want = rules[market.stage("bidding").role]
            got = np.broadcast_to(table[tuple(at)], want.shape)
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12, err_msg=str(options))


# -- continuous bids over whole blocks --------------------------------------------------------------------------------


@pytest.mark.parametrize("payment", ["kelly", "posted", "efficient", "eq4", "eq4_literal"])
@pytest.mark.parametrize("lower", ["agents", "ideal"])
def test_reply_over_whole_blocks_is_exact(payment, lower):
    """No bid of a fine grid, and none next to where it changes the rounding, earns more than the reply; and the reply earns what it says."""
    options = {"preset": "two_tier"} if lower == "agents" else {"allocation": "blocks"}
    market = marketenvs.make(ID, payment=payment, bid_levels=None, positions="random", **options)
    state = market.reset(5, 2)
    rng = np.random.default_rng(3)
    bids = np.exp(rng.uniform(np.log(30), np.log(1500), (2, 4, 1)))
    profile = {"bidding": bids}
    if lower == "agents":
        profile["slicing"] = market.respond(state, {"bidding": bids}).on_path["slicing"]
    found = market.best_response(state, "bidding", profile)
    assert found.kind == "exact"
    game = Game(market, state).unfold()
    low, high = (np.broadcast_to(b, bids.shape)[..., 0] for b in market.bounds(state, "bidding"))
    now = game.payoffs(bids[None], {})[0]
    for m in range(4):
        grid = np.linspace(low[:, m], high[:, m], 4001)
        trial = np.broadcast_to(bids, (len(grid), *bids.shape)).copy()
        trial[:, :, m, 0] = grid
        blocks = slices.round_blocks(trial[..., 0], 1.0, 50)[..., m]
        assert (np.diff(blocks, axis=0) >= 0).all()  # what bisection rests on
        assert (game.payoffs(trial, {})[..., m].max(0) <= found.values[:, m] + 1e-9).all()
        one = bids.copy()
        one[:, m] = found.decisions[:, m]
        np.testing.assert_allclose(game.payoffs(one[None], {})[0][:, m], now[:, m] + found.gains[:, m], rtol=1e-12)
        below = one.copy()
        below[:, m] *= 1 - 1e-9  # paid bids sit on the edge of the rounding: a hair less loses a block, or saves a hair
        assert (game.payoffs(below[None], {})[0][:, m] <= found.values[:, m] + 1e-5).all()


def test_no_exact_equilibrium_is_claimed_over_whole_blocks():
    """Bids are shaved down to breakpoints: what is left to gain is reported, exactly, and nothing is certified."""
    market = marketenvs.make(ID, preset="two_tier", bid_levels=None)
    state = market.reset(0, 1)
    equilibrium = market.equilibrium(state)
    assert equilibrium.kind == "bound"
    assert not equilibrium.certified.any()
    nash_conv = market.nash_conv(state, equilibrium.strategy)
    assert nash_conv.kind == "exact"
    assert nash_conv.gains["bidder"].max() == pytest.approx(equilibrium.epsilon[0], rel=1e-9)
    assert 0 < equilibrium.epsilon[0] < 80  # about the price of a block, 2574 / 50 = 51 credits
    dominant = marketenvs.make(ID, preset="two_tier", bid_levels=None, payment="eq4")
    capped = dominant.equilibrium(dominant.reset(0, 1))
    assert capped.certified.all()
    np.testing.assert_array_equal(capped.actions["bidding"][0, :, 0], (2700, 2600, 2700, 1700))
