"""Questions about a scene of the town and true answers, in the style that the question asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from flashsd_ray.training.town import detail
from flashsd_ray.training.town.catalog import KINDS, PLACES
from flashsd_ray.training.town.phrases import (
    deed_clause,
    described,
    in_reading_order,
    name_of,
    noun_phrase,
    position,
    predicate,
    setting,
)
from flashsd_ray.training.town.scene import Scene
from flashsd_ray.training.town.voice import Voice
from flashsd_ray.training.town.words import (
    DEED_QUESTIONS,
    NO_DEED,
    NOTHING_ENTERS,
    NOTHING_HAPPENS,
    NOTHING_LEAVES,
    NUMBERS,
    WEATHER,
    join,
    sentence,
)

Task = Literal[
    "short", "detail", "json", "count", "enter", "leave", "first", "color", "where", "motion", "deed", "place"
]

PROMPTS: dict[Task, tuple[str, ...]] = {
    "short": (
        "Describe the video briefly.",
        "What is in this video?",
        "Give a short caption.",
        "Summarize the clip in one sentence.",
        "Caption this in a few words.",
    ),
    "detail": (
        "Describe the video in detail.",
        "Describe this video.",
        "What happens in this video?",
        "Write a detailed caption.",
        "Tell me everything that you see.",
    ),
    "json": (
        "Describe the video as JSON.",
        "Answer in JSON: what does the clip show?",
        "Give the contents of the video as a JSON object.",
        "List the objects of this clip in JSON.",
    ),
    "count": ("How many {} are there?", "Count the {}.", "How many {} can you see?"),
    "enter": ("What enters halfway?", "Does anything new appear?", "What appears later in the clip?"),
    "leave": ("What leaves before the end?", "Does anything disappear?", "What goes out of view?"),
    "first": ("What happens first?", "What changes during the clip, and in which order?", "Tell the events in order."),
    "color": ("Which color is the {}?", "What color is the {}?", "Name the color of the {}."),
    "where": ("Where is the {}?", "In which part of the picture is the {}?", "Locate the {}."),
    "motion": ("What does the {} do?", "How does the {} move?", "What is the {} doing?"),
    "deed": DEED_QUESTIONS,
    "place": ("Where is this?", "Where does the video take place?", "Describe the setting."),
}


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One question about a scene and its answer."""

    task: Task
    prompt: str
    answer: str


def converse(scene: Scene, task: Task, paraphrase_seed: int) -> Exchange:
    """A question of this task and a true answer; the seed chooses the words that the clip leaves open."""
    voice = Voice(f"town language:{scene.split}:{scene.seed}:{task}:{paraphrase_seed}")
    prompt, answer = _TASKS[task](voice, scene)
    return Exchange(task=task, prompt=prompt, answer=answer)


def json_of(scene: Scene) -> dict[str, Any]:
    """The answer in JSON, as plain values."""
    objects = [
        {
            "kind": group.kind,
            "count": group.count,
            "color": group.color,
            "size": "large" if group.is_large else "small",
            "motion": group.motion,
            "position": " ".join(part for part in (group.lane, group.column) if part),
        }
        for group in in_reading_order(list(scene.groups))
    ]
    deed = scene.interaction
    return {
        "place": scene.place,
        "time": scene.time_of_day,
        "weather": scene.weather,
        "objects": objects,
        "interaction": deed and [scene.groups[deed.actor].kind, deed.deed, scene.groups[deed.partner].kind],
        "enters": scene.entering and scene.entering.kind,
        "leaves": scene.leaving and scene.leaving.kind,
    }


def _detail(voice: Voice, scene: Scene) -> tuple[str, str]:
    return voice.draw(PROMPTS["detail"]), detail.caption(voice, scene)


def _json(voice: Voice, scene: Scene) -> tuple[str, str]:
    return voice.draw(PROMPTS["json"]), json.dumps(json_of(scene), separators=(",", ":"))


def _short(voice: Voice, scene: Scene) -> tuple[str, str]:
    deed = scene.interaction
    where = setting(voice, scene)
    if deed:
        actor, partner = (
            noun_phrase(voice, scene.groups[index], has_size=False) for index in (deed.actor, deed.partner)
        )
        answer = sentence(f"{deed_clause(voice, scene, deed, actor, partner)} {where}")
        return voice.draw(PROMPTS["short"]), answer
    groups = in_reading_order(list(scene.groups))
    names = join([noun_phrase(voice, group, has_size=False) for group in groups])
    are = "is" if groups[0].count == 1 else "are"
    forms = (
        f"{names} {where}",
        f"the video shows {names} {where}",
        f"{where}, there {are} {names}",
        f"we see {names} {where}",
    )
    return voice.draw(PROMPTS["short"]), sentence(voice.pick(forms, "short", scene.place, len(groups)))


def _count(voice: Voice, scene: Scene) -> tuple[str, str]:
    counts = {group.kind: group.count for group in scene.groups}
    kind = _kind_asked(voice, scene, 0.2)
    number = counts.get(kind, 0)
    verb = "is" if number == 1 else "are"
    prompt = voice.draw(PROMPTS["count"]).format(KINDS[kind].plural)
    return prompt, sentence(f"there {verb} {NUMBERS[number]} {name_of(kind, number)}")


def _enter(voice: Voice, scene: Scene) -> tuple[str, str]:
    prompt = voice.draw(PROMPTS["enter"])
    if scene.entering is None:
        return prompt, voice.pick(NOTHING_ENTERS, scene.place)
    return prompt, detail.entrance(voice, scene.entering)


def _leave(voice: Voice, scene: Scene) -> tuple[str, str]:
    prompt = voice.draw(PROMPTS["leave"])
    if scene.leaving is None:
        return prompt, voice.pick(NOTHING_LEAVES, scene.place)
    return prompt, detail.exit_of(voice, scene.leaving, noun_phrase(voice, scene.leaving))


def _first(voice: Voice, scene: Scene) -> tuple[str, str]:
    prompt = voice.draw(PROMPTS["first"])
    events: list[tuple[float, str]] = []
    if scene.entering:
        events.append((scene.entering.begins, detail.entrance(voice, scene.entering)))
    if scene.leaving:
        events.append((scene.leaving.ends, detail.exit_of(voice, scene.leaving, noun_phrase(voice, scene.leaving))))
    if not events:
        return prompt, voice.pick(NOTHING_HAPPENS, scene.place)
    leads = ("First: ", "Then: ") if len(events) == 2 else ("Only this: ",)
    return prompt, " ".join(lead + told for lead, (_, told) in zip(leads, sorted(events), strict=True))


def _color(voice: Voice, scene: Scene) -> tuple[str, str]:
    colored = {group.kind: group for group in scene.groups if group.color}
    kind = _kind_asked(voice, scene, 0.12, [kind for kind in KINDS if KINDS[kind].is_colored], list(colored))
    group = colored.get(kind)
    prompt = voice.draw(PROMPTS["color"]).format(name_of(kind, group.count if group else 1))
    if group is None:
        return prompt, sentence(f"there is no {kind}")
    if group.count > 1:
        return prompt.replace(" is the", " are the"), sentence(f"the {name_of(kind, group.count)} are {group.color}")
    return prompt, sentence(f"the {kind} is {group.color}")


def _where(voice: Voice, scene: Scene) -> tuple[str, str]:
    group = voice.draw(scene.groups)
    noun = name_of(group.kind, group.count)
    prompt, verb = voice.draw(PROMPTS["where"]).format(noun), "is"
    if group.count > 1:
        prompt, verb = prompt.replace(" is the", " are the"), "are"
    return prompt, sentence(f"the {described(voice, group, has_size=False)} {verb} {position(voice, group)}")


def _motion(voice: Voice, scene: Scene) -> tuple[str, str]:
    group = voice.draw(scene.groups)
    prompt = voice.draw(PROMPTS["motion"]).format(name_of(group.kind, group.count))
    if group.count > 1:
        prompt = prompt.replace(" does the", " do the").replace(" is the", " are the")
    subject = described(voice, group, has_size=voice.agrees(0.4, group.kind))
    return prompt, sentence(f"the {subject} {predicate(voice, group)} {position(voice, group)}")


def _deed(voice: Voice, scene: Scene) -> tuple[str, str]:
    prompt, deed = voice.draw(PROMPTS["deed"]), scene.interaction
    if deed is None:
        return prompt, voice.pick(NO_DEED, scene.place)
    actor, partner = (noun_phrase(voice, scene.groups[index]) for index in (deed.actor, deed.partner))
    return prompt, sentence(deed_clause(voice, scene, deed, actor, partner))


def _place(voice: Voice, scene: Scene) -> tuple[str, str]:
    prompt, where = voice.draw(PROMPTS["place"]), setting(voice, scene)
    if not PLACES[scene.place].has_sky:
        return prompt, sentence(f"the video takes place {where}")
    weather = voice.pick(WEATHER[scene.weather], "weather", scene.place, scene.time_of_day)
    if voice.agrees(0.5, "place", scene.place):
        return prompt, sentence(f"the video takes place {where}, and {weather}")
    return prompt, f"{sentence(f'it is {where}')} {sentence(weather)}"


def _kind_asked(
    voice: Voice,
    scene: Scene,
    absent_share: float,
    askable: list[str] | None = None,  # None: whatever lives there
    present: list[str] | None = None,  # None: whatever is there
) -> str:
    """One that is there or, now and then and when nothing else is left, one of the same place that is not."""
    there = {group.kind for group in scene.groups}
    candidates = [group.kind for group in scene.groups] if present is None else present
    absent = [kind for kind in PLACES[scene.place].kinds if kind not in there and (not askable or kind in askable)]
    is_absent = voice.draw(range(1000)) < 1000 * absent_share
    return voice.draw(absent) if absent and (is_absent or not candidates) else voice.draw(candidates)


_TASKS: dict[Task, Callable[[Voice, Scene], tuple[str, str]]] = {
    "short": _short,
    "detail": _detail,
    "json": _json,
    "count": _count,
    "enter": _enter,
    "leave": _leave,
    "first": _first,
    "color": _color,
    "where": _where,
    "motion": _motion,
    "deed": _deed,
    "place": _place,
}
TASKS: tuple[Task, ...] = tuple(_TASKS)
SMALL_TASKS: tuple[Task, ...] = tuple(task for task in TASKS if task not in ("detail", "json"))
