"""What the tests of drafter training share: a tiny target, a few questions, and a way to ask and read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flashsd_ray.config import Config, MediaConfig
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.training.drafter.answer_store import AnswerStore
from flashsd_ray.training.drafter.answers import Answer, Answers, Asker
from flashsd_ray.training.drafter.broken import Broken
from flashsd_ray.training.drafter.events import Event
from flashsd_ray.training.drafter.pool import ReadingPool
from flashsd_ray.training.drafter.questions import Question, TownQuestions
from flashsd_ray.training.drafter.readings import Reader
from flashsd_ray.training.drafter.series import Series

CONFIG = Config(media=MediaConfig(num_frames=2))
NUM_TOKENS = 24


def greedy_questions(count: int) -> list[Question]:
    """Questions about clips of the town, two about each."""
    asked = TownQuestions(count, "train", per_clip=2)
    return [replace(asked[place], temperature=0.0) for place in range(count)]


def ask(
    target: PretrainedTarget,
    questions: Series[Question],
    folder: Path,
    *,
    max_errors: int = 0,
    num_tokens: int = NUM_TOKENS,
    events: list[Event] | None = None,
) -> Answers:
    """The answers of a target, kept in a folder."""
    heard: list[Event] = [] if events is None else events
    asker = Asker(
        target=target,
        store=AnswerStore(folder, target.fingerprint),
        config=CONFIG,
        max_new_tokens=num_tokens,
        broken=Broken(max_errors, heard.append),
        listener=heard.append,
    )
    return asker.answers(questions)


def listed(answers: Series[Answer]) -> list[Answer]:
    """All of them."""
    return [answers[place] for place in range(len(answers))]


def read(target: PretrainedTarget, answers: Sequence[Answer], tap_layers: tuple[int, ...]) -> ReadingPool:
    """What the target thinks of them."""
    reader = Reader(target, tap_layers, CONFIG)
    return ReadingPool.of(reader.read(answer) for answer in answers)
