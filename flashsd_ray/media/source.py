"""The bytes of one input: opened without surprises, bounded in size and time, the same for a file and for memory.

Knows nothing about pictures or videos.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError

PathText = str | os.PathLike[str]
Clock = Callable[[], float]  # seconds, never running backwards

MAX_LABEL_LENGTH = 200

SPECIAL_FILES: dict[int, str] = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Deadline:
    """The moment after which no more work is put into one input."""

    def __init__(self, limit_s: float, clock: Clock) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._end_s = clock() + limit_s

    @property
    def is_past(self) -> bool:
        """Whether the time is used up."""
        return self._clock() >= self._end_s


class MediaSource:
    """A seekable stream over one input that never raises: what goes wrong is kept, and ``check`` tells it.

    FFmpeg calls ``read`` from C, where an exception is printed or surfaces at the next file. After a failure, or past
    the deadline, the input simply seems to end, which stops every demuxer and decoder.
    """

    def __init__(self, stream: BinaryIO, size_bytes: int, label: str, deadline: Deadline) -> None:
        self.size_bytes = size_bytes
        self.label = label
        self.deadline = deadline
        self.is_at_end = False  # whether a read met the end of the input since this was last set to False
        self._stream = stream
        self._failure: str | None = None

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most ``size`` of them if it is not negative; none at the end or after a failure."""
        if self._failure is not None or self.deadline.is_past:
            return b""
        try:
            # A file that grows while it is read ends where it ended when it was opened.
            left = max(self.size_bytes - self._stream.tell(), 0)
            wanted = left if size < 0 else min(size, left)
            content = self._stream.read(wanted)
        except OSError as error:
            self._failure = f"cannot be read: {error.strerror or error}"
            return b""
        self.is_at_end |= len(content) < size or size < 0
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position, or -1 where there is none."""
        try:
            if whence == os.SEEK_END:
                offset, whence = offset + self.size_bytes, os.SEEK_SET
            return self._stream.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            self._failure = f"is damaged: it refers to byte {offset}"
            return -1

    def tell(self) -> int:
        """The position of the next byte."""
        return self._stream.tell()

    def peek(self, size: int) -> bytes:
        """The first bytes of the input; the position is then the start."""
        self.seek(0)
        content = self.read(size)
        self.seek(0)
        return content

    def error(self, problem: str) -> MediaError:
        """A MediaError that says what is wrong with this input."""
        return MediaError(f"{self.label}: {problem}")

    def check(self) -> None:
        """Raises MediaError when reading has failed, MediaLimitError when the time is used up."""
        if self._failure is not None:
            raise self.error(self._failure)
        if self.deadline.is_past:
            raise MediaLimitError(f"{self.label}: takes longer than media.max_decode_s ({self.deadline.limit_s:g} s)")


def label_of(path: PathText) -> str:
    """The path as it was given, fit for one line of a message."""
    return printable(os.fspath(path)) or "(empty path)"


def printable(text: str) -> str:
    """The text with control characters and lone surrogates escaped, and its beginning cut off when it is very long."""
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return escaped if len(escaped) <= MAX_LABEL_LENGTH else f"...{escaped[-MAX_LABEL_LENGTH:]}"


def is_directory(path: PathText, label: str) -> bool:
    """Whether the path is a directory rather than a regular file.

    Raises:
        MediaError: the path is empty, leads nowhere, may not be looked at, or is a pipe, socket or device.
    """
    if not os.fspath(path):
        raise MediaError("the path is empty")
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise MediaError(f"{label}: {_reason(path, error)}") from error
    if stat.S_IFMT(mode) in SPECIAL_FILES:
        raise MediaError(f"{label}: is {SPECIAL_FILES[stat.S_IFMT(mode)]}, not a file")
    return stat.S_ISDIR(mode)


@contextmanager
def open_file(path: PathText, label: str, config: MediaConfig, deadline: Deadline) -> Iterator[MediaSource]:
    """The bytes of a regular file; closed at the end.

    Raises:
        MediaError: the file cannot be opened, is empty or is not a regular file.
        MediaLimitError: the file is larger than ``media.max_bytes``.
    """
    try:
        # Opening a pipe without O_NONBLOCK waits for a writer; a path may become one after it was looked at.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise MediaError(f"{label}: {_reason(path, error)}") from error
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(f"{label}: is not a regular file")
        yield _bounded(stream, status.st_size, label, config, deadline)


def open_bytes(
    data: bytes | bytearray | memoryview, label: str, config: MediaConfig, deadline: Deadline
) -> MediaSource:
    """The bytes of an input in memory.

    Raises:
        MediaError: there are none.
        MediaLimitError: there are more than ``media.max_bytes``.
    """
    size_bytes = memoryview(data).nbytes
    return _bounded(io.BytesIO(data), size_bytes, label, config, deadline)


def _bounded(stream: BinaryIO, size_bytes: int, label: str, config: MediaConfig, deadline: Deadline) -> MediaSource:
    if size_bytes == 0:
        raise MediaError(f"{label}: is empty")
    if size_bytes > config.max_bytes:
        raise MediaLimitError(f"{label}: has {size_bytes} bytes; media.max_bytes allows {config.max_bytes}")
    return MediaSource(stream, size_bytes, label, deadline)


def _reason(path: PathText, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is a link to a missing file" if Path(path).is_symlink() else "does not exist"
    if isinstance(error, OSError):
        return f"cannot be opened: {error.strerror}"
    return f"cannot be opened: {error}"
