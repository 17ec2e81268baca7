"""What two objects do with each other, as paths that show it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from flashsd_ray.training.town.catalog import KINDS, Color, Habit, Motion
from flashsd_ray.training.town.scene import Column, Deed, Group, Interaction, Lane, Track

Role = tuple[str, Color | None]
Side = Literal["right", "left"]
GROUND: tuple[Habit, ...] = ("walk", "drive")
MOVERS: tuple[Habit, ...] = ("walk", "drive", "fly", "swim")

# the habits that an actor and a partner may have
DEEDS: dict[Deed, tuple[tuple[Habit, ...], tuple[Habit, ...]]] = {
    "follow": (MOVERS, MOVERS),
    "meet": (MOVERS, MOVERS),
    "pass": (MOVERS, ("stand", "drop", "walk")),
    "jump": (("walk", "swim"), ("stand", "drop", "walk", "swim")),
    "carry": (("walk", "drive", "swim"), ("drop", "walk", "stand")),
    "circle": (("fly",), ("stand", "walk", "drop", "float", "drive")),
}


@dataclass(frozen=True, kw_only=True)
class Acted:
    """Two groups that do something with each other, back to front, and the lanes they need."""

    groups: tuple[Group, Group]
    interaction: Interaction
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, kw_only=True)
class _Part:
    is_large: bool
    motion: Motion
    lane: Lane
    column: Column | None
    start: tuple[float, float]
    end: tuple[float, float]
    leap: float = 0.0
    orbit: tuple[float, float] = (0.0, 0.0)


def possible_deeds(kinds: list[str]) -> list[tuple[Deed, int, int]]:
    """Every (deed, actor, partner) that suits the habits of these kinds."""
    return [
        (deed, actor, partner)
        for deed, (actors, partners) in DEEDS.items()
        for actor, partner in permutations(range(len(kinds)), 2)
        if KINDS[kinds[actor]].habit in actors and KINDS[kinds[partner]].habit in partners
    ]


def enact(stream: random.Random, deed: Deed, actor: Role, partner: Role) -> Acted:
    """The two, moving so that one can see what they do."""
    side: Side = stream.choice(("right", "left"))
    lane: Lane = "bottom" if deed in ("jump", "carry") else stream.choice(("middle", "bottom"))
    if deed == "circle":
        lane = "middle"
    first, second = _parts(stream, deed, side, lane)
    is_behind = deed in ("pass", "carry")  # the actor is drawn first
    made = (_group(stream, actor, first), _group(stream, partner, second))
    groups = made if is_behind else (made[1], made[0])
    place = 0 if is_behind else 1
    extra: dict[Deed, tuple[Lane, ...]] = {"jump": ("middle",), "carry": ("middle",), "circle": ("top",)}
    return Acted(
        groups=groups,
        interaction=Interaction(deed=deed, actor=place, partner=1 - place),
        lanes=(lane, *extra.get(deed, ())),
    )


def _parts(stream: random.Random, deed: Deed, side: Side, lane: Lane) -> tuple[_Part, _Part]:
    y = {"top": 0.19, "middle": 0.5, "bottom": 0.79}[lane] + stream.uniform(-0.02, 0.02)
    is_large, is_partner_large = stream.random() < 0.5, stream.random() < 0.5
    center = 0.5 + stream.uniform(-0.03, 0.03)
    other: Side = "left" if side == "right" else "right"

    def mover(start: float, end: float, way: Side, *, large: bool, height: float = y, leap: float = 0.0) -> _Part:
        x0, x1 = (start, end) if side == "right" else (1.0 - start, 1.0 - end)
        return _Part(
            is_large=large, motion=way, lane=lane, column=None, start=(x0, height), end=(x1, height), leap=leap
        )

    def stander(*, large: bool, height: float = y) -> _Part:
        spot = (center, height)
        return _Part(is_large=large, motion="stay", lane=lane, column="center", start=spot, end=spot)

    if deed == "follow":
        gap = 0.36
        return mover(0.1, 0.9 - gap, side, large=is_large), mover(0.1 + gap, 0.9, side, large=is_partner_large)
    if deed == "meet":
        return mover(0.03, 0.36, side, large=is_large), mover(0.97, 0.64, other, large=is_partner_large)
    if deed == "pass":
        return mover(0.08, 0.92, side, large=is_large), stander(large=is_partner_large)
    if deed == "jump":
        return mover(0.1, 0.9, side, large=is_large, leap=0.42), stander(large=False)
    if deed == "carry":
        carrier, height = mover(0.14, 0.86, side, large=True), y - 0.26
        return carrier, mover(0.14, 0.86, side, large=False, height=height)
    return (
        _Part(
            is_large=False,
            motion="circle",
            lane=lane,
            column="center",
            start=(center, 0.4),
            end=(center, 0.4),
            orbit=(0.3 if side == "right" else -0.3, 0.26),
        ),
        stander(large=is_partner_large, height=0.4),
    )


def _group(stream: random.Random, role: Role, part: _Part) -> Group:
    kind, color = role
    size = stream.uniform(0.31, 0.35) if part.is_large else stream.uniform(0.2, 0.23)
    is_mirrored = part.motion == "right" or (part.motion != "left" and stream.random() < 0.5)
    track = Track(size=size, start=part.start, end=part.end, is_mirrored=is_mirrored, leap=part.leap, orbit=part.orbit)
    return Group(
        kind=kind,
        color=color,
        is_large=part.is_large,
        motion=part.motion,
        lane=part.lane,
        column=part.column,
        begins=0.0,
        ends=1.0,
        tracks=(track,),
    )
