"""What the stages need to know of a world; the demo world, and where the others are found."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from flashsd_ray.training.world.catalog import KIND_NAMES, PLACE_NAMES, TIMES_OF_DAY, WEATHERS
from flashsd_ray.training.world.language import TASKS, Task, converse
from flashsd_ray.training.world.render import render_clip
from flashsd_ray.training.world.scene import Scene, VisibleObject, sample_scene

NO_OBJECT = 0  # this class of every object head; kind i + 1 is the catalog's i-th


@dataclass(frozen=True, kw_only=True)
class World:
    """A source of clips and of true answers, with the classes by which a tower learns to see it.

    Scenes, clips and visible objects are the world's own; the stages only pass them on.
    """

    name: str
    sample_scene: Callable[[int, Any], Any]  # seed and split
    render_clip: Callable[[Any, tuple[float, ...], int], Any]  # scene, moments, pixels
    converse: Callable[[Any, Any, int], Any]  # scene, task, seed of the paraphrase
    tasks: tuple[str, ...]
    plan: Callable[[random.Random, bool], list[str]]  # what is asked about one clip; True: short answers only
    vocabulary_size: int  # at most; merges end where words are whole
    suffix_tokens: int  # of a packed row: prompts and answers
    max_new_tokens: int
    object_heads: Mapping[str, int]  # name: classes, no object included
    scene_heads: Mapping[str, int]
    classify: Callable[[Any, tuple[Any, ...]], tuple[int, ...]]  # an object in view among all in view
    classify_scene: Callable[[Any], tuple[int, ...]]
    object_words: Mapping[str, tuple[str, ...]]  # of these heads, for the classes from 1 on
    object_weights: Mapping[str, float]
    scene_words: tuple[tuple[str, ...], ...]  # of all scene heads, in their order
    scene_weights: tuple[float, ...]
    validate: Callable[[Any, Any, int], dict[str, float]]  # model, tokenizer, held-out clips

    @property
    def head_sizes(self) -> dict[str, int]:
        """Every head of the tower, with the number of its classes."""
        return {**self.object_heads, **self.scene_heads}


def world_named(name: str) -> World:
    """The world of this name: `demo` or `town`."""
    if name == DEMO.name:
        return DEMO
    world: World = import_module(f"flashsd_ray.training.{name}.teaching").WORLD
    return world


def third(center: float) -> int:
    """1, 2 or 3: in which third of the frame a fraction lies, as captions divide it."""
    return 1 + int(center > 0.35) + int(center > 0.65)


def _classify(item: VisibleObject, objects: tuple[VisibleObject, ...]) -> tuple[int, ...]:
    x0, y0, x1, y1 = item.box
    return (
        KIND_NAMES.index(item.kind) + 1,
        2 if item.is_large else 1,
        third((y0 + y1) / 2),
        third((x0 + x1) / 2),
        sum(other.kind == item.kind for other in objects),
        2 if item.is_mirrored else 1,
    )


def _classify_scene(scene: Scene) -> tuple[int, ...]:
    return (PLACE_NAMES.index(scene.place), TIMES_OF_DAY.index(scene.time_of_day), WEATHERS.index(scene.weather))


EARLY_TASKS: tuple[Task, ...] = ("short", "count", "short", "motion", "short", "place", "enter")
SMALL_TASKS: tuple[Task, ...] = tuple(task for task in TASKS if task != "detail")


def _plan(stream: random.Random, is_early: bool) -> list[str]:
    if is_early:
        return [*EARLY_TASKS, *EARLY_TASKS]
    return ["detail", "short", "detail", *(stream.choice(SMALL_TASKS) for _ in range(6))]


def _validate(model: Any, tokenizer: Any, clip_count: int) -> dict[str, float]:
    from flashsd_ray.training.target.evaluate import evaluate_target

    return evaluate_target(model, tokenizer, clip_count=clip_count, questions=())


DEMO = World(
    name="demo",
    sample_scene=sample_scene,
    render_clip=render_clip,
    converse=converse,
    tasks=TASKS,
    plan=_plan,
    vocabulary_size=1536,
    suffix_tokens=206,  # what is left of 352 tokens after four frames
    max_new_tokens=128,
    object_heads={"kind": len(KIND_NAMES) + 1, "size": 3, "lane": 4, "column": 4, "count": 4, "facing": 3},
    scene_heads={"place": len(PLACE_NAMES), "time": len(TIMES_OF_DAY), "weather": len(WEATHERS)},
    classify=_classify,
    classify_scene=_classify_scene,
    object_words={
        "kind": KIND_NAMES,
        "size": ("small", "large"),
        "lane": ("top", "middle", "bottom"),
        "column": ("left", "center", "right"),
        "count": ("one", "two", "three"),
    },
    object_weights={"kind": 0.6, "size": 0.1, "lane": 0.1, "column": 0.1, "count": 0.1},
    scene_words=(PLACE_NAMES, TIMES_OF_DAY, WEATHERS),
    scene_weights=(0.5, 0.25, 0.25),
    validate=_validate,
)
