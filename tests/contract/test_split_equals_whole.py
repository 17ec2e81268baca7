"""A target split over ranks answers as the whole one does: same greedy tokens, same drafts, same seeded samples.

Obligations: every family and the bundled model; drafts or none; batches of mixed lengths in small chunks; more ranks
than key/value heads; every rank holds its part of the weights and of the cache; the fingerprint is the whole target's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from flashsd_ray.config import Config, SchedulingConfig
from flashsd_ray.engine.local import Engine, view_of
from flashsd_ray.models.drafters import build_drafter
from flashsd_ray.models.parallel.decoders import LeadingDecoder
from flashsd_ray.models.parallel.loading import PartialTarget
from flashsd_ray.models.parallel.orders import Measure
from flashsd_ray.models.parallel.worker import holding_of
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.types import CaptionRequest, SamplingParams, VisualInput
from tests.parallel_ranks import split_target
from tests.reference_generate import image, video
from tests.tiny_checkpoints import FAMILIES, checkpoint, missing_requirement

NUM_TOKENS = 32
CASES = [(family, 2) for family in FAMILIES] + [("demo", 2), ("llava15", 4)]


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*shape, 3), dtype=np.uint8)


VISUALS: dict[str, tuple[VisualInput, ...]] = {
    "text": (),
    "image": (image(noise(1, 50, 70)),),
    "images": (image(noise(1, 50, 70)), image(noise(2, 40, 40)), image(noise(3, 60, 30))),
    "video": (video(noise(4, 5, 44, 60), np.array([0.0, 0.4, 1.1, 1.5, 2.0]), 2.5),),
}


def ask(case: str, **sampling: float) -> CaptionRequest:
    params = SamplingParams(**{"max_new_tokens": NUM_TOKENS, **sampling})  # type: ignore[arg-type]
    return CaptionRequest(request_id=case, prompt="What happens here?", visuals=VISUALS[case], sampling=params)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def both(request: pytest.FixtureRequest) -> Iterator[tuple[PretrainedTarget, PartialTarget]]:
    family, size = request.param
    missing = None if family == "demo" else missing_requirement(family)
    if missing:
        pytest.skip(missing)
    name = family if family == "demo" else str(checkpoint(family))
    split = split_target(name, size)
    yield load_target(name, dtype="float32", device="cpu"), split
    leading_of(split).close()


def leading_of(split: PartialTarget) -> LeadingDecoder:
    assert isinstance(split.decoder, LeadingDecoder)
    return split.decoder


def engine_with(target: PretrainedTarget, kind: str, **scheduling: int) -> Engine:
    config = Config(scheduling=replace(SchedulingConfig(cache_rows=2048), **scheduling))
    return Engine(target, build_drafter(kind, view_of(target), seed=3), config, drafter_name=kind)


def answers(engine: Engine, **sampling: float) -> dict[str, tuple[int, ...]]:
    return {one.request_id: one.token_ids for one in engine.caption_many([ask(case, **sampling) for case in VISUALS])}


def test_greedy_tokens_are_the_same_with_drafts_and_without(both: tuple[PretrainedTarget, PartialTarget]) -> None:
    whole, split = both
    expected = answers(engine_with(whole, "none"))
    assert len(set(expected.values())) == len(VISUALS)
    assert answers(engine_with(split, "none")) == expected
    assert answers(engine_with(split, "block", prefill_rows=24, max_running=3)) == expected


def test_every_rank_holds_its_part(both: tuple[PretrainedTarget, PartialTarget]) -> None:
    whole, split = both
    assert split.fingerprint == whole.fingerprint
    leading, size = leading_of(split), leading_of(split).ranks.size
    engine_with(split, "none")
    measured = leading.crew.ask(Measure())
    embedding = whole.decoder.embedding.nbytes
    layers = holding_of(whole.decoder, 0).weight_bytes - embedding
    head = 0 if whole.model.config.tie_word_embeddings else whole.decoder.lm_head.nbytes
    kv_heads = whole.decoder.num_kv_heads
    shared = kv_heads * 2 * whole.decoder.head_dim * whole.decoder.hidden_size * 4 * whole.decoder.num_layers
    norms = 2**15  # of all layers together at most; every rank has them
    copies = shared * max(0, size / kv_heads - 1) / size  # of key/value heads that several ranks hold
    for holding in measured:
        assert holding["weight_bytes"] <= (layers - head) / size * 1.25 + head / size + copies + norms
    assert (
        holding_of(leading, 0).weight_bytes - embedding <= (layers - head) / size * 1.25 + head / size + copies + norms
    )
    caches = leading.new_cache(64)
    assert caches.keys.shape[1] == max(1, kv_heads // size)


@pytest.mark.parametrize("kind", ["none", "lookup", "flash", "ar"])
def test_seeded_samples_of_a_split_target_do_not_depend_on_drafts(kind: str) -> None:
    split = split_target(checkpoint("llava15"), 2)
    sampling = {"temperature": 0.9, "top_p": 0.95, "seed": 7}
    assert answers(engine_with(split, kind), **sampling) == answers(engine_with(split, "none"), **sampling)
    leading_of(split).close()
