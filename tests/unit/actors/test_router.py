"""The router over real lane hosts with weightless targets: nothing is lost, repeated or left running."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import numpy as np
import pytest

from flashsd_ray.actors.in_process import LocalLane
from flashsd_ray.actors.lane_host import LaneHost
from flashsd_ray.actors.router import Encoded, Router, prefix_key
from flashsd_ray.config import Config, SchedulingConfig, SpeculationConfig
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.engine.lane import Lane
from flashsd_ray.errors import DeadlineError, InvalidRequestError, OverloadedError, UnavailableError
from flashsd_ray.speculation.decode import decode, run_to_end
from flashsd_ray.types import (
    CaptionRequest,
    Conversation,
    DraftBlock,
    EncodedPrompt,
    Fill,
    FinishReason,
    SamplingParams,
    Verdict,
    VisualInput,
)
from tests.fake_service import CARD
from tests.fakes import NullDrafter, ScriptDrafter, TableTarget, seeded_logits, token_prompt

LOGITS = seeded_logits(26, seed=3)


def letters(token_ids: list[int]) -> str:
    return "".join(chr(97 + token_id) for token_id in token_ids)


def encoded(conversation: Conversation) -> EncodedPrompt:
    texts = [part for turn in conversation.turns for part in turn.parts if isinstance(part, str)]
    return token_prompt([ord(letter) % 26 for letter in "".join(texts)] or [0])


class LetterEncoding:
    """Each letter is a token."""

    def __init__(self, encoder_id: str = "encoder-1") -> None:
        self.encoder_id = encoder_id
        self.is_lost = False
        self.num_encoded = 0

    async def reserve(self, ticket: str) -> None:
        if self.is_lost:
            raise UnavailableError("this encoder is lost")

    async def encode(self, conversation: Conversation, trace: str = "", ticket: str = "") -> Encoded:
        if self.is_lost:
            raise UnavailableError("this encoder is lost")
        self.num_encoded += 1
        return Encoded(prompt=encoded(conversation))

    async def look(self) -> None:
        if self.is_lost:
            raise UnavailableError("this encoder is lost")


class GatedTarget(TableTarget):
    """The lane's thread waits where the test wants it to, and says that it has come there."""

    def __init__(self) -> None:
        super().__init__(LOGITS, max_rows=4000)
        self.gate, self.is_reached = threading.Event(), threading.Event()
        self.gate.set()

    def verify(self, blocks: Sequence[DraftBlock], fills: Sequence[Fill] = ()) -> list[Verdict]:
        self.is_reached.set()
        self.gate.wait()
        return super().verify(blocks, fills)


class Lanes:
    """Lane hosts that a test can lose."""

    def __init__(self, count: int, router: Router) -> None:
        self.targets = [GatedTarget() for _ in range(count)]
        config = Config(
            scheduling=SchedulingConfig(max_running=4, max_waiting=100), speculation=SpeculationConfig(draft_length=3)
        )
        self.hosts = [
            LaneHost(
                Lane(None, target, ScriptDrafter(drafts, 3), config, eos_token_ids=(25,), detokenize=letters),
                lane_id=f"lane-{index}",
            )
            for index, target in enumerate(self.targets)
        ]
        router.set_lanes([LocalLane(host, "test") for host in self.hosts])


def drafts(history: tuple[int, ...], length: int) -> list[int]:
    right = int(LOGITS(history).argmax())
    return [right if sum(history) % 3 else 1] + [(len(history) + i) % 7 for i in range(length)]


@asynccontextmanager
async def serving(count: int, patience_s: float = 30.0) -> AsyncIterator[tuple[Router, Lanes, LetterEncoding]]:
    router, encoder = Router(CARD, patience_s=patience_s), LetterEncoding()
    router.set_encoders([encoder])
    lanes = Lanes(count, router)
    while len(router._statuses) < count:  # until every feed has begun
        await asyncio.wait_for(router._changed.wait(), 5)
    try:
        yield router, lanes, encoder
    finally:
        await router.close()
        for host in lanes.hosts:
            await host.close()


def asking(number: int, tokens: int = 40, timeout_s: float | None = None) -> CaptionRequest:
    sampling = SamplingParams(max_new_tokens=tokens, temperature=(number % 2) * 0.8, seed=number)
    return CaptionRequest(request_id=f"r{number}", prompt=f"prompt{number}", sampling=sampling, timeout_s=timeout_s)


def expected(request: CaptionRequest) -> tuple[int, ...]:
    alone = decode(
        "oracle",
        encoded(request.conversation),
        request.sampling,
        TableTarget(LOGITS),
        NullDrafter(),
        eos_token_ids=(25,),
    )
    return run_to_end(alone).token_ids


async def answer(router: Router, request: CaptionRequest) -> list[Chunk]:
    async with aclosing(router.stream(request)) as stream:
        return [chunk async for chunk in stream]


def tokens_of(chunks: list[Chunk]) -> tuple[int, ...]:
    return tuple(token_id for chunk in chunks for token_id in chunk.token_ids)


async def test_answers_of_many_requests_over_two_lanes() -> None:
    async with serving(2) as (router, lanes, _):
        requests = [asking(number) for number in range(30)]
        answers = await asyncio.gather(*(answer(router, request) for request in requests))
        for request, chunks in zip(requests, answers, strict=True):
            assert tokens_of(chunks) == expected(request)
            shown = [token for token in expected(request) if token != 25]
            assert "".join(chunk.text for chunk in chunks) == letters(shown)
        assert all(target.num_forwards for target in lanes.targets)
        assert all(not target.sessions for target in lanes.targets)


async def test_a_lost_lane_costs_no_token() -> None:
    async with serving(2) as (router, lanes, _):
        requests = [asking(number, tokens=200) for number in range(16)]
        begun = asyncio.Event()

        async def watched(request: CaptionRequest) -> list[Chunk]:
            chunks = []
            async with aclosing(router.stream(request)) as stream:
                async for chunk in stream:
                    chunks.append(chunk)
                    begun.set()
            return chunks

        running = [asyncio.create_task(watched(request)) for request in requests]
        await begun.wait()
        await lanes.hosts[0].close()
        answers = await asyncio.gather(*running)
        for request, chunks in zip(requests, answers, strict=True):
            assert tokens_of(chunks) == expected(request)
            shown = [token for token in expected(request) if token != 25]
            assert "".join(chunk.text for chunk in chunks) == letters(shown)
            assert [chunk.finish_reason for chunk in chunks].count(None) == len(chunks) - 1
        assert not lanes.targets[1].sessions
        assert [status.lane_id for status in (await router.status()).lanes] == ["lane-1"]


async def test_the_last_lane_lost_ends_requests_with_a_retriable_error() -> None:
    async with serving(1, patience_s=0.0) as (router, lanes, _):
        target = lanes.targets[0]
        target.gate.clear()
        asked = asyncio.create_task(answer(router, asking(0)))
        await asyncio.to_thread(target.is_reached.wait)
        router.set_lanes([])
        try:
            with pytest.raises(UnavailableError, match="no lane"):
                await asked
        finally:
            target.gate.set()


async def test_leaving_early_frees_the_rows() -> None:
    async with serving(1) as (router, lanes, _):
        async with aclosing(router.stream(asking(1, tokens=2000))) as stream:
            async for _ in stream:
                break
        # A later request is opened after the cancellation was carried out: orders are taken in order.
        await answer(router, asking(2))
        assert not lanes.targets[0].sessions
        assert lanes.targets[0].free_rows == 4000


async def test_limits_of_the_lane_reach_the_caller() -> None:
    async with serving(1) as (router, _, _):
        with pytest.raises(InvalidRequestError, match=r"scheduling\.max_new_tokens"):
            await answer(router, asking(1, tokens=100_000))
        with pytest.raises(DeadlineError):
            await answer(router, asking(2, tokens=4000, timeout_s=1e-6))


async def test_another_encoder_steps_in() -> None:
    async with serving(1) as (router, _, first):
        second = LetterEncoding("encoder-2")
        router.set_encoders([first, second])
        first.is_lost = True
        for number in range(4):
            assert tokens_of(await answer(router, asking(number))) == expected(asking(number))
        assert second.num_encoded == 4
        second.is_lost = True
        router._patience_s = 0.0
        with pytest.raises(UnavailableError, match="no encoder"):
            await answer(router, asking(9))


async def test_a_draining_lane_finishes_what_it_has() -> None:
    async with serving(2) as (router, lanes, _):
        await answer(router, asking(1))
        await lanes.hosts[0].drain()
        requests = [asking(number) for number in range(10, 20)]
        answers = await asyncio.gather(*(answer(router, request) for request in requests))
        assert [tokens_of(chunks) for chunks in answers] == [expected(request) for request in requests]


async def test_a_round_that_fails_ends_its_requests_and_not_the_lane() -> None:
    async with serving(1) as (router, lanes, _):
        target, verify = lanes.targets[0], lanes.targets[0].verify
        failures = iter([RuntimeError("out of memory")])

        def failing(*args: object) -> object:
            error = next(failures, None)
            if error is not None:
                raise error
            return verify(*args)  # type: ignore[arg-type]

        target.verify = failing  # type: ignore[method-assign,assignment]
        # The request is decoded again, since what failed may have been a neighbour's fault.
        assert tokens_of(await answer(router, asking(3))) == expected(asking(3))


async def test_prefetching_reports_the_prompt_and_never_fails() -> None:
    async with serving(1) as (router, lanes, _):
        assert await router.prefetch(asking(5)) == len("prompt5")
        await lanes.hosts[0].drain()
        router._patience_s = 0.0
        assert await router.prefetch(asking(6)) == 0


def test_the_prefix_key_of_a_growing_video_stays() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), np.uint8)

    def video(count: int) -> Conversation:
        visual = VisualInput(kind="video", frames=frames[:count], timestamps_s=np.arange(count, dtype=float))
        return Conversation.of("what happens?", [visual])

    assert prefix_key(video(2)) == prefix_key(video(6)) != ""
    assert prefix_key(Conversation.of("hello")) == ""


async def test_finish_reasons_survive() -> None:
    async with serving(1) as (router, _, _):
        chunks = await answer(router, asking(4, tokens=3))
        assert chunks[-1].finish_reason is (FinishReason.STOP if 25 in expected(asking(4, 3)) else FinishReason.LENGTH)
        assert chunks[-1].stats is not None
        assert chunks[-1].num_prompt_tokens == len("prompt4")


async def test_a_full_lane_is_known_before_anything_is_encoded() -> None:
    async with serving(1) as (router, _, encoder):
        router.require_room()
        places = 104  # max_running and max_waiting
        router._num_in_flight = places
        encoded_before = encoder.num_encoded
        with pytest.raises(OverloadedError, match="max_waiting"):
            await answer(router, asking(999))
        assert encoder.num_encoded == encoded_before
        router._num_in_flight = 0
        assert tokens_of(await answer(router, asking(5))) == expected(asking(5))
