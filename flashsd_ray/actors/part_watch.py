"""Asks lanes or encoders how they are, and knows since when each has said nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from flashsd_ray.errors import FlashSDError
from flashsd_ray.scheduling.silence import is_quiet

SHORTEST_LOOK_S = 0.05

S = TypeVar("S")  # what a part answers


class PartWatch(Generic[S]):
    """The parts of one kind that a router knows; one question to a part is open at a time."""

    def __init__(
        self,
        period_s: float,  # between two looks
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        on_answer: Callable[[str, S], None],  # told which part answers, and what
    ) -> None:
        self.period_s = max(period_s, SHORTEST_LOOK_S)
        self._clock = clock
        self._sleep = sleep
        self._on_answer = on_answer
        self._parts: dict[str, Callable[[], Awaitable[S]]] = {}
        self._heard_s: dict[str, float] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}

    @property
    def names(self) -> list[str]:
        """The parts that are watched."""
        return list(self._parts)

    def begin(self, name: str, ask: Callable[[], Awaitable[S]]) -> None:
        """The part is watched; it counts as heard of now."""
        self._parts[name] = ask
        self._heard_s[name] = self._clock()

    def end(self, name: str) -> None:
        """The part is watched no more."""
        self._parts.pop(name, None)
        self._heard_s.pop(name, None)
        look = self._looks.pop(name, None)
        if look is not None:
            look.cancel()

    def heard(self, name: str) -> bool:
        """The part gave a sign of life; returns whether it had been quiet."""
        was_quiet = self.is_quiet(name)
        if name in self._parts:
            self._heard_s[name] = self._clock()
        return was_quiet

    def silent_s(self, name: str) -> float:
        """Seconds since the last sign of life."""
        return self._clock() - self._heard_s.get(name, self._clock())

    def is_quiet(self, name: str) -> bool:
        """Whether the part is to be given nothing new."""
        return is_quiet(self.silent_s(name), self.period_s)

    async def run(self, on_look: Callable[[], None]) -> None:
        """Every part is asked again and again; before that, whoever draws conclusions is called."""
        while True:
            slept_s = self._clock()
            await self._sleep(self.period_s)
            if is_quiet(self._clock() - slept_s, self.period_s):
                self._heard_s = dict.fromkeys(self._parts, self._clock())  # it was this process that stood still
            on_look()
            for name in self._parts:
                if name not in self._looks:
                    self._looks[name] = asyncio.create_task(self._look(name))

    async def _look(self, name: str) -> None:
        with suppress(FlashSDError):  # whoever uses the part learns that it is lost
            self._on_answer(name, await self._parts[name]())
        if self._looks.get(name) is asyncio.current_task():
            del self._looks[name]
