"""Spans kept by OpenTelemetry; the only door to that library."""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flashsd_ray import __version__
from flashsd_ray.config import TelemetryConfig
from flashsd_ray.telemetry.traces import Span, Traces, Value

HEADER = "traceparent"
PREFIX = "flashsd."  # of every attribute
_PROPAGATOR = TraceContextTextMapPropagator()


def connect(config: TelemetryConfig, role: str) -> KeptTraces:
    """Spans are sent in batches by a thread of their own; while the collector is lost they are dropped."""
    exporter = OTLPSpanExporter(endpoint=config.otlp_endpoint, timeout=config.trace_timeout_s)
    return KeptTraces(BatchSpanProcessor(exporter), role, ratio=config.trace_ratio)


class KeptTraces(Traces):
    """Gives every span that is sampled to a processor."""

    def __init__(
        self,
        processor: SpanProcessor,
        role: str,
        *,
        ratio: float = 1.0,  # of the traces that begin here; others were decided on where they began
        clock: Callable[[], float] = time.perf_counter,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        names = {SERVICE_NAME: "flashsd", SERVICE_VERSION: __version__, SERVICE_INSTANCE_ID: role}
        # An interpreter that ends must not wait for a lost collector: whoever owns the traces closes them.
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(ratio), resource=Resource.create(names), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("flashsd_ray", __version__)
        self._clock = clock
        self._time_ns = time_ns

    def begin(self, name: str, parent: str = "", **attributes: Value) -> Span:
        """Work has begun; the span is kept when its trace is sampled."""
        kind = SpanKind.INTERNAL if parent else SpanKind.SERVER
        return _KeptSpan(self._start(name, parent, kind, attributes, self._time_ns()), self._time_ns)

    def record(self, name: str, parent: str, began_s: float, ended_s: float, **attributes: Value) -> None:
        """Work that is over already is a child of the parent; without a parent it is not kept."""
        if parent:
            offset_ns = self._time_ns() - round(self._clock() * 1e9)
            span = self._start(name, parent, SpanKind.INTERNAL, attributes, offset_ns + round(began_s * 1e9))
            span.end(offset_ns + round(ended_s * 1e9))

    def close(self) -> None:
        """Every span that has ended is sent, if the collector takes them."""
        self._provider.shutdown()

    def _start(self, name: str, parent: str, kind: SpanKind, attributes: dict[str, Value], began_ns: int) -> OtelSpan:
        # A context that is given, even an empty one, keeps out whatever another library made current here.
        context = _PROPAGATOR.extract({HEADER: parent}, context=Context()) if parent else Context()
        return self._tracer.start_span(
            name, context=context, kind=kind, attributes=_prefixed(attributes), start_time=began_ns
        )


class _KeptSpan(Span):
    def __init__(self, span: OtelSpan, time_ns: Callable[[], int]) -> None:
        super().__init__(_traceparent(span))
        self._span = span
        self._time_ns = time_ns

    def mark(self, name: str) -> None:
        self._span.add_event(name, timestamp=self._time_ns())

    def end(self, error: str = "", **attributes: Value) -> None:
        if not self._span.is_recording():
            return
        self._span.set_attributes(_prefixed(attributes))
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end(self._time_ns())


def _prefixed(attributes: dict[str, Value]) -> dict[str, Value]:
    return {f"{PREFIX}{name}": value for name, value in attributes.items()}


def _traceparent(span: OtelSpan) -> str:
    carrier: dict[str, str] = {}
    if span.is_recording():  # what nobody keeps need not travel
        _PROPAGATOR.inject(carrier, context=set_span_in_context(span, Context()))
    return carrier.get(HEADER, "")
