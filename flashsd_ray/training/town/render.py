"""Pixels of a scene at any size and any moments; `clip` is the town's front door."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from flashsd_ray.training.town.atlas import sprite
from flashsd_ray.training.town.backgrounds import paint_background
from flashsd_ray.training.town.scene import Scene, Split, VisibleObject
from flashsd_ray.training.town.staging import sample_scene

TINT: dict[str, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "sunset": (1.0, 0.76, 0.6),
    "night": (0.44, 0.48, 0.72),
}
DROPS = 36
FLAKES = 34


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The frames of a scene with what is in view in each."""

    frames: np.ndarray  # [F, H, W, 3] uint8
    timestamps_s: tuple[float, ...]  # [F]
    scene: Scene
    visible: tuple[tuple[VisibleObject, ...], ...]  # [F][objects]


def clip(seed: int, split: Split = "train", *, frame_count: int = 8, size_px: int = 96) -> Clip:
    """The clip of this seed, sampled at evenly spaced moments from first frame to last."""
    return render_clip(sample_scene(seed, split), even_moments(frame_count), size_px)


def even_moments(frame_count: int) -> tuple[float, ...]:
    """`frame_count` moments from 0 to 1."""
    return tuple(index / max(1, frame_count - 1) for index in range(frame_count))


def render_clip(scene: Scene, moments: tuple[float, ...], size_px: int) -> Clip:
    """The scene's frames at these moments (0 = first, 1 = last)."""
    key = f"town:{scene.split}:{scene.seed}"
    background = paint_background(scene.place, key, size_px)
    visible = tuple(scene.visible(moment) for moment in moments)
    stamps = tuple(moment * scene.duration_s for moment in moments)
    frames = [_draw(background, objects, scene, time_s, key) for time_s, objects in zip(stamps, visible, strict=True)]
    return Clip(frames=np.stack(frames), timestamps_s=stamps, scene=scene, visible=visible)


def _draw(
    background: Image.Image,
    objects: tuple[VisibleObject, ...],  # back to front
    scene: Scene,
    time_s: float,
    key: str,  # of the stream that places drops and flakes
) -> np.ndarray:  # [S, S, 3] uint8
    """Background, objects, light and weather."""
    size_px = background.width
    frame = background.copy()
    for item in objects:
        side = max(1, round((item.box[2] - item.box[0]) * size_px))
        drawn = sprite(item.kind, item.color, side, is_mirrored=item.is_mirrored)
        frame.paste(drawn, (round(item.box[0] * size_px), round(item.box[1] * size_px)), drawn)
    if scene.time_of_day != "day":
        frame = frame.point([round(level * factor) for factor in TINT[scene.time_of_day] for level in range(256)])
    if scene.weather != "clear":
        _precipitate(frame, scene.weather, key, time_s)
    return np.array(frame)


def _precipitate(frame: Image.Image, weather: str, key: str, time_s: float) -> None:
    stream = random.Random(key)
    draw = ImageDraw.Draw(frame)
    scale = frame.width
    for _ in range(DROPS if weather == "rain" else FLAKES):
        x, y, pace = stream.random(), stream.random(), stream.uniform(0.8, 1.2)
        if weather == "rain":
            y = (y + 1.7 * pace * time_s) % 1.1 - 0.05
            line = (x * scale, y * scale, (x - 0.015) * scale, (y + 0.07) * scale)
            draw.line(line, fill=(168, 188, 220), width=max(1, scale // 120))
        else:
            y = (y + 0.22 * pace * time_s) % 1.1 - 0.05
            x += 0.02 * math.sin(3.0 * pace * time_s + 20.0 * y)
            radius = 0.011 * scale
            corners = (x * scale - radius, y * scale - radius, x * scale + radius, y * scale + radius)
            draw.ellipse(corners, fill=(245, 248, 255))
