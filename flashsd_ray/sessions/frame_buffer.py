"""The frames that a session holds, in one array that is only ever appended to.

A view of its beginning is therefore a snapshot that stays as it is while more frames arrive, and costs nothing. Only
when frames are dropped does the rest move, into a new array; whoever still looks at the old one keeps it alive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.sessions.window import WindowPolicy
from flashsd_ray.types import VisualInput


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """What was held at one moment."""

    frames: np.ndarray  # [n, H, W, 3] uint8, read-only
    times_s: np.ndarray  # [n] float64
    generation: int  # snapshots of one generation are beginnings of each other
    numbers: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # [n] int64, as the session counts

    def __len__(self) -> int:
        return len(self.times_s)

    def since(self, time_s: float) -> Snapshot:
        """The frames from this time on."""
        row = int(np.searchsorted(self.times_s, time_s))
        return Snapshot(
            frames=self.frames[row:], times_s=self.times_s[row:], generation=self.generation, numbers=self.numbers[row:]
        )

    def visual(self, start: int, stop: int) -> VisualInput:
        """The frames of these rows as the model is shown them; there must be one."""
        times_s = self.times_s[start:stop]
        return VisualInput(
            kind="video",
            frames=self.frames[start:stop],
            timestamps_s=times_s,
            source="live video",
            duration_s=float(times_s[-1]),
        )


NOTHING = Snapshot(frames=np.empty((0, 0, 0, 3), np.uint8), times_s=np.empty(0), generation=0)


class FrameBuffer:
    """Holds what its policy keeps."""

    def __init__(
        self,
        policy: WindowPolicy,
        reserve: Callable[[int], None] = lambda num_bytes: None,  # called once, before the memory is taken
    ) -> None:
        self.policy = policy
        self.num_held = 0
        self.num_dropped = 0
        self.generation = 0
        self._reserve = reserve
        self._frames: np.ndarray | None = None  # [max_frames, H, W, 3]
        self._times_s = np.empty(policy.max_frames)
        self._numbers = np.empty(policy.max_frames, np.int64)

    def prepare(
        self,
        pixels: np.ndarray,  # [H, W, 3] uint8
    ) -> None:
        """There is room for frames like this one.

        Raises:
            InvalidRequestError: its size differs from that of the frames before it.
            OverloadedError: it is the first, and there is no memory for a window of such frames.
        """
        if self._frames is None:
            shape = (self.policy.max_frames, *pixels.shape)
            self._reserve(math.prod(shape))
            self._frames = np.empty(shape, np.uint8)
        if pixels.shape != self._frames.shape[1:]:
            (height, width, _), (held_height, held_width, _) = pixels.shape, self._frames.shape[1:]
            raise InvalidRequestError(
                f"the frame has {width}x{height} pixels; the frames of this session have {held_width}x{held_height}"
            )

    def push(
        self,
        pixels: np.ndarray,  # [H, W, 3] uint8, of the size that was prepared for
        time_s: float,  # not before that of the last frame
        number: int = 0,  # as the session counts
    ) -> None:
        """The frame is held; older ones gave way where the window was full."""
        assert self._frames is not None
        gone = self.policy.dropped(self.num_held)
        if gone.stop > gone.start:
            self._frames, self._times_s = self._without(self._frames, gone), self._without(self._times_s, gone)
            self._numbers = self._without(self._numbers, gone)
            self.num_held -= gone.stop - gone.start
            self.num_dropped += gone.stop - gone.start
            self.generation += 1
        self._frames[self.num_held] = pixels
        self._times_s[self.num_held] = time_s
        self._numbers[self.num_held] = number
        self.num_held += 1

    def snapshot(self) -> Snapshot:
        """What is held now."""
        if self._frames is None:
            return NOTHING
        frames, times_s = self._frames[: self.num_held], self._times_s[: self.num_held]
        frames.flags.writeable = False
        numbers = self._numbers[: self.num_held]
        return Snapshot(frames=frames, times_s=times_s, generation=self.generation, numbers=numbers)

    def restore(self, snapshot: Snapshot, num_dropped: int) -> None:
        """What was held elsewhere is held here.

        Raises:
            OverloadedError: there is no memory for a window of such frames.
        """
        for pixels, time_s, number in zip(snapshot.frames, snapshot.times_s, snapshot.numbers, strict=True):
            self.prepare(pixels)
            self.push(pixels, float(time_s), int(number))
        self.generation, self.num_dropped = snapshot.generation, num_dropped

    def _without(self, rows: np.ndarray, gone: slice) -> np.ndarray:
        kept = np.empty_like(rows)
        kept[: gone.start] = rows[: gone.start]
        kept[gone.start : self.num_held - (gone.stop - gone.start)] = rows[gone.stop : self.num_held]
        return kept
