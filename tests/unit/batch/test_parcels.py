"""What travels between stages arrives as it was sent; frames are views and come in pieces of bounded size."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np

from flashsd_ray.batch.job import Job
from flashsd_ray.batch.parcels import (
    Head,
    ReadSegment,
    clips_in,
    head_of,
    outcomes_in,
    outcomes_json,
    packed,
    packed_clips,
    packed_segments,
    segments_in,
)
from flashsd_ray.batch.reading import read_parcel
from flashsd_ray.batch.rows import Clip, Member, Outcome
from flashsd_ray.config import BatchConfig, Config
from flashsd_ray.types import VisualInput

CLIP = Clip(
    row_id="a",
    source="s.tar#a.mp4",
    start_s=1.5,
    prompts=("one", "zwei \udc80"),
    extra={"tags": ["x", {"y": None}]},
    member=Member(shard="s.tar", offset=512, size=99),
)
HEAD = Head(unit_id="00000000-abcdef01", serial=3, part=1, num_parts=2, num_clips=5)


def test_clips_arrive_as_they_were():
    row = packed_clips(HEAD, [CLIP, replace(CLIP, member=None, prompts=())])
    assert head_of(row) == HEAD
    assert clips_in(row) == [CLIP, replace(CLIP, member=None, prompts=())]


def test_frames_arrive_as_they_were_without_a_copy():
    frames = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    visual = VisualInput(kind="video", frames=frames[:, ::-1], timestamps_s=np.array([0.0, 0.1]), duration_s=0.2)
    failed = ReadSegment(clip=CLIP, error="MediaError", error_message="no")
    row = packed_segments(HEAD, [ReadSegment(clip=CLIP, index=2, start_s=0.5, visual=visual, read_s=0.25), failed])
    good, bad = segments_in(row)
    assert good.visual is not None
    assert good.visual.digest == visual.digest
    assert (good.visual.duration_s, good.clip, good.index, good.start_s) == (0.2, CLIP, 2, 0.5)
    assert not good.visual.frames.flags.owndata
    assert (bad.visual, bad.error, bad.error_message) == (None, "MediaError", "no")


def test_nobody_holds_frames_that_were_packed():
    frames = np.zeros((2, 3, 4, 3), np.uint8)
    alive = weakref.ref(frames)
    packed_segments(
        HEAD, [ReadSegment(clip=CLIP, visual=VisualInput(kind="video", frames=frames, timestamps_s=np.zeros(2)))]
    )
    del frames
    gc.collect()
    assert alive() is None


def test_outcomes_arrive_as_they_were():
    outcomes = [Outcome(row_id="a", caption="é", extra={"k": [1, None]}), Outcome(row_id="b", error="MediaError")]
    assert outcomes_in(packed(HEAD, outcomes_json(outcomes))) == outcomes


def test_a_parcel_with_many_frames_comes_in_pieces_of_which_the_last_is_marked(clips: list[Path]):
    job = Job(config=Config(batch=BatchConfig(parcel_bytes=1)), num_frames=2)
    asked = [Clip(row_id=path.name, source=str(path)) for path in clips[:3]]
    rows = list(read_parcel(packed_clips(HEAD, asked), job))
    heads = [head_of(row) for row in rows]
    assert [(head.piece, head.is_last_piece) for head in heads] == [(0, False), (1, False), (2, True)]
    assert [segment.clip for row in rows for segment in segments_in(row)] == asked


def test_a_file_that_cannot_be_read_is_a_segment_that_says_why(tmp_path: Path, clip: Path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    asked = [Clip(row_id="bad", source=str(tmp_path / "bad.mp4")), Clip(row_id="good", source=str(clip))]
    (row,) = read_parcel(packed_clips(HEAD, asked), Job(num_frames=2))
    bad, good = segments_in(row)
    assert (bad.error, bad.visual) == ("MediaError", None)
    assert "bad.mp4" in bad.error_message
    assert good.visual is not None


def test_how_planning_ended_goes_through_unchanged():
    row = packed(Head(notes={"num_units": 3}))
    assert list(read_parcel(row, Job())) == [row]
