"""One training run of an SB3 algorithm: self-play in segments, resumed after a kill, stopped early, watched by TensorBoard."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from marketenvs.market import Market
from marketenvs.policy import Uniform

from .checkpoints import Segments, Settled
from .registry import Algorithm
from .run import Policies, Report
from .sb3_networks import network_of, why_not
from .sb3_options import check_options, merged
from .sb3_selfplay import SelfPlay, passes_of
from .watch import Watch, tensorboard_writer

__all__ = ["Log", "algorithm", "network_of", "train_selfplay"]

Defaults = Callable[[Any, int], dict[str, Any]]
"""(environment, rounds of a turn) -> keyword arguments of an SB3 class."""


def train_selfplay(
    algorithm: str,
    defaults: Defaults,
    task: Any,
    seed: int,
    budget: int,
    report: Report | None = None,
    *,
    markets: int = 64,
    rounds: int = 8,
    settings: Mapping[str, Any] | None = None,
    only: str | None = None,
    opponents: Any = "equilibrium",
    schedule: str = "alternating",
    wander: float = 0.25,
    fresh: bool = True,
    anneal: float = 1.0,
    normalize: bool | Mapping[str, Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int | None = None,
    patience: int | None = None,
    tensorboard: str | os.PathLike[str] | None = None,
    log_every: int | None = None,
) -> Policies:
    """``train`` of an SB3 algorithm.

    Args:
        algorithm: Name of the SB3 class.
        defaults: Its keyword arguments here.
        task: A task.
        seed: Seed.
        budget: Market rounds.
        report: See ``run.Report``.
        markets: Markets played side by side.
        rounds: Rounds of each in one turn.
        settings: Keyword arguments of the SB3 class that replace the defaults, such as ``{"learning_rate": 1e-4}``.
        only: The one role that learns; None for all.
        opponents: Who plays the roles that do not learn: "equilibrium", "random", "best_response", the folder of a
            saved policy, "module:Class", a policy, or a mapping from roles to these.
        schedule: "alternating" or "simultaneous"; like ``wander``, ``fresh``, ``anneal`` and ``normalize`` as in
            :class:`~marketenvs_baselines.sb3_selfplay.SelfPlay`.
        wander: See there.
        fresh: See there.
        anneal: See there.
        normalize: See there.
        checkpoint: Folder from which a killed run goes on; None keeps nothing (and trains the same policies).
        every: Market rounds of a segment; default: a tenth of the budget.
        patience: Stop when the policies have not moved for so many segments (see ``checkpoints.Settled``).
        tensorboard: Folder for TensorBoard: losses of every stage; score, NashConv and welfare on a small sample of
            markets that are not the held-out ones (see :mod:`~marketenvs_baselines.watch`).
        log_every: Market rounds between two looks at that sample; default: a twentieth of the budget.

    Raises:
        NotOffered: The algorithm cannot play a stage's actions.
        InvalidParameter: A value out of range.
    """
    market = task.make_market()

    def given(env: Any, rounds: int) -> dict[str, Any]:
        return merged(defaults(env, rounds), settings)

    play: dict[str, Any] = {"markets": markets, "rounds": rounds, "only": only, "schedule": schedule, "wander": wander}
    play |= {"fresh": fresh, "anneal": anneal}
    make = functools.partial(
        SelfPlay, task, seed, algorithm, settings=given, opponents=opponents, normalize=normalize, **play
    )
    game = make()
    total = passes_of(budget, game.cost)
    part = max(1, (-(-total // 10)) if every is None else every // game.cost)
    key = {"algorithm": f"sb3:{algorithm}", "task": getattr(task, "hash", task.name), **play, "budget": budget}
    key |= {"settings": repr(settings), "normalize": repr(normalize), "patience": patience}
    key["opponents"] = repr(opponents) if only is not None else None
    settled, trained = Settled(market, patience), False
    with Segments(total, part, checkpoint, key, seed) as segments:
        log = None
        if tensorboard is not None:
            log = Log(task, tensorboard, log_every or max(1, budget // 20), segments.resumed * game.cost)
        for segment in segments:
            if segment.restore is not None:  # every segment begins like a resumed one, so that a kill changes nothing
                game = make()
                game.load(segment.restore)
                settled.load(segment.restore)
            if log is not None:
                log.attach(game)
            game.seed(segment.seed)
            game.learn(budget, report, (segment.first, segment.last), log)
            stop = settled({**{role: Uniform() for role in market.roles}, **game.policies()})
            segment.commit(functools.partial(_save, game, settled), stop)
            trained = True
        if segments.last is not None and not trained:
            game.load(segments.last)
        return game.policies()


def _save(game: SelfPlay, settled: Settled, folder: Path) -> None:
    game.save(folder)
    settled.save(folder)


class Log:
    """Writes what SB3 records (losses, entropies, learning rates) and how good the policies are to TensorBoard.

    Args:
        task: The task that is learned.
        folder: TensorBoard folder.
        every: Market rounds between two looks at the policies.
        first: Market rounds that were played before.
    """

    def __init__(self, task: Any, folder: str | os.PathLike[str], every: int, first: int = 0):
        self.watch, self.every = Watch(task), every
        self.write = tensorboard_writer(folder, first)

    def attach(self, game: SelfPlay) -> None:
        """Read along with a game's models from now on."""
        from stable_baselines3.common.logger import Logger

        self.game = game
        for model in game.models.values():
            model.set_logger(Logger(None, []))

    def __call__(self, used: int) -> None:
        """After a pass that ended with so many market rounds."""
        values: dict[str, float] = {}
        for name, model in self.game.models.items():
            found = model.logger.name_to_value
            values |= {f"{name}/{k}": float(v) for k, v in found.items() if isinstance(v, (int, float, np.number))}
            model.logger.dump()
        if used // self.every > (used - self.game.cost) // self.every:
            values |= self.watch(self.game.policies())
        self.write(values, used)


def algorithm(
    name: str,
    defaults: Defaults,
    citation: str,
    *,
    requires: tuple[str, ...] = ("stable_baselines3",),
    **more: Any,
) -> Algorithm:
    """An SB3 class as an algorithm of the registry.

    Args:
        name: Name of the class.
        defaults: Its keyword arguments here.
        citation: Source.
        requires: Modules it needs.
        **more: Other fields of :class:`~marketenvs_baselines.registry.Algorithm`.
    """

    @functools.wraps(train_selfplay)
    def train(task: Any, seed: int, budget: int, report: Report | None = None, **options: Any) -> Policies:
        check_options(name, train_selfplay, options)
        return train_selfplay(name, defaults, task, seed, budget, report, **options)

    signature = inspect.signature(train_selfplay)
    taken = [p for k, p in signature.parameters.items() if k not in ("algorithm", "defaults")]
    train.__signature__ = signature.replace(parameters=taken)  # type: ignore[attr-defined]
    train.__name__ = f"train_{name.lower()}"

    def can_play(market: Market, role: str | None = None) -> str | None:
        stages = (stage for stage in market.stages if role in (None, stage.role))
        return next((reason for reason in (why_not(name, stage) for stage in stages) if reason), None)

    return Algorithm(
        f"sb3_{name.lower()}",
        train=train,
        title=f"{name} (SB3, self-play)",
        citation=citation,
        quick_budget=60_000,
        can_play=can_play,
        check=functools.partial(check_options, name, train_selfplay),
        requires=requires,
        **more,
    )
