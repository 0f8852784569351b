"""A trained multilayer perceptron as a policy, in plain NumPy: what every neural trainer of this package leaves behind.

It needs neither torch nor the trainer to play or to load, and all agents of a role share it. Weights are stored as
safetensors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter, NotOffered, nearest
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy
from marketenvs.strategy import Pure, Samples, Strategy

from .tabular import ActionGrid, sample

HEADS = {
    "box": "mean of a Gaussian, cut off at the action bounds (PPO, A2C)",
    "squashed": "mean before a tanh (SAC, TD3, DDPG)",
    "categorical": "logits of one choice, or of several choices side by side",
    "greedy": "values of which the largest is taken (DQN)",
}
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "silu": lambda x: x / (1.0 + np.exp(-x)),
}
MIXTURE_LIMIT = 4096


@dataclass
class Standardizer:
    """What an observation goes through before the first layer: ``clip((obs - mean) / deviation, -limit, limit)``.

    The statistics of SB3's ``VecNormalize``, frozen.

    Args:
        mean: (d,) float64.
        deviation: (d,) float64, positive.
        limit: Largest absolute value that is passed on.
    """

    mean: np.ndarray
    deviation: np.ndarray
    limit: float

    def __post_init__(self) -> None:
        self.mean, self.deviation = np.asarray(self.mean, np.float64), np.asarray(self.deviation, np.float64)
        if self.mean.ndim != 1 or self.mean.shape != self.deviation.shape:
            raise InvalidParameter("mean and deviation of observations must be one number for each entry")
        if not (np.all(np.isfinite(self.mean)) and np.all(self.deviation > 0) and self.limit > 0):
            raise InvalidParameter("observations need finite means, positive deviations and a positive limit")

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Standardised observations (m, d), float32."""
        return np.clip((obs - self.mean) / self.deviation, -self.limit, self.limit).astype(np.float32)


@dataclass
class Network:
    """An MLP from one stage's observation to one agent's action.

    Args:
        layers: Weight (out, in) and bias (out,) of each layer, float32; the activation follows all but the last.
        head: What the last layer means; see :data:`HEADS`.
        activation: "tanh", "relu", "elu" or "silu".
        deviation: (k,) standard deviation of a Gaussian head, or None. With None, or ``stochastic=False``, the mean is
            played.
        choices: Sizes of the choices of a categorical head; () for a single one.
        stochastic: Whether actions are drawn.
        standardize: How observations are standardised before the first layer; None: not at all.
    """

    layers: list[tuple[np.ndarray, np.ndarray]]
    head: str
    activation: str = "tanh"
    deviation: np.ndarray | None = None
    choices: tuple[int, ...] = ()
    stochastic: bool = False
    standardize: Standardizer | None = None

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise InvalidParameter(f"unknown head {self.head!r}; {nearest(self.head, HEADS)}")
        if self.activation not in ACTIVATIONS:
            raise InvalidParameter(f"unknown activation {self.activation!r}; {nearest(self.activation, ACTIVATIONS)}")
        if self.deviation is not None:
            self.deviation = np.asarray(self.deviation, np.float32)
        self.layers = [(np.asarray(w, np.float32), np.asarray(b, np.float32)) for w, b in self.layers]
        for (w, b), (nxt, _) in zip(self.layers, [*self.layers[1:], (None, None)], strict=True):
            if w.ndim != 2 or b.shape != w.shape[:1] or (nxt is not None and nxt.shape[1] != w.shape[0]):
                raise InvalidParameter("the layers' shapes do not fit together")
            if not (np.all(np.isfinite(w)) and np.all(np.isfinite(b))):
                raise InvalidParameter("the network has NaN or infinite weights: training diverged")
        if self.standardize is not None and len(self.standardize.mean) != self.inputs:
            raise InvalidParameter(
                f"the network reads {self.inputs} numbers, its statistics describe {len(self.standardize.mean)}"
            )

    @property
    def inputs(self) -> int:
        """Length of an observation."""
        return int(self.layers[0][0].shape[1])

    def forward(self, obs: np.ndarray) -> np.ndarray:
        """(m, outputs) float32 of observations (m, d)."""
        x = np.asarray(obs, dtype=np.float32)
        if self.standardize is not None:
            x = self.standardize(x)
        act = ACTIVATIONS[self.activation]
        for i, (w, b) in enumerate(self.layers):
            x = x @ w.T + b
            if i + 1 < len(self.layers):
                x = act(x)
        return x

    def probabilities(self, obs: np.ndarray, mask: np.ndarray | None) -> list[np.ndarray]:
        """Of a categorical head: (m, A) of each choice; illegal actions (mask (m, A) False) get none."""
        logits = self.forward(obs).astype(np.float64)
        if mask is not None:
            logits = np.where(mask, logits, -np.inf)
        sizes = self.choices or (logits.shape[1],)
        out = []
        for part in np.split(logits, np.cumsum(sizes)[:-1], axis=1):
            weights = np.exp(part - part.max(axis=1, keepdims=True))
            out.append(weights / weights.sum(axis=1, keepdims=True))
        return out

    def act(self, obs: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
        """Actions (m, k) in [-1, 1], (m,) or (m, choices) for observations (m, d)."""
        if self.head in ("box", "squashed"):
            mean = self.forward(obs)
            if self.stochastic and self.deviation is not None:
                mean = mean + self.deviation * rng.standard_normal(mean.shape)
            return np.clip(mean, -1.0, 1.0) if self.head == "box" else np.tanh(mean)
        if self.head == "greedy":
            values = self.forward(obs)
            return (values if mask is None else np.where(mask, values, -np.inf)).argmax(axis=1)
        parts = self.probabilities(obs, mask)
        if self.stochastic:
            picks = [sample(p, rng.random(len(p))) for p in parts]
        else:
            picks = [p.argmax(axis=1) for p in parts]
        return np.stack(picks, axis=1) if self.choices else picks[0]


@dataclass
class NetworkPolicy(Policy):
    """One :class:`Network` for each stage of a role, shared by all its agents."""

    networks: dict[str, Network] = field(default_factory=dict)
    units = "action"
    tensors = True

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        self.rng = np.random.default_rng(seed)
        if sorted(self.networks) != sorted(market.stages_of[role]):
            raise NotOffered(f"these networks play {', '.join(self.networks)}, not {', '.join(market.stages_of[role])}")
        for name, network in self.networks.items():
            d = int(market.stage(name).observation_space.shape[0])
            if d != network.inputs:
                raise NotOffered(f"the network of stage {name!r} reads {network.inputs} numbers; the market shows {d}")

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        """Whether any of the networks draws its actions."""
        return any(n.stochastic for n in self.networks.values())

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        flat, legal = self._flat(obs, mask)
        actions = self.networks[stage.name].act(flat, legal, self.rng)
        return actions.reshape(*obs.shape[:2], *actions.shape[1:])

    def strategy(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State, draws: int) -> Strategy:
        """Exact mixtures where actions are a few choices, the point where nothing is drawn, samples otherwise."""
        network = self.networks[stage.name]
        space: Any = stage.codec.action_space
        low, high = (self.market.backend.numpy(b) for b in self.market.bounds(state, stage.name))
        if not network.stochastic:
            return Pure(
                np.broadcast_to(
                    stage.codec.decode(np, self.act_at(stage, obs, mask, state), low, high),
                    (
                        *obs.shape[:2],
                        stage.codec.width,
                    ),
                )
            )
        size = int(np.prod(getattr(space, "nvec", [getattr(space, "n", MIXTURE_LIMIT + 1)]), dtype=float))
        if network.head != "categorical" or size > MIXTURE_LIMIT:
            twin = copy.copy(self)
            twin.rng = copy.deepcopy(self.rng)
            return super(NetworkPolicy, twin).strategy(stage, obs, mask, state, draws)
        flat, legal = self._flat(obs, mask)
        weights = np.ones((len(flat), 1))
        for part in network.probabilities(flat, legal):
            weights = (weights[:, :, None] * part[:, None, :]).reshape(len(flat), -1)
        values = ActionGrid(stage).values(low, high, *obs.shape[:2])
        return Samples(values, np.moveaxis(weights.reshape(*obs.shape[:2], -1), 2, 0))

    def _flat(self, obs: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        flat = obs.reshape(-1, obs.shape[-1])
        return flat, None if mask is None else np.asarray(mask, dtype=bool).reshape(len(flat), -1)

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON and arrays, for ``store.save_policy``."""
        config, arrays = {}, {}
        for name, net in self.networks.items():
            config[name] = {
                "head": net.head,
                "activation": net.activation,
                "choices": list(net.choices),
                "stochastic": net.stochastic,
                "layers": len(net.layers),
            }
            if net.standardize is not None:
                config[name]["limit"] = net.standardize.limit
                arrays[f"{name}.mean"], arrays[f"{name}.spread"] = net.standardize.mean, net.standardize.deviation
            for i, (w, b) in enumerate(net.layers):
                arrays[f"{name}.{i}.weight"], arrays[f"{name}.{i}.bias"] = w, b
            if net.deviation is not None:
                arrays[f"{name}.deviation"] = net.deviation
        return {"networks": config}, arrays

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> NetworkPolicy:
        """The inverse of :meth:`export`."""
        networks = {}
        for name, about in config["networks"].items():
            layers = [(arrays[f"{name}.{i}.weight"], arrays[f"{name}.{i}.bias"]) for i in range(about["layers"])]
            standardize = None
            if "limit" in about:
                if f"{name}.mean" not in arrays or f"{name}.spread" not in arrays:
                    raise InvalidParameter(
                        f"the network of stage {name!r} learned from normalised observations (VecNormalize), and their "
                        "statistics are not in the saved arrays: without them it would play nonsense"
                    )
                standardize = Standardizer(arrays[f"{name}.mean"], arrays[f"{name}.spread"], about["limit"])
            networks[name] = Network(
                layers,
                about["head"],
                about["activation"],
                arrays.get(f"{name}.deviation"),
                tuple(about["choices"]),
                about["stochastic"],
                standardize,
            )
        return cls(networks)
