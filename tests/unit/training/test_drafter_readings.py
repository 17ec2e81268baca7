"""What the target thinks of an answer: as it computes it token by token, within memory, and kept on disk if asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.training.drafter.answers import Answer
from flashsd_ray.training.drafter.events import Event, Read
from flashsd_ray.training.drafter.pool import ReadingPool
from flashsd_ray.training.drafter.questions import Question
from flashsd_ray.training.drafter.reading_files import ReadingFiles
from flashsd_ray.training.drafter.readings import Reader, Reading
from tests.unit.training.drafter_parts import CONFIG, read

EACH = 1000  # bytes


def test_a_reading_is_what_the_target_computes_token_by_token(target: PretrainedTarget, answers: list[Answer]) -> None:
    (reading,) = read(target, answers[:1], (1,)).readings
    best = torch.nn.functional.linear(reading.finals, target.decoder.lm_head).argmax(dim=-1)
    assert best.tolist() == list(reading.token_ids[reading.num_prompt_tokens + 1 :])
    assert len(reading.taps) == len(reading.token_ids) - 1
    assert reading.is_greedy


def test_pictures_are_looked_at_once_for_successive_questions(target: PretrainedTarget, answers: list[Answer]) -> None:
    reader = Reader(target, (1,), CONFIG)
    both = [reader.read(answer) for answer in answers[:2]]
    assert answers[0].question.visuals == answers[1].question.visuals
    assert reader.num_frames_encoded == CONFIG.media.num_frames
    alone = Reader(target, (1,), CONFIG).read(answers[1])
    torch.testing.assert_close(both[1].taps, alone.taps, rtol=1e-4, atol=1e-4)


def fake_reading(number: int) -> Reading:
    return Reading(
        token_ids=(number, 1, 2),
        num_prompt_tokens=1,
        segments=(),
        taps=torch.zeros(EACH // 8, 2),
        finals=torch.zeros(0, 2),
        embeddings=None,
        is_greedy=True,
    )


def pool_of(count: int, room: int, events: list[Event] | None = None) -> ReadingPool:
    answers = [Answer(Question(prompt=str(number)), (1, 2)) for number in range(count)]
    heard: list[Event] = [] if events is None else events
    return ReadingPool(answers, lambda answer: fake_reading(int(answer.question.prompt)), room * EACH, heard.append)


def numbers(pool: ReadingPool) -> list[int]:
    return [reading.token_ids[0] for reading in pool.readings]


def test_all_readings_stay_where_they_fit() -> None:
    events: list[Event] = []
    pool = pool_of(4, room=4, events=events)
    pool.fill()
    assert numbers(pool) == [0, 1, 2, 3]
    version = pool.version
    pool.refresh(2)
    assert (numbers(pool), pool.version) == ([0, 1, 2, 3], version)
    assert events == [Read(done=4, total=4, num_bytes=4 * EACH)]
    resumed = pool_of(4, room=4)
    resumed.fill(first=7)
    assert numbers(resumed) == [0, 1, 2, 3]


def test_a_window_moves_over_data_that_does_not_fit() -> None:
    pool = pool_of(5, room=3)
    pool.fill()
    assert numbers(pool) == [0, 1, 2]
    version = pool.version
    pool.refresh(1)
    assert numbers(pool) == [1, 2, 3]
    assert pool.version > version
    pool.refresh(3)
    assert numbers(pool) == [4, 0, 1]
    resumed = pool_of(5, room=3)
    resumed.fill(first=9)
    assert numbers(resumed) == [4, 0, 1]


def test_one_reading_is_there_however_little_memory() -> None:
    pool = pool_of(2, room=0)
    pool.fill()
    assert numbers(pool) == [0]
    pool.refresh(1)
    assert numbers(pool) == [1]


def test_short_and_unreadable_answers_are_left_out() -> None:
    answers = [Answer(Question(prompt=str(number)), (1,) * length) for number, length in enumerate((2, 1, 2, 3))]
    pool = ReadingPool(
        answers,
        lambda answer: None if answer.question.prompt == "2" else fake_reading(int(answer.question.prompt)),
        9 * EACH,
        lambda event: None,
    )
    pool.fill()
    assert numbers(pool) == [0, 3]


def test_kept_readings_come_back_as_they_were(target: PretrainedTarget, answers: list[Answer], tmp_path: Path) -> None:
    files = ReadingFiles(tmp_path, "abc", (1, 2), has_embeddings=True)
    reading = Reader(target, (1, 2), CONFIG, keeps_embeddings=True).read(answers[0])
    assert files.get("key") is None
    files.put("key", reading)
    back = files.get("key")
    assert back is not None
    for name in ("token_ids", "num_prompt_tokens", "segments", "is_greedy"):
        assert getattr(back, name) == getattr(reading, name)
    for name in ("taps", "finals", "embeddings"):
        assert torch.equal(getattr(back, name), getattr(reading, name))
    assert ReadingFiles(tmp_path, "abc", (1, 2), has_embeddings=False).get("key") is None
    (folder,) = (path for path in tmp_path.iterdir() if path.name.endswith("vision"))
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert files.get("key") is None


def test_a_question_that_is_too_long_to_read_leaves_the_reader_usable(
    target: PretrainedTarget, answers: list[Answer]
) -> None:
    reader = Reader(target, (1,), CONFIG)
    long = replace(answers[0], question=Question(prompt="word " * 9000))
    with pytest.raises(Exception, match="positions"):
        reader.read(long)
    assert reader.read(answers[0]).num_anchors > 0
