"""One RPC: who calls, how long it may take, and what it ends with.

Needs of a context only what grpc.aio and Ray Serve have in common: metadata to read, a status and trailing metadata to
set. Where a context can do more (a deadline, initial metadata), that is used.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol, TypeVar

import grpc
from grpc_status import rpc_status

from flashsd_ray.errors import DeadlineError, FlashSDError, InvalidRequestError
from flashsd_ray.telemetry.logs import about
from flashsd_ray.timeouts import within
from flashsd_ray.wire.messages.status import status_message

logger = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"

_CLIENT_ID = re.compile(r"[!-~]{1,128}")  # what fits into a line of a log
_SUFFIX_BYTES = 8

Clock = Callable[[], float]  # seconds, never running backwards
T = TypeVar("T")


class RpcContext(Protocol):
    """What an RPC is answered with, in a plain server and behind Ray Serve's proxy."""

    def invocation_metadata(self) -> Any:
        """Pairs of names and values that the client sent."""
        ...

    def set_code(self, code: grpc.StatusCode) -> None:
        """The RPC ends with this code."""
        ...

    def set_details(self, details: str) -> None:
        """The RPC ends with this text."""
        ...

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """The RPC ends with these names and values."""
        ...


class Call:
    """What one RPC brought along; as a context manager it turns the error that ends it into the RPC's status."""

    def __init__(self, context: RpcContext, *, is_stream: bool, limit_s: float, clock: Clock) -> None:
        self._context: Any = context
        self._is_stream = is_stream
        self._clock = clock
        self._metadata = dict(context.invocation_metadata() or ())
        self._end_s = clock() + min(limit_s, self._client_limit_s)
        self.request_id = secrets.token_hex(_SUFFIX_BYTES)

    async def __aenter__(self) -> Call:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._end_with(error)
        # Ray Serve takes the status of a stream from an exception only; grpc.aio would log one that gets so far.
        return hasattr(self._context, "abort") or not self._is_stream

    @property
    def credentials(self) -> str | None:
        """The authorization that the client sent."""
        value = self._metadata.get("authorization")
        return value if isinstance(value, str) else None

    @property
    def trace(self) -> str:
        """The W3C traceparent that the client sent; empty without one."""
        value = self._metadata.get("traceparent", "")
        return value if isinstance(value, str) else ""

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the answer has to be there; None where neither side has set a limit.

        Raises:
            DeadlineError: there are none left.
        """
        left_s = self._left_s
        if left_s is not None and left_s <= 0:
            raise DeadlineError("the time for this request is over; serving.request_timeout_s is the longest there is")
        return left_s

    async def identify(self) -> None:
        """The request has an id that no other has, which begins with the client's; the client has its own back.

        Raises:
            InvalidRequestError: the client's id is too long or holds other characters than ids do.
        """
        own = self._metadata.get(REQUEST_ID, "")
        if own and not _CLIENT_ID.fullmatch(str(own)):
            raise InvalidRequestError(f"{REQUEST_ID} must be 1 to 128 printable ASCII characters without spaces")
        if own:
            self.request_id = f"{own}-{self.request_id}"
        if hasattr(self._context, "send_initial_metadata"):
            await self._context.send_initial_metadata(((REQUEST_ID, own or self.request_id),))

    async def within_limit(self, work: Awaitable[T]) -> T:
        """What the work gives.

        Raises:
            DeadlineError: it takes longer than the request may.
        """
        try:
            return await within(self._left_s, work)
        except asyncio.TimeoutError:
            raise DeadlineError("the pictures of the request were not there in time") from None

    def _end_with(self, error: Exception) -> None:
        # Of an error that nobody foresaw the client learns the request's id only.
        if not isinstance(error, FlashSDError) or error.grpc_status == FlashSDError.grpc_status:
            with about(self.request_id):
                logger.error("request failed", exc_info=error)
            error = FlashSDError(f"internal error in request {self.request_id}")
        status = rpc_status.to_status(status_message(error))
        self._context.set_code(status.code)
        self._context.set_details(status.details)
        self._context.set_trailing_metadata(list(status.trailing_metadata))

    @property
    def _left_s(self) -> float | None:
        left_s = self._end_s - self._clock()
        return left_s if math.isfinite(left_s) else None

    @property
    def _client_limit_s(self) -> float:
        remaining_s = getattr(self._context, "time_remaining", lambda: None)()
        return math.inf if remaining_s is None else remaining_s
