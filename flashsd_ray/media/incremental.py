"""Decoding of a container while its bytes are still arriving.

FFmpeg pulls: it asks for bytes and waits until it has them. So a container that is pushed is decoded in a thread of its
own, which sleeps inside ``ChunkSource.read`` whenever it has used up what has come. Nothing is kept for going back, so
the index of the container must stand before its data. Damage is passed over until the next key frame, as on any live
picture; of a file that is there as a whole, ``load_visual`` would refuse it.
"""

from __future__ import annotations

import io
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from flashsd_ray.config import MediaConfig
from flashsd_ray.media.container import open_video
from flashsd_ray.media.display import Display
from flashsd_ray.media.picture import check_pixels
from flashsd_ray.media.sequential import DEFAULT_RATE
from flashsd_ray.media.sniffing import HEADER_BYTES, picture_format, refusal
from flashsd_ray.media.source import Deadline, MediaSource
from flashsd_ray.media.translation import media_errors
from flashsd_ray.media.truncation import MIN_BOX_BYTES, TOP_LEVEL_BOXES


class ChunkSource(MediaSource):
    """A stream over bytes that come piece by piece, read in one thread and fed from another; it only goes forward."""

    def __init__(
        self,
        label: str,
        on_hungry: Callable[[], None],  # called by the reading thread before it waits, once for each ``feed``
        config: MediaConfig,
    ) -> None:
        # A live stream has no length, and most of its time is waiting.
        super().__init__(io.BytesIO(), 0, label, Deadline(math.inf, time.monotonic))
        self._on_hungry = on_hungry
        self._max_silent_bytes = config.max_bytes
        self._silent_bytes = 0
        self._changed = threading.Condition()
        self._waiting = bytearray()
        self._position = 0
        self._num_feeds = 0
        self._has_ended = False

    def feed(self, data: bytes, *, is_last: bool = False) -> None:
        """These bytes can be read; after the last ones the source ends."""
        with self._changed:
            self._waiting += data
            self._num_feeds += 1
            self._has_ended |= is_last
            self._changed.notify()

    def close(self) -> None:
        """The source has ended here; a reader that waits wakes up."""
        with self._changed:
            self._waiting.clear()
            self._num_feeds += 1
            self._has_ended = True
            self._changed.notify()

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most ``size``; waits for one at least, and returns none at the end only."""
        with self._changed:
            self._wait_for(1)
            content = bytes(self._waiting[:size] if size >= 0 else self._waiting)
            del self._waiting[: len(content)]
            self._position += len(content)
            self._silent_bytes += len(content)
            if self._silent_bytes <= self._max_silent_bytes:
                return content
            # A header that never ends would be kept in memory.
            limit = f"media.max_bytes allows {self._max_silent_bytes}"
            self._failure = f"brings {self._silent_bytes} bytes without a frame; {limit}"
            return b""

    def frame_came(self) -> None:
        """What was read so far was good for a frame."""
        self._silent_bytes = 0

    def peek(self, size: int) -> bytes:
        """The next bytes, which can still be read; waits until so many have come or the source has ended."""
        with self._changed:
            self._wait_for(size)
            return bytes(self._waiting[:size])

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The position, unchanged."""
        return self._position

    def seekable(self) -> bool:
        """Never."""
        return False

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def _wait_for(self, size: int) -> None:
        while len(self._waiting) < size and not self._has_ended:
            num_feeds = self._num_feeds
            self._on_hungry()
            while self._num_feeds == num_feeds:
                self._changed.wait()


def frames_as_they_arrive(
    source: ChunkSource,
    config: MediaConfig,
    is_wanted: Callable[[float], bool],  # told the time of every frame, in order
) -> Generator[tuple[float, np.ndarray], None, None]:  # seconds since the first frame, and [H, W, 3] uint8
    """The wanted frames, each as soon as its bytes are there; all have the size of the first.

    Raises:
        MediaError: the source is no container that is accepted, its index stands behind its data, or it brings more
            than ``media.max_bytes`` without a frame.
        MediaLimitError: it has more streams or pixels than the config allows.
    """
    _check_header(source)
    with media_errors(source, "a video"), open_video(source, config) as (container, stream):
        display: Display | None = None
        for frame, time_s in _timed(_sound_frames(container.demux(stream)), stream):
            source.frame_came()
            if is_wanted(time_s):
                check_pixels(source, frame.width, frame.height, config)
                display = display or Display(stream, frame)
                yield time_s, display.pixels(frame)
        source.check()
        if display is None:
            raise source.error("no frame could be decoded")


def _check_header(source: ChunkSource) -> None:
    header = source.peek(HEADER_BYTES)
    if not header:
        raise source.error("is empty")
    name = picture_format(header)
    problem = f"is a picture ({name}); send it as a frame" if name else refusal(header)
    if problem is None and _begins_with_data(header):
        problem = "has its index at the end; write it with the index in front (-movflags +faststart) or in fragments"
    if problem is not None:
        raise source.error(problem)


def _begins_with_data(header: bytes) -> bool:
    start = 0
    while (name := header[start + 4 : start + MIN_BOX_BYTES]) in TOP_LEVEL_BOXES:
        if name in (b"moov", b"moof", b"mdat"):
            return name == b"mdat"
        start += max(int.from_bytes(header[start : start + 4], "big"), MIN_BOX_BYTES)
    return False


def _sound_frames(packets: Iterator[av.Packet[VideoStream]]) -> Iterator[VideoFrame]:
    is_sound = True
    for packet in packets:
        frames: list[VideoFrame] = []
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            is_sound = False
        for frame in frames:
            is_sound = not frame.is_corrupt and (is_sound or bool(frame.key_frame))
            if is_sound:
                yield frame


def _timed(frames: Iterator[VideoFrame], stream: VideoStream) -> Iterator[tuple[VideoFrame, float]]:
    tick_s = Fraction(stream.time_base) if stream.time_base else None
    frame_s = 1 / (stream.average_rate or DEFAULT_RATE)
    first_pts: int | None = None
    time_s = -frame_s
    for frame in frames:
        if frame.pts is None or tick_s is None:
            time_s += frame_s
        else:
            first_pts = frame.pts if first_pts is None else first_pts
            # Streams that were joined start their times anew; video time stands still until they have caught up.
            time_s = max(time_s, (frame.pts - first_pts) * tick_s, Fraction(0))
        yield frame, float(time_s)
