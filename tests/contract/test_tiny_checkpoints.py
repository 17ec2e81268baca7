"""The tiny checkpoints load by the real path, and what they say depends on what they see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from flashsd_ray.models.torchvision_cpu import ensure_torchvision_imports
from flashsd_ray.types import VisualInput
from tests import reference_generate, tiny_checkpoints
from tests.reference_generate import Reference, conversation, image, model_inputs, reference, video

MAX_NEW_TOKENS = 48


def picture(seed: int, height: int = 61, width: int = 93) -> np.ndarray:
    """Returns a smooth random picture [H, W, 3] uint8 of an odd size."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height)))


def clip(num_frames: int = 5) -> VisualInput:
    """Returns a video of unlike frames, 0.75 s apart, that starts at 0.5 s."""
    frames = np.stack([picture(10 + index, 45, 67) for index in range(num_frames)])
    return video(frames, 0.5 + 0.75 * np.arange(num_frames), duration_s=4.0)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Greedy text is compared, so sums are taken in one order."""
    torch.set_num_threads(1)


@pytest.fixture(params=tiny_checkpoints.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Every family whose processor can be loaded here."""
    reason = tiny_checkpoints.missing_requirement(request.param)
    if reason is not None:
        pytest.skip(reason)
    return request.param


def answer(family: str, *visuals: VisualInput) -> Reference:
    """Returns the greedy answer of a family's checkpoint to one prompt."""
    messages = conversation("what happens here?", visuals)
    return reference(tiny_checkpoints.checkpoint(family), messages, visuals, max_new_tokens=MAX_NEW_TOKENS)


def test_text_is_varied_and_does_not_end_at_once(family: str) -> None:
    for visuals in ((), (image(picture(1)),), (clip(),)):
        tokens = answer(family, *visuals).token_ids
        assert len(tokens) > 5
        assert len(set(tokens)) > 0.3 * len(tokens)


def test_end_token_comes_in_some_answers_but_not_in_all(family: str) -> None:
    _, model = reference_generate.load(tiny_checkpoints.checkpoint(family))
    ends = set(model.generation_config.eos_token_id)
    prompts = [(), *((image(picture(seed)),) for seed in range(1, 9)), (clip(5),), (clip(8),)]
    ended = [bool(ends & set(answer(family, *visuals).token_ids)) for visuals in prompts]
    assert any(ended)
    assert not all(ended)


def test_picture_changes_the_text(family: str) -> None:
    first, second = answer(family, image(picture(1))), answer(family, image(picture(2)))
    assert first.prompt_ids == second.prompt_ids
    assert first.token_ids != second.token_ids
    assert answer(family, image(picture(1))) == first


def test_order_of_pictures_changes_the_text(family: str) -> None:
    pictures = [image(picture(seed)) for seed in (1, 2, 3)]
    assert answer(family, *pictures).token_ids != answer(family, *reversed(pictures)).token_ids


def test_video_differs_from_its_first_frame_and_from_its_reverse(family: str) -> None:
    forwards = clip()
    backwards = video(forwards.frames[::-1].copy(), forwards.timestamps_s, forwards.duration_s)
    still = image(forwards.frames[0])
    assert answer(family, forwards).token_ids != answer(family, still).token_ids
    assert answer(family, forwards).token_ids != answer(family, backwards).token_ids


def test_every_frame_is_encoded_and_its_time_is_told(family: str) -> None:
    processor, _ = reference_generate.load(tiny_checkpoints.checkpoint(family))
    visuals = (clip(6),)
    inputs = model_inputs(processor, conversation("what happens here?", visuals), visuals)
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    if family == "qwen25_vl":
        assert inputs["video_grid_thw"][0, 0] == 3
        assert inputs["second_per_grid_ts"].tolist() == [1.5]
    elif family == "qwen3_vl":
        assert [f"<{time} seconds>" in text for time in ("0.9", "2.4", "3.9")] == [True] * 3
    elif family == "smolvlm2":
        assert inputs["pixel_values"].shape[:2] == (1, 6)
        assert "six frames from a 0:00:04" in text
        assert "Frame from 00:04:" in text
    elif family == "llava_onevision":
        assert inputs["pixel_values_videos"].shape[:2] == (1, 6)
    else:
        assert inputs["pixel_values"].shape[0] == 6


@torch.no_grad()
def test_text_model_alone_repeats_what_the_whole_model_computes(family: str) -> None:
    processor, model = reference_generate.load(tiny_checkpoints.checkpoint(family))
    visuals = (clip(),) if family == "smolvlm2" else (image(picture(1)), clip())
    inputs = model_inputs(processor, conversation("what happens here?", visuals), visuals)
    text_model = getattr(model.model, "language_model", None) or model.model.text_model
    seen: dict[str, object] = {}
    handle = text_model.register_forward_pre_hook(lambda _, __, named: seen.update(named), with_kwargs=True)
    expected = model.model(**inputs, use_cache=False).last_hidden_state
    handle.remove()
    names = ("inputs_embeds", "position_ids", "visual_pos_masks", "deepstack_visual_embeds")
    named = {name: seen[name] for name in names if seen.get(name) is not None}
    assert torch.equal(text_model(**named, use_cache=False).last_hidden_state, expected)
    assert ("position_ids" in named) == family.startswith("qwen")
    assert ("deepstack_visual_embeds" in named) == (family == "qwen3_vl")


def test_benchmark_checkpoint_has_about_47_million_parameters() -> None:
    reason = tiny_checkpoints.missing_requirement("qwen25_47m")
    if reason is not None:
        pytest.skip(reason)
    _, model = reference_generate.load(tiny_checkpoints.checkpoint("qwen25_47m"), torch.bfloat16)
    assert 44e6 < sum(parameter.numel() for parameter in model.parameters()) < 50e6
    assert model.dtype == torch.bfloat16


def test_torchvision_is_found_usable_or_not_twice_alike() -> None:
    assert ensure_torchvision_imports() == ensure_torchvision_imports() == tiny_checkpoints.HAS_TORCHVISION
