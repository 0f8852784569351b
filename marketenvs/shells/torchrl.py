"""B markets as a TorchRL ``EnvBase`` on the torch backend.

Groups are roles, one step is one stage, nothing leaves the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from ..errors import InvalidAction, InvalidParameter, NotOffered, ResetNeeded
from ..market import Market, Stage, State
from ..params import batch_of
from .actions import actions_of, blank, is_masked
from .episodes import Episodes
from .game import Scale, check_scale

try:
    import torch
    from tensordict import TensorDict, TensorDictBase
    from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, Unbounded
    from torchrl.envs import EnvBase
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("marketenvs.torchrl needs TorchRL: pip install 'marketenvs[torchrl]'") from error


class MarketTorchEnv(EnvBase):
    """All agents of B markets, as groups named after their roles; the batched twin of ``MarketParallelEnv``.

    ============================ ==================== ==========================================================
    key                          shape                what it is
    ============================ ==================== ==========================================================
    ``(role, "observation")``    (B, n, d) float32    what each agent saw last (of several stages, in a row)
    ``(role, "mask")``           (B, n) bool          which agents act in this step; the others' actions have no effect
    ``(role, "action")``         (B, n, k) or (B, n)  Bounded(-1, 1), Categorical or MultiCategorical
    ``(role, "action_mask")``    (B, n, A) bool       legal actions, where the market masks them
    ``(role, "reward")``         (B, n, 1) float32    paid at settlement, else 0
    ============================ ==================== ==========================================================

    A role with several stages has an action ``(role, "action_<stage>")`` (and mask) for each. All episodes have the
    same length, so all markets are reset together; a partial reset raises.

    Args:
        market: A market on the torch backend, or its id with ``**params`` as for :func:`marketenvs.make`.
        num_envs: Number of markets B.
        device: Device of everything; default: the market's, or the CPU.
        dtype: Floating-point type of the rules, for a market given by id.
        reward_scale: Role -> constant that this role's rewards are divided by.
        seed: Seed of the first reset.

    Attributes:
        metrics: Name -> tensor of the round settled last. Not for agents: it tells what they may not know.
    """

    def __init__(
        self,
        market: Market | str,
        num_envs: int = 1,
        *,
        device: Any = None,
        dtype: str = "float32",
        reward_scale: Scale | None = None,
        seed: int | None = None,
        **params: Any,
    ):
        if isinstance(market, str):
            from ..registry import make

            market = make(market, backend="torch", dtype=dtype, device=device, **params)
        elif params:
            raise InvalidParameter("a market's parameters are set when it is made")
        if market.backend.name != "torch":
            raise InvalidParameter(f"this shell needs a market made with backend='torch', got {market.backend.name!r}")
        if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
            raise InvalidParameter(f"the number of environments must be a positive integer, got {num_envs!r}")
        if batch_of(market.params) not in (1, num_envs):
            raise InvalidParameter(
                f"the parameters are given for {batch_of(market.params)} markets, not for {num_envs}"
            )
        where = device if device is not None else market.backend.device if market.backend.device is not None else "cpu"
        super().__init__(device=torch.device(where), batch_size=torch.Size([num_envs]))
        self.market = market
        self.scale = check_scale(market, reward_scale)
        self.episodes = Episodes(num_envs)
        self.stages_of = {role: [s for s in market.stages if s.role == role] for role in market.roles}
        self.metrics: dict[str, Any] = {}
        self._clipped: Any = 0
        self._state: State | None = None
        self._position = self._rounds = 0
        self._next_seed = seed
        self._seen: dict[str, torch.Tensor] = {}
        self._legal: dict[str, torch.Tensor] = {}
        self._make_specs()

    # -- specs ------------------------------------------------------------------------------------------------------

    def action_key(self, stage: Stage) -> tuple[str, str]:
        """Where the actions of a stage are found."""
        return stage.role, "action" if len(self.stages_of[stage.role]) == 1 else f"action_{stage.name}"

    def _mask_key(self, stage: Stage) -> tuple[str, str]:
        return stage.role, "action_mask" if len(self.stages_of[stage.role]) == 1 else f"action_mask_{stage.name}"

    def _make_specs(self) -> None:
        batch, where = self.batch_size[0], self.device
        seen, acts, paid = {}, {}, {}
        for role, stages in self.stages_of.items():
            n = self.market.roles[role]
            low, high = (
                torch.as_tensor(np.concatenate([getattr(s.observation_space, side) for s in stages]), device=where)
                for side in ("low", "high")
            )
            shape = torch.Size((batch, n, len(low)))
            entries: dict[str, Any] = {
                "observation": Bounded(low.expand(shape), high.expand(shape), shape, where, torch.float32),
                "mask": Binary(n, torch.Size((batch, n)), where, torch.bool),
            }
            for stage in stages:
                if is_masked(self.market, stage):
                    count = actions_of(stage)
                    name = self._mask_key(stage)[1]
                    entries[name] = Binary(count, torch.Size((batch, n, count)), where, torch.bool)
            seen[role] = Composite(entries, shape=(batch,), device=where)
            actions = {self.action_key(s)[1]: self._action_spec(s, n) for s in stages}
            acts[role] = Composite(actions, shape=(batch,), device=where)
            reward = Unbounded(torch.Size((batch, n, 1)), where, torch.float32)
            paid[role] = Composite({"reward": reward}, shape=(batch,), device=where)
        self.observation_spec = Composite(seen, shape=(batch,), device=where)
        self.action_spec = Composite(acts, shape=(batch,), device=where)
        self.reward_spec = Composite(paid, shape=(batch,), device=where)
        flags = {k: Binary(1, torch.Size((batch, 1)), where, torch.bool) for k in ("done", "terminated", "truncated")}
        self.done_spec = Composite(flags, shape=(batch,), device=where)

    def _action_spec(self, stage: Stage, n: int) -> Any:
        space, batch, where = stage.codec.action_space, self.batch_size[0], self.device
        if isinstance(space, spaces.MultiDiscrete):
            shape = torch.Size((batch, n, len(space.nvec)))
            return MultiCategorical([int(v) for v in space.nvec], shape, where, torch.int64)
        if isinstance(space, spaces.Discrete):
            return Categorical(int(space.n), torch.Size((batch, n)), where, torch.int64)
        shape = torch.Size((batch, n, *stage.codec.action_shape))
        return Bounded(-1.0, 1.0, shape, where, torch.float32)

    # -- playing ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The markets' state; raises ``ResetNeeded`` before the first reset."""
        if self._state is None:
            raise ResetNeeded("call reset() first")
        return self._state

    @property
    def stage(self) -> Stage:
        """The stage whose turn it is."""
        return self.market.stages[self._position]

    def _set_seed(self, seed: int | None) -> None:
        self._next_seed = seed

    def _reset(
        self, tensordict: TensorDictBase | None = None, *, options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> TensorDictBase:
        """Begin the next episodes; ``options`` as in :meth:`Episodes.turn`."""
        wanted = None if tensordict is None else tensordict.get("_reset", None)
        if wanted is not None and not bool(wanted.all()):
            raise NotOffered("all markets have episodes of the same length and are reset together, not one by one")
        self.episodes.turn(self._next_seed, options)
        self._next_seed = None
        self._state = self.episodes.state(self.market)
        self._position = self._rounds = 0
        self.metrics, self._legal = {}, {}
        for stage in self.market.stages:
            first = torch.as_tensor(blank(stage.observation_space), device=self.device)
            shape = (self.batch_size[0], self.market.roles[stage.role], *first.shape)
            self._seen[stage.name] = first.expand(shape).clone()
        self._look()
        never = torch.zeros((*self.batch_size, 1), dtype=torch.bool, device=self.device)
        flags = {"done": never, "terminated": never.clone(), "truncated": never.clone()}
        return TensorDict({**self._observation(), **flags}, batch_size=self.batch_size, device=self.device)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Play one stage.

        Raises:
            ResetNeeded: Before the first reset.
            InvalidAction: NaN or infinite actions of the current stage.
        """
        market, state, stage = self.market, self.state, self.stage
        codec = stage.codec
        actions = tensordict.get(self.action_key(stage))
        if not codec.discrete:
            if not bool(torch.isfinite(actions).all()):
                raise InvalidAction(f"NaN or infinite action at stage {stage.name!r}: actions must be finite")
            actions = actions.to(market.backend.dtype)
            self._clipped = self._clipped + (actions.abs() > 1).sum(dim=(1, 2))
        low, high = market.bounds(state, stage.name)
        decisions = codec.decode(market.xp, actions, low, high)
        acting = market.acting(state, stage.name)
        decisions = torch.where(acting[..., None], decisions, low.expand_as(decisions))
        state = market.commit(state, stage.name, decisions)
        self._position += 1
        paid = {role: torch.zeros((*self.batch_size, n), device=self.device) for role, n in market.roles.items()}
        if self._position == len(market.stages):
            state, outcome = market.conclude(state)
            paid = {role: (pay / self.scale[role]).to(torch.float32) for role, pay in outcome.payoffs.items()}
            self.metrics = {**outcome.metrics, "clipped": self._clipped}
            self._clipped = 0
            self._position = 0
            self._rounds += 1
        self._state = state
        self._look()
        source = self._observation()
        for role, pay in paid.items():
            source[role].set("reward", pay[..., None])
        over = self._position == 0 and self._rounds >= market.params.horizon
        done = torch.full((*self.batch_size, 1), over, dtype=torch.bool, device=self.device)
        flags = {"done": done, "terminated": torch.zeros_like(done), "truncated": done.clone()}
        return TensorDict({**source, **flags}, batch_size=self.batch_size, device=self.device)

    def _look(self) -> None:
        """Let the agents of the current stage see what they see now."""
        stage = self.stage
        self._seen[stage.name] = self.market.observe(self.state, stage.name).to(torch.float32)
        if is_masked(self.market, stage):
            mask = self.market.action_mask(self.state, stage.name)
            if mask is not None:
                self._legal[stage.name] = torch.as_tensor(mask, device=self.device).to(torch.bool)

    def _observation(self) -> dict[str, TensorDict]:
        out = {}
        for role, stages in self.stages_of.items():
            shape = (*self.batch_size, self.market.roles[role])
            seen = [self._seen[s.name] for s in stages]
            if self.stage.role == role:
                acting = self.market.acting(self.state, self.stage.name).clone()
            else:
                acting = torch.zeros(shape, dtype=torch.bool, device=self.device)
            entries = {"observation": torch.cat(seen, dim=2) if len(seen) > 1 else seen[0].clone(), "mask": acting}
            for stage in stages:
                if is_masked(self.market, stage):
                    legal = self._legal.get(stage.name)
                    everything = torch.ones((*shape, actions_of(stage)), dtype=torch.bool, device=self.device)
                    entries[self._mask_key(stage)[1]] = everything if legal is None else legal.clone()
            out[role] = TensorDict(entries, batch_size=self.batch_size, device=self.device)
        return out
