"""A client of live sessions and a clock whose hands the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TypeVar

import numpy as np

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.config import Config, SessionsConfig
from flashsd_ray.sessions.events import (
    AnswerDelta,
    AnswerFinished,
    Closed,
    End,
    FrameAck,
    Input,
    Open,
    Opened,
    Output,
    PushFrame,
)
from flashsd_ray.sessions.live import watch
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.types import CaptionRequest
from tests.fake_service import EchoService

T = TypeVar("T")


class SlowService(EchoService):
    """Prefetches only while its door is open, and never two at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.door = asyncio.Event()
        self.num_running = 0

    async def prefetch(self, request: CaptionRequest) -> int:
        self.num_running += 1
        assert self.num_running == 1
        try:
            tokens = await super().prefetch(request)
            await self.door.wait()
            await settle()
            return tokens
        finally:
            self.num_running -= 1


class ManualClock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.time_s = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_s(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        entry = (self.time_s + seconds, future)
        self._sleepers.append(entry)
        try:
            await future
        finally:
            self._sleepers.remove(entry)

    def advance(self, seconds: float) -> None:
        self.time_s += seconds
        for due_s, future in self._sleepers:
            if due_s <= self.time_s and not future.done():
                future.set_result(None)

    @property
    def num_sleepers(self) -> int:
        return len(self._sleepers)


def limits(**changes: object) -> Config:
    """The settings that ship, with these of the section ``sessions`` changed."""
    return replace(Config(), sessions=replace(SessionsConfig(), **changes))  # type: ignore[arg-type]


def picture(number: int = 0, size: int = 8) -> np.ndarray:  # [H, W, 3] uint8
    """A grey picture, as light as its number."""
    return np.full((size, size, 3), number % 256, np.uint8)


def frames(times_s: list[float] | range) -> list[Input]:
    """Frames of these times."""
    return [PushFrame(image=picture(number), timestamp_s=float(time)) for number, time in enumerate(times_s)]


def shades(request: CaptionRequest) -> list[int]:
    """The numbers of all pictures that a request shows."""
    return [int(frame[0, 0, 0]) for visual in request.conversation.visuals for frame in visual.frames]


def texts(request: CaptionRequest) -> list[str]:
    """What is said in a request, by both sides."""
    return [part for turn in request.turns for part in turn.parts if isinstance(part, str)]


async def settle(rounds: int = 40) -> None:
    """Every task has gone as far as it can without anything from outside."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class Client:
    """One stream: what is sent goes in, what comes out is read on demand."""

    config = Config()

    def __init__(
        self, service: CaptionService, sessions: SessionRegistry, config: Config | None = None, caller: str = "anna"
    ) -> None:
        self.num_read = 0
        self._inputs: asyncio.Queue[Input | None] = asyncio.Queue()
        self.events = watch(self._read(), service, sessions, config or self.config, caller=caller)

    def send(self, *messages: Input) -> None:
        for message in messages:
            self._inputs.put_nowait(message)

    def lose(self) -> None:
        """The client is gone without a word."""
        self._inputs.put_nowait(None)

    async def open(self, **wishes: object) -> Opened:
        self.send(Open(**wishes))  # type: ignore[arg-type]
        return await self.next(Opened)

    async def next(self, kind: type[T]) -> T:
        """The next event of this kind; others are passed over, except the end."""
        async for event in self.events:
            if isinstance(event, kind):
                return event
            assert not isinstance(event, Closed), event
        raise AssertionError(f"the stream ended without {kind.__name__}")

    async def acknowledged(self, frame: int) -> FrameAck:
        """The acknowledgement that covers this frame."""
        while (ack := await self.next(FrameAck)).frame < frame:
            pass
        return ack

    async def answer(self) -> tuple[str, AnswerFinished]:
        """The text in pieces, and the end, of the next answer to end."""
        pieces: dict[str, str] = {}
        async for event in self.events:
            if isinstance(event, AnswerDelta):
                pieces[event.ask_id] = pieces.get(event.ask_id, "") + event.chunk.text
            elif isinstance(event, AnswerFinished):
                return pieces.get(event.ask_id, ""), event
        raise AssertionError("the stream ended without an answer")

    async def rest(self) -> list[Output]:
        """All that still comes."""
        return [event async for event in self.events]

    async def end(self) -> list[Output]:
        self.send(End())
        return await self.rest()

    async def _read(self) -> AsyncIterator[Input]:
        while (message := await self._inputs.get()) is not None:
            self.num_read += 1
            yield message
