"""The tasks between one client and its session.

Four of them run beside each other. The *reader* takes messages off the wire and obeys ``Cancel`` at once. The *intake*
looks at all others in their order: it brings frames into the session's window and gives questions what they look at.
The *prefetcher* follows with the window's keys and values and acknowledges; *answers* decodes one answer at a time.

Refused or raised: a message that cannot be used is answered with ``Refused``, and the session goes on. An error is
raised, and the stream ends, where nothing that follows would make sense: no ``Open`` at the start, a session that does
not exist, a session that goes on in another stream.

Flow control: reading pauses while ``sessions.max_waiting_frames`` frames are not acknowledged, or more than
``sessions.max_frame_bytes`` wait to be decoded. Nothing that is waited for depends on what is still to be read, so a
client that sends ahead is slowed down and no more; one that keeps to both limits has its ``Cancel`` read at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeAlias

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError, InvalidRequestError, SequenceError
from flashsd_ray.sessions.answer import Question
from flashsd_ray.sessions.answering import Answers
from flashsd_ray.sessions.events import (
    Ask,
    Cancel,
    Closed,
    CloseReason,
    End,
    Input,
    Mode,
    Open,
    Opened,
    Output,
    PushChunk,
    PushFrame,
    Refused,
    SetPrompt,
    Unusable,
)
from flashsd_ray.sessions.intake import Intake
from flashsd_ray.sessions.mailboxes import Inbox, Outbox
from flashsd_ray.sessions.periods import Period
from flashsd_ray.sessions.prefetching import Prefetcher
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.sessions.session import Session
from flashsd_ray.sessions.settings import check_text

Message: TypeAlias = Open | PushFrame | PushChunk | SetPrompt | Unusable | Question


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """None of the tasks runs any more."""
    pending = {task for task in tasks if not task.done()}
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)


class LiveStream:
    """One client's connection to its session; its tasks run from construction until ``stop``."""

    def __init__(
        self,
        session: Session,
        inputs: AsyncIterator[Input],
        service: CaptionService,
        sessions: SessionRegistry,
        config: Config,
        *,
        captions_received: int | None = None,  # by an earlier stream of the session; None: that is not known
    ) -> None:
        limits, timeout_s = config.sessions, config.serving.request_timeout_s or None
        self._session = session
        self._inputs = inputs
        self._sessions = sessions
        self._config = config
        self._clock = sessions.clock
        self._places = asyncio.Semaphore(limits.max_waiting_frames)
        self._inbox: Inbox[Message] = Inbox(
            limits.max_waiting_frames + limits.max_waiting_asks + 1, limits.max_frame_bytes
        )
        self._outbox = Outbox(limits.max_waiting_events)
        self._keeping = keeping = sessions.keeping(session)
        self._prefetcher = Prefetcher(session, service, self._outbox, self._places, keeping, timeout_s=timeout_s)
        self._answers = Answers(session, service, self._prefetcher, self._outbox, config, self._clock, keeping)
        self._answers.resume(captions_received)
        self._intake = Intake(session, self._prefetcher, self._places, config, self._clock, self._answers.place_caption)
        self._source: type[PushFrame] | type[PushChunk] | None = None  # what the frames of this stream come as
        self._closing: CloseReason | None = None
        self._is_over = False
        self._is_obeying = False
        self._active_s = self._clock.now_s()
        sessions.attach(session, self)
        works = (self._read(), self._obey_all(), self._prefetcher.run(), self._answers.run(), self._watch_silence())
        self._tasks: list[asyncio.Task[None]] = [asyncio.create_task(work) for work in works]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)

    @property
    def opened(self) -> Opened:
        """What the client is told first."""
        session, policy = self._session, self._session.settings.policy
        return Opened(
            session_id=session.session_id,
            resume_token=session.resume_token,
            model=session.settings.model,
            keep_first=policy.keep_first,
            max_frames=policy.max_frames,
            max_waiting_frames=self._config.sessions.max_waiting_frames,
            next_frame=session.next_frame,
        )

    async def next_event(self) -> Output | None:
        """What the client is told next; None when that is nothing.

        Raises:
            FlashSDError: the stream has ended with it.
        """
        event = await self._outbox.get()
        self._active_s = self._clock.now_s()
        return event

    def close(self, reason: CloseReason) -> None:
        """Nothing more is read; what is open is answered, then the stream ends."""
        self._begin_closing(reason)
        for reader in self._tasks[:1]:
            reader.cancel()

    async def stop(self, error: FlashSDError | None = None) -> None:
        """Nothing of the stream runs; its client, if it still reads, gets the error. Stopping twice is allowed."""
        self._outbox.end(error)
        try:
            await cancel(self._tasks)
            await self._intake.close()
        finally:
            self._tasks.clear()  # they hold this stream, and through it every frame of the session
            self._sessions.release(self._session, self, is_over=self._is_over)
            if self._is_over:
                await self._keeping.forget()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._outbox.end(error)

    def _begin_closing(self, reason: CloseReason) -> None:
        if self._closing is None:
            self._closing = reason
            self._inbox.end()

    async def _read(self) -> None:
        async for message in self._inputs:
            self._active_s = self._clock.now_s()
            if isinstance(message, End):
                self._begin_closing(CloseReason.END)
                return
            try:
                await self._accept(message)
            except FlashSDError as error:
                await self._refuse(error, message)
        # The client is lost.
        self._outbox.end()
        for task in self._tasks[1:]:
            task.cancel()

    async def _accept(self, message: Input) -> None:
        match message:
            case Cancel():
                self._answers.cancel(message.ask_id)
            case Ask():
                await self._accept_question(self._answers.register(message))
            case PushFrame():
                self._check_source(PushFrame)
                await self._places.acquire()
                await self._inbox.put(message, message.num_bytes)
            case PushChunk():
                self._check_source(PushChunk)
                await self._inbox.put(message, len(message.data))
            case Open() | SetPrompt() | Unusable():
                await self._inbox.put(message)

    async def _accept_question(self, question: Question) -> None:
        try:
            await self._inbox.put(question)
        except asyncio.CancelledError:
            self._answers.close(question)  # nobody will look at it, so nobody may wait for its answer
            raise

    def _check_source(self, kind: type[PushFrame] | type[PushChunk]) -> None:
        self._source = self._source or kind
        if kind is not self._source:
            raise SequenceError("a stream carries either frames or one container")

    async def _obey_all(self) -> None:
        while (message := await self._inbox.get()) is not None:
            self._is_obeying = True
            try:
                await self._obey(message)
            except FlashSDError as error:
                await self._refuse(error, message)
            self._is_obeying = False
        await self._finish()

    async def _obey(self, message: Message) -> None:
        match message:
            case PushFrame():
                await self._intake.frame(message)
            case PushChunk():
                await self._intake.chunk(message)
            case Question():
                self._answers.place(message)
                await self._keeping.keep()
            case SetPrompt():
                self._set_prompt(message.prompt)
            case Unusable():
                if self._is_numbered(message):
                    self._intake.count_refused()
                raise message.error
            case Open():
                raise SequenceError("the session is open already")

    async def _refuse(self, error: FlashSDError, message: Input | Message) -> None:
        if isinstance(message, Question):
            self._answers.close(message)
        await self._outbox.put(
            Refused(
                reason=str(error),
                code=error.grpc_status,
                ask_id=message.ask_id if isinstance(message, Question | Ask | Unusable) else "",
                frame=self._session.next_frame - 1 if self._is_numbered(message) else None,
            )
        )

    def _is_numbered(self, message: Input | Message) -> bool:
        is_frame = isinstance(message, PushFrame) or (isinstance(message, Unusable) and message.kind == "frame")
        return is_frame and self._source is not PushChunk

    def _set_prompt(self, prompt: str) -> None:
        check_text(prompt, self._config)
        if not prompt and self._session.settings.mode is not Mode.ON_DEMAND:
            raise InvalidRequestError(f"mode {self._session.settings.mode.value} needs a prompt")
        self._session.prompt = prompt

    async def _finish(self) -> None:
        session, reason = self._session, self._closing
        assert reason is not None
        await self._intake.close()
        period = session.periods.current if session.periods is not None else None
        if period is not None and reason is CloseReason.END:
            end_s = session.now_s if session.now_s > period.start_s else period.end_s
            await self._answers.place_caption(Period(start_s=period.start_s, end_s=end_s))
        await self._prefetcher.finish()
        await self._answers.wait_answered()
        self._is_over = reason is CloseReason.END
        await self._outbox.put(Closed(reason=reason, frames_seen=session.next_frame, answers=session.num_answers))
        self._outbox.end()

    async def _watch_silence(self) -> None:
        timeout_s = self._config.sessions.idle_timeout_s
        while (left_s := self._active_s + timeout_s - self._clock.now_s()) > 0 or self._is_busy:
            await self._clock.sleep(left_s if left_s > 0 else timeout_s)
        self.close(CloseReason.IDLE)

    @property
    def _is_busy(self) -> bool:
        return bool(self._answers.num_open or self._prefetcher.num_open or len(self._inbox) or self._is_obeying)
