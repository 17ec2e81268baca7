"""From a path, or bytes, to frames: the doors of this room."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError
from flashsd_ray.media.animation import is_animation, load_animation
from flashsd_ray.media.frame_directory import load_directory
from flashsd_ray.media.picture import check_decoded_bytes, open_picture, still_pixels
from flashsd_ray.media.sampling import Sampling
from flashsd_ray.media.sniffing import HEADER_BYTES, picture_format, refusal
from flashsd_ray.media.source import (
    Clock,
    Deadline,
    MediaSource,
    PathText,
    is_directory,
    label_of,
    open_bytes,
    open_file,
    printable,
)
from flashsd_ray.media.translation import media_errors
from flashsd_ray.media.video import load_video
from flashsd_ray.types import VisualInput


def load_visual(
    path: PathText,
    config: MediaConfig,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    name: str = "",
    clock: Clock = time.monotonic,
) -> VisualInput:
    """The picture, or the sampled frames of the video, animation or directory of frames, that the path leads to.

    The path is only ever a file name: nothing in it is a pattern, an option or an address. Of a still picture the
    sampling arguments say nothing.

    Args:
        num_frames: sample so many frames, spread evenly over the range, the first and last frame among them.
        fps: sample so many frames a second instead.
        start_s: look only at frames that appear at this time or later, counted from the first frame.
        end_s: look only at frames that appear before this time.
        name: what to call it in messages; empty: its path.

    Raises:
        InvalidRequestError: a sampling argument lies outside its range.
        MediaError: the input is missing, of another kind, damaged, truncated, or ends before ``start_s``.
        MediaLimitError: a named limit of the config is exceeded.
    """
    sampling = Sampling.resolve(config, num_frames, fps, start_s, end_s)
    deadline = Deadline(config.max_decode_s, clock)
    label = printable(name) or label_of(path)
    if is_directory(path, label):
        return load_directory(path, label, config, sampling, deadline)
    with open_file(path, label, config, deadline) as source:
        return _load(source, config, sampling)


def load_visuals(
    paths: Sequence[PathText],
    config: MediaConfig,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    clock: Clock = time.monotonic,
) -> tuple[VisualInput, ...]:
    """What ``load_visual`` makes of each path, in order.

    Raises:
        MediaLimitError: there are more paths than ``media.max_inputs``; otherwise as ``load_visual``.
    """
    if len(paths) > config.max_inputs:
        raise MediaLimitError(f"{len(paths)} inputs are given; media.max_inputs allows {config.max_inputs}")
    return tuple(
        load_visual(path, config, num_frames=num_frames, fps=fps, start_s=start_s, end_s=end_s, clock=clock)
        for path in paths
    )


def load_visual_bytes(
    data: bytes | bytearray | memoryview,
    name: str,
    config: MediaConfig,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    clock: Clock = time.monotonic,
) -> VisualInput:
    """What ``load_visual`` makes of a file with this content; ``name`` only says what to call it in messages."""
    sampling = Sampling.resolve(config, num_frames, fps, start_s, end_s)
    source = open_bytes(data, printable(name) or "input", config, Deadline(config.max_decode_s, clock))
    return _load(source, config, sampling)


def _load(source: MediaSource, config: MediaConfig, sampling: Sampling) -> VisualInput:
    header = source.peek(HEADER_BYTES)
    source.check()
    name = picture_format(header)
    if name is not None:
        with media_errors(source, name):
            return _load_picture(source, name, config, sampling)
    problem = refusal(header)
    if problem is not None:
        raise MediaError(f"{source.label}: {problem}")
    with media_errors(source, "a video"):
        return load_video(source, config, sampling)


def _load_picture(source: MediaSource, name: str, config: MediaConfig, sampling: Sampling) -> VisualInput:
    with open_picture(source, name, config) as image:
        if is_animation(image):
            return load_animation(image, source, config, sampling)
        width, height = image.size
        check_decoded_bytes(source.label, (1, height, width, 3), config)
        pixels = still_pixels(image, source)
    return VisualInput(kind="image", frames=pixels[None], timestamps_s=np.zeros(1), source=source.label)
