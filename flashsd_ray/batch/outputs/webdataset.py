"""WebDataset shards: every captioned clip of a unit as it was found, with its captions beside it.

A sample has the clip's own bytes under its own ending, ``.txt`` with its first caption, and ``.json`` with its id and all
of its outcomes. Clips without any caption are left out; so are directories of frames.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from flashsd_ray.batch.inputs.shards import named_clip
from flashsd_ray.batch.inputs.sources import Source, read_source
from flashsd_ray.batch.outputs.names import file_name
from flashsd_ray.batch.outputs.schema import as_row
from flashsd_ray.batch.rows import Outcome
from flashsd_ray.config import MediaConfig


def write_shard(file: IO[bytes], outcomes: Sequence[Outcome], config: MediaConfig) -> None:
    """The tar file of the unit is written.

    Raises:
        FlashSDError: a clip that had been read can be read no more.
    """
    captioned: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if not outcome.error:
            captioned.setdefault(outcome.row_id, []).append(outcome)
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for of_clip in captioned.values():
            _write_sample(archive, of_clip, config)


def _write_sample(archive: tarfile.TarFile, outcomes: Sequence[Outcome], config: MediaConfig) -> None:
    first = outcomes[0]
    # What stands before the first dot is the sample's key.
    key = file_name(first.row_id).replace(".", "_")
    described = {"id": as_row(first)["row_id"], "outcomes": [as_row(outcome) for outcome in outcomes]}
    with read_source(named_clip(first.source), config) as source:
        for content, size_bytes in _content(source):
            _add(archive, f"{key}.{_ending(first.source)}", content, size_bytes)
    for ending, text in (("txt", first.caption), ("json", json.dumps(described, ensure_ascii=False, indent=1))):
        data = text.encode("utf-8", "backslashreplace")
        _add(archive, f"{key}.{ending}", io.BytesIO(data), len(data))


def _content(source: Source) -> Iterator[tuple[IO[bytes], int]]:
    if isinstance(source.content, bytes):
        yield io.BytesIO(source.content), len(source.content)
    elif Path(source.content).is_file():
        with Path(source.content).open("rb") as file:
            yield file, Path(source.content).stat().st_size


def _ending(source: str) -> str:
    ending = source.rpartition("/")[2].rpartition(".")[2].lower()
    return ending if ending.isalnum() and ending not in ("txt", "json") else "bin"


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], size_bytes: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size_bytes
    archive.addfile(member, content)
