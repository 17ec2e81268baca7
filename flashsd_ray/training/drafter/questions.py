"""What the target is asked: clips of the synthetic world, or the lines of a manifest."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import ConfigError
from flashsd_ray.media import load_visual
from flashsd_ray.training.world.language import Task, converse
from flashsd_ray.training.world.render import clip
from flashsd_ray.training.world.scene import Split, sample_scene
from flashsd_ray.types import VisualInput

WORLD = "world:"  # a visual reference "world:train:7" is the clip of seed 7 of that split
# Long answers hold most anchors; the others are there so that no kind of question is strange to the drafter.
TASKS: tuple[Task, ...] = ("detail", "detail", "detail", "short", "motion", "place", "enter", "count")
SAMPLED_SHARE = 0.3  # of questions that are answered at temperature 1; the others greedily
SEED_RANGE = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A prompt about some visuals, and how its answer is drawn."""

    question_id: str
    prompt: str
    visuals: tuple[str, ...]  # paths, or clips of the world
    temperature: float = 0.0
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """What a line of a file says."""
        return {**asdict(self), "visuals": list(self.visuals)}


def world_questions(count: int, split: Split, first_clip: int = 0, per_clip: int = 6) -> list[Question]:
    """Questions about successive clips; a pure function of its arguments."""
    questions = []
    for index in range(count):
        clip_seed = first_clip + index // per_clip
        stream = random.Random(f"question:{split}:{first_clip}:{index}")
        scene = sample_scene(clip_seed, split)
        exchange = converse(scene, stream.choice(TASKS), stream.randrange(SEED_RANGE))
        questions.append(
            Question(
                question_id=f"{split}-{clip_seed}-{index % per_clip}",
                prompt=exchange.prompt,
                visuals=(f"{WORLD}{split}:{clip_seed}",),
                temperature=1.0 if stream.random() < SAMPLED_SHARE else 0.0,
                seed=stream.randrange(SEED_RANGE),
            )
        )
    return questions


def read_manifest(path: Path) -> list[Question]:
    """The questions of a JSON-lines file: ``{"prompt": .., "visuals": [paths]}``, sampling by the same shares.

    Raises:
        ConfigError: the file cannot be read or a line is no question.
    """
    questions = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    for number, line in enumerate(lines):
        stream = random.Random(f"manifest:{number}:{line}")
        try:
            fields = json.loads(line)
            prompt, visuals = (
                str(fields["prompt"]),
                tuple(str(path.parent / name) for name in fields.get("visuals", ())),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}, line {number + 1}: expected prompt and visuals, {error!r}") from error
        questions.append(
            Question(
                question_id=f"line-{number}",
                prompt=prompt,
                visuals=visuals,
                temperature=1.0 if stream.random() < SAMPLED_SHARE else 0.0,
                seed=stream.randrange(SEED_RANGE),
            )
        )
    return questions


def load_visuals(references: Sequence[str], media: MediaConfig) -> tuple[VisualInput, ...]:
    """The frames that the references lead to.

    Raises:
        MediaError: a file is missing or damaged.
    """
    return tuple(
        _world_clip(name, media) if name.startswith(WORLD) else load_visual(name, media) for name in references
    )


def _world_clip(reference: str, media: MediaConfig) -> VisualInput:
    _, split, seed = reference.split(":")
    if split not in ("train", "heldout"):
        raise ConfigError(f"unknown split in {reference!r}; known: train, heldout")
    rendered = clip(int(seed), "heldout" if split == "heldout" else "train", frame_count=media.num_frames)
    return VisualInput(
        kind="video",
        frames=rendered.frames,
        timestamps_s=np.asarray(rendered.timestamps_s, dtype=np.float64),
        source=reference,
    )
