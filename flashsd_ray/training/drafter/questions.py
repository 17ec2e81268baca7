"""What the target is asked: a prompt, perhaps some pictures, and how the answer is drawn."""

from __future__ import annotations

import random
from copy import copy
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import get_args

import numpy as np

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import ConfigError
from flashsd_ray.media import load_visuals as load_files
from flashsd_ray.training.town.language import SMALL_TASKS, Task, converse
from flashsd_ray.training.town.render import clip
from flashsd_ray.training.town.scene import Split
from flashsd_ray.training.town.staging import sample_scene
from flashsd_ray.types import VisualInput

TOWN = "town:"  # "town:train:7" is the clip of seed 7 of that split
# Long answers hold most anchors; the others are there so that no kind of question is strange to the drafter.
TASKS: tuple[Task, ...] = (*("detail",) * 9, "json", "json", *SMALL_TASKS)
SAMPLED_SHARE = 0.3  # of questions that are answered at temperature 1; the others greedily
SEED_RANGE = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A prompt about some visuals, and how its answer is drawn."""

    prompt: str
    visuals: tuple[str, ...] = ()  # paths, or clips of the town
    start_s: float | None = None  # of a video, look from here on
    end_s: float | None = None
    temperature: float = 0.0
    seed: int = 0
    answer: str | None = None  # what the data says; None: the target is asked
    origin: str = field(default="", compare=False)  # where it stands in the data, for messages

    @property
    def group(self) -> int:
        """64 bits; equal for questions about the same pictures, which are either learnt from or held out."""
        told = "\n".join(self.visuals) or self.prompt
        return int.from_bytes(blake2b(told.encode(), digest_size=8).digest(), "little")


def drawing(said: str, sampled_share: float) -> tuple[float, int]:
    """Temperature and seed of a question; a pure function of what it says, so that answers can be kept."""
    stream = random.Random(f"question:{said}")
    return (1.0 if stream.random() < sampled_share else 0.0), stream.randrange(SEED_RANGE)


class TownQuestions:
    """Questions about successive clips of the town; a pure function of the arguments."""

    def __init__(
        self,
        count: int,
        split: Split,
        *,
        per_clip: int = 6,
        sampled_share: float = SAMPLED_SHARE,
    ) -> None:
        self._tells_answers = False
        self._count = count
        self._split = split
        self._per_clip = per_clip
        self._sampled_share = sampled_share

    def telling_answers(self) -> TownQuestions:
        """The same questions, whose answers are the true ones and not the target's."""
        told = copy(self)
        told._tells_answers = True
        return told

    def of_split(self, split: Split, count: int) -> TownQuestions:
        """So many questions about clips of another split, two about each clip."""
        return TownQuestions(count, split, per_clip=2, sampled_share=self._sampled_share)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int, /) -> Question:
        if not 0 <= place < self._count:
            raise IndexError(place)
        clip_seed = place // self._per_clip
        stream = random.Random(f"question:{self._split}:0:{place}")
        scene = sample_scene(clip_seed, self._split)
        exchange = converse(scene, stream.choice(TASKS), stream.randrange(SEED_RANGE))
        return Question(
            prompt=exchange.prompt,
            visuals=(f"{TOWN}{self._split}:{clip_seed}",),
            temperature=1.0 if stream.random() < self._sampled_share else 0.0,
            seed=stream.randrange(SEED_RANGE),
            answer=exchange.answer if self._tells_answers else None,
            origin=f"town, {self._split} question {place}",
        )


def load_visuals(question: Question, media: MediaConfig) -> tuple[VisualInput, ...]:
    """The frames that a question is about.

    Raises:
        InvalidRequestError: a file is missing, damaged or too large, or ends before the question's time.
    """
    if question.visuals and question.visuals[0].startswith(TOWN):
        return tuple(_town_clip(name, media) for name in question.visuals)
    return load_files(question.visuals, media, start_s=question.start_s, end_s=question.end_s)


def _town_clip(reference: str, media: MediaConfig) -> VisualInput:
    _, split, seed = reference.split(":")
    if split not in get_args(Split):
        raise ConfigError(f"unknown split in {reference!r}; known: {', '.join(get_args(Split))}")
    rendered = clip(int(seed), split, frame_count=media.num_frames)
    return VisualInput(
        kind="video",
        frames=rendered.frames,
        timestamps_s=np.asarray(rendered.timestamps_s, dtype=np.float64),
        source=reference,
    )
