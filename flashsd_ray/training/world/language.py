"""Questions about a scene and true answers, with paraphrase chosen by a seed."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from flashsd_ray.training.world.catalog import KINDS, PLACES
from flashsd_ray.training.world.phrases import (
    NUMBERS,
    WEATHER,
    noun_phrase,
    plural_or_single,
    position_phrase,
    sentence,
    setting_phrase,
    sized_noun,
    verb_phrase,
)
from flashsd_ray.training.world.scene import Group, Scene

Task = Literal["short", "detail", "count", "enter", "motion", "place"]

SHUFFLED_SHARE = 0.15  # of captions whose objects come in any order

PROMPTS: dict[Task, tuple[str, ...]] = {
    "short": (
        "Describe the video briefly.",
        "What is in this video?",
        "Give a short caption.",
        "Summarize the clip in one sentence.",
    ),
    "detail": (
        "Describe the video in detail.",
        "Describe this video.",
        "What happens in this video?",
        "Write a detailed caption.",
    ),
    "count": ("How many {} are there?", "Count the {}.", "How many {} can you see?"),
    "enter": ("What enters halfway?", "Does anything new appear?", "What appears later in the clip?"),
    "motion": ("What does the {} do?", "How does the {} move?", "What is the {} doing?"),
    "place": ("Where is this?", "Where does the video take place?", "Describe the setting."),
}


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One question about a scene and its answer."""

    task: Task
    prompt: str
    answer: str


def converse(scene: Scene, task: Task, paraphrase_seed: int) -> Exchange:
    """A question of this task and a true answer; the seed chooses the words."""
    stream = random.Random(f"language:{scene.split}:{scene.seed}:{task}:{paraphrase_seed}")
    prompt, answer = _TASKS[task](stream, scene)
    return Exchange(task=task, prompt=prompt, answer=answer)


def _short(stream: random.Random, scene: Scene) -> tuple[str, str]:
    groups = _ordered(stream, list(scene.groups))
    names = _join([noun_phrase(stream, group, has_size=stream.random() < 0.4) for group in groups])
    setting = setting_phrase(stream, scene)
    form = stream.randrange(4)
    if form == 0:
        answer = sentence(f"{names} {setting}")
    elif form == 1:
        answer = sentence(f"the video shows {names} {setting}")
    elif form == 2:
        answer = sentence(f"{setting}, there {_are(groups[0])} {names}")
    else:
        answer = sentence(f"we see {names} {setting}")
    return stream.choice(PROMPTS["short"]), answer


def _detail(stream: random.Random, scene: Scene) -> tuple[str, str]:
    present = _ordered(stream, [group for group in scene.groups if not group.enters_halfway])
    late = [group for group in scene.groups if group.enters_halfway]
    sentences = [_opening(stream, scene)]
    sentences += [_group_sentence(stream, group) for group in present]
    if PLACES[scene.place].has_sky:
        place = stream.choice((1, len(sentences)))
        sentences.insert(place, sentence(stream.choice(WEATHER[scene.weather])))
    sentences += [_late_sentence(stream, group) for group in late]
    if stream.random() < 0.4 or len(sentences) < 4:
        sentences.append(_closing(stream, scene, has_late=bool(late)))
    return stream.choice(PROMPTS["detail"]), " ".join(sentences)


def _opening(stream: random.Random, scene: Scene) -> str:
    setting = setting_phrase(stream, scene)
    lead = stream.choice(("the video takes place", "this clip is set", "we are", "the scene is"))
    return sentence(f"{lead} {setting}")


def _group_sentence(stream: random.Random, group: Group) -> str:
    noun = noun_phrase(stream, group)
    verb = verb_phrase(stream, group)
    position = position_phrase(stream, group)
    form = stream.randrange(5)
    if form == 0:
        return sentence(f"{noun} {verb} {position}")
    if form == 1:
        return sentence(f"{position}, {noun} {verb}")
    if form == 2:
        return sentence(f"there {_are(group)} {noun} {position} that {verb}")
    if form == 3:
        return sentence(f"we can see {noun} that {verb} {position}")
    pronoun = "it" if group.count == 1 else "they"
    return f"{sentence(f'{position} {_are(group)} {noun}')} {sentence(f'{pronoun} {verb}')}"


def _late_sentence(stream: random.Random, group: Group) -> str:
    noun = noun_phrase(stream, group)
    appear = stream.choice((("appear", "appears"), ("come into view", "comes into view")))
    verb = appear[1] if group.count == 1 else appear[0]
    tail = stream.choice((position_phrase(stream, group), f"and {verb_phrase(stream, group)}"))
    when = stream.choice(("halfway through", "later", "after a while"))
    if stream.random() < 0.5:
        return sentence(f"{when}, {noun} {verb} {tail}")
    return sentence(f"{noun} {verb} {when} {tail}")


def _closing(stream: random.Random, scene: Scene, *, has_late: bool) -> str:
    moving = any(group.motion != "stay" for group in scene.groups)
    options = ["nothing else is in view", "there is nothing else to see"]
    if not has_late:
        options.append("nothing new appears")
    if not moving:
        options.append("nothing moves")
    return sentence(stream.choice(options))


def _count(stream: random.Random, scene: Scene) -> tuple[str, str]:
    counts = {group.kind: group.count for group in scene.groups}
    kind = stream.choice(tuple(counts))
    if stream.random() < 0.25:
        kind = stream.choice([name for name in PLACES[scene.place].kinds if name not in counts])
    number = counts.get(kind, 0)
    prompt = stream.choice(PROMPTS["count"]).format(KINDS[kind].plural)
    if number == 0:
        return prompt, sentence(f"there are no {KINDS[kind].plural}")
    verb = "is" if number == 1 else "are"
    noun = plural_or_single(kind, number)
    return prompt, sentence(f"there {verb} {NUMBERS[number]} {noun}")


def _enter(stream: random.Random, scene: Scene) -> tuple[str, str]:
    prompt = stream.choice(PROMPTS["enter"])
    late = [group for group in scene.groups if group.enters_halfway]
    if not late:
        return prompt, stream.choice(("Nothing new appears.", "Nothing enters the scene."))
    noun = noun_phrase(stream, late[0])
    verb = ("appears", "enters") if late[0].count == 1 else ("appear", "enter")
    return prompt, sentence(f"{noun} {stream.choice(verb)} halfway through")


def _motion(stream: random.Random, scene: Scene) -> tuple[str, str]:
    group = stream.choice(scene.groups)
    noun = plural_or_single(group.kind, group.count)
    prompt = stream.choice(PROMPTS["motion"]).format(noun)
    if group.count > 1:
        prompt = prompt.replace(" does the", " do the").replace(" is the", " are the")
    verb = verb_phrase(stream, group)
    subject = f"the {sized_noun(stream, group, has_size=stream.random() < 0.4)}"
    return prompt, sentence(f"{subject} {verb} {position_phrase(stream, group)}")


def _place(stream: random.Random, scene: Scene) -> tuple[str, str]:
    prompt = stream.choice(PROMPTS["place"])
    setting = setting_phrase(stream, scene)
    if not PLACES[scene.place].has_sky:
        return prompt, sentence(f"the video takes place {setting}")
    weather = stream.choice(WEATHER[scene.weather])
    if stream.random() < 0.5:
        return prompt, sentence(f"the video takes place {setting}, and {weather}")
    return prompt, f"{sentence(f'it is {setting}')} {sentence(weather)}"


def _ordered(stream: random.Random, groups: list[Group]) -> list[Group]:
    """Top to bottom, left to right, then what rises or falls; now and then in any order."""
    if stream.random() < SHUFFLED_SHARE:
        return stream.sample(groups, len(groups))
    lanes, columns = ("top", "middle", "bottom", None), ("left", "center", None, "right")
    return sorted(groups, key=lambda group: (lanes.index(group.lane), columns.index(group.column)))


def _join(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _are(group: Group) -> str:
    return "is" if group.count == 1 else "are"


_TASKS: dict[Task, Callable[[random.Random, Scene], tuple[str, str]]] = {
    "short": _short,
    "detail": _detail,
    "count": _count,
    "enter": _enter,
    "motion": _motion,
    "place": _place,
}
TASKS: tuple[Task, ...] = tuple(_TASKS)
