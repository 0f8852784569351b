"""Federated slicing: slices of one cell ask for resource blocks before they know their demand."""

from ...registry import MarketSpec

SPEC = MarketSpec(
    id="FederatedSlicing-v0",
    entry_point="marketenvs.markets.federated_slicing.rules:FederatedSlicing",
    roles=("slice",),
    title="Federated slicing",
    summary="Slices of one cell ask for resource blocks slot after slot, before they know their demand.",
    paper=(
        "Adaptive Digital Twin and Communication-Efficient Federated Learning Network Slicing "
        "for 5G-enabled Internet of Things"
    ),
)
