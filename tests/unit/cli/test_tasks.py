"""From paths to requests: segments cover the time asked for, and reading is lazy."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.cli.tasks import SHORTEST_REST, Question, Task, read_tasks, segments
from flashsd_ray.config import MediaConfig
from flashsd_ray.types import SamplingParams
from tests.media_files import make_picture, make_video


def question(**changes: object) -> Question:
    settings: dict[str, object] = {"media": MediaConfig(), "prompt": None, "sampling": SamplingParams(), **changes}
    return Question(**settings)  # type: ignore[arg-type]


@given(
    start_s=st.floats(0, 50),
    length_s=st.floats(0.01, 500),
    segment_s=st.floats(0.5, 60),
)
def test_segments_cover_the_time_without_gap_or_overlap(start_s: float, length_s: float, segment_s: float) -> None:
    duration_s = start_s + length_s
    found = list(segments(Task(paths=("a.mp4",), start_s=start_s), duration_s, segment_s))
    assert found[0].start_s == start_s
    assert found[-1].end_s == duration_s
    assert all(one.end_s == other.start_s for one, other in itertools.pairwise(found))
    last_s = found[-1].end_s - found[-1].start_s
    assert last_s <= segment_s * (1 + SHORTEST_REST) * (1 + 1e-9) or len(found) == 1
    assert len(found) == 1 or last_s >= segment_s * SHORTEST_REST * (1 - 1e-6)


def test_a_time_behind_the_end_is_left_to_the_reader() -> None:
    asked = Task(paths=("a.mp4",), start_s=9.0)
    assert list(segments(asked, 5.0, 2.0)) == [asked]


def test_each_path_is_a_task_and_a_broken_one_holds_up_nobody(tmp_path: Path) -> None:
    good, empty = tmp_path / "good.mp4", tmp_path / "empty.mp4"
    good.write_bytes(make_video())
    empty.touch()
    reads = list(read_tasks([str(empty), str(good), str(tmp_path / "none.mp4")], question()))
    assert [read.error is None for read in reads] == [False, True, False]
    assert "is empty" in str(reads[0].error)
    request = reads[1].request
    assert request is not None
    assert request.prompt == "Describe the video in detail."
    assert reads[1].task.span_s == (0.0, pytest.approx(1.0))


def test_an_image_is_asked_about_as_an_image(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(make_picture())
    (read,) = read_tasks([str(path)], question())
    assert read.request is not None
    assert read.request.prompt == "Describe the image in detail."
    (refused,) = read_tasks([str(path)], question(), needs_duration=True)
    assert "has no duration" in str(refused.error)


def test_together_makes_one_request_of_all(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(make_picture())
    (read,) = read_tasks([str(path), str(path)], question(prompt="Compare."), together=True)
    assert read.request is not None
    assert len(read.request.visuals) == 2
    assert read.task.label == f"{path} and 1 more"


def test_nothing_is_read_before_it_is_wanted(tmp_path: Path) -> None:
    said: list[str] = []
    reads = read_tasks(["one.mp4", "two.mp4"], question(), says=said.append)
    assert said == []
    next(reads)
    assert set(said) == {"reading one.mp4"}
