"""A CaptionService without a model: it says back what it was asked, a word at a time, under the test's control."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from flashsd_ray.actors.service import LaneStatus, ModelCard, ServiceStatus
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.errors import FlashSDError, OverloadedError
from flashsd_ray.speculation.stats import RoundStats, SpeculationStats
from flashsd_ray.types import CaptionRequest, FinishReason, TokenLogprob, VisualInput

CARD = ModelCard(
    name="echo",
    family="fake",
    context_length=4096,
    max_new_tokens=256,
    fingerprint="f00d",
    drafter="block",
    compressor="latent",
    dtype="float32",
    num_vision_tokens=4,
)


def spoken(request: CaptionRequest) -> list[str]:
    """The words of the answer: how many frames were seen, then the last text of the conversation."""
    conversation = request.conversation
    frames = sum(len(visual.frames) for visual in conversation.visuals)
    texts = [part for turn in conversation.turns for part in turn.parts if not isinstance(part, VisualInput)]
    words = [f"{frames}", "frames:", *(texts[-1].split() if texts else [])]
    return words[: request.sampling.max_new_tokens]


class EchoService:
    """Keeps the protocol of actors/service.py; ``gate`` holds every word back until the test opens it."""

    def __init__(self, *, fails: Callable[[CaptionRequest], FlashSDError | None] = lambda request: None) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = fails
        self.asked: list[CaptionRequest] = []
        self.prefetched: list[CaptionRequest] = []
        self.open: set[str] = set()
        self.cancelled: list[str] = []
        self.degraded: tuple[str, ...] = ()
        self.is_ready = True
        self.is_full = False
        self.is_closed = False
        self.lane_meters = LaneMeters()

    @property
    def card(self) -> ModelCard:
        return CARD

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        error = self.fails(request)
        if error is not None:
            raise error
        self.open.add(request.request_id)
        words = spoken(request)
        try:
            for index, word in enumerate(words):
                await self.gate.wait()
                await asyncio.sleep(0)
                is_last = index == len(words) - 1
                length = len(words) == request.sampling.max_new_tokens
                yield Chunk(
                    request_id=request.request_id,
                    text=word if index == 0 else f" {word}",
                    token_ids=(index + 1,),
                    num_accepted=index % 2,
                    num_drafted=1,
                    logprobs=self._logprobs(request, index + 1, word),
                    finish_reason=None if not is_last else FinishReason.LENGTH if length else FinishReason.STOP,
                    num_prompt_tokens=7,
                    num_cached_tokens=3,
                    stats=self._stats(len(words)) if is_last else None,
                )
        except GeneratorExit:
            self.cancelled.append(request.request_id)
            raise
        finally:
            self.open.discard(request.request_id)

    def require_room(self) -> None:
        if self.is_full:
            raise OverloadedError("every place is taken")

    async def prefetch(self, request: CaptionRequest) -> int:
        self.prefetched.append(request)
        return 4 * sum(len(visual.frames) for visual in request.conversation.visuals)

    async def status(self) -> ServiceStatus:
        lane = LaneStatus(lane_id="lane-0", num_running=len(self.open), free_rows=1000, total_rows=1024)
        return ServiceStatus(is_ready=self.is_ready, lanes=(lane,), degraded=self.degraded)

    async def meters(self) -> dict[str, LaneMeters]:
        return {"lane-0": self.lane_meters}

    async def close(self) -> None:
        self.is_closed = True

    @staticmethod
    def _logprobs(request: CaptionRequest, token_id: int, word: str) -> tuple[TokenLogprob, ...]:
        if request.sampling.logprobs is None:
            return ()
        other = TokenLogprob(token_id=token_id, logprob=-0.5, text=word)
        return (TokenLogprob(token_id=token_id, logprob=-0.5, text=word, top=(other,) * request.sampling.logprobs),)

    @staticmethod
    def _stats(num_words: int) -> SpeculationStats:
        rounds = [RoundStats(num_draft_tokens=1, num_accepted_tokens=1, num_new_tokens=1)] * (num_words - 1)
        return sum((SpeculationStats.of_round(one) for one in rounds), SpeculationStats.of_prefill())
