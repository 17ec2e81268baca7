"""The load generator's clients against real edges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from time import perf_counter

import pytest

from flashsd_ray.bench.serving.asker import asker_of
from flashsd_ray.bench.serving.asks import ANSWERED, BROKEN, EDGES, Ask, Edge, Outcome
from flashsd_ray.bench.serving.generator import load_generator
from flashsd_ray.bench.serving.load import Load
from flashsd_ray.bench.serving.server import Server
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import DeadlineError, FlashSDError, InvalidRequestError, OverloadedError, UnavailableError
from flashsd_ray.types import CaptionRequest
from tests.fake_service import EchoService
from tests.unit.bench.conftest import new_ask, served


async def outcome_of(server: Server, edge: Edge, ask: Ask) -> Outcome:
    asker = asker_of(edge, server.address(edge))
    await asker.open()
    try:
        return await asker.ask(ask, perf_counter)
    finally:
        await asker.close()


@pytest.mark.parametrize("edge", EDGES)
async def test_an_answer_and_its_times(edge: Edge, video: bytes) -> None:
    service = EchoService()
    async with served(service) as server:
        ask = new_ask(video, prompt="a b c", temperature=0.7, top_p=0.9, top_k=5, seed=3, max_new_tokens=4, logprobs=0)
        outcome = await outcome_of(server, edge, replace(ask, draft_length=0, timeout_s=50.0))
    assert (outcome.code, outcome.text, outcome.finish_reason) == (ANSWERED, "6 frames: a b", "length")
    assert outcome.num_tokens == 4
    assert outcome.token_texts == ("6", "frames:", "a", "b")
    assert outcome.token_ids == (1, 2, 3, 4)
    assert len(outcome.pieces_s) == 4
    assert outcome.start_s < outcome.pieces_s[0] <= outcome.pieces_s[-1] <= outcome.end_s
    (asked,) = service.asked
    assert asked.sampling == ask.sampling
    assert asked.draft_length == 0
    assert asked.timeout_s is not None
    assert 49.0 < asked.timeout_s < 51.0  # gRPC sends few digits of it


@pytest.mark.parametrize("edge", EDGES)
async def test_a_picture(edge: Edge, png: bytes) -> None:
    async with served(EchoService()) as server:
        ask = Ask(name="one", prompt="seen", picture=png, kind="image")
        assert (await outcome_of(server, edge, ask)).text == "1 frames: seen"


@pytest.mark.parametrize(
    ("error", "http", "grpc"),
    [
        (OverloadedError("full"), "429", "RESOURCE_EXHAUSTED"),
        (DeadlineError("late"), "504", "DEADLINE_EXCEEDED"),
        (UnavailableError("lost"), "503", "UNAVAILABLE"),
        (InvalidRequestError("wrong"), "400", "INVALID_ARGUMENT"),
    ],
)
async def test_a_refusal_is_an_outcome_and_is_not_sent_again(
    error: FlashSDError, http: str, grpc: str, video: bytes
) -> None:
    service = EchoService(fails=lambda request: error)
    async with served(service) as server:
        for edge, code in (("http", http), ("grpc", grpc)):
            outcome = await outcome_of(server, edge, new_ask(video))  # type: ignore[arg-type]
            assert outcome.code == code
            assert str(error) in outcome.detail
    assert len(service.asked) == 2


class BreakingService(EchoService):
    """Answers end in the middle."""

    def __init__(self, error: FlashSDError) -> None:
        super().__init__()
        self.error = error

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().stream(request):
            yield chunk
            raise self.error


@pytest.mark.parametrize("edge", EDGES)
async def test_an_answer_that_breaks_off_is_broken(edge: Edge, video: bytes) -> None:
    async with served(BreakingService(OverloadedError("too late to say so"))) as server:
        outcome = await outcome_of(server, edge, new_ask(video))
    assert outcome.code == BROKEN
    assert "too late" in outcome.detail


@pytest.mark.parametrize("edge", EDGES)
async def test_time_may_be_over_in_the_middle_of_an_answer(edge: Edge, video: bytes) -> None:
    async with served(BreakingService(DeadlineError("over"))) as server:
        outcome = await outcome_of(server, edge, new_ask(video))
    assert outcome.code == ("504" if edge == "http" else "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("edge", EDGES)
async def test_a_server_that_is_not_there_is_said_at_once(edge: Edge) -> None:
    address = {"http": "http://127.0.0.1:9/v1", "grpc": "127.0.0.1:9"}[edge]
    with pytest.raises(UnavailableError):
        await asker_of(edge, address).open()


async def test_the_generator_is_a_process_that_carries_out_loads_and_says_why_it_cannot(video: bytes) -> None:
    service, ended = EchoService(), list[None]()
    asks = tuple(new_ask(video, name=f"ask {number}") for number in range(5))
    async with served(service) as server:

        def run() -> None:
            with load_generator() as generator:
                with pytest.raises(UnavailableError):
                    generator.run(Load(edge="grpc", address="127.0.0.1:9", asks=asks, concurrency=1))
                load = Load(edge="http", address=server.http_url, asks=asks, concurrency=2)
                outcomes = generator.run(load, lambda: ended.append(None))
                assert [outcome.name for outcome in outcomes] == [ask.name for ask in asks]
                assert all(outcome.is_answered for outcome in outcomes)

        await asyncio.to_thread(run)
    assert len(ended) == len(service.asked) == 5
