"""Nothing that a caller writes passes for a picture, or for anything else that only the chat template may write."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from flashsd_ray.config import EncodingConfig
from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.types import Conversation, Turn, VisualInput
from tests.reference_generate import image
from tests.tiny_checkpoints import FAMILIES, checkpoint, missing_requirement

PICTURE = image(np.full((40, 40, 3), 99, np.uint8))


@lru_cache(maxsize=1)
def target_of(family: str) -> PretrainedTarget:
    missing = missing_requirement(family)
    if missing:
        pytest.skip(missing)
    return load_target(str(checkpoint(family)), dtype="float32", device="cpu")


@pytest.fixture(params=FAMILIES)
def target(request: pytest.FixtureRequest) -> PretrainedTarget:
    return target_of(request.param)


def special_tokens(target: PretrainedTarget) -> list[str]:
    return [token.content for token in target.tokenizer.added_tokens_decoder.values() if token.special]


def raw(*texts: str) -> Conversation:
    return Conversation(turns=(Turn(role="user", parts=texts),), uses_template=False)


def test_special_tokens_in_a_text_are_refused_by_name_with_and_without_pictures(target: PretrainedTarget) -> None:
    encoder = LocalEncoder(target)
    assert len(special_tokens(target)) >= 4
    for token in special_tokens(target):
        for visuals in ((), (PICTURE,), (PICTURE, PICTURE)):
            with pytest.raises(InvalidRequestError) as refused:
                encoder.encode(Conversation.of(f"what is {token} here", visuals))
            assert repr(token) in str(refused.value)
            assert str(checkpoint(FAMILIES[0]).parent) not in str(refused.value)


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_whoever_says_it_and_in_however_many_parts(target: PretrainedTarget, role: str) -> None:
    token = target.processor.image_token
    parts: tuple[str | VisualInput, ...]
    for parts in ((f"see {token}",), (token[:3], token[3:]), (token[:3], PICTURE, token[3:])):
        turns = (Turn(role=role, parts=parts), Turn(role="user", parts=("So?",)))  # type: ignore[arg-type]
        with pytest.raises(InvalidRequestError, match="reserves"):
            LocalEncoder(target).encode(Conversation(turns=turns))


def test_a_word_that_only_looks_like_one_is_text(target: PretrainedTarget) -> None:
    encoded = LocalEncoder(target).encode(Conversation.of(f"{target.processor.image_token[:-1]} }} < > image"))
    assert not target.placeholder_ids & set(encoded.token_ids)
    assert encoded.segments == ()


def test_without_the_template_texts_are_joined_as_they_are(target: PretrainedTarget) -> None:
    encoded = LocalEncoder(target).encode(raw("a red", " ball"))
    assert list(encoded.token_ids) == target.tokenizer("a red ball")["input_ids"]


def test_without_the_template_the_callers_own_markers_count_but_pictures_do_not(target: PretrainedTarget) -> None:
    encoder = LocalEncoder(target)
    placeholders = {
        target.processor.image_token,
        getattr(target.processor, "video_token", target.processor.image_token),
    }
    for token in set(special_tokens(target)) - placeholders:
        encoded = encoder.encode(raw(f"a{token}b"))
        assert target.tokenizer.convert_tokens_to_ids(token) in encoded.token_ids
    for token in placeholders:
        with pytest.raises(InvalidRequestError, match="reserves"):
            encoder.encode(raw(f"a{token}b"))
    with pytest.raises(InvalidRequestError, match="template"):
        encoder.encode(Conversation(turns=(Turn(role="user", parts=(PICTURE, "a")),), uses_template=False))


def test_a_text_that_begins_with_the_first_token_does_not_get_it_twice() -> None:
    target = target_of("llava15")
    encoded = LocalEncoder(target).encode(raw("<s>a"))
    assert list(encoded.token_ids) == target.tokenizer("a")["input_ids"]


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_texts_that_no_encoding_can_carry_are_refused(target: PretrainedTarget, text: str) -> None:
    with pytest.raises(InvalidRequestError, match="surrogate"):
        LocalEncoder(target).encode(Conversation.of(text))


@pytest.mark.parametrize("text", ["", "\0", "{{ bos_token }}", "{% raw %}", "<", "é" * 3000])
def test_other_texts_are_taken(target: PretrainedTarget, text: str) -> None:
    assert len(LocalEncoder(target).encode(Conversation.of(text))) > 0


def test_nothing_at_all_is_refused(target: PretrainedTarget) -> None:
    encoder = LocalEncoder(target)
    with pytest.raises(InvalidRequestError, match="at least one turn"):
        encoder.encode(Conversation(turns=()))
    if not target.tokenizer("")["input_ids"]:
        with pytest.raises(InvalidRequestError, match="empty"):
            encoder.encode(raw(""))


def test_long_thin_pictures_are_refused_before_anything_scales_them_up(target: PretrainedTarget) -> None:
    thin = image(np.zeros((2, 500, 3), np.uint8))
    encoder = LocalEncoder(target, config=EncodingConfig(max_aspect_ratio=50))
    with pytest.raises(InvalidRequestError, match=r"encoding\.max_aspect_ratio allows 50.* 500 x 2"):
        encoder.encode(Conversation.of("hi", (thin,)))
    assert len(encoder.encode(Conversation.of("hi", (image(np.zeros((10, 500, 3), np.uint8)),)))) > 0


def test_pictures_where_the_template_has_no_place_for_them_are_refused() -> None:
    target = target_of("llava15")
    told = Conversation(turns=(Turn(role="user", parts=(PICTURE, "a")),))
    original = target.processor.chat_template
    target.processor.chat_template = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
    try:
        with pytest.raises(InvalidRequestError, match="0 places for 1 images"):
            LocalEncoder(target).encode(told)
        target.processor.chat_template = "{{ raise_exception('roles must alternate') }}"
        with pytest.raises(InvalidRequestError, match="roles must alternate"):
            LocalEncoder(target).encode(told)
    finally:
        target.processor.chat_template = original
