"""What a fleet tells its edges: who is there, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flashsd_ray.actors.service import ModelCard, RoleScale
from flashsd_ray.errors import FlashSDError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roster:
    """Who is there."""

    version: int
    card: ModelCard | None = None  # None until the first lane is up
    lanes: tuple[tuple[str, Any], ...] = ()  # name and actor handle
    encoders: tuple[tuple[str, Any], ...] = ()
    draining: frozenset[str] = frozenset()  # lanes that finish what they have and take nothing new
    starts_on_demand: bool = False  # with no lane there is still an answer: the first request has one started
    scales: tuple[RoleScale, ...] = ()
    degraded: tuple[str, ...] = ()
    quarantined: Mapping[str, float] = field(default_factory=dict)  # seconds left, by fingerprint of what kills parts
    failure: FlashSDError | None = None  # no lane will ever come up, and why

    @property
    def takes_requests(self) -> bool:
        """Whether any lane does."""
        return any(name not in self.draining for name, _ in self.lanes)
