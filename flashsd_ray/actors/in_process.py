"""Ways to a lane and to an encoder that live in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from time import perf_counter
from typing import TYPE_CHECKING

from flashsd_ray.actors.lane_host import LaneHost
from flashsd_ray.actors.router import Encoded
from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.actors.subscription import Feed
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.telemetry.traces import Traces
from flashsd_ray.types import CaptionRequest, Conversation

if TYPE_CHECKING:
    from flashsd_ray.actors.encoder_host import EncoderHost


class LocalLane:
    """Keeps the LaneClient protocol for a lane host in this process."""

    def __init__(self, host: LaneHost, subscriber: str) -> None:
        self._host = host
        self._subscriber = subscriber

    @property
    def lane_id(self) -> str:
        """Its name."""
        return self._host.lane_id

    def feed(self) -> AsyncGenerator[Feed, None]:
        """How the lane stands, then what its rounds give the requests of this client."""
        return self._host.feed(self._subscriber)

    async def submit(self, request: CaptionRequest, encoded: Encoded) -> None:
        """The request waits for a place in the lane."""
        await self._host.submit(self._subscriber, request, encoded.prompt, encode_s=encoded.encode_s)

    async def reserve(self, request_id: str, company: int) -> None:
        """The request, under which a lane was lost, has a place of its own."""
        await self._host.reserve(self._subscriber, request_id, company)

    async def cancel(self, request_id: str) -> None:
        """The request has ended."""
        await self._host.cancel(request_id)

    async def status(self) -> LaneStatus:
        """How busy the lane is; the lane knows that this client is there."""
        return await self._host.status(self._subscriber)

    async def meters(self) -> LaneMeters:
        """What the lane has counted so far."""
        return await self._host.meters()


class LocalEncoding:
    """Keeps the EncoderClient protocol for an encoder host in this process."""

    def __init__(
        self, host: EncoderHost, clock: Callable[[], float] = perf_counter, *, traces: Traces | None = None
    ) -> None:
        self._host = host
        self._traces = traces or Traces()
        self._clock = clock

    @property
    def encoder_id(self) -> str:
        """Its name."""
        return "encoder-0"

    async def reserve(self, ticket: str) -> None:
        """The encoder's next turn belongs to the conversation that comes with this ticket."""
        await self._host.reserve(ticket)

    async def encode(self, conversation: Conversation, trace: str = "", ticket: str = "") -> Encoded:
        """The encoded prompt and the seconds it took, waiting included."""
        began_s = self._clock()
        with self._traces.during("encode", trace, visuals=len(conversation.visuals)):
            prompt = await self._host.encode(conversation, ticket)
        return Encoded(prompt=prompt, encode_s=self._clock() - began_s)

    async def look(self) -> None:
        """The encoder is there: it lives in this process."""
