"""The parts of the encoder that need no model: the cache, the names of rows, and what a fingerprint covers."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.models.pretrained import load_target
from flashsd_ray.models.segments import segments_of_all, segments_of_each
from flashsd_ray.models.vision import VisionTower
from flashsd_ray.models.visual_cache import MemoryVisualCache
from flashsd_ray.types import VisualTokens
from tests.tiny_checkpoints import checkpoint

IMAGE, VIDEO = 7, 8


def tokens(num_rows: int) -> VisualTokens:
    return VisualTokens(features=torch.zeros(num_rows, 1), deepstack=(torch.ones(num_rows, 1),))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 9)), max_size=40))
def test_the_cache_keeps_what_was_used_last_and_never_more_than_allowed(calls: list[tuple[str, int]]) -> None:
    cache, model = MemoryVisualCache(8 * 12), OrderedDict[str, VisualTokens]()
    for key, num_rows in calls:
        if num_rows == 0:
            assert cache.get(key) is model.get(key)
            if key in model:
                model.move_to_end(key)
            continue
        value = tokens(2 * num_rows)
        cache.put(key, value)
        model.pop(key, None)
        if value.num_bytes <= 8 * 12:
            model[key] = value
        while sum(one.num_bytes for one in model.values()) > 8 * 12:
            model.popitem(last=False)
        assert cache.num_bytes == sum(one.num_bytes for one in model.values()) <= 8 * 12
    assert len(cache) == len(model)


@st.composite
def prompts(draw: st.DrawFn) -> tuple[list[int], dict[int, list[tuple[str, int]]], list[tuple[int, str, int]]]:
    """Token ids, the pictures in them, and for each visual row its picture and number in it."""
    token_ids: list[int] = []
    pictures: dict[int, list[tuple[str, int]]] = {IMAGE: [], VIDEO: []}
    labels = []
    for index in range(draw(st.integers(0, 5))):
        kind, name = draw(st.sampled_from([IMAGE, VIDEO])), f"p{index}"
        pieces = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))  # text may stand between parts
        row = 0
        for piece in pieces:
            token_ids += draw(st.lists(st.just(1), max_size=2))
            for _ in range(piece):
                labels.append((len(token_ids), name, row))
                token_ids.append(kind)
                row += 1
        pictures[kind].append((name, row))
    return token_ids, pictures, labels


@given(prompts())
def test_every_visual_row_is_in_the_segment_of_its_picture_and_no_other_row_is(
    prompt: tuple[list[int], dict[int, list[tuple[str, int]]], list[tuple[int, str, int]]],
) -> None:
    token_ids, pictures, labels = prompt
    found = []
    for segment in segments_of_each(token_ids, pictures):
        name, _, offset = segment.digest.partition("@")
        found += [(segment.start + row, name, int(offset or 0) + row) for row in range(segment.num_tokens)]
    assert found == labels


def test_a_whole_picture_is_called_by_its_digest_alone() -> None:
    segments = segments_of_each([1, IMAGE, IMAGE, IMAGE, 1], {IMAGE: [("a", 2), ("b", 1)]})
    assert [(segment.start, segment.num_tokens, segment.digest) for segment in segments] == [(1, 2, "a"), (3, 1, "b")]


@pytest.mark.parametrize("pictures", [[], [("a", 1)], [("a", 3)], [("a", 2), ("b", 1)]])
def test_placeholders_without_pictures_and_pictures_without_placeholders_are_refused(
    pictures: list[tuple[str, int]],
) -> None:
    with pytest.raises(InvalidRequestError, match="placeholders"):
        segments_of_each([1, IMAGE, IMAGE, 1], {IMAGE: pictures})


def test_rows_that_may_depend_on_every_picture_are_called_by_all_of_them() -> None:
    segments = segments_of_all([IMAGE, 1, VIDEO, VIDEO], {IMAGE, VIDEO}, ["a", "b"])
    assert [(segment.start, segment.num_tokens, segment.digest) for segment in segments] == [
        (0, 1, "a+b#0"),
        (2, 2, "a+b#1"),
    ]
    assert segments_of_all([1, 2], {IMAGE}, []) == ()
    with pytest.raises(InvalidRequestError, match="placeholders"):
        segments_of_all([1, IMAGE], {IMAGE}, [])


def test_a_fingerprint_stands_for_weights_preprocessing_and_arithmetic_and_not_for_a_place(tmp_path: Path) -> None:
    folder = str(shutil.copytree(checkpoint("llava15"), tmp_path / "copied"))
    target = load_target(folder, dtype="float32", device="cpu")
    same = VisionTower(load_target(str(checkpoint("llava15")), dtype="float32", device="cpu"))
    assert VisionTower(target).fingerprint == same.fingerprint
    others = [VisionTower(load_target(folder, dtype="bfloat16", device="cpu"))]
    for change in ("projector", "tower", "mean", "layer"):
        changed = load_target(folder, dtype="float32", device="cpu")
        model = changed.model.model
        with torch.no_grad():
            if change == "projector":
                model.multi_modal_projector.linear_2.bias[0] += 1
            elif change == "tower":
                next(model.vision_tower.parameters()).mul_(1.5)
            elif change == "layer":
                changed.model.config.vision_feature_layer = -1
            else:
                changed.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
        others.append(VisionTower(changed))
    others.append(VisionTower(target, images_per_forward=16))
    assert len({same.fingerprint, *(other.fingerprint for other in others)}) == 7
    assert VisionTower(target, images_per_forward=4).fingerprint == same.fingerprint
    target.model.model.language_model.layers[0].mlp.up_proj.weight.data.mul_(2)
    assert VisionTower(target).fingerprint == same.fingerprint


def test_keys_differ_by_content_and_by_company() -> None:
    tower = VisionTower(load_target(str(checkpoint("llava15")), dtype="float32", device="cpu"))
    assert len({tower.key("a"), tower.key("b"), tower.key("a", "b"), tower.key("b", "a"), tower.key("image", "a")}) == 5
    assert tower.key("a", "b") == tower.key("a", "b")
