"""An actor whose loop is blocked does not look healthy, although the loop that is asked turns."""

from __future__ import annotations

import asyncio
import threading

import pytest

from flashsd_ray.runtime.liveness import LoopWatch


async def test_a_loop_that_is_blocked_is_waited_for() -> None:
    watch, may_go_on, is_blocked = LoopWatch(), threading.Event(), threading.Event()
    await watch.turned()  # nobody has worked yet

    async def work() -> None:
        watch.here()
        is_blocked.set()
        may_go_on.wait(30)
        await asyncio.sleep(0.05)  # so long it takes questions

    worker = threading.Thread(target=asyncio.run, args=(work(),))
    worker.start()
    assert await asyncio.to_thread(is_blocked.wait, 30)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(watch.turned(), 0.05)
    answered = asyncio.create_task(watch.turned())
    await asyncio.sleep(0)
    may_go_on.set()
    await asyncio.wait_for(answered, 30)
    worker.join()


async def test_a_loop_that_asks_itself_turns() -> None:
    watch = LoopWatch()
    watch.here()
    await asyncio.wait_for(watch.turned(), 30)
