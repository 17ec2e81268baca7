"""Conversations of many callers through one encoder: pictures that arrive together share the tower's forwards.

Everything but the encoder itself runs on one event loop; the encoder runs in one thread, a turn at a time. A turn
begins when enough frames wait, or when the first of them has waited long enough. Who lost an encoder before is encoded
alone: it waits with a ticket, and hands over its conversation only when the turn is its own, so that whoever lost the
encoder meanwhile knows that it only waited.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from flashsd_ray.config import EncodingConfig
from flashsd_ray.errors import FlashSDError, InvalidRequestError, NotTakingError, OverloadedError, UnavailableError
from flashsd_ray.types import Conversation, EncodedPrompt

logger = logging.getLogger(__name__)

Outcome = EncodedPrompt | FlashSDError
REDEEM_S = 10.0  # an encoder waits so long for somebody whose turn has come


class BatchEncoder(Protocol):
    """An encoder that takes several conversations at once; it is called from one thread."""

    num_frames: int  # of all conversations so far
    num_frames_encoded: int  # those of them that went through the vision tower

    def encode_each(self, conversations: Sequence[Conversation]) -> Sequence[EncodedPrompt | InvalidRequestError]:
        """Each conversation with visual features in place, or why it cannot be encoded."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderStatus:
    """What one encoder is busy with, and what it has done."""

    num_waiting: int  # requests
    num_waiting_frames: int
    num_running: int  # requests in the turn that is being encoded
    num_frames: int  # of all requests so far
    num_cached_frames: int  # those of them that did not go through the vision tower
    busy_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    conversation: Conversation
    weight: int  # frames; at least one, so that texts are bounded too
    arrived_s: float
    outcome: asyncio.Future[EncodedPrompt]


@dataclass(frozen=True, slots=True, eq=False)
class _Ticket:
    """Stands in the queue for a conversation that is handed over when its turn has come."""

    granted: asyncio.Future[None]
    handed_over: asyncio.Future[_Waiting]
    weight: int = 1
    arrived_s: float = 0.0  # its turn need not wait for others


class EncoderHost:
    """Stands before one encoder; all methods are called on one event loop."""

    def __init__(
        self,
        encoder: BatchEncoder,
        config: EncodingConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        executor: Executor | None = None,  # that does one thing after the other; None: a thread of its own
    ) -> None:
        self._encoder = encoder
        self._config = config
        self._clock = clock
        self._sleep = sleep
        self._thread = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")
        self._waiting: deque[_Waiting | _Ticket] = deque()
        self._tickets: dict[str, _Ticket] = {}
        self._is_full = asyncio.Event()
        self._turns: asyncio.Task[None] | None = None
        self._num_running = 0
        self._busy_s = 0.0
        self._is_closed = False

    async def reserve(self, ticket: str) -> None:
        """The turn has come of the conversation that will be encoded with this ticket, alone.

        Raises:
            InvalidRequestError: the ticket is in use.
            UnavailableError: the encoder is closed.
        """
        if self._is_closed:
            raise NotTakingError("the encoder is closed")
        if ticket in self._tickets:
            raise InvalidRequestError("the ticket is in use")
        loop = asyncio.get_running_loop()
        mine = self._tickets[ticket] = _Ticket(loop.create_future(), loop.create_future())
        self._enqueue(mine)
        try:
            await mine.granted
        except BaseException:
            self._tickets.pop(ticket, None)
            mine.handed_over.cancel()
            raise

    async def encode(
        self,
        conversation: Conversation,
        ticket: str = "",  # one that was reserved; empty: others may share the turn
    ) -> EncodedPrompt:
        """The conversation with visual features in place; a caller that goes away is forgotten.

        Raises:
            InvalidRequestError: the model cannot take this combination of text and pictures.
            OverloadedError: too many frames are waiting.
            UnavailableError: the encoder is closed.
        """
        if self._is_closed:
            raise NotTakingError("the encoder is closed")
        weight = max(1, sum(len(visual.frames) for visual in conversation.visuals))
        self._check_weight(weight)
        waiting = _Waiting(conversation, weight, self._clock(), asyncio.get_running_loop().create_future())
        if ticket:
            self._hand_over(ticket, waiting)
        else:
            self._check_room(weight)
            self._enqueue(waiting)
        try:
            return await waiting.outcome
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            raise

    def status(self) -> EncoderStatus:
        """How the encoder is now."""
        return EncoderStatus(
            num_waiting=len(self._waiting),
            num_waiting_frames=self._num_waiting_frames,
            num_running=self._num_running,
            num_frames=self._encoder.num_frames,
            num_cached_frames=self._encoder.num_frames - self._encoder.num_frames_encoded,
            busy_s=self._busy_s,
        )

    async def close(self) -> None:
        """Nothing is encoded any more; who was still waiting has an UnavailableError."""
        self._is_closed = True
        closed = UnavailableError("the encoder was closed")
        while self._waiting:
            one = self._waiting.popleft()
            if isinstance(one, _Waiting):
                _deliver(one, closed)
            elif not one.granted.done():
                one.granted.set_exception(closed)
        self._is_full.set()
        if self._turns is not None:
            await asyncio.wait([self._turns])
        self._thread.shutdown(wait=False)

    @property
    def _num_waiting_frames(self) -> int:
        return sum(waiting.weight for waiting in tuple(self._waiting))  # health checks ask from another thread

    def _enqueue(self, one: _Waiting | _Ticket) -> None:
        self._waiting.append(one)
        self._tell_fullness()
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns())

    def _check_weight(self, weight: int) -> None:
        limit = self._config.max_waiting_frames
        if weight > limit:
            raise InvalidRequestError(f"encoding.max_waiting_frames allows {limit}, the request has {weight}")

    def _hand_over(self, ticket: str, waiting: _Waiting) -> None:
        reserved = self._tickets.pop(ticket, None)
        if reserved is None or reserved.handed_over.done():
            raise NotTakingError("the turn of this ticket is over")
        reserved.handed_over.set_result(waiting)

    def _check_room(self, weight: int) -> None:
        limit = self._config.max_waiting_frames
        if self._num_waiting_frames + weight > limit:
            raise OverloadedError(f"encoding.max_waiting_frames allows {limit}, and {self._num_waiting_frames} wait")

    def _tell_fullness(self) -> None:
        if self._num_waiting_frames >= self._config.batch_frames:
            self._is_full.set()
        else:
            self._is_full.clear()

    async def _take_turns(self) -> None:
        while self._waiting:
            await self._gather()
            turn = await self._next_turn()
            if turn:
                await self._run(turn)

    async def _gather(self) -> None:
        """Enough frames wait, or the first of them has waited long enough."""
        left_s = self._waiting[0].arrived_s + self._config.batch_wait_s - self._clock()
        self._tell_fullness()
        if left_s <= 0 or self._is_full.is_set():
            return
        either = [asyncio.ensure_future(self._sleep(left_s)), asyncio.ensure_future(self._is_full.wait())]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in either:
                one.cancel()

    async def _next_turn(self) -> list[_Waiting]:
        turn: list[_Waiting] = []
        room = self._config.batch_frames
        while self._waiting and (not turn or self._waiting[0].weight <= room):
            first = self._waiting[0]
            if isinstance(first, _Ticket) and turn:
                break
            self._waiting.popleft()
            if isinstance(first, _Ticket):
                return await self._redeem(first)
            turn.append(first)
            room -= first.weight
        return turn

    async def _redeem(self, ticket: _Ticket) -> list[_Waiting]:
        """The conversation that the ticket stood for; nothing if nobody comes with it."""
        if ticket.granted.done() or ticket.handed_over.done():
            return []
        ticket.granted.set_result(None)
        await asyncio.wait((ticket.handed_over,), timeout=REDEEM_S)
        if ticket.handed_over.cancel():
            self._tickets = {key: one for key, one in self._tickets.items() if one is not ticket}
            return []
        return [ticket.handed_over.result()] if not ticket.handed_over.cancelled() else []

    async def _run(self, turn: Sequence[_Waiting]) -> None:
        self._num_running = len(turn)
        began_s = self._clock()
        try:
            outcomes = await self._outcomes([waiting.conversation for waiting in turn])
        finally:
            self._busy_s += self._clock() - began_s
            self._num_running = 0
        for waiting, outcome in zip(turn, outcomes, strict=True):
            _deliver(waiting, outcome)

    async def _outcomes(self, conversations: Sequence[Conversation]) -> Sequence[Outcome]:
        loop = asyncio.get_running_loop()
        try:
            running = loop.run_in_executor(self._thread, self._encoder.encode_each, conversations)
        except UnavailableError as error:  # whoever does the work is closed
            return [error] * len(conversations)
        (outcomes,) = await asyncio.gather(running, return_exceptions=True)
        if not isinstance(outcomes, BaseException):
            return outcomes
        if len(conversations) > 1:  # one of them broke the turn of all: each gets its own
            return [(await self._outcomes([conversation]))[0] for conversation in conversations]
        if isinstance(outcomes, FlashSDError):
            return [outcomes]
        logger.error("encoding failed", exc_info=outcomes)
        failure = FlashSDError(f"the encoder failed on this request: {type(outcomes).__name__}")
        failure.__cause__ = outcomes
        return [failure]


def _deliver(waiting: _Waiting, outcome: Outcome) -> None:
    if waiting.outcome.done():  # the caller went away
        return
    if isinstance(outcome, FlashSDError):
        waiting.outcome.set_exception(outcome)
    else:
        waiting.outcome.set_result(outcome)
