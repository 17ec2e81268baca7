"""Where questions come from: every mistake in a file is named with its line, and no picture is in both parts."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import ConfigError, MediaError
from flashsd_ray.training.drafter.data import FolderQuestions, open_data
from flashsd_ray.training.drafter.manifest import LONGEST_LINE, ManifestQuestions, parse
from flashsd_ray.training.drafter.questions import Question, TownQuestions, load_visuals
from flashsd_ray.training.drafter.series import Chosen, Series, share
from tests.media_files import make_picture


def written(folder: Path, *lines: object) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def listed(series: Series[Question]) -> list[Question]:
    return [series[place] for place in range(len(series))]


def test_a_line_asks_all_its_prompts_about_all_its_paths(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"prompts": ["What?", "Where?"], "paths": ["a.mp4", "/b.png"], "start": 1, "end": 2.5},
        {"prompt": "Hi", "answer": "Hello."},
    )
    with path.open("a") as file:
        file.write("\n   \n" + json.dumps({"prompt": "Last", "path": "c.png"}))
    first, second, third, fourth = listed(ManifestQuestions(path))
    assert (first.prompt, second.prompt, third.prompt, fourth.prompt) == ("What?", "Where?", "Hi", "Last")
    assert first.visuals == second.visuals == (str(tmp_path / "a.mp4"), "/b.png")
    assert (first.start_s, first.end_s, third.start_s) == (1.0, 2.5, None)
    assert (third.visuals, third.answer, fourth.answer) == ((), "Hello.", None)
    assert [question.origin.split(", ")[-1] for question in (first, third, fourth)] == ["line 1", "line 2", "line 5"]
    assert first.group == second.group != third.group


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b"[1]", "expected an object with a prompt, got list"),
        (b"{", "not a line of JSON"),
        (b'{"prompt": "\xff"}', "not a line of JSON"),
        (b"{}", "there is no prompt"),
        (b'{"prompt": ""}', "prompt must be a text that is not empty"),
        (b'{"prompts": "What?"}', "prompts must be a list of texts"),
        (b'{"prompt": "a", "prompts": ["b"]}', "give prompt or prompts, not both"),
        (b'{"prompt": "a", "path": "x", "paths": ["y"]}', "give path or paths, not both"),
        (b'{"prompt": "a", "image": "x"}', "unknown field 'image'; known: prompt, "),
        (b'{"prompt": "a", "path": 3}', "path must be a text"),
        (b'{"prompt": "a", "start": -1}', "start must be seconds, 0 or more, got -1"),
        (b'{"prompt": "a", "start": true}', "start must be seconds"),
        (b'{"prompt": "a", "end": "2"}', "end must be seconds, 0 or more, got '2'"),
        (b'{"prompt": "a", "start": 2, "end": 2}', "end must lie after start"),
        (b'{"prompts": ["a", "b"], "answer": "c"}', "one answer cannot be that to 2 prompts"),
    ],
)
def test_a_mistake_is_named_with_its_line(line: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_bytes(b'{"prompt": "fine"}\n' + line + b"\n")
    with pytest.raises(ConfigError) as raised:
        ManifestQuestions(path)
    assert part in str(raised.value)
    assert f"{path}, line 2: " in str(raised.value)


@given(st.binary(max_size=200))
def test_no_line_raises_anything_else(data: bytes) -> None:
    with suppress(ConfigError):
        assert parse(data, "line 1").prompts


def test_a_file_that_is_no_list_of_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"\0" * (LONGEST_LINE + 10))
    with pytest.raises(ConfigError, match="line 1: is longer than"):
        ManifestQuestions(path)
    with pytest.raises(ConfigError, match="cannot read"):
        ManifestQuestions(tmp_path / "missing.jsonl")


def test_a_question_is_drawn_alike_wherever_it_stands(tmp_path: Path) -> None:
    lines = [{"prompt": f"Question {number}?"} for number in range(40)]
    one = listed(ManifestQuestions(written(tmp_path, *lines)))
    other = listed(ManifestQuestions(written(tmp_path, *reversed(lines))))
    assert one == list(reversed(other))
    assert 0 < sum(question.temperature > 0 for question in one) < 40
    assert all(q.temperature == 0 for q in listed(ManifestQuestions(written(tmp_path, *lines), sampled_share=0.0)))


def test_every_prompt_is_asked_about_every_file_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    for name in ("b.jpg", "deeper/a.mp4", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    asked = listed(FolderQuestions(tmp_path, ["What?", "Where?"]))
    names = [(question.prompt, Path(question.visuals[0]).name) for question in asked]
    assert names == [("What?", "b.jpg"), ("Where?", "b.jpg"), ("What?", "a.mp4"), ("Where?", "a.mp4")]
    with pytest.raises(ConfigError, match="say with --prompt"):
        open_data(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no file below"):
        open_data(str(tmp_path / "empty"), prompts=["What?"])


def test_no_picture_is_learnt_from_and_held_out(tmp_path: Path) -> None:
    lines = [{"prompts": ["a", "b", "c"], "path": f"{number % 20}.png"} for number in range(40)]
    data = open_data(str(written(tmp_path, *lines)), num_heldout=10)
    assert len(data.heldout) == 10
    heldout = {question.visuals for question in listed(data.heldout)}
    train = {question.visuals for question in listed(data.train)}
    assert not heldout & train
    assert len(heldout | train) == 20
    again = open_data(str(written(tmp_path, *reversed(lines))), num_heldout=10)
    assert {question.visuals for question in listed(again.train)} == train


def test_something_must_be_left_to_learn_from(tmp_path: Path) -> None:
    path = written(tmp_path, *({"prompt": f"{number}", "path": "a.png"} for number in range(9)))
    with pytest.raises(ConfigError, match="9 of 9 questions share pictures with the 1 held out"):
        open_data(str(path))
    with pytest.raises(ConfigError, match="9 questions, and 9 are to be held out"):
        open_data(str(path), num_heldout=9)
    assert len(open_data(str(path), heldout_source="town:3").train) == 9
    with pytest.raises(ConfigError, match="--prompt is for a directory"):
        open_data(str(path), prompts=["What?"])


def test_the_town_has_clips_of_its_own_for_judging() -> None:
    data = open_data("town:20", num_heldout=6)
    assert (len(data.train), len(data.heldout)) == (20, 6)
    assert not {q.visuals for q in listed(data.train)} & {q.visuals for q in listed(data.heldout)}
    assert listed(data.train) == listed(TownQuestions(20, "train"))
    with pytest.raises(IndexError):
        data.train[20]


def test_a_world_that_does_not_exist_is_refused_and_the_one_that_does_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no world 'demo'; clips of the one there is are town:5000"):
        open_data("demo:5000")


def test_the_frames_are_those_of_the_time_asked_about(tmp_path: Path, clip: Path) -> None:
    question = Question(prompt="What?", visuals=(str(clip),), start_s=0.5)
    (visual,) = load_visuals(question, MediaConfig(num_frames=2))
    assert visual.timestamps_s[0] >= 0.5
    (tmp_path / "a.png").write_bytes(make_picture())
    (picture,) = load_visuals(Question(prompt="What?", visuals=(str(tmp_path / "a.png"),)), MediaConfig())
    assert picture.kind == "image"
    with pytest.raises(MediaError):
        load_visuals(Question(prompt="What?", visuals=(str(tmp_path / "b.png"),)), MediaConfig())


@given(st.integers(0, 50), st.integers(1, 7))
def test_parts_are_the_whole(length: int, num_parts: int) -> None:
    whole = list(range(length))
    parts = [share(whole, part, num_parts) for part in range(num_parts)]
    assert [part[place] for part in parts for place in range(len(part))] == whole
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert Chosen(whole, [length - 1] if length else []).places == ([length - 1] if length else [])
