"""What travels between the stages: a parcel is a few clips of one unit, first as they are named, then as they were read,
then as they were answered. Each is one row of a Ray Dataset: a head in JSON, and a body.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from flashsd_ray.batch.rows import Clip, Member, Outcome
from flashsd_ray.types import VisualInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a parcel belongs."""

    unit_id: str = ""  # empty: no clips, but how planning ended
    serial: int = 0  # 0, 1, 2 ... over all parcels of a pass
    part: int = 0  # 0, 1, 2 ... in the unit
    num_parts: int = 1
    piece: int = 0  # 0, 1, 2 ... of a part whose frames are too many to travel together
    is_last_piece: bool = True
    num_clips: int = 0  # of the whole unit
    notes: Mapping[str, Any] = field(default_factory=dict)  # how planning ended; how long a lane had nothing to do


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadSegment:
    """A part of a clip whose frames were read, or could not be."""

    clip: Clip
    index: int = 0  # of the segment in the clip
    start_s: float | None = None
    end_s: float | None = None
    visual: VisualInput | None = None
    error: str = ""
    error_message: str = ""
    read_s: float = 0.0

    @property
    def num_bytes(self) -> int:
        """Memory that the frames take."""
        return 0 if self.visual is None else self.visual.frames.nbytes


def clip_of(fields: dict[str, Any]) -> Clip:
    """The clip with these fields, as JSON holds them."""
    member = fields["member"]
    return Clip(**(fields | {"prompts": tuple(fields["prompts"]), "member": Member(**member) if member else None}))


def outcomes_json(outcomes: Sequence[Outcome]) -> bytes:
    """The outcomes as bytes."""
    return json.dumps([asdict(outcome) for outcome in outcomes]).encode()


def outcomes_of(body: bytes) -> list[Outcome]:
    """The outcomes that the bytes stand for."""
    return [Outcome(**fields) for fields in json.loads(body)]


SEGMENTS = pa.schema(
    {
        "clip": pa.string(),
        "index": pa.int64(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "error": pa.string(),
        "error_message": pa.string(),
        "read_s": pa.float64(),
        "kind": pa.string(),
        "shape": pa.list_(pa.int64()),
        "timestamps_s": pa.list_(pa.float64()),
        "duration_s": pa.float64(),
        "frames": pa.large_binary(),
    }
)


def segments_table(segments: Sequence[ReadSegment]) -> pa.Table:
    """One row a segment; frames are not copied."""
    named = SEGMENTS.remove(SEGMENTS.get_field_index("frames"))
    table = pa.Table.from_pylist([_segment_row(segment) for segment in segments], schema=named)
    return table.append_column(SEGMENTS.field("frames"), _frames_column([segment.visual for segment in segments]))


def _segment_row(segment: ReadSegment) -> dict[str, Any]:
    visual = segment.visual
    row = {name: getattr(segment, name) for name in ("index", "start_s", "end_s", "error", "error_message", "read_s")}
    row["clip"] = json.dumps(asdict(segment.clip))
    if visual is not None:
        row |= {
            "kind": visual.kind,
            "shape": visual.frames.shape,
            "timestamps_s": visual.timestamps_s,
            "duration_s": visual.duration_s,
        }
    return row


def _frames_column(visuals: Sequence[VisualInput | None]) -> pa.ChunkedArray:
    """The frames of each, null where there are none; a chunk for each, so that none is copied.

    Made of buffers: pyarrow (26.0) never lets go of a memoryview that it was given as a value.
    """
    return pa.chunked_array([_frames_chunk(one) for one in visuals], type=pa.large_binary())


def _frames_chunk(visual: VisualInput | None) -> pa.Array:
    if visual is None:
        return pa.nulls(1, pa.large_binary())
    return _one_value(pa.py_buffer(np.ascontiguousarray(visual.frames).reshape(-1)))


def _one_value(content: pa.Buffer) -> pa.Array:
    offsets = pa.py_buffer(np.array([0, content.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, content])


def segments_of(table: pa.Table) -> list[ReadSegment]:
    """The segments in the table; their frames are views of it."""
    rows = table.drop_columns("frames").to_pylist()
    buffers = [scalar.as_buffer() if scalar.is_valid else None for scalar in table.column("frames")]
    return [_segment_of(row, buffer) for row, buffer in zip(rows, buffers, strict=True)]


def _segment_of(row: dict[str, Any], buffer: pa.Buffer | None) -> ReadSegment:
    clip = clip_of(json.loads(row.pop("clip")))
    kind, shape = row.pop("kind"), row.pop("shape")
    timestamps_s, duration_s = row.pop("timestamps_s"), row.pop("duration_s")
    segment = ReadSegment(clip=clip, **row)
    if buffer is None:
        return segment
    visual = VisualInput(
        kind=kind,
        frames=np.frombuffer(buffer, np.uint8).reshape(shape),
        timestamps_s=np.array(timestamps_s),
        source=clip.source,
        duration_s=duration_s,
    )
    return replace(segment, visual=visual)


def packed(head: Head, body: bytes | pa.Buffer = b"") -> pa.Table:
    """The parcel as one row of a dataset; the body is not copied."""
    return pa.table({"head": [json.dumps(asdict(head))], "body": _one_value(pa.py_buffer(body))})


def with_problem(head: Head, what: str, error: Exception) -> pa.Table:
    """A parcel that says why the run cannot go on: the fault is in no row."""
    return packed(replace(head, notes={"problem": f"{what}: {type(error).__name__}: {error}"}))


def packed_clips(head: Head, clips: Sequence[Clip]) -> pa.Table:
    """A parcel of clips that wait to be read."""
    return packed(head, json.dumps([asdict(clip) for clip in clips]).encode())


def packed_segments(head: Head, segments: Sequence[ReadSegment]) -> pa.Table:
    """A parcel of segments that wait to be answered."""
    table = segments_table(segments)
    counter = pa.MockOutputStream()
    _write(table, counter)
    # A sink that grows as it is written copies all frames several times.
    body = pa.allocate_buffer(counter.size())
    _write(table, pa.FixedSizeBufferWriter(body))
    return packed(head, body)


def _write(table: pa.Table, sink: Any) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def head_of(row: pa.Table) -> Head:
    """The head of a parcel."""
    return Head(**json.loads(row.column("head")[0].as_py()))


def body_of(row: pa.Table) -> pa.Buffer:
    """The body of a parcel: a view, not a copy."""
    return row.column("body")[0].as_buffer()


def clips_in(row: pa.Table) -> list[Clip]:
    """The clips of a parcel that wait to be read."""
    return [clip_of(fields) for fields in json.loads(bytes(body_of(row)))]


def segments_in(row: pa.Table) -> list[ReadSegment]:
    """The segments of a parcel that wait to be answered; their frames are views."""
    return segments_of(pa.ipc.open_stream(body_of(row)).read_all())


def outcomes_in(row: pa.Table) -> list[Outcome]:
    """The outcomes of a parcel that was answered."""
    return outcomes_of(bytes(body_of(row)))
