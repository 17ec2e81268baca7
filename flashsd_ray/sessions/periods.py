"""When a session captions by itself: the periods of its video time, and which frames of a period are looked at.

A caption looks at the frames of its own period and at nothing older. A viewer of live captions wants to read what
happens now; a model that is shown the whole window tells the beginning again and again. It also makes a caption depend
on the video alone, not on when it was asked for, and keeps its cost that of one period.

A period may hold more frames than the window. Frames are thinned as they arrive then: each period has as many slots as
the window surely holds, and the first frame of each slot is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.media.sampling import exact


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A span of video time: start_s <= time < end_s."""

    start_s: float
    end_s: float


class Grid:
    """Numbers the steps of video time, exactly; takes the first frame of each."""

    def __init__(self, step_s: Fraction) -> None:
        self.step_s = step_s
        self._origin: Fraction | None = None
        self._last = -1

    def number(self, time_s: float) -> int:
        """In which step the time lies, counted from that of the first frame taken; 0 before there is one."""
        return 0 if self._origin is None else math.floor((exact(time_s) - self._origin) / self.step_s)

    def start_s(self, number: int) -> float:
        """When a step begins; a frame must have been taken."""
        assert self._origin is not None
        return float(self._origin + number * self.step_s)

    def state(self) -> list[object]:
        """Plain values that ``restore`` takes."""
        return [None if self._origin is None else str(self._origin), self._last]

    def restore(self, state: Sequence[Any]) -> None:
        """The steps are numbered as where this state was taken."""
        origin, self._last = state
        self._origin = None if origin is None else Fraction(origin)

    def take(self, time_s: float) -> bool:
        """Whether this frame, which comes after those before it, is the first of its step."""
        if self._origin is None:
            self._origin = exact(time_s)
        number = self.number(time_s)
        is_first, self._last = number > self._last, number
        return is_first


class Periods:
    """The periods of one session."""

    def __init__(
        self,
        period_s: float,  # video time
        frames_per_period: int,  # most that are taken
    ) -> None:
        if not (math.isfinite(period_s) and period_s > 0):
            raise InvalidRequestError(f"period_s must be positive, got {period_s}")
        self._frames_per_period = frames_per_period
        self._grid = Grid(exact(period_s) / frames_per_period)
        self._number: int | None = None  # of the period whose frames are arriving

    @property
    def current(self) -> Period | None:
        """The period whose frames are arriving; None before the first."""
        return None if self._number is None else self._period(self._number)

    def ended_by(self, time_s: float) -> Period | None:
        """The period that is over when a frame of this time arrives; None while it goes on."""
        if self._number is None or self._grid.number(time_s) // self._frames_per_period == self._number:
            return None
        return self._period(self._number)

    def state(self) -> list[object]:
        """Plain values that ``restore`` takes."""
        return [*self._grid.state(), self._number]

    def restore(self, state: Sequence[Any]) -> None:
        """The periods are those of where this state was taken."""
        *grid, self._number = state
        self._grid.restore(grid)

    def take(self, time_s: float) -> bool:
        """Whether this frame is looked at; it lies in the current period from here on."""
        is_taken = self._grid.take(time_s)
        self._number = self._grid.number(time_s) // self._frames_per_period
        return is_taken

    def _period(self, number: int) -> Period:
        first = number * self._frames_per_period
        return Period(start_s=self._grid.start_s(first), end_s=self._grid.start_s(first + self._frames_per_period))
