"""The digital twin's neural forecasters: a graph-attention network over the devices of a slice, and an LSTM on its total (PyTorch).

Graph attention (paper, section III, repaired): node = device, input = its last 8 loads divided by the training mean; a
linear layer to 16
with ELU; the learned
graph A = ReLU(tanh(M1 M2^T - M2 M1^T)) of two embeddings per node (MTGNN; equation 9 prints M1 = M2, which makes A
zero) plus self-loops;
attention alpha_vu = A_vu exp(LeakyReLU(q_d.W h_v + q_s.W h_u)) / sum over u' of the same; [h, attended, E1, E2] -> 32
-> 1, added to the
node's last
load (a softmax head, equation 12, cannot forecast). ``gat_identity`` keeps only the self-loops: exactly what equation 9
as printed gives.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from marketenvs.errors import InvalidParameter

from .forecasters import Floats, Forecaster, Progress, Split


class _Neural(Forecaster):
    """Adam on mini-batches, early stopping on the validation slots, the best epoch kept.

    Args:
        target: Index of the slice.
        seed: Seed of weights and batches.
        epochs: Most passes over the training slots.
        patience: Passes without improvement on validation before stopping.
        rate: Adam's step size.
        batch: Slots per batch.
    """

    lags: ClassVar[int] = 8
    settings: ClassVar[dict[str, Any]] = {"epochs": 40, "patience": 8, "rate": 2e-3, "batch": 64}

    def __init__(self, target: int = 0, seed: int = 0, **settings: Any):
        super().__init__(target, seed)
        for name in settings:
            if name not in self.settings:
                raise InvalidParameter(f"{self.name} has no setting {name!r}; it has {', '.join(self.settings)}")
        self.options = {**self.settings, **settings}
        self.module: Any = None

    # what subclasses say
    def build(self, nodes: int) -> Any:
        """The torch module."""
        raise NotImplementedError

    def inputs(self, loads: Floats) -> np.ndarray:
        """(T - lags, ...) float32 windows ending before slots lags..T-1."""
        raise NotImplementedError

    def outputs(self, loads: Floats) -> np.ndarray:
        """(T - lags, ...) float32 what is learned."""
        raise NotImplementedError

    def loss(self, predicted: Any, truth: Any) -> Any:
        """Training loss."""
        raise NotImplementedError

    def fit(self, loads: Floats, split: Split, progress: Progress | None = None) -> Forecaster:
        import torch

        if split.train <= self.lags + 2:
            raise InvalidParameter(f"{self.name} needs more than {self.lags + 2} training slots, got {split.train}")
        generator = np.random.default_rng(self.seed)
        torch.manual_seed(self.seed)
        self.scale(loads[: split.train])
        known = loads[: split.validation]
        x, y = torch.from_numpy(self.inputs(known)), torch.from_numpy(self.outputs(known))
        cut = split.train - self.lags
        self.nodes = loads.shape[2]
        self.module = self.build(self.nodes)
        optimiser = torch.optim.Adam(self.module.parameters(), lr=self.options["rate"])
        best, kept, since = math.inf, copy.deepcopy(self.module.state_dict()), 0
        epochs, size = self.options["epochs"], self.options["batch"]
        for epoch in range(1, epochs + 1):
            order = generator.permutation(cut)
            train = 0.0
            for start in range(0, cut, size):
                pick = torch.from_numpy(order[start : start + size])
                optimiser.zero_grad()
                loss = self.loss(self.module(x[pick]), y[pick])
                loss.backward()
                optimiser.step()
                train += float(loss.detach()) * len(pick) / cut
            with torch.no_grad():
                validation = float(self.loss(self.module(x[cut:]), y[cut:]))
            if validation < best:
                best, kept, since = validation, copy.deepcopy(self.module.state_dict()), 0
            else:
                since += 1
            if progress is not None:
                progress(epoch, epochs, {"train": train, "validation": validation})
            if since >= self.options["patience"]:
                break
        self.module.load_state_dict(kept)
        return self

    def scale(self, loads: Floats) -> None:
        """Divide by training means: of every device, and of the total."""
        mine = loads[:, self.target]
        self.node_mean = mine.mean(axis=0) + 1e-9
        self.total_mean = float(mine.sum(axis=1).mean()) + 1e-9

    def _predict(self, loads: Floats, first: int) -> Any:
        import torch

        if first < self.lags:
            raise InvalidParameter(f"{self.name} needs {self.lags} slots of past, first={first}")
        x = torch.from_numpy(self.inputs(loads[first - self.lags :]))
        with torch.no_grad():
            return torch.cat([self.module(part) for part in torch.split(x, 256)]).numpy().astype(np.float64)

    def export(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        config = {"options": self.options, "total_mean": self.total_mean, "nodes": self.nodes}
        weights = {f"weight.{k}": v.numpy() for k, v in self.module.state_dict().items()}
        return config, {"node_mean": self.node_mean, **weights}

    def restore(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        import torch

        self.options, self.total_mean, self.nodes = (
            dict(config["options"]),
            float(config["total_mean"]),
            int(config["nodes"]),
        )
        self.node_mean = np.asarray(arrays["node_mean"], float)
        self.module = self.build(self.nodes)
        names = [k for k in arrays if k.startswith("weight.")]
        self.module.load_state_dict({k.removeprefix("weight."): torch.from_numpy(arrays[k]) for k in names})


def _windows(x: np.ndarray, lags: int) -> np.ndarray:
    """(T - lags, ..., lags): the lags values before each of slots lags..T-1, oldest first."""
    return np.lib.stride_tricks.sliding_window_view(x, lags, axis=0)[:-1]


class Lstm(_Neural):
    """Univariate LSTM on the slice's total: 24 lags, 32 units, residual head."""

    name = "lstm"
    lags = 24
    settings: ClassVar[dict[str, Any]] = {"epochs": 40, "patience": 8, "rate": 3e-3, "batch": 64}

    def build(self, nodes: int) -> Any:
        import torch

        class Network(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.cell = torch.nn.LSTM(1, 32, batch_first=True)
                self.head = torch.nn.Linear(32, 1)

            def forward(self, x: Any) -> Any:
                hidden, _ = self.cell(x[..., None])
                return x[:, -1] + self.head(hidden[:, -1])[:, 0]

        return Network()

    def inputs(self, loads: Floats) -> np.ndarray:
        return _windows(self.total(loads) / self.total_mean, self.lags).astype(np.float32)

    def outputs(self, loads: Floats) -> np.ndarray:
        return (self.total(loads)[self.lags :] / self.total_mean).astype(np.float32)

    def loss(self, predicted: Any, truth: Any) -> Any:
        return ((predicted - truth) ** 2).mean()

    def forecast(self, loads: Floats, first: int) -> Floats:
        return self._predict(loads, first) * self.total_mean


class GraphAttention(_Neural):
    """The digital twin: graph attention over the devices of the slice, with a learned graph."""

    name, reads = "gat", "devices"
    learned_graph: ClassVar[bool] = True
    width, embedding = 16, 8

    def build(self, nodes: int) -> Any:
        import torch
        from torch.nn import functional

        learned, lags, width, size = self.learned_graph, self.lags, self.width, self.embedding

        class Network(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encode = torch.nn.Linear(lags, width)
                self.first = torch.nn.Parameter(torch.randn(nodes, size))
                self.second = torch.nn.Parameter(torch.randn(nodes, size))
                self.project = torch.nn.Linear(width, width, bias=False)
                self.receive = torch.nn.Linear(width, 1, bias=False)
                self.send = torch.nn.Linear(width, 1, bias=False)
                self.hidden = torch.nn.Linear(2 * width + 2 * size, 32)
                self.out = torch.nn.Linear(32, 1)
                torch.nn.init.zeros_(self.out.weight)
                torch.nn.init.zeros_(self.out.bias)

            def graph(self) -> Any:
                """Link weights (N, N): learned, plus self-loops."""
                loops = torch.eye(nodes)
                if not learned:
                    return loops
                one, two = torch.tanh(self.first), torch.tanh(self.second)
                return torch.relu(torch.tanh(one @ two.T - two @ one.T)) + loops

            def forward(self, x: Any) -> Any:
                h = functional.elu(self.encode(x))
                sent = self.project(h)
                if learned:
                    score = functional.leaky_relu(self.receive(sent) + self.send(sent).transpose(1, 2), 0.2)
                    weight = self.graph() * torch.exp(score - score.amax(dim=2, keepdim=True))
                    attended = (weight / weight.sum(dim=2, keepdim=True).clamp_min(1e-9)) @ sent
                else:
                    attended = sent  # a node alone attends to itself with weight 1
                known = torch.cat([self.first, self.second], dim=1).expand(len(x), -1, -1)
                joined = torch.cat([h, functional.elu(attended), known], dim=2)
                return x[..., -1] + self.out(functional.elu(self.hidden(joined)))[..., 0]

        return Network()

    def scale(self, loads: Floats) -> None:
        super().scale(loads)

    def inputs(self, loads: Floats) -> np.ndarray:
        return _windows(loads[:, self.target] / self.node_mean, self.lags).astype(np.float32)

    def outputs(self, loads: Floats) -> np.ndarray:
        return (loads[self.lags :, self.target] / self.node_mean).astype(np.float32)

    def loss(self, predicted: Any, truth: Any) -> Any:
        """3 MAE of the total and 0.3 MAE of the nodes, both relative."""
        import torch

        share = torch.from_numpy((self.node_mean / self.node_mean.sum()).astype(np.float32))
        error = predicted - truth
        return 3.0 * (error @ share).abs().mean() + 0.3 * error.abs().mean()

    def forecast(self, loads: Floats, first: int) -> Floats:
        return self._predict(loads, first) @ self.node_mean


class GraphAttentionIdentity(GraphAttention):
    """The same without edges: equation 9 as printed, with self-loops. The node embeddings stay."""

    name = "gat_identity"
    learned_graph = False


MODELS: dict[str, type[_Neural]] = {c.name: c for c in (Lstm, GraphAttention, GraphAttentionIdentity)}
