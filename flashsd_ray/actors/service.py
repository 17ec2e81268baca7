"""What every edge (HTTP, gRPC, batch) asks of whatever decodes, in this process or across a cluster."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flashsd_ray.engine.answers import Chunk
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.types import CaptionRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """The model that a service answers with, as clients are told about it."""

    name: str
    family: str
    context_length: int  # positions of prompt and answer together
    max_new_tokens: int  # largest a request may ask for
    fingerprint: str
    drafter: str
    compressor: str
    dtype: str
    created_s: int = 0  # Unix time at which the service was started
    num_vision_tokens: int = 0  # of one frame, where that is fixed; 0: it depends on the picture


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """What one lane is busy with."""

    lane_id: str
    num_waiting: int = 0
    num_running: int = 0
    free_rows: int = 0  # of the KV cache
    total_rows: int = 0
    max_requests: int = 0  # running and waiting; one more is refused
    is_draining: bool = False
    has_suspects: bool = False  # requests that lost another lane: nobody else gets a place until they are through
    wait_s: float = 0.0  # until a request that comes now has a place, as far as the answers of late tell


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleScale:
    """How many there are of one kind of part, and how that came about."""

    role: str  # lane, encoder
    desired: int
    actual: int  # those that take requests
    starting: int = 0
    draining: int = 0
    ups: int = 0  # decisions for more, so far
    downs: int = 0
    reason: str = ""  # of the last decision; empty where the number is fixed


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """Whether requests are answered, and what is missing where something is."""

    is_ready: bool
    lanes: tuple[LaneStatus, ...] = ()
    degraded: tuple[str, ...] = field(default=())  # sentences: what is lost, and what still works without it
    scales: tuple[RoleScale, ...] = field(default=())  # where parts are counted


class CaptionService(Protocol):
    """Answers requests; every edge is written against this and nothing else."""

    @property
    def card(self) -> ModelCard:
        """The model behind the service."""
        ...

    def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        """The chunks of the answer as they are committed; the last one has a finish reason.

        Closing the generator cancels the request: its cache rows are free within a round.

        Raises:
            FlashSDError: the request was refused or could not be answered; no chunk carries an error.
        """
        ...

    def require_room(self) -> None:
        """Cheap enough to be asked before anything is read for a request.

        Raises:
            OverloadedError: a request that comes now would be refused.
        """
        ...

    async def prefetch(self, request: CaptionRequest) -> int:
        """Pictures of the request are encoded and its prompt is in the KV cache, for a request that begins alike.

        Returns the number of prompt positions that are cached; 0 where there is nothing to gain or no room.
        """
        ...

    async def status(self) -> ServiceStatus:
        """How the service is now."""
        ...

    async def meters(self) -> Mapping[str, LaneMeters]:
        """Totals of every lane that answers, by its name, as they were at one moment between two of its rounds."""
        ...

    async def close(self) -> None:
        """Nothing runs any more; requests that were open have ended with UnavailableError."""
        ...
