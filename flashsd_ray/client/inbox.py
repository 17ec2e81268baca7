"""What a live session was told: each event goes to whoever asked for it, the others to whoever watches the session."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from flashsd_ray.client.continuing import Given
from flashsd_ray.client.events import (
    AnswerDelta,
    AnswerEvent,
    AnswerFinished,
    AnswerStarted,
    Progress,
    Refused,
    Resumed,
    SessionEvent,
    closed_of,
    delta_of,
    finished_of,
    refused_of,
    started_of,
)
from flashsd_ray.client.outbox import Outbox
from flashsd_ray.errors import FlashSDError, UnavailableError
from flashsd_ray.wire.v1 import captioning_pb2 as pb

AnswerQueue = asyncio.Queue[AnswerEvent | FlashSDError]

ANSWER_EVENTS: dict[str, Callable[[Any], AnswerEvent]] = {
    "answer_started": started_of,
    "answer_delta": delta_of,
    "answer_finished": finished_of,
}


NUM_CAPTIONS_KNOWN = 64  # of late, by name: as many as can come twice


@dataclass(slots=True, eq=False)
class _Question:
    events: AnswerQueue = field(default_factory=asyncio.Queue)
    given: Given = field(default_factory=Given)


class Inbox:
    """The events that nobody has seen yet, and what they say about the session."""

    def __init__(self, outbox: Outbox) -> None:
        self.progress = Progress()
        self.ending: FlashSDError | None = None  # why nothing can be sent any more
        self.is_lost = False  # whether that is a failure
        self._outbox = outbox
        self._questions: dict[str, _Question] = {}
        self._abandoned: set[str] = set()  # questions whose answers nobody waits for
        self._captions: dict[str, Given] = {}  # answers that have begun by themselves
        self._ended: deque[str] = deque(maxlen=NUM_CAPTIONS_KNOWN)  # captions that were whole, or refused
        self.num_captions = 0  # that were whole, or refused
        self._events: asyncio.Queue[SessionEvent | None] = asyncio.Queue()  # None: nothing follows

    def expect(self, ask_id: str) -> AnswerQueue:
        """Where the events of the answer will be, the error that ends it among them."""
        question = self._questions[ask_id] = _Question()
        return question.events

    def open_questions(self) -> list[str]:
        """Ids of the questions whose answers have not ended."""
        return list(self._questions)

    def abandon(self, ask_id: str) -> bool:
        """Nobody waits for this answer; returns whether it had not ended."""
        is_open = self._questions.pop(ask_id, None) is not None
        if is_open:
            self._abandoned.add(ask_id)
        return is_open

    async def next_event(self) -> SessionEvent | None:
        """The next event that belongs to no question; None when nothing follows.

        Raises:
            FlashSDError: the session is lost.
        """
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)  # for whoever asks again
            if self.is_lost and self.ending is not None:
                raise self.ending
        return event

    def sent(self) -> None:
        """One more frame was handed over."""
        self.progress = replace(self.progress, num_sent=self.progress.num_sent + 1)

    def take(self, message: pb.StreamVideoEvent) -> None:
        """The event is where it belongs, and what it confirms will not be sent again."""
        kind = message.WhichOneof("event")
        if kind == "frame_ack":
            self._acknowledged(message.frame_ack)
        elif kind in ANSWER_EVENTS:
            self._answered(ANSWER_EVENTS[kind](getattr(message, kind)))
        elif kind == "refused":
            self._refused(refused_of(message.refused))
        elif kind == "closed":
            closed = closed_of(message.closed)
            self._events.put_nowait(closed)
            self.end(UnavailableError(f"the server has closed the session ({closed.reason})"))

    def interrupt(self, error: FlashSDError) -> None:
        """The connection is lost: questions are asked again, and of their answers what was given is left out."""
        for question in self._questions.values():
            question.given.restart()
        for given in self._captions.values():
            given.restart()
        self._abandoned.clear()

    def resume(self, opened: pb.Opened, *, is_first: bool) -> None:
        """A connection is there, and what the server does not hold will be sent on it."""
        num_confirmed, num_lost = self._outbox.rewind(opened.next_frame)
        self.progress = replace(self.progress, num_acknowledged=self.progress.num_acknowledged + num_confirmed)
        if not is_first:
            self._events.put_nowait(Resumed(next_frame=opened.next_frame, num_lost=num_lost))

    @property
    def is_over(self) -> bool:
        """Whether nothing follows."""
        return self.ending is not None

    def end(self, error: FlashSDError, *, is_lost: bool = False) -> None:
        """Nothing follows; questions that are open end with the error, and the session too if it is lost."""
        self.ending, self.is_lost = error, is_lost
        for question in self._questions.values():
            question.events.put_nowait(error)
        self._questions.clear()
        self._events.put_nowait(None)

    def _acknowledged(self, ack: pb.FrameAck) -> None:
        self.progress = replace(
            self.progress,
            num_acknowledged=self.progress.num_acknowledged + self._outbox.acknowledge(ack.frame),
            num_held=ack.frames_held,
            num_dropped=ack.frames_dropped,
            tokens_cached=ack.tokens_cached,
        )

    def _answered(self, event: AnswerEvent) -> None:
        ask_id, is_last = event.ask_id, isinstance(event, AnswerFinished)
        if is_last:
            self._outbox.settle(ask_id)
        question = self._questions.get(ask_id)
        if question is not None:
            self._tell(question.events, question.given, event)
        elif ask_id not in self._abandoned and ask_id not in self._ended:
            self._tell(self._events, self._captions.setdefault(ask_id, Given()), event)
            self._count_caption(ask_id, is_last=is_last)
        if is_last:
            self._forget(ask_id)

    def _tell(self, events: asyncio.Queue[Any], given: Given, event: AnswerEvent) -> None:
        """What is new of the answer is where it belongs."""
        if isinstance(event, AnswerStarted) and given.has_text:
            return  # it begins again, and its reader has its beginning
        if not isinstance(event, AnswerDelta):
            events.put_nowait(event)
            return
        try:
            fresh = given.fresh(event)
        except UnavailableError as error:
            events.put_nowait(error if event.ask_id in self._questions else _unusable(event.ask_id, error))
            self._questions.pop(event.ask_id, None)
            self._abandoned.add(event.ask_id)
            return
        if fresh is not None:
            events.put_nowait(fresh)

    def _count_caption(self, ask_id: str, *, is_last: bool) -> None:
        if is_last:
            self._captions.pop(ask_id, None)
            self._ended.append(ask_id)
            self.num_captions += 1

    def _refused(self, refused: Refused) -> None:
        if not refused.ask_id:
            is_frame = self._outbox.refuse(refused.frame or 0)
            self.progress = replace(self.progress, num_refused=self.progress.num_refused + is_frame)
            self._events.put_nowait(refused if is_frame else replace(refused, frame=None))
            return
        self._outbox.settle(refused.ask_id)
        question = self._questions.get(refused.ask_id)
        if question is not None:
            question.events.put_nowait(refused.error)
        elif refused.ask_id not in self._abandoned and refused.ask_id not in self._ended:
            self._events.put_nowait(refused)
            self._count_caption(refused.ask_id, is_last=True)
        self._forget(refused.ask_id)

    def _forget(self, ask_id: str) -> None:
        self._questions.pop(ask_id, None)
        self._abandoned.discard(ask_id)


def _unusable(ask_id: str, error: FlashSDError) -> Refused:
    """A caption that cannot be continued."""
    return Refused(reason=str(error), code=error.grpc_status, ask_id=ask_id)
