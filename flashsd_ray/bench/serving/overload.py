"""Far more than the server can do: what it answers is right, the rest is refused at once, and afterwards all is as before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flashsd_ray.bench.serving.arrivals import poisson_arrivals
from flashsd_ray.bench.serving.asks import Ask, Edge, Outcome
from flashsd_ray.bench.serving.expected import difference
from flashsd_ray.bench.serving.generator import LoadGenerator
from flashsd_ray.bench.serving.load import Load
from flashsd_ray.bench.serving.memory import Reading, growth, watched
from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.bench.serving.server import Server
from flashsd_ray.bench.serving.summary import Summary
from flashsd_ray.engine.answers import Caption
from flashsd_ray.errors import DeadlineError, OverloadedError

# How a server may say that it has no room or no time; any other end of a request is a fault.
REFUSALS = frozenset(
    {
        str(OverloadedError.http_status),
        OverloadedError.grpc_status,
        str(DeadlineError.http_status),
        DeadlineError.grpc_status,
    }
)
MEMORY_PERIOD_S = 1.0
SLOWER = 2.0  # afterwards, at most, against before
GROWN = 0.1  # memory, at most, from the beginning of the overload to its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """One edge before, during and after."""

    placement: str
    edge: Edge
    sustainable_per_s: float  # requests that were answered in a closed loop
    sent_per_s: float
    before: Summary
    during: Summary
    after: Summary
    faults: Sequence[str]  # requests that ended neither with the right answer nor with a refusal, and why
    memory: Sequence[Reading]  # at seconds of the overload

    @property
    def num_refused(self) -> int:
        """Requests of the overload that were refused."""
        return sum(count for code, count in self.during.codes.items() if code in REFUSALS)

    @property
    def returns_to_normal(self) -> bool:
        """Whether half of the answers afterwards come about as soon as half of those before."""
        before, after = self.before.whole_s, self.after.whole_s
        return before is not None and after is not None and after.p50 <= SLOWER * before.p50

    @property
    def memory_growth(self) -> float | None:
        """Of the end of the overload against its beginning; None where it was too short to tell."""
        return growth(self.memory)

    @property
    def is_sound(self) -> bool:
        """Whether nothing was lost or wrong, memory is bounded, and the server is itself again."""
        return not self.faults and (self.memory_growth or 0.0) <= GROWN and self.returns_to_normal

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "placement": self.placement,
            "edge": self.edge,
            "sustainable_per_s": self.sustainable_per_s,
            "sent_per_s": self.sent_per_s,
            "num_refused": self.num_refused,
            "returns_to_normal": self.returns_to_normal,
            "memory_growth": self.memory_growth,
            "faults": list(self.faults),
            "before": self.before.as_dict(),
            "during": self.during.as_dict(),
            "after": self.after.as_dict(),
            "memory": [reading.as_dict() for reading in self.memory],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is sent."""

    seconds: float  # of overload
    factor: float  # of what is sustainable
    concurrency: int  # of the closed loop that finds out what is
    num_calm: int  # requests of that loop, and of those before and after


def measure(
    generator: LoadGenerator,
    running: Server,
    asks: Sequence[Ask],  # sent again and again
    expected: Mapping[str, Caption],
    sizes: Sizes,
    *,
    placement: str,
    edge: Edge,
) -> Overload:
    """The server is warmed up, its sustainable load is found, and then exceeded.

    Raises:
        FlashSDError: the server cannot be reached.
    """
    address = running.address(edge)

    def run(phase: str, num_requests: int, *, concurrency: int = 0, rate_per_s: float = 0.0) -> list[Outcome]:
        arrivals_s = poisson_arrivals(rate_per_s, num_requests) if rate_per_s else ()
        chosen = tuple(asks[index % len(asks)] for index in range(num_requests))
        load = Load(edge=edge, address=address, asks=chosen, concurrency=concurrency, arrivals_s=arrivals_s)
        with counting(f"{placement}, {edge}, {phase}", num_requests) as count:
            return generator.run(load, count)

    run("warming up", sizes.num_calm, concurrency=sizes.concurrency)
    sustainable = Summary.of(run("what is sustainable", sizes.num_calm, concurrency=sizes.concurrency))
    sent_per_s = sizes.factor * max(sustainable.requests_per_s, 1 / sizes.seconds)
    before = run("before", sizes.num_calm, concurrency=1)
    with watched(running.pid, MEMORY_PERIOD_S) as memory:
        during = run(f"{sent_per_s:.1f} a second", round(sent_per_s * sizes.seconds), rate_per_s=sent_per_s)
    after = run("after", sizes.num_calm, concurrency=1)
    return Overload(
        placement=placement,
        edge=edge,
        sustainable_per_s=sustainable.requests_per_s,
        sent_per_s=sent_per_s,
        before=Summary.of(before),
        during=Summary.of(during),
        after=Summary.of(after),
        faults=[*faults(during, expected, REFUSALS), *faults([*before, *after], expected, frozenset())],
        memory=memory.readings,
    )


def faults(
    outcomes: Sequence[Outcome],
    expected: Mapping[str, Caption],
    refusals: frozenset[str],  # ends that are allowed besides an answer
) -> list[str]:
    """What must not happen: an answer that is wrong or broken off, an end that is neither answer nor refusal."""
    return [
        f"{outcome.name}: {problem}"
        for outcome in outcomes
        if outcome.code not in refusals and (problem := difference(outcome, expected[outcome.name]))
    ]
