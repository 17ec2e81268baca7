"""What each patch of a clip shows, as class indices; the teacher of the vision tower."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flashsd_ray.training.target.architecture import PATCHES_PER_SIDE
from flashsd_ray.training.town.render import Clip
from flashsd_ray.training.town.scene import VisibleObject
from flashsd_ray.training.town.teaching import NO_OBJECT, OBJECT_HEADS, classify, classify_scene

IGNORED = -100
COVERED_SHARE = 0.3
TOUCHED_SHARE = 0.04
SPRITE_MARGIN = 0.08  # sprites rarely fill the corners of their box


@dataclass(frozen=True, kw_only=True)
class PatchLabels:
    """Class indices of every patch."""

    objects: np.ndarray  # [F, P, object heads] int64, IGNORED where an object barely touches
    scene: np.ndarray  # [scene heads] int64


def label_patches(clip: Clip) -> PatchLabels:
    """The labels of every patch of every frame."""
    return PatchLabels(
        objects=np.stack([_label_frame(objects) for objects in clip.visible]),
        scene=np.array(classify_scene(clip.scene)),
    )


def _label_frame(objects: tuple[VisibleObject, ...]) -> np.ndarray:
    side = PATCHES_PER_SIDE
    grid = np.zeros((side, side, len(OBJECT_HEADS)), dtype=np.int64)
    best = np.full((side, side), COVERED_SHARE)
    edges = np.arange(side + 1) / side
    for item in objects:
        x0, y0, x1, y1 = item.box
        margin = SPRITE_MARGIN * (x1 - x0)
        across = _overlap(edges, x0 + margin, x1 - margin)
        down = _overlap(edges, y0 + margin, y1 - margin)
        share = np.outer(down, across)
        covered = share >= best
        grid[(share > TOUCHED_SHARE) & ~covered & (grid[..., 0] == NO_OBJECT)] = IGNORED
        grid[covered] = classify(item, objects)
        best = np.where(covered, share, best)
    return grid.reshape(side * side, len(OBJECT_HEADS))


def _overlap(edges: np.ndarray, low: float, high: float) -> np.ndarray:
    inside = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return np.asarray(np.clip(inside, 0.0, None) * (len(edges) - 1))
