"""What every call of one client shares: the channel, who calls, the time it may take, the attempts it gets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc

from flashsd_ray.client.channel import Connection
from flashsd_ray.client.pictures import Pictures
from flashsd_ray.client.retries import Attempts, Retries, Timing
from flashsd_ray.client.status import error_of_call
from flashsd_ray.errors import FlashSDError, InvalidRequestError, MediaLimitError, SequenceError
from flashsd_ray.wire.v1 import captioning_pb2 as pb
from flashsd_ray.wire.v1 import captioning_pb2_grpc

if TYPE_CHECKING:
    from google.protobuf.message import Message

T = TypeVar("T")

REQUEST_ID = re.compile(r"[ -~]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How the calls of a client are made."""

    timeout_s: float | None = None  # of one call with all its attempts; None: as long as the server allows
    jpeg_quality: int | None = None  # of frames given as pixels; None: they are sent as they are
    retries: Retries = field(default_factory=Retries)
    timing: Timing = field(default_factory=Timing)


class Calls:
    """Makes the calls of one client."""

    def __init__(self, connection: Connection, options: CallOptions) -> None:
        """Raises ConfigError when there is no such JPEG quality."""
        self.connection = connection
        self.options = options
        self._pictures = Pictures(jpeg_quality=options.jpeg_quality)
        self._channel: grpc.aio.Channel | None = None
        self._is_closed = False
        self._stub: Any = None
        self._max_message_bytes: int | None = None  # None: not learned yet

    @property
    def stub(self) -> Any:
        """The service, on the channel of the running event loop.

        Raises:
            SequenceError: the client is closed.
        """
        if self._is_closed:
            raise SequenceError("the client is closed")
        if self._channel is None:
            self._channel = self.connection.channel()
            # The generated code has no annotations.
            self._stub = cast("Callable[[grpc.aio.Channel], Any]", captioning_pb2_grpc.CaptioningStub)(self._channel)
        return self._stub

    def attempts(self, timeout_s: float | None) -> Attempts:
        """The attempts at one call; without a time limit of its own it has the client's."""
        limit_s = self.options.timeout_s if timeout_s is None else timeout_s
        return Attempts(self.options.retries, self.options.timing, limit_s)

    def metadata(self, request_id: str = "") -> Sequence[tuple[str, str]]:
        """What a call says besides its message.

        Raises:
            InvalidRequestError: the request id cannot be sent.
        """
        if not REQUEST_ID.fullmatch(request_id):
            raise InvalidRequestError(f"a request id has only printable ASCII characters, got {request_id!r}")
        return self.connection.metadata(request_id)

    async def model(self, name: str, attempts: Attempts) -> pb.Model:
        """The model behind the server, whose limits are known from now on.

        Raises:
            FlashSDError: the server cannot be reached, or refuses.
        """
        while True:
            try:
                model: pb.Model = await self.stub.GetModel(
                    pb.GetModelRequest(model=name), timeout=attempts.left_s(), metadata=self.metadata()
                )
            except grpc.aio.AioRpcError as failure:
                await attempts.failed(self.error(failure))
            else:
                self._max_message_bytes = model.max_message_bytes
                return model

    async def built(self, build: Callable[[Pictures], T], attempts: Attempts) -> T:
        """The message that is built, in a thread, and that is small enough for the server.

        Raises:
            FlashSDError: it cannot be built, is too large, or the server cannot be asked how large it may be.
        """
        if self._max_message_bytes is None:
            await self.model("", attempts)
        limit = self._max_message_bytes or 0
        pictures = Pictures(jpeg_quality=self._pictures.jpeg_quality, max_bytes=limit)
        message = await asyncio.to_thread(build, pictures)
        size_bytes = cast("Message", message).ByteSize()
        if limit and size_bytes > limit:
            raise MediaLimitError(
                f"the message has {size_bytes} bytes; {self.connection.address} accepts {limit} (serving.max_body_bytes)"
            )
        return message

    def error(self, failure: grpc.aio.AioRpcError) -> FlashSDError:
        """The error that a failed call stands for."""
        return error_of_call(failure, self.connection.address)

    async def close(self) -> None:
        """The connection is closed, and open calls are cancelled."""
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close(None)
