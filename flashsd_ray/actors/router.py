"""The CaptionService in front of lanes and encoders, wherever those run.

A request is encoded, goes to the lane that may hold its prefix, and its chunks come back in that lane's feed. When a
lane is lost, its requests go to another one: an answer is a function of its request, so decoding it again and leaving
out what was delivered already continues it without gap or repetition.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from flashsd_ray.actors.delivery import Delivered
from flashsd_ray.actors.encoder_pool import EncoderPool
from flashsd_ray.actors.journey import Journey, Losses
from flashsd_ray.actors.part_watch import PartWatch
from flashsd_ray.actors.quarantine import Quarantine
from flashsd_ray.actors.service import LaneStatus, ModelCard, ServiceStatus
from flashsd_ray.actors.ways import Encoded, EncoderClient, LaneClient
from flashsd_ray.config import PlacementConfig
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.errors import (
    DeadlineError,
    FlashSDError,
    InvalidRequestError,
    OverloadedError,
    QuarantinedError,
    UnavailableError,
)
from flashsd_ray.scheduling.routing import LaneLoad, choose_lane
from flashsd_ray.scheduling.silence import leaves
from flashsd_ray.timeouts import within
from flashsd_ray.types import CaptionRequest, Conversation, FinishReason

__all__ = ["Encoded", "EncoderClient", "LaneClient", "Router", "prefix_key"]

log = logging.getLogger(__name__)

SECOND_LOOK_S = 0.5  # after which a lane that failed a request may be tried with it again
STATUS_S = 2.0  # longest wait for a lane to say how it is
GRACE_S = 0.5  # after a deadline, in which the lane itself may say that the time is over, and how far it came


@dataclass(slots=True, eq=False)
class _Open:
    """A request in a lane."""

    request: CaptionRequest
    lane_id: str
    deadline_s: float | None
    losses: Losses
    arrived: asyncio.Queue[Chunk] = field(default_factory=asyncio.Queue)
    ordered: asyncio.Future[None] | None = None  # that the lane takes it
    has_left: bool = False

    def end(self, error: FlashSDError) -> None:
        """The lane gives it nothing more."""
        chunk = Chunk(request_id=self.request.request_id, finish_reason=FinishReason.ERROR, error=error)
        self.arrived.put_nowait(chunk)


class Router:
    """Keeps the protocol of actors/service.py over any number of lanes and encoders."""

    def __init__(
        self,
        card: ModelCard,
        *,
        placement: PlacementConfig | None = None,  # how losses are dealt with; None: as nothing else is set
        patience_s: float = 30.0,  # longest wait for a lane in place of one that was lost
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,  # between two looks at every lane
        on_lost: Callable[[str], None] = lambda name: None,  # told of lanes and encoders that do not answer
        on_quarantined: Callable[[str], None] = lambda key: None,  # told what requests like a poison have in common
    ) -> None:
        self._card = card
        self._placement = placement or PlacementConfig()
        self._patience_s = patience_s
        self._clock = clock
        self._on_lost = on_lost
        self._on_quarantined = on_quarantined
        self._lanes: dict[str, LaneClient] = {}
        self._statuses: dict[str, LaneStatus] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._encoders = EncoderPool(
            period_s=self._placement.health_period_s,
            timeout_s=self._placement.health_timeout_s,
            clock=clock,
            sleep=sleep,
        )
        self._quarantine = Quarantine(self._placement.quarantine_s, clock)
        self._watch = PartWatch(self._placement.health_period_s, clock, sleep, self._take_status)
        self._watcher: asyncio.Task[None] | None = None
        self._open: dict[str, _Open] = {}
        self._num_in_flight = 0  # being encoded included
        self._to_cancel: asyncio.Queue[tuple[LaneClient, _Open]] = asyncio.Queue()
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
        self._encoders.set(encoders)
        self._wake()

    def set_lanes(self, lanes: Sequence[LaneClient]) -> None:
        """These lanes take requests as soon as their feed begins; requests of a lane that is gone move to another."""
        self._canceller = self._canceller or asyncio.create_task(self._cancel_forever())
        self._watcher = self._watcher or asyncio.create_task(self._watch.run(self._leave_silent_lanes))
        self._encoders.follow()
        wanted = {lane.lane_id: lane for lane in lanes}
        for lane_id in [key for key in self._lanes if key not in wanted]:
            self._lose(lane_id)
        for lane_id, lane in wanted.items():
            if lane_id not in self._lanes:
                self._lanes[lane_id] = lane
                self._watch.begin(lane_id, lane.status)
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
        self._quarantine.check(request)
        journey = Journey(request, None if request.timeout_s is None else self._clock() + request.timeout_s)
        encoded = await self._encode(journey)
        key = prefix_key(request.conversation)
        # Lanes see neither pixels nor text: both are in the encoded prompt.
        bare = replace(request, prompt="", visuals=(), turns=())
        delivered = Delivered()
        while True:
            lane = await self._find_lane(key, journey)
            try:
                within = self._within(bare, journey.deadline_s)
                async with aclosing(self._stream_from(lane, within, encoded, journey)) as chunks:
                    async for chunk in chunks:
                        fresh = delivered.take(chunk)
                        if fresh.token_ids or fresh.text or fresh.finish_reason is not None:
                            yield fresh
                return
            except UnavailableError as error:
                self._leave(journey, journey.lanes, lane.lane_id, error)
                delivered.restart()
                # What the encoder made may have been lost together with its node; it remembers its pictures.
                encoded = await self._encode(journey)

    def _leave(self, journey: Journey, losses: Losses, name: str, error: UnavailableError) -> None:
        """The request goes on without this part.

        Raises:
            QuarantinedError: the request is taken for what kills one part after the other.
            UnavailableError: the service is closing, or no part takes the request.
        """
        losses.note(name, error)
        request = journey.request
        if losses.is_cause(self._placement.max_losses):
            self._on_quarantined(self._quarantine.add(request))
            log.error("request %s is quarantined: %d parts were lost under it", request.request_id, losses.num_losses)
            raise QuarantinedError(
                f"{losses.num_losses} times the part that worked on this request was lost, in the end with nobody else "
                "there (placement.max_losses); it is not tried again"
            ) from error
        if losses.has_moved_enough or self._is_closed:
            raise error
        log.warning("request %s leaves %s: %s", request.request_id, name, error)

    def refuse(self, left_s: Mapping[str, float]) -> None:
        """Requests with these fingerprints, which another router found to be poisons, are refused for so long."""
        self._quarantine.learn(left_s)

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
        answers = await asyncio.gather(*(within(STATUS_S, lane.meters()) for lane in lanes), return_exceptions=True)
        pairs = zip(lanes, answers, strict=True)
        return {lane.lane_id: counted for lane, counted in pairs if isinstance(counted, LaneMeters)}

    async def _status_of(self, lane: LaneClient) -> LaneStatus | None:
        try:
            status = await within(STATUS_S, lane.status())
            if lane.lane_id in self._statuses:
                self._statuses[lane.lane_id] = status
            return status
        except asyncio.TimeoutError:
            is_quiet = self._watch.is_quiet(lane.lane_id)
            return None if is_quiet else self._statuses.get(lane.lane_id)  # in a long round: what it said last
        except FlashSDError:
            return None

    async def close(self) -> None:
        """No lane is listened to any more; requests that were open have ended with UnavailableError."""
        self._is_closed = True
        self._wake()
        readers = list(self._readers.values())
        self._encoders.close()
        for lane_id in list(self._lanes):
            self._lose(lane_id)
        await asyncio.gather(*readers, return_exceptions=True)
        if self._cancelling:
            await asyncio.wait(self._cancelling, timeout=STATUS_S)  # a lane that hangs takes no order
        ending = [task for task in (self._canceller, self._watcher, *self._cancelling) if task is not None]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _encode(self, journey: Journey) -> Encoded:
        losses, deadline_s = journey.encoders, journey.deadline_s
        limit_s = self._limit_s(deadline_s)
        tried: set[str] = set()
        is_second_look = False
        while not self._is_closed:
            encoder = self._encoders.choose(() if is_second_look else tried)
            is_second_look = False
            if encoder is not None:
                try:
                    left_s = None if deadline_s is None else max(deadline_s - self._clock(), 0.0)
                    return await within(left_s, self._encoders.encode(encoder, journey))
                except asyncio.TimeoutError:
                    raise DeadlineError("the time was over before the pictures were encoded") from None
                except UnavailableError as error:
                    tried.add(encoder.encoder_id)
                    self._on_lost(encoder.encoder_id)
                    self._leave(journey, losses, encoder.encoder_id, error)
                    continue
            if not await self._await_change(limit_s, SECOND_LOOK_S if tried else self._patience_s):
                break
            is_second_look = True
        raise self._too_late(deadline_s) or UnavailableError("no encoder answers")

    def _too_late(self, deadline_s: float | None) -> DeadlineError | None:
        is_over = deadline_s is not None and self._clock() >= deadline_s
        return DeadlineError("the time was over before a lost part was replaced") if is_over else None

    def _limit_s(self, deadline_s: float | None) -> float:
        patient_s = self._clock() + self._patience_s
        return patient_s if deadline_s is None else min(patient_s, deadline_s)

    async def _await_change(self, limit_s: float, most_s: float) -> bool:
        """Something changed or some time passed; False, at once, when there is no time left."""
        left_s = limit_s - self._clock()
        if left_s <= 0:
            return False
        with suppress(asyncio.TimeoutError):
            await within(min(left_s, most_s), self._changed.wait())
        return True

    async def _stream_from(
        self, lane: LaneClient, request: CaptionRequest, encoded: Encoded, journey: Journey
    ) -> AsyncGenerator[Chunk, None]:
        if request.request_id in self._open:
            raise InvalidRequestError(f"request {request.request_id} is submitted already")
        mine = _Open(request, lane.lane_id, journey.deadline_s, journey.lanes)
        mine.ordered = asyncio.ensure_future(self._hand_over(lane, mine, encoded))
        self._open[request.request_id] = mine
        alarm = self._alarm(mine)
        arriving = asyncio.ensure_future(mine.arrived.get())
        has_ended = False
        try:
            # A lane that is lost says nothing to an order, so its loss is waited for as well.
            await asyncio.wait((mine.ordered, arriving), return_when=asyncio.FIRST_COMPLETED)
            if mine.ordered.done():
                mine.ordered.result()
            chunk = await arriving
            while True:
                has_ended = chunk.finish_reason is not None
                if chunk.error is not None:
                    raise chunk.error
                yield chunk
                if has_ended:
                    return
                chunk = await mine.arrived.get()
        finally:
            arriving.cancel()
            if alarm is not None:
                alarm.cancel()
            self._open.pop(request.request_id, None)
            mine.has_left = True
            if not (has_ended and chunk.error is None) and mine.lane_id in self._lanes:
                # A generator that is being closed must not wait; the order is on its way before anything else is.
                self._to_cancel.put_nowait((lane, mine))
            elif not mine.ordered.done():
                mine.ordered.cancel()  # a lane that is lost answers no order

    async def _hand_over(self, lane: LaneClient, mine: _Open, encoded: Encoded) -> None:
        """The lane has the request; one that lost a lane has its place first, so that it is known who was decoded."""
        company = mine.losses.company
        if company is not None:
            await lane.reserve(mine.request.request_id, company)
            if mine.has_left:
                return
        mine.losses.is_exposed = True
        await lane.submit(mine.request, encoded)

    def _alarm(self, mine: _Open) -> asyncio.TimerHandle | None:
        """The deadline holds although the lane, which keeps to it, may be silent."""
        if mine.request.timeout_s is None:
            return None
        late = DeadlineError("the time was over, and the lane said nothing")
        return asyncio.get_running_loop().call_later(mine.request.timeout_s + GRACE_S, mine.end, late)

    async def _cancel_forever(self) -> None:
        """Orders to cancel are given from here, and not by the request that ends.

        Whoever cancels a request of Ray Serve cancels every call that was made on its behalf, this one too.
        """
        while True:
            task = asyncio.create_task(self._cancel(*await self._to_cancel.get()))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    async def _cancel(self, lane: LaneClient, one: _Open) -> None:
        assert one.ordered is not None
        request_id = one.request.request_id
        if not one.ordered.done() and one.losses.company is not None:
            with suppress(FlashSDError):
                await lane.cancel(request_id)  # it may wait for a place for ever
        await asyncio.wait((one.ordered,))  # orders of an actor are taken as they arrive, not as they are sent
        if not one.ordered.cancelled():
            one.ordered.exception()
        with suppress(FlashSDError):
            await lane.cancel(request_id)

    def _take_status(self, lane_id: str, status: LaneStatus) -> None:
        self._heard(lane_id)
        if lane_id in self._statuses:
            self._statuses[lane_id] = status

    def _heard(self, lane_id: str) -> None:
        if self._watch.heard(lane_id):
            self._wake()

    def _leave_silent_lanes(self) -> None:
        placement, now_s = self._placement, self._clock()
        for lane_id in list(self._lanes):
            silent_s = self._watch.silent_s(lane_id)
            silence = UnavailableError(f"{lane_id} is silent for {silent_s:.0f} s")
            if silent_s > placement.health_timeout_s:
                log.warning("%s (placement.health_timeout_s)", silence)
                self._lose(lane_id)
                self._on_lost(lane_id)
                continue
            for one in self._open.values():
                left_s = None if one.deadline_s is None else one.deadline_s - now_s
                period_s, timeout_s = self._watch.period_s, placement.health_timeout_s
                if one.lane_id == lane_id and leaves(silent_s, left_s, period_s=period_s, timeout_s=timeout_s):
                    one.end(silence)

    async def _find_lane(self, key: str, journey: Journey) -> LaneClient:
        """A lane that takes requests, waited for if need be; one that failed this request only if there is no other."""
        failed, is_alone = journey.lanes.failed, journey.lanes.company == 1
        limit_s = self._limit_s(journey.deadline_s)
        is_second_look = False
        while not self._is_closed:
            loads = self._loads()
            fresh = [load for load in loads if load.lane_id not in failed]
            chosen = choose_lane(fresh, key, is_alone=is_alone)
            if chosen is None and is_second_look:
                chosen = choose_lane(loads, key, is_alone=is_alone)
            if chosen is not None:
                return self._lanes[chosen]
            # A lane that is being lost may still be listed: a moment later it is gone, or it has recovered.
            if not await self._await_change(limit_s, SECOND_LOOK_S if failed else self._patience_s):
                raise self._too_late(journey.deadline_s) or UnavailableError("no lane takes requests")
            is_second_look = True
        raise UnavailableError("the service is closed")

    def _loads(self) -> list[LaneLoad]:
        counts: dict[str, int] = {}
        for one in self._open.values():
            counts[one.lane_id] = counts.get(one.lane_id, 0) + 1
        suspected = {one.lane_id for one in self._open.values() if one.losses.company is not None}
        return [
            # Our own count is exact at once; the lane's own tells of other edges, a round late.
            LaneLoad(
                lane_id,
                max(counts.get(lane_id, 0), status.num_waiting + status.num_running),
                status.is_draining,
                status.has_suspects or lane_id in suspected,
            )
            for lane_id, status in self._statuses.items()
            if not self._watch.is_quiet(lane_id)
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
                self._heard(lane.lane_id)
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
        self._watch.end(lane_id)
        for one in self._open.values():
            if one.lane_id == lane_id:
                one.end(UnavailableError(f"{lane_id} is gone"))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def prefix_key(conversation: Conversation) -> str:
    """The same for conversations that begin with the same picture; empty for those without one.

    Only the first frame counts: a live video grows, and must not change its lane with every frame.
    """
    visuals = conversation.visuals
    return visuals[0].first_frame_digest if visuals else ""
