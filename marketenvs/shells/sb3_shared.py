"""Several Stable-Baselines3 learners on the same markets: every round that is played teaches all of them.

SB3's ``learn()`` drives its own environment. To let several of them share one market, each runs in a thread of its own
and they hand control to each other like players at a table: exactly one runs at any time, in the order of the stages, so
nothing depends on how threads are scheduled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..errors import InvalidParameter, ResetNeeded
from ..market import Market, Stage, State
from ..policy import decide
from .game import Game, Scale, as_market
from .roles import RoleGame
from .sb3 import MarketVecEnv


class SharedMarkets:
    """B markets in which several stages are played by learners, and the others by policies.

    ``environments`` holds a :class:`MarketVecEnv` for every learner. They can only be stepped inside :meth:`play`.

    Args:
        market: A market or its id.
        batch: Number of markets.
        stages: The learners' stages.
        policies: Role -> policy, for all roles: plays stages without a learner, and in a learner's place once it has
            taken all its steps (others may need one more move of it to see where their last step led).
        reward_scale: Role -> constant that this role's rewards are divided by.
        seed: Seed of the markets.

    Raises:
        UnknownName: No such stage or role.
        InvalidParameter: No stage, or a bad scale.
    """

    def __init__(
        self,
        market: Market | str,
        batch: int,
        stages: Sequence[str],
        policies: Mapping[str, Any],
        reward_scale: Scale | None = None,
        seed: int | None = None,
    ):
        self.market = as_market(market, {})
        if not stages:
            raise InvalidParameter("name at least one stage that is learned")
        self.game = Game(self.market, batch, reward_scale)
        self.policies = dict(policies)
        self.environments: dict[str, MarketVecEnv] = {}
        self.seats: dict[str, _Seat] = {}
        for stage in (s for s in self.market.stages if s.name in {self.market.stage(n).name for n in stages}):
            env = MarketVecEnv(
                self.market, stage.role, batch, stage=stage.name, opponents="random", reward_scale=reward_scale
            )
            self.seats[stage.name] = env.game = _Seat(self, stage)  # type: ignore[assignment]
            self.environments[stage.name] = env
        self._seed = seed
        self._failed: BaseException | None = None

    def seed(self, seed: int) -> None:
        """Seed of the markets from the next :meth:`play` on."""
        self._seed = seed

    def play(self, learners: Mapping[str, Callable[[], Any]]) -> None:
        """New episodes, in which every learner takes its steps; all must take the same number.

        Args:
            learners: Stage -> function that resets and steps the stage's environment, such as ``model.learn``.
        """
        if set(learners) != set(self.seats):
            raise InvalidParameter(f"need one learner for each of {', '.join(self.seats)}")
        self._failed = None
        self._begin()
        threads = []
        for name, seat in self.seats.items():
            seat.sit()
            threads.append(threading.Thread(target=self._run, args=(seat, learners[name]), name=name, daemon=True))
        for thread in threads:
            thread.start()
        self._advance()
        for thread in threads:
            thread.join()
        if self._failed is not None:
            raise self._failed

    def _run(self, seat: _Seat, learn: Callable[[], Any]) -> None:
        """A learner's thread: wait for the first turn, learn, leave the table."""
        try:
            seat.wait()
            learn()
        except _Left:
            pass
        except BaseException as error:
            self._failed = error
        seat.leave()
        if self._failed is None:
            try:
                self._advance()
            except BaseException as error:
                self._failed = error
        if self._failed is not None:
            for other in self.seats.values():
                other.wake()

    def _begin(self) -> None:
        self.game.reset(self._seed)
        self._seed = None
        for tag, (role, policy) in enumerate(self.policies.items()):
            policy.start(self.market, role, self.game.batch, self.game.episodes.entropy(tag))

    def _advance(self) -> None:
        """Let policies move until it is a seated learner's turn, and hand control to it. Nobody seated: the end."""
        while any(seat.seated for seat in self.seats.values()):
            stage = self.game.stage
            seat = self.seats.get(stage.name)
            if seat is not None and seat.seated:
                seat.seen = self.game.observe()
                seat.wake()
                return
            self.commit(self._decide(self.game.state, stage))

    def _decide(self, state: State, stage: Stage) -> np.ndarray:
        mask = self.market.action_mask(state, stage.name) if self.game.masked[stage.name] else None
        obs = to_numpy(self.market.observe(state, stage.name))
        policy = self.policies[stage.role]
        return decide(policy, self.market, stage, obs, None if mask is None else to_numpy(mask), state)

    def commit(self, decisions: np.ndarray) -> None:
        """The current stage's decisions; after the last stage everybody is paid, after the last round markets restart."""
        rewards = self.game.commit(decisions)
        if rewards is None:
            return
        for policy in self.policies.values():
            if hasattr(policy, "observe_round"):
                policy.observe_round(self.game.played)
        for seat in self.seats.values():
            seat.paid = rewards[seat.role]
        if self.game.over:
            state = self.game.state
            for stage in self.market.stages:  # where the last round led: what each would have seen at its next move
                if stage.name in self.seats:
                    seen = to_numpy(self.market.observe(state, stage.name)).astype(np.float32)
                    self.seats[stage.name].final = seen
                state = self.market.commit(state, stage.name, self.market.backend.asarray(self._decide(state, stage)))
            self._begin()


class _Left(Exception):
    """Raised in a learner's thread when another one has failed."""


class _Seat(RoleGame):
    """One learner's place: what :class:`MarketVecEnv` sees of a shared market."""

    def __init__(self, table: SharedMarkets, stage: Stage):
        self.table, self.market, self.role, self.game = table, table.market, stage.role, table.game
        self.index = np.arange(self.market.roles[stage.role])
        self.names = [f"{stage.role}_{i}" for i in self.index]
        self.own, self.alone, self.policies = [stage], True, {}
        self.seen: Any = None
        self.paid: np.ndarray = np.zeros(1)
        self.final: np.ndarray | None = None
        self.seated = False
        self._turn = threading.Semaphore(0)

    def __deepcopy__(self, memo: dict) -> RoleGame:
        raise InvalidParameter("a learner's part of shared markets cannot be copied")

    def sit(self) -> None:
        """Take part from now on."""
        self.seated, self.final, self._turn = True, None, threading.Semaphore(0)

    def leave(self) -> None:
        """Take part no longer; the table's policy plays on."""
        self.seated = False

    def wake(self) -> None:
        """Hand control to this learner."""
        self._turn.release()

    def wait(self) -> None:
        """Give control away until it is this learner's turn."""
        self._turn.acquire()
        if self.table._failed is not None:
            raise _Left

    @property
    def stage(self) -> Stage:
        return self.own[0]

    @property
    def over(self) -> bool:
        """Whether the learner's last step ended an episode."""
        return self.final is not None

    def reset(self, seed: Any = None, options: Any = None) -> None:
        """Go over to the episode that is being played (:meth:`SharedMarkets.play` begins it, all at once)."""
        if not self.seated:
            raise ResetNeeded("shared markets are played by SharedMarkets.play")
        self.final = None

    def step(self, actions: Any) -> np.ndarray:
        """Move, and wait for the next turn; the reward of the round in between."""
        if not self.seated:
            raise ResetNeeded("shared markets are played by SharedMarkets.play")
        self.table.commit(self.game.decode(actions, self.names))
        self.table._advance()
        self.wait()
        return self.paid

    def observation(self) -> np.ndarray:
        """What the learner sees at its move; after the last round what it would have seen."""
        return np.array(self.seen if self.final is None else self.final)

    def mask(self) -> np.ndarray | None:
        return self.game.mask()
