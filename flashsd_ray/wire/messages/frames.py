"""Pixels that come as they are, without a file around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import InvalidRequestError, MediaLimitError
from flashsd_ray.types import VisualInput
from flashsd_ray.wire.v1 import captioning_pb2 as pb

_CHANNELS = 3


def raw_image(message: pb.RawFrame, where: str, config: MediaConfig) -> VisualInput:
    """The picture that the bytes are.

    Raises:
        InvalidRequestError: there are more or fewer bytes than width and height say.
        MediaLimitError: there are more pixels than ``media.max_pixels``.
    """
    width, height = message.width, message.height
    if not (width and height) or len(message.rgb) != width * height * _CHANNELS:
        raise InvalidRequestError(
            f"{where}: {width}x{height} pixels are {width * height * _CHANNELS} bytes, at least 3; "
            f"rgb has {len(message.rgb)}"
        )
    if width * height > config.max_pixels:
        raise MediaLimitError(f"{where} has {width}x{height} pixels; media.max_pixels allows {config.max_pixels}")
    # Copied, because later stages may write into it and must not keep the message alive.
    pixels = np.frombuffer(message.rgb, np.uint8).reshape(1, height, width, _CHANNELS).copy()
    return VisualInput(kind="image", frames=pixels, timestamps_s=np.zeros(1), source=where)


def check_frame_list(message: pb.Video, where: str, config: MediaConfig) -> None:
    """The frames can become a video, as far as that is known before they are decoded.

    Raises:
        InvalidRequestError: there are none, or not as many times as frames, or they are to be sampled.
        MediaLimitError: there are more than ``media.max_frames``.
    """
    frames, times = len(message.frames.frames), len(message.frames.timestamps_s)
    if not frames:
        raise InvalidRequestError(f"{where}.frames is empty")
    if frames > config.max_frames:
        raise MediaLimitError(f"{where}.frames holds {frames}; media.max_frames allows {config.max_frames}")
    if times not in (0, frames):
        raise InvalidRequestError(f"{where}.frames.timestamps_s holds {times} times for {frames} frames")
    if message.num_frames or message.fps or message.HasField("start_s") or message.HasField("end_s"):
        raise InvalidRequestError(
            f"{where}.frames are all looked at: num_frames, fps, start_s and end_s are for files and addresses"
        )


def video_of_frames(
    images: Sequence[VisualInput],  # one frame each
    timestamps_s: Sequence[float],  # as many, or none
    where: str,
    config: MediaConfig,
) -> VisualInput:
    """The frames as one video; without times they follow each other at ``media.directory_fps``.

    Raises:
        InvalidRequestError: the frames differ in size, or a time is no number or runs backwards.
    """
    first = images[0].frames
    for index, image in enumerate(images):
        if image.frames.shape != first.shape:
            raise InvalidRequestError(
                f"{where}.frames[{index}] has {_size(image.frames)} pixels, the first has {_size(first)}"
            )
    times = np.array(timestamps_s if len(timestamps_s) else np.arange(len(images)) / config.directory_fps, np.float64)
    if not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) < 0).any():
        raise InvalidRequestError(f"{where}.timestamps_s must not be negative nor run backwards")
    span_s = float(times[-1] - times[0])
    last_s = span_s / (len(times) - 1) if span_s else 1 / config.directory_fps  # how long the last frame stays
    return VisualInput(
        kind="video",
        frames=np.concatenate([image.frames for image in images]),
        timestamps_s=times,
        source=where,
        duration_s=span_s + last_s,
    )


def _size(frames: np.ndarray) -> str:
    return f"{frames.shape[2]}x{frames.shape[1]}"
