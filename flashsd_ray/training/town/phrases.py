"""Parts of sentences about one scene."""

from __future__ import annotations

from flashsd_ray.training.town.catalog import KINDS, MOTION_WEIGHTS, PLACES
from flashsd_ray.training.town.scene import Group, Interaction, Scene
from flashsd_ray.training.town.voice import Voice
from flashsd_ray.training.town.words import (
    CARRIED,
    COLUMNS,
    DEED_FORMS,
    DIRECTIONS,
    DOWNWARD,
    GENERIC,
    LANES,
    MANNERS,
    NUMBERS,
    SIZES,
    SOURCES,
    TIMES,
    UPWARD,
    corner,
    third_person,
    with_article,
)


def name_of(kind: str, count: int) -> str:
    """The name of the kind for this many."""
    return KINDS[kind].name if count == 1 else KINDS[kind].plural


def noun_phrase(voice: Voice, group: Group, *, has_size: bool = True, has_color: bool = True) -> str:
    """The group with its number: `a large red car`, `three tiny sheep`."""
    words = described(voice, group, has_size=has_size, has_color=has_color)
    return with_article(words) if group.count == 1 else f"{NUMBERS[group.count]} {words}"


def described(voice: Voice, group: Group, *, has_size: bool = True, has_color: bool = True) -> str:
    """The group without its number: `large red car`, `tiny sheep`."""
    words = [name_of(group.kind, group.count)]
    if has_color and group.color:
        words.insert(0, group.color)
    if has_size:
        words.insert(0, voice.pick(SIZES[group.is_large], "size", group.kind))
    return " ".join(words)


def base_verb(voice: Voice, group: Group) -> tuple[str, str]:
    """What the group does, in the base form, and which way it goes, if any."""
    kind, motion = KINDS[group.kind], group.motion
    if motion == "circle":
        return "fly in a circle", ""
    if motion in ("right", "left"):
        walks = (kind.gait, kind.gait, *GENERIC.get((kind.habit, "right"), ()))
        options = walks if "right" in MOTION_WEIGHTS[kind.habit] else CARRIED
        return voice.pick(options, "go", kind.name), voice.pick(DIRECTIONS[motion], "way", kind.habit, motion)
    generic = GENERIC[kind.habit, motion]
    if motion == "stay":
        return voice.pick((kind.gait, *generic) if kind.habit == "stand" else generic, "stay", kind.name), ""
    ways = UPWARD if motion == "rise" else DOWNWARD
    way = voice.pick(ways, motion, kind.name)
    return voice.pick((kind.gait, kind.gait, *generic), motion, kind.name), way


def manner(voice: Voice, group: Group) -> str:
    """How it moves, as far as anybody says so: ` slowly`, or nothing."""
    if group.motion == "stay" or not voice.agrees(0.4, "manner", group.kind):
        return ""
    return f" {voice.pick(MANNERS[group.is_large], 'manner', group.kind)}"


def predicate(voice: Voice, group: Group) -> str:
    """What the group does, in the present: `trots slowly to the right`."""
    verb, way = base_verb(voice, group)
    shown = third_person(verb) if group.count == 1 else verb
    return f"{shown}{manner(voice, group)} {way}".strip()


def position(voice: Voice, group: Group) -> str:
    """Where the group is; movers have only a height, what rises or falls only a side."""
    if group.motion == "circle" or group.lane is None:
        return voice.pick(COLUMNS[group.column or "center"], "column", group.kind)
    lane = voice.pick(LANES[group.lane], "lane", group.kind)
    if group.column is None:
        return lane
    column = voice.pick(COLUMNS[group.column], "column", group.kind)
    if voice.agrees(0.5, "corner", group.kind):
        return corner(group.lane, group.column)
    return f"{lane} {column}"


def deed_clause(voice: Voice, scene: Scene, deed: Interaction, actor: str, partner: str) -> str:
    """Who does what with whom, with these words for the two."""
    group = scene.groups[deed.actor]
    form = voice.pick(DEED_FORMS[deed.deed], "deed", group.kind)
    way = voice.pick(DIRECTIONS[group.motion], "deed way", group.kind) if group.motion in DIRECTIONS else ""
    clause = form.replace("{A}", actor).replace("{B}", partner)
    return clause.replace("{way}", way).replace("{from}", SOURCES.get(group.motion, ""))


def setting(voice: Voice, scene: Scene, *, has_time: bool = True) -> str:
    """Where the scene is and, under a sky, when: `on a beach at night`."""
    place = voice.pick(PLACES[scene.place].phrases, "place", scene.time_of_day, scene.weather)
    if not (has_time and PLACES[scene.place].has_sky):
        return place
    return f"{place} {voice.pick(TIMES[scene.time_of_day], 'time', scene.place)}"


def in_reading_order(groups: list[Group]) -> list[Group]:
    """Top to bottom, left to right, then what rises or falls."""
    lanes, columns = ("top", "middle", "bottom", None), ("left", "center", None, "right")
    return sorted(groups, key=lambda group: (lanes.index(group.lane), columns.index(group.column)))
