"""Cut-off and partly damaged videos: what is missing is said, and what is not needed is not missed."""

from __future__ import annotations

import io
import re
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError
from flashsd_ray.media import load_visual_bytes
from flashsd_ray.media.sampling import Sampling
from flashsd_ray.media.source import Deadline, open_bytes
from flashsd_ray.media.video import load_video
from tests.media_files import WAYS, make_video, shown_numbers

KINDS = [
    ("libx264", "mp4", {}),
    ("libx264", "mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ("libx264", "mov", {}),
    ("libx264", "matroska", {}),
    ("libvpx-vp9", "webm", {}),
    ("mpeg4", "avi", {}),
]


@pytest.mark.parametrize(("codec", "container", "options"), KINDS)
@pytest.mark.parametrize("part", [0.2, 0.4, 0.6, 0.8, 0.9])
def test_a_container_that_declares_its_length_is_not_taken_for_a_shorter_video(
    codec: str, container: str, options: dict[str, str], part: float, config: MediaConfig
) -> None:
    whole = make_video(codec, container, num_frames=40, container_options=options, codec_options={"g": "10"})
    cut = whole[: int(len(whole) * part)]
    with pytest.raises(
        MediaError, match=r"^clip: (is truncated: \d+ of \d+ bytes are there|cannot be read as a video)"
    ):
        load_visual_bytes(cut, "clip", config)


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
def test_bytes_after_the_end_do_no_harm(container: str, config: MediaConfig) -> None:
    whole = make_video("mpeg4", container, num_frames=20)
    for rest in (bytes(100), b"This is no box."):
        assert shown_numbers(load_visual_bytes(whole + rest, "clip", config, num_frames=2).frames) == [0, 19]


def test_a_last_box_that_reaches_to_the_end_declares_no_length(config: MediaConfig) -> None:
    whole = bytearray(make_video(num_frames=20, container_options={"movflags": "empty_moov"}))
    last = whole.rindex(b"mdat") - 4
    end = last + int.from_bytes(whole[last : last + 4], "big")
    whole[last : last + 4] = bytes(4)
    assert shown_numbers(load_visual_bytes(bytes(whole[:end]), "clip", config, num_frames=2).frames) == [0, 19]


def test_a_stream_that_ends_within_a_frame_is_truncated(config: MediaConfig) -> None:
    whole = make_video(container="flv", num_frames=20)
    with av.open(io.BytesIO(whole), "r") as container:
        *_, last, _ = container.demux(video=0)
        assert last.pos is not None
        cut = whole[: last.pos + 30]
    with pytest.raises(MediaError, match=r"^clip: is truncated: its last frame, number 20, is not complete$"):
        load_visual_bytes(cut, "clip", config)


def damaged_group(first: int, last: int) -> bytes:
    """A video of groups of ten frames, with the packets of frames ``first`` to ``last`` overwritten."""
    whole = make_video(num_frames=60, codec_options={"g": "10", "bf": "0"})
    content = bytearray(whole)
    with av.open(io.BytesIO(whole), "r") as container:
        for number, packet in enumerate(container.demux(video=0)):
            if first <= number <= last and packet.pos is not None:
                content[packet.pos + 5 : packet.pos + packet.size] = b"\xaa" * (packet.size - 5)
    return bytes(content)


@pytest.mark.parametrize("way", WAYS)
def test_damage_is_told_with_its_time_and_what_came_before(way: str, config: MediaConfig) -> None:
    clip = damaged_group(32, 33)
    with pytest.raises(MediaError) as caught:
        load(clip, Sampling(max_frames=128, num_frames=60), way, config)
    assert re.match(r"^clip: is damaged at 1\.07 s: .*; 32 of 60 frames could be decoded$", str(caught.value))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("sampling", "numbers"),
    [
        (Sampling(max_frames=128, num_frames=3), [0, 29, 59]),
        (Sampling(max_frames=128, num_frames=99, end_s=Fraction(1)), list(range(30))),
    ],
)
def test_damage_in_a_group_that_is_not_needed_is_not_seen(
    sampling: Sampling, numbers: list[int], way: str, config: MediaConfig
) -> None:
    assert shown_numbers(load(damaged_group(30, 39), sampling, way, config)) == numbers


@pytest.mark.parametrize("way", WAYS)
def test_a_frame_after_the_damage_in_its_group_is_refused(way: str, config: MediaConfig) -> None:
    # Frame 35 lies within its group after frame 32, which it is predicted from.
    sampling = Sampling(max_frames=128, num_frames=1, start_s=Fraction(35, 30))
    with pytest.raises(MediaError, match=r"^clip: is damaged at 1.17 s"):
        load(damaged_group(32, 33), sampling, way, config)
    before = Sampling(max_frames=128, num_frames=1, start_s=Fraction(31, 30))
    assert shown_numbers(load(damaged_group(32, 33), before, way, config)) == [31]


def load(clip: bytes, sampling: Sampling, way: str, config: MediaConfig) -> np.ndarray:
    source = open_bytes(clip, "clip", config, Deadline(100.0, time.monotonic))
    return load_video(source, config, sampling, **WAYS[way]).frames  # type: ignore[arg-type]
