"""Where messages wait between the tasks of a stream, in order and never without bound."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from flashsd_ray.sessions.events import Output

T = TypeVar("T")


class Inbox(Generic[T]):
    """What the client sent and nobody has looked at yet; putting waits while there is no room.

    One task puts, one gets.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._messages: asyncio.Queue[tuple[T, int] | None] = asyncio.Queue()
        self._places = asyncio.Semaphore(max_messages)
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._fetched = asyncio.Event()

    def __len__(self) -> int:
        return self._messages.qsize()

    async def put(self, message: T, num_bytes: int = 0) -> None:
        """The message waits its turn. One larger than the inbox waits until it is alone."""
        await self._places.acquire()
        while self._num_bytes and self._num_bytes + num_bytes > self._max_bytes:
            self._fetched.clear()
            await self._fetched.wait()
        self._num_bytes += num_bytes
        self._messages.put_nowait((message, num_bytes))

    def end(self) -> None:
        """Nothing follows."""
        self._messages.put_nowait(None)

    async def get(self) -> T | None:
        """The next message; None at the end."""
        entry = await self._messages.get()
        if entry is None:
            return None
        message, num_bytes = entry
        self._num_bytes -= num_bytes
        self._places.release()
        self._fetched.set()
        return message


class Outbox:
    """What the client has not read yet; putting waits while there is too much of it."""

    def __init__(self, max_events: int) -> None:
        self._events: asyncio.Queue[Output | None] = asyncio.Queue()
        self._places = asyncio.Semaphore(max_events)
        self._error: BaseException | None = None
        self._has_ended = False

    async def put(self, event: Output) -> None:
        """The client will read this."""
        await self._places.acquire()
        if not self._has_ended:
            self._events.put_nowait(event)

    def end(self, error: BaseException | None = None) -> None:
        """Nothing follows; what waits is still read, then the error is raised. Only the first end counts."""
        if not self._has_ended:
            self._has_ended, self._error = True, error
            self._events.put_nowait(None)

    async def get(self) -> Output | None:
        """The next event; None at the end.

        Raises:
            BaseException: the one that the stream ended with.
        """
        event = await self._events.get()
        self._places.release()
        if event is None:
            self._events.put_nowait(None)
            if self._error is not None:
                raise self._error
        return event
