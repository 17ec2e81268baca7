"""From the status of a failed call to the errors of this package."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from flashsd_ray.errors import (
    AuthenticationError,
    DeadlineError,
    FlashSDError,
    InvalidRequestError,
    MediaLimitError,
    NotFoundError,
    OverloadedError,
    RefusedAddressError,
    SequenceError,
    UnavailableError,
)

# What grpc.aio makes of a write that meets a connection that has just ended, whatever status it ended with.
BROKEN_WRITE = "Internal error from Core"
STATUS_DETAILS = "grpc-status-details-bin"
ERRORS: dict[str, type[FlashSDError]] = {
    error.grpc_status: error
    for error in (
        InvalidRequestError,
        OverloadedError,
        DeadlineError,
        UnavailableError,
        AuthenticationError,
        NotFoundError,
        SequenceError,
        RefusedAddressError,
    )
}
TRANSIENT = (OverloadedError, UnavailableError)


def error_of_call(failure: grpc.aio.AioRpcError, address: str) -> FlashSDError:
    """The error that a failed call stands for; for what may pass, ``retry_after_s`` is 0 unless the server named it."""
    status, details = failure.code().name, failure.details() or f"the call failed with {failure.code().name}"
    # A call that was cancelled here raises CancelledError, so this one was given up by a server that stops.
    if details == BROKEN_WRITE or failure.code() is grpc.StatusCode.CANCELLED:
        status, details = UnavailableError.grpc_status, "the connection was lost"
    if status == UnavailableError.grpc_status:
        details = f"{address}: {details}"
    error = error_named(status, details, retry_after_s(failure.trailing_metadata()))
    error.__cause__ = failure
    return error


def error_named(
    status: str,  # name of a gRPC status
    message: str,
    retry_after_s: float = 0.0,
) -> FlashSDError:
    """The error of this package that a server answers with this status."""
    # gRPC's own words for a message that is too large; unlike other exhausted resources this does not pass.
    if status == OverloadedError.grpc_status and "message larger than max" in message:
        return MediaLimitError(message)
    if status == OverloadedError.grpc_status:
        return OverloadedError(message, retry_after_s=retry_after_s)
    if status == UnavailableError.grpc_status:
        return UnavailableError(message, retry_after_s=retry_after_s)
    return ERRORS.get(status, FlashSDError)(message)


def retry_after_s(metadata: Any) -> float:  # pairs of names and values, or None
    """How long the server asks to wait before the next attempt; 0 when it says nothing."""
    for key, value in metadata or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            return max(_retry_delay_s(value), 0.0)
    return 0.0


def _retry_delay_s(details: bytes) -> float:
    retry = error_details_pb2.RetryInfo()
    try:
        for detail in status_pb2.Status.FromString(details).details:
            if detail.Unpack(retry):
                return float(retry.retry_delay.ToTimedelta().total_seconds())
    except DecodeError:
        return 0.0
    return 0.0
