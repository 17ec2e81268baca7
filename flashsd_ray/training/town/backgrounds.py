"""Painted backgrounds: one painter per place, the same picture at any size."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from PIL import Image, ImageDraw

Color = tuple[int, int, int]
SUPERSAMPLING = 2  # drawn larger, then reduced, for soft edges


class Brush:
    """Draws in fractions of the frame."""

    def __init__(self, size_px: int) -> None:
        self.size_px = size_px
        self.image = Image.new("RGB", (size_px, size_px))
        self._draw = ImageDraw.Draw(self.image)

    def band(self, top: float, bottom: float, color: Color) -> None:
        """A stripe across the whole frame."""
        self.box(0.0, top, 1.0, bottom, color)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """A filled rectangle."""
        scale = self.size_px
        self._draw.rectangle((x0 * scale, y0 * scale, x1 * scale, y1 * scale), fill=color)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        """A filled ellipse around (x, y)."""
        scale = self.size_px
        corners = ((x - rx) * scale, (y - ry) * scale, (x + rx) * scale, (y + ry) * scale)
        self._draw.ellipse(corners, fill=color)

    def shape(self, points: list[tuple[float, float]], color: Color) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * self.size_px, y * self.size_px) for x, y in points], fill=color)

    def fade(self, top: float, bottom: float, above: Color, below: Color) -> None:
        """Stripes from one color to the other."""
        steps = 12
        for step in range(steps):
            share = step / (steps - 1)
            mixed = tuple(round(a + (b - a) * share) for a, b in zip(above, below, strict=True))
            start = top + (bottom - top) * step / steps
            self.band(start, bottom, (mixed[0], mixed[1], mixed[2]))


def vary(stream: random.Random, color: Color, spread: int = 10) -> Color:
    """A color near this one."""
    shift = [stream.randint(-spread, spread) for _ in range(3)]
    red, green, blue = (max(0, min(255, c + s)) for c, s in zip(color, shift, strict=True))
    return (red, green, blue)


def _beach(brush: Brush, stream: random.Random) -> None:
    sea = stream.uniform(0.3, 0.4)
    brush.fade(0.0, sea, vary(stream, (120, 190, 240)), (205, 232, 250))
    brush.band(sea, 0.62, vary(stream, (40, 130, 190)))
    for _ in range(5):
        x, y = stream.random(), stream.uniform(sea + 0.03, 0.58)
        brush.box(x, y, x + 0.12, y + 0.01, (190, 225, 240))
    brush.ellipse(0.5, 1.05, 0.95, 0.5, vary(stream, (238, 214, 160)))


def _forest(brush: Brush, stream: random.Random) -> None:
    brush.fade(0.0, 0.6, vary(stream, (150, 200, 190)), vary(stream, (90, 150, 100)))
    for _ in range(9):
        x, width = stream.random(), stream.uniform(0.02, 0.05)
        brush.box(x, 0.05, x + width, 0.66, vary(stream, (84, 62, 44)))
        brush.ellipse(x + width / 2, stream.uniform(0.0, 0.2), 0.14, 0.12, vary(stream, (50, 110, 60)))
    brush.band(0.62, 1.0, vary(stream, (66, 104, 52)))


def _street(brush: Brush, stream: random.Random) -> None:
    brush.band(0.0, 0.66, vary(stream, (170, 200, 225)))
    x = -0.05
    while x < 1.0:
        width, top = stream.uniform(0.14, 0.26), stream.uniform(0.08, 0.35)
        brush.box(x, top, x + width, 0.66, vary(stream, (150, 130, 125), 24))
        for row in range(4):
            for column in range(2):
                left = x + width * (0.18 + 0.42 * column)
                y = top + 0.05 + 0.09 * row
                brush.box(left, y, left + width * 0.22, y + 0.045, (225, 220, 170))
        x += width + 0.01
    brush.band(0.66, 0.72, (190, 186, 180))
    brush.band(0.72, 1.0, vary(stream, (84, 86, 92)))
    for step in range(5):
        brush.box(step * 0.22, 0.85, step * 0.22 + 0.12, 0.87, (235, 230, 200))


def _farm(brush: Brush, stream: random.Random) -> None:
    brush.fade(0.0, 0.52, vary(stream, (140, 200, 245)), (215, 236, 250))
    brush.ellipse(stream.uniform(0.1, 0.9), 0.62, 0.6, 0.28, vary(stream, (150, 200, 100)))
    brush.band(0.5, 1.0, vary(stream, (128, 186, 84)))
    barn = stream.uniform(0.1, 0.7)
    brush.box(barn, 0.3, barn + 0.2, 0.5, (176, 58, 48))
    brush.shape([(barn - 0.02, 0.3), (barn + 0.1, 0.2), (barn + 0.22, 0.3)], (120, 44, 40))
    brush.box(0.0, 0.56, 1.0, 0.575, (200, 180, 150))
    for step in range(9):
        brush.box(step * 0.125, 0.52, step * 0.125 + 0.015, 0.62, (200, 180, 150))


def _kitchen(brush: Brush, stream: random.Random) -> None:
    brush.band(0.0, 0.66, vary(stream, (236, 226, 206)))
    tile = vary(stream, (206, 192, 170))
    for step in range(9):
        brush.box(step * 0.125, 0.0, step * 0.125 + 0.006, 0.66, tile)
        brush.box(0.0, step * 0.085, 1.0, step * 0.085 + 0.006, tile)
    window = stream.uniform(0.1, 0.6)
    brush.box(window, 0.08, window + 0.28, 0.36, (250, 250, 250))
    brush.box(window + 0.02, 0.1, window + 0.26, 0.34, vary(stream, (170, 212, 240)))
    brush.band(0.66, 0.71, vary(stream, (170, 120, 76)))
    brush.band(0.71, 1.0, vary(stream, (140, 96, 60)))
    for step in range(3):
        brush.box(0.04 + step * 0.33, 0.76, 0.31 + step * 0.33, 0.97, (158, 110, 70))


def _ocean(brush: Brush, stream: random.Random) -> None:
    brush.fade(0.0, 1.0, vary(stream, (60, 170, 215)), vary(stream, (12, 50, 110)))
    for _ in range(8):
        x, radius = stream.random(), stream.uniform(0.008, 0.02)
        brush.ellipse(x, stream.uniform(0.1, 0.8), radius, radius, (150, 210, 235))
    brush.ellipse(0.5, 1.02, 0.9, 0.12, vary(stream, (120, 120, 96)))
    for _ in range(4):
        x = stream.random()
        brush.ellipse(x, 0.96, 0.02, 0.09, vary(stream, (40, 120, 84)))


def _desert(brush: Brush, stream: random.Random) -> None:
    brush.fade(0.0, 0.45, vary(stream, (245, 205, 140)), (250, 228, 185))
    brush.ellipse(stream.uniform(0.2, 0.8), 0.14, 0.08, 0.08, (255, 242, 200))
    brush.band(0.45, 1.0, vary(stream, (222, 170, 100)))
    for _ in range(3):
        x, y = stream.random(), stream.uniform(0.5, 0.9)
        brush.ellipse(x, y + 0.2, 0.5, 0.2, vary(stream, (206, 150, 84)))


def _space(brush: Brush, stream: random.Random) -> None:
    brush.band(0.0, 1.0, vary(stream, (14, 14, 34), 6))
    x, y = stream.random(), stream.random()
    brush.ellipse(x, y, 0.4, 0.22, vary(stream, (40, 26, 70)))
    for _ in range(50):
        radius = stream.uniform(0.003, 0.008)
        brush.ellipse(stream.random(), stream.random(), radius, radius, (230, 230, 245))


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


Painter = Callable[[Brush, random.Random], None]
PAINTERS: Mapping[str, Painter] = {
    "beach": _beach,
    "forest": _forest,
    "street": _street,
    "farm": _farm,
    "kitchen": _kitchen,
    "ocean": _ocean,
    "desert": _desert,
    "space": _space,
    "garden": _garden,
    "mountain": _mountain,
}


def paint_background(place: str, decor_seed: str, size_px: int) -> Image.Image:
    """The RGB background of this place, decorated as the seed says."""
    brush = Brush(size_px * SUPERSAMPLING)
    PAINTERS[place](brush, random.Random(decor_seed))
    return brush.image.reduce(SUPERSAMPLING)
