"""What a text says about a clip: the language read backwards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from flashsd_ray.training.town.catalog import COLORS, KINDS, PLACES, Motion
from flashsd_ray.training.town.scene import Column, Deed, Lane
from flashsd_ray.training.town.words import (
    COLUMNS,
    DIRECTIONS,
    DOWNWARD,
    ENTER_VERBS,
    EXITS,
    GENERIC,
    HALFWAY,
    LANES,
    LEAVE_VERBS,
    NUMBERS,
    RELATIONS,
    SIZES,
    SOURCES,
    TIMES,
    UPWARD,
    WEATHER,
    corner,
    gerund,
    third_person,
)

_DEEDS: tuple[tuple[str, Deed, bool], ...] = (  # words, deed, whether the actor comes first
    (r"\bfollowed\b", "follow", False),
    (r"\bfollows|chases|trails\b", "follow", True),
    (r"\bmeets|runs into|greets\b", "meet", True),
    (r"\bpassed by\b", "pass", False),
    (r"\b(passes|slips) behind\b|\bcrosses .* behind\b", "pass", True),
    (r"\bcleared by\b", "jump", False),
    (r"\b(jumps|leaps|vaults) over\b", "jump", True),
    (r"\brides on top of\b", "carry", False),
    (r"\bcarries|brings|on its back\b", "carry", True),
    (r"\bcircled by\b", "circle", False),
    (r"\bcircles\b|\ba loop around\b|\bwhirls around\b", "circle", True),
)
Key = TypeVar("Key")
_OPPOSITE: dict[Motion, Motion] = {"right": "left", "left": "right"}


@dataclass(kw_only=True)
class Told:
    """What is said of one kind; None: nothing, or one thing here and another there."""

    count: int | None = None
    is_large: bool | None = None
    color: str | None = None
    motion: Motion | None = None
    lane: Lane | None = None
    column: Column | None = None
    contradicted: set[str] = field(default_factory=set)  # of the above

    def add(self, **said: object) -> None:
        """More is said of it; None: nothing."""
        for name, value in said.items():
            known = getattr(self, name)
            if value is None or value == known or name in self.contradicted:
                continue
            if known is not None:
                self.contradicted.add(name)
            setattr(self, name, None if known is not None else value)


@dataclass(kw_only=True)
class Reading:
    """What is said of a clip."""

    objects: dict[str, Told] = field(default_factory=dict)  # by kind, in order of mention
    deed: tuple[str, Deed, str] | None = None  # actor, what it does, partner
    entering: str | None = None
    leaving: str | None = None
    relations: list[tuple[str, bool, str]] = field(default_factory=list)  # first, whether it is higher, second
    total: int | None = None
    place: str | None = None
    time_of_day: str | None = None
    weather: str | None = None


def read(text: str) -> Reading:
    """What the text says."""
    lowered = text.lower()
    reading = Reading(
        place=_first_in(lowered, {name: place.phrases for name, place in PLACES.items()}),
        time_of_day=_first_in(lowered, TIMES),
        weather=_first_in(lowered, WEATHER),
    )
    for said in re.split(r"(?<=[.!?])\s+", lowered):
        _read_sentence(reading, said)
    return reading


def kinds_in(text: str) -> list[str]:
    """The kinds that the text names, in order, each time that it does."""
    return [_kinds_by_name()[found] for found in re.findall(_names(), text.lower())]


def _read_sentence(reading: Reading, said: str) -> None:
    total = re.search(rf"\b({'|'.join(NUMBERS[1:])}) objects?\b", said)
    if total:
        reading.total = NUMBERS.index(total[1])
    kinds = kinds_in(said)
    if not kinds:
        return
    relation = _first_in(said, {higher: tuple(f"{words} the" for words in told) for higher, told in RELATIONS.items()})
    if relation is not None and len(kinds) == 2:
        reading.relations.append((kinds[0], relation, kinds[1]))
        return
    _read_nouns(reading, said)
    if _says(said, EXITS[True] + EXITS[False]) and _says(said, _forms(LEAVE_VERBS)):
        reading.leaving = kinds[0]
        return
    found = next(((deed, is_first) for words, deed, is_first in _DEEDS if re.search(words, said)), None)
    if found and len(set(kinds)) == 2:
        _read_deed(reading, said, *found, list(dict.fromkeys(kinds)))
        return
    if _says(said, HALFWAY) and _says(said, _forms(ENTER_VERBS)):
        reading.entering = kinds[0]
        _read_clause(reading.objects[kinds[0]], said)
        return
    for clause in re.split(r", while |; |, and |, whereas ", said):
        for kind in kinds_in(clause)[:1]:
            _read_clause(reading.objects[kind], clause)


def _read_nouns(reading: Reading, said: str) -> None:
    sizes = {word: is_large for is_large, words in SIZES.items() for word in words}
    numbers = {"a": 1, "an": 1, **{word: count for count, word in enumerate(NUMBERS)}}
    for number, size, color, name in _nouns(tuple(numbers), tuple(sizes)).findall(said):
        told = reading.objects.setdefault(_kinds_by_name()[name], Told())
        told.add(count=numbers.get(number), is_large=sizes.get(size), color=color or None)
    for name, color in re.findall(rf"{_names()} (?:is|are) ({'|'.join(COLORS)})\b", said):
        reading.objects[_kinds_by_name()[name]].add(color=color)


def _read_deed(reading: Reading, said: str, deed: Deed, is_actor_first: bool, kinds: list[str]) -> None:
    actor, partner = kinds if is_actor_first else kinds[::-1]
    reading.deed = (actor, deed, partner)
    one, other = reading.objects[actor], reading.objects[partner]
    lane, column = _position(said)
    way = _first_in(said, DIRECTIONS)
    if deed == "meet":
        way = next((motion for motion, words in SOURCES.items() if words in said), None)
        motions = (way, _OPPOSITE[way] if way else None)
    elif deed == "circle":
        motions = ("circle", "stay")
    else:
        motions = (way, way if deed in ("follow", "carry") else "stay")
    one.add(motion=motions[0], lane=lane, column=column)
    other.add(motion=motions[1], lane=lane, column=column)


def _read_clause(told: Told, clause: str) -> None:
    way = _first_in(clause, DIRECTIONS)
    if way is None and _says(clause, UPWARD):
        way = "rise"
    if way is None and _says(clause, DOWNWARD):
        way = "fall"
    if way is None and "in a circle" in clause:
        way = "circle"
    lane, column = _position(clause)
    told.add(motion=way or ("stay" if _says(clause, _resting()) else None), lane=lane, column=column)


def _position(said: str) -> tuple[Lane | None, Column | None]:
    for lane in LANES:
        for column in COLUMNS:
            if corner(lane, column) in said:
                return lane, column
    return _first_in(said, LANES), _first_in(said, COLUMNS)


def _first_in(text: str, table: Mapping[Key, tuple[str, ...]]) -> Key | None:
    """The key of the phrase that stands first in the text."""
    found = _either(tuple(phrase for phrases in table.values() for phrase in phrases)).search(text)
    if not found:
        return None
    return next(key for key, phrases in table.items() if found[0] in phrases)


def _says(text: str, phrases: tuple[str, ...]) -> bool:
    return bool(_either(phrases).search(text))


@cache
def _either(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of the phrases as whole words, the longest first."""
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(phrases, key=len, reverse=True)))})\b")


def _forms(verbs: tuple[str, ...]) -> tuple[str, ...]:
    return (*verbs, *(third_person(verb) for verb in verbs))


@cache
def _resting() -> tuple[str, ...]:
    """All forms of the verbs of rest."""
    verbs = {verb for (_, motion), verbs in GENERIC.items() if motion == "stay" for verb in verbs}
    verbs |= {kind.gait for kind in KINDS.values() if kind.habit == "stand"}
    return tuple(form for verb in verbs for form in (verb, third_person(verb), gerund(verb)))


@cache
def _nouns(numbers: tuple[str, ...], sizes: tuple[str, ...]) -> re.Pattern[str]:
    parts = (("the", *numbers), sizes, COLORS)
    words = "".join(rf"(?:\b({'|'.join(part)}) )?" for part in parts)
    return re.compile(words + _names())


@cache
def _kinds_by_name() -> dict[str, str]:
    return {name: kind.name for kind in KINDS.values() for name in (kind.plural, kind.name)}


@cache
def _names() -> str:
    names = sorted(_kinds_by_name(), key=len, reverse=True)
    return rf"\b({'|'.join(map(re.escape, names))})\b"
