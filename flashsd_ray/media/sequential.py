"""Frames of streams whose packets do not tell when they are shown: decoded twice, counted first and picked then.

Raw elementary streams and some old or odd files are like that. Memory stays bounded, as no frame is held.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaLimitError
from flashsd_ray.media.sampling import Timeline
from flashsd_ray.media.source import MediaSource
from flashsd_ray.media.translation import reason

# What FFmpeg too assumes of a raw stream that names no rate.
DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CountedFrames:
    """What decoding a whole stream has shown."""

    timeline: Timeline
    is_sound: bytearray  # per frame: whether nothing was wrong from its key frame on


class _Decoder:
    """The frames of a freshly opened container, each with whether it is sound."""

    def __init__(self, container: InputContainer, stream: VideoStream, source: MediaSource) -> None:
        self._packets = container.demux(stream)
        self._source = source
        self.is_sound = True
        self.problem: str | None = None

    def __iter__(self) -> Iterator[tuple[VideoFrame, bool]]:
        for packet in self._packets:
            self._source.check()
            frames: list[VideoFrame] = []
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                self.problem, self.is_sound = reason(error), False
            for frame in frames:
                if frame.is_corrupt:
                    self.problem, self.is_sound = "its data is damaged", False
                elif frame.key_frame:
                    self.is_sound = True
                yield frame, self.is_sound


def decoded_frames(
    container: InputContainer, stream: VideoStream, source: MediaSource
) -> Iterator[tuple[VideoFrame, bool]]:
    """Every frame of a freshly opened container, each with whether nothing was wrong from its key frame on."""
    yield from _Decoder(container, stream, source)


def count_frames(
    container: InputContainer, stream: VideoStream, source: MediaSource, config: MediaConfig
) -> CountedFrames:
    """Times and soundness of all frames of the stream.

    Raises:
        MediaError: there is none, or the container is damaged.
        MediaLimitError: there are more than ``media.max_source_frames``.
    """
    pts, is_sound, last_ticks = array("q"), bytearray(), 0
    decoder = _Decoder(container, stream, source)
    has_times = True
    try:
        for frame, frame_is_sound in decoder:
            has_times &= frame.pts is not None and (not pts or frame.pts > pts[-1])
            pts.append(frame.pts if frame.pts is not None else 0)
            is_sound.append(frame_is_sound)
            last_ticks = frame.duration or last_ticks
            if len(pts) > config.max_source_frames:
                raise MediaLimitError(f"{source.label}: has more frames than media.max_source_frames allows")
    except av.error.FFmpegError as error:
        source.check()
        raise source.error(f"is damaged after {len(pts)} frames: {reason(error)}") from error
    if not pts:
        raise source.error(f"no frame could be decoded: {decoder.problem or 'the video stream is empty'}")
    if not decoder.is_sound:
        # How many frames the damaged end hides cannot be told, and with it what lies where in the video.
        raise source.error(f"is damaged after {len(pts)} frames: {decoder.problem}")
    ticks, tick_s = np.frombuffer(pts, dtype=np.int64), stream.time_base
    if not has_times or tick_s is None:
        ticks, tick_s, last_ticks = np.arange(len(pts), dtype=np.int64), 1 / (stream.average_rate or DEFAULT_RATE), 1
    timeline = Timeline(ticks=ticks, tick_s=Fraction(tick_s), end_tick=int(ticks[-1]) + max(last_ticks, 1))
    return CountedFrames(timeline=timeline, is_sound=is_sound)


def pick_frames(
    container: InputContainer, stream: VideoStream, source: MediaSource, chosen: list[int]
) -> Iterator[VideoFrame]:
    """The frames with these numbers, counted from 0 and ascending."""
    wanted = iter(chosen)
    number = next(wanted, None)
    for count, (frame, _) in enumerate(_Decoder(container, stream, source)):
        if count == number:
            yield frame
            number = next(wanted, None)
            if number is None:
                return
