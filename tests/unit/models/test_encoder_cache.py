"""A picture is looked at once, and its rows are the same bits whoever asked for it, with whom, and how often."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor

from flashsd_ray.config import EncodingConfig
from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.models.target import prefix_digests
from flashsd_ray.models.visual_cache import MemoryVisualCache
from flashsd_ray.types import Conversation, EncodedPrompt, Turn, VisualInput
from tests.reference_generate import image, video
from tests.tiny_checkpoints import FAMILIES, checkpoint, missing_requirement

INDEPENDENT = ("demo", "llava15", "qwen25_vl", "qwen3_vl")
TOGETHER = ("llava_onevision", "smolvlm2")


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*shape, 3), dtype=np.uint8)


FRAMES = [image(noise(seed, 44, 60)) for seed in range(9)]
SMALL = image(noise(20, 34, 40))
CLIP = video(noise(30, 4, 44, 60), np.arange(4.0), 4.0)


@lru_cache(maxsize=2)
def target_of(family: str, dtype: str = "float32") -> PretrainedTarget:
    if family == "demo":
        return load_target("demo", dtype=dtype, device="cpu")
    missing = missing_requirement(family)
    if missing:
        pytest.skip(missing)
    return load_target(str(checkpoint(family)), dtype=dtype, device="cpu")


def cached(target: PretrainedTarget) -> LocalEncoder:
    return LocalEncoder(target, MemoryVisualCache(2**26))


def of(*visuals: VisualInput) -> Conversation:
    return Conversation.of("what is it", visuals)


def rows(prompt: EncodedPrompt, index: int) -> list[Tensor]:
    """Everything that was made of one picture: its embeddings, and its deepstack rows."""
    segment = prompt.segments[index]
    before = sum(one.num_tokens for one in prompt.segments[:index])
    return [
        prompt.embeddings[segment.start : segment.stop],
        *(layer[before : before + segment.num_tokens] for layer in prompt.deepstack),
    ]


def same(left: EncodedPrompt, right: EncodedPrompt) -> bool:
    return (
        left.token_ids == right.token_ids
        and left.segments == right.segments
        and torch.equal(left.embeddings, right.embeddings)
        and torch.equal(left.positions, right.positions)
        and all(torch.equal(a, b) for a, b in zip(left.deepstack, right.deepstack, strict=True))
    )


@contextmanager
def counted_forwards(target: PretrainedTarget) -> Iterator[list[int]]:
    """How many times the vision tower runs."""
    model = target.model.model
    tower = next(getattr(model, name) for name in ("vision_tower", "visual", "vision_model") if hasattr(model, name))
    count: list[int] = []
    hook = tower.register_forward_pre_hook(lambda *_: count.append(1))
    try:
        yield count
    finally:
        hook.remove()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", INDEPENDENT)
def test_a_frame_has_the_same_rows_alone_among_others_and_from_the_cache(family: str, dtype: str) -> None:
    target = target_of(family, dtype)
    alone = rows(LocalEncoder(target).encode(of(FRAMES[0])), 0)
    keeper = cached(target)
    keeper.encode(of(*FRAMES[1:8]))
    found = [
        (LocalEncoder(target).encode(of(*FRAMES[:8])), 0),
        (LocalEncoder(target).encode(of(*FRAMES[3:0:-1], FRAMES[0], *FRAMES[4:8])), 3),
        (LocalEncoder(target).encode_many([of(SMALL, FRAMES[5]), of(SMALL, FRAMES[0]), of(*FRAMES[1:8])])[1], 1),
        (keeper.encode(of(*FRAMES[1:8], FRAMES[0])), 7),
        (keeper.encode(of(FRAMES[0])), 0),
    ]
    for prompt, index in found:
        for ours, expected in zip(rows(prompt, index), alone, strict=True):
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("images_per_forward", [1, 3, 16])
def test_so_it_has_with_any_number_in_a_forward(images_per_forward: int) -> None:
    target = target_of(INDEPENDENT[0], "bfloat16")
    encoder = LocalEncoder(target, config=EncodingConfig(images_per_forward=images_per_forward))
    alone = rows(encoder.encode(of(FRAMES[0])), 0)
    among_others = rows(encoder.encode(of(*FRAMES[3:0:-1], FRAMES[0], *FRAMES[4:8])), 3)
    for ours, expected in zip(among_others, alone, strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("family", INDEPENDENT)
def test_the_ninth_frame_is_the_only_one_that_is_looked_at(family: str) -> None:
    target = target_of(family)
    encoder = cached(target)
    encoder.encode(of(*FRAMES[:8]))
    with counted_forwards(target) as forwards:
        nine = encoder.encode(of(*FRAMES))
    assert len(forwards) == 1
    assert (encoder.num_frames, encoder.num_frames_encoded) == (17, 9)
    with counted_forwards(target) as forwards:
        again = encoder.encode(of(*FRAMES))
    assert not forwards
    assert same(nine, again)
    assert same(nine, LocalEncoder(target).encode(of(*FRAMES)))


@pytest.mark.parametrize("family", TOGETHER)
@pytest.mark.parametrize("visuals", [(FRAMES[0],), tuple(FRAMES[:2]), (CLIP,), (SMALL, CLIP)])
def test_families_whose_pictures_depend_on_each_other_keep_them_together(
    family: str, visuals: tuple[VisualInput, ...]
) -> None:
    target = target_of(family)
    encoder = cached(target)
    first = encoder.encode(of(*visuals))
    with counted_forwards(target) as forwards:
        again = encoder.encode(of(*visuals))
    assert not forwards
    assert same(first, again)
    assert encoder.num_frames == 2 * encoder.num_frames_encoded
    with counted_forwards(target) as forwards:
        assert same(encoder.encode(of(FRAMES[8], *visuals)), LocalEncoder(target).encode(of(FRAMES[8], *visuals)))
    assert forwards


@pytest.mark.parametrize("family", ["qwen25_vl", "qwen3_vl"])
def test_videos_and_images_beside_each_other_are_kept_one_by_one(family: str) -> None:
    target = target_of(family)
    encoder = cached(target)
    video_alone = encoder.encode(of(CLIP))
    image_alone = encoder.encode(of(FRAMES[0]))
    with counted_forwards(target) as forwards:
        both = encoder.encode(of(CLIP, FRAMES[0]))
    assert not forwards
    assert same(both, LocalEncoder(target).encode(of(CLIP, FRAMES[0])))
    assert torch.equal(rows(both, 0)[0], rows(video_alone, 0)[0])
    assert torch.equal(rows(both, len(both.segments) - 1)[0], rows(image_alone, 0)[0])


def follow_up(*visuals: VisualInput) -> Conversation:
    first = of(FRAMES[0], FRAMES[1]).turns
    later = (Turn(role="assistant", parts=("A dog.",)), Turn(role="user", parts=(*visuals, "And now, what else?")))
    return Conversation(turns=(*first, *later))


@pytest.mark.parametrize("family", ["demo", *FAMILIES])
def test_a_later_question_shares_the_rows_of_the_conversation_so_far(family: str) -> None:
    encoder = cached(target_of(family))
    first, later = encoder.encode(of(FRAMES[0], FRAMES[1])), encoder.encode(follow_up())
    shared = prefix_digests(first)
    assert len(shared) >= 1
    assert prefix_digests(later)[: len(shared)] == shared
    assert torch.equal(later.embeddings[: first.segments[-1].stop], first.embeddings[: first.segments[-1].stop])


@pytest.mark.parametrize("family", INDEPENDENT)
def test_so_does_a_later_picture_where_pictures_stand_for_themselves(family: str) -> None:
    encoder = cached(target_of(family))
    first, later = encoder.encode(of(FRAMES[0], FRAMES[1])), encoder.encode(follow_up(FRAMES[2]))
    shared = prefix_digests(first)
    assert prefix_digests(later)[: len(shared)] == shared
    assert prefix_digests(encoder.encode(of(FRAMES[0], FRAMES[2])))[-1] != shared[-1]
    assert len({segment.digest for segment in later.segments}) == 3


def test_conversations_encoded_together_are_what_they_are_alone() -> None:
    target = target_of("llava15")
    conversations = [of(FRAMES[0]), of(), follow_up(FRAMES[2]), of(FRAMES[0], SMALL), of(CLIP)]
    encoder = LocalEncoder(target)
    with counted_forwards(target) as forwards:
        together = encoder.encode_many(conversations)
    assert len(forwards) == 2  # eight unlike frames
    assert encoder.num_frames_encoded == 8
    for prompt, conversation in zip(together, conversations, strict=True):
        assert same(prompt, LocalEncoder(target).encode(conversation))


def test_one_that_cannot_be_encoded_has_its_reason_and_the_others_their_prompts() -> None:
    encoder = LocalEncoder(target_of("llava15"))
    conversations = [of(FRAMES[0]), Conversation.of("an <image> of it", (FRAMES[1],)), of(FRAMES[2])]
    outcomes = encoder.encode_each(conversations)
    assert [type(outcome) for outcome in outcomes] == [EncodedPrompt, InvalidRequestError, EncodedPrompt]
    with pytest.raises(InvalidRequestError, match="<image>"):
        encoder.encode_many(conversations)


def test_threads_that_encode_at_once_get_their_own_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda problem: problems.append(problem.exc_value))
    problems: list[BaseException | None] = []
    interval_s = sys.getswitchinterval()
    target = target_of("qwen25_vl")
    encoder = cached(target)
    conversations = [of(FRAMES[0]), of(CLIP), of(), of(SMALL, FRAMES[1])]
    found: dict[int, list[EncodedPrompt]] = {}

    def encode(index: int) -> None:
        found[index] = [encoder.encode(conversations[(index + turn) % 4]) for turn in range(4)]

    threads = [threading.Thread(target=encode, args=(index,)) for index in range(4)]
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval_s)
    assert not problems
    expected = [LocalEncoder(target).encode(conversation) for conversation in conversations]
    for index, prompts in found.items():
        for turn, prompt in enumerate(prompts):
            assert same(prompt, expected[(index + turn) % 4])


def test_what_is_kept_does_not_hold_on_to_more_than_it_is() -> None:
    target = target_of("llava15")
    cache = MemoryVisualCache(2**24)
    encoder = LocalEncoder(target, cache)
    encoder.encode(of(FRAMES[0]))
    (tokens,) = (cache.get(encoder._tower.key(FRAMES[0].digest)),)
    assert tokens is not None
    assert tokens.features.untyped_storage().nbytes() == tokens.num_bytes == cache.num_bytes
    assert len(tokens) == 25
