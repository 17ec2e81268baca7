"""How a decoded video frame is meant to be seen: square pixels, turned upright, RGB."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from flashsd_ray.media.picture import over_white

# A pixel is hardly ever more than twice as wide as high; what is far beyond that is a damaged or careless header.
MAX_PIXEL_ASPECT = 4


class Display:
    """Turns the frames of one stream into pictures of one size, that of the first frame."""

    def __init__(self, stream: VideoStream, first_frame: VideoFrame) -> None:
        self._width, self._height = square_pixels(first_frame.width, first_frame.height, stream.sample_aspect_ratio)
        self._matrix = _display_matrix(first_frame)
        self._reformatter = VideoReformatter()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of every picture."""
        return (self._height, self._width) if is_transposed(self._matrix) else (self._width, self._height)

    def pixels(self, frame: VideoFrame) -> np.ndarray:  # [H, W, 3] uint8
        """The frame as it is meant to be seen; transparency over white."""
        has_alpha = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
        shown = self._reformatter.reformat(
            frame,
            width=self._width,
            height=self._height,
            format="rgba" if has_alpha else "rgb24",
            interpolation=Interpolation.BICUBIC,
            threads=1,
        )
        pixels: np.ndarray = shown.to_ndarray()
        if has_alpha:
            pixels = np.asarray(over_white(Image.fromarray(pixels)))
        return turned(pixels, self._matrix)


def square_pixels(width: int, height: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """The size at which pixels are square: the shorter side of a pixel is stretched, so that no detail is lost."""
    if not pixel_aspect or not Fraction(1, MAX_PIXEL_ASPECT) <= pixel_aspect <= MAX_PIXEL_ASPECT:
        return width, height
    if pixel_aspect >= 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def is_transposed(matrix: tuple[int, int, int, int]) -> bool:
    """Whether the matrix exchanges rows and columns."""
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def turned(
    pixels: np.ndarray,  # [H, W, 3]
    matrix: tuple[int, int, int, int],  # a, b, c, d: (x, y) is shown at (a x + c y, b x + d y), y downwards
) -> np.ndarray:  # [H, W, 3] or [W, H, 3]
    """The picture after the quarter turn and reflection that are nearest to the matrix."""
    a, b, c, d = matrix
    if is_transposed(matrix):
        pixels, x_factor, y_factor = pixels.swapaxes(0, 1), c, b
    else:
        x_factor, y_factor = a, d
    return pixels[:: -1 if y_factor < 0 else 1, :: -1 if x_factor < 0 else 1]


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    side_data: Any = frame.side_data
    matrix = side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix)[:36])
    return a, b, c, d
