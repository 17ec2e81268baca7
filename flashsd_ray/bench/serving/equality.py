"""Is serving lossless? Answers through every edge and placement against those of an engine in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flashsd_ray.bench.serving.asks import EDGES, Ask, Edge
from flashsd_ray.bench.serving.expected import difference
from flashsd_ray.bench.serving.generator import LoadGenerator, load_generator
from flashsd_ray.bench.serving.load import Load
from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.bench.serving.server import server
from flashsd_ray.config import Config
from flashsd_ray.engine.answers import Caption


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How the answers through one edge agree with those of the engine."""

    placement: str
    edge: Edge
    concurrency: int
    num_answers: int
    mismatches: Mapping[str, str] = field(default_factory=dict)  # name of the request -> what differs

    @property
    def num_identical(self) -> int:
        """Answers without a difference."""
        return self.num_answers - len(self.mismatches)

    def as_dict(self, asks: Mapping[str, Ask]) -> dict[str, object]:
        """For JSON, with the requests whose answers differ."""
        return {
            "placement": self.placement,
            "edge": self.edge,
            "concurrency": self.concurrency,
            "num_answers": self.num_answers,
            "num_identical": self.num_identical,
            "mismatches": [asks[name].as_dict() | {"difference": text} for name, text in self.mismatches.items()],
        }


def compare_all(
    configs: Sequence[Config],  # one for each placement
    asks: Sequence[Ask],
    expected: Mapping[str, Caption],  # by name of the request
    concurrencies: Sequence[int],
) -> Iterator[Agreement]:
    """Every placement is started; all requests go through both edges, some at a time.

    Raises:
        FlashSDError: a server did not come up.
    """
    with load_generator() as generator:
        for config in configs:
            with server(config) as running:
                for edge in EDGES:
                    for concurrency in concurrencies:
                        load = Load(edge=edge, address=running.address(edge), asks=tuple(asks), concurrency=concurrency)
                        yield _compare(generator, load, expected, config.placement.kind)


def _compare(generator: LoadGenerator, load: Load, expected: Mapping[str, Caption], placement: str) -> Agreement:
    with counting(f"{placement}, {load.edge}, {load.concurrency} at a time", len(load.asks)) as count:
        outcomes = generator.run(load, count)
    found = {outcome.name: difference(outcome, expected[outcome.name]) for outcome in outcomes}
    return Agreement(
        placement=placement,
        edge=load.edge,
        concurrency=load.concurrency,
        num_answers=len(outcomes),
        mismatches={name: text for name, text in found.items() if text},
    )
