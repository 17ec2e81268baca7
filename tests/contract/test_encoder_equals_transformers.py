"""Conversations of any shape: the encoder hands the language model what the library's own model would hand it.

Obligations, for every family: the token ids of the library's processor; the embeddings, positions and deepstack rows of
its forward; and the greedy answer of its ``generate``, for text, images between words, videos, several turns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flashsd_ray.config import Config, ModelConfig, SchedulingConfig
from flashsd_ray.engine.local import Engine, view_of
from flashsd_ray.models.drafters import build_drafter
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.models.visual_cache import MemoryVisualCache
from flashsd_ray.types import CaptionRequest, Conversation, SamplingParams, Turn, VisualInput
from tests.reference_generate import image, load, model_inputs, reference, video
from tests.tiny_checkpoints import FAMILIES, checkpoint, missing_requirement

NUM_TOKENS = 24


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*shape, 3), dtype=np.uint8)


FIRST, SECOND = image(noise(1, 50, 70)), image(noise(2, 40, 40))
CLIP = video(noise(4, 5, 44, 60), np.array([0.0, 0.4, 1.1, 1.5, 2.0]), 2.5)


def user(*parts: str | VisualInput) -> Turn:
    return Turn(role="user", parts=parts)


def assistant(*parts: str) -> Turn:
    return Turn(role="assistant", parts=parts)


CONVERSATIONS = {
    "text": (user("What happens here?"),),
    "system": (Turn(role="system", parts=("Be brief.",)), user("What happens here?")),
    "turns": (user("What is red?"), assistant("A ball."), user("And ", "green?")),
    "image": (user(FIRST, "What is this?"),),
    "images between words": (user("Here ", FIRST, " and there ", SECOND, " are pictures."),),
    "image, then a question": (user(FIRST, "What is this?"), assistant("A dog."), user("Which colour?")),
    "image in two turns": (
        user(FIRST, "This?"),
        assistant("A dog."),
        user(SECOND, "And this?"),
        assistant("A cat."),
        user("So?"),
    ),
    "video": (user(CLIP, "What happens?"),),
    "video, then a question": (user(CLIP, "What happens?"), assistant("A dog runs."), user("Why?")),
    "video, then an image": (user(CLIP, "What happens?"), assistant("A dog runs."), user(FIRST, "Like here?")),
}


@lru_cache(maxsize=1)  # one family at a time is under test
def target_of(family: str) -> PretrainedTarget:
    missing = missing_requirement(family)
    if missing:
        pytest.skip(missing)
    return load_target(str(checkpoint(family)), dtype="float32", device="cpu")


def conversation(case: str) -> Conversation:
    return Conversation(turns=CONVERSATIONS[case])


def messages(case: str, *, with_pixels: bool = False) -> list[dict[str, Any]]:
    """The conversation as the library's users write it."""

    def part(one: str | VisualInput) -> dict[str, Any]:
        if isinstance(one, str):
            return {"type": "text", "text": one}
        return {"type": one.kind, **({"image": Image.fromarray(one.frames[0])} if with_pixels else {})}

    return [{"role": turn.role, "content": [part(one) for one in turn.parts]} for turn in CONVERSATIONS[case]]


def told(family: str, case: str) -> tuple[list[dict[str, Any]], tuple[VisualInput, ...]]:
    """The same, for a family that cannot have images beside a video: every frame is an image."""
    content, visuals = messages(case), conversation(case).visuals
    if family == "smolvlm2" and len({visual.kind for visual in visuals}) > 1:
        frames = [image(frame) for frame in CLIP.frames]
        content[0]["content"][:1] = [{"type": "image"}] * len(frames)
        visuals = (*frames, *visuals[1:])
    return content, visuals


def handed_over(family: str, case: str) -> tuple[list[int], dict[str, Any]]:
    """The library's own token ids, and what its forward gives to its language model."""
    target = target_of(family)
    processor, model = load(checkpoint(family))
    inputs = model_inputs(processor, *told(family, case))
    captured: dict[str, Any] = {}

    def keep(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        captured.update(kwargs)

    if hasattr(model.model, "rope_deltas"):
        model.model.rope_deltas = None
    hook = model.model.get_submodule(target.family.text_model).register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            model.model(**inputs)
    finally:
        hook.remove()
    return inputs["input_ids"][0].tolist(), captured


@pytest.mark.parametrize("case", CONVERSATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_language_model_is_handed_what_the_library_hands_it(family: str, case: str) -> None:
    target = target_of(family)
    token_ids, captured = handed_over(family, case)
    encoder = LocalEncoder(target, MemoryVisualCache(2**24))
    for encoded in (encoder.encode(conversation(case)), encoder.encode(conversation(case))):
        assert list(encoded.token_ids) == token_ids
        torch.testing.assert_close(encoded.embeddings, captured["inputs_embeds"][0], rtol=1e-5, atol=1e-5)
        positions = captured.get("position_ids")
        expected = torch.arange(len(token_ids))[None] if positions is None else positions[-3:, 0]
        assert torch.equal(encoded.positions, expected)
        deepstack = captured.get("deepstack_visual_embeds") or []
        assert len(encoded.deepstack) == len(deepstack)
        for ours, theirs in zip(encoded.deepstack, deepstack, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CONVERSATIONS if "video" not in case])
@pytest.mark.parametrize("family", FAMILIES)
def test_token_ids_are_those_of_the_librarys_chat_template_in_one_call(family: str, case: str) -> None:
    processor, _ = load(checkpoint(family))
    target = target_of(family)
    theirs = processor.apply_chat_template(
        messages(case, with_pixels=True), add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert list(LocalEncoder(target).encode(conversation(case)).token_ids) == theirs["input_ids"][0]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_to_conversations_are_those_of_generate(family: str) -> None:
    target = target_of(family)
    config = Config(model=ModelConfig(name="tiny"), scheduling=SchedulingConfig(cache_rows=4096))
    engine = Engine(target, build_drafter("block", view_of(target), compressor="latent", seed=3), config)
    sampling = SamplingParams(max_new_tokens=NUM_TOKENS)
    for case, turns in CONVERSATIONS.items():
        expected = reference(checkpoint(family), *told(family, case), max_new_tokens=NUM_TOKENS)
        answer = engine.caption(CaptionRequest(request_id=case, turns=turns, sampling=sampling))
        assert list(answer.token_ids) == expected.token_ids, case
