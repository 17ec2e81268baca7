"""WebDataset shards: tar files whose members belong together where their names are equal up to the first dot.

Only the heads of members are read, and the small JSON files among them; the videos stay where they are and are read by
their place.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import Any

from flashsd_ray.batch.inputs.fields import as_json, broken, clip_of
from flashsd_ray.batch.inputs.media_names import is_media, is_video
from flashsd_ray.batch.rows import Clip, Member
from flashsd_ray.batch.storage import Location
from flashsd_ray.errors import ConfigError, StorageError

MEMBER = re.compile(r"(.+?\.tar)#(.+)", re.DOTALL | re.IGNORECASE)
SUFFIXES = (".tar",)
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MAX_JSON_BYTES = 2**20
HEADER_BUFFER_BYTES = 2**16


def is_shard(name: str) -> bool:
    """Whether a file of this name is taken for a tar file."""
    return name.lower().endswith(SUFFIXES + PACKED_SUFFIXES)


def read_shard(
    shard: Location,
    name: str,  # of the shard within the input, for ids
) -> Iterator[Clip]:
    """A clip for every sample with a video or a picture; where there are both, the video.

    A ``.json`` member may say ``id``, ``start``, ``end``, ``prompt`` or ``prompts``; what else it says is carried
    through. A shard that is cut off or damaged gives what stands before the damage, and one clip with a problem.

    Raises:
        StorageError: the shard cannot be opened.
        ConfigError: it is compressed.
    """
    if shard.name.lower().endswith(PACKED_SUFFIXES):
        raise ConfigError(f"{shard.address}: members of a compressed tar file cannot be read by place; unpack it")
    size_bytes = shard.size_bytes() or 0
    with shard.open() as file:
        stream = io.BufferedReader(file, HEADER_BUFFER_BYTES)
        heads = _Heads(stream, size_bytes)
        for key, members in groupby(heads, key=lambda member: _key(member.name)):
            clip = _sample(stream, shard, name, key, list(members))
            if clip is not None:
                yield clip
        if heads.problem:
            yield broken({}, name, heads.problem)


def named_clip(source: str) -> Clip:
    """A clip of all that an outcome's ``source`` names: a file, or a member of a tar file.

    Raises:
        StorageError: the tar file cannot be read.
    """
    match = MEMBER.fullmatch(source)
    if match is None or Location(source).size_bytes() is not None:
        return Clip(row_id=source, source=source)
    shard, name = match.groups()
    place = _members(shard).get(name)
    problem = "" if place else f"{source}: there is no such member"
    member = Member(shard=shard, offset=place[0], size=place[1]) if place else None
    return Clip(row_id=source, source=source, member=member, problem=problem)


@lru_cache(maxsize=4)
def _members(shard: str) -> dict[str, tuple[int, int]]:
    place = Location(shard)
    with place.open() as file:
        heads = _Heads(io.BufferedReader(file, HEADER_BUFFER_BYTES), place.size_bytes() or 0)
        return {head.name: (head.offset_data, head.size) for head in heads}


class _Heads:
    """The regular files of a tar file; ends at its first damage, which is then its ``problem``."""

    def __init__(self, stream: io.BufferedReader, size_bytes: int) -> None:
        self._stream = stream
        self._size_bytes = size_bytes
        self.problem = ""

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        count = 0
        try:
            with tarfile.open(fileobj=self._stream, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined] # else every head of the file stays in memory
                    count += 1
                    if member.isreg() and not member.issparse():
                        if member.offset_data + member.size > self._size_bytes:
                            raise tarfile.ReadError("unexpected end of data")
                        yield member
                # A head that cannot be read looks like the end.
                self._stream.seek(archive.offset)
                end = self._stream.read(tarfile.BLOCKSIZE)
                if not end or end.strip(b"\0"):
                    raise tarfile.ReadError("its end mark is missing")
        except (tarfile.TarError, OSError, ValueError) as error:
            self.problem = f"the tar file is damaged after {count} members: {error}"


def _key(path: str) -> str:
    directory, slash, name = path.rpartition("/")
    return directory + slash + name.partition(".")[0]


def _sample(
    stream: io.BufferedReader, shard: Location, shard_name: str, key: str, members: list[tarfile.TarInfo]
) -> Clip | None:
    media = [member for member in members if is_media(member.name)]
    if not media:
        return None
    chosen = next((member for member in media if is_video(member.name)), media[0])
    where = f"{shard_name}#{key}"
    described = next((member for member in members if member.name.lower().endswith(".json")), None)
    values: Any = {}
    try:
        values = _values(stream, described) if described else {}
        problem = "" if isinstance(values, dict) else "its JSON must be an object"
    except (ValueError, RecursionError) as error:
        problem = f"its JSON cannot be read: {error}"
    if problem:
        return _placed(broken({}, where, problem), shard, chosen, {})
    own = {name: value for name, value in values.items() if name != "path"}
    clip = clip_of({"id": where, **own, "path": chosen.name}, where, shard)
    return _placed(clip, shard, chosen, values)


def _placed(clip: Clip, shard: Location, member: tarfile.TarInfo, values: dict[str, Any]) -> Clip:
    extra = {**clip.extra, "path": as_json(values["path"])} if "path" in values else clip.extra
    return replace(
        clip,
        source=f"{shard.address}#{member.name}",
        member=Member(shard=shard.address, offset=member.offset_data, size=member.size),
        extra=extra,
    )


def _values(stream: io.BufferedReader, member: tarfile.TarInfo) -> Any:
    if member.size > MAX_JSON_BYTES:
        raise ValueError(f"it has {member.size} bytes")
    place = stream.tell()
    try:
        stream.seek(member.offset_data)
        return json.loads(stream.read(member.size))
    except OSError as error:
        raise StorageError(f"{member.name}: cannot be read: {error}") from error
    finally:
        stream.seek(place)
