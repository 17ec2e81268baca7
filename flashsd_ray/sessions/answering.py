"""Questions of one session, answered in order, one at a time, while frames go on arriving."""

from __future__ import annotations

import asyncio

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError, InvalidRequestError, OverloadedError, SequenceError
from flashsd_ray.sessions.answer import Answer, Question
from flashsd_ray.sessions.asked import Asked
from flashsd_ray.sessions.clock import Clock
from flashsd_ray.sessions.events import Ask, Mode, Refused
from flashsd_ray.sessions.history import History
from flashsd_ray.sessions.keeping import Keeping
from flashsd_ray.sessions.mailboxes import Outbox
from flashsd_ray.sessions.periods import Period
from flashsd_ray.sessions.prefetching import Prefetcher
from flashsd_ray.sessions.session import Session
from flashsd_ray.sessions.settings import check_text
from flashsd_ray.types import CaptionRequest, FinishReason


class Answers:
    """The queue of one stream and the answer that is being given."""

    def __init__(
        self,
        session: Session,
        service: CaptionService,
        prefetcher: Prefetcher,
        outbox: Outbox,
        config: Config,
        clock: Clock,
        keeping: Keeping,
    ) -> None:
        self._keeping = keeping
        self._session = session
        self._service = service
        self._prefetcher = prefetcher
        self._outbox = outbox
        self._config = config
        self._clock = clock
        self._open: dict[str, Question] = {}
        self._queue: asyncio.Queue[Question] = asyncio.Queue()
        self._current: tuple[str, asyncio.Task[None]] | None = None
        self._num_named = 0
        self._caption_place = asyncio.Semaphore(1)
        self._none_open = asyncio.Event()
        self._none_open.set()

    @property
    def num_open(self) -> int:
        """Questions without a whole answer."""
        return len(self._open)

    def register(self, ask: Ask) -> Question:
        """The question has a name, by which it can be cancelled; its turn comes after ``place``.

        Raises:
            InvalidRequestError: another open question has this name, or a text is too long.
            OverloadedError: too many questions are waiting.
        """
        check_text(ask.prompt, self._config)
        check_text(ask.ask_id, self._config)
        if ask.ask_id in self._open:
            raise InvalidRequestError(f"question {ask.ask_id!r} is open already")
        asked = sum(not question.is_caption for question in self._open.values())
        if asked > self._config.sessions.max_waiting_asks:
            raise OverloadedError(f"{asked - 1} questions are waiting (sessions.max_waiting_asks)")
        return self._opened(
            Question(
                ask_id=ask.ask_id or self._fresh_id("ask"),
                prompt=ask.prompt,
                sampling=ask.sampling or self._session.settings.sampling,
                keep_history=ask.keep_history,
                is_again=ask.is_again,
                asked_s=self._clock.now_s(),
            )
        )

    def resume(self, captions_received: int | None) -> None:
        """Captions that the client of an earlier stream does not have are given again, in their order."""
        for asked in self._session.asked.captions_after(captions_received):
            question = self._question_of(asked)
            question.is_again = True
            self._queue.put_nowait(self._opened(question))

    def place(self, question: Question) -> None:
        """The question waits for its turn; it looks at what is held now, or at what it looked at before.

        Raises:
            InvalidRequestError: neither the question nor the session has a prompt.
            SequenceError: there is no frame to look at.
        """
        before = self._session.asked.questions.get(question.ask_id) if question.is_again else None
        if before is not None and not before.caption:
            question.asked, question.prompt, question.sampling = before, before.prompt, before.sampling
            question.period, question.keep_history = before.period, before.keep_history
            self._queue.put_nowait(question)
            return
        question.prompt = question.prompt or self._session.prompt
        if not question.prompt:
            raise InvalidRequestError("neither the question nor the session has a prompt")
        question.snapshot = self._session.frames.snapshot()
        if not len(question.snapshot):
            raise SequenceError("a question needs a frame before it")
        times_s = question.snapshot.times_s
        question.period = Period(start_s=float(times_s[0]), end_s=float(times_s[-1]))
        question.num_arrived = self._prefetcher.num_arrived
        self._remember(
            Asked.about(
                question.snapshot,
                ask_id=question.ask_id,
                prompt=question.prompt,
                sampling=question.sampling,
                period=question.period,
                keep_history=question.keep_history,
            ),
            question,
        )
        self._queue.put_nowait(question)

    async def place_caption(self, period: Period) -> None:
        """A caption of this period waits for its turn; one caption waits at a time.

        Waiting here holds the next frames back, so that every period has its caption however slow the model is.
        """
        await self._caption_place.acquire()
        session = self._session
        ask_id = self._caption_id()
        asked = Asked.about(
            session.frames.snapshot().since(period.start_s),
            ask_id=ask_id,
            prompt=session.prompt,
            sampling=session.settings.sampling,
            period=period,
            caption=session.num_captions,
        )
        question = self._opened(self._question_of(asked))
        question.num_arrived = self._prefetcher.num_arrived
        self._remember(asked, question)
        await self._keeping.keep()
        self._queue.put_nowait(question)

    def _question_of(self, asked: Asked) -> Question:
        """A caption's question."""
        return Question(
            ask_id=asked.ask_id,
            prompt=asked.prompt,
            sampling=asked.sampling,
            is_caption=True,
            asked_s=self._clock.now_s(),
            period=asked.period,
            asked=asked,
        )

    def _remember(self, asked: Asked, question: Question) -> None:
        question.asked = asked
        self._session.asked.add(asked, self._session.frames.generation)

    def close(self, question: Question) -> None:
        """The question has had its answer, or was refused."""
        del self._open[question.ask_id]
        if not self._open:
            self._none_open.set()

    def cancel(self, ask_id: str) -> None:
        """The answer ends where it is; nothing happens when it has ended or was never asked for."""
        question = self._open.get(ask_id)
        if question is not None:
            question.is_cancelled = True
        if self._current is not None and self._current[0] == ask_id:
            self._current[1].cancel()

    async def wait_answered(self) -> None:
        """No question is open."""
        await self._none_open.wait()

    async def run(self) -> None:
        """Answers one question after the other, until cancelled."""
        while True:
            question = await self._queue.get()
            if question.is_caption and not question.is_again:
                self._caption_place.release()
            await self._answer(question)
            self.close(question)

    async def _answer(self, question: Question) -> None:
        assert question.asked is not None  # it was placed
        try:
            await self._begin(question, question.asked)
            is_compared = question.is_caption and self._session.settings.mode is Mode.CHANGES
            previous = question.asked.previous if is_compared else None
            answer = Answer(question, self._outbox, self._clock, previous=previous)
            is_whole = not question.is_cancelled and await self._is_decoded(answer)
        except FlashSDError as error:
            await self._end(question.asked)
            await self._outbox.put(Refused(reason=str(error), code=error.grpc_status, ask_id=question.ask_id))
            return
        reason = (answer.last.finish_reason if is_whole else None) or FinishReason.CANCELLED
        if reason in (FinishReason.STOP, FinishReason.LENGTH) and not question.asked.is_done:
            self._keep(answer)
        await self._end(question.asked)
        await answer.finish(reason)

    async def _begin(self, question: Question, asked: Asked) -> None:
        """The question has its turn: what it looks at is here, and what was said before is settled.

        Raises:
            UnavailableError: the frames that it looked at are not there any more.
        """
        if asked.snapshot is None:
            asked.snapshot = await self._keeping.frames_of(asked)
        question.snapshot = asked.snapshot
        if asked.history is None:
            asked.history = History() if question.is_caption else self._session.history
            asked.previous = self._session.last_caption if question.is_caption else None
            await self._keeping.keep()

    async def _end(self, asked: Asked) -> None:
        """The answer is done with, before its client is told."""
        asked.is_done = True
        if self._keeping.is_shared:
            asked.snapshot = None  # the frames are kept elsewhere
        await self._keeping.keep()

    async def _is_decoded(self, answer: Answer) -> bool:
        # A task of its own: cancelling a question cancels that one. Being cancelled here means that the stream ends.
        task = asyncio.create_task(self._decode(answer))
        self._current = (answer.question.ask_id, task)
        try:
            await asyncio.wait({task})
        finally:
            self._current = None
            task.cancel()
            await asyncio.wait({task})
            error = None if task.cancelled() else task.exception()
        if error is not None:
            raise error
        return not task.cancelled()

    async def _decode(self, answer: Answer) -> None:
        question = answer.question
        history = question.asked.history if question.asked is not None and question.asked.history else History()
        request = CaptionRequest(
            request_id=self._session.request_id(),
            turns=history.turns(question.snapshot, question.prompt),
            sampling=question.sampling,
            draft_length=self._session.settings.draft_length,
            timeout_s=self._config.serving.request_timeout_s or None,
        )
        await answer.start(request.request_id)
        # A prefetch that is on its way does work that the answer would do a second time.
        await self._prefetcher.settled(question.num_arrived)
        await answer.decode(self._service, request)

    def _keep(self, answer: Answer) -> None:
        question, session = answer.question, self._session
        session.num_answers += 1
        if question.is_caption:
            session.last_caption = answer.text
        if question.keep_history:
            num_tokens = answer.last.num_prompt_tokens + answer.stats.num_new_tokens
            session.remember(question.snapshot, question.prompt, answer.text, num_tokens)
            self._prefetcher.history_changed()

    def _opened(self, question: Question) -> Question:
        self._open[question.ask_id] = question
        self._none_open.clear()
        return question

    def _caption_id(self) -> str:
        """The name of the next caption, which is counted."""
        while True:
            self._session.num_captions += 1
            if (name := f"caption-{self._session.num_captions}") not in self._open:
                return name

    def _fresh_id(self, kind: str) -> str:
        while True:
            self._num_named += 1
            if (name := f"{kind}-{self._num_named}") not in self._open:
                return name
