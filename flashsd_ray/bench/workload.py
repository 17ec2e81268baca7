"""Held-out clips of the town, each with its own question; no two have the same pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flashsd_ray.training.town.language import Task, converse
from flashsd_ray.training.town.render import clip
from flashsd_ray.types import VisualInput

FIRST_SEED = 910_000  # away from the seeds that validation during training looks at
CLIP_PIXELS = 192  # not the processor's own size, so that resizing is part of it


@dataclass(frozen=True, slots=True)
class Question:
    """One clip and what is asked about it."""

    prompt: str
    visual: VisualInput


def held_out_questions(count: int, *, frame_count: int = 8, detailed: bool = True) -> list[Question]:
    """``count`` clips that no training saw, asked for a detailed caption or for a mixture of tasks."""
    questions = []
    for index in range(count):
        shown = clip(FIRST_SEED + index, "heldout", frame_count=frame_count, size_px=CLIP_PIXELS)
        video = VisualInput(
            kind="video",
            frames=shown.frames,
            timestamps_s=np.asarray(shown.timestamps_s),
            source=f"held-out clip {FIRST_SEED + index}",
            duration_s=shown.scene.duration_s,
        )
        task: Task = "detail" if detailed or index % 3 else "short"
        questions.append(Question(converse(shown.scene, task, index).prompt, video))
    return questions


def assert_distinct(questions: Sequence[Question]) -> None:
    """No two clips have the same content.

    Raises:
        ValueError: two have, or there are none.
    """
    digests = {question.visual.digest for question in questions}
    if not questions or len(digests) != len(questions):
        raise ValueError(f"{len(questions)} clips with {len(digests)} different contents; distinct ones are needed")
