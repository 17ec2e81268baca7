"""What is counted, logged and traced at an edge, and that the answer is the same as without it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flashsd_ray.actors.metered_service import MeteredService
from flashsd_ray.actors.service import ServiceStatus
from flashsd_ray.config import TelemetryConfig
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import OverloadedError, UnavailableError
from flashsd_ray.telemetry.logs import log_as
from flashsd_ray.telemetry.metrics import EdgeMeters
from flashsd_ray.telemetry.otlp import KeptTraces
from flashsd_ray.types import CaptionRequest, SamplingParams
from tests.fake_service import EchoService, spoken

SECRET = "the secret prompt of a client"


class Clock:
    """Stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Edge:
    """A metered echo, and everything that can be read off it."""

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner or EchoService()
        self.meters = EdgeMeters()
        self.clock = Clock()
        self.exporter = InMemorySpanExporter()
        traces = KeptTraces(SimpleSpanProcessor(self.exporter), "http")
        self.service = MeteredService(self.inner, self.meters, "http", traces=traces, clock=self.clock)

    def value(self, name: str, **labels: str) -> float | None:
        return self.meters.registry.get_sample_value(f"flashsd_{name}", {"edge": "http", **labels})

    @property
    def spans(self) -> list[tuple[str, str]]:
        return [(span.name, span.attributes["flashsd.outcome"]) for span in self.exporter.get_finished_spans()]


@pytest.fixture(autouse=True)
def logger(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    mine = logging.getLogger("flashsd_ray")
    before = (list(mine.handlers), mine.level, mine.propagate)
    log_as(TelemetryConfig(log_format="json"), "http")
    yield
    mine.handlers[:], mine.level, mine.propagate = before
    mine.setLevel(before[1])


def ask(prompt: str = SECRET, **sampling: Any) -> CaptionRequest:
    return CaptionRequest(request_id="req-1", prompt=prompt, sampling=SamplingParams(**sampling))


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_the_answer_is_the_inner_services() -> None:
    edge = Edge()
    chunks = [chunk async for chunk in edge.service.stream(ask())]
    assert [chunk.text.strip() for chunk in chunks] == spoken(ask())
    assert chunks == [chunk async for chunk in EchoService().stream(ask())]
    assert edge.service.card is edge.inner.card
    assert (await edge.service.status()) == await edge.inner.status()
    assert (await edge.service.meters()).keys() == {"lane-0"}
    await edge.service.close()
    assert edge.inner.is_closed


async def test_an_answer_is_counted() -> None:
    edge = Edge()
    edge.inner.gate.clear()
    chunks = edge.service.stream(ask())
    first = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    assert edge.value("open_requests") == 1
    edge.clock.now_s += 0.2
    edge.inner.gate.set()
    num_words = len(spoken(ask()))
    await first
    edge.clock.now_s += 3.0
    async for _ in chunks:
        pass
    assert edge.value("open_requests") == 0
    assert edge.value("requests_total", outcome="stop") == 1
    assert edge.value("time_to_first_token_seconds_sum") == pytest.approx(0.2)
    assert edge.value("time_per_output_token_seconds_sum") == pytest.approx(3.0 / (num_words - 1))
    assert edge.value("request_seconds_sum") == pytest.approx(3.2)
    assert edge.value("request_prompt_tokens_total") == 7
    assert edge.value("request_cached_tokens_total") == 3
    assert edge.value("request_new_tokens_total") == num_words
    assert edge.value("request_rounds_total") == edge.value("request_decoded_tokens_total") == num_words - 1
    assert edge.value("request_accepted_at_position_total", position="1") == num_words - 1
    assert edge.value("request_tau_count") == 1


async def test_a_request_leaves_one_line_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    edge = Edge()
    edge.clock.now_s += 1
    async for _ in edge.service.stream(ask(max_new_tokens=3)):
        pass
    (line,) = logged(capsys)
    assert line["request_id"] == "req-1"
    assert line["message"] == "request ended"
    assert (line["edge"], line["outcome"], line["new_tokens"], line["prompt_tokens"]) == ("http", "length", 3, 7)
    assert (line["tau"], line["ttft_s"], line["seconds"]) == (1.0, 0.0, 0.0)
    (span,) = edge.exporter.get_finished_spans()
    assert line["trace_id"] == f"{span.context.trace_id:032x}"
    assert "secret" not in json.dumps(line) + span.to_json()


async def test_closing_reaches_the_inner_generator_at_once() -> None:
    edge = Edge()
    chunks = edge.service.stream(ask())
    await anext(chunks)
    assert edge.inner.open == {"req-1"}
    await chunks.aclose()
    assert edge.inner.cancelled == ["req-1"]
    assert edge.inner.open == set()
    assert edge.value("requests_total", outcome="cancelled") == 1
    assert edge.value("open_requests") == 0
    assert edge.value("request_new_tokens_total") == 1
    assert edge.spans == [("request", "cancelled")]


async def test_a_cancelled_task_cancels_the_request() -> None:
    asked = asyncio.Event()
    edge = Edge(EchoService(fails=lambda request: asked.set()))
    edge.inner.gate.clear()

    async def read() -> None:
        async with aclosing(edge.service.stream(ask())) as chunks:
            async for _ in chunks:
                pass

    task = asyncio.create_task(read())
    await asked.wait()
    assert edge.inner.open == {"req-1"}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert edge.inner.open == set()
    assert edge.value("requests_total", outcome="cancelled") == 1
    assert edge.value("open_requests") == 0


async def test_leaving_after_the_last_chunk_is_no_cancellation() -> None:
    edge = Edge()
    async with aclosing(edge.service.stream(ask())) as chunks:
        async for chunk in chunks:
            if chunk.finish_reason is not None:
                break
    assert edge.value("requests_total", outcome="stop") == 1
    assert edge.value("requests_total", outcome="cancelled") is None


async def test_a_refusal_is_counted_by_its_class_and_raised(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = OverloadedError(f"no room for {SECRET}")
    edge = Edge(EchoService(fails=lambda request: refusal))
    with pytest.raises(OverloadedError) as raised:
        await anext(edge.service.stream(ask()))
    assert raised.value is refusal
    assert edge.value("requests_total", outcome="OverloadedError") == 1
    assert edge.value("open_requests") == 0
    (span,) = edge.exporter.get_finished_spans()
    assert (span.status.is_ok, span.status.description) == (False, "OverloadedError")
    assert "secret" not in span.to_json() + capsys.readouterr().err


async def test_who_is_turned_away_at_the_door_is_counted() -> None:
    edge = Edge()
    edge.service.require_room()
    assert edge.value("requests_total", outcome="OverloadedError") is None
    edge.inner.is_full = True
    with pytest.raises(OverloadedError):
        edge.service.require_room()
    assert edge.value("requests_total", outcome="OverloadedError") == 1
    assert not edge.value("open_requests")


class Talkative(EchoService):
    """Logs while it works, as the router does."""

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        logging.getLogger("flashsd_ray.actors.router").warning("began")
        try:
            async for chunk in super().stream(request):
                yield chunk
        finally:
            logging.getLogger("flashsd_ray.actors.router").warning("ended")


async def test_lines_of_the_inner_service_name_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    edge = Edge(Talkative())
    chunks = edge.service.stream(ask())
    await anext(chunks)
    logging.getLogger("flashsd_ray.serving").info("between")
    await asyncio.create_task(chunks.aclose())
    told = [(line["message"], line["request_id"]) for line in logged(capsys)]
    assert told == [("began", "req-1"), ("between", ""), ("ended", "req-1"), ("request ended", "req-1")]


async def test_a_trace_that_a_client_began_goes_on() -> None:
    edge = Edge()
    theirs = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    request = CaptionRequest(request_id="req-1", prompt="a", trace=theirs)
    async for _ in edge.service.stream(request):
        pass
    (span,) = edge.exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == "ab" * 16
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "cd" * 8
    (asked,) = edge.inner.asked
    assert asked.trace == f"00-{'ab' * 16}-{span.context.span_id:016x}-01"


async def test_untraced_requests_carry_nothing() -> None:
    edge = Edge()
    plain = MeteredService(edge.inner, edge.meters, "http")
    async for _ in plain.stream(ask()):
        pass
    assert edge.inner.asked[0].trace == ""
    assert edge.exporter.get_finished_spans() == ()


@pytest.mark.parametrize("trace", ["nonsense", "-", "\n" * 100])
async def test_a_trace_that_is_none_changes_nothing(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    edge = Edge()
    request = CaptionRequest(request_id="req-1", prompt="a", trace=trace)
    for service in (edge.service, MeteredService(edge.inner, edge.meters, "http")):
        assert [chunk async for chunk in service.stream(request)][-1].finish_reason is not None
    assert [line["outcome"] for line in logged(capsys)] == ["stop", "stop"]


async def test_prefetches_are_counted() -> None:
    edge = Edge()
    assert await edge.service.prefetch(ask()) == 0
    assert edge.value("prefetches_total", outcome="passed over") == 1

    async def fail(request: CaptionRequest) -> int:
        raise UnavailableError("gone")

    edge.inner.prefetch = fail
    with pytest.raises(UnavailableError):
        await edge.service.prefetch(ask())
    assert edge.value("prefetches_total", outcome="UnavailableError") == 1
    assert isinstance(await edge.service.status(), ServiceStatus)
