"""Detailed captions: where and when, who is there and does what, who does it with whom, what comes and goes."""

from __future__ import annotations

from flashsd_ray.training.town.catalog import PLACES
from flashsd_ray.training.town.phrases import (
    base_verb,
    deed_clause,
    in_reading_order,
    manner,
    name_of,
    noun_phrase,
    position,
    predicate,
    setting,
)
from flashsd_ray.training.town.scene import Group, Interaction, Scene
from flashsd_ray.training.town.voice import Voice
from flashsd_ray.training.town.words import (
    ENTER_VERBS,
    EXITS,
    HALFWAY,
    LEAVE_VERBS,
    NUMBERS,
    RELATIONS,
    WEATHER,
    gerund,
    sentence,
    third_person,
)

OPENINGS = (
    "the video takes place",
    "this clip is set",
    "we are",
    "the scene is",
    "everything happens",
    "our story plays",
)
LINKS = (", while ", "; ", ", and ", ", whereas ")


def caption(voice: Voice, scene: Scene) -> str:
    """Everything that is true of the scene, in a few sentences."""
    acting = [scene.groups[index] for index in _acting(scene.interaction)]
    loose = [group for group in scene.groups if not group.enters and not any(group is one for one in acting)]
    blocks = [_scenery(voice, scene, _ordered(voice, scene, loose))] if loose else []
    if scene.interaction:
        blocks.insert(voice.pick((0, len(blocks)), "deed first", scene.place), _deed(voice, scene, scene.interaction))
    text = _opening(voice, scene)
    text += [told for block in blocks for told in block]
    if scene.entering:
        text.append(entrance(voice, scene.entering))
    if scene.leaving:
        told = exit_of(voice, scene.leaving, f"the {name_of(scene.leaving.kind, scene.leaving.count)}")
        is_before = scene.entering is not None and scene.leaving.ends < scene.entering.begins
        text.insert(len(text) - 1 if is_before else len(text), told)
    text += _overview(voice, scene)
    if len(text) < 6 or voice.agrees(0.4, "closing", scene.place, len(scene.groups)):
        text.append(_closing(voice, scene))
    return " ".join(text)


def entrance(voice: Voice, group: Group) -> str:
    """The sentence that says what comes halfway, where, and what it does then."""
    noun, where, told = noun_phrase(voice, group), position(voice, group), predicate(voice, group)
    verb = voice.pick(ENTER_VERBS, "enter", group.kind)
    shown = third_person(verb) if group.count == 1 else verb
    when = voice.pick(HALFWAY, "when", group.kind)
    if voice.agrees(0.6, "enter form", group.kind):
        return sentence(f"{when}, {noun} {shown} {where} and {told}")
    return sentence(f"{noun} {shown} {when} and {told} {where}")


def exit_of(voice: Voice, group: Group, noun: str) -> str:
    """The sentence that says what goes, and when."""
    verb = voice.pick(LEAVE_VERBS, "leave", group.kind)
    shown = third_person(verb) if group.count == 1 else verb
    when = voice.pick(EXITS[group.ends < 0.5], "exit", group.kind)
    return sentence(
        f"{when}, {noun} {shown}" if voice.agrees(0.5, "exit form", group.kind) else f"{noun} {shown} {when}"
    )


def _acting(deed: Interaction | None) -> tuple[int, ...]:
    return (deed.actor, deed.partner) if deed else ()


def _opening(voice: Voice, scene: Scene) -> list[str]:
    lead = voice.pick(OPENINGS, "opening", scene.place)
    where = setting(voice, scene)
    if not PLACES[scene.place].has_sky:
        return [sentence(f"{lead} {where}")]
    weather = voice.pick(WEATHER[scene.weather], "weather", scene.place, scene.time_of_day)
    form = voice.pick((0, 1, 2), "opening form", scene.place, scene.weather)
    if form == 0:
        return [sentence(f"{lead} {where}"), sentence(weather)]
    if form == 1:
        return [sentence(f"{lead} {where}, and {weather}")]
    return [sentence(f"{weather} {where}") if scene.weather != "clear" else sentence(f"{lead} {where}; {weather}")]


def _ordered(voice: Voice, scene: Scene, groups: list[Group]) -> list[Group]:
    """In the order that this place is usually told in."""
    order = voice.pick(("reading", "size", "rest", "upwards"), "order", scene.place, scene.time_of_day)
    told = in_reading_order(groups)
    if order == "size":
        return sorted(told, key=lambda group: not group.is_large)
    if order == "rest":
        return sorted(told, key=lambda group: group.motion != "stay")
    return told[::-1] if order == "upwards" else told


def _scenery(voice: Voice, scene: Scene, groups: list[Group]) -> list[str]:
    """A sentence for each, or one for two neighbours."""
    clauses = [_clause(voice, group) for group in groups]
    if len(clauses) >= 2 and voice.agrees(0.45, "link", groups[0].kind):
        link = voice.pick(LINKS, "link", groups[1].kind)
        clauses[:2] = [clauses[0] + link + clauses[1]]
    return [sentence(clause) for clause in clauses]


def _clause(voice: Voice, group: Group) -> str:
    noun, where = noun_phrase(voice, group), position(voice, group)
    are = "is" if group.count == 1 else "are"
    form = voice.pick(range(6), "clause", group.kind)
    if form == 0:
        return f"{noun} {predicate(voice, group)} {where}"
    if form == 1:
        return f"{where}, {noun} {predicate(voice, group)}"
    if form == 2:
        return f"there {are} {noun} {where} that {predicate(voice, group)}"
    if form == 3:
        return f"we can see {noun} that {predicate(voice, group)} {where}"
    verb, way = base_verb(voice, group)
    shown = f"{gerund(verb)}{manner(voice, group)} {way}".strip()
    if form == 4:
        return f"{noun} {are} {shown} {where}"
    return f"{where} we find {noun} {shown}"


def _deed(voice: Voice, scene: Scene, deed: Interaction) -> list[str]:
    """One sentence for both, or one for the partner and one for what is done with it."""
    actor, partner = scene.groups[deed.actor], scene.groups[deed.partner]
    one, other = noun_phrase(voice, actor), noun_phrase(voice, partner)
    told, where = deed_clause(voice, scene, deed, one, other), position(voice, actor)
    if partner.motion == "stay" and voice.agrees(0.5, "deed form", partner.kind):
        told = deed_clause(voice, scene, deed, one, f"the {name_of(partner.kind, 1)}")
        return [sentence(_clause(voice, partner)), sentence(f"{told} {where}")]
    if voice.agrees(0.5, "deed place", actor.kind):
        return [sentence(f"{where}, {told}")]
    return [sentence(f"{told} {where}")]


def _overview(voice: Voice, scene: Scene) -> list[str]:
    """Which of two is higher, and how many objects there are."""
    told = []
    levels = [group for group in in_reading_order(list(scene.groups)) if group.lane]
    if levels and levels[0].lane != levels[-1].lane:
        is_downward = voice.agrees(0.5, "relation", levels[0].kind)
        first, second = (levels[0], levels[-1]) if is_downward else (levels[-1], levels[0])
        relation = voice.pick(RELATIONS[is_downward], "relation", first.kind)
        verb = "is" if first.count == 1 else "are"
        names = [name_of(group.kind, group.count) for group in (first, second)]
        told.append(sentence(f"the {names[0]} {verb} {relation} the {names[1]}"))
    count = sum(group.count for group in scene.groups)
    if voice.agrees(0.7, "overview", scene.place, scene.weather):
        number = f"{NUMBERS[count]} object{'s' if count > 1 else ''}"
        are = "is" if count == 1 else "are"
        forms = (f"in all, there {are} {number}", f"we count {number} altogether", f"{number} {are} seen in total")
        told.append(sentence(voice.pick(forms, "overview", scene.place)))
    return told


def _closing(voice: Voice, scene: Scene) -> str:
    options = ["nothing else is in view", "there is nothing else to see", "that is all"]
    if not scene.entering and not scene.leaving:
        options += ["nothing comes or goes"] * 2
    return sentence(voice.pick(options, "closing", scene.place, len(scene.groups)))
