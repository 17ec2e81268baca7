"""The CaptionService in front of lanes and encoders, wherever those run.

A request is encoded, goes to the lane that may hold its prefix, and its chunks come back in that lane's feed. When a
lane is lost, its requests go to another one: an answer is a function of its request, so decoding it again and leaving
out what was delivered already continues it without gap or repetition.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from flashsd_ray.actors.service import LaneStatus, ModelCard, ServiceStatus
from flashsd_ray.actors.subscription import Feed
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.errors import DeadlineError, FlashSDError, InvalidRequestError, OverloadedError, UnavailableError
from flashsd_ray.scheduling.routing import LaneLoad, choose_lane
from flashsd_ray.types import CaptionRequest, Conversation, FinishReason

log = logging.getLogger(__name__)

MAX_MOVES = 3  # lanes that may be lost under one request before it is given up
SECOND_LOOK_S = 0.5  # after which a lane that failed a request may be tried with it again
STATUS_S = 2.0  # longest wait for a lane to say how it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A prompt ready for a lane, or a reference to one that only lanes look into."""

    prompt: Any
    encode_s: float = 0.0


class EncoderClient(Protocol):
    """A way to an encoder."""

    @property
    def encoder_id(self) -> str:
        """Its name."""
        ...

    async def encode(self, conversation: Conversation, trace: str = "") -> Encoded:
        """The encoded prompt; the time it takes belongs to this trace.

        Raises:
            InvalidRequestError: the model cannot take this conversation.
            OverloadedError: too much waits for the encoder.
            UnavailableError: the encoder is lost.
        """
        ...


class LaneClient(Protocol):
    """A way to a lane; raises UnavailableError everywhere once the lane is lost."""

    @property
    def lane_id(self) -> str:
        """Its name."""
        ...

    def feed(self) -> AsyncGenerator[Feed, None]:
        """What every round gives the requests that were submitted through this client; first, how the lane stands."""
        ...

    async def submit(self, request: CaptionRequest, encoded: Encoded) -> None:
        """The request waits for a place in the lane."""
        ...

    async def cancel(self, request_id: str) -> None:
        """The request has ended."""
        ...

    async def status(self) -> LaneStatus:
        """How busy it is."""
        ...

    async def meters(self) -> LaneMeters:
        """What it has counted so far."""
        ...


@dataclass(slots=True, eq=False)
class _Open:
    """A request in flight."""

    request: CaptionRequest
    lane_id: str
    arrived: asyncio.Queue[Chunk]


@dataclass(slots=True, eq=False)
class _Delivered:
    """What the caller has of an answer, so that a second decoding continues where the first one was lost."""

    token_ids: list[int] = field(default_factory=list)
    num_characters: int = 0
    skip_tokens: int = 0
    skip_characters: int = 0

    def restart(self) -> None:
        """The answer is decoded from its beginning again."""
        self.skip_tokens, self.skip_characters = len(self.token_ids), self.num_characters

    def take(self, chunk: Chunk) -> Chunk:
        """The part of the chunk that the caller does not have.

        Raises:
            FlashSDError: the second decoding differs from the first, so nothing may be put behind what was delivered.
        """
        again = chunk.token_ids[: self.skip_tokens]
        first = len(self.token_ids) - self.skip_tokens
        if chunk.error is None and tuple(self.token_ids[first : first + len(again)]) != again:
            raise FlashSDError("decoded again after a loss, the answer came out differently")
        tokens, text = chunk.token_ids[self.skip_tokens :], chunk.text[self.skip_characters :]
        logprobs = chunk.logprobs[self.skip_tokens :]
        self.skip_tokens = max(0, self.skip_tokens - len(chunk.token_ids))
        self.skip_characters = max(0, self.skip_characters - len(chunk.text))
        self.token_ids.extend(tokens)
        self.num_characters += len(text)
        accepted = min(chunk.num_accepted, len(tokens))
        return replace(chunk, token_ids=tokens, text=text, logprobs=logprobs, num_accepted=accepted)


class Router:
    """Keeps the protocol of actors/service.py over any number of lanes and encoders."""

    def __init__(
        self,
        card: ModelCard,
        *,
        patience_s: float = 30.0,  # longest wait for a lane in place of one that was lost
        clock: Callable[[], float] = time.monotonic,
        on_lost: Callable[[str], None] = lambda name: None,  # told of lanes and encoders that do not answer
    ) -> None:
        self._card = card
        self._patience_s = patience_s
        self._clock = clock
        self._on_lost = on_lost
        self._lanes: dict[str, LaneClient] = {}
        self._statuses: dict[str, LaneStatus] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._encoders: list[EncoderClient] = []
        self._next_encoder = 0
        self._open: dict[str, _Open] = {}
        self._num_in_flight = 0  # being encoded included
        self._to_cancel: asyncio.Queue[tuple[LaneClient, str, asyncio.Future[None]]] = asyncio.Queue()
        self._cancelling: set[asyncio.Task[None]] = set()
        self._canceller: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._is_closed = False
        self.degraded: tuple[str, ...] = ()

    @property
    def card(self) -> ModelCard:
        """The model behind the service."""
        return self._card

    def set_encoders(self, encoders: Sequence[EncoderClient]) -> None:
        """These encoders are used from now on."""
        self._encoders = list(encoders)
        self._wake()

    def set_lanes(self, lanes: Sequence[LaneClient]) -> None:
        """These lanes take requests as soon as their feed begins; requests of a lane that is gone move to another."""
        self._canceller = self._canceller or asyncio.create_task(self._cancel_forever())
        wanted = {lane.lane_id: lane for lane in lanes}
        for lane_id in [key for key in self._lanes if key not in wanted]:
            self._lose(lane_id)
        for lane_id, lane in wanted.items():
            if lane_id not in self._lanes:
                self._lanes[lane_id] = lane
                self._readers[lane_id] = asyncio.create_task(self._read(lane))
        self._wake()

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        """The chunks of the answer as they are committed; the last one has a finish reason.

        Raises:
            FlashSDError: the request was refused or could not be answered.
        """
        if self._is_closed:
            raise UnavailableError("the service is closed")
        self.require_room()
        self._num_in_flight += 1
        try:
            async with aclosing(self._stream(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._num_in_flight -= 1

    async def _stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        deadline_s = None if request.timeout_s is None else self._clock() + request.timeout_s
        encoded = await self._encode(request.conversation, request.trace, deadline_s)
        key = prefix_key(request.conversation)
        # Lanes see neither pixels nor text: both are in the encoded prompt.
        bare = replace(request, prompt="", visuals=(), turns=())
        delivered = _Delivered()
        failed: list[str] = []
        while True:
            lane = await self._find_lane(key, failed, deadline_s)
            try:
                async with aclosing(self._stream_from(lane, self._within(bare, deadline_s), encoded)) as chunks:
                    async for chunk in chunks:
                        fresh = delivered.take(chunk)
                        if fresh.token_ids or fresh.text or fresh.finish_reason is not None:
                            yield fresh
                return
            except UnavailableError as error:
                failed.append(lane.lane_id)
                if len(failed) > MAX_MOVES or self._is_closed:
                    raise
                log.warning("request %s leaves %s: %s", request.request_id, lane.lane_id, error)
                delivered.restart()
                # What the encoder made may have been lost together with its node; it remembers its pictures.
                encoded = await self._encode(request.conversation, request.trace, deadline_s)

    def require_room(self) -> None:
        """Raises OverloadedError when a request that comes now would be refused: neither pixels nor features are needed."""
        places = sum(status.max_requests for status in self._statuses.values())
        known = sum(status.num_running + status.num_waiting for status in self._statuses.values())
        if places and max(known, self._num_in_flight) >= places:
            raise OverloadedError(f"{places} requests are running and waiting (scheduling.max_running, max_waiting)")

    async def prefetch(self, request: CaptionRequest) -> int:
        """The request's prompt is in the KV cache, unless the lanes have better things to do; returns its positions."""
        if self._is_closed or any(status.num_waiting for status in self._statuses.values()):
            return 0
        # One token is decoded and thrown away: prefill is verifying an empty block, and nothing else fills the cache.
        once = replace(request, sampling=replace(request.sampling, max_new_tokens=1, stop=(), logprobs=None))
        with suppress(OverloadedError, UnavailableError, DeadlineError):
            async with aclosing(self.stream(once)) as chunks:
                async for chunk in chunks:
                    if chunk.finish_reason is not None:
                        return chunk.num_prompt_tokens
        return 0

    async def status(self) -> ServiceStatus:
        """How the service is now, as its lanes tell when asked."""
        lanes = list(self._lanes.values())
        statuses = await asyncio.gather(*(self._status_of(lane) for lane in lanes))
        present = tuple(status for status in statuses if status is not None)
        is_ready = bool(self._encoders) and any(not status.is_draining for status in present) and not self._is_closed
        return ServiceStatus(is_ready=is_ready, lanes=present, degraded=self.degraded)

    async def meters(self) -> dict[str, LaneMeters]:
        """What every lane that answers has counted, by its name."""
        lanes = list(self._lanes.values())
        answers = await asyncio.gather(
            *(asyncio.wait_for(lane.meters(), STATUS_S) for lane in lanes), return_exceptions=True
        )
        pairs = zip(lanes, answers, strict=True)
        return {lane.lane_id: counted for lane, counted in pairs if isinstance(counted, LaneMeters)}

    async def _status_of(self, lane: LaneClient) -> LaneStatus | None:
        try:
            status = await asyncio.wait_for(lane.status(), STATUS_S)
            if lane.lane_id in self._statuses:
                self._statuses[lane.lane_id] = status
            return status
        except asyncio.TimeoutError:
            return self._statuses.get(lane.lane_id)  # in a long round: what it said last
        except FlashSDError:
            return None

    async def close(self) -> None:
        """No lane is listened to any more; requests that were open have ended with UnavailableError."""
        self._is_closed = True
        self._wake()
        readers = list(self._readers.values())
        for lane_id in list(self._lanes):
            self._lose(lane_id)
        await asyncio.gather(*readers, *self._cancelling, return_exceptions=True)
        if self._canceller is not None:
            self._canceller.cancel()
            await asyncio.gather(self._canceller, return_exceptions=True)

    async def _encode(self, conversation: Conversation, trace: str, deadline_s: float | None) -> Encoded:
        failed: set[str] = set()
        limit_s = self._limit_s(deadline_s)
        is_second_look = False
        while len(failed) <= MAX_MOVES and not self._is_closed:
            encoder = self._next_of([one for one in self._encoders if is_second_look or one.encoder_id not in failed])
            is_second_look = False
            if encoder is not None:
                try:
                    left_s = None if deadline_s is None else max(deadline_s - self._clock(), 0.0)
                    return await asyncio.wait_for(encoder.encode(conversation, trace), left_s)
                except asyncio.TimeoutError:
                    raise DeadlineError("the time was over before the pictures were encoded") from None
                except UnavailableError as error:
                    log.warning("%s is lost: %s", encoder.encoder_id, error)
                    failed.add(encoder.encoder_id)
                    self._on_lost(encoder.encoder_id)
                    continue
            if not await self._await_change(limit_s, SECOND_LOOK_S if failed else self._patience_s):
                break
            is_second_look = True
        raise UnavailableError("no encoder answers")

    def _next_of(self, encoders: Sequence[EncoderClient]) -> EncoderClient | None:
        self._next_encoder += 1
        return encoders[self._next_encoder % len(encoders)] if encoders else None

    def _limit_s(self, deadline_s: float | None) -> float:
        patient_s = self._clock() + self._patience_s
        return patient_s if deadline_s is None else min(patient_s, deadline_s)

    async def _await_change(self, limit_s: float, most_s: float) -> bool:
        """Something changed or some time passed; False, at once, when there is no time left."""
        left_s = limit_s - self._clock()
        if left_s <= 0:
            return False
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), min(left_s, most_s))
        return True

    async def _stream_from(
        self, lane: LaneClient, request: CaptionRequest, encoded: Encoded
    ) -> AsyncGenerator[Chunk, None]:
        if request.request_id in self._open:
            raise InvalidRequestError(f"request {request.request_id} is submitted already")
        mine = _Open(request, lane.lane_id, asyncio.Queue())
        submitting = asyncio.ensure_future(lane.submit(request, encoded))
        self._open[request.request_id] = mine
        has_ended = False
        try:
            await asyncio.shield(submitting)
            while not has_ended:
                chunk = await mine.arrived.get()
                has_ended = chunk.finish_reason is not None
                if chunk.error is not None:
                    raise chunk.error
                yield chunk
        finally:
            self._open.pop(request.request_id, None)
            if not has_ended and mine.lane_id in self._lanes:
                self._cancel_soon(lane, request.request_id, submitting)

    def _cancel_soon(self, lane: LaneClient, request_id: str, submitting: asyncio.Future[None]) -> None:
        # A generator that is being closed must not wait; the order is on its way before anything else is.
        self._to_cancel.put_nowait((lane, request_id, submitting))

    async def _cancel_forever(self) -> None:
        """Orders to cancel are given from here, and not by the request that ends.

        Whoever cancels a request of Ray Serve cancels every call that was made on its behalf, this one too.
        """
        while True:
            task = asyncio.create_task(self._cancel(*await self._to_cancel.get()))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    async def _cancel(self, lane: LaneClient, request_id: str, submitting: asyncio.Future[None]) -> None:
        await asyncio.wait((submitting,))  # orders of an actor are taken as they arrive, not as they are sent
        if not submitting.cancelled():
            submitting.exception()
        with suppress(FlashSDError):
            await lane.cancel(request_id)

    async def _find_lane(self, key: str, failed: Sequence[str], deadline_s: float | None) -> LaneClient:
        """A lane that takes requests, waited for if need be; one that failed this request only if there is no other."""
        limit_s = self._limit_s(deadline_s)
        is_second_look = False
        while not self._is_closed:
            loads = self._loads()
            fresh = [load for load in loads if load.lane_id not in failed]
            chosen = choose_lane(fresh, key) or (choose_lane(loads, key) if is_second_look else None)
            if chosen is not None:
                return self._lanes[chosen]
            # A lane that is being lost may still be listed: a moment later it is gone, or it has recovered.
            if not await self._await_change(limit_s, SECOND_LOOK_S if failed else self._patience_s):
                raise UnavailableError("no lane takes requests")
            is_second_look = True
        raise UnavailableError("the service is closed")

    def _loads(self) -> list[LaneLoad]:
        counts: dict[str, int] = {}
        for one in self._open.values():
            counts[one.lane_id] = counts.get(one.lane_id, 0) + 1
        return [
            # Our own count is exact at once; the lane's own tells of other edges, a round late.
            LaneLoad(lane_id, max(counts.get(lane_id, 0), status.num_waiting + status.num_running), status.is_draining)
            for lane_id, status in self._statuses.items()
        ]

    def _within(self, request: CaptionRequest, deadline_s: float | None) -> CaptionRequest:
        if deadline_s is None:
            return request
        left_s = deadline_s - self._clock()
        if left_s <= 0:
            raise DeadlineError("the time was over before the request could be decoded")
        return replace(request, timeout_s=left_s)

    async def _read(self, lane: LaneClient) -> None:
        """Every feed of the lane is passed on, until the lane is gone."""
        try:
            async for feed in lane.feed():
                is_new = lane.lane_id not in self._statuses
                self._statuses[lane.lane_id] = feed.status
                if is_new:
                    self._wake()
                for chunk in feed.chunks:
                    one = self._open.get(chunk.request_id)
                    if one is not None and one.lane_id == lane.lane_id:
                        one.arrived.put_nowait(chunk)
        except FlashSDError as error:
            log.warning("%s is lost: %s", lane.lane_id, error)
        except Exception:
            log.exception("%s is lost", lane.lane_id)
        if self._lanes.get(lane.lane_id) is lane:
            self._lose(lane.lane_id)
            self._on_lost(lane.lane_id)

    def _lose(self, lane_id: str) -> None:
        self._lanes.pop(lane_id, None)
        self._statuses.pop(lane_id, None)
        reader = self._readers.pop(lane_id, None)
        if reader is not None and reader is not asyncio.current_task():
            reader.cancel()
        lost = UnavailableError(f"{lane_id} is gone")
        for one in self._open.values():
            if one.lane_id == lane_id:
                request_id = one.request.request_id
                one.arrived.put_nowait(Chunk(request_id=request_id, finish_reason=FinishReason.ERROR, error=lost))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def prefix_key(conversation: Conversation) -> str:
    """The same for conversations that begin with the same picture; empty for those without one.

    Only the first frame counts: a live video grows, and must not change its lane with every frame.
    """
    visuals = conversation.visuals
    if not visuals:
        return ""
    first = visuals[0].frames[0]
    return hashlib.blake2b(first.tobytes(), digest_size=8).hexdigest()
