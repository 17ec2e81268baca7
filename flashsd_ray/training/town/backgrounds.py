"""The places that the demo world does not have."""

from __future__ import annotations

import random
from collections.abc import Mapping

from PIL import Image

from flashsd_ray.training.world.background import PAINTERS, Brush, Painter, paint_background, vary


def _garden(brush: Brush, stream: random.Random) -> None:
    brush.fade(0.0, 0.4, vary(stream, (150, 208, 240)), (222, 240, 246))
    hedge = stream.uniform(0.3, 0.36)
    dark = vary(stream, (58, 122, 70))
    for step in range(11):
        brush.ellipse(step * 0.1, hedge + stream.uniform(-0.01, 0.02), 0.075, 0.06, dark)
    brush.band(hedge, 0.56, dark)
    brush.band(0.56, 1.0, vary(stream, (142, 204, 112)))
    path = stream.uniform(0.3, 0.7)
    brush.shape([(path - 0.04, 0.56), (path + 0.04, 0.56), (path + 0.2, 1.0), (path - 0.16, 1.0)], (214, 198, 166))
    for _ in range(16):
        x, y = stream.random(), stream.uniform(0.6, 0.98)
        brush.ellipse(x, y, 0.008, 0.008, stream.choice(((244, 220, 120), (240, 240, 240), (232, 170, 190))))


def _mountain(brush: Brush, stream: random.Random) -> None:
    brush.fade(0.0, 0.6, vary(stream, (134, 178, 226)), (224, 234, 246))
    rock = vary(stream, (128, 132, 152))
    for _ in range(3):
        x, top, half = stream.random(), stream.uniform(0.1, 0.3), stream.uniform(0.28, 0.42)
        brush.shape([(x - half, 0.66), (x, top), (x + half, 0.66)], rock)
        share = 0.34
        snow = [
            (x - half * share, top + (0.66 - top) * share),
            (x, top),
            (x + half * share, top + (0.66 - top) * share),
        ]
        brush.shape([*snow, (x + 0.04, top + 0.14), (x - 0.03, top + 0.2)], (242, 246, 250))
    brush.shape(
        [(0.0, stream.uniform(0.5, 0.58)), (1.0, stream.uniform(0.56, 0.66)), (1.0, 1.0), (0.0, 1.0)], (214, 224, 236)
    )
    for _ in range(4):
        x, y = stream.random(), stream.uniform(0.64, 0.72)
        brush.shape([(x - 0.025, y), (x, y - 0.09), (x + 0.025, y)], vary(stream, (52, 96, 78)))


TOWN_PAINTERS: Mapping[str, Painter] = {**PAINTERS, "garden": _garden, "mountain": _mountain}


def paint_place(place: str, decor_seed: str, size_px: int) -> Image.Image:
    """The RGB background of this place of the town, decorated as the seed says."""
    return paint_background(place, decor_seed, size_px, TOWN_PAINTERS)
