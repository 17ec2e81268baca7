"""Where outcomes are written, unit by unit, and found again.

One file a unit and format. A unit is there when its file of the first format is: that one is written last, so that the
others are there too.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
from pyarrow import parquet

from flashsd_ray.batch.outputs.schema import as_row, as_table, outcome_of
from flashsd_ray.batch.outputs.subtitles import subtitle_files
from flashsd_ray.batch.outputs.webdataset import write_shard
from flashsd_ray.batch.rows import Outcome
from flashsd_ray.batch.storage import Location
from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import ConfigError, StorageError

ROW_FORMATS = ("parquet", "jsonl")
SIDE_FORMATS = ("vtt", "srt", "webdataset")
OUTPUT_FORMATS = (*ROW_FORMATS, *SIDE_FORMATS)
SUBTITLES = "subtitles"  # the directory of both kinds
UNIT_ID = re.compile(r"\d{8}-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Writer:
    """The output directory of one corpus; any number of processes may write, each unit one at a time."""

    directory: str  # a path or an address
    formats: tuple[str, ...] = ("parquet",)
    media: MediaConfig = MediaConfig()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        """Raises ConfigError when a format is unknown, or none of them holds rows."""
        unknown = [name for name in self.formats if name not in OUTPUT_FORMATS]
        if unknown:
            raise ConfigError(f"an output format must be one of {', '.join(OUTPUT_FORMATS)}, got {unknown[0]!r}")
        if not self._row_formats:
            raise ConfigError(f"the output needs one of {', '.join(ROW_FORMATS)}: runs are resumed from it")

    def write(self, unit_id: str, outcomes: Sequence[Outcome]) -> None:
        """The unit's files hold these outcomes; a crash at any moment leaves the unit as it was, or complete.

        Raises:
            StorageError: a file cannot be written.
            FlashSDError: a clip can be read no more, where its bytes are wanted.
        """
        for suffix in ("vtt", "srt"):
            if suffix in self.formats:
                for name, content in subtitle_files(outcomes, suffix):
                    self._place(SUBTITLES, name).write(content.encode())
        if "webdataset" in self.formats:
            with self._place("webdataset", f"{unit_id}.tar").writing() as file:
                write_shard(file, outcomes, self.media)
        for name in reversed(self._row_formats):
            with self._place(name, f"{unit_id}.{name}").writing() as file:
                _WRITERS[name](file, outcomes)

    def finished(self) -> Iterator[str]:
        """Ids of the units that are there, in no order; raises StorageError when they cannot be listed."""
        suffix = f".{self._row_formats[0]}"
        for entry in Location.at(self.directory).child(self._row_formats[0]).entries():
            unit_id = entry.name.removesuffix(suffix)
            if unit_id != entry.name and UNIT_ID.fullmatch(unit_id):
                yield unit_id

    def written_s(self, unit_id: str) -> float | None:
        """When the unit was written, in seconds since 1970; None where the storage does not say."""
        name = self._row_formats[0]
        return self._place(name, f"{unit_id}.{name}").written_s()

    def read(self, unit_id: str) -> list[Outcome]:
        """What the unit holds.

        Raises:
            StorageError: it is not there, is damaged, or was written by another version.
        """
        name = self._row_formats[0]
        place = self._place(name, f"{unit_id}.{name}")
        return [outcome_of(row, place.address) for row in _READERS[name](place)]

    def outcomes(self) -> Iterator[Outcome]:
        """All outcomes, those of one unit in memory at a time, in the order of the input; raises as ``read``."""
        for unit_id in sorted(self.finished()):
            yield from self.read(unit_id)

    @property
    def _row_formats(self) -> tuple[str, ...]:
        return tuple(name for name in ROW_FORMATS if name in self.formats)

    def _place(self, directory: str, name: str) -> Location:
        return Location.at(self.directory).child(directory).child(name)


def _write_parquet(file: IO[bytes], outcomes: Sequence[Outcome]) -> None:
    parquet.write_table(as_table(outcomes), file, compression="zstd")


def _write_json_lines(file: IO[bytes], outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        file.write(json.dumps(as_row(outcome), ensure_ascii=False, allow_nan=False).encode() + b"\n")


def _read_parquet(place: Location) -> list[Mapping[str, object]]:
    try:
        rows: list[Mapping[str, object]] = parquet.read_table(io.BytesIO(place.read())).to_pylist()
    except pa.ArrowException as error:
        raise StorageError(f"{place.address}: is damaged: {' '.join(str(error).split())}") from error
    return rows


def _read_json_lines(place: Location) -> list[Mapping[str, object]]:
    try:
        return [json.loads(line) for line in place.read().splitlines()]
    except ValueError as error:
        raise StorageError(f"{place.address}: is damaged: {error}") from error


_WRITERS: Mapping[str, Callable[[IO[bytes], Sequence[Outcome]], None]] = {
    "parquet": _write_parquet,
    "jsonl": _write_json_lines,
}
_READERS: Mapping[str, Callable[[Location], list[Mapping[str, object]]]] = {
    "parquet": _read_parquet,
    "jsonl": _read_json_lines,
}
