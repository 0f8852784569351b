"""A stand-in for a task: the part of the protocol that an algorithm may use."""

from __future__ import annotations

from dataclasses import dataclass, field

import marketenvs


@dataclass
class FakeTask:
    preset: str = "grid"
    id: str = "AIBazaar-v0"
    params: dict = field(default_factory=dict)
    name: str = "fake"
    budget: int = 1000

    def make_market(self, **overrides):
        return marketenvs.make(self.id, preset=self.preset, **{**self.params, **overrides})

    @property
    def scale(self):
        return {"provider": 15000.0, "consumer": 30700.0}
