"""Scenes drawn from a seed: who is there, who does what with whom, where, and what comes and goes."""

from __future__ import annotations

import random

from flashsd_ray.training.town.casting import cast, places_with_novel_pairs
from flashsd_ray.training.town.catalog import (
    COLORS,
    KINDS,
    MOTION_WEIGHTS,
    PLACE_NAMES,
    PLACES,
    TIMES_OF_DAY,
    WEATHERS,
    Color,
    Kind,
    Motion,
)
from flashsd_ray.training.town.deeds import enact, possible_deeds
from flashsd_ray.training.town.scene import (
    ENTRANCE_TIME,
    EXIT_TIMES,
    Column,
    Group,
    Lane,
    Scene,
    Split,
    Track,
)

LANE_HEIGHT: dict[Lane, float] = {"top": 0.19, "middle": 0.5, "bottom": 0.81}
COLUMN_CENTER: dict[Column, float] = {"left": 0.2, "center": 0.5, "right": 0.8}
INTERACTION_SHARE = 0.6
ENTRANCE_SHARE = 0.45
EXIT_SHARE = 0.3
Slot = tuple[Lane, Column | None]


def sample_scene(seed: int, split: Split) -> Scene:
    """The scene of this seed; the splits never share a random stream."""
    stream = random.Random(f"flashsd-town:{split}:{seed}")
    place = PLACES[stream.choice(places_with_novel_pairs() if split == "novel" else PLACE_NAMES)]
    wanted = stream.choices((1, 2, 3, 4), (4, 26, 42, 28))[0]
    kinds = cast(stream, place, min(wanted, 3) if split == "novel" else wanted, split)  # room for both of the pair
    colors: list[Color | None] = [stream.choice(COLORS) if KINDS[kind].is_colored else None for kind in kinds]
    free: list[Slot] = [("top", None), ("middle", None), ("bottom", None)]
    groups: list[Group] = []
    interaction = None
    options = possible_deeds(kinds)
    if options and stream.random() < INTERACTION_SHARE:
        deed, actor, partner = stream.choice(options)
        acted = enact(stream, deed, (kinds[actor], colors[actor]), (kinds[partner], colors[partner]))
        groups, interaction = list(acted.groups), acted.interaction
        free = [slot for slot in free if slot[0] not in acted.lanes]
        kinds = [kind for place_in, kind in enumerate(kinds) if place_in not in (actor, partner)]
        colors = [color for place_in, color in enumerate(colors) if place_in not in (actor, partner)]
    groups += _loose_groups(stream, kinds, colors, free, may_all_come_and_go=bool(groups))
    return Scene(
        seed=seed,
        split=split,
        place=place.name,
        time_of_day=stream.choices(TIMES_OF_DAY, (4, 2, 3))[0] if place.has_sky else "day",
        weather=stream.choices(WEATHERS, (5, 2, 2))[0] if place.has_sky else "clear",
        groups=tuple(groups),
        interaction=interaction,
        duration_s=round(stream.uniform(4.0, 6.0), 1),
    )


def _loose_groups(
    stream: random.Random,
    kinds: list[str],
    colors: list[Color | None],
    free: list[Slot],
    *,
    may_all_come_and_go: bool,  # else at least one is there from beginning to end
) -> list[Group]:
    order = stream.sample(range(len(kinds)), len(kinds))
    passing = order if may_all_come_and_go else order[1:]
    late = passing[0] if passing and stream.random() < ENTRANCE_SHARE else None
    rest = [index for index in passing if index != late]
    gone = rest[0] if rest and stream.random() < EXIT_SHARE else None
    groups = []
    for index, (kind, color) in enumerate(zip(kinds, colors, strict=True)):
        begins = ENTRANCE_TIME if index == late else 0.0
        ends = stream.choice(tuple(EXIT_TIMES.values())) if index == gone else 1.0
        taken = {column for group in groups if (column := group.column)}
        group = _sample_group(stream, KINDS[kind], color, free, taken, begins, ends)
        if group is not None:
            groups.append(group)
    return groups


def _sample_group(
    stream: random.Random,
    kind: Kind,
    color: Color | None,
    free: list[Slot],
    taken: set[Column],  # by others: what rises or falls would hide them
    begins: float,
    ends: float,
) -> Group | None:
    if not free:
        return None
    lane, column = min(free, key=lambda slot: _lane_rank(kind, slot[0]) + stream.random())
    motions = MOTION_WEIGHTS[kind.habit]
    motion: Motion = stream.choices(tuple(motions), tuple(motions.values()))[0]
    if column is not None or ends < 0.5:
        motion = "stay"
    is_alone = column is not None or motion in ("rise", "fall")
    most = 4 if motion == "stay" else 3  # four would have no room to move
    count = 1 if is_alone else min(most, stream.choices((1, 2, 3, 4), (62, 18, 12, 8))[0])
    is_large = count < 3 and stream.random() < 0.5
    free.remove((lane, column))
    if motion in ("stay", "rise", "fall") and count == 1 and column is None:
        column = stream.choice([name for name in COLUMN_CENTER if name not in taken] or list(COLUMN_CENTER))
        if column != "center" and motion == "stay":
            free.append((lane, "right" if column == "left" else "left"))
    return Group(
        kind=kind.name,
        color=color,
        is_large=is_large,
        motion=motion,
        lane=None if motion in ("rise", "fall") else lane,
        column=column,
        begins=begins,
        ends=ends,
        tracks=_tracks(stream, motion, lane, column, count, is_large=is_large, is_late=begins > 0.0),
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
    size = stream.uniform(0.31, 0.37) if is_large else stream.uniform(0.2, 0.24)
    height = LANE_HEIGHT[lane] + stream.uniform(-0.03, 0.03)
    spread = min(1.12 * size, (0.78 if motion == "stay" else 0.55) / count)
    width = spread * (count - 1)
    is_mirrored = motion == "right" or (motion != "left" and stream.random() < 0.5)
    if motion in ("rise", "fall"):
        x = COLUMN_CENTER[column or "center"] + stream.uniform(-0.04, 0.04)
        low, high = (x, 0.84), (x, 0.14)
        start, end = (low, high) if motion == "rise" else (high, low)
        return (Track(size=size, start=start, end=end, is_mirrored=is_mirrored),)
    if motion == "stay":
        center = COLUMN_CENTER[column] if column else 0.5
        begin = finish = center + stream.uniform(-0.04, 0.04) - width / 2
    else:
        near, far = 0.12 + stream.uniform(-0.04, 0.04), 0.88 - width + stream.uniform(-0.04, 0.04)
        near = near - 0.1 if is_late and motion == "right" else near
        far = far + 0.1 if is_late and motion == "left" else far
        begin, finish = (near, far) if motion == "right" else (far, near)
    return tuple(
        Track(
            size=size,
            start=(begin + spread * index, height),
            end=(finish + spread * index, height),
            is_mirrored=is_mirrored,
        )
        for index in range(count)
    )
