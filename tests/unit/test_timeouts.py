"""Waiting with a time limit ends, whenever it is cancelled."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from flashsd_ray.timeouts import within


async def test_what_ends_in_time_is_returned_and_what_it_raises_is_raised() -> None:
    async def two() -> int:
        await asyncio.sleep(0)
        return 2

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    assert await within(30.0, two()) == 2
    assert await within(None, two()) == 2
    with pytest.raises(ValueError, match="no"):
        await within(30.0, fails())


async def test_what_does_not_end_in_time_has_ended_when_the_caller_learns_it() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("cleanly")

    with pytest.raises(asyncio.TimeoutError):
        await within(0.0, waits())
    assert ended == ["cleanly"]


async def test_an_error_on_the_way_out_is_nobodys_surprise(caplog: pytest.LogCaptureFixture) -> None:
    async def fails_late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while it was cancelled")

    with caplog.at_level(logging.ERROR, "asyncio"), pytest.raises(asyncio.TimeoutError):
        await within(0.0, fails_late())
    gc.collect()
    assert not caplog.records


@pytest.mark.parametrize("ticks", range(6))
async def test_a_loop_is_left_when_it_is_cancelled_while_what_it_waits_for_happens(ticks: int) -> None:
    happens = asyncio.Event()

    async def looks_forever() -> None:
        while True:
            happens.clear()
            await within(60.0, happens.wait())

    looking = asyncio.create_task(looks_forever())
    await asyncio.sleep(0.001)
    happens.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    looking.cancel()
    await asyncio.wait({looking}, timeout=10.0)
    assert looking.cancelled()
