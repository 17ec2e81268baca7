"""Held-out clips of a world, each with its own question; no two have the same pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flashsd_ray.training.target.worlds import world_named
from flashsd_ray.training.world.render import even_moments
from flashsd_ray.types import VisualInput

FIRST_SEED = 910_000  # away from the seeds that validation during training looks at
CLIP_PIXELS = 192  # not the processor's own size, so that resizing is part of it


@dataclass(frozen=True, slots=True)
class Question:
    """One clip and what is asked about it."""

    prompt: str
    visual: VisualInput


def held_out_questions(
    count: int, *, world: str = "demo", frame_count: int = 8, detailed: bool = True
) -> list[Question]:
    """``count`` clips that no training saw, asked for a detailed caption or for a mixture of tasks."""
    source, questions = world_named(world), []
    for index in range(count):
        scene = source.sample_scene(FIRST_SEED + index, "heldout")
        shown = source.render_clip(scene, even_moments(frame_count), CLIP_PIXELS)
        video = VisualInput(
            kind="video",
            frames=shown.frames,
            timestamps_s=np.asarray(shown.timestamps_s),
            source=f"held-out clip {FIRST_SEED + index}",
            duration_s=scene.duration_s,
        )
        task = "detail" if detailed or index % 3 else "short"
        questions.append(Question(source.converse(scene, task, index).prompt, video))
    return questions


def assert_distinct(questions: Sequence[Question]) -> None:
    """No two clips have the same content.

    Raises:
        ValueError: two have, or there are none.
    """
    digests = {question.visual.digest for question in questions}
    if not questions or len(digests) != len(questions):
        raise ValueError(f"{len(questions)} clips with {len(digests)} different contents; distinct ones are needed")
