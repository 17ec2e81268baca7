"""The columns of the output: their types in Parquet, their meaning, and the way between rows of a file and outcomes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from flashsd_ray.batch.rows import SCHEMA_VERSION, Outcome
from flashsd_ray.errors import StorageError

TEXT, COUNT, NUMBER, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()

COLUMNS: Mapping[str, tuple[pa.DataType, str]] = {
    "row_id": (TEXT, "of the input row"),
    "segment": (COUNT, "0, 1, 2 ... in the clip"),
    "prompt_index": (COUNT, "0, 1, 2 ... in the prompts of the clip"),
    "source": (TEXT, "path or address of the clip; `shard.tar#member` within a tar file"),
    "start_s": (NUMBER, "of the segment, in seconds from the start of the source; null: a picture, or not known"),
    "end_s": (NUMBER, "of the segment"),
    "prompt": (TEXT, "what was asked"),
    "caption": (TEXT, "the answer; empty where there is an error"),
    "finish_reason": (TEXT, "why the answer ended: `stop`, `length`; `error` where there is an error"),
    "num_prompt_tokens": (COUNT, "of the prompt, visual tokens included"),
    "num_tokens": (COUNT, "of the caption"),
    "tau": (NUMBER, "tokens that one verification committed; 0: nothing was verified"),
    "read_s": (NUMBER, "seconds for fetching the clip and for reading its frames"),
    "encode_s": (NUMBER, "seconds for the vision tower and the projector"),
    "decode_s": (NUMBER, "seconds for prefill and decoding, this row's share of its batch"),
    "content_key": (TEXT, "equal for equal frames, prompt and sampling parameters"),
    "is_copy": (FLAG, "whether the caption is that of another row with the same `content_key`"),
    "model": (TEXT, "name of the target"),
    "model_fingerprint": (TEXT, "hash of the target's checkpoint"),
    "drafter": (TEXT, "name of the drafter"),
    "drafter_fingerprint": (TEXT, "hash of the drafter's checkpoint"),
    "error": (TEXT, "kind of the error; empty: there is a caption"),
    "error_message": (TEXT, "the error in words"),
    "extra": (TEXT, "the input row's other columns; JSON text in Parquet, an object in JSON lines"),
    "schema_version": (
        COUNT,
        f"{SCHEMA_VERSION}; a column that changes its meaning or goes raises it, a new one does not",
    ),
}
VERSION_KEY = b"flashsd.schema_version"
ARROW = pa.schema(
    [pa.field(name, kind) for name, (kind, _) in COLUMNS.items()], metadata={VERSION_KEY: str(SCHEMA_VERSION)}
)
DEFAULTS = asdict(Outcome(row_id=""))  # of columns that a file does not have


def as_row(outcome: Outcome) -> dict[str, Any]:
    """The outcome as values for JSON; what cannot be written as UTF-8 is escaped."""
    return {name: _clean(value) for name, value in asdict(outcome).items()}


def as_table(outcomes: Sequence[Outcome]) -> pa.Table:
    """The outcomes as a table of the schema."""
    rows = [as_row(outcome) for outcome in outcomes]
    for row in rows:
        row["extra"] = json.dumps(row["extra"], ensure_ascii=False)
    return pa.Table.from_pylist(rows, schema=ARROW)


def outcome_of(
    row: Mapping[str, Any],
    where: str,  # the file, for messages
) -> Outcome:
    """The outcome that a row of a file stands for; columns that are not known here are left out.

    Raises:
        StorageError: the row has another version, or is no outcome.
    """
    version = row.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StorageError(f"{where}: has schema version {version}; this program reads {SCHEMA_VERSION}")
    values = {**DEFAULTS, **{name: value for name, value in row.items() if name in COLUMNS}}
    if isinstance(values["extra"], str):
        values["extra"] = json.loads(values["extra"])
    if not values["row_id"]:
        raise StorageError(f"{where}: a row has no row_id")
    return Outcome(**values)


def schema_table() -> str:
    """The columns as a table in Markdown."""
    names = {TEXT: "string", COUNT: "int64", NUMBER: "double", FLAG: "bool"}
    lines = [f"| `{name}` | {names[kind]} | {meaning} |" for name, (kind, meaning) in COLUMNS.items()]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *lines]) + "\n"


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_clean(str(name)): _clean(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(inner) for inner in value]
    return value
