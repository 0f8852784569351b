"""AI-Bazaar: cloud-edge computing power, one provider and N consumers (Stackelberg)."""

from ...registry import MarketSpec

SPEC = MarketSpec(
    id="AIBazaar-v0",
    entry_point="marketenvs.markets.ai_bazaar.rules:AIBazaar",
    roles=("provider", "consumer"),
    title="AI-Bazaar",
    summary="A provider prices computing power; consumers buy it for their own business and for a mining contest they share.",
    paper="AI-Bazaar: A Cloud-Edge Computing Power Trading Framework for Ubiquitous AI Services",
    default_preset="calibrated",
)
