"""What every CaptionService must do, wherever its parts run: the same tokens as an engine in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.config import Config, MediaConfig, ModelConfig, SchedulingConfig
from flashsd_ray.engine.answers import Caption, joined
from flashsd_ray.engine.local import Engine
from flashsd_ray.errors import DeadlineError, InvalidRequestError
from flashsd_ray.media import load_visual
from flashsd_ray.types import CaptionRequest, FinishReason, SamplingParams, Turn, VisualInput

# float32: what is compared is the path of the data, not the rounding of a product.
CONFIG = Config(model=ModelConfig(dtype="float32", threads=1), scheduling=SchedulingConfig(cache_rows=8192))


def requests_about(clips: Sequence[Path], count: int = 24) -> list[CaptionRequest]:
    """Greedy and sampled requests of mixed lengths, about images, videos and nothing, in one turn and in several."""
    videos = [load_visual(clip, MediaConfig()) for clip in clips]
    found = []
    for number in range(count):
        video = videos[number % len(videos)]
        still = VisualInput(kind="image", frames=video.frames[:1], timestamps_s=video.timestamps_s[:1])
        visuals: tuple[VisualInput, ...] = ((video,), (still,), (), (still, video))[number % 4]
        sampling = SamplingParams(
            max_new_tokens=(6, 48, 20, 33)[number % 4], temperature=(0.0, 0.0, 0.9)[number % 3], top_p=0.95, seed=number
        )
        turns: tuple[Turn, ...] = (Turn(role="user", parts=(*visuals, "Describe the video in detail.")),)
        if number % 5 == 4:
            turns += (Turn(role="assistant", parts=("A park.",)), Turn(role="user", parts=("What moves?",)))
        found.append(CaptionRequest(request_id=f"q{number}", turns=turns, sampling=sampling))
    return found


def expected_of(engine: Engine, requests: Sequence[CaptionRequest]) -> list[Caption]:
    """The answers, each decoded alone and without drafts."""
    return [engine.caption(replace(request, draft_length=0)) for request in requests]


async def answer(service: CaptionService, request: CaptionRequest) -> Caption:
    async with aclosing(service.stream(request)) as stream:
        return joined([chunk async for chunk in stream])


class ServiceContract:
    """Subclasses provide the fixtures ``service`` and ``expected`` (of ``requests_about(clips)``)."""

    async def test_same_answers_alone(
        self, service: CaptionService, clips: list[Path], expected: list[Caption]
    ) -> None:
        requests = requests_about(clips)
        answers = [await answer(service, request) for request in requests[:8]]
        self.check(answers, expected[:8])

    async def test_same_answers_all_at_once(
        self, service: CaptionService, clips: list[Path], expected: list[Caption]
    ) -> None:
        answers = await asyncio.gather(*(answer(service, request) for request in requests_about(clips)))
        self.check(list(answers), expected)

    def check(self, answers: list[Caption], expected: list[Caption]) -> None:
        for mine, theirs in zip(answers, expected, strict=True):
            assert mine.token_ids == theirs.token_ids, mine.request_id
            assert mine.text == theirs.text
            assert mine.finish_reason == theirs.finish_reason
            assert mine.num_prompt_tokens == theirs.num_prompt_tokens
            assert mine.stats.num_new_tokens == len(theirs.token_ids)

    async def test_a_prefetched_prompt_is_found_in_the_cache(self, service: CaptionService, clips: list[Path]) -> None:
        video = load_visual(clips[-1], MediaConfig(), num_frames=5)
        begun = CaptionRequest(request_id="warm", visuals=(video,))
        cached = await service.prefetch(begun)
        asked = CaptionRequest(
            request_id="asked", prompt="What is it?", visuals=(video,), sampling=SamplingParams(max_new_tokens=4)
        )
        assert cached > 0
        assert (await answer(service, asked)).num_cached_tokens >= cached // 2

    async def test_leaving_early_frees_the_rows(self, service: CaptionService, clips: list[Path]) -> None:
        free = sum(lane.free_rows for lane in (await service.status()).lanes)
        request = CaptionRequest(
            request_id="left",
            visuals=(load_visual(clips[0], MediaConfig()),),
            sampling=SamplingParams(max_new_tokens=1500, ignore_eos=True),
        )
        async with aclosing(service.stream(request)) as stream:
            async for _ in stream:
                break
        lanes = (await service.status()).lanes
        while any(lane.num_running for lane in lanes):  # the order to cancel is on its way
            lanes = (await service.status()).lanes
        assert sum(lane.free_rows for lane in lanes) == free

    async def test_logprobs_are_of_the_tokens(self, service: CaptionService) -> None:
        sampling = SamplingParams(max_new_tokens=8, logprobs=3)
        request = CaptionRequest(request_id="lp", prompt="Hello", sampling=sampling)
        caption = await answer(service, request)
        assert tuple(token.token_id for token in caption.logprobs) == caption.token_ids
        for token in caption.logprobs:
            assert len(token.top) == 3
            assert token.top[0].logprob == pytest.approx(token.logprob, abs=1e-4)  # greedy: it is the best
            assert token.top[0].token_id == token.token_id

    async def test_typed_errors(self, service: CaptionService) -> None:
        too_long = CaptionRequest(request_id="e1", prompt="a", sampling=SamplingParams(max_new_tokens=10**6))
        with pytest.raises(InvalidRequestError, match=r"scheduling\.max_new_tokens"):
            await answer(service, too_long)
        with pytest.raises(InvalidRequestError, match="<image>"):
            await answer(service, CaptionRequest(request_id="e2", prompt="look: <image>"))
        with pytest.raises(DeadlineError):
            await answer(service, CaptionRequest(request_id="e3", prompt="a", timeout_s=1e-6))

    async def test_the_card_names_the_model(self, service: CaptionService) -> None:
        assert service.card.name == "demo"
        assert service.card.drafter == "block"
        assert service.card.context_length > 0
        assert service.card.num_vision_tokens == 36
        assert (await service.status()).is_ready

    async def test_stop_strings_and_finish_reasons(self, service: CaptionService) -> None:
        prompt, sampling = "Describe the video in detail.", SamplingParams(max_new_tokens=40)
        whole = await answer(service, CaptionRequest(request_id="w", prompt=prompt, sampling=sampling))
        words = whole.text.split()
        assert len(words) > 3
        cut = SamplingParams(max_new_tokens=40, stop=(f" {words[2]}",))
        stopped = await answer(service, CaptionRequest(request_id="s", prompt=prompt, sampling=cut))
        assert stopped.finish_reason is FinishReason.STOP
        assert whole.text.startswith(stopped.text)
        assert f" {words[2]}" not in stopped.text
