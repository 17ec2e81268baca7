"""What exists in the town: places, the objects that live in them, how each kind moves and which colours it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Habit = Literal["walk", "drive", "fly", "swim", "float", "stand", "drop"]
Motion = Literal["stay", "right", "left", "rise", "fall", "circle"]
Color = Literal["red", "yellow", "green", "blue", "purple", "white"]

MOTION_WEIGHTS: dict[Habit, dict[Motion, float]] = {
    "walk": {"stay": 0.34, "right": 0.33, "left": 0.33},
    "drive": {"stay": 0.2, "right": 0.4, "left": 0.4},
    "fly": {"stay": 0.2, "right": 0.4, "left": 0.4},
    "swim": {"stay": 0.2, "right": 0.4, "left": 0.4},
    "float": {"stay": 0.2, "rise": 0.4, "fall": 0.4},
    "stand": {"stay": 1.0},
    "drop": {"stay": 0.8, "fall": 0.2},
}
COLORS: tuple[Color, ...] = ("red", "yellow", "green", "blue", "purple", "white")
TIMES_OF_DAY: tuple[str, ...] = ("day", "sunset", "night")
WEATHERS: tuple[str, ...] = ("clear", "rain", "snow")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of object; the first word of `name` is unique in the catalog."""

    name: str
    plural: str
    glyph: str
    habit: Habit
    gait: str  # the verb that suits it best when it moves, or when it stays if it never moves
    is_colored: bool  # it comes in every colour; else it has one of its own, of which nobody speaks


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place, with the phrases that name it. Neighbours in `kinds` are often seen together."""

    name: str
    phrases: tuple[str, ...]
    has_sky: bool
    kinds: tuple[str, ...]


def _kind(name: str, glyph: str, habit: Habit, gait: str, plural: str = "", *, colored: bool = False) -> Kind:
    return Kind(name=name, plural=plural or f"{name}s", glyph=glyph, habit=habit, gait=gait, is_colored=colored)


_PLACES: tuple[tuple[str, tuple[str, ...], bool, tuple[Kind, ...]], ...] = (
    (
        "beach",
        ("on a beach", "on a sandy beach", "at the seaside", "on a sunny shore"),
        True,
        (
            _kind("crab", "🦀", "walk", "scuttle"),
            _kind("shell", "🐚", "stand", "lie"),
            _kind("bucket", "🪣", "stand", "stand", colored=True),
            _kind("volleyball", "🏐", "drop", "bounce", colored=True),
            _kind("parasol", "⛱️", "stand", "stand", colored=True),
            _kind("palm tree", "🌴", "stand", "tower"),
            _kind("coconut", "🥥", "drop", "plop"),
            _kind("flamingo", "🦩", "walk", "stalk"),
            _kind("surfer", "🏄", "drive", "surf"),
            _kind("sailboat", "⛵", "drive", "sail", colored=True),
            _kind("kite", "🪁", "float", "soar", colored=True),
        ),
    ),
    (
        "forest",
        ("in a forest", "in a green forest", "in the woods", "among tall trees"),
        True,
        (
            _kind("deer", "🦌", "walk", "trot", "deer"),
            _kind("squirrel", "🐿️", "walk", "scamper"),
            _kind("pine tree", "🌲", "stand", "tower"),
            _kind("owl", "🦉", "fly", "swoop"),
            _kind("leaf", "🍁", "float", "flutter", "leaves", colored=True),
            _kind("mushroom", "🍄", "stand", "sprout", colored=True),
            _kind("hedgehog", "🦔", "walk", "shuffle"),
            _kind("badger", "🦡", "walk", "prowl"),
            _kind("beaver", "🦫", "walk", "waddle"),
            _kind("tent", "⛺", "stand", "stand", colored=True),
            _kind("butterfly", "🦋", "fly", "flutter", "butterflies", colored=True),
        ),
    ),
    (
        "street",
        ("on a street", "on a city street", "in a town street", "in the middle of town"),
        True,
        (
            _kind("car", "🚗", "drive", "cruise", colored=True),
            _kind("bus", "🚌", "drive", "rumble", "buses", colored=True),
            _kind("taxi", "🚕", "drive", "speed"),
            _kind("ambulance", "🚑", "drive", "race"),
            _kind("truck", "🚚", "drive", "rumble", colored=True),
            _kind("traffic light", "🚦", "stand", "stand"),
            _kind("scooter", "🛵", "drive", "zip", colored=True),
            _kind("bicycle", "🚲", "drive", "pedal", colored=True),
            _kind("dog", "🐕", "walk", "run"),
            _kind("cat", "🐈", "walk", "sneak"),
            _kind("helicopter", "🚁", "fly", "whirr", colored=True),
            _kind("balloon", "🎈", "float", "soar", colored=True),
        ),
    ),
    (
        "farm",
        ("on a farm", "on a quiet farm", "in a farm field", "beside an old barn"),
        True,
        (
            _kind("cow", "🐄", "walk", "plod"),
            _kind("pig", "🐖", "walk", "trot"),
            _kind("sheep", "🐑", "walk", "graze", "sheep"),
            _kind("goat", "🐐", "walk", "skip"),
            _kind("horse", "🐎", "walk", "gallop"),
            _kind("tractor", "🚜", "drive", "chug", colored=True),
            _kind("rooster", "🐓", "walk", "strut"),
            _kind("turkey", "🦃", "walk", "strut"),
            _kind("duck", "🦆", "walk", "waddle"),
            _kind("sunflower", "🌻", "stand", "bloom"),
            _kind("bee", "🐝", "fly", "buzz"),
        ),
    ),
    (
        "kitchen",
        ("in a kitchen", "in a tidy kitchen", "in a tiled kitchen", "above a kitchen counter"),
        False,
        (
            _kind("apple", "🍎", "drop", "tumble", colored=True),
            _kind("banana", "🍌", "drop", "tumble"),
            _kind("lemon", "🍋", "drop", "plop"),
            _kind("pineapple", "🍍", "stand", "stand"),
            _kind("cupcake", "🧁", "stand", "sit", colored=True),
            _kind("cake", "🎂", "stand", "sit", colored=True),
            _kind("teapot", "🫖", "stand", "sit", colored=True),
            _kind("bread loaf", "🍞", "drop", "tumble", "bread loaves"),
            _kind("cheese wedge", "🧀", "drop", "tumble"),
            _kind("mouse", "🐁", "walk", "scurry", "mice"),
            _kind("pizza", "🍕", "drop", "flop"),
            _kind("carrot", "🥕", "drop", "plop"),
        ),
    ),
    (
        "ocean",
        ("in the ocean", "under the sea", "in deep blue water", "far below the waves"),
        False,
        (
            _kind("whale", "🐋", "swim", "cruise"),
            _kind("dolphin", "🐬", "swim", "dart"),
            _kind("seal", "🦭", "swim", "paddle"),
            _kind("shark", "🦈", "swim", "prowl"),
            _kind("fish", "🐠", "swim", "dart", "fish", colored=True),
            _kind("blowfish", "🐡", "swim", "bob", "blowfish"),
            _kind("shrimp", "🦐", "swim", "flit", "shrimp"),
            _kind("octopus", "🐙", "float", "drift", "octopuses", colored=True),
            _kind("squid", "🦑", "float", "drift", "squid"),
            _kind("turtle", "🐢", "swim", "paddle"),
            _kind("lobster", "🦞", "walk", "crawl"),
            _kind("anchor", "⚓", "stand", "lie", colored=True),
        ),
    ),
    (
        "desert",
        ("in a desert", "in a dry desert", "among desert dunes", "on hot sand"),
        True,
        (
            _kind("camel", "🐪", "walk", "plod"),
            _kind("cactus", "🌵", "stand", "tower", "cactuses"),
            _kind("snake", "🐍", "walk", "slither", colored=True),
            _kind("scorpion", "🦂", "walk", "scuttle"),
            _kind("lizard", "🦎", "walk", "crawl", colored=True),
            _kind("bone", "🦴", "stand", "lie"),
            _kind("eagle", "🦅", "fly", "soar"),
            _kind("jeep", "🚙", "drive", "bump", colored=True),
            _kind("kangaroo", "🦘", "walk", "hop"),
            _kind("elephant", "🐘", "walk", "trudge"),
            _kind("giraffe", "🦒", "walk", "stride"),
        ),
    ),
    (
        "space",
        ("in space", "in outer space", "in the black of space", "far above the earth"),
        False,
        (
            _kind("rocket", "🚀", "float", "blast", colored=True),
            _kind("astronaut", "🧑‍🚀", "float", "drift"),
            _kind("satellite", "🛰️", "fly", "orbit"),
            _kind("planet", "🪐", "stand", "hang", colored=True),
            _kind("moon", "🌕", "stand", "shine"),
            _kind("comet", "☄️", "float", "streak"),
            _kind("star", "⭐", "stand", "shine", colored=True),
            _kind("alien", "👽", "float", "hover", colored=True),
            _kind("saucer", "🛸", "fly", "whirr", colored=True),
            _kind("robot", "🤖", "float", "drift", colored=True),
            _kind("telescope", "🔭", "stand", "hang"),
        ),
    ),
    (
        "garden",
        ("in a garden", "in a flower garden", "on a garden lawn", "behind a hedge"),
        True,
        (
            _kind("rabbit", "🐇", "walk", "hop"),
            _kind("snail", "🐌", "walk", "creep", colored=True),
            _kind("tulip", "🌷", "stand", "bloom", colored=True),
            _kind("ladybug", "🐞", "fly", "buzz"),
            _kind("rose", "🌹", "stand", "bloom", colored=True),
            _kind("cricket", "🦗", "walk", "leap"),
            _kind("peacock", "🦚", "walk", "strut"),
            _kind("swan", "🦢", "walk", "waddle"),
            _kind("fountain", "⛲", "stand", "splash"),
            _kind("football", "⚽", "drop", "bounce", colored=True),
            _kind("parrot", "🦜", "fly", "flap", colored=True),
            _kind("dove", "🕊️", "fly", "flap"),
        ),
    ),
    (
        "mountain",
        ("in the mountains", "on a mountain slope", "high in the hills", "below a snowy peak"),
        True,
        (
            _kind("skier", "⛷️", "drive", "ski"),
            _kind("snowboarder", "🏂", "drive", "slide"),
            _kind("sled", "🛷", "drive", "slide", colored=True),
            _kind("snowman", "⛄", "stand", "stand", "snowmen"),
            _kind("penguin", "🐧", "walk", "waddle"),
            _kind("llama", "🦙", "walk", "amble"),
            _kind("ram", "🐏", "walk", "climb"),
            _kind("bison", "🦬", "walk", "trudge", "bison"),
            _kind("hut", "🛖", "stand", "stand", colored=True),
            _kind("flag", "🚩", "stand", "flutter", colored=True),
            _kind("gondola", "🚠", "fly", "sway", colored=True),
            _kind("parachute", "🪂", "float", "sway", colored=True),
        ),
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for *_, kinds in _PLACES for kind in kinds}
PLACES: dict[str, Place] = {
    name: Place(name=name, phrases=phrases, has_sky=has_sky, kinds=tuple(kind.name for kind in kinds))
    for name, phrases, has_sky, kinds in _PLACES
}
KIND_NAMES: tuple[str, ...] = tuple(KINDS)
PLACE_NAMES: tuple[str, ...] = tuple(PLACES)
HOME: dict[str, str] = {kind: place.name for place in PLACES.values() for kind in place.kinds}
