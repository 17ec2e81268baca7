"""What one row of a manifest says: its columns checked, its other columns kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, time
from typing import Any

from flashsd_ray.batch.inputs.row_ids import derived_id
from flashsd_ray.batch.rows import JSON, Clip
from flashsd_ray.batch.storage import Location
from flashsd_ray.errors import RowError

COLUMNS = ("path", "id", "start", "end", "prompt", "prompts")


def clip_of(
    values: Mapping[str, Any],
    where: str,  # the row, for messages and, where it cannot be understood, as its id
    directory: Location,  # that paths are relative to
) -> Clip:
    """The clip that the row describes, or one that says what is wrong with the row."""
    try:
        return _clip(values, directory)
    except RowError as error:
        return broken(values, where, str(error))


def broken(values: Mapping[str, Any], where: str, problem: str) -> Clip:
    """A clip that stands for a row that cannot be used; it keeps the row's id and path where they are texts."""
    path, row_id = values.get("path"), values.get("id")
    return Clip(
        row_id=row_id if isinstance(row_id, str) and row_id else where,
        source=path if isinstance(path, str) else "",
        problem=f"{where}: {problem}",
    )


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that hold anything."""
    return {name: value for name, value in values.items() if not _is_empty(value)}


def prompts_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The prompts of the row; none where it leaves them to the run.

    Raises:
        RowError: they are no texts.
    """
    if "prompt" in values and "prompts" in values:
        raise RowError("give prompt or prompts, not both")
    if "prompt" in values:
        return (_text(values["prompt"], "prompt"),)
    several = values.get("prompts", [])
    if isinstance(several, str):  # a table of texts only, such as CSV
        try:
            several = json.loads(several)
        except ValueError:
            raise RowError("prompts must be a list of texts, in JSON where the column is text") from None
    if not isinstance(several, list):
        raise RowError("prompts must be a list of texts")
    return tuple(_text(prompt, "every one of prompts") for prompt in several)


def span_of(values: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Start and end of the row in seconds.

    Raises:
        RowError: one is no time, or the end is not after the start.
    """
    start_s, end_s = (_seconds(values.get(name), name) for name in ("start", "end"))
    if end_s is not None and end_s <= (start_s or 0.0):
        raise RowError(f"end ({end_s:g}) must lie after start ({start_s or 0.0:g})")
    return start_s, end_s


def extra_of(values: Mapping[str, Any]) -> dict[str, JSON]:
    """The columns that mean nothing here, as values that JSON has."""
    return {str(name): as_json(value) for name, value in values.items() if name not in COLUMNS}


def id_of(values: Mapping[str, Any]) -> str | None:
    """The id that the row brings, as text; None where it brings none.

    Raises:
        RowError: it is neither text nor a whole number.
    """
    row_id = values.get("id")
    if row_id is None:
        return None
    if isinstance(row_id, bool) or not isinstance(row_id, (str, int)):
        raise RowError(f"id must be text or a whole number, got {row_id!r}")
    return _text(str(row_id), "id")


def as_json(value: Any) -> JSON:
    """The value as JSON can hold it: times in ISO form, what JSON has no form for as text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (date, time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _clip(values: Mapping[str, Any], directory: Location) -> Clip:
    values = given(values)
    path = _text(values.get("path", ""), "path")
    prompts, (start_s, end_s) = prompts_of(values), span_of(values)
    return Clip(
        row_id=id_of(values) or derived_id(path, start_s, end_s, prompts),
        source=directory.child(path).address,
        start_s=start_s,
        end_s=end_s,
        prompts=prompts,
        extra=extra_of(values),
    )


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"{name} must be a text that is not empty")
    if "\0" in value:
        raise RowError(f"{name} must not hold a zero character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"{name} is not UTF-8") from None
    return value


def _seconds(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise RowError(f"{name} must be seconds, 0 or more, got {value!r}")
    return seconds
