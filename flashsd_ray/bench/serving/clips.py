"""Held-out clips of the town as files, as users send them; no two have the same content."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image

from flashsd_ray.bench.serving.asks import Ask
from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.config import MediaConfig
from flashsd_ray.media import load_visual_bytes
from flashsd_ray.training.town.language import TASKS, Task, converse
from flashsd_ray.training.town.scene import Scene
from flashsd_ray.training.town.staging import sample_scene
from flashsd_ray.training.town.video import write_video
from flashsd_ray.types import SamplingParams, VisualInput

FIRST_SEED = 920_000  # away from the clips of other measurements
CLIP_PIXELS = 192
CLIP_S = 1.0  # a short clip costs a model as much as a long one, and is made in a fraction of the time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipFile:
    """A video file and the scene that it shows."""

    content: bytes
    scene: Scene

    def prompt(self, task: Task, paraphrase: int) -> str:
        """A question about the scene."""
        return converse(self.scene, task, paraphrase).prompt

    def first_frame(self) -> bytes:
        """A PNG file."""
        return png_of(visual_of(self.content).frames[0])


def held_out_clips(num_clips: int, *, first_seed: int = FIRST_SEED) -> list[ClipFile]:
    """So many clips that no training saw, each with content of its own."""
    with counting("making clips", num_clips) as made:
        clips = []
        for clip in islice(_distinct(first_seed), num_clips):
            clips.append(clip)
            made()
        return clips


def _distinct(first_seed: int) -> Iterator[ClipFile]:
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as directory:
        for seed in count(first_seed):
            scene = replace(sample_scene(seed, "heldout"), duration_s=CLIP_S)
            path = Path(directory) / "clip.mp4"
            write_video(scene, path, size_px=CLIP_PIXELS)
            content = path.read_bytes()
            digest = visual_of(content).digest
            if digest not in seen:
                seen.add(digest)
                yield ClipFile(content=content, scene=scene)


def visual_of(content: bytes) -> VisualInput:
    """What the model sees of a file, where nothing else is set."""
    return load_visual_bytes(content, "a held-out clip", MediaConfig())


def detailed_asks(clips: Sequence[ClipFile], *, max_new_tokens: int) -> tuple[Ask, ...]:
    """For each clip the request for a detailed caption, greedy."""
    sampling = SamplingParams(max_new_tokens=max_new_tokens)
    return tuple(
        Ask(name=f"clip {index}", prompt=clip.prompt("detail", index), picture=clip.content, sampling=sampling)
        for index, clip in enumerate(clips)
    )


def mixed_asks(clips: Sequence[ClipFile]) -> tuple[Ask, ...]:
    """For each clip a greedy and a sampled request: videos and pictures, all tasks, many lengths.

    Every second one asks for log-probabilities, which tell tokens where ids are not told.
    """
    asks = []
    for index, clip in enumerate(clips):
        is_picture = index % 4 == 3
        for is_sampled in (False, True):
            sampling = SamplingParams(
                max_new_tokens=(12, 96, 24, 64, 5)[(index + is_sampled) % 5],
                temperature=(0.7, 1.0, 1.3)[index % 3] if is_sampled else 0.0,
                top_p=(1.0, 0.9)[index % 2],
                top_k=(0, 0, 50)[index % 3],
                seed=1000 + index,
                logprobs=0 if (index + is_sampled) % 2 else None,
            )
            asks.append(
                Ask(
                    name=f"{'sampled' if is_sampled else 'greedy'} {index}",
                    prompt=clip.prompt(TASKS[index % len(TASKS)], index),
                    picture=clip.first_frame() if is_picture else clip.content,
                    kind="image" if is_picture else "video",
                    sampling=sampling,
                )
            )
    return tuple(asks)


def png_of(
    frame: np.ndarray,  # [H, W, 3] uint8
) -> bytes:
    """The frame as a PNG file."""
    encoded = io.BytesIO()
    Image.fromarray(frame).save(encoded, "PNG")
    return encoded.getvalue()
