"""Bytes that every federated slicing scheme sends per slot, both directions together, at 4 bytes per number.

The paper's "communication-efficient" is counted here instead of asserted: federated averaging sends whole networks, raw
data are a few
numbers per slot.
"""

from __future__ import annotations

from dataclasses import dataclass

NUMBER_BYTES = 4


def network_parameters(inputs: int, layers: int = 6, width: int = 64, outputs: int = 1) -> int:
    """Parameters of a multilayer perceptron inputs -> layers x width -> outputs, weights and biases."""
    return (inputs + 1) * width + (layers - 1) * (width + 1) * width + (width + 1) * outputs


@dataclass(frozen=True)
class Scheme:
    """Sizes that the byte counts depend on.

    Attributes:
        slices: M.
        devices: N per slice.
        observation: numbers in an observation (2 in the paper, 12 here).
        layers: hidden layers of actor and critic.
        width: neurons per hidden layer.
    """

    slices: int = 6
    devices: int = 100
    observation: int = 2
    layers: int = 6
    width: int = 64

    @property
    def actor(self) -> int:
        """Parameters of one actor."""
        return network_parameters(self.observation, self.layers, self.width)

    @property
    def critic(self) -> int:
        """Parameters of one critic, which reads the action too."""
        return network_parameters(self.observation + 1, self.layers, self.width)

    def federated(self, period: float) -> float:
        """FedAvg of actor and critic every ``period`` slots: up and down for every slice."""
        return 2 * self.slices * (self.actor + self.critic) * NUMBER_BYTES / period

    def raw_transitions(self, refresh: float | None = None) -> float:
        """Central learner on slice-level transitions (s, a, r, s'); with ``refresh`` it sends actors down every so many slots."""
        up = self.slices * (2 * self.observation + 2) * NUMBER_BYTES
        return up + (self.slices * self.actor * NUMBER_BYTES / refresh if refresh else 0.0)

    def raw_device_data(self) -> float:
        """Central learner on every device's load and SNR."""
        return self.slices * self.devices * 2 * NUMBER_BYTES

    def central_execution(self) -> float:
        """Observations up, actions down."""
        return self.slices * (self.observation + 1) * NUMBER_BYTES

    def requests_and_grants(self) -> float:
        """What every scheme sends anyway."""
        return 2 * self.slices * NUMBER_BYTES

    def break_even(self, against: str = "transitions", refresh: bool = False) -> float:
        """Period above which federated averaging sends less than ``transitions`` or ``devices``.

        Args:
            against: "transitions" or "devices".
            refresh: whether the central learner sends actors down as often as federated averaging aggregates.

        Raises:
            ValueError: another ``against``.
        """
        if against == "devices":
            return self.federated(1.0) / self.raw_device_data()
        if against != "transitions":
            raise ValueError(f"against must be 'transitions' or 'devices', got {against!r}")
        sent = self.federated(1.0) - (self.slices * self.actor * NUMBER_BYTES if refresh else 0.0)
        return sent / self.raw_transitions()

    def table(self, periods: tuple[int, ...] = (1, 10, 100, 1000)) -> dict[str, float]:
        """Bytes per slot of every scheme, beyond requests and grants."""
        rows = {f"federated averaging every {p}": self.federated(p) for p in periods}
        return rows | {
            "raw transitions": self.raw_transitions(),
            "raw transitions, actors down every 100": self.raw_transitions(100),
            "raw device data": self.raw_device_data(),
            "central execution": self.central_execution(),
            "independent": 0.0,
        }
