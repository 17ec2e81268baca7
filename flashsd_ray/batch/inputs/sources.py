"""The bytes of a clip, wherever they lie, as something that ``media/`` can open."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

from flashsd_ray.batch.rows import Clip, Member
from flashsd_ray.batch.storage import Location
from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError, RowError, StorageError
from flashsd_ray.media import load_visual, load_visual_bytes
from flashsd_ray.media.source import printable
from flashsd_ray.types import VisualInput

Content: TypeAlias = "str | bytes"  # a path of this machine, or everything that is in the file

BYTES_IN_MEMORY = 64 * 2**20  # what is larger and is no file of this machine goes through a temporary one
COPY_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Source:
    """An opened clip."""

    content: Content
    name: str  # what to call it in messages

    def load(
        self,
        config: MediaConfig,
        *,
        num_frames: int | None = None,
        fps: float | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> VisualInput:
        """Its picture or sampled frames; arguments and errors are those of ``media.load_visual``."""
        wanted: dict[str, Any] = {"num_frames": num_frames, "fps": fps, "start_s": start_s, "end_s": end_s}
        if isinstance(self.content, str):
            return load_visual(self.content, config, name=self.name, **wanted)
        return load_visual_bytes(self.content, self.name, config, **wanted)


@contextmanager
def read_source(clip: Clip, config: MediaConfig) -> Iterator[Source]:
    """The clip's content: a file of this machine stays where it is, all else is fetched whole and forgotten at the end.

    Raises:
        RowError: the row itself has a problem.
        MediaError: there is no such file, or it ends before its content does.
        MediaLimitError: it is larger than ``media.max_bytes``.
        StorageError: it cannot be fetched.
        ConfigError: the package of its storage is not installed.
    """
    if clip.problem:
        raise RowError(clip.problem)
    place = Location(clip.source)
    if clip.member is None and place.is_local:
        yield Source(clip.source, clip.source)
        return
    member = clip.member or _whole(place)
    label = printable(clip.source)
    if member.size > config.max_bytes:
        raise MediaLimitError(f"{label}: has {member.size} bytes; media.max_bytes allows {config.max_bytes}")
    with _opened(member, label) as file:
        if member.size <= BYTES_IN_MEMORY:
            yield Source(b"".join(_pieces(file, member, label)), clip.source)
            return
        with tempfile.NamedTemporaryFile(prefix="flashsd-") as copy:
            for piece in _pieces(file, member, label):
                copy.write(piece)
            copy.flush()
            yield Source(copy.name, clip.source)


def _whole(place: Location) -> Member:
    size_bytes = place.size_bytes()
    if size_bytes is None:
        raise MediaError(f"{printable(place.address)}: does not exist")
    return Member(shard=place.address, offset=0, size=size_bytes)


@contextmanager
def _opened(member: Member, label: str) -> Iterator[IO[bytes]]:
    place = Location(member.shard)
    if place.size_bytes() is None:
        raise MediaError(f"{label}: does not exist")
    with place.open() as file:
        yield file


def _pieces(file: IO[bytes], member: Member, label: str) -> Iterator[bytes]:
    left = member.size
    try:
        file.seek(member.offset)
        while left:
            piece = file.read(min(left, COPY_BYTES))
            if not piece:
                raise MediaError(f"{label}: is truncated: {left} of {member.size} bytes are missing")
            left -= len(piece)
            yield piece
    except OSError as error:
        raise StorageError(f"{label}: cannot be read: {error}") from error
