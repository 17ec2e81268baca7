"""Throughput and latency: some number of users always waiting for an answer, and users who come when they please."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flashsd_ray.bench.serving.arrivals import poisson_arrivals
from flashsd_ray.bench.serving.asks import Ask, Edge
from flashsd_ray.bench.serving.generator import LoadGenerator
from flashsd_ray.bench.serving.load import Load
from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.bench.serving.server import Server
from flashsd_ray.bench.serving.summary import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is sent through each edge."""

    concurrencies: Sequence[int]  # of the closed loops
    num_requests: int  # of one closed loop; a loop with many users has twice as many requests as users at least
    shares: Sequence[float]  # of the capacity, for the open loops
    num_arrivals: int  # requests of one open loop
    num_warm: int  # requests before anything is measured

    @property
    def sizes(self) -> list[int]:
        """Requests of each loop, the warm-up first."""
        closed = [max(self.num_requests, 2 * users) for users in self.concurrencies]
        return [self.num_warm, *closed, *(self.num_arrivals for _ in self.shares)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One load and what it came to."""

    placement: str
    edge: Edge
    concurrency: int  # 0: an open loop
    rate_per_s: float  # at which requests were sent; 0: a closed loop
    share: float  # of the capacity; 0: a closed loop
    summary: Summary

    @property
    def load(self) -> str:
        """In words."""
        if self.concurrency:
            return f"{self.concurrency} at a time"
        return f"{self.rate_per_s:.2f}/s ({self.share:.0%})"

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "placement": self.placement,
            "edge": self.edge,
            "concurrency": self.concurrency,
            "rate_per_s": self.rate_per_s,
            "share_of_capacity": self.share,
            **self.summary.as_dict(),
        }


def measure(
    generator: LoadGenerator,
    running: Server,
    plan: Plan,
    asks: Sequence[Ask],  # as many as the plan's sizes come to, unless they may repeat
    *,
    placement: str,
    edge: Edge,
) -> Iterator[Point]:
    """Every load of the plan, each with requests of its own; the capacity is that of the best closed loop.

    Raises:
        FlashSDError: the server cannot be reached.
    """
    supply = _supply(asks, plan.sizes)

    def run(description: str, *, concurrency: int = 0, rate_per_s: float = 0.0) -> Summary:
        chosen = next(supply)
        arrivals_s = poisson_arrivals(rate_per_s, len(chosen)) if rate_per_s else ()
        load = Load(
            edge=edge,
            address=running.address(edge),
            asks=chosen,
            concurrency=concurrency,
            arrivals_s=arrivals_s,
        )
        with counting(f"{placement}, {edge}, {description}", len(chosen)) as count:
            return Summary.of(generator.run(load, count))

    run("warming up", concurrency=plan.concurrencies[-1])
    capacity_per_s = 0.0
    for users in plan.concurrencies:
        summary = run(f"{users} at a time", concurrency=users)
        capacity_per_s = max(capacity_per_s, summary.requests_per_s)
        yield Point(placement=placement, edge=edge, concurrency=users, rate_per_s=0.0, share=0.0, summary=summary)
    for share in plan.shares if capacity_per_s else ():
        rate_per_s = share * capacity_per_s
        summary = run(f"{rate_per_s:.2f} a second", rate_per_s=rate_per_s)
        yield Point(placement=placement, edge=edge, concurrency=0, rate_per_s=rate_per_s, share=share, summary=summary)


def _supply(asks: Sequence[Ask], sizes: Sequence[int]) -> Iterator[tuple[Ask, ...]]:
    start = 0
    for size in sizes:
        yield tuple(asks[index % len(asks)] for index in range(start, start + size))
        start += size
