"""The time that sessions go by, so that tests can turn its hands."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that never run backwards, and a way to let them pass."""

    def now_s(self) -> float:
        """Seconds since some fixed moment."""
        ...

    async def sleep(self, seconds: float) -> None:
        """So many seconds have passed."""
        ...


class MonotonicClock:
    """The machine's own."""

    def now_s(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """So many seconds have passed."""
        await asyncio.sleep(seconds)
