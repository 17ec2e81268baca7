"""A load that rises and falls before a cluster that grows and shrinks: what is there, when, and what callers notice."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from time import monotonic

from flashsd_ray.bench.serving.asks import Ask, Outcome
from flashsd_ray.bench.serving.expected import difference
from flashsd_ray.bench.serving.generator import LoadGenerator
from flashsd_ray.bench.serving.load import Load
from flashsd_ray.bench.serving.server import Server
from flashsd_ray.engine.answers import Caption
from flashsd_ray.errors import UnavailableError

PERIOD_S = 0.5
BATCH = 4  # requests of each client between two questions whether the phase is over
PAGE_S = 10.0  # longest wait for the page of metrics
_SAMPLE = re.compile(r'^flashsd_(replicas_\w+|open_requests)\{(?:role|edge)="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What was there at one time."""

    at_s: float
    open_requests: float
    replicas: Mapping[str, float]  # "lane desired", "lane actual", "encoder actual" ...
    nodes: Mapping[str, int]  # by type

    @property
    def lanes(self) -> int:
        """Lanes that take requests."""
        return int(self.replicas.get("lane actual", 0))

    @property
    def num_nodes(self) -> int:
        """Nodes of all types."""
        return sum(self.nodes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request, at seconds of the whole run."""

    phase: str
    start_s: float
    end_s: float
    fault: str = ""  # why it is not what it must be


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A closed loop that lasts until something has happened."""

    name: str
    concurrency: int  # 0: nobody asks
    ends: Callable[[Moment], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The whole of it."""

    moments: Sequence[Moment]
    answers: Sequence[Answered]
    phases: Sequence[tuple[str, float]]  # with the second of its beginning
    fewest: int  # lanes, by configuration
    most: int

    @property
    def faults(self) -> list[str]:
        """Answers that are missing or wrong."""
        return [one.fault for one in self.answers if one.fault]

    @property
    def is_sound(self) -> bool:
        """Whether lanes came and went between their bounds, nodes with them, and every answer was right."""
        lanes, nodes = [one.lanes for one in self.moments], [one.num_nodes for one in self.moments]
        has_grown = max(lanes) == self.most and max(nodes) > nodes[-1]
        return not self.faults and has_grown and lanes[-1] == self.fewest

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        lanes = [one.lanes for one in self.moments]
        return {
            "num_requests": len(self.answers),
            "faults": self.faults,
            "lanes": {
                "fewest": self.fewest,
                "most": self.most,
                "first": lanes[0],
                "peak": max(lanes),
                "last": lanes[-1],
            },
            "nodes_peak": max(one.num_nodes for one in self.moments),
            "nodes_last": self.moments[-1].num_nodes,
            "phases": [{"name": name, "start_s": start_s} for name, start_s in self.phases],
        }


def measure(
    generator: LoadGenerator,
    running: Server,
    asks: Sequence[Ask],  # sent again and again
    expected: Mapping[str, Caption],
    phases: Sequence[Phase],
    nodes: Callable[[], Counter[str]],  # how many there are, by type
    *,
    bounds: tuple[int, int],  # fewest and most lanes
    patience_s: float,  # for each phase
    says: Callable[[str], None] = lambda text: None,
) -> Run:
    """Every phase has been gone through.

    Raises:
        UnavailableError: what a phase waits for did not happen in time.
        FlashSDError: the server cannot be reached.
    """
    answers, begun = list[Answered](), list[tuple[str, float]]()
    with watched(running, nodes) as watch:
        for phase in phases:
            says(phase.name)
            start_s = watch.now()
            begun.append((phase.name, start_s))
            while not phase.ends(watch.last()):
                if watch.now() - start_s > patience_s:
                    raise UnavailableError(f"{phase.name}: it took more than {patience_s:g} s; last: {watch.last()}")
                answers += _batch(generator, running, asks, expected, phase, watch)
    return Run(moments=watch.moments, answers=answers, phases=begun, fewest=bounds[0], most=bounds[1])


def _batch(
    generator: LoadGenerator,
    running: Server,
    asks: Sequence[Ask],
    expected: Mapping[str, Caption],
    phase: Phase,
    watch: Watch,
) -> list[Answered]:
    if not phase.concurrency:
        watch.wait()
        return []
    chosen = tuple(asks[index % len(asks)] for index in range(BATCH * phase.concurrency))
    start_s = watch.now()
    load = Load(edge="http", address=running.address("http"), asks=chosen, concurrency=phase.concurrency)
    return [_answered(one, phase.name, start_s, expected) for one in generator.run(load)]


def _answered(outcome: Outcome, phase: str, start_s: float, expected: Mapping[str, Caption]) -> Answered:
    problem = difference(outcome, expected[outcome.name])
    fault = f"{phase}, {outcome.name}: {problem}" if problem else ""
    return Answered(phase=phase, start_s=start_s + outcome.start_s, end_s=start_s + outcome.end_s, fault=fault)


class Watch:
    """Looks at server and cluster twice a second, in a thread of its own."""

    def __init__(self, running: Server, nodes: Callable[[], Counter[str]]) -> None:
        self._url = running.ready_url.replace("/readyz", "/metrics")
        self._nodes = nodes
        self._start_s = monotonic()
        self._ended = threading.Event()
        self._looked = threading.Event()
        self.moments: list[Moment] = []

    def now(self) -> float:
        """Seconds since the beginning."""
        return monotonic() - self._start_s

    def last(self) -> Moment:
        """What was there at the last look."""
        while not self.moments:
            self.wait()
        return self.moments[-1]

    def wait(self) -> None:
        """Another look has been taken, or could not be."""
        self._looked.clear()
        self._looked.wait(PAGE_S + PERIOD_S)

    def look_until_ended(self) -> None:
        """For the thread."""
        while not self._ended.wait(PERIOD_S):
            with suppress(urllib.error.URLError, OSError, ValueError):
                self._look()
            self._looked.set()

    def end(self) -> None:
        """No more looks."""
        self._ended.set()

    def _look(self) -> None:
        with urllib.request.urlopen(self._url, timeout=PAGE_S) as page:  # an address of our own server
            found = _SAMPLE.findall(page.read().decode())
        states = {(name, role): float(value) for name, role, value in found}
        replicas = {
            f"{role} {name.removeprefix('replicas_')}": value
            for (name, role), value in states.items()
            if name != "open_requests"
        }
        self.moments.append(
            Moment(
                at_s=self.now(),
                open_requests=states.get(("open_requests", "http"), 0.0),
                replicas=replicas,
                nodes=dict(self._nodes()),
            )
        )


@contextmanager
def watched(running: Server, nodes: Callable[[], Counter[str]]) -> Iterator[Watch]:
    """Inside the block somebody looks."""
    watch = Watch(running, nodes)
    thread = threading.Thread(target=watch.look_until_ended, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.end()
        thread.join()


def as_rows(moments: Sequence[Moment]) -> list[dict[str, object]]:
    """For JSON."""
    return [asdict(moment) for moment in moments]
