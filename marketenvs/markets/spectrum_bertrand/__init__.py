"""Spectrum Bertrand: sellers price channels, buyers bid for them (auctions, posted prices, clearing, logit demand)."""

from ...registry import MarketSpec

SPEC = MarketSpec(
    id="SpectrumBertrand-v0",
    entry_point="marketenvs.markets.spectrum_bertrand.rules:SpectrumBertrand",
    roles=("seller", "buyer"),
    title="Spectrum Bertrand",
    summary="Sellers post prices for channels; buyers pick one and bid: where learners famously overprice or collude.",
    paper="Market-Based Model in CR-IoT: A Q-Probabilistic Multi-agent Learning Approach",
)
