"""Animated GIF, WebP, PNG and AVIF pictures as videos.

The number of frames and their times are known only after a walk through the file, so it is walked twice rather than
held: once for the times, once for the chosen frames.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from PIL import Image

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaLimitError
from flashsd_ray.media.picture import check_decoded_bytes, check_pixels, rgb_pixels
from flashsd_ray.media.sampling import Sampling, Timeline
from flashsd_ray.media.source import MediaSource
from flashsd_ray.types import VisualInput

ANIMATED_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
MILLISECOND = Fraction(1, 1000)

# Browsers and FFmpeg show a frame that asks for 10 ms or less for 100 ms, and files are made to look right there.
SHORTEST_DELAY_MS = 11
UNSPECIFIED_DELAY_MS = 100


def is_animation(image: Image.Image) -> bool:
    """Whether the picture has several frames that follow each other in time (the pages of a TIFF do not)."""
    return image.format in ANIMATED_FORMATS and getattr(image, "is_animated", False)


def load_animation(image: Image.Image, source: MediaSource, config: MediaConfig, sampling: Sampling) -> VisualInput:
    """The chosen frames of an animation, fully composed.

    Raises:
        MediaError: the file is damaged or truncated, or ends before ``start_s``.
        MediaLimitError: it has more frames, pixels or bytes than the config allows.
    """
    # A PNG may carry a picture for viewers that cannot animate; it is not part of the animation.
    first = 1 if getattr(image, "default_image", False) else 0
    timeline = _walk(image, first, source, config)
    chosen = sampling.choose(timeline)
    if not chosen:
        raise source.error(f"start_s lies after its end at {timeline.duration_s:.2f} s")
    width, height = image.size
    check_decoded_bytes(source.label, (len(chosen), height, width, 3), config)
    frames = np.empty((len(chosen), height, width, 3), np.uint8)
    for row, index in enumerate(chosen):
        source.check()
        image.seek(first + index)
        image.load()
        frames[row] = rgb_pixels(image, source.label)
    return VisualInput(
        kind="video",
        frames=frames,
        timestamps_s=np.array([timeline.time_s(index) for index in chosen]),
        source=source.label,
        duration_s=timeline.duration_s,
    )


def _walk(image: Image.Image, first: int, source: MediaSource, config: MediaConfig) -> Timeline:
    size, ends_ms = image.size, [0]
    while _step(image, first + len(ends_ms) - 1, source):
        # A GIF frame may enlarge the canvas.
        check_pixels(source, *image.size, config)
        image.load()
        if image.size != size:
            raise source.error(f"frame {len(ends_ms)} has {image.size} pixels, the first frame has {size}")
        delay_ms = round(image.info.get("duration", 0))
        ends_ms.append(ends_ms[-1] + (delay_ms if delay_ms >= SHORTEST_DELAY_MS else UNSPECIFIED_DELAY_MS))
        if len(ends_ms) - 1 > config.max_source_frames:
            raise MediaLimitError(f"{source.label}: has more frames than media.max_source_frames allows")
        if ends_ms[-1] * MILLISECOND > config.max_duration_s:
            limit = f"media.max_duration_s ({config.max_duration_s:g} s)"
            raise MediaLimitError(f"{source.label}: lasts longer than {limit}")
    return Timeline(ticks=np.array(ends_ms[:-1], dtype=np.int64), tick_s=MILLISECOND, end_tick=ends_ms[-1])


def _step(image: Image.Image, index: int, source: MediaSource) -> bool:
    source.check()
    source.is_at_end = False
    try:
        image.seek(index)
    except EOFError:
        # A GIF ends with a trailer; Pillow takes the end of the file for one.
        if image.format == "GIF" and source.is_at_end:
            raise source.error(f"is truncated: it ends within frame {index + 1} or before its end mark") from None
        return False
    return True
