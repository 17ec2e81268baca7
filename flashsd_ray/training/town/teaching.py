"""What a target learns of the town: classes for the tower, words for the patches, questions for a row."""

from __future__ import annotations

import random
from collections.abc import Mapping

from flashsd_ray.training.town.catalog import COLORS, KIND_NAMES, PLACE_NAMES, TIMES_OF_DAY, WEATHERS
from flashsd_ray.training.town.language import SMALL_TASKS, Task
from flashsd_ray.training.town.scene import Scene, VisibleObject

NO_OBJECT = 0  # this class of every object head; kind i + 1 is the catalog's i-th
CELLS = 6  # per side: where exactly an object is, so that slow motion can be told from rest

# The heads of the tower, with their numbers of classes; for objects, that there is none is one of them.
OBJECT_HEADS: Mapping[str, int] = {
    "kind": len(KIND_NAMES) + 1,
    "size": 3,
    "lane": 4,
    "column": 4,
    "count": 5,
    "facing": 3,
    "color": len(COLORS) + 2,
    "x": CELLS + 1,
    "y": CELLS + 1,
}
SCENE_HEADS: Mapping[str, int] = {"place": len(PLACE_NAMES), "time": len(TIMES_OF_DAY), "weather": len(WEATHERS)}
HEAD_SIZES: Mapping[str, int] = {**OBJECT_HEADS, **SCENE_HEADS}

# What a patch should say, for the classes from 1 on of some object heads, and for all scene heads in their order.
OBJECT_WORDS: Mapping[str, tuple[str, ...]] = {
    "kind": KIND_NAMES,
    "size": ("small", "large"),
    "lane": ("top", "middle", "bottom"),
    "column": ("left", "center", "right"),
    "count": ("one", "two", "three", "four"),
    "color": ("plain", *COLORS),
}
OBJECT_WEIGHTS: Mapping[str, float] = {
    "kind": 0.5,
    "size": 0.1,
    "lane": 0.1,
    "column": 0.1,
    "count": 0.1,
    "color": 0.1,
}
SCENE_WORDS: tuple[tuple[str, ...], ...] = (PLACE_NAMES, TIMES_OF_DAY, WEATHERS)
SCENE_WEIGHTS: tuple[float, ...] = (0.5, 0.25, 0.25)


def classify(item: VisibleObject, objects: tuple[VisibleObject, ...]) -> tuple[int, ...]:
    """The classes of an object among all in view, one for each object head."""
    x, y = (item.box[0] + item.box[2]) / 2, (item.box[1] + item.box[3]) / 2
    return (
        KIND_NAMES.index(item.kind) + 1,
        2 if item.is_large else 1,
        _third(y),
        _third(x),
        sum(other.kind == item.kind for other in objects),
        2 if item.is_mirrored else 1,
        1 if item.color is None else 2 + COLORS.index(item.color),
        _cell(x),
        _cell(y),
    )


def classify_scene(scene: Scene) -> tuple[int, ...]:
    """The classes of the place, one for each scene head."""
    return (PLACE_NAMES.index(scene.place), TIMES_OF_DAY.index(scene.time_of_day), WEATHERS.index(scene.weather))


def plan(stream: random.Random, *, is_early: bool) -> list[Task]:
    """What is asked about one clip, as far as it fits in its row; early on, short answers only."""
    if is_early:
        return [stream.choice(SMALL_TASKS) for _ in range(14)]
    long: Task = "json" if stream.random() < 0.4 else "detail"
    return ["detail", stream.choice(SMALL_TASKS), long, *(stream.choice(SMALL_TASKS) for _ in range(8))]


def _third(center: float) -> int:
    """1, 2 or 3: in which third of the frame a fraction lies, as captions divide it."""
    return 1 + int(center > 0.35) + int(center > 0.65)


def _cell(center: float) -> int:
    return 1 + max(0, min(CELLS - 1, int(center * CELLS)))
