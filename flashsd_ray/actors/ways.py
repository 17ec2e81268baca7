"""Ways to encoders and lanes, wherever those run: what a router needs of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.actors.subscription import Feed
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.types import CaptionRequest, Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A prompt ready for a lane, or a reference to one that only lanes look into."""

    prompt: Any
    encode_s: float = 0.0


class EncoderClient(Protocol):
    """A way to an encoder."""

    @property
    def encoder_id(self) -> str:
        """Its name."""
        ...

    async def reserve(self, ticket: str) -> None:
        """The next turn belongs to the conversation that comes with this ticket, alone."""
        ...

    async def encode(self, conversation: Conversation, trace: str = "", ticket: str = "") -> Encoded:
        """The encoded prompt; the time it takes belongs to this trace.

        Raises:
            InvalidRequestError: the model cannot take this conversation.
            OverloadedError: too much waits for the encoder.
            UnavailableError: the encoder is lost.
        """
        ...

    async def look(self) -> None:
        """The encoder is there, whatever it works on; raises UnavailableError when it is lost."""
        ...


class LaneClient(Protocol):
    """A way to a lane; raises UnavailableError everywhere once the lane is lost."""

    @property
    def lane_id(self) -> str:
        """Its name."""
        ...

    def feed(self) -> AsyncGenerator[Feed, None]:
        """What every round gives the requests that were submitted through this client; first, how the lane stands."""
        ...

    async def reserve(self, request_id: str, company: int) -> None:
        """The request has a place of its own, in this company at most; it is to be submitted or cancelled now."""
        ...

    async def submit(self, request: CaptionRequest, encoded: Encoded) -> None:
        """The request waits for a place in the lane, unless it has one."""
        ...

    async def cancel(self, request_id: str) -> None:
        """The request has ended."""
        ...

    async def status(self) -> LaneStatus:
        """How busy it is; the lane knows that its caller is there."""
        ...

    async def meters(self) -> LaneMeters:
        """What it has counted so far."""
        ...
