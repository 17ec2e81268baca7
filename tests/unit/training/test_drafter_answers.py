"""Answers are asked for once, kept by what was asked, and survive whatever stops a run."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from flashsd_ray.config import MediaConfig
from flashsd_ray.engine.local import Engine
from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.training.drafter import answers as answers_module
from flashsd_ray.training.drafter.answer_store import AnswerStore, key_of
from flashsd_ray.training.drafter.events import Asked, Event, LeftOut
from flashsd_ray.training.drafter.questions import Question
from tests.media_files import make_picture
from tests.unit.training.drafter_parts import ask, greedy_questions, listed

FEW = 6


def forbid_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> Engine:
        raise AssertionError("the target was asked")

    monkeypatch.setattr(answers_module.Engine, "around", refuse)


def test_answers_are_not_asked_twice(target: PretrainedTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    first = listed(ask(target, greedy_questions(3), tmp_path, num_tokens=FEW, events=events))
    (path,) = tmp_path.iterdir()
    assert path.name == f"answers-{target.fingerprint}.jsonl"
    assert [event for event in events if isinstance(event, Asked)][-1].done == 3
    with path.open("a", encoding="utf-8") as file:
        file.write('{"key": "00", "token_i')  # a run was stopped here
    with monkeypatch.context() as patch:
        forbid_asking(patch)
        reversed_questions = greedy_questions(3)[::-1]
        assert listed(ask(target, reversed_questions, tmp_path, num_tokens=FEW)) == first[::-1]
    changed = [replace(greedy_questions(1)[0], prompt="Something else.")]
    (other,) = listed(ask(target, changed, tmp_path, num_tokens=FEW))
    assert other.question == changed[0]
    with monkeypatch.context() as patch:
        forbid_asking(patch)
        assert listed(ask(target, changed, tmp_path, num_tokens=FEW)) == [other]


def test_workers_have_files_of_their_own_and_read_all(tmp_path: Path) -> None:
    question = Question(prompt="What?")
    stores = [AnswerStore(tmp_path, "abc", writer) for writer in ("0-of-2", "1-of-2")]
    for number, store in enumerate(stores):
        store.add(f"{number:024}", question, (number, 7))
        store.close()
    both = AnswerStore(tmp_path, "abc")
    assert len(both) == 2
    for number in range(2):
        place = both.place_of(f"{number:024}")
        assert place is not None
        assert both.token_ids(place) == (number, 7)
    assert both.place_of("f" * 24) is None
    assert len(AnswerStore(tmp_path, "another")) == 0


def test_a_changed_file_is_another_question(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(make_picture())
    question, media = Question(prompt="What?", visuals=(str(path),)), MediaConfig()
    key = key_of(question, media, 8)
    assert key == key_of(replace(question, origin="elsewhere"), media, 8)
    os.utime(path, ns=(1, 1))
    others = {
        key_of(question, media, 8),
        key_of(question, media, 9),
        key_of(question, MediaConfig(num_frames=3), 8),
        key_of(replace(question, seed=1), media, 8),
        key_of(replace(question, end_s=1.0), media, 8),
    }
    assert len({key, *others}) == 6


def test_what_cannot_be_asked_is_counted_and_left_out(target: PretrainedTarget, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    questions = [
        greedy_questions(1)[0],
        Question(prompt="What?", visuals=(str(tmp_path / "missing.png"),), origin="line 2"),
        Question(prompt="What?", visuals=(str(broken),), origin="line 3"),
        Question(prompt="word " * 9000, origin="line 4"),
        replace(greedy_questions(3)[2], prompt="Where?"),
    ]
    events: list[Event] = []
    answers = ask(target, questions, tmp_path, max_errors=3, num_tokens=FEW, events=events)
    assert [answer.question.prompt for answer in listed(answers)] == [questions[0].prompt, "Where?"]
    left_out = {event.origin: event.reason for event in events if isinstance(event, LeftOut)}
    assert sorted(left_out) == ["line 2", "line 3", "line 4"]
    assert "does not exist" in left_out["line 2"]
    with pytest.raises(InvalidRequestError, match=r"3 questions cannot be asked, --max-errors allows 2; the last one"):
        ask(target, questions, tmp_path, max_errors=2, num_tokens=FEW)


def test_an_answer_that_the_data_says_is_not_asked_for(
    target: PretrainedTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_asking(monkeypatch)
    question = Question(prompt="What?", answer="a red ball")
    (answer,) = listed(ask(target, [question], tmp_path))
    assert target.detokenize(answer.token_ids) == "a red ball"
    assert answer.token_ids[-1] in target.eos_token_ids
    (short,) = listed(ask(target, [question], tmp_path, num_tokens=2))
    assert short.token_ids == answer.token_ids[:2]
    assert short.key != answer.key
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == 0


def test_a_line_can_be_read_by_people(target: PretrainedTarget, tmp_path: Path) -> None:
    (answer,) = listed(ask(target, greedy_questions(1), tmp_path, num_tokens=FEW))
    (path,) = tmp_path.iterdir()
    values = json.loads(path.read_text())
    assert values["prompt"] == answer.question.prompt
    assert tuple(values["token_ids"]) == answer.token_ids
