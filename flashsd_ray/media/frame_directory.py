"""A directory of pictures as the frames of a video, in natural order (frame2 before frame10)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError
from flashsd_ray.media.picture import check_decoded_bytes, open_picture, still_pixels
from flashsd_ray.media.sampling import Sampling, Timeline, exact
from flashsd_ray.media.sniffing import HEADER_BYTES, picture_format
from flashsd_ray.media.source import Deadline, PathText, open_file, printable
from flashsd_ray.media.translation import media_errors
from flashsd_ray.types import VisualInput


def load_directory(
    path: PathText, label: str, config: MediaConfig, sampling: Sampling, deadline: Deadline
) -> VisualInput:
    """The chosen pictures of the directory; its other files, hidden files and directories are passed over.

    Raises:
        MediaError: there is no picture, one is damaged, or two differ in size.
        MediaLimitError: there are more files, pixels or bytes than the config allows.
    """
    names = _pictures(path, label, config, deadline)
    # A rate that is no whole number of frames a second still gives whole ticks: one tick a frame.
    timeline = Timeline(
        ticks=np.arange(len(names), dtype=np.int64), tick_s=1 / exact(config.directory_fps), end_tick=len(names)
    )
    chosen = sampling.choose(timeline)
    if not chosen:
        raise MediaError(f"{label}: start_s lies after its end at {timeline.duration_s:.2f} s")
    frames: np.ndarray | None = None
    for row, index in enumerate(chosen):
        frame_label = f"{label}/{printable(names[index])}"
        pixels = _load_frame(Path(path, names[index]), frame_label, config, deadline)
        if frames is None:
            check_decoded_bytes(label, (len(chosen), *_shape(pixels)), config)
            frames = np.empty((len(chosen), *pixels.shape), np.uint8)
        if pixels.shape != frames.shape[1:]:
            found, wanted = (f"{width}x{height}" for height, width, _ in (pixels.shape, frames.shape[1:]))
            raise MediaError(f"{frame_label}: has {found} pixels, the first frame has {wanted}")
        frames[row] = pixels
    assert frames is not None
    return VisualInput(
        kind="video",
        frames=frames,
        timestamps_s=np.array([timeline.time_s(index) for index in chosen]),
        source=label,
        duration_s=timeline.duration_s,
    )


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """A sort key by which numbers inside names count by value: f2 < f10, f01 before f1."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), part) if part.isdecimal() and part.isascii() else (1, 0, part) for part in parts if part]


def _pictures(path: PathText, label: str, config: MediaConfig, deadline: Deadline) -> list[str]:
    try:
        with os.scandir(path) as entries:
            files = [entry.name for entry in _bounded(entries, label, config) if entry.is_file()]
    except OSError as error:
        raise MediaError(f"{label}: cannot be listed: {error.strerror}") from error
    visible = [name for name in files if not name.startswith(".")]
    pictures = [name for name in visible if _is_picture(Path(path, name), label, config, deadline)]
    if not pictures:
        raise MediaError(f"{label}: is a directory without pictures (files in it: {len(visible)})")
    return sorted(pictures, key=natural_key)


def _bounded(entries: Iterable[os.DirEntry[str]], label: str, config: MediaConfig) -> Iterator[os.DirEntry[str]]:
    for count, entry in enumerate(entries, 1):
        if count > config.max_source_frames:
            limit = f"media.max_source_frames allows {config.max_source_frames}"
            raise MediaLimitError(f"{label}: is a directory of too many files; {limit}")
        yield entry


def _is_picture(path: Path, label: str, config: MediaConfig, deadline: Deadline) -> bool:
    with open_file(path, f"{label}/{printable(path.name)}", config, deadline) as source:
        header = source.peek(HEADER_BYTES)
        source.check()
        return picture_format(header) is not None


def _shape(pixels: np.ndarray) -> tuple[int, int, int]:
    height, width, channels = pixels.shape
    return height, width, channels


def _load_frame(path: Path, label: str, config: MediaConfig, deadline: Deadline) -> np.ndarray:  # [H, W, 3] uint8
    with open_file(path, label, config, deadline) as source, media_errors(source, "a picture"):
        header_format = picture_format(source.peek(HEADER_BYTES))
        if header_format is None:
            raise source.error("is no picture")
        return still_pixels(open_picture(source, header_format, config), source)
