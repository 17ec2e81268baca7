"""The words of the world's language: synonyms and inflections, chosen by a seeded stream."""

import random

from flashsd_ray.training.world.catalog import KINDS, PLACES, Habit, Motion
from flashsd_ray.training.world.scene import Column, Group, Lane, Scene

NUMBERS = {1: "one", 2: "two", 3: "three"}
LARGE = ("large", "big", "huge")
SMALL = ("small", "little", "tiny")

# base form, third person; the direction follows
VERBS: dict[tuple[Habit, Motion], tuple[tuple[str, str], ...]] = {
    ("walk", "right"): (("walk", "walks"), ("wander", "wanders"), ("move", "moves")),
    ("walk", "left"): (("walk", "walks"), ("wander", "wanders"), ("move", "moves")),
    ("walk", "stay"): (("stand still", "stands still"), ("wait", "waits"), ("rest", "rests")),
    ("drive", "right"): (("roll", "rolls"), ("travel", "travels"), ("move", "moves")),
    ("drive", "left"): (("roll", "rolls"), ("travel", "travels"), ("move", "moves")),
    ("drive", "stay"): (("stay put", "stays put"), ("wait", "waits"), ("stand still", "stands still")),
    ("fly", "right"): (("fly", "flies"), ("glide", "glides"), ("move", "moves")),
    ("fly", "left"): (("fly", "flies"), ("glide", "glides"), ("move", "moves")),
    ("fly", "stay"): (("hover", "hovers"), ("stay in place", "stays in place")),
    ("swim", "right"): (("swim", "swims"), ("glide", "glides"), ("move", "moves")),
    ("swim", "left"): (("swim", "swims"), ("glide", "glides"), ("move", "moves")),
    ("swim", "stay"): (("rest", "rests"), ("stay in place", "stays in place")),
    ("float", "rise"): (("rise", "rises"), ("climb", "climbs"), ("float up", "floats up")),
    ("float", "fall"): (("sink", "sinks"), ("drift down", "drifts down"), ("come down", "comes down")),
    ("float", "stay"): (("hover", "hovers"), ("stay in place", "stays in place")),
    ("stand", "stay"): (("stand", "stands"), ("stay still", "stays still")),
    ("drop", "stay"): (("lie", "lies"), ("rest", "rests"), ("stay still", "stays still")),
    ("drop", "fall"): (("fall", "falls"), ("drop", "drops"), ("tumble down", "tumbles down")),
}
DIRECTIONS: dict[Motion, tuple[str, ...]] = {
    "right": ("to the right", "from left to right", "toward the right"),
    "left": ("to the left", "from right to left", "toward the left"),
}
LANES: dict[Lane, tuple[str, ...]] = {
    "top": ("at the top", "near the top", "in the upper part"),
    "middle": ("at mid height", "halfway up", "in the middle band"),
    "bottom": ("at the bottom", "near the bottom", "in the lower part"),
}
COLUMNS: dict[Column, tuple[str, ...]] = {
    "left": ("on the left", "on the left side", "at the left"),
    "center": ("in the center", "near the center"),
    "right": ("on the right", "on the right side", "at the right"),
}
WEATHER: dict[str, tuple[str, ...]] = {
    "clear": ("the weather is clear", "the sky is clear", "no rain or snow falls"),
    "rain": ("rain is falling", "it is raining", "rain pours down"),
    "snow": ("snow is falling", "it is snowing", "snowflakes drift down"),
}
TIMES: dict[str, tuple[str, ...]] = {
    "day": ("by day", "in daylight", "during the day"),
    "sunset": ("at sunset", "in the evening light", "at dusk"),
    "night": ("at night", "in the dark", "during the night"),
}


def plural_or_single(kind: str, count: int) -> str:
    """The name of the kind for this many."""
    return KINDS[kind].name if count == 1 else KINDS[kind].plural


def with_article(words: str) -> str:
    """The words after `a` or `an`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def sized_noun(stream: random.Random, group: Group, *, has_size: bool = True) -> str:
    """The group without its number: `large dog`, `tiny sheep`."""
    noun = plural_or_single(group.kind, group.count)
    if not has_size:
        return noun
    return f"{stream.choice(LARGE if group.is_large else SMALL)} {noun}"


def noun_phrase(stream: random.Random, group: Group, *, has_size: bool = True) -> str:
    """The group as a noun phrase: `a large dog`, `three tiny sheep`."""
    words = sized_noun(stream, group, has_size=has_size)
    return with_article(words) if group.count == 1 else f"{NUMBERS[group.count]} {words}"


def verb_phrase(stream: random.Random, group: Group) -> str:
    """What the group does, in the present: `walks to the right`."""
    base, third = stream.choice(VERBS[KINDS[group.kind].habit, group.motion])
    verb = third if group.count == 1 else base
    directions = DIRECTIONS.get(group.motion)
    return f"{verb} {stream.choice(directions)}" if directions else verb


def position_phrase(stream: random.Random, group: Group) -> str:
    """Where the group is; movers have only a height or only a side."""
    if group.lane is None:
        return stream.choice(COLUMNS[group.column or "center"])
    if group.column is None:
        return stream.choice(LANES[group.lane])
    if stream.random() < 0.25:
        return stream.choice(LANES[group.lane])
    side = {"left": "left", "center": "center", "right": "right"}[group.column]
    short = f"at the {group.lane} {side}"
    full = f"{stream.choice(LANES[group.lane])} {stream.choice(COLUMNS[group.column])}"
    return short if stream.random() < 0.5 else full


def setting_phrase(stream: random.Random, scene: Scene, *, has_time: bool = True) -> str:
    """Where the scene is and, under a sky, when: `on a beach at night`."""
    place = stream.choice(PLACES[scene.place].phrases)
    if not (has_time and PLACES[scene.place].has_sky):
        return place
    return f"{place} {stream.choice(TIMES[scene.time_of_day])}"


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."
