"""The totals of this process through Ray, whose agents export them from every node.

Names and labels are those of the HTTP edge's page; Ray puts ``ray_`` before each name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from ray.util.metrics import Counter, Gauge, Histogram

from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.telemetry.families import encoder_families, lane_families, scale_families, service_families
from flashsd_ray.telemetry.metrics import EdgeMeters

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.samples import Sample

    from flashsd_ray.actors.encoder_host import EncoderStatus
    from flashsd_ray.actors.service import LaneStatus, RoleScale, ServiceStatus

Labels = tuple[tuple[str, str], ...]


class RayMeters:
    """Call an ``export`` every few seconds; one instance for the life of a process."""

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._exported: dict[tuple[str, Labels], float] = {}  # of every total: what Ray was given so far

    def export_lane(self, lane_id: str, meters: LaneMeters, status: LaneStatus) -> None:
        """Ray has the totals of a lane of this process."""
        self.export(lane_families({lane_id: meters}, [status]))

    def export_encoder(self, encoder_id: str, status: EncoderStatus) -> None:
        """Ray has the totals of an encoder of this process."""
        self.export(encoder_families({encoder_id: status}))

    def export_edges(self, meters: EdgeMeters) -> None:
        """Ray has what the edges of this process counted."""
        self.export(meters.registry.collect())

    def export_service(self, status: ServiceStatus) -> None:
        """Ray has how the service stands."""
        self.export(service_families(status))

    def export_scales(self, scales: Sequence[RoleScale]) -> None:
        """Ray has how many parts of each kind there are and should be."""
        self.export(scale_families(scales))

    def export(self, families: Iterable[Metric]) -> None:
        """Ray has these totals: it is given what was added since the last time."""
        for family in families:
            if family.type == "counter":
                self._export_counter(family)
            elif family.type == "gauge":
                self._export_gauge(family)
            elif family.type == "histogram":
                self._export_histogram(family)

    def _export_counter(self, family: Metric) -> None:
        for sample in family.samples:
            if sample.name.endswith("_total"):
                added = self._added(sample)
                counter = self._counters.get(sample.name) or Counter(
                    sample.name, family.documentation, tuple(sample.labels)
                )
                self._counters[sample.name] = counter
                if added > 0:
                    counter.inc(added, tags=sample.labels)

    def _export_gauge(self, family: Metric) -> None:
        for sample in family.samples:
            gauge = self._gauges.get(sample.name) or Gauge(sample.name, family.documentation, tuple(sample.labels))
            self._gauges[sample.name] = gauge
            gauge.set(sample.value, tags=sample.labels)

    def _export_histogram(self, family: Metric) -> None:
        buckets = [sample for sample in family.samples if sample.name.endswith("_bucket")]
        for labels, samples in groupby(buckets, key=_labels_of_histogram):
            self._export_buckets(family, dict(labels), list(samples))

    def _export_buckets(self, family: Metric, labels: dict[str, str], buckets: list[Sample]) -> None:
        bounds = [float(bucket.labels["le"]) for bucket in buckets[:-1]]
        histogram = self._histograms.get(family.name) or Histogram(
            family.name, family.documentation, bounds, tuple(labels)
        )
        self._histograms[family.name] = histogram
        below = 0.0
        # Only the bucket of a value is known by now, and Ray keeps no more of it: it rebuilds sums from the buckets.
        for bucket, value in zip(buckets, [*bounds, 2 * bounds[-1]], strict=True):
            added = self._added(bucket)  # here and in every bucket below
            for _ in range(round(added - below)):
                histogram.observe(value, tags=labels)
            below = added

    def _added(self, sample: Sample) -> float:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        before, self._exported[key] = self._exported.get(key, 0.0), sample.value
        return sample.value - before


def _labels_of_histogram(bucket: Sample) -> Labels:
    return tuple((name, value) for name, value in bucket.labels.items() if name != "le")
