"""One video played to a server: frames go out at their time while answers come in."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from flashsd_ray.cli.streaming_formats import Writer
from flashsd_ray.cli.streaming_frames import Pace, TimedFrame
from flashsd_ray.cli.terminal import Activity, report_error
from flashsd_ray.client import (
    AnswerDelta,
    AnswerEvent,
    AnswerFinished,
    AnswerStarted,
    AsyncSession,
    Refused,
    Resumed,
    SessionEvent,
)

logger = logging.getLogger(__name__)

ALL_DONE, SOME_REFUSED = 0, 1
REFRESH_S = 0.2  # of the line that says how far the frames are


@dataclass(slots=True, eq=False, kw_only=True)
class Play:
    """One run of the verb."""

    session: AsyncSession
    writer: Writer
    activity: Activity
    asks_at_end: bool  # otherwise the session captions by itself
    num_refused: int = 0
    answer: AnswerFinished | None = None  # the last one

    async def run(self, frames: AsyncGenerator[TimedFrame, None], pace: Pace) -> int:
        """Every frame was sent and every answer written; returns the exit code.

        Raises:
            FlashSDError: the video cannot be read, or the session is lost.
        """
        shows = asyncio.create_task(self._show_progress())
        try:
            await _together(self._send(frames, pace), self._listen())
        finally:
            shows.cancel()
            self.activity.rests()
        if self.num_refused > 1:
            report_error(f"{self.num_refused} frames, prompts or captions were refused in all")
        return SOME_REFUSED if self.num_refused else ALL_DONE

    async def _send(self, frames: AsyncGenerator[TimedFrame, None], pace: Pace) -> None:
        async with aclosing(frames):
            async for frame in frames:
                await pace.wait(frame.time_s)
                await self.session.send(frame.pixels, frame.time_s)
        if self.asks_at_end:
            async with aclosing(self.session.ask()) as events:
                async for event in events:
                    self._take(event)
        await self.session.end()

    async def _listen(self) -> None:
        async with aclosing(self.session.events()) as events:
            async for event in events:
                self._take(event)

    def _take(self, event: SessionEvent | AnswerEvent) -> None:
        if isinstance(event, (AnswerStarted, AnswerDelta, AnswerFinished)):
            self.answer = event if isinstance(event, AnswerFinished) else self.answer
            if not isinstance(event, AnswerStarted):
                self.activity.rests()
            self.writer.take(event)
        elif isinstance(event, Refused):
            self._refused(event)
        elif isinstance(event, Resumed):
            self.activity.rests()
            self.writer.interrupt()
            logger.warning(
                "the connection was lost and is there again; the video goes on at frame %d", event.next_frame
            )

    def _refused(self, event: Refused) -> None:
        self.num_refused += 1
        if self.num_refused > 1:
            return  # a stream that is too fast is refused many times for the same reason
        self.activity.rests()
        if self.writer.is_in_line:
            self.writer.interrupt()
        report_error(event.reason if event.frame is None else f"frame {event.frame}: {event.reason}")

    async def _show_progress(self) -> None:
        while True:
            if not self.writer.is_in_line:
                progress = self.session.progress
                self.activity.says(
                    f"{progress.num_sent} frames sent, {progress.num_acknowledged} acknowledged, "
                    f"{progress.num_held} held"
                )
            await asyncio.sleep(REFRESH_S)


def run_until_interrupted(work: Coroutine[Any, Any, int]) -> int:
    """What the work returns; an interrupt cancels it and leaves it the time to end politely.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """

    async def main() -> int:
        with _cancelled_by_interrupt(asyncio.get_running_loop(), asyncio.current_task()):
            return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@contextmanager
def _cancelled_by_interrupt(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if task is None or before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """All are done; the first that fails ends the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait(tasks)
