"""Two-tier bidding: bandwidth shares by bids above, resource blocks by slices below."""

from ...registry import MarketSpec

SPEC = MarketSpec(
    id="TwoTierBidding-v0",
    entry_point="marketenvs.markets.two_tier_bidding.rules:TwoTierBidding",
    roles=("bidder", "slicer"),
    title="Two-tier bidding",
    summary="Operators bid for shares of one base station's bandwidth, then divide them over three service slices.",
    paper="Two Tier Slicing Resource Allocation Algorithm Based on Deep Reinforcement Learning and Joint Bidding",
    default_preset="bidding",
)
