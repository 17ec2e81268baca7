"""Every limit of the config stops a video before it costs much, and its message names the limit."""

from __future__ import annotations

from fractions import Fraction

import pytest

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError
from flashsd_ray.media import load_visual_bytes, load_visuals
from flashsd_ray.media.source import Clock
from tests.media_files import make_video, with_many_tracks


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_bytes": 100}, r"has \d+ bytes; media.max_bytes allows 100"),
        ({"max_duration_s": 1.5}, r"lasts 2 s; media.max_duration_s allows 1.5"),
        ({"max_pixels": 80 * 48 - 1}, r"has 80x48 pixels; media.max_pixels allows 3839"),
        ({"max_decoded_bytes": 80 * 48 * 3 * 7}, r"8 frames of 80x48 pixels need more than media.max_decoded_bytes"),
        ({"max_source_frames": 59}, r"has more frames than media.max_source_frames allows"),
    ],
)
@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_limits_of_a_video(container: str, limits: dict[str, float], message: str) -> None:
    data = make_video(container=container, num_frames=60)
    with pytest.raises(MediaLimitError, match=f"^clip: {message}"):
        load_visual_bytes(data, "clip", MediaConfig(**limits))  # type: ignore[arg-type]


def test_frames_of_a_stream_without_times_are_counted() -> None:
    data = make_video(container="h264", num_frames=60)
    with pytest.raises(MediaLimitError, match=r"media.max_source_frames"):
        load_visual_bytes(data, "clip", MediaConfig(max_source_frames=59))


@pytest.mark.parametrize("container", ["webm", "mp4", "ivf"])
def test_a_picture_that_ffmpeg_must_decode_to_learn_its_size_is_stopped(container: str) -> None:
    data = make_video("libvpx-vp9", container, num_frames=2, size=(2048, 1024))
    with pytest.raises(MediaError, match=r"^clip: its pictures are damaged, or larger than media.max_pixels \(1000\)$"):
        load_visual_bytes(data, "clip", MediaConfig(max_pixels=1000))


def test_pixels_that_are_not_square_count_as_they_are_shown() -> None:
    data = make_video(num_frames=2, pixel_aspect=Fraction(2))
    with pytest.raises(MediaLimitError, match=r"has 160x48 pixels; media.max_pixels allows 4000"):
        load_visual_bytes(data, "clip", MediaConfig(max_pixels=4000))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((160, 96), r"^clip: has 160x96 pixels; media.max_pixels allows 3840$"),
        ((2048, 1024), r"^clip: is damaged after \d+ frames"),
    ],
    ids=["a little", "much"],
)
def test_a_size_that_grows_within_the_stream_is_stopped(size: tuple[int, int], message: str) -> None:
    small = make_video("mpeg2video", "mpegts", num_frames=10)
    large = make_video("mpeg2video", "mpegts", size=size, num_frames=10, ticks=range(11, 21))
    with pytest.raises(MediaError, match=message):
        load_visual_bytes(small + large, "clip", MediaConfig(max_pixels=80 * 48), num_frames=20)


@pytest.mark.parametrize("num_tracks", [65, 5000])
def test_streams(num_tracks: int) -> None:
    data = with_many_tracks(make_video(), num_tracks)
    with pytest.raises(
        MediaLimitError, match=r"^clip: (has more than 64 streams|needs more memory, or has more streams)"
    ):
        load_visual_bytes(data, "clip", MediaConfig())


def test_as_many_streams_as_allowed_are_read() -> None:
    data = with_many_tracks(make_video(), 4)
    assert load_visual_bytes(data, "clip", MediaConfig(max_streams=4)).kind == "video"
    with pytest.raises(MediaLimitError, match=r"has more than 3 streams \(media.max_streams\)"):
        load_visual_bytes(data, "clip", MediaConfig(max_streams=3))


@pytest.mark.parametrize("limit_s", [1, 5, 20, 60, 100])
@pytest.mark.parametrize("container", ["mp4", "h264"])
def test_the_deadline_holds_wherever_it_falls(container: str, limit_s: float, impatient_clock: Clock) -> None:
    data = make_video(container=container, num_frames=200)
    with pytest.raises(MediaLimitError, match=rf"^clip: takes longer than media.max_decode_s \({limit_s} s\)$"):
        load_visual_bytes(data, "clip", MediaConfig(max_decode_s=limit_s), clock=impatient_clock)


def test_the_number_of_inputs_is_checked_before_any_is_opened() -> None:
    with pytest.raises(MediaLimitError, match=r"^3 inputs are given; media.max_inputs allows 2$"):
        load_visuals(["missing"] * 3, MediaConfig(max_inputs=2))
