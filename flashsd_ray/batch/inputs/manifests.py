"""Manifests, one row a clip: JSON lines, CSV and Parquet, each read once from its beginning.

Columns: ``path`` (relative to the manifest, or absolute, or an address), ``id``, ``start`` and ``end`` in seconds,
``prompt`` or ``prompts``; all others are carried through. A row that cannot be understood is a clip with a problem.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flashsd_ray.batch.inputs.fields import broken, clip_of
from flashsd_ray.batch.rows import Clip
from flashsd_ray.batch.storage import Location
from flashsd_ray.errors import ConfigError, StorageError

MAX_ROW_BYTES = 2**20  # a file without line ends is not a list of rows
PARQUET_ROWS = 1024  # read at a time


def read_json_lines(manifest: Location) -> Iterator[Clip]:
    """A clip for every line that is not blank.

    Raises:
        StorageError: the file cannot be read.
    """
    directory = manifest.parent
    with manifest.open_lines() as file:
        for number, line in enumerate(_lines(file, manifest), 1):
            where = f"{manifest.name}:{number}"
            if line is None:
                yield broken({}, where, f"is longer than {MAX_ROW_BYTES} bytes")
            elif line.strip():
                yield _json_clip(line, where, directory)


def read_csv(manifest: Location) -> Iterator[Clip]:
    """A clip for every row below the header.

    Raises:
        StorageError: the file cannot be read.
        ConfigError: its header names no path.
    """
    with manifest.open_lines() as file:
        # What is not UTF-8 becomes the problem of its row, not of the file.
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        rows = csv.reader(text)
        header = [name.strip() for name in next(_records(rows, manifest), ([], ""))[0]]
        _check_columns(header, manifest)
        for cells, problem in _records(rows, manifest):
            where = f"{manifest.name}:{rows.line_num}"
            if problem:
                yield broken({}, where, problem)
            elif len(cells) > len(header):
                yield broken({}, where, f"has {len(cells)} cells, the header has {len(header)}")
            elif cells:
                yield clip_of(dict(zip(header, cells, strict=False)), where, manifest.parent)


def read_parquet(manifest: Location) -> Iterator[Clip]:
    """A clip for every row.

    Raises:
        StorageError: the file cannot be read, or is damaged.
        ConfigError: it has no column ``path``.
    """
    import pyarrow
    from pyarrow import parquet

    with manifest.open() as file:
        try:
            table = parquet.ParquetFile(file)
            _check_columns(table.schema_arrow.names, manifest)
            number = 0
            for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                for values in batch.to_pylist():
                    yield clip_of(values, f"{manifest.name}:{number}", manifest.parent)
                    number += 1
        except (OSError, pyarrow.ArrowException) as error:
            raise StorageError(f"{manifest.address}: cannot be read as Parquet: {error}") from error


READERS: Mapping[str, Callable[[Location], Iterator[Clip]]] = {
    "jsonl": read_json_lines,
    "csv": read_csv,
    "parquet": read_parquet,
}
FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
PACKED = (".gz", ".bz2", ".zst", ".lz4")  # after .jsonl or .csv


def format_of(name: str) -> str | None:
    """The format of a manifest with this name; None where it is none."""
    lower = name.lower()
    for packing in PACKED:
        lower = lower.removesuffix(packing)
    return next((form for suffix, form in FORMATS.items() if lower.endswith(suffix)), None)


def _check_columns(names: list[str], manifest: Location) -> None:
    if "path" not in names:
        raise ConfigError(f"{manifest.address}: has no column 'path'; its columns: {', '.join(names) or 'none'}")


def _json_clip(line: bytes, where: str, directory: Location) -> Clip:
    try:
        values: Any = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return broken({}, where, f"is no line of JSON: {error}")
    if not isinstance(values, dict):
        return broken({}, where, f"must be an object with a path, is {type(values).__name__}")
    return clip_of(values, where, directory)


def _lines(file: io.BufferedReader, manifest: Location) -> Iterator[bytes | None]:
    """Every line; None for one that is too long."""
    while True:
        try:
            line = file.readline(MAX_ROW_BYTES + 1)
            is_long = len(line) > MAX_ROW_BYTES
            while is_long and not line.endswith(b"\n"):
                line = file.readline(MAX_ROW_BYTES)
                if not line:
                    break
        except OSError as error:
            raise StorageError(f"{manifest.address}: cannot be read: {error}") from error
        if not line and not is_long:
            return
        yield None if is_long else line


def _records(rows: Iterator[list[str]], manifest: Location) -> Iterator[tuple[list[str], str]]:
    """Cells of every record, or what is wrong with it."""
    while True:
        try:
            yield next(rows), ""
        except StopIteration:
            return
        except csv.Error as error:
            yield [], f"is no row of CSV: {error}"
        except OSError as error:
            raise StorageError(f"{manifest.address}: cannot be read: {error}") from error
