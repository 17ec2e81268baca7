"""A directory of pictures is a video."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError
from flashsd_ray.media import load_visual
from flashsd_ray.media.frame_directory import natural_key
from flashsd_ray.media.source import Clock
from tests.media_files import make_picture, numbered_frame, shown_numbers


def fill(directory: Path, num_frames: int, name: str = "frame{}.png") -> None:
    for number in range(num_frames):
        (directory / name.format(number)).write_bytes(make_picture("PNG", numbered_frame(number)))


def test_frames_come_in_natural_order_with_the_times_of_the_configured_rate(
    tmp_path: Path, config: MediaConfig
) -> None:
    fill(tmp_path, 12)
    visual = load_visual(tmp_path, config, num_frames=12)
    assert visual.kind == "video"
    assert shown_numbers(visual.frames) == list(range(12))
    assert visual.timestamps_s == pytest.approx([k / 24 for k in range(12)])
    assert visual.duration_s == pytest.approx(0.5)
    assert visual.source == str(tmp_path)


def test_counts_rates_and_ranges_apply(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    config = MediaConfig(directory_fps=2.0)
    assert shown_numbers(load_visual(tmp_path, config, num_frames=4).frames) == [0, 6, 12, 19]
    assert shown_numbers(load_visual(tmp_path, config, fps=0.5).frames) == [0, 4, 8, 12, 16]
    assert shown_numbers(load_visual(tmp_path, config, start_s=2.0, end_s=3.0).frames) == [4, 5]


@pytest.mark.parametrize(
    "names",
    [
        ["f1", "f2", "f10", "f11", "f100"],
        ["a1b2", "a1b10", "a2b1", "b"],
        ["1.png", "2.png", "10.png"],
        ["x", "x1", "x1y"],
    ],
)
def test_numbers_in_names_count_by_value(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(backwards, key=natural_key) == names


def test_other_files_hidden_files_and_directories_are_passed_over(tmp_path: Path, config: MediaConfig) -> None:
    fill(tmp_path, 3)
    (tmp_path / "notes.txt").write_text("these frames are numbered")
    (tmp_path / ".frame9.png").write_bytes(make_picture())
    (tmp_path / "more").mkdir()
    os.mkfifo(tmp_path / "frame8.png")
    (tmp_path / "frame7.png").symlink_to(tmp_path / "nowhere")
    assert shown_numbers(load_visual(tmp_path, config).frames) == [0, 1, 2]


def test_the_kind_of_a_frame_is_told_from_its_content(tmp_path: Path, config: MediaConfig) -> None:
    fill(tmp_path, 3, name="frame{}.txt")
    assert shown_numbers(load_visual(tmp_path, config).frames) == [0, 1, 2]


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_a_directory_without_pictures_is_refused(tmp_path: Path, content: bytes | None, config: MediaConfig) -> None:
    if content is not None:
        (tmp_path / "frame0.png").write_bytes(content)
    with pytest.raises(MediaError, match=r": is a directory without pictures \(files in it: [01]\)$"):
        load_visual(tmp_path, config)


def test_frames_of_different_sizes_are_refused(tmp_path: Path, config: MediaConfig) -> None:
    fill(tmp_path, 2)
    (tmp_path / "frame2.png").write_bytes(make_picture("PNG", numbered_frame(2, 40, 30)))
    with pytest.raises(MediaError, match=r"/frame2.png: has 40x30 pixels, the first frame has 80x48$"):
        load_visual(tmp_path, config)


def test_a_damaged_frame_is_named(tmp_path: Path, config: MediaConfig) -> None:
    fill(tmp_path, 2)
    (tmp_path / "frame2.png").write_bytes(make_picture()[:120])
    with pytest.raises(MediaError, match=r"/frame2.png: cannot be read as a picture: "):
        load_visual(tmp_path, config)


def test_an_empty_frame_is_named(tmp_path: Path, config: MediaConfig) -> None:
    fill(tmp_path, 2)
    (tmp_path / "frame2.png").touch()
    with pytest.raises(MediaError, match=r"/frame2.png: is empty$"):
        load_visual(tmp_path, config)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_source_frames": 2}, r"too many files; media.max_source_frames allows 2"),
        ({"max_decoded_bytes": 80 * 48 * 3 * 2}, r"3 frames of 80x48 pixels need more than media.max_decoded_bytes"),
        ({"max_pixels": 80}, r"/frame0.png: has 80x48 pixels; media.max_pixels allows 80"),
    ],
)
def test_limits(tmp_path: Path, limits: dict[str, int], message: str) -> None:
    fill(tmp_path, 3)
    with pytest.raises(MediaLimitError, match=message):
        load_visual(tmp_path, MediaConfig(**limits))


def test_the_deadline_holds(tmp_path: Path, impatient_clock: Clock) -> None:
    fill(tmp_path, 30)
    with pytest.raises(MediaLimitError, match=r"takes longer than media.max_decode_s \(25 s\)"):
        load_visual(tmp_path, MediaConfig(max_decode_s=25), clock=impatient_clock)
