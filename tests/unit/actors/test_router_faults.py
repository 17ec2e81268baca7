"""What a router does to requests when lanes, encoders, ids and times are not as nice as they usually are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from flashsd_ray.actors.router import Encoded, Router
from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.actors.subscription import Feed
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.errors import DeadlineError, FlashSDError, InvalidRequestError, UnavailableError
from flashsd_ray.types import CaptionRequest, Conversation, FinishReason
from tests.fake_service import CARD
from tests.unit.actors.test_router import answer, asking, expected, serving, tokens_of

LIMIT_S = 5.0  # far more than anything here takes; what reaches it hangs


class Encoding:
    """Encodes whenever the test lets it."""

    encoder_id = "encoder-1"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()

    async def reserve(self, ticket: str) -> None:
        pass

    async def encode(self, conversation: Conversation, trace: str = "", ticket: str = "") -> Encoded:
        await self.gate.wait()
        return Encoded(prompt=None)

    async def look(self) -> None:
        pass


class ScriptedLane:
    """Says what the test makes it say."""

    def __init__(self, lane_id: str, *, num_waiting: int = 0, refuses: FlashSDError | None = None) -> None:
        self.lane_id = lane_id
        self.now = LaneStatus(lane_id=lane_id)
        self.submitted: asyncio.Queue[CaptionRequest] = asyncio.Queue()
        self.cancelled: list[str] = []
        self._first = LaneStatus(lane_id=lane_id, num_waiting=num_waiting)
        self._refuses = refuses
        self._said: asyncio.Queue[Feed | BaseException] = asyncio.Queue()

    def say(self, *chunks: Chunk) -> None:
        self._said.put_nowait(Feed(chunks=chunks, status=self.now))

    def break_off(self, error: BaseException) -> None:
        self._said.put_nowait(error)

    async def feed(self) -> AsyncGenerator[Feed, None]:
        yield Feed(chunks=(), status=self._first)
        while True:
            said = await self._said.get()
            if isinstance(said, BaseException):
                raise said
            yield said

    async def reserve(self, request_id: str, company: int) -> None:
        pass

    async def submit(self, request: CaptionRequest, encoded: Encoded) -> None:
        self.submitted.put_nowait(request)
        if self._refuses is not None:
            raise self._refuses

    async def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)

    async def status(self) -> LaneStatus:
        return self.now

    async def meters(self) -> LaneMeters:
        return LaneMeters()


async def routed(*lanes: ScriptedLane) -> tuple[Router, Encoding]:
    router, encoding = Router(CARD), Encoding()
    router.set_encoders([encoding])
    router.set_lanes(lanes)
    for _ in range(5):
        await asyncio.sleep(0)
    return router, encoding


def said(request_id: str, *token_ids: int, ends: bool = False) -> Chunk:
    text = "".join(chr(97 + one) for one in token_ids)
    return Chunk(
        request_id=request_id,
        token_ids=token_ids,
        text=text,
        finish_reason=FinishReason.STOP if ends else None,
    )


async def test_what_a_lane_says_of_a_request_that_left_it_is_not_part_of_the_answer() -> None:
    # The submission reached the lane and its answer did not reach us: it decodes, until the cancellation arrives.
    left, new = ScriptedLane("lane-1", refuses=UnavailableError("not reachable")), ScriptedLane("lane-2")
    router, _ = await routed(left, new)
    asked = asyncio.create_task(answer(router, asking(1)))
    await asyncio.wait_for(new.submitted.get(), LIMIT_S)
    left.say(said("r1", 1, 2))
    for _ in range(5):
        await asyncio.sleep(0)
    new.say(said("r1", 1, 2), said("r1", 3, ends=True))
    chunks = await asyncio.wait_for(asked, LIMIT_S)
    await router.close()
    assert tokens_of(chunks) == (1, 2, 3)


async def test_an_answer_that_comes_out_differently_after_a_move_is_not_continued() -> None:
    # speculation.acceptance=rejection, another kind of CPU or GPU, features encoded anew: decoding again may differ.
    first, second = ScriptedLane("lane-1"), ScriptedLane("lane-2")
    router, _ = await routed(first, second)
    chunks: list[Chunk] = []

    async def watched() -> None:
        async with aclosing(router.stream(asking(1))) as stream:
            async for chunk in stream:
                chunks.append(chunk)  # noqa: PERF401

    asked = asyncio.create_task(watched())
    await asyncio.wait_for(first.submitted.get(), LIMIT_S)
    first.say(said("r1", 1, 2))
    for _ in range(5):
        await asyncio.sleep(0)
    first.break_off(UnavailableError("lost"))
    await asyncio.wait_for(second.submitted.get(), LIMIT_S)
    second.say(said("r1", 7, 8), said("r1", 9, ends=True))
    with pytest.raises(FlashSDError):
        await asyncio.wait_for(asked, LIMIT_S)
    await router.close()


async def test_an_id_that_is_in_use_is_refused_and_the_request_that_has_it_goes_on() -> None:
    async with serving(1) as (router, _, _):
        request = asking(1, tokens=1500)
        begun = asyncio.Event()

        async def watched() -> list[Chunk]:
            chunks = []
            async with aclosing(router.stream(request)) as stream:
                async for chunk in stream:
                    chunks.append(chunk)
                    begun.set()
            return chunks

        first = asyncio.create_task(watched())
        await begun.wait()
        with pytest.raises(InvalidRequestError):
            await answer(router, request)
        assert tokens_of(await asyncio.wait_for(first, LIMIT_S)) == expected(request)


async def test_a_feed_that_breaks_in_an_unforeseen_way_loses_its_lane_and_no_request_hangs() -> None:
    broken, whole = ScriptedLane("lane-1"), ScriptedLane("lane-2")
    router, _ = await routed(broken, whole)
    asked = asyncio.create_task(answer(router, asking(1)))
    await asyncio.wait_for(broken.submitted.get(), LIMIT_S)
    broken.break_off(RuntimeError("cannot be deserialized"))
    try:
        await asyncio.wait_for(whole.submitted.get(), 1.0)
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await router.close()


@pytest.mark.parametrize("waits_for", ["encoder", "lane"])
async def test_closing_ends_requests_that_wait(waits_for: str) -> None:
    router, _ = await routed(*([ScriptedLane("lane-1")] if waits_for == "encoder" else []))
    if waits_for == "encoder":
        router.set_encoders([])
    asked = asyncio.create_task(answer(router, asking(1)))
    for _ in range(5):
        await asyncio.sleep(0)
    await router.close()
    try:
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(asyncio.shield(asked), 1.0)
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def test_the_time_limit_holds_while_the_encoder_is_silent() -> None:
    router, encoding = await routed(ScriptedLane("lane-1"))
    encoding.gate.clear()
    with pytest.raises(DeadlineError):
        await asyncio.wait_for(answer(router, asking(1, timeout_s=0.05)), 1.0)
    await router.close()


async def test_a_lane_that_was_busy_when_it_last_spoke_is_not_thought_busy_for_ever() -> None:
    # Feeds come only with chunks of this edge's own requests: the crowd may have been another edge's, and be gone.
    lane = ScriptedLane("lane-1", num_waiting=3)
    router, _ = await routed(lane)
    assert (await router.status()).lanes[0].num_waiting == 0
    asked = asyncio.create_task(router.prefetch(asking(1)))
    try:
        await asyncio.wait_for(lane.submitted.get(), 1.0)
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await router.close()
