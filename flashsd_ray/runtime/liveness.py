"""Whether the event loop that does an actor's work still turns, asked from another one."""

from __future__ import annotations

import asyncio

HEALTH = "health"  # the group of methods that answer however many requests are open


class LoopWatch:
    """Health is asked in a loop of its own, which would go on answering while the loop that works is blocked."""

    def __init__(self) -> None:
        self._working: asyncio.AbstractEventLoop | None = None

    def here(self) -> None:
        """The running loop is the one that works."""
        self._working = asyncio.get_running_loop()

    async def turned(self) -> None:
        """The loop that works has done something else meanwhile; at once where none has worked yet."""
        if self._working is not None and self._working is not asyncio.get_running_loop():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._working))
