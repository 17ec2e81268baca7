"""Mild damage for training frames, so that decoded and resized video looks familiar to the model."""

import io
import random

import numpy as np
from PIL import Image, ImageFilter


def augment(
    frames: np.ndarray,  # [F, S, S, 3] uint8
    stream: random.Random,
    size_px: int,
) -> np.ndarray:  # [F, size_px, size_px, 3] uint8
    """The frames at `size_px`, at random brighter, darker, softer or compressed, alike in the whole clip."""
    count, side = frames.shape[:2]
    strip = Image.fromarray(frames.reshape(count * side, side, 3))
    if side != size_px:
        strip = strip.resize((size_px, count * size_px), Image.Resampling.BICUBIC)
    if stream.random() < 0.5:
        strip = strip.point(_levels(stream.uniform(0.85, 1.15), stream.uniform(-12, 12)))
    if stream.random() < 0.25:
        strip = strip.filter(ImageFilter.GaussianBlur(stream.uniform(0.2, 0.7)))
    if stream.random() < 0.35:
        packed = io.BytesIO()
        strip.save(packed, format="JPEG", quality=stream.randint(55, 95))
        strip = Image.open(packed).convert("RGB")
    return np.array(strip).reshape(count, size_px, size_px, 3)


def _levels(contrast: float, brightness: float) -> list[int]:
    table = [max(0, min(255, round((level - 128) * contrast + 128 + brightness))) for level in range(256)]
    return table * 3
