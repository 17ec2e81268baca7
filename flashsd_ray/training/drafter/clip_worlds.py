"""The worlds of clips that a drafter can learn from: the demo world and the town."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flashsd_ray.training.town import language as town_language
from flashsd_ray.training.town.render import clip as town_clip
from flashsd_ray.training.town.staging import sample_scene as sample_town
from flashsd_ray.training.world.language import Task, converse
from flashsd_ray.training.world.render import clip
from flashsd_ray.training.world.scene import sample_scene

# Long answers hold most anchors; the others are there so that no kind of question is strange to the drafter.
DEMO_TASKS: tuple[Task, ...] = ("detail", "detail", "detail", "short", "motion", "place", "enter", "count")
TOWN_TASKS: tuple[town_language.Task, ...] = (*("detail",) * 9, "json", "json", *town_language.SMALL_TASKS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipWorld:
    """A world; scenes, clips and exchanges are its own."""

    prefix: str  # of references: "town:train:7" is the clip of seed 7 of that split
    sample_scene: Callable[[int, Any], Any]
    converse: Callable[[Any, Any, int], Any]
    clip: Callable[..., Any]
    tasks: tuple[str, ...]
    splits: tuple[str, ...]


CLIP_WORLDS: dict[str, ClipWorld] = {
    "demo": ClipWorld(
        prefix="world:",
        sample_scene=sample_scene,
        converse=converse,
        clip=clip,
        tasks=DEMO_TASKS,
        splits=("train", "heldout"),
    ),
    "town": ClipWorld(
        prefix="town:",
        sample_scene=sample_town,
        converse=town_language.converse,
        clip=town_clip,
        tasks=TOWN_TASKS,
        splits=("train", "heldout", "novel"),
    ),
}
PREFIXES: tuple[str, ...] = tuple(world.prefix for world in CLIP_WORLDS.values())


def world_of(reference: str) -> ClipWorld:
    """The world that a visual reference names."""
    return next(world for world in CLIP_WORLDS.values() if reference.startswith(world.prefix))
