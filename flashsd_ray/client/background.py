"""An event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Runs coroutines for threads that wait for them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.process_id = os.getpid()
        # A daemon, because a program must be able to end although it forgot to close its client.
        threading.Thread(target=self._loop.run_forever, name="flashsd-client", daemon=True).start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns, or raises; it is cancelled when the wait for it is interrupted."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The work is done soon; nobody waits for it."""
        asyncio.run_coroutine_threadsafe(work(), self._loop)

    def iterate(self, items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """The items as they come; the asynchronous generator is closed with this one."""
        try:
            while True:
                try:
                    item = self.call(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self.call(_close(items))


_shared: Background | None = None
_lock = threading.Lock()


def shared() -> Background:
    """The one of this process; all clients share it.

    It is never stopped: the asynchronous gRPC library delivers some events after the calls that they belong to have
    ended, and where their loop is closed by then, other loops of the process are disturbed.
    """
    global _shared  # noqa: PLW0603
    with _lock:
        # Threads do not survive a fork.
        if _shared is None or _shared.process_id != os.getpid():
            _shared = Background()
        return _shared


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await items.__anext__()


async def _close(items: AsyncGenerator[T, None]) -> None:
    await items.aclose()
