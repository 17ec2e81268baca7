"""Clips are cut into windows or scenes; a clip that cannot be cut is one error, a segment that cannot be read another."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.batch.rows import Clip
from flashsd_ray.batch.segments import SegmentFrames, SegmentRule, read_segments
from flashsd_ray.batch.segments.rule import between_cuts, num_windows, windows
from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import ConfigError, MediaError, MediaLimitError, RowError
from tests.media_files import make_animation, make_picture, make_video, shown_numbers

CONFIG = MediaConfig(num_frames=2)


def read(clip: Clip, rule: str = "whole", max_segments: int = 20) -> list[SegmentFrames]:
    return list(read_segments(clip, SegmentRule.parse(rule), CONFIG, max_segments=max_segments))


def spans(found: list[SegmentFrames]) -> list[tuple[float | None, float | None]]:
    return [(part.start_s, part.end_s) for part in found]


@pytest.fixture
def video(tmp_path: Path) -> Clip:
    (tmp_path / "v.mp4").write_bytes(make_video(num_frames=50, fps=10))  # 5 s
    return Clip(row_id="v", source=str(tmp_path / "v.mp4"))


def within(clip: Clip, start_s: float | None, end_s: float | None) -> Clip:
    return Clip(row_id="v", source=clip.source, start_s=start_s, end_s=end_s)


def scenes(lengths: list[int], shape: tuple[int, int] = (120, 160)) -> list[np.ndarray]:
    """Frames of scenes of so many frames each: a texture that moves."""
    random = np.random.default_rng(0)
    frames: list[np.ndarray] = []
    for length in lengths:
        small = random.integers(0, 255, (6, 8, 3)).astype(np.uint8)
        picture = small.repeat(shape[0] // 6, 0).repeat(shape[1] // 8, 1)
        frames += [np.roll(picture, step, axis=1) for step in range(length)]
    return frames


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("whole", SegmentRule()),
        ("window:2.5", SegmentRule("window", 2.5)),
        ("scenes", SegmentRule("scenes", 1.0)),
        ("scenes:3", SegmentRule("scenes", 3.0)),
    ],
)
def test_rules(text: str, rule: SegmentRule) -> None:
    assert SegmentRule.parse(text) == rule


@pytest.mark.parametrize(
    "text", ["", "window", "window:", "window:0", "window:-1", "window:inf", "whole:2", "x", "scenes:0"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="segments must be whole, window:SECONDS"):
        SegmentRule.parse(text)


times = st.floats(0, 1e4, allow_nan=False)


@given(times, st.floats(1e-3, 1e3), st.floats(1.0, 1e3))
def test_windows_cover_the_time_once(start_s: float, duration_s: float, length_s: float) -> None:
    found = windows(start_s, start_s + duration_s, length_s)
    assert len(found) == num_windows(start_s, start_s + duration_s, length_s)
    assert (found[0][0], found[-1][1]) == (start_s, start_s + duration_s)
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert all(end_s - begin_s == pytest.approx(length_s) for begin_s, end_s in found[:-1])
    assert found[-1][1] - found[-1][0] <= 1.1 * length_s + 1e-6


@given(st.lists(st.floats(0, 100), max_size=20), st.floats(0.01, 30))
def test_scenes_cover_the_time_once_and_are_long_enough(cuts_s: list[float], shortest_s: float) -> None:
    found = between_cuts(0.0, 100.0, cuts_s, shortest_s)
    assert (found[0][0], found[-1][1]) == (0.0, 100.0)
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert all(end_s - start_s >= shortest_s for start_s, end_s in found) or len(found) == 1


def test_a_whole_clip(video: Clip) -> None:
    (part,) = read(video)
    assert (part.index, part.start_s, part.end_s, part.error) == (0, 0.0, 5.0, None)
    assert part.visual is not None
    assert shown_numbers(part.visual.frames) == [0, 49]


def test_windows_show_their_own_frames(video: Clip) -> None:
    found = read(video, "window:2")
    assert spans(found) == [(0.0, 2.0), (2.0, 4.0), (4.0, 5.0)]
    assert [shown_numbers(part.visual.frames) for part in found if part.visual] == [[0, 19], [20, 39], [40, 49]]
    assert [part.index for part in found] == [0, 1, 2]


def test_the_range_of_the_row_is_kept_to(video: Clip) -> None:
    assert spans(read(within(video, 1.0, 4.0))) == [(1.0, 4.0)]
    assert spans(read(within(video, 1.0, 99.0), "window:2.5")) == [(1.0, 3.5), (3.5, 5.0)]
    assert spans(read(within(video, 2.0, None), "window:10")) == [(2.0, 5.0)]


def test_scenes_are_found(tmp_path: Path) -> None:
    frames = scenes([15, 25, 20])
    (tmp_path / "v.mp4").write_bytes(make_video(frames=frames, fps=10, size=(160, 120)))
    clip = Clip(row_id="v", source=str(tmp_path / "v.mp4"))
    assert spans(read(clip, "scenes")) == [(0.0, 1.5), (1.5, 4.0), (4.0, 6.0)]
    assert spans(read(clip, "scenes:2")) == [(0.0, 4.0), (4.0, 6.0)]
    assert spans(read(within(clip, 2.0, 5.5), "scenes")) == [(2.0, 4.0), (4.0, 5.5)]


def test_a_video_without_cuts_is_one_scene(video: Clip, tmp_path: Path) -> None:
    (tmp_path / "still.mp4").write_bytes(make_video(frames=scenes([40]), fps=10, size=(160, 120)))
    assert spans(read(Clip(row_id="s", source=str(tmp_path / "still.mp4")), "scenes")) == [(0.0, 4.0)]


@pytest.mark.parametrize("rule", ["whole", "window:0.2", "scenes"])
def test_pictures_are_whole_and_have_no_times(tmp_path: Path, rule: str) -> None:
    (tmp_path / "p.png").write_bytes(make_picture())
    assert spans(read(Clip(row_id="p", source=str(tmp_path / "p.png")), rule)) == [(None, None)]


def test_an_animation_is_one_scene(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(make_animation())
    assert spans(read(Clip(row_id="a", source=str(tmp_path / "a.gif")), "scenes")) == [(0.0, 0.5)]


@pytest.mark.parametrize("rule", ["whole", "window:2", "scenes"])
def test_a_clip_that_cannot_be_read_is_one_error(tmp_path: Path, video: Clip, rule: str) -> None:
    content = Path(video.source).read_bytes()
    (tmp_path / "damaged.mp4").write_bytes(content[: len(content) // 2])
    for source, error, start_s in (
        (str(tmp_path / "damaged.mp4"), MediaError, None),
        (str(tmp_path / "missing.mp4"), MediaError, None),
        (video.source, MediaError, 7.0),
    ):
        (part,) = read(Clip(row_id="x", source=source, start_s=start_s), rule)
        assert isinstance(part.error, error)
        assert (part.index, part.start_s, part.visual) == (0, start_s, None)
    (part,) = read(Clip(row_id="x", source="", problem="m:1: bad"), rule)
    assert isinstance(part.error, RowError)


def test_damage_within_a_video_is_the_error_of_its_segment_alone(tmp_path: Path) -> None:
    data = bytearray(make_video("mjpeg", "avi", num_frames=50, fps=10, pixel_format="yuvj420p"))
    place = data.index(b"movi") + (data.rindex(b"00dc", 0, data.rindex(b"idx1")) - data.index(b"movi")) // 2
    damaged = data.index(b"00dc", place)
    data[damaged + 8 : damaged + 8 + 2000] = bytes(2000)
    (tmp_path / "v.avi").write_bytes(data)
    found = list(
        read_segments(
            Clip(row_id="v", source=str(tmp_path / "v.avi")),
            SegmentRule.parse("window:1"),
            MediaConfig(num_frames=10),
            max_segments=10,
        )
    )
    errors = [part.error is not None for part in found]
    assert len(found) == 5
    assert any(errors)
    assert not all(errors)


@pytest.mark.parametrize("rule", ["window:0.000000001", "scenes:0.2"])
def test_too_many_segments_are_refused(tmp_path: Path, rule: str) -> None:
    frames = scenes([10] * 6)
    (tmp_path / "v.mp4").write_bytes(make_video(frames=frames, fps=10, size=(160, 120)))
    (part,) = read(Clip(row_id="v", source=str(tmp_path / "v.mp4")), rule, max_segments=3)
    assert isinstance(part.error, MediaLimitError)
    assert "batch.max_segments" in str(part.error)
