"""``file:`` addresses: regular files below the directories that the operator named, and nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flashsd_ray.errors import MediaError, RefusedAddressError
from flashsd_ray.media.source import printable
from flashsd_ray.serving.addresses.inline import too_large

# Opening a pipe without O_NONBLOCK waits for a writer.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def read_file(
    url: str,
    directories: Sequence[str],  # serving.allowed_directories
    max_bytes: int,
) -> bytes:
    """The content of the file.

    Raises:
        RefusedAddressError: it lies, links followed, in none of the directories, or is no regular file.
        MediaLimitError: it has more than ``max_bytes``.
        MediaError: it is missing or cannot be read.
    """
    label = printable(url)
    directory, steps = _place(url, label, directories)
    try:
        descriptor = _open_below(directory, steps)
        try:
            return _read(descriptor, label, max_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise MediaError(f"{label}: cannot be opened: {error.strerror}") from None


def _read(descriptor: int, label: str, max_bytes: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise RefusedAddressError(f"{label}: serving.allowed_directories allows regular files only")
    if status.st_size > max_bytes:
        raise too_large(label)
    with os.fdopen(descriptor, "rb", closefd=False) as stream:
        content = stream.read(max_bytes + 1)  # a file may grow meanwhile
    if len(content) > max_bytes:
        raise too_large(label)
    return content


def _place(url: str, label: str, directories: Sequence[str]) -> tuple[Path, tuple[str, ...]]:
    """The allowed directory that the file lies in, and the steps from there, free of links."""
    refused = RefusedAddressError(f"{label}: lies in no directory of serving.allowed_directories")
    try:
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not path.startswith("/"):
            raise refused
        real = Path(os.path.realpath(path))
    except (OSError, ValueError):  # a malformed address, or a path with a zero byte
        raise refused from None
    for directory in map(os.path.realpath, directories):
        if real.is_relative_to(directory) and real != Path(directory):
            return Path(directory), real.relative_to(directory).parts
    raise refused


def _open_below(directory: Path, steps: tuple[str, ...]) -> int:
    # Step by step and without following links: a link that was put there meanwhile leads nowhere.
    current = os.open(directory, _FLAGS | os.O_DIRECTORY)
    for index, step in enumerate(steps):
        is_last = index == len(steps) - 1
        try:
            below = os.open(step, _FLAGS if is_last else _FLAGS | os.O_DIRECTORY, dir_fd=current)
        finally:
            os.close(current)
        current = below
    return current
