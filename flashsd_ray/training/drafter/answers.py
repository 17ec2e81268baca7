"""Questions with the tokens that the target answered: known ones from disk, the others asked for now."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic

from flashsd_ray.config import Config, SpeculationConfig
from flashsd_ray.engine.answers import Caption, Chunk, joined
from flashsd_ray.engine.local import Engine
from flashsd_ray.errors import FlashSDError, InvalidRequestError
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.training.drafter.answer_store import AnswerStore, key_of
from flashsd_ray.training.drafter.broken import Broken
from flashsd_ray.training.drafter.events import Asked, Listener, Pace
from flashsd_ray.training.drafter.questions import Question, load_visuals
from flashsd_ray.training.drafter.series import Series
from flashsd_ray.types import CaptionRequest, SamplingParams

UNKNOWN = 2**64 - 1  # no answer, and none is coming
GIVEN = UNKNOWN - 1  # the data says it


@dataclass(frozen=True, slots=True)
class Answer:
    """A question and the tokens the target answered with, its end-of-sequence token included."""

    question: Question
    token_ids: tuple[int, ...]
    key: str = ""  # equal for equal questions and answers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asker:
    """Gets every question its answer; pictures are read as places come free, one question at a time."""

    target: PretrainedTarget
    store: AnswerStore
    config: Config
    max_new_tokens: int
    broken: Broken
    listener: Listener

    def answers(self, questions: Series[Question]) -> Answers:
        """Answers in the order of the questions; what cannot be asked is left out.

        Raises:
            InvalidRequestError: too much cannot be asked.
        """
        places = array("Q", bytes(8 * len(questions)))
        wanted = array("Q")
        for index in range(len(questions)):
            question = questions[index]
            known = GIVEN if question.answer is not None else self.store.place_of(self.key(question))
            places[index] = UNKNOWN if known is None else known
            if known is None:
                wanted.append(index)
        if wanted:
            self._ask(questions, wanted, places)
        return Answers(self, questions, places)

    def key(self, question: Question) -> str:
        """Under which the answer is kept."""
        return key_of(question, self.config.media, self.max_new_tokens)

    def given(self, text: str) -> tuple[int, ...]:
        """The tokens of an answer that the data says, ended as the target would end it."""
        token_ids = self.target.tokenizer.encode(text, add_special_tokens=False)
        return (*token_ids, *self.target.eos_token_ids[:1])[: self.max_new_tokens]

    def _ask(self, questions: Series[Question], wanted: Sequence[int], places: array[int]) -> None:
        began_s, tokens, pace = monotonic(), 0, Pace()
        engine = Engine.around(self.target, replace(self.config, speculation=SpeculationConfig(drafter="none")))
        done = 0
        for done, (name, outcome) in enumerate(_decode(engine, self._requests(questions, wanted)), start=1):
            question = questions[int(name)]
            if isinstance(outcome, Caption):
                places[int(name)] = self.store.add(self.key(question), question, outcome.token_ids)
                tokens += len(outcome.token_ids)
            else:
                self.broken.leave_out(question, outcome)
            if pace.is_due():
                self.listener(Asked(done=done, total=len(wanted), tokens=tokens, seconds=monotonic() - began_s))
        self.listener(Asked(done=done, total=len(wanted), tokens=tokens, seconds=monotonic() - began_s))

    def _requests(self, questions: Series[Question], wanted: Sequence[int]) -> Iterator[CaptionRequest]:
        for index in wanted:
            question = questions[index]
            try:
                visuals = load_visuals(question, self.config.media)
            except InvalidRequestError as error:
                self.broken.leave_out(question, error)
                continue
            yield CaptionRequest(
                request_id=str(index),
                prompt=question.prompt,
                visuals=visuals,
                sampling=SamplingParams(
                    temperature=question.temperature, seed=question.seed, max_new_tokens=self.max_new_tokens
                ),
            )


class Answers:
    """The answered ones of some questions, read from disk whenever one is wanted."""

    def __init__(self, asker: Asker, questions: Series[Question], places: Sequence[int]) -> None:
        self._asker = asker
        self._questions = questions
        self._places = places
        self._known = array("Q", (index for index, place in enumerate(places) if place != UNKNOWN))

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, place: int, /) -> Answer:
        index = self._known[place]
        question = self._questions[index]
        if question.answer is not None:
            token_ids = self._asker.given(question.answer)
        else:
            token_ids = self._asker.store.token_ids(self._places[index])
        return Answer(question, token_ids, self._asker.key(question))


def _decode(engine: Engine, requests: Iterator[CaptionRequest]) -> Iterator[tuple[str, Caption | FlashSDError]]:
    """Every request's answer, or why there is none, in the order in which they end; decoded together."""
    running: dict[str, list[Chunk]] = {}
    while True:
        while len(running) < engine.config.scheduling.max_running:
            request = next(requests, None)
            if request is None:
                break
            try:
                engine.lane.submit(request)
                running[request.request_id] = []
            except InvalidRequestError as error:
                yield request.request_id, error
        if not running:
            return
        for chunk in engine.lane.step():
            running[chunk.request_id].append(chunk)
            if chunk.finish_reason is not None:
                chunks = running.pop(chunk.request_id)
                yield chunk.request_id, chunk.error or joined(chunks)
