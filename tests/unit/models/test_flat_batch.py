"""A flat batch whose last layer makes only what is read gives the same rows and the same cache as one that makes all."""

from __future__ import annotations

import pytest
import torch

from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.flat_batch import OpenRequest, flatten, missing
from flashsd_ray.models.kv_cache import KVCache
from flashsd_ray.models.linear import usual_rows
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.types import Conversation, SamplingParams
from tests.tiny_checkpoints import checkpoint


@pytest.fixture(scope="module")
def target() -> PretrainedTarget:
    return load_target(str(checkpoint("llava15")), dtype="float32", device="cpu")


def opened(target: PretrainedTarget, cache: KVCache, text: str) -> OpenRequest:
    prompt = LocalEncoder(target).encode(Conversation.of(text))
    cos, sin = target.decoder.rotary(prompt.positions)
    request = OpenRequest(prompt, SamplingParams(), cache.open(len(prompt) + 8), cos, sin)
    request.token_ids = list(prompt.token_ids)
    return request


def run(target: PretrainedTarget, num_read: list[int] | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    decoder = target.decoder
    cache = decoder.new_cache(256)
    requests = [opened(target, cache, text) for text in ("Tell me a story.", "What is it?", "Why?")]
    spans = [missing(request, len(request.prompt)) for request in requests]
    batch, firsts = flatten([], spans, decoder, cache, num_read)
    hidden = decoder.forward(batch, cache, (1,)).hidden
    if num_read is None:
        ends = [first + len(span) for first, span in zip(firsts, spans, strict=True)]
        hidden = torch.cat([hidden[ends[0] - 1 : ends[0]], hidden[ends[1] - 2 : ends[1]]])
    return hidden, cache.keys[:, :, 16:], cache.values[:, :, 16:]  # the first block is for padding


def test_rows_that_nobody_reads_are_left_out_of_the_last_layer(target: PretrainedTarget) -> None:
    for some, all_ in zip(run(target, [1, 2, 0]), run(target, None), strict=True):
        torch.testing.assert_close(some, all_, atol=1e-5, rtol=1e-4)


def test_where_nothing_is_read_the_cache_is_filled_all_the_same(target: PretrainedTarget) -> None:
    hidden, keys, values = run(target, [0, 0, 0])
    assert len(hidden) == 0
    _, all_keys, all_values = run(target, None)
    torch.testing.assert_close(keys, all_keys, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(values, all_values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("num_requests", [1, 3])
def test_keys_are_padded_to_numbers_that_come_often_and_nothing_changes(
    num_requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = load_target(str(checkpoint("llava15")), dtype="bfloat16", device="cpu")
    small.decoder.attends_wide = False
    found = []
    for is_padded in (True, False):
        if not is_padded:
            monkeypatch.setattr(small.decoder, "usual_keys", lambda count: count)
        cache = small.decoder.new_cache(256)
        requests = [opened(small, cache, text) for text in ("Tell me a story.", "What is it?", "Why?")[:num_requests]]
        whole, _ = flatten([], [missing(request, len(request.prompt)) for request in requests], small.decoder, cache)
        small.decoder.forward(whole, cache)
        for request in requests:
            request.sequence.length = len(request.prompt)
            request.token_ids.append(5)
        spans = [missing(request, len(request.token_ids), (6, 7)) for request in requests]
        batch, _ = flatten(spans, [], small.decoder, cache)
        longest = max(span.stop for span in spans)
        assert usual_rows(longest) > longest  # or nothing is tried
        assert batch.groups[0].length == (usual_rows(longest) if is_padded else longest)
        found.append(small.decoder.forward(batch, cache).hidden)
    torch.testing.assert_close(*found)
