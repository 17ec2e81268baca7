"""The town as the stages of target training need it: classes for the tower, words for the patches, plans for a row."""

from __future__ import annotations

import random
from typing import Any

from flashsd_ray.training.target.worlds import World, third
from flashsd_ray.training.town.catalog import COLORS, KIND_NAMES, PLACE_NAMES, TIMES_OF_DAY, WEATHERS
from flashsd_ray.training.town.language import SMALL_TASKS, TASKS, converse
from flashsd_ray.training.town.render import render_clip
from flashsd_ray.training.town.scene import Scene, VisibleObject
from flashsd_ray.training.town.staging import sample_scene

CELLS = 6  # per side: where exactly an object is, so that slow motion can be told from rest


def classify(item: VisibleObject, objects: tuple[VisibleObject, ...]) -> tuple[int, ...]:
    """The classes of an object in view, one for each object head."""
    x, y = (item.box[0] + item.box[2]) / 2, (item.box[1] + item.box[3]) / 2
    return (
        KIND_NAMES.index(item.kind) + 1,
        2 if item.is_large else 1,
        third(y),
        third(x),
        sum(other.kind == item.kind for other in objects),
        2 if item.is_mirrored else 1,
        1 if item.color is None else 2 + COLORS.index(item.color),
        _cell(x),
        _cell(y),
    )


def classify_scene(scene: Scene) -> tuple[int, ...]:
    """The classes of the place, one for each scene head."""
    return (PLACE_NAMES.index(scene.place), TIMES_OF_DAY.index(scene.time_of_day), WEATHERS.index(scene.weather))


def plan(stream: random.Random, is_early: bool) -> list[str]:
    """What is asked about one clip, as far as it fits in its row."""
    if is_early:
        return [stream.choice(SMALL_TASKS) for _ in range(14)]
    long = "json" if stream.random() < 0.4 else "detail"
    return ["detail", stream.choice(SMALL_TASKS), long, *(stream.choice(SMALL_TASKS) for _ in range(8))]


def _validate(model: Any, tokenizer: Any, clip_count: int) -> dict[str, float]:
    from flashsd_ray.training.town.evaluate import evaluate_target

    return evaluate_target(model, tokenizer, clip_count=clip_count)


def _cell(center: float) -> int:
    return 1 + max(0, min(CELLS - 1, int(center * CELLS)))


WORLD = World(
    name="town",
    sample_scene=sample_scene,
    render_clip=render_clip,
    converse=converse,
    tasks=TASKS,
    plan=plan,
    vocabulary_size=2048,
    suffix_tokens=270,
    max_new_tokens=192,
    object_heads={
        "kind": len(KIND_NAMES) + 1,
        "size": 3,
        "lane": 4,
        "column": 4,
        "count": 5,
        "facing": 3,
        "color": len(COLORS) + 2,
        "x": CELLS + 1,
        "y": CELLS + 1,
    },
    scene_heads={"place": len(PLACE_NAMES), "time": len(TIMES_OF_DAY), "weather": len(WEATHERS)},
    classify=classify,
    classify_scene=classify_scene,
    object_words={
        "kind": KIND_NAMES,
        "size": ("small", "large"),
        "lane": ("top", "middle", "bottom"),
        "column": ("left", "center", "right"),
        "count": ("one", "two", "three", "four"),
        "color": ("plain", *COLORS),
    },
    object_weights={"kind": 0.5, "size": 0.1, "lane": 0.1, "column": 0.1, "count": 0.1, "color": 0.1},
    scene_words=(PLACE_NAMES, TIMES_OF_DAY, WEATHERS),
    scene_weights=(0.5, 0.25, 0.25),
    validate=_validate,
)
