"""Pictures and videos as callers have them, turned into what goes over the wire."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

from flashsd_ray.errors import ConfigError, InvalidRequestError, MediaError, MediaLimitError
from flashsd_ray.wire.v1 import captioning_pb2 as pb

if TYPE_CHECKING:
    import numpy as np

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray"
Visual: TypeAlias = "Source | Image | Video"

ADDRESS = re.compile(r"(https?|data|file):", re.IGNORECASE)
PICTURE_ADDRESS = re.compile(
    r"data:image/(?!gif)|[^?#]*\.(jpe?g|png|webp|bmp|tiff?|avif)([?#]|$)", re.IGNORECASE | re.DOTALL
)
VIDEO_ADDRESS = re.compile(
    r"data:(video|image/gif)|[^?#]*\.(mp4|m4v|mov|webm|mkv|avi|ts|mpe?g|gif)([?#]|$)", re.IGNORECASE | re.DOTALL
)
# Pillow would take some videos for pictures, so it is asked for these only.
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "QOI")


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One picture: a path, an address, the bytes of a file, or pixels [H, W, 3] uint8."""

    source: Source


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """One video: a path, an address, the bytes of a file, or frames [F, H, W, 3] uint8."""

    source: Source
    num_frames: int = 0  # sampled uniformly; 0: the server's choice
    fps: float = 0.0  # sampled at this rate instead, when positive
    start_s: float | None = None
    end_s: float | None = None
    timestamps_s: Sequence[float] = ()  # of frames given as pixels: as many, or none


@dataclass(frozen=True, slots=True)
class Pictures:
    """Turns what callers give into messages."""

    jpeg_quality: int | None = None  # of frames given as pixels; None: they are sent as they are
    max_bytes: int = 0  # of one file; 0: no limit

    def __post_init__(self) -> None:
        """Raises ConfigError when there is no such quality."""
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"jpeg_quality must be in 1..100, got {self.jpeg_quality}")

    def part(self, visual: Visual) -> pb.Part:
        """A picture or a video, told apart by its content (an address: by its ending).

        Raises:
            MediaError: the file cannot be read.
            MediaLimitError: the file is larger than the server accepts.
            InvalidRequestError: the value is of a kind, or of a shape, that is no picture.
        """
        if isinstance(visual, Image):
            return pb.Part(image=self.image(visual.source))
        if isinstance(visual, Video):
            return pb.Part(video=self._video(visual))
        if _is_address(visual):
            return self.part(_named_by_ending(visual))
        content = self._content(visual)
        if isinstance(content, bytes):
            return self.part(Image(content) if _is_still_picture(content) else Video(content))
        return self.part(Image(content) if content.ndim == 3 else Video(content))

    def image(self, source: Source) -> pb.Image:
        """One picture; raises as ``part``."""
        if _is_address(source):
            return pb.Image(url=source)
        content = self._content(source)
        if isinstance(content, bytes):
            return pb.Image(encoded=content)
        _check_pixels(content, 3, "an image is [H, W, 3] uint8")
        return self._frame(content)

    def _video(self, video: Video) -> pb.Video:
        message = pb.Video(num_frames=video.num_frames, fps=video.fps, start_s=video.start_s, end_s=video.end_s)
        if _is_address(video.source):
            message.url = video.source
            return message
        content = self._content(video.source)
        if isinstance(content, bytes):
            message.encoded = content
        else:
            message.frames.CopyFrom(self._frames(content, video.timestamps_s))
        return message

    def _frames(self, pixels: np.ndarray, timestamps_s: Sequence[float]) -> pb.FrameList:  # [F, H, W, 3] uint8
        _check_pixels(pixels, 4, "a video is [F, H, W, 3] uint8")
        if len(timestamps_s) not in (0, len(pixels)):
            raise InvalidRequestError(f"{len(pixels)} frames need as many timestamps, got {len(timestamps_s)}")
        return pb.FrameList(frames=map(self._frame, pixels), timestamps_s=timestamps_s)

    def _frame(self, pixels: np.ndarray) -> pb.Image:  # [H, W, 3] uint8
        height, width, _ = pixels.shape
        if self.jpeg_quality is None:
            return pb.Image(raw=pb.RawFrame(width=width, height=height, rgb=pixels.tobytes()))
        from PIL import Image as PillowImage

        encoded = io.BytesIO()
        PillowImage.fromarray(pixels).save(encoded, "JPEG", quality=self.jpeg_quality)
        return pb.Image(encoded=encoded.getvalue())

    def _content(self, source: Source) -> bytes | np.ndarray:
        if isinstance(source, (str, os.PathLike)):
            return self._file(Path(source))
        if isinstance(source, (bytes, bytearray, memoryview)):
            return bytes(source)
        if is_array(source) and source.ndim in (3, 4):
            return source
        raise InvalidRequestError(
            f"expected a path, an address, bytes or an array of uint8 [H, W, 3] or [F, H, W, 3]; got {_kind(source)}"
        )

    def _file(self, path: Path) -> bytes:
        try:
            if not path.is_file():
                raise MediaError(f"{path}: {'is not a regular file' if path.exists() else 'does not exist'}")
            size_bytes = path.stat().st_size
            if self.max_bytes and size_bytes > self.max_bytes:
                raise MediaLimitError(
                    f"{path}: has {size_bytes} bytes; the server accepts {self.max_bytes} (serving.max_body_bytes)"
                )
            return path.read_bytes()
        except (OSError, ValueError) as error:
            raise MediaError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _is_address(source: Visual) -> TypeGuard[str]:
    return isinstance(source, str) and ADDRESS.match(source) is not None


def is_array(source: object) -> TypeGuard[np.ndarray]:
    """Whether this is an array, found out without importing numpy for those who have none."""
    return hasattr(source, "ndim")


def _named_by_ending(address: str) -> Image | Video:
    if PICTURE_ADDRESS.match(address):
        return Image(address)
    if VIDEO_ADDRESS.match(address):
        return Video(address)
    raise InvalidRequestError(f"{address[:80]}: say whether it is a picture or a video, with Image(...) or Video(...)")


def _is_still_picture(content: bytes) -> bool:
    from PIL import Image as PillowImage

    try:
        with PillowImage.open(io.BytesIO(content), formats=PICTURE_FORMATS) as image:
            return not getattr(image, "is_animated", False)
    except (OSError, ValueError, SyntaxError):  # what Pillow raises for what it cannot read
        return False


def _check_pixels(pixels: np.ndarray, num_axes: int, wanted: str) -> None:
    if str(pixels.dtype) != "uint8" or pixels.ndim != num_axes or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise InvalidRequestError(f"{wanted} and not empty, got {pixels.shape} {pixels.dtype}")


def _kind(source: object) -> str:
    shape, dtype = getattr(source, "shape", None), getattr(source, "dtype", None)
    return type(source).__name__ if shape is None else f"{type(source).__name__} {tuple(shape)} {dtype}"
