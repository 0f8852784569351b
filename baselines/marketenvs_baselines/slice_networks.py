"""What federated slicing's learners leave behind: trained networks of the slices in NumPy, and the twin that forecasts needs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marketenvs.errors import InvalidParameter
from marketenvs.market import Market, Stage, State
from marketenvs.policy import Policy

Floats = NDArray[np.float64]
LEVELS = 16
"""Steps of a continuous request that a value-based learner chooses from."""


class Twin:
    """Recursive least squares of log need on its last four values and the time of day; one forecaster per (market, slice).

    Args:
        batch: markets.
        count: slices.
    """

    lags, memory = 4, 0.999

    def __init__(self, batch: int, count: int):
        size = self.lags + 3
        self.weights = np.zeros((batch, count, size))
        self.weights[:, :, 0] = 1.0
        self.inverse = np.broadcast_to(10.0 * np.eye(size), (batch, count, size, size)).copy()
        self.past: Floats | None = None

    def _regressors(self, past: Floats, clock: Floats) -> Floats:
        return np.concatenate([past, clock, np.ones((*past.shape[:2], 1))], axis=2)

    def forecast(self, clock: Floats) -> Floats | None:
        """Exp of the forecast of the log need (B, M); None before the first observation."""
        if self.past is None:
            return None
        value = np.sum(self.weights * self._regressors(self.past, clock), axis=2)
        last = self.past[:, :, 0]
        return np.exp(np.clip(value, last - 1.5, last + 1.5))

    def observe(self, need: Floats, clock: Floats, learn: bool = True) -> None:
        """Learn from the need (B, M) that followed ``clock`` (B, M, 2)."""
        log = np.log(np.maximum(need, 1e-9))
        if self.past is None:
            self.past = np.repeat(log[:, :, None], self.lags, axis=2)
            return
        if learn:
            x = self._regressors(self.past, clock)
            gain = np.einsum("bmij,bmj->bmi", self.inverse, x)
            scale = self.memory + np.sum(gain * x, axis=2, keepdims=True)
            error = log[:, :, None] - np.sum(self.weights * x, axis=2, keepdims=True)
            self.weights = self.weights + gain / scale * error
            shrunk = self.inverse - gain[..., :, None] * gain[..., None, :] / scale[..., None]
            # A forecaster that sees the same thing for long must not forget how sure it is: the matrix is kept bounded.
            self.inverse = np.clip(shrunk / self.memory, -1e3, 1e3)
        self.past = np.concatenate([log[:, :, None], self.past[:, :, :-1]], axis=2)

    def new_episode(self) -> None:
        """Forget the past values, keep what was learned."""
        self.past = None


class SlicePolicy(Policy):
    """Trained networks of the slices, in NumPy: one for all, one per slice, or one for all slices' observations at once.

    Args:
        layers: [(weight (G, in, out), bias (G, 1, out))]; G = 1 (shared or joint) or the number of slices.
        kind: "actor" (tanh head), "values" (largest of ``LEVELS`` values) or "joint" (tanh head of all slices).
        twin: (weights (M, k), inverse (M, k, k)) of a trained twin, or None.
    """

    units = "action"
    tensors = True

    def __init__(self, layers: list[tuple[Floats, Floats]], kind: str, twin: tuple[Floats, Floats] | None = None):
        self.layers, self.kind, self.learned = layers, kind, twin

    def start(self, market: Market, role: str, batch: int, seed: int) -> None:
        super().start(market, role, batch, seed)
        count = market.roles[role]
        if len(self.layers[0][0]) not in (1, count):
            raise InvalidParameter(f"these networks are for {len(self.layers[0][0])} slices, the market has {count}")
        self.twin = None
        if self.learned is not None:
            self.twin = Twin(batch, count)
            self.twin.weights = np.broadcast_to(self.learned[0], self.twin.weights.shape).copy()
            self.twin.inverse = np.broadcast_to(self.learned[1], self.twin.inverse.shape).copy()

    def act_at(self, stage: Stage, obs: np.ndarray, mask: np.ndarray | None, state: State) -> np.ndarray:
        seen = obs
        if self.twin is not None:
            self.twin = copy.copy(self.twin)
            seen = with_twin(self.twin, obs, learn=False)
        seen = features(seen)
        batch, count, d = seen.shape
        x = seen.reshape(1, batch, count * d) if self.kind == "joint" else seen.transpose(1, 0, 2)
        for i, (weight, bias) in enumerate(self.layers):
            x = x @ weight + bias
            if i + 1 < len(self.layers):
                x = np.maximum(x, 0.0)
        if self.kind == "values":
            return as_action(stage, np.argmax(x, axis=2).T)
        out = np.tanh(x[0]) if self.kind == "joint" else np.tanh(x[..., 0]).T
        return out.reshape(batch, count, 1)

    def act(self, obs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        raise NotImplementedError("SlicePolicy decides in act_at")

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON and arrays, for ``store.save_policy``."""
        arrays = {}
        for i, (weight, bias) in enumerate(self.layers):
            arrays[f"{i}.weight"], arrays[f"{i}.bias"] = np.ascontiguousarray(weight), np.ascontiguousarray(bias)
        if self.learned is not None:
            arrays["twin.weights"], arrays["twin.inverse"] = (np.ascontiguousarray(a) for a in self.learned)
        return {"layers": len(self.layers), "kind": self.kind, "twin": self.learned is not None}, arrays

    @classmethod
    def restore(cls, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> SlicePolicy:
        """The inverse of :meth:`export`."""
        layers = [(arrays[f"{i}.weight"], arrays[f"{i}.bias"]) for i in range(config["layers"])]
        twin = (arrays["twin.weights"], arrays["twin.inverse"]) if config["twin"] else None
        return cls(layers, config["kind"], twin)


def with_twin(twin: Twin, obs: np.ndarray, learn: bool) -> np.ndarray:
    """Observations whose forecast entry (0) comes from the twin; the twin sees the last need (entry 1) first."""
    previous = getattr(twin, "clock", None)
    clock = obs[:, :, 10:12]
    twin.observe(obs[:, :, 1], clock if previous is None else previous, learn)
    twin.clock = clock  # type: ignore[attr-defined]
    value = twin.forecast(clock)
    seen = obs.copy()
    if value is not None:
        seen[:, :, 0] = np.clip(value, 0.0, 10.0)
    return seen


def features(obs: np.ndarray) -> np.ndarray:
    """Network inputs of order 1: needs and grants in fair shares of the pool instead of the whole, requirements around their middle.

    Without it a need is a few hundredths beside entries of 1 to 2.5, and actors saturate before they can tell slices apart.
    """
    count, d = obs.shape[1:]
    if d == 2:
        return np.log1p(obs) / 3.0
    x = np.array(obs)
    x[:, :, [0, 1, 3]] *= count
    x[:, :, 9] -= 2.2
    x[:, :, 12 : 12 + (d - 12) // 2] *= count
    return x


def as_action(stage: Stage, index: np.ndarray) -> np.ndarray:
    """Indices 0..LEVELS-1 (B, n) as actions of the stage: its own indices, or equal steps of [-1, 1]."""
    if stage.codec.discrete:
        return index
    return (-1.0 + 2.0 * index / (LEVELS - 1))[..., None]
