"""Still pictures: any mode and orientation that Pillow reads becomes upright 8-bit RGB.

Transparency is laid over white, as vLLM does. Colour profiles are not applied, as in transformers and vLLM.
"""

from __future__ import annotations

from contextlib import suppress
from typing import IO, cast

import numpy as np
from PIL import ExifTags, Image

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError
from flashsd_ray.media.source import MediaSource

WHITE = (255, 255, 255)
MAX_16_BIT = 65535

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_picture(source: MediaSource, picture_format: str, config: MediaConfig) -> Image.Image:
    """The picture with its header read and its size accepted, but not decoded.

    Raises:
        MediaLimitError: the file or the picture is larger than ``media.max_image_bytes`` or ``media.max_pixels``.
    """
    # Some Pillow plugins read the whole file when it is opened.
    if source.size_bytes > config.max_image_bytes:
        limit = f"media.max_image_bytes allows {config.max_image_bytes}"
        raise MediaLimitError(f"{source.label}: is a picture of {source.size_bytes} bytes; {limit}")
    image = Image.open(cast("IO[bytes]", source), formats=(picture_format,))
    check_pixels(source, *image.size, config)
    return image


def still_pixels(image: Image.Image, source: MediaSource) -> np.ndarray:  # [H, W, 3] uint8
    """The decoded picture, turned upright by its EXIF orientation."""
    image.load()
    source.check()
    orientation = None
    with suppress(Exception):  # damaged EXIF data does not make a picture unreadable
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    return rgb_pixels(image, source.label)


def rgb_pixels(image: Image.Image, label: str) -> np.ndarray:  # [H, W, 3] uint8
    """The pixels of a decoded picture of any mode, transparency over white.

    Raises:
        MediaError: the pixels are floating-point or 32-bit numbers, whose white is not known.
    """
    if image.mode.startswith("I"):
        image = _from_16_bit(image, label)
    if image.mode == "F":
        raise MediaError(f"{label}: has floating-point pixels; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        image = over_white(image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def over_white(image: Image.Image) -> Image.Image:
    """An RGB picture of the RGBA picture on white paper."""
    paper = Image.new("RGB", image.size, WHITE)
    paper.paste(image, mask=image.getchannel("A"))
    return paper


def check_pixels(source: MediaSource, width: int, height: int, config: MediaConfig) -> None:
    """Raises MediaError when a picture has no pixels, MediaLimitError when it has more than ``media.max_pixels``."""
    if width < 1 or height < 1:
        raise source.error(f"its header says {width}x{height} pixels")
    if width * height > config.max_pixels:
        raise MediaLimitError(
            f"{source.label}: has {width}x{height} pixels; media.max_pixels allows {config.max_pixels}"
        )


def check_decoded_bytes(label: str, shape: tuple[int, int, int, int], config: MediaConfig) -> None:
    """Raises MediaLimitError when frames of this shape need more memory than ``media.max_decoded_bytes``."""
    num_frames, height, width, channels = shape
    if num_frames * height * width * channels > config.max_decoded_bytes:
        raise MediaLimitError(
            f"{label}: {num_frames} frames of {width}x{height} pixels need more than media.max_decoded_bytes "
            f"({config.max_decoded_bytes}); ask for fewer frames"
        )


def _from_16_bit(image: Image.Image, label: str) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > MAX_16_BIT:
        raise MediaError(f"{label}: has 32-bit pixels; convert it to 8 or 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))
