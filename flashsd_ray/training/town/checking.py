"""Answers held against what is true, each by what its style promises.

Nothing is right by saying nothing: what a caption leaves out is wrong, and a question to which the answer is no has to
be answered so. Nor by saying everything: of an object that is told of in two ways, neither counts. Where something
happens in some clips only, clips with it and clips without it are counted apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flashsd_ray.training.town.catalog import PLACES
from flashsd_ray.training.town.language import Exchange, Task, json_of
from flashsd_ray.training.town.reading import Told, kinds_in, read
from flashsd_ray.training.town.scene import Group, Scene
from flashsd_ray.training.town.schema import parsed
from flashsd_ray.training.town.words import NO_DEED, NOTHING_ENTERS, NOTHING_HAPPENS, NOTHING_LEAVES

MOST_SHORT_WORDS = 26
FEWEST_DETAIL_WORDS = 14


@dataclass(kw_only=True)
class Tally:
    """Counts behind the figures."""

    found: int = 0  # objects named that are there
    said: int = 0
    present: int = 0
    right: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    def note(self, name: str, *, is_right: bool) -> None:
        """One more answer of this name is counted."""
        self.right[name] = self.right.get(name, 0) + int(is_right)
        self.asked[name] = self.asked.get(name, 0) + 1

    def note_event(self, name: str, said: object, true: object) -> None:
        """One more answer is counted, among those about a clip that has the event, or about one that has not."""
        self.note(f"no_{name}" if true is None else name, is_right=said == true)

    def figures(self) -> dict[str, float]:
        """Precision, recall and F1 of objects in detailed captions, and the share right of everything else."""
        precision, recall = self.found / max(1, self.said), self.found / max(1, self.present)
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        shares = {name: self.right[name] / count for name, count in sorted(self.asked.items())}
        return {"object_precision": precision, "object_recall": recall, "object_f1": f1, **shares}


def check(tally: Tally, scene: Scene, exchange: Exchange, answer: str) -> None:
    """The answer to this exchange's question is counted in the tally; `exchange.answer` is a true one."""
    if exchange.task == "detail":
        _check_detail(tally, scene, answer)
    elif exchange.task == "json":
        _check_json(tally, scene, answer)
    elif exchange.task == "short":
        _check_short(tally, scene, answer)
    else:
        meaning = _MEANINGS[exchange.task]
        is_right = meaning(answer) == meaning(exchange.answer)
        tally.note("questions", is_right=is_right)
        tally.note(f"question_{exchange.task}", is_right=is_right)


def _check_detail(tally: Tally, scene: Scene, answer: str) -> None:
    reading = read(answer)
    said, true = set(kinds_in(answer)), {group.kind for group in scene.groups}
    tally.found += len(said & true)
    tally.said += len(said)
    tally.present += len(true)
    tally.note("exact_objects", is_right=said == true)
    tally.note("style_detail", is_right=len(answer.split()) >= FEWEST_DETAIL_WORDS and answer.rstrip().endswith("."))
    deed = scene.interaction
    acting = () if deed is None else (scene.groups[deed.actor], scene.groups[deed.partner])
    for group in scene.groups:
        told = reading.objects.get(group.kind, Told())
        _check_object(tally, group, told, is_acting=any(group is one for one in acting))
    tally.note("place", is_right=reading.place == scene.place)
    if PLACES[scene.place].has_sky:
        tally.note("time", is_right=reading.time_of_day == scene.time_of_day)
        tally.note("weather", is_right=reading.weather == scene.weather)
    tally.note_event("enters", reading.entering, scene.entering and scene.entering.kind)
    tally.note_event("leaves", reading.leaving, scene.leaving and scene.leaving.kind)
    tally.note_event("interaction", _unordered(reading.deed), _unordered(deed_of(scene)))
    for relation in reading.relations:
        tally.note("relation", is_right=_is_relation_true(scene, relation))
    if reading.total is not None:
        tally.note("total", is_right=reading.total == sum(group.count for group in scene.groups))


def _check_object(tally: Tally, group: Group, told: Told, *, is_acting: bool) -> None:
    tally.note("count", is_right=told.count == group.count)
    tally.note("size", is_right=told.is_large == group.is_large)
    if group.color:
        tally.note("color", is_right=told.color == group.color)
    tally.note("motion", is_right=told.motion == group.motion)
    tally.note("position", is_right=_is_position_true(group, told, is_acting=is_acting))


def _is_position_true(group: Group, told: Told, *, is_acting: bool) -> bool:
    """Whether height and side are told and right; of two that act together, one of them is enough."""
    sides = [(told.lane, group.lane), (told.column, group.column)]
    if is_acting:
        return any(said for said, _ in sides) and all(said == true for said, true in sides if said)
    return all(said == true for said, true in sides)


def _check_short(tally: Tally, scene: Scene, answer: str) -> None:
    words, kinds = answer.split(), set(kinds_in(answer))
    is_one_sentence = answer.count(".") == 1 and answer.endswith(".")
    tally.note("style_short", is_right=is_one_sentence and len(words) <= MOST_SHORT_WORDS)
    tally.note("short_true", is_right=bool(kinds) and kinds <= {group.kind for group in scene.groups})


def _check_json(tally: Tally, scene: Scene, answer: str) -> None:
    true, said = json_of(scene), parsed(answer)
    tally.note("style_json", is_right=said is not None)
    said = {"objects": []} if said is None else said
    listed = [item["kind"] for item in said["objects"]]
    tally.note("json_objects", is_right=sorted(listed) == sorted(item["kind"] for item in true["objects"]))
    shown = {item["kind"]: item for item in said["objects"] if listed.count(item["kind"]) == 1}
    for item in true["objects"]:
        for key in ("count", "color", "size", "motion", "position"):
            if item[key] is not None:  # a kind of one colour only has none
                tally.note(f"json_{key}", is_right=shown.get(item["kind"], {}).get(key) == item[key])
    keys = ("place", "time", "weather") if PLACES[scene.place].has_sky else ("place",)
    for key in keys:
        tally.note(f"json_{key}", is_right=said.get(key) == true[key])
    for key in ("interaction", "enters", "leaves"):
        tally.note_event(f"json_{key}", said.get(key, ...), true[key])


def deed_of(scene: Scene) -> tuple[str, str, str] | None:
    """Who does what with whom."""
    deed = scene.interaction
    return (scene.groups[deed.actor].kind, deed.deed, scene.groups[deed.partner].kind) if deed else None


def _unordered(deed: tuple[str, str, str] | None) -> tuple[str, ...] | None:
    """Two who meet do the same."""
    return (*sorted((deed[0], deed[2])), deed[1]) if deed and deed[1] == "meet" else deed


def _is_relation_true(scene: Scene, relation: tuple[str, bool, str]) -> bool:
    lanes = ("top", "middle", "bottom")
    heights = {group.kind: lanes.index(group.lane) for group in scene.groups if group.lane}
    first, is_higher, second = relation
    if first not in heights or second not in heights:
        return False
    return heights[first] < heights[second] if is_higher else heights[first] > heights[second]


def _objects_said(answer: str, *names: str) -> list[tuple[Any, ...]]:
    return [(kind, *(getattr(told, name) for name in names)) for kind, told in read(answer).objects.items()]


def _events(answer: str) -> list[str | None]:
    return [kind for told in answer.split(": ")[1:] for kind in (read(told).entering, read(told).leaving) if kind]


# What two answers to the same question must have in common. An answer that says nothing differs from one that says no.
_MEANINGS: dict[Task, Callable[[str], object]] = {
    "count": lambda answer: _objects_said(answer, "count"),
    "enter": lambda answer: (answer in NOTHING_ENTERS, read(answer).entering, _objects_said(answer, "count", "color")),
    "leave": lambda answer: (answer in NOTHING_LEAVES, read(answer).leaving, _objects_said(answer, "count", "color")),
    "first": lambda answer: (answer in NOTHING_HAPPENS, _events(answer)),
    "color": lambda answer: _objects_said(answer, "count", "color"),
    "where": lambda answer: _objects_said(answer, "lane", "column"),
    "motion": lambda answer: _objects_said(answer, "motion"),
    "deed": lambda answer: (answer in NO_DEED, _unordered(read(answer).deed)),
    "place": lambda answer: (read(answer).place, read(answer).time_of_day, read(answer).weather),
}
