"""Animated pictures are videos."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError
from flashsd_ray.media import load_visual_bytes
from flashsd_ray.media.source import Clock
from tests.media_files import make_animation, numbered_frame, shown_numbers

FORMATS = ["GIF", "WEBP", "PNG", "AVIF"]


@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_sampled_by_time(name: str, config: MediaConfig) -> None:
    visual = load_visual_bytes(make_animation(name, num_frames=10, delay_ms=50), "animation", config, num_frames=4)
    assert visual.kind == "video"
    assert shown_numbers(visual.frames) == [0, 3, 6, 9]
    assert visual.timestamps_s == pytest.approx([0.0, 0.15, 0.3, 0.45])
    assert visual.duration_s == pytest.approx(0.5)


@pytest.mark.parametrize("name", FORMATS)
def test_all_frames_come_once_when_more_are_wanted(name: str, config: MediaConfig) -> None:
    visual = load_visual_bytes(make_animation(name, num_frames=5), "animation", config, num_frames=100)
    assert shown_numbers(visual.frames) == [0, 1, 2, 3, 4]


def test_a_range_and_a_rate_apply(config: MediaConfig) -> None:
    data = make_animation("GIF", num_frames=20, delay_ms=100)
    visual = load_visual_bytes(data, "animation", config, fps=2, start_s=0.5, end_s=1.6)
    assert shown_numbers(visual.frames) == [5, 10, 15]


def test_varying_delays_are_followed(config: MediaConfig) -> None:
    data = make_animation("GIF", num_frames=5, delay_ms=[100, 100, 100, 700, 100])
    visual = load_visual_bytes(data, "animation", config, num_frames=3)
    assert visual.timestamps_s == pytest.approx([0.0, 0.3, 1.0])
    assert shown_numbers(visual.frames) == [0, 3, 4]


def test_a_delay_of_zero_is_a_tenth_of_a_second_as_in_browsers(config: MediaConfig) -> None:
    visual = load_visual_bytes(make_animation("GIF", num_frames=3, delay_ms=0), "animation", config)
    assert visual.timestamps_s == pytest.approx([0.0, 0.1, 0.2])


def test_one_frame_is_a_picture(config: MediaConfig) -> None:
    assert load_visual_bytes(make_animation("GIF", num_frames=1), "animation", config).kind == "image"


def test_frames_are_composed_and_transparency_is_white(config: MediaConfig) -> None:
    red = Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    corner = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    corner.putpixel((0, 0), (0, 0, 255, 255))
    buffer = io.BytesIO()
    red.save(buffer, "PNG", save_all=True, append_images=[corner], duration=100, blend=1)
    over = load_visual_bytes(buffer.getvalue(), "animation", config).frames[1]
    assert over[0, 0].tolist() == [0, 0, 255]
    assert over[3, 3].tolist() == [255, 0, 0]
    buffer = io.BytesIO()
    red.save(buffer, "PNG", save_all=True, append_images=[corner], duration=100, blend=0)
    alone = load_visual_bytes(buffer.getvalue(), "animation", config).frames[1]
    assert alone[3, 3].tolist() == [255, 255, 255]


def test_a_png_picture_for_old_viewers_is_no_frame(config: MediaConfig) -> None:
    first, *rest = (Image.fromarray(numbered_frame(k)) for k in (99, 0, 1, 2))
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=True, append_images=rest, duration=100, default_image=True)
    assert shown_numbers(load_visual_bytes(buffer.getvalue(), "animation", config).frames) == [0, 1, 2]


def test_a_gif_without_its_end_is_truncated(config: MediaConfig) -> None:
    data = make_animation("GIF", num_frames=5)
    starts = [k for k in range(len(data)) if data.startswith(b"\x21\xf9\x04", k)]
    for cut in (*starts[2:], len(data) - 1):
        with pytest.raises(MediaError, match=r"^animation: is truncated: it ends within frame"):
            load_visual_bytes(data[:cut], "animation", config)
    assert all(a < b for a, b in pairwise(starts))


class TestLimits:
    """An animation is bounded in frames, seconds, pixels and memory."""

    def test_frames(self) -> None:
        with pytest.raises(MediaLimitError, match=r"media.max_source_frames"):
            load_visual_bytes(make_animation(num_frames=5), "animation", MediaConfig(max_source_frames=4))

    def test_seconds(self) -> None:
        with pytest.raises(MediaLimitError, match=r"lasts longer than media.max_duration_s \(0.2 s\)"):
            load_visual_bytes(make_animation(num_frames=5), "animation", MediaConfig(max_duration_s=0.2))

    def test_decoded_bytes(self) -> None:
        with pytest.raises(MediaLimitError, match=r"5 frames of 80x48 pixels need more than media.max_decoded_bytes"):
            load_visual_bytes(make_animation(num_frames=5), "animation", MediaConfig(max_decoded_bytes=4 * 80 * 48 * 3))

    def test_a_frame_that_enlarges_the_canvas(self) -> None:
        data = bytearray(make_animation("GIF", num_frames=3))
        last = data.rindex(b"\x21\xf9\x04") + 8
        assert data[last] == ord(",")
        data[last + 5 : last + 9] = b"\xff\xff\xff\xff"
        with pytest.raises(MediaLimitError, match=r"pixels"):
            load_visual_bytes(bytes(data), "animation", MediaConfig())

    def test_time(self, impatient_clock: Clock) -> None:
        with pytest.raises(MediaLimitError, match=r"takes longer than media.max_decode_s \(20 s\)"):
            load_visual_bytes(
                make_animation(num_frames=30), "animation", MediaConfig(max_decode_s=20), clock=impatient_clock
            )


def test_a_range_after_the_end_is_refused(config: MediaConfig) -> None:
    with pytest.raises(MediaError, match=r"^animation: start_s lies after its end at 0.50 s$"):
        load_visual_bytes(make_animation(), "animation", config, start_s=0.5)


def test_pixels_are_those_of_the_frames(config: MediaConfig) -> None:
    frames = load_visual_bytes(make_animation("WEBP", num_frames=4), "animation", config).frames
    assert all(np.array_equal(frame, numbered_frame(k)) for k, frame in enumerate(frames))
