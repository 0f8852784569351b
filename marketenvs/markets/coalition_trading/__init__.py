"""Coalition trading: tenants of a sliced network form coalitions and buy PRBs from competing sellers."""

from ...registry import MarketSpec

SPEC = MarketSpec(
    id="CoalitionTrading-v0",
    entry_point="marketenvs.markets.coalition_trading.rules:CoalitionTrading",
    roles=("seller", "buyer"),
    title="Coalition trading",
    summary="Sellers price PRBs for coalitions of tenants: Stackelberg with capacities, mixed equilibria, coalition formation.",
    paper="Cooperative Resource Trading for Network Slicing in Industrial IoT: A Multi-Agent DRL Approach",
)
