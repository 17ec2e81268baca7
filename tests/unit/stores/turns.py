"""Time between attempts, given out by the test."""

from __future__ import annotations

import threading


class Turns:
    """Stands for the wait of a Link: it ends when the test says so, and the waits that were asked for are kept."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []
        self._waiting = threading.Semaphore(0)
        self._turns = threading.Semaphore(0)
        self._is_closed = False

    def __call__(self, seconds: float) -> bool:
        self.waits_s.append(seconds)
        self._waiting.release()
        self._turns.acquire()
        return self._is_closed

    def until_waiting(self) -> None:
        """Whoever makes the attempts has begun to wait (again)."""
        assert self._waiting.acquire(timeout=60)

    def give(self) -> None:
        """One wait is over."""
        self._turns.release()

    def close(self) -> None:
        """Every wait is over, for good."""
        self._is_closed = True
        self._turns.release(100)


def until_retries_end() -> None:
    """No attempts are going on any more: the server was reached, or the link closed."""
    for thread in threading.enumerate():
        if thread.name.startswith("retry "):
            thread.join(timeout=60)
            assert not thread.is_alive()
