"""What a user names as the input: directories, patterns, manifests, shards and single files, read row by row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import Literal, get_args

from flashsd_ray.batch.inputs.manifests import READERS, format_of
from flashsd_ray.batch.inputs.media_names import is_media
from flashsd_ray.batch.inputs.row_ids import UniqueIds, derived_id
from flashsd_ray.batch.inputs.shards import is_shard, read_shard
from flashsd_ray.batch.inputs.walking import Pattern, is_pattern, walk
from flashsd_ray.batch.rows import Clip, Unit
from flashsd_ray.batch.storage import Location
from flashsd_ray.errors import ConfigError

InputFormat = Literal["auto", "media", "jsonl", "csv", "parquet", "webdataset"]
FORMATS: tuple[str, ...] = get_args(InputFormat)


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How the sources are to be read."""

    format: InputFormat = "auto"  # auto: by the ending of each name


@dataclass(frozen=True, slots=True)
class _Found:
    """A file of the input."""

    place: Location
    path: str  # within the input, for ids


@dataclass(frozen=True, slots=True)
class Corpus:
    """The rows of an input, which are read again from its sources whenever they are asked for."""

    sources: tuple[str, ...]
    options: InputOptions

    def units(self, rows_per_unit: int) -> Iterator[Unit]:
        """Every row, in units of so many and one of what is left; the same units on every run over the same sources.

        Raises:
            StorageError: a source cannot be listed or read.
            ConfigError: a manifest has no paths, a tar file is compressed, or the package of a storage is missing.
        """
        rows, index = self.clips(), 0
        while clips := tuple(islice(rows, rows_per_unit)):
            yield Unit(index=index, clips=clips)
            index += 1

    def clips(self) -> Iterator[Clip]:
        """Every row with an id of its own; raises as ``units``."""
        ids = UniqueIds()
        for found in self._files():
            for clip in self._rows(found):
                row_id = ids.unique(clip.row_id)
                yield clip if row_id == clip.row_id else replace(clip, row_id=row_id)

    def count(self) -> int:
        """How many rows there are; reads all of them, and raises as ``units``."""
        return sum(1 for _ in self.clips())

    def describe(self) -> str:
        """The sources, for people."""
        shown = ", ".join(self.sources[:3])
        return shown if len(self.sources) <= 3 else f"{shown} and {len(self.sources) - 3} more"

    def fingerprint(self) -> str:
        """Equal for inputs that were named alike; of what lies behind the names it says nothing."""
        named = json.dumps([[Location.at(source).address for source in self.sources], self.options.format])
        return hashlib.blake2b(named.encode(), digest_size=8).hexdigest()

    def _files(self) -> Iterator[_Found]:
        roots = [_root(source) for source in self.sources]
        common = _common(roots)
        for source, root in zip(self.sources, roots, strict=True):
            prefix = root.address.removeprefix(common).lstrip("/")
            for path in self._paths(source, root):
                yield _Found(root.child(path), f"{prefix}/{path}" if prefix else path)

    def _paths(self, source: str, root: Location) -> Iterator[str]:
        if _is_expanded(source):
            yield from Pattern(source).paths()
        elif Location.at(source).is_directory():
            wanted = is_shard if self.options.format == "webdataset" else _is_content
            yield from (path for path in walk(root) if wanted(path))
        else:
            yield Location.at(source).name

    def _rows(self, found: _Found) -> Iterator[Clip]:
        form = self.options.format
        if form == "webdataset" or (form == "auto" and is_shard(found.path)):
            return read_shard(found.place, found.path)
        manifest = (format_of(found.path) if form == "auto" else form) or ""
        if manifest in READERS:
            return READERS[manifest](found.place)
        return iter([Clip(row_id=derived_id(found.path, None, None, ()), source=found.place.address)])


def open_input(sources: Sequence[str], options: InputOptions | None = None) -> Corpus:
    """The input that the sources name; only a look at each says whether it is there.

    Args:
        sources: directories (with everything below), patterns with ``*`` and ``**``, manifests, tar files, videos and
            pictures; paths or addresses.

    Raises:
        ConfigError: nothing is named, a source is missing, or the package of a storage is not installed.
        StorageError: a storage cannot be reached.
    """
    if not sources:
        raise ConfigError("the input names nothing; give a directory, a pattern, a manifest or a tar file")
    for source in sources:
        place = Location.at(source)
        if not _is_expanded(source) and place.size_bytes() is None and not place.is_directory():
            raise ConfigError(f"{source}: does not exist")
    options = options or InputOptions()
    if options.format not in FORMATS:
        raise ConfigError(f"an input's format must be one of {', '.join(FORMATS)}, got {options.format!r}")
    return Corpus(tuple(Location.at(source).address for source in sources), options)


def _is_content(path: str) -> bool:
    return is_media(path) or is_shard(path)


def _is_expanded(source: str) -> bool:
    if not is_pattern(source):
        return False
    place = Location.at(source)  # a file may have such a name
    return place.size_bytes() is None and not place.is_directory()


def _root(source: str) -> Location:
    """The directory that the paths of the source's files are relative to."""
    if _is_expanded(source):
        return Pattern(source).root
    place = Location.at(source)
    return place if place.is_directory() else place.parent


def _common(roots: Sequence[Location]) -> str:
    """The address of the lowest directory that holds all of them; empty where there is none."""
    steps = zip(*(root.address.rstrip("/").split("/") for root in roots), strict=False)
    return "/".join(same[0] for same in takewhile(lambda same: len(set(same)) == 1, steps))
