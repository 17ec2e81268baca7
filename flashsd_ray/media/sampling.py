"""Which frames of a video are looked at: pure arithmetic from timestamps to indices, without decoding anything.

Times are whole ticks, so that nothing is lost to rounding: sampling by count over a constant frame rate gives exactly
``linspace(0, F - 1, n)`` rounded down, which is what vLLM takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import InvalidRequestError, MediaLimitError

# Containers round the time of a frame to their tick (Matroska: 1 ms). Where a frame lasts this many ticks or more, one
# tick of lateness is taken for rounding; where it lasts fewer, a tick is a real difference.
ROUNDED_TICKS_PER_FRAME = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timeline:
    """When each frame of a source appears."""

    ticks: np.ndarray  # [F] int64, strictly ascending
    tick_s: Fraction
    end_tick: int  # when the last frame disappears

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame's appearance to the last one's disappearance."""
        return float((self.end_tick - int(self.ticks[0])) * self.tick_s)

    def time_s(self, index: int) -> float:
        """Seconds from the first frame's appearance to that of frame ``index``."""
        return float((int(self.ticks[index]) - int(self.ticks[0])) * self.tick_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which frames a caller wants: so many, or so many a second, with start_s <= time < end_s."""

    max_frames: int
    num_frames: int | None = None
    fps: Fraction | None = None
    start_s: Fraction = Fraction(0)
    end_s: Fraction | None = None

    @classmethod
    def resolve(
        cls, config: MediaConfig, num_frames: int | None, fps: float | None, start_s: float | None, end_s: float | None
    ) -> Sampling:
        """The wish of one call: what it leaves open is taken from the config.

        Raises:
            InvalidRequestError: a value lies outside its range, or both a count and a rate are given.
            MediaLimitError: more frames are asked for than ``media.max_frames`` allows.
        """
        if num_frames is not None and fps is not None:
            raise InvalidRequestError("num_frames and fps exclude each other; give one of them")
        if num_frames is None and fps is None:
            num_frames, fps = (None, config.fps) if config.fps is not None else (config.num_frames, None)
        if num_frames is not None and num_frames < 1:
            raise InvalidRequestError(f"num_frames must be at least 1, got {num_frames}")
        if num_frames is not None and num_frames > config.max_frames:
            raise MediaLimitError(f"num_frames is {num_frames}; media.max_frames allows {config.max_frames}")
        if fps is not None and not (math.isfinite(fps) and fps > 0):
            raise InvalidRequestError(f"fps must be positive, got {fps}")
        start_s = 0.0 if start_s is None else start_s
        if not (math.isfinite(start_s) and start_s >= 0):
            raise InvalidRequestError(f"start_s must be 0 or more, got {start_s}")
        if end_s is not None and not (math.isfinite(end_s) and end_s > start_s):
            raise InvalidRequestError(f"end_s must lie after start_s ({start_s:g}), got {end_s:g}")
        return cls(
            max_frames=config.max_frames,
            num_frames=num_frames,
            fps=None if fps is None else exact(fps),
            start_s=exact(start_s),
            end_s=None if end_s is None else exact(end_s),
        )

    def choose(self, timeline: Timeline) -> list[int]:
        """Indices of the frames to look at, strictly ascending; empty when the source ends before ``start_s``.

        By count: the frames on display at ``num_frames`` instants spread evenly from the first to the last frame of
        the range, each frame once; all of them when there are fewer. By rate: the frames on display every ``1 / fps``
        seconds, each once; ``max_frames`` spread over the range when that would be more.
        """
        first, stop = self._range(timeline)
        if first == stop:
            return []
        ticks = timeline.ticks[first:stop]
        if self.num_frames is not None:
            chosen = by_count(ticks, self.num_frames)
        else:
            assert self.fps is not None
            stop_tick = int(timeline.ticks[stop]) if stop < len(timeline.ticks) else timeline.end_tick
            if self.end_s is not None:
                stop_tick = min(stop_tick, int(timeline.ticks[0]) + math.ceil(self.end_s / timeline.tick_s))
            chosen = by_rate(ticks, stop_tick, 1 / (self.fps * timeline.tick_s), self.max_frames)
        return [first + index for index in chosen]

    def _range(self, timeline: Timeline) -> tuple[int, int]:
        ticks, origin = timeline.ticks, int(timeline.ticks[0])
        first, stop = _count_before(ticks, origin + math.ceil(self.start_s / timeline.tick_s)), len(ticks)
        if self.end_s is not None:
            stop = _count_before(ticks, origin + math.ceil(self.end_s / timeline.tick_s))
        if first < stop:
            return first, stop
        if origin + self.start_s / timeline.tick_s >= timeline.end_tick:
            return 0, 0
        # No frame appears within the range: it shows the one that appeared before it.
        return first - 1, first


def exact(seconds: float) -> Fraction:
    """The decimal number that was written: 0.1 as one tenth, not as the nearest binary float."""
    return Fraction(repr(float(seconds)))


def by_count(
    ticks: np.ndarray,  # [F] int64, strictly ascending
    num_frames: int,
) -> list[int]:
    """Indices of min(num_frames, F) frames spread evenly in time, the first and (from two on) the last among them."""
    count = min(num_frames, len(ticks))
    first, span, lateness = int(ticks[0]), int(ticks[-1]) - int(ticks[0]), _rounding(ticks)
    chosen = [0, *(_on_display(ticks, first + k * span // (count - 1) + lateness) for k in range(1, count))]
    # A frame that stays on display over several instants gives way to its neighbours, so that none comes twice.
    for k in range(1, count):
        chosen[k] = max(chosen[k], chosen[k - 1] + 1)
    return [min(index, len(ticks) - (count - k)) for k, index in enumerate(chosen)]


def by_rate(
    ticks: np.ndarray,  # [F] int64, strictly ascending
    stop_tick: int,  # when the last frame disappears
    step: Fraction,  # ticks from one instant to the next
    max_frames: int,
) -> list[int]:
    """Indices of the frames on display every ``step`` ticks from the first on; by count when they are too many."""
    first, lateness = int(ticks[0]), _rounding(ticks)
    chosen, k = [0], 0
    while chosen[-1] + 1 < len(ticks):
        # The next instant at which a frame other than the last chosen one is on display.
        next_tick = int(ticks[chosen[-1] + 1]) - lateness
        k = max(k + 1, math.ceil((next_tick - first) / step))
        instant = first + math.floor(k * step)
        if instant + lateness >= stop_tick:
            break
        chosen.append(_on_display(ticks, instant + lateness))
        if len(chosen) > max_frames:
            return by_count(ticks, max_frames)
    return chosen


def _on_display(ticks: np.ndarray, instant: int) -> int:
    return max(_count_before(ticks, instant + 1) - 1, 0)


def _count_before(ticks: np.ndarray, instant: int) -> int:
    info = np.iinfo(np.int64)
    return int(np.searchsorted(ticks, min(max(instant, info.min), info.max), side="left"))


def _rounding(ticks: np.ndarray) -> int:
    span = int(ticks[-1]) - int(ticks[0])
    return 1 if span >= ROUNDED_TICKS_PER_FRAME * (len(ticks) - 1) and len(ticks) > 1 else 0
