"""A clip as its segments, each with its frames or with why it has none; one segment's frames are read at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flashsd_ray.batch.inputs.sources import Source, read_source
from flashsd_ray.batch.rows import Clip
from flashsd_ray.batch.segments.rule import SegmentRule, between_cuts, num_windows, windows
from flashsd_ray.batch.segments.scenes import cuts_of
from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import ConfigError, FlashSDError, MediaLimitError
from flashsd_ray.types import VisualInput


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentFrames:
    """One segment of a clip, read."""

    index: int = 0  # 0, 1, 2 ... in the clip
    start_s: float | None = None  # from the start of the source; None: of a picture, or not known
    end_s: float | None = None
    visual: VisualInput | None = None
    error: FlashSDError | None = None  # why there is no visual
    read_s: float = 0.0  # of the first segment: with fetching the clip and finding its segments


def read_segments(
    clip: Clip,
    rule: SegmentRule,
    config: MediaConfig,
    *,
    max_segments: int,
    num_frames: int | None = None,  # of each segment
    fps: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[SegmentFrames]:
    """Every segment of the clip in order; a clip that cannot be read or cut at all is one segment with an error.

    Raises:
        ConfigError: a package is missing for what is asked.
    """
    began_s = clock()
    try:
        with read_source(clip, config) as source:
            for index, span in enumerate(_spans(clip, source, rule, config, max_segments)):
                yield _read(index, span, source, config, num_frames=num_frames, fps=fps, began_s=began_s, clock=clock)
                began_s = clock()
    except ConfigError:
        raise
    except FlashSDError as error:
        yield SegmentFrames(start_s=clip.start_s, end_s=clip.end_s, error=error, read_s=clock() - began_s)


def _spans(
    clip: Clip, source: Source, rule: SegmentRule, config: MediaConfig, max_segments: int
) -> list[tuple[float | None, float | None]]:
    whole = clip.start_s, clip.end_s
    if rule.kind == "whole":
        return [whole]
    # One frame is read for what the whole clip's container says.
    visual = source.load(config, num_frames=1, start_s=clip.start_s, end_s=clip.end_s)
    start_s, end_s = _times(whole, visual)
    if start_s is None or end_s is None:
        return [whole]
    if rule.kind == "window":
        _check_number(num_windows(start_s, end_s, rule.seconds), source, max_segments)
        return [*windows(start_s, end_s, rule.seconds)]
    cuts_s = list(cuts_of(source, config, start_s, end_s, rule.seconds))
    spans = between_cuts(start_s, end_s, cuts_s, shortest_s=rule.seconds)
    _check_number(len(spans), source, max_segments)
    return [*spans]


def _check_number(num_segments: int, source: Source, max_segments: int) -> None:
    if num_segments > max_segments:
        limit = f"batch.max_segments allows {max_segments}"
        raise MediaLimitError(f"{source.name}: has {num_segments} segments; {limit}")


def _read(
    index: int,
    span: tuple[float | None, float | None],
    source: Source,
    config: MediaConfig,
    *,
    num_frames: int | None,
    fps: float | None,
    began_s: float,
    clock: Callable[[], float],
) -> SegmentFrames:
    start_s, end_s = span
    try:
        visual = source.load(config, num_frames=num_frames, fps=fps, start_s=start_s, end_s=end_s)
    except FlashSDError as error:
        return SegmentFrames(index=index, start_s=start_s, end_s=end_s, error=error, read_s=clock() - began_s)
    start_s, end_s = _times(span, visual)
    return SegmentFrames(index=index, start_s=start_s, end_s=end_s, visual=visual, read_s=clock() - began_s)


def _times(span: tuple[float | None, float | None], visual: VisualInput) -> tuple[float | None, float | None]:
    """The range that is really there; nothing of a picture."""
    start_s, end_s = span
    if visual.kind == "image":
        return None, None
    return start_s or 0.0, visual.duration_s if end_s is None else min(end_s, visual.duration_s)
