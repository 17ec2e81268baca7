"""What is waited for is passed on at once, the rest together; nothing is lost or changes its place."""

from __future__ import annotations

import asyncio
import threading

from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.actors.subscription import Feed, Subscription
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.types import FinishReason

NEVER_S = 1e6


def feed(*names: str, last: bool = False, running: int = 1) -> Feed:
    reason = FinishReason.STOP if last else None
    chunks = tuple(Chunk(request_id=name, text=name, finish_reason=reason) for name in names)
    return Feed(chunks=chunks, status=LaneStatus(lane_id="lane", num_running=running))


def opened(*names: str, interval_s: float = NEVER_S) -> Subscription:
    mine = Subscription(interval_s)
    for name in names:
        mine.open(name)
    return mine


async def settle() -> None:
    """Everything that was called soon has been called."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_first_and_last_leave_at_once_and_what_is_between_leaves_with_them() -> None:
    mine = opened("a")
    mine.put(feed("a"))
    first = await mine.take()
    assert first is not None
    assert len(first.chunks) == 1
    mine.put(feed("a", running=2))
    mine.put(feed("a", running=3))
    waiting = asyncio.create_task(mine.take())
    await settle()
    assert not waiting.done()
    mine.put(feed("a", last=True, running=4))
    rest = await waiting
    assert rest is not None
    assert [chunk.finish_reason for chunk in rest.chunks] == [None, None, FinishReason.STOP]
    assert rest.status.num_running == 4


async def test_the_first_of_one_answer_takes_the_others_with_it() -> None:
    mine = opened("a", "b")
    mine.put(feed("a"))
    await mine.take()
    mine.put(feed("a"))
    mine.put(feed("a", "b"))
    both = await mine.take()
    assert both is not None
    assert [chunk.request_id for chunk in both.chunks] == ["a", "a", "b"]


async def test_a_timer_whose_tokens_went_with_others_is_not_the_end() -> None:
    mine = opened("a", "b", interval_s=0.02)
    mine.put(feed("a"))
    await mine.take()
    waiting = asyncio.create_task(mine.take())
    await settle()
    mine.put(feed("b"))  # an answer begins: due at once
    mine.put(feed("a"))  # would wait for a timer, but goes along
    both = await waiting
    assert both is not None
    assert len(both.chunks) == 2
    waiting = asyncio.create_task(mine.take())
    await asyncio.sleep(0.03)  # until after any timer that was left behind
    assert not waiting.done()
    mine.put(feed("a", last=True))
    assert await waiting is not None


async def test_tokens_do_not_wait_for_more_of_them() -> None:
    mine = opened("a", interval_s=1e-3)
    for _ in range(5):  # no second feed is needed: time alone lets each go
        mine.put(feed("a"))
        assert await mine.take() is not None


async def test_rounds_slower_than_the_interval_are_never_held() -> None:
    mine = opened("a", interval_s=0.0)
    for _ in range(3):
        mine.put(feed("a"))
        waiting = asyncio.create_task(mine.take())
        await settle()
        assert waiting.done()


async def test_the_end_comes_after_everything() -> None:
    mine = opened("a")
    mine.put(feed("a"))
    await mine.take()
    mine.put(feed("a"))
    mine.put(None)
    left = await mine.take()
    assert left is not None
    assert await mine.take() is None
    assert await mine.take() is None


async def test_requests_that_have_ended_are_forgotten() -> None:
    mine = opened("a", "b")
    mine.forget("a")
    mine.forget("a")
    assert mine.request_ids == ["b"]


@given(
    rounds=st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True), min_size=1, max_size=20),
    interval_s=st.sampled_from([0.0, 1e-4, 1e-3]),
)
def test_every_chunk_is_passed_on_once_and_in_order(rounds: list[list[str]], interval_s: float) -> None:
    async def passed_on() -> list[str]:
        mine = opened("a", "b", "c", interval_s=interval_s)

        def put() -> None:
            for names in rounds:
                mine.put(feed(*names))
            mine.put(None)

        lane = threading.Thread(target=put)
        lane.start()
        found = []
        while (some := await mine.take()) is not None:
            assert some.chunks
            found += [chunk.request_id for chunk in some.chunks]
        lane.join()
        return found

    assert asyncio.run(passed_on()) == [name for names in rounds for name in names]
