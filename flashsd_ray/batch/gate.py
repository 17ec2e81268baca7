"""Keeps planning from running ahead: a parcel is planned when those that are so many before it have come out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayActorError

from flashsd_ray.timeouts import within


class Gate:
    """How far a pass has come; an actor."""

    def __init__(self) -> None:
        self._reached = -1
        self._moved = asyncio.Condition()

    async def tell(self, serial: int) -> None:
        """Parcels up to this number have come out, or were overtaken by it."""
        async with self._moved:
            self._reached = max(self._reached, serial)
            self._moved.notify_all()

    async def passed(self, serial: int, timeout_s: float) -> int:
        """How far it is, once it is so far or the time is over."""
        async with self._moved:
            with suppress(asyncio.TimeoutError):
                await within(timeout_s, self._moved.wait_for(lambda: self._reached >= serial))
            return self._reached


def start_gate() -> Any:
    """The gate as an actor that comes back when it is lost; whoever tells it how far it is does so again and again."""
    return ray.remote(num_cpus=0, max_restarts=-1)(Gate).remote()


class Waiter:
    """Waits at the gate, for the planner; not for ever, because what is lost never comes out."""

    def __init__(self, gate: Any, ahead: int, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._gate = gate
        self._ahead = ahead
        self._patience_s = patience_s
        self._clock = clock
        self._reached = -1

    def __call__(self, serial: int) -> None:
        """The parcel of this number may be planned."""
        end_s = self._clock() + self._patience_s
        while serial > self._reached + self._ahead and self._clock() < end_s:
            try:
                asked = self._gate.passed.remote(serial - self._ahead, 1.0)
                self._reached = max(self._reached, ray.get(asked))
            except RayActorError:
                time.sleep(0.1)  # it comes back, and is told again how far it is
