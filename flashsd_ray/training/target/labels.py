"""What each patch of a clip shows, as class indices; the teacher of the vision tower.

Class 0 of every object head is "no object here".
"""

from dataclasses import dataclass

import numpy as np

from flashsd_ray.training.target.architecture import PATCHES_PER_SIDE
from flashsd_ray.training.world.catalog import KIND_NAMES, PLACE_NAMES, TIMES_OF_DAY, WEATHERS
from flashsd_ray.training.world.render import Clip
from flashsd_ray.training.world.scene import VisibleObject

IGNORED = -100
BACKGROUND = 0  # kind 0 is no object; kind i + 1 is KIND_NAMES[i]
COVERED_SHARE = 0.3
TOUCHED_SHARE = 0.04
SPRITE_MARGIN = 0.08  # sprites rarely fill the corners of their box

HEAD_SIZES: dict[str, int] = {
    "kind": len(KIND_NAMES) + 1,
    "size": 3,
    "lane": 4,
    "column": 4,
    "count": 4,
    "facing": 3,
    "place": len(PLACE_NAMES),
    "time": len(TIMES_OF_DAY),
    "weather": len(WEATHERS),
}


OBJECT_HEADS: tuple[str, ...] = ("kind", "size", "lane", "column", "count", "facing")
SCENE_HEADS: tuple[str, ...] = ("place", "time", "weather")


@dataclass(frozen=True, kw_only=True)
class PatchLabels:
    """Class indices of every patch."""

    objects: np.ndarray  # [F, P, len(OBJECT_HEADS)] int64, IGNORED where an object barely touches
    scene: np.ndarray  # [3] int64: place, time of day, weather


def label_patches(clip: Clip) -> PatchLabels:
    """The labels of every patch of every frame."""
    scene = clip.scene
    return PatchLabels(
        objects=np.stack([_label_frame(objects) for objects in clip.visible]),
        scene=np.array(
            [
                PLACE_NAMES.index(scene.place),
                TIMES_OF_DAY.index(scene.time_of_day),
                WEATHERS.index(scene.weather),
            ]
        ),
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
        grid[(share > TOUCHED_SHARE) & ~covered & (grid[..., 0] == BACKGROUND)] = IGNORED
        grid[covered] = _object_classes(item, objects)
        best = np.where(covered, share, best)
    return grid.reshape(side * side, len(OBJECT_HEADS))


def _object_classes(item: VisibleObject, objects: tuple[VisibleObject, ...]) -> tuple[int, ...]:
    x0, y0, x1, y1 = item.box
    return (
        KIND_NAMES.index(item.kind) + 1,
        2 if item.is_large else 1,
        _third((y0 + y1) / 2),
        _third((x0 + x1) / 2),
        sum(other.kind == item.kind for other in objects),
        2 if item.is_mirrored else 1,
    )


def _third(center: float) -> int:
    return 1 + int(center > 0.35) + int(center > 0.65)


def _overlap(edges: np.ndarray, low: float, high: float) -> np.ndarray:
    inside = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return np.asarray(np.clip(inside, 0.0, None) * (len(edges) - 1))
