"""RLlib modules that honour action masks, for every algorithm whose loss can: PPO, APPO, IMPALA and DQN.

RLlib's own example module masks PPO on a single ``Discrete`` choice. These take ``MultiDiscrete`` too (the mask holds
all choices' levels in a row), and DQN, whose target and random choices must be legal as well. Observations are
``{"observations": Box, "action_mask": Box}``, as ``marketenvs.rllib`` gives them where a market masks actions.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.appo.torch.default_appo_torch_rl_module import DefaultAPPOTorchRLModule
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import TARGET_NETWORK_ACTION_DIST_INPUTS

LOWEST = float(torch.finfo(torch.float32).min)


def split(batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
    """The legal actions (bool) and the batch as a module without masks wants it; the given batch stays as it is."""
    seen = batch[Columns.OBS]
    return seen["action_mask"] > 0, {**batch, Columns.OBS: seen["observations"]}


class _Inner:
    """Builds the networks for the observations without the mask."""

    def __init__(self, *, observation_space: gym.Space | None = None, **kwargs: Any):
        self._whole_space = observation_space
        inner = (
            observation_space["observations"] if isinstance(observation_space, gym.spaces.Dict) else observation_space
        )
        super().__init__(observation_space=inner, **kwargs)  # type: ignore[call-arg]

    def setup(self) -> None:
        super().setup()  # type: ignore[misc]
        self.observation_space = self._whole_space


class _MaskedLogits(_Inner):
    def _masked(self, name: str, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        legal, inner = split(batch)
        out = getattr(super(), name)(inner, **kwargs)
        out[Columns.ACTION_DIST_INPUTS] = torch.where(legal, out[Columns.ACTION_DIST_INPUTS], LOWEST)
        return out

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._masked("_forward", batch, **kwargs)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._masked("_forward_train", batch, **kwargs)

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Any:
        inner = split(batch)[1] if isinstance(batch[Columns.OBS], dict) else batch
        return super().compute_values(inner, embeddings)  # type: ignore[misc]


class MaskedPPOModule(_MaskedLogits, DefaultPPOTorchRLModule):
    """PPO's and IMPALA's default module, with masks."""


class MaskedAPPOModule(_MaskedLogits, DefaultAPPOTorchRLModule):
    """APPO's default module, with masks; its old policy is masked too."""

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        legal, inner = split(batch)
        out: dict[str, Any] = super().forward_target(inner)
        logits: Any = out[TARGET_NETWORK_ACTION_DIST_INPUTS]
        return {**out, TARGET_NETWORK_ACTION_DIST_INPUTS: torch.where(legal, logits, LOWEST)}


class MaskedDQNModule(_Inner, DefaultDQNTorchRLModule):
    """DQN's default module; illegal actions are worth minus infinity, to its targets and its random choices too."""

    def _qf_forward_helper(self, batch: dict[str, Any], encoder: Any, head: Any) -> dict[str, Any]:
        legal, inner = split(batch)
        out: dict[str, Any] = super()._qf_forward_helper(inner, encoder, head)
        out[QF_PREDS] = torch.where(legal, out[QF_PREDS], -torch.inf)
        return out
