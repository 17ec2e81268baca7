"""One frame as a client sends it, as the pixels that are looked at."""

from __future__ import annotations

import asyncio

import numpy as np

from flashsd_ray.config import Config, MediaConfig
from flashsd_ray.errors import InvalidRequestError, MediaError, MediaLimitError
from flashsd_ray.media import load_visual_bytes
from flashsd_ray.media.picture import check_decoded_bytes
from flashsd_ray.media.sniffing import HEADER_BYTES, picture_format


async def pixels_of(
    image: bytes | np.ndarray,  # a picture file, or [H, W, 3] uint8
    label: str,
    config: Config,
    *,
    max_frames: int,  # of the window that the frame is for
) -> np.ndarray:  # [H, W, 3] uint8
    """The pixels of a frame; a file is decoded in a thread.

    Raises:
        InvalidRequestError: the array is no picture.
        MediaError: the file is no still picture, or damaged.
        MediaLimitError: it is larger than ``sessions.max_frame_bytes``, or a window of its size than the config allows.
    """
    check_bytes(len(image) if isinstance(image, bytes) else image.nbytes, label, config)
    pixels = (
        await asyncio.to_thread(_decoded, image, label, config.media)
        if isinstance(image, bytes)
        else _checked(image, label, config.media)
    )
    check_window(pixels, label, config, max_frames=max_frames)
    return pixels


def check_bytes(num_bytes: int, label: str, config: Config) -> None:
    """Raises MediaLimitError when one message brings more than ``sessions.max_frame_bytes``."""
    if num_bytes > config.sessions.max_frame_bytes:
        limit = f"sessions.max_frame_bytes allows {config.sessions.max_frame_bytes}"
        raise MediaLimitError(f"{label}: has {num_bytes} bytes; {limit}")


def check_window(pixels: np.ndarray, label: str, config: Config, *, max_frames: int) -> None:
    """Raises MediaLimitError when a window of such frames takes more than ``media.max_decoded_bytes``."""
    height, width, channels = pixels.shape
    check_decoded_bytes(label, (max_frames, height, width, channels), config.media)


def _decoded(data: bytes, label: str, config: MediaConfig) -> np.ndarray:
    if picture_format(data[:HEADER_BYTES]) is None:
        raise MediaError(f"{label}: is no picture; a video is sent as chunks")
    visual = load_visual_bytes(data, label, config, num_frames=1)
    if visual.kind != "image":
        raise MediaError(f"{label}: is an animation; send its pictures one by one")
    frame: np.ndarray = visual.frames[0]
    return frame


def _checked(pixels: np.ndarray, label: str, config: MediaConfig) -> np.ndarray:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape or pixels.dtype != np.uint8:
        raise InvalidRequestError(f"{label}: must be [H, W, 3] uint8 and not empty, got {pixels.shape} {pixels.dtype}")
    height, width, _ = pixels.shape
    if height * width > config.max_pixels:
        raise MediaLimitError(f"{label}: has {width}x{height} pixels; media.max_pixels allows {config.max_pixels}")
    return pixels
