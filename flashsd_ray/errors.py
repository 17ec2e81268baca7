"""Every exception that flashsd_ray raises on purpose, with the status an edge should answer."""

from __future__ import annotations

from typing import ClassVar


class FlashSDError(Exception):
    """Root of every error that this package raises on purpose."""

    grpc_status: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500


class ConfigError(FlashSDError):
    """A setting is unknown, has the wrong type or lies outside its range."""

    grpc_status = "FAILED_PRECONDITION"


class InvalidRequestError(FlashSDError):
    """What the caller sent cannot be served, and sending it again will not help."""

    grpc_status = "INVALID_ARGUMENT"
    http_status = 400


class MediaError(InvalidRequestError):
    """A file or frame cannot be read as an image or a video.

    The message names the file and says what is wrong with it.
    """


class MediaLimitError(MediaError):
    """A file is readable but larger than a named limit of the configuration allows."""

    http_status = 413


class OverloadedError(FlashSDError):
    """There is no room for the request now; it may be sent again after ``retry_after_s``."""

    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 429

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(FlashSDError):
    """The answer was not, or would not be, complete within the request's time limit."""

    grpc_status = "DEADLINE_EXCEEDED"
    http_status = 504


class UnavailableError(FlashSDError):
    """The part that would serve the request is starting, draining or lost; the same request may be sent again."""

    grpc_status = "UNAVAILABLE"
    http_status = 503

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotTakingError(UnavailableError):
    """A lane or an encoder answers, and takes nothing new."""


class LaneLostError(UnavailableError):
    """A part that a lane cannot decode without is gone: the lane ends, and another one may answer."""


class AuthenticationError(FlashSDError):
    """The caller did not say, or not correctly, who it is."""

    grpc_status = "UNAUTHENTICATED"
    http_status = 401


class NotFoundError(FlashSDError):
    """The caller names something, a model or a session, that is not there or not theirs."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class SequenceError(InvalidRequestError):
    """A message came where the protocol has no place for it."""

    grpc_status = "FAILED_PRECONDITION"


class QuarantinedError(InvalidRequestError):
    """The request lost lane after lane, or encoder after encoder, in the end with nobody else there; it is refused."""

    http_status = 422


class RefusedAddressError(InvalidRequestError):
    """A request points at an address or file that the operator did not allow."""

    grpc_status = "PERMISSION_DENIED"
    http_status = 403


class StorageError(FlashSDError):
    """A file or directory of a corpus, or of its output, cannot be reached."""


class RowError(InvalidRequestError):
    """A row of a corpus cannot be understood; the message says where it stands and what is wrong with it."""


class CheckpointError(FlashSDError):
    """A checkpoint is missing, unsupported, damaged or made for another target."""

    grpc_status = "FAILED_PRECONDITION"


class ProtocolError(FlashSDError):
    """Two stages of the pipeline disagree about the state of a request."""


class StaleBlockError(ProtocolError):
    """A draft block starts before the last committed token of its request."""


class UnknownRequestError(ProtocolError):
    """A message names a request that was never opened or is already closed."""


class WireError(FlashSDError):
    """A message is damaged, too large, of another version, or not one of those that this package sends."""
