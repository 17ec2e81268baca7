"""A time limit on what is awaited, under which no cancellation is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float | None, awaited: Awaitable[T]) -> T:
    """What was awaited has ended in time; where it has not, or the caller is cancelled, it is cancelled.

    Before Python 3.12 ``asyncio.wait_for`` takes the result for the answer to a cancellation that comes while the
    result is on its way (python/cpython#86296): a loop around it then goes on for ever, and whoever waits for its end
    waits for ever.

    Raises:
        asyncio.TimeoutError: it did not end in time.
    """
    work = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait({work}, timeout=seconds)
        if work.done():
            return work.result()
        raise asyncio.TimeoutError
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
        if not work.cancelled():
            work.exception()  # seen, also where nobody wants to know any more
