"""What the target answered, kept on disk so that a second run begins where the first one stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from flashsd_ray.config import Config, SchedulingConfig, SpeculationConfig
from flashsd_ray.engine.local import Engine
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.training.drafter.questions import Question, load_visuals
from flashsd_ray.types import CaptionRequest, SamplingParams

REPORT_EVERY_S = 15.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A question and the tokens the target answered with, its end-of-sequence token included."""

    question: Question
    token_ids: tuple[int, ...]


def answers_file(folder: Path, target: PretrainedTarget) -> Path:
    """Where the answers of this very target are kept."""
    return folder / f"answers-{target.fingerprint}.jsonl"


def collect_answers(
    target: PretrainedTarget,
    questions: Sequence[Question],
    path: Path,
    config: Config,
    max_new_tokens: int,
) -> list[Answer]:
    """Every question has its answer, in the order of the questions; those not in the file are asked and added to it."""
    known = dict(_read(path))
    open_questions = [question for question in questions if known.get(question.question_id, (None,))[0] != question]
    if open_questions:
        logger.info("%d answers are known, %d are asked", len(questions) - len(open_questions), len(open_questions))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            for answer in _ask(target, open_questions, config, max_new_tokens):
                file.write(json.dumps({**answer.question.to_json(), "token_ids": answer.token_ids}) + "\n")
                file.flush()
                known[answer.question.question_id] = (answer.question, answer.token_ids)
    return [Answer(question, known[question.question_id][1]) for question in questions]


def _ask(
    target: PretrainedTarget, questions: Sequence[Question], config: Config, max_new_tokens: int
) -> Iterator[Answer]:
    """Answers as they are ready, decoded together without any drafter."""
    plain = replace(
        config,
        speculation=SpeculationConfig(drafter="none"),
        scheduling=SchedulingConfig(max_running=config.scheduling.max_running, cache_rows=config.scheduling.cache_rows),
    )
    engine = Engine.around(target, plain)
    by_id = {question.question_id: question for question in questions}
    began_s = reported_s = monotonic()
    num_tokens = 0
    for count, caption in enumerate(engine.caption_many(_requests(questions, config, max_new_tokens)), start=1):
        num_tokens += len(caption.token_ids)
        yield Answer(by_id[caption.request_id], caption.token_ids)
        if monotonic() - reported_s > REPORT_EVERY_S:
            reported_s = monotonic()
            logger.info("answered %d of %d, %d tokens, %.0f s", count, len(questions), num_tokens, reported_s - began_s)


def _requests(questions: Sequence[Question], config: Config, max_new_tokens: int) -> Iterator[CaptionRequest]:
    for question in questions:
        yield CaptionRequest(
            request_id=question.question_id,
            prompt=question.prompt,
            visuals=load_visuals(question.visuals, config.media),
            sampling=SamplingParams(
                temperature=question.temperature, seed=question.seed, max_new_tokens=max_new_tokens
            ),
        )


def _read(path: Path) -> Iterator[tuple[str, tuple[Question, tuple[int, ...]]]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue  # the line that was being written when a run was stopped
        token_ids = tuple(fields.pop("token_ids"))
        question = Question(**{**fields, "visuals": tuple(fields["visuals"])})
        yield question.question_id, (question, token_ids)
