"""Whatever family, drafter, batch or chunking: the engine's greedy tokens are those of transformers' ``generate``.

Obligations: one image, several images, a video, text alone; speculation off and on; batches of mixed lengths; prompts
in small chunks; shared prefixes; every drafter with every compressor.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from flashsd_ray.config import Config, ModelConfig, SchedulingConfig
from flashsd_ray.engine.local import Engine, view_of
from flashsd_ray.models import compressors
from flashsd_ray.models.drafters import build_drafter
from flashsd_ray.models.drafters import names as drafter_names
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.types import CaptionRequest, SamplingParams, VisualInput
from tests.reference_generate import conversation, image, reference, video
from tests.tiny_checkpoints import FAMILIES, checkpoint, missing_requirement

PROMPT = "What happens here?"
NUM_TOKENS = 32


@lru_cache(maxsize=1)  # one family at a time is under test
def target_of(family: str) -> PretrainedTarget:
    missing = missing_requirement(family)
    if missing:
        pytest.skip(missing)
    return load_target(str(checkpoint(family)), dtype="float32", device="cpu")


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*shape, 3), dtype=np.uint8)


VISUALS: dict[str, tuple[VisualInput, ...]] = {
    "text": (),
    "image": (image(noise(1, 50, 70)),),
    "images": (image(noise(1, 50, 70)), image(noise(2, 40, 40)), image(noise(3, 60, 30))),
    "video": (video(noise(4, 5, 44, 60), np.array([0.0, 0.4, 1.1, 1.5, 2.0]), 2.5),),
}


@lru_cache(maxsize=64)
def expected(family: str, case: str) -> tuple[int, ...]:
    visuals = VISUALS[case]
    answer = reference(checkpoint(family), conversation(PROMPT, visuals), visuals, max_new_tokens=NUM_TOKENS)
    return tuple(answer.token_ids)


def engine_with(target: PretrainedTarget, kind: str, compressor: str = "latent", **scheduling: int | bool) -> Engine:
    drafter = build_drafter(kind, view_of(target), compressor=compressor, seed=3)
    limits = SchedulingConfig(**{"cache_rows": 4096, **scheduling})  # type: ignore[arg-type]
    return Engine(target, drafter, Config(model=ModelConfig(name="tiny"), scheduling=limits), drafter_name=kind)


def ask(case: str, request_id: str = "", **sampling: float) -> CaptionRequest:
    params = SamplingParams(**{"max_new_tokens": NUM_TOKENS, **sampling})  # type: ignore[arg-type]
    return CaptionRequest(request_id=request_id or case, prompt=PROMPT, visuals=VISUALS[case], sampling=params)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["none", "block"])
def test_each_case_alone(family: str, kind: str) -> None:
    engine = engine_with(target_of(family), kind)
    for case in VISUALS:
        assert engine.caption(ask(case)).token_ids == expected(family, case), case


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["none", "lookup", "block"])
def test_mixed_lengths_decoded_together_in_small_chunks(family: str, kind: str) -> None:
    engine = engine_with(target_of(family), kind, prefill_rows=24, max_running=3)
    requests = [ask(case, f"{case}-{copy}") for copy in range(2) for case in VISUALS]
    answers = {caption.request_id: caption.token_ids for caption in engine.caption_many(requests)}
    assert answers == {request.request_id: expected(family, request.request_id[:-2]) for request in requests}


@pytest.mark.parametrize("compressor", compressors.names())
@pytest.mark.parametrize("kind", [name for name in drafter_names() if name not in ("none", "lookup")])
def test_every_drafter_with_every_compressor(kind: str, compressor: str) -> None:
    engine = engine_with(target_of("llava15"), kind, compressor)
    requests = [ask(case) for case in VISUALS]
    answers = {caption.request_id: caption.token_ids for caption in engine.caption_many(requests)}
    assert answers == {case: expected("llava15", case) for case in VISUALS}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_question_about_the_same_pictures_reuses_their_rows(family: str) -> None:
    target = target_of(family)
    sharing, plain = engine_with(target, "block"), engine_with(target, "block", share_prefixes=False)
    for engine in (sharing, plain):
        engine.caption(ask("images"))
    again = CaptionRequest(
        request_id="again",
        prompt="And now?",
        visuals=VISUALS["images"],
        sampling=SamplingParams(max_new_tokens=NUM_TOKENS),
    )
    rows = []
    for engine in (sharing, plain):
        verifier = engine.verifier
        opened = verifier.open("probe", engine.lane._encoder.encode(again.conversation), again.sampling, 400)
        verifier.close("probe")
        rows.append(opened)
    assert rows[1] == 0
    assert rows[0] >= 32
    assert sharing.caption(again).token_ids == plain.caption(again).token_ids


@pytest.mark.parametrize("kind", ["lookup", "block", "flash", "ar"])
def test_sampling_with_a_seed_gives_the_same_text_whatever_drafts(kind: str) -> None:
    target = target_of("llava15")
    requests = [ask(case, temperature=0.9, top_p=0.95, seed=7) for case in VISUALS]
    plain = {c.request_id: c.token_ids for c in engine_with(target, "none").caption_many(requests)}
    drafted = {c.request_id: c.token_ids for c in engine_with(target, kind).caption_many(reversed(requests))}
    assert drafted == plain
    assert plain["image"] != expected("llava15", "image")


def test_streams_that_take_turns_lose_nothing_and_a_stream_left_early_frees_its_rows() -> None:
    engine = engine_with(target_of("llava15"), "lookup")
    before = engine.verifier.free_rows
    streams = {case: engine.stream(ask(case)) for case in VISUALS}
    tokens: dict[str, list[int]] = {case: [] for case in VISUALS}
    abandoned = engine.stream(ask("image", "abandoned"))
    next(abandoned)
    while streams:
        for case, stream in list(streams.items()):
            chunk = next(stream)
            tokens[case] += chunk.token_ids
            if chunk.finish_reason is not None:
                del streams[case]
    abandoned.close()
    assert {case: tuple(ids) for case, ids in tokens.items()} == {case: expected("llava15", case) for case in VISUALS}
    assert engine.lane.is_idle
    assert engine.verifier.free_rows == before
