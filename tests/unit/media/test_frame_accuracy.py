"""Chosen frames are bit-exactly those of plain decoding, in whatever way they are reached."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from flashsd_ray.config import MediaConfig
from flashsd_ray.media import container, frame_reader, video
from flashsd_ray.media.sampling import Sampling
from flashsd_ray.media.source import Deadline, MediaSource, open_bytes
from flashsd_ray.types import VisualInput
from tests.media_files import WAYS, make_video, shown_numbers

NUM_FRAMES = 120

# codec, container, codec options: short groups of pictures, frames stored out of order, groups that lean on each other
KINDS = {
    "h264 mp4": ("libx264", "mp4", {"bf": "3", "g": "12"}),
    "h264 open mp4": ("libx264", "mp4", {"bf": "3", "g": "8", "x264-params": "open-gop=1"}),
    "h264 tiny groups": ("libx264", "mp4", {"bf": "8", "g": "3", "b_strategy": "0"}),
    "h264 no key frames": ("libx264", "mp4", {"g": "12", "x264-params": "intra-refresh=1"}),
    "h264 mkv": ("libx264", "matroska", {"bf": "3", "g": "12"}),
    "h264 ts": ("libx264", "mpegts", {"bf": "3", "g": "12"}),
    "h264 open ts": ("libx264", "mpegts", {"bf": "3", "g": "8", "x264-params": "open-gop=1"}),
    "h264 flv": ("libx264", "flv", {"bf": "3", "g": "12"}),
    "h264 avi": ("libx264", "avi", {"bf": "2", "g": "12"}),
    "hevc open mkv": ("libx265", "matroska", {"x265-params": "log-level=none:keyint=12:open-gop=1:bframes=4"}),
    "vp8 webm": ("libvpx", "webm", {"g": "12"}),
    "vp9 webm": ("libvpx-vp9", "webm", {"g": "12"}),
    "av1 mp4": ("libsvtav1", "mp4", {"g": "12"}),
    "mpeg4 avi": ("mpeg4", "avi", {"bf": "2", "g": "12"}),
    "mpeg2 ps": ("mpeg2video", "mpeg", {"bf": "2", "g": "12"}),
    "mpeg2 ts": ("mpeg2video", "mpegts", {"bf": "2", "g": "12"}),
    "mjpeg mov": ("mjpeg", "mov", {}),
}


@pytest.fixture(scope="module", params=KINDS)
def clip(request: pytest.FixtureRequest) -> bytes:
    """A clip of one kind."""
    codec, container, options = KINDS[request.param]
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    return make_video(codec, container, num_frames=NUM_FRAMES, codec_options=options, pixel_format=pixel_format)


def load(clip: bytes, sampling: Sampling, way: str) -> VisualInput:
    config = MediaConfig()
    source = open_bytes(clip, "clip", config, Deadline(100.0, time.monotonic))
    return video.load_video(source, config, sampling, **WAYS[way])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_frames=128, num_frames=5),
        Sampling(max_frames=128, num_frames=17),
        Sampling(max_frames=128, num_frames=128),
        Sampling(max_frames=128, num_frames=3, start_s=Fraction(2), end_s=Fraction(3)),
    ],
    ids=["five", "many", "all", "range"],
)
def test_every_way_and_plain_decoding_agree(clip: bytes, sampling: Sampling) -> None:
    loaded = {way: load(clip, sampling, way) for way in WAYS}
    seeking = loaded["sought"]
    assert {visual.digest for visual in loaded.values()} == {seeking.digest}
    with av.open(io.BytesIO(clip), "r") as opened:
        plain = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
    assert len(plain) == NUM_FRAMES
    numbers = shown_numbers(seeking.frames)
    assert len(set(numbers)) == len(numbers)
    assert all(np.array_equal(seeking.frames[row], plain[number]) for row, number in enumerate(numbers))


class CountingReader(frame_reader.FrameReader):
    """A reader that remembers how many packets were decoded."""

    num_decoded = 0

    def _decode(self, packet: Packet[VideoStream]) -> list[av.VideoFrame]:
        type(self).num_decoded += 1
        return super()._decode(packet)


@pytest.mark.parametrize("way", WAYS)
def test_groups_without_a_chosen_frame_are_not_decoded(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "FrameReader", CountingReader)
    CountingReader.num_decoded = 0
    clip = make_video(num_frames=240, codec_options={"g": "10", "bf": "0"})
    visual = load(clip, Sampling(max_frames=128, num_frames=3), way)
    assert shown_numbers(visual.frames) == [0, 119, 239]
    # Each chosen frame needs at most its group and the few packets that the decoder keeps back.
    assert CountingReader.num_decoded < 60


def test_a_container_that_cannot_be_searched_is_read_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_video(num_frames=60, codec_options={"g": "10"})
    expected = load(clip, Sampling(max_frames=128, num_frames=4), "passed over").digest

    def seek_wrongly(
        self: frame_reader.FrameReader, key_position: int, seek_pts: int | None
    ) -> Packet[VideoStream] | None:
        return None if seek_pts is not None else find(self, key_position, seek_pts)

    find = frame_reader.FrameReader._find
    monkeypatch.setattr(frame_reader.FrameReader, "_find", seek_wrongly)
    assert load(clip, Sampling(max_frames=128, num_frames=4), "sought").digest == expected


@pytest.mark.parametrize("way", WAYS)
def test_frames_are_counted_where_the_index_leads_nowhere(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_video(num_frames=60, codec_options={"g": "10"})
    expected = load(clip, Sampling(max_frames=128, num_frames=4), way).digest
    monkeypatch.setattr(frame_reader.FrameReader, "_find", lambda *_: None)
    assert load(clip, Sampling(max_frames=128, num_frames=4), way).digest == expected


def test_a_small_file_is_opened_once_and_a_large_one_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    num_opened = 0

    @contextmanager
    def counted(source: MediaSource, config: MediaConfig) -> Iterator[tuple[InputContainer, VideoStream]]:
        nonlocal num_opened
        num_opened += 1
        with container.open_video(source, config) as opened:
            yield opened

    monkeypatch.setattr(video, "open_video", counted)
    clip = make_video(num_frames=20)
    for kept_bytes, times in ((len(clip), 1), (1000, 2)):
        num_opened = 0
        source = open_bytes(clip, "clip", MediaConfig(), Deadline(100.0, time.monotonic))
        video.load_video(source, MediaConfig(), Sampling(max_frames=128, num_frames=4), kept_bytes=kept_bytes)
        assert num_opened == times
