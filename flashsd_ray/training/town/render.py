"""Pixels of a scene of the town at any size and any moments; `clip` is the town's front door."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from flashsd_ray.training.town.atlas import sprite
from flashsd_ray.training.town.backgrounds import paint_place
from flashsd_ray.training.town.scene import Scene, Split, VisibleObject
from flashsd_ray.training.town.staging import sample_scene
from flashsd_ray.training.world.render import Air, draw_frames, even_moments


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


def render_clip(scene: Scene, moments: tuple[float, ...], size_px: int) -> Clip:
    """The scene's frames at these moments (0 = first, 1 = last)."""
    key = f"town:{scene.split}:{scene.seed}"
    visible = tuple(scene.visible(moment) for moment in moments)
    stamps = tuple(moment * scene.duration_s for moment in moments)
    air = Air(time_of_day=scene.time_of_day, weather=scene.weather, key=key)
    frames = draw_frames(paint_place(scene.place, key, size_px), visible, stamps, air, _picture)
    return Clip(frames=frames, timestamps_s=stamps, scene=scene, visible=visible)


def _picture(item: VisibleObject, side_px: int) -> Image.Image:
    return sprite(item.kind, item.color, side_px, is_mirrored=item.is_mirrored)
