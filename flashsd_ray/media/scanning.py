"""All frames of a video, small, one after the other: for whoever looks for cuts and needs no detail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError
from flashsd_ray.media.container import open_video
from flashsd_ray.media.picture import check_pixels
from flashsd_ray.media.sequential import DEFAULT_RATE, decoded_frames
from flashsd_ray.media.sniffing import HEADER_BYTES, picture_format, refusal
from flashsd_ray.media.source import Clock, Deadline, MediaSource, PathText, open_bytes, open_file, printable
from flashsd_ray.media.translation import media_errors


@dataclass(frozen=True, slots=True, eq=False)
class SmallFrame:
    """One frame of a video, small."""

    time_s: Fraction  # from the first frame's appearance
    pixels: np.ndarray  # [h, w, 3] uint8, blue first; as stored, not turned upright


def scan_video(
    content: PathText | bytes,  # a path, or what is in the file
    name: str,  # what to call it in messages
    config: MediaConfig,
    *,
    width: int,  # most pixels that the longer side of a frame has
    clock: Clock = time.monotonic,
) -> Iterator[SmallFrame]:
    """Every sound frame of a video in order; nothing for pictures and animations.

    Raises:
        MediaError: the input is no video, or its container is damaged.
        MediaLimitError: a named limit of the config is exceeded.
    """
    deadline = Deadline(config.max_decode_s, clock)
    with ExitStack() as stack:
        if isinstance(content, bytes):
            source = open_bytes(content, printable(name), config, deadline)
        else:
            source = stack.enter_context(open_file(content, printable(name), config, deadline))
        header = source.peek(HEADER_BYTES)
        source.check()
        if picture_format(header) is not None:
            return
        problem = refusal(header)
        if problem is not None:
            raise MediaError(f"{source.label}: {problem}")
        yield from _scanned(source, config, width)


def _scanned(source: MediaSource, config: MediaConfig, width: int) -> Iterator[SmallFrame]:
    frames = _frames(source, config)
    reformatter, count = VideoReformatter(), 0
    while True:
        with media_errors(source, "a video"):
            found = next(frames, None)
            if found is None:
                return
            time_s, frame = found
            count += 1
            if count > config.max_source_frames:
                raise MediaLimitError(f"{source.label}: has more frames than media.max_source_frames allows")
            check_pixels(source, frame.width, frame.height, config)
            small = SmallFrame(time_s, _small(frame, width, reformatter))
        yield small


def _frames(source: MediaSource, config: MediaConfig) -> Iterator[tuple[Fraction, VideoFrame]]:
    with open_video(source, config) as (container, stream):
        step_s = 1 / Fraction(stream.average_rate or DEFAULT_RATE)
        first_pts: int | None = None
        for number, (frame, is_sound) in enumerate(decoded_frames(container, stream, source)):
            if frame.pts is not None and first_pts is None:
                first_pts = frame.pts
            if frame.pts is None or first_pts is None or stream.time_base is None:
                time_s = number * step_s
            else:
                time_s = (frame.pts - first_pts) * Fraction(stream.time_base)
            if is_sound:
                yield time_s, frame


def _small(frame: VideoFrame, width: int, reformatter: VideoReformatter) -> np.ndarray:  # [h, w, 3] uint8
    factor = min(1.0, width / max(frame.width, frame.height))
    pixels: np.ndarray = reformatter.reformat(
        frame,
        width=max(1, round(frame.width * factor)),
        height=max(1, round(frame.height * factor)),
        format="bgr24",
        interpolation=Interpolation.AREA,
        threads=1,
    ).to_ndarray()
    return pixels
