"""Networks of a role whose agents do not share one: each agent has its own weights, all are computed at once.

What :mod:`network` is for trainers with one policy per role, this is for trainers with one policy per agent. The
agents' networks have the same shapes, so a layer is one array with a leading axis of agents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter, NotOffered
from marketenvs.market import Market

from .network import ACTIVATIONS, Network, NetworkPolicy


@dataclass
class AgentNetworks(Network):
    """One MLP per agent: weight (n, out, in) and bias (n, out) of each layer, and a deviation (n, k) or None.

    Observations and masks come in rows, agent after agent, market after market: row b * n + i is agent i of market b.
    """

    def __post_init__(self) -> None:
        """Check the shapes, and each agent's network for itself."""
        self.layers = [(np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in self.layers]
        shapes = {len(array) for layer in self.layers for array in layer}
        shapes |= set() if self.deviation is None else {len(self.deviation)}
        if len(shapes) != 1:
            raise InvalidParameter(f"the layers are of different numbers of agents: {sorted(shapes)}")
        if self.deviation is not None:
            self.deviation = np.asarray(self.deviation, np.float32)
        for i in range(self.agents):
            self.of(i)

    @property
    def agents(self) -> int:
        """Number of agents n."""
        return len(self.layers[0][0])

    @property
    def inputs(self) -> int:
        """Length of an observation."""
        return int(self.layers[0][0].shape[2])

    def of(self, agent: int) -> Network:
        """The network of one agent."""
        layers = [(w[agent], b[agent]) for w, b in self.layers]
        deviation = None if self.deviation is None else self.deviation[agent]
        return Network(layers, self.head, self.activation, deviation, self.choices, self.stochastic)

    @classmethod
    def stack(cls, networks: Sequence[Network]) -> AgentNetworks:
        """Networks of the agents 0, 1, ... as one.

        Raises:
            InvalidParameter: They differ in more than their weights, or standardise their observations.
        """
        if any(n.standardize is not None for n in networks):
            raise InvalidParameter("networks that standardise their observations cannot be stacked")
        kinds = {
            (n.head, n.activation, n.choices, n.stochastic, n.deviation is None, *(w.shape for w, _ in n.layers))
            for n in networks
        }
        if len(kinds) != 1:
            raise InvalidParameter(f"networks of one role must differ in weights only, got {len(kinds)} kinds")
        first = networks[0]
        layers = [
            (np.stack([n.layers[k][0] for n in networks]), np.stack([n.layers[k][1] for n in networks]))
            for k in range(len(first.layers))
        ]
        deviation = None if first.deviation is None else np.stack([np.asarray(n.deviation) for n in networks])
        return cls(layers, first.head, first.activation, deviation, first.choices, first.stochastic)

    def forward(self, obs: np.ndarray) -> np.ndarray:
        """(B * n, outputs) float32 of observations (B * n, d)."""
        x = np.asarray(obs, dtype=np.float32)
        if len(x) % self.agents:
            raise InvalidParameter(f"{len(x)} observations are not of {self.agents} agents each")
        x = x.reshape(-1, self.agents, x.shape[-1]).swapaxes(0, 1)
        act = ACTIVATIONS[self.activation]
        for i, (w, b) in enumerate(self.layers):
            x = x @ w.swapaxes(1, 2) + b[:, None]
            if i + 1 < len(self.layers):
                x = act(x)
        return np.ascontiguousarray(x.swapaxes(0, 1)).reshape(-1, x.shape[-1])

    def act(self, obs: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
        """Actions of every agent, as :meth:`Network.act` gives them."""
        if self.head == "box" and self.stochastic and self.deviation is not None:
            mean = self.forward(obs)
            spread = np.tile(self.deviation, (len(mean) // self.agents, 1))
            return np.clip(mean + spread * rng.standard_normal(mean.shape), -1.0, 1.0)
        return super().act(obs, mask, rng)


class AgentNetworkPolicy(NetworkPolicy):
    """:class:`AgentNetworks` for each stage of a role."""

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        """As :meth:`NetworkPolicy.start`; raises ``NotOffered`` for a role with another number of agents."""
        super().start(market, role, batch, seed)
        for name, network in self.networks.items():
            count = getattr(network, "agents", None)
            if count != market.roles[role]:
                raise NotOffered(f"stage {name!r} has networks of {count} agents; the role has {market.roles[role]}")

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> AgentNetworkPolicy:
        """The inverse of :meth:`export`."""
        networks: dict[str, Network] = {}
        for name, about in config["networks"].items():
            layers = [(arrays[f"{name}.{i}.weight"], arrays[f"{name}.{i}.bias"]) for i in range(about["layers"])]
            deviation, choices = arrays.get(f"{name}.deviation"), tuple(about["choices"])
            networks[name] = AgentNetworks(
                layers, about["head"], about["activation"], deviation, choices, about["stochastic"]
            )
        return cls(networks)
