"""A load, faults in the middle of it, and what became of every request."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from flashsd_ray.bench.chaos.clients import Clients, Ended
from flashsd_ray.bench.chaos.cluster import Cluster
from flashsd_ray.bench.chaos.faults import Felt, Saboteur, carry_out
from flashsd_ray.bench.chaos.oracle import Said, Verdict, is_sound, judged
from flashsd_ray.bench.chaos.redis import RedisProcess
from flashsd_ray.bench.chaos.schedule import Fault
from flashsd_ray.bench.chaos.work import Work
from flashsd_ray.config import Config
from flashsd_ray.timeouts import within

HANG_S = 600.0  # a request that has not ended by then is lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of one request; times are seconds since the load began."""

    work: Work
    start_s: float
    end_s: float
    verdict: Verdict
    code: str
    detail: str
    num_attempts: int

    @property
    def is_sound(self) -> bool:
        """Whether that may happen."""
        return is_sound(self.verdict, is_poison=self.work.is_poison)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "name": self.work.name,
            "way": self.work.way,
            "is_poison": self.work.is_poison,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "verdict": self.verdict,
            "code": self.code,
            "detail": self.detail,
            "num_attempts": self.num_attempts,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """A whole run."""

    fates: Sequence[Fate]
    felt: Sequence[Felt]
    leftovers: Sequence[str] = field(default=())  # parts that hung and were never ended
    seconds: float = 0.0

    @property
    def verdicts(self) -> Mapping[str, int]:
        """How many requests came to what."""
        return dict(Counter(fate.verdict for fate in self.fates))

    @property
    def is_sound(self) -> bool:
        """Whether every request was answered rightly or may come again, and everything recovered."""
        recovered = all(one.recovery_s is not None for one in self.felt)
        return recovered and not self.leftovers and all(fate.is_sound for fate in self.fates)


def judge(work: Work, ended: Ended, expected: Sequence[Said]) -> Verdict:
    """What the request came to; an answer that began wrongly was wrong although it was asked for again."""
    for began in ended.began:
        # A beginning is of any of the session's answers.
        verdicts = {judged("BROKEN", [began], [right]) for right in expected}
        if verdicts <= {"wrong", "duplicated"}:
            return "wrong" if "wrong" in verdicts else "duplicated"
    return judged(ended.code, ended.said, expected, is_poison=work.is_poison)


async def run(
    config: Config,
    cluster: Cluster,
    redis: RedisProcess,
    load: Sequence[Work],
    faults: Sequence[Fault],
    expected: Mapping[str, Sequence[Said]],  # by name of the request
    *,
    concurrency: int,
    is_apart: bool = False,  # faults wait until what came before is recovered from
    on_request: Callable[[], None] = lambda: None,
    on_fault: Callable[[Felt], None] = lambda felt: None,
) -> Chaos:
    """Every request has ended, every fault has happened, and everything is there again or was waited for in vain.

    The load goes round again until then: a part that comes back finds work.

    Raises:
        FlashSDError: the cluster does not answer before anything is hurt.
    """
    began_s, changed = perf_counter(), asyncio.Condition()
    fates: list[Fate] = []

    def now() -> float:
        return perf_counter() - began_s

    clients = Clients(cluster.http_url, cluster.grpc_address, config)
    await clients.open()
    saboteur = Saboteur(cluster, redis, config, now)

    async def ask(work: Work) -> None:
        start_s = now()
        try:
            ended = await within(HANG_S, clients.ask(work, now))
        except asyncio.TimeoutError:
            ended = Ended(code="HUNG", detail=f"no end within {HANG_S:g} s")
        fates.append(
            Fate(
                work=work,
                start_s=start_s,
                end_s=now(),
                verdict=judge(work, ended, expected[work.name]),
                code=ended.code,
                detail=ended.detail,
                num_attempts=ended.num_attempts,
            )
        )
        on_request()
        async with changed:
            changed.notify_all()

    hurt = [fault for fault in faults if fault.action != "poison"]
    hurting = asyncio.create_task(carry_out(hurt, saboteur, lambda: len(fates), changed, on_fault, is_apart=is_apart))
    waiting = rounds_of(load, hurting.done)

    async def ask_in_turn() -> None:
        for work in waiting:
            await ask(work)

    await asyncio.gather(*(ask_in_turn() for _ in range(concurrency)))
    felt = [*await hurting, *_poisons(fates)]
    await clients.close()
    _answered(felt, fates)
    felt.sort(key=lambda one: one.began_s)
    return Chaos(fates=fates, felt=felt, leftovers=saboteur.leftovers(), seconds=now())


def rounds_of(load: Sequence[Work], is_over: Callable[[], bool]) -> Iterator[Work]:
    """The whole load, then what is no poison of it again and again until it is over."""
    yield from load
    again = [work for work in load if not work.is_poison]
    while again and not is_over():
        for work in again:
            if is_over():
                return
            yield work


def _poisons(fates: Sequence[Fate]) -> list[Felt]:
    """A poison is felt from its first attempt until it is refused."""
    return [
        Felt(fault=fate.work.fault, victim=fate.work.name, began_s=fate.start_s, whole_s=fate.end_s)
        for fate in fates
        if fate.work.fault is not None
    ]


def _answered(felt: Sequence[Felt], fates: Sequence[Fate]) -> None:
    for one in felt:
        later = [fate.end_s for fate in fates if fate.start_s >= one.began_s and fate.verdict == "right"]
        one.answered_s = min(later, default=None)
