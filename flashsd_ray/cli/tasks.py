"""From paths on the command line to requests, read one after the other as they are wanted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import FlashSDError, MediaError
from flashsd_ray.types import CaptionRequest, SamplingParams, VisualInput

SHORTEST_REST = 0.1  # of a segment; what is left at the end of a video and shorter joins the segment before
PROMPTS = {"image": "Describe the image in detail.", "video": "Describe the video in detail."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One caption to be made."""

    paths: tuple[str, ...]
    start_s: float | None = None
    end_s: float | None = None
    duration_s: float = 0.0  # of the first input, once it was read

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return self.paths[0] if len(self.paths) == 1 else f"{self.paths[0]} and {len(self.paths) - 1} more"

    @property
    def span_s(self) -> tuple[float, float]:
        """The time that the caption is about."""
        end_s = self.duration_s if self.end_s is None else self.end_s
        return self.start_s or 0.0, min(end_s, self.duration_s) if self.duration_s else end_s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """A task whose inputs were read, or could not be."""

    task: Task
    request: CaptionRequest | None = None
    error: FlashSDError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of every input, and which of its frames are looked at."""

    media: MediaConfig
    prompt: str | None
    sampling: SamplingParams
    draft_length: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None

    def read(self, task: Task, request_id: str) -> Read:
        """The task with its pictures in memory."""
        try:
            visuals = self._load(task)
        except FlashSDError as error:
            return Read(task=task, error=error)
        request = CaptionRequest(
            request_id=request_id,
            prompt=self.prompt if self.prompt is not None else PROMPTS[visuals[0].kind],
            visuals=visuals,
            sampling=self.sampling,
            draft_length=self.draft_length,
        )
        return Read(task=replace(task, duration_s=visuals[0].duration_s), request=request)

    def duration_s(self, path: str) -> float:
        """How long the video at the path lasts.

        Raises:
            MediaError: it cannot be read, or it is an image.
        """
        from flashsd_ray.media import load_visual

        visual = load_visual(path, self.media, num_frames=1)
        if visual.kind == "image":
            raise MediaError(f"{path}: is an image and has no duration; a video is needed here")
        return visual.duration_s

    def _load(self, task: Task) -> tuple[VisualInput, ...]:
        from flashsd_ray.media import load_visuals

        return load_visuals(
            task.paths,
            self.media,
            num_frames=self.num_frames,
            fps=self.fps,
            start_s=task.start_s,
            end_s=task.end_s,
        )


def read_tasks(
    paths: Sequence[str],
    question: Question,
    *,
    together: bool = False,
    segment_s: float | None = None,
    needs_duration: bool = False,  # whether an image is refused
    says: Callable[[str], None] = lambda text: None,  # told what is being read
) -> Iterator[Read]:
    """Every task in order, read when it is asked for, so that one video at a time is in memory before it is needed."""
    groups = [tuple(paths)] if together else [(path,) for path in paths]
    number = 0
    for group in groups:
        whole = Task(paths=group, start_s=question.start_s, end_s=question.end_s)
        says(f"reading {whole.label}")
        try:
            duration_s = question.duration_s(group[0]) if segment_s or needs_duration else None
        except FlashSDError as error:
            yield Read(task=whole, error=error)
            continue
        for task in [whole] if segment_s is None or duration_s is None else segments(whole, duration_s, segment_s):
            says(f"reading {task.label}")
            yield question.read(task, f"caption-{number}")
            number += 1


def segments(whole: Task, duration_s: float, segment_s: float) -> Iterator[Task]:
    """The task's time in pieces of ``segment_s``; the last one may be longer or shorter."""
    start_s = whole.start_s or 0.0
    end_s = duration_s if whole.end_s is None else min(whole.end_s, duration_s)
    if start_s >= end_s:
        yield whole  # reading it will say what is wrong
        return
    count = max(1, math.ceil((end_s - start_s) / segment_s - SHORTEST_REST))
    for index in range(count):
        last = index == count - 1
        yield replace(
            whole,
            start_s=start_s + index * segment_s,
            end_s=end_s if last else start_s + (index + 1) * segment_s,
        )
