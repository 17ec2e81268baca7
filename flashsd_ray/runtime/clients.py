"""Ways to lanes and encoders in other processes; Ray's errors become ours here and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from flashsd_ray.actors.router import Encoded
from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.actors.subscription import Feed
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.errors import FlashSDError, UnavailableError
from flashsd_ray.types import CaptionRequest, Conversation


@contextmanager
def errors_of(part: str) -> Iterator[None]:
    """Inside, what went wrong in another process is raised as if it had happened here.

    Raises:
        FlashSDError: the error that the part raised.
        UnavailableError: the part is dead, unreachable, or lost an object that it was given.
    """
    try:
        yield
    except RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, FlashSDError):
            raise cause from None
        raise UnavailableError(f"{part} failed: {type(cause or error).__name__}: {cause or error}") from error
    except RayActorError as error:
        raise UnavailableError(f"{part} is lost") from error
    except RayError as error:
        raise UnavailableError(f"{part} cannot be reached: {type(error).__name__}") from error


class RayLane:
    """Keeps the LaneClient protocol for a lane in an actor."""

    def __init__(self, lane_id: str, handle: Any, subscriber: str) -> None:
        self._lane_id = lane_id
        self._handle = handle
        self._subscriber = subscriber

    @property
    def lane_id(self) -> str:
        """Its name."""
        return self._lane_id

    async def feed(self) -> AsyncGenerator[Feed, None]:
        """How the lane stands, then what every round gives the requests of this client."""
        stream = self._handle.feed.options(num_returns="streaming").remote(self._subscriber)
        try:
            with errors_of(self._lane_id):
                async for reference in stream:
                    yield await reference
        finally:
            ray.cancel(stream)

    async def submit(self, request: CaptionRequest, encoded: Encoded) -> None:
        """The request waits for a place in the lane."""
        with errors_of(self._lane_id):
            await self._handle.submit.remote(self._subscriber, request, encoded.prompt, encoded.encode_s)

    async def reserve(self, request_id: str, company: int) -> None:
        """The request, under which a lane was lost, has a place of its own."""
        with errors_of(self._lane_id):
            await self._handle.reserve.remote(self._subscriber, request_id, company)

    async def cancel(self, request_id: str) -> None:
        """The request has ended."""
        with errors_of(self._lane_id):
            await self._handle.cancel.remote(request_id)

    async def status(self) -> LaneStatus:
        """How busy the lane is; the lane knows that this edge is there."""
        with errors_of(self._lane_id):
            status: LaneStatus = await self._handle.status.remote(self._subscriber)
            return status

    async def meters(self) -> LaneMeters:
        """What the lane has counted so far."""
        with errors_of(self._lane_id):
            meters: LaneMeters = await self._handle.meters.remote()
            return meters


class RayEncoder:
    """Keeps the EncoderClient protocol for an encoder in an actor; the prompt itself never comes here."""

    def __init__(self, encoder_id: str, handle: Any) -> None:
        self._encoder_id = encoder_id
        self._handle = handle

    @property
    def encoder_id(self) -> str:
        """Its name."""
        return self._encoder_id

    async def reserve(self, ticket: str) -> None:
        """The encoder's next turn belongs to the conversation that comes with this ticket."""
        with errors_of(self._encoder_id):
            granted = self._handle.reserve.remote(ticket)
            try:
                await granted
            except asyncio.CancelledError:
                ray.cancel(granted)  # nobody comes with it any more
                raise

    async def encode(self, conversation: Conversation, trace: str = "", ticket: str = "") -> Encoded:
        """A reference to the encoded prompt, which lies in the object store of the encoder's node."""
        with errors_of(self._encoder_id):
            seconds, parcel = self._handle.encode.options(num_returns=2).remote(conversation, trace, ticket)
            try:
                return Encoded(prompt=parcel, encode_s=await seconds)
            except asyncio.CancelledError:
                ray.cancel(seconds)  # nobody wants it any more
                raise

    async def look(self) -> None:
        """The encoder's loop turns."""
        with errors_of(self._encoder_id):
            await self._handle.status.remote()
