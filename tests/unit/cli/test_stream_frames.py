"""A video as a camera gives it: every frame once, in order, at its time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from flashsd_ray.cli.streaming_frames import Pace, TimedFrame, begun, frames_of, in_a_thread
from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError
from tests.media_files import make_audio, make_video, shown_numbers
from tests.unit.media.test_truncation import damaged_group

CONFIG = MediaConfig()


def written(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "clip"
    path.write_bytes(content)
    return str(path)


def numbers_and_times(path: str, fps: float | None = None) -> tuple[list[int], list[float]]:
    frames = list(frames_of(path, CONFIG, fps))
    return shown_numbers(np.stack([frame.pixels for frame in frames])), [frame.time_s for frame in frames]


@pytest.mark.parametrize(
    ("codec", "container"),
    [("libx264", "mp4"), ("libvpx-vp9", "webm"), ("libx264", "mpegts"), ("libx264", "matroska"), ("mjpeg", "avi")],
)
def test_every_frame_comes_at_its_time(codec: str, container: str, tmp_path: Path) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = written(tmp_path, make_video(codec, container, num_frames=40, fps=20, pixel_format=pixel_format))
    numbers, times_s = numbers_and_times(path)
    assert numbers == list(range(40))
    assert times_s == pytest.approx([index / 20 for index in range(40)], abs=1e-3)


def test_frames_of_uneven_length(tmp_path: Path) -> None:
    ticks = [0, 1, 5, 6, 10]
    path = written(tmp_path, make_video(num_frames=5, ticks=ticks, ticks_per_second=10))
    assert numbers_and_times(path) == ([0, 1, 2, 3, 4], pytest.approx([0.0, 0.1, 0.5, 0.6, 1.0]))
    assert numbers_and_times(path, fps=2)[0] == [0, 2, 4]


@pytest.mark.parametrize(
    ("fps", "expected"), [(10, [0, 3, 6, 9]), (30, list(range(12))), (100, list(range(12))), (1, [0])]
)
def test_fewer_frames_a_second(fps: float, expected: list[int], tmp_path: Path) -> None:
    path = written(tmp_path, make_video("libx264", "matroska", num_frames=12, fps=30))
    assert numbers_and_times(path, fps=fps)[0] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (make_audio(), "no video stream"),
        (b"hello", "is text"),
        (make_video()[:1000], "is truncated"),
    ],
)
def test_what_is_no_video(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=message):
        begun(frames_of(written(tmp_path, content), CONFIG))


def test_damage_ends_the_video_where_it_is(tmp_path: Path) -> None:
    frames = frames_of(written(tmp_path, damaged_group(32, 33)), CONFIG)
    before = [next(frames).pixels for _ in range(32)]
    assert shown_numbers(np.stack(before)) == list(range(32))
    with pytest.raises(MediaError, match=r"clip: .*damaged"):
        next(frames)


def test_limits_hold(tmp_path: Path) -> None:
    path = written(tmp_path, make_video())
    with pytest.raises(MediaError, match=r"media.max_pixels"):
        next(frames_of(path, MediaConfig(max_pixels=100)))
    with pytest.raises(MediaLimitError, match=r"media.max_duration_s"):
        next(frames_of(path, MediaConfig(max_duration_s=0.1)))


class TestPace:
    """Frames are due at their time of the video, divided by the speed, counted from the first one."""

    @pytest.mark.parametrize(("speed", "expected"), [(1.0, [0.5, 1.0]), (2.0, [0.25, 0.5]), (None, [])])
    async def test_waits(self, speed: float | None, expected: list[float]) -> None:
        waits_s: list[float] = []

        async def sleep(wait_s: float) -> None:
            waits_s.append(wait_s)

        pace = Pace(speed, clock=lambda: 100.0, sleep=sleep)
        for time_s in (0.0, 0.5, 1.0):
            await pace.wait(time_s)
        assert waits_s == pytest.approx(expected)

    async def test_a_late_frame_is_not_held_back_and_later_ones_catch_up(self) -> None:
        now_s, waits_s = 0.0, []

        async def sleep(wait_s: float) -> None:
            waits_s.append(wait_s)

        pace = Pace(1.0, clock=lambda: now_s, sleep=sleep)
        await pace.wait(0.0)
        now_s = 1.5
        await pace.wait(1.0)
        await pace.wait(2.0)
        assert waits_s == pytest.approx([0.5])


def endless(closed: threading.Event) -> Generator[TimedFrame, None, None]:
    try:
        while True:
            yield TimedFrame(0.0, np.zeros((1, 1, 3), np.uint8))
    finally:
        closed.set()


async def test_leaving_early_closes_the_file() -> None:
    closed = threading.Event()
    source = begun(endless(closed))  # referred to, so that it is not closed by going out of use
    frames = in_a_thread(source)
    await frames.__anext__()
    await frames.aclose()
    assert await asyncio.to_thread(closed.wait, 30)


async def test_leaving_while_a_frame_is_decoded_closes_the_file_after_it() -> None:
    closed, is_decoding, may_go_on = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Generator[TimedFrame, None, None]:
        try:
            is_decoding.set()
            assert may_go_on.wait(30)
            yield TimedFrame(0.0, np.zeros((1, 1, 3), np.uint8))
        finally:
            closed.set()

    source = slow()
    frames = in_a_thread(source)
    reading = asyncio.ensure_future(frames.__anext__())
    await asyncio.to_thread(is_decoding.wait, 30)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not closed.is_set()
    may_go_on.set()
    assert await asyncio.to_thread(closed.wait, 30)
