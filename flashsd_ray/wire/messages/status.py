"""Errors as google.rpc statuses, with the time after which a retry may succeed."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.rpc.code_pb2 import Code  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from flashsd_ray.errors import FlashSDError, OverloadedError, UnavailableError

# A status travels twice in the trailers, percent-encoded and as a message; clients accept 8 KiB of trailers.
_MAX_MESSAGE_BYTES = 1000


def status_message(error: FlashSDError) -> Status:
    """The error's code and message; RetryInfo among the details where the error says when to come again."""
    status = Status(code=Code.Value(error.grpc_status), message=_short(str(error)))
    if isinstance(error, (OverloadedError, UnavailableError)):
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    return status


def _short(text: str) -> str:
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= _MAX_MESSAGE_BYTES:
        return encoded.decode()
    return encoded[:_MAX_MESSAGE_BYTES].decode("utf-8", "ignore") + " ..."
