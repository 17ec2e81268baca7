"""What exists in the world: places, the objects that live in them, and how each kind may move."""

from dataclasses import dataclass
from typing import Literal

Habit = Literal["walk", "drive", "fly", "swim", "float", "stand", "drop"]
Motion = Literal["stay", "right", "left", "rise", "fall"]

MOTION_WEIGHTS: dict[Habit, dict[Motion, float]] = {
    "walk": {"stay": 0.34, "right": 0.33, "left": 0.33},
    "drive": {"stay": 0.2, "right": 0.4, "left": 0.4},
    "fly": {"stay": 0.2, "right": 0.4, "left": 0.4},
    "swim": {"stay": 0.2, "right": 0.4, "left": 0.4},
    "float": {"stay": 0.2, "rise": 0.4, "fall": 0.4},
    "stand": {"stay": 1.0},
    "drop": {"stay": 0.8, "fall": 0.2},
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of object; the first word of `name` is unique in the catalog."""

    name: str
    plural: str
    glyph: str
    habit: Habit


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place, with the phrases that name it."""

    name: str
    phrases: tuple[str, ...]
    has_sky: bool
    kinds: tuple[str, ...]


def _kind(name: str, glyph: str, habit: Habit, plural: str = "") -> Kind:
    return Kind(name=name, plural=plural or f"{name}s", glyph=glyph, habit=habit)


_PLACES: tuple[tuple[str, tuple[str, ...], bool, tuple[Kind, ...]], ...] = (
    (
        "beach",
        ("on a beach", "on a sandy beach", "at the beach"),
        True,
        (
            _kind("crab", "🦀", "walk"),
            _kind("palm tree", "🌴", "stand"),
            _kind("parasol", "⛱️", "stand"),
            _kind("sailboat", "⛵", "drive"),
            _kind("shell", "🐚", "stand"),
            _kind("volleyball", "🏐", "drop"),
            _kind("kite", "🪁", "float"),
            _kind("coconut", "🥥", "drop"),
            _kind("flamingo", "🦩", "walk"),
        ),
    ),
    (
        "forest",
        ("in a forest", "in a green forest", "in the woods"),
        True,
        (
            _kind("deer", "🦌", "walk", "deer"),
            _kind("squirrel", "🐿️", "walk"),
            _kind("pine tree", "🌲", "stand"),
            _kind("mushroom", "🍄", "stand"),
            _kind("owl", "🦉", "fly"),
            _kind("hedgehog", "🦔", "walk"),
            _kind("butterfly", "🦋", "fly", "butterflies"),
            _kind("tent", "⛺", "stand"),
            _kind("leaf", "🍁", "float", "leaves"),
        ),
    ),
    (
        "street",
        ("on a street", "on a city street", "in a town street"),
        True,
        (
            _kind("car", "🚗", "drive"),
            _kind("bus", "🚌", "drive", "buses"),
            _kind("bicycle", "🚲", "drive"),
            _kind("truck", "🚚", "drive"),
            _kind("dog", "🐕", "walk"),
            _kind("cat", "🐈", "walk"),
            _kind("traffic light", "🚦", "stand"),
            _kind("helicopter", "🚁", "fly"),
            _kind("balloon", "🎈", "float"),
        ),
    ),
    (
        "farm",
        ("on a farm", "on a quiet farm", "in a farm field"),
        True,
        (
            _kind("cow", "🐄", "walk"),
            _kind("pig", "🐖", "walk"),
            _kind("sheep", "🐑", "walk", "sheep"),
            _kind("horse", "🐎", "walk"),
            _kind("rooster", "🐓", "walk"),
            _kind("tractor", "🚜", "drive"),
            _kind("duck", "🦆", "walk"),
            _kind("sunflower", "🌻", "stand"),
            _kind("bee", "🐝", "fly"),
        ),
    ),
    (
        "kitchen",
        ("in a kitchen", "in a tidy kitchen", "in a tiled kitchen"),
        False,
        (
            _kind("apple", "🍎", "drop"),
            _kind("banana", "🍌", "drop"),
            _kind("cake", "🎂", "stand"),
            _kind("teapot", "🫖", "stand"),
            _kind("pizza", "🍕", "drop"),
            _kind("bread loaf", "🍞", "drop", "bread loaves"),
            _kind("cheese wedge", "🧀", "drop"),
            _kind("mouse", "🐁", "walk", "mice"),
            _kind("carrot", "🥕", "drop"),
        ),
    ),
    (
        "ocean",
        ("in the ocean", "under the sea", "in deep blue water"),
        False,
        (
            _kind("whale", "🐋", "swim"),
            _kind("dolphin", "🐬", "swim"),
            _kind("shark", "🦈", "swim"),
            _kind("octopus", "🐙", "float", "octopuses"),
            _kind("fish", "🐠", "swim", "fish"),
            _kind("squid", "🦑", "float", "squid"),
            _kind("turtle", "🐢", "swim"),
            _kind("lobster", "🦞", "walk"),
            _kind("anchor", "⚓", "stand"),
        ),
    ),
    (
        "desert",
        ("in a desert", "in a dry desert", "among desert dunes"),
        True,
        (
            _kind("camel", "🐪", "walk"),
            _kind("cactus", "🌵", "stand", "cactuses"),
            _kind("snake", "🐍", "walk"),
            _kind("scorpion", "🦂", "walk"),
            _kind("lizard", "🦎", "walk"),
            _kind("eagle", "🦅", "fly"),
            _kind("elephant", "🐘", "walk"),
            _kind("giraffe", "🦒", "walk"),
            _kind("bone", "🦴", "stand"),
        ),
    ),
    (
        "space",
        ("in space", "in outer space", "among the stars"),
        False,
        (
            _kind("rocket", "🚀", "float"),
            _kind("planet", "🪐", "stand"),
            _kind("astronaut", "🧑‍🚀", "float"),
            _kind("satellite", "🛰️", "fly"),
            _kind("alien", "👽", "float"),
            _kind("saucer", "🛸", "fly"),
            _kind("moon", "🌕", "stand"),
            _kind("robot", "🤖", "float"),
            _kind("telescope", "🔭", "stand"),
        ),
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for *_, kinds in _PLACES for kind in kinds}
PLACES: dict[str, Place] = {
    name: Place(
        name=name,
        phrases=phrases,
        has_sky=has_sky,
        kinds=tuple(kind.name for kind in kinds),
    )
    for name, phrases, has_sky, kinds in _PLACES
}
KIND_NAMES: tuple[str, ...] = tuple(KINDS)
PLACE_NAMES: tuple[str, ...] = tuple(PLACES)
TIMES_OF_DAY: tuple[str, ...] = ("day", "sunset", "night")
WEATHERS: tuple[str, ...] = ("clear", "rain", "snow")
