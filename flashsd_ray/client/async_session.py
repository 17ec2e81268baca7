"""A live session for asyncio: frames go out, answers come in, and a lost connection is made again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any

import grpc

from flashsd_ray.client.calls import Calls
from flashsd_ray.client.events import AnswerEvent, AnswerFinished, Progress, SessionEvent
from flashsd_ray.client.inbox import Inbox
from flashsd_ray.client.outbox import Outbox
from flashsd_ray.client.pictures import Source
from flashsd_ray.client.requests import ask_of, frame_of
from flashsd_ray.client.retries import Attempts
from flashsd_ray.errors import DeadlineError, FlashSDError, SequenceError, UnavailableError
from flashsd_ray.timeouts import within
from flashsd_ray.types import SamplingParams
from flashsd_ray.wire.v1 import captioning_pb2 as pb

# How long a server may take to say goodbye to a client that waits for no answer any more.
CLOSING_S = 5.0


class AsyncSession:
    """One live video on a server, as an async context manager; leaving it ends the session politely.

    Frames that the server has not acknowledged are kept, and sent again when the connection was lost.
    """

    def __init__(self, calls: Calls, opening: pb.Open) -> None:
        self._calls = calls
        self._opening = opening
        self._is_continued = bool(opening.session_id)  # what an earlier client has of it is not known here
        self._outbox = Outbox()
        self._inbox = Inbox(self._outbox)
        self._attempts = Attempts(calls.options.retries, calls.options.timing, None)
        self._ask_ids = (f"ask-{number}" for number in count(1))
        self._max_waiting_frames = 0
        self._has_ended = False  # by the client
        self._has_work = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_connected = asyncio.Event()  # the server has opened the session on the present connection
        self._was_opened = False  # by the server, once
        self._is_decided = asyncio.Event()  # the session has been opened once, or never will be
        self._task: asyncio.Task[None] | None = None

    @property
    def session_id(self) -> str:
        """Names the session, for whoever continues it."""
        return self._opening.session_id

    @property
    def resume_token(self) -> str:
        """Proves that whoever continues the session may."""
        return self._opening.resume_token

    @property
    def next_frame(self) -> int:
        """Index of the next frame that is sent; above 0 at the start of a session that is continued."""
        return self._outbox.next_frame

    @property
    def progress(self) -> Progress:
        """How far the frames have come."""
        return self._inbox.progress

    async def __aenter__(self) -> AsyncSession:
        """The session is open.

        Raises:
            FlashSDError: the server cannot be reached, or refuses.
        """
        self._task = asyncio.create_task(self._run())
        limit_s = self._calls.options.timeout_s
        try:
            await within(limit_s, self._is_decided.wait())
        except asyncio.TimeoutError:
            raise DeadlineError(f"the session was not opened within {limit_s:g} s") from None
        finally:
            if not self._is_decided.is_set():
                self._task.cancel()
        if not self._was_opened and self._inbox.ending is not None:
            raise self._inbox.ending
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def send(
        self,
        frame: Source,  # pixels [H, W, 3] uint8, a path, or the bytes of a picture file
        timestamp_s: float | None = None,  # video time, not decreasing; None: the server counts
    ) -> None:
        """The frame is on its way; waits while the server is behind by as many frames as it allows.

        Raises:
            FlashSDError: the frame cannot be sent, or the session is over.
        """
        self._check_open()
        message = await self._calls.built(partial(frame_of, frame, timestamp_s), self._calls.attempts(None))
        while not self._has_room.is_set():
            await self._has_room.wait()
        self._check_open()
        self._outbox.put_frame(message)
        self._inbox.sent()
        self._update()

    async def ask(
        self,
        prompt: str = "",  # empty: the session's
        *,
        sampling: SamplingParams | None = None,  # None: the session's
        keep_history: bool = False,  # later questions see this question and its answer
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The events of the answer to a question about the frames sent so far, asked when the first is waited for.

        Closing the generator cancels the question. When the connection is lost it is asked again, about the frames of
        its time, and what was given is left out: nothing repeats and nothing is missing.

        Raises:
            FlashSDError: the question was refused, its answer was cut off, or the session is over.
        """
        self._check_open()
        ask = ask_of(next(self._ask_ids), prompt, sampling, keep_history=keep_history)
        events = self._inbox.expect(ask.ask_id)
        self._outbox.put_ask(ask)
        self._update()
        try:
            event: AnswerEvent | FlashSDError | None = None
            while not isinstance(event, AnswerFinished):
                event = await events.get()
                if isinstance(event, FlashSDError):
                    raise event
                yield event
        finally:
            self._withdraw(ask.ask_id)

    async def answer(
        self, prompt: str = "", *, sampling: SamplingParams | None = None, keep_history: bool = False
    ) -> AnswerFinished:
        """The whole answer to a question about the frames sent so far; takes and raises what ``ask`` does."""
        async with aclosing(self.ask(prompt, sampling=sampling, keep_history=keep_history)) as events:
            async for event in events:
                if isinstance(event, AnswerFinished):
                    return event
        raise UnavailableError("the session ended before the answer")

    async def set_prompt(self, prompt: str) -> None:
        """From here on the session asks this.

        Raises:
            FlashSDError: the session is over.
        """
        self._check_open()
        self._outbox.put_prompt(prompt)
        self._update()

    async def end(self) -> None:
        """The server knows that nothing more will be sent; what is open it still answers.

        Raises:
            FlashSDError: the session is over.
        """
        self._check_open()
        self._end()

    async def events(self) -> AsyncGenerator[SessionEvent, None]:
        """What the server says by itself: captions of the modes that make them, refused frames, the close.

        Raises:
            FlashSDError: the session is lost.
        """
        while (event := await self._inbox.next_event()) is not None:
            yield event

    async def close(self) -> None:
        """The session is over: open questions are cancelled, and the server was told."""
        if self._task is None:
            return
        if not self._inbox.is_over:
            for ask_id in self._inbox.open_questions():
                self._withdraw(ask_id)
            if not self._has_ended:
                self._end()
            await asyncio.wait((self._task,), timeout=CLOSING_S)
        self._task.cancel()
        await asyncio.wait((self._task,))

    def _end(self) -> None:
        self._has_ended = True
        self._outbox.put_end()
        self._update()

    def _withdraw(self, ask_id: str) -> None:
        if self._inbox.abandon(ask_id):
            self._outbox.withdraw(ask_id)
            self._update()

    def _check_open(self) -> None:
        if self._task is None:
            raise SequenceError("a session is opened by `with client.watch(...) as session`")
        if self._inbox.ending is not None:
            raise self._inbox.ending
        if self._has_ended:
            raise SequenceError("the session has ended; nothing more can be sent")

    def _update(self) -> None:
        _set(self._has_work, self._outbox.has_unwritten)
        _set(self._has_room, self._outbox.num_frames < self._max_waiting_frames or self._inbox.is_over)

    async def _run(self) -> None:
        failure: FlashSDError = UnavailableError("the session was closed")
        try:
            while (lost := await self._connection()) is not None:
                self._inbox.interrupt(lost)
                await self._attempts.failed(lost)
        except FlashSDError as error:
            failure = error
        finally:
            if not self._inbox.is_over:
                self._inbox.end(failure, is_lost=True)
            self._is_decided.set()
            self._update()

    async def _connection(self) -> FlashSDError | None:
        """One connection from its opening to its end: why it was lost, None when the session is over."""
        self._is_connected.clear()
        if self._is_decided.is_set() and not self._is_continued:
            self._opening.captions_received = self._inbox.num_captions
        call = self._calls.stub.StreamVideo(metadata=self._calls.metadata())
        writer = asyncio.create_task(self._write(call))
        try:
            async for message in call:
                if message.closed.reason == pb.Closed.REASON_DRAINING:
                    return UnavailableError("the server is shutting down", retry_after_s=0.0)
                self._take(message)
            lost: FlashSDError = UnavailableError("the server closed the session's connection", retry_after_s=0.0)
        except grpc.aio.AioRpcError as failure:
            lost = self._calls.error(failure)
        finally:
            writer.cancel()
            call.cancel()
        return None if self._inbox.is_over else lost

    async def _write(self, call: Any) -> None:
        # Whoever reads learns why a connection ended.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(pb.StreamVideoRequest(open=self._opening))
            await self._is_connected.wait()
            while True:
                await self._has_work.wait()
                message = self._outbox.write()
                self._update()
                if message is None:
                    continue  # a question was withdrawn in the meantime
                await call.write(message)
                if message.HasField("end"):
                    await call.done_writing()
                    return

    def _take(self, message: pb.StreamVideoEvent) -> None:
        if message.HasField("opened"):
            self._opened(message.opened)
        else:
            self._attempts.succeeded()
            self._inbox.take(message)
        self._update()

    def _opened(self, opened: pb.Opened) -> None:
        self._opening.session_id, self._opening.resume_token = opened.session_id, opened.resume_token
        self._max_waiting_frames = max(opened.max_waiting_frames, 1)
        self._inbox.resume(opened, is_first=not self._is_decided.is_set())
        self._was_opened = True
        self._is_connected.set()
        self._is_decided.set()


def _set(event: asyncio.Event, is_set: bool) -> None:
    if is_set:
        event.set()
    else:
        event.clear()
