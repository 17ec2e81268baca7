"""Attempts to reach a part that was lost: one at a time, a period apart, and never in the caller's thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Generic, TypeVar

from flashsd_ray.errors import FlashSDError

logger = logging.getLogger(__name__)
T = TypeVar("T")
Start = Callable[[Callable[[], T]], "Future[T]"]


def in_thread(connect: Callable[[], T]) -> Future[T]:
    """The result of the call, which runs in a thread that does not keep the process alive."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(connect())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


class Reconnection(Generic[T]):
    """Asked now and then, it has the new connection once there is one."""

    def __init__(
        self,
        connect: Callable[[], T],
        *,
        retry_s: float,  # from the end of an attempt to the next one; the first may begin at once
        clock: Callable[[], float],
        start: Start[T] = in_thread,
    ) -> None:
        self._connect = connect
        self._retry_s = retry_s
        self._clock = clock
        self._start = start
        self._next_s = clock()
        self._attempt: Future[T] | None = None

    def poll(self) -> T | None:
        """The connection if an attempt has succeeded; begins an attempt when it is time."""
        if self._attempt is None and self._clock() >= self._next_s:
            self._attempt = self._start(self._connect)
        if self._attempt is None or not self._attempt.done():
            return None
        try:
            return self._attempt.result()
        except FlashSDError as error:
            logger.info("an attempt to reconnect failed: %s", error)
        except Exception:
            logger.exception("an attempt to reconnect failed")
        finally:
            self._attempt = None
            self._next_s = self._clock() + self._retry_s
        return None
