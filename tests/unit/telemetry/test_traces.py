"""Spans: kept when asked for, in one trace, at the times that they were; and nothing at all otherwise."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flashsd_ray.config import TelemetryConfig
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import ConfigError, DeadlineError
from flashsd_ray.speculation.stats import RoundStats, SpeculationStats
from flashsd_ray.telemetry.lane_spans import LaneSpans
from flashsd_ray.telemetry.otlp import KeptTraces
from flashsd_ray.telemetry.traces import Traces, start
from flashsd_ray.types import CaptionRequest, FinishReason

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"


class Clock:
    """Seconds of a process, and the wall's nanoseconds: a thousand seconds apart."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return round((self.now_s + 1000.0) * 1e9)


class Kept:
    """Traces that a test can read."""

    def __init__(self, role: str = "lane-0", ratio: float = 1.0) -> None:
        self.clock = Clock()
        self.exporter = InMemorySpanExporter()
        self.traces = KeptTraces(
            SimpleSpanProcessor(self.exporter), role, ratio=ratio, clock=self.clock, time_ns=self.clock.time_ns
        )

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def times(self) -> dict[str, tuple[float, float]]:
        return {span.name: (span.start_time / 1e9, span.end_time / 1e9) for span in self.spans}


def test_without_a_collector_nothing_is_kept() -> None:
    traces = start(TelemetryConfig(), "http")
    assert type(traces) is Traces
    span = traces.begin("request", edge="http")
    assert span.trace == ""
    span.mark("first token")
    span.end(outcome="stop")
    with traces.during("encode", PARENT) as inner:
        assert inner.trace == PARENT  # whoever is behind this process may keep it
    traces.record("queue", PARENT, 0.0, 1.0)
    traces.close()


def test_without_a_collector_the_library_is_not_loaded() -> None:
    import subprocess

    program = (
        "import sys\nfrom flashsd_ray.telemetry.traces import start\nfrom flashsd_ray.config import TelemetryConfig\n"
        "start(TelemetryConfig(), 'http')\nassert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_collector_without_the_library_is_a_mistake_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("flashsd_ray.telemetry.otlp"):
            raise ImportError("No module named 'opentelemetry'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"telemetry\.otlp_endpoint needs the extra flashsd_ray\[telemetry\]"):
        start(TelemetryConfig(otlp_endpoint="http://127.0.0.1:4317"), "http")


@pytest.mark.parametrize("endpoint", ["localhost:4317", "grpc://host", "file:///etc/passwd"])
def test_an_address_that_cannot_be_a_collectors(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"telemetry\.otlp_endpoint"):
        TelemetryConfig(otlp_endpoint=endpoint)


def test_a_child_belongs_to_its_parent() -> None:
    edge, lane = Kept("http"), Kept("lane-0")
    root = edge.traces.begin("request", edge="http")
    with lane.traces.during("encode", root.trace, frames=3):
        lane.clock.now_s += 2
    root.end(outcome="stop")
    (request,), (encode,) = edge.spans, lane.spans
    assert encode.context.trace_id == request.context.trace_id
    assert encode.parent is not None
    assert encode.parent.span_id == request.context.span_id
    assert dict(encode.attributes or {}) == {"flashsd.frames": 3}
    assert request.resource.attributes["service.instance.id"] == "http"
    assert lane.times()["encode"] == (1050.0, 1052.0)


def test_an_error_is_named_and_not_quoted() -> None:
    kept = Kept()
    with pytest.raises(ValueError, match="secret"), kept.traces.during("encode", PARENT):
        raise ValueError("secret")
    (span,) = kept.spans
    assert (span.status.is_ok, span.status.description, list(span.events)) == (False, "ValueError", [])


def test_an_end_counts_once() -> None:
    kept = Kept()
    span = kept.traces.begin("request")
    span.end(outcome="stop")
    span.end("ValueError", outcome="error")
    assert [dict(one.attributes or {}) for one in kept.spans] == [{"flashsd.outcome": "stop"}]


def test_work_that_is_over_is_where_it_was() -> None:
    kept = Kept()
    kept.traces.record("queue", PARENT, 41.0, 43.5)
    assert kept.times() == {"queue": (1041.0, 1043.5)}


@pytest.mark.parametrize("trace", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", PARENT * 50])
def test_a_parent_that_is_none_begins_a_trace(trace: str) -> None:
    kept = Kept()
    kept.traces.begin("request", trace).end()
    (span,) = kept.spans
    assert span.parent is None


def test_the_share_is_decided_where_a_trace_begins() -> None:
    kept = Kept(ratio=0.0)
    span = kept.traces.begin("request")
    span.end()
    assert (span.trace, kept.spans) == ("", ())
    kept.traces.record("queue", PARENT, 0.0, 1.0)  # somebody else decided that this one is kept
    assert [one.name for one in kept.spans] == ["queue"]


def traced(request_id: str = "r", trace: str = PARENT) -> CaptionRequest:
    return CaptionRequest(request_id=request_id, trace=trace)


def test_a_lane_tells_of_waiting_prefill_and_decoding() -> None:
    kept = Kept()
    spans = LaneSpans(kept.traces, "lane-0", clock=kept.clock)
    spans.submitted(traced())
    kept.clock.now_s += 1  # 51
    spans.opened("r")
    kept.clock.now_s += 2  # 53
    spans.gave(Chunk(request_id="r", token_ids=(1,), num_prompt_tokens=9, num_cached_tokens=4))
    kept.clock.now_s += 4  # 57
    one_round = SpeculationStats.of_round(RoundStats(num_draft_tokens=4, num_accepted_tokens=2, num_new_tokens=3))
    last = Chunk(
        request_id="r",
        token_ids=(2, 3, 4),
        finish_reason=FinishReason.STOP,
        num_prompt_tokens=9,
        num_cached_tokens=4,
        stats=SpeculationStats.of_prefill() + one_round,
    )
    spans.gave(last)
    assert kept.times() == {"queue": (1050.0, 1051.0), "prefill": (1051.0, 1053.0), "decode": (1053.0, 1057.0)}
    prefill, decode = (dict(span.attributes or {}) for span in kept.spans[1:])
    common = {"flashsd.lane": "lane-0", "flashsd.outcome": "stop"}
    assert prefill == {**common, "flashsd.prompt_tokens": 9, "flashsd.cached_tokens": 4}
    assert decode == {
        **common,
        "flashsd.new_tokens": 4,
        "flashsd.rounds": 1,
        "flashsd.draft_tokens": 4,
        "flashsd.accepted_tokens": 2,
        "flashsd.tau": 3.0,
    }
    spans.gave(last)  # a second last chunk is nobody's
    assert len(kept.spans) == 3


@pytest.mark.parametrize(("is_open", "names"), [(False, ["queue"]), (True, ["queue", "prefill"])])
def test_a_request_that_ends_early_has_the_spans_that_it_came_to(is_open: bool, names: list[str]) -> None:
    kept = Kept()
    spans = LaneSpans(kept.traces, "lane-0", clock=kept.clock)
    spans.submitted(traced())
    if is_open:
        spans.opened("r")
    late = DeadlineError("the time was over")
    spans.gave(Chunk(request_id="r", finish_reason=FinishReason.ERROR, error=late))
    assert [span.name for span in kept.spans] == names
    assert {span.attributes["flashsd.outcome"] for span in kept.spans if span.attributes} == {"DeadlineError"}


def test_requests_that_are_not_traced_cost_nothing() -> None:
    kept = Kept()
    spans = LaneSpans(kept.traces, "lane-0", clock=kept.clock)
    spans.submitted(traced(trace=""))
    spans.opened("r")
    spans.gave(Chunk(request_id="r", finish_reason=FinishReason.STOP))
    assert kept.spans == ()


class Collector(TraceServiceServicer):
    """An OpenTelemetry collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:  # noqa: N802
        self.received.append(request)
        return ExportTraceServiceResponse()


def test_spans_reach_a_collector() -> None:
    collector, server = Collector(), grpc.server(futures.ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        traces = start(TelemetryConfig(otlp_endpoint=f"http://127.0.0.1:{port}"), "grpc")
        traces.begin("request", edge="grpc").end(outcome="stop")
        traces.close()
    finally:
        server.stop(None)
    (sent,) = collector.received
    (resource,) = sent.resource_spans
    roles = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (roles["service.name"], roles["service.instance.id"]) == ("flashsd", "grpc")
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["request"]
