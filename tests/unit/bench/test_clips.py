"""The clips and what is asked about them."""

from __future__ import annotations

from collections import Counter

import pytest

from flashsd_ray.bench.serving.clips import ClipFile, detailed_asks, held_out_clips, mixed_asks, visual_of
from flashsd_ray.bench.serving.expected import request_of
from flashsd_ray.config import Config, MediaConfig


@pytest.fixture(scope="module")
def clips() -> list[ClipFile]:
    return held_out_clips(5)


def test_no_two_clips_have_the_same_content(clips: list[ClipFile]) -> None:
    assert len({visual_of(clip.content).digest for clip in clips}) == 5


def test_each_clip_is_asked_greedily_and_sampled_in_many_ways(clips: list[ClipFile]) -> None:
    asks = mixed_asks(clips)
    assert len({ask.name for ask in asks}) == len(asks) == 10
    assert Counter(ask.sampling.is_greedy for ask in asks) == {True: 5, False: 5}
    assert Counter(ask.kind for ask in asks) == {"video": 8, "image": 2}
    assert len({ask.sampling.max_new_tokens for ask in asks}) == 5
    assert len({ask.prompt for ask in asks}) >= 4
    for is_greedy in (True, False):  # tokens are compared for both, where they are told by log-probabilities only
        assert {ask.sampling.logprobs for ask in asks if ask.sampling.is_greedy is is_greedy} == {0, None}


def test_the_engine_is_asked_the_same(clips: list[ClipFile]) -> None:
    for ask in mixed_asks(clips):
        request = request_of(ask, Config())
        (visual,) = request.visuals
        assert (request.prompt, request.sampling, request.draft_length) == (ask.prompt, ask.sampling, 0)
        assert visual.kind == ask.kind
        assert len(visual.frames) == (MediaConfig().num_frames if ask.kind == "video" else 1)


def test_detailed_captions_have_one_length(clips: list[ClipFile]) -> None:
    asks = detailed_asks(clips, max_new_tokens=7)
    assert [ask.picture for ask in asks] == [clip.content for clip in clips]
    assert {ask.sampling.max_new_tokens for ask in asks} == {7}
