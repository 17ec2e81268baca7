"""A lane in a thread of its own, for callers that live in event loops.

The thread steps the lane while there is work and sleeps while there is none. Between two rounds it takes orders:
requests, cancellations, questions about its state. What rounds add to the answers goes to each subscriber in batches, so
that the cost of passing it on grows neither with the number of requests nor with the speed of the rounds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, Future
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.actors.subscription import Feed, Subscription
from flashsd_ray.actors.ward import Ward
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.engine.lane import Lane
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.errors import FlashSDError, InvalidRequestError, LaneLostError, NotTakingError, UnavailableError
from flashsd_ray.telemetry.lane_spans import LaneSpans
from flashsd_ray.telemetry.traces import Traces
from flashsd_ray.types import CaptionRequest, EncodedPrompt, FinishReason

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_FAILED_ROUNDS = 3  # in a row
LOOK_S = 1.0  # after which a question how the lane is, is answered although a round goes on
HELD_S = 0.05  # between two looks at the time of requests that may not be decoded yet


class LaneHost:
    """Owns a lane; every method may be called from any thread or event loop."""

    def __init__(
        self,
        lane: Lane,
        *,
        lane_id: str = "lane-0",
        free_rows: Callable[[], int] = lambda: 0,
        total_rows: int = 0,
        stream_interval_s: float = 0.0,
        round_timeout_s: float = math.inf,  # a round that takes so long will not end
        edge_timeout_s: float = math.inf,  # a subscriber that asks nothing for so long is lost
        clock: Callable[[], float] = time.monotonic,
        traces: Traces | None = None,
    ) -> None:
        self.lane_id = lane_id
        self._lane = lane
        self._spans = LaneSpans(traces or Traces(), lane_id)
        lane.on_open = self._spans.opened
        self._free_rows = free_rows
        self._total_rows = total_rows
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stream_interval_s = stream_interval_s
        self._subscribers: dict[str, Subscription] = {}
        self._subscriber_of: dict[str, str] = {}
        self._ward = Ward()
        self._round_timeout_s = round_timeout_s
        self._edge_timeout_s = edge_timeout_s
        self._clock = clock
        self._heard_s: dict[str, float] = {}  # of each subscriber: when it was heard of last
        self._round_began_s: float | None = None  # None: between two rounds
        self._last_status = LaneStatus(lane_id=lane_id)
        self._is_draining = False
        self._is_closed = False
        self._num_failed = 0  # rounds, since one that did not fail
        self._entrance = threading.Lock()  # nobody is behind the last order
        self._thread = threading.Thread(target=self._run, name=f"flashsd-{lane_id}", daemon=True)
        self._thread.start()

    async def feed(self, subscriber: str) -> AsyncGenerator[Feed, None]:
        """How the lane stands, then what its rounds give the subscriber's requests, until the lane closes.

        Leaving the generator cancels the requests that are still open.
        """
        mine = Subscription(self._stream_interval_s)
        status = await self._ask(lambda: self._subscribe(subscriber, mine))
        try:
            yield Feed(chunks=(), status=status)
            while (feed := await mine.take()) is not None:
                yield feed
        finally:
            self._order(lambda: self._unsubscribe(subscriber, mine))

    async def submit(
        self, subscriber: str, request: CaptionRequest, prompt: EncodedPrompt, *, encode_s: float = 0.0
    ) -> None:
        """The request waits for a place in the lane; its chunks go to the subscriber.

        Raises:
            InvalidRequestError: a limit is exceeded.
            OverloadedError: too many requests are waiting.
            DeadlineError: the request cannot be answered in its time.
            UnavailableError: the lane is draining or closed.
        """
        await self._ask(lambda: self._submit(subscriber, request, prompt, encode_s))

    async def reserve(
        self,
        subscriber: str,
        request_id: str,
        company: int,  # most requests that run together with it, itself included
    ) -> None:
        """The request, which lost a lane before, has a place that is its own; it is to be submitted or cancelled now.

        Raises:
            UnavailableError: the lane is draining or closed.
        """
        granted: Future[None] = Future()
        await self._ask(lambda: self._reserve(subscriber, request_id, company, granted))
        await asyncio.wrap_future(granted)

    async def cancel(self, request_id: str) -> None:
        """The request has ended and its rows are free; nothing happens to one that had ended before."""
        await self._ask(lambda: self._cancel(request_id))

    async def status(self, subscriber: str = "") -> LaneStatus:
        """How busy the lane is, between two rounds; in a long round, how busy it was before. The subscriber is there.

        Raises:
            UnavailableError: the lane is closed, or its thread will not come back from its round.
        """
        if subscriber in self._heard_s:
            self._heard_s[subscriber] = self._clock()
        self._order(self._leave_lost_edges)
        asking = asyncio.ensure_future(self._ask(self._status))
        done, _ = await asyncio.wait((asking,), timeout=LOOK_S)
        if done:
            return asking.result()
        asking.cancel()
        began_s = self._round_began_s
        round_s = 0.0 if began_s is None else self._clock() - began_s
        if round_s > self._round_timeout_s:
            raise UnavailableError(f"{self.lane_id} is in one round for {round_s:.0f} s (placement.round_timeout_s)")
        return replace(self._last_status, is_draining=self._is_draining)

    async def meters(self) -> LaneMeters:
        """The lane's totals, as they are between two rounds."""
        return await self._ask(lambda: deepcopy(self._lane.meters))

    async def drain(self) -> None:
        """New requests are refused; those that are open go on."""

        def stop_taking() -> None:
            self._is_draining = True

        await self._ask(stop_taking)

    async def close(self) -> None:
        """The thread has ended; requests that were open have ended with UnavailableError."""
        with self._entrance:
            was_closed, self._is_closed = self._is_closed, True
            if not was_closed:
                self._orders.put(None)
        if not was_closed:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _order(self, act: Callable[[], None]) -> bool:
        with self._entrance:
            if not self._is_closed:
                self._orders.put(act)
            return not self._is_closed

    async def _ask(self, act: Callable[[], T]) -> T:
        """The result of something done in the lane's thread."""
        return await asyncio.wrap_future(self.between_rounds(act))

    def between_rounds(self, act: Callable[[], T]) -> Future[T]:
        """What something comes to that is done in the lane's thread, after the round that goes on.

        Raises:
            UnavailableError: the lane is closed.
        """
        answer: Future[T] = Future()

        def run() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(act())
            except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
                answer.set_exception(error)

        if not self._order(run):
            raise UnavailableError(f"{self.lane_id} is closed")
        return answer

    # Everything below runs in the lane's thread.

    def _run(self) -> None:
        try:
            self._run_until_closed()
        except BaseException:
            log.exception("%s: its thread has failed", self.lane_id)
        with self._entrance:
            self._is_closed = True
        lost = UnavailableError(f"{self.lane_id} was closed")
        self._deliver(
            [Chunk(request_id=one, finish_reason=FinishReason.ERROR, error=lost) for one in self._subscriber_of]
        )
        for request_id in list(self._subscriber_of):
            self._ward.leave(request_id)
        for subscriber in self._subscribers.values():
            subscriber.put(None)
        self._refuse_orders()

    def _run_until_closed(self) -> None:
        while True:
            if not self._take_orders():
                break
            self._admit_suspects()
            if not self._lane.is_idle:
                self._round_began_s = self._clock()
                self._deliver(self._step())
                self._round_began_s = None
                self._admit_suspects()
        self._deliver(self._end_all(UnavailableError(f"{self.lane_id} was closed")))

    def _take_orders(self) -> bool:
        """Every order so far is carried out; False when the lane shall close."""
        must_wait = self._lane.is_idle or self._lane.is_held
        limit_s = None if self._lane.is_idle else HELD_S
        while True:
            try:
                order = self._orders.get(block=must_wait, timeout=limit_s if must_wait else None)
            except queue.Empty:
                return True
            if order is None:
                return False
            order()
            must_wait = False

    def _refuse_orders(self) -> None:
        # Whoever asked between the closing and now waits for an answer: carried out, its request ends at once.
        while True:
            try:
                order = self._orders.get_nowait()
            except queue.Empty:
                return
            if order is not None:
                self._is_draining = True
                order()

    def _step(self) -> list[Chunk]:
        try:
            chunks, self._num_failed = self._lane.step(), 0
            return chunks
        except Exception as error:
            self._num_failed += 1
            if self._num_failed >= MAX_FAILED_ROUNDS or isinstance(error, LaneLostError):
                raise  # the process is beyond help: whoever watches it starts another
            # A round that fails leaves the target and the drafter in doubt about every request in it.
            log.exception("%s: a round failed", self.lane_id)
            reason = str(error) if isinstance(error, FlashSDError) else type(error).__name__
            return self._end_all(UnavailableError(f"{self.lane_id}: a round failed ({reason})"))

    def _admit_suspects(self) -> None:
        ward, lane = self._ward, self._lane
        if not ward.is_empty:
            ward.admit(lane.num_running - sum(lane.has_place(one) for one in ward.placed))
        lane.holds_queue = not ward.is_empty

    def _end_all(self, error: FlashSDError) -> list[Chunk]:
        chunks = []
        for request_id in list(self._subscriber_of):
            self._lane.cancel(request_id)
            chunks.append(Chunk(request_id=request_id, finish_reason=FinishReason.ERROR, error=error))
        return chunks

    def _deliver(self, chunks: list[Chunk]) -> None:
        by_subscriber: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            self._spans.gave(chunk)
            name = self._subscriber_of.get(chunk.request_id)
            if name is not None:
                by_subscriber.setdefault(name, []).append(chunk)
                if chunk.finish_reason is not None:
                    self._forget(chunk.request_id)
        if by_subscriber:
            status = self._status()
            for name, mine in by_subscriber.items():
                self._subscribers[name].put(Feed(chunks=tuple(mine), status=status))

    def _status(self) -> LaneStatus:
        self._last_status = self._standing()
        return self._last_status

    def _standing(self) -> LaneStatus:
        return LaneStatus(
            lane_id=self.lane_id,
            num_waiting=self._lane.num_waiting,
            num_running=self._lane.num_running,
            free_rows=self._free_rows(),
            total_rows=self._total_rows,
            max_requests=self._lane.max_requests,
            is_draining=self._is_draining,
            has_suspects=not self._ward.is_empty,
            wait_s=self._lane.expected_wait_s,
        )

    def _subscribe(self, name: str, subscriber: Subscription) -> LaneStatus:
        if name in self._subscribers:
            self._unsubscribe(name, self._subscribers[name])  # it came back: the old connection is dead
        self._subscribers[name] = subscriber
        self._heard_s[name] = self._clock()
        return self._status()

    def _unsubscribe(self, name: str, subscriber: Subscription) -> None:
        if self._subscribers.get(name) is subscriber:
            del self._subscribers[name]
            self._heard_s.pop(name, None)
            for request_id in subscriber.request_ids:
                self._cancel(request_id)
            subscriber.put(None)

    def _leave_lost_edges(self) -> None:
        last_s = self._clock() - self._edge_timeout_s
        for name in [name for name, heard_s in self._heard_s.items() if heard_s < last_s]:
            log.warning("%s: the edge %s is lost", self.lane_id, name)
            self._unsubscribe(name, self._subscribers[name])

    def _reserve(self, name: str, request_id: str, company: int, granted: Future[None]) -> None:
        self._check_takes(name)
        if request_id in self._subscriber_of:
            raise InvalidRequestError(f"request {request_id} is submitted already")
        self._ward.wait(request_id, company, granted)
        self._subscriber_of[request_id] = name
        self._subscribers[name].open(request_id)

    def _check_takes(self, name: str) -> None:
        if self._is_draining:
            raise NotTakingError(f"{self.lane_id} takes no new requests")
        if name not in self._subscribers:
            raise NotTakingError(f"{self.lane_id} does not know the subscriber {name!r}")

    def _submit(self, name: str, request: CaptionRequest, prompt: EncodedPrompt, encode_s: float) -> None:
        is_next = request.request_id in self._ward.placed
        if not is_next:
            self._check_takes(name)
        self._lane.submit(request, prompt, encode_s=encode_s, is_next=is_next)
        self._spans.submitted(request)
        self._subscriber_of[request.request_id] = name
        self._subscribers[name].open(request.request_id)

    def _cancel(self, request_id: str) -> None:
        last = self._lane.cancel(request_id)
        if last is not None:
            self._spans.gave(last)
        self._forget(request_id)

    def _forget(self, request_id: str) -> None:
        self._ward.leave(request_id)
        name = self._subscriber_of.pop(request_id, None)
        if name is not None and name in self._subscribers:
            self._subscribers[name].forget(request_id)


class BetweenRounds(Executor):
    """Work for a lane's thread: of two threads that compute on one core, one often waits for what the other holds."""

    def __init__(self, host: LaneHost) -> None:
        self._host = host

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """The work is done between two rounds; raises as ``LaneHost.between_rounds``."""
        return self._host.between_rounds(partial(fn, *args, **kwargs))
