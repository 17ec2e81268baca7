"""The demo world: seeded, true, and small enough to render while training."""

import io
import random

import av
import numpy as np
import pytest

from flashsd_ray.training.world.atlas import sprite
from flashsd_ray.training.world.augment import augment
from flashsd_ray.training.world.catalog import KINDS, MOTION_WEIGHTS, PLACE_NAMES, PLACES
from flashsd_ray.training.world.language import TASKS, converse
from flashsd_ray.training.world.phrases import LARGE, SMALL, TIMES, VERBS
from flashsd_ray.training.world.render import clip
from flashsd_ray.training.world.scene import ENTRANCE_TIME, sample_scene
from flashsd_ray.training.world.video import write_video

SEEDS = range(60)


def test_a_clip_is_a_pure_function_of_seed_and_split():
    first, second = clip(7, "heldout"), clip(7, "heldout")
    assert first.scene == second.scene
    assert np.array_equal(first.frames, second.frames)
    assert first.frames.shape == (8, 96, 96, 3)
    assert first.frames.dtype == np.uint8


def test_the_splits_differ_for_the_same_seed():
    differing = [seed for seed in SEEDS if sample_scene(seed, "train").groups != sample_scene(seed, "heldout").groups]
    assert len(differing) == len(SEEDS)


def test_every_kind_has_a_sprite_a_unique_first_word_and_verbs():
    assert len({name.split()[0] for name in KINDS}) == len(KINDS)
    for kind in KINDS.values():
        assert sprite(kind.name, 24, is_mirrored=False).size == (24, 24)
        assert all((kind.habit, motion) in VERBS for motion in MOTION_WEIGHTS[kind.habit])


@pytest.mark.parametrize("place", PLACE_NAMES)
def test_every_place_can_be_rendered(place):
    seed = next(seed for seed in range(500) if sample_scene(seed, "heldout").place == place)
    shown = clip(seed, "heldout", frame_count=2, size_px=48)
    assert shown.frames.std() > 1.0


def test_a_late_group_is_out_of_view_until_halfway():
    scene = next(
        scene
        for scene in (sample_scene(seed, "train") for seed in range(500))
        if any(group.enters_halfway for group in scene.groups)
    )
    late = {group.kind for group in scene.groups if group.enters_halfway}
    assert late.isdisjoint(item.kind for item in scene.visible(ENTRANCE_TIME - 0.01))
    assert late <= {item.kind for item in scene.visible(ENTRANCE_TIME)}


def test_the_picture_is_much_the_same_at_any_size():
    small = clip(11, "heldout", frame_count=1, size_px=96).frames[0].astype(float)
    large = clip(11, "heldout", frame_count=1, size_px=384).frames[0].astype(float)
    reduced = large.reshape(96, 4, 96, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced - small).mean() < 6.0


def test_a_detailed_caption_names_every_object_and_no_other():
    for seed in SEEDS:
        scene = sample_scene(seed, "train")
        answer = converse(scene, "detail", 0).answer.lower()
        named = {kind.name for kind in KINDS.values() if kind.name in answer or kind.plural in answer}
        true = {group.kind for group in scene.groups}
        assert true <= named
        assert all(any(name in other for other in true) for name in named)


def test_no_caption_contradicts_the_size_or_the_time_of_day():
    for seed in SEEDS:
        scene = sample_scene(seed, "train")
        answer = converse(scene, "detail", 1).answer
        words = set(answer.lower().replace(".", "").replace(",", "").split())
        sizes = {group.is_large for group in scene.groups}
        assert sizes == {True} or words & set(SMALL)
        assert sizes == {False} or words & set(LARGE)
        if PLACES[scene.place].has_sky:
            assert any(phrase in answer for phrase in TIMES[scene.time_of_day])


def test_the_paraphrase_seed_changes_the_words():
    scene = sample_scene(3, "train")
    assert len({converse(scene, "detail", seed).answer for seed in range(10)}) > 5
    assert {converse(scene, task, 0).task for task in TASKS} == set(TASKS)


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
