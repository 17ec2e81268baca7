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


class CheckpointError(FlashSDError):
    """A checkpoint is missing, unsupported, damaged or made for another target."""

    grpc_status = "FAILED_PRECONDITION"


class ProtocolError(FlashSDError):
    """Two stages of the pipeline disagree about the state of a request."""


class StaleBlockError(ProtocolError):
    """A draft block starts before the last committed token of its request."""


class UnknownRequestError(ProtocolError):
    """A message names a request that was never opened or is already closed."""
