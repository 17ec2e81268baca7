"""A video file as a camera gives it: one frame after the other, each at its time, none held."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError
from flashsd_ray.media.container import open_video
from flashsd_ray.media.display import Display
from flashsd_ray.media.picture import check_pixels
from flashsd_ray.media.sniffing import HEADER_BYTES, picture_format, refusal
from flashsd_ray.media.source import Deadline, MediaSource, is_directory, label_of, open_file
from flashsd_ray.media.translation import media_errors
from flashsd_ray.media.truncation import check_complete

if TYPE_CHECKING:
    import numpy as np

DEFAULT_RATE = 25  # what FFmpeg too assumes of a stream that names none
ROUNDING_S = 1e-3  # containers round times to their tick


@dataclass(frozen=True, slots=True, eq=False)
class TimedFrame:
    """One frame of a video."""

    time_s: float  # from the first frame
    pixels: np.ndarray  # [H, W, 3] uint8


class Pace:
    """Holds frames back until their time has come."""

    def __init__(
        self,
        speed: float | None,  # seconds of video per second; None: as fast as can be
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._speed = speed
        self._clock = clock
        self._sleep = sleep
        self._start_s: float | None = None

    async def wait(self, time_s: float) -> None:
        """The time of this frame has come; that of the first one is now."""
        if self._speed is None:
            return
        due_s = time_s / self._speed
        if self._start_s is None:
            self._start_s = self._clock() - due_s
        wait_s = self._start_s + due_s - self._clock()
        if wait_s > 0:
            await self._sleep(wait_s)


def frames_of(
    path: str,
    config: MediaConfig,
    fps: float | None = None,  # frames taken per second of video; None: all
) -> Generator[TimedFrame, None, None]:
    """The frames of a video in the order of their times, decoded as they are asked for.

    Raises:
        MediaError: there is no video at the path, or it is damaged from here on.
        MediaLimitError: a named limit of the config is exceeded.
    """
    label = label_of(path)
    if is_directory(path, label):
        raise MediaError(f"{label}: is a directory; a video file is needed here")
    # Reading takes as long as the video lasts, so media.max_decode_s does not apply.
    with open_file(path, label, config, Deadline(math.inf, time.monotonic)) as source:
        _check_video(source)
        with media_errors(source, "a video"), open_video(source, config) as (container, stream):
            yield from _shown(container, stream, source, config, fps)


def begun(frames: Generator[TimedFrame, None, None]) -> Generator[TimedFrame, None, None]:
    """The same frames, of which the first is decoded now; raises what that raises."""
    first = next(frames)

    def all_of_them() -> Generator[TimedFrame, None, None]:
        with closing(frames):
            yield first
            yield from frames

    return all_of_them()


async def in_a_thread(frames: Generator[TimedFrame, None, None]) -> AsyncGenerator[TimedFrame, None]:
    """The frames, decoded in one thread so that the event loop goes on meanwhile."""
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, thread_name_prefix="frames")
    try:
        while (frame := await loop.run_in_executor(thread, next, frames, None)) is not None:
            yield frame
    finally:
        # By that thread and after the frame that it may be decoding, since a generator runs in one thread at a time.
        thread.submit(frames.close)
        thread.shutdown(wait=False)


def _check_video(source: MediaSource) -> None:
    header = source.peek(HEADER_BYTES)
    source.check()
    if picture_format(header) is not None:
        raise source.error("is a picture; a video is needed here")
    problem = refusal(header)
    if problem is not None:
        raise source.error(problem)
    check_complete(source)


def _shown(
    container: Any, stream: Any, source: MediaSource, config: MediaConfig, fps: float | None
) -> Generator[TimedFrame, None, None]:
    display: Display | None = None
    last_s, due_s = -1.0, 0.0
    for frame, time_s in _decoded(container, stream, source):
        check_pixels(source, frame.width, frame.height, config)
        if time_s <= last_s or time_s + ROUNDING_S < due_s:
            continue
        last_s = time_s
        if fps is not None:
            due_s = (math.floor((time_s + ROUNDING_S) * fps) + 1) / fps
        display = display or Display(stream, frame)
        yield TimedFrame(time_s, display.pixels(frame))
    if display is None:
        raise source.error("no frame could be decoded: the video stream is empty")


def _decoded(container: Any, stream: Any, source: MediaSource) -> Generator[tuple[Any, float], None, None]:
    """Every frame with its time from the first one on; a damaged one ends the video."""
    first_s: float | None = None
    rate = stream.average_rate or DEFAULT_RATE
    for number, frame in enumerate(container.decode(stream)):
        source.check()
        if frame.is_corrupt:
            raise source.error(f"is damaged after {number} frames")
        shown_s = float(number / rate) if frame.pts is None else float(frame.pts * frame.time_base)
        first_s = shown_s if first_s is None else first_s
        yield frame, shown_s - first_s
    source.check()
