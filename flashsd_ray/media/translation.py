"""The one place where what PyAV, Pillow and the operating system raise becomes a MediaError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av
from PIL import Image, UnidentifiedImageError

from flashsd_ray.errors import InvalidRequestError, MediaError, MediaLimitError
from flashsd_ray.media.source import MediaSource, printable


@contextmanager
def media_errors(source: MediaSource, what: str) -> Iterator[None]:
    """Whatever goes wrong inside is raised as one MediaError that says the source cannot be read as ``what``."""
    try:
        yield
    except InvalidRequestError:
        raise
    except Exception as error:  # parsers raise whatever type their damaged input trips over
        source.check()  # a failed read or a passed deadline explains what the parser makes of it
        raise _translated(source, what, error) from error


def _translated(source: MediaSource, what: str, error: Exception) -> MediaError:
    if isinstance(error, MemoryError):
        # FFmpeg reports a container with too many streams as a lack of memory.
        return MediaLimitError(f"{source.label}: needs more memory, or has more streams, than is allowed")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        # Pillow has a limit of its own and applies it first.
        return MediaLimitError(f"{source.label}: is larger than media.max_pixels can allow: {printable(str(error))}")
    return source.error(f"cannot be read as {what}: {reason(error)}")


def reason(error: Exception) -> str:
    """What a parser has to say, in a few words without names of Python objects."""
    if isinstance(error, UnidentifiedImageError):
        return "its header is damaged"
    if isinstance(error, MemoryError):
        return "it declares more data than there is memory for"
    if isinstance(error, av.error.EOFError):
        return "it ends too early"
    if isinstance(error, av.error.PatchWelcomeError):
        return "it needs a feature that FFmpeg does not have"
    if isinstance(error, av.error.FFmpegError):
        # Most of what FFmpeg says beyond this is the name of an operating system's error that has not happened.
        return "its data is damaged or of a format that is not accepted"
    return printable(str(error)) or type(error).__name__
