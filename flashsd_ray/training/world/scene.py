"""Scenes: which objects a clip holds, where each is at any time, drawn from (seed, split) alone."""

import random
from dataclasses import dataclass
from typing import Literal

from flashsd_ray.training.world.catalog import (
    KIND_NAMES,
    KINDS,
    MOTION_WEIGHTS,
    PLACE_NAMES,
    PLACES,
    TIMES_OF_DAY,
    WEATHERS,
    Kind,
    Motion,
    Place,
)

Split = Literal["train", "heldout"]
Lane = Literal["top", "middle", "bottom"]
Column = Literal["left", "center", "right"]

LANE_HEIGHT: dict[Lane, float] = {"top": 0.19, "middle": 0.5, "bottom": 0.81}
COLUMN_CENTER: dict[Column, float] = {"left": 0.2, "center": 0.5, "right": 0.8}
ENTRANCE_TIME = 0.5  # share of the clip after which a late group is in view


@dataclass(frozen=True, kw_only=True)
class Track:
    """The path of one object, as fractions of the frame."""

    size: float  # side of the square sprite
    start: tuple[float, float]  # centre x, y when it appears
    end: tuple[float, float]  # centre x, y at the end of the clip
    is_mirrored: bool


@dataclass(frozen=True, kw_only=True)
class Group:
    """One to three objects of one kind that do the same thing."""

    kind: str
    is_large: bool
    motion: Motion
    lane: Lane | None  # None: it crosses lanes, moving up or down
    column: Column | None  # None: it moves sideways or fills its lane
    enters_halfway: bool
    tracks: tuple[Track, ...]

    @property
    def count(self) -> int:
        """How many objects the group has."""
        return len(self.tracks)


@dataclass(frozen=True, kw_only=True)
class VisibleObject:
    """One object in one frame; the box is x0, y0, x1, y1 as fractions of the frame."""

    kind: str
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
    groups: tuple[Group, ...]
    duration_s: float

    def visible(self, moment: float) -> tuple[VisibleObject, ...]:
        """The objects in view at `moment` (0 = first frame, 1 = last), back to front."""
        return tuple(
            VisibleObject(
                kind=group.kind,
                is_large=group.is_large,
                box=_box(track, _progress(group, moment)),
                is_mirrored=track.is_mirrored,
            )
            for group in self.groups
            if not group.enters_halfway or moment >= ENTRANCE_TIME
            for track in group.tracks
        )


def sample_scene(seed: int, split: Split) -> Scene:
    """The scene of this seed; the two splits never share a random stream."""
    stream = random.Random(f"flashsd-world:{split}:{seed}")
    place = PLACES[stream.choice(PLACE_NAMES)]
    return Scene(
        seed=seed,
        split=split,
        place=place.name,
        time_of_day=stream.choices(TIMES_OF_DAY, (4, 2, 3))[0] if place.has_sky else "day",
        weather=stream.choices(WEATHERS, (5, 2, 2))[0] if place.has_sky else "clear",
        groups=_sample_groups(stream, place),
        duration_s=round(stream.uniform(4.0, 6.0), 1),
    )


def _sample_groups(stream: random.Random, place: Place) -> tuple[Group, ...]:
    free_lanes: list[tuple[Lane, Column | None]] = [("top", None), ("middle", None), ("bottom", None)]
    wanted = stream.choices((1, 2, 3, 4), (15, 35, 35, 15))[0]
    names = stream.sample(place.kinds, wanted)
    if stream.random() < 0.15:
        stranger = stream.choice(KIND_NAMES)
        names[0] = stranger if stranger not in names else names[0]
    late_index = stream.randrange(wanted) if wanted > 1 and stream.random() < 0.45 else None
    groups = []
    for index, name in enumerate(names):
        group = _sample_group(stream, KINDS[name], free_lanes, is_late=index == late_index)
        if group is not None:
            groups.append(group)
    return tuple(groups)


def _sample_group(
    stream: random.Random,
    kind: Kind,
    free_lanes: list[tuple[Lane, Column | None]],
    *,
    is_late: bool,
) -> Group | None:
    options = sorted(free_lanes, key=lambda slot: _lane_rank(kind, slot[0]) + stream.random())
    if not options:
        return None
    lane, column = options[0]
    motions = MOTION_WEIGHTS[kind.habit]
    motion = stream.choices(tuple(motions), tuple(motions.values()))[0]
    if column is not None and motion in ("left", "right"):
        motion = "stay"
    count = 1 if column is not None or motion in ("rise", "fall") else stream.choices((1, 2, 3), (70, 18, 12))[0]
    is_large = count < 3 and stream.random() < 0.5
    free_lanes.remove((lane, column))
    if motion in ("stay", "rise", "fall") and count == 1 and column is None:
        column = stream.choice(tuple(COLUMN_CENTER))
        if column != "center" and motion == "stay":
            free_lanes.append((lane, "right" if column == "left" else "left"))
    return Group(
        kind=kind.name,
        is_large=is_large,
        motion=motion,
        lane=None if motion in ("rise", "fall") else lane,
        column=column,
        enters_halfway=is_late,
        tracks=_tracks(stream, motion, lane, column, count, is_large=is_large, is_late=is_late),
    )


def _lane_rank(kind: Kind, lane: Lane) -> float:
    if kind.habit in ("fly", "float"):
        return {"top": 0.0, "middle": 0.8, "bottom": 1.6}[lane]
    if kind.habit in ("walk", "drive", "stand"):
        return {"top": 2.0, "middle": 0.2, "bottom": 0.0}[lane]
    return 0.0


def _tracks(
    stream: random.Random,
    motion: Motion,
    lane: Lane,
    column: Column | None,
    count: int,
    *,
    is_large: bool,
    is_late: bool,
) -> tuple[Track, ...]:
    size = stream.uniform(0.31, 0.37) if is_large else stream.uniform(0.19, 0.23)
    height = LANE_HEIGHT[lane] + stream.uniform(-0.03, 0.03)
    spread = min(1.12 * size, 0.8 / count)
    width = spread * (count - 1)
    is_mirrored = motion == "right" or (motion != "left" and stream.random() < 0.5)
    if motion in ("rise", "fall"):
        x = COLUMN_CENTER[column or "center"] + stream.uniform(-0.04, 0.04)
        low, high = (x, 0.84), (x, 0.14)
        start, end = (low, high) if motion == "rise" else (high, low)
        return (Track(size=size, start=start, end=end, is_mirrored=is_mirrored),)
    if motion == "stay":
        center = COLUMN_CENTER[column] if column else 0.5
        first = center + stream.uniform(-0.04, 0.04) - width / 2
        starts = ends = [first + spread * index for index in range(count)]
    else:
        near, far = 0.12 + stream.uniform(-0.04, 0.04), 0.88 - width + stream.uniform(-0.04, 0.04)
        near = near - 0.1 if is_late and motion == "right" else near
        far = far + 0.1 if is_late and motion == "left" else far
        begin, finish = (near, far) if motion == "right" else (far, near)
        starts = [begin + spread * index for index in range(count)]
        ends = [finish + spread * index for index in range(count)]
    return tuple(
        Track(size=size, start=(x0, height), end=(x1, height), is_mirrored=is_mirrored)
        for x0, x1 in zip(starts, ends, strict=True)
    )


def _progress(group: Group, moment: float) -> float:
    if not group.enters_halfway:
        return moment
    return max(0.0, (moment - ENTRANCE_TIME) / (1.0 - ENTRANCE_TIME))


def _box(track: Track, progress: float) -> tuple[float, float, float, float]:
    x = track.start[0] + (track.end[0] - track.start[0]) * progress
    y = track.start[1] + (track.end[1] - track.start[1]) * progress
    half = track.size / 2
    return (x - half, y - half, x + half, y + half)
