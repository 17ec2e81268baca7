"""Pixels of a scene at any size and any moments; `clip` is the world's front door."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image, ImageDraw

from flashsd_ray.training.world.atlas import sprite
from flashsd_ray.training.world.background import paint_background
from flashsd_ray.training.world.scene import Scene, Split, VisibleObject, sample_scene

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
    scene = sample_scene(seed, split)
    return render_clip(scene, even_moments(frame_count), size_px)


def even_moments(frame_count: int) -> tuple[float, ...]:
    """`frame_count` moments from 0 to 1."""
    return tuple(index / max(1, frame_count - 1) for index in range(frame_count))


def render_clip(scene: Scene, moments: tuple[float, ...], size_px: int) -> Clip:
    """The scene's frames at these moments (0 = first, 1 = last)."""
    key = f"decor:{scene.split}:{scene.seed}"
    visible = tuple(scene.visible(moment) for moment in moments)
    stamps = tuple(moment * scene.duration_s for moment in moments)
    air = Air(time_of_day=scene.time_of_day, weather=scene.weather, key=key)
    frames = draw_frames(paint_background(scene.place, key, size_px), visible, stamps, air, _picture)
    return Clip(frames=frames, timestamps_s=stamps, scene=scene, visible=visible)


@dataclass(frozen=True, kw_only=True)
class Air:
    """What lies between the camera and the scene: light, and what falls from the sky."""

    time_of_day: str
    weather: str
    key: str  # of the stream that places drops and flakes


class Boxed(Protocol):
    """Something with a box x0, y0, x1, y1, as fractions of the frame."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Where it is."""


Item = TypeVar("Item", bound=Boxed)


def draw_frames(
    background: Image.Image,
    visible: Sequence[Sequence[Item]],  # [F][objects], back to front
    timestamps_s: Sequence[float],  # [F]
    air: Air,
    picture: Callable[[Item, int], Image.Image],  # the RGBA picture of an object, so many pixels wide
) -> np.ndarray:  # [F, S, S, 3] uint8
    """One frame for every moment: background, objects, light and weather."""
    size_px = background.width
    tint = _tint_table(air.time_of_day)
    frames = np.empty((len(visible), size_px, size_px, 3), dtype=np.uint8)
    for index, (time_s, objects) in enumerate(zip(timestamps_s, visible, strict=True)):
        frame = background.copy()
        for item in objects:
            side = max(1, round((item.box[2] - item.box[0]) * size_px))
            drawn = picture(item, side)
            frame.paste(drawn, (round(item.box[0] * size_px), round(item.box[1] * size_px)), drawn)
        if tint is not None:
            frame = frame.point(tint)
        if air.weather != "clear":
            _precipitate(frame, air.weather, air.key, time_s)
        frames[index] = np.asarray(frame)
    return frames


def _picture(item: VisibleObject, side_px: int) -> Image.Image:
    return sprite(item.kind, side_px, is_mirrored=item.is_mirrored)


def _tint_table(time_of_day: str) -> list[int] | None:
    if time_of_day == "day":
        return None
    return [round(level * factor) for factor in TINT[time_of_day] for level in range(256)]


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
