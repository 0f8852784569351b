"""Stable-Baselines3's classes as this package uses them: which can play what, their networks in NumPy, their state on disk."""

from __future__ import annotations

import functools
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.errors import InvalidParameter, NotOffered
from marketenvs.market import Stage

from .network import Network, Standardizer

COUNTERS = ("num_timesteps", "_n_updates", "_n_calls", "_episode_num")
"""What SB3 counts besides its weights: TD3's delayed actor and DQN's target updates depend on it."""
RESTRAINT = {"TD3": 0.05, "DDPG": 0.05, "PPO": 3.0, "A2C": 3.0}
"""Defaults of ``policy_kwargs["restraint"]``, see :func:`restrained`."""
REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def sb3_class(name: str) -> Any:
    """The class of that name in Stable-Baselines3 or sb3-contrib; :func:`batch_dqn` and :func:`restrained` are what differs here.

    Raises:
        NotOffered: Neither has it.
    """
    import stable_baselines3

    if name == "DQN":
        return batch_dqn()
    if name in RESTRAINT:
        return restrained(name)
    if hasattr(stable_baselines3, name):
        return getattr(stable_baselines3, name)
    try:
        import sb3_contrib
    except ImportError:
        raise NotOffered(f"{name} is not in stable-baselines3, and sb3-contrib is not installed") from None
    if not hasattr(sb3_contrib, name):
        raise NotOffered(f"neither stable-baselines3 nor sb3-contrib has {name!r}")
    return getattr(sb3_contrib, name)


@functools.cache
def batch_dqn() -> Any:
    """SB3's DQN, exploring in every environment on its own.

    SB3 draws ONE number for a step of a whole ``VecEnv``: either all environments explore or none does. With hundreds
    of environments and a few hundred steps most steps then hold the same greedy action thousands of times.
    """
    from stable_baselines3 import DQN

    class BatchDQN(DQN):
        """DQN with an exploration coin for every environment."""

        def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):  # type: ignore[no-untyped-def]
            if deterministic or not self.policy.is_vectorized_observation(observation):
                return super().predict(observation, state, episode_start, deterministic)
            action, state = self.policy.predict(observation, state, episode_start, True)
            size = int(self.action_space.n)  # type: ignore[attr-defined]
            coin, anywhere = np.random.rand(len(action)), np.random.randint(size, size=len(action))  # noqa: NPY002
            return np.where(coin < self.exploration_rate, anywhere, action), state

    return BatchDQN


@functools.cache
def restrained(name: str) -> Any:
    """SB3's PPO, A2C, TD3 or DDPG whose actors pay for going where no gradient leads back.

    While the other roles still learn, the best price looks like the highest. The actor runs there within a few updates: the tanh
    of TD3 and DDPG is flat in float32, and a Gaussian's mean leaves the action range, until all that it draws is cut to the
    bound and earns the same. It never comes back. So TD3 and DDPG pay ``restraint / 2`` times the square of what goes into
    the tanh (as in the MADDPG code of R. Lowe et al., NeurIPS 2017), PPO and A2C ``restraint / 2`` times the square of how
    far the mean lies outside the range. ``policy_kwargs={"restraint": 0.0}`` is SB3's own actor.
    """
    import stable_baselines3
    import torch
    from gymnasium import spaces
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.td3.policies import Actor, TD3Policy

    def charge(values: Any, excess: Any, restraint: float) -> None:
        """Add the gradient of the penalty's mean over the batch on the way back."""
        if values.requires_grad and restraint > 0:
            penalty = restraint * excess / len(values)
            values.register_hook(lambda gradient: gradient + penalty)

    class RestrainedActor(Actor):
        restraint = 0.0

        def forward(self, obs: Any) -> Any:
            raw = self.mu[:-1](self.extract_features(obs, self.features_extractor))
            charge(raw, raw.detach(), self.restraint)
            return torch.tanh(raw)

    class RestrainedPolicy(TD3Policy):
        def __init__(self, *args: Any, restraint: float = RESTRAINT["TD3"], **more: Any):
            self.restraint = _positive(restraint)
            super().__init__(*args, **more)

        def make_actor(self, features_extractor: Any = None) -> Any:
            actor = RestrainedActor(**self._update_features_extractor(self.actor_kwargs, features_extractor))
            actor.restraint = self.restraint
            return actor.to(self.device)

    class RestrainedGaussian(ActorCriticPolicy):
        def __init__(self, *args: Any, restraint: float = RESTRAINT["PPO"], **more: Any):
            self.restraint = _positive(restraint)
            super().__init__(*args, **more)

        def _build(self, lr_schedule: Any) -> None:
            super()._build(lr_schedule)
            if isinstance(self.action_space, spaces.Box):
                low, high = (torch.as_tensor(b) for b in (self.action_space.low, self.action_space.high))

                def beyond(module: Any, given: Any, mean: Any) -> None:
                    charge(mean, mean.detach() - mean.detach().clamp(low, high), self.restraint)

                self.action_net.register_forward_hook(beyond)

    base = getattr(stable_baselines3, name)
    policy = RestrainedGaussian if name in ("PPO", "A2C") else RestrainedPolicy
    aliases = {**base.policy_aliases, "MlpPolicy": policy}
    return type(f"Restrained{name}", (base,), {"policy_aliases": aliases, "__doc__": restrained.__doc__})


def _positive(restraint: float) -> float:
    if not 0 <= restraint < float("inf"):
        raise InvalidParameter(f"restraint must be a number >= 0, got {restraint!r}")
    return restraint


def why_not(algorithm: str, stage: Stage) -> str | None:
    """Why the algorithm cannot play a stage's actions; None if it can."""
    from gymnasium import spaces

    space = stage.codec.action_space
    if algorithm in ("SAC", "TD3", "DDPG") and not isinstance(space, spaces.Box):
        return f"{algorithm} needs continuous actions; stage {stage.name!r} has {space}"
    if algorithm == "DQN" and not isinstance(space, spaces.Discrete):
        return f"DQN needs one discrete choice; stage {stage.name!r} has {space}"
    if algorithm == "MaskablePPO" and isinstance(space, spaces.Box):
        return f"MaskablePPO needs discrete actions; stage {stage.name!r} has {space}"
    return None


def network_of(model: Any, stochastic: bool | None = None) -> Network:
    """The acting part of an SB3 model as a NumPy network, with the statistics of its ``VecNormalize``, if it has one.

    A model that was loaded from a file knows its ``VecNormalize`` only if it was given as ``env`` again.

    Args:
        model: PPO, A2C, MaskablePPO, SAC, TD3, DDPG or DQN with an MLP policy.
        stochastic: Whether it draws its actions; None: only where they are discrete choices of a stochastic policy.

    Raises:
        InvalidParameter: The policy is not a plain MLP, or training diverged.
    """
    from gymnasium import spaces
    from torch import nn

    policy, space = model.policy, model.action_space
    names = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.ELU: "elu", nn.SiLU: "silu"}
    deviation = None
    choices: tuple[int, ...] = ()
    if hasattr(policy, "q_net"):
        body, head = [*policy.q_net.q_net], "greedy"
    elif hasattr(policy, "actor") and hasattr(policy.actor, "latent_pi"):
        body, head = [*policy.actor.latent_pi, policy.actor.mu], "squashed"
    elif hasattr(policy, "actor") and policy.actor is not None:
        body, head = (
            [m for m in policy.actor.mu if not isinstance(m, nn.Tanh) or m is not policy.actor.mu[-1]],
            "squashed",
        )
    else:
        body = [*policy.mlp_extractor.policy_net, policy.action_net]
        head = "box" if isinstance(space, spaces.Box) else "categorical"
        choices = tuple(int(n) for n in getattr(space, "nvec", ()))
        if head == "box":
            deviation = np.exp(policy.log_std.detach().cpu().numpy())
    strange = [type(m).__name__ for m in body if not isinstance(m, (nn.Linear, nn.Flatten)) and type(m) not in names]
    if strange:
        raise InvalidParameter(
            f"the network has {strange[0]} layers; linear ones with {', '.join(names.values())} play"
        )
    layers = [m for m in body if isinstance(m, nn.Linear)]
    activation = next((names[type(m)] for m in body if type(m) in names), "tanh")
    weights = [(m.weight.detach().cpu().numpy().copy(), m.bias.detach().cpu().numpy().copy()) for m in layers]
    draws = head == "categorical" if stochastic is None else stochastic
    return Network(
        weights, head, activation, deviation, choices, draws and head != "greedy", standardize=_standardizer(model)
    )


def _standardizer(model: Any) -> Standardizer | None:
    """What the model's ``VecNormalize`` does to observations; None where nothing does."""
    wrapper = model.get_vec_normalize_env()
    if wrapper is None or not wrapper.norm_obs:
        return None
    seen = wrapper.obs_rms
    return Standardizer(seen.mean.copy(), np.sqrt(seen.var + wrapper.epsilon), float(wrapper.clip_obs))


def save_model(model: Any, folder: Path, name: str) -> None:
    """Everything that decides how a model goes on: weights, optimizers, counters, replay buffer, normalisation.

    Tensors are written by torch, arrays by NumPy; nothing of it needs to be unpickled.
    """
    import torch

    _, variables = model._get_torch_save_params()
    content = {
        "parameters": model.get_parameters(),
        "variables": {v: attrgetter(v)(model).detach().clone() for v in variables},
        "counters": {c: int(getattr(model, c)) for c in COUNTERS if hasattr(model, c)},
    }
    torch.save(content, folder / f"{name}.pt")
    arrays: dict[str, Any] = {}
    wrapper = model.get_vec_normalize_env()
    if wrapper is not None:
        for kind in ("obs_rms", "ret_rms"):
            if hasattr(wrapper, kind):
                found = getattr(wrapper, kind)
                arrays |= {f"{kind}.{k}": np.asarray(getattr(found, k)) for k in ("mean", "var", "count")}
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        rows = buffer.buffer_size if buffer.full else buffer.pos
        arrays |= {f"replay.{k}": getattr(buffer, k)[:rows] for k in REPLAY}
        arrays |= {"replay.pos": np.array(buffer.pos), "replay.full": np.array(buffer.full)}
    if arrays:
        np.savez(folder / f"{name}.npz", **arrays)


def load_model(model: Any, folder: Path, name: str) -> None:
    """The inverse of :func:`save_model`, into a model made with the same arguments."""
    import torch

    content = torch.load(folder / f"{name}.pt", weights_only=True)
    model.set_parameters(content["parameters"], exact_match=True, device=model.device)
    for variable, value in content["variables"].items():
        attrgetter(variable)(model).data = value  # optimizers hold the tensor itself
    for counter, value in content["counters"].items():
        setattr(model, counter, value)
    file = folder / f"{name}.npz"
    if not file.is_file():
        return
    with np.load(file) as arrays:
        wrapper = model.get_vec_normalize_env()
        for kind in ("obs_rms", "ret_rms"):
            if wrapper is not None and f"{kind}.mean" in arrays:
                found = getattr(wrapper, kind)
                found.mean, found.var = arrays[f"{kind}.mean"], arrays[f"{kind}.var"]
                found.count = float(arrays[f"{kind}.count"])
        buffer = getattr(model, "replay_buffer", None)
        if buffer is not None:
            for key in REPLAY:
                rows = arrays[f"replay.{key}"]
                getattr(buffer, key)[: len(rows)] = rows
            buffer.pos, buffer.full = int(arrays["replay.pos"]), bool(arrays["replay.full"])
