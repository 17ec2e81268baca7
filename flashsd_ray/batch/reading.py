"""Clips in, frames out, on CPU workers: what cannot be read becomes a row that says why."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from flashsd_ray.batch.job import Job
from flashsd_ray.batch.parcels import Head, ReadSegment, clips_in, head_of, packed_segments
from flashsd_ray.batch.rows import Clip
from flashsd_ray.batch.segments import SegmentFrames, read_segments

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 1000  # characters of an error that a row keeps


def read_clip(clip: Clip, job: Job) -> Iterator[ReadSegment]:
    """The clip's segments, read one after the other as they are wanted; never raises because of what a file holds."""
    config = job.config
    segments = read_segments(
        clip,
        job.segments,
        config.media,
        max_segments=config.batch.max_segments,
        num_frames=job.num_frames,
        fps=job.fps,
    )
    try:
        for read in segments:
            yield _row(clip, read)
    except Exception as error:
        log.exception("%s: cannot be read", clip.source)
        yield _row(clip, SegmentFrames(start_s=clip.start_s, end_s=clip.end_s), error)


def _row(clip: Clip, read: SegmentFrames, error: Exception | None = None) -> ReadSegment:
    error = error or read.error
    row = ReadSegment(
        clip=clip,
        index=read.index,
        start_s=read.start_s,
        end_s=read.end_s,
        visual=read.visual,
        read_s=read.read_s,
    )
    if error is None:
        return row
    message = str(error) or type(error).__name__
    return replace(row, visual=None, error=type(error).__name__, error_message=message[:LONGEST_MESSAGE])


def read_parcel(row: pa.Table, job: Job) -> Iterator[pa.Table]:
    """The parcel with its frames, in pieces of about ``batch.parcel_bytes``."""
    head = head_of(row)
    if not head.unit_id:
        yield row
        return
    pieces = in_pieces(clips_in(row), job)
    piece = next(pieces, [])
    for number in range(10**9):
        following = next(pieces, None)
        yield packed_segments(_piece(head, number, is_last=following is None), piece)
        if following is None:
            return
        piece = following


def in_pieces(clips: Sequence[Clip], job: Job) -> Iterator[list[ReadSegment]]:
    """All segments of the clips, as many together as ``batch.parcel_bytes`` allows; one at least."""
    piece: list[ReadSegment] = []
    num_bytes = 0
    for clip in clips:
        for segment in read_clip(clip, job):
            if piece and num_bytes + segment.num_bytes > job.config.batch.parcel_bytes:
                yield piece
                piece, num_bytes = [], 0
            piece.append(segment)
            num_bytes += segment.num_bytes
    if piece:
        yield piece


def _piece(head: Head, number: int, *, is_last: bool) -> Head:
    return replace(head, piece=number, is_last_piece=is_last)
