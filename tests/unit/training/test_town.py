"""The town: seeds, splits, what its clips show, what its texts say, and the checker between the two."""

from __future__ import annotations

import io
import json
import random
from itertools import combinations, islice, pairwise

import av
import numpy as np
import pytest

from flashsd_ray.training.town.__main__ import BUNDLED, scene_named
from flashsd_ray.training.town.augment import augment
from flashsd_ray.training.town.casting import is_novel
from flashsd_ray.training.town.catalog import COLORS, KIND_NAMES, KINDS, MOTION_WEIGHTS, PLACE_NAMES, PLACES
from flashsd_ray.training.town.checking import Tally, check
from flashsd_ray.training.town.language import SMALL_TASKS, TASKS, Exchange, converse, json_of
from flashsd_ray.training.town.phrases import base_verb
from flashsd_ray.training.town.reading import kinds_in, read
from flashsd_ray.training.town.render import clip
from flashsd_ray.training.town.scene import ENTRANCE_TIME, Scene
from flashsd_ray.training.town.schema import parsed
from flashsd_ray.training.town.staging import sample_scene
from flashsd_ray.training.town.video import describe_truth, write_video
from flashsd_ray.training.town.voice import Voice
from flashsd_ray.training.town.words import DEED_FORMS, gerund, third_person

SEEDS = range(150)
SCENES = [sample_scene(seed, "train") for seed in SEEDS]


def told(scene: Scene, task: str, seed: int = 0) -> Exchange:
    return converse(scene, task, seed)  # type: ignore[arg-type]


def figures(scene: Scene, task: str, answer: str) -> dict[str, float]:
    tally = Tally()
    check(tally, scene, told(scene, task), answer)
    return tally.figures()


def scene_with(wanted) -> Scene:
    return next(scene for scene in SCENES if wanted(scene))


def test_it_has_a_hundred_kinds_and_ten_places():
    assert len(KINDS) >= 100
    assert len(PLACE_NAMES) == 10
    assert len({name.split()[0] for name in KINDS}) == len(KINDS)


def test_a_clip_is_a_pure_function_of_seed_and_split():
    first, second = clip(7, "heldout"), clip(7, "heldout")
    assert first.scene == second.scene
    assert np.array_equal(first.frames, second.frames)
    assert (first.frames.shape, first.frames.dtype) == ((8, 96, 96, 3), np.uint8)
    assert clip(7, "train").scene.groups != first.scene.groups


def test_answers_are_a_pure_function_of_clip_and_seed():
    assert [told(SCENES[3], task) for task in TASKS] == [told(sample_scene(3, "train"), task) for task in TASKS]
    assert len({told(SCENES[3], "detail", seed).answer for seed in range(10)}) > 5


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_held_out_combinations_are_never_seen_together(split):
    for seed in SEEDS:
        kinds = [group.kind for group in sample_scene(seed, split).groups]
        assert not any(is_novel(*pair) for pair in combinations(kinds, 2))


def test_every_novel_clip_shows_a_combination_that_training_lacks():
    pairs = [combinations([group.kind for group in sample_scene(seed, "novel").groups], 2) for seed in SEEDS]
    assert sum(any(is_novel(*pair) for pair in of_clip) for of_clip in pairs) == len(SEEDS)


def test_neighbours_are_seen_together_more_often_than_others():
    beside = {frozenset(pair) for place in PLACES.values() for pair in pairwise(place.kinds)}
    possible = {frozenset(pair) for place in PLACES.values() for pair in combinations(place.kinds, 2)}
    seen = [frozenset(pair) for scene in SCENES for pair in combinations((one.kind for one in scene.groups), 2)]
    share = sum(pair in beside for pair in seen) / sum(pair in possible for pair in seen)
    assert share > 1.5 * len(beside) / len(possible)


def test_every_event_interaction_count_and_color_occurs():
    scenes = [sample_scene(seed, "train") for seed in range(1500)]
    assert {scene.interaction.deed for scene in scenes if scene.interaction} == set(DEED_FORMS)
    assert {group.count for scene in scenes for group in scene.groups} == {1, 2, 3, 4}
    assert {group.color for scene in scenes for group in scene.groups} == {None, *COLORS}
    assert any(scene.entering and scene.leaving for scene in scenes)


def test_what_enters_is_out_of_view_until_halfway_and_what_leaves_is_gone():
    entering, leaving = (scene_with(lambda scene: scene.entering), scene_with(lambda scene: scene.leaving))
    assert entering.entering.kind not in {item.kind for item in entering.visible(ENTRANCE_TIME - 0.01)}
    assert entering.entering.kind in {item.kind for item in entering.visible(ENTRANCE_TIME)}
    assert leaving.leaving.kind in {item.kind for item in leaving.visible(0.0)}
    assert leaving.leaving.kind not in {item.kind for item in leaving.visible(1.0)}


def test_what_jumps_is_above_what_it_jumps_over():
    scene = scene_with(lambda scene: scene.interaction and scene.interaction.deed == "jump")
    actor, partner = scene.groups[scene.interaction.actor], scene.groups[scene.interaction.partner]
    assert actor.tracks[0].box(0.5)[3] <= partner.tracks[0].box(0.5)[1] + 0.05


@pytest.mark.parametrize("place", PLACE_NAMES)
def test_every_place_can_be_rendered(place):
    seed = next(seed for seed in SEEDS if SCENES[seed].place == place)
    assert clip(seed, "train", frame_count=2, size_px=48).frames.std() > 1.0


def test_every_kind_can_be_said_to_do_what_it_can_do():
    for scene in SCENES:
        for group in scene.groups:
            assert base_verb(Voice("x"), group)[0]
    assert all(motion in MOTION_WEIGHTS[KINDS[name].habit] for name in KIND_NAMES for motion in ("stay",))


def test_true_answers_pass_the_checker():
    tally = Tally()
    for scene in SCENES:
        for task in ("detail", "json", "short"):
            exchange = told(scene, task, 1)
            check(tally, scene, exchange, exchange.answer)
    for task in SMALL_TASKS:
        for scene in SCENES[:40]:
            check(tally, scene, told(scene, task), told(scene, task).answer)
    assert {name: share for name, share in tally.figures().items() if share < 1.0} == {}


def test_another_true_wording_of_an_answer_passes():
    for scene in SCENES[:60]:
        for task in ("enter", "leave", "deed", "place", "first"):
            assert figures(scene, task, told(scene, task, 5).answer)[f"question_{task}"] == 1.0


@pytest.mark.parametrize(
    ("task", "old", "new", "figure"),
    [
        ("detail", "crab", "truck", "object_f1"),
        ("detail", "to the right", "to the left", "motion"),
        ("detail", "at the bottom", "at the top", "position"),
        ("detail", "two ", "three ", "count"),
        ("detail", " red ", " blue ", "color"),
        ("detail", "tiny", "huge", "size"),
        ("detail", "follows", "jumps over", "interaction"),
        ("detail", "is below the", "is above the", "relation"),
        ("json", '"count":2', '"count":3', "json_count"),
        ("json", "}", "", "style_json"),
        ("json", '"weather"', '"sky"', "style_json"),
        ("short", ".", ". And so on.", "style_short"),
        ("count", "two", "four", "question_count"),
        ("color", "red", "green", "question_color"),
        ("motion", "to the left", "to the right", "question_motion"),
        ("where", "bottom", "top", "question_where"),
        ("place", "rain", "snow", "question_place"),
        ("deed", "carries", "chases", "question_deed"),
    ],
)
def test_the_checker_catches_what_is_wrong(task, old, new, figure):
    true = ((scene, told(scene, task).answer) for scene in (sample_scene(seed, "train") for seed in range(900)))
    wrong = list(islice(((scene, said.replace(old, new)) for scene, said in true if old in said), 3))
    assert wrong
    assert all(figures(scene, task, said)[figure] < 1.0 for scene, said in wrong)


def test_what_is_missing_counts_as_wrong():
    scene = scene_with(lambda scene: len(scene.groups) == 3 and scene.entering)
    shown = figures(scene, "detail", "We are on a moon.")
    assert shown["object_recall"] == shown["motion"] == shown["position"] == shown["enters"] == 0.0
    assert figures(scene, "enter", "Nothing new appears.")["question_enter"] == 0.0


def test_json_parses_and_has_one_schema():
    answers = [json.loads(told(scene, "json").answer) for scene in SCENES]
    assert {tuple(answer) for answer in answers} == {tuple(json_of(SCENES[0]))}
    assert len({tuple(item) for answer in answers for item in answer["objects"]}) == 1


def test_a_text_names_the_kinds_that_are_there_and_no_other():
    for scene in SCENES:
        assert set(kinds_in(told(scene, "detail").answer)) == {group.kind for group in scene.groups}
    assert kinds_in("Two mice watch an Owl on a carpet.") == ["mouse", "owl"]


def test_a_passive_sentence_is_read_as_the_active_one():
    active = read("A small dog chases a big cat to the right at the bottom.")
    passive = read("At the bottom, a big cat is followed to the right by a small dog.")
    assert active.deed == passive.deed == ("dog", "follow", "cat")
    assert active.objects["cat"] == passive.objects["cat"]
    assert (active.objects["dog"].motion, active.objects["dog"].lane) == ("right", "bottom")


def test_silence_is_never_right():
    for task in (*SMALL_TASKS, "json"):
        for scene in SCENES[:60]:
            shown = figures(scene, task, "There is.")
            assert {name: share for name, share in shown.items() if name != "style_short" and share} == {}, task


def test_rest_has_to_be_said():
    assert read("A small dog is resting at the bottom.").objects["dog"].motion == "stay"
    assert read("A small dog at the bottom.").objects["dog"].motion is None


def test_of_two_ways_to_tell_of_one_object_neither_counts():
    told_twice = read("A small red dog rests at the top left. A huge red dog rests at the top left.").objects["dog"]
    assert (told_twice.is_large, told_twice.color, told_twice.lane, told_twice.column) == (None, "red", "top", "left")
    scene = SCENES[0]
    said = json_of(scene)
    said["objects"].append(said["objects"][0])
    shown = figures(scene, "json", json.dumps(said))
    assert (shown["style_json"], shown["json_objects"]) == (1.0, 0.0)
    assert shown["json_motion"] == pytest.approx(1.0 - 1 / len(scene.groups))


def test_clips_with_an_event_are_counted_apart_from_those_without():
    quiet, busy = (scene_with(lambda scene, wanted=wanted: bool(scene.entering) == wanted) for wanted in (False, True))
    assert figures(quiet, "detail", "We are on a moon.")["no_enters"] == 1.0
    assert figures(busy, "detail", "We are on a moon.")["enters"] == 0.0
    assert figures(busy, "json", told(busy, "json").answer)["json_enters"] == 1.0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda said: said["objects"][0].update(kind=["dog"]),
        lambda said: said["objects"][0].update(kind="zeppelin"),
        lambda said: said["objects"][0].update(count=True),
        lambda said: said["objects"].append({}),
        lambda said: said.update(place="nowhere"),
        lambda said: said.update(interaction=["dog", "eat", "cat"]),
        lambda said: said.update(objects={}),
        lambda said: said.update(note="more"),
    ],
)
def test_json_that_does_not_keep_to_the_schema_is_refused(spoil):
    said = json_of(SCENES[0])
    assert parsed(json.dumps(said)) == said
    spoil(said)
    assert parsed(json.dumps(said)) is None


def test_an_object_too_many_counts_in_json_and_in_words():
    scene = scene_with(lambda scene: all(group.kind not in ("truck", "crab") for group in scene.groups))
    said = json_of(scene)
    extra = {"kind": "truck", "count": 1, "color": "red", "size": "small", "motion": "stay", "position": "top left"}
    said["objects"].append(extra)
    assert figures(scene, "json", json.dumps(said))["json_objects"] == 0.0
    wrong = told(scene, "detail").answer + " The truck is above the crab."
    assert figures(scene, "detail", wrong)["object_precision"] < 1.0


def test_the_picture_is_much_the_same_at_any_size():
    small = clip(11, "heldout", frame_count=1, size_px=96).frames[0].astype(float)
    large = clip(11, "heldout", frame_count=1, size_px=384).frames[0].astype(float)
    reduced = large.reshape(96, 4, 96, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced - small).mean() < 6.0


def test_augmented_frames_keep_shape_and_stay_close():
    frames = clip(5, frame_count=2).frames
    damaged = augment(frames, random.Random(1), 96)
    assert damaged.shape == frames.shape
    assert np.abs(damaged.astype(float) - frames).mean() < 40.0


def test_a_written_video_decodes_to_the_scene(tmp_path):
    scene = sample_scene(2, "heldout")
    path = tmp_path / "clip.mp4"
    write_video(scene, path, size_px=64)
    with av.open(io.BytesIO(path.read_bytes())) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == round(scene.duration_s * 24)
    rendered = clip(2, "heldout", frame_count=len(decoded), size_px=64).frames
    assert np.abs(decoded[0].astype(float) - rendered[0]).mean() < 12.0


def test_the_bundled_clips_are_those_that_the_command_names_and_training_has_none_of_them(clips):
    scenes = [scene_named(name) for name in BUNDLED]
    truths = json.loads((clips[0].parent / "clips.json").read_text(encoding="utf-8"))
    assert truths == {f"{one.place}-{one.split}-{one.seed}.mp4": describe_truth(one) for one in scenes}
    assert sorted(truths) == [path.name for path in clips]
    assert {scene.split for scene in scenes} == {"heldout", "novel"}
    assert all(len(told(scene, "detail").answer.split()) >= 50 for scene in scenes)
    with pytest.raises(ValueError, match="train, heldout, novel"):
        scene_named("demo:7")


@pytest.mark.parametrize(
    ("verb", "third", "ing"),
    [("fly", "flies", "flying"), ("stand still", "stands still", "standing still"), ("trot", "trots", "trotting"),
     ("lie still", "lies still", "lying still"), ("graze", "grazes", "grazing"), ("splash", "splashes", "splashing"),
     ("stay put", "stays put", "staying put"), ("flee", "flees", "fleeing")],
)  # fmt: skip
def test_verbs_are_inflected(verb, third, ing):
    assert (third_person(verb), gerund(verb)) == (third, ing)
