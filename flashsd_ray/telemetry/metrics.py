"""What the edges of one process count, and the page that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.errors import FlashSDError
from flashsd_ray.telemetry.families import (
    encoder_families,
    lane_families,
    scale_families,
    service_families,
    store_families,
)
from flashsd_ray.telemetry.tally import Tally

if TYPE_CHECKING:
    from flashsd_ray.actors.encoder_host import EncoderHost, EncoderStatus
    from flashsd_ray.actors.service import CaptionService, ServiceStatus
    from flashsd_ray.stores.store import Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Upper bounds of histograms.
FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
OUTPUT_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TAU = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0)


class EdgeMeters:
    """Requests as their callers see them, over all edges of this process, each labelled ``edge``."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._requests = self._counter("requests", "Requests that ended, by finish reason or error.", "outcome")
        self._open = Gauge("flashsd_open_requests", "Requests being answered.", ("edge",), registry=self.registry)
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From the call to the first tokens.", FIRST_TOKEN_S
        )
        self._output_token = self._histogram(
            "time_per_output_token_seconds", "Mean of a request over the tokens after the first.", OUTPUT_TOKEN_S
        )
        self._seconds = self._histogram("request_seconds", "From the call to the end.", REQUEST_S)
        self._tau = self._histogram("request_tau", "Tokens committed per verify pass of a whole answer.", TAU)
        self._prompt = self._counter("request_prompt_tokens", "Prompt positions.")
        self._cached = self._counter("request_cached_tokens", "Prompt positions found in the KV cache.")
        self._new = self._counter("request_new_tokens", "Tokens handed out.")
        self._decoded = self._counter("request_decoded_tokens", "Tokens of whole answers, those of prefills excluded.")
        self._rounds = self._counter("request_rounds", "Verify passes of whole answers, prefills excluded.")
        self._drafted = self._counter("request_draft_tokens", "Tokens drafted for whole answers.")
        self._accepted = self._counter("request_accepted_tokens", "Drafted tokens that stand in whole answers.")
        self._positions = self._counter(
            "request_accepted_at_position", "Verify passes whose first drafts, up to this position, stand.", "position"
        )
        self._stages = self._counter("request_stage_seconds", "Time that whole answers spent in each stage.", "stage")
        self._prefetches = self._counter("prefetches", "Prompts sent ahead, by what became of them.", "outcome")

    def began(self, edge: str) -> None:
        """A request is open."""
        self._open.labels(edge).inc()

    def ended(self, edge: str, tally: Tally) -> None:
        """It is not open any more, and what it had is counted."""
        self._open.labels(edge).dec()
        self._requests.labels(edge, tally.outcome).inc()
        self._seconds.labels(edge).observe(tally.seconds)
        self._prompt.labels(edge).inc(tally.num_prompt_tokens)
        self._cached.labels(edge).inc(tally.num_cached_tokens)
        self._new.labels(edge).inc(tally.num_new_tokens)
        if tally.time_to_first_token_s is not None:
            self._first_token.labels(edge).observe(tally.time_to_first_token_s)
        if tally.time_per_output_token_s is not None:
            self._output_token.labels(edge).observe(tally.time_per_output_token_s)
        self._count_speculation(edge, tally)

    def turned_away(self, edge: str, outcome: str) -> None:
        """A request ended before anything of it was read."""
        self._requests.labels(edge, outcome).inc()

    def prefetched(self, edge: str, outcome: str) -> None:
        """A prompt was sent ahead."""
        self._prefetches.labels(edge, outcome).inc()

    def _count_speculation(self, edge: str, tally: Tally) -> None:
        stats = tally.stats
        if stats is None:
            return
        if stats.rounds:
            self._tau.labels(edge).observe(stats.tau)
        self._decoded.labels(edge).inc(stats.num_new_tokens - stats.num_prefills)
        self._rounds.labels(edge).inc(stats.rounds)
        self._drafted.labels(edge).inc(stats.num_draft_tokens)
        self._accepted.labels(edge).inc(stats.num_accepted_tokens)
        for position, count in enumerate(stats.accepted_per_position, start=1):
            self._positions.labels(edge, str(position)).inc(count)
        for stage, seconds in stats.seconds.items():
            self._stages.labels(edge, stage).inc(seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"flashsd_{name}", text, ("edge", *labels), registry=self.registry)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(f"flashsd_{name}", text, ("edge",), registry=self.registry, buckets=bounds)


async def page(
    service: CaptionService,
    meters: EdgeMeters,
    *,
    encoders: Mapping[str, EncoderHost] | None = None,  # those of this process
    stores: Mapping[str, Store] | None = None,
) -> str:
    """What this process and the lanes behind it have counted; a service that does not answer is left out."""
    lanes: Mapping[str, LaneMeters] = {}
    status: ServiceStatus | None = None
    with suppress(FlashSDError):  # a page that is missing would tell less than one that is short
        status = await service.status()
        lanes = await service.meters()
    busy = {name: host.status() for name, host in (encoders or {}).items()}
    return render(meters.registry, lanes, status, encoders=busy, stores=stores)


def render(
    registry: CollectorRegistry,  # of the process's own metrics
    lanes: Mapping[str, LaneMeters],
    status: ServiceStatus | None = None,  # None: the service does not say
    *,
    encoders: Mapping[str, EncoderStatus] | None = None,
    stores: Mapping[str, Store] | None = None,
) -> str:
    """Everything in Prometheus' text format."""
    families = [*lane_families(lanes, status.lanes if status else ())]
    families += [*service_families(status), *scale_families(status.scales)] if status else ()
    families += encoder_families(encoders or {})
    families += store_families(stores or {})
    return generate_latest(_Page(registry, families)).decode()


class _Page(Collector):
    def __init__(self, registry: CollectorRegistry, families: list[Metric]) -> None:
        self._registry = registry
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
        yield from (family for family in self._families if family.samples)
