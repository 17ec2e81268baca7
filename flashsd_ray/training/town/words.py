"""The town's vocabulary: synonyms of everything that can be said, and English inflection.

The checker reads the same tables backwards, so a phrase means one thing only.
"""

from __future__ import annotations

import re

from flashsd_ray.training.town.catalog import Habit, Motion
from flashsd_ray.training.town.scene import Column, Deed, Lane

NUMBERS: tuple[str, ...] = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
)
SIZES: dict[bool, tuple[str, ...]] = {
    True: ("large", "big", "huge", "sizeable"),
    False: ("small", "little", "tiny", "petite"),
}
DIRECTIONS: dict[Motion, tuple[str, ...]] = {
    "right": ("to the right", "from left to right", "toward the right", "rightward"),
    "left": ("to the left", "from right to left", "toward the left", "leftward"),
}
SOURCES: dict[Motion, str] = {"right": "from the left", "left": "from the right"}
UPWARD = ("upward", "toward the top edge", "up and up")
DOWNWARD = ("downward", "toward the bottom edge", "down and down")
LANES: dict[Lane, tuple[str, ...]] = {
    "top": ("at the top", "near the top", "in the upper part", "high up"),
    "middle": ("at mid height", "halfway up", "in the middle band", "at half height"),
    "bottom": ("at the bottom", "near the bottom", "in the lower part", "down low"),
}
COLUMNS: dict[Column, tuple[str, ...]] = {
    "left": ("on the left", "on the left side", "at the left", "over on the left"),
    "center": ("in the center", "near the center", "close to the center"),
    "right": ("on the right", "on the right side", "at the right", "over on the right"),
}
GENERIC: dict[tuple[Habit, Motion], tuple[str, ...]] = {
    ("walk", "right"): ("walk", "wander", "move"),
    ("drive", "right"): ("roll", "travel", "move"),
    ("fly", "right"): ("fly", "glide", "move"),
    ("swim", "right"): ("swim", "glide", "move"),
    ("walk", "stay"): ("stand still", "wait", "rest", "linger"),
    ("drive", "stay"): ("stand still", "wait", "stay parked"),
    ("fly", "stay"): ("hover", "stay in place", "hang still"),
    ("swim", "stay"): ("rest", "stay in place", "idle"),
    ("float", "stay"): ("hover", "stay in place", "hang still"),
    ("stand", "stay"): ("stay still", "stay put", "remain in place"),
    ("drop", "stay"): ("lie still", "rest", "stay put"),
    ("float", "rise"): ("rise", "climb", "ascend"),
    ("float", "fall"): ("sink", "descend", "float"),
    ("drop", "fall"): ("fall", "drop", "plunge"),
}
CARRIED = ("ride along", "travel along", "move along")  # what things do that cannot move by themselves
MANNERS: dict[bool, tuple[str, ...]] = {
    True: ("slowly", "heavily", "calmly", "solemnly", "steadily", "majestically"),
    False: ("quickly", "nimbly", "briskly", "merrily", "quietly", "jauntily"),
}
WEATHER: dict[str, tuple[str, ...]] = {
    "clear": ("the weather is clear", "the sky is clear", "no rain or snow falls", "the air is dry"),
    "rain": ("rain is falling", "it is raining", "rain pours down", "a shower drenches everything"),
    "snow": ("snow is falling", "it is snowing", "snowflakes drift down", "a flurry of snow fills the air"),
}
TIMES: dict[str, tuple[str, ...]] = {
    "day": ("by day", "in daylight", "during the day", "in broad daylight"),
    "sunset": ("at sunset", "in the evening light", "at dusk", "in the glow of sundown"),
    "night": ("at night", "in the dark", "during the night", "under a night sky"),
}
RELATIONS: dict[bool, tuple[str, ...]] = {  # True: the first is nearer to the top
    True: ("above", "higher than", "farther up than"),
    False: ("below", "lower than", "farther down than"),
}
ENTER_VERBS = ("appear", "enter", "come into view", "arrive")
LEAVE_VERBS = ("depart", "disappear", "vanish", "drop out of view")  # never "leaves", which are objects
HALFWAY = ("halfway through", "midway through the clip", "after a while", "in mid-clip")
EXITS: dict[bool, tuple[str, ...]] = {
    True: ("early on", "soon", "after a moment"),
    False: ("near the end", "shortly before the end", "toward the end"),
}

# {A} does it, {B} has it done to it; {way} is a direction, {from} where {A} comes from
DEED_FORMS: dict[Deed, tuple[str, ...]] = {
    "follow": (
        "{A} follows {B} {way}",
        "{A} chases {B} {way}",
        "{A} trails {B} {way}",
        "{B} is followed {way} by {A}",
    ),
    "meet": (
        "{A} coming {from} meets {B}",
        "{A}, coming {from}, runs into {B}",
        "{A} arrives {from} and greets {B}",
    ),
    "pass": (
        "{A} passes behind {B} {way}",
        "{A} slips behind {B} {way}",
        "{B} is passed by {A}, which goes {way} behind it",
        "{A} crosses {way} behind {B}",
    ),
    "jump": (
        "{A} jumps over {B} {way}",
        "{A} leaps over {B} {way}",
        "{A} vaults over {B} {way}",
        "{B} is cleared by {A} in one leap {way}",
    ),
    "carry": (
        "{A} carries {B} {way}",
        "{A} brings {B} along {way}",
        "{B} rides on top of {A} {way}",
        "{A} travels {way} with {B} on its back",
    ),
    "circle": (
        "{A} circles {B}",
        "{A} flies a loop around {B}",
        "{B} is circled by {A}",
        "{A} whirls around {B}",
    ),
}
DEED_QUESTIONS: tuple[str, ...] = (
    "Which objects interact, and how?",
    "Do any objects interact?",
    "Who does what with whom?",
    "Is there any interaction between the objects?",
)
NOTHING_ENTERS = ("Nothing new appears.", "Nothing enters the scene.")
NOTHING_LEAVES = ("Nothing departs.", "Everything stays in view.")
NOTHING_HAPPENS = ("Nothing comes or goes.", "There are no changes.")
NO_DEED = ("No, each is on its own.", "They do nothing together.")


def corner(lane: Lane, column: Column) -> str:
    """A place in the picture in few words: `at the bottom left`."""
    is_center = (lane, column) == ("middle", "center")
    return "in the middle of the picture" if is_center else f"at the {lane} {column}"


def third_person(verb: str) -> str:
    """The verb after `it`: `stands still`, `flies`."""
    head, _, tail = verb.partition(" ")
    if re.search(r"(s|sh|ch|x|z|o)$", head):
        head += "es"
    elif re.search(r"[^aeiou]y$", head):
        head = head[:-1] + "ies"
    else:
        head += "s"
    return f"{head} {tail}".strip()


def gerund(verb: str) -> str:
    """The verb after `is`: `standing still`, `flying`."""
    head, _, tail = verb.partition(" ")
    if head.endswith("ie"):
        head = head[:-2] + "y"
    elif re.search(r"[^e]e$", head):
        head = head[:-1]
    elif re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", head):
        head += head[-1]
    return f"{head}ing {tail}".strip()


def with_article(words: str) -> str:
    """The words after `a` or `an`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def join(names: list[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
