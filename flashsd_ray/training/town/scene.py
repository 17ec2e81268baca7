"""What is true of a clip of the town, and where everything is at every moment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from flashsd_ray.training.town.catalog import Color, Motion

Split = Literal["train", "heldout", "novel"]  # novel: kinds together that training never shows together
Lane = Literal["top", "middle", "bottom"]
Column = Literal["left", "center", "right"]
Deed = Literal["follow", "meet", "pass", "jump", "carry", "circle"]

ENTRANCE_TIME = 0.5  # share of the clip after which what enters is in view
EXIT_TIMES = {"early": 0.28, "late": 0.78}  # share of the clip after which what leaves is gone


@dataclass(frozen=True, kw_only=True)
class Track:
    """The path of one object, in fractions of the frame; straight unless it leaps or circles."""

    size: float  # side of the square sprite
    start: tuple[float, float]  # centre x, y when it appears
    end: tuple[float, float]  # centre x, y when the clip or its stay ends
    is_mirrored: bool
    leap: float = 0.0  # how much higher it is halfway
    orbit: tuple[float, float] = (0.0, 0.0)  # radii of a circle around the straight path

    def box(self, progress: float) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 after this share of its stay."""
        x = self.start[0] + (self.end[0] - self.start[0]) * progress
        y = self.start[1] + (self.end[1] - self.start[1]) * progress
        turn = 2.0 * math.pi * progress
        x += self.orbit[0] * math.cos(turn)
        y += self.orbit[1] * math.sin(turn) - self.leap * math.sin(math.pi * progress)
        half = self.size / 2
        return (x - half, y - half, x + half, y + half)


@dataclass(frozen=True, kw_only=True)
class Group:
    """One to four objects of one kind that do the same thing."""

    kind: str
    color: Color | None
    is_large: bool
    motion: Motion
    lane: Lane | None  # None: it crosses lanes, moving up or down
    column: Column | None  # None: it moves sideways or fills its lane
    begins: float  # share of the clip: in view from here
    ends: float  # to here
    tracks: tuple[Track, ...]

    @property
    def count(self) -> int:
        """How many objects the group has."""
        return len(self.tracks)

    @property
    def enters(self) -> bool:
        """Whether it comes while the clip is running."""
        return self.begins > 0.0

    @property
    def leaves(self) -> bool:
        """Whether it goes while the clip is running."""
        return self.ends < 1.0

    def progress(self, moment: float) -> float:
        """The share of its stay that is over."""
        return min(1.0, max(0.0, (moment - self.begins) / (self.ends - self.begins)))


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """What one object does with another: `actor` follows, meets, ... `partner`, by place in `Scene.groups`."""

    deed: Deed
    actor: int
    partner: int


@dataclass(frozen=True, kw_only=True)
class VisibleObject:
    """One object in one frame; the box is x0, y0, x1, y1 as fractions of the frame."""

    kind: str
    color: Color | None
    is_large: bool
    box: tuple[float, float, float, float]
    is_mirrored: bool


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that is true of a clip."""

    seed: int
    split: Split
    place: str
    time_of_day: str
    weather: str
    groups: tuple[Group, ...]  # back to front
    interaction: Interaction | None
    duration_s: float

    @property
    def entering(self) -> Group | None:
        """The group that enters halfway."""
        return next((group for group in self.groups if group.enters), None)

    @property
    def leaving(self) -> Group | None:
        """The group that leaves before the end."""
        return next((group for group in self.groups if group.leaves), None)

    def visible(self, moment: float) -> tuple[VisibleObject, ...]:
        """The objects in view at `moment` (0 = first frame, 1 = last), back to front."""
        return tuple(
            VisibleObject(
                kind=group.kind,
                color=group.color,
                is_large=group.is_large,
                box=track.box(group.progress(moment)),
                is_mirrored=track.is_mirrored,
            )
            for group in self.groups
            if group.begins <= moment < group.ends or (moment >= 1.0 and group.ends >= 1.0)
            for track in group.tracks
        )
