"""Traces of requests through every process that works on them; without a collector to send them to, nothing is kept.

A trace crosses processes as a W3C ``traceparent``, in ``CaptionRequest.trace``. Spans hold sizes, times and parts,
never what a client said or showed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flashsd_ray.config import TelemetryConfig
from flashsd_ray.errors import ConfigError

Value = str | int | float | bool


class Span:
    """A piece of work on one request that has begun; this one is not kept."""

    def __init__(self, trace: str = "") -> None:
        self.trace = trace  # what its children are attached by; empty when it is not kept

    def mark(self, name: str) -> None:
        """The span knows that something happened now."""

    def end(self, error: str = "", **attributes: Value) -> None:
        """The work is over, with an error of this class if one is named; a second end changes nothing."""


class Traces:
    """Where the spans of one process go; this one keeps none."""

    def begin(
        self,
        name: str,
        parent: str = "",  # a traceparent; empty: a trace begins here
        **attributes: Value,
    ) -> Span:
        """Work has begun that the caller ends."""
        return Span(parent)

    @contextmanager
    def during(self, name: str, parent: str, **attributes: Value) -> Iterator[Span]:
        """What happens inside is a child of the parent; without a parent it is not kept."""
        span = self.begin(name, parent, **attributes) if parent else Span()
        try:
            yield span
        except BaseException as error:
            span.end(type(error).__name__)
            raise
        span.end()

    def record(self, name: str, parent: str, began_s: float, ended_s: float, **attributes: Value) -> None:
        """Work that is over already, in seconds of this process's ``perf_counter``, is a child of the parent."""

    def close(self) -> None:
        """Every span that has ended is sent; waits for a collector that is slow, but not for one that is lost."""


def start(config: TelemetryConfig, role: str) -> Traces:
    """The spans of this process go to the collector that the config names, if it names one.

    Raises:
        ConfigError: there is a collector, but the packages that would reach it are not installed.
    """
    if not config.otlp_endpoint:
        return Traces()
    try:
        from flashsd_ray.telemetry.otlp import connect
    except ImportError as error:
        raise ConfigError(f"telemetry.otlp_endpoint needs the extra flashsd_ray[telemetry]: {error}") from error
    return connect(config, role)
